//! Group commit, one operation at a time, and what happens when the disk refuses.

use ironpost::ids::Lsn;
use ironpost::journal::{self, Io, IoDone, Journal};
use ironpost::live::LiveSet;
use ironpost::reactor::Errno;
use ironpost::record::{Body, Recipients, Record};
use ironpost::time::{Now, UnixMs};
use ironpost::wire::QoS;

use crate::disk::{Disk, Handle};
use crate::{Options, at, options, settle, settle_with, tiny, with_record};

fn commit(journal: &mut Journal<Handle>, now: Now) -> Option<Io> {
    journal.commit(&LiveSet::default(), now).unwrap()
}

#[test]
fn an_idle_journal_writes_one_witness_and_then_nothing() {
    let disk = Disk::default();
    let mut journal = journal::open(disk.handle(), tiny(), 3, at(0)).unwrap();
    assert_eq!(journal.next_deadline(), None);
    with_record(4, |record| journal.append(Lsn(1), record));
    settle(&mut journal, &disk.handle(), at(1_000));
    assert_eq!(journal.next_deadline(), Some(at(1_100).mono));
    assert!(commit(&mut journal, at(1_099)).is_none());
    settle(&mut journal, &disk.handle(), at(1_100));
    assert_eq!((journal.statistics().blocks, journal.statistics().witness_blocks), (2, 1));
    assert_eq!(journal.next_deadline(), None);
    settle(&mut journal, &disk.handle(), at(9_000));
    assert_eq!(journal.statistics().blocks, 2);
}

#[test]
fn what_arrives_during_a_sync_is_one_block() {
    let disk = Disk::default();
    let mut journal = journal::open(disk.handle(), options(), 3, at(0)).unwrap();
    let append = |journal: &mut Journal<Handle>| {
        let lsn = journal.last_lsn().next();
        with_record(4, |record| journal.append(lsn, record));
    };
    append(&mut journal);
    let Some(Io::Write { file, offset, buffer }) = commit(&mut journal, at(0)) else {
        panic!("a write first")
    };
    for _ in 0..20 {
        append(&mut journal);
    }
    assert!(commit(&mut journal, at(0)).is_none(), "one in flight");
    disk.write(file, offset, &buffer);
    assert_eq!(
        journal.completed(IoDone::Written { buffer, result: Ok(()) }, &LiveSet::default(), at(0)),
        Ok(None)
    );
    assert!(matches!(commit(&mut journal, at(0)), Some(Io::Sync { .. })));
    assert!(commit(&mut journal, at(0)).is_none(), "the next block waits for the sync");
    disk.sync(file);
    assert_eq!(
        journal.completed(IoDone::Synced { result: Ok(()) }, &LiveSet::default(), at(0)),
        Ok(Some(Lsn(1)))
    );
    settle(&mut journal, &disk.handle(), at(0));
    assert_eq!((journal.durable(), journal.pending_bytes()), (Lsn(21), 0));
    assert_eq!((journal.statistics().blocks, journal.statistics().syncs), (2, 2));
}

#[test]
fn a_record_larger_than_a_block_has_one_of_its_own() {
    let disk = Disk::default();
    let sizes = Options { segment_bytes: 4 << 20, segment_bytes_first: 4 << 20, ..options() };
    let mut journal = journal::open(disk.handle(), sizes.clone(), 3, at(0)).unwrap();
    let payload = vec![7; 3 << 20];
    let body = Body {
        topic: "a",
        forward: &[],
        payload: &payload,
        qos: QoS::AtLeastOnce,
        retain: false,
        accepted_at: UnixMs(0),
        expires_at: UnixMs::NEVER,
    };
    let large = Record::Message { body, origin: None, recipients: Recipients::EMPTY };
    for lsn in 1..=3 {
        match lsn {
            2 => journal.append(Lsn(2), &large),
            _ => with_record(4, |record| journal.append(Lsn(lsn), record)),
        }
    }
    journal.read(Lsn(2), &mut |record| assert_eq!(record, large)).unwrap();
    settle(&mut journal, &disk.handle(), at(0));
    assert_eq!((journal.durable(), journal.statistics().blocks), (Lsn(3), 3));
    journal.read(Lsn(2), &mut |record| assert_eq!(record, large)).unwrap();
    drop(journal);
    let mut journal = journal::open(disk.handle(), sizes, 4, at(0)).unwrap();
    let mut seen = 0;
    journal.replay(&mut |lsn, record, _| seen += u64::from(lsn != Lsn(2) || record == large)).unwrap();
    assert_eq!(seen, 3);
}

