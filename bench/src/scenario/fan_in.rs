//! Scenario `fan-in`: many publishers, one topic, one subscriber, or a few that share a subscription.
//!
//! A closed loop: a publisher has at most `window` messages in flight, and a message is in flight until it is
//! acknowledged to its publisher and has arrived. So publishers times window is all that ever waits for the one
//! subscriber, and a broker whose queue holds that many has no reason to drop. (Mosquitto as shipped queues 1,000 for
//! a session beside 20 in flight, and drops silently what comes then; the built-in `mosquitto` has both unbounded.)
//! With `--fan-in-rate` messages are due at a pace instead, one publisher after the other, whatever happened before.
//!
//! With `--fan-in-share` members of one group share the subscription (MQTT 5.0): each message must arrive at exactly
//! one of them. How evenly they take turns is a figure, not a fault: the standard leaves it to the broker.
//! Each message must arrive, once (QoS 1 with one subscriber: at least once), each publisher's in order.
//!
//! Invariant: clients `0..members` subscribe; client `members + p` is publisher `p`.

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

use books::Books;
use figures::Reading;

/// Who publishes how, and who subscribes.
#[derive(Clone, Debug, clap::Args)]
pub struct FanInSettings {
    /// Numbers of publishers to measure at, rising
    #[arg(long, value_delimiter = ',', default_values_t = [1_000], value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub fan_in_sizes: Vec<u32>,
    /// Quality of service of messages and subscriptions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub fan_in_qos: u8,
    /// Messages of one publisher in flight; publishers times this may wait for the subscriber
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub fan_in_window: u16,
    /// Payload of a message, in bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    pub fan_in_payload: u32,
    /// All publishers together send so many per second, instead of as a window allows
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub fan_in_rate: Option<u64>,
    /// So many members share the subscription (MQTT 5.0 only); 0 is one subscriber of its own
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub fan_in_share: u32,
    /// Subscribers with sessions that outlive their connections
    #[arg(long)]
    pub fan_in_durable: bool,
    /// How long to measure at each size
    #[arg(long, default_value_t = 5.0)]
    pub fan_in_seconds: f64,
    /// How long the load runs before that
    #[arg(long, default_value_t = 1.0)]
    pub fan_in_warm_up_seconds: f64,
    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    pub fan_in_protocol: u8,
}

impl FanInSettings {
    fn members(&self) -> usize {
        self.fan_in_share.max(1) as usize
    }

    /// At a pace the window must not be what holds a message back, so it is wide; the broker's own limit stays.
    fn width(&self) -> u16 {
        if self.fan_in_rate.is_some() { PACED_WINDOW } else { self.fan_in_window }
    }
}

/// Messages of one publisher in flight at a pace.
const PACED_WINDOW: u16 = 100;

/// Descriptors beside the clients': the epoll set's, files.
const OTHER_DESCRIPTORS: u64 = 64;

/// The load sends no PINGREQ, and at QoS 0 the subscriber is silent for the whole run.
const KEEP_ALIVE_S: u16 = u16::MAX;

/// No arrival for this long means that something is lost.
const STALL: Duration = Duration::from_secs(10);

/// Nothing the load waits for takes longer than this: a broker that only trickles ends the run too.
const COMPLETE_MAX: Duration = Duration::from_secs(300);

/// Opening (or forgetting) so many sessions takes no longer: a minute, and 2 ms for each.
fn opening_deadline(sessions: usize) -> Instant {
    clock::now() + Duration::from_secs(60) + Duration::from_millis(2) * sessions as u32
}

