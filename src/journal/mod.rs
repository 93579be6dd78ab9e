//! The append log of one shard: everything that must survive, in one sequence.
//!
//! The journal gives records places and says when they are durable. What the records mean is the broker's business;
//! when to call is the shard's. Appending and committing never touch the kernel: `commit` yields the next [`Io`], the
//! shard submits it to its reactor and hands the outcome to `completed`. Opening, reading back and growing go through
//! [`storage::Storage`].
//!
//! - `format`, `encode`, `decode`: bytes
//! - `pool`, `segment`, `kept`: the files, what is in each, growth
//! - `writer`, `flight`: blocks and group commit
//! - `reclaim`, `usage`, `copy`, `checkpoint`: giving segments up before all of their records are dead
//! - `reader`, `steps`: single records back
//! - `pin`, `excerpt`, `replica`: a backup: what it has to copy, that this stays as it is meanwhile, and where to
//! - `recover`, `inventory`, `scan`, `tail`: opening, torn tail versus corruption
//! - `replay`: all that is needed, in order, at start
//! - `verify`, `evidence`, `successor`, `browse`: whether everything is there, what is if not, and looking at it
//! - `offline`: for commands that write one while no broker runs
//! - `directory`, `lost_meta`: the data directory above the shards, with its `meta` file, or without
//!
//! # Shape
//!
//! The log is a sequence of commit blocks, numbered from 1. Blocks lie back to back in segments, files that were
//! written full of zeros once and are recycled for ever; segments of each kind are numbered by `sequence`. A segment that
//! is used again gets a new sequence and a new random epoch. A journal whose log has grown to segment 9:
//!
//! ```text
//! segment-000003  [log 6  | block 90 | .. | block 99: log 7 follows | too short for the next   ]
//! segment-000001  [log 8  | block 120 | ..                 | block 130: log 9 follows ]
//! segment-000004  [log 9  | block 131 | block 132 | zeros, or bytes of an older epoch       ]
//! segment-000006  [kept 2 | records of log 5 and 7 that were live when those were given up  ]
//! segment-000005  [checkpoint 3 | log 6, 8, kept 2, live records up to 131 | ..             ]
//! segment-000002  [log 7, given up: free                                                    ]
//! ```
//!
//! # Valid if and only if
//!
//! A **segment** is part of the log iff its header's CRC is right and its sequence is in the run without gaps that
//! ends with the highest, or a checkpoint that counts names it. Segments of kept records are part of the journal iff such
//! a checkpoint names them, up to the end that it names.
//!
//! A **checkpoint** counts iff it has its end, every segment that it names is there up to the named block with the named
//! CRC (but for those whose records are all below the oldest live LSN), and the run reaches down to where it says that
//! the log goes on. Any that counts leads to the same state; the newest is taken. Without one the run must reach down
//! to the oldest live LSN.
//!
//! A **block** is valid iff it is complete within its segment, its CRC (seeded with hash key and epoch, covering
//! header, records and padding) is right, epoch, sequence and kind are its segment's, and it is linked: its number, its
//! first LSN and the CRC of its predecessor are the ones that follow from the block before, or from the segment's
//! header for the first. So a valid block proves everything before it in the run to be there as written.
//!
//! A **record** is valid iff its block is; its own CRC is for reading it back without its block, and goes with it when it
//! is copied.
//!
//! # Why an acknowledged record survives
//!
//! `durable` moves to a block's last LSN only when the sync that was submitted after that block's write completed has
//! itself completed. At that time the block's predecessor was durable (one block in flight, I3), and by induction
//! every block before, and the headers of their segments (written and synced before a first block is submitted). A
//! crash can therefore damage only the one block that was in flight, or the one header, neither of which was
//! acknowledged. Recovery cuts exactly there: at the first block that is not valid. If a later page of the same segment
//! claims to begin a block of the same epoch, be it torn, or a later segment has a header, or a block's durable LSN or a
//! checkpoint covers it, the invalid one had been durable, and the disk lost it: that is corruption, and the journal
//! refuses to open instead of dropping acknowledged records in silence.
//!
//! What cannot be told apart is the last block with records, damaged at rest before anything was written behind it; an
//! empty *witness* block, written when 100 ms pass without a record, limits that to the last 100 ms of load. Every other
//! flipped bit and every zeroed or older sector or page is seen, or touches nothing that was acknowledged
//! (`tests/journal_crash/exhaustive.rs` tries them all). A segment that is gone as a whole, file and all, is missed by the
//! number that the next one begins with, or, if it was the newest, by the last block of the one before: that names the
//! epoch of its successor, and is written when this has its header and before it has a block.
//!
//! A segment is written again only after it is durable that nothing needs it: by a block whose header has an `oldest live
//! LSN` above it, or by a checkpoint without it (I2). What was live in it has been durable in its new place since before
//! that checkpoint was begun (I9). Nothing of its former life can be taken for a block of the new one: epoch and
//! sequence differ (I8).
//!
//! Replay by a checkpoint misses only what was dead when the checkpoint was written, and its end is written only when
//! every record that killed something by then is durable.
//!
//! # Invariants
//!
//! | | | kept by |
//! |---|---|---|
//! | I2 | durable bytes are not rewritten before their release is durable | `writer` and `reclaim` free segments only on completion of the block that records it |
//! | I3 | a block is not submitted before its predecessor's sync returned | one `lane`, one `Flight` in it; release asserts |
//! | I4 | after a failed write or sync nothing becomes durable | `writer::failed`; release assert in `completed` |
//! | I5 | recovery acts only on bytes it has synced | `inventory` syncs every file before its first read |
//! | I7 | what is live is known exactly | `live::LiveSet`, kept by the broker; release asserts on every removal |
//! | I8 | epochs differ per reuse | release assert in `pool` |
//! | I9 | survivors are durable before their segment is given up | `reclaim` notes a victim as copied when its last block has landed |
//! | I12 | free segments ≥ reserve, or `reserve_reached` | `pool` |
//! | I13 | LSNs increase by one | release assert in `append`; the block chain at recovery |
//!
//! I1, I6, I10 and I11 are the broker's.
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

