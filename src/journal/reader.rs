//! Single records back. (All of them, at start, are `replay`'s.)
//!
//! A record is found by the pool's index of blocks, then by stepping over the frames of its block, the second time only
//! over a few of them (`steps`). Blocks not yet durable are read from the writer's memory, those of sealed segments through
//! a map, those of the open segment through a copy; which piece was copied or is in memory is remembered, because a
//! queue is drained in order. A record that was kept when its segment was given up is found by its own place.
//!
//! Touching a mapped page that the disk cannot read would be SIGBUS, an end without a word. So the pages of a piece are
//! brought into memory by a call that may fail (`MADV_POPULATE_READ`, Linux 5.14) before they are touched, once for all
//! that is read of it in a row. If it does, the piece is copied instead, and the copy fails with what the disk
//! said. What is left is a page that the kernel drops between the two and cannot read again. Measured (Linux 6.18, in the
//! page cache): the call costs 1 us for a page and some 10 us for the 256 of a large block; copying each block instead
//! costs 1.6 us (4 KiB) to 116 us (1 MiB).

use super::checkpoint::Image;
use super::decode::{self, Defect};
use super::error::{JournalError, Problem};
use super::format::{BLOCK_HEADER_BYTES, BlockHeader, FRAME_BYTES};
use super::kept::Kept;
use super::pool::Pool;
use super::segment::{BlockPlace, Segment};
use super::steps::Steps;
use super::storage::Storage;
use super::{Journal, Statistics};
use crate::ids::Lsn;
use crate::limits;
use crate::record::Record;

/// What reading remembers.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) replay: Replay,
    /// What replay goes by.
    pub(super) image: Option<Image>,
    /// Copy of a piece of a segment.
    pub(super) block: Vec<u8>,
    block_at: Option<Piece>,
    /// The mapped piece whose pages are in memory.
    present: Option<Piece>,
    steps: Steps,
    /// Index of the segment of kept records that was read last.
    kept: usize,
    maps: usize,
}

/// Sequence of a segment of the log, and from where to where in it.
type Piece = (u64, u64, u64);

/// Whether the records of before were handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Replay {
    #[default]
    Due,
    /// There are none.
    Empty,
    Done,
}

impl Reader {
    pub fn new(image: Option<Image>) -> Reader {
        Reader { image, ..Reader::default() }
    }

    pub fn replayed(&self) -> bool {
        self.replay != Replay::Due
    }

    /// There is nothing to replay.
    pub fn skip_replay(&mut self) {
        self.replay = Replay::Empty;
    }
}

