//! Scenario `store-drain`: messages for durable sessions that are away, then all of them come back for theirs.
//!
//! Three steps: the sessions subscribe and leave; a few publishers send QoS 1 messages for them until every one is
//! acknowledged (`store`); the sessions return, at most 64 handshakes at once, and take and acknowledge everything
//! (`drain`, from the first connection to the last message). Each session must still exist and must get its messages
//! at least once and in the order sent, or the run fails. A repeated message is reported; QoS 1 allows it.
//!
//! Invariant: publisher `p` of `P` serves the sessions whose number is `p` modulo `P`, so one session's order is one
//! publisher's order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::client::codec::{self, Frame, Publish, Version, kind};
use crate::client::fleet::{Dialect, Fleet, Links, Session, nothing_expected};
use crate::client::publisher::Window;
use crate::load::ledger::{self, Ledger, Totals};
use crate::measure::clock;
use crate::measure::meter::{Interval, Mark, Names};
use crate::report::Outcome;
use crate::report::progress::phase;
use crate::server::Server;

/// How much is stored, and for whom.
#[derive(Clone, Debug, clap::Args)]
pub struct StoreDrainSettings {
    /// Durable sessions, each with one subscription
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    pub store_sessions: u32,
    /// Messages in all
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub store_messages: u64,
    /// Connections that publish them
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub store_publishers: u32,
    /// Messages of one publisher in flight
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub store_window: u16,
    /// Payload of a message, in bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    pub store_payload: u32,
    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    pub store_protocol: u8,
    /// The longest one step may take
    #[arg(long, default_value_t = 120)]
    pub store_seconds_max: u64,
}

impl StoreDrainSettings {
    pub fn dialect(&self, server: &Server) -> Dialect {
        let version = if self.store_protocol == 5 { Version::V5 } else { Version::V311 };
        Dialect { target: server.address, version, keep_alive_s: 1_200 }
    }

    pub fn deadline(&self) -> Instant {
        clock::now() + Duration::from_secs(self.store_seconds_max)
    }
}

/// Runs the scenario on `server`.
pub fn run(server: &Server, settings: &StoreDrainSettings) -> Result<Outcome> {
    let dialect = settings.dialect(server);
    let nonce = format!("{:x}{:x}", std::process::id(), clock::unix_seconds() & 0xffff);
    let sessions = settings.store_sessions as usize;
    let names: Vec<String> = (0..sessions).map(|index| format!("s/{nonce}/{index}/inbox")).collect();
    let session = |index: usize| Session {
        client_id: format!("store-{nonce}-{index}"),
        clean: false,
        subscription: Some((names[index].clone(), 1)),
    };
    phase("opening sessions");
    let mut fleet = Fleet::new(dialect)?;
    fleet.open(sessions, settings.deadline(), &session, &mut nothing_expected).context("subscribing")?;
    fleet.leave(settings.deadline()).context("leaving")?;

    let mut ledgers = vec![Ledger::default(); sessions];
    phase("storing");
    let stored = store(server, settings, &nonce, &names, &mut ledgers).context("storing")?;
    // A session that was kept is not subscribed again: its subscription must have been kept with it.
    let returning = |index: usize| Session { subscription: None, ..session(index) };
    phase("draining");
    let drained = drain(server, settings, &returning, &names, &mut ledgers).context("draining")?;

    let mut outcome = Outcome::default();
    let store = Names { rate: "store rate", cost: "store CPU per message", what: "msg/s" };
    stored.report(&mut outcome, &store, settings.store_messages);
    let drain = Names { rate: "drain rate", cost: "drain CPU per message", what: "msg/s" };
    let totals = Totals::of(ledgers.iter());
    drained.report(&mut outcome, &drain, totals.arrived);
    outcome.add("generator busy storing", "% of a core", 100.0 * stored.generator_share);
    outcome.add("generator busy draining", "% of a core", 100.0 * drained.generator_share);
    outcome.add("repeated", "messages", totals.repeated as f64);
    outcome.failures = totals.failures(1);
    outcome.detail = json!({
        "settings": format!("{settings:?}"),
        "store_seconds": stored.wall.as_secs_f64(),
        "drain_seconds": drained.wall.as_secs_f64(),
        "sent": totals.sent, "arrived": totals.arrived,
    });
    if !server.is_child() {
        let mut fleet = Fleet::new(dialect)?;
        let clean = |index| Session { clean: true, ..returning(index) };
        fleet.open(sessions, settings.deadline(), &clean, &mut |_, _, _| Ok(()))?;
        fleet.leave(settings.deadline())?;
    }
    Ok(outcome)
}

