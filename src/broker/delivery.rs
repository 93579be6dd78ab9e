//! The queue of a session and its pull: what is sent when, in which order, inside which window.
//!
//! On each connection everything in flight goes again first, in the order it was first sent, marked DUP
//! `[MQTT-4.4.0-1]` `[MQTT-4.6.0-1]`; then the queue, as far as the client's window and its output's room go. A few
//! entries per session and call, so that a long backlog delays nobody else.

use super::effect::Effects;
use super::messages::Owed;
use super::session::{Entry, InFlight, NO_SLOT, Phase};
use super::stored::Queued;
use super::transmit::Attempted;
use super::{Broker, Budget};
use crate::ids::{ConnectionId, Lsn};
use crate::limits;
use crate::record::Record;
use crate::wire::{AckKind, PacketId, QoS, ReasonCode};

/// How a session gets a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// As in `Owed`.
    pub(super) group: Option<u16>,
    /// Handle; released here if the copy is not taken.
    pub(super) subscription_id: u32,
}

/// What came of queueing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// It is in the queue. `urgent`: an acknowledgement cannot be expected at once, so it is written down now.
    Queued { urgent: bool },
    /// The queue is full, or what the shard holds for all of them.
    Full,
    /// The session is over, or is not connected and the message is QoS 0.
    Nobody,
}

/// How an entry leaves its queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gone {
    /// It is noted in the journal if it was recorded (I10).
    Noted,
    /// With its session, whose end says enough.
    WithSession,
}

/// What became of one attempt to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Attempt {
    /// Something was sent or dropped: there may be more.
    Progress,
    /// The front of the queue has a packet id and can be sent.
    Begun,
    /// Nothing can be sent until something else happens.
    Wait,
}

/// Entries one session may send before the next has its turn.
const TURN_ENTRIES: u32 = 16;

impl Broker {
    /// Put a message into a session's queue.
    pub(super) fn enqueue(&mut self, slot: u32, message: u32, copy: Copy) -> Taken {
        // How many it can be sent at once: none while its socket is full.
        let room = self.online(slot).map(|(_, to)| if to.blocked { 0 } else { usize::from(to.window) });
        let (messages_max, bytes_max) = (self.settings.queue_messages_max, self.settings.queue_bytes_max);
        let (memory_full, told) = (self.messages.is_full(), self.sender_can_be_told(message));
        let session = self.sessions.get_mut(slot);
        if session.ended || (copy.qos == QoS::AtMostOnce && room.is_none()) {
            self.subscription_ids.release(copy.subscription_id);
            return Taken::Nobody;
        }
        let durable = session.durable();
        let delivery = session.delivery.get_or_insert_with(|| self.spare_deliveries.take());
        let stored = self.messages.get_mut(message);
        let bytes = stored.length() as u64;
        let count = delivery.queue.len() + delivery.in_flight.len();
        let own = count >= messages_max as usize || delivery.bytes + bytes > bytes_max;
        // What is not written stays in memory until it is sent.
        let stays = !durable || copy.qos == QoS::AtMostOnce;
        let assured = delivery.is_empty() || delivery.bytes + bytes <= limits::QUEUE_BYTES_ASSURED;
        let shard = self.statistics.queued >= self.settings.queued_messages_max
            || stays && memory_full && !assured
            || !stays && self.disk_reserve_reached && told;
        if own || shard {
            self.subscription_ids.release(copy.subscription_id);
            return Taken::Full;
        }
        delivery.bytes += bytes;
        let mut entry =
            Entry { message, owed: NO_SLOT, subscription_id: copy.subscription_id, retain: copy.retain };
        let mut urgent = false;
        if copy.qos != QoS::AtMostOnce {
            // What is queued before it goes out first: messages that came in the same turn, most of the time.
            let at_once = room.is_some_and(|room| count < room) && !delivery.overdue;
            urgent = durable && (!at_once || copy.qos == QoS::ExactlyOnce);
            let waived = !durable && delivery.overdue;
            entry.owed = u32::try_from(stored.owed.len()).expect("bounded by SESSIONS_PER_SHARD_MAX");
            stored.owed.push(Owed {
                session: slot,
                subscription_id: copy.subscription_id,
                qos: copy.qos,
                retain: copy.retain,
                group: copy.group,
                durable,
                list: Lsn::NONE,
                place: 0,
                done: false,
                waived,
            });
            stored.owing_durable += u32::from(durable);
            stored.owing_volatile += u32::from(!durable && !waived);
        }
        delivery.queue.push_back(Queued::Here(entry));
        let expires_at = stored.expires_at;
        self.messages.retain(message);
        self.statistics.queued += 1;
        self.queue_expires(slot, expires_at);
        self.make_ready(slot);
        Taken::Queued { urgent }
    }

