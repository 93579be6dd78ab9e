//! Our codec against two others, on valid packets and on damaged ones.
//!
//! Each of the three decodes the same bytes. Where all take them, the other's encoding of what it understood must mean
//! the same to us as the bytes did, and it must understand our encoding. Where they disagree about taking them, the
//! disagreement must stand in [`WE_REFUSE`] or [`WE_TAKE`] with the reason; a row that no case needs any more fails
//! the test too. Only 3.1.1 and 5.0: neither knows 3.1.

mod packets;

use std::collections::BTreeMap;

use ironpost::wire::{Packet, PacketId, PacketType, Properties, ReasonCode, Version, decode, encode, topic};
use mqtt_protocol_core::mqtt::packet::v5_0;
use packets::{Choices, Random, damaged, valid};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Other {
    /// `mqtt-protocol-core`, whose `parse` leaves fixed-header flags to its connection.
    Core,
    /// `mqtt5-protocol`.
    Mqtt5,
}

mod core {
    use std::sync::Arc;

    use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};

    macro_rules! parse {
        ($packet:ty, $body:expr) => {{
            let (packet, used) = <$packet>::parse($body).map_err(|error| format!("{error:?}"))?;
            if used != $body.len() {
                return Err("bytes after the end".into());
            }
            Ok(packet.to_continuous_buffer())
        }};
    }

    /// What it makes of the packet, encoded again.
    pub fn recode(first: u8, body: &[u8], v5: bool) -> Result<Vec<u8>, String> {
        if first >> 4 == 3 {
            let body: Arc<[u8]> = body.into();
            return if v5 {
                let (packet, _) =
                    v5_0::Publish::parse(first & 0x0F, body).map_err(|error| format!("{error:?}"))?;
                Ok(packet.to_continuous_buffer())
            } else {
                let (packet, _) =
                    v3_1_1::Publish::parse(first & 0x0F, body).map_err(|error| format!("{error:?}"))?;
                Ok(packet.to_continuous_buffer())
            };
        }
        match (first >> 4, v5) {
            (1, _) if body.get(6) == Some(&5) => parse!(v5_0::Connect, body),
            (1, _) => parse!(v3_1_1::Connect, body),
            (2, true) => parse!(v5_0::Connack, body),
            (2, false) => parse!(v3_1_1::Connack, body),
            (4, true) => parse!(v5_0::Puback, body),
            (4, false) => parse!(v3_1_1::Puback, body),
            (5, true) => parse!(v5_0::Pubrec, body),
            (5, false) => parse!(v3_1_1::Pubrec, body),
            (6, true) => parse!(v5_0::Pubrel, body),
            (6, false) => parse!(v3_1_1::Pubrel, body),
            (7, true) => parse!(v5_0::Pubcomp, body),
            (7, false) => parse!(v3_1_1::Pubcomp, body),
            (8, true) => parse!(v5_0::Subscribe, body),
            (8, false) => parse!(v3_1_1::Subscribe, body),
            (9, true) => parse!(v5_0::Suback, body),
            (9, false) => parse!(v3_1_1::Suback, body),
            (10, true) => parse!(v5_0::Unsubscribe, body),
            (10, false) => parse!(v3_1_1::Unsubscribe, body),
            (11, true) => parse!(v5_0::Unsuback, body),
            (11, false) => parse!(v3_1_1::Unsuback, body),
            (12, true) => parse!(v5_0::Pingreq, body),
            (12, false) => parse!(v3_1_1::Pingreq, body),
            (13, true) => parse!(v5_0::Pingresp, body),
            (13, false) => parse!(v3_1_1::Pingresp, body),
            (14, true) => parse!(v5_0::Disconnect, body),
            (14, false) => parse!(v3_1_1::Disconnect, body),
            (15, true) => parse!(v5_0::Auth, body),
            _ => Err("no such packet".into()),
        }
    }
}

mod mqtt5 {
    use mqtt5_protocol::packet::MqttPacket;
    use mqtt5_protocol::{FixedHeader, Packet};

