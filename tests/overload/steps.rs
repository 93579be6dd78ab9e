//! The steps of overload, by memory that runs out for real: each is entered and counted, what comes last still goes on, and with
//! room again all of them are left.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::broker::{Broker, Start, clock};
use crate::bytes::{Packet, Publish};
use crate::client::Client;

const MEMORY_BYTES_MAX: usize = 48 << 20;
const PAYLOAD: usize = 16 << 10;

/// What `$SYS` says of the steps, while it is told.
struct Watcher {
    client: Client,
    times: BTreeMap<String, u64>,
}

impl Watcher {
    fn of(broker: &Broker) -> Watcher {
        let mut client = Client::v5(broker, "watcher");
        assert_eq!(client.subscribe("$SYS/broker/overload/#", 0), 0);
        assert_eq!(client.subscribe("$SYS/broker/messages/dropped", 0), 0);
        Watcher { client, times: BTreeMap::new() }
    }

    /// How often it was entered, as far as has been said.
    fn times(&mut self, step: &str) -> u64 {
        while self.client.hears_within(Duration::from_millis(10)) {
            let publish = self.client.receive_publish();
            let name = publish.topic.rsplit('/').next().expect("a topic has levels").to_owned();
            self.times.insert(name, text(&publish).parse().expect("a number"));
        }
        self.times.get(step).copied().unwrap_or(0)
    }

    fn wait_for(&mut self, step: &str, times: u64) {
        let begun = clock();
        while self.times(step) < times {
            assert!(begun.elapsed() < Duration::from_secs(10), "{step}: {:?}", self.times);
        }
    }
}

/// How many messages were acknowledged before the broker took no more.
fn publish_until_it_waits(publisher: &mut Client, watcher: &mut Watcher, payload: &str) -> usize {
    let mut taken = 0;
    loop {
        // Slowly where it gets tight: memory is looked at twice a second.
        let count = if taken * PAYLOAD < MEMORY_BYTES_MAX / 3 { 64 } else { 8 };
        let ids: Vec<u16> = (0..count).map(|_| publisher.id()).collect();
        ids.iter().for_each(|id| publisher.publish(&Publish::new("slow/in", payload).qos(1, *id)));
        for id in ids {
            if !publisher.hears_within(Duration::from_secs(3)) {
                break;
            }
            // Between two looks there may be no more memory at all: then it is told, and waits later.
            let Packet::Ack { kind: 4, id: answered, reason: reason @ (0 | 0x97), .. } =
                publisher.receive_other()
            else {
                panic!("PUBACK expected");
            };
            assert_eq!(answered, id);
            taken += usize::from(reason == 0);
        }
        if watcher.times("publishers-wait") > 0 {
            return taken;
        }
        assert!(taken * PAYLOAD < 2 * MEMORY_BYTES_MAX, "nothing gives way: {:?}", watcher.times);
    }
}

#[test]
fn memory_that_runs_out_is_felt_step_by_step_and_forgotten_when_there_is_some_again() {
    let config = format!("memory_bytes_max = {MEMORY_BYTES_MAX}\n[broker]\nsys_interval_s = 1\n");
    let broker = Broker::start_with(Start { config, shards: Some(1), ..Start::default() });
    let mut watcher = Watcher::of(&broker);
    let mut neighbour = Client::v5(&broker, "neighbour");
    assert_eq!(neighbour.subscribe("other", 1), 1);
    // It does not read, and its session ends with its connection: what it has waiting is in memory.
    let mut slow = Client::v5(&broker, "slow");
    assert_eq!(slow.subscribe("slow/in", 1), 1);
    let mut publisher = Client::v5(&broker, "publisher");
    let payload = "x".repeat(PAYLOAD);
    let taken = publish_until_it_waits(&mut publisher, &mut watcher, &payload);
    for step in ["retained-waits", "newcomers-wait", "qos0-dropped", "publishers-wait"] {
        watcher.wait_for(step, 1);
    }
    // What is published at QoS 0 is gone, and counted.
    neighbour.publish(&Publish::new("other", "dropped"));
    watcher.wait_for("dropped", 1);
    neighbour.send(&[0xC0, 0]);
    assert_eq!(
        neighbour.receive(),
        Packet::Pingresp,
        "pings are answered, and there was no message before that"
    );
    // It reads, and there is room again.
    let mut read = 0;
    while slow.hears_within(Duration::from_secs(2)) {
        slow.take(&payload);
        read += 1;
    }
    assert!(read >= taken, "{read} of {taken} that were acknowledged");
    let begun = clock();
    loop {
        neighbour.publish(&Publish::new("other", "again"));
        if neighbour.hears_within(Duration::from_millis(500)) {
            assert_eq!(text(&neighbour.receive_publish()), "again");
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it gives way for ever");
    }
    while publisher.hears_within(Duration::from_secs(1)) {
        let packet = publisher.receive_other();
        assert!(matches!(packet, Packet::Ack { kind: 4, .. }), "{packet:?}");
    }
    let id = publisher.id();
    publisher.publish(&Publish::new("slow/in", "room").qos(1, id));
    // Behind those that had to wait.
    loop {
        let publish = slow.receive_publish();
        slow.acknowledge(&publish);
        if text(&publish) == "room" {
            break;
        }
    }
}

fn text(publish: &Publish) -> &str {
    std::str::from_utf8(&publish.payload).expect("text")
}
