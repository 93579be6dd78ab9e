//! Scenario `connections`: what one more idle, subscribed connection costs the server and the kernel, and how the
//! server answers while all of them are idle.
//!
//! Opens connections up to each size in turn, each with one subscription, lets the server's memory come to rest, and
//! reads it (`memory`). The figure is the slope of the least-squares line through the sizes: what does not grow with the
//! connections is not in it, and a table that doubles is averaged over the sizes. User memory is the server process's
//! private pages. Kernel memory is the growth of the whole machine's slab, which holds both ends of each connection
//! when the load runs on the same host. Then, with all that are open, come keepalives (`idle`) and a few messages
//! (`probe`). Over TLS, what a connection costs has the handshake and the keys in it; which was agreed on is in the detail. One
//! process may hold 20,000 descriptors here, so larger numbers need another limit or several load
//! processes; what ended a row too early is named, and the figures up to there are kept.

mod idle;
mod memory;
mod probe;

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use self::memory::Reading;
use crate::client::codec::Version;
use crate::client::fleet::{Dialect, Fleet, Session, nothing_expected};
use crate::client::refusal::{self, Refusal};
use crate::measure::clock;
use crate::measure::meter::Mark;
use crate::report::progress::phase;
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
    /// Keep alive in seconds; nothing is sent while connections are opened, so it must outlast the run
    #[arg(long, default_value_t = 1_200)]
    pub keep_alive: u16,
    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    pub connection_protocol: u8,
    /// The longest that opening up to one size may take, in seconds
    #[arg(long, default_value_t = 120)]
    pub size_seconds_max: u64,
    /// How long to be idle, once without and once with PINGREQs; 0: neither
    #[arg(long, default_value_t = 10.0)]
    pub idle_seconds: f64,
    /// In the second of these, the PINGREQs come as from clients with this keep alive, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub idle_keep_alive: u32,
    /// How long to send messages to random ones of the idle sessions; 0: none
    #[arg(long, default_value_t = 10.0)]
    pub probe_seconds: f64,
    /// Such messages per second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub probe_rate: u32,
    /// The run fails if a connection costs the server more private memory than this, in bytes
    #[arg(long)]
    pub user_bytes_max: Option<f64>,
}

impl ConnectionSettings {
    fn dialect(&self, server: &Server) -> Dialect {
        let version = if self.connection_protocol == 5 { Version::V5 } else { Version::V311 };
        Dialect { target: server.address, version, keep_alive_s: self.keep_alive }
    }

    /// What session `index` subscribes to.
    fn filter_of(&self, index: usize) -> String {
        self.filter.replace("{id}", &format!("{index:07}"))
    }

    fn session(&self, index: usize) -> Session {
        Session {
            client_id: format!("bench-{index:07}"),
            clean: self.clean,
            subscription: Some((self.filter_of(index), 1)),
        }
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.size_seconds_max)
    }
}

/// How long those may take who were in their handshakes when another was refused.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// How the opening went.
#[derive(Default)]
struct Opening {
    readings: Vec<Reading>,
    cpu_us: f64,
    cpu_by_size: Vec<Value>,
    wall: Duration,
    /// What ended it before the last size, and what else is known of that.
    stopped: Option<(String, String)>,
}

/// Runs the scenario on `server`.
pub fn run(server: &Server, settings: &ConnectionSettings) -> Result<Outcome> {
    let rising = settings.sizes.windows(2).all(|pair| pair[0] < pair[1]);
    ensure!(rising && settings.sizes.len() >= 2, "--sizes needs at least two rising numbers");
    let mut fleet = Fleet::new(settings.dialect(server))?;
    let mut outcome = Outcome::default();
    let start = Mark::read(server.pid)?;
    let opening = open(&mut fleet, server, settings)?;
    let open: Vec<usize> = (0..fleet.len()).filter(|&index| fleet.is_open(index)).collect();
    let tls = fleet.negotiated();
    if let Some(tls) = &tls {
        report::progress(&format!("  {tls}"));
    }
    let reached = opening.readings.last().map_or(0, |reading| reading.connections);
    memory::add_slopes(&mut outcome, &opening.readings);
    if let Some(max) = settings.user_bytes_max {
        memory::guard(&mut outcome, max);
    }
    let opened_s = opening.wall.as_secs_f64().max(1e-9);
    outcome.add("connect rate", "connections/s", f64::from(reached) / opened_s);
    if server.pid.is_some() && reached > 0 {
        outcome.add("CPU per connect and subscribe", "µs", opening.cpu_us / f64::from(reached));
    }
    outcome.add("connections", "open at the end", open.len() as f64);
    if let Some((reason, more)) = &opening.stopped {
        outcome.failures.push(format!("no more than {} connections: {reason} ({more})", open.len()));
    }
    let idle = be_idle(&mut fleet, server, settings, &open, &mut outcome).unwrap_or_else(|error| {
        outcome.failures.push(format!("{error:#} (while idle)"));
        Value::Null
    });
    outcome.detail = json!({
        "settings": format!("{settings:?}"),
        "seconds": Mark::read(server.pid)?.since(&start).wall.as_secs_f64(),
        "stopped": opening.stopped.map(|(reason, _)| json!({ "connections": open.len(), "reason": reason })),
        "tls": tls,
        "connect_cpu": opening.cpu_by_size,
        "readings": opening.readings.iter().map(Reading::to_json).collect::<Vec<_>>(),
        "slab_bytes_per_connection_by_cache": memory::slab_by_cache(&opening.readings),
        "idle": idle,
    });
    if !server.is_child() {
        leave_nothing(fleet, server, settings, &open)?;
    }
    Ok(outcome)
}

