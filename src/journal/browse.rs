//! Looking at what is evident of a journal: what a start would apply, record by record; or everything, file by file; or
//! what each file is.
//!
//! Decides the order. What is evident, and what of it is needed, is `evidence`'s. Whoever goes through everything has one
//! block in memory at a time, beside the places of the records that are needed.

use std::ops::{ControlFlow, RangeInclusive};

use super::decode;
use super::error::{JournalError, Problem};
use super::evidence::{Entry, Evidence, Evident, Intact, Surveyed, header_of, life};
use super::format::{self, BLOCK_HEADER_BYTES, FirstPage, Kind};
use super::reader::damaged;
use super::scan::Window;
use super::storage::Storage;
use crate::ids::Lsn;
use crate::live::Facts;
use crate::record::Record;

/// What a file of a journal is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// It holds a part of the log.
    Log,
    /// It holds records that were kept when their part of the log was given up.
    Kept,
    /// It holds checkpoints.
    Checkpoint,
    /// Written full of zeros, and never used.
    Unused,
    /// Nothing says what it was.
    Unknown,
}

/// A file of a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its name.
    pub file: String,
    /// What for.
    pub life: Life,
    /// Which of its kind: they are numbered as they are taken into use. 0 if that is not known.
    pub sequence: u64,
    /// The random number of this life. 0 if that is not known.
    pub epoch: u64,
    /// The first record that was to be written to it; of one that is not the log's, the last one before it was begun.
    pub first_lsn: Lsn,
    /// Intact blocks of this life.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of the file.
    pub file_bytes: u64,
    /// A start goes by it. If not, it is free, or will be.
    pub counts: bool,
    /// Something that counts in it is not as it was written.
    pub damaged: bool,
}

