//! A file replaced in one step by what is made of its text, by one process at a time.
//!
//! The new text goes to a temporary file beside it, with the mode and owner of the old one, is synced, and takes the old one's
//! name; then the directory is synced. A crash leaves the old file or the new one, whole, and perhaps the temporary file,
//! which the next run removes. Access control lists and extended attributes are not carried over.
//!
//! Whoever replaces the file holds a lock (flock) on it, from before it reads until it is done. Since the lock is on a file that
//! then loses its name, whoever got it looks again whether that name still leads to the file it has locked, and else begins
//! anew. So no lock file stays behind, and none has to be cleaned up after a crash. Readers need no lock.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::super::Failure;
use crate::limits;

/// How often it is begun anew. Each time another process has finished, so this is reached only where a name leads nowhere.
const LOCK_TRIES_MAX: usize = 10_000;

/// Replaces the file by what `change` makes of its text. One that is missing is made, if that is asked for.
pub(super) fn rewrite(
    file: &Path,
    create: bool,
    change: impl FnOnce(&str) -> Result<String, Failure>,
) -> Result<(), Failure> {
    // Behind a symbolic link, the file it leads to is replaced, not the link.
    let real = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let mut locked = lock(&real, create)?;
    let outcome = changed(&real, &mut locked.file, change);
    if outcome.is_err() && locked.created {
        // Ours, empty and locked. Whoever waits for it begins anew.
        fs::remove_file(&real).map_err(|error| failure(&real, "remove", &error))?;
    }
    outcome
}

struct Locked {
    file: File,
    /// Whether it was made here, empty.
    created: bool,
}

fn lock(path: &Path, create: bool) -> Result<Locked, Failure> {
    for _ in 0..LOCK_TRIES_MAX {
        let Some(locked) = open(path, create)? else { continue };
        locked.file.lock().map_err(|error| failure(path, "lock", &error))?;
        let held = locked.file.metadata().map_err(|error| failure(path, "read", &error))?;
        match fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => return Ok(locked),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failure(path, "read", &error)),
            _ => {}
        }
    }
    Err(Failure::work(format!(
        "{}: cannot be locked: its name leads to another file each time\n  cure: if it is a symbolic link, make the file that it leads to",
        path.display()
    )))
}

/// `None` if it came into being meanwhile.
fn open(path: &Path, create: bool) -> Result<Option<Locked>, Failure> {
    match fs::metadata(path) {
        // Opening a pipe would wait for its other end.
        Ok(metadata) if !metadata.is_file() => {
            return Err(Failure::usage(format!(
                "{}: not a file\n  cure: name a password file",
                path.display()
            )));
        }
        _ => {}
    }
    match File::open(path) {
        Ok(file) => return Ok(Some(Locked { file, created: false })),
        Err(error) if error.kind() == ErrorKind::NotFound && create => {}
        Err(error) => return Err(failure(path, "open", &error)),
    }
    match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => Ok(Some(Locked { file, created: true })),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(failure(path, "create", &error)),
    }
}

fn changed(
    path: &Path,
    old: &mut File,
    change: impl FnOnce(&str) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let reading = |error: io::Error| failure(path, "read", &error);
    let bytes_max = limits::PASSWORD_FILE_BYTES_MAX;
    let length = old.metadata().map_err(reading)?.len().min(bytes_max);
    // Room for all of it, and never grown: that would leave a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize + 1));
    old.take(bytes_max + 1).read_to_end(&mut bytes).map_err(reading)?;
    if bytes.len() as u64 > bytes_max {
        let cause = format!("{}: more than {} MiB", path.display(), bytes_max >> 20);
        return Err(Failure::work(format!("{cause}\n  cure: name a password file")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        Failure::work(format!("{}:{line}: not UTF-8\n  cure: save the file as UTF-8", path.display()))
    })?;
    let text = Zeroizing::new(change(text)?);
    let temporary = temporary_beside(path);
    if let Err(error) = put(&temporary, old, text.as_bytes()).and_then(|()| fs::rename(&temporary, path)) {
        // What is not there need not go, and the first error says more than a second.
        let _ = fs::remove_file(&temporary);
        return Err(failure(&temporary, "write", &error));
    }
    let directory = directory_of(path);
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| failure(directory, "sync", &error))
}

fn put(temporary: &Path, old: &File, text: &[u8]) -> io::Result<()> {
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Never one that was there: another could have it open, or have made it a link.
    let mut fresh = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    let (wanted, made) = (old.metadata()?, fresh.metadata()?);
    if (wanted.uid(), wanted.gid()) != (made.uid(), made.gid()) {
        fchown(&fresh, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    fresh.set_permissions(wanted.permissions())?;
    fresh.write_all(text)?;
    fresh.sync_all()
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failure(path: &Path, doing: &str, error: &io::Error) -> Failure {
    let cure = match error.kind() {
        ErrorKind::NotFound => "give the path of a password file, in a directory that there is",
        ErrorKind::PermissionDenied => {
            "run this as root, or as the user that the file and its directory belong to"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room on that file system; the file is as it was"
        }
        _ => "see what the system says of that path; the file is as it was, or replaced as a whole",
    };
    Failure::work(format!("{}: cannot {doing} it: {error}\n  cure: {cure}", path.display()))
}
