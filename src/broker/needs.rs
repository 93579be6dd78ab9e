//! Who still needs a record, where that is more than one line beside what happens.
//!
//! `live` is told of a death in the call in which the cause of it is appended, not when that is on disk: a checkpoint
//! counts only when all that had been appended is. For what undoes a record is not live itself, in general; if the
//! record stayed live behind it, replay would bring back what it says.
//!
//! One thing waits. While the end of a session is coming (its entries go to other members of shared subscriptions), a
//! crash brings back the whole session, so what dies with it does so when the end is written. Of those records only the
//! first few have to go at once: without its `Session` record, the others bring nothing back, and go a few per call.

use std::collections::BTreeMap;

use super::session::{InFlight, Left};
use super::{Broker, Budget};
use crate::ids::{Lsn, SessionKey};
use crate::limits;

/// A reason for which a record is live.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    /// Any.
    Record(Lsn),
    /// A recipient that the record lists in that place.
    Recipient { list: Lsn, place: u32 },
    /// The packet id of an `Inbound` record is taken.
    Taken(Lsn),
}

/// The records that say that a session exists, and since when it is not connected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub(super) record: Lsn,
    pub(super) disconnected: Lsn,
}

/// Live records of sessions about things that few sessions have.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// `Gap` records.
    gaps: BTreeMap<SessionKey, Lsn>,
    /// `WillGone` records, as long as the `Session` record with the will is there.
    wills_gone: BTreeMap<SessionKey, Lsn>,
}

impl Broker {
    /// The record is needed for that reason no more.
    pub(super) fn need_is_gone(&mut self, need: Need) {
        match need {
            Need::Record(record) => self.live.remove(record),
            Need::Recipient { list, place } => self.live.recipient_gone(list, place),
            Need::Taken(inbound) => {
                self.live.set_taken(inbound, false);
                self.live.remove(inbound);
            }
        }
    }

    /// The same, because the session is being cleared: it has to wait for the record that ends it.
    pub(super) fn dies_with_session(&mut self, key: SessionKey, need: Need) {
        match self.ends.unwritten(key) {
            Some(needed) => needed.push(need),
            None => self.need_is_gone(need),
        }
    }

    /// An entry of a session that is being cleared leaves its queue.
    pub(super) fn recipient_dies_with_session(&mut self, key: SessionKey, body: Lsn, list: Lsn, place: u32) {
        if let Some(needed) = self.ends.unwritten(key) {
            needed.push(Need::Recipient { list, place });
            if body != list {
                // Nobody else may hold the body until then.
                self.live.add(body, 0);
                needed.push(Need::Record(body));
            }
        } else {
            self.live.recipient_gone(list, place);
        }
    }

    /// What died with ended sessions.
    pub(super) fn let_go(&mut self, budget: &mut Budget) -> bool {
        while let Some(need) = self.ends.pop_leftover() {
            self.need_is_gone(need);
            if !budget.take() {
                return true;
            }
        }
        false
    }

    /// That key is used by a session that is written down.
    pub(super) fn session_key_is_used(&mut self, key: SessionKey) {
        self.sessions.key_is_used(key);
        self.live.session_key_is_used(key);
    }

    /// The `Session` record was written again, or the session's end: it is dead, and what it says more of it.
    pub(super) fn session_record_is_dead(&mut self, key: SessionKey, heads: Heads) {
        let will_gone = self.notes.wills_gone.remove(&key);
        let heads = [heads.record, heads.disconnected].into_iter().filter(|record| record.is_some());
        heads.chain(will_gone).for_each(|record| self.live.remove(record));
    }

    /// The session has no gap any more.
    pub(super) fn gap_is_dead(&mut self, key: SessionKey) {
        if let Some(gap) = self.notes.gaps.remove(&key) {
            self.live.remove(gap);
        }
    }

    /// A `Disconnected` record was written.
    pub(super) fn disconnected_is_noted(&mut self, slot: u32, record: Lsn) {
        self.live.add(record, 0);
        let dead = std::mem::replace(&mut self.sessions.get_mut(slot).disconnected, record);
        if dead.is_some() {
            self.live.remove(dead);
        }
    }

    /// A `Gap` record was written.
    pub(super) fn gap_is_noted(&mut self, key: SessionKey, record: Lsn, skipped: u64) {
        self.gap_is_dead(key);
        if skipped > 0 {
            self.live.add(record, 0);
            self.notes.gaps.insert(key, record);
        }
    }

    /// A `WillGone` record was written.
    pub(super) fn will_gone_is_noted(&mut self, key: SessionKey, record: Lsn) {
        self.live.add(record, 0);
        if let Some(dead) = self.notes.wills_gone.insert(key, record) {
            self.live.remove(dead);
        }
    }

    /// A delivery is not in flight any more.
    pub(super) fn flight_records(in_flight: &InFlight) -> impl Iterator<Item = Need> + use<> {
        [in_flight.begun, in_flight.received].into_iter().filter(|record| record.is_some()).map(Need::Record)
    }

    /// The session leaves a shared subscription: what came through it and is not acknowledged is handed on if the
    /// session ends.
    pub(super) fn leave_group(&mut self, slot: u32, group: &str, record: Lsn) {
        let Some(delivery) = self.sessions.get_mut(slot).delivery.as_deref_mut() else { return };
        if delivery.left.len() >= limits::SUBSCRIPTIONS_PER_SESSION_MAX {
            return;
        }
        delivery.left.push(Left { group: group.into(), record });
        if record.is_some() {
            self.live.add(record, 0);
        }
    }

    /// The session is a member again.
    pub(super) fn join_group(&mut self, slot: u32, group: &str) {
        self.forget_left(slot, |left| *left.group == *group);
    }

    /// Those of its former shared subscriptions do not matter any more.
    pub(super) fn forget_left(&mut self, slot: u32, mut which: impl FnMut(&Left) -> bool) {
        let Some(delivery) = self.sessions.get_mut(slot).delivery.as_deref_mut() else { return };
        for left in delivery.left.extract_if(.., |left| which(left)).filter(|left| left.record.is_some()) {
            self.live.remove(left.record);
        }
    }
}
