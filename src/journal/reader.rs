//! Records back: all of them once at start, and single ones later.
//!
//! A single record is found by the pool's index of blocks, then by stepping over the frames of its block. Blocks not
//! yet durable are read from the writer's memory, those of sealed segments through a map, those of the open segment
//! through a copy; the copy and the place reached are remembered, because a queue is drained in order.
//!
//! Touching a mapped page that the disk cannot read would be SIGBUS, an end without a word. So the pages of a block are
//! brought into memory by a call that may fail (`MADV_POPULATE_READ`, Linux 5.14) before they are touched, once for all
//! that is read of the block in a row. If it does, the block is copied instead, and the copy fails with what the disk
//! said. What is left is a page that the kernel drops between the two and cannot read again. Measured (Linux 6.18, in the
//! page cache): the call costs 1 us per change of block, whatever its size, and nothing that can be seen for a queue that
//! is drained in order (176 ns against 175 ns per record of 256 B); copying each block instead costs 1.6 us (4 KiB) to
//! 116 us (1 MiB) per change of block.

use super::decode::{self, Defect};
use super::error::{JournalError, Problem};
use super::format::{BLOCK_HEADER_BYTES, BlockHeader};
use super::segment::{Pool, Segment};
use super::storage::Storage;
use super::{Journal, Statistics};
use crate::ids::Lsn;
use crate::limits;
use crate::live::Facts;
use crate::record::Record;

/// What a replay went through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// Records applied.
    pub records: u64,
    /// Bytes of the blocks they were in.
    pub bytes: u64,
}

/// What reading remembers.
#[derive(Debug, Default)]
pub(super) struct Reader {
    replay: Replay,
    /// Copy of the block at (sequence, offset).
    block: Vec<u8>,
    block_at: Option<(u64, u64)>,
    /// (sequence, offset) of the mapped block whose pages are in memory.
    present: Option<(u64, u64)>,
    cursor: Cursor,
    maps: usize,
}

/// Whether the records of before were handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Replay {
    #[default]
    Due,
    /// There are none.
    Empty,
    Done,
}

/// A frame that was read: the next one is probably behind it.
#[derive(Clone, Copy, Default, Debug)]
struct Cursor {
    sequence: u64,
    block: u64,
    lsn: Lsn,
    /// Of the frame, from the block's first.
    position: usize,
}

impl Reader {
    pub fn replayed(&self) -> bool {
        self.replay != Replay::Due
    }

    /// There is nothing to replay.
    pub fn skip_replay(&mut self) {
        self.replay = Replay::Empty;
    }
}

impl<S: Storage> Journal<S> {
    /// Hand every record that is kept to `apply`, in LSN order. Once, before the first append.
    ///
    /// # Panics
    ///
    /// At the second call.
    pub fn replay(
        &mut self,
        apply: &mut dyn FnMut(Lsn, Record<'_>, Facts<'_>),
    ) -> Result<Replayed, JournalError> {
        assert!(self.reader.replay != Replay::Done, "a journal is replayed once");
        self.reader.replay = Replay::Done;
        let mut replayed = Replayed::default();
        let mut expected = self.pool.first_lsn();
        for segment in self.pool.live() {
            for (begin, end) in segment.extents() {
                self.reader.load(&self.storage, segment, begin, end)?;
                replayed.bytes += end - begin;
                let frames = frames(&self.reader.block);
                let mut position = 0;
                while position < frames.len() {
                    let at = begin + (BLOCK_HEADER_BYTES + position) as u64;
                    let (lsn, record, extent) = decode::frame(&frames[position..])
                        .and_then(|(frame, extent)| Ok((frame.lsn, decode::record(&frame)?, extent)))
                        .map_err(|defect| damaged(&self.storage, segment, at, defect))?;
                    if lsn != expected {
                        return Err(wrong_lsn(&self.storage, segment, at, expected, lsn));
                    }
                    apply(lsn, record, Facts::NONE);
                    expected = lsn.next();
                    position += extent;
                    replayed.records += 1;
                }
            }
        }
        if expected != self.last_lsn().next() {
            let segment = self.pool.open().expect("a journal has an open segment");
            return Err(wrong_lsn(&self.storage, segment, segment.end, self.last_lsn().next(), expected));
        }
        Ok(replayed)
    }

