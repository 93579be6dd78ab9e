//! One write on its way to the disk, and the sync behind it.
//!
//! ```text
//!  start              completed            next            completed
//! ------> Write ------------------> Written ------> Sync ------------> landed: durable
//! ```
//!
//! The journal has one at a time, whoever's it is: so nothing is submitted before its predecessor's sync returned (I3).

use super::{Io, IoDone};
use crate::reactor::{Errno, File};

/// See the module documentation. `C` says what becomes durable.
#[derive(Debug)]
pub(super) struct Flight<C> {
    stage: Stage,
    file: File,
    offset: u64,
    pub cargo: C,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Write,
    Written,
    Sync,
}

/// An operation that the kernel refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    pub operation: &'static str,
    pub errno: Errno,
}

impl<C> Flight<C> {
    /// The write to be submitted.
    pub fn start(file: File, offset: u64, buffer: Vec<u8>, cargo: C) -> (Flight<C>, Io) {
        let flight = Flight { stage: Stage::Write, file, offset, cargo };
        (flight, Io::Write { file, offset, buffer })
    }

    /// Where in its file it goes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The sync to be submitted, if it is that far.
    pub fn next(&mut self) -> Option<Io> {
        if self.stage != Stage::Written {
            return None;
        }
        self.stage = Stage::Sync;
        Some(Io::Sync { file: self.file })
    }

    /// Take the outcome of what was submitted, and its buffer back. True when all of it is durable.
    pub fn completed(&mut self, done: IoDone, buffers: &mut Vec<Vec<u8>>) -> Result<bool, Refused> {
        match done {
            IoDone::Written { buffer, result } => {
                assert!(self.stage == Stage::Write, "a write was submitted");
                self.stage = Stage::Written;
                buffers.push(buffer);
                result.map_err(|errno| Refused { operation: "write", errno })?;
                Ok(false)
            }
            IoDone::Synced { result } => {
                assert!(self.stage == Stage::Sync, "a sync was submitted");
                result.map_err(|errno| Refused { operation: "sync", errno })?;
                Ok(true)
            }
        }
    }
}
