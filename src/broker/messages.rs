//! The message store of a shard: each body once, whatever the fan-out, and who still owes for it.
//!
//! A message lives while something refers to it: a queue entry, the retained table, or the publish that is not yet
//! settled. What it owes decides when its sender is answered (`settle.rs`). A body that is on disk may be dropped
//! from memory (`resident` bound) and is read back when a connected recipient needs it; the bytes that have to stay
//! are counted (`held_bytes`), so that the broker can refuse more of them.

use std::collections::VecDeque;

use slab::Slab;

use super::few::Few;
use super::route::Parcel;
use super::stored::Stored;
use crate::content::Content;
use crate::ids::{ConnectionId, Lsn, OriginKey, PublisherKey, SessionKey, ShardId};
use crate::record::Body;
use crate::time::UnixMs;
use crate::wire::QoS;

/// A message of this shard: a stale one is recognised by its serial number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MessageId {
    pub(super) slot: u32,
    pub(super) serial: u32,
}

impl MessageId {
    /// As a token between shards; never 0, because serial numbers start at 1.
    pub(super) fn token(self) -> u64 {
        u64::from(self.serial) << 32 | u64::from(self.slot)
    }

    /// Back from a token.
    pub(super) fn from_token(token: u64) -> MessageId {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the token")]
        MessageId { slot: token as u32, serial: (token >> 32) as u32 }
    }
}

/// Who is answered when everything owed for a message is settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sender {
    /// Nobody: QoS 0, a retained delivery, something restored.
    Nobody,
    /// A client's QoS 1 PUBLISH: the entry `sequence` of its acknowledgement queue.
    Client { connection: ConnectionId, sequence: u32 },
    /// The owner of the topic, which asked to deliver it here.
    Owner { shard: ShardId, token: u64 },
    /// Another shard, whose topic is owned here.
    Shard { shard: ShardId, token: u64 },
    /// The `Inbound` record of a QoS 2 PUBLISH accepted here.
    Inbound,
    /// A will, kept until it is settled.
    Will { key: SessionKey },
    /// The message with that token, for a shared subscription whose chosen member was gone.
    Again { token: u64 },
    /// An entry of a shared subscription's member whose session ended, kept until another member has it.
    Departed { key: SessionKey },
}

/// One session that a message was queued for at QoS 1 or 2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    pub(super) session: u32,
    pub(super) subscription_id: u32,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// The shared subscription that it came through, as a hash (`subscriptions::group_tag`); 0: one that is not known.
    pub(super) group: Option<u16>,
    /// The session outlives its connection, so it is written down.
    pub(super) durable: bool,
    /// The record in the journal that lists it, and its place there; `NONE` if none does.
    pub(super) list: Lsn,
    pub(super) place: u32,
    /// It has acknowledged, or no longer can.
    pub(super) done: bool,
    /// Not written down and not waited for: the session was overdue when it was queued.
    pub(super) waived: bool,
}

const _: () = assert!(size_of::<Message>() <= 176, "each message that waits has one");
const _: () = assert!(size_of::<Owed>() == 32);

/// What other shards still have to say about a message.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Remote {
    /// Requests without `Placed`.
    pub(super) unplaced: u32,
    /// Requests without `Settled`.
    pub(super) unsettled: u32,
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    serial: u32,
    /// `None`: not in memory; `lsn` says where it is.
    pub(super) content: Option<Content>,
    /// Of the content, in memory or not.
    length: u32,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// Every session that gets it is known.
    pub(super) placed: bool,
    /// The record that lists its recipients is durable: nothing durable is owed any more.
    pub(super) covered: bool,
    /// The retained message of its topic: stays in memory, because other shards may ask for it.
    pinned: bool,
    /// Holds a reference of its own until other shards have settled it.
    pub(super) travelling: bool,
    /// `hold` is over: recipients that are not written down are owed nothing more.
    pub(super) forgiven: bool,
    /// The shard that asked has been told where it was placed.
    pub(super) answered: bool,
    /// In the queue of bodies that may be dropped from memory.
    evictable: bool,
    /// Its sender has been answered.
    pub(super) settled: bool,
    /// The record with its body.
    pub(super) lsn: Lsn,
    pub(super) accepted_at: UnixMs,
    pub(super) expires_at: UnixMs,
    pub(super) publisher: PublisherKey,
    pub(super) origin: Option<OriginKey>,
    /// It has come back from disk, and its record has a key.
    keyed: bool,
    pub(super) sender: Sender,
    pub(super) owed: Few<Owed>,
    /// Durable recipients that have neither acknowledged nor are covered.
    pub(super) owing_durable: u32,
    /// Other recipients that are waited for and have not acknowledged; forgiven after `hold`.
    pub(super) owing_volatile: u32,
    pub(super) remote: Remote,
    /// Sessions that took it, here and elsewhere.
    pub(super) taken: u32,
    /// Sessions whose queue was full.
    pub(super) refused: u32,
    references: u32,
}

