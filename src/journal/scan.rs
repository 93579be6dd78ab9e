//! Scanning one file: the chain of valid blocks in it, and what lies behind the chain's end.
//!
//! Decides which block is valid, and whether bytes that are not may be what a crash left of the block in flight. Which
//! files to scan and what to do about the outcome is `recover`'s.

use super::decode;
use super::error::{JournalError, Problem};
use super::format::{self, BLOCK_HEADER_BYTES, BlockHeader, Kind, PAGE_BYTES, SegmentHeader, VERSION};
use super::kept::{Kept, Place};
use super::segment::Segment;
use super::storage::Storage;
use crate::ids::Lsn;
use crate::limits;
use crate::reactor::File;

/// Bytes read at once while scanning.
pub(super) const WINDOW_BYTES: usize = 1 << 20;

/// What must hold for the next block.
#[derive(Clone, Copy)]
pub(super) struct Chain {
    pub next_block: u64,
    pub next_lsn: Lsn,
    pub previous_crc: u32,
    /// Highest in any block.
    pub durable: Lsn,
    /// Highest in any block or header.
    pub oldest_live: Lsn,
    /// The last block has records.
    pub uncovered: bool,
    /// The epoch of the segment that has to follow, if the last block names it; else 0.
    pub next_epoch: u64,
}

impl Chain {
    /// Of a log that begins.
    pub fn new(oldest_live: Lsn) -> Chain {
        Chain {
            next_block: 1,
            next_lsn: Lsn(1),
            previous_crc: 0,
            durable: Lsn::NONE,
            oldest_live,
            uncovered: false,
            next_epoch: 0,
        }
    }

    /// What must hold for the first block of that segment.
    pub fn begin(&mut self, header: &SegmentHeader) {
        (self.next_block, self.next_lsn, self.previous_crc) =
            (header.first_block, header.first_lsn, header.previous_crc);
        self.next_epoch = 0;
    }
}

/// A file, read in large pieces.
pub(super) struct Window<'a, S> {
    storage: &'a S,
    name: &'a str,
    file: File,
    file_bytes: u64,
    /// How much is read at once.
    ahead: usize,
    /// Where `bytes` begins in the file.
    offset: u64,
    bytes: Vec<u8>,
}

