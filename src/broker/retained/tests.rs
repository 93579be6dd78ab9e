//! Retained messages against a plain map, and cursors that are overtaken by changes.

use proptest::prelude::*;

use super::*;

fn held(message: u32) -> Held {
    Held { message, bytes: message * 10 + 1, number: 0, record: Lsn::NONE, expires_at: UnixMs::NEVER }
}

/// The standard's rule, by recursion over levels: another shape than the one under test.
fn matches_plainly(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) => true,
        ([], []) => true,
        ([wanted, filter @ ..], [level, topic @ ..]) => {
            (*wanted == "+" || wanted == level) && matches_plainly(filter, topic)
        }
        _ => false,
    }
}

fn wanted<'a>(plain: &'a BTreeMap<String, Held>, filter: &str) -> Vec<(&'a str, Held)> {
    let levels: Vec<&str> = filter.split('/').collect();
    plain
        .iter()
        .filter(|(topic, _)| !(topic.starts_with('$') && filter.starts_with(['+', '#'])))
        .filter(|(topic, _)| matches_plainly(&levels, &topic.split('/').collect::<Vec<_>>()))
        .map(|(topic, held)| (topic.as_str(), *held))
        .collect()
}

/// Everything that matches, pulled in steps of that budget.
fn pulled(retained: &Retained, filter: &str, budget: u32) -> Vec<(String, Held)> {
    let mut found = Vec::new();
    let mut after = Box::from("");
    for _ in 0..10_000 {
        let mut visits = 0;
        let next = retained.scan(filter, &after, budget, |topic, held| {
            visits += 1;
            found.push((topic.to_owned(), held));
            true
        });
        assert!(visits <= budget);
        match next {
            Some(next) => after = next,
            None => return found,
        }
    }
    panic!("the cursor does not get on");
}

fn level() -> impl Strategy<Value = &'static str> {
    // `!` and `0` sort just before and after `/`; `%` follows `$`.
    prop::sample::select(&["a", "b", "", "$SYS", "$x", "a!", "a0", "%", "!", "ü"][..])
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..4)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic name is not empty", |topic| !topic.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![2 => level(), 1 => Just("+")];
    (prop::collection::vec(level, 0..4), any::<bool>()).prop_map(|(mut levels, open)| {
        if open || levels.concat().is_empty() {
            levels.push("#");
        }
        levels.join("/")
    })
}

proptest! {
    #[test]
    fn any_budget_pulls_exactly_what_matches_in_order(
        changes in prop::collection::vec((topic(), 0..4u32), 1..40),
        filters in prop::collection::vec(filter(), 1..8),
        budget in 1..6u32,
    ) {
        let mut retained = Retained::new();
        let mut plain = BTreeMap::new();
        for (topic, message) in changes {
            if message == 0 {
                assert_eq!(retained.clear(&topic), plain.remove(&topic));
            } else {
                assert_eq!(retained.set(&topic, held(message)), plain.insert(topic.clone(), held(message)));
            }
            assert_eq!(retained.get(&topic), plain.get(&topic).copied());
            assert_eq!(retained.len(), plain.len());
            assert_eq!(retained.bytes(), plain.values().map(|held| u64::from(held.bytes)).sum::<u64>());
        }
        for filter in &filters {
            let found = pulled(&retained, filter, budget);
            let found: Vec<(&str, Held)> = found.iter().map(|(topic, held)| (topic.as_str(), *held)).collect();
            assert_eq!(found, wanted(&plain, filter), "{filter}");
        }
        for topic in plain.keys() {
            retained.clear(topic);
        }
        assert_eq!(retained.len(), 0);
        assert_eq!(retained.bytes(), 0);
    }

    /// Topics come and go between the calls: one that stays is seen exactly once, one that was never there is not.
    #[test]
    fn a_topic_that_stays_is_seen_once_whatever_changes_meanwhile(
        staying in prop::collection::btree_set(topic(), 1..12),
        passing in prop::collection::vec((topic(), any::<bool>()), 1..40),
        filter in filter(),
        budget in 1..4u32,
    ) {
        let mut retained = Retained::new();
        for topic in &staying {
            retained.set(topic, held(1));
        }
        let mut seen = Vec::new();
        let mut after = Box::from("");
        let mut passing = passing.iter().filter(|(topic, _)| !staying.contains(topic));
        for call in 0.. {
            assert!(call < 1_000, "the cursor does not get on");
            let next = retained.scan(&filter, &after, budget, |topic, _| {
                seen.push(topic.to_owned());
                true
            });
            let Some(next) = next else { break };
            after = next;
            for (topic, add) in passing.by_ref().take(2) {
                if *add { retained.set(topic, held(2)) } else { retained.clear(topic) };
            }
        }
        assert!(seen.is_sorted_by(|one, other| one < other));
        let plain: BTreeMap<String, Held> = staying.iter().map(|topic| (topic.clone(), held(1))).collect();
        let stayed: Vec<&str> = wanted(&plain, &filter).iter().map(|(topic, _)| *topic).collect();
        let seen: Vec<&str> = seen.iter().map(String::as_str).filter(|topic| staying.contains(*topic)).collect();
        assert_eq!(seen, stayed);
    }
}

#[test]
fn a_visit_that_returns_false_was_the_last_of_its_call() {
    let mut retained = Retained::new();
    for topic in ["a/1", "a/2", "a/3"] {
        retained.set(topic, held(1));
    }
    let mut seen = Vec::new();
    let next = retained.scan("a/+", "", 100, |topic, _| {
        seen.push(topic.to_owned());
        seen.len() < 2
    });
    assert_eq!((seen, next.as_deref()), (vec!["a/1".to_owned(), "a/2".to_owned()], Some("a/2")));
    let mut rest = Vec::new();
    let next = retained.scan("a/+", "a/2", 100, |topic, _| {
        rest.push(topic.to_owned());
        true
    });
    assert_eq!((rest, next), (vec!["a/3".to_owned()], None));
}

#[test]
fn the_literal_beginning_of_a_filter_bounds_what_is_looked_at() {
    let mut retained = Retained::new();
    for number in 0..1_000 {
        retained.set(&format!("other/{number:04}"), held(1));
        retained.set(&format!("a!/{number:04}"), held(1));
        retained.set(&format!("$SYS/{number:04}"), held(1));
    }
    for topic in ["a", "a/b", "a/b/c"] {
        retained.set(topic, held(1));
    }
    // A budget of as many topics as match is enough exactly if no other is looked at.
    for (filter, topics) in [("a/#", 3), ("a/+", 2), ("a/b", 1), ("a/b/#", 2), ("none/#", 0), ("#", 2_003)] {
        let mut found = 0;
        let next = retained.scan(filter, "", topics, |_, _| {
            found += 1;
            true
        });
        let enough = if filter == "a/+" { 1 } else { topics };
        assert_eq!((found, next), (enough, None), "{filter}");
    }
}
