//! The end of a session: at once nobody finds it; its subscriptions and its queue are cleared a few per call.
//!
//! Entries of shared subscriptions go to another member first (`hand_on`); the record that ends the session is
//! written when they have arrived, so a crash in between only repeats the end; a note that the session has expired is
//! written first, so that it is repeated whatever else is known by then. Until the end is written, all records of the
//! session stay live.

use std::collections::BTreeMap;

use super::Broker;
use super::Budget;
use super::await_durable::Waiter;
use super::delivery::Gone;
use super::effect::Effects;
use super::hand_on::{Stage, Step};
use super::needs::{Heads, Need};
use super::session::{Entry, NO_SLOT};
use super::stored::Queued;
use super::timers::Due;
use crate::ids::{Lsn, SessionKey};
use crate::record::Record;
use crate::time::{Nanos, UnixMs};
use crate::wire::topic;

/// An ended session whose queue is not cleared yet.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) slot: u32,
    /// Its shared subscriptions.
    pub(super) groups: Vec<Box<str>>,
    pub(super) stage: Stage,
}

/// Ends of sessions that are not on disk yet. Until one is, a crash brings the session back; so a client of that
/// identity is not told before that it has none, or it could be told later that it has.
#[derive(Debug, Default)]
pub(super) struct Ends {
    by_identity: BTreeMap<Box<str>, SessionKey>,
    pending: BTreeMap<SessionKey, End>,
    /// What has died with sessions whose end is written.
    leftover: Vec<Vec<Need>>,
}

impl Ends {
    /// What dies with a session, if its end is not written yet.
    pub(super) fn unwritten(&mut self, key: SessionKey) -> Option<&mut Vec<Need>> {
        self.pending.get_mut(&key).filter(|end| !end.lsn.is_some()).map(|end| &mut end.needed)
    }

    /// An entry of that session is handed on under a key.
    pub(super) fn note(&mut self, key: SessionKey, note: Lsn) {
        self.pending.get_mut(&key).expect("the session is ending").notes.push(note);
    }

    /// The last of those.
    pub(super) fn last_note(&self, key: SessionKey) -> Lsn {
        self.pending.get(&key).and_then(|end| end.notes.iter().max().copied()).unwrap_or(Lsn::NONE)
    }

    /// The next that has died with its session.
    pub(super) fn pop_leftover(&mut self) -> Option<Need> {
        let need = self.leftover.last_mut()?.pop();
        if need.is_none() {
            self.leftover.pop();
            return self.leftover.last_mut()?.pop();
        }
        need
    }
}

#[derive(Debug)]
struct End {
    identity: Box<str>,
    /// The record, `NONE` until it is written.
    lsn: Lsn,
    heads: Heads,
    /// What else of the session a crash before that brings back.
    needed: Vec<Need>,
    /// Keys of what is handed on, which may come again until this is on disk.
    notes: Vec<Lsn>,
    /// CONNACKs that wait for it to be written, and then for the disk.
    waiters: Vec<Waiter>,
}

impl Broker {
    /// Give a CONNACK to the end of an earlier session that it has to wait for, if there is one that is not written
    /// yet; else say which record it has to wait for, if any.
    pub(super) fn await_end(&mut self, identity: &str, waiter: Waiter) -> Result<(), Lsn> {
        let Some(key) = self.ends.by_identity.get(identity) else { return Err(Lsn::NONE) };
        let end = self.ends.pending.get_mut(key).expect("an end has its name and its record");
        if end.lsn.is_some() {
            return Err(end.lsn);
        }
        end.waiters.push(waiter);
        Ok(())
    }

    /// The end of a session is on disk.
    pub(super) fn end_durable(&mut self, key: SessionKey, effects: &mut impl Effects) {
        let Some(end) = self.ends.pending.remove(&key) else { return };
        if self.ends.by_identity.get(&end.identity) == Some(&key) {
            self.ends.by_identity.remove(&end.identity);
        }
        for note in end.notes {
            self.routed_durable(note, effects);
        }
    }