/// Runs the scenario on `server`.
pub fn run(server: &Server, settings: &FanInSettings) -> Result<Outcome> {
    let sizes = &settings.fan_in_sizes;
    ensure!(sizes.windows(2).all(|pair| pair[0] < pair[1]), "--fan-in-sizes needs rising numbers");
    let largest = *sizes.last().context("--fan-in-sizes needs a number")?;
    let shared = settings.fan_in_share > 0;
    ensure!(!shared || settings.fan_in_protocol == 5, "--fan-in-share needs --fan-in-protocol 5");
    let members = settings.members();
    process::need_descriptors(u64::from(largest) + members as u64 + OTHER_DESCRIPTORS)?;
    let version = if settings.fan_in_protocol == 5 { Version::V5 } else { Version::V311 };
    let dialect = Dialect { target: server.address, version, keep_alive_s: KEEP_ALIVE_S };
    let nonce = format!("{:x}{:x}", std::process::id(), clock::unix_seconds() & 0xffff);
    let topic = format!("i/{nonce}");
    let filter = if shared { format!("$share/{nonce}/{topic}") } else { topic.clone() };
    let session = |index: usize| Session {
        client_id: format!("fan-in-{nonce}-{index}"),
        clean: index >= members || !settings.fan_in_durable,
        subscription: (index < members).then(|| (filter.clone(), settings.fan_in_qos)),
    };
    let mut fleet = Fleet::new(dialect)?;
    let subscribed = fleet.open(members, opening_deadline(members), &session, &mut nothing_expected);
    let lacking = if shared { " (the broker may lack shared subscriptions)" } else { "" };
    subscribed.with_context(|| format!("subscribing to {filter}{lacking}"))?;
    let mut load = Load::new(settings, version, topic)?;
    let (mut readings, mut outcome) = (Vec::new(), Outcome::default());
    if let Err(error) = load.measure_sizes(&mut fleet, server.pid, &session, &mut readings) {
        outcome.failures.push(format!("{error:#}"));
    }
    outcome.failures.extend(load.books.failures(settings.fan_in_qos));
    figures::report(&mut outcome, settings, &readings);
    if load.books.repeated > 0 {
        outcome.add("repeated", "messages", load.books.repeated as f64);
    }
    outcome.detail = json!({
        "settings": format!("{settings:?}"),
        "sent": load.books.sent(), "arrived": load.books.arrived(), "repeated": load.books.repeated,
        "sizes": readings.iter().map(Reading::to_json).collect::<Vec<_>>(),
    });
    if !server.is_child() && settings.fan_in_durable {
        drop(fleet);
        forget(dialect, members, &session)?;
    }
    Ok(outcome)
}

/// Ends the durable sessions left in a broker that goes on running.
fn forget(dialect: Dialect, members: usize, session: &impl Fn(usize) -> Session) -> Result<()> {
    let mut fleet = Fleet::new(dialect)?;
    let clean = |index| Session { clean: true, subscription: None, ..session(index) };
    fleet.open(members, opening_deadline(members), &clean, &mut |_, _, _| Ok(()))?;
    fleet.leave(opening_deadline(members))
}

/// One publisher's side of the loop.
struct Publisher {
    window: Window,
    /// When messages were due that the window had no room for.
    backlog: VecDeque<u64>,
}

struct Load {
    settings: FanInSettings,
    version: Version,
    topic: String,
    publishers: Vec<Publisher>,
    books: Books,
    payload: Vec<u8>,
    start: Instant,
    /// One reading of the clock serves what one connection brought in a batch.
    now_ns: u64,
    /// The client that `now_ns` was read for.
    read_for: Option<usize>,
    /// The closed loop goes on.
    sending: bool,
    arrived: u64,
    sent: u64,
    unacknowledged: u64,
    /// Deliveries of QoS 2 whose PUBREL has not come.
    unreleased: u64,
    /// Messages that were sent, or due, in this time count.
    measured_ns: (u64, u64),
    delivery: Latency,
    acknowledgement: Latency,
}