/// Publishes everything; from the first PUBLISH to the last PUBACK.
pub fn store(
    server: &Server,
    settings: &StoreDrainSettings,
    nonce: &str,
    topics: &[String],
    ledgers: &mut [Ledger],
) -> Result<Interval> {
    let dialect = settings.dialect(server);
    let publishers = (settings.store_publishers as usize).min(topics.len());
    let mut fleet = Fleet::new(dialect)?;
    let session = |index: usize| Session {
        client_id: format!("store-{nonce}-publisher-{index}"),
        clean: true,
        subscription: None,
    };
    fleet.open(publishers, settings.deadline(), &session, &mut nothing_expected)?;
    let window = |index: usize| {
        let granted = fleet.links.client(index).map_or(u16::MAX, |publisher| publisher.receive_maximum);
        Window::new(settings.store_window.min(granted))
    };
    let mut load = StoreLoad {
        version: dialect.version,
        topics,
        ledgers,
        windows: (0..publishers).map(window).collect(),
        next: (0..publishers).collect(),
        payload: vec![0x5a; settings.store_payload as usize],
        unsent: settings.store_messages,
        unacknowledged: settings.store_messages,
    };
    let deadline = settings.deadline();
    let first = Mark::read(server.pid)?;
    (0..publishers).for_each(|publisher| load.fill(&mut fleet.links, publisher));
    while load.unacknowledged > 0 {
        ensure!(clock::now() < deadline, "{} messages were not acknowledged in time", load.unacknowledged);
        fleet.turn(Duration::from_millis(100), &mut |links, publisher, frame| {
            load.on_frame(links, publisher, frame).with_context(|| format!("publisher {publisher}"))
        })?;
    }
    let interval = Mark::read(server.pid)?.since(&first);
    fleet.leave(settings.deadline())?;
    Ok(interval)
}

/// The publishers while they store.
struct StoreLoad<'a> {
    version: Version,
    topics: &'a [String],
    ledgers: &'a mut [Ledger],
    windows: Vec<Window>,
    /// By publisher: the session it sends to next.
    next: Vec<usize>,
    payload: Vec<u8>,
    unsent: u64,
    unacknowledged: u64,
}

impl StoreLoad<'_> {
    fn fill(&mut self, links: &mut Links, publisher: usize) {
        let publishers = self.windows.len();
        while self.unsent > 0 {
            let Some(packet_id) = self.windows[publisher].take(1, 0) else { return };
            let session = self.next[publisher];
            let following = session + publishers;
            self.next[publisher] = if following < self.topics.len() { following } else { publisher };
            let ledger = &mut self.ledgers[session];
            ledger::stamp(&mut self.payload, session as u32, ledger.sent, 0);
            ledger.sent += 1;
            self.unsent -= 1;
            let topic = self.topics[session].as_bytes();
            let publish = Publish { qos: 1, topic, packet_id, payload: &self.payload };
            codec::encode_publish(links.outbound(publisher), self.version, &publish);
        }
    }

    fn on_frame(&mut self, links: &mut Links, publisher: usize, frame: &Frame<'_>) -> Result<()> {
        if self.windows[publisher].acknowledge(frame, links.outbound(publisher))?.is_some() {
            self.unacknowledged -= 1;
            self.fill(links, publisher);
        }
        Ok(())
    }
}

/// Brings the sessions back until each has all of its messages.
pub fn drain(
    server: &Server,
    settings: &StoreDrainSettings,
    session: &impl Fn(usize) -> Session,
    topics: &[String],
    ledgers: &mut [Ledger],
) -> Result<Interval> {
    let dialect = settings.dialect(server);
    let mut fleet = Fleet::new(dialect)?;
    let mut load =
        DrainLoad { version: dialect.version, topics, ledgers, unreceived: settings.store_messages };
    let deadline = settings.deadline();
    let first = Mark::read(server.pid)?;
    fleet.open(topics.len(), deadline, session, &mut |links, index, frame| {
        load.on_frame(links, index, frame)
    })?;
    let absent =
        (0..topics.len()).filter(|&index| !fleet.links.client(index).is_some_and(|c| c.session_present));
    let absent = absent.count();
    ensure!(absent == 0, "{absent} of {} sessions were not kept", topics.len());
    // What is missing at the deadline is counted by the books: running out of time is not an error of its own.
    while load.unreceived > 0 && clock::now() < deadline {
        fleet.turn(Duration::from_millis(100), &mut |links, index, frame| {
            load.on_frame(links, index, frame)
        })?;
    }
    let interval = Mark::read(server.pid)?.since(&first);
    fleet.leave(settings.deadline())?;
    Ok(interval)
}

/// The sessions while they take what was stored.
struct DrainLoad<'a> {
    version: Version,
    topics: &'a [String],
    ledgers: &'a mut [Ledger],
    unreceived: u64,
}

impl DrainLoad<'_> {
    fn on_frame(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        if frame.kind() != kind::PUBLISH {
            bail!("session {index} got packet type {}", frame.kind());
        }
        let publish = codec::parse_publish(frame, self.version)?;
        let (stream, sequence, _) = ledger::read_stamp(publish.payload)?;
        let own = stream as usize == index && publish.topic == self.topics[index].as_bytes();
        ensure!(own && publish.qos == 1, "session {index} got message {sequence} of session {stream}");
        codec::encode_ack(links.outbound(index), kind::PUBACK, publish.packet_id);
        let ledger = &mut self.ledgers[index];
        let skipped = ledger.skipped;
        if ledger.arrived(sequence)? {
            self.unreceived -= 1 + (ledger.skipped - skipped);
        }
        Ok(())
    }
}
