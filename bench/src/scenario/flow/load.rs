//! The run of scenario `flow`: what is sent when, what arrives, and what is acknowledged when.
//!
//! Decides how far a publisher may run ahead, in both loops, and what is wrong with an arrival; who is late is the business
//! of `late`. Called by `mod`. No message allocates, and a closed loop without late subscribers reads the clock once a turn:
//! at QoS 0 this generator is near saturation, and its limit must not be taken for the broker's.
//!
//! Invariants: client `2i` publishes and client `2i + 1` subscribes for pair `i`. In an open loop message `k` of pair `i`
//! is message `k` times the number of pairs plus `i` of all, so its due time needs no queue: what was due and could not be
//! sent is what lies between `ledger.sent` and the pace.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::FlowSettings;
use super::late::Late;
use crate::client::codec::{self, Frame, Publish, Version, kind};
use crate::client::fleet::{Fleet, Links};
use crate::client::publisher::Window;
use crate::load::ledger::{self, Ledger, Totals};
use crate::load::pace::Pace;
use crate::measure::clock;
use crate::measure::latency::Latency;
use crate::measure::meter::Mark;
use crate::report::progress::phase;

/// A publisher at QoS 1 or 2 may run ahead of its subscriber by this many windows: a broker that acknowledges faster
/// than it delivers would otherwise only fill its memory, and be measured doing that.
const AHEAD_WINDOWS_MAX: u64 = 50;

/// No arrival for this long means that something is lost.
const STALL: Duration = Duration::from_secs(10);

/// Nothing the load waits for takes longer than this: a broker that only trickles ends the run too.
const COMPLETE_MAX: Duration = Duration::from_secs(300);

/// A turn without anything to do takes no longer: the end of a time is noticed so soon.
const TURN_MAX: Duration = Duration::from_millis(100);

struct Pair {
    topic: String,
    window: Window,
    ledger: Ledger,
    /// Its subscriber takes its time to acknowledge.
    is_late: bool,
}

pub(super) struct Flow {
    settings: FlowSettings,
    version: Version,
    pairs: Vec<Pair>,
    payload: Vec<u8>,
    start: Instant,
    /// The time of this turn since `start`: one reading of the clock serves a whole batch.
    now_ns: u64,
    /// Closed loop: no pair sends more than this.
    sequence_end: u64,
    /// Open loop, and how many messages may fall due in all.
    pace: Option<Pace>,
    due_end: u64,
    late: Late,
    arrived: u64,
    in_flight: u64,
    /// Latencies of messages due in this time are recorded.
    measured_ns: Range<u64>,
    pub(super) delivery: Latency,
    pub(super) acknowledgement: Latency,
    /// Of messages whose subscribers are late.
    pub(super) acknowledgement_of_late: Latency,
    /// Open loop: how late this generator looked, whatever the window then allowed.
    pub(super) sent_late: Latency,
    pub(super) without_window: u64,
}

impl Flow {
    pub(super) fn new(
        settings: &FlowSettings,
        links: &Links,
        topic: impl Fn(usize) -> String,
    ) -> Result<Flow> {
        let late = Late::new(settings.late_percent, settings.late_ms);
        let pair = |index: usize| {
            let granted = links.client(2 * index).map_or(u16::MAX, |publisher| publisher.receive_maximum);
            let window = Window::new(settings.window.min(granted));
            Pair { topic: topic(index), window, ledger: Ledger::default(), is_late: late.is_late(index) }
        };
        let pairs: Vec<Pair> = (0..settings.pairs as usize).map(pair).collect();
        let each = settings.messages.map_or(u64::MAX, |messages| messages.div_ceil(pairs.len() as u64));
        Ok(Flow {
            settings: settings.clone(),
            version: settings.version(),
            pairs,
            payload: vec![0x5a; settings.payload as usize],
            start: clock::now(),
            now_ns: 0,
            sequence_end: each,
            pace: None,
            due_end: settings.messages.unwrap_or(u64::MAX),
            late,
            arrived: 0,
            in_flight: 0,
            measured_ns: 0..0,
            delivery: Latency::new()?,
            acknowledgement: Latency::new()?,
            acknowledgement_of_late: Latency::new()?,
            sent_late: Latency::new()?,
            without_window: 0,
        })
    }

