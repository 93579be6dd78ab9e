//! From effects to bytes: the one implementor of [`Effects`] outside of tests.
//!
//! Decides how output is batched and for how long a peer may not take it, not what is said. A packet is encoded
//! straight into its connection's output; at the end of the turn each connection with output is sent to once. Records
//! go to the journal, messages to the mesh, at once. Called by the broker through [`Effects`], and by the loop.
//!
//! - At most one `Send` per connection is in flight. What is encoded meanwhile is the next one.
//! - A connection whose output reaches [`OUTPUT_BYTES_MAX`] is not read from, so what it makes us answer is bounded
//!   by that, by one receive buffer and by one packet. It gets `Drained` when half of it has left.
//! - An acknowledgement is encoded only because the broker said so, and the broker says so only after `Durable`. So
//!   nothing here waits for the journal; if the journal has failed, the turn ends before anything is sent or submitted.

use std::collections::VecDeque;

use crate::broker::effect::{CloseReason, Effect, Effects, Event};
use crate::broker::route::MeshMessage;
use crate::ids::{ConnectionId, Lsn, ShardId};
use crate::journal::{Journal, Storage};
use crate::limits::{
    BUFFER_BYTES_KEPT_MAX, CLOSE_TIME_MS, DIRECT_CALLS_MAX, OUTPUT_BYTES_MAX, OUTPUT_STALL_MS,
    PARKED_STALL_MS, REACTOR_OPERATIONS_RESERVED, SENT_TOGETHER_BYTES,
};
use crate::reactor::{Errno, Op, Reactor};
use crate::time::Nanos;
use crate::transport::Broken;
use crate::wire::{Auth, Connack, Packet, Version, encode};

use super::connection::{Connections, Flag, Phase};
use super::mesh::Mesh;
use super::target::Target;

/// What the rest of the shard has to do about a completed send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing.
    Nothing,
    /// The broker waits to hear that there is room.
    Drained,
    /// The connection is gone.
    Lost,
}

/// What effects act on.
pub struct Outbound<S> {
    /// Every connection of this shard.
    pub connections: Connections,
    /// Its journal.
    pub journal: Journal<S>,
    /// Something was asked of the journal since the shard last looked what it has to do.
    pub journal_stirred: bool,
    /// Its end of the mesh.
    pub mesh: Mesh,
    /// The time of this turn.
    pub now: Nanos,
    /// Records to be read back, in the order they were asked for.
    pub fetches: VecDeque<Lsn>,
    /// Connections with parked packets that may be handled.
    pub resumed: VecDeque<ConnectionId>,
    /// Connections whose transports could not wrap what was to be said; the caller of `flush` ends them.
    pub unsendable: Vec<(ConnectionId, Broken)>,
    /// Output that peers have not taken, of all connections together, at the last sweep.
    pub backlog_bytes: usize,
    /// Operations to submit, in order.
    ops: VecDeque<Op>,
    /// Connections with something to submit, each once, each with `Flag::Flush`.
    flush: Vec<ConnectionId>,
    /// Connections that may be stalled, each once, each with `Flag::Watched`.
    watched: Vec<ConnectionId>,
    /// When each closing connection is closed whatever is left, in order: the time is the same for all.
    closing: VecDeque<(Nanos, ConnectionId)>,
}

impl<S: Storage> Outbound<S> {
    /// Nothing connected yet.
    pub fn new(journal: Journal<S>, mesh: Mesh) -> Outbound<S> {
        Outbound {
            connections: Connections::default(),
            journal,
            journal_stirred: true,
            mesh,
            now: Nanos(0),
            fetches: VecDeque::new(),
            resumed: VecDeque::new(),
            unsendable: Vec::new(),
            backlog_bytes: 0,
            ops: VecDeque::new(),
            flush: Vec::new(),
            watched: Vec::new(),
            closing: VecDeque::new(),
        }
    }

    /// Queues an operation; it leaves with the next `flush`.
    pub fn submit(&mut self, op: Op) {
        self.ops.push_back(op);
    }

