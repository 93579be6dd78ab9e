//! Shared subscriptions whose members leave while messages for them are on their way.

use super::shards::Shards;
use super::*;

fn deliveries(seen: &[String]) -> usize {
    seen.iter().filter(|packet| packet.starts_with("PUBLISH")).count()
}

impl Bench {
    fn unsubscribe(&mut self, slot: u32, filter: &str) {
        let length = u8::try_from(filter.len()).expect("short");
        let mut bytes = vec![0xA2, length + 5, 0, 8, 0, 0, length];
        bytes.extend_from_slice(filter.as_bytes());
        self.packet(slot, &bytes);
    }
}

/// How a member leaves: its session ends, or it only unsubscribes.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Leaves {
    Ends,
    Unsubscribes,
}

/// The owner has chosen the shard of a member that leaves before the message comes there.
#[test]
fn a_message_for_a_member_that_has_just_left_reaches_one_on_another_shard() {
    for (leaves, qos) in [Leaves::Ends, Leaves::Unsubscribes]
        .into_iter()
        .flat_map(|leaves| [(leaves, QoS::AtLeastOnce), (leaves, QoS::ExactlyOnce)])
    {
        let mut shards = Shards::new(3);
        let topic = shards.topic_of(0);
        let filter = format!("$share/g/{topic}");
        for home in [1, 2] {
            shards.0[home].connect(1, "member", true, 0);
            shards.0[home].subscribe(1, &filter, 2);
            shards.settle();
        }
        shards.0[0].connect(2, "publisher", true, 0);
        let mut count = 0;
        for packet_id in 1..=2 {
            shards.0[0].publish(2, &topic, qos, packet_id, "work");
            shards.0[0].settle();
        }
        match leaves {
            Leaves::Ends => shards.0[1].handle(Input::Closed { connection: id(1) }),
            Leaves::Unsubscribes => shards.0[1].unsubscribe(1, &filter),
        }
        for _ in 0..20 {
            shards.settle();
            let seen = shards.0[2].seen(1);
            count += deliveries(&seen);
            for packet_id in 1..=2 {
                shards.0[2].ack(1, if qos == QoS::AtLeastOnce { 0x40 } else { 0x50 }, packet_id);
            }
        }
        let answers = shards.0[0].seen(2).join(" ");
        assert_eq!(count, 2, "{leaves:?}, {qos:?}");
        assert!(!answers.contains("NoMatching"), "{leaves:?}, {qos:?}: {answers}");
    }
}

/// A member is chosen, and its session ends before the message is in its queue, or after that.
#[test]
fn a_message_for_a_member_that_ends_goes_to_another_at_every_step() {
    for units in 1..40 {
        let mut bench = Bench::new();
        for slot in [1, 2] {
            bench.connect(slot, &format!("member {slot}"), true, 0);
            bench.subscribe(slot, "$share/g/a/1", 1);
        }
        bench.connect(3, "publisher", true, 0);
        let packet = Packet::Publish(publish("a/1", QoS::AtLeastOnce, 1, "work"));
        bench.handle(Input::Packet { connection: id(3), packet: &packet });
        bench.advance_by(units);
        bench.handle(Input::Closed { connection: id(1) });
        bench.settle();
        let seen = bench.seen(2);
        assert_eq!(deliveries(&seen), 1, "after {units} units: {seen:?}");
    }
}

/// What it had is handed on all the same, also if a crash came in between.
#[test]
fn a_member_that_unsubscribes_and_then_ends_leaves_its_messages_to_another() {
    for crashes in [false, true] {
        let mut bench = Bench::new();
        for slot in [1, 2] {
            bench.connect(slot, &format!("member {slot}"), true, 1_000);
            bench.subscribe(slot, "$share/g/a/1", 1);
        }
        bench.handle(Input::Closed { connection: id(2) });
        bench.connect(3, "publisher", true, 0);
        bench.publish(3, "a/1", QoS::AtLeastOnce, 1, "work");
        bench.wait_ms(1_000);
        bench.settle();
        assert_eq!(deliveries(&bench.seen(1)), 1, "the one that is connected");
        bench.unsubscribe(1, "$share/g/a/1");
        bench.settle();
        if crashes {
            bench = bench.crash();
        }
        bench.connect(4, "member 1", true, 1_000);
        bench.connect(5, "member 2", false, 1_000);
        bench.settle();
        let seen = bench.seen(5);
        assert_eq!(deliveries(&seen), 1, "crashes {crashes}: {seen:?}");
    }
}

/// The session was in two groups for that topic, and each finds a member of its own; also if a crash came in between.
#[test]
fn a_message_that_a_session_leaves_goes_to_the_group_that_it_came_by() {
    for crashes in [false, true] {
        let mut bench = Bench::new();
        let filters = ["$share/g/a/1", "$share/h/a/+"];
        bench.connect(1, "leaves", true, 1_000);
        filters.iter().for_each(|filter| bench.subscribe(1, filter, 1));
        bench.connect(3, "publisher", true, 0);
        bench.publish(3, "a/1", QoS::AtLeastOnce, 1, "work");
        bench.wait_ms(1_000);
        bench.settle();
        if crashes {
            bench = bench.crash();
        }
        for (slot, filter) in [(4, filters[0]), (5, filters[1])] {
            bench.connect(slot, &format!("stays {slot}"), true, 1_000);
            bench.subscribe(slot, filter, 1);
        }
        bench.connect(6, "leaves", true, 1_000);
        bench.settle();
        for slot in [4, 5] {
            let seen = bench.seen(slot);
            assert_eq!(deliveries(&seen), 1, "crashes {crashes}, {slot}: {seen:?}");
        }
    }
}

