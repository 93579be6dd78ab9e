//! Scenario `connections`: what one more idle, subscribed connection costs the server and the kernel.
//!
//! Opens connections up to each size in turn, each with one subscription, lets the server's memory come to rest, and
//! reads it. The figure is the slope of the least-squares line through the sizes: what does not grow with the
//! connections is not in it, and a table that doubles is averaged over the sizes. User memory is the server process's
//! private pages. Kernel memory is the growth of the whole machine's slab, which holds both ends of each connection
//! when the load runs on the same host. One process may hold 20,000 descriptors here, so larger numbers need another
//! limit or several load processes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::client::codec::Version;
use crate::client::fleet::{Dialect, Fleet, Session, nothing_expected};
use crate::measure::clock;
use crate::measure::meter::Mark;
use crate::measure::process::{self, Memory, Slab};
use crate::measure::slope::least_squares;
use crate::report::{self, Outcome};
use crate::server::Server;

/// How many connections, and of which kind.
#[derive(Clone, Debug, clap::Args)]
pub struct ConnectionSettings {
    /// Numbers of connections to measure at, rising
    #[arg(long, value_delimiter = ',', default_values_t = [2_000, 5_500, 9_000, 12_500, 16_000])]
    pub sizes: Vec<u32>,
    /// Sessions that end with their connections, instead of durable ones
    #[arg(long)]
    pub clean: bool,
    /// What each one subscribes to; {id} is its number. A broker's memory may depend on the levels
    #[arg(long, default_value = "u/{id}/inbox")]
    pub filter: String,
    /// Keep alive in seconds; the load sends no PINGREQ, so it must outlast the run
    #[arg(long, default_value_t = 1_200)]
    pub keep_alive: u16,
    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    pub connection_protocol: u8,
    /// The longest that opening up to one size may take, in seconds
    #[arg(long, default_value_t = 120)]
    pub size_seconds_max: u64,
}

/// What was read at one size.
struct Reading {
    connections: u32,
    memory: Option<Memory>,
    slab: Slab,
}

/// Runs the scenario on `server`.
pub fn run(server: &Server, settings: &ConnectionSettings) -> Result<Outcome> {
    let rising = settings.sizes.windows(2).all(|pair| pair[0] < pair[1]);
    ensure!(rising && settings.sizes.len() >= 2, "--sizes needs at least two rising numbers");
    let version = if settings.connection_protocol == 5 { Version::V5 } else { Version::V311 };
    let dialect = Dialect { target: server.address, version, keep_alive_s: settings.keep_alive };
    let session = |index: usize| Session {
        client_id: format!("bench-{index:07}"),
        clean: settings.clean,
        subscription: Some((settings.filter.replace("{id}", &format!("{index:07}")), 1)),
    };
    let limit = Duration::from_secs(settings.size_seconds_max);
    let mut fleet = Fleet::new(dialect)?;
    let mut outcome = Outcome::default();
    let mut readings = vec![read(server, 0)?];
    let (mut cpu_by_size, mut opened_in) = (Vec::new(), Duration::ZERO);
    let start = Mark::read(server.pid)?;
    let mut cpu_us = 0.0;
    for &size in &settings.sizes {
        let before = Mark::read(server.pid)?;
        let opened = fleet.len() as u32;
        let done = fleet.open(size as usize, clock::now() + limit, &session, &mut nothing_expected);
        let interval = Mark::read(server.pid)?.since(&before);
        if let Err(error) = done {
            outcome.failures.push(format!("{error:#} (opening {size})"));
            break;
        }
        opened_in += interval.wall;
        let spent = interval.server.map(|server| server.cpu_us);
        cpu_us += spent.unwrap_or(0.0);
        cpu_by_size.push(
            json!({ "connections": size, "cpu_us_each": spent.map(|us| us / f64::from(size - opened)) }),
        );
        readings.push(read(server, size)?);
        report::progress(&format!("  {size} connections are open"));
    }
    let reached = readings.last().map_or(0, |reading| reading.connections);
    add_slopes(&mut outcome, &readings);
    outcome.add("connect rate", "connections/s", f64::from(reached) / opened_in.as_secs_f64().max(1e-9));
    if server.pid.is_some() && reached > 0 {
        outcome.add("CPU per connect and subscribe", "µs", cpu_us / f64::from(reached));
    }
    outcome.add("connections", "open at the end", f64::from(reached));
    outcome.detail = json!({
        "settings": format!("{settings:?}"),
        "seconds": Mark::read(server.pid)?.since(&start).wall.as_secs_f64(),
        "connect_cpu": cpu_by_size,
        "readings": readings.iter().map(Reading::to_json).collect::<Vec<_>>(),
        "slab_bytes_per_connection_by_cache": slab_by_cache(&readings),
    });
    if !server.is_child() {
        leave_nothing(fleet, dialect, reached as usize, &session, limit)?;
    }
    Ok(outcome)
}

/// Ends connections and durable sessions in a broker that goes on running.
fn leave_nothing(
    fleet: Fleet,
    dialect: Dialect,
    count: usize,
    session: &impl Fn(usize) -> Session,
    limit: Duration,
) -> Result<()> {
    fleet.leave(clock::now() + limit)?;
    let mut fleet = Fleet::new(dialect)?;
    let clean = |index| Session { clean: true, subscription: None, ..session(index) };
    fleet.open(count, clock::now() + limit, &clean, &mut nothing_expected)?;
    fleet.leave(clock::now() + limit)
}

/// Reads the memory once it has come to rest: the same twice, 250 ms apart, or after five seconds as it is.
fn read(server: &Server, connections: u32) -> Result<Reading> {
    let Some(pid) = server.pid else {
        return Ok(Reading { connections, memory: None, slab: process::slab()? });
    };
    let deadline = clock::now() + Duration::from_secs(5);
    let mut memory = process::memory(pid).context("the server's memory")?;
    loop {
        clock::pause(Duration::from_millis(250));
        let next = process::memory(pid).context("the server's memory")?;
        if next == memory || clock::now() > deadline {
            return Ok(Reading { connections, memory: Some(next), slab: process::slab()? });
        }
        memory = next;
    }
}

fn add_slopes(outcome: &mut Outcome, readings: &[Reading]) {
    // The empty server is a reading for the document, not a point of the line: it holds what is set up once.
    let loaded = readings.get(1..).unwrap_or_default();
    let line = |value: &dyn Fn(&Reading) -> Option<f64>| {
        let points: Option<Vec<(f64, f64)>> =
            loaded.iter().map(|reading| Some((f64::from(reading.connections), value(reading)?))).collect();
        least_squares(&points?)
    };
    let memory = |field: fn(&Memory) -> f64| move |reading: &Reading| reading.memory.as_ref().map(field);
    if let Some(private) = line(&memory(|memory| memory.private)) {
        outcome.add("user memory per connection", "bytes private", private.slope);
        outcome.add("straightness of that line", "r²", private.fit);
    }
    if let Some(proportional) = line(&memory(|memory| memory.proportional)) {
        outcome.add("PSS per connection", "bytes", proportional.slope);
    }
    if let Some(slab) = line(&|reading| Some(reading.slab.total)) {
        outcome.add("kernel slab per connection", "bytes, both ends", slab.slope);
    }
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

/// What each slab cache grew by per connection, those that matter.
fn slab_by_cache(readings: &[Reading]) -> BTreeMap<String, f64> {
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
    fn to_json(&self) -> Value {
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
        assert_eq!(slab_by_cache(&readings), BTreeMap::from([("TCP".to_owned(), 4_000.0)]));
    }
}
