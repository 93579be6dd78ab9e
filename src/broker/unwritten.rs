//! Which messages wait in memory instead of in the journal, by publisher and topic, in order.
//!
//! Messages of one publisher and topic may not change their order by a crash. If a later one of them is written while
//! an earlier one waits in memory for its acknowledgement, then after a crash the later one is delivered from the
//! journal, and the earlier one behind it, when its publisher sends it again. So whatever is written takes those
//! before it along: `settle.rs` asks here for them. Others keep waiting; a device that is away costs only the messages
//! of its own stream their chance of never being written.
//!
//! A *line* is a publisher and a topic, as a hash: two that collide are written together, which costs a write and
//! harms nobody. The lines hold no more than the messages that `hold` has not released.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::messages::{Message, MessageId};

/// A publisher and a topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Line(u64);

impl Line {
    /// That of a message whose body is in memory.
    pub(super) fn of(message: &Message, hash_key: &[u8; 16]) -> Line {
        let mut hasher = SipHasher13::new_with_key(hash_key);
        hasher.write_u64(message.publisher.0);
        hasher.write(message.body().map_or("", |body| body.topic).as_bytes());
        Line(hasher.finish())
    }
}

/// The messages of each line, in the order in which they were placed.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    lines: BTreeMap<Line, VecDeque<MessageId>>,
}

impl Unwritten {
    /// The newest of its line waits in memory.
    pub(super) fn push(&mut self, line: Line, message: MessageId) {
        self.lines.entry(line).or_default().push_back(message);
    }

    /// All of a line, to be written in this order. Some may have been acknowledged, and be gone.
    pub(super) fn take(&mut self, line: Line) -> VecDeque<MessageId> {
        self.lines.remove(&line).unwrap_or_default()
    }

    /// The wait of that message is over. Waits end in the order in which they began, so it is the first of its line,
    /// unless the line was taken meanwhile.
    pub(super) fn forget(&mut self, line: Line, message: MessageId) {
        let Some(waiting) = self.lines.get_mut(&line) else { return };
        waiting.pop_front_if(|first| *first == message);
        if waiting.is_empty() {
            self.lines.remove(&line);
        }
    }

    /// How many lines there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }
}
