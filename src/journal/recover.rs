//! Opening a journal: what is there, which of it is the log, where the log ends, and whether that end is honest.
//!
//! Decides between a torn tail, which a crash leaves and which was never acknowledged, and corruption, which means
//! that something acknowledged is gone. The argument is in the module documentation. The order is: lock, sync every
//! file (I5), look at first pages, follow the chain of blocks, judge what comes behind its end, write the last block
//! once more, zero what is behind it.
//!
//! Nothing is written before everything was judged, so that refusing changes nothing on disk. `judge` is that part alone:
//! `verify` asks no more.

use std::collections::VecDeque;

use super::checkpoint::{Image, Listed, Step};
use super::error::{JournalError, Problem};
use super::format::{BlockHeader, FirstPage, Kind, PAGE_BYTES, SegmentHeader};
use super::inventory::{Found, Inventory, check_unused, headers, inventory, is_size, remove};
use super::kept::Kept;
use super::pool::{Checkpoints, Pool};
use super::reader::Reader;
use super::reclaim::{Before, Reclaim};
use super::scan::{Chain, Window, corruption};
use super::segment::{self, Segment, Vacant};
use super::storage::Storage;
use super::tail::{confirm, confirm_tail, zero_tail};
use super::writer::{End, Writer};
use super::{Journal, Options};
use crate::ids::Lsn;
use crate::limits;
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
    let Judged { inventory, headers, log, used } = judge(&storage, &options)?;
    let Inventory { files, unfinished, mut next_number } = inventory;
    let Log { live, kept: kept_segments, image, end, torn_bytes, unopened } = log;
    let (hash_key, kept) = (options.hash_key, of_kind(&headers, Kind::Kept));
    let checkpoint = of_kind(&headers, Kind::Checkpoint);
    remove(&storage, &unfinished)?;
    let tail_bytes_zeroed = match live.back() {
        Some(last) => {
            if let Some(index) = unopened {
                forget_header(&storage, &files[index])?;
            }
            if let Some(before) = live.iter().rev().nth(1).filter(|_| last.blocks.is_empty()) {
                confirm_tail(&storage, before)?;
            }
            confirm_tail(&storage, last)?;
            zero_tail(&storage, last, torn_bytes)?
        }
        None => 0,
    };
    let checkpoint_segments = match &used {
        Some(used) if image.is_some() => {
            confirm_end(&storage, &files, used)?;
            slots(&files, &checkpoint, used.image.first_sequence)
        }
        _ => VecDeque::new(),
    };
    let tail = match &image {
        Some(image) => (image.head.sequence, image.head.offset),
        None => (0, 0),
    };
    let before = Before { kept: newest(&kept), checkpoints: newest(&checkpoint), tail };
    let mut free = vacant(&files, |name| {
        live.iter().all(|segment| &*segment.name != name)
            && kept_segments.iter().all(|kept| &*kept.name != name)
            && checkpoint_segments.iter().all(|checkpoints| &*checkpoints.name != name)
    });
    if live.is_empty() {
        fill_first_pool(&storage, &options, &mut free, &mut next_number)?;
    }
    // The pool begins with what was dead already freed: that it is dead was read from a durable block.
    let mut pool = Pool::new(&options, seed, live, kept_segments, checkpoint_segments, free, next_number);
    pool.free_below(end.oldest_live);
    pool.freed = 0;
    checkpoint.iter().for_each(|(index, _)| pool.keep_slot_of(&files[*index].name));
    if pool.open().is_none() {
        begin(&storage, &options, &mut pool, &hash_key)?;
    }
    let mut reader = Reader::new(image);
    if end.last_lsn == Lsn::NONE {
        reader.skip_replay();
    }
    let writer = Writer::new(&options, end, now.mono);
    let reclaim = Reclaim::new(&options, writer.block_bytes_max(), before);
    Ok(Journal::recovered(storage, hash_key, (pool, writer, reclaim, reader), tail_bytes_zeroed))
}