    /// What it makes of the packet, encoded again.
    pub fn recode(frame: &[u8], version: u8) -> Result<Vec<u8>, String> {
        let mut rest = frame;
        let header = FixedHeader::decode(&mut rest).map_err(|error| error.to_string())?;
        let packet = Packet::decode_from_body_with_version(header.packet_type, &header, &mut rest, version)
            .map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("bytes after the end".into());
        }
        let mut out = Vec::new();
        match &packet {
            Packet::Connect(packet) => packet.encode(&mut out),
            Packet::ConnAck(packet) => packet.encode(&mut out),
            Packet::Publish(packet) => packet.encode(&mut out),
            Packet::PubAck(packet) => packet.encode(&mut out),
            Packet::PubRec(packet) => packet.encode(&mut out),
            Packet::PubRel(packet) => packet.encode(&mut out),
            Packet::PubComp(packet) => packet.encode(&mut out),
            Packet::Subscribe(packet) => packet.encode(&mut out),
            Packet::SubAck(packet) => packet.encode(&mut out),
            Packet::Unsubscribe(packet) => packet.encode(&mut out),
            Packet::UnsubAck(packet) => packet.encode(&mut out),
            Packet::PingReq | Packet::PingResp => {
                out.extend_from_slice(&frame[..2]);
                Ok(())
            }
            Packet::Disconnect(packet) => packet.encode(&mut out),
            Packet::Auth(packet) => packet.encode(&mut out),
        }
        .map_err(|error| error.to_string())?;
        Ok(out)
    }
}

fn recode(other: Other, frame: &[u8], version: Version) -> Result<Vec<u8>, String> {
    let head = 1 + frame[1..].iter().take_while(|&&byte| byte >= 0x80).count() + 1;
    match other {
        Other::Core => core::recode(frame[0], &frame[head..], version.is_v5()),
        Other::Mqtt5 => mqtt5::recode(frame, version as u8),
    }
}

/// A packet without what two encodings of it may say differently: explicit defaults of a CONNECT.
fn comparable(mut packet: Packet<'_>) -> (Packet<'_>, Vec<(&str, &str)>) {
    let mut user_properties = Vec::new();
    if let Packet::Connect(connect) = &mut packet {
        user_properties = connect.properties.user_properties().collect();
        connect.properties = Properties::EMPTY;
    }
    (packet, user_properties)
}

/// What we refuse and another takes: who, our reason, why we are right.
const WE_REFUSE: &[(Other, &str, &str)] = &[
    (Other::Core, "AUTH without method", "3.15.2.2.2: a protocol error to omit it"),
    (Other::Core, "DUP at QoS 0", "[MQTT-3.3.1-2]"),
    (Other::Core, "authentication data without method", "3.1.2.11.10: a protocol error"),
    (Other::Core, "bytes after the end", "2.1.4: the acknowledgements of 3.1.1 are two bytes"),
    (Other::Core, "ends early", "2.2.2.1: a PUBLISH and an AUTH with a reason have a property length"),
    (Other::Core, "neither topic nor topic alias", "3.3.2.1: a protocol error"),
    (Other::Core, "no-local on a shared subscription", "[MQTT-3.8.3-4]"),
    (Other::Core, "packet identifier 0", "[MQTT-2.2.1-3]"),
    (Other::Core, "payload is not the UTF-8 it claims to be", "3.3.2.3.2: a receiver may validate it"),
    (Other::Core, "reserved CONNACK flag", "[MQTT-3.2.2-1]"),
    (Other::Core, "reserved connect flag", "[MQTT-3.1.2-3]"),
    (Other::Core, "reserved subscription option", "[MQTT-3.1.1 3.8.3-4]"),
    (Other::Core, "response topic is not a topic name", "[MQTT-3.3.2-14]"),
    (Other::Core, "session present with a failure", "[MQTT-3.2.2-6]"),
    (Other::Core, "string with U+0000", "[MQTT-1.5.4-2]"),
    (Other::Core, "topic name empty, with wildcard, or too long", "[MQTT-3.3.2-2], [MQTT-4.7.3-1]"),
    (Other::Core, "variable byte integer longer than needed", "[MQTT-1.5.5-1]"),
    (Other::Core, "will QoS 3", "[MQTT-3.1.2-12]"),
    (Other::Core, "will QoS or retain without will", "[MQTT-3.1.2-11], [MQTT-3.1.2-13]"),
    (Other::Mqtt5, "AUTH without method", "3.15.2.2.2: a protocol error to omit it"),
    (Other::Mqtt5, "authentication data without method", "3.1.2.11.10: a protocol error"),
    (Other::Mqtt5, "bytes after the end", "it decodes some packets of 3.1.1 as if they were of 5.0"),
    (Other::Mqtt5, "ends early", "2.2.2.1: a CONNACK and an AUTH with a reason have a property length"),
    (Other::Mqtt5, "maximum packet size 0", "3.2.2.3.6: a protocol error"),
    (Other::Mqtt5, "neither topic nor topic alias", "3.3.2.1: a protocol error"),
    (Other::Mqtt5, "no-local on a shared subscription", "[MQTT-3.8.3-4]"),
    (Other::Mqtt5, "packet identifier 0", "[MQTT-2.2.1-3]"),
    (Other::Mqtt5, "payload is not the UTF-8 it claims to be", "3.3.2.3.2: a receiver may validate it"),
    (Other::Mqtt5, "property must be 0 or 1", "3.1.2.11.6 and others: other values are a protocol error"),
    (Other::Mqtt5, "property not allowed here", "2.2.2.2: malformed"),
    (Other::Mqtt5, "reason code not allowed on this packet", "[MQTT-3.2.2-8], [MQTT-3.15.2-1]"),
    (Other::Mqtt5, "reserved subscription option", "[MQTT-3.1.1 3.8.3-4]"),
    (Other::Mqtt5, "response topic is not a topic name", "[MQTT-3.3.2-14]"),
    (Other::Mqtt5, "session present with a failure", "[MQTT-3.2.2-6]"),
    (Other::Mqtt5, "subscription identifier 0", "3.8.2.1.2: a protocol error"),
    (Other::Mqtt5, "subscription with QoS 3", "[MQTT-3.1.1 3.8.3-4]"),
    (Other::Mqtt5, "topic alias 0", "[MQTT-3.3.2-8]"),
    (Other::Mqtt5, "topic name empty, with wildcard, or too long", "[MQTT-3.3.2-2], [MQTT-4.7.3-1]"),
    (Other::Mqtt5, "unknown protocol name or level", "[MQTT-3.1.2-2]; it leaves that to its server"),
    (Other::Mqtt5, "unknown reason code", "[MQTT-3.2.2-8], [MQTT-3.15.2-1]"),
    (Other::Mqtt5, "unknown return code", "[MQTT-3.1.1 3.9.3-2] and table 3.1 of 3.1.1"),
    (Other::Mqtt5, "variable byte integer longer than needed", "[MQTT-1.5.5-1]"),
];

