//! One client: a small machine that keeps to the protocol, and expects the broker to.
//!
//! It keeps what a good client keeps over connections (messages that are not acknowledged, QoS 2 identifiers that
//! are not released) for as long as its session lives, sends them again when the session is resumed, and drops them
//! when it is not. `driver` decides what it does next; `receive` judges what it gets. It shares nothing with the
//! broker but the codec.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU16;

use ironpost::reactor::sim::{ClientEnd, World};
use ironpost::time::{Now, UnixMs};
use ironpost::wire::{
    Ack, AckKind, Connect, Disconnect, Packet, PacketId, Properties, Publish, QoS, ReasonCode,
    RetainHandling, Subscribe, SubscribeOptions, Unsubscribe, Version, Will, encode,
};

use crate::oracle::{Kind, Message, MessageId, Oracle};
use crate::scenario::Habits;
use crate::sessions::{Asked, Existence};

/// What a client's step needs to know of the world around it.
pub struct Scene<'a> {
    pub oracle: &'a mut Oracle,
    pub now: Now,
    /// Of the broker: another one means that it had reason to close connections.
    pub epoch: u64,
    /// Whether the broker listens.
    pub serving: bool,
    /// Whether a publish may be refused, for want of queue or disk; version 3 has no answer but the connection's end.
    pub may_refuse: bool,
    /// Whether a journal may have been unable to grow: then what would need more disk is refused for a while.
    pub disk_failed: bool,
}

/// A publish whose exchange is not over.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    pub packet_id: PacketId,
    pub message: MessageId,
    pub qos: QoS,
    /// It was sent before, perhaps on an earlier connection.
    pub sent: bool,
    /// PUBREC arrived: from here on PUBREL is sent.
    pub received: bool,
}

/// A QoS 2 delivery that is not released.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    pub message: MessageId,
    /// PUBREC was sent, on this connection or an earlier one.
    pub answered: bool,
}

/// What SUBACK or UNSUBACK will answer.
#[derive(Clone, Debug)]
pub struct Request {
    pub packet_id: PacketId,
    pub unsubscribe: bool,
    pub filters: Vec<(&'static str, QoS)>,
}

/// One connection, as long as the client cares for it.
pub struct Link {
    pub end: ClientEnd,
    pub input: Vec<u8>,
    output: Vec<u8>,
    pub asked: Asked,
    /// CONNACK has arrived.
    pub up: bool,
    pub epoch: u64,
    pub served: bool,
    /// PUBACKs and PUBRECs due, in the order of the PUBLISHes.
    pub answers_due: VecDeque<(AckKind, PacketId)>,
    /// Deliveries that are not acknowledged on this connection.
    pub unacknowledged: BTreeSet<PacketId>,
    pub aliases: BTreeMap<u16, String>,
    aliases_out: BTreeMap<&'static str, u16>,
    pub request: Option<Request>,
    /// Publishes that a wary client has not sent on this connection yet.
    waiting: VecDeque<Outgoing>,
    /// Acknowledgements that are withheld, in order.
    withheld: Vec<(AckKind, PacketId)>,
    pub withholding: bool,
    /// What the broker's DISCONNECT said.
    pub told: Option<ReasonCode>,
    pub receive_maximum: u16,
}

/// A connection that is to end.
pub struct Leaving {
    pub end: ClientEnd,
    pub input: Vec<u8>,
    output: Vec<u8>,
    /// The client says that it sends nothing more.
    finishes: bool,
    pub version: Version,
}

/// See the module documentation.
pub struct Client {
    pub index: usize,
    name: String,
    pub habits: Habits,
    pub link: Option<Link>,
    pub leaving: Vec<Leaving>,
    /// QoS 2 deliveries that are not released.
    pub incoming: BTreeMap<PacketId, Incoming>,
    pub outgoing: VecDeque<Outgoing>,
    last_packet_id: u16,
    connections: u16,
    /// A clean start was asked for and not confirmed, or nobody can tell which session there is.
    pub must_start_clean: bool,
    /// The last connection was closed over a publish: on the next one it waits for the answer to each, since what it
    /// sends in one go may never find room in a queue that is shorter.
    pub is_wary: bool,
}

impl Client {
    pub fn new(index: usize, habits: Habits) -> Client {
        Client {
            index,
            name: format!("c{index}"),
            habits,
            link: None,
            leaving: Vec::new(),
            incoming: BTreeMap::new(),
            outgoing: VecDeque::new(),
            last_packet_id: 0,
            connections: 0,
            must_start_clean: false,
            is_wary: false,
        }
    }

