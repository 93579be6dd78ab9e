//! Limits that no client reaches in a test's time, made small; and what a full shard does that no single client sees.

use super::*;

fn subscriber_of(bench: &mut Bench, slot: u32, client_id: &str, filter: &str, expiry: u32) {
    bench.connect(slot, client_id, true, expiry);
    bench.subscribe(slot, filter, 1);
    bench.seen(slot);
}

/// A broker with that setting, and the publisher 9.
fn bench(settings: Settings) -> Bench {
    let mut bench = Bench::with(settings);
    bench.connect(9, "publisher", true, 0);
    bench.seen(9);
    bench
}

/// Publishes at QoS 1 with the payload "m"; the answer.
fn answer(bench: &mut Bench, topic: &str, retain: bool) -> Vec<String> {
    bench.publish_with(9, topic, QoS::AtLeastOnce, 7, "m", retain);
    bench.settle();
    bench.seen(9)
}

#[test]
fn a_session_beyond_sessions_per_shard_max_is_refused_and_an_old_one_is_not() {
    // limits::SESSIONS_PER_SHARD_MAX
    let mut bench = Bench::with(Settings { sessions_max: 2, ..settings() });
    bench.connect(1, "one", true, 100);
    bench.connect(2, "two", true, 0);
    bench.connect(3, "three", true, 100);
    assert_eq!(bench.seen(3), ["CONNACK false Quota exceeded"]);
    assert_eq!(bench.world.closed, [(3, CloseReason::Refused)]);
    bench.connect(4, "one", false, 100);
    assert_eq!(bench.seen(4), ["CONNACK true Success"]);
    bench.handle(Input::Closed { connection: id(2) });
    bench.settle();
    bench.connect(5, "three", true, 100);
    assert_eq!(bench.seen(5), ["CONNACK false Success"], "room again");
}

/// A session that is away and has room for that many copies, with two subscriptions for each message.
fn subscribed_twice(queue_messages_max: u32) -> Bench {
    let mut bench = bench(Settings { queue_messages_max, ..settings() });
    subscriber_of(&mut bench, 1, "subscriber", "a", 100);
    bench.subscribe(1, "$share/group/a", 1);
    bench.handle(Input::Closed { connection: id(1) });
    bench.settle();
    bench
}

#[test]
fn a_message_for_two_subscriptions_of_one_full_queue_is_refused() {
    let mut bench = subscribed_twice(2);
    assert_eq!(answer(&mut bench, "a", false), ["Puback 7 Success"]);
    assert_eq!(answer(&mut bench, "a", false), ["Puback 7 Quota exceeded"]);
    bench.connect(2, "subscriber", false, 100);
    assert_eq!(bench.seen(2), ["CONNACK true Success", "PUBLISH 1 1 m", "PUBLISH 1 2 m"], "and no gap");
}

#[test]
fn a_session_with_room_for_one_of_two_copies_has_a_gap() {
    let mut bench = subscribed_twice(3);
    assert_eq!(answer(&mut bench, "a", false), ["Puback 7 Success"]);
    assert_eq!(answer(&mut bench, "a", false), ["Puback 7 Success"]);
    bench.connect(2, "subscriber", false, 100);
    assert_eq!(gap_told(&mut bench, 2).as_deref(), Some("1"));
}

#[test]
fn a_publish_beyond_the_retained_limits_is_refused_as_a_whole() {
    // limits::RETAINED_MESSAGES_MAX and RETAINED_BYTES_MAX
    let small = [
        Settings { retained_messages_max: 2, ..settings() },
        Settings { retained_bytes_max: 4, ..settings() },
    ];
    for settings in small {
        let mut bench = bench(settings);
        subscriber_of(&mut bench, 1, "subscriber", "c", 100);
        for topic in ["a", "b"] {
            assert_eq!(answer(&mut bench, topic, true), ["Puback 7 No matching subscribers"]);
        }
        assert_eq!(answer(&mut bench, "c", true), ["Puback 7 Quota exceeded"]);
        assert_eq!(bench.seen(1), [""; 0], "its publisher will send it again");
        assert_eq!(
            answer(&mut bench, "a", true),
            ["Puback 7 No matching subscribers"],
            "another in its place"
        );
        bench.publish_with(9, "b", QoS::AtLeastOnce, 7, "", true);
        bench.settle();
        bench.seen(9);
        bench.publish_with(9, "c", QoS::AtLeastOnce, 7, "m", true);
        bench.advance();
        assert_eq!(bench.seen(1), ["PUBLISH 1 1 m"], "room again");
    }
}

