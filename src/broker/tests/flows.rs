//! Messages between live clients, and who waits for what.

use std::num::NonZeroU16;
use std::sync::Arc;

use super::*;

const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

fn pair() -> Bench {
    let mut bench = Bench::new();
    bench.connect(1, "subscriber", true, 1_000);
    bench.subscribe(1, "a/b", 2);
    bench.connect(2, "publisher", true, 0);
    assert_eq!(bench.seen(1), ["CONNACK false Success", "SUBACK"]);
    assert_eq!(bench.seen(2), ["CONNACK false Success"]);
    bench
}

#[test]
fn a_message_that_nobody_wants_is_acknowledged_with_that_reason() {
    let mut bench = pair();
    bench.publish(2, "x", QoS::AtLeastOnce, 7, "m");
    assert_eq!(bench.seen(2), ["Puback 7 No matching subscribers"]);
}

#[test]
fn a_message_acknowledged_within_hold_is_never_written() {
    let mut bench = pair();
    let records = bench.world.journal.len();
    bench.publish(2, "a/b", QoS::AtLeastOnce, 7, "m");
    assert_eq!(bench.seen(1), ["PUBLISH 1 1 m"]);
    assert_eq!(bench.seen(2), [""; 0], "the recipient has not acknowledged it and it is not on disk");
    bench.ack(1, PUBACK, 1);
    assert_eq!(bench.seen(2), ["Puback 7 Success"]);
    assert_eq!(bench.world.journal.len(), records);
}

#[test]
fn a_body_in_one_piece_is_kept_and_not_copied() {
    let mut bench = pair();
    let forward = Properties::from_stored(&[1, 0]);
    let packet = Packet::Publish(Publish { forward, ..publish("a/b", QoS::AtLeastOnce, 7, "m") });
    let body: Arc<[u8]> = [b"a/b", &[1, 0][..], b"m"].concat().into();
    bench.handle(Input::Large { connection: id(2), packet: &packet, body: &body });
    assert_eq!(Arc::strong_count(&body), 2, "the message has it");
    bench.advance();
    assert_eq!(bench.seen(1), ["PUBLISH 1 1 m"]);
    bench.ack(1, PUBACK, 1);
    assert_eq!(bench.seen(2), ["Puback 7 Success"]);
    assert_eq!(Arc::strong_count(&body), 1);
}

#[test]
fn a_message_that_was_answered_in_time_wakes_nobody_later() {
    let mut bench = pair();
    bench.publish(2, "a/b", QoS::AtLeastOnce, 7, "m");
    let hold_ends = bench.now.mono.plus_ms(u64::from(settings().hold_ms));
    assert_eq!(bench.broker.next_deadline(), hold_ends);
    bench.ack(1, PUBACK, 1);
    assert!(bench.broker.next_deadline() > hold_ends);
}

#[test]
fn messages_that_come_in_one_turn_are_all_waited_for_as_far_as_the_window_goes() {
    let mut bench = Bench::with(Settings { send_window: 3, ..settings() });
    bench.connect(1, "subscriber", true, 1_000);
    bench.subscribe(1, "a/b", 1);
    bench.connect(2, "publisher", true, 0);
    bench.seen(2);
    let mut publish_in_one_turn = |count: u16| {
        let records = bench.world.journal.len();
        for packet_id in 1..=count {
            let packet = Packet::Publish(publish("a/b", QoS::AtLeastOnce, packet_id, "m"));
            bench.handle(Input::Packet { connection: id(2), packet: &packet });
        }
        bench.advance();
        let written = bench.world.journal.len() - records;
        let sent = bench.seen(1).iter().filter(|packet| packet.starts_with("PUBLISH")).count();
        assert_eq!(sent, 3);
        (1..=3).for_each(|packet_id| bench.ack(1, PUBACK, packet_id));
        written
    };
    assert_eq!(publish_in_one_turn(3), 0, "each was sent at once and can be acknowledged in time");
    assert_eq!(publish_in_one_turn(4), 4, "the last one found no room, and takes those before it along");
}

