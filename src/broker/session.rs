//! The sessions of a shard: what outlives a connection.
//!
//! A session is found by its identity: the client id, prefixed by the account where that is something else, so that
//! nobody takes over a client id of another account. What an idle session does not need (queue, will, packet ids) is
//! behind handles.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hasher;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;
use slab::Slab;

use super::few::Few;
use super::messages::MessageId;
use super::needs::Heads;
use super::stored::Queue;
use super::subscriptions::FilterId;
use crate::ids::{Lsn, PublisherKey, SessionKey};
use crate::time::{Nanos, UnixMs};
use crate::wire::{PacketId, Version};

/// A slot number that names nothing.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: SessionKey,
    /// `client id`, or `account NUL client id`.
    pub(super) identity: Box<str>,
    /// Slot of its connection, or `NO_SLOT`.
    pub(super) connection: u32,
    /// Seconds it outlives its connection; `u32::MAX` for ever.
    pub(super) expiry_s: u32,
    pub(super) version: Version,
    /// It is over; only its queue is still being cleared.
    pub(super) ended: bool,
    /// In the ring of sessions that can be delivered to.
    pub(super) ready: bool,
    /// The `Session` record; `NONE` for a session that is not written down.
    pub(super) record: Lsn,
    /// The `Disconnected` record; `NONE` while it is connected.
    pub(super) disconnected: Lsn,
    /// When it ends, if it is not connected before.
    pub(super) ends_at: Nanos,
    /// Where its deadline stands among the timers: at that or earlier, at what expires in its queue or earlier.
    pub(super) timer_at: Nanos,
    pub(super) subscriptions: Few<Subscription>,
    pub(super) delivery: Option<Box<Delivery>>,
    pub(super) will: Option<Box<Will>>,
    /// QoS 2 packet ids of the client that are not released, and the record of each.
    #[expect(clippy::box_collection, reason = "a third of the size: few sessions publish at QoS 2")]
    pub(super) inbound: Option<Box<BTreeMap<PacketId, Lsn>>>,
    /// Messages refused because the queue was full, of which its client is not known to have been told.
    pub(super) skipped: u32,
}

const _: () = assert!(size_of::<Session>() <= 120, "two million of these are idle");

impl Session {
    /// A session that has nothing yet.
    pub(super) fn new(key: SessionKey, identity: Box<str>, version: Version) -> Session {
        Session {
            key,
            identity,
            connection: NO_SLOT,
            expiry_s: 0,
            version,
            ended: false,
            ready: false,
            record: Lsn::NONE,
            disconnected: Lsn::NONE,
            ends_at: Nanos::NEVER,
            timer_at: Nanos::NEVER,
            subscriptions: Few::None,
            delivery: None,
            will: None,
            inbound: None,
            skipped: 0,
        }
    }

    /// Whether it outlives its connection, and so is written down.
    pub(super) fn durable(&self) -> bool {
        self.record.is_some()
    }

    /// Take what says that it exists, because that is about to be something else.
    pub(super) fn take_heads(&mut self) -> Heads {
        Heads { record: self.record, disconnected: std::mem::take(&mut self.disconnected) }
    }

    pub(super) fn client_id(&self) -> &str {
        split_identity(&self.identity).1
    }

    pub(super) fn account(&self) -> &str {
        split_identity(&self.identity).0
    }

    pub(super) fn delivery(&mut self) -> &mut Delivery {
        self.delivery.get_or_insert_default()
    }
}

/// One subscription of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    pub(super) filter: FilterId,
    pub(super) record: Lsn,
}

/// What is on its way to a session.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// Not yet sent.
    pub(super) queue: Queue,
    /// With a packet id, in the order first sent `[MQTT-4.6.0-1]`.
    pub(super) in_flight: VecDeque<InFlight>,
    /// In-flight entries before this index have been dealt with on the present connection.
    pub(super) cursor: usize,
    /// Bytes of `queue` and `in_flight`.
    pub(super) bytes: u64,
    /// The packet id given out last.
    pub(super) last_packet_id: u16,
    /// A message's `hold` ended with this session still owing for it, and it has acknowledged nothing since.
    pub(super) overdue: bool,
    /// The note that a message was skipped, which would be placed again after a crash; what comes later may not leave
    /// before that is durable.
    pub(super) skip_noted: Lsn,
    /// What is in the queue may be by subscriptions that were taken back.
    pub(super) is_suspect: bool,
    /// Retained messages for new subscriptions wait for the queue to become shorter.
    pub(super) pulls_wait: bool,
    /// When the queue is to be looked through for messages that have expired.
    pub(super) look_through_at: Option<Nanos>,
    /// Shared subscriptions that the session has left with messages in its queue, which are still handed on if it ends.
    pub(super) left: Vec<Left>,
}

const _: () = assert!(size_of::<Delivery>() <= 152, "each session that waits for something has one");

/// What sessions had before they had nothing left to get, with the room of its queues: a session that gets a message now and
/// then would allocate all that for each.
#[derive(Debug, Default)]
pub(super) struct SpareDeliveries {
    #[expect(clippy::vec_box, reason = "the boxes move between here and sessions without a copy")]
    spare: Vec<Box<Delivery>>,
}

