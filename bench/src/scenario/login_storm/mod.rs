//! Scenario `login-storm`: everybody's connection ends at once, and everybody comes back as fast as is allowed.
//!
//! What it is for: a power cut, a router's restart or a new version of a load balancer does this to a broker, and those
//! who were not touched should not notice. N durable sessions with one subscription each are connected. They all drop,
//! without DISCONNECT or with one, and dial again, so many handshakes at a time. A login counts from the start of dialing
//! until the batch with its CONNACK was handled, and its session must have been kept. The server's CPU per login
//! contains what the end of the connection before it cost, which cannot be told apart.
//!
//! A few `bystanders` exchange messages all the while; the ratio of their delivery p99 during the storm, from the first
//! drop until all are back, to that before it is the figure. Storm and bystanders are two threads, which share the
//! load's CPU: the bystanders' lateness in sending is reported, and makes the run invalid if it is most of what they saw.
//!
//! A server that does not accept as fast as is dialled lets its listen queue overflow, and the client's SYN is sent
//! again a second later: such logins, the kernel's counts of both, and the longest login are reported.

mod bystanders;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::bystanders::{Bystanders, Seen};
use crate::client::codec::Version;
use crate::client::fleet::{Dialect, Fleet, Session, nothing_expected};
use crate::measure::clock;
use crate::measure::latency::{Latency, LatencyNames};
use crate::measure::meter::{Interval, Mark, Names};
use crate::measure::network::Handshakes;
use crate::report::{self, Curve, Outcome};
use crate::server::Server;

/// How many come back, how, and who watches.
#[derive(Clone, Debug, clap::Args)]
pub struct StormSettings {
    /// Durable subscribed sessions that drop and return
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    pub storm_sessions: u32,
    /// Handshakes at a time. A listen backlog that is shorter costs a second
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    pub storm_at_once: u32,
    /// They leave with DISCONNECT, instead of dropping
    #[arg(long)]
    pub storm_disconnect: bool,
    /// Pairs that exchange messages all the while
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub storm_bystanders: u32,
    /// Their messages per second, all together
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub storm_bystander_rate: u32,
    /// How long the bystanders are measured before the storm, in seconds
    #[arg(long, default_value_t = 5.0)]
    pub storm_calm_seconds: f64,
    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    pub storm_protocol: u8,
    /// The longest that opening, or coming back, may take
    #[arg(long, default_value_t = 120)]
    pub storm_seconds_max: u64,
}

impl StormSettings {
    fn deadline(&self) -> Instant {
        clock::now() + Duration::from_secs(self.storm_seconds_max)
    }
}

/// What the bystanders do before they are measured: find their caches, and the server its buffers.
const WARM_UP: Duration = Duration::from_secs(1);

/// One login as long as this has most likely had its SYN sent again.
const SYN_RETRY_MS: f64 = 1_000.0;

/// A step of the curves over time.
const CURVE_STEP: Duration = Duration::from_millis(50);

const LOGIN: LatencyNames =
    LatencyNames { p50: "login p50", p99: "login p99", p999: "login p99.9", longest: "login longest" };

/// What happened to those who dropped.
struct Storm {
    /// The bystanders are measured from here; then everybody drops; then everybody is back.
    calm_from: Instant,
    dropped: Instant,
    back: Instant,
    /// From the first drop until all were back.
    interval: Interval,
    /// How long dropping them took, before the first dialled again.
    dropping: Duration,
    login: Latency,
    slow: u64,
    /// Seconds since the drop, and how many were back.
    returned: Vec<(f64, f64)>,
    not_kept: usize,
    handshakes: Handshakes,
}

/// Runs the scenario on `server`.
pub fn run(server: &Server, settings: &StormSettings) -> Result<Outcome> {
    let version = if settings.storm_protocol == 5 { Version::V5 } else { Version::V311 };
    let dialect = Dialect { target: server.address, version, keep_alive_s: 1_200 };
    let nonce = format!("{:x}{:x}", std::process::id(), clock::unix_seconds() & 0xffff);
    let session = |index: usize| Session {
        client_id: format!("storm-{nonce}-{index}"),
        clean: false,
        subscription: Some((format!("u/{nonce}-{index}/inbox"), 1)),
    };
    let bystanders = Bystanders::open(dialect, settings, &nonce, settings.deadline())?;
    let sessions = settings.storm_sessions as usize;
    let mut fleet = Fleet::new(dialect)?;
    fleet.open(sessions, settings.deadline(), &session, &mut nothing_expected).context("opening")?;
    let (storm, seen) = beside(bystanders, || storm(&mut fleet, server, settings, &session))?;
    let mut outcome = Outcome::default();
    report_storm(&mut outcome, &storm, sessions);
    let delivery = report_bystanders(&mut outcome, &storm, &seen)?;
    outcome.detail = json!({
        "settings": format!("{settings:?}"),
        "dropping_seconds": storm.dropping.as_secs_f64(),
        "login": storm.login.to_json(),
        "bystander_delivery_before_during": delivery.map(|latency| latency.to_json()),
        "bystander_messages": seen.totals.sent,
        "bystander_messages_repeated": seen.totals.repeated,
    });
    if !server.is_child() {
        fleet.leave(settings.deadline())?;
        let mut fleet = Fleet::new(dialect)?;
        let clean = |index| Session { clean: true, subscription: None, ..session(index) };
        fleet.open(sessions, settings.deadline(), &clean, &mut nothing_expected)?;
        fleet.leave(settings.deadline())?;
    }
    Ok(outcome)
}

