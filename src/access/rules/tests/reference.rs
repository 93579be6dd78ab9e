//! The definitions, taken literally: every topic over a tiny alphabet is tried, rule by rule.
//!
//! Filters here have at most three levels and topics at most four, so that each `#` has something below it; besides the
//! levels that occur there is one that occurs nowhere, so that a `+` takes something that no literal does. The empty
//! name counts as a topic, see the module.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::select;

use super::super::filter::covers;
use super::*;
use crate::wire::topic::matches;

const LEVELS: [&str; 7] = ["", "a", "b", "$s", "$t", "$", "z"];
const NAMES: [&str; 8] = ["", "a", "b", "$s", "$t", "a/b", "+", "#"];

static TOPICS: LazyLock<Vec<Vec<&'static str>>> = LazyLock::new(|| {
    let mut all: Vec<Vec<&str>> = Vec::new();
    let mut longest = vec![vec![]];
    for _ in 0..4 {
        let longer = |topic: &Vec<&'static str>| LEVELS.map(|level| [topic.as_slice(), &[level]].concat());
        longest = longest.iter().flat_map(longer).collect();
        all.extend(longest.iter().cloned());
    }
    all
});

/// Section 4.7 of the standard, for one filter and one topic.
fn takes(filter: &[&str], topic: &[&str], asking: &Who<'_>) -> bool {
    let front_is_special = ["+", "#", "%u", "%c"].contains(&filter[0]);
    if topic[0].starts_with('$') && front_is_special {
        return false;
    }
    let is_a_level = |name: &str| !name.is_empty() && !name.chars().any(|c| "/+#".contains(c));
    for (place, &level) in filter.iter().enumerate() {
        let fits = match (level, topic.get(place)) {
            // The parent too.
            ("#", _) => return true,
            (_, None) => false,
            ("+", Some(_)) => true,
            ("%u", Some(&name)) => is_a_level(asking.account) && name == asking.account,
            ("%c", Some(&name)) => is_a_level(asking.client_id) && name == asking.client_id,
            (level, Some(&name)) => level == name,
        };
        if !fits {
            return false;
        }
    }
    filter.len() == topic.len()
}

#[derive(Clone, Debug)]
struct Written {
    allowed: bool,
    actions: Vec<&'static str>,
    party: &'static str,
    filter: String,
}

const PARTIES: [&str; 8] = [
    "everyone",
    "everyone",
    "account:a",
    "account:\"a/b\"",
    "group:g",
    "group:h",
    "client:b",
    "client:\"+\"",
];

fn applies(rule: &Written, asking: &Who<'_>) -> bool {
    let groups: Vec<&str> = asking.groups.iter().map(|group| &**group).collect();
    match rule.party {
        "everyone" => true,
        "account:a" => asking.account == "a",
        "account:\"a/b\"" => asking.account == "a/b",
        "client:b" => asking.client_id == "b",
        "client:\"+\"" => asking.client_id == "+",
        "group:g" => ["a", "+"].contains(&asking.account) || groups.contains(&"g"),
        "group:h" => ["a"].contains(&asking.account) || groups.contains(&"h"),
        other => unreachable!("{other} is not in the table"),
    }
}

fn reference(all: &[Written], action: Action, asking: &Who<'_>, topic: &str) -> Told {
    let word = format!("{action:?}").to_lowercase();
    let asked: Vec<&str> = topic.split('/').collect();
    // Literally: a filter asked for means all the topics it takes, and a name means itself.
    let nobody = who("", "");
    let meant: Vec<&[&str]> = match action {
        Action::Subscribe => {
            TOPICS.iter().map(Vec::as_slice).filter(|topic| takes(&asked, topic, &nobody)).collect()
        }
        _ => vec![&asked],
    };
    for (line, rule) in (3..).zip(all) {
        let named = rule.actions.contains(&"all") || rule.actions.contains(&&*word);
        if !named || !applies(rule, asking) {
            continue;
        }
        let filter: Vec<&str> = rule.filter.split('/').collect();
        let mut taken = meant.iter().map(|topic| takes(&filter, topic, asking));
        let decides = if rule.allowed { taken.all(|takes| takes) } else { taken.any(|takes| takes) };
        if decides {
            return Told::Rule { allowed: rule.allowed, line };
        }
    }
    DENIED
}

