//! Pairs of one publisher and one subscriber in an open loop: the well-behaved ones whose latency others may harm.
//!
//! Message `n` is due at `n / rate` and belongs to pair `n` modulo their number, as its message `n` divided by it. Waits
//! count from when a message was due, and are kept by the span of the run in which it was due: `slow_consumer` and
//! `noisy_neighbour` cut a run into spans and compare them. Does not decide what is done to the broker meanwhile.
//!
//! A pair may be given up: its subscriber stops reading, its publisher may be refused or ended. Its waits do not count
//! from then on, and its books ([`Pair::lost`]) demand what was acknowledged without a refusal, in order, and nothing else.
//!
//! Invariants: client `2i` publishes and client `2i + 1` subscribes for pair `i`; what a pair was due and has sent are
//! prefixes of the same numbers, so what waits for its window is the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::client::codec::{self, Frame, Publish, Version, kind};
use crate::client::fleet::{Fleet, Links, Session, nothing_expected};
use crate::client::publisher::Window;
use crate::load::ledger::{self, Ledger, Totals};
use crate::load::pace::Pace;
use crate::measure::clock;
use crate::measure::latency::Latency;

/// Everybody is connected and subscribed within this.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// What is still on its way at the end arrives within this.
const FINISH_MAX: Duration = Duration::from_secs(30);

/// A turn waits no longer than this for something to happen.
const TURN_MAX: Duration = Duration::from_millis(10);

/// What the load looks like.
#[derive(Clone, Debug)]
pub struct PairsLoad {
    /// Of topics and client identifiers.
    pub prefix: String,
    pub pairs: usize,
    /// Messages per second, all pairs together.
    pub rate: u64,
    /// 0 or 1.
    pub qos: u8,
    /// Messages of one publisher in flight; what is due beyond waits, and its wait counts.
    pub window: u16,
    pub payload: usize,
    pub version: Version,
    /// Subscribers with sessions that outlive their connections.
    pub durable: bool,
}

/// One publisher, its subscriber, and their books.
pub struct Pair {
    topic: String,
    window: Window,
    /// By packet identifier minus one: the number of the message in flight that has it.
    numbers: Vec<Option<u64>>,
    due: u64,
    pub ledger: Ledger,
    pub unanswered: u64,
    /// Its waits count.
    pub watched: bool,
    /// Its subscriber has stopped reading: refusals are allowed, and so is the end of either connection.
    pub given_up: bool,
    /// Its publisher has nothing more to send.
    pub nothing_new: bool,
    pub books: GivenUp,
}

/// What has to be known of a pair that is given up, message by message.
#[derive(Debug, Default)]
pub struct GivenUp {
    /// Sent and not answered: after its publisher was ended nobody knows what became of these.
    pub in_flight: BTreeSet<u64>,
    /// Refused messages and the reason codes.
    pub refused: BTreeMap<u64, u8>,
    /// Passed over when a later one arrived.
    pub missing: BTreeSet<u64>,
    /// One past the last message that was accepted.
    pub accepted_end: u64,
}

/// A part of the run. What was due in it is counted in it, whenever it arrives.
pub struct Span {
    pub from_ns: u64,
    /// From when a message was due to its arrival.
    pub delivery: Latency,
    /// From when a message was due to its PUBACK.
    pub acknowledgement: Latency,
    /// How far the generator itself was behind when it took up a message.
    pub late: Latency,
    /// Messages that found their publisher's window full.
    pub without_window: u64,
}

impl Span {
    fn new(from_ns: u64) -> Result<Span> {
        let (delivery, acknowledgement, late) = (Latency::new()?, Latency::new()?, Latency::new()?);
        Ok(Span { from_ns, delivery, acknowledgement, late, without_window: 0 })
    }

    /// Several parts as one.
    pub fn merged<'a>(spans: impl IntoIterator<Item = &'a Span>) -> Result<Span> {
        let mut all = Span::new(0)?;
        for span in spans {
            all.delivery.merge(&span.delivery);
            all.acknowledgement.merge(&span.acknowledgement);
            all.late.merge(&span.late);
            all.without_window += span.without_window;
        }
        Ok(all)
    }
}

/// The pairs while they run.
pub struct Pairs {
    pub load: PairsLoad,
    pub pairs: Vec<Pair>,
    /// In order of time; never empty.
    pub spans: Vec<Span>,
    pace: Pace,
    now_ns: u64,
    payload: Vec<u8>,
}

