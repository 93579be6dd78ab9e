//! Several shards that say to each other what they have to: QoS 2 across shards, through crashes of all.

use super::checkpoint::through_salvage;
use super::*;

/// Brokers that share a placement; messages between them travel when the test says so.
pub(super) struct Shards(pub(super) Vec<Bench>);

impl Shards {
    pub(super) fn new(count: u16) -> Shards {
        let placement = Placement::new(count, [0; 16], None).expect("no pattern");
        let mut settings = Settings::with_placement(placement);
        settings.sys_interval_s = 0;
        let bench = |shard| Bench::of_shard(settings.clone(), ShardId(shard));
        let mut shards = Shards((0..count).map(bench).collect());
        shards.settle();
        assert!(shards.0.iter().all(|bench| bench.broker.ready()));
        shards
    }

    /// Hands over what the shards have said to each other so far; true if that was anything.
    pub(super) fn exchange(&mut self) -> bool {
        self.exchange_but(|_, _| false)
    }

    /// The same, but for what goes from one shard to another where that is held up.
    fn exchange_but(&mut self, held_up: impl Fn(u16, u16) -> bool) -> bool {
        let mut any = false;
        for from in self.0[0].broker.settings.placement.all() {
            for (to, message) in std::mem::take(&mut self.0[from.index()].world.mesh) {
                if held_up(from.0, to.0) {
                    self.0[from.index()].world.mesh.push((to, message));
                    continue;
                }
                self.0[to.index()].handle(Input::Mesh { from, message });
                any = true;
            }
        }
        self.0.iter_mut().for_each(Bench::advance);
        any
    }

    pub(super) fn settle(&mut self) {
        self.settle_but(None);
    }

    /// The same; the disk of one of them stands still.
    pub(super) fn settle_but(&mut self, stuck: Option<usize>) {
        loop {
            for (index, bench) in self.0.iter_mut().enumerate() {
                if stuck == Some(index) { bench.advance() } else { bench.settle() }
            }
            if !self.exchange() {
                return;
            }
        }
    }

    /// What is on its way between them is lost too.
    pub(super) fn crash(self) -> Shards {
        let mut shards = Shards(self.0.into_iter().map(Bench::crash).collect());
        shards.settle();
        shards
    }

    /// The same, and all start on what is salvaged.
    pub(super) fn crash_and_salvage(self) -> Shards {
        let mut shards = Shards(through_salvage(self.0));
        shards.settle();
        shards
    }

    /// A client id of that role whose home is that shard.
    pub(super) fn name_at(&self, home: usize, role: &str) -> String {
        let placement = &self.0[0].broker.settings.placement;
        let mut names = (0..1_000).map(|number| format!("{role} {number}"));
        names.find(|name| placement.home(name).index() == home).expect("each shard is the home of some")
    }

    /// A topic whose owner is that shard.
    pub(super) fn topic_of(&self, owner: u16) -> String {
        let owned = |number: &u32| {
            let owner_of = self.0[0].broker.settings.placement.owner(&format!("a/{number}"));
            owner_of == ShardId(owner)
        };
        let number = (0..1_000).find(owned).expect("each shard owns some topic");
        format!("a/{number}")
    }
}

