//! Which part of the journal is still needed: a count of live records per bucket of LSNs.
//!
//! A record is live while replay would miss it. Records that only say something about an earlier one (an
//! acknowledgement, a packet id) need no count of their own: the journal is freed from its oldest end, so they go no
//! earlier than what they speak about. 4 bytes per 1,024 records, whatever the backlog.

use std::collections::VecDeque;

use crate::ids::Lsn;

const BUCKET_BITS: u32 = 10;

/// Counts of live records.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// Bucket number of the front of `counts`.
    first: u64,
    counts: VecDeque<u32>,
}

impl Live {
    /// The record is needed once more.
    pub(super) fn add(&mut self, lsn: Lsn) {
        let bucket = lsn.0 >> BUCKET_BITS;
        if self.counts.is_empty() {
            self.first = bucket;
        }
        while bucket < self.first {
            self.counts.push_front(0);
            self.first -= 1;
        }
        let index = usize::try_from(bucket - self.first).expect("a 64-bit host");
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += 1;
    }

    /// One need less.
    pub(super) fn remove(&mut self, lsn: Lsn) {
        let bucket = lsn.0 >> BUCKET_BITS;
        assert!(bucket >= self.first, "a live record is in a counted bucket");
        let index = usize::try_from(bucket - self.first).expect("a 64-bit host");
        let count = self.counts.get_mut(index).expect("a live record is in a counted bucket");
        *count = count.checked_sub(1).expect("every removal follows its addition");
        while self.counts.front() == Some(&0) {
            self.counts.pop_front();
            self.first += 1;
        }
    }

    /// Every record below this is dead. With nothing live, `last.next()`.
    pub(super) fn oldest(&self, last: Lsn) -> Lsn {
        if self.counts.is_empty() { last.next() } else { Lsn(self.first << BUCKET_BITS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_live_record_is_never_above_one_that_is_needed() {
        let mut live = Live::default();
        assert_eq!(live.oldest(Lsn(9)), Lsn(10));
        live.add(Lsn(5_000));
        live.add(Lsn(100));
        live.add(Lsn(5_000));
        assert!(live.oldest(Lsn(6_000)) <= Lsn(100));
        live.remove(Lsn(100));
        assert_eq!(live.oldest(Lsn(6_000)), Lsn(4_096));
        live.remove(Lsn(5_000));
        assert_eq!(live.oldest(Lsn(6_000)), Lsn(4_096));
        live.remove(Lsn(5_000));
        assert_eq!(live.oldest(Lsn(6_000)), Lsn(6_001));
    }
}
