//! What the intact records of a shard say about those that are lost.
//!
//! Decides what is certain. Watches the replay; of a shard that has lost nothing, only what it knows of others.
//!
//! - A list of recipients whose message is lost: they do not get it, unless a later record says that they are done.
//! - A session of which there are records, but not the one with its name: nobody can find it, so it goes with all that it
//!   had. An older record of it, dead, may still have the name for the report.
//! - A retained message whose body is lost.
//! - A QoS 2 message that came from another shard which has lost its record of it: it is kept here, but that shard does
//!   not go on routing it to others.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::report::{Name, SessionLoss, ShardReport, State, Whole};
use crate::ids::{Lsn, OriginKey, SessionKey, ShardId};
use crate::journal::{Evidence, JournalError, Lost, Storage};
use crate::live::Facts;
use crate::record::{Recipients, Record};
use crate::reshard::Old;

/// See the module documentation.
pub(super) struct Losses<'a> {
    shard: ShardId,
    lost: &'a [Lost],
    is_lost_elsewhere: &'a dyn Fn(OriginKey) -> bool,
    names: BTreeMap<SessionKey, Name>,
    /// Sessions that something is known of, but not the name.
    unnamed: BTreeSet<SessionKey>,
    /// Recipients, by list and place, of a message that is lost.
    orphans: BTreeMap<(Lsn, u32), (SessionKey, Lsn)>,
    /// `Retained` records whose message is lost.
    retained: Vec<Lsn>,
    origins: BTreeSet<OriginKey>,
}

impl<'a> Losses<'a> {
    pub(super) fn new<S: Storage>(
        shard: ShardId,
        evidence: &'a Evidence<S>,
        is_lost_elsewhere: &'a dyn Fn(OriginKey) -> bool,
    ) -> Losses<'a> {
        Losses {
            shard,
            lost: evidence.lost(),
            is_lost_elsewhere,
            names: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            orphans: BTreeMap::new(),
            retained: Vec::new(),
            origins: BTreeSet::new(),
        }
    }

    /// The next record that is intact and needed.
    pub(super) fn see(&mut self, lsn: Lsn, record: &Record<'_>, facts: &Facts<'_>) {
        if let Record::Message { origin: Some(origin), .. } = record
            && origin.shard != self.shard
            && (self.is_lost_elsewhere)(*origin)
        {
            self.origins.insert(*origin);
        }
        if self.lost.is_empty() {
            return;
        }
        match *record {
            Record::Session { key, account, client_id, .. } => {
                self.unnamed.remove(&key);
                self.names.insert(key, Name::new(account, client_id));
            }
            Record::SessionEnded { key, .. } => self.ended(key),
            Record::Message { recipients, .. } => {
                self.each(recipients, facts, &mut |losses, key, _| losses.speak(key));
            }
            Record::Deliver { message, recipients } => {
                let lost = self.is_lost(message);
                self.each(recipients, facts, &mut |losses, key, place| {
                    losses.speak(key);
                    if lost {
                        losses.orphans.insert((lsn, place), (key, message));
                    }
                });
            }
            Record::DeliveryDone { list, place } => {
                self.orphans.remove(&(list, place));
            }
            Record::Acknowledged { key, message, .. } => {
                self.orphans.retain(|_, orphan| *orphan != (key, message));
            }
            Record::Retained { message } if self.is_lost(message) => self.retained.push(lsn),
            Record::Disconnected { key, .. }
            | Record::WillGone { key }
            | Record::Subscribed { key, .. }
            | Record::Gap { key, .. } => self.speak(key),
            _ => {}
        }
    }

    fn ended(&mut self, key: SessionKey) {
        self.names.remove(&key);
        self.unnamed.remove(&key);
        self.orphans.retain(|_, (session, _)| *session != key);
    }

    /// Those on a list who need it still, and their places.
    fn each(
        &mut self,
        recipients: Recipients<'_>,
        facts: &Facts<'_>,
        apply: &mut dyn FnMut(&mut Losses<'a>, SessionKey, u32),
    ) {
        let listed = recipients.iter().filter(|recipient| !recipient.more);
        for (place, recipient) in (0..).zip(listed) {
            let is_gone = facts.gone.is_some_and(|gone| gone.contains(place));
            if !is_gone && recipient.session != SessionKey::NONE {
                apply(self, recipient.session, place);
            }
        }
    }

    fn speak(&mut self, key: SessionKey) {
        if !self.names.contains_key(&key) {
            self.unnamed.insert(key);
        }
    }

    fn is_lost(&self, lsn: Lsn) -> bool {
        let index = self.lost.partition_point(|lost| *lost.lsns.end() < lsn);
        self.lost.get(index).is_some_and(|lost| lost.lsns.contains(&lsn))
    }

    /// Messages known here that another shard has lost.
    pub(super) fn origins(&self) -> impl Iterator<Item = OriginKey> {
        self.origins.iter().copied()
    }

    /// What there is to say about the shard. `old`: what is live of it.
    pub(super) fn report<S: Storage>(
        self,
        evidence: &Evidence<S>,
        old: &Old,
        was_begun: bool,
    ) -> Result<ShardReport, JournalError> {
        let state = match (self.lost.is_empty(), evidence.is_empty()) {
            (_, true) if was_begun => State::Missing,
            (_, true) => State::NeverBegun,
            (true, false) => State::Whole,
            (false, false) => State::Damaged,
        };
        let covered = evidence.checkpoint().unwrap_or_default();
        let is_behind = self.lost.iter().any(|lost| *lost.lsns.end() > covered);
        let mut report = ShardReport {
            records: evidence.needed(),
            last: evidence.last_lsn(),
            flaws: evidence.flaws().to_vec(),
            lost: self.lost.to_vec(),
            // Without a checkpoint every number is needed, so what is not lost is all that was ever said.
            again: is_behind,
            retained: self.retained,
            ..ShardReport::empty(self.shard, state)
        };
        let mut certain: BTreeMap<SessionKey, Vec<Lsn>> = BTreeMap::new();
        for (key, message) in self.orphans.into_values() {
            certain.entry(key).or_default().push(message);
        }
        let mut wholes = wholes(&self.unnamed, evidence, old)?;
        let named = self.names.into_iter().map(|(key, name)| (key, Some(name), None));
        let unnamed = self.unnamed.into_iter().filter_map(|key| {
            let (name, whole) = wholes.remove(&key)?;
            Some((key, name, Some(whole)))
        });
        report.sessions = named
            .chain(unnamed)
            .map(|(key, name, whole)| {
                let mut certain = certain.remove(&key).unwrap_or_default();
                certain.sort_unstable();
                certain.dedup();
                SessionLoss { key, name, certain, whole }
            })
            .collect();
        Ok(report)
    }
}

