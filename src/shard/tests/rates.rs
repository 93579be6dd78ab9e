//! Rate limits as a peer sees them, on the virtual clock: who is told, who waits, and for how long.

use std::sync::Arc;

use super::bytes::{CONNACK_V3, PINGREQ, PINGRESP, Start, connect_v3, puback, publish_v3, subscribe_v3};
use super::rig::{PeerId, Rig, name_at_home_in};
use crate::limits::{PARKED_BYTES_MAX, PARKED_STALL_MS};
use crate::rates::{Excess, Limits, Rates, Scope, Shared, What};
use crate::reactor::sim::{self, CrashKind};

/// CONNACK of 3.1.1: server unavailable.
const UNAVAILABLE_V3: [u8; 4] = [0x20, 2, 0, 3];

fn limits(scope: Scope, what: What, rate: &str) -> Rates {
    let mut rates = Rates::default();
    rates.by_scope[scope as usize][what as usize] = Some(rate.parse().unwrap());
    rates
}

/// Shards with these limits.
fn rig(shards: u16, rates: Rates) -> Rig {
    let mut rig = Rig::with(shards, sim::Settings::default(), |_| {});
    limit(&mut rig, shards, rates);
    rig
}

fn limit(rig: &mut Rig, shards: u16, rates: Rates) {
    let shared = Arc::new(Shared::new(rates, [5; 16]));
    (0..shards.into()).for_each(|index| rig.shard(index).limit(shared.clone()));
}

/// The process dies, and another has the same limits, where names have other hashes.
fn restart(rig: &mut Rig, shards: u16, kind: CrashKind, rates: &Rates) {
    rig.restart(kind, |rig| {
        let shared = Arc::new(Shared::new(rates.clone(), [6; 16]));
        (0..shards.into()).for_each(|index| rig.shard(index).limit(shared.clone()));
    });
}

fn answer_to_connect(rig: &mut Rig, client_id: &str) -> Vec<u8> {
    let peer = rig.peer();
    rig.say(peer, &connect_v3(client_id, Start::Clean, 0));
    rig.packet(peer)
}

/// Publishes so many at QoS 1 without waiting, and runs for a second; how many were acknowledged.
fn acknowledged_in_a_second(rig: &mut Rig, publisher: PeerId, count: u16) -> usize {
    (1..=count).for_each(|packet_id| rig.say(publisher, &publish_v3(packet_id, "a", b"m")));
    rig.run_ms(1_000);
    rig.packets(publisher).len()
}

#[test]
fn connects_in_excess_are_told_and_the_next_is_let_in_in_time() {
    for scope in [Scope::Address, Scope::Global] {
        // Each peer has an address of its own there, in one network.
        let rates = limits(scope, What::Connects, "1/min burst 3");
        let mut rig = rig(1, Rates { prefix_v4: 8, ..rates });
        for number in 0..3 {
            assert_eq!(answer_to_connect(&mut rig, &format!("client-{number}")), CONNACK_V3);
        }
        assert_eq!(answer_to_connect(&mut rig, "client-3"), UNAVAILABLE_V3, "{scope:?}");
        rig.run_ms(60_000);
        assert_eq!(answer_to_connect(&mut rig, "client-3"), CONNACK_V3, "{scope:?}");
    }
}

#[test]
fn who_connects_again_and_again_keeps_nobody_else_out() {
    for scope in [Scope::Client, Scope::Account] {
        let mut rig = rig(1, limits(scope, What::Connects, "1/min burst 2"));
        assert_eq!(answer_to_connect(&mut rig, "loop"), CONNACK_V3);
        assert_eq!(answer_to_connect(&mut rig, "loop"), CONNACK_V3);
        assert_eq!(answer_to_connect(&mut rig, "loop"), UNAVAILABLE_V3, "{scope:?}");
        assert_eq!(answer_to_connect(&mut rig, "other"), CONNACK_V3, "{scope:?}");
    }
}

#[test]
fn a_limit_of_all_is_one_for_all_shards_and_a_move_is_paid_for_once() {
    let mut rig = rig(2, limits(Scope::Global, What::Connects, "1/min burst 4"));
    for number in 0..4_u16 {
        // The first shard accepts; every other client moves.
        let name = format!("{}-{}", name_at_home_in(number % 2, 2), number);
        let name = if number < 2 { name_at_home_in(number, 2) } else { name };
        assert_eq!(answer_to_connect(&mut rig, &name), CONNACK_V3, "{number}");
    }
    assert_eq!(answer_to_connect(&mut rig, "one-more"), UNAVAILABLE_V3);
}

