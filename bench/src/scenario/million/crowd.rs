//! The clients' end of `million`: all sessions and one publisher on one thread, and what must reach whom.
//!
//! Decides names and topics, what a message says of itself (its round and the session it is for), and that each message
//! has to reach exactly its recipients; a repeated one at QoS 1 is counted and allowed. Does not decide when what is sent.
//!
//! Invariants: client `index` of the fleet has the session `numbers[index]`; the publisher, if it is there, is the last
//! client; one round of messages is under way at a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::MillionSettings;
use crate::client::codec::{self, Frame, Publish, Version, kind};
use crate::client::fleet::{Dialect, Fleet, Links, Session, nothing_expected};
use crate::measure::clock;

/// What many sessions share.
const SHARED_TOPIC: &str = "news/everybody";

/// The session number in a message that is for everybody.
const EVERYBODY: u64 = u64::MAX;

/// SUBSCRIBE packets that wait for their answers at a time, and messages that are being stored: below any broker's bound.
const UNANSWERED_MAX: usize = 64;

/// The first packet identifier of the publisher and the one of a second SUBSCRIBE; the first one's is 1.
const SECOND_SUBSCRIBE: u16 = 2;

/// Bytes of a message that say which it is: round and session number.
const STAMP_BYTES: usize = 16;

/// How long one turn waits for something to arrive.
const TURN: Duration = Duration::from_millis(100);

/// Sessions, connected or about to be, and their publisher.
pub struct Crowd {
    fleet: Fleet,
    numbers: Vec<u32>,
    publisher: Option<usize>,
    payload_bytes: usize,
    packet_id: u16,
    reception: Reception,
}

/// What has arrived in this round.
struct Reception {
    version: Version,
    numbers: Vec<u32>,
    /// Of the messages that are under way.
    round: u32,
    sent_at: Instant,
    /// The last round of which a client got its message.
    got: Vec<u32>,
    waits: Vec<Duration>,
    repeated: u64,
    subscribed: usize,
    acknowledged: usize,
    acknowledged_after: Duration,
}

/// What one message to everybody led to.
pub struct Told {
    pub waits: Vec<Duration>,
    /// When its sender had its acknowledgement, at QoS 1.
    pub acknowledged: Option<Duration>,
}

fn inbox(number: u32) -> String {
    format!("u/{number:07}/inbox")
}

fn session(number: u32, subscribes: bool) -> Session {
    let subscription = subscribes.then(|| (inbox(number), 1));
    Session { client_id: format!("million-{number:07}"), clean: false, subscription }
}

fn publisher_session() -> Session {
    Session { client_id: "million-publisher".to_owned(), clean: true, subscription: None }
}

impl Crowd {
    /// Nobody yet; sessions will be those from 0 on.
    pub fn new(dialect: Dialect, settings: &MillionSettings) -> Result<Crowd> {
        Crowd::of((0..settings.sessions).collect(), dialect, settings)
    }

    /// Nobody yet; sessions will be those that `numbers` names.
    pub fn of(numbers: Vec<u32>, dialect: Dialect, settings: &MillionSettings) -> Result<Crowd> {
        let reception = Reception {
            version: dialect.version,
            got: vec![0; numbers.len()],
            numbers: numbers.clone(),
            round: 0,
            sent_at: clock::now(),
            waits: Vec::new(),
            repeated: 0,
            subscribed: 0,
            acknowledged: 0,
            acknowledged_after: Duration::ZERO,
        };
        let payload_bytes = settings.payload as usize;
        let mut fleet = Fleet::new(dialect)?;
        fleet.opening_max = settings.handshakes as usize;
        Ok(Crowd { fleet, numbers, publisher: None, payload_bytes, packet_id: 0, reception })
    }

    pub fn sessions_open(&self) -> usize {
        self.fleet.len() - usize::from(self.publisher.is_some())
    }

    /// How many messages came more often than once.
    pub fn repeated(&self) -> u64 {
        self.reception.repeated
    }

