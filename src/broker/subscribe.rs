//! SUBSCRIBE and UNSUBSCRIBE. SUBACK leaves when the subscription is on disk (for a session that is) and every shard
//! that must know knows; retained messages follow it.

use std::collections::BTreeMap;

use super::Broker;
use super::await_durable::Waiter;
use super::effect::{Effect, Effects};
use super::retained_pull::Pull;
use super::session::Subscription;
use super::subscriptions::{FilterId, Grant};
use crate::ids::{ConnectionId, Lsn, ShardId};
use crate::limits;
use crate::record::Record;
use crate::wire::{
    Packet, PacketId, QoS, ReasonCode, RetainHandling, Suback, Subscribe, Unsuback, Unsubscribe, topic,
};

/// An answer that is not complete.
#[derive(Debug)]
struct Pending {
    connection: ConnectionId,
    packet_id: PacketId,
    unsubscribe: bool,
    reasons: Vec<ReasonCode>,
    pulls: Vec<Pull>,
    waiting: u32,
}

/// Answers that wait, by token.
#[derive(Debug, Default)]
pub(super) struct PendingSubacks {
    pending: BTreeMap<u64, Pending>,
    last_token: u64,
}

impl Broker {
    /// SUBSCRIBE; with that refusal, if there is one, for each of its filters.
    pub(super) fn subscribe(
        &mut self,
        id: ConnectionId,
        subscribe: &Subscribe<'_>,
        refusal: Option<ReasonCode>,
        effects: &mut impl Effects,
    ) {
        let Some(slot) = self.connections.get(id).map(|connection| connection.session) else { return };
        self.subacks.last_token += 1;
        let token = self.subacks.last_token;
        let before = self.lsn;
        let mut pending = Pending {
            connection: id,
            packet_id: subscribe.packet_id,
            unsubscribe: false,
            reasons: Vec::new(),
            pulls: Vec::new(),
            waiting: 1,
        };
        let mut broad = None;
        for (index, (filter, options)) in subscribe.filters().enumerate() {
            let grant = Grant { options, subscription_id: subscribe.subscription_id.unwrap_or(0) };
            let too_many = (index >= limits::FILTERS_PER_PACKET_MAX).then_some(ReasonCode::QuotaExceeded);
            let reason =
                match refusal.or(too_many).or_else(|| self.subscribe_refusal(slot, filter, &mut broad)) {
                    Some(reason) => reason,
                    None => self.subscribe_one(slot, filter, grant, token, &mut pending, effects),
                };
            pending.reasons.push(reason);
        }
        self.await_suback(token, pending, before, effects);
    }

    /// Why a filter is refused; the connection lives.
    fn subscribe_refusal(&self, slot: u32, filter: &str, broad: &mut Option<usize>) -> Option<ReasonCode> {
        if topic::check_filter(filter).is_err() {
            return Some(ReasonCode::TopicFilterInvalid);
        }
        if !self.may_subscribe(slot, filter) {
            return Some(ReasonCode::NotAuthorized);
        }
        let full = self.sessions.get(slot).subscriptions.len() >= limits::SUBSCRIPTIONS_PER_SESSION_MAX;
        let known = self.subscriptions.find(filter);
        let mine = known.is_some_and(|known| self.subscriptions.grant(known, slot).is_some());
        if full && !mine {
            return Some(ReasonCode::QuotaExceeded);
        }
        if !mine && self.is_broad(filter) {
            let broad = broad.get_or_insert_with(|| self.broad_filters_of(slot));
            if *broad >= limits::BROAD_FILTERS_PER_SESSION_MAX {
                return Some(ReasonCode::QuotaExceeded);
            }
            *broad += 1;
        }
        // Known from another shard's subscribers only, it is new here all the same.
        let first_here = known.is_none_or(|known| self.subscriptions.entry(known).local().is_empty());
        if first_here && self.is_broad(filter) && self.broad_filters >= limits::BROAD_FILTERS_PER_SHARD_MAX {
            return Some(ReasonCode::QuotaExceeded);
        }
        (self.disk_reserve_reached && self.sessions.get(slot).durable()).then_some(ReasonCode::QuotaExceeded)
    }

