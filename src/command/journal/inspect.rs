//! `ironpost journal inspect`: every record of a data directory, or every file, in lines of words or of JSON.
//!
//! Decides which are shown, and in which order: file by file, so that nothing but one block is in memory. Payloads are never
//! shown, topics are. Exit codes are those of `journal verify`: 0 sound, 1 damaged, 2 it could not be told.

mod fields;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::ops::{ControlFlow, RangeInclusive};

use super::{open, options, refused};
use crate::command::serve::DataArguments;
use crate::command::{FAILURE, Failure};
use crate::ids::{Lsn, SessionKey, ShardId};
use crate::journal::storage::Directory;
use crate::journal::{self, Evidence, Evident, Flaw, JournalError, Life, Lost, Row};
use crate::record::Record;
use fields::Fields;

/// Flags of `journal inspect`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ironpost journal inspect                                       every record of every shard
  ironpost journal inspect --shard 1 --from 4000 --to 4100       some numbers
  ironpost journal inspect --session alice --needed              what a start would restore for a client
  ironpost journal inspect --segments                            what each file is
  ironpost journal inspect --json | jq 'select(.type == \"Retained\")'

Payloads are not shown. `needed`: a start would apply the record.
Exit code: 0 sound, 1 damaged, 2 could not tell (a broker runs on it, no access, another version).")]
pub(in crate::command) struct Arguments {
    #[command(flatten)]
    data: DataArguments,

    /// Only that shard
    #[arg(long, value_name = "N")]
    shard: Option<u16>,

    /// Only records from that number on
    #[arg(long, value_name = "LSN", default_value_t = 0, conflicts_with = "segments")]
    from: u64,

    /// Only records up to that number
    #[arg(long, value_name = "LSN", default_value_t = u64::MAX, hide_default_value = true, conflicts_with = "segments")]
    to: u64,

    /// Only what concerns the sessions of that client
    #[arg(long, value_name = "CLIENT-ID", conflicts_with = "segments")]
    session: Option<String>,

    /// Only what a start would apply
    #[arg(long, conflicts_with = "segments")]
    needed: bool,

    /// The files instead of the records
    #[arg(long)]
    segments: bool,

    /// A JSON object in each line instead of words
    #[arg(long)]
    json: bool,
}

/// Looks, and prints.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let data = open(&arguments.data.data()?)?;
    if let Some(shard) = arguments.shard.filter(|shard| *shard >= data.shards) {
        return Err(Failure::usage(format!("there is no shard {shard}: it has {} shards", data.shards)));
    }
    let mut out = Out::default();
    let mut refusal = None;
    for shard in (0..data.shards).filter(|shard| arguments.shard.is_none_or(|only| only == *shard)) {
        let options = options(&data, shard);
        let seen = match data.shard(ShardId(shard)) {
            Ok(directory) => {
                let refused_for = journal::refusal(&directory, &options).map_err(refused)?;
                let evidence = Evidence::gather(directory, &options, false).map_err(refused)?;
                show(arguments, &evidence, refused_for.is_some(), &mut out)?;
                refused_for
            }
            Err(error) if error.is_missing() && data.was_begun => {
                out.line(&missing(arguments.json, shard))?;
                journal::Verdict::missing(&options, error).refusal
            }
            Err(error) if error.is_missing() => None,
            Err(error) => return Err(refused(error)),
        };
        refusal = refusal.or(seen);
        if out.closed {
            break;
        }
    }
    out.flush()?;
    match refusal {
        None => Ok(()),
        Some(error) => {
            Err(Failure { text: format!("damaged\n  what to do: {}", error.cure()), code: FAILURE })
        }
    }
}

fn missing(json: bool, shard: u16) -> String {
    if json {
        format!("{{\"shard\":{shard},\"sound\":false,\"missing\":true}}")
    } else {
        format!("shard {shard}: MISSING")
    }
}

fn show(
    arguments: &Arguments,
    evidence: &Evidence<Directory>,
    is_refused: bool,
    out: &mut Out,
) -> Result<(), Failure> {
    let shard = evidence.shard();
    if arguments.segments {
        for row in evidence.table() {
            let fields = fields_of_file(shard, &row);
            out.line(&fields.line(arguments.json))?;
        }
    } else {
        records(arguments, evidence, out)?;
    }
    let found = if is_refused { "DAMAGED" } else { "sound" };
    // Of a sound one these are places that nothing depends on.
    let (flaws, lost) = if is_refused { (evidence.flaws(), evidence.lost()) } else { Default::default() };
    if arguments.json {
        let mut fields = Fields::new();
        fields.number("shard", shard.0).truth("sound", !is_refused).number("needed", evidence.needed());
        fields.number("last_lsn", evidence.last_lsn().0);
        fields.array("defects", flaws.iter().map(|flaw| of_flaw(flaw).line(true)));
        fields.array("lost", lost.iter().map(|lost| of_lost(lost).line(true)));
        return out.line(&fields.line(true));
    }
    let (needed, last) = (evidence.needed(), evidence.last_lsn().0);
    out.line(&format!("shard {}: {found}, a start needs {needed} records, the last is {last}", shard.0))?;
    for flaw in flaws {
        out.line(&format!("  defect: {}", of_flaw(flaw).line(false)))?;
    }
    for lost in lost {
        out.line(&format!("  lost: {}", of_lost(lost).line(false)))?;
    }
    Ok(())
}

