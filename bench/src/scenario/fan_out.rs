//! Scenario `fan-out`: one publisher, one topic, many subscribers: when the first has a message, and when the last.
//!
//! At each size in turn so many subscribers are connected (those of the size before stay), and messages are published
//! one after the other: the next when everybody has the last one, its publisher is acknowledged and, at QoS 2, every
//! subscriber's handshake is over. With `--fan-out-rate` they are due at a pace instead, whatever happened before.
//! For each message: from when it was sent (or due) to the first, to half, to 99 in 100 and to the last of its
//! recipients; and the server's CPU for each recipient. Over the sizes these are curves: a broker whose cost for one
//! recipient rises with their number bends upward.
//!
//! Each subscriber must have each message, in order, once (QoS 1: at least once), or the run fails. The arrival at the
//! last recipient is what the generator sees: it reads every copy itself, so `generator busy` belongs to the figure.
//!
//! Invariant: client 0 publishes; client `s + 1` is subscriber `s`.

mod books;
mod figures;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::client::codec::{self, Frame, Publish, Version, kind};
use crate::client::fleet::{Dialect, Fleet, Links, Session, nothing_expected};
use crate::client::publisher::Window;
use crate::load::ledger;
use crate::load::pace::Pace;
use crate::measure::clock;
use crate::measure::latency::Latency;
use crate::measure::meter::Mark;
use crate::measure::process;
use crate::report::{self, Outcome};
use crate::server::Server;

use books::{Books, Times};
use figures::Reading;

/// How many subscribers, and what they are sent.
#[derive(Clone, Debug, clap::Args)]
pub struct FanOutSettings {
    /// Numbers of subscribers to measure at, rising
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000, 10_000], value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub fan_out_sizes: Vec<u32>,
    /// Quality of service of messages and subscriptions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub fan_out_qos: u8,
    /// Payload of a message, in bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    pub fan_out_payload: u32,
    /// How long messages are published at each size
    #[arg(long, default_value_t = 3.0)]
    pub fan_out_seconds: f64,
    /// At least so many messages at each size, however long that takes
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub fan_out_messages: u64,
    /// Publish so many per second, instead of the next when everybody has the last
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub fan_out_rate: Option<u64>,
    /// Subscribers with sessions that outlive their connections
    #[arg(long)]
    pub fan_out_durable: bool,
    /// Subscribe with a filter that ends in `+`, instead of to the topic itself
    #[arg(long)]
    pub fan_out_wildcard: bool,
    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    pub fan_out_protocol: u8,
}

/// Messages at each size before those that count: what is built at the first message for new subscribers is there then.
const WARM_UP_MESSAGES: u64 = 3;

/// Messages of the publisher in flight at a pace. Far more than a broker that keeps up ever needs.
const WINDOW: u16 = 1_000;

/// The load sends no PINGREQ, and a subscriber at QoS 0 is silent for the whole run.
const KEEP_ALIVE_S: u16 = u16::MAX;

/// Descriptors beside the subscribers': the publisher's, the epoll set's, files.
const OTHER_DESCRIPTORS: u64 = 64;

/// No arrival for this long means that something is lost.
const STALL: Duration = Duration::from_secs(10);

/// What was published at one size is complete after this, or the run ends.
const COMPLETE_MAX: Duration = Duration::from_secs(300);

/// Opening (or forgetting) so many sessions takes no longer: a minute, and 2 ms for each.
fn opening_deadline(sessions: usize) -> Instant {
    clock::now() + Duration::from_secs(60) + Duration::from_millis(2) * sessions as u32
}

/// Runs the scenario on `server`.
pub fn run(server: &Server, settings: &FanOutSettings) -> Result<Outcome> {
    let sizes = &settings.fan_out_sizes;
    ensure!(sizes.windows(2).all(|pair| pair[0] < pair[1]), "--fan-out-sizes needs rising numbers");
    let largest = *sizes.last().context("--fan-out-sizes needs a number")?;
    process::need_descriptors(u64::from(largest) + OTHER_DESCRIPTORS)?;
    let version = if settings.fan_out_protocol == 5 { Version::V5 } else { Version::V311 };
    let dialect = Dialect { target: server.address, version, keep_alive_s: KEEP_ALIVE_S };
    let nonce = format!("{:x}{:x}", std::process::id(), clock::unix_seconds() & 0xffff);
    let topic = format!("o/{nonce}/all");
    let filter = if settings.fan_out_wildcard { format!("o/{nonce}/+") } else { topic.clone() };
    let session = |index: usize| Session {
        client_id: format!("fan-out-{nonce}-{index}"),
        clean: index == 0 || !settings.fan_out_durable,
        subscription: (index > 0).then(|| (filter.clone(), settings.fan_out_qos)),
    };
    let mut fleet = Fleet::new(dialect)?;
    fleet.open(1, opening_deadline(1), &session, &mut nothing_expected)?;
    let mut load = Load::new(settings, version, topic, &fleet.links)?;
    let (mut readings, mut outcome) = (Vec::new(), Outcome::default());
    if let Err(error) = load.measure_sizes(&mut fleet, server.pid, &session, &mut readings) {
        outcome.failures.push(format!("{error:#}"));
    }
    outcome.failures.extend(load.books.failures(settings.fan_out_qos));
    figures::report(&mut outcome, settings, &readings);
    if load.books.repeated > 0 {
        outcome.add("repeated", "messages", load.books.repeated as f64);
    }
    outcome.detail = json!({
        "settings": format!("{settings:?}"),
        "sent": load.books.sent(), "arrived": load.books.arrived, "repeated": load.books.repeated,
        "sizes": readings.iter().map(Reading::to_json).collect::<Vec<_>>(),
    });
    if !server.is_child() && settings.fan_out_durable {
        let clients = fleet.len();
        drop(fleet);
        forget(dialect, clients, &session)?;
    }
    Ok(outcome)
}

