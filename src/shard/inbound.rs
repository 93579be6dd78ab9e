//! From bytes to inputs: who is read from, where packets end, and which of them have to wait.
//!
//! Decides nothing about packets. Bytes are parsed where they were received; only the beginning of a packet whose end
//! has not come is copied, and a large PUBLISH goes where its message will be. Called by the loop.
//!
//! - Fairness: each ready connection is read from once per turn, at most `RECEIVE_BYTES`, in the order they became
//!   ready; one that may have more goes to the back. Of what was read, `WORK_PER_TURN_MAX` packets are handled in a
//!   turn; the rest has the next one, before anything more is read.
//! - A paused connection is still read: acknowledgements and pings are handled, everything else is parked as it came,
//!   so that nothing overtakes a publish but what answers ours. When `PARKED_BYTES_MAX` are parked, reading stops and
//!   the peer's own sends fill up; our timer or sync resumes it. If the pause waits for acknowledgements that sit
//!   behind what was not read, nobody can go on, and after `PARKED_STALL_MS` the connection is closed.
//! - A held connection (CONNACK waits for the disk) is not read and parks everything.
//! - A connection whose output is full is not read. Nobody is while the broker does not keep up.

use std::sync::Arc;

use zeroize::Zeroize;

use crate::broker::input::Input;
use crate::ids::ConnectionId;
use crate::journal::Storage;
use crate::limits::{
    CONNECT_BYTES_MAX, DIRECT_CALLS_MAX, LINGER_BYTES_MAX, PARKED_BYTES_MAX, REACTOR_OPERATIONS_RESERVED,
    RECEIVE_BYTES, RECEIVES_PER_TURN_MAX, WORK_HEAVY_MIN, WORK_HUGE, WORK_PER_TURN_MAX, WORK_WAIT_NS,
};
use crate::reactor::{Errno, Op, Reactor, Socket};
use crate::time::Nanos;
use crate::wire::frame::{Peek, peek};
use crate::wire::{Packet, ReasonCode, decode};

use super::connection::{Flag, Phase};
use super::large::Large;
use super::shard::Shard;
use super::target::Target;
use super::throttle::Charge;

/// Whether to go on with the bytes of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parsing {
    /// There may be another packet.
    Continue,
    /// It is closed, moved or lost.
    Stop,
}

impl<R: Reactor, S: Storage> Shard<R, S> {
    /// A connection may have something to read.
    pub(super) fn ready(&mut self, id: ConnectionId) {
        let Some(entry) = self.out.connections.get_mut(id) else { return };
        match entry.phase {
            Phase::Handshake | Phase::Live => {}
            Phase::Closing if entry.is(Flag::Linger) => {}
            _ => return,
        }
        // Whatever the order of completions within a turn, a connection that became ready after its bytes were taken
        // is read again. One extra read that finds nothing is the price of never missing an end of stream.
        if entry.is(Flag::Receiving) || entry.is(Flag::Ready) {
            entry.set(Flag::ReadyAgain);
        }
        if !entry.is(Flag::Receiving) {
            self.out.connections.mark_ready(id);
        }
    }

    /// Goes on with what was read in an earlier turn: with as much of it, whoever it is from, as one connection has a turn.
    /// All others wait for these meanwhile, who have had theirs.
    pub(super) fn parse_unparsed(&mut self) {
        let mut work = 0;
        while work < WORK_PER_TURN_MAX {
            let Some(id) = self.out.connections.unparsed.pop_front() else { return };
            let Some((entry, pool)) = self.out.connections.with_pool(id) else { continue };
            entry.clear(Flag::Unparsed);
            let rest = std::mem::take(&mut entry.buffers_mut(pool).partial);
            work += self.parse(id, &rest).max(1);
            self.out.connections.pool.put(rest);
            // Its answers may have waited for this.
            self.out.needs_flush(id);
            if self.out.connections.get_mut(id).is_some_and(|entry| entry.clear(Flag::Deferred)) {
                self.next_turn.push(id);
            }
            self.out.connections.settle(id);
        }
    }

    /// Reads from those that are ready, where they are few: for each of them a turn costs more than a call. Then those
    /// that have had their read of this turn, and have more, join the others.
    pub(super) fn receive_from_few(&mut self) {
        let count = self.out.connections.ready.len();
        if count <= DIRECT_CALLS_MAX {
            for _ in 0..count {
                if !self.broker.keeps_up() {
                    break;
                }
                let Some((id, socket)) = self.next_to_read() else { continue };
                let mut buffer = self.receive_buffer();
                match self.reactor.receive(socket, &mut buffer) {
                    Some(result) => self.received(id, buffer, result),
                    None => self.submit_receive(id, socket, buffer),
                }
            }
        }
        for id in self.next_turn.drain(..) {
            self.out.connections.mark_ready(id);
        }
    }

