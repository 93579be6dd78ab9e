//! Packets that break the format or the protocol: the reason that is said before the close (sections 1.5, 2.1, 4.13
//! and the rules of each packet).

use crate::broker::Broker;
use crate::bytes::{
    Packet, Properties, Publish, Value, ack, binary, packet, property, subscribe, text, unsubscribe, user,
};
use crate::client::Client;

/// Connects for each case, sends its bytes, and wants DISCONNECT with one of the reasons, then the close
/// `[MQTT-4.13.1-1]` `[MQTT-4.13.2-1]`.
fn refused(cases: &[(&str, &[u8], Vec<u8>)]) {
    let broker = Broker::start();
    for (what, reasons, bytes) in cases {
        let mut client = Client::v5(&broker, "bad");
        client.send(bytes);
        match client.receive_end() {
            Some(Packet::Disconnect { reason, .. }) => {
                assert!(reasons.contains(&reason), "{what}: reason {reason:#04x} instead of {reasons:x?}");
            }
            other => panic!("{what}: DISCONNECT with one of {reasons:x?} expected, not {other:?}"),
        }
        client.expect_close();
    }
    // The broker itself is none the worse.
    Client::v5(&broker, "good").expect_nothing();
}

/// A PUBLISH at QoS 0 to "a" with these properties.
fn with(list: Properties) -> Vec<u8> {
    Publish { properties: list, ..Publish::new("a", "x") }.bytes(5)
}

/// [MQTT-2.1.3-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.6.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
#[test]
fn reserved_bits_of_the_first_byte_are_checked_on_every_packet() {
    let malformed: &[u8] = &[0x81];
    refused(&[
        ("type 0", &[0x81, 0x82], packet(0x00, &[])),
        ("SUBSCRIBE 0000", malformed, [&[0x80], &subscribe(5, 1, 0, &[("a", 0)])[1..]].concat()),
        ("SUBSCRIBE 0011", malformed, [&[0x83], &subscribe(5, 1, 0, &[("a", 0)])[1..]].concat()),
        ("UNSUBSCRIBE 0000", malformed, [&[0xa0], &unsubscribe(5, 1, &["a"])[1..]].concat()),
        ("PUBACK 0001", malformed, packet(0x41, &[0, 1])),
        ("PUBREC 0010", malformed, packet(0x52, &[0, 1])),
        ("PUBREL 0000", malformed, packet(0x60, &[0, 1])),
        ("PUBCOMP 1000", malformed, packet(0x78, &[0, 1])),
        ("PINGREQ 0001", malformed, packet(0xc1, &[])),
        ("DISCONNECT 0001", malformed, packet(0xe1, &[])),
        ("AUTH 0001", malformed, packet(0xf1, &[0x19, 0])),
    ]);
}

/// [MQTT-1.5.5-1]
#[test]
fn lengths_have_to_be_the_shortest_and_at_most_four_bytes() {
    refused(&[
        ("PINGREQ with a length of two bytes", &[0x81], vec![0xc0, 0x80, 0x00]),
        ("a remaining length of five bytes", &[0x81], vec![0x30, 0x80, 0x80, 0x80, 0x80, 0x01]),
        ("a property length of two bytes", &[0x81], packet(0x30, &[&text("a")[..], &[0x80, 0x00]].concat())),
        ("a property length beyond the packet", &[0x81], packet(0x30, &[&text("a")[..], &[9, 1]].concat())),
        ("a topic beyond the packet", &[0x81], packet(0x30, &[0, 9, b'a'])),
        ("PINGREQ with a body", &[0x81], packet(0xc0, &[0])),
        ("PUBACK with one byte", &[0x81], packet(0x40, &[1])),
    ]);
}

