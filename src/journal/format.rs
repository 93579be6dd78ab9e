//! The bytes of a segment: its header, commit blocks and record frames. Positions, limits and checksums; no I/O.
//!
//! All numbers are little endian. Offsets and sizes in bytes.
//!
//! | segment header | offset | size | |
//! |---|---|---|---|
//! | magic | 0 | 8 | `IRONPOST` |
//! | format version | 8 | 4 | 1 |
//! | archive descriptor | 12 | 4 | how rkyv lays out cold records: [`ARCHIVE_DESCRIPTOR`] |
//! | shard, shards | 16, 18 | 2, 2 | whose journal, of how many |
//! | previous CRC | 20 | 4 | of the last block before this segment, 0 if none |
//! | sequence | 24 | 8 | from 1; one more than the segment before it in the log |
//! | epoch | 32 | 8 | random per life of the file, never 0 |
//! | segment bytes | 40 | 8 | length of the file |
//! | first block | 48 | 8 | number of its first block |
//! | first LSN | 56 | 8 | of its first record |
//! | oldest live LSN | 64 | 8 | records below may be gone |
//! | hash key | 72 | 16 | of the data directory |
//! | kind | 88 | 4 | 0: part of the log; 1: records kept of segments that are gone; 2: checkpoints. Each counts its sequence for itself |
//! | zeros | 92 | 4,000 | |
//! | CRC | 4,092 | 4 | CRC32C of everything before it. Here in every version of the format |
//!
//! | block header | offset | size | |
//! |---|---|---|---|
//! | magic | 0 | 4 | `IPBK` |
//! | CRC | 4 | 4 | CRC32C of everything after it up to the end of the block's last page, seeded with hash key and epoch |
//! | epoch, sequence | 8, 16 | 8, 8 | of its segment |
//! | number | 24 | 8 | from 1, through all segments |
//! | first LSN | 32 | 8 | of its first record, or of the next one to come if it has none |
//! | durable LSN | 40 | 8 | known when the block was built |
//! | oldest live LSN | 48 | 8 | as above |
//! | record bytes | 56 | 4 | |
//! | record count | 60 | 4 | |
//! | previous CRC | 64 | 4 | of the block before it |
//! | kind | 68 | 4 | 0: records; 1: kept records, each with its own number; 2: part of a checkpoint |
//! | next epoch | 72 | 8 | that of the segment that follows, if this is the last block of its segment; else 0 |
//!
//! Records follow at 80, then zeros up to a multiple of 4,096.
//!
//! | record frame | offset | size | |
//! |---|---|---|---|
//! | CRC | 0 | 4 | CRC32C from offset 4 to the end of the body |
//! | length | 4 | 4 | of the body |
//! | LSN | 8 | 8 | |
//! | type, version | 16, 17 | 1, 1 | see `encode` |
//! | flags, zeros | 18, 20 | 2, 4 | 0 |
//! | body | 24 | length | then zeros up to a multiple of 8 |

use crate::ids::{Lsn, ShardId};

/// Unit of everything that is written: a smaller write would make the kernel read the rest of its page first.
pub(super) const PAGE_BYTES: usize = 4_096;
/// Format version of segments and of the `meta` file.
pub(super) const VERSION: u32 = 1;
/// rkyv 0.8: little endian, unaligned, 32-bit relative pointers. `encode` asserts sizes that follow from it.
pub(super) const ARCHIVE_DESCRIPTOR: u32 = 0x0008_0132;
/// Size of a block header.
pub(super) const BLOCK_HEADER_BYTES: usize = 80;
/// Size of the frame before a record's body.
pub(super) const FRAME_BYTES: usize = 24;

/// What a segment, and each block in it, is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Kind {
    /// The log: its blocks are linked, and their records numbered without a gap.
    Log = 0,
    /// Records that were live when their segment was given up.
    Kept = 1,
    /// Checkpoints.
    Checkpoint = 2,
}

impl Kind {
    pub fn from_number(number: u32) -> Option<Kind> {
        [Kind::Log, Kind::Kept, Kind::Checkpoint].into_iter().find(|kind| *kind as u32 == number)
    }
}

const SEGMENT_MAGIC: [u8; 8] = *b"IRONPOST";
const BLOCK_MAGIC: [u8; 4] = *b"IPBK";

