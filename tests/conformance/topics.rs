//! Topic names and filters (section 4.7) and order (section 4.6).

use crate::broker::Broker;
use crate::bytes::Publish;
use crate::client::Client;

/// [MQTT-3.3.2-3] and the examples of sections 4.7.1.2 and 4.7.1.3.
#[test]
fn wildcards_match_as_the_standard_says() {
    let broker = Broker::start();
    let mut publisher = Client::v5(&broker, "publisher");
    let topics = [
        "sport",
        "sport/",
        "sport/tennis",
        "sport/tennis/player1",
        "/finance",
        "/",
        "a//b",
        "finance",
        "sports",
    ];
    for (filter, matching) in [
        ("sport/tennis/player1/#", &["sport/tennis/player1"][..]),
        ("sport/#", &["sport", "sport/", "sport/tennis", "sport/tennis/player1"]),
        ("#", &topics),
        ("sport/+", &["sport/", "sport/tennis"]),
        ("+", &["sport", "finance", "sports"]),
        ("+/+", &["sport/", "sport/tennis", "/finance", "/"]),
        ("/+", &["/finance", "/"]),
        ("+/tennis/#", &["sport/tennis", "sport/tennis/player1"]),
        ("a/+/b", &["a//b"]),
        ("a//b", &["a//b"]),
        ("sport", &["sport"]),
    ] {
        let mut client = Client::v5(&broker, "matching");
        assert_eq!(client.subscribe(filter, 0), 0, "{filter}");
        assert_eq!(client.subscribe("the/end", 0), 0);
        for topic in topics {
            publisher.publish(&Publish::new(topic, topic));
        }
        publisher.publish(&Publish::new("the/end", "the end"));
        for topic in matching {
            assert_eq!(client.expect(topic).topic, *topic, "{filter}");
        }
        client.expect("the end");
        client.disconnect();
    }
}

/// [MQTT-4.7.2-1]
#[test]
fn wildcards_at_the_front_do_not_match_topics_with_a_dollar() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "dollar");
    for filter in ["#", "+/a", "+/#", "$dollar/#"] {
        assert_eq!(client.subscribe(filter, 0), 0);
    }
    let mut publisher = Client::v5(&broker, "publisher");
    publisher.publish(&Publish::new("$dollar/a", "dollar"));
    publisher.publish(&Publish::new("plain/a", "plain"));
    // If the broker keeps clients from publishing below `$`, there is only the second.
    let mut next = client.receive_publish();
    if next.text() == "dollar" {
        next = client.receive_publish();
    }
    assert_eq!(next.text(), "plain");
    client.expect_nothing();
}

/// [MQTT-4.7.2-1]: the server's own topics; retained or periodic, so they come by themselves.
#[test]
fn the_servers_topics_are_found_below_sys_and_not_by_a_hash() {
    let broker = Broker::start();
    let mut all = Client::v5(&broker, "all");
    all.subscribe("#", 0);
    let mut client = Client::v5(&broker, "system");
    client.subscribe("$SYS/broker/version", 0);
    assert_eq!(client.receive_publish().topic, "$SYS/broker/version");
    all.expect_nothing();
}

/// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1]
#[test]
fn filters_with_misplaced_wildcards_are_refused_alone() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "misplaced");
    for filter in ["#/a", "a#", "a/#/b", "a/b#", "+a", "a+", "a/+b/c", "a/b+/c", "##", "++", "+#"] {
        assert_eq!(client.subscribe_all(0, &[(filter, 0), ("good/+/#", 1)]), [0x8f, 1], "{filter}");
    }
}

/// [MQTT-4.7.3-4] [MQTT-1.5.4-3]
#[test]
fn topics_are_compared_byte_by_byte() {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "bytes");
    // Case, composition, a byte order mark, a space, and characters that look alike.
    let topics = ["Topic", "topic", "caf\u{e9}", "cafe\u{301}", "\u{feff}topic", "topic ", "\u{ff41}"];
    for topic in topics {
        assert_eq!(client.subscribe(topic, 0), 0);
        client.publish(&Publish::new(topic, topic));
        assert_eq!(client.expect(topic).topic, topic);
        assert_eq!(client.unsubscribe(&[topic]), [0]);
        client.publish(&Publish::new(topic, "nobody"));
    }
    client.expect_nothing();
}

/// [MQTT-4.6.0-5] [MQTT-4.6.0-6]
#[test]
fn messages_of_one_publisher_keep_their_order_at_every_qos() {
    let broker = Broker::start();
    for qos in 0..3 {
        let mut client = Client::v5(&broker, "ordered");
        client.subscribe("ordered/#", qos);
        let mut publisher = Client::v5(&broker, "publisher");
        for number in 0..50 {
            let publish = Publish::new(&format!("ordered/{}", number % 3), &number.to_string());
            match qos {
                0 => publisher.publish(&publish),
                1 => publisher.publish(&publish.qos(1, number + 1)),
                _ => publisher.publish_exactly_once(publish),
            }
        }
        for number in 0..50 {
            assert_eq!(client.take(&number.to_string()).qos, qos);
        }
        client.disconnect();
    }
}
