//! What is true again after a crash.

use std::num::NonZeroU16;

use super::*;
use crate::wire::Will;

fn offline_subscriber() -> Bench {
    let mut bench = Bench::new();
    bench.connect(1, "subscriber", true, 1_000);
    bench.subscribe(1, "a/#", 2);
    bench.handle(Input::Closed { connection: id(1) });
    bench.connect(2, "publisher", true, 1_000);
    bench.settle();
    let _ = bench.seen(2);
    bench
}

#[test]
fn an_acknowledged_message_is_delivered_after_a_crash() {
    let mut bench = offline_subscriber();
    bench.publish(2, "a/b", QoS::AtLeastOnce, 7, "kept");
    bench.sync();
    assert_eq!(bench.seen(2), ["Puback 7 Success"]);
    let mut bench = bench.crash();
    bench.connect(3, "subscriber", false, 1_000);
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 1 1 kept"]);
}

/// Coming back writes the session's record again; the earlier one is dead, and freed with its segment. What was written
/// between the two comes first at replay then.
#[test]
fn nothing_of_a_session_depends_on_the_record_with_which_it_began() {
    let mut bench = offline_subscriber();
    bench.publish(2, "a/b", QoS::AtLeastOnce, 7, "queued");
    bench.connect(3, "subscriber", false, 1_000);
    bench.settle();
    let first = bench.world.journal.remove(0);
    assert!(matches!(
        journal::decoded(&first.1),
        crate::record::Record::Session { client_id: "subscriber", .. }
    ));
    bench.durable -= 1;
    let mut bench = bench.crash();
    bench.connect(2, "publisher", true, 0);
    bench.publish(2, "a/c", QoS::AtLeastOnce, 7, "later");
    bench.settle();
    bench.connect(3, "subscriber", false, 1_000);
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 1 1 queued", "PUBLISH 1 2 later"]);
}

/// A record of its queue may be the last that is left of it.
#[test]
fn a_session_that_has_ended_does_not_come_back_by_a_record_that_speaks_of_it() {
    let mut bench = offline_subscriber();
    bench.publish(2, "a/b", QoS::AtLeastOnce, 7, "queued");
    bench.settle();
    let speaks_only = |(_, bytes): &(Lsn, Vec<u8>)| {
        matches!(journal::decoded(bytes), crate::record::Record::Message { .. })
    };
    bench.world.journal.retain(speaks_only);
    bench.durable = bench.world.journal.len();
    let bench = bench.crash();
    assert_eq!((bench.broker.sessions.len(), bench.broker.messages.len()), (0, 0));
}

#[test]
fn a_subscription_answered_before_a_crash_holds_after_it() {
    let mut bench = offline_subscriber().crash();
    bench.connect(2, "publisher", true, 0);
    bench.publish(2, "a/c", QoS::AtLeastOnce, 7, "later");
    bench.settle();
    bench.connect(3, "subscriber", false, 1_000);
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 1 1 later"]);
}

#[test]
fn what_a_recipient_acknowledged_durably_does_not_come_back() {
    let mut bench = offline_subscriber();
    bench.publish(2, "a/b", QoS::AtLeastOnce, 7, "m");
    bench.settle();
    bench.connect(3, "subscriber", false, 1_000);
    bench.ack(3, 0x40, 1);
    bench.settle();
    let mut bench = bench.crash();
    bench.connect(4, "subscriber", false, 1_000);
    assert_eq!(bench.seen(4), ["CONNACK true Success"]);
    assert_eq!(bench.broker.messages.len(), 0);
}

/// Crash after every number of syncs: with PUBREC sent, the message arrives exactly once.
#[test]
fn exactly_once_holds_wherever_the_crash_is() {
    for syncs in 0..6 {
        let mut bench = offline_subscriber();
        bench.publish(2, "a/b", QoS::ExactlyOnce, 7, "once");
        for _ in 0..syncs {
            bench.sync();
        }
        let received = bench.seen(2).contains(&"Pubrec 7 Success".to_owned());
        let mut bench = bench.crash();
        bench.connect(2, "publisher", false, 1_000);
        bench.publish(2, "a/b", QoS::ExactlyOnce, 7, "once");
        bench.settle();
        bench.connect(3, "subscriber", false, 1_000);
        let deliveries = bench.seen(3).iter().filter(|packet| packet.starts_with("PUBLISH")).count();
        assert_eq!(deliveries, 1, "{syncs} syncs, PUBREC sent: {received}");
    }
}

