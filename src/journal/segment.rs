//! One segment of the log: its file, its name, and where in it each block is.
//!
//! Which segments there are is `pool`'s; segments of kept records are `kept`'s.

use std::ops::Range;

use super::format::{PAGE_BYTES, SegmentHeader};
use crate::ids::Lsn;
use crate::reactor::File;

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

/// Where a block is, and which records it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BlockPlace {
    pub begin: u64,
    /// Behind it; witness blocks may follow before that.
    pub end: u64,
    pub lsns: Range<Lsn>,
}

/// A file that holds part of the log.
#[derive(Debug)]
pub(super) struct Segment {
    pub file: File,
    pub name: Box<str>,
    pub header: SegmentHeader,
    /// Where the next block goes.
    pub end: u64,
    /// One more than its last record.
    pub next_lsn: Lsn,
    /// CRC of its last block.
    pub last_crc: u32,
    /// Every block with records, in order.
    pub blocks: Vec<BlockEntry>,
    /// Present while mapped; only if sealed.
    pub map: Option<memmap2::Mmap>,
}

impl Segment {
    pub fn new(file: File, name: Box<str>, header: SegmentHeader) -> Segment {
        let (end, next_lsn, last_crc) = (PAGE_BYTES as u64, header.first_lsn, header.previous_crc);
        Segment { file, name, header, end, next_lsn, last_crc, blocks: Vec::new(), map: None }
    }

    /// Bytes left for blocks, and behind them for the one that names the next segment.
    pub fn room(&self) -> u64 {
        (self.header.bytes - self.end).saturating_sub(PAGE_BYTES as u64)
    }

    /// Whether the block that names the next segment fits. (In one that an earlier version filled it does not.)
    pub fn can_be_closed(&self) -> bool {
        self.header.bytes - self.end >= PAGE_BYTES as u64
    }

    /// Note a block of that many bytes at the end.
    pub fn add_block(&mut self, first_lsn: Lsn, records: u32, bytes: usize, crc: u32) {
        self.last_crc = crc;
        if records > 0 {
            let lsn_offset = u32::try_from(first_lsn.0 - self.header.first_lsn.0)
                .expect("fewer records than bytes, and a segment's size fits 32 bits");
            let page = u32::try_from(self.end / PAGE_BYTES as u64).expect("a segment's size fits 32 bits");
            self.blocks.push(BlockEntry { lsn_offset, page });
            self.next_lsn = Lsn(first_lsn.0 + u64::from(records));
        }
        self.end += bytes as u64;
        assert!(self.end <= self.header.bytes, "a block lies within its segment");
    }

    /// Its records.
    pub fn lsns(&self) -> Range<Lsn> {
        self.header.first_lsn..self.next_lsn
    }

    /// A block with records, in order: where it begins, how far it may reach, and its records.
    pub fn block(&self, index: usize) -> Option<BlockPlace> {
        let at = |block: &BlockEntry| u64::from(block.page) * PAGE_BYTES as u64;
        let first = |block: &BlockEntry| Lsn(self.header.first_lsn.0 + u64::from(block.lsn_offset));
        let (this, next) = (self.blocks.get(index)?, self.blocks.get(index + 1));
        let (end, next_lsn) = next.map_or((self.end, self.next_lsn), |next| (at(next), first(next)));
        Some(BlockPlace { begin: at(this), end, lsns: first(this)..next_lsn })
    }

    /// The block that holds that record. The segment has the record.
    pub fn block_of(&self, lsn: Lsn) -> Option<BlockPlace> {
        let wanted = lsn.0.checked_sub(self.header.first_lsn.0)?;
        let after = self.blocks.partition_point(|block| u64::from(block.lsn_offset) <= wanted);
        self.block(after.checked_sub(1)?)
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
    /// Bytes for blocks: not the header, and not the block that names the next segment.
    pub fn capacity(&self) -> u64 {
        capacity(self.bytes)
    }
}

/// The same, of a segment of that size.
pub(super) fn capacity(bytes: u64) -> u64 {
    bytes - 2 * PAGE_BYTES as u64
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

    #[test]
    fn names_are_recognised_only_in_the_form_they_are_made() {
        assert_eq!(number(&name(7)), Some(7));
        assert_eq!(number("segment-1000000"), Some(1_000_000));
        for other in ["segment-7", "segment-", "lock", "segment-000007.new", "segment-+00007"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
