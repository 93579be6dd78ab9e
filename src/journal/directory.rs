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
//! | generation | 32 | 4 | how often another number of shards was made of it |
//! | zeros | 36 | 24 | |
//! | CRC | 60 | 4 | CRC32C of everything before it |
//!
//! The file is replaced as a whole (written beside, synced, renamed, directory synced) and before the first shard
//! directory is made, so shard directories without it mean that it was lost.
//!
//! The generation is in the names of the shard directories: `shard-000` in generation 0, `shard-000.1` in the next. So
//! replacing this one file puts other journals in the place of those that were there ([`Successor`]): a crash before
//! leaves the old ones with unfinished new ones beside them, a crash after it the new ones with the old ones beside
//! them. What stands beside those of the generation is removed when the directory is opened, if those are all there.

use std::fs;
use std::io;
use std::path::Path;

use super::error::{JournalError, Problem};
use super::format::{VERSION, get, put};
use super::segment::mix;
use super::storage::{Directory, Storage};
use crate::ids::ShardId;
use crate::limits;

pub(super) const META: &str = "meta";
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
    generation: u32,
    root: Directory,
}

/// Journals that no data directory has yet: for another number of shards, or of one that is being made.
#[derive(Debug)]
pub struct Successor {
    meta: Meta,
    root: Directory,
}

/// What the file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub shards: u16,
    pub hash_key: [u8; 16],
    pub was_begun: bool,
    pub generation: u32,
}

impl DataDirectory {
    /// Note that every shard has begun its journal. To be durable before anyone is served.
    pub fn begun(&mut self) -> Result<(), JournalError> {
        if !self.was_begun {
            self.was_begun = true;
            write(&self.root, &encode(&self.meta()))?;
        }
        Ok(())
    }

    /// The directory of one shard's journal, made if need be.
    pub fn shard(&self, shard: ShardId) -> Result<Directory, JournalError> {
        shard_of(&self.root, &self.meta(), shard)
    }

    /// Begin journals for that many shards, with nothing of an earlier attempt.
    pub fn successor(&self, shards: u16) -> Result<Successor, JournalError> {
        check_bounds(&self.root.describe(""), shards)?;
        let generation = self.generation.checked_add(1).expect("nobody does that four billion times");
        remove_others(&self.root, &self.meta())?;
        let meta = Meta { shards, generation, was_begun: true, ..self.meta() };
        Ok(Successor { meta, root: self.root.clone() })
    }

    /// From here on its journals are those. They are whole and durable; the old ones are removed.
    pub fn succeed(&mut self, successor: Successor) -> Result<(), JournalError> {
        let Meta { shards, generation, was_begun, .. } = successor.meta;
        assert!(generation == self.generation + 1, "a successor is of the directory that it was begun in");
        write(&self.root, &encode(&successor.meta))?;
        (self.shards, self.generation, self.was_begun) = (shards, generation, was_begun);
        clear_away(&self.root, &self.meta());
        Ok(())
    }

    /// Bytes that may still be written to its file system; `None` if that does not say.
    pub fn room(&self) -> Result<Option<u64>, JournalError> {
        room_of(&self.root)
    }

    fn meta(&self) -> Meta {
        let DataDirectory { shards, hash_key, was_begun, generation, .. } = *self;
        Meta { shards, hash_key, was_begun, generation }
    }

    pub(super) fn of(meta: Meta, root: Directory, is_new: bool) -> DataDirectory {
        let Meta { shards, hash_key, was_begun, generation } = meta;
        DataDirectory { shards, hash_key, is_new, was_begun, generation, root }
    }
}

impl Successor {
    /// The directory of one shard's journal, made if need be.
    pub fn shard(&self, shard: ShardId) -> Result<Directory, JournalError> {
        shard_of(&self.root, &self.meta, shard)
    }

    /// A small file beside the journals, for people.
    pub fn note(&self, name: &str, content: &str) -> Result<(), JournalError> {
        let failed = |error| JournalError::kernel("write", self.root.describe(name), &error);
        self.root.replace(name, content.as_bytes()).map_err(failed)
    }

