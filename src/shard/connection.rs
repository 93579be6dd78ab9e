//! The shard's side of a connection: the socket, where its bytes stand, and nothing the broker decides.
//!
//! One table per shard. A hot entry is small and always there; [`Buffers`] hang on it only while something is under
//! way (a handshake, half a packet, output the peer has not taken) and come from a pool. So an idle connection costs
//! one entry and the entry of the kernel's epoll set. Called by `inbound` and `outbound`; sockets are opened and
//! closed there.
//!
//! Invariants: an id names at most one connection ever (the generation changes when a slot is freed, and a stale id
//! finds nothing); a slot is freed only when the reactor will say nothing more for its token.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::ids::ConnectionId;
use crate::limits::{
    BUFFER_BYTES_KEPT_MAX, BUFFERS_KEPT_MAX, CONNECTIONS_PER_SHARD_MAX, OUTPUT_BYTES_MAX, PARKED_BYTES_MAX,
};
use crate::reactor::Socket;
use crate::time::Nanos;
use crate::transport::Transport;
use crate::wire::Version;

use super::entrance::Entrance;
use super::large::Large;
use super::wrapped::Transports;

/// Where a connection is in its life.
///
/// | from | event | to |
/// |---|---|---|
/// | `Handshake` | CONNECT of another shard's account | `Moving` |
/// | `Handshake` | CONNECT of ours | `Live` |
/// | `Handshake` | bad or late CONNECT, with an answer | `Closing` |
/// | `Handshake` | end of stream, error, late | `Gone` |
/// | `Moving` | `Detached` | freed |
/// | `Live` | the broker closes | `Closing` |
/// | `Live` | end of stream, error | `Gone` |
/// | `Closing` | output taken, error, or too late | `Gone` |
/// | `Gone` | `Closed` | freed |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The slot is free.
    Free,
    /// Waiting for a whole CONNECT.
    Handshake,
    /// On the way to its home shard.
    Moving,
    /// The broker knows it.
    Live,
    /// The broker has forgotten it; what is in the output still leaves.
    Closing,
    /// `Op::Close` is submitted.
    Gone,
}

/// Facts that are true or not; a set in 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Flag {
    /// In the list of those to read from.
    Ready = 1 << 0,
    /// A `Recv` is in flight.
    Receiving = 1 << 1,
    /// `Ready` came while a `Recv` was in flight: what it returns may be from before.
    ReadyAgain = 1 << 2,
    /// There may be something to read, but reading has to wait (`Paused`, `Held`, output full).
    Deferred = 1 << 3,
    /// A `Send` is in flight.
    Sending = 1 << 4,
    /// In the list of those with something to submit.
    Flush = 1 << 5,
    /// In the list of those whose progress is watched.
    Watched = 1 << 6,
    /// The broker parses no publishes for now.
    Paused = 1 << 7,
    /// The broker parses nothing for now.
    Held = 1 << 8,
    /// In the list of those to parse parked bytes of.
    Resumed = 1 << 9,
    /// The output was full: the broker is owed `Drained`.
    Full = 1 << 10,
    /// Closing, and the peer is still sending: wait for its end of stream, so that it reads our last word.
    Linger = 1 << 11,
    /// There are whole packets that wait for `Resume`.
    Parked = 1 << 12,
    /// The peer has ended its stream behind what is parked.
    Ended = 1 << 13,
    /// It has had its turn: what `partial` has is more than the beginning of a packet, and is handled in the next one.
    Unparsed = 1 << 14,
    /// Its bytes go through a transport.
    Wrapped = 1 << 15,
    /// Its CONNECT has been paid for, where they are limited.
    ConnectPaid = 1 << 16,
    /// The same of its handshake.
    HandshakePaid = 1 << 17,
}

/// A connection, hot.
#[derive(Debug)]
pub struct Entry {
    /// The socket.
    pub socket: Socket,
    generation: u32,
    flags: u32,
    /// Where it is in its life.
    pub phase: Phase,
    /// From its CONNECT.
    pub version: Option<Version>,
    buffers: Option<Box<Buffers>>,
}

