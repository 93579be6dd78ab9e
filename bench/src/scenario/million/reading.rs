//! What the memory of the whole machine is at one number of sessions, and the figures made of several readings.
//!
//! Decides when memory has come to rest and what a session's share is: the slope of the least-squares line, without
//! what an empty broker has; and the whole of it divided by the sessions, with that. User memory is the broker's
//! process; slab is the kernel's, for both ends of each connection, as they are on one machine; what became unavailable is
//! everything together with the load, and means something only if nothing else goes on there.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::measure::clock;
use crate::measure::numa;
use crate::measure::process::{self, Memory, Slab};
use crate::measure::slope::least_squares;
use crate::report::Outcome;
use crate::server::Server;

/// A slab cache that grew by less than this for each session is not worth a line.
const CACHE_BYTES_SHOWN: f64 = 8.0;

/// Memory has come to rest when it is the same twice, so far apart; or after `RESTS_WITHIN` as it is.
const REST: Duration = Duration::from_millis(500);

/// See `REST`.
const RESTS_WITHIN: Duration = Duration::from_secs(10);

/// The machine's memory at one number of sessions, in bytes.
pub struct Reading {
    sessions: f64,
    broker: Option<Memory>,
    /// The broker's own pages by NUMA node, in bytes; empty if there are not several.
    nodes: Vec<f64>,
    load: Memory,
    slab: Slab,
    available: f64,
}

impl Reading {
    /// Reads it once it has come to rest.
    pub fn take(server: &Server, sessions: u32) -> Result<Reading> {
        let broker = || server.pid.map(process::memory).transpose().context("the broker's memory");
        let deadline = clock::now() + RESTS_WITHIN;
        let mut memory = broker()?;
        loop {
            clock::pause(REST);
            let next = broker()?;
            if next == memory || clock::now() > deadline {
                break;
            }
            memory = next;
        }
        Ok(Reading {
            sessions: f64::from(sessions),
            broker: memory,
            nodes: server.pid.map_or(Vec::new(), numa::anonymous_by_node),
            load: process::memory(std::process::id()).context("this process's memory")?,
            slab: process::slab()?,
            available: process::available()?,
        })
    }

    /// How much more the broker has than at `earlier`.
    pub fn private_since(&self, earlier: &Reading) -> Option<f64> {
        Some(self.broker?.private - earlier.broker?.private)
    }

    /// What each session has taken since the machine was `empty`, for somebody who waits for the rest.
    pub fn in_words(&self, empty: &Reading) -> String {
        let each = |more: f64| more / self.sessions.max(1.0);
        format!(
            "{} sessions have taken {:.0} bytes of user memory each, {:.0} of kernel slab, {:.0} of the machine",
            self.sessions,
            each(self.private_since(empty).unwrap_or(0.0)),
            each(self.slab.total - empty.slab.total),
            each(empty.available - self.available),
        )
    }

    /// What the broker has for itself.
    pub fn broker(&self) -> Option<Memory> {
        self.broker
    }
}

/// Adds what a session costs. The first reading is the empty broker's, the last has most sessions: how many, or 0.
pub fn report(readings: &[Reading], outcome: &mut Outcome) -> f64 {
    let Some((empty, loaded)) = readings.split_first() else { return 0.0 };
    let Some(last) = loaded.last() else { return 0.0 };
    let line = |value: &dyn Fn(&Reading) -> Option<f64>| {
        let points: Option<Vec<(f64, f64)>> =
            loaded.iter().map(|reading| Some((reading.sessions, value(reading)?))).collect();
        least_squares(&points?)
    };
    if let Some(private) = line(&|reading| Some(reading.broker?.private)) {
        outcome.add("user memory per session", "bytes private, slope", private.slope);
        outcome.add("straightness of that line", "r²", private.fit);
    }
    if let Some(anonymous) = line(&|reading| Some(reading.broker?.anonymous)) {
        outcome.add("of that without mapped files", "bytes, slope", anonymous.slope);
    }
    if let Some(memory) = last.broker {
        outcome.add("PSS / sessions", "bytes", memory.proportional / last.sessions);
        outcome.add("broker's PSS", "MB", memory.proportional / 1e6);
    }
    let all: f64 = last.nodes.iter().sum();
    if let Some(fullest) = last.nodes.iter().copied().reduce(f64::max).filter(|_| all > 0.0) {
        outcome.add("broker's own pages on its fullest NUMA node", "%", 100.0 * fullest / all);
    }
    if let Some(memory) = empty.broker {
        outcome.add("empty broker", "MB private", memory.private / 1e6);
    }
    if let Some(slab) = line(&|reading| Some(reading.slab.total)) {
        outcome.add("kernel slab per session", "bytes, both ends, slope", slab.slope);
    }
    outcome.add("load generator per session", "bytes private", last.load.private / last.sessions);
    let taken = (empty.available - last.available) / last.sessions;
    outcome.add("whole machine per session", "bytes, both ends and the load", taken);
    last.sessions
}

