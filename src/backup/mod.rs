//! Backups: a data directory beside the one of a broker, made while that runs, and back again.
//!
//! Decides what is copied, in which order, and when it counts. Called by the command line, in a process of its own: a
//! broker only says what there is to copy and keeps it (`shard::backup`, `journal::pin`); it neither reads nor writes for a
//! backup, so that no shard ever waits for one.
//!
//! - `protocol`: what is said on the control socket
//! - `broker`: the side of it that wants a backup
//! - `copy`: segments from here to there
//! - `restore`: from a backup to a data directory
//!
//! # What a backup has
//!
//! Of every shard its journal as it was at one moment, the shard's *cut*: what a crash at that moment would have left. One
//! journal cut there is consistent, as recovery from crashes is. The cuts of different shards are milliseconds apart, and
//! that is as if shards had crashed at different moments. Then:
//!
//! **Nothing that was acknowledged before the backup began is missing, unless it was consumed since.** A sender is
//! acknowledged when each shard with a recipient has the message on disk (I1), or its recipient has acknowledged it. Those
//! records are before every cut. They are dead in a cut only if the recipient has acknowledged the message by then, it
//! expired, or the session ended; or because a later record says that *another* shard has the message. Only three do:
//!
//! | record, here | says that over there | written when |
//! |---|---|---|
//! | `Routed` | an inbound message at QoS 2 is placed | all owed have settled it |
//! | `SessionEnded` | entries of its shared subscriptions are other members' | all of these have settled |
//! | `WillGone`, or `SessionEnded` again | the message of a will is placed | all owed have settled it |
//!
//! Settled means: durable over there. So the record is right; but a cut that has it, beside an earlier cut over there, is not.
//! Hence three phases, each begun when every shard has answered the one before:
//!
//! 1. Every shard *holds back* settlements that would write such a record (`broker::postponed`), and answers when all that it
//!    has appended is durable.
//! 2. Every shard is cut, and pins what the cut has.
//! 3. Every shard goes on.
//!
//! A record of the three in a cut was appended before phase 2, and not after its shard began to hold back; so it follows from
//! a settlement that had come by then, and what was settled was durable over there before any cut. Holding back delays
//! nobody for the milliseconds that this takes: no sender waits for any of the three.
//!
//! **Nothing comes twice at QoS 2 that would not after a crash.** A shard that placed a message keeps its key until the
//! message's home says that `Routed` is durable. In phase 1 all that was written becomes durable, and nothing of the kind
//! is written until phase 3; so in the cut of a home is every `Routed` that anybody was told of before or at his cut. What
//! is routed again after a restore meets its key.
//!
//! **Nothing new is taken for what a cut has.** A key is a number in the journal of its home. If a cut has one that is above the
//! end of the home's cut, the restored home gives it to another message, which would be dropped there. So a shard that
//! holds back routes nothing that it accepts at QoS 2, whose senders have their PUBREC, and hands on nothing under new keys.
//!
//! All else is in one shard: sessions with their subscriptions and queues live in one, a retained message lives at the
//! owner of its topic and its sender's acknowledgement waits for both. Interest between shards is rebuilt at every start.
//!
//! What cannot be had is that a restored broker goes on where the other one ended: what was consumed after the cut comes
//! again, at QoS 2 too, and what was accepted after it is not there.
//!
//! # Where it is
//!
//! A backup has the layout of a data directory, so `journal verify` works on it. Beside `meta` lies a file `backup`. The
//! next one links what the last one has already and copies the rest; one file replaced makes it the one that counts
//! (`journal::replica`). A segment is taken over if it has the same kind, sequence, epoch and length, and its blocks, read
//! once more to the end, have the same end and the same last CRC, which is a CRC over all before it. That is done before the
//! broker is asked, so that nothing waits for it.
//!
//! Each shard's directory has a list of its segments with their ends. A journal does not need it; but by itself it cannot tell a
//! last block that was damaged at rest from one that never arrived, and nothing is written behind it in a backup. `restore` goes by
//! the list, so it takes the backup as it was made, or refuses it.
//!
//! At last the whole backup is judged as a start would judge it. Only then does it count.
//!
//! A restored broker has the hash key of the other one, because sessions are found by it; and the epochs of its segments. Each
//! start makes new epochs from a new seed, so what two brokers write after one restore each is told apart; nobody keeps
//! an operator from serving both to the same clients, though.

mod broker;
mod copy;
mod error;
pub mod protocol;
mod restore;

pub use error::BackupError;
pub use restore::restore;

use std::path::{Path, PathBuf};

use self::broker::Conversation;
use self::copy::{Pace, Rest, copy_part};
use self::protocol::Cut;
use crate::ids::ShardId;
use crate::journal::directory::{self, DataDirectory};
use crate::journal::{JournalError, Options, Owner, Part, Replica, Storage, examine, parts_at_rest};

/// Name of the list of a shard's segments.
const LIST: &str = "segments";

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Shards.
    pub shards: u16,
    /// Segments written.
    pub segments_copied: u64,
    /// Their bytes that count.
    pub bytes_copied: u64,
    /// Segments that the backup before had.
    pub segments_linked: u64,
    /// Their bytes that count.
    pub bytes_linked: u64,
    /// How long that took.
    pub seconds: f64,
    /// The longest that a shard was kept from its work; `None` if no broker runs.
    pub pause_ms: Option<f64>,
}

