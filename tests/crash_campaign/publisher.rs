//! A publishing client: a window of messages under way, and what it does about them after a crash.
//!
//! It remembers its exchanges as a client with a persistent store does. Whatever the broker says out of turn is a
//! failure in the books. Three manners of coming back: resume the session, and send again what has no answer; begin
//! a new session, and send again what has no PUBACK; begin a new session, and forget.

use std::collections::VecDeque;
use std::net::SocketAddr;

use ironpost::wire::{Ack, AckKind, Connack, Packet, PacketId, Properties, Publish, QoS};
use mio::{Registry, Token};

use crate::books::Books;
use crate::link::{Identity, Link, Welcome};
use crate::random::Random;

/// Output that waits for the broker to read; beyond, nothing more is published.
const BACKLOG_BYTES_MAX: usize = 256 << 10;

/// What becomes of messages that were not acknowledged when the connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Return {
    Resume,
    SendAgain,
    Forget,
}

/// One message under way.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    packet_id: PacketId,
    stream: usize,
    number: usize,
    /// PUBREC has come, and PUBREL is owed an answer.
    received: bool,
    /// The disk was gone when its last packet was first sent.
    too_late: bool,
}

/// See the module documentation.
pub struct Publisher {
    pub identity: Identity,
    manner: Return,
    streams: Vec<usize>,
    window: usize,
    under_way: VecDeque<Exchange>,
    last_id: u16,
    /// A session of it exists at the broker, if it resumes.
    known: bool,
    link: Option<Link>,
    accepted: bool,
    /// Messages it may still send in this life.
    pub allowance: u32,
    /// The disk is gone: what is sent now cannot be stored.
    pub disk_gone: bool,
}

impl Publisher {
    pub fn new(identity: Identity, manner: Return, streams: Vec<usize>, window: usize) -> Publisher {
        Publisher {
            identity,
            manner,
            streams,
            window,
            under_way: VecDeque::new(),
            last_id: 0,
            known: false,
            link: None,
            accepted: false,
            allowance: 0,
            disk_gone: false,
        }
    }

    pub fn is_online(&self) -> bool {
        self.link.is_some()
    }

    /// Nothing is owed to it.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    pub fn connect(&mut self, address: SocketAddr, registry: &Registry, token: Token) {
        self.accepted = false;
        self.link = Link::open(address, registry, token, &self.identity);
    }

    /// The connection is over; what the broker has said before may still be heard.
    pub fn lose(&mut self, listen: bool, books: &mut Books) {
        if listen {
            self.hear(books);
        }
        self.link = None;
    }

    /// Reads, answers, publishes, writes.
    pub fn work(&mut self, random: &mut Random, books: &mut Books) {
        self.hear(books);
        if self.accepted {
            let burst = random.between(1, 12);
            self.publish(burst, random, books);
        }
        if let Some(link) = &mut self.link {
            link.flush();
            if link.has_ended() {
                self.lose(true, books);
            }
        }
    }

    fn hear(&mut self, books: &mut Books) {
        let Some(link) = &mut self.link else { return };
        link.fill();
        while let Some(frame) = self.link.as_mut().and_then(Link::frame) {
            let Some(link) = &self.link else { return };
            match link.decode(&frame) {
                Packet::Connack(connack) => self.connack(&connack, books),
                Packet::Ack(ack) => self.answer(&ack, books),
                Packet::Disconnect(_) => {}
                packet => books.fail(format!("{} got {packet:?}", self.identity.client_id)),
            }
        }
    }

    fn connack(&mut self, connack: &Connack<'_>, books: &mut Books) {
        if self.identity.welcome(connack, self.known, books) == Welcome::No {
            return;
        }
        self.known = true;
        self.accepted = true;
        match self.manner {
            // A PUBREC has no meaning in the session that follows.
            Return::Forget => self.under_way.clear(),
            Return::Resume | Return::SendAgain => {
                for index in 0..self.under_way.len() {
                    self.under_way[index].too_late = false;
                    let exchange = self.under_way[index];
                    self.say(exchange, true, books);
                }
            }
        }
    }

    /// Sends what is due of an exchange.
    fn say(&mut self, exchange: Exchange, dup: bool, books: &Books) {
        let Some(link) = &mut self.link else { return };
        if exchange.received {
            return link.acknowledge(AckKind::Pubrel, exchange.packet_id);
        }
        let stream = &books.streams[exchange.stream];
        let payload = books.payload(exchange.stream, exchange.number);
        link.send(&Packet::Publish(Publish {
            dup,
            qos: QoS::from_bits(stream.qos).expect("a stream has a QoS"),
            retain: false,
            topic: &stream.topic,
            packet_id: Some(exchange.packet_id),
            message_expiry: None,
            topic_alias: None,
            subscription_ids: &[],
            carries_subscription_id: false,
            forward: Properties::EMPTY,
            payload: &payload,
        }));
    }

    fn publish(&mut self, burst: u64, random: &mut Random, books: &mut Books) {
        for _ in 0..burst {
            let backlog = self.link.as_ref().map_or(0, Link::backlog);
            if self.under_way.len() >= self.window || self.allowance == 0 || backlog > BACKLOG_BYTES_MAX {
                return;
            }
            self.allowance -= 1;
            let stream = random.one_of(&self.streams);
            let (number, _) = books.send(stream);
            let packet_id = self.free_id();
            let exchange = Exchange { packet_id, stream, number, received: false, too_late: self.disk_gone };
            self.under_way.push_back(exchange);
            self.say(exchange, false, books);
        }
    }

    fn free_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let packet_id = PacketId::new(self.last_id).expect("never 0");
            if self.under_way.iter().all(|exchange| exchange.packet_id != packet_id) {
                return packet_id;
            }
        }
    }

    fn answer(&mut self, ack: &Ack<'_>, books: &mut Books) {
        let name = &self.identity.client_id;
        // PUBACKs and PUBRECs each come in the order of their PUBLISHes.
        let qos = if ack.kind == AckKind::Puback { 1 } else { 2 };
        let is_due = |exchange: &Exchange| match ack.kind {
            AckKind::Pubcomp => exchange.received && exchange.packet_id == ack.packet_id,
            _ => !exchange.received && books.streams[exchange.stream].qos == qos,
        };
        let Some(index) = self.under_way.iter().position(is_due) else {
            return books.fail(format!("{name} was sent {:?} for nothing", ack.kind));
        };
        let exchange = self.under_way[index];
        if exchange.packet_id != ack.packet_id {
            let (got, due) = (ack.packet_id, exchange.packet_id);
            return books.fail(format!("{name} was sent {:?} {got} before that of {due}", ack.kind));
        }
        if exchange.too_late && ack.kind != AckKind::Puback && !ack.reason.is_failure() {
            let what = (&books.streams[exchange.stream].topic, exchange.number);
            books.fail(format!("{name} was sent {:?} for what no disk has: {what:?}", ack.kind));
        }
        if ack.kind == AckKind::Pubcomp {
            self.under_way.remove(index);
            return;
        }
        if ack.reason.is_failure() {
            books.totals.refused += 1;
            books.fail(format!("{name}: a message was refused: {}", ack.reason));
            self.under_way.remove(index);
            return;
        }
        books.acknowledged(exchange.stream, exchange.number);
        if ack.kind == AckKind::Puback {
            self.under_way.remove(index);
            return;
        }
        // The identifiers of a session that ends with its connection are on no disk.
        let too_late = self.disk_gone && self.identity.durable;
        let exchange = Exchange { received: true, too_late, ..exchange };
        self.under_way[index] = exchange;
        self.say(exchange, false, books);
    }
}
