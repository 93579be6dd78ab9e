//! The run of scenario `hold`: messages when they are due, acknowledgements when they are due, and who comes and goes.
//!
//! Decides the order of these within one loop; what is drawn comes from `recipients`. One thread: it wakes for the next
//! thing that is due, with the precision of the kernel's timer, not in milliseconds.
//!
//! Invariants: client `i` below `subscribers` is subscriber `i`; then come the publishers; the last one observes `$SYS`.
//! Subscriber `i` is served by publisher `i` modulo their number, so one topic's order is one publisher's order. A
//! subscriber's acknowledgements are due in the order in which its messages came.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;

use super::{HoldSettings, STEP_MAX};
use crate::client::codec::{self, Frame, Publish, Version, kind};
use crate::client::fleet::{Fleet, Links, Session, nothing_expected};
use crate::client::publisher::Window;
use crate::load::acknowledgements::Acknowledgements;
use crate::load::ledger::{self, Ledger};
use crate::load::random::Random;
use crate::load::recipients::{Mixture, State};
use crate::measure::clock;
use crate::measure::system::{self, Counters, System};

/// Handshakes of returning subscribers at once.
const RETURNING_MAX: usize = 64;

/// Waits up to a minute, in nanoseconds, to three digits.
const WAIT_NS_MAX: u64 = 60_000_000_000;

/// How long a broker has to show that it publishes counters at all.
const SYSTEM_MAX: Duration = Duration::from_secs(3);

struct Subscriber {
    topic: String,
    ledger: Ledger,
    state: State,
    /// When its latest acknowledgement so far is due.
    last_due_ns: u64,
    /// Which connection it is on: what was to be acknowledged on an earlier one is void.
    connection: u32,
}

struct Publisher {
    window: Window,
    /// What was due while the window was full: the subscriber, and when.
    backlog: VecDeque<(usize, u64)>,
}

pub(super) struct Load {
    mixture: Mixture,
    version: Version,
    nonce: String,
    rate: u64,
    window: u16,
    subscribers: Vec<Subscriber>,
    publishers: Vec<Publisher>,
    publisher_count: usize,
    system: System,
    /// Of recipients: the same whatever the broker does, so that every hold is measured with the same messages.
    choice: Random,
    /// Of delays, in the order of arrival.
    delay: Random,
    acknowledgements: Acknowledgements,
    /// When which subscriber returns.
    returns: BinaryHeap<Reverse<(u64, usize)>>,
    payload: Vec<u8>,
    start: Instant,
    now_ns: u64,
    /// Waits of messages due in this time are recorded.
    measured_ns: (u64, u64),
    /// Nobody takes time to acknowledge any more.
    draining: bool,
    pub(super) sent: u64,
    acknowledged: u64,
    pub(super) returned: u64,
    pub(super) without_window: u64,
    /// From when a message was due to its PUBACK.
    pub(super) wait_ns: Histogram<u64>,
    /// From when a message was due to its being handed to the kernel's door, one reading of the clock per batch.
    pub(super) late_ns: Histogram<u64>,
    /// What recipients took, as it came out.
    pub(super) delay_ns: Histogram<u64>,
}

impl Load {
    pub(super) fn new(settings: &HoldSettings, nonce: &str) -> Result<Load> {
        let mixture = settings.recipients;
        let mut choice = Random::new(settings.seed);
        let subscriber = |index: usize| Subscriber {
            topic: format!("h/{nonce}/{index}"),
            ledger: Ledger::default(),
            state: mixture.state(&mut choice),
            last_due_ns: 0,
            connection: 0,
        };
        let subscribers: Vec<Subscriber> = (0..settings.subscribers()).map(subscriber).collect();
        let histogram = || Histogram::new_with_max(WAIT_NS_MAX, 3).context("a histogram");
        let second_ns = |seconds: f64| (seconds * 1e9) as u64;
        let measured_from_ns = second_ns(settings.warm_up_seconds);
        Ok(Load {
            mixture,
            version: settings.version(),
            nonce: nonce.to_owned(),
            rate: settings.rate(),
            window: settings.window,
            subscribers,
            publishers: Vec::new(),
            publisher_count: settings.publishers(),
            system: System::default(),
            choice,
            delay: Random::new(!settings.seed),
            acknowledgements: Acknowledgements::default(),
            returns: BinaryHeap::new(),
            payload: vec![0x5a; settings.payload as usize],
            start: clock::now(),
            now_ns: 0,
            measured_ns: (measured_from_ns, measured_from_ns + second_ns(settings.seconds())),
            draining: false,
            sent: 0,
            acknowledged: 0,
            returned: 0,
            without_window: 0,
            wait_ns: histogram()?,
            late_ns: histogram()?,
            delay_ns: histogram()?,
        })
    }

