//! Small worlds, all of them: every sequence of up to four operations of three clients, ended at every moment in every way
//! that a disk may be left, against the whole broker and its journal.
//!
//! Beside `simulation`, which plays long random lives: here everything is short, and nothing is left to chance.
//!
//! - `disk`: a disk as a value, and what a crash may leave of it
//! - `process`: the broker's shards with their journals, moved by hand
//! - `clients`: a publisher and two subscribers, and what they are owed
//! - `worlds`: what may happen, and what must be true afterwards
//! - `history`: what led to a failure
//!
//! `SMALL_WORLDS_OPERATIONS=4 cargo test --release --test small_worlds -- --nocapture` tries all; `cargo test` those of up
//! to two operations. `SMALL_WORLDS_PART=3/8` besides tries the third of eight parts.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod clients;
mod disk;
mod history;
mod process;
mod worlds;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use worlds::{Kind, OPERATIONS, Operation, Pace, Seen, Tried, World};

/// Operations of a world, unless the environment says otherwise.
const OPERATIONS_DEFAULT: usize = 2;

const ONE_SHARD: Kind = Kind { name: "one shard", shards: 1, hold_ms: 0, grouped: false, checkpoints: false };

/// Every sequence of that many operations, by its number.
fn sequence(mut number: usize, length: usize) -> Vec<Operation> {
    let mut operations = Vec::new();
    for _ in 0..length {
        operations.push(OPERATIONS[number % OPERATIONS.len()]);
        number /= OPERATIONS.len();
    }
    operations
}

/// All worlds of a kind, on two threads.
fn sweep(kind: Kind) {
    let totals = Totals::default();
    let (part, parts) = part();
    for length in 1..=operations_max() {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let number = part + parts * next.fetch_add(1, Ordering::Relaxed);
                        if number >= OPERATIONS.len().pow(length as u32) {
                            return;
                        }
                        let operations = sequence(number, length);
                        [Pace::Prompt, Pace::Slow, Pace::Stuck]
                            .into_iter()
                            .filter(|pace| length > 1 || *pace == Pace::Prompt)
                            .for_each(|pace| play(kind, &operations, pace, &totals));
                    }
                });
            }
        });
    }
    let (worlds, tried) = totals.sums.into_inner().unwrap();
    let Tried { crashes, alike, by_checkpoint, nested, copied } = tried;
    println!(
        "{}: {worlds} worlds, {crashes} crashes, {nested} of them during recovery, and {alike} that left what another \
         had left; {by_checkpoint} recoveries by a checkpoint, {copied} records copied",
        kind.name
    );
    assert!(!kind.checkpoints || by_checkpoint > 0, "checkpoints are what this kind is about");
}

/// What the worlds of a kind have in common: how many there were, what was tried, what crashes have left.
#[derive(Default)]
struct Totals {
    sums: Mutex<(u64, Tried)>,
    seen: Seen,
}

fn play(kind: Kind, operations: &[Operation], pace: Pace, totals: &Totals) {
    let mut world = World::new(kind, &totals.seen);
    match catch_unwind(AssertUnwindSafe(|| world.play(operations, pace))) {
        Ok(happened) => {
            let (worlds, sum) = &mut *totals.sums.lock().unwrap();
            *worlds += u64::from(happened);
            sum.crashes += world.tried.crashes;
            sum.alike += world.tried.alike;
            sum.by_checkpoint += world.tried.by_checkpoint;
            sum.nested += world.tried.nested;
            sum.copied += world.tried.copied;
        }
        Err(panic) => {
            history::keep(true);
            let nothing = Seen::default();
            let again = catch_unwind(AssertUnwindSafe(|| World::new(kind, &nothing).play(operations, pace)));
            println!("{}", history::told());
            println!("{kind:?}: {operations:?} at {pace:?} pace, after {:?}", world.tried);
            std::panic::resume_unwind(again.err().unwrap_or(panic));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test has no configuration file")]
fn operations_max() -> usize {
    std::env::var("SMALL_WORLDS_OPERATIONS").map_or(OPERATIONS_DEFAULT, |text| text.parse().unwrap())
}

/// Which part of all sequences, from 0, and of how many.
#[expect(clippy::disallowed_methods, reason = "a test has no configuration file")]
fn part() -> (usize, usize) {
    let Ok(text) = std::env::var("SMALL_WORLDS_PART") else { return (0, 1) };
    let (part, parts) = text.split_once('/').expect("SMALL_WORLDS_PART is PART/PARTS");
    let (part, parts): (usize, usize) = (part.parse().unwrap(), parts.parse().unwrap());
    assert!((1..=parts).contains(&part), "SMALL_WORLDS_PART={text}: parts are numbered from 1");
    (part - 1, parts)
}

#[test]
fn one_shard_that_writes_at_once_survives_every_crash() {
    sweep(ONE_SHARD);
}

#[test]
fn one_shard_that_holds_messages_back_survives_every_crash() {
    sweep(Kind { name: "one shard, hold", hold_ms: 100, ..ONE_SHARD });
}

#[test]
fn one_shard_that_writes_checkpoints_all_the_time_survives_every_crash() {
    sweep(Kind { name: "one shard, checkpoints", checkpoints: true, ..ONE_SHARD });
}

#[test]
fn one_shard_with_a_shared_subscription_survives_every_crash() {
    sweep(Kind { name: "one shard, group", grouped: true, ..ONE_SHARD });
}

#[test]
fn two_shards_survive_every_crash() {
    sweep(Kind { name: "two shards", shards: 2, ..ONE_SHARD });
}

#[test]
fn two_shards_with_a_shared_subscription_that_hold_messages_back_survive_every_crash() {
    sweep(Kind { name: "two shards, group, hold", shards: 2, grouped: true, hold_ms: 100, ..ONE_SHARD });
}

#[test]
fn two_shards_with_a_shared_subscription_survive_every_crash() {
    sweep(Kind { name: "two shards, group", shards: 2, grouped: true, checkpoints: true, ..ONE_SHARD });
}
