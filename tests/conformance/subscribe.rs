//! SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK (sections 3.8 to 3.11) and overlapping subscriptions (section 3.3.4).

use crate::broker::Broker;
use crate::bytes::{Connect, Packet, Publish, subscribe, unsubscribe};
use crate::client::Client;

/// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-2.2.1-6] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1]
/// [MQTT-3.9.3-2]
#[test]
fn a_suback_has_the_identifier_and_a_reason_per_filter_in_order() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "many");
    client.send(&subscribe(5, 0xfffe, 0, &[("a", 2), ("b/#", 0), ("c/#/d", 1), ("e", 1)]));
    match client.receive() {
        Packet::Suback { id, reasons, .. } => assert_eq!((id, &reasons[..]), (0xfffe, &[2, 0, 0x8f, 1][..])),
        other => panic!("SUBACK expected, not {other:?}"),
    }
    for (topic, payload, qos) in [("a", "1", 2), ("b", "2", 0), ("b/c", "3", 0), ("e", "4", 1)] {
        client.publish_exactly_once(Publish::new(topic, payload));
        assert_eq!(client.take(payload).qos, qos);
    }
}

/// [MQTT-3.8.4-8]
#[test]
fn a_message_comes_at_the_lower_of_its_qos_and_the_granted_one() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "lower");
    for granted in 0..3 {
        assert_eq!(client.subscribe("lower", granted), granted);
        client.publish(&Publish::new("lower", "0"));
        assert_eq!(client.take("0").qos, 0);
        client.publish_acknowledged(Publish::new("lower", "1"));
        assert_eq!(client.take("1").qos, granted.min(1));
        client.publish_exactly_once(Publish::new("lower", "2"));
        assert_eq!(client.take("2").qos, granted);
    }
}

/// [MQTT-3.8.4-3] [MQTT-3.8.4-4]
#[test]
fn the_same_filter_again_replaces_the_subscription() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "again");
    client.publish_acknowledged(Publish::new("again", "retained").retain());
    client.subscribe_all(1, &[("again", 2)]);
    assert_eq!(client.take("retained").subscription_ids(), [1]);
    client.subscribe_all(2, &[("again", 0)]);
    let again = client.take("retained");
    assert_eq!((again.subscription_ids(), again.qos, again.retain), (vec![2], 0, true));
    client.publish_acknowledged(Publish::new("again", "once"));
    let once = client.take("once");
    assert_eq!((once.subscription_ids(), once.qos), (vec![2], 0));
    client.expect_nothing();
}

/// [MQTT-3.8.3-3]
#[test]
fn no_local_keeps_a_message_from_its_publisher_only() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "local");
    let mut other = Client::v5(&broker, "other");
    client.subscribe("no/local", 4 | 1);
    other.subscribe("no/local", 1);
    client.publish_acknowledged(Publish::new("no/local", "mine"));
    other.take("mine");
    other.publish_acknowledged(Publish::new("no/local", "yours"));
    client.take("yours");
    other.take("yours");
}

/// [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]: one copy, at the highest QoS granted, with every identifier.
#[test]
fn overlapping_subscriptions_give_one_copy_at_the_highest_qos_with_all_identifiers() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "overlap");
    client.subscribe_all(3, &[("o/#", 0)]);
    client.subscribe_all(1, &[("o/+", 2)]);
    client.subscribe_all(2, &[("o/p", 1)]);
    client.subscribe_all(0, &[("+/p", 1)]);
    client.publish_exactly_once(Publish::new("o/p", "once"));
    let once = client.take("once");
    assert_eq!((once.qos, once.subscription_ids()), (2, vec![1, 2, 3]));
    client.publish_exactly_once(Publish::new("o/q", "next"));
    assert_eq!(client.take("next").subscription_ids(), [1, 3]);
}

/// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2]
#[test]
fn an_unsuback_says_which_subscriptions_there_were_and_they_are_gone() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "leaving");
    client.subscribe_all(0, &[("l/+", 1), ("l/a", 1), ("m", 1)]);
    client.send(&unsubscribe(5, 0xabcd, &["l/+", "l/b", "m", "l/#"]));
    match client.receive() {
        Packet::Unsuback { id, reasons, .. } => {
            assert_eq!((id, &reasons[..]), (0xabcd, &[0, 0x11, 0, 0x11][..]))
        }
        other => panic!("UNSUBACK expected, not {other:?}"),
    }
    assert_eq!(client.publish_acknowledged(Publish::new("l/b", "nobody")), 0x10);
    assert_eq!(client.publish_acknowledged(Publish::new("m", "nobody")), 0x10);
    assert_eq!(client.publish_acknowledged(Publish::new("l/a", "one left")), 0);
    client.take("one left");
    assert_eq!(client.unsubscribe(&["l/a", "l/a"]), [0, 0x11]);
}

/// [MQTT-3.10.4-3]
#[test]
fn what_was_on_its_way_when_the_client_unsubscribed_is_completed() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, &Connect::durable("completing"));
    client.subscribe("c", 2);
    let mut other = Client::v5(&broker, "other");
    other.publish_exactly_once(Publish::new("c", "two"));
    let two = client.expect("two");
    assert_eq!(client.unsubscribe(&["c"]), [0]);
    client.acknowledge(&two);
    other.publish_exactly_once(Publish::new("c", "nobody"));
    client.expect_nothing();
}

/// [MQTT-4.7.3-3] and the program's own limit: refused in SUBACK, the connection lives.
#[test]
fn a_filter_that_is_too_long_or_too_deep_is_refused_alone() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "long");
    let long = "x".repeat(20_000);
    let deep = vec!["x"; 500].join("/");
    assert_eq!(client.subscribe_all(0, &[(&long, 0), ("fine", 1), (&deep, 0)]), [0x8f, 1, 0x8f]);
    client.expect_nothing();
}
