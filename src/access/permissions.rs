//! What a connection may do: publish, subscribe, retain, leave a will.
//!
//! Decides it from the rules of the site, the topics that belong to accounts, and what the connection's token grants; who the
//! connection is has been found out before ([`super::guard`]). Asked by the broker of each shard, and by `ironpost acl`.
//! Immutable: when rules are read again, there is another one.
//!
//! In this order, the first that says something decides:
//!
//! 1. a token that grants permissions, and not this one: no;
//! 2. a rule of the file;
//! 3. a token that grants it: yes;
//! 4. a topic of an account's own (`account_topic_pattern`): yes if it is the connection's, else no;
//! 5. the file's `default`; without a file: yes.
//!
//! A subscription is permitted if all that its filter could bring is.

use std::sync::Arc;

use super::passport::Passport;
use super::rules::{Action, Decision, Rules, Who};
use crate::placement::{Placement, Whose};

/// What holds for everybody.
#[derive(Clone, Debug)]
pub struct Permissions {
    rules: Option<Arc<Rules>>,
    placement: Placement,
    is_enforced: bool,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Bearer<'a> {
    /// Its account: its client id, where that is the account.
    pub account: &'a str,
    /// Its client id.
    pub client_id: &'a str,
    /// What it has proven, and was granted.
    pub passport: &'a Passport,
}

/// What decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// The token's permissions.
    Grants,
    /// That rule of the file; see [`Permissions::line_of`].
    Rule(u32),
    /// The filter overlaps with more rules than are compared.
    TooManyRules,
    /// The topic is of an account.
    Ownership,
    /// Nothing else.
    Default,
}

/// Yes or no, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Permission {
    /// Whether it may.
    pub allowed: bool,
    /// What decides.
    pub by: By,
}

impl Permissions {
    /// Of a site with those rules. Without rules they are enforced only if `is_enforced`: where nobody has to prove anything,
    /// there is nobody whose topics could be kept from others.
    pub fn new(rules: Option<Arc<Rules>>, placement: Placement, is_enforced: bool) -> Permissions {
        Permissions { is_enforced: is_enforced || rules.is_some(), rules, placement }
    }

    /// Everybody may do everything.
    pub fn open(placement: Placement) -> Permissions {
        Permissions::new(None, placement, false)
    }

    /// Whether there is something to ask.
    pub fn is_enforced(&self) -> bool {
        self.is_enforced
    }

    /// In which line of the file a rule stands.
    pub fn line_of(&self, rule: u32) -> u32 {
        self.rules.as_ref().map_or(0, |rules| rules.line_of(rule))
    }

    /// Whether it may do that with a topic or, to subscribe, with a filter (without its `$share` prefix).
    pub fn permits(&self, action: Action, bearer: &Bearer<'_>, topic: &str) -> bool {
        !self.is_enforced || self.decide(action, bearer, topic).allowed
    }

    /// The same, and why.
    pub fn decide(&self, action: Action, bearer: &Bearer<'_>, topic: &str) -> Permission {
        let Passport { is_proven, groups, grants, .. } = bearer.passport;
        // An account that nobody has proven is none.
        let account = if *is_proven { bearer.account } else { "" };
        let granted = grants.as_ref().map(|grants| grants.permits(action, topic));
        if granted == Some(false) {
            return Permission { allowed: false, by: By::Grants };
        }
        let mut default = true;
        if let Some(rules) = &self.rules {
            match rules.decide(action, &Who { account, client_id: bearer.client_id, groups }, topic) {
                Decision::Rule { allowed, rule } => return Permission { allowed, by: By::Rule(rule) },
                Decision::TooManyToCompare => return Permission { allowed: false, by: By::TooManyRules },
                Decision::Default { allowed } => default = allowed,
            }
        }
        if granted == Some(true) {
            return Permission { allowed: true, by: By::Grants };
        }
        match self.placement.whose(topic) {
            Whose::Nobodys => Permission { allowed: default, by: By::Default },
            Whose::Of(owner) => {
                Permission { allowed: !account.is_empty() && owner == account, by: By::Ownership }
            }
            Whose::Several => Permission { allowed: false, by: By::Ownership },
        }
    }
}