/// What is known of sessions without a name, and the name if a dead record has it.
fn wholes<S: Storage>(
    keys: &BTreeSet<SessionKey>,
    evidence: &Evidence<S>,
    old: &Old,
) -> Result<BTreeMap<SessionKey, (Option<Name>, Whole)>, JournalError> {
    let mut wholes: BTreeMap<SessionKey, (Option<Name>, Whole)> = BTreeMap::new();
    if keys.is_empty() {
        return Ok(wholes);
    }
    let live = old.live();
    evidence.replay(&mut |lsn, record, _| match record {
        _ if !live.contains(lsn) => {}
        Record::Message { recipients, .. } | Record::Deliver { recipients, .. } => {
            let facts = live.facts(lsn);
            let listed = recipients.iter().filter(|recipient| !recipient.more);
            let of_it = (0..).zip(listed).filter(|(place, recipient)| {
                keys.contains(&recipient.session) && !facts.gone.is_some_and(|gone| gone.contains(*place))
            });
            of_it.for_each(|(_, recipient)| {
                wholes.entry(recipient.session).or_default().1.messages.push(lsn);
            });
        }
        Record::Subscribed { key, filter, .. } if keys.contains(&key) => {
            wholes.entry(key).or_default().1.filters.push(filter.to_owned());
        }
        Record::Disconnected { key, .. } if keys.contains(&key) => {
            let _ = wholes.entry(key).or_default();
        }
        _ => {}
    })?;
    let mut newest: BTreeMap<SessionKey, Lsn> = BTreeMap::new();
    evidence.everything(&(Lsn::NONE..=Lsn(u64::MAX)), &mut |one| {
        if let Record::Session { key, account, client_id, .. } = one.record
            && let Some((name, _)) = wholes.get_mut(&key)
            && newest.get(&key).is_none_or(|newest| *newest < one.lsn)
        {
            *name = Some(Name::new(account, client_id));
            newest.insert(key, one.lsn);
        }
        ControlFlow::Continue(())
    })?;
    Ok(wholes)
}