/// Offsets in a segment header.
mod segment_at {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = MAGIC + 8;
    pub const ARCHIVE: usize = VERSION + 4;
    pub const SHARD: usize = ARCHIVE + 4;
    pub const SHARDS: usize = SHARD + 2;
    pub const PREVIOUS_CRC: usize = SHARDS + 2;
    pub const SEQUENCE: usize = PREVIOUS_CRC + 4;
    pub const EPOCH: usize = SEQUENCE + 8;
    pub const BYTES: usize = EPOCH + 8;
    pub const FIRST_BLOCK: usize = BYTES + 8;
    pub const FIRST_LSN: usize = FIRST_BLOCK + 8;
    pub const OLDEST_LIVE: usize = FIRST_LSN + 8;
    pub const HASH_KEY: usize = OLDEST_LIVE + 8;
    pub const KIND: usize = HASH_KEY + 16;
    pub const END: usize = KIND + 4;
    pub const CRC: usize = super::PAGE_BYTES - 4;
}

/// Offsets in a block header.
mod block_at {
    pub const MAGIC: usize = 0;
    pub const CRC: usize = MAGIC + 4;
    pub const EPOCH: usize = CRC + 4;
    pub const SEQUENCE: usize = EPOCH + 8;
    pub const NUMBER: usize = SEQUENCE + 8;
    pub const FIRST_LSN: usize = NUMBER + 8;
    pub const DURABLE: usize = FIRST_LSN + 8;
    pub const OLDEST_LIVE: usize = DURABLE + 8;
    pub const RECORD_BYTES: usize = OLDEST_LIVE + 8;
    pub const RECORD_COUNT: usize = RECORD_BYTES + 4;
    pub const PREVIOUS_CRC: usize = RECORD_COUNT + 4;
    pub const KIND: usize = PREVIOUS_CRC + 4;
    pub const NEXT_EPOCH: usize = KIND + 4;
    pub const END: usize = NEXT_EPOCH + 8;
}

/// Offsets in a record frame.
pub(super) mod frame_at {
    pub const CRC: usize = 0;
    pub const LENGTH: usize = CRC + 4;
    pub const LSN: usize = LENGTH + 4;
    pub const TYPE: usize = LSN + 8;
    pub const VERSION: usize = TYPE + 1;
    pub const FLAGS: usize = VERSION + 1;
    pub const ZEROS: usize = FLAGS + 2;
}

// The tables above, as the compiler reads them: a change of any of these is another format version.
const _: () = assert!(segment_at::VERSION == 8 && segment_at::SEQUENCE == 24 && segment_at::EPOCH == 32);
const _: () = assert!(segment_at::FIRST_LSN == 56 && segment_at::HASH_KEY == 72 && segment_at::KIND == 88);
const _: () = assert!(segment_at::CRC == 4_092 && segment_at::END <= segment_at::CRC);
const _: () = assert!(block_at::EPOCH == 8 && block_at::FIRST_LSN == 32 && block_at::RECORD_BYTES == 56);
const _: () = assert!(block_at::KIND == 68 && block_at::END == BLOCK_HEADER_BYTES);
const _: () = assert!(frame_at::LSN == 8 && frame_at::TYPE == 16 && frame_at::ZEROS + 4 == FRAME_BYTES);
const _: () = assert!(BLOCK_HEADER_BYTES.is_multiple_of(8) && FRAME_BYTES.is_multiple_of(8));

/// What the first page of a segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub kind: Kind,
    pub shard: ShardId,
    pub shards: u16,
    pub previous_crc: u32,
    pub sequence: u64,
    pub epoch: u64,
    pub bytes: u64,
    pub first_block: u64,
    pub first_lsn: Lsn,
    pub oldest_live: Lsn,
    pub hash_key: [u8; 16],
}

