//! The subscribers of one filter in this shard, ordered by session slot.
//!
//! One filter may have a million of them, and each must come and go without moving the others: the list is cut into
//! chunks of at most [`CHUNK_SUBSCRIBERS_MAX`], found by binary search, so a change moves 6 KiB at most. A hash index
//! beside an unordered list would be faster still, but the order is worth more: several matching filters merge per
//! session by walking their lists in step, and a paused walk goes on after the session where it stopped, whatever
//! was removed meanwhile.
//!
//! Invariants: chunks are never empty; sessions ascend within a chunk and from chunk to chunk.

use std::iter::Flatten;
use std::ops::Index;
use std::slice;

use super::{Grant, Subscriber};

/// Subscribers that move together. 512 × 12 bytes is a fraction of a microsecond to move.
const CHUNK_SUBSCRIBERS_MAX: usize = 512;

/// An ordered set of subscribers, keyed by session.
#[derive(Debug, Default)]
pub(super) struct Members {
    chunks: Vec<Vec<Subscriber>>,
    len: u32,
}

impl Members {
    /// A set with these members, of which there are none or one.
    pub(super) fn from_inline(inline: &[Subscriber]) -> Members {
        let mut members = Members::default();
        for &subscriber in inline {
            members.insert(subscriber);
        }
        members
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn view(&self) -> Locals<'_> {
        Locals { inline: &[], chunks: &self.chunks, len: self.len as usize }
    }

    pub(super) fn get(&self, session: u32) -> Option<Grant> {
        let (chunk, position) = self.position(session);
        self.chunks.get(chunk)?.get(position?).map(|subscriber| subscriber.grant)
    }

    /// Adds or replaces; the grant that was there before.
    pub(super) fn insert(&mut self, subscriber: Subscriber) -> Option<Grant> {
        if self.chunks.is_empty() {
            self.chunks.reserve_exact(1);
            self.chunks.push(Vec::with_capacity(2));
        }
        let (mut index, position) = self.position(subscriber.session);
        if let Some(position) = position {
            return Some(std::mem::replace(&mut self.chunks[index][position].grant, subscriber.grant));
        }
        if self.chunks[index].len() == CHUNK_SUBSCRIBERS_MAX {
            index = self.split(index, subscriber.session);
        }
        let chunk = &mut self.chunks[index];
        let position = chunk.partition_point(|other| other.session < subscriber.session);
        chunk.insert(position, subscriber);
        self.len += 1;
        None
    }

    /// Removes; the grant that was there.
    pub(super) fn remove(&mut self, session: u32) -> Option<Grant> {
        let (index, position) = self.position(session);
        let chunk = self.chunks.get_mut(index)?;
        let removed = chunk.remove(position?).grant;
        self.len -= 1;
        let left = chunk.len();
        if left == 0 {
            self.chunks.remove(index);
        } else if left <= CHUNK_SUBSCRIBERS_MAX / 4 {
            self.join_or_shrink(index);
        }
        Some(removed)
    }

    /// The chunk where a session is or belongs, and its place there if it is.
    fn position(&self, session: u32) -> (usize, Option<usize>) {
        let after =
            self.chunks.partition_point(|chunk| chunk.first().is_some_and(|first| first.session <= session));
        let index = after.saturating_sub(1);
        let place = self.chunks.get(index);
        (index, place.and_then(|chunk| chunk.binary_search_by_key(&session, |other| other.session).ok()))
    }

    /// Makes room in a full chunk; the index of the half where the session belongs.
    fn split(&mut self, index: usize, session: u32) -> usize {
        // Slots are given out in ascending order, so the usual newcomer is the last: start its chunk instead of
        // leaving half-empty ones behind.
        let full = &mut self.chunks[index];
        let middle = if full.last().is_some_and(|last| last.session < session) {
            return self.start_after(index);
        } else {
            CHUNK_SUBSCRIBERS_MAX / 2
        };
        let upper = full.split_off(middle);
        let first_of_upper = upper[0].session;
        self.chunks.insert(index + 1, upper);
        if session < first_of_upper { index } else { index + 1 }
    }

    fn start_after(&mut self, index: usize) -> usize {
        let room_next = self.chunks.get(index + 1).is_some_and(|next| next.len() < CHUNK_SUBSCRIBERS_MAX);
        if !room_next {
            self.chunks.insert(index + 1, Vec::with_capacity(4));
        }
        index + 1
    }

    /// After removals: two small neighbours become one, and a chunk alone gives back what it does not use.
    fn join_or_shrink(&mut self, index: usize) {
        let first = if index + 1 < self.chunks.len() { index } else { index.saturating_sub(1) };
        let joined = self.chunks[first..].iter().take(2).map(Vec::len).sum::<usize>();
        if first + 1 < self.chunks.len() && joined <= CHUNK_SUBSCRIBERS_MAX / 2 {
            let upper = self.chunks.remove(first + 1);
            self.chunks[first].extend(upper);
        } else {
            let chunk = &mut self.chunks[index];
            if chunk.capacity() > 8 && chunk.len() <= chunk.capacity() / 4 {
                chunk.shrink_to(chunk.len() * 2);
            }
        }
    }
}

/// The subscribers of an entry in this shard, ordered by session slot.
#[derive(Clone, Copy, Debug)]
pub struct Locals<'a> {
    inline: &'a [Subscriber],
    chunks: &'a [Vec<Subscriber>],
    len: usize,
}

impl<'a> Locals<'a> {
    pub(super) fn inline(inline: &'a [Subscriber]) -> Locals<'a> {
        Locals { inline, chunks: &[], len: inline.len() }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// By rank, for picking a member of a shared subscription. O(len / 512).
    pub fn get(&self, rank: usize) -> Option<&'a Subscriber> {
        if let Some(subscriber) = self.inline.get(rank) {
            return Some(subscriber);
        }
        let mut rank = rank.checked_sub(self.inline.len())?;
        for chunk in self.chunks {
            match chunk.get(rank) {
                Some(subscriber) => return Some(subscriber),
                None => rank -= chunk.len(),
            }
        }
        None
    }

    /// All, ascending by session.
    pub fn iter(&self) -> LocalsIter<'a> {
        self.inline.iter().chain(self.chunks.iter().flatten())
    }

    /// Those from a session slot on, ascending: where a paused walk goes on.
    pub fn from_session(&self, session: u32) -> LocalsIter<'a> {
        let inline = self.inline.partition_point(|other| other.session < session);
        let whole = self.chunks.partition_point(|chunk| chunk[chunk.len() - 1].session < session);
        match self.chunks.get(whole) {
            Some(chunk) => {
                let start = chunk.partition_point(|other| other.session < session);
                chunk[start..].iter().chain(self.chunks[whole + 1..].iter().flatten())
            }
            None => self.inline[inline..].iter().chain(self.chunks[..0].iter().flatten()),
        }
    }
}

/// See [`Locals::iter`].
pub type LocalsIter<'a> =
    std::iter::Chain<slice::Iter<'a, Subscriber>, Flatten<slice::Iter<'a, Vec<Subscriber>>>>;

impl<'a> IntoIterator for Locals<'a> {
    type Item = &'a Subscriber;
    type IntoIter = LocalsIter<'a>;

    fn into_iter(self) -> LocalsIter<'a> {
        self.iter()
    }
}

impl Index<usize> for Locals<'_> {
    type Output = Subscriber;

    /// By rank; panics at or beyond `len`, like a slice.
    fn index(&self, rank: usize) -> &Subscriber {
        self.get(rank).expect("a rank below len")
    }
}
