//! Blocks and group commit: what is appended while a block syncs becomes the next block.
//!
//! Decides what is written where and when it counts as durable. Does no I/O: `commit` yields one operation at a time
//! and `completed` takes its outcome.
//!
//! A block is written and synced (`flight`), then the durable mark moves. The same steps put the header of a new segment
//! in place, then at the end of the old one a block that names it, then its first block: so a segment that has blocks
//! cannot disappear unseen. Because there is one flight, none is submitted before its predecessor's sync returned (I3).
//!
//! A record is copied once into the block being built, where its CRC is taken; the block is copied once more when it
//! is submitted, so that its records can be read back while the reactor has the buffer.

use std::collections::VecDeque;

use super::checkpoint::Head;
use super::encode;
use super::error::{JournalError, Problem};
use super::flight::{Flight, Refused};
use super::format::{self, BLOCK_HEADER_BYTES, BlockHeader, Kind, PAGE_BYTES, SegmentHeader};
use super::pool::Pool;
use super::segment::Segment;
use super::storage::Storage;
use super::{Io, IoDone, Options, Statistics};
use crate::ids::{Lsn, SessionKey, ShardId};
use crate::limits;
use crate::reactor::File;
use crate::record::Record;
use crate::time::Nanos;

/// Buffers kept for the next blocks: one being built, one in flight, one with the reactor.
const SPARE_BUFFERS_MAX: usize = 3;

/// Records that will be one block.
#[derive(Debug, Default)]
struct Block {
    /// Empty, or room for the header and the records' frames.
    bytes: Vec<u8>,
    first_lsn: Lsn,
    records: u32,
}

impl Block {
    fn record_bytes(&self) -> u32 {
        let bytes = self.bytes.len().saturating_sub(BLOCK_HEADER_BYTES);
        u32::try_from(bytes).expect("a block fits a segment, and a segment's size fits 32 bits")
    }

    fn extent(&self) -> usize {
        format::extent(self.record_bytes())
    }

    fn holds(&self, lsn: Lsn) -> bool {
        lsn >= self.first_lsn && lsn.0 - self.first_lsn.0 < u64::from(self.records)
    }
}

/// What is on its way to the disk.
#[derive(Debug)]
enum Cargo {
    /// The header of a segment that is taken into use, and what is then to be written at the end of the one before.
    Header { segment: Box<Segment>, closing: Option<Vec<u8>> },
    /// That block.
    Closing { segment: Box<Segment> },
    /// A block at the end of the open segment. `bytes` is the whole of it, `record_bytes` of that are records.
    Block { block: Block, record_bytes: u32, oldest_live: Lsn },
}

/// Records below `oldest_live` are dead, because of records up to `after`: an acknowledgement, or a copy. So a block may
/// say so only if it ends there or later. (It would also be wrong to release numbers that a crash gives out again.)
#[derive(Clone, Copy, Debug)]
struct Release {
    oldest_live: Lsn,
    after: Lsn,
}

/// What recovery knows of the log's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    pub last_lsn: Lsn,
    pub next_block: u64,
    pub previous_crc: u32,
    pub oldest_live: Lsn,
    /// No block follows the last one that has records.
    pub uncovered: bool,
}

/// The end of the log.
#[derive(Debug)]
pub(super) struct Writer {
    shard: ShardId,
    shards: u16,
    record_bytes_max: usize,
    block_bytes_max: usize,
    /// Full, waiting for their turn; oldest first.
    waiting: VecDeque<Block>,
    building: Block,
    flight: Option<Flight<Cargo>>,
    /// A segment whose header is durable, and the block that names it.
    closing: Option<(Box<Segment>, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    last_lsn: Lsn,
    durable: Lsn,
    next_block: u64,
    previous_crc: u32,
    /// Asked for and not yet in a block: the first and the latest.
    releases: VecDeque<Release>,
    /// In the latest block.
    oldest_live: Lsn,
    /// In a durable block.
    oldest_live_durable: Lsn,
    uncovered: bool,
    witness_now: bool,
    idle_since: Nanos,
    failed: bool,
}

impl Writer {
    pub fn new(options: &Options, end: End, now: Nanos) -> Writer {
        let capacity = |bytes: u64| {
            usize::try_from(bytes).expect("a segment's size fits 32 bits")
                - 2 * PAGE_BYTES
                - BLOCK_HEADER_BYTES
        };
        let record_bytes_max = capacity(options.segment_bytes);
        Writer {
            shard: options.shard,
            shards: options.shards,
            record_bytes_max,
            block_bytes_max: limits::BLOCK_BYTES_MAX.min(capacity(options.segment_bytes_first)),
            waiting: VecDeque::new(),
            building: Block::default(),
            flight: None,
            closing: None,
            spare: Vec::new(),
            last_lsn: end.last_lsn,
            durable: end.last_lsn,
            next_block: end.next_block,
            previous_crc: end.previous_crc,
            releases: VecDeque::new(),
            oldest_live: end.oldest_live,
            oldest_live_durable: end.oldest_live,
            uncovered: end.uncovered,
            witness_now: false,
            idle_since: now,
            failed: false,
        }
    }

