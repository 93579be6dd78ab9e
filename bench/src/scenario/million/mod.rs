//! `million`: as many durable sessions as memory allows in one broker process, and what they cost and still do.
//!
//! Six steps on one broker, which is started here and dies once in between: the sessions connect and subscribe, and
//! memory is read at rising sizes; nothing happens for a while, and its CPU is read; messages go to sessions drawn at
//! random; one message goes to many; messages are stored for some that leave; the broker is killed and started again,
//! and a sample of the sessions returns (`returning`). `crowd` is the clients' end. `bench/million/run` runs it in a
//! virtual host whose kernel allows a process more than a few thousand open files; with fewer sessions it runs anywhere.
//!
//! Decides what is read when and which figures are made of it. A message that does not arrive, arrives at somebody
//! else, or a session that is not there after the start is a failure; a slow answer is a figure.
//!
//! Invariant: nothing is published before the last memory reading of idle sessions.

mod crowd;
mod reading;
mod returning;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::crowd::{Crowd, Spread};
use self::reading::Reading;
use crate::client::codec::Version;
use crate::client::fleet::Dialect;
use crate::load::random::Random;
use crate::measure::clock;
use crate::measure::meter::Mark;
use crate::report::{self, Outcome};
use crate::server::Server;

/// Progress is told this often while sessions connect: an emulated machine takes a while.
const PROGRESS_PARTS: usize = 50;

/// What else than sessions needs descriptors: files, sets, the publisher.
const DESCRIPTORS_BESIDE: u64 = 256;

/// Lines of the broker's log that are kept in the document.
const LOG_LINES_MAX: usize = 40;

/// How many sessions, and what is asked of them.
#[derive(Clone, Debug, clap::Args)]
pub struct MillionSettings {
    /// Durable sessions, each connected and with one subscription
    #[arg(long, default_value_t = 9_000, value_parser = clap::value_parser!(u32).range(100..=4_000_000))]
    sessions: u32,
    /// Sizes at which memory is read on the way there
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=50))]
    steps: u32,
    /// Keep alive in seconds, 0 for none; the load sends no PINGREQ, so it must outlast the run
    #[arg(long, default_value_t = 0)]
    keep_alive: u16,
    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    protocol: u8,
    /// Handshakes at once: what arrives together is synced together
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    handshakes: u32,
    /// How long nothing happens while the CPU is read
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// Messages to sessions drawn at random, one at a time
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    probes: u32,
    /// Sessions that subscribe to one topic together; all of them, if there are fewer
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    fan_out: u32,
    /// Sessions that return after the broker's death: every other one had left and has a message waiting
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    sample: u32,
    /// Payload of a message, in bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=100_000))]
    payload: u32,
    /// The longest that one step may take
    #[arg(long, default_value_t = 180)]
    step_minutes_max: u64,
    /// Of what is drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl MillionSettings {
    fn dialect(&self, server: &Server) -> Dialect {
        let version = if self.protocol == 5 { Version::V5 } else { Version::V311 };
        Dialect { target: server.address, version, keep_alive_s: self.keep_alive }
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(60 * self.step_minutes_max)
    }

    /// The sizes at which memory is read, the last is all.
    fn sizes(&self) -> Vec<u32> {
        let part = |step: u32| u64::from(self.sessions) * u64::from(step) / u64::from(self.steps);
        (1..=self.steps).map(|step| part(step) as u32).collect()
    }
}

