//! A new data directory from everything that is provably intact in a damaged one, and what is missing in it.
//!
//! Called by the command. The damaged directory is only read. In order:
//!
//! 1. Lock it; begin the new one, where nothing may be yet.
//! 2. See what is evident in every shard (`journal::Evidence`). A shard that is gone has nothing.
//! 3. Replay that through a broker per shard, which says what is live, and watch what refers to records that are lost
//!    (`losses`).
//! 4. Write the live records to the new journals (`reshard::Rehoming`, to the same shards), QoS 2 messages that are under
//!    way first.
//! 5. Read the new journals back, as the broker will, and compare what they hold with what was written.
//! 6. Write the report beside them, and last the `meta` file: before, it is no data directory, and nothing starts on it.
//!
//! # Why the broker's own replay
//!
//! It knows what a record about something unknown means: nothing. So what is lost takes with it what speaks of it, and
//! no second opinion on what is live is needed. A journal with holes can say two things that one without cannot: a packet id
//! that is given again though it was never free, and an account with two sessions. Each proves what the lost record
//! said, and replay concludes it.
//!
//! Records keep their shard and their order, sessions get new keys, records new numbers. Numbers in a report are those of the
//! damaged journals, by which `ironpost journal inspect` finds them.
//!
//! # What comes back, and what does not
//!
//! Nothing is invented: every entry of a queue in the new directory was listed for that session in a record that is
//! intact. If a lost record may have said that it is done with, it comes again, and the report says that this may be
//! (`ShardReport::again`). What was live and is not there is in a lost range, or refers to one; the report names the ranges, and
//! the sessions for which a list is intact whose message is not.
//!
//! Memory: 24 bytes per record that is needed, what a broker needs for one shard, and the names of the sessions in
//! damaged shards.

mod carry;
mod error;
mod losses;
mod report;
mod words;

pub use error::{SalvageError, Why};
pub use report::{Elsewhere, Report, SessionLoss, ShardReport, State, Whole};

use std::path::Path;

use crate::config::Config;
use crate::ids::ShardId;
use crate::journal::directory::{self, DataDirectory, Successor};
use crate::journal::storage::{Directory, Storage};
use crate::journal::{self, Evidence, JournalError, Options};
use crate::limits;
use crate::reshard::{Writing, held};
use crate::shard::once_unlocked;
use carry::carry;

/// Names of the report's files in the new directory.
pub const REPORT: [&str; 2] = ["salvage-report.txt", "salvage-report.json"];

/// What is being done, for an operator who waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Every block of a damaged journal is looked at.
    Looking {
        /// Of which shard.
        shard: ShardId,
    },
    /// What is intact is replayed.
    Replaying {
        /// Of which shard.
        shard: ShardId,
    },
    /// It goes into the new journal.
    Writing {
        /// Of which shard.
        shard: ShardId,
    },
    /// The new journals are read back.
    Checking,
}

/// Make a data directory at `to` from what is intact in that of the configuration.
pub fn salvage(config: &Config, to: &Path, tell: &mut dyn FnMut(Progress)) -> Result<Report, SalvageError> {
    let before = |why| SalvageError { why, unfinished: None };
    let opened = once_unlocked(|| journal::open_damaged(&config.data));
    let (data, meta) = opened.map_err(Why::from).map_err(before)?;
    if is_inside(to, &config.data) {
        return Err(before(Why::Inside { to: to.to_owned() }));
    }
    let target = directory::fresh(to, data.shards, data.hash_key).map_err(Why::from).map_err(before)?;
    write(config, (&data, meta), target, to, tell)
        .map_err(|why| SalvageError { why, unfinished: Some(to.to_owned()) })
}

fn write(
    config: &Config,
    (data, meta): (&DataDirectory, Option<JournalError>),
    target: Successor,
    to: &Path,
    tell: &mut dyn FnMut(Progress),
) -> Result<Report, Why> {
    let shards = data.shards;
    let mut found = Vec::new();
    for shard in (0..shards).map(ShardId) {
        tell(Progress::Looking { shard });
        found.push(look(data, shard)?);
    }
    let needed = bytes_on_disk(&found);
    if let Some(room) = target.room()?.filter(|room| *room < needed) {
        return Err(Why::Room { needed, room, to: to.to_owned() });
    }
    let placement = config.placement(shards, data.hash_key);
    let settings = config.broker_settings(placement, data.hash_key);
    let mut writing = Writing::begin(&target, shards, data.hash_key)?;
    let mut report = carry(&found, data.was_begun, &settings, &mut writing, tell)?;
    report.meta = meta.map(|error| error.to_string());
    writing.finish()?;
    tell(Progress::Checking);
    for (shard, totals) in (0..).map(ShardId).zip(&report.totals) {
        let (expected, found) = (totals.held(), held(&target, shards, settings.clone(), shard)?);
        if found != expected {
            return Err(Why::Differs { shard, expected, found });
        }
    }
    let texts = [report.words(usize::MAX), report.json()];
    for (name, text) in REPORT.into_iter().zip(texts) {
        target.note(name, &text)?;
    }
    target.complete()?;
    Ok(report)
}

/// What is evident in one shard; `None` if there is no directory of it.
fn look(data: &DataDirectory, shard: ShardId) -> Result<Option<Evidence<Directory>>, JournalError> {
    let directory = match data.shard(shard) {
        Err(error) if error.is_missing() => return Ok(None),
        opened => opened?,
    };
    let options = Options::new(shard, data.shards, data.hash_key);
    directory.lock().map_err(|error| JournalError::kernel("lock", directory.describe(""), &error))?;
    Evidence::gather(directory, &options, false).map(Some)
}

/// The same for a test, which has its journals in memory.
#[cfg(test)]
pub(crate) fn carried<S: Storage>(
    found: &[Option<Evidence<S>>],
    settings: &crate::broker::settings::Settings,
    sink: &mut impl crate::reshard::Sink,
) -> Result<Report, JournalError> {
    carry(found, true, settings, sink, &mut |_| ())
}

/// What the new journals take at most, as they grow: whole segments.
fn bytes_on_disk(found: &[Option<Evidence<Directory>>]) -> u64 {
    let first = limits::SEGMENTS_FIRST as u64 * limits::SEGMENT_BYTES_FIRST;
    let one = |evidence: &Option<Evidence<Directory>>| match evidence
        .as_ref()
        .map_or(0, |one| one.needed_bytes() + one.needed_bytes() / 16)
    {
        bytes if bytes <= first / 2 => first,
        bytes => first + bytes.next_multiple_of(limits::SEGMENT_BYTES_DEFAULT),
    };
    found.iter().map(one).sum()
}

/// Whether a path, which need not be there, lies in a directory, which is there.
fn is_inside(path: &Path, directory: &Path) -> bool {
    let Ok(directory) = directory.canonicalize() else { return false };
    let there = path.ancestors().find_map(|above| match above {
        above if above.as_os_str().is_empty() => Path::new(".").canonicalize().ok(),
        above => above.canonicalize().ok(),
    });
    there.is_some_and(|there| there.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_inside_a_directory_whether_it_is_there_or_not() {
        let temporary = tempfile::tempdir().unwrap();
        let data = temporary.path().join("data");
        std::fs::create_dir(&data).unwrap();
        for inside in ["data", "data/new", "data/new/er", "data/../data/new"] {
            assert!(is_inside(&temporary.path().join(inside), &data), "{inside}");
        }
        for outside in ["data.new", "new", "."] {
            assert!(!is_inside(&temporary.path().join(outside), &data), "{outside}");
        }
    }
}
