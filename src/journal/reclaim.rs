//! Giving segments up before all of their records are dead, and the checkpoints that make it durable.
//!
//! Decides when to write a checkpoint, whose survivors to copy, and at which pace. `copy` does the copying, `checkpoint`
//! says what a checkpoint is.
//!
//! 1. *Free at zero.* A sealed segment with nothing live is given up by the next checkpoint that leaves it out, wherever
//!    in the log it lies. (At the log's old end no checkpoint is needed: blocks say `oldest live`.)
//! 2. *Copy forward.* When free segments run low, the records that are live in the segment with the least of them are
//!    copied, with their numbers, into segments of kept records, one for each class of time to live; then it is given
//!    up like one with nothing live. Only segments of which at most half is live, so no more than was appended is ever
//!    copied: write amplification stays below 2, however long it goes on. One that lost a good part in the last 15 s is
//!    left alone: it goes on dying by itself.
//! 3. *Bounded tail.* A checkpoint is also written when the log behind the last one has grown to `CHECKPOINT_TAIL_BYTES`,
//!    or four times what the last one took.
//!
//! An idle shard seals nothing: the open segment is where its next record goes, and until then nobody else could have that
//! room. So at most one segment per shard is kept for a few records, however long they live.
//!
//! Survivors are durable in their new place before the checkpoint that gives up the old one is begun (I9), and a segment is
//! free only when that is durable (I2). Until then both places have the record, and either may be read.
//!
//! Pace: while free segments are low, every other block written is a copy; a copied block is no longer than an appended
//! one, so what is gained is at least what is appended.

use super::checkpoint::{Encoder, Listed};
use super::copy::{Batch, Copy};
use super::error::{JournalError, Problem};
use super::flight::Flight;
use super::format::{self, BLOCK_HEADER_BYTES, BlockHeader, Kind, PAGE_BYTES, SegmentHeader};
use super::kept::{Kept, Place};
use super::pool::{Checkpoints, Pool};
use super::storage::Storage;
use super::usage::Usages;
use super::writer::Writer;
use super::{Io, IoDone, Options, Statistics};
use crate::ids::{Lsn, ShardId};
use crate::limits;
use crate::live::LiveSet;
use crate::time::{Nanos, Now};

/// A segment: its kind and sequence.
pub(super) type Id = (Kind, u64);

/// What reclaim looks at and acts on.
pub(super) struct World<'a, S> {
    pub pool: &'a mut Pool,
    pub writer: &'a Writer,
    pub storage: &'a S,
    pub live: &'a LiveSet,
    pub now: Now,
    pub hash_key: &'a [u8; 16],
    pub statistics: &'a mut Statistics,
}

/// What is going on.
#[derive(Debug)]
enum Work {
    Idle,
    Copy(Box<Copy>),
    Checkpoint(Box<Checkpoint>),
}

/// A checkpoint being written.
#[derive(Debug)]
struct Checkpoint {
    encoder: Encoder,
    /// Segments that it leaves out.
    give_up: Vec<Id>,
    /// The segment that it begins in, once that is known.
    first_sequence: Option<u64>,
    /// Encoded, and not yet placed.
    frames: Vec<u8>,
    bytes: u64,
}

/// What is on its way to the disk.
#[derive(Debug)]
enum Cargo {
    KeptHeader { kept: Box<Kept>, class: usize },
    CheckpointHeader(Box<Checkpoints>),
    Kept { index: usize, crc: u32, bytes: usize, places: Vec<Place> },
    Checkpoint { bytes: usize },
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Reclaim {
    shard: ShardId,
    shards: u16,
    block_bytes_max: usize,
    reserve: usize,
    tail_bytes_max: u64,
    quiet_ms: u64,
    work: Work,
    flight: Option<Flight<Cargo>>,
    usage: Usages,
    /// Copied, durably, and not yet given up.
    copied: Vec<Id>,
    /// Index in the pool of the segment that each class of records is copied into, by sequence.
    targets: [Option<u64>; Copy::CLASSES],
    next_kept: u64,
    next_checkpoint: u64,
    /// Number and predecessor's CRC of the next checkpoint block.
    next_block: u64,
    previous_crc: u32,
    /// The present segment of checkpoints was begun in this life.
    checkpoints_open: bool,
    /// Where the log behind the last durable checkpoint begins: sequence and offset.
    tail: (u64, u64),
    last_checkpoint_bytes: u64,
    tail_is_long: bool,
    /// Nothing is worth copying now.
    exhausted: bool,
    /// There was no segment for a checkpoint.
    blocked: bool,
}

/// What recovery knows of earlier work.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    /// Highest sequence of a segment of kept records, and of checkpoints.
    pub kept: u64,
    pub checkpoints: u64,
    /// The log behind the checkpoint in use.
    pub tail: (u64, u64),
}

