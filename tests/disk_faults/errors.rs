//! A disk that errs: from then on nothing is acknowledged, and the process ends with a word about where and why.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::broker::clock;
use crate::load::{self, Books};
use crate::process::{Process, Start};
use crate::volume::Volume;

const MIB: u64 = 1 << 20;
const SIZE: usize = 16 << 10;

/// The segment files of the only shard, by name.
fn segments(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data.join("shard-000")).expect("a directory of the shard");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.display().to_string().contains("segment-"));
    paths.sort();
    paths
}

/// Where the part of a file that is in use ends.
fn end_of_use(path: &Path) -> u64 {
    let bytes = std::fs::read(path).expect("a segment can be read");
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    used.next_multiple_of(4_096) as u64
}

/// How many segments were used up to the present life of that one.
fn sequence(path: &Path) -> u64 {
    let bytes = std::fs::read(path).expect("a segment can be read");
    u64::from_le_bytes(bytes[24..32].try_into().expect("eight bytes"))
}

fn stops(reactor: &'static str) {
    let Some(mut volume) = Volume::new(128 * MIB) else { return };
    let data = volume.data();
    let start = Start { reactor, ..Start::on(&data) };
    let process = Process::start(start);
    load::subscribe_away(process.address);
    let mut books = Books::default();
    let mut publisher = load::publisher(process.address, 5);
    for qos in [1, 2] {
        let told = books.publish(&mut publisher, 5, qos, 100, 100);
        assert_eq!(told.accepted, 100, "{told:?}");
    }
    volume.shut_down();
    let told = books.publish(&mut publisher, 5, 2, 100, 100);
    assert_eq!((told.accepted, told.unanswered), (0, 100), "nothing is acknowledged after the fault");
    let words = ["segment-00000", "at byte", "Input/output error (os error 5)", "dmesg", "start again"];
    process.end().expect(&words);
    volume.repair();
    let process = Process::start(start);
    books.settle(process.address);
    println!("{reactor}: {books}");
}

#[test]
fn a_write_that_fails_ends_the_process_before_another_acknowledgement_with_epoll() {
    stops("epoll");
}

#[test]
fn a_write_that_fails_ends_the_process_before_another_acknowledgement_with_io_uring() {
    stops("uring");
}

#[test]
fn the_failure_of_one_shard_ends_all_of_them() {
    let Some(mut volume) = Volume::new(160 * MIB) else { return };
    let data = volume.data();
    let start = Start { shards: 3, ..Start::on(&data) };
    let process = Process::start(start);
    load::subscribe_away(process.address);
    let mut books = Books::default();
    let mut publisher = load::publisher(process.address, 5);
    // While they are answered: what was acknowledged before the fault is there afterwards, and nothing comes behind it.
    let (answered, answers) = std::sync::mpsc::channel();
    let told = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            loop {
                let told = books.publish(&mut publisher, 5, 1, 20, 100);
                if told.unanswered > 0 {
                    return told;
                }
                answered.send(()).expect("somebody counts");
            }
        });
        for _ in 0..5 {
            answers.recv().expect("the load goes on");
        }
        volume.shut_down();
        load.join().expect("the load does not panic")
    });
    assert!(told.unanswered > 0);
    process.end().expect(&["Input/output error (os error 5)"]);
    volume.repair();
    let process = Process::start(start);
    books.settle(process.address);
    println!("3 shards: {books}");
}

/// The kernel took the bytes and cannot bring them to the device, as with a disk that is promised to more than it has.
#[test]
fn a_sync_that_fails_ends_the_process_and_the_next_start_has_all_that_was_acknowledged() {
    let Some(mut volume) = Volume::thin(96 * MIB, 120 * MIB) else { return };
    let data = volume.data();
    let process = Process::start(Start::on(&data));
    load::subscribe_away(process.address);
    let mut books = Books::default();
    let mut publisher = load::publisher(process.address, 5);
    assert_eq!(books.publish(&mut publisher, 5, 1, 100, 100).accepted, 100);
    // The witness, after which nothing is written unasked.
    publisher.hears_within(Duration::from_millis(500));
    let segment = &segments(&data)[0];
    // From where the next block begins: a loop device reports a write that its file takes in part as a whole one.
    volume.starve(segment, end_of_use(segment), 8 * MIB);
    let told = books.publish(&mut publisher, 5, 1, 1, SIZE);
    assert_eq!((told.accepted, told.unanswered), (0, 1));
    process.end().expect(&["cannot sync", "segment-000001 at byte", "os error", "fsck", "start again"]);
    volume.feed();
    volume.repair();
    let process = Process::start(Start::on(&data));
    books.settle(process.address);
    println!("sync: {books}");
}

/// With nothing kept in memory, a queue is read back from segments that are sealed.
#[test]
fn a_read_that_fails_ends_the_process_and_another_device_with_the_same_bytes_has_everything() {
    let Some(mut volume) = Volume::plain(128 * MIB) else { return };
    let data = volume.data();
    let start = Start { config: "resident_bytes_max = 1_048_576", ..Start::on(&data) };
    let process = Process::start(start);
    load::subscribe_away(process.address);
    let files = segments(&data);
    // No more segments than the first four, so that the last of them is sealed while the first is written again.
    volume.take_room(0);
    let mut books = Books::default();
    let mut publisher = load::publisher(process.address, 5);
    assert!(books.publish_until_refused(&mut publisher, 5, 3_000, SIZE).refused > 0);
    books.settle(process.address);
    load::subscribe_anew(process.address);
    let begun = clock();
    // The first file again, after the fourth.
    while sequence(&files[0]) < 5 {
        assert!(begun.elapsed() < Duration::from_secs(15), "the last segment is not sealed");
        books.publish_until_refused(&mut publisher, 5, 100, SIZE);
        publisher.hears_within(Duration::from_millis(50));
    }
    let cut = volume.cut(&files[3], MIB);
    books.drain(process.address, usize::MAX);
    assert!(books.owed() > 0, "there is nothing to read");
    let words = ["cannot read", "segment-000004 at byte", "Input/output error (os error 5)", "dmesg"];
    process.end().expect(&words);
    volume.mend(&cut);
    let process = Process::start(start);
    books.settle(process.address);
    println!("read: {books}");
}
