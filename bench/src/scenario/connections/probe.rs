//! Probes: a few QoS 1 messages to random ones of many idle sessions, and how long they take to get there.
//!
//! Open loop: probe `n` is due at `n / rate`, its recipient is drawn, and its latency counts from when it was due. One
//! of the idle clients itself sends them, so that there is not one connection more. A probe must reach exactly the
//! session that it was for, or the run fails. A filter that names no single session (no `{id}`, or a wildcard) has no
//! topic to send to, and then there are no probes. Called by `connections`.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::ConnectionSettings;
use crate::client::codec::{self, Frame, Publish, Version, kind};
use crate::client::fleet::{Fleet, Links};
use crate::client::publisher::Window;
use crate::load::ledger::{self, Ledger, Totals};
use crate::load::pace::{self, Pace};
use crate::load::random::Random;
use crate::measure::clock;
use crate::measure::latency::{Latency, LatencyNames};
use crate::measure::meter::Mark;
use crate::report::{self, Outcome};
use crate::server::Server;

/// How long the last probes may take.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// Probes in flight at most; what is due beyond waits, and its wait counts.
const WINDOW: u16 = 1_000;

/// Payload of a probe, in bytes: a stamp and some more.
const PAYLOAD_BYTES: usize = 64;

const NAMES: LatencyNames = LatencyNames {
    p50: "probe delivery p50",
    p99: "probe delivery p99",
    p999: "probe delivery p99.9",
    longest: "probe delivery longest",
};

struct Probe<'a> {
    settings: &'a ConnectionSettings,
    version: Version,
    sender: usize,
    window: Window,
    /// Due while the window was full: for whom, and when.
    backlog: VecDeque<(usize, u64)>,
    /// By client.
    ledgers: Vec<Ledger>,
    payload: [u8; PAYLOAD_BYTES],
    pace: Pace,
    now_ns: u64,
    unacknowledged: u64,
    latency: Latency,
}

/// Sends probes to the clients `open`.
pub(super) fn run(
    fleet: &mut Fleet,
    server: &Server,
    settings: &ConnectionSettings,
    open: &[usize],
    outcome: &mut Outcome,
) -> Result<Value> {
    if !settings.filter.contains("{id}") || settings.filter.contains(['+', '#']) {
        return Ok(json!("none: the filter names no single session"));
    }
    report::progress("  probing");
    let mut random = Random::new(1);
    let mut probe = Probe::new(fleet, server, settings, open[0])?;
    let first = Mark::read(server.pid)?;
    let end = clock::now() + Duration::from_secs_f64(settings.probe_seconds);
    probe.pace = Pace::new(settings.probe_rate.into());
    while clock::now() < end {
        probe.now_ns = probe.pace.now_ns();
        while let Some((_, due_ns)) = probe.pace.take(probe.now_ns) {
            probe.backlog.push_back((open[random.below(open.len())], due_ns));
        }
        probe.fill(&mut fleet.links);
        let rest = end.saturating_duration_since(clock::now());
        probe.turn(fleet, probe.pace.wait(rest))?;
    }
    let interval = Mark::read(server.pid)?.since(&first);
    let limit = clock::now() + ARRIVAL_MAX;
    // What is missing at the end is counted by the books.
    while !probe.is_complete() && clock::now() < limit {
        probe.turn(fleet, Duration::from_millis(10))?;
    }
    let totals = Totals::of(probe.ledgers.iter());
    probe.latency.report(outcome, &NAMES);
    outcome.curves.push(probe.latency.curve("probe delivery"));
    outcome.failures.extend(totals.failures(1).into_iter().map(|failure| format!("probes: {failure}")));
    if probe.unacknowledged > 0 {
        outcome.failures.push(format!("probes: {} were not acknowledged", probe.unacknowledged));
    }
    pace::check_generator(outcome, &interval);
    Ok(json!({
        "sent": totals.sent, "arrived": totals.arrived, "repeated": totals.repeated,
        "delivery": probe.latency.to_json(), "generator_share": interval.generator_share,
    }))
}

impl<'a> Probe<'a> {
    fn new(
        fleet: &Fleet,
        server: &Server,
        settings: &'a ConnectionSettings,
        sender: usize,
    ) -> Result<Probe<'a>> {
        let granted = fleet.links.client(sender).map_or(WINDOW, |client| client.receive_maximum);
        Ok(Probe {
            settings,
            version: settings.dialect(server).version,
            sender,
            window: Window::new(WINDOW.min(granted)),
            backlog: VecDeque::new(),
            ledgers: vec![Ledger::default(); fleet.len()],
            payload: [0x5a; PAYLOAD_BYTES],
            pace: Pace::new(settings.probe_rate.into()),
            now_ns: 0,
            unacknowledged: 0,
            latency: Latency::new()?,
        })
    }

    fn is_complete(&self) -> bool {
        self.unacknowledged == 0
            && self.backlog.is_empty()
            && self.ledgers.iter().all(|ledger| ledger.outstanding() == 0)
    }

    fn turn(&mut self, fleet: &mut Fleet, wait: Duration) -> Result<()> {
        let mut stale = true;
        fleet.turn(wait, &mut |links, index, frame| {
            if std::mem::take(&mut stale) {
                self.now_ns = self.pace.now_ns();
            }
            self.on_frame(links, index, frame)
        })
    }

    /// Sends what is due and has room in the window.
    fn fill(&mut self, links: &mut Links) {
        while let Some((session, due_ns)) = self.backlog.front().copied() {
            let Some(packet_id) = self.window.take(1, due_ns) else { return };
            self.backlog.pop_front();
            let ledger = &mut self.ledgers[session];
            ledger::stamp(&mut self.payload, session as u32, ledger.sent, due_ns);
            ledger.sent += 1;
            self.unacknowledged += 1;
            let topic = self.settings.filter_of(session);
            let publish = Publish { qos: 1, topic: topic.as_bytes(), packet_id, payload: &self.payload };
            codec::encode_publish(links.outbound(self.sender), self.version, &publish);
        }
    }

    fn on_frame(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        if frame.kind() == kind::PUBLISH {
            let publish = codec::parse_publish(frame, self.version)?;
            codec::encode_ack(links.outbound(index), kind::PUBACK, publish.packet_id);
            return self.on_message(index, &publish).with_context(|| format!("session {index}"));
        }
        ensure!(index == self.sender, "client {index} got packet type {}", frame.kind());
        if self.window.acknowledge(frame, links.outbound(index))?.is_some() {
            self.unacknowledged -= 1;
            self.fill(links);
        }
        Ok(())
    }

    fn on_message(&mut self, index: usize, publish: &Publish<'_>) -> Result<()> {
        let (stream, sequence, due_ns) = ledger::read_stamp(publish.payload)?;
        let own = stream as usize == index && publish.topic == self.settings.filter_of(index).as_bytes();
        ensure!(own && publish.qos == 1, "got probe {sequence} for session {stream}");
        if self.ledgers[index].arrived(sequence)? {
            self.latency.record(due_ns, self.now_ns);
        }
        Ok(())
    }
}
