//! Starting is recovering: records of the journal, applied in order, rebuild every table; then the end of replay
//! decides what a live broker would have decided at the crash.
//!
//! Replay never matches a message against subscriptions (records list their recipients) and never sends. Bodies stay
//! on disk, except of messages that may be retained. What does not fit (a record about something unknown) is not
//! an error: acknowledgements outlive what they acknowledge, and a session's end outlives its records.
//!
//! After a checkpoint the records up to it are those that were live then, with the facts of then. "Then" is a while
//! after the last of them was written, so records that follow may speak of what is gone already. Each of them names so
//! exactly what it is about that it does nothing in that case. What is live is counted anew, so that the next
//! checkpoint says the same as if there had been none before.
//!
//! This file has the sessions; `replay_messages` what they get and send.

use std::collections::{BTreeMap, BTreeSet};

use super::effect::Effects;
use super::needs::Need;
use super::session;
use super::spent;
use super::stored::{Queued, StoredBody};
use super::subscriptions::{Grant, group_tag};
use super::{Broker, Budget};
use crate::ids::{Lsn, OriginKey, SessionKey};
use crate::live::Facts;
use crate::record::{Record, WillRecord};
use crate::time::UnixMs;
use crate::wire::{QoS, Version, topic};

/// What only replay needs to know.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Every body, by its record.
    pub(super) bodies: Vec<StoredBody>,
    /// Keys of QoS 2 messages, by the record with the body.
    pub(super) origins: BTreeMap<Lsn, OriginKey>,
    /// Messages that may be retained or are to be routed again: slot by record. Each holds one reference until replay
    /// ends.
    pub(super) by_record: BTreeMap<Lsn, u32>,
    /// Records that list someone who is gone: each is needed once until replay ends.
    pub(super) held: BTreeSet<Lsn>,
    /// Messages with a key that a shared subscription had here, and its `group_tag`.
    pub(super) shares: Vec<(OriginKey, u16)>,
    /// Every recipient, by the record that lists it and its place there, and the slot of its session.
    pub(super) listed: Vec<(Lsn, u32, u32)>,
    /// `Inbound` records without `Routed`.
    pub(super) unrouted: BTreeMap<Lsn, SessionKey>,
    /// Sessions that a clean start has replaced, and whose own end was on the way to the disk.
    replaced: BTreeSet<SessionKey>,
    /// Sessions that have ended their connection: when, and when the will is due.
    disconnected: BTreeMap<SessionKey, (UnixMs, UnixMs)>,
}

impl Broker {
    /// One record.
    pub(super) fn replay_record(&mut self, lsn: Lsn, record: &Record<'_>, facts: &Facts<'_>) {
        assert!(lsn > self.lsn, "records are replayed in order (I13)");
        self.lsn = lsn;
        self.durable = lsn;
        match *record {
            Record::Session { key, account, client_id, version, expiry_s, will } => {
                let identity = session::identity(account, client_id);
                self.replay_session(lsn, key, identity, version, expiry_s, will.as_ref());
            }
            Record::Disconnected { key, at, expiry_s, will_due } => {
                self.replay_disconnected(lsn, key, (at, will_due), expiry_s);
            }
            Record::WillGone { key } => self.replay_will_gone(lsn, key),
            Record::SessionEnded { key, will_due } => self.replay_end(lsn, key, will_due),
            Record::Subscribed { key, filter, options, subscription_id } => {
                let slot = self.replay_slot(key);
                self.add_subscription(slot, filter, Grant { options, subscription_id }, Lsn::NONE);
                self.set_subscription_record(slot, filter, lsn);
            }
            Record::Unsubscribed { key, filter } => self.replay_unsubscribed(lsn, key, filter),
            Record::Message { body, origin, recipients } => {
                self.replay_message(lsn, &body, origin, recipients, facts)
            }
            Record::Deliver { message, recipients } => self.replay_deliver(lsn, message, recipients, facts),
            Record::DeliveryDone { list, place } => self.replay_done(list, place),
            Record::DeliveryBegun { list, place, packet_id } => {
                self.replay_begun(lsn, list, place, packet_id);
            }
            Record::HandedOn { list, place } => self.replay_handed_on(lsn, list, place),
            Record::Acknowledged { key, message, packet_id } => {
                self.replay_acknowledged(key, message, packet_id);
            }
            Record::Inbound { key, packet_id, body } => {
                self.replay_inbound(lsn, key, packet_id, &body, facts);
            }
            Record::Routed { inbound } => self.replay_routed(inbound),
            Record::Released { key, packet_id } => self.replay_released(key, packet_id),
            Record::Sent { key, message, packet_id } => self.replay_sent(lsn, key, message, packet_id),
            Record::Received { key, packet_id } => self.replay_received(lsn, key, packet_id),
            Record::Retained { message } => self.replay_retained(lsn, message),
            Record::RetainedCleared { topic } => {
                if let Some(held) = self.retained.clear(topic) {
                    self.replay_unpin(held, None);
                }
            }
            Record::Gap { key, skipped } => {
                let slot = self.replay_slot(key);
                self.sessions.get_mut(slot).skipped = u32::try_from(skipped).unwrap_or(u32::MAX);
                self.gap_is_noted(key, lsn, skipped);
            }
            Record::OriginReleased { mark } => self.origins.forget(mark, &mut self.live),
            Record::Spent { account, client_id, limit, full_at } => {
                self.spent_is_noted(&spent::key([account, client_id], limit), lsn, full_at);
            }
        }
    }