/// Does `what` while the bystanders run on a thread of their own.
fn beside<T>(bystanders: Bystanders, what: impl FnOnce() -> Result<T>) -> Result<(T, Seen)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let thread = scope.spawn(|| bystanders.run(&stop));
        let done = what();
        stop.store(true, Ordering::Relaxed);
        let seen = thread.join().expect("the bystanders return errors and do not panic");
        // The bystanders' error first: they have one because of what ended the other.
        Ok((done?, seen.context("the bystanders")?))
    })
}

/// Calm, then all drop, then all return.
fn storm(
    fleet: &mut Fleet,
    server: &Server,
    settings: &StormSettings,
    session: &impl Fn(usize) -> Session,
) -> Result<Storm> {
    let calm_from = clock::now() + WARM_UP;
    let calm_until = calm_from + Duration::from_secs_f64(settings.storm_calm_seconds);
    report::progress("  calm");
    while clock::now() < calm_until {
        fleet.turn(calm_until - clock::now(), &mut nothing_expected)?;
    }
    report::progress("  storm");
    let handshakes = Handshakes::read()?;
    let first = Mark::read(server.pid)?;
    let dropped = clock::now();
    drop_all(fleet, settings)?;
    let dropping = dropped.elapsed();
    let mut storm = Storm {
        calm_from,
        dropped,
        back: dropped,
        interval: first.since(&first),
        dropping,
        login: Latency::new()?,
        slow: 0,
        returned: vec![(dropping.as_secs_f64(), 0.0)],
        not_kept: 0,
        handshakes,
    };
    return_all(fleet, settings, session, &mut storm)?;
    storm.back = clock::now();
    storm.interval = Mark::read(server.pid)?.since(&first);
    storm.handshakes = Handshakes::read()?.since(&handshakes);
    let kept = |index: &usize| fleet.links.client(*index).is_some_and(|client| client.session_present);
    storm.not_kept = fleet.len() - (0..fleet.len()).filter(kept).count();
    Ok(storm)
}

fn drop_all(fleet: &mut Fleet, settings: &StormSettings) -> Result<()> {
    if !settings.storm_disconnect {
        (0..fleet.len()).for_each(|index| fleet.abandon(index));
        return Ok(());
    }
    let deadline = settings.deadline();
    (0..fleet.len()).for_each(|index| fleet.leave_one(index));
    while (0..fleet.len()).any(|index| !fleet.is_closed(index)) {
        ensure!(clock::now() < deadline, "not everybody was closed after DISCONNECT");
        fleet.turn(Duration::from_millis(100), &mut nothing_expected)?;
    }
    Ok(())
}

/// Dials everybody again, `storm_at_once` at a time.
fn return_all(
    fleet: &mut Fleet,
    settings: &StormSettings,
    session: &impl Fn(usize) -> Session,
    storm: &mut Storm,
) -> Result<()> {
    let deadline = settings.deadline();
    let (total, at_once) = (fleet.len(), settings.storm_at_once as usize);
    let since = |storm: &Storm| storm.dropped.elapsed().as_nanos() as u64;
    let (mut next, mut back) = (0, 0);
    let mut dialling: Vec<(usize, u64)> = Vec::with_capacity(at_once);
    let step_s = CURVE_STEP.as_secs_f64();
    while back < total {
        ensure!(
            clock::now() < deadline,
            "{back} of {total} sessions were back when the time for it was over"
        );
        while next < total && dialling.len() < at_once {
            dialling.push((next, since(storm)));
            fleet.reopen(next, Session { subscription: None, ..session(next) })?;
            next += 1;
        }
        fleet.turn_opening(Duration::from_millis(100), &mut nothing_expected)?;
        let now_ns = since(storm);
        dialling.retain(|&(index, dialled_ns)| {
            let is_open = fleet.is_open(index);
            if is_open {
                storm.login.record(dialled_ns, now_ns);
                storm.slow += u64::from((now_ns - dialled_ns) as f64 / 1e6 >= SYN_RETRY_MS);
                back += 1;
            }
            !is_open
        });
        let at_s = now_ns as f64 / 1e9;
        if storm.returned.last().is_none_or(|last| at_s >= last.0 + step_s) || back == total {
            storm.returned.push((at_s, back as f64));
        }
    }
    Ok(())
}

