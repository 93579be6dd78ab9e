//! `ironpost journal salvage`: a new data directory from what is intact in a damaged one, and what is missing.
//!
//! Exit codes: 0 nothing is missing, 1 something is, 2 it could not be done.

use std::path::PathBuf;

use crate::command::serve::Settings;
use crate::command::{FAILURE, Failure, print};
use crate::config::LogLevel;
use crate::salvage::{self, Progress, REPORT};

/// Sessions of each shard that are printed; the report in the new directory has all.
const SESSIONS_SHOWN: usize = 50;

/// Flags of `journal salvage`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ironpost journal salvage --to /mnt/other/ironpost-data                       the directory that `serve` would use
  ironpost journal salvage --config /etc/ironpost.toml --to NEW_DIR --json     the file that the broker is started with
  ironpost serve --data /mnt/other/ironpost-data                               from then on

What is missing is also in salvage-report.txt and salvage-report.json in the new directory.
Exit code: 0 nothing is missing, 1 something is, 2 it could not be done (and there is no new data directory).")]
pub(in crate::command) struct Arguments {
    /// Directory to make; it must be empty, or not there
    #[arg(long, value_name = "NEW_DIR")]
    to: PathBuf,

    /// The broker's configuration file: where topics live depends on it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The damaged directory; nothing in it is changed [default: as `serve` has it]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,

    /// One JSON object instead of words
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut config = Settings::of_directory(arguments.config.clone(), arguments.data.clone()).load()?.config;
    config.log.level = LogLevel::Warn;
    crate::log::start(config.log);
    let mut tell = |progress| eprintln!("{}", words(progress));
    let report = salvage::salvage(&config, &arguments.to, &mut tell).map_err(Failure::usage)?;
    print(&if arguments.json { report.json() } else { report.words(SESSIONS_SHOWN) })?;
    if report.is_whole() {
        return Ok(());
    }
    let file = arguments.to.join(REPORT[0]);
    let text = format!(
        "something is missing\n  what to do: keep the damaged directory and {}, and start with --data {}",
        file.display(),
        arguments.to.display()
    );
    Err(Failure { text, code: FAILURE })
}

fn words(progress: Progress) -> String {
    match progress {
        Progress::Looking { shard } => format!("looking at shard {}", shard.0),
        Progress::Replaying { shard } => format!("replaying what is intact of shard {}", shard.0),
        Progress::Writing { shard } => format!("writing shard {}", shard.0),
        Progress::Checking => "checking the new journals".to_owned(),
    }
}