#[test]
fn a_message_not_acknowledged_within_hold_is_written_and_then_acknowledged_to_its_sender() {
    let mut bench = pair();
    bench.publish(2, "a/b", QoS::AtLeastOnce, 7, "m");
    let records = bench.world.journal.len();
    bench.wait_ms(u64::from(settings().hold_ms));
    assert_eq!(bench.world.journal.len(), records + 1);
    assert_eq!(bench.seen(2), [""; 0], "written is not durable");
    bench.sync();
    assert_eq!(bench.seen(2), ["Puback 7 Success"]);
}

#[test]
fn a_subscriber_that_let_hold_pass_is_not_waited_for_until_it_acknowledges() {
    for expiry in [0, 1_000] {
        let mut bench = Bench::new();
        bench.connect(1, "subscriber", true, expiry);
        bench.subscribe(1, "a/b", 1);
        bench.connect(2, "publisher", true, 0);
        bench.seen(2);
        bench.publish(2, "a/b", QoS::AtLeastOnce, 7, "m");
        bench.wait_ms(u64::from(settings().hold_ms));
        bench.sync();
        assert_eq!(bench.seen(2), ["Puback 7 Success"]);
        bench.publish(2, "a/b", QoS::AtLeastOnce, 8, "n");
        bench.sync();
        assert_eq!(bench.seen(2), ["Puback 8 Success"], "as soon as it is as safe as it will be");
        bench.ack(1, PUBACK, 1);
        bench.publish(2, "a/b", QoS::AtLeastOnce, 9, "o");
        bench.sync();
        assert_eq!(bench.seen(2), [""; 0], "it has said something: it is waited for again");
        bench.ack(1, PUBACK, 2);
        bench.ack(1, PUBACK, 3);
        assert_eq!(bench.seen(2), ["Puback 9 Success"]);
    }
}

#[test]
fn a_message_for_an_offline_session_is_acknowledged_only_once_it_is_durable() {
    let mut bench = pair();
    bench.handle(Input::Closed { connection: id(1) });
    bench.publish(2, "a/b", QoS::AtLeastOnce, 7, "m");
    assert_eq!(bench.seen(2), [""; 0]);
    bench.sync();
    assert_eq!(bench.seen(2), ["Puback 7 Success"]);
    bench.connect(3, "subscriber", false, 1_000);
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 1 1 m"]);
}

#[test]
fn acknowledgements_leave_in_the_order_of_the_publishes() {
    let mut bench = pair();
    bench.publish(2, "a/b", QoS::AtLeastOnce, 7, "m");
    bench.publish(2, "nobody", QoS::AtLeastOnce, 8, "n");
    assert_eq!(bench.seen(2), [""; 0]);
    bench.ack(1, PUBACK, 1);
    assert_eq!(bench.seen(2), ["Puback 7 Success", "Puback 8 No matching subscribers"]);
}

#[test]
fn exactly_once_waits_for_the_disk_at_every_step() {
    let mut bench = pair();
    bench.publish(2, "a/b", QoS::ExactlyOnce, 7, "m");
    assert_eq!(bench.seen(2), [""; 0]);
    bench.sync();
    assert_eq!(bench.seen(2), ["Pubrec 7 Success"]);
    assert_eq!(bench.seen(1), [""; 0], "the packet id is not durable");
    bench.sync();
    assert_eq!(bench.seen(1), ["PUBLISH 2 1 m"]);
    bench.ack(1, PUBREC, 1);
    assert_eq!(bench.seen(1), [""; 0]);
    bench.sync();
    assert_eq!(bench.seen(1), ["Pubrel 1 Success"]);
    bench.ack(1, PUBCOMP, 1);
    bench.publish(2, "a/b", QoS::ExactlyOnce, 7, "m");
    bench.settle();
    assert_eq!(bench.seen(1), [""; 0], "a repeat is not delivered again");
    assert_eq!(bench.seen(2), ["Pubrec 7 Success"]);
    bench.ack(2, PUBREL, 7);
    bench.settle();
    assert_eq!(bench.seen(2), ["Pubcomp 7 Success"]);
}

#[test]
fn one_sync_serves_a_window_of_exactly_once_deliveries() {
    let mut bench = pair();
    for packet_id in 1..=20 {
        bench.publish(2, "a/b", QoS::ExactlyOnce, packet_id, &packet_id.to_string());
    }
    bench.sync();
    assert_eq!(bench.seen(1), [""; 0], "the packet ids are not durable");
    bench.sync();
    let deliveries: Vec<_> = (1..=20).map(|number| format!("PUBLISH 2 {number} {number}")).collect();
    assert_eq!(bench.seen(1), deliveries);
    (1..=20).for_each(|packet_id| bench.ack(1, PUBREC, packet_id));
    bench.sync();
    assert_eq!(bench.seen(1).len(), 20, "and so it does the releases");
}

