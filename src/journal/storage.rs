//! Where a journal keeps its files: a narrow trait, and the real directory behind it.
//!
//! Decides nothing. `open`, recovery, growing the pool and reading back go through here and block; appending does not:
//! its writes and syncs are [`super::Io`] values that the shard submits to its reactor. The simulator implements the
//! trait for a disk that forgets what was not synced.
//!
//! What an implementation promises:
//!
//! 1. `create` returns after `bytes` zeros, the length and the directory entry are durable, and gives the file its name
//!    last: a file under a journal's name was whole once. What it did not finish has `.new` behind that name. If
//!    it fails, nothing of either name is left, as far as the disk allows, and `ENOSPC` and `EDQUOT` are reported as such.
//! 2. `write_at` and `read_at` transfer the whole buffer or fail. A write may be lost or torn, in units of at least
//!    512 bytes, until a `sync` of that file that began after it returned.
//! 3. `sync` has made everything durable that was written to the file before, by whatever process, or fails; after a
//!    failure nothing may be assumed about the file.
//! 4. A [`File`] stays usable until the storage is dropped.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::reactor::File;

/// Zeros are on their way to the disk in pieces of this size when a segment is created.
const ZERO_BYTES: usize = 1 << 20;

/// And written in pieces of this: a kernel that does not preempt itself lets nobody else have the processor during a call, and a
/// mebibyte in one was seen to keep it for two milliseconds.
const ZERO_CALL_BYTES: usize = 64 << 10;

/// Behind the name of a file that is being made. Whoever opens the directory may remove it.
pub(super) const UNFINISHED: &str = ".new";

/// The files of one journal: one directory, flat names.
pub trait Storage {
    /// Every name that is there, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Open an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<File>;

    /// Make a new file of that many zeros: written, not allocated, and durable with its directory entry.
    fn create(&self, name: &str, bytes: u64) -> io::Result<File>;

    /// Length in bytes.
    fn len(&self, file: File) -> io::Result<u64>;

    /// Fill the whole buffer from there.
    fn read_at(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Write the whole buffer there; not durable before `sync`.
    fn write_at(&self, file: File, offset: u64, buffer: &[u8]) -> io::Result<()>;

    /// fdatasync.
    fn sync(&self, file: File) -> io::Result<()>;

    /// Make creations and removals durable.
    fn sync_directory(&self) -> io::Result<()>;

    /// Remove a file; durable after `sync_directory`.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Take the storage for this process alone, until it is dropped. `ErrorKind::WouldBlock` if another has it.
    fn lock(&self) -> io::Result<()>;

    /// Map the whole of a file, all of which was written, for reading. `None`: `read_at` is used instead.
    fn map(&self, file: File) -> Option<memmap2::Mmap> {
        let _ = file;
        None
    }

    /// What to call a file in a message to the operator.
    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// A directory of the file system. Clones share the open files and the lock, also across threads; both end with the
/// last clone.
#[derive(Clone, Debug)]
pub struct Directory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Nothing in it may change.
    read_only: bool,
    /// For syncing entries.
    descriptor: fs::File,
    /// Every file handed out as a [`File`].
    files: Mutex<Vec<OwnedFd>>,
    /// Present while locked.
    lock: Mutex<Option<fs::File>>,
}

impl Directory {
    /// Name of the file whose lock stands for the directory.
    pub const LOCK: &'static str = "lock";

    /// Open an existing directory. Takes no lock.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Directory> {
        Directory::open_as(path.as_ref(), false)
    }

    /// Open an existing directory in which nothing is to change, down to the lock, which is not made if it is not there:
    /// then no process has it. What would change something fails with `EROFS`.
    pub fn open_read_only(path: impl AsRef<Path>) -> io::Result<Directory> {
        Directory::open_as(path.as_ref(), true)
    }

