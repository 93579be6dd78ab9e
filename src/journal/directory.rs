//! The data directory: one `meta` file, and a directory per shard.
//!
//! Decides how many shards a data directory has, once, when it is made: sessions are found by hashing with the key
//! recorded here, so another count or key would find nothing. Called at start, before any shard runs. Holds the lock
//! of the whole directory while it lives; each journal locks its own besides.
//!
//! | meta | offset | size | |
//! |---|---|---|---|
//! | magic | 0 | 8 | `IRONMETA` |
//! | format version | 8 | 4 | that of the segments |
//! | shards | 12 | 2 | |
//! | begun | 14 | 2 | 1 once every shard has begun its journal, and nobody was served before |
//! | hash key | 16 | 16 | |
//! | zeros | 32 | 28 | |
//! | CRC | 60 | 4 | CRC32C of everything before it |
//!
//! The file is replaced as a whole (written beside, synced, renamed, directory synced) and before the first shard
//! directory is made, so shard directories without it mean that it was lost.

use std::fs;
use std::io;
use std::path::Path;

use super::error::{JournalError, Problem};
use super::format::{VERSION, get, put};
use super::segment::mix;
use super::storage::{Directory, Storage};
use crate::ids::ShardId;
use crate::limits;

const META: &str = "meta";
const META_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"IRONMETA";
const CRC_AT: usize = META_BYTES - 4;

/// An open data directory.
#[derive(Debug)]
pub struct DataDirectory {
    /// How many shards it has.
    pub shards: u16,
    /// Key of every hash that decides where something is.
    pub hash_key: [u8; 16],
    /// Whether it was made just now.
    pub is_new: bool,
    /// Whether every shard has begun its journal: one that is not there is lost.
    pub was_begun: bool,
    root: Directory,
}

impl DataDirectory {
    /// Note that every shard has begun its journal. To be durable before anyone is served.
    pub fn begun(&mut self) -> Result<(), JournalError> {
        if !self.was_begun {
            self.was_begun = true;
            write(&self.root, &encode(self.shards, &self.hash_key, true))?;
        }
        Ok(())
    }

    /// The directory of one shard's journal, made if need be.
    pub fn shard(&self, shard: ShardId) -> Result<Directory, JournalError> {
        assert!(shard.0 < self.shards, "shards are numbered from 0");
        let name = shard_name(shard.0);
        self.root
            .subdirectory(&name)
            .map_err(|error| JournalError::kernel("make the directory", self.root.describe(&name), &error))
    }
}

fn shard_name(shard: u16) -> String {
    format!("shard-{shard:03}")
}

/// Open the data directory at `path`, or make one with `shards_wanted` shards (one per core if `None`).
///
/// `seed` makes the hash key of a new directory; it should be as random as can be had.
pub fn open_or_create(
    path: &Path,
    shards_wanted: Option<u16>,
    seed: u64,
) -> Result<DataDirectory, JournalError> {
    let display = path.display().to_string();
    let failed = |operation| {
        let display = display.clone();
        move |error: io::Error| JournalError::kernel(operation, display, &error)
    };
    let allowed = 1..=u16::try_from(limits::SHARDS_MAX).expect("SHARDS_MAX is a small number");
    if shards_wanted.is_some_and(|shards| !allowed.contains(&shards)) {
        let problem = Problem::Setting { bounds: "the number of shards is 1 to 64" };
        return Err(JournalError::new("open", display, problem));
    }
    make_directories(path).map_err(failed("make the directory"))?;
    let root = Directory::open(path).map_err(failed("open"))?;
    root.lock().map_err(failed("lock"))?;
    let meta =
        root.content(META).map_err(|error| JournalError::kernel("read", root.describe(META), &error))?;
    if let Some(content) = meta {
        let (shards, hash_key, was_begun) = decode(&root, &content)?;
        return match shards_wanted {
            Some(requested) if requested != shards => {
                let problem = Problem::ShardCount { recorded: shards, requested };
                Err(JournalError::new("open the data directory", display, problem))
            }
            _ => Ok(DataDirectory { shards, hash_key, is_new: false, was_begun, root }),
        };
    }
    let names = root.list().map_err(failed("list"))?;
    if names.iter().any(|name| name.starts_with("shard-")) {
        return Err(JournalError::new("open", root.describe(META), Problem::MetaMissing));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let shards = shards_wanted.unwrap_or_else(|| {
        u16::try_from(cores.min(limits::SHARDS_MAX)).expect("SHARDS_MAX is a small number")
    });
    let mut hash_key = [0; 16];
    put(&mut hash_key, 0, mix(seed).to_le_bytes());
    put(&mut hash_key, 8, mix(mix(seed)).to_le_bytes());
    write(&root, &encode(shards, &hash_key, false))?;
    Ok(DataDirectory { shards, hash_key, is_new: true, was_begun: false, root })
}

/// Open the data directory at `path` to read it: nothing in it changes, and no process may be using it.
pub fn open_read_only(path: &Path) -> Result<DataDirectory, JournalError> {
    let display = path.display().to_string();
    let failed = |operation| {
        let display = display.clone();
        move |error: io::Error| JournalError::kernel(operation, display, &error)
    };
    let root = Directory::open_read_only(path).map_err(failed("open"))?;
    root.lock().map_err(failed("lock"))?;
    let meta =
        root.content(META).map_err(|error| JournalError::kernel("read", root.describe(META), &error))?;
    let Some(content) = meta else {
        return Err(JournalError::new("open", root.describe(META), Problem::MetaMissing));
    };
    let (shards, hash_key, was_begun) = decode(&root, &content)?;
    Ok(DataDirectory { shards, hash_key, is_new: false, was_begun, root })
}

/// With the entries of those that are new made durable.
fn make_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    make_directories(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Directory::open(parent)?.sync_directory(),
    }
}

