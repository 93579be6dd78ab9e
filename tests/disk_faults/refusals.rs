//! A data directory that is not as it was left: refused with its cause and nothing changed, or put in order without a
//! loss. No privileges needed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::load::{self, Books};
use crate::process::{Ended, Process, Start};

const SEGMENT_BYTES: usize = 8 << 20;

/// A data directory with a queue of several segments, left in order.
struct Left {
    directory: TempDir,
    shards: u16,
    books: Books,
}

/// Every file below, with its content.
pub type Tree = BTreeMap<PathBuf, Vec<u8>>;

pub fn tree(path: &Path) -> Tree {
    let mut found = Tree::new();
    for entry in std::fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(tree(&entry));
        } else if entry.is_file() {
            // Not the socket that a broker listens on, or had when it was killed.
            let content = std::fs::read(&entry).expect("a file can be read");
            found.insert(entry, content);
        }
    }
    found
}

impl Left {
    fn new(shards: u16, messages: u32) -> Left {
        let directory = tempfile::tempdir().expect("a directory for the data");
        let mut left = Left { directory, shards, books: Books::default() };
        let process = Process::start(left.start());
        load::subscribe_away(process.address);
        let mut publisher = load::publisher(process.address, 5);
        for _ in 0..messages / 50 {
            assert_eq!(left.books.publish(&mut publisher, 5, 1, 50, 16 << 10).accepted, 50);
        }
        assert_eq!(process.terminate().status, Some(0));
        left
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn start(&self) -> Start<'static> {
        // The tests of this file end before the directory does.
        let data: &'static Path = Box::leak(self.data().into_boxed_path());
        Start { shards: self.shards, ..Start::on(data) }
    }

    fn segment(&self, number: u32) -> PathBuf {
        self.data().join(format!("shard-000/segment-{number:06}"))
    }

    /// It does not start, says all of that, and has changed nothing.
    fn is_refused(&self, words: &[&str]) -> Ended {
        let before = tree(&self.data());
        let ended = Process::refuses(self.start());
        ended.expect(words);
        let after = tree(&self.data());
        let changed: Vec<&PathBuf> =
            before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
        assert!(changed.is_empty(), "{changed:?} changed by a start that was refused with {words:?}");
        ended
    }

    /// It starts and has everything.
    fn has_everything(mut self) {
        let process = Process::start(self.start());
        self.books.settle(process.address);
    }

    /// Does something to a file, sees it refused, and undoes it.
    fn refuses_while(&self, path: &Path, damage: impl FnOnce(&Path), words: &[&str]) {
        let kept = std::fs::read(path).expect("a file can be read");
        damage(path);
        self.is_refused(words);
        std::fs::write(path, kept).expect("a file can be written");
    }
}

/// Changes four bytes, and the checksum at the end of that many bytes, as another version of the program would have it.
fn patch(path: &Path, at: usize, bytes: usize) {
    let mut content = std::fs::read(path).expect("a file can be read");
    assert_eq!(content[at..at + 4], 1_u32.to_le_bytes(), "the version of the format");
    content[at..at + 4].copy_from_slice(&7_u32.to_le_bytes());
    let crc = crc32c::crc32c(&content[..bytes - 4]);
    content[bytes - 4..bytes].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(path, content).expect("a file can be written");
}

pub fn cut(bytes: u64) -> impl FnOnce(&Path) {
    move |path| {
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("a file can be opened");
        file.set_len(bytes).expect("a file can be cut");
    }
}

#[test]
fn data_of_another_version_is_refused_with_both_versions_and_nothing_is_changed() {
    let left = Left::new(2, 0);
    let words = ["it has format version 7, this program has 1", "start the newer version of ironpost"];
    left.refuses_while(&left.data().join("meta"), |path| patch(path, 8, 64), &words);
    let segment = left.data().join("shard-001/segment-000001");
    left.refuses_while(&segment, |path| patch(path, 8, 4_096), &words);
    left.has_everything();
}

#[test]
fn a_second_process_on_a_directory_is_refused_and_the_first_goes_on() {
    let left = Left::new(1, 50);
    let first = Process::start(left.start());
    let second = Process::refuses(left.start());
    second.expect(&["another process uses it", "fuser -v", "--data"]);
    let mut books = left.books;
    books.settle(first.address);
    let mut publisher = load::publisher(first.address, 5);
    assert_eq!(books.publish(&mut publisher, 5, 2, 50, 100).accepted, 50);
    books.settle(first.address);
    assert_eq!(first.terminate().status, Some(0));
}

