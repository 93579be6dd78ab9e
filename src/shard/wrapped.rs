//! Connections whose bytes go through a transport: what was received is unwrapped before it is parsed, what is to be said
//! is wrapped when it is sent.
//!
//! Decides when a transport is here and when a worker has it: what takes long is done by a worker
//! ([`workers`](crate::workers)), and nothing is read or sent until it is back. Called by the loop, by
//! `inbound` and by `handshake`; `outbound` wraps.
//!
//! A connection without a transport has no entry here and pays nothing for it but a flag.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroize;

use crate::access::tokens::Seen;
use crate::broker::input::Input;
use crate::hash::ByNumber;
use crate::ids::ConnectionId;
use crate::journal::Storage;
use crate::reactor::{Reactor, Socket};
use crate::transport::handshake::{Handshake, Shaken};
use crate::transport::proxy::Trusted;
use crate::transport::{Broken, Layers, Transport};
use crate::workers::Workers;

use super::connection::{Flag, Phase};
use super::entrance::{Awaited, Guarded};
use super::shard::Shard;

/// What the connections of a listener get. Nothing: their bytes are packets, and nobody has to prove anything.
#[derive(Clone, Default)]
pub struct Acceptor {
    /// Their bytes go through these.
    pub wrapper: Option<Wrapper>,
    /// Who looks at their credentials.
    pub guarded: Option<Guarded>,
    /// Who may connect, and says first for whom.
    pub proxies: Option<Arc<Trusted>>,
}

/// What bytes go through.
#[derive(Clone)]
pub struct Wrapper {
    /// They.
    pub layers: Layers,
    /// Do what takes long.
    pub workers: Arc<dyn Workers<Handshake>>,
}

/// A socket to accept from.
pub struct Listening {
    /// The shard closes it.
    pub socket: Socket,
    /// What its connections get.
    pub acceptor: Acceptor,
}

impl Listening {
    /// Of which the bytes are packets.
    pub fn plain(socket: Socket) -> Listening {
        Listening { socket, acceptor: Acceptor::default() }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Listening")
            .field("socket", &self.socket)
            .field("acceptor", &self.acceptor)
            .finish()
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Acceptor")
            .field("wrapped", &self.wrapper.is_some())
            .field("guarded", &self.guarded.is_some())
            .field("proxies", &self.proxies.is_some())
            .finish()
    }
}

/// The transports of a shard's connections, by slot.
#[derive(Debug, Default)]
pub struct Transports {
    by_slot: ByNumber<u64, Place>,
}

#[derive(Debug)]
enum Place {
    Here(Box<Transport>),
    /// A worker has it, for as long as this is here.
    Away {
        _awaited: Awaited,
    },
}

impl Transports {
    pub(super) fn insert(&mut self, slot: u32, transport: Box<Transport>) {
        self.by_slot.insert(slot.into(), Place::Here(transport));
    }

