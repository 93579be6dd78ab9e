//! TLS records by rustls, without its buffers: they are ours, and only there while something is under way.
//!
//! TLS 1.3 and 1.2 with forward secrecy and AEAD ciphers only, which is all that rustls has [RFC 8446, RFC 5246,
//! RFC 9325]. Sessions are resumed by tickets that the client keeps; the server keeps nothing for them.
//!
//! Not handed to the kernel (kTLS) once they are established: there a session is larger in all, and ends when the client renews its
//! key. bench/README.md, "In the kernel's hands", has the figures.

use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{ServerConfig, server::ServerConnectionData};

use super::Broken;
use super::certificates::Certificates;
use crate::limits::TLS_PARTIAL_BYTES_MAX;

/// What clients offer by ALPN for MQTT, and browsers for a WebSocket [IANA, TLS ALPN Protocol IDs].
pub const MQTT: &[u8] = b"mqtt";
/// See [`MQTT`].
pub const HTTP: &[u8] = b"http/1.1";

/// Bytes that a record has beside its content, at most: header, explicit nonce, content type and tag.
const RECORD_BYTES_MORE: usize = 5 + 8 + 1 + 16;

/// Content of a record, at most [RFC 8446 5.1].
const RECORD_BYTES_MAX: usize = 1 << 14;

/// What the connections of one listener have in common.
pub struct Server {
    config: Arc<ServerConfig>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Server")
    }
}

/// A server that presents these certificates to clients that say by ALPN that they want `protocol`, or nothing, and that asks
/// for theirs if it is told how to check them. Tickets of `before` stay good, but for clients that were checked: who comes
/// back with a ticket is not checked again, and may have been revoked.
pub fn server(
    certificates: Certificates,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    protocol: &[u8],
    before: Option<&Server>,
) -> Result<Server, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(super::certificates::provider())
        .with_safe_default_protocol_versions()?;
    let before = before.filter(|_| clients.is_none());
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = match before {
        Some(before) => before.config.ticketer.clone(),
        None => rustls::crypto::ring::Ticketer::new()?,
    };
    // A client comes back once. Another ticket would be 250 bytes and some CPU for nothing.
    config.send_tls13_tickets = 1;
    Ok(Server { config: Arc::new(config) })
}

/// One connection's.
pub(super) struct Session {
    connection: Box<UnbufferedServerConnection>,
    /// The beginning of a record.
    partial: Vec<u8>,
    /// To be sent before anything else.
    answers: Vec<u8>,
    is_established: bool,
    is_ended: bool,
    is_closed: bool,
    /// It has failed. What rustls knows of `partial` is no more, so it is not to be asked for anything.
    is_broken: bool,
}

impl Session {
    pub(super) fn new(server: &Arc<Server>) -> Session {
        let connection = UnbufferedServerConnection::new(server.config.clone());
        Session {
            connection: Box::new(connection.expect("only a fragment size that we do not set is refused")),
            partial: Vec::new(),
            answers: Vec::new(),
            is_established: false,
            is_ended: false,
            is_closed: false,
            is_broken: false,
        }
    }

    pub(super) fn is_established(&self) -> bool {
        self.is_established
    }

    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// The client's own, of the chain that was checked.
    pub(super) fn certificate(&self) -> Option<&[u8]> {
        self.connection.peer_certificates().and_then(|chain| chain.first()).map(|first| &**first)
    }

