//! Where packets end in a stream that comes in pieces of any size.

use super::bytes::{
    CONNACK_V3, DISCONNECT, PINGREQ, PINGRESP, Start, connect_v3, connect_v5, puback, publish_v3, suback_v3,
    subscribe_v3,
};
use super::rig::Rig;
use crate::limits::{CLOSE_TIME_MS, CONNECT_BYTES_MAX, PACKET_BYTES_DEFAULT};
use crate::reactor::sim;

#[test]
fn packets_may_come_one_byte_at_a_time() {
    let mut rig = Rig::new();
    let peer = rig.peer();
    let mut stream = connect_v3("byte-by-byte", Start::Clean, 0);
    stream.extend(subscribe_v3(1, "slow/#", 1));
    stream.extend(publish_v3(9, "slow/topic", b"payload"));
    stream.extend(PINGREQ);
    for byte in stream {
        rig.say(peer, &[byte]);
        // Longer than a byte is on its way: each is read before the next is sent.
        rig.run_ms(10);
    }
    rig.run_ms(1_000);
    assert_eq!(rig.ended_at(peer), None);
    let packets = rig.packets(peer);
    assert_eq!(packets[..2], [CONNACK_V3.to_vec(), suback_v3(1, 1)], "{packets:02x?}");
    assert!(packets.contains(&publish_v3(1, "slow/topic", b"payload")), "{packets:02x?}");
    assert!(packets.contains(&puback(9)), "{packets:02x?}");
    assert!(packets.contains(&PINGRESP.to_vec()), "{packets:02x?}");
    assert_eq!(packets.len(), 5, "{packets:02x?}");
}

#[test]
fn five_hundred_packets_may_come_in_one_read() {
    // What is sent in one piece arrives in one piece.
    let whole = sim::Settings { short_transfer_per_mille: 0, ..sim::Settings::default() };
    let mut rig = Rig::with(1, whole, |_| {});
    let reader = rig.subscriber_v3("reader", "many", 0);
    let writer = rig.client_v3("writer");
    let stream: Vec<u8> =
        (0..500_u32).flat_map(|number| publish_v3(0, "many", &number.to_be_bytes())).collect();
    assert!(stream.len() < crate::limits::RECEIVE_BYTES, "they fit one read");
    rig.say(writer, &stream);
    rig.run_ms(1_000);
    let packets = rig.packets(reader);
    let wanted: Vec<_> = (0..500_u32).map(|number| publish_v3(0, "many", &number.to_be_bytes())).collect();
    assert_eq!(packets, wanted);
}

#[test]
fn packets_that_straddle_reads_are_put_together() {
    let mut rig = Rig::new();
    let reader = rig.subscriber_v3("reader", "large", 0);
    let writer = rig.client_v3("writer");
    let mut wanted = Vec::new();
    for number in 0..20_u8 {
        // Several reads long, and never a multiple of one.
        wanted.push(publish_v3(0, "large", &vec![number; 40_000 + 777 * usize::from(number)]));
        rig.say(writer, wanted.last().unwrap());
    }
    rig.run_until("everything is said", |rig| rig.unsaid(writer) == 0);
    rig.run_ms(2_000);
    assert!(rig.packets(reader) == wanted, "not the same packets");
}

#[test]
fn what_came_before_the_end_of_the_stream_counts() {
    let mut rig = Rig::new();
    let reader = rig.subscriber_v3("reader", "last/words", 0);
    let writer = rig.client_v3("writer");
    rig.say(writer, &publish_v3(0, "last/words", b"goodbye"));
    rig.say(writer, &DISCONNECT);
    rig.finish(writer);
    assert_eq!(rig.packet(reader), publish_v3(0, "last/words", b"goodbye"));
    let (packets, _) = rig.end(writer);
    assert!(packets.is_empty(), "{packets:02x?}");
}

#[test]
fn a_packet_too_large_is_answered_before_the_close_although_the_peer_goes_on_sending() {
    let mut rig = Rig::new();
    let peer = rig.peer();
    rig.say(peer, &connect_v5("too-large", Start::Clean, 0));
    assert_eq!(rig.packet(peer)[0], 0x20);
    // Five windows of the socket: if we closed at the first bytes, the peer would be reset while it still sends.
    let begun = rig.now();
    rig.say(peer, &publish_v3(0, "large", &vec![1; PACKET_BYTES_DEFAULT as usize]));
    let disconnect = rig.packet(peer);
    assert_eq!(disconnect, [0xE0, 1, 0x95]);
    rig.run_until("all of it is taken", |rig| rig.unsaid(peer) == 0);
    assert_eq!(rig.ended_at(peer), None, "closed before the peer was done");
    rig.finish(peer);
    let (packets, at) = rig.end(peer);
    assert!(packets.is_empty(), "{packets:02x?}");
    assert!(at < begun.plus_ms(CLOSE_TIME_MS), "its end of stream ends it");
}

#[test]
fn a_peer_that_does_not_end_after_the_last_word_is_closed_in_time() {
    let mut rig = Rig::new();
    let peer = rig.peer();
    rig.say(peer, &connect_v5("too-large", Start::Clean, 0));
    assert_eq!(rig.packet(peer)[0], 0x20);
    let begun = rig.now();
    let header = &publish_v3(0, "large", &vec![1; PACKET_BYTES_DEFAULT as usize])[..100];
    rig.say(peer, header);
    assert_eq!(rig.packet(peer), [0xE0, 1, 0x95]);
    let (_, at) = rig.end(peer);
    super::handshake::assert_closed_within(begun, at, CLOSE_TIME_MS..CLOSE_TIME_MS + 1_100);
}

#[test]
fn before_connect_is_accepted_a_packet_may_only_be_small() {
    let mut rig = Rig::new();
    let peer = rig.peer();
    let mut connect = connect_v5("greedy", Start::Clean, 0);
    // The same packet, with a remaining length just above what a stranger may have.
    let length = CONNECT_BYTES_MAX;
    let tail = connect.split_off(2);
    connect.truncate(1);
    connect.extend([(length & 127) as u8 | 0x80, (length >> 7 & 127) as u8 | 0x80, (length >> 14) as u8]);
    connect.extend(tail);
    rig.say(peer, &connect);
    assert_eq!(rig.packet(peer), [0x20, 3, 0, 0x95, 0]);
}