/// Ends the durable sessions left in a broker that goes on running.
fn forget(dialect: Dialect, clients: usize, session: &impl Fn(usize) -> Session) -> Result<()> {
    let mut fleet = Fleet::new(dialect)?;
    let clean = |index| Session { clean: true, subscription: None, ..session(index) };
    fleet.open(clients, opening_deadline(clients), &clean, &mut |_, _, _| Ok(()))?;
    fleet.leave(opening_deadline(clients))
}

struct Load {
    settings: FanOutSettings,
    version: Version,
    topic: String,
    window: Window,
    books: Books,
    payload: Vec<u8>,
    start: Instant,
    /// When messages were due that the window had no room for.
    backlog: VecDeque<u64>,
    unacknowledged: u64,
    /// Deliveries of QoS 2 whose PUBREL has not come.
    unreleased: u64,
    times: Times,
    acknowledgement: Latency,
}

impl Load {
    fn new(settings: &FanOutSettings, version: Version, topic: String, links: &Links) -> Result<Load> {
        let granted = links.client(0).map_or(u16::MAX, |publisher| publisher.receive_maximum);
        Ok(Load {
            settings: settings.clone(),
            version,
            topic,
            window: Window::new(WINDOW.min(granted)),
            books: Books::default(),
            payload: vec![0x5a; settings.fan_out_payload as usize],
            start: clock::now(),
            backlog: VecDeque::new(),
            unacknowledged: 0,
            unreleased: 0,
            times: Times::new()?,
            acknowledgement: Latency::new()?,
        })
    }

    /// Each size in turn. What was measured before something went wrong stays in `readings`.
    fn measure_sizes(
        &mut self,
        fleet: &mut Fleet,
        server: Option<u32>,
        session: &impl Fn(usize) -> Session,
        readings: &mut Vec<Reading>,
    ) -> Result<()> {
        for size in self.settings.fan_out_sizes.clone() {
            let clients = size as usize + 1;
            fleet
                .open(clients, opening_deadline(clients), session, &mut nothing_expected)
                .with_context(|| format!("opening {size} subscribers"))?;
            self.books.join(size as usize);
            let reading = self.measure(fleet, size, server).with_context(|| format!("{size} subscribers"))?;
            report::progress(&reading.line());
            readings.push(reading);
        }
        Ok(())
    }

    fn measure(&mut self, fleet: &mut Fleet, subscribers: u32, server: Option<u32>) -> Result<Reading> {
        self.one_after_the_other(fleet, WARM_UP_MESSAGES, Duration::ZERO)?;
        (self.times, self.acknowledgement) = (Times::new()?, Latency::new()?);
        let sent_before = self.books.sent();
        let before = Mark::read(server)?;
        let duration = Duration::from_secs_f64(self.settings.fan_out_seconds);
        match self.settings.fan_out_rate {
            Some(rate) => self.at_a_pace(fleet, rate, duration)?,
            None => self.one_after_the_other(fleet, self.settings.fan_out_messages, duration)?,
        }
        let interval = Mark::read(server)?.since(&before);
        Ok(Reading {
            subscribers,
            messages: self.books.sent() - sent_before,
            interval,
            times: std::mem::replace(&mut self.times, Times::new()?),
            acknowledgement: std::mem::replace(&mut self.acknowledgement, Latency::new()?),
        })
    }

    /// The next message when the last one is settled: at least so many, and for at least so long.
    fn one_after_the_other(&mut self, fleet: &mut Fleet, messages: u64, duration: Duration) -> Result<()> {
        let (begin, sent_before) = (clock::now(), self.books.sent());
        while self.books.sent() - sent_before < messages || begin.elapsed() < duration {
            let now_ns = self.now_ns();
            self.publish(&mut fleet.links, now_ns);
            self.turn_until_settled(fleet)?;
        }
        Ok(())
    }