#[test]
fn a_retained_message_whose_sender_cannot_be_told_is_delivered_all_the_same() {
    let mut bench = bench(Settings { retained_messages_max: 0, ..settings() });
    subscriber_of(&mut bench, 1, "subscriber", "#", 100);
    bench.publish_with(9, "a", QoS::AtMostOnce, 0, "zero", true);
    bench.publish_with(9, "a", QoS::ExactlyOnce, 8, "two", true);
    bench.settle();
    assert_eq!(bench.seen(1), ["PUBLISH 0 0 zero", "PUBLISH 1 1 two"]);
    bench.connect(2, "late", true, 0);
    bench.subscribe(2, "#", 1);
    assert_eq!(bench.seen(2), ["CONNACK false Success", "SUBACK"], "nothing was retained");
}

#[test]
fn a_gap_is_on_disk_before_the_message_is_acknowledged() {
    let mut bench = bench(Settings { queue_messages_max: 1, ..settings() });
    subscriber_of(&mut bench, 1, "full", "a", 100);
    subscriber_of(&mut bench, 2, "other", "a", 0);
    bench.handle(Input::Closed { connection: id(1) });
    bench.settle();
    bench.publish(9, "a", QoS::AtLeastOnce, 7, "first");
    bench.ack(2, 0x40, 1);
    bench.settle();
    assert_eq!(bench.seen(9), ["Puback 7 Success"]);
    bench.publish(9, "a", QoS::AtLeastOnce, 8, "second");
    bench.ack(2, 0x40, 1);
    assert_eq!(bench.broker.statistics.refused, 1);
    assert_eq!(bench.seen(9), [""; 0], "everyone has it, but nothing on disk says that one has not");
    bench.sync();
    assert_eq!(bench.seen(9), ["Puback 8 Success"]);
}

/// What the CONNACK on that connection said of a gap.
fn gap_told(bench: &mut Bench, slot: u32) -> Option<String> {
    let packets = bench.world.sent.remove(&slot)?;
    let Ok(Packet::Connack(connack)) = wire::decode::packet(&packets[0], Some(Version::V5)) else {
        return None;
    };
    let mut properties = connack.properties.user_properties();
    properties.find(|(name, _)| *name == "ironpost-skipped").map(|(_, count)| count.to_owned())
}

/// A session that is not connected, has a message in its queue, and missed two more; on disk.
fn with_a_gap() -> Bench {
    let mut bench = bench(Settings { queue_messages_max: 1, ..settings() });
    subscriber_of(&mut bench, 1, "full", "a", 100);
    subscriber_of(&mut bench, 2, "other", "a", 0);
    bench.handle(Input::Closed { connection: id(1) });
    for packet_id in 7..10 {
        bench.publish(9, "a", QoS::AtLeastOnce, packet_id, "m");
        bench.ack(2, 0x40, 1);
        bench.settle();
    }
    bench
}

