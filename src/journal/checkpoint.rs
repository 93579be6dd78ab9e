//! Checkpoints: which segments count, and which records in them are live, up to one point of the log.
//!
//! Decides how that is laid out and when it is whole. Writing it is `reclaim`'s, choosing one at start `recover`'s.
//!
//! A checkpoint is a run of frames, like those of records, whose LSN is the last record that it covers. It fills blocks of
//! its own kind, which may go on in the next segment of that kind:
//!
//! | type | body |
//! |---|---|
//! | 64 head | block that follows u64, CRC before it u32, zeros u32, sequence and offset of that block's place u64 each, highest session key u64 |
//! | 65 segments | of each: kind u32, CRC of its last block u32, sequence u64, epoch u64, end u64, highest LSN u64 |
//! | 67 gone | of each: LSN u64, words u64, that many words of bits: recipients of a live record that need it no more |
//! | 66 live | of each: chunk u64, bits u64 × 4 (`live::CHUNK_LSNS` records) |
//! | 68 unrouted | LSN u64 of each `Inbound` record that is still to be routed |
//! | 69 taken | LSN u64 of each `Inbound` record whose packet id is taken |
//! | 70 end | last record whose effect may be in it u64 |
//!
//! It is taken while the shard goes on, block by block, so a record that died meanwhile may be missing in it. That is no
//! loss: what killed it is a later record, which replay applies to nothing. The end is written only when all those are
//! durable, so a checkpoint that has its end is never ahead of the log. Who is gone is written before what is live: the
//! other way round, a record that dies in between would be live with nobody gone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::encode::{self, seal_frame};
use super::format::{FRAME_BYTES, Kind, get};
use crate::ids::{Lsn, SessionKey};
use crate::live::{self, Bits, CHUNK_LSNS, Facts, Gone, LiveSet};

mod kind {
    pub const HEAD: u8 = 64;
    pub const SEGMENTS: u8 = 65;
    pub const LIVE: u8 = 66;
    pub const GONE: u8 = 67;
    pub const UNROUTED: u8 = 68;
    pub const TAKEN: u8 = 69;
    pub const END: u8 = 70;
}

/// Entries of a frame: the largest is 6 kB, so that several fit the smallest block.
const ENTRIES_MAX: usize = 128;
/// Bytes of such a frame at most.
const FRAME_MAX: usize = FRAME_BYTES + ENTRIES_MAX * LISTED_BYTES;
const LISTED_BYTES: usize = 40;
const CHUNK_BYTES: usize = 40;

/// Where the log goes on behind a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    /// The last record that it covers.
    pub last_lsn: Lsn,
    /// Number of the block that follows.
    pub next_block: u64,
    /// CRC of the one before.
    pub previous_crc: u32,
    /// The segment that is written, and its end.
    pub sequence: u64,
    pub offset: u64,
    pub session_key_max: SessionKey,
}

/// A segment that counts, beside the one that is written and those that follow it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Listed {
    pub kind: Kind,
    pub sequence: u64,
    pub epoch: u64,
    /// Where its last block ends, and that block's CRC.
    pub end: u64,
    pub last_crc: u32,
    pub last_lsn: Lsn,
}

