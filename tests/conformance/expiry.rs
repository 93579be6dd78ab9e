//! Message expiry (section 3.3.2.3.3).

use crate::broker::{Broker, clock};
use crate::bytes::{Connect, Publish, Value, property};
use crate::client::Client;

fn expiring(payload: &str, seconds: u32) -> Publish {
    Publish::new("expiring", payload).with(property::MESSAGE_EXPIRY, Value::Four(seconds))
}

/// A session that is away, and somebody who publishes to it.
fn absent(broker: &Broker) -> Client {
    let mut client = Client::connect(broker, &Connect::durable("away"));
    client.subscribe("expiring", 2);
    client.disconnect();
    Client::v5(broker, "other")
}

/// Lets that time pass while the broker is seen to live.
fn let_pass(client: &mut Client, milliseconds: u128) {
    let started = clock();
    while started.elapsed().as_millis() < milliseconds {
        client.expect_nothing();
    }
}

/// [MQTT-3.3.2-5]
#[test]
fn a_message_that_expired_in_the_queue_is_not_delivered() {
    let broker = Broker::start();
    let mut other = absent(&broker);
    other.publish_acknowledged(expiring("short one", 1));
    other.publish_exactly_once(expiring("short two", 1));
    other.publish_acknowledged(expiring("long", 600));
    let_pass(&mut other, 2_100);
    let mut client = Client::connect(&broker, &Connect::durable("away"));
    client.take("long");
    client.expect_nothing();
}

/// [MQTT-3.3.2-6]
#[test]
fn the_expiry_is_sent_on_less_the_time_waited() {
    let broker = Broker::start();
    let mut online = Client::v5(&broker, "online");
    online.subscribe("expiring", 0);
    let mut other = absent(&broker);
    other.publish_acknowledged(expiring("counted", 100));
    let at_once = online.expect("counted");
    assert!(matches!(at_once.property(property::MESSAGE_EXPIRY), Some(Value::Four(99..=100))), "{at_once:?}");
    let_pass(&mut other, 2_000);
    let mut client = Client::connect(&broker, &Connect::durable("away"));
    let later = client.take("counted");
    assert!(matches!(later.property(property::MESSAGE_EXPIRY), Some(Value::Four(96..=98))), "{later:?}");
}

#[test]
fn a_message_without_expiry_gets_none() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "timeless");
    client.subscribe("timeless", 0);
    client.publish(&Publish::new("timeless", "x"));
    assert_eq!(client.expect("x").property(property::MESSAGE_EXPIRY), None);
}

#[test]
fn a_retained_message_expires_too_and_counts_down() {
    let broker = Broker::start();
    let mut other = Client::v5(&broker, "other");
    other.publish_acknowledged(expiring("retained", 3).retain());
    let_pass(&mut other, 1_100);
    let mut client = Client::v5(&broker, "early");
    client.subscribe("expiring", 0);
    let counted = client.expect("retained");
    assert!(matches!(counted.property(property::MESSAGE_EXPIRY), Some(Value::Four(1..=2))), "{counted:?}");
    let_pass(&mut other, 2_900);
    let mut client = Client::v5(&broker, "late");
    client.subscribe("expiring", 0);
    client.expect_nothing();
}

/// [MQTT-4.3.3-7]
#[test]
fn a_message_that_was_sent_once_no_longer_expires() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, &Connect::durable("begun"));
    client.subscribe("expiring", 2);
    let mut other = Client::v5(&broker, "other");
    other.publish_exactly_once(expiring("begun", 1));
    let begun = client.expect("begun");
    client.fail();
    let_pass(&mut other, 2_100);
    let mut client = Client::connect(&broker, &Connect::durable("begun"));
    let again = client.expect("begun");
    assert_eq!((again.id, again.dup), (begun.id, true));
    client.acknowledge(&again);
}

/// [MQTT-4.3.3-13]: the exchange with the sender goes on, whatever became of the message.
#[test]
fn the_exchange_with_the_sender_is_completed_after_the_message_expired() {
    let broker = Broker::start();
    let mut other = absent(&broker);
    other.publish(&expiring("gone", 1).qos(2, 40));
    let received = other.receive();
    assert!(matches!(received, crate::bytes::Packet::Ack { kind: 5, id: 40, reason: 0, .. }), "{received:?}");
    let_pass(&mut other, 2_100);
    other.send(&crate::bytes::ack(6, 40));
    assert_eq!(other.receive(), crate::bytes::success(7, 40));
}
