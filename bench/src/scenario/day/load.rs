//! The run of scenario `day`: messages, acknowledgements, pings, departures and returns, each when it is due.
//!
//! Decides the order of these within one loop, on one thread, which wakes for the next thing that is due. Who writes to
//! whom is the business of `people`, what is wrong that of `books` and `presence`, how phones come and go that of `moves`.
//! Called by `mod`.
//!
//! Invariants: client `i` is phone `i`. A phone leaves only when everything it sent is acknowledged, so its streams keep
//! their order over its connections; what it was sent and has not acknowledged comes again. Acknowledgements of one phone
//! are due in the order in which its messages came.

mod moves;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::DaySettings;
use super::books::Books;
use super::people::{self, Destination, PAYLOAD_BYTES_MAX, People};
use super::presence::{Look, Presence};
use crate::client::codec::{self, Frame, Publish, Version, kind};
use crate::client::fleet::{Dialect, Fleet, Links, Session};
use crate::client::publisher::Window;
use crate::load::acknowledgements::Acknowledgements;
use crate::load::ledger;
use crate::load::pace::Pace;
use crate::load::random::Random;
use crate::load::recipients::{Mixture, State};
use crate::measure::clock;
use crate::measure::latency::Latency;

/// Handshakes of returning phones at once.
const RETURNING_MAX: usize = 64;

/// A step that waits for something takes no longer than this.
pub(super) const STEP_MAX: Duration = Duration::from_secs(180);

/// Of the phones that leave, so many of a hundred vanish: no DISCONNECT, and the server says their will.
const VANISH_PERCENT: usize = 10;

/// How long the retained presence may take to be as it has to be.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// A return that cannot begin yet is tried again so much later.
const AGAIN_NS: u64 = 20_000_000;

/// So often a sender is drawn before it is clear that nobody is there.
const DRAWS_MAX: usize = 10_000;

struct Phone {
    /// Where it is written to one by one.
    inbox: String,
    state: State,
    /// Its handshake is over, and it is not about to leave.
    is_ready: bool,
    /// Which connection it is on: what was to be acknowledged on an earlier one is void.
    connection: u32,
    /// When its latest acknowledgement so far is due.
    last_due_ns: u64,
    /// When its connection was dialled.
    dialled_ns: u64,
    /// Since it returned: what it awaited then and has not got yet.
    queue: u64,
    window: Window,
    in_flight: u32,
    /// What was due while the window was full: where to, and when.
    backlog: VecDeque<(Destination, u64)>,
}

pub(super) struct Load {
    pub(super) people: People,
    pub(super) books: Books,
    pub(super) presence: Presence,
    settings: DaySettings,
    version: Version,
    nonce: String,
    phones: Vec<Phone>,
    /// By group.
    group_topics: Vec<String>,
    pace: Pace,
    start: Instant,
    now_ns: u64,
    /// Who sends, where to, how much.
    choice: Random,
    /// Of delays and absences, in the order of events.
    delay: Random,
    acknowledgements: Acknowledgements,
    /// When which phone returns.
    returns: BinaryHeap<Reverse<(u64, usize)>>,
    /// Chosen to leave, as soon as they have been answered.
    leaving: Vec<usize>,
    /// Their handshakes are under way.
    arriving: Vec<usize>,
    granted: u64,
    payload: Vec<u8>,
    /// Latencies of what fell due from then on are recorded, until everybody is called back.
    measured_from_ns: u64,
    has_begun: bool,
    draining: bool,
    pub(super) counts: Counts,
    pub(super) times: Times,
}

/// What happened, counted from the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) arrived: u64,
    pub(super) returned: u64,
    pub(super) vanished: u64,
    pub(super) pings: u64,
    pub(super) without_window: u64,
    /// Kept on the server's books as connected for its patience, then ended by it.
    pub(super) given_up: u64,
}