#[test]
fn nothing_overtakes_a_delivery_that_waits_for_the_disk() {
    let mut bench = pair();
    bench.publish(2, "a/b", QoS::ExactlyOnce, 7, "first");
    bench.sync();
    bench.publish(2, "a/b", QoS::AtMostOnce, 0, "second");
    bench.publish(2, "a/b", QoS::AtLeastOnce, 8, "third");
    assert_eq!(bench.seen(1), [""; 0]);
    bench.sync();
    assert_eq!(bench.seen(1), ["PUBLISH 2 1 first", "PUBLISH 0 0 second", "PUBLISH 1 2 third"]);
}

#[test]
fn what_was_in_flight_goes_again_in_order_marked_dup() {
    let mut bench = pair();
    for (packet_id, payload) in [(1, "one"), (2, "two"), (3, "three")] {
        bench.publish(2, "a/b", QoS::AtLeastOnce, packet_id, payload);
    }
    bench.settle();
    assert_eq!(bench.seen(1), ["PUBLISH 1 1 one", "PUBLISH 1 2 two", "PUBLISH 1 3 three"]);
    bench.ack(1, PUBACK, 2);
    bench.handle(Input::Closed { connection: id(1) });
    bench.connect(3, "subscriber", false, 1_000);
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 1 1 one dup", "PUBLISH 1 3 three dup"]);
}

#[test]
fn a_second_connection_takes_the_session_over() {
    let mut bench = pair();
    bench.connect(3, "subscriber", false, 1_000);
    assert_eq!(bench.seen(1), ["DISCONNECT Session taken over"]);
    assert_eq!(bench.world.closed, [(1, CloseReason::TakenOver)]);
    assert_eq!(bench.seen(3), ["CONNACK true Success"]);
}

#[test]
fn a_full_queue_refuses_its_only_sender() {
    let mut bench = Bench::with(Settings { queue_messages_max: 2, ..settings() });
    bench.connect(1, "subscriber", true, 1_000);
    bench.subscribe(1, "a/b", 1);
    bench.handle(Input::Closed { connection: id(1) });
    bench.connect(2, "publisher", true, 0);
    for packet_id in 1..=3 {
        bench.publish(2, "a/b", QoS::AtLeastOnce, packet_id, "m");
    }
    bench.settle();
    let seen = bench.seen(2);
    assert_eq!(seen[1..], ["Puback 1 Success", "Puback 2 Success", "Puback 3 Quota exceeded"]);
}

#[test]
fn a_silent_client_is_let_go_after_one_and_a_half_keep_alive_intervals() {
    let mut bench = Bench::new();
    bench.connect_as(1, &Connect { keep_alive: 2, ..connect("quiet") });
    bench.wait_ms(2_990);
    assert_eq!(bench.world.closed, []);
    for _ in 0..5 {
        bench.wait_ms(100);
    }
    assert_eq!(bench.world.closed, [(1, CloseReason::KeepAlive)]);
    assert_eq!(bench.seen(1), ["CONNACK false Success", "DISCONNECT Keep Alive timeout"]);
}

#[test]
fn a_shared_subscription_gives_each_message_to_one_member_and_hands_on_what_a_leaver_left() {
    let mut bench = Bench::new();
    for (slot, client_id) in [(1, "one"), (2, "two")] {
        bench.connect(slot, client_id, true, 0);
        bench.subscribe(slot, "$share/g/a/b", 1);
        let _ = bench.seen(slot);
    }
    bench.connect(3, "publisher", true, 0);
    for packet_id in 1..=4 {
        bench.publish(3, "a/b", QoS::AtLeastOnce, packet_id, "m");
    }
    assert_eq!((bench.seen(1).len(), bench.seen(2).len()), (2, 2));
    bench.handle(Input::Closed { connection: id(1) });
    bench.advance();
    assert_eq!(bench.seen(2).len(), 2, "the unacknowledged messages of the one that left");
}

