//! Bystanders: a few established pairs that exchange QoS 1 messages while something happens to everybody else.
//!
//! Open loop on a thread and an epoll set of their own, so that a message is sent when it is due although the thread of
//! the storm is busy; `late` says how far that held. Messages go to the pairs in turn. What is before and what is during
//! the storm is told by when a message was due, afterwards. Each must arrive, once or more and in order.
//!
//! Invariant: client `2i` publishes and client `2i + 1` subscribes for pair `i`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::StormSettings;
use crate::client::codec::{self, Frame, Publish, Version, kind};
use crate::client::fleet::{Dialect, Fleet, Links, Session, nothing_expected};
use crate::client::publisher::Window;
use crate::load::ledger::{self, Ledger, STAMP_BYTES, Totals};
use crate::load::pace::Pace;
use crate::measure::clock;
use crate::measure::latency::Latency;

/// Messages of one publisher in flight at most; what is due beyond waits, and its wait counts.
const WINDOW: u16 = 1_000;

/// Payload of a message, in bytes.
const PAYLOAD_BYTES: usize = 128;

/// How long the last messages may take.
const ARRIVAL_MAX: Duration = Duration::from_secs(30);

/// The longest that a bystander waits before it looks whether it is to end.
const TURN_MAX: Duration = Duration::from_millis(10);

struct Pair {
    topic: String,
    window: Window,
    /// When messages were due that had no room in the window.
    backlog: VecDeque<u64>,
    ledger: Ledger,
}

/// The pairs and their messages so far.
pub(super) struct Bystanders {
    fleet: Fleet,
    load: Load,
}

struct Load {
    version: Version,
    rate: u64,
    pairs: Vec<Pair>,
    payload: [u8; PAYLOAD_BYTES],
    pace: Pace,
    now_ns: u64,
    unacknowledged: u64,
    seen: Seen,
}

/// What the bystanders saw: for each message when it was due, in nanoseconds since `start`, and how long something took.
pub(super) struct Seen {
    start: Instant,
    /// From when it was due until its subscriber had it.
    arrivals_ns: Vec<(u64, u64)>,
    /// From when it was due until it was handed to the kernel.
    late_ns: Vec<(u64, u64)>,
    pub(super) totals: Totals,
    /// Messages whose publisher had no answer at the end.
    pub(super) unacknowledged: u64,
}

impl Bystanders {
    /// Connects the pairs.
    pub(super) fn open(
        dialect: Dialect,
        settings: &StormSettings,
        nonce: &str,
        deadline: Instant,
    ) -> Result<Bystanders> {
        let pairs = settings.storm_bystanders as usize;
        let topic = |pair: usize| format!("b/{nonce}/{pair}");
        let session = |index: usize| Session {
            client_id: format!("storm-{nonce}-bystander-{index}"),
            clean: true,
            subscription: (!index.is_multiple_of(2)).then(|| (topic(index / 2), 1)),
        };
        let mut fleet = Fleet::new(dialect)?;
        fleet.open(2 * pairs, deadline, &session, &mut nothing_expected).context("opening the bystanders")?;
        let pair = |index: usize| {
            let granted = fleet.links.client(2 * index).map_or(WINDOW, |publisher| publisher.receive_maximum);
            let window = Window::new(WINDOW.min(granted));
            Pair { topic: topic(index), window, backlog: VecDeque::new(), ledger: Ledger::default() }
        };
        let load = Load {
            version: dialect.version,
            rate: settings.storm_bystander_rate.into(),
            pairs: (0..pairs).map(pair).collect(),
            payload: [0x5a; PAYLOAD_BYTES],
            pace: Pace::new(settings.storm_bystander_rate.into()),
            now_ns: 0,
            unacknowledged: 0,
            seen: Seen {
                start: clock::now(),
                arrivals_ns: Vec::new(),
                late_ns: Vec::new(),
                totals: Totals::default(),
                unacknowledged: 0,
            },
        };
        Ok(Bystanders { fleet, load })
    }

    /// Exchanges messages until `stop`, then waits for the last of them.
    pub(super) fn run(self, stop: &AtomicBool) -> Result<Seen> {
        let Bystanders { mut fleet, mut load } = self;
        load.pace = Pace::new(load.rate);
        load.seen.start = load.pace.start();
        while !stop.load(Ordering::Relaxed) {
            load.send_what_is_due(&mut fleet.links);
            load.turn(&mut fleet, load.pace.wait(TURN_MAX))?;
        }
        let limit = clock::now() + ARRIVAL_MAX;
        while !load.is_complete() && clock::now() < limit {
            load.turn(&mut fleet, TURN_MAX)?;
        }
        load.seen.totals = Totals::of(load.pairs.iter().map(|pair| &pair.ledger));
        load.seen.unacknowledged = load.unacknowledged;
        fleet.leave(clock::now() + ARRIVAL_MAX)?;
        Ok(load.seen)
    }
}

