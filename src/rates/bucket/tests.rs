//! The bucket against one that is counted exactly, in every span of time; its waits, its debts, threads, restarts and edges.

mod edges;
mod model;
mod shared;

use proptest::prelude::*;

use super::*;
use model::{Exact, Step, costs, excess, rates, slack_ns, steps};

const START: Nanos = Nanos(1 << 40);

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 3_000, ..ProptestConfig::default() })]

    /// The central one. What may come late by rounding is said in `rate`, and adds up over the calls.
    #[test]
    fn it_grants_in_no_span_more_than_the_rate_and_else_what_an_exact_bucket_grants(
        rate in rates(),
        steps in steps(1..50),
    ) {
        let (mut bucket, mut exact) = (Bucket::default(), Exact::new(&rate));
        let (mut now, mut when, mut late_ns) = (START, START, 0_u128);
        let mut granted = Vec::new();
        for Step { pause, cost } in steps {
            let then = now;
            now = pause.end(now, when, &rate);
            exact.pass(now.0 - then.0);
            let cost = cost.of(&rate);
            match bucket.take(&rate, cost, now) {
                Ok(()) => {
                    late_ns += slack_ns(&rate, cost);
                    granted.push((now, cost));
                    prop_assert!(exact.has(cost), "{cost} at {now:?} is too much");
                    exact.take(cost);
                }
                Err(until) => {
                    when = until;
                    let late = late_ns + slack_ns(&rate, cost);
                    prop_assert!(!exact.would_have(cost, late), "{cost} at {now:?} is refused");
                }
            }
        }
        prop_assert_eq!(excess(&rate, &granted), None);
    }

    #[test]
    fn a_refusal_names_the_first_moment_at_which_it_would_be_granted(rate in rates(), steps in steps(1..50)) {
        let (mut bucket, mut now, mut when) = (Bucket::default(), START, START);
        for Step { pause, cost } in steps {
            now = pause.end(now, when, &rate);
            let cost = cost.of(&rate);
            if let Err(until) = bucket.take(&rate, cost, now) {
                prop_assert_eq!(until == Nanos::NEVER, cost > rate.burst());
                when = until;
                prop_assert!(until > now);
                prop_assert!(until.0 - now.0 <= rate.ns_for(cost) || cost > rate.burst());
                if cost <= rate.burst() {
                    prop_assert_eq!(bucket.clone().take(&rate, cost, until), Ok(()));
                    prop_assert_eq!(bucket.clone().take(&rate, cost, Nanos(until.0 - 1)), Err(until));
                }
            }
        }
    }

    #[test]
    fn what_is_available_is_the_most_that_is_granted(rate in rates(), steps in steps(1..50)) {
        let (mut bucket, mut now) = (Bucket::default(), START);
        for Step { pause, cost } in steps {
            now = pause.end(now, now, &rate);
            let _ = bucket.take(&rate, cost.of(&rate), now);
            let available = bucket.available(&rate, now);
            prop_assert!(available <= rate.burst());
            prop_assert_eq!(bucket.clone().take(&rate, available, now), Ok(()));
            prop_assert!(bucket.clone().take(&rate, available + 1, now).is_err());
            prop_assert!(!bucket.is_full(now) || available == rate.burst());
            prop_assert_eq!(bucket.is_full(now), bucket.full_at() <= now);
        }
    }

    /// Whoever has no pause but those that it is told to make gets the rate, however large what it takes.
    #[test]
    fn who_waits_until_it_is_out_of_debt_gets_the_rate(rate in rates(), costs in prop::collection::vec(costs(20), 1..60)) {
        let (mut bucket, mut now, mut late_ns, mut sum) = (Bucket::default(), START, 0, 0_u128);
        for cost in costs {
            let cost = cost.of(&rate);
            prop_assert_eq!(bucket.in_debt_until(&rate, now), None);
            let fits = bucket.available(&rate, now) >= cost;
            let until = bucket.take_with_debt(&rate, cost, now);
            prop_assert_eq!(until.is_none(), fits, "no debt, no pause");
            prop_assert_eq!(bucket.in_debt_until(&rate, now), until);
            now = until.unwrap_or(now);
            late_ns += slack_ns(&rate, cost);
            sum += u128::from(cost);
            // How long what is beyond the burst takes to come, in nanoseconds times tokens of the rate.
            let exact = sum.saturating_sub(rate.burst().into()) * u128::from(rate.per().0);
            let waited = u128::from(now.0 - START.0) * u128::from(rate.tokens());
            prop_assert!(waited >= exact);
            prop_assert!(waited <= exact + late_ns * u128::from(rate.tokens()));
        }
    }

    /// Several at one bucket in debt: each waits for what the others took, too.
    #[test]
    fn debts_of_several_add_up(rate in rates(), costs in prop::collection::vec(costs(20), 2..10)) {
        let (mut bucket, mut until) = (Bucket::default(), None);
        let mut sum = 0_u128;
        for cost in costs {
            let cost = cost.of(&rate);
            sum += u128::from(cost);
            if cost > 0 {
                until = bucket.take_with_debt(&rate, cost, START);
            }
        }
        let exact = sum.saturating_sub(rate.burst().into()) * u128::from(rate.per().0);
        let waits = u128::from(until.unwrap_or(START).0 - START.0) * u128::from(rate.tokens());
        prop_assert!(waits >= exact);
    }

    /// The three clocks are one true time, each read in its own way: the wall clock in whole milliseconds, the other from
    /// its own zero in each process.
    #[test]
    fn a_restart_gives_nobody_a_token_and_takes_less_than_3_ms(
        rate in rates(),
        takings in prop::collection::vec((costs(1), 0..2_000_000_u64), 1..20),
        off in prop_oneof![0..3_000_000_u64, any::<u64>().prop_map(|ns| ns >> 14)],
    ) {
        let before = |at: u64| Now { mono: Nanos(at - START.0 / 2), wall: UnixMs(at / NS_PER_MS) };
        let after = |at: u64| Now { mono: Nanos(at - START.0), wall: UnixMs(at / NS_PER_MS) };
        let (mut at, mut bucket) = (START.0, Bucket::default());
        for (cost, pause_ns) in takings {
            at += pause_ns;
            let _ = bucket.take(&rate, cost.of(&rate), before(at).mono);
        }
        let written = bucket.to_wall(before(at));
        prop_assert_eq!(written.is_none(), bucket.is_full(before(at).mono));
        at += off;
        let read = written.map(|full_at| Bucket::from_wall(full_at, after(at), &rate)).unwrap_or_default();
        prop_assert!(read.available(&rate, after(at).mono) <= bucket.available(&rate, before(at).mono));
        let late = Nanos(after(at).mono.0 + 3 * NS_PER_MS - 1);
        prop_assert!(read.available(&rate, late) >= bucket.available(&rate, before(at).mono));
    }

    #[test]
    fn a_wall_clock_that_goes_back_locks_nobody_out_for_longer_than_the_burst(rate in rates(), full_at: u64, wall: u64) {
        let now = Now { mono: START, wall: UnixMs(wall) };
        let mut bucket = Bucket::from_wall(UnixMs(full_at), now, &rate);
        prop_assert_eq!(bucket.in_debt_until(&rate, START), None);
        prop_assert_eq!(bucket.take(&rate, rate.burst(), Nanos(START.0 + rate.burst_ns())), Ok(()));
    }

    #[test]
    fn after_a_change_of_the_rate_nobody_waits_longer_than_the_new_burst_and_none_is_given(
        before in rates(),
        after in rates(),
        taken in costs(20),
        cost in costs(20),
    ) {
        let mut bucket = Bucket::default();
        let _ = bucket.take_with_debt(&before, taken.of(&before), START);
        let (kept, cost) = (bucket.clone(), cost.of(&after));
        bucket.rate_changed(&after, START);
        prop_assert_eq!(bucket.in_debt_until(&after, START), None);
        prop_assert_eq!(bucket.available(&after, START), kept.available(&after, START));
        if let Some(until) = bucket.clone().take_with_debt(&after, cost, START) {
            prop_assert!(until.0 - START.0 <= after.ns_for(cost));
        }
        if let Err(until) = bucket.take(&after, cost, START) {
            prop_assert!(cost > after.burst() || until.0 - START.0 <= after.burst_ns());
        }
    }
}