/// The publisher is at home in shard 0, its subscriber in that one or the other, and the topic in either; both crash
/// when the message has been placed and the publisher's home does not know yet that it was.
#[test]
fn exactly_once_holds_wherever_publisher_owner_and_subscriber_are() {
    for (owner, home) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for (retain, exchanges) in (0..8).flat_map(|exchanges| [(false, exchanges), (true, exchanges)]) {
            let mut shards = Shards::new(2);
            let topic = shards.topic_of(owner);
            shards.0[home].connect(1, "subscriber", true, 1_000);
            shards.0[home].subscribe(1, "a/#", 2);
            shards.settle();
            shards.0[home].handle(Input::Closed { connection: id(1) });
            shards.0[0].connect(2, "publisher", true, 1_000);
            shards.settle();
            shards.0[0].publish_with(2, &topic, QoS::ExactlyOnce, 7, "once", retain);
            // The disk of shard 0 is as far as its inbound record; then each step of the way is made durable.
            for _ in 0..exchanges {
                shards.0.iter_mut().for_each(Bench::sync);
                let _ = shards.exchange();
            }
            let mut shards = shards.crash();
            shards.0[0].connect(2, "publisher", false, 1_000);
            shards.0[0].publish_with(2, &topic, QoS::ExactlyOnce, 7, "once", retain);
            shards.settle();
            shards.0[home].connect(3, "subscriber", false, 1_000);
            shards.settle();
            let seen = shards.0[home].seen(3);
            let deliveries = seen.iter().filter(|packet| packet.starts_with("PUBLISH")).count();
            let case = format!("owner {owner}, subscriber {home}, retain {retain}, {exchanges} exchanges");
            assert_eq!(deliveries, 1, "{case}: {seen:?}");
        }
    }
}

/// Else a process that stops in an orderly way leaves messages that only a start with the same shards can place.
#[test]
fn a_shard_has_drained_only_when_what_it_accepted_is_routed() {
    let mut shards = Shards::new(2);
    let topic = shards.topic_of(1);
    shards.0[1].connect(1, "subscriber", true, 1_000);
    shards.0[1].subscribe(1, "a/#", 2);
    shards.settle();
    shards.0[0].connect(2, "publisher", true, 1_000);
    shards.settle();
    shards.0[0].publish(2, &topic, QoS::ExactlyOnce, 7, "accepted");
    shards.0[0].handle(Input::Drain);
    shards.0[0].settle();
    let broker = &shards.0[0].broker;
    assert_eq!(broker.connections.len(), 0);
    assert!(!broker.drained(), "the owner of the topic does not have it yet");
    shards.settle();
    assert!(shards.0[0].broker.drained());
}

/// The publisher's home is ready, and routes again, before the topic's owner has heard from the subscriber's home.
#[test]
fn a_message_routed_again_waits_until_its_owner_knows_every_recipient() {
    let mut shards = Shards::new(3);
    let topic = shards.topic_of(1);
    shards.0[2].connect(1, "subscriber", true, 1_000);
    shards.0[2].subscribe(1, "a/#", 2);
    shards.settle();
    shards.0[0].connect(2, "publisher", true, 1_000);
    shards.settle();
    shards.0[0].publish(2, &topic, QoS::ExactlyOnce, 7, "accepted");
    shards.0[0].sync();
    assert!(shards.0[0].seen(2).contains(&"Pubrec 7 Success".to_owned()));
    let mut shards = Shards(shards.0.into_iter().map(Bench::crash).collect());
    assert!(!shards.0[0].broker.ready(), "clients would overtake what is still to be routed");
    for _ in 0..4 {
        shards.0.iter_mut().for_each(Bench::settle);
        let _ = shards.exchange_but(|from, to| (from, to) == (2, 1));
    }
    assert!(shards.0[0].broker.ready() && !shards.0[1].broker.ready());
    shards.settle();
    shards.0[2].connect(3, "subscriber", false, 1_000);
    shards.settle();
    assert_eq!(shards.0[2].seen(3), ["CONNACK true Success", "PUBLISH 2 1 accepted"]);
}

