//! CONNECT and CONNACK of MQTT 5 (sections 3.1 and 3.2), without wills and sessions.

use crate::broker::Broker;
use crate::bytes::{self, Connect, PINGREQ, Packet, Publish, Value, Will, property};
use crate::client::Client;

/// Sends bytes as the first of a connection that speaks MQTT 5.
fn opened(broker: &Broker, bytes: &[u8]) -> Client {
    let mut client = Client::open(broker, 5);
    client.send(bytes);
    client
}

/// [MQTT-3.1.0-1] [MQTT-3.14.0-1]
#[test]
fn a_connection_that_does_not_begin_with_connect_is_closed_without_a_word() {
    let broker = Broker::start();
    let publish = Publish::new("a", "x").bytes(5);
    for first in [PINGREQ, &publish, &bytes::subscribe(5, 1, 0, &[("a", 0)]), &[0xe0, 0]] {
        opened(&broker, first).expect_close();
    }
}

/// [MQTT-3.1.0-2] [MQTT-4.13.1-1]
#[test]
fn a_second_connect_is_a_protocol_error() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "twice");
    client.send(&Connect::v5("twice").bytes());
    client.expect_disconnect(0x82);
}

/// [MQTT-3.1.2-1]
#[test]
fn another_protocol_name_is_closed() {
    let broker = Broker::start();
    let connect = Connect::v5("name").bytes();
    let mut client = opened(&broker, &[&connect[..4], b"HTTP", &connect[8..]].concat());
    match client.receive_end() {
        None => {}
        Some(Packet::Connack { reason: 0x84, present: false, .. }) => client.expect_close(),
        other => panic!("a close, perhaps after CONNACK with 0x84, expected, not {other:?}"),
    }
}

/// [MQTT-3.1.2-2] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-4.13.2-1]
#[test]
fn an_unknown_protocol_version_is_told_so() {
    let broker = Broker::start();
    for level in [6, 9, 255] {
        opened(&broker, &Connect { level, ..Connect::v5("version") }.bytes()).expect_refused(0x84);
    }
}

/// [MQTT-3.1.2-3] [MQTT-3.1.4-1]
#[test]
fn the_reserved_connect_flag_has_to_be_0() {
    let broker = Broker::start();
    let connect = Connect::v5("reserved");
    opened(&broker, &connect.bytes_with_flags(connect.flags() | 1)).expect_refused(0x81);
}

/// [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13]
#[test]
fn will_flags_have_to_fit_the_payload_and_each_other() {
    let broker = Broker::start();
    let plain = Connect::v5("will-flags");
    let will = plain.clone().will(Will::new("will", "x"));
    for bytes in [
        plain.bytes_with_flags(plain.flags() | 1 << 3),
        plain.bytes_with_flags(plain.flags() | 1 << 5),
        plain.bytes_with_flags(plain.flags() | 1 << 2),
        will.bytes_with_flags(plain.flags()),
        will.bytes_with_flags(will.flags() | 3 << 3),
    ] {
        opened(&broker, &bytes).expect_refused(0x81);
    }
}

/// [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-1]
#[test]
fn user_name_and_password_flags_have_to_fit_the_payload() {
    let broker = Broker::start();
    let plain = Connect::v5("credentials");
    let named = Connect { username: Some("name"), ..plain.clone() };
    let full = Connect { password: Some("word"), ..named.clone() };
    for bytes in [
        plain.bytes_with_flags(plain.flags() | 1 << 7),
        plain.bytes_with_flags(plain.flags() | 1 << 6),
        named.bytes_with_flags(plain.flags()),
        named.bytes_with_flags(full.flags()),
        full.bytes_with_flags(named.flags()),
    ] {
        opened(&broker, &bytes).expect_refused(0x81);
    }
}

#[test]
fn a_password_without_a_user_name_is_well_formed() {
    let broker = Broker::start();
    Client::connect(&broker, &Connect { password: Some("word"), ..Connect::v5("password") }).expect_nothing();
}

/// [MQTT-3.1.3-3]
#[test]
fn a_connect_without_a_client_identifier_is_malformed() {
    let broker = Broker::start();
    let connect = bytes::packet(0x10, &[&bytes::text("MQTT")[..], &[5, 2, 0, 0, 0]].concat());
    opened(&broker, &connect).expect_refused(0x81);
}

/// [MQTT-3.1.3-4] [MQTT-3.1.3-8] [MQTT-3.1.3-11] [MQTT-3.1.3-12] [MQTT-1.5.4-1] [MQTT-1.5.4-2]
#[test]
fn strings_of_a_connect_have_to_be_utf_8_without_null() {
    let broker = Broker::start();
    let connect = Connect { username: Some("USER"), ..Connect::v5("CLIENT") }.will(Will::new("WILL", "x"));
    let good = connect.bytes();
    for field in ["CLIENT", "WILL", "USER"] {
        let place = good.windows(field.len()).position(|window| window == field.as_bytes());
        let place = place.expect("the field is in the packet");
        for bad in [&b"\xed\xa0\x80"[..], &b"a\0b"[..], &b"\xff\xfe\xfd"[..]] {
            let mut bytes = good.clone();
            bytes[place..place + 3].copy_from_slice(bad);
            let mut client = opened(&broker, &bytes);
            match client.receive_end() {
                None => {}
                Some(Packet::Connack { reason: 0x81 | 0x85 | 0x90, present: false, .. }) => {
                    client.expect_close()
                }
                other => panic!("{field} with {bad:?}: a refusal expected, not {other:?}"),
            }
        }
    }
}

/// [MQTT-3.1.3-5]
#[test]
fn identifiers_of_1_to_23_letters_and_digits_are_taken() {
    let broker = Broker::start();
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for id in ["a", &all[..23], &all[23..46], &all[39..]] {
        Client::v5(&broker, id).disconnect();
    }
}

/// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]
#[test]
fn a_client_without_identifier_is_assigned_one_that_names_its_session() {
    let broker = Broker::start();
    let nameless = Connect::v5("").with(property::SESSION_EXPIRY, Value::Four(600));
    let assigned = |client: &Client| match bytes::find(&client.connack, property::ASSIGNED_CLIENT_ID) {
        Some(Value::Text(id)) if !id.is_empty() => id.clone(),
        other => panic!("an assigned identifier expected, not {other:?}"),
    };
    let first = Client::connect(&broker, &nameless);
    let second = Client::connect(&broker, &nameless);
    let id = assigned(&first);
    assert_ne!(id, assigned(&second));
    first.disconnect();
    let again = Client::connect(&broker, &Connect::durable(&id));
    assert!(again.present);
    assert_eq!(bytes::find(&again.connack, property::ASSIGNED_CLIENT_ID), None);
}

/// [MQTT-3.1.4-3] [MQTT-3.1.4-4] [MQTT-3.1.4-5] [MQTT-3.14.4-1] [MQTT-3.14.4-2]
#[test]
fn a_newcomer_takes_the_session_and_the_old_connection_is_told() {
    let broker = Broker::start();
    let mut old = Client::connect(&broker, &Connect::durable("taken"));
    assert_eq!(old.subscribe("taken", 1), 1);
    let mut new = Client::connect(&broker, &Connect::durable("taken"));
    assert!(new.present);
    old.expect_disconnect(0x8e);
    Client::v5(&broker, "other").publish_acknowledged(Publish::new("taken", "to the new one"));
    new.take("to the new one");
    let clean = Client::v5(&broker, "taken");
    assert!(!clean.present);
    new.expect_disconnect(0x8e);
}

/// [MQTT-3.2.0-1] [MQTT-3.2.0-2] [MQTT-3.2.2-1]
#[test]
fn what_follows_connect_in_the_same_bytes_is_answered_after_the_only_connack() {
    let broker = Broker::start();
    let connect = Connect::v5("at once").bytes();
    let subscribe = bytes::subscribe(5, 7, 0, &[("at/once", 1)]);
    let publish = Publish::new("at/once", "early").qos(1, 8).bytes(5);
    let mut client = opened(&broker, &[&connect, &subscribe, &publish, PINGREQ].concat());
    client.expect_accepted();
    // The order of the answers to different packets is free.
    let mut answers = [client.receive_other(), client.receive_other(), client.receive_other()];
    answers.sort_by_key(|answer| match answer {
        Packet::Suback { id: 7, .. } => 0,
        Packet::Ack { .. } => 1,
        _ => 2,
    });
    assert!(matches!(answers[0], Packet::Suback { id: 7, .. }), "{answers:?}");
    assert_eq!(answers[1..], [bytes::success(4, 8), Packet::Pingresp]);
    client.take("early");
    client.expect_nothing();
}

/// A packet may come byte by byte.
#[test]
fn a_connect_in_single_bytes_is_taken() {
    let broker = Broker::start();
    let mut client = Client::open(&broker, 5);
    for byte in Connect::v5("slow").bytes() {
        client.send(&[byte]);
    }
    client.expect_accepted();
    client.expect_nothing();
}

/// [MQTT-4.12.0-1] [MQTT-4.12.0-4] [MQTT-3.1.4-2] [MQTT-3.1.4-6]
#[test]
fn an_unknown_authentication_method_is_refused_and_what_follows_is_ignored() {
    let broker = Broker::start();
    let mut observer = Client::v5(&broker, "observer");
    observer.subscribe("#", 0);
    let connect = Connect::v5("method").with(property::AUTHENTICATION_METHOD, "unknown".into()).bytes();
    let publish = Publish::new("a", "from a refused client").bytes(5);
    let mut client = opened(&broker, &[connect, publish].concat());
    client.expect_refused(0x8c);
    observer.publish(&Publish::new("a", "from the observer"));
    observer.expect("from the observer");
}

/// [MQTT-4.12.0-6] [MQTT-3.1.2-28]
#[test]
fn what_was_not_asked_for_is_not_in_the_connack() {
    let broker = Broker::start();
    for request in [None, Some(0)] {
        let mut connect = Connect::v5("modest");
        connect
            .properties
            .extend(request.map(|no| (property::REQUEST_RESPONSE_INFORMATION, Value::Byte(no))));
        let client = Client::connect(&broker, &connect);
        assert_eq!(bytes::find(&client.connack, property::AUTHENTICATION_METHOD), None);
        assert_eq!(bytes::find(&client.connack, property::RESPONSE_INFORMATION), None);
    }
}

#[test]
fn properties_of_connect_with_bad_values_are_refused() {
    let broker = Broker::start();
    for (identifier, value) in [
        (property::RECEIVE_MAXIMUM, Value::Two(0)),
        (property::PACKET_SIZE, Value::Four(0)),
        (property::PROBLEM_INFORMATION, Value::Byte(2)),
        (property::REQUEST_RESPONSE_INFORMATION, Value::Byte(2)),
    ] {
        opened(&broker, &Connect::v5("values").with(identifier, value).bytes()).expect_refused(0x82);
    }
    let twice = Connect::durable("twice").with(property::SESSION_EXPIRY, Value::Four(1));
    opened(&broker, &twice.bytes()).expect_refused(0x82);
    let foreign = Connect::v5("foreign").with(property::TOPIC_ALIAS, Value::Two(1));
    let mut client = opened(&broker, &foreign.bytes());
    match client.receive_end() {
        Some(Packet::Connack { reason: 0x81 | 0x82, .. }) => client.expect_close(),
        other => panic!("a refusal expected, not {other:?}"),
    }
}