impl Reclaim {
    pub fn new(options: &Options, block_bytes_max: usize, before: Before) -> Reclaim {
        Reclaim {
            shard: options.shard,
            shards: options.shards,
            block_bytes_max,
            reserve: options.reserve,
            tail_bytes_max: options.checkpoint_tail_bytes,
            quiet_ms: options.reclaim_quiet_ms,
            work: Work::Idle,
            flight: None,
            usage: Usages::default(),
            copied: Vec::new(),
            targets: [None; Copy::CLASSES],
            next_kept: before.kept + 1,
            next_checkpoint: before.checkpoints + 1,
            next_block: 1,
            previous_crc: 0,
            checkpoints_open: false,
            tail: before.tail,
            last_checkpoint_bytes: 0,
            tail_is_long: false,
            exhausted: true,
            blocked: false,
        }
    }

    /// Look how much is live in each segment. Once a second or so.
    pub fn observe(&mut self, pool: &Pool, live: &LiveSet, now: Nanos) {
        self.usage.observe(pool, live, now);
        self.exhausted = false;
        self.blocked = false;
        let long = self.tail_bytes_max.max(4 * self.last_checkpoint_bytes);
        self.tail_is_long = self.tail_bytes(pool) >= long;
    }

    /// Bytes of the log that a start would have to replay whole.
    pub fn tail_bytes(&self, pool: &Pool) -> u64 {
        let (sequence, offset) = self.tail;
        let bytes = |from: u64, end: u64| end.saturating_sub(from.max(PAGE_BYTES as u64));
        pool.live()
            .iter()
            .filter(|segment| segment.header.sequence >= sequence)
            .map(|segment| bytes(if segment.header.sequence == sequence { offset } else { 0 }, segment.end))
            .sum()
    }

    /// Whether an operation is in flight.
    pub fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// Free segments are few: copies take turns with what is appended.
    pub fn is_urgent(&self, pool: &Pool) -> bool {
        // What a backup still copies is as good as free: copying survivors would gain nothing sooner.
        pool.free_count() + pool.held_count() <= self.reserve + limits::SEGMENTS_AHEAD
    }

    /// Whether growing the pool can wait because segments are about to be freed.
    pub fn has_prospects(&self) -> bool {
        !self.copied.is_empty() || !matches!(self.work, Work::Idle)
    }

    /// Whether `commit` may have something to do though nothing happened.
    pub fn wants_turn(&self, pool: &Pool, live: &LiveSet, writer: &Writer) -> bool {
        if self.flight.is_some() {
            return false;
        }
        match &self.work {
            Work::Copy(_) => true,
            Work::Checkpoint(checkpoint) => {
                !checkpoint.encoder.awaits_end() || writer.durable() >= checkpoint.encoder.needed
            }
            Work::Idle => self.wants_checkpoint(pool, live) || self.may_copy(pool),
        }
    }

    /// The next operation. None of the journal is in flight.
    pub fn commit<S: Storage>(&mut self, world: &mut World<'_, S>) -> Result<Option<Io>, JournalError> {
        if let Some(flight) = &mut self.flight {
            return Ok(flight.next());
        }
        if matches!(self.work, Work::Idle) {
            self.begin(world);
        }
        match std::mem::replace(&mut self.work, Work::Idle) {
            Work::Idle => Ok(None),
            Work::Copy(copy) => self.go_on_copying(copy, world),
            Work::Checkpoint(checkpoint) => Ok(self.go_on_with(checkpoint, world)),
        }
    }

    fn may_copy(&self, pool: &Pool) -> bool {
        self.usage.some_half_empty() && !self.exhausted && self.is_urgent(pool) && pool.is_roomy()
    }

    fn begin<S: Storage>(&mut self, world: &World<'_, S>) {
        if self.wants_checkpoint(world.pool, world.live) {
            self.begin_checkpoint(world);
        } else if self.may_copy(world.pool) {
            self.begin_copy(world);
        }
    }