/// What we take and another refuses: who, the packet, why we are right.
const WE_TAKE: &[(Other, PacketType, &str)] = &[
    (Other::Core, PacketType::Connect, "3.1.2.9: version 5 allows a password without user name"),
    (Other::Core, PacketType::Disconnect, "table 2-6 gives 0x8C to DISCONNECT, table 3-10 does not"),
    (Other::Core, PacketType::Subscribe, "an invalid filter is refused in SUBACK, the connection lives"),
    (Other::Core, PacketType::Unsubscribe, "an invalid filter is refused in UNSUBACK, the connection lives"),
    (Other::Mqtt5, PacketType::Connect, "3.1.2.9: version 5 allows a password without user name"),
    (Other::Mqtt5, PacketType::Disconnect, "table 2-6 gives 0x8C to DISCONNECT, table 3-10 does not"),
];

/// Whether that packet is one of those [`WE_TAKE`] speaks of.
fn may_take(packet: &Packet<'_>) -> bool {
    match packet {
        Packet::Connect(connect) => {
            connect.version.is_v5() && connect.password.is_some() && connect.username.is_none()
        }
        Packet::Disconnect(disconnect) => disconnect.reason == ReasonCode::BadAuthenticationMethod,
        Packet::Subscribe(subscribe) => {
            !subscribe.filters().all(|(filter, _)| topic::filter_is_valid(filter))
        }
        Packet::Unsubscribe(unsubscribe) => !unsubscribe.filters().all(topic::filter_is_valid),
        _ => false,
    }
}