/// A checkpoint in the making.
#[derive(Debug)]
pub(super) struct Encoder {
    head: Head,
    listed: Vec<Listed>,
    cursor: Cursor,
    /// The last record whose effect may be in what was encoded.
    pub needed: Lsn,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Cursor {
    Head,
    Listed(usize),
    Gone(Lsn),
    Live(u64),
    Unrouted(Lsn),
    Taken(Lsn),
    End,
    Done,
}

impl Encoder {
    pub fn new(head: Head, listed: Vec<Listed>) -> Encoder {
        Encoder { head, listed, cursor: Cursor::Head, needed: head.last_lsn }
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Only the end is missing, which must wait until `needed` is durable.
    pub fn awaits_end(&self) -> bool {
        self.cursor == Cursor::End
    }

    /// Everything was encoded.
    pub fn is_done(&self) -> bool {
        self.cursor == Cursor::Done
    }

    /// Append frames of a block of so many bytes. `last_lsn`: the newest record. The end comes in a block of its own.
    pub fn block(&mut self, live: &LiveSet, last_lsn: Lsn, bytes_max: usize, out: &mut Vec<u8>) {
        let begin = out.len();
        if self.cursor == Cursor::End {
            let needed = self.needed;
            self.frame(kind::END, out, |out| put(out, needed.0));
            self.cursor = Cursor::Done;
            return;
        }
        self.needed = last_lsn;
        while self.cursor < Cursor::End && out.len() - begin + FRAME_MAX <= bytes_max {
            self.step(live, out);
        }
    }

    fn frame(&self, kind: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
        let start = encode::begin_frame(out);
        body(out);
        seal_frame(start, self.head.last_lsn, kind, out);
    }

    /// One frame, or on to the next part.
    fn step(&mut self, live: &LiveSet, out: &mut Vec<u8>) {
        let last = self.head.last_lsn;
        self.cursor = match self.cursor {
            Cursor::Head => {
                let head = self.head;
                self.frame(kind::HEAD, out, |out| head.encode(out));
                Cursor::Listed(0)
            }
            Cursor::Listed(from) => {
                let some = &self.listed[from..self.listed.len().min(from + ENTRIES_MAX)];
                if some.is_empty() {
                    Cursor::Gone(Lsn::NONE)
                } else {
                    self.frame(kind::SEGMENTS, out, |out| some.iter().for_each(|one| one.encode(out)));
                    Cursor::Listed(from + some.len())
                }
            }
            Cursor::Live(from) => {
                let number_last = last.0 / CHUNK_LSNS;
                let some = live.chunks_from(from).take_while(|(number, _)| *number <= number_last);
                let some: Vec<(u64, &Bits)> = some.take(ENTRIES_MAX).collect();
                match some.last() {
                    None => Cursor::Unrouted(Lsn::NONE),
                    Some((number, _)) => {
                        self.frame(kind::LIVE, out, |out| {
                            for (number, bits) in &some {
                                put(out, *number);
                                live::up_to(*number, bits, last).iter().for_each(|word| put(out, *word));
                            }
                        });
                        Cursor::Live(number + 1)
                    }
                }
            }
            Cursor::Gone(from) => match live.gone_from(from).next().filter(|(lsn, _)| *lsn <= last) {
                None => Cursor::Live(0),
                Some((first, _)) => Cursor::Gone(self.gone(first, live, out).next()),
            },
            Cursor::Unrouted(from) => match self.numbers(kind::UNROUTED, live.unrouted_from(from), out) {
                None => Cursor::Taken(Lsn::NONE),
                Some(lsn) => Cursor::Unrouted(lsn.next()),
            },
            Cursor::Taken(from) => match self.numbers(kind::TAKEN, live.taken_from(from), out) {
                None => Cursor::End,
                Some(lsn) => Cursor::Taken(lsn.next()),
            },
            Cursor::End | Cursor::Done => unreachable!("nothing follows"),
        };
    }

    /// As many as fit a frame, from that one on; the last of them. One alone may be larger.
    fn gone(&self, first: Lsn, live: &LiveSet, out: &mut Vec<u8>) -> Lsn {
        let last = self.head.last_lsn;
        let mut reached = first;
        self.frame(kind::GONE, out, |out| {
            let begin = out.len();
            for (lsn, gone) in live.gone_from(first).take_while(|(lsn, _)| *lsn <= last) {
                let bytes = (2 + gone.words().len()) * 8;
                if out.len() > begin && out.len() - begin + bytes > ENTRIES_MAX * LISTED_BYTES {
                    break;
                }
                put(out, lsn.0);
                put(out, gone.words().len() as u64);
                gone.words().iter().for_each(|word| put(out, *word));
                reached = lsn;
            }
        });
        reached
    }

    fn numbers(&self, kind: u8, lsns: impl Iterator<Item = Lsn>, out: &mut Vec<u8>) -> Option<Lsn> {
        let last = self.head.last_lsn;
        let some: Vec<Lsn> = lsns.take_while(|lsn| *lsn <= last).take(ENTRIES_MAX).collect();
        let reached = some.last().copied()?;
        self.frame(kind, out, |out| some.iter().for_each(|lsn| put(out, lsn.0)));
        Some(reached)
    }
}

impl Head {
    const BYTES: usize = 40;

    fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.next_block);
        put(out, u64::from(self.previous_crc));
        put(out, self.sequence);
        put(out, self.offset);
        put(out, self.session_key_max.0);
    }

