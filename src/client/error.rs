//! Every way a client's work can fail, in words that say what to do where that is known.

use std::fmt;
use std::io;

use crate::wire::{DecodeError, ReasonCode};

/// Why the work ended.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody answers there.
    Unreachable {
        /// `HOST:PORT`.
        address: String,
        /// From the kernel or the resolver.
        error: io::Error,
    },
    /// CONNACK with a failure.
    Refused {
        /// The reason; for 3.1.1 its translation.
        reason: ReasonCode,
        /// In the server's words.
        text: Option<String>,
    },
    /// DISCONNECT from the server.
    Disconnected {
        /// The reason.
        reason: ReasonCode,
        /// In the server's words.
        text: Option<String>,
    },
    /// End of stream without DISCONNECT.
    Closed,
    /// Nothing arrived in time.
    NoAnswer,
    /// Reading, writing, or using what arrived.
    Io(io::Error),
    /// What arrived is not MQTT.
    Malformed(DecodeError),
    /// What arrived is MQTT that does not belong there.
    Unexpected(&'static str),
    /// SUBACK with a failure.
    SubscriptionRefused {
        /// Which of the filters.
        filter: String,
        /// The reason; for 3.1.1 unspecified.
        reason: ReasonCode,
    },
    /// PUBACK or PUBREC with a failure.
    PublishRefused {
        /// How many messages.
        count: u64,
        /// The reason of the first.
        reason: ReasonCode,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Unreachable { address, error } => {
                write!(formatter, "cannot connect to {address}: {error}")?;
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    write!(
                        formatter,
                        "\n  cure: start a broker there (ironpost serve), or name another with -H and -p"
                    )?;
                }
                Ok(())
            }
            ClientError::Refused { reason, text } => {
                write!(formatter, "the server refused the connection: {}", Said(*reason, text.as_deref()))
            }
            ClientError::Disconnected { reason, text } => {
                write!(formatter, "the server ended the connection: {}", Said(*reason, text.as_deref()))
            }
            ClientError::Closed => write!(formatter, "the server closed the connection without a reason"),
            ClientError::NoAnswer => write!(formatter, "the server does not answer"),
            ClientError::Io(error) => write!(formatter, "{error}"),
            ClientError::Malformed(error) => write!(formatter, "what the server sent is not MQTT: {error}"),
            ClientError::Unexpected(packet) => write!(formatter, "the server sent a {packet} out of place"),
            ClientError::SubscriptionRefused { filter, reason } => {
                write!(formatter, "the server refused to subscribe to {filter:?}: {reason}")
            }
            ClientError::PublishRefused { count, reason } => {
                write!(formatter, "the server refused {count} message(s): {reason}")
            }
        }
    }
}

impl std::error::Error for ClientError {}

/// A reason, and the server's own words if it has some.
struct Said<'a>(ReasonCode, Option<&'a str>);

impl fmt::Display for Said<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        self.1.map_or(Ok(()), |text| write!(formatter, ": {text}"))
    }
}
