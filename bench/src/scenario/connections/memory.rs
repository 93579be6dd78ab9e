//! What connections cost in memory: the server's pages and the kernel's slab, read at rest at several sizes.
//!
//! Decides when the memory is at rest, and that the figure is the slope of the least-squares line. Does not open
//! anything: `connections` calls it between its steps.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::measure::clock;
use crate::measure::process::{self, Memory, Slab};
use crate::measure::slope::least_squares;
use crate::report::{Curve, Outcome};
use crate::server::Server;

/// The figure that a guard is about.
const USER: &str = "user memory per connection";

/// What was read at one size.
pub(super) struct Reading {
    pub(super) connections: u32,
    pub(super) memory: Option<Memory>,
    slab: Slab,
}

/// How long the memory must not change to be at rest. An allocator gives back what has been free for a while, commonly a
/// second, and whoever asks it may do so once a second; a table that was outgrown is otherwise read as memory in use.
const REST: Duration = Duration::from_millis(2_500);

/// What moves at rest: less than that is not a change.
const STILL_BYTES: f64 = 32_768.0;

/// Reads the memory once it has come to rest, or after fifteen seconds as it is.
pub(super) fn read(server: &Server, connections: u32) -> Result<Reading> {
    let Some(pid) = server.pid else {
        return Ok(Reading { connections, memory: None, slab: process::slab()? });
    };
    let deadline = clock::now() + Duration::from_secs(15);
    let mut memory = process::memory(pid).context("the server's memory")?;
    let mut since = clock::now();
    loop {
        clock::pause(Duration::from_millis(250));
        let next = process::memory(pid).context("the server's memory")?;
        let now = clock::now();
        if (next.private - memory.private).abs() > STILL_BYTES {
            (memory, since) = (next, now);
        }
        if now.saturating_duration_since(since) >= REST || now > deadline {
            return Ok(Reading { connections, memory: Some(next), slab: process::slab()? });
        }
    }
}

/// Adds the bytes per connection: the slope of the line through the sizes.
pub(super) fn add_slopes(outcome: &mut Outcome, readings: &[Reading]) {
    // The empty server is a reading for the document, not a point of the line: it holds what is set up once.
    let loaded = readings.get(1..).unwrap_or_default();
    let line = |value: &dyn Fn(&Reading) -> Option<f64>| {
        let points: Option<Vec<(f64, f64)>> =
            loaded.iter().map(|reading| Some((f64::from(reading.connections), value(reading)?))).collect();
        least_squares(&points?)
    };
    let memory = |field: fn(&Memory) -> f64| move |reading: &Reading| reading.memory.as_ref().map(field);
    if let Some(private) = line(&memory(|memory| memory.private)) {
        outcome.add(USER, "bytes private", private.slope);
        outcome.add("straightness of that line", "r²", private.fit);
    }
    if let Some(proportional) = line(&memory(|memory| memory.proportional)) {
        outcome.add("PSS per connection", "bytes", proportional.slope);
    }
    if let Some(slab) = line(&|reading| Some(reading.slab.total)) {
        outcome.add("kernel slab per connection", "bytes, both ends", slab.slope);
    }
    let points = |reading: &Reading| Some((f64::from(reading.connections), reading.memory?.private / 1e6));
    outcome.curves.push(Curve {
        name: "server memory",
        x: "connections",
        y: "MB private",
        logarithmic_x: false,
        points: readings.iter().filter_map(points).collect(),
    });
    if let Some(empty) = readings.first().and_then(|reading| reading.memory) {
        outcome.add("empty server", "MB private", empty.private / 1e6);
    }
    if let Some((last, memory)) = loaded.last().and_then(|last| Some((last, last.memory?))) {
        outcome.add(
            "PSS / connections at the end",
            "bytes",
            memory.proportional / f64::from(last.connections),
        );
    }
}

/// Makes the run fail if a connection costs the server more user memory than that, or if nobody knows.
pub(super) fn guard(outcome: &mut Outcome, bytes_max: f64) {
    match outcome.figure(USER) {
        Some(bytes) if bytes <= bytes_max => {}
        Some(bytes) => outcome.failures.push(format!(
            "a connection costs the server {bytes:.0} bytes of user memory, more than {bytes_max:.0}"
        )),
        None => outcome.failures.push("what a connection costs the server is not known".to_owned()),
    }
}

/// What each slab cache grew by per connection, those that matter.
pub(super) fn slab_by_cache(readings: &[Reading]) -> BTreeMap<String, f64> {
    let Some((first, last)) = readings.get(1).zip(readings.last()) else { return BTreeMap::new() };
    let more = f64::from(last.connections - first.connections);
    if more == 0.0 {
        return BTreeMap::new();
    }
    let grown = last.slab.caches.iter().map(|(name, bytes)| {
        (name.clone(), (bytes - first.slab.caches.get(name).copied().unwrap_or(0.0)) / more)
    });
    grown.filter(|(_, bytes)| bytes.abs() >= 4.0).collect()
}

impl Reading {
    pub(super) fn to_json(&self) -> Value {
        let memory = self.memory.map(|memory| {
            json!({
                "resident": memory.resident, "proportional": memory.proportional,
                "private": memory.private, "anonymous": memory.anonymous,
            })
        });
        json!({ "connections": self.connections, "server_bytes": memory, "slab_bytes": self.slab.total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(connections: u32, private: f64, slab: f64) -> Reading {
        let memory = Memory { resident: private, proportional: private, private, anonymous: private };
        let caches = BTreeMap::from([("TCP".to_owned(), slab), ("still".to_owned(), 8192.0)]);
        Reading { connections, memory: Some(memory), slab: Slab { total: slab, caches } }
    }

    #[test]
    fn the_empty_server_is_reported_and_is_no_point_of_the_line() {
        let readings = [
            reading(0, 1e6, 0.0),
            reading(1_000, 9e6, 4e6),
            reading(2_000, 9.3e6, 8e6),
            reading(3_000, 9.6e6, 12e6),
        ];
        let mut outcome = Outcome::default();
        add_slopes(&mut outcome, &readings);
        assert_eq!(outcome.figure("empty server"), Some(1.0));
        assert!((outcome.figure("user memory per connection").unwrap() - 300.0).abs() < 1e-6);
        assert!((outcome.figure("kernel slab per connection").unwrap() - 4_000.0).abs() < 1e-6);
        assert_eq!(outcome.curves[0].points[1], (1_000.0, 9.0));
        assert_eq!(slab_by_cache(&readings), BTreeMap::from([("TCP".to_owned(), 4_000.0)]));
    }

    #[test]
    fn a_connection_that_costs_more_than_it_may_fails_the_run_and_so_does_one_of_unknown_cost() {
        let line =
            |bytes: f64| [0, 1_000, 2_000].map(|count| reading(count, 1e6 + f64::from(count) * bytes, 0.0));
        let failures = |readings: &[Reading]| {
            let mut outcome = Outcome::default();
            add_slopes(&mut outcome, readings);
            guard(&mut outcome, 450.0);
            outcome.failures
        };
        assert_eq!(failures(&line(449.0)), [""; 0]);
        assert!(failures(&line(451.0))[0].contains("451 bytes of user memory, more than 450"));
        assert_eq!(failures(&[]).len(), 1);
    }
}
