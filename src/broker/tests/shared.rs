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

    /// A clean start, and nothing is done about it yet.
    fn begin_anew(&mut self, slot: u32, client_id: &str) {
        self.handle(Input::Connect {
            connection: id(slot),
            connect: &Connect { session_expiry: Some(1_000), ..connect(client_id) },
            client_id,
            assigned: false,
            account: "",
            passport: &crate::access::passport::UNPROVEN,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        });
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
fn starts_anew_and_crashes(way: Way, steps: usize, is_salvaged: bool) -> (Vec<String>, bool) {
    let Way { other, owner, order, more } = way;
    let mut shards = Shards::new(2);
    let topic = shards.topic_of(owner);
    let filter = format!("$share/g/{topic}");
    let (leaves, stays) = (shards.name_at(0, "leaves"), shards.name_at(other, "stays"));
    shards.0[0].connect(1, &leaves, true, 1_000);
    shards.0[0].subscribe(1, &filter, 2);
    shards.settle();
    shards.0[0].handle(Input::Closed { connection: id(1) });
    shards.0[1].connect(2, "publisher", true, 1_000);
    for packet_id in 1..=3 {
        shards.0[1].publish(2, &topic, QoS::ExactlyOnce, packet_id, "work");
    }
    shards.settle();
    shards.0[other].connect(3, &stays, true, 1_000);
    shards.0[other].subscribe(3, &filter, 2);
    shards.settle();
    shards.0[other].handle(Input::Closed { connection: id(3) });
    shards.settle();
    shards.0[0].begin_anew(4, &leaves);
    for step in 0..steps {
        match order[step % 4] {
            Some(shard) => shards.0[shard].sync(),
            None => drop(shards.exchange()),
        }
    }
    let is_over = shards.0[0].broker.departing.is_empty() && steps > 0;
    let appended = shards.0[0].world.journal.len();
    shards.0[0].durable = appended.min(shards.0[0].durable + more);
    let mut shards = if is_salvaged { shards.crash_and_salvage() } else { shards.crash() };
    shards.0[0].connect(5, &leaves, true, 1_000);
    shards.settle();
    shards.0[other].connect(6, &stays, false, 1_000);
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
            let (seen, _) = starts_anew_and_crashes(way, steps, true);
            assert_eq!(deliveries(&seen), 3, "{way:?}, {steps} steps, and salvage: {seen:?}");
            let (seen, is_over) = starts_anew_and_crashes(way, steps, false);
            assert_eq!(deliveries(&seen), 3, "{way:?}, {steps} steps: {seen:?}");
            if is_over && steps > 12 {
                break;
            }
            assert!(steps < 60, "{way:?}: it never ends");
        }
    }
}

/// What a member that was away gets when it is back, all of it.
fn comes_back(shards: &mut Shards, home: usize, slot: u32, name: &str) -> Vec<String> {
    shards.0[home].connect(slot, name, false, 1_000_000);
    shards.settle();
    let mut seen = shards.0[home].seen(slot);
    for packet_id in 1..6 {
        shards.0[home].ack(slot, 0x50, packet_id);
        shards.settle();
        seen.extend(shards.0[home].seen(slot));
    }
    seen
}

/// The publisher's home never learns that the message has arrived, so that after the crash it is routed again: when the member
/// that had it has ended, and has handed it on or was about to, to one that has joined since.
#[test]
fn a_message_that_one_member_has_had_goes_to_no_other_after_a_crash() {
    const PUBLISHER: usize = 2;
    let ways = (0..3).flat_map(|owner| (0..16).map(move |steps| (owner, steps)));
    for (owner, steps, is_salvaged) in
        ways.flat_map(|(owner, steps)| [(owner, steps, false), (owner, steps, true)])
    {
        let mut shards = Shards::new(3);
        let topic = shards.topic_of(owner);
        let filter = format!("$share/g/{topic}");
        let (leaves, stays) = (shards.name_at(0, "leaves"), shards.name_at(1, "stays"));
        let publisher = shards.name_at(PUBLISHER, "publisher");
        shards.0[0].connect(1, &leaves, true, 1_000);
        shards.0[0].subscribe(1, &filter, 2);
        shards.0[PUBLISHER].connect(2, &publisher, true, 1_000);
        shards.settle();
        shards.0[0].handle(Input::Closed { connection: id(1) });
        shards.settle();
        shards.0[PUBLISHER].publish(2, &topic, QoS::ExactlyOnce, 7, "once");
        shards.0[PUBLISHER].sync();
        assert!(shards.0[PUBLISHER].seen(2).contains(&"Pubrec 7 Success".to_owned()));
        shards.settle_but(Some(PUBLISHER));
        shards.0[1].connect(3, &stays, true, 1_000);
        shards.0[1].subscribe(3, &filter, 2);
        shards.settle_but(Some(PUBLISHER));
        shards.0[1].handle(Input::Closed { connection: id(3) });
        shards.settle_but(Some(PUBLISHER));
        shards.0[0].begin_anew(4, &leaves);
        for step in 0..steps {
            match step % 4 {
                0 => shards.0[0].sync(),
                2 => shards.0[1].sync(),
                _ => drop(shards.exchange()),
            }
        }
        let mut shards = if is_salvaged { shards.crash_and_salvage() } else { shards.crash() };
        shards.0[0].connect(5, &leaves, true, 1_000);
        shards.settle();
        let seen = comes_back(&mut shards, 1, 6, &stays);
        assert_eq!(deliveries(&seen), 1, "owner {owner}, {steps} steps, salvaged {is_salvaged}: {seen:?}");
    }
}

