//! Random load with an oracle beside it. Seeds are fixed; another range is
//! `IRONPOST_CRASH_SEEDS=FROM..TO cargo test --test journal_crash`.

use std::collections::BTreeMap;

use ironpost::ids::Lsn;
use ironpost::journal::storage::Directory;
use ironpost::journal::{self, Io, IoDone, Journal};
use ironpost::live::{Facts, Gone, LiveSet};
use ironpost::record::Record;

use crate::disk::{Disk, Handle, Random, SayOnPanic};
use crate::{Model, Options, at, live_from, options, replay, settle_with, with_record};

/// What is true of a record, beside what it says.
#[derive(Debug)]
struct Truth {
    /// Of the record itself: see `with_record`.
    number: u64,
    /// Recipients that it lists, for the set of what is live.
    listed: u32,
    /// Which of them are gone, and the last record at that time: their going is a record at most as new.
    gone: BTreeMap<u32, u64>,
    /// Nobody needs it since that record.
    died: Option<u64>,
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
    model: BTreeMap<u64, Truth>,
    live: LiveSet,
    durable: u64,
    clock_ms: u64,
    /// Records die in order, all but these few in a hundred.
    stragglers: u64,
    figures: Figures,
}

#[derive(Default, Debug)]
struct Figures {
    crashes: u64,
    appended: u64,
    recycled: u64,
    torn: u64,
    copied: u64,
    checkpoints: u64,
    by_checkpoint: u64,
    kept_read: u64,
}