#[test]
fn a_released_message_is_not_published_again() {
    let mut bench = offline_subscriber();
    bench.connect(3, "subscriber", false, 1_000);
    bench.publish(2, "a/b", QoS::ExactlyOnce, 7, "m");
    bench.settle();
    bench.ack(3, 0x50, 1);
    bench.settle();
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 2 1 m", "Pubrel 1 Success"]);
    let mut bench = bench.crash();
    bench.connect(4, "subscriber", false, 1_000);
    assert_eq!(bench.seen(4), ["CONNACK true Success", "Pubrel 1 Success"]);
}

#[test]
fn the_will_of_a_client_that_was_connected_at_the_crash_is_published() {
    let mut bench = offline_subscriber();
    let will = Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        delay: None,
        message_expiry: None,
        topic: "a/will",
        forward: Properties::EMPTY,
        payload: b"gone",
    };
    let connect = Connect { session_expiry: Some(100), will: Some(will), ..connect("mortal") };
    bench.connect_as(5, &connect);
    let mut bench = bench.crash();
    bench.settle();
    bench.connect(3, "subscriber", false, 1_000);
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 1 1 gone"]);
}

#[test]
fn a_session_expires_by_the_time_it_was_disconnected_not_by_the_restart() {
    let mut bench = offline_subscriber();
    bench.settle();
    bench.wait_ms(900_000);
    let mut bench = bench.crash();
    bench.wait_ms(99_000);
    assert!(bench.broker.sessions.find("subscriber").is_some());
    bench.wait_ms(2_000);
    assert!(bench.broker.sessions.find("subscriber").is_none());
}

#[test]
fn what_is_written_takes_along_what_its_publisher_sent_on_that_topic_before() {
    let mut bench = Bench::new();
    let narrow =
        Connect { session_expiry: Some(1_000), receive_maximum: NonZeroU16::new(3), ..connect("subscriber") };
    bench.connect_as(1, &narrow);
    bench.subscribe(1, "a/#", 1);
    bench.connect(2, "publisher", true, 1_000);
    let records = bench.world.journal.len();
    bench.publish(2, "a/c", QoS::AtLeastOnce, 1, "elsewhere");
    bench.publish(2, "a/b", QoS::AtLeastOnce, 2, "one");
    bench.publish(2, "a/b", QoS::AtLeastOnce, 3, "two");
    assert_eq!(bench.world.journal.len(), records, "they wait for their acknowledgements");
    // The window is full, so this one is written at once.
    bench.publish(2, "a/b", QoS::AtLeastOnce, 4, "three");
    assert_eq!(bench.world.journal.len(), records + 3, "and with it those of its topic");
    bench.sync();
    let mut bench = bench.crash();
    bench.connect(3, "subscriber", false, 1_000);
    let in_order = ["CONNACK true Success", "PUBLISH 1 1 one", "PUBLISH 1 2 two", "PUBLISH 1 3 three"];
    assert_eq!(bench.seen(3), in_order);
}

#[test]
fn another_session_of_the_same_client_is_the_same_publisher() {
    let mut bench = Bench::new();
    let narrow =
        Connect { session_expiry: Some(1_000), receive_maximum: NonZeroU16::new(1), ..connect("subscriber") };
    bench.connect_as(1, &narrow);
    bench.subscribe(1, "a/#", 1);
    bench.connect(2, "publisher", true, 0);
    bench.publish(2, "a/b", QoS::AtLeastOnce, 1, "one");
    bench.handle(Input::Closed { connection: id(2) });
    bench.connect(3, "publisher", true, 0);
    bench.publish(3, "a/b", QoS::AtLeastOnce, 1, "two");
    bench.sync();
    let mut bench = bench.crash();
    bench.connect(3, "subscriber", false, 1_000);
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 1 1 one", "PUBLISH 1 2 two"]);
}

