//! One of two shards: what it tells the other, and what it waits for.

use super::*;
use crate::broker::route::Parcel;
use crate::content::Content;
use crate::ids::{OriginKey, PublisherKey};
use crate::wire::Will;

const OTHER: ShardId = ShardId(1);

/// Shard 0 of two, which has heard of everyone the other shard has: nobody.
fn two_shards() -> Bench {
    two_shards_with(settings_for(2))
}

fn two_shards_with(settings: Settings) -> Bench {
    let mut bench = Bench::of_shard(settings, ShardId(0));
    bench.hear_all();
    bench
}

const NOW: Now = Now { mono: Nanos(1), wall: UnixMs(1_000_000) };

impl Bench {
    /// Crash, and replay; the other shard has told nothing yet.
    fn restart(self) -> Bench {
        let settings = self.broker.settings.clone();
        self.crash_and_replay(settings)
    }

    /// The other shard has told all its interest.
    fn hear_all(&mut self) {
        self.settle();
        assert!(!self.broker.ready(), "the other shard has not said that it is through");
        self.handle(Input::Mesh { from: OTHER, message: MeshMessage::InterestComplete });
        self.settle();
        assert!(self.broker.ready());
    }

    fn hear(&mut self, message: MeshMessage) {
        self.handle(Input::Mesh { from: OTHER, message });
        self.settle();
    }

    /// Topics of two levels that this shard owns.
    fn own_topics(&self) -> impl Iterator<Item = String> {
        let placement = self.broker.settings.placement.clone();
        (0..).map(|n| format!("a/{n}")).filter(move |topic| placement.owner(topic) == ShardId(0))
    }

    fn own_topic(&self) -> String {
        self.own_topics().next().expect("half of all topics are")
    }
}

fn parcel(topic: &str, retain: bool, origin: Lsn) -> Parcel {
    Parcel {
        content: Content::new(topic, std::iter::empty(), b"once"),
        qos: QoS::ExactlyOnce,
        retain,
        accepted_at: NOW.wall,
        expires_at: UnixMs::NEVER,
        publisher: PublisherKey(1),
        origin: Some(OriginKey { shard: OTHER, lsn: origin }),
    }
}

fn publishes(seen: &[String]) -> usize {
    seen.iter().filter(|packet| packet.starts_with("PUBLISH")).count()
}

/// The publisher's shard does not know yet that the message has arrived, and after the crash routes it again.
#[test]
fn a_message_that_was_placed_before_a_crash_is_not_placed_again() {
    for retain in [false, true] {
        let mut bench = two_shards();
        let topic = bench.own_topic();
        bench.connect(1, "subscriber", true, 1_000);
        bench.subscribe(1, &topic, 2);
        bench.handle(Input::Closed { connection: id(1) });
        bench.hear(MeshMessage::Publish { token: 5, parcel: parcel(&topic, retain, Lsn(77)) });
        let mut bench = bench.restart();
        bench.hear_all();
        bench.hear(MeshMessage::Publish { token: 6, parcel: parcel(&topic, retain, Lsn(77)) });
        assert!(
            bench.world.mesh.contains(&(OTHER, MeshMessage::Settled { token: 6 })),
            "it is answered all the same"
        );
        bench.hear(MeshMessage::Publish { token: 7, parcel: parcel(&topic, retain, Lsn(78)) });
        bench.connect(2, "subscriber", false, 1_000);
        let mut seen = bench.seen(2);
        bench.ack(2, 0x50, 1);
        bench.settle();
        seen.extend(bench.seen(2));
        assert_eq!(publishes(&seen), 2, "key 77 once, key 78 once; retain {retain}: {seen:?}");
    }
}

