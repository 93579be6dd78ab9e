//! Being idle: what a server's CPU costs while nothing happens, and while everybody only says that they are alive.
//!
//! Two windows of the same length, one without and one with PINGREQs: N clients with keep alive K send N / K a second,
//! one after the other at a steady pace. What the second cost more is what the PINGREQs cost. Each must be answered.
//! Called by `connections`.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::ConnectionSettings;
use crate::client::fleet::{Fleet, nothing_expected};
use crate::load::pace::Pace;
use crate::measure::clock;
use crate::measure::meter::{Interval, Mark};
use crate::report::{self, Outcome};
use crate::server::Server;

/// How long the last answers may take. A server that needs longer than this for a PINGRESP is not idle.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Both windows, with the clients `open`.
pub(super) fn keep_alives(
    fleet: &mut Fleet,
    server: &Server,
    settings: &ConnectionSettings,
    open: &[usize],
    outcome: &mut Outcome,
) -> Result<Value> {
    let window = Duration::from_secs_f64(settings.idle_seconds);
    report::progress("  idle, without and with keepalives");
    let without = quiet(fleet, server, window)?;
    let (with, pings, answered) = pinging(fleet, server, settings, open)?;
    if answered != pings {
        outcome.failures.push(format!("{answered} of {pings} PINGREQs were answered"));
    }
    report(outcome, &without, &with, pings);
    Ok(json!({
        "clients": open.len(), "pings": pings, "answered": answered,
        "seconds_without": without.wall.as_secs_f64(), "seconds_with": with.wall.as_secs_f64(),
        "cpu_us_without": without.server.map(|server| server.cpu_us),
        "cpu_us_with": with.server.map(|server| server.cpu_us),
        "generator_share_with": with.generator_share,
    }))
}

fn quiet(fleet: &mut Fleet, server: &Server, window: Duration) -> Result<Interval> {
    let first = Mark::read(server.pid)?;
    let end = clock::now() + window;
    while clock::now() < end {
        fleet.turn(end - clock::now(), &mut nothing_expected)?;
    }
    Ok(Mark::read(server.pid)?.since(&first))
}

/// The window with PINGREQs: what passed, how many were sent, and how many were answered.
fn pinging(
    fleet: &mut Fleet,
    server: &Server,
    settings: &ConnectionSettings,
    open: &[usize],
) -> Result<(Interval, u64, u64)> {
    let answered_before = fleet.links.pongs;
    let first = Mark::read(server.pid)?;
    let mut pace = Pace::per(open.len() as u64, Duration::from_secs(settings.idle_keep_alive.into()));
    let end = pace.start() + Duration::from_secs_f64(settings.idle_seconds);
    while clock::now() < end {
        while let Some((number, _)) = pace.take(pace.now_ns()) {
            fleet.ping(open[(number % open.len() as u64) as usize]);
        }
        let rest = end.saturating_duration_since(clock::now());
        fleet.turn(pace.wait(rest), &mut nothing_expected)?;
    }
    let limit = clock::now() + ANSWER_MAX;
    while fleet.links.pongs - answered_before < pace.taken && clock::now() < limit {
        fleet.turn(Duration::from_millis(10), &mut nothing_expected)?;
    }
    let interval = Mark::read(server.pid)?.since(&first);
    Ok((interval, pace.taken, fleet.links.pongs - answered_before))
}

/// A server whose process is not known has none of these figures.
fn report(outcome: &mut Outcome, without: &Interval, with: &Interval, pings: u64) {
    let share = |interval: &Interval| Some(interval.server?.cpu_us / (interval.wall.as_secs_f64() * 1e6));
    let Some((share_without, share_with)) = share(without).zip(share(with)) else { return };
    let wall_us = with.wall.as_secs_f64() * 1e6;
    outcome.add("CPU while idle", "% of a core", 100.0 * share_without);
    outcome.add("CPU while idle with keepalives", "% of a core", 100.0 * share_with);
    outcome.add("keepalives", "pings/s", pings as f64 / (wall_us / 1e6));
    if pings > 0 {
        // By shares, not by the two sums: the second window ends with the last answer, and so is not quite as long.
        outcome.add("CPU per ping", "µs", (share_with - share_without) * wall_us / pings as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::meter::ServerInterval;

    fn interval(seconds: u64, cpu_us: f64) -> Interval {
        let server = ServerInterval { cpu_us, system_share: 0.0, context_switches: 0, kept_waiting_us: 0.0 };
        Interval { wall: Duration::from_secs(seconds), server: Some(server), generator_share: 0.0 }
    }

    #[test]
    fn a_ping_costs_what_the_window_with_pings_cost_more() {
        let mut outcome = Outcome::default();
        // 1 % of a core anyway; twice the time with 1,000 pings: 20 ms would be spent anyway, 5 ms are theirs.
        report(&mut outcome, &interval(1, 10_000.0), &interval(2, 25_000.0), 1_000);
        assert!((outcome.figure("CPU per ping").unwrap() - 5.0).abs() < 1e-6);
        assert!((outcome.figure("CPU while idle").unwrap() - 1.0).abs() < 1e-9);
        assert!((outcome.figure("CPU while idle with keepalives").unwrap() - 1.25).abs() < 1e-9);
        assert!((outcome.figure("keepalives").unwrap() - 500.0).abs() < 1e-9);
    }

    #[test]
    fn without_a_process_there_is_no_figure() {
        let unknown = |seconds| Interval { server: None, ..interval(seconds, 0.0) };
        let mut outcome = Outcome::default();
        report(&mut outcome, &unknown(1), &unknown(1), 10);
        assert!(outcome.figures.is_empty());
    }
}
