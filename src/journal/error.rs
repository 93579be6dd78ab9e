//! What can go wrong with a journal, said so that an operator can act on it.
//!
//! Two kinds are met at start (the directory is in use, foreign or damaged) and one at run time (the kernel refuses).
//! A run-time error of a write or sync is fatal: see the module documentation, "Failure".

use std::fmt;
use std::io;

use crate::ids::ShardId;
use crate::reactor::Errno;

/// An operation on a journal that did not succeed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalError {
    /// What was tried, as a verb: "sync", "validate".
    pub operation: &'static str,
    /// The file or directory.
    pub object: Box<str>,
    /// Where in the file, in bytes.
    pub offset: Option<u64>,
    /// Why it failed.
    pub problem: Problem,
}

/// Why an operation failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// The kernel said so.
    Kernel(Errno),
    /// Another process has the directory.
    InUse,
    /// What is there is not what was made durable there.
    Corrupt {
        /// Which property does not hold.
        what: &'static str,
        /// What it must be.
        expected: Box<str>,
        /// What it is.
        found: Box<str>,
    },
    /// Written by another version of the format.
    Version {
        /// What this program reads and writes.
        supported: u32,
        /// What is recorded there.
        found: u32,
    },
    /// The directory belongs to another number of shards.
    ShardCount {
        /// What is recorded there.
        recorded: u16,
        /// What was asked for.
        requested: u16,
    },
    /// The directory belongs to another shard.
    Shard {
        /// What is recorded there.
        recorded: ShardId,
        /// What was asked for.
        requested: ShardId,
    },
    /// The directory belongs to another data directory.
    OtherDirectory,
    /// The journal was begun once, and there is nothing of it.
    JournalMissing,
    /// There is no data directory.
    DataDirectoryMissing,
    /// There are journals, but not the file that says how many shards and which hash key they belong to.
    MetaMissing,
    /// A data directory was to be made where something is.
    NotEmpty,
    /// Something is in a directory that a backup is to be made in, and it is not a backup.
    NotABackup,
    /// The backup in that directory is another broker's.
    OtherBackup,
    /// Nobody was ever served from the data directory.
    NeverServed,
    /// A setting is outside of its bounds.
    Setting {
        /// Which, and what its bounds are.
        bounds: &'static str,
    },
    /// More files than a journal may have.
    TooManySegments {
        /// How many there are.
        found: usize,
    },
    /// The record is below the oldest one kept, or not written yet.
    NoSuchRecord {
        /// Its number.
        lsn: u64,
    },
}

impl JournalError {
    pub(super) fn new(
        operation: &'static str,
        object: impl Into<Box<str>>,
        problem: Problem,
    ) -> JournalError {
        JournalError { operation, object: object.into(), offset: None, problem }
    }

    /// There is nothing in that data directory.
    pub(crate) fn of_never_served(data: &std::path::Path) -> JournalError {
        JournalError::new("back up", data.display().to_string(), Problem::NeverServed)
    }

    pub(super) fn at(mut self, offset: u64) -> JournalError {
        self.offset = Some(offset);
        self
    }

    /// What the kernel said about that operation.
    pub(crate) fn kernel(
        operation: &'static str,
        object: impl Into<Box<str>>,
        error: &io::Error,
    ) -> JournalError {
        // A lock that is held is the only thing here that would block.
        let problem = match error.kind() {
            io::ErrorKind::WouldBlock => Problem::InUse,
            _ => Problem::Kernel(errno(error)),
        };
        JournalError::new(operation, object, problem)
    }

    /// Whether another process has it.
    pub fn is_in_use(&self) -> bool {
        self.problem == Problem::InUse
    }

    /// Whether there is no such file or directory.
    pub fn is_missing(&self) -> bool {
        self.problem == Problem::Kernel(Errno(libc::ENOENT))
    }

    /// Whether there was no room on the disk.
    pub fn is_out_of_space(&self) -> bool {
        matches!(self.problem, Problem::Kernel(Errno(libc::ENOSPC | libc::EDQUOT)))
    }

    /// What to do about it.
    pub fn cure(&self) -> String {
        let object = &self.object;
        match &self.problem {
            Problem::Kernel(errno) => self.cure_of_kernel(*errno),
            Problem::InUse => {
                format!("another process uses {object} (see `fuser -v {object}`): stop it, or give this one another --data")
            }
            Problem::Corrupt { .. } => format!(
                "acknowledged messages may be damaged, so nothing was changed: copy the directory of {object} away, see \
                 `dmesg` and `smartctl -a` for the disk and `ironpost journal verify` for all that is damaged, then restore \
                 a backup, or keep what is intact: `ironpost journal salvage --to NEW_DIRECTORY` says what is missing"
            ),
            Problem::Version { supported, found } if found > supported => {
                "start the newer version of ironpost that wrote it".to_owned()
            }
            Problem::Version { .. } => "start the older version of ironpost that wrote it".to_owned(),
            Problem::ShardCount { recorded, requested } => format!(
                "start with --shards {recorded}, or change the number first, while nothing runs on it: `ironpost journal \
                 reshard {requested} --data {object}`"
            ),
            Problem::Shard { .. } => {
                "put the shard directories back under their own names: `shard-NNN` belongs to shard NNN".to_owned()
            }
            Problem::OtherDirectory => {
                "put the shard directories back into the data directory that they were made in".to_owned()
            }
            Problem::JournalMissing => format!(
                "bring its segments back to {object} (is a file system not mounted?), or restore the data directory from a \
                 backup, or keep what the others have: `ironpost journal salvage --to NEW_DIRECTORY`"
            ),
            Problem::DataDirectoryMissing => {
                "name the data directory of the broker with --data, or its configuration with --config".to_owned()
            }
            Problem::MetaMissing => format!(
                "restore {object} from a backup of the data directory; without it nobody knows which shard a session is in, \
                 but for `ironpost journal salvage --to NEW_DIRECTORY`, which asks every segment"
            ),
            Problem::NotEmpty => {
                "name a directory that is empty, or not there yet; if it is what an attempt left that did not come to its \
                 end, remove it first"
                    .to_owned()
            }
            Problem::Setting { bounds } => format!("set it within its bounds: {bounds}"),
            Problem::TooManySegments { .. } => {
                format!("restore the directory of {object}: this program never makes so many files")
            }
            Problem::NotABackup | Problem::OtherBackup | Problem::NeverServed => {
                self.backup_cure()
            }
            Problem::NoSuchRecord { .. } => "restart; this is a defect of ironpost, please report it".to_owned(),
        }
    }