mod browse;
mod checkpoint;
mod copy;
mod decode;
pub mod directory;
mod encode;
mod error;
mod evidence;
mod excerpt;
mod flight;
mod format;
mod inventory;
mod kept;
mod lost_meta;
mod offline;
mod pin;
mod pool;
mod reader;
mod reclaim;
mod recover;
mod replay;
mod replica;
mod scan;
mod segment;
mod steps;
pub mod storage;
mod successor;
mod tail;
mod usage;
mod verify;
mod writer;

pub use browse::{Life, Row};
pub use error::{JournalError, Problem};
pub use evidence::{Evidence, Evident, Flaw, Lost};
pub use excerpt::{Owner, examine, read_part};
pub use lost_meta::open_damaged;
pub use offline::record_bytes;
pub use pin::{Part, parts_at_rest};
pub use pool::{GrowRequest, Grown};
pub use recover::open;
pub use replay::Replayed;
pub use replica::Replica;
pub use storage::{Storage, forget_pages};
pub use verify::{Verdict, refusal, verify};

use crate::ids::{Lsn, ShardId};
use crate::limits;
use crate::live::LiveSet;
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
    /// Log behind the last checkpoint at which the next is written.
    pub checkpoint_tail_bytes: u64,
    /// How long a segment must have lost nothing before what is live in it is copied.
    pub reclaim_quiet_ms: u64,
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
            checkpoint_tail_bytes: limits::CHECKPOINT_TAIL_BYTES,
            reclaim_quiet_ms: limits::RECLAIM_QUIET_MS,
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
    /// Segments whose live records were copied so that they can be given up.
    pub segments_copied: u64,
    /// Those records.
    pub records_copied: u64,
    /// Bytes of the blocks they were copied in.
    pub bytes_copied: u64,
    /// Checkpoints completed.
    pub checkpoints: u64,
    /// Bytes of the blocks of all checkpoints.
    pub checkpoint_bytes: u64,
}

/// Whose operation is in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    Log,
    Reclaim,
}

/// The journal of one shard. Made by [`open`].
#[derive(Debug)]
pub struct Journal<S> {
    storage: S,
    hash_key: [u8; 16],
    pool: pool::Pool,
    writer: writer::Writer,
    reclaim: reclaim::Reclaim,
    reader: reader::Reader,
    lane: Option<Lane>,
    /// The last operation begun was the log's, so a copy's turn has come.
    copies_turn: bool,
    stopping: bool,
    statistics: Statistics,
    tail_bytes_zeroed: u64,
}

/// What a journal is made of, as recovery leaves it.
type Parts = (pool::Pool, writer::Writer, reclaim::Reclaim, reader::Reader);

impl<S: Storage> Journal<S> {
    fn recovered(storage: S, hash_key: [u8; 16], parts: Parts, tail_bytes_zeroed: u64) -> Journal<S> {
        let (pool, writer, reclaim, reader) = parts;
        Journal {
            storage,
            hash_key,
            pool,
            writer,
            reclaim,
            reader,
            lane: None,
            copies_turn: false,
            stopping: false,
            statistics: Statistics::default(),
            tail_bytes_zeroed,
        }
    }

    /// The number of the newest record, [`Lsn::NONE`] if there never was one.
    pub fn last_lsn(&self) -> Lsn {
        self.writer.last_lsn()
    }

    /// Every record up to this one is on disk.
    pub fn durable(&self) -> Lsn {
        self.writer.durable()
    }

    /// The hash key recorded when the journal was made.
    pub fn hash_key(&self) -> [u8; 16] {
        self.hash_key
    }

    /// Counters.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Segments that hold something, and free ones.
    pub fn segments(&self) -> (usize, usize) {
        (self.pool.in_use(), self.pool.free_count())
    }

