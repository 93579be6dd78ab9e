//! Scenario `day`: thousands of phones as they are on a day, in a minute. Mostly idle, half of them away, reading late.
//!
//! What it is for: single scenarios show what one thing costs; here everything that a messenger's broker does happens at
//! once, at a rate that is given (an open loop), and the question is what people notice.
//!
//! **The mixture.** Who is awake, slow, silent or away, and how soon each message is acknowledged, is drawn as in
//! `hold` (`load::recipients`, `phones`): half of the messages within 60 s, with a heavy tail. Phones that are awake write:
//! to one of their contacts (QoS 1, one recipient), or to their group of 3 to 7, so that a message has two recipients on
//! average (`people`). Sizes are log-normal, median 200 B, cut at 4 KiB. Every connected phone that is not silent pings once
//! in a keepalive interval, evenly spread. Presence is retained at QoS 0 and seen by one other phone; of ten phones that
//! leave one vanishes, and its will is said (`presence`).
//!
//! **Time is compressed for absences only**: a phone stays away for an exponential time with a mean of
//! `--day-absence-seconds`, by default a tenth of the 600 s that `load::recipients` states, and whenever one returns
//! another leaves. So returns, logins and drains come ten times as often as their queues would make them; the factor is in
//! the result. Delays of acknowledgements, pings and messages are in real time.
//!
//! **At the end** publishers are answered, a new client looks at the retained presence, then everybody returns and
//! acknowledges at once, and each message must have arrived, in its stream's order and at least once.

mod books;
mod load;
mod people;
mod presence;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::load::{Load, STEP_MAX};
use self::presence::Presence;
use crate::client::codec::Version;
use crate::client::fleet::{Dialect, Fleet, Session};
use crate::load::pace;
use crate::load::recipients::ABSENCE_MEAN_S;
use crate::measure::clock;
use crate::measure::latency::LatencyNames;
use crate::measure::meter::{Interval, Mark, Names};
use crate::measure::process;
use crate::report::{Curve, Outcome};
use crate::server::Server;

/// What the day looks like.
#[derive(Clone, Debug, clap::Args)]
pub struct DaySettings {
    /// Phones, each with a durable session
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(20..=18_000))]
    day_phones: u32,
    /// Messages per second that phones send, all together; twice as many go out
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    day_rate: u64,
    /// How long to measure
    #[arg(long, default_value_t = 60.0)]
    day_seconds: f64,
    /// How long the load runs before that
    #[arg(long, default_value_t = 5.0)]
    day_warm_up_seconds: f64,
    /// How long an absence is on average: compressed, where it is below 600
    #[arg(long, default_value_t = 60.0)]
    day_absence_seconds: f64,
    /// Keepalive: each connected phone pings so often
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..))]
    day_ping_seconds: u16,
    /// Median of the payloads, in bytes
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(20..=4_096))]
    day_payload_median: u32,
    /// Messages of one phone in flight; what is due beyond waits, and its wait counts
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    day_window: u16,
    /// Of everything that is drawn
    #[arg(long, default_value_t = 1)]
    day_seed: u64,
    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    day_protocol: u8,
}

impl DaySettings {
    fn version(&self) -> Version {
        if self.day_protocol == 5 { Version::V5 } else { Version::V311 }
    }

    /// How many times as often phones return as they do uncompressed.
    fn compression(&self) -> f64 {
        ABSENCE_MEAN_S / self.day_absence_seconds
    }
}

/// So many samples are taken of a run, but none within a second of the last.
const SAMPLES_MAX: f64 = 60.0;