    pub fn is_v5(&self) -> bool {
        self.habits.version.is_v5()
    }

    /// Whether it is connected and answered.
    pub fn is_up(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.up)
    }

    /// Opens a connection and sends CONNECT.
    pub fn connect(
        &mut self,
        world: &World,
        address: SocketAddr,
        asked: Asked,
        will: Option<(Message, u32)>,
        scene: &mut Scene<'_>,
    ) {
        assert!(self.link.is_none(), "the last connection was given up");
        let index = self.index;
        scene.oracle.note(scene.now.mono, || {
            format!("client {index} connects {asked:?}{}", if will.is_some() { " with a will" } else { "" })
        });
        scene.oracle.operations += 1;
        scene.oracle.moment();
        scene.oracle.session_ends(self.index);
        scene.oracle.sessions[self.index].connect_sent(asked);
        scene.oracle.judge_groups();
        let v5 = self.is_v5();
        // Another one on each connection, so that more may be in flight than the client takes now.
        self.connections += 1;
        let receive_maximum = self.habits.receive_maximum.filter(|_| v5);
        let receive_maximum = receive_maximum.map(|usual| (usual + 5 * self.connections) % 12 + 1);
        let will = will.map(|(message, delay)| {
            let (topic, qos) = (message.topic, message.qos);
            (topic, qos, delay, format!("m{}", scene.oracle.sends(message)))
        });
        let will = will.as_ref().map(|(topic, qos, delay, payload)| Will {
            qos: *qos,
            retain: false,
            delay: v5.then_some(*delay),
            message_expiry: None,
            topic,
            forward: Properties::EMPTY,
            payload: payload.as_bytes(),
        });
        let connect = Connect {
            version: self.habits.version,
            clean_start: if v5 { asked.clean } else { asked.expiry_s == 0 },
            keep_alive: 0,
            session_expiry: v5.then_some(asked.expiry_s),
            receive_maximum: receive_maximum.and_then(NonZeroU16::new),
            maximum_packet_size: None,
            topic_alias_maximum: v5.then_some(self.habits.topic_alias_maximum),
            request_response_information: false,
            request_problem_information: true,
            authentication_method: None,
            authentication_data: None,
            properties: Properties::EMPTY,
            client_id: &self.name,
            will,
            username: None,
            password: None,
        };
        let mut link =
            Link::new(world.connect_to(address), asked, receive_maximum.unwrap_or(u16::MAX), scene);
        link.send(&Packet::Connect(connect), self.habits.version);
        self.link = Some(link);
    }

    /// A packet identifier that is not in use.
    fn packet_id(&mut self) -> PacketId {
        loop {
            self.last_packet_id = self.last_packet_id % 200 + 1;
            let id = PacketId::new(self.last_packet_id).unwrap();
            let asked = self.link.as_ref().and_then(|link| link.request.as_ref());
            let taken = self.outgoing.iter().any(|outgoing| outgoing.packet_id == id)
                || asked.is_some_and(|request| request.packet_id == id);
            if !taken {
                return id;
            }
        }
    }

