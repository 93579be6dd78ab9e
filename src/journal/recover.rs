//! Opening a journal: what is there, which of it is the log, where the log ends, and whether that end is honest.
//!
//! Decides between a torn tail, which a crash leaves and which was never acknowledged, and corruption, which means
//! that something acknowledged is gone. The argument is in the module documentation. The order is: lock, sync every
//! file (I5), look at first pages, follow the chain of blocks, judge what comes behind its end, write the last block
//! once more, zero what is behind it.
//!
//! Nothing is written before everything was judged, so that refusing changes nothing on disk.

use std::collections::VecDeque;

use super::error::{JournalError, Problem};
use super::format::{BlockHeader, FirstPage, PAGE_BYTES, SegmentHeader, VERSION};
use super::reader::Reader;
use super::scan::{Chain, WINDOW_BYTES, Window, corruption};
use super::segment::{self, Pool, Segment, Vacant};
use super::storage::{Storage, UNFINISHED};
use super::writer::{End, Writer};
use super::{Journal, Options, Statistics};
use crate::ids::Lsn;
use crate::limits;
use crate::reactor::File;
use crate::time::Now;

const BOUNDS: &str = "segment sizes are multiples of 4,096 from 16,384 to 1 GiB, a first one is not larger than a later \
                      one, and there is at least one";

/// Open the journal in `storage`, or begin one if there is none. `seed` makes epochs: another number at each start.
///
/// Blocks: for the lock not at all, else as long as the disk takes.
pub fn open<S: Storage>(
    storage: S,
    options: Options,
    seed: u64,
    now: Now,
) -> Result<Journal<S>, JournalError> {
    validate(&storage, &options)?;
    storage.lock().map_err(|error| JournalError::kernel("lock", storage.describe(""), &error))?;
    let Inventory { files, unfinished, mut next_number } = inventory(&storage, &options)?;
    let headers = headers(&storage, &options, &files)?;
    let hash_key = options.hash_key;
    check_unused(&storage, &files, &hash_key, headers.last().map_or(0, |(_, header)| header.sequence))?;

    let Log { live, end, torn_bytes } = follow(&storage, &files, &headers, &hash_key)?;
    if live.is_empty() && options.was_begun {
        return Err(JournalError::new("open", storage.describe(""), Problem::JournalMissing));
    }
    remove(&storage, &unfinished)?;
    let tail_bytes_zeroed = match live.back() {
        Some(last) => {
            confirm_tail(&storage, last)?;
            zero_tail(&storage, last, torn_bytes)?
        }
        None => 0,
    };
    let mut free = vacant(&files, &live);
    if live.is_empty() {
        fill_first_pool(&storage, &options, &mut free, &mut next_number)?;
    }
    // The pool begins with what was dead already freed: that it is dead was read from a durable block.
    let mut pool = Pool::new(&options, seed, live, free, next_number);
    pool.free_below(end.oldest_live);
    if pool.open().is_none() {
        begin(&storage, &options, &mut pool, &hash_key)?;
    }
    let mut reader = Reader::default();
    if end.last_lsn == Lsn::NONE {
        reader.skip_replay();
    }
    let writer = Writer::new(&options, end, now.mono);
    let statistics = Statistics::default();
    Ok(Journal { storage, hash_key, pool, writer, reader, statistics, tail_bytes_zeroed })
}

/// A file under a segment's name.
struct Found {
    name: Box<str>,
    file: File,
    bytes: u64,
    first_page: FirstPage,
}

fn validate<S: Storage>(storage: &S, options: &Options) -> Result<(), JournalError> {
    let page = PAGE_BYTES as u64;
    let size = |bytes: u64| bytes.is_multiple_of(page) && (4 * page..=1 << 30).contains(&bytes);
    let valid = size(options.segment_bytes)
        && size(options.segment_bytes_first)
        && options.segment_bytes_first <= options.segment_bytes
        && (1..=options.segments_max).contains(&options.segments_first)
        && options.segments_max <= limits::SEGMENTS_MAX;
    if valid {
        return Ok(());
    }
    Err(JournalError::new("open", storage.describe(""), Problem::Setting { bounds: BOUNDS }))
}

/// The segment files of a directory.
struct Inventory {
    files: Vec<Found>,
    /// `create` did not get to its end, or the setting changed: all zeros and not of a usual length.
    unfinished: Vec<String>,
    /// The first number that no name has.
    next_number: u32,
}

