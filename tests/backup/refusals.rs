//! What is refused and with which words, and what becomes of a backup when somebody dies in the middle of it.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Output};
use std::time::Duration;

use ironpost::limits::{CONTROL_CONNECTIONS_MAX, CONTROL_LINE_BYTES_MAX, CONTROL_MS};

use crate::broker::clock;
use crate::bytes::{Connect, Publish};
use crate::client::Client;
use crate::process::{Process, Start};
use crate::{backup, done, pause_ms, restore, said};

const PATIENCE: Duration = Duration::from_secs(20);

fn refused(output: &Output, words: &[&str]) {
    assert_eq!(output.status.code(), Some(1), "{}", said(output));
    for word in words {
        assert!(said(output).contains(word), "no word of {word:?} in: {}", said(output));
    }
}

/// A broker with something to copy, and a session that is away.
fn filled(data: &Path) -> Process {
    let process = Process::start(Start { shards: 2, ..Start::on(data) });
    let mut away = Client::connect_at(process.address, &Connect::durable("away"));
    assert_eq!(away.subscribe("store/#", 2), 2);
    away.disconnect();
    let mut publisher = Client::connect_at(process.address, &Connect::v5("publisher"));
    let payload = "x".repeat(100_000);
    for number in 0..60 {
        let publish = Publish::new(&format!("store/{}", number % 7), &format!("{number} {payload}"));
        assert_eq!(publisher.publish_acknowledged(publish), 0);
    }
    process
}

/// A backup that is held at its first bytes: 6 MB at 1 MiB/s.
fn slow(process: &mut Process, data: &Path, target: &Path) -> Child {
    let child = backup(data, target, &["--rate", "1"]).spawn().unwrap();
    let begun = clock();
    let before = process.serves().matches("backup_begun").count();
    while process.serves().matches("backup_begun").count() == before {
        assert!(begun.elapsed() < PATIENCE, "it does not begin");
        pause_ms(5);
    }
    child
}

fn wait_for(process: &mut Process, words: &str) {
    let begun = clock();
    while !process.serves().contains(words) {
        assert!(begun.elapsed() < PATIENCE, "no word of {words:?} in: {}", process.serves());
        pause_ms(5);
    }
}

fn owed(data: &Path) -> usize {
    let process = Process::start(Start { shards: 2, ..Start::on(data) });
    let mut away = Client::connect_at(process.address, &Connect::durable("away"));
    assert!(away.present);
    let mut count = 0;
    while away.hears_within(Duration::from_millis(300)) {
        let publish = away.receive_publish();
        away.acknowledge(&publish);
        count += 1;
    }
    count
}

#[test]
fn there_is_one_backup_at_a_time_and_one_that_is_killed_is_forgotten() {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name: &str| temporary.path().join(name);
    let data = path("data");
    let mut process = filled(&data);
    done(&backup(&data, &path("first"), &[]).output().unwrap());
    let mut child = slow(&mut process, &data, &path("slow"));
    let second = backup(&data, &path("second"), &[]).output().unwrap();
    refused(&second, &["another backup of this broker is under way"]);
    // That directory is locked besides.
    let same = backup(&data, &path("slow"), &[]).output().unwrap();
    refused(&same, &["another process uses it"]);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(&mut process, "has left");
    done(&backup(&data, &path("second"), &[]).output().unwrap());
    // What the one that was killed had left is no obstacle.
    done(&backup(&data, &path("slow"), &[]).output().unwrap());
    for target in ["first", "second", "slow"] {
        let restored = path(&format!("restored-{target}"));
        done(&restore(&path(target), &restored));
        assert_eq!(owed(&restored), 60, "{target}");
    }
}

#[test]
fn a_broker_that_dies_or_stops_is_an_error_and_the_backup_before_counts() {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name: &str| temporary.path().join(name);
    let (data, target) = (path("data"), path("backup"));
    let mut process = filled(&data);
    done(&backup(&data, &target, &[]).output().unwrap());
    // Else there would be nothing to copy.
    let mut publisher = Client::connect_at(process.address, &Connect::v5("another"));
    assert_eq!(publisher.publish_acknowledged(Publish::new("store/1", &"y".repeat(900_000))), 0);
    let child = slow(&mut process, &data, &target);
    process.kill();
    refused(&child.wait_with_output().unwrap(), &["the broker ended meanwhile"]);
    assert!(data.join("control").exists(), "nobody was left to remove it");
    let mut process = Process::start(Start { shards: 2, ..Start::on(&data) });
    assert!(!process.serves().contains("no_control_socket"));
    let child = slow(&mut process, &data, &path("another"));
    let ended = process.terminate();
    assert_eq!(ended.status, Some(0), "{}", ended.said);
    refused(&child.wait_with_output().unwrap(), &["no backup was made: the broker"]);
    assert!(!data.join("control").exists());
    assert!(!path("another").join("meta").exists());
    done(&restore(&target, &path("restored")));
    assert_eq!(owed(&path("restored")), 60, "as it was when the first one was made");
    // And a stopped one can be copied as well.
    done(&backup(&data, &target, &[]).output().unwrap());
    done(&restore(&target, &path("restored-again")));
    assert_eq!(owed(&path("restored-again")), 61);
}