    /// Give each session that may have something to send its turn, and another while the budget lasts: what one call
    /// sends to a client leaves in one write.
    pub(super) fn deliver_ready(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        while !budget.is_spent() {
            let Some(slot) = self.ready.pop_front() else { return false };
            // A session may have ended, and its slot gone, since it was put here.
            if !self.sessions.exists(slot) {
                continue;
            }
            self.sessions.get_mut(slot).ready = false;
            // Each turn takes from the budget, or the session waits for something else: so this ends.
            if self.deliver(slot, budget, effects) == Attempt::Progress {
                self.make_ready(slot);
            }
        }
        !self.ready.is_empty()
    }

    fn deliver(&mut self, slot: u32, budget: &mut Budget, effects: &mut impl Effects) -> Attempt {
        let mut room_before = 0_usize;
        for _ in 0..TURN_ENTRIES {
            let Some((id, connection)) = self.online(slot) else { return Attempt::Wait };
            if connection.blocked {
                return Attempt::Wait;
            }
            let room = effects.room(id);
            // What was just sent costs a copy into the kernel, too.
            budget.take_bytes(room_before.saturating_sub(room));
            room_before = room;
            if room == 0 {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.blocked = true;
                }
                return Attempt::Wait;
            }
            if !budget.take() {
                return Attempt::Progress;
            }
            let attempt = match self.deliver_one(id, slot, effects) {
                Attempt::Begun => self.deliver_one(id, slot, effects),
                attempt => attempt,
            };
            if attempt == Attempt::Wait {
                return Attempt::Wait;
            }
        }
        Attempt::Progress
    }

    /// Send the next thing due to a session.
    fn deliver_one(&mut self, id: ConnectionId, slot: u32, effects: &mut impl Effects) -> Attempt {
        let window = usize::from(self.connections.get(id).map_or(0, |connection| connection.window));
        let Some(delivery) = self.sessions.get_mut(slot).delivery.as_deref_mut() else {
            return Attempt::Wait;
        };
        let unsent = delivery.in_flight.get(delivery.cursor).copied();
        match unsent {
            // The client came back with a smaller receive maximum than it had; PUBREL does not count [MQTT-4.9.0-2].
            Some(InFlight { phase: Phase::Sendable | Phase::Sent, .. }) if delivery.cursor >= window => {
                return Attempt::Wait;
            }
            // It waits for the disk. Those behind it in the queue get theirs meanwhile, so that one
            // sync serves a window of deliveries and not one.
            None | Some(InFlight { phase: Phase::Reserved, .. }) => {}
            Some(in_flight) => return self.send_in_flight(id, slot, in_flight, effects),
        }
        let Some(front) = delivery.queue.front() else {
            if delivery.is_empty() && delivery.skip_noted <= self.durable {
                self.forget_left(slot, |_| true);
                if let Some(delivery) = self.sessions.get_mut(slot).delivery.take() {
                    self.spare_deliveries.put(delivery);
                }
            }
            return Attempt::Wait;
        };
        let entry = match front {
            Queued::Here(entry) => entry,
            Queued::Stored(_) if delivery_is_full(delivery, window) => return Attempt::Wait,
            Queued::Stored(stored) => self.bring_in_front(slot, stored),
        };
        let qos = self.entry_qos(entry);
        if qos == QoS::AtMostOnce && unsent.is_some() {
            // It would overtake what waits for the disk.
            return Attempt::Wait;
        }
        if qos != QoS::AtMostOnce && delivery_is_full(self.sessions.get_mut(slot).delivery(), window) {
            return Attempt::Wait;
        }
        let message = self.messages.get(entry.message);
        if message.expires_at <= self.now.wall {
            self.pop_queue(slot);
            self.statistics.expired += 1;
            self.entry_done(slot, entry, Gone::Noted, effects);
            return Attempt::Progress;
        }
        if qos == QoS::AtMostOnce {
            return match self.send_publish(id, slot, entry, None, false, effects) {
                Attempted::Fetching => Attempt::Wait,
                Attempted::Sent | Attempted::Withheld => {
                    self.pop_queue(slot);
                    self.entry_done(slot, entry, Gone::Noted, effects);
                    Attempt::Progress
                }
            };
        }
        self.start_flight(slot, entry, qos, effects)
    }

    /// Give the front of the queue a packet id.
    fn start_flight(&mut self, slot: u32, entry: Entry, qos: QoS, effects: &mut impl Effects) -> Attempt {
        let durable = self.sessions.get(slot).durable();
        let message = self.messages.get(entry.message);
        let Owed { list, place, .. } = message.owed.as_slice()[entry.owed as usize];
        if qos == QoS::ExactlyOnce && durable && !list.is_some() {
            if message.placed {
                // Placed without urgency cannot be: QoS 2 to a durable session is always written at once.
                self.record(entry.message, effects);
            }
            return Attempt::Progress;
        }
        self.pop_queue(slot);
        let session = self.sessions.get_mut(slot);
        let key = session.key;
        let delivery = session.delivery();
        let packet_id = delivery.next_packet_id();
        let exactly_once = qos == QoS::ExactlyOnce && durable;
        let reserved = exactly_once || delivery.skip_noted > self.durable;
        let phase = if reserved { Phase::Reserved } else { Phase::Sendable };
        let (begun, received) = (Lsn::NONE, Lsn::NONE);
        delivery.in_flight.push_back(InFlight { entry, packet_id, phase, begun, received });
        if exactly_once {
            let begun = self.append(Record::DeliveryBegun { list, place, packet_id }, effects);
            self.live.add(begun, 0);
            let in_flight = &mut self.sessions.get_mut(slot).delivery().in_flight;
            in_flight.back_mut().expect("just put there").begun = begun;
        }
        if reserved {
            let waiter = super::await_durable::Waiter::Reserved { slot, key, packet_id };
            self.awaiting.push(self.lsn, waiter);
            return Attempt::Progress;
        }
        Attempt::Begun
    }

    /// Send what is in flight at the cursor, and move the cursor over it.
    fn send_in_flight(
        &mut self,
        id: ConnectionId,
        slot: u32,
        in_flight: InFlight,
        effects: &mut impl Effects,
    ) -> Attempt {
        match in_flight.phase {
            Phase::Reserved => unreachable!("what waits for the disk is not sent"),
            Phase::Receiving => {}
            Phase::Released => {
                self.send_ack(id, AckKind::Pubrel, in_flight.packet_id, ReasonCode::Success, effects);
            }
            Phase::Sendable | Phase::Sent => {
                let dup = in_flight.phase == Phase::Sent;
                match self.send_publish(id, slot, in_flight.entry, Some(in_flight.packet_id), dup, effects) {
                    Attempted::Fetching => return Attempt::Wait,
                    Attempted::Withheld => {
                        self.finish_flight(slot, in_flight.packet_id, effects);
                        return Attempt::Progress;
                    }
                    Attempted::Sent => {}
                }
            }
        }
        let delivery = self.sessions.get_mut(slot).delivery();
        let cursor = delivery.cursor;
        if in_flight.phase == Phase::Sendable {
            delivery.in_flight[cursor].phase = Phase::Sent;
        }
        delivery.cursor += 1;
        Attempt::Progress
    }

    /// A delivery is over: take it out of flight and settle its part of the message.
    pub(super) fn finish_flight(&mut self, slot: u32, packet_id: PacketId, effects: &mut impl Effects) {
        let delivery = self.sessions.get_mut(slot).delivery();
        let Some(index) = delivery.find(packet_id) else { return };
        let Some(in_flight) = delivery.in_flight.remove(index) else { return };
        if index < delivery.cursor {
            delivery.cursor -= 1;
        }
        Broker::flight_records(&in_flight).for_each(|need| self.need_is_gone(need));
        self.entry_done(slot, in_flight.entry, Gone::Noted, effects);
        self.make_ready(slot);
    }

    fn pop_queue(&mut self, slot: u32) {
        let delivery = self.sessions.get_mut(slot).delivery();
        delivery.queue.pop_front().expect("the entry at the front is being sent");
        if delivery.pulls_wait {
            self.queue_shrank(slot);
        }
    }

    /// The QoS an entry is delivered at.
    pub(super) fn entry_qos(&self, entry: Entry) -> QoS {
        if entry.owed == NO_SLOT {
            return QoS::AtMostOnce;
        }
        self.messages.get(entry.message).owed.as_slice()[entry.owed as usize].qos
    }

    /// An entry has left its session's queue for good.
    pub(super) fn entry_done(&mut self, slot: u32, entry: Entry, gone: Gone, effects: &mut impl Effects) {
        self.statistics.queued -= 1;
        self.subscription_ids.release(entry.subscription_id);
        let session = self.sessions.get_mut(slot);
        let key = session.key;
        let bytes = self.messages.get(entry.message).length() as u64;
        session.delivery().bytes -= bytes;
        if entry.owed != NO_SLOT {
            let message = self.messages.get_mut(entry.message);
            let body = message.lsn;
            let owed = &mut message.owed.as_mut_slice()[entry.owed as usize];
            assert!(!owed.done, "an entry leaves its queue once");
            owed.done = true;
            owed.subscription_id = 0;
            let Owed { durable, list, place, waived, .. } = *owed;
            if durable && !message.covered {
                message.owing_durable -= 1;
            } else if !durable && !waived && !message.forgiven {
                message.owing_volatile -= 1;
            }
            match gone {
                Gone::Noted if list.is_some() => {
                    let _ = self.append(Record::DeliveryDone { list, place }, effects);
                    self.live.recipient_gone(list, place);
                }
                Gone::WithSession if list.is_some() => {
                    self.recipient_dies_with_session(key, body, list, place);
                }
                Gone::Noted | Gone::WithSession => {}
            }
            self.try_settle(entry.message, effects);
        }
        self.release_message(entry.message);
    }

    /// QoS 0 entries do not outlive the connection they were queued for.
    pub(super) fn drop_unacknowledgeable(&mut self, slot: u32) {
        let Some(delivery) = self.sessions.get_mut(slot).delivery.as_deref_mut() else { return };
        let mut dropped: Vec<Entry> = Vec::new();
        delivery.queue.retain(|queued| match queued {
            Queued::Here(entry) if entry.owed == NO_SLOT => {
                dropped.push(*entry);
                false
            }
            Queued::Here(_) | Queued::Stored(_) => true,
        });
        for entry in dropped {
            self.statistics.queued -= 1;
            self.subscription_ids.release(entry.subscription_id);
            let bytes = self.messages.get(entry.message).length() as u64;
            self.sessions.get_mut(slot).delivery().bytes -= bytes;
            self.release_message(entry.message);
        }
        self.queue_shrank(slot);
    }
}

fn delivery_is_full(delivery: &super::session::Delivery, window: usize) -> bool {
    delivery.in_flight.len() >= window
}
