//! The real binary through real crashes, under load: nothing acknowledged is lost, QoS 2 arrives once, order is kept.
//!
//! Two kinds of crash. `kill -9` shows that nothing is acknowledged before it was written; what was written survives
//! it without any sync. Shutting down the file system below the data (`disk`) shows that nothing is acknowledged
//! before it was synced. Several publishers and subscribers of both versions (`cast`) keep their own state over every
//! crash as real clients do, and books (`books`) that know nothing of the broker.
//!
//! A short slice runs with the other tests. The campaign:
//!
//! ```text
//! CRASH_KILLS=200 CRASH_SHUTDOWNS=100 cargo test --release --test crash_campaign -- --ignored --nocapture
//! ```
//!
//! `CRASH_SEED` repeats the plan of a round; the timing of a crash is the machine's. `CRASH_BINARY` runs another
//! program than the one just built.

mod books;
mod broker;
mod cast;
mod disk;
mod link;
mod publisher;
mod random;
mod round;
mod subscriber;

use std::path::PathBuf;

use books::Totals;
use round::{Crash, Plan};

/// Crashes of one data directory.
const CRASHES_PER_ROUND: u32 = 10;

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    campaign(Crash::Kill, setting("CRASH_KILLS").unwrap_or(6), setting("CRASH_SEED").unwrap_or(1));
}

#[test]
fn nothing_acknowledged_is_lost_when_the_disk_stops() {
    campaign(Crash::Shutdown, setting("CRASH_SHUTDOWNS").unwrap_or(3), setting("CRASH_SEED").unwrap_or(2));
}

#[test]
#[ignore = "takes minutes"]
fn campaign_of_kills_and_shutdowns() {
    let seed = setting("CRASH_SEED").unwrap_or_else(any_seed);
    campaign(Crash::Kill, setting("CRASH_KILLS").unwrap_or(200), seed);
    campaign(Crash::Shutdown, setting("CRASH_SHUTDOWNS").unwrap_or(100), seed + 1_000);
}

/// So many crashes, in rounds; fails with everything that was found.
fn campaign(crash: Crash, crashes: u32, seed: u64) {
    let program =
        text("CRASH_BINARY").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_ironpost")), PathBuf::from);
    let (mut totals, mut failures) = (Totals::default(), Vec::new());
    let mut left = crashes;
    let mut seed = seed;
    while left > 0 {
        let plan = Plan { seed, crash, crashes: left.min(CRASHES_PER_ROUND), program: program.clone() };
        match round::run(&plan) {
            Ok(outcome) => {
                println!("{crash:?} round of {} with CRASH_SEED={seed}: {}", plan.crashes, outcome.totals);
                outcome.failures.iter().for_each(|failure| println!("  FAILED: {failure}"));
                totals.add(&outcome.totals);
                failures.extend(outcome.failures);
            }
            Err(reason) if crash == Crash::Shutdown && crashes <= CRASHES_PER_ROUND => {
                eprintln!("skipped: no file system can be shut down here: {reason}");
                return;
            }
            Err(reason) => panic!("no round can be run here: {reason}"),
        }
        left -= plan.crashes;
        seed += 1;
    }
    println!("{crash:?}, {crashes} in all: {totals}");
    assert!(
        totals.failures == 0,
        "{} failure(s), the first of them:\n{}",
        totals.failures,
        failures.join("\n")
    );
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    text(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[expect(clippy::disallowed_methods, reason = "settings of a test run have no configuration file")]
fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A seed that nobody chose.
fn any_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(()) >> 40
}