#[test]
fn a_session_that_ends_with_messages_on_their_way_takes_nobody_with_it() {
    for (units, rounds) in (0..24).map(|number| (1 + number % 3, number / 3)) {
        let mut bench = Bench::new();
        bench.connect(2, "publisher", true, 0);
        bench.publish_with(2, "a/b", QoS::AtMostOnce, 0, "retained", true);
        bench.settle();
        bench.connect(1, "brief", true, 0);
        bench.take(1, &[0x82, 9, 0, 9, 0, 0, 3, b'a', b'/', b'b', 0]);
        bench.take(2, &[0x30, 6, 0, 3, b'a', b'/', b'b', 0]);
        // A few units at a time, so that the end of the session falls between any two steps of queueing and sending.
        (0..rounds).for_each(|_| bench.advance_by(units));
        bench.handle(Input::Closed { connection: id(1) });
        (0..5).for_each(|_| bench.advance_by(1));
        // Its slot is another's now, who must not get what was on its way to it.
        bench.connect(3, "next", true, 0);
        (0..40).for_each(|_| bench.advance_by(1));
        bench.publish(2, "a/b", QoS::AtLeastOnce, 1, "m");
        assert_eq!(bench.seen(2), ["CONNACK false Success", "Puback 1 No matching subscribers"]);
        assert_eq!(bench.seen(3), ["CONNACK false Success"]);
    }
}

/// 0x8B is a reason to DISCONNECT; a CONNACK has none but this one.
#[test]
fn a_client_that_comes_while_the_broker_stops_is_told_that_it_is_unavailable() {
    let mut bench = Bench::new();
    bench.handle(Input::Drain);
    bench.connect(1, "late", true, 0);
    assert_eq!(bench.seen(1), ["CONNACK false Server unavailable"]);
}

#[test]
fn a_client_that_comes_back_with_a_smaller_receive_maximum_gets_no_more_at_once() {
    // [MQTT-4.9.0-2]
    let mut bench = Bench::new();
    let comes_with = |receive_maximum| Connect {
        session_expiry: Some(1_000),
        clean_start: false,
        receive_maximum: NonZeroU16::new(receive_maximum),
        ..connect("subscriber")
    };
    bench.connect_as(1, &comes_with(4));
    bench.subscribe(1, "a", 2);
    bench.connect(2, "publisher", true, 0);
    for (packet_id, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce), (3, QoS::AtLeastOnce)] {
        bench.publish(2, "a", qos, packet_id, "m");
        bench.settle();
    }
    bench.seen(1);
    bench.handle(Input::Closed { connection: id(1) });
    bench.connect_as(3, &comes_with(1));
    bench.settle();
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 1 1 m dup"]);
    bench.ack(3, PUBACK, 1);
    bench.settle();
    assert_eq!(bench.seen(3), ["PUBLISH 2 2 m dup"]);
    bench.ack(3, PUBREC, 2);
    bench.settle();
    assert_eq!(bench.seen(3), ["Pubrel 2 Success"]);
    bench.ack(3, PUBCOMP, 2);
    bench.settle();
    assert_eq!(bench.seen(3), ["PUBLISH 1 3 m dup"]);
}

/// Its client comes back while the subscriber has not acknowledged the will, and is lost again.
#[test]
fn a_will_is_not_forgotten_because_an_earlier_one_has_arrived() {
    let mut bench = Bench::new();
    bench.connect(1, "subscriber", true, 0);
    bench.subscribe(1, "a/#", 1);
    let will = |payload, delay| crate::wire::Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        delay,
        message_expiry: None,
        topic: "a/will",
        forward: Properties::EMPTY,
        payload,
    };
    for (slot, payload, delay) in [(2, b"first".as_slice(), None), (3, b"second", Some(30))] {
        let will = Some(will(payload, delay));
        bench.connect_as(
            slot,
            &Connect { session_expiry: Some(100), clean_start: false, will, ..connect("mortal") },
        );
        bench.handle(Input::Closed { connection: id(slot) });
        bench.advance();
    }
    let _ = bench.seen(1);
    bench.ack(1, 0x40, 1);
    bench.wait_ms(30_000);
    assert_eq!(bench.seen(1), ["PUBLISH 1 1 second"]);
}