    pub(super) fn subscribers(&self) -> usize {
        self.subscribers.len()
    }

    pub(super) fn ledgers(&self) -> impl Iterator<Item = &Ledger> {
        self.subscribers.iter().map(|subscriber| &subscriber.ledger)
    }

    fn observer(&self) -> usize {
        self.subscribers.len() + self.publisher_count
    }

    /// Who client `index` is when it connects for the first time.
    pub(super) fn session(&self, index: usize) -> Session {
        let client_id = format!("hold-{}-{index}", self.nonce);
        let subscription = match self.subscribers.get(index) {
            Some(subscriber) => Some((subscriber.topic.clone(), 1)),
            None => (index == self.observer()).then(|| (system::FILTER.to_owned(), 0)),
        };
        Session { client_id, clean: index >= self.subscribers.len(), subscription }
    }

    /// Everybody subscribes; then those leave who are away.
    pub(super) fn open(&mut self, fleet: &mut Fleet) -> Result<()> {
        let (deadline, observer) = (clock::now() + STEP_MAX, self.observer());
        let (mut system, version) = (System::default(), self.version);
        let session = |index| self.session(index);
        fleet.open(observer + 1, deadline, &session, &mut |links, index, frame| {
            if index == observer {
                system.on_frame(version, frame)
            } else {
                nothing_expected(links, index, frame)
            }
        })?;
        self.system = system;
        for index in self.subscribers.len()..observer {
            let granted = fleet.links.client(index).map_or(u16::MAX, |publisher| publisher.receive_maximum);
            let window = Window::new(self.window.min(granted));
            self.publishers.push(Publisher { window, backlog: VecDeque::new() });
        }
        for index in 0..self.subscribers.len() {
            if self.subscribers[index].state == State::Away {
                self.leave(fleet, index);
            }
        }
        while (0..self.subscribers.len())
            .any(|index| self.subscribers[index].state == State::Away && !fleet.is_closed(index))
        {
            ensure!(clock::now() < deadline, "not everybody who was to be away was let go");
            self.turn(fleet, Duration::from_millis(10))?;
        }
        Ok(())
    }

    fn leave(&mut self, fleet: &mut Fleet, index: usize) {
        let subscriber = &mut self.subscribers[index];
        subscriber.state = State::Away;
        subscriber.connection += 1;
        let returns_ns = self.now_ns + Mixture::absence_ns(&mut self.delay);
        self.returns.push(Reverse((returns_ns, index)));
        fleet.leave_one(index);
    }

    /// The broker's counters, once they tell of everything that has happened; `None` if it has none.
    pub(super) fn read_counters(&mut self, fleet: &mut Fleet) -> Result<Option<Counters>> {
        let begin = clock::now();
        let later = self.system.later();
        while !self.system.has_reached(later) {
            let waited = clock::now() - begin;
            if waited > SYSTEM_MAX && self.system.counters().is_none() {
                return Ok(None);
            }
            ensure!(waited < STEP_MAX, "the broker has stopped to publish {}", system::FILTER);
            self.act(fleet)?;
            self.turn(fleet, Duration::from_millis(10))?;
        }
        Ok(self.system.counters())
    }

    /// Time begins.
    pub(super) fn start(&mut self) {
        self.start = clock::now();
        self.now_ns = 0;
    }