    /// Bytes of the log that a start now would replay whole.
    pub fn tail_bytes(&self) -> u64 {
        self.reclaim.tail_bytes(&self.pool)
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

    /// The next operation to submit, if none is in flight: a write, and after its completion a sync. `live`: what is
    /// needed of everything appended so far.
    ///
    /// Also yields the witness block when `next_deadline` has passed, and what giving up segments takes. That may read
    /// from the disk; an error is fatal, like one of `completed`.
    pub fn commit(&mut self, live: &LiveSet, now: Now) -> Result<Option<Io>, JournalError> {
        let io = match self.lane {
            Some(Lane::Log) => self.commit_log(now),
            Some(Lane::Reclaim) => self.commit_reclaim(live, now)?,
            None => self.begin(live, now)?,
        };
        match &io {
            Some(Io::Write { buffer, .. }) => self.statistics.bytes_written += buffer.len() as u64,
            Some(Io::Sync { .. }) => self.statistics.syncs += 1,
            None => {}
        }
        Ok(io)
    }

    fn begin(&mut self, live: &LiveSet, now: Now) -> Result<Option<Io>, JournalError> {
        if self.writer.has_failed() {
            return Ok(None);
        }
        if self.stopping {
            return Ok(self.commit_log(now));
        }
        if !self.copies_turn
            && let Some(io) = self.commit_log(now)
        {
            self.copies_turn = true;
            return Ok(Some(io));
        }
        self.copies_turn = false;
        Ok(self.commit_reclaim(live, now)?.or_else(|| self.commit_log(now)))
    }

    fn commit_log(&mut self, now: Now) -> Option<Io> {
        let io = self.writer.commit(now.mono, &mut self.pool, &self.hash_key, &mut self.statistics)?;
        self.lane = Some(Lane::Log);
        Some(io)
    }

    fn commit_reclaim(&mut self, live: &LiveSet, now: Now) -> Result<Option<Io>, JournalError> {
        let Journal { storage, hash_key, pool, writer, reclaim, statistics, .. } = self;
        let mut world = reclaim::World { pool, writer, storage, live, now, hash_key, statistics };
        let io = reclaim.commit(&mut world).inspect_err(|_| self.writer.stop())?;
        if io.is_some() {
            self.lane = Some(Lane::Reclaim);
        }
        Ok(io)
    }

    /// Ask for the witness block at the next `commit` without the idle time, and give no more segments up: before a clean
    /// stop.
    pub fn witness(&mut self) {
        self.stopping = true;
        self.writer.witness_now();
    }

    /// Take the outcome of the operation in flight: the new durable mark, if it moved. An error is fatal.
    ///
    /// # Panics
    ///
    /// If no such operation is in flight, or after an error (I4).
    pub fn completed(&mut self, done: IoDone, live: &LiveSet, now: Now) -> Result<Option<Lsn>, JournalError> {
        let lane = self.lane.expect("a completion is of the operation in flight");
        let mark = match lane {
            Lane::Log => self.writer.completed(done, now.mono, &mut self.pool, &self.storage)?,
            Lane::Reclaim => {
                assert!(!self.writer.has_failed(), "I4: after an I/O error nothing becomes durable");
                let Journal { storage, hash_key, pool, writer, reclaim, statistics, .. } = self;
                let mut world = reclaim::World { pool, writer, storage, live, now, hash_key, statistics };
                reclaim.completed(done, &mut world).inspect_err(|_| self.writer.stop())?;
                None
            }
        };
        if !self.writer.in_flight() && !self.reclaim.in_flight() {
            self.lane = None;
        }
        self.statistics.segments_freed = self.pool.freed;
        Ok(mark)
    }

    /// When `commit` or `grow` has something to do though nothing happened. Call both then, and in every turn.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let retry = self.pool.retry_at(self.writer.block_bytes_wanted());
        let witness = if self.lane.is_none() { self.writer.next_deadline(&self.pool) } else { None };
        witness.into_iter().chain(retry).min()
    }

    /// Whether `commit` should be called again right away.
    pub fn wants_turn(&self, live: &LiveSet) -> bool {
        self.lane.is_none()
            && !self.writer.has_failed()
            && !self.stopping
            && self.reclaim.wants_turn(&self.pool, live, &self.writer)
    }

    /// Look at what is needed no more: once a second or so, and before a clean stop.
    ///
    /// Segments with nothing live at the log's old end are recycled once a block that says so is durable: the next one,
    /// or the witness. Others are given up by a checkpoint, when free ones are low.
    pub fn observe(&mut self, live: &LiveSet, now: Now) {
        let oldest = live.oldest().unwrap_or(self.last_lsn().next());
        self.writer.release(oldest);
        self.pool.keep_slot();
        self.reclaim.observe(&self.pool, live, now.mono);
    }

    /// Whether there are fewer free segments than the reserve and no more can be made: refuse publishes.
    pub fn reserve_reached(&self) -> bool {
        self.pool.reserve_reached()
    }

    /// Whether there are fewer, and more are being made: publishers wait.
    pub fn waits_for_room(&self) -> bool {
        self.pool.waits_for_room()
    }

    /// A segment to be made by a background thread, if the pool should grow and is not growing yet.
    pub fn grow(&mut self, now: Now) -> Option<GrowRequest> {
        let soon = self.reclaim.has_prospects();
        self.pool.grow(self.writer.block_bytes_wanted(), soon, now.mono)
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
