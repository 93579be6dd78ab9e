//! The end of a log that was just recovered: its last block is confirmed, what a crash left behind it is zeroed.

use super::error::JournalError;
use super::format::PAGE_BYTES;
use super::scan::WINDOW_BYTES;
use super::segment::Segment;
use super::storage::Storage;
use crate::reactor::File;

/// Write the last block, and the header of its segment, once more as they were read, and sync.
///
/// A sync that failed in the life before may have left their pages readable and clean though they never reached the
/// device; the sync before reading then had nothing to do. What precedes them is durable, for it was synced before they
/// were written. Tearing bytes that replace themselves changes nothing.
pub(super) fn confirm_tail<S: Storage>(storage: &S, segment: &Segment) -> Result<(), JournalError> {
    let page = PAGE_BYTES as u64;
    let last = segment.blocks.len().checked_sub(1).and_then(|index| segment.block(index));
    let last = last.map_or((page, segment.end), |block| (block.begin, block.end));
    confirm(storage, segment.file, &segment.name, (0, page))?;
    confirm(storage, segment.file, &segment.name, last)
}

/// Write a range once more as it was read, and sync.
pub(super) fn confirm<S: Storage>(
    storage: &S,
    file: File,
    name: &str,
    (begin, end): (u64, u64),
) -> Result<(), JournalError> {
    let failed = |operation, offset| {
        move |error: std::io::Error| {
            JournalError::kernel(operation, storage.describe(name), &error).at(offset)
        }
    };
    let mut piece = vec![0; WINDOW_BYTES];
    let mut offset = begin;
    while offset < end {
        let count = usize::try_from(end - offset).map_or(WINDOW_BYTES, |rest| rest.min(WINDOW_BYTES));
        let piece = &mut piece[..count];
        storage.read_at(file, offset, piece).map_err(failed("read", offset))?;
        storage.write_at(file, offset, piece).map_err(failed("write", offset))?;
        offset += count as u64;
    }
    storage.sync(file).map_err(failed("sync", begin))
}

/// Zero what the block in flight may have left, so that nobody ever has to think about it again. Pages that are zero
/// stay untouched. Returns how many bytes were not.
pub(super) fn zero_tail<S: Storage>(storage: &S, segment: &Segment, bytes: u64) -> Result<u64, JournalError> {
    let failed = |operation, offset| {
        move |error: std::io::Error| {
            JournalError::kernel(operation, storage.describe(&segment.name), &error).at(offset)
        }
    };
    let mut zeroed = 0;
    let mut piece = vec![0; WINDOW_BYTES];
    let mut offset = segment.end;
    let end = segment.end + bytes;
    while offset < end {
        let count = usize::try_from(end - offset).map_or(WINDOW_BYTES, |rest| rest.min(WINDOW_BYTES));
        let piece = &mut piece[..count];
        storage.read_at(segment.file, offset, piece).map_err(failed("read", offset))?;
        let used = piece.chunks(PAGE_BYTES).rposition(|page| page.iter().any(|byte| *byte != 0));
        if let Some(used) = used {
            let used = &mut piece[..(used + 1) * PAGE_BYTES];
            used.fill(0);
            storage.write_at(segment.file, offset, used).map_err(failed("write", offset))?;
            zeroed += used.len() as u64;
        }
        offset += count as u64;
    }
    if zeroed > 0 {
        storage.sync(segment.file).map_err(failed("sync", segment.end))?;
    }
    Ok(zeroed)
}

/// How much `zero_tail` would zero.
pub(super) fn used_tail<S: Storage>(storage: &S, segment: &Segment, bytes: u64) -> Result<u64, JournalError> {
    let mut used = 0;
    let mut page = vec![0; PAGE_BYTES];
    for offset in (segment.end..segment.end + bytes).step_by(PAGE_BYTES) {
        storage.read_at(segment.file, offset, &mut page).map_err(|error| {
            JournalError::kernel("read", storage.describe(&segment.name), &error).at(offset)
        })?;
        if page.iter().any(|byte| *byte != 0) {
            used = offset + PAGE_BYTES as u64 - segment.end;
        }
    }
    Ok(used)
}
