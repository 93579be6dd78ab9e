//! Copying the live records of one segment, into blocks by how long they may live.
//!
//! Decides which frames go on and which class each is of: records that expire together die together, so that their
//! segment dies as a whole. Frames are copied as they are, checksum included, and checked on the way.

use std::collections::VecDeque;

use super::decode;
use super::encode::{inbound_at, kind, message_at};
use super::error::{JournalError, Problem};
use super::format::{self, BLOCK_HEADER_BYTES, BlockHeader, Kind, PAGE_BYTES, get};
use super::kept::Place;
use super::pool::Pool;
use super::reclaim::{Id, World};
use super::storage::Storage;
use crate::ids::Lsn;
use crate::reactor::File;
use crate::time::UnixMs;

/// Upper ends of the classes but the last, in milliseconds to live.
const CLASSES_MS: [u64; Copy::CLASSES - 1] = [3_600_000, 86_400_000];

/// Bytes of a block of copies: a short write, so that what is appended meanwhile does not wait for it.
const BATCH_BYTES: usize = 256 << 10;

/// A segment whose records are being copied.
#[derive(Debug)]
pub(super) struct Copy {
    victim: Id,
    /// Of the victim: index of the next block (log), or its offset (kept records).
    next: u64,
    read: bool,
    /// By class; not yet full.
    open: [Batch; Copy::CLASSES],
    /// To be written, with their class.
    full: VecDeque<(usize, Batch)>,
    buffer: Vec<u8>,
}

/// Frames that will be a block.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Room for the header, then frames.
    pub bytes: Vec<u8>,
    /// Where each is, from the block's begin.
    pub places: Vec<Place>,
}

impl Copy {
    /// Classes of time to live: an hour, a day, longer.
    pub const CLASSES: usize = 3;

    pub fn new(victim: Id) -> Copy {
        let next = if victim.0 == Kind::Log { 0 } else { PAGE_BYTES as u64 };
        let (open, full) = Default::default();
        Copy { victim, next, read: false, open, full, buffer: Vec::new() }
    }

    pub fn victim(&self) -> Id {
        self.victim
    }

    /// Every record was looked at.
    pub fn is_read(&self) -> bool {
        self.read
    }

    /// The batch to be written: its class, and the bytes of its block.
    pub fn next_batch(&self) -> Option<(usize, u64)> {
        let (class, batch) = self.full.front()?;
        let frames = u32::try_from(batch.bytes.len() - BLOCK_HEADER_BYTES)
            .expect("a batch fits a segment, and a segment's size fits 32 bits");
        Some((*class, format::extent(frames) as u64))
    }

    /// That batch.
    pub fn take_batch(&mut self) -> Option<Batch> {
        self.full.pop_front().map(|(_, batch)| batch)
    }

