//! Retained messages (sections 3.3.1.3 and 3.8.3.1).

use crate::broker::Broker;
use crate::bytes::{Connect, Publish};
use crate::client::Client;

/// [MQTT-3.3.1-5] [MQTT-3.3.1-9]
#[test]
fn the_last_retained_message_of_each_topic_meets_a_new_subscription() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "client");
    for (topic, payload) in [("r/a", "old"), ("r/a", "new"), ("r/b/c", "deep"), ("s", "other")] {
        client.publish_exactly_once(Publish::new(topic, payload).retain());
    }
    assert_eq!(client.subscribe("r/#", 1), 1);
    let mut found = [client.receive_publish(), client.receive_publish()];
    found.sort_by(|one, other| one.topic.cmp(&other.topic));
    for (publish, (topic, payload)) in found.iter().zip([("r/a", "new"), ("r/b/c", "deep")]) {
        // Stored with its QoS, delivered at the lower of that and what was granted [MQTT-3.8.4-8].
        assert_eq!((publish.topic.as_str(), publish.text(), publish.qos), (topic, payload, 1));
        assert!(publish.retain && !publish.dup);
        client.acknowledge(publish);
    }
    client.expect_nothing();
}

/// [MQTT-3.3.1-6] [MQTT-3.3.1-7]
#[test]
fn an_empty_retained_message_is_delivered_and_removes_what_was_retained() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "client");
    client.publish_acknowledged(Publish::new("gone", "x").retain());
    let mut watcher = Client::v5(&broker, "watcher");
    watcher.subscribe("gone", 0);
    watcher.expect("x");
    client.publish_acknowledged(Publish::new("gone", "").retain());
    assert!(!watcher.expect("").retain);
    client.subscribe("gone", 1);
    client.expect_nothing();
}

/// [MQTT-3.3.1-8]
#[test]
fn a_message_without_the_flag_changes_nothing_that_is_retained() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "client");
    client.publish_acknowledged(Publish::new("keep", "kept").retain());
    client.publish_acknowledged(Publish::new("keep", "passing"));
    client.publish_acknowledged(Publish::new("keep", ""));
    client.publish_acknowledged(Publish::new("none", "passing"));
    client.subscribe("keep", 0);
    client.expect("kept");
    client.subscribe("none", 0);
    client.expect_nothing();
}

/// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
#[test]
fn retain_handling_decides_what_a_subscription_is_met_with() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, &Connect::durable("handling"));
    client.publish_acknowledged(Publish::new("handled", "x").retain());
    // Handling 2 never, new or not.
    client.subscribe("handled", 2 << 4);
    client.subscribe("handled", 2 << 4);
    client.expect_nothing();
    // Handling 1 only if new, also across a resumed session.
    client.subscribe("handled", 1 << 4);
    client.expect_nothing();
    client.unsubscribe(&["handled"]);
    client.subscribe("handled", 1 << 4);
    client.expect("x");
    client.disconnect();
    let mut client = Client::connect(&broker, &Connect::durable("handling"));
    client.subscribe("handled", 1 << 4);
    client.expect_nothing();
    // Handling 0 always.
    client.subscribe("handled", 0);
    client.expect("x");
    client.subscribe("handled", 0);
    client.expect("x");
}

/// [MQTT-3.3.1-12] [MQTT-3.3.1-13]
#[test]
fn the_flag_is_forwarded_only_as_published_if_that_was_asked_for() {
    let broker = Broker::start();
    let mut plain = Client::v5(&broker, "plain");
    let mut published = Client::v5(&broker, "published");
    plain.subscribe("flag", 0);
    published.subscribe("flag", 8);
    let mut other = Client::v5(&broker, "other");
    for retain in [true, false] {
        other.publish_acknowledged(Publish { retain, ..Publish::new("flag", "x") });
        assert!(!plain.expect("x").retain);
        assert_eq!(published.expect("x").retain, retain);
    }
    // What meets a new subscription has the flag, whatever was asked for.
    for options in [0, 8] {
        let mut late = Client::v5(&broker, "late");
        late.subscribe("flag", options);
        assert!(late.expect("x").retain);
        late.disconnect();
    }
}

#[test]
fn many_retained_messages_all_arrive_within_the_receive_maximum() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "client");
    for number in 0..500 {
        client.publish_acknowledged(Publish::new(&format!("many/{number:03}"), &number.to_string()).retain());
    }
    let mut reader = Client::connect(
        &broker,
        &Connect::v5("reader").with(crate::bytes::property::RECEIVE_MAXIMUM, crate::bytes::Value::Two(3)),
    );
    reader.subscribe("many/+", 1);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..500 {
        let publish = reader.receive_publish();
        reader.acknowledge(&publish);
        assert!(seen.insert(publish.topic));
    }
    reader.expect_nothing();
}

/// A retained message and one published right after the SUBSCRIBE are both seen, the older first or never twice.
#[test]
fn a_message_published_after_the_suback_is_not_hidden_by_the_retained_one() {
    let broker = Broker::start();
    let mut other = Client::v5(&broker, "other");
    other.publish_acknowledged(Publish::new("race", "old").retain());
    let mut client = Client::v5(&broker, "client");
    client.subscribe("race", 1);
    other.publish(&Publish::new("race", "new").retain().qos(1, 99));
    let mut seen = vec![];
    while seen.last().is_none_or(|payload| payload != "new") {
        let publish = client.receive_publish();
        client.acknowledge(&publish);
        seen.push(publish.text().to_owned());
    }
    assert!(seen.len() <= 2, "{seen:?}");
}
