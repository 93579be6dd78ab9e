//! MQTT 3.1.1 where it differs from 5: CONNECT, no reasons, no session expiry. Statements are cited with the version in front.

use crate::broker::Broker;
use crate::bytes::{self, Connect, PINGREQ, Publish, Will, ack, packet, success, text};
use crate::client::Client;

fn opened(broker: &Broker, bytes: &[u8]) -> Client {
    let mut client = Client::open(broker, 4);
    client.send(bytes);
    client
}

/// A client that sends these bytes after CONNECT is disconnected without a word.
fn closed(broker: &Broker, what: &str, bytes: &[u8]) {
    let mut client = Client::connect(broker, &Connect::v3("bad"));
    client.send(bytes);
    let end = client.receive_end();
    assert_eq!(end, None, "{what}: a close without an answer expected");
}

/// [MQTT-3.1.1 3.1.0-1] [MQTT-3.1.1 3.1.0-2] [MQTT-3.1.1 4.8.0-1]
#[test]
fn connect_comes_first_and_once() {
    let broker = Broker::start();
    opened(&broker, PINGREQ).expect_close();
    closed(&broker, "a second CONNECT", &Connect::v3("bad").bytes());
}

/// [MQTT-3.1.1 3.1.2-2] [MQTT-3.1.1 3.2.2-4] [MQTT-3.1.1 3.2.2-5]
#[test]
fn protocol_levels_below_4_with_the_new_name_are_refused() {
    let broker = Broker::start();
    for level in [0, 1, 2] {
        let mut client = opened(&broker, &Connect { level, ..Connect::v3("level") }.bytes());
        client.expect_refused(1);
    }
}

/// MQTT 3.1, which old clients still speak.
#[test]
fn the_older_protocol_name_and_level_are_taken() {
    let broker = Broker::start();
    let body = [&text("MQIsdp")[..], &[3, 2, 0, 0], &text("old")].concat();
    let mut client = opened(&broker, &packet(0x10, &body));
    client.expect_accepted();
    client.subscribe("old", 1);
    client.publish(&Publish::new("old", "x").qos(1, 7));
    client.take("x");
    assert_eq!(client.receive(), success(4, 7));
}

/// [MQTT-3.1.1 3.2.2-6] [MQTT-3.1.1 3.1.2-3] [MQTT-3.1.1 3.1.2-11] [MQTT-3.1.1 3.1.2-13] [MQTT-3.1.1 3.1.2-14] [MQTT-3.1.1 3.1.2-15]
/// [MQTT-3.1.1 3.1.2-18] [MQTT-3.1.1 3.1.2-19] [MQTT-3.1.1 3.1.2-20] [MQTT-3.1.1 3.1.2-21] [MQTT-3.1.1 3.1.2-22]
/// [MQTT-3.1.1 3.1.4-1]
#[test]
fn flags_that_do_not_fit_close_the_connection_without_connack() {
    let broker = Broker::start();
    let plain = Connect::v3("flags");
    let will = plain.clone().will(Will::new("will", "x"));
    let nameless = Connect { password: Some("word"), ..plain.clone() };
    for bytes in [
        plain.bytes_with_flags(plain.flags() | 1),
        plain.bytes_with_flags(plain.flags() | 1 << 2),
        plain.bytes_with_flags(plain.flags() | 1 << 3),
        plain.bytes_with_flags(plain.flags() | 1 << 5),
        plain.bytes_with_flags(plain.flags() | 1 << 7),
        will.bytes_with_flags(plain.flags()),
        will.bytes_with_flags(will.flags() | 3 << 3),
        nameless.bytes(),
    ] {
        opened(&broker, &bytes).expect_close();
    }
}

/// [MQTT-3.1.1 3.1.3-6] [MQTT-3.1.1 3.1.3-7] [MQTT-3.1.1 3.1.3-8]
#[test]
fn a_client_without_identifier_needs_a_clean_session() {
    let broker = Broker::start();
    opened(&broker, &Connect::v3("").resume().bytes()).expect_refused(2);
    let mut one = Client::connect(&broker, &Connect::v3(""));
    let mut other = Client::connect(&broker, &Connect::v3(""));
    one.expect_nothing();
    other.expect_nothing();
}