#[test]
fn files_that_are_not_the_journals_are_left_alone_and_unused_segments_may_go() {
    let left = Left::new(1, 600);
    let shard = left.data().join("shard-000");
    let mine = [("notes.txt", "mine"), ("segment-000001.bak", "mine"), ("segment-7", "mine")];
    for (name, text) in mine {
        std::fs::write(shard.join(name), text).expect("a file can be written");
    }
    // One that never held anything, one that was not finished, one of another size without anything in it.
    std::fs::remove_file(left.segment(4)).expect("it can be removed");
    std::fs::write(shard.join("segment-000099.new"), [0; 5_000]).expect("a file can be written");
    std::fs::write(left.segment(98), [0; 20_000]).expect("a file can be written");
    left.has_everything();
    // `left` is gone with its directory; what was asked is asked again below, where it lives on.
    let left = Left::new(1, 0);
    let shard = left.data().join("shard-000");
    for (name, text) in mine {
        std::fs::write(shard.join(name), text).expect("a file can be written");
    }
    std::fs::write(shard.join("segment-000099.new"), [0; 5_000]).expect("a file can be written");
    std::fs::write(left.segment(98), [0; 20_000]).expect("a file can be written");
    assert_eq!(Process::start(left.start()).terminate().status, Some(0));
    for (name, text) in mine {
        assert_eq!(std::fs::read_to_string(shard.join(name)).expect("it is there"), text);
    }
    assert!(!shard.join("segment-000099.new").exists() && !left.segment(98).exists());
}

#[test]
fn a_pool_of_segments_in_disorder_is_refused_with_the_file_and_what_is_wrong() {
    // Two segments are full or nearly so, the third may be begun, the fourth is not.
    let left = Left::new(1, 800);
    let [oldest, newest, unused] = [1, 2, 4].map(|number| left.segment(number));
    let live = |path: &Path| std::fs::read(path).expect("a file can be read")[..8] == *b"IRONPOST";
    assert!(live(&oldest) && live(&newest) && !live(&unused), "as the figures above intend");
    let remove = |path: &Path| std::fs::remove_file(path).expect("it can be removed");
    left.refuses_while(&oldest, remove, &["segment-000002", "a segment is missing"]);
    let length = |path: &str| format!("{path} at byte");
    for path in [&oldest, &newest] {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        for bytes in [0, 100, 5_000, 3 << 20] {
            let found = format!("the length of the file is {bytes}, expected");
            left.refuses_while(path, cut(bytes), &[&length(name), &found]);
        }
    }
    // Whatever it held: this program never leaves a file like that.
    left.refuses_while(&unused, cut(0), &["segment-000004", "the length of the file is 0"]);
    let foreign = left.segment(50);
    for content in [&[][..], &[7; 100], &[7; 20_000]] {
        std::fs::write(&foreign, content).expect("a file can be written");
        let found = format!("the length of the file is {}", content.len());
        left.is_refused(&["segment-000050", &found, "move it away"]);
    }
    // A copy of one that is in use, as a backup in the wrong place.
    std::fs::copy(&newest, &foreign).expect("a file can be copied");
    left.is_refused(&["segment-000050", "the sequence is 2, expected one that no other segment has"]);
    std::fs::remove_file(&foreign).expect("it can be removed");
    left.has_everything();
}

#[test]
fn segments_of_another_shard_or_data_directory_are_refused() {
    let (left, other) = (Left::new(2, 0), Left::new(2, 0));
    let mine = left.segment(1);
    let copy =
        |from: PathBuf| move |to: &Path| assert!(std::fs::copy(from, to).expect("a file can be copied") > 0);
    let shard = left.data().join("shard-001/segment-000001");
    left.refuses_while(
        &mine,
        copy(shard),
        &["it belongs to shard 1, not to shard 0", "under their own names"],
    );
    let words = ["it belongs to another data directory", "they were made in"];
    left.refuses_while(&mine, copy(other.segment(1)), &words);
    left.has_everything();
}

#[test]
fn a_journal_that_is_gone_is_not_begun_anew() {
    let left = Left::new(2, 0);
    let (shard, away) = (left.data().join("shard-001"), left.directory.path().join("away"));
    std::fs::rename(&shard, &away).expect("it can be moved");
    let ended = Process::refuses(left.start());
    ended.expect(&["shard-001", "the journal that was here is gone", "restore the data directory"]);
    let made: Vec<PathBuf> = tree(&shard).into_keys().collect();
    assert!(made.iter().all(|path| path.ends_with("lock")), "{made:?}");
    std::fs::remove_dir_all(&shard).expect("it can be removed");
    std::fs::rename(&away, &shard).expect("it can be moved");
    left.has_everything();
}

/// The first start that was interrupted before anyone was served is no loss.
#[test]
fn a_first_start_that_did_not_get_to_its_end_is_taken_up_again() {
    let left = Left::new(2, 0);
    let meta = left.data().join("meta");
    let mut content = std::fs::read(&meta).expect("a file can be read");
    assert_eq!(content[14..16], [1, 0], "the mark that all shards have begun");
    content[14] = 0;
    let crc = crc32c::crc32c(&content[..60]);
    content[60..].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&meta, content).expect("a file can be written");
    std::fs::remove_dir_all(left.data().join("shard-001")).expect("it can be removed");
    std::fs::write(left.data().join("shard-000/segment-000005.new"), vec![0; SEGMENT_BYTES / 2])
        .expect("written");
    assert_eq!(Process::start(left.start()).terminate().status, Some(0));
    assert_eq!(std::fs::read(&meta).expect("a file can be read")[14], 1);
}
