//! The clients of a small world, and what they know afterwards: a publisher, and two subscribers with sessions that last.
//!
//! They are values, so that a crash can be tried on a copy of them. They keep to the protocol and keep their state over
//! every crash: the publisher sends again what it has no answer for, the subscribers remember which QoS 2 messages they
//! have. What they get is judged at once (`Books`).

use std::collections::{BTreeMap, VecDeque};

use ironpost::ids::Lsn;
use ironpost::wire::{
    self, Ack, AckKind, Connack, Connect, Packet, PacketId, Properties, Publish, QoS, ReasonCode, Version,
};

/// Where ordinary messages go.
pub const TOPIC: &str = "stream";
/// Where retained ones go.
pub const RETAINED_TOPIC: &str = "state";
/// Subscribers.
pub const SUBSCRIBERS: usize = 2;

/// A message, by its number.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    pub qos: QoS,
    pub retain: bool,
    /// Which subscribers were sure of their subscription when it was sent.
    pub owed: [bool; SUBSCRIBERS],
    /// It was sent once more: at QoS 1 there may be two of it, and it may come to a session that began in between.
    pub again: bool,
}

/// What a subscriber has had of a message.
#[derive(Clone, Copy, Default, Debug)]
pub struct Receipt {
    /// How often it got it; at QoS 2, how often as another one.
    pub count: u32,
    /// How often because it was the retained one when a subscription began.
    pub retained: u32,
    /// It has acknowledged it for good, which a record up to that one says, in the journal of its home.
    pub finished: Option<Lsn>,
}

/// Everything that was sent and received.
#[derive(Clone, Default, Debug)]
pub struct Books {
    pub messages: Vec<Message>,
    pub receipts: Vec<[Receipt; SUBSCRIBERS]>,
    /// Messages before that number were left behind by a clean start that was asked for.
    given_up_before: [usize; SUBSCRIBERS],
    /// The same, of one that was confirmed.
    void_before: [usize; SUBSCRIBERS],
    /// One message goes to one of the subscribers.
    grouped: bool,
}

impl Books {
    pub fn new(grouped: bool) -> Books {
        Books { grouped, ..Books::default() }
    }

    fn receives(&mut self, who: usize, publish: &Publish<'_>, is_new: bool) {
        let text = std::str::from_utf8(publish.payload).expect("payloads are numbers");
        let number: usize = text.parse().expect("payloads are numbers");
        let message = *self.messages.get(number).expect("nobody sent that");
        assert_eq!(publish.topic == RETAINED_TOPIC, message.retain, "message {number} came to another topic");
        let receipt = self.receipts[number][who];
        let may_come = receipt.finished.is_none() || publish.retain || message.again;
        let is_of_another_session = message.again && number < self.given_up_before[who];
        assert!(may_come, "message {number} is back at {who}: it was done with");
        // A retained QoS 2 message that was not known to have arrived everywhere finds whoever is there after the crash.
        let is_routed_again = message.retain && message.qos == QoS::ExactlyOnce;
        let may_come_late = publish.retain || message.again || is_routed_again;
        let left_behind = number < self.void_before[who] && !may_come_late;
        assert!(!left_behind, "message {number} is back at {who}, which has started anew");
        if !is_new {
            return;
        }
        if publish.retain {
            self.receipts[number][who].retained += 1;
            return;
        }
        // What was sent before it subscribed may come when it is sent again, and then late.
        if receipt.count == 0 && !self.grouped && message.owed[who] {
            let earlier = |one: &Message| one.retain == message.retain && one.qos == message.qos;
            let overtaken = (number + 1..self.messages.len())
                .find(|later| earlier(&self.messages[*later]) && self.receipts[*later][who].count > 0);
            assert_eq!(overtaken, None, "message {number} came to {who} after a later one");
        }
        self.receipts[number][who].count += 1;
        let copies: u32 = match self.grouped && !message.retain {
            true => self.receipts[number].iter().map(|receipt| receipt.count).sum(),
            false => self.receipts[number][who].count,
        };
        let may_be_more = message.qos != QoS::ExactlyOnce || is_of_another_session;
        assert!(copies == 1 || may_be_more, "message {number} came {copies} times at QoS 2");
    }

    /// What somebody is still owed, in words.
    pub fn debts(&self) -> Vec<String> {
        let mut debts = Vec::new();
        for (number, message) in self.messages.iter().enumerate() {
            let receipts = &self.receipts[number];
            let missing = |who: &usize| {
                message.owed[*who]
                    && number >= self.given_up_before[*who]
                    && receipts[*who].count + receipts[*who].retained == 0
            };
            let missing: Vec<usize> = (0..SUBSCRIBERS).filter(missing).collect();
            let owed = message.owed.iter().filter(|owed| **owed).count();
            let anyone = receipts.iter().any(|receipt| receipt.count > 0);
            // A member that starts anew takes what it was given with it.
            let in_group = self.grouped && !message.retain;
            let is_debt =
                if in_group { owed > 0 && !anyone && missing.len() == owed } else { !missing.is_empty() };
            if is_debt {
                debts.push(format!("message {number} ({:?}) never came to {missing:?}", message.qos));
            }
        }
        debts
    }
}

