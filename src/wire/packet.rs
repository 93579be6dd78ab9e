//! The packets of MQTT as values that borrow from the buffer they came from, or from whoever is sending them.
//!
//! One type per packet serves both versions; what a version does not have is `None`, 0 or empty, and `encode` leaves
//! it out. Field order follows the wire. Equality is equality of meaning: two packets are equal if they would be
//! handled alike, whatever the order of their properties.

use std::num::NonZeroU16;

use super::bytes::{Reader, Sink};
use super::property::Properties;
use super::reason::{ReasonCode, Reasons};

/// A packet identifier: never 0 `[MQTT-2.2.1-3]`.
pub type PacketId = NonZeroU16;

/// The protocol level a CONNECT announced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum Version {
    /// `MQIsdp`, level 3.
    V31 = 3,
    /// `MQTT`, level 4.
    V311 = 4,
    /// `MQTT`, level 5.
    V5 = 5,
}

impl Version {
    /// Whether packets carry properties and reason codes.
    pub fn is_v5(self) -> bool {
        self == Version::V5
    }
}

/// Quality of service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
#[repr(u8)]
pub enum QoS {
    /// 0: no acknowledgement.
    #[default]
    AtMostOnce = 0,
    /// 1: acknowledged by PUBACK.
    AtLeastOnce = 1,
    /// 2: the four-packet exchange.
    ExactlyOnce = 2,
}