/// Runs the scenario on `server`.
pub fn run(server: &Server, settings: &DaySettings) -> Result<Outcome> {
    ensure!(settings.day_absence_seconds > 0.0, "--day-absence-seconds is not above 0");
    ensure!(settings.day_seconds > 0.0, "--day-seconds is not above 0");
    let version = settings.version();
    let dialect = Dialect { target: server.address, version, keep_alive_s: settings.day_ping_seconds };
    let nonce = format!("{:x}{:x}", std::process::id(), clock::unix_seconds() & 0xffff);
    let mut fleet = Fleet::new(dialect)?;
    let mut load = Load::new(settings, &nonce)?;
    load.open(&mut fleet).context("opening the sessions")?;
    let (interval, samples) = measure(server, settings, &mut fleet, &mut load)?;
    load.settle(&mut fleet).context("awaiting the last answers")?;
    let stale = load.look(&mut fleet, dialect).context("looking at the retained presence")?;
    let drain_from = clock::now();
    load.drain(&mut fleet).context("everybody returns")?;
    let drain_s = drain_from.elapsed().as_secs_f64();

    let mut outcome = Outcome::default();
    report_times(&mut outcome, &load);
    report_work(&mut outcome, &interval, &samples, settings);
    let (totals, counts) = (load.books.totals(), load.counts);
    outcome.add("returned phones", "/s", counts.returned as f64 / samples.last().map_or(1.0, |end| end.at_s));
    outcome.add("absences compressed by", "times", settings.compression());
    outcome.add("everybody's return", "s", drain_s);
    outcome.add("repeated", "messages", totals.repeated as f64);
    outcome.failures = totals.failures(1);
    if let Some((phone, latest, retained)) = stale.first() {
        let count = stale.len();
        outcome.failures.push(format!(
            "{count} phones' latest presence is not retained: of phone {phone} {retained:?} instead of {latest:?}"
        ));
    }
    pace::check_generator(&mut outcome, &interval);
    outcome.curves.extend(over_time(&samples));
    outcome.detail = json!({
        "settings": format!("{settings:?}"),
        "mixture": format!("{:.1} % of the messages to groups", 100.0 * load.people.group_share),
        "counts": format!("{counts:?}"), "books": format!("{totals:?}"),
        "pongs": fleet.links.pongs, "presence_seen": load.presence.seen, "wills_seen": load.presence.wills_seen,
        "measured_seconds": interval.wall.as_secs_f64(),
        "publishers_wait": load.times.wait.to_json(), "delivery": load.times.delivery.to_json(),
        "login": load.times.login.to_json(), "queue": load.times.queue.to_json(),
    });
    if !server.is_child() {
        leave_nothing(fleet, dialect, &load, &nonce)?;
    }
    Ok(outcome)
}

/// What is known at one moment of the run.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at_s: f64,
    sent: u64,
    arrived: u64,
    /// Sent and not with its recipient yet.
    queued: u64,
    connected: usize,
    returned: u64,
    resident_bytes: Option<f64>,
}

/// The run between two readings of the clocks, and samples of it from its beginning on.
fn measure(
    server: &Server,
    settings: &DaySettings,
    fleet: &mut Fleet,
    load: &mut Load,
) -> Result<(Interval, Vec<Sample>)> {
    let sample = |load: &Load, at_s: f64| -> Result<Sample> {
        Ok(Sample {
            at_s,
            sent: load.counts.sent,
            arrived: load.counts.arrived,
            queued: load.books.awaited_all(),
            connected: load.connected(),
            returned: load.counts.returned,
            resident_bytes: server.pid.map(process::resident).transpose()?.map(|resident| resident.total),
        })
    };
    let step_s = (settings.day_seconds / SAMPLES_MAX).max(1.0);
    let begin_s = settings.day_warm_up_seconds.max(0.0);
    let end_s = begin_s + settings.day_seconds;
    load.start();
    load.run_until(fleet, (begin_s * 1e9) as u64)?;
    let first = Mark::read(server.pid)?;
    let mut samples = vec![sample(load, begin_s)?];
    let mut at_s = begin_s;
    while at_s < end_s {
        at_s = (at_s + step_s).min(end_s);
        load.run_until(fleet, (at_s * 1e9) as u64)?;
        samples.push(sample(load, at_s)?);
    }
    Ok((Mark::read(server.pid)?.since(&first), samples))
}

/// What people notice.
fn report_times(outcome: &mut Outcome, load: &Load) {
    let times = &load.times;
    let names = [
        (
            &times.wait,
            [
                "publisher's wait p50",
                "publisher's wait p99",
                "publisher's wait p99.9",
                "publisher's wait max",
            ],
        ),
        (&times.delivery, ["delivery p50", "delivery p99", "delivery p99.9", "delivery max"]),
        (&times.login, ["login p50", "login p99", "login p99.9", "login max"]),
        (
            &times.queue,
            ["queue received p50", "queue received p99", "queue received p99.9", "queue received max"],
        ),
    ];
    for (latency, [p50, p99, p999, longest]) in names {
        latency.report(outcome, &LatencyNames { p50, p99, p999, longest });
    }
    outcome.add("generator late p99", "ms", times.sent_late.quantile_ms(0.99));
    outcome.add("sent late for want of a window", "messages", load.counts.without_window as f64);
    outcome.curves.extend([
        times.wait.curve("publisher's wait"),
        times.delivery.curve("delivery to who is awake"),
        times.login.curve("login of who returns"),
        times.queue.curve("queue received by who returns"),
    ]);
}

