//! What lies between the bytes of a socket and packets: nothing on a plain listener; TLS, WebSocket, or the one in the other
//! elsewhere.
//!
//! A [`Transport`] is the state of one connection: it takes what was received and yields what the peer said; it takes
//! what is to be said and yields what is to be sent. It does no I/O, knows no shard, and decides nothing about MQTT.
//! Called by `shard`, which owns the socket, and by [`handshake`], which other threads execute because it takes too long for a turn.
//!
//! - `tls`: records, by rustls
//! - `websocket`: a request, then frames
//! - `certificates`: from files to what TLS presents
//! - `handshake`: a step of one, as work for another thread
//! - `proxy`: what a proxy in front says of where a connection comes from; before all others, and no part of [`Transport`]
//!
//! Invariant: an idle transport holds no buffer. What is not yet a whole record, or a whole request, is kept as long as that
//! lasts, and is at most one of them.

pub mod certificates;
pub mod handshake;
pub mod proxy;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod websocket;

use std::fmt;
use std::sync::Arc;

pub use tls::{HTTP, MQTT, Server, server};
pub use websocket::Web;

/// Why a transport ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Broken {
    /// The peer does not speak this protocol, or not properly; its text is for the log.
    Peer(String),
    /// So many records were sent under one key that no more may be.
    Exhausted,
}

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Peer(what) => formatter.write_str(what),
            Broken::Exhausted => formatter.write_str("its keys are worn out"),
        }
    }
}

/// What the connections of a listener get.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// Between TCP and what follows.
    pub tls: Option<Arc<Server>>,
    /// Between that and packets.
    pub web: Option<Arc<Web>>,
}

/// What the bytes of one connection go through. See the module documentation.
pub struct Transport {
    tls: Option<tls::Session>,
    web: Option<websocket::Session>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No key, no byte of a peer.
        formatter.debug_struct("Transport").field("takes_long", &self.takes_long()).finish()
    }
}

impl Transport {
    /// Of a connection that was just accepted.
    pub fn new(layers: &Layers) -> Transport {
        Transport {
            tls: layers.tls.as_ref().map(tls::Session::new),
            web: layers.web.as_ref().map(websocket::Session::new),
        }
    }

    /// Takes what was received, and appends what it says to `plain`. Also where that fails there may be something to
    /// send: an alert, or a refusal.
    pub fn receive(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Broken> {
        match (&mut self.tls, &mut self.web) {
            (Some(tls), Some(web)) => {
                let mut between = Vec::new();
                let result = tls.receive(bytes, &mut between);
                web.receive(&mut between, plain).and(result)
            }
            (Some(tls), None) => tls.receive(bytes, plain),
            (None, Some(web)) => web.receive(bytes, plain),
            (None, None) => {
                plain.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Whether what is received next may take long to answer: the two sides have not proven to each other who they are.
    /// Until then nothing can be said.
    pub fn takes_long(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.is_established())
    }

    /// Whether the peer has said that it sends no more.
    pub fn is_ended(&self) -> bool {
        self.tls.as_ref().is_some_and(tls::Session::is_ended)
            || self.web.as_ref().is_some_and(websocket::Session::is_ended)
    }

    /// The certificate that the client has shown, DER, once it is established.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.tls.as_ref().and_then(tls::Session::certificate)
    }

    /// Whether there is something to send that nobody has asked it to say.
    pub fn wants_to_send(&self) -> bool {
        self.tls.as_ref().is_some_and(tls::Session::wants_to_send)
            || self.web.as_ref().is_some_and(websocket::Session::wants_to_send)
    }

    /// Bytes that it has room for, of what is under way.
    #[cfg(test)]
    fn buffered(&self) -> usize {
        self.tls.as_ref().map_or(0, tls::Session::buffered)
            + self.web.as_ref().map_or(0, websocket::Session::buffered)
    }

    /// What is to be sent now, in order: answers of its own, then `plain`. Nothing of `plain` while it `takes_long`.
    pub fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), Broken> {
        match (&mut self.tls, &mut self.web) {
            (Some(tls), Some(web)) => {
                let mut between = Vec::new();
                web.send(plain, &mut between);
                tls.send(&between, wire)
            }
            (Some(tls), None) => tls.send(plain, wire),
            (None, Some(web)) => {
                web.send(plain, wire);
                Ok(())
            }
            (None, None) => {
                wire.extend_from_slice(plain);
                Ok(())
            }
        }
    }

    /// Appends what tells the peer that nothing more comes, once.
    pub fn close(&mut self, wire: &mut Vec<u8>) {
        match (&mut self.tls, &mut self.web) {
            (Some(tls), Some(web)) if tls.is_established() => {
                let mut between = Vec::new();
                web.close(&mut between);
                // Who cannot be told is not: the end of the stream follows.
                let _untold = tls.send(&between, wire);
                tls.close(wire);
            }
            (Some(tls), _) => tls.close(wire),
            (None, Some(web)) => web.close(wire),
            (None, None) => {}
        }
    }
}
