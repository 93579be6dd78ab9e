//! Whether a journal is sound, in every block and record of it, without changing anything.
//!
//! Decides what there is to say about it. Sound is what `open` would take, and every record that counts reads back: the
//! judgement is `recover`'s own. If it is not sound, `evidence` says where else it is not.

use super::error::{JournalError, Problem};
use super::evidence::{Evidence, Flaw, Lost, header_of};
use super::format::{Kind, PAGE_BYTES};
use super::recover::{Judged, judge};
use super::storage::Storage;
use super::tail::used_tail;
use super::{Options, evidence};
use crate::ids::{Lsn, ShardId};

/// What there is to say about the journal of one shard.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Which.
    pub shard: ShardId,
    /// What a start would refuse it for; `None` if it is sound.
    pub refusal: Option<JournalError>,
    /// Every place that is not as it must be.
    pub flaws: Vec<Flaw>,
    /// Records that are needed and not there. A sound journal may lack some of those that a damaged checkpoint names, if
    /// an older one serves.
    pub lost: Vec<Lost>,
    /// Files of the log, of kept records, of checkpoints, and free ones.
    pub segments: [usize; 4],
    /// Records in all of them.
    pub records: u64,
    /// Records that a start applies.
    pub needed: u64,
    /// Bytes of segments that are in use, up to their ends.
    pub bytes: u64,
    /// The newest record.
    pub last_lsn: Lsn,
    /// The last record that the checkpoint in use covers; `None` without one.
    pub checkpoint: Option<Lsn>,
    /// What lies behind the last block, of a crash or of a former life: harmless, never acknowledged, and zeroed at the next
    /// start.
    pub torn_bytes: u64,
}

impl Verdict {
    /// Of a journal that is not there, with what the kernel says.
    pub fn missing(options: &Options, error: JournalError) -> Verdict {
        let object = error.object;
        Verdict::of_record(options, JournalError::new("open", object, Problem::JournalMissing))
    }

    /// Whether a start would take it, and everything in it can be read.
    pub fn is_sound(&self) -> bool {
        self.refusal.is_none()
    }
}

/// Look at everything. An error means that it could not be told: the journal is in use, cannot be read, or is of another
/// version.
pub fn verify<S: Storage>(storage: S, options: &Options) -> Result<Verdict, JournalError> {
    storage.lock().map_err(|error| JournalError::kernel("lock", storage.describe(""), &error))?;
    let judged = judge(&storage, options);
    if let Err(error) = &judged
        && cannot_tell(error)
    {
        return Err(error.clone());
    }
    let torn_bytes = match &judged {
        Ok(Judged { log, .. }) => match log.live.back() {
            Some(last) => used_tail(&storage, last, log.torn_bytes)?,
            None => 0,
        },
        Err(_) => 0,
    };
    let evidence = match Evidence::gather(storage, options, false) {
        Ok(evidence) => evidence,
        // A record that is none in a block that is intact.
        Err(error) if judged.is_ok() && !cannot_tell(&error) => {
            return Ok(Verdict::of_record(options, error));
        }
        Err(error) => return Err(error),
    };
    Ok(Verdict::new(judged, &evidence, torn_bytes))
}

/// What a start would refuse the journal for, if for anything; without looking at more than a start does. An error as of
/// [`verify`].
pub fn refusal<S: Storage>(storage: &S, options: &Options) -> Result<Option<JournalError>, JournalError> {
    storage.lock().map_err(|error| JournalError::kernel("lock", storage.describe(""), &error))?;
    match judge(storage, options) {
        Ok(_) => Ok(None),
        Err(error) if cannot_tell(&error) => Err(error),
        Err(error) => Ok(Some(error)),
    }
}

fn cannot_tell(error: &JournalError) -> bool {
    matches!(
        error.problem,
        Problem::Kernel(_) | Problem::InUse | Problem::Version { .. } | Problem::Setting { .. }
    )
}

impl Verdict {
    fn new<S: Storage>(
        judged: Result<Judged, JournalError>,
        evidence: &Evidence<S>,
        torn_bytes: u64,
    ) -> Verdict {
        let mut verdict = Verdict {
            shard: evidence.shard,
            refusal: None,
            flaws: evidence.flaws().to_vec(),
            lost: evidence.lost().to_vec(),
            segments: [0; 4],
            records: evidence.records(),
            needed: evidence.needed(),
            bytes: 0,
            last_lsn: evidence.last_lsn(),
            checkpoint: evidence.checkpoint(),
            torn_bytes,
        };
        let page = PAGE_BYTES as u64;
        match judged {
            Ok(Judged { inventory, log, used, .. }) => {
                let used = used.filter(|_| log.image.is_some());
                let checkpoints = inventory.files.iter().filter(|file| {
                    let first = used.as_ref().map_or(u64::MAX, |used| used.image.first_sequence);
                    header_of(file)
                        .is_some_and(|header| header.kind == Kind::Checkpoint && header.sequence >= first)
                });
                let [live, kept, checkpoints] = [log.live.len(), log.kept.len(), checkpoints.count()];
                let free = inventory.files.len() - live - kept - checkpoints;
                verdict.segments = [live, kept, checkpoints, free];
                let ends = log.live.iter().map(|one| one.end).chain(log.kept.iter().map(|one| one.end));
                verdict.bytes = ends.map(|end| end - page).sum();
                verdict.last_lsn = log.end.last_lsn;
                verdict.checkpoint = used.map(|used| used.image.head.last_lsn);
            }
            Err(error) => {
                for one in &evidence.files {
                    let kind = header_of(&one.file).map_or(3, |header| header.kind as usize);
                    verdict.segments[kind] += 1;
                    if let Some(header) = header_of(&one.file) {
                        let life = evidence::life(one, &header);
                        verdict.bytes += life.map(|block| block.end - block.begin).sum::<u64>();
                    }
                }
                verdict.refuse(error);
            }
        }
        verdict
    }

    fn of_record(options: &Options, error: JournalError) -> Verdict {
        let mut verdict = Verdict {
            shard: options.shard,
            refusal: None,
            flaws: Vec::new(),
            lost: Vec::new(),
            segments: [0; 4],
            records: 0,
            needed: 0,
            bytes: 0,
            last_lsn: Lsn::NONE,
            checkpoint: None,
            torn_bytes: 0,
        };
        verdict.refuse(error);
        verdict
    }

    /// With the place that a start would name first.
    fn refuse(&mut self, error: JournalError) {
        let (expected, found) = match &error.problem {
            Problem::Corrupt { what, expected, found } => (format!("{what}: {expected}"), found.to_string()),
            _ => ("a journal that a start takes".to_owned(), error.to_string()),
        };
        let flaw =
            Flaw { file: error.object.to_string(), offset: error.offset.unwrap_or(0), expected, found };
        self.flaws.retain(|other| (&other.file, other.offset) != (&flaw.file, flaw.offset));
        self.flaws.insert(0, flaw);
        self.refusal = Some(error);
    }
}
