//! From accept to CONNECT: who is let in, who is told why not, and who waits too long.

use super::bytes::{CONNACK_V3, PINGREQ, Start, connect_as, connect_v3, connect_v5, publish_v3};
use super::rig::Rig;
use crate::limits::{HANDSHAKE_TIME_MS, HANDSHAKES_PENDING_MAX};
use crate::time::Nanos;

/// The connection of a peer that says `bytes` and no more is closed at the time for handshakes, without a word.
fn is_closed_in_time_having_said(bytes: &[u8]) {
    let mut rig = Rig::new();
    let begun = rig.now();
    let peer = rig.peer();
    rig.say(peer, bytes);
    rig.run_ms(HANDSHAKE_TIME_MS - 1_000);
    assert_eq!((rig.ended_at(peer), rig.connections()), (None, 1), "closed early");
    let (packets, at) = rig.end(peer);
    assert!(packets.is_empty(), "{packets:02x?}");
    assert_closed_within(begun, at, HANDSHAKE_TIME_MS..HANDSHAKE_TIME_MS + 100);
    rig.run_ms(100);
    assert_eq!(rig.connections(), 0);
}

pub(super) fn assert_closed_within(begun: Nanos, at: Nanos, range: std::ops::Range<u64>) {
    let ms = at.ms_since(begun);
    assert!(range.contains(&ms), "closed after {ms} ms, not within {range:?}");
}

#[test]
fn who_sends_nothing_is_closed_in_time() {
    is_closed_in_time_having_said(&[]);
}

#[test]
fn who_sends_half_a_connect_is_closed_in_time() {
    let connect = connect_v5("half", Start::Clean, 0);
    is_closed_in_time_having_said(&connect[..connect.len() / 2]);
}

#[test]
fn who_connected_in_time_stays() {
    let mut rig = Rig::new();
    let peer = rig.client_v3("stays");
    rig.run_ms(3 * HANDSHAKE_TIME_MS);
    assert_eq!((rig.ended_at(peer), rig.connections()), (None, 1));
}

#[test]
fn beyond_the_pending_handshakes_the_one_that_is_waited_for_longest_gives_way() {
    let mut rig = Rig::new();
    let oldest = rig.peer();
    rig.run_ms(10);
    let strangers: Vec<_> =
        (1..HANDSHAKES_PENDING_MAX).map(|_| rig.world.connect(rig.listener).unwrap()).collect();
    rig.run_until("all wait", |rig| rig.connections() == HANDSHAKES_PENDING_MAX);
    let begun = rig.now();
    let newcomers = ["one-too-many", "and-another"].map(|name| rig.client_v3(name));
    let (packets, at) = rig.end(oldest);
    assert!(packets.is_empty(), "{packets:02x?}");
    assert_closed_within(begun, at, 0..100);
    // The second one needed no place: who is through does not count any more.
    assert_eq!(rig.connections(), HANDSHAKES_PENDING_MAX + 1);
    rig.run_ms(100);
    assert!(newcomers.into_iter().all(|peer| rig.ended_at(peer).is_none()));
    drop(strangers);
}

#[test]
fn a_first_packet_that_is_no_connect_ends_the_connection_without_a_word() {
    for first in [PINGREQ.to_vec(), publish_v3(1, "early", b"bird"), vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF]] {
        let mut rig = Rig::new();
        let peer = rig.peer();
        let begun = rig.now();
        rig.say(peer, &first);
        rig.say(peer, &connect_v3("too-late", Start::Clean, 0));
        let (packets, at) = rig.end(peer);
        assert!(packets.is_empty(), "{first:02x?}: {packets:02x?}");
        assert_closed_within(begun, at, 0..100);
    }
}

#[test]
fn an_unknown_protocol_level_is_answered_in_the_nearest_version() {
    for (level, answer) in
        [(6, vec![0x20, 3, 0, 0x84, 0]), (1, vec![0x20, 2, 0, 1]), (0, vec![0x20, 2, 0, 1])]
    {
        let mut rig = Rig::new();
        let peer = rig.peer();
        rig.say(peer, &connect_as(("MQTT", level), "from-elsewhere", Start::Clean, 0, &[0]));
        let (packets, _) = rig.end(peer);
        assert_eq!(packets, [answer], "level {level}");
    }
}

#[test]
fn a_v3_client_without_a_name_gets_one_only_for_a_clean_session() {
    let mut rig = Rig::new();
    let refused = rig.peer();
    rig.say(refused, &connect_v3("", Start::Kept, 0));
    let (packets, _) = rig.end(refused);
    assert_eq!(packets, [[0x20, 2, 0, 2]], "identifier rejected");
    let taken = rig.peer();
    rig.say(taken, &connect_v3("", Start::Clean, 0));
    assert_eq!(rig.packet(taken), CONNACK_V3);
}

#[test]
fn v5_clients_without_a_name_get_different_ones() {
    let mut rig = Rig::new();
    let mut names = Vec::new();
    for _ in 0..2 {
        let peer = rig.peer();
        rig.say(peer, &connect_v5("", Start::Clean, 0));
        let connack = rig.packet(peer);
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
        let at = connack.windows(8).position(|part| part == [0x12, 0, 25, b'a', b'u', b't', b'o', b'-']);
        let at = at.expect("the property Assigned Client Identifier");
        names.push(connack[at + 3..at + 28].to_vec());
    }
    assert_ne!(names[0], names[1]);
}
