//! A segment of kept records: what was live in segments that were given up, each record with its own number.
//!
//! Its blocks are linked among themselves, from the segment's first; its records are in any order, so their places are
//! in memory, 12 bytes each. Nothing is read from it that a checkpoint does not name, so what a crash left at its end
//! does not count, and after a start nothing is added to it.

use super::format::{PAGE_BYTES, SegmentHeader};
use crate::ids::Lsn;
use crate::live::LiveSet;
use crate::reactor::File;

/// Where a record's frame is. In order of the records' numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    /// Two halves, because a whole number would make this 16 bytes.
    lsn: [u32; 2],
    offset: u32,
}

impl Place {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the number")]
    pub fn new(lsn: Lsn, offset: u64) -> Place {
        let offset = u32::try_from(offset).expect("a segment's size fits 32 bits");
        Place { lsn: [(lsn.0 >> 32) as u32, lsn.0 as u32], offset }
    }

    pub fn lsn(self) -> Lsn {
        Lsn(u64::from(self.lsn[0]) << 32 | u64::from(self.lsn[1]))
    }

    /// Of its frame, in the file.
    pub fn offset(self) -> u64 {
        u64::from(self.offset)
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Kept {
    pub file: File,
    pub name: Box<str>,
    pub header: SegmentHeader,
    /// Where the next block goes.
    pub end: u64,
    pub next_block: u64,
    pub last_crc: u32,
    /// By number.
    places: Vec<Place>,
    /// Nothing is added any more.
    pub sealed: bool,
    /// Present while mapped; only if sealed.
    pub map: Option<memmap2::Mmap>,
}

impl Kept {
    /// One whose header is durable.
    pub fn new(file: File, name: Box<str>, header: SegmentHeader) -> Kept {
        Kept {
            file,
            name,
            header,
            end: PAGE_BYTES as u64,
            next_block: 1,
            last_crc: 0,
            places: Vec::new(),
            sealed: false,
            map: None,
        }
    }

    /// Bytes left.
    pub fn room(&self) -> u64 {
        if self.sealed { 0 } else { self.header.bytes - self.end }
    }

    /// A durable block at the end, with these records.
    pub fn add_block(&mut self, crc: u32, bytes: usize, places: &[Place]) {
        self.last_crc = crc;
        self.next_block += 1;
        self.end += bytes as u64;
        assert!(self.end <= self.header.bytes, "a block lies within its segment");
        self.places.extend_from_slice(places);
        // Runs that are in order themselves: that takes one pass.
        self.places.sort();
    }

    /// Places by number.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The frame of that record, if it is here.
    pub fn find(&self, lsn: Lsn) -> Option<u64> {
        let index = self.places.binary_search_by_key(&lsn, |place| place.lsn()).ok()?;
        Some(self.places[index].offset())
    }

    /// The highest number here.
    pub fn last_lsn(&self) -> Lsn {
        self.places.last().map_or(Lsn::NONE, |place| place.lsn())
    }

    /// Bytes that are live, taking each record for the mean of all.
    pub fn live_bytes(&self, live: &LiveSet) -> u64 {
        let count = self.live(live).count() as u64;
        (self.end - PAGE_BYTES as u64) * count / (self.places.len() as u64).max(1)
    }

    /// Whether anything is live.
    pub fn is_live(&self, live: &LiveSet) -> bool {
        self.live(live).next().is_some()
    }

    fn live(&self, live: &LiveSet) -> impl Iterator<Item = Lsn> {
        live.only_live(self.places.iter().map(|place| place.lsn()))
    }
}