/// It will be another file's, or this one's with another epoch.
fn forget_header<S: Storage>(storage: &S, found: &Found) -> Result<(), JournalError> {
    storage
        .write_at(found.file, 0, &[0; PAGE_BYTES])
        .and_then(|()| storage.sync(found.file))
        .map_err(|error| JournalError::kernel("write", storage.describe(&found.name), &error).at(0))
}

/// What is there, and what of it counts.
pub(super) struct Judged {
    pub inventory: Inventory,
    /// Of every segment that is or was in use, by kind and sequence, with its index among the files.
    pub headers: Vec<(usize, SegmentHeader)>,
    pub log: Log,
    /// The checkpoint that the log was assembled by.
    pub used: Option<Checkpoint>,
}

/// Look at everything and change nothing. The storage is locked, or nobody else writes to it.
pub(super) fn judge<S: Storage>(storage: &S, options: &Options) -> Result<Judged, JournalError> {
    let inventory = inventory(storage, options)?;
    let files = &inventory.files;
    let headers = headers(storage, options, files)?;
    let hash_key = &options.hash_key;
    let (log, kept) = (of_kind(&headers, Kind::Log), of_kind(&headers, Kind::Kept));
    check_unused(storage, files, hash_key, newest(&log))?;
    let checkpoint = of_kind(&headers, Kind::Checkpoint);
    let whole = checkpoints(storage, files, &checkpoint, hash_key)?;
    let scene = Scene { storage, files, log: &log, kept: &kept, checkpoint: &checkpoint, hash_key };
    let (recovered, used) = assemble_any(&scene, whole)?;
    if recovered.live.is_empty() && options.was_begun {
        return Err(JournalError::new("open", storage.describe(""), Problem::JournalMissing));
    }
    Ok(Judged { inventory, headers, log: recovered, used })
}

fn of_kind(headers: &[(usize, SegmentHeader)], kind: Kind) -> Vec<(usize, SegmentHeader)> {
    headers.iter().filter(|(_, header)| header.kind == kind).copied().collect()
}

/// The highest sequence.
fn newest(headers: &[(usize, SegmentHeader)]) -> u64 {
    headers.last().map_or(0, |(_, header)| header.sequence)
}

/// The sync of a checkpoint's end may have failed in the life before, like that of the last block: see `tail`.
fn confirm_end<S: Storage>(storage: &S, files: &[Found], used: &Checkpoint) -> Result<(), JournalError> {
    let found = &files[used.file];
    confirm(storage, found.file, &found.name, used.last_block)
}

/// The segments of a checkpoint that begins in that one. Nothing is added to them.
fn slots(files: &[Found], headers: &[(usize, SegmentHeader)], first: u64) -> VecDeque<Checkpoints> {
    let in_use = headers.iter().filter(|(_, header)| header.sequence >= first);
    in_use
        .map(|(index, header)| {
            let Found { file, name, bytes, .. } = &files[*index];
            Checkpoints { file: *file, name: name.clone(), header: *header, end: *bytes }
        })
        .collect()
}

fn validate<S: Storage>(storage: &S, options: &Options) -> Result<(), JournalError> {
    let valid = is_size(options.segment_bytes)
        && is_size(options.segment_bytes_first)
        && options.segment_bytes_first <= options.segment_bytes
        && (1..=options.segments_max).contains(&options.segments_first)
        && options.segments_max <= limits::SEGMENTS_MAX;
    if valid {
        return Ok(());
    }
    Err(JournalError::new("open", storage.describe(""), Problem::Setting { bounds: BOUNDS }))
}

/// The log, and what is kept beside it.
pub(super) struct Log {
    pub live: VecDeque<Segment>,
    pub kept: Vec<Kept>,
    /// What replay goes by, unless all that it covers is dead.
    pub image: Option<Image>,
    pub end: End,
    /// Bytes behind the end of the last segment that the block in flight may have touched.
    pub torn_bytes: u64,
    /// Index of a file whose header was to make it the next segment, before the last one named it.
    pub unopened: Option<usize>,
}