fn filter(levels: &'static [&'static str]) -> impl Strategy<Value = String> {
    let ends = select(&["", "", "/#"][..]);
    let filter = (prop::collection::vec(select(levels), 1..=2), ends, prop::bool::weighted(0.1));
    let filter =
        filter.prop_map(|(levels, end, all)| if all { "#".to_owned() } else { levels.join("/") + end });
    let three = prop::collection::vec(select(levels), 3).prop_map(|levels| levels.join("/"));
    prop_oneof![3 => filter, 1 => three].prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

fn written() -> impl Strategy<Value = Written> {
    let actions = select(&["publish", "subscribe", "subscribe", "retain", "will", "all"][..]);
    let actions = prop::collection::vec(actions, 1..=2);
    let filter = filter(&["", "a", "b", "$s", "+", "+", "%u", "%c"]);
    (prop::bool::ANY, actions, select(&PARTIES[..]), filter)
        .prop_map(|(allowed, actions, party, filter)| Written { allowed, actions, party, filter })
}

fn text_of(all: &[Written]) -> String {
    let mut text = "group g a \"+\"\ngroup h a\n".to_owned();
    for Written { allowed, actions, party, filter } in all {
        let verb = if *allowed { "allow" } else { "deny" };
        text.push_str(&format!("{verb} {} {party} \"{filter}\"\n", actions.join(",")));
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn decisions_are_those_of_the_definitions(
        all in prop::collection::vec(written(), 0..14),
        account in select(&NAMES[..]),
        client_id in select(&NAMES[..]),
        groups in prop::sample::subsequence(vec!["g", "h", "x"], 0..=2),
        names in prop::collection::vec(prop::collection::vec(select(&["", "a", "b", "$s"][..]), 1..=4), 3),
        filters in prop::collection::vec(filter(&["", "a", "b", "$s", "+", "+"]), 4),
    ) {
        let groups: Vec<Box<str>> = groups.into_iter().map(Box::from).collect();
        let asking = Who { account, client_id, groups: &groups };
        let text = text_of(&all);
        let rules = rules(&text);
        for name in names.iter().map(|levels| levels.join("/")).filter(|name| !name.is_empty()) {
            for action in [Action::Publish, Action::Retain, Action::Will] {
                let expected = reference(&all, action, &asking, &name);
                prop_assert_eq!(rules.tell(action, &asking, &name), expected, "{:?} {}\n{}", action, name, text);
            }
        }
        for asked in &filters {
            let expected = reference(&all, Action::Subscribe, &asking, asked);
            prop_assert_eq!(rules.tell(Action::Subscribe, &asking, asked), expected, "{}\n{}", asked, text);
        }
    }

    /// The same where nodes have more children than are compared one by one.
    #[test]
    fn many_literals_are_found_like_few(
        all in prop::collection::vec(written(), 0..6),
        numbers in prop::collection::vec((0..12u8, 0..12u8, prop::bool::ANY), 20..60),
        asked in (0..14u8, 0..14u8),
    ) {
        let mut all = all;
        all.extend(numbers.iter().map(|(first, second, allowed)| {
            let filter = format!("{first}/{second}");
            Written { allowed: *allowed, actions: vec!["all"], party: "everyone", filter }
        }));
        let text = text_of(&all);
        let rules = rules(&text);
        let asking = who("3", "4");
        let name = format!("{}/{}", asked.0, asked.1);
        let expected = reference(&all, Action::Publish, &asking, &name);
        prop_assert_eq!(rules.tell(Action::Publish, &asking, &name), expected, "{}\n{}", name, text);
    }

    #[test]
    fn what_is_allowed_brings_nothing_that_is_denied(
        all in prop::collection::vec(written(), 1..10),
        asked in filter(&["", "a", "b", "$s", "+"]),
    ) {
        let rules = rules(&text_of(&all));
        let asking = who("a", "b");
        if rules.decide(Action::Subscribe, &asking, &asked).is_allowed() {
            for topic in TOPICS.iter().map(|levels| levels.join("/")).filter(|topic| matches(&asked, topic)) {
                prop_assert!(rules.decide(Action::Subscribe, &asking, &topic).is_allowed(), "{} {}", asked, topic);
            }
        }
    }

    #[test]
    fn plain_filters_match_and_cover_by_the_definitions(
        one in filter(&["", "a", "b", "$s", "+"]),
        other in filter(&["", "a", "b", "$s", "+"]),
    ) {
        let nobody = who("", "");
        let (filter, asked): (Vec<_>, Vec<_>) = (one.split('/').collect(), other.split('/').collect());
        let mut all = true;
        for topic in TOPICS.iter() {
            prop_assert_eq!(matches(&one, &topic.join("/")), takes(&filter, topic, &nobody));
            all &= !takes(&asked, topic, &nobody) || takes(&filter, topic, &nobody);
        }
        prop_assert_eq!(covers(&one, &other), all, "{} {}", one, other);
    }
}
