//! When the sender of a message is answered: the acknowledgement rule.
//!
//! Settled means: every recipient with QoS above 0 has acknowledged it, or holds it durably, or (a session that does
//! not outlive its connection) has had it for `hold`. If a durable recipient cannot be expected to acknowledge at
//! once, the record joins the next commit immediately; else it waits up to `hold` and, acknowledged in time, is never
//! written. Invariant I1 is the condition in `try_settle`, and nothing else answers a sender.

use super::effect::{Effect, Effects};
use super::messages::{MessageId, Owed, Sender};
use super::route::MeshMessage;
use super::{Broker, Budget};
use crate::ids::{Lsn, OriginKey};
use crate::record::{Recipient, Record};
use crate::time::Nanos;
use crate::wire::QoS;

/// A message that waits for acknowledgements in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) until: Nanos,
    pub(super) message: MessageId,
}

impl Broker {
    /// Every recipient here is known. `urgent`: one of them needs the record now.
    pub(super) fn placed(&mut self, slot: u32, urgent: bool, effects: &mut impl Effects) {
        let hold_ms = self.settings.hold_ms;
        let message = self.messages.get_mut(slot);
        message.placed = true;
        let (durable, volatile) = (message.owing_durable > 0, message.owing_volatile > 0);
        if durable && (urgent || hold_ms == 0) {
            self.record(slot, effects);
        }
        if durable || volatile {
            let until = self.now.mono.plus_ms(u64::from(hold_ms));
            self.held.push_back(Held { until, message: self.messages.id(slot) });
        }
        self.answer_placed(slot, effects);
        self.try_settle(slot, effects);
        self.release_message(slot);
    }

    /// Write down who still has to get the message. Replay rebuilds a queue in the order of the records, so what stands
    /// before it in some queue and was only held so far is written first.
    pub(super) fn record(&mut self, slot: u32, effects: &mut impl Effects) {
        let mut behind: Vec<u32> = Vec::new();
        let mut first = slot;
        loop {
            if let Some(ahead) = self.unwritten_ahead(first, &behind) {
                behind.push(std::mem::replace(&mut first, ahead));
                continue;
            }
            self.write_record(first, effects);
            match behind.pop() {
                Some(next) => first = next,
                None => return,
            }
        }
    }

    /// A message ahead of that one in the queue of one of its recipients, which no record lists there yet. Those of
    /// `behind` wait for this one themselves: an entry that was handed on from a session that ended stands in another
    /// order in the queue it came to.
    fn unwritten_ahead(&self, slot: u32, behind: &[u32]) -> Option<u32> {
        let to_write = |owed: &&Owed| owed.durable && !owed.done && !owed.recorded;
        for owed in self.messages.get(slot).owed.as_slice().iter().filter(to_write) {
            let Some(delivery) = self.sessions.get(owed.session).delivery.as_deref() else { continue };
            // Nearly always it is the only one.
            if delivery.unwritten < 2 {
                continue;
            }
            let in_flight = delivery.in_flight.iter().map(|in_flight| in_flight.entry);
            let queue = in_flight.chain(delivery.queue.iter().copied());
            for entry in queue.take_while(|entry| entry.message != slot) {
                let is_unwritten = self
                    .messages
                    .get(entry.message)
                    .owed
                    .as_slice()
                    .get(entry.owed as usize)
                    .is_some_and(|owed| to_write(&owed));
                if is_unwritten && !behind.contains(&entry.message) {
                    return Some(entry.message);
                }
            }
        }
        None
    }