    /// Publishes a new message. `alias`: by a topic alias, if there is room for one.
    pub fn publish(&mut self, message: Message, expiry_s: Option<u32>, alias: bool, scene: &mut Scene<'_>) {
        let (qos, topic, retain) = (message.qos, message.topic, message.retain);
        let id = scene.oracle.sends(message);
        scene.oracle.operations += 1;
        let packet_id = (qos != QoS::AtMostOnce).then(|| self.packet_id());
        let index = self.index;
        scene.oracle.note(scene.now.mono, || {
            format!("client {index} publishes {id} on {topic} at {qos:?} as {packet_id:?} retain {retain} expiry {expiry_s:?}")
        });
        if let Some(packet_id) = packet_id {
            let outgoing = Outgoing { packet_id, message: id, qos, sent: false, received: false };
            let waits = self.is_wary && self.waits(outgoing);
            self.outgoing.push_back(Outgoing { sent: !waits, ..outgoing });
            if waits {
                return;
            }
        }
        self.send_publish(id, packet_id, false, expiry_s, alias, scene);
    }

    /// A wary client's publish waits, if another does, or is not answered.
    fn waits(&mut self, outgoing: Outgoing) -> bool {
        let Some(link) = &mut self.link else { return false };
        let waits = !link.waiting.is_empty() || !link.answers_due.is_empty();
        if waits {
            link.waiting.push_back(outgoing);
        }
        waits
    }

    /// A publish was answered: a wary client sends the next.
    pub fn send_next(&mut self, scene: &mut Scene<'_>) {
        loop {
            let Some(link) = &mut self.link else { return };
            let Some(next) = link.waiting.pop_front() else { break };
            self.send_one_again(next, scene);
            if !next.received {
                return;
            }
        }
        self.is_wary = false;
    }

    fn send_publish(
        &mut self,
        id: MessageId,
        packet_id: Option<PacketId>,
        dup: bool,
        expiry_s: Option<u32>,
        alias: bool,
        scene: &mut Scene<'_>,
    ) {
        let message = &scene.oracle.messages[id as usize];
        let payload = format!("m{id}");
        let version = self.habits.version;
        let Some(link) = &mut self.link else { return };
        let mut topic = message.topic;
        let mut topic_alias = None;
        if alias && version.is_v5() {
            let next = link.aliases_out.len() as u16 + 1;
            match link.aliases_out.get(topic) {
                Some(&known) => (topic, topic_alias) = ("", NonZeroU16::new(known)),
                None if next <= 8 => {
                    link.aliases_out.insert(topic, next);
                    topic_alias = NonZeroU16::new(next);
                }
                None => {}
            }
        }
        let publish = Publish {
            dup,
            qos: message.qos,
            retain: message.retain,
            topic,
            packet_id,
            message_expiry: expiry_s.filter(|_| version.is_v5()),
            topic_alias,
            subscription_ids: &[],
            carries_subscription_id: false,
            forward: Properties::EMPTY,
            payload: payload.as_bytes(),
        };
        if let Some(packet_id) = packet_id {
            let exactly_once = message.qos == QoS::ExactlyOnce;
            let kind = if exactly_once { AckKind::Pubrec } else { AckKind::Puback };
            link.answers_due.push_back((kind, packet_id));
        }
        link.send(&Packet::Publish(publish), version);
    }

    /// The session was resumed: what is not acknowledged goes again, in its order.
    pub fn send_again(&mut self, scene: &mut Scene<'_>) {
        for outgoing in self.outgoing.clone() {
            if !(self.is_wary && self.waits(outgoing)) {
                self.send_one_again(outgoing, scene);
            }
        }
    }

    fn send_one_again(&mut self, outgoing: Outgoing, scene: &mut Scene<'_>) {
        let (index, id) = (self.index, outgoing.message);
        scene.oracle.note(scene.now.mono, || format!("client {index} goes on with {outgoing:?}"));
        if outgoing.received {
            self.acknowledge(AckKind::Pubrel, outgoing.packet_id, scene);
        } else {
            scene.oracle.sends_again(id);
            self.outgoing.iter_mut().filter(|one| one.message == id).for_each(|one| one.sent = true);
            self.send_publish(id, Some(outgoing.packet_id), outgoing.sent, None, false, scene);
        }
    }

