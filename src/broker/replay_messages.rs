//! Replay of messages: who has them in the queue, what is in flight, what is retained, and what is to be routed again.
//!
//! The part of `replay` that is about records of messages; what is said there holds here.

use super::Broker;
use super::messages::Owed;
use super::needs::Need;
use super::retained::Held;
use super::session::{Delivery, Entry, InFlight, Phase};
use super::stored::{Queued, Stored, StoredBody};
use crate::ids::{Lsn, OriginKey, SessionKey};
use crate::live::Facts;
use crate::record::{Body, Recipient, Recipients};
use crate::wire::{PacketId, QoS};

impl Broker {
    pub(super) fn replay_message(
        &mut self,
        lsn: Lsn,
        body: &Body<'_>,
        origin: Option<OriginKey>,
        recipients: Recipients<'_>,
        facts: &Facts<'_>,
    ) {
        let stored = self.replay_body(lsn, body, origin);
        if body.retain {
            self.replay_head(lsn, body, origin);
        }
        // Without recipients it is the body of a retained message, which is placed when its `Deliver` is on record.
        if !recipients.is_empty() {
            self.recorded_at_replay(origin, lsn, lsn, recipients);
        }
        self.replay_recipients(&stored, lsn, recipients, facts);
    }

    /// A body on disk, for those who get it.
    fn replay_body(&mut self, lsn: Lsn, body: &Body<'_>, origin: Option<OriginKey>) -> StoredBody {
        let length = body.topic.len() + body.forward.len() + body.payload.len();
        let bytes = u32::try_from(length).expect("a packet's length fits 32 bits");
        let stored = StoredBody { lsn, bytes, expires_at: body.expires_at, keyed: origin.is_some() };
        let replay = self.replaying();
        replay.bodies.push(stored);
        replay.origins.extend(origin.map(|origin| (lsn, origin)));
        stored
    }

    /// A message that may be retained or is to be routed again, with the reference that replay holds.
    fn replay_head(&mut self, lsn: Lsn, body: &Body<'_>, origin: Option<OriginKey>) {
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
        self.live.add(lsn, message.length());
        self.replaying().by_record.insert(lsn, slot);
    }

    pub(super) fn replay_deliver(
        &mut self,
        lsn: Lsn,
        message: Lsn,
        recipients: Recipients<'_>,
        facts: &Facts<'_>,
    ) {
        let replay = self.replaying();
        if let Ok(index) = replay.bodies.binary_search_by_key(&message, |body| body.lsn) {
            let (stored, origin) = (replay.bodies[index], replay.origins.get(&message).copied());
            self.recorded_at_replay(origin, message, lsn, recipients);
            self.replay_recipients(&stored, lsn, recipients, facts);
        }
    }

    /// A recipient that a record lists is gone. Something may yet turn out to need the record's body, and then it has to
    /// be known that he is, so the record stays live until the end of replay.
    pub(super) fn recipient_gone_at_replay(&mut self, list: Lsn, place: u32) {
        if let Some(replay) = self.replay.as_deref_mut()
            && replay.held.insert(list)
        {
            self.live.add(list, 0);
        }
        self.live.recipient_gone(list, place);
        self.forget_handed_on_at_replay(list, place);
    }

    /// The recipients that a record lists.
    fn replay_recipients(
        &mut self,
        body: &StoredBody,
        list: Lsn,
        recipients: Recipients<'_>,
        facts: &Facts<'_>,
    ) {
        let listed = recipients.iter().filter(|recipient| !recipient.more).count();
        if listed == 0 {
            return;
        }
        let listed = u32::try_from(listed).expect("bounded by SESSIONS_PER_SHARD_MAX");
        let bytes = if list == body.lsn { body.bytes as usize } else { 0 };
        self.live.add_listed(list, bytes, listed);
        let mut all = recipients.iter().peekable();
        let mut place = 0;
        while let Some(first) = all.next() {
            let mut ids: Vec<u32> = Some(first.subscription_id).filter(|id| *id != 0).into_iter().collect();
            while let Some(more) = all.next_if(|next| next.more) {
                ids.push(more.subscription_id);
            }
            if first.session == SessionKey::NONE || facts.gone.is_some_and(|gone| gone.contains(place)) {
                self.recipient_gone_at_replay(list, place);
            } else {
                let slot = self.replay_slot(first.session);
                let handle = self.subscription_ids.intern(&ids);
                self.replay_entry(slot, body, &first, handle, (list, place));
            }
            place += 1;
        }
    }

    fn replay_entry(
        &mut self,
        slot: u32,
        body: &StoredBody,
        recipient: &Recipient,
        subscription_id: u32,
        (list, place): (Lsn, u32),
    ) {
        let owed = Owed {
            session: slot,
            subscription_id,
            qos: recipient.qos,
            retain: recipient.retain,
            group: recipient.shared.then_some(recipient.group),
            durable: true,
            list,
            place,
            done: false,
            waived: false,
        };
        let stored = Stored::new(body, &owed).expect("a body that far back would have been written anew");
        if list != body.lsn {
            self.live.add(body.lsn, body.bytes as usize);
        }
        let delivery = self.sessions.get_mut(slot).delivery();
        delivery.bytes += u64::from(body.bytes);
        delivery.queue.push_back(Queued::Stored(stored));
        self.replaying().listed.push((list, place, slot));
        self.statistics.queued += 1;
    }