    fn write_record(&mut self, slot: u32, effects: &mut impl Effects) {
        let mut recipients: Vec<Recipient> = Vec::new();
        let message = self.messages.get_mut(slot);
        for owed in message.owed.as_mut_slice() {
            if !owed.durable || owed.done || owed.recorded {
                continue;
            }
            owed.recorded = true;
            let session = self.sessions.get_mut(owed.session);
            session.delivery().unwritten -= 1;
            let session = session.key;
            let ids = self.subscription_ids.resolve(&owed.subscription_id);
            let first = ids.first().copied().unwrap_or(0);
            let recipient = Recipient {
                session,
                qos: owed.qos,
                retain: owed.retain,
                shared: owed.shared,
                subscription_id: first,
                more: false,
            };
            recipients.push(recipient);
            recipients.extend(ids.iter().skip(1).map(|id| Recipient {
                subscription_id: *id,
                more: true,
                ..recipient
            }));
        }
        // A key of this shard counts too: if the topic's owner is another shard, the message came back from there, and
        // this copy is not the inbound message whose own record is the key.
        let inbound = OriginKey { shard: self.shard, lsn: message.lsn };
        let origin = message.origin.filter(|origin| *origin != inbound);
        self.lsn = self.lsn.next();
        let lsn = self.lsn;
        if message.lsn.is_some() {
            let record = Record::Deliver { message: message.lsn, recipients: (&*recipients).into() };
            effects.perform(Effect::Append { lsn, record });
        } else {
            message.lsn = lsn;
            self.live.add(lsn);
            let message = self.messages.get(slot);
            let body = message.body().expect("a body leaves memory only once it is on disk");
            let record = Record::Message { body, origin, recipients: (&*recipients).into() };
            effects.perform(Effect::Append { lsn, record });
        }
        self.origins.recorded(origin, lsn, &mut self.live);
        self.statistics.recorded += 1;
        self.awaiting.push(lsn, super::await_durable::Waiter::Covered { message: self.messages.id(slot) });
    }

    /// The record with the recipients is durable.
    pub(super) fn covered(&mut self, id: MessageId, effects: &mut impl Effects) {
        let Some(message) = self.messages.find(id) else { return };
        message.covered = true;
        message.owing_durable = 0;
        if !message.pinned {
            self.messages.make_evictable(id.slot);
        }
        self.try_settle(id.slot, effects);
    }

    /// `hold` is over for the oldest messages.
    pub(super) fn release_held(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        while let Some(held) = self.held.front().copied() {
            if held.until > self.now.mono {
                return false;
            }
            if !budget.take() {
                return true;
            }
            self.held.pop_front();
            let Some(message) = self.messages.find(held.message) else { continue };
            if message.settled {
                continue;
            }
            message.forgiven = true;
            message.owing_volatile = 0;
            let unwritten = |owed: &Owed| owed.durable && !owed.done && !owed.recorded;
            if message.owed.as_slice().iter().any(unwritten) {
                self.record(held.message.slot, effects);
            }
            self.try_settle(held.message.slot, effects);
        }
        false
    }

    /// Answer the sender if nothing is owed any more.
    pub(super) fn try_settle(&mut self, slot: u32, effects: &mut impl Effects) {
        let message = self.messages.get_mut(slot);
        let owed = message.owing_durable > 0 || message.owing_volatile > 0 || !message.placed;
        let elsewhere = message.remote.unplaced > 0 || message.remote.unsettled > 0;
        if owed || elsewhere || message.settled {
            return;
        }
        message.settled = true;
        let (sender, lsn, qos) = (message.sender, message.lsn, message.qos);
        match sender {
            Sender::Nobody => {}
            Sender::Client { connection, sequence } => {
                let reason = self.outcome(slot);
                self.statistics.answered += 1;
                self.acknowledgement_ready(connection, sequence, reason, effects);
            }
            Sender::Shard { shard, token } if qos != QoS::AtMostOnce => {
                effects.perform(Effect::Mesh { to: shard, message: MeshMessage::Settled { token } });
            }
            Sender::Shard { .. } => {}
            Sender::Inbound => self.inbound_settled(lsn, effects),
            Sender::Will { key } => self.will_gone(key, effects),
            Sender::Departed { key } => self.departed_settled(key, effects),
        }
        if std::mem::take(&mut self.messages.get_mut(slot).travelling) {
            self.release_message(slot);
        }
    }