impl Message {
    /// Length of topic, properties and payload.
    pub(super) fn length(&self) -> usize {
        self.length as usize
    }

    /// It is the retained message of its topic.
    pub(super) fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// Bytes of the body in memory. Retained ones have their own bound.
    fn resident_bytes(&self) -> u64 {
        match &self.content {
            Some(content) if !self.pinned => content.len() as u64,
            _ => 0,
        }
    }

    /// Those of them that have to stay there because they are not on disk.
    fn held_bytes(&self) -> u64 {
        if self.evictable { 0 } else { self.resident_bytes() }
    }

    /// The body, if it is in memory.
    pub(super) fn body(&self) -> Option<Body<'_>> {
        let (topic, forward, payload) = self.content.as_ref()?.parts();
        Some(Body {
            topic,
            forward,
            payload,
            qos: self.qos,
            retain: self.retain,
            accepted_at: self.accepted_at,
            expires_at: self.expires_at,
        })
    }

    /// Whether someone still owes for it who is not written down, and could be.
    pub(super) fn is_unwritten(&self) -> bool {
        self.owed.as_slice().iter().any(|owed| owed.durable && !owed.done && !owed.list.is_some())
    }

    /// The key that a record of its recipients has to name, so that a repeat after a crash is known: none if it has
    /// none, or if it is the `Inbound` record itself, whose number is the key. (One of ours that comes back from the
    /// owner of its topic is not that record, and has to name it.)
    pub(super) fn key_to_note(&self, here: ShardId) -> Option<OriginKey> {
        self.origin.filter(|origin| (origin.shard, origin.lsn) != (here, self.lsn))
    }

    /// Its record has the key of a QoS 2 message.
    pub(super) fn is_keyed(&self) -> bool {
        self.keyed || self.origin.is_some()
    }

    /// As it travels to another shard.
    pub(super) fn parcel(&self) -> Option<Parcel> {
        Some(Parcel {
            content: self.content.clone()?,
            qos: self.qos,
            retain: self.retain,
            accepted_at: self.accepted_at,
            expires_at: self.expires_at,
            publisher: self.publisher,
            origin: self.origin,
        })
    }
}

/// The store.
#[derive(Debug)]
pub(super) struct Messages {
    slots: Slab<Message>,
    next_serial: u32,
    /// How many are retained messages.
    pinned: usize,
    /// The sum of `Message::resident_bytes`.
    resident_bytes: u64,
    resident_bytes_max: u64,
    /// The sum of `Message::held_bytes`.
    held_bytes: u64,
    evictable: VecDeque<MessageId>,
}