    fn wants_checkpoint(&self, pool: &Pool, live: &LiveSet) -> bool {
        // One slot has the last checkpoint, the other takes this one.
        let slot = pool.has_slot() || self.checkpoints_open;
        if self.blocked || !slot || !pool.is_roomy() {
            return false;
        }
        if self.tail_is_long {
            return true;
        }
        let batch =
            self.copied.len() >= limits::COPIES_PER_CHECKPOINT || self.exhausted || pool.free_count() <= 1;
        self.is_urgent(pool)
            && (self.copied.is_empty() || batch)
            && (!self.copied.is_empty() || self.usage.dead(pool, live, &self.copied).next().is_some())
    }

    fn begin_copy<S: Storage>(&mut self, world: &World<'_, S>) {
        // With hardly a free segment left there is no time to wait for one to come to rest.
        let quiet_ms = if world.pool.free_count() <= 1 { 0 } else { self.quiet_ms };
        match self.usage.emptiest(world.pool, &self.copied, quiet_ms, world.now.mono) {
            Some(victim) => self.work = Work::Copy(Box::new(Copy::new(victim))),
            None => self.exhausted = true,
        }
    }

    fn begin_checkpoint<S: Storage>(&mut self, world: &World<'_, S>) {
        let mut give_up: Vec<Id> = self.usage.dead(world.pool, world.live, &self.copied).collect();
        give_up.extend(self.copied.iter().copied());
        let head = world.writer.position(world.pool, world.live.session_key_max());
        let sealed = world.pool.live().len().saturating_sub(1);
        let log = world.pool.live().iter().take(sealed).map(|segment| Listed {
            kind: Kind::Log,
            sequence: segment.header.sequence,
            epoch: segment.header.epoch,
            end: segment.end,
            last_crc: segment.last_crc,
            last_lsn: Lsn(segment.next_lsn.0 - 1),
        });
        let kept = world.pool.kept.iter().map(|kept| Listed {
            kind: Kind::Kept,
            sequence: kept.header.sequence,
            epoch: kept.header.epoch,
            end: kept.end,
            last_crc: kept.last_crc,
            last_lsn: kept.last_lsn(),
        });
        let counts = |one: &Listed| !give_up.contains(&(one.kind, one.sequence));
        let listed: Vec<Listed> = log.chain(kept).filter(counts).collect();
        let encoder = Encoder::new(head, listed);
        let (first_sequence, frames, bytes) = (None, Vec::new(), 0);
        self.work =
            Work::Checkpoint(Box::new(Checkpoint { encoder, give_up, first_sequence, frames, bytes }));
    }

    /// Read on in the victim, or write what was found.
    fn go_on_copying<S: Storage>(
        &mut self,
        mut copy: Box<Copy>,
        world: &mut World<'_, S>,
    ) -> Result<Option<Io>, JournalError> {
        copy.read_on(self.block_bytes_max, world)?;
        let Some((class, bytes)) = copy.next_batch() else {
            if copy.is_read() {
                self.copied.push(copy.victim());
                world.statistics.segments_copied += 1;
            } else {
                self.work = Work::Copy(copy);
            }
            return Ok(None);
        };
        let Some(index) = self.target(class, bytes, world.pool) else {
            let io = self.begin_kept(class, bytes, world);
            // Without a segment to write to it has to be left. What was copied is there twice, which harms nobody.
            self.exhausted |= io.is_none();
            if io.is_some() {
                self.work = Work::Copy(copy);
            }
            return Ok(io);
        };
        let Batch { bytes: mut block, places } = copy.take_batch().expect("just seen");
        self.work = Work::Copy(copy);
        world.statistics.records_copied += places.len() as u64;
        let kept = &world.pool.kept[index];
        let (file, end, number) = (kept.file, kept.end, kept.next_block);
        let first = places.iter().map(|place| place.lsn()).min().unwrap_or_default();
        let count = u32::try_from(places.len()).expect("fewer records than bytes");
        let link = (kept.header, number, kept.last_crc);
        let crc = seal(&mut block, link, first, count, world);
        let places = places.iter().map(|place| Place::new(place.lsn(), end + place.offset())).collect();
        world.statistics.bytes_copied += block.len() as u64;
        let cargo = Cargo::Kept { index, crc, bytes: block.len(), places };
        Ok(Some(self.take_off(file, end, block, cargo)))
    }

