//! Scenario `flow`: pairs of one publisher and one subscriber, each pair with its own topic, as fast as a window allows.
//!
//! A closed loop: a publisher sends while fewer than `window` of its messages are unacknowledged (QoS 1 and 2) or
//! unreceived (QoS 0). It saturates either side by design, so the figure to compare is the server's CPU per message;
//! `ping-pong` is the same with one pair and a window of one, where the latency means something.
//!
//! A message counts when its subscriber has it. The measured part lies between two readings of the clocks while the
//! load runs; afterwards the publishers stop and everything sent must arrive, once and in order, or the run fails.
//!
//! Invariant: client `2i` publishes and client `2i + 1` subscribes for pair `i`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde_json::json;

use crate::client::codec::{self, Frame, Publish, Version, kind};
use crate::client::fleet::{Dialect, Fleet, Links, Session, nothing_expected};
use crate::client::publisher::Window;
use crate::load::ledger::{self, Ledger, Totals};
use crate::measure::clock;
use crate::measure::meter::{Mark, Names};
use crate::report::Outcome;
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

/// A publisher at QoS 1 or 2 may run ahead of its subscriber by this many windows: a broker that acknowledges faster
/// than it delivers would otherwise only fill its memory, and be measured doing that.
const AHEAD_WINDOWS_MAX: u64 = 50;

/// No arrival for this long means that something is lost.
const STALL: Duration = Duration::from_secs(10);

/// Nothing the load waits for takes longer than this: a broker that only trickles ends the run too.
const COMPLETE_MAX: Duration = Duration::from_secs(300);

/// Latencies up to a minute, in nanoseconds, to three digits.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

struct Pair {
    topic: String,
    window: Window,
    ledger: Ledger,
}

struct Flow {
    settings: FlowSettings,
    version: Version,
    pairs: Vec<Pair>,
    payload: Vec<u8>,
    start: Instant,
    /// The time of this turn since `start`: one reading of the clock serves a whole batch.
    now_ns: u64,
    /// No pair sends more than this.
    sequence_end: u64,
    arrived: u64,
    in_flight: u64,
    measuring: bool,
    delivery_ns: Histogram<u64>,
    acknowledgement_ns: Histogram<u64>,
}

/// Runs the scenario on `server`.
pub fn run(server: &Server, settings: &FlowSettings) -> Result<Outcome> {
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
    fleet.open(clients, clock::now() + Duration::from_secs(60), &session, &mut nothing_expected)?;

    let mut flow = Flow::new(settings, &fleet.links, topic)?;
    let (first, last, arrived) = flow.drive(&mut fleet, server.pid)?;
    let interval = last.since(&first);

    let mut outcome = Outcome::default();
    interval.report(
        &mut outcome,
        &Names { rate: "rate", cost: "server CPU per message", what: "msg/s" },
        arrived,
    );
    interval.report_shares(&mut outcome);
    flow.report_latency(&mut outcome);
    let totals = Totals::of(flow.pairs.iter().map(|pair| &pair.ledger));
    if totals.repeated > 0 {
        outcome.add("repeated", "messages", totals.repeated as f64);
    }
    outcome.failures = totals.failures(settings.qos);
    outcome.detail = json!({
        "settings": format!("{settings:?}"),
        "measured_seconds": interval.wall.as_secs_f64(),
        "measured_messages": arrived,
        "sent": totals.sent, "arrived": totals.arrived, "repeated": totals.repeated,
    });
    if !server.is_child() && settings.durable {
        forget(dialect, clients, &session)?;
    }
    Ok(outcome)
}

/// Ends the durable sessions left in a broker that goes on running.
fn forget(dialect: Dialect, clients: usize, session: &impl Fn(usize) -> Session) -> Result<()> {
    let mut fleet = Fleet::new(dialect)?;
    let deadline = clock::now() + Duration::from_secs(60);
    let clean = |index| Session { clean: true, subscription: None, ..session(index) };
    fleet.open(clients, deadline, &clean, &mut |_, _, _| Ok(()))?;
    fleet.leave(deadline)
}

