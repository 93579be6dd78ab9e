//! The journal against crashes: what was said to be durable is there afterwards, in order, and nothing else.
//!
//! Most tests use a disk in memory that keeps, drops or tears every sector that was not synced; the same run and a few
//! more go to a real directory, where a crash is only the end of the process. Seeds are fixed; another range is
//! `IRONPOST_CRASH_SEEDS=FROM..TO cargo test --test journal_crash`.

mod journal_disk;

use std::collections::BTreeMap;

use ironpost::ids::{Lsn, OriginKey, SessionKey, ShardId};
use ironpost::journal::storage::Directory;
use ironpost::journal::{self, Io, IoDone, Journal, JournalError, Options, Problem, Storage};
use ironpost::reactor::Errno;
use ironpost::record::{Body, Recipient, Recipients, Record, WillRecord};
use ironpost::time::{Nanos, Now, UnixMs};
use ironpost::wire::{PacketId, QoS, SubscribeOptions, Version};
use journal_disk::{Disk, Handle, Random};

fn options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        segment_bytes_first: 32 << 10,
        segments_max: 8,
        reserve: 1,
        ..Options::new(ShardId(1), 4, [9; 16])
    }
}

/// The smallest journal: four segments of four pages.
fn tiny() -> Options {
    Options { segment_bytes: 16 << 10, segment_bytes_first: 16 << 10, segments_max: 4, ..options() }
}

fn at(ms: u64) -> Now {
    Now { mono: Nanos(ms * 1_000_000), wall: UnixMs(ms) }
}

/// The record that belongs to a number: every type, sizes from nothing to more than a page.
fn with_record<R>(number: u64, then: impl FnOnce(&Record<'_>) -> R) -> R {
    let mut random = Random(number);
    let key = SessionKey(random.next());
    let message = Lsn(random.next());
    let packet_id = PacketId::new(1 + random.below(65_535) as u16).unwrap();
    let size = match random.below(40) {
        0 => random.below(30_000),
        1..6 => random.below(3_000),
        _ => random.below(100),
    };
    let payload: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
    let topic = format!("u/{}/inbox", random.below(1_000));
    let body = Body {
        topic: &topic,
        forward: &payload[..payload.len() / 7],
        payload: &payload,
        qos: QoS::AtLeastOnce,
        retain: random.below(2) == 0,
        accepted_at: UnixMs(random.next()),
        expires_at: UnixMs::NEVER,
    };
    let recipient = |n: u64| Recipient {
        session: SessionKey(n),
        qos: QoS::ExactlyOnce,
        retain: false,
        shared: n.is_multiple_of(2),
        subscription_id: n as u32,
        more: false,
    };
    let recipients: Vec<Recipient> = (0..random.below(5)).map(recipient).collect();
    let recipients = Recipients::from(&recipients[..]);
    let origin = OriginKey { shard: ShardId(2), lsn: message };
    let will = WillRecord { body, delay_s: 1, message_expiry_s: 2 };
    let record = match random.below(8) {
        0 | 1 => Record::Message { body, origin: Some(origin), recipients },
        2 => Record::Message { body, origin: None, recipients },
        3 => Record::Inbound { key, packet_id, body },
        4 => Record::Acknowledged { key, message },
        5 => Record::Session {
            key,
            account: "",
            client_id: &topic,
            version: Version::V5,
            expiry_s: 9,
            will: Some(will),
        },
        6 => Record::Subscribed {
            key,
            filter: &topic,
            options: SubscribeOptions::default(),
            subscription_id: 0,
        },
        _ => Record::Sent { key, message, packet_id },
    };
    then(&record)
}

/// Do at once what the journal wants, until it wants nothing.
fn settle<S: Storage>(journal: &mut Journal<S>, disk: &S, now: Now) {
    while let Some(io) = journal.commit(now) {
        let done = match io {
            Io::Write { file, offset, buffer } => {
                disk.write_at(file, offset, &buffer).unwrap();
                IoDone::Written { buffer, result: Ok(()) }
            }
            Io::Sync { file } => {
                disk.sync(file).unwrap();
                IoDone::Synced { result: Ok(()) }
            }
        };
        journal.completed(done, now).unwrap();
    }
}

/// What a journal must know: LSN to number of the record.
type Model = BTreeMap<u64, u64>;

/// Replay, and compare each record with the model.
fn replay<S: Storage>(journal: &mut Journal<S>, model: &Model) -> Result<Vec<u64>, JournalError> {
    let mut found = Vec::new();
    journal.replay(&mut |lsn, record| {
        let number = model.get(&lsn.0).unwrap_or_else(|| panic!("record {} was never written", lsn.0));
        with_record(*number, |written| assert_eq!(record, *written, "record {}", lsn.0));
        found.push(lsn.0);
    })?;
    Ok(found)
}

/// A journal under random load on a disk that crashes, with the oracle beside it.
struct Run<'a> {
    random: Random,
    disk: &'a Disk,
    options: Options,
    journal: Journal<Handle>,
    /// The operation that the disk has, and whether it was performed.
    flight: Option<Io>,
    growth: Option<journal::GrowRequest>,
    model: Model,
    durable: u64,
    /// Highest release asked for: what is below may be gone, what is not must be there.
    released: u64,
    /// Each release and the last record at that time, which the release may depend on.
    releases: Vec<(u64, u64)>,
    clock_ms: u64,
    appended: u64,
    crashes: u64,
    recycled: u64,
    torn: u64,
}