/// How long things took.
pub(super) struct Times {
    /// From when a message was due to its PUBACK.
    pub(super) wait: Latency,
    /// From when a message was due to its arrival at a phone that was there and awake all the time.
    pub(super) delivery: Latency,
    /// From dialling to CONNACK, of those who return.
    pub(super) login: Latency,
    /// From dialling until everything is there that had been sent by then, of those for whom there was anything.
    pub(super) queue: Latency,
    pub(super) sent_late: Latency,
}

impl Load {
    pub(super) fn new(settings: &DaySettings, nonce: &str) -> Result<Load> {
        let people = People::new(settings.day_phones as usize);
        let mut choice = Random::new(settings.day_seed);
        let phone = |index: usize| Phone {
            // Two levels, so that topics spread over shards.
            inbox: format!("u{nonce}/{index}"),
            state: Mixture::Phones.state(&mut choice),
            is_ready: false,
            connection: 0,
            last_due_ns: 0,
            dialled_ns: 0,
            queue: 0,
            window: Window::new(settings.day_window),
            in_flight: 0,
            backlog: VecDeque::new(),
        };
        let phones: Vec<Phone> = (0..people.phones()).map(phone).collect();
        let group_topics = (0..people.groups()).map(|group| format!("g{nonce}/{group}")).collect();
        let times = Times {
            wait: Latency::new()?,
            delivery: Latency::new()?,
            login: Latency::new()?,
            queue: Latency::new()?,
            sent_late: Latency::new()?,
        };
        Ok(Load {
            books: Books::new(&people),
            presence: Presence::new(nonce, settings.version(), people.phones()),
            people,
            settings: settings.clone(),
            version: settings.version(),
            nonce: nonce.to_owned(),
            phones,
            group_topics,
            pace: Pace::new(settings.day_rate),
            start: clock::now(),
            now_ns: 0,
            choice,
            delay: Random::new(!settings.day_seed),
            acknowledgements: Acknowledgements::default(),
            returns: BinaryHeap::new(),
            leaving: Vec::new(),
            arriving: Vec::new(),
            granted: 0,
            payload: vec![0x5a; PAYLOAD_BYTES_MAX],
            measured_from_ns: (settings.day_warm_up_seconds * 1e9) as u64,
            has_begun: false,
            draining: false,
            counts: Counts::default(),
            times,
        })
    }

    /// Who phone `phone` is when it connects for the first time.
    pub(super) fn session(&self, phone: usize) -> Session {
        let subscription = Some((self.phones[phone].inbox.clone(), 1));
        Session { client_id: format!("day-{}-{phone}", self.nonce), clean: false, subscription }
    }

    /// Where messages for that destination of a sender's are published.
    fn topic(&self, sender: usize, destination: Destination) -> &str {
        match destination {
            Destination::Contact(number) => &self.phones[self.people.contact(sender, number)].inbox,
            Destination::Group => &self.group_topics[self.people.group_number(sender)],
        }
    }

    pub(super) fn connected(&self) -> usize {
        self.phones.iter().filter(|phone| phone.state != State::Away).count()
    }

    /// Time begins.
    pub(super) fn start(&mut self) {
        self.start = clock::now();
        self.now_ns = 0;
        self.pace = Pace::new(self.settings.day_rate);
        self.has_begun = true;
    }

    /// Publishes what is due, until then.
    pub(super) fn run_until(&mut self, fleet: &mut Fleet, end_ns: u64) -> Result<()> {
        self.give_up_silent(fleet);
        loop {
            self.read_clock();
            while let Some((_, due_ns)) = self.pace.take(self.now_ns.min(end_ns - 1)) {
                if due_ns >= self.measured_from_ns {
                    self.times.sent_late.record(due_ns, self.now_ns);
                }
                self.publish(&mut fleet.links, due_ns)?;
            }
            self.act(fleet)?;
            if self.now_ns >= end_ns {
                return Ok(());
            }
            let next_ns = self.next_ns().min(self.pace.due_ns(self.pace.taken)).min(end_ns);
            self.turn(fleet, Duration::from_nanos(next_ns.saturating_sub(self.now_ns)))?;
        }
    }

