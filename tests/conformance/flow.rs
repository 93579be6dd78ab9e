//! What bounds a connection: receive maximum, packet size, keep alive (sections 3.1.2.10, 3.1.2.11, 4.9).

use crate::broker::{Broker, clock};
use crate::bytes::{self, Connect, PINGREQ, Packet, Publish, Value, ack, ack_with, property};
use crate::client::Client;

fn receiving(client_id: &str, maximum: u16) -> Connect {
    Connect::durable(client_id).with(property::RECEIVE_MAXIMUM, Value::Two(maximum))
}

/// [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3]
#[test]
fn no_more_than_the_receive_maximum_is_in_flight_and_other_packets_pass() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, &receiving("narrow", 2));
    client.subscribe("narrow", 2);
    client.disconnect();
    let mut other = Client::v5(&broker, "other");
    for number in 0..6 {
        let publish = Publish::new("narrow", &number.to_string());
        if number % 2 == 0 {
            other.publish_acknowledged(publish);
        } else {
            other.publish_exactly_once(publish);
        }
    }
    let mut client = Client::connect(&broker, &receiving("narrow", 2));
    let zero = client.expect("0");
    let one = client.expect("1");
    // The quota is used up: nothing more comes (a server may hold back QoS 0 too), but every answer does.
    client.expect_nothing();
    assert_eq!(client.subscribe("another", 1), 1);
    assert_eq!(client.publish_acknowledged(Publish::new("nobody", "x")), 0x10);
    client.publish_exactly_once(Publish::new("nobody", "x"));
    client.acknowledge(&zero);
    let two = client.expect("2");
    client.expect_nothing();
    // PUBREC alone gives nothing back, PUBCOMP does.
    client.send(&ack(5, one.id));
    assert_eq!(client.receive(), bytes::success(6, one.id));
    client.expect_nothing();
    client.send(&ack(7, one.id));
    let three = client.expect("3");
    // A PUBREC that reports failure ends the exchange.
    client.send(&ack_with(5, three.id, 0x80));
    let four = client.expect("4");
    client.acknowledge(&two);
    let five = client.expect("5");
    client.acknowledge(&four);
    client.acknowledge(&five);
    client.expect_nothing();
}

/// [MQTT-3.3.4-7]: with 0x93, and never less than what the broker announced.
#[test]
fn a_client_that_exceeds_the_brokers_receive_maximum_is_disconnected() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "greedy");
    let maximum = match bytes::find(&client.connack, property::RECEIVE_MAXIMUM) {
        Some(Value::Two(maximum)) => *maximum,
        _ => u16::MAX,
    };
    for id in 1..=maximum {
        client.publish(&Publish::new("greedy", "x").qos(2, id));
        let received = client.receive();
        assert!(matches!(received, Packet::Ack { kind: 5, reason: 0 | 0x10, .. }), "{received:?}");
    }
    client.expect_nothing();
    if let Some(beyond) = maximum.checked_add(1) {
        client.publish(&Publish::new("greedy", "x").qos(2, beyond));
        client.expect_disconnect(0x93);
    }
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[test]
fn a_message_too_large_for_a_client_counts_as_delivered() {
    let broker = Broker::start();
    let mut client =
        Client::connect(&broker, &Connect::v5("small").with(property::PACKET_SIZE, Value::Four(64)));
    assert_eq!(client.subscribe("s", 2), 2);
    let mut large = Client::v5(&broker, "large");
    large.subscribe("s", 2);
    // 1 and 1 bytes of header, 3 of topic, 2 of identifier, 1 of properties: 56 of payload make 64.
    let (fits, exceeds) = ("x".repeat(56), "y".repeat(57));
    let mut other = Client::v5(&broker, "other");
    other.publish_acknowledged(Publish::new("s", &exceeds));
    other.publish_exactly_once(Publish::new("s", &exceeds));
    other.publish_acknowledged(Publish::new("s", &fits));
    // The client itself holds every packet against the size that it stated.
    let largest = client.take(&fits);
    assert_eq!(largest.bytes(5).len(), 64);
    client.expect_nothing();
    for payload in [&exceeds, &exceeds, &fits] {
        large.take(payload);
    }
}

