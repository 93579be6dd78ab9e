//! What a line of a rule file says.
//!
//! Words are separated by spaces and tabs. A name or filter may stand in double quotes, with `\"` and `\\` for these two
//! characters. `#` begins a comment where a statement could begin, or behind a complete statement with a space after it:
//! elsewhere it is a topic filter. Whatever is not understood is an error, since a rule that is passed over would
//! allow what it was to deny.
//!
//! Called by `Rules::parse`. Lines and the file are bounded before they are looked at.

use std::borrow::Cow;

use crate::limits::{RULE_FILE_BYTES_MAX, RULE_LINE_BYTES_MAX, RULE_NAME_BYTES_MAX};

use super::filter::{check_pattern, shown};
use super::{Action, Fault, RuleError};

/// One line that says something.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Statement<'a> {
    Group { name: Cow<'a, str>, members: Vec<Cow<'a, str>> },
    Rule(Rule<'a>),
    Default { allowed: bool },
}

/// A rule as it is written.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Rule<'a> {
    pub allowed: bool,
    /// Bits of [`Action`].
    pub actions: u8,
    pub kind: PartyKind,
    /// Empty for everyone.
    pub party: Cow<'a, str>,
    pub filter: Cow<'a, str>,
}

/// What kind of name a rule is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PartyKind {
    Everyone,
    Account,
    Group,
    Client,
}

const ALL: u8 = Action::Publish.bit() | Action::Subscribe.bit() | Action::Retain.bit() | Action::Will.bit();

/// Hands every statement to `add`, with its line counted from 1.
pub(super) fn read<'a>(
    text: &'a str,
    mut add: impl FnMut(usize, Statement<'a>) -> Result<(), Fault>,
) -> Result<(), RuleError> {
    if text.len() > RULE_FILE_BYTES_MAX {
        let cause = format!("a rule file of {} bytes", text.len());
        let cure =
            format!("the most is {RULE_FILE_BYTES_MAX}: use groups, %u and %c instead of a rule for each");
        return Err(Fault::new(cause, cure).at(1));
    }
    // Some editors put a byte order mark in front.
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    for (number, line) in text.lines().enumerate() {
        let at_line = |fault: Fault| fault.at(number + 1);
        if let Some(statement) = parse_line(line).map_err(at_line)? {
            add(number + 1, statement).map_err(at_line)?;
        }
    }
    Ok(())
}

fn parse_line(line: &str) -> Result<Option<Statement<'_>>, Fault> {
    if line.len() > RULE_LINE_BYTES_MAX {
        let cause = format!("a line of {} bytes", line.len());
        return Err(Fault::new(cause, format!("the most is {RULE_LINE_BYTES_MAX}: use several lines")));
    }
    let mut words = Words { rest: line };
    if words.rest().is_empty() || words.rest().starts_with('#') {
        return Ok(None);
    }
    let statement = match words.keyword() {
        "group" => parse_group(&mut words)?,
        "default" => Statement::Default { allowed: parse_default(&mut words)? },
        "allow" => Statement::Rule(parse_rule(&mut words, true)?),
        "deny" => Statement::Rule(parse_rule(&mut words, false)?),
        other => {
            let cause = format!("{:?} begins no statement", shown(other));
            return Err(Fault::new(cause, "begin the line with allow, deny, group, default or #"));
        }
    };
    if !words.at_end() {
        return Err(Fault::new(
            format!("{:?} behind a complete statement", shown(words.rest())),
            "one statement a line; a comment behind it is # and a space; a name with spaces stands in double quotes",
        ));
    }
    Ok(Some(statement))
}

fn parse_group<'a>(words: &mut Words<'a>) -> Result<Statement<'a>, Fault> {
    let name = words.name("the name of a group")?;
    let mut members = Vec::new();
    while !words.at_end() {
        members.push(words.name("an account")?);
    }
    Ok(Statement::Group { name, members })
}

fn parse_default(words: &mut Words<'_>) -> Result<bool, Fault> {
    match words.keyword() {
        "allow" => Ok(true),
        "deny" => Ok(false),
        other => Err(Fault::new(
            format!("{:?} is no default", shown(other)),
            "write \"default deny\" or \"default allow\"",
        )),
    }
}

fn parse_rule<'a>(words: &mut Words<'a>, allowed: bool) -> Result<Rule<'a>, Fault> {
    let actions = parse_actions(words.keyword())?;
    let (kind, party) = parse_party(words)?;
    let filter = words.word("a topic filter")?;
    check_pattern(&filter)?;
    Ok(Rule { allowed, actions, kind, party, filter })
}