/// [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.7-1] [MQTT-3.3.2-1] [MQTT-3.3.2-13] [MQTT-3.3.2-19] [MQTT-3.8.3-1]
/// [MQTT-3.10.3-1] [MQTT-4.7.3-2]
#[test]
fn strings_have_to_be_utf_8_without_null() {
    let mut cases: Vec<(&str, &[u8], Vec<u8>)> = Vec::new();
    for bad in [&b"\xed\xa0\x80"[..], b"\xed\xbf\xbf", b"\xc0\x80", b"\xff", b"a\0b", b"\xf4\x90\x80\x80"] {
        let bad = binary(bad);
        let in_property = |head: &[u8]| {
            let list = [head, &bad].concat();
            let length = u8::try_from(list.len()).expect("a short list");
            packet(0x30, &[&text("a")[..], &[length], &list].concat())
        };
        cases.push(("a topic", &[0x81, 0x82, 0x90], packet(0x30, &[&bad[..], &[0]].concat())));
        cases.push(("a filter", &[0x81, 0x82, 0x8f], packet(0x82, &[&[0, 1, 0], &bad[..], &[0]].concat())));
        cases.push((
            "a filter to leave",
            &[0x81, 0x82, 0x8f],
            packet(0xa2, &[&[0, 1, 0], &bad[..]].concat()),
        ));
        cases.push(("a content type", &[0x81, 0x82], in_property(&[property::CONTENT_TYPE])));
        cases.push(("a response topic", &[0x81, 0x82, 0x90], in_property(&[property::RESPONSE_TOPIC])));
        cases.push((
            "a user property",
            &[0x81, 0x82],
            in_property(&[&[property::USER][..], &text("n")].concat()),
        ));
    }
    refused(&cases);
}

/// [MQTT-3.3.1-2] [MQTT-3.3.1-4] [MQTT-2.2.1-3] [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT-4.7.3-1]
#[test]
fn a_publish_has_a_legal_first_byte_topic_and_identifier() {
    refused(&[
        ("QoS 3", &[0x81], packet(0x36, &[&text("a")[..], &[0, 1, 0]].concat())),
        ("DUP at QoS 0", &[0x81, 0x82], Publish::new("a", "x").dup().bytes(5)),
        ("packet identifier 0", &[0x81, 0x82], Publish::new("a", "x").qos(1, 0).bytes(5)),
        ("no topic and no alias", &[0x82], Publish::new("", "x").bytes(5)),
        ("+ in the topic", &[0x81, 0x82, 0x90], Publish::new("a/+", "x").bytes(5)),
        ("# in the topic", &[0x81, 0x82, 0x90], Publish::new("#", "x").bytes(5)),
    ]);
}

/// [MQTT-3.3.4-6] [MQTT-3.3.2-8] [MQTT-3.3.2-9] [MQTT-3.3.2-14] [MQTT-3.2.2-17]
#[test]
fn a_publish_has_legal_properties() {
    let not_allowed: &[u8] = &[0x81, 0x82];
    refused(&[
        ("a subscription identifier", &[0x82], with(vec![(property::SUBSCRIPTION_ID, Value::Variable(1))])),
        ("alias 0", &[0x94], with(vec![(property::TOPIC_ALIAS, Value::Two(0))])),
        ("an alias beyond the maximum", &[0x94], with(vec![(property::TOPIC_ALIAS, Value::Two(65_535))])),
        (
            "an alias that stands for nothing",
            &[0x82, 0x94],
            Publish::new("", "x").with(property::TOPIC_ALIAS, Value::Two(1)).bytes(5),
        ),
        (
            "a response topic with +",
            &[0x81, 0x82, 0x90],
            with(vec![(property::RESPONSE_TOPIC, "a/+".into())]),
        ),
        ("a response topic with #", &[0x81, 0x82, 0x90], with(vec![(property::RESPONSE_TOPIC, "#".into())])),
        ("two content types", &[0x82], with(vec![(property::CONTENT_TYPE, "a".into()); 2])),
        ("payload format 2", not_allowed, with(vec![(property::PAYLOAD_FORMAT, Value::Byte(2))])),
        ("a property of CONNECT", not_allowed, with(vec![(property::WILL_DELAY, Value::Four(1))])),
        ("a property that does not exist", not_allowed, with(vec![(0x7f, Value::Byte(1))])),
    ]);
}