    fn decode(last_lsn: Lsn, body: &[u8]) -> Option<Head> {
        let body = body.first_chunk::<{ Head::BYTES }>().filter(|_| body.len() == Head::BYTES)?;
        let number = |at| u64::from_le_bytes(get(body, at));
        let previous_crc = u32::try_from(number(8)).ok()?;
        let (sequence, offset) = (number(16), number(24));
        let session_key_max = SessionKey(number(32));
        Some(Head { last_lsn, next_block: number(0), previous_crc, sequence, offset, session_key_max })
    }
}

impl Listed {
    fn encode(&self, out: &mut Vec<u8>) {
        put(out, u64::from(self.last_crc) << 32 | self.kind as u64);
        [self.sequence, self.epoch, self.end, self.last_lsn.0]
            .into_iter()
            .for_each(|number| put(out, number));
    }

    fn decode(bytes: &[u8; LISTED_BYTES]) -> Option<Listed> {
        let number = |at| u64::from_le_bytes(get(bytes, at));
        Some(Listed {
            kind: Kind::from_number(u32::from_le_bytes(get(bytes, 0)))?,
            last_crc: u32::from_le_bytes(get(bytes, 4)),
            sequence: number(8),
            epoch: number(16),
            end: number(24),
            last_lsn: Lsn(number(32)),
        })
    }
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// A checkpoint that was read.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub head: Head,
    pub listed: Vec<Listed>,
    live: BTreeMap<u64, Bits>,
    gone: BTreeMap<Lsn, Gone>,
    unrouted: BTreeSet<Lsn>,
    taken: BTreeSet<Lsn>,
    /// The last record whose effect may be in it, once its end is there.
    pub needed: Option<Lsn>,
    /// Sequence of the segment that it begins in.
    pub first_sequence: u64,
}

/// Whether a frame of that kind ends a checkpoint.
pub(super) fn is_end(kind: u8) -> bool {
    kind == kind::END
}

/// What a frame is to a checkpoint that is being read.
pub(super) enum Step {
    /// The first of one.
    Begins(Box<Image>),
    /// It was added.
    Added,
    /// It does not belong there.
    Foreign,
}

impl Image {
    /// Add the next frame to the checkpoint being read, if there is one.
    pub fn step(image: Option<&mut Image>, sequence: u64, lsn: Lsn, kind: u8, body: &[u8]) -> Step {
        if kind == kind::HEAD {
            return match Head::decode(lsn, body) {
                Some(head) => Step::Begins(Box::new(Image::begin(head, sequence))),
                None => Step::Foreign,
            };
        }
        let image = image.filter(|image| image.needed.is_none() && image.head.last_lsn == lsn);
        match image.and_then(|image| image.add(kind, body)) {
            Some(()) => Step::Added,
            None => Step::Foreign,
        }
    }

    fn begin(head: Head, first_sequence: u64) -> Image {
        Image {
            head,
            listed: Vec::new(),
            live: BTreeMap::new(),
            gone: BTreeMap::new(),
            unrouted: BTreeSet::new(),
            taken: BTreeSet::new(),
            needed: None,
            first_sequence,
        }
    }

    fn add(&mut self, kind: u8, body: &[u8]) -> Option<()> {
        match kind {
            kind::SEGMENTS => {
                let (entries, rest) = body.as_chunks();
                for entry in entries {
                    self.listed.push(Listed::decode(entry)?);
                }
                rest.is_empty().then_some(())
            }
            kind::LIVE => {
                let (entries, rest) = body.as_chunks::<CHUNK_BYTES>();
                for entry in entries {
                    let number = |at| u64::from_le_bytes(get(entry, at));
                    self.live.insert(number(0), [number(8), number(16), number(24), number(32)]);
                }
                rest.is_empty().then_some(())
            }
            kind::GONE => self.add_gone(body),
            kind::UNROUTED => numbers(body).map(|lsns| self.unrouted.extend(lsns)),
            kind::TAKEN => numbers(body).map(|lsns| self.taken.extend(lsns)),
            kind::END => {
                self.needed = Some(numbers(body)?.next()?);
                Some(())
            }
            _ => None,
        }
    }

    fn add_gone(&mut self, body: &[u8]) -> Option<()> {
        let mut numbers = numbers(body)?;
        while let Some(lsn) = numbers.next() {
            let count = usize::try_from(numbers.next()?.0).ok()?;
            let words: Vec<u64> = numbers.by_ref().take(count).map(|word| word.0).collect();
            if words.len() != count {
                return None;
            }
            self.gone.insert(lsn, Gone::from_words(&words));
        }
        Some(())
    }