/// The readings, and by how much each slab cache grew per session between the first and the last with sessions.
pub fn to_json(readings: &[Reading]) -> Value {
    let each: Vec<Value> = readings.iter().map(Reading::to_json).collect();
    let caches: serde_json::Map<String, Value> = match readings {
        [_, first, .., last] => {
            let more = (last.sessions - first.sessions).max(1.0);
            let grown = last.slab.caches.iter().map(|(name, bytes)| {
                (name, (bytes - first.slab.caches.get(name).copied().unwrap_or(0.0)) / more)
            });
            let shown = grown.filter(|(_, bytes)| bytes.abs() >= CACHE_BYTES_SHOWN);
            shown.map(|(name, bytes)| (name.clone(), json!(bytes))).collect()
        }
        _ => serde_json::Map::new(),
    };
    json!({ "each": each, "slab_bytes_per_session_by_cache": caches })
}

impl Reading {
    fn to_json(&self) -> Value {
        let memory = |memory: &Memory| {
            json!({
                "resident": memory.resident, "proportional": memory.proportional,
                "private": memory.private, "anonymous": memory.anonymous,
            })
        };
        json!({
            "sessions": self.sessions, "broker_bytes": self.broker.as_ref().map(memory), "broker_bytes_by_node": self.nodes,
            "load_bytes": memory(&self.load), "slab_bytes": self.slab.total, "available_bytes": self.available,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn reading(sessions: f64, private: f64, slab: f64) -> Reading {
        let memory = Memory { resident: private, proportional: private, private, anonymous: private / 2.0 };
        let caches = BTreeMap::from([("TCP".to_owned(), slab), ("still".to_owned(), 8_192.0)]);
        let load = Memory { resident: 0.0, proportional: 0.0, private: sessions * 200.0, anonymous: 0.0 };
        let available = 2e10 - private - slab;
        let nodes = vec![private / 4.0, private / 12.0];
        Reading { sessions, broker: Some(memory), nodes, load, slab: Slab { total: slab, caches }, available }
    }

    #[test]
    fn nothing_is_reported_before_there_are_sessions() {
        let mut outcome = Outcome::default();
        assert_eq!(report(&[reading(0.0, 8e6, 1e6)], &mut outcome), 0.0);
        assert!(outcome.figures.is_empty());
    }

    #[test]
    fn a_session_s_share_is_a_slope_without_what_an_empty_broker_has_and_a_quotient_with_it() {
        let readings =
            [reading(0.0, 8e6, 1e6), reading(1e6, 9e6 + 4e8, 1e6 + 8e9), reading(2e6, 9e6 + 8e8, 1e6 + 16e9)];
        let mut outcome = Outcome::default();
        assert_eq!(report(&readings, &mut outcome), 2e6);
        let figure = |name| outcome.figure(name).unwrap();
        assert!((figure("user memory per session") - 400.0).abs() < 1e-6);
        assert!((figure("of that without mapped files") - 200.0).abs() < 1e-6);
        assert!((figure("PSS / sessions") - 404.5).abs() < 1e-6);
        assert!((figure("kernel slab per session") - 8_000.0).abs() < 1e-3);
        assert!((figure("whole machine per session") - 8_400.5).abs() < 1e-3);
        assert!((figure("load generator per session") - 200.0).abs() < 1e-6);
        assert_eq!(figure("empty broker"), 8.0);
        assert!((figure("broker's own pages on its fullest NUMA node") - 75.0).abs() < 1e-6);
        let words = readings[2].in_words(&readings[0]);
        assert!(
            words.starts_with("2000000 sessions have taken 400 bytes of user memory each, 8000 of"),
            "{words}"
        );
        assert_eq!(to_json(&readings)["slab_bytes_per_session_by_cache"], json!({ "TCP": 8_000.0 }));
    }
}
