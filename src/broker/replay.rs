//! Starting is recovering: records of the journal, applied in order, rebuild every table; then the end of replay
//! decides what a live broker would have decided at the crash.
//!
//! Replay never matches a message against subscriptions (records list their recipients) and never sends. Bodies stay
//! on disk, except of messages that may be retained. What does not fit (a record about something unknown) is not
//! an error: acknowledgements outlive what they acknowledge, and a session's end outlives its records.

use std::collections::BTreeMap;

use super::effect::Effects;
use super::messages::Owed;
use super::session::{self, Delivery, Entry, InFlight, Phase};
use super::subscriptions::Grant;
use super::timers::Due;
use super::{Broker, Budget};
use crate::ids::{Lsn, OriginKey, SessionKey};
use crate::record::{Body, Recipient, Recipients, Record, WillRecord};
use crate::time::UnixMs;
use crate::wire::{PacketId, QoS, Version, topic};

/// What only replay needs to know.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Message slot by the record that holds its body. Each holds one reference until replay ends.
    by_record: BTreeMap<Lsn, u32>,
    /// `Inbound` records without `Routed`.
    unrouted: BTreeMap<Lsn, SessionKey>,
    /// Sessions that a clean start has replaced, and whose own end was on the way to the disk.
    replaced: Vec<SessionKey>,
    /// Sessions that have ended their connection: when, and when the will is due.
    disconnected: BTreeMap<SessionKey, (UnixMs, UnixMs)>,
}

impl Broker {
    /// One record.
    pub(super) fn replay_record(&mut self, lsn: Lsn, record: &Record<'_>) {
        assert!(lsn > self.lsn, "records are replayed in order (I13)");
        self.lsn = lsn;
        self.durable = lsn;
        match *record {
            Record::Session { key, account, client_id, version, expiry_s, will } => {
                let identity = session::identity(account, client_id);
                self.replay_session(lsn, key, identity, version, expiry_s, will.as_ref());
            }
            Record::Disconnected { key, at, expiry_s, will_due } => {
                self.replay_disconnected(key, at, expiry_s, will_due);
            }
            Record::WillGone { key } => self.replay_will_gone(key),
            Record::SessionEnded { key, will_due } => self.replay_end(key, will_due),
            Record::Subscribed { key, filter, options, subscription_id } => {
                let slot = self.replay_slot(key);
                self.add_subscription(slot, filter, Grant { options, subscription_id }, Lsn::NONE);
                self.set_subscription_record(slot, filter, lsn);
            }
            Record::Unsubscribed { key, filter } => self.replay_unsubscribed(key, filter),
            Record::Message { body, origin, recipients } => {
                self.replay_message(lsn, &body, origin, recipients)
            }
            Record::Deliver { message, recipients } => self.replay_deliver(message, recipients),
            Record::Acknowledged { key, message, packet_id } => {
                self.replay_acknowledged(key, message, packet_id);
            }
            Record::Inbound { key, packet_id, body } => self.replay_inbound(lsn, key, packet_id, &body),
            Record::Routed { inbound } => self.replay_routed(inbound),
            Record::Released { key, packet_id } => self.replay_released(key, packet_id),
            Record::Sent { key, message, packet_id } => self.replay_sent(key, message, packet_id),
            Record::Received { key, packet_id } => self.replay_received(key, packet_id),
            Record::Retained { message } => self.replay_retained(message),
            Record::RetainedCleared { topic } => {
                if let Some(held) = self.retained.clear(topic) {
                    self.replay_unpin(held.message);
                }
            }
            Record::Gap { key, skipped } => {
                let slot = self.replay_slot(key);
                self.sessions.get_mut(slot).skipped = u32::try_from(skipped).unwrap_or(u32::MAX);
            }
            Record::OriginReleased { mark } => self.origins.forget(mark, &mut self.live),
        }
    }

    /// The session that a record speaks of. Its own record may come later: it was written again when its client came
    /// back, and the earlier one was freed with its segment. If none comes, the session had ended.
    fn replay_slot(&mut self, key: SessionKey) -> u32 {
        self.sessions.key_is_used(key);
        self.sessions.find_key(key).unwrap_or_else(|| self.sessions.insert_unnamed(key))
    }

