//! The index against a plain list, and its particular corners.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::limits::TOPIC_LEVELS_MAX;
use crate::wire::QoS;

fn index() -> Subscriptions {
    Subscriptions::new([7; 16])
}

fn grant(number: u32) -> Grant {
    let qos = QoS::from_bits((number % 3) as u8).expect("0, 1 or 2");
    Grant { options: SubscribeOptions { qos, ..Default::default() }, subscription_id: number }
}

/// Whether a topic matches a filter without prefix: the standard's text, level by level.
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    for (place, level) in filter.iter().enumerate() {
        match *level {
            "#" => return true,
            "+" if place < topic.len() => {}
            level if topic.get(place) == Some(&level) => {}
            _ => return false,
        }
    }
    filter.len() == topic.len()
}

fn without_prefix(filter: &str) -> &str {
    match filter.strip_prefix("$share/") {
        Some(rest) => rest.split_once('/').expect("a shared filter has a name").1,
        None => filter,
    }
}

/// The texts that a walk visits, sorted; fails if it visits one twice.
fn walked(index: &Subscriptions, topic: &str) -> Vec<String> {
    let mut found = Vec::new();
    index.walk(topic, |id, entry| {
        assert_eq!(index.find(entry.text()), Some(id));
        found.push(entry.text().to_owned());
    });
    found.sort();
    let visits = found.len();
    found.dedup();
    assert_eq!(found.len(), visits, "an entry was visited twice for {topic}");
    found
}

/// The same from plain maps.
#[derive(Default)]
struct Plain {
    local: BTreeMap<(String, u32), Grant>,
    remote: BTreeMap<(String, u16), u32>,
}

impl Plain {
    fn filters(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.local.keys().map(|(filter, _)| filter.as_str()).collect();
        all.extend(self.remote.keys().map(|(filter, _)| filter.as_str()));
        all.sort_unstable();
        all.dedup();
        all
    }

