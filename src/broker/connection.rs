//! The connections of a shard: what lives no longer than a socket.
//!
//! An idle connection is 40 bytes here; what only publishers need (acknowledgements owed in order, aliases) is
//! behind one handle.

use std::collections::VecDeque;

use crate::access::passport::Reply;
use crate::ids::{ConnectionId, PublisherKey};
use crate::wire::{AckKind, PacketId, ReasonCode, Version};

/// Broker-side state of one connection.
#[derive(Debug)]
pub(super) struct Connection {
    generation: u32,
    /// Slot of its session.
    pub(super) session: u32,
    pub(super) version: Version,
    /// The client takes reason strings and user properties anywhere.
    pub(super) problem_information: bool,
    /// Whose it is has been proven.
    pub(super) is_proven: bool,
    /// CONNACK has not left yet.
    pub(super) awaiting_connack: bool,
    /// It was told to stop parsing publishes until it ends some of its exchanges.
    pub(super) paused: bool,
    /// It published while the shard was behind, and parses no publishes until that is over.
    pub(super) waits: bool,
    /// It has used up what it may send, and parses no publishes until it may again.
    pub(super) throttled: bool,
    /// Its output is full.
    pub(super) blocked: bool,
    /// Unacknowledged deliveries it takes at once, already cut to our own limit.
    pub(super) window: u16,
    /// Topic aliases it takes from us, already cut to our own limit.
    pub(super) aliases_out_max: u16,
    /// Largest packet it takes.
    pub(super) packet_bytes_max: u32,
    /// What only some connections need.
    pub(super) exchange: Option<Box<Exchange>>,
}

const _: () = assert!(std::mem::size_of::<Option<Connection>>() <= 40);

impl Connection {
    pub(super) fn new(id: ConnectionId, session: u32, version: Version) -> Connection {
        Connection {
            generation: id.generation,
            session,
            version,
            problem_information: true,
            is_proven: false,
            awaiting_connack: true,
            paused: false,
            waits: false,
            throttled: false,
            blocked: false,
            window: 0,
            aliases_out_max: 0,
            packet_bytes_max: u32::MAX,
            exchange: None,
        }
    }

    /// Whether it parses no publishes, for any reason.
    pub(super) fn is_paused(&self) -> bool {
        self.paused || self.waits || self.throttled
    }

    /// The state that only some connections need, made when first needed.
    pub(super) fn exchange(&mut self) -> &mut Exchange {
        self.exchange.get_or_insert_default()
    }
}

/// What a connection needs once it publishes, takes aliases, or is told of a gap.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) acknowledgements: Acknowledgements,
    /// The client as a publisher, once it has published.
    pub(super) publisher: Option<PublisherKey>,
    /// Publishes at QoS 1 and 2 whose exchange is not over, for the receive maximum.
    pub(super) outstanding: u16,
    /// Topic by alias - 1, as the client defined them.
    pub(super) aliases_in: Vec<Option<Box<str>>>,
    /// Topics we gave an alias, in order: the alias is the index + 1.
    pub(super) aliases_out: Vec<Box<str>>,
    /// What CONNACK says of how it has proven who it is, until that has left.
    pub(super) reply: Option<Box<Reply>>,
    /// How large a gap its CONNACK told of, until it has shown that it got that.
    pub(super) gap_told: u32,
}

/// An acknowledgement that is due to a publisher.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) kind: AckKind,
    pub(super) packet_id: PacketId,
    pub(super) reason: ReasonCode,
    pub(super) ready: bool,
}

/// PUBACKs and PUBRECs in the order of their PUBLISHes: one that is ready waits for those before it
/// `[MQTT-4.6.0-2]` `[MQTT-4.6.0-3]`.
#[derive(Debug, Default)]
pub(super) struct Acknowledgements {
    /// Sequence number of the front.
    first: u32,
    due: VecDeque<Due>,
}

impl Acknowledgements {
    /// A PUBLISH arrived; the result names its place.
    pub(super) fn expect(&mut self, kind: AckKind, packet_id: PacketId) -> u32 {
        let sequence =
            self.first.wrapping_add(u32::try_from(self.due.len()).expect("bounded by RECEIVE_MAXIMUM"));
        self.due.push_back(Due { kind, packet_id, reason: ReasonCode::Success, ready: false });
        sequence
    }

    /// It may be acknowledged with that reason.
    pub(super) fn ready(&mut self, sequence: u32, reason: ReasonCode) {
        let index = sequence.wrapping_sub(self.first) as usize;
        let due =
            self.due.get_mut(index).expect("an expected acknowledgement is in the queue until it is sent");
        due.reason = reason;
        due.ready = true;
    }

    /// The next one to send.
    pub(super) fn pop_ready(&mut self) -> Option<Due> {
        let due = *self.due.front().filter(|due| due.ready)?;
        self.due.pop_front();
        self.first = self.first.wrapping_add(1);
        Some(due)
    }
}

/// All connections, by slot of their socket.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Vec<Option<Connection>>,
    count: usize,
}

impl Connections {
    pub(super) fn insert(&mut self, id: ConnectionId, connection: Connection) {
        let slot = id.slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        assert!(self.slots[slot].is_none(), "a slot is reused only after its connection was closed");
        self.slots[slot] = Some(connection);
        self.count += 1;
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.get(id)?;
        self.count -= 1;
        self.slots[id.slot as usize].take()
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.slots.get(id.slot as usize)?.as_ref().filter(|connection| connection.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots
            .get_mut(id.slot as usize)?
            .as_mut()
            .filter(|connection| connection.generation == id.generation)
    }

    /// The connection now in that slot.
    pub(super) fn id_in(&self, slot: u32) -> Option<ConnectionId> {
        let connection = self.slots.get(slot as usize)?.as_ref()?;
        Some(ConnectionId { slot, generation: connection.generation })
    }

    /// One more than the highest slot ever used.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).expect("bounded by CONNECTIONS_PER_SHARD_MAX")
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_waits_for_those_before_it() {
        let mut queue = Acknowledgements::default();
        let [one, two, three] = [1, 2, 3].map(|id| PacketId::new(id).expect("not 0"));
        let first = queue.expect(AckKind::Puback, one);
        let second = queue.expect(AckKind::Pubrec, two);
        queue.ready(second, ReasonCode::Success);
        assert!(queue.pop_ready().is_none());
        queue.ready(first, ReasonCode::QuotaExceeded);
        assert_eq!(
            queue.pop_ready().map(|due| (due.packet_id, due.reason)),
            Some((one, ReasonCode::QuotaExceeded))
        );
        assert_eq!(queue.pop_ready().map(|due| (due.packet_id, due.kind)), Some((two, AckKind::Pubrec)));
        let third = queue.expect(AckKind::Puback, three);
        queue.ready(third, ReasonCode::Success);
        assert_eq!(queue.pop_ready().map(|due| due.packet_id), Some(three));
        assert!(queue.pop_ready().is_none());
    }
}
