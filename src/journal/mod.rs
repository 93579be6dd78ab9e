//! The append log of one shard: everything that must survive, in one sequence.
//!
//! The journal gives records places and says when they are durable. What the records mean is the broker's business;
//! when to call is the shard's. Appending and committing never touch the kernel: `commit` yields the next [`Io`], the
//! shard submits it to its reactor and hands the outcome to `completed`. Opening, reading back and growing go through
//! [`storage::Storage`].
//!
//! - `format`, `encode`, `decode`: bytes
//! - `segment`: the pool of files, what is live in each, growth
//! - `writer`: blocks and group commit
//! - `reader`: replay, and single records back
//! - `recover`, `scan`: opening, torn tail versus corruption
//! - `directory`: the data directory above the shards, with its `meta` file
//!
//! # Shape
//!
//! The log is a sequence of commit blocks, numbered from 1. Blocks lie back to back in segments, files that were
//! written full of zeros once and are recycled for ever; segments are numbered by `sequence`. A segment that is used
//! again gets a new sequence and a new random epoch. A log with the live segments 7, 8, 9:
//!
//! ```text
//! segment-000003  [header 7 | block 90 | block 91 | .. | block 99 | too short for the next ]
//! segment-000001  [header 8 | block 100 | ..                                     | block 130]
//! segment-000004  [header 9 | block 131 | block 132 | zeros, or bytes of an older epoch     ]
//! segment-000002  [header 6, dead: every record in it is below the oldest live LSN          ]
//! ```
//!
//! # Valid if and only if
//!
//! A **segment** is part of the log iff its header's CRC is right and its sequence is in the run without gaps that
//! ends with the highest. The run must reach down to the oldest live LSN.
//!
//! A **block** is valid iff it is complete within its segment, its CRC (seeded with hash key and epoch, covering
//! header, records and padding) is right, epoch and sequence are its segment's, and it is linked: its number, its
//! first LSN and the CRC of its predecessor are the ones that follow from the block before, or from the segment's
//! header for the first. So a valid block proves everything before it in the log to be there as written.
//!
//! A **record** is valid iff its block is; its own CRC is for reading it back without its block.
//!
//! # Why an acknowledged record survives
//!
//! `durable` moves to a block's last LSN only when the sync that was submitted after that block's write completed has
//! itself completed. At that time the block's predecessor was durable (one block in flight, I3), and by induction
//! every block before, and the headers of their segments (written and synced before a first block is submitted). A
//! crash can therefore damage only the one block that was in flight, or the one header, neither of which was
//! acknowledged. Recovery cuts exactly there: at the first block that is not valid. If a later page of the same segment
//! claims to begin a block of the same epoch, be it torn, or a later segment has a header, or a block's durable LSN covers
//! it, the invalid one had been durable, and the disk lost it: that is corruption, and the journal refuses to open instead
//! of dropping acknowledged records in silence.
//!
//! What cannot be told apart is the last block with records, damaged at rest before anything was written behind it; an
//! empty *witness* block, written when 100 ms pass without a record, limits that to the last 100 ms of load. Every other
//! flipped bit and every zeroed or older sector or page is seen, or touches nothing that was acknowledged
//! (`tests/journal_crash/exhaustive.rs` tries them all). Nor is it seen when the newest segment is gone as a whole, file
//! and all, because nothing before it names it.
//!
//! A dead segment is written again only after a block that says so (`oldest live LSN` in its header) is durable, so
//! recovery never needs what was overwritten (I2). Nothing of its former life can be taken for a block of the new one:
//! epoch and sequence differ (I8).
//!
//! # Invariants
//!
//! | | | kept by |
//! |---|---|---|
//! | I2 | durable bytes are not rewritten before their release is durable | `writer` frees segments only on completion of the block that records it; asserted where a write is made |
//! | I3 | a block is not submitted before its predecessor's sync returned | one `Flight` in `writer`; release assert |
//! | I4 | after a failed write or sync nothing becomes durable | `writer::failed`; release assert in `completed` |
//! | I5 | recovery acts only on bytes it has synced | `recover` syncs every file before its first read |
//! | I8 | epochs differ per reuse | release assert in `segment` |
//! | I12 | free segments ≥ reserve, or `reserve_reached` | `segment` |
//! | I13 | LSNs increase by one | release assert in `append`; the block chain at recovery |
//!
//! I1, I6, I10 and I11 are the broker's. I7 and I9 (live bytes, copying survivors forward) come with reclaim of
//! segments that are only partly dead; until then a segment is freed when all of it is dead, oldest first, and block
//! kinds and header zeros are the room for footers and checkpoints.
//!
//! # Failure
//!
//! An error from `completed` is final: the caller logs it with its cure and stops the process before any further
//! acknowledgement leaves. A failed sync is never tried again: the kernel may have dropped the pages it could not
//! write and would report success. An error while *growing* loses nothing and is retried; with no room at all, what
//! was appended waits in memory and `durable` stands still until the pool grew, because a release needs room for the
//! block that records it. The reserve is there so that this is not reached. A block that cannot be read back is final as
//! well: a message that was promised cannot be delivered. Sealed segments are read through a map, whose pages are brought
//! into memory by a call that may fail before they are touched, so that this is an error with its place and not SIGBUS.

