//! A broker and what stands around it where only the broker is to be counted: connections that take everything and keep
//! nothing, a disk that is as fast as asked. Used by `route`, `session` and `timers`.
//!
//! Effects are shown to `black_box` and counted, not encoded or stored: what that costs is in `wire` and `journal`.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use ironpost::broker::Broker;
use ironpost::broker::effect::{Effect, Effects};
use ironpost::broker::input::Input;
use ironpost::broker::settings::Settings;
use ironpost::ids::{ConnectionId, Lsn, SessionKey, ShardId};
use ironpost::limits::ADVANCE_BUDGET;
use ironpost::placement::Placement;
use ironpost::record::Record;
use ironpost::time::{Nanos, Now, UnixMs};
use ironpost::wire::{
    AckKind, Connect, Packet, PacketId, Properties, Publish, QoS, Subscribe, SubscribeOptions, Version,
};

/// Recipients whose PUBACK is outstanding at once, at most: room is made before the counting.
const UNACKNOWLEDGED_MAX: usize = 1_024;

/// What a client's messages carry here: 128 bytes.
pub const PAYLOAD: [u8; 128] = [0x5A; 128];

/// A broker, the time, and what it has done.
pub struct World {
    pub broker: Broker,
    pub now: Now,
    pub seen: Seen,
    durable: Lsn,
}

/// How much of what there was.
#[derive(Default)]
pub struct Seen {
    /// PUBLISH to clients.
    pub publishes: u64,
    /// PUBACK to clients.
    pub pubacks: u64,
    /// CONNACK.
    pub connacks: u64,
    /// Those that said that the session was there.
    pub resumed: u64,
    /// Connections closed by the broker, and events for the log: there should be none.
    pub refusals: u64,
    /// Records.
    pub records: u64,
    /// Those that end a session.
    pub ended: u64,
    /// Who was sent what at QoS 1 and has not acknowledged it.
    pub unacknowledged: Vec<(ConnectionId, PacketId)>,
    last: Lsn,
}

impl Effects for Seen {
    fn perform(&mut self, effect: Effect<'_>) {
        match black_box(&effect) {
            Effect::Send { connection, packet: Packet::Publish(publish), .. } => {
                self.publishes += 1;
                self.unacknowledged.extend(publish.packet_id.map(|packet_id| (*connection, packet_id)));
            }
            Effect::Send { packet: Packet::Ack(ack), .. } if ack.kind == AckKind::Puback => self.pubacks += 1,
            Effect::Send { packet: Packet::Connack(connack), .. } => {
                self.connacks += 1;
                self.resumed += u64::from(connack.session_present);
            }
            Effect::Append { lsn, record } => {
                self.records += 1;
                self.ended += u64::from(matches!(record, Record::SessionEnded { .. }));
                self.last = *lsn;
            }
            Effect::Close { .. } | Effect::Log(_) => self.refusals += 1,
            _ => {}
        }
    }

    fn room(&self, _: ConnectionId) -> usize {
        usize::MAX
    }

    fn mesh_room(&self, _: ShardId) -> bool {
        true
    }

    fn mesh_deliver_room(&self, _: ShardId) -> bool {
        true
    }
}

impl World {
    /// A broker with the default settings, alone, without statistics of its own.
    pub fn new() -> World {
        let mut settings = Settings::with_placement(Placement::new(1, [0; 16], None).expect("no pattern"));
        settings.sys_interval_s = 0;
        let mut world = World {
            broker: Broker::new(settings, ShardId(0)),
            now: Now { mono: Nanos(1), wall: UnixMs(1_000_000) },
            seen: Seen { unacknowledged: Vec::with_capacity(UNACKNOWLEDGED_MAX), ..Seen::default() },
            durable: Lsn::NONE,
        };
        world.handle(Input::Replayed { lsn: Lsn::NONE, session_key_max: SessionKey(0) });
        world.settle();
        assert!(world.broker.ready());
        world
    }

    pub fn handle(&mut self, input: Input<'_>) {
        self.broker.handle(self.now, input, &mut self.seen);
    }

    /// Do all that can be done without the disk.
    pub fn advance(&mut self) {
        while self.broker.advance(self.now, ADVANCE_BUDGET, &mut self.seen) {}
    }

    /// The same, and the disk has everything; until nothing is left.
    pub fn settle(&mut self) {
        self.advance();
        while self.durable < self.seen.last {
            self.durable = self.seen.last;
            self.handle(Input::Durable { lsn: self.durable });
            self.advance();
        }
    }

    pub fn wait_ms(&mut self, ms: u64) {
        self.now = Now { mono: self.now.mono.plus_ms(ms), wall: UnixMs(self.now.wall.0 + ms) };
    }

    pub fn connect(&mut self, connection: ConnectionId, connect: &Connect<'_>) {
        self.handle(Input::Connect {
            connection,
            connect,
            client_id: connect.client_id,
            assigned: false,
            account: "",
            passport: &ironpost::access::passport::UNPROVEN,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        });
        self.settle();
    }

    pub fn subscribe(&mut self, connection: ConnectionId, filter: &str, qos: QoS) {
        let mut entries = Vec::new();
        Subscribe::push_entry(&mut entries, filter, SubscribeOptions { qos, ..SubscribeOptions::default() });
        let packet = Packet::Subscribe(Subscribe::new(packet_id(1), None, &entries));
        self.handle(Input::Packet { connection, packet: &packet });
        self.settle();
    }
}

pub fn packet_id(number: u16) -> PacketId {
    PacketId::new(number).expect("not 0")
}

/// The connection in that slot, the first that is there.
pub fn first_in(slot: u32) -> ConnectionId {
    ConnectionId { slot, generation: 1 }
}

/// MQTT 5, continues a session and wants to keep it that long.
pub fn connect(client_id: &str, session_expiry: u32) -> Connect<'_> {
    Connect {
        version: Version::V5,
        clean_start: false,
        keep_alive: u16::MAX,
        session_expiry: Some(session_expiry),
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

/// A client's message.
pub fn publish(topic: &str, qos: QoS) -> Publish<'_> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: (qos != QoS::AtMostOnce).then(|| packet_id(7)),
        message_expiry: None,
        topic_alias: None,
        subscription_ids: &[],
        carries_subscription_id: false,
        forward: Properties::EMPTY,
        payload: &PAYLOAD,
    }
}
