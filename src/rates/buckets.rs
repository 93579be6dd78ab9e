//! Buckets by key, in bounded room: which are remembered, and which gives way when there are too many.
//!
//! This file decides that and no more: what may be taken is `bucket`'s to say, what the keys stand for is the caller's. Keys are
//! keyed hashes, because peers choose what they are hashes of. One thread has it. What of it outlives a restart is `marks`' to say.
//!
//! A key that is not there has a full bucket, so a full one need not be there. When a new key finds no room, the bucket that is full
//! first gives way: one that is full already if there is any, else the one that would be soonest. So a flood of fresh keys displaces
//! itself, not what is deep in debt.
//!
//! The new key goes on from the bucket that gave way (as in Metwally, Agrawal and El Abbadi, "Efficient computation of frequent
//! and top-k elements in data streams", ICDT 2005): as all others are fuller later, no key ever finds more than it left, and
//! two keys cannot take turns to forget each other. So the ceiling holds for each key in any flood. Its price: when every bucket
//! is empty, which takes `entries_max` keys that all take as much as they may, a fresh key is refused with them. While any is full,
//! a fresh one starts full. For the same reason a table is for one rate: else who is fast goes on from who is slow.
//!
//! Invariants: at most `entries_max` entries; each is in the order once. Each call takes logarithmic time, and drops what has become
//! full in the meantime, a few at most.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use crate::hash::ByNumber;
use crate::rates::bucket::Bucket;
use crate::rates::rate::Rate;
use crate::time::Nanos;

/// Full buckets that are dropped when one is stored: more than one, so that they become fewer.
const DROPS_PER_CALL: usize = 2;

const _: () = assert!(DROPS_PER_CALL > 1);

/// See the module documentation.
pub struct Buckets {
    entries_max: usize,
    entries: ByNumber<u64, Bucket>,
    /// When it will be full, key.
    by_full_at: BTreeSet<(Nanos, u64)>,
}

impl fmt::Debug for Buckets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Buckets");
        shown.field("len", &self.len()).field("entries_max", &self.entries_max).finish_non_exhaustive()
    }
}

impl Buckets {
    /// All are full. There are never more than `entries_max` that are not, which is 1 at least.
    pub fn new(entries_max: usize) -> Buckets {
        assert!(entries_max > 0, "a table without room would grant everything");
        Buckets { entries_max, entries: ByNumber::default(), by_full_at: BTreeSet::new() }
    }

    /// How many are there: those that are not full, and some that have become full of late.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is there.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// See [`Bucket::take`].
    pub fn take(&mut self, key: u64, rate: &Rate, cost: u64, now: Nanos) -> Result<(), Nanos> {
        self.change(key, now, |bucket| bucket.take(rate, cost, now))
    }

    /// See [`Bucket::take_with_debt`].
    pub fn take_with_debt(&mut self, key: u64, rate: &Rate, cost: u64, now: Nanos) -> Option<Nanos> {
        self.change(key, now, |bucket| bucket.take_with_debt(rate, cost, now))
    }

    /// What is known of a key, to look at. As in [`Buckets::take`], a fresh one may have to go on from another's.
    pub fn get(&self, key: u64) -> Bucket {
        let has_room = self.entries.len() < self.entries_max;
        let found = self.entries.get(&key).or_else(|| if has_room { None } else { self.first_to_be_full() });
        found.cloned().unwrap_or_default()
    }

    /// From now on that is the key's bucket.
    pub fn put(&mut self, key: u64, bucket: Bucket) {
        self.store(key, bucket);
    }

    /// Drops full ones, `budget` at most, and says how many. For a quiet moment: without it they are dropped as others are
    /// stored.
    pub fn forget_full(&mut self, now: Nanos, budget: usize) -> usize {
        let mut dropped = 0;
        while dropped < budget && self.first_to_be_full().is_some_and(|bucket| bucket.is_full(now)) {
            self.drop_first();
            dropped += 1;
        }
        dropped
    }

    /// See [`Bucket::rate_changed`]; for all, so not for each call.
    pub fn rate_changed(&mut self, rate: &Rate, now: Nanos) {
        let Some(beyond) = now.0.saturating_add(rate.burst_ns()).checked_add(1) else { return };
        for (_, key) in self.by_full_at.split_off(&(Nanos(beyond), 0)) {
            let bucket = self.entries.get_mut(&key).expect("what is in the order is an entry");
            bucket.rate_changed(rate, now);
            self.by_full_at.insert((bucket.full_at(), key));
        }
    }

    fn change<T>(&mut self, key: u64, now: Nanos, change: impl FnOnce(&mut Bucket) -> T) -> T {
        let before = self.get(key);
        let mut bucket = before.clone();
        let outcome = change(&mut bucket);
        // What is refused displaces nothing.
        if bucket != before {
            self.store(key, bucket);
            self.forget_full(now, DROPS_PER_CALL);
        }
        outcome
    }

    fn store(&mut self, key: u64, bucket: Bucket) {
        if !self.entries.contains_key(&key) && self.entries.len() >= self.entries_max {
            self.drop_first();
        }
        self.by_full_at.insert((bucket.full_at(), key));
        if let Some(before) = self.entries.insert(key, bucket) {
            self.by_full_at.remove(&(before.full_at(), key));
        }
    }

    fn first_to_be_full(&self) -> Option<&Bucket> {
        self.by_full_at.first().and_then(|(_, key)| self.entries.get(key))
    }

    fn drop_first(&mut self) {
        if let Some((_, key)) = self.by_full_at.pop_first() {
            self.entries.remove(&key);
        }
    }
}
