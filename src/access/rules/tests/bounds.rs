//! Every bound is reached, and what happens there; hostile topics end at once.

use super::*;
use crate::limits::*;

#[track_caller]
fn refused(text: &str) -> RuleError {
    Rules::parse(text, KEY).expect_err("beyond a bound")
}

#[test]
fn a_file_has_at_most_rules_max_rules() {
    let mut text = "allow all everyone a\n".repeat(RULES_MAX);
    assert_eq!(rules(&text).len(), RULES_MAX);
    text.push_str("allow all everyone a\n");
    assert_eq!(refused(&text).line, RULES_MAX + 1);
}

#[test]
fn a_file_has_at_most_rule_file_bytes_max() {
    let text = "\n".repeat(RULE_FILE_BYTES_MAX + 1);
    assert!(refused(&text).cause.contains("268435457 bytes"));
    assert!(rules(&text[..RULE_FILE_BYTES_MAX]).is_empty());
}

#[test]
fn a_line_has_at_most_rule_line_bytes_max() {
    assert!(rules(&format!("#{}", "x".repeat(RULE_LINE_BYTES_MAX - 1))).is_empty());
    assert!(
        refused(&format!("\n#{}", "x".repeat(RULE_LINE_BYTES_MAX)))
            .to_string()
            .starts_with("line 2: a line of")
    );
}

#[test]
fn names_and_filters_have_at_most_rule_name_bytes_max() {
    let longest = "x".repeat(RULE_NAME_BYTES_MAX);
    let rules = rules(&format!("allow all everyone {longest}\nallow all account:{longest} a"));
    assert_eq!(rules.tell(Action::Publish, &who("", ""), &longest), rule(true, 1));
    assert_eq!(rules.tell(Action::Publish, &who(&longest, ""), "a"), rule(true, 2));
    refused(&format!("allow all everyone x{longest}"));
    refused(&format!("allow all account:x{longest} a"));
}

#[test]
fn a_filter_has_at_most_rule_levels_max_levels() {
    let deepest = "+/".repeat(RULE_LEVELS_MAX - 1) + "a";
    let rules = rules(&format!("allow all everyone {deepest}"));
    for action in [Action::Publish, Action::Subscribe] {
        assert_eq!(rules.tell(action, &who("", ""), &deepest.replace('+', "b")), rule(true, 1));
        assert_eq!(rules.tell(action, &who("", ""), &(deepest.replace('+', "b") + "/a")), DENIED);
    }
    assert!(refused(&format!("allow all everyone a/{deepest}")).cause.contains("33 levels"));
}

#[test]
fn groups_have_at_most_group_members_max_members() {
    let mut text = String::new();
    for line in 0..GROUP_MEMBERS_MAX / 1_000 {
        text.push_str(&format!("group g{}{}\n", line % 60, " a b c d e f g h i j".repeat(100)));
    }
    assert!(rules(&text).is_empty());
    text.push_str("group g1 x");
    assert_eq!(refused(&text).line, GROUP_MEMBERS_MAX / 1_000 + 1);
}

#[test]
fn an_account_is_in_at_most_groups_per_account_max_groups() {
    let mut text: String = (0..GROUPS_PER_ACCOUNT_MAX).map(|group| format!("group g{group} a b\n")).collect();
    text.push_str("allow all group:g63 a\n");
    let decision = rules(&text).tell(Action::Publish, &who("b", ""), "a");
    assert_eq!(decision, rule(true, 65));
    text.push_str("group more a\ngroup g1 b");
    assert!(refused(&text).to_string().starts_with("line 66: the account \"a\" is in 65 groups; "));
}