    pub fn last_lsn(&self) -> Lsn {
        self.last_lsn
    }

    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// Bytes of records in a block at most, but for a single larger one.
    pub fn block_bytes_max(&self) -> usize {
        self.block_bytes_max
    }

    pub fn record_bytes_max(&self) -> usize {
        self.record_bytes_max
    }

    /// Returns the bytes that the record takes.
    pub fn append(&mut self, lsn: Lsn, record: &Record<'_>) -> usize {
        assert!(lsn == self.last_lsn.next(), "I13: record {} after {}", lsn.0, self.last_lsn.0);
        if self.building.records == 0 {
            self.begin_block(lsn);
        }
        let start = self.building.bytes.len();
        encode::encode(lsn, record, &mut self.building.bytes);
        let bytes = self.building.bytes.len() - start;
        assert!(bytes <= self.record_bytes_max, "a record of {bytes} bytes does not fit a segment");
        self.last_lsn = lsn;
        if self.building.records > 0 && start + bytes - BLOCK_HEADER_BYTES > self.block_bytes_max {
            self.split_block(start, lsn);
        }
        self.building.records += 1;
        bytes
    }

    fn begin_block(&mut self, first_lsn: Lsn) {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.resize(BLOCK_HEADER_BYTES, 0);
        self.building = Block { bytes, first_lsn, records: 0 };
    }

    /// The record that begins at `start` did not fit any more: it begins the next block.
    fn split_block(&mut self, start: usize, lsn: Lsn) {
        let mut full = std::mem::take(&mut self.building);
        self.begin_block(lsn);
        self.building.bytes.extend_from_slice(&full.bytes[start..]);
        full.bytes.truncate(start);
        self.waiting.push_back(full);
    }

    pub fn pending_bytes(&self) -> usize {
        let flight = match &self.flight {
            Some(Flight { cargo: Cargo::Block { record_bytes, .. }, .. }) => *record_bytes as usize,
            _ => 0,
        };
        let waiting: usize = self.waiting.iter().map(|block| block.record_bytes() as usize).sum();
        flight + waiting + self.building.record_bytes() as usize
    }

    pub fn witness_now(&mut self) {
        // With nothing to cover, now or when what is pending has landed, there is nothing to ask for.
        self.witness_now = self.uncovered || self.flight.is_some() || !self.is_empty();
    }

    pub fn release(&mut self, oldest_live: Lsn) {
        assert!(oldest_live <= self.last_lsn.next(), "what was not written cannot be released");
        let known = self.releases.back().map_or(self.oldest_live, |release| release.oldest_live);
        if oldest_live <= known {
            return;
        }
        // The first stays, so that under load, with blocks waiting, the end is not always one block away.
        self.releases.truncate(1);
        self.releases.push_back(Release { oldest_live, after: self.last_lsn });
    }

    /// The frames of the block in memory that holds that record.
    pub fn in_memory(&self, lsn: Lsn) -> Option<&[u8]> {
        if let Some(Flight { cargo: Cargo::Block { block, record_bytes, .. }, .. }) = &self.flight
            && block.holds(lsn)
        {
            return Some(&block.bytes[BLOCK_HEADER_BYTES..][..*record_bytes as usize]);
        }
        let index = self.waiting.partition_point(|block| block.first_lsn <= lsn);
        let block = index.checked_sub(1).and_then(|index| self.waiting.get(index));
        [block, Some(&self.building)]
            .into_iter()
            .flatten()
            .find(|block| block.holds(lsn))
            .map(|block| &block.bytes[BLOCK_HEADER_BYTES..])
    }

    /// Size of the block that waits to be placed, or of a witness.
    pub fn block_bytes_wanted(&self) -> u64 {
        self.waiting.front().unwrap_or(&self.building).extent() as u64
    }

    fn wants_witness(&self, pool: &Pool) -> bool {
        let frees = self.releases.back().is_some_and(|release| pool.would_free(release.oldest_live));
        self.waiting.is_empty() && self.building.records == 0 && (self.uncovered || frees)
    }

    pub fn next_deadline(&self, pool: &Pool) -> Option<Nanos> {
        let due = !self.failed && self.flight.is_none() && self.wants_witness(pool);
        (due && pool.has_room(PAGE_BYTES as u64)).then(|| self.witness_due())
    }

    fn witness_due(&self) -> Nanos {
        if self.witness_now { self.idle_since } else { self.idle_since.plus_ms(limits::WITNESS_MS) }
    }

