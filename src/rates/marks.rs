//! How far the buckets that outlive a restart are written down: to a mark, ahead of what is used up.
//!
//! Decides which rates are kept at all, and when a bucket needs another mark; who writes it is the caller's business, and what the keys
//! stand for. A mark is a time: after a crash the bucket is full then. So what holds is the bucket's own:
//!
//! - Whoever has a bucket gets no more by a crash, as far as its last mark is on disk: a mark is never before the time at which the
//!   bucket is full. What it has taken beyond the last one while the next was on its way to the disk, it gets again if the
//!   host dies in these milliseconds.
//! - A crash costs it one part of [`RATE_KEPT_PARTS`] of the burst at most, the part by which a mark is ahead; and the milliseconds to
//!   which times on disk are rounded.
//! - A bucket is marked that many times in the time of its burst, at most, and twice more: each mark is a part ahead of what the one before
//!   did not reach. Of a debt, which a restart forgives ([`Bucket::from_wall`](super::Bucket::from_wall)), no more than a whole burst counts.
//!
//! Invariants: at most `entries_max` marks; one that gives way is made again when its bucket is next used, no more than that.

use std::collections::BTreeSet;

use crate::hash::ByNumber;
use crate::limits::{RATE_KEPT_MS, RATE_KEPT_PARTS};
use crate::rates::rate::Rate;
use crate::time::Nanos;

/// Marks that have passed and are dropped when one is made: more than one, so that they become fewer.
const DROPS_PER_CALL: usize = 2;

/// The marks of the buckets of one rate. See the module documentation.
#[derive(Debug)]
pub struct Marks {
    burst_ns: u64,
    entries_max: usize,
    marks: ByNumber<u64, Nanos>,
    by_time: BTreeSet<(Nanos, u64)>,
}

impl Marks {
    /// None for a rate whose buckets need none.
    pub fn new(rate: &Rate, entries_max: usize) -> Option<Marks> {
        assert!(entries_max > 0, "marks are somewhere");
        let burst_ns = rate.burst_ns();
        let (marks, by_time) = Default::default();
        (burst_ns >= RATE_KEPT_MS * 1_000_000).then_some(Marks { burst_ns, entries_max, marks, by_time })
    }

    /// A bucket was taken from and is full then: its new mark, if the last one does not reach so far.
    pub fn pass(&mut self, key: u64, full_at: Nanos, now: Nanos) -> Option<Nanos> {
        let reached = full_at.min(Nanos(now.0.saturating_add(self.burst_ns)));
        if self.marks.get(&key).is_some_and(|mark| *mark >= reached) {
            return None;
        }
        let mark = Nanos(reached.0.saturating_add(self.burst_ns / RATE_KEPT_PARTS));
        self.put(key, mark);
        for _ in 0..DROPS_PER_CALL {
            if self.by_time.first().is_some_and(|(mark, _)| *mark <= now) {
                self.drop_first();
            }
        }
        Some(mark)
    }

    fn put(&mut self, key: u64, mark: Nanos) {
        if let Some(before) = self.marks.insert(key, mark) {
            self.by_time.remove(&(before, key));
        } else if self.by_time.len() >= self.entries_max {
            self.drop_first();
        }
        self.by_time.insert((mark, key));
    }

    fn drop_first(&mut self) {
        if let Some((_, key)) = self.by_time.pop_first() {
            self.marks.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