    /// Bytes that may still be written there; `None` if that is not known.
    pub fn room(&self) -> Result<Option<u64>, JournalError> {
        room_of(&self.root)
    }

    /// From here on these are the journals of a data directory of their own ([`fresh`]). They are whole and durable.
    pub fn complete(self) -> Result<(), JournalError> {
        assert!(self.meta.generation == 0, "one that succeeds others takes their place");
        write(&self.root, &encode(&self.meta))
    }
}

fn room_of(root: &Directory) -> Result<Option<u64>, JournalError> {
    let failed = |error| JournalError::kernel("ask for the free space of", root.describe(""), &error);
    root.room().map_err(failed)
}

/// Begin a data directory at `path`, where nothing may be yet, for journals that were written elsewhere.
pub fn fresh(path: &Path, shards: u16, hash_key: [u8; 16]) -> Result<Successor, JournalError> {
    let display = path.display().to_string();
    let failed = |operation| {
        let display = display.clone();
        move |error: io::Error| JournalError::kernel(operation, display, &error)
    };
    make_directories(path).map_err(failed("make the directory"))?;
    let root = Directory::open(path).map_err(failed("open"))?;
    if !root.list().map_err(failed("list"))?.is_empty() {
        return Err(JournalError::new("write to", display, Problem::NotEmpty));
    }
    root.lock().map_err(failed("lock"))?;
    Ok(Successor { meta: Meta { shards, hash_key, was_begun: true, generation: 0 }, root })
}

pub(super) fn shard_of(root: &Directory, meta: &Meta, shard: ShardId) -> Result<Directory, JournalError> {
    assert!(shard.0 < meta.shards, "shards are numbered from 0");
    let name = shard_name(shard.0, meta.generation);
    root.subdirectory(&name)
        .map_err(|error| JournalError::kernel("make the directory", root.describe(&name), &error))
}

pub(super) fn shard_name(shard: u16, generation: u32) -> String {
    match generation {
        0 => format!("shard-{shard:03}"),
        _ => format!("shard-{shard:03}.{generation}"),
    }
}

/// The generation in the name of a shard directory, and only if it is exactly such a name.
pub(super) fn generation_of(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("shard-")?;
    let (shard, generation) = match rest.split_once('.') {
        Some((shard, generation)) => (shard, generation.parse().ok()?),
        None => (rest, 0),
    };
    (shard_name(shard.parse().ok()?, generation) == name).then_some(generation)
}

/// Nobody reads what is left, and the next start tries again.
pub(super) fn clear_away(root: &Directory, meta: &Meta) {
    if let Err(error) = remove_others(root, meta) {
        tracing::warn!(event = "old_journals_left", %error, cure = error.cure());
    }
}

/// Remove what is not of the generation: never finished, or succeeded. Not if something of the generation is missing:
/// then the file that names it may not be the one that belongs here.
pub(super) fn remove_others(root: &Directory, meta: &Meta) -> Result<(), JournalError> {
    let failed = |operation, name: &str, error| JournalError::kernel(operation, root.describe(name), &error);
    let names = root.list().map_err(|error| failed("list", "", error))?;
    let is_there = |shard| names.contains(&shard_name(shard, meta.generation));
    if !(0..meta.shards).all(is_there) {
        return Ok(());
    }
    let others = names.iter().filter(|name| generation_of(name).is_some_and(|of| of != meta.generation));
    for name in others {
        fs::remove_dir_all(root.path().join(name)).map_err(|error| failed("remove", name, error))?;
    }
    root.sync_directory().map_err(|error| failed("sync", "", error))
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
    if let Some(shards) = shards_wanted {
        check_bounds(&display, shards)?;
    }
    make_directories(path).map_err(failed("make the directory"))?;
    let root = Directory::open(path).map_err(failed("open"))?;
    if let Some(data) = open_locked(&root)? {
        return match shards_wanted {
            Some(requested) if requested != data.shards => {
                let problem = Problem::ShardCount { recorded: data.shards, requested };
                Err(JournalError::new("open the data directory", display, problem))
            }
            _ => Ok(data),
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
    let meta = Meta { shards, hash_key, was_begun: false, generation: 0 };
    write(&root, &encode(&meta))?;
    Ok(DataDirectory::of(meta, root, true))
}

/// Open the data directory at `path`, which must be there.
pub fn open(path: &Path) -> Result<DataDirectory, JournalError> {
    let display = path.display().to_string();
    let missing = || JournalError::new("open", display.clone(), Problem::DataDirectoryMissing);
    let root = Directory::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing(),
        _ => JournalError::kernel("open", display.clone(), &error),
    })?;
    // Not before it is known to be one: the lock is a file that would be made.
    let content = |error| JournalError::kernel("read", root.describe(META), &error);
    if root.content(META).map_err(content)?.is_none() {
        return Err(missing());
    }
    open_locked(&root)?.ok_or_else(missing)
}

