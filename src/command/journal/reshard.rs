//! `ironpost journal reshard`: another number of shards.

use std::fmt::Write;
use std::path::PathBuf;

use crate::command::Failure;
use crate::command::serve::Settings;
use crate::config::{Config, LogLevel};
use crate::reshard::{self, Progress, Summary};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ironpost journal reshard 4 --dry-run                    what would be where, and how much room that takes
  ironpost journal reshard 4 --config /etc/ironpost.toml  the file that the broker is started with
  ironpost serve --shards 4                               from then on")]
pub(in crate::command) struct Arguments {
    /// How many there shall be
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(1..=crate::limits::SHARDS_MAX as i64))]
    shards: u16,

    /// The broker's configuration file: where topics live depends on it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Directory of the journals [default: as `serve` has it]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,

    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Does it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let loaded = Settings::of_directory(arguments.config.clone(), arguments.data.clone()).load()?;
    let mut config: Config = loaded.config;
    config.log.level = LogLevel::Warn;
    crate::log::start(config.log);
    let mut tell = |progress| eprintln!("{}", words(progress));
    let Arguments { shards, dry_run, .. } = *arguments;
    let summary = reshard::reshard(&config, shards, dry_run, &mut tell).map_err(Failure::work)?;
    crate::command::print(&account(&summary, shards, dry_run))
}

fn words(progress: Progress) -> String {
    match progress {
        Progress::Settling => "finishing what was under way".to_owned(),
        Progress::Reading { shard, shards } => format!("reading shard {} of {shards}", shard.0 + 1),
        Progress::Writing { shard, shards } => format!("moving shard {} of {shards}", shard.0 + 1),
        Progress::Checking => "checking the new journals".to_owned(),
    }
}

/// The summary as text.
fn account(summary: &Summary, shards: u16, dry_run: bool) -> String {
    if summary.before == shards {
        return format!("it has {shards} shards already: nothing to do\n");
    }
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
    line("shard  sessions  messages queued  retained".to_owned());
    for (shard, totals) in summary.totals.iter().enumerate() {
        line(format!("{shard:>5}  {:>8}  {:>15}  {:>8}", totals.sessions, totals.queued, totals.retained));
    }
    let sum = |of: fn(&reshard::Totals) -> u64| summary.totals.iter().map(of).sum::<u64>();
    let (sessions, queued, retained) =
        (sum(|one| one.sessions), sum(|one| one.queued), sum(|one| one.retained));
    line(format!("  all  {sessions:>8}  {queued:>15}  {retained:>8}"));
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let (before, needed) = (summary.before, mib(summary.bytes));
    if !dry_run {
        line(format!(
            "it had {before} shards and has {shards}: start it with --shards {shards}, or without a number"
        ));
        return text;
    }
    let room = summary.room.map_or(String::new(), |room| format!(", there are {} MiB", room >> 20));
    line(format!("nothing was changed: {before} shards; {shards} take {needed} MiB beside them{room}"));
    if summary.unrouted > 0 {
        line(format!("{} QoS 2 messages are under way and are not counted", summary.unrouted));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reshard::Totals;

    #[test]
    fn the_summary_says_what_is_where_and_what_to_do_next() {
        let totals = vec![
            Totals { sessions: 2, queued: 30, retained: 0 },
            Totals { sessions: 1, queued: 4, retained: 5 },
        ];
        let summary = Summary { before: 8, totals, bytes: 65 << 20, room: Some(1 << 30), unrouted: 1 };
        let text = account(&summary, 2, false);
        assert!(text.contains("    1         1                4         5\n"), "{text}");
        assert!(text.contains("  all         3               34         5\n"), "{text}");
        assert!(text.contains("--shards 2"), "{text}");
        let dry = account(&summary, 2, true);
        assert!(dry.contains("8 shards; 2 take 65 MiB beside them, there are 1024 MiB"), "{dry}");
        assert!(dry.contains("1 QoS 2 messages"), "{dry}");
        let same = Summary { before: 2, totals: Vec::new(), ..summary };
        assert!(account(&same, 2, false).contains("nothing to do"));
    }
}