    /// A reference less; the last one frees what the message held.
    pub(super) fn release_message(&mut self, slot: u32) {
        if let Some(message) = self.messages.release(slot)
            && message.lsn.is_some()
        {
            self.live.remove(message.lsn);
        }
    }

    /// Make the message the retained one of its topic, or clear it; part of what its sender waits for.
    pub(super) fn retain_message(&mut self, slot: u32, effects: &mut impl Effects) {
        let message = self.messages.get(slot);
        let Some(body) = message.body() else { return };
        let (topic, empty, bytes): (Box<str>, bool, usize) =
            (body.topic.into(), body.payload.is_empty(), message.length());
        let durable = !topic.starts_with("$SYS");
        if empty {
            if let Some(held) = self.retained.clear(&topic) {
                self.unpin(held.message);
                if durable {
                    self.lsn = self.lsn.next();
                    let record = Record::RetainedCleared { topic: &topic };
                    effects.perform(Effect::Append { lsn: self.lsn, record });
                    self.cover_retained(slot, self.lsn);
                }
            }
            return;
        }
        if self.retained_is_full(&topic, bytes) {
            self.messages.get_mut(slot).refused += 1;
            self.statistics.refused += 1;
            return;
        }
        self.messages.retain(slot);
        self.messages.get_mut(slot).pinned = true;
        let bytes = u32::try_from(bytes).expect("a packet's length fits 32 bits");
        if let Some(old) = self.retained.set(&topic, super::retained::Held { message: slot, bytes }) {
            self.unpin(old.message);
        }
        if durable {
            if !self.messages.get(slot).lsn.is_some() {
                self.record_body(slot, effects);
            }
            let message = self.messages.get(slot).lsn;
            let lsn = self.append(Record::Retained { message }, effects);
            self.cover_retained(slot, lsn);
        }
    }

    /// The message is no longer the retained one of its topic.
    fn unpin(&mut self, slot: u32) {
        let message = self.messages.get_mut(slot);
        message.pinned = false;
        if message.lsn.is_some() && message.lsn <= self.durable {
            self.messages.make_evictable(slot);
        }
        self.release_message(slot);
    }

    fn retained_is_full(&self, topic: &str, bytes: usize) -> bool {
        let held = self.retained.get(topic).map_or(0, |held| u64::from(held.bytes));
        let new = held == 0;
        (new && self.retained.len() >= crate::limits::RETAINED_MESSAGES_MAX)
            || self.retained.bytes() - held + bytes as u64 > crate::limits::RETAINED_BYTES_MAX
    }

    /// Write the body with no recipients yet: they follow as `Deliver`.
    fn record_body(&mut self, slot: u32, effects: &mut impl Effects) {
        self.lsn = self.lsn.next();
        let lsn = self.lsn;
        let message = self.messages.get_mut(slot);
        message.lsn = lsn;
        let message = self.messages.get(slot);
        let body = message.body().expect("a body leaves memory only once it is on disk");
        let record = Record::Message { body, origin: message.origin, recipients: (&[][..]).into() };
        effects.perform(Effect::Append { lsn, record });
        self.live.add(lsn);
    }

    /// The sender also waits for the retained table to be durable.
    fn cover_retained(&mut self, slot: u32, lsn: Lsn) {
        let message = self.messages.get_mut(slot);
        if message.qos == QoS::AtMostOnce {
            return;
        }
        message.remote.unsettled += 1;
        let message = self.messages.id(slot);
        self.messages.retain(slot);
        self.awaiting.push(lsn, super::await_durable::Waiter::Retained { message });
    }

    /// The retained table is durable.
    pub(super) fn retained_durable(&mut self, id: MessageId, effects: &mut impl Effects) {
        self.messages.get_mut(id.slot).remote.unsettled -= 1;
        self.try_settle(id.slot, effects);
        self.release_message(id.slot);
    }
}
