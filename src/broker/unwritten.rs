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

use std::collections::VecDeque;
use std::hash::Hasher;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::messages::{Message, MessageId};

/// A publisher and a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
///
/// Most lines have one message, for a moment. So that this allocates nothing for each, the table keeps its room, and emptied
/// lists wait for the next line.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// Never iterated. A line is a keyed hash already.
    lines: HashTable<(Line, VecDeque<MessageId>)>,
    spare: Vec<VecDeque<MessageId>>,
}

/// Emptied lists that are kept, and messages that one may have room for.
const SPARE_LISTS_MAX: usize = 256;
const SPARE_MESSAGES_MAX: usize = 64;

/// A table with room for more lines than this gives it back when it is empty.
const LINES_KEPT_MAX: usize = 4_096;

impl Unwritten {
    /// The newest of its line waits in memory.
    pub(super) fn push(&mut self, line: Line, message: MessageId) {
        let spare = &mut self.spare;
        let list = self
            .lines
            .entry(line.0, |(other, _)| *other == line, |(other, _)| other.0)
            .or_insert_with(|| (line, spare.pop().unwrap_or_default()));
        list.into_mut().1.push_back(message);
    }

    /// All of a line, to be written in this order. Some may have been acknowledged, and be gone.
    pub(super) fn take(&mut self, line: Line) -> VecDeque<MessageId> {
        match self.lines.find_entry(line.0, |(other, _)| *other == line) {
            Ok(entry) => entry.remove().0.1,
            Err(_) => VecDeque::new(),
        }
    }

    /// The wait of that message is over. Waits end in the order in which they began, so it is the first of its line,
    /// unless the line was taken meanwhile.
    pub(super) fn forget(&mut self, line: Line, message: MessageId) {
        let Ok(mut entry) = self.lines.find_entry(line.0, |(other, _)| *other == line) else { return };
        let waiting = &mut entry.get_mut().1;
        waiting.pop_front_if(|first| *first == message);
        if !waiting.is_empty() {
            return;
        }
        let (_, list) = entry.remove().0;
        if list.capacity() <= SPARE_MESSAGES_MAX && self.spare.len() < SPARE_LISTS_MAX {
            self.spare.push(list);
        }
        if self.lines.is_empty() && self.lines.capacity() > LINES_KEPT_MAX {
            self.lines.shrink_to(0, |(line, _)| line.0);
        }
    }

    /// How many lines there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }
}