/// Decodes on both sides. The row that a disagreement needs, `None` if there is none; panics if it is no such row.
fn compare(other: Other, frame: &[u8], version: Version) -> Option<(Other, String)> {
    let hex = || frame.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    match (decode::packet(frame, Some(version)), recode(other, frame, version)) {
        (Ok(ours), Ok(theirs)) => {
            let back = decode::packet(&theirs, Some(version));
            let back =
                back.unwrap_or_else(|error| panic!("{other:?} encodes what we refuse, {error}: {}", hex()));
            assert_eq!(comparable(back), comparable(ours), "{other:?} reads {} differently", hex());
            let mut encoded = Vec::new();
            encode::packet(&ours, version, &mut encoded);
            let understood = recode(other, &encoded, version);
            let understood =
                understood.unwrap_or_else(|error| panic!("{other:?} refuses ours, {error}: {}", hex()));
            let back = decode::packet(&understood, Some(version)).expect("it was taken before");
            let own = decode::packet(&encoded, Some(version)).expect("what we encode we decode");
            assert_eq!(
                comparable(back),
                comparable(own),
                "{other:?} reads our encoding of {} differently",
                hex()
            );
            None
        }
        (Err(_), Err(_)) => None,
        (Ok(ours), Err(error)) => {
            let row = WE_TAKE.iter().find(|row| (row.0, row.1) == (other, ours.packet_type()));
            assert!(row.is_some() && may_take(&ours), "{other:?} refuses {}: {error}", hex());
            Some((other, format!("take {:?}", ours.packet_type())))
        }
        (Err(error), Ok(_)) => {
            let row = WE_REFUSE.iter().find(|row| (row.0, row.1) == (other, error.what));
            assert!(row.is_some(), "{other:?} takes {}: {error}", hex());
            Some((other, format!("refuse {}", error.what)))
        }
    }
}

#[test]
fn every_disagreement_with_another_codec_is_justified_and_every_justification_needed() {
    let mut needed: BTreeMap<(Other, String), u32> = BTreeMap::new();
    for (seed, other, version) in [
        (1, Other::Core, Version::V311),
        (1, Other::Core, Version::V5),
        (2, Other::Mqtt5, Version::V311),
        (2, Other::Mqtt5, Version::V5),
    ] {
        let mut random = Random(seed);
        for case in 0..400_000 {
            let mut bytes = [0; 160];
            random.fill(&mut bytes);
            let mut choices = Choices::new(&bytes);
            let mut frame = valid(&mut choices, version, true);
            if case % 4 != 0 {
                frame = damaged(&mut choices, &frame);
            }
            if let Some(row) = compare(other, &frame, version) {
                *needed.entry(row).or_default() += 1;
            }
        }
    }
    for (other, what, _) in WE_REFUSE {
        assert!(needed.contains_key(&(*other, format!("refuse {what}"))), "no case needs {other:?} {what}");
    }
    for (other, packet, _) in WE_TAKE {
        assert!(
            needed.contains_key(&(*other, format!("take {packet:?}"))),
            "no case needs {other:?} {packet:?}"
        );
    }
}

#[test]
fn fields_read_one_by_one_are_the_same() {
    let mut random = Random(3);
    for _ in 0..50_000 {
        let mut bytes = [0; 160];
        random.fill(&mut bytes);
        let frame = valid(&mut Choices::new(&bytes), Version::V5, false);
        let body = &frame[1 + frame[1..].iter().take_while(|&&byte| byte >= 0x80).count() + 1..];
        match decode::packet(&frame, Some(Version::V5)).expect("valid") {
            Packet::Publish(ours) => {
                let (theirs, _) = v5_0::Publish::parse(frame[0] & 0x0F, body.into()).expect("valid");
                assert_eq!((ours.topic, ours.payload), (theirs.topic_name(), theirs.payload().as_slice()));
                assert_eq!((ours.dup, ours.retain), (theirs.dup(), theirs.retain()));
                assert_eq!(ours.qos as u8, theirs.qos() as u8);
                assert_eq!(ours.packet_id.map(PacketId::get), theirs.packet_id());
                assert_eq!(ours.forward.iter().count(), theirs.props().len());
            }
            Packet::Connect(ours) if ours.password.is_none() || ours.username.is_some() => {
                let (theirs, _) = v5_0::Connect::parse(body).expect("valid");
                assert_eq!((ours.client_id, ours.username), (theirs.client_id(), theirs.user_name()));
                assert_eq!((ours.password, ours.keep_alive), (theirs.password(), theirs.keep_alive()));
                assert_eq!(ours.clean_start, theirs.clean_start());
                assert_eq!(ours.will.map(|will| will.topic), theirs.will_topic());
                assert_eq!(ours.will.map(|will| will.payload), theirs.will_payload());
                assert_eq!(ours.will.map_or(0, |will| will.qos as u8), theirs.will_qos() as u8);
                assert_eq!(ours.will.is_some_and(|will| will.retain), theirs.will_retain());
                assert_eq!(ours.properties.iter().count(), theirs.props().len());
            }
            _ => {}
        }
    }
}