impl Pairs {
    /// Connects everybody; time begins.
    pub fn open(load: PairsLoad, fleet: &mut Fleet) -> Result<Pairs> {
        ensure!(load.qos <= 1, "pairs exchange messages of QoS 0 or 1");
        let deadline = clock::now() + OPEN_MAX;
        let session = |index| load.session(index);
        fleet.open(2 * load.pairs, deadline, &session, &mut nothing_expected)?;
        let pair = |index: usize| {
            let granted = fleet.links.client(2 * index).map_or(u16::MAX, |client| client.receive_maximum);
            let width = load.window.min(granted);
            Pair {
                topic: load.topic(index),
                window: Window::new(width),
                numbers: vec![None; usize::from(width)],
                due: 0,
                ledger: Ledger::default(),
                unanswered: 0,
                watched: true,
                given_up: false,
                nothing_new: false,
                books: GivenUp::default(),
            }
        };
        Ok(Pairs {
            pairs: (0..load.pairs).map(pair).collect(),
            spans: vec![Span::new(0)?],
            pace: Pace::new(load.rate),
            now_ns: 0,
            payload: vec![0x5a; load.payload],
            load,
        })
    }

    /// Nanoseconds since time began.
    pub fn now_ns(&self) -> u64 {
        self.pace.now_ns()
    }

    /// What is due from now on belongs to a new part of the run; its number.
    pub fn begin_span(&mut self) -> Result<usize> {
        self.spans.push(Span::new(self.pace.now_ns())?);
        Ok(self.spans.len() - 1)
    }

    /// Sends what is due, and handles what has arrived or arrives soon.
    pub fn turn(&mut self, fleet: &mut Fleet) -> Result<()> {
        self.now_ns = self.pace.now_ns();
        while let Some((number, due_ns)) = self.pace.take(self.now_ns) {
            let index = (number % self.pairs.len() as u64) as usize;
            let pair = &self.pairs[index];
            if pair.nothing_new || (pair.given_up && fleet.is_closed(2 * index)) {
                continue;
            }
            let now_ns = self.now_ns;
            self.pairs[index].due = number / self.pairs.len() as u64 + 1;
            self.fill(&mut fleet.links, index)?;
            let pair = &self.pairs[index];
            let waits = pair.due > pair.ledger.sent && !pair.given_up;
            let span = span_at(&mut self.spans, due_ns);
            span.late.record(due_ns, now_ns);
            span.without_window += u64::from(waits);
        }
        fleet.flush_dirty()?;
        let wait = self.pace.wait(TURN_MAX);
        self.take_frames(fleet, wait)
    }

    /// Handles what has arrived or arrives within `wait`, and sends only what was due before.
    pub fn take_frames(&mut self, fleet: &mut Fleet, wait: Duration) -> Result<()> {
        let mut stale = true;
        fleet.turn_opening(wait, &mut |links, index, frame| {
            if std::mem::take(&mut stale) {
                self.now_ns = self.pace.now_ns();
            }
            self.on_frame(links, index, frame)
        })
    }

    /// Nothing new becomes due; until everything has arrived and is answered, or the time for that is over.
    pub fn finish(&mut self, fleet: &mut Fleet) -> Result<()> {
        let deadline = clock::now() + FINISH_MAX;
        let incomplete = |pair: &Pair| {
            !pair.given_up
                && (pair.unanswered > 0 || pair.due > pair.ledger.sent || pair.ledger.outstanding() > 0)
        };
        while self.pairs.iter().any(incomplete) && clock::now() < deadline {
            self.take_frames(fleet, TURN_MAX)?;
        }
        Ok(())
    }

    /// What was wrong with the pairs that were not given up.
    pub fn failures(&self) -> Vec<String> {
        let sound = || self.pairs.iter().filter(|pair| !pair.given_up);
        let mut failures = Totals::of(sound().map(|pair| &pair.ledger)).failures(self.load.qos);
        let unsent: u64 = sound().map(|pair| pair.due - pair.ledger.sent).sum();
        let unanswered: u64 = sound().map(|pair| pair.unanswered).sum();
        if unsent + unanswered > 0 {
            failures.push(format!("{unanswered} messages were not answered at the end, {unsent} not sent"));
        }
        failures
    }

