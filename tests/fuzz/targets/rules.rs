//! A file of rules and who asks it: a line each for what is asked, the account, the client id and groups, then the file.
//! Nothing panics, and a subscription that is allowed brings nothing that is denied.
#![no_main]

use ironpost::access::rules::{Action, Decision, Grants, Rules, Who};
use ironpost::limits;
use ironpost::wire::topic;
use libfuzzer_sys::fuzz_target;

const ACTIONS: [Action; 4] = [Action::Publish, Action::Subscribe, Action::Retain, Action::Will];

/// Topics tried of what a filter takes.
const TOPICS: usize = 16;

/// Grants tried: words of the file.
const GRANTS: usize = 8;

/// Held per byte of a file, at most: a level may be one byte, and is a node with an entry in a table.
const BYTES_PER_BYTE_MAX: usize = 64;

fuzz_target!(|input: &[u8]| {
    let input = String::from_utf8_lossy(input);
    let mut parts = input.splitn(5, '\n');
    let [asked, account, client_id, groups, text] = [(); 5].map(|()| parts.next().unwrap_or_default());
    let groups: Vec<Box<str>> = groups.split(',').map(Box::from).collect();
    let who = Who { account, client_id, groups: &groups };
    let Some(rules) = parsed(text) else { return };
    // The secret decides where things lie, and nothing else.
    let others = Rules::parse(text, [9; 16]).expect("the same text");
    for action in ACTIONS {
        let decision = rules.decide(action, &who, asked);
        assert_eq!(others.decide(action, &who, asked), decision, "{action:?}");
        check_statement(&rules, text, decision);
    }
    if topic::check_filter(asked).is_err() || asked.starts_with("$share/") {
        return;
    }
    let levels = levels(&who, text);
    let topics: Vec<String> = (0..TOPICS).filter_map(|choice| taken(asked, &levels, choice)).collect();
    check_rules(&rules, &who, asked, &topics);
    for filter in text.split([' ', '\n']).filter(|word| word.contains(['/', '+', '#'])).take(GRANTS) {
        check_grant(filter, asked, &topics);
    }
});

fn parsed(text: &str) -> Option<Rules> {
    let lines = text.lines().count();
    match Rules::parse(text, [7; 16]) {
        Ok(rules) => {
            assert!(rules.len() <= lines);
            let most = BYTES_PER_BYTE_MAX * (text.len() + 16);
            assert!(rules.bytes() <= most, "{} bytes are held", rules.bytes());
            Some(rules)
        }
        Err(error) => {
            assert!((1..=lines.max(1)).contains(&error.line) && !error.to_string().is_empty());
            None
        }
    }
}

/// The line that a decision names says what was decided.
fn check_statement(rules: &Rules, text: &str, decision: Decision) {
    let Decision::Rule { allowed, rule } = decision else { return };
    let statement = Rules::statement_at(text, rules.line_of(rule)).expect("a line of the file");
    let word = if allowed { "allow" } else { "deny" };
    assert!(statement.trim_start_matches('\u{FEFF}').trim_start().starts_with(word), "{statement}");
}

fn check_rules(rules: &Rules, who: &Who<'_>, asked: &str, topics: &[String]) {
    let decision = rules.decide(Action::Subscribe, who, asked);
    for topic in topics {
        let below = rules.decide(Action::Subscribe, who, topic);
        if decision.is_allowed() {
            assert!(below.is_allowed() || below == Decision::TooManyToCompare, "{asked:?} brings {topic:?}");
        }
        // Whatever decides on all of it decides on each, if nothing before it does.
        if let (Decision::Rule { allowed: true, rule }, Decision::Rule { rule: earlier, .. }) =
            (decision, below)
        {
            assert!(earlier <= rule, "{asked:?} and {topic:?}");
        }
    }
}

/// A grant for a filter that covers what is asked matches what that takes.
fn check_grant(filter: &str, asked: &str, topics: &[String]) {
    let Ok(grants) = Grants::new([(filter, true, true)]) else { return };
    assert!(grants.bytes() <= filter.len() + 64);
    let text = format!("allow all everyone \"{}\"", filter.replace('\\', "\\\\").replace('"', "\\\""));
    // A rule is asked without account and client: what stands for them in it fits nothing.
    let rules = Rules::parse(&text, [7; 16]).ok().filter(|_| !filter.contains('%'));
    let nobody = Who { account: "", client_id: "", groups: &[] };
    let granted = |action, topic| {
        let permits = grants.permits(action, topic);
        if let Some(rules) = &rules {
            assert_eq!(
                permits,
                rules.decide(action, &nobody, topic).is_allowed(),
                "{filter:?} {action:?} {topic:?}"
            );
        }
        permits
    };
    let is_granted = granted(Action::Subscribe, asked);
    for topic in topics {
        let (subscribed, published) = (granted(Action::Subscribe, topic), granted(Action::Publish, topic));
        assert_eq!(subscribed, published, "{filter:?} and {topic:?}");
        assert!(published || !is_granted, "{filter:?} grants {asked:?} without {topic:?}");
    }
}

/// Levels that something may be said of, and one that nothing is.
fn levels<'a>(who: &Who<'a>, text: &'a str) -> Vec<&'a str> {
    let known =
        text.split([' ', '\t', '\n', '"']).filter(|word| word.contains('/')).flat_map(|word| word.split('/'));
    let names = [who.account, who.client_id, "", "nothing", "$SYS"];
    let is_level =
        |level: &&str| !level.contains(['/', '+', '#', '\0']) && level.len() <= limits::TOPIC_BYTES_MAX;
    known.chain(names).filter(is_level).collect()
}

/// One of the topics that a filter takes.
fn taken(filter: &str, levels: &[&str], choice: usize) -> Option<String> {
    let mut wildcards = 0;
    let mut next = || {
        wildcards += 1;
        levels[(choice * 5 + wildcards * (choice / 4 + 1)) % levels.len()]
    };
    let mut topic = Vec::new();
    for level in filter.split('/') {
        match level {
            "+" => topic.push(next()),
            // What is above it too, but nothing is above the first level.
            "#" if choice % 3 == 0 && !topic.is_empty() => {}
            "#" => topic.extend((0..1 + choice % 2).map(|_| next())),
            level => topic.push(level),
        }
    }
    // In front a wildcard does not take what is the server's own [MQTT-4.7.2-1].
    let is_out_of_reach = filter.starts_with(['+', '#']) && topic[0].starts_with('$');
    (!is_out_of_reach).then(|| topic.join("/"))
}
