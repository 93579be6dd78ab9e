//! The sentences of the module's description, one by one.

mod bounds;
mod reference;
mod statements;

use super::*;

const KEY: [u8; 16] = [7; 16];

fn rules(text: &str) -> Rules {
    Rules::parse(text, KEY).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn who<'a>(account: &'a str, client_id: &'a str) -> Who<'a> {
    Who { account, client_id, groups: &[] }
}

/// A decision with the line of its rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Rule { allowed: bool, line: u32 },
    Default { allowed: bool },
    TooManyToCompare,
}

trait Tell {
    fn tell(&self, action: Action, who: &Who<'_>, topic: &str) -> Told;
}

impl Tell for Rules {
    fn tell(&self, action: Action, who: &Who<'_>, topic: &str) -> Told {
        match self.decide(action, who, topic) {
            Decision::Rule { allowed, rule } => Told::Rule { allowed, line: self.line_of(rule) },
            Decision::Default { allowed } => Told::Default { allowed },
            Decision::TooManyToCompare => Told::TooManyToCompare,
        }
    }
}

fn rule(allowed: bool, line: u32) -> Told {
    Told::Rule { allowed, line }
}

const DENIED: Told = Told::Default { allowed: false };

/// The account alice with the client probe-7.
#[track_caller]
fn expect(text: &str, action: Action, cases: &[(&str, Told)]) {
    let rules = rules(text);
    for (topic, expected) in cases {
        assert_eq!(rules.tell(action, &who("alice", "probe-7"), topic), *expected, "{topic} {text}");
    }
}

const EXAMPLE: &str = r##"# comment
group admins root "ops team"
deny  subscribe           everyone        $SYS/#
allow publish,subscribe   account:alice   shared/room/#
allow all                 group:admins    #
allow publish             client:probe-7  probes/%c/+
allow all                 everyone        u/%u/#
default deny
"##;

#[test]
fn the_example_means_what_it_says() {
    let rules = rules(EXAMPLE);
    assert_eq!(rules.len(), 5);
    let alice = who("alice", "phone");
    assert_eq!(rules.tell(Action::Publish, &alice, "shared/room/1"), rule(true, 4));
    assert_eq!(rules.tell(Action::Retain, &alice, "shared/room/1"), DENIED);
    assert_eq!(rules.tell(Action::Will, &alice, "u/alice/gone"), rule(true, 7));
    assert_eq!(rules.tell(Action::Subscribe, &alice, "u/alice/#"), rule(true, 7));
    assert_eq!(rules.tell(Action::Subscribe, &alice, "u/+/#"), DENIED);
    assert_eq!(rules.tell(Action::Subscribe, &alice, "$SYS/load"), rule(false, 3));
    assert_eq!(rules.tell(Action::Publish, &who("ops team", "x"), "anything"), rule(true, 5));
    assert_eq!(rules.tell(Action::Publish, &who("ops team", "x"), "$SYS/x"), DENIED);
    assert_eq!(rules.tell(Action::Publish, &who("bob", "probe-7"), "probes/probe-7/t"), rule(true, 6));
    assert_eq!(rules.tell(Action::Publish, &who("bob", "probe-8"), "probes/probe-8/t"), DENIED);
    assert_eq!(Rules::statement_at(EXAMPLE, 7), Some("allow all                 everyone        u/%u/#"));
    assert_eq!(Rules::statement_at(EXAMPLE, 0), None);
}

#[test]
fn the_first_rule_decides_on_a_name() {
    let text = "deny publish everyone a/+\nallow publish everyone a/b\nallow publish everyone a/#\n";
    let cases = [("a/b", rule(false, 1)), ("a/b/c", rule(true, 3)), ("a", rule(true, 3)), ("b", DENIED)];
    expect(text, Action::Publish, &cases);
    // Whoever a rule is for, its place in the file is what counts.
    let text = "allow all client:probe-7 a\ndeny all account:alice a\ndeny all everyone a";
    expect(text, Action::Publish, &[("a", rule(true, 1))]);
    let text = "group g alice\nallow all group:g a\ndeny all client:probe-7 a\ndeny all everyone a";
    expect(text, Action::Publish, &[("a", rule(true, 2))]);
}

#[test]
fn a_rule_is_for_its_actions_only() {
    let text = "allow publish everyone a\nallow subscribe everyone b\nallow retain everyone c\nallow will everyone d";
    let rules = rules(text);
    let actions = [Action::Publish, Action::Subscribe, Action::Retain, Action::Will];
    for (line, action) in (1..).zip(actions) {
        for (expected, topic) in (1..).zip(["a", "b", "c", "d"]) {
            let decision = if line == expected { rule(true, line) } else { DENIED };
            assert_eq!(rules.tell(action, &who("alice", "x"), topic), decision, "{action:?} {topic}");
        }
    }
}

#[test]
fn the_default_decides_where_no_rule_does() {
    for (text, allowed) in [("", false), ("default deny", false), ("default allow", true)] {
        expect(text, Action::Subscribe, &[("a", Told::Default { allowed })]);
    }
    assert!(rules("default allow").is_empty());
    for allowed in [true, false] {
        assert_eq!(Decision::Default { allowed }.is_allowed(), allowed);
        assert_eq!(Decision::Rule { allowed, rule: 0 }.is_allowed(), allowed);
    }
    assert!(!Decision::TooManyToCompare.is_allowed());
}

#[test]
fn a_subscription_is_allowed_by_a_rule_that_covers_it() {
    let cases = [
        ("a/b", rule(true, 1)),
        ("a/+", rule(true, 1)),
        ("a/#", rule(true, 1)),
        ("a", rule(true, 1)),
        ("a/+/#", rule(true, 1)),
        ("+/b", DENIED),
        ("#", DENIED),
        ("+", DENIED),
    ];
    expect("allow subscribe everyone a/#", Action::Subscribe, &cases);
    let cases =
        [("a/b", rule(true, 1)), ("a/+", rule(true, 1)), ("a/#", DENIED), ("+/b", DENIED), ("a", DENIED)];
    expect("allow subscribe everyone a/+", Action::Subscribe, &cases);
    // What only overlaps is passed over, and a later one decides.
    let text = "allow subscribe everyone a/b\nallow subscribe everyone a/+";
    expect(text, Action::Subscribe, &[("a/+", rule(true, 2)), ("a/b", rule(true, 1))]);
}

#[test]
fn a_plus_and_everything_below_is_everything_at_the_front_only() {
    expect("allow subscribe everyone +/#", Action::Subscribe, &[("#", rule(true, 1)), ("$SYS/#", DENIED)]);
    expect("allow subscribe everyone a/+/#", Action::Subscribe, &[("a/#", DENIED), ("a/+/#", rule(true, 1))]);
    expect("allow subscribe everyone +/+/#", Action::Subscribe, &[("#", DENIED), ("+/#", DENIED)]);
}

#[test]
fn a_subscription_is_denied_by_a_rule_that_overlaps_it() {
    let text = "deny subscribe everyone a/+/secret\nallow subscribe everyone #";
    let cases = [
        ("#", rule(false, 1)),
        ("a/#", rule(false, 1)),
        ("+/b/#", rule(false, 1)),
        ("a/b/+", rule(false, 1)),
        ("+/+/+", rule(false, 1)),
        ("a/b/secret/#", rule(false, 1)),
        ("a/b/secret", rule(false, 1)),
        ("a/b", rule(true, 2)),
        ("+/+", rule(true, 2)),
        ("b/#", rule(true, 2)),
        ("a/b/secret/c", rule(true, 2)),
        ("a/+/open", rule(true, 2)),
    ];
    expect(text, Action::Subscribe, &cases);
    // Behind one that allows the same it still counts for what is wider.
    let text = "allow subscribe everyone a/b\ndeny subscribe everyone a/b\nallow subscribe everyone #";
    expect(
        text,
        Action::Subscribe,
        &[("a/b", rule(true, 1)), ("a/+", rule(false, 2)), ("a/#", rule(false, 2))],
    );
    // Behind a rule that allows it no longer counts.
    let text = "allow subscribe everyone #\ndeny subscribe everyone a/b";
    expect(text, Action::Subscribe, &[("a/b", rule(true, 1)), ("#", rule(true, 1))]);
}

#[test]
fn wildcards_in_front_do_not_reach_topics_of_the_server() {
    let text = "deny subscribe everyone $SYS/#\nallow all everyone #\nallow all everyone +/x";
    let cases = [("#", rule(true, 2)), ("+/x", rule(true, 2)), ("$SYS/#", rule(false, 1)), ("$X/#", DENIED)];
    expect(text, Action::Subscribe, &cases);
    expect(text, Action::Publish, &[("$SYS/x", DENIED), ("a/x", rule(true, 2))]);
    expect(
        "deny subscribe everyone #\nallow all everyone $SYS/#",
        Action::Subscribe,
        &[("$SYS/#", rule(true, 2))],
    );
    expect(
        "allow all everyone a/+\nallow all everyone b/#",
        Action::Publish,
        &[("a/$x", rule(true, 1)), ("b/$x", rule(true, 2))],
    );
}

#[test]
fn variables_are_whole_levels_that_equal_who_asks() {
    let text = "allow all everyone u/%u/%c/#";
    let cases = [
        ("u/alice/probe-7", rule(true, 1)),
        ("u/alice/probe-7/+/x", rule(true, 1)),
        ("u/alice/probe-8", DENIED),
        ("u/bob/probe-7", DENIED),
        ("u/%u/%c", DENIED),
        ("u/+/probe-7", DENIED),
        ("u/alice/#", DENIED),
    ];
    expect(text, Action::Subscribe, &cases);
    let text = "deny subscribe everyone u/%u/%c\nallow subscribe everyone u/#";
    let cases = [
        ("u/+/probe-7", rule(false, 1)),
        ("u/alice/#", rule(false, 1)),
        ("u/#", rule(false, 1)),
        ("u/bob/#", rule(true, 2)),
        ("u/+/probe-8", rule(true, 2)),
    ];
    expect(text, Action::Subscribe, &cases);
}

#[test]
fn names_that_no_level_can_equal_fit_no_variable() {
    let text = "deny subscribe everyone u/%u/#\ndeny subscribe everyone c/%c\nallow all everyone u/%u/#\nallow subscribe everyone #";
    let rules = rules(text);
    for odd in ["", "a/b", "+", "a+", "#", "/"] {
        let odd_account = who(odd, "phone");
        assert_eq!(rules.tell(Action::Publish, &odd_account, &format!("u/{odd}/x")), DENIED, "{odd:?}");
        for asked in ["u/+/x", "u/#", "u/a/b", "u/a/b/#"] {
            assert_eq!(rules.tell(Action::Subscribe, &odd_account, asked), rule(true, 4), "{odd:?} {asked}");
        }
        assert_eq!(rules.tell(Action::Subscribe, &odd_account, "c/+"), rule(false, 2), "{odd:?}");
        assert_eq!(rules.tell(Action::Subscribe, &who("alice", odd), "c/#"), rule(true, 4), "{odd:?}");
    }
}

#[test]
fn nobody_reaches_the_servers_topics_by_calling_themselves_so() {
    let text = "allow all everyone %u/#\nallow all everyone %c/+\ndeny subscribe everyone %c\ndefault deny";
    let rules = rules(text);
    let sly = who("$SYS", "$SYS");
    assert_eq!(rules.tell(Action::Publish, &sly, "$SYS/x"), DENIED);
    for asked in ["$SYS/#", "$SYS/+", "#", "+"] {
        assert_eq!(rules.tell(Action::Subscribe, &sly, asked), DENIED, "{asked}");
    }
    assert_eq!(rules.tell(Action::Subscribe, &who("alice", "x"), "alice/#"), rule(true, 1));
    assert_eq!(rules.tell(Action::Subscribe, &who("alice", "x"), "+"), rule(false, 3));
}

#[test]
fn an_empty_account_or_client_is_nobody_in_particular() {
    let rules = rules("group g alice\nallow all account:alice #\nallow all client:x #\nallow all group:g #");
    assert_eq!(rules.tell(Action::Publish, &who("", ""), "a"), DENIED);
    assert_eq!(rules.tell(Action::Publish, &who("", "x"), "a"), rule(true, 3));
    assert_eq!(rules.tell(Action::Publish, &who("alice", ""), "a"), rule(true, 2));
    for text in ["allow all account: #", "allow all client:\"\" #", "group g \"\""] {
        assert!(Rules::parse(text, KEY).is_err(), "{text}");
    }
}

#[test]
fn groups_come_from_the_file_and_from_who_asks() {
    let rules = rules("group a one\ngroup b\nallow all group:a a\ngroup a two one\nallow all group:b b");
    for (account, expected) in [("one", rule(true, 3)), ("two", rule(true, 3)), ("three", DENIED)] {
        assert_eq!(rules.tell(Action::Publish, &who(account, "x"), "a"), expected, "{account}");
    }
    let groups: [Box<str>; 3] = ["unknown".into(), "b".into(), "".into()];
    let one = Who { account: "one", client_id: "x", groups: &groups };
    assert_eq!(rules.tell(Action::Publish, &one, "b"), rule(true, 5));
    assert_eq!(rules.tell(Action::Publish, &one, "a"), rule(true, 3));
    // A name is that of one kind only.
    assert_eq!(rules.tell(Action::Publish, &who("b", "b"), "b"), DENIED);
}

#[test]
fn grants_are_compared_like_rules_without_variables() {
    let list = [("a/#", true, true), ("%u/+", true, false), ("+/#", false, true), ("none", false, false)];
    let grants = Grants::new(list).expect("valid");
    for (action, topic, expected) in [
        (Action::Publish, "a", true),
        (Action::Retain, "a/b", true),
        (Action::Will, "b", false),
        (Action::Publish, "%u/x", true),
        (Action::Publish, "alice/x", false),
        (Action::Publish, "none", false),
        (Action::Subscribe, "a/+", true),
        (Action::Subscribe, "#", true),
        (Action::Subscribe, "b/#", true),
        (Action::Subscribe, "$SYS/#", false),
    ] {
        assert_eq!(grants.permits(action, topic), expected, "{action:?} {topic}");
    }
    let narrow = Grants::new([("a/+/c", true, true)]).expect("valid");
    for (asked, expected) in
        [("a/b/c", true), ("a/+/c", true), ("a/#", false), ("a/+/+", false), ("a/+", false)]
    {
        assert_eq!(narrow.permits(Action::Subscribe, asked), expected, "{asked}");
    }
    assert!(!Grants::default().permits(Action::Publish, "a"), "no grants, nothing allowed");
}
