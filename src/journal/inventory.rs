//! What files a journal's directory has, and what their first pages say.
//!
//! Decides which files are segments, and refuses what cannot be: another version's, another shard's, two in one place.
//! Which of them count is `recover`'s. Every file is synced before anything of it is read (I5).

use super::Options;
use super::error::{JournalError, Problem};
use super::format::{BlockHeader, FirstPage, Kind, PAGE_BYTES, SegmentHeader, VERSION};
use super::scan::{WINDOW_BYTES, Window, corruption};
use super::segment;
use super::storage::{Storage, UNFINISHED};
use crate::limits;
use crate::reactor::File;

/// A file under a segment's name.
#[derive(Clone, Debug)]
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
    let is_unfinished =
        |name: &String| name.strip_suffix(UNFINISHED).is_some_and(|name| segment::number(name).is_some());
    let unfinished = names.into_iter().filter(is_unfinished).collect();
    let mut inventory = Inventory { files: Vec::new(), unfinished, next_number };
    let usual = [options.segment_bytes, options.segment_bytes_first];
    for number in numbers {
        let found = examine(storage, segment::name(number))?;
        match found.first_page {
            FirstPage::Header(_) | FirstPage::Foreign { .. } => inventory.files.push(found),
            // Sizes may have been others once, and the header of a segment that was used again may be torn.
            FirstPage::Zero if usual.contains(&found.bytes) => inventory.files.push(found),
            FirstPage::Invalid if is_size(found.bytes) => inventory.files.push(found),
            // The first page of what was in use is not zero, however much was cut off behind it.
            FirstPage::Zero if found.bytes > 0 && is_zero(storage, &found)? => {
                inventory.unfinished.push(found.name.into());
            }
            // Of another size once; its header was taken back before it was the next segment.
            FirstPage::Zero if is_size(found.bytes) => inventory.files.push(found),
            FirstPage::Zero | FirstPage::Invalid => {
                let expected = format!("{} (if it is not a file of this journal, move it away)", usual[0]);
                let (what, is) = ("the length of the file", found.bytes.to_string());
                return Err(corruption(storage, &found.name, found.bytes, what, expected, is));
            }
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
    let count = usize::try_from(bytes).map_or(PAGE_BYTES, |bytes| bytes.min(PAGE_BYTES));
    storage.read_at(file, 0, &mut page[..count]).map_err(failed("read"))?;
    Ok(Found { name: name.into(), file, bytes, first_page: SegmentHeader::decode(&page) })
}

/// Whether a segment can be of that size.
pub(super) fn is_size(bytes: u64) -> bool {
    let page = PAGE_BYTES as u64;
    bytes.is_multiple_of(page) && (4 * page..=1 << 30).contains(&bytes)
}

/// Whether there is nothing in the whole of a file.
fn is_zero<S: Storage>(storage: &S, found: &Found) -> Result<bool, JournalError> {
    let mut window = Window::new(storage, &found.name, found.file, found.bytes);
    let mut offset = 0;
    while offset < found.bytes {
        let count = usize::try_from(found.bytes - offset).map_or(WINDOW_BYTES, |rest| rest.min(WINDOW_BYTES));
        let piece = window.get(offset, count)?;
        if piece.is_some_and(|piece| piece.iter().any(|byte| *byte != 0)) {
            return Ok(false);
        }
        offset += count as u64;
    }
    Ok(true)
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
            FirstPage::Header(header) if header.hash_key != options.hash_key => {
                return refuse(Problem::OtherDirectory);
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
            FirstPage::Header(header) => {
                check_newest(storage, found, &header, newest)?;
                false
            }
            FirstPage::Foreign { .. } => false,
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

/// A header was durable before the first block behind it was written. If that one is of a later life, the header of that
/// life was lost, and an older one of the same place came back.
fn check_newest<S: Storage>(
    storage: &S,
    found: &Found,
    header: &SegmentHeader,
    newest: u64,
) -> Result<(), JournalError> {
    let mut window = Window::new(storage, &found.name, found.file, found.bytes);
    // Kinds count for themselves; a life as one of the other two is missed by the checkpoint that needs it.
    let later = |block: &BlockHeader| {
        block.kind == header.kind as u32 && block.sequence > header.sequence
            || block.kind == Kind::Log as u32 && block.sequence > newest
    };
    let Some((block, _)) = window.intact(PAGE_BYTES as u64, &header.hash_key, later)? else { return Ok(()) };
    let expected = format!("that of {}: block {} behind it is intact", block.sequence, block.number);
    let (what, is) = ("the segment header", format!("that of {}", header.sequence));
    Err(corruption(storage, &found.name, 0, what, expected, is))
}
