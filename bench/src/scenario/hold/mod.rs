//! Scenario `hold`: QoS 1 messages for durable sessions whose acknowledgements take as long as people's phones do.
//!
//! What it is for: a broker may answer the sender when the recipient has acknowledged, or when the message is on disk.
//! How long it waits for the first before it does the second is a setting, and this measures what each value costs:
//! the sender's wait, and what is written. `sweep` runs it over several values and draws the curve.
//!
//! Open loop: message `n` is due at `n / rate` whatever happened to those before, its recipient is drawn, and the
//! sender's wait counts from when it was due. Recipients are drawn from a mixture (`recipients`). They acknowledge in
//! the order of arrival, as MQTT asks `[MQTT-4.6.0-2]`. Afterwards everybody returns, everything is acknowledged at once,
//! and each message must have arrived, in order and at least once, or the run fails.
//!
//! What is written is counted from before the first message until the last sender was answered, by the broker itself
//! where it publishes it (`system`). The kernel's count in `/proc/PID/io` is no substitute: it adds whole folios, 1 MiB
//! for a block of 4 KiB in a file that was written in large pieces. The hit rate is the share of accepted messages
//! never written. Recipient windows are not the limit: the broker would write at once what it cannot send.

mod load;
mod plot;
pub mod sweep;

use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::json;

use self::load::Load;
use crate::client::codec::Version;
use crate::client::fleet::{Dialect, Fleet, Session};
use crate::load::ledger::Totals;
use crate::load::recipients::Mixture;
use crate::measure::clock;
use crate::measure::meter::{Mark, Names};
use crate::measure::system::Counters;
use crate::report::Outcome;
use crate::server::Server;

/// What the load looks like. Where the default depends on the mixture, it is that of `lan`, then of `phones`.
#[derive(Clone, Debug, clap::Args)]
pub struct HoldSettings {
    /// Who the recipients are
    #[arg(long, value_enum, default_value = "phones")]
    recipients: Mixture,
    /// Messages per second, all publishers together [default: 2000, 1000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Durable subscribers, each with a topic of its own [default: 200, 4000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    subscribers: Option<u32>,
    /// Connections that publish; each serves the subscribers whose number is its own modulo this [default: 200, 2000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    publishers: Option<u32>,
    /// Messages of one publisher in flight; what is due beyond waits, and its wait counts
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
    /// Payload of a message, in bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    payload: u32,
    /// How long to measure [default: 10, 25]
    #[arg(long)]
    seconds: Option<f64>,
    /// How long the load runs before that
    #[arg(long, default_value_t = 2.0)]
    warm_up_seconds: f64,
    /// Of everything that is drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    protocol: u8,
}

impl HoldSettings {
    /// The defaults of a mixture.
    fn of(recipients: Mixture, seconds: Option<f64>, seed: u64) -> HoldSettings {
        HoldSettings {
            recipients,
            rate: None,
            subscribers: None,
            publishers: None,
            window: 1_000,
            payload: 128,
            seconds,
            warm_up_seconds: 2.0,
            seed,
            protocol: 4,
        }
    }

    fn by_mixture<T>(&self, given: Option<T>, lan: T, phones: T) -> T {
        given.unwrap_or(match self.recipients {
            Mixture::Lan => lan,
            Mixture::Phones => phones,
        })
    }

    fn rate(&self) -> u64 {
        self.by_mixture(self.rate, 2_000, 1_000).into()
    }

    fn subscribers(&self) -> usize {
        self.by_mixture(self.subscribers, 200, 4_000) as usize
    }

    /// No more than there are subscribers to serve.
    fn publishers(&self) -> usize {
        (self.by_mixture(self.publishers, 200, 2_000) as usize).min(self.subscribers())
    }

    fn seconds(&self) -> f64 {
        self.by_mixture(self.seconds, 10.0, 25.0)
    }

    fn version(&self) -> Version {
        if self.protocol == 5 { Version::V5 } else { Version::V311 }
    }
}

/// A step that waits for something takes no longer than this.
const STEP_MAX: Duration = Duration::from_secs(60);