impl Load {
    fn new(settings: &FanInSettings, version: Version, topic: String) -> Result<Load> {
        Ok(Load {
            settings: settings.clone(),
            version,
            topic,
            publishers: Vec::new(),
            books: Books::new(settings.members()),
            payload: vec![0x5a; settings.fan_in_payload as usize],
            start: clock::now(),
            now_ns: 0,
            read_for: None,
            sending: false,
            arrived: 0,
            sent: 0,
            unacknowledged: 0,
            unreleased: 0,
            measured_ns: (0, 0),
            delivery: Latency::new()?,
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
        let members = self.settings.members();
        for size in self.settings.fan_in_sizes.clone() {
            let clients = members + size as usize;
            fleet
                .open(clients, opening_deadline(clients), session, &mut nothing_expected)
                .with_context(|| format!("opening {size} publishers"))?;
            self.books.join(size as usize);
            for client in members + self.publishers.len()..clients {
                let granted = fleet.links.client(client).map_or(u16::MAX, |client| client.receive_maximum);
                let window = Window::new(self.settings.width().min(granted));
                self.publishers.push(Publisher { window, backlog: VecDeque::new() });
            }
            let reading = self.measure(fleet, size, server).with_context(|| format!("{size} publishers"))?;
            report::progress(&reading.line());
            readings.push(reading);
        }
        Ok(())
    }

    /// Runs the load at one size; then everything sent must arrive and every handshake end.
    fn measure(&mut self, fleet: &mut Fleet, publishers: u32, server: Option<u32>) -> Result<Reading> {
        (self.delivery, self.acknowledgement) = (Latency::new()?, Latency::new()?);
        self.read_clock();
        let warm = Duration::from_secs_f64(self.settings.fan_in_warm_up_seconds);
        let end = warm + Duration::from_secs_f64(self.settings.fan_in_seconds);
        let at_ns = |after: Duration| self.now_ns + after.as_nanos() as u64;
        self.measured_ns = (at_ns(warm), at_ns(end));
        let mut pace = self.settings.fan_in_rate.map(|rate| (Pace::new(rate), self.now_ns));
        self.sending = pace.is_none();
        if self.sending {
            (0..self.publishers.len()).for_each(|publisher| self.fill(&mut fleet.links, publisher));
        }
        self.turn_until(fleet, self.measured_ns.0, &mut pace)?;
        let (first, arrived, taken) = (Mark::read(server)?, self.arrived, self.books.taken.clone());
        self.turn_until(fleet, self.measured_ns.1, &mut pace)?;
        let interval = Mark::read(server)?.since(&first);
        let messages = self.arrived - arrived;
        let taken = self.books.taken.iter().zip(taken).map(|(now, then)| now - then).collect();
        self.sending = false;
        self.turn_until_complete(fleet)?;
        Ok(Reading {
            publishers,
            messages,
            interval,
            delivery: std::mem::replace(&mut self.delivery, Latency::new()?),
            acknowledgement: std::mem::replace(&mut self.acknowledgement, Latency::new()?),
            taken,
        })
    }

    /// Turns until `end_ns`, and publishes meanwhile what `pace` says is due.
    fn turn_until(&mut self, fleet: &mut Fleet, end_ns: u64, pace: &mut Option<(Pace, u64)>) -> Result<()> {
        let mut progress = (self.arrived, clock::now());
        loop {
            self.read_clock();
            let mut wait = Duration::from_millis(100);
            if let Some((pace, begin_ns)) = pace {
                let due_by_ns = self.now_ns.min(end_ns - 1).saturating_sub(*begin_ns);
                while let Some((number, due_ns)) = pace.take(due_by_ns) {
                    let publisher = (number % self.publishers.len() as u64) as usize;
                    self.publishers[publisher].backlog.push_back(*begin_ns + due_ns);
                    self.fill(&mut fleet.links, publisher);
                }
                wait = pace.wait(wait);
            }
            if self.now_ns >= end_ns {
                return Ok(());
            }
            self.turn(fleet, wait.min(Duration::from_nanos(end_ns - self.now_ns)))?;
            if self.arrived != progress.0 || self.arrived == self.sent {
                progress = (self.arrived, clock::now());
            }
            ensure!(progress.1.elapsed() < STALL, "{}", self.stalled());
        }
    }

    /// Turns until everything sent has arrived and every handshake is over, or nothing moves any more.
    fn turn_until_complete(&mut self, fleet: &mut Fleet) -> Result<()> {
        let deadline = clock::now() + COMPLETE_MAX;
        let reached = |load: &Load| (load.arrived, load.unacknowledged, load.unreleased);
        let mut progress = (reached(self), clock::now());
        while !self.is_complete() {
            self.turn(fleet, Duration::from_millis(100))?;
            if progress.0 != reached(self) {
                progress = (reached(self), clock::now());
            }
            ensure!(progress.1.elapsed() < STALL, "{}", self.stalled());
            ensure!(clock::now() < deadline, "not complete after {} s", COMPLETE_MAX.as_secs());
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        // Cheap first: the publishers are looked at only once nothing is in flight.
        self.arrived == self.sent
            && self.unacknowledged + self.unreleased == 0
            && self.publishers.iter().all(|publisher| publisher.backlog.is_empty())
    }

    fn stalled(&self) -> String {
        let (arrived, sent) = (self.arrived, self.sent);
        let lacking = match (self.settings.fan_in_share, arrived) {
            (1.., 0) => {
                ": the broker took a shared subscription and sends its members nothing, so it has none"
            }
            _ => "",
        };
        format!(
            "nothing arrived for {} s: {arrived} of {sent} messages, {} unacknowledged{lacking}",
            STALL.as_secs(),
            self.unacknowledged
        )
    }

    fn read_clock(&mut self) {
        self.now_ns = self.start.elapsed().as_nanos() as u64;
        self.read_for = None;
    }

    fn turn(&mut self, fleet: &mut Fleet, wait: Duration) -> Result<()> {
        self.read_for = None;
        fleet.turn(wait, &mut |links, index, frame| {
            if self.read_for != Some(index) {
                self.read_clock();
                self.read_for = Some(index);
            }
            self.on_frame(links, index, frame)
        })
    }

    /// Sends what `publisher` may: what is due at a pace, or what the window of the closed loop has room for.
    fn fill(&mut self, links: &mut Links, publisher: usize) {
        let qos = self.settings.fan_in_qos;
        let paced = self.settings.fan_in_rate.is_some();
        let window = u64::from(self.settings.fan_in_window);
        let client = self.settings.members() + publisher;
        loop {
            let Publisher { window: flights, backlog } = &mut self.publishers[publisher];
            let may_send = self.sending && self.books.outstanding(publisher) < window;
            let due_ns = if paced { backlog.front().copied() } else { may_send.then_some(self.now_ns) };
            let Some(due_ns) = due_ns else { return };
            let packet_id = match qos {
                0 => 0,
                _ => match flights.take(qos, due_ns) {
                    Some(packet_id) => packet_id,
                    None => return,
                },
            };
            backlog.pop_front();
            self.sent += 1;
            self.unacknowledged += u64::from(qos > 0);
            let number = self.books.send(publisher);
            ledger::stamp(&mut self.payload, publisher as u32, number, due_ns);
            let publish = Publish { qos, topic: self.topic.as_bytes(), packet_id, payload: &self.payload };
            codec::encode_publish(links.outbound(client), self.version, &publish);
        }
    }

    fn on_frame(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        if let Some(publisher) = index.checked_sub(self.settings.members()) {
            let complete = self.publishers[publisher].window.acknowledge(frame, links.outbound(index));
            let complete = complete.with_context(|| format!("publisher {publisher}"))?;
            let Some(due_ns) = complete else { return Ok(()) };
            self.unacknowledged -= 1;
            if self.is_measured(due_ns) {
                self.acknowledgement.record(due_ns, self.now_ns);
            }
            self.fill(links, publisher);
            return Ok(());
        }
        match frame.kind() {
            kind::PUBLISH => {
                let publish = codec::parse_publish(frame, self.version)?;
                self.on_message(links, index, &publish).with_context(|| format!("subscriber {index}"))
            }
            kind::PUBREL => {
                let (packet_id, _) = codec::parse_ack(frame)?;
                let left = self.unreleased.checked_sub(1);
                self.unreleased = left.context("a PUBREL for a message that is not in its handshake")?;
                codec::encode_ack(links.outbound(index), kind::PUBCOMP, packet_id);
                Ok(())
            }
            other => bail!("subscriber {index} got packet type {other}"),
        }
    }

    fn on_message(&mut self, links: &mut Links, member: usize, publish: &Publish<'_>) -> Result<()> {
        let (publisher, number, due_ns) = ledger::read_stamp(publish.payload)?;
        ensure!(publish.topic == self.topic.as_bytes(), "message {number} is for another topic");
        let (sent, came) =
            ((self.settings.fan_in_qos, self.payload.len()), (publish.qos, publish.payload.len()));
        ensure!(came == sent, "message {number} has QoS and bytes {came:?}, sent with {sent:?}");
        match publish.qos {
            0 => {}
            1 => codec::encode_ack(links.outbound(member), kind::PUBACK, publish.packet_id),
            _ => {
                self.unreleased += 1;
                codec::encode_ack(links.outbound(member), kind::PUBREC, publish.packet_id);
            }
        }
        let publisher = publisher as usize;
        if self.books.arrive(member, publisher, number)? {
            self.arrived += 1;
            if self.is_measured(due_ns) {
                self.delivery.record(due_ns, self.now_ns);
            }
            self.fill(links, publisher);
        }
        Ok(())
    }

    fn is_measured(&self, due_ns: u64) -> bool {
        (self.measured_ns.0..self.measured_ns.1).contains(&due_ns)
    }
}