    /// Connects and subscribes the next sessions, until there are `count`. Nothing may be published yet.
    pub fn open(&mut self, count: usize, deadline: Instant) -> Result<()> {
        let numbers = &self.numbers;
        self.fleet.open(count, deadline, &|index| session(numbers[index], true), &mut nothing_expected)
    }

    /// Connects sessions that were kept and do not subscribe again, until there are `count`; messages of round `round`
    /// wait for some. Answers how many the broker did not know any more.
    pub fn come_back(&mut self, count: usize, round: u32, deadline: Instant) -> Result<usize> {
        self.reception.round = round;
        let (numbers, reception) = (&self.numbers, &mut self.reception);
        let known = |index: usize| session(numbers[index], false);
        let first = self.fleet.len();
        self.fleet.open(count, deadline, &known, &mut |links, index, frame| {
            reception.on_frame(links, index, frame)
        })?;
        let is_unknown =
            |index: &usize| !self.fleet.links.client(*index).is_some_and(|client| client.session_present);
        Ok((first..count).filter(is_unknown).count())
    }

    /// Connects the one who publishes, after all sessions.
    pub fn open_publisher(&mut self, deadline: Instant) -> Result<()> {
        let index = self.fleet.len();
        let reception = &mut self.reception;
        let open =
            self.fleet.open(index + 1, deadline, &|_| publisher_session(), &mut |links, index, frame| {
                reception.on_frame(links, index, frame)
            });
        self.publisher = Some(index);
        open
    }

    /// Sends a message to each of these clients in turn, when the one before has arrived; the waits.
    pub fn send_to_each(&mut self, clients: &[usize], limit: Duration) -> Result<Vec<Duration>> {
        let mut waits = Vec::with_capacity(clients.len());
        for &client in clients {
            let number = self.numbers[client];
            self.begin_round();
            self.publish(&inbox(number), u64::from(number), 1);
            self.turn_until(limit, "a message and its acknowledgement", |reception| {
                !reception.waits.is_empty() && reception.acknowledged == 1
            })?;
            waits.append(&mut self.reception.waits);
        }
        Ok(waits)
    }

    /// Subscribes `count` sessions, spread over all, to one more topic, the same for all.
    pub fn share_topic(&mut self, count: usize, limit: Duration) -> Result<()> {
        let (sessions, version) = (self.numbers.len(), self.reception.version);
        self.reception.subscribed = 0;
        for asked in 0..count {
            let out = self.fleet.links.outbound(asked * sessions / count);
            codec::encode_subscribe(out, version, SECOND_SUBSCRIBE, SHARED_TOPIC.as_bytes(), 1);
            let least = (asked + 1).saturating_sub(UNANSWERED_MAX);
            self.turn_until(limit, "an answer to SUBSCRIBE", |reception| reception.subscribed >= least)?;
        }
        self.turn_until(limit, "the answers to SUBSCRIBE", |reception| reception.subscribed == count)
    }

    /// One message for all who share the topic.
    pub fn tell_all(&mut self, qos: u8, limit: Duration) -> Result<Told> {
        let recipients = self.reception.subscribed;
        self.begin_round();
        self.publish(SHARED_TOPIC, EVERYBODY, qos);
        self.turn_until(limit, "one message to everybody", |reception| {
            reception.waits.len() == recipients && reception.acknowledged == usize::from(qos)
        })?;
        let acknowledged = (qos > 0).then_some(self.reception.acknowledged_after);
        Ok(Told { waits: std::mem::take(&mut self.reception.waits), acknowledged })
    }

    /// Ends the connections of these clients; their sessions stay with the broker.
    pub fn leave(&mut self, clients: &[usize], limit: Duration) -> Result<()> {
        clients.iter().for_each(|&client| self.fleet.leave_one(client));
        let deadline = clock::now() + limit;
        while !clients.iter().all(|&client| self.fleet.is_closed(client)) {
            ensure!(clock::now() < deadline, "the broker did not close after DISCONNECT within {limit:?}");
            let reception = &mut self.reception;
            self.fleet.turn(TURN, &mut |links, index, frame| reception.on_frame(links, index, frame))?;
        }
        Ok(())
    }