    pub(super) fn wants_to_send(&self) -> bool {
        !self.answers.is_empty()
    }

    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.partial.capacity() + self.answers.capacity()
    }

    pub(super) fn receive(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Broken> {
        if self.is_broken {
            return Ok(());
        }
        if self.partial.is_empty() {
            let taken = self.process(bytes, plain)?;
            self.partial.extend_from_slice(&bytes[taken..]);
        } else {
            let mut records = std::mem::take(&mut self.partial);
            records.extend_from_slice(bytes);
            let taken = self.process(&mut records, plain)?;
            if taken < records.len() {
                records.drain(..taken);
                self.partial = records;
            }
        }
        if self.partial.len() > TLS_PARTIAL_BYTES_MAX {
            self.is_broken = true;
            return Err(Broken::Peer("a record or a handshake message is too large".to_owned()));
        }
        Ok(())
    }

    /// Handles the whole records in `records`; returns how many bytes they were.
    fn process(&mut self, records: &mut [u8], plain: &mut Vec<u8>) -> Result<usize, Broken> {
        let mut taken = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut records[taken..]);
            let mut is_all = false;
            let mut broken = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                plain.extend_from_slice(record.payload);
                                discard += record.discard;
                            }
                            Err(error) => broken = Some(error),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.answers, 0, |into| data.encode(into).map_err(too_small_to_encode));
                }
                // `answers` leave as they are, so this is as good as done.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_ended = true,
                Ok(ConnectionState::WriteTraffic(_)) => {
                    self.is_established = true;
                    is_all = true;
                }
                Ok(ConnectionState::ReadEarlyData(_)) => unreachable!("early data is not offered"),
                // Blocked until more comes, or closed on both sides.
                Ok(_) => is_all = true,
                Err(error) => broken = Some(error),
            }
            taken += discard;
            if let Some(error) = broken {
                self.is_broken = true;
                self.take_alert(&mut records[taken..]);
                return Err(Broken::Peer(error.to_string()));
            }
            if is_all {
                return Ok(taken);
            }
        }
    }

    /// After an error there may be an alert to send, and what was to be sent before it. `records` are what is left of those
    /// that rustls has seen, and holds places of. If there are any, it is asked once: behind the alert it would come upon
    /// the same error again.
    fn take_alert(&mut self, records: &mut [u8]) {
        while let Ok(state) = self.connection.process_tls_records(records).state {
            match state {
                ConnectionState::EncodeTlsData(mut data) => {
                    append(&mut self.answers, 0, |into| data.encode(into).map_err(too_small_to_encode));
                }
                _ => return,
            }
            if !records.is_empty() {
                return;
            }
        }
    }

    pub(super) fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), Broken> {
        wire.append(&mut std::mem::take(&mut self.answers));
        if plain.is_empty() || self.is_broken {
            return Ok(());
        }
        debug_assert!(self.is_established);
        let room = plain.len() + plain.len().div_ceil(RECORD_BYTES_MAX) * RECORD_BYTES_MORE;
        self.write(wire, |traffic, wire| {
            append(wire, room, |into| traffic.encrypt(plain, into).map_err(too_small_to_encrypt))
        })
    }

    pub(super) fn close(&mut self, wire: &mut Vec<u8>) {
        if self.is_closed || self.is_broken || !self.is_established {
            return;
        }
        self.is_closed = true;
        // What cannot be said any more is not missed: the end of the stream follows.
        let _unsaid = self.write(wire, |traffic, wire| {
            append(wire, 0, |into| traffic.queue_close_notify(into).map_err(too_small_to_encrypt))
        });
    }

    /// Lets `write` write, behind what rustls wants to say first.
    fn write(
        &mut self,
        wire: &mut Vec<u8>,
        write: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>, &mut Vec<u8>) -> bool,
    ) -> Result<(), Broken> {
        loop {
            // Not nothing, but what it has seen and is not done with. There is no whole record in it.
            match self.connection.process_tls_records(&mut self.partial).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    return if write(&mut traffic, wire) { Ok(()) } else { Err(Broken::Exhausted) };
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(wire, 0, |into| data.encode(into).map_err(too_small_to_encode));
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                // The peer sends no more; it may still read.
                Ok(ConnectionState::PeerClosed) => self.is_ended = true,
                Ok(_) => return Err(Broken::Peer("it has closed".to_owned())),
                Err(error) => return Err(Broken::Peer(error.to_string())),
            }
        }
    }
}

/// How many bytes are needed, if that is what was wrong.
fn too_small_to_encode(error: EncodeError) -> Option<usize> {
    match error {
        EncodeError::InsufficientSize(error) => Some(error.required_size),
        EncodeError::AlreadyEncoded => None,
    }
}

fn too_small_to_encrypt(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(error) => Some(error.required_size),
        EncryptError::EncryptExhausted => None,
    }
}

/// Appends what `fill` writes, which says how much room it lacks, or that it cannot: then `false`.
fn append(
    to: &mut Vec<u8>,
    room: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> bool {
    let before = to.len();
    let mut room = room;
    loop {
        to.resize(before + room, 0);
        match fill(&mut to[before..]) {
            Ok(written) => {
                to.truncate(before + written);
                return true;
            }
            Err(Some(needed)) if needed > room => room = needed,
            Err(_) => {
                to.truncate(before);
                return false;
            }
        }
    }
}