/// `None`: there is no such file. The directory is locked in any case.
fn open_locked(root: &Directory) -> Result<Option<DataDirectory>, JournalError> {
    root.lock().map_err(|error| JournalError::kernel("lock", root.path().display().to_string(), &error))?;
    let content =
        root.content(META).map_err(|error| JournalError::kernel("read", root.describe(META), &error))?;
    let Some(content) = content else { return Ok(None) };
    let meta = decode(root, &content)?;
    clear_away(root, &meta);
    Ok(Some(DataDirectory::of(meta, root.clone(), false)))
}

fn check_bounds(object: &str, shards: u16) -> Result<(), JournalError> {
    if (1..=limits::SHARDS_MAX).contains(&usize::from(shards)) {
        return Ok(());
    }
    let problem = Problem::Setting { bounds: "the number of shards is 1 to 64" };
    Err(JournalError::new("open", object, problem))
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
    look_into(root)
}

/// The same of one that a process may be using, which has said what in it does not change.
pub fn look(path: &Path) -> Result<DataDirectory, JournalError> {
    let failed = |error| JournalError::kernel("open", path.display().to_string(), &error);
    look_into(Directory::open_read_only(path).map_err(failed)?)
}

fn look_into(root: Directory) -> Result<DataDirectory, JournalError> {
    let meta =
        root.content(META).map_err(|error| JournalError::kernel("read", root.describe(META), &error))?;
    let Some(content) = meta else {
        return Err(JournalError::new("open", root.describe(META), Problem::MetaMissing));
    };
    let meta = decode(&root, &content)?;
    Ok(DataDirectory::of(meta, root, false))
}

/// With the entries of those that are new made durable.
pub(super) fn make_directories(path: &Path) -> io::Result<()> {
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

pub(super) fn write(root: &Directory, meta: &[u8; META_BYTES]) -> Result<(), JournalError> {
    root.replace(META, meta).map_err(|error| JournalError::kernel("write", root.describe(META), &error))
}

pub(super) fn encode(meta: &Meta) -> [u8; META_BYTES] {
    let mut bytes = [0; META_BYTES];
    put(&mut bytes, 0, MAGIC);
    put(&mut bytes, 8, VERSION.to_le_bytes());
    put(&mut bytes, 12, meta.shards.to_le_bytes());
    put(&mut bytes, 14, u16::from(meta.was_begun).to_le_bytes());
    put(&mut bytes, 16, meta.hash_key);
    put(&mut bytes, 32, meta.generation.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..CRC_AT]);
    put(&mut bytes, CRC_AT, crc.to_le_bytes());
    bytes
}

