//! What must hold for every packet that decodes. Used by the tests of `wire/` and by the fuzz targets.

use ironpost::wire::frame::{Peek, peek};
use ironpost::wire::{Packet, Properties, Version, decode, encode};

/// Takes the packet through encode and decode once more, and checks everything that must hold.
pub fn round_trip(frame: &[u8], packet: &Packet<'_>, version: Version) {
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
pub fn read_all(packet: &Packet<'_>) -> usize {
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

/// A frame through everything: decoding must not panic, and what it yields must read and round-trip.
pub fn frame(frame: &[u8], version: Version) {
    let _ = decode::announced_version(frame);
    if let Ok(packet) = decode::packet(frame, None) {
        assert_eq!(packet.packet_type() as u8, 1, "only CONNECT comes first");
    }
    if let Ok(packet) = decode::packet(frame, Some(version)) {
        read_all(&packet);
        round_trip(frame, &packet, version);
    }
}

/// Packets of a stream and how it ended, looking at it as if pieces of those sizes had arrived; the last piece is the
/// rest.
pub fn cut(stream: &[u8], sizes: &[u8], packet_bytes_max: u32) -> (Vec<Vec<u8>>, Option<u8>) {
    let mut packets = Vec::new();
    let (mut start, mut arrived) = (0, 0);
    let mut sizes = sizes.iter();
    loop {
        arrived = sizes.next().map_or(stream.len(), |&size| (arrived + usize::from(size)).min(stream.len()));
        loop {
            match peek(&stream[start..arrived], packet_bytes_max) {
                Ok(Peek::Complete { len }) => {
                    assert!(len >= 2 && start + len <= arrived && len <= packet_bytes_max as usize);
                    packets.push(stream[start..start + len].to_vec());
                    start += len;
                }
                Ok(Peek::Incomplete { need }) => {
                    assert!(need > arrived - start && need <= packet_bytes_max.max(5) as usize);
                    break;
                }
                Err(error) => return (packets, Some(error.reason as u8)),
            }
        }
        if arrived == stream.len() {
            return (packets, None);
        }
    }
}