    /// Submits a `Recv` for as many ready connections as one turn takes, unless the next turn can read from all.
    pub(super) fn submit_receives(&mut self) {
        let count = self.out.connections.ready.len();
        if count <= DIRECT_CALLS_MAX || !self.broker.keeps_up() {
            return;
        }
        for _ in 0..count.min(RECEIVES_PER_TURN_MAX) {
            if self.reactor.room() <= REACTOR_OPERATIONS_RESERVED {
                return;
            }
            let Some((id, socket)) = self.next_to_read() else { continue };
            let buffer = self.receive_buffer();
            self.submit_receive(id, socket, buffer);
        }
    }

    /// The connection whose turn it is, if it may be read from now.
    fn next_to_read(&mut self) -> Option<(ConnectionId, Socket)> {
        let id = self.out.connections.ready.pop_front()?;
        let entry = self.out.connections.get_mut(id)?;
        entry.clear(Flag::Ready);
        // It was put among these for the sake of an earlier turn. What two receives bring would be one too many.
        if entry.is(Flag::Receiving) {
            entry.set(Flag::ReadyAgain);
            return None;
        }
        if !entry.may_read() {
            entry.set(Flag::Deferred);
            return None;
        }
        entry.set(Flag::Receiving);
        Some((id, entry.socket))
    }

    fn receive_buffer(&mut self) -> Vec<u8> {
        self.receive_buffers.pop().unwrap_or_else(|| Vec::with_capacity(RECEIVE_BYTES))
    }

    fn submit_receive(&mut self, id: ConnectionId, socket: Socket, buffer: Vec<u8>) {
        self.reactor.submit(Op::Recv { socket, token: Target::Connection(id).token(), buffer });
    }

    /// Takes what a receive brought.
    pub(super) fn received(&mut self, id: ConnectionId, mut buffer: Vec<u8>, result: Result<usize, Errno>) {
        if let Some(entry) = self.out.connections.get_mut(id) {
            entry.clear(Flag::Receiving);
            let again = entry.clear(Flag::ReadyAgain);
            match result {
                Ok(0) => self.end_of_stream(id),
                Ok(_) => {
                    let filled = buffer.len() == buffer.capacity();
                    if entry.phase == Phase::Handshake {
                        self.received_from_stranger(id, &mut buffer);
                        buffer.as_mut_slice().zeroize();
                    } else if entry.phase == Phase::Closing {
                        self.drop_rest(id, buffer.len());
                    } else if entry.is(Flag::Wrapped) {
                        self.unwrap(id, &mut buffer);
                    } else {
                        self.parse(id, &buffer);
                    }
                    self.out.connections.settle(id);
                    if filled || again {
                        self.next_turn.push(id);
                    }
                }
                Err(Errno(libc::EAGAIN)) if again => self.next_turn.push(id),
                Err(Errno(libc::EAGAIN)) => {}
                Err(_) => self.lost(id),
            }
        }
        if self.receive_buffers.len() < RECEIVES_PER_TURN_MAX {
            self.receive_buffers.push(buffer);
        }
    }