    /// Messages as they are due, and then until everybody has them.
    fn at_a_pace(&mut self, fleet: &mut Fleet, rate: u64, duration: Duration) -> Result<()> {
        let (mut pace, begin_ns) = (Pace::new(rate), self.now_ns());
        let end_ns = (duration.as_nanos() as u64).max(1);
        let mut progress = (0, clock::now());
        loop {
            let now_ns = pace.now_ns();
            while let Some((_, due_ns)) = pace.take(now_ns.min(end_ns - 1)) {
                self.publish(&mut fleet.links, begin_ns + due_ns);
            }
            if now_ns >= end_ns {
                return self.turn_until_settled(fleet);
            }
            self.turn(fleet, pace.wait(Duration::from_millis(100)))?;
            if self.is_settled() || progress.0 != self.books.arrived {
                progress = (self.books.arrived, clock::now());
            }
            ensure!(progress.1.elapsed() < STALL, "{}", self.stalled());
        }
    }

    fn turn_until_settled(&mut self, fleet: &mut Fleet) -> Result<()> {
        let deadline = clock::now() + COMPLETE_MAX;
        let reached = |load: &Load| (load.books.arrived, load.unacknowledged, load.unreleased);
        let mut progress = (reached(self), clock::now());
        while !self.is_settled() {
            self.turn(fleet, Duration::from_millis(100))?;
            if progress.0 != reached(self) {
                progress = (reached(self), clock::now());
            }
            ensure!(progress.1.elapsed() < STALL, "{}", self.stalled());
            ensure!(clock::now() < deadline, "not complete after {} s", COMPLETE_MAX.as_secs());
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        let handshakes = self.unacknowledged + self.unreleased;
        self.books.is_complete() && handshakes == 0 && self.backlog.is_empty()
    }

    fn stalled(&self) -> String {
        format!(
            "nothing arrived for {} s: {} deliveries outstanding, {} passed over, publisher waits for {}, subscribers for {} PUBREL",
            STALL.as_secs(),
            self.books.outstanding(),
            self.books.skipped,
            self.unacknowledged,
            self.unreleased
        )
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn turn(&mut self, fleet: &mut Fleet, wait: Duration) -> Result<()> {
        fleet.turn(wait, &mut |links, index, frame| self.on_frame(links, index, frame))
    }

    fn publish(&mut self, links: &mut Links, due_ns: u64) {
        self.backlog.push_back(due_ns);
        self.fill(links);
    }

    /// Sends what is due and has room in the window.
    fn fill(&mut self, links: &mut Links) {
        let qos = self.settings.fan_out_qos;
        while let Some(&due_ns) = self.backlog.front() {
            let packet_id = match qos {
                0 => 0,
                _ => match self.window.take(qos, due_ns) {
                    Some(packet_id) => packet_id,
                    None => return,
                },
            };
            self.backlog.pop_front();
            self.unacknowledged += u64::from(qos > 0);
            let number = self.books.send(due_ns);
            ledger::stamp(&mut self.payload, 0, number, due_ns);
            let publish = Publish { qos, topic: self.topic.as_bytes(), packet_id, payload: &self.payload };
            codec::encode_publish(links.outbound(0), self.version, &publish);
        }
    }

    fn on_frame(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        let Some(subscriber) = index.checked_sub(1) else {
            let complete = self.window.acknowledge(frame, links.outbound(0)).context("the publisher")?;
            if let Some(due_ns) = complete {
                self.unacknowledged -= 1;
                self.acknowledgement.record(due_ns, self.now_ns());
                self.fill(links);
            }
            return Ok(());
        };
        match frame.kind() {
            kind::PUBLISH => {
                let publish = codec::parse_publish(frame, self.version)?;
                self.on_message(links, subscriber, &publish)
                    .with_context(|| format!("subscriber {subscriber}"))
            }
            kind::PUBREL => {
                let (packet_id, _) = codec::parse_ack(frame)?;
                let left = self.unreleased.checked_sub(1);
                self.unreleased = left.context("a PUBREL for a message that is not in its handshake")?;
                codec::encode_ack(links.outbound(index), kind::PUBCOMP, packet_id);
                Ok(())
            }
            other => bail!("subscriber {subscriber} got packet type {other}"),
        }
    }

    fn on_message(&mut self, links: &mut Links, subscriber: usize, publish: &Publish<'_>) -> Result<()> {
        // Read for each copy: in one batch of a thousand the last is a millisecond later than the first.
        let now_ns = self.now_ns();
        let (stream, number, _) = ledger::read_stamp(publish.payload)?;
        ensure!(
            publish.topic == self.topic.as_bytes() && stream == 0,
            "message {number} is for another topic"
        );
        let (sent, came) =
            ((self.settings.fan_out_qos, self.payload.len()), (publish.qos, publish.payload.len()));
        ensure!(came == sent, "message {number} has QoS and bytes {came:?}, sent with {sent:?}");
        match publish.qos {
            0 => {}
            1 => codec::encode_ack(links.outbound(subscriber + 1), kind::PUBACK, publish.packet_id),
            _ => {
                self.unreleased += 1;
                codec::encode_ack(links.outbound(subscriber + 1), kind::PUBREC, publish.packet_id);
            }
        }
        self.books.arrive(subscriber, number, now_ns, &mut self.times)
    }
}
