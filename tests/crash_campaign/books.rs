//! The books: what was sent, what was acknowledged to its sender, what arrived where; and what is wrong with that.
//!
//! They know nothing of the broker. A message is its stream and its number; its payload is a function of both, so
//! that one that nobody sent, or sent otherwise, is recognised. What must hold:
//!
//! 1. an acknowledged message (PUBACK, or PUBREC at QoS 2) arrives at each recipient whose subscription was
//!    acknowledged before the message was sent;
//! 2. published and subscribed at QoS 2, it arrives once;
//! 3. the messages of one stream (one publisher, one topic, one QoS) that a recipient is owed arrive for the first time
//!    in the order sent (what was accepted before it subscribed may be routed again after a crash, and find it then);
//! 4. nothing else arrives.

use std::fmt;

use crate::random::Random;

/// Bytes in front of a payload's filling: stream, number.
const HEAD_BYTES: usize = 12;

/// Failures that are spelt out; more are only counted.
const FAILURES_TOLD: usize = 30;

/// A publisher's messages to one topic.
pub struct Stream {
    pub topic: String,
    pub qos: u8,
    /// By number: whether its sender was told that the broker has it.
    acknowledged: Vec<bool>,
}

/// Who gets messages: a session, or all members of a shared subscription taken together.
pub struct Recipient {
    pub name: String,
    /// A session that ends with its connection owes nothing and is owed nothing.
    durable: bool,
    /// Members of a group share a stream, which ends its order.
    ordered: bool,
    /// Sessions behind it whose subscription has not been acknowledged yet.
    awaited: u32,
    /// By stream.
    wanted: Vec<Option<Wanted>>,
}

/// One stream at one recipient.
#[derive(Clone)]
struct Wanted {
    qos: u8,
    /// The first message sent after the subscription was acknowledged.
    owed_from: Option<usize>,
    /// The first message sent after all sessions behind the recipient had subscribed. A group that grows while a message
    /// is on its way may be dealt that one again after a crash, by the new number of its members.
    settled_from: Option<usize>,
    /// By number: how often it arrived.
    arrivals: Vec<u16>,
    highest: Option<usize>,
}

/// What was counted.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    pub kills: u32,
    pub shutdowns: u32,
    pub orderly_stops: u32,
    /// Brokers that ended by themselves when their disk was gone.
    pub failed_stops: u32,
    pub starts: u32,
    pub start_ms_sum: u64,
    pub start_ms_max: u64,
    pub sent: u64,
    pub acknowledged: u64,
    /// Acknowledged before the last crash of their round.
    pub acknowledged_before_crash: u64,
    pub refused: u64,
    pub deliveries: u64,
    pub repeats: u64,
    pub duplicates: u64,
    pub lost: u64,
    pub disorders: u64,
    pub inventions: u64,
    pub failures: u64,
}

/// See the module documentation.
pub struct Books {
    seed: u64,
    pub streams: Vec<Stream>,
    pub recipients: Vec<Recipient>,
    pub totals: Totals,
    pub failures: Vec<String>,
    /// Which life of the broker it is, for what goes wrong in it.
    pub life: String,
}

impl Books {
    pub fn new(seed: u64) -> Books {
        let (streams, recipients, failures) = (Vec::new(), Vec::new(), Vec::new());
        Books { seed, streams, recipients, totals: Totals::default(), failures, life: String::new() }
    }

    pub fn add_stream(&mut self, topic: String, qos: u8) -> usize {
        self.streams.push(Stream { topic, qos, acknowledged: Vec::new() });
        self.streams.len() - 1
    }

    /// `wanted` says at which QoS the recipient gets a stream, if at all.
    pub fn add_recipient(
        &mut self,
        name: &str,
        durable: bool,
        members: u32,
        wanted: impl Fn(&str) -> Option<u8>,
    ) -> usize {
        let wanted = |stream: &Stream| {
            let qos = wanted(&stream.topic)?.min(stream.qos);
            Some(Wanted { qos, owed_from: None, settled_from: None, arrivals: Vec::new(), highest: None })
        };
        let wanted = self.streams.iter().map(wanted).collect();
        self.recipients.push(Recipient {
            name: name.to_owned(),
            durable,
            ordered: durable && members == 1,
            awaited: members,
            wanted,
        });
        self.recipients.len() - 1
    }

    /// Takes the next number of a stream; its payload.
    pub fn send(&mut self, stream: usize) -> (usize, Vec<u8>) {
        let number = self.streams[stream].acknowledged.len();
        self.streams[stream].acknowledged.push(false);
        self.totals.sent += 1;
        (number, self.payload(stream, number))
    }

    /// Most are small, as messages of devices are; some are large enough to cross the blocks of a journal.
    pub fn payload(&self, stream: usize, number: usize) -> Vec<u8> {
        let mut random = Random::new(self.seed ^ (stream as u64) << 48 ^ number as u64);
        let filling = match random.between(0, 99) {
            0 => random.between(4_000, 20_000),
            1..=9 => random.between(500, 4_000),
            _ => random.between(0, 200),
        };
        let mut payload = Vec::with_capacity(HEAD_BYTES + 20_000);
        payload.extend(u32::try_from(stream).expect("few streams").to_be_bytes());
        payload.extend((number as u64).to_be_bytes());
        let word = random.next().to_be_bytes();
        payload.extend((0..filling).map(|index| word[(index % 8) as usize]));
        payload
    }