/// The clean start may be on disk when the end of the session that it replaced is not.
#[test]
fn a_member_that_starts_anew_leaves_its_messages_to_another_wherever_the_crash_is() {
    let mut crashes = 0;
    loop {
        let mut bench = Bench::new();
        bench.connect(1, "leaves", true, 1_000);
        bench.subscribe(1, "$share/g/a/1", 1);
        bench.connect(3, "publisher", true, 0);
        bench.publish(3, "a/1", QoS::AtLeastOnce, 1, "work");
        bench.wait_ms(1_000);
        bench.connect(2, "stays", true, 1_000);
        bench.subscribe(2, "$share/g/a/1", 1);
        let before = bench.world.journal.len();
        bench.handle(Input::Closed { connection: id(1) });
        bench.connect(4, "leaves", true, 1_000);
        bench.settle();
        bench.durable = before + crashes;
        if bench.durable > bench.world.journal.len() {
            break;
        }
        bench = bench.crash();
        bench.connect(5, "leaves", true, 1_000);
        bench.connect(6, "stays", false, 1_000);
        bench.settle();
        let seen = bench.seen(6);
        assert!(deliveries(&seen) >= 1, "{crashes} more records: {seen:?}");
        crashes += 1;
    }
    assert!(crashes >= 3, "a crash before the clean start, before the end, and after it");
}

/// One way for an ended session's QoS 2 messages to another member.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Home of the other member, and owner of the topic.
    other: usize,
    owner: u16,
    /// What happens in turn: a disk catches up, or what the shards have said to each other arrives.
    order: [Option<usize>; 4],
    /// Of what the first disk is not known to have, it has so many records.
    more: usize,
}

/// A member starts anew with three messages in its queue; after so many steps all crash. What the other member gets, and
/// whether it was all over before.
fn starts_anew_and_crashes(way: Way, steps: usize) -> (Vec<String>, bool) {
    let Way { other, owner, order, more } = way;
    let mut shards = Shards::new(2);
    let topic = shards.topic_of(owner);
    let filter = format!("$share/g/{topic}");
    shards.0[0].connect(1, "leaves", true, 1_000);
    shards.0[0].subscribe(1, &filter, 2);
    shards.settle();
    shards.0[0].handle(Input::Closed { connection: id(1) });
    shards.0[1].connect(2, "publisher", true, 1_000);
    for packet_id in 1..=3 {
        shards.0[1].publish(2, &topic, QoS::ExactlyOnce, packet_id, "work");
    }
    shards.settle();
    shards.0[other].connect(3, "stays", true, 1_000);
    shards.0[other].subscribe(3, &filter, 2);
    shards.settle();
    shards.0[other].handle(Input::Closed { connection: id(3) });
    shards.settle();
    shards.0[0].handle(Input::Connect {
        connection: id(4),
        connect: &Connect { session_expiry: Some(1_000), ..connect("leaves") },
        client_id: "leaves",
        assigned: false,
        account: "",
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
    });
    for step in 0..steps {
        match order[step % 4] {
            Some(shard) => shards.0[shard].sync(),
            None => drop(shards.exchange()),
        }
    }
    let is_over = shards.0[0].broker.departing.is_empty() && steps > 0;
    let appended = shards.0[0].world.journal.len();
    shards.0[0].durable = appended.min(shards.0[0].durable + more);
    let mut shards = shards.crash();
    shards.0[0].connect(5, "leaves", true, 1_000);
    shards.settle();
    shards.0[other].connect(6, "stays", false, 1_000);
    shards.settle();
    let mut seen = shards.0[other].seen(6);
    for packet_id in 1..6 {
        shards.0[other].ack(6, 0x50, packet_id);
        shards.settle();
        seen.extend(shards.0[other].seen(6));
    }
    for Bench { broker, .. } in &shards.0 {
        let is_settled =
            broker.handed_on.is_empty() && broker.departing.is_empty() && broker.origins.all_routed();
        assert!(is_settled, "{way:?}, {steps} steps");
    }
    (seen, is_over)
}

/// Whatever is on disk of it at a crash, and how far the messages were on their way: each comes once.
#[test]
fn what_an_ended_session_had_at_qos_2_comes_to_one_other_once_wherever_the_crash_is() {
    let places = [(0, 0), (1, 0), (0, 1), (1, 1)].into_iter();
    let orders = [[Some(0), Some(1), None, None], [None, None, Some(1), Some(0)]];
    let ways = places.flat_map(|(other, owner)| orders.map(|order| Way { other, owner, order, more: 0 }));
    for way in ways.flat_map(|way| [0, 1, 2].map(|more| Way { more, ..way })) {
        for steps in 0.. {
            let (seen, is_over) = starts_anew_and_crashes(way, steps);
            assert_eq!(deliveries(&seen), 3, "{way:?}, {steps} steps: {seen:?}");
            if is_over && steps > 12 {
                break;
            }
            assert!(steps < 60, "{way:?}: it never ends");
        }
    }
}