impl QoS {
    /// 0, 1 or 2; `None` for anything else.
    pub fn from_bits(bits: u8) -> Option<QoS> {
        match bits {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

/// What a subscription wants of retained messages (v5 option bits 4 and 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// 0: send them at every subscribe.
    #[default]
    Send = 0,
    /// 1: send them only if the subscription is new.
    SendIfNew = 1,
    /// 2: never send them.
    DoNotSend = 2,
}

/// The kinds of control packet, by the number in the upper half of their first byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant is the packet of that name")]
pub enum PacketType {
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Pingreq = 12,
    Pingresp = 13,
    Disconnect = 14,
    Auth = 15,
}

/// Any control packet.
#[derive(Clone, Copy, PartialEq, Debug)]
#[expect(missing_docs, reason = "each variant is the packet of that name, documented at its type")]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    Connack(Connack<'a>),
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL and PUBCOMP: one shape.
    Ack(Ack<'a>),
    Subscribe(Subscribe<'a>),
    Suback(Suback<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Unsuback(Unsuback<'a>),
    Pingreq,
    Pingresp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// CONNECT.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Connect<'a> {
    /// Which protocol the connection will speak.
    pub version: Version,
    /// Clean session (v3) or clean start (v5).
    pub clean_start: bool,
    /// Seconds; 0 means no keep alive.
    pub keep_alive: u16,
    /// Session expiry interval in seconds; absent is 0. In v3 `None`: the broker reads `clean_start` instead.
    pub session_expiry: Option<u32>,
    /// Unacknowledged QoS 1 and 2 publishes the client takes at once; absent is 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// The largest packet the client takes, in bytes; absent is no limit. Never `Some(0)`.
    pub maximum_packet_size: Option<u32>,
    /// Topic aliases the client takes from us; absent is 0.
    pub topic_alias_maximum: Option<u16>,
    /// The client asks for response information in CONNACK.
    pub request_response_information: bool,
    /// The client takes reason strings and user properties on any packet. Default true.
    pub request_problem_information: bool,
    /// Authentication method, if enhanced authentication is asked for.
    pub authentication_method: Option<&'a str>,
    /// Authentication data; only with a method.
    pub authentication_data: Option<&'a [u8]>,
    /// All properties as received. Encoding takes the user properties from it and nothing else.
    pub properties: Properties<'a>,
    /// May be empty: the server then assigns one `[MQTT-3.1.3-6]`.
    pub client_id: &'a str,
    /// Published by the server when the connection ends badly.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password: opaque bytes; never logged.
    pub password: Option<&'a [u8]>,
}

/// The will message inside a CONNECT.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Will<'a> {
    /// QoS it is published at.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Will delay interval in seconds; absent is 0.
    pub delay: Option<u32>,
    /// Message expiry in seconds, counted from publication.
    pub message_expiry: Option<u32>,
    /// A valid topic name.
    pub topic: &'a str,
    /// The properties that go into the published message; encodes without the will delay and the message expiry.
    pub forward: Properties<'a>,
    /// Opaque bytes.
    pub payload: &'a [u8],
}

/// CONNACK. For v3 only `session_present` and the v3 translation of `reason` are sent.
#[derive(Clone, Copy, PartialEq, Debug)]
#[expect(missing_docs, reason = "each field is the property of that name; `None` leaves it out")]
pub struct Connack<'a> {
    pub session_present: bool,
    pub reason: ReasonCode,
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<NonZeroU16>,
    /// `Some` is sent as given; absent means QoS 2. Only 0 and 1 are legal on the wire.
    pub maximum_qos: Option<QoS>,
    pub retain_available: Option<bool>,
    pub maximum_packet_size: Option<u32>,
    pub assigned_client_id: Option<&'a str>,
    pub topic_alias_maximum: Option<u16>,
    pub reason_string: Option<&'a str>,
    pub wildcard_subscription_available: Option<bool>,
    pub subscription_ids_available: Option<bool>,
    pub shared_subscription_available: Option<bool>,
    pub server_keep_alive: Option<u16>,
    pub response_information: Option<&'a str>,
    pub server_reference: Option<&'a str>,
    pub authentication_method: Option<&'a str>,
    pub authentication_data: Option<&'a [u8]>,
    /// Sent in that order. When decoding it stays empty: read `properties`.
    pub user_properties: &'a [(&'a str, &'a str)],
    /// All properties as received. Encoding takes the user properties from it and nothing else.
    pub properties: Properties<'a>,
}

impl Connack<'_> {
    /// A CONNACK with that reason and nothing else.
    pub fn new(reason: ReasonCode) -> Self {
        Connack {
            session_present: false,
            reason,
            session_expiry: None,
            receive_maximum: None,
            maximum_qos: None,
            retain_available: None,
            maximum_packet_size: None,
            assigned_client_id: None,
            topic_alias_maximum: None,
            reason_string: None,
            wildcard_subscription_available: None,
            subscription_ids_available: None,
            shared_subscription_available: None,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
            user_properties: &[],
            properties: Properties::EMPTY,
        }
    }
}

/// PUBLISH, in both directions.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Publish<'a> {
    /// Sent before, perhaps. Always false at QoS 0 `[MQTT-3.3.1-2]`.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// The retain flag.
    pub retain: bool,
    /// A valid topic name; empty only if `topic_alias` is given.
    pub topic: &'a str,
    /// `Some` exactly if `qos` is above 0.
    pub packet_id: Option<PacketId>,
    /// Message expiry interval in seconds.
    pub message_expiry: Option<u32>,
    /// Topic alias.
    pub topic_alias: Option<NonZeroU16>,
    /// Server to client only: the identifiers of the matching subscriptions, each 1..=268,435,455. When decoding it
    /// stays empty: `carries_subscription_id` says that one was there, and iterating `forward` yields them.
    pub subscription_ids: &'a [u32],
    /// Decoding only: a subscription identifier was present, which a client may not send `[MQTT-3.3.4-6]`.
    pub carries_subscription_id: bool,
    /// All properties as received. Encoding, and [`Properties::forwarded`], leave out the three that belong to one
    /// hop (message expiry, topic alias, subscription identifier); the rest passes through unchanged, in order.
    pub forward: Properties<'a>,
    /// Opaque bytes.
    pub payload: &'a [u8],
}

/// Which of the four acknowledgement packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum AckKind {
    /// Answers a QoS 1 PUBLISH.
    Puback = 4,
    /// QoS 2, first answer.
    Pubrec = 5,
    /// QoS 2, release.
    Pubrel = 6,
    /// QoS 2, complete.
    Pubcomp = 7,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ack<'a> {
    /// Which one.
    pub kind: AckKind,
    /// The exchange it belongs to.
    pub packet_id: PacketId,
    /// Success when the packet left it out.
    pub reason: ReasonCode,
    /// Sent only if the peer asked for problem information.
    pub reason_string: Option<&'a str>,
}

/// SUBSCRIBE. `filters()` iterates what `decode` has validated.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Subscribe<'a> {
    /// Answered by the SUBACK with the same identifier.
    pub packet_id: PacketId,
    /// 1..=268,435,455.
    pub subscription_id: Option<u32>,
    /// The wire form of the (filter, options) list: at least one entry, all validated.
    pub(super) entries: &'a [u8],
}

/// The options byte of one subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SubscribeOptions {
    /// The highest QoS the subscriber wants.
    pub qos: QoS,
    /// Not to the connection that published it.
    pub no_local: bool,
    /// Forward the retain flag as published.
    pub retain_as_published: bool,
    /// What to do about retained messages now.
    pub retain_handling: RetainHandling,
}

/// SUBACK.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Suback<'a> {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason string, if the peer takes it.
    pub reason_string: Option<&'a str>,
    /// One per filter, in order. For v3 every failure is sent as 0x80.
    pub reasons: Reasons<'a>,
}