    /// Whether the record is live, or later than the checkpoint.
    pub fn wants(&self, lsn: Lsn) -> bool {
        let (word, bit) = live::place(lsn);
        lsn > self.head.last_lsn
            || self.live.get(&(lsn.0 / CHUNK_LSNS)).is_some_and(|bits| bits[word] & bit != 0)
    }

    /// Every record that was live, in order.
    pub fn live(&self) -> impl Iterator<Item = Lsn> {
        self.live.iter().flat_map(|(number, bits)| live::lsns(*number, bits))
    }

    /// Whether any of these records is wanted, roughly: what it denies is not there.
    pub fn wants_any(&self, lsns: &Range<Lsn>) -> bool {
        let last = Lsn(lsns.end.0.saturating_sub(1));
        last > self.head.last_lsn
            || self.live.range(lsns.start.0 / CHUNK_LSNS..=last.0 / CHUNK_LSNS).next().is_some()
    }

    /// What it knows of a record.
    pub fn facts(&self, lsn: Lsn) -> Facts<'_> {
        if lsn > self.head.last_lsn {
            return Facts::NONE;
        }
        Facts {
            gone: self.gone.get(&lsn),
            routed: !self.unrouted.contains(&lsn),
            released: !self.taken.contains(&lsn),
        }
    }
}

fn numbers(body: &[u8]) -> Option<impl Iterator<Item = Lsn>> {
    let (words, rest) = body.as_chunks();
    rest.is_empty().then(|| words.iter().map(|word| Lsn(u64::from_le_bytes(*word))))
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;

    fn read(frames: &[u8]) -> Image {
        let mut image: Option<Image> = None;
        let mut rest = frames;
        while !rest.is_empty() {
            let (frame, extent) = decode::frame(rest).expect("whole frames");
            match Image::step(image.as_mut(), 1, frame.lsn, frame.kind, frame.body) {
                Step::Begins(begun) => image = Some(*begun),
                Step::Added => {}
                Step::Foreign => panic!("a frame of type {} where none belongs", frame.kind),
            }
            rest = &rest[extent..];
        }
        image.filter(|image| image.needed.is_some()).expect("it has its end")
    }

    /// Records die, and recipients go, between any two blocks. What is live in the end is in it, and of those that are in
    /// it, nobody who was gone when it was begun is forgotten.
    #[test]
    fn a_checkpoint_written_while_the_shard_goes_on_is_never_ahead_and_forgets_nobody() {
        const RECORDS: u64 = 3_000;
        let mut live = LiveSet::default();
        for lsn in 1..=RECORDS {
            live.add_listed(Lsn(lsn), 100, 3);
            if lsn % 2 == 0 {
                live.recipient_gone(Lsn(lsn), 0);
            }
        }
        let head = Head {
            last_lsn: Lsn(RECORDS),
            next_block: 7,
            previous_crc: 8,
            sequence: 9,
            offset: 4_096,
            session_key_max: SessionKey(10),
        };
        let mut encoder = Encoder::new(head, Vec::new());
        let (mut frames, mut blocks, mut newest) = (Vec::new(), 0, RECORDS);
        while !encoder.is_done() {
            encoder.block(&live, Lsn(newest), FRAME_MAX, &mut frames);
            blocks += 1;
            for lsn in (1 + blocks * 37 % 11..=RECORDS).step_by(11) {
                newest += 1;
                let gone = live.facts(Lsn(lsn)).gone.cloned().unwrap_or_default();
                if let Some(place) = (0..3).find(|place| live.contains(Lsn(lsn)) && !gone.contains(*place)) {
                    live.recipient_gone(Lsn(lsn), place);
                }
            }
        }
        assert!(blocks > 10, "{blocks} blocks");
        let image = read(&frames);
        assert_eq!(image.head, head);
        let mut died = 0;
        for lsn in 1..=RECORDS {
            assert!(image.wants(Lsn(lsn)) || !live.contains(Lsn(lsn)), "record {lsn} is live");
            died += u64::from(!live.contains(Lsn(lsn)));
            if image.wants(Lsn(lsn)) && lsn % 2 == 0 {
                assert!(image.facts(Lsn(lsn)).gone.is_some_and(|gone| gone.contains(0)), "record {lsn}");
            }
        }
        assert!(died > RECORDS / 10, "{died} records died meanwhile");
    }
}
