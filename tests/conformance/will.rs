//! Wills (sections 3.1.2.5, 3.1.3.2 and 3.14.4).

use crate::broker::{Broker, clock};
use crate::bytes::{Connect, Properties, Publish, Value, Will, property, user};
use crate::client::Client;

/// Somebody who sees what is published to "will" with its flags as published, and may publish.
fn observer(broker: &Broker) -> Client {
    let mut observer = Client::v5(broker, "observer");
    observer.subscribe("will", 2 | 8);
    observer
}

fn delayed(seconds: u32) -> Will {
    Will { properties: vec![(property::WILL_DELAY, Value::Four(seconds))], ..Will::new("will", "last words") }
}

/// That no will was published so far: the next message is this one.
fn expect_no_will(observer: &mut Client) {
    observer.publish(&Publish::new("will", "no will"));
    observer.expect("no will");
}

/// [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-9] [MQTT-3.1.2-10] [MQTT-3.1.2-14] [MQTT-3.1.2-15]
#[test]
fn a_will_is_published_once_as_given_when_the_network_fails() {
    let broker = Broker::start();
    let mut observer = observer(&broker);
    for qos in 0..3 {
        for retain in [false, true] {
            let will = Will { qos, retain, ..Will::new("will", "last words") };
            Client::connect(&broker, &Connect::v5("mortal").will(will)).fail();
            let words = observer.take("last words");
            assert_eq!((words.qos, words.retain), (qos, retain));
            let mut late = Client::v5(&broker, "late");
            late.subscribe("will", 0);
            if retain {
                assert!(late.expect("last words").retain);
                observer.publish(&Publish::new("will", "").retain());
                observer.expect("");
            } else {
                late.expect_nothing();
            }
            late.disconnect();
            expect_no_will(&mut observer);
        }
    }
}

/// [MQTT-3.14.4-3] [MQTT-3.1.2-10]
#[test]
fn a_normal_disconnect_discards_the_will_and_reason_4_does_not() {
    let broker = Broker::start();
    let mut observer = observer(&broker);
    let connect = Connect::v5("leaving").will(Will::new("will", "last words"));
    Client::connect(&broker, &connect).disconnect();
    expect_no_will(&mut observer);
    Client::connect(&broker, &connect).disconnect_with(4, &[]);
    observer.expect("last words");
}

/// A client that breaks the protocol or falls silent has ended badly.
#[test]
fn a_will_is_published_when_the_broker_ends_the_connection() {
    let broker = Broker::start();
    let mut observer = observer(&broker);
    let connect = Connect::v5("breaking").will(Will::new("will", "last words"));
    let mut client = Client::connect(&broker, &connect);
    client.send(&[0x00, 0x00]);
    client.expect_disconnect(0x81);
    observer.expect("last words");
    let mut client = Client::connect(&broker, &Connect { keep_alive: 1, ..connect });
    client.wait_for_end();
    observer.expect("last words");
}

/// [MQTT-3.1.2-8]: a takeover closes the connection too.
#[test]
fn a_takeover_publishes_the_will_of_the_old_connection() {
    let broker = Broker::start();
    let mut observer = observer(&broker);
    let connect = Connect::v5("taken").will(Will::new("will", "last words"));
    let mut old = Client::connect(&broker, &connect);
    let new = Client::v5(&broker, "taken");
    old.expect_disconnect(0x8e);
    observer.expect("last words");
    new.fail();
    expect_no_will(&mut observer);
}

/// [MQTT-3.1.2-8]
#[test]
fn a_will_waits_for_its_delay() {
    let broker = Broker::start();
    let mut observer = observer(&broker);
    let connect = Connect::durable("delaying").will(delayed(1));
    Client::connect(&broker, &connect).fail();
    let ended = clock();
    expect_no_will(&mut observer);
    observer.expect("last words");
    let waited = ended.elapsed().as_millis();
    assert!((900..=2_000).contains(&waited), "published after {waited} ms, due after 1,000");
}

/// [MQTT-3.1.3-9]
#[test]
fn a_client_that_is_back_within_the_delay_has_no_will_published() {
    let broker = Broker::start();
    let mut observer = observer(&broker);
    Client::connect(&broker, &Connect::durable("back").will(delayed(1))).fail();
    let back = Client::connect(&broker, &Connect::durable("back"));
    assert!(back.present);
    let waiting = clock();
    while waiting.elapsed().as_millis() < 1_800 {
        expect_no_will(&mut observer);
    }
}

/// [MQTT-3.1.2-8]: whichever is first, the delay or the end of the session.
#[test]
fn the_end_of_the_session_publishes_the_will_before_its_delay() {
    let broker = Broker::start();
    let mut observer = observer(&broker);
    // The session ends with the connection.
    Client::connect(&broker, &Connect::v5("none").will(delayed(600))).fail();
    observer.expect("last words");
    // It ends a second later.
    let second = Connect::v5("second").with(property::SESSION_EXPIRY, Value::Four(1)).will(delayed(600));
    Client::connect(&broker, &second).fail();
    let ended = clock();
    expect_no_will(&mut observer);
    observer.expect("last words");
    let waited = ended.elapsed().as_millis();
    assert!((900..=2_000).contains(&waited), "published after {waited} ms, due after 1,000");
    // A clean start ends it.
    Client::connect(&broker, &Connect::durable("discarded").will(delayed(600))).fail();
    expect_no_will(&mut observer);
    assert!(!Client::v5(&broker, "discarded").present);
    observer.expect("last words");
}

/// [MQTT-3.1.3-10]
#[test]
fn the_properties_of_a_will_are_published_with_it_and_in_order() {
    let broker = Broker::start();
    let mut observer = observer(&broker);
    let mut list: Properties = vec![
        user("z", "1"),
        (property::CONTENT_TYPE, "text/plain".into()),
        user("a", "2"),
        (property::PAYLOAD_FORMAT, Value::Byte(1)),
        (property::RESPONSE_TOPIC, "answers".into()),
        (property::CORRELATION_DATA, Value::Binary(vec![1, 0, 2])),
        user("z", "1"),
    ];
    let mut with_hop = list.clone();
    with_hop.insert(1, (property::WILL_DELAY, Value::Four(0)));
    with_hop.insert(4, (property::MESSAGE_EXPIRY, Value::Four(500)));
    let will = Will { properties: with_hop, ..Will::new("will", "last words") };
    Client::connect(&broker, &Connect::v5("rich").will(will)).fail();
    let mut words = observer.expect("last words");
    // The expiry counts from the publication; the delay is no property of a PUBLISH.
    let expiry = words.property(property::MESSAGE_EXPIRY).cloned();
    assert!(matches!(expiry, Some(Value::Four(499..=500))), "{expiry:?}");
    words.properties.retain(|entry| entry.0 != property::MESSAGE_EXPIRY);
    // Among each other only user properties have an order; a stable sort keeps it.
    words.properties.sort_by_key(|entry| entry.0);
    list.sort_by_key(|entry| entry.0);
    assert_eq!(words.properties, list);
}
