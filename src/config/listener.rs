//! A listener: where clients connect, and what their bytes go through before they are packets.
//!
//! An entry of `listen` is one with nothing but an address; a table `[listener.NAME]` is one with settings of its own,
//! which are the rows of [`SETTINGS`].

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::error::Complaint;
use super::setting::{Kind, Setting, choose, word_of};

/// What carries the packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket over TCP.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

const PROTOCOLS: &[(&str, Protocol, u16)] = &[
    ("tcp", Protocol::Tcp, 1883),
    ("tls", Protocol::Tls, 8883),
    ("ws", Protocol::Ws, 8083),
    ("wss", Protocol::Wss, 8084),
];

impl Protocol {
    /// Whether an address alone does not make a listener of it.
    pub(super) fn needs_more(self) -> bool {
        self.is_tls()
    }

    /// Whether its bytes are TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Protocol::Tls | Protocol::Wss)
    }

    /// Whether what is in them is WebSocket.
    pub fn is_web(self) -> bool {
        matches!(self, Protocol::Ws | Protocol::Wss)
    }
}

/// Where, and by what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// By what.
    pub protocol: Protocol,
    /// Where.
    pub socket: SocketAddr,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Address, Complaint> {
        let cause = || format!("{text:?} is not an address to listen on");
        let scheme = text.split_once("://");
        let Some((protocol, port, place)) = scheme.and_then(|(scheme, place)| {
            let row = PROTOCOLS.iter().find(|(name, ..)| *name == scheme)?;
            Some((row.1, row.2, place))
        }) else {
            return Err(Complaint::new(
                cause(),
                "begin with tcp://, tls://, ws:// or wss://, like tcp://127.0.0.1:1883",
            ));
        };
        if place.parse::<IpAddr>().is_ok() {
            return Err(Complaint::new(cause(), format!("add the port: {text}:{port}")));
        }
        let cure = "write a literal address and a port: tcp://127.0.0.1:1883 or tcp://[::1]:1883";
        let socket = place.parse().map_err(|_| Complaint::new(cause(), cure))?;
        Ok(Address { protocol, socket })
    }

    /// Whether hosts other than this one can reach it. An IPv4 loopback address inside an IPv6 one is loopback, too.
    pub fn is_open(&self) -> bool {
        !self.socket.ip().to_canonical().is_loopback()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = PROTOCOLS.iter().find(|(_, protocol, _)| *protocol == self.protocol);
        write!(formatter, "{}://{}", row.expect("every protocol has its word").0, self.socket)
    }
}

/// A table `[listener.NAME]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Of the operator's choice.
    pub name: String,
    /// Where; `None` only until the file has said it.
    pub address: Option<Address>,
    /// PEM files: certificate chains, the server's own certificate first.
    pub certificates: Vec<PathBuf>,
    /// PEM files: the private key of each.
    pub keys: Vec<PathBuf>,
    /// PEM files: who vouches for clients; none: these are not asked for certificates.
    pub client_authorities: Vec<PathBuf>,
    /// Whether they have to have one, if they are asked.
    pub client_certificates: ClientCertificates,
    /// PEM files: certificates that are no longer good.
    pub client_revoked: Vec<PathBuf>,
    /// Pages that may connect, by their origin; none: all.
    pub origins: Vec<String>,
}

/// Whether a client has to show a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientCertificates {
    /// Without one it is refused.
    Required,
    /// With a bad one it is refused.
    Optional,
}

const CLIENT_CERTIFICATES: &[(&str, ClientCertificates)] =
    &[("required", ClientCertificates::Required), ("optional", ClientCertificates::Optional)];

impl Listener {
    pub(super) fn named(name: &str) -> Listener {
        Listener {
            name: name.to_owned(),
            address: None,
            certificates: Vec::new(),
            keys: Vec::new(),
            client_authorities: Vec::new(),
            client_certificates: ClientCertificates::Required,
            client_revoked: Vec::new(),
            origins: Vec::new(),
        }
    }

    /// Where its table says that it listens.
    pub fn address(&self) -> Address {
        self.address.expect("a configuration that was loaded has an address in each table")
    }