mod decode;
pub mod directory;
mod encode;
mod error;
mod format;
mod reader;
mod recover;
mod scan;
mod segment;
pub mod storage;
mod writer;

pub use error::{JournalError, Problem};
pub use reader::Replayed;
pub use recover::open;
pub use segment::{GrowRequest, Grown};
pub use storage::Storage;

use crate::ids::{Lsn, ShardId};
use crate::limits;
use crate::reactor::{Errno, File};
use crate::record::Record;
use crate::time::{Nanos, Now};

/// What a journal is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose journal.
    pub shard: ShardId,
    /// Of how many; must be what is recorded.
    pub shards: u16,
    /// Of the data directory; must be what is recorded.
    pub hash_key: [u8; 16],
    /// There must be a journal: one was begun here before.
    pub was_begun: bool,
    /// Size of segments made from now on: a multiple of 4,096.
    pub segment_bytes: u64,
    /// Size of the segments of a new journal, at most `segment_bytes`.
    pub segment_bytes_first: u64,
    /// How many segments a new journal starts with, at least 1.
    pub segments_first: usize,
    /// How many there may ever be.
    pub segments_max: usize,
    /// Free segments below which, if no more can be made, `reserve_reached` says so.
    pub reserve: usize,
}

impl Options {
    /// The defaults of `limits`.
    pub fn new(shard: ShardId, shards: u16, hash_key: [u8; 16]) -> Options {
        Options {
            shard,
            shards,
            hash_key,
            was_begun: false,
            segment_bytes: limits::SEGMENT_BYTES_DEFAULT,
            segment_bytes_first: limits::SEGMENT_BYTES_FIRST,
            segments_first: limits::SEGMENTS_FIRST,
            segments_max: limits::SEGMENTS_MAX,
            reserve: limits::SEGMENTS_RESERVE,
        }
    }
}

/// An operation on a file, for the reactor. At most one is in flight.
#[derive(Debug)]
pub enum Io {
    /// Write the whole buffer there.
    Write {
        /// The segment.
        file: File,
        /// Bytes from its start; a multiple of 4,096, as is the buffer's length.
        offset: u64,
        /// What; comes back in [`IoDone::Written`].
        buffer: Vec<u8>,
    },
    /// fdatasync, submitted after the write completed.
    Sync {
        /// The segment.
        file: File,
    },
}

/// What came of the operation in flight.
#[derive(Debug)]
pub enum IoDone {
    /// Of [`Io::Write`].
    Written {
        /// The buffer, to be used again.
        buffer: Vec<u8>,
        /// `Ok` only if all of it was written.
        result: Result<(), Errno>,
    },
    /// Of [`Io::Sync`].
    Synced {
        /// How it ended.
        result: Result<(), Errno>,
    },
}

/// Counters since the journal was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Syncs submitted.
    pub syncs: u64,
    /// Bytes submitted to be written: records, block headers, padding and segment headers.
    pub bytes_written: u64,
    /// Commit blocks submitted, witness blocks included.
    pub blocks: u64,
    /// Those without a record.
    pub witness_blocks: u64,
    /// Records appended.
    pub records: u64,
    /// Bytes of those, with their frames.
    pub record_bytes: u64,
    /// Records read back from files.
    pub records_read: u64,
    /// Segments taken into use.
    pub segments_used: u64,
    /// Segments freed.
    pub segments_freed: u64,
    /// Segments made by growing.
    pub segments_grown: u64,
}

/// The journal of one shard. Made by [`open`].
#[derive(Debug)]
pub struct Journal<S> {
    storage: S,
    hash_key: [u8; 16],
    pool: segment::Pool,
    writer: writer::Writer,
    reader: reader::Reader,
    statistics: Statistics,
    tail_bytes_zeroed: u64,
}

impl<S: Storage> Journal<S> {
    /// The number of the newest record, [`Lsn::NONE`] if there never was one.
    pub fn last_lsn(&self) -> Lsn {
        self.writer.last_lsn()
    }

    /// Every record up to this one is on disk.
    pub fn durable(&self) -> Lsn {
        self.writer.durable()
    }