#[test]
fn what_a_client_has_published_itself_does_not_come_back_by_a_crash() {
    for no_local in [false, true] {
        let mut bench = Bench::new();
        bench.connect(1, "client", true, 1_000);
        let options = if no_local { 0b100 | 2 } else { 2 };
        bench.subscribe(1, "a/b", options);
        bench.seen(1);
        bench.publish(1, "a/b", QoS::ExactlyOnce, 1, "own");
        bench.sync();
        let mut bench = bench.crash();
        bench.settle();
        bench.connect(2, "client", false, 1_000);
        let came = bench.seen(2).iter().any(|packet| packet.ends_with("own"));
        assert_eq!(came, !no_local, "routed again, and [MQTT-3.8.3-3] still holds");
    }
}

#[test]
fn nothing_is_remembered_of_what_has_waited_long_enough() {
    let mut bench = Bench::new();
    bench.connect(1, "subscriber", true, 1_000);
    bench.subscribe(1, "a/#", 1);
    bench.connect(2, "publisher", true, 1_000);
    for packet_id in 1..=10 {
        bench.publish(2, &format!("a/{}", packet_id % 3), QoS::AtLeastOnce, packet_id, "m");
    }
    assert_eq!(bench.broker.unwritten.len(), 3);
    bench.ack(1, 0x40, 1);
    bench.wait_ms(u64::from(settings().hold_ms));
    assert_eq!(bench.broker.unwritten.len(), 0);
}

/// There is no room in memory for all that is routed again, and it goes a step at a time.
#[test]
fn what_is_routed_again_stays_in_memory_until_it_is_placed() {
    let mut settings = settings();
    settings.resident_bytes_max = 10;
    let mut bench = Bench::with(settings.clone());
    bench.connect(1, "subscriber", true, 1_000);
    bench.subscribe(1, "a/#", 1);
    bench.connect(2, "publisher", true, 1_000);
    for packet_id in 1..=5 {
        bench.publish(2, "a/b", QoS::ExactlyOnce, packet_id, "a payload of some length");
    }
    bench.durable = bench.world.journal.len();
    let mut bench = bench.crash_and_replay(settings);
    for _ in 0..100 {
        bench.advance_by(1);
        for lsn in std::mem::take(&mut bench.world.fetches) {
            bench.fetch(lsn);
        }
    }
    bench.settle();
    bench.connect(3, "subscriber", false, 1_000);
    let seen = bench.seen(3);
    assert_eq!(seen.iter().filter(|packet| packet.starts_with("PUBLISH")).count(), 5, "{seen:?}");
}

/// A list of recipients of a record with a key says that the message was placed; after a crash it is not placed again. So
/// who gets it because it is retained is not in such a list.
#[test]
fn a_copy_for_a_new_subscription_does_not_count_as_the_message_having_been_placed() {
    let mut bench = Bench::new();
    bench.connect(1, "publisher", true, 1_000);
    bench.publish_with(1, "a/b", QoS::ExactlyOnce, 7, "value", true);
    bench.settle();
    bench.connect(2, "new", true, 1_000);
    bench.subscribe(2, "a/b", 2);
    assert!(bench.seen(2).contains(&"PUBLISH 2 1 value".to_owned()));
    let lists_somebody = |bytes: &[u8]| match journal::decoded(bytes) {
        crate::record::Record::Deliver { recipients, .. } => !recipients.is_empty(),
        _ => false,
    };
    assert!(!bench.world.journal.iter().any(|(_, bytes)| lists_somebody(bytes)));
}

/// Names, limit, and in how many milliseconds it is whole, as the shard gets them.
fn spent(bench: &Bench) -> Vec<(String, u8, u64)> {
    let spent = bench.broker.spent();
    spent.map(|(names, limit, full_at)| (names.join("/"), limit, bench.now.wall.ms_until(full_at))).collect()
}

fn spend(bench: &mut Bench, [account, client_id]: [&str; 2], limit: u8, ms: u64) {
    let full_at = UnixMs(bench.now.wall.0 + ms);
    bench.handle(Input::Spent { account, client_id, limit, full_at });
}

