//! The whole broker in a simulated world: shards, journals, mesh and protocol against random clients, broken
//! connections, failing disks, crashes and power cuts, all in one thread, all from one number.
//!
//! - `scenario`: what a seed draws before anything happens
//! - `cluster`: the broker as a process
//! - `client`, `receive`: a client, and what it expects of the broker packet by packet
//! - `sessions`: what a client can know of its session
//! - `oracle`: what the broker owes, and what must never happen
//! - `driver`: what happens, and the two phases: safety under faults, then liveness without
//!
//! `cargo test --test simulation` plays the seeds below. Fresh seeds, one seed: see `tests/README.md`. A failing seed prints what was violated, what led to it, and how to play it again.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod client;
mod cluster;
mod driver;
mod oracle;
mod receive;
mod scenario;
mod sessions;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use driver::{Run, Summary};

/// Seeds played by `cargo test`.
const SWEEP: std::ops::Range<u64> = 1..161;

/// A sweep ends when so many seeds have failed.
const FAILURES_MAX: usize = 100;

/// Lines of history that a failing seed prints.
const HISTORY_LINES: usize = 400;

/// Seeds that once failed, and what they found.
const REGRESSIONS: &[(u64, &str)] = &[
    (1, "a message that was held in memory came after a later one of the same stream once replayed"),
    (3, "a 3.1.1 client whose publish was refused lost the acknowledgements of those before it, for ever"),
    (5, "no defect: a client asked for its own messages only after it had sent one, which then came late"),
    (9, "a session that had ended was back after a crash, though its client had been told so"),
    (11, "after a failed sync and a power cut the log had a hole"),
    (18, "two copies of a message in one session were mixed up at replay"),
    (22, "a QoS 2 message that came back to its publisher's home was routed twice"),
    (
        31,
        "a segment whose header was taken back at a start was refused at the next, with another segment size",
    ),
    (53, "CONNACK with a reason that only DISCONNECT may have"),
    (213, "a session ended and its slot was gone while a message was being placed for it"),
    (
        226,
        "judged wrongly: nobody matched, because a session had ended with a connection that its client still had",
    ),
    (255, "judged wrongly: a session ended with a QoS 2 delivery begun, which must not go to another member"),
    (286, "retained messages came after UNSUBACK"),
    (461, "a QoS 2 message for which a queue had no room was routed again after a crash, behind later ones"),
    (661, "a 3.1.1 client was refused a new session on disk while there was no room, as the README says"),
    (705, "the last member on a shard left, and what came there for its group was lost"),
    (1066, "a shard with work left waited for the next event of the world, as in 1855 and 2178"),
    (1440, "the same; messages on their way between shards for longer than quiet lasts were taken for lost"),
    (1504, "the same, where others had taken the message without a record"),
    (1647, "a session with a full queue was not told of a QoS 2 message that nobody could refuse any more"),
    (1765, "the same, with members that came to other shards meanwhile"),
    (1808, "a client was refused a new session on disk while there was no room"),
    (1895, "no defect, as 5"),
    (2037, "a gap was lost with the connection that ended before its CONNACK left"),
    (2154, "a gap was lost with the process that ended before its CONNACK left"),
    (2293, "no defect: of two messages that came at different QoS the later was begun before a crash"),
    (2394, "as 461, where the publisher's home owned the topic"),
    (2446, "what a session left of one shared subscription was handed to another that matches"),
    (2733, "judged wrongly: what a member had got was forgotten when its session ended"),
    (2831, "a 3.1.1 session that a shard without disk had skipped, and that has no way to be told"),
    (
        8788,
        "a message left before it was on disk that an earlier one had been skipped, which came after a crash",
    ),
];

