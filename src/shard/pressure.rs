//! What weighs on a shard: measured here, felt by the broker, which decides what gives way
//! ([`broker::overload`](crate::broker::overload)).
//!
//! Measures how long turns take, what peers do not take, and what waits for the disk; how much memory there is, the process's own
//! thread says. Called by the loop and by `handshake`, for newcomers.

use crate::broker::input::Input;
use crate::broker::overload::{Pressure, Step};
use crate::ids::ConnectionId;
use crate::journal::Storage;
use crate::limits::{
    JOURNAL_BACKLOG_BYTES_MAX, NEWCOMERS_PER_S, OVERLOAD_LAG_MS, OVERLOAD_MEMORY_FROM_PERCENT,
    OVERLOAD_OUTPUT_BYTES, PRESSURE_LOOK_MS, RATE_HANDSHAKE_WAIT_MS,
};
use crate::rates::{Bucket, Rate};
use crate::reactor::Reactor;
use crate::time::Nanos;

use super::connection::{Flag, Phase};
use super::shard::Shard;

/// At how many percent of what the journal may have waiting publishers wait: that bound is older than this scale, and holds.
const JOURNAL_BACKLOG_PERCENT: usize = 80;

/// What was measured lately.
#[derive(Debug)]
pub(super) struct Gauge {
    look_at: Nanos,
    /// The shortest turn since the last look, and of the time before that: one that was interrupted says nothing.
    shortest: [Option<u64>; 2],
    /// Of the process, in percent of what it may have.
    memory: u64,
    told: Pressure,
    /// How many of those who connect were heard lately, while they wait.
    newcomers: Bucket,
    pace: Rate,
}

impl Default for Gauge {
    fn default() -> Gauge {
        let second = Nanos(0).plus_s(1);
        let pace =
            Rate::new(NEWCOMERS_PER_S, second, NEWCOMERS_PER_S.div_ceil(10)).expect("so many a second");
        Gauge {
            look_at: Nanos(0),
            shortest: [None; 2],
            memory: 0,
            told: Pressure::default(),
            newcomers: Bucket::default(),
            pace,
        }
    }
}

impl Gauge {
    /// A turn that began then has ended.
    pub(super) fn turned(&mut self, began: Nanos, ended: Nanos) {
        let length = ended.0.saturating_sub(began.0);
        self.shortest[0] = Some(self.shortest[0].map_or(length, |shortest| shortest.min(length)));
    }

    /// Something has changed that is not to wait for the next look.
    pub(super) fn look_now(&mut self) {
        self.look_at = Nanos(0);
    }

    pub(super) fn lag_ms(&mut self) -> u64 {
        let [now, before] = self.shortest;
        self.shortest = [None, now];
        let shortest = now.unwrap_or(0).min(before.unwrap_or(0));
        Nanos(shortest).ms_since(Nanos(0))
    }
}

/// Of a whole, at most 100.
fn percent(part: u64, whole: u64) -> u8 {
    u8::try_from(part.saturating_mul(100) / whole.max(1)).unwrap_or(100).min(100)
}

impl<R: Reactor, S: Storage> Shard<R, S> {
    /// How much memory is in use, in percent of what the process may have.
    pub fn memory_in_use(&mut self, percent: u8) {
        self.gauge.memory = percent.into();
        self.gauge.look_now();
    }

    /// Tells the broker what weighs on this shard, if it is time and something has changed.
    pub(super) fn feel_pressure(&mut self) {
        let now = self.now.mono;
        if now < self.gauge.look_at {
            return;
        }
        self.gauge.look_at = now.plus_ms(PRESSURE_LOOK_MS);
        let memory = self.gauge.memory.saturating_sub(OVERLOAD_MEMORY_FROM_PERCENT);
        let waiting = self.out.journal.pending_bytes() * JOURNAL_BACKLOG_PERCENT / 100;
        let pressure = Pressure {
            lag: percent(self.gauge.lag_ms(), OVERLOAD_LAG_MS),
            memory: percent(memory, 100 - OVERLOAD_MEMORY_FROM_PERCENT),
            output: percent(self.out.backlog_bytes as u64, OVERLOAD_OUTPUT_BYTES as u64),
            journal: percent(waiting as u64, JOURNAL_BACKLOG_BYTES_MAX as u64),
            space: if self.reserve_reached { 100 } else { 0 },
        };
        if pressure != self.gauge.told {
            self.gauge.told = pressure;
            self.input(Input::Pressure { pressure });
            self.more = true;
        }
    }

    /// Somebody has connected: whether it is heard now. If not, it waits, or is closed.
    pub(super) fn hear_newcomer(&mut self, id: ConnectionId) {
        if !self.broker.gives_way(Step::NewcomersWait) {
            return;
        }
        let now = self.now.mono;
        let Gauge { newcomers, pace, .. } = &mut self.gauge;
        match newcomers.take(pace, 1, now) {
            Ok(()) => {}
            Err(until) if until > now.plus_ms(RATE_HANDSHAKE_WAIT_MS) => self.lost(id),
            Err(_) => {
                let until = newcomers.take_with_debt(pace, 1, now);
                if let Some(entry) = self.out.connections.in_phase(id, Phase::Handshake) {
                    entry.set(Flag::Held);
                    self.throttle.begin_wait(id, until.unwrap_or(now));
                }
            }
        }
    }
}