/// Crash after every record.
#[test]
fn what_is_used_up_of_a_limit_is_known_after_a_crash_as_far_as_it_was_durable() {
    let told = [
        (["", "one"], 2, 50_000),
        (["tenant", "one"], 2, 60_000),
        (["tenant", ""], 18, 70_000),
        (["", "one"], 2, 80_000),
        (["", "one"], 0, 90_000),
        (["tenant", ""], 18, 100_000),
    ];
    for durable in 0..=told.len() {
        let mut bench = Bench::new();
        told.iter().for_each(|(names, limit, ms)| spend(&mut bench, *names, *limit, *ms));
        assert_eq!(bench.world.journal.len(), told.len());
        bench.durable = durable;
        let bench = bench.crash();
        let latest: BTreeMap<_, _> =
            told[..durable].iter().map(|(names, limit, ms)| ((names.join("/"), *limit), *ms)).collect();
        let mut expected: Vec<_> =
            latest.into_iter().map(|((names, limit), ms)| (names, limit, ms)).collect();
        let mut found = spent(&bench);
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{durable} records");
        assert_eq!(bench.broker.live.len(), found.len() as u64, "and no other record is needed");
    }
}

#[test]
fn a_limit_that_is_whole_again_needs_no_record() {
    let mut bench = Bench::new();
    spend(&mut bench, ["", "soon"], 2, 30_000);
    spend(&mut bench, ["", "late"], 2, 300_000);
    bench.settle();
    bench.wait_ms(29_000);
    assert_eq!(bench.cut().broker.live.len(), 2);
    bench.wait_ms(1_000);
    assert_eq!(spent(&bench.cut()), [("/late".to_owned(), 2, 270_000)], "after a start, at once");
    bench.wait_ms(10_000);
    assert_eq!(spent(&bench), [("/late".to_owned(), 2, 260_000)]);
    assert_eq!(bench.broker.live.len(), 1);
    bench.wait_ms(300_000);
    assert!(bench.broker.live.is_empty());
    assert_eq!(bench.broker.timers.len(), 0);
}

#[test]
fn while_the_reserve_is_reached_nobody_new_is_written_down() {
    let mut bench = Bench::new();
    spend(&mut bench, ["", "known"], 2, 50_000);
    bench.handle(Input::DiskReserve { reached: true });
    spend(&mut bench, ["", "known"], 2, 60_000);
    spend(&mut bench, ["", "new"], 2, 60_000);
    assert_eq!(spent(&bench), [("/known".to_owned(), 2, 60_000)]);
    bench.handle(Input::DiskReserve { reached: false });
    spend(&mut bench, ["", "new"], 2, 60_000);
    assert_eq!(spent(&bench).len(), 2);
}

#[test]
fn where_there_are_too_many_the_limit_that_is_whole_first_is_forgotten_also_by_replay() {
    let mut bench = Bench::with(Settings { spent_max: 2, ..settings() });
    spend(&mut bench, ["", "long"], 2, 90_000);
    spend(&mut bench, ["tenant", "short"], 2, 70_000);
    spend(&mut bench, ["", "shorter"], 2, 60_000);
    assert_eq!(bench.world.journal.len(), 2, "it would be the first itself");
    spend(&mut bench, ["", "new"], 2, 80_000);
    let expected = [("/long".to_owned(), 2, 90_000), ("/new".to_owned(), 2, 80_000)];
    assert_eq!(spent(&bench), expected);
    bench.settle();
    let mut bench = bench.crash();
    assert_eq!(spent(&bench), expected);
    assert_eq!(bench.broker.live.len(), 2);
    // Of those that have passed nothing needs to be written.
    bench.now.wall = UnixMs(bench.now.wall.0 + 85_000);
    let records = bench.world.journal.len();
    spend(&mut bench, ["", "newer"], 2, 80_000);
    assert_eq!(bench.world.journal.len(), records + 1);
    // Another number of shards may have brought more than there may be.
    let more = Bench { durable: records + 1, ..bench };
    let mut bench = more.crash_with(Settings { spent_max: 1, ..settings() });
    assert_eq!(spent(&bench), [("/long".to_owned(), 2, 5_000), ("/newer".to_owned(), 2, 80_000)]);
    for (name, ms) in [("a", 90_000), ("b", 91_000), ("c", 92_000)] {
        spend(&mut bench, ["", name], 2, ms);
    }
    assert_eq!(spent(&bench), [("/c".to_owned(), 2, 92_000)]);
}
