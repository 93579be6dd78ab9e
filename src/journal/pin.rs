//! What a journal is made of at one moment, and that it stays so on disk while somebody copies it.
//!
//! Decides which segments a backup needs, up to where, and that none of those is given to reuse before it has been
//! copied. Copying is `backup`'s; which bytes are right is `excerpt`'s.
//!
//! The cut is what a crash at this moment would leave, without the block in flight: everything in it is durable and is
//! not written again in this life of its segment (I2). So while no segment of the cut begins another life, the files can
//! be read by anybody at leisure. Those that would be free are *held*: that is all that a pin changes. The log goes
//! on in others, for which the pool grows. A segment is of the cut if it was in use then: its sequence is at most the
//! highest of its kind.
//!
//! A backup is never a reason to refuse a publish: when free segments fall below the reserve and no more can be made, the
//! pin is broken. What it held is free again, the cut is no longer whole on disk, and whoever copies is told.
//!
//! To pin is a walk over the table of segments, which allocates once: 5 ms for the 65,536 of the largest journal (4 TiB), 9 ms on a
//! machine that does other things, 0.03 ms for 64 GiB (`cargo test --lib journal::pin -- --ignored --nocapture`). With a
//! string for each name it was 12 and 33 ms, more than the 10 ms that a shard may be kept from its work for a backup.

use std::collections::VecDeque;
use std::fmt;

use super::format::{Kind, SegmentHeader};
use super::pool::Pool;
use super::recover::{Judged, judge};
use super::segment::{self, Vacant};
use super::{Journal, JournalError, Options, Storage};

/// A segment of the cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// In the name of its file.
    number: u32,
    /// Length of the file.
    pub bytes: u64,
    pub(super) kind: Kind,
    pub(super) sequence: u64,
    pub(super) epoch: u64,
    /// Where its last block ends. `None`: where its chain of blocks does.
    pub(super) end: Option<u64>,
    /// CRC of that block, if it is known without reading.
    pub(super) last_crc: Option<u32>,
}

impl Part {
    /// One with checkpoints. Those of a life before have no end in memory, and the whole file stands for it.
    pub(super) fn of_checkpoints(name: &str, header: &SegmentHeader, end: u64) -> Part {
        let end = Some(end).filter(|end| *end < header.bytes);
        Part { end, ..Part::new(name, header, 0, None) }
    }

    /// `name` is one of `segment`'s. Nothing is allocated: there may be tens of thousands.
    pub(super) fn new(name: &str, header: &SegmentHeader, end: u64, last_crc: Option<u32>) -> Part {
        let SegmentHeader { kind, sequence, epoch, bytes, .. } = *header;
        let digits = name.bytes().filter(u8::is_ascii_digit);
        let number = digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
        Part { number, bytes, kind, sequence, epoch, end: Some(end), last_crc }
    }

    /// The same, with the end that it turned out to have.
    pub fn ending(self, end: u64) -> Part {
        Part { end: Some(end), ..self }
    }

    /// Of its file.
    pub fn name(&self) -> String {
        segment::name(self.number)
    }

    /// Where its last block ends, if that is known without reading.
    pub fn end(&self) -> Option<u64> {
        self.end
    }

    /// The part that this is a line of; `None` if it is none.
    pub fn parse(line: &str) -> Option<Part> {
        let mut words = line.split(' ');
        let number = segment::number(words.next()?)?;
        let kind = Kind::from_number(words.next()?.parse().ok()?)?;
        let mut next = || words.next()?.parse::<u64>().ok();
        let (sequence, epoch, bytes) = (next()?, next()?, next()?);
        let mut known = || match words.next()? {
            "-" => Some(None),
            number => number.parse::<u64>().ok().map(Some),
        };
        let (end, last_crc) = (known()?, known()?);
        let last_crc = last_crc.map(u32::try_from).transpose().ok()?;
        words.next().is_none().then_some(Part { number, bytes, kind, sequence, epoch, end, last_crc })
    }

    /// Whether that is the same part, with the same bytes up to the same end, under whatever name. What has an unknown end
    /// is the same as nothing.
    pub fn is_same(&self, other: &Part) -> bool {
        let of = |part: &Part| (part.kind, part.sequence, part.epoch, part.bytes, part.end, part.last_crc);
        self.last_crc.is_some() && of(self) == of(other)
    }
}

/// One line, without its end; [`Part::parse`] reads it.
impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Part { bytes, kind, sequence, epoch, end, last_crc, .. } = self;
        let known = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let (end, crc) = (known(*end), known(last_crc.map(u64::from)));
        write!(formatter, "{} {} {sequence} {epoch} {bytes} {end} {crc}", self.name(), *kind as u32)
    }
}

/// What is held for somebody who copies.
#[derive(Debug)]
pub(super) struct Pin {
    /// Highest sequence of each kind.
    highest: [u64; 3],
    /// Would be free.
    pub held: VecDeque<Vacant>,
    /// How many were ever held.
    pub held_max: usize,
}

impl Pin {
    /// Of everything that is in use.
    fn of(pool: &Pool) -> Pin {
        let highest = [
            pool.open().map_or(0, |open| open.header.sequence),
            pool.kept.iter().map(|kept| kept.header.sequence).max().unwrap_or(0),
            pool.checkpoints.back().map_or(0, |last| last.header.sequence),
        ];
        Pin { highest, held: VecDeque::new(), held_max: 0 }
    }