    /// The oldest record that can still be read; one more than the last if there is none.
    pub fn first_lsn(&self) -> Lsn {
        self.pool.open().map_or(self.last_lsn().next(), |_| self.pool.first_lsn())
    }

    /// The hash key recorded when the journal was made.
    pub fn hash_key(&self) -> [u8; 16] {
        self.hash_key
    }

    /// Counters.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Segments that hold the log, and free ones.
    pub fn segments(&self) -> (usize, usize) {
        (self.pool.live_count(), self.pool.free_count())
    }

    /// Bytes after the last valid block that opening had to zero: 0 after a clean stop in a segment's first life.
    pub fn tail_bytes_zeroed(&self) -> u64 {
        self.tail_bytes_zeroed
    }

    /// The largest record, frame included, that fits: appending a larger one is a bug of the caller.
    pub fn record_bytes_max(&self) -> usize {
        self.writer.record_bytes_max()
    }

    /// Append a record to the block that is being built. Never blocks and never fails; `commit` carries it on.
    ///
    /// # Panics
    ///
    /// If `lsn` is not one more than the last (I13), before `replay`, or if the record is larger than
    /// [`Journal::record_bytes_max`].
    pub fn append(&mut self, lsn: Lsn, record: &Record<'_>) {
        assert!(self.reader.replayed(), "a journal is replayed before it is appended to");
        let bytes = self.writer.append(lsn, record);
        self.statistics.records += 1;
        self.statistics.record_bytes += bytes as u64;
    }

    /// Bytes appended and not yet durable.
    pub fn pending_bytes(&self) -> usize {
        self.writer.pending_bytes()
    }

    /// The next operation to submit, if none is in flight: a write, and after its completion a sync.
    ///
    /// Also yields the witness block when `next_deadline` has passed.
    pub fn commit(&mut self, now: Now) -> Option<Io> {
        let io = self.writer.commit(now.mono, &mut self.pool, &self.hash_key, &mut self.statistics)?;
        match &io {
            Io::Write { buffer, .. } => self.statistics.bytes_written += buffer.len() as u64,
            Io::Sync { .. } => self.statistics.syncs += 1,
        }
        Some(io)
    }

    /// Ask for the witness block at the next `commit` without the idle time: before a clean stop.
    pub fn witness(&mut self) {
        self.writer.witness_now();
    }

    /// Take the outcome of the operation in flight: the new durable mark, if it moved. An error is fatal.
    ///
    /// # Panics
    ///
    /// If no such operation is in flight, or after an error (I4).
    pub fn completed(&mut self, done: IoDone, now: Now) -> Result<Option<Lsn>, JournalError> {
        let before = self.pool.free_count();
        let mark = self.writer.completed(done, now.mono, &mut self.pool, &self.storage)?;
        self.statistics.segments_freed += (self.pool.free_count() - before) as u64;
        Ok(mark)
    }

    /// When `commit` or `grow` has something to do though nothing happened. Call both then, and in every turn.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let retry = self.pool.retry_at(self.writer.block_bytes_wanted());
        self.writer.next_deadline(&self.pool).into_iter().chain(retry).min()
    }

    /// Records below are dead. Segments wholly below are recycled once a block that says so is durable: the next one,
    /// or the witness.
    pub fn release(&mut self, oldest_live: Lsn) {
        self.writer.release(oldest_live);
    }

    /// Whether there are fewer free segments than the reserve and no more can be made: refuse publishes.
    pub fn reserve_reached(&self) -> bool {
        self.pool.reserve_reached()
    }

    /// A segment to be made by a background thread, if the pool should grow and is not growing yet.
    pub fn grow(&mut self, now: Now) -> Option<GrowRequest> {
        self.pool.grow(self.writer.block_bytes_wanted(), now.mono)
    }

    /// What the background thread made of the request. An error is for the log; nothing is lost by it.
    pub fn grown(&mut self, grown: Grown, now: Now) -> Result<(), JournalError> {
        let object = self.storage.describe(grown.name());
        self.pool.grown(grown, now.mono).map_err(|errno| {
            JournalError::new("create the journal segment", object, Problem::Kernel(errno))
        })?;
        self.statistics.segments_grown += 1;
        Ok(())
    }
}

/// A record as its frame, for tests that keep what a broker appended.
#[cfg(test)]
pub(crate) fn encoded(lsn: crate::ids::Lsn, record: &crate::record::Record<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::encode(lsn, record, &mut bytes);
    bytes
}

/// The record in a frame.
#[cfg(test)]
pub(crate) fn decoded(bytes: &[u8]) -> crate::record::Record<'_> {
    let (frame, _) = decode::frame(bytes).expect("a whole frame");
    decode::record(&frame).expect("a sound record")
}
