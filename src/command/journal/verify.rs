//! `ironpost journal verify`: whether a data directory is sound, shard by shard, in words or as JSON.
//!
//! Exit codes: 0 all of it is, 1 something is not, 2 it could not be told.

use std::fmt::Write;

use super::super::serve::DataArguments;
use super::super::{FAILURE, Failure};
use super::{open, options, refused};
use crate::ids::ShardId;
use crate::journal::{self, Flaw, Verdict};
use crate::json::quoted;

/// Flags of `journal verify`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ironpost journal verify                                 the data directory that `ironpost serve` would use
  ironpost journal verify --data /var/lib/ironpost --json

Exit code: 0 sound, 1 damaged, 2 could not tell (a broker runs on it, no access, another version).")]
pub(in crate::command) struct Arguments {
    #[command(flatten)]
    data: DataArguments,

    /// One JSON object instead of words
    #[arg(long)]
    json: bool,
}

/// Looks, and says what it saw.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let data = open(&arguments.data.data()?)?;
    let mut verdicts = Vec::new();
    for shard in 0..data.shards {
        let options = options(&data, shard);
        verdicts.push(match data.shard(ShardId(shard)) {
            Ok(directory) => journal::verify(directory, &options).map_err(refused)?,
            Err(error) if error.is_missing() && data.was_begun => Verdict::missing(&options, error),
            Err(error) if error.is_missing() => continue,
            Err(error) => return Err(refused(error)),
        });
    }
    super::super::print(&if arguments.json { json(&verdicts) } else { words(&verdicts) })?;
    match verdicts.iter().find_map(|verdict| verdict.refusal.as_ref()) {
        None => Ok(()),
        Some(error) => {
            Err(Failure { text: format!("damaged\n  what to do: {}", error.cure()), code: FAILURE })
        }
    }
}

fn words(verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    for verdict in verdicts {
        let soundness = if verdict.is_sound() { "sound" } else { "DAMAGED" };
        let [log, kept, checkpoints, free] = verdict.segments;
        let checkpoint =
            verdict.checkpoint.map_or("none".to_owned(), |lsn| format!("up to record {}", lsn.0));
        let lines = [
            format!("shard {}: {soundness}", verdict.shard.0),
            format!("  segments: {log} log, {kept} kept records, {checkpoints} checkpoints, {free} free"),
            format!("  records: {}, of which a start applies {}", verdict.records, verdict.needed),
            format!("  bytes: {}", verdict.bytes),
            format!("  last record: {}", verdict.last_lsn.0),
            format!("  checkpoint in use: {checkpoint}"),
            format!("  torn or old bytes behind it: {} (harmless)", verdict.torn_bytes),
        ];
        lines.iter().for_each(|line| writeln!(text, "{line}").expect("writing to a string"));
        // Of a sound one these are places that nothing depends on.
        for Flaw { file, offset, expected, found } in &verdict.flaws {
            let kind = if verdict.is_sound() { "remark" } else { "defect" };
            writeln!(text, "  {kind}: {file} at byte {offset}: expected {expected}; found {found}")
                .expect("writing to a string");
        }
        for lost in verdict.lost.iter().filter(|_| !verdict.is_sound()) {
            let (first, last) = (lost.lsns.start().0, lost.lsns.end().0);
            let (records, place) = (lost.records, &lost.place);
            writeln!(text, "  lost: {records} needed of records {first} to {last}: {place}")
                .expect("writing to a string");
        }
    }
    text
}

fn json(verdicts: &[Verdict]) -> String {
    let sound = verdicts.iter().all(Verdict::is_sound);
    let shards: Vec<String> = verdicts.iter().map(shard_json).collect();
    format!("{{\"sound\":{sound},\"shards\":[{}]}}\n", shards.join(","))
}

fn shard_json(verdict: &Verdict) -> String {
    let [log, kept, checkpoints, free] = verdict.segments;
    let flaw = |flaw: &Flaw| {
        let [file, expected, found] = [&flaw.file, &flaw.expected, &flaw.found].map(|text| quoted(text));
        format!("{{\"file\":{file},\"offset\":{},\"expected\":{expected},\"found\":{found}}}", flaw.offset)
    };
    let flaws: Vec<String> = verdict.flaws.iter().map(flaw).collect();
    let lost = verdict.lost.iter().map(|lost| {
        let (first, last) = (lost.lsns.start().0, lost.lsns.end().0);
        let place = quoted(&lost.place);
        format!("{{\"first\":{first},\"last\":{last},\"records\":{},\"place\":{place}}}", lost.records)
    });
    let lost: Vec<String> = lost.filter(|_| !verdict.is_sound()).collect();
    let checkpoint = verdict.checkpoint.map_or("null".to_owned(), |lsn| lsn.0.to_string());
    format!(
        "{{\"shard\":{},\"sound\":{},\"segments\":{{\"log\":{log},\"kept\":{kept},\"checkpoints\":{checkpoints},\
         \"free\":{free}}},\"records\":{},\"applied_at_start\":{},\"bytes\":{},\"last_lsn\":{},\"checkpoint\":{checkpoint},\
         \"torn_bytes\":{},\"defects\":[{}],\"lost\":[{}]}}",
        verdict.shard.0,
        verdict.is_sound(),
        verdict.records,
        verdict.needed,
        verdict.bytes,
        verdict.last_lsn.0,
        verdict.torn_bytes,
        flaws.join(","),
        lost.join(",")
    )
}