    /// Says one last thing to a connection that is not the broker's yet, and closes it.
    pub fn refuse(&mut self, id: ConnectionId, version: Version, connack: &Connack<'_>) {
        self.encode(id, Phase::Handshake, version, &Packet::Connack(*connack));
        self.close(id, Phase::Handshake);
    }

    /// Asks a client that is not in yet for more.
    pub fn ask(&mut self, id: ConnectionId, auth: &Auth<'_>) {
        self.encode(id, Phase::Handshake, Version::V5, &Packet::Auth(*auth));
    }

    /// Answers an AUTH of a client that is in.
    pub fn answer(&mut self, id: ConnectionId, auth: &Auth<'_>) {
        self.encode(id, Phase::Live, Version::V5, &Packet::Auth(*auth));
    }

    /// Closes the socket now. The broker, if it knows the connection, is told by the caller.
    pub fn lose(&mut self, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(id) else { return };
        if !matches!(entry.phase, Phase::Handshake | Phase::Live | Phase::Closing) {
            return;
        }
        entry.phase = Phase::Gone;
        let socket = entry.socket;
        self.ops.push_back(Op::Close { socket, token: Target::Connection(id).token() });
    }

    /// Puts a connection under observation: it may make no progress.
    pub fn watch(&mut self, id: ConnectionId) {
        if self.connections.get_mut(id).is_some_and(|entry| !entry.set(Flag::Watched)) {
            self.watched.push(id);
        }
    }

    /// Whether everything said so far was submitted.
    pub fn is_flushed(&self) -> bool {
        self.flush.is_empty() && self.ops.is_empty()
    }

    /// Sends to those with output at once where they are few; else one `Send` each. Then submits what else there is, as
    /// far as the reactor has room.
    pub fn flush(&mut self, reactor: &mut impl Reactor) {
        let mut flush = std::mem::take(&mut self.flush);
        let few = flush.len() <= DIRECT_CALLS_MAX;
        for id in &flush {
            self.flush_one(*id, few.then_some(&mut *reactor));
        }
        flush.clear();
        self.flush = flush;
        while reactor.room() > REACTOR_OPERATIONS_RESERVED {
            let Some(op) = self.ops.pop_front() else { return };
            reactor.submit(op);
        }
    }

    fn flush_one(&mut self, id: ConnectionId, reactor: Option<&mut impl Reactor>) {
        let Some(entry) = self.connections.get_mut(id) else { return };
        entry.clear(Flag::Flush);
        let is_wrapped = entry.is(Flag::Wrapped);
        let may_send = matches!(entry.phase, Phase::Handshake | Phase::Live | Phase::Closing);
        if entry.is(Flag::Sending) || !may_send {
            return;
        }
        // It goes on in the next turn. A send for what little one turn answers would cost more than all of that.
        if entry.is(Flag::Unparsed) && entry.backlog() < SENT_TOGETHER_BYTES {
            return;
        }
        if is_wrapped && let Err(broken) = self.wrap(id) {
            return self.unsendable.push((id, broken));
        }
        let Some((entry, pool)) = self.connections.with_pool(id) else { return };
        if entry.backlog() == 0 {
            if entry.phase == Phase::Closing && !entry.is(Flag::Linger) {
                self.lose(id);
            }
            return;
        }
        let socket = entry.socket;
        // Of these nobody waits to hear what became of it: the broker for room, or we for the last of it.
        let is_plain = entry.phase == Phase::Live && !entry.is(Flag::Full);
        let buffers = entry.buffers_mut(pool);
        let mut taken = 0;
        if let Some(reactor) = reactor
            && is_plain
            && buffers.unsent.is_empty()
            && let Some(Ok(count)) = reactor.send(socket, &buffers.output)
        {
            if count == buffers.output.len() {
                // It may not be settled, and nobody may make it keep much meanwhile.
                if buffers.output.capacity() > BUFFER_BYTES_KEPT_MAX {
                    buffers.output = Vec::new();
                }
                buffers.output.clear();
                return self.connections.settle(id);
            }
            buffers.progress = self.now;
            taken = count;
        }
        let (buffer, from) = if buffers.unsent.is_empty() {
            (std::mem::take(&mut buffers.output), taken)
        } else {
            (std::mem::take(&mut buffers.unsent), std::mem::take(&mut buffers.unsent_from))
        };
        buffers.in_flight = buffer.len() - from;
        entry.set(Flag::Sending);
        self.ops.push_back(Op::Send { socket, token: Target::Connection(id).token(), buffer, from });
        self.watch(id);
    }

