//! Keep alive without a timer per packet: each connection has the tick it was last heard in, and a sweep four times
//! a second looks at all of them.
//!
//! A client is let go between 1.5 and 1.5 + 0.35 times-and-seconds after its last packet: never early, at most
//! 350 ms late `[MQTT-3.1.2-22]`. Two arrays of 4 bytes keep the sweep in cache-line order: 16 MB for 2 M
//! connections, read in a few milliseconds.

use super::Broker;
use super::effect::{CloseReason, Effects};
use crate::ids::ConnectionId;
use crate::time::Nanos;
use crate::wire::ReasonCode;

const TICK_MS: u64 = 100;
const SWEEP_MS: u64 = 250;

/// No keep alive.
const NEVER: u32 = u32::MAX;

/// Last heard, and how long silence may last, by connection slot, in ticks.
#[derive(Debug, Default)]
pub(super) struct KeepAlive {
    heard: Vec<u32>,
    allowed: Vec<u32>,
    watched: usize,
    swept_at: Nanos,
}

fn tick(at: Nanos) -> u32 {
    // 13 years of uptime fit 32 bits of 100 ms.
    u32::try_from(at.0 / 1_000_000 / TICK_MS).unwrap_or(NEVER - 1)
}

impl KeepAlive {
    /// Watch a connection; 0 seconds means for ever `[MQTT-3.1.2-22]`.
    pub(super) fn watch(&mut self, id: ConnectionId, seconds: u16, now: Nanos) {
        let slot = id.slot as usize;
        if slot >= self.heard.len() {
            self.heard.resize(slot + 1, 0);
            self.allowed.resize(slot + 1, NEVER);
        }
        self.heard[slot] = tick(now);
        if seconds > 0 {
            // One tick more, because the tick it was heard in had already begun.
            self.allowed[slot] = u32::from(seconds) * 15 + 1;
            if self.watched == 0 {
                self.swept_at = now;
            }
            self.watched += 1;
        }
    }

    /// A packet arrived.
    pub(super) fn heard(&mut self, id: ConnectionId, now: Nanos) {
        self.heard[id.slot as usize] = tick(now);
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        let allowed = &mut self.allowed[id.slot as usize];
        if *allowed != NEVER {
            *allowed = NEVER;
            self.watched -= 1;
        }
    }

    /// When to sweep next.
    pub(super) fn next(&self) -> Nanos {
        if self.watched == 0 { Nanos::NEVER } else { self.swept_at.plus_ms(SWEEP_MS) }
    }

    fn silent(&self, now: Nanos) -> impl Iterator<Item = u32> + '_ {
        let now = tick(now);
        self.heard.iter().zip(&self.allowed).zip(0_u32..).filter_map(move |((heard, allowed), slot)| {
            (*allowed != NEVER && now.saturating_sub(*heard) > *allowed).then_some(slot)
        })
    }
}

impl Broker {
    /// Let go of clients that were silent too long.
    pub(super) fn sweep_keep_alive(&mut self, effects: &mut impl Effects) {
        if self.keep_alive.next() > self.now.mono {
            return;
        }
        self.keep_alive.swept_at = self.now.mono;
        let silent: Vec<u32> = self.keep_alive.silent(self.now.mono).collect();
        for slot in silent {
            let Some(id) = self.connections.id_in(slot) else { continue };
            if self.connections.get(id).is_some_and(|connection| connection.waits || connection.throttled) {
                // It is we who do not listen.
                self.keep_alive.heard(id, self.now.mono);
            } else {
                self.close(id, Some(ReasonCode::KeepAliveTimeout), CloseReason::KeepAlive, effects);
            }
        }
    }
}
