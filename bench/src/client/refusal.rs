//! Why a session could not be opened: what the server said, or what the generator itself had no more of.
//!
//! Decides how a failure is called, so that a report can say what ended a row of connections. Does not decide whether
//! that ends a run: `fleet` returns it as an error, and a scenario asks [`reason`] what it was.

use std::fmt;
use std::io;

/// The server, or the clock, said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Connack {
        client: usize,
        reason: u8,
    },
    /// The connection ended without a word.
    Closed {
        client: usize,
        in_handshake: bool,
    },
    TimeIsOver {
        open: usize,
        wanted: usize,
    },
}

impl Refusal {
    /// Whom it concerns, if it was one.
    pub fn client(&self) -> Option<usize> {
        match self {
            Refusal::Connack { client, .. } | Refusal::Closed { client, .. } => Some(*client),
            Refusal::TimeIsOver { .. } => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Connack { client, reason } => {
                write!(f, "the server refused client {client} with CONNACK reason {reason:#04x}")
            }
            Refusal::Closed { client, in_handshake } => {
                let when = if *in_handshake { "in its handshake" } else { "after it was open" };
                write!(f, "the server closed client {client} {when}")
            }
            Refusal::TimeIsOver { open, wanted } => {
                write!(f, "{open} of {wanted} sessions were open when the time for it was over")
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// What stands behind an error of opening, in a few words that are the same for every client.
pub fn reason(error: &anyhow::Error) -> String {
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        return match refusal {
            Refusal::Connack { reason, .. } => format!("CONNACK reason {reason:#04x}"),
            Refusal::Closed { in_handshake: true, .. } => "closed in the handshake".to_owned(),
            Refusal::Closed { .. } => "an open connection was closed".to_owned(),
            Refusal::TimeIsOver { .. } => "time was over".to_owned(),
        };
    }
    let code = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    match code {
        Some(libc::EMFILE) => "EMFILE: this generator may hold no more descriptors",
        Some(libc::ENFILE) => "ENFILE: this machine may hold no more descriptors",
        Some(libc::EADDRNOTAVAIL) => "EADDRNOTAVAIL: this generator has no source port left",
        Some(libc::ECONNREFUSED) => "ECONNREFUSED: nobody listens any more",
        Some(libc::ECONNRESET | libc::EPIPE) => "closed in the handshake",
        Some(libc::ETIMEDOUT) => "ETIMEDOUT: the connection was not answered",
        _ => "another reason",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_reason_is_found_below_what_was_being_tried() {
        let refused: anyhow::Error = Refusal::Connack { client: 7, reason: 0x97 }.into();
        assert_eq!(reason(&refused.context("opening 10")), "CONNACK reason 0x97");
        let system = |code| Err::<(), _>(io::Error::from_raw_os_error(code)).context("connecting client 3");
        assert!(reason(&system(libc::EMFILE).unwrap_err()).starts_with("EMFILE"));
        assert_eq!(reason(&system(libc::EPIPE).unwrap_err()), "closed in the handshake");
        assert_eq!(reason(&anyhow::anyhow!("a broken packet")), "another reason");
    }

    #[test]
    fn a_refusal_says_who_and_when() {
        let closed = Refusal::Closed { client: 3, in_handshake: true };
        assert_eq!(closed.to_string(), "the server closed client 3 in its handshake");
        let late = Refusal::TimeIsOver { open: 5, wanted: 9 };
        assert_eq!(late.to_string(), "5 of 9 sessions were open when the time for it was over");
    }
}