/// Runs the scenario on `server`, which has to be one that was started here: it is killed on the way.
pub fn run(server: &mut Server, settings: &MillionSettings) -> Result<Outcome> {
    ensure!(server.is_child(), "it kills the broker and starts it again: give --broker, not --target");
    let limits = fs::read_to_string("/proc/self/limits").context("reading /proc/self/limits")?;
    let open_files = open_files_max(&limits).context("/proc/self/limits is not understood")?;
    ensure!(
        u64::from(settings.sessions) + DESCRIPTORS_BESIDE <= open_files,
        "{} sessions need as many open files and {DESCRIPTORS_BESIDE} more, and a process may have {open_files} here: \
         raise that (ulimit -n, and fs.nr_open for root), give fewer --sessions, or use bench/million/run",
        settings.sessions
    );
    let mut outcome = Outcome::default();
    let mut detail = json!({ "settings": format!("{settings:?}") });
    if let Err(error) = drive(server, settings, &mut outcome, &mut detail) {
        // What was measured until then stays in the document.
        outcome.failures.push(format!("{error:#}"));
        detail["broker_log"] = json!(server.log_from(0, LOG_LINES_MAX));
    }
    outcome.detail = detail;
    Ok(outcome)
}

fn drive(
    server: &mut Server,
    settings: &MillionSettings,
    outcome: &mut Outcome,
    detail: &mut Value,
) -> Result<()> {
    let mut random = Random::new(settings.seed);
    let mut crowd = Crowd::new(settings.dialect(server), settings)?;
    connect(server, settings, &mut crowd, outcome, detail).context("connecting")?;
    rest(server, settings, outcome)?;
    probe(settings, &mut crowd, &mut random, outcome).context("probing")?;
    fan_out(server, settings, &mut crowd, outcome, detail).context("one message to many")?;
    returning::run(server, settings, crowd, &mut random, outcome, detail)
        .context("killing the broker and returning")
}