    /// Sends a message to each of these, who are away, and waits for all acknowledgements. Answers the round.
    pub fn store(&mut self, clients: &[usize], limit: Duration) -> Result<u32> {
        self.begin_round();
        for (sent, &client) in clients.iter().enumerate() {
            let number = self.numbers[client];
            self.publish(&inbox(number), u64::from(number), 1);
            let least = (sent + 1).saturating_sub(UNANSWERED_MAX);
            self.turn_until(limit, "an acknowledgement", |reception| reception.acknowledged >= least)?;
        }
        self.turn_until(limit, "the acknowledgements", |reception| reception.acknowledged == clients.len())?;
        ensure!(self.reception.waits.is_empty(), "a message for a session that is away has arrived");
        Ok(self.reception.round)
    }

    /// Waits until `count` clients have the message that was waiting for them.
    pub fn await_stored(&mut self, count: usize, limit: Duration) -> Result<()> {
        self.turn_until(limit, "the stored messages", |reception| reception.waits.len() == count)
    }

    fn begin_round(&mut self) {
        self.reception.round += 1;
        self.reception.sent_at = clock::now();
        self.reception.waits.clear();
        self.reception.acknowledged = 0;
    }

    fn publish(&mut self, topic: &str, number: u64, qos: u8) {
        let publisher = self.publisher.expect("the publisher is connected before anything is published");
        self.packet_id = self.packet_id % 60_000 + 1;
        let mut payload = vec![0; self.payload_bytes.max(STAMP_BYTES)];
        payload[..8].copy_from_slice(&u64::from(self.reception.round).to_be_bytes());
        payload[8..STAMP_BYTES].copy_from_slice(&number.to_be_bytes());
        let publish = Publish { qos, topic: topic.as_bytes(), packet_id: self.packet_id, payload: &payload };
        codec::encode_publish(self.fleet.links.outbound(publisher), self.reception.version, &publish);
    }

    fn turn_until(&mut self, limit: Duration, what: &str, done: impl Fn(&Reception) -> bool) -> Result<()> {
        let deadline = clock::now() + limit;
        while !done(&self.reception) {
            ensure!(
                clock::now() < deadline,
                "{what} did not come within {limit:?}: {} arrived, {} were acknowledged",
                self.reception.waits.len(),
                self.reception.acknowledged
            );
            let reception = &mut self.reception;
            self.fleet.turn(TURN, &mut |links, index, frame| reception.on_frame(links, index, frame))?;
        }
        Ok(())
    }
}

impl Reception {
    fn on_frame(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        match frame.kind() {
            kind::SUBACK => {
                let granted = codec::parse_suback(frame, self.version)?;
                ensure!(granted == 1, "client {index} asked for QoS 1 and SUBACK says {granted:#04x}");
                self.subscribed += 1;
            }
            kind::PUBACK => {
                let (_, reason) = codec::parse_ack(frame)?;
                ensure!(reason == 0, "a message was answered with reason {reason:#04x}");
                self.acknowledged += 1;
                self.acknowledged_after = clock::now() - self.sent_at;
            }
            kind::PUBLISH => {
                let publish = codec::parse_publish(frame, self.version)?;
                self.arrived(index, &publish)?;
                if publish.qos > 0 {
                    codec::encode_ack(links.outbound(index), kind::PUBACK, publish.packet_id);
                }
            }
            other => bail!("client {index} got packet type {other}"),
        }
        Ok(())
    }

    /// Notes a message for client `index`; an error if it is somebody else's or not of this round.
    fn arrived(&mut self, index: usize, publish: &Publish<'_>) -> Result<()> {
        let word = |at: usize| Some(u64::from_be_bytes(publish.payload.get(at..at + 8)?.try_into().ok()?));
        let (Some(round), Some(number)) = (word(0), word(8)) else {
            bail!("client {index} got a message that nobody has sent")
        };
        let Some(&own) = self.numbers.get(index) else { bail!("the publisher got a message") };
        let is_own = number == u64::from(own) && publish.topic == inbox(own).as_bytes();
        let is_for_all = number == EVERYBODY && publish.topic == SHARED_TOPIC.as_bytes();
        ensure!(is_own || is_for_all, "session {own} got a message of session {number}");
        if round == u64::from(self.got[index]) {
            ensure!(publish.qos > 0, "session {own} got a message at QoS 0 twice");
            self.repeated += 1;
            return Ok(());
        }
        ensure!(round == u64::from(self.round), "session {own} got message {round} in round {}", self.round);
        self.got[index] = self.round;
        self.waits.push(clock::now() - self.sent_at);
        Ok(())
    }
}