    /// A new client looks at the retained presence: whose latest word it is not given, and what it has instead.
    pub(super) fn look(&mut self, fleet: &mut Fleet, dialect: Dialect) -> Result<Vec<(usize, char, char)>> {
        let mut look = Look::begin(dialect, &self.nonce, self.phones.len())?;
        let deadline = clock::now() + LOOK_MAX;
        loop {
            look.turn()?;
            self.acknowledge(fleet);
            self.ping(fleet);
            self.turn(fleet, Duration::from_millis(10))?;
            let stale = self.presence.stale(&look);
            // Retained messages may be on their way, and a will too.
            if stale.is_empty() || clock::now() > deadline {
                return Ok(stale);
            }
        }
    }

    fn read_clock(&mut self) {
        self.now_ns = self.start.elapsed().as_nanos() as u64;
    }

    /// When the next acknowledgement, return or ping is due.
    fn next_ns(&self) -> u64 {
        let acknowledgement = self.acknowledgements.next_ns();
        let returning = self.returns.peek().map_or(u64::MAX, |next| next.0.0);
        acknowledgement.min(returning).min(self.ping_due_ns())
    }

    /// Everything but messages that is due.
    fn act(&mut self, fleet: &mut Fleet) -> Result<()> {
        self.acknowledge(fleet);
        self.ping(fleet);
        self.let_go(fleet);
        while let Some(Reverse((at_ns, phone))) = self.returns.peek().copied()
            && at_ns <= self.now_ns
            && fleet.opening() < RETURNING_MAX
        {
            self.returns.pop();
            if !fleet.is_closed(phone) {
                // It has left a moment ago, and the broker has not closed yet.
                self.returns.push(Reverse((self.now_ns + AGAIN_NS, phone)));
                continue;
            }
            self.come_back(fleet, phone)?;
            self.counts.returned += 1;
            self.one_leaves();
        }
        Ok(())
    }

    fn acknowledge(&mut self, fleet: &mut Fleet) {
        self.read_clock();
        while let Some(owed) = self.acknowledgements.take(self.now_ns) {
            if self.phones[owed.client].connection == owed.connection && fleet.is_open(owed.client) {
                codec::encode_ack(fleet.links.outbound(owed.client), kind::PUBACK, owed.packet_id);
            }
        }
    }

    /// When the next ping is due: each phone's once in an interval, evenly spread.
    fn ping_due_ns(&self) -> u64 {
        let interval_ns = u128::from(self.settings.day_ping_seconds) * 1_000_000_000;
        (u128::from(self.counts.pings) * interval_ns / self.phones.len() as u128) as u64
    }

    fn ping(&mut self, fleet: &mut Fleet) {
        while self.ping_due_ns() <= self.now_ns {
            let phone = (self.counts.pings % self.phones.len() as u64) as usize;
            self.counts.pings += 1;
            if fleet.is_open(phone) && self.phones[phone].state != State::Silent {
                fleet.ping(phone);
            }
        }
    }

    fn turn(&mut self, fleet: &mut Fleet, wait: Duration) -> Result<()> {
        fleet.flush_dirty()?;
        let mut stale = true;
        fleet.turn_opening(wait, &mut |links, phone, frame| {
            if std::mem::take(&mut stale) {
                self.read_clock();
            }
            self.on_frame(links, phone, frame).with_context(|| format!("phone {phone}"))
        })?;
        self.greet(fleet)
    }

    /// The next message: somebody who is awake writes.
    fn publish(&mut self, links: &mut Links, due_ns: u64) -> Result<()> {
        let mut draws = std::iter::repeat_with(|| self.choice.below(self.phones.len())).take(DRAWS_MAX);
        let sender = draws.find(|sender| {
            let phone = &self.phones[*sender];
            phone.is_ready && phone.state == State::Awake
        });
        let sender = sender.context("nobody is there to send anything")?;
        let destination = self.people.draw(&mut self.choice);
        self.counts.sent += 1;
        self.phones[sender].backlog.push_back((destination, due_ns));
        self.fill(links, sender);
        self.counts.without_window += u64::from(!self.phones[sender].backlog.is_empty());
        Ok(())
    }