impl<S: Storage> Journal<S> {
    /// Hand the record with that number to `apply`: durable, in flight or just appended.
    ///
    /// An error means that the disk lost what it had, or that the record was released before.
    pub fn read(&mut self, lsn: Lsn, apply: &mut dyn FnMut(Record<'_>)) -> Result<(), JournalError> {
        if let Some(frames) = self.writer.in_memory(lsn) {
            apply(find(frames, lsn).expect("the block holds it, as `encode` made it"));
            return Ok(());
        }
        if lsn > self.writer.durable() {
            return Err(self.no_such_record(lsn));
        }
        let Some(index) = self.pool.find(lsn) else { return self.read_kept(lsn, apply) };
        let sealed = index + 1 < self.pool.live_count();
        if sealed {
            self.reader.map(&self.storage, &mut self.pool, index);
        }
        let segment = &self.pool.live()[index];
        let Some(block) = segment.block_of(lsn) else { return Err(self.no_such_record(lsn)) };
        self.reader.read(&self.storage, segment, &block, lsn, apply, &mut self.statistics)
    }

    fn read_kept(&mut self, lsn: Lsn, apply: &mut dyn FnMut(Record<'_>)) -> Result<(), JournalError> {
        let Some((index, offset)) = self.pool.find_kept(lsn, self.reader.kept) else {
            return Err(self.no_such_record(lsn));
        };
        self.reader.kept = index;
        let kept = &self.pool.kept[index];
        self.reader.load_frame(&self.storage, kept, offset)?;
        let (record, found) = decode::frame(&self.reader.block)
            .and_then(|(frame, _)| Ok((decode::record(&frame)?, frame.lsn)))
            .map_err(|defect| damaged(&self.storage, &kept.name, offset, defect))?;
        if found != lsn {
            return Err(wrong_lsn(&self.storage, &kept.name, offset, lsn, found));
        }
        apply(record);
        self.statistics.records_read += 1;
        Ok(())
    }

    fn no_such_record(&self, lsn: Lsn) -> JournalError {
        let problem = Problem::NoSuchRecord { lsn: lsn.0 };
        JournalError::new("read a record of", self.storage.describe(""), problem)
    }
}

impl Reader {
    /// Map a sealed segment, if it is not, and if that is possible here.
    fn map<S: Storage>(&mut self, storage: &S, pool: &mut Pool, index: usize) {
        if pool.live()[index].map.is_some() {
            return;
        }
        if self.maps >= limits::SEGMENT_MAPS_MAX {
            pool.unmap();
            self.maps = 0;
            self.present = None;
        }
        let segment = pool.get_mut(index);
        segment.map = storage.map(segment.file);
        // One less than a whole segment would be a file that someone cut: touching the rest of it would be SIGBUS.
        if segment.map.as_ref().is_some_and(|map| map.len() as u64 != segment.header.bytes) {
            segment.map = None;
        }
        self.maps += usize::from(segment.map.is_some());
    }

    fn read<S: Storage>(
        &mut self,
        storage: &S,
        segment: &Segment,
        block: &BlockPlace,
        lsn: Lsn,
        apply: &mut dyn FnMut(Record<'_>),
        statistics: &mut Statistics,
    ) -> Result<(), JournalError> {
        let place = (segment.header.sequence, block.begin);
        let frames_at = block.begin + BLOCK_HEADER_BYTES as u64;
        let known = self.steps.piece(place, lsn.0 - block.lsns.start.0);
        let (from, to) = match &known {
            Some(piece) => (frames_at + piece.start as u64, frames_at + piece.end as u64),
            None => (block.begin, block.end),
        };
        let bytes = match self.mapped(segment, from, to) {
            Some(bytes) => bytes,
            None => {
                self.load(storage, segment, from, to)?;
                &self.block[..]
            }
        };
        let failed = |defect| damaged(storage, &segment.name, from, defect);
        let (frames, positions) = match known {
            Some(_) => (bytes, None),
            None => (frames(bytes), Some(Steps::of(frames(bytes)).map_err(failed)?)),
        };
        let skipped =
            positions.as_ref().map_or(0, |positions| Steps::begin(positions, lsn.0 - block.lsns.start.0));
        apply(find(&frames[skipped..], lsn).map_err(failed)?);
        if let Some(positions) = positions {
            self.steps.note(place, positions);
        }
        statistics.records_read += 1;
        Ok(())
    }

    /// The piece in the segment's map, if it has one and the piece can be brought into memory.
    fn mapped<'a>(&mut self, segment: &'a Segment, begin: u64, end: u64) -> Option<&'a [u8]> {
        let map = segment.map.as_ref()?;
        let place = (segment.header.sequence, begin, end);
        let range = usize::try_from(begin).ok().zip(usize::try_from(end).ok());
        let (begin, end) = range.expect("a segment's size fits 32 bits");
        if self.present != Some(place) {
            map.advise_range(memmap2::Advice::PopulateRead, begin, end - begin).ok()?;
            self.present = Some(place);
        }
        Some(&map[begin..end])
    }

    /// Copy the frame of a kept record.
    pub fn load_frame<S: Storage>(
        &mut self,
        storage: &S,
        kept: &Kept,
        offset: u64,
    ) -> Result<(), JournalError> {
        self.block_at = None;
        let mut frame = [0; FRAME_BYTES];
        let failed = |error: std::io::Error| {
            JournalError::kernel("read", storage.describe(&kept.name), &error).at(offset)
        };
        storage.read_at(kept.file, offset, &mut frame).map_err(failed)?;
        let extent = decode::extent(&frame);
        if offset + extent as u64 > kept.end {
            let (expected, found) = ((kept.end - offset) as usize, extent);
            return Err(damaged(storage, &kept.name, offset, Defect::Length { expected, found }));
        }
        self.block.resize(extent, 0);
        self.block.shrink_to(2 * limits::BLOCK_BYTES_MAX);
        storage.read_at(kept.file, offset, &mut self.block).map_err(failed)
    }

    pub fn load<S: Storage>(
        &mut self,
        storage: &S,
        segment: &Segment,
        begin: u64,
        end: u64,
    ) -> Result<(), JournalError> {
        let place = (segment.header.sequence, begin, end);
        if self.block_at == Some(place) {
            return Ok(());
        }
        self.block_at = None;
        let bytes = usize::try_from(end - begin).expect("a segment's size fits 32 bits");
        self.block.resize(bytes, 0);
        // A single large record is not worth its memory for ever.
        self.block.shrink_to(2 * limits::BLOCK_BYTES_MAX);
        storage.read_at(segment.file, begin, &mut self.block).map_err(|error| {
            JournalError::kernel("read", storage.describe(&segment.name), &error).at(begin)
        })?;
        self.block_at = Some(place);
        Ok(())
    }
}

/// The frames of a block, or nothing if its header is not one. Witness blocks may follow in the same bytes.
pub(super) fn frames(block: &[u8]) -> &[u8] {
    BlockHeader::claimed(block)
        .and_then(|header| block[BLOCK_HEADER_BYTES..].get(..header.record_bytes as usize))
        .unwrap_or_default()
}

/// The record with that number.
fn find(mut frames: &[u8], lsn: Lsn) -> Result<Record<'_>, Defect> {
    loop {
        let (found, extent) = decode::step(frames)?;
        if found == lsn {
            let (frame, _) = decode::frame(frames)?;
            return decode::record(&frame);
        }
        frames = frames.get(extent..).unwrap_or_default();
    }
}

pub(super) fn damaged<S: Storage>(storage: &S, name: &str, at: u64, defect: Defect) -> JournalError {
    let (what, expected, found) = match defect {
        Defect::Length { expected, found } => {
            ("the room for a record", format!("{expected} bytes"), format!("{found} bytes"))
        }
        Defect::Checksum { expected, found } => {
            ("the checksum in a record", format!("{expected:08x}"), format!("{found:08x}"))
        }
        Defect::Type { kind, version } => {
            ("the type of a record", "one of this version".to_owned(), format!("{kind} version {version}"))
        }
        Defect::Body { kind } => {
            ("the body of a record", format!("as type {kind} says"), "something else".to_owned())
        }
    };
    corrupt(storage, name, at, what, expected, found)
}

pub(super) fn wrong_lsn<S: Storage>(
    storage: &S,
    name: &str,
    at: u64,
    expected: Lsn,
    found: Lsn,
) -> JournalError {
    corrupt(storage, name, at, "the number of a record", expected.0.to_string(), found.0.to_string())
}

fn corrupt<S: Storage>(
    storage: &S,
    name: &str,
    at: u64,
    what: &'static str,
    expected: String,
    found: String,
) -> JournalError {
    let problem = Problem::Corrupt { what, expected: expected.into(), found: found.into() };
    JournalError::new("read", storage.describe(name), problem).at(at)
}
