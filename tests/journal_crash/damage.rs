//! Damage at rest: detected, or harmless, and never repaired by dropping what was acknowledged.

use std::collections::BTreeMap;

use ironpost::ids::Lsn;
use ironpost::journal::{self, Problem};
use ironpost::record::Record;

use crate::disk::Disk;
use crate::{Model, Options, at, live_from, replay, settle, settle_with, tiny, with_record};

/// Several of them fit a page or two.
fn is_small(record: &Record<'_>) -> bool {
    match record {
        Record::Message { body, .. } | Record::Inbound { body, .. } => body.payload.len() < 3_000,
        Record::Session { will, .. } => will.is_some_and(|will| will.body.payload.len() < 3_000),
        _ => true,
    }
}

/// A journal in which segments were recycled, and whose last block is covered by a witness.
fn worn_journal(disk: &Disk) -> Model {
    let mut journal = journal::open(disk.handle(), tiny(), 3, at(0)).unwrap();
    let mut model = Model::new();
    for lsn in 1..=60 {
        let number = (lsn * 100..).find(|number| with_record(*number, is_small)).unwrap();
        model.insert(lsn, number);
        with_record(number, |record| journal.append(Lsn(lsn), record));
        if lsn % 3 == 0 {
            let live = live_from(&model, lsn.saturating_sub(12));
            settle_with(&mut journal, &disk.handle(), &live, at(0));
            journal.observe(&live, at(0));
        }
    }
    journal.witness();
    settle(&mut journal, &disk.handle(), at(0));
    assert_eq!(journal.durable(), Lsn(60));
    assert_eq!(journal.next_deadline(), None, "nothing is left uncovered");
    assert!(journal.statistics().segments_used > 4 && journal.segments().0 > 1);
    model
}

#[test]
fn a_flipped_bit_is_detected_or_harmless() {
    let disk = Disk::default();
    let model = worn_journal(&disk);
    let image = disk.image();
    let (mut detected, mut harmless) = (0, 0);
    for (name, content) in &image {
        for bit in (0..content.len() * 8).filter(|bit| {
            // Every bit of the first bytes of each page, where headers are, and a sample of the rest.
            bit % (4_096 * 8) < 128 * 8 || bit % 61 == 0
        }) {
            let disk = Disk::of(&image);
            disk.flip(name, bit);
            let opened = journal::open(disk.handle(), tiny(), 4, at(0));
            let outcome = opened.and_then(|mut journal| {
                let found = replay(&mut journal, &model)?;
                let first = found.first().copied().unwrap_or(61);
                assert_eq!(found, (first..=60).collect::<Vec<u64>>(), "{name} bit {bit}");
                assert!(first <= 48, "what is live is there");
                Ok(())
            });
            match outcome {
                Ok(()) => harmless += 1,
                Err(error) => {
                    assert!(matches!(error.problem, Problem::Corrupt { .. }), "{name} bit {bit}: {error}");
                    assert!(error.to_string().contains(&**name), "{error}");
                    assert!(disk.image().iter().eq(Disk::of_flipped(&image, name, bit).image().iter()));
                    detected += 1;
                }
            }
        }
    }
    println!("{detected} detected, {harmless} harmless");
    assert!(detected > 5_000 && harmless > 1_000);
}

#[test]
fn a_lost_page_is_corruption_and_a_torn_last_block_is_not() {
    let disk = Disk::default();
    let mut journal = journal::open(disk.handle(), tiny(), 3, at(0)).unwrap();
    for lsn in 1..=2 {
        with_record(4, |record| journal.append(Lsn(lsn), record));
        settle(&mut journal, &disk.handle(), at(0));
    }
    let image = disk.image();
    let last_at = |block: usize| {
        image.iter().find(|(_, bytes)| bytes[0] != 0).map(|(name, _)| (name.clone(), block)).unwrap()
    };
    // The second of two blocks: nothing tells it from one that never arrived.
    let (name, _) = last_at(2);
    for damage in [None, Some(2 * 4_096 * 8 + 77)] {
        let torn = Disk::of(&image);
        match damage {
            None => torn.zero(&name, 2 * 4_096),
            Some(bit) => torn.flip(&name, bit),
        }
        let reopened = journal::open(torn.handle(), tiny(), 4, at(0)).unwrap();
        assert_eq!(reopened.last_lsn(), Lsn(1));
        assert_eq!(reopened.tail_bytes_zeroed(), if damage.is_some() { 4_096 } else { 0 });
        assert!(torn.image()[&name][2 * 4_096..].iter().all(|byte| *byte == 0), "nothing of it is left");
    }
    // The first of two, and the header.
    for page in [1, 0] {
        let lost = Disk::of(&image);
        lost.zero(&name, page * 4_096);
        let error = journal::open(lost.handle(), tiny(), 4, at(0)).unwrap_err();
        assert!(matches!(error.problem, Problem::Corrupt { .. }), "page {page}: {error}");
        assert_eq!(error.offset, Some(page as u64 * 4_096));
        assert!(error.cure().contains("copy the directory"), "{}", error.cure());
    }
    // Once the witness covers it, the second is corruption too.
    settle(&mut journal, &disk.handle(), at(200));
    assert_eq!(journal.statistics().witness_blocks, 1);
    disk.zero(&name, 2 * 4_096);
    drop(journal);
    let error = journal::open(disk.handle(), tiny(), 4, at(0)).unwrap_err();
    assert!(matches!(error.problem, Problem::Corrupt { .. }), "{error}");
}

