//! The table against plain buckets, and in floods of more keys than it has room for.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const START: Nanos = Nanos(1 << 40);

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

/// Each is in the order once, and no others are.
fn check(buckets: &Buckets) {
    assert!(buckets.len() <= buckets.entries_max);
    let expected: BTreeSet<_> =
        buckets.entries.iter().map(|(key, bucket)| (bucket.full_at(), *key)).collect();
    assert_eq!(buckets.by_full_at, expected);
}

/// The same, by looking at every entry each time.
#[derive(Default)]
struct Model {
    entries: BTreeMap<u64, Bucket>,
}

impl Model {
    fn change<T>(
        &mut self,
        key: u64,
        entries_max: usize,
        now: Nanos,
        change: impl Fn(&mut Bucket) -> T,
    ) -> T {
        self.entries.retain(|_, bucket| !bucket.is_full(now));
        let first =
            self.entries.iter().min_by_key(|(key, bucket)| (bucket.full_at(), **key)).map(|(key, _)| *key);
        let gives_way =
            first.filter(|_| !self.entries.contains_key(&key) && self.entries.len() >= entries_max);
        let before = self.entries.get(&gives_way.unwrap_or(key)).cloned().unwrap_or_default();
        let mut bucket = before.clone();
        let outcome = change(&mut bucket);
        if bucket != before {
            gives_way.map(|first| self.entries.remove(&first));
            self.entries.insert(key, bucket);
        }
        outcome
    }
}

/// A key, what is taken, how long after the last, and whether it may go into debt.
type Call = (u64, u64, u64, bool);