    /// Hand the record with that number to `apply`: durable, in flight or just appended.
    ///
    /// An error means that the disk lost what it had, or that the record was released before.
    pub fn read(&mut self, lsn: Lsn, apply: &mut dyn FnMut(Record<'_>)) -> Result<(), JournalError> {
        if let Some(frames) = self.writer.in_memory(lsn) {
            let (record, _) = find(frames, 0, lsn).expect("the block holds it, as `encode` made it");
            apply(record);
            return Ok(());
        }
        if lsn > self.writer.durable() {
            return Err(self.no_such_record(lsn));
        }
        let Some(index) = self.pool.find(lsn) else { return Err(self.no_such_record(lsn)) };
        let sealed = index + 1 < self.pool.live_count();
        if sealed {
            self.reader.map(&self.storage, &mut self.pool, index);
        }
        let segment = &self.pool.live()[index];
        let Some((begin, end)) = segment.block_of(lsn) else { return Err(self.no_such_record(lsn)) };
        self.reader.read(&self.storage, segment, (begin, end), lsn, apply, &mut self.statistics)
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
        (begin, end): (u64, u64),
        lsn: Lsn,
        apply: &mut dyn FnMut(Record<'_>),
        statistics: &mut Statistics,
    ) -> Result<(), JournalError> {
        let sequence = segment.header.sequence;
        let start = match self.cursor {
            Cursor { sequence: s, block, lsn: l, position }
                if (s, block) == (sequence, begin) && l <= lsn =>
            {
                position
            }
            _ => 0,
        };
        let block = match self.mapped(segment, begin, end) {
            Some(block) => block,
            None => {
                self.load(storage, segment, begin, end)?;
                &self.block[..]
            }
        };
        let (record, position) =
            find(frames(block), start, lsn).map_err(|defect| damaged(storage, segment, begin, defect))?;
        apply(record);
        self.cursor = Cursor { sequence, block: begin, lsn, position };
        statistics.records_read += 1;
        Ok(())
    }

    /// The block in the segment's map, if it has one and the block can be brought into memory.
    fn mapped<'a>(&mut self, segment: &'a Segment, begin: u64, end: u64) -> Option<&'a [u8]> {
        let map = segment.map.as_ref()?;
        let place = (segment.header.sequence, begin);
        let range = usize::try_from(begin).ok().zip(usize::try_from(end).ok());
        let (begin, end) = range.expect("a segment's size fits 32 bits");
        if self.present != Some(place) {
            map.advise_range(memmap2::Advice::PopulateRead, begin, end - begin).ok()?;
            self.present = Some(place);
        }
        Some(&map[begin..end])
    }

    fn load<S: Storage>(
        &mut self,
        storage: &S,
        segment: &Segment,
        begin: u64,
        end: u64,
    ) -> Result<(), JournalError> {
        let place = (segment.header.sequence, begin);
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
fn frames(block: &[u8]) -> &[u8] {
    BlockHeader::claimed(block)
        .and_then(|header| block[BLOCK_HEADER_BYTES..].get(..header.record_bytes as usize))
        .unwrap_or_default()
}

/// The record with that number at or behind `position`, and where it is.
fn find(frames: &[u8], mut position: usize, lsn: Lsn) -> Result<(Record<'_>, usize), Defect> {
    loop {
        let rest = frames.get(position..).unwrap_or_default();
        let (found, extent) = decode::step(rest)?;
        if found == lsn {
            let (frame, _) = decode::frame(rest)?;
            return Ok((decode::record(&frame)?, position));
        }
        position += extent;
    }
}

fn damaged<S: Storage>(storage: &S, segment: &Segment, at: u64, defect: Defect) -> JournalError {
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
    corrupt(storage, segment, at, what, expected, found)
}

fn wrong_lsn<S: Storage>(storage: &S, segment: &Segment, at: u64, expected: Lsn, found: Lsn) -> JournalError {
    corrupt(storage, segment, at, "the number of a record", expected.0.to_string(), found.0.to_string())
}

fn corrupt<S: Storage>(
    storage: &S,
    segment: &Segment,
    at: u64,
    what: &'static str,
    expected: String,
    found: String,
) -> JournalError {
    let problem = Problem::Corrupt { what, expected: expected.into(), found: found.into() };
    JournalError::new("read", storage.describe(&segment.name), problem).at(at)
}