    fn open_as(path: &Path, read_only: bool) -> io::Result<Directory> {
        let path = path.to_owned();
        let descriptor = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&path)?;
        let (files, lock) = (Mutex::default(), Mutex::default());
        Ok(Directory { shared: Arc::new(Shared { path, read_only, descriptor, files, lock }) })
    }

    fn may_change(&self) -> io::Result<()> {
        if self.shared.read_only { Err(io::Error::from_raw_os_error(libc::EROFS)) } else { Ok(()) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Replace a small file as a whole: after a crash its content is the old or the new, never a mixture.
    pub fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        use std::io::Write;
        self.may_change()?;
        let (temporary, target) = (self.shared.path.join(format!("{name}.new")), self.shared.path.join(name));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        drop(file);
        fs::rename(temporary, target)?;
        self.sync_directory()
    }

    /// The content of a small file; `None` if there is no such file.
    pub fn content(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.shared.path.join(name)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Open a directory inside this one, made durable first if it is new; read only if this one is.
    pub fn subdirectory(&self, name: &str) -> io::Result<Directory> {
        let path = self.shared.path.join(name);
        if self.shared.read_only {
            return Directory::open_read_only(path);
        }
        match fs::create_dir(&path) {
            Ok(()) => self.sync_directory()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Directory::open(path)
    }

    /// Bytes that may still be written to the file system; `None` if it does not say.
    ///
    /// Asked before a file is made, because a journal on a full disk tries that once a second: to find out by writing
    /// would cost the disk a segment's bytes each time, and take the last room from everybody else while it lasts.
    pub(super) fn room(&self) -> io::Result<Option<u64>> {
        // SAFETY: `statvfs` is plain old data for which all zeros is a value; `fstatvfs` writes to that one valid object.
        let (result, status) = unsafe {
            let mut status: libc::statvfs = std::mem::zeroed();
            (libc::fstatvfs(self.shared.descriptor.as_raw_fd(), &raw mut status), status)
        };
        check(result)?;
        Ok((status.f_blocks > 0).then(|| status.f_bavail.saturating_mul(status.f_frsize)))
    }

    /// What is read of that file will not be read again soon: its pages shall not push out those that will. (Linux 6.3
    /// and later; before, the kernel goes by what it sees.) Dropping them afterwards would drop those as well that a broker
    /// had read before.
    pub(super) fn read_once(&self, file: File) {
        // SAFETY: takes a descriptor by value and touches no memory of ours. It is advice: that it is not taken is no error.
        let _ignored = unsafe { libc::posix_fadvise(file.0, 0, 0, libc::POSIX_FADV_NOREUSE) };
    }

    fn keep(&self, file: fs::File) -> File {
        let handle = File(file.as_raw_fd());
        self.shared.files.lock().expect("no code panics while it holds this lock").push(file.into());
        handle
    }
}

impl Storage for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.shared.path)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(!self.shared.read_only);
        Ok(self.keep(options.open(self.shared.path.join(name))?))
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<File> {
        self.may_change()?;
        if self.room()?.is_some_and(|room| room < bytes) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let path = self.shared.path.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let unfinished = self.shared.path.join(format!("{name}{UNFINISHED}"));
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&unfinished)?;
        let filled = fill_with_zeros(&file, bytes).and_then(|()| file.sync_all());
        let named = filled.and_then(|()| fs::rename(&unfinished, &path));
        match named.and_then(|()| self.sync_directory()) {
            Ok(()) => Ok(self.keep(file)),
            Err(error) => {
                // Gives the blocks back on a full disk. That this may fail too changes nothing for the caller: what
                // is not finished is recognised and removed at the next start, what is whole is used.
                drop(file);
                let _ = fs::remove_file(&unfinished);
                let _ = fs::remove_file(&path);
                let _ = self.sync_directory();
                Err(error)
            }
        }
    }

    fn len(&self, file: File) -> io::Result<u64> {
        // SAFETY: `stat` is plain old data for which all zeros is a value; `fstat` writes to that one valid object.
        let (result, status) = unsafe {
            let mut status: libc::stat = std::mem::zeroed();
            (libc::fstat(file.0, &raw mut status), status)
        };
        check(result)?;
        u64::try_from(status.st_size).map_err(io::Error::other)
    }

    fn read_at(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let rest = &mut buffer[done..];
            let position = position(offset, done)?;
            // SAFETY: `rest` is valid for writes of its length, and the kernel keeps no reference to it.
            let count = unsafe { libc::pread(file.0, rest.as_mut_ptr().cast(), rest.len(), position) };
            match transferred(count) {
                Some(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(Ok(count)) => done += count,
                Some(Err(error)) => return Err(error),
                None => {}
            }
        }
        Ok(())
    }

    fn write_at(&self, file: File, offset: u64, buffer: &[u8]) -> io::Result<()> {
        self.may_change()?;
        write_all_at(file.0, offset, buffer)
    }

    fn sync(&self, file: File) -> io::Result<()> {
        // SAFETY: takes a descriptor by value and touches no memory of ours.
        check(unsafe { libc::fdatasync(file.0) })
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.shared.descriptor.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.may_change()?;
        fs::remove_file(self.shared.path.join(name))
    }

    fn lock(&self) -> io::Result<()> {
        let path = self.shared.path.join(Directory::LOCK);
        let mut options = fs::OpenOptions::new();
        let change = !self.shared.read_only;
        let file = match options.read(true).write(change).create(change).truncate(false).open(path) {
            Err(error) if !change && error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        // SAFETY: takes a descriptor by value and touches no memory of ours.
        check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })?;
        *self.shared.lock.lock().expect("no code panics while it holds this lock") = Some(file);
        Ok(())
    }

    fn map(&self, file: File) -> Option<memmap2::Mmap> {
        // SAFETY: the file is as long as it was made (segments are neither truncated nor extended) and has no holes,
        // so no access faults for want of a block; the directory is locked against other journals; the journal maps
        // a segment only while nothing writes to it and drops the map before the segment is written again. Checked
        // reads instead cost a system call and a copy for each message that comes back from disk.
        unsafe { memmap2::MmapOptions::new().map(file.0).ok() }
    }

    fn describe(&self, name: &str) -> String {
        self.shared.path.join(name).display().to_string()
    }
}