    fn cure_of_kernel(&self, errno: Errno) -> String {
        let object = &self.object;
        match errno {
            // The room of a journal's file was written before it was used.
            Errno(libc::ENOSPC | libc::EDQUOT) if self.offset.is_some() => format!(
                "{object} has its room, so the device below its file system has less than it promised (a thin volume, an \
                 image file): make room there, check the file system with fsck, and start again"
            ),
            Errno(libc::ENOSPC | libc::EDQUOT) => {
                format!("free space on the file system of {object} (see `df -h`), or point --data at a larger one")
            }
            Errno(libc::EACCES | libc::EPERM) => {
                format!("give the user that runs ironpost read and write access to {object}")
            }
            Errno(libc::EROFS) => {
                format!(
                    "remount the file system of {object} for writing and start again; if the kernel made it read-only, see \
                     `dmesg` and check it with fsck first"
                )
            }
            Errno(libc::EIO) => {
                "the disk failed: see `dmesg` and `smartctl -a`; replace it, restore the data directory, and start again"
                    .to_owned()
            }
            Errno(libc::EMFILE | libc::ENFILE) => {
                "raise the limit of open files (LimitNOFILE= in the systemd unit, or `ulimit -n`)".to_owned()
            }
            Errno(libc::ENOENT) => {
                format!("{object} is not there: name the data directory with --data, or mount its file system")
            }
            _ => format!("see `dmesg` for the cause, repair {object}, and start again"),
        }
    }

    fn backup_cure(&self) -> String {
        match &self.problem {
            Problem::OtherBackup => "give each broker's backups a directory of their own".to_owned(),
            Problem::NeverServed => "name the data directory of the broker with --data, or start it once".to_owned(),
            _ => "give the backup a directory of its own: one that is new, empty, or was made by `ironpost backup`"
                .to_owned(),
        }
    }
}

/// The kernel's number in an error, `EIO` if it came from somewhere else (a file that is too short, for example).
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(match error.kind() {
        io::ErrorKind::StorageFull => libc::ENOSPC,
        io::ErrorKind::QuotaExceeded => libc::EDQUOT,
        _ => libc::EIO,
    }))
}

impl fmt::Display for JournalError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {} {}", self.operation, self.object)?;
        if let Some(offset) = self.offset {
            write!(formatter, " at byte {offset}")?;
        }
        match &self.problem {
            Problem::Kernel(errno) => write!(formatter, ": {errno}"),
            Problem::InUse => write!(formatter, ": another process uses it"),
            Problem::Corrupt { what, expected, found } => {
                write!(formatter, ": {what} is {found}, expected {expected}")
            }
            Problem::Version { supported, found } => {
                write!(formatter, ": it has format version {found}, this program has {supported}")
            }
            Problem::ShardCount { recorded, requested } => {
                write!(formatter, ": it was made for {recorded} shards, {requested} were requested")
            }
            Problem::Shard { recorded, requested } => {
                write!(formatter, ": it belongs to shard {}, not to shard {}", recorded.0, requested.0)
            }
            Problem::OtherDirectory => write!(formatter, ": it belongs to another data directory"),
            Problem::JournalMissing => {
                write!(formatter, ": the journal that was here is gone, with everything in it")
            }
            Problem::DataDirectoryMissing => write!(formatter, ": it is not the data directory of a broker"),
            Problem::MetaMissing => write!(formatter, ": it is missing, but there are journals beside it"),
            Problem::NotEmpty => write!(formatter, ": there is something in it"),
            Problem::NotABackup => write!(formatter, ": it is not empty, and not a backup"),
            Problem::OtherBackup => write!(formatter, ": the backup in it is of another data directory"),
            Problem::NeverServed => {
                write!(formatter, ": nobody was ever served from it, so there is nothing in it")
            }
            Problem::Setting { bounds } => write!(formatter, ": {bounds}"),
            Problem::TooManySegments { found } => {
                write!(formatter, ": it has {found} segments, more than {}", crate::limits::SEGMENTS_MAX)
            }
            Problem::NoSuchRecord { lsn } => write!(formatter, ": there is no record {lsn}"),
        }
    }
}

impl std::error::Error for JournalError {}
