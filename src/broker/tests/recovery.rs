//! What is true again after a crash.

use super::*;
use crate::wire::Will;

fn offline_subscriber() -> Bench {
    let mut bench = Bench::new();
    bench.connect(1, "subscriber", true, 1_000);
    bench.subscribe(1, "a/#", 2);
    bench.handle(Input::Closed { connection: id(1) });
    bench.connect(2, "publisher", true, 1_000);
    bench.settle();
    let _ = bench.seen(2);
    bench
}

#[test]
fn an_acknowledged_message_is_delivered_after_a_crash() {
    let mut bench = offline_subscriber();
    bench.publish(2, "a/b", QoS::AtLeastOnce, 7, "kept");
    bench.sync();
    assert_eq!(bench.seen(2), ["Puback 7 Success"]);
    let mut bench = bench.crash();
    bench.connect(3, "subscriber", false, 1_000);
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 1 1 kept"]);
}

#[test]
fn a_subscription_answered_before_a_crash_holds_after_it() {
    let mut bench = offline_subscriber().crash();
    bench.connect(2, "publisher", true, 0);
    bench.publish(2, "a/c", QoS::AtLeastOnce, 7, "later");
    bench.settle();
    bench.connect(3, "subscriber", false, 1_000);
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 1 1 later"]);
}

#[test]
fn what_a_recipient_acknowledged_durably_does_not_come_back() {
    let mut bench = offline_subscriber();
    bench.publish(2, "a/b", QoS::AtLeastOnce, 7, "m");
    bench.settle();
    bench.connect(3, "subscriber", false, 1_000);
    bench.ack(3, 0x40, 1);
    bench.settle();
    let mut bench = bench.crash();
    bench.connect(4, "subscriber", false, 1_000);
    assert_eq!(bench.seen(4), ["CONNACK true Success"]);
    assert_eq!(bench.broker.messages.len(), 0);
}

/// Crash after every number of syncs: with PUBREC sent, the message arrives exactly once.
#[test]
fn exactly_once_holds_wherever_the_crash_is() {
    for syncs in 0..6 {
        let mut bench = offline_subscriber();
        bench.publish(2, "a/b", QoS::ExactlyOnce, 7, "once");
        for _ in 0..syncs {
            bench.sync();
        }
        let received = bench.seen(2).contains(&"Pubrec 7 Success".to_owned());
        let mut bench = bench.crash();
        bench.connect(2, "publisher", false, 1_000);
        bench.publish(2, "a/b", QoS::ExactlyOnce, 7, "once");
        bench.settle();
        bench.connect(3, "subscriber", false, 1_000);
        let deliveries = bench.seen(3).iter().filter(|packet| packet.starts_with("PUBLISH")).count();
        assert_eq!(deliveries, 1, "{syncs} syncs, PUBREC sent: {received}");
    }
}

#[test]
fn a_released_message_is_not_published_again() {
    let mut bench = offline_subscriber();
    bench.connect(3, "subscriber", false, 1_000);
    bench.publish(2, "a/b", QoS::ExactlyOnce, 7, "m");
    bench.settle();
    bench.ack(3, 0x50, 1);
    bench.settle();
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 2 1 m", "Pubrel 1 Success"]);
    let mut bench = bench.crash();
    bench.connect(4, "subscriber", false, 1_000);
    assert_eq!(bench.seen(4), ["CONNACK true Success", "Pubrel 1 Success"]);
}

#[test]
fn the_will_of_a_client_that_was_connected_at_the_crash_is_published() {
    let mut bench = offline_subscriber();
    let will = Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        delay: None,
        message_expiry: None,
        topic: "a/will",
        forward: Properties::EMPTY,
        payload: b"gone",
    };
    let connect = Connect { session_expiry: Some(100), will: Some(will), ..connect("mortal") };
    bench.connect_as(5, &connect);
    let mut bench = bench.crash();
    bench.settle();
    bench.connect(3, "subscriber", false, 1_000);
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 1 1 gone"]);
}

#[test]
fn a_session_expires_by_the_time_it_was_disconnected_not_by_the_restart() {
    let mut bench = offline_subscriber();
    bench.settle();
    bench.wait_ms(900_000);
    let mut bench = bench.crash();
    bench.wait_ms(99_000);
    assert!(bench.broker.sessions.find("subscriber").is_some());
    bench.wait_ms(2_000);
    assert!(bench.broker.sessions.find("subscriber").is_none());
}

/// The held message stands first in the queue, and the later one is written first: for a session that is offline, or
/// because the window is full.
#[test]
fn a_message_that_is_written_at_once_does_not_overtake_one_that_was_held() {
    let mut bench = Bench::new();
    bench.connect(1, "online", true, 1_000);
    bench.subscribe(1, "a/#", 1);
    bench.connect(4, "offline", true, 1_000);
    bench.subscribe(4, "a/both", 1);
    bench.handle(Input::Closed { connection: id(4) });
    bench.connect(2, "publisher", true, 1_000);
    bench.settle();
    bench.publish(2, "a/one", QoS::AtLeastOnce, 7, "held");
    assert_eq!(bench.durable, bench.world.journal.len(), "the test needs a message that is not written");
    bench.publish(2, "a/both", QoS::AtLeastOnce, 8, "urgent");
    bench.sync();
    let mut bench = bench.crash();
    bench.connect(3, "online", false, 1_000);
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 1 1 held", "PUBLISH 1 2 urgent"]);
}