    /// Sends what is due and has room in the window of pair `index`.
    fn fill(&mut self, links: &mut Links, index: usize) -> Result<()> {
        let PairsLoad { qos, version, .. } = self.load;
        let pair = &mut self.pairs[index];
        while pair.due > pair.ledger.sent && links.client(2 * index).is_some() {
            let number = pair.ledger.sent;
            let packet_id = match qos {
                0 => 0,
                _ => match pair.window.take(1, 0) {
                    Some(packet_id) => packet_id,
                    None => return Ok(()),
                },
            };
            if packet_id > 0 {
                pair.numbers[usize::from(packet_id) - 1] = Some(number);
                pair.unanswered += 1;
                if pair.given_up {
                    pair.books.in_flight.insert(number);
                }
            }
            // The time in it is not used: when a message was due follows from its number.
            ledger::stamp(&mut self.payload, index as u32, number, 0);
            pair.ledger.sent += 1;
            let publish = Publish { qos, topic: pair.topic.as_bytes(), packet_id, payload: &self.payload };
            codec::encode_publish(links.outbound(2 * index), version, &publish);
        }
        Ok(())
    }

    /// When message `number` of pair `index` was due.
    fn due_ns(&self, index: usize, number: u64) -> u64 {
        self.pace.due_ns(number * self.pairs.len() as u64 + index as u64)
    }

    fn on_frame(&mut self, links: &mut Links, client: usize, frame: &Frame<'_>) -> Result<()> {
        let index = client / 2;
        if client.is_multiple_of(2) {
            return self.on_answer(links, index, frame).with_context(|| format!("publisher {index}"));
        }
        self.on_message(links, index, frame).with_context(|| format!("subscriber {index}"))
    }

    fn on_answer(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        let pair = &mut self.pairs[index];
        let (packet_id, reason) = pair.window.answered(frame)?;
        let number = pair.numbers[usize::from(packet_id) - 1].take();
        let number = number.expect("the window has just said that this identifier was in flight");
        pair.unanswered -= 1;
        let refused = reason >= 0x80;
        if pair.given_up {
            pair.books.answered(number, reason);
        } else if refused {
            bail!("message {number} was refused with reason {reason:#04x}");
        } else if pair.watched {
            let (due_ns, now_ns) = (self.due_ns(index, number), self.now_ns);
            span_at(&mut self.spans, due_ns).acknowledgement.record(due_ns, now_ns);
        }
        self.fill(links, index)
    }

    fn on_message(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        ensure!(frame.kind() == kind::PUBLISH, "got packet type {}", frame.kind());
        let publish = codec::parse_publish(frame, self.load.version)?;
        let (stream, number, _) = ledger::read_stamp(publish.payload)?;
        let pair = &mut self.pairs[index];
        let own = stream as usize == index && publish.topic == pair.topic.as_bytes();
        ensure!(own, "got message {number} of pair {stream}");
        ensure!(publish.qos == self.load.qos, "got a message of QoS {}", publish.qos);
        ensure!(publish.payload.len() == self.load.payload, "got {} bytes", publish.payload.len());
        if publish.qos > 0 {
            codec::encode_ack(links.outbound(2 * index + 1), kind::PUBACK, publish.packet_id);
        }
        let expected = pair.ledger.expected;
        let first = pair.ledger.arrived(number)?;
        if pair.given_up {
            pair.books.missing.extend(expected..number);
        } else if first && pair.watched {
            let (due_ns, now_ns) = (self.due_ns(index, number), self.now_ns);
            span_at(&mut self.spans, due_ns).delivery.record(due_ns, now_ns);
        }
        Ok(())
    }
}

/// The part of the run that a time belongs to: nearly always the last.
fn span_at(spans: &mut [Span], due_ns: u64) -> &mut Span {
    let position = spans.iter().rposition(|span| span.from_ns <= due_ns);
    &mut spans[position.expect("the first part begins at 0")]
}

impl PairsLoad {
    pub fn topic(&self, pair: usize) -> String {
        format!("{}/{pair}", self.prefix)
    }

    /// Who client `index` is.
    pub fn session(&self, index: usize) -> Session {
        let subscribes = !index.is_multiple_of(2);
        Session {
            client_id: format!("{}-{index}", self.prefix.replace('/', "-")),
            clean: !(subscribes && self.durable),
            subscription: subscribes.then(|| (self.topic(index / 2), self.qos)),
        }
    }
}

impl Pair {
    /// From now on refusals are allowed: its subscriber is about to stop reading.
    pub fn give_up(&mut self) {
        self.given_up = true;
        self.books.in_flight = self.numbers.iter().flatten().copied().collect();
        let accepted = (0..self.ledger.sent).rev().find(|number| !self.books.in_flight.contains(number));
        self.books.accepted_end = accepted.map_or(0, |number| number + 1);
    }

