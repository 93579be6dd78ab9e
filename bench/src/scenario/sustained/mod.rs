//! `sustained`: hours of store and drain on one broker, and whether it stays as it was: disk, memory, writes, waits.
//!
//! What it is for: a journal has to give up what is dead as fast as it takes in what is new, for ever, also when some
//! sessions never come back; and publishers must not notice.
//!
//! **The load.** QoS 1, MQTT 5.0, open loop: message `n` is due at `n / rate` whatever happened to those before, and its
//! recipient is drawn among all sessions, which are durable. Most come and go: each stays for an exponential time and is
//! away for one drawn evenly up to twice its mean; then it takes what has gathered. So a share of the sessions is away
//! at any time, and its queues are what the journal has to keep.
//!
//! **Those who never return**, 5 %, are of two kinds, because two things bound what a broker keeps for them, and both are
//! real. Half get messages *without expiry*, as from senders who never thought of it: their queues fill within minutes, then
//! the broker refuses (0x97) and senders take that for an answer. What was taken lives for ever, and was written among
//! messages that are long dead: exactly what must not pin a segment for each. The other half get messages *with expiry*,
//! a quarter of the run and at most two minutes: their queues roll on, and each of these records outlives most of its
//! neighbours, so survivors have to be copied all the time, not only once. Without a bound of either kind a broker that
//! loses nothing must grow, and "flat" would be the wrong demand.
//!
//! **What is written.** Run the broker with a hold of 0 (`bench/sustained.toml`): otherwise messages to sessions that are
//! there are acknowledged in time and never written, and the journal sees only half of the load.
//!
//! **The judgement** is in `verdict` (flat), `waits` (publishers) and `books` (messages); the first third of a run is for
//! growing to size and counts for the books only. At the end everybody comes back, also who never was to, and gets
//! exactly what must be there.

mod books;
mod load;
mod plot;
mod sample;
mod stand;
mod verdict;
mod waits;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use self::books::{Kind, Totals};
use self::load::Load;
use self::sample::{Sampler, series};
use self::stand::CpuWatch;
use self::verdict::{RECLAIM_AMPLIFICATION_MAX, SETTLED_FROM, Trend};
use self::waits::{Blame, Quantiles};
use crate::Environment;
use crate::client::codec::Version;
use crate::client::fleet::{Dialect, Fleet};
use crate::measure::clock;
use crate::measure::disk::Probe;
use crate::measure::meter::Mark;
use crate::report::{self, Outcome};
use crate::server::{Broker, Server};

/// What to run, or which document to show.
#[derive(Args, Clone, Debug)]
pub struct SustainedSettings {
    /// The broker, as NAME=COMMAND with {port} and {data} in it
    #[arg(long, required_unless_present = "from")]
    broker: Option<Broker>,
    /// How long messages are published
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Messages per second, all publishers together
    #[arg(long, default_value_t = 6_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Payload of a message, in bytes
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    payload: u32,
    /// Durable sessions, each with a topic of its own
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(20..=18_000))]
    sessions: u32,
    /// Connections that publish; each serves the sessions whose number is its own modulo this
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    publishers: u32,
    /// Messages of one publisher in flight; what is due beyond waits, and its wait counts
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
    /// Share of the sessions that never return
    #[arg(long, default_value_t = 0.05)]
    never_share: f64,
    /// Share of the others that is away at any time
    #[arg(long, default_value_t = 0.5)]
    away_share: f64,
    /// How long an absence is on average; at most twice that
    #[arg(long, default_value_t = 8.0)]
    absence_seconds: f64,
    /// Expiry of messages that expire [default: a quarter of the run, at most 120]
    #[arg(long, value_parser = clap::value_parser!(u32).range(4..))]
    expiry_seconds: Option<u32>,
    /// Time between two samples [default: a 360th of the run, at least 2]
    #[arg(long)]
    sample_seconds: Option<f64>,
    /// Pause between two syncs of the file beside the broker's, in milliseconds
    #[arg(long, default_value_t = 50)]
    probe_pause_ms: u64,
    /// Growth over the settled part, by least squares, that still counts as flat
    #[arg(long, default_value_t = 5.0)]
    growth_max_percent: f64,
    /// What disk use grows by at a time, in MiB: once is flat too
    #[arg(long, default_value_t = 64)]
    disk_step_mib: u32,
    /// What 999 of 1,000 publishes may wait in the settled part, in milliseconds
    #[arg(long, default_value_t = 50.0)]
    wait_max_ms: f64,
    /// Of everything that is drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Draw the run into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Run nothing: show this document of an earlier run
    #[arg(long, value_name = "FILE", conflicts_with = "broker")]
    from: Option<PathBuf>,
}