    /// The session that a record speaks of. Its own record may come later: it was written again when its client came
    /// back, and the earlier one is dead. If none comes, the session had ended.
    pub(super) fn replay_slot(&mut self, key: SessionKey) -> u32 {
        self.session_key_is_used(key);
        self.sessions.find_key(key).unwrap_or_else(|| self.sessions.insert_unnamed(key))
    }

    pub(super) fn replaying(&mut self) -> &mut Replay {
        self.replay.as_deref_mut().expect("records come before the end of replay")
    }

    fn replay_session(
        &mut self,
        lsn: Lsn,
        key: SessionKey,
        identity: Box<str>,
        version: Version,
        expiry_s: u32,
        will: Option<&WillRecord<'_>>,
    ) {
        self.replaying().disconnected.remove(&key);
        let old = self.sessions.find(&identity);
        if let Some(other) = old.filter(|slot| self.sessions.get(*slot).key != key) {
            // Nobody finds it any more, but what it shared is still to be handed on.
            let replaced = self.sessions.get(other).key;
            self.sessions.lose_name(other);
            self.replaying().replaced.insert(replaced);
        }
        let slot = self.replay_slot(key);
        if self.sessions.get(slot).identity.is_empty() {
            self.sessions.name(slot, identity);
        }
        let session = self.sessions.get_mut(slot);
        session.version = version;
        session.expiry_s = expiry_s;
        session.will = will.map(|will| Box::new(super::will::from_record(will)));
        let heads = session.take_heads();
        self.session_record_is_dead(key, heads);
        self.live.add(lsn, 0);
        self.sessions.set_record(slot, lsn);
    }

    fn replay_disconnected(&mut self, lsn: Lsn, key: SessionKey, told: (UnixMs, UnixMs), expiry_s: u32) {
        let Some(slot) = self.sessions.find_key(key) else { return };
        let session = self.sessions.get_mut(slot);
        session.expiry_s = expiry_s;
        if told.1 == UnixMs::NEVER {
            session.will = None;
        }
        self.disconnected_is_noted(slot, lsn);
        self.replaying().disconnected.insert(key, told);
    }

    fn replay_will_gone(&mut self, lsn: Lsn, key: SessionKey) {
        if let Some(slot) = self.sessions.find_key(key) {
            self.sessions.get_mut(slot).will = None;
            self.will_gone_is_noted(key, lsn);
        }
        self.withdraw_at_replay(key);
    }

    fn withdraw_at_replay(&mut self, key: SessionKey) {
        if let Some(pending) = self.wills.remove(&key) {
            self.forget_will(key, pending);
        }
    }

