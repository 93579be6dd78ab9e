//! Where an account lives and which shard owns a topic: pure functions of the data directory's hash key.
//!
//! Home = hash(account). Owner = hash(placement key of the topic), where the key is the account, if the topic matches
//! the configured account pattern, else the topic's first two levels. So all devices of an account and the topics
//! under its own prefix meet in one shard. Shard count and key are recorded in the data directory; with another count
//! nothing here would find what is stored there, which is why that is refused at start.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::ids::ShardId;

/// Which shards must know a filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The filter is literal through its placement key: only topics of this shard can match.
    One(ShardId),
    /// Topics of any shard can match.
    Every,
}

/// Which account's own topics are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose<'a> {
    /// No account's.
    Nobodys,
    /// Those of that account.
    Of(&'a str),
    /// Topics of several accounts, or of some and others that are nobody's.
    Several,
}

/// The placement of one data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    shards: u16,
    key: [u8; 16],
    account_levels: Vec<Level>,
}

/// One level of the account pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Level {
    Literal(Box<str>),
    Account,
}

impl Placement {
    /// `pattern` is like `u/{account}/#`: literal levels, one `{account}`, a final `#`. Anything else is an error
    /// that says what is wrong. `shards` is 1..=`limits::SHARDS_MAX`.
    pub fn new(shards: u16, key: [u8; 16], pattern: Option<&str>) -> Result<Placement, String> {
        assert!(shards >= 1 && usize::from(shards) <= crate::limits::SHARDS_MAX);
        let account_levels = match pattern {
            Some(pattern) => parse_pattern(pattern)?,
            None => Vec::new(),
        };
        Ok(Placement { shards, key, account_levels })
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Every shard, in order.
    pub fn all(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }

    /// The home of an account.
    pub fn home(&self, account: &str) -> ShardId {
        self.hash(account)
    }

    /// The owner of a topic name.
    pub fn owner(&self, topic: &str) -> ShardId {
        if self.shards == 1 {
            return ShardId(0);
        }
        match self.account_of(topic) {
            Some(account) => self.hash(account),
            None => self.hash(first_two_levels(topic)),
        }
    }

    /// Who must know a filter (without its `$share/` prefix).
    pub fn filter_owner(&self, filter: &str) -> Owner {
        if self.shards == 1 {
            return Owner::One(ShardId(0));
        }
        match self.whose(filter) {
            Whose::Of(account) => return Owner::One(self.hash(account)),
            Whose::Several => return Owner::Every,
            Whose::Nobodys => {}
        }
        // `a/#` also matches `a`, whose key is `a` alone, so `#` as the second level is broad, and so is `a/b/#` only
        // in its levels after the key: `a/b` has the key `a/b` too.
        let key = first_two_levels(filter);
        if key.split('/').any(|level| level == "+" || level == "#") {
            Owner::Every
        } else {
            Owner::One(self.hash(key))
        }
    }

    /// Whose topics a topic name is among, or a filter (without its `$share/` prefix) could bring.
    pub fn whose<'a>(&self, filter: &'a str) -> Whose<'a> {
        if self.account_levels.is_empty() || !self.may_match_pattern(filter) {
            return Whose::Nobodys;
        }
        match self.account_of(filter) {
            Some(account) if !account.starts_with(['+', '#']) => Whose::Of(account),
            _ => Whose::Several,
        }
    }

    fn hash(&self, text: &str) -> ShardId {
        if self.shards == 1 {
            return ShardId(0);
        }
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(text.as_bytes());
        // Multiply-shift instead of a remainder: no bias worth naming at 64 shards, and no division.
        let shard = (u128::from(hasher.finish()) * u128::from(self.shards)) >> 64;
        ShardId(u16::try_from(shard).expect("the product of a 64-bit fraction and n is below n"))
    }

    /// The account level of a topic that matches the pattern.
    fn account_of<'a>(&self, topic: &'a str) -> Option<&'a str> {
        if self.account_levels.is_empty() {
            return None;
        }
        let mut levels = topic.split('/');
        let mut account = None;
        for expected in &self.account_levels {
            let level = levels.next()?;
            match expected {
                Level::Literal(literal) if **literal == *level => {}
                Level::Literal(_) => return None,
                Level::Account => account = Some(level),
            }
        }
        account
    }

    /// Whether some topic that matches `filter` also matches the account pattern.
    fn may_match_pattern(&self, filter: &str) -> bool {
        let mut levels = filter.split('/');
        for expected in &self.account_levels {
            match (levels.next(), expected) {
                (Some("#"), _) => return true,
                (Some(_), Level::Account) | (Some("+"), _) => {}
                (Some(level), Level::Literal(literal)) if **literal == *level => {}
                _ => return false,
            }
        }
        true
    }
}

