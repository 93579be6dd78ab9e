//! Why bytes are not a packet.

use super::reason::ReasonCode;

/// The bytes are not a packet: the reason to answer with before closing `[MQTT-4.13.1-1]`, and what was wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeError {
    /// For CONNACK or DISCONNECT (v5).
    pub reason: ReasonCode,
    /// For the log: a fixed text, never a peer's bytes.
    pub what: &'static str,
}

impl DecodeError {
    /// The bytes cannot be parsed: 0x81.
    pub(super) const fn malformed(what: &'static str) -> DecodeError {
        DecodeError { reason: ReasonCode::MalformedPacket, what }
    }

    /// The bytes can be parsed and say what they may not: 0x82.
    pub(super) const fn protocol(what: &'static str) -> DecodeError {
        DecodeError { reason: ReasonCode::ProtocolError, what }
    }

    /// Any other reason.
    pub(super) const fn new(reason: ReasonCode, what: &'static str) -> DecodeError {
        DecodeError { reason, what }
    }
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason, self.what)
    }
}

impl std::error::Error for DecodeError {}
