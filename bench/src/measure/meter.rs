//! Two readings of the clocks and what happened between them: the figures every scenario reports the same way.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::measure::clock;
use crate::measure::process::{self, CpuTime};
use crate::report::Outcome;

/// One reading.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    at: Instant,
    server: Option<(CpuTime, u64, f64)>,
    own_us: f64,
}

/// What passed between two readings.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    pub wall: Duration,
    /// `None` if the server's process is not known.
    pub server: Option<ServerInterval>,
    /// The generator's share of one core.
    pub generator_share: f64,
}

/// The server's part.
#[derive(Clone, Copy, Debug)]
pub struct ServerInterval {
    pub cpu_us: f64,
    /// The share of that which was spent in the kernel, from clock ticks.
    pub system_share: f64,
    pub context_switches: u64,
    /// Its threads were ready while another process had the CPU: the mark of a machine that is not ours alone.
    pub kept_waiting_us: f64,
}

impl Mark {
    /// Reads the clocks of this process and of the server's.
    pub fn read(server: Option<u32>) -> Result<Mark> {
        let server = match server {
            Some(pid) => {
                let switches = process::context_switches(pid)?;
                Some((process::cpu_time(pid)?, switches, process::kept_waiting_us(pid)?))
            }
            None => None,
        };
        Ok(Mark { at: clock::now(), server, own_us: process::own_cpu_us()? })
    }

    /// What passed since `earlier`.
    pub fn since(&self, earlier: &Mark) -> Interval {
        let wall = self.at - earlier.at;
        let server = self.server.zip(earlier.server).map(|(now, then)| {
            let ((now, switches, waiting), (then, switches_then, waiting_then)) = (now, then);
            let user = now.user_us - then.user_us;
            let system = now.system_us - then.system_us;
            ServerInterval {
                cpu_us: now.total_us - then.total_us,
                system_share: if user + system > 0.0 { system / (user + system) } else { 0.0 },
                context_switches: switches - switches_then,
                kept_waiting_us: waiting - waiting_then,
            }
        });
        let generator_share = (self.own_us - earlier.own_us) / (wall.as_secs_f64() * 1e6).max(1.0);
        Interval { wall, server, generator_share }
    }
}

/// How a scenario names its rate and its cost.
pub struct Names {
    pub rate: &'static str,
    pub cost: &'static str,
    pub what: &'static str,
}

impl Interval {
    /// Adds the rate of `count` things, and what each of them cost the server, to `outcome`.
    pub fn report(&self, outcome: &mut Outcome, names: &Names, count: u64) {
        let wall_s = self.wall.as_secs_f64().max(1e-9);
        outcome.add(names.rate, names.what, count as f64 / wall_s);
        if let Some(server) = self.server.filter(|_| count > 0) {
            outcome.add(names.cost, "µs", server.cpu_us / count as f64);
        }
    }

    /// Adds how busy both sides were.
    pub fn report_shares(&self, outcome: &mut Outcome) {
        if let Some(server) = self.server {
            let wall_us = (self.wall.as_secs_f64() * 1e6).max(1.0);
            outcome.add("server busy", "% of a core", 100.0 * server.cpu_us / wall_us);
            outcome.add("server kept waiting", "% of the time", 100.0 * server.kept_waiting_us / wall_us);
            outcome.add("server in kernel", "% of its CPU", 100.0 * server.system_share);
            outcome.add("server context switches", "/s", server.context_switches as f64 / wall_us * 1e6);
        }
        outcome.add("generator busy", "% of a core", 100.0 * self.generator_share);
    }
}
