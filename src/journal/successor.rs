//! A segment that the last block of the log names, and that is not there.
//!
//! Decides what is missing with it: nothing says how many records it had, or whether it had any.

use super::evidence::{Evidence, Flaw, Lost, Surveyed, header_of};
use super::format::Kind;
use super::storage::Storage;

impl<S: Storage> Evidence<S> {
    /// Miss it: a flaw, and the first of the records that may be lost.
    pub(super) fn miss_successor(&mut self) {
        let blocks = self.files.iter().flat_map(|one| one.blocks.iter().map(move |block| (one, block)));
        let log = blocks.filter(|(_, block)| block.header.kind == Kind::Log as u32);
        let Some((one, last)) = log.max_by_key(|(_, block)| block.header.number) else { return };
        let (block, epoch) = (last.header, last.header.next_epoch);
        let is_it = |other: &Surveyed| header_of(&other.file).is_some_and(|header| header.epoch == epoch);
        if epoch == 0 || self.files.iter().any(is_it) {
            return;
        }
        let next = block.sequence + 1;
        self.flaws.push(Flaw {
            file: self.storage.describe(&one.file.name),
            offset: last.begin,
            expected: format!("segment {next}, of epoch {epoch:016x}, to follow"),
            found: "no such segment".to_owned(),
        });
        if self.last_lsn() < block.first_lsn {
            self.lost.push(Lost {
                lsns: block.first_lsn..=block.first_lsn,
                records: 1,
                place: format!(
                    "segment {next}, which is gone: how many records it had, if any, is not known"
                ),
            });
        }
    }
}
