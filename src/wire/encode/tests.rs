//! Values in, exact bytes out.

use std::num::NonZeroU16;

use super::*;
use crate::wire::{
    Ack, AckKind, Auth, Connack, Disconnect, PacketId, Properties, QoS, ReasonCode, Reasons, Suback,
    Subscribe, SubscribeOptions, Unsuback, Unsubscribe, decode,
};

const V5: Version = Version::V5;
const V311: Version = Version::V311;

fn encoded(what: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = b"before".to_vec();
    packet(what, version, &mut out);
    assert_eq!(out.len() - 6, length(what, version), "length agrees with the bytes");
    assert_eq!(&out[..6], b"before", "appends");
    out.split_off(6)
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("not 0")
}

fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic,
        packet_id: PacketId::new(10),
        message_expiry: None,
        topic_alias: None,
        subscription_ids: &[],
        carries_subscription_id: false,
        forward: Properties::EMPTY,
        payload,
    }
}

#[test]
fn a_publish_has_what_its_version_knows() {
    let packet = Publish {
        dup: true,
        retain: true,
        message_expiry: Some(7),
        topic_alias: NonZeroU16::new(5),
        subscription_ids: &[1, 128],
        forward: Properties::from_stored(b"\x26\0\x01k\0\x01v"),
        ..publish("a/b", b"pay")
    };
    let expected =
        b"\x3B\x1F\0\x03a/b\0\x0A\x14\x02\0\0\0\x07\x23\0\x05\x0B\x01\x0B\x80\x01\x26\0\x01k\0\x01vpay";
    assert_eq!(encoded(&Packet::Publish(packet), V5), expected);
    assert_eq!(encoded(&Packet::Publish(packet), V311), b"\x3B\x0A\0\x03a/b\0\x0Apay");
    let at_most_once = Publish { qos: QoS::AtMostOnce, packet_id: None, ..publish("a", b"") };
    assert_eq!(encoded(&Packet::Publish(at_most_once), V5), b"\x30\x04\0\x01a\0");
}

#[test]
fn a_forwarded_publish_loses_exactly_what_belongs_to_one_hop() {
    // [MQTT-3.3.2-17] [MQTT-3.3.2-18]: user properties in order, around what is taken out.
    let bytes =
        b"\x30\x20\0\x01a\x1A\x0B\x01\x26\0\x01k\0\x01v\x23\0\x01\x02\0\0\0\x09\x26\0\x01k\0\x01w\x0B\x02xy";
    let Ok(Packet::Publish(mut packet)) = decode::packet(bytes, Some(V5)) else {
        panic!("{:?}", decode::packet(bytes, Some(V5)))
    };
    assert_eq!(packet.forward.forwarded_len(), 14);
    packet.topic_alias = None;
    packet.message_expiry = Some(4);
    let expected = b"\x30\x19\0\x01a\x13\x02\0\0\0\x04\x26\0\x01k\0\x01v\x26\0\x01k\0\x01wxy";
    assert_eq!(encoded(&Packet::Publish(packet), V5), expected);
}

#[test]
fn lengths_cross_every_size_of_the_remaining_length() {
    for size in [0, 118, 119, 120, 121, 122, 123, 16_374, 16_375, 16_376, 16_377, 2_097_144, 2_097_145] {
        let payload = vec![1; size];
        for version in [V311, V5] {
            let bytes = encoded(&Packet::Publish(publish("a/b", &payload)), version);
            let Ok(Packet::Publish(back)) = decode::packet(&bytes, Some(version)) else { panic!("{size}") };
            assert_eq!(back.payload.len(), size);
        }
    }
}

#[test]
fn acknowledgements_are_as_short_as_they_may_be() {
    let ack = Ack::success(AckKind::Puback, id(0x1234));
    assert_eq!(encoded(&Packet::Ack(ack), V5), b"\x40\x02\x12\x34");
    assert_eq!(encoded(&Packet::Ack(Ack { kind: AckKind::Pubrel, ..ack }), V5), b"\x62\x02\x12\x34");
    let refused = Ack { reason: ReasonCode::QuotaExceeded, ..ack };
    assert_eq!(encoded(&Packet::Ack(refused), V5), b"\x40\x03\x12\x34\x97");
    assert_eq!(encoded(&Packet::Ack(refused), V311), b"\x40\x02\x12\x34");
    let said = Ack { reason_string: Some("r"), ..ack };
    assert_eq!(encoded(&Packet::Ack(said), V5), b"\x40\x08\x12\x34\0\x04\x1F\0\x01r");
}