fn parse_actions(word: &str) -> Result<u8, Fault> {
    let mut actions = 0;
    for action in word.split(',') {
        actions |= match action {
            "publish" => Action::Publish.bit(),
            "subscribe" => Action::Subscribe.bit(),
            "retain" => Action::Retain.bit(),
            "will" => Action::Will.bit(),
            "all" => ALL,
            other => {
                return Err(Fault::new(
                    format!("{:?} is no action", shown(other)),
                    "name publish, subscribe, retain, will or all, with commas and no spaces between",
                ));
            }
        };
    }
    Ok(actions)
}

fn parse_party<'a>(words: &mut Words<'a>) -> Result<(PartyKind, Cow<'a, str>), Fault> {
    let kinds = [
        ("account:", PartyKind::Account, "an account"),
        ("group:", PartyKind::Group, "the name of a group"),
        ("client:", PartyKind::Client, "a client id"),
    ];
    for (prefix, kind, what) in kinds {
        if let Some(name) = words.rest().strip_prefix(prefix) {
            let blank = name.starts_with(BLANK);
            words.rest = if blank { "" } else { name };
            return Ok((kind, words.name(what)?));
        }
    }
    match words.keyword() {
        "everyone" => Ok((PartyKind::Everyone, Cow::Borrowed(""))),
        other => Err(Fault::new(
            format!("{:?} is nobody", shown(other)),
            "name everyone, account:NAME, group:NAME or client:ID",
        )),
    }
}

const BLANK: [char; 2] = [' ', '\t'];

/// What is left of a line.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    /// From the next word on.
    fn rest(&mut self) -> &'a str {
        self.rest = self.rest.trim_start_matches(BLANK);
        self.rest
    }

    /// Whether nothing or a comment follows.
    fn at_end(&mut self) -> bool {
        match self.rest().strip_prefix('#') {
            Some(comment) => comment.is_empty() || comment.starts_with(BLANK),
            None => self.rest.is_empty(),
        }
    }

    /// The next word up to a blank; empty if there is none.
    fn keyword(&mut self) -> &'a str {
        let rest = self.rest();
        let (word, rest) = rest.split_at(rest.find(BLANK).unwrap_or(rest.len()));
        self.rest = rest;
        word
    }

    /// A name: a word that is not empty, and not taken for a comment.
    fn name(&mut self, what: &str) -> Result<Cow<'a, str>, Fault> {
        if self.rest().starts_with('#') {
            return Err(Fault::new(
                format!("{what} is missing before {:?}", shown(self.rest)),
                "a comment is # and a space; a name that begins with # stands in double quotes",
            ));
        }
        let name = self.word(what)?;
        if name.is_empty() {
            return Err(Fault::new(format!("{what} is empty"), "remove the line, or write the name"));
        }
        if name.len() > RULE_NAME_BYTES_MAX {
            let cause = format!("{what} of {} bytes", name.len());
            return Err(Fault::new(
                cause,
                format!("no name has more than {RULE_NAME_BYTES_MAX}: shorten it"),
            ));
        }
        Ok(name)
    }

    /// The next word, perhaps in quotes.
    fn word(&mut self, what: &str) -> Result<Cow<'a, str>, Fault> {
        if let Some(quoted) = self.rest().strip_prefix('"') {
            let (word, rest) = unquote(quoted)?;
            if !(rest.is_empty() || rest.starts_with(BLANK)) {
                let cause = format!("{:?} right behind a closing quote", shown(rest));
                return Err(Fault::new(cause, "put a space between words; a quote within quotes is \\\""));
            }
            self.rest = rest;
            return Ok(Cow::Owned(word));
        }
        let word = self.keyword();
        if word.is_empty() {
            let cause = format!("{what} is missing");
            return Err(Fault::new(
                cause,
                "a rule is: allow|deny ACTIONS WHO FILTER; a group: group NAME MEMBER...",
            ));
        }
        if let Some(odd) = word.chars().find(|&c| c == '"' || c.is_control() || c.is_whitespace()) {
            let cause = format!("{odd:?} within the word {:?}", shown(word));
            return Err(Fault::new(
                cause,
                "put the whole word in double quotes, with \\\" for a quote in it",
            ));
        }
        Ok(Cow::Borrowed(word))
    }
}

/// What stands before the closing quote, and what behind it.
fn unquote(quoted: &str) -> Result<(String, &str), Fault> {
    let mut word = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((word, &quoted[at + 1..])),
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => word.push(escaped),
                _ => {
                    let cause = format!("a lone backslash in the quotes before {:?}", shown(&quoted[at..]));
                    return Err(Fault::new(
                        cause,
                        "within quotes write \\\\ for a backslash and \\\" for a quote",
                    ));
                }
            },
            character => word.push(character),
        }
    }
    Err(Fault::new(format!("no closing quote behind {:?}", shown(quoted)), "add the second double quote"))
}
