//! Why there is no new data directory. The old one is as it was.

use std::fmt;
use std::path::PathBuf;

use crate::ids::ShardId;
use crate::journal::JournalError;

/// See the module documentation.
#[derive(Debug)]
pub struct SalvageError {
    /// What happened.
    pub why: Why,
    /// What was begun, and is no data directory.
    pub unfinished: Option<PathBuf>,
}

/// What can happen.
#[derive(Debug)]
pub enum Why {
    /// The old directory or the new one.
    Journal(Box<JournalError>),
    /// The new directory was to be in the old one.
    Inside {
        /// The new one.
        to: PathBuf,
    },
    /// There is no room for it.
    Room {
        /// Bytes of it, about.
        needed: u64,
        /// Bytes that there are.
        room: u64,
        /// Where.
        to: PathBuf,
    },
    /// A new journal does not hold what it should.
    Differs {
        /// Whose.
        shard: ShardId,
        /// Sessions, and entries in their queues.
        expected: (u64, u64),
        /// The same.
        found: (u64, u64),
    },
}

impl fmt::Display for SalvageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::Journal(error) => write!(formatter, "{error}\n  what to do: {}", error.cure())?,
            Why::Inside { to } => write!(
                formatter,
                "{} is inside the damaged directory\n  what to do: name one beside it, best on another disk",
                to.display()
            )?,
            Why::Room { needed, room, to } => write!(
                formatter,
                "the new journals need about {} MiB, and there are {} MiB\n  what to do: free space on the file system of {} \
                 (see `df -h`), or name a directory on a larger one",
                needed.div_ceil(1 << 20),
                room >> 20,
                to.display()
            )?,
            Why::Differs { shard, expected, found } => write!(
                formatter,
                "the new journal of shard {} holds {} sessions and {} messages for them, expected {} and {}\n  what to do: \
                 report it, please: this is a defect of ironpost",
                shard.0, found.0, found.1, expected.0, expected.1
            )?,
        }
        match &self.unfinished {
            Some(path) => {
                write!(
                    formatter,
                    "\n  {} is no data directory: remove it before the next attempt",
                    path.display()
                )
            }
            None => Ok(()),
        }
    }
}

impl std::error::Error for SalvageError {}

impl From<JournalError> for Why {
    fn from(error: JournalError) -> Why {
        Why::Journal(Box::new(error))
    }
}
