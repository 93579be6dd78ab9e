//! The graceful stop: clients are told, what was promised is on disk, and then it is over.

use super::bytes::{Start, connect_v3, connect_v5, publish_v3};
use super::rig::Rig;
use crate::limits::WITNESS_MS;
use crate::reactor::sim;
use crate::shard::State;

#[test]
fn draining_tells_v5_clients_why_and_closes_everyone() {
    let mut rig = Rig::new();
    let new = rig.peer();
    rig.say(new, &connect_v5("new", Start::Clean, 0));
    assert_eq!(rig.packet(new)[0], 0x20);
    let old = rig.client_v3("old");
    let stranger = rig.peer();
    rig.run_until("it waits", |rig| rig.connections() == 3);
    let begun = rig.now();
    rig.drain(0);
    assert_eq!(rig.shard(0).state(), State::Draining);
    assert_eq!(rig.end(new).0, [[0xE0, 1, 0x8B]]);
    assert!(rig.end(old).0.is_empty(), "version 3 has no word for it");
    assert!(rig.end(stranger).0.is_empty());
    rig.run_until("it has drained", |rig| rig.all_are(State::Drained));
    assert!(rig.now() < begun.plus_ms(1_500), "nobody is waited for");
    assert_eq!(rig.connections(), 0);
}

#[test]
fn nobody_gets_in_while_it_drains() {
    let mut rig = Rig::new();
    rig.drain(0);
    let late = rig.peer();
    rig.say(late, &connect_v3("late", Start::Clean, 0));
    assert!(rig.end(late).0.is_empty());
}

#[test]
fn it_stops_when_told_and_not_before() {
    let mut rig = Rig::with(2, sim::Settings::default(), |_| {});
    rig.client_v3("somebody");
    (0..2).for_each(|index| rig.drain(index));
    rig.run_until("both have drained", |rig| rig.all_are(State::Drained));
    rig.run_ms(5_000);
    assert!(rig.all_are(State::Drained), "the others may still need it");
    (0..2).for_each(|index| rig.stop(index));
    rig.run_until("both have stopped", |rig| rig.all_are(State::Stopped));
}

#[test]
fn a_drained_shard_has_everything_on_disk() {
    let mut rig = Rig::new();
    let reader = rig.peer();
    rig.say(reader, &connect_v3("kept", Start::Kept, 0));
    rig.packet(reader);
    rig.say(reader, &super::bytes::subscribe_v3(1, "t", 1));
    rig.packet(reader);
    let writer = rig.client_v3("writer");
    for packet_id in 1..=50 {
        rig.say(writer, &publish_v3(packet_id, "t", b"unacknowledged by its reader"));
    }
    rig.run_ms(20);
    let journal = rig.shard(0).journal();
    assert!(journal.last_lsn().is_some(), "something is written");
    rig.drain(0);
    rig.run_until("it has drained", |rig| rig.all_are(State::Drained));
    let journal = rig.shard(0).journal();
    assert_eq!((journal.durable(), journal.pending_bytes()), (journal.last_lsn(), 0));
}

#[test]
fn the_last_records_are_covered_by_a_witness_block_when_it_stops() {
    let quick = sim::Settings { network_latency_ns: (1_000, 10_000), ..sim::Settings::default() };
    let mut rig = Rig::with(1, quick, |_| {});
    let reader = rig.peer();
    rig.say(reader, &connect_v3("kept", Start::Kept, 0));
    rig.packet(reader);
    rig.say(reader, &super::bytes::subscribe_v3(1, "t", 1));
    rig.packet(reader);
    let begun = rig.now();
    rig.drain(0);
    rig.run_until("it has drained", |rig| rig.all_are(State::Drained));
    let before = rig.shard(0).journal().statistics();
    assert!(
        before.records > 0 && rig.now() < begun.plus_ms(WITNESS_MS),
        "an idle journal writes one by itself"
    );
    rig.stop(0);
    rig.run_until("it has stopped", |rig| rig.all_are(State::Stopped));
    assert_eq!(rig.written.witness_blocks, before.witness_blocks + 1);
    assert_eq!((rig.written.records, rig.written.syncs), (before.records, before.syncs + 1));
}
