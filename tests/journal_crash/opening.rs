//! What a journal refuses to open, and what it puts in order itself.

use ironpost::ids::ShardId;
use ironpost::journal::storage::Directory;
use ironpost::journal::{self, Problem};

use crate::disk::Disk;
use crate::{Options, at, tiny};

#[test]
fn a_second_opening_of_a_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let open = || journal::open(Directory::open(directory.path()).unwrap(), tiny(), 1, at(0));
    let first = open().unwrap();
    let error = open().unwrap_err();
    assert_eq!(error.problem, Problem::InUse);
    assert!(error.cure().contains("fuser"), "{}", error.cure());
    drop(first);
    open().unwrap();
}

#[test]
fn another_shard_or_count_is_refused() {
    let disk = Disk::default();
    drop(journal::open(disk.handle(), tiny(), 1, at(0)).unwrap());
    let error = journal::open(disk.handle(), Options { shards: 5, ..tiny() }, 1, at(0)).unwrap_err();
    assert_eq!(error.problem, Problem::ShardCount { recorded: 4, requested: 5 });
    assert!(error.cure().contains("--shards 4"), "{}", error.cure());
    let error = journal::open(disk.handle(), Options { shard: ShardId(2), ..tiny() }, 1, at(0)).unwrap_err();
    assert_eq!(error.problem, Problem::Shard { recorded: ShardId(1), requested: ShardId(2) });
}

#[test]
fn a_disk_that_is_full_at_the_first_start_says_so() {
    let disk = Disk::default();
    disk.set_full(true);
    let error = journal::open(disk.handle(), tiny(), 3, at(0)).unwrap_err();
    assert!(error.is_out_of_space(), "{error}");
    disk.set_full(false);
    journal::open(disk.handle(), tiny(), 3, at(0)).unwrap();
}

#[test]
fn a_file_that_was_never_finished_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Directory::open(directory.path()).unwrap();
    drop(journal::open(storage, tiny(), 3, at(0)).unwrap());
    for name in ["segment-000009.new", "segment-000010"] {
        std::fs::write(directory.path().join(name), [0; 5_000]).unwrap();
    }
    let journal = journal::open(Directory::open(directory.path()).unwrap(), tiny(), 3, at(0)).unwrap();
    assert_eq!(journal.segments(), (1, 3));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 4 + 1);
}

/// Nothing but a loss makes a segment short, and it is not for this program to remove what somebody else put there.
#[test]
fn a_segment_that_is_too_short_or_holds_something_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let open = || journal::open(Directory::open(directory.path()).unwrap(), tiny(), 3, at(0));
    drop(open().unwrap());
    let path = directory.path().join("segment-000004");
    for content in [&[][..], &[7; 100], &[7; 5_000], &[&[0; 9_000][..], &[7]].concat()] {
        std::fs::write(&path, content).unwrap();
        let error = open().unwrap_err();
        assert!(matches!(error.problem, Problem::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("segment-000004"), "{error}");
        assert!(std::fs::read(&path).unwrap() == *content);
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(open().unwrap().segments(), (1, 2));
}
