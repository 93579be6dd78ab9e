//! What of a PUBLISH passes through the broker unchanged (section 3.3.2.3).

use crate::broker::Broker;
use crate::bytes::{Connect, Properties, Publish, Value, property, user};
use crate::client::Client;

fn full(payload: &str) -> Publish {
    let mut publish = Publish::new("pass/through", payload);
    publish.properties = vec![
        user("b", "1"),
        (property::PAYLOAD_FORMAT, Value::Byte(1)),
        (property::CONTENT_TYPE, "text/plain; charset=utf-8".into()),
        user("a", "2"),
        (property::RESPONSE_TOPIC, "answers/here".into()),
        (property::CORRELATION_DATA, Value::Binary(vec![0, 1, 2, 0xff])),
        user("b", "1"),
        user("b", "0"),
        user("", ""),
    ];
    publish
}

/// By kind: only user properties have an order among each other, which a stable sort keeps.
fn sorted(publish: &Publish) -> Properties {
    let mut list = publish.properties.clone();
    list.sort_by_key(|property| property.0);
    list
}

/// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
#[test]
fn properties_reach_every_subscriber_unaltered_and_in_order() {
    let broker = Broker::start();
    let mut away = Client::connect(&broker, &Connect::durable("away"));
    away.subscribe("pass/#", 1);
    away.disconnect();
    let mut online = Client::v5(&broker, "online");
    online.subscribe("pass/#", 2);
    let mut publisher = Client::v5(&broker, "publisher");
    let sent = full("both");
    publisher.publish_acknowledged(sent.clone());
    assert_eq!(sorted(&online.take("both")), sorted(&sent));
    let mut away = Client::connect(&broker, &Connect::durable("away"));
    assert_eq!(sorted(&away.take("both")), sorted(&sent));
}

#[test]
fn a_retained_message_keeps_its_properties() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "client");
    let sent = full("kept").retain();
    client.publish_acknowledged(sent.clone());
    client.subscribe("pass/#", 1);
    let kept = client.take("kept");
    assert_eq!((sorted(&kept), kept.retain), (sorted(&sent), true));
}

/// Section 3.3.2.3: properties are not for MQTT 3.1.1, the message is.
#[test]
fn a_subscriber_of_3_1_1_gets_the_message_without_them() {
    let broker = Broker::start();
    let mut old = Client::connect(&broker, &Connect::v3("old"));
    old.subscribe("pass/#", 1);
    Client::v5(&broker, "publisher").publish_acknowledged(full("plain"));
    let plain = old.take("plain");
    assert_eq!((plain.topic.as_str(), plain.properties), ("pass/through", vec![]));
}

#[test]
fn a_payload_is_any_bytes_and_may_be_empty() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "bytes");
    client.subscribe("bytes", 1);
    for payload in [vec![], vec![0], (0..=255).collect(), vec![0xff; 70_000]] {
        let publish = Publish { payload: payload.clone(), ..Publish::new("bytes", "") };
        client.publish(&publish);
        let received = client.receive_publish();
        assert_eq!(received.payload, payload);
    }
}
