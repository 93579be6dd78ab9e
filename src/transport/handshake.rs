//! A step of a handshake, as work for another thread: bytes that were received, for a transport that is not established.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Broken, Transport};
use crate::ids::ConnectionId;
use crate::workers::Work;

/// See the module documentation.
#[derive(Debug)]
pub struct Handshake {
    /// Whose.
    pub connection: ConnectionId,
    /// Its transport.
    pub transport: Box<Transport>,
    /// What was received.
    pub bytes: Vec<u8>,
    /// Set when the connection has ended: nobody wants to know any more.
    pub is_over: Arc<AtomicBool>,
}

/// What came of it.
#[derive(Debug)]
pub struct Shaken {
    /// Whose.
    pub connection: ConnectionId,
    /// Its transport.
    pub transport: Box<Transport>,
    /// What the peer has said behind its handshake.
    pub plain: Vec<u8>,
    /// Whether it goes on.
    pub result: Result<(), Broken>,
}

impl Work for Handshake {
    type Done = Shaken;

    fn execute(self) -> Shaken {
        let Handshake { connection, mut transport, mut bytes, is_over } = self;
        let mut plain = Vec::new();
        let result = if is_over.load(Ordering::Relaxed) {
            Err(Broken::Peer("it has gone before its turn came".to_owned()))
        } else {
            transport.receive(&mut bytes, &mut plain)
        };
        Shaken { connection, transport, plain, result }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tests::credentials::Credentials;

    #[test]
    fn who_speaks_something_else_than_tls_gets_an_alert() {
        let transport = Box::new(Transport::new(&Credentials::new(&["localhost"]).layers()));
        let connection = ConnectionId { slot: 3, generation: 4 };
        let (bytes, is_over) = (b"GET / HTTP/1.1".to_vec(), Arc::default());
        let shaken = Handshake { connection, transport, bytes, is_over }.execute();
        assert_eq!(shaken.connection, connection);
        assert!(matches!(shaken.result, Err(Broken::Peer(_))), "{:?}", shaken.result);
        assert!(shaken.transport.wants_to_send(), "an alert");
    }

    #[test]
    fn nothing_is_done_for_who_is_gone() {
        let transport = Box::new(Transport::new(&Credentials::new(&["localhost"]).layers()));
        let connection = ConnectionId { slot: 3, generation: 4 };
        let (bytes, is_over) = (b"GET / HTTP/1.1".to_vec(), Arc::new(AtomicBool::new(true)));
        let shaken = Handshake { connection, transport, bytes, is_over }.execute();
        assert!(shaken.result.is_err() && !shaken.transport.wants_to_send());
    }
}