/// [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2]
/// [MQTT-3.7.2-3] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.14.2-3] [MQTT-3.14.2-4]
/// [MQTT-3.2.2-19] [MQTT-3.2.2-20]
#[test]
fn no_explanation_makes_an_answer_larger_than_the_client_takes() {
    let broker = Broker::start();
    // What is left when every optional string is left out: a CONNACK without them has room, nothing larger has.
    let connack = Client::v5(&broker, "tiny").connack;
    let maximum = 4 + bytes::properties(&connack).len();
    let stated = Value::Four(u32::try_from(maximum).expect("a short CONNACK"));
    let mut client = Client::connect(&broker, &Connect::v5("tiny").with(property::PACKET_SIZE, stated));
    assert_eq!(client.subscribe_all(0, &[("a/#/b", 0), ("a", 1)]), [0x8f, 1]);
    assert_eq!(client.unsubscribe(&["nothing"]), [0x11]);
    assert_eq!(client.publish_acknowledged(Publish::new("nobody", "x")), 0x10);
    client.publish_exactly_once(Publish::new("nobody", "x"));
    client.send(&[ack(6, 400), ack(5, 500)].concat());
    for (kind, id) in [(7, 400), (6, 500)] {
        let answer = client.receive();
        assert!(
            matches!(&answer, Packet::Ack { kind: k, id: i, .. } if (*k, *i) == (kind, id)),
            "{answer:?}"
        );
    }
    client.send(&Publish::new("a/+", "x").bytes(5));
    assert!(matches!(client.receive(), Packet::Disconnect { .. }));
    client.expect_close();
}

/// [MQTT-3.2.2-15]: with 0x95, and a packet of exactly the announced size passes.
#[test]
fn a_packet_larger_than_announced_is_refused_and_one_of_that_size_is_not() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "huge");
    let maximum = match bytes::find(&client.connack, property::PACKET_SIZE) {
        Some(Value::Four(maximum)) => *maximum as usize,
        other => panic!("this broker announces its maximum packet size, not {other:?}"),
    };
    // 1 byte, a length of 3 or 4 bytes, 3 of topic, 1 of properties.
    let overhead = 1 + bytes::variable(maximum as u32).len() + 3 + 1;
    let publish = Publish::new("h", &"x".repeat(maximum - overhead));
    assert_eq!(publish.bytes(5).len(), maximum);
    client.publish(&publish);
    client.expect_nothing();
    let beyond = Publish::new("h", &"x".repeat(maximum - overhead + 1)).bytes(5);
    // The length alone tells; what follows need not be read.
    client.send(&beyond[..5]);
    client.expect_disconnect(0x95);
}

/// [MQTT-3.1.2-22] [MQTT-3.2.2-22]: half a second is this broker's own promise.
#[test]
fn a_silent_client_is_gone_after_one_and_a_half_times_its_keep_alive() {
    let broker = Broker::start();
    for (level, keep_alive) in [(5, 1), (4, 2)] {
        let connect = Connect { level, keep_alive, ..Connect::v5("silent") };
        let mut client = Client::connect(&broker, &connect);
        // Without a server keep alive the client's own holds.
        assert_eq!(bytes::find(&client.connack, property::SERVER_KEEP_ALIVE), None);
        let sent = clock();
        let waited = client.wait_for_end().duration_since(sent).as_millis();
        let due = u128::from(keep_alive) * 1_500;
        assert!((due - 100..=due + 500).contains(&waited), "closed after {waited} ms, due at {due} ms");
    }
}

/// [MQTT-3.1.2-22]: the time counts from the last packet, whatever it is.
#[test]
fn any_packet_keeps_a_connection_alive() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, &Connect { keep_alive: 1, ..Connect::v5("alive") });
    let mut other = Client::v5(&broker, "other");
    let publish = Publish::new("alive", "x").bytes(5);
    for packet in [PINGREQ, &publish, PINGREQ, &publish] {
        let quiet = clock();
        while quiet.elapsed().as_millis() < 900 {
            other.expect_nothing();
        }
        client.send(packet);
    }
    client.receive();
    client.receive();
    client.expect_nothing();
}

/// [MQTT-3.1.2-29]
#[test]
fn without_problem_information_only_three_packets_have_reason_strings_or_user_properties() {
    let broker = Broker::start();
    let connect = Connect::v5("brief").with(property::PROBLEM_INFORMATION, Value::Byte(0));
    let mut client = Client::connect(&broker, &connect);
    client.send(&bytes::subscribe(5, 1, 0, &[("a/#/b", 0), ("a", 1)]));
    client.send(&bytes::unsubscribe(5, 2, &["nothing"]));
    client.send(&Publish::new("nobody", "x").qos(1, 3).bytes(5));
    client.send(&[ack(6, 4), ack(5, 5)].concat());
    for _ in 0..5 {
        let properties = match client.receive() {
            Packet::Suback { properties, .. } | Packet::Unsuback { properties, .. } => properties,
            Packet::Ack { properties, .. } => properties,
            other => panic!("an acknowledgement expected, not {other:?}"),
        };
        assert_eq!(properties, []);
    }
    client.expect_nothing();
}