impl SustainedSettings {
    fn seconds(&self) -> f64 {
        self.minutes * 60.0
    }

    fn end_ns(&self) -> u64 {
        (self.seconds() * 1e9) as u64
    }

    fn settled_from_ns(&self) -> u64 {
        (self.seconds() * SETTLED_FROM * 1e9) as u64
    }

    fn wait_max_ns(&self) -> u64 {
        (self.wait_max_ms * 1e6) as u64
    }

    fn expiry_s(&self) -> u32 {
        self.expiry_seconds.unwrap_or(((self.seconds() / 4.0) as u32).clamp(4, 120))
    }

    fn sample_ns(&self) -> u64 {
        (self.sample_seconds.unwrap_or(self.seconds() / 360.0).max(2.0) * 1e9) as u64
    }

    /// Those who never return have the lowest numbers, the two kinds in turn.
    fn kind(&self, index: usize) -> Kind {
        let never = (f64::from(self.sessions) * self.never_share).round() as usize;
        match index {
            _ if index >= never => Kind::Returning,
            _ if index.is_multiple_of(2) => Kind::Full,
            _ => Kind::Expiring,
        }
    }

    fn check(&self) -> Result<()> {
        ensure!((0.01..=0.99).contains(&self.away_share), "--away-share is not between 0.01 and 0.99");
        ensure!((0.0..=0.9).contains(&self.never_share), "--never-share is not between 0 and 0.9");
        ensure!(self.minutes >= 0.5, "--minutes is less than half a minute: nothing would settle");
        ensure!(self.absence_seconds > 0.0, "--absence-seconds is not above 0");
        ensure!(self.publishers <= self.sessions, "there are more publishers than sessions to serve");
        Ok(())
    }
}

/// Runs it, or shows an earlier run; whether everything was as it has to be.
pub fn run(settings: &SustainedSettings, environment: &Environment) -> Result<bool> {
    let document = match &settings.from {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?
        }
        None => measure(settings, environment)?,
    };
    let samples = document["outcome"]["detail"]["samples"].as_array().map_or(&[][..], Vec::as_slice);
    ensure!(settings.from.is_none() || !samples.is_empty(), "not a document of sustained: it has no samples");
    if let Some(path) = &settings.svg {
        let svg = plot::draw(samples, &document["outcome"]["detail"]);
        fs::write(path, svg).with_context(|| format!("writing {}", path.display()))?;
    }
    environment.publish(&document, &sample::text(&document))?;
    Ok(document["outcome"]["failures"].as_array().is_some_and(Vec::is_empty))
}

fn measure(settings: &SustainedSettings, environment: &Environment) -> Result<Value> {
    settings.check()?;
    let broker = settings.broker.as_ref().context("no --broker")?;
    let placement = environment.placement();
    let mut document = report::head(placement);
    let _awake = environment.keep_awake()?;
    document["awake"] = json!(environment.keeps_awake());
    document["scenario"] = json!("sustained");
    document["broker"] = broker.describe();
    let server = Server::start(broker, &environment.data_root, placement)?;
    let outcome =
        drive(&server, settings, environment).unwrap_or_else(|error| Outcome::failed(&error)).to_json();
    drop(server);
    document["outcome"] = outcome;
    Ok(document)
}

