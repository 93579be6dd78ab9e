//! A journal without a reactor: for commands on a stopped data directory, which may wait.

use super::error::Problem;
use super::{Io, IoDone, Journal, JournalError, Storage, encode};
use crate::ids::Lsn;
use crate::live::LiveSet;
use crate::record::Record;
use crate::time::Now;

/// Bytes that the record takes in a block. `scratch` saves an allocation.
pub fn record_bytes(record: &Record<'_>, scratch: &mut Vec<u8>) -> usize {
    scratch.clear();
    encode::encode(Lsn(1), record, scratch);
    scratch.len()
}

impl<S: Storage> Journal<S> {
    /// Write and sync everything that was appended, growing as needed. Blocks. Gives no segment up, so that it does not
    /// have to be known what is live; `witness` was called before, once the journal was replayed.
    ///
    /// # Panics
    ///
    /// If `witness` was not called.
    pub fn write_out(&mut self) -> Result<(), JournalError> {
        assert!(self.stopping, "nothing may be given up without knowing what is live");
        let (live, now) = (LiveSet::default(), Now::default());
        loop {
            let Some(io) = self.commit(&live, now)? else {
                if self.pending_bytes() == 0 {
                    return Ok(());
                }
                let Some(request) = self.grow(now) else {
                    // One that could not grow has said so at once.
                    let problem = Problem::TooManySegments { found: self.segments().0 };
                    return Err(JournalError::new("add a segment to", self.storage.describe(""), problem));
                };
                self.grown(request.execute(&self.storage), now)?;
                continue;
            };
            let errno = |error: std::io::Error| super::error::errno(&error);
            let done = match io {
                Io::Write { file, offset, buffer } => {
                    let result = self.storage.write_at(file, offset, &buffer).map_err(errno);
                    IoDone::Written { buffer, result }
                }
                Io::Sync { file } => IoDone::Synced { result: self.storage.sync(file).map_err(errno) },
            };
            self.completed(done, &live, now)?;
        }
    }
}