/// Make the next backup of the data directory in `data`. `rate`: bytes per second at most.
pub fn backup(data: &Path, target: &Path, rate: Option<u64>) -> Result<Summary, BackupError> {
    let source = Source::open(data)?;
    if !source.data().was_begun {
        return Err(JournalError::of_never_served(data).into());
    }
    let replica = Replica::backup(target, source.data())?;
    let mut summary = Summary { shards: source.data().shards, ..Summary::default() };
    let mut pace = Pace::new(rate);
    let made = fill(&source, &replica, &mut pace, &mut summary);
    match made {
        Ok(()) => replica.complete()?,
        Err(error) => {
            replica.abandon();
            return Err(error);
        }
    }
    summary.seconds = pace.elapsed().as_secs_f64();
    Ok(summary)
}

/// Where it comes from.
enum Source {
    /// Nobody runs on it, and it is locked.
    AtRest(DataDirectory),
    /// A broker does.
    Running(DataDirectory, PathBuf),
}

impl Source {
    fn open(data: &Path) -> Result<Source, JournalError> {
        match directory::open_read_only(data) {
            Ok(data) => Ok(Source::AtRest(data)),
            Err(error) if error.is_in_use() => {
                Ok(Source::Running(directory::look(data)?, protocol::socket(data)))
            }
            Err(error) => Err(error),
        }
    }

    fn data(&self) -> &DataDirectory {
        match self {
            Source::AtRest(data) | Source::Running(data, _) => data,
        }
    }
}

fn fill(
    source: &Source,
    replica: &Replica,
    pace: &mut Pace,
    summary: &mut Summary,
) -> Result<(), BackupError> {
    let known = known(source.data(), replica)?;
    let copier = Copier { data: source.data(), replica, known };
    match source {
        Source::AtRest(data) => {
            let cuts = at_rest(data)?;
            copier.copy(&cuts, pace, summary, &mut || Ok(()))?;
        }
        Source::Running(data, socket) => {
            let mut conversation = Conversation::begin(socket)?;
            let cuts = conversation.cuts(data.shards)?;
            let longest = cuts.iter().map(|cut| cut.nanos).max().unwrap_or(0);
            summary.pause_ms = Some(longest as f64 / 1e6);
            let copied = copier.copy(&cuts, pace, summary, &mut || conversation.goes_on());
            // If the broker gave it up, that is why.
            conversation.end(&copied, summary)?;
            copied?;
        }
    }
    for shard in (0..source.data().shards).map(ShardId) {
        parts_at_rest(&replica.shard(shard)?, &options(source.data(), shard))?;
    }
    Ok(())
}

fn at_rest(data: &DataDirectory) -> Result<Vec<Cut>, JournalError> {
    let shards = (0..data.shards).map(ShardId);
    let cut = |shard| {
        let parts = parts_at_rest(&data.shard(shard)?, &options(data, shard))?;
        Ok(Cut { shard, parts, nanos: 0 })
    };
    shards.map(cut).collect()
}

/// What the backup before has of each shard, read to the end.
fn known(data: &DataDirectory, replica: &Replica) -> Result<Vec<Vec<Part>>, JournalError> {
    let of_shard = |shard| {
        let Some(directory) = replica.shard_before(shard) else { return Ok(Vec::new()) };
        let failed = |error| JournalError::kernel("list", directory.display().to_string(), &error);
        let mut parts = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().into_string().unwrap_or_default();
            parts.extend(examine(&directory, &name, &owner(data, shard))?);
        }
        Ok(parts)
    };
    (0..data.shards).map(ShardId).map(of_shard).collect()
}

struct Copier<'a> {
    data: &'a DataDirectory,
    replica: &'a Replica,
    /// Of each shard.
    known: Vec<Vec<Part>>,
}

impl Copier<'_> {
    /// Everything in the cuts. `goes_on` is asked before each segment.
    fn copy(
        &self,
        cuts: &[Cut],
        pace: &mut Pace,
        summary: &mut Summary,
        goes_on: &mut dyn FnMut() -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        for Cut { shard, parts, .. } in cuts {
            let (from, to) = (self.data.shard(*shard)?, self.replica.shard(*shard)?);
            let mut list = String::new();
            for part in parts {
                goes_on()?;
                if let Some(bytes) = self.link(*shard, part, to.path()) {
                    summary.segments_linked += 1;
                    summary.bytes_linked += bytes;
                    list.push_str(&format!("{part}\n"));
                    continue;
                }
                let owner = owner(self.data, *shard);
                let paths = (from.path(), to.path());
                let end = copy_part(paths, part, &owner, Rest::Hole, pace)?;
                summary.bytes_copied += end;
                summary.segments_copied += 1;
                list.push_str(&format!("{}\n", part.ending(end)));
            }
            let failed = |error| JournalError::kernel("write", to.describe(LIST), &error);
            to.replace(LIST, list.as_bytes()).map_err(failed)?;
            let failed = |error| JournalError::kernel("sync", to.describe(""), &error);
            to.sync_directory().map_err(failed)?;
        }
        Ok(())
    }

    /// Take over what the backup before has. Not all file systems can; then it is copied.
    fn link(&self, shard: ShardId, part: &Part, to: &Path) -> Option<u64> {
        let known = self.known.get(shard.index())?.iter().find(|known| known.is_same(part))?;
        let from = self.replica.shard_before(shard)?.join(known.name());
        std::fs::hard_link(from, to.join(part.name())).ok()?;
        known.end()
    }
}

fn owner(data: &DataDirectory, shard: ShardId) -> Owner {
    Owner { shard, shards: data.shards, hash_key: data.hash_key }
}

fn options(data: &DataDirectory, shard: ShardId) -> Options {
    Options { was_begun: true, ..Options::new(shard, data.shards, data.hash_key) }
}
