//! What an ended session had through shared subscriptions goes to another member: section 4.8.2 of MQTT 5 asks for it at
//! QoS 1, and what was not sent yet is treated so at QoS 2.
//!
//! The record that ends the session is written when all of that has arrived, so of a crash in between nothing is lost:
//! the session is back, ends again, and hands on again. That must not make a second one. So each entry goes under a key of
//! its own, as if it had been published here at QoS 2: it is noted (`HandedOn`), that becomes durable, the number of the
//! note is the key, and of a message that some member has had under it nothing is handed on after a crash (`origins` says
//! how that is known). The key is released when the session's end is durable: from then on it will not come again.
//!
//! A message at QoS 2 that the entry came by may be routed again too, if all crash; but the record that lists the ended session
//! stays for as long as that may happen, and says that the shared subscription has had it.
//!
//! Sessions that do not outlive their connection have nothing in the journal to hand on twice.

use std::collections::BTreeMap;

use super::effect::Effects;
use super::messages::Sender;
use super::needs::Need;
use super::place::{Scope, Task};
use super::session::{NO_SLOT, Phase};
use super::session_end::Ending;
use super::stored::Queued;
use super::subscriptions::group_tag;
use super::{Broker, Budget};
use crate::ids::{Lsn, OriginKey, SessionKey};
use crate::record::Record;
use crate::wire::{QoS, topic};

/// How far the handing on of a session's entries is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Entries before that one are on a list in the journal, or need no key.
    Listing { next: usize, keyed: bool },
    /// Entries before that one have their note.
    Noting { next: usize },
    /// Waiting for the notes.
    Syncing,
    /// They go.
    Going,
}

/// The note of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandedOn {
    /// The `HandedOn` record, and the key of what is handed on.
    lsn: Lsn,
    slot: u32,
}

#[cfg(test)]
impl HandedOn {
    pub(super) fn lsn(&self) -> Lsn {
        self.lsn
    }
}

/// Notes, by the list that the entry is on and its place there.
pub(super) type Notes = BTreeMap<(Lsn, u32), HandedOn>;

/// What an entry of an ended session needs to be handed on.
enum Way {
    /// It is not shared, or not in the journal, or ends with its session: no key.
    Plain,
    /// A key; but that message, which may wait for acknowledgements in memory, is not on a list yet.
    Unlisted(u32),
    /// A key; it is in that place of that list.
    Listed(Lsn, u32),
}

/// What came of one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Go on.
    Done,
    /// There is more to do.
    More,
    /// Something else has to happen first.
    Wait,
}