/// Something of its own that a client has no last answer for.
#[derive(Clone, Copy, Debug)]
struct Outgoing {
    packet_id: u16,
    number: usize,
    /// PUBREC has come.
    received: bool,
}

/// What a subscriber has to answer.
#[derive(Clone, Copy, Debug)]
struct Owed {
    kind: AckKind,
    packet_id: u16,
    number: Option<usize>,
}

/// See the module documentation.
#[derive(Clone, Debug)]
pub struct Client {
    pub name: String,
    pub home: usize,
    /// As a subscriber.
    who: Option<usize>,
    filters: Vec<String>,
    pub slot: Option<u32>,
    pub accepted: bool,
    /// Its subscriptions hold.
    pub subscribed: bool,
    has_session: bool,
    /// It has forgotten what it knew, and says so until that is confirmed.
    must_start_clean: bool,
    connections: u32,
    packet_id: u16,
    outgoing: Vec<Outgoing>,
    owed: VecDeque<Owed>,
    /// QoS 2 messages that it has and that are not released.
    begun: BTreeMap<u16, usize>,
    /// Packets that it wants to send at once.
    pub says: VecDeque<Vec<u8>>,
}

impl Client {
    pub fn publisher(name: String, home: usize) -> Client {
        Client {
            name,
            home,
            who: None,
            filters: Vec::new(),
            slot: None,
            accepted: false,
            subscribed: false,
            has_session: false,
            must_start_clean: false,
            connections: 0,
            packet_id: 0,
            outgoing: Vec::new(),
            owed: VecDeque::new(),
            begun: BTreeMap::new(),
            says: VecDeque::new(),
        }
    }

    pub fn subscriber(who: usize, name: String, home: usize, filters: Vec<String>) -> Client {
        Client { who: Some(who), filters, ..Client::publisher(name, home) }
    }

    /// Nothing is left that it waits for, or that waits for it.
    pub fn is_done(&self) -> bool {
        self.accepted && self.outgoing.is_empty() && self.owed.is_empty() && self.says.is_empty()
    }

    /// A connection of its own begins: its slot, and what it says first.
    pub fn connects(&mut self, number: usize, clean_start: bool, books: &mut Books) -> (u32, Connect<'_>) {
        self.disconnected();
        self.connections += 1;
        let slot = self.connections * 8 + number as u32;
        self.slot = Some(slot);
        self.must_start_clean |= clean_start;
        if clean_start {
            self.has_session = false;
            self.subscribed = false;
            self.begun.clear();
            let who = self.who.expect("only subscribers start anew");
            books.given_up_before[who] = books.messages.len();
        }
        (slot, connect(&self.name, self.must_start_clean))
    }

    pub fn disconnected(&mut self) {
        self.slot = None;
        self.accepted = false;
        self.owed.clear();
        self.says.clear();
    }

    pub fn publishes(&mut self, qos: QoS, retain: bool, owed: [bool; SUBSCRIBERS], books: &mut Books) {
        let number = books.messages.len();
        books.messages.push(Message { qos, retain, owed, again: false });
        books.receipts.push(Default::default());
        self.packet_id += 1;
        let outgoing = Outgoing { packet_id: self.packet_id, number, received: false };
        self.outgoing.push(outgoing);
        self.says.push_back(publish(&outgoing, &books.messages[number], false));
    }

    /// Subscribes to that too.
    pub fn wants(&mut self, filter: &str) {
        self.says.push_back(subscribe(&[filter.to_owned()]));
    }

    /// Answers what it has had for longest: what to send, and the message if that was the last of it.
    pub fn answers(&mut self) -> Option<(Vec<u8>, Option<usize>)> {
        let owed = self.owed.pop_front()?;
        if owed.kind == AckKind::Pubcomp {
            self.begun.remove(&owed.packet_id);
        }
        let finishes = owed.kind == AckKind::Puback;
        Some((ack(owed.kind, owed.packet_id), owed.number.filter(|_| finishes)))
    }

    /// A packet of the broker.
    pub fn hears(&mut self, bytes: &[u8], books: &mut Books) {
        match wire::decode::packet(bytes, Some(Version::V5)).expect("the broker sends valid packets") {
            Packet::Connack(connack) => self.connack(&connack, books),
            Packet::Suback(_) => self.subscribed = true,
            Packet::Publish(publish) => self.receives(&publish, books),
            Packet::Ack(ack) => self.acknowledged(&ack),
            other => panic!("{} is told {other:?}", self.name),
        }
    }