/// Forget the pages, in memory, of a file that was written and synced, and will not be read soon.
pub fn forget_pages(file: &fs::File) {
    // SAFETY: takes a descriptor by value and touches no memory of ours. It is advice: that it is not taken is no error.
    let _ignored = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Zeros are written, because a first write to an allocated but unwritten block costs a journal commit of the file
/// system in the sync of every block (0.29 ms against 0.11 ms at the median on ext4).
///
/// Each piece is on its way to the disk before the next is written: syncs of the log, for which publishers wait, would
/// otherwise queue behind a whole segment.
fn fill_with_zeros(file: &fs::File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZERO_CALL_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let count = usize::try_from(bytes - offset).map_or(ZERO_CALL_BYTES, |rest| rest.min(ZERO_CALL_BYTES));
        write_all_at(file.as_raw_fd(), offset, &zeros[..count])?;
        offset += count as u64;
        if offset.is_multiple_of(ZERO_BYTES as u64) || offset == bytes {
            file.sync_data()?;
        }
    }
    Ok(())
}

fn write_all_at(descriptor: RawFd, offset: u64, buffer: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &buffer[done..];
        let position = position(offset, done)?;
        // SAFETY: `rest` is valid for reads of its length, and the kernel keeps no reference to it.
        let count = unsafe { libc::pwrite(descriptor, rest.as_ptr().cast(), rest.len(), position) };
        match transferred(count) {
            Some(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Some(Ok(count)) => done += count,
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Ok(())
}

fn position(offset: u64, done: usize) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset + done as u64).map_err(io::Error::other)
}

/// `None`: interrupted before anything was transferred, to be tried again.
fn transferred(count: isize) -> Option<io::Result<usize>> {
    match usize::try_from(count) {
        Ok(count) => Some(Ok(count)),
        Err(_) => {
            let error = io::Error::last_os_error();
            (error.kind() != io::ErrorKind::Interrupted).then_some(Err(error))
        }
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