/// What the first page of a file turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FirstPage {
    /// A segment in use, or one that was.
    Header(SegmentHeader),
    /// Another version of the format, intact.
    Foreign { version: u32 },
    /// Never used.
    Zero,
    /// Torn or damaged.
    Invalid,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        put(&mut page, segment_at::MAGIC, SEGMENT_MAGIC);
        put(&mut page, segment_at::VERSION, VERSION.to_le_bytes());
        put(&mut page, segment_at::ARCHIVE, ARCHIVE_DESCRIPTOR.to_le_bytes());
        put(&mut page, segment_at::SHARD, self.shard.0.to_le_bytes());
        put(&mut page, segment_at::SHARDS, self.shards.to_le_bytes());
        put(&mut page, segment_at::PREVIOUS_CRC, self.previous_crc.to_le_bytes());
        put(&mut page, segment_at::SEQUENCE, self.sequence.to_le_bytes());
        put(&mut page, segment_at::EPOCH, self.epoch.to_le_bytes());
        put(&mut page, segment_at::BYTES, self.bytes.to_le_bytes());
        put(&mut page, segment_at::FIRST_BLOCK, self.first_block.to_le_bytes());
        put(&mut page, segment_at::FIRST_LSN, self.first_lsn.0.to_le_bytes());
        put(&mut page, segment_at::OLDEST_LIVE, self.oldest_live.0.to_le_bytes());
        put(&mut page, segment_at::HASH_KEY, self.hash_key);
        put(&mut page, segment_at::KIND, (self.kind as u32).to_le_bytes());
        let crc = crc32c::crc32c(&page[..segment_at::CRC]);
        put(&mut page, segment_at::CRC, crc.to_le_bytes());
        page
    }

    /// Judge the first page of a file. Length first, then magic and CRC, then the rest.
    pub fn decode(page: &[u8; PAGE_BYTES]) -> FirstPage {
        if page.iter().all(|byte| *byte == 0) {
            return FirstPage::Zero;
        }
        let crc = u32::from_le_bytes(get(page, segment_at::CRC));
        if get(page, segment_at::MAGIC) != SEGMENT_MAGIC || crc != crc32c::crc32c(&page[..segment_at::CRC]) {
            return FirstPage::Invalid;
        }
        let version = u32::from_le_bytes(get(page, segment_at::VERSION));
        if version != VERSION || u32::from_le_bytes(get(page, segment_at::ARCHIVE)) != ARCHIVE_DESCRIPTOR {
            return FirstPage::Foreign { version };
        }
        let Some(kind) = Kind::from_number(u32::from_le_bytes(get(page, segment_at::KIND))) else {
            return FirstPage::Foreign { version: VERSION + 1 };
        };
        FirstPage::Header(SegmentHeader {
            kind,
            shard: ShardId(u16::from_le_bytes(get(page, segment_at::SHARD))),
            shards: u16::from_le_bytes(get(page, segment_at::SHARDS)),
            previous_crc: u32::from_le_bytes(get(page, segment_at::PREVIOUS_CRC)),
            sequence: u64::from_le_bytes(get(page, segment_at::SEQUENCE)),
            epoch: u64::from_le_bytes(get(page, segment_at::EPOCH)),
            bytes: u64::from_le_bytes(get(page, segment_at::BYTES)),
            first_block: u64::from_le_bytes(get(page, segment_at::FIRST_BLOCK)),
            first_lsn: Lsn(u64::from_le_bytes(get(page, segment_at::FIRST_LSN))),
            oldest_live: Lsn(u64::from_le_bytes(get(page, segment_at::OLDEST_LIVE))),
            hash_key: get(page, segment_at::HASH_KEY),
        })
    }
}

/// What the first 80 bytes of a block say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BlockHeader {
    pub epoch: u64,
    pub sequence: u64,
    pub number: u64,
    pub first_lsn: Lsn,
    pub durable: Lsn,
    pub oldest_live: Lsn,
    pub record_bytes: u32,
    pub record_count: u32,
    pub previous_crc: u32,
    pub kind: u32,
    pub next_epoch: u64,
}

impl BlockHeader {
    /// Put the header in front of the records that `block` holds from [`BLOCK_HEADER_BYTES`] on; `block` is whole
    /// pages. Returns the block's CRC.
    pub fn seal(&self, block: &mut [u8], hash_key: &[u8; 16]) -> u32 {
        assert!(block.len() == extent(self.record_bytes), "a block is its records in whole pages");
        put(block, block_at::MAGIC, BLOCK_MAGIC);
        put(block, block_at::EPOCH, self.epoch.to_le_bytes());
        put(block, block_at::SEQUENCE, self.sequence.to_le_bytes());
        put(block, block_at::NUMBER, self.number.to_le_bytes());
        put(block, block_at::FIRST_LSN, self.first_lsn.0.to_le_bytes());
        put(block, block_at::DURABLE, self.durable.0.to_le_bytes());
        put(block, block_at::OLDEST_LIVE, self.oldest_live.0.to_le_bytes());
        put(block, block_at::RECORD_BYTES, self.record_bytes.to_le_bytes());
        put(block, block_at::RECORD_COUNT, self.record_count.to_le_bytes());
        put(block, block_at::PREVIOUS_CRC, self.previous_crc.to_le_bytes());
        put(block, block_at::KIND, self.kind.to_le_bytes());
        put(block, block_at::NEXT_EPOCH, self.next_epoch.to_le_bytes());
        let crc = block_crc(block, self.epoch, hash_key);
        put(block, block_at::CRC, crc.to_le_bytes());
        crc
    }

