//! Time as clients see it, on the virtual clock: keep alive, and a system clock that is set.

use super::bytes::{
    DISCONNECT, PINGREQ, PINGRESP, Start, connect_v3, connect_v5, publish_expiring, suback_v3, subscribe_v3,
};
use super::rig::Rig;

#[test]
fn a_silent_client_is_closed_after_one_and_a_half_keep_alives() {
    for seconds in [1, 2, 10, 60] {
        let mut rig = Rig::new();
        let (old, new) = (rig.peer(), rig.peer());
        rig.say(old, &connect_v3("old", Start::Clean, seconds));
        rig.say(new, &connect_v5("new", Start::Clean, seconds));
        rig.run_until("both are connected", |rig| rig.connections() == 2);
        let begun = rig.now();
        let (packets, at) = rig.end(old);
        assert_eq!(packets.len(), 1, "CONNACK and nothing else: {packets:02x?}");
        let bound = u64::from(seconds) * 1_500;
        super::handshake::assert_closed_within(begun, at, bound..bound + 500);
        let (packets, at) = rig.end(new);
        assert_eq!(packets[1..], [[0xE0, 1, 0x8D]], "keep alive timeout");
        super::handshake::assert_closed_within(begun, at, bound..bound + 500);
    }
}

#[test]
fn every_packet_begins_the_time_anew() {
    let mut rig = Rig::new();
    let peer = rig.peer();
    rig.say(peer, &connect_v3("alive", Start::Clean, 2));
    rig.packet(peer);
    for _ in 0..10 {
        rig.run_ms(2_500);
        rig.say(peer, &PINGREQ);
        assert_eq!(rig.packet(peer), PINGRESP);
    }
    let begun = rig.now();
    let (_, at) = rig.end(peer);
    // The ping was on its way for up to two milliseconds before that.
    super::handshake::assert_closed_within(begun, at, 2_990..3_500);
}

#[test]
fn half_a_packet_does_not_keep_a_client_alive() {
    let mut rig = Rig::new();
    let peer = rig.peer();
    rig.say(peer, &connect_v3("half-alive", Start::Clean, 2));
    rig.packet(peer);
    let begun = rig.now();
    rig.run_ms(2_000);
    rig.say(peer, &PINGREQ[..1]);
    let (_, at) = rig.end(peer);
    super::handshake::assert_closed_within(begun, at, 2_990..3_500);
}

#[test]
fn a_client_without_keep_alive_is_never_closed() {
    let mut rig = Rig::new();
    let peer = rig.client_v3("for-ever");
    rig.run_ms(600_000);
    assert_eq!((rig.ended_at(peer), rig.connections()), (None, 1));
}

/// Set forward it expires nothing before its time, set back it keeps nothing beyond it.
#[test]
fn a_system_clock_that_is_set_loses_nothing_and_keeps_nothing_for_ever() {
    const DAY_MS: i64 = 86_400_000;
    for (set_by_ms, wait_ms, is_there) in
        [(DAY_MS, 1_000, true), (-DAY_MS, 1_000, true), (-DAY_MS, 61_000, false)]
    {
        let mut rig = Rig::new();
        let away = rig.peer();
        rig.say(away, &connect_v3("away", Start::Kept, 0));
        rig.packet(away);
        rig.say(away, &subscribe_v3(1, "late/#", 1));
        assert_eq!(rig.packet(away), suback_v3(1, 1));
        rig.say(away, &DISCONNECT);
        rig.end(away);
        let publisher = rig.peer();
        rig.say(publisher, &connect_v5("publisher", Start::Clean, 0));
        rig.packet(publisher);
        rig.say(publisher, &publish_expiring(7, "late/news", 60, b"news"));
        assert_eq!(rig.packet(publisher)[0], 0x40, "it is taken");
        rig.world.set_wall_by_ms(set_by_ms);
        rig.run_ms(wait_ms);
        let back = rig.peer();
        rig.say(back, &connect_v3("away", Start::Kept, 0));
        rig.run_ms(1_000);
        let packets = rig.packets(back);
        assert_eq!(packets[0], [0x20, 2, 1, 0], "the session is there");
        assert_eq!(packets.len() - 1, usize::from(is_there), "set by {set_by_ms} ms");
    }
}
