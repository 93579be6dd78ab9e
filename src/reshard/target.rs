//! Where re-homed records go: nowhere, to see how many bytes they are, or into journals that are being made.

use super::rehome::Sink;
use crate::broker::Broker;
use crate::broker::input::Input;
use crate::broker::settings::Settings;
use crate::ids::{Lsn, ShardId};
use crate::journal::directory::Successor;
use crate::journal::storage::Directory;
use crate::journal::{self, Journal, JournalError, Options};
use crate::limits;
use crate::record::Record;
use crate::shard::random;
use crate::time::Now;

use super::rehome::NoEffects;

/// Bytes that are appended to a journal before they are written. Each write is synced, so the more the faster.
const BATCH_BYTES: usize = 4 * limits::BLOCK_BYTES_MAX;

/// Only counts.
#[derive(Debug)]
pub(super) struct Count {
    /// By shard: the last number, and the bytes.
    shards: Vec<(Lsn, u64)>,
    scratch: Vec<u8>,
}

impl Count {
    pub(super) fn new(shards: u16) -> Count {
        Count { shards: vec![(Lsn::NONE, 0); shards.into()], scratch: Vec::new() }
    }

    /// What their journals will take on disk, generously: segments are written full of zeros before they are used, and
    /// blocks end at a page.
    pub(super) fn bytes_on_disk(&self) -> u64 {
        let first = limits::SEGMENTS_FIRST as u64 * limits::SEGMENT_BYTES_FIRST;
        let one = |(_, bytes): &(Lsn, u64)| match bytes + bytes / 16 {
            bytes if bytes <= first / 2 => first,
            bytes => first + bytes.next_multiple_of(limits::SEGMENT_BYTES_DEFAULT),
        };
        self.shards.iter().map(one).sum()
    }
}

impl Sink for Count {
    fn append(&mut self, shard: ShardId, record: &Record<'_>) -> Result<Lsn, JournalError> {
        let (last, bytes) = &mut self.shards[shard.index()];
        *last = last.next();
        *bytes += journal::record_bytes(record, &mut self.scratch) as u64;
        Ok(*last)
    }
}

/// Writes new journals.
#[derive(Debug)]
pub struct Writing {
    journals: Vec<Journal<Directory>>,
}

impl Writing {
    /// Into directories that nothing was written to before.
    pub fn begin(successor: &Successor, shards: u16, hash_key: [u8; 16]) -> Result<Writing, JournalError> {
        let begin = |shard| {
            let options = Options::new(shard, shards, hash_key);
            let mut journal = journal::open(successor.shard(shard)?, options, random(), Now::default())?;
            // From here on it gives no segments up.
            journal.witness();
            Ok(journal)
        };
        Ok(Writing { journals: (0..shards).map(ShardId).map(begin).collect::<Result<_, JournalError>>()? })
    }

    /// Everything is durable.
    pub fn finish(mut self) -> Result<(), JournalError> {
        for journal in &mut self.journals {
            journal.witness();
            journal.write_out()?;
        }
        Ok(())
    }
}

impl Sink for Writing {
    fn append(&mut self, shard: ShardId, record: &Record<'_>) -> Result<Lsn, JournalError> {
        let journal = &mut self.journals[shard.index()];
        let lsn = journal.last_lsn().next();
        journal.append(lsn, record);
        if journal.pending_bytes() >= BATCH_BYTES {
            journal.write_out()?;
        }
        Ok(lsn)
    }
}

/// Read a new journal back, as the broker will: sessions, and entries in their queues, that it holds.
pub fn held(
    successor: &Successor,
    shards: u16,
    settings: Settings,
    shard: ShardId,
) -> Result<(u64, u64), JournalError> {
    let options = Options { was_begun: true, ..Options::new(shard, shards, settings.hash_key) };
    let mut journal = journal::open(successor.shard(shard)?, options, random(), Now::default())?;
    let mut broker = Broker::new(settings, shard);
    if journal.last_lsn().is_some() {
        journal.replay(&mut |lsn, record, facts| {
            broker.handle(Now::default(), Input::Replay { lsn, record, facts }, &mut NoEffects);
        })?;
    }
    Ok(broker.held())
}