    /// From what is to be said to what is to be sent, unless something else is to be sent first.
    fn wrap(&mut self, id: ConnectionId) -> Result<(), Broken> {
        // Where a worker has it, what there is to send waits for it to come back.
        let Some((entry, pool, transport)) = self.connections.with_transport(id) else { return Ok(()) };
        let is_last = entry.phase == Phase::Closing;
        let buffers = entry.buffers_mut(pool);
        if !buffers.unsent.is_empty() {
            return Ok(());
        }
        let mut wire = pool.take();
        let plain = std::mem::take(&mut buffers.output);
        let result = transport.send(&plain, &mut wire);
        if is_last {
            transport.close(&mut wire);
        }
        buffers.output = wire;
        pool.put(plain);
        result
    }

    /// Takes the completion of a `Send`.
    pub fn sent(
        &mut self,
        id: ConnectionId,
        buffer: Vec<u8>,
        from: usize,
        result: Result<usize, Errno>,
    ) -> Outcome {
        let now = self.now;
        let Some((entry, pool)) = self.connections.with_pool(id) else { return Outcome::Nothing };
        entry.clear(Flag::Sending);
        let Ok(taken) = result else {
            entry.buffers_mut(pool).in_flight = 0;
            pool.put(buffer);
            return Outcome::Lost;
        };
        let buffers = entry.buffers_mut(pool);
        buffers.in_flight = 0;
        buffers.progress = now;
        if from + taken < buffer.len() {
            buffers.unsent = buffer;
            buffers.unsent_from = from + taken;
        } else {
            pool.put(buffer);
        }
        let backlog = buffers.backlog();
        if backlog > 0 || entry.phase == Phase::Closing {
            self.needs_flush(id);
        }
        if backlog > OUTPUT_BYTES_MAX / 2 {
            return Outcome::Nothing;
        }
        self.connections.undefer(id);
        let drained = self.connections.in_phase(id, Phase::Live).is_some_and(|entry| entry.clear(Flag::Full));
        self.connections.settle(id);
        if drained { Outcome::Drained } else { Outcome::Nothing }
    }

    /// Connections that have made no progress for too long: closed here, to be told to the broker by the caller.
    pub fn sweep(&mut self, stalled: &mut Vec<ConnectionId>) {
        let now = self.now;
        let mut watched = std::mem::take(&mut self.watched);
        self.backlog_bytes = 0;
        watched.retain(|id| {
            let Some(entry) = self.connections.get_mut(*id) else { return false };
            let Some(buffers) = entry.buffers() else {
                entry.clear(Flag::Watched);
                return false;
            };
            let backlog = buffers.backlog();
            self.backlog_bytes += backlog;
            let output = backlog > 0;
            let parked = buffers.parked_since != Nanos::NEVER;
            if output && now >= buffers.progress.plus_ms(OUTPUT_STALL_MS)
                || parked && now >= buffers.parked_since.plus_ms(PARKED_STALL_MS)
            {
                stalled.push(*id);
            }
            if !output && !parked {
                entry.clear(Flag::Watched);
            }
            output || parked
        });
        self.watched = watched;
        while let Some((_, id)) = self.closing.pop_front_if(|(due, _)| *due <= now) {
            if self.connections.in_phase(id, Phase::Closing).is_some() {
                self.lose(id);
            }
        }
    }

    fn encode(&mut self, id: ConnectionId, phase: Phase, version: Version, packet: &Packet<'_>) {
        let now = self.now;
        let Some((entry, pool)) = self.connections.with_pool(id) else { return };
        if entry.phase != phase {
            return;
        }
        let buffers = entry.buffers_mut(pool);
        if buffers.output.capacity() == 0 {
            buffers.output = pool.take();
        }
        if buffers.backlog() == 0 {
            buffers.progress = now;
        }
        encode::packet(packet, version, &mut buffers.output);
        if buffers.backlog() >= OUTPUT_BYTES_MAX {
            entry.set(Flag::Full);
        }
        if !entry.set(Flag::Flush) {
            self.flush.push(id);
        }
    }