impl<S: Storage> Evidence<S> {
    /// Every record that a start would apply if the journal were sound, in order, with what the checkpoint knows of it.
    pub fn replay(&self, apply: &mut dyn FnMut(Lsn, Record<'_>, Facts<'_>)) -> Result<(), JournalError> {
        let needed = self.index.iter().filter(|entry| entry.needed);
        for entry in needed {
            self.read_entry(entry, &mut |one| {
                apply(one.lsn, one.record, one.facts);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// One of them again.
    pub fn read(&self, lsn: Lsn, apply: &mut dyn FnMut(Record<'_>)) -> Result<(), JournalError> {
        let Some(entry) = self.entry(lsn) else {
            let problem = Problem::NoSuchRecord { lsn: lsn.0 };
            return Err(JournalError::new("read a record of", self.storage.describe(""), problem));
        };
        self.read_entry(entry, &mut |one| {
            apply(one.record);
            Ok(())
        })
    }

    /// Whether there is not one segment.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    fn entry(&self, lsn: Lsn) -> Option<&Entry> {
        self.index.binary_search_by_key(&lsn, |entry| entry.lsn).ok().map(|index| &self.index[index])
    }

    /// Bytes of the records that a start would apply, with their frames.
    pub fn needed_bytes(&self) -> u64 {
        self.index.iter().filter(|entry| entry.needed).map(|entry| u64::from(entry.extent)).sum()
    }

    /// Every record with a number in that range in the present life of every file, and those of former lives that are
    /// needed: file by file, the log first, each in its order there. A record that was kept may come twice; it is needed
    /// where a start would read it. Until told to stop.
    pub fn everything(
        &self,
        lsns: &RangeInclusive<Lsn>,
        apply: &mut dyn FnMut(&Evident<'_>) -> ControlFlow<()>,
    ) -> Result<(), JournalError> {
        for number in self.in_order() {
            let one = &self.files[number];
            let present = header_of(&one.file).map(|header| (header.epoch, header.sequence));
            let mut window = Window::new(&self.storage, &one.file.name, one.file.file, one.file.bytes);
            for block in one.blocks.iter().filter(|block| may_have(block, lsns)) {
                let count = format::extent(block.header.record_bytes);
                let Some(bytes) = window.get(block.begin, count)? else { continue };
                let end = BLOCK_HEADER_BYTES + block.header.record_bytes as usize;
                let frames = bytes.get(BLOCK_HEADER_BYTES..end).unwrap_or_default();
                let is_present = Some((block.header.epoch, block.header.sequence)) == present;
                if self.frames((number, block, is_present), frames, lsns, apply)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn frames(
        &self,
        (number, block, is_present): (usize, &Intact, bool),
        frames: &[u8],
        lsns: &RangeInclusive<Lsn>,
        apply: &mut dyn FnMut(&Evident<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, JournalError> {
        let file = &*self.files[number].file.name;
        let mut position = 0;
        while position < frames.len() {
            let offset = block.begin + (BLOCK_HEADER_BYTES + position) as u64;
            let fail = |defect| damaged(&self.storage, file, offset, defect);
            let (lsn, extent) = decode::step(&frames[position..]).map_err(fail)?;
            let is_here = |entry: &&Entry| {
                (usize::from(entry.file), u64::from(entry.offset)) == (number, offset) && entry.needed
            };
            let needed = self.entry(lsn).filter(is_here).is_some();
            if lsns.contains(&lsn) && (is_present || needed) {
                let (frame, _) = decode::frame(&frames[position..]).map_err(fail)?;
                let record = decode::record(&frame).map_err(fail)?;
                let (kind, facts) = ((frame.kind, frame.version), self.facts(lsn));
                if apply(&Evident { lsn, file, offset, kind, needed, record, facts }).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            position += extent;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The files of the log in order, then those of kept records, then the others.
    fn in_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.files.len()).collect();
        order.sort_by_key(|number| {
            let header = header_of(&self.files[*number].file);
            header.map_or((u32::MAX, 0), |header| (header.kind as u32, header.sequence))
        });
        order
    }

    /// What each file is.
    pub fn table(&self) -> Vec<Row> {
        self.in_order().into_iter().map(|number| self.row(&self.files[number])).collect()
    }

    fn row(&self, one: &Surveyed) -> Row {
        let name = self.storage.describe(&one.file.name);
        let Some(header) = header_of(&one.file) else {
            let life = if one.file.first_page == FirstPage::Zero { Life::Unused } else { Life::Unknown };
            let file = one.file.name.to_string();
            let (sequence, epoch, first_lsn, blocks, bytes) = (0, 0, Lsn::NONE, 0, 0);
            let damaged = life == Life::Unknown;
            let file_bytes = one.file.bytes;
            return Row {
                file,
                life,
                sequence,
                epoch,
                first_lsn,
                blocks,
                bytes,
                file_bytes,
                counts: false,
                damaged,
            };
        };
        let blocks: Vec<Intact> = life(one, &header).copied().collect();
        let whole = self.image.as_ref().is_some_and(|image| header.sequence >= image.first_sequence);
        Row {
            file: one.file.name.to_string(),
            life: match header.kind {
                Kind::Log => Life::Log,
                Kind::Kept => Life::Kept,
                Kind::Checkpoint => Life::Checkpoint,
            },
            sequence: header.sequence,
            epoch: header.epoch,
            first_lsn: header.first_lsn,
            blocks: blocks.len() as u64,
            bytes: blocks.iter().map(|block| block.end - block.begin).sum(),
            file_bytes: one.file.bytes,
            counts: self.counts(&header, &blocks).is_some() || header.kind == Kind::Checkpoint && whole,
            damaged: self.flaws().iter().any(|flaw| flaw.file == name),
        }
    }
}

/// Blocks of the log have one number after the other; those of kept records have any.
fn may_have(block: &Intact, lsns: &RangeInclusive<Lsn>) -> bool {
    let first = block.header.first_lsn;
    let end = Lsn(first.0 + u64::from(block.header.record_count));
    match Kind::from_number(block.header.kind) {
        Some(Kind::Log) => first <= *lsns.end() && end > *lsns.start(),
        Some(Kind::Kept) => true,
        Some(Kind::Checkpoint) | None => false,
    }
}
