//! Everything a broker can want done, and the one method through which it wants it.
//!
//! Effects borrow from the broker's tables and are performed at once, in order, by `shard::outbound`: a packet is
//! encoded into its connection's output straight from the message store, without a copy in between. A test performs
//! them by recording them.

use super::route::MeshMessage;
use crate::ids::{ConnectionId, Lsn, ShardId};
use crate::record::Record;
use crate::wire::{Packet, Version};

/// A want.
#[derive(Debug)]
pub enum Effect<'a> {
    /// Append to the connection's output.
    Send {
        /// To whom.
        connection: ConnectionId,
        /// Encoded as this version.
        version: Version,
        /// What.
        packet: Packet<'a>,
    },
    /// Send what is in the output, then close. No input for that id follows; the broker has forgotten it.
    Close {
        /// Which.
        connection: ConnectionId,
        /// For the log and the metrics.
        reason: CloseReason,
    },
    /// Stop parsing publishes of this connection (bounded parking; see limits). Undone by `Resume`.
    Pause {
        /// Which.
        connection: ConnectionId,
    },
    /// Stop parsing anything: what comes next must wait for our own sync (CONNACK first). Undone by `Resume`.
    Hold {
        /// Which.
        connection: ConnectionId,
    },
    /// Go on parsing, after `Pause` or `Hold`.
    Resume {
        /// Which.
        connection: ConnectionId,
    },
    /// Append to the journal; `Input::Durable` will say when it is on disk.
    Append {
        /// Its number, one more than the last.
        lsn: Lsn,
        /// What.
        record: Record<'a>,
    },
    /// Read the body of that record back; `Input::Fetched` answers.
    Fetch {
        /// A `Message` or `Inbound` record.
        lsn: Lsn,
    },
    /// To another shard, never to this one.
    Mesh {
        /// To whom.
        to: ShardId,
        /// What.
        message: MeshMessage,
    },
    /// Something an operator may want to know.
    Log(Event<'a>),
}

/// Why the broker closed a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CloseReason {
    /// DISCONNECT from the client.
    Client,
    /// CONNACK with a failure was sent.
    Refused,
    /// Another connection took the session.
    TakenOver,
    /// Nothing arrived for one and a half keep alive intervals.
    KeepAlive,
    /// The bytes were not MQTT, or the packet broke the protocol.
    Protocol,
    /// The peer does not read, and its bounded backlog stayed full too long.
    SlowReader,
    /// A bound was reached that the protocol can only answer by closing.
    Limit,
    /// What it was let in with has expired.
    NotAuthorized,
    /// The process is stopping.
    Draining,
}

/// Log events of the broker; never a payload or a credential.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Event<'a> {
    /// A session's queue was full and it was not the only recipient; said once per gap, not per message.
    QueueFull {
        /// Whose.
        client_id: &'a str,
    },
    /// Something gives way to what matters more, or does no longer. See `overload`.
    Overload {
        /// What.
        step: &'static str,
        /// Or left.
        entered: bool,
        /// What weighs most, of what it relieves.
        source: &'static str,
        /// How much, in percent of what the shard can bear.
        percent: u8,
    },
    /// Fewer than all records could be applied at replay: a bug or a foreign journal.
    ReplayInconsistent {
        /// Where.
        lsn: Lsn,
        /// What did not fit.
        what: &'static str,
    },
}

/// Where effects go. Also answers the one question whose answer the broker cannot know.
pub trait Effects {
    /// Do it. Cannot fail from the broker's point of view: failure comes back as an input.
    fn perform(&mut self, effect: Effect<'_>);

    /// Bytes the connection's output still takes; 0 means wait for `Input::Drained`.
    fn room(&self, connection: ConnectionId) -> usize;

    /// Whether the ring to that shard takes another request; false means wait for `Input::MeshRoom`.
    fn mesh_room(&self, to: ShardId) -> bool;

    /// The same for `MeshMessage::Deliver`, which has room of its own.
    fn mesh_deliver_room(&self, to: ShardId) -> bool;
}
