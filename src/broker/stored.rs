//! Queue entries whose message is on disk alone: 32 bytes each, however large the message.
//!
//! A message in the store costs some 250 bytes beside its body, which is too much for a backlog of millions. So once
//! the record that lists a recipient is durable and the sender has its answer, an entry of a session that is away, or
//! far behind, can be *stored*: it keeps what the queue has to know and lets go of the message. That is done when messages
//! weigh much (half of `resident_bytes`), the queue first that was first to have one: a client that is back within
//! seconds gets its messages from memory. At replay every entry is stored. When its turn comes it is brought in: it gets
//! a message of its own, whose body is read back like any that has left memory.
//!
//! A stored entry needs the record that lists it, as a recipient does, and, where that is another one, the record with
//! the body.

use std::collections::{BTreeSet, VecDeque};

use super::delivery::Gone;
use super::effect::Effects;
use super::messages::{Message, Owed};
use super::session::{Entry, NO_SLOT};
use super::{Broker, Budget};
use crate::ids::Lsn;
use crate::record::Record;
use crate::time::UnixMs;
use crate::wire::QoS;

/// What a session has to get, in one of its two forms.
#[derive(Clone, Copy, Debug)]
pub(super) enum Queued {
    /// Its message is in the store.
    Here(Entry),
    /// Its message is on disk.
    Stored(Stored),
}

/// See the module documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// The record with the body.
    pub(super) body: Lsn,
    /// The record that lists the recipient, counted from `body`.
    list: u32,
    pub(super) place: u32,
    /// Topic, properties and payload.
    pub(super) bytes: u32,
    /// Seconds since 1970, rounded up; `u32::MAX` for never.
    expires_s: u32,
    pub(super) subscription_id: u32,
    group: u16,
    pub(super) qos: QoS,
    flags: u8,
}

const _: () = assert!(size_of::<Queued>() == 32);

const RETAIN: u8 = 1;
const SHARED: u8 = 2;
const KEYED: u8 = 4;

/// What a stored entry says of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredBody {
    pub(super) lsn: Lsn,
    pub(super) bytes: u32,
    pub(super) expires_at: UnixMs,
    /// Its record has the key of a QoS 2 message.
    pub(super) keyed: bool,
}

impl Stored {
    /// `None`: the two records lie too far apart.
    pub(super) fn new(body: &StoredBody, owed: &Owed) -> Option<Stored> {
        let flag = |flag, set| if set { flag } else { 0 };
        let seconds = body.expires_at.0.div_ceil(1_000);
        Some(Stored {
            body: body.lsn,
            list: u32::try_from(owed.list.0 - body.lsn.0).ok()?,
            place: owed.place,
            bytes: body.bytes,
            expires_s: u32::try_from(seconds).unwrap_or(u32::MAX),
            subscription_id: owed.subscription_id,
            group: owed.group.unwrap_or(0),
            qos: owed.qos,
            flags: flag(RETAIN, owed.retain) | flag(SHARED, owed.group.is_some()) | flag(KEYED, body.keyed),
        })
    }

    /// The record that lists the recipient.
    pub(super) fn list(&self) -> Lsn {
        Lsn(self.body.0 + u64::from(self.list))
    }

    pub(super) fn retain(&self) -> bool {
        self.flags & RETAIN != 0
    }

    /// As in `Owed`.
    pub(super) fn group(&self) -> Option<u16> {
        (self.flags & SHARED != 0).then_some(self.group)
    }

    /// Its record has the key of a QoS 2 message.
    pub(super) fn keyed(&self) -> bool {
        self.flags & KEYED != 0
    }

    /// When the message expires, to the second.
    pub(super) fn expires_at(&self) -> UnixMs {
        match self.expires_s {
            u32::MAX => UnixMs::NEVER,
            seconds => UnixMs(u64::from(seconds) * 1_000),
        }
    }

    fn owed(&self, session: u32) -> Owed {
        Owed {
            session,
            subscription_id: self.subscription_id,
            qos: self.qos,
            retain: self.retain(),
            group: self.group(),
            durable: true,
            list: self.list(),
            place: self.place,
            done: false,
            waived: false,
        }
    }
}