/// What it costs.
fn report_work(outcome: &mut Outcome, interval: &Interval, samples: &[Sample], settings: &DaySettings) {
    let [Some(begin), Some(end)] = [samples.first(), samples.last()] else { return };
    let wall_s = interval.wall.as_secs_f64().max(1e-9);
    outcome.add("messages in", "msg/s", (end.sent - begin.sent) as f64 / wall_s);
    let names = Names { rate: "messages out", cost: "server CPU per message out", what: "msg/s" };
    interval.report(outcome, &names, end.arrived - begin.arrived);
    interval.report_shares(outcome);
    outcome.add("queued at the end", "messages", end.queued as f64);
    if let Some(resident) = end.resident_bytes {
        outcome.add("server resident", "MiB", resident / f64::from(1 << 20));
        outcome.add("server resident per phone", "B", resident / f64::from(settings.day_phones));
    }
}

/// The samples as curves; what is a rate is one between two of them.
fn over_time(samples: &[Sample]) -> Vec<Curve> {
    let curve = |name, y, points| Curve { name, x: "s", y, logarithmic_x: false, points };
    let rates = |count: fn(&Sample) -> u64| -> Vec<(f64, f64)> {
        let rate = |pair: &[Sample]| {
            (pair[1].at_s, (count(&pair[1]) - count(&pair[0])) as f64 / (pair[1].at_s - pair[0].at_s))
        };
        samples.windows(2).map(rate).collect()
    };
    let levels = |level: fn(&Sample) -> Option<f64>| -> Vec<(f64, f64)> {
        samples.iter().filter_map(|sample| Some((sample.at_s, level(sample)?))).collect()
    };
    vec![
        curve("messages in", "msg/s", rates(|sample| sample.sent)),
        curve("messages out", "msg/s", rates(|sample| sample.arrived)),
        curve("returns", "/s", rates(|sample| sample.returned)),
        curve("queued", "messages", levels(|sample| Some(sample.queued as f64))),
        curve("connected", "phones", levels(|sample| Some(sample.connected as f64))),
        curve("server resident", "MiB", levels(|sample| Some(sample.resident_bytes? / f64::from(1 << 20)))),
    ]
}

/// Takes back what a broker that goes on running would keep: sessions and retained messages.
fn leave_nothing(fleet: Fleet, dialect: Dialect, load: &Load, nonce: &str) -> Result<()> {
    let phones = fleet.len();
    let deadline = clock::now() + STEP_MAX;
    fleet.leave(deadline)?;
    let mut fleet = Fleet::new(dialect)?;
    let clean = |phone| Session { clean: true, subscription: None, ..load.session(phone) };
    fleet.open(phones, deadline, &clean, &mut |_, _, _| Ok(()))?;
    for phone in 0..phones {
        let out = fleet.links.outbound(phone);
        presence::put_retained(out, dialect.version, &Presence::topic(nonce, phone), &[]);
    }
    fleet.turn(Duration::ZERO, &mut |_, _, _| Ok(()))?;
    fleet.leave(deadline)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_s: f64, sent: u64, queued: u64, resident_bytes: Option<f64>) -> Sample {
        Sample { at_s, sent, arrived: 2 * sent, queued, connected: 7, returned: 1, resident_bytes }
    }

    #[test]
    fn rates_lie_between_samples_and_levels_at_them() {
        let mib = Some(f64::from(1 << 20));
        let curves = over_time(&[sample(5.0, 10, 4, mib), sample(6.0, 30, 5, mib), sample(8.0, 130, 6, mib)]);
        let points = |name: &str| curves.iter().find(|curve| curve.name == name).unwrap().points.clone();
        assert_eq!(points("messages in"), [(6.0, 20.0), (8.0, 50.0)]);
        assert_eq!(points("messages out"), [(6.0, 40.0), (8.0, 100.0)]);
        assert_eq!(points("queued"), [(5.0, 4.0), (6.0, 5.0), (8.0, 6.0)]);
        assert_eq!(points("server resident"), [(5.0, 1.0), (6.0, 1.0), (8.0, 1.0)]);
        assert!(over_time(&[sample(5.0, 1, 1, None)]).iter().all(|curve| curve.points.len() < 2));
    }

    #[test]
    fn compression_is_how_much_shorter_absences_are_than_stated() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            settings: DaySettings,
        }
        let settings = |arguments: &[&str]| Line::parse_from(arguments).settings;
        assert_eq!(settings(&["day"]).compression(), 10.0);
        assert_eq!(settings(&["day", "--day-absence-seconds", "600"]).compression(), 1.0);
    }
}