/// [MQTT-3.1.1 3.1.2-4] [MQTT-3.1.1 3.1.2-5] [MQTT-3.1.1 3.1.2-6] [MQTT-3.1.1 3.2.2-1] [MQTT-3.1.1 3.2.2-2]
/// [MQTT-3.1.1 3.2.2-3] [MQTT-3.1.1 3.1.3-2]
#[test]
fn a_session_that_is_not_clean_is_kept_until_one_is() {
    let broker = Broker::start();
    let connect = Connect::v3("kept").resume();
    let mut client = Client::connect(&broker, &connect);
    assert!(!client.present);
    client.subscribe("kept", 2);
    client.disconnect();
    let mut other = Client::connect(&broker, &Connect::v3("other"));
    other.publish_acknowledged(Publish::new("kept", "one"));
    other.publish_exactly_once(Publish::new("kept", "two"));
    let mut client = Client::connect(&broker, &connect);
    assert!(client.present);
    assert_eq!([client.take("one").qos, client.take("two").qos], [1, 2]);
    client.disconnect();
    let clean = Client::connect(&broker, &Connect::v3("kept"));
    assert!(!clean.present);
    clean.disconnect();
    assert!(!Client::connect(&broker, &connect).present);
}

/// [MQTT-3.1.1 3.1.4-2]
#[test]
fn a_newcomer_closes_the_old_connection() {
    let broker = Broker::start();
    let mut old = Client::connect(&broker, &Connect::v3("taken"));
    let mut new = Client::connect(&broker, &Connect::v3("taken"));
    old.expect_close();
    new.expect_nothing();
}

/// [MQTT-3.1.1 2.2.2-1] [MQTT-3.1.1 2.2.2-2] [MQTT-3.1.1 2.3.1-1] [MQTT-3.1.1 3.3.1-4] [MQTT-3.1.1 3.3.2-2]
/// [MQTT-3.1.1 3.8.1-1] [MQTT-3.1.1 3.8.3-3] [MQTT-3.1.1 3-8.3-4] [MQTT-3.1.1 3.10.1-1] [MQTT-3.1.1 3.10.3-2]
/// [MQTT-3.1.1 3.14.1-1] [MQTT-3.1.1 1.5.3-1] [MQTT-3.1.1 1.5.3-2] [MQTT-3.1.1 3.6.1-1] [MQTT-3.1.1 4.7.3-1]
#[test]
fn a_malformed_packet_closes_the_connection() {
    let broker = Broker::start();
    let subscribe = bytes::subscribe(4, 1, 0, &[("a", 0)]);
    for (what, bytes) in [
        ("QoS 3", packet(0x36, &[&text("a")[..], &[0, 1]].concat())),
        ("packet identifier 0", Publish::new("a", "x").qos(1, 0).bytes(4)),
        ("a topic with a wildcard", Publish::new("a/#", "x").bytes(4)),
        ("no topic", Publish::new("", "x").bytes(4)),
        ("a topic that is no UTF-8", packet(0x30, &[0, 1, 0xff])),
        ("a topic with null", packet(0x30, &[0, 1, 0])),
        ("SUBSCRIBE flags", [&[0x80], &subscribe[1..]].concat()),
        ("SUBSCRIBE without filters", packet(0x82, &[0, 1])),
        ("options beyond QoS", bytes::subscribe(4, 1, 0, &[("a", 4)])),
        ("a requested QoS of 3", bytes::subscribe(4, 1, 0, &[("a", 3)])),
        ("UNSUBSCRIBE flags", [&[0xa0], &bytes::unsubscribe(4, 1, &["a"])[1..]].concat()),
        ("UNSUBSCRIBE without filters", packet(0xa2, &[0, 1])),
        ("PUBREL flags", packet(0x60, &[0, 1])),
        ("DISCONNECT flags", packet(0xe1, &[])),
        ("AUTH, which 3.1.1 has not", packet(0xf0, &[])),
    ] {
        closed(&broker, what, &bytes);
    }
}

