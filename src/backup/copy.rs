//! Segments from one directory to another: every block checked on the way, everything synced.
//!
//! Decides how fast. Reading goes through the page cache, where what was written a moment ago still is; the kernel is told
//! that it is read once, so that it does not push out what a broker reads again. What was written is waited for every few
//! MiB, so that no sync of a broker on the same disk finds a long queue before it, and dropped from the cache at the end.
//! With a rate, it pauses whenever it is ahead of that.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::journal::{JournalError, Owner, Part, forget_pages, read_part};
use crate::limits::BACKUP_SYNC_BYTES;

/// What to put behind the end of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rest {
    /// Nothing: a hole takes no room, and reads as zeros.
    Hole,
    /// Zeros, as in a segment that a broker is to write to.
    Zeros,
}

/// Keeps a rate.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    begun: Instant,
    bytes: u64,
}

impl Pace {
    /// `None`: as fast as it goes.
    pub(super) fn new(bytes_per_second: Option<u64>) -> Pace {
        Pace { bytes_per_second, begun: clock(), bytes: 0 }
    }

    /// So much was done.
    fn spend(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let Some(rate) = self.bytes_per_second else { return };
        let due = Duration::from_secs_f64(self.bytes as f64 / rate.max(1) as f64);
        let ahead = due.saturating_sub(self.begun.elapsed());
        if ahead > Duration::from_millis(1) {
            pause(ahead);
        }
    }

    /// Time since it began.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// Copy that part from one directory to another, where it is new. Durable but for its directory's entry. Returns the
/// bytes that count.
pub(super) fn copy_part(
    (source, target): (&Path, &Path),
    part: &Part,
    owner: &Owner,
    rest: Rest,
    pace: &mut Pace,
) -> Result<u64, JournalError> {
    let path = target.join(part.name());
    let failed = |operation| {
        let object = path.display().to_string();
        move |error| JournalError::kernel(operation, object.clone(), &error)
    };
    let mut file = fs::File::create_new(&path).map_err(failed("make"))?;
    let mut unsynced = 0;
    let mut write = |file: &mut fs::File, bytes: &[u8]| -> Result<(), JournalError> {
        file.write_all(bytes).map_err(failed("write"))?;
        unsynced += bytes.len() as u64;
        if unsynced >= BACKUP_SYNC_BYTES {
            unsynced = 0;
            file.sync_data().map_err(failed("sync"))?;
        }
        pace.spend(bytes.len());
        Ok(())
    };
    // What is handed out follows on each other, from the first byte on.
    let end = read_part(source, part, owner, &mut |_, bytes| write(&mut file, bytes))?;
    match rest {
        Rest::Hole => file.set_len(part.bytes).map_err(failed("lengthen"))?,
        Rest::Zeros => {
            let zeros = vec![0; 1 << 20];
            let mut offset = end;
            while offset < part.bytes {
                let count =
                    usize::try_from(part.bytes - offset).map_or(zeros.len(), |rest| rest.min(zeros.len()));
                write(&mut file, &zeros[..count])?;
                offset += count as u64;
            }
        }
    }
    file.sync_all().map_err(failed("sync"))?;
    forget_pages(&file);
    Ok(end)
}

#[expect(clippy::disallowed_methods, reason = "paces a copy; no shard sees it")]
fn clock() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "paces a copy, in a process of its own")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
