//! The listening sockets of a kernel reactor: when to accept, how often per turn, and what a failure means.
//!
//! Accepting is one plain `accept4` per connection in both kernel reactors, so that its bounds and its failures are
//! the same code: at most `accepts_max` per socket and turn, the rest in the next turn without waiting; without
//! descriptors or memory, one report and a pause instead of a spin (the pending connection keeps the socket
//! readable). Several shards accept from descriptors of one socket, so that finding nothing is normal.

use mio::Registry;
use slab::Slab;

use super::readiness::{self, LISTENERS, LISTENERS_MAX};
use super::{Completion, Errno, Settings, Socket, Token, calls};
use crate::time::Nanos;

struct Listener {
    socket: Socket,
    token: Token,
    /// Connections may be waiting: the edge came, and accepting has not found the end since.
    ready: bool,
    /// Accepting failed and pauses until then.
    paused_until: Option<Nanos>,
    /// The failure of this episode has been reported.
    reported: bool,
}

/// See the module documentation.
pub(super) struct Listeners {
    table: Slab<Listener>,
    accepts_max: usize,
    accept_retry_ms: u64,
}

impl Listeners {
    pub(super) fn new(settings: &Settings) -> Listeners {
        Listeners {
            table: Slab::new(),
            accepts_max: settings.accepts_max.max(1),
            accept_retry_ms: settings.accept_retry_ms,
        }
    }

    /// Accept from `socket` from now on. A failure is one `Accepted` with the error.
    pub(super) fn add(
        &mut self,
        registry: &Registry,
        socket: Socket,
        token: Token,
        out: &mut Vec<Completion>,
    ) {
        assert!(self.table.len() < LISTENERS_MAX, "more listening sockets than numbers for them");
        calls::set_no_delay(socket);
        let entry = self.table.vacant_entry();
        let number = Token(LISTENERS.0 + entry.key() as u64);
        match readiness::register(registry, socket, number) {
            Ok(()) => {
                entry.insert(Listener { socket, token, ready: true, paused_until: None, reported: false });
            }
            Err(errno) => out.push(Completion::Accepted { token, result: Err(errno) }),
        }
    }

    /// Forget `socket`, if it is one of these.
    pub(super) fn remove(&mut self, socket: Socket) {
        let found = self.table.iter().find(|(_, listener)| listener.socket == socket).map(|(slot, _)| slot);
        if let Some(slot) = found {
            self.table.remove(slot);
        }
    }

    /// Take an event if it is for one of these.
    pub(super) fn take_event(&mut self, number: Token) -> bool {
        if !(LISTENERS.0..LISTENERS.0 + LISTENERS_MAX as u64).contains(&number.0) {
            return false;
        }
        // Gone already if the event was on its way when the socket was closed.
        if let Some(listener) = self.table.get_mut((number.0 - LISTENERS.0) as usize) {
            listener.ready = true;
        }
        true
    }

    /// When to call [`Listeners::accept`] at the latest: at once if connections may be waiting.
    pub(super) fn due(&self) -> Nanos {
        let each = self.table.iter().filter(|(_, listener)| listener.ready);
        each.map(|(_, listener)| listener.paused_until.unwrap_or(Nanos(0))).min().unwrap_or(Nanos::NEVER)
    }

    /// Accept what waits, within the bounds.
    pub(super) fn accept(&mut self, now: Nanos, out: &mut Vec<Completion>) {
        let mut broken: Option<usize> = None;
        for (slot, listener) in &mut self.table {
            let paused = listener.paused_until.is_some_and(|until| until > now);
            if !listener.ready || paused {
                continue;
            }
            listener.paused_until = None;
            if !accept_some(listener, self.accepts_max, now.plus_ms(self.accept_retry_ms), out) {
                broken = Some(slot);
            }
        }
        if let Some(slot) = broken {
            self.table.remove(slot);
        }
    }
}

/// Answers whether the socket is still one to accept from.
fn accept_some(
    listener: &mut Listener,
    accepts_max: usize,
    retry_at: Nanos,
    out: &mut Vec<Completion>,
) -> bool {
    let token = listener.token;
    let report = |errno: Errno| Completion::Accepted { token, result: Err(errno) };
    for _ in 0..accepts_max {
        match calls::accept(listener.socket) {
            calls::Accepted::Connection(socket, address) => {
                listener.reported = false;
                out.push(Completion::Accepted { token, result: Ok((socket, address)) });
            }
            calls::Accepted::Nothing => {
                listener.ready = false;
                listener.reported = false;
                return true;
            }
            calls::Accepted::Gone => {}
            calls::Accepted::Exhausted(errno) => {
                listener.paused_until = Some(retry_at);
                if !listener.reported {
                    listener.reported = true;
                    out.push(report(errno));
                }
                return true;
            }
            calls::Accepted::Broken(errno) => {
                out.push(report(errno));
                return false;
            }
        }
    }
    true
}
