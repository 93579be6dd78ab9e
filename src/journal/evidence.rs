//! Everything of a shard's journal that is provably as it was written, also where the journal is damaged.
//!
//! Decides what is proof, and what is missing. `verify` tells it of a damaged journal; opening does not go by it, for it
//! accepts no damage. Reads only.
//!
//! A block is proof by itself: its CRC is keyed with the data directory's key, so it was written by this journal as it is
//! there, whatever happened to its neighbours or to its segment's header. A record in it is proof with it: a number is
//! given once in a journal, so a copy among kept records, or one in a former life of a segment, is the same record.
//! Whether it is *needed* still is another question, and the newest whole checkpoint answers it; what followed that is
//! needed. Without one everything is that no block says to be dead, and what was finished with comes back.
//!
//! A number that is needed and nowhere to be found is *lost*. The last block of all, damaged with nothing written behind
//! it, cannot be told from one that never arrived (see the module documentation of `journal`).

use std::ops::RangeInclusive;

use super::checkpoint::{Image, Listed, is_end};
use super::decode;
use super::error::{JournalError, Problem};
use super::format::{self, BLOCK_HEADER_BYTES, BlockHeader, FirstPage, Kind, PAGE_BYTES, SegmentHeader};
use super::inventory::Found as File;
use super::reader::damaged;
use super::recover::checkpoints;
use super::scan::Window;
use super::segment;
use super::storage::Storage;
use super::{Options, format::VERSION};
use crate::ids::{Lsn, ShardId};
use crate::live::Facts;
use crate::record::Record;

/// Where something is not as it must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flaw {
    /// The file, or the directory if it is not there.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What must be there.
    pub expected: String,
    /// What is.
    pub found: String,
}

/// Records that are needed and not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// From the first to the last number.
    pub lsns: RangeInclusive<Lsn>,
    /// How many of those are needed.
    pub records: u64,
    /// Where they were, as far as that is known.
    pub place: String,
}

/// A record that is there.
#[derive(Debug)]
pub struct Evident<'a> {
    /// Its number.
    pub lsn: Lsn,
    /// Name of the file that it was read from.
    pub file: &'a str,
    /// Of its frame there.
    pub offset: u64,
    /// Number of its type, and the version of that.
    pub kind: (u8, u8),
    /// A start would apply it.
    pub needed: bool,
    /// What it says.
    pub record: Record<'a>,
    /// What the checkpoint knows of it.
    pub facts: Facts<'a>,
}

/// An intact block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intact {
    pub header: BlockHeader,
    pub begin: u64,
    pub end: u64,
}

/// A segment's file, and what is intact in it: blocks of its present life and of former ones.
#[derive(Debug)]
pub(super) struct Surveyed {
    pub file: File,
    pub blocks: Vec<Intact>,
}

impl Surveyed {
    /// If a checkpoint names the life that the first block is of, the header of another one is not the last.
    fn take_listed<S: Storage>(&mut self, image: &Image, storage: &S, options: &Options) -> Option<Flaw> {
        let Intact { header: block, begin, .. } = *self.blocks.first()?;
        let kind = Kind::from_number(block.kind).filter(|_| begin == PAGE_BYTES as u64)?;
        let is_life = |header: &SegmentHeader| (header.epoch, header.kind) == (block.epoch, kind);
        let named = |one: &Listed| (one.kind, one.epoch, one.sequence) == (kind, block.epoch, block.sequence);
        if header_of(&self.file).as_ref().is_some_and(is_life) || !image.listed.iter().any(named) {
            return None;
        }
        self.file.first_page = FirstPage::Header(inferred(&block, kind, self.file.bytes, options));
        Some(Flaw {
            file: storage.describe(&self.file.name),
            offset: 0,
            expected: format!("the header of segment {} ({kind:?})", block.sequence),
            found: "that of another life".to_owned(),
        })
    }
}