/// [MQTT-3.1.1 3.8.4-5] [MQTT-3.1.1 3.9.3-2] [MQTT-3.1.1 3.10.4-5] [MQTT-3.1.1 3.10.4-4]
#[test]
fn a_suback_has_return_codes_and_an_unsuback_has_none() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, &Connect::v3("codes"));
    assert_eq!(client.subscribe_all(0, &[("a", 2), ("a#", 1), ("b", 0)]), [2, 0x80, 0]);
    assert_eq!(client.unsubscribe(&["a", "never"]), []);
    client.expect_nothing();
}

/// [MQTT-3.1.1 4.3.2-2] [MQTT-3.1.1 4.3.3-2] [MQTT-3.1.1 4.4.0-1] [MQTT-3.1.1 3.3.1-1] [MQTT-3.1.1 2.3.1-6]
#[test]
fn the_exchanges_are_those_of_mqtt_5_without_reasons() {
    let broker = Broker::start();
    let connect = Connect::v3("exchange").resume();
    let mut client = Client::connect(&broker, &connect);
    client.subscribe("exchange", 2);
    client.publish_acknowledged(Publish::new("nobody", "x"));
    client.publish_exactly_once(Publish::new("exchange", "two"));
    let two = client.expect("two");
    client.fail();
    let mut client = Client::connect(&broker, &connect);
    assert_eq!(client.expect("two"), Publish { dup: true, ..two.clone() });
    client.send(&ack(5, two.id));
    assert_eq!(client.receive(), success(6, two.id));
    client.fail();
    let mut client = Client::connect(&broker, &connect);
    assert_eq!(client.receive(), success(6, two.id));
    client.send(&ack(7, two.id));
    client.expect_nothing();
}

/// [MQTT-3.1.1 3.1.2-8] [MQTT-3.1.1 3.1.2-10] [MQTT-3.1.1 3.1.2-12] [MQTT-3.1.1 3.14.4-3]
#[test]
fn a_will_is_published_unless_the_client_said_goodbye() {
    let broker = Broker::start();
    let mut observer = Client::connect(&broker, &Connect::v3("observer"));
    observer.subscribe("will", 1);
    let connect = Connect::v3("mortal").will(Will { qos: 1, ..Will::new("will", "last words") });
    Client::connect(&broker, &connect).disconnect();
    observer.publish(&Publish::new("will", "no will"));
    observer.expect("no will");
    Client::connect(&broker, &connect).fail();
    assert_eq!(observer.take("last words").qos, 1);
}

/// [MQTT-3.1.1 3.1.2-7] [MQTT-3.1.1 3.3.1-6] [MQTT-3.1.1 3.3.1-8] [MQTT-3.1.1 3.3.1-9] [MQTT-3.1.1 3.3.1-10] [MQTT-3.1.1 3.8.4-3]
#[test]
fn retained_messages_meet_every_subscribe_with_the_flag_and_others_come_without() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, &Connect::v3("retained"));
    client.subscribe("r", 0);
    client.publish(&Publish::new("r", "x").retain());
    assert!(!client.expect("x").retain);
    for _ in 0..2 {
        client.subscribe("r", 0);
        assert!(client.expect("x").retain);
    }
    // They outlive the session of their publisher.
    client.disconnect();
    let mut client = Client::connect(&broker, &Connect::v3("retained"));
    client.subscribe("r", 0);
    assert!(client.expect("x").retain);
    client.publish(&Publish::new("r", "").retain());
    assert!(!client.expect("").retain);
    client.subscribe("r", 0);
    client.expect_nothing();
}

/// One session, two protocols: what was queued under one is delivered under the other.
#[test]
fn a_session_may_change_its_protocol() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, &Connect::v3("both").resume());
    client.subscribe("both", 1);
    client.disconnect();
    let mut other = Client::v5(&broker, "other");
    other.publish_acknowledged(Publish::new("both", "x"));
    let mut client = Client::connect(&broker, &Connect::durable("both"));
    assert!(client.present);
    client.take("x");
    client.expect_nothing();
}
