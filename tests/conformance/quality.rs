//! QoS 0, 1 and 2 towards the broker and from it (section 4.3), without reconnects.

use crate::broker::Broker;
use crate::bytes::{Connect, Packet, Publish, ack, ack_with, success};
use crate::client::Client;

/// [MQTT-4.3.1-1] [MQTT-3.3.1-2] [MQTT-2.2.1-2]: the decoder refuses a DUP at QoS 0, and reads no identifier there.
#[test]
fn a_message_of_qos_0_is_sent_once_without_identifier() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "zero");
    client.subscribe("zero", 2);
    client.publish(&Publish::new("zero", "x"));
    assert_eq!(client.expect("x"), Publish::new("zero", "x"));
    client.expect_nothing();
}

/// [MQTT-3.3.4-1] [MQTT-4.3.2-4] [MQTT-2.2.1-5] [MQTT-3.4.2-1]
#[test]
fn a_publish_of_qos_1_is_answered_by_puback_with_its_identifier() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "one");
    client.subscribe("one", 0);
    for id in [1, 2, 0x8000, 0xffff] {
        client.publish(&Publish::new("one", "x").qos(1, id));
        assert_eq!(client.receive_other(), success(4, id));
        client.expect("x");
    }
    client.publish(&Publish::new("nobody", "x").qos(1, 9));
    assert!(matches!(client.receive(), Packet::Ack { kind: 4, id: 9, reason: 0x10, .. }));
}

/// [MQTT-4.3.2-5]
#[test]
fn an_identifier_of_qos_1_is_free_after_puback_whatever_dup_says() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "reuse");
    client.subscribe("reuse", 0);
    for payload in ["first", "second"] {
        client.publish(&Publish::new("reuse", payload).qos(1, 5).dup());
        assert_eq!(client.receive_other(), success(4, 5));
        // [MQTT-3.3.1-3]: DUP says nothing about the next hop.
        assert!(!client.expect(payload).dup);
    }
}

/// [MQTT-3.3.4-1] [MQTT-4.3.3-8] [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12] [MQTT-3.5.2-1] [MQTT-3.7.2-1]
#[test]
fn a_publish_of_qos_2_is_delivered_once_however_often_it_is_sent_before_pubrel() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "two");
    client.subscribe("two", 0);
    for round in ["first", "second"] {
        client.publish(&Publish::new("two", round).qos(2, 6));
        assert_eq!(client.receive_other(), success(5, 6));
        for _ in 0..3 {
            client.publish(&Publish::new("two", round).qos(2, 6).dup());
            assert_eq!(client.receive_other(), success(5, 6));
        }
        client.send(&ack(6, 6));
        assert_eq!(client.receive_other(), success(7, 6));
        client.expect(round);
        client.expect_nothing();
    }
}

/// [MQTT-4.3.3-11]
#[test]
fn a_repeated_pubrel_is_answered_again() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "again");
    client.publish_exactly_once(Publish::new("again", "x"));
    client.send(&ack(6, 1));
    assert!(matches!(client.receive(), Packet::Ack { kind: 7, id: 1, reason: 0 | 0x92, .. }));
}

/// [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.3-1] [MQTT-4.3.3-2]
#[test]
fn the_broker_uses_an_identifier_for_one_message_at_a_time() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, &Connect::v5("unique"));
    client.subscribe_all(0, &[("unique/1", 1), ("unique/2", 2)]);
    let mut other = Client::v5(&broker, "other");
    let mut in_flight = std::collections::BTreeMap::new();
    for number in 0..60_u16 {
        let qos = 1 + (number % 2) as u8;
        other.publish(&Publish::new(&format!("unique/{qos}"), &number.to_string()).qos(1, number + 1));
        let publish = client.receive_publish();
        // The QoS of the message is 1, so that of the delivery is.
        assert_eq!((publish.qos, publish.dup), (1, false));
        assert!(publish.id != 0);
        assert_eq!(in_flight.insert(publish.id, number), None, "identifier {} is in use", publish.id);
        if number % 3 == 0 {
            client.acknowledge(&publish);
            in_flight.remove(&publish.id);
        }
    }
}

/// [MQTT-4.3.3-4] [MQTT-3.6.2-1] [MQTT-2.2.1-5]
#[test]
fn a_pubrec_is_answered_by_pubrel_and_a_failure_is_not() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "pubrec");
    client.subscribe("pubrec", 2);
    let mut other = Client::v5(&broker, "other");
    other.publish_exactly_once(Publish::new("pubrec", "taken"));
    let taken = client.expect("taken");
    client.send(&ack(5, taken.id));
    assert_eq!(client.receive(), success(6, taken.id));
    client.send(&ack(7, taken.id));
    other.publish_exactly_once(Publish::new("pubrec", "refused"));
    let refused = client.expect("refused");
    client.send(&ack_with(5, refused.id, 0x97));
    client.expect_nothing();
}

/// [MQTT-4.3.3-9] [MQTT-3.5.2-1]: a topic that is the server's own is refused, and the identifier is free again.
#[test]
fn an_identifier_that_was_refused_by_pubrec_is_free() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "refused");
    client.subscribe_all(0, &[("taken", 0), ("$SYS/mine", 0)]);
    client.publish(&Publish::new("$SYS/mine", "refused").qos(2, 50));
    assert!(matches!(client.receive(), Packet::Ack { kind: 5, id: 50, reason: 0x87, .. }));
    client.publish(&Publish::new("taken", "taken").qos(2, 50));
    assert_eq!(client.receive_other(), success(5, 50));
    client.send(&ack(6, 50));
    assert_eq!(client.receive_other(), success(7, 50));
    client.expect("taken");
    client.expect_nothing();
}

/// A PUBACK for a message of QoS 2 (or PUBREC for one of QoS 1) does not fit; whatever the broker makes of it, the
/// message is not lost for others and the broker lives.
#[test]
fn an_acknowledgement_of_the_wrong_kind_hurts_nobody_else() {
    let broker = Broker::start();
    let mut wrong = Client::v5(&broker, "wrong");
    let mut right = Client::v5(&broker, "right");
    for client in [&mut wrong, &mut right] {
        client.subscribe("kind", 2);
    }
    let mut other = Client::v5(&broker, "other");
    other.publish_exactly_once(Publish::new("kind", "x"));
    let publish = wrong.expect("x");
    wrong.send_regardless(&ack(4, publish.id));
    wrong.send_regardless(&ack(7, publish.id));
    right.take("x");
    right.expect_nothing();
}

/// Acknowledgements to one connection leave in the order of their publishes: this broker's own promise.
#[test]
fn pubacks_leave_in_the_order_of_the_publishes() {
    let broker = Broker::start();
    let mut away = Client::connect(&broker, &Connect::durable("away"));
    away.subscribe("order/#", 1);
    away.disconnect();
    let mut client = Client::v5(&broker, "publisher");
    let ids = [9, 3, 0xffff, 1, 700, 2];
    for id in ids {
        // Some have a recipient and wait for the disk, some have none and do not.
        let topic = if id % 2 == 0 { "order/a" } else { "nobody" };
        client.publish(&Publish::new(topic, "x").qos(1, id));
    }
    for id in ids {
        match client.receive() {
            Packet::Ack { kind: 4, id: acknowledged, .. } => assert_eq!(acknowledged, id),
            other => panic!("PUBACK of {id} expected, not {other:?}"),
        }
    }
}
