//! QoS 2 across shards, exactly once: which of our inbound messages are still being routed, and which keys of other
//! shards have been placed here.
//!
//! After a crash the publisher's home routes again what it has no `Routed` record for, under the same key; a shard
//! that has a record with that key drops the repeat (also the home itself, whose sessions get their copy from the
//! owner of the topic). A key is forgotten when its home says that everything below its
//! mark is routed, durably. Records that hold a key stay live until then.
//!
//! What an ended session hands on has a key in the same way (`hand_on`).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::Broker;
use super::await_durable::Waiter;
use super::effect::{Effect, Effects};
use super::route::MeshMessage;
use crate::ids::{Lsn, OriginKey, ShardId};
use crate::live::LiveSet;
use crate::record::Record;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Origins {
    /// `Inbound` records of this shard without a durable `Routed`, and `HandedOn` ones of sessions without a durable end.
    routing: BTreeSet<Lsn>,
    /// Keys placed here, and what says so.
    placed: BTreeMap<(ShardId, Lsn), Placed>,
    /// The mark last told to the others.
    told: Lsn,
    alone: bool,
}

/// What says that a message was placed here. Both records are live until its key is forgotten.
#[derive(Clone, Copy, Debug)]
struct Placed {
    /// The record that lists those who got it, perhaps nobody.
    list: Lsn,
    /// The record with its body, and with its key; often the same.
    body: Lsn,
}

impl Origins {
    pub(super) fn new(shards: u16) -> Origins {
        Origins { routing: BTreeSet::new(), placed: BTreeMap::new(), told: Lsn::NONE, alone: shards == 1 }
    }

    /// An inbound message of this shard begins its way.
    pub(super) fn routing(&mut self, inbound: Lsn) {
        self.routing.insert(inbound);
    }

    /// Whether that record is of an inbound message that is on its way.
    pub(super) fn is_routing(&self, inbound: Lsn) -> bool {
        self.routing.contains(&inbound)
    }

    /// A record here lists the recipients of a message with that key. (Or it is the `Inbound` record of this shard
    /// that has the body, and is the key.)
    pub(super) fn recorded(&mut self, origin: Option<OriginKey>, body: Lsn, list: Lsn, live: &mut LiveSet) {
        let Some(origin) = origin else { return };
        if let Entry::Vacant(vacant) = self.placed.entry((origin.shard, origin.lsn)) {
            vacant.insert(Placed { list, body });
            live.add(list, 0);
            if body != list {
                live.add(body, 0);
            }
        }
    }

    /// Whether every inbound message of this shard is routed, durably.
    pub(super) fn all_routed(&self) -> bool {
        self.routing.is_empty()
    }

    /// Replay: everyone has an inbound message of this shard.
    pub(super) fn routed_at_replay(&mut self, inbound: Lsn) {
        self.routing.remove(&inbound);
    }

    /// Whether a message with that key was placed here before.
    pub(super) fn placed_before(&self, origin: Option<OriginKey>) -> bool {
        origin.is_some_and(|origin| self.placed.contains_key(&(origin.shard, origin.lsn)))
    }

    /// The newest key of each shard that was placed here and may come again.
    pub(super) fn newest_placed(&self) -> Vec<OriginKey> {
        let mut newest: BTreeMap<ShardId, Lsn> = BTreeMap::new();
        newest.extend(self.placed.keys().copied());
        newest.into_iter().map(|(shard, lsn)| OriginKey { shard, lsn }).collect()
    }

    /// Whether none of those, nor any older one of the same shard, may come again.
    pub(super) fn are_released(&self, keys: &[OriginKey]) -> bool {
        let older = |key: &OriginKey| self.placed.range((key.shard, Lsn::NONE)..=(key.shard, key.lsn)).next();
        keys.iter().all(|key| older(key).is_none())
    }

    /// Keys placed here, and the records that say so.
    #[cfg(test)]
    pub(super) fn placed(&self) -> impl Iterator<Item = (OriginKey, [Lsn; 2])> {
        let one = |(&(shard, lsn), placed): (&(ShardId, Lsn), &Placed)| {
            (OriginKey { shard, lsn }, [placed.list, placed.body])
        };
        self.placed.iter().map(one)
    }

    /// Forget keys below the mark.
    pub(super) fn forget(&mut self, mark: OriginKey, live: &mut LiveSet) {
        while let Some((key, _)) = self.placed.range((mark.shard, Lsn::NONE)..(mark.shard, mark.lsn)).next() {
            self.forget_one(*key, live);
        }
    }

    fn forget_one(&mut self, key: (ShardId, Lsn), live: &mut LiveSet) {
        let Some(Placed { list, body }) = self.placed.remove(&key) else { return };
        live.remove(list);
        if body != list {
            live.remove(body);
        }
    }

    /// After replay: of our own keys only those matter that are routed again.
    fn forget_routed(&mut self, shard: ShardId, live: &mut LiveSet) {
        let own = self.placed.range((shard, Lsn::NONE)..=(shard, Lsn(u64::MAX)));
        let routed: Vec<_> =
            own.map(|(key, _)| *key).filter(|(_, inbound)| !self.routing.contains(inbound)).collect();
        routed.into_iter().for_each(|key| self.forget_one(key, live));
    }

    /// Everything below this is routed, durably. `last`: the newest record.
    fn mark(&self, last: Lsn) -> Lsn {
        self.routing.first().copied().unwrap_or(last.next())
    }
}

impl Broker {
    /// Everyone owed has an inbound message of this shard.
    pub(super) fn inbound_settled(&mut self, inbound: Lsn, effects: &mut impl Effects) {
        let lsn = self.append(Record::Routed { inbound }, effects);
        self.live.set_unrouted(inbound, false);
        self.live.remove(inbound);
        self.awaiting.push(lsn, Waiter::Routed { inbound });
    }

    /// And that is on disk.
    pub(super) fn routed_durable(&mut self, inbound: Lsn, effects: &mut impl Effects) {
        self.origins.routing.remove(&inbound);
        self.origins.forget_one((self.shard, inbound), &mut self.live);
        let mark = OriginKey { shard: self.shard, lsn: self.origins.mark(self.lsn) };
        self.origins.forget(mark, &mut self.live);
        if mark.lsn > self.origins.told {
            self.tell_mark(mark, effects);
        }
    }

    /// Tell the other shards which keys they may forget.
    pub(super) fn tell_mark(&mut self, mark: OriginKey, effects: &mut impl Effects) {
        self.origins.told = mark.lsn;
        if self.origins.alone {
            return;
        }
        for to in self.settings.placement.all().filter(|to| *to != self.shard) {
            effects.perform(Effect::Mesh { to, message: MeshMessage::OriginReleased { mark } });
        }
    }

    /// After replay: nothing below the oldest unrouted message will come again.
    pub(super) fn tell_first_mark(&mut self, effects: &mut impl Effects) {
        let mark = OriginKey { shard: self.shard, lsn: self.origins.mark(self.lsn) };
        self.origins.forget_routed(self.shard, &mut self.live);
        self.tell_mark(mark, effects);
    }
}