fn drive(server: &Server, settings: &SustainedSettings, environment: &Environment) -> Result<Outcome> {
    let nonce = format!("{:x}{:x}", std::process::id(), clock::unix_seconds() & 0xffff);
    // None: clients here do not ping, and one that reads statistics says nothing for the whole hour.
    let dialect = Dialect { target: server.address, version: Version::V5, keep_alive_s: 0 };
    let mut fleet = Fleet::new(dialect)?;
    let mut load = Load::new(settings, &nonce, clock::now())?;
    load.open(&mut fleet, settings.away_share).context("opening the sessions")?;
    let start = clock::now();
    load.start(start);
    let pause = Duration::from_millis(settings.probe_pause_ms);
    let probe = Probe::start(&environment.data_root, pause, start)?;
    let cpu = server.pid.map(|pid| CpuWatch::start(pid, start)).transpose()?;
    let mut sampler = Sampler::begin(server, &load, settings.seconds() * SETTLED_FROM)?;
    let first = Mark::read(server.pid)?;
    // What was sampled until the broker failed is worth showing.
    let ended = publish(settings, server, &mut fleet, &mut load, &probe, &mut sampler);
    let interval = Mark::read(server.pid).map(|mark| mark.since(&first));
    let ended = ended.and_then(|()| load.await_publishers(&mut fleet).context("awaiting the last answers"));
    let beside = probe.finish()?;
    let cpu = cpu.map_or_else(|| Ok(Vec::new()), CpuWatch::finish)?;
    let ended = ended.and_then(|()| {
        report::progress("everybody returns");
        load.drain(&mut fleet).context("draining")
    });

    let mut outcome = Outcome::default();
    outcome.failures.extend(ended.err().map(|error| format!("{error:#}")));
    let blame = load.waits.blame(&load.stand.spans, &cpu, &beside.slow);
    report_waits(&mut outcome, &load, &blame, Quantiles::of(&beside.whole_ns), settings);
    if let Ok(interval) = interval {
        outcome.add("rate", "msg/s", load.sent as f64 / interval.wall.as_secs_f64());
        let cpu_us = interval.server.map_or(f64::NAN, |server| server.cpu_us);
        outcome.add("server CPU per message", "µs", cpu_us / load.sent.max(1) as f64);
        interval.report_shares(&mut outcome);
    }
    let samples = sampler.into_samples();
    let trends = trends(&samples, settings);
    report_written(&mut outcome, &samples);
    let missing =
        if trends.len() < 3 { "not judged: too few samples, or the broker does not tell" } else { "" };
    outcome.failures.extend((!missing.is_empty()).then(|| missing.to_owned()));
    outcome.failures.extend(trends.iter().filter_map(Trend::failure));
    let totals = Totals::of(load.books());
    outcome.failures.extend(totals.failures());
    outcome.detail = json!({
        "settings": format!("{settings:?}"),
        "expiry_seconds": settings.expiry_s(),
        "settled_from_s": settings.seconds() * SETTLED_FROM,
        "books": format!("{totals:?}"), "returned": load.returned, "without_window": load.without_window,
        "long_waits": format!("{blame:?}"),
        "trends": trends.iter().map(Trend::to_json).collect::<Vec<_>>(),
        "samples": samples,
    });
    Ok(outcome)
}

/// The load, sampled, until its time is over.
fn publish(
    settings: &SustainedSettings,
    server: &Server,
    fleet: &mut Fleet,
    load: &mut Load,
    probe: &Probe,
    sampler: &mut Sampler,
) -> Result<()> {
    let (end_ns, sample_ns) = (settings.end_ns(), settings.sample_ns());
    let mut at_ns = 0;
    while at_ns < end_ns {
        at_ns = (at_ns + sample_ns).min(end_ns);
        load.run_until(fleet, at_ns)?;
        sampler.take(at_ns as f64 / 1e9, server, load, probe)?;
    }
    Ok(())
}

/// How long publishers waited, and whose fault that was; too long is a failure.
fn report_waits(
    outcome: &mut Outcome,
    load: &Load,
    blame: &Blame,
    disk: Quantiles,
    settings: &SustainedSettings,
) {
    let settled = Quantiles::of(&load.waits.settled);
    outcome.add("publisher's wait p50", "ms", settled.p50);
    outcome.add("publisher's wait p99", "ms", settled.p99);
    outcome.add("publisher's wait p99.9", "ms", settled.p999);
    outcome.add("publisher's wait max", "ms", settled.max);
    outcome.add("… from sending p99.9", "ms", Quantiles::of(&load.waits.settled_from_sent).p999);
    outcome.add("… but for those not the broker's p99.9", "ms", blame.remaining.p999);
    outcome.add("… in samples with copies p99.9", "ms", Quantiles::of(&load.waits.with_copies).p999);
    outcome.add("… in samples without copies p99.9", "ms", Quantiles::of(&load.waits.without_copies).p999);
    outcome.add("… while filling p99.9", "ms", Quantiles::of(&load.waits.filling).p999);
    outcome.add("long waits", "messages", blame.long as f64);
    outcome.add("long waits: the generator's", "messages", blame.generator as f64);
    outcome.add("long waits: while the server had no CPU", "messages", blame.cpu as f64);
    outcome.add("long waits: the disk's", "messages", blame.disk as f64);
    outcome.add("long waits: of these together", "messages", blame.together as f64);
    outcome.add("long waits: the broker's", "messages", blame.broker as f64);
    outcome.add("sent late p99.9", "ms", Quantiles::of(&load.waits.settled_late).p999);
    outcome.add("fdatasync beside it p50", "ms", disk.p50);
    outcome.add("fdatasync beside it p99", "ms", disk.p99);
    outcome.add("fdatasync beside it p99.9", "ms", disk.p999);
    outcome.add("fdatasync beside it max", "ms", disk.max);
    if blame.remaining.p999 > settings.wait_max_ms {
        outcome.failures.push(format!(
            "stalled: publishers waited {:.1} ms at p99.9, more than {}; {:.1} with the waits of others",
            blame.remaining.p999, settings.wait_max_ms, settled.p999
        ));
    }
}