    /// The segment that records of that class go to, if it has room.
    fn target(&mut self, class: usize, bytes: u64, pool: &mut Pool) -> Option<usize> {
        let own = self.targets[class];
        let sequences = std::iter::once(own).chain(
            // With hardly a free segment left, classes are mixed.
            self.targets.into_iter().filter(|_| pool.free_count() <= Copy::CLASSES),
        );
        let open: Vec<u64> = sequences.flatten().collect();
        let fits = |kept: &Kept| open.contains(&kept.header.sequence) && kept.room() >= bytes;
        if let Some(index) = pool.kept.iter().position(fits) {
            return Some(index);
        }
        let full = pool.kept.iter_mut().find(|kept| Some(kept.header.sequence) == own);
        full.into_iter().for_each(|kept| kept.sealed = true);
        self.targets[class] = None;
        None
    }

    fn begin_kept<S: Storage>(&mut self, class: usize, bytes: u64, world: &mut World<'_, S>) -> Option<Io> {
        // The last free one is for the checkpoint that gives the victim up, or for the log.
        if world.pool.free_count() < 2 {
            return None;
        }
        let (file, name, header) = self.take(Kind::Kept, self.next_kept, bytes, (1, 0), world)?;
        self.next_kept += 1;
        let kept = Box::new(Kept::new(file, name, header));
        Some(self.take_off(file, 0, header.encode().to_vec(), Cargo::KeptHeader { kept, class }))
    }

    fn take<S: Storage>(
        &mut self,
        kind: Kind,
        sequence: u64,
        block_bytes: u64,
        (first_block, previous_crc): (u64, u32),
        world: &mut World<'_, S>,
    ) -> Option<(crate::reactor::File, Box<str>, SegmentHeader)> {
        let (vacant, epoch) = world.pool.take(block_bytes, kind, sequence)?;
        world.statistics.segments_used += 1;
        let header = SegmentHeader {
            kind,
            shard: self.shard,
            shards: self.shards,
            previous_crc,
            sequence,
            epoch,
            bytes: vacant.bytes,
            first_block,
            first_lsn: world.writer.durable().next(),
            oldest_live: world.writer.released(),
            hash_key: *world.hash_key,
        };
        Some((vacant.file, vacant.name, header))
    }

    /// Encode a block and write it.
    fn go_on_with<S: Storage>(
        &mut self,
        mut checkpoint: Box<Checkpoint>,
        world: &mut World<'_, S>,
    ) -> Option<Io> {
        let encoder = &mut checkpoint.encoder;
        if checkpoint.frames.is_empty() {
            checkpoint.frames.resize(BLOCK_HEADER_BYTES, 0);
        }
        if checkpoint.frames.len() == BLOCK_HEADER_BYTES {
            if !encoder.awaits_end() || world.writer.durable() >= encoder.needed {
                encoder.block(
                    world.live,
                    world.writer.last_lsn(),
                    self.block_bytes_max,
                    &mut checkpoint.frames,
                );
            }
            if checkpoint.frames.len() == BLOCK_HEADER_BYTES {
                self.work = Work::Checkpoint(checkpoint);
                return None;
            }
        }
        let record_bytes = u32::try_from(checkpoint.frames.len() - BLOCK_HEADER_BYTES)
            .expect("a block fits a segment, and a segment's size fits 32 bits");
        let bytes = format::extent(record_bytes) as u64;
        let room = |open: &Checkpoints| self.checkpoints_open && open.header.bytes - open.end >= bytes;
        let Some(open) = world.pool.checkpoints.back().filter(|open| room(open)) else {
            let link = (self.next_block, self.previous_crc);
            let taken = self.take(Kind::Checkpoint, self.next_checkpoint, bytes, link, world);
            let Some((file, name, header)) = taken else {
                // Given up for now: what was written of it has no end.
                self.blocked = true;
                return None;
            };
            self.work = Work::Checkpoint(checkpoint);
            self.next_checkpoint += 1;
            let open = Box::new(Checkpoints { file, name, header, end: PAGE_BYTES as u64 });
            return Some(self.take_off(file, 0, header.encode().to_vec(), Cargo::CheckpointHeader(open)));
        };
        let (file, end, header) = (open.file, open.end, open.header);
        let mut block = std::mem::take(&mut checkpoint.frames);
        checkpoint.first_sequence.get_or_insert(header.sequence);
        checkpoint.bytes += bytes;
        let last_lsn = checkpoint.encoder.head().last_lsn;
        self.work = Work::Checkpoint(checkpoint);
        let link = (header, self.next_block, self.previous_crc);
        self.previous_crc = seal(&mut block, link, last_lsn, 0, world);
        self.next_block += 1;
        world.statistics.checkpoint_bytes += bytes;
        Some(self.take_off(file, end, block, Cargo::Checkpoint { bytes: bytes as usize }))
    }