#[test]
fn a_gap_is_told_again_until_the_client_has_shown_that_it_got_a_connack() {
    let mut bench = with_a_gap();
    // The first connection is lost before its CONNACK leaves, the second before anyone reads it.
    let connect = Connect { session_expiry: Some(100), clean_start: false, ..connect("full") };
    let input = |slot| Input::Connect {
        connection: id(slot),
        connect: &connect,
        client_id: "full",
        assigned: false,
        account: "",
        passport: &crate::access::passport::UNPROVEN,
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    bench.handle(input(3));
    bench.handle(Input::Closed { connection: id(3) });
    bench.settle();
    assert_eq!(gap_told(&mut bench, 3), None);
    bench.connect_as(4, &connect);
    assert_eq!(gap_told(&mut bench, 4).as_deref(), Some("2"));
    bench.handle(Input::Closed { connection: id(4) });
    // Nor does it depend on the process, or on records older than the session's.
    let mut bench = bench.crash();
    bench.connect_as(5, &connect);
    assert_eq!(gap_told(&mut bench, 5).as_deref(), Some("2"));
    bench.packet(5, &[0xc0, 0]);
    bench.settle();
    bench.handle(Input::Closed { connection: id(5) });
    let mut bench = bench.crash();
    bench.connect_as(6, &connect);
    assert_eq!(gap_told(&mut bench, 6), None, "it had been told");
}

#[test]
fn a_gap_that_comes_after_connack_is_told_at_the_next() {
    let mut bench = with_a_gap();
    bench.connect(3, "full", false, 100);
    bench.publish(9, "a", QoS::AtLeastOnce, 11, "m");
    bench.ack(2, 0x40, 1);
    bench.settle();
    assert_eq!(gap_told(&mut bench, 3).as_deref(), Some("2"));
    bench.packet(3, &[0xc0, 0]);
    bench.settle();
    let mut bench = bench.crash();
    bench.connect(4, "full", false, 100);
    assert_eq!(gap_told(&mut bench, 4).as_deref(), Some("1"));
}

#[test]
fn a_gap_at_qos_0_writes_nothing() {
    let mut bench = bench(Settings { queue_messages_max: 1, send_window: 1, ..settings() });
    bench.connect(1, "full", true, 100);
    bench.subscribe(1, "a", 0);
    bench.subscribe(1, "b", 1);
    bench.publish(9, "b", QoS::AtLeastOnce, 7, "fills");
    bench.settle();
    let records = bench.world.journal.len();
    for _ in 0..3 {
        bench.publish(9, "a", QoS::AtMostOnce, 0, "m");
    }
    assert_eq!(bench.world.journal.len(), records);
    assert_eq!(bench.broker.statistics.refused, 3, "it is counted, for $SYS");
}

#[test]
fn with_the_reserve_reached_nothing_new_is_written() {
    // limits::SEGMENTS_MAX and SEGMENTS_RESERVE, as the broker sees them
    let mut bench = bench(settings());
    subscriber_of(&mut bench, 1, "durable", "a", 100);
    bench.handle(Input::DiskReserve { reached: true });
    let records = bench.world.journal.len();
    assert_eq!(answer(&mut bench, "a", false), ["Puback 7 Quota exceeded"]);
    bench.publish(9, "a", QoS::ExactlyOnce, 8, "m");
    assert_eq!(bench.seen(9), ["Pubrec 8 Quota exceeded"]);
    bench.publish_with(9, "a", QoS::AtMostOnce, 0, "m", true);
    assert_eq!(bench.seen(1), ["PUBLISH 0 0 m"]);
    bench.connect(2, "new", true, 100);
    assert_eq!(bench.seen(2), ["CONNACK false Quota exceeded"]);
    bench.connect(3, "passing", true, 0);
    assert_eq!(bench.seen(3), ["CONNACK false Success"]);
    assert_eq!(bench.world.journal.len(), records);
    bench.handle(Input::DiskReserve { reached: false });
    bench.publish(9, "a", QoS::AtLeastOnce, 7, "m");
    assert_eq!(bench.seen(1), ["PUBLISH 1 1 m"]);
}

#[test]
fn who_publishes_while_messages_wait_to_be_placed_is_paused_until_half_of_them_are() {
    // limits::UNPLACED_MESSAGES_MAX
    let mut bench = bench(settings());
    subscriber_of(&mut bench, 1, "subscriber", "a", 0);
    let publish = wire_publish("a");
    for number in 1..=crate::limits::UNPLACED_MESSAGES_MAX {
        assert_eq!(bench.world.paused.len(), 0, "after {number}");
        bench.take(9, &publish);
    }
    assert_eq!(bench.world.paused, [(9, true)]);
    // Others may connect and be answered, and are paused only when they publish too.
    bench.take(1, &[0xc0, 0]);
    assert_eq!(bench.seen(1), ["Pingresp"]);
    bench.take(1, &publish);
    assert_eq!(bench.world.paused, [(9, true), (1, true)]);
    bench.world.paused.clear();
    for _ in 0..crate::limits::UNPLACED_MESSAGES_MAX / 2 {
        bench.broker.advance(bench.now, 2, &mut bench.world);
        assert_eq!(bench.world.paused.len(), 0);
    }
    bench.advance();
    assert_eq!(bench.world.paused, [(9, false), (1, false)]);
    bench.take(9, &publish);
    assert_eq!(bench.world.paused.len(), 2, "it goes on");
}

#[test]
fn who_waits_goes_on_however_fast_others_publish() {
    use crate::limits::UNPLACED_MESSAGES_MAX;
    // Whether a turn places less than half of the bound, just that, or more.
    for budget in [1_000, UNPLACED_MESSAGES_MAX as u32, 2 * UNPLACED_MESSAGES_MAX as u32] {
        let mut bench = bench(settings());
        subscriber_of(&mut bench, 1, "subscriber", "a", 0);
        let publish = wire_publish("a");
        for _ in 0..UNPLACED_MESSAGES_MAX {
            bench.take(9, &publish);
        }
        assert_eq!(bench.world.paused, [(9, true)]);
        // From here on another publishes just as fast as messages are placed, and the bound is not reached again.
        for round in 0.. {
            bench.broker.advance(bench.now, budget, &mut bench.world);
            if bench.world.paused.contains(&(9, false)) {
                break;
            }
            assert!(round < 100, "it waits for ever, with {budget}");
            while !bench.world.paused.contains(&(1, true))
                && bench.broker.placing.len() < UNPLACED_MESSAGES_MAX - 1
            {
                bench.take(1, &publish);
            }
        }
    }
}

#[test]
fn who_publishes_while_the_disk_is_behind_is_paused_and_not_timed_out_until_it_is_not() {
    // limits::JOURNAL_BACKLOG_BYTES_MAX, as the broker sees it
    let mut bench = bench(settings());
    bench.connect_as(1, &Connect { keep_alive: 1, ..connect("pinger") });
    bench.handle(Input::DiskBehind { behind: true });
    bench.take(1, &wire_publish("a"));
    assert_eq!(bench.world.paused, [(1, true)]);
    bench.wait_ms(5_000);
    assert_eq!(bench.world.closed, [], "it is we who do not listen");
    bench.handle(Input::DiskBehind { behind: false });
    bench.advance();
    assert_eq!(bench.world.paused, [(1, true), (1, false)]);
    bench.wait_ms(1_000);
    bench.wait_ms(1_000);
    assert_eq!(bench.world.closed, [(1, CloseReason::KeepAlive)]);
}

#[test]
fn deliveries_go_on_however_fast_messages_come() {
    let mut bench = bench(settings());
    subscriber_of(&mut bench, 1, "subscriber", "a", 0);
    let publish = wire_publish("a");
    for _ in 0..20 {
        // As many as could be placed if that were all there is to do.
        (0..50).for_each(|_| bench.take(9, &publish));
        bench.broker.advance(bench.now, 100, &mut bench.world);
    }
    assert!(bench.seen(1).len() >= 20 * 16, "a session's turn each time");
}

#[test]
fn messages_go_on_however_fast_others_subscribe() {
    let mut bench = bench(settings());
    bench.connect(1, "flood", true, 0);
    subscriber_of(&mut bench, 2, "subscriber", "a", 0);
    let publish = wire_publish("a");
    for round in 0..20 {
        // More than could be looked at for retained messages, if that were all there is to do.
        for number in 0..50 {
            let filter = format!("{round}/{number}");
            bench.take(1, &wire_subscribe(&filter));
        }
        bench.take(9, &publish);
        bench.broker.advance(bench.now, 100, &mut bench.world);
        assert_eq!(bench.seen(2).len(), 1, "in the turn that it came in, round {round}");
    }
    bench.settle();
    assert_eq!(bench.seen(1).iter().filter(|line| line.starts_with("SUBACK")).count(), 20 * 50);
}

#[test]
fn what_waits_for_retained_messages_is_no_more_than_there_are_subscriptions() {
    let mut bench = bench(settings());
    bench.connect(1, "flood", true, 0);
    for _ in 0..50 {
        bench.take(1, &wire_subscribe("a/#"));
        bench.take(1, &wire_subscribe("a/#"));
        assert_eq!(bench.broker.retained_pulls.len(), 1);
        bench.take(1, &wire_unsubscribe("a/#"));
        assert_eq!(bench.broker.retained_pulls.len(), 0);
    }
    bench.take(1, &wire_subscribe("a/#"));
    bench.handle(Input::Closed { connection: id(1) });
    bench.settle();
    assert_eq!(bench.broker.retained_pulls.len(), 0);
}

#[test]
fn who_does_not_take_what_is_retained_keeps_nobody_busy_and_gets_it_when_it_does() {
    let mut bench = bench(settings());
    let topics = 100;
    for number in 0..topics {
        answer(&mut bench, &format!("r/x/y/{number}"), true);
    }
    bench.connect(1, "reader", true, 0);
    // More filters than one `advance` here looks at; that it ends is what matters.
    let levels = |mask: u32| {
        ["r", "x", "y"].iter().enumerate().map(
            move |(bit, name)| {
                if mask >> bit & 1 == 1 { "+" } else { *name }
            },
        )
    };
    let mut filters = 0;
    for mask in 0..8 {
        for last in ["+", "#"] {
            let filter: Vec<&str> = levels(mask).chain([last]).collect();
            bench.subscribe(1, &filter.join("/"), 1);
            filters += 1;
        }
    }
    let mut taken = 0;
    loop {
        let seen = bench.seen(1);
        let ids: Vec<u16> = seen
            .iter()
            .filter_map(|line| line.strip_prefix("PUBLISH 1 ")?.split(' ').next()?.parse().ok())
            .collect();
        if ids.is_empty() {
            break;
        }
        taken += ids.len();
        ids.into_iter().for_each(|packet_id| bench.ack(1, 0x40, packet_id));
    }
    assert_eq!(taken, topics * filters);
}

#[test]
fn whose_socket_was_full_gets_all_that_is_retained_as_soon_as_it_reads() {
    let mut bench = bench(settings());
    let topics = 200;
    for number in 0..topics {
        answer(&mut bench, &format!("r/{number}"), true);
    }
    bench.connect(1, "reader", true, 0);
    bench.world.no_room = true;
    bench.subscribe(1, "r/+", 0);
    assert_eq!(bench.seen(1), ["CONNACK false Success", "SUBACK"]);
    bench.world.no_room = false;
    bench.handle(Input::Drained { connection: id(1) });
    bench.advance();
    assert_eq!(bench.seen(1).len(), topics);
}

#[test]
fn retained_messages_stay_in_memory_beyond_what_may_be_resident() {
    // limits::RESIDENT_BYTES_DEFAULT does not count them: they have RETAINED_BYTES_MAX.
    let mut bench = bench(settings());
    for topic in ["a", "b", "c", "d"] {
        assert_eq!(answer(&mut bench, topic, true), ["Puback 7 No matching subscribers"]);
    }
    let mut bench = bench.crash_with(Settings { resident_bytes_max: 1, ..settings() });
    bench.connect(1, "late", true, 0);
    bench.subscribe(1, "#", 0);
    assert_eq!(bench.seen(1).len(), 2 + 4);
    assert_eq!(bench.world.fetched, 0, "another shard would have asked in vain");
}

#[test]
fn retained_messages_do_not_drive_others_out_of_memory() {
    // limits::RESIDENT_BYTES_DEFAULT: half of it is for what is on disk.
    let mut bench = bench(Settings { resident_bytes_max: 4_000, ..settings() });
    for number in 0..100 {
        answer(&mut bench, &format!("retained/{number}"), true);
    }
    subscriber_of(&mut bench, 1, "away", "a", 100);
    bench.handle(Input::Closed { connection: id(1) });
    bench.settle();
    assert_eq!(answer(&mut bench, "a", false), ["Puback 7 Success"]);
    bench.connect(2, "away", false, 100);
    assert_eq!(bench.seen(2), ["CONNACK true Success", "PUBLISH 1 1 m"]);
    assert_eq!(bench.world.fetched, 0, "it was there");
}

fn wire_publish(topic: &str) -> Vec<u8> {
    let length = u8::try_from(topic.len()).expect("short");
    [&[0x30, length + 4, 0, length][..], topic.as_bytes(), &[0, b'm']].concat()
}

fn wire_subscribe(filter: &str) -> Vec<u8> {
    let length = u8::try_from(filter.len()).expect("short");
    [&[0x82, length + 6, 0, 9, 0, 0, length][..], filter.as_bytes(), &[0]].concat()
}

fn wire_unsubscribe(filter: &str) -> Vec<u8> {
    let length = u8::try_from(filter.len()).expect("short");
    [&[0xa2, length + 5, 0, 9, 0, 0, length][..], filter.as_bytes()].concat()
}