impl<'a> Run<'a> {
    fn new(disk: &'a Disk, seed: u64) -> Run<'a> {
        let mut random = Random(seed);
        let journal = journal::open(disk.handle(), options(), random.next(), at(0)).unwrap();
        Run {
            random,
            disk,
            options: options(),
            journal,
            flight: None,
            growth: None,
            model: Model::new(),
            durable: 0,
            released: 1,
            releases: vec![(1, 0)],
            clock_ms: 0,
            appended: 0,
            crashes: 0,
            recycled: 0,
            torn: 0,
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..8 => self.append(),
            8..16 => self.advance_io(),
            16 => self.clock_ms += self.random.below(80),
            17 => self.release(),
            18 => self.read(),
            _ => self.grow(),
        }
        assert_eq!(self.journal.durable().0, self.durable, "the mark moves only by completions");
    }

    fn append(&mut self) {
        // What a full journal holds back must stay within memory.
        if self.journal.pending_bytes() > 200 << 10 {
            return self.release();
        }
        let lsn = self.journal.last_lsn().next();
        self.appended += 1;
        let number = self.random.next();
        self.model.insert(lsn.0, number);
        with_record(number, |record| self.journal.append(lsn, record));
    }

    fn advance_io(&mut self) {
        let now = at(self.clock_ms);
        let Some(io) = self.flight.take() else {
            self.flight = self.journal.commit(now);
            return;
        };
        assert!(self.journal.commit(now).is_none(), "one operation at a time");
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
        if let Some(mark) = self.journal.completed(done, now).expect("the disk is well") {
            assert!(mark.0 > self.durable);
            self.durable = mark.0;
        }
    }

    fn release(&mut self) {
        let (from, to) = (self.released, self.journal.last_lsn().0 + 1);
        self.released = from + self.random.below(to - from + 1);
        self.releases.push((self.released, to - 1));
        self.journal.release(Lsn(self.released));
    }

    fn read(&mut self) {
        let (from, to) = (self.released, self.journal.last_lsn().0);
        if from > to {
            return;
        }
        let lsn = from + self.random.below(to - from + 1);
        let number = self.model[&lsn];
        for lsn in [lsn, (lsn + 1).min(to)] {
            let number = if self.model.contains_key(&lsn) { self.model[&lsn] } else { number };
            let mut seen = 0;
            self.journal
                .read(Lsn(lsn), &mut |record| {
                    seen += 1;
                    with_record(number, |written| assert_eq!(record, *written, "record {lsn}"));
                })
                .expect("it was appended and not released");
            assert_eq!(seen, 1);
        }
    }

    fn grow(&mut self) {
        let now = at(self.clock_ms);
        match self.growth.take() {
            None => self.growth = self.journal.grow(now),
            Some(request) => {
                self.disk.set_full(self.random.below(3) == 0);
                let grown = request.execute(&self.disk.handle());
                let outcome = self.journal.grown(grown, now);
                assert!(outcome.is_ok() || outcome.is_err_and(|error| error.is_out_of_space()));
                self.disk.set_full(false);
            }
        }
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.growth = None;
        if let Some(Io::Write { file, offset, buffer }) = self.flight.take() {
            // The kernel may have taken any part of it.
            let (from, to) = (self.random.below(buffer.len() as u64), self.random.below(buffer.len() as u64));
            let part = &buffer[from.min(to) as usize..from.max(to) as usize];
            if self.random.below(2) == 0 {
                self.disk.write(file, offset, &buffer);
            } else {
                self.disk.write(file, offset + from.min(to), part);
            }
        }
        self.recycled += self.journal.statistics().segments_used;
        self.disk.crash(&mut self.random);
        self.reopen();
    }

    fn reopen(&mut self) {
        let seed = self.random.next();
        // Ends the process of before: its lock is gone.
        self.disk.unlock();
        self.journal = journal::open(self.disk.handle(), self.options.clone(), seed, at(self.clock_ms))
            .unwrap_or_else(|error| panic!("{error}\n{}", error.cure()));
        self.torn += u64::from(self.journal.tail_bytes_zeroed() > 0);
        let found = replay(&mut self.journal, &self.model).unwrap();
        let last = self.journal.last_lsn().0;
        let first = self.journal.first_lsn().0;
        assert!(last >= self.durable, "record {} was durable, {last} is the last one back", self.durable);
        self.releases.retain(|(_, after)| *after <= last);
        let allowed = self.releases.iter().map(|(released, _)| *released).max().unwrap();
        assert!(first <= allowed, "record {allowed} was not released, or not durably; {first} is the first");
        assert_eq!(found, (first..=last).collect::<Vec<u64>>(), "in order, without a gap");
        assert_eq!(self.journal.durable().0, last);
        self.model.retain(|lsn, _| *lsn <= last);
        self.durable = last;
        self.released = self.released.min(last + 1);
    }
}

fn seeds() -> std::ops::Range<u64> {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let range = std::env::var("IRONPOST_CRASH_SEEDS");
    let Ok(range) = range else { return 0..120 };
    let (from, to) = range.split_once("..").expect("FROM..TO");
    from.parse().unwrap()..to.parse().unwrap()
}

#[test]
fn what_was_durable_survives_thousands_of_crashes() {
    let (mut crashes, mut recycled, mut torn, mut appended) = (0, 0, 0, 0);
    for seed in seeds() {
        let guard = journal_disk::SayOnPanic(seed);
        let disk = Disk::default();
        let mut run = Run::new(&disk, seed);
        for _ in 0..40 {
            for _ in 0..run.random.below(150) {
                run.step();
            }
            run.crash();
        }
        (crashes, recycled) = (crashes + run.crashes, recycled + run.recycled);
        (torn, appended) = (torn + run.torn, appended + run.appended);
        drop(guard);
    }
    println!("{crashes} crashes, {torn} torn tails, {recycled} segments used, {appended} records");
    // Else the test has stopped testing.
    let expected = 10 * (seeds().end - seeds().start);
    assert!(crashes > expected && torn > expected && recycled > expected);
}

#[test]
fn a_real_directory_keeps_what_was_durable_through_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(1);
    let (mut model, mut released) = (Model::new(), 1);
    for round in 0..60 {
        let storage = Directory::open(directory.path()).unwrap();
        let mut journal = journal::open(storage.clone(), options(), round, at(0)).unwrap();
        let first = journal.first_lsn().0;
        let found = replay(&mut journal, &model).unwrap();
        assert!(first <= released);
        assert_eq!(found, (first..=model.keys().last().copied().unwrap_or(0)).collect::<Vec<u64>>());
        for turn in 0..20 {
            for _ in 0..random.below(20) {
                let (lsn, number) = (journal.last_lsn().next(), random.next());
                model.insert(lsn.0, number);
                with_record(number, |record| journal.append(lsn, record));
            }
            settle(&mut journal, &storage, at(turn * 200));
            if let Some(request) = journal.grow(at(0)) {
                journal.grown(request.execute(&storage), at(0)).unwrap();
            }
            // Keep some segments' worth: sealed ones are read through a map, the open one is not.
            released = journal.last_lsn().0.saturating_sub(100).max(released);
            journal.release(Lsn(released));
            for lsn in released..=journal.last_lsn().0 {
                let check = &mut |record: Record<'_>| {
                    with_record(model[&lsn], |written| assert_eq!(record, *written));
                };
                journal.read(Lsn(lsn), check).unwrap();
            }
        }
        assert_eq!(journal.durable(), journal.last_lsn());
    }
    assert!(model.len() > 5_000 && released > 5_000);
}

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