    /// Whether all that was accepted has arrived, as far as the last number tells, and nothing more will be answered.
    pub fn has_caught_up(&self, publisher_is_gone: bool) -> bool {
        self.ledger.expected >= self.books.accepted_end
            && (publisher_is_gone || (self.unanswered == 0 && self.due == self.ledger.sent))
    }

    /// Accepted messages that did not arrive in order: those passed over and those never seen, less what may be missing.
    pub fn lost(&self) -> u64 {
        let never_seen = self.ledger.expected..self.ledger.sent;
        let excused =
            |number: &u64| self.books.refused.contains_key(number) || self.books.in_flight.contains(number);
        self.books.missing.iter().copied().chain(never_seen).filter(|number| !excused(number)).count() as u64
    }

    /// Messages that were refused, and came.
    pub fn refused_and_delivered(&self) -> u64 {
        let came = |number: &&u64| **number < self.ledger.expected && !self.books.missing.contains(number);
        self.books.refused.keys().filter(came).count() as u64
    }
}

impl GivenUp {
    /// An answer of a publisher whose subscriber does not read.
    fn answered(&mut self, number: u64, reason: u8) {
        self.in_flight.remove(&number);
        if reason >= 0x80 {
            self.refused.insert(number, reason);
        } else {
            self.accepted_end = self.accepted_end.max(number + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(sent: u64, in_flight: &[u64]) -> Pair {
        let mut numbers = vec![None; 4];
        in_flight.iter().enumerate().for_each(|(index, number)| numbers[index] = Some(*number));
        Pair {
            topic: String::new(),
            window: Window::new(4),
            numbers,
            due: sent,
            ledger: Ledger { sent, ..Ledger::default() },
            unanswered: in_flight.len() as u64,
            watched: true,
            given_up: false,
            nothing_new: false,
            books: GivenUp::default(),
        }
    }

    fn arrive(pair: &mut Pair, number: u64) {
        let expected = pair.ledger.expected;
        pair.ledger.arrived(number).unwrap();
        pair.books.missing.extend(expected..number);
    }

    #[test]
    fn a_refused_message_may_be_missing_and_an_accepted_one_may_not() {
        let mut pair = pair(6, &[3, 5]);
        pair.give_up();
        assert_eq!(pair.books.accepted_end, 5);
        pair.books.answered(3, 0x97);
        pair.books.answered(5, 0);
        pair.unanswered = 0;
        for number in [0, 1, 2, 4] {
            arrive(&mut pair, number);
        }
        assert!(!pair.has_caught_up(false), "5 was accepted and has not come");
        assert_eq!((pair.lost(), pair.books.refused.len()), (1, 1));
        arrive(&mut pair, 5);
        assert!(pair.has_caught_up(false) && pair.lost() == 0);
    }

    #[test]
    fn what_comes_after_a_later_one_counts_as_lost() {
        let mut pair = pair(3, &[]);
        pair.give_up();
        for number in [1, 0, 2] {
            arrive(&mut pair, number);
        }
        assert_eq!((pair.lost(), pair.ledger.repeated), (1, 1));
    }

    #[test]
    fn what_an_ended_publisher_was_not_answered_may_have_come_or_not() {
        let mut pair = pair(4, &[2, 3]);
        pair.give_up();
        (0..=1).for_each(|number| arrive(&mut pair, number));
        assert!(pair.has_caught_up(true) && !pair.has_caught_up(false));
        assert_eq!(pair.lost(), 0);
        arrive(&mut pair, 3);
        assert_eq!(pair.lost(), 0, "2 may be missing");
    }

    #[test]
    fn a_wait_belongs_to_the_part_of_the_run_in_which_the_message_was_due() {
        let mut spans = vec![Span::new(0).unwrap(), Span::new(1_000).unwrap()];
        span_at(&mut spans, 999).delivery.record(999, 5_000_999);
        span_at(&mut spans, 1_000).delivery.record(1_000, 1_001_000);
        assert_eq!(spans.iter().map(|span| span.delivery.count()).collect::<Vec<_>>(), [1, 1]);
        assert!(spans[0].delivery.longest_ms() > 4.9);
        assert_eq!(Span::merged(&spans).unwrap().delivery.count(), 2);
    }
}