/// The publish reaches the owner when it knows of the subscription, and before it is asked for what it has retained.
#[test]
fn a_message_retained_while_a_client_subscribes_comes_once() {
    for (owner, home) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for exchanges in 0..6 {
            let mut shards = Shards::new(2);
            let topic = shards.topic_of(owner);
            shards.0[0].connect(2, "publisher", true, 0);
            shards.0[0].publish_with(2, &topic, QoS::AtLeastOnce, 1, "old", true);
            shards.settle();
            shards.0[home].connect(1, "subscriber", true, 0);
            shards.settle();
            let _ = shards.0[home].seen(1);
            shards.0[home].subscribe(1, &topic, 1);
            for _ in 0..exchanges {
                let _ = shards.exchange();
            }
            shards.0[0].publish_with(2, &topic, QoS::AtLeastOnce, 2, "new", true);
            shards.settle();
            let seen = shards.0[home].seen(1);
            let count = |payload: &str| seen.iter().filter(|packet| packet.ends_with(payload)).count();
            let case = format!("owner {owner}, subscriber {home}, {exchanges} exchanges: {seen:?}");
            assert_eq!(count("new"), 1, "{case}");
            assert!(count("old") <= 1, "{case}");
        }
    }
}

/// A message is retained, and then another client says that the topic has none; both are answered. Its publisher's home does
/// not know yet that the first one has arrived, and after a crash routes it again.
#[test]
fn what_is_retained_no_more_is_not_back_after_a_crash() {
    for (owner, home) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut shards = Shards::new(2);
        let topic = shards.topic_of(owner);
        shards.0[home].connect(1, "publisher", true, 100);
        // Somebody who gets it is slow, so that it is not settled.
        shards.0[1 - home].connect(2, "slow", true, 0);
        shards.0[1 - home].subscribe(2, &topic, 1);
        shards.settle();
        shards.0[home].publish_with(1, &topic, QoS::ExactlyOnce, 7, "old", true);
        shards.settle();
        shards.0[usize::from(owner)].connect(3, "other", true, 0);
        shards.0[usize::from(owner)].publish_with(3, &topic, QoS::AtLeastOnce, 1, "", true);
        shards.settle();
        shards.0[1 - home].ack(2, 0x40, 2);
        shards.settle();
        let answers = shards.0[usize::from(owner)].seen(3).join(" ");
        assert!(answers.contains("Puback 1"), "{answers}");
        let mut shards = shards.crash();
        shards.0[0].connect(4, "new", true, 0);
        shards.0[0].subscribe(4, &topic, 1);
        shards.settle();
        let seen = shards.0[0].seen(4);
        assert!(!seen.join(" ").contains("PUBLISH"), "owner {owner}, publisher {home}: {seen:?}");
    }
}