    fn replaying(&mut self) -> &mut Replay {
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
            self.replaying().replaced.push(replaced);
        }
        let slot = self.replay_slot(key);
        if self.sessions.get(slot).identity.is_empty() {
            self.sessions.name(slot, identity);
        }
        let session = self.sessions.get_mut(slot);
        session.version = version;
        session.expiry_s = expiry_s;
        session.will = will.map(|will| Box::new(super::will::from_record(will)));
        let dead = session.record;
        if dead.is_some() {
            self.live.remove(dead);
        }
        self.live.add(lsn);
        self.sessions.set_record(slot, lsn);
    }

    fn replay_disconnected(&mut self, key: SessionKey, at: UnixMs, expiry_s: u32, will_due: UnixMs) {
        let Some(slot) = self.sessions.find_key(key) else { return };
        let session = self.sessions.get_mut(slot);
        session.expiry_s = expiry_s;
        if will_due == UnixMs::NEVER {
            session.will = None;
        }
        self.replaying().disconnected.insert(key, (at, will_due));
    }

    fn replay_will_gone(&mut self, key: SessionKey) {
        if let Some(slot) = self.sessions.find_key(key) {
            self.sessions.get_mut(slot).will = None;
        }
        if let Some(pending) = self.wills.remove(&key)
            && pending.record.is_some()
        {
            self.live.remove(pending.record);
        }
    }

    fn replay_end(&mut self, key: SessionKey, will_due: UnixMs) {
        self.replaying().disconnected.remove(&key);
        let Some(slot) = self.sessions.find_key(key) else { return };
        let session = self.sessions.get_mut(slot);
        let (record, will) = (session.record, session.will.take());
        if let Some(will) = will.filter(|_| will_due != UnixMs::NEVER) {
            self.will_pending(key, *will, will_due, record);
        }
        if record.is_some() {
            self.live.remove(record);
        }
        self.remove_at_replay(slot);
    }

    fn remove_at_replay(&mut self, slot: u32) {
        self.clear_at_replay(slot);
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
        let session = self.sessions.get_mut(slot);
        let (delivery, inbound) = (session.delivery.take(), session.inbound.take());
        for lsn in inbound.into_iter().flat_map(|inbound| inbound.into_values()) {
            self.live.remove(lsn);
        }
        if let Some(delivery) = delivery {
            let in_flight = delivery.in_flight.iter().map(|in_flight| in_flight.entry);
            for entry in in_flight.chain(delivery.queue.iter().copied()) {
                self.replay_entry_gone(entry);
            }
        }
    }

    fn replay_entry_gone(&mut self, entry: Entry) {
        self.statistics.queued -= 1;
        self.subscription_ids.release(entry.subscription_id);
        let owed = &mut self.messages.get_mut(entry.message).owed.as_mut_slice()[entry.owed as usize];
        owed.done = true;
        owed.subscription_id = 0;
        self.release_message(entry.message);
    }

    fn replay_unsubscribed(&mut self, key: SessionKey, filter: &str) {
        let Some(slot) = self.sessions.find_key(key) else { return };
        let Some(known) = self.subscriptions.find(filter) else { return };
        let session = self.sessions.get_mut(slot);
        let Some(index) = session.subscriptions.as_slice().iter().position(|mine| mine.filter == known)
        else {
            return;
        };
        let subscription = session.subscriptions.swap_remove(index);
        if topic::split_shared(filter).is_some() {
            session.leave_group(filter);
        }
        self.live.remove(subscription.record);
        if self.subscriptions.unsubscribe(known, slot) == Some(0) && self.is_broad(filter) {
            self.broad_filters -= 1;
        }
    }

    fn replay_message(
        &mut self,
        lsn: Lsn,
        body: &Body<'_>,
        origin: Option<OriginKey>,
        recipients: Recipients<'_>,
    ) {
        let slot = self.replay_body(lsn, body, origin);
        // Without recipients it is the body of a retained message, which is placed when its `Deliver` is on record.
        if !recipients.is_empty() {
            self.origins.recorded(origin, lsn, &mut self.live);
        }
        self.replay_recipients(slot, recipients);
    }

    /// A body on disk, with the reference that replay holds.
    fn replay_body(&mut self, lsn: Lsn, body: &Body<'_>, origin: Option<OriginKey>) -> u32 {
        let slot = self.messages.insert_on_disk(body, lsn, origin).slot;
        if body.retain {
            // Perhaps the retained message of its topic, whose body is kept in memory; if not, the end of replay lets
            // go of it.
            self.messages.keep_bytes(slot, body);
        }
        let message = self.messages.get_mut(slot);
        message.placed = true;
        message.covered = true;
        message.settled = true;
        self.live.add(lsn);
        self.replaying().by_record.insert(lsn, slot);
        slot
    }

    fn replay_deliver(&mut self, message: Lsn, recipients: Recipients<'_>) {
        if self.replaying().unrouted.contains_key(&message) {
            self.origins.placed_own(self.shard, message);
        }
        if let Some(slot) = self.replaying().by_record.get(&message).copied() {
            let origin = self.messages.get(slot).key_to_note(self.shard);
            self.origins.recorded(origin, message, &mut self.live);
            self.replay_recipients(slot, recipients);
        }
    }

    fn replay_recipients(&mut self, message: u32, recipients: Recipients<'_>) {
        let mut all = recipients.iter().peekable();
        while let Some(first) = all.next() {
            let mut ids: Vec<u32> = Some(first.subscription_id).filter(|id| *id != 0).into_iter().collect();
            while let Some(more) = all.next_if(|next| next.more) {
                ids.push(more.subscription_id);
            }
            let slot = self.replay_slot(first.session);
            let handle = self.subscription_ids.intern(&ids);
            self.replay_entry(slot, message, &first, handle);
        }
    }

    fn replay_entry(&mut self, slot: u32, message: u32, recipient: &Recipient, subscription_id: u32) {
        let stored = self.messages.get_mut(message);
        let owed = u32::try_from(stored.owed.len()).expect("bounded by SESSIONS_PER_SHARD_MAX");
        stored.owed.push(Owed {
            session: slot,
            subscription_id,
            qos: recipient.qos,
            retain: recipient.retain,
            group: recipient.shared.then_some(recipient.group),
            durable: true,
            recorded: true,
            done: false,
        });
        let bytes = stored.length() as u64;
        self.messages.retain(message);
        let delivery = self.sessions.get_mut(slot).delivery();
        delivery.bytes += bytes;
        delivery.queue.push_back(Entry { message, owed, subscription_id, retain: recipient.retain });
        self.statistics.queued += 1;
    }

    /// The first entry of that message in a session's queue, of those at QoS 2 or of the others.
    fn replay_find(&self, delivery: &Delivery, message: Lsn, exactly_once: bool) -> Option<usize> {
        delivery.queue.iter().position(|entry| {
            self.messages.get(entry.message).lsn == message
                && (self.entry_qos(*entry) == QoS::ExactlyOnce) == exactly_once
        })
    }

    fn replay_acknowledged(&mut self, key: SessionKey, message: Lsn, packet_id: Option<PacketId>) {
        let Some(slot) = self.sessions.find_key(key) else { return };
        let Some(delivery) = self.sessions.get(slot).delivery.as_deref() else { return };
        let flying = packet_id.and_then(|packet_id| delivery.find(packet_id));
        // Without a packet id it was acknowledged at QoS 1, or expired before it had one.
        let expired = || self.replay_find(delivery, message, true);
        let queued = self.replay_find(delivery, message, false).or_else(expired);
        let delivery = self.sessions.get_mut(slot).delivery();
        let entry = match (flying, queued) {
            (Some(index), _) => delivery.in_flight.remove(index).map(|in_flight| in_flight.entry),
            (None, Some(index)) if packet_id.is_none() => delivery.queue.remove(index),
            (None, _) => None,
        };
        let Some(entry) = entry else { return };
        let bytes = self.messages.get(entry.message).length() as u64;
        let delivery = self.sessions.get_mut(slot).delivery();
        delivery.bytes -= bytes;
        if delivery.is_empty() {
            self.sessions.get_mut(slot).delivery = None;
        }
        self.replay_entry_gone(entry);
    }

    fn replay_inbound(&mut self, lsn: Lsn, key: SessionKey, packet_id: PacketId, body: &Body<'_>) {
        let origin = OriginKey { shard: self.shard, lsn };
        let _ = self.replay_body(lsn, body, Some(origin));
        self.replaying().unrouted.insert(lsn, key);
        self.origins.routing(lsn);
        // Key 0: the publisher's session does not outlive its connection.
        if key != SessionKey(0) {
            let slot = self.replay_slot(key);
            self.live.add(lsn);
            self.sessions.get_mut(slot).inbound.get_or_insert_default().insert(packet_id, lsn);
        }
    }

    fn replay_routed(&mut self, inbound: Lsn) {
        self.replaying().unrouted.remove(&inbound);
        self.origins.routed_at_replay(inbound);
    }

    fn replay_released(&mut self, key: SessionKey, packet_id: PacketId) {
        let Some(slot) = self.sessions.find_key(key) else { return };
        let inbound = self.sessions.get_mut(slot).inbound.as_mut();
        if let Some(lsn) = inbound.and_then(|inbound| inbound.remove(&packet_id)) {
            self.live.remove(lsn);
        }
    }

    fn replay_sent(&mut self, key: SessionKey, message: Lsn, packet_id: PacketId) {
        let Some(slot) = self.sessions.find_key(key) else { return };
        let Some(delivery) = self.sessions.get(slot).delivery.as_deref() else { return };
        let Some(index) = self.replay_find(delivery, message, true) else { return };
        let delivery = self.sessions.get_mut(slot).delivery();
        let Some(entry) = delivery.queue.remove(index) else { return };
        // It may have been sent: it is sent again with DUP.
        delivery.in_flight.push_back(InFlight { entry, packet_id, phase: Phase::Sent });
        delivery.last_packet_id = packet_id.get();
    }

    fn replay_received(&mut self, key: SessionKey, packet_id: PacketId) {
        let Some(slot) = self.sessions.find_key(key) else { return };
        let delivery = self.sessions.get_mut(slot).delivery();
        if let Some(index) = delivery.find(packet_id) {
            delivery.in_flight[index].phase = Phase::Released;
        }
    }

    fn replay_retained(&mut self, message: Lsn) {
        let Some(slot) = self.replaying().by_record.get(&message).copied() else { return };
        let stored = self.messages.get(slot);
        let bytes = u32::try_from(stored.length()).expect("a packet's length fits 32 bits");
        let Some(topic) = stored.body().map(|body| Box::<str>::from(body.topic)) else { return };
        self.messages.retain(slot);
        self.messages.pin(slot, true);
        let number = self.retained.next_number();
        if let Some(old) = self.retained.set(&topic, super::retained::Held { message: slot, bytes, number }) {
            self.replay_unpin(old.message);
        }
    }

    fn replay_unpin(&mut self, slot: u32) {
        self.messages.pin(slot, false);
        self.messages.take_bytes(slot);
        self.release_message(slot);
    }

    /// The last record was replayed: decide what time has decided since, and prepare to route again.
    pub(super) fn replayed(&mut self, effects: &mut impl Effects) {
        let replay = self.replay.take().expect("replay ends once");
        for slot in replay.by_record.values().copied() {
            if !self.messages.get(slot).is_pinned() {
                self.messages.take_bytes(slot);
            }
            let restored = replay.unrouted.contains_key(&self.messages.get(slot).lsn);
            if !restored {
                self.release_message(slot);
            }
        }
        for (lsn, key) in &replay.unrouted {
            let Some(slot) = replay.by_record.get(lsn).copied() else { continue };
            self.restored.push_back(slot);
            if let Some(session) = self.sessions.find_key(*key) {
                self.messages.get_mut(slot).publisher = self.sessions.publisher(session);
            }
        }
        let slots: Vec<u32> = self.sessions.slots().collect();
        self.announcement.begin();
        for key in &replay.replaced {
            if let Some(slot) = self.sessions.find_key(*key) {
                self.end_session(slot, effects);
            }
        }
        for slot in slots {
            if self.sessions.get(slot).ended {
                continue;
            }
            if self.sessions.get(slot).identity.is_empty() {
                // It ended before the records that still speak of it.
                self.remove_at_replay(slot);
                continue;
            }
            self.resume_clock(slot, &replay, effects);
        }
        self.tell_first_mark(effects);
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
            let _ = self.append(Record::Disconnected { key, at, expiry_s, will_due }, effects);
        }
        let ends_at = self.mono_at(self.expires_at(expiry_s, at));
        self.sessions.get_mut(slot).ends_at = ends_at;
        self.timers.set(ends_at, Due::SessionEnd { slot, key });
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
            if self.messages.get(slot).bytes.is_none() {
                self.fetch(slot, None, effects);
                if self.messages.get(slot).bytes.is_none() {
                    return false;
                }
            }
            self.restored.pop_front();
            let message = self.messages.get_mut(slot);
            message.settled = false;
            message.placed = false;
            message.sender = super::messages::Sender::Inbound;
            assert!(message.qos == QoS::ExactlyOnce, "only QoS 2 has inbound records");
            self.route(slot);
        }
        false
    }
}
