//! A backlog is kept on disk alone, and what expires in it is never read.

use super::*;
use crate::broker::stored::Queued;

/// A subscriber that is away, and so many messages for it, one second apart in their numbers only.
fn backlog(messages: u16, expiry_s: Option<u32>) -> Bench {
    let mut bench = Bench::new();
    bench.connect(1, "subscriber", true, 100_000);
    bench.subscribe(1, "a/#", 1);
    bench.handle(Input::Closed { connection: id(1) });
    bench.connect(2, "publisher", true, 100_000);
    bench.settle();
    for number in 1..=messages {
        let payload = number.to_string();
        let packet =
            Publish { message_expiry: expiry_s, ..publish("a/b", QoS::AtLeastOnce, number, &payload) };
        bench.handle(Input::Packet { connection: id(2), packet: &Packet::Publish(packet) });
        bench.settle();
    }
    leave_on_disk(&mut bench);
    let _ = bench.seen(2);
    bench
}

/// For a moment no message may be in memory that is on disk.
fn leave_on_disk(bench: &mut Bench) {
    let messages_max = settings().resident_bytes_max;
    bench.broker.messages.set_resident_bytes_max(0);
    bench.broker.looks = 1;
    bench.settle();
    bench.broker.messages.set_resident_bytes_max(messages_max);
}

fn queue_of(bench: &Bench, client: &str) -> Vec<Queued> {
    let slot = bench.broker.sessions.find(client).expect("it is durable");
    let delivery = bench.broker.sessions.get(slot).delivery.as_deref();
    delivery.map_or(Vec::new(), |delivery| delivery.queue.iter().collect())
}

/// The subscriber comes back, and acknowledges what it gets.
fn drain(bench: &mut Bench, messages: u16) {
    bench.connect(3, "subscriber", false, 100_000);
    let mut expected: Vec<String> = (1..=messages).map(|number| number.to_string()).collect();
    let mut got = Vec::new();
    while got.len() < expected.len() {
        let seen = bench.seen(3);
        let publishes: Vec<&String> = seen.iter().filter(|line| line.starts_with("PUBLISH")).collect();
        assert!(!publishes.is_empty(), "{} of {}", got.len(), expected.len());
        for line in publishes {
            let words: Vec<&str> = line.split(' ').collect();
            bench.ack(3, 0x40, words[2].parse().unwrap());
            got.push(words[3].to_owned());
        }
        bench.settle();
    }
    expected.truncate(got.len());
    assert_eq!(got, expected);
}

#[test]
fn a_backlog_has_no_message_in_memory_and_comes_in_order() {
    let mut bench = backlog(700, None);
    assert!(queue_of(&bench, "subscriber").iter().all(|queued| matches!(queued, Queued::Stored(_))));
    assert_eq!((queue_of(&bench, "subscriber").len(), bench.broker.messages.len()), (700, 0));
    drain(&mut bench, 700);
    bench.settle();
    assert_eq!((bench.broker.held().1, bench.broker.messages.len()), (0, 0));
}

#[test]
fn a_small_backlog_stays_in_memory_and_is_not_read_back() {
    let mut bench = Bench::new();
    bench.connect(2, "publisher", true, 100_000);
    // It comes and goes without ever being stored: that leaves nothing behind.
    for number in 1..=50 {
        bench.connect(1, "subscriber", number == 1, 100_000);
        bench.subscribe(1, "a/#", 1);
        bench.handle(Input::Closed { connection: id(1) });
        bench.publish(2, "a/b", QoS::AtLeastOnce, number, "small");
        bench.settle();
        assert!(matches!(queue_of(&bench, "subscriber")[..], [Queued::Here(_)]));
        assert_eq!(bench.broker.storing.len(), 1);
        bench.connect(1, "subscriber", false, 100_000);
        assert_eq!(bench.seen(1).last().map(String::as_str), Some("PUBLISH 1 1 small"));
        bench.ack(1, 0x40, 1);
        bench.settle();
        bench.handle(Input::Closed { connection: id(1) });
    }
    assert_eq!((bench.world.fetched, bench.broker.messages.len()), (0, 0));
}

#[test]
fn a_backlog_that_weighs_much_is_left_on_disk_oldest_queue_first() {
    let mut bench = Bench::with(Settings { resident_bytes_max: 30_000, ..settings() });
    bench.connect(2, "publisher", true, 100_000);
    for (number, name) in [(3, "first"), (4, "second")] {
        bench.connect(number, name, true, 100_000);
        bench.subscribe(number, name, 1);
        bench.handle(Input::Closed { connection: id(number) });
    }
    let publish = |bench: &mut Bench, topic: &str, numbers: std::ops::RangeInclusive<u16>| {
        for number in numbers {
            bench.publish(2, topic, QoS::AtLeastOnce, number, "a message");
            bench.settle();
        }
    };
    let here = |bench: &Bench, name: &str| {
        queue_of(bench, name).iter().filter(|queued| matches!(queued, Queued::Here(_))).count()
    };
    publish(&mut bench, "first", 1..=30);
    assert_eq!(here(&bench, "first"), 30, "they weigh little");
    publish(&mut bench, "second", 31..=90);
    assert_eq!(here(&bench, "first"), 0);
    assert!(here(&bench, "second") > 30, "{} of 60", here(&bench, "second"));
}