    /// Lets what is in its output leave, and closes it; it is in that phase.
    pub fn close(&mut self, id: ConnectionId, phase: Phase) {
        let Some(entry) = self.connections.in_phase(id, phase) else { return };
        entry.phase = Phase::Closing;
        entry.clear(Flag::Full);
        self.closing.push_back((self.now.plus_ms(CLOSE_TIME_MS), id));
        self.needs_flush(id);
    }

    /// There may be something to send to it, or to be done about it when that has left.
    pub fn needs_flush(&mut self, id: ConnectionId) {
        if self.connections.get_mut(id).is_some_and(|entry| !entry.set(Flag::Flush)) {
            self.flush.push(id);
        }
    }

    fn broker_closes(&mut self, id: ConnectionId, reason: CloseReason) {
        tracing::debug!(event = "connection_closed", slot = id.slot, generation = id.generation, ?reason);
        self.close(id, Phase::Live);
    }

    fn set(&mut self, id: ConnectionId, flag: Flag) {
        if let Some(entry) = self.connections.in_phase(id, Phase::Live) {
            entry.set(flag);
        }
    }

    fn resume(&mut self, id: ConnectionId) {
        let Some(entry) = self.connections.in_phase(id, Phase::Live) else { return };
        entry.clear(Flag::Paused);
        entry.clear(Flag::Held);
        if entry.is(Flag::Parked) {
            if !entry.set(Flag::Resumed) {
                self.resumed.push_back(id);
            }
        } else {
            self.connections.undefer(id);
        }
    }

    fn mesh_message(&mut self, to: ShardId, message: MeshMessage) {
        self.mesh.send(to, message);
    }
}

impl<S: Storage> Effects for Outbound<S> {
    fn perform(&mut self, effect: Effect<'_>) {
        match effect {
            Effect::Send { connection, version, packet } => {
                self.encode(connection, Phase::Live, version, &packet);
            }
            Effect::Close { connection, reason } => self.broker_closes(connection, reason),
            Effect::Pause { connection } => self.set(connection, Flag::Paused),
            Effect::Hold { connection } => self.set(connection, Flag::Held),
            Effect::Resume { connection } => self.resume(connection),
            Effect::Append { lsn, record } => {
                self.journal.append(lsn, &record);
                self.journal_stirred = true;
            }
            Effect::Fetch { lsn } => self.fetches.push_back(lsn),
            Effect::Mesh { to, message } => self.mesh_message(to, message),
            Effect::Log(event) => log(event),
        }
    }

    fn room(&self, connection: ConnectionId) -> usize {
        match self.connections.get(connection) {
            Some(entry) if entry.phase == Phase::Live => entry.room(),
            _ => 0,
        }
    }

    fn mesh_room(&self, to: ShardId) -> bool {
        self.mesh.room(to)
    }

    fn mesh_deliver_room(&self, to: ShardId) -> bool {
        self.mesh.deliver_room(to)
    }
}

/// Writes the broker's events into the log.
pub fn log(event: Event<'_>) {
    match event {
        Event::QueueFull { client_id } => tracing::warn!(
            event = "queue_full",
            client_id,
            "messages for this session are refused until it reads; it will be told of the gap"
        ),
        Event::Overload { step, entered: true, source, percent } => tracing::warn!(
            event = "overload_step",
            step,
            entered = true,
            source,
            percent,
            "more to do than can be done: README.md says what gives way, in which order"
        ),
        Event::Overload { step, entered: false, source, percent } => {
            tracing::info!(event = "overload_step", step, entered = false, source, percent, "over");
        }
        Event::ReplayInconsistent { lsn, what } => tracing::error!(
            event = "replay_inconsistent",
            lsn = lsn.0,
            what,
            "a record of the journal does not fit those before it; please report this"
        ),
    }
}
