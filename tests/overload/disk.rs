//! The disk's reserve: publishes are refused, readers drain, and publishes are taken again.
//!
//! A limit of the file size stands in for the full disk: the first segments of 8 MiB fit it, one of 64 MiB does not,
//! whatever the rights of who runs this.

use std::time::Duration;

use ironpost::limits;

use crate::broker::{Broker, Start, clock};
use crate::bytes::{self, Connect, Packet, Publish};
use crate::client::Client;
use crate::neighbours::Neighbours;

/// Publishes that many at once; how many of them were accepted.
fn publish_many(publisher: &mut Client, payload: &str, count: u16) -> usize {
    let bytes = |id: u16| Publish::new("store", payload).qos(1, id).bytes(5);
    publisher.send(&(1..=count).flat_map(bytes).collect::<Vec<u8>>());
    let reason = |_| match publisher.receive_other() {
        Packet::Ack { kind: 4, reason, .. } => reason,
        other => panic!("PUBACK expected, not {other:?}"),
    };
    let reasons: Vec<u8> = (1..=count).map(reason).collect();
    assert!(reasons.iter().all(|reason| [0, 0x97].contains(reason)), "{reasons:?}");
    reasons.iter().filter(|reason| **reason == 0).count()
}

#[test]
fn with_the_disks_reserve_reached_publishes_are_refused_with_0x97_until_readers_have_made_room() {
    // In blocks of 512 or 1,024 bytes, as the shell has it: more than the first segments, less than the next. Ignored,
    // the signal leaves the write with an error.
    let shell = "trap '' XFSZ; ulimit -f 32768";
    let broker = Broker::start_with(Start { shell, shards: Some(1), ..Start::default() });
    let mut neighbours = Neighbours::passing(&broker);
    let mut away = Client::connect(&broker, &Connect::durable("away"));
    assert_eq!(away.subscribe("store", 1), 1);
    away.disconnect();
    let mut publisher = Client::v5(&broker, "publisher");
    let text = "x".repeat(4_000);
    let most = limits::SEGMENTS_FIRST * limits::SEGMENT_BYTES_FIRST as usize / text.len();
    let mut stored = 0;
    for _ in 0..most / 500 {
        let accepted = publish_many(&mut publisher, &text, 500);
        stored += accepted;
        if accepted < 500 {
            break;
        }
    }
    let reserve = limits::SEGMENTS_RESERVE * limits::SEGMENT_BYTES_FIRST as usize / text.len();
    assert!(stored + reserve < most + 500, "{stored} were taken, and the reserve is gone");
    // What needs no more disk goes on, and what does is refused in its own way.
    neighbours.are_there();
    publisher.publish(&Publish::new("store", "x").qos(2, 9_999));
    let Packet::Ack { kind: 5, reason, .. } = publisher.receive_other() else { panic!("PUBREC expected") };
    assert_eq!(reason, 0x97);
    let mut old = Client::connect(&broker, &Connect::v3("old publisher"));
    old.publish(&Publish::new("store", "x").qos(1, 1));
    old.expect_close();
    let mut new = Client::open(&broker, 5);
    new.send(&Connect::durable("new session").bytes());
    new.expect_refused(0x97);
    // The reader of all this is still let in.
    let mut away = Client::connect(&broker, &Connect::durable("away"));
    assert_eq!(away.subscribe("another", 1), 0x97);
    for _ in 0..stored {
        away.take(&text);
    }
    away.expect_nothing();
    // Its subscription is the last that keeps the oldest segment. Segments are freed once a second, after their
    // release is on disk.
    assert_eq!(away.unsubscribe(&["store"]), [0]);
    let drained = clock();
    while away.subscribe("another", 1) == 0x97 {
        assert!(drained.elapsed() < Duration::from_secs(10), "nothing was freed");
        // A pause without a clock of its own: nothing comes.
        away.hears_within(Duration::from_millis(50));
    }
    let id = publisher.id();
    publisher.publish(&Publish::new("another", "room").qos(1, id));
    away.take("room");
    assert_eq!(publisher.receive_other(), bytes::success(4, id));
    neighbours.go_on();
}