    /// An entry that was in flight is not any more.
    pub(super) fn replay_entry_gone(&mut self, entry: Entry) {
        self.statistics.queued -= 1;
        self.subscription_ids.release(entry.subscription_id);
        let owed = &mut self.messages.get_mut(entry.message).owed.as_mut_slice()[entry.owed as usize];
        owed.done = true;
        owed.subscription_id = 0;
        let Owed { list, place, .. } = *owed;
        self.recipient_gone_at_replay(list, place);
        self.release_message(entry.message);
    }

    /// The session that a list has in that place, if it is still there.
    pub(super) fn replay_listed(&mut self, list: Lsn, place: u32) -> Option<u32> {
        let listed = &self.replaying().listed;
        let key = |(list, place, _): &(Lsn, u32, u32)| (*list, *place);
        let index = listed.binary_search_by_key(&(list, place), key).ok()?;
        let slot = listed[index].2;
        self.sessions.exists(slot).then_some(slot)
    }

    /// The entry leaves its queue, wherever it is there.
    pub(super) fn replay_done(&mut self, list: Lsn, place: u32) {
        let Some(slot) = self.replay_listed(list, place) else { return };
        let Some(delivery) = self.sessions.get(slot).delivery.as_deref() else { return };
        let is_it = |in_flight: &InFlight| {
            let owed = &self.messages.get(in_flight.entry.message).owed.as_slice()[0];
            (owed.list, owed.place) == (list, place)
        };
        if let Some(index) = delivery.in_flight.iter().position(is_it) {
            self.replay_flight_done(slot, index);
        } else if let Some(index) = delivery.queue.find_stored(list, place) {
            self.replay_queued_done(slot, index);
        }
    }

    fn replay_flight_done(&mut self, slot: u32, index: usize) {
        let in_flight = self.sessions.get_mut(slot).delivery().in_flight.remove(index);
        let in_flight = in_flight.expect("just found there");
        Broker::flight_records(&in_flight).for_each(|need| self.need_is_gone(need));
        let bytes = self.messages.get(in_flight.entry.message).length() as u64;
        self.replay_taken_out(slot, bytes);
        self.replay_entry_gone(in_flight.entry);
    }

    fn replay_queued_done(&mut self, slot: u32, index: usize) {
        let Some(Queued::Stored(stored)) = self.sessions.get_mut(slot).delivery().queue.remove(index) else {
            unreachable!("replay stores every entry")
        };
        self.replay_taken_out(slot, u64::from(stored.bytes));
        self.stored_done_at_replay(stored);
    }

    fn replay_taken_out(&mut self, slot: u32, bytes: u64) {
        let session = self.sessions.get_mut(slot);
        session.delivery().bytes -= bytes;
        session.delivery.take_if(|delivery| delivery.is_empty() && delivery.left.is_empty());
    }

    /// The first entry of that message in a session's queue, of those at QoS 2 or of the others.
    fn replay_find(delivery: &Delivery, message: Lsn, exactly_once: bool) -> Option<usize> {
        delivery.queue.iter().position(|queued| {
            matches!(queued, Queued::Stored(stored) if stored.body == message
                && (stored.qos == QoS::ExactlyOnce) == exactly_once)
        })
    }

    pub(super) fn replay_acknowledged(&mut self, key: SessionKey, message: Lsn, packet_id: Option<PacketId>) {
        let Some(slot) = self.sessions.find_key(key) else { return };
        let Some(delivery) = self.sessions.get(slot).delivery.as_deref() else { return };
        let flying = packet_id.and_then(|packet_id| delivery.find(packet_id));
        // Without a packet id it was acknowledged at QoS 1, or expired before it had one.
        let expired = || Broker::replay_find(delivery, message, true);
        let queued = Broker::replay_find(delivery, message, false).or_else(expired);
        match (flying, queued) {
            (Some(index), _) => self.replay_flight_done(slot, index),
            (None, Some(index)) if packet_id.is_none() => self.replay_queued_done(slot, index),
            (None, _) => {}
        }
    }

    pub(super) fn replay_inbound(
        &mut self,
        lsn: Lsn,
        key: SessionKey,
        packet_id: PacketId,
        body: &Body<'_>,
        facts: &Facts<'_>,
    ) {
        let origin = OriginKey { shard: self.shard, lsn };
        let bytes = self.replay_body(lsn, body, Some(origin)).bytes as usize;
        if !facts.routed || body.retain {
            self.replay_head(lsn, body, Some(origin));
        }
        if !facts.routed {
            self.live.add(lsn, bytes);
            self.live.set_unrouted(lsn, true);
            self.replaying().unrouted.insert(lsn, key);
            self.origins.routing(lsn);
        }
        // Key 0: the publisher's session does not outlive its connection.
        if key != SessionKey::NONE && !facts.released {
            let slot = self.replay_slot(key);
            self.live.add(lsn, bytes);
            self.live.set_taken(lsn, true);
            // Taken again: it was free, and the record that said so was lost (`salvage`).
            let before = self.sessions.get_mut(slot).inbound.get_or_insert_default().insert(packet_id, lsn);
            before.into_iter().for_each(|before| self.need_is_gone(Need::Taken(before)));
        }
    }