/// Opens up to each size, and reads the memory there, until one is not reached.
fn open(fleet: &mut Fleet, server: &Server, settings: &ConnectionSettings) -> Result<Opening> {
    let mut opening = Opening { readings: vec![memory::read(server, 0)?], ..Opening::default() };
    let session = |index| settings.session(index);
    for &size in &settings.sizes {
        phase(&format!("opening {size} connections"));
        let before = Mark::read(server.pid)?;
        let opened = fleet.len() as u32;
        let deadline = clock::now() + settings.limit();
        if let Err(error) = fleet.open(size as usize, deadline, &session, &mut nothing_expected) {
            opening.stopped = Some((refusal::reason(&error), format!("{error:#}")));
            settle(fleet, settings);
            break;
        }
        let interval = Mark::read(server.pid)?.since(&before);
        opening.wall += interval.wall;
        let spent = interval.server.map(|server| server.cpu_us);
        opening.cpu_us += spent.unwrap_or(0.0);
        let each = spent.map(|us| us / f64::from(size - opened));
        opening.cpu_by_size.push(json!({ "connections": size, "cpu_us_each": each }));
        opening.readings.push(memory::read(server, size)?);
        report::progress(&format!("  {size} connections are open"));
    }
    Ok(opening)
}

/// One was refused: those who are in their handshakes may still finish, so that it is known how many there can be.
fn settle(fleet: &mut Fleet, settings: &ConnectionSettings) {
    let deadline = clock::now() + SETTLE_MAX;
    let session = |index| settings.session(index);
    // Each turn of this loop abandons one client, so it ends.
    while let Err(error) = fleet.open(fleet.len(), deadline, &session, &mut nothing_expected) {
        let refused = error.downcast_ref::<Refusal>().and_then(Refusal::client);
        let Some(client) = refused else { break };
        fleet.abandon(client);
    }
    fleet.abandon_opening();
}

/// Keepalives, then a few messages, with those who are open.
fn be_idle(
    fleet: &mut Fleet,
    server: &Server,
    settings: &ConnectionSettings,
    open: &[usize],
    outcome: &mut Outcome,
) -> Result<Value> {
    let mut detail = json!({});
    if open.is_empty() {
        return Ok(detail);
    }
    if settings.idle_seconds > 0.0 {
        detail["keepalives"] = idle::keep_alives(fleet, server, settings, open, outcome)?;
    }
    if settings.probe_seconds > 0.0 {
        detail["probes"] = probe::run(fleet, server, settings, open, outcome)?;
    }
    Ok(detail)
}

/// Ends connections and durable sessions in a broker that goes on running.
fn leave_nothing(fleet: Fleet, server: &Server, settings: &ConnectionSettings, open: &[usize]) -> Result<()> {
    fleet.leave(clock::now() + settings.limit())?;
    let mut fleet = Fleet::new(settings.dialect(server))?;
    let clean = |index: usize| Session { clean: true, subscription: None, ..settings.session(open[index]) };
    fleet.open(open.len(), clock::now() + settings.limit(), &clean, &mut nothing_expected)?;
    fleet.leave(clock::now() + settings.limit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: ConnectionSettings,
    }

    /// Answers one client until it leaves; who has this number or a higher one is refused.
    fn answer(mut stream: TcpStream, refused_from: usize) {
        let mut bytes = [0; 256];
        while let Ok(count) = stream.read(&mut bytes)
            && count > 0
        {
            let number = || std::str::from_utf8(&bytes[count - 7..count]).unwrap().parse::<usize>().unwrap();
            match bytes[0] >> 4 {
                1 if number() >= refused_from => stream.write_all(&[0x20, 2, 0, 3]).unwrap(),
                1 => stream.write_all(&[0x20, 2, 0, 0]).unwrap(),
                8 => stream.write_all(&[0x90, 3, bytes[2], bytes[3], 1]).unwrap(),
                _ => return,
            }
        }
    }

    #[test]
    fn a_server_that_takes_no_more_is_named_with_the_number_it_took() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::running(listener.local_addr().unwrap(), None);
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(|| answer(stream.unwrap(), 17));
            }
        });
        let line = ["connections", "--sizes", "5,30", "--idle-seconds", "0", "--probe-seconds", "0"];
        let outcome = run(&server, &Line::parse_from(line).settings).unwrap();
        assert_eq!(outcome.figure("connections"), Some(17.0));
        assert!(
            outcome.failures[0].starts_with("no more than 17 connections: CONNACK reason 0x03"),
            "{:?}",
            outcome.failures
        );
        assert_eq!(outcome.detail["stopped"]["connections"], 17);
        assert_eq!(
            outcome.detail["readings"].as_array().map(Vec::len),
            Some(2),
            "none of what was not reached"
        );
    }
}
