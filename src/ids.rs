//! Names of things inside one process and inside one data directory.
//!
//! Two lifetimes, never mixed: a *slot id* (connection, session, message) is an index into a table of one shard plus
//! a generation, so a stale one is recognised; a *durable id* (`Lsn`, `SessionKey`, `OriginKey`) is what records in
//! the journal use, and is never reused.

/// Which shard: an index from 0 to the shard count - 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The shard as an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A connection of this shard: the slot of its socket and the slot's generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId {
    /// Index into the shard's connection table.
    pub slot: u32,
    /// Incremented each time the slot is reused.
    pub generation: u32,
}

/// Log sequence number of one shard's journal: strictly increasing, never reused; 0 means "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first record.
    pub const NONE: Lsn = Lsn(0);

    /// The number after this one.
    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }

    /// Whether this names a record.
    pub fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// A session's name in the journal of its home shard: never reused within a data directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SessionKey(pub u64);

impl SessionKey {
    /// No session.
    pub const NONE: SessionKey = SessionKey(0);
}

/// Who published a message: a keyed hash of the client's identity, the same for every session of that client
/// `[MQTT-4.6.0-6]` `[MQTT-3.8.3-3]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublisherKey(pub u64);

impl PublisherKey {
    /// No client: a will, the broker itself, or not known any more.
    pub const NOBODY: PublisherKey = PublisherKey(0);
}

/// The routing key of a QoS 2 message: the home shard of its publisher and the LSN of the inbound record there.
///
/// A recipient shard that has seen the key drops the repeat, and the shared subscriptions that have had it are known, which
/// is what makes re-routing after a crash exact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OriginKey {
    /// Home shard of the publisher.
    pub shard: ShardId,
    /// LSN of the inbound record in that shard's journal.
    pub lsn: Lsn,
}
