//! The directory that a copy of a data directory is made in: a backup, or what a backup is restored to.
//!
//! Decides when the copy counts, and that until then the one before it does. It is a data directory: the journals of a new
//! copy are made beside those of the one before, under the next generation; replacing the file `meta` makes them the
//! ones that count; then the older ones are removed (see `directory`). So whenever it is interrupted, the copy
//! before is whole, or this one is. Files that both have in common are linked, not copied.
//!
//! A file beside them says what the directory is for, from before anything else is in it: only with that is anything removed
//! or replaced here. In a backup it stays (`backup`); a restored data directory has it until it is whole (`restoring`).

use std::path::{Path, PathBuf};

use super::directory::{
    DataDirectory, META, Meta, clear_away, decode, encode, generation_of, make_directories, remove_others,
    shard_name, shard_of, write,
};
use super::error::{JournalError, Problem};
use super::storage::{Directory, Storage};
use crate::ids::ShardId;

const BACKUP: &str = "backup";
const RESTORING: &str = "restoring";

/// A copy in the making. Holds the lock of its directory while it lives.
#[derive(Debug)]
pub struct Replica {
    root: Directory,
    before: Option<Meta>,
    meta: Meta,
    /// Removed when the copy counts.
    passing: Option<&'static str>,
}

impl Replica {
    /// Begin the next backup of that data directory in `path`, which is made if need be.
    pub fn backup(path: &Path, source: &DataDirectory) -> Result<Replica, JournalError> {
        let root = open(path)?;
        let DataDirectory { shards, hash_key, .. } = *source;
        let refuse = |problem| Err(JournalError::new("make a backup in", root.describe(""), problem));
        let names = names(&root)?;
        let is_backup = names.iter().any(|name| name == BACKUP);
        let content = root.content(META).map_err(failed(&root, "read", META))?;
        let Some(content) = content else {
            if !is_backup && names.iter().any(|name| name != Directory::LOCK) {
                return refuse(Problem::NotABackup);
            }
            let meta = Meta { shards, hash_key, was_begun: true, generation: 0 };
            return Replica::begin(root, meta, BACKUP, &names)
                .map(|begun| Replica { passing: None, ..begun });
        };
        let before = decode(&root, &content)?;
        if !is_backup {
            return refuse(Problem::NotABackup);
        }
        if before.hash_key != hash_key {
            return refuse(Problem::OtherBackup);
        }
        remove_others(&root, &before)?;
        let generation = before.generation.checked_add(1).expect("nobody does that four billion times");
        // That leaves everything where something of the backup before is missing.
        for name in names.iter().filter(|name| generation_of(name) == Some(generation)) {
            remove_tree(&root, name)?;
        }
        let meta = Meta { shards, hash_key, was_begun: true, generation };
        Ok(Replica { root, before: Some(before), meta, passing: None })
    }

    /// Begin a data directory in `path` that has what that one has.
    pub fn restore(path: &Path, source: &DataDirectory) -> Result<Replica, JournalError> {
        let root = open(path)?;
        let names = names(&root)?;
        let began = names.iter().any(|name| name == RESTORING) && !names.iter().any(|name| name == META);
        let journals = |name: &String| name == META || name == BACKUP || name.starts_with("shard-");
        if !began && names.iter().any(journals) {
            return Err(JournalError::new("restore to", root.describe(""), Problem::NotEmpty));
        }
        let DataDirectory { shards, hash_key, .. } = *source;
        let meta = Meta { shards, hash_key, was_begun: true, generation: 0 };
        Replica::begin(root, meta, RESTORING, &names)
    }

    /// With nothing in it but what says so.
    fn begin(
        root: Directory,
        meta: Meta,
        passing: &'static str,
        names: &[String],
    ) -> Result<Replica, JournalError> {
        for name in names.iter().filter(|name| generation_of(name).is_some()) {
            remove_tree(&root, name)?;
        }
        root.replace(passing, b"made by ironpost\n").map_err(failed(&root, "write", passing))?;
        Ok(Replica { root, before: None, meta, passing: Some(passing) })
    }

    /// Where the journal of that shard was in the copy before, if there is one.
    pub fn shard_before(&self, shard: ShardId) -> Option<PathBuf> {
        let before = self.before.filter(|before| shard.0 < before.shards)?;
        Some(self.root.path().join(shard_name(shard.0, before.generation)))
    }

    /// The directory of that shard's journal, made if need be.
    pub fn shard(&self, shard: ShardId) -> Result<Directory, JournalError> {
        shard_of(&self.root, &self.meta, shard)
    }

    /// From here on this is the copy. Its journals are whole and durable.
    pub fn complete(self) -> Result<(), JournalError> {
        write(&self.root, &encode(&self.meta))?;
        if let Some(name) = self.passing {
            self.root.remove(name).map_err(failed(&self.root, "remove", name))?;
            self.root.sync_directory().map_err(failed(&self.root, "sync", ""))?;
        }
        clear_away(&self.root, &self.meta);
        Ok(())
    }

    /// Remove what was made of it. What is left is removed when the next one is begun.
    pub fn abandon(self) {
        for shard in 0..self.meta.shards {
            let _tried = remove_tree(&self.root, &shard_name(shard, self.meta.generation));
        }
    }
}

fn open(path: &Path) -> Result<Directory, JournalError> {
    let failed = |operation| move |error| JournalError::kernel(operation, path.display().to_string(), &error);
    make_directories(path).map_err(failed("make the directory"))?;
    let root = Directory::open(path).map_err(failed("open"))?;
    root.lock().map_err(failed("lock"))?;
    Ok(root)
}

fn names(root: &Directory) -> Result<Vec<String>, JournalError> {
    root.list().map_err(failed(root, "list", ""))
}

fn remove_tree(root: &Directory, name: &str) -> Result<(), JournalError> {
    match std::fs::remove_dir_all(root.path().join(name)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed(root, "remove", name)),
    }
}

fn failed(root: &Directory, operation: &'static str, name: &str) -> impl Fn(std::io::Error) -> JournalError {
    let object = root.describe(name);
    move |error| JournalError::kernel(operation, object.clone(), &error)
}
