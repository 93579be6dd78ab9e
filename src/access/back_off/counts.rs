//! Failures by key, in bounded room: which are remembered, and which is forgotten when there are too many.
//!
//! Called by `back_off` alone, which decides what they cost. Keys are keyed hashes.
//!
//! What is forgotten first is the entry that matters least: the oldest without a failure or an attempt for so long that its failures
//! are forgotten anyway; if there is none, the one with the fewest failures, and of those the oldest. So a flood of keys that
//! fail once each displaces itself, not what is under attack. And the new entry goes on from the count of the displaced one
//! (Metwally, Agrawal and El Abbadi, "Efficient computation of frequent and top-k elements in data streams", ICDT 2005): so
//! while nothing is too old, no key counts less than it failed, however often it was displaced in between, and two keys cannot
//! keep each other from being counted. What a key counts too much is at most the failures of all divided by the number of entries.
//!
//! Invariants: at most `entries_max` entries; each is in both orders once; one without failures and attempts is none. Each call
//! takes logarithmic time.

use std::collections::BTreeSet;

use crate::hash::ByNumber;
use crate::limits;

/// Of one key. Zeros are no entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Entry {
    /// In a row.
    pub failures: u32,
    /// Attempts without a verdict.
    pub pending: u16,
    /// When it failed last.
    pub failed_ms: u64,
    /// When a turn was taken last.
    pub tried_ms: u64,
    /// When an attempt began last.
    begun_ms: u64,
}

impl Entry {
    fn touched_ms(&self) -> u64 {
        self.failed_ms.max(self.begun_ms)
    }

    /// Without what is over by now. A clock that went back begins every wait anew instead of making it longer.
    fn at(mut self, now_ms: u64) -> Entry {
        for time_ms in [&mut self.failed_ms, &mut self.tried_ms, &mut self.begun_ms] {
            *time_ms = now_ms.min(*time_ms);
        }
        if now_ms - self.failed_ms >= limits::BACK_OFF_FORGET_MS {
            self.failures = 0;
        }
        if now_ms - self.begun_ms >= limits::BACK_OFF_ATTEMPT_MS {
            self.pending = 0;
        }
        self
    }
}

/// See the module documentation.
pub(super) struct Counts {
    entries_max: usize,
    /// Whether a new entry goes on from the count of the one it displaces.
    inherits: bool,
    entries: ByNumber<u64, Entry>,
    /// Failures, time, key.
    by_failures: BTreeSet<(u32, u64, u64)>,
    /// Time, key.
    by_age: BTreeSet<(u64, u64)>,
}