#[test]
fn a_listener_has_limits_of_its_own() {
    let mut rates = Rates::default();
    let mut limits = Limits::default();
    limits[What::Connects as usize] = Some("1/min burst 1".parse().unwrap());
    rates.by_listener = vec![limits];
    let mut rig = rig(1, rates);
    assert_eq!(answer_to_connect(&mut rig, "one"), CONNACK_V3);
    assert_eq!(answer_to_connect(&mut rig, "two"), UNAVAILABLE_V3);
}

#[test]
fn publishes_in_excess_wait_and_none_is_lost() {
    for scope in [Scope::Client, Scope::Account, Scope::Address, Scope::Global] {
        for shards in [1, 2] {
            let mut rig = rig(shards, limits(scope, What::Publishes, "10/s burst 5"));
            // Also where it has moved from the shard that accepted it.
            let publisher = rig.client_v3(&name_at_home_in(shards - 1, shards));
            let mut acknowledged = acknowledged_in_a_second(&mut rig, publisher, 50);
            // The burst, what comes in a second, and the one that makes the debt.
            assert!((14..=16).contains(&acknowledged), "{scope:?} {acknowledged}");
            rig.say(publisher, &PINGREQ);
            rig.run_ms(10);
            let heard = rig.packets(publisher);
            assert_eq!(heard.first(), Some(&PINGRESP.to_vec()), "pings come before publishes");
            acknowledged += heard.len() - 1;
            for _ in 0..4 {
                rig.run_ms(1_000);
                acknowledged += rig.packets(publisher).iter().filter(|packet| packet[0] == 0x40).count();
            }
            assert_eq!(acknowledged, 50, "{scope:?}");
        }
    }
}

#[test]
fn what_one_client_uses_up_another_has() {
    let mut rig = rig(1, limits(Scope::Client, What::Publishes, "1/s burst 1"));
    let (fast, slow) = (rig.client_v3("fast"), rig.client_v3("slow"));
    assert!(acknowledged_in_a_second(&mut rig, fast, 20) <= 3);
    rig.say(slow, &publish_v3(1, "a", b"m"));
    assert_eq!(rig.packet(slow), puback(1));
}

#[test]
fn a_new_connection_of_the_same_client_finds_what_it_has_used_up() {
    let mut rig = rig(1, limits(Scope::Client, What::Publishes, "1/min burst 2"));
    let first = rig.client_v3("client");
    assert_eq!(acknowledged_in_a_second(&mut rig, first, 2), 2);
    let again = rig.client_v3("client");
    // Taken in debt, and then there is no more.
    assert_eq!(acknowledged_in_a_second(&mut rig, again, 10), 1);
}

#[test]
fn bytes_count_as_they_come() {
    let mut rig = rig(1, limits(Scope::Client, What::Bytes, "1KiB/s burst 1KiB"));
    let watcher = rig.subscriber_v3("watcher", "bulk", 0);
    let publisher = rig.client_v3("publisher");
    for _ in 0..8 {
        rig.say(publisher, &publish_v3(0, "bulk", &[0; 1_000]));
    }
    rig.run_ms(3_500);
    let heard = rig.packets(watcher).len();
    assert!((4..=5).contains(&heard), "{heard} KiB in 3.5 s, and one more KiB at once");
    rig.run_ms(5_000);
    assert_eq!(rig.packets(watcher).len(), 8 - heard);
}

#[test]
fn who_waits_for_our_clock_is_not_closed_for_waiting() {
    let mut rig = rig(1, limits(Scope::Client, What::Publishes, "1/h burst 1"));
    let publisher = rig.client_v3("publisher");
    let payload = vec![0; 4_096];
    for _ in 0..2 * PARKED_BYTES_MAX / payload.len() {
        rig.say(publisher, &publish_v3(0, "bulk", &payload));
    }
    rig.run_ms(3 * PARKED_STALL_MS);
    assert_eq!(rig.ended_at(publisher), None);
    assert!(rig.parked_bytes_max() >= PARKED_BYTES_MAX);
    assert!(rig.unsaid(publisher) > 0 || rig.parked_bytes_max() < 2 * PARKED_BYTES_MAX, "no more is read");
}

#[test]
fn subscriptions_in_excess_are_refused_by_packet() {
    let mut rig = rig(1, limits(Scope::Client, What::Subscriptions, "1/min burst 2"));
    let client = rig.client_v3("client");
    for (packet_id, reason) in [(1, 1), (2, 1), (3, 0x80)] {
        rig.say(client, &subscribe_v3(packet_id, &format!("filter/{packet_id}"), 1));
        assert_eq!(rig.packet(client), [0x90, 3, 0, packet_id as u8, reason]);
    }
    rig.run_ms(60_000);
    rig.say(client, &subscribe_v3(4, "filter/4", 1));
    assert_eq!(rig.packet(client), [0x90, 3, 0, 4, 1]);
}