    /// Its transport, unless that is away.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Transport> {
        match self.by_slot.get_mut(&u64::from(slot)) {
            Some(Place::Here(transport)) => Some(transport),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Box<Transport>> {
        match self.by_slot.remove(&u64::from(slot)) {
            Some(Place::Here(transport)) => Some(transport),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_slot.len()
    }

    /// A worker has taken it.
    fn lent(&mut self, slot: u32, awaited: Awaited) {
        self.by_slot.insert(slot.into(), Place::Away { _awaited: awaited });
    }
}

impl<R: Reactor, S: Storage> Shard<R, S> {
    /// What newly accepted connections get from now on, by listener, in the order of [`listen`](Shard::listen).
    pub fn present(&mut self, acceptors: Vec<Acceptor>) {
        for (listening, acceptor) in self.listeners.iter_mut().zip(acceptors) {
            listening.acceptor = acceptor;
        }
        // A key may not be good any more.
        self.seen = Seen::default();
    }

    /// A connection that arrived at that listener gets what its acceptor says.
    pub(super) fn wrap(&mut self, id: ConnectionId, listener: u32) {
        let listening = self.listeners.get(listener as usize);
        if let Some(wrapper) = listening.and_then(|listening| listening.acceptor.wrapper.as_ref()) {
            let transport = Box::new(Transport::new(&wrapper.layers));
            self.out.connections.wrap(id, transport);
        }
    }

    /// Takes what was received for a connection with a transport.
    pub(super) fn unwrap(&mut self, id: ConnectionId, bytes: &mut [u8]) {
        let Some(transport) = self.out.connections.transports.get_mut(id.slot) else {
            unreachable!("nothing is read while a worker has the transport");
        };
        if transport.takes_long() {
            if self.pay_for_handshake(id, bytes) {
                self.lend(id, bytes);
            }
            return;
        }
        let mut plain = std::mem::take(&mut self.plain);
        let result = transport.receive(bytes, &mut plain);
        let is_strangers = self.out.connections.in_phase(id, Phase::Handshake).is_some();
        self.unwrapped(id, &plain, result);
        if is_strangers {
            plain.zeroize();
        }
        plain.clear();
        self.plain = plain;
    }

    fn lend(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return };
        entry.set(Flag::Held);
        let listener = entry.buffers_mut(pool).listener as usize;
        let wrapper = self.listeners.get(listener).and_then(|listening| listening.acceptor.wrapper.as_ref());
        let Some(workers) = wrapper.map(|wrapper| wrapper.workers.clone()) else {
            // The listeners are closed already: this shard stops.
            return self.lost(id);
        };
        let Some(transport) = self.out.connections.transports.remove(id.slot) else { return };
        let awaited = Awaited::default();
        let is_over = awaited.flag();
        self.out.connections.transports.lent(id.slot, awaited);
        let handshake = Handshake { connection: id, transport, bytes: bytes.to_vec(), is_over };
        if workers.begin(handshake).is_err() {
            // Those that are gone stand in the line until their turn comes.
            self.lost(id);
        }
    }

    /// A worker has finished.
    pub fn handshaken(&mut self, done: Shaken) {
        let Shaken { connection: id, transport, plain, result } = done;
        let Some(entry) = self.out.connections.get_mut(id) else { return };
        entry.clear(Flag::Held);
        if entry.phase != Phase::Handshake {
            return;
        }
        self.out.connections.transports.insert(id.slot, transport);
        self.unwrapped(id, &plain, result);
        self.out.connections.undefer(id);
        self.out.connections.settle(id);
    }

    /// What the peer has said, and how it goes on.
    fn unwrapped(&mut self, id: ConnectionId, plain: &[u8], result: Result<(), Broken>) {
        if !plain.is_empty()
            && self.out.connections.get(id).is_some_and(|entry| entry.phase != Phase::Closing)
        {
            self.parse(id, plain);
        }
        // It may have moved to its home, and then its transport has, too.
        let Some(transport) = self.out.connections.transports.get_mut(id.slot) else { return };
        let is_ended = transport.is_ended();
        if transport.wants_to_send() {
            self.out.needs_flush(id);
        }
        match result {
            Err(broken) => self.break_off(id, &broken),
            Ok(()) if is_ended => self.end_of_stream(id),
            Ok(()) => {}
        }
    }

    /// Its transport has failed: what it has to say about that is sent, and that is all.
    fn break_off(&mut self, id: ConnectionId, broken: &Broken) {
        tracing::debug!(event = "transport_broken", slot = id.slot, generation = id.generation, %broken);
        self.hang_up(id);
    }

    /// Ends a connection. One with a transport is told so in the words of that, behind what it was to be told before: who
    /// sees a stream of TLS end without a word cannot know that it was not cut [RFC 8446 6.1].
    pub(super) fn hang_up(&mut self, id: ConnectionId) {
        if self.out.connections.transports.get_mut(id.slot).is_none() {
            return self.lost(id);
        }
        let Some(entry) = self.out.connections.get(id) else { return };
        let phase = entry.phase;
        match phase {
            Phase::Handshake => self.handshakes.ended(),
            Phase::Live => {}
            _ => return,
        }
        self.out.close(id, phase);
        if phase == Phase::Live {
            self.input(Input::Closed { connection: id });
        }
    }

    /// Those whose transports could not wrap what was to be said.
    pub(super) fn break_off_unsendable(&mut self) {
        while let Some((id, broken)) = self.out.unsendable.pop() {
            tracing::debug!(event = "transport_broken", slot = id.slot, generation = id.generation, %broken);
            self.lost(id);
        }
    }
}