impl<'a, S: Storage> Window<'a, S> {
    pub fn new(storage: &'a S, name: &'a str, file: File, file_bytes: u64) -> Window<'a, S> {
        Window { storage, name, file, file_bytes, ahead: WINDOW_BYTES, offset: 0, bytes: Vec::new() }
    }

    /// One that reads only what is asked for: where what lies behind it may not be readable.
    pub fn narrow(mut self) -> Window<'a, S> {
        self.ahead = 0;
        self
    }

    /// So many bytes from there; `None` if the file ends before.
    pub fn get(&mut self, offset: u64, count: usize) -> Result<Option<&[u8]>, JournalError> {
        let end = offset + count as u64;
        if end > self.file_bytes {
            return Ok(None);
        }
        if offset < self.offset || end > self.offset + self.bytes.len() as u64 {
            let rest = usize::try_from(self.file_bytes - offset).unwrap_or(usize::MAX);
            self.bytes.resize(self.ahead.max(count).min(rest), 0);
            self.offset = offset;
            if let Err(error) = self.storage.read_at(self.file, offset, &mut self.bytes) {
                // What is in it now is from nowhere.
                self.bytes.clear();
                return Err(JournalError::kernel("read", self.storage.describe(self.name), &error).at(offset));
            }
        }
        let start = usize::try_from(offset - self.offset).expect("the window begins at or before it");
        Ok(Some(&self.bytes[start..start + count]))
    }

    /// The block at that place if it is intact in itself and `wanted`, with its CRC.
    pub fn intact(
        &mut self,
        offset: u64,
        hash_key: &[u8; 16],
        wanted: impl Fn(&BlockHeader) -> bool,
    ) -> Result<Option<(BlockHeader, u32)>, JournalError> {
        let Some(page) = self.get(offset, PAGE_BYTES)? else { return Ok(None) };
        let Some(block) = BlockHeader::claimed(page).filter(wanted) else { return Ok(None) };
        let Some(bytes) = self.get(offset, format::extent(block.record_bytes))? else { return Ok(None) };
        Ok(block.verify(bytes, hash_key).map(|crc| (block, crc)))
    }

    /// The first intact, wanted block at or behind `offset`.
    pub fn find_block(
        &mut self,
        mut offset: u64,
        hash_key: &[u8; 16],
        wanted: impl Fn(&BlockHeader) -> bool,
    ) -> Result<Option<(u64, BlockHeader)>, JournalError> {
        while offset + PAGE_BYTES as u64 <= self.file_bytes {
            if let Some((block, _)) = self.intact(offset, hash_key, &wanted)? {
                return Ok(Some((offset, block)));
            }
            offset += PAGE_BYTES as u64;
        }
        Ok(None)
    }

    /// The first page at or behind `offset` that claims to begin a wanted block, intact or not.
    fn find_claim(
        &mut self,
        mut offset: u64,
        wanted: impl Fn(&BlockHeader) -> bool,
    ) -> Result<Option<(u64, BlockHeader)>, JournalError> {
        while let Some(page) = self.get(offset, PAGE_BYTES)? {
            if let Some(block) = BlockHeader::claimed(page).filter(&wanted) {
                return Ok(Some((offset, block)));
            }
            offset += PAGE_BYTES as u64;
        }
        Ok(None)
    }

    /// Take every valid block into the segment.
    pub fn follow_chain(
        &mut self,
        segment: &mut Segment,
        chain: &mut Chain,
        hash_key: &[u8; 16],
    ) -> Result<(), JournalError> {
        let header = segment.header;
        let of_this_life =
            |block: &BlockHeader| (block.epoch, block.sequence) == (header.epoch, header.sequence);
        while let Some((block, crc)) = self.intact(segment.end, hash_key, of_this_life)? {
            let linked = (block.number, block.first_lsn, block.previous_crc)
                == (chain.next_block, chain.next_lsn, chain.previous_crc);
            if !linked {
                let expected = format!("block {} from record {}", chain.next_block, chain.next_lsn.0);
                let found = format!("block {} from record {}", block.number, block.first_lsn.0);
                let name = self.name;
                return Err(corruption(self.storage, name, segment.end, "what is here", expected, found));
            }
            if block.kind != Kind::Log as u32 {
                let problem = Problem::Version { supported: VERSION, found: VERSION + 1 };
                let object = self.storage.describe(self.name);
                return Err(JournalError::new("read a block of", object, problem).at(segment.end));
            }
            let bytes = format::extent(block.record_bytes);
            segment.add_block(block.first_lsn, block.record_count, bytes, crc);
            *chain = Chain {
                next_block: block.number + 1,
                next_lsn: Lsn(block.first_lsn.0 + u64::from(block.record_count)),
                previous_crc: crc,
                durable: chain.durable.max(block.durable),
                oldest_live: chain.oldest_live.max(block.oldest_live),
                uncovered: block.record_count > 0,
                next_epoch: block.next_epoch,
            };
        }
        Ok(())
    }

    /// Take the blocks of kept records up to that offset into the segment.
    pub fn follow_kept(
        &mut self,
        kept: &mut Kept,
        end: u64,
        hash_key: &[u8; 16],
    ) -> Result<(), JournalError> {
        while kept.end < end {
            let link = (kept.next_block, kept.last_crc);
            let Some((block, crc)) = self.linked(&kept.header, kept.end, link, hash_key)? else {
                return Ok(());
            };
            let bytes = format::extent(block.record_bytes);
            let begin = kept.end;
            let frames = self.frames(begin, &block)?;
            let mut places = Vec::with_capacity(block.record_count as usize);
            let mut position = 0;
            while let Ok((lsn, extent)) = decode::step(&frames[position..]) {
                places.push(Place::new(lsn, begin + (BLOCK_HEADER_BYTES + position) as u64));
                position += extent;
            }
            kept.add_block(crc, bytes, &places);
        }
        Ok(())
    }

    /// Visit every frame of a segment of checkpoints, with the begin and end of its block. Returns the number of the
    /// block that would be next, and the CRC of the one before.
    pub fn follow_checkpoints(
        &mut self,
        header: &SegmentHeader,
        hash_key: &[u8; 16],
        mut visit: impl FnMut(Lsn, u8, &[u8], (u64, u64)),
    ) -> Result<(u64, u32), JournalError> {
        let mut link = (header.first_block, header.previous_crc);
        let mut begin = PAGE_BYTES as u64;
        while let Some((block, crc)) = self.linked(header, begin, link, hash_key)? {
            let end = begin + format::extent(block.record_bytes) as u64;
            let mut frames = self.frames(begin, &block)?;
            while let Ok((frame, extent)) = decode::frame(frames) {
                visit(frame.lsn, frame.kind, frame.body, (begin, end));
                frames = &frames[extent..];
            }
            link = (block.number + 1, crc);
            begin = end;
        }
        Ok(link)
    }

    /// The intact block there of that life of the segment, if it has that number and that predecessor.
    pub fn linked(
        &mut self,
        header: &SegmentHeader,
        offset: u64,
        link: (u64, u32),
        hash_key: &[u8; 16],
    ) -> Result<Option<(BlockHeader, u32)>, JournalError> {
        let wanted = |block: &BlockHeader| {
            (block.epoch, block.sequence, block.kind) == (header.epoch, header.sequence, header.kind as u32)
                && (block.number, block.previous_crc) == link
        };
        self.intact(offset, hash_key, wanted)
    }

    /// The frames of an intact block.
    fn frames(&mut self, offset: u64, block: &BlockHeader) -> Result<&[u8], JournalError> {
        let bytes = self.get(offset, format::extent(block.record_bytes))?.unwrap_or_default();
        Ok(bytes
            .get(BLOCK_HEADER_BYTES..)
            .and_then(|frames| frames.get(..block.record_bytes as usize))
            .unwrap_or_default())
    }

    /// Whether what follows the last valid block of the log may be the block that was in flight. Returns how many
    /// bytes that may have touched.
    pub fn judge_tail(&mut self, segment: &Segment, chain: &Chain) -> Result<u64, JournalError> {
        let header = segment.header;
        let of_this_life =
            |block: &BlockHeader| (block.epoch, block.sequence) == (header.epoch, header.sequence);
        let (name, missing) = (self.name, chain.next_block);
        let next_page = segment.end + PAGE_BYTES as u64;
        // Also one that did not arrive as a whole: it was written because the one before it was durable. Its epoch is
        // random, and what was torn in this life before was zeroed, so nothing else can claim that.
        if let Some((offset, block)) = self.find_claim(next_page, of_this_life)? {
            let expected =
                format!("block {missing}: block {} at {offset} was written after it", block.number);
            let found = "no valid block".to_owned();
            return Err(corruption(self.storage, name, segment.end, "what is here", expected, found));
        }
        if chain.durable >= chain.next_lsn {
            let expected = format!("block {missing}: record {} was durable", chain.durable.0);
            let found = "no valid block".to_owned();
            return Err(corruption(self.storage, name, segment.end, "what is here", expected, found));
        }
        let rest = self.file_bytes - segment.end;
        let Some(page) = self.get(segment.end, PAGE_BYTES)? else { return Ok(rest) };
        let claimed = BlockHeader::claimed(page).filter(of_this_life).map_or(0, |block| block.record_bytes);
        let block_bytes = format::extent(claimed).max(format::extent(limits::BLOCK_BYTES_MAX as u32));
        Ok(rest.min(block_bytes as u64))
    }
}

/// The error that says so.
pub(super) fn corruption<S: Storage>(
    storage: &S,
    name: &str,
    offset: u64,
    what: &'static str,
    expected: String,
    found: String,
) -> JournalError {
    let problem = Problem::Corrupt { what, expected: expected.into(), found: found.into() };
    JournalError::new("validate", storage.describe(name), problem).at(offset)
}
