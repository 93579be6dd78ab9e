//! Copying keeps pace with what is appended, however small the blocks are that it reads and however large those that are
//! written: segments from a quiet night, recycled in a busy morning.

use ironpost::ids::Lsn;
use ironpost::journal::{self, Journal};
use ironpost::live::LiveSet;
use ironpost::record::{Body, Recipients, Record};
use ironpost::time::UnixMs;
use ironpost::wire::QoS;

use crate::disk::{Disk, Handle};
use crate::{Options, at, operate, settle_with, tiny};

/// Sixteen segments of 128 pages, and never more.
fn sizes() -> Options {
    let bytes = 512 << 10;
    Options {
        segment_bytes: bytes,
        segment_bytes_first: bytes,
        segments_first: 16,
        segments_max: 16,
        checkpoint_tail_bytes: 4 * bytes,
        reclaim_quiet_ms: 0,
        ..tiny()
    }
}

/// Four fill a block of a page.
fn append(journal: &mut Journal<Handle>, live: &mut LiveSet, stays: bool) {
    let body = Body {
        topic: "a",
        forward: &[],
        payload: &[7; 800],
        qos: QoS::AtLeastOnce,
        retain: false,
        accepted_at: UnixMs(0),
        expires_at: UnixMs::NEVER,
    };
    let lsn = Lsn(journal.last_lsn().0 + 1);
    journal.append(lsn, &Record::Message { body, origin: None, recipients: Recipients::EMPTY });
    if stays {
        live.add(lsn, 800);
    }
}

/// Blocks of a page until only so many segments are free; one record of each block stays for ever.
fn night(journal: &mut Journal<Handle>, disk: &Disk, live: &mut LiveSet, free: usize) {
    while journal.segments().1 > free {
        (0..4).for_each(|index| append(journal, live, index == 0));
        settle_with(journal, &disk.handle(), live, at(0));
    }
}

/// Else a segment in which something small dies now and then is never emptied, and the pool grows instead.
#[test]
fn a_segment_that_loses_next_to_nothing_counts_as_quiet() {
    let disk = Disk::default();
    let options = Options { reclaim_quiet_ms: 15_000, reserve: 4, ..sizes() };
    let mut journal = journal::open(disk.handle(), options, 3, at(0)).unwrap();
    journal.replay(&mut |_, _, _| {}).unwrap();
    let mut live = LiveSet::default();
    night(&mut journal, &disk, &mut live, 5);
    let staying: Vec<Lsn> = (1..=journal.durable().0).map(Lsn).filter(|lsn| live.contains(*lsn)).collect();
    // Every three seconds one record dies in every segment.
    for second in (0..60).step_by(3) {
        for lsn in staying.iter().skip(second / 3).step_by(staying.len() / 14) {
            live.remove(*lsn);
        }
        (second..second + 3).for_each(|second| journal.observe(&live, at(1_000 * second as u64)));
        settle_with(&mut journal, &disk.handle(), &live, at(1_000 * second as u64));
    }
    assert!(
        journal.statistics().segments_copied > 0,
        "{:?} {:?} {}",
        journal.segments(),
        journal.statistics(),
        staying.len()
    );
}

#[test]
fn small_blocks_are_copied_as_fast_as_large_ones_are_appended() {
    let disk = Disk::default();
    let mut journal = journal::open(disk.handle(), sizes(), 3, at(0)).unwrap();
    journal.replay(&mut |_, _, _| {}).unwrap();
    let mut live = LiveSet::default();
    night(&mut journal, &disk, &mut live, 5);
    let stay = live.len();
    // In the morning the log always has something to write: blocks of eight pages, in which nothing stays.
    let mut rounds = 0;
    while journal.statistics().segments_used < 60 {
        rounds += 1;
        assert!(rounds < 10_000, "{:?}", journal.statistics());
        let now = at(1_000 * rounds);
        if journal.pending_bytes() < 30_000 {
            (0..36).for_each(|_| append(&mut journal, &mut live, false));
        }
        journal.observe(&live, now);
        let went_on = operate(&mut journal, &disk.handle(), &live, now);
        let (in_use, free) = journal.segments();
        assert!(went_on && free > 0, "{in_use} in use, {free} free: {:?}", journal.statistics());
    }
    assert!(journal.statistics().segments_copied >= 3, "{:?}", journal.statistics());
    assert_eq!(live.len(), stay);
    for lsn in (1..journal.durable().0).map(Lsn).filter(|lsn| live.contains(*lsn)) {
        journal.read(lsn, &mut |record| assert!(matches!(record, Record::Message { .. }))).unwrap();
    }
}