impl Messages {
    pub(super) fn new(resident_bytes_max: u64) -> Messages {
        Messages {
            slots: Slab::new(),
            next_serial: 1,
            pinned: 0,
            resident_bytes: 0,
            resident_bytes_max,
            held_bytes: 0,
            evictable: VecDeque::new(),
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether more has to stay in memory than may be there.
    pub(super) fn is_full(&self) -> bool {
        self.held_bytes > self.resident_bytes_max
    }

    /// Another bound, from now on.
    #[cfg(test)]
    pub(super) fn set_resident_bytes_max(&mut self, bytes: u64) {
        self.resident_bytes_max = bytes;
    }

    /// Whether there is so much, messages and bodies, that what is on disk should be there alone. Half of what bodies may
    /// take: the other half is for what is on its way.
    pub(super) fn weigh_much(&self) -> bool {
        let heads = ((self.slots.len() - self.pinned) * size_of::<Message>()) as u64;
        heads + self.resident_bytes > self.resident_bytes_max / 2
    }

    /// Store a message with one reference.
    pub(super) fn insert(&mut self, parcel: Parcel, sender: Sender) -> MessageId {
        let length = parcel.content.len();
        self.insert_parts(
            Some(parcel.content),
            length,
            sender,
            &Head {
                qos: parcel.qos,
                retain: parcel.retain,
                accepted_at: parcel.accepted_at,
                expires_at: parcel.expires_at,
                publisher: parcel.publisher,
                origin: parcel.origin,
            },
        )
    }

    /// Store a message whose body stays on disk, with one reference.
    pub(super) fn insert_on_disk(
        &mut self,
        body: &Body<'_>,
        lsn: Lsn,
        origin: Option<OriginKey>,
    ) -> MessageId {
        let head = Head {
            qos: body.qos,
            retain: body.retain,
            accepted_at: body.accepted_at,
            expires_at: body.expires_at,
            publisher: PublisherKey::NOBODY,
            origin,
        };
        let id = self.insert_parts(None, length_of(body), Sender::Nobody, &head);
        self.get_mut(id.slot).lsn = lsn;
        id
    }

    /// The message of a stored entry, with the reference of that. What it does not know is in its body.
    pub(super) fn insert_stored(&mut self, stored: &Stored, owed: Owed) -> u32 {
        let head = Head {
            qos: stored.qos,
            retain: false,
            accepted_at: UnixMs(0),
            expires_at: stored.expires_at(),
            publisher: PublisherKey::NOBODY,
            origin: None,
        };
        let MessageId { slot, .. } = self.insert_parts(None, stored.bytes as usize, Sender::Nobody, &head);
        let message = self.get_mut(slot);
        message.lsn = stored.body;
        message.keyed = stored.keyed();
        (message.placed, message.covered, message.settled) = (true, true, true);
        message.owed.push(owed);
        slot
    }

    /// Another message with the same body, with one reference and nothing owed. It has the same record, unless one of them
    /// has a key: a `Deliver` of a record says that what came under the key of that was placed, and this one is something
    /// else, with its own key or none.
    pub(super) fn copy(&mut self, slot: u32, sender: Sender, origin: Option<OriginKey>) -> MessageId {
        let message = self.get(slot);
        let (content, length) = (message.content.clone(), message.length());
        let lsn = if message.is_keyed() || origin.is_some() { Lsn::NONE } else { message.lsn };
        let head = Head {
            qos: message.qos,
            retain: message.retain,
            accepted_at: message.accepted_at,
            expires_at: message.expires_at,
            publisher: message.publisher,
            origin,
        };
        let id = self.insert_parts(content, length, sender, &head);
        self.get_mut(id.slot).lsn = lsn;
        id
    }

    fn insert_parts(
        &mut self,
        content: Option<Content>,
        length: usize,
        sender: Sender,
        head: &Head,
    ) -> MessageId {
        let serial = self.next_serial;
        self.next_serial = self.next_serial.checked_add(1).unwrap_or(1);
        let resident = content.as_ref().map_or(0, |content| content.len() as u64);
        self.resident_bytes += resident;
        self.held_bytes += resident;
        let slot = self.slots.insert(Message {
            serial,
            content,
            length: u32::try_from(length).expect("a packet's length fits 32 bits"),
            qos: head.qos,
            retain: head.retain,
            placed: false,
            covered: false,
            pinned: false,
            travelling: false,
            forgiven: false,
            answered: false,
            evictable: false,
            settled: false,
            lsn: Lsn::NONE,
            accepted_at: head.accepted_at,
            expires_at: head.expires_at,
            publisher: head.publisher,
            origin: head.origin,
            keyed: false,
            sender,
            owed: Few::None,
            owing_durable: 0,
            owing_volatile: 0,
            remote: Remote::default(),
            taken: 0,
            refused: 0,
            references: 1,
        });
        MessageId { slot: u32::try_from(slot).expect("fewer messages than 2^32"), serial }
    }

    /// The message in that slot; the caller holds a reference.
    pub(super) fn get(&self, slot: u32) -> &Message {
        &self.slots[slot as usize]
    }

    /// The message in that slot; the caller holds a reference.
    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Message {
        &mut self.slots[slot as usize]
    }

    /// The message, if it is still that one.
    pub(super) fn find(&mut self, id: MessageId) -> Option<&mut Message> {
        self.slots.get_mut(id.slot as usize).filter(|message| message.serial == id.serial)
    }

    /// The full id of the message in that slot.
    pub(super) fn id(&self, slot: u32) -> MessageId {
        MessageId { slot, serial: self.get(slot).serial }
    }

    /// One more reference.
    pub(super) fn retain(&mut self, slot: u32) {
        self.get_mut(slot).references += 1;
    }

    /// One reference less; the last one removes the message and returns it.
    pub(super) fn release(&mut self, slot: u32) -> Option<Message> {
        let message = self.get_mut(slot);
        message.references = message.references.checked_sub(1).expect("every release follows its reference");
        if message.references > 0 {
            return None;
        }
        let message = self.slots.remove(slot as usize);
        self.pinned -= usize::from(message.pinned);
        self.resident_bytes -= message.resident_bytes();
        self.held_bytes -= message.held_bytes();
        Some(message)
    }

    /// Keep the body in memory, or no longer, as the retained message of its topic.
    pub(super) fn pin(&mut self, slot: u32, pinned: bool) {
        let message = &mut self.slots[slot as usize];
        self.pinned -= usize::from(message.pinned);
        self.resident_bytes -= message.resident_bytes();
        self.held_bytes -= message.held_bytes();
        message.pinned = pinned;
        self.pinned += usize::from(message.pinned);
        self.resident_bytes += message.resident_bytes();
        self.held_bytes += message.held_bytes();
    }

    /// The body travels on: this shard needs it no more.
    pub(super) fn take_bytes(&mut self, slot: u32) {
        let message = &mut self.slots[slot as usize];
        self.resident_bytes -= message.resident_bytes();
        self.held_bytes -= message.held_bytes();
        message.content = None;
    }

    /// The body came back from disk, for as long as there is room.
    pub(super) fn restore_bytes(&mut self, slot: u32, body: &Body<'_>) {
        self.keep_bytes(slot, body);
        self.make_evictable(slot);
    }

    /// Whether bodies may be brought into memory before they are due.
    pub(super) fn has_room_to_read_ahead(&self) -> bool {
        self.resident_bytes < self.resident_bytes_max / 2
    }

    /// The body came back from disk, to stay until `make_evictable` or `take_bytes`.
    pub(super) fn keep_bytes(&mut self, slot: u32, body: &Body<'_>) {
        let content = Content::new(body.topic, std::iter::once(body.forward), body.payload);
        let message = &mut self.slots[slot as usize];
        assert!(message.content.is_none(), "only a body that is not in memory is fetched");
        assert!(message.length() == content.len(), "the body is the one that was written");
        (message.qos, message.retain) = (body.qos, body.retain);
        (message.accepted_at, message.expires_at) = (body.accepted_at, body.expires_at);
        message.content = Some(content);
        self.resident_bytes += message.resident_bytes();
        self.held_bytes += message.held_bytes();
    }

    /// The body is on disk: it may leave memory when there is too much.
    pub(super) fn make_evictable(&mut self, slot: u32) {
        let message = &mut self.slots[slot as usize];
        assert!(message.lsn.is_some(), "what is dropped from memory is on disk");
        if !message.evictable && message.content.is_some() {
            self.held_bytes -= message.held_bytes();
            message.evictable = true;
            let id = MessageId { slot, serial: message.serial };
            self.evictable.push_back(id);
        }
        self.evict();
    }

    /// The body is about to travel, and stays in memory until `make_evictable`.
    pub(super) fn keep(&mut self, slot: u32) {
        let message = &mut self.slots[slot as usize];
        self.held_bytes -= message.held_bytes();
        message.evictable = false;
        self.held_bytes += message.held_bytes();
    }

    /// Oldest first. Stale names behind a long-lived front are swept out when they are the majority.
    fn evict(&mut self) {
        if self.evictable.len() > 64 + 2 * self.slots.len() {
            let slots = &self.slots;
            self.evictable.retain(|id| slots.get(id.slot as usize).is_some_and(|m| m.serial == id.serial));
        }
        while let Some(&id) = self.evictable.front() {
            let live = self.slots.get_mut(id.slot as usize).filter(|message| message.serial == id.serial);
            match live {
                Some(message) if message.evictable && message.content.is_some() && !message.pinned => {
                    if self.resident_bytes <= self.resident_bytes_max || self.evictable.len() == 1 {
                        return;
                    }
                    message.evictable = false;
                    let content = message.content.take().expect("just seen");
                    self.resident_bytes -= content.len() as u64;
                }
                Some(message) => message.evictable = false,
                None => {}
            }
            self.evictable.pop_front();
        }
    }
}

fn length_of(body: &Body<'_>) -> usize {
    body.topic.len() + body.forward.len() + body.payload.len()
}

/// What a message is made with besides its content.
struct Head {
    qos: QoS,
    retain: bool,
    accepted_at: UnixMs,
    expires_at: UnixMs,
    publisher: PublisherKey,
    origin: Option<OriginKey>,
}