/// How waits are spread, in milliseconds.
pub struct Spread {
    pub shortest_ms: f64,
    pub median_ms: f64,
    pub p99_ms: f64,
    pub longest_ms: f64,
}

impl Spread {
    /// Exact: there are few enough to sort. All 0 if there are none.
    pub fn of(mut waits: Vec<Duration>) -> Spread {
        waits.sort_unstable();
        let at = |share: f64| {
            let index = ((waits.len() as f64 * share).ceil() as usize).max(1) - 1;
            waits.get(index).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
        };
        Spread { shortest_ms: at(0.0), median_ms: at(0.5), p99_ms: at(0.99), longest_ms: at(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reception(numbers: &[u32]) -> Reception {
        Reception {
            version: Version::V311,
            got: vec![0; numbers.len()],
            numbers: numbers.to_vec(),
            round: 3,
            sent_at: clock::now(),
            waits: Vec::new(),
            repeated: 0,
            subscribed: 0,
            acknowledged: 0,
            acknowledged_after: Duration::ZERO,
        }
    }

    fn arrive(
        reception: &mut Reception,
        client: usize,
        message: (u64, u64),
        topic: &str,
        qos: u8,
    ) -> Result<()> {
        let payload = [message.0.to_be_bytes(), message.1.to_be_bytes()].concat();
        let topic = topic.as_bytes();
        reception.arrived(client, &Publish { qos, topic, packet_id: 1, payload: &payload })
    }

    #[test]
    fn a_message_counts_once_for_the_session_it_is_for() {
        let mut reception = reception(&[7, 9]);
        arrive(&mut reception, 1, (3, 9), "u/0000009/inbox", 1).unwrap();
        arrive(&mut reception, 0, (3, EVERYBODY), SHARED_TOPIC, 0).unwrap();
        assert_eq!((reception.waits.len(), reception.repeated), (2, 0));
        arrive(&mut reception, 1, (3, 9), "u/0000009/inbox", 1).unwrap();
        assert_eq!((reception.waits.len(), reception.repeated), (2, 1));
    }

    #[test]
    fn a_message_of_another_session_round_or_topic_is_an_error() {
        let wrong = [
            (0, (3, 9), "u/0000007/inbox"),
            (0, (3, 7), "u/0000009/inbox"),
            (0, (2, 7), "u/0000007/inbox"),
            (0, (3, EVERYBODY), "u/0000007/inbox"),
            (2, (3, EVERYBODY), SHARED_TOPIC),
        ];
        for (client, message, topic) in wrong {
            let mut reception = reception(&[7, 9]);
            assert!(
                arrive(&mut reception, client, message, topic, 1).is_err(),
                "{client} {message:?} {topic}"
            );
        }
        let mut reception = reception(&[7]);
        arrive(&mut reception, 0, (3, 7), "u/0000007/inbox", 0).unwrap();
        assert!(arrive(&mut reception, 0, (3, 7), "u/0000007/inbox", 0).is_err(), "twice at QoS 0");
    }

    #[test]
    fn a_spread_names_waits_that_were_there() {
        let spread = Spread::of((1..=200).rev().map(Duration::from_millis).collect());
        let close = |value: f64, expected: f64| (value - expected).abs() < 1e-9;
        assert!(close(spread.shortest_ms, 1.0) && close(spread.median_ms, 100.0));
        assert!(close(spread.p99_ms, 198.0) && close(spread.longest_ms, 200.0));
        assert!(close(Spread::of(Vec::new()).longest_ms, 0.0));
    }
}