const _: () = assert!(size_of::<Entry>() <= 32, "two million of these are idle");

/// What a busy connection has.
#[derive(Debug)]
pub struct Buffers {
    /// Who connected; kept for the handshake only.
    pub peer: SocketAddr,
    /// At which listener; as above.
    pub listener: u32,
    /// What it has before it is let in.
    pub entrance: Option<Box<Entrance>>,
    /// The beginning of a packet whose end has not come; or, with `Flag::Unparsed`, whatever follows.
    pub partial: Vec<u8>,
    /// A large PUBLISH whose end has not come; then `partial` is empty.
    pub large: Option<Box<Large>>,
    /// Whole packets that wait for `Resume`.
    pub parked: Vec<u8>,
    /// Packets for the peer that are not submitted.
    pub output: Vec<u8>,
    /// What came back from a short send.
    pub unsent: Vec<u8>,
    /// Where the unsent part of `unsent` begins.
    pub unsent_from: usize,
    /// Bytes submitted and not taken.
    pub in_flight: usize,
    /// Bytes that were read after it was refused.
    pub dropped: usize,
    /// When the peer last took something, or had nothing to take.
    pub progress: Nanos,
    /// When `parked` became so full that nothing more is read.
    pub parked_since: Nanos,
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers {
            peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            listener: 0,
            entrance: None,
            partial: Vec::new(),
            large: None,
            parked: Vec::new(),
            output: Vec::new(),
            unsent: Vec::new(),
            unsent_from: 0,
            in_flight: 0,
            dropped: 0,
            progress: Nanos(0),
            parked_since: Nanos::NEVER,
        }
    }
}

impl Buffers {
    /// Whether it is as new, but for room for output.
    fn has_only_output(&self) -> bool {
        let others = self.partial.capacity() | self.parked.capacity() | self.unsent.capacity();
        others == 0
            && self.large.is_none()
            && self.entrance.is_none()
            && self.output.is_empty()
            && self.output.capacity() <= BUFFER_BYTES_KEPT_MAX
            && self.parked_since == Nanos::NEVER
            && self.in_flight == 0
            && self.dropped == 0
    }

    /// Bytes that the peer has not taken.
    pub fn backlog(&self) -> usize {
        self.output.len() + (self.unsent.len() - self.unsent_from) + self.in_flight
    }
}

impl Entry {
    /// Whether the flag is set.
    pub fn is(&self, flag: Flag) -> bool {
        self.flags & flag as u32 != 0
    }

    /// Sets the flag; returns whether it was set.
    pub fn set(&mut self, flag: Flag) -> bool {
        let was = self.is(flag);
        self.flags |= flag as u32;
        was
    }

    /// Clears the flag; returns whether it was set.
    pub fn clear(&mut self, flag: Flag) -> bool {
        let was = self.is(flag);
        self.flags &= !(flag as u32);
        was
    }

    /// Whether packets have to be parked instead of handled.
    pub fn parks(&self) -> bool {
        self.flags & (Flag::Paused as u32 | Flag::Held as u32 | Flag::Parked as u32) != 0
    }

    /// Whether more may be read from it now: there is somewhere to put it.
    pub fn may_read(&self) -> bool {
        let parked = self.buffers.as_ref().map_or(0, |buffers| buffers.parked.len());
        !self.is(Flag::Held)
            && !self.is(Flag::Ended)
            && !self.is(Flag::Unparsed)
            && parked < PARKED_BYTES_MAX
            && self.backlog() < OUTPUT_BYTES_MAX
            && matches!(self.phase, Phase::Handshake | Phase::Live | Phase::Closing)
    }

    /// Its buffers, fetched from the pool if it had none.
    pub fn buffers_mut(&mut self, pool: &mut Pool) -> &mut Buffers {
        self.buffers.get_or_insert_with(|| pool.boxes.pop().unwrap_or_default())
    }