#[test]
fn nothing_is_placed_before_the_other_shard_has_told_its_interest() {
    let mut bench = two_shards();
    let topic = bench.own_topic();
    let will = Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        delay: None,
        message_expiry: None,
        topic: &topic,
        forward: Properties::EMPTY,
        payload: b"gone",
    };
    bench.connect_as(1, &Connect { session_expiry: Some(100), will: Some(will), ..connect("mortal") });
    let mut bench = bench.restart();
    bench.settle();
    // It is due at once, but who wants it is not known; the same for what comes from a shard that is ahead.
    bench.hear(MeshMessage::Publish { token: 5, parcel: parcel(&topic, false, Lsn(77)) });
    let delivered = |bench: &Bench| {
        bench.world.mesh.iter().filter(|(_, message)| matches!(message, MeshMessage::Deliver { .. })).count()
    };
    assert_eq!(delivered(&bench), 0);
    bench.hear(MeshMessage::Interest { token: 0, filter: topic.as_str().into(), members: 1 });
    bench.hear(MeshMessage::InterestComplete);
    assert_eq!(delivered(&bench), 2, "the will and the message: {:?}", bench.world.mesh);
}

/// The other shard cannot read back what is in this one's journal: retained bodies stay in memory, whatever the bound.
#[test]
fn another_shard_is_told_every_retained_message_after_a_crash_however_many_they_are() {
    let mut settings = settings_for(2);
    settings.resident_bytes_max = 50;
    let mut bench = two_shards_with(settings);
    let topics: Vec<String> = bench.own_topics().take(10).collect();
    bench.connect(1, "publisher", true, 0);
    for number in 0..20_usize {
        let packet_id = u16::try_from(number + 1).expect("few");
        let value = format!("value {number}");
        bench.publish_with(1, &topics[number % 10], QoS::AtLeastOnce, packet_id, &value, true);
        bench.settle();
    }
    let mut bench = bench.restart();
    bench.hear_all();
    let (filter, after) = ("a/#".into(), "".into());
    bench.hear(MeshMessage::RetainedPull { token: 3, filter, after, count: 100, number_max: u64::MAX });
    let Some((_, MeshMessage::Retained { parcels, next, .. })) = bench.world.mesh.last() else {
        panic!("no answer: {:?}", bench.world.mesh);
    };
    let mut values: Vec<_> = parcels.iter().map(|parcel| parcel.content.parts().2).collect();
    values.sort_unstable();
    let expected: Vec<String> = (10..20).map(|number| format!("value {number}")).collect();
    assert_eq!(values, expected.iter().map(String::as_bytes).collect::<Vec<_>>());
    assert!(next.is_none());
}

/// Accepted at QoS 2, it is retained before it is known to have arrived everywhere; so it is routed, and retained, again.
#[test]
fn a_message_that_is_retained_twice_because_of_a_crash_stays_in_memory() {
    let mut settings = settings_for(2);
    settings.resident_bytes_max = 10;
    let mut bench = two_shards_with(settings);
    let topics: Vec<String> = bench.own_topics().take(3).collect();
    bench.connect(1, "publisher", true, 100);
    for (packet_id, topic) in (1..).zip(&topics) {
        bench.publish_with(1, topic, QoS::ExactlyOnce, packet_id, "value", true);
    }
    // On disk are what was published and, next, that it is retained; of the last one not that it was placed, and of none that
    // it has arrived.
    bench.sync();
    bench.sync();
    let (_, last) = &bench.world.journal[bench.durable - 1];
    assert!(
        matches!(journal::decoded(last), crate::record::Record::Deliver { .. }),
        "{:?}",
        journal::decoded(last)
    );
    bench.durable -= 1;
    let mut bench = bench.restart();
    bench.hear_all();
    let (filter, after) = ("a/#".into(), "".into());
    bench.hear(MeshMessage::RetainedPull { token: 3, filter, after, count: 100, number_max: u64::MAX });
    let Some((_, MeshMessage::Retained { parcels, .. })) = bench.world.mesh.last() else {
        panic!("no answer: {:?}", bench.world.mesh);
    };
    assert_eq!(parcels.len(), topics.len(), "{parcels:?}");
}