/// Every segment file, synced before anything of it is read (I5).
fn inventory<S: Storage>(storage: &S, options: &Options) -> Result<Inventory, JournalError> {
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
            FirstPage::Zero | FirstPage::Invalid if usual.contains(&found.bytes) => {
                inventory.files.push(found)
            }
            // The first page of what was in use is not zero, however much was cut off behind it.
            FirstPage::Zero if found.bytes > 0 && is_zero(storage, &found)? => {
                inventory.unfinished.push(found.name.into());
            }
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

fn remove<S: Storage>(storage: &S, unfinished: &[String]) -> Result<(), JournalError> {
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

/// Segments that are or were part of the log, by sequence; each one's index in `files`.
fn headers<S: Storage>(
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
    headers.sort_by_key(|(_, header)| header.sequence);
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
        if before.sequence == after.sequence {
            let expected = "one that no other segment has".to_owned();
            return corrupt(*index, "the sequence", expected, after.sequence.to_string());
        }
    }
    Ok(headers)
}

/// A file without a valid header is free, unless it holds blocks that are newer than every header: then its header was
/// durable, because it is synced before the first block is written, and has been lost.
fn check_unused<S: Storage>(
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
                check_newest(storage, found, &header)?;
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
            block.sequence > newest && block.record_bytes as usize <= limits::BLOCK_BYTES_MAX
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
fn check_newest<S: Storage>(storage: &S, found: &Found, header: &SegmentHeader) -> Result<(), JournalError> {
    let mut window = Window::new(storage, &found.name, found.file, found.bytes);
    let later = |block: &BlockHeader| block.sequence > header.sequence;
    let Some((block, _)) = window.intact(PAGE_BYTES as u64, &header.hash_key, later)? else { return Ok(()) };
    let expected = format!("that of {}: block {} behind it is intact", block.sequence, block.number);
    let (what, is) = ("the segment header", format!("that of {}", header.sequence));
    Err(corruption(storage, &found.name, 0, what, expected, is))
}

/// The log.
struct Log {
    live: VecDeque<Segment>,
    end: End,
    /// Bytes behind the end of the last segment that the block in flight may have touched.
    torn_bytes: u64,
}

/// Follow the chain from the oldest segment that may have live records to its end, and judge the end.
fn follow<S: Storage>(
    storage: &S,
    files: &[Found],
    headers: &[(usize, SegmentHeader)],
    hash_key: &[u8; 16],
) -> Result<Log, JournalError> {
    let run = headers.chunk_by(|(_, a), (_, b)| a.sequence + 1 == b.sequence).next_back().unwrap_or_default();
    let oldest_live = headers.iter().map(|(_, header)| header.oldest_live).max().unwrap_or_default();
    // A header is as durable as a block, so what it says is dead need not be read.
    let dead = run.windows(2).take_while(|pair| pair[1].1.first_lsn <= oldest_live).count();
    let mut chain = Chain {
        next_block: 1,
        next_lsn: Lsn(1),
        previous_crc: 0,
        durable: Lsn::NONE,
        oldest_live,
        uncovered: false,
    };
    let mut live = VecDeque::new();
    let mut torn_bytes = 0;
    for (position, (index, header)) in run.iter().enumerate().skip(dead) {
        let found = &files[*index];
        if position == dead {
            let Chain { next_block, next_lsn, previous_crc, .. } = &mut chain;
            (*next_block, *next_lsn, *previous_crc) =
                (header.first_block, header.first_lsn, header.previous_crc);
        }
        let mut segment = Segment::new(found.file, found.name.clone(), *header);
        let mut window = Window::new(storage, &found.name, found.file, found.bytes);
        window.follow_chain(&mut segment, &mut chain, hash_key)?;
        match run.get(position + 1) {
            Some((_, next)) => check_continues(storage, &segment, &chain, next)?,
            None => torn_bytes = window.judge_tail(&segment, &chain)?,
        }
        live.push_back(segment);
    }
    if let Some((index, lowest)) = run.first() {
        check_reaches_back(storage, files, *index, lowest, chain.oldest_live)?;
    }
    let end = End {
        last_lsn: Lsn(chain.next_lsn.0 - 1),
        next_block: chain.next_block,
        previous_crc: chain.previous_crc,
        oldest_live: chain.oldest_live,
        uncovered: chain.uncovered,
    };
    Ok(Log { live, end, torn_bytes })
}

/// The run must hold the oldest live record. If it does not, a segment before it has lost its header or its file.
fn check_reaches_back<S: Storage>(
    storage: &S,
    files: &[Found],
    index: usize,
    lowest: &SegmentHeader,
    oldest_live: Lsn,
) -> Result<(), JournalError> {
    let needed = oldest_live.max(Lsn(1));
    if lowest.first_lsn <= needed {
        return Ok(());
    }
    let wanted = lowest.sequence - 1;
    let damaged = match holder(storage, files, wanted, &lowest.hash_key)? {
        None => files.iter().find(|found| found.first_page == FirstPage::Invalid),
        holder => holder,
    };
    if let Some(damaged) = damaged {
        let expected = format!("one of sequence {wanted}, with record {}", needed.0);
        return Err(corruption(
            storage,
            &damaged.name,
            0,
            "the segment header",
            expected,
            "damaged".to_owned(),
        ));
    }
    let expected = format!("{}: a segment is missing", needed.0);
    let what = "the first record of the oldest segment";
    Err(corruption(storage, &files[index].name, 0, what, expected, lowest.first_lsn.0.to_string()))
}

/// The file whose first block is of that sequence, whatever its header says.
fn holder<'a, S: Storage>(
    storage: &S,
    files: &'a [Found],
    sequence: u64,
    hash_key: &[u8; 16],
) -> Result<Option<&'a Found>, JournalError> {
    for found in files {
        let mut window = Window::new(storage, &found.name, found.file, found.bytes);
        let wanted = |block: &BlockHeader| block.sequence == sequence;
        if window.intact(PAGE_BYTES as u64, hash_key, wanted)?.is_some() {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The header of a segment was written when every block before it was durable, so it must continue from here.
fn check_continues<S: Storage>(
    storage: &S,
    segment: &Segment,
    chain: &Chain,
    next: &SegmentHeader,
) -> Result<(), JournalError> {
    let continues = (next.first_block, next.first_lsn, next.previous_crc)
        == (chain.next_block, chain.next_lsn, chain.previous_crc);
    if continues {
        return Ok(());
    }
    let expected = format!(
        "block {}: segment {} begins with block {}",
        chain.next_block, next.sequence, next.first_block
    );
    Err(corruption(
        storage,
        &segment.name,
        segment.end,
        "what is here",
        expected,
        "no valid block".to_owned(),
    ))
}

/// Write the last block, and the header of its segment, once more as they were read, and sync.
///
/// A sync that failed in the life before may have left their pages readable and clean though they never reached the
/// device; the sync before reading then had nothing to do. What precedes them is durable, for it was synced before they
/// were written. Tearing bytes that replace themselves changes nothing.
fn confirm_tail<S: Storage>(storage: &S, segment: &Segment) -> Result<(), JournalError> {
    let failed = |operation, offset| {
        move |error: std::io::Error| {
            JournalError::kernel(operation, storage.describe(&segment.name), &error).at(offset)
        }
    };
    let page = PAGE_BYTES as u64;
    let last = segment.extents().last().unwrap_or((page, segment.end));
    let mut piece = vec![0; WINDOW_BYTES];
    for (mut offset, end) in [(0, page), last] {
        while offset < end {
            let count = usize::try_from(end - offset).map_or(WINDOW_BYTES, |rest| rest.min(WINDOW_BYTES));
            let piece = &mut piece[..count];
            storage.read_at(segment.file, offset, piece).map_err(failed("read", offset))?;
            storage.write_at(segment.file, offset, piece).map_err(failed("write", offset))?;
            offset += count as u64;
        }
    }
    storage.sync(segment.file).map_err(failed("sync", last.0))
}

/// Zero what the block in flight may have left, so that nobody ever has to think about it again. Pages that are zero
/// stay untouched. Returns how many bytes were not.
fn zero_tail<S: Storage>(storage: &S, segment: &Segment, bytes: u64) -> Result<u64, JournalError> {
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

/// Every file that is not in the log.
fn vacant(files: &[Found], live: &VecDeque<Segment>) -> VecDeque<Vacant> {
    let free = |found: &&Found| live.iter().all(|segment| segment.name != found.name);
    files
        .iter()
        .filter(free)
        .map(|found| {
            let epoch = match found.first_page {
                FirstPage::Header(header) => header.epoch,
                _ => 0,
            };
            Vacant { file: found.file, name: found.name.clone(), bytes: found.bytes, epoch }
        })
        .collect()
}

fn fill_first_pool<S: Storage>(
    storage: &S,
    options: &Options,
    free: &mut VecDeque<Vacant>,
    next_number: &mut u32,
) -> Result<(), JournalError> {
    while free.len() < options.segments_first {
        let name = segment::name(*next_number);
        *next_number += 1;
        let bytes = options.segment_bytes_first;
        let file = storage.create(&name, bytes).map_err(|error| {
            JournalError::kernel("create the journal segment", storage.describe(&name), &error)
        })?;
        free.push_back(Vacant { file, name: name.into(), bytes, epoch: 0 });
    }
    Ok(())
}

/// The header of the first segment of a new journal.
fn begin<S: Storage>(
    storage: &S,
    options: &Options,
    pool: &mut Pool,
    hash_key: &[u8; 16],
) -> Result<(), JournalError> {
    let (vacant, epoch) = pool.take(0, 1).expect("the first pool has at least one segment");
    let header = SegmentHeader {
        shard: options.shard,
        shards: options.shards,
        previous_crc: 0,
        sequence: 1,
        epoch,
        bytes: vacant.bytes,
        first_block: 1,
        first_lsn: Lsn(1),
        oldest_live: Lsn::NONE,
        hash_key: *hash_key,
    };
    storage
        .write_at(vacant.file, 0, &header.encode())
        .and_then(|()| storage.sync(vacant.file))
        .map_err(|error| JournalError::kernel("write", storage.describe(&vacant.name), &error).at(0))?;
    pool.push(Segment::new(vacant.file, vacant.name, header));
    Ok(())
}