#[test]
fn nothing_is_replaced_that_is_not_a_backup_of_this_broker() {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name: &str| temporary.path().join(name);
    let (data, target) = (path("data"), path("backup"));
    let process = filled(&data);
    done(&backup(&data, &target, &[]).output().unwrap());
    let other = Process::start(Start::on(&path("other")));
    refused(&backup(&path("other"), &target, &[]).output().unwrap(), &["is of another data directory"]);
    refused(&backup(&data, &path("other"), &[]).output().unwrap(), &["another process uses it"]);
    drop(other);
    refused(&backup(&data, &path("other"), &[]).output().unwrap(), &["not a backup"]);
    std::fs::create_dir(path("full")).unwrap();
    std::fs::write(path("full").join("diary"), "mine").unwrap();
    refused(&backup(&data, &path("full"), &[]).output().unwrap(), &["not empty, and not a backup"]);
    refused(&restore(&target, &path("other")), &["there is something in it"]);
    refused(&restore(&target, &data), &["another process uses it"]);
    drop(process);
    refused(&restore(&target, &data), &["there is something in it"]);
    refused(&restore(&target, &target), &["another process uses it"]);
    refused(&backup(&path("nothing"), &target, &[]).output().unwrap(), &["not there", "--data"]);
    // A bit of the backup is damaged: it is not restored, and the next one does not take it over.
    let segments =
        (0..2).flat_map(|shard| std::fs::read_dir(target.join(format!("shard-{shard:03}"))).unwrap());
    let mut segments = segments.map(|entry| entry.unwrap().path());
    // The session may be in either shard.
    let holds_blocks = |path: &std::path::PathBuf| {
        std::fs::read(path).unwrap().get(4_096..).is_some_and(|bytes| bytes.starts_with(b"IPBK"))
    };
    let segment = segments.find(holds_blocks).expect("one of them has something in it");
    let mut bytes = std::fs::read(&segment).unwrap();
    // The last block as well: a journal alone takes that for one that never arrived.
    let last = (4_096..bytes.len()).step_by(4_096).rfind(|at| bytes[*at..].starts_with(b"IPBK")).unwrap();
    bytes[last + 1_000] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let damaged = restore(&target, &path("restored"));
    assert_eq!(damaged.status.code(), Some(1), "{}", said(&damaged));
    assert!(!path("restored").join("meta").exists());
    done(&backup(&data, &target, &[]).output().unwrap());
    done(&restore(&target, &path("restored")));
    assert_eq!(owed(&path("restored")), 60);
}

#[test]
fn whoever_only_holds_the_control_socket_is_let_go_of() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    let process = filled(&data);
    let socket = data.join("control");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    let connect = || {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let ends = |stream: &mut UnixStream| {
        let mut rest = String::new();
        // Reset, if it had not read everything.
        let _ = stream.read_to_string(&mut rest);
        rest
    };
    let mut long = connect();
    let _ = long.write_all("x".repeat(CONTROL_LINE_BYTES_MAX + 1).as_bytes());
    assert_eq!(ends(&mut long), "");
    let mut other = connect();
    other.write_all(b"dance 7\n").unwrap();
    assert!(ends(&mut other).starts_with("no this broker is of another version"));
    let begun = clock();
    let mut silent: Vec<UnixStream> = (0..CONTROL_CONNECTIONS_MAX).map(|_| connect()).collect();
    let mut one_more = connect();
    assert_eq!(ends(&mut one_more), "");
    assert!(begun.elapsed() < Duration::from_millis(CONTROL_MS), "at once");
    silent.iter_mut().for_each(|stream| assert_eq!(ends(stream), ""));
    assert!(begun.elapsed() >= Duration::from_millis(CONTROL_MS));
    done(&backup(&data, &temporary.path().join("backup"), &[]).output().unwrap());
    let _ = process;
}
