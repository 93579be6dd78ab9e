//! What loads are made of: numbered messages and their books, draws that a seed repeats, when the next one is due, who the
//! recipients are, and what they still have to acknowledge.

pub mod acknowledgements;
pub mod ledger;
pub mod pace;
pub mod random;
pub mod recipients;
