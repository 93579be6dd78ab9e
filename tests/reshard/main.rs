//! The real program gives a data directory that it was killed on another number of shards, and is killed at that too,
//! again and again until it comes through. Then every session takes what it is owed: nothing is lost, nothing at QoS 2
//! comes twice, and everything comes in its order.
//!
//! - `world`: what is in the directory, and what each session has to get in the end
//!
//! Bytes and clients are those of `tests/conformance`, the process is that of `tests/disk_faults`.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

#[path = "../conformance/peer.rs"]
#[expect(dead_code, reason = "the conformance tests use the rest")]
mod peer;
#[path = "../disk_faults/process.rs"]
#[expect(dead_code, reason = "the tests of a failing disk use the rest")]
mod process;
mod world;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use peer::{broker, bytes, client};
use process::{Process, Start};
use world::World;

use crate::broker::clock;

/// Kills before one that is not killed has to come through by itself.
const KILLS_MAX: u32 = 24;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ironpost"));
    command.args(["journal", "reshard"]).args(arguments).arg("--data").arg(data);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(data: &Path, arguments: &[&str]) -> Output {
    command(data, arguments).output().expect("the program can be started")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[expect(clippy::disallowed_methods, reason = "an observer from outside has no other clock")]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

/// Kills it after more and more time, until one was faster. Returns how often, and what the last one said.
fn reshard_through_kills(data: &Path, shards: &str, step: Duration) -> (u32, String) {
    for kills in 0..=KILLS_MAX {
        let mut child = command(data, &[shards]).spawn().expect("the program can be started");
        let wait = if kills == KILLS_MAX { PATIENCE } else { step * kills };
        let begun = clock();
        while begun.elapsed() < wait && child.try_wait().expect("a child can be asked").is_none() {
            pause();
        }
        // It may have ended just now.
        let _ = child.kill();
        let output = child.wait_with_output().expect("a child can be waited for");
        if output.status.success() {
            return (kills, said(&output));
        }
        assert_eq!(output.status.code(), None, "it was killed, and did not fail: {}", said(&output));
    }
    panic!("it does not come through");
}

fn shard_directories(data: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(data).expect("a directory").map(|entry| entry.expect("an entry"));
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().into_string().expect("a name of ours")).collect();
    names.retain(|name| name.starts_with("shard-"));
    names.sort();
    names
}

#[test]
fn nothing_is_lost_from_8_shards_to_1_to_2_with_kills_in_between() {
    let temporary = tempfile::tempdir().expect("a directory for the data");
    let data = temporary.path().join("data");
    let start = |shards| Start { shards, ..Start::on(&data) };
    let process = Process::start(start(8));
    let mut world = World::fill(process.address);
    // Nobody stops it in an orderly way.
    process.kill();

    let refused = Process::refuses(start(1));
    let cure = format!("`ironpost journal reshard 1 --data {}`", data.display());
    refused.expect(&["made for 8 shards, 1 were requested", &cure]);

    let dry = run(&data, &["1", "--dry-run"]);
    assert!(dry.status.success() && said(&dry).contains("nothing was changed: 8 shards"), "{}", said(&dry));
    assert_eq!(shard_directories(&data).len(), 8);

    let (kills, report) = reshard_through_kills(&data, "1", Duration::from_millis(60));
    eprintln!("8 to 1 after {kills} kills:\n{report}");
    assert!(kills > 0, "not one was killed");
    assert!(report.contains("it had 8 shards and has 1") || report.contains("nothing to do"), "{report}");

    // Some of it is taken here, so that the next one has state of its own kind.
    let process = Process::start(start(1));
    assert_eq!(shard_directories(&data).len(), 1);
    world.take_some(process.address);
    process.kill();

    let (kills, report) = reshard_through_kills(&data, "2", Duration::from_millis(60));
    eprintln!("1 to 2 after {kills} kills:\n{report}");
    let process = Process::start(start(2));
    assert_eq!(shard_directories(&data).len(), 2);
    world.take_all(process.address);
    assert_eq!(process.terminate().status, Some(0));

    let again = run(&data, &["2"]);
    assert!(again.status.success() && said(&again).contains("nothing to do"), "{}", said(&again));
}

#[test]
fn a_directory_that_is_in_use_or_not_there_is_refused() {
    let temporary = tempfile::tempdir().expect("a directory for the data");
    let data = temporary.path().join("data");
    let missing = run(&data, &["2"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(said(&missing).contains("not the data directory of a broker"), "{}", said(&missing));
    assert!(!data.exists(), "nothing was made");

    let process = Process::start(Start::on(&data));
    let in_use = run(&data, &["2"]);
    assert_eq!(in_use.status.code(), Some(1));
    assert!(said(&in_use).contains("another process uses"), "{}", said(&in_use));
    assert_eq!(process.terminate().status, Some(0));
}