#[test]
fn a_backlog_is_the_same_after_a_crash() {
    let mut bench = backlog(300, None).crash();
    bench.settle();
    assert_eq!((queue_of(&bench, "subscriber").len(), bench.broker.messages.len()), (300, 0));
    drain(&mut bench, 300);
}

/// Each turn reads back what was asked for in the one before.
#[test]
fn a_backlog_is_read_back_many_messages_at_a_time_but_not_without_bound() {
    let mut bench = backlog(300, None);
    let connect = Connect { session_expiry: Some(100_000), clean_start: false, ..connect("subscriber") };
    bench.handle(Input::Connect {
        connection: id(3),
        connect: &connect,
        client_id: "subscriber",
        assigned: false,
        account: "",
        passport: &crate::access::passport::UNPROVEN,
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
    });
    bench.durable = bench.world.journal.len();
    let (lsn, _) = *bench.world.journal.last().expect("the session is back");
    bench.handle(Input::Durable { lsn });
    bench.advance_by(1_000);
    assert_eq!(bench.world.fetches.len(), 32, "what is due, and what comes behind it");
    for lsn in std::mem::take(&mut bench.world.fetches) {
        bench.fetch(lsn);
    }
    (0..10).for_each(|_| bench.advance_by(1_000));
    assert_eq!(bench.seen(3).len(), 1 + 32, "they leave without another being read");
    bench.advance();
    assert_eq!(bench.seen(3).len(), 128 - 32, "and the rest of the window");
}

/// Whoever is far behind keeps in memory what comes next, and no more.
#[test]
fn a_reader_that_is_far_behind_has_the_rest_of_its_backlog_on_disk() {
    let mut bench = backlog(2_000, None);
    bench.connect(3, "subscriber", false, 100_000);
    for number in 2_001..=2_020 {
        bench.publish(2, "a/b", QoS::AtLeastOnce, number, "more");
        bench.settle();
    }
    leave_on_disk(&mut bench);
    let queue = queue_of(&bench, "subscriber");
    let here = queue.iter().filter(|queued| matches!(queued, Queued::Here(_))).count();
    assert!(queue.len() > 1_800 && here < 20, "{here} of {} are in memory", queue.len());
}

#[test]
fn what_expires_in_a_queue_frees_what_it_holds_without_being_read() {
    for crash in [false, true] {
        let mut bench = backlog(600, Some(5));
        if crash {
            bench = bench.crash();
            bench.settle();
        }
        let records = bench.broker.live().len();
        assert_eq!(bench.broker.held().1, 600);
        for _ in 0..20 {
            bench.wait_ms(1_000);
        }
        bench.settle();
        assert_eq!((bench.broker.held().1, bench.broker.messages.len()), (0, 0), "crash: {crash}");
        assert_eq!(bench.broker.live().len(), records - 600);
        assert_eq!(bench.world.fetched, 0, "nothing was read for it");
    }
}

#[test]
fn what_does_not_expire_stays_behind_what_does() {
    let mut bench = backlog(10, Some(5));
    bench.publish(2, "a/b", QoS::AtLeastOnce, 11, "stays");
    bench.settle();
    for _ in 0..10 {
        bench.wait_ms(1_000);
    }
    bench.connect(3, "subscriber", false, 100_000);
    assert_eq!(bench.seen(3), ["CONNACK true Success", "PUBLISH 1 1 stays"]);
}

/// The same of a retained message, whose topic nobody subscribes to; one that replaced another lives as long as it says.
#[test]
fn a_retained_message_that_expires_frees_what_it_holds_without_being_asked_for() {
    for crash in [false, true] {
        let mut bench = Bench::new();
        bench.connect(2, "publisher", true, 1_000);
        for (number, topic, expiry_s) in [(1, "a", 5), (2, "b", 50), (3, "c", 5), (4, "c", 50)] {
            let packet = Packet::Publish(Publish {
                retain: true,
                message_expiry: Some(expiry_s),
                ..publish(topic, QoS::AtLeastOnce, number, "value")
            });
            bench.handle(Input::Packet { connection: id(2), packet: &packet });
            bench.settle();
        }
        if crash {
            bench = bench.crash();
        }
        assert_eq!(bench.broker.retained.len(), 3);
        let records = bench.broker.live().len();
        bench.wait_ms(6_000);
        assert_eq!((bench.broker.retained.len(), bench.broker.messages.len()), (2, 2), "crash: {crash}");
        bench.wait_ms(50_000);
        assert_eq!((bench.broker.retained.len(), bench.broker.messages.len()), (0, 0), "crash: {crash}");
        // Each has a body, and a record that says that it is retained.
        assert_eq!(bench.broker.live().len(), records - 6, "crash: {crash}");
        assert_eq!(bench.broker.retained.bytes(), 0);
    }
}
