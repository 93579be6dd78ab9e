//! The pool: which files hold the log, which are free, and how it grows.
//!
//! Decides which file is written next and when one more is wanted. Does no I/O: a segment is taken into use by the
//! writer, which writes the header; freed by the writer when the release is durable; made by a background thread.
//!
//! Live segments are in sequence order and the last one is being written. Freed ones are reused oldest first.

use std::collections::VecDeque;

use super::format::{PAGE_BYTES, SegmentHeader};
use super::storage::Storage;
use super::{Options, error};
use crate::ids::Lsn;
use crate::limits;
use crate::reactor::{Errno, File};
use crate::time::Nanos;

/// Begin of every segment's name.
const NAME_PREFIX: &str = "segment-";

/// Name of the segment file with that number.
pub(super) fn name(number: u32) -> String {
    format!("{NAME_PREFIX}{number:06}")
}

/// The number in a segment's name; `None` if it is the name of something else.
pub(super) fn number(file_name: &str) -> Option<u32> {
    let digits = file_name.strip_prefix(NAME_PREFIX)?;
    let number = digits.parse().ok()?;
    (name(number) == file_name).then_some(number)
}

/// A block in a segment: 8 bytes, because a segment of smallest blocks has 16,384 of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BlockEntry {
    /// First LSN, less the segment's.
    lsn_offset: u32,
    /// Which page it begins with.
    page: u32,
}

/// A file that holds part of the log.
#[derive(Debug)]
pub(super) struct Segment {
    pub file: File,
    pub name: Box<str>,
    pub header: SegmentHeader,
    /// Where the next block goes.
    pub end: u64,
    /// Every block with records, in order.
    pub blocks: Vec<BlockEntry>,
    /// Present while mapped; only if sealed.
    pub map: Option<memmap2::Mmap>,
}

impl Segment {
    pub fn new(file: File, name: Box<str>, header: SegmentHeader) -> Segment {
        Segment { file, name, header, end: PAGE_BYTES as u64, blocks: Vec::new(), map: None }
    }

    /// Bytes left.
    pub fn room(&self) -> u64 {
        self.header.bytes - self.end
    }

    /// Note a block of that many bytes at the end.
    pub fn add_block(&mut self, first_lsn: Lsn, records: u32, bytes: usize) {
        if records > 0 {
            let lsn_offset = u32::try_from(first_lsn.0 - self.header.first_lsn.0)
                .expect("fewer records than bytes, and a segment's size fits 32 bits");
            let page = u32::try_from(self.end / PAGE_BYTES as u64).expect("a segment's size fits 32 bits");
            self.blocks.push(BlockEntry { lsn_offset, page });
        }
        self.end += bytes as u64;
        assert!(self.end <= self.header.bytes, "a block lies within its segment");
    }

    /// Where each block with records begins and how far it may reach, in order.
    pub fn extents(&self) -> impl Iterator<Item = (u64, u64)> {
        let begin = |block: &BlockEntry| u64::from(block.page) * PAGE_BYTES as u64;
        let ends = self.blocks.iter().skip(1).map(begin).chain(std::iter::once(self.end));
        self.blocks.iter().map(begin).zip(ends)
    }

    /// Where the block that holds that record begins and how far it may reach. The segment has the record.
    pub fn block_of(&self, lsn: Lsn) -> Option<(u64, u64)> {
        let wanted = lsn.0.checked_sub(self.header.first_lsn.0)?;
        let after = self.blocks.partition_point(|block| u64::from(block.lsn_offset) <= wanted);
        let at = |block: &BlockEntry| u64::from(block.page) * PAGE_BYTES as u64;
        let begin = at(self.blocks.get(after.checked_sub(1)?)?);
        Some((begin, self.blocks.get(after).map_or(self.end, at)))
    }
}

/// A file with nothing in it that counts.
#[derive(Debug)]
pub(super) struct Vacant {
    pub file: File,
    pub name: Box<str>,
    pub bytes: u64,
    /// The epoch of its last life, 0 if this would be its first.
    pub epoch: u64,
}

impl Vacant {
    /// Bytes for blocks.
    fn capacity(&self) -> u64 {
        self.bytes - PAGE_BYTES as u64
    }
}

/// A segment to be made: zeros written and synced, outside of any shard's turn.
#[derive(Debug)]
#[must_use = "the journal waits for `grown`"]
pub struct GrowRequest {
    name: String,
    bytes: u64,
}

impl GrowRequest {
    /// Make it. Blocks for as long as the disk takes to write a segment.
    pub fn execute<S: Storage>(self, storage: &S) -> Grown {
        let result = storage.create(&self.name, self.bytes).map_err(|error| error::errno(&error));
        Grown { name: self.name, bytes: self.bytes, result }
    }
}

