//! Why a backup or a restore did not come about, and what to do about it.

use std::fmt;
use std::io;

use crate::journal::JournalError;

/// See the module documentation. In each case the backup before is as it was.
#[derive(Debug)]
pub enum BackupError {
    /// A file or directory.
    Journal(JournalError),
    /// The broker does not want to, or could not keep what was being copied.
    Refused(String),
    /// Somebody has the data directory who does not answer.
    NobodyAnswers {
        /// Where.
        socket: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The broker ended, or ended the connection.
    BrokerGone,
    /// What it said makes no sense.
    NotUnderstood(io::Error),
}

impl fmt::Display for BackupError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Journal(error) => write!(formatter, "{error}\n  what to do: {}", error.cure()),
            BackupError::Refused(text) => write!(formatter, "no backup was made: {text}"),
            BackupError::NobodyAnswers { socket, error } => write!(
                formatter,
                "a process has the data directory and does not answer on {socket}: {error}\n  what to do: if it is a broker that \
                 is just starting, wait until it listens; if another `ironpost` command works on it, until that is done; \
                 run this as the broker's user"
            ),
            BackupError::BrokerGone => write!(
                formatter,
                "no backup was made: the broker ended meanwhile\n  what to do: start it again, and the backup after that"
            ),
            BackupError::NotUnderstood(error) => {
                write!(formatter, "no backup was made: what the broker says is not understood: {error}")
            }
        }
    }
}

impl std::error::Error for BackupError {}

impl From<JournalError> for BackupError {
    fn from(error: JournalError) -> BackupError {
        BackupError::Journal(error)
    }
}
