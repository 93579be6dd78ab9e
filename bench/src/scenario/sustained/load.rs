//! The run of scenario `sustained`: messages when they are due, and sessions that come and go on a random schedule.
//!
//! Decides the order of these within one loop, on one thread, which wakes for the next thing that is due. What is wrong
//! with an arrival is the business of `books`, what a wait is that of `waits`.
//!
//! Invariants: client `i` below `sessions` is session `i`; then come the publishers; the last one observes `$SYS`.
//! Session `i` is served by publisher `i` modulo their number, so one topic's order is one publisher's order. A message
//! that arrives is acknowledged in the same turn, before the session may leave.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::SustainedSettings;
use super::books::{Books, Kind};
use super::stand::Stand;
use super::waits::{Waits, Way};
use crate::client::codec::{self, Frame, Publish, Version, kind};
use crate::client::fleet::{Fleet, Links, Session, nothing_expected};
use crate::client::publisher::Window;
use crate::load::ledger;
use crate::load::random::Random;
use crate::measure::clock;
use crate::measure::system::{self, System};

/// Handshakes of returning sessions at once.
const RETURNING_MAX: usize = 64;

/// Connecting everybody, and the drain at the end, take no longer than this.
const STEP_MAX: Duration = Duration::from_secs(180);

/// Reason codes of PUBACK `[MQTT-3.4.2-1]`.
const SUCCESS: u8 = 0;
const QUOTA_EXCEEDED: u8 = 0x97;

struct Recipient {
    topic: String,
    books: Books,
    is_away: bool,
    /// Its connection is not its first: the session must be the one that was kept.
    has_returned: bool,
}

/// A message on its way to the broker and back.
#[derive(Clone, Copy, Default)]
struct Flight {
    recipient: usize,
    sequence: u64,
    due_ns: u64,
    sent_ns: u64,
}

struct Publisher {
    window: Window,
    /// By packet identifier minus one.
    flights: Vec<Flight>,
    /// What was due while the window was full: the recipient, and when.
    backlog: VecDeque<(usize, u64)>,
}

pub(super) struct Load {
    nonce: String,
    rate: u64,
    window: u16,
    publisher_count: usize,
    expiry_ns: u64,
    /// Means of a session's presence and absence, in seconds.
    presence_s: f64,
    absence_s: f64,
    recipients: Vec<Recipient>,
    publishers: Vec<Publisher>,
    pub(super) system: System,
    pub(super) waits: Waits,
    /// Who a message is for.
    choice: Random,
    /// When sessions come and go.
    schedule: Random,
    /// When which session comes or goes next.
    moves: BinaryHeap<Reverse<(u64, usize)>>,
    payload: Vec<u8>,
    start: Instant,
    now_ns: u64,
    /// When this loop did not run.
    pub(super) stand: Stand,
    pub(super) sent: u64,
    answered: u64,
    pub(super) returned: u64,
    pub(super) without_window: u64,
}

impl Load {
    pub(super) fn new(settings: &SustainedSettings, nonce: &str, start: Instant) -> Result<Load> {
        let recipient = |index: usize| Recipient {
            // Two levels, so that topics spread over shards.
            topic: format!("s{nonce}/{index}"),
            books: Books::new(settings.kind(index)),
            is_away: false,
            has_returned: false,
        };
        Ok(Load {
            nonce: nonce.to_owned(),
            rate: settings.rate.into(),
            window: settings.window,
            publisher_count: settings.publishers as usize,
            expiry_ns: u64::from(settings.expiry_s()) * 1_000_000_000,
            presence_s: settings.absence_seconds * (1.0 - settings.away_share) / settings.away_share,
            absence_s: settings.absence_seconds,
            recipients: (0..settings.sessions as usize).map(recipient).collect(),
            publishers: Vec::new(),
            system: System::default(),
            waits: Waits::new(settings.settled_from_ns(), settings.wait_max_ns())?,
            choice: Random::new(settings.seed),
            schedule: Random::new(!settings.seed),
            moves: BinaryHeap::new(),
            payload: vec![0x5a; settings.payload as usize],
            start,
            now_ns: 0,
            stand: Stand::default(),
            sent: 0,
            answered: 0,
            returned: 0,
            without_window: 0,
        })
    }

