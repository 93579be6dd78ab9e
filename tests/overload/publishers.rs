//! Limits of publishing: exchanges that are not ended, and messages faster than they can be placed.

use ironpost::limits;

use crate::broker::{Broker, Start};
use crate::bytes::{self, Connect, Packet, Publish, Value, property};
use crate::client::Client;
use crate::neighbours::Neighbours;

/// QoS 2 publishes with identifiers up to that, all in one write.
fn begin_exchanges(client: &mut Client, level: u8, count: u16) {
    let bytes = |id: u16| Publish::new("exchange", "x").qos(2, id).bytes(level);
    client.send(&(1..=count).flat_map(bytes).collect::<Vec<u8>>());
}

#[test]
fn a_client_that_exceeds_the_receive_maximum_is_disconnected_with_0x93() {
    let broker = Broker::start();
    let mut neighbours = Neighbours::of(&broker);
    let most = limits::RECEIVE_MAXIMUM;
    let mut client = Client::v5(&broker, "eager");
    assert_eq!(bytes::find(&client.connack, property::RECEIVE_MAXIMUM), Some(&Value::Two(most)));
    begin_exchanges(&mut client, 5, most);
    for id in 1..=most {
        assert_eq!(client.receive(), bytes::success(5, id));
    }
    client.expect_nothing();
    client.publish(&Publish::new("exchange", "x").qos(2, most + 1));
    client.expect_disconnect(0x93);
    neighbours.go_on();
    Client::v5(&broker, "eager").publish_exactly_once(Publish::new("exchange", "x"));
}

#[test]
fn a_3_1_1_client_that_exceeds_it_is_paused_and_goes_on_when_it_ends_its_exchanges() {
    let broker = Broker::start();
    let mut neighbours = Neighbours::of(&broker);
    let taken = limits::RECEIVE_MAXIMUM + 1;
    let all = taken + 50;
    let mut client = Client::connect(&broker, &Connect::v3("eager"));
    begin_exchanges(&mut client, 4, all);
    for id in 1..=taken {
        assert_eq!(client.receive(), bytes::success(5, id));
    }
    // The rest is not looked at, but what may free the client from its pause is.
    client.expect_nothing();
    neighbours.go_on();
    for id in 1..=taken {
        client.send(&bytes::ack(6, id));
    }
    let mut seen = vec![0; usize::from(all) + 1];
    for _ in 0..taken + 50 {
        let Packet::Ack { kind, id, .. } = client.receive() else { panic!("neither PUBREC nor PUBCOMP") };
        assert_eq!(kind, if id <= taken { 7 } else { 5 });
        seen[usize::from(id)] += 1;
    }
    assert!(seen[1..].iter().all(|times| *times == 1), "each is answered once");
}

/// `VmRSS` of the broker.
fn resident_bytes(broker: &Broker) -> usize {
    let path = format!("/proc/{}/status", broker.process_id());
    let status = std::fs::read_to_string(path).expect("the broker runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of the kernel");
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes << 10
}

/// Publishes until the reader's queue has room for it, which it has as soon as the flood is over.
fn publish_end(publisher: &mut Client, topic: &str) {
    let accepted = (0..100_000).any(|_| publisher.publish_acknowledged(Publish::new(topic, "end")) == 0);
    assert!(accepted, "the reader reads");
}

fn read_to_the_end(reader: &mut Client) {
    while reader.receive_publish().payload != b"end" {}
}

#[test]
fn a_flood_of_qos_0_is_read_no_faster_than_it_is_placed() {
    let config = "[broker]\nqueue_messages_max = 1_000\nsys_interval_s = 0\n".into();
    let broker = Broker::start_with(Start { config, shards: Some(1), ..Start::default() });
    let mut neighbours = Neighbours::of(&broker);
    let mut reader = Client::v5(&broker, "reader");
    assert_eq!(reader.subscribe("flood", 0), 0);
    let mut publishers: Vec<Client> = (0..4).map(|n| Client::v5(&broker, &format!("flood {n}"))).collect();
    let before = resident_bytes(&broker);
    let round = Publish::new("flood", "x").bytes(5).repeat(1_000);
    std::thread::scope(|scope| {
        scope.spawn(|| read_to_the_end(&mut reader));
        for number in 0..60 {
            publishers.iter_mut().for_each(|publisher| publisher.send(&round));
            if number % 20 == 0 {
                neighbours.go_on();
            }
        }
        let after = resident_bytes(&broker);
        // 240,000 messages are 80 MB in the store; what may wait unplaced is a fiftieth of that.
        assert!(after < before + (24 << 20), "from {before} to {after} bytes");
        publish_end(&mut publishers[0], "flood");
    });
    neighbours.go_on();
}

#[test]
fn floods_between_two_shards_do_not_lock_them_up() {
    let config = "[broker]\nqueue_messages_max = 1_000\nsys_interval_s = 0\n".into();
    let broker = Broker::start_with(Start { config, shards: Some(2), ..Start::default() });
    let mut neighbours = Neighbours::of(&broker);
    // Enough that some publisher, some topic and some reader are at home in either shard.
    let client = |kind: &str, number| Client::v5(&broker, &format!("{kind} {number}"));
    let mut pairs: Vec<(Client, Client)> =
        (0..8).map(|number| (client("reader", number), client("publisher", number))).collect();
    for (number, (reader, _)) in pairs.iter_mut().enumerate() {
        assert_eq!(reader.subscribe(&format!("flood/{number}/x"), 0), 0);
    }
    std::thread::scope(|scope| {
        for (number, (reader, publisher)) in pairs.iter_mut().enumerate() {
            scope.spawn(|| read_to_the_end(reader));
            scope.spawn(move || {
                let topic = format!("flood/{number}/x");
                // More than the credits of both shards for each other, many times.
                let round = Publish::new(&topic, "x").bytes(5).repeat(1_000);
                (0..20).for_each(|_| publisher.send(&round));
                publish_end(publisher, &topic);
            });
        }
        neighbours.go_on();
    });
    neighbours.go_on();
}