    /// Its buffers, if something is under way.
    pub fn buffers(&self) -> Option<&Buffers> {
        self.buffers.as_deref()
    }

    /// Bytes that the peer has not taken.
    pub fn backlog(&self) -> usize {
        self.buffers.as_ref().map_or(0, |buffers| buffers.backlog())
    }

    /// Bytes of output that are welcome.
    pub fn room(&self) -> usize {
        OUTPUT_BYTES_MAX.saturating_sub(self.backlog())
    }
}

/// Vectors and boxes to be used again: bounded in number and size.
#[derive(Debug, Default)]
pub struct Pool {
    vectors: Vec<Vec<u8>>,
    #[expect(clippy::vec_box, reason = "the boxes move between here and connections without a copy")]
    boxes: Vec<Box<Buffers>>,
}

impl Pool {
    /// An empty vector, with room if there is one.
    pub fn take(&mut self) -> Vec<u8> {
        self.vectors.pop().unwrap_or_default()
    }

    /// Takes a vector back.
    pub fn put(&mut self, mut vector: Vec<u8>) {
        let useful = vector.capacity() > 0 && vector.capacity() <= BUFFER_BYTES_KEPT_MAX;
        if useful && self.vectors.len() < BUFFERS_KEPT_MAX {
            vector.clear();
            self.vectors.push(vector);
        }
    }

    /// Takes a box back. Most come from a connection that was answered, and was told all of it: `output` stays where the
    /// next one will look for it, and nothing else is there.
    fn put_box(&mut self, mut buffers: Box<Buffers>) {
        if self.boxes.len() >= BUFFERS_KEPT_MAX {
            return;
        }
        if !buffers.has_only_output() {
            self.empty(&mut buffers);
        }
        self.boxes.push(buffers);
    }

    #[cold]
    fn empty(&mut self, buffers: &mut Buffers) {
        let buffers = std::mem::take(buffers);
        for vector in [buffers.partial, buffers.parked, buffers.output, buffers.unsent] {
            self.put(vector);
        }
    }
}

/// The connections of one shard.
#[derive(Debug)]
pub struct Connections {
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Those to read from, in order: each once, each with `Flag::Ready`. Stale ids may be among them.
    pub ready: VecDeque<ConnectionId>,
    /// Those with bytes that were read and not parsed, in order: each once, each with `Flag::Unparsed`. Stale ids as above.
    pub unparsed: VecDeque<ConnectionId>,
    /// Where buffers come from.
    pub pool: Pool,
    /// Of those with `Flag::Wrapped`.
    pub transports: Transports,
    /// `CONNECTIONS_PER_SHARD_MAX`, unless a test makes it small.
    entries_max: usize,
}

impl Default for Connections {
    fn default() -> Self {
        Connections {
            entries: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            unparsed: VecDeque::new(),
            pool: Pool::default(),
            transports: Transports::default(),
            entries_max: CONNECTIONS_PER_SHARD_MAX,
        }
    }
}

