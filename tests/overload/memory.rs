//! The limit of message bodies in memory (`RESIDENT_BYTES_DEFAULT`): what is on disk leaves memory, what cannot be
//! there is refused, except for what is assured to each session (`QUEUE_BYTES_ASSURED`).

use crate::broker::{Broker, Start};
use crate::bytes::{Connect, Publish};
use crate::client::Client;
use crate::neighbours::Neighbours;

const PAYLOAD: usize = 8_192;

fn start() -> Broker {
    let config = "[broker]\npacket_bytes_max = 65_536\nresident_bytes_max = 65_536\nsend_window = 2\n";
    Broker::start_with(Start { config: config.into(), shards: Some(1), ..Start::default() })
}

#[test]
fn sessions_that_are_not_on_disk_are_refused_what_does_not_fit_into_memory_while_those_that_read_go_on() {
    let broker = start();
    let mut neighbours = Neighbours::of(&broker);
    let mut publisher = Client::v5(&broker, "publisher");
    let payload = "x".repeat(PAYLOAD);
    // Neither acknowledges anything, and neither session is on disk.
    let mut slow: Vec<Client> = ["slow 0", "slow 1"]
        .iter()
        .map(|name| {
            let mut client = Client::v5(&broker, name);
            assert_eq!(client.subscribe(&format!("{name}/in"), 1), 1);
            client
        })
        .collect();
    let mut taken = [0_usize; 2];
    for (number, taken) in taken.iter_mut().enumerate() {
        let topic = format!("slow {number}/in");
        *taken = (0..40)
            .position(|_| publisher.publish_acknowledged(Publish::new(&topic, &payload)) == 0x97)
            .expect("40 are far more than fit");
    }
    // The first may have what fits into memory, and each what is assured to it: eight of this size.
    assert!((7..=9).contains(&taken[0]) && (6..=8).contains(&taken[1]), "{taken:?}");
    neighbours.go_on();
    // A session on disk is not concerned: its messages need no memory.
    let mut durable = Client::connect(&broker, &Connect::durable("durable"));
    assert_eq!(durable.subscribe("durable/in", 1), 1);
    durable.disconnect();
    for number in 0..20 {
        let text = format!("{number} {payload}");
        assert_eq!(publisher.publish_acknowledged(Publish::new("durable/in", &text)), 0);
    }
    let mut durable = Client::connect(&broker, &Connect::durable("durable"));
    for number in 0..20 {
        durable.take(&format!("{number} {payload}"));
    }
    for (number, client) in slow.iter_mut().enumerate() {
        (0..taken[number]).for_each(|_| drop(client.take(&payload)));
        client.expect_nothing();
    }
    assert_eq!(publisher.publish_acknowledged(Publish::new("slow 0/in", "room")), 0);
    slow[0].take("room");
}
