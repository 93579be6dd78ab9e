//! Bytes to packets and back. A decode begins where a received packet does, with finding its end.

use std::hint::black_box;

use ironpost::limits::PACKET_BYTES_DEFAULT;
use ironpost::wire::frame::{Peek, peek};
use ironpost::wire::{
    Ack, AckKind, Packet, QoS, ReasonCode, Subscribe, SubscribeOptions, Version, decode, encode,
};

use crate::Case;
use crate::world::{PAYLOAD, connect, packet_id, publish};

pub const CASES: &[Case] = &[
    Case {
        name: "wire/decode-publish-qos0",
        turns: 1_000,
        run: |turns| decode_publish(turns, QoS::AtMostOnce),
    },
    Case {
        name: "wire/decode-publish-qos1",
        turns: 1_000,
        run: |turns| decode_publish(turns, QoS::AtLeastOnce),
    },
    Case { name: "wire/decode-subscribe", turns: 1_000, run: decode_subscribe },
    Case { name: "wire/decode-connect", turns: 1_000, run: decode_connect },
    Case { name: "wire/encode-publish-qos1", turns: 1_000, run: encode_publish },
    Case { name: "wire/encode-puback", turns: 1_000, run: encode_puback },
];

const TOPIC: &str = "u/1234567/inbox";

fn decode_publish(turns: u32, qos: QoS) {
    let bytes = encoded(&Packet::Publish(publish(TOPIC, qos)));
    let found = decode_each(turns, &bytes, |packet| match packet {
        Packet::Publish(publish) => publish.payload.len() + publish.topic.len(),
        _ => 0,
    });
    assert_eq!(found, turns as usize * (PAYLOAD.len() + TOPIC.len()));
}

/// Two filters, which the broker then goes through.
fn decode_subscribe(turns: u32) {
    let mut entries = Vec::new();
    for filter in ["u/1234567/inbox", "room/+/small"] {
        Subscribe::push_entry(&mut entries, filter, SubscribeOptions::default());
    }
    let bytes = encoded(&Packet::Subscribe(Subscribe::new(packet_id(1), None, &entries)));
    let found = decode_each(turns, &bytes, |packet| match packet {
        Packet::Subscribe(subscribe) => subscribe.filters().map(black_box).count(),
        _ => 0,
    });
    assert_eq!(found, turns as usize * 2);
}

/// A durable session with a user name and a password.
fn decode_connect(turns: u32) {
    let mut connect = connect("device-1234567", 604_800);
    (connect.username, connect.password) = (Some("device-1234567"), Some(&PAYLOAD[..32]));
    let bytes = encoded(&Packet::Connect(connect));
    let found = decode_each(turns, &bytes, |packet| match packet {
        Packet::Connect(connect) => connect.client_id.len(),
        _ => 0,
    });
    assert_eq!(found, turns as usize * "device-1234567".len());
}

fn encode_publish(turns: u32) {
    let written = encode_each(turns, &Packet::Publish(publish(TOPIC, QoS::AtLeastOnce)));
    // Fixed header 3, topic with its length, packet id 2, no properties 1.
    assert_eq!(written, turns as usize * (3 + 2 + TOPIC.len() + 2 + 1 + PAYLOAD.len()));
}

fn encode_puback(turns: u32) {
    let ack = Ack {
        kind: AckKind::Puback,
        packet_id: packet_id(7),
        reason: ReasonCode::Success,
        reason_string: None,
    };
    assert_eq!(encode_each(turns, &Packet::Ack(ack)), turns as usize * 4);
}

/// Adds up what `look` finds in the packet, decoded that often.
fn decode_each(turns: u32, bytes: &[u8], look: impl Fn(&Packet<'_>) -> usize) -> usize {
    let mut found = 0;
    for _ in 0..turns {
        let bytes = black_box(bytes);
        let Ok(Peek::Complete { len }) = peek(bytes, PACKET_BYTES_DEFAULT) else { panic!("a whole packet") };
        let version = (bytes[0] >> 4 != 1).then_some(Version::V5);
        let packet = decode::packet(&bytes[..len], version).expect("a valid packet");
        found += look(black_box(&packet));
    }
    found
}

/// Bytes that came of encoding that often.
fn encode_each(turns: u32, packet: &Packet<'_>) -> usize {
    let mut written = 0;
    let mut out = Vec::with_capacity(1 << 10);
    for _ in 0..turns {
        out.clear();
        encode::packet(black_box(packet), Version::V5, &mut out);
        written += black_box(&out).len();
    }
    written
}

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::packet(packet, Version::V5, &mut bytes);
    bytes
}