/// Also the newest of them, which nothing but the block at the end of the one before it speaks of.
#[test]
fn a_segment_that_is_gone_as_a_whole_is_corruption_or_was_free() {
    let disk = Disk::default();
    let mut model = worn_journal(&disk);
    for last in [60, 61] {
        if last == 61 {
            // Its segment is full: this record begins another, whose file is gone before anything follows.
            let mut journal = journal::open(disk.handle(), tiny(), 5, at(0)).unwrap();
            replay(&mut journal, &model).unwrap();
            let used = journal.statistics().segments_used;
            while journal.statistics().segments_used == used {
                let lsn = journal.last_lsn().next();
                model.insert(lsn.0, 4);
                with_record(4, |record| journal.append(lsn, record));
                settle_with(&mut journal, &disk.handle(), &live_from(&model, 48), at(0));
            }
        }
        let image = disk.image();
        let mut refused = 0;
        for name in image.keys() {
            let left: BTreeMap<_, _> = image
                .iter()
                .filter(|(other, _)| *other != name)
                .map(|(n, b)| (n.clone(), b.clone()))
                .collect();
            match journal::open(Disk::of(&left).handle(), tiny(), 4, at(0)) {
                Ok(mut journal) => {
                    let found = replay(&mut journal, &model).unwrap();
                    assert_eq!(found.last(), model.keys().last(), "{name} was not free");
                }
                Err(error) => {
                    assert!(matches!(error.problem, Problem::Corrupt { .. }), "{name}: {error}");
                    let verdict = journal::verify(Disk::of(&left).handle(), &tiny()).unwrap();
                    assert!(!verdict.is_sound() && !verdict.flaws.is_empty(), "{name}: {verdict:?}");
                    assert!(!verdict.lost.is_empty(), "{name}: {verdict:?}");
                    refused += 1;
                }
            }
        }
        assert!(refused >= 2 && (last == 61 || refused < image.len()), "{refused} are needed");
    }
}

/// A disk that dropped the latest write of a page in favour of an older one, complete in itself.
#[test]
fn a_block_that_belongs_to_another_past_is_corruption() {
    let past = |first: u64| {
        let disk = Disk::default();
        let mut journal = journal::open(disk.handle(), tiny(), 3, at(0)).unwrap();
        for (lsn, number) in [(1, first), (2, 4)] {
            with_record(number, |record| journal.append(Lsn(lsn), record));
            settle(&mut journal, &disk.handle(), at(0));
        }
        disk.image()
    };
    let (one, other) = (past(4), past(6));
    let name = "segment-000001";
    let (begin, end) = (2 * 4_096, 3 * 4_096);
    assert!(one[name][begin..end] != other[name][begin..end], "the same record after another one");
    let mut mixed = one;
    mixed.get_mut(name).unwrap()[begin..end].copy_from_slice(&other[name][begin..end]);
    let error = journal::open(Disk::of(&mixed).handle(), tiny(), 4, at(0)).unwrap_err();
    assert!(matches!(error.problem, Problem::Corrupt { .. }), "{error}");
    assert_eq!(error.offset, Some(begin as u64));
}

/// Frozen: written by the first version of the format.
#[test]
fn the_golden_segment_is_read_for_ever() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/segment.bin");
    let options = || Options { segment_bytes: 16 << 10, segment_bytes_first: 16 << 10, ..tiny() };
    let fill = |disk: &Disk| {
        let mut journal = journal::open(disk.handle(), options(), 3, at(0)).unwrap();
        for lsn in 1..=5 {
            with_record(100 + lsn, |record| journal.append(Lsn(lsn), record));
        }
        settle(&mut journal, &disk.handle(), at(0));
        settle(&mut journal, &disk.handle(), at(500));
    };
    let disk = Disk::default();
    fill(&disk);
    let written = disk.image().remove("segment-000001").unwrap();
    let content = std::fs::read(golden).unwrap_or_else(|_| {
        std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/segment.bin"), &written).unwrap();
        panic!("{golden} is missing; what would be written is in the target directory")
    });
    let disk = Disk::of(&BTreeMap::from([("segment-000001".to_owned(), content.clone())]));
    let mut journal = journal::open(disk.handle(), options(), 3, at(0)).unwrap();
    let model: Model = (1..=5).map(|lsn| (lsn, 100 + lsn)).collect();
    assert_eq!(replay(&mut journal, &model).unwrap(), [1, 2, 3, 4, 5]);
    assert!(written == content, "segments are written as they always were");
}
