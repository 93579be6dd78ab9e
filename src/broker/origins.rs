//! QoS 2 across shards, exactly once: which of our inbound messages are still being routed, and which keys of other
//! shards have been placed here.
//!
//! After a crash the publisher's home routes again what it has no `Routed` record for, under the same key; a shard
//! that has a record with that key drops the repeat. A key is forgotten when its home says that everything below its
//! mark is routed, durably. Records that hold a key stay live until then.

use std::collections::{BTreeMap, BTreeSet};

use super::Broker;
use super::await_durable::Waiter;
use super::effect::{Effect, Effects};
use super::live::Live;
use super::route::MeshMessage;
use crate::ids::{Lsn, OriginKey, ShardId};
use crate::record::Record;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Origins {
    /// `Inbound` records of this shard without a durable `Routed`.
    routing: BTreeSet<Lsn>,
    /// Keys placed here, and the record that says so (`NONE` for keys of this shard, whose record is the key).
    placed: BTreeMap<(ShardId, Lsn), Lsn>,
    /// The mark last told to the others.
    told: Lsn,
    alone: bool,
}

impl Origins {
    pub(super) fn new(shards: u16) -> Origins {
        Origins { routing: BTreeSet::new(), placed: BTreeMap::new(), told: Lsn::NONE, alone: shards == 1 }
    }

    /// An inbound message of this shard begins its way.
    pub(super) fn routing(&mut self, inbound: Lsn) {
        self.routing.insert(inbound);
    }

    /// A record here lists recipients of a message with that key.
    pub(super) fn recorded(&mut self, origin: Option<OriginKey>, lsn: Lsn, live: &mut Live) {
        let Some(origin) = origin else { return };
        // A later record of the same message adds nothing: the first one, which is counted, says so already.
        self.placed.entry((origin.shard, origin.lsn)).or_insert_with(|| {
            live.add(lsn);
            lsn
        });
    }

    /// Replay: recipients of an inbound message of this shard are on record.
    pub(super) fn placed_own(&mut self, shard: ShardId, inbound: Lsn) {
        self.placed.insert((shard, inbound), Lsn::NONE);
    }

    /// Replay: everyone has an inbound message of this shard.
    pub(super) fn routed_at_replay(&mut self, inbound: Lsn) {
        self.routing.remove(&inbound);
    }

    /// Whether a message with that key was placed here before.
    pub(super) fn placed_before(&self, origin: Option<OriginKey>) -> bool {
        origin.is_some_and(|origin| self.placed.contains_key(&(origin.shard, origin.lsn)))
    }

    /// Forget keys below the mark.
    pub(super) fn forget(&mut self, mark: OriginKey, live: &mut Live) {
        while let Some((key, record)) =
            self.placed.range((mark.shard, Lsn::NONE)..(mark.shard, mark.lsn)).next()
        {
            let (key, record) = (*key, *record);
            self.placed.remove(&key);
            if record.is_some() {
                live.remove(record);
            }
        }
    }

    /// Everything below this is routed, durably.
    fn mark(&self, last: Lsn) -> Lsn {
        self.routing.first().copied().unwrap_or(last.next())
    }
}

impl Broker {
    /// Everyone owed has an inbound message of this shard.
    pub(super) fn inbound_settled(&mut self, inbound: Lsn, effects: &mut impl Effects) {
        let lsn = self.append(Record::Routed { inbound }, effects);
        self.awaiting.push(lsn, Waiter::Routed { inbound });
    }

    /// And that is on disk.
    pub(super) fn routed_durable(&mut self, inbound: Lsn, effects: &mut impl Effects) {
        self.origins.routing.remove(&inbound);
        let mark = OriginKey { shard: self.shard, lsn: self.origins.mark(inbound) };
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
        self.origins.forget(mark, &mut self.live);
        self.tell_mark(mark, effects);
    }
}