    fn replay_end(&mut self, lsn: Lsn, key: SessionKey, will_due: UnixMs) {
        self.replaying().disconnected.remove(&key);
        if will_due == UnixMs::NEVER {
            self.withdraw_at_replay(key);
        }
        let Some(slot) = self.sessions.find_key(key) else { return };
        let session = self.sessions.get_mut(slot);
        let (record, will) = (session.record, session.will.take());
        if let Some(will) = will.filter(|_| will_due != UnixMs::NEVER) {
            self.will_pending(key, *will, will_due, record);
            self.wills.get_mut(&key).expect("just put there").ended = lsn;
            self.live.add(lsn, 0);
        }
        self.remove_at_replay(slot);
    }

    fn remove_at_replay(&mut self, slot: u32) {
        self.clear_at_replay(slot);
        let session = self.sessions.get_mut(slot);
        let (key, heads) = (session.key, session.take_heads());
        self.session_record_is_dead(key, heads);
        self.gap_is_dead(key);
        self.sessions.end(slot);
        self.sessions.remove(slot);
    }

    /// Everything an ended session still held; nobody is told and nothing is written.
    fn clear_at_replay(&mut self, slot: u32) {
        while let Some(subscription) = self.sessions.get_mut(slot).subscriptions.pop() {
            if subscription.record.is_some() {
                self.live.remove(subscription.record);
            }
            let broad = self.is_broad(self.subscriptions.text(subscription.filter));
            if self.subscriptions.unsubscribe(subscription.filter, slot) == Some(0) && broad {
                self.broad_filters -= 1;
            }
        }
        self.forget_left(slot, |_| true);
        let session = self.sessions.get_mut(slot);
        let (delivery, inbound) = (session.delivery.take(), session.inbound.take());
        for lsn in inbound.into_iter().flat_map(|inbound| inbound.into_values()) {
            self.need_is_gone(Need::Taken(lsn));
        }
        if let Some(delivery) = delivery {
            delivery
                .in_flight
                .iter()
                .flat_map(Broker::flight_records)
                .for_each(|need| self.need_is_gone(need));
            let in_flight = delivery.in_flight.iter().map(|in_flight| in_flight.entry);
            in_flight.for_each(|entry| self.replay_entry_gone(entry));
            for queued in delivery.queue.iter() {
                match queued {
                    Queued::Stored(stored) => self.stored_done_at_replay(stored),
                    Queued::Here(entry) => self.replay_entry_gone(entry),
                }
            }
        }
    }

    fn replay_unsubscribed(&mut self, lsn: Lsn, key: SessionKey, filter: &str) {
        if topic::split_shared(filter).is_some() {
            // The subscription's own record is dead; this one may be live because of what came through it.
            let slot = self.replay_slot(key);
            let _ = self.sessions.get_mut(slot).delivery();
            self.leave_group(slot, filter, lsn);
        }
        let Some(slot) = self.sessions.find_key(key) else { return };
        let Some(known) = self.subscriptions.find(filter) else { return };
        let session = self.sessions.get_mut(slot);
        let Some(index) = session.subscriptions.as_slice().iter().position(|mine| mine.filter == known)
        else {
            return;
        };
        let subscription = session.subscriptions.swap_remove(index);
        self.live.remove(subscription.record);
        if self.subscriptions.unsubscribe(known, slot) == Some(0) && self.is_broad(filter) {
            self.broad_filters -= 1;
        }
    }