/// UNSUBSCRIBE. `filters()` iterates what `decode` has validated.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Unsubscribe<'a> {
    /// Answered by the UNSUBACK with the same identifier.
    pub packet_id: PacketId,
    /// The wire form of the filter list: at least one entry, all validated.
    pub(super) entries: &'a [u8],
}

/// UNSUBACK. For v3 the reasons are not sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Unsuback<'a> {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason string, if the peer takes it.
    pub reason_string: Option<&'a str>,
    /// One per filter, in order.
    pub reasons: Reasons<'a>,
}

/// DISCONNECT.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Disconnect<'a> {
    /// Normal disconnection when the packet left it out, and always in v3.
    pub reason: ReasonCode,
    /// A new session expiry interval in seconds (client to server only).
    pub session_expiry: Option<u32>,
    /// Reason string.
    pub reason_string: Option<&'a str>,
    /// Another server to use (server to client only).
    pub server_reference: Option<&'a str>,
}

/// AUTH (v5 only).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Auth<'a> {
    /// Success, continue, or re-authenticate.
    pub reason: ReasonCode,
    /// Required whenever properties are present.
    pub method: Option<&'a str>,
    /// Opaque.
    pub data: Option<&'a [u8]>,
    /// Reason string.
    pub reason_string: Option<&'a str>,
}

impl<'a> Subscribe<'a> {
    /// To be sent. `entries` holds at least one entry, each written by [`Subscribe::push_entry`].
    pub fn new(packet_id: PacketId, subscription_id: Option<u32>, entries: &'a [u8]) -> Subscribe<'a> {
        Subscribe { packet_id, subscription_id, entries }
    }

    /// Appends one subscription to a list of entries. Panics if the filter exceeds 65,535 bytes.
    pub fn push_entry(entries: &mut Vec<u8>, filter: &str, options: SubscribeOptions) {
        entries.string(filter);
        entries.byte(options.bits());
    }

    /// The subscriptions asked for, in order. A filter is well-formed UTF-8 but not judged: see
    /// [`super::topic::check_filter`].
    pub fn filters(&self) -> impl Iterator<Item = (&'a str, SubscribeOptions)> + Clone + use<'a> {
        let mut reader = Reader::new(self.entries);
        std::iter::from_fn(move || {
            let filter = reader.string().ok()?;
            Some((filter, SubscribeOptions::from_bits(reader.byte().ok()?)?))
        })
    }
}

impl<'a> Unsubscribe<'a> {
    /// To be sent. `entries` holds at least one entry, each written by [`Unsubscribe::push_entry`].
    pub fn new(packet_id: PacketId, entries: &'a [u8]) -> Unsubscribe<'a> {
        Unsubscribe { packet_id, entries }
    }

    /// Appends one filter to a list of entries. Panics if it exceeds 65,535 bytes.
    pub fn push_entry(entries: &mut Vec<u8>, filter: &str) {
        entries.string(filter);
    }

    /// The filters, in order; well-formed UTF-8 but not judged.
    pub fn filters(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        let mut reader = Reader::new(self.entries);
        std::iter::from_fn(move || reader.string().ok())
    }
}

impl SubscribeOptions {
    /// The byte on the wire.
    pub fn bits(self) -> u8 {
        self.qos as u8
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4
    }

    /// The options of that byte; `None` if a value or a reserved bit in it is not allowed.
    pub fn from_bits(bits: u8) -> Option<SubscribeOptions> {
        let retain_handling = match bits >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return None,
        };
        Some(SubscribeOptions {
            qos: QoS::from_bits(bits & 0x03)?,
            no_local: bits & 0x04 != 0,
            retain_as_published: bits & 0x08 != 0,
            retain_handling,
        })
    }
}

impl Packet<'_> {
    /// Which kind of packet.
    pub fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::Connack(_) => PacketType::Connack,
            Packet::Publish(_) => PacketType::Publish,
            Packet::Ack(ack) => ack.kind.packet_type(),
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::Suback(_) => PacketType::Suback,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::Unsuback(_) => PacketType::Unsuback,
            Packet::Pingreq => PacketType::Pingreq,
            Packet::Pingresp => PacketType::Pingresp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }
}

impl AckKind {
    /// The packet type of that name.
    pub fn packet_type(self) -> PacketType {
        match self {
            AckKind::Puback => PacketType::Puback,
            AckKind::Pubrec => PacketType::Pubrec,
            AckKind::Pubrel => PacketType::Pubrel,
            AckKind::Pubcomp => PacketType::Pubcomp,
        }
    }
}

impl<'a> Ack<'a> {
    /// An acknowledgement that says success.
    pub fn success(kind: AckKind, packet_id: PacketId) -> Ack<'a> {
        Ack { kind, packet_id, reason: ReasonCode::Success, reason_string: None }
    }
}