/// The member that was chosen is on a shard whose disk is behind, and its session has expired after the crash. One that is
/// left is where an ordinary subscriber had the message; that does not mean that the shared subscription had it.
#[test]
fn a_message_that_an_ordinary_subscriber_has_had_still_comes_by_a_shared_subscription() {
    let mut away = 0;
    for (owner, publisher, first) in
        [0, 1].into_iter().flat_map(|owner| [(owner, 0, 0), (owner, 0, 1), (owner, 1, 0), (owner, 1, 1)])
    {
        let mut shards = Shards::new(2);
        let topic = shards.topic_of(owner);
        shards.0[1].connect(1, "ordinary", true, 1_000_000);
        shards.0[1].subscribe(1, &topic, 2);
        for home in [first, 1 - first] {
            let expiry = [1_000, 1_000_000][home];
            shards.0[home].connect(2, &format!("member {home}"), true, expiry);
            shards.0[home].subscribe(2, &format!("$share/g/{topic}"), 2);
            shards.settle();
            shards.0[home].handle(Input::Closed { connection: id(2) });
        }
        shards.0[1].handle(Input::Closed { connection: id(1) });
        shards.0[publisher].connect(3, "publisher", true, 0);
        shards.settle();
        // The first turn is another's.
        for packet_id in [7, 8] {
            shards.0[publisher].publish(3, &topic, QoS::ExactlyOnce, packet_id, "work");
        }
        shards.0[publisher].sync();
        for _ in 0..6 {
            shards.0[1].sync();
            let _ = shards.exchange();
        }
        away += shards.0[0].broker.statistics.queued;
        for bench in &mut shards.0 {
            bench.now.wall = bench.now.wall.plus_s(2_000);
        }
        let mut shards = shards.crash();
        let case = format!("owner {owner}, publisher {publisher}, first {first}");
        for name in ["ordinary", "member 1"] {
            let seen = comes_back(&mut shards, 1, 4, name);
            assert_eq!(deliveries(&seen), 2, "{name}, {case}: {seen:?}");
            shards.0[1].handle(Input::Closed { connection: id(4) });
            shards.settle();
        }
    }
    assert!(away > 0, "or nothing was lost with the shard that was behind");
}

/// The owner chooses a member that has just left, and then another, which has the message when all crash. One that joined
/// meanwhile does not get it again.
#[test]
fn a_message_that_found_another_member_comes_once_after_a_crash() {
    let mut shards = Shards::new(3);
    let topic = shards.topic_of(0);
    let filter = format!("$share/g/{topic}");
    for (home, name) in [(1, "leaves"), (2, "stays")] {
        shards.0[home].connect(1, name, true, 1_000);
        shards.0[home].subscribe(1, &filter, 2);
        shards.settle();
    }
    shards.0[2].handle(Input::Closed { connection: id(1) });
    shards.0[0].connect(2, "publisher", true, 1_000);
    shards.settle();
    for packet_id in 1..=2 {
        shards.0[0].publish(2, &topic, QoS::ExactlyOnce, packet_id, "work");
    }
    shards.0[0].sync();
    shards.0[1].unsubscribe(1, &filter);
    shards.settle_but(Some(0));
    shards.0[1].connect(3, "joins", true, 1_000);
    shards.0[1].subscribe(3, &filter, 2);
    shards.settle_but(Some(0));
    shards.0[1].handle(Input::Closed { connection: id(3) });
    shards.settle_but(Some(0));
    let mut shards = shards.crash();
    let stayed = comes_back(&mut shards, 2, 4, "stays");
    let joined = comes_back(&mut shards, 1, 5, "joins");
    assert_eq!((deliveries(&stayed), deliveries(&joined)), (2, 0), "{stayed:?}, {joined:?}");
}

