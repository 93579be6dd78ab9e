//! Backups of the real program under load, and what a broker has that is started on one: everything that was acknowledged
//! before the backup began and not consumed when it ended, and nothing that nobody sent.
//!
//! - `load`: publishers, readers, members of a shared subscription that come and end; and what each was told
//! - `refusals`: what is refused, and what becomes of a backup when somebody dies
//! - `pause`: how much a client notices
//!
//! Bytes and clients are those of `tests/conformance`, the process is that of `tests/disk_faults`. A slice runs with the
//! other tests; more of it:
//!
//! ```text
//! BACKUP_ROUNDS=25 cargo test --release --test backup -- --nocapture
//! ```
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod load;
mod pause;
#[path = "../conformance/peer.rs"]
#[expect(dead_code, reason = "the conformance tests use the rest")]
mod peer;
#[path = "../disk_faults/process.rs"]
#[expect(dead_code, reason = "the tests of a failing disk use the rest")]
mod process;
mod refusals;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use load::Load;
use peer::{broker, bytes, client};
use process::{Process, Start};

use crate::broker::clock;

/// The program's `backup` from there to there.
fn backup(data: &Path, target: &Path, more: &[&str]) -> Command {
    let mut command = program();
    command.arg("backup").arg(target).arg("--data").arg(data).args(more);
    command
}

fn restore(source: &Path, data: &Path) -> Output {
    let mut command = program();
    command.arg("restore").arg(source).arg("--data").arg(data);
    command.output().expect("the program can be started")
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ironpost"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Asserts that it succeeded; what it said.
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

#[expect(clippy::disallowed_methods, reason = "an observer from outside has no other clock")]
fn pause_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Waits for its end, or kills it after that time. Whether it came to its end.
fn end_within(child: &mut Child, time: Duration) -> bool {
    let begun = clock();
    while begun.elapsed() < time {
        if child.try_wait().expect("a child can be asked").is_some() {
            return true;
        }
        pause_ms(1);
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

fn setting(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "settings of a test run have no configuration file")]
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A backup of a broker at work, restored, has what it must; so has the one before when the next one was killed.
fn under_load(shards: u16, reactor: &'static str) {
    let rounds = setting("BACKUP_ROUNDS").unwrap_or(2);
    let temporary = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { temporary.path().join(name) };
    let (data, target) = (path("data"), path("backup"));
    let start = Start {
        shards,
        reactor,
        config: "queue_bytes_max = 1073741824\nqueue_messages_max = 1000000",
        ..Start::on(&data)
    };
    let process = Process::start(start);
    let mut load = Load::begin(process.address);
    let (mut copied, mut linked, mut killed, mut came_through) = (0, 0, 0, 0);
    for round in 0..rounds {
        load.run_for(Duration::from_millis(700));
        let before = load.accepted();
        let output = backup(&data, &target, &[]).output().expect("the program can be started");
        let text = done(&output);
        let after = load.consumed();
        eprint!("{shards} shards, {reactor}, {} accepted: {text}", before.len());
        copied += 1;
        linked += u64::from(text.contains("were there already"));
        check(&target, &path(&format!("restored-{round}")), start, &load, &before, &after);
        // The next one comes to nothing, or to its end.
        load.run_for(Duration::from_millis(200));
        let mut child = backup(&data, &target, &[]).spawn().expect("the program can be started");
        let time = Duration::from_millis(load.random() % 300);
        if end_within(&mut child, time) {
            came_through += 1;
        } else {
            killed += 1;
        }
        let after = load.consumed();
        check(&target, &path(&format!("restored-{round}-again")), start, &load, &before, &after);
    }
    eprintln!("{copied} backups, {linked} on top of another; {killed} killed, {came_through} were faster");
    assert!(killed > 0 || rounds > 1 && came_through > 0);
    let ended = load.end();
    eprintln!("{ended}");
    process.kill();
    // Of a broker that was killed; by now nothing changes.
    done(&backup(&data, &target, &[]).output().unwrap());
    check(&target, &path("restored-last"), start, &load, &load.accepted(), &load.consumed());
}

/// Restores it, and drains a broker that is started on that.
fn check(
    target: &Path,
    restored: &Path,
    start: Start<'_>,
    load: &Load,
    before: &load::Messages,
    after: &load::Messages,
) {
    let mut verify = program();
    done(&verify.args(["journal", "verify", "--data"]).arg(target).output().unwrap());
    load.rest(true);
    done(&restore(target, restored));
    let process = Process::start(Start { data: restored, ..start });
    load.drain(process.address, before, after);
    process.kill();
    std::fs::remove_dir_all(restored).unwrap();
}

#[test]
fn a_backup_under_load_has_everything_that_was_acknowledged_before_1_shard() {
    under_load(1, "epoll");
}

#[test]
fn a_backup_under_load_has_everything_that_was_acknowledged_before_2_shards() {
    under_load(2, "epoll");
}

#[test]
fn a_backup_under_load_has_everything_that_was_acknowledged_before_2_shards_on_a_ring() {
    under_load(2, "uring");
}

#[test]
fn a_backup_under_load_has_everything_that_was_acknowledged_before_1_shard_on_a_ring() {
    under_load(1, "uring");
}
