//! A backup copies what a journal had at one moment, while that goes on: none of it is written again until it is told, a
//! copy of it opens and has everything, and a journal that has no other room takes it back.

use std::collections::BTreeMap;

use ironpost::ids::Lsn;
use ironpost::journal::{self, Io, IoDone, Journal, Part, Problem};
use ironpost::live::LiveSet;
use ironpost::time::Now;

use crate::disk::{Disk, Handle, Random};
use crate::exhaustive::{Image, PAGE, is_large, is_small};
use crate::{Model, Options, at, check, tiny, with_record};

/// Ten segments at first, of which every record that lives long is copied out.
fn sizes(segments_max: usize) -> Options {
    let bytes = 6 * PAGE as u64;
    Options {
        segment_bytes: bytes,
        segment_bytes_first: bytes,
        segments_first: 10,
        segments_max,
        reserve: 1,
        checkpoint_tail_bytes: 10 * PAGE as u64,
        reclaim_quiet_ms: 0,
        ..tiny()
    }
}

fn is_live(lsn: u64, last: u64) -> bool {
    let age_max = match lsn % 16 {
        3 => 170,
        11 => 90,
        _ => 18,
    };
    lsn + age_max > last
}

/// A journal at work.
struct Writer {
    disk: Disk,
    journal: Journal<Handle>,
    model: Model,
    random: Random,
    round: u64,
}

/// What it had at one moment.
struct Pinned {
    parts: Vec<Part>,
    files: Image,
    /// Durable then, and appended.
    durable: u64,
    last: u64,
}

impl Writer {
    fn new(seed: u64, segments_max: usize) -> Writer {
        let disk = Disk::default();
        let journal = journal::open(disk.handle(), sizes(segments_max), seed, at(0)).unwrap();
        Writer { disk, journal, model: Model::new(), random: Random(seed), round: 0 }
    }

    fn live(&self) -> LiveSet {
        let last = self.journal.last_lsn().0;
        let mut live = LiveSet::default();
        (1..=last).filter(|lsn| is_live(*lsn, last)).for_each(|lsn| live.add(Lsn(lsn), 100));
        live
    }