    /// Look at blocks with something live until a batch waits to be written, at about so many bytes of them as a block of
    /// the log may have. Under load this is called once for each of those: were it one block here too, segments of small
    /// blocks would be copied more slowly than large ones are appended.
    pub fn read_on<S: Storage>(
        &mut self,
        block_bytes_max: usize,
        world: &World<'_, S>,
    ) -> Result<(), JournalError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut looked_at = 0;
        while !self.read && self.full.is_empty() && looked_at < block_bytes_max {
            match self.load(&mut buffer, world)? {
                Some(begin) => self.look_at(&buffer, begin, block_bytes_max, world)?,
                None => {
                    self.read = true;
                    (0..Copy::CLASSES).for_each(|class| self.close(class));
                }
            }
            looked_at += buffer.len();
        }
        self.buffer = buffer;
        Ok(())
    }

    /// Read the next block that has something live; where it begins. `None`: there is no more.
    fn load<S: Storage>(
        &mut self,
        buffer: &mut Vec<u8>,
        world: &World<'_, S>,
    ) -> Result<Option<u64>, JournalError> {
        let Some((file, name, begin, end)) = self.locate(world)? else { return Ok(None) };
        buffer.resize(usize::try_from(end - begin).expect("a segment's size fits 32 bits"), 0);
        read(world, file, name, begin, buffer)?;
        Ok(Some(begin))
    }

    fn locate<'a, S: Storage>(
        &mut self,
        world: &'a World<'_, S>,
    ) -> Result<Option<(File, &'a str, u64, u64)>, JournalError> {
        let (kind, sequence) = self.victim;
        let pool: &Pool = world.pool;
        if kind == Kind::Log {
            let Some(segment) = pool.live().iter().find(|one| one.header.sequence == sequence) else {
                // Its last record died, and it was freed from the log's old end.
                return Ok(None);
            };
            while let Some(block) = segment.block(usize::try_from(self.next).expect("an index")) {
                self.next += 1;
                if world.live.estimate(block.lsns).records > 0 {
                    return Ok(Some((segment.file, &*segment.name, block.begin, block.end)));
                }
            }
            return Ok(None);
        }
        let Some(kept) = pool.kept.iter().find(|one| one.header.sequence == sequence) else {
            return Ok(None);
        };
        let begin = self.next;
        if begin >= kept.end {
            return Ok(None);
        }
        let mut header = [0; BLOCK_HEADER_BYTES];
        read(world, kept.file, &kept.name, begin, &mut header)?;
        let header =
            BlockHeader::claimed(&header).ok_or_else(|| damaged(world, &kept.name, begin, "no block"))?;
        let end = begin + format::extent(header.record_bytes) as u64;
        if end > kept.end {
            return Err(damaged(world, &kept.name, begin, "a longer block"));
        }
        self.next = end;
        Ok(Some((kept.file, &*kept.name, begin, end)))
    }

    /// Copy what is live in a block.
    fn look_at<S: Storage>(
        &mut self,
        block: &[u8],
        begin: u64,
        block_bytes_max: usize,
        world: &World<'_, S>,
    ) -> Result<(), JournalError> {
        let wrong = |position: usize, found| {
            let at = begin + (BLOCK_HEADER_BYTES + position) as u64;
            damaged(world, name_of(self.victim, world.pool), at, found)
        };
        let frames = BlockHeader::claimed(block)
            .and_then(|header| block.get(BLOCK_HEADER_BYTES..)?.get(..header.record_bytes as usize))
            .ok_or_else(|| wrong(0, "no block"))?;
        let mut found = Vec::new();
        let mut position = 0;
        while position < frames.len() {
            let rest = &frames[position..];
            let (lsn, extent) = decode::step(rest).map_err(|_| wrong(position, "no record"))?;
            if world.live.contains(lsn) {
                let (frame, _) = decode::frame(rest).map_err(|_| wrong(position, "another checksum"))?;
                found.push((class(&frame, world.now.wall), lsn, position..position + extent));
            }
            position += extent;
        }
        for (class, lsn, range) in found {
            self.add(class, lsn, &frames[range], block_bytes_max);
        }
        Ok(())
    }

    fn add(&mut self, class: usize, lsn: Lsn, frame: &[u8], block_bytes_max: usize) {
        if self.open[class].bytes.len() + frame.len() > BLOCK_HEADER_BYTES + block_bytes_max {
            self.close(class);
        }
        let batch = &mut self.open[class];
        if batch.bytes.is_empty() {
            batch.bytes.resize(BLOCK_HEADER_BYTES, 0);
        }
        batch.places.push(Place::new(lsn, batch.bytes.len() as u64));
        batch.bytes.extend_from_slice(frame);
        if batch.bytes.len() >= BATCH_BYTES.min(block_bytes_max) {
            self.close(class);
        }
    }

    fn close(&mut self, class: usize) {
        if !self.open[class].places.is_empty() {
            self.full.push_back((class, std::mem::take(&mut self.open[class])));
        }
    }
}

/// By when the record's message expires.
fn class(frame: &decode::Frame<'_>, now: UnixMs) -> usize {
    let at = match frame.kind {
        kind::MESSAGE => message_at::EXPIRES,
        kind::INBOUND => inbound_at::EXPIRES,
        _ => return CLASSES_MS.len(),
    };
    let expires = frame.body.get(at..at + 8).map_or(u64::MAX, |bytes| u64::from_le_bytes(get(bytes, 0)));
    let left = expires.saturating_sub(now.0);
    CLASSES_MS.iter().position(|end| left <= *end).unwrap_or(CLASSES_MS.len())
}

fn name_of((kind, sequence): Id, pool: &Pool) -> &str {
    let log = || pool.live().iter().find(|one| one.header.sequence == sequence).map(|one| &*one.name);
    let kept = || pool.kept.iter().find(|one| one.header.sequence == sequence).map(|one| &*one.name);
    if kind == Kind::Log { log() } else { kept() }.unwrap_or("")
}

fn read<S: Storage>(
    world: &World<'_, S>,
    file: File,
    name: &str,
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), JournalError> {
    world
        .storage
        .read_at(file, offset, buffer)
        .map_err(|error| JournalError::kernel("read", world.storage.describe(name), &error).at(offset))
}

fn damaged<S: Storage>(world: &World<'_, S>, name: &str, at: u64, found: &'static str) -> JournalError {
    let problem =
        Problem::Corrupt { what: "what is here", expected: "a live record".into(), found: found.into() };
    JournalError::new("copy", world.storage.describe(name), problem).at(at)
}