/// A queue that grows by an eighth, because a backlog may be most of what is in memory.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Queued>,
    /// So many at the front were looked at for being stored.
    looked_at: usize,
    /// Its session was put into `Storing`: to know at once what that knows by a search.
    in_line: bool,
}

/// Slots of sessions whose queue may have entries to be stored, each once: while messages weigh little nobody takes them
/// off, and clients come and go.
#[derive(Debug, Default)]
pub(super) struct Storing {
    line: VecDeque<u32>,
    in_line: BTreeSet<u32>,
}

impl Storing {
    fn push(&mut self, slot: u32) {
        if self.in_line.insert(slot) {
            self.line.push_back(slot);
        }
    }

    fn first(&self) -> Option<u32> {
        self.line.front().copied()
    }

    fn pop(&mut self) {
        if let Some(slot) = self.line.pop_front() {
            self.in_line.remove(&slot);
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.line.len()
    }
}

impl Queue {
    /// One that knows nothing of what this one was for, with the same room.
    pub(super) fn anew(self) -> Queue {
        let mut entries = self.entries;
        entries.clear();
        Queue { entries, ..Queue::default() }
    }

    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    pub(super) fn push_back(&mut self, queued: Queued) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact((self.entries.len() / 8).max(4));
        }
        self.entries.push_back(queued);
    }

    pub(super) fn pop_front(&mut self) -> Option<Queued> {
        self.looked_at = self.looked_at.saturating_sub(1);
        self.entries.pop_front()
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<Queued> {
        self.looked_at = self.looked_at.min(index);
        self.entries.remove(index)
    }

    pub(super) fn replace(&mut self, index: usize, queued: Queued) {
        self.entries[index] = queued;
    }

    pub(super) fn front(&self) -> Option<Queued> {
        self.entries.front().copied()
    }

    pub(super) fn get(&self, index: usize) -> Option<Queued> {
        self.entries.get(index).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Queued> {
        self.entries.iter().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&Queued) -> bool) {
        self.looked_at = 0;
        self.entries.retain(keep);
    }

    /// At replay, where all are stored, and so in the order of their lists: where that one is.
    pub(super) fn find_stored(&self, list: Lsn, place: u32) -> Option<usize> {
        let key = |queued: &Queued| match queued {
            Queued::Stored(stored) => (stored.list(), stored.place),
            Queued::Here(_) => unreachable!("replay stores every entry"),
        };
        self.entries.binary_search_by_key(&(list, place), key).ok()
    }
}

/// Entries at the front of a connected session's queue that are not stored, because their turn comes soon.
const FRONT_ENTRIES: usize = 256;

/// Entries looked at in one unit of work.
const ENTRIES_PER_UNIT: usize = 32;

impl Broker {
    /// Entries of that queue may be stored.
    pub(super) fn may_be_stored(&mut self, slot: u32) {
        let session = self.sessions.get_mut(slot);
        let away = session.connection == NO_SLOT;
        let Some(delivery) = session.delivery.as_deref_mut() else { return };
        let far_behind = delivery.queue.len() > 4 * FRONT_ENTRIES;
        if (away || far_behind) && !std::mem::replace(&mut delivery.queue.in_line, true) {
            self.storing.push(slot);
        }
    }

    /// Store entries of queues that have some which can be, while messages weigh much.
    pub(super) fn store_entries(&mut self, budget: &mut Budget) -> bool {
        while let Some(slot) = self.storing.first() {
            if !self.messages.weigh_much() {
                return false;
            }
            if !budget.take() {
                return true;
            }
            if !self.sessions.exists(slot) {
                self.storing.pop();
            } else if self.store_some(slot) {
                self.storing.pop();
                if let Some(delivery) = self.sessions.get_mut(slot).delivery.as_deref_mut() {
                    delivery.queue.in_line = false;
                }
            }
        }
        false
    }

