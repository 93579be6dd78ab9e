//! A subscribing client with a store of its own: packet identifiers of QoS 2 between PUBREC and PUBREL outlive its
//! connections, so that a repeat by the broker's rules is no second message, and a new identifier is one.
//!
//! It may acknowledge at once or late, read in spells, and be away for most of the time.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ironpost::wire::{
    AckKind, Connack, Packet, PacketId, Publish, QoS, ReasonCode, Subscribe, SubscribeOptions,
};
use mio::{Registry, Token};

use crate::books::Books;
use crate::link::{Identity, Link, Welcome};

/// How a subscriber behaves until the audit, when all of them are prompt.
#[derive(Clone, Copy, Default, Debug)]
pub struct Manner {
    /// How long it takes to acknowledge.
    pub late: Duration,
    /// Of a thousand lives of the broker, those in which it comes at all.
    pub present_permille: u64,
    /// Of a thousand moments, those at which it reads.
    pub reading_permille: u64,
}

/// See the module documentation.
pub struct Subscriber {
    pub identity: Identity,
    filters: Vec<(String, u8)>,
    recipient: usize,
    pub manner: Manner,
    subscribed: bool,
    known: bool,
    /// QoS 2 messages handed over whose PUBREL has not come.
    unreleased: BTreeSet<PacketId>,
    /// Answers to be sent, and when.
    due: VecDeque<(Instant, AckKind, PacketId)>,
    link: Option<Link>,
}

impl Subscriber {
    pub fn new(
        identity: Identity,
        filters: Vec<(String, u8)>,
        recipient: usize,
        manner: Manner,
    ) -> Subscriber {
        Subscriber {
            identity,
            filters,
            recipient,
            manner,
            subscribed: false,
            known: false,
            unreleased: BTreeSet::new(),
            due: VecDeque::new(),
            link: None,
        }
    }

    pub fn is_online(&self) -> bool {
        self.link.is_some()
    }

    /// Every exchange of it is over.
    pub fn is_idle(&self) -> bool {
        self.unreleased.is_empty() && self.due.is_empty()
    }

    pub fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    pub fn connect(&mut self, address: SocketAddr, registry: &Registry, token: Token) {
        if !self.identity.durable {
            self.subscribed = false;
            self.unreleased.clear();
        }
        self.link = Link::open(address, registry, token, &self.identity);
    }

    /// The connection is over; what had arrived before may still be heard, or be lost with it.
    pub fn lose(&mut self, listen: bool, now: Instant, books: &mut Books) {
        if listen {
            self.hear(now, books);
        }
        self.link = None;
        self.due.clear();
    }

    /// Reads if it is to, answers what is due, writes.
    pub fn work(&mut self, reads: bool, now: Instant, books: &mut Books) {
        if reads {
            self.hear(now, books);
        }
        let Some(link) = &mut self.link else { return };
        while let Some((_, kind, packet_id)) = self.due.pop_front_if(|(due, ..)| *due <= now) {
            link.acknowledge(kind, packet_id);
        }
        link.flush();
        if link.has_ended() {
            self.lose(true, now, books);
        }
    }

    fn hear(&mut self, now: Instant, books: &mut Books) {
        let Some(link) = &mut self.link else { return };
        link.fill();
        while let Some(frame) = self.link.as_mut().and_then(Link::frame) {
            let Some(link) = &self.link else { return };
            match link.decode(&frame) {
                Packet::Connack(connack) => self.connack(&connack, books),
                Packet::Suback(suback) => {
                    let granted: Vec<ReasonCode> = suback.reasons.iter().collect();
                    let wanted = self.filters.iter().map(|(_, qos)| *qos);
                    if !granted.iter().map(|reason| *reason as u8).eq(wanted) {
                        books.fail(format!("{} was granted {granted:?}", self.identity.client_id));
                    }
                    self.subscribed = true;
                    books.subscribed(self.recipient);
                }
                Packet::Publish(publish) => self.publish(&publish, now, books),
                Packet::Ack(ack) if ack.kind == AckKind::Pubrel => {
                    self.unreleased.remove(&ack.packet_id);
                    self.due.push_back((now + self.manner.late, AckKind::Pubcomp, ack.packet_id));
                }
                Packet::Disconnect(_) => {}
                packet => books.fail(format!("{} got {packet:?}", self.identity.client_id)),
            }
        }
    }

    fn connack(&mut self, connack: &Connack<'_>, books: &mut Books) {
        match self.identity.welcome(connack, self.known, books) {
            Welcome::No => return,
            Welcome::Forgotten => {
                // Otherwise every message from here on would be one more failure that says the same.
                self.subscribed = false;
            }
            Welcome::Yes => {}
        }
        self.known = true;
        let Some(link) = self.link.as_mut().filter(|_| !self.subscribed) else { return };
        let mut entries = Vec::new();
        for (filter, qos) in &self.filters {
            let qos = QoS::from_bits(*qos).expect("a filter has a QoS");
            Subscribe::push_entry(
                &mut entries,
                filter,
                SubscribeOptions { qos, ..SubscribeOptions::default() },
            );
        }
        link.send(&Packet::Subscribe(Subscribe::new(PacketId::MIN, None, &entries)));
    }

    fn publish(&mut self, publish: &Publish<'_>, now: Instant, books: &mut Books) {
        let Some(packet_id) = publish.packet_id else {
            return books.fail(format!("{} got {} at QoS 0", self.identity.client_id, publish.topic));
        };
        let exactly_once = publish.qos == QoS::ExactlyOnce;
        if !exactly_once || self.unreleased.insert(packet_id) {
            books.arrived(self.recipient, publish.topic, publish.qos as u8, publish.payload);
        }
        let kind = if exactly_once { AckKind::Pubrec } else { AckKind::Puback };
        self.due.push_back((now + self.manner.late, kind, packet_id));
    }
}
