//! Damage at rest, all of it: each bit of a small journal flipped, each sector and each page zeroed or put back to
//! something that it held before. Whatever was durable is there, or opening says where it is not.
//!
//! One case is excepted, and counted: the last block that has records, as long as nothing was written behind it. Nothing
//! tells it from one that never arrived whole, so opening may end the log before it. The journal with a clean end has a
//! witness behind that block and no such case. A torn block behind it will do as well, if its first sector arrived.
//!
//! A slice runs with the other tests; all of it is `IRONPOST_DAMAGE_STRIDE=1 cargo test --release --test journal_crash
//! exhaustive -- --nocapture`.

use std::collections::BTreeMap;
use std::ops::Range;

use ironpost::journal::{self, Io, IoDone, Journal, JournalError, Problem};
use ironpost::live::LiveSet;
use ironpost::reactor::File;
use ironpost::record::Record;
use ironpost::time::Now;

use crate::disk::{Disk, Handle};
use crate::{Model, Options, at, live_from, replay, tiny, with_record};

pub const SECTOR: usize = 512;
pub const PAGE: usize = 4_096;

/// Of the flipped bits, how many are left out for each that is tried, in the slice.
const STRIDE: usize = 331;

/// Five segments that are recycled, each with room for several blocks.
fn sizes() -> Options {
    let bytes = 7 * PAGE as u64;
    Options { segment_bytes: bytes, segment_bytes_first: bytes, segments_first: 5, segments_max: 5, ..tiny() }
}

pub type Image = BTreeMap<String, Vec<u8>>;

/// Everything that each piece held before, by file and number of the piece.
pub type Past = BTreeMap<(String, usize), Vec<Vec<u8>>>;

/// A journal on disk, and what is known of it.
struct Subject {
    image: Image,
    model: Model,
    /// Everything up to here was said to be durable.
    durable: u64,
    /// Everything below was released.
    released: u64,
    /// By sector, and by page.
    past: [Past; 2],
    /// Where the last block with records is.
    last: (String, Range<usize>),
    /// Something was written behind it that tells.
    covered: bool,
}

/// Writes a journal and remembers every state of every piece.
pub struct Author {
    pub disk: Disk,
    pub journal: Journal<Handle>,
    pub past: [Past; 2],
    last: (String, Range<usize>),
    released: u64,
    pub model: Model,
    /// What is live, if that is not everything from `released` on.
    pub live: Option<fn(&Author) -> LiveSet>,
}

impl Author {
    pub fn new(options: Options) -> Author {
        let disk = Disk::default();
        let journal = journal::open(disk.handle(), options, 3, at(0)).unwrap();
        let (past, last) = ([BTreeMap::new(), BTreeMap::new()], (String::new(), 0..0));
        let (model, live) = (Model::new(), None);
        let mut author = Author { disk, journal, past, last, released: 0, model, live };
        // What opening wrote is the second state of the first page; before it there were zeros.
        author.note("segment-000001", 0, &vec![0; PAGE]);
        author
    }

    /// What is there now will be past.
    fn note(&mut self, name: &str, offset: usize, bytes: &[u8]) {
        for (past, unit) in self.past.iter_mut().zip([SECTOR, PAGE]) {
            for (index, piece) in bytes.chunks(unit).enumerate() {
                let states: &mut Vec<Vec<u8>> =
                    past.entry((name.to_owned(), offset / unit + index)).or_default();
                if !states.iter().any(|state| state == piece) {
                    states.push(piece.to_vec());
                }
            }
        }
    }

    fn write(&mut self, file: File, offset: u64, buffer: &[u8]) {
        let name =
            self.disk.image().keys().nth(file.0 as usize).expect("files in the order of their names").clone();
        let offset = offset as usize;
        let before = self.disk.image()[&name][offset..offset + buffer.len()].to_vec();
        self.note(&name, offset, &before);
        self.disk.write(file, offset as u64, buffer);
        // Neither a header nor a witness.
        if buffer[..4] == *b"IPBK" && buffer[60..64] != [0; 4] {
            self.last = (name, offset..offset + buffer.len());
        }
    }

