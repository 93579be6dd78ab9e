//! Limits of what a packet may hold: its size, topics, aliases.

use std::io::Write;
use std::net::TcpStream;

use ironpost::limits;

use crate::broker::Broker;
use crate::bytes::{self, Connect, Publish, Value, property};
use crate::client::Client;
use crate::neighbours::Neighbours;

/// A PUBLISH of that many bytes, fixed header included.
fn publish_of(bytes: usize) -> Publish {
    let publish = |payload: usize| Publish::new("size", &"x".repeat(payload)).qos(1, 1);
    let overhead = publish(bytes).bytes(5).len() - bytes;
    publish(bytes - overhead)
}

#[test]
fn a_packet_larger_than_announced_ends_its_connection_with_0x95() {
    let broker = Broker::start();
    let mut neighbours = Neighbours::of(&broker);
    let largest = limits::PACKET_BYTES_DEFAULT;
    let mut client = Client::v5(&broker, "large");
    assert_eq!(bytes::find(&client.connack, property::PACKET_SIZE), Some(&Value::Four(largest)));
    let publish = publish_of(largest as usize);
    assert_eq!(publish.bytes(5).len(), largest as usize);
    assert_eq!(client.publish_acknowledged(publish), 0x10);
    client.send_regardless(&publish_of(largest as usize + 1).bytes(5));
    client.expect_disconnect(0x95);
    neighbours.go_on();
    Client::v5(&broker, "large").expect_nothing();
}

#[test]
fn a_topic_that_is_too_long_or_too_deep_is_refused_where_it_is_used() {
    let broker = Broker::start();
    let mut neighbours = Neighbours::of(&broker);
    let longest = "t".repeat(limits::TOPIC_BYTES_MAX);
    let deepest = "/".repeat(limits::TOPIC_LEVELS_MAX - 1);
    for (allowed, refused) in [(&longest, format!("{longest}t")), (&deepest, format!("{deepest}/"))] {
        let mut client = Client::v5(&broker, "topics");
        assert_eq!(client.publish_acknowledged(Publish::new(allowed, "x")), 0x10);
        assert_eq!(client.subscribe_all(0, &[(&refused, 0), (allowed, 0)]), [0x8f, 0], "one by one");
        client.publish(&Publish::new(&refused, "x").qos(1, 9));
        client.expect_disconnect(0x90);
        let mut client = Client::connect(&broker, &Connect::v3("topics"));
        client.publish(&Publish::new(&refused, "x").qos(1, 9));
        client.expect_close();
        neighbours.go_on();
    }
}

#[test]
fn a_topic_alias_beyond_the_announced_maximum_ends_its_connection_with_0x94() {
    let broker = Broker::start();
    let mut neighbours = Neighbours::of(&broker);
    let most = limits::TOPIC_ALIASES_IN_MAX;
    let mut client = Client::v5(&broker, "aliases");
    assert_eq!(bytes::find(&client.connack, property::TOPIC_ALIAS_MAXIMUM), Some(&Value::Two(most)));
    let publish = |alias| Publish::new("alias", "x").with(property::TOPIC_ALIAS, Value::Two(alias));
    assert_eq!(client.publish_acknowledged(publish(most)), 0x10);
    client.publish(&publish(most + 1).qos(1, 9));
    client.expect_disconnect(0x94);
    neighbours.go_on();
}

#[test]
fn a_client_that_offers_more_aliases_than_we_use_gets_further_topics_by_name() {
    let broker = Broker::start();
    let most = limits::TOPIC_ALIASES_OUT_MAX;
    let allows = Connect::v5("reader").with(property::TOPIC_ALIAS_MAXIMUM, Value::Two(u16::MAX));
    let mut reader = Client::connect(&broker, &allows);
    reader.subscribe("alias/+", 1);
    let mut publisher = Client::v5(&broker, "publisher");
    for round in 0..2 {
        for number in 0..most + 4 {
            publisher.publish(&Publish::new(&format!("alias/{number}"), "x"));
            let publish = reader.receive_publish();
            let alias = (number < most).then_some(Value::Two(number + 1));
            assert_eq!(publish.property(property::TOPIC_ALIAS), alias.as_ref());
            assert_eq!(publish.topic.is_empty(), alias.is_some() && round > 0, "{publish:?}");
        }
    }
}

#[test]
fn what_follows_a_packet_that_is_too_large_is_read_for_a_while_and_not_without_end() {
    let broker = Broker::start();
    let mut neighbours = Neighbours::of(&broker);
    for connect in [Connect::v5("announces"), Connect::v3("announces")] {
        let mut stream = TcpStream::connect(broker.address()).expect("the broker takes connections");
        stream.write_all(&connect.bytes()).expect("it reads");
        stream.write_all(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]).expect("it reads");
        let (mut sent, piece) = (0, [0; 64 << 10]);
        while stream.write_all(&piece).is_ok() {
            sent += piece.len();
            // What the kernel's buffers take comes on top.
            assert!(sent < limits::LINGER_BYTES_MAX + (16 << 20), "{sent} bytes");
        }
        neighbours.go_on();
    }
}