    /// Publishes what is due, until so many seconds after the start.
    pub(super) fn run_for(&mut self, fleet: &mut Fleet, seconds: f64) -> Result<()> {
        let end_ns = (seconds * 1e9) as u64;
        loop {
            self.read_clock();
            while self.due_ns(self.sent) <= self.now_ns.min(end_ns - 1) {
                let subscriber = self.choice.below(self.subscribers.len());
                self.publish(&mut fleet.links, subscriber);
            }
            self.act(fleet)?;
            if self.now_ns >= end_ns {
                return Ok(());
            }
            let next_ns = self.next_ns().min(self.due_ns(self.sent)).min(end_ns);
            self.turn(fleet, Duration::from_nanos(next_ns.saturating_sub(self.now_ns)))?;
        }
    }

    /// Nothing new is published; until every sender has been answered.
    pub(super) fn await_senders(&mut self, fleet: &mut Fleet) -> Result<()> {
        let deadline = clock::now() + STEP_MAX;
        while self.acknowledged < self.sent {
            let missing = self.sent - self.acknowledged;
            ensure!(clock::now() < deadline, "{missing} messages were not acknowledged to their senders");
            self.act(fleet)?;
            let next_ns = self.next_ns().min(self.now_ns + 10_000_000);
            self.turn(fleet, Duration::from_nanos(next_ns.saturating_sub(self.now_ns)))?;
        }
        Ok(())
    }

    /// Everybody returns and acknowledges at once, until each message has arrived. What is missing at the end is
    /// counted by the books.
    pub(super) fn drain(&mut self, fleet: &mut Fleet) -> Result<()> {
        self.draining = true;
        let deadline = clock::now() + STEP_MAX;
        for subscriber in &mut self.subscribers {
            if matches!(subscriber.state, State::Slow | State::Silent) {
                subscriber.state = State::Awake;
            }
        }
        self.acknowledgements.hasten();
        let returns = std::mem::take(&mut self.returns).into_iter();
        let mut returns: VecDeque<usize> = returns.map(|at| at.0.1).collect();
        while clock::now() < deadline {
            self.act(fleet)?;
            for _ in 0..returns.len() {
                let Some(index) = returns.pop_front() else { break };
                if fleet.opening() < RETURNING_MAX && fleet.is_closed(index) {
                    self.come_back(fleet, index)?;
                } else {
                    // The broker has not closed yet what it left a moment ago, or it is not its turn.
                    returns.push_back(index);
                }
            }
            if returns.is_empty() && fleet.opening() == 0 && self.ledgers().all(|one| one.outstanding() == 0)
            {
                break;
            }
            self.turn(fleet, Duration::from_millis(10))?;
        }
        Ok(())
    }

    fn read_clock(&mut self) {
        self.now_ns = (clock::now() - self.start).as_nanos() as u64;
    }

    /// When message `number` is due.
    fn due_ns(&self, number: u64) -> u64 {
        (u128::from(number) * 1_000_000_000 / u128::from(self.rate)) as u64
    }

    /// When the next acknowledgement or return is due.
    fn next_ns(&self) -> u64 {
        self.acknowledgements.next_ns().min(self.returns.peek().map_or(u64::MAX, |due| due.0.0))
    }

    /// The acknowledgements and returns that are due.
    fn act(&mut self, fleet: &mut Fleet) -> Result<()> {
        self.read_clock();
        while let Some(due) = self.acknowledgements.take(self.now_ns) {
            let current = self.subscribers[due.client].connection == due.connection;
            if current && fleet.is_open(due.client) {
                codec::encode_ack(fleet.links.outbound(due.client), kind::PUBACK, due.packet_id);
                if !self.draining {
                    self.delay_ns.saturating_record(self.now_ns - due.arrived_ns);
                }
            }
        }
        while let Some(Reverse((at_ns, index))) = self.returns.peek().copied()
            && at_ns <= self.now_ns
            && fleet.opening() < RETURNING_MAX
        {
            self.returns.pop();
            if !fleet.is_closed(index) {
                // It has left a moment ago, and the broker has not closed yet.
                self.returns.push(Reverse((self.now_ns + 20_000_000, index)));
                continue;
            }
            self.come_back(fleet, index)?;
            self.returned += 1;
            self.one_leaves(fleet);
        }
        Ok(())
    }

    fn come_back(&mut self, fleet: &mut Fleet, index: usize) -> Result<()> {
        let session = Session { subscription: None, ..self.session(index) };
        self.subscribers[index].state = State::Awake;
        fleet.reopen(index, session)
    }