/// What must be flat, over the settled part.
fn trends(samples: &[Value], settings: &SustainedSettings) -> Vec<Trend> {
    let from_s = settings.seconds() * SETTLED_FROM;
    let trend = |name, path: &[&str], step: f64| {
        let settled = series(samples, path).into_iter().filter(|(at_s, _)| *at_s >= from_s);
        Trend::of(name, &settled.collect::<Vec<_>>(), settings.growth_max_percent, step)
    };
    let disk_step = f64::from(settings.disk_step_mib) * 1_048_576.0;
    let trends = [
        trend("disk use", &["disk_bytes"], disk_step),
        trend("resident memory", &["resident_bytes"], 0.0),
        trend("anonymous memory", &["anonymous_bytes"], 0.0),
        trend("write amplification", &["amplification", "written"], 0.0),
    ];
    trends.into_iter().flatten().collect()
}

/// How much went to the disk, and how often the journal was turned over; reclaim's bound is judged here.
fn report_written(outcome: &mut Outcome, samples: &[Value]) {
    let last = |path: &[&str]| series(samples, path).last().map(|point| point.1);
    let entries = [
        ("written to disk, messages", "%", last(&["recorded_percent"])),
        ("journal written", "MB", last(&["journal", "bytes"]).map(|bytes| bytes / 1e6)),
        ("journal appended", "MB", last(&["journal", "appended"]).map(|bytes| bytes / 1e6)),
        ("journal copied", "MB", last(&["journal", "copied"]).map(|bytes| bytes / 1e6)),
        ("write amplification, all", "", last(&["amplification", "written_so_far"])),
        ("write amplification, reclaim", "", last(&["amplification", "reclaim_so_far"])),
        ("disk use at the end", "MB", last(&["disk_bytes"]).map(|bytes| bytes / 1e6)),
        ("live at the end", "MB", last(&["live_bytes"]).map(|bytes| bytes / 1e6)),
        ("resident at the end", "MB", last(&["resident_bytes"]).map(|bytes| bytes / 1e6)),
    ];
    for (name, unit, value) in entries {
        if let Some(value) = value {
            outcome.add(name, unit, value);
        }
    }
    if let (Some(written), Some(disk)) = (last(&["journal", "bytes"]), last(&["disk_bytes"])) {
        outcome.add("journal turned over", "times", written / disk.max(1.0));
    }
    let reclaim = last(&["amplification", "reclaim_so_far"]).unwrap_or(0.0);
    if reclaim > RECLAIM_AMPLIFICATION_MAX {
        outcome.failures.push(format!("reclaim: {reclaim:.2} bytes appended and copied per byte appended"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: SustainedSettings,
    }

    fn settings(arguments: &[&str]) -> SustainedSettings {
        let line = ["sustained", "--broker", "x=y {port}"].iter().chain(arguments);
        Line::parse_from(line).settings
    }

    #[test]
    fn one_in_twenty_never_returns_and_half_of_those_get_messages_that_expire() {
        let settings = settings(&["--sessions", "2000"]);
        let count = |kind| (0..2_000).filter(|index| settings.kind(*index) == kind).count();
        assert_eq!([Kind::Returning, Kind::Full, Kind::Expiring].map(count), [1_900, 50, 50]);
    }

    #[test]
    fn expiry_and_samples_follow_the_length_of_the_run() {
        let of = |minutes: &str| {
            let settings = settings(&["--minutes", minutes]);
            (settings.expiry_s(), settings.sample_ns() / 1_000_000)
        };
        assert_eq!([of("1"), of("10"), of("60")], [(15, 2_000), (120, 2_000), (120, 10_000)]);
    }
}