/// A journal in which segments were recycled, and whose last block is covered by a witness.
fn worn_journal(disk: &Disk) -> Model {
    let mut journal = journal::open(disk.handle(), tiny(), 3, at(0)).unwrap();
    let mut model = Model::new();
    for lsn in 1..=60 {
        model.insert(lsn, lsn * 7);
        with_record(lsn * 7, |record| match record {
            // Keep each to a page or two.
            Record::Message { body, .. } if body.payload.len() > 3_000 => {
                model.insert(lsn, 4);
                with_record(4, |small| journal.append(Lsn(lsn), small));
            }
            Record::Inbound { body, .. } if body.payload.len() > 3_000 => {
                model.insert(lsn, 4);
                with_record(4, |small| journal.append(Lsn(lsn), small));
            }
            Record::Session { will: Some(will), .. } if will.body.payload.len() > 3_000 => {
                model.insert(lsn, 4);
                with_record(4, |small| journal.append(Lsn(lsn), small));
            }
            record => journal.append(Lsn(lsn), record),
        });
        if lsn % 3 == 0 {
            settle(&mut journal, &disk.handle(), at(0));
            journal.release(Lsn(lsn.saturating_sub(12)));
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
                assert_eq!(found, (journal.first_lsn().0..=60).collect::<Vec<u64>>(), "{name} bit {bit}");
                assert!(found.len() >= 12);
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
    let torn = Disk::of(&image);
    torn.zero(&name, 2 * 4_096);
    let reopened = journal::open(torn.handle(), tiny(), 4, at(0)).unwrap();
    assert_eq!(reopened.last_lsn(), Lsn(1));
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

#[test]
fn an_idle_journal_writes_one_witness_and_then_nothing() {
    let disk = Disk::default();
    let mut journal = journal::open(disk.handle(), tiny(), 3, at(0)).unwrap();
    assert_eq!(journal.next_deadline(), None);
    with_record(4, |record| journal.append(Lsn(1), record));
    settle(&mut journal, &disk.handle(), at(1_000));
    assert_eq!(journal.next_deadline(), Some(at(1_100).mono));
    assert!(journal.commit(at(1_099)).is_none());
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
    let Some(Io::Write { file, offset, buffer }) = journal.commit(at(0)) else { panic!("a write first") };
    for _ in 0..20 {
        append(&mut journal);
    }
    assert!(journal.commit(at(0)).is_none(), "one in flight");
    disk.write(file, offset, &buffer);
    assert_eq!(journal.completed(IoDone::Written { buffer, result: Ok(()) }, at(0)), Ok(None));
    assert!(matches!(journal.commit(at(0)), Some(Io::Sync { .. })));
    assert!(journal.commit(at(0)).is_none(), "the next block waits for the sync");
    disk.sync(file);
    assert_eq!(journal.completed(IoDone::Synced { result: Ok(()) }, at(0)), Ok(Some(Lsn(1))));
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
    journal.replay(&mut |lsn, record| seen += u64::from(lsn != Lsn(2) || record == large)).unwrap();
    assert_eq!(seen, 3);
}

#[test]
fn after_a_failed_write_or_sync_nothing_becomes_durable() {
    for fail_write in [true, false] {
        let disk = Disk::default();
        let mut journal = journal::open(disk.handle(), tiny(), 3, at(0)).unwrap();
        with_record(4, |record| journal.append(Lsn(1), record));
        let Some(Io::Write { buffer, .. }) = journal.commit(at(0)) else { panic!("a write first") };
        let result = if fail_write { Err(Errno(libc::EIO)) } else { Ok(()) };
        let outcome = journal.completed(IoDone::Written { buffer, result }, at(0));
        let error = match fail_write {
            true => outcome.unwrap_err(),
            false => {
                assert!(matches!(journal.commit(at(0)), Some(Io::Sync { .. })));
                journal.completed(IoDone::Synced { result: Err(Errno(libc::EIO)) }, at(0)).unwrap_err()
            }
        };
        assert_eq!((error.operation, error.offset), (if fail_write { "write" } else { "sync" }, Some(4_096)));
        assert!(error.to_string().contains("segment-000001") && error.cure().contains("smartctl"), "{error}");
        assert!(journal.commit(at(9_000)).is_none() && journal.next_deadline().is_none());
        assert_eq!(journal.durable(), Lsn(0));
        let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            journal.completed(IoDone::Synced { result: Ok(()) }, at(0))
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
    journal.release(last);
    settle(&mut journal, &disk.handle(), Now { mono: retry.plus_s(1), wall: UnixMs(0) });
    assert!(journal.segments().1 >= 3 && !journal.reserve_reached());
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
    std::fs::write(directory.path().join("segment-000009"), [0; 5_000]).unwrap();
    let journal = journal::open(Directory::open(directory.path()).unwrap(), tiny(), 3, at(0)).unwrap();
    assert_eq!(journal.segments(), (1, 3));
    assert!(!directory.path().join("segment-000009").exists());
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

/// Frozen: written by the first version of the format.
#[test]
fn the_golden_segment_is_read_for_ever() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/segment.bin");
    let fill = |disk: &Disk| {
        let mut journal = journal::open(disk.handle(), tiny(), 3, at(0)).unwrap();
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
    let mut journal = journal::open(disk.handle(), tiny(), 3, at(0)).unwrap();
    let model: Model = (1..=5).map(|lsn| (lsn, 100 + lsn)).collect();
    assert_eq!(replay(&mut journal, &model).unwrap(), [1, 2, 3, 4, 5]);
    assert!(written == content, "segments are written as they always were");
}
