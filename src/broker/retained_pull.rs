//! Retained messages for new subscriptions: a cursor per subscription, moved at the pace at which the session's queue
//! empties, over the owners that can have matching topics.
//!
//! A subscription has one cursor at most, and loses it when it ends: so there are never more than subscriptions, however
//! fast they come and go. Subscribing again begins anew `[MQTT-3.8.4-3]`: what the first cursor had yet to bring, the
//! second brings. A cursor that waits (for the session's queue, for another shard's answer, for room towards it) is not
//! looked at until what it waits for has come.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::effect::{Effect, Effects};
use super::messages::Sender;
use super::place::{Match, Scope, Task};
use super::route::{MeshMessage, Parcel};
use super::subscriptions::{FilterId, Grant};
use super::{Broker, Budget};
use crate::ids::{Lsn, SessionKey, ShardId};
use crate::placement::Owner;

/// Retained messages taken per step, and queue entries above which a session is left to drain first.
const STEP_MESSAGES: u32 = 16;
const QUEUE_ENTRIES_MAX: usize = 64;
/// Topics looked at per step.
const STEP_TOPICS: u32 = 256;

/// The cursor of one new subscription.
#[derive(Debug)]
pub(super) struct Pull {
    slot: u32,
    key: SessionKey,
    filter: Box<str>,
    grant: Grant,
    /// Owners not finished; the last one is being asked. Of each, what has at most that number: what was retained after
    /// the owner knew of the subscription is delivered as it comes.
    owners: Vec<(ShardId, u64)>,
    after: Box<str>,
    /// Under which token the owner is asked, and has not answered; 0: it is not.
    asked: u64,
}

/// Whose cursor: a session's slot, and one of its filters.
type Place = (u32, FilterId);

/// What one step asks for.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) filter: Box<str>,
    /// Topics after that one.
    pub(super) after: Box<str>,
    pub(super) count: u32,
    pub(super) number_max: u64,
}

/// All cursors.
#[derive(Debug, Default)]
pub(super) struct RetainedPulls {
    cursors: BTreeMap<Place, Pull>,
    /// Those that wait for nothing. They take turns: the next is the one behind `last`.
    going: BTreeSet<Place>,
    last: Option<Place>,
    /// Those that wait for room towards another shard.
    want_room: BTreeSet<Place>,
    asked: BTreeMap<u64, Place>,
    last_token: u64,
}

impl RetainedPulls {
    fn start(&mut self, place: Place, pull: Pull) {
        self.cursors.insert(place, pull);
        self.going.insert(place);
    }

    /// The subscription is no more.
    pub(super) fn forget(&mut self, session: u32, filter: FilterId) {
        let place = (session, filter);
        self.cursors.remove(&place);
        self.going.remove(&place);
        self.want_room.remove(&place);
    }

    /// There is room in the queue of a session whose cursors waited for that.
    pub(super) fn queue_has_room(&mut self, session: u32) {
        let all = (session, FilterId(0))..=(session, FilterId(u32::MAX));
        self.going.extend(self.cursors.range(all).map(|(place, _)| *place));
    }

    /// There is room towards another shard.
    pub(super) fn mesh_has_room(&mut self) {
        self.going.append(&mut self.want_room);
    }

    /// Whether there is one that waits for nothing.
    pub(super) fn can_go_on(&self) -> bool {
        !self.going.is_empty()
    }

    fn next_going(&mut self) -> Option<Place> {
        let behind = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.going.range((behind, Bound::Unbounded)).next().or_else(|| self.going.first());
        self.last = next.copied();
        self.last
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.cursors.len()
    }
}

impl Broker {
    /// A cursor at the start of everything that can match.
    pub(super) fn new_pull(&self, slot: u32, key: SessionKey, filter: &str, grant: Grant) -> Pull {
        let owners = match self.settings.placement.filter_owner(filter) {
            Owner::One(owner) => vec![self.asked_of(owner)],
            Owner::Every => self.settings.placement.all().map(|owner| self.asked_of(owner)).collect(),
        };
        Pull { slot, key, filter: filter.into(), grant, owners, after: "".into(), asked: 0 }
    }

    /// An owner and the newest message to be had there. Another shard says so when it knows of the subscription; if it
    /// is not asked, because it has known long, the client gets what there is.
    fn asked_of(&self, owner: ShardId) -> (ShardId, u64) {
        (owner, if owner == self.shard { self.retained.last_number() } else { u64::MAX })
    }

    /// Start those whose subscriptions are still there `[MQTT-3.10.4-2]`.
    pub(super) fn start_pulls(&mut self, pulls: Vec<Pull>) {
        for pull in pulls {
            let session = self.sessions.get_if(pull.slot, pull.key);
            if session.is_none_or(|session| session.ended) {
                continue;
            }
            let filter = self.subscriptions.find(&pull.filter);
            if let Some(filter) =
                filter.filter(|filter| self.subscriptions.grant(*filter, pull.slot).is_some())
            {
                self.retained_pulls.start((pull.slot, filter), pull);
            }
        }
    }

    /// Give each cursor that can go on a step.
    pub(super) fn pull_retained(&mut self, budget: &mut Budget, effects: &mut impl Effects) {
        for _ in 0..self.retained_pulls.going.len() {
            if !budget.take() {
                return;
            }
            let Some(place) = self.retained_pulls.next_going() else { return };
            self.pull_one(place, budget, effects);
        }
    }

