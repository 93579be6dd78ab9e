//! The chunks of a live set, found by their number in two accesses of memory and walked in order.
//!
//! Every acknowledgement looks into some chunk, mostly one that is not in the processor's cache, and each level of a tree
//! would be another miss. So the table has the chunks, and the tree, which changes only when a chunk comes or goes, the
//! order of their numbers.

use std::collections::BTreeSet;
use std::ops::RangeBounds;

use super::Bits;
use crate::hash::ByNumber;

/// One chunk.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub live: Bits,
    /// Those of them that are needed once more, by whatever it is: as a message is by its only recipient and its body's user.
    pub twice: Bits,
    /// Those of them that weigh more than a note.
    pub bodies: Bits,
    /// What those weigh together; the mean of them is taken off when one dies.
    pub body_bytes: u64,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    by_number: ByNumber<u64, Chunk>,
    numbers: BTreeSet<u64>,
}

impl Chunks {
    pub fn get(&self, number: u64) -> Option<&Chunk> {
        self.by_number.get(&number)
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut Chunk> {
        self.by_number.get_mut(&number)
    }

    /// The chunk, empty if there was none.
    pub fn of(&mut self, number: u64) -> &mut Chunk {
        let numbers = &mut self.numbers;
        self.by_number.entry(number).or_insert_with(|| {
            numbers.insert(number);
            Chunk::default()
        })
    }

    pub fn remove(&mut self, number: u64) {
        self.by_number.remove(&number);
        self.numbers.remove(&number);
    }

    /// Those in that range, in order.
    pub fn range(&self, numbers: impl RangeBounds<u64>) -> impl Iterator<Item = (u64, &Chunk)> {
        self.numbers.range(numbers).map(|number| (*number, &self.by_number[number]))
    }
}