    pub(super) fn ledgers(&self) -> impl Iterator<Item = &Ledger> {
        self.pairs.iter().map(|pair| &pair.ledger)
    }

    pub(super) fn late_subscribers(&self) -> usize {
        self.pairs.iter().filter(|pair| pair.is_late).count()
    }

    /// Runs the load; the readings around the measured part and how many messages arrived in it.
    pub(super) fn drive(&mut self, fleet: &mut Fleet, server: Option<u32>) -> Result<(Mark, Mark, u64)> {
        let bounded = self.settings.messages.is_some();
        if !bounded {
            phase("warming up");
            self.start_all(&mut fleet.links);
            self.turn_until(fleet, Duration::from_secs_f64(self.settings.warm_up_seconds))?;
        }
        phase("measuring");
        let first = Mark::read(server)?;
        let arrived_before = self.arrived;
        if bounded {
            self.measured_ns = 0..u64::MAX;
            self.start_all(&mut fleet.links);
            self.turn_until_complete(fleet)?;
        } else {
            self.measured_ns = self.elapsed_ns()..u64::MAX;
            let warm_up_s = self.settings.warm_up_seconds;
            self.turn_until(fleet, Duration::from_secs_f64(warm_up_s + self.settings.seconds))?;
        }
        let last = Mark::read(server)?;
        let arrived = self.arrived - arrived_before;
        // Nothing new. What fell due in time and is still to be sent is sent: its wait is what an open loop is for.
        self.measured_ns.end = self.elapsed_ns();
        self.due_end = 0;
        if self.pace.is_none() {
            self.sequence_end = 0;
        }
        phase("awaiting what is on its way");
        self.turn_until_complete(fleet)?;
        Ok((first, last, arrived))
    }

    fn start_all(&mut self, links: &mut Links) {
        self.start = clock::now();
        self.now_ns = 0;
        match self.settings.rate {
            Some(rate) => self.pace = Some(Pace::new(rate)),
            None => (0..self.pairs.len()).for_each(|pair| self.fill(links, pair)),
        }
    }

    fn elapsed_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn turn(&mut self, fleet: &mut Fleet) -> Result<()> {
        let wait = self.act(&mut fleet.links);
        let mut fresh = true;
        fleet.turn(wait, &mut |links, index, frame| {
            if fresh {
                fresh = false;
                self.now_ns = self.elapsed_ns();
            }
            self.on_frame(links, index, frame)
        })
    }

    /// What is due by the clock and not by an arrival; how long until the next such thing.
    fn act(&mut self, links: &mut Links) -> Duration {
        if self.pace.is_none() && self.late.is_settled() {
            return TURN_MAX;
        }
        self.now_ns = self.elapsed_ns();
        let ack_kind = if self.settings.qos == 1 { kind::PUBACK } else { kind::PUBREC };
        self.late.pay(links, ack_kind, self.now_ns);
        self.send_due(links);
        let wait = match &self.pace {
            Some(pace) if pace.taken < self.due_end => pace.wait(TURN_MAX),
            _ => TURN_MAX,
        };
        self.late.wait(self.now_ns, wait)
    }