    /// What a page that may begin a block claims to be; `None` if it has not even the magic. Nothing is checked.
    pub fn claimed(page: &[u8]) -> Option<BlockHeader> {
        if page.len() < BLOCK_HEADER_BYTES || get(page, block_at::MAGIC) != BLOCK_MAGIC {
            return None;
        }
        Some(BlockHeader {
            epoch: u64::from_le_bytes(get(page, block_at::EPOCH)),
            sequence: u64::from_le_bytes(get(page, block_at::SEQUENCE)),
            number: u64::from_le_bytes(get(page, block_at::NUMBER)),
            first_lsn: Lsn(u64::from_le_bytes(get(page, block_at::FIRST_LSN))),
            durable: Lsn(u64::from_le_bytes(get(page, block_at::DURABLE))),
            oldest_live: Lsn(u64::from_le_bytes(get(page, block_at::OLDEST_LIVE))),
            record_bytes: u32::from_le_bytes(get(page, block_at::RECORD_BYTES)),
            record_count: u32::from_le_bytes(get(page, block_at::RECORD_COUNT)),
            previous_crc: u32::from_le_bytes(get(page, block_at::PREVIOUS_CRC)),
            kind: u32::from_le_bytes(get(page, block_at::KIND)),
            next_epoch: u64::from_le_bytes(get(page, block_at::NEXT_EPOCH)),
        })
    }

    /// Whether the whole block is as it was sealed; its CRC if so.
    pub fn verify(&self, block: &[u8], hash_key: &[u8; 16]) -> Option<u32> {
        if block.len() != extent(self.record_bytes) {
            return None;
        }
        let crc = block_crc(block, self.epoch, hash_key);
        (u32::from_le_bytes(get(block, block_at::CRC)) == crc).then_some(crc)
    }
}

/// Bytes on disk of a block with so many bytes of records.
pub(super) fn extent(record_bytes: u32) -> usize {
    (BLOCK_HEADER_BYTES + record_bytes as usize).next_multiple_of(PAGE_BYTES)
}

/// The hash key is in the seed because a sender chooses payloads: without the key nobody can put something into one
/// that could be taken for a block, wherever it comes to lie.
fn block_crc(block: &[u8], epoch: u64, hash_key: &[u8; 16]) -> u32 {
    let seed = crc32c::crc32c_append(crc32c::crc32c(hash_key), &epoch.to_le_bytes());
    crc32c::crc32c_append(seed, &block[block_at::EPOCH..])
}

/// Copy out a fixed number of bytes. Callers have checked the length.
pub(super) fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the caller has checked that the header is whole")
}

pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            kind: Kind::Kept,
            shard: ShardId(3),
            shards: 8,
            previous_crc: 0xDEAD_BEEF,
            sequence: 5,
            epoch: 6,
            bytes: 1 << 20,
            first_block: 7,
            first_lsn: Lsn(9),
            oldest_live: Lsn(4),
            hash_key: [1; 16],
        }
    }

    #[test]
    fn a_segment_header_comes_back_and_any_flipped_bit_in_it_is_seen() {
        let mut page = header().encode();
        assert_eq!(SegmentHeader::decode(&page), FirstPage::Header(header()));
        for bit in 0..PAGE_BYTES * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&page), FirstPage::Invalid, "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(SegmentHeader::decode(&[0; PAGE_BYTES]), FirstPage::Zero);
    }

    #[test]
    fn a_block_comes_back_and_any_flipped_bit_in_it_is_seen() {
        let header = BlockHeader {
            epoch: 1,
            sequence: 2,
            number: 3,
            first_lsn: Lsn(4),
            durable: Lsn(3),
            oldest_live: Lsn(1),
            record_bytes: 5_000,
            record_count: 6,
            previous_crc: 7,
            kind: Kind::Log as u32,
            next_epoch: 12,
        };
        let mut block = vec![0; extent(5_000)];
        block[100] = 9;
        let crc = header.seal(&mut block, &[1; 16]);
        let valid =
            |block: &[u8]| BlockHeader::claimed(block).and_then(|claim| claim.verify(block, &[1; 16]));
        assert_eq!(BlockHeader::claimed(&block), Some(header));
        assert_eq!(valid(&block), Some(crc));
        assert_eq!(header.verify(&block, &[2; 16]), None, "another data directory's");
        for bit in 0..block.len() * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(valid(&block), None, "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
