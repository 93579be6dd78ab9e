//! Where in a block every 32nd record begins, of the blocks from which single records were read.
//!
//! Queues that are drained together take turns: each next record is in another block than the one before. Without this, each
//! would cost a walk over its block's frames from the first, and a mebibyte to be brought into memory for a few hundred bytes:
//! half of what a drain costs (`bench/README.md`).

use std::collections::BTreeMap;
use std::ops::Range;

use super::decode::{self, Defect};
use crate::limits;

/// Records from one noted place to the next.
const STEP_RECORDS: usize = 32;

/// A block: sequence of its segment, and where it begins there.
type Place = (u64, u64);

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Steps {
    by_block: BTreeMap<Place, Box<[u32]>>,
}

impl Steps {
    /// The part of a block's frames with its record of that index, if the block is known.
    pub fn piece(&self, place: Place, index: u64) -> Option<Range<usize>> {
        let positions = self.by_block.get(&place)?;
        let step = usize::try_from(index).ok()? / STEP_RECORDS;
        Some(*positions.get(step)? as usize..*positions.get(step + 1)? as usize)
    }

    /// Where to begin to look for the record of that index in a block with these.
    pub fn begin(positions: &[u32], index: u64) -> usize {
        let step = usize::try_from(index).unwrap_or(usize::MAX) / STEP_RECORDS;
        positions.get(step).map_or(0, |position| *position as usize)
    }

    /// A block becomes known. The one that lies furthest back is forgotten for it: queues are drained from there.
    pub fn note(&mut self, place: Place, positions: Box<[u32]>) {
        if self.by_block.len() >= limits::BLOCKS_STEPPED_MAX {
            self.by_block.pop_first();
        }
        self.by_block.insert(place, positions);
    }

    /// Those of a block's frames, and where the last one ends.
    pub fn of(frames: &[u8]) -> Result<Box<[u32]>, Defect> {
        let mut positions = Vec::new();
        let (mut position, mut records) = (0, 0);
        while position < frames.len() {
            if records % STEP_RECORDS == 0 {
                positions.push(position as u32);
            }
            position += decode::step(&frames[position..])?.1;
            records += 1;
        }
        positions.push(position as u32);
        Ok(positions.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Lsn, SessionKey};
    use crate::journal::encoded;
    use crate::record::Record;

    #[test]
    fn every_record_lies_in_the_piece_that_is_named_for_it() {
        let record = |lsn: u64| encoded(Lsn(lsn), &Record::Gap { key: SessionKey(1), skipped: lsn });
        let frames: Vec<u8> = (0..100).flat_map(record).collect();
        let mut steps = Steps::default();
        assert_eq!(steps.piece((1, 4_096), 0), None);
        steps.note((1, 4_096), Steps::of(&frames).expect("intact"));
        for index in 0..100 {
            let piece = &frames[steps.piece((1, 4_096), index).expect("it is known")];
            let at = (index % 32) as usize * record(0).len();
            assert_eq!(decode::step(&piece[at..]).expect("intact").0, Lsn(index));
        }
        assert_eq!(steps.piece((1, 4_096), 128), None, "there are fewer records");
        for block in 0..limits::BLOCKS_STEPPED_MAX as u64 {
            steps.note((2, block), Box::default());
        }
        assert_eq!(steps.piece((1, 4_096), 0), None, "the one furthest back was forgotten");
        assert_eq!(steps.by_block.len(), limits::BLOCKS_STEPPED_MAX);
    }
}
