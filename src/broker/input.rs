//! Everything that can happen to a broker.
//!
//! Inputs come in the order they happened on this shard. Foreign bytes have been decoded before; what is here is
//! well-formed, though a peer may still break the protocol.

use std::net::IpAddr;
use std::sync::Arc;

use super::overload::Pressure;
use super::route::MeshMessage;
use crate::access::passport::Passport;
use crate::access::permissions::Permissions;
use crate::ids::{ConnectionId, Lsn, SessionKey, ShardId};
use crate::live::Facts;
use crate::record::{Body, Record};
use crate::time::UnixMs;
use crate::wire::{Connect, Packet, ReasonCode};

/// An event. Handled by `Broker::handle`, which yields at most a constant number of effects for each.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection that belongs to this shard sent a valid CONNECT.
    Connect {
        /// Its id, valid until `Effect::Close` or `Input::Closed`.
        connection: ConnectionId,
        /// The packet.
        connect: &'a Connect<'a>,
        /// The client id to use: the packet's, or the one assigned if that was empty.
        client_id: &'a str,
        /// Whether the id was assigned.
        assigned: bool,
        /// The account, from the setting; empty where it is the client id.
        account: &'a str,
        /// What it has proven, and was granted.
        passport: &'a Passport,
        /// For the log and for limits.
        peer: IpAddr,
    },
    /// A packet on an accepted connection.
    Packet {
        /// From whom.
        connection: ConnectionId,
        /// What.
        packet: &'a Packet<'a>,
    },
    /// A PUBLISH on an accepted connection, received into a place of its own.
    Large {
        /// From whom.
        connection: ConnectionId,
        /// The PUBLISH. It names its topic, with or without an alias.
        packet: &'a Packet<'a>,
        /// Its topic, forwarded properties and payload, back to back: the message keeps that, and nothing is copied.
        body: &'a Arc<[u8]>,
    },
    /// A packet on an accepted connection that is not the broker's business.
    Heard {
        /// From whom.
        connection: ConnectionId,
    },
    /// A packet beyond what the rate limits allow: a SUBSCRIBE is refused, for any other the connection ends.
    Refused {
        /// From whom.
        connection: ConnectionId,
        /// What.
        packet: &'a Packet<'a>,
    },
    /// A connection has used up what it may send for now (or may send again): pause (or resume) it.
    Throttled {
        /// Which.
        connection: ConnectionId,
        /// Whether to pause.
        on: bool,
    },
    /// How often each rate limit was exceeded since start; told now and then, for `$SYS`.
    Exceeded {
        /// Connects, handshakes, publishes, bytes, subscriptions.
        exceeded: [u64; 5],
    },
    /// A client, or all clients of an account, have used up so much of a rate limit that outlives a restart; told ahead, now
    /// and then.
    Spent {
        /// Empty where it is the client id.
        account: &'a str,
        /// Empty if it is the account's limit.
        client_id: &'a str,
        /// Which; `rates::number_of` has the numbers.
        limit: u8,
        /// When it is whole again.
        full_at: UnixMs,
    },
    /// The bytes of a connection are not MQTT: answer with that reason (v5) and close.
    Malformed {
        /// From whom.
        connection: ConnectionId,
        /// Why.
        reason: ReasonCode,
    },
    /// The connection ended without `Effect::Close`: end of stream, reset, or a write that failed.
    Closed {
        /// Which.
        connection: ConnectionId,
    },
    /// A connection that had no `room` has some again.
    Drained {
        /// Which.
        connection: ConnectionId,
    },
    /// Every record up to and including that one is on disk.
    Durable {
        /// The mark; never goes back.
        lsn: Lsn,
    },
    /// Answer to `Effect::Fetch`.
    Fetched {
        /// From the effect.
        lsn: Lsn,
        /// The body in that record.
        body: Body<'a>,
    },
    /// The journal's reserve is reached (or free again): refuse (or take) what would need more disk.
    DiskReserve {
        /// Whether to refuse.
        reached: bool,
    },
    /// More records wait for the disk than may (or half of them are written): pause (or resume) whoever publishes.
    DiskBehind {
        /// Whether to pause.
        behind: bool,
    },
    /// What weighs on the shard, as measured; told when it has changed.
    Pressure {
        /// In percent of what it can bear.
        pressure: Pressure,
    },
    /// What the shard's journal has done since start; told now and then, for `$SYS`.
    Journal {
        /// Bytes submitted to be written. By those appended: the write amplification.
        bytes_written: u64,
        /// Bytes of records appended.
        bytes_appended: u64,
        /// Bytes written to copy records out of segments that were given up.
        bytes_copied: u64,
        /// Syncs submitted.
        syncs: u64,
    },
    /// From another shard.
    Mesh {
        /// Who.
        from: ShardId,
        /// What.
        message: MeshMessage,
    },
    /// The ring to that shard, found full before, has room.
    MeshRoom {
        /// Which.
        to: ShardId,
    },
    /// Recovery: a record of this shard's journal, in LSN order, before anything else.
    Replay {
        /// Its number.
        lsn: Lsn,
        /// The record.
        record: Record<'a>,
        /// What has changed since it was written, as far as no later record says so.
        facts: Facts<'a>,
    },
    /// Recovery: that was the last record. Interest is announced to the other shards and inbound messages that were
    /// not routed are routed again (both pulled by `advance`).
    Replayed {
        /// The newest record ever written, also if it is released and so was not replayed. All of it is on disk.
        lsn: Lsn,
        /// The highest session key known to be used, also if no record says so any more; 0 if none is.
        session_key_max: SessionKey,
    },
    /// A backup is taken (or its cuts are made): say of nothing more that another shard has it (or go on, pulled by
    /// `advance`).
    HoldBack {
        /// Whether to hold back.
        on: bool,
    },
    /// Other permissions hold from now on: subscriptions that are not permitted any more are taken back (pulled by `advance`).
    Permissions {
        /// They.
        permissions: Arc<Permissions>,
    },
    /// The process is stopping: tell every client and refuse new ones (pulled by `advance`).
    Drain,
}