    fn check(&self, index: &Subscriptions, topics: &[String]) {
        let filters = self.filters();
        assert_eq!(index.len(), filters.len());
        for filter in &filters {
            let id = index.find(filter).expect("a wanted filter is there");
            assert_eq!(index.text(id), *filter);
            let entry = index.entry(id);
            assert_eq!(entry.is_shared(), filter.starts_with("$share/"));
            let local: Vec<(u32, Grant)> = entry.local().iter().map(|one| (one.session, one.grant)).collect();
            let wanted: Vec<(u32, Grant)> = self
                .local
                .iter()
                .filter(|((text, _), _)| text == filter)
                .map(|((_, session), grant)| (*session, *grant))
                .collect();
            assert_eq!(local, wanted, "subscribers of {filter}");
            let remote: Vec<(u16, u32)> = entry.remote().iter().map(|&(shard, n)| (shard.0, n)).collect();
            let wanted: Vec<(u16, u32)> = self
                .remote
                .iter()
                .filter(|((text, _), _)| text == filter)
                .map(|((_, shard), n)| (*shard, *n))
                .collect();
            assert_eq!(remote, wanted, "shards interested in {filter}");
        }
        for topic in topics {
            let wanted: Vec<&str> =
                filters.iter().copied().filter(|filter| matches(without_prefix(filter), topic)).collect();
            assert_eq!(walked(index, topic), wanted, "filters of {topic}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(String, u32, u32),
    Unsubscribe(String, u32),
    Interest(String, u16, u32),
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["a", "b", "", "$SYS", "$share", "long-level-ü"][..])
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/"))
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 2 => Just("+")];
    let prefix = prop_oneof![3 => Just(""), 1 => Just("$share/g/"), 1 => Just("$share/h/")];
    (prefix, prop::collection::vec(level, 0..4), any::<bool>()).prop_filter_map(
        "not empty, and no accidental prefix",
        |(prefix, mut levels, open)| {
            if open || levels.concat().is_empty() {
                levels.push("#");
            }
            let filter = levels.join("/");
            (levels[0] != "$share" && !filter.is_empty()).then(|| format!("{prefix}{filter}"))
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (filter(), 0..6u32, 0..9u32).prop_map(|(filter, session, n)| Step::Subscribe(filter, session, n)),
        2 => (filter(), 0..6u32).prop_map(|(filter, session)| Step::Unsubscribe(filter, session)),
        2 => (filter(), 0..4u16, 0..3u32).prop_map(|(filter, shard, n)| Step::Interest(filter, shard, n)),
    ]
}

fn apply(index: &mut Subscriptions, plain: &mut Plain, step: Step) {
    match step {
        Step::Subscribe(filter, session, number) => {
            let outcome = index.subscribe(&filter, session, grant(number));
            let before = plain.local.insert((filter.clone(), session), grant(number));
            assert_eq!(outcome.replaced, before);
            let members = plain.local.keys().filter(|(text, _)| *text == filter).count();
            assert_eq!(outcome.members as usize, members);
            assert_eq!(index.grant(outcome.filter, session), Some(grant(number)));
        }
        Step::Unsubscribe(filter, session) => {
            let removed = plain.local.remove(&(filter.clone(), session));
            let left = index.find(&filter).and_then(|id| index.unsubscribe(id, session));
            let members = plain.local.keys().filter(|(text, _)| *text == filter).count();
            assert_eq!(left.map(|left| left as usize), removed.map(|_| members));
        }
        Step::Interest(filter, shard, members) => {
            index.set_interest(&filter, ShardId(shard), members);
            match members {
                0 => plain.remote.remove(&(filter, shard)),
                _ => plain.remote.insert((filter, shard), members),
            };
        }
    }
}

fn assert_nothing_is_left(index: &Subscriptions) {
    assert_eq!((index.len(), index.node_count(), index.broad_count()), (0, 0, 0));
    assert!(index.is_empty() && index.next_after(0).is_none());
    assert_eq!((index.text_bytes, index.by_text.len()), (0, 0));
}

proptest! {
    #[test]
    fn the_index_agrees_with_a_plain_list_and_leaves_nothing_behind(
        steps in prop::collection::vec(step(), 1..60),
        topics in prop::collection::vec(topic(), 1..12),
    ) {
        let mut index = index();
        let mut plain = Plain::default();
        for step in steps {
            apply(&mut index, &mut plain, step);
        }
        plain.check(&index, &topics);
        for (filter, session) in plain.local.clone().into_keys() {
            apply(&mut index, &mut plain, Step::Unsubscribe(filter, session));
        }
        plain.check(&index, &topics);
        for (filter, shard) in plain.remote.clone().into_keys() {
            apply(&mut index, &mut plain, Step::Interest(filter, shard, 0));
        }
        assert_nothing_is_left(&index);
    }

    /// Enough subscribers for several chunks, coming and going in any order.
    #[test]
    fn a_filter_with_many_subscribers_agrees_with_an_ordered_map(
        steps in prop::collection::vec((any::<bool>(), 0..40u32, 1..400u32), 1..40),
    ) {
        let mut index = index();
        let mut plain = BTreeMap::new();
        for (add, start, count) in steps {
            for step in 0..count {
                // 2,003 is prime: a run goes through the sessions in a scattered order.
                let session = (start * 97 + step * 613) % 2_003;
                if add {
                    let before = plain.insert(session, grant(step));
                    assert_eq!(index.subscribe("all", session, grant(step)).replaced, before);
                } else if let Some(id) = index.find("all") {
                    let before = plain.remove(&session);
                    let left = index.unsubscribe(id, session);
                    assert_eq!(left, before.map(|_| plain.len() as u32));
                }
            }
            let Some(id) = index.find("all") else {
                assert!(plain.is_empty());
                continue;
            };
            let local = index.entry(id).local();
            let wanted: Vec<Subscriber> =
                plain.iter().map(|(&session, &grant)| Subscriber { session, grant }).collect();
            assert!(local.iter().eq(wanted.iter()));
            assert_eq!(local.len(), wanted.len());
            let ranks: Vec<Subscriber> = (0..local.len()).map(|rank| local[rank]).collect();
            assert_eq!(ranks, wanted);
            assert_eq!(local.get(local.len()), None);
            for session in (0..2_100).step_by(61) {
                let from = wanted.partition_point(|one| one.session < session);
                assert!(local.from_session(session).eq(wanted[from..].iter()), "from {session}");
                assert_eq!(index.grant(id, session), plain.get(&session).copied());
            }
        }
    }
}

#[test]
fn wildcards_at_the_front_do_not_match_topics_of_the_server() {
    // [MQTT-4.7.2-1]
    let mut index = index();
    for filter in ["#", "+/broker", "$SYS/#", "$SYS/+", "$share/g/#", "$share/g/$SYS/broker", "+/#"] {
        index.subscribe(filter, 1, grant(1));
    }
    assert_eq!(walked(&index, "$SYS/broker"), ["$SYS/#", "$SYS/+", "$share/g/$SYS/broker"]);
    assert_eq!(walked(&index, "SYS/broker"), ["#", "$share/g/#", "+/#", "+/broker"]);
}

#[test]
fn a_hash_also_matches_the_level_above_it() {
    // Section 4.7.1.2: "sport/#" also matches the singular "sport".
    let mut index = index();
    for filter in ["sport/#", "sport/+", "/#", "#", "sport", "sport/"] {
        index.subscribe(filter, 1, grant(1));
    }
    assert_eq!(walked(&index, "sport"), ["#", "sport", "sport/#"]);
    assert_eq!(walked(&index, "sport/"), ["#", "sport/", "sport/#", "sport/+"]);
    assert_eq!(walked(&index, "/"), ["#", "/#"]);
}

#[test]
fn shared_subscriptions_of_one_filter_are_found_with_it_and_keep_their_turns() {
    let mut index = index();
    let ordinary = index.subscribe("a/b", 1, grant(1)).filter;
    let one = index.subscribe("$share/one/a/b", 2, grant(1)).filter;
    let two = index.subscribe("$share/two/a/b", 3, grant(1)).filter;
    assert_eq!(walked(&index, "a/b"), ["$share/one/a/b", "$share/two/a/b", "a/b"]);
    assert_eq!([index.pick_turn(one), index.pick_turn(one), index.pick_turn(two)], [0, 1, 0]);
    assert_eq!([index.pick_turn(ordinary), index.pick_turn(ordinary)], [0, 0]);
    assert_eq!(index.unsubscribe(one, 2), Some(0));
    assert_eq!(walked(&index, "a/b"), ["$share/two/a/b", "a/b"]);
}

#[test]
fn a_message_for_the_text_of_a_shared_filter_does_not_match_it() {
    let mut index = index();
    index.subscribe("$share/g/a", 1, grant(1));
    assert!(walked(&index, "$share/g/a").is_empty());
    assert_eq!(walked(&index, "a"), ["$share/g/a"]);
}

#[test]
fn the_deepest_filters_are_walked_and_pruned() {
    let mut index = index();
    let literal = vec!["l"; TOPIC_LEVELS_MAX].join("/");
    let plus = vec!["+"; TOPIC_LEVELS_MAX].join("/");
    let open = format!("{}/#", vec!["l"; TOPIC_LEVELS_MAX - 1].join("/"));
    let empty = vec![""; TOPIC_LEVELS_MAX].join("/");
    for filter in [&literal, &plus, &open, &empty] {
        index.subscribe(filter, 1, grant(1));
    }
    assert_eq!(index.node_count(), TOPIC_LEVELS_MAX + TOPIC_LEVELS_MAX - 1);
    assert_eq!(walked(&index, &literal), [plus.as_str(), open.as_str(), literal.as_str()]);
    assert_eq!(walked(&index, &empty), [plus.as_str(), empty.as_str()]);
    for filter in [&literal, &plus, &open, &empty] {
        let id = index.find(filter).expect("subscribed");
        assert_eq!(index.unsubscribe(id, 1), Some(0));
    }
    assert_nothing_is_left(&index);
}

#[test]
fn an_entry_stays_while_another_shard_is_interested() {
    let mut index = index();
    let id = index.subscribe("a/#", 1, grant(1)).filter;
    index.set_interest("a/#", ShardId(3), 2);
    assert_eq!(index.unsubscribe(id, 1), Some(0));
    assert_eq!(index.unsubscribe(id, 1), None);
    assert_eq!(walked(&index, "a/b"), ["a/#"]);
    assert_eq!(index.entry(id).remote(), [(ShardId(3), 2)]);
    index.set_interest("a/#", ShardId(3), 0);
    index.set_interest("a/#", ShardId(3), 0);
    assert_nothing_is_left(&index);
}

#[test]
fn iteration_by_slot_can_pause_and_sees_every_entry() {
    let mut index = index();
    let filters = ["a", "b/#", "$share/g/c", "d", "e"];
    let ids: Vec<FilterId> =
        filters.iter().map(|filter| index.subscribe(filter, 1, grant(1)).filter).collect();
    index.unsubscribe(ids[1], 1);
    let mut seen = Vec::new();
    let mut cursor = 0;
    while let Some((id, entry)) = index.next_after(cursor) {
        seen.push(entry.text());
        cursor = id.0 + 1;
    }
    assert_eq!(seen, ["a", "$share/g/c", "d", "e"]);
}

#[test]
fn broad_filters_are_those_with_a_wildcard_in_their_first_two_levels() {
    let mut index = index();
    for filter in ["#", "+", "a/#", "a/+/c", "$share/g/+/b", "a/b/#", "a/b/+", "a/b", "$share/g/a/b/#"] {
        index.subscribe(filter, 1, grant(1));
    }
    assert_eq!(index.broad_count(), 5);
}

#[test]
fn the_order_of_a_walk_does_not_depend_on_the_hash_key() {
    let order = |key: u8| {
        let mut index = Subscriptions::new([key; 16]);
        for filter in ["#", "a/+", "+/b", "a/b", "$share/g/a/b", "$share/h/a/b", "+/+", "a/#"] {
            index.subscribe(filter, 1, grant(1));
        }
        let mut found = Vec::new();
        index.walk("a/b", |id, _| found.push(id.0));
        found
    };
    assert_eq!(order(1).len(), 8);
    assert!((2..20).all(|key| order(key) == order(1)));
}

#[test]
fn inboxes_that_do_not_match_cost_a_walk_nothing() {
    // Not one node: a walk through 10,000 exact filters is one probe of the table and a look at a bare root.
    let mut index = index();
    for session in 0..10_000 {
        index.subscribe(&format!("u/{session}/inbox"), session, grant(1));
    }
    assert_eq!(index.node_count(), 0);
    assert_eq!(walked(&index, "u/77/inbox"), ["u/77/inbox"]);
}

#[test]
fn fourteen_thousand_inboxes_stay_within_their_bytes() {
    // 14,000 fill a table and a slab of 16,384 to 85 %.
    let mut index = index();
    let empty = index.bytes();
    for session in 0..14_000 {
        index.subscribe(&format!("u/{session:07}/inbox"), session, grant(1));
    }
    let per_entry = (index.bytes() - empty) as f64 / 14_000.0;
    assert!((40.0 + 9.0 + 15.0..75.0).contains(&per_entry), "{per_entry} bytes per filter");
}