    /// More of what was refused. It is read so that the peer reads why, but not without end.
    fn drop_rest(&mut self, id: ConnectionId, count: usize) {
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return };
        let buffers = entry.buffers_mut(pool);
        buffers.dropped += count;
        if buffers.dropped > LINGER_BYTES_MAX {
            self.lost(id);
        }
    }

    /// Who is not in yet may have to say something before everything else.
    fn received_from_stranger(&mut self, id: ConnectionId, bytes: &mut [u8]) {
        let taken = self.take_header(id, bytes).filter(|taken| *taken < bytes.len());
        let (Some(taken), Some(entry)) = (taken, self.out.connections.get(id)) else { return };
        if entry.is(Flag::Wrapped) {
            self.unwrap(id, &mut bytes[taken..]);
        } else {
            self.parse(id, &bytes[taken..]);
        }
    }

    /// The peer said that it sends no more. What it said before still counts.
    pub(super) fn end_of_stream(&mut self, id: ConnectionId) {
        let now = self.now.mono;
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return };
        if entry.phase == Phase::Live && entry.is(Flag::Parked) {
            entry.set(Flag::Ended);
            entry.buffers_mut(pool).parked_since = now;
            self.out.watch(id);
        } else {
            self.hang_up(id);
        }
    }

    /// The connection has ended without the broker's doing.
    pub(super) fn lost(&mut self, id: ConnectionId) {
        let Some(entry) = self.out.connections.get(id) else { return };
        let phase = entry.phase;
        self.out.lose(id);
        match phase {
            Phase::Live => self.input(Input::Closed { connection: id }),
            Phase::Handshake => self.handshakes.ended(),
            _ => {}
        }
    }

    /// Handles the whole packets in `input`, as many as a turn takes, and keeps the rest. Returns how much work that was.
    pub(super) fn parse(&mut self, id: ConnectionId, mut input: &[u8]) -> usize {
        let mut work = 0;
        if self.complete_large(id, &mut input, &mut work) == Parsing::Stop {
            return work;
        }
        if let Some((entry, pool)) = self.out.connections.with_pool(id)
            && entry.buffers().is_some_and(|buffers| !buffers.partial.is_empty())
        {
            let mut partial = std::mem::take(&mut entry.buffers_mut(pool).partial);
            let parsing = self.complete_partial(id, &mut partial, &mut input, &mut work);
            if parsing == Parsing::Stop {
                self.out.connections.pool.put(partial);
                return work;
            }
            if partial.is_empty() {
                self.out.connections.pool.put(partial);
            } else if let Some((entry, pool)) = self.out.connections.with_pool(id) {
                entry.buffers_mut(pool).partial = partial;
                return work;
            }
        }
        loop {
            match peek(input, self.packet_bytes_max(id)) {
                Ok(Peek::Complete { len })
                    if work >= WORK_PER_TURN_MAX || self.comes_later(id, &input[..len]) =>
                {
                    self.out.connections.put_off(id, input);
                    return work;
                }
                Ok(Peek::Complete { len }) => {
                    let (frame, rest) = input.split_at(len);
                    let parsing = self.frame(id, frame, rest);
                    work += self.count_work(id, frame);
                    if parsing == Parsing::Stop {
                        return work;
                    }
                    input = rest;
                }
                Ok(Peek::Incomplete { .. }) => break,
                Err(error) => {
                    self.malformed(id, error.reason, input);
                    return work;
                }
            }
        }
        if !input.is_empty()
            && let Some((entry, pool)) = self.out.connections.with_pool(id)
        {
            let mut partial = pool.take();
            partial.extend_from_slice(input);
            entry.buffers_mut(pool).partial = partial;
        }
        work
    }

    /// How much work that packet was. If it was heavy, the next one waits for several times as long as this one took: nobody has much
    /// more than a tenth of a shard in that way.
    fn count_work(&mut self, id: ConnectionId, frame: &[u8]) -> usize {
        let work = work_of(frame) + self.broker.take_work();
        if work >= WORK_HEAVY_MIN {
            self.heavy_work += work;
            let times = 1 + (work / WORK_HUGE) as u64;
            let until = self.now.mono.0.saturating_add(times * work as u64 * WORK_WAIT_NS);
            self.wait_until(id, Nanos(until));
        }
        work
    }

    /// Whether that packet is heavy, and this turn has had its share of such ones, whoever they were from: those who send others
    /// do not wait for several of them.
    fn comes_later(&mut self, id: ConnectionId, frame: &[u8]) -> bool {
        if self.heavy_work < WORK_PER_TURN_MAX {
            return false;
        }
        let matched = if frame[0] >> 4 == 3 { self.broker.publish_work(id) } else { 0 };
        work_of(frame) + matched >= WORK_HEAVY_MIN
    }

    /// Completes the packet that began in an earlier receive with no more bytes than it lacks, and handles it. Leaves
    /// `partial` empty if that came about.
    fn complete_partial(
        &mut self,
        id: ConnectionId,
        partial: &mut Vec<u8>,
        input: &mut &[u8],
        work: &mut usize,
    ) -> Parsing {
        loop {
            match peek(partial, self.packet_bytes_max(id)) {
                Ok(Peek::Incomplete { need }) => {
                    // The room for a large one is made once, or it would be moved each time that it has doubled; but not before a
                    // good part of it has come. If there is no such room, it grows as it comes.
                    if partial.len() >= need / 16 && partial.capacity() < need {
                        if self.begin_large(id, partial, need) {
                            partial.clear();
                            return self.complete_large(id, input, work);
                        }
                        let _grows = partial.try_reserve_exact(need - partial.len());
                    }
                    let (taken, rest) = input.split_at(input.len().min(need - partial.len()));
                    if taken.is_empty() {
                        return Parsing::Continue;
                    }
                    partial.extend_from_slice(taken);
                    *input = rest;
                }
                Ok(Peek::Complete { len }) => {
                    debug_assert_eq!(len, partial.len(), "never more than it lacks");
                    let is_strangers = self.out.connections.in_phase(id, Phase::Handshake).is_some();
                    let parsing = self.frame(id, partial, input);
                    *work += self.count_work(id, partial);
                    if is_strangers {
                        partial.zeroize();
                    }
                    partial.clear();
                    return parsing;
                }
                Err(error) => {
                    self.malformed(id, error.reason, partial);
                    return Parsing::Stop;
                }
            }
        }
    }

    /// Whether the packet of that length which begins so is received into the place of its message from here on.
    fn begin_large(&mut self, id: ConnectionId, bytes: &[u8], length: usize) -> bool {
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return false };
        let version = entry.version.filter(|_| entry.phase == Phase::Live);
        let large = version.and_then(|version| Large::begin(bytes, length, version));
        let begun = large.is_some();
        entry.buffers_mut(pool).large = large.map(Box::new);
        begun
    }

    /// Goes on with a large PUBLISH, if one is under way, and handles it when all of it is there.
    fn complete_large(&mut self, id: ConnectionId, input: &mut &[u8], work: &mut usize) -> Parsing {
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return Parsing::Stop };
        if entry.buffers().is_none_or(|buffers| buffers.large.is_none()) {
            return Parsing::Continue;
        }
        let buffers = entry.buffers_mut(pool);
        let Some(large) = buffers.large.take_if(|large| {
            large.take(input);
            large.is_whole()
        }) else {
            return Parsing::Continue;
        };
        let whole = large.whole();
        if entry.phase != Phase::Live {
            return Parsing::Stop;
        }
        if entry.parks() {
            self.park(id, &whole.frame());
            return Parsing::Continue;
        }
        match whole.packet() {
            Ok(packet) => {
                let bytes = whole.frame().iter().map(|part| part.len()).sum();
                let parsing = self.packet(id, &packet, Some(&whole.body), bytes);
                *work += self.count_work(id, whole.frame()[0]);
                parsing
            }
            Err(error) => {
                self.malformed(id, error.reason, whole.frame()[0]);
                Parsing::Stop
            }
        }
    }

    fn packet_bytes_max(&self, id: ConnectionId) -> u32 {
        match self.out.connections.get(id) {
            Some(entry) if entry.phase == Phase::Handshake => CONNECT_BYTES_MAX,
            _ => self.packet_bytes_max,
        }
    }

    /// One whole packet, and what came behind it.
    fn frame(&mut self, id: ConnectionId, frame: &[u8], rest: &[u8]) -> Parsing {
        let Some(entry) = self.out.connections.get(id) else { return Parsing::Stop };
        match entry.phase {
            Phase::Live => {}
            Phase::Handshake => return self.first_packet(id, frame, rest),
            _ => return Parsing::Stop,
        }
        if entry.parks() && (entry.is(Flag::Held) || !may_overtake(frame[0])) {
            self.park(id, &[frame]);
            return Parsing::Continue;
        }
        self.decode(id, frame)
    }

    /// Keeps a whole packet until `Resume`.
    fn park(&mut self, id: ConnectionId, parts: &[&[u8]]) {
        let (now, waits) = (self.now.mono, self.throttle.waits(id));
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return };
        entry.set(Flag::Parked);
        let buffers = entry.buffers_mut(pool);
        if buffers.parked.capacity() == 0 {
            buffers.parked = pool.take();
        }
        parts.iter().for_each(|part| buffers.parked.extend_from_slice(part));
        if buffers.parked.len() >= PARKED_BYTES_MAX && buffers.parked_since > now && !waits {
            buffers.parked_since = now;
            self.out.watch(id);
        }
    }

    /// One whole packet of a live connection whose turn it is.
    fn decode(&mut self, id: ConnectionId, frame: &[u8]) -> Parsing {
        let version = self.out.connections.get(id).and_then(|entry| entry.version);
        match decode::packet(frame, version) {
            Ok(packet) => self.packet(id, &packet, None, frame.len()),
            Err(error) => {
                self.malformed(id, error.reason, frame);
                Parsing::Stop
            }
        }
    }

    fn packet(
        &mut self,
        id: ConnectionId,
        packet: &Packet<'_>,
        body: Option<&Arc<[u8]>>,
        bytes: usize,
    ) -> Parsing {
        if let Packet::Auth(auth) = packet
            && self.provers.has(id)
        {
            return self.prove_again(id, auth);
        }
        let connection = id;
        let charge = if self.throttle.watches() { self.charge(id, packet, bytes) } else { Charge::Paid };
        self.input(match body {
            _ if charge == Charge::Refused => Input::Refused { connection, packet },
            Some(body) => Input::Large { connection, packet, body },
            None => Input::Packet { connection, packet },
        });
        if let Charge::Owes(until) = charge {
            self.wait_until(id, until);
        }
        match self.out.connections.get(id) {
            Some(entry) if entry.phase == Phase::Live => Parsing::Continue,
            _ => Parsing::Stop,
        }
    }

    /// What `bytes` begins with is no packet.
    fn malformed(&mut self, id: ConnectionId, reason: ReasonCode, bytes: &[u8]) {
        let Some(entry) = self.out.connections.get(id) else { return };
        match entry.phase {
            Phase::Handshake => self.bad_first_packet(id, reason, bytes),
            Phase::Live => self.input(Input::Malformed { connection: id, reason }),
            _ => return,
        }
        // The rest of it is still under way. Closed now, the peer would get a reset and lose our last word.
        if reason == ReasonCode::PacketTooLarge
            && let Some(entry) = self.out.connections.in_phase(id, Phase::Closing)
        {
            entry.set(Flag::Linger);
            self.out.connections.mark_ready(id);
        }
    }

    /// Handles what was parked, in order, until it is paused again, or has had its turn.
    pub(super) fn handle_parked(&mut self) {
        // A share of their own: whoever sends heavy packets now and not before would have all of it.
        self.heavy_work = 0;
        // Those that are resumed meanwhile have their turn in the next one.
        for _ in 0..self.out.resumed.len() {
            let Some(id) = self.out.resumed.pop_front() else { return };
            self.handle_parked_of(id);
        }
    }

    fn handle_parked_of(&mut self, id: ConnectionId) {
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return };
        entry.clear(Flag::Resumed);
        if entry.phase != Phase::Live {
            return;
        }
        let mut parked = std::mem::take(&mut entry.buffers_mut(pool).parked);
        let (mut handled, mut work, mut has_had_its_turn) = (0, 0, false);
        while handled < parked.len() && !has_had_its_turn {
            let Ok(Peek::Complete { len }) = peek(&parked[handled..], self.packet_bytes_max) else {
                unreachable!("only whole packets are parked");
            };
            let frame = &parked[handled..handled + len];
            let Some(entry) = self.out.connections.get(id) else { break };
            if entry.is(Flag::Held) || entry.is(Flag::Paused) && !may_overtake(frame[0]) {
                break;
            }
            has_had_its_turn = self.comes_later(id, frame);
            if has_had_its_turn || self.decode(id, frame) == Parsing::Stop {
                break;
            }
            work += self.count_work(id, frame);
            handled += len;
            has_had_its_turn = work >= WORK_PER_TURN_MAX;
        }
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return };
        if handled < parked.len() && entry.phase == Phase::Live {
            parked.drain(..handled);
            let full = parked.len() >= PARKED_BYTES_MAX;
            let buffers = entry.buffers_mut(pool);
            buffers.parked = parked;
            if handled > 0 && full {
                buffers.parked_since = self.now.mono;
            }
            // Who waits for our clock is not waited for.
            if (!full || self.throttle.waits(id)) && !entry.is(Flag::Ended) {
                entry.buffers_mut(pool).parked_since = Nanos::NEVER;
            }
            if has_had_its_turn && !entry.set(Flag::Resumed) {
                self.out.resumed.push_back(id);
            }
        } else {
            pool.put(parked);
            entry.clear(Flag::Parked);
            entry.buffers_mut(pool).parked_since = Nanos::NEVER;
            if entry.is(Flag::Ended) {
                self.lost(id);
            }
        }
        self.out.connections.undefer(id);
        self.out.connections.settle(id);
    }
}

/// What a packet counts of [`WORK_PER_TURN_MAX`]: one that clients send in rows counts once.
fn work_of(frame: &[u8]) -> usize {
    match frame[0] >> 4 {
        // SUBSCRIBE and UNSUBSCRIBE change tables, and are looked up in others: once for each filter.
        8 | 10 => 32 + frame.len() / 8,
        // PINGREQ costs little, but nobody means more than one.
        12 => 8,
        _ => 1,
    }
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP and PINGREQ: they answer us, or nobody, and may be what a pause waits for.
fn may_overtake(first: u8) -> bool {
    matches!(first >> 4, 4..=7 | 12)
}