/// How many are kept: of so many sessions at a time that get something.
const SPARE_DELIVERIES_MAX: usize = 256;

/// Larger queues are not kept: with the number above, a megabyte per shard at most.
const SPARE_ENTRIES_MAX: usize = 64;

impl SpareDeliveries {
    /// An empty one.
    pub(super) fn take(&mut self) -> Box<Delivery> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes one back that is empty.
    pub(super) fn put(&mut self, mut delivery: Box<Delivery>) {
        let queue = std::mem::take(&mut delivery.queue);
        let in_flight = std::mem::take(&mut delivery.in_flight);
        assert!(queue.is_empty() && in_flight.is_empty(), "what it has is still to be delivered");
        let is_small = queue.capacity() <= SPARE_ENTRIES_MAX && in_flight.capacity() <= SPARE_ENTRIES_MAX;
        if is_small && self.spare.len() < SPARE_DELIVERIES_MAX {
            *delivery = Delivery { queue: queue.anew(), in_flight, ..Delivery::default() };
            self.spare.push(delivery);
        }
    }
}

/// A shared subscription that a session has left.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) group: Box<str>,
    /// The `Unsubscribed` record, `NONE` for a session that is not written down.
    pub(super) record: Lsn,
}

impl Delivery {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }

    /// The position of a packet id in flight.
    pub(super) fn find(&self, packet_id: PacketId) -> Option<usize> {
        self.in_flight.iter().position(|entry| entry.packet_id == packet_id)
    }

    /// A packet id that is not in flight `[MQTT-2.2.1-3]`. The window is far smaller than the id space.
    pub(super) fn next_packet_id(&mut self) -> PacketId {
        loop {
            self.last_packet_id = self.last_packet_id.wrapping_add(1);
            if let Some(id) = PacketId::new(self.last_packet_id).filter(|id| self.find(*id).is_none()) {
                return id;
            }
        }
    }
}

/// A message in a queue. The subscription identifiers and flags are in the message's list of who is owed, or, at
/// QoS 0, here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) message: u32,
    /// Index into the message's `owed`; `NO_SLOT` at QoS 0.
    pub(super) owed: u32,
    pub(super) subscription_id: u32,
    /// At QoS 0: the retain flag.
    pub(super) retain: bool,
}

/// Where an in-flight delivery stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Something has to be durable first: at QoS 2 the packet id, else the note that an earlier message was skipped.
    Reserved,
    /// PUBLISH may be sent.
    Sendable,
    /// PUBLISH was sent, on this connection or an earlier one.
    Sent,
    /// PUBREC arrived and is not durable yet.
    Receiving,
    /// PUBREL may be sent.
    Released,
}

/// A message in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) entry: Entry,
    pub(super) packet_id: PacketId,
    pub(super) phase: Phase,
    /// The record of its packet id, `NONE` if there is none.
    pub(super) begun: Lsn,
    /// The `Received` record, `NONE` if there is none.
    pub(super) received: Lsn,
}

/// A will. `forward` are the properties that go with it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Will {
    pub(super) topic: Box<str>,
    pub(super) forward: Box<[u8]>,
    pub(super) payload: Box<[u8]>,
    pub(super) qos: crate::wire::QoS,
    pub(super) retain: bool,
    pub(super) delay_s: u32,
    pub(super) message_expiry_s: u32,
}

/// A will whose connection has ended.
#[derive(Debug)]
pub(super) struct PendingWill {
    pub(super) will: Will,
    pub(super) due: UnixMs,
    /// Where it stands among the timers.
    pub(super) timer_at: Nanos,
    /// It is written down.
    pub(super) durable: bool,
    /// It is on its way, as that message.
    pub(super) publishing: Option<MessageId>,
    /// The `Session` record that holds it.
    pub(super) record: Lsn,
    /// The `SessionEnded` record, once there is one: with the other, it must not bring the session back.
    pub(super) ended: Lsn,
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    slots: Slab<Session>,
    by_identity: HashTable<u32>,
    by_key: BTreeMap<SessionKey, u32>,
    next_key: u64,
    hash_key: [u8; 16],
}

