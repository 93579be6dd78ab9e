//! QoS 2 across shards, exactly once: which of our inbound messages are still being routed, and which keys of other
//! shards have been placed here.
//!
//! After a crash the publisher's home routes again what it has no `Routed` record for, under the same key. For ordinary
//! subscribers a shard that has a record with that key drops the repeat (also the home itself, whose sessions get their
//! copy from the owner of the topic). A shared subscription may have other members by then, on other shards than before:
//! so at the start, before it says that its interest is complete, each shard tells the home of each key by which shared
//! subscriptions it has the message, and the home tells the owner of the topic ahead of the message; for those nobody is
//! chosen any more.
//!
//! A key is forgotten when its home says that everything below its mark is routed, durably. Records that hold a key stay
//! live until then.
//!
//! What an ended session hands on has a key in the same way (`hand_on`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::Broker;
use super::await_durable::Waiter;
use super::effect::{Effect, Effects};
use super::route::MeshMessage;
use crate::ids::{Lsn, OriginKey, ShardId};
use crate::live::LiveSet;
use crate::record::{Recipients, Record};

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Origins {
    /// `Inbound` records of this shard without a durable `Routed`, and `HandedOn` ones of sessions without a durable end.
    routing: BTreeSet<Lsn>,
    /// Keys placed here, and the records that list who got them, perhaps nobody.
    placed: BTreeMap<(OriginKey, Lsn), Placed>,
    /// The shared subscriptions that already have a message which comes again, by `group_tag`. Of our own keys until it
    /// goes; of those of other shards until it comes.
    shares: BTreeMap<OriginKey, Vec<u16>>,
    /// The mark last told to the others.
    told: Lsn,
    alone: bool,
}

/// What else is known of a list. Both records are live until the key is forgotten.
#[derive(Clone, Copy, Debug)]
struct Placed {
    /// The record with the body, and with the key; often the list itself.
    body: Lsn,
    /// Since before the start, and by it ordinary subscribers have what is theirs.
    ordinary: bool,
}

/// All lists of a key.
fn lists_of(key: OriginKey) -> RangeInclusive<(OriginKey, Lsn)> {
    (key, Lsn::NONE)..=(key, Lsn(u64::MAX))
}

impl Origins {
    pub(super) fn new(shards: u16) -> Origins {
        Origins {
            routing: BTreeSet::new(),
            placed: BTreeMap::new(),
            shares: BTreeMap::new(),
            told: Lsn::NONE,
            alone: shards == 1,
        }
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
        let Some(key) = origin else { return };
        self.placed.insert((key, list), Placed { body, ordinary: false });
        live.add(list, 0);
        if body != list {
            live.add(body, 0);
        }
    }

    /// Replay: that record does not list members of shared subscriptions only.
    fn ordinary_have_it(&mut self, key: OriginKey, list: Lsn) {
        self.placed.get_mut(&(key, list)).expect("it was just recorded").ordinary = true;
    }

    /// Whether every inbound message of this shard is routed, durably.
    pub(super) fn all_routed(&self) -> bool {
        self.routing.is_empty()
    }

    /// Replay: everyone has an inbound message of this shard.
    pub(super) fn routed_at_replay(&mut self, inbound: Lsn) {
        self.routing.remove(&inbound);
    }

    /// Whether ordinary subscribers here had the message with that key before the start.
    pub(super) fn placed_before(&self, origin: Option<OriginKey>) -> bool {
        origin.is_some_and(|key| self.placed.range(lists_of(key)).any(|(_, placed)| placed.ordinary))
    }

    /// A message that is on its way was placed before the start, by that shared subscription. What is not on its way does not
    /// come again.
    pub(super) fn share_is_placed(&mut self, key: OriginKey, group: u16, here: ShardId) {
        if key.shard != here || self.routing.contains(&key.lsn) {
            self.shares.entry(key).or_default().push(group);
        }
    }

    /// Whether a shared subscription has the message with that key of ours.
    pub(super) fn has_shares(&self, key: OriginKey) -> bool {
        self.shares.contains_key(&key)
    }

    /// The message goes, or has come: the shared subscriptions that already have it.
    pub(super) fn take_shares(&mut self, origin: Option<OriginKey>) -> Vec<u16> {
        origin.and_then(|key| self.shares.remove(&key)).unwrap_or_default()
    }

    /// Keys placed here, and the records that say so.
    #[cfg(test)]
    pub(super) fn placed(&self) -> impl Iterator<Item = (OriginKey, [Lsn; 2])> {
        self.placed.iter().map(|(&(key, list), placed)| (key, [list, placed.body]))
    }

    /// Forget keys below the mark.
    pub(super) fn forget(&mut self, mark: OriginKey, live: &mut LiveSet) {
        let first = OriginKey { shard: mark.shard, lsn: Lsn::NONE };
        while let Some(((key, _), _)) = self.placed.range((first, Lsn::NONE)..(mark, Lsn::NONE)).next() {
            self.forget_one(*key, live);
        }
    }

    fn forget_one(&mut self, key: OriginKey, live: &mut LiveSet) {
        while let Some((&(_, list), &Placed { body, .. })) = self.placed.range(lists_of(key)).next() {
            self.placed.remove(&(key, list));
            live.remove(list);
            if body != list {
                live.remove(body);
            }
        }
    }

    /// After replay: of our own keys only those matter that are routed again.
    fn forget_routed(&mut self, shard: ShardId, live: &mut LiveSet) {
        let (first, last) = (OriginKey { shard, lsn: Lsn::NONE }, OriginKey { shard, lsn: Lsn(u64::MAX) });
        let own = self.placed.range((first, Lsn::NONE)..=(last, Lsn(u64::MAX))).map(|((key, _), _)| *key);
        let routed: Vec<_> = own.filter(|key| !self.routing.contains(&key.lsn)).collect();
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
        let key = OriginKey { shard: self.shard, lsn: inbound };
        self.origins.routing.remove(&inbound);
        self.origins.shares.remove(&key);
        self.origins.forget_one(key, &mut self.live);
        let mark = OriginKey { shard: self.shard, lsn: self.origins.mark(self.lsn) };
        self.origins.forget(mark, &mut self.live);
        if mark.lsn > self.origins.told {
            self.tell_mark(mark, effects);
        }
    }

    /// Replay: a record lists those here who got a message that may have a key.
    pub(super) fn recorded_at_replay(
        &mut self,
        origin: Option<OriginKey>,
        body: Lsn,
        list: Lsn,
        recipients: Recipients<'_>,
    ) {
        let Some(key) = origin else { return };
        self.origins.recorded(origin, body, list, &mut self.live);
        // With nobody on it, it is there to say that it was placed.
        if recipients.is_empty() || recipients.iter().any(|recipient| !recipient.shared) {
            self.origins.ordinary_have_it(key, list);
        }
        let shares = recipients.iter().filter(|recipient| recipient.shared && !recipient.more);
        self.replaying().shares.extend(shares.map(|recipient| (key, recipient.group)));
    }

    /// Tell the home of a key that the message was placed here before the start, by that shared subscription.
    pub(super) fn tell_share(&mut self, key: OriginKey, group: u16, effects: &mut impl Effects) {
        if self.origins.placed.range(lists_of(key)).next().is_none() {
            // It does not come again: its home has said so meanwhile, or is this shard.
        } else if key.shard == self.shard {
            self.origins.share_is_placed(key, group, self.shard);
        } else {
            effects.perform(Effect::Mesh { to: key.shard, message: MeshMessage::SharePlaced { key, group } });
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