/// One of those who had a message is done with it, and its publisher's home does not know that it has arrived.
#[test]
fn who_is_done_with_a_message_does_not_get_it_again_after_a_crash_or_salvage() {
    for (done, is_salvaged) in [("ordinary", false), ("member", false), ("ordinary", true), ("member", true)]
    {
        let mut shards = Shards::new(3);
        let topic = shards.topic_of(1);
        let names =
            [(1, "ordinary"), (1, "member"), (2, "joins")].map(|(home, role)| shards.name_at(home, role));
        let shared = format!("$share/g/{topic}");
        for (slot, (name, filter)) in (1..).zip(names.iter().zip([&topic, &shared])) {
            shards.0[1].connect(slot, name, true, 1_000);
            shards.0[1].subscribe(slot, filter, 2);
            shards.settle();
            if !name.starts_with(done) {
                shards.0[1].handle(Input::Closed { connection: id(slot) });
            }
        }
        shards.0[0].connect(3, "publisher", true, 0);
        shards.settle();
        shards.0[0].publish(3, &topic, QoS::ExactlyOnce, 7, "once");
        shards.0[0].sync();
        shards.settle_but(Some(0));
        let slot = if done == "ordinary" { 1 } else { 2 };
        for packet in [0x50, 0x70] {
            shards.0[1].ack(slot, packet, 1);
            shards.settle_but(Some(0));
        }
        assert_eq!(deliveries(&shards.0[1].seen(slot)), 1);
        shards.0[2].connect(4, &names[2], true, 1_000);
        shards.0[2].subscribe(4, &shared, 2);
        shards.settle_but(Some(0));
        let mut shards = if is_salvaged { shards.crash_and_salvage() } else { shards.crash() };
        let seen = [(1, 0), (1, 1), (2, 2)].map(|(home, which)| {
            let seen = comes_back(&mut shards, home, 5, &names[which]);
            shards.0[home].handle(Input::Closed { connection: id(5) });
            shards.settle();
            deliveries(&seen)
        });
        let expected = if done == "ordinary" { [0, 1, 0] } else { [1, 0, 0] };
        assert_eq!(seen, expected, "{done} is done, salvaged {is_salvaged}");
    }
}

/// A message at QoS 1 waits in memory for its acknowledgement when the session ends, and is written because of that or of the
/// time; whatever of it is on disk at a crash, the other member gets it once.
#[test]
fn what_waited_in_memory_is_handed_on_once_wherever_the_crash_is() {
    let (mut got, mut crashes) = (0, 0);
    loop {
        let mut bench = Bench::new();
        for (slot, name) in [(1, "leaves"), (2, "stays")] {
            bench.connect(slot, name, true, 1_000);
            bench.subscribe(slot, "$share/g/a/1", 2);
        }
        bench.handle(Input::Closed { connection: id(2) });
        bench.connect(3, "publisher", true, 0);
        bench.publish(3, "a/1", QoS::AtLeastOnce, 4, "zero");
        bench.publish(3, "a/1", QoS::AtLeastOnce, 1, "one");
        bench.wait_ms(200);
        bench.settle();
        // It says something: what comes next is waited for.
        bench.ack(1, 0x40, 1);
        bench.settle();
        let before = bench.world.journal.len();
        bench.publish(3, "a/1", QoS::AtLeastOnce, 2, "two");
        bench.begin_anew(4, "leaves");
        bench.advance();
        bench.wait_ms(200);
        bench.settle();
        bench.durable = before + crashes;
        if bench.durable > bench.world.journal.len() {
            break;
        }
        let mut bench = bench.crash();
        bench.connect(5, "leaves", true, 1_000);
        bench.connect(6, "stays", false, 1_000);
        let mut seen = bench.seen(6);
        for packet_id in 1..4 {
            bench.ack(6, 0x40, packet_id);
            bench.settle();
            seen.extend(bench.seen(6));
        }
        let count = |payload: &str| seen.iter().filter(|packet| packet.ends_with(payload)).count();
        assert_eq!(count("one"), 1, "{crashes} more records: {seen:?}");
        assert!(count("two") <= 1, "{crashes} more records: {seen:?}");
        got += count("two");
        crashes += 1;
    }
    assert!(got > 0 && crashes > 6, "{got} of {crashes}");
}

#[test]
fn members_take_turns_at_every_qos() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut bench = Bench::new();
        for slot in [1, 2] {
            bench.connect(slot, &format!("member {slot}"), true, 0);
            bench.subscribe(slot, "$share/g/a/1", 2);
        }
        bench.connect(3, "publisher", true, 0);
        for number in 1..=6 {
            let packet_id = if qos == QoS::AtMostOnce { 0 } else { number };
            bench.publish(3, "a/1", qos, packet_id, "work");
            bench.wait_ms(1_000);
            bench.settle();
        }
        let seen = [1, 2].map(|slot| deliveries(&bench.seen(slot)));
        assert_eq!(seen, [3, 3], "{qos:?}");
    }
}
