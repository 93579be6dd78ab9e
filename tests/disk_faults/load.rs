//! Numbered messages into a session that is away, and who was told what about them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::broker::clock;
use crate::bytes::{self, Connect, Packet, Publish};
use crate::client::Client;

/// Where they go.
pub const TOPIC: &str = "store";

/// Publishes before the first acknowledgement: below the receive maximum that the program announces.
const WINDOW: u32 = 200;

/// How long nothing must come before all is taken to have come.
const QUIET: Duration = Duration::from_millis(300);

/// How long a reader waits for what it is owed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What publishers were told, and readers took.
#[derive(Default, Debug)]
pub struct Books {
    next: u32,
    /// Told that it is safe: number to QoS.
    accepted: BTreeMap<u32, u8>,
    /// Told that it was refused, with a reason.
    refused: BTreeSet<u32>,
    /// Acknowledged by the reader, or on its way to it.
    taken: BTreeSet<u32>,
    /// Exchanges of QoS 2 that the reader has begun: packet id and message. It keeps them over every connection.
    open: BTreeMap<u16, u32>,
}

/// How publishing ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    pub accepted: u32,
    pub refused: u32,
    /// The connection ended before an answer.
    pub unanswered: u32,
}

/// Makes the session that is away, with its subscription.
pub fn subscribe_away(address: SocketAddr) {
    let mut away = Client::connect_at(address, &away());
    assert_eq!(away.subscribe(TOPIC, 2), 2);
    away.disconnect();
}

/// Gives up what still holds the oldest segment, a subscription, and waits until another is taken.
pub fn subscribe_anew(address: SocketAddr) {
    let mut away = Client::connect_at(address, &away());
    assert_eq!(away.unsubscribe(&[TOPIC]), [0]);
    let begun = clock();
    while away.subscribe(TOPIC, 2) != 2 {
        assert!(begun.elapsed() < PATIENCE, "nothing was freed");
        away.hears_within(Duration::from_millis(50));
    }
    away.disconnect();
}

fn away() -> Connect {
    Connect::durable("away")
}

/// A publisher of that protocol level.
pub fn publisher(address: SocketAddr, level: u8) -> Client {
    let connect = if level == 5 { Connect::v5("publisher") } else { Connect::v3("old publisher") };
    Client::connect_at(address, &connect)
}

impl Books {
    /// How many were acknowledged to their publishers and are not with the reader yet.
    pub fn owed(&self) -> usize {
        self.accepted.keys().filter(|number| !self.taken.contains(number)).count()
    }

    /// Publishes so many of that size at once, and waits for all answers or the end of the connection.
    pub fn publish(&mut self, client: &mut Client, level: u8, qos: u8, count: u32, size: usize) -> Told {
        assert!(count <= WINDOW);
        let first = self.next;
        self.next += count;
        let id = |number: u32| (1 + number % 60_000) as u16;
        let mut sent = BTreeMap::new();
        let mut packets = Vec::new();
        for number in first..self.next {
            let text = format!("{number:08}{}", "x".repeat(size));
            packets.extend(Publish::new(TOPIC, &text).qos(qos, id(number)).bytes(level));
            sent.insert(id(number), number);
        }
        client.send_regardless(&packets);
        let mut told = Told { accepted: 0, refused: 0, unanswered: count };
        while told.unanswered > 0 {
            let Some(packet) = client.receive_end() else { break };
            let Packet::Ack { kind, id, reason, .. } = packet else {
                // 3.1.1 has no word for it, 5 may say so before it closes.
                assert!(matches!(packet, Packet::Disconnect { .. }), "{packet:?}");
                continue;
            };
            let number = sent[&id];
            match (kind, reason) {
                (4, 0) | (5, 0) => {
                    self.accepted.insert(number, qos);
                    told.accepted += 1;
                    if kind == 5 {
                        client.send_regardless(&bytes::ack(6, id));
                    } else {
                        told.unanswered -= 1;
                    }
                }
                (4 | 5, 0x97) => {
                    self.refused.insert(number);
                    told.refused += 1;
                    told.unanswered -= 1;
                }
                (7, 0) => told.unanswered -= 1,
                other => panic!("an answer of {other:?} to message {number}"),
            }
        }
        told
    }