    fn append(&mut self, wanted: fn(&ironpost::record::Record<'_>) -> bool) {
        let lsn = self.journal.last_lsn().next();
        let number = (lsn.0 * 100..).find(|number| with_record(*number, wanted)).unwrap();
        self.model.insert(lsn.0, number);
        with_record(number, |record| self.journal.append(lsn, record));
    }

    /// At most so many operations; false if there is nothing more to do.
    fn work(&mut self, now: Now, operations: u64) -> bool {
        let live = self.live();
        for _ in 0..operations {
            let Some(io) = self.journal.commit(&live, now).unwrap() else {
                if self.journal.wants_turn(&live) {
                    continue;
                }
                return false;
            };
            let done = match io {
                Io::Write { file, offset, buffer } => {
                    self.disk.write(file, offset, &buffer);
                    IoDone::Written { buffer, result: Ok(()) }
                }
                Io::Sync { file } => {
                    self.disk.sync(file);
                    IoDone::Synced { result: Ok(()) }
                }
            };
            self.journal.completed(done, &live, now).unwrap();
        }
        true
    }

    fn grow(&mut self, now: Now) {
        while let Some(request) = self.journal.grow(now) {
            let made = self.journal.grown(request.execute(&self.disk.handle()), now);
            assert!(made.is_ok_and(|()| true) || self.journal.next_deadline().is_some());
        }
    }

    /// Some records, and what follows from them; all of it unless it is stopped in the middle.
    fn round(&mut self, operations: u64) {
        self.round += 1;
        let now = at(self.round * 2_000);
        (0..3).for_each(|_| self.append(is_small));
        if self.round.is_multiple_of(5) {
            self.append(is_large);
        }
        let live = self.live();
        self.journal.observe(&live, now);
        self.grow(now);
        self.work(now, operations);
        self.grow(now);
    }

    /// A round that is pinned somewhere in the middle, block or checkpoint in flight or not.
    fn pin(&mut self) -> Pinned {
        let operations = self.random.below(12);
        self.round(operations);
        let parts = self.journal.pin();
        let image = self.disk.image();
        let up_to = |part: &Part| {
            let end = part.end().map_or(image[&part.name()].len(), |end| end as usize);
            (part.name(), image[&part.name()][..end].to_vec())
        };
        let files = parts.iter().map(up_to).collect();
        Pinned { files, parts, durable: self.journal.durable().0, last: self.journal.last_lsn().0 }
    }

    fn is_as_pinned(&self, pinned: &Pinned) -> bool {
        let image = self.disk.image();
        pinned.files.iter().all(|(name, bytes)| image[name].starts_with(bytes))
    }
}

/// What somebody who copies has made of it opens, has everything that was live, and nothing that came later.
fn check_copy(pinned: &Pinned, model: &Model) -> u64 {
    let mut image = Image::new();
    for part in &pinned.parts {
        let mut bytes = pinned.files[&part.name()].clone();
        bytes.resize(part.bytes as usize, 0);
        image.insert(part.name(), bytes);
    }
    let options = Options { was_begun: true, ..sizes(40) };
    let mut journal = journal::open(Disk::of(&image).handle(), options, 9, at(0)).unwrap();
    assert_eq!(journal.durable(), Lsn(pinned.durable));
    let mut found = BTreeMap::new();
    let replayed = journal.replay(&mut |lsn, record, _| {
        check(model, lsn, &record);
        found.insert(lsn.0, ());
    });
    let covered = replayed.unwrap().checkpoint.0;
    for lsn in (1..=pinned.durable).filter(|lsn| is_live(*lsn, pinned.last)) {
        assert!(found.contains_key(&lsn), "LOST: {lsn} of {}, checkpoint {covered}", pinned.durable);
    }
    assert!(found.keys().all(|lsn| *lsn <= pinned.durable));
    covered
}

#[test]
fn nothing_that_is_pinned_is_written_before_it_is_unpinned_and_a_copy_has_everything() {
    let (mut held, mut rewritten, mut checkpointed) = (0, 0, 0);
    for seed in 1..7 {
        let mut writer = Writer::new(seed, 400);
        for _ in 0..6 {
            let before = 20 + writer.random.below(80);
            (0..before).for_each(|_| writer.round(u64::MAX));
            let pinned = writer.pin();
            for _ in 0..writer.random.below(60) {
                writer.round(u64::MAX);
                assert!(writer.is_as_pinned(&pinned), "seed {seed}: it was written, or given up and written");
            }
            assert!(writer.journal.is_pinned(), "there was room");
            checkpointed += u64::from(check_copy(&pinned, &writer.model) > 0);
            held += writer.journal.unpin().expect("it was not broken");
            assert_eq!(writer.journal.unpin(), None);
            // What was held is used again, or other segments would be made for ever.
            (0..150).for_each(|_| writer.round(u64::MAX));
            rewritten += u64::from(!writer.is_as_pinned(&pinned));
        }
        let (in_use, free) = writer.journal.segments();
        assert!(in_use + free < 80, "seed {seed}: {in_use} + {free}");
    }
    println!(
        "{held} segments held, {rewritten} of 36 written again afterwards, {checkpointed} by a checkpoint"
    );
    assert!(held > 100 && rewritten == 36 && checkpointed > 24);
}

/// `limits::SEGMENTS_MAX`, made small, or the disk: the reserve would be reached.
#[test]
fn a_pin_is_broken_before_a_publish_would_be_refused_for_it() {
    for disk_is_full in [false, true] {
        let mut writer = Writer::new(5, if disk_is_full { 400 } else { 20 });
        for _ in 0..200 {
            writer.round(u64::MAX);
            assert!(!writer.journal.reserve_reached(), "it has room enough without a backup");
        }
        writer.disk.set_full(disk_is_full);
        let (in_use, free) = writer.journal.segments();
        assert!(free > 1 || !disk_is_full, "{in_use} + {free}");
        let pinned = writer.pin();
        let mut rounds = 0;
        while writer.journal.is_pinned() {
            assert!(!writer.journal.reserve_reached());
            writer.round(u64::MAX);
            rounds += 1;
            assert!(rounds < 200, "its segments are needed");
            assert!(writer.is_as_pinned(&pinned) || !writer.journal.is_pinned());
        }
        for _ in 0..100 {
            writer.round(u64::MAX);
            assert!(!writer.journal.reserve_reached(), "full {disk_is_full}: it goes on without");
        }
        assert_eq!(writer.journal.unpin(), None, "whoever copies learns of it");
    }
}

#[test]
fn a_copy_of_damaged_bytes_is_not_made() {
    let temporary = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(3, 400);
    (0..200).for_each(|_| writer.round(u64::MAX));
    let pinned = writer.pin();
    let owner = journal::Owner { shard: tiny().shard, shards: tiny().shards, hash_key: tiny().hash_key };
    let mut damaged = 0;
    for part in &pinned.parts {
        let path = temporary.path().join(part.name());
        let content = &writer.disk.image()[&part.name()];
        std::fs::write(&path, content).unwrap();
        let read = || {
            let mut bytes = Vec::new();
            let end = journal::read_part(temporary.path(), part, &owner, &mut |offset, piece| {
                assert_eq!(offset, bytes.len() as u64);
                bytes.extend_from_slice(piece);
                Ok(())
            });
            end.map(|end| (end, bytes))
        };
        let (end, bytes) = read().unwrap();
        assert_eq!((end, &*bytes), (bytes.len() as u64, &content[..bytes.len()]));
        assert!(part.end().is_none_or(|known| known == end));
        let known = journal::examine(temporary.path(), &part.name(), &owner).unwrap().expect("it is one");
        // The open one may have the block in flight behind its end.
        let is_sealed = known.end() == part.end();
        assert_eq!(
            known.is_same(part),
            is_sealed && part.end().is_some() && known.is_same(&known) && part.is_same(part)
        );
        if part.end().is_none() {
            continue;
        }
        for byte in (0..bytes.len()).step_by(997) {
            let mut flipped = content.clone();
            flipped[byte] ^= 1 << (byte % 8);
            std::fs::write(&path, &flipped).unwrap();
            let error = read().expect_err("a flipped bit");
            assert!(matches!(error.problem, Problem::Corrupt { .. }), "{error}");
            damaged += 1;
        }
    }
    assert!(damaged > 100, "{damaged}");
}
