//! `ironpost backup` and `ironpost restore`: what is asked for, and what is printed.

use std::path::PathBuf;

use super::Failure;
use super::serve::DataArguments;
use crate::backup::{self, BackupError, Summary};

const MIB: u64 = 1 << 20;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ironpost backup /backup/ironpost --config /etc/ironpost.toml    the file that the broker runs with
  ironpost backup /backup/ironpost --data ./ironpost-data --rate 50
  ironpost journal verify --data /backup/ironpost                 is it sound?
  ironpost restore /backup/ironpost --data ./restored             back again

Run it as the user of the broker. It may run at any time and as often as you like; only what is new is copied.")]
pub(super) struct Arguments {
    /// Directory of the backup: the one of last time, or a new one
    #[arg(value_name = "DIR")]
    target: PathBuf,

    #[command(flatten)]
    data: DataArguments,

    /// Copy no more than so many MiB per second [default: as fast as it goes]
    #[arg(long, value_name = "MiB/s", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: Option<u64>,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ironpost restore /backup/ironpost --data /var/lib/ironpost
  ironpost serve --data /var/lib/ironpost

Run it as the user of the broker. Messages that were consumed since the backup come again.")]
pub(super) struct RestoreArguments {
    /// Directory of the backup
    #[arg(value_name = "DIR")]
    source: PathBuf,

    /// Directory to be made a data directory: a new or an empty one
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Copy no more than so many MiB per second [default: as fast as it goes]
    #[arg(long, value_name = "MiB/s", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: Option<u64>,
}

/// Makes a backup.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let data = arguments.data.data()?;
    let rate = arguments.rate.map(|rate| rate * MIB);
    let summary = with_files(|| backup::backup(&data, &arguments.target, rate))?;
    let running = summary.pause_ms.map_or_else(
        || "  no broker runs on it\n".to_owned(),
        |ms| format!("  no shard was kept from its work for more than {ms:.3} ms\n"),
    );
    super::print(&format!(
        "backup of {} in {}: {} shards\n{}{running}",
        data.display(),
        arguments.target.display(),
        summary.shards,
        account(&summary)
    ))
}

/// Takes one back.
pub(super) fn restore(arguments: &RestoreArguments) -> Result<(), Failure> {
    let rate = arguments.rate.map(|rate| rate * MIB);
    let summary = with_files(|| backup::restore(&arguments.source, &arguments.data, rate))?;
    super::print(&format!(
        "restored {} to {}: {} shards\n{}  everything was read back, and is sound\n",
        arguments.source.display(),
        arguments.data.display(),
        summary.shards,
        account(&summary)
    ))
}

/// A journal may have more segments than a process may have files by default.
fn with_files(act: impl FnOnce() -> Result<Summary, BackupError>) -> Result<Summary, Failure> {
    crate::reactor::prepare_process().map_err(Failure::work)?;
    act().map_err(Failure::work)
}

fn account(summary: &Summary) -> String {
    let Summary { segments_copied, bytes_copied, segments_linked, bytes_linked, seconds, .. } = *summary;
    let linked = match segments_linked {
        0 => String::new(),
        _ => format!(", {segments_linked} of {:.1} MiB were there already", mib(bytes_linked)),
    };
    format!("  {segments_copied} segments of {:.1} MiB copied{linked}; {seconds:.1} s\n", mib(bytes_copied))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}
