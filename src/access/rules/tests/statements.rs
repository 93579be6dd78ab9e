//! What is taken as a statement, and what an operator is told about the rest.

use super::super::statement::{PartyKind, Rule, Statement, read};
use super::*;

fn statements(text: &str) -> Vec<(usize, Statement<'_>)> {
    let mut all = Vec::new();
    read(text, |line, statement| {
        all.push((line, statement));
        Ok(())
    })
    .expect("valid");
    all
}

fn parsed<'a>(kind: PartyKind, party: &'a str, filter: &'a str) -> Statement<'a> {
    Statement::Rule(Rule { allowed: true, actions: 15, kind, party: party.into(), filter: filter.into() })
}

#[test]
fn quotes_hold_spaces_hashes_and_themselves() {
    let text = concat!(
        "\u{FEFF}allow all account:\"a \\\"b\\\" \\\\ #\" \"x y/#\"\r\n",
        "\t allow\tall  client:a\\b \"#\" # a comment\n\n  #another\n",
        "allow publish,subscribe,retain,will everyone #\n",
        "allow all everyone # # a comment\n",
        "allow all everyone a/#/x\n",
    );
    let (text, wrong) = text.split_at(text.find("allow all everyone a/").expect("it is there"));
    assert_eq!(
        statements(text),
        [
            (1, parsed(PartyKind::Account, "a \"b\" \\ #", "x y/#")),
            (2, parsed(PartyKind::Client, "a\\b", "#")),
            (5, parsed(PartyKind::Everyone, "", "#")),
            (6, parsed(PartyKind::Everyone, "", "#")),
        ]
    );
    assert!(Rules::parse(wrong, KEY).is_err());
}

#[test]
fn groups_and_defaults_may_have_comments_behind_them() {
    let text =
        "group g # nobody yet\ngroup g one \"#two\" #\ndefault allow # for now\ndeny will group:g a # no";
    let all = statements(text);
    assert_eq!(all[0].1, Statement::Group { name: "g".into(), members: vec![] });
    assert_eq!(all[1].1, Statement::Group { name: "g".into(), members: vec!["one".into(), "#two".into()] });
    assert_eq!(all[2].1, Statement::Default { allowed: true });
    assert_eq!(all.len(), 4);
}

#[test]
fn errors_name_the_line_the_cause_and_the_cure() {
    for (text, expected) in [
        ("#\nalow all everyone #", "line 2: \"alow\" begins no statement; begin the line with allow"),
        ("allow read everyone #", "line 1: \"read\" is no action; name publish, subscribe"),
        ("allow publish, subscribe everyone #", "line 1: \"\" is no action; name"),
        ("allow all alice #", "line 1: \"alice\" is nobody; name everyone, account:NAME"),
        ("allow all", "line 1: \"\" is nobody; name everyone"),
        ("allow all account: #", "line 1: an account is missing; a rule is"),
        ("allow all client:\"\" #", "line 1: a client id is empty; "),
        ("allow all everyone", "line 1: a topic filter is missing; a rule is"),
        ("allow all everyone # comment", "line 1: \"comment\" behind a complete statement; one"),
        ("allow all everyone a #comment", "line 1: \"#comment\" behind a complete statement; one"),
        ("allow all everyone a b", "line 1: \"b\" behind a complete statement; one"),
        ("allow all everyone \"a", "line 1: no closing quote behind \"a\"; add"),
        ("allow all everyone \"a\"b", "line 1: \"b\" right behind a closing quote; put"),
        ("allow all everyone \"a\\n\"", "line 1: a lone backslash in the quotes before"),
        ("allow all everyone a\"b", "line 1: '\"' within the word \"a\\\"b\"; put the whole"),
        ("allow all everyone a\u{A0}b", "line 1: '\\u{a0}' within the word"),
        ("allow all everyone \"\"", "line 1: an empty topic filter; write #"),
        ("allow all everyone \"a\0\"", "line 1: a topic filter with U+0000; "),
        ("allow all everyone a/#/b", "line 1: a wildcard where none may stand in \"a/#/b\"; +"),
        ("allow all everyone a+/b", "line 1: a wildcard where none may stand in \"a+/b\"; +"),
        ("allow all everyone a%u/b", "line 1: %u within the level \"a%u\"; %u stands for a whole level"),
        ("allow all everyone a/%c-b", "line 1: %c within the level \"%c-b\"; %c stands"),
        ("allow all everyone $share/g/a", "line 1: the shared subscription \"$share/g/a\"; write"),
        ("allow all group:g a\ngroup g", ""),
        ("group h\nallow all group:g a\nallow all group:f a", "line 2: no group is named \"g\"; declare it"),
        ("group", "line 1: the name of a group is missing; "),
        ("group # x", "line 1: the name of a group is missing before \"# x\"; a comment"),
        ("group g #x", "line 1: an account is missing before \"#x\"; a comment"),
        ("default", "line 1: \"\" is no default; write"),
        ("default maybe", "line 1: \"maybe\" is no default; write"),
        ("default deny\n\ndefault allow", "line 3: a second default; remove"),
        ("default deny all", "line 1: \"all\" behind a complete statement; one"),
    ] {
        match Rules::parse(text, KEY) {
            Ok(_) => assert_eq!(expected, "", "{text}"),
            Err(error) => {
                let said = error.to_string();
                assert!(!expected.is_empty() && said.starts_with(expected), "{text:?} says {said}");
                assert!(!error.cause.is_empty() && !error.cure.is_empty());
            }
        }
    }
}

#[test]
fn a_long_word_is_shown_from_its_beginning_only() {
    let error = Rules::parse(&"ü".repeat(30_000), KEY).expect_err("no statement");
    assert_eq!(error.cause, format!("{:?} begins no statement", "ü".repeat(80)));
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "([a-z:,#+/%$\"\\\\ \t\n]|allow |deny |all |everyone |group |account:|%u|default ){0,40}") {
        let _ = Rules::parse(&text, KEY);
    }
}