    /// How many filters of a session every shard has to know.
    fn broad_filters_of(&self, slot: u32) -> usize {
        let subscriptions = &self.sessions.get(slot).subscriptions;
        let text = |subscription: &Subscription| self.subscriptions.text(subscription.filter);
        subscriptions.as_slice().iter().filter(|subscription| self.is_broad(text(subscription))).count()
    }

    fn subscribe_one(
        &mut self,
        slot: u32,
        filter: &str,
        grant: Grant,
        token: u64,
        pending: &mut Pending,
        effects: &mut impl Effects,
    ) -> ReasonCode {
        let is_new = self.add_subscription(slot, filter, grant, Lsn::NONE);
        let session = self.sessions.get(slot);
        if session.durable() {
            let (key, options) = (session.key, grant.options);
            let record = Record::Subscribed { key, filter, options, subscription_id: grant.subscription_id };
            let lsn = self.append(record, effects);
            self.set_subscription_record(slot, filter, lsn);
        }
        if is_new {
            pending.waiting += self.announce_members(filter, token, effects);
        }
        let shared = topic::split_shared(filter).is_some();
        let wants_retained = match grant.options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        if wants_retained && !shared {
            let key = self.sessions.get(slot).key;
            pending.pulls.push(self.new_pull(slot, key, filter, grant));
        }
        match grant.options.qos {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
            QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
        }
    }

    /// Enter a subscription in the tables. True if the session did not have it.
    pub(super) fn add_subscription(&mut self, slot: u32, filter: &str, grant: Grant, record: Lsn) -> bool {
        let first = self
            .subscriptions
            .find(filter)
            .is_none_or(|known| self.subscriptions.entry(known).local().is_empty());
        let subscribed = self.subscriptions.subscribe(filter, slot, grant);
        if subscribed.replaced.is_some() {
            return false;
        }
        if first && self.is_broad(filter) {
            self.broad_filters += 1;
        }
        if topic::split_shared(filter).is_some() {
            self.join_group(slot, filter);
        }
        let subscription = Subscription { filter: subscribed.filter, record };
        self.sessions.get_mut(slot).subscriptions.push(subscription);
        true
    }

    /// The record of a subscription was written (again).
    pub(super) fn set_subscription_record(&mut self, slot: u32, filter: &str, lsn: Lsn) {
        let Some(known) = self.subscriptions.find(filter) else { return };
        let subscriptions = self.sessions.get_mut(slot).subscriptions.as_mut_slice();
        let Some(mine) = subscriptions.iter_mut().find(|mine| mine.filter == known) else { return };
        let dead = std::mem::replace(&mut mine.record, lsn);
        if dead.is_some() {
            self.live.remove(dead);
        }
        self.live.add(lsn, 0);
    }

    fn announce_members(&mut self, filter: &str, token: u64, effects: &mut impl Effects) -> u32 {
        let members =
            self.subscriptions.find(filter).map_or(0, |known| self.subscriptions.entry(known).local().len());
        let members = u32::try_from(members).expect("bounded by SESSIONS_PER_SHARD_MAX");
        // Ordinary filters are announced by their first and last subscriber only, but a second one must not be
        // answered before the first is known: asking again is idempotent and orders itself behind it.
        self.tell_interest(filter, members, token, effects)
    }