    /// End a session.
    pub(super) fn end_session(&mut self, slot: u32, effects: &mut impl Effects) {
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
            self.timers.set(&mut pending.timer_at, self.now.mono, Due::Will { key });
        }
        let (groups, needed) = self.drop_subscriptions(slot, effects);
        self.sessions.end(slot);
        let moves = !groups.is_empty() && self.sessions.get(slot).delivery.is_some();
        let stage = match moves && record.is_some() {
            true => Stage::Listing { next: 0, keyed: false },
            false => Stage::Going,
        };
        self.ending.push_back(Ending { slot, groups, stage });
        if !record.is_some() {
            return;
        }
        if moves {
            self.note_that_it_ends(slot, effects);
        }
        let session = self.sessions.get_mut(slot);
        let (identity, heads) = (session.identity.clone(), session.take_heads());
        self.ends.by_identity.insert(identity.clone(), key);
        let end = End { identity, lsn: Lsn::NONE, heads, needed, notes: Vec::new(), waiters: Vec::new() };
        self.ends.pending.insert(key, end);
        if moves {
            self.departing.insert(key, 1);
        } else {
            self.write_end(key, effects);
        }
    }

    /// The record that ends it comes later: until then a crash brings it back, to end at once.
    fn note_that_it_ends(&mut self, slot: u32, effects: &mut impl Effects) {
        let session = self.sessions.get(slot);
        if session.expiry_s == 0 && session.disconnected.is_some() {
            return;
        }
        let (key, at) = (session.key, self.now.wall);
        let will_due = self.wills.get(&key).map_or(UnixMs::NEVER, |pending| pending.due);
        let record = self.append(Record::Disconnected { key, at, expiry_s: 0, will_due }, effects);
        self.disconnected_is_noted(slot, record);
    }

    pub(super) fn write_end(&mut self, key: SessionKey, effects: &mut impl Effects) {
        let will_due = self.wills.get(&key).map_or(UnixMs::NEVER, |pending| pending.due);
        let lsn = self.append(Record::SessionEnded { key, will_due }, effects);
        self.awaiting.push(lsn, Waiter::Ended { key });
        if let Some(pending) = self.wills.get_mut(&key) {
            pending.ended = lsn;
            self.live.add(lsn, 0);
        }
        let end = self.ends.pending.get_mut(&key).expect("the session is ending");
        end.lsn = lsn;
        for waiter in std::mem::take(&mut end.waiters) {
            self.awaiting.push(lsn, waiter);
        }
        let heads = end.heads;
        let needed = std::mem::take(&mut end.needed);
        self.ends.leftover.push(needed);
        self.session_record_is_dead(key, heads);
        self.gap_is_dead(key);
    }

    /// Whether the journal has the session: until its end is written.
    pub(super) fn is_written(&mut self, key: SessionKey) -> bool {
        self.sessions.find_key(key).is_some() || self.ends.unwritten(key).is_some()
    }

    /// Unsubscribe from everything; the result names the shared ones, and those left before, and keeps all records.
    fn drop_subscriptions(&mut self, slot: u32, effects: &mut impl Effects) -> (Vec<Box<str>>, Vec<Need>) {
        let (mut groups, mut needed) = (Vec::new(), Vec::new());
        if let Some(delivery) = self.sessions.get_mut(slot).delivery.as_deref_mut() {
            for left in std::mem::take(&mut delivery.left) {
                groups.push(left.group);
                needed.extend(Some(left.record).filter(|record| record.is_some()).map(Need::Record));
            }
        }
        while let Some(mut subscription) = self.sessions.get_mut(slot).subscriptions.pop() {
            let text: Box<str> = self.subscriptions.text(subscription.filter).into();
            let shared = topic::split_shared(&text).is_some();
            let record = std::mem::take(&mut subscription.record);
            needed.extend(Some(record).filter(|record| record.is_some()).map(Need::Record));
            self.forget_subscription(slot, subscription, &text, effects);
            if shared {
                groups.push(text);
            }
        }
        (groups, needed)
    }

    /// Go on clearing.
    pub(super) fn end_sessions(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        if self.let_go(budget) {
            return true;
        }
        while let Some(ending) = self.ending.front() {
            let slot = ending.slot;
            match self.prepare_to_hand_on(budget, effects) {
                Step::Done => {}
                Step::More => return true,
                Step::Wait => return false,
            }
            if !budget.take() {
                return true;
            }
            let entry = match self.last_entry(slot) {
                None => {
                    self.finish_ending(slot, effects);
                    continue;
                }
                Some(Queued::Stored(stored)) if stored.group().is_none() => {
                    self.sessions.get_mut(slot).delivery().queue.pop_front();
                    self.stored_done(slot, stored, Gone::WithSession, effects);
                    continue;
                }
                Some(Queued::Stored(stored)) => self.bring_in_front(slot, stored),
                Some(Queued::Here(entry)) => entry,
            };
            if !self.depart(slot, entry, effects) {
                // Its body is being read back, or what other shards have is not known yet.
                return false;
            }
        }
        false
    }

    /// The next entry to clear: the queue from its front, then what was in flight.
    fn last_entry(&self, slot: u32) -> Option<Queued> {
        let delivery = self.sessions.get(slot).delivery.as_deref()?;
        let in_flight = delivery.in_flight.front().map(|in_flight| Queued::Here(in_flight.entry));
        in_flight.or_else(|| delivery.queue.front())
    }

    /// Clear one entry, handing it on if it came through a shared subscription. False: come back later.
    fn depart(&mut self, slot: u32, entry: Entry, effects: &mut impl Effects) -> bool {
        if entry.owed != NO_SLOT && !self.hand_on_front(slot, entry.message, entry.owed, effects) {
            return false;
        }
        let session = self.sessions.get_mut(slot);
        let key = session.key;
        if let Some(in_flight) = session.delivery().in_flight.pop_front() {
            Broker::flight_records(&in_flight).for_each(|need| self.dies_with_session(key, need));
        } else {
            session.delivery().queue.pop_front();
        }
        self.entry_done(slot, entry, Gone::WithSession, effects);
        true
    }

    fn finish_ending(&mut self, slot: u32, effects: &mut impl Effects) {
        self.ending.pop_front();
        let session = self.sessions.get_mut(slot);
        let (key, inbound) = (session.key, session.inbound.take().filter(|_| session.durable()));
        self.timers.set(&mut session.timer_at, Nanos::NEVER, Due::Session { slot });
        for lsn in inbound.into_iter().flat_map(|inbound| inbound.into_values()) {
            self.dies_with_session(key, Need::Taken(lsn));
        }
        self.sessions.remove(slot);
        self.placing.forget_session(slot);
        self.departed_settled(key, effects);
    }
}
