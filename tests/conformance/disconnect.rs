//! DISCONNECT, PINGREQ and the end of connections (sections 3.12 to 3.14).

use crate::broker::Broker;
use crate::bytes::{PINGREQ, Packet, Publish, packet};
use crate::client::Client;

/// [MQTT-3.12.4-1]
#[test]
fn every_pingreq_is_answered() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "ping");
    client.send(&PINGREQ.repeat(5));
    for _ in 0..5 {
        assert_eq!(client.receive(), Packet::Pingresp);
    }
    client.expect_nothing();
}

/// A DISCONNECT may leave out its reason, or its properties, or nothing.
#[test]
fn every_form_of_disconnect_ends_the_connection_without_an_answer() {
    let broker = Broker::start();
    for body in [&[][..], &[0], &[4], &[0x80], &[0, 0]] {
        let mut client = Client::v5(&broker, "leaving");
        client.send(&packet(0xe0, body));
        client.expect_close();
    }
}

/// Nothing after a DISCONNECT is processed.
#[test]
fn what_follows_a_disconnect_is_not_processed() {
    let broker = Broker::start();
    let mut observer = Client::v5(&broker, "observer");
    observer.subscribe("after", 0);
    let mut client = Client::v5(&broker, "talker");
    let after = Publish::new("after", "too late").bytes(5);
    client.send(&[&[0xe0, 0], &after[..]].concat());
    client.expect_close();
    observer.publish(&Publish::new("after", "in time"));
    observer.expect("in time");
}

/// [MQTT-3.14.2-1] [MQTT-3.14.2-2] [MQTT-3.14.4-1] [MQTT-3.14.4-2]: the decoder knows the reasons a server may give.
#[test]
fn a_broker_that_disconnects_says_why_and_nothing_more() {
    let broker = Broker::start();
    let mut observer = Client::v5(&broker, "observer");
    observer.subscribe("flood", 0);
    let mut client = Client::v5(&broker, "wrong");
    let (before, after) = (Publish::new("flood", "before").bytes(5), Publish::new("flood", "after").bytes(5));
    client.send(&[before.repeat(3), packet(0x00, &[]), after].concat());
    client.expect_disconnect(0x81);
    for _ in 0..3 {
        observer.expect("before");
    }
    observer.publish(&Publish::new("flood", "by the observer"));
    observer.expect("by the observer");
}

/// [MQTT-3.14.2-1] for the other direction: a reason that only a server may give ends the connection all the same.
#[test]
fn a_disconnect_with_a_reason_of_servers_is_the_end_too() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "confused");
    client.send(&packet(0xe0, &[0x8e]));
    client.wait_for_end();
}