impl Flow {
    fn new(settings: &FlowSettings, links: &Links, topic: impl Fn(usize) -> String) -> Result<Flow> {
        let pair = |index: usize| {
            let granted = links.client(2 * index).map_or(u16::MAX, |publisher| publisher.receive_maximum);
            let window = Window::new(settings.window.min(granted));
            Pair { topic: topic(index), window, ledger: Ledger::default() }
        };
        let pairs = settings.pairs as usize;
        let histogram = || Histogram::new_with_max(LATENCY_NS_MAX, 3).context("a latency histogram");
        Ok(Flow {
            settings: settings.clone(),
            version: settings.version(),
            pairs: (0..pairs).map(pair).collect(),
            payload: vec![0x5a; settings.payload as usize],
            start: clock::now(),
            now_ns: 0,
            sequence_end: settings.messages.map_or(u64::MAX, |messages| messages.div_ceil(pairs as u64)),
            arrived: 0,
            in_flight: 0,
            measuring: false,
            delivery_ns: histogram()?,
            acknowledgement_ns: histogram()?,
        })
    }

    /// Runs the load; the readings around the measured part and how many messages arrived in it.
    fn drive(&mut self, fleet: &mut Fleet, server: Option<u32>) -> Result<(Mark, Mark, u64)> {
        let bounded = self.settings.messages.is_some();
        if !bounded {
            self.start_all(&mut fleet.links);
            self.turn_until(fleet, Duration::from_secs_f64(self.settings.warm_up_seconds))?;
        }
        self.measuring = true;
        let first = Mark::read(server)?;
        let arrived_before = self.arrived;
        if bounded {
            self.start_all(&mut fleet.links);
            self.turn_until_complete(fleet)?;
        } else {
            let warm_up_s = self.settings.warm_up_seconds;
            self.turn_until(fleet, Duration::from_secs_f64(warm_up_s + self.settings.seconds))?;
        }
        let last = Mark::read(server)?;
        self.measuring = false;
        let arrived = self.arrived - arrived_before;
        self.sequence_end = 0;
        self.turn_until_complete(fleet)?;
        Ok((first, last, arrived))
    }

    fn start_all(&mut self, links: &mut Links) {
        self.start = clock::now();
        self.now_ns = 0;
        (0..self.pairs.len()).for_each(|pair| self.fill(links, pair));
    }

    fn turn(&mut self, fleet: &mut Fleet) -> Result<()> {
        let mut fresh = true;
        fleet.turn(Duration::from_millis(100), &mut |links, index, frame| {
            if fresh {
                fresh = false;
                self.now_ns = self.start.elapsed().as_nanos() as u64;
            }
            self.on_frame(links, index, frame)
        })
    }

    /// Turns until `end` after the start.
    fn turn_until(&mut self, fleet: &mut Fleet, end: Duration) -> Result<()> {
        let (mut arrived, mut progress) = (self.arrived, clock::now());
        while self.start.elapsed() < end {
            self.turn(fleet)?;
            if self.arrived != arrived {
                (arrived, progress) = (self.arrived, clock::now());
            }
            ensure!(progress.elapsed() < STALL, "{}", self.stalled());
        }
        Ok(())
    }