    /// The last record was replayed: decide what time has decided since, and prepare to route again.
    pub(super) fn replayed(&mut self, effects: &mut impl Effects) {
        let mut replay = self.replay.take().expect("replay ends once");
        for slot in replay.by_record.values().copied() {
            if !self.messages.get(slot).is_pinned() {
                self.messages.take_bytes(slot);
            }
            let restored = replay.unrouted.contains_key(&self.messages.get(slot).lsn);
            if !restored {
                self.release_message(slot);
            }
        }
        replay.held.iter().for_each(|list| self.live.remove(*list));
        for (lsn, key) in &replay.unrouted {
            let Some(slot) = replay.by_record.get(lsn).copied() else { continue };
            self.restored.push_back(slot);
            let known = |slot: &u32| !self.sessions.get(*slot).identity.is_empty();
            if let Some(session) = self.sessions.find_key(*key).filter(known) {
                self.messages.get_mut(slot).publisher = self.sessions.publisher(session);
            }
        }
        let slots: Vec<u32> = self.sessions.written().collect();
        slots.iter().for_each(|slot| self.forget_left_at_replay(*slot));
        // Those without a name ended before the records that still speak of them. They go first: what another shard is told
        // when the next one ends does not count them.
        let (unnamed, named): (Vec<u32>, Vec<u32>) =
            slots.into_iter().partition(|slot| self.sessions.get(*slot).identity.is_empty());
        unnamed.into_iter().for_each(|slot| self.remove_at_replay(slot));
        self.announcement.begin(std::mem::take(&mut replay.shares));
        for slot in named {
            let session = self.sessions.get(slot);
            if session.expiry_s == 0 || replay.replaced.contains(&session.key) {
                self.end_session(slot, effects);
            } else {
                self.resume_clock(slot, &replay, effects);
            }
        }
        self.forget_what_stays();
        self.retained_may_expire();
        self.forget_whole_limits_at_replay();
        self.tell_first_mark(effects);
    }

    /// Of the shared subscriptions that it has left, those matter through which it still has something.
    fn forget_left_at_replay(&mut self, slot: u32) {
        let Some(delivery) = self.sessions.get(slot).delivery.as_deref() else { return };
        let in_flight = delivery.in_flight.iter().map(|in_flight| Queued::Here(in_flight.entry));
        let group = |queued| match queued {
            Queued::Stored(stored) => stored.group(),
            Queued::Here(entry) => {
                self.messages.get(entry.message).owed.as_slice()[entry.owed as usize].group
            }
        };
        let groups: BTreeSet<u16> = in_flight.chain(delivery.queue.iter()).filter_map(group).collect();
        // 0: one that was written before its group was.
        let matters = |group: &str| groups.contains(&0) || groups.contains(&group_tag(group));
        self.forget_left(slot, |left| !matters(&left.group));
        let session = self.sessions.get_mut(slot);
        session.delivery.take_if(|delivery| delivery.is_empty() && delivery.left.is_empty());
    }

    /// A restored session is disconnected: since its record says so, or, connected at the crash, since now.
    fn resume_clock(&mut self, slot: u32, replay: &Replay, effects: &mut impl Effects) {
        let now = self.now.wall;
        let session = self.sessions.get_mut(slot);
        let (key, expiry_s, record) = (session.key, session.expiry_s, session.record);
        let will = session.will.take();
        let told = replay.disconnected.get(&key).copied();
        let at = told.map_or(now, |(at, _)| at);
        if let Some(will) = will {
            let delayed = now.plus_s(u64::from(will.delay_s.min(expiry_s)));
            let due = told.map_or(delayed, |(_, due)| due);
            self.will_pending(key, *will, due, record);
        }
        if told.is_none() {
            let will_due = self.wills.get(&key).map_or(UnixMs::NEVER, |pending| pending.due);
            let record = self.append(Record::Disconnected { key, at, expiry_s, will_due }, effects);
            self.disconnected_is_noted(slot, record);
        }
        let ends_at = self.now.mono_at(self.expires_at(expiry_s, at));
        self.sessions.get_mut(slot).ends_at = ends_at;
        self.queue_expires_after_replay(slot);
        self.set_session_timer(slot);
    }

    /// Route again what was accepted at QoS 2 and not known to have arrived.
    pub(super) fn route_restored(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        if !self.knows_all_interest() {
            return false;
        }
        while let Some(slot) = self.restored.front().copied() {
            if !budget.take() {
                return true;
            }
            if self.messages.get(slot).content.is_none() {
                self.fetch(slot, None, effects);
                if self.messages.get(slot).content.is_none() {
                    return false;
                }
            }
            self.restored.pop_front();
            self.messages.keep(slot);
            let message = self.messages.get_mut(slot);
            // Who gets it from here on is not on record yet.
            (message.settled, message.placed, message.covered) = (false, false, false);
            message.sender = super::messages::Sender::Inbound;
            assert!(message.qos == QoS::ExactlyOnce, "only QoS 2 has inbound records");
            self.route(slot);
        }
        false
    }
}
