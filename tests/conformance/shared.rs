//! Shared subscriptions (section 4.8.2).

use crate::broker::Broker;
use crate::bytes::{Connect, PINGREQ, Packet, Publish, Value, ack_with, property};
use crate::client::Client;

const SHARED: &str = "$share/group/work/+";

/// Two members of the group, at QoS 2.
fn members(broker: &Broker) -> [Client; 2] {
    ["one", "two"].map(|client_id| {
        let mut member = Client::connect(broker, &Connect::durable(client_id));
        assert_eq!(member.subscribe(SHARED, 2), 2);
        member
    })
}

/// Everything that is on its way to a client, acknowledged.
fn drain(client: &mut Client) -> Vec<String> {
    let mut found = Vec::new();
    client.send(PINGREQ);
    loop {
        match client.receive_end().expect("the connection lives") {
            Packet::Publish(publish) => {
                client.acknowledge(&publish);
                found.push(publish.text().to_owned());
            }
            Packet::Pingresp => return found,
            other => panic!("a PUBLISH or PINGRESP expected, not {other:?}"),
        }
    }
}

/// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
#[test]
fn a_share_name_is_not_empty_without_wildcards_and_followed_by_a_filter() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "names");
    for filter in
        ["$share//a", "$share/g", "$share/g/", "$share/+/a", "$share/g#/a", "$share/#", "$share/g/a#"]
    {
        assert_eq!(client.subscribe_all(0, &[(filter, 0), ("$share/g/+/#", 1)]), [0x8f, 1], "{filter}");
    }
}

/// Each message goes to one member, and every member gets some.
#[test]
fn messages_are_spread_over_the_members_and_sent_to_one_each() {
    let broker = Broker::start();
    let mut members = members(&broker);
    let mut alone = Client::v5(&broker, "alone");
    alone.subscribe("$share/second/work/#", 0);
    let mut ordinary = Client::v5(&broker, "ordinary");
    ordinary.subscribe("work/a", 0);
    let mut other = Client::v5(&broker, "other");
    for number in 0..20 {
        other.publish_acknowledged(Publish::new("work/a", &number.to_string()));
        alone.expect(&number.to_string());
        ordinary.expect(&number.to_string());
    }
    let mut found: Vec<String> = Vec::new();
    for member in &mut members {
        let part = drain(member);
        assert!(part.len() >= 5, "{part:?} is not a fair part");
        found.extend(part);
    }
    found.sort_by_key(|payload| payload.parse::<u32>().expect("a number"));
    assert_eq!(found, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// [MQTT-4.8.2-3]
#[test]
fn each_member_gets_its_messages_at_the_qos_it_was_granted() {
    let broker = Broker::start();
    let mut other = Client::v5(&broker, "other");
    for granted in 0..3 {
        let mut member = Client::v5(&broker, "member");
        member.subscribe_all(7, &[(SHARED, granted)]);
        other.publish_exactly_once(Publish::new("work/x", "x"));
        let publish = member.take("x");
        assert_eq!((publish.qos, publish.subscription_ids()), (granted, vec![7]));
        member.disconnect();
    }
}

#[test]
fn a_shared_subscription_is_not_met_with_retained_messages() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "client");
    client.publish_acknowledged(Publish::new("work/r", "retained").retain());
    client.subscribe(SHARED, 1);
    client.expect_nothing();
}

/// [MQTT-3.8.4-3] does not hold for shared ones in the text, but nothing is delivered twice.
#[test]
fn subscribing_twice_to_a_group_is_one_membership() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "twice");
    client.subscribe(SHARED, 0);
    client.subscribe(SHARED, 1);
    client.publish_acknowledged(Publish::new("work/t", "once"));
    client.take("once");
    client.expect_nothing();
    assert_eq!(client.unsubscribe(&[SHARED]), [0]);
    assert_eq!(client.unsubscribe(&[SHARED]), [0x11]);
    assert_eq!(client.publish_acknowledged(Publish::new("work/t", "nobody")), 0x10);
}

/// [MQTT-4.8.2-4]
#[test]
fn a_delivery_that_was_begun_is_completed_with_the_same_member() {
    let broker = Broker::start();
    let [mut one, two] = members(&broker);
    two.disconnect_with(0, &[(property::SESSION_EXPIRY, Value::Four(0))]);
    let mut other = Client::v5(&broker, "other");
    other.publish_exactly_once(Publish::new("work/2", "begun"));
    let begun = one.expect("begun");
    one.fail();
    let mut two = Client::connect(&broker, &Connect::durable("two"));
    two.subscribe(SHARED, 2);
    two.expect_nothing();
    let mut one = Client::connect(&broker, &Connect::durable("one"));
    let again = one.expect("begun");
    assert_eq!((again.id, again.dup), (begun.id, true));
    one.acknowledge(&again);
    two.expect_nothing();
}

/// [MQTT-4.8.2-5]
#[test]
fn a_message_of_qos_2_that_was_begun_ends_with_its_members_session() {
    let broker = Broker::start();
    let [mut one, two] = members(&broker);
    two.disconnect_with(0, &[(property::SESSION_EXPIRY, Value::Four(0))]);
    let mut other = Client::v5(&broker, "other");
    other.publish_exactly_once(Publish::new("work/2", "begun"));
    one.expect("begun");
    let mut two = Client::connect(&broker, &Connect::durable("two"));
    two.subscribe(SHARED, 2);
    one.disconnect_with(0, &[(property::SESSION_EXPIRY, Value::Four(0))]);
    other.publish_exactly_once(Publish::new("work/2", "next"));
    two.take("next");
    two.expect_nothing();
}

/// Section 4.8.2: unacknowledged messages of QoS 1 go to another member when a session ends.
#[test]
fn a_message_of_qos_1_goes_to_another_member_when_the_session_of_the_first_ends() {
    let broker = Broker::start();
    let [mut one, two] = members(&broker);
    two.disconnect_with(0, &[(property::SESSION_EXPIRY, Value::Four(0))]);
    let mut other = Client::v5(&broker, "other");
    other.publish_acknowledged(Publish::new("work/1", "wanders"));
    one.expect("wanders");
    let mut two = Client::connect(&broker, &Connect::durable("two"));
    two.subscribe(SHARED, 2);
    one.disconnect_with(0, &[(property::SESSION_EXPIRY, Value::Four(0))]);
    two.take("wanders");
    two.expect_nothing();
}

/// [MQTT-4.8.2-6]
#[test]
fn a_message_that_a_member_refused_goes_to_nobody_else() {
    let broker = Broker::start();
    let [mut one, mut two] = members(&broker);
    let mut other = Client::v5(&broker, "other");
    for number in 0..4 {
        let publish = Publish::new("work/n", &number.to_string());
        if number < 2 {
            other.publish_acknowledged(publish);
        } else {
            other.publish_exactly_once(publish);
        }
    }
    // The exchange with the sender of QoS 2 may be over before the delivery begins: look until all are there.
    let mut refused = 0;
    while refused < 4 {
        for member in [&mut one, &mut two] {
            member.send(PINGREQ);
            while let Packet::Publish(publish) = member.receive() {
                let kind = if publish.qos == 1 { 4 } else { 5 };
                member.send(&ack_with(kind, publish.id, 0x80));
                refused += 1;
            }
        }
    }
    for mut member in [one, two] {
        member.expect_nothing();
        member.disconnect_with(0, &[(property::SESSION_EXPIRY, Value::Four(0))]);
    }
    let [mut one, mut two] = members(&broker);
    one.expect_nothing();
    two.expect_nothing();
}
