//! A damaged data directory, also one without its `meta` file: the headers of segments say the same, each for its journal.
//!
//! For salvage, which makes another directory of it; a start does not go by this. What the file alone knows is which
//! journals count where there are those of two numbers of shards, so then it is not guessed.

use std::path::Path;

use super::directory::{self, DataDirectory, Meta, generation_of};
use super::error::{JournalError, Problem};
use super::format::{FirstPage, PAGE_BYTES, SegmentHeader};
use super::segment;
use super::storage::{Directory, Storage};

/// Open a data directory to read it; nothing in it changes, and no process may be using it. With what is wrong with its
/// `meta` file, if that was done without.
pub fn open_damaged(path: &Path) -> Result<(DataDirectory, Option<JournalError>), JournalError> {
    let error = match directory::open_read_only(path) {
        Ok(data) => return Ok((data, None)),
        Err(error) => error,
    };
    if !matches!(error.problem, Problem::MetaMissing | Problem::Corrupt { .. }) {
        return Err(error);
    }
    let failed = |error| JournalError::kernel("read", path.display().to_string(), &error);
    let root = Directory::open_read_only(path).map_err(failed)?;
    root.lock().map_err(failed)?;
    match infer(&root).map_err(failed)? {
        Some(meta) => Ok((DataDirectory::of(meta, root, false), Some(error))),
        None => Err(error),
    }
}

/// `None`: they do not say, or not all the same.
fn infer(root: &Directory) -> std::io::Result<Option<Meta>> {
    let mut inferred: Option<Meta> = None;
    for name in root.list()? {
        let Some(generation) = generation_of(&name) else { continue };
        let Some(SegmentHeader { shards, hash_key, .. }) = any_header(&root.subdirectory(&name)?)? else {
            continue;
        };
        let meta = Meta { shards, hash_key, was_begun: true, generation };
        let is_same =
            |other: &Meta| (other.shards, other.hash_key, other.generation) == (shards, hash_key, generation);
        if !inferred.as_ref().is_none_or(is_same) {
            return Ok(None);
        }
        inferred = Some(meta);
    }
    Ok(inferred)
}

fn any_header(shard: &Directory) -> std::io::Result<Option<SegmentHeader>> {
    for name in shard.list()?.iter().filter(|name| segment::number(name).is_some()) {
        let file = shard.open(name)?;
        let mut page = [0; PAGE_BYTES];
        // One that is too short, or that cannot be read, says nothing.
        if shard.read_at(file, 0, &mut page).is_ok()
            && let FirstPage::Header(header) = SegmentHeader::decode(&page)
        {
            return Ok(Some(header));
        }
    }
    Ok(None)
}