/// Where a record is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub lsn: Lsn,
    pub offset: u32,
    pub extent: u32,
    pub file: u16,
    pub needed: bool,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Evidence<S> {
    pub(super) storage: S,
    pub(super) shard: ShardId,
    pub(super) files: Vec<Surveyed>,
    pub(super) image: Option<Image>,
    pub(super) oldest_live: Lsn,
    /// The highest number that is known to have been given.
    pub(super) last: Lsn,
    /// By number, each once.
    pub(super) index: Vec<Entry>,
    /// In the present lives of all files.
    records: u64,
    pub(super) lost: Vec<Lost>,
    pub(super) flaws: Vec<Flaw>,
}

impl<S: Storage> Evidence<S> {
    /// Look at every file. `all`: also at records that are not needed any more.
    ///
    /// Fails only if the directory cannot be read or is of another version.
    pub fn gather(storage: S, options: &Options, all: bool) -> Result<Evidence<S>, JournalError> {
        let (mut files, mut flaws) = survey(&storage, options)?;
        let image = newest_image(&storage, &files, options);
        if let Some(image) = &image {
            flaws.extend(files.iter_mut().filter_map(|one| one.take_listed(image, &storage, options)));
        }
        let headers = || files.iter().filter_map(|one| header_of(&one.file));
        let blocks = || files.iter().flat_map(|one| &one.blocks).map(|block| &block.header);
        let log = || blocks().filter(|block| block.kind == Kind::Log as u32);
        let oldest_live =
            headers().map(|header| header.oldest_live).chain(log().map(|block| block.oldest_live));
        let oldest_live = oldest_live.max().unwrap_or_default();
        let ends = log().map(|block| Lsn(block.first_lsn.0 + u64::from(block.record_count) - 1));
        let begins = headers().filter(|header| header.kind == Kind::Log);
        let last = ends
            .chain(begins.map(|header| Lsn(header.first_lsn.0 - 1)))
            .chain(log().map(|block| block.durable))
            .chain(image.as_ref().and_then(|image| image.needed))
            .max()
            .unwrap_or_default();
        let (shard, index, records, lost) = (options.shard, Vec::new(), 0, Vec::new());
        let mut evidence =
            Evidence { storage, shard, files, image, oldest_live, last, index, records, lost, flaws };
        evidence.take_index(all)?;
        evidence.find_flaws();
        evidence.find_lost();
        evidence.miss_successor();
        Ok(evidence)
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Records that a start would apply, if the journal were sound.
    pub fn needed(&self) -> u64 {
        self.index.iter().filter(|entry| entry.needed).count() as u64
    }

    /// Records in segments, also such as are not needed any more; each was checked.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The last record that the newest whole checkpoint covers; `None` without one.
    pub fn checkpoint(&self) -> Option<Lsn> {
        self.image.as_ref().map(|image| image.head.last_lsn)
    }

    /// The highest number that is known to have been given.
    pub fn last_lsn(&self) -> Lsn {
        self.last
    }

    /// What is needed and not there.
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// Where what counts is not as it was written.
    pub fn flaws(&self) -> &[Flaw] {
        &self.flaws
    }

    /// Every record found, in order of the numbers.
    pub fn visit(
        &self,
        apply: &mut dyn FnMut(&Evident<'_>) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        self.index.iter().try_for_each(|entry| self.read_entry(entry, apply))
    }

    /// One of them.
    pub(super) fn read_entry(
        &self,
        entry: &Entry,
        apply: &mut dyn FnMut(&Evident<'_>) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let File { name, file, .. } = &self.files[usize::from(entry.file)].file;
        let offset = u64::from(entry.offset);
        let mut bytes = vec![0; entry.extent as usize];
        self.storage
            .read_at(*file, offset, &mut bytes)
            .map_err(|error| JournalError::kernel("read", self.storage.describe(name), &error).at(offset))?;
        let (record, kind) = decode::frame(&bytes)
            .and_then(|(frame, _)| Ok((decode::record(&frame)?, (frame.kind, frame.version))))
            .map_err(|defect| damaged(&self.storage, name, offset, defect))?;
        apply(&Evident {
            lsn: entry.lsn,
            file: name,
            offset,
            kind,
            needed: entry.needed,
            record,
            facts: self.facts(entry.lsn),
        })
    }

    pub(super) fn facts(&self, lsn: Lsn) -> Facts<'_> {
        self.image.as_ref().map_or(Facts::NONE, |image| image.facts(lsn))
    }

    fn needs(&self, lsn: Lsn) -> bool {
        lsn >= self.oldest_live.max(Lsn(1)) && self.image.as_ref().is_none_or(|image| image.wants(lsn))
    }

    fn take_index(&mut self, all: bool) -> Result<(), JournalError> {
        let mut records = 0;
        for number in 0..self.files.len() {
            let one = &self.files[number];
            let life = header_of(&one.file).map(|header| (header.epoch, header.sequence));
            let mut window = Window::new(&self.storage, &one.file.name, one.file.file, one.file.bytes);
            let mut found = Vec::new();
            for block in &one.blocks {
                // A former life has nothing to say, except of a record that is needed and nowhere else.
                let present = Some((block.header.epoch, block.header.sequence)) == life;
                let last = Lsn((block.header.first_lsn.0 + u64::from(block.header.record_count)).max(1) - 1);
                let log = block.header.kind == Kind::Log as u32;
                if block.header.kind == Kind::Checkpoint as u32 || log && !all && last < self.oldest_live {
                    continue;
                }
                let bytes = format::extent(block.header.record_bytes);
                let Some(bytes) = window.get(block.begin, bytes)? else { continue };
                let end = BLOCK_HEADER_BYTES + block.header.record_bytes as usize;
                let frames = bytes.get(BLOCK_HEADER_BYTES..end).unwrap_or_default();
                let begin = block.begin + BLOCK_HEADER_BYTES as u64;
                records += self.take_frames(number, begin, frames, (present, all), &mut found)?;
            }
            self.index.append(&mut found);
        }
        self.records = records;
        self.index.sort_by_key(|entry| entry.lsn);
        self.index.dedup_by_key(|entry| entry.lsn);
        Ok(())
    }

    fn take_frames(
        &self,
        file: usize,
        begin: u64,
        frames: &[u8],
        (present, all): (bool, bool),
        found: &mut Vec<Entry>,
    ) -> Result<u64, JournalError> {
        let (mut position, mut records) = (0, 0);
        while position < frames.len() {
            let offset = begin + position as u64;
            let name = &self.files[file].file.name;
            let fail = |defect| damaged(&self.storage, name, offset, defect);
            let (lsn, extent) = decode::step(&frames[position..]).map_err(fail)?;
            let needed = self.needs(lsn);
            if needed || present {
                let (frame, _) = decode::frame(&frames[position..]).map_err(fail)?;
                decode::record(&frame).map_err(fail)?;
                records += u64::from(present);
                let entry = Entry {
                    lsn,
                    offset: u32::try_from(offset).expect("a segment's size fits 32 bits"),
                    extent: u32::try_from(extent).expect("a segment's size fits 32 bits"),
                    file: u16::try_from(file).expect("bounded by SEGMENTS_MAX"),
                    needed,
                };
                found.extend(Some(entry).filter(|_| needed || all));
            }
            position += extent;
        }
        Ok(records)
    }

    /// Whether a file's life counts, and up to where if that is known.
    pub(super) fn counts(&self, header: &SegmentHeader, blocks: &[Intact]) -> Option<Option<u64>> {
        let last = blocks.last().map_or(header.first_lsn.0, |block| {
            block.header.first_lsn.0 + u64::from(block.header.record_count)
        });
        let Some(image) = &self.image else {
            return (header.kind == Kind::Log && last > self.oldest_live.0).then_some(None);
        };
        if header.kind == Kind::Log && header.sequence >= image.head.sequence {
            return Some(None);
        }
        let same = |sequence, epoch| (sequence, epoch) == (header.sequence, header.epoch);
        let listed = image
            .listed
            .iter()
            .find(|one| one.kind == header.kind && same(one.sequence, one.epoch))
            .filter(|one| one.last_lsn >= self.oldest_live);
        listed.map(|listed| Some(listed.end))
    }

    /// Gaps between the blocks of each life that counts.
    fn find_flaws(&mut self) {
        let mut flaws = Vec::new();
        for one in &self.files {
            let Some(header) = header_of(&one.file) else { continue };
            let blocks: Vec<Intact> = life(one, &header).copied().collect();
            let end = match self.counts(&header, &blocks) {
                Some(end) => end,
                // Where one breaks off, be it by a crash while it was written.
                None if header.kind == Kind::Checkpoint && !self.is_whole(one, blocks.last()) => {
                    Some(u64::MAX)
                }
                None => continue,
            };
            let follower = self.files.iter().filter_map(|one| header_of(&one.file));
            let follower: Option<SegmentHeader> = follower
                .filter(|next| next.kind == header.kind && header.kind != Kind::Kept)
                .find(|next| next.sequence == header.sequence + 1);
            let mut reached = (PAGE_BYTES as u64, header.first_block);
            let mut gap = |offset: u64, number: u64, until: String| {
                flaws.push(Flaw {
                    file: self.storage.describe(&one.file.name),
                    offset,
                    expected: format!("block {number}: {until}"),
                    found: "no valid block".to_owned(),
                });
            };
            for block in &blocks {
                if block.begin != reached.0 {
                    let until = format!("block {} at {} is intact", block.header.number, block.begin);
                    gap(reached.0, reached.1, until);
                }
                reached = (block.end, block.header.number + 1);
            }
            let next = follower.map_or(reached.1, |next| next.first_block);
            let goes_on = header.kind == Kind::Checkpoint && follower.is_some() && next == reached.1;
            if goes_on {
                continue;
            }
            if end.is_some_and(|end| reached.0 < end) {
                let why = if header.kind == Kind::Checkpoint { "the rest of it" } else { "named by it" };
                gap(reached.0, reached.1, format!("a checkpoint is whole, and this is {why}"));
            } else if reached.1 < next && !follower.is_some_and(|next| self.is_unopened(&next, reached.1)) {
                gap(reached.0, reached.1, format!("the next segment begins with block {next}"));
            }
        }
        self.flaws.append(&mut flaws);
    }

    /// A crash came between the header of that segment and the block that names it.
    fn is_unopened(&self, header: &SegmentHeader, block: u64) -> bool {
        let mut files = self.files.iter().filter(|one| header_of(&one.file).as_ref() == Some(header));
        header.first_block == block + 1 && files.all(|one| life(one, header).next().is_none())
    }

    /// Whether that last block of a segment of checkpoints is the end of one.
    fn is_whole(&self, one: &Surveyed, last: Option<&Intact>) -> bool {
        let File { name, file, bytes, .. } = &one.file;
        let mut window = Window::new(&self.storage, name, *file, *bytes);
        let Some(last) = last else { return false };
        let block = window.get(last.begin, format::extent(last.header.record_bytes)).ok().flatten();
        let frame = block.and_then(|block| decode::frame(&block[BLOCK_HEADER_BYTES..]).ok());
        frame.is_some_and(|(frame, _)| is_end(frame.kind))
    }

    fn find_lost(&mut self) {
        let mut found = self.index.iter().map(|entry| entry.lsn).peekable();
        let covered = self.image.as_ref().map_or(Lsn::NONE, |image| image.head.last_lsn);
        let before = self.image.iter().flat_map(Image::live).filter(|lsn| self.needs(*lsn));
        let behind = (covered.next().max(self.oldest_live).0..=self.last.0).map(Lsn);
        let mut ranges: Vec<(Lsn, Lsn, u64)> = Vec::new();
        let mut joins = false;
        for lsn in before.chain(behind) {
            while found.next_if(|found| *found < lsn).is_some() {}
            if found.peek() == Some(&lsn) {
                joins = false;
                continue;
            }
            match ranges.last_mut().filter(|_| joins) {
                Some((_, last, records)) => (*last, *records) = (lsn, *records + 1),
                None => ranges.push((lsn, lsn, 1)),
            }
            joins = true;
        }
        let lost = ranges.into_iter().map(|(first, last, records)| Lost {
            lsns: first..=last,
            records,
            place: self.place_of(first),
        });
        self.lost = lost.collect();
    }

    /// Where that record was, in words.
    fn place_of(&self, lsn: Lsn) -> String {
        let log = self.files.iter().filter_map(|one| Some((one, header_of(&one.file)?)));
        let log = log.filter(|(_, header)| header.kind == Kind::Log && header.first_lsn <= lsn);
        let Some((one, header)) = log.max_by_key(|(_, header)| header.sequence) else {
            return "no file that is left".to_owned();
        };
        let mut begin = PAGE_BYTES as u64;
        for block in life(one, &header) {
            if block.header.first_lsn > lsn {
                let end = block.begin;
                return format!("{} from byte {begin} to {end}", self.storage.describe(&one.file.name));
            }
            begin = block.end;
        }
        let next = |one: &&Surveyed| {
            header_of(&one.file)
                .is_some_and(|next| next.kind == Kind::Log && next.sequence == header.sequence + 1)
        };
        let complete = self
            .files
            .iter()
            .find(next)
            .is_none_or(|next| header_of(&next.file).is_some_and(|next| next.first_lsn <= lsn));
        if complete && self.image.as_ref().is_some_and(|image| lsn <= image.head.last_lsn) {
            return "a segment that is gone or damaged".to_owned();
        }
        format!("{} from byte {begin}, or a file that is gone", self.storage.describe(&one.file.name))
    }
}

/// The header that a file has, or that follows from its first block.
pub(super) fn header_of(file: &File) -> Option<SegmentHeader> {
    match file.first_page {
        FirstPage::Header(header) => Some(header),
        _ => None,
    }
}

/// The blocks of a file's present life.
pub(super) fn life<'a>(one: &'a Surveyed, header: &SegmentHeader) -> impl Iterator<Item = &'a Intact> {
    let life = (header.epoch, header.sequence, header.kind as u32);
    one.blocks
        .iter()
        .filter(move |block| (block.header.epoch, block.header.sequence, block.header.kind) == life)
}

