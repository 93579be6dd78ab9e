//! Retained messages for new subscriptions: a cursor per subscription, moved at the pace at which the session's queue
//! empties, over the owners that can have matching topics.

use std::collections::{BTreeMap, VecDeque};

use super::effect::{Effect, Effects};
use super::messages::Sender;
use super::place::{Match, Scope, Task};
use super::route::{MeshMessage, Parcel};
use super::subscriptions::Grant;
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
}

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
    turn: VecDeque<Pull>,
    asked: BTreeMap<u64, Pull>,
    last_token: u64,
}

impl RetainedPulls {
    pub(super) fn start(&mut self, pulls: Vec<Pull>) {
        self.turn.extend(pulls);
    }
}

impl Broker {
    /// A cursor at the start of everything that can match.
    pub(super) fn new_pull(&self, slot: u32, key: SessionKey, filter: &str, grant: Grant) -> Pull {
        let owners = match self.settings.placement.filter_owner(filter) {
            Owner::One(owner) => vec![self.asked_of(owner)],
            Owner::Every => self.settings.placement.all().map(|owner| self.asked_of(owner)).collect(),
        };
        Pull { slot, key, filter: filter.into(), grant, owners, after: "".into() }
    }

    /// An owner and the newest message to be had there. Another shard says so when it knows of the subscription; if it
    /// is not asked, because it has known long, the client gets what there is.
    fn asked_of(&self, owner: ShardId) -> (ShardId, u64) {
        (owner, if owner == self.shard { self.retained.last_number() } else { u64::MAX })
    }

    /// Give each cursor a step.
    pub(super) fn pull_retained(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        let mut moved = false;
        for _ in 0..self.retained_pulls.turn.len() {
            if !budget.take() {
                return true;
            }
            let Some(mut pull) = self.retained_pulls.turn.pop_front() else { break };
            if !self.is_wanted(&pull) {
                continue;
            }
            let queued =
                self.sessions.get(pull.slot).delivery.as_ref().map_or(0, |delivery| delivery.queue.len());
            let Some((owner, number_max)) = pull.owners.last().copied() else { continue };
            if queued >= QUEUE_ENTRIES_MAX {
                self.retained_pulls.turn.push_back(pull);
            } else if owner == self.shard {
                // A step is dear where there is something to look through, and nothing where there is not.
                if self.retained.len() > 0 {
                    let _ = budget.take_many(STEP_MESSAGES);
                }
                self.scan_for(&mut pull, number_max);
                self.retained_pulls.turn.push_back(pull);
                moved = true;
            } else if effects.mesh_room(owner) {
                // How much there is to look through is known over there only.
                let _ = budget.take_many(STEP_MESSAGES);
                self.ask_owner(owner, number_max, pull, effects);
            } else {
                self.retained_pulls.turn.push_back(pull);
            }
        }
        moved
    }

    /// Whether the session is still there, and still subscribed `[MQTT-3.10.4-2]`.
    fn is_wanted(&mut self, pull: &Pull) -> bool {
        let session = self.sessions.get_if(pull.slot, pull.key);
        session.is_some_and(|session| !session.ended)
            && self
                .subscriptions
                .find(&pull.filter)
                .is_some_and(|known| self.subscriptions.grant(known, pull.slot).is_some())
    }

    /// One step over our own retained messages.
    fn scan_for(&mut self, pull: &mut Pull, number_max: u64) {
        let (found, next) = self.scan(&pull.next_part(number_max));
        for slot in found {
            let copy = self.messages.copy(slot, Sender::Nobody, None);
            let lsn = self.messages.get(copy.slot).lsn;
            if lsn.is_some() {
                self.live.add(lsn, 0);
            }
            self.place_for(pull, copy.slot);
        }
        pull.go_on(next);
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

    fn ask_owner(&mut self, owner: ShardId, number_max: u64, pull: Pull, effects: &mut impl Effects) {
        self.retained_pulls.last_token += 1;
        let token = self.retained_pulls.last_token;
        let Part { filter, after, count, number_max } = pull.next_part(number_max);
        let message = MeshMessage::RetainedPull { token, filter, after, count, number_max };
        effects.perform(Effect::Mesh { to: owner, message });
        self.retained_pulls.asked.insert(token, pull);
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

    /// The answer to ours.
    pub(super) fn retained_arrived(&mut self, token: u64, parcels: Vec<Parcel>, next: Option<Box<str>>) {
        let Some(mut pull) = self.retained_pulls.asked.remove(&token) else { return };
        if !self.is_wanted(&pull) {
            return;
        }
        for parcel in parcels {
            let message = self.messages.insert(parcel, Sender::Nobody);
            assert!(self.messages.get(message.slot).lsn == Lsn::NONE, "a parcel has no record here");
            self.place_for(&pull, message.slot);
        }
        pull.go_on(next);
        self.retained_pulls.turn.push_back(pull);
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
