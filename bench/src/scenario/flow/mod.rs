//! Scenario `flow`: pairs of one publisher and one subscriber, each pair with its own topic.
//!
//! Without `--rate` a closed loop: a publisher sends while fewer than `window` of its messages are unacknowledged (QoS 1
//! and 2) or unreceived (QoS 0). It saturates either side by design, so the figure to compare is the server's CPU per
//! message; `ping-pong` is the same with one pair and a window of one, where the latency means something.
//!
//! With `--rate` an open loop: message `n` of all is due at `n / rate` whatever happened to those before, and belongs to
//! pair `n` modulo their number. Latencies count from when it was due; what the window cannot send yet waits, and its wait
//! counts. A generator that is too busy for that fails the run.
//!
//! `--late-percent` of the subscribers take `--late-ms` to acknowledge (`late`). `curve` runs it over numbers of pairs.
//!
//! A message counts when its subscriber has it. The measured part lies between two readings of the clocks while the
//! load runs; afterwards the publishers stop and everything sent must arrive, once and in order, or the run fails.
//!
//! Invariant: client `2i` publishes and client `2i + 1` subscribes for pair `i`.

pub mod curve;
mod late;
mod load;

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use self::load::Flow;
use crate::client::codec::Version;
use crate::client::fleet::{Dialect, Fleet, Session, nothing_expected};
use crate::load::ledger::Totals;
use crate::load::pace;
use crate::measure::clock;
use crate::measure::latency::Latency;
use crate::measure::meter::Names;
use crate::report::Outcome;
use crate::report::progress::phase;
use crate::server::Server;

/// What the load looks like.
#[derive(Clone, Debug, clap::Args)]
pub struct FlowSettings {
    /// Pairs of one publisher and one subscriber
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=9_000))]
    pub pairs: u32,
    /// Quality of service of messages and subscriptions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Messages of one publisher in flight
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub window: u16,
    /// Payload of a message, in bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    pub payload: u32,
    /// How long to measure
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// How long the load runs before that
    #[arg(long, default_value_t = 1.0)]
    pub warm_up_seconds: f64,
    /// Send this many messages in all, and measure from the first to the last, instead of a time
    #[arg(long)]
    pub messages: Option<u64>,
    /// Messages per second, all pairs together: an open loop [default: a closed loop, as fast as the window allows]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: Option<u64>,
    /// Share of the subscribers that take their time to acknowledge (QoS 1 and 2)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub late_percent: u32,
    /// How long they take
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub late_ms: u32,
    /// Subscribers with sessions that outlive their connections
    #[arg(long)]
    pub durable: bool,
    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    pub protocol: u8,
}

impl FlowSettings {
    fn version(&self) -> Version {
        if self.protocol == 5 { Version::V5 } else { Version::V311 }
    }
}

/// Runs the scenario on `server`.
pub fn run(server: &Server, settings: &FlowSettings) -> Result<Outcome> {
    measure(server, settings, !server.is_child())
}

/// The same; whether durable sessions are to be ended afterwards, because the broker goes on running.
fn measure(server: &Server, settings: &FlowSettings, goes_on: bool) -> Result<Outcome> {
    ensure!(settings.late_percent == 0 || settings.qos > 0, "--late-percent: QoS 0 has no acknowledgements");
    let version = settings.version();
    let dialect = Dialect { target: server.address, version, keep_alive_s: 1_200 };
    let mut fleet = Fleet::new(dialect)?;
    let nonce = format!("{:x}{:x}", std::process::id(), clock::unix_seconds() & 0xffff);
    let topic = |pair: usize| format!("f/{nonce}/{pair}");
    let session = |index: usize| Session {
        client_id: format!("flow-{nonce}-{index}"),
        clean: index.is_multiple_of(2) || !settings.durable,
        subscription: (!index.is_multiple_of(2)).then(|| (topic(index / 2), settings.qos)),
    };
    let clients = settings.pairs as usize * 2;
    phase("opening connections");
    fleet.open(clients, clock::now() + Duration::from_secs(60), &session, &mut nothing_expected)?;

    let mut flow = Flow::new(settings, &fleet.links, topic)?;
    let (first, last, arrived) = flow.drive(&mut fleet, server.pid)?;
    let interval = last.since(&first);

    let mut outcome = Outcome::default();
    let names = Names { rate: "rate", cost: "server CPU per message", what: "msg/s" };
    interval.report(&mut outcome, &names, arrived);
    interval.report_shares(&mut outcome);
    report_latency(&mut outcome, &flow);
    let totals = Totals::of(flow.ledgers());
    if totals.repeated > 0 {
        outcome.add("repeated", "messages", totals.repeated as f64);
    }
    outcome.failures = totals.failures(settings.qos);
    if settings.rate.is_some() {
        pace::check_generator(&mut outcome, &interval);
    }
    outcome.detail = json!({
        "settings": format!("{settings:?}"),
        "measured_seconds": interval.wall.as_secs_f64(),
        "measured_messages": arrived,
        "sent": totals.sent, "arrived": totals.arrived, "repeated": totals.repeated,
        "late_subscribers": flow.late_subscribers(),
        "delivery": flow.delivery.to_json(), "acknowledgement": flow.acknowledgement.to_json(),
        "acknowledgement_of_late": flow.acknowledgement_of_late.to_json(),
    });
    if goes_on && settings.durable {
        // Dropped first: they would be taken over, which a broker may tell them.
        drop(fleet);
        forget(dialect, clients, &session)?;
    }
    Ok(outcome)
}

/// Latencies from when messages were due, which in a closed loop is when they were written: there, with many in flight, it
/// is mostly the window's own queue.
fn report_latency(outcome: &mut Outcome, flow: &Flow) {
    let mut add = |latency: &Latency, names: [&'static str; 3]| {
        let quantiles = [0.5, 0.99, 0.999];
        for (name, share) in names.into_iter().zip(quantiles).filter(|_| latency.count() > 0) {
            outcome.add(name, "µs", latency.quantile_ms(share) * 1e3);
        }
    };
    add(&flow.delivery, ["delivery p50", "delivery p99", "delivery p99.9"]);
    add(&flow.acknowledgement, ["acknowledgement p50", "acknowledgement p99", "acknowledgement p99.9"]);
    let of_late = ["… of late subscribers p50", "… of late subscribers p99", "… of late subscribers p99.9"];
    add(&flow.acknowledgement_of_late, of_late);
    if flow.sent_late.count() > 0 {
        outcome.add("generator late p99", "µs", flow.sent_late.quantile_ms(0.99) * 1e3);
        outcome.add("sent late for want of a window", "messages", flow.without_window as f64);
    }
    let curves = [
        ("delivery", &flow.delivery),
        ("acknowledgement", &flow.acknowledgement),
        ("acknowledgement, late subscribers", &flow.acknowledgement_of_late),
    ];
    let measured = curves.into_iter().filter(|(_, latency)| latency.count() > 0);
    outcome.curves.extend(measured.map(|(name, latency)| latency.curve(name)));
}

/// Ends the durable sessions left in a broker that goes on running.
fn forget(dialect: Dialect, clients: usize, session: &impl Fn(usize) -> Session) -> Result<()> {
    let mut fleet = Fleet::new(dialect)?;
    let deadline = clock::now() + Duration::from_secs(60);
    let clean = |index| Session { clean: true, subscription: None, ..session(index) };
    fleet.open(clients, deadline, &clean, &mut |_, _, _| Ok(()))?;
    fleet.leave(deadline)
}
