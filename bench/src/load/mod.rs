//! What loads are made of: numbered messages and their books, draws that a seed repeats, and when the next one is due.

pub mod ledger;
pub mod pace;
pub mod random;
