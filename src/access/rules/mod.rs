//! Who may do what with which topics: a file of rules of which the first that applies decides, and what a token grants.
//!
//! One statement a line, `#` begins a comment:
//!
//! ```text
//! group admins root "ops team"
//! deny  subscribe           everyone        $SYS/#
//! allow publish,subscribe   account:alice   shared/room/#
//! allow all                 group:admins    #
//! allow publish             client:probe-7  probes/%c/+
//! allow all                 everyone        u/%u/#
//! default deny
//! ```
//!
//! A level `%u` of a filter is the account of who asks, `%c` the client id. Both are a peer's choice, so they stand for a
//! whole level or for nothing: one that is empty or holds `/`, `+` or `#` fits no topic, and at the front of a filter
//! neither fits what begins with `$`, like the wildcards [MQTT-4.7.2-1].
//!
//! Publish, retain and will are decided on a topic name: the first rule whose filter matches it. Subscribe is decided on
//! a filter: the first rule that either allows and **covers** it (matches every topic that it matches), or denies and
//! **overlaps** it (some topic is matched by both). So what an allowed subscription brings is never denied, and nothing
//! needs to be checked when messages are delivered. The empty name counts as a topic in this, though nobody can use it:
//! `/#` overlaps `+`. An exception for it would only allow more.
//!
//! | file | decides |
//! |---|---|
//! | `statement` | what a line says |
//! | `filter` | which filters are taken; matching and covering of two plain filters |
//! | `build` | statements into what follows |
//! | `parties` | everyone, accounts, groups and clients: whom a rule is for |
//! | `tree` | the filters of each party, level by level |
//! | `decide` | the walk that finds the first rule |
//! | `grants` | what a token allows, without rules |
//!
//! It does not read files, judge topics, or know shared subscriptions: the caller hands over valid names and filters
//! without their `$share/GROUP/`. [`Rules`] never change; a changed file makes new ones. `decide` allocates nothing and
//! takes at most `limits::RULE_STEPS_MAX` steps, whatever is asked.

mod build;
mod decide;
mod filter;
mod grants;
mod parties;
mod statement;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;

pub use grants::Grants;

use parties::Parties;
use tree::{Texts, Tree};

/// What somebody wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send to a topic name.
    Publish,
    /// Subscribe to a topic filter.
    Subscribe,
    /// Leave a retained value at a topic name.
    Retain,
    /// Have a will sent to a topic name.
    Will,
}

impl Action {
    /// Its place in a set of actions.
    const fn bit(self) -> u8 {
        match self {
            Action::Publish => 1,
            Action::Subscribe => 2,
            Action::Retain => 4,
            Action::Will => 8,
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The account; empty: none, so that rules for accounts and filters with `%u` do not apply.
    pub account: &'a str,
    /// The client id; empty: none yet, so that rules for clients and filters with `%c` do not apply.
    pub client_id: &'a str,
    /// Groups beyond those that the file has the account in, for instance from a token. One that the file does not
    /// know has no rules.
    pub groups: &'a [Box<str>],
}

/// What the rules say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// A rule decides.
    Rule {
        /// Whether it allows.
        allowed: bool,
        /// Which, for [`Rules::line_of`].
        rule: u32,
    },
    /// No rule applies.
    Default {
        /// What the `default` statement says, or false if there is none.
        allowed: bool,
    },
    /// More than `limits::RULE_STEPS_MAX` steps would be needed to tell: not allowed.
    TooManyToCompare,
}

impl Decision {
    /// Whether it may be done.
    pub fn is_allowed(self) -> bool {
        match self {
            Decision::Rule { allowed, .. } | Decision::Default { allowed } => allowed,
            Decision::TooManyToCompare => false,
        }
    }
}

/// A line that will not do. Its text is for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub cure: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}; {}", self.line, self.cause, self.cure)
    }
}

impl std::error::Error for RuleError {}

/// Cause and cure, before the line is known.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Fault {
    cause: String,
    cure: String,
}

impl Fault {
    fn new(cause: impl Into<String>, cure: impl Into<String>) -> Fault {
        Fault { cause: cause.into(), cure: cure.into() }
    }

    fn at(self, line: usize) -> RuleError {
        RuleError { line, cause: self.cause, cure: self.cure }
    }
}

/// The rules of one file. See the module.
#[derive(Debug)]
pub struct Rules {
    texts: Texts,
    parties: Parties,
    tree: Tree,
    /// The line of each rule.
    lines: Box<[u32]>,
    default_allowed: bool,
}

impl Rules {
    /// Reads the text of a file. `key` is a secret number: peers choose which names and topics are looked up.
    pub fn parse(text: &str, key: [u8; 16]) -> Result<Rules, RuleError> {
        let mut builder = build::Builder::new(key);
        statement::read(text, |line, statement| builder.add(line, statement))?;
        builder.finish()
    }

    /// The line of a rule that a decision names, counted from 1. Not in the decision: it would be one more memory access.
    pub fn line_of(&self, rule: u32) -> u32 {
        self.lines[rule as usize]
    }

    /// The statement on a line, for who explains a decision. `text` is what the rules were made from.
    pub fn statement_at(text: &str, line: u32) -> Option<&str> {
        text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?).map(str::trim)
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is none, so that the default decides everything.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.texts.bytes() + self.parties.bytes() + self.tree.bytes() + size_of_val(&*self.lines)
    }
}