    /// Do at once what the journal wants; with `torn`, only so many sectors of the next write arrive, and nothing more.
    pub fn settle(&mut self, now: Now, torn: Option<usize>) {
        let live = self.live.map_or_else(|| live_from(&self.model, self.released), |live| live(self));
        loop {
            let Some(io) = self.journal.commit(&live, now).unwrap() else {
                if self.live.is_some() && self.journal.wants_turn(&live) {
                    continue;
                }
                return;
            };
            let done = match io {
                Io::Write { file, offset, buffer } => match torn {
                    Some(sectors) => {
                        let last = self.last.clone();
                        self.write(file, offset, &buffer[..sectors * SECTOR]);
                        self.last = last;
                        return;
                    }
                    None => {
                        self.write(file, offset, &buffer);
                        IoDone::Written { buffer, result: Ok(()) }
                    }
                },
                Io::Sync { file } => {
                    self.disk.sync(file);
                    IoDone::Synced { result: Ok(()) }
                }
            };
            self.journal.completed(done, &live, now).unwrap();
        }
    }

    pub fn append(&mut self, wanted: fn(&Record<'_>) -> bool) {
        let lsn = self.journal.last_lsn().next();
        let number = (lsn.0 * 100..).find(|number| with_record(*number, wanted)).unwrap();
        self.model.insert(lsn.0, number);
        with_record(number, |record| self.journal.append(lsn, record));
    }

    /// Enough for every segment to have been used at least twice, some records released, blocks of one page and of more.
    fn fill(&mut self) {
        let mut round = 0;
        // And room in the last one for whatever comes next.
        while round < 90 || self.last.1.end > 3 * PAGE || self.journal.segments().0 < 3 {
            round += 1;
            for _ in 0..3 {
                self.append(is_small);
            }
            if round % 4 == 0 {
                self.append(is_large);
            }
            self.settle(at(0), None);
            self.released = self.journal.last_lsn().0.saturating_sub(24).max(1);
            self.journal.observe(&live_from(&self.model, self.released), at(0));
        }
        assert!(self.journal.statistics().segments_used >= 10, "{:?}", self.journal.statistics());
    }

    fn subject(self, covered: bool) -> Subject {
        let Author { disk, journal, past, last, released, model, .. } = self;
        Subject { image: disk.image(), durable: journal.durable().0, released, past, last, covered, model }
    }
}

pub fn is_small(record: &Record<'_>) -> bool {
    match record {
        Record::Message { body, .. } | Record::Inbound { body, .. } => body.payload.len() < 1_000,
        Record::Session { will, .. } => will.is_none_or(|will| will.body.payload.len() < 1_000),
        _ => true,
    }
}

pub fn is_large(record: &Record<'_>) -> bool {
    matches!(record, Record::Message { body, .. } if (5_000..9_000).contains(&body.payload.len()))
}

/// What was found, in numbers.
#[derive(Default, Debug)]
struct Tally {
    tried: usize,
    detected: usize,
    harmless: usize,
    /// What was never acknowledged is gone, and nothing else.
    unacknowledged: usize,
    /// The excepted case.
    last_block: usize,
}

impl Subject {
    /// Opens the journal with one piece of a file changed.
    fn judge(&self, name: &str, at_byte: usize, piece: &[u8], tally: &mut Tally) {
        let place = at_byte..at_byte + piece.len();
        if self.image[name][place.clone()] == *piece {
            return;
        }
        tally.tried += 1;
        let disk = Disk::of(&self.image);
        disk.put(name, at_byte, piece);
        let opened = journal::open(disk.handle(), sizes(), 4, at(0));
        let found = opened.and_then(|mut journal| replay(&mut journal, &self.model));
        match found {
            Err(error) => {
                self.check_error(&error, name, &place);
                let untouched = Disk::of(&self.image);
                untouched.put(name, at_byte, piece);
                assert!(disk.image() == untouched.image(), "refusing {name} {place:?} changed something");
                tally.detected += 1;
            }
            Ok(found) => {
                let first = found.first().copied().unwrap_or(u64::MAX);
                let last = found.last().copied().unwrap_or(0);
                assert_eq!(found, (first..=last).collect::<Vec<u64>>(), "{name} {place:?}");
                assert!(
                    first <= self.released,
                    "{name} {place:?}: {first} is the first, {} was kept",
                    self.released
                );
                let (file, block) = &self.last;
                if last == *self.model.keys().last().unwrap() {
                    tally.harmless += 1;
                } else if last >= self.durable {
                    tally.unacknowledged += 1;
                } else {
                    let excepted = !self.covered && file == name && block.contains(&at_byte);
                    assert!(
                        excepted,
                        "LOST IN SILENCE: {name} {place:?}, records behind {last} of {}",
                        self.durable
                    );
                    tally.last_block += 1;
                }
            }
        }
    }

