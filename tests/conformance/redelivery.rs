//! What is sent again when a session is resumed, and what is not (section 4.4).

use crate::broker::Broker;
use crate::bytes::{Connect, Packet, Publish, ack, ack_with, success};
use crate::client::Client;

/// A resumed session of that name, subscribed to "again" at QoS 2, and a publisher.
fn subscribed(broker: &Broker, client_id: &str) -> (Client, Client) {
    let mut client = Client::connect(broker, &Connect::durable(client_id));
    assert_eq!(client.subscribe("again", 2), 2);
    (client, Client::v5(broker, "publisher"))
}

/// [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT-4.6.0-1]: the last is the client's rule; the
/// broker keeps it too.
#[test]
fn unacknowledged_messages_come_again_in_order_with_dup_and_their_identifiers() {
    let broker = Broker::start();
    let (mut client, mut publisher) = subscribed(&broker, "again");
    for number in 0..6 {
        let publish = Publish::new("again", &number.to_string());
        if number % 2 == 0 {
            publisher.publish_acknowledged(publish);
        } else {
            publisher.publish_exactly_once(publish);
        }
    }
    let first: Vec<Publish> = (0..6).map(|number| client.expect(&number.to_string())).collect();
    assert!(first.iter().all(|publish| !publish.dup));
    client.acknowledge(&first[2]);
    client.acknowledge(&first[3]);
    client.expect_nothing();
    client.fail();
    let mut client = Client::connect(&broker, &Connect::durable("again"));
    for number in [0, 1, 4, 5] {
        let again = client.expect(&number.to_string());
        assert_eq!(again, Publish { dup: true, ..first[number].clone() });
        client.acknowledge(&again);
    }
    client.expect_nothing();
    client.fail();
    Client::connect(&broker, &Connect::durable("again")).expect_nothing();
}

/// [MQTT-4.4.0-1] [MQTT-4.3.3-5] [MQTT-4.3.3-6]
#[test]
fn after_pubrec_only_pubrel_comes_again() {
    let broker = Broker::start();
    let (mut client, mut publisher) = subscribed(&broker, "released");
    publisher.publish_exactly_once(Publish::new("again", "x"));
    let publish = client.expect("x");
    client.send(&ack(5, publish.id));
    assert_eq!(client.receive(), success(6, publish.id));
    client.fail();
    let mut client = Client::connect(&broker, &Connect::durable("released"));
    assert_eq!(client.receive(), success(6, publish.id));
    client.send(&ack(7, publish.id));
    client.expect_nothing();
    client.fail();
    Client::connect(&broker, &Connect::durable("released")).expect_nothing();
}

/// [MQTT-4.4.0-1]: only a new connection makes the broker send again.
#[test]
fn nothing_is_sent_again_on_the_same_connection() {
    let broker = Broker::start();
    let (mut client, mut publisher) = subscribed(&broker, "patient");
    publisher.publish_acknowledged(Publish::new("again", "x"));
    client.expect("x");
    let waiting = crate::broker::clock();
    while waiting.elapsed().as_millis() < 1_500 {
        client.expect_nothing();
    }
}

/// [MQTT-4.4.0-2]
#[test]
fn what_a_client_refused_does_not_come_again() {
    let broker = Broker::start();
    let (mut client, mut publisher) = subscribed(&broker, "refusing");
    publisher.publish_acknowledged(Publish::new("again", "one"));
    publisher.publish_exactly_once(Publish::new("again", "two"));
    let (one, two) = (client.expect("one"), client.expect("two"));
    client.send(&ack_with(4, one.id, 0x80));
    client.send(&ack_with(5, two.id, 0x83));
    client.expect_nothing();
    client.fail();
    Client::connect(&broker, &Connect::durable("refusing")).expect_nothing();
}

/// [MQTT-4.3.3-10] over a reconnect: the identifier is taken until PUBREL.
#[test]
fn a_publish_of_qos_2_that_is_sent_again_after_a_reconnect_is_delivered_once() {
    let broker = Broker::start();
    let mut subscriber = Client::v5(&broker, "subscriber");
    subscriber.subscribe("once", 0);
    let connect = Connect::durable("repeating");
    let mut client = Client::connect(&broker, &connect);
    client.publish(&Publish::new("once", "x").qos(2, 21));
    assert_eq!(client.receive(), success(5, 21));
    client.fail();
    let mut client = Client::connect(&broker, &connect);
    client.publish(&Publish::new("once", "x").qos(2, 21).dup());
    assert_eq!(client.receive(), success(5, 21));
    client.send(&ack(6, 21));
    assert_eq!(client.receive(), success(7, 21));
    subscriber.expect("x");
    subscriber.expect_nothing();
}

/// A clean start forgets the identifiers of both directions.
#[test]
fn a_clean_start_forgets_what_was_in_flight() {
    let broker = Broker::start();
    let (mut client, mut publisher) = subscribed(&broker, "forgetting");
    publisher.publish_acknowledged(Publish::new("again", "x"));
    client.expect("x");
    client.publish(&Publish::new("elsewhere", "y").qos(2, 3));
    assert!(matches!(client.receive(), Packet::Ack { kind: 5, id: 3, .. }));
    client.fail();
    let mut client = Client::v5(&broker, "forgetting");
    assert!(!client.present);
    client.send(&ack(6, 3));
    assert!(matches!(client.receive(), Packet::Ack { kind: 7, id: 3, reason: 0x92, .. }));
    client.expect_nothing();
}