    fn connack(&mut self, connack: &Connack<'_>, books: &mut Books) {
        assert_eq!(connack.reason, ReasonCode::Success, "{} is refused", self.name);
        assert!(connack.session_present || !self.has_session, "the session of {} is gone", self.name);
        assert!(!connack.session_present || !self.must_start_clean, "{} started clean", self.name);
        if let Some(who) = self.who.filter(|_| std::mem::take(&mut self.must_start_clean)) {
            books.void_before[who] = books.given_up_before[who];
        }
        if !connack.session_present {
            self.begun.clear();
            self.subscribed = false;
        }
        self.accepted = true;
        self.has_session = true;
        if !self.filters.is_empty() && !self.subscribed {
            self.says.push_back(subscribe(&self.filters));
        }
        for outgoing in &self.outgoing {
            let message = books.messages[outgoing.number];
            if outgoing.received {
                self.says.push_back(ack(AckKind::Pubrel, outgoing.packet_id));
                continue;
            }
            books.messages[outgoing.number].again = true;
            self.says.push_back(publish(outgoing, &message, true));
        }
    }

    fn receives(&mut self, publish: &Publish<'_>, books: &mut Books) {
        let who = self.who.expect("only subscribers get messages");
        let number: usize =
            std::str::from_utf8(publish.payload).expect("a number").parse().expect("a number");
        let Some(packet_id) = publish.packet_id.map(PacketId::get) else { panic!("nothing here is QoS 0") };
        if publish.qos == QoS::AtLeastOnce {
            books.receives(who, publish, true);
            self.owed.push_back(Owed { kind: AckKind::Puback, packet_id, number: Some(number) });
            return;
        }
        let before = self.begun.insert(packet_id, number);
        assert!(before.is_none_or(|before| before == number), "two messages share packet id {packet_id}");
        books.receives(who, publish, before.is_none());
        self.owed.push_back(Owed { kind: AckKind::Pubrec, packet_id, number: Some(number) });
    }

    fn acknowledged(&mut self, told: &Ack<'_>) {
        let packet_id = told.packet_id.get();
        // A release that is said again may be done already; whether the message was kept shows in the debts.
        let fails = told.reason.is_failure() && told.reason != ReasonCode::PacketIdentifierNotFound;
        assert!(!fails, "{} is told {:?}", self.name, told);
        if told.kind == AckKind::Pubrel {
            self.owed.push_back(Owed { kind: AckKind::Pubcomp, packet_id, number: None });
            return;
        }
        let position = self.outgoing.iter().position(|outgoing| outgoing.packet_id == packet_id);
        let position = position.expect("an answer to what was asked");
        if told.kind == AckKind::Pubrec {
            self.outgoing[position].received = true;
            self.says.push_back(ack(AckKind::Pubrel, packet_id));
        } else {
            self.outgoing.remove(position);
        }
    }
}

/// A packet, for a reader.
pub fn words(bytes: &[u8]) -> String {
    match wire::decode::packet(bytes, Some(Version::V5)).expect("a valid packet") {
        Packet::Publish(publish) => {
            let number = String::from_utf8_lossy(publish.payload);
            format!(
                "PUBLISH {:?} {:?} dup {} retain {} message {number}",
                publish.qos, publish.packet_id, publish.dup, publish.retain
            )
        }
        Packet::Ack(ack) => format!("{:?} {} {:?}", ack.kind, ack.packet_id, ack.reason),
        Packet::Connack(connack) => format!("CONNACK, session present {}", connack.session_present),
        other => format!("{other:?}").split(' ').next().unwrap_or_default().to_owned(),
    }
}

fn ack(kind: AckKind, packet_id: u16) -> Vec<u8> {
    let first_byte = match kind {
        AckKind::Puback => 0x40,
        AckKind::Pubrec => 0x50,
        AckKind::Pubrel => 0x62,
        AckKind::Pubcomp => 0x70,
    };
    let [high, low] = packet_id.to_be_bytes();
    vec![first_byte, 2, high, low]
}

fn publish(outgoing: &Outgoing, message: &Message, dup: bool) -> Vec<u8> {
    let payload = outgoing.number.to_string();
    let packet = Publish {
        dup,
        qos: message.qos,
        retain: message.retain,
        topic: if message.retain { RETAINED_TOPIC } else { TOPIC },
        packet_id: PacketId::new(outgoing.packet_id),
        message_expiry: None,
        topic_alias: None,
        subscription_ids: &[],
        carries_subscription_id: false,
        forward: Properties::EMPTY,
        payload: payload.as_bytes(),
    };
    let mut bytes = Vec::new();
    wire::encode::packet(&Packet::Publish(packet), Version::V5, &mut bytes);
    bytes
}

fn subscribe(filters: &[String]) -> Vec<u8> {
    let mut body = vec![0, 9, 0];
    for filter in filters {
        body.extend([0, filter.len() as u8]);
        body.extend_from_slice(filter.as_bytes());
        body.push(2);
    }
    [vec![0x82, body.len() as u8], body].concat()
}

fn connect(client_id: &str, clean_start: bool) -> Connect<'_> {
    Connect {
        version: Version::V5,
        clean_start,
        keep_alive: 0,
        session_expiry: Some(u32::MAX),
        receive_maximum: None,
        maximum_packet_size: None,
        topic_alias_maximum: None,
        request_response_information: false,
        request_problem_information: true,
        authentication_method: None,
        authentication_data: None,
        properties: Properties::EMPTY,
        client_id,
        will: None,
        username: None,
        password: None,
    }
}
