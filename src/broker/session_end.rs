//! The end of a session: at once nobody finds it; its subscriptions and its queue are cleared a few per call.
//!
//! Entries of shared subscriptions go to another member first `[MQTT-4.8.2-6]`; the record that ends the session is
//! written when they have arrived, so a crash in between only repeats the end.

use super::Broker;
use super::Budget;
use super::effect::Effects;
use super::messages::Sender;
use super::place::{Scope, Task};
use super::session::{Entry, NO_SLOT, Phase};
use super::timers::Due;
use crate::ids::{Lsn, SessionKey};
use crate::record::Record;
use crate::time::{Nanos, UnixMs};
use crate::wire::{QoS, topic};

/// An ended session whose queue is not cleared yet.
#[derive(Debug)]
pub(super) struct Ending {
    slot: u32,
    /// Its shared subscriptions.
    groups: Vec<Box<str>>,
}

impl Broker {
    /// End a session. The result is the record that says so, `NONE` if there is nothing to wait for.
    pub(super) fn end_session(&mut self, slot: u32, effects: &mut impl Effects) -> Lsn {
        let now = self.now.wall;
        let session = self.sessions.get_mut(slot);
        assert!(session.connection == NO_SLOT, "a session ends after its connection");
        session.ends_at = Nanos::NEVER;
        let (key, record, will) = (session.key, session.record, session.will.take());
        if let Some(will) = will {
            self.will_pending(key, *will, now, record);
        } else if let Some(pending) = self.wills.get_mut(&key) {
            // The session's end does not wait for the rest of the delay [MQTT-3.1.3-9].
            pending.due = pending.due.min(now);
            self.timers.set(self.now.mono, Due::Will { key });
        }
        let groups = self.drop_subscriptions(slot, effects);
        self.sessions.end(slot);
        let moves = !groups.is_empty() && self.sessions.get(slot).delivery.is_some();
        self.ending.push_back(Ending { slot, groups });
        if !record.is_some() {
            return Lsn::NONE;
        }
        self.live.remove(record);
        if moves {
            self.departing.insert(key, 1);
            return Lsn::NONE;
        }
        self.write_end(key, effects)
    }

    fn write_end(&mut self, key: SessionKey, effects: &mut impl Effects) -> Lsn {
        let will_due = self.wills.get(&key).map_or(UnixMs::NEVER, |pending| pending.due);
        self.append(Record::SessionEnded { key, will_due }, effects)
    }

    /// Unsubscribe from everything; the result names the shared ones.
    fn drop_subscriptions(&mut self, slot: u32, effects: &mut impl Effects) -> Vec<Box<str>> {
        let mut groups = Vec::new();
        while let Some(subscription) = self.sessions.get_mut(slot).subscriptions.pop() {
            let text: Box<str> = self.subscriptions.text(subscription.filter).into();
            self.forget_subscription(slot, subscription, &text, effects);
            if topic::split_shared(&text).is_some() {
                groups.push(text);
            }
        }
        groups
    }

    /// Go on clearing.
    pub(super) fn end_sessions(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        while let Some(ending) = self.ending.front() {
            let slot = ending.slot;
            if !budget.take() {
                return true;
            }
            let Some(entry) = self.last_entry(slot) else {
                self.finish_ending(slot, effects);
                continue;
            };
            if !self.depart(slot, entry, effects) {
                // Its body is being read back.
                return false;
            }
        }
        false
    }

    /// The next entry to clear: the queue from its front, then what was in flight.
    fn last_entry(&self, slot: u32) -> Option<Entry> {
        let delivery = self.sessions.get(slot).delivery.as_deref()?;
        let in_flight = delivery.in_flight.front().map(|in_flight| in_flight.entry);
        in_flight.or_else(|| delivery.queue.front().copied())
    }

    /// Clear one entry, handing it on if it came through a shared subscription. False: come back later.
    fn depart(&mut self, slot: u32, entry: Entry, effects: &mut impl Effects) -> bool {
        let shared = entry.owed != NO_SLOT
            && self.messages.get(entry.message).owed.as_slice()[entry.owed as usize].shared;
        // A QoS 2 delivery that was begun ends with the session [MQTT-4.8.2-5].
        let begun = self.entry_qos(entry) == QoS::ExactlyOnce
            && self
                .sessions
                .get(slot)
                .delivery
                .as_deref()
                .and_then(|delivery| delivery.in_flight.front())
                .is_some_and(|front| !matches!(front.phase, Phase::Reserved | Phase::Sendable));
        if shared && !begun {
            if self.messages.get(entry.message).bytes.is_none() {
                self.fetch(entry.message, None, effects);
                return false;
            }
            self.hand_on(slot, entry.message);
        }
        let delivery = self.sessions.get_mut(slot).delivery();
        if delivery.in_flight.pop_front().is_none() {
            delivery.queue.pop_front();
        }
        self.entry_done(slot, entry, false, effects);
        true
    }

    /// Give a copy to another member of the shared subscription it came through.
    fn hand_on(&mut self, slot: u32, message: u32) {
        let key = self.sessions.get(slot).key;
        let Some(body) = self.messages.get(message).body() else { return };
        let groups = self.ending.front().map_or(&[][..], |ending| &ending.groups);
        let matches = |text: &str| {
            topic::split_shared(text).is_some_and(|(_, filter)| topic::matches(filter, body.topic))
        };
        let Some(group) = groups.iter().find(|text| matches(text)).cloned() else { return };
        let owner = self.settings.placement.owner(body.topic);
        let copy = self.messages.copy(message, Sender::Departed { key });
        if self.messages.get(copy.slot).lsn.is_some() {
            self.live.add(self.messages.get(copy.slot).lsn);
        }
        if let Some(count) = self.departing.get_mut(&key) {
            *count += 1;
        }
        if owner == self.shard {
            self.placing.push(Task { message: copy.slot, scope: Scope::Group(group) });
        } else {
            self.outbox.push(owner, copy.slot, Some(group));
        }
    }

    /// A handed-on entry has arrived, or the clearing itself is through.
    pub(super) fn departed_settled(&mut self, key: SessionKey, effects: &mut impl Effects) {
        let Some(count) = self.departing.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            self.departing.remove(&key);
            let _ = self.write_end(key, effects);
        }
    }

    fn finish_ending(&mut self, slot: u32, effects: &mut impl Effects) {
        self.ending.pop_front();
        let session = self.sessions.get_mut(slot);
        let (key, inbound) = (session.key, session.inbound.take());
        for lsn in inbound.into_iter().flat_map(|inbound| inbound.into_values()) {
            self.live.remove(lsn);
        }
        self.sessions.remove(slot);
        self.placing.forget_session(slot);
        self.departed_settled(key, effects);
    }
}
