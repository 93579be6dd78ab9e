//! A peer that does not read: what is kept for it, and for how long.

use super::bytes::{puback, publish_v3};
use super::rig::{PeerId, Rig};
use crate::limits::{OUTPUT_BYTES_MAX, OUTPUT_STALL_MS};
use crate::time::Nanos;

const PAYLOAD_BYTES: usize = 16 << 10;
/// Twice what may wait in the output, and fewer than the window of unacknowledged deliveries.
const MESSAGES: u16 = 40;

/// A reader that has stopped reading, with more on its way than its output and the sockets hold; since when.
fn with_stopped_reader(qos: u8) -> (Rig, PeerId, Nanos) {
    let mut rig = Rig::new();
    let reader = rig.subscriber_v3("reader", "much", qos);
    rig.reads(reader, false);
    let writer = rig.client_v3("writer");
    let begun = rig.now();
    for number in 1..=MESSAGES {
        let packet_id = if qos == 0 { 0 } else { number };
        rig.say(writer, &publish_v3(packet_id, "much", &payload(number)));
    }
    rig.run_until("everything is said", |rig| rig.unsaid(writer) == 0);
    rig.run_ms(3_000);
    (rig, reader, begun)
}

fn payload(number: u16) -> Vec<u8> {
    let mut payload = vec![0; PAYLOAD_BYTES];
    payload[..2].copy_from_slice(&number.to_be_bytes());
    payload
}

#[test]
fn deliveries_stop_being_pulled_when_the_output_is_full_and_go_on_when_it_is_read() {
    let (mut rig, reader, _) = with_stopped_reader(1);
    let backlog = rig.backlog_bytes_max();
    // It is filled, and by no more than the packet that crossed the line.
    let most = OUTPUT_BYTES_MAX + PAYLOAD_BYTES + 100;
    assert!((OUTPUT_BYTES_MAX - PAYLOAD_BYTES..=most).contains(&backlog), "{backlog} bytes wait");
    rig.reads(reader, true);
    rig.run_ms(3_000);
    let packets = rig.packets(reader);
    let numbers: Vec<u16> = packets.iter().map(|packet| number_in(packet)).collect();
    assert_eq!(numbers, (1..=MESSAGES).collect::<Vec<_>>());
    assert_eq!(rig.backlog_bytes_max(), 0);
}

fn number_in(publish: &[u8]) -> u16 {
    let at = publish.len() - PAYLOAD_BYTES;
    u16::from_be_bytes([publish[at], publish[at + 1]])
}

#[test]
fn a_reader_that_takes_nothing_for_too_long_is_closed() {
    let (mut rig, reader, begun) = with_stopped_reader(1);
    rig.run_until("all but the stall", |rig| rig.now() >= begun.plus_ms(OUTPUT_STALL_MS - 1_000));
    assert_eq!(rig.connections(), 2, "closed early");
    rig.run_ms(4_000);
    assert_eq!(rig.connections(), 1, "not closed");
    // It finds what its own socket had taken, and then the end.
    rig.reads(reader, true);
    rig.run_until("the end", |rig| rig.ended_at(reader).is_some());
}

#[test]
fn a_reader_that_takes_a_little_now_and_then_is_kept() {
    let (mut rig, reader, begun) = with_stopped_reader(1);
    for _ in 0..4 {
        rig.run_ms(OUTPUT_STALL_MS / 2);
        // Long enough for its socket to be emptied once, not for the whole backlog.
        rig.reads(reader, true);
        rig.step();
        rig.reads(reader, false);
    }
    assert!(rig.now() > begun.plus_ms(OUTPUT_STALL_MS * 3 / 2));
    assert_eq!((rig.connections(), rig.ended_at(reader)), (2, None));
}

#[test]
fn a_peer_whose_answers_it_does_not_read_is_not_read_either() {
    let mut rig = Rig::new();
    let peer = rig.client_v3("asks");
    rig.reads(peer, false);
    // Each two bytes ask for two bytes; far more than the output and both sockets hold.
    let questions = super::bytes::PINGREQ.repeat(OUTPUT_BYTES_MAX);
    rig.say(peer, &questions);
    rig.run_ms(5_000);
    let (backlog, unsaid) = (rig.backlog_bytes_max(), rig.unsaid(peer));
    assert!(backlog <= OUTPUT_BYTES_MAX + crate::limits::RECEIVE_BYTES, "{backlog} bytes wait");
    assert!(unsaid > 0, "everything was read");
    rig.reads(peer, true);
    rig.run_until("all is said", |rig| rig.unsaid(peer) == 0);
    rig.run_ms(3_000);
    assert_eq!(rig.packets(peer).len(), OUTPUT_BYTES_MAX, "an answer each");
}

#[test]
fn what_waits_for_a_reader_that_leaves_is_delivered_to_its_session_later() {
    let mut rig = Rig::new();
    let reader = rig.peer();
    let kept = super::bytes::connect_v3("kept", super::bytes::Start::Kept, 0);
    rig.say(reader, &kept);
    rig.packet(reader);
    rig.say(reader, &super::bytes::subscribe_v3(1, "much", 1));
    rig.packet(reader);
    rig.reads(reader, false);
    let writer = rig.client_v3("writer");
    for number in 1..=MESSAGES {
        rig.say(writer, &publish_v3(number, "much", &payload(number)));
    }
    rig.run_until("everything is said", |rig| rig.unsaid(writer) == 0);
    rig.run_ms(3_000);
    let acknowledged: Vec<_> = (1..=MESSAGES).map(puback).collect();
    assert_eq!(rig.packets(writer), acknowledged, "they are on disk");
    rig.run_ms(OUTPUT_STALL_MS);
    assert_eq!(rig.connections(), 1, "the slow reader is closed");
    let again = rig.peer();
    rig.say(again, &kept);
    rig.run_ms(3_000);
    let packets = rig.packets(again);
    assert_eq!(packets[0], [0x20, 2, 1, 0]);
    let numbers: Vec<u16> = packets[1..].iter().map(|packet| number_in(packet)).collect();
    assert_eq!(numbers, (1..=MESSAGES).collect::<Vec<_>>());
}