#[test]
fn a_decision_takes_at_most_rule_steps_max_steps() {
    // All filters of 13 levels that are a or +, and none fits: 2^14 - 1 nodes.
    let mut text = String::new();
    for bits in 0..1 << 13 {
        let level = |place| if bits >> place & 1 == 0 { "a/" } else { "+/" };
        text.push_str(&format!("allow publish everyone {}b\n", (0..13).map(level).collect::<String>()));
    }
    // And more denied levels than that.
    for number in 0..=RULE_STEPS_MAX {
        text.push_str(&format!("deny subscribe everyone {number}/x\n"));
    }
    let rules = rules(&text);
    let nobody = who("", "");
    let (topic, asked) = ("a/".repeat(13) + "c", "+/y");
    assert_eq!(rules.tell(Action::Publish, &nobody, &topic), Told::TooManyToCompare);
    assert_eq!(rules.steps(Action::Publish, &nobody, &topic), RULE_STEPS_MAX);
    assert_eq!(rules.tell(Action::Subscribe, &nobody, asked), Told::TooManyToCompare);
    assert_eq!(rules.steps(Action::Subscribe, &nobody, asked), RULE_STEPS_MAX);
    // Two steps more than there are: everyone and the root.
    let fitting =
        &text.lines().skip(1 << 13).take(RULE_STEPS_MAX as usize - 2).collect::<Vec<_>>().join("\n");
    let rules = super::rules(fitting);
    assert_eq!(rules.tell(Action::Subscribe, &nobody, asked), DENIED);
    let groups: Vec<Box<str>> = (0..RULE_STEPS_MAX).map(|group| group.to_string().into()).collect();
    let crowd = Who { groups: &groups, ..nobody };
    assert_eq!(rules.tell(Action::Subscribe, &crowd, "x"), Told::TooManyToCompare);
}

#[test]
fn an_early_rule_spares_the_later_ones() {
    let mut text = "allow subscribe everyone +/open\ndeny subscribe everyone a/x\n".to_owned();
    for number in 0..50_000 {
        text.push_str(&format!(
            "deny subscribe everyone n{number}/x\nallow subscribe everyone m{number}/y\n"
        ));
    }
    for number in 0..1 << 10 {
        let level = |place| if number >> place & 1 == 0 { "a/" } else { "+/" };
        text.push_str(&format!("deny publish everyone {}b\n", (0..10).map(level).collect::<String>()));
    }
    let rules = rules(&format!("{text}allow publish everyone +/b"));
    let name = "a/".repeat(10) + "b";
    assert_eq!(rules.tell(Action::Publish, &who("a", "b"), &name), rule(false, 100_003));
    assert!(rules.steps(Action::Publish, &who("a", "b"), &name) < 40, "of 2,047 nodes that match");
    for (asked, expected) in [("+/open", rule(true, 1)), ("+/x", rule(false, 2)), ("#", rule(false, 2))] {
        assert_eq!(rules.tell(Action::Subscribe, &who("a", "b"), asked), expected, "{asked}");
        assert!(rules.steps(Action::Subscribe, &who("a", "b"), asked) <= 6, "{asked}");
    }
}

#[test]
fn hostile_topics_are_decided_in_few_steps() {
    let mut text = String::new();
    for depth in 1..RULE_LEVELS_MAX {
        text.push_str(&format!("deny publish everyone {}x\n", "+/".repeat(depth)));
        text.push_str(&format!("deny subscribe everyone {}x\n", "%c/".repeat(depth)));
        text.push_str(&format!("allow publish everyone {}x\n", "/".repeat(depth)));
    }
    text.push_str("allow all everyone #");
    let rules = rules(&text);
    let topics = [
        "/".repeat(65_534),
        "a/".repeat(32_767) + "a",
        "a".repeat(65_535),
        "+/".repeat(32_767) + "+",
        "é".repeat(32_767),
        "$/".repeat(32_767),
    ];
    for topic in &topics {
        for action in [Action::Publish, Action::Subscribe] {
            for id in ["a", "", "+", topic] {
                let asking = who(id, id);
                let expected = if topic.starts_with('$') { DENIED } else { rule(true, 94) };
                assert_eq!(rules.tell(action, &asking, topic), expected, "{}", &topic[..2]);
                assert!(rules.steps(action, &asking, topic) <= 100, "{}", &topic[..2]);
            }
        }
    }
}

#[test]
fn a_token_grants_at_most_grants_max_filters_of_grant_bytes_max() {
    let most = vec![("a", true, true); GRANTS_MAX];
    assert!(Grants::new(most.iter().copied()).expect("at the bound").permits(Action::Publish, "a"));
    let more = most.iter().copied().chain([("b", true, true)]);
    assert_eq!(Grants::new(more), Err(format!("more than {GRANTS_MAX} topic filters")));
    let longest = "x".repeat(GRANT_BYTES_MAX);
    let grants = Grants::new([(&*longest, true, true)]).expect("at the bound");
    assert!(grants.permits(Action::Publish, &longest) && grants.bytes() < GRANT_BYTES_MAX + 64);
    assert!(Grants::new([(&*longest, true, true), ("a", true, true)]).is_err());
    for filter in ["", "a#", "$share/g/a", "a\0", &"/".repeat(RULE_LEVELS_MAX)] {
        assert!(Grants::new([(filter, true, true)]).is_err(), "{filter:?}");
    }
}