    /// UNSUBSCRIBE.
    pub(super) fn unsubscribe(
        &mut self,
        id: ConnectionId,
        packet: &Unsubscribe<'_>,
        effects: &mut impl Effects,
    ) {
        let Some(slot) = self.connections.get(id).map(|connection| connection.session) else { return };
        if packet.filters().nth(limits::FILTERS_PER_PACKET_MAX).is_some() {
            self.refuse_packet(id, ReasonCode::QuotaExceeded, effects);
            return;
        }
        self.subacks.last_token += 1;
        let token = self.subacks.last_token;
        let before = self.lsn;
        let mut reasons = Vec::new();
        for filter in packet.filters() {
            let found = self
                .subscriptions
                .find(filter)
                .filter(|known| self.subscriptions.grant(*known, slot).is_some());
            reasons.push(match found {
                Some(known) => {
                    self.unsubscribe_one(slot, known, filter, effects);
                    ReasonCode::Success
                }
                None => ReasonCode::NoSubscriptionExisted,
            });
        }
        let pending = Pending {
            connection: id,
            packet_id: packet.packet_id,
            unsubscribe: true,
            reasons,
            pulls: Vec::new(),
            waiting: 1,
        };
        self.await_suback(token, pending, before, effects);
    }

    pub(super) fn unsubscribe_one(
        &mut self,
        slot: u32,
        filter: FilterId,
        text: &str,
        effects: &mut impl Effects,
    ) {
        let session = self.sessions.get_mut(slot);
        let index = session.subscriptions.as_slice().iter().position(|mine| mine.filter == filter);
        let Some(index) = index else { return };
        let subscription = session.subscriptions.swap_remove(index);
        let (key, durable) = (session.key, session.durable());
        self.forget_subscription(slot, subscription, text, effects);
        let record = if durable {
            self.append(Record::Unsubscribed { key, filter: text }, effects)
        } else {
            Lsn::NONE
        };
        if topic::split_shared(text).is_some() {
            self.leave_group(slot, text, record);
        }
    }

    /// Take a subscription out of the tables and tell who must know.
    pub(super) fn forget_subscription(
        &mut self,
        slot: u32,
        subscription: Subscription,
        text: &str,
        effects: &mut impl Effects,
    ) {
        if subscription.record.is_some() {
            self.live.remove(subscription.record);
        }
        self.retained_pulls.forget(slot, subscription.filter);
        let chosen = self.take_choices(slot, subscription.filter);
        let Some(members) = self.subscriptions.unsubscribe(subscription.filter, slot) else { return };
        self.choose_anew(chosen, text);
        if members == 0 && self.is_broad(text) {
            self.broad_filters -= 1;
        }
        if self.replay.is_none() && (members == 0 || topic::split_shared(text).is_some()) {
            self.tell_interest(text, members, 0, effects);
        }
    }

    /// Answer once everything since `before` is durable and every asked shard has answered.
    fn await_suback(&mut self, token: u64, pending: Pending, before: Lsn, effects: &mut impl Effects) {
        self.subacks.pending.insert(token, pending);
        if self.lsn > before && self.lsn > self.durable {
            self.awaiting.push(self.lsn, Waiter::Suback { token });
        } else {
            self.suback_step(token, effects);
        }
    }

    /// Another shard knows a filter. What it retains from now on it also sends: the cursor must not bring it again.
    pub(super) fn interest_known(
        &mut self,
        from: ShardId,
        token: u64,
        retained: u64,
        effects: &mut impl Effects,
    ) {
        if let Some(pending) = self.subacks.pending.get_mut(&token) {
            pending.pulls.iter_mut().for_each(|pull| pull.owner_knows(from, retained));
        }
        self.suback_step(token, effects);
    }

    /// One thing less to wait for.
    pub(super) fn suback_step(&mut self, token: u64, effects: &mut impl Effects) {
        let Some(pending) = self.subacks.pending.get_mut(&token) else { return };
        pending.waiting -= 1;
        if pending.waiting > 0 {
            return;
        }
        let Some(pending) = self.subacks.pending.remove(&token) else { return };
        let Some(version) = self.connections.get(pending.connection).map(|connection| connection.version)
        else {
            return;
        };
        let (packet_id, reasons) = (pending.packet_id, (&*pending.reasons).into());
        let packet = if pending.unsubscribe {
            Packet::Unsuback(Unsuback { packet_id, reason_string: None, reasons })
        } else {
            Packet::Suback(Suback { packet_id, reason_string: None, reasons })
        };
        effects.perform(Effect::Send { connection: pending.connection, version, packet });
        self.start_pulls(pending.pulls);
    }
}
