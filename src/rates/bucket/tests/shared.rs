//! The bucket of several threads: decides as the plain one does, and keeps to its rate whoever calls.

use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;

use super::model::{Step, excess, rates, steps};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn it_decides_as_the_plain_one(
        rate in rates(),
        other in rates(),
        steps in steps(1..40),
        debts: u64,
        changes: u64,
    ) {
        let (mut plain, shared) = (Bucket::default(), SharedBucket::default());
        let mut now = START;
        for (index, Step { pause, cost }) in steps.into_iter().enumerate() {
            now = pause.end(now, now, &rate);
            let cost = cost.of(&rate);
            if debts >> index & 1 == 1 {
                let expected = plain.take_with_debt(&rate, cost, now);
                prop_assert_eq!(shared.take_with_debt(&rate, cost, now), expected);
            } else {
                prop_assert_eq!(shared.take(&rate, cost, now), plain.take(&rate, cost, now));
            }
            if changes >> index & 7 == 7 {
                plain.rate_changed(&other, now);
                shared.rate_changed(&other, now);
            }
            prop_assert_eq!(&shared.to_bucket(), &plain);
        }
        prop_assert_eq!(SharedBucket::from(plain.clone()).to_bucket(), plain);
    }
}

/// What each of the threads returns, begun together.
fn on_threads<T: Send>(run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    const THREADS: u64 = 4;
    let (barrier, run) = (&Barrier::new(THREADS as usize), &run);
    thread::scope(|scope| {
        let start = |number| {
            scope.spawn(move || {
                barrier.wait();
                run(number)
            })
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    })
}

#[test]
fn several_threads_at_one_moment_get_the_burst_and_not_one_token_more() {
    let rate: Rate = "1_000/s burst 300_000".parse().unwrap();
    let bucket = SharedBucket::default();
    let granted = on_threads(|_| (0..150_000).filter(|_| bucket.take(&rate, 1, START).is_ok()).count());
    assert_eq!(granted.into_iter().sum::<usize>(), 300_000);
}

#[test]
fn several_threads_with_clocks_apart_keep_to_the_rate_in_every_span() {
    let rate: Rate = "1_000_000/s burst 300".parse().unwrap();
    let bucket = SharedBucket::default();
    let granted = on_threads(|thread| {
        let times = (0..200_000).map(|index| Nanos(START.0 + thread * 5_000 + index * 17));
        times.filter(|now| bucket.take(&rate, 1 + now.0 % 3, *now).is_ok()).collect::<Vec<_>>()
    });
    let mut granted: Vec<_> = granted.into_iter().flatten().map(|now| (now, 1 + now.0 % 3)).collect();
    granted.sort_unstable();
    assert!(granted.len() > 300);
    assert_eq!(excess(&rate, &granted), None);
}

#[test]
fn debts_of_several_threads_add_up() {
    let rate: Rate = "1_000/s".parse().unwrap();
    let bucket = SharedBucket::default();
    on_threads(|_| {
        for _ in 0..50_000 {
            bucket.take_with_debt(&rate, 1, START);
        }
    });
    assert_eq!(bucket.to_bucket().full_at(), START.plus_s(200));
}