    /// Somebody who is awake, so that as many are away as before.
    fn one_leaves(&mut self, fleet: &mut Fleet) {
        for _ in 0..100 {
            let index = self.delay.below(self.subscribers.len());
            if self.subscribers[index].state == State::Awake && fleet.is_open(index) {
                self.leave(fleet, index);
                return;
            }
        }
    }

    fn turn(&mut self, fleet: &mut Fleet, wait: Duration) -> Result<()> {
        fleet.flush_dirty()?;
        let mut stale = true;
        fleet.turn_opening(wait, &mut |links, index, frame| {
            if std::mem::take(&mut stale) {
                self.read_clock();
            }
            self.on_frame(links, index, frame)
        })
    }

    /// The next message, for that subscriber.
    fn publish(&mut self, links: &mut Links, subscriber: usize) {
        let due_ns = self.due_ns(self.sent);
        self.sent += 1;
        let publisher = subscriber % self.publisher_count;
        self.publishers[publisher].backlog.push_back((subscriber, due_ns));
        self.fill(links, publisher);
        self.without_window += u64::from(!self.publishers[publisher].backlog.is_empty());
    }

    /// Sends what is due and has room in the publisher's window.
    fn fill(&mut self, links: &mut Links, publisher: usize) {
        let client = self.subscribers.len() + publisher;
        let Publisher { window, backlog } = &mut self.publishers[publisher];
        while let Some((subscriber, due_ns)) = backlog.front().copied() {
            let Some(packet_id) = window.take(1, due_ns) else { return };
            backlog.pop_front();
            let Subscriber { topic, ledger, .. } = &mut self.subscribers[subscriber];
            ledger::stamp(&mut self.payload, subscriber as u32, ledger.sent, due_ns);
            ledger.sent += 1;
            let publish = Publish { qos: 1, topic: topic.as_bytes(), packet_id, payload: &self.payload };
            codec::encode_publish(links.outbound(client), self.version, &publish);
            if (self.measured_ns.0..self.measured_ns.1).contains(&due_ns) {
                self.late_ns.saturating_record(self.now_ns.saturating_sub(due_ns));
            }
        }
    }

    fn on_frame(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        if index < self.subscribers.len() {
            return self.on_message(index, frame).with_context(|| format!("subscriber {index}"));
        }
        if index == self.observer() {
            return self.system.on_frame(self.version, frame);
        }
        let publisher = index - self.subscribers.len();
        let answered = self.publishers[publisher].window.acknowledge(frame, links.outbound(index));
        let Some(due_ns) = answered.with_context(|| format!("publisher {publisher}"))? else { return Ok(()) };
        self.acknowledged += 1;
        if (self.measured_ns.0..self.measured_ns.1).contains(&due_ns) {
            self.wait_ns.saturating_record(self.now_ns.saturating_sub(due_ns));
        }
        self.fill(links, publisher);
        Ok(())
    }

    fn on_message(&mut self, index: usize, frame: &Frame<'_>) -> Result<()> {
        ensure!(frame.kind() == kind::PUBLISH, "got packet type {}", frame.kind());
        let publish = codec::parse_publish(frame, self.version)?;
        let (stream, sequence, _) = ledger::read_stamp(publish.payload)?;
        let subscriber = &mut self.subscribers[index];
        let own = stream as usize == index && publish.topic == subscriber.topic.as_bytes();
        ensure!(own && publish.qos == 1, "got message {sequence} of subscriber {stream}");
        subscriber.ledger.arrived(sequence)?;
        let delay_ns =
            if self.draining { Some(0) } else { self.mixture.delay_ns(subscriber.state, &mut self.delay) };
        // What waits for the end has a place in the order too.
        let at_ns = delay_ns.map_or(u64::MAX, |delay_ns| self.now_ns.saturating_add(delay_ns));
        let at_ns = if self.draining { 0 } else { at_ns.max(subscriber.last_due_ns) };
        subscriber.last_due_ns = at_ns;
        let (connection, now_ns) = (subscriber.connection, self.now_ns);
        self.acknowledgements.owe(index, connection, publish.packet_id, now_ns, at_ns);
        Ok(())
    }
}