/// What everything here looks at.
struct Scene<'a, S> {
    storage: &'a S,
    files: &'a [Found],
    /// Of the log, by sequence.
    log: &'a [(usize, SegmentHeader)],
    /// Of kept records, by sequence.
    kept: &'a [(usize, SegmentHeader)],
    /// Of checkpoints, by sequence.
    checkpoint: &'a [(usize, SegmentHeader)],
    hash_key: &'a [u8; 16],
}

/// The log by the newest checkpoint that everything is there for, or without one.
///
/// Any of them leads to the same state: what it names and what follows it was checked to be there as it was written. So
/// one that is damaged, or names what is, is passed over as long as nothing that an older one needs was overwritten.
fn assemble_any<S: Storage>(
    scene: &Scene<'_, S>,
    checkpoints: Vec<Checkpoint>,
) -> Result<(Log, Option<Checkpoint>), JournalError> {
    let mut first_error = None;
    for checkpoint in checkpoints.into_iter().rev() {
        match assemble(scene, Some(&checkpoint.image)) {
            Ok(log) => return Ok((log, Some(checkpoint))),
            Err(error) if matches!(error.problem, Problem::Corrupt { .. }) => {
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match (assemble(scene, None), first_error) {
        (Ok(log), _) => Ok((log, None)),
        (Err(_), Some(error)) => Err(error),
        (Err(error), None) => Err(scene.no_checkpoint()?.unwrap_or(error)),
    }
}

/// Follow the chain from the oldest segment that has to be read whole to its end, and judge the end; then look for what
/// the checkpoint names besides.
fn assemble<S: Storage>(scene: &Scene<'_, S>, image: Option<&Image>) -> Result<Log, JournalError> {
    let headers = scene.log;
    let run = headers.chunk_by(|(_, a), (_, b)| a.sequence + 1 == b.sequence).next_back().unwrap_or_default();
    let oldest_live = headers.iter().map(|(_, header)| header.oldest_live).max().unwrap_or_default();
    // A header is as durable as a block, so what it says is dead need not be read.
    let dead = run.windows(2).take_while(|pair| pair[1].1.first_lsn <= oldest_live).count();
    let covered =
        image.and_then(|image| run.iter().position(|(_, header)| header.sequence == image.head.sequence));
    let begin = covered.map_or(dead, |covered| covered.max(dead));
    let mut chain = Chain::new(oldest_live);
    chain.durable = image.and_then(|image| image.needed).unwrap_or_default();
    let mut live = VecDeque::new();
    let (mut torn_bytes, mut unopened) = (0, None);
    for (position, (index, header)) in run.iter().enumerate().skip(begin) {
        if position == begin {
            chain.begin(header);
        }
        let (segment, mut window) = scene.follow(*index, header, &mut chain)?;
        let next = run.get(position + 1);
        unopened = next.map(|(index, _)| *index).filter(|_| position + 2 == run.len());
        if let (Some(index), Some((_, next))) = (unopened, next)
            && scene.is_unopened(index, next, &chain)?
        {
            torn_bytes = window.judge_tail(&segment, &chain)?;
            live.push_back(segment);
            break;
        }
        unopened = None;
        match next {
            Some((_, next)) => check_continues(scene.storage, &segment, &chain, next)?,
            None => {
                check_closed(scene.storage, &segment, &chain)?;
                torn_bytes = window.judge_tail(&segment, &chain)?;
            }
        }
        live.push_back(segment);
    }
    if let Some((index, lowest)) = run.first().filter(|_| covered.is_none()) {
        check_reaches_back(scene.storage, scene.files, *index, lowest, chain.oldest_live)?;
    }
    let end = End {
        last_lsn: Lsn(chain.next_lsn.0 - 1),
        next_block: chain.next_block,
        previous_crc: chain.previous_crc,
        oldest_live: chain.oldest_live,
        uncovered: chain.uncovered,
    };
    let image = image.filter(|image| covered.is_some() && image.head.last_lsn >= end.oldest_live);
    let mut log = Log { live, kept: Vec::new(), image: image.cloned(), end, torn_bytes, unopened };
    if let Some(image) = image {
        scene.find_listed(image, &mut log)?;
    }
    Ok(log)
}

impl<'a, S: Storage> Scene<'a, S> {
    fn window(&self, index: usize) -> Window<'a, S> {
        let found = &self.files[index];
        Window::new(self.storage, &found.name, found.file, found.bytes)
    }

    fn follow(
        &self,
        index: usize,
        header: &SegmentHeader,
        chain: &mut Chain,
    ) -> Result<(Segment, Window<'a, S>), JournalError> {
        let found = &self.files[index];
        let mut segment = Segment::new(found.file, found.name.clone(), *header);
        let mut window = self.window(index);
        window.follow_chain(&mut segment, chain, self.hash_key)?;
        Ok((segment, window))
    }

    /// Whether the header of that file was written and the block that names it was not. Then no block was.
    fn is_unopened(&self, index: usize, header: &SegmentHeader, chain: &Chain) -> Result<bool, JournalError> {
        let comes_next = (header.first_block, header.first_lsn) == (chain.next_block + 1, chain.next_lsn);
        if !comes_next || chain.next_epoch != 0 {
            return Ok(false);
        }
        let page = self.window(index).get(PAGE_BYTES as u64, PAGE_BYTES)?.and_then(BlockHeader::claimed);
        Ok(page.is_none_or(|block| block.epoch != header.epoch))
    }

    /// Every segment that the checkpoint names and that is not all dead.
    fn find_listed(&self, image: &Image, log: &mut Log) -> Result<(), JournalError> {
        let mut before = Vec::new();
        for listed in image.listed.iter().filter(|listed| listed.last_lsn >= log.end.oldest_live) {
            if log.live.iter().any(|one| (Kind::Log, one.header.sequence) == (listed.kind, listed.sequence)) {
                continue;
            }
            let among = if listed.kind == Kind::Log { self.log } else { self.kept };
            let same =
                |header: &SegmentHeader| (header.sequence, header.epoch) == (listed.sequence, listed.epoch);
            let Some((index, header)) = among.iter().find(|(_, header)| same(header)) else {
                return Err(self.missing(listed)?);
            };
            let (end, crc) = if listed.kind == Kind::Log {
                let mut chain = Chain::new(Lsn::NONE);
                chain.begin(header);
                let (segment, _) = self.follow(*index, header, &mut chain)?;
                let reached = (segment.end, segment.last_crc);
                before.push(segment);
                reached
            } else {
                let found = &self.files[*index];
                let mut kept = Kept::new(found.file, found.name.clone(), *header);
                self.window(*index).follow_kept(&mut kept, listed.end, self.hash_key)?;
                kept.sealed = true;
                let reached = (kept.end, kept.last_crc);
                log.kept.push(kept);
                reached
            };
            if (end, crc) != (listed.end, listed.last_crc) {
                let expected =
                    format!("blocks up to {}, the last with checksum {:08x}", listed.end, listed.last_crc);
                let name = &self.files[*index].name;
                return Err(corruption(
                    self.storage,
                    name,
                    end,
                    "what is here",
                    expected,
                    "no valid block".to_owned(),
                ));
            }
        }
        before.sort_by_key(|segment| segment.header.sequence);
        before.into_iter().rev().for_each(|segment| log.live.push_front(segment));
        Ok(())
    }

    /// There must be a checkpoint, because the log does not do without. The newest is where the damage is; if there never
    /// was one, the damage is elsewhere.
    fn no_checkpoint(&self) -> Result<Option<JournalError>, JournalError> {
        let Some((index, header)) = self.checkpoint.last() else { return Ok(None) };
        let mut reached = PAGE_BYTES as u64;
        self.window(*index).follow_checkpoints(header, self.hash_key, |_, _, _, place| reached = place.1)?;
        let expected = "a checkpoint, because segments of the log were given up by it".to_owned();
        let (name, found) = (&self.files[*index].name, "no valid block".to_owned());
        Ok(Some(corruption(self.storage, name, reached, "what is here", expected, found)))
    }

    /// A segment that a checkpoint names is not there: its header is damaged, or its file is gone.
    fn missing(&self, listed: &Listed) -> Result<JournalError, JournalError> {
        let wanted = |block: &BlockHeader| {
            (block.kind, block.sequence, block.epoch) == (listed.kind as u32, listed.sequence, listed.epoch)
        };
        let mut damaged = self.files.iter().find(|found| found.first_page == FirstPage::Invalid);
        for (index, found) in self.files.iter().enumerate() {
            if self.window(index).intact(PAGE_BYTES as u64, self.hash_key, wanted)?.is_some() {
                damaged = Some(found);
            }
        }
        let name = damaged.map_or("", |found| &*found.name);
        let what = if listed.kind == Kind::Log { "log" } else { "kept records" };
        let expected =
            format!("segment {} ({what}) with records up to {}", listed.sequence, listed.last_lsn.0);
        let found = if damaged.is_some() { "damaged" } else { "missing" };
        Ok(corruption(self.storage, name, 0, "the segment header", expected, found.to_owned()))
    }
}

/// A checkpoint that is whole, and where its end is.
pub(super) struct Checkpoint {
    pub image: Image,
    /// Index of the file with its last block, and where that block is.
    file: usize,
    last_block: (u64, u64),
}

/// Every whole checkpoint, oldest first.
pub(super) fn checkpoints<S: Storage>(
    storage: &S,
    files: &[Found],
    headers: &[(usize, SegmentHeader)],
    hash_key: &[u8; 16],
) -> Result<Vec<Checkpoint>, JournalError> {
    let mut whole: Vec<Checkpoint> = Vec::new();
    let mut image: Option<Image> = None;
    let mut next = (0, 0);
    for (index, header) in headers {
        // One may go on in the next segment.
        if next != (header.first_block, header.previous_crc) {
            image = None;
        }
        let found = &files[*index];
        let mut window = Window::new(storage, &found.name, found.file, found.bytes);
        next = window.follow_checkpoints(header, hash_key, |lsn, kind, body, place| {
            match Image::step(image.as_mut(), header.sequence, lsn, kind, body) {
                Step::Begins(begun) => image = Some(*begun),
                Step::Added => {}
                Step::Foreign => image = None,
            }
            if image.as_ref().is_some_and(|image| image.needed.is_some())
                && let Some(image) = image.take()
            {
                // The one before it serves if this one is damaged, or names what is.
                whole.drain(..whole.len().saturating_sub(1));
                whole.push(Checkpoint { image, file: *index, last_block: place });
            }
        })?;
    }
    Ok(whole)
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
        let wanted = |block: &BlockHeader| (block.kind, block.sequence) == (Kind::Log as u32, sequence);
        if window.intact(PAGE_BYTES as u64, hash_key, wanted)?.is_some() {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The last block names another segment only after that had a header.
fn check_closed<S: Storage>(storage: &S, segment: &Segment, chain: &Chain) -> Result<(), JournalError> {
    if chain.next_epoch == 0 || segment.end == PAGE_BYTES as u64 {
        return Ok(());
    }
    let next = segment.header.sequence + 1;
    let expected = format!("segment {next}, of epoch {:016x}", chain.next_epoch);
    let what = "the segment that follows";
    let begin = segment.end - PAGE_BYTES as u64;
    Err(corruption(storage, &segment.name, begin, what, expected, "no such segment".to_owned()))
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
    if continues && chain.next_epoch != 0 && chain.next_epoch != next.epoch {
        let (expected, found) = (format!("{:016x}", chain.next_epoch), format!("{:016x}", next.epoch));
        let what = "the epoch of the segment that follows";
        return Err(corruption(
            storage,
            &segment.name,
            segment.end - PAGE_BYTES as u64,
            what,
            expected,
            found,
        ));
    }
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

/// Every file that is not in use.
fn vacant(files: &[Found], unused: impl Fn(&str) -> bool) -> VecDeque<Vacant> {
    let free = files.iter().filter(|found| unused(&found.name));
    free.map(|found| {
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
    let (vacant, epoch) = pool.take(0, Kind::Log, 1).expect("the first pool has at least one segment");
    let header = SegmentHeader {
        kind: Kind::Log,
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