#[test]
fn a_connack_says_what_its_version_can() {
    let user = [("k", "v")];
    let packet = Connack {
        session_present: true,
        receive_maximum: NonZeroU16::new(10),
        maximum_qos: Some(QoS::AtLeastOnce),
        assigned_client_id: Some("id"),
        server_keep_alive: Some(9),
        user_properties: &user,
        ..Connack::new(ReasonCode::Success)
    };
    let expected = b"\x20\x17\x01\0\x14\x21\0\x0A\x24\x01\x12\0\x02id\x13\0\x09\x26\0\x01k\0\x01v";
    assert_eq!(encoded(&Packet::Connack(packet), V5), expected);
    assert_eq!(encoded(&Packet::Connack(packet), V311), b"\x20\x02\x01\0");
    assert_eq!(encoded(&Packet::Connack(packet), Version::V31), b"\x20\x02\0\0", "3.1 reserves the flag");
    for (reason, code) in [
        (ReasonCode::UnsupportedProtocolVersion, 1),
        (ReasonCode::ClientIdentifierNotValid, 2),
        (ReasonCode::ServerBusy, 3),
        (ReasonCode::BadUserNameOrPassword, 4),
        (ReasonCode::NotAuthorized, 5),
        (ReasonCode::QuotaExceeded, 3),
    ] {
        let refused = Connack { session_present: true, ..Connack::new(reason) };
        // [MQTT-3.1.1 3.2.2-4]: no session present with a failure.
        assert_eq!(encoded(&Packet::Connack(refused), V311), [0x20, 2, 0, code]);
        assert_eq!(encoded(&Packet::Connack(refused), V5), [0x20, 3, 0, reason as u8, 0]);
    }
}

#[test]
fn answers_to_subscriptions_are_translated_for_v3() {
    let codes = [ReasonCode::GrantedQoS1, ReasonCode::TopicFilterInvalid];
    let suback = Packet::Suback(Suback { packet_id: id(1), reason_string: None, reasons: (&codes).into() });
    assert_eq!(encoded(&suback, V5), b"\x90\x05\0\x01\0\x01\x8F");
    assert_eq!(encoded(&suback, V311), b"\x90\x04\0\x01\x01\x80");
    let codes = [ReasonCode::NoSubscriptionExisted];
    let unsuback =
        Unsuback { packet_id: id(1), reason_string: Some("r"), reasons: Reasons::from(&codes[..]) };
    assert_eq!(encoded(&Packet::Unsuback(unsuback), V5), b"\xB0\x08\0\x01\x04\x1F\0\x01r\x11");
    assert_eq!(encoded(&Packet::Unsuback(unsuback), V311), b"\xB0\x02\0\x01");
}

#[test]
fn a_client_can_subscribe_and_unsubscribe() {
    let mut entries = Vec::new();
    let options = SubscribeOptions { qos: QoS::ExactlyOnce, no_local: true, ..SubscribeOptions::default() };
    Subscribe::push_entry(&mut entries, "a/#", options);
    Subscribe::push_entry(&mut entries, "b", SubscribeOptions::default());
    let subscribe = Packet::Subscribe(Subscribe::new(id(1), Some(200), &entries));
    assert_eq!(encoded(&subscribe, V5), b"\x82\x10\0\x01\x03\x0B\xC8\x01\0\x03a/#\x06\0\x01b\0");
    assert_eq!(encoded(&subscribe, V311), b"\x82\x0C\0\x01\0\x03a/#\x02\0\x01b\0", "only the QoS");
    let mut entries = Vec::new();
    Unsubscribe::push_entry(&mut entries, "a/#");
    let unsubscribe = Packet::Unsubscribe(Unsubscribe::new(id(1), &entries));
    assert_eq!(encoded(&unsubscribe, V5), b"\xA2\x08\0\x01\0\0\x03a/#");
    assert_eq!(encoded(&unsubscribe, V311), b"\xA2\x07\0\x01\0\x03a/#");
}

#[test]
fn the_short_packets_are_short() {
    assert_eq!(encoded(&Packet::Pingreq, V5), b"\xC0\0");
    assert_eq!(encoded(&Packet::Pingresp, V311), b"\xD0\0");
    let normal = Disconnect {
        reason: ReasonCode::Success,
        session_expiry: None,
        reason_string: None,
        server_reference: None,
    };
    assert_eq!(encoded(&Packet::Disconnect(normal), V5), b"\xE0\0");
    assert_eq!(encoded(&Packet::Disconnect(normal), V311), b"\xE0\0");
    let taken_over = Disconnect { reason: ReasonCode::SessionTakenOver, ..normal };
    assert_eq!(encoded(&Packet::Disconnect(taken_over), V5), b"\xE0\x01\x8E");
    let moved = Disconnect { server_reference: Some("x"), ..normal };
    assert_eq!(encoded(&Packet::Disconnect(moved), V5), b"\xE0\x06\0\x04\x1C\0\x01x");
    let auth = Auth {
        reason: ReasonCode::ContinueAuthentication,
        method: Some("m"),
        data: None,
        reason_string: None,
    };
    assert_eq!(encoded(&Packet::Auth(auth), V5), b"\xF0\x06\x18\x04\x15\0\x01m");
    let success = Auth { reason: ReasonCode::Success, method: None, ..auth };
    assert_eq!(encoded(&Packet::Auth(success), V5), b"\xF0\0");
}

#[test]
fn one_reservation_is_enough() {
    let payload = [0; 300];
    let packet = Packet::Publish(publish("a/b", &payload));
    let mut out = Vec::new();
    out.reserve_exact(5 + PublishLengths::of(&publish("a/b", &payload), V5).remaining);
    let before = out.capacity();
    super::packet(&packet, V5, &mut out);
    assert_eq!(out.capacity(), before);
}