fn of_flaw(flaw: &Flaw) -> Fields {
    let mut fields = Fields::new();
    fields.text("file", &flaw.file).number("offset", flaw.offset);
    fields.text("expected", &flaw.expected).text("found", &flaw.found);
    fields
}

fn of_lost(lost: &Lost) -> Fields {
    let mut fields = Fields::new();
    fields.number("first", lost.lsns.start().0).number("last", lost.lsns.end().0);
    fields.number("records", lost.records).text("place", &lost.place);
    fields
}

fn fields_of_file(shard: ShardId, row: &Row) -> Fields {
    let kind = match row.life {
        Life::Log => "log",
        Life::Kept => "kept",
        Life::Checkpoint => "checkpoint",
        Life::Unused => "unused",
        Life::Unknown => "unknown",
    };
    let state = match (row.damaged, row.counts) {
        (true, _) => "damaged",
        (false, true) => "in use",
        (false, false) => "free",
    };
    let mut fields = Fields::new();
    fields.number("shard", shard.0).text("file", &row.file).text("kind", kind).text("state", state);
    fields.number("sequence", row.sequence).text("epoch", &format!("{:016x}", row.epoch));
    fields.number("first_lsn", row.first_lsn.0).number("blocks", row.blocks);
    fields.number("bytes", row.bytes).number("file_bytes", row.file_bytes);
    fields
}

fn records(arguments: &Arguments, evidence: &Evidence<Directory>, out: &mut Out) -> Result<(), Failure> {
    let lsns = Lsn(arguments.from)..=Lsn(arguments.to);
    let of_session = match &arguments.session {
        Some(client_id) => Some(OfSession::find(evidence, client_id).map_err(refused)?),
        None => None,
    };
    let mut failed = Ok(());
    let mut show = |one: &Evident<'_>| {
        let wanted = (one.needed || !arguments.needed)
            && of_session.as_ref().is_none_or(|of_session| of_session.concerns(one));
        if wanted {
            failed = out.line(&fields::of_record(evidence.shard(), one).line(arguments.json));
        }
        if failed.is_err() || out.closed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    evidence.everything(&lsns, &mut show).map_err(refused)?;
    failed
}

/// What is a client's.
struct OfSession {
    keys: BTreeSet<SessionKey>,
    /// Lists that it is on, and where.
    lists: BTreeSet<(Lsn, u32)>,
    /// Its own messages at QoS 2.
    inbound: BTreeSet<Lsn>,
    client_id: String,
}

impl OfSession {
    /// Reads everything twice: its sessions' records may come behind those that name it only by key.
    fn find(evidence: &Evidence<Directory>, client_id: &str) -> Result<OfSession, JournalError> {
        const ALL: RangeInclusive<Lsn> = Lsn::NONE..=Lsn(u64::MAX);
        let mut found = OfSession {
            keys: BTreeSet::new(),
            lists: BTreeSet::new(),
            inbound: BTreeSet::new(),
            client_id: client_id.to_owned(),
        };
        evidence.everything(&ALL, &mut |one| {
            if let Record::Session { key, client_id: named, .. } = one.record
                && named == client_id
            {
                found.keys.insert(key);
            }
            ControlFlow::Continue(())
        })?;
        evidence.everything(&ALL, &mut |one| {
            match one.record {
                Record::Message { recipients, .. } | Record::Deliver { recipients, .. } => {
                    let listed = recipients.iter().filter(|recipient| !recipient.more);
                    let mine = (0..).zip(listed).filter(|(_, one)| found.keys.contains(&one.session));
                    found.lists.extend(mine.map(|(place, _)| (one.lsn, place)));
                }
                Record::Inbound { key, .. } if found.keys.contains(&key) => {
                    found.inbound.insert(one.lsn);
                }
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    fn concerns(&self, one: &Evident<'_>) -> bool {
        match one.record {
            Record::Message { .. } | Record::Deliver { .. } => {
                self.lists.range((one.lsn, 0)..=(one.lsn, u32::MAX)).next().is_some()
            }
            Record::DeliveryDone { list, place }
            | Record::DeliveryBegun { list, place, .. }
            | Record::HandedOn { list, place } => self.lists.contains(&(list, place)),
            Record::Routed { inbound } => self.inbound.contains(&inbound),
            Record::Spent { client_id, .. } => self.client_id == client_id,
            Record::Session { key, .. }
            | Record::Disconnected { key, .. }
            | Record::WillGone { key }
            | Record::SessionEnded { key, .. }
            | Record::Subscribed { key, .. }
            | Record::Unsubscribed { key, .. }
            | Record::Acknowledged { key, .. }
            | Record::Inbound { key, .. }
            | Record::Released { key, .. }
            | Record::Sent { key, .. }
            | Record::Received { key, .. }
            | Record::Gap { key, .. } => self.keys.contains(&key),
            Record::Retained { .. } | Record::RetainedCleared { .. } | Record::OriginReleased { .. } => false,
        }
    }
}

/// Standard output, in large pieces. A reader that has left (`| head`) is no failure, but the end.
#[derive(Default)]
struct Out {
    text: String,
    closed: bool,
}

impl Out {
    /// Kept before it is written.
    const BYTES: usize = 64 << 10;

    fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.text.push_str(line);
        self.text.push('\n');
        if self.text.len() < Out::BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let written = std::io::stdout().lock().write_all(self.text.as_bytes());
        self.text.clear();
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(Failure::usage(format!("cannot write to standard output: {error}"))),
        }
    }
}
