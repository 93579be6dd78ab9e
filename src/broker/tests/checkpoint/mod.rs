//! A checkpoint and a crash at any moment: replaying the records that were live then, and all that came after, gives
//! the state that replaying every record gives.
//!
//! A seeded random run drives one broker or several, with clients that connect, publish, acknowledge and leave, and a
//! disk that lags. On the way it looks which records are live; later it supposes that the disk was as far as some
//! record when the process died, replays in both ways, and compares everything durable. Some of those crashes happen:
//! the run goes on from what was replayed from the live records, so that one checkpoint follows from another.
//!
//! A journal does not write its checkpoint in one moment. So a look has two: the records are those up to the first, and
//! which of them are live is as of the first, of the second, or, record by record, of either.

mod client;
mod digest;
mod disk;
mod look;
mod random;
mod reshard;
mod run;
mod salvage;

pub(super) use salvage::through_salvage;

use super::*;
use run::Run;

fn runs(shards: u16, seeds: std::ops::Range<u64>, steps: u32) {
    let mut compared = 0;
    for seed in seeds {
        let spent_max = [2, 3, 100][usize::try_from(seed % 3).expect("small")];
        let mut run = Run::with(shards, seed, |settings| settings.spent_max = spent_max);
        run.go(steps);
        compared += run.compared;
    }
    assert!(compared > 0, "a run in which nothing is compared shows nothing");
}

#[test]
fn one_broker_is_the_same_whether_it_replays_the_live_records_or_all() {
    runs(1, 0..100, 250);
}

#[test]
fn each_of_several_brokers_is_the_same_whether_it_replays_the_live_records_or_all() {
    runs(3, 0..60, 250);
}

/// The same for longer: `SEED=1 SEEDS=1000 cargo test --lib checkpoint -- --ignored`.
#[test]
#[ignore = "minutes"]
#[expect(clippy::disallowed_methods, reason = "a seed is not a setting")]
fn brokers_are_the_same_in_many_runs() {
    let number = |name: &str, otherwise| {
        std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(otherwise)
    };
    let first = number("SEED", 1_000);
    let seeds = first..first + number("SEEDS", 3_000);
    runs(1, seeds.clone(), 400);
    runs(2, seeds.clone(), 400);
    runs(3, seeds, 400);
}
