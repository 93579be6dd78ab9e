//! Single cases: nothing, too much, bursts one by one, the end of time.

use proptest::prelude::*;

use super::model::{costs, excess, rates};
use super::*;

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

#[test]
fn a_burst_is_there_at_once_and_then_one_after_the_other() {
    for text in ["3/s", "30/s", "100/s burst 7", "7/min burst 11", "10_000/day", "50/10s"] {
        let (rate, mut bucket, mut now) = (rate(text), Bucket::default(), START);
        for left in (0..rate.burst()).rev() {
            assert_eq!(bucket.take(&rate, 1, now), Ok(()), "{text}");
            assert_eq!(bucket.available(&rate, now), left, "{text}");
        }
        for _ in 0..10 {
            let next = Nanos(now.0 + rate.ns_for(1));
            assert_eq!(bucket.take(&rate, 1, now), Err(next), "{text}");
            now = next;
            assert_eq!(bucket.take(&rate, 1, now), Ok(()), "{text}");
        }
    }
}

/// A token in 1.1 ns, and 0.1 ns left of the burst: were the burst's time rounded up but not the rate, that would grant too much.
#[test]
fn a_burst_of_a_fraction_of_a_nanosecond_gives_nothing_away() {
    let rate = rate("909_090_909/s burst 1_001");
    let mut bucket = Bucket::default();
    let mut granted = Vec::new();
    for ns in 0..20_000 {
        let now = Nanos(START.0 + ns);
        for cost in [1_000, 10] {
            if bucket.take(&rate, cost, now).is_ok() {
                granted.push((now, cost));
            }
        }
    }
    assert!(granted.len() > 1_000);
    assert_eq!(excess(&rate, &granted), None);
}

#[test]
fn nothing_is_free_always_and_more_than_the_burst_is_refused_for_ever() {
    let (rate, mut bucket) = (rate("10/s"), Bucket::default());
    assert_eq!(bucket.take(&rate, 11, START), Err(Nanos::NEVER));
    assert_eq!(bucket.take(&rate, u64::MAX, START), Err(Nanos::NEVER));
    assert_eq!(bucket, Bucket::default(), "a refusal takes nothing");
    assert_eq!(bucket.take(&rate, 0, START), Ok(()));
    assert_eq!(bucket.take_with_debt(&rate, 0, START), None);
    assert_eq!(bucket, Bucket::default());
    assert_eq!(bucket.take_with_debt(&rate, 30, START), Some(START.plus_s(2)));
    assert_eq!((bucket.take(&rate, 0, START), bucket.take_with_debt(&rate, 0, START)), (Ok(()), None));
    assert_eq!(bucket.take(&rate, 1, START), Err(START.plus_ms(2_100)), "the debt is not forgiven");
    assert_eq!(bucket.take_with_debt(&rate, 10, START), Some(START.plus_s(3)));
    assert_eq!((bucket.available(&rate, START), bucket.full_at()), (0, START.plus_s(4)));
}

#[test]
fn a_full_bucket_is_not_written_down_and_one_of_long_ago_is_full() {
    let rate = rate("10/s");
    let now = Now { mono: START, wall: UnixMs(50_000) };
    let mut bucket = Bucket::default();
    assert_eq!(bucket.to_wall(now), None);
    assert_eq!(bucket.take(&rate, 5, START), Ok(()));
    assert_eq!(bucket.to_wall(now), Some(UnixMs(50_501)));
    assert_eq!(bucket.to_wall(Now { mono: START.plus_ms(500), ..now }), None);
    for past in [0, 49_999, 50_000] {
        assert_eq!(Bucket::from_wall(UnixMs(past), now, &rate), Bucket::default());
    }
    assert_eq!(Bucket::from_wall(UnixMs(50_501), now, &rate).full_at(), START.plus_ms(501));
    assert_eq!(Bucket::from_wall(UnixMs::NEVER, now, &rate).full_at(), START.plus_s(1));
    let end = Now { mono: START, wall: UnixMs(u64::MAX - 1) };
    assert_eq!(bucket.to_wall(end), Some(UnixMs::NEVER));
}

#[test]
fn a_debt_without_end_has_none() {
    let (rate, mut bucket) = (rate("1/day"), Bucket::default());
    assert_eq!(bucket.take_with_debt(&rate, u64::MAX, START), Some(Nanos::NEVER));
    assert_eq!(bucket.take(&rate, 1, START), Err(Nanos::NEVER));
    assert_eq!(bucket.available(&rate, START), 0);
    bucket.rate_changed(&rate, START);
    assert_eq!(bucket.take(&rate, 1, START), Err(Nanos(START.0 + rate.burst_ns())));
}

/// A setting that is a hundred million times faster does not leave the waits of the old one.
#[test]
fn a_rate_that_changes_goes_on_from_the_same_number() {
    let (slow, fast, mut bucket) = (rate("1/day burst 7"), rate("1_000/s"), Bucket::default());
    assert_eq!(bucket.take(&slow, 7, START), Ok(()));
    bucket.rate_changed(&fast, START);
    assert_eq!(bucket.take(&fast, 1, START), Err(START.plus_ms(1)), "no new burst");
    assert_eq!(bucket.take(&fast, 1_000, START), Err(START.plus_s(1)));
    bucket.rate_changed(&slow, START);
    assert_eq!(bucket.available(&slow, START), 6, "a second is nothing in a week, but not 7");
    assert_eq!(bucket.available(&slow, START.plus_s(1)), 7);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    /// Nothing overflows, and nothing more is granted than anywhere else.
    #[test]
    fn at_the_end_of_time_the_ceiling_holds(
        rate in rates(),
        before_end in prop_oneof![0..10_000_u64, 0..700_000_000_000_000_u64],
        calls in prop::collection::vec((costs(3), 0..=400_u64), 1..40),
    ) {
        let (mut bucket, shared) = (Bucket::default(), SharedBucket::default());
        let mut now = Nanos(u64::MAX - before_end);
        let mut granted = Vec::new();
        for (cost, part) in calls {
            now = Nanos(now.0.saturating_add((u128::from(rate.burst_ns()) * u128::from(part) / 1_000) as u64));
            let cost = cost.of(&rate);
            let available = bucket.available(&rate, now);
            let debt = bucket.clone().take_with_debt(&rate, cost, now);
            prop_assert_eq!(debt.is_none(), available >= cost);
            prop_assert!(debt.is_none_or(|until| until > now || until == Nanos::NEVER));
            let outcome = bucket.take(&rate, cost, now);
            prop_assert_eq!(outcome.is_ok(), available >= cost);
            prop_assert_eq!(shared.take(&rate, cost, now), outcome);
            match outcome {
                Ok(()) => granted.push((now, cost)),
                Err(Nanos::NEVER) => (),
                Err(until) => prop_assert_eq!(bucket.clone().take(&rate, cost, until), Ok(())),
            }
            let kept = bucket.clone();
            bucket.rate_changed(&rate, now);
            prop_assert_eq!(&bucket, &kept, "the rate is the same");
            let at = Now { mono: now, wall: UnixMs(u64::MAX - before_end) };
            let written = bucket.to_wall(at);
            prop_assert_eq!(written.is_none(), bucket.is_full(now));
            let read = written.map(|full_at| Bucket::from_wall(full_at, at, &rate)).unwrap_or_default();
            prop_assert!(read.full_at() >= bucket.full_at() || written.is_none_or(|at| at == UnixMs::NEVER));
        }
        prop_assert_eq!(excess(&rate, &granted), None);
    }
}
