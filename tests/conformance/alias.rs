//! Topic aliases in both directions (section 3.3.2.3.4).

use crate::broker::Broker;
use crate::bytes::{self, Connect, Publish, Value, property};
use crate::client::Client;

/// The topic alias maximum that the broker announced, 0 if none.
fn alias_maximum(client: &Client) -> u16 {
    match bytes::find(&client.connack, property::TOPIC_ALIAS_MAXIMUM) {
        Some(Value::Two(maximum)) => *maximum,
        _ => 0,
    }
}

fn aliased(topic: &str, alias: u16, payload: &str) -> Publish {
    Publish::new(topic, payload).with(property::TOPIC_ALIAS, Value::Two(alias))
}

/// [MQTT-3.3.2-12] [MQTT-3.3.2-11]
#[test]
fn every_alias_up_to_the_announced_maximum_is_taken_and_may_be_moved() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "aliases");
    let maximum = alias_maximum(&client);
    assert!(maximum > 0, "this broker announces that it takes aliases");
    client.subscribe("alias/#", 0);
    for alias in 1..=maximum {
        client.publish(&aliased(&format!("alias/{alias}"), alias, "first"));
        assert_eq!(client.expect("first").topic, format!("alias/{alias}"));
    }
    for alias in (1..=maximum).rev() {
        client.publish(&aliased("", alias, "second"));
        let second = client.expect("second");
        // An alias belongs to one hop.
        assert_eq!((second.topic, second.properties), (format!("alias/{alias}"), vec![]));
    }
    client.publish(&aliased("alias/moved", 1, "moved"));
    assert_eq!(client.expect("moved").topic, "alias/moved");
    client.publish(&aliased("", 1, "there"));
    assert_eq!(client.expect("there").topic, "alias/moved");
}

/// [MQTT-3.3.2-9] [MQTT-3.2.2-17]
#[test]
fn one_alias_more_than_announced_ends_the_connection() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "beyond");
    let beyond = alias_maximum(&client) + 1;
    client.publish(&aliased("a", beyond, "x"));
    client.expect_disconnect(0x94);
}

/// [MQTT-3.3.2-7]
#[test]
fn aliases_do_not_outlive_their_connection() {
    let broker = Broker::start();
    let connect = Connect::durable("forgetful");
    let mut client = Client::connect(&broker, &connect);
    client.publish(&aliased("a", 1, "x"));
    client.expect_nothing();
    client.disconnect();
    let mut client = Client::connect(&broker, &connect);
    assert!(client.present);
    client.publish(&aliased("", 1, "x"));
    client.expect_disconnect(0x82);
}

/// [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-8] [MQTT-3.3.2-11]
#[test]
fn the_broker_uses_no_more_aliases_than_the_client_takes_and_resolves_to_the_right_topics() {
    let broker = Broker::start();
    for maximum in [None, Some(0), Some(1), Some(3)] {
        let mut connect = Connect::v5("taker");
        connect
            .properties
            .extend(maximum.map(|maximum| (property::TOPIC_ALIAS_MAXIMUM, Value::Two(maximum))));
        let mut client = Client::connect(&broker, &connect);
        client.subscribe("out/#", 0);
        let mut known = vec![String::new(); 1 + usize::from(maximum.unwrap_or(0))];
        for round in 0..20 {
            let topic = format!("out/{}", round % 5);
            client.publish(&Publish::new(&topic, &topic));
            let publish = client.expect(&topic);
            let resolved = match publish.property(property::TOPIC_ALIAS) {
                None => publish.topic.clone(),
                Some(Value::Two(alias)) => {
                    assert!(*alias > 0 && usize::from(*alias) < known.len(), "alias {alias} of {maximum:?}");
                    if !publish.topic.is_empty() {
                        known[usize::from(*alias)] = publish.topic.clone();
                    }
                    known[usize::from(*alias)].clone()
                }
                Some(other) => panic!("{other:?} is no alias"),
            };
            assert_eq!(resolved, topic);
        }
        client.disconnect();
    }
}
