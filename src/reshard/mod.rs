//! Another number of shards: everything that a stopped data directory holds, into new journals.
//!
//! Called by the command. In order:
//!
//! 1. Lock the data directory.
//! 2. Run its broker, with its old number of shards and without listeners, until every QoS 2 message that it accepted
//!    is routed, and stop it (`shard::settle`). Each shard remembers which of those messages it has, and where shards
//!    are merged or split that memory would have no meaning; so nothing is left that it would be needed for.
//! 3. Go through the old journals once to see what there is: is every message routed, is there room?
//! 4. Go through them again and write the new ones (`rehome`), read these back, and compare what they hold with what
//!    was found.
//! 5. Replace the `meta` file (`journal::directory`): from there on the new journals are those of the directory.
//! 6. Remove the old ones.
//!
//! A crash in 1 to 4 leaves the directory as it was, with unfinished journals beside it, or stopped in an ordinary
//! way; one in 5 leaves it with either number; one in 6 leaves old journals beside it. What is beside it goes when it is
//! opened next. So whatever happens, it can be done again, or a broker be started with the number that it has.
//!
//! Memory: what a broker needs for one old shard (bodies stay on disk), and some 50 bytes per session and per message
//! in QoS 2 delivery.

mod error;
mod rehome;
mod target;

pub use error::ReshardError;
pub use rehome::{Old, Rehoming, Sink, Source, Totals};
pub use target::{Writing, held};

use crate::config::Config;
use crate::ids::ShardId;
use crate::journal::directory::{self, DataDirectory};
use crate::journal::{self, Journal, storage::Directory};
use crate::shard::{self, once_unlocked, random};
use crate::time::Now;
use target::Count;

/// What is being done, for an operator who waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The broker runs without clients until nothing is under way.
    Settling,
    /// An old journal is read.
    Reading {
        /// Of which shard.
        shard: ShardId,
        /// Of how many.
        shards: u16,
    },
    /// What an old journal holds goes into the new ones.
    Writing {
        /// Of which shard.
        shard: ShardId,
        /// Of how many.
        shards: u16,
    },
    /// The new journals are read back.
    Checking,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// How many shards there were.
    pub before: u16,
    /// What each new shard has; as many as there were, and empty, if nothing was to be done.
    pub totals: Vec<Totals>,
    /// Bytes of the new journals on disk.
    pub bytes: u64,
    /// Bytes that there were on the disk for them, if that is known.
    pub room: Option<u64>,
    /// Messages that have to be routed first; 0 unless nothing was written.
    pub unrouted: u64,
}

/// Give the data directory of that configuration so many shards, whatever the configuration says about their number.
/// `dry_run`: only see what that would be.
pub fn reshard(
    config: &Config,
    shards: u16,
    dry_run: bool,
    tell: &mut dyn FnMut(Progress),
) -> Result<Summary, ReshardError> {
    let mut data = once_unlocked(|| directory::open(&config.data))?;
    let before = data.shards;
    if before == shards {
        let totals = Vec::new();
        return Ok(Summary { before, totals, bytes: 0, room: None, unrouted: 0 });
    }
    if !dry_run {
        tell(Progress::Settling);
        shard::settle(config, &mut data)?;
    }
    let mut count = Count::new(shards);
    let mut reading = |shard| tell(Progress::Reading { shard, shards: before });
    let found = rehome_all(config, &data, shards, &mut count, &mut reading)?;
    let summary = Summary {
        before,
        totals: found.totals().to_vec(),
        bytes: count.bytes_on_disk(),
        room: data.room()?,
        unrouted: found.unrouted(),
    };
    if dry_run {
        return Ok(summary);
    }
    if summary.unrouted > 0 {
        return Err(ReshardError::Unrouted { messages: summary.unrouted, shards: before });
    }
    if let Some(room) = summary.room.filter(|room| *room < summary.bytes) {
        return Err(ReshardError::Room { needed: summary.bytes, room, data: config.data.clone() });
    }
    let successor = data.successor(shards)?;
    let mut writing = Writing::begin(&successor, shards, data.hash_key)?;
    let mut progress = |shard| tell(Progress::Writing { shard, shards: before });
    let written = rehome_all(config, &data, shards, &mut writing, &mut progress)?;
    writing.finish()?;
    assert!(
        (written.totals(), written.unrouted()) == (&*summary.totals, 0),
        "what nobody else may write to holds the same twice"
    );
    tell(Progress::Checking);
    for (shard, totals) in (0..).map(ShardId).zip(&summary.totals) {
        let settings = config.broker_settings(config.placement(shards, data.hash_key), data.hash_key);
        let (expected, found) = (totals.held(), held(&successor, shards, settings, shard)?);
        if found != expected {
            return Err(ReshardError::Differs { shard, expected, found });
        }
    }
    data.succeed(successor)?;
    Ok(summary)
}

/// Every old journal, through that sink.
fn rehome_all(
    config: &Config,
    data: &DataDirectory,
    shards: u16,
    sink: &mut impl Sink,
    tell: &mut dyn FnMut(ShardId),
) -> Result<Rehoming, ReshardError> {
    let placement = |shards| config.placement(shards, data.hash_key);
    let mut rehoming = Rehoming::new(placement(shards));
    for shard in (0..data.shards).map(ShardId) {
        tell(shard);
        let options = journal::Options {
            was_begun: data.was_begun,
            ..journal::Options::new(shard, data.shards, data.hash_key)
        };
        let storage = data.shard(shard)?;
        let mut journal: Journal<Directory> =
            once_unlocked(|| journal::open(storage.clone(), options.clone(), random(), Now::default()))?;
        let settings = config.broker_settings(placement(data.shards), data.hash_key);
        rehoming.shard(settings, shard, &mut journal, sink)?;
    }
    Ok(rehoming)
}