#[test]
fn where_excess_disconnects_it_does() {
    let rates = limits(Scope::Client, What::Publishes, "1/s burst 2");
    let mut rig = rig(1, Rates { excess: Excess::Disconnect, ..rates });
    let client = rig.client_v3("client");
    for packet_id in 1..=3 {
        rig.say(client, &publish_v3(packet_id, "a", b"m"));
    }
    let (packets, _) = rig.end(client);
    assert_eq!(packets, [puback(1), puback(2)], "and 3.1.1 has no word for it");
}

/// The journal has it; and a burst that comes again in less than [`RATE_KEPT_MS`](crate::limits::RATE_KEPT_MS) it has not.
#[test]
fn who_has_used_up_the_day_has_nothing_after_a_restart_and_all_of_it_in_a_day() {
    for (scope, shards, kind) in [
        (Scope::Client, 1, CrashKind::PowerCut),
        (Scope::Account, 1, CrashKind::Kill),
        (Scope::Client, 2, CrashKind::PowerCut),
    ] {
        let rates = Rates { excess: Excess::Disconnect, ..limits(scope, What::Publishes, "10/day burst 10") };
        let name = name_at_home_in(shards - 1, shards);
        let mut rig = rig(shards, rates.clone());
        let publisher = rig.client_v3(&name);
        assert_eq!(acknowledged_in_a_second(&mut rig, publisher, 10), 10);
        for _ in 0..2 {
            restart(&mut rig, shards, kind, &rates);
            let publisher = rig.client_v3(&name);
            assert_eq!(acknowledged_in_a_second(&mut rig, publisher, 1), 0, "{scope:?}");
            let other = rig.client_v3("other");
            assert_eq!(acknowledged_in_a_second(&mut rig, other, 1), 1, "{scope:?}");
        }
        // A token, and the sixteenth of a burst that a mark may be ahead: that was less than one.
        rig.run_ms(2 * 8_640_000);
        let publisher = rig.client_v3(&name);
        assert_eq!(acknowledged_in_a_second(&mut rig, publisher, 1), 1, "{scope:?}");
    }
}

#[test]
fn who_has_connected_too_often_has_so_after_a_restart() {
    for (scope, rate, kept) in [
        (Scope::Client, "1/h burst 2", true),
        (Scope::Account, "1/h burst 2", true),
        (Scope::Client, "1/min burst 1", true),
        (Scope::Client, "2/min burst 1", false),
        (Scope::Address, "1/h burst 2", false),
        (Scope::Global, "1/h burst 2", false),
    ] {
        // Each peer has an address of its own there, in one network.
        let rates = Rates { prefix_v4: 8, ..limits(scope, What::Connects, rate) };
        let mut rig = rig(1, rates.clone());
        while answer_to_connect(&mut rig, "loop") == CONNACK_V3 {}
        rig.run_ms(1_000);
        restart(&mut rig, 1, CrashKind::PowerCut, &rates);
        let expected = if kept { UNAVAILABLE_V3 } else { CONNACK_V3 };
        assert_eq!(answer_to_connect(&mut rig, "loop"), expected, "{scope:?} {rate}");
        assert_eq!(answer_to_connect(&mut rig, "other") == CONNACK_V3, scope <= Scope::Account || !kept);
    }
}

#[test]
fn other_limits_go_on_from_what_was_used_up_of_those_before() {
    let mut rig = rig(1, limits(Scope::Client, What::Connects, "1/h burst 2"));
    assert_eq!(answer_to_connect(&mut rig, "client"), CONNACK_V3);
    assert_eq!(answer_to_connect(&mut rig, "client"), CONNACK_V3);
    limit(&mut rig, 1, limits(Scope::Client, What::Connects, "1/min burst 2"));
    assert_eq!(answer_to_connect(&mut rig, "client"), UNAVAILABLE_V3);
    rig.run_ms(60_000);
    assert_eq!(answer_to_connect(&mut rig, "client"), CONNACK_V3, "no longer than the new burst takes");
}

#[test]
fn where_nothing_outlives_a_restart_nothing_is_written() {
    for (rate, writes) in [("100/s burst 200", false), ("100/min", true)] {
        let mut rig = rig(1, limits(Scope::Client, What::Publishes, rate));
        let publisher = rig.client_v3("publisher");
        assert_eq!(acknowledged_in_a_second(&mut rig, publisher, 50), 50);
        let written = rig.shard(0).journal().last_lsn().is_some();
        assert_eq!(written, writes, "{rate}");
    }
}
