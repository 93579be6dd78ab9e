//! When the sender of a message is answered: the acknowledgement rule.
//!
//! Settled means: every recipient with QoS above 0 has acknowledged it, or holds it durably, or (a session that does
//! not outlive its connection) has had it for `hold`. If a durable recipient cannot be expected to acknowledge at
//! once, the record joins the next commit immediately, and with it what waits of the same publisher and topic
//! (`unwritten.rs`); else it waits up to `hold` and, acknowledged in time, is never written. Invariant I1 is the
//! condition in `try_settle`, and nothing else answers a sender.
//!
//! **Who does not answer is waited for once.** A session that lets a `hold` pass is *overdue* until it acknowledges
//! something. What comes for it meanwhile is written at once if it is durable, and else not waited for: one subscriber that
//! has stopped reading would make every sender of what it subscribed to wait out `hold` with every message. One that is
//! slow and goes on acknowledging still holds its senders back, as it should.

use super::effect::{Effect, Effects};
use super::messages::{Message, MessageId, Owed, Sender};
use super::postponed::Settlement;
use super::route::MeshMessage;
use super::unwritten::Line;
use super::{Broker, Budget};
use crate::ids::Lsn;
use crate::record::{Recipient, Recipients, Record};
use crate::time::Nanos;
use crate::wire::QoS;

/// A message that waits for acknowledgements in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) until: Nanos,
    pub(super) message: MessageId,
    /// Where `unwritten` has it; `None` if it is written.
    line: Option<Line>,
}

/// Recipients looked at in one unit of work.
const RECIPIENTS_PER_UNIT: u32 = 32;

impl Broker {
    /// Every recipient here is known. `urgent`: one of them needs the record now. `noted`: that ordinary subscribers have what
    /// is theirs has to be on record, whoever took it.
    pub(super) fn placed(&mut self, slot: u32, urgent: bool, noted: bool, effects: &mut impl Effects) {
        let hold_ms = self.settings.hold_ms;
        let message = self.messages.get_mut(slot);
        message.placed = true;
        let (durable, volatile) = (message.owing_durable > 0, message.owing_volatile > 0);
        // What has a key may come again after a crash, when an acknowledgement in memory would be forgotten.
        let urgent = urgent || noted || message.origin.is_some();
        let says_so = |owed: &Owed| owed.durable && !owed.done && owed.group.is_none();
        if noted && !message.owed.as_slice().iter().any(says_so) {
            self.note_placed(slot, effects);
        }
        let mut line = None;
        if durable {
            let own = Line::of(self.messages.get(slot), &self.settings.hash_key);
            if urgent || hold_ms == 0 {
                self.record_line(own, effects);
                self.record(slot, effects);
            } else {
                self.unwritten.push(own, self.messages.id(slot));
                line = Some(own);
            }
        }
        if durable || volatile {
            let until = self.now.mono.plus_ms(u64::from(hold_ms));
            self.held.push_back(Held { until, message: self.messages.id(slot), line });
        }
        self.answer_placed(slot, effects);
        self.try_settle(slot, effects);
        self.has_travelled(slot);
        self.release_message(slot);
    }

    /// The body of an inbound message stays in memory on its way; from here on it may be read back.
    pub(super) fn has_travelled(&mut self, slot: u32) {
        let message = self.messages.get(slot);
        if message.sender == Sender::Inbound && message.lsn <= self.durable && !message.is_pinned() {
            self.messages.make_evictable(slot);
        }
    }

    /// Write down everything of that publisher and topic that waits in memory. No more than the publisher may have
    /// unacknowledged (`RECEIVE_MAXIMUM`).
    fn record_line(&mut self, line: Line, effects: &mut impl Effects) {
        for id in self.unwritten.take(line) {
            if self.messages.find(id).is_some_and(|message| message.is_unwritten()) {
                self.record(id.slot, effects);
            }
        }
    }

    /// Write it down that was to wait in memory.
    pub(super) fn record_at_once(&mut self, slot: u32, effects: &mut impl Effects) {
        self.record_line(Line::of(self.messages.get(slot), &self.settings.hash_key), effects);
        if self.messages.get(slot).is_unwritten() {
            self.record(slot, effects);
        }
    }