    /// Sends what is due and has room in the sender's window.
    fn fill(&mut self, links: &mut Links, sender: usize) {
        while let Some((destination, due_ns)) = self.phones[sender].backlog.front().copied() {
            let Some(packet_id) = self.phones[sender].window.take(1, due_ns) else { return };
            self.phones[sender].backlog.pop_front();
            self.phones[sender].in_flight += 1;
            let sequence = self.books.send(&self.people, sender, destination);
            let bytes = people::payload_bytes(self.settings.day_payload_median, &mut self.choice);
            let stream = self.people.stream(sender, destination);
            ledger::stamp(&mut self.payload, stream, sequence, due_ns);
            let (topic, payload) = (self.topic(sender, destination).as_bytes(), &self.payload[..bytes]);
            let publish = Publish { qos: 1, topic, packet_id, payload };
            codec::encode_publish(links.outbound(sender), self.version, &publish);
        }
    }

    fn on_frame(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        match frame.kind() {
            kind::PUBLISH => self.on_message(index, frame),
            kind::PUBACK => {
                let answered = self.phones[index].window.acknowledge(frame, links.outbound(index))?;
                let Some(due_ns) = answered else { return Ok(()) };
                self.phones[index].in_flight -= 1;
                self.counts.acknowledged += 1;
                if due_ns >= self.measured_from_ns {
                    self.times.wait.record(due_ns, self.now_ns);
                }
                self.fill(links, index);
                Ok(())
            }
            kind::SUBACK => {
                let granted = codec::parse_suback(frame, self.version)?;
                ensure!(granted <= 1, "a subscription was refused with {granted:#04x}");
                self.granted += 1;
                Ok(())
            }
            other => bail!("got packet type {other}"),
        }
    }

    fn on_message(&mut self, index: usize, frame: &Frame<'_>) -> Result<()> {
        let publish = codec::parse_publish(frame, self.version)?;
        if publish.qos == 0 {
            return self.presence.arrived(self.people.contact(index, 0), &publish);
        }
        ensure!(publish.qos == 1, "a message of QoS {}", publish.qos);
        let (stream, sequence, due_ns) = ledger::read_stamp(publish.payload)?;
        let first = self.books.arrive(&self.people, index, stream, sequence)?;
        let of_stream = self.people.of_stream(stream);
        let own = of_stream.is_some_and(|(sender, to)| self.topic(sender, to).as_bytes() == publish.topic);
        ensure!(own, "message {sequence} of stream {stream} came on another topic");
        if first {
            self.counts.arrived += 1;
            self.record_arrival(index, due_ns);
        }
        let phone = &mut self.phones[index];
        let delay_ns =
            if self.draining { Some(0) } else { Mixture::Phones.delay_ns(phone.state, &mut self.delay) };
        // What waits for the end has a place in the order too.
        let at_ns = delay_ns.map_or(u64::MAX, |delay_ns| self.now_ns.saturating_add(delay_ns));
        let at_ns = if self.draining { 0 } else { at_ns.max(phone.last_due_ns) };
        phone.last_due_ns = at_ns;
        let connection = phone.connection;
        self.acknowledgements.owe(index, connection, publish.packet_id, self.now_ns, at_ns);
        Ok(())
    }

    /// A phone has got a message for the first time.
    fn record_arrival(&mut self, index: usize, due_ns: u64) {
        let phone = &mut self.phones[index];
        if self.draining || due_ns < self.measured_from_ns && phone.dialled_ns < self.measured_from_ns {
            return;
        }
        if due_ns >= phone.dialled_ns {
            if phone.state == State::Awake {
                self.times.delivery.record(due_ns, self.now_ns);
            }
        } else if phone.queue > 0 {
            phone.queue -= 1;
            if phone.queue == 0 {
                self.times.queue.record(phone.dialled_ns, self.now_ns);
            }
        }
    }
}
