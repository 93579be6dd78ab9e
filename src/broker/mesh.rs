//! What other shards ask and answer, and the publishes that wait for room towards an owner.

use std::collections::VecDeque;

use super::effect::{Effect, Effects};
use super::messages::{MessageId, Sender};
use super::place::{Scope, Task};
use super::retained_pull::Part;
use super::route::MeshMessage;
use super::{Broker, Budget};
use crate::ids::ShardId;
use crate::wire::QoS;

/// A message on its way to the owner of its topic; with a shared subscription if only that is to have it.
#[derive(Debug)]
struct Outgoing {
    message: u32,
    group: Option<Box<str>>,
}

/// What waits for room, by owner.
#[derive(Debug)]
pub(super) struct Outbox {
    queues: Vec<VecDeque<Outgoing>>,
    waiting: usize,
    full: Vec<bool>,
}

impl Outbox {
    pub(super) fn new(shards: u16) -> Outbox {
        let count = usize::from(shards);
        Outbox { queues: (0..count).map(|_| VecDeque::new()).collect(), waiting: 0, full: vec![false; count] }
    }

    pub(super) fn push(&mut self, owner: ShardId, message: u32, group: Option<Box<str>>) {
        self.queues[owner.index()].push_back(Outgoing { message, group });
        self.waiting += 1;
    }

    /// Messages that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    pub(super) fn has_room(&mut self, owner: ShardId) {
        self.full[owner.index()] = false;
    }
}

impl Broker {
    /// Send on what has room.
    pub(super) fn flush_outbox(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        if self.outbox.waiting == 0 {
            return false;
        }
        for to in self.settings.placement.all() {
            while !self.outbox.full[to.index()] && !self.outbox.queues[to.index()].is_empty() {
                if !budget.take() {
                    return true;
                }
                if !effects.mesh_room(to) {
                    self.outbox.full[to.index()] = true;
                    break;
                }
                if let Some(outgoing) = self.outbox.queues[to.index()].pop_front() {
                    self.outbox.waiting -= 1;
                    self.send_to_owner(to, outgoing, effects);
                }
            }
        }
        false
    }

    fn send_to_owner(&mut self, to: ShardId, outgoing: Outgoing, effects: &mut impl Effects) {
        let slot = outgoing.message;
        let id = self.messages.id(slot);
        let message = self.messages.get_mut(slot);
        for group in self.origins.take_shares(message.origin) {
            let key = message.origin.expect("only what has a key comes again");
            effects.perform(Effect::Mesh { to, message: MeshMessage::SharePlaced { key, group } });
        }
        let tracked = message.qos != QoS::AtMostOnce;
        let parcel = message.parcel().expect("a message is routed with its body in memory");
        if tracked {
            message.placed = true;
            message.travelling = true;
            message.remote.unplaced += 1;
            message.remote.unsettled += 1;
        }
        let written = message.lsn.is_some();
        let token = if tracked { id.token() } else { 0 };
        let message = match outgoing.group {
            None => MeshMessage::Publish { token, parcel },
            Some(shared) => MeshMessage::Redistribute { token, parcel, shared },
        };
        effects.perform(Effect::Mesh { to, message });
        if !tracked {
            self.release_message(slot);
        } else if written {
            self.has_travelled(slot);
        } else {
            self.messages.take_bytes(slot);
        }
    }

    /// A message from another shard.
    pub(super) fn mesh_message(&mut self, from: ShardId, message: MeshMessage, effects: &mut impl Effects) {
        match message {
            MeshMessage::Publish { token, parcel } => {
                let id = self.messages.insert(parcel, Sender::Shard { shard: from, token });
                self.placing.push(Task { message: id.slot, scope: Scope::Owner });
            }
            MeshMessage::Deliver { token, parcel, audience } => {
                let id = self.messages.insert(parcel, Sender::Owner { shard: from, token });
                self.placing.push(Task { message: id.slot, scope: Scope::Here(audience) });
            }
            MeshMessage::Redistribute { token, parcel, shared } => {
                let id = self.messages.insert(parcel, Sender::Shard { shard: from, token });
                self.placing.push(Task { message: id.slot, scope: Scope::Group(shared) });
            }
            MeshMessage::Placed { token, placed, refused } => {
                self.remote_placed(token, placed, refused, effects);
            }
            MeshMessage::Delivered { token, placed, refused, missed } => {
                self.take_missed(token, missed);
                self.remote_placed(token, placed, refused, effects);
            }
            MeshMessage::Settled { token } => self.remote_settled(token, effects),
            MeshMessage::Interest { token, filter, members } => {
                self.subscriptions.set_interest(&filter, from, members);
                if token != 0 {
                    let retained = self.retained.last_number();
                    let message = MeshMessage::InterestKnown { token, retained };
                    effects.perform(Effect::Mesh { to: from, message });
                }
            }
            MeshMessage::InterestKnown { token, retained } => {
                self.interest_known(from, token, retained, effects);
            }
            MeshMessage::RetainedPull { token, filter, after, count, number_max } => {
                self.answer_retained_pull(from, token, &Part { filter, after, count, number_max }, effects);
            }
            MeshMessage::Retained { token, parcels, next } => self.retained_arrived(token, parcels, next),
            MeshMessage::SharePlaced { key, group } => self.origins.share_is_placed(key, group, self.shard),
            MeshMessage::OriginReleased { mark } => self.origins.forget(mark, &mut self.live),
            MeshMessage::Counters { deltas } => self.statistics.add_remote(&deltas),
            MeshMessage::InterestComplete => self.announcement.heard(),
        }
    }

    pub(super) fn remote_placed(
        &mut self,
        token: u64,
        placed: u32,
        refused: u32,
        effects: &mut impl Effects,
    ) {
        let id = MessageId::from_token(token);
        let Some(message) = self.messages.find(id).filter(|_| token != 0) else { return };
        message.remote.unplaced -= 1;
        message.taken += placed;
        message.refused += refused;
        self.answer_placed(id.slot, effects);
        self.try_settle(id.slot, effects);
    }

    pub(super) fn remote_settled(&mut self, token: u64, effects: &mut impl Effects) {
        let id = MessageId::from_token(token);
        let Some(message) = self.messages.find(id) else { return };
        message.remote.unsettled -= 1;
        self.try_settle(id.slot, effects);
    }
}
