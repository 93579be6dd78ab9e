//! Random load with an oracle beside it. Seeds are fixed; another range is
//! `IRONPOST_CRASH_SEEDS=FROM..TO cargo test --test journal_crash`.

use ironpost::ids::Lsn;
use ironpost::journal::storage::Directory;
use ironpost::journal::{self, Io, IoDone, Journal};
use ironpost::record::Record;

use crate::disk::{Disk, Handle, Random, SayOnPanic};
use crate::{Model, Options, at, options, replay, settle, with_record};

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
        let segments_first = 2 + random.below(3) as usize;
        let segments_max = segments_first + 1 + random.below(5) as usize;
        let options = Options { segments_first, segments_max, ..options() };
        let journal = journal::open(disk.handle(), options.clone(), random.next(), at(0)).unwrap();
        Run {
            random,
            disk,
            options,
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
        let refuse = self.journal.reserve_reached() && self.random.below(8) != 0;
        if refuse || self.journal.pending_bytes() > 100 << 10 {
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
        if self.journal.segments().1 == 0 {
            // The operator makes room.
            self.options.segments_max += 1;
        }
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
        let guard = SayOnPanic(seed);
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