    fn take_off(&mut self, file: crate::reactor::File, offset: u64, buffer: Vec<u8>, cargo: Cargo) -> Io {
        assert!(self.flight.is_none(), "I3: one write or sync is in flight");
        let (flight, io) = Flight::start(file, offset, buffer, cargo);
        self.flight = Some(flight);
        io
    }

    /// Take the outcome of what was in flight.
    pub fn completed<S: Storage>(
        &mut self,
        done: IoDone,
        world: &mut World<'_, S>,
    ) -> Result<(), JournalError> {
        let flight = self.flight.as_mut().expect("a completion is of the operation in flight");
        // Copies and checkpoints are rare: their buffers go back to the allocator.
        let landed = flight.completed(done, &mut Vec::new()).map_err(|refused| {
            let name = match &flight.cargo {
                Cargo::KeptHeader { kept, .. } => &*kept.name,
                Cargo::CheckpointHeader(open) => &*open.name,
                Cargo::Kept { index, .. } => &*world.pool.kept[*index].name,
                Cargo::Checkpoint { .. } => world.pool.checkpoints.back().map_or("", |open| &*open.name),
            };
            JournalError::new(refused.operation, world.storage.describe(name), Problem::Kernel(refused.errno))
                .at(flight.offset())
        })?;
        if landed {
            let cargo = self.flight.take().expect("it is there, as above").cargo;
            self.land(cargo, world);
        }
        Ok(())
    }

    fn land<S: Storage>(&mut self, cargo: Cargo, world: &mut World<'_, S>) {
        match cargo {
            Cargo::KeptHeader { kept, class } => {
                self.targets[class] = Some(kept.header.sequence);
                world.pool.kept.push(*kept);
            }
            Cargo::CheckpointHeader(open) => {
                self.checkpoints_open = true;
                world.pool.checkpoints.push_back(*open);
            }
            Cargo::Kept { index, crc, bytes, places } => {
                world.pool.kept[index].add_block(crc, bytes, &places);
            }
            Cargo::Checkpoint { bytes } => {
                let open = world.pool.checkpoints.back_mut().expect("it was written into it");
                open.end += bytes as u64;
                self.finish_checkpoint(world);
            }
        }
    }

    /// If its end is durable, what it leaves out is free.
    fn finish_checkpoint<S: Storage>(&mut self, world: &mut World<'_, S>) {
        let Work::Checkpoint(checkpoint) = &self.work else { unreachable!("a block of a checkpoint landed") };
        if !checkpoint.encoder.is_done() {
            return;
        }
        let head = checkpoint.encoder.head();
        self.tail = (head.sequence, head.offset);
        self.tail_is_long = false;
        self.last_checkpoint_bytes = checkpoint.bytes;
        world.statistics.checkpoints += 1;
        let of_kind = |wanted: Kind| -> Vec<u64> {
            let given_up = checkpoint.give_up.iter().filter(|(kind, _)| *kind == wanted);
            given_up.map(|(_, sequence)| *sequence).collect()
        };
        let (log, kept) = (of_kind(Kind::Log), of_kind(Kind::Kept));
        world.pool.free_given_up(&log);
        world.pool.free_kept(|one| kept.contains(&one.header.sequence));
        let first = checkpoint.first_sequence.expect("it has a block");
        world.pool.free_checkpoints(first);
        world.pool.keep_slot();
        self.copied.retain(|id| !checkpoint.give_up.contains(id));
        self.usage.forget(&checkpoint.give_up);
        self.work = Work::Idle;
    }
}

/// Make frames a block of that segment, with that number, behind that CRC.
fn seal<S: Storage>(
    block: &mut Vec<u8>,
    (segment, number, previous_crc): (SegmentHeader, u64, u32),
    first_lsn: Lsn,
    record_count: u32,
    world: &World<'_, S>,
) -> u32 {
    let record_bytes = u32::try_from(block.len() - BLOCK_HEADER_BYTES)
        .expect("a block fits a segment, and a segment's size fits 32 bits");
    block.resize(format::extent(record_bytes), 0);
    let header = BlockHeader {
        epoch: segment.epoch,
        sequence: segment.sequence,
        number,
        first_lsn,
        durable: world.writer.durable(),
        oldest_live: world.writer.released(),
        record_bytes,
        record_count,
        previous_crc,
        kind: segment.kind as u32,
        next_epoch: 0,
    };
    header.seal(block, world.hash_key)
}