impl Broker {
    /// Bring the first ended session to where its entries can go, as far as the budget goes.
    pub(super) fn prepare_to_hand_on(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> Step {
        loop {
            let Some(Ending { slot, stage, .. }) = self.ending.front_mut() else { return Step::Done };
            let slot = *slot;
            let (stage, step) = match std::mem::replace(stage, Stage::Going) {
                Stage::Going => return Step::Done,
                Stage::Listing { next, keyed } => self.see_lists(slot, next, keyed, budget, effects),
                Stage::Noting { next } => self.note_entries(slot, next, budget, effects),
                Stage::Syncing => {
                    let key = self.sessions.get(slot).key;
                    // Nor may the keys be in a backup that has no such notes.
                    match self.ends.last_note(key) <= self.durable && !self.holds_back() {
                        true => (Stage::Going, Step::Done),
                        false => (Stage::Syncing, Step::Wait),
                    }
                }
            };
            self.ending.front_mut().expect("it is there still").stage = stage;
            if step != Step::Done {
                return step;
            }
        }
    }

    /// Whether all entries that need a key are on a list, from that one on. What waits for others is listed now.
    fn see_lists(
        &mut self,
        slot: u32,
        mut next: usize,
        mut keyed: bool,
        budget: &mut Budget,
        effects: &mut impl Effects,
    ) -> (Stage, Step) {
        while let Some(way) = self.way(slot, next) {
            if !budget.take() {
                return (Stage::Listing { next, keyed }, Step::More);
            }
            match way {
                Way::Plain => {}
                Way::Unlisted(message) if self.messages.get(message).placed => {
                    self.record_at_once(message, effects);
                    continue;
                }
                // It was queued when its session ended, and who else gets it is being found out.
                Way::Unlisted(_) => return (Stage::Listing { next, keyed }, Step::Wait),
                Way::Listed(..) => keyed = true,
            }
            next += 1;
        }
        (if keyed { Stage::Noting { next: 0 } } else { Stage::Going }, Step::Done)
    }

    /// Note that the entries from that one on go under keys.
    fn note_entries(
        &mut self,
        slot: u32,
        mut next: usize,
        budget: &mut Budget,
        effects: &mut impl Effects,
    ) -> (Stage, Step) {
        let key = self.sessions.get(slot).key;
        while let Some(way) = self.way(slot, next) {
            if !budget.take() {
                return (Stage::Noting { next }, Step::More);
            }
            if let Way::Listed(list, place) = way {
                // After a crash they go under the same keys as before.
                let lsn = match self.handed_on.get(&(list, place)) {
                    Some(known) => known.lsn,
                    None => self.note_entry(slot, list, place, effects),
                };
                self.dies_with_session(key, Need::Record(lsn));
                self.ends.note(key, lsn);
            }
            next += 1;
        }
        (Stage::Syncing, Step::Done)
    }

    fn note_entry(&mut self, slot: u32, list: Lsn, place: u32, effects: &mut impl Effects) -> Lsn {
        let lsn = self.append(Record::HandedOn { list, place }, effects);
        self.live.add(lsn, 0);
        self.origins.routing(lsn);
        self.handed_on.insert((list, place), HandedOn { lsn, slot });
        lsn
    }

    /// Of the entry in that position: those in flight, then the queue.
    fn way(&self, slot: u32, index: usize) -> Option<Way> {
        let session = self.sessions.get(slot);
        let delivery = session.delivery.as_deref()?;
        let in_flight = delivery.in_flight.get(index);
        let queued = match in_flight {
            Some(in_flight) => Queued::Here(in_flight.entry),
            None => delivery.queue.get(index - delivery.in_flight.len())?,
        };
        let way = match queued {
            Queued::Stored(stored) if stored.group().is_some() => Way::Listed(stored.list(), stored.place),
            Queued::Here(entry) if entry.owed != NO_SLOT => {
                let message = self.messages.get(entry.message);
                let owed = message.owed.as_slice()[entry.owed as usize];
                let begun = in_flight.is_some_and(|in_flight| is_begun(owed.qos, in_flight.phase));
                match owed.durable && owed.group.is_some() {
                    true if self.handed_on.contains_key(&(owed.list, owed.place)) || !begun => {
                        match owed.list.is_some() {
                            true => Way::Listed(owed.list, owed.place),
                            false => Way::Unlisted(entry.message),
                        }
                    }
                    _ => Way::Plain,
                }
            }
            _ => Way::Plain,
        };
        Some(way)
    }

    /// Hand on the entry that is about to be cleared, if it is one of those. False: come back later.
    pub(super) fn hand_on_front(
        &mut self,
        slot: u32,
        message: u32,
        owed: u32,
        effects: &mut impl Effects,
    ) -> bool {
        let owed = self.messages.get(message).owed.as_slice().get(owed as usize).copied();
        let Some(owed) = owed else { return true };
        let Some(group) = owed.group else { return true };
        let front =
            self.sessions.get(slot).delivery.as_deref().and_then(|delivery| delivery.in_flight.front());
        let begun = front.is_some_and(|front| is_begun(owed.qos, front.phase));
        let note = self.handed_on.get(&(owed.list, owed.place)).copied();
        if begun && note.is_none() {
            return true;
        }
        let origin = note.map(|note| OriginKey { shard: self.shard, lsn: note.lsn });
        if let Some(key) = origin {
            if !self.knows_all_interest() {
                // Nor whether it was handed on before a crash.
                return false;
            }
            if self.origins.has_shares(key) {
                self.handed_on.remove(&(owed.list, owed.place));
                return true;
            }
        }
        if self.messages.get(message).content.is_none() {
            // It is being read back.
            self.fetch(message, None, effects);
            return false;
        }
        if note.is_some() {
            self.handed_on.remove(&(owed.list, owed.place));
        }
        self.hand_on(slot, message, group, origin);
        true
    }

    /// Give a copy to another member of the shared subscription it came through.
    fn hand_on(&mut self, slot: u32, message: u32, tag: u16, origin: Option<OriginKey>) {
        let key = self.sessions.get(slot).key;
        let Some(body) = self.messages.get(message).body() else { return };
        let groups = self.ending.front().map_or(&[][..], |ending| &ending.groups);
        let matches = |text: &str| {
            topic::split_shared(text).is_some_and(|(_, filter)| topic::matches(filter, body.topic))
        };
        let same = |text: &str| group_tag(text) == tag && matches(text);
        // One that was written before its group was: any that it can have been.
        let group =
            groups.iter().find(|text| same(text)).or_else(|| groups.iter().find(|text| matches(text)));
        let Some(group) = group.cloned() else { return };
        let owner = self.settings.placement.owner(body.topic);
        let copy = self.messages.copy(message, Sender::Departed { key }, origin);
        if self.messages.get(copy.slot).lsn.is_some() {
            self.live.add(self.messages.get(copy.slot).lsn, 0);
        }
        if let Some(count) = self.departing.get_mut(&key) {
            *count += 1;
        }
        if owner == self.shard {
            self.placing.push(Task { message: copy.slot, scope: Scope::Group(group) });
        } else {
            self.outbox.push(owner, copy.slot, Some(group));
        }
    }

    /// A handed-on entry has arrived, or the clearing itself is through.
    pub(super) fn departed_settled(&mut self, key: SessionKey, effects: &mut impl Effects) {
        let Some(count) = self.departing.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            self.departing.remove(&key);
            self.write_end(key, effects);
        }
    }