    /// The sender was told that the broker has it.
    pub fn acknowledged(&mut self, stream: usize, number: usize) {
        let known = &mut self.streams[stream].acknowledged[number];
        if !std::mem::replace(known, true) {
            self.totals.acknowledged += 1;
        }
    }

    /// A recipient's subscriptions stand: from here on it is owed.
    pub fn subscribed(&mut self, recipient: usize) {
        let receiver = &mut self.recipients[recipient];
        receiver.awaited = receiver.awaited.saturating_sub(1);
        for (wanted, stream) in receiver.wanted.iter_mut().zip(&self.streams) {
            if let Some(wanted) = wanted {
                // The first member of a group is enough.
                wanted.owed_from.get_or_insert(stream.acknowledged.len());
                if receiver.awaited == 0 {
                    wanted.settled_from.get_or_insert(stream.acknowledged.len());
                }
            }
        }
    }

    /// A message arrived: handed over by a client that keeps the rules of QoS 2 itself.
    pub fn arrived(&mut self, recipient: usize, topic: &str, qos: u8, payload: &[u8]) {
        self.totals.deliveries += 1;
        let Some((stream, number)) = self.identify(topic, payload) else {
            self.totals.inventions += 1;
            let name = self.recipients[recipient].name.clone();
            self.fail(format!("{name} got {} bytes on {topic} that nobody sent", payload.len()));
            return;
        };
        let receiver = &mut self.recipients[recipient];
        let Some(wanted) = &mut receiver.wanted[stream] else {
            let name = receiver.name.clone();
            return self.fail(format!("{name} got {topic} without having subscribed to it"));
        };
        let mut failure = None;
        if qos != wanted.qos {
            failure = Some(format!("at QoS {qos} instead of {}", wanted.qos));
        }
        if wanted.arrivals.len() <= number {
            wanted.arrivals.resize(number + 1, 0);
        }
        wanted.arrivals[number] = wanted.arrivals[number].saturating_add(1);
        if wanted.arrivals[number] > 1 {
            let settled = receiver.ordered || wanted.settled_from.is_some_and(|first| number >= first);
            if !receiver.durable || wanted.qos < 2 || !settled {
                self.totals.repeats += 1;
            } else {
                self.totals.duplicates += 1;
                failure = Some("a second time, at QoS 2".to_owned());
            }
        } else if receiver.ordered && wanted.owed_from.is_some_and(|first| number >= first) {
            if let Some(highest) = wanted.highest.filter(|highest| number < *highest) {
                self.totals.disorders += 1;
                failure = Some(format!("for the first time only after message {highest}"));
            }
            wanted.highest = wanted.highest.max(Some(number));
        }
        if let Some(failure) = failure {
            let name = receiver.name.clone();
            self.fail(format!("{name} got message {number} of {topic} {failure}"));
        }
    }

    /// Which message that is, if it is one.
    fn identify(&self, topic: &str, payload: &[u8]) -> Option<(usize, usize)> {
        let (head, _) = payload.split_at_checked(HEAD_BYTES)?;
        let (stream, number) = head.split_at(4);
        let stream = u32::from_be_bytes(stream.try_into().ok()?) as usize;
        let number = usize::try_from(u64::from_be_bytes(number.try_into().ok()?)).ok()?;
        let known = self.streams.get(stream)?;
        let sent = known.topic == topic && number < known.acknowledged.len();
        (sent && self.payload(stream, number) == payload).then_some((stream, number))
    }

    /// Messages that are acknowledged, owed, and have not arrived.
    pub fn missing(&self) -> u64 {
        self.recipients
            .iter()
            .map(|recipient| self.missing_at(recipient).map(|(.., count)| count).sum::<u64>())
            .sum()
    }

    /// At one recipient, by stream: the first that is missing, and how many are.
    fn missing_at<'a>(&'a self, recipient: &'a Recipient) -> impl Iterator<Item = (&'a Stream, usize, u64)> {
        self.streams.iter().zip(&recipient.wanted).filter_map(|(stream, wanted)| {
            let wanted = wanted.as_ref().filter(|_| recipient.durable)?;
            let owed = wanted.owed_from?..stream.acknowledged.len();
            let is_missing = |number: &usize| {
                stream.acknowledged[*number] && wanted.arrivals.get(*number).is_none_or(|count| *count == 0)
            };
            let first = owed.clone().find(is_missing)?;
            Some((stream, first, owed.filter(is_missing).count() as u64))
        })
    }

    /// Everybody has had time to get everything: what is missing now is lost.
    pub fn audit(&mut self) {
        let mut found = Vec::new();
        for recipient in &self.recipients {
            for (stream, first, count) in self.missing_at(recipient) {
                let (name, topic) = (&recipient.name, &stream.topic);
                let text =
                    format!("{name} never got {count} acknowledged message(s) of {topic}, first {first}");
                found.push((text, count));
            }
        }
        for (text, count) in found {
            self.totals.lost += count;
            self.fail(text);
        }
    }

    pub fn fail(&mut self, failure: String) {
        self.totals.failures += 1;
        if self.failures.len() < FAILURES_TOLD {
            self.failures.push(format!("{}: {failure}", self.life));
        }
    }
}