    pub(super) fn books(&self) -> impl Iterator<Item = &Books> {
        self.recipients.iter().map(|recipient| &recipient.books)
    }

    /// Messages that the broker has to keep now, and bytes of their payloads and topics.
    pub(super) fn live(&self) -> (u64, u64) {
        self.recipients.iter().fold((0, 0), |(messages, bytes), recipient| {
            let live = recipient.books.live(self.now_ns, self.expiry_ns);
            (messages + live, bytes + live * (self.payload.len() + recipient.topic.len()) as u64)
        })
    }

    pub(super) fn away(&self) -> usize {
        self.recipients.iter().filter(|recipient| recipient.is_away).count()
    }

    fn observer(&self) -> usize {
        self.recipients.len() + self.publisher_count
    }

    fn session(&self, index: usize) -> Session {
        let client_id = format!("sustained-{}-{index}", self.nonce);
        let subscription = match self.recipients.get(index) {
            Some(recipient) => Some((recipient.topic.clone(), 1)),
            None => (index == self.observer()).then(|| (system::FILTER.to_owned(), 0)),
        };
        Session { client_id, clean: index >= self.recipients.len(), subscription }
    }

    /// Everybody subscribes; then those leave who never return, and as many others as are away at a time.
    pub(super) fn open(&mut self, fleet: &mut Fleet, away_share: f64) -> Result<()> {
        let (deadline, observer) = (clock::now() + STEP_MAX, self.observer());
        let mut system = System::default();
        let session = |index| self.session(index);
        fleet.open(observer + 1, deadline, &session, &mut |links, index, frame| {
            if index == observer {
                system.on_frame(Version::V5, frame)
            } else {
                nothing_expected(links, index, frame)
            }
        })?;
        self.system = system;
        for index in self.recipients.len()..observer {
            let granted = fleet.links.client(index).map_or(u16::MAX, |publisher| publisher.receive_maximum);
            let width = self.window.min(granted);
            let flights = vec![Flight::default(); usize::from(width)];
            self.publishers.push(Publisher { window: Window::new(width), flights, backlog: VecDeque::new() });
        }
        self.now_ns = 0;
        for index in 0..self.recipients.len() {
            if self.recipients[index].books.kind != Kind::Returning {
                self.recipients[index].is_away = true;
                fleet.leave_one(index);
            } else if self.schedule.unit() <= away_share {
                self.leave(fleet, index);
            } else {
                self.stay(index);
            }
        }
        // Before anything is published: what was on its way to a session when it left has begun its delivery, and would
        // neither expire nor be refused.
        while (0..self.recipients.len())
            .any(|index| self.recipients[index].is_away && !fleet.is_closed(index))
        {
            ensure!(clock::now() < deadline, "not everybody who was to be away was let go");
            self.turn(fleet, Duration::from_millis(10))?;
        }
        Ok(())
    }

    fn leave(&mut self, fleet: &mut Fleet, index: usize) {
        self.recipients[index].is_away = true;
        // Evenly up to twice the mean: so a queue has a bound that is known, and soon reached.
        let absence_s = 2.0 * self.absence_s * self.schedule.unit();
        self.moves.push(Reverse((self.now_ns + (absence_s * 1e9) as u64, index)));
        fleet.leave_one(index);
    }

    /// Until it leaves.
    fn stay(&mut self, index: usize) {
        let presence_s = self.schedule.exponential(self.presence_s);
        self.moves.push(Reverse((self.now_ns + (presence_s * 1e9) as u64, index)));
    }