    pub fn commit(
        &mut self,
        now: Nanos,
        pool: &mut Pool,
        hash_key: &[u8; 16],
        statistics: &mut Statistics,
    ) -> Option<Io> {
        if self.failed {
            return None;
        }
        if let Some(flight) = &mut self.flight {
            return flight.next();
        }
        if let Some((segment, block)) = self.closing.take() {
            return Some(self.submit_closing(segment, &block, pool));
        }
        let witness = self.wants_witness(pool);
        let due = if witness { now >= self.witness_due() } else { !self.is_empty() };
        if !due {
            return None;
        }
        let bytes = self.block_bytes_wanted();
        match pool.open() {
            Some(open) if open.room() >= bytes => Some(self.submit_block(pool, hash_key, statistics)),
            _ => self.submit_header(bytes, pool, hash_key, statistics),
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.building.records == 0
    }

    /// `None` if there is no segment to take: everything waits until one was made or freed.
    fn submit_header(
        &mut self,
        block_bytes: u64,
        pool: &mut Pool,
        hash_key: &[u8; 16],
        statistics: &mut Statistics,
    ) -> Option<Io> {
        let sequence = pool.open().map_or(1, |open| open.header.sequence + 1);
        let (vacant, epoch) = pool.take(block_bytes, Kind::Log, sequence)?;
        let closing = self.closing_block(pool, epoch, hash_key);
        if closing.is_some() {
            self.next_block += 1;
            statistics.blocks += 1;
        }
        let header = SegmentHeader {
            kind: Kind::Log,
            shard: self.shard,
            shards: self.shards,
            previous_crc: self.previous_crc,
            sequence,
            epoch,
            bytes: vacant.bytes,
            first_block: self.next_block,
            first_lsn: self.waiting.front().unwrap_or(&self.building).first_lsn_or(self.last_lsn.next()),
            oldest_live: self.oldest_live_durable,
            hash_key: *hash_key,
        };
        statistics.segments_used += 1;
        let segment = Segment::new(vacant.file, vacant.name, header);
        let file = segment.file;
        let buffer = self.copy_for_reactor(&header.encode());
        let segment = Box::new(segment);
        Some(self.take_off(file, 0, buffer, Cargo::Header { segment, closing }))
    }

    /// The last block of the open segment: no records, and the epoch of the next.
    fn closing_block(&mut self, pool: &Pool, next_epoch: u64, hash_key: &[u8; 16]) -> Option<Vec<u8>> {
        let open = pool.open().filter(|open| open.can_be_closed())?;
        let mut block = self.spare.pop().unwrap_or_default();
        block.clear();
        block.resize(PAGE_BYTES, 0);
        let header = BlockHeader { next_epoch, ..self.block_header(open, self.durable.next()) };
        self.previous_crc = header.seal(&mut block, hash_key);
        Some(block)
    }

    fn submit_closing(&mut self, segment: Box<Segment>, block: &[u8], pool: &Pool) -> Io {
        let open = pool.open().expect("a segment is closed because another follows");
        let buffer = self.copy_for_reactor(block);
        self.take_off(open.file, open.end, buffer, Cargo::Closing { segment })
    }

    /// Of the next block of that segment, with nothing in it.
    fn block_header(&self, segment: &Segment, first_lsn: Lsn) -> BlockHeader {
        BlockHeader {
            epoch: segment.header.epoch,
            sequence: segment.header.sequence,
            number: self.next_block,
            first_lsn,
            durable: self.durable,
            oldest_live: self.oldest_live,
            record_bytes: 0,
            record_count: 0,
            previous_crc: self.previous_crc,
            kind: Kind::Log as u32,
            next_epoch: 0,
        }
    }

    fn submit_block(&mut self, pool: &mut Pool, hash_key: &[u8; 16], statistics: &mut Statistics) -> Io {
        let mut block = match self.waiting.pop_front() {
            Some(block) => block,
            None => std::mem::take(&mut self.building),
        };
        if block.records == 0 {
            // A witness: nothing but a header.
            block.first_lsn = self.last_lsn.next();
            block.bytes = self.spare.pop().unwrap_or_default();
            block.bytes.clear();
            block.bytes.resize(BLOCK_HEADER_BYTES, 0);
            statistics.witness_blocks += 1;
            self.witness_now = false;
        }
        statistics.blocks += 1;
        let last_lsn = Lsn(block.first_lsn.0 + u64::from(block.records) - 1);
        while let Some(release) = self.releases.front().filter(|release| release.after <= last_lsn) {
            self.oldest_live = release.oldest_live;
            self.releases.pop_front();
        }
        let record_bytes = block.record_bytes();
        block.bytes.resize(format::extent(record_bytes), 0);
        let open = pool.open_mut();
        let record_count = block.records;
        let header = BlockHeader { record_bytes, record_count, ..self.block_header(open, block.first_lsn) };
        assert!(block.first_lsn == self.durable.next(), "I3: the block before this one is durable");
        self.previous_crc = header.seal(&mut block.bytes, hash_key);
        self.next_block += 1;
        let (file, offset) = (open.file, open.end);
        let buffer = self.copy_for_reactor(&block.bytes);
        let cargo = Cargo::Block { block, record_bytes, oldest_live: self.oldest_live };
        self.take_off(file, offset, buffer, cargo)
    }

    fn take_off(&mut self, file: File, offset: u64, buffer: Vec<u8>, cargo: Cargo) -> Io {
        assert!(self.flight.is_none(), "I3: one write or sync is in flight");
        let (flight, io) = Flight::start(file, offset, buffer, cargo);
        self.flight = Some(flight);
        io
    }

    fn copy_for_reactor(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        buffer
    }

    fn keep_buffer(&mut self, buffer: Vec<u8>) {
        // One that grew for a single large record goes back to the allocator.
        if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= 2 * limits::BLOCK_BYTES_MAX {
            self.spare.push(buffer);
        }
    }

    pub fn completed<S: Storage>(
        &mut self,
        done: IoDone,
        now: Nanos,
        pool: &mut Pool,
        storage: &S,
    ) -> Result<Option<Lsn>, JournalError> {
        assert!(!self.failed, "I4: after an I/O error nothing becomes durable");
        let flight = self.flight.as_mut().expect("a completion is of the operation in flight");
        let mut buffers = Vec::new();
        let landed = flight.completed(done, &mut buffers);
        buffers.into_iter().for_each(|buffer| self.keep_buffer(buffer));
        if !landed.map_err(|refused| self.fail(refused, pool, storage))? {
            return Ok(None);
        }
        let flight = self.flight.take().expect("it is there, as above");
        Ok(self.land(flight.cargo, now, pool))
    }

    /// What was in flight is durable.
    fn land(&mut self, cargo: Cargo, now: Nanos, pool: &mut Pool) -> Option<Lsn> {
        match cargo {
            Cargo::Header { segment, closing: Some(block) } => {
                self.closing = Some((segment, block));
                None
            }
            Cargo::Header { segment, closing: None } => {
                pool.push(*segment);
                None
            }
            Cargo::Closing { segment } => {
                let first_lsn = segment.header.first_lsn;
                pool.open_mut().add_block(first_lsn, 0, PAGE_BYTES, self.previous_crc);
                self.uncovered = false;
                pool.push(*segment);
                None
            }
            Cargo::Block { block, oldest_live, .. } => {
                pool.open_mut().add_block(
                    block.first_lsn,
                    block.records,
                    block.bytes.len(),
                    self.previous_crc,
                );
                self.durable = Lsn(block.first_lsn.0 + u64::from(block.records) - 1);
                self.uncovered = block.records > 0;
                self.idle_since = now;
                self.oldest_live_durable = oldest_live;
                pool.free_below(oldest_live);
                self.keep_buffer(block.bytes);
                (block.records > 0).then_some(self.durable)
            }
        }
    }

    fn fail<S: Storage>(&mut self, refused: Refused, pool: &Pool, storage: &S) -> JournalError {
        self.failed = true;
        let flight = self.flight.as_ref().expect("what failed is in flight");
        let name = match &flight.cargo {
            Cargo::Header { segment, .. } => &*segment.name,
            Cargo::Closing { .. } | Cargo::Block { .. } => pool.open().map_or("", |open| &*open.name),
        };
        let Refused { operation, errno } = refused;
        JournalError::new(operation, storage.describe(name), Problem::Kernel(errno)).at(flight.offset())
    }

    /// Whether `stop` was called, or a write or sync has failed.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Something else of the journal could not be written: nothing becomes durable any more (I4).
    pub fn stop(&mut self) {
        self.failed = true;
    }

    /// Where the log goes on behind what is durable. Nothing of it is in flight.
    pub fn position(&self, pool: &Pool, session_key_max: SessionKey) -> Head {
        assert!(self.flight.is_none(), "a block in flight is neither before nor behind");
        let open = pool.open().expect("a journal has an open segment");
        Head {
            last_lsn: self.durable,
            next_block: self.next_block,
            previous_crc: self.previous_crc,
            sequence: open.header.sequence,
            offset: open.end,
            session_key_max,
        }
    }

    /// What is below is dead, by a durable block or header.
    pub fn released(&self) -> Lsn {
        self.oldest_live_durable
    }

    /// Whether a block or header is in flight.
    pub fn in_flight(&self) -> bool {
        self.flight.is_some()
    }
}

impl Block {
    fn first_lsn_or(&self, otherwise: Lsn) -> Lsn {
        if self.records > 0 { self.first_lsn } else { otherwise }
    }
}