    fn pull_one(&mut self, place: Place, budget: &mut Budget, effects: &mut impl Effects) {
        let Some(pull) = self.retained_pulls.cursors.get(&place).filter(|pull| pull.asked == 0) else {
            self.retained_pulls.going.remove(&place);
            return;
        };
        let Some((owner, number_max)) = pull.owners.last().copied() else {
            return self.retained_pulls.forget(place.0, place.1);
        };
        if let Some(delivery) = self.sessions.get_mut(place.0).delivery.as_deref_mut()
            && delivery.queue.len() >= QUEUE_ENTRIES_MAX
        {
            delivery.pulls_wait = true;
            self.retained_pulls.going.remove(&place);
        } else if owner == self.shard {
            // A step is dear where there is something to look through, and nothing where there is not.
            if self.retained.len() > 0 {
                let _ = budget.take_many(STEP_MESSAGES);
            }
            self.scan_for(place, number_max);
        } else if effects.mesh_room(owner) {
            // How much there is to look through is known over there only.
            let _ = budget.take_many(STEP_MESSAGES);
            self.ask_owner(owner, number_max, place, effects);
        } else {
            self.retained_pulls.going.remove(&place);
            self.retained_pulls.want_room.insert(place);
        }
    }

    /// Entries have left a session's queue: its cursors may have waited for that.
    pub(super) fn queue_shrank(&mut self, slot: u32) {
        if let Some(delivery) = self.sessions.get_mut(slot).delivery.as_deref_mut()
            && delivery.pulls_wait
            && delivery.queue.len() <= QUEUE_ENTRIES_MAX / 2
        {
            delivery.pulls_wait = false;
            self.retained_pulls.queue_has_room(slot);
        }
    }

    /// One step over our own retained messages.
    fn scan_for(&mut self, place: Place, number_max: u64) {
        let Some(mut pull) = self.retained_pulls.cursors.remove(&place) else { return };
        let (found, next) = self.scan(&pull.next_part(number_max));
        for slot in found {
            let copy = self.messages.copy(slot, Sender::Nobody, None);
            let lsn = self.messages.get(copy.slot).lsn;
            if lsn.is_some() {
                self.live.add(lsn, 0);
            }
            self.place_for(&pull, copy.slot);
        }
        pull.go_on(next);
        self.retained_pulls.cursors.insert(place, pull);
    }

    /// Slots of matching, unexpired retained messages, and where to go on.
    fn scan(&self, part: &Part) -> (Vec<u32>, Option<Box<str>>) {
        let mut found = Vec::new();
        let (messages, now) = (&self.messages, self.now.wall);
        let next = self.retained.scan(&part.filter, &part.after, STEP_TOPICS, |_, held| {
            if held.number <= part.number_max && messages.get(held.message).expires_at > now {
                found.push(held.message);
            }
            found.len() < part.count as usize
        });
        (found, next)
    }

    fn place_for(&mut self, pull: &Pull, message: u32) {
        let one = Match { session: pull.slot, grant: pull.grant, group: None };
        self.placing.push(Task { message, scope: Scope::Session(one, pull.key) });
    }

    fn ask_owner(&mut self, owner: ShardId, number_max: u64, place: Place, effects: &mut impl Effects) {
        let pulls = &mut self.retained_pulls;
        let Some(pull) = pulls.cursors.get_mut(&place) else { return };
        pulls.last_token += 1;
        pull.asked = pulls.last_token;
        pulls.asked.insert(pull.asked, place);
        pulls.going.remove(&place);
        let Part { filter, after, count, number_max } = pull.next_part(number_max);
        let message = MeshMessage::RetainedPull { token: pull.asked, filter, after, count, number_max };
        effects.perform(Effect::Mesh { to: owner, message });
    }

    /// Another shard's cursor asks.
    pub(super) fn answer_retained_pull(
        &mut self,
        from: ShardId,
        token: u64,
        part: &Part,
        effects: &mut impl Effects,
    ) {
        let (found, next) = self.scan(part);
        let parcels =
            found.iter().filter_map(|slot| self.messages.get(*slot).parcel()).map(without_origin).collect();
        effects.perform(Effect::Mesh { to: from, message: MeshMessage::Retained { token, parcels, next } });
    }

    /// The answer to ours. The subscription may have ended, or begun anew, since we asked.
    pub(super) fn retained_arrived(&mut self, token: u64, parcels: Vec<Parcel>, next: Option<Box<str>>) {
        let Some(place) = self.retained_pulls.asked.remove(&token) else { return };
        let is_asked = |pull: &&Pull| pull.asked == token;
        if self.retained_pulls.cursors.get(&place).filter(is_asked).is_none() {
            return;
        }
        let Some(mut pull) = self.retained_pulls.cursors.remove(&place) else { return };
        for parcel in parcels {
            let message = self.messages.insert(parcel, Sender::Nobody);
            assert!(self.messages.get(message.slot).lsn == Lsn::NONE, "a parcel has no record here");
            self.place_for(&pull, message.slot);
        }
        pull.asked = 0;
        pull.go_on(next);
        self.retained_pulls.start(place, pull);
    }
}

impl Pull {
    fn next_part(&self, number_max: u64) -> Part {
        Part { filter: self.filter.clone(), after: self.after.clone(), count: STEP_MESSAGES, number_max }
    }

    /// That owner knows of the subscription, and had retained so many messages then.
    pub(super) fn owner_knows(&mut self, owner: ShardId, retained: u64) {
        self.owners
            .iter_mut()
            .filter(|(other, _)| *other == owner)
            .for_each(|(_, number)| *number = retained);
    }

    /// The present owner has been asked up to here; without more, the next owner's turn comes.
    fn go_on(&mut self, next: Option<Box<str>>) {
        match next {
            Some(after) => self.after = after,
            None => {
                self.after = "".into();
                self.owners.pop();
            }
        }
    }
}

/// A retained message is a message of its own: the key of the publish that set it was used up by that.
fn without_origin(parcel: Parcel) -> Parcel {
    Parcel { origin: None, ..parcel }
}