    /// True: there is nothing to look at for now.
    fn store_some(&mut self, slot: u32) -> bool {
        let session = self.sessions.get_mut(slot);
        if session.ended {
            return true;
        }
        let front = if session.connection == NO_SLOT { 0 } else { FRONT_ENTRIES };
        let Some(delivery) = session.delivery.as_deref_mut() else { return true };
        let queue = &mut delivery.queue;
        let from = queue.looked_at.max(front);
        let mut released = Vec::new();
        for index in from..(from + ENTRIES_PER_UNIT).min(queue.entries.len()) {
            if let Queued::Here(entry) = queue.entries[index]
                && entry.owed != NO_SLOT
            {
                let message = self.messages.get(entry.message);
                let owed = message.owed.as_slice()[entry.owed as usize];
                if owed.durable && !(message.covered && message.settled && owed.list.is_some()) {
                    // It comes back into line when it is.
                    queue.looked_at = index;
                    self.let_go_of(released);
                    return true;
                }
                if let Some(stored) = owed.durable.then(|| Stored::new(&body_of(message), &owed)).flatten() {
                    queue.entries[index] = Queued::Stored(stored);
                    released.push((entry, stored));
                }
            }
            queue.looked_at = index + 1;
        }
        let finished = queue.looked_at >= queue.entries.len() || queue.entries.len() <= front;
        self.let_go_of(released);
        finished
    }

    /// The messages of entries that are stored now.
    fn let_go_of(&mut self, entries: Vec<(Entry, Stored)>) {
        for (entry, stored) in entries {
            if stored.list != 0 {
                self.live.add(stored.body, stored.bytes as usize);
            }
            let owed = &mut self.messages.get_mut(entry.message).owed.as_mut_slice()[entry.owed as usize];
            owed.done = true;
            owed.subscription_id = 0;
            self.release_message(entry.message);
        }
    }

    /// Give the stored entry at the front of a queue a message.
    pub(super) fn bring_in_front(&mut self, slot: u32, stored: Stored) -> Entry {
        let entry = self.bring_in(slot, stored);
        self.sessions.get_mut(slot).delivery().queue.replace(0, Queued::Here(entry));
        entry
    }

    /// Give a stored entry a message. The caller puts it where it was.
    pub(super) fn bring_in(&mut self, slot: u32, stored: Stored) -> Entry {
        let message = self.messages.insert_stored(&stored, stored.owed(slot));
        if stored.list == 0 {
            self.live.add(stored.body, 0);
        }
        let Stored { subscription_id, .. } = stored;
        Entry { message, owed: 0, subscription_id, retain: stored.retain() }
    }

    /// A stored entry has left its queue for good.
    pub(super) fn stored_done(&mut self, slot: u32, stored: Stored, gone: Gone, effects: &mut impl Effects) {
        let (list, place) = (stored.list(), stored.place);
        let session = self.sessions.get_mut(slot);
        let key = session.key;
        session.delivery().bytes -= u64::from(stored.bytes);
        match gone {
            Gone::Noted => {
                let _ = self.append(Record::DeliveryDone { list, place }, effects);
                self.live.recipient_gone(list, place);
            }
            Gone::WithSession => self.recipient_dies_with_session(key, stored.body, list, place),
        }
        self.stored_is_forgotten(stored);
    }

    /// The same at replay, which has the record.
    pub(super) fn stored_done_at_replay(&mut self, stored: Stored) {
        self.recipient_gone_at_replay(stored.list(), stored.place);
        self.stored_is_forgotten(stored);
    }

    fn stored_is_forgotten(&mut self, stored: Stored) {
        self.statistics.queued -= 1;
        self.subscription_ids.release(stored.subscription_id);
        if stored.list != 0 {
            self.live.remove(stored.body);
        }
    }
}

fn body_of(message: &Message) -> StoredBody {
    StoredBody {
        lsn: message.lsn,
        bytes: u32::try_from(message.length()).expect("a packet's length fits 32 bits"),
        expires_at: message.expires_at,
        keyed: message.is_keyed(),
    }
}
