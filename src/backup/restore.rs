//! A backup becomes a data directory again.
//!
//! Decides when it counts: `meta` is written last, when every shard's journal was read back and is sound. Replaces nothing.

use std::path::Path;

use super::copy::{Pace, Rest, copy_part};
use super::{BackupError, LIST, Summary, options, owner};
use crate::ids::ShardId;
use crate::journal::directory::{self, DataDirectory};
use crate::journal::storage::Directory;
use crate::journal::{JournalError, Part, Replica, Storage, parts_at_rest, verify};

/// Make `target` a data directory with what the backup in `source` has.
pub fn restore(source: &Path, target: &Path, rate: Option<u64>) -> Result<Summary, BackupError> {
    let backup = directory::open_read_only(source)?;
    let replica = Replica::restore(target, &backup)?;
    let mut pace = Pace::new(rate);
    let mut summary = Summary { shards: backup.shards, ..Summary::default() };
    match fill(&backup, &replica, &mut pace, &mut summary) {
        Ok(()) => replica.complete()?,
        Err(error) => {
            replica.abandon();
            return Err(error);
        }
    }
    summary.seconds = pace.elapsed().as_secs_f64();
    Ok(summary)
}

fn fill(
    backup: &DataDirectory,
    replica: &Replica,
    pace: &mut Pace,
    summary: &mut Summary,
) -> Result<(), BackupError> {
    for shard in (0..backup.shards).map(ShardId) {
        let (from, to) = (backup.shard(shard)?, replica.shard(shard)?);
        for part in parts(&from, backup, shard)? {
            let owner = owner(backup, shard);
            summary.bytes_copied += copy_part((from.path(), to.path()), &part, &owner, Rest::Zeros, pace)?;
            summary.segments_copied += 1;
        }
        to.sync_directory()
            .map_err(|error| crate::journal::JournalError::kernel("sync", to.describe(""), &error))?;
        drop(to);
        let verdict = verify(replica.shard(shard)?, &options(backup, shard))?;
        if let Some(refusal) = verdict.refusal {
            return Err(refusal.into());
        }
    }
    Ok(())
}

/// By the list; a data directory that was copied by other means has none.
fn parts(from: &Directory, backup: &DataDirectory, shard: ShardId) -> Result<Vec<Part>, JournalError> {
    let failed = |error| JournalError::kernel("read", from.describe(LIST), &error);
    let Some(list) = from.content(LIST).map_err(failed)? else {
        return parts_at_rest(from, &options(backup, shard));
    };
    let damaged = || failed(std::io::ErrorKind::InvalidData.into());
    let list = String::from_utf8(list).map_err(|_| damaged())?;
    list.lines().map(|line| Part::parse(line).ok_or_else(damaged)).collect()
}