    /// Write down who still has to get the message.
    pub(super) fn record(&mut self, slot: u32, effects: &mut impl Effects) {
        self.lsn = self.lsn.next();
        let list = self.lsn;
        let (mut recipients, mut listed): (Vec<Recipient>, u32) = (Vec::new(), 0);
        let message = self.messages.get_mut(slot);
        for owed in message.owed.as_mut_slice() {
            if !owed.durable || owed.done || owed.list.is_some() {
                continue;
            }
            (owed.list, owed.place) = (list, listed);
            listed += 1;
            let session = self.sessions.get(owed.session).key;
            let ids = self.subscription_ids.resolve(&owed.subscription_id);
            let first = ids.first().copied().unwrap_or(0);
            let recipient = Recipient {
                session,
                qos: owed.qos,
                retain: owed.retain,
                shared: owed.group.is_some(),
                group: owed.group.unwrap_or(0),
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
        let recipients = (&*recipients).into();
        let record = if message.lsn.is_some() {
            Record::Deliver { message: message.lsn, recipients }
        } else {
            message.lsn = list;
            self.live.add(list, message.length());
            let origin = message.key_to_note(self.shard);
            let body = message.body().expect("a body leaves memory only once it is on disk");
            Record::Message { body, origin, recipients }
        };
        effects.perform(Effect::Append { lsn: list, record });
        if listed > 0 {
            self.live.add_listed(list, 0, listed);
        }
        self.origins.recorded(message.origin, message.lsn, list, &mut self.live);
        self.statistics.recorded += 1;
        let message = self.messages.id(slot);
        self.awaiting.push(list, super::await_durable::Waiter::Covered { message });
    }

    /// The record with the recipients is durable.
    pub(super) fn covered(&mut self, id: MessageId, effects: &mut impl Effects) {
        let Some(message) = self.messages.find(id) else { return };
        message.covered = true;
        message.owing_durable = 0;
        if !message.is_pinned() {
            self.messages.make_evictable(id.slot);
        }
        self.messages.retain(id.slot);
        self.try_settle(id.slot, effects);
        for index in 0..self.messages.get(id.slot).owed.len() {
            let owed = self.messages.get(id.slot).owed.as_slice()[index];
            if owed.durable && !owed.done {
                self.may_be_stored(owed.session);
            }
        }
        self.release_message(id.slot);
    }

    /// `hold` is over for the oldest messages: its time has come, or nobody waits for it any more. Who was answered in time
    /// leaves at once, or each message would wake the shard once more when its time comes.
    pub(super) fn release_held(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        while let Some(held) = self.held.front().copied() {
            let waits = self.messages.find(held.message).is_some_and(|message| !message.settled);
            if waits && held.until > self.now.mono {
                return false;
            }
            if !budget.take() {
                return true;
            }
            self.held.pop_front();
            if let Some(line) = held.line {
                self.unwritten.forget(line, held.message);
            }
            let Some(message) = self.messages.find(held.message).filter(|_| waits) else { continue };
            message.forgiven = true;
            message.owing_volatile = 0;
            let is_unwritten = message.is_unwritten();
            let recipients = self.note_overdue(held.message.slot);
            // Once for each message; but a wide fan-out is a lot to look through.
            let _ = budget.take_many(recipients / RECIPIENTS_PER_UNIT);
            if is_unwritten {
                self.record(held.message.slot, effects);
            }
            self.try_settle(held.message.slot, effects);
        }
        false
    }

    /// Who still owes for a message whose `hold` is over has not acknowledged in time, and is not waited for until it does.
    /// How many recipients the message has.
    fn note_overdue(&mut self, slot: u32) -> u32 {
        let owed = self.messages.get(slot).owed.as_slice();
        for one in owed.iter().filter(|one| !one.done) {
            if let Some(delivery) = self.sessions.get_mut(one.session).delivery.as_deref_mut() {
                delivery.overdue = true;
            }
        }
        u32::try_from(owed.len()).expect("bounded by SESSIONS_PER_SHARD_MAX")
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
            Sender::Shard { shard, token } | Sender::Owner { shard, token } if qos != QoS::AtMostOnce => {
                effects.perform(Effect::Mesh { to: shard, message: MeshMessage::Settled { token } });
            }
            Sender::Shard { .. } | Sender::Owner { .. } => {}
            Sender::Inbound => self.settlement(Settlement::Inbound(lsn), effects),
            Sender::Will { key } => {
                let message = self.messages.id(slot);
                self.settlement(Settlement::Will(key, message), effects);
            }
            Sender::Again { token } => self.remote_settled(token, effects),
            Sender::Departed { key } => self.settlement(Settlement::Departed(key), effects),
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

    /// Make the message the retained one of its topic, or clear it; part of what its sender waits for. False: there is
    /// no room for it.
    pub(super) fn retain_message(&mut self, slot: u32, effects: &mut impl Effects) -> bool {
        let message = self.messages.get(slot);
        let Some(body) = message.body() else { return true };
        let (topic, empty, bytes): (Box<str>, bool, usize) =
            (body.topic.into(), body.payload.is_empty(), message.length());
        let durable = !topic.starts_with("$SYS");
        // Routed again after a crash, it would replace what was retained after it was accepted.
        let accepted = message.lsn;
        let is_older = |held: super::retained::Held| {
            self.messages.get(held.message).lsn > accepted && self.origins.is_routing(accepted)
        };
        if self.retained.get(&topic).is_some_and(is_older) {
            return true;
        }
        if empty {
            if let Some(held) = self.retained.clear(&topic) {
                self.unpin(held, None);
                if durable {
                    self.lsn = self.lsn.next();
                    let record = Record::RetainedCleared { topic: &topic };
                    effects.perform(Effect::Append { lsn: self.lsn, record });
                    self.cover_table(slot, self.lsn);
                }
            }
            return true;
        }
        if self.retained_is_full(&topic, bytes) || durable && self.disk_reserve_reached {
            self.statistics.refused += 1;
            if self.sender_can_be_told(slot) {
                self.messages.get_mut(slot).refused += 1;
            }
            return false;
        }
        self.messages.retain(slot);
        self.messages.pin(slot, true);
        let bytes = u32::try_from(bytes).expect("a packet's length fits 32 bits");
        let number = self.retained.next_number();
        let mut record = Lsn::NONE;
        if durable {
            if !self.messages.get(slot).lsn.is_some() {
                self.record_body(slot, effects);
            }
            let message = self.messages.get(slot).lsn;
            record = self.append(Record::Retained { message }, effects);
            self.live.add(record, 0);
            self.cover_table(slot, record);
        }
        let expires_at = self.messages.get(slot).expires_at;
        let held = super::retained::Held { message: slot, bytes, number, record, expires_at };
        if let Some(old) = self.retained.set(&topic, held) {
            self.unpin(old, Some(slot));
        }
        self.retained_may_expire();
        true
    }

    /// Something else is the retained message of its topic, or nothing; or that is so by another record.
    pub(super) fn unpin(&mut self, held: super::retained::Held, by: Option<u32>) {
        let slot = held.message;
        if held.record.is_some() {
            self.live.remove(held.record);
        }
        if by != Some(slot) {
            self.messages.pin(slot, false);
            let message = self.messages.get(slot);
            if message.lsn.is_some() && message.lsn <= self.durable && message.placed {
                self.messages.make_evictable(slot);
            }
        }
        self.release_message(slot);
    }

    fn retained_is_full(&self, topic: &str, bytes: usize) -> bool {
        let held = self.retained.get(topic).map_or(0, |held| u64::from(held.bytes));
        let new = held == 0;
        (new && self.retained.len() >= self.settings.retained_messages_max)
            || self.retained.bytes() - held + bytes as u64 > self.settings.retained_bytes_max
    }

    /// Write a list with nobody on it.
    fn note_placed(&mut self, slot: u32, effects: &mut impl Effects) {
        if !self.messages.get(slot).lsn.is_some() {
            self.record_body(slot, effects);
        }
        let Message { lsn: message, origin, .. } = *self.messages.get(slot);
        let list = self.append(Record::Deliver { message, recipients: Recipients::EMPTY }, effects);
        self.origins.recorded(origin, message, list, &mut self.live);
    }

    /// Write the body with no recipients yet: they follow as `Deliver`, and with them it counts as placed.
    fn record_body(&mut self, slot: u32, effects: &mut impl Effects) {
        self.lsn = self.lsn.next();
        let lsn = self.lsn;
        let message = self.messages.get_mut(slot);
        message.lsn = lsn;
        let message = self.messages.get(slot);
        let origin = message.key_to_note(self.shard);
        let body = message.body().expect("a body leaves memory only once it is on disk");
        let record = Record::Message { body, origin, recipients: Recipients::EMPTY };
        effects.perform(Effect::Append { lsn, record });
        self.live.add(lsn, message.length());
    }

    /// The sender also waits for what the message changed in a table (the retained message of its topic, a session's
    /// gap) to be durable.
    pub(super) fn cover_table(&mut self, slot: u32, lsn: Lsn) {
        let message = self.messages.get_mut(slot);
        if message.qos == QoS::AtMostOnce {
            return;
        }
        message.remote.unsettled += 1;
        let message = self.messages.id(slot);
        self.messages.retain(slot);
        self.awaiting.push(lsn, super::await_durable::Waiter::Table { message });
    }

    /// The change of the table is durable.
    pub(super) fn table_durable(&mut self, id: MessageId, effects: &mut impl Effects) {
        self.messages.get_mut(id.slot).remote.unsettled -= 1;
        self.try_settle(id.slot, effects);
        self.release_message(id.slot);
    }
}