/// The queue that had no room is in the publisher's home or elsewhere; so is the topic. Both crash before that home
/// knows that the message was placed everywhere, when the queue has room again and a later message in it. Somebody else
/// there may have got it, also by a shared subscription, which is not the same thing.
#[test]
fn a_message_that_found_a_full_queue_does_not_come_after_a_crash_behind_a_later_one() {
    let places = [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter();
    let companies = |place| [None, Some("$share/g/"), Some("")].map(|company| (place, company));
    for ((owner, home), company) in places.flat_map(companies) {
        let mut shards = Shards::new(2);
        let topic = shards.topic_of(owner);
        shards.0[home].broker.settings.queue_messages_max = 1;
        shards.0[0].connect(9, "publisher", true, 100);
        shards.0[home].connect(1, "reader", true, 100);
        shards.0[home].subscribe(1, &topic, 2);
        // Someone else is slow, so that none of it is settled: routing has to begin anew after a crash.
        let other = 1 - home;
        shards.0[other].connect(2, "slow", true, 0);
        shards.0[other].subscribe(2, &topic, 1);
        if let Some(share) = company {
            shards.0[home].connect(3, "company", true, 100);
            shards.0[home].subscribe(3, &format!("{share}{topic}"), 1);
        }
        shards.settle();
        let _ = shards.0[home].seen(1);
        for (packet_id, payload) in [(1, "first"), (2, "second"), (3, "third")] {
            shards.0[0].publish(9, &topic, QoS::ExactlyOnce, packet_id, payload);
            shards.settle();
            if company.is_some() {
                shards.0[home].ack(3, 0x40, 1);
                shards.settle();
            }
            if packet_id == 2 {
                let reader = &mut shards.0[home];
                reader.ack(1, 0x50, 1);
                reader.settle();
                reader.ack(1, 0x70, 1);
                reader.settle();
            }
        }
        let roomy = |bench: Bench| {
            let settings = Settings { queue_messages_max: 100, ..bench.broker.settings.clone() };
            bench.crash_with(settings)
        };
        let mut shards = Shards(shards.0.into_iter().map(roomy).collect());
        shards.settle();
        let reader = &mut shards.0[home];
        reader.connect(1, "reader", false, 100);
        let expected = ["CONNACK true Success", "PUBLISH 2 1 third dup"];
        assert_eq!(reader.seen(1), expected, "owner {owner}, reader {home}, with {company:?}");
    }
}

/// The reader's shard dies before it is on disk there that a message was skipped; then that is placed again, and may
/// find room. So nothing that comes after it leaves before that is on disk.
#[test]
fn what_comes_after_a_skipped_message_waits_until_the_skip_is_durable() {
    let mut shards = Shards::new(2);
    let topic = shards.topic_of(1);
    shards.0[1].broker.settings.queue_messages_max = 1;
    shards.0[0].connect(9, "publisher", true, 100);
    shards.0[1].connect(1, "reader", true, 100);
    shards.0[1].subscribe(1, &topic, 1);
    shards.settle();
    let _ = shards.0[1].seen(1);
    for (packet_id, payload) in [(1, "first"), (2, "second"), (3, "third")] {
        // Only the publisher's home has a disk that keeps up.
        shards.0[0].publish(9, &topic, QoS::ExactlyOnce, packet_id, payload);
        shards.0[0].settle();
        while shards.exchange() {}
        match packet_id {
            1 => assert_eq!(shards.0[1].seen(1), ["PUBLISH 1 1 first"]),
            2 => shards.0[1].ack(1, 0x40, 1),
            _ => assert_eq!(shards.0[1].seen(1), [""; 0]),
        }
    }
    shards.settle();
    assert_eq!(shards.0[1].seen(1), ["PUBLISH 1 2 third"]);
}

/// What a backup relies on. Each shard is cut where its disk is; between the two cuts the message is placed over there, and
/// its publisher's home hears of it. If that is not held back, the one cut says that the other has it, and it has not.
#[test]
fn cuts_at_different_moments_lose_nothing_if_shards_hold_back_meanwhile() {
    let mut lost = 0;
    for (holds_back, exchanges) in (0..8).flat_map(|exchanges| [(true, exchanges), (false, exchanges)]) {
        let mut shards = Shards::new(2);
        let topic = shards.topic_of(1);
        shards.0[1].connect(1, "subscriber", true, 1_000);
        shards.0[1].subscribe(1, "a/#", 2);
        shards.settle();
        shards.0[1].handle(Input::Closed { connection: id(1) });
        shards.0[0].connect(2, "publisher", true, 1_000);
        shards.settle();
        shards.0[0].publish(2, &topic, QoS::ExactlyOnce, 7, "accepted");
        shards.0[0].sync();
        assert!(shards.0[0].seen(2).contains(&"Pubrec 7 Success".to_owned()), "it was acknowledged before");
        let hold_back = |shards: &mut Shards, on| {
            shards.0.iter_mut().for_each(|bench| bench.handle(Input::HoldBack { on }));
        };
        if holds_back {
            hold_back(&mut shards, true);
        }
        shards.0.iter_mut().for_each(Bench::sync);
        // The other shard is cut first, and this one after that many steps.
        let cut_over_there = shards.0[1].cut();
        for _ in 0..exchanges {
            let _ = shards.exchange();
            shards.0.iter_mut().for_each(Bench::sync);
        }
        assert_eq!(shards.0[0].broker.holds_back(), holds_back);
        let mut restored = Shards(vec![shards.0[0].cut(), cut_over_there]);
        restored.settle();
        restored.0[1].connect(3, "subscriber", false, 1_000);
        restored.settle();
        let seen = restored.0[1].seen(3);
        let deliveries = seen.iter().filter(|packet| packet.starts_with("PUBLISH")).count();
        if holds_back {
            assert_eq!(deliveries, 1, "{exchanges} exchanges: {seen:?}");
            // The broker that was backed up goes on where it was.
            hold_back(&mut shards, false);
            shards.settle();
            assert!(shards.0[0].broker.origins.all_routed());
        } else {
            lost += usize::from(deliveries == 0);
        }
    }
    assert!(lost > 0, "it would be lost without, or this shows nothing");
}

/// What is accepted between the two cuts is in neither, and not in the later one alone: its key is a number that the
/// restored shard gives to the next message.
#[test]
fn a_cut_has_no_key_of_what_another_does_not_have() {
    let mut dropped = 0;
    for holds_back in [true, false] {
        let mut shards = Shards::new(2);
        let topic = shards.topic_of(1);
        shards.0[1].connect(1, "subscriber", true, 1_000);
        shards.0[1].subscribe(1, &topic, 2);
        shards.settle();
        shards.0[1].handle(Input::Closed { connection: id(1) });
        shards.0[0].connect(2, "publisher", true, 0);
        shards.settle();
        if holds_back {
            shards.0.iter_mut().for_each(|bench| bench.handle(Input::HoldBack { on: true }));
        }
        let earlier = shards.0[0].cut();
        for packet_id in 1..=5 {
            shards.0[0].publish(2, &topic, QoS::ExactlyOnce, packet_id, "later");
        }
        shards.settle();
        assert_eq!(count_of(&shards.0[0].seen(2), "Pubrec"), 5, "nobody waits for a backup");
        let mut restored = Shards(vec![earlier, shards.0[1].cut()]);
        restored.settle();
        restored.0[0].connect(3, "publisher", true, 0);
        for packet_id in 1..=5 {
            restored.0[0].publish(3, &topic, QoS::ExactlyOnce, packet_id, "new");
            restored.settle();
        }
        restored.0[1].connect(4, "subscriber", false, 1_000);
        restored.settle();
        let mut new = 0;
        for packet_id in 1..=10 {
            new += count_of(&restored.0[1].seen(4), "new");
            restored.0[1].ack(4, 0x50, packet_id);
            restored.settle();
        }
        if holds_back {
            assert_eq!(new, 5);
            shards.0.iter_mut().for_each(|bench| bench.handle(Input::HoldBack { on: false }));
            shards.settle();
            assert!(shards.0[0].broker.origins.all_routed(), "what waited went its way");
        } else {
            dropped += 5 - new;
        }
    }
    assert!(dropped > 0, "they would be dropped without, or this shows nothing");
}

/// The same of what an ended session hands on: what the earlier cut still has in its queue, the later one has nowhere.
#[test]
fn a_cut_has_nothing_that_another_hands_on_again() {
    let mut twice = 0;
    for (holds_back, qos) in [true, false]
        .into_iter()
        .flat_map(|holds_back| [QoS::AtLeastOnce, QoS::ExactlyOnce].map(|qos| (holds_back, qos)))
    {
        let mut shards = Shards::new(2);
        let topic = shards.topic_of(1);
        let filter = format!("$share/g/{topic}");
        shards.0[0].connect(1, "ends", true, 1_000);
        shards.0[0].subscribe(1, &filter, 2);
        shards.settle();
        shards.0[0].handle(Input::Closed { connection: id(1) });
        shards.0[1].connect(2, "publisher", true, 1_000);
        shards.settle();
        shards.0[1].publish(2, &topic, qos, 7, "a job");
        shards.settle();
        shards.0[1].connect(3, "stays", true, 1_000);
        shards.0[1].subscribe(3, &filter, 2);
        shards.settle();
        shards.0[1].handle(Input::Closed { connection: id(3) });
        shards.settle();
        if holds_back {
            shards.0.iter_mut().for_each(|bench| bench.handle(Input::HoldBack { on: true }));
        }
        let earlier = shards.0[0].cut();
        shards.0[0].connect(4, "ends", true, 0);
        shards.settle();
        let mut restored = Shards(vec![earlier, shards.0[1].cut()]);
        restored.settle();
        restored.0[0].connect(5, "ends", true, 0);
        restored.settle();
        restored.0[1].connect(6, "stays", false, 1_000);
        restored.settle();
        let seen = restored.0[1].seen(6);
        if holds_back {
            assert_eq!(count_of(&seen, "a job"), 1, "{qos:?}: {seen:?}");
            shards.0.iter_mut().for_each(|bench| bench.handle(Input::HoldBack { on: false }));
            shards.settle();
            assert!(shards.0[0].broker.departing.is_empty(), "the session ends when the backup is made");
        } else {
            twice += usize::from(count_of(&seen, "a job") > 1);
        }
    }
    assert!(twice > 0, "it would come twice without, or this shows nothing");
}

fn count_of(seen: &[String], words: &str) -> usize {
    seen.iter().filter(|packet| packet.contains(words)).count()
}

/// The same of the entries of a session that has ended, which another member of its shared subscription gets.
#[test]
fn what_an_ended_session_hands_on_is_in_one_cut_or_the_other() {
    let mut lost = 0;
    for (holds_back, exchanges) in (0..8).flat_map(|exchanges| [(true, exchanges), (false, exchanges)]) {
        let mut shards = Shards::new(2);
        let topic = shards.topic_of(1);
        shards.0[0].connect(1, "ends", true, 1_000);
        shards.0[0].subscribe(1, "$share/g/a/#", 1);
        shards.settle();
        shards.0[0].handle(Input::Closed { connection: id(1) });
        shards.0[1].connect(2, "publisher", true, 1_000);
        shards.settle();
        shards.0[1].publish(2, &topic, QoS::AtLeastOnce, 7, "a job");
        shards.settle();
        shards.0[1].connect(3, "stays", true, 1_000);
        shards.0[1].subscribe(3, "$share/g/a/#", 1);
        shards.settle();
        shards.0[1].handle(Input::Closed { connection: id(3) });
        shards.settle();
        if holds_back {
            shards.0.iter_mut().for_each(|bench| bench.handle(Input::HoldBack { on: true }));
        }
        shards.0.iter_mut().for_each(Bench::sync);
        let cut_over_there = shards.0[1].cut();
        // A clean start ends it.
        shards.0[0].connect(4, "ends", true, 0);
        for _ in 0..exchanges {
            shards.0.iter_mut().for_each(Bench::sync);
            let _ = shards.exchange();
        }
        shards.0.iter_mut().for_each(Bench::sync);
        let mut restored = Shards(vec![shards.0[0].cut(), cut_over_there]);
        restored.settle();
        restored.0[0].connect(5, "ends", false, 1_000);
        restored.0[1].connect(6, "stays", false, 1_000);
        restored.settle();
        let mut seen = restored.0[0].seen(5);
        seen.extend(restored.0[1].seen(6));
        let deliveries = seen.iter().filter(|packet| packet.starts_with("PUBLISH")).count();
        if holds_back {
            assert!(deliveries >= 1, "{exchanges} exchanges: {seen:?}");
        } else {
            lost += usize::from(deliveries == 0);
        }
    }
    assert!(lost > 0, "it would be lost without, or this shows nothing");
}

/// `limits::POSTPONED_SETTLEMENTS_MAX`: whoever makes a backup learns of it, and everybody else goes on.
#[test]
fn what_is_held_back_is_bounded() {
    let mut postponed = super::super::postponed::Postponed::default();
    postponed.switch(true);
    let settlement = super::super::postponed::Settlement::Inbound(Lsn(1));
    let mut waiting = 0;
    while postponed.wait(settlement) {
        waiting += 1;
    }
    assert_eq!(waiting, crate::limits::POSTPONED_SETTLEMENTS_MAX);
    assert!(!postponed.is_on() && !postponed.wait(settlement));
}
