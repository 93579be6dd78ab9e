//! The broker alone, driven by hand: a disk that is durable when the test says so, clients that are lists of packets
//! they were sent, other shards that are lists of messages.

mod checkpoint;
mod flows;
mod one_of_two;
mod overload;
mod recovery;
mod rights;
mod shards;
mod shared;
mod statistics;
mod steps;
mod stored;
mod timers;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::Broker;
use super::effect::{CloseReason, Effect, Effects};
use super::input::Input;
use super::route::MeshMessage;
use super::settings::Settings;
use crate::ids::{ConnectionId, Lsn, SessionKey, ShardId};
use crate::journal;
use crate::live::Facts;
use crate::placement::Placement;
use crate::time::{Nanos, Now, UnixMs};
use crate::wire::{self, Connect, Packet, PacketId, Properties, Publish, QoS, Version};

/// What the broker wanted, as bytes, so that nothing is borrowed from it.
#[derive(Default)]
struct World {
    sent: BTreeMap<u32, Vec<Vec<u8>>>,
    closed: Vec<(u32, CloseReason)>,
    /// Encoded records by LSN.
    journal: Vec<(Lsn, Vec<u8>)>,
    fetches: Vec<Lsn>,
    /// What other shards were told.
    mesh: Vec<(ShardId, MeshMessage)>,
    /// How many there ever were.
    fetched: usize,
    /// Every socket is full.
    no_room: bool,
    /// Who was paused (true) or resumed since, but for CONNACK.
    paused: Vec<(u32, bool)>,
}

impl Effects for World {
    fn perform(&mut self, effect: Effect<'_>) {
        match effect {
            Effect::Send { connection, version, packet } => {
                let mut bytes = Vec::new();
                wire::encode::packet(&packet, version, &mut bytes);
                self.sent.entry(connection.slot).or_default().push(bytes);
            }
            Effect::Close { connection, reason } => self.closed.push((connection.slot, reason)),
            Effect::Append { lsn, record } => {
                self.journal.push((lsn, journal::encoded(lsn, &record)));
            }
            Effect::Fetch { lsn } => self.fetches.push(lsn),
            Effect::Mesh { to, message } => self.mesh.push((to, message)),
            Effect::Pause { connection } => self.paused.push((connection.slot, true)),
            Effect::Resume { connection } => self.paused.push((connection.slot, false)),
            Effect::Hold { .. } | Effect::Log(_) => {}
        }
    }

    fn room(&self, _: ConnectionId) -> usize {
        if self.no_room { 0 } else { usize::MAX }
    }

    fn mesh_room(&self, _: ShardId) -> bool {
        true
    }

    fn mesh_deliver_room(&self, _: ShardId) -> bool {
        true
    }
}

/// A broker, its world, and the clock.
struct Bench {
    broker: Broker,
    world: World,
    now: Now,
    /// Records up to here survive a crash.
    durable: usize,
}

fn settings() -> Settings {
    settings_for(1)
}

fn settings_for(shards: u16) -> Settings {
    let mut settings = Settings::with_placement(Placement::new(shards, [0; 16], None).expect("no pattern"));
    settings.sys_interval_s = 0;
    settings
}

impl Bench {
    fn new() -> Bench {
        Bench::with(settings())
    }

    fn with(settings: Settings) -> Bench {
        let bench = Bench::of_shard(settings, ShardId(0));
        assert!(bench.broker.ready());
        bench
    }

    /// One of several; ready when it has heard of the others.
    fn of_shard(settings: Settings, shard: ShardId) -> Bench {
        let now = Now { mono: Nanos(1), wall: UnixMs(1_000_000) };
        let mut bench = Bench::start(settings, shard, now, Vec::new());
        bench.settle();
        bench
    }

    /// A broker that has replayed these records and done nothing else yet.
    fn start(settings: Settings, shard: ShardId, now: Now, journal: Vec<(Lsn, Vec<u8>)>) -> Bench {
        let broker = Broker::new(settings, shard);
        let durable = journal.len();
        let mut bench = Bench { broker, world: World::default(), now, durable };
        for (lsn, bytes) in &journal {
            let record = journal::decoded(bytes);
            bench.handle(Input::Replay { lsn: *lsn, record, facts: Facts::NONE });
        }
        let lsn = journal.last().map_or(Lsn::NONE, |(lsn, _)| *lsn);
        bench.world.journal = journal;
        bench.handle(Input::Replayed { lsn, session_key_max: SessionKey(0) });
        bench
    }

    fn handle(&mut self, input: Input<'_>) {
        self.broker.handle(self.now, input, &mut self.world);
    }

    /// Do everything that can be done now.
    fn advance(&mut self) {
        for _ in 0..10_000 {
            let more = self.broker.advance(self.now, 100, &mut self.world);
            let fetches = std::mem::take(&mut self.world.fetches);
            let idle = !more && fetches.is_empty();
            for lsn in fetches {
                self.fetch(lsn);
            }
            if idle {
                return;
            }
        }
        panic!("the broker always has more to do");
    }

    /// Do so many units of what can be done.
    fn advance_by(&mut self, units: u32) {
        self.broker.advance(self.now, units, &mut self.world);
    }

    fn fetch(&mut self, lsn: Lsn) {
        self.world.fetched += 1;
        let (_, bytes) =
            self.world.journal.iter().find(|(at, _)| *at == lsn).expect("it was appended").clone();
        let body = match journal::decoded(&bytes) {
            crate::record::Record::Message { body, .. } | crate::record::Record::Inbound { body, .. } => body,
            other => panic!("{other:?} has no body"),
        };
        self.handle(Input::Fetched { lsn, body });
    }