fn calls(keys: u64) -> impl Strategy<Value = Vec<Call>> {
    let pause_ms = prop_oneof![6 => 0..60_u64, 1 => 0..3_000_u64];
    prop::collection::vec((0..keys, 0..12_u64, pause_ms, any::<bool>()), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn while_there_is_room_each_key_has_a_bucket_of_its_own(calls in calls(8), budget in 0..3_usize) {
        let (rate, mut buckets, mut now) = (rate("10/s"), Buckets::new(8), START);
        let mut plain = BTreeMap::<u64, Bucket>::new();
        for (key, cost, pause_ms, with_debt) in calls {
            now = now.plus_ms(pause_ms);
            let bucket = plain.entry(key).or_default();
            if with_debt {
                let expected = bucket.take_with_debt(&rate, cost, now);
                prop_assert_eq!(buckets.take_with_debt(key, &rate, cost, now), expected);
            } else {
                prop_assert_eq!(buckets.take(key, &rate, cost, now), bucket.take(&rate, cost, now));
            }
            prop_assert!(buckets.forget_full(now, budget) <= budget);
            check(&buckets);
            for (key, bucket) in &plain {
                let full_at = buckets.get(*key).full_at();
                prop_assert!(full_at == bucket.full_at() || bucket.is_full(now) && full_at <= now);
                prop_assert!(bucket.is_full(now) || buckets.entries.contains_key(key));
            }
        }
        // As many as there are at most.
        now = now.plus_s(1_000);
        let len = buckets.len();
        prop_assert_eq!((buckets.forget_full(now, 9), buckets.is_empty()), (len, true));
    }

    #[test]
    fn the_one_that_is_full_first_gives_way(calls in calls(12)) {
        let (rate, mut buckets, mut now) = (rate("10/s"), Buckets::new(4), START);
        let mut model = Model::default();
        for (key, cost, pause_ms, with_debt) in calls {
            now = now.plus_ms(pause_ms);
            if with_debt {
                let expected = model.change(key, 4, now, |bucket| bucket.take_with_debt(&rate, cost, now));
                prop_assert_eq!(buckets.take_with_debt(key, &rate, cost, now), expected);
            } else {
                let expected = model.change(key, 4, now, |bucket| bucket.take(&rate, cost, now));
                prop_assert_eq!(buckets.take(key, &rate, cost, now), expected);
            }
            check(&buckets);
            for (key, bucket) in &model.entries {
                prop_assert_eq!(buckets.entries.get(key), Some(bucket));
            }
        }
    }

    /// However often its bucket gave way, a key gets no more than from a bucket that is kept.
    #[test]
    fn in_a_flood_the_ceiling_holds_for_each_key(calls in calls(12), entries_max in 1..6_usize) {
        let (rate, mut buckets, mut now) = (rate("10/s"), Buckets::new(entries_max), START);
        let mut kept = BTreeMap::<u64, Bucket>::new();
        for (key, cost, pause_ms, with_debt) in calls {
            now = now.plus_ms(pause_ms);
            let bucket = kept.entry(key).or_default();
            if with_debt {
                let until = buckets.take_with_debt(key, &rate, cost, now);
                prop_assert!(until >= bucket.take_with_debt(&rate, cost, now));
            } else if buckets.take(key, &rate, cost, now).is_ok() {
                prop_assert_eq!(bucket.take(&rate, cost, now), Ok(()));
            }
            check(&buckets);
            for (key, bucket) in &kept {
                prop_assert!(bucket.is_full(now) || buckets.get(*key).full_at() >= bucket.full_at());
            }
        }
    }

    #[test]
    fn a_change_of_the_rate_is_one_of_every_bucket(calls in calls(8), fast in prop::sample::select(vec![
        "100/s burst 10", "10/s burst 1", "1/min", "1_000_000/s burst 2",
    ])) {
        let (before, after, mut buckets, mut now) = (rate("10/s"), rate(fast), Buckets::new(8), START);
        for (key, cost, pause_ms, _) in calls {
            now = now.plus_ms(pause_ms);
            buckets.take_with_debt(key, &before, cost, now);
        }
        let mut expected: Vec<_> = (0..8).map(|key| buckets.get(key)).collect();
        expected.iter_mut().for_each(|bucket| bucket.rate_changed(&after, now));
        buckets.rate_changed(&after, now);
        check(&buckets);
        prop_assert_eq!((0..8).map(|key| buckets.get(key)).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_flood_of_fresh_keys_does_not_clear_what_is_deep_in_debt() {
    let (rate, mut buckets) = (rate("10/s"), Buckets::new(100));
    let until = buckets.take_with_debt(7, &rate, 6_010, START);
    assert_eq!(until, Some(START.plus_s(600)));
    // 50,000 in 50 s, each of which takes less than what comes in between.
    for fresh in 0..50_000 {
        let now = START.plus_ms(fresh);
        assert_eq!(buckets.take(1_000 + fresh, &rate, 1, now), Ok(()));
        assert!(buckets.len() <= 100);
    }
    let now = START.plus_s(50);
    assert_eq!(buckets.take(7, &rate, 1, now), Err(START.plus_ms(600_100)));
    check(&buckets);
}

#[test]
fn two_keys_without_room_for_both_do_not_forget_each_other() {
    let (rate, mut buckets) = (rate("10/s"), Buckets::new(1));
    let granted = (0..1_000).filter(|index| buckets.take(index % 2, &rate, 1, START).is_ok()).count();
    assert_eq!(granted, 10, "together what one gets");
}

#[test]
fn what_is_full_gives_way_before_anything_else_and_what_is_refused_displaces_nothing() {
    let (rate, mut buckets) = (rate("10/s"), Buckets::new(3));
    for (key, cost) in [(1, 1), (2, 10), (3, 5)] {
        assert_eq!(buckets.take(key, &rate, cost, START), Ok(()));
    }
    assert_eq!(buckets.take(4, &rate, 10, START), Err(START.plus_ms(100)), "it would go on from the first");
    assert_eq!(buckets.take(4, &rate, 11, START), Err(Nanos::NEVER));
    assert_eq!(buckets.take(4, &rate, 0, START), Ok(()));
    assert!([1, 2, 3].iter().all(|key| buckets.entries.contains_key(key)));
    assert_eq!(buckets.take(4, &rate, 10, START.plus_ms(100)), Ok(()), "the first is full");
    assert!([2, 3, 4].iter().all(|key| buckets.entries.contains_key(key)));
}

#[test]
fn full_ones_become_fewer_by_the_calls_of_others() {
    let (rate, mut buckets) = (rate("10/s"), Buckets::new(1_000));
    for key in 0..900 {
        assert_eq!(buckets.take(key, &rate, 1, START), Ok(()));
    }
    let now = START.plus_ms(100);
    for key in 0..890 {
        assert_eq!(buckets.take(10_000 + key, &rate, 1, now), Ok(()));
    }
    assert_eq!(buckets.len(), 890, "each dropped two");
    assert_eq!(buckets.forget_full(now, usize::MAX), 0);
    assert_eq!(buckets.forget_full(now.plus_ms(100), 17), 17);
    assert_eq!(buckets.len(), 873);
    check(&buckets);
}

#[test]
#[should_panic(expected = "without room")]
fn a_table_without_room_is_a_mistake() {
    Buckets::new(0);
}
