//! TLS on a client's connection: which servers are spoken to that way, and what one connection keeps for it.
//!
//! Decides what is offered: TLS 1.3 with one key exchange and one cipher, so that servers that are compared do the same
//! work, and no resumption, so that each connection shakes hands in full. The certificate is checked as a real client
//! does. Like passwords (`credentials`) it is the server that needs it and a scenario knows only its address, so the
//! addresses that speak TLS are kept here: `server` adds one when it starts such a broker, `fleet` asks once for all its
//! clients.
//!
//! A connection keeps about 8 KB: what rustls holds, and its buffer for one small record.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, version};

/// How all clients of one server speak TLS with it.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

static SERVERS: Mutex<BTreeMap<SocketAddr, Tls>> = Mutex::new(BTreeMap::new());

/// Who connects to `address` speaks TLS from now on, and believes a server called `name` that one of the certificates in
/// `authorities` (PEM) vouches for.
pub fn speak_at(address: SocketAddr, authorities: &[u8], name: &str) -> Result<()> {
    servers().insert(address, Tls::new(authorities, name)?);
    Ok(())
}

/// The server at `address` is gone; the next one there may be another.
pub fn forget(address: SocketAddr) {
    servers().remove(&address);
}

/// How to speak with the server at `address`, if by TLS.
pub fn spoken_at(address: SocketAddr) -> Option<Tls> {
    servers().get(&address).cloned()
}

/// Nothing can be half done while the lock is held.
fn servers() -> MutexGuard<'static, BTreeMap<SocketAddr, Tls>> {
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tls {
    fn new(authorities: &[u8], name: &str) -> Result<Tls> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            let certificate = certificate.context("a certificate is not PEM")?;
            roots.add(certificate).context("a certificate cannot vouch for a server")?;
        }
        ensure!(!roots.is_empty(), "there is no certificate in it");
        let mut config = ClientConfig::builder_with_provider(Arc::new(offer()))
            .with_protocol_versions(&[&version::TLS13])
            .context("the one cipher is of TLS 1.3")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        let name = ServerName::try_from(name.to_owned()).context("the name of the server")?;
        Ok(Tls { config: Arc::new(config), name })
    }

    /// The client's side of a new connection, which has not said anything yet.
    pub fn connection(&self) -> io::Result<Connection> {
        let state = ClientConnection::new(self.config.clone(), self.name.clone());
        Ok(Connection { state: Box::new(state.map_err(io::Error::other)?) })
    }
}

/// What every TLS 1.3 server has [RFC 8446 9.1], with the key exchange that clients prefer today.
fn offer() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![ring::kx_group::X25519],
        ..ring::default_provider()
    }
}

/// One connection's keys and records under way.
pub struct Connection {
    state: Box<ClientConnection>,
}

impl Connection {
    /// Reads once from `stream`, and writes what that brought as plain bytes into `plain`; 0 is the end, as ever. There must
    /// be room for a record.
    pub fn read(&mut self, stream: &mut TcpStream, plain: &mut [u8]) -> io::Result<usize> {
        if self.state.read_tls(stream)? == 0 {
            return Ok(0);
        }
        let state = self.state.process_new_packets().map_err(io::Error::other)?;
        let mut count = 0;
        while count < plain.len() {
            match self.state.reader().read(&mut plain[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if count == 0 && !state.peer_has_closed() { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    /// Takes plain bytes, as soon as there are keys, and sends as much as the kernel takes. Returns how many it took, and
    /// whether some of what it took is still to be sent.
    pub fn write(&mut self, stream: &mut TcpStream, plain: &[u8]) -> io::Result<(usize, bool)> {
        let mut taken = 0;
        loop {
            if !self.state.is_handshaking() {
                taken += self.state.writer().write(&plain[taken..])?;
            }
            while self.state.wants_write() {
                match self.state.write_tls(stream) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((taken, true)),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if taken == plain.len() || self.state.is_handshaking() {
                return Ok((taken, false));
            }
        }
    }

    /// Whether it has something to say of its own: a step of the handshake, or an alert.
    pub fn wants_to_write(&self) -> bool {
        self.state.wants_write()
    }

    /// Whether there are keys, so that plain bytes can be sent.
    pub fn is_established(&self) -> bool {
        !self.state.is_handshaking()
    }

    /// What both sides agreed on.
    pub fn negotiated(&self) -> String {
        let version = self.state.protocol_version().map(|version| format!("{version:?}"));
        let cipher = self.state.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
        let group = self.state.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()));
        let handshake = self.state.handshake_kind().map(|kind| format!("{kind:?} handshake"));
        let known = [version, cipher, group, handshake].into_iter().flatten();
        known.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::link::{Arrived, Link};
    use crate::poll::{Interest, Poller};
    use rustls::{ServerConfig, ServerConnection, Stream};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    /// Answers one client with what it says, until it leaves. Returns where, and the certificate.
    fn echo() -> (SocketAddr, String) {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::from(certified.signing_key);
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = Stream::new(&mut connection, &mut socket);
            let mut bytes = [0; 4_096];
            while let Ok(count) = stream.read(&mut bytes)
                && count > 0
            {
                stream.write_all(&bytes[..count]).unwrap();
            }
        });
        (address, certified.cert.pem())
    }

    /// Says `text` and reads until as much has come back.
    fn say(address: SocketAddr, text: &[u8]) -> io::Result<(Vec<u8>, String)> {
        let mut poller = Poller::new()?;
        let stream = crate::client::dial::dial(address, 0)?;
        let mut link = Link::register(stream, &poller, 0, Interest::ReadWrite)?;
        link.wrap(spoken_at(address).expect("it was said so").connection()?);
        link.outbound.extend_from_slice(text);
        let (mut heard, mut scratch) = (Vec::new(), vec![0; 64 << 10]);
        while heard.len() < text.len() {
            let count = poller.wait(Some(Duration::from_secs(10)))?;
            assert_eq!(count, 1, "ten seconds without an answer");
            let ready = poller.ready(0);
            if ready.writable {
                link.flush(&poller)?;
            }
            if ready.readable {
                match link.read(&mut scratch)? {
                    Arrived::Bytes(end) => heard.extend_from_slice(&scratch[..end]),
                    Arrived::Nothing => {}
                    Arrived::End => return Err(io::Error::other("it ended")),
                }
            }
            if link.has_more_to_say() {
                link.flush(&poller)?;
            }
        }
        Ok((heard, link.negotiated().expect("it is established")))
    }

    #[test]
    fn what_was_said_before_there_were_keys_arrives_and_much_is_cut_into_records() {
        let (address, certificate) = echo();
        speak_at(address, certificate.as_bytes(), "localhost").unwrap();
        let text: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
        let (heard, negotiated) = say(address, &text).unwrap();
        assert!(heard == text);
        assert_eq!(negotiated, "TLSv1_3, TLS13_AES_128_GCM_SHA256, X25519, Full handshake");
        forget(address);
        assert!(spoken_at(address).is_none());
    }

    #[test]
    fn a_server_that_nobody_vouches_for_or_of_another_name_is_not_believed() {
        let (address, _) = echo();
        let (_, of_another) = echo();
        speak_at(address, of_another.as_bytes(), "localhost").unwrap();
        assert!(say(address, b"hello").unwrap_err().to_string().contains("certificate"));
        let (address, certificate) = echo();
        speak_at(address, certificate.as_bytes(), "elsewhere").unwrap();
        assert!(say(address, b"hello").unwrap_err().to_string().contains("certificate"));
        assert!(speak_at(address, b"not PEM", "localhost").is_err(), "it vouches for nobody");
    }
}
