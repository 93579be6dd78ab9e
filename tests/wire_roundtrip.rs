//! The codec as a whole: what is decoded, encoded and decoded again is the same; framing works at every split; no
//! bytes make it panic. Packets come from `packets`, which does not use our encoder.

mod packets;

use ironpost::wire::frame::{Peek, peek};
use ironpost::wire::{Packet, PacketType, Properties, Version, decode, encode};
use packets::{Choices, damaged, valid};
use proptest::collection::vec;
use proptest::prelude::*;

const MAX: u32 = 1 << 20;
const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// Takes the packet through encode and decode once more, and checks everything that must hold.
fn round_trip(frame: &[u8], packet: &Packet<'_>, version: Version) {
    let version = if let Packet::Connect(connect) = packet { connect.version } else { version };
    let mut packet = *packet;
    // Subscription identifiers belong to one hop: decoding notes them, encoding does not repeat them.
    if let Packet::Publish(publish) = &mut packet {
        publish.carries_subscription_id = false;
    }
    let mut encoded = Vec::new();
    encode::packet(&packet, version, &mut encoded);
    assert_eq!(encoded.len(), encode::length(&packet, version), "{packet:?}");
    assert!(encoded.len() <= frame.len(), "encoding adds nothing: {packet:?}");
    assert_eq!(peek(&encoded, u32::MAX), Ok(Peek::Complete { len: encoded.len() }));
    let again = decode::packet(&encoded, Some(version)).expect("what we encode we decode");
    assert_eq!(user_properties(&again), user_properties(&packet));
    assert_eq!(without_defaults(again), without_defaults(packet));
    let mut twice = Vec::new();
    encode::packet(&again, version, &mut twice);
    assert_eq!(twice, encoded, "the encoded form is canonical");
}

/// A CONNECT may spell out what is the default; encoding does not, and the fields say the same.
fn without_defaults(mut packet: Packet<'_>) -> Packet<'_> {
    if let Packet::Connect(connect) = &mut packet {
        connect.properties = Properties::EMPTY;
    }
    packet
}

fn user_properties<'a>(packet: &Packet<'a>) -> Vec<(&'a str, &'a str)> {
    match packet {
        Packet::Connect(connect) => connect.properties.user_properties().collect(),
        Packet::Connack(connack) => connack.properties.user_properties().collect(),
        Packet::Publish(publish) => publish.forward.user_properties().collect(),
        _ => Vec::new(),
    }
}

/// Reads everything that a decoded packet lends.
fn read_all(packet: &Packet<'_>) -> usize {
    match packet {
        Packet::Connect(connect) => {
            let will = connect.will.map_or(0, |will| will.forward.iter().count());
            connect.properties.iter().count() + will
        }
        Packet::Connack(connack) => connack.properties.iter().count(),
        Packet::Publish(publish) => {
            assert_eq!(publish.packet_id.is_some(), publish.qos as u8 > 0);
            let forwarded: usize = publish.forward.forwarded().map(<[u8]>::len).sum();
            assert_eq!(forwarded, publish.forward.forwarded_len());
            publish.forward.iter().count()
        }
        Packet::Subscribe(subscribe) => {
            subscribe.filters().inspect(|(filter, _)| assert!(!filter.contains('\0'))).count()
        }
        Packet::Unsubscribe(unsubscribe) => unsubscribe.filters().count(),
        Packet::Suback(suback) => suback.reasons.iter().count(),
        Packet::Unsuback(unsuback) => unsuback.reasons.iter().count(),
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_valid_packet_is_taken_and_survives_the_round_trip(choices in vec(any::<u8>(), 0..120), version in 0_usize..3) {
        let version = VERSIONS[version];
        let frame = valid(&mut Choices::new(&choices), version, true);
        let packet = decode::packet(&frame, Some(version)).expect("valid");
        read_all(&packet);
        round_trip(&frame, &packet, version);
        let first = if packet.packet_type() == PacketType::Connect { Some(packet) } else { None };
        prop_assert_eq!(decode::packet(&frame, None).ok(), first, "only CONNECT comes first");
    }

    #[test]
    fn damage_is_refused_or_means_something_else(choices in vec(any::<u8>(), 0..120), version in 0_usize..3) {
        let version = VERSIONS[version];
        let mut choices = Choices::new(&choices);
        let frame = valid(&mut choices, version, true);
        let frame = damaged(&mut choices, &frame);
        match decode::packet(&frame, Some(version)) {
            Ok(packet) => {
                read_all(&packet);
                round_trip(&frame, &packet, version);
            }
            Err(error) => prop_assert!(error.reason.is_failure()),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300), version in 0_usize..3, first in any::<u8>()) {
        let version = VERSIONS[version];
        let _ = peek(&bytes, MAX);
        for frame in [bytes.clone(), packets::framed(first, &bytes)] {
            for version in [None, Some(version)] {
                if let Ok(packet) = decode::packet(&frame, version) {
                    read_all(&packet);
                }
            }
            let _ = decode::announced_version(&frame);
        }
    }

    #[test]
    fn a_stream_is_cut_into_the_same_packets_however_it_arrives(
        packets in vec(vec(any::<u8>(), 0..60), 1..5), version in 0_usize..3
    ) {
        let version = VERSIONS[version];
        let frames: Vec<Vec<u8>> =
            packets.iter().map(|choices| valid(&mut Choices::new(choices), version, true)).collect();
        let stream = frames.concat();
        // Every prefix of the stream, as if it had arrived up to there.
        for arrived in 0..=stream.len() {
            let mut rest = &stream[..arrived];
            let mut found = 0;
            let need = loop {
                match peek(rest, MAX).expect("valid") {
                    Peek::Complete { len } => {
                        prop_assert_eq!(&rest[..len], frames[found].as_slice());
                        found += 1;
                        rest = &rest[len..];
                    }
                    Peek::Incomplete { need } => break need,
                }
            };
            prop_assert!(need > rest.len());
            if let Some(next) = frames.get(found) {
                prop_assert!(need <= next.len(), "never waits for more than the packet");
                prop_assert!(need == next.len() || rest.len() < 5, "knows the length once the header is there");
            }
        }
    }
}