    /// Publishes in turn at QoS 1 and 2 until something is refused, the connection ends, or so many are accepted.
    pub fn publish_until_refused(&mut self, client: &mut Client, level: u8, most: u32, size: usize) -> Told {
        let mut all = Told { accepted: 0, refused: 0, unanswered: 0 };
        for qos in [1, 2].into_iter().cycle() {
            let told = self.publish(client, level, qos, 50, size);
            all.accepted += told.accepted;
            all.refused += told.refused;
            all.unanswered += told.unanswered;
            if told.refused > 0 || told.unanswered > 0 || all.accepted >= most {
                return all;
            }
        }
        unreachable!("the cycle does not end")
    }

    fn take(&mut self, publish: &Publish) {
        let number: u32 = publish.text()[..8].parse().expect("a number in front");
        assert!(!self.refused.contains(&number), "message {number} was refused");
        let first = self.taken.insert(number);
        // A crash may lose an acknowledgement: QoS 1 promises no more, QoS 2 goes on with the same packet id.
        let goes_on = publish.qos == 2 && publish.dup && self.open.get(&publish.id) == Some(&number);
        assert!(first || publish.qos == 1 || goes_on, "message {number} came twice");
        if publish.qos == 2 {
            self.open.insert(publish.id, number);
        }
    }

    /// The session that was away takes at most so many messages, and everything it is owed if that is enough. Returns
    /// how many it took, at the latest when the connection ends.
    pub fn drain(&mut self, address: SocketAddr, most: usize) -> usize {
        self.drain_while(address, |books, reader, count| {
            count < most && (books.owed() > 0 || reader.hears_within(QUIET))
        })
    }

    /// It takes everything that comes, until nothing does.
    pub fn drain_what_there_is(&mut self, address: SocketAddr) -> usize {
        self.drain_while(address, |_, reader, _| reader.hears_within(10 * QUIET))
    }

    fn drain_while(
        &mut self,
        address: SocketAddr,
        mut goes_on: impl FnMut(&Books, &mut Client, usize) -> bool,
    ) -> usize {
        let mut reader = Client::connect_at(address, &away());
        assert!(reader.present, "the session is there");
        let begun = clock();
        let mut count = 0;
        while goes_on(self, &mut reader, count) {
            assert!(begun.elapsed() < PATIENCE, "{} messages are owed and do not come", self.owed());
            let Some(packet) = reader.receive_unless_cut() else { return count };
            match packet {
                Packet::Publish(publish) => {
                    self.take(&publish);
                    count += 1;
                    reader.send_regardless(&bytes::ack(if publish.qos == 2 { 5 } else { 4 }, publish.id));
                }
                Packet::Ack { kind: 6, id, .. } => {
                    self.open.remove(&id);
                    reader.send_regardless(&bytes::ack(7, id));
                }
                Packet::Disconnect { .. } => {}
                other => panic!("{other:?} to a reader"),
            }
        }
        // What was begun at QoS 2 is ended, so that the next connection does not have it again.
        while !self.open.is_empty() {
            match reader.receive() {
                Packet::Ack { kind: 6, id, .. } => {
                    self.open.remove(&id);
                    reader.send(&bytes::ack(7, id));
                }
                Packet::Publish(publish) if self.open.contains_key(&publish.id) => {
                    reader.send(&bytes::ack(5, publish.id));
                }
                // One that came too late for this reader: it comes again.
                Packet::Publish(_) => {}
                other => panic!("{other:?} to a reader"),
            }
        }
        reader.disconnect();
        count
    }

    /// Everything that is owed arrives, once, and nothing else.
    pub fn settle(&mut self, address: SocketAddr) {
        self.drain(address, usize::MAX);
        assert_eq!(self.owed(), 0);
    }
}

impl std::fmt::Display for Books {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (accepted, refused, taken) = (self.accepted.len(), self.refused.len(), self.taken.len());
        write!(formatter, "{accepted} accepted, {refused} refused, {taken} delivered, {} owed", self.owed())
    }
}