impl Totals {
    pub fn add(&mut self, other: &Totals) {
        self.start_ms_max = self.start_ms_max.max(other.start_ms_max);
        for (sum, part) in [
            (&mut self.kills, other.kills),
            (&mut self.shutdowns, other.shutdowns),
            (&mut self.orderly_stops, other.orderly_stops),
            (&mut self.failed_stops, other.failed_stops),
            (&mut self.starts, other.starts),
        ] {
            *sum += part;
        }
        for (sum, part) in [
            (&mut self.start_ms_sum, other.start_ms_sum),
            (&mut self.sent, other.sent),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.acknowledged_before_crash, other.acknowledged_before_crash),
            (&mut self.refused, other.refused),
            (&mut self.deliveries, other.deliveries),
            (&mut self.repeats, other.repeats),
            (&mut self.duplicates, other.duplicates),
            (&mut self.lost, other.lost),
            (&mut self.disorders, other.disorders),
            (&mut self.inventions, other.inventions),
            (&mut self.failures, other.failures),
        ] {
            *sum += part;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = self.start_ms_sum.checked_div(u64::from(self.starts)).unwrap_or(0);
        write!(
            formatter,
            "{} kills, {} shutdowns ({} brokers stopped by themselves), {} orderly stops; {} starts, mean {mean} ms, \
             longest {} ms\n  {} sent, {} acknowledged ({} before a crash), {} refused; {} deliveries, {} repeats at \
             QoS 1\n  {} acknowledged lost, {} QoS 2 duplicates, {} out of order, {} invented; {} failure(s) in all",
            self.kills,
            self.shutdowns,
            self.failed_stops,
            self.orderly_stops,
            self.starts,
            self.start_ms_max,
            self.sent,
            self.acknowledged,
            self.acknowledged_before_crash,
            self.refused,
            self.deliveries,
            self.repeats,
            self.lost,
            self.duplicates,
            self.disorders,
            self.inventions,
            self.failures,
        )
    }
}

/// Two streams, QoS 1 and 2, and a session subscribed to both at QoS 2 after message 0.
#[cfg(test)]
fn sample() -> Books {
    let mut books = Books::new(7);
    books.add_stream("a/1".to_owned(), 1);
    books.add_stream("a/2".to_owned(), 2);
    let session = books.add_recipient("session", true, 1, |_| Some(2));
    for stream in [0, 1] {
        books.send(stream);
    }
    books.subscribed(session);
    for stream in [0, 1] {
        for number in [1, 2, 3] {
            assert_eq!(books.send(stream).0, number);
        }
    }
    books
}

#[cfg(test)]
fn arrive(books: &mut Books, stream: usize, number: usize) {
    let (payload, topic) = (books.payload(stream, number), books.streams[stream].topic.clone());
    let qos = books.streams[stream].qos;
    books.arrived(0, &topic, qos, &payload);
}

#[test]
fn what_was_acknowledged_and_owed_must_arrive() {
    let mut books = sample();
    books.acknowledged(0, 0);
    assert_eq!(books.missing(), 0, "sent before the subscription stood");
    books.acknowledged(0, 2);
    assert_eq!(books.missing(), 1);
    arrive(&mut books, 0, 2);
    assert_eq!(books.missing(), 0);
    books.acknowledged(1, 3);
    books.audit();
    assert_eq!((books.totals.lost, books.totals.failures), (1, 1));
}

#[test]
fn a_second_arrival_is_a_failure_only_at_qos_2() {
    let mut books = sample();
    (0..2).for_each(|_| arrive(&mut books, 0, 1));
    assert_eq!((books.totals.repeats, books.totals.failures), (1, 0));
    (0..2).for_each(|_| arrive(&mut books, 1, 1));
    assert_eq!((books.totals.duplicates, books.totals.failures), (1, 1));
}

#[test]
fn a_first_arrival_after_a_later_message_is_disorder() {
    let mut books = sample();
    for number in [1, 2, 1, 3] {
        arrive(&mut books, 0, number);
    }
    assert_eq!(books.totals.disorders, 0, "a repeat may come late");
    for number in [2, 1] {
        arrive(&mut books, 1, number);
    }
    assert_eq!((books.totals.disorders, books.totals.failures), (1, 1));
}

#[test]
fn what_nobody_sent_is_an_invention() {
    let mut books = sample();
    let mut payload = books.payload(0, 1);
    books.arrived(0, "a/2", 1, &payload);
    payload.push(0);
    books.arrived(0, "a/1", 1, &payload);
    let unsent = books.payload(0, 4);
    books.arrived(0, "a/1", 1, &unsent);
    assert_eq!((books.totals.inventions, books.totals.failures), (3, 3));
}
