//! The one-time move of a connection to its home shard.

use super::bytes::{CONNACK_V3, PINGREQ, PINGRESP, Start, connect_v3, publish_v3, suback_v3, subscribe_v3};
use super::rig::{Rig, name_at_home_in};
use crate::limits::{HANDSHAKE_TIME_MS, HANDSHAKES_PENDING_MAX};
use crate::reactor::sim;
use crate::shard::wrapped::Listening;

#[test]
fn a_connection_takes_what_was_read_along_to_its_home() {
    let mut rig = Rig::with(2, sim::Settings::default(), |_| {});
    let peer = rig.peer();
    // In one segment, so that the shard that accepts has read more than the CONNECT.
    let mut stream = connect_v3(&name_at_home_in(1, 2), Start::Clean, 0);
    stream.extend(subscribe_v3(1, "moved/here", 0));
    stream.extend(publish_v3(0, "moved/here", b"unread"));
    stream.extend(&PINGREQ[..1]);
    rig.say(peer, &stream);
    rig.run_ms(1_000);
    rig.say(peer, &PINGREQ[1..]);
    rig.run_ms(1_000);
    let wanted =
        [CONNACK_V3.to_vec(), suback_v3(1, 0), publish_v3(0, "moved/here", b"unread"), PINGRESP.to_vec()];
    let mut packets = rig.packets(peer);
    // The message and the answer to PINGREQ have no order between them.
    packets[2..].sort();
    assert_eq!(packets, wanted);
    assert_eq!(rig.connections_of_each(), [0, 1]);
}

#[test]
fn a_connection_that_is_at_home_does_not_move() {
    let mut rig = Rig::with(2, sim::Settings::default(), |_| {});
    rig.client_v3(&name_at_home_in(0, 2));
    assert_eq!(rig.connections_of_each(), [1, 0]);
}

#[test]
fn every_connection_finds_its_home_among_eight_shards() {
    let mut rig = Rig::with(8, sim::Settings::default(), |_| {});
    let readers: Vec<_> = (0..8)
        .map(|shard| rig.subscriber_v3(&name_at_home_in(shard, 8), &format!("to/{shard}"), 1))
        .collect();
    let writer = rig.client_v3("writer");
    for number in 0..8 {
        rig.say(writer, &publish_v3(0, &format!("to/{number}"), b"hello"));
    }
    rig.run_ms(2_000);
    for (number, reader) in readers.into_iter().enumerate() {
        assert_eq!(rig.packets(reader), [publish_v3(0, &format!("to/{number}"), b"hello")]);
    }
    let homes = rig.connections_of_each();
    assert_eq!(homes.iter().sum::<usize>(), 9, "{homes:?}");
    assert!(homes.iter().all(|count| *count >= 1), "{homes:?}");
}

#[test]
fn a_peer_that_ends_while_its_connection_moves_leaves_nothing_behind() {
    let mut rig = Rig::with(2, sim::Settings::default(), |_| {});
    for _ in 0..20 {
        let peer = rig.peer();
        rig.say(peer, &connect_v3(&name_at_home_in(1, 2), Start::Clean, 0));
        rig.finish(peer);
        // The answer may be cut short: whoever ends its stream is not waited for.
        rig.run_until("the end of the connection", |rig| rig.ended_at(peer).is_some());
    }
    rig.run_ms(100);
    assert_eq!(rig.connections_of_each(), [0, 0]);
}

#[test]
fn who_has_moved_is_no_pending_handshake_of_either_shard() {
    let mut rig = Rig::with(2, sim::Settings::default(), |_| {});
    let mut through = Vec::new();
    let name = name_at_home_in(1, 2);
    // One session after the other, each by the last place that is free in that shard.
    for shard in 0..2 {
        let address = format!("127.0.0.1:{}", 2_000 + shard).parse().unwrap();
        let listener = rig.world.listen(address).unwrap();
        rig.shard(shard).listen(vec![Listening::plain(listener)]);
        let strangers: Vec<_> =
            (1..HANDSHAKES_PENDING_MAX).map(|_| rig.world.connect(listener).unwrap()).collect();
        rig.run_until("all wait", |rig| rig.connections_of_each()[shard] >= HANDSHAKES_PENDING_MAX - 1);
        for _ in 0..3 {
            let peer = rig.peer_at(listener);
            rig.say(peer, &connect_v3(&name, Start::Clean, 0));
            assert_eq!(rig.packet(peer), CONNACK_V3);
            through.push(peer);
        }
        drop(strangers);
        rig.run_ms(2 * HANDSHAKE_TIME_MS);
    }
    // Each took the session over from the one before.
    let last = through.pop().unwrap();
    assert!(through.iter().all(|peer| rig.ended_at(*peer).is_some()));
    assert_eq!(rig.ended_at(last), None);
}