    /// Time begins: nothing is due before now.
    pub(super) fn start(&mut self, start: Instant) {
        // Moves were set from 0 on.
        self.start = start;
        self.now_ns = 0;
    }

    /// Publishes what is due, until then.
    pub(super) fn run_until(&mut self, fleet: &mut Fleet, end_ns: u64) -> Result<()> {
        loop {
            self.read_clock();
            // It is never to rest longer than until the next message is due, which is no time worth counting.
            self.stand.is_here(self.now_ns);
            while self.due_ns(self.sent) <= self.now_ns.min(end_ns - 1) {
                let recipient = self.choice.below(self.recipients.len());
                self.publish(&mut fleet.links, recipient);
            }
            self.move_sessions(fleet)?;
            if self.now_ns >= end_ns {
                return Ok(());
            }
            let next_ns = self.next_move_ns().min(self.due_ns(self.sent)).min(end_ns);
            self.turn(fleet, Duration::from_nanos(next_ns.saturating_sub(self.now_ns)))?;
        }
    }

    /// Nothing new is published; until every publisher has been answered.
    pub(super) fn await_publishers(&mut self, fleet: &mut Fleet) -> Result<()> {
        let deadline = clock::now() + STEP_MAX;
        while self.answered < self.sent {
            let missing = self.sent - self.answered;
            ensure!(clock::now() < deadline, "{missing} messages were not acknowledged to their publishers");
            self.turn(fleet, Duration::from_millis(10))?;
        }
        Ok(())
    }