/// What came of a [`GrowRequest`].
#[derive(Debug)]
pub struct Grown {
    name: String,
    bytes: u64,
    result: Result<File, Errno>,
}

impl Grown {
    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// All files of a journal.
#[derive(Debug)]
pub(super) struct Pool {
    live: VecDeque<Segment>,
    free: VecDeque<Vacant>,
    /// For the name of the next file.
    next_number: u32,
    seed: u64,
    segment_bytes: u64,
    segments_max: usize,
    reserve: usize,
    growth: Growth,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Growth {
    /// Nothing asked for.
    Idle,
    /// A request is with the background thread.
    Asked {
        /// The one before it failed.
        refused: bool,
    },
    /// The last one failed; not tried again before then.
    Refused { retry_at: Nanos },
}

impl Pool {
    /// `live` in sequence order.
    pub fn new(
        options: &Options,
        seed: u64,
        live: VecDeque<Segment>,
        free: VecDeque<Vacant>,
        next_number: u32,
    ) -> Pool {
        Pool {
            live,
            free,
            next_number,
            seed,
            segment_bytes: options.segment_bytes,
            segments_max: options.segments_max,
            reserve: options.reserve,
            growth: Growth::Idle,
        }
    }

    /// The one being written; `None` before the first.
    pub fn open(&self) -> Option<&Segment> {
        self.live.back()
    }

    pub fn open_mut(&mut self) -> &mut Segment {
        self.live.back_mut().expect("a block is written only into an open segment")
    }

    /// Oldest first.
    pub fn live(&self) -> &VecDeque<Segment> {
        &self.live
    }

    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// First LSN of the oldest segment. There is one.
    pub fn first_lsn(&self) -> Lsn {
        self.live.front().map_or(Lsn::NONE, |segment| segment.header.first_lsn)
    }

    /// Index of the segment that holds that record if any does.
    pub fn find(&self, lsn: Lsn) -> Option<usize> {
        self.live.partition_point(|segment| segment.header.first_lsn <= lsn).checked_sub(1)
    }

    pub fn get_mut(&mut self, index: usize) -> &mut Segment {
        &mut self.live[index]
    }

    /// Forget every map.
    pub fn unmap(&mut self) {
        self.live.iter_mut().for_each(|segment| segment.map = None);
    }

    /// Whether a block of that size can be placed now.
    pub fn has_room(&self, block_bytes: u64) -> bool {
        self.open().is_some_and(|segment| segment.room() >= block_bytes) || self.free_fits(block_bytes)
    }

    fn free_fits(&self, block_bytes: u64) -> bool {
        self.free.iter().any(|vacant| vacant.capacity() >= block_bytes)
    }

    /// Take the longest free segment that a block of that size fits, with a new epoch for its next life.
    pub fn take(&mut self, block_bytes: u64, sequence: u64) -> Option<(Vacant, u64)> {
        let index = self.free.iter().position(|vacant| vacant.capacity() >= block_bytes)?;
        let vacant = self.free.remove(index).expect("`position` found it");
        let mut epoch = mix(self.seed ^ mix(sequence));
        while epoch == 0 || epoch == vacant.epoch {
            epoch = mix(epoch);
        }
        assert!(epoch != vacant.epoch, "I8: each life of a segment has its own epoch");
        Some((vacant, epoch))
    }

    /// A segment whose header is durable is the one to write from now on.
    pub fn push(&mut self, segment: Segment) {
        if let Some(last) = self.open() {
            assert!(last.header.sequence + 1 == segment.header.sequence, "segments are used in sequence");
        }
        self.live.push_back(segment);
    }

    /// Whether a segment would be freed.
    pub fn would_free(&self, oldest_live: Lsn) -> bool {
        self.live.get(1).is_some_and(|second| second.header.first_lsn <= oldest_live)
    }

    /// Free every segment whose records are all below. The caller has made that durable.
    pub fn free_below(&mut self, oldest_live: Lsn) {
        while self.would_free(oldest_live) {
            let segment = self.live.pop_front().expect("there are two");
            // Its map, if it has one, ends here: nothing maps a file that is written.
            let (bytes, epoch) = (segment.header.bytes, segment.header.epoch);
            self.free.push_back(Vacant { file: segment.file, name: segment.name, bytes, epoch });
        }
    }

    pub fn reserve_reached(&self) -> bool {
        let refused = matches!(self.growth, Growth::Refused { .. } | Growth::Asked { refused: true });
        self.free.len() < self.reserve && (refused || self.is_full())
    }

    fn is_full(&self) -> bool {
        self.live.len() + self.free.len() >= self.segments_max
    }

    fn wants_growth(&self, block_bytes: u64) -> bool {
        !self.is_full() && (self.free.len() <= self.reserve || !self.has_room(block_bytes))
    }

