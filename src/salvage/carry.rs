//! From what is evident to new journals: in which order, and what of it the report is told.
//!
//! Every shard is surveyed before the first record is written: whether a QoS 2 message that one shard routes is known to
//! another has to be known by then, and it is better to fail before than after.

use super::Progress;
use super::losses::Losses;
use super::report::{Elsewhere, Report, ShardReport, State};
use crate::broker::settings::Settings;
use crate::ids::{Lsn, OriginKey, ShardId};
use crate::journal::{Evidence, JournalError, Storage};
use crate::live::Facts;
use crate::record::Record;
use crate::reshard::{Old, Rehoming, Sink, Source};

/// Everything that is live, to the same shard. `found`: by shard, what is evident; `was_begun`: each had a journal.
pub(crate) fn carry<S: Storage>(
    found: &[Option<Evidence<S>>],
    was_begun: bool,
    settings: &Settings,
    sink: &mut impl Sink,
    tell: &mut dyn FnMut(Progress),
) -> Result<Report, JournalError> {
    let mut rehoming = Rehoming::new(settings.placement.clone());
    let mut shards = Vec::new();
    let mut olds: Vec<Option<Old>> = Vec::new();
    let mut elsewhere = Vec::new();
    for (shard, evidence) in (0..).map(ShardId).zip(found) {
        let Some(evidence) = evidence else {
            let state = if was_begun { State::Missing } else { State::NeverBegun };
            shards.push(ShardReport::empty(shard, state));
            olds.push(None);
            continue;
        };
        tell(Progress::Replaying { shard });
        let is_lost = |origin: OriginKey| is_lost(found, origin);
        let mut watched = Watched { evidence, losses: Losses::new(shard, evidence, &is_lost) };
        let old = rehoming.survey(settings.clone(), shard, &mut watched)?;
        let losses = watched.losses;
        elsewhere.extend(losses.origins().map(|origin| (origin, shard)));
        shards.push(losses.report(evidence, &old, was_begun)?);
        olds.push(Some(old));
    }
    for (origin, holder) in elsewhere {
        if let Some(report) = shards.get_mut(origin.shard.index()) {
            report.elsewhere.push(Elsewhere { lsn: origin.lsn, holder });
        }
    }
    let mut pairs: Vec<(&Evidence<S>, Old)> =
        found.iter().zip(olds).filter_map(|(evidence, old)| Some((evidence.as_ref()?, old?))).collect();
    for (evidence, old) in &mut pairs {
        rehoming.carry_inbound(old, &mut Intact { evidence }, sink)?;
    }
    for (evidence, mut old) in pairs {
        tell(Progress::Writing { shard: evidence.shard() });
        rehoming.carry(&mut old, &mut Intact { evidence }, sink)?;
    }
    assert!(rehoming.unrouted() == 0, "what is under way was carried");
    Ok(Report { shards, meta: None, totals: rehoming.totals().to_vec(), under_way: rehoming.under_way() })
}

/// Whether the record that a key names is lost.
fn is_lost<S: Storage>(found: &[Option<Evidence<S>>], origin: OriginKey) -> bool {
    match found.get(origin.shard.index()) {
        Some(Some(evidence)) => {
            evidence.is_empty() || evidence.lost().iter().any(|lost| lost.lsns.contains(&origin.lsn))
        }
        Some(None) => true,
        None => false,
    }
}

/// What is evident, once more.
struct Intact<'a, S> {
    evidence: &'a Evidence<S>,
}

impl<S: Storage> Source for Intact<'_, S> {
    fn replay(&mut self, apply: &mut dyn FnMut(Lsn, Record<'_>, Facts<'_>)) -> Result<(), JournalError> {
        self.evidence.replay(apply)
    }

    fn read(&mut self, lsn: Lsn, apply: &mut dyn FnMut(Record<'_>)) -> Result<(), JournalError> {
        self.evidence.read(lsn, apply)
    }
}

/// The same for the first time: what it says of what is lost is noted.
struct Watched<'a, S> {
    evidence: &'a Evidence<S>,
    losses: Losses<'a>,
}

impl<S: Storage> Source for Watched<'_, S> {
    fn replay(&mut self, apply: &mut dyn FnMut(Lsn, Record<'_>, Facts<'_>)) -> Result<(), JournalError> {
        let Watched { evidence, losses } = self;
        evidence.replay(&mut |lsn, record, facts| {
            losses.see(lsn, &record, &facts);
            apply(lsn, record, facts);
        })
    }

    fn read(&mut self, lsn: Lsn, apply: &mut dyn FnMut(Record<'_>)) -> Result<(), JournalError> {
        self.evidence.read(lsn, apply)
    }
}
