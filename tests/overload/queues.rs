//! Limits of what waits for a session, and for all sessions of a shard. All are settings, made small here:
//! `QUEUE_MESSAGES_DEFAULT`, `QUEUE_BYTES_DEFAULT`, `QUEUED_MESSAGES_DEFAULT`.

use crate::broker::{Broker, Start};
use crate::bytes::{self, Connect, Packet, Publish, Value, property, user};
use crate::client::Client;
use crate::neighbours::Neighbours;

fn start(broker: &str) -> Broker {
    Broker::start_with(Start { config: format!("[broker]\n{broker}\n"), shards: Some(1), ..Start::default() })
}

/// A session that is away and has subscribed to the filter at QoS 1.
fn away(broker: &Broker, client_id: &str, filter: &str) {
    let mut client = Client::connect(broker, &Connect::durable(client_id));
    assert_eq!(client.subscribe(filter, 1), 1);
    client.disconnect();
}

/// How many messages the CONNACK says are missing.
fn gap(client: &Client) -> Option<String> {
    client.connack.iter().find_map(|property| match property {
        (property::USER, Value::Pair(name, value)) if name == "ironpost-skipped" => Some(value.clone()),
        _ => None,
    })
}

#[test]
fn a_client_that_acknowledges_nothing_gets_no_more_than_the_send_window() {
    let broker = start("send_window = 4");
    let mut neighbours = Neighbours::of(&broker);
    let mut slow = Client::connect(&broker, &Connect::v3("slow"));
    assert_eq!(slow.subscribe("window", 1), 1);
    let mut publisher = Client::v5(&broker, "publisher");
    for number in 0..6 {
        let id = publisher.id();
        publisher.publish(&Publish::new("window", &number.to_string()).qos(1, id));
    }
    publisher.expect_nothing();
    let first = slow.expect("0");
    for number in 1..4 {
        slow.expect(&number.to_string());
    }
    slow.expect_nothing();
    neighbours.go_on();
    slow.acknowledge(&first);
    slow.expect("4");
    slow.expect_nothing();
}

/// The publisher is refused whose only recipient has a full queue; then the queue is emptied, and it is not.
fn sole_recipient(broker: &Broker, mut neighbours: Neighbours, payload: &str, fits: usize) {
    away(broker, "full", "only/full");
    let mut publisher = Client::v5(broker, "publisher");
    for _ in 0..fits {
        assert_eq!(publisher.publish_acknowledged(Publish::new("only/full", payload)), 0);
    }
    assert_eq!(publisher.publish_acknowledged(Publish::new("only/full", payload)), 0x97);
    assert_eq!(publisher.publish_acknowledged(Publish::new("nobody", payload)), 0x10);
    let mut old = Client::connect(broker, &Connect::v3("old publisher"));
    old.publish(&Publish::new("only/full", payload).qos(1, 1));
    old.expect_close();
    neighbours.go_on();
    let mut full = Client::connect(broker, &Connect::durable("full"));
    assert_eq!(gap(&full), None, "its publisher knows");
    for _ in 0..fits {
        full.take(payload);
    }
    full.expect_nothing();
    assert_eq!(publisher.publish_acknowledged(Publish::new("only/full", "room")), 0);
    full.take("room");
}

#[test]
fn a_publish_whose_only_recipient_has_too_many_messages_waiting_is_refused_with_0x97() {
    let broker = start("queue_messages_max = 10");
    sole_recipient(&broker, Neighbours::of(&broker), "x", 10);
}

#[test]
fn a_publish_whose_only_recipient_has_too_many_bytes_waiting_is_refused_with_0x97() {
    let broker = start("packet_bytes_max = 65_536\nqueue_bytes_max = 65_536");
    // With the topic 8 KiB each.
    sole_recipient(&broker, Neighbours::of(&broker), &"x".repeat(8_192 - "only/full".len()), 8);
}

#[test]
fn a_publish_is_refused_with_0x97_when_all_sessions_of_a_shard_have_too_much_waiting() {
    let broker = start("queued_messages_max = 10");
    let neighbours = Neighbours::of(&broker);
    away(&broker, "another", "only/another");
    let mut publisher = Client::v5(&broker, "another publisher");
    for _ in 0..5 {
        assert_eq!(publisher.publish_acknowledged(Publish::new("only/another", "x")), 0);
    }
    // The neighbours have to wait too: it is their shard that is full. So they are asked only when it is not.
    away(&broker, "full", "only/full");
    for _ in 0..5 {
        assert_eq!(publisher.publish_acknowledged(Publish::new("only/full", "x")), 0);
    }
    assert_eq!(publisher.publish_acknowledged(Publish::new("only/full", "x")), 0x97);
    assert_eq!(publisher.publish_acknowledged(Publish::new("only/another", "x")), 0x97);
    let mut another = Client::connect(&broker, &Connect::durable("another"));
    (0..5).for_each(|_| drop(another.take("x")));
    another.expect_nothing();
    let mut neighbours = neighbours;
    neighbours.go_on();
    assert_eq!(publisher.publish_acknowledged(Publish::new("only/full", "x")), 0);
}

#[test]
fn among_several_recipients_the_one_with_a_full_queue_is_skipped_and_told_how_often() {
    let broker = start("queue_messages_max = 3");
    away(&broker, "full", "all/+");
    let mut other = Client::connect(&broker, &Connect::durable("other"));
    assert_eq!(other.subscribe("all/+", 1), 1);
    let mut publisher = Client::v5(&broker, "publisher");
    for number in 0..5 {
        let id = publisher.id();
        publisher.publish(&Publish::new("all/it", &number.to_string()).qos(1, id));
        other.take(&number.to_string());
        assert_eq!(publisher.receive_other(), bytes::success(4, id));
    }
    // The mark is as durable as the messages.
    drop((other, publisher));
    let broker = broker.restart();
    let mut full = Client::connect(&broker, &Connect::durable("full"));
    assert_eq!(full.connack.iter().filter(|property| **property == user("ironpost-skipped", "2")).count(), 1);
    for number in 0..3 {
        full.take(&number.to_string());
    }
    full.expect_nothing();
    full.disconnect();
    let full = Client::connect(&broker, &Connect::durable("full"));
    assert_eq!(gap(&full), None, "told once");
}

#[test]
fn a_message_accepted_at_qos_2_for_a_full_queue_leaves_a_gap_that_is_told() {
    let broker = start("queue_messages_max = 1");
    let mut client = Client::connect(&broker, &Connect::durable("full"));
    assert_eq!(client.subscribe("only/full", 2), 2);
    client.disconnect();
    let mut publisher = Client::v5(&broker, "publisher");
    publisher.publish_exactly_once(Publish::new("only/full", "x"));
    let id = publisher.id();
    publisher.publish(&Publish::new("only/full", "y").qos(2, id));
    assert!(matches!(publisher.receive(), Packet::Ack { kind: 5, reason: 0, .. }));
    publisher.send(&bytes::ack(6, id));
    assert_eq!(publisher.receive(), bytes::success(7, id));
    // PUBREC leaves before the message is routed; what follows at QoS 1 is answered after it was.
    assert_eq!(publisher.publish_acknowledged(Publish::new("only/full", "z")), 0x97);
    let mut full = Client::connect(&broker, &Connect::durable("full"));
    assert_eq!(gap(&full).as_deref(), Some("1"));
    full.take("x");
    full.expect_nothing();
}
