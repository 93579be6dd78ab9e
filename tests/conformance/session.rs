//! Sessions: which are resumed, what they keep, when they end (sections 3.1.2.4, 3.1.2.11.2, 4.1).

use crate::broker::{Broker, clock, is_mosquitto};
use crate::bytes::{Connect, Publish, Value, property};
use crate::client::Client;

/// [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.2.2-3] [MQTT-3.1.3-2] [MQTT-3.1.2-23] [MQTT-4.5.0-1]
#[test]
fn a_session_that_outlives_its_connection_is_resumed_with_what_came_meanwhile() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, &Connect::durable("keeper"));
    assert!(!client.present);
    assert_eq!(client.subscribe_all(0, &[("kept/1", 1), ("kept/2", 2), ("kept/0", 0)]), [1, 2, 0]);
    client.disconnect();
    let mut other = Client::v5(&broker, "other");
    other.publish_acknowledged(Publish::new("kept/1", "one"));
    other.publish_exactly_once(Publish::new("kept/2", "two"));
    let mut client = Client::connect(&broker, &Connect::durable("keeper"));
    assert!(client.present);
    assert_eq!(client.take("one").qos, 1);
    assert_eq!(client.take("two").qos, 2);
    other.publish_acknowledged(Publish::new("kept/1", "three"));
    client.take("three");
}

/// [MQTT-3.1.2-4] [MQTT-3.2.2-2] [MQTT-3.1.4-4]
#[test]
fn clean_start_discards_the_session() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, &Connect::durable("fresh"));
    client.subscribe("fresh", 1);
    client.disconnect();
    let mut other = Client::v5(&broker, "other");
    assert_eq!(other.publish_acknowledged(Publish::new("fresh", "old")), 0);
    let clean = Connect { clean: true, ..Connect::durable("fresh") };
    let mut client = Client::connect(&broker, &clean);
    assert!(!client.present);
    // Nobody subscribes any more: 0x10 says so.
    assert_eq!(other.publish_acknowledged(Publish::new("fresh", "new")), 0x10);
    client.expect_nothing();
}

/// [MQTT-4.1.0-2] [MQTT-4.1.0-1]
#[test]
fn a_session_without_expiry_ends_with_its_connection_and_not_before() {
    let broker = Broker::start();
    let connect = Connect::v5("short").resume();
    let mut client = Client::connect(&broker, &connect);
    client.subscribe("short", 1);
    let mut other = Client::v5(&broker, "other");
    other.publish_acknowledged(Publish::new("short", "while it lasts"));
    client.take("while it lasts");
    client.disconnect();
    assert!(!Client::connect(&broker, &connect).present);
    assert_eq!(other.publish_acknowledged(Publish::new("short", "too late")), 0x10);
}

/// [MQTT-4.1.0-2]
#[test]
fn a_session_ends_when_its_expiry_has_passed() {
    let broker = Broker::start();
    let connect = Connect::v5("expiring").resume().with(property::SESSION_EXPIRY, Value::Four(1));
    let mut client = Client::connect(&broker, &connect);
    client.subscribe("expiring", 1);
    client.disconnect();
    let ended = clock();
    let mut other = Client::v5(&broker, "other");
    while other.publish_acknowledged(Publish::new("expiring", "x")) == 0 {
        assert!(ended.elapsed().as_millis() < 2_500, "the session is still there");
    }
    assert!(ended.elapsed().as_millis() > 900, "the session ended early");
    assert!(!Client::connect(&broker, &connect).present);
}

#[test]
fn disconnect_may_change_the_expiry() {
    let broker = Broker::start();
    let longer = Connect::v5("changing").resume().with(property::SESSION_EXPIRY, Value::Four(1));
    let client = Client::connect(&broker, &longer);
    client.disconnect_with(0, &[(property::SESSION_EXPIRY, Value::Four(0))]);
    let client = Client::connect(&broker, &longer);
    assert!(!client.present, "an expiry of 0 at DISCONNECT ends the session at once");
    client.disconnect_with(0, &[(property::SESSION_EXPIRY, Value::Four(600))]);
    let waiting = clock();
    let mut other = Client::v5(&broker, "other");
    while waiting.elapsed().as_millis() < 1_600 {
        other.expect_nothing();
    }
    assert!(Client::connect(&broker, &longer).present, "the longer expiry of DISCONNECT counts");
}

/// [MQTT-3.1.2-23]: over a kill too, which is what an acknowledgement promises here.
#[test]
fn a_session_and_its_acknowledged_messages_survive_a_kill() {
    if is_mosquitto() {
        return;
    }
    let mut broker = Broker::start();
    let mut client = Client::connect(&broker, &Connect::durable("survivor"));
    client.subscribe_all(9, &[("life/+", 2)]);
    client.disconnect();
    let mut other = Client::v5(&broker, "other");
    other.publish_acknowledged(Publish::new("life/1", "one"));
    other.publish_exactly_once(Publish::new("life/2", "two"));
    broker = broker.restart();
    let mut client = Client::connect(&broker, &Connect::durable("survivor"));
    assert!(client.present);
    let one = client.take("one");
    assert_eq!((one.qos, one.subscription_ids()), (1, vec![9]));
    let two = client.take("two");
    assert_eq!((two.qos, two.subscription_ids()), (2, vec![9]));
    client.expect_nothing();
}