    pub(super) fn replay_routed(&mut self, inbound: Lsn) {
        if self.replaying().unrouted.remove(&inbound).is_some() {
            self.live.set_unrouted(inbound, false);
            self.live.remove(inbound);
            let slot = self.replaying().by_record.get(&inbound).copied().expect("it was replayed");
            if !self.messages.get(slot).is_pinned() {
                self.messages.take_bytes(slot);
            }
        }
        self.origins.routed_at_replay(inbound);
    }

    pub(super) fn replay_released(&mut self, key: SessionKey, packet_id: PacketId) {
        let Some(slot) = self.sessions.find_key(key) else { return };
        let inbound = &mut self.sessions.get_mut(slot).inbound;
        if let Some(lsn) = inbound.as_mut().and_then(|inbound| inbound.remove(&packet_id)) {
            inbound.take_if(|inbound| inbound.is_empty());
            self.need_is_gone(Need::Taken(lsn));
        }
    }

    pub(super) fn replay_begun(&mut self, lsn: Lsn, list: Lsn, place: u32, packet_id: PacketId) {
        let Some(slot) = self.replay_listed(list, place) else { return };
        let Some(delivery) = self.sessions.get(slot).delivery.as_deref() else { return };
        if let Some(index) = delivery.queue.find_stored(list, place) {
            self.replay_flight(lsn, slot, index, packet_id);
        }
    }

    pub(super) fn replay_sent(&mut self, lsn: Lsn, key: SessionKey, message: Lsn, packet_id: PacketId) {
        let Some(slot) = self.sessions.find_key(key) else { return };
        let Some(delivery) = self.sessions.get(slot).delivery.as_deref() else { return };
        if let Some(index) = Broker::replay_find(delivery, message, true) {
            self.replay_flight(lsn, slot, index, packet_id);
        }
    }

    /// It may have been sent: it is sent again with DUP.
    fn replay_flight(&mut self, lsn: Lsn, slot: u32, index: usize, packet_id: PacketId) {
        if let Some(before) = self.sessions.get_mut(slot).delivery().find(packet_id) {
            // Given again: what had it is done, and the record that said so was lost (`salvage`).
            self.replay_flight_done(slot, before);
        }
        let removed = self.sessions.get_mut(slot).delivery().queue.remove(index);
        let Some(Queued::Stored(stored)) = removed else { return };
        let entry = self.bring_in(slot, stored);
        let delivery = self.sessions.get_mut(slot).delivery();
        let (begun, received) = (lsn, Lsn::NONE);
        delivery.in_flight.push_back(InFlight { entry, packet_id, phase: Phase::Sent, begun, received });
        delivery.last_packet_id = packet_id.get();
        self.live.add(lsn, 0);
    }

    pub(super) fn replay_received(&mut self, lsn: Lsn, key: SessionKey, packet_id: PacketId) {
        let Some(slot) = self.sessions.find_key(key) else { return };
        let Some(delivery) = self.sessions.get_mut(slot).delivery.as_deref_mut() else { return };
        let Some(index) = delivery.find(packet_id) else { return };
        let in_flight = &mut delivery.in_flight[index];
        in_flight.phase = Phase::Released;
        let dead = std::mem::replace(&mut in_flight.received, lsn);
        self.live.add(lsn, 0);
        if dead.is_some() {
            self.live.remove(dead);
        }
    }

    pub(super) fn replay_retained(&mut self, lsn: Lsn, message: Lsn) {
        let Some(slot) = self.replaying().by_record.get(&message).copied() else { return };
        let stored = self.messages.get(slot);
        let bytes = u32::try_from(stored.length()).expect("a packet's length fits 32 bits");
        let expires_at = stored.expires_at;
        let Some(topic) = stored.body().map(|body| Box::<str>::from(body.topic)) else { return };
        self.messages.retain(slot);
        self.messages.pin(slot, true);
        self.live.add(lsn, 0);
        let number = self.retained.next_number();
        let held = Held { message: slot, bytes, number, record: lsn, expires_at };
        if let Some(old) = self.retained.set(&topic, held) {
            self.replay_unpin(old, Some(slot));
        }
    }

    /// As `unpin`.
    pub(super) fn replay_unpin(&mut self, held: Held, by: Option<u32>) {
        self.live.remove(held.record);
        if by != Some(held.message) {
            self.messages.pin(held.message, false);
            // One that is routed again may be retained again.
            let record = self.messages.get(held.message).lsn;
            if !self.replaying().unrouted.contains_key(&record) {
                self.messages.take_bytes(held.message);
            }
        }
        self.release_message(held.message);
    }
}
