//! The append log of one shard: everything that must survive, in one sequence.

pub mod storage;