impl Counts {
    pub(super) fn new(entries_max: usize, inherits: bool) -> Counts {
        let (by_failures, by_age) = (BTreeSet::new(), BTreeSet::new());
        Counts { entries_max, inherits, entries: ByNumber::default(), by_failures, by_age }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What is known of a key.
    pub(super) fn look(&mut self, key: u64, now_ms: u64) -> Entry {
        let Some(entry) = self.entries.get(&key).copied() else { return Entry::default() };
        let now = entry.at(now_ms);
        if now != entry {
            self.store(key, now);
        }
        now
    }

    /// An attempt begins, and takes a turn or not. If there is no room for it, it is not counted: it has not failed yet, and
    /// must not displace what has.
    pub(super) fn begin(&mut self, key: u64, takes_turn: bool, now_ms: u64) {
        if !self.entries.contains_key(&key)
            && self.entries.len() >= self.entries_max
            && !self.drop_oldest(now_ms)
        {
            return;
        }
        let mut entry = self.look(key, now_ms);
        entry.pending = entry.pending.saturating_add(1);
        entry.begun_ms = now_ms;
        if takes_turn {
            entry.tried_ms = now_ms;
        }
        self.store(key, entry);
    }

    /// When a verdict comes about an attempt that began at `at_ms`: not before what is known of the key since, or a verdict that took
    /// long would end the waits of others.
    fn not_before(&self, key: u64, at_ms: u64) -> u64 {
        let known_ms = self.entries.get(&key).map_or(0, |entry| entry.touched_ms().max(entry.tried_ms));
        if known_ms.saturating_sub(at_ms) < limits::BACK_OFF_ATTEMPT_MS { at_ms.max(known_ms) } else { at_ms }
    }

    /// An attempt ended, and failed.
    pub(super) fn fail(&mut self, key: u64, at_ms: u64) {
        let now_ms = self.not_before(key, at_ms);
        let mut inherited = 0;
        if !self.entries.contains_key(&key)
            && self.entries.len() >= self.entries_max
            && !self.drop_oldest(now_ms)
        {
            inherited = self.drop_fewest(now_ms);
        }
        let mut entry = self.look(key, now_ms);
        entry.failures = entry.failures.saturating_add(inherited).saturating_add(1);
        entry.pending = entry.pending.saturating_sub(1);
        entry.failed_ms = now_ms;
        self.store(key, entry);
    }

    /// An attempt ended without a failure, and so many earlier ones are taken back.
    pub(super) fn settle(&mut self, key: u64, taken_back: u32, at_ms: u64) {
        let now_ms = self.not_before(key, at_ms);
        if !self.entries.contains_key(&key) {
            return;
        }
        let mut entry = self.look(key, now_ms);
        entry.failures = entry.failures.saturating_sub(taken_back);
        entry.pending = entry.pending.saturating_sub(1);
        self.store(key, entry);
    }

    /// Drops an entry that nothing is known by any more.
    fn drop_oldest(&mut self, now_ms: u64) -> bool {
        let Some(&(touched_ms, key)) = self.by_age.first() else { return false };
        let is_over = now_ms.saturating_sub(touched_ms) >= limits::BACK_OFF_FORGET_MS;
        if is_over {
            self.store(key, Entry::default());
        }
        is_over
    }

    /// Drops the entry with the fewest failures, and says what a new one goes on from.
    fn drop_fewest(&mut self, now_ms: u64) -> u32 {
        let Some(&(_, _, key)) = self.by_failures.first() else { return 0 };
        let failures = self.look(key, now_ms).failures;
        self.store(key, Entry::default());
        if self.inherits { failures } else { 0 }
    }

    fn store(&mut self, key: u64, entry: Entry) {
        let is_entry = entry.failures > 0 || entry.pending > 0;
        let before = if is_entry { self.entries.insert(key, entry) } else { self.entries.remove(&key) };
        if let Some(before) = before {
            self.by_failures.remove(&(before.failures, before.touched_ms(), key));
            self.by_age.remove(&(before.touched_ms(), key));
        }
        if is_entry {
            self.by_failures.insert((entry.failures, entry.touched_ms(), key));
            self.by_age.insert((entry.touched_ms(), key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The same, by looking at every entry each time.
    #[derive(Default)]
    struct Model {
        entries: BTreeMap<u64, Entry>,
    }

    impl Model {
        fn fail(&mut self, key: u64, entries_max: usize, now_ms: u64) {
            let mut inherited = 0;
            if !self.entries.contains_key(&key) && self.entries.len() >= entries_max {
                let over = self.entries.iter().filter(|(_, entry)| {
                    now_ms.saturating_sub(entry.touched_ms()) >= limits::BACK_OFF_FORGET_MS
                });
                let oldest = over.min_by_key(|(key, entry)| (entry.touched_ms(), **key)).map(|(key, _)| *key);
                let rank = |key: &u64, entry: &Entry| (entry.failures, entry.touched_ms(), *key);
                let fewest =
                    self.entries.iter().min_by_key(|(key, entry)| rank(key, entry)).map(|(key, _)| *key);
                let dropped = oldest.or(fewest).expect("it is full");
                inherited = self.entries.remove(&dropped).expect("it is there").at(now_ms).failures;
            }
            let mut entry = self.entries.get(&key).copied().unwrap_or_default().at(now_ms);
            entry.failures += inherited + 1;
            entry.failed_ms = now_ms;
            self.entries.insert(key, entry);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

        #[test]
        fn it_forgets_what_matters_least(
            calls in prop::collection::vec((0..12_u64, prop_oneof![9 => 0..5_000_u64, 1 => 0..900_000_u64]), 1..200),
        ) {
            let (mut counts, mut model) = (Counts::new(4, true), Model::default());
            let mut now_ms = 1_000_000;
            for (key, later_ms) in calls {
                now_ms += later_ms;
                counts.fail(key, now_ms);
                model.fail(key, 4, now_ms);
                prop_assert!(counts.len() <= 4);
                prop_assert_eq!(counts.by_age.len(), counts.len());
                prop_assert_eq!(counts.by_failures.len(), counts.len());
                for (key, entry) in &model.entries {
                    prop_assert_eq!(counts.entries.get(key), Some(entry));
                }
            }
        }

        #[test]
        fn while_nothing_is_too_old_no_key_counts_less_than_it_failed(
            calls in prop::collection::vec((0..12_u64, 0..2_000_u64), 1..200),
        ) {
            let (mut counts, mut now_ms, mut failed) = (Counts::new(4, true), 1_000_000, BTreeMap::<u64, u32>::new());
            for (key, later_ms) in calls {
                now_ms += later_ms;
                counts.fail(key, now_ms);
                *failed.entry(key).or_default() += 1;
                // What an absent key would go on from.
                let fewest = counts.entries.values().map(|entry| entry.failures).min().unwrap_or(0);
                let fewest = if counts.len() < 4 { 0 } else { fewest };
                for (key, failures) in &failed {
                    let counted = counts.entries.get(key).map_or(fewest, |entry| entry.failures);
                    prop_assert!(counted >= *failures, "{key}: {counted} of {failures}");
                }
                prop_assert!(fewest <= failed.values().sum::<u32>() / 4);
            }
        }
    }

    #[test]
    fn an_attempt_displaces_nothing_that_failed() {
        let mut counts = Counts::new(2, true);
        counts.fail(1, 0);
        counts.fail(2, 0);
        counts.begin(3, true, 0);
        assert_eq!((counts.look(3, 0), counts.len()), (Entry::default(), 2));
        counts.begin(3, true, limits::BACK_OFF_FORGET_MS);
        assert_eq!((counts.look(3, limits::BACK_OFF_FORGET_MS).pending, counts.len()), (1, 2));
    }
}
