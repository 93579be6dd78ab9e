//! What files a journal's directory has, and what their first pages say.
//!
//! Decides which files are segments, and refuses what cannot be: another version's, another shard's, two in one place.
//! Which of them count is `recover`'s. Every file is synced before anything of it is read (I5).

use super::Options;
use super::error::{JournalError, Problem};
use super::format::{BlockHeader, FirstPage, Kind, PAGE_BYTES, SegmentHeader, VERSION};
use super::scan::{Window, corruption};
use super::segment;
use super::storage::Storage;
use crate::limits;
use crate::reactor::File;

/// A file under a segment's name.
pub(super) struct Found {
    pub name: Box<str>,
    pub file: File,
    pub bytes: u64,
    pub first_page: FirstPage,
}

/// The segment files of a directory.
pub(super) struct Inventory {
    pub files: Vec<Found>,
    /// `create` did not get to its end (or the setting changed): all zeros and not of a usual length.
    pub unfinished: Vec<String>,
    /// The first number that no name has.
    pub next_number: u32,
}

/// Every segment file, synced before anything of it is read (I5).
pub(super) fn inventory<S: Storage>(storage: &S, options: &Options) -> Result<Inventory, JournalError> {
    let names = storage.list().map_err(|error| JournalError::kernel("list", storage.describe(""), &error))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    if numbers.len() > limits::SEGMENTS_MAX {
        let problem = Problem::TooManySegments { found: numbers.len() };
        return Err(JournalError::new("open", storage.describe(""), problem));
    }
    let next_number = numbers.last().map_or(1, |last| last + 1);
    let mut inventory = Inventory { files: Vec::new(), unfinished: Vec::new(), next_number };
    for number in numbers {
        let found = examine(storage, segment::name(number))?;
        let usual = [options.segment_bytes, options.segment_bytes_first].contains(&found.bytes);
        let unused = found.first_page == FirstPage::Zero && !begins_block(storage, &found)?;
        if unused && !usual {
            inventory.unfinished.push(found.name.into());
        } else {
            inventory.files.push(found);
        }
    }
    Ok(inventory)
}

fn examine<S: Storage>(storage: &S, name: String) -> Result<Found, JournalError> {
    let failed = |operation| {
        let name = &name;
        move |error: std::io::Error| JournalError::kernel(operation, storage.describe(name), &error)
    };
    let file = storage.open(&name).map_err(failed("open"))?;
    storage.sync(file).map_err(failed("sync"))?;
    let bytes = storage.len(file).map_err(failed("measure"))?;
    let mut page = [0; PAGE_BYTES];
    if bytes >= 2 * PAGE_BYTES as u64 {
        storage.read_at(file, 0, &mut page).map_err(failed("read"))?;
    }
    Ok(Found { name: name.into(), file, bytes, first_page: SegmentHeader::decode(&page) })
}

/// Whether the second page has a block's magic.
fn begins_block<S: Storage>(storage: &S, found: &Found) -> Result<bool, JournalError> {
    let mut window = Window::new(storage, &found.name, found.file, found.bytes);
    let page = window.get(PAGE_BYTES as u64, PAGE_BYTES)?;
    Ok(page.is_some_and(|page| BlockHeader::claimed(page).is_some()))
}

pub(super) fn remove<S: Storage>(storage: &S, unfinished: &[String]) -> Result<(), JournalError> {
    for name in unfinished {
        storage
            .remove(name)
            .map_err(|error| JournalError::kernel("remove", storage.describe(name), &error))?;
    }
    if unfinished.is_empty() {
        return Ok(());
    }
    storage.sync_directory().map_err(|error| JournalError::kernel("sync", storage.describe(""), &error))
}

/// Segments that are or were in use, by kind and sequence; each one's index in `files`.
pub(super) fn headers<S: Storage>(
    storage: &S,
    options: &Options,
    files: &[Found],
) -> Result<Vec<(usize, SegmentHeader)>, JournalError> {
    let mut headers = Vec::new();
    for (index, found) in files.iter().enumerate() {
        let refuse = |problem| {
            Err(JournalError::new("open the journal segment", storage.describe(&found.name), problem))
        };
        match found.first_page {
            FirstPage::Zero | FirstPage::Invalid => {}
            FirstPage::Foreign { version } => {
                return refuse(Problem::Version { supported: VERSION, found: version });
            }
            FirstPage::Header(header) if header.shards != options.shards => {
                let (recorded, requested) = (header.shards, options.shards);
                return refuse(Problem::ShardCount { recorded, requested });
            }
            FirstPage::Header(header) if header.shard != options.shard => {
                let (recorded, requested) = (header.shard, options.shard);
                return refuse(Problem::Shard { recorded, requested });
            }
            FirstPage::Header(header) => headers.push((index, header)),
        }
    }
    headers.sort_by_key(|(_, header)| (header.kind, header.sequence));
    let corrupt = |index: usize, what, expected: String, found: String| {
        Err(corruption(storage, &files[index].name, 0, what, expected, found))
    };
    for (index, header) in &headers {
        if header.bytes != files[*index].bytes {
            let (expected, found) = (header.bytes.to_string(), files[*index].bytes.to_string());
            return corrupt(*index, "the length of the file", expected, found);
        }
    }
    for pair in headers.windows(2) {
        let [(_, before), (index, after)] = pair else { unreachable!("windows of two") };
        if (before.kind, before.sequence) == (after.kind, after.sequence) {
            let expected = "one that no other segment has".to_owned();
            return corrupt(*index, "the sequence", expected, after.sequence.to_string());
        }
        if before.hash_key != after.hash_key {
            let expected = "that of the segment before it".to_owned();
            return corrupt(*index, "the hash key", expected, "another".to_owned());
        }
    }
    Ok(headers)
}

/// A file without a valid header is free, unless it holds blocks that are newer than every header: then its header was
/// durable, because it is synced before the first block is written, and has been lost.
pub(super) fn check_unused<S: Storage>(
    storage: &S,
    files: &[Found],
    hash_key: &[u8; 16],
    newest: u64,
) -> Result<(), JournalError> {
    for found in files {
        let suspect = match found.first_page {
            FirstPage::Invalid => true,
            FirstPage::Zero => begins_block(storage, found)?,
            FirstPage::Header(_) | FirstPage::Foreign { .. } => false,
        };
        if !suspect {
            continue;
        }
        let mut window = Window::new(storage, &found.name, found.file, found.bytes);
        // Unusually large blocks are left out: nothing here tells the claims of a block from those that a sender
        // put into a payload, and each would cost its length in checksums.
        let wanted = |block: &BlockHeader| {
            block.kind == Kind::Log as u32
                && block.sequence > newest
                && block.record_bytes as usize <= limits::BLOCK_BYTES_MAX
        };
        let block = window.find_block(PAGE_BYTES as u64, hash_key, wanted)?;
        if let Some((offset, block)) = block {
            let expected =
                format!("one of sequence {}: block {} at {offset} is intact", block.sequence, block.number);
            return Err(corruption(
                storage,
                &found.name,
                0,
                "the segment header",
                expected,
                "damaged".to_owned(),
            ));
        }
    }
    Ok(())
}