fn first_two_levels(topic: &str) -> &str {
    match topic.match_indices('/').nth(1) {
        Some((end, _)) => &topic[..end],
        None => topic,
    }
}

fn parse_pattern(pattern: &str) -> Result<Vec<Level>, String> {
    let Some(prefix) = pattern.strip_suffix("/#") else {
        return Err(format!("the account pattern {pattern:?} must end in \"/#\", like \"u/{{account}}/#\""));
    };
    let levels: Vec<Level> = prefix
        .split('/')
        .map(|level| if level == "{account}" { Level::Account } else { Level::Literal(level.into()) })
        .collect();
    let accounts = levels.iter().filter(|level| **level == Level::Account).count();
    let wild =
        levels.iter().any(|level| matches!(level, Level::Literal(text) if text.contains(['+', '#', '{'])));
    if accounts != 1 || wild {
        return Err(format!("the account pattern {pattern:?} must have literal levels and one {{account}}"));
    }
    Ok(levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(pattern: Option<&str>) -> Placement {
        Placement::new(64, [7; 16], pattern).expect("a valid pattern")
    }

    /// Whatever matches a filter with one owner is owned by it.
    #[test]
    fn a_filter_with_one_owner_is_known_where_its_topics_are_owned() {
        for pattern in [None, Some("u/{account}/#")] {
            let placement = placement(pattern);
            for (filter, topics) in [
                ("a/b", &["a/b"][..]),
                ("a/b/#", &["a/b", "a/b/c", "a/b/c/d"]),
                ("a/b/+/d", &["a/b/c/d"]),
                ("a", &["a"]),
                ("u/alice/#", &["u/alice", "u/alice/inbox"]),
                ("u/alice/+", &["u/alice/inbox"]),
                ("/", &["/"]),
                ("//#", &["/", "//", "//x"]),
            ] {
                match placement.filter_owner(filter) {
                    Owner::One(owner) => {
                        for topic in topics {
                            assert_eq!(placement.owner(topic), owner, "{filter} {topic} {pattern:?}");
                        }
                    }
                    Owner::Every => panic!("{filter} has one owner under {pattern:?}"),
                }
            }
        }
    }

    #[test]
    fn a_filter_with_a_wildcard_in_its_key_is_known_everywhere() {
        for filter in ["#", "+", "a/#", "a/+", "+/b", "+/b/c", "u/+/inbox", "u/#", "+/alice/inbox"] {
            assert_eq!(placement(Some("u/{account}/#")).filter_owner(filter), Owner::Every, "{filter}");
        }
    }

    #[test]
    fn an_account_and_the_topics_under_its_prefix_share_a_home() {
        let placement = placement(Some("u/{account}/#"));
        for account in ["alice", "bob", "zoë", ""] {
            assert_eq!(placement.owner(&format!("u/{account}/in/box")), placement.home(account));
        }
    }

    #[test]
    fn a_bad_pattern_is_refused_with_its_text() {
        for pattern in ["u/{account}", "u/#", "u/+/{account}/#", "{account}/{account}/#", "u/{acc}/#"] {
            assert!(Placement::new(4, [0; 16], Some(pattern)).unwrap_err().contains(pattern));
        }
    }
}