    /// What no row can decide alone: the key that is wrong, and how.
    pub(super) fn check(&self) -> Result<(), (&'static str, Complaint)> {
        let Some(address) = self.address else {
            let cure = "write one, like address = \"tls://0.0.0.0:8883\"";
            return Err(("address", Complaint::new(format!("listener.{} has no address", self.name), cure)));
        };
        let (is_tls, is_web) = (address.protocol.is_tls(), address.protocol.is_web());
        let (certificates, keys) = (self.certificates.len(), self.keys.len());
        let complaint = if is_tls && certificates == 0 {
            let cure = "name its PEM file in certificates, and its key in keys";
            ("certificates", "TLS needs a certificate", cure)
        } else if is_tls && certificates != keys {
            let cure = "name as many files in keys as in certificates, in the same order";
            ("keys", "each certificate has one key", cure)
        } else if !is_tls && certificates > 0 {
            let cure = "write tls:// or wss:// in the address, or delete them";
            ("certificates", "there is no use for certificates without TLS", cure)
        } else if !is_tls && keys > 0 {
            let cure = "write tls:// or wss:// in the address, or delete them";
            ("keys", "there is no use for keys without TLS", cure)
        } else if !is_tls && !self.client_authorities.is_empty() {
            let cure = "write tls:// or wss:// in the address, or delete them";
            ("client_authorities", "there is no use for client_authorities without TLS", cure)
        } else if self.client_authorities.is_empty() && !self.client_revoked.is_empty() {
            let cure = "name in client_authorities who vouches for clients, or delete it";
            ("client_revoked", "without client_authorities no client is asked for a certificate", cure)
        } else if !is_web && !self.origins.is_empty() {
            let cure = "write ws:// or wss:// in the address, or delete them";
            ("origins", "there is no use for origins without WebSocket", cure)
        } else {
            return Ok(());
        };
        let (key, cause, cure) = complaint;
        Err((key, Complaint::new(format!("listener.{}: {cause}", self.name), cure)))
    }
}

/// Whether a table may have that name: it stands in logs and metrics.
pub(super) fn is_name(name: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

/// Longest name of a listener.
pub(super) const NAME_BYTES_MAX: usize = 32;

fn paths(texts: &[String]) -> Result<Vec<PathBuf>, Complaint> {
    if texts.iter().any(String::is_empty) {
        return Err(Complaint::new("a file name is empty", "name a PEM file, or delete the entry"));
    }
    Ok(texts.iter().map(PathBuf::from).collect())
}

fn origins(texts: &[String]) -> Result<Vec<String>, Complaint> {
    // [RFC 6454 6.2]
    let is_origin = |text: &str| {
        text.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && !host.is_empty() && !host.contains(|byte| "/?#".contains(byte))
        })
    };
    if let Some(text) = texts.iter().find(|text| !is_origin(text)) {
        let cure =
            "write it as a browser does: https://app.example.com, with a port if it is not the usual one";
        return Err(Complaint::new(format!("{text:?} is no origin"), cure));
    }
    Ok(texts.to_vec())
}

fn texts(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

/// All settings of a listener, in the order of the example.
pub(super) const SETTINGS: &[Setting<Listener>] = &[
    Setting {
        key: "address",
        kind: Kind::Text {
            get: |listener| listener.address.map(|address| address.to_string()).unwrap_or_default(),
            set: |listener, text| Address::parse(text).map(|address| listener.address = Some(address)),
        },
    },
    Setting {
        key: "certificates",
        kind: Kind::Texts {
            get: |listener| texts(&listener.certificates),
            set: |listener, names| paths(names).map(|paths| listener.certificates = paths),
        },
    },
    Setting {
        key: "keys",
        kind: Kind::Texts {
            get: |listener| texts(&listener.keys),
            set: |listener, names| paths(names).map(|paths| listener.keys = paths),
        },
    },
    Setting {
        key: "client_authorities",
        kind: Kind::Texts {
            get: |listener| texts(&listener.client_authorities),
            set: |listener, names| paths(names).map(|paths| listener.client_authorities = paths),
        },
    },
    Setting {
        key: "client_certificates",
        kind: Kind::Text {
            get: |listener| word_of(&listener.client_certificates, CLIENT_CERTIFICATES),
            set: |listener, text| {
                choose("client_certificates", text, CLIENT_CERTIFICATES)
                    .map(|choice| listener.client_certificates = choice)
            },
        },
    },
    Setting {
        key: "client_revoked",
        kind: Kind::Texts {
            get: |listener| texts(&listener.client_revoked),
            set: |listener, names| paths(names).map(|paths| listener.client_revoked = paths),
        },
    },
    Setting {
        key: "origins",
        kind: Kind::Texts {
            get: |listener| listener.origins.clone(),
            set: |listener, names| origins(names).map(|origins| listener.origins = origins),
        },
    },
];