fn write(root: &Directory, meta: &[u8; META_BYTES]) -> Result<(), JournalError> {
    root.replace(META, meta).map_err(|error| JournalError::kernel("write", root.describe(META), &error))
}

fn encode(shards: u16, hash_key: &[u8; 16], was_begun: bool) -> [u8; META_BYTES] {
    let mut meta = [0; META_BYTES];
    put(&mut meta, 0, MAGIC);
    put(&mut meta, 8, VERSION.to_le_bytes());
    put(&mut meta, 12, shards.to_le_bytes());
    put(&mut meta, 14, u16::from(was_begun).to_le_bytes());
    put(&mut meta, 16, *hash_key);
    let crc = crc32c::crc32c(&meta[..CRC_AT]);
    put(&mut meta, CRC_AT, crc.to_le_bytes());
    meta
}

fn decode(root: &Directory, content: &[u8]) -> Result<(u16, [u8; 16], bool), JournalError> {
    let refuse = |problem| Err(JournalError::new("validate", root.describe(META), problem));
    let corrupt = |what, expected: String, found: String| {
        refuse(Problem::Corrupt { what, expected: expected.into(), found: found.into() })
    };
    if content.len() != META_BYTES {
        return corrupt("the length of the file", META_BYTES.to_string(), content.len().to_string());
    }
    let (expected, found) = (crc32c::crc32c(&content[..CRC_AT]), u32::from_le_bytes(get(content, CRC_AT)));
    if get(content, 0) != MAGIC || expected != found {
        return corrupt("the checksum", format!("{expected:08x}"), format!("{found:08x}"));
    }
    let version = u32::from_le_bytes(get(content, 8));
    if version != VERSION {
        return refuse(Problem::Version { supported: VERSION, found: version });
    }
    let was_begun = u16::from_le_bytes(get(content, 14)) != 0;
    Ok((u16::from_le_bytes(get(content, 12)), get(content, 16), was_begun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_keeps_its_shard_count_and_key() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b");
        let made = open_or_create(&path, Some(4), 7).unwrap();
        assert!(made.is_new && made.shards == 4);
        let key = made.hash_key;
        drop(made);
        for wanted in [None, Some(4)] {
            let opened = open_or_create(&path, wanted, 8).unwrap();
            assert_eq!((opened.shards, opened.hash_key, opened.is_new), (4, key, false));
            assert!(opened.shard(ShardId(3)).unwrap().path().ends_with("shard-003"));
        }
    }

    #[test]
    fn another_shard_count_is_refused_with_the_cure() {
        let temporary = tempfile::tempdir().unwrap();
        drop(open_or_create(temporary.path(), Some(4), 7).unwrap());
        let error = open_or_create(temporary.path(), Some(8), 7).unwrap_err();
        assert_eq!(error.problem, Problem::ShardCount { recorded: 4, requested: 8 });
        assert!(error.to_string().contains("made for 4 shards, 8 were requested"), "{error}");
        assert!(error.cure().contains("--shards 4") && error.cure().contains("not yet available"));
        for wanted in [0, 65] {
            let error = open_or_create(temporary.path(), Some(wanted), 7).unwrap_err();
            assert!(matches!(error.problem, Problem::Setting { .. }));
        }
    }

    #[test]
    fn a_second_process_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let first = open_or_create(temporary.path(), Some(1), 7).unwrap();
        let error = open_or_create(temporary.path(), Some(1), 7).unwrap_err();
        assert_eq!(error.problem, Problem::InUse);
        drop(first);
        open_or_create(temporary.path(), Some(1), 7).unwrap();
    }

    #[test]
    fn a_meta_file_that_is_damaged_or_newer_or_gone_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let made = open_or_create(temporary.path(), Some(2), 7).unwrap();
        made.shard(ShardId(0)).unwrap();
        drop(made);
        let meta = temporary.path().join(META);
        let content = fs::read(&meta).unwrap();
        let problem = |content: &[u8]| {
            fs::write(&meta, content).unwrap();
            open_or_create(temporary.path(), Some(2), 7).unwrap_err().problem
        };
        for bit in 0..META_BYTES * 8 {
            let mut flipped = content.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(problem(&flipped), Problem::Corrupt { .. }), "bit {bit}");
        }
        assert!(matches!(problem(&content[..60]), Problem::Corrupt { .. }));
        let mut newer = content.clone();
        put(&mut newer, 8, (VERSION + 1).to_le_bytes());
        let crc = crc32c::crc32c(&newer[..CRC_AT]);
        put(&mut newer, CRC_AT, crc.to_le_bytes());
        assert_eq!(problem(&newer), Problem::Version { supported: VERSION, found: VERSION + 1 });
        fs::remove_file(&meta).unwrap();
        let error = open_or_create(temporary.path(), Some(2), 7).unwrap_err();
        assert_eq!(error.problem, Problem::MetaMissing);
    }
}