    /// Turns until everything sent has arrived and is acknowledged, or nothing moves any more.
    fn turn_until_complete(&mut self, fleet: &mut Fleet) -> Result<()> {
        let deadline = clock::now() + COMPLETE_MAX;
        let mut progress = (self.arrived, self.in_flight, clock::now());
        while !self.is_complete() {
            self.turn(fleet)?;
            if (progress.0, progress.1) != (self.arrived, self.in_flight) {
                progress = (self.arrived, self.in_flight, clock::now());
            }
            ensure!(progress.2.elapsed() < STALL, "{}", self.stalled());
            ensure!(clock::now() < deadline, "not complete after {} s", COMPLETE_MAX.as_secs());
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        // Cheap first: the pairs are looked at only once the publishers have nothing left in flight.
        self.in_flight == 0
            && self.pairs.iter().all(|pair| {
                pair.ledger.outstanding() == 0
                    && (self.settings.messages.is_none() || pair.ledger.sent >= self.sequence_end)
            })
    }

    fn stalled(&self) -> String {
        let totals = Totals::of(self.pairs.iter().map(|pair| &pair.ledger));
        format!("nothing arrived for {} s: {totals:?}, {} unacknowledged", STALL.as_secs(), self.in_flight)
    }

    /// Sends what the window of `pair` allows.
    fn fill(&mut self, links: &mut Links, pair: usize) {
        let qos = self.settings.qos;
        let width = u64::from(self.settings.window);
        let unreceived_max = if qos == 0 { width } else { width * AHEAD_WINDOWS_MAX };
        let Pair { topic, window, ledger } = &mut self.pairs[pair];
        while ledger.sent < self.sequence_end && ledger.outstanding() < unreceived_max {
            let packet_id = match qos {
                0 => 0,
                _ => match window.take(qos, self.now_ns) {
                    Some(packet_id) => packet_id,
                    None => return,
                },
            };
            self.in_flight += u64::from(qos > 0);
            ledger::stamp(&mut self.payload, pair as u32, ledger.sent, self.now_ns);
            let publish = Publish { qos, topic: topic.as_bytes(), packet_id, payload: &self.payload };
            codec::encode_publish(links.outbound(2 * pair), self.version, &publish);
            ledger.sent += 1;
        }
    }

    fn on_frame(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        let pair = index / 2;
        if index.is_multiple_of(2) {
            let complete = self.pairs[pair].window.acknowledge(frame, links.outbound(index));
            let Some(sent_ns) = complete.with_context(|| format!("publisher {pair}"))? else { return Ok(()) };
            self.in_flight -= 1;
            if self.measuring {
                self.acknowledgement_ns.saturating_record(self.now_ns - sent_ns);
            }
            self.fill(links, pair);
            return Ok(());
        }
        match frame.kind() {
            kind::PUBLISH => {
                let publish = codec::parse_publish(frame, self.version)?;
                self.on_message(links, pair, &publish).with_context(|| format!("subscriber {pair}"))
            }
            kind::PUBREL => {
                let (packet_id, _) = codec::parse_ack(frame)?;
                codec::encode_ack(links.outbound(index), kind::PUBCOMP, packet_id);
                Ok(())
            }
            other => anyhow::bail!("subscriber {pair} got packet type {other}"),
        }
    }

    fn on_message(&mut self, links: &mut Links, pair: usize, publish: &Publish<'_>) -> Result<()> {
        let (stream, sequence, sent_ns) = ledger::read_stamp(publish.payload)?;
        let settings = &self.settings;
        ensure!(
            publish.qos == settings.qos,
            "a message of QoS {}, sent with QoS {}",
            publish.qos,
            settings.qos
        );
        ensure!(
            publish.payload.len() == settings.payload as usize,
            "a payload of {} bytes",
            publish.payload.len()
        );
        ensure!(publish.topic == self.pairs[pair].topic.as_bytes(), "a message for another topic");
        ensure!(stream == pair as u32, "a message of pair {stream}");
        match publish.qos {
            0 => {}
            1 => codec::encode_ack(links.outbound(2 * pair + 1), kind::PUBACK, publish.packet_id),
            _ => codec::encode_ack(links.outbound(2 * pair + 1), kind::PUBREC, publish.packet_id),
        }
        if self.pairs[pair].ledger.arrived(sequence)? {
            self.arrived += 1;
            if self.measuring {
                self.delivery_ns.saturating_record(self.now_ns.saturating_sub(sent_ns));
            }
            self.fill(links, pair);
        }
        Ok(())
    }

    /// Latency from the write to the read. In a closed loop with many in flight it is mostly the window's own queue.
    fn report_latency(&self, outcome: &mut Outcome) {
        let microseconds = |histogram: &Histogram<u64>, at: f64| histogram.value_at_quantile(at) as f64 / 1e3;
        if !self.delivery_ns.is_empty() {
            outcome.add("delivery p50", "µs", microseconds(&self.delivery_ns, 0.5));
            outcome.add("delivery p99", "µs", microseconds(&self.delivery_ns, 0.99));
        }
        if !self.acknowledgement_ns.is_empty() {
            outcome.add("acknowledgement p50", "µs", microseconds(&self.acknowledgement_ns, 0.5));
            outcome.add("acknowledgement p99", "µs", microseconds(&self.acknowledgement_ns, 0.99));
        }
    }
}