impl Sessions {
    pub(super) fn new(hash_key: [u8; 16]) -> Sessions {
        Sessions {
            slots: Slab::new(),
            by_identity: HashTable::new(),
            by_key: BTreeMap::new(),
            next_key: 1,
            hash_key,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// A key that was never used.
    pub(super) fn next_key(&mut self) -> SessionKey {
        let key = SessionKey(self.next_key);
        self.next_key += 1;
        key
    }

    /// Replay saw that key.
    pub(super) fn key_is_used(&mut self, key: SessionKey) {
        self.next_key = self.next_key.max(key.0 + 1);
    }

    pub(super) fn find(&self, identity: &str) -> Option<u32> {
        let slots = &self.slots;
        self.by_identity
            .find(hash(self.hash_key, identity), |slot| *slots[*slot as usize].identity == *identity)
            .copied()
    }

    /// The client as a publisher.
    pub(super) fn publisher(&self, slot: u32) -> PublisherKey {
        PublisherKey(hash(self.hash_key, &self.get(slot).identity).max(1))
    }

    /// The session with that key, if it is one that is written down.
    pub(super) fn find_key(&self, key: SessionKey) -> Option<u32> {
        self.by_key.get(&key).copied()
    }

    pub(super) fn get(&self, slot: u32) -> &Session {
        &self.slots[slot as usize]
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Session {
        &mut self.slots[slot as usize]
    }

    /// The session in that slot, if it still has that key.
    pub(super) fn get_if(&mut self, slot: u32, key: SessionKey) -> Option<&mut Session> {
        self.slots.get_mut(slot as usize).filter(|session| session.key == key)
    }

    pub(super) fn insert(&mut self, session: Session) -> u32 {
        let slot = self.insert_slot(session);
        self.enter_identity(slot);
        slot
    }

    /// Replay only: a session that records speak of before its own does. It is found by its key alone until then.
    pub(super) fn insert_unnamed(&mut self, key: SessionKey) -> u32 {
        let slot = self.insert_slot(Session::new(key, "".into(), Version::V5));
        self.by_key.insert(key, slot);
        slot
    }

    /// Its own record was replayed.
    pub(super) fn name(&mut self, slot: u32, identity: Box<str>) {
        let session = &mut self.slots[slot as usize];
        assert!(session.identity.is_empty(), "a session keeps its name");
        session.identity = identity;
        self.enter_identity(slot);
    }

    fn insert_slot(&mut self, session: Session) -> u32 {
        u32::try_from(self.slots.insert(session)).expect("bounded by SESSIONS_PER_SHARD_MAX")
    }

    fn enter_identity(&mut self, slot: u32) {
        let (slots, hash_key) = (&self.slots, self.hash_key);
        let hashed = hash(hash_key, &slots[slot as usize].identity);
        self.by_identity.insert_unique(hashed, slot, |slot| hash(hash_key, &slots[*slot as usize].identity));
    }

    /// Its `Session` record was written (again).
    pub(super) fn set_record(&mut self, slot: u32, record: Lsn) {
        let session = &mut self.slots[slot as usize];
        session.record = record;
        self.by_key.insert(session.key, slot);
    }

    /// The session is over: nobody finds it any more, but its slot stays taken until `remove`.
    pub(super) fn end(&mut self, slot: u32) {
        let session = &mut self.slots[slot as usize];
        session.ended = true;
        self.by_key.remove(&session.key);
        self.lose_name(slot);
    }

    /// The session of that identity is another one from now on.
    pub(super) fn lose_name(&mut self, slot: u32) {
        let hashed = hash(self.hash_key, &self.slots[slot as usize].identity);
        if let Ok(entry) = self.by_identity.find_entry(hashed, |other| *other == slot) {
            entry.remove();
        }
    }

    /// Give the slot of an ended session back.
    pub(super) fn remove(&mut self, slot: u32) {
        let session = self.slots.remove(slot as usize);
        assert!(session.ended, "a session is ended before it is removed");
        assert!(session.timer_at == Nanos::NEVER, "its timer goes with it");
    }

    /// Whether the slot is in use.
    pub(super) fn exists(&self, slot: u32) -> bool {
        self.slots.contains(slot as usize)
    }

    /// Slots of those that are written down, in the order of their keys.
    pub(super) fn written(&self) -> impl Iterator<Item = u32> + '_ {
        self.by_key.values().copied()
    }
}

/// The identity of a client of an account; the account is empty where it is the client id.
pub(super) fn identity(account: &str, client_id: &str) -> Box<str> {
    // A client id may not contain U+0000, so the separator is unambiguous [MQTT-1.5.4-2].
    if account.is_empty() { client_id.into() } else { format!("{account}\0{client_id}").into() }
}

pub(super) fn split_identity(identity: &str) -> (&str, &str) {
    identity.split_once('\0').unwrap_or(("", identity))
}

fn hash(key: [u8; 16], identity: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_key(&key);
    hasher.write(identity.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_of_different_accounts_never_meet() {
        assert_eq!(&*identity("", "c"), "c");
        assert_ne!(identity("a", "c"), identity("b", "c"));
        assert_ne!(identity("ab", "c"), identity("a", "bc"));
        assert_eq!(split_identity(&identity("a", "c")), ("a", "c"));
        assert_eq!(split_identity("c"), ("", "c"));
    }

    #[test]
    fn a_packet_id_in_flight_is_never_given_out_again() {
        let mut delivery = Delivery { last_packet_id: u16::MAX - 1, ..Delivery::default() };
        let entry = Entry { message: 0, owed: 0, subscription_id: 0, retain: false };
        let mut seen = Vec::new();
        for _ in 0..3 {
            let packet_id = delivery.next_packet_id();
            seen.push(packet_id.get());
            delivery.in_flight.push_back(InFlight {
                entry,
                packet_id,
                phase: Phase::Sent,
                begun: Lsn::NONE,
                received: Lsn::NONE,
            });
            delivery.last_packet_id = delivery.last_packet_id.wrapping_sub(1);
        }
        assert_eq!(seen, [u16::MAX, 1, 2]);
    }
}