    /// It names the damaged file and block, what must be there, what is, and what to do.
    fn check_error(&self, error: &JournalError, name: &str, place: &Range<usize>) {
        let Problem::Corrupt { expected, found, .. } = &error.problem else {
            panic!("{name} {place:?}: {error}")
        };
        assert!(
            !expected.is_empty() && !found.is_empty() && error.cure().contains("copy the directory"),
            "{error}"
        );
        assert_eq!(&*error.object, name, "{place:?}: {error}");
        // Blocks here have at most four pages.
        let offset = error.offset.expect("a place") as usize;
        assert!((offset..offset + 4 * PAGE).contains(&place.start), "{place:?}: {error}");
    }

    /// Everything, or one bit in `stride`.
    fn exhaust(&self, what: &str, stride: usize) -> Tally {
        let mut all = Tally::default();
        let mut report = |kind: &str, tally: Tally| {
            println!("{what}, {kind}: {tally:?}");
            all.tried += tally.tried;
            all.last_block += tally.last_block;
        };
        let mut tally = Tally::default();
        for (name, content) in &self.image {
            for bit in (0..content.len() * 8).step_by(stride) {
                self.judge(name, bit / 8, &[content[bit / 8] ^ 1 << (bit % 8)], &mut tally);
            }
        }
        report("flipped bits", tally);
        for (unit, past) in [SECTOR, PAGE].into_iter().zip(&self.past) {
            let (mut zeroed, mut stale) = (Tally::default(), Tally::default());
            for (name, content) in &self.image {
                for index in 0..content.len() / unit {
                    self.judge(name, index * unit, &vec![0; unit], &mut zeroed);
                    for state in past.get(&(name.clone(), index)).into_iter().flatten() {
                        self.judge(name, index * unit, state, &mut stale);
                    }
                }
            }
            report(&format!("zeroed pieces of {unit} bytes"), zeroed);
            report(&format!("stale pieces of {unit} bytes"), stale);
        }
        all
    }
}

pub fn stride() -> usize {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let stride = std::env::var("IRONPOST_DAMAGE_STRIDE");
    stride.map_or(STRIDE, |stride| stride.parse().expect("a number"))
}

#[test]
fn no_damage_of_a_journal_with_a_clean_end_is_silent() {
    let mut author = Author::new(sizes());
    author.fill();
    author.journal.witness();
    author.settle(at(0), None);
    let all = author.subject(true).exhaust("clean end", stride());
    assert_eq!(all.last_block, 0);
    assert!(all.tried > 2_000);
}

#[test]
fn no_damage_of_a_journal_with_a_torn_end_is_silent_if_the_torn_block_shows_itself() {
    for sectors in [1, 4] {
        let mut author = Author::new(sizes());
        author.fill();
        author.append(is_large);
        author.settle(at(0), Some(sectors));
        let all = author.subject(true).exhaust(&format!("{sectors} sectors of a torn block"), stride());
        assert_eq!(all.last_block, 0);
    }
}

/// The one case that cannot be told apart, and the only one.
#[test]
fn only_the_last_block_at_rest_can_go_unseen_and_only_until_something_covers_it() {
    let mut author = Author::new(sizes());
    author.fill();
    let all = author.subject(false).exhaust("uncovered end", stride());
    assert!(all.last_block > 0);
}
