//! `ironpost check`: whether a configuration will do, and what it says in words.

use super::Failure;
use super::serve::Settings;
use crate::config::{EXAMPLE, explain};

/// Flags of `check`: those of `serve`, whose outcome it explains.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ironpost check --config /etc/ironpost.toml              before a restart: exit code 2 if it would not start
  ironpost check --example > ironpost.toml                a file to begin with")]
pub(super) struct Arguments {
    /// Print a file with every setting at its default, and what it means
    #[arg(long)]
    example: bool,

    #[command(flatten)]
    settings: Settings,
}

/// Explains.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.example {
        return super::print(EXAMPLE);
    }
    let loaded = arguments.settings.load()?;
    crate::shard::check(&loaded.config).map_err(Failure::usage)?;
    super::print(&explain(&loaded))
}