impl Load {
    fn is_complete(&self) -> bool {
        let done = |pair: &Pair| pair.backlog.is_empty() && pair.ledger.outstanding() == 0;
        self.unacknowledged == 0 && self.pairs.iter().all(done)
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

    fn send_what_is_due(&mut self, links: &mut Links) {
        self.now_ns = self.pace.now_ns();
        while let Some((number, due_ns)) = self.pace.take(self.now_ns) {
            let pair = (number % self.pairs.len() as u64) as usize;
            self.pairs[pair].backlog.push_back(due_ns);
            self.fill(links, pair);
        }
    }

    /// Sends what is due and has room in the publisher's window.
    fn fill(&mut self, links: &mut Links, pair: usize) {
        let Pair { topic, window, backlog, ledger } = &mut self.pairs[pair];
        while let Some(due_ns) = backlog.front().copied() {
            let Some(packet_id) = window.take(1, due_ns) else { return };
            backlog.pop_front();
            ledger::stamp(&mut self.payload[..STAMP_BYTES], pair as u32, ledger.sent, due_ns);
            ledger.sent += 1;
            self.unacknowledged += 1;
            let publish = Publish { qos: 1, topic: topic.as_bytes(), packet_id, payload: &self.payload };
            codec::encode_publish(links.outbound(2 * pair), self.version, &publish);
            self.seen.late_ns.push((due_ns, self.now_ns.saturating_sub(due_ns)));
        }
    }

    fn on_frame(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        let pair = index / 2;
        if index.is_multiple_of(2) {
            let answered = self.pairs[pair].window.acknowledge(frame, links.outbound(index));
            if answered.with_context(|| format!("bystander {pair}"))?.is_some() {
                self.unacknowledged -= 1;
                self.fill(links, pair);
            }
            return Ok(());
        }
        if frame.kind() != kind::PUBLISH {
            bail!("bystander {pair} got packet type {}", frame.kind());
        }
        let publish = codec::parse_publish(frame, self.version)?;
        let (stream, sequence, due_ns) = ledger::read_stamp(publish.payload)?;
        let own = stream as usize == pair && publish.topic == self.pairs[pair].topic.as_bytes();
        ensure!(own && publish.qos == 1, "bystander {pair} got message {sequence} of pair {stream}");
        codec::encode_ack(links.outbound(index), kind::PUBACK, publish.packet_id);
        if self.pairs[pair].ledger.arrived(sequence)? {
            self.seen.arrivals_ns.push((due_ns, self.now_ns.saturating_sub(due_ns)));
        }
        Ok(())
    }
}

impl Seen {
    /// How long messages took that were due between two moments.
    pub(super) fn delivery(&self, from: Instant, to: Instant) -> Result<Latency> {
        self.between(&self.arrivals_ns, from, to)
    }

    /// How late they were sent.
    pub(super) fn late(&self, from: Instant, to: Instant) -> Result<Latency> {
        self.between(&self.late_ns, from, to)
    }

    fn between(&self, samples: &[(u64, u64)], from: Instant, to: Instant) -> Result<Latency> {
        let since = |moment: Instant| moment.saturating_duration_since(self.start).as_nanos() as u64;
        let (from_ns, to_ns) = (since(from), since(to));
        let mut latency = Latency::new()?;
        for (due_ns, took_ns) in samples {
            if (from_ns..to_ns).contains(due_ns) {
                latency.record(0, *took_ns);
            }
        }
        Ok(latency)
    }

    /// The longest delivery in each step of time, in seconds since `zero` and milliseconds.
    pub(super) fn longest_over_time(&self, zero: Instant, step: Duration) -> Vec<(f64, f64)> {
        let step_ns = step.as_nanos() as u64;
        let steps =
            self.arrivals_ns.iter().map(|(due_ns, _)| due_ns / step_ns).max().map_or(0, |last| last + 1);
        let mut longest_ns = vec![None; steps as usize];
        for (due_ns, took_ns) in &self.arrivals_ns {
            let slot = &mut longest_ns[(due_ns / step_ns) as usize];
            *slot = (*slot).max(Some(*took_ns));
        }
        let zero_s = zero.saturating_duration_since(self.start).as_secs_f64();
        let point = |(slot, longest_ns): (usize, Option<u64>)| {
            Some((slot as f64 * step.as_secs_f64() - zero_s, longest_ns? as f64 / 1e6))
        };
        longest_ns.into_iter().enumerate().filter_map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(arrivals_ms: &[(u64, u64)]) -> Seen {
        let ns = |(due_ms, took_ms): &(u64, u64)| (due_ms * 1_000_000, took_ms * 1_000_000);
        Seen {
            start: clock::now(),
            arrivals_ns: arrivals_ms.iter().map(ns).collect(),
            late_ns: Vec::new(),
            totals: Totals::default(),
            unacknowledged: 0,
        }
    }

    #[test]
    fn a_message_belongs_to_the_time_in_which_it_was_due() {
        let seen = seen(&[(10, 1), (90, 500), (100, 40), (190, 50), (200, 1)]);
        let at = |ms| seen.start + Duration::from_millis(ms);
        let during = seen.delivery(at(100), at(200)).unwrap();
        assert_eq!(during.count(), 2, "though one that was due before arrived in it");
        assert!((during.longest_ms() - 50.0).abs() < 0.1);
        assert_eq!(seen.delivery(at(0), at(100)).unwrap().count(), 2);
    }

    #[test]
    fn time_has_the_longest_of_each_step_and_no_point_where_nothing_was_due() {
        let seen = seen(&[(10, 1), (20, 3), (250, 2)]);
        let points =
            seen.longest_over_time(seen.start + Duration::from_millis(100), Duration::from_millis(100));
        assert_eq!(points.len(), 2);
        assert!((points[0].0 + 0.1).abs() < 1e-9 && (points[0].1 - 3.0).abs() < 1e-9);
        assert!((points[1].0 - 0.1).abs() < 1e-9 && (points[1].1 - 2.0).abs() < 1e-9);
    }
}