    /// The disk catches up.
    fn sync(&mut self) {
        self.durable = self.world.journal.len();
        if let Some((lsn, _)) = self.world.journal.last() {
            let lsn = *lsn;
            self.handle(Input::Durable { lsn });
        }
        self.advance();
    }

    /// Advance and sync until nothing changes.
    fn settle(&mut self) {
        loop {
            self.advance();
            if self.durable == self.world.journal.len() {
                return;
            }
            self.sync();
        }
    }

    fn wait_ms(&mut self, ms: u64) {
        self.now = Now { mono: self.now.mono.plus_ms(ms), wall: UnixMs(self.now.wall.0 + ms) };
        self.advance();
    }

    /// Kill the process, lose what was not synced, and start again.
    fn crash(self) -> Bench {
        let settings = self.broker.settings.clone();
        self.crash_with(settings)
    }

    /// Another that has what is on disk now, as if this one had been killed and started.
    fn cut(&self) -> Bench {
        let records = self.world.journal[..self.durable].to_vec();
        Bench::start(self.broker.settings.clone(), self.broker.shard, self.now, records)
    }

    /// The same, to go on with other settings.
    fn crash_with(self, settings: Settings) -> Bench {
        let mut bench = self.crash_and_replay(settings);
        bench.settle();
        bench
    }

    /// The same, up to the end of replay.
    fn crash_and_replay(self, settings: Settings) -> Bench {
        let records: Vec<_> = self.world.journal.into_iter().take(self.durable).collect();
        Bench::start(settings, self.broker.shard, self.now, records)
    }

    fn connect(&mut self, slot: u32, client_id: &str, clean_start: bool, expiry: u32) {
        let connect = Connect { session_expiry: Some(expiry), clean_start, ..connect(client_id) };
        self.connect_as(slot, &connect);
    }

    fn connect_as(&mut self, slot: u32, connect: &Connect<'_>) {
        let input = Input::Connect {
            connection: id(slot),
            connect,
            client_id: connect.client_id,
            assigned: false,
            account: "",
            passport: &crate::access::passport::UNPROVEN,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        self.handle(input);
        self.settle();
        // CONNACK resumes every connection.
        self.world.paused.retain(|paused| *paused != (slot, false));
    }

    /// A packet as bytes, decoded as the broker would see it.
    fn packet(&mut self, slot: u32, bytes: &[u8]) {
        self.take(slot, bytes);
        self.advance();
    }

    /// The same, with nothing done about it yet.
    fn take(&mut self, slot: u32, bytes: &[u8]) {
        let packet = wire::decode::packet(bytes, Some(Version::V5)).expect("a valid packet");
        self.handle(Input::Packet { connection: id(slot), packet: &packet });
    }

    fn subscribe(&mut self, slot: u32, filter: &str, qos: u8) {
        let mut bytes = vec![0x82, u8::try_from(filter.len() + 6).expect("short"), 0, 9, 0, 0];
        bytes.push(u8::try_from(filter.len()).expect("short"));
        bytes.extend_from_slice(filter.as_bytes());
        bytes.push(qos);
        self.packet(slot, &bytes);
        self.settle();
    }

    fn publish(&mut self, slot: u32, topic: &str, qos: QoS, packet_id: u16, payload: &str) {
        self.publish_with(slot, topic, qos, packet_id, payload, false);
    }

    fn publish_with(
        &mut self,
        slot: u32,
        topic: &str,
        qos: QoS,
        packet_id: u16,
        payload: &str,
        retain: bool,
    ) {
        let packet = Packet::Publish(Publish { retain, ..publish(topic, qos, packet_id, payload) });
        self.handle(Input::Packet { connection: id(slot), packet: &packet });
        self.advance();
    }

    fn ack(&mut self, slot: u32, first_byte: u8, packet_id: u16) {
        let [high, low] = packet_id.to_be_bytes();
        self.packet(slot, &[first_byte, 2, high, low]);
    }

    /// What a client was sent since the last look, in words.
    fn seen(&mut self, slot: u32) -> Vec<String> {
        let packets = self.world.sent.remove(&slot).unwrap_or_default();
        packets.iter().map(|bytes| words(bytes)).collect()
    }
}

fn id(slot: u32) -> ConnectionId {
    ConnectionId { slot, generation: 1 }
}

fn publish<'a>(topic: &'a str, qos: QoS, packet_id: u16, payload: &'a str) -> Publish<'a> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: PacketId::new(packet_id),
        message_expiry: None,
        topic_alias: None,
        subscription_ids: &[],
        carries_subscription_id: false,
        forward: Properties::EMPTY,
        payload: payload.as_bytes(),
    }
}

fn connect(client_id: &str) -> Connect<'_> {
    Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive: 0,
        session_expiry: None,
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

fn words(bytes: &[u8]) -> String {
    match wire::decode::packet(bytes, Some(Version::V5)).expect("the broker sends valid packets") {
        Packet::Connack(connack) => format!("CONNACK {} {}", connack.session_present, connack.reason.name()),
        Packet::Publish(publish) => {
            let packet_id = publish.packet_id.map_or(0, PacketId::get);
            let payload = String::from_utf8_lossy(publish.payload);
            let dup = if publish.dup { " dup" } else { "" };
            format!("PUBLISH {} {packet_id} {payload}{dup}", publish.qos as u8)
        }
        Packet::Ack(ack) => format!("{:?} {} {}", ack.kind, ack.packet_id, ack.reason.name()),
        Packet::Suback(_) => "SUBACK".into(),
        Packet::Disconnect(disconnect) => format!("DISCONNECT {}", disconnect.reason.name()),
        other => format!("{other:?}"),
    }
}