fn newest_image<S: Storage>(storage: &S, files: &[Surveyed], options: &Options) -> Option<Image> {
    let found: Vec<File> = files.iter().map(|one| one.file.clone()).collect();
    let mut headers: Vec<(usize, SegmentHeader)> = Vec::new();
    for (index, file) in found.iter().enumerate() {
        headers
            .extend(header_of(file).filter(|header| header.kind == Kind::Checkpoint).map(|one| (index, one)));
    }
    headers.sort_by_key(|(_, header)| header.sequence);
    let whole = checkpoints(storage, &found, &headers, &options.hash_key).unwrap_or_default();
    whole.into_iter().next_back().map(|checkpoint| checkpoint.image)
}

/// Every segment file with its intact blocks.
fn survey<S: Storage>(storage: &S, options: &Options) -> Result<(Vec<Surveyed>, Vec<Flaw>), JournalError> {
    let names = storage.list().map_err(|error| JournalError::kernel("list", storage.describe(""), &error))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    numbers.truncate(crate::limits::SEGMENTS_MAX);
    let (mut files, mut flaws) = (Vec::new(), Vec::new());
    for number in numbers {
        let name = segment::name(number);
        let mut flaw = |expected: &str, found: String| {
            let (file, expected) = (storage.describe(&name), expected.to_owned());
            flaws.push(Flaw { file, offset: 0, expected, found });
        };
        let failed = |operation| {
            let name = &name;
            move |error: std::io::Error| JournalError::kernel(operation, storage.describe(name), &error)
        };
        let file = storage.open(&name).map_err(failed("open"))?;
        let bytes = storage.len(file).map_err(failed("measure"))?;
        let mut page = [0; PAGE_BYTES];
        let count = usize::try_from(bytes).map_or(PAGE_BYTES, |bytes| bytes.min(PAGE_BYTES));
        // A page that cannot be read is one that is damaged.
        if storage.read_at(file, 0, &mut page[..count]).is_err() {
            page = [1; PAGE_BYTES];
        }
        let first_page = SegmentHeader::decode(&page);
        let mut one = Surveyed {
            file: File { name: name.as_str().into(), file, bytes, first_page },
            blocks: Vec::new(),
        };
        match first_page {
            FirstPage::Foreign { version } => {
                let problem = Problem::Version { supported: VERSION, found: version };
                return Err(JournalError::new("read the journal segment", storage.describe(&name), problem));
            }
            FirstPage::Header(header) => {
                let mine = (options.shard, options.shards, options.hash_key);
                if (header.shard, header.shards, header.hash_key) != mine {
                    flaw("a segment of this journal", "another journal's".to_owned());
                    continue;
                }
                if header.bytes != bytes {
                    flaw(&format!("a file of {} bytes", header.bytes), format!("{bytes} bytes"));
                }
            }
            FirstPage::Zero | FirstPage::Invalid => {}
        }
        one.blocks = intact_blocks(storage, &one.file, &options.hash_key);
        if let Some(header) = infer(&one, options) {
            flaw(
                &format!("the header of segment {} ({:?})", header.sequence, header.kind),
                "damaged".to_owned(),
            );
            one.file.first_page = FirstPage::Header(header);
        }
        files.push(one);
    }
    Ok((files, flaws))
}