pub(super) fn decode(root: &Directory, content: &[u8]) -> Result<Meta, JournalError> {
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
    Ok(Meta {
        shards: u16::from_le_bytes(get(content, 12)),
        hash_key: get(content, 16),
        was_begun: u16::from_le_bytes(get(content, 14)) != 0,
        generation: u32::from_le_bytes(get(content, 32)),
    })
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
        assert!(error.cure().contains("--shards 4") && error.cure().contains("ironpost journal reshard 8"));
        for wanted in [0, 65] {
            let error = open_or_create(temporary.path(), Some(wanted), 7).unwrap_err();
            assert!(matches!(error.problem, Problem::Setting { .. }));
        }
    }

    fn shards_in(path: &Path) -> Vec<String> {
        let names = Directory::open(path).unwrap().list().unwrap();
        let mut shards: Vec<String> = names.into_iter().filter(|name| name.starts_with("shard-")).collect();
        shards.sort();
        shards
    }

    fn made_for_two(path: &Path) -> DataDirectory {
        let mut data = open_or_create(path, Some(2), 7).unwrap();
        (0..2).for_each(|shard| drop(data.shard(ShardId(shard)).unwrap()));
        data.begun().unwrap();
        data
    }

    /// A crash before the file is replaced.
    #[test]
    fn an_unfinished_successor_is_removed_when_the_directory_is_opened() {
        let temporary = tempfile::tempdir().unwrap();
        let data = made_for_two(temporary.path());
        let successor = data.successor(3).unwrap();
        (0..3).for_each(|shard| drop(successor.shard(ShardId(shard)).unwrap()));
        fs::write(temporary.path().join("shard-002.1/segment"), "something").unwrap();
        drop((successor, data));
        assert_eq!(shards_in(temporary.path()).len(), 5);
        let data = open(temporary.path()).unwrap();
        assert_eq!(
            (data.shards, shards_in(temporary.path())),
            (2, vec!["shard-000".into(), "shard-001".into()])
        );
    }

    /// A crash between replacing the file and removing the old journals, and none.
    #[test]
    fn a_successor_takes_the_place_of_the_journals_before_it() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        let mut data = made_for_two(path);
        let key = data.hash_key;
        for (shards, left) in [(1, vec!["shard-000.1"]), (2, vec!["shard-000.2", "shard-001.2"])] {
            let successor = data.successor(shards).unwrap();
            (0..shards).for_each(|shard| drop(successor.shard(ShardId(shard)).unwrap()));
            data.succeed(successor).unwrap();
            assert_eq!(
                (data.shards, shards_in(path)),
                (shards, left.iter().map(|name| (*name).into()).collect())
            );
        }
        drop(data);
        // Their removal had not come to all of them; and something that nobody here has made is left alone.
        for name in ["shard-000", "shard-000.1", "shard-1", "shard-000.02", "shard-000.old"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        let data = open_or_create(path, Some(2), 8).unwrap();
        assert_eq!((data.hash_key, data.was_begun), (key, true));
        let left = ["shard-000.02", "shard-000.2", "shard-000.old", "shard-001.2", "shard-1"];
        assert_eq!(shards_in(path), left);
    }

    #[test]
    fn nothing_is_removed_where_journals_of_the_generation_are_missing() {
        let temporary = tempfile::tempdir().unwrap();
        let mut data = made_for_two(temporary.path());
        let old_meta = fs::read(temporary.path().join(META)).unwrap();
        let successor = data.successor(1).unwrap();
        drop(successor.shard(ShardId(0)).unwrap());
        data.succeed(successor).unwrap();
        drop(data);
        fs::write(temporary.path().join(META), old_meta).unwrap();
        drop(open(temporary.path()).unwrap());
        assert_eq!(shards_in(temporary.path()), ["shard-000.1"]);
    }

    #[test]
    fn a_directory_is_begun_only_where_nothing_is_and_is_none_before_it_is_complete() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("new");
        let begun = fresh(&path, 2, [7; 16]).unwrap();
        (0..2).for_each(|shard| drop(begun.shard(ShardId(shard)).unwrap()));
        let error = open(&path).unwrap_err();
        assert_eq!(error.problem, Problem::DataDirectoryMissing);
        begun.complete().unwrap();
        let data = open(&path).unwrap();
        assert_eq!((data.shards, data.hash_key, data.was_begun), (2, [7; 16], true));
        drop(data);
        let error = fresh(&path, 2, [7; 16]).unwrap_err();
        assert_eq!(error.problem, Problem::NotEmpty);
        assert!(error.cure().contains("empty"), "{}", error.cure());
    }

    #[test]
    fn a_directory_that_is_not_there_is_not_made_by_opening_it() {
        let temporary = tempfile::tempdir().unwrap();
        for path in [temporary.path().join("nothing"), temporary.path().to_owned()] {
            let error = open(&path).unwrap_err();
            assert_eq!(error.problem, Problem::DataDirectoryMissing);
            assert!(error.cure().contains("--data"));
        }
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
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