    fn send_due(&mut self, links: &mut Links) {
        loop {
            let Some(pace) = self.pace.as_mut().filter(|pace| pace.taken < self.due_end) else { return };
            let Some((number, due_ns)) = pace.take(self.now_ns) else { return };
            if self.measured_ns.contains(&due_ns) {
                self.sent_late.record(due_ns, self.now_ns);
            }
            let count = self.pairs.len() as u64;
            let pair = (number % count) as usize;
            self.fill(links, pair);
            self.without_window += u64::from(self.pairs[pair].ledger.sent * count + pair as u64 <= number);
        }
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
            && self.late.is_settled()
            && self.pace.as_ref().is_none_or(|pace| pace.taken >= self.due_end)
            && (0..self.pairs.len())
                .all(|pair| self.is_sent(pair) && self.pairs[pair].ledger.outstanding() == 0)
    }

    /// Everything that this pair was to send has been sent.
    fn is_sent(&self, pair: usize) -> bool {
        let sent = self.pairs[pair].ledger.sent;
        match &self.pace {
            Some(pace) => sent * self.pairs.len() as u64 + pair as u64 >= pace.taken,
            None => sent >= self.sequence_end,
        }
    }

    fn stalled(&self) -> String {
        let totals = Totals::of(self.ledgers());
        format!("nothing arrived for {} s: {totals:?}, {} unacknowledged", STALL.as_secs(), self.in_flight)
    }

    /// Sends what the window of `pair` allows, of what is due if there is a pace.
    fn fill(&mut self, links: &mut Links, pair: usize) {
        let qos = self.settings.qos;
        let width = u64::from(self.settings.window);
        let unreceived_max = if qos == 0 { width } else { width * AHEAD_WINDOWS_MAX };
        let count = self.pairs.len() as u64;
        let Pair { topic, window, ledger, .. } = &mut self.pairs[pair];
        while ledger.sent < self.sequence_end && ledger.outstanding() < unreceived_max {
            let due_ns = match &self.pace {
                None => self.now_ns,
                Some(pace) => {
                    let number = ledger.sent * count + pair as u64;
                    if number >= pace.taken {
                        return;
                    }
                    pace.due_ns(number)
                }
            };
            let packet_id = match qos {
                0 => 0,
                _ => match window.take(qos, due_ns) {
                    Some(packet_id) => packet_id,
                    None => return,
                },
            };
            self.in_flight += u64::from(qos > 0);
            ledger::stamp(&mut self.payload, pair as u32, ledger.sent, due_ns);
            let publish = Publish { qos, topic: topic.as_bytes(), packet_id, payload: &self.payload };
            codec::encode_publish(links.outbound(2 * pair), self.version, &publish);
            ledger.sent += 1;
        }
    }

    fn on_frame(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        let pair = index / 2;
        if index.is_multiple_of(2) {
            let complete = self.pairs[pair].window.acknowledge(frame, links.outbound(index));
            let Some(due_ns) = complete.with_context(|| format!("publisher {pair}"))? else { return Ok(()) };
            self.in_flight -= 1;
            if self.measured_ns.contains(&due_ns) {
                let of_late = self.pairs[pair].is_late;
                let latency =
                    if of_late { &mut self.acknowledgement_of_late } else { &mut self.acknowledgement };
                latency.record(due_ns, self.now_ns);
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
            other => bail!("subscriber {pair} got packet type {other}"),
        }
    }

    fn on_message(&mut self, links: &mut Links, pair: usize, publish: &Publish<'_>) -> Result<()> {
        let (stream, sequence, due_ns) = ledger::read_stamp(publish.payload)?;
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
            _ if self.pairs[pair].is_late => self.late.owe(2 * pair + 1, publish.packet_id, self.now_ns),
            1 => codec::encode_ack(links.outbound(2 * pair + 1), kind::PUBACK, publish.packet_id),
            _ => codec::encode_ack(links.outbound(2 * pair + 1), kind::PUBREC, publish.packet_id),
        }
        if self.pairs[pair].ledger.arrived(sequence)? {
            self.arrived += 1;
            if self.measured_ns.contains(&due_ns) {
                self.delivery.record(due_ns, self.now_ns);
            }
            self.fill(links, pair);
        }
        Ok(())
    }
}