#[test]
fn after_a_failed_write_or_sync_nothing_becomes_durable() {
    for fail_write in [true, false] {
        let disk = Disk::default();
        let mut journal = journal::open(disk.handle(), tiny(), 3, at(0)).unwrap();
        with_record(4, |record| journal.append(Lsn(1), record));
        let Some(Io::Write { buffer, .. }) = commit(&mut journal, at(0)) else { panic!("a write first") };
        let result = if fail_write { Err(Errno(libc::EIO)) } else { Ok(()) };
        let outcome = journal.completed(IoDone::Written { buffer, result }, &LiveSet::default(), at(0));
        let error = match fail_write {
            true => outcome.unwrap_err(),
            false => {
                assert!(matches!(commit(&mut journal, at(0)), Some(Io::Sync { .. })));
                journal
                    .completed(IoDone::Synced { result: Err(Errno(libc::EIO)) }, &LiveSet::default(), at(0))
                    .unwrap_err()
            }
        };
        assert_eq!((error.operation, error.offset), (if fail_write { "write" } else { "sync" }, Some(4_096)));
        assert!(error.to_string().contains("segment-000001") && error.cure().contains("smartctl"), "{error}");
        with_record(4, |record| journal.append(Lsn(2), record));
        assert!(commit(&mut journal, at(9_000)).is_none() && journal.next_deadline().is_none());
        assert_eq!(journal.durable(), Lsn(0));
        let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            journal.completed(IoDone::Synced { result: Ok(()) }, &LiveSet::default(), at(0))
        }));
        assert!(again.is_err(), "I4");
    }
}

#[test]
fn a_full_disk_reaches_the_reserve_and_loses_nothing() {
    let disk = Disk::default();
    let mut journal = journal::open(disk.handle(), Options { segments_max: 9, ..tiny() }, 3, at(0)).unwrap();
    disk.set_full(true);
    let mut clock_ms = 0;
    while journal.durable() == journal.last_lsn() {
        let lsn = journal.last_lsn().next();
        with_record(4, |record| journal.append(lsn, record));
        settle(&mut journal, &disk.handle(), at(clock_ms));
        if let Some(request) = journal.grow(at(clock_ms)) {
            let error = journal.grown(request.execute(&disk.handle()), at(clock_ms)).unwrap_err();
            assert!(error.is_out_of_space() && error.cure().contains("free space"), "{error}");
        }
        assert_eq!(journal.reserve_reached(), journal.segments().1 < 1);
        clock_ms += 10;
    }
    // Stuck, but nothing is lost; the log goes on where it stopped as soon as there is room.
    assert!(journal.reserve_reached() && journal.segments() == (4, 0));
    let (last, retry) = (journal.last_lsn(), journal.next_deadline().expect("growing is tried again"));
    disk.set_full(false);
    let now = Now { mono: retry, wall: UnixMs(0) };
    let grown = journal.grow(now).expect("due").execute(&disk.handle());
    journal.grown(grown, now).unwrap();
    settle(&mut journal, &disk.handle(), now);
    assert_eq!(journal.durable(), last);
    // Or as something is released.
    let mut live = LiveSet::default();
    live.add(last, 0);
    let later = Now { mono: retry.plus_s(1), wall: UnixMs(0) };
    journal.observe(&live, later);
    settle_with(&mut journal, &disk.handle(), &live, later);
    assert!(journal.segments().1 >= 3 && !journal.reserve_reached());
}

#[test]
fn numbers_that_do_not_follow_are_refused() {
    let disk = Disk::default();
    for lsn in [0, 2] {
        let mut journal = journal::open(disk.handle(), tiny(), 3, at(0)).unwrap();
        let appended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            with_record(4, |record| journal.append(Lsn(lsn), record));
        }));
        assert!(appended.is_err(), "I13");
    }
}
