//! What is used up of a limit is so after the program was killed, if its burst takes `RATE_KEPT_MS` or longer to come.

use crate::broker::{Broker, Start};
use crate::bytes::{Connect, Publish};
use crate::client::Client;

fn limited(limits: &str, shards: u16) -> Broker {
    let config = format!("[rate_limits]\n{limits}\n");
    Broker::start_with(Start { config, shards: Some(shards), ..Start::default() })
}

/// Returns when all that the shard of that client has to write is on disk: a session that lasts is answered no sooner.
fn sync(broker: &Broker, client_id: &str) {
    Client::connect(broker, &Connect::durable(client_id)).disconnect();
}

#[test]
fn publishes_of_the_day_that_are_used_up_are_so_after_a_kill() {
    let mut broker = limited("publishes = [\"client 10/day burst 10\"]\nexcess = \"disconnect\"", 2);
    for client_id in ["one", "two", "three"] {
        let mut client = Client::v5(&broker, client_id);
        for _ in 0..10 {
            assert!(client.publish_acknowledged(Publish::new("a", "x")) < 0x80);
        }
        sync(&broker, client_id);
    }
    for fresh in ["four", "five"] {
        broker = broker.restart();
        for client_id in ["one", "two", "three"] {
            let mut client = Client::v5(&broker, client_id);
            let id = client.id();
            client.publish(&Publish::new("a", "x").qos(1, id));
            client.expect_disconnect(0x96);
        }
        let mut client = Client::v5(&broker, fresh);
        assert!(client.publish_acknowledged(Publish::new("a", "x")) < 0x80);
    }
}

#[test]
fn connects_of_the_hour_that_are_used_up_are_so_after_a_kill() {
    let mut broker = limited("connects = [\"account 3/h\"]", 1);
    for _ in 0..3 {
        Client::v5(&broker, "loop").disconnect();
    }
    let refuse = |broker: &Broker| {
        let mut client = Client::open(broker, 5);
        client.send(&Connect::v5("loop").bytes());
        client.expect_refused(0x9F);
    };
    refuse(&broker);
    sync(&broker, "other");
    broker = broker.restart();
    refuse(&broker);
    sync(&broker, "other");
}