/// [MQTT-3.8.3-2] [MQTT-3.8.3-4] [MQTT-3.8.3-5] [MQTT-3.10.3-2]
#[test]
fn a_subscribe_has_filters_and_legal_options() {
    let subscribe = |filter, options| subscribe(5, 1, 0, &[(filter, options)]);
    refused(&[
        ("no filter", &[0x81, 0x82], packet(0x82, &[0, 1, 0])),
        ("no filter to leave", &[0x81, 0x82], packet(0xa2, &[0, 1, 0])),
        ("a filter without options", &[0x81], packet(0x82, &[&[0, 1, 0], &text("a")[..]].concat())),
        ("QoS 3", &[0x81, 0x82], subscribe("a", 3)),
        ("retain handling 3", &[0x81, 0x82], subscribe("a", 0x30)),
        ("reserved bit 6", &[0x81], subscribe("a", 0x40)),
        ("reserved bit 7", &[0x81], subscribe("a", 0x80)),
        ("no-local on a shared subscription", &[0x82], subscribe("$share/g/a", 4)),
        ("packet identifier 0", &[0x81, 0x82], packet(0x82, &[&[0, 0, 0], &text("a")[..], &[0]].concat())),
        (
            "subscription identifier 0",
            &[0x82],
            packet(0x82, &[&[0, 1, 2, property::SUBSCRIPTION_ID, 0], &text("a")[..], &[0]].concat()),
        ),
    ]);
}

#[test]
fn packets_that_only_a_server_sends_are_a_protocol_error() {
    let wrong: &[u8] = &[0x81, 0x82];
    refused(&[
        ("CONNACK", wrong, packet(0x20, &[0, 0, 0])),
        ("SUBACK", wrong, packet(0x90, &[0, 1, 0, 0])),
        ("UNSUBACK", wrong, packet(0xb0, &[0, 1, 0, 0])),
        ("PINGRESP", wrong, packet(0xd0, &[])),
    ]);
}

/// [MQTT-4.12.0-7]: without a method there is nothing to authenticate by.
#[test]
fn auth_without_a_method_in_connect_is_a_protocol_error() {
    refused(&[(
        "AUTH",
        &[0x82],
        packet(0xf0, &[&[0x19, 5, property::AUTHENTICATION_METHOD][..], &text("m!")].concat()),
    )]);
}

/// [MQTT-3.14.2-1]: a reason that does not exist; and an expiry that cannot come back once it was 0.
#[test]
fn a_disconnect_has_a_legal_reason_and_expiry() {
    let expiry = [&[0, 5, property::SESSION_EXPIRY][..], &60_u32.to_be_bytes()].concat();
    refused(&[
        ("an unknown reason", &[0x81, 0x82], packet(0xe0, &[0x42])),
        ("an expiry after none", &[0x82], packet(0xe0, &expiry)),
    ]);
}

/// Acknowledgements of what was never sent: only PUBREC and PUBREL are answered, with 0x92.
#[test]
fn acknowledgements_of_nothing_are_harmless() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "lost");
    for (kind, answer) in [(5, 6), (6, 7)] {
        client.send(&ack(kind, 77));
        let not_found = Packet::Ack { kind: answer, id: 77, reason: 0x92, properties: Vec::new() };
        match client.receive() {
            Packet::Ack { kind, id, reason, .. } => {
                assert_eq!(Packet::Ack { kind, id, reason, properties: Vec::new() }, not_found);
            }
            other => panic!("{not_found:?} expected, not {other:?}"),
        }
    }
    client.send(&[ack(4, 77), ack(7, 77)].concat());
    client.expect_nothing();
}

/// [MQTT-1.5.7-1] as it should be: anything that is UTF-8 passes.
#[test]
fn user_properties_may_hold_any_character() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "any");
    client.subscribe("any", 0);
    let list = vec![user("", ""), user("\u{feff}name", "🦀\u{10fffd}")];
    client.publish(&Publish { properties: list.clone(), ..Publish::new("any", "x") });
    assert_eq!(client.expect("x").properties, list);
}