/// Runs the scenario on `server`.
pub fn run(server: &Server, settings: &HoldSettings) -> Result<Outcome> {
    let dialect = Dialect { target: server.address, version: settings.version(), keep_alive_s: 1_200 };
    let nonce = format!("{:x}{:x}", std::process::id(), clock::unix_seconds() & 0xffff);
    let mut load = Load::new(settings, &nonce)?;
    let mut fleet = Fleet::new(dialect)?;
    load.open(&mut fleet).context("opening the sessions")?;
    let before = load.read_counters(&mut fleet)?;
    load.start();
    load.run_for(&mut fleet, settings.warm_up_seconds)?;
    let first = Mark::read(server.pid)?;
    let sent_before = load.sent;
    load.run_for(&mut fleet, settings.warm_up_seconds + settings.seconds())?;
    let interval = Mark::read(server.pid)?.since(&first);
    let sent = load.sent - sent_before;
    load.await_senders(&mut fleet).context("awaiting the last acknowledgements")?;
    let after = load.read_counters(&mut fleet)?;
    load.drain(&mut fleet).context("draining")?;
    let drained = load.read_counters(&mut fleet)?;

    let mut outcome = Outcome::default();
    report_wait(&mut outcome, &load.wait_ns);
    report_written(&mut outcome, load.sent, [before, after, drained]);
    let names = Names { rate: "rate", cost: "server CPU per message", what: "msg/s" };
    interval.report(&mut outcome, &names, sent);
    interval.report_shares(&mut outcome);
    outcome.add("sent late p99", "ms", load.late_ns.value_at_quantile(0.99) as f64 / 1e6);
    outcome.add("sent late for want of a window", "messages", load.without_window as f64);
    let totals = Totals::of(load.ledgers());
    outcome.failures = totals.failures(1);
    let delay_ms = [0.1, 0.5, 0.9, 0.99].map(|at| load.delay_ns.value_at_quantile(at) as f64 / 1e6);
    outcome.detail = json!({
        "settings": format!("{settings:?}"),
        "rate": settings.rate(), "subscribers": settings.subscribers(), "publishers": settings.publishers(),
        "measured_seconds": interval.wall.as_secs_f64(), "measured_messages": sent,
        "sent": totals.sent, "arrived": totals.arrived, "repeated": totals.repeated,
        "returned": load.returned,
        "acknowledged_in_the_run": load.delay_ns.len(),
        "their_delay_ms": delay_ms,
    });
    if !server.is_child() {
        fleet.leave(clock::now() + STEP_MAX)?;
        forget(dialect, &load)?;
    }
    Ok(outcome)
}

/// How long senders waited, from when their messages were due.
fn report_wait(outcome: &mut Outcome, wait_ns: &Histogram<u64>) {
    let quantiles = [
        ("sender acknowledgement p50", 0.5),
        ("sender acknowledgement p99", 0.99),
        ("sender acknowledgement p99.9", 0.999),
    ];
    for (name, at) in quantiles {
        outcome.add(name, "ms", wait_ns.value_at_quantile(at) as f64 / 1e6);
    }
}

/// `moments`: before the first message, after the last sender was answered, and after everything was acknowledged.
/// A broker that does not tell has none of these figures.
fn report_written(outcome: &mut Outcome, messages: u64, moments: [Option<Counters>; 3]) {
    let [Some(before), Some(after), Some(drained)] = moments else { return };
    let per_message =
        |later: u64, earlier: u64| later.saturating_sub(earlier) as f64 / messages.max(1) as f64;
    outcome.add("hit rate", "%", 100.0 * (1.0 - per_message(after.recorded, before.recorded)));
    outcome.add("journal bytes per message", "B", per_message(after.bytes, before.bytes));
    outcome.add("journal bytes per message, drained", "B", per_message(drained.bytes, before.bytes));
    outcome.add("syncs per message", "", per_message(after.syncs, before.syncs));
}

/// Ends the durable sessions left in a broker that goes on running.
fn forget(dialect: Dialect, load: &Load) -> Result<()> {
    let mut fleet = Fleet::new(dialect)?;
    let deadline = clock::now() + STEP_MAX;
    let clean = |index| Session { clean: true, subscription: None, ..load.session(index) };
    fleet.open(load.subscribers(), deadline, &clean, &mut |_, _, _| Ok(()))?;
    fleet.leave(deadline)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(recorded: u64, bytes: u64, syncs: u64) -> Option<Counters> {
        Some(Counters { recorded, bytes, syncs, ..Counters::default() })
    }

    #[test]
    fn what_was_never_written_is_a_hit_and_the_rest_is_per_message() {
        let moments = [written(10, 1_000, 5), written(35, 21_000, 15), written(35, 31_000, 20)];
        let mut outcome = Outcome::default();
        report_written(&mut outcome, 100, moments);
        let expected = [
            ("hit rate", 75.0),
            ("journal bytes per message", 200.0),
            ("journal bytes per message, drained", 300.0),
            ("syncs per message", 0.1),
        ];
        for (name, value) in expected {
            assert_eq!(outcome.figure(name), Some(value), "{name}");
        }
    }

    #[test]
    fn the_sweep_runs_with_the_defaults_of_the_command_line() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            settings: HoldSettings,
        }
        let line = Line::parse_from(["hold", "--recipients", "lan", "--seed", "3", "--seconds", "4"]);
        let expected = HoldSettings::of(Mixture::Lan, Some(4.0), 3);
        assert_eq!(format!("{:?}", line.settings), format!("{expected:?}"));
    }

    #[test]
    fn a_broker_that_does_not_tell_has_no_hit_rate() {
        let mut outcome = Outcome::default();
        report_written(&mut outcome, 100, [None, None, None]);
        assert!(outcome.figures.is_empty());
    }
}
