//! Deadlines: one of each in the table, however often they move, and each still kept.

use super::*;
use crate::wire::Will;

fn will(delay_s: u32) -> Will<'static> {
    Will {
        topic: "a/will",
        payload: b"gone",
        qos: QoS::AtLeastOnce,
        retain: false,
        delay: Some(delay_s),
        message_expiry: None,
        forward: Properties::EMPTY,
    }
}

fn expiring(bench: &mut Bench, slot: u32, topic: &str, retain: bool, packet_id: u16, expiry_s: u32) {
    let publish = publish(topic, QoS::AtLeastOnce, packet_id, "m");
    let packet = Packet::Publish(Publish { message_expiry: Some(expiry_s), retain, ..publish });
    bench.handle(Input::Packet { connection: id(slot), packet: &packet });
    bench.settle();
}

/// A session that comes back has one, not one for each time that it went.
#[test]
fn a_session_that_comes_and_goes_and_gets_what_expires_has_one_deadline() {
    let mut bench = Bench::new();
    bench.connect(1, "publisher", true, 0);
    for round in 0..50 {
        let connect = Connect {
            session_expiry: Some(1_000),
            clean_start: false,
            will: Some(will(500)),
            ..connect("restless")
        };
        bench.connect_as(2, &connect);
        assert_eq!(bench.broker.timers.len(), usize::from(round > 0), "that of what is retained");
        bench.subscribe(2, "a/b", 1);
        // What is in the queue may expire before and after what came earlier.
        expiring(&mut bench, 1, "a/b", true, 2 * round + 1, 100_000 - u32::from(round));
        expiring(&mut bench, 1, "a/b", false, 2 * round + 2, 100_000 + u32::from(round));
        for packet in bench.seen(2) {
            if let Some(packet_id) = packet.strip_prefix("PUBLISH 1 ") {
                let packet_id = packet_id.split(' ').next().expect("it has one");
                bench.ack(2, 0x40, packet_id.parse().expect("a number"));
            }
        }
        bench.handle(Input::Closed { connection: id(2) });
        bench.settle();
        assert_eq!(bench.broker.timers.len(), 3, "round {round}: the session, its will, what is retained");
        bench.wait_ms(1_000);
    }
    bench.wait_ms(1_000_000);
    bench.settle();
    assert_eq!(bench.broker.timers.len(), 1, "the session has ended, and its will with it");
    bench.wait_ms(100_000_000);
    bench.settle();
    assert_eq!(bench.broker.timers.len(), 0);
}

/// The timer stood for a message that has long been delivered; it does not take the session's end with it.
#[test]
fn what_fires_too_early_is_put_back() {
    let mut bench = Bench::new();
    bench.connect(1, "publisher", true, 0);
    bench.connect(2, "restless", true, 1_000);
    bench.subscribe(2, "a/b", 1);
    expiring(&mut bench, 1, "a/b", false, 1, 5);
    bench.ack(2, 0x40, 1);
    bench.handle(Input::Closed { connection: id(2) });
    expiring(&mut bench, 1, "a/b", false, 2, 50);
    assert_eq!(bench.broker.statistics.queued, 1);
    bench.wait_ms(49_000);
    assert_eq!(bench.broker.statistics.queued, 1, "the one that had expired before was delivered");
    bench.wait_ms(2_000);
    assert_eq!(bench.broker.statistics.queued, 0, "it expired unread");
    bench.wait_ms(940_000);
    assert_eq!(bench.broker.sessions.len(), 2);
    bench.wait_ms(10_000);
    bench.settle();
    assert_eq!(bench.broker.sessions.len(), 1, "it ended when it was to");
}
