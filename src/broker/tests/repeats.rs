//! A QoS 2 message that comes again after a crash, under the same key, to a shard that has it.
//!
//! One broker of two; the other, which owns the topic, is played by the test.

use super::*;
use crate::broker::route::{Audience, Parcel};

const OTHER: ShardId = ShardId(1);
const PUBREC: u8 = 0x50;

fn two_shards() -> Settings {
    let mut settings = Settings::with_placement(Placement::new(2, [0; 16], None).expect("no pattern"));
    settings.sys_interval_s = 0;
    settings
}

/// A topic that the other shard owns.
fn topic() -> String {
    let placement = two_shards().placement;
    let mut topics = (0..100).map(|number| format!("t/{number}"));
    topics.find(|topic| placement.owner(topic) == OTHER).expect("half of them")
}

/// What the broker said to the other shard since the last look.
fn said(bench: &mut Bench) -> Vec<MeshMessage> {
    bench.world.mesh.replace(Vec::new()).expect("there is another shard")
}

fn hear(bench: &mut Bench, message: MeshMessage) {
    bench.handle(Input::Mesh { from: OTHER, message });
    bench.settle();
}

/// The broker that has replayed these records, with everyone's interest known.
fn start(records: Vec<(Lsn, Vec<u8>)>, now: Now) -> Bench {
    let mut bench = Bench {
        broker: Broker::new(two_shards(), ShardId(0)),
        world: World { mesh: Some(Vec::new()), ..World::default() },
        now,
        durable: records.len(),
    };
    for (lsn, bytes) in &records {
        bench.handle(Input::Replay { lsn: *lsn, record: journal::decoded(bytes) });
    }
    let lsn = records.last().map_or(Lsn::NONE, |(lsn, _)| *lsn);
    bench.world.journal = records;
    bench.handle(Input::Replayed { lsn });
    bench.settle();
    hear(&mut bench, MeshMessage::InterestComplete);
    assert!(bench.broker.ready());
    bench
}

/// A subscriber of the other shard's topic, and a publisher, both at home here.
fn begin() -> Bench {
    let mut bench = start(Vec::new(), Now { mono: Nanos(1), wall: UnixMs(1_000_000) });
    bench.connect(1, "subscriber", true, 1_000);
    bench.subscribe(1, &topic(), 2);
    let asked = said(&mut bench);
    let token = asked.iter().find_map(|message| match message {
        MeshMessage::Interest { token, .. } => Some(*token),
        _ => None,
    });
    hear(&mut bench, MeshMessage::InterestKnown { token: token.expect("the owner is told") });
    bench.connect(2, "publisher", true, 1_000);
    assert_eq!(bench.seen(1), ["CONNACK false Success", "SUBACK"]);
    bench
}

/// The message on its way to the owner.
fn published(bench: &mut Bench) -> Parcel {
    let parcels = said(bench).into_iter().filter_map(|message| match message {
        MeshMessage::Publish { parcel, .. } => Some(parcel),
        _ => None,
    });
    let mut parcels: Vec<Parcel> = parcels.collect();
    assert_eq!(parcels.len(), 1);
    parcels.remove(0)
}

fn deliver(bench: &mut Bench, parcel: Parcel) {
    let audience = Audience { ordinary: true, shared: Vec::new() };
    hear(bench, MeshMessage::Deliver { token: 77, parcel, audience });
}

#[test]
fn one_of_our_own_that_the_owner_sends_back_is_delivered_once() {
    let mut bench = begin();
    bench.publish(2, &topic(), QoS::ExactlyOnce, 7, "m");
    bench.settle();
    let parcel = published(&mut bench);
    deliver(&mut bench, parcel.clone());
    assert_eq!(bench.seen(1), ["PUBLISH 2 1 m"]);
    bench.ack(1, PUBREC, 1);
    bench.settle();
    assert_eq!(bench.seen(1), ["Pubrel 1 Success"]);
    // The crash comes before the owner has said that it is settled: it is routed again.
    let (records, now) = (std::mem::take(&mut bench.world.journal), bench.now);
    let mut bench = start(records, now);
    let again = published(&mut bench);
    assert_eq!(again.origin, parcel.origin);
    deliver(&mut bench, again);
    bench.connect(3, "subscriber", false, 1_000);
    assert_eq!(bench.seen(3), ["CONNACK true Success", "Pubrel 1 Success"]);
}

#[test]
fn a_retained_one_of_another_shard_is_delivered_once() {
    let mut bench = begin();
    let placement = two_shards().placement;
    let mut topics = (0..100).map(|number| format!("here/{number}"));
    let topic = topics.find(|topic| placement.owner(topic) == ShardId(0)).expect("half of them");
    bench.subscribe(1, &topic, 2);
    let _ = bench.seen(1);
    let parcel = Parcel {
        bytes: format!("{topic}m").into_bytes().into(),
        topic_len: u16::try_from(topic.len()).expect("short"),
        forward_len: 0,
        qos: QoS::ExactlyOnce,
        retain: true,
        accepted_at: bench.now.wall,
        expires_at: UnixMs::NEVER,
        publisher: (OTHER, crate::ids::SessionKey(5)),
        origin: Some(crate::ids::OriginKey { shard: OTHER, lsn: Lsn(50) }),
    };
    hear(&mut bench, MeshMessage::Publish { token: 78, parcel: parcel.clone() });
    assert_eq!(bench.seen(1), ["PUBLISH 2 1 m"]);
    let (records, now) = (std::mem::take(&mut bench.world.journal), bench.now);
    let mut bench = start(records, now);
    hear(&mut bench, MeshMessage::Publish { token: 79, parcel });
    bench.connect(3, "subscriber", false, 1_000);
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 2 1 m dup"]);
}
