//! Why a data directory did not get another number of shards. Whatever it is, it still has what it had.

use std::fmt;
use std::path::PathBuf;

use crate::ids::ShardId;
use crate::journal::JournalError;
use crate::shard::ServeError;

/// See the module documentation.
#[derive(Debug)]
pub enum ReshardError {
    /// A journal, old or new, or the data directory.
    Journal(JournalError),
    /// What was under way could not be brought to its end.
    Settle(ServeError),
    /// Not all of it was.
    Unrouted {
        /// QoS 2 messages that some shard does not have yet.
        messages: u64,
        /// How many shards there are.
        shards: u16,
    },
    /// There is no room for the new journals beside the old ones.
    Room {
        /// Bytes of the new journals.
        needed: u64,
        /// Bytes that there are.
        room: u64,
        /// Where.
        data: PathBuf,
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

impl fmt::Display for ReshardError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReshardError::Journal(error) => write!(formatter, "{error}\n{}", error.cure()),
            ReshardError::Settle(error) => {
                write!(formatter, "cannot bring to its end what the broker had under way: {error}")
            }
            ReshardError::Unrouted { messages, shards } => write!(
                formatter,
                "{messages} QoS 2 messages are not with all of their recipients' shards yet\nfree space on the disk if \
                 there is little (see `df -h`), start the broker with --shards {shards}, stop it with SIGTERM once its \
                 log says \"listening\", and try again"
            ),
            ReshardError::Room { needed, room, data } => write!(
                formatter,
                "the new journals need {} MiB beside the old ones, and there are {} MiB\nfree space on the file system of \
                 {} (see `df -h`), or move the data directory to a larger one",
                needed.div_ceil(1 << 20),
                room >> 20,
                data.display()
            ),
            ReshardError::Differs { shard, expected, found } => write!(
                formatter,
                "the new journal of shard {} holds {} sessions and {} messages for them, expected {} and {}\nnothing was \
                 changed; this is a defect of ironpost, please report it",
                shard.0, found.0, found.1, expected.0, expected.1
            ),
        }
    }
}

impl std::error::Error for ReshardError {}

impl From<JournalError> for ReshardError {
    fn from(error: JournalError) -> ReshardError {
        ReshardError::Journal(error)
    }
}

impl From<ServeError> for ReshardError {
    fn from(error: ServeError) -> ReshardError {
        ReshardError::Settle(error)
    }
}
