//! A listener: where clients connect, and what their bytes go through before they are packets.
//!
//! An entry of `listen` is one with nothing but an address; a table `[listener.NAME]` is one with settings of its own,
//! which are the rows of [`SETTINGS`].

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::Method;
use super::error::Complaint;
use super::rate_limits;
use super::setting::{Kind, Setting, choose, word_of};
use crate::rates::Limits;
use crate::transport::proxy::Trusted;

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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// By what.
    pub protocol: Protocol,
    /// Where.
    pub place: Place,
}

/// Where one listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// An address and a port.
    Ip(SocketAddr),
    /// A socket in the file system, for processes of this host.
    Unix(PathBuf),
}

impl Place {
    /// Whether it is the same one each time.
    pub(super) fn is_fixed(&self) -> bool {
        match self {
            Place::Ip(socket) => socket.port() != 0,
            Place::Unix(_) => true,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Ip(socket) => socket.fmt(formatter),
            Place::Unix(path) => path.display().fmt(formatter),
        }
    }
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Address, Complaint> {
        let cause = || format!("{text:?} is not an address to listen on");
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            let length = path.as_os_str().len();
            if !path.is_absolute() || length > UNIX_PATH_BYTES_MAX {
                let cure = format!(
                    "write unix:///run/ironpost/mqtt.sock: an absolute path of at most {UNIX_PATH_BYTES_MAX} bytes"
                );
                return Err(Complaint::new(cause(), cure));
            }
            return Ok(Address { protocol: Protocol::Tcp, place: Place::Unix(path) });
        }
        let scheme = text.split_once("://");
        let Some((protocol, port, place)) = scheme.and_then(|(scheme, place)| {
            let row = PROTOCOLS.iter().find(|(name, ..)| *name == scheme)?;
            Some((row.1, row.2, place))
        }) else {
            return Err(Complaint::new(
                cause(),
                "begin with tcp://, tls://, ws://, wss:// or unix://, like tcp://127.0.0.1:1883",
            ));
        };
        if place.parse::<IpAddr>().is_ok() {
            return Err(Complaint::new(cause(), format!("add the port: {text}:{port}")));
        }
        let cure = "write a literal address and a port: tcp://127.0.0.1:1883 or tcp://[::1]:1883";
        let socket = place.parse().map_err(|_| Complaint::new(cause(), cure))?;
        Ok(Address { protocol, place: Place::Ip(socket) })
    }

    /// Whether an address alone does not make a listener of it.
    pub(super) fn needs_more(&self) -> bool {
        self.protocol.is_tls()
    }

    /// Whether hosts other than this one can reach it. An IPv4 loopback address inside an IPv6 one is loopback, too.
    pub fn is_open(&self) -> bool {
        match &self.place {
            Place::Ip(socket) => !socket.ip().to_canonical().is_loopback(),
            Place::Unix(_) => false,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Place::Unix(path) = &self.place {
            return write!(formatter, "unix://{}", path.display());
        }
        let row = PROTOCOLS.iter().find(|(_, protocol, _)| *protocol == self.protocol);
        write!(formatter, "{}://{}", row.expect("every protocol has its word").0, self.place)
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
    /// What clients have to prove, one of these; none: nothing.
    pub authentication: Vec<Method>,
    /// Who may connect, and says first for whom (PROXY protocol); none: everybody, for themselves.
    pub proxy_from: Trusted,
    /// Who may use a socket in the file system: permission bits.
    pub mode: u32,
    /// What all its connections together may do.
    pub rate_limits: Limits,
}

/// Whether a client has to show a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientCertificates {
    /// Without one it is refused.
    Required,
    /// With a bad one it is refused.
    Optional,
}

const METHODS: &[(&str, Method)] = &[
    ("certificate", Method::Certificate),
    ("scram", Method::Scram),
    ("token", Method::Token),
    ("password", Method::Password),
    ("hook", Method::Hook),
];

/// Longest path of a socket: what the kernel has room for [unix(7)], with its end.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// The owner of the process, and nobody else.
const UNIX_MODE_DEFAULT: u32 = 0o600;

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
            authentication: Vec::new(),
            proxy_from: Trusted::default(),
            mode: UNIX_MODE_DEFAULT,
            rate_limits: Limits::default(),
        }
    }

    /// Whether who connects has to prove something.
    pub fn is_guarded(&self) -> bool {
        !self.authentication.is_empty()
            || !self.client_authorities.is_empty() && self.client_certificates == ClientCertificates::Required
    }

    /// Where its table says that it listens.
    pub fn address(&self) -> Address {
        self.address.clone().expect("a configuration that was loaded has an address in each table")
    }

    /// What no row can decide alone: the key that is wrong, and how.
    pub(super) fn check(&self) -> Result<(), (&'static str, Complaint)> {
        let Some(address) = &self.address else {
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
        } else if self.authentication.contains(&Method::Certificate) && self.client_authorities.is_empty() {
            let cure = "name in client_authorities who vouches for clients, or delete it";
            ("authentication", "\"certificate\" asks for what no client is asked for", cure)
        } else if self.mode != UNIX_MODE_DEFAULT && matches!(address.place, Place::Ip(_)) {
            let cure = "write unix:// in the address, or delete it";
            ("mode", "there is no use for mode without a socket in the file system", cure)
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

fn methods(texts: &[String]) -> Result<Vec<Method>, Complaint> {
    let all: Vec<Method> =
        texts.iter().map(|text| choose("authentication", text, METHODS)).collect::<Result<_, _>>()?;
    if let Some(again) = (1..all.len()).find(|index| all[..*index].contains(&all[*index])) {
        let cause = format!("{:?} is there twice", method_word(all[again]));
        return Err(Complaint::new(cause, "the first that applies decides: delete one of them"));
    }
    Ok(all)
}

/// Its name in the file.
pub(super) fn method_word(method: Method) -> String {
    word_of(&method, METHODS)
}

fn mode(text: &str) -> Result<u32, Complaint> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && !text.is_empty()).ok_or_else(|| {
        let cure = "write permission bits in octal, like \"660\" for the owner and the group";
        Complaint::new(format!("{text:?} is no mode"), cure)
    })
}

fn texts(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

/// All settings of a listener, in the order of the example.
pub(super) const SETTINGS: &[Setting<Listener>] = &[
    Setting {
        key: "address",
        kind: Kind::Text {
            get: |listener| listener.address.as_ref().map(Address::to_string).unwrap_or_default(),
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
    Setting {
        key: "authentication",
        kind: Kind::Texts {
            get: |listener| listener.authentication.iter().map(|method| method_word(*method)).collect(),
            set: |listener, names| methods(names).map(|methods| listener.authentication = methods),
        },
    },
    Setting {
        key: "proxy_from",
        kind: Kind::Texts {
            get: |listener| listener.proxy_from.texts(),
            set: |listener, names| {
                let trusted = Trusted::parse(names.iter().map(String::as_str));
                let trusted = trusted.map_err(|error| Complaint::new(error.cause, error.cure))?;
                listener.proxy_from = trusted;
                Ok(())
            },
        },
    },
    Setting {
        key: "mode",
        kind: Kind::Text {
            get: |listener| format!("{:o}", listener.mode),
            set: |listener, text| mode(text).map(|mode| listener.mode = mode),
        },
    },
    Setting {
        key: "rate_limits",
        kind: Kind::Texts {
            get: |listener| rate_limits::shown_of_listener(&listener.rate_limits),
            set: |listener, texts| {
                rate_limits::of_listener(texts).map(|limits| listener.rate_limits = limits)
            },
        },
    },
];