/// The soft limit of open files, from `/proc/PID/limits`.
fn open_files_max(limits: &str) -> Option<u64> {
    let soft =
        limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

/// Connects all sessions, reading the memory at each size. If not all can be, the figures are those of the sizes reached.
fn connect(
    server: &Server,
    settings: &MillionSettings,
    crowd: &mut Crowd,
    outcome: &mut Outcome,
    detail: &mut Value,
) -> Result<()> {
    let mut readings = vec![Reading::take(server, 0)?];
    let (mut opened_in_s, mut cpu_us, mut sizes) = (0.0, 0.0, Vec::new());
    let deadline = clock::now() + settings.limit();
    let mut done = Ok(());
    for size in settings.sizes() {
        let (before, open) = (Mark::read(server.pid)?, crowd.sessions_open());
        done = open_to(crowd, size, settings, deadline);
        if done.is_err() {
            break;
        }
        let interval = Mark::read(server.pid)?.since(&before);
        let more = (size as usize - open) as f64;
        let spent_us = interval.server.map_or(0.0, |server| server.cpu_us);
        sizes.push(json!({
            "sessions": size, "per_second": more / interval.wall.as_secs_f64(), "cpu_us_each": spent_us / more,
        }));
        opened_in_s += interval.wall.as_secs_f64();
        cpu_us += spent_us;
        let reading = Reading::take(server, size)?;
        report::progress(&format!("  {}", reading.in_words(&readings[0])));
        readings.push(reading);
    }
    detail["connect"] = json!({ "sizes": sizes, "readings": reading::to_json(&readings) });
    let reached = reading::report(&readings, outcome);
    if reached > 0.0 {
        outcome.add("sessions", "connected", reached);
        outcome.add("connect rate", "sessions/s", reached / opened_in_s);
        outcome.add("CPU per connect and subscribe", "µs", cpu_us / reached);
    }
    done?;
    crowd.open_publisher(deadline)
}

/// Connects sessions until there are `size`, and says now and then how far it is.
fn open_to(crowd: &mut Crowd, size: u32, settings: &MillionSettings, deadline: Instant) -> Result<()> {
    let (begun, open) = (clock::now(), crowd.sessions_open());
    let part = (settings.sessions as usize).div_ceil(PROGRESS_PARTS);
    while crowd.sessions_open() < size as usize {
        crowd.open((crowd.sessions_open() + part).min(size as usize), deadline)?;
        let rate = (crowd.sessions_open() - open) as f64 / (clock::now() - begun).as_secs_f64();
        report::progress(&format!("  {} sessions are open, {rate:.0}/s", crowd.sessions_open()));
    }
    Ok(())
}

/// What sessions cost that do nothing.
fn rest(server: &Server, settings: &MillionSettings, outcome: &mut Outcome) -> Result<()> {
    report::progress(&format!("  nothing happens for {} s", settings.idle_seconds));
    let before = Mark::read(server.pid)?;
    clock::pause(Duration::from_secs(settings.idle_seconds));
    let interval = Mark::read(server.pid)?.since(&before);
    if let Some(idle) = interval.server {
        let wall_us = interval.wall.as_secs_f64().max(1e-6) * 1e6;
        outcome.add("idle broker", "% of a core", 100.0 * idle.cpu_us / wall_us);
        outcome.add("idle broker wakes", "/s", idle.context_switches as f64 / wall_us * 1e6);
    }
    Ok(())
}

/// Messages to sessions drawn at random, one at a time.
fn probe(
    settings: &MillionSettings,
    crowd: &mut Crowd,
    random: &mut Random,
    outcome: &mut Outcome,
) -> Result<()> {
    let numbers: Vec<usize> =
        (0..settings.probes).map(|_| random.below(settings.sessions as usize)).collect();
    let waits = crowd.send_to_each(&numbers, settings.limit())?;
    report::progress(&format!("  {} sessions drawn at random got a message", numbers.len()));
    let spread = Spread::of(waits);
    outcome.add("probe p50", "ms from publish to arrival", spread.median_ms);
    outcome.add("probe p99", "ms", spread.p99_ms);
    outcome.add("probe longest", "ms", spread.longest_ms);
    Ok(())
}

/// One topic that many share: what that costs, and how long one message takes to all of them at QoS 0 and 1.
fn fan_out(
    server: &Server,
    settings: &MillionSettings,
    crowd: &mut Crowd,
    outcome: &mut Outcome,
    detail: &mut Value,
) -> Result<()> {
    let count = settings.fan_out.min(settings.sessions) as usize;
    let before = Reading::take(server, settings.sessions)?;
    crowd.share_topic(count, settings.limit())?;
    let after = Reading::take(server, settings.sessions)?;
    report::progress(&format!("  {count} sessions share a topic"));
    outcome.add("sessions sharing a topic", "subscribed", count as f64);
    if let Some(bytes) = after.private_since(&before) {
        outcome.add("user memory per further subscription", "bytes private", bytes / count as f64);
    }
    let names = [
        ["QoS 0 to all, first", "QoS 0 to all, half", "QoS 0 to all, last", "QoS 0 to all, CPU for each"],
        ["QoS 1 to all, first", "QoS 1 to all, half", "QoS 1 to all, last", "QoS 1 to all, CPU for each"],
    ];
    for (qos, [first, half, last, cost]) in [0, 1].into_iter().zip(names) {
        let mark = Mark::read(server.pid)?;
        let told = crowd.tell_all(qos, settings.limit())?;
        let interval = Mark::read(server.pid)?.since(&mark);
        let spread = Spread::of(told.waits);
        outcome.add(first, "ms", spread.shortest_ms);
        outcome.add(half, "ms", spread.median_ms);
        outcome.add(last, "ms", spread.longest_ms);
        if let Some(server) = interval.server {
            outcome.add(cost, "µs", server.cpu_us / count as f64);
        }
        if let Some(acknowledged) = told.acknowledged {
            outcome.add("QoS 1 to all, PUBACK", "ms", acknowledged.as_secs_f64() * 1e3);
        }
        report::progress(&format!("  one message at QoS {qos} reached {count} sessions"));
    }
    detail["repeated_in_fan_out"] = json!(crowd.repeated());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_the_soft_one() {
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax processes  7  8  processes\n\
                      Max open files            20000                30000                files     \n";
        assert_eq!(open_files_max(limits), Some(20_000));
        assert_eq!(open_files_max("Max open files unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(open_files_max("Max processes 7 8"), None);
    }
}