    /// Everybody returns, those too who were never to, until there is nothing more to come. What is missing then is judged
    /// by the books.
    pub(super) fn drain(&mut self, fleet: &mut Fleet) -> Result<()> {
        let deadline = clock::now() + STEP_MAX;
        self.moves.clear();
        let mut to_return: VecDeque<usize> =
            (0..self.recipients.len()).filter(|index| self.recipients[*index].is_away).collect();
        while clock::now() < deadline {
            for _ in 0..to_return.len() {
                let Some(index) = to_return.pop_front() else { break };
                if fleet.opening() < RETURNING_MAX && fleet.is_closed(index) {
                    self.come_back(fleet, index)?;
                } else {
                    to_return.push_back(index);
                }
            }
            if to_return.is_empty() && fleet.opening() == 0 && self.books().all(Books::is_complete) {
                break;
            }
            self.turn(fleet, Duration::from_millis(10))?;
        }
        for index in 0..self.recipients.len() {
            self.expect_kept(fleet, index)?;
        }
        self.read_clock();
        for recipient in &mut self.recipients {
            recipient.books.close(self.now_ns, self.expiry_ns);
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

    fn next_move_ns(&self) -> u64 {
        self.moves.peek().map_or(u64::MAX, |next| next.0.0)
    }

    /// Sessions come and go whose time it is.
    fn move_sessions(&mut self, fleet: &mut Fleet) -> Result<()> {
        while let Some(Reverse((at_ns, index))) = self.moves.peek().copied()
            && at_ns <= self.now_ns
        {
            self.moves.pop();
            if self.recipients[index].is_away {
                if fleet.is_closed(index) && fleet.opening() < RETURNING_MAX {
                    self.come_back(fleet, index)?;
                    self.returned += 1;
                    self.stay(index);
                    continue;
                }
            } else if fleet.is_open(index) {
                self.expect_kept(fleet, index)?;
                self.leave(fleet, index);
                continue;
            }
            // The broker has not closed what was left a moment ago, or the handshake is still under way.
            self.moves.push(Reverse((self.now_ns + 20_000_000, index)));
        }
        Ok(())
    }

    fn come_back(&mut self, fleet: &mut Fleet, index: usize) -> Result<()> {
        // A session that was kept is not subscribed again: its subscription must have been kept with it.
        let session = Session { subscription: None, ..self.session(index) };
        self.recipients[index].is_away = false;
        self.recipients[index].has_returned = true;
        fleet.reopen(index, session)
    }

    /// A session that has returned must have been the old one.
    fn expect_kept(&self, fleet: &Fleet, index: usize) -> Result<()> {
        let kept = fleet.links.client(index).is_some_and(|client| client.session_present);
        ensure!(kept || !self.recipients[index].has_returned, "session {index} was not kept");
        Ok(())
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

    /// The next message, for that recipient.
    fn publish(&mut self, links: &mut Links, recipient: usize) {
        let due_ns = self.due_ns(self.sent);
        self.sent += 1;
        let publisher = recipient % self.publisher_count;
        self.publishers[publisher].backlog.push_back((recipient, due_ns));
        self.fill(links, publisher);
        self.without_window += u64::from(!self.publishers[publisher].backlog.is_empty());
    }

    /// Sends what is due and has room in the publisher's window.
    fn fill(&mut self, links: &mut Links, publisher: usize) {
        let client = self.recipients.len() + publisher;
        let Publisher { window, flights, backlog } = &mut self.publishers[publisher];
        while let Some((recipient, due_ns)) = backlog.front().copied() {
            let Some(packet_id) = window.take(1, due_ns) else { return };
            backlog.pop_front();
            let Recipient { topic, books, .. } = &mut self.recipients[recipient];
            let sequence = books.send(self.now_ns, self.expiry_ns);
            flights[usize::from(packet_id) - 1] =
                Flight { recipient, sequence, due_ns, sent_ns: self.now_ns };
            ledger::stamp(&mut self.payload, recipient as u32, sequence, self.now_ns);
            let publish = Publish { qos: 1, topic: topic.as_bytes(), packet_id, payload: &self.payload };
            let out = links.outbound(client);
            match books.kind {
                Kind::Expiring => {
                    codec::encode_publish_expiring(out, &publish, (self.expiry_ns / 1_000_000_000) as u32);
                }
                Kind::Returning | Kind::Full => codec::encode_publish(out, Version::V5, &publish),
            }
        }
    }

    fn on_frame(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        if index < self.recipients.len() {
            return self.on_message(links, index, frame).with_context(|| format!("session {index}"));
        }
        if index == self.observer() {
            return self.system.on_frame(Version::V5, frame);
        }
        let publisher = index - self.recipients.len();
        self.on_answer(publisher, frame).with_context(|| format!("publisher {publisher}"))?;
        self.fill(links, publisher);
        Ok(())
    }

    fn on_answer(&mut self, publisher: usize, frame: &Frame<'_>) -> Result<()> {
        let Publisher { window, flights, .. } = &mut self.publishers[publisher];
        let (packet_id, reason) = window.answered(frame)?;
        let Flight { recipient, sequence, due_ns, sent_ns } = flights[usize::from(packet_id) - 1];
        let books = &mut self.recipients[recipient].books;
        match reason {
            SUCCESS => books.accept(),
            QUOTA_EXCEEDED => books.refuse(sequence),
            other => anyhow::bail!("message {sequence} for session {recipient} got reason {other:#04x}"),
        }
        self.answered += 1;
        self.waits.record(Way { due_ns, sent_ns, answered_ns: self.now_ns });
        Ok(())
    }

    fn on_message(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        ensure!(frame.kind() == kind::PUBLISH, "got packet type {}", frame.kind());
        let publish = codec::parse_publish(frame, Version::V5)?;
        let (stream, sequence, sent_ns) = ledger::read_stamp(publish.payload)?;
        let recipient = &mut self.recipients[index];
        let own = stream as usize == index && publish.topic == recipient.topic.as_bytes();
        ensure!(own && publish.qos == 1, "got message {sequence} of session {stream}");
        codec::encode_ack(links.outbound(index), kind::PUBACK, publish.packet_id);
        recipient.books.arrive(sequence, sent_ns, self.now_ns, self.expiry_ns)
    }
}