    /// Replay: the entry goes under that key.
    pub(super) fn replay_handed_on(&mut self, lsn: Lsn, list: Lsn, place: u32) {
        let Some(slot) = self.replay_listed(list, place) else { return };
        self.forget_handed_on_at_replay(list, place);
        self.live.add(lsn, 0);
        self.origins.routing(lsn);
        self.handed_on.insert((list, place), HandedOn { lsn, slot });
    }

    /// Replay: the entry is gone.
    pub(super) fn forget_handed_on_at_replay(&mut self, list: Lsn, place: u32) {
        if let Some(HandedOn { lsn, .. }) = self.handed_on.remove(&(list, place)) {
            self.live.remove(lsn);
            self.origins.routed_at_replay(lsn);
        }
    }

    /// The end of replay: of a session that does not end after all (what said so was lost, `salvage`) nothing is handed on.
    pub(super) fn forget_what_stays(&mut self) {
        let stays = |(_, handed_on): &(&(Lsn, u32), &HandedOn)| !self.sessions.get(handed_on.slot).ended;
        let entries: Vec<_> = self.handed_on.iter().filter(stays).map(|(entry, _)| *entry).collect();
        entries.into_iter().for_each(|(list, place)| self.forget_handed_on_at_replay(list, place));
    }
}

/// A QoS 2 delivery that was begun ends with the session [MQTT-4.8.2-5].
fn is_begun(qos: QoS, phase: Phase) -> bool {
    qos == QoS::ExactlyOnce && !matches!(phase, Phase::Reserved | Phase::Sendable)
}