/// Plays a seed; a violation as text.
fn play(seed: u64, with_history: bool) -> Result<Summary, String> {
    let mut run = Run::new(seed, with_history);
    catch_unwind(AssertUnwindSafe(|| run.play())).map_err(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let history = run.oracle.history();
        let lines = if from_environment("IRONPOST_SIM_SEED").is_some() { usize::MAX } else { HISTORY_LINES };
        let from = history.len().saturating_sub(lines);
        format!("{}\n{}", history[from..].join("\n"), message.unwrap_or_default())
    })
}

/// Plays a seed, and if it fails once more, to tell what led to it.
fn play_or_tell(seed: u64) -> Result<Summary, String> {
    play(seed, false).map_err(|first| {
        let told = play(seed, true).err().unwrap_or_else(|| format!("{first}\nand not when played again!"));
        let command =
            format!("IRONPOST_SIM_SEED={seed} cargo test --release --test simulation -- --nocapture");
        format!("{told}\n\nseed {seed} fails; play it again: {command}")
    })
}

/// Plays seeds on two threads; each world lives in one of them. Tells the history of the first that fails, and which
/// others do.
fn sweep(seeds: std::ops::Range<u64>) {
    let next = AtomicU64::new(seeds.start);
    let failed = std::sync::Mutex::new(Vec::new());
    let totals = std::sync::Mutex::new((0u64, Summary::default()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.lock().unwrap().len() >= FAILURES_MAX {
                        return;
                    }
                    let Err(text) =
                        play(seed, false).map(|summary| add(&mut totals.lock().unwrap(), summary))
                    else {
                        continue;
                    };
                    println!("seed {seed} fails: {}", text.trim());
                    failed.lock().unwrap().push(seed);
                }
            });
        }
    });
    let (count, sum) = *totals.lock().unwrap();
    println!(
        "{count} seeds: {} operations, {} crashes, {} deliveries, {} acknowledged, {} steps; {} journals recovered by a \
         checkpoint, {} records copied",
        sum.operations,
        sum.crashes,
        sum.deliveries,
        sum.acknowledged,
        sum.steps,
        sum.by_checkpoint,
        sum.copied
    );
    let failed = failed.into_inner().unwrap();
    if let Some(first) = failed.iter().min() {
        println!("{}", play_or_tell(*first).err().unwrap_or_default());
    }
    assert!(failed.is_empty(), "{} seeds failed: {failed:?}", failed.len());
}

fn add(totals: &mut (u64, Summary), one: Summary) {
    assert!(one.operations >= 1_000 && one.crashes >= 1, "{one:?}");
    totals.0 += 1;
    totals.1.operations += one.operations;
    totals.1.crashes += one.crashes;
    totals.1.by_checkpoint += one.by_checkpoint;
    totals.1.copied += one.copied;
    totals.1.deliveries += one.deliveries;
    totals.1.acknowledged += one.acknowledged;
    totals.1.steps += one.steps;
}

/// A number from the environment: how these tests are told which seeds to play.
#[expect(clippy::disallowed_methods, reason = "a test has no configuration file")]
fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn every_seed_keeps_what_was_promised() {
    if let Some(seed) = from_environment("IRONPOST_SIM_SEED") {
        return sweep(seed..seed + 1);
    }
    match from_environment("IRONPOST_SIM_SEEDS") {
        Some(count) => {
            let from = from_environment("IRONPOST_SIM_FROM").unwrap_or(1);
            sweep(from..from + count);
        }
        None => sweep(SWEEP),
    }
}

#[test]
fn seeds_that_failed_once_do_not_fail_again() {
    for (seed, what) in REGRESSIONS {
        if let Err(text) = play_or_tell(*seed) {
            panic!("{text}\nonce: {what}");
        }
    }
}

#[test]
fn the_same_seed_plays_the_same_run() {
    for seed in 1..4 {
        let played = play(seed, false).unwrap();
        assert_eq!(played, play(seed, false).unwrap(), "seed {seed}");
        assert_ne!(played.trace, play(seed + 100, false).unwrap().trace, "another seed, another run");
    }
}