impl Connections {
    /// A new connection in `Handshake`; `None` if the table is full.
    pub fn insert(&mut self, socket: Socket, peer: SocketAddr) -> Option<ConnectionId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.entries.len() < self.entries_max => {
                self.entries.push(Entry {
                    socket,
                    generation: 0,
                    flags: 0,
                    phase: Phase::Free,
                    version: None,
                    buffers: None,
                });
                (self.entries.len() - 1) as u32
            }
            None => return None,
        };
        let mut buffers = self.pool.boxes.pop().unwrap_or_default();
        buffers.peer = peer;
        let entry = &mut self.entries[slot as usize];
        debug_assert!(entry.phase == Phase::Free && entry.flags == 0);
        entry.socket = socket;
        entry.phase = Phase::Handshake;
        entry.buffers = Some(buffers);
        Some(ConnectionId { slot, generation: entry.generation })
    }

    /// Lets its bytes go through that transport.
    pub fn wrap(&mut self, id: ConnectionId, transport: Box<Transport>) {
        if let Some(entry) = self.get_mut(id) {
            entry.set(Flag::Wrapped);
            self.transports.insert(id.slot, transport);
        }
    }

    /// The connection, unless the id is stale.
    pub fn get(&self, id: ConnectionId) -> Option<&Entry> {
        self.entries
            .get(id.slot as usize)
            .filter(|entry| entry.generation == id.generation && entry.phase != Phase::Free)
    }

    /// The connection, unless the id is stale.
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Entry> {
        self.entries
            .get_mut(id.slot as usize)
            .filter(|entry| entry.generation == id.generation && entry.phase != Phase::Free)
    }

    /// The connection if it is in that phase.
    pub fn in_phase(&mut self, id: ConnectionId, phase: Phase) -> Option<&mut Entry> {
        self.get_mut(id).filter(|entry| entry.phase == phase)
    }

    /// The connection and the pool its buffers come from, unless the id is stale.
    pub fn with_pool(&mut self, id: ConnectionId) -> Option<(&mut Entry, &mut Pool)> {
        let pool = &mut self.pool;
        self.entries
            .get_mut(id.slot as usize)
            .filter(|entry| entry.generation == id.generation && entry.phase != Phase::Free)
            .map(|entry| (entry, pool))
    }

    /// The connection, the pool, and its transport; nothing if it has none here.
    pub fn with_transport(&mut self, id: ConnectionId) -> Option<(&mut Entry, &mut Pool, &mut Transport)> {
        let (pool, transports) = (&mut self.pool, &mut self.transports);
        let entry =
            self.entries.get_mut(id.slot as usize).filter(|entry| entry.generation == id.generation)?;
        let transport = if entry.is(Flag::Wrapped) { transports.get_mut(id.slot)? } else { return None };
        Some((entry, pool, transport))
    }

    /// Puts the connection into the list of those to read from, once.
    pub fn mark_ready(&mut self, id: ConnectionId) {
        if self.get_mut(id).is_some_and(|entry| !entry.set(Flag::Ready)) {
            self.ready.push_back(id);
        }
    }

    /// Keeps what was read of a connection and not parsed, for its next turn.
    pub fn put_off(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some((entry, pool)) = self.with_pool(id) else { return };
        let mut rest = pool.take();
        rest.extend_from_slice(bytes);
        entry.buffers_mut(pool).partial = rest;
        entry.set(Flag::Unparsed);
        self.unparsed.push_back(id);
    }

    /// Reading had to wait; now it may not have to.
    pub fn undefer(&mut self, id: ConnectionId) {
        if self.get_mut(id).is_some_and(|entry| entry.clear(Flag::Deferred)) {
            self.mark_ready(id);
        }
    }

    /// Gives the buffers back if nothing is under way any more.
    pub fn settle(&mut self, id: ConnectionId) {
        let Some(entry) = self.entries.get_mut(id.slot as usize) else { return };
        if entry.generation != id.generation || entry.phase == Phase::Handshake {
            return;
        }
        let busy = entry.buffers.as_ref().is_some_and(|buffers| {
            buffers.backlog() > 0
                || buffers.dropped > 0
                || !buffers.partial.is_empty()
                || !buffers.parked.is_empty()
                || buffers.large.is_some()
        });
        if !busy && let Some(buffers) = entry.buffers.take() {
            self.pool.put_box(buffers);
        }
    }

    /// Frees the slot: the reactor says nothing more for that token.
    pub fn remove(&mut self, id: ConnectionId) {
        let Some(entry) = self.entries.get_mut(id.slot as usize) else { return };
        if entry.generation != id.generation || entry.phase == Phase::Free {
            return;
        }
        entry.generation = entry.generation.wrapping_add(1);
        entry.phase = Phase::Free;
        if entry.is(Flag::Wrapped) {
            self.transports.remove(id.slot);
        }
        entry.flags = 0;
        entry.version = None;
        if let Some(buffers) = entry.buffers.take() {
            self.pool.put_box(buffers);
        }
        self.free.push(id.slot);
    }

    /// How many there are, whatever their phase.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every connection in that phase. Walks the table: for stopping only.
    pub fn all_in(&self, phase: Phase) -> impl Iterator<Item = ConnectionId> {
        self.entries
            .iter()
            .enumerate()
            .filter(move |(_, entry)| entry.phase == phase)
            .map(|(slot, entry)| ConnectionId { slot: slot as u32, generation: entry.generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SocketAddr {
        "127.0.0.1:1000".parse().unwrap()
    }

    #[test]
    fn a_stale_id_finds_nothing() {
        let mut connections = Connections::default();
        let first = connections.insert(Socket(7), peer()).unwrap();
        assert_eq!(connections.get(first).unwrap().socket, Socket(7));
        connections.remove(first);
        assert!(connections.get(first).is_none());
        let second = connections.insert(Socket(8), peer()).unwrap();
        assert_eq!(second.slot, first.slot);
        assert!(connections.get(first).is_none());
        connections.remove(first);
        assert_eq!(connections.len(), 1, "a stale id frees nothing");
        assert_eq!(connections.get(second).unwrap().socket, Socket(8));
    }

    #[test]
    fn a_table_of_connections_per_shard_max_takes_another_only_when_one_has_gone() {
        assert_eq!(Connections::default().entries_max, CONNECTIONS_PER_SHARD_MAX);
        let mut connections = Connections { entries_max: 2, ..Connections::default() };
        let first = connections.insert(Socket(7), peer()).unwrap();
        connections.insert(Socket(8), peer()).unwrap();
        assert_eq!(connections.insert(Socket(9), peer()), None, "the caller closes it");
        assert_eq!(connections.len(), 2);
        connections.remove(first);
        assert_eq!(connections.insert(Socket(9), peer()).unwrap().slot, first.slot);
    }

    #[test]
    fn an_idle_connection_owns_no_buffer() {
        let mut connections = Connections::default();
        let id = connections.insert(Socket(7), peer()).unwrap();
        connections.settle(id);
        assert!(connections.get(id).unwrap().buffers().is_some(), "the handshake keeps the address");
        connections.get_mut(id).unwrap().phase = Phase::Live;
        connections.settle(id);
        assert!(connections.get(id).unwrap().buffers().is_none());
        let (entry, pool) = connections.with_pool(id).unwrap();
        entry.buffers_mut(pool).output.extend_from_slice(b"abc");
        connections.settle(id);
        assert_eq!(connections.get(id).unwrap().backlog(), 3);
        let (entry, pool) = connections.with_pool(id).unwrap();
        entry.buffers_mut(pool).output.clear();
        connections.settle(id);
        assert!(connections.get(id).unwrap().buffers().is_none());
        assert_eq!(connections.pool.boxes.len(), 1);
        let (entry, pool) = connections.with_pool(id).unwrap();
        assert!(entry.buffers_mut(pool).output.capacity() >= 3, "the vector is used again");
    }

    #[test]
    fn the_pool_keeps_neither_large_nor_many_buffers() {
        let mut pool = Pool::default();
        pool.put(Vec::with_capacity(BUFFER_BYTES_KEPT_MAX + 1));
        assert_eq!(pool.take().capacity(), 0);
        for _ in 0..BUFFERS_KEPT_MAX + 10 {
            pool.put(Vec::with_capacity(1));
        }
        assert_eq!(pool.vectors.len(), BUFFERS_KEPT_MAX);
        let output = Vec::with_capacity(BUFFER_BYTES_KEPT_MAX + 1);
        pool.put_box(Box::new(Buffers { output, ..Buffers::default() }));
        assert_eq!(pool.boxes.pop().unwrap().output.capacity(), 0);
        let parked = Vec::with_capacity(1);
        pool.put_box(Box::new(Buffers {
            parked,
            parked_since: Nanos(1),
            in_flight: 7,
            ..Buffers::default()
        }));
        let again = pool.boxes.pop().unwrap();
        assert!(again.parked.capacity() == 0 && again.parked_since == Nanos::NEVER && again.backlog() == 0);
    }
}