    /// Whether that segment was in use when this was made.
    pub fn has(&self, header: &SegmentHeader) -> bool {
        header.sequence <= self.highest[header.kind as usize]
    }

    pub fn hold(&mut self, vacant: Vacant) {
        self.held.push_back(vacant);
        self.held_max += 1;
    }
}

/// Every segment that is in use, up to what is durable of it.
fn parts(pool: &Pool) -> Vec<Part> {
    let log = pool.live().iter();
    let log = log.map(|one| Part::new(&one.name, &one.header, one.end, Some(one.last_crc)));
    let kept = pool.kept.iter();
    let kept = kept.map(|one| Part::new(&one.name, &one.header, one.end, Some(one.last_crc)));
    let checkpoints = pool.checkpoints.iter();
    let checkpoints = checkpoints.map(|one| Part::of_checkpoints(&one.name, &one.header, one.end));
    log.chain(kept).chain(checkpoints).collect()
}

/// The same of a journal that nobody writes, as a start would find it.
pub fn parts_at_rest<S: Storage>(storage: &S, options: &Options) -> Result<Vec<Part>, JournalError> {
    let Judged { inventory, headers, log, used } = judge(storage, options)?;
    let log_segments = log.live.iter();
    let log_segments = log_segments.map(|one| Part::new(&one.name, &one.header, one.end, Some(one.last_crc)));
    let kept = log.kept.iter();
    let kept = kept.map(|one| Part::new(&one.name, &one.header, one.end, Some(one.last_crc)));
    let first = used.map_or(u64::MAX, |used| used.image.first_sequence);
    let checkpoints =
        headers.iter().filter(|(_, header)| header.kind == Kind::Checkpoint && header.sequence >= first);
    let checkpoints = checkpoints
        .map(|(index, header)| Part::of_checkpoints(&inventory.files[*index].name, header, header.bytes));
    Ok(log_segments.chain(kept).chain(checkpoints).collect())
}

impl<S: Storage> Journal<S> {
    /// Keep what is durable now as it is until `unpin`, or until it is broken. Returns what that is.
    ///
    /// # Panics
    ///
    /// If it is pinned already.
    pub fn pin(&mut self) -> Vec<Part> {
        assert!(self.pool.pin.is_none(), "one backup at a time");
        self.pool.pin = Some(Pin::of(&self.pool));
        parts(&self.pool)
    }

    /// Nobody copies any more. Returns how many segments were held for that; `None`: it was broken, or never made.
    pub fn unpin(&mut self) -> Option<usize> {
        self.pool.unpin().map(|pin| pin.held_max)
    }

    /// Whether what was pinned is still as it was.
    pub fn is_pinned(&self) -> bool {
        self.pool.pin.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::kept::Kept;
    use super::super::pool::Checkpoints;
    use super::super::segment::{Segment, name};
    use super::*;
    use crate::ids::{Lsn, ShardId};
    use crate::limits::SEGMENTS_MAX;
    use crate::reactor::File;

    fn header(kind: Kind, sequence: u64) -> SegmentHeader {
        SegmentHeader {
            kind,
            shard: ShardId(0),
            shards: 1,
            previous_crc: 0,
            sequence,
            epoch: sequence + 1,
            bytes: 64 << 20,
            first_block: 1,
            first_lsn: Lsn(1),
            oldest_live: Lsn::NONE,
            hash_key: [0; 16],
        }
    }

    fn pool(count: u32) -> Pool {
        let options = Options::new(ShardId(0), 1, [0; 16]);
        let live = (1..=count).map(|n| Segment::new(File(0), name(n).into(), header(Kind::Log, n.into())));
        let kept = vec![Kept::new(File(0), name(count + 1).into(), header(Kind::Kept, 7))];
        let checkpoints = Checkpoints {
            file: File(0),
            name: name(count + 2).into(),
            header: header(Kind::Checkpoint, 2),
            end: 64 << 20,
        };
        Pool::new(&options, 1, live.collect(), kept, [checkpoints].into(), VecDeque::new(), count + 3)
    }

    #[test]
    fn a_part_comes_back_from_its_line_and_what_was_in_use_is_told_from_what_came_later() {
        let pool = pool(3);
        let parts = parts(&pool);
        assert_eq!(parts.len(), 5);
        parts.iter().for_each(|part| assert_eq!(Part::parse(&part.to_string()).as_ref(), Some(part)));
        let pin = Pin::of(&pool);
        for (kind, highest) in [(Kind::Log, 3), (Kind::Kept, 7), (Kind::Checkpoint, 2)] {
            assert!(pin.has(&header(kind, highest)) && !pin.has(&header(kind, highest + 1)), "{kind:?}");
        }
        assert!(parts[0].is_same(&parts[0]) && !parts[0].is_same(&parts[1]));
        assert!(!parts[4].is_same(&parts[4]), "how far it goes is not known");
    }

    #[test]
    #[ignore = "prints the times that the module documentation has"]
    #[expect(clippy::disallowed_methods, reason = "it measures")]
    fn pinning_takes_so_long() {
        for count in [1_024, SEGMENTS_MAX as u32] {
            let pool = pool(count);
            let mut times: Vec<_> = (0..9)
                .map(|_| {
                    let begun = std::time::Instant::now();
                    let all = (Pin::of(&pool), parts(&pool));
                    let time = begun.elapsed();
                    assert_eq!(all.1.len(), count as usize + 2);
                    time
                })
                .collect();
            times.sort();
            println!("{count} segments: median {:?}, longest {:?}", times[4], times[8]);
        }
    }
}
