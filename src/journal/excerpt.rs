//! The bytes of a segment that count, every block of them checked on the way.
//!
//! Decides whether a file holds the part of a journal that it is taken for: its header says so, and its blocks are
//! linked from there to the end without a gap, each with a CRC that is right. Called by whoever copies or has copied;
//! what lies behind the end is of no interest, and never handed out.

use std::path::Path;

use super::error::{JournalError, Problem};
use super::format::{self, FirstPage, PAGE_BYTES, SegmentHeader};
use super::pin::Part;
use super::scan::{Window, corruption};
use super::segment;
use super::storage::{Directory, Storage};
use crate::ids::ShardId;

/// Whose segments they must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Which shard.
    pub shard: ShardId,
    /// Of how many.
    pub shards: u16,
    /// Of which data directory.
    pub hash_key: [u8; 16],
}

/// Takes what is read: a place in the file, and the bytes there.
pub type Take<'a> = dyn FnMut(u64, &[u8]) -> Result<(), JournalError> + 'a;

/// Hand out that part of the journal in `directory`: its first page, and block by block. Returns where it ends.
///
/// What was handed out before an error is of no use.
pub fn read_part(
    directory: &Path,
    part: &Part,
    owner: &Owner,
    take: &mut Take<'_>,
) -> Result<u64, JournalError> {
    let name = part.name();
    let source = Source::open(directory, &name)?;
    let (header, page) = source.header(owner)?;
    let of = |header: &SegmentHeader| (header.kind, header.sequence, header.epoch, header.bytes);
    if of(&header) != (part.kind, part.sequence, part.epoch, part.bytes) {
        let expected = format!("that of sequence {}, epoch {:016x}", part.sequence, part.epoch);
        let found = format!("that of sequence {}, epoch {:016x}", header.sequence, header.epoch);
        return Err(source.damage(0, "the segment header", expected, found));
    }
    take(0, &page)?;
    let (end, last_crc) = source.walk(&header, part.end, &owner.hash_key, take)?;
    if let Some(crc) = part.last_crc.filter(|crc| *crc != last_crc) {
        let (expected, found) = (format!("{crc:08x}"), format!("{last_crc:08x}"));
        return Err(source.damage(end, "the checksum of the block before", expected, found));
    }
    Ok(end)
}

/// What part of such a journal that file holds, up to the end of its chain; `None` if it holds none.
pub fn examine(directory: &Path, name: &str, owner: &Owner) -> Result<Option<Part>, JournalError> {
    if segment::number(name).is_none() {
        return Ok(None);
    }
    let source = Source::open(directory, name)?;
    let header = match source.header(owner) {
        Ok((header, _)) => header,
        Err(error) if matches!(error.problem, Problem::Corrupt { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let (end, last_crc) = source.walk(&header, None, &owner.hash_key, &mut |_, _| Ok(()))?;
    Ok(Some(Part::new(name, &header, end, Some(last_crc))))
}

/// A file that is read.
struct Source<'a> {
    storage: Directory,
    name: &'a str,
    file: crate::reactor::File,
    bytes: u64,
}

impl<'a> Source<'a> {
    /// The descriptor is closed with it: a journal may have more segments than a process may have files.
    fn open(directory: &Path, name: &'a str) -> Result<Source<'a>, JournalError> {
        let failed = |operation| {
            move |error| JournalError::kernel(operation, directory.join(name).display().to_string(), &error)
        };
        let storage = Directory::open_read_only(directory).map_err(failed("open"))?;
        let file = storage.open(name).map_err(failed("open"))?;
        let bytes = storage.len(file).map_err(failed("measure"))?;
        storage.read_once(file);
        Ok(Source { storage, name, file, bytes })
    }

    fn header(&self, owner: &Owner) -> Result<(SegmentHeader, Vec<u8>), JournalError> {
        let mut window = Window::new(&self.storage, self.name, self.file, self.bytes).narrow();
        let page = window.get(0, PAGE_BYTES)?.map(<[u8]>::to_vec).unwrap_or_default();
        let decoded = page.first_chunk().map_or(FirstPage::Invalid, SegmentHeader::decode);
        let whole = |header: &SegmentHeader| {
            (header.shard, header.shards, header.hash_key) == (owner.shard, owner.shards, owner.hash_key)
                && header.bytes == self.bytes
        };
        match decoded {
            FirstPage::Header(header) if whole(&header) => Ok((header, page)),
            FirstPage::Foreign { version } => {
                let problem = Problem::Version { supported: format::VERSION, found: version };
                Err(JournalError::new("read", self.storage.describe(self.name), problem))
            }
            FirstPage::Header(_) | FirstPage::Zero | FirstPage::Invalid => {
                let expected =
                    format!("that of a segment of shard {} and {} bytes", owner.shard.0, self.bytes);
                Err(self.damage(0, "the first page", expected, "something else".to_owned()))
            }
        }
    }

    /// Every block up to that end, or to the chain's. Returns where that is, and the last block's CRC.
    fn walk(
        &self,
        header: &SegmentHeader,
        end: Option<u64>,
        hash_key: &[u8; 16],
        take: &mut Take<'_>,
    ) -> Result<(u64, u32), JournalError> {
        // What lies behind the end may be written just now.
        let mut window = Window::new(&self.storage, self.name, self.file, end.unwrap_or(self.bytes));
        let mut link = (header.first_block, header.previous_crc);
        let mut offset = PAGE_BYTES as u64;
        while end.is_none_or(|end| offset < end) {
            let Some((block, crc)) = window.linked(header, offset, link, hash_key)? else {
                let Some(end) = end else { break };
                let expected = format!("block {}, with {end} bytes to come to its end", link.0);
                return Err(self.damage(offset, "what is here", expected, "no valid block".to_owned()));
            };
            let extent = format::extent(block.record_bytes);
            take(offset, window.get(offset, extent)?.unwrap_or_default())?;
            link = (block.number + 1, crc);
            offset += extent as u64;
        }
        Ok((offset, link.1))
    }

    fn damage(&self, offset: u64, what: &'static str, expected: String, found: String) -> JournalError {
        corruption(&self.storage, self.name, offset, what, expected, found)
    }
}