/// The header that a file has lost, or that came back from a former life: the first block is written behind it only when
/// it is durable, and says what it was.
fn infer(one: &Surveyed, options: &Options) -> Option<SegmentHeader> {
    let Intact { header: block, begin, .. } = one.blocks.first()?;
    let kind = Kind::from_number(block.kind).filter(|_| *begin == PAGE_BYTES as u64)?;
    let newer = |header: &SegmentHeader| kind == header.kind && block.sequence > header.sequence;
    if header_of(&one.file).is_some_and(|header| !newer(&header)) {
        return None;
    }
    Some(inferred(block, kind, one.file.bytes, options))
}

fn inferred(block: &BlockHeader, kind: Kind, bytes: u64, options: &Options) -> SegmentHeader {
    SegmentHeader {
        kind,
        shard: options.shard,
        shards: options.shards,
        previous_crc: block.previous_crc,
        sequence: block.sequence,
        epoch: block.epoch,
        bytes,
        first_block: block.number,
        first_lsn: block.first_lsn,
        oldest_live: block.oldest_live,
        hash_key: options.hash_key,
    }
}

fn intact_blocks<S: Storage>(storage: &S, file: &File, hash_key: &[u8; 16]) -> Vec<Intact> {
    let window = || Window::new(storage, &file.name, file.file, file.bytes);
    let (mut wide, mut narrow) = (window(), window().narrow());
    let mut blocks = Vec::new();
    let mut offset = PAGE_BYTES as u64;
    while offset + PAGE_BYTES as u64 <= file.bytes {
        let block = match wide.intact(offset, hash_key, |_| true) {
            Ok(block) => block,
            // Somewhere ahead is what cannot be read: page by page, as far as it goes.
            Err(_) => narrow.intact(offset, hash_key, |_| true).unwrap_or_default(),
        };
        let extent = block.map_or(PAGE_BYTES, |(header, _)| format::extent(header.record_bytes));
        if let Some((header, _)) = block {
            blocks.push(Intact { header, begin: offset, end: offset + extent as u64 });
        }
        offset += extent as u64;
    }
    blocks
}