    /// Ask for one more segment, if that is due.
    pub fn grow(&mut self, block_bytes: u64, now: Nanos) -> Option<GrowRequest> {
        let refused = match self.growth {
            Growth::Idle => false,
            Growth::Refused { retry_at } if retry_at <= now => true,
            Growth::Refused { .. } | Growth::Asked { .. } => return None,
        };
        if !self.wants_growth(block_bytes) {
            return None;
        }
        let name = name(self.next_number);
        self.next_number += 1;
        self.growth = Growth::Asked { refused };
        Some(GrowRequest { name, bytes: self.segment_bytes })
    }

    pub fn grown(&mut self, grown: Grown, now: Nanos) -> Result<(), Errno> {
        assert!(matches!(self.growth, Growth::Asked { .. }), "one segment is made at a time, on request");
        let Grown { name, bytes, result } = grown;
        match result {
            Ok(file) => {
                self.growth = Growth::Idle;
                self.free.push_back(Vacant { file, name: name.into(), bytes, epoch: 0 });
                Ok(())
            }
            Err(errno) => {
                self.growth = Growth::Refused { retry_at: now.plus_ms(limits::GROW_RETRY_MS) };
                Err(errno)
            }
        }
    }

    /// When growing should be tried again, if it failed and is still wanted.
    pub fn retry_at(&self, block_bytes: u64) -> Option<Nanos> {
        match self.growth {
            Growth::Refused { retry_at } if self.wants_growth(block_bytes) => Some(retry_at),
            _ => None,
        }
    }
}

/// A permutation of 64-bit numbers that looks random (the finalizer of SplitMix64, Steele et al. 2014): so different
/// sequences have different epochs even under the same seed.
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    fn pool(reserve: usize, free: usize) -> Pool {
        let options = Options { segments_max: 4, reserve, ..Options::new(ShardId(0), 1, [0; 16]) };
        let vacant =
            |n: usize| Vacant { file: File(n as i32), name: name(n as u32).into(), bytes: 8 << 20, epoch: 0 };
        Pool::new(&options, 1, VecDeque::new(), (0..free).map(vacant).collect(), free as u32)
    }

    fn refusal(request: GrowRequest) -> Grown {
        Grown { name: request.name, bytes: request.bytes, result: Err(Errno(libc::ENOSPC)) }
    }

    #[test]
    fn names_are_recognised_only_in_the_form_they_are_made() {
        assert_eq!(number(&name(7)), Some(7));
        assert_eq!(number("segment-1000000"), Some(1_000_000));
        for other in ["segment-7", "segment-", "lock", "segment-000007.new", "segment-+00007"] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    #[test]
    fn a_full_disk_reaches_the_reserve_and_room_ends_that() {
        let mut pool = pool(2, 1);
        assert!(!pool.reserve_reached(), "it may still grow");
        let request = pool.grow(0, Nanos(0)).expect("below the reserve");
        assert!(pool.grow(0, Nanos(0)).is_none(), "one at a time");
        assert_eq!(pool.grown(refusal(request), Nanos(0)), Err(Errno(libc::ENOSPC)));
        assert!(pool.reserve_reached());
        assert!(pool.grow(0, Nanos(1)).is_none(), "not at once again");
        let retry_at = pool.retry_at(0).expect("still wanted");
        let request = pool.grow(0, retry_at).expect("due");
        assert!(pool.reserve_reached(), "while it is tried again");
        let grown = Grown { name: request.name, bytes: request.bytes, result: Ok(File(9)) };
        pool.grown(grown, retry_at).expect("it grew");
        assert!(!pool.reserve_reached());
    }

    #[test]
    fn the_pool_grows_for_a_block_that_no_segment_fits() {
        let mut pool = pool(0, 3);
        assert!(pool.grow(4_096, Nanos(0)).is_none());
        assert!(pool.take(16 << 20, 1).is_none());
        assert!(pool.grow(16 << 20, Nanos(0)).is_some());
    }

    /// `limits::SEGMENTS_MAX`, made small: what the broker then does is that of any other reserve.
    #[test]
    fn a_pool_of_the_most_segments_does_not_grow() {
        let mut pool = pool(9, 4);
        assert!(pool.grow(0, Nanos(0)).is_none());
        assert!(pool.reserve_reached());
    }

    #[test]
    fn epochs_differ_between_lives_whatever_the_seed() {
        for seed in 0..1_000 {
            let mut pool = pool(0, 1);
            pool.seed = seed;
            let clash = mix(seed ^ mix(1));
            pool.free[0].epoch = clash;
            let (_, epoch) = pool.take(0, 1).expect("one is free");
            assert!(epoch != clash && epoch != 0);
        }
    }
}