impl<'a> Run<'a> {
    fn new(disk: &'a Disk, seed: u64) -> Run<'a> {
        let mut random = Random(seed);
        let segments_first = 2 + random.below(3) as usize;
        let segments_max = segments_first + 2 + random.below(12) as usize;
        let checkpoint_tail_bytes = [32 << 10, 100 << 10, 1 << 30][random.below(3) as usize];
        let reclaim_quiet_ms = random.below(2) * 100;
        let options =
            Options { segments_first, segments_max, checkpoint_tail_bytes, reclaim_quiet_ms, ..options() };
        let journal = journal::open(disk.handle(), options.clone(), random.next(), at(0)).unwrap();
        let stragglers = [0, 2, 10, 40][random.below(4) as usize];
        Run {
            random,
            disk,
            options,
            journal,
            flight: None,
            growth: None,
            model: BTreeMap::new(),
            live: LiveSet::default(),
            durable: 0,
            clock_ms: 0,
            stragglers,
            figures: Figures::default(),
        }
    }

    fn step(&mut self) {
        match self.random.below(22) {
            0..8 => self.append(),
            8..16 => self.advance_io(),
            16 => self.clock_ms += self.random.below(80),
            17 => self.some_die(),
            18 => self.read(),
            19 => self.recipient_goes(),
            20 => {
                self.some_die();
                self.journal.observe(&self.live, at(self.clock_ms));
            }
            _ => self.grow(),
        }
        assert_eq!(self.journal.durable().0, self.durable, "the mark moves only by completions");
    }

    fn append(&mut self) {
        // What a full journal holds back must stay within memory.
        let refuse = self.journal.reserve_reached() && self.random.below(8) != 0;
        if refuse || self.journal.pending_bytes() > 100 << 10 {
            return self.some_die();
        }
        let lsn = self.journal.last_lsn().next();
        self.figures.appended += 1;
        let number = self.random.next();
        let listed = [1, 1, 2, 3, 200][self.random.below(5) as usize];
        with_record(number, |record| self.journal.append(lsn, record));
        self.live.add_listed(lsn, with_record(number, body_bytes), listed);
        self.model.insert(lsn.0, Truth { number, listed, gone: BTreeMap::new(), died: None });
    }

    /// What makes others die: a record that nobody needs itself. Its number.
    fn note(&mut self) -> u64 {
        let lsn = self.journal.last_lsn().next();
        let number = self.random.next();
        with_record(number, |record| self.journal.append(lsn, record));
        self.model.insert(lsn.0, Truth { number, listed: 1, gone: BTreeMap::new(), died: Some(lsn.0) });
        lsn.0
    }

    fn advance_io(&mut self) {
        let now = at(self.clock_ms);
        let Some(io) = self.flight.take() else {
            self.flight = self.journal.commit(&self.live, now).expect("the disk is well");
            return;
        };
        assert!(self.journal.commit(&self.live, now).unwrap().is_none(), "one operation at a time");
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
        if let Some(mark) = self.journal.completed(done, &self.live, now).expect("the disk is well") {
            assert!(mark.0 > self.durable);
            self.durable = mark.0;
        }
    }

    /// Older ones first, but for the stragglers, which die in any order or never.
    fn some_die(&mut self) {
        let last = self.journal.last_lsn().0;
        let up_to = last - self.random.below(60).min(last);
        let straggles = |lsn: u64| Random(lsn).below(100) < self.stragglers;
        let mut dying: Vec<u64> = self.alive(0).filter(|lsn| *lsn <= up_to && !straggles(*lsn)).collect();
        if self.random.below(4) == 0 {
            let stragglers: Vec<u64> = self.alive(0).filter(|lsn| straggles(*lsn)).collect();
            dying.extend(stragglers.into_iter().filter(|_| self.random.below(10) == 0));
        }
        if dying.is_empty() {
            return;
        }
        let after = self.note();
        dying.into_iter().for_each(|lsn| self.kill(lsn, after));
    }

    fn alive(&self, from: u64) -> impl Iterator<Item = u64> {
        self.model.range(from..).filter(|(_, truth)| truth.died.is_none()).map(|(lsn, _)| *lsn)
    }

    fn kill(&mut self, lsn: u64, after: u64) {
        let truth = self.model.get_mut(&lsn).expect("it was appended");
        for place in (0..truth.listed).filter(|place| !truth.gone.contains_key(place)) {
            self.live.recipient_gone(Lsn(lsn), place);
        }
        truth.died = Some(after);
        assert!(!self.live.contains(Lsn(lsn)));
    }

    fn recipient_goes(&mut self) {
        let from = self.random.below(self.journal.last_lsn().0 + 1);
        let several = self.alive(from).find(|lsn| self.model[lsn].listed > 1);
        let Some(lsn) = several else { return };
        let truth = &self.model[&lsn];
        let left: Vec<u32> = (0..truth.listed).filter(|place| !truth.gone.contains_key(place)).collect();
        if left.len() > 1 {
            let place = left[self.random.below(left.len() as u64) as usize];
            let after = self.note();
            self.model.get_mut(&lsn).expect("just seen").gone.insert(place, after);
            self.live.recipient_gone(Lsn(lsn), place);
        }
    }

    fn read(&mut self) {
        let from = self.random.below(self.journal.last_lsn().0 + 1);
        let some: Vec<u64> = self.alive(from).take(2).collect();
        for lsn in some {
            let (number, mut seen) = (self.model[&lsn].number, 0);
            self.journal
                .read(Lsn(lsn), &mut |record| {
                    seen += 1;
                    with_record(number, |written| assert_eq!(record, *written, "record {lsn}"));
                })
                .expect("it was appended and is live");
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
        self.figures.crashes += 1;
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
        let statistics = self.journal.statistics();
        self.figures.recycled += statistics.segments_used;
        self.figures.copied += statistics.records_copied;
        self.figures.checkpoints += statistics.checkpoints;
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
        self.figures.torn += u64::from(self.journal.tail_bytes_zeroed() > 0);
        let last = self.journal.last_lsn().0;
        assert!(last >= self.durable, "record {} was durable, {last} is the last one back", self.durable);
        self.model.retain(|lsn, _| *lsn <= last);
        self.durable = last;
        self.judge_replay(last);
        self.rebuild(last);
        assert_eq!(self.journal.durable().0, last);
    }

    /// Everything that is live comes back, in order, and nothing that was dead at the checkpoint.
    fn judge_replay(&mut self, last: u64) {
        let model = &self.model;
        let mut found: BTreeMap<u64, Option<Gone>> = BTreeMap::new();
        let apply = &mut |lsn: Lsn, record: Record<'_>, facts: Facts<'_>| {
            let truth = model.get(&lsn.0).unwrap_or_else(|| panic!("record {} was never written", lsn.0));
            with_record(truth.number, |written| assert_eq!(record, *written, "record {}", lsn.0));
            assert!(found.keys().next_back().is_none_or(|before| *before < lsn.0), "in order");
            found.insert(lsn.0, facts.gone.cloned());
        };
        let replayed = self.journal.replay(apply).unwrap();
        self.figures.by_checkpoint += u64::from(replayed.checkpoint.is_some());
        self.figures.kept_read += replayed.checkpointed;
        for (lsn, truth) in model {
            let dead_by = |mark: u64| truth.died.is_some_and(|after| after <= mark);
            let back = found.get(lsn);
            assert!(back.is_some() || dead_by(last), "record {lsn} is live and was not replayed: {truth:?}");
            let covered = *lsn <= replayed.checkpoint.0;
            assert!(
                back.is_none() || !covered || !dead_by(replayed.checkpoint.0),
                "record {lsn} was dead at the checkpoint {:?} and came back: {truth:?}",
                replayed.checkpoint
            );
            let Some(gone) = back.filter(|_| covered) else { continue };
            for place in 0..truth.listed {
                let said = gone.as_ref().is_some_and(|gone| gone.contains(place));
                let went = truth.gone.get(&place).copied().or(truth.died);
                assert!(
                    !said || went.is_some_and(|after| after <= last),
                    "record {lsn}: {place} is not gone"
                );
                let known = went.is_some_and(|after| after <= replayed.checkpoint.0);
                assert!(said || !known, "record {lsn}: {place} was gone at the checkpoint");
            }
        }
    }

    /// What is live now: what died by a record that did not survive is alive again.
    fn rebuild(&mut self, last: u64) {
        self.live = LiveSet::default();
        for (lsn, truth) in &mut self.model {
            truth.gone.retain(|_, after| *after <= last);
            truth.died = truth.died.filter(|after| *after <= last);
            if truth.died.is_some() {
                continue;
            }
            self.live.add_listed(Lsn(*lsn), with_record(truth.number, body_bytes), truth.listed);
            truth.gone.keys().for_each(|place| self.live.recipient_gone(Lsn(*lsn), *place));
        }
    }
}

fn body_bytes(record: &Record<'_>) -> usize {
    match record {
        Record::Message { body, .. } | Record::Inbound { body, .. } => {
            body.topic.len() + body.forward.len() + body.payload.len()
        }
        _ => 0,
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
    let mut sum = Figures::default();
    for seed in seeds() {
        let guard = SayOnPanic(seed);
        let disk = Disk::default();
        let mut run = Run::new(&disk, seed);
        for _ in 0..40 {
            let steps = [30, 300, 1_500][run.random.below(3) as usize];
            for _ in 0..run.random.below(steps) {
                run.step();
            }
            run.crash();
        }
        sum.add(&run.figures);
        drop(guard);
    }
    println!("{sum:?}");
    // Else the test has stopped testing.
    let runs = seeds().end - seeds().start;
    let enough = [sum.crashes, sum.torn, sum.recycled, sum.copied, sum.kept_read];
    assert!(enough.iter().all(|figure| *figure > 10 * runs), "{sum:?}");
    assert!(sum.checkpoints > runs && sum.by_checkpoint > runs, "{sum:?}");
}

impl Figures {
    fn add(&mut self, other: &Figures) {
        self.crashes += other.crashes;
        self.appended += other.appended;
        self.recycled += other.recycled;
        self.torn += other.torn;
        self.copied += other.copied;
        self.checkpoints += other.checkpoints;
        self.by_checkpoint += other.by_checkpoint;
        self.kept_read += other.kept_read;
    }
}

#[test]
fn a_real_directory_keeps_what_was_durable_through_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(1);
    let (mut model, mut released) = (Model::new(), 1);
    for round in 0..60 {
        let storage = Directory::open(directory.path()).unwrap();
        let mut journal = journal::open(storage.clone(), options(), round, at(0)).unwrap();
        let found = replay(&mut journal, &model).unwrap();
        let first = found.first().copied().unwrap_or(1);
        assert!(first <= released);
        assert_eq!(found, (first..=model.keys().last().copied().unwrap_or(0)).collect::<Vec<u64>>());
        for turn in 0..20 {
            for _ in 0..random.below(20) {
                let (lsn, number) = (journal.last_lsn().next(), random.next());
                model.insert(lsn.0, number);
                with_record(number, |record| journal.append(lsn, record));
            }
            let live = live_from(&model, released);
            settle_with(&mut journal, &storage, &live, at(turn * 200));
            if let Some(request) = journal.grow(at(0)) {
                journal.grown(request.execute(&storage), at(0)).unwrap();
            }
            // Keep some segments' worth: sealed ones are read through a map, the open one is not.
            released = journal.last_lsn().0.saturating_sub(100).max(released);
            journal.observe(&live_from(&model, released), at(turn * 200));
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