fn report_storm(outcome: &mut Outcome, storm: &Storm, sessions: usize) {
    let names = Names { rate: "logins", cost: "server CPU per login", what: "logins/s" };
    storm.interval.report(outcome, &names, sessions as u64);
    outcome.add("all back after", "s", (storm.back - storm.dropped).as_secs_f64());
    storm.login.report(outcome, &LOGIN);
    outcome.add("logins of a second or more", "logins", storm.slow as f64);
    outcome.add("SYN retries", "on this machine", storm.handshakes.syn_retries as f64);
    outcome.add("listen queue overflows", "on this machine", storm.handshakes.listen_overflows as f64);
    storm.interval.report_shares(outcome);
    outcome.curves.push(storm.login.curve("login"));
    outcome.curves.push(Curve {
        name: "sessions back",
        x: "seconds since the drop",
        y: "sessions",
        logarithmic_x: false,
        points: storm.returned.clone(),
    });
    if storm.not_kept > 0 {
        outcome.failures.push(format!("{} of {sessions} sessions were not kept", storm.not_kept));
    }
}

/// The bystanders' deliveries before and during the storm.
fn report_bystanders(outcome: &mut Outcome, storm: &Storm, seen: &Seen) -> Result<[Latency; 2]> {
    let before = seen.delivery(storm.calm_from, storm.dropped)?;
    let during = seen.delivery(storm.dropped, storm.back)?;
    let late = seen.late(storm.dropped, storm.back)?;
    outcome.add("bystander delivery p99 before", "ms", before.quantile_ms(0.99));
    outcome.add("bystander delivery p99 during", "ms", during.quantile_ms(0.99));
    outcome.add("bystander delivery longest during", "ms", during.longest_ms());
    if let Some(ratio) = ratio(during.quantile_ms(0.99), before.quantile_ms(0.99)) {
        outcome.add("bystander delivery p99 during / before", "", ratio);
    }
    outcome.add("bystander sent late p99 during", "ms", late.quantile_ms(0.99));
    if let Some(invalid) = invalid(&during, &late) {
        outcome.failures.push(invalid);
    }
    outcome.curves.push(before.curve("bystander delivery before the storm"));
    outcome.curves.push(during.curve("bystander delivery during the storm"));
    outcome.curves.push(Curve {
        name: "bystander delivery over time",
        x: "seconds since the drop",
        y: "ms, longest in 50 ms",
        logarithmic_x: false,
        points: seen.longest_over_time(storm.dropped, CURVE_STEP),
    });
    outcome
        .failures
        .extend(seen.totals.failures(1).into_iter().map(|failure| format!("bystanders: {failure}")));
    if seen.unacknowledged > 0 {
        outcome.failures.push(format!("bystanders: {} messages were not acknowledged", seen.unacknowledged));
    }
    Ok([before, during])
}

fn ratio(during_ms: f64, before_ms: f64) -> Option<f64> {
    (before_ms > 0.0).then(|| during_ms / before_ms)
}

/// Not the share of a core as in other open loops: the storm's thread may use all that is left, and the bystanders'
/// thread comes first when it has something to do. What counts is whether it did.
fn invalid(during: &Latency, late: &Latency) -> Option<String> {
    if during.count() == 0 {
        return Some(
            "invalid: no message was due during the storm: let more bystanders send, or more drop".to_owned(),
        );
    }
    let (late_ms, during_ms) = (late.quantile_ms(0.99), during.quantile_ms(0.99));
    (late_ms > during_ms / 2.0).then(|| {
        format!(
            "invalid: bystanders sent {late_ms:.3} ms late (p99), which is most of the {during_ms:.3} ms that delivery took: \
             the latencies are the generator's own"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(each_ms: &[u64]) -> Latency {
        let mut latency = Latency::new().unwrap();
        each_ms.iter().for_each(|ms| latency.record(0, ms * 1_000_000));
        latency
    }

    #[test]
    fn a_run_is_invalid_if_the_generator_is_most_of_what_was_seen() {
        assert!(invalid(&latency(&[10]), &latency(&[4])).is_none());
        assert!(invalid(&latency(&[10]), &latency(&[6])).unwrap().contains("6.0"));
        assert!(invalid(&latency(&[]), &latency(&[])).unwrap().contains("no message"));
    }

    #[test]
    fn a_ratio_needs_something_before() {
        assert_eq!(ratio(6.0, 2.0), Some(3.0));
        assert_eq!(ratio(6.0, 0.0), None);
    }

    #[test]
    fn sessions_that_were_not_kept_fail_the_run() {
        let now = clock::now();
        let mark = Mark::read(None).unwrap();
        let mut storm = Storm {
            calm_from: now,
            dropped: now,
            back: now + Duration::from_secs(2),
            interval: mark.since(&mark),
            dropping: Duration::ZERO,
            login: latency(&[5, 1_200]),
            slow: 1,
            returned: Vec::new(),
            not_kept: 0,
            handshakes: Handshakes::default(),
        };
        let mut outcome = Outcome::default();
        report_storm(&mut outcome, &storm, 2);
        assert!(outcome.failures.is_empty());
        assert_eq!(outcome.figure("all back after"), Some(2.0));
        storm.not_kept = 1;
        report_storm(&mut outcome, &storm, 2);
        assert_eq!(outcome.failures, ["1 of 2 sessions were not kept"]);
    }
}