    /// The session is gone: so is what belonged to it.
    pub fn forget_session(&mut self) {
        self.outgoing.clear();
        self.incoming.clear();
    }

    pub fn subscribe(&mut self, filters: Vec<(&'static str, QoS, bool)>, scene: &mut Scene<'_>) {
        let tick = scene.oracle.moment();
        scene.oracle.operations += 1;
        let packet_id = self.packet_id();
        let index = self.index;
        scene.oracle.note(scene.now.mono, || format!("client {index} subscribes {filters:?}"));
        let session = &mut scene.oracle.sessions[self.index];
        let mut entries = Vec::new();
        for &(filter, qos, no_local) in &filters {
            session.subscribe_sent(filter, qos, no_local, tick);
            let retain_handling = RetainHandling::Send;
            let options = SubscribeOptions { qos, no_local, retain_as_published: false, retain_handling };
            Subscribe::push_entry(&mut entries, filter, options);
        }
        let version = self.habits.version;
        let Some(link) = &mut self.link else { return };
        link.send(&Packet::Subscribe(Subscribe::new(packet_id, None, &entries)), version);
        let filters = filters.into_iter().map(|(filter, qos, _)| (filter, qos)).collect();
        link.request = Some(Request { packet_id, unsubscribe: false, filters });
        scene.oracle.judge_groups();
    }

    pub fn unsubscribe(&mut self, filter: &'static str, scene: &mut Scene<'_>) {
        scene.oracle.moment();
        scene.oracle.operations += 1;
        let packet_id = self.packet_id();
        let index = self.index;
        scene.oracle.note(scene.now.mono, || format!("client {index} unsubscribes {filter}"));
        let Oracle { sessions, messages, .. } = &mut *scene.oracle;
        sessions[self.index].unsubscribe_sent(filter, messages);
        scene.oracle.judge_groups();
        let mut entries = Vec::new();
        Unsubscribe::push_entry(&mut entries, filter);
        let version = self.habits.version;
        let Some(link) = &mut self.link else { return };
        link.send(&Packet::Unsubscribe(Unsubscribe::new(packet_id, &entries)), version);
        link.request =
            Some(Request { packet_id, unsubscribe: true, filters: vec![(filter, QoS::AtMostOnce)] });
    }

    /// Acknowledges a delivery, now or when it stops withholding.
    pub fn answer(&mut self, kind: AckKind, packet_id: PacketId, scene: &mut Scene<'_>) {
        match &mut self.link {
            Some(link) if link.withholding => link.withheld.push((kind, packet_id)),
            _ => self.acknowledge(kind, packet_id, scene),
        }
    }

    pub fn acknowledge(&mut self, kind: AckKind, packet_id: PacketId, scene: &mut Scene<'_>) {
        let (index, version) = (self.index, self.habits.version);
        scene.oracle.note(scene.now.mono, || format!("client {index} sends {kind:?} {packet_id}"));
        let Some(link) = &mut self.link else { return };
        if matches!(kind, AckKind::Puback | AckKind::Pubcomp) {
            link.unacknowledged.remove(&packet_id);
        }
        if kind == AckKind::Pubrec
            && let Some(incoming) = self.incoming.get_mut(&packet_id)
        {
            incoming.answered = true;
        }
        link.send(
            &Packet::Ack(Ack { kind, packet_id, reason: ReasonCode::Success, reason_string: None }),
            version,
        );
    }

    /// From now on acknowledgements leave at once.
    pub fn stop_withholding(&mut self, scene: &mut Scene<'_>) {
        let Some(link) = &mut self.link else { return };
        link.withholding = false;
        for (kind, packet_id) in std::mem::take(&mut link.withheld) {
            self.acknowledge(kind, packet_id, scene);
        }
    }

    /// DISCONNECT, and no more.
    pub fn disconnect(&mut self, reason: ReasonCode, expiry_s: Option<u32>, scene: &mut Scene<'_>) {
        scene.oracle.operations += 1;
        let version = self.habits.version;
        let Some(mut link) = self.link.take() else { return };
        let index = self.index;
        scene.oracle.note(scene.now.mono, || format!("client {index} disconnects {reason:?} {expiry_s:?}"));
        let packet =
            Disconnect { reason, session_expiry: expiry_s, reason_string: None, server_reference: None };
        link.send(&Packet::Disconnect(packet), version);
        self.leave(link, true, scene.now.wall, scene);
        if let Some(expiry_s) = expiry_s {
            scene.oracle.sessions[self.index].disconnect_sent(expiry_s, scene.now.wall);
        }
        scene.oracle.judge_groups();
    }

    /// The client gives the connection up and opens another one without a word.
    pub fn abandon(&mut self, scene: &mut Scene<'_>) {
        let index = self.index;
        scene.oracle.note(scene.now.mono, || format!("client {index} abandons its connection"));
        let Some(link) = self.link.take() else { return };
        self.leave(link, false, scene.now.wall, scene);
    }

    fn leave(&mut self, link: Link, finishes: bool, now: UnixMs, scene: &mut Scene<'_>) {
        assert!(link.up, "a connection is given up after CONNACK, so that no CONNECT is handled late");
        let Link { end, input, output, .. } = link;
        let version = self.habits.version;
        self.leaving.push(Leaving { end, input, output, finishes, version });
        self.session_may_end(scene, now);
    }

    /// A connection is over: a session that does not outlive it is too.
    pub fn session_may_end(&mut self, scene: &mut Scene<'_>, now: UnixMs) {
        scene.oracle.connection_over(self.index, now);
        if scene.oracle.sessions[self.index].existence == Existence::None {
            self.forget_session();
        }
    }

    /// The connection breaks.
    pub fn reset(&mut self, scene: &mut Scene<'_>) {
        scene.oracle.operations += 1;
        let index = self.index;
        scene.oracle.note(scene.now.mono, || format!("client {index} breaks its connection"));
        let Some(link) = self.link.take() else { return };
        assert!(link.up, "as above");
        link.end.reset();
        self.session_may_end(scene, scene.now.wall);
    }

    /// Writes what the network takes.
    pub fn flush(&mut self) {
        if let Some(link) = &mut self.link {
            write(&mut link.end, &mut link.output);
        }
        for leaving in &mut self.leaving {
            write(&mut leaving.end, &mut leaving.output);
            if leaving.finishes && leaving.output.is_empty() {
                leaving.end.shut_down_write();
                leaving.finishes = false;
            }
        }
    }
}

fn write(end: &mut ClientEnd, output: &mut Vec<u8>) {
    while !output.is_empty() {
        // A broken connection shows when it is read.
        let Ok(taken) = end.try_write(output) else { return };
        output.drain(..taken);
    }
}

impl Link {
    fn new(end: ClientEnd, asked: Asked, receive_maximum: u16, scene: &Scene<'_>) -> Link {
        Link {
            end,
            input: Vec::new(),
            output: Vec::new(),
            asked,
            up: false,
            epoch: scene.epoch,
            served: scene.serving,
            answers_due: VecDeque::new(),
            unacknowledged: BTreeSet::new(),
            aliases: BTreeMap::new(),
            aliases_out: BTreeMap::new(),
            request: None,
            waiting: VecDeque::new(),
            withheld: Vec::new(),
            withholding: false,
            told: None,
            receive_maximum,
        }
    }

    fn send(&mut self, packet: &Packet<'_>, version: Version) {
        encode::packet(packet, version, &mut self.output);
    }
}

/// A will, to be sent with CONNECT.
pub fn will(publisher: usize, topic: &'static str, qos: QoS) -> Message {
    Message {
        publisher,
        topic,
        qos,
        retain: false,
        kind: Kind::Will,
        first_sent: 0,
        last_sent: 0,
        expires: UnixMs::NEVER,
        answered: None,
    }
}
