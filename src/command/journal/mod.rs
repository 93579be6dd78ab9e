//! `ironpost journal`: the data of a broker that is stopped.
//!
//! Decides what is printed. What is in a journal, and what is wrong with it, is `journal`'s to say.

mod inspect;
mod reshard;
mod salvage;
mod verify;

use std::path::Path;

use super::Failure;
use crate::ids::ShardId;
use crate::journal::directory::{self, DataDirectory};
use crate::journal::{JournalError, Options};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Say whether every block and record is as it was written, and where not. Changes nothing.
    Verify(verify::Arguments),
    /// Print every record, without payloads; or every file. Changes nothing, and works on damaged journals.
    Inspect(inspect::Arguments),
    /// Make a new data directory from everything that is provably intact in a damaged one.
    ///
    /// Says what is missing, by session and record. Nothing in the damaged directory is changed.
    Salvage(salvage::Arguments),
    /// Give a stopped data directory another number of shards.
    ///
    /// Everything that it holds goes into new journals. It can be interrupted at any point, and done again: the data
    /// directory has the old number of shards until the new journals are on disk as a whole.
    Reshard(reshard::Arguments),
}

/// Runs one of them.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Verify(arguments) => verify::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Salvage(arguments) => salvage::run(arguments),
        Command::Reshard(arguments) => reshard::run(arguments),
    }
}

/// The data directory, to read; no broker may be running on it.
fn open(path: &Path) -> Result<DataDirectory, Failure> {
    directory::open_read_only(path).map_err(refused)
}

/// What is wrong, and what to do about it.
fn refused(error: JournalError) -> Failure {
    Failure::usage(format!("{error}\n  what to do: {}", error.cure()))
}

fn options(data: &DataDirectory, shard: u16) -> Options {
    Options { was_begun: data.was_begun, ..Options::new(ShardId(shard), data.shards, data.hash_key) }
}
