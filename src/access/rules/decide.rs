//! The walk from who asks for what to the first rule that decides.
//!
//! All parties that who asks belongs to are searched, each for something earlier than the best so far; a subtree whose
//! first rule is later is not entered. On a topic name a node has up to four ways on: the literal child, `+`, `%u`
//! and `%c`. On a filter the walk is either **covering** (so far every topic of what is asked matches the path) or only
//! overlapping, from where the asked `+` met something narrower; there only rules that deny count. Where the asked `#`
//! is reached, everything below overlaps, and the node's `first_deny` answers.
//!
//! Bounds, whatever is asked: levels of a topic beyond the deepest filter are not looked at; a level is found and hashed
//! once, and only if it is as short as some level of a rule; the recursion is as deep as a filter; and every node or group
//! looked at is a step, of which there are `limits::RULE_STEPS_MAX`. With that many `+` side by side or that many
//! denied levels under an asked `+` the answer is [`Decision::TooManyToCompare`]. No allocation.

use crate::limits::{RULE_LEVELS_MAX, RULE_STEPS_MAX};

use super::parties::{EVERYONE, USES_ACCOUNT, USES_CLIENT};
use super::statement::PartyKind;
use super::tree::{ACCOUNT, CLIENT, Mark, PLUS, Texts, Tree, hash_of};
use super::{Action, Decision, Rules, Who};

impl Rules {
    /// Whether somebody may do something with a valid topic name or, to subscribe, a valid filter without its
    /// `$share/GROUP/`.
    pub fn decide(&self, action: Action, who: &Who<'_>, topic: &str) -> Decision {
        let mut search = Search::new(self, action, who, topic);
        match search.everything(self, who) {
            Err(TooMany) => Decision::TooManyToCompare,
            Ok(()) if search.best == Mark::NONE => Decision::Default { allowed: self.default_allowed },
            Ok(()) => Decision::Rule { allowed: search.best.allows(), rule: search.best.number() },
        }
    }

    /// The steps that a decision takes.
    #[cfg(test)]
    pub(super) fn steps(&self, action: Action, who: &Who<'_>, topic: &str) -> u32 {
        let mut search = Search::new(self, action, who, topic);
        let _ = search.everything(self, who);
        RULE_STEPS_MAX - search.steps_left
    }
}

/// There are no steps left.
struct TooMany;

struct Search<'a> {
    texts: &'a Texts,
    tree: &'a Tree,
    subscribes: bool,
    action: u8,
    account: &'a str,
    client_id: &'a str,
    /// Variables that no level can equal, or that must not be looked at; once they are known.
    unusable: Option<u8>,
    /// What is asked begins with `$`.
    is_server_own: bool,
    levels: Levels<'a>,
    best: Mark,
    steps_left: u32,
}

impl<'a> Search<'a> {
    fn new(rules: &'a Rules, action: Action, who: &Who<'a>, topic: &'a str) -> Search<'a> {
        Search {
            texts: &rules.texts,
            tree: &rules.tree,
            subscribes: action == Action::Subscribe,
            action: action.bit(),
            account: who.account,
            client_id: who.client_id,
            unusable: None,
            is_server_own: topic.starts_with('$'),
            levels: Levels::new(topic.as_bytes()),
            best: Mark::NONE,
            steps_left: RULE_STEPS_MAX,
        }
    }

    fn everything(&mut self, rules: &Rules, who: &Who<'_>) -> Result<(), TooMany> {
        let parties = &rules.parties;
        self.party(rules, EVERYONE)?;
        if let Some(account) = parties.find(&rules.texts, PartyKind::Account, who.account) {
            self.party(rules, account)?;
            for &group in parties.groups_of(parties.get(account)) {
                self.party(rules, group)?;
            }
        }
        if let Some(client) = parties.find(&rules.texts, PartyKind::Client, who.client_id) {
            self.party(rules, client)?;
        }
        for group in who.groups {
            self.step()?;
            if let Some(group) = parties.find(&rules.texts, PartyKind::Group, group) {
                self.party(rules, group)?;
            }
        }
        Ok(())
    }

    fn party(&mut self, rules: &Rules, place: u32) -> Result<(), TooMany> {
        self.step()?;
        for (variables, root) in rules.parties.get(place).trees() {
            if self.tree.node(root).first >= self.best || variables & self.unusable(variables) != 0 {
                continue;
            }
            if self.subscribes { self.filter(root, 0, true)? } else { self.name(root, 0)? }
        }
        Ok(())
    }

    /// Which variables no level of a topic can equal. They are looked at only when a filter uses some.
    fn unusable(&mut self, used: u8) -> u8 {
        if used == 0 {
            return 0;
        }
        *self.unusable.get_or_insert_with(|| {
            let fits = |value: &str| !value.is_empty() && !value.contains(['/', '+', '#']);
            let account = if fits(self.account) { 0 } else { USES_ACCOUNT };
            account | if fits(self.client_id) { 0 } else { USES_CLIENT }
        })
    }

    /// Visits a node whose path matches the first `depth` levels of a topic name.
    fn name(&mut self, index: u32, depth: usize) -> Result<(), TooMany> {
        self.step()?;
        let node = self.tree.node(index);
        let in_reach = self.wildcards_reach(depth);
        if in_reach {
            self.consider(self.tree.below(node), true);
        }
        let Some(level) = self.levels.get(depth) else {
            self.consider(self.tree.exact(node), true);
            return Ok(());
        };
        let literal = self.literal(index, depth, level);
        if node.special == 0 || !in_reach {
            return literal.map_or(Ok(()), |child| self.name_below(child, depth));
        }
        for child in self.in_order(literal, node.special_child(PLUS)) {
            self.name_below(child, depth)?;
        }
        for (which, value) in [(ACCOUNT, self.account), (CLIENT, self.client_id)] {
            if let Some(child) = node.special_child(which)
                && value.as_bytes() == level
            {
                self.name_below(child, depth)?;
            }
        }
        Ok(())
    }

    fn name_below(&mut self, child: u32, depth: usize) -> Result<(), TooMany> {
        if self.tree.node(child).first < self.best { self.name(child, depth + 1) } else { Ok(()) }
    }

    /// Visits a node whose path covers the first `depth` levels of the filter that is asked for, or only overlaps them.
    fn filter(&mut self, index: u32, depth: usize, covers: bool) -> Result<(), TooMany> {
        self.step()?;
        let node = self.tree.node(index);
        if self.wildcards_reach(depth) {
            self.consider(self.tree.below(node), covers);
        }
        match self.levels.get(depth) {
            None => {
                self.consider(self.tree.exact(node), covers);
                Ok(())
            }
            Some(b"#") => {
                self.everything_below(index, depth);
                Ok(())
            }
            Some(b"+") => self.any_child(index, depth, covers),
            Some(level) => self.equal_children(index, depth, level, covers),
        }
    }

    fn filter_below(&mut self, child: u32, depth: usize, covers: bool) -> Result<(), TooMany> {
        let node = self.tree.node(child);
        let first = if covers { node.first } else { node.first_deny };
        if first < self.best { self.filter(child, depth + 1, covers) } else { Ok(()) }
    }

    /// The asked filter's `#` stands at this node: what ends here or below overlaps.
    fn everything_below(&mut self, index: u32, depth: usize) {
        let node = self.tree.node(index);
        if depth > 0 {
            self.best = self.best.min(node.first_deny);
            return;
        }
        // In front it does not reach what begins with `$`, whose literals come last.
        if let Some(child) = node.special_child(PLUS) {
            let child = self.tree.node(child);
            self.best = self.best.min(child.first_deny);
            // "a/+/#" leaves "a", which "a/#" takes; but no topic is above the first level, so "+/#" covers "#".
            self.consider(self.tree.below(child), true);
        }
        for (which, value) in [(ACCOUNT, self.account), (CLIENT, self.client_id)] {
            if let Some(child) = node.special_child(which)
                && !value.starts_with('$')
            {
                self.best = self.best.min(self.tree.node(child).first_deny);
            }
        }
        if let Some(child) = node.literal_children().next().map(|child| self.tree.node(child))
            && !self.is_server_own_level(child.text, 0)
        {
            self.best = self.best.min(child.first_deny);
        }
    }

    /// The asked filter has a `+` here: only a `+` covers it, and every child overlaps.
    fn any_child(&mut self, index: u32, depth: usize, covers: bool) -> Result<(), TooMany> {
        let node = self.tree.node(index);
        if let Some(child) = node.special_child(PLUS) {
            self.filter_below(child, depth, covers)?;
        }
        for (which, value) in [(ACCOUNT, self.account), (CLIENT, self.client_id)] {
            if let Some(child) = node.special_child(which)
                && (depth > 0 || !value.starts_with('$'))
            {
                self.filter_below(child, depth, false)?;
            }
        }
        for child in node.literal_children() {
            let literal = self.tree.node(child);
            if literal.first_deny >= self.best || self.is_server_own_level(literal.text, depth) {
                break;
            }
            self.filter(child, depth + 1, false)?;
        }
        Ok(())
    }

    /// The asked filter has a literal level here.
    fn equal_children(
        &mut self,
        index: u32,
        depth: usize,
        level: &[u8],
        covers: bool,
    ) -> Result<(), TooMany> {
        let node = self.tree.node(index);
        let literal = self.literal(index, depth, level);
        if node.special == 0 || !self.wildcards_reach(depth) {
            return literal.map_or(Ok(()), |child| self.filter_below(child, depth, covers));
        }
        for child in self.in_order(literal, node.special_child(PLUS)) {
            self.filter_below(child, depth, covers)?;
        }
        for (which, value) in [(ACCOUNT, self.account), (CLIENT, self.client_id)] {
            if let Some(child) = node.special_child(which)
                && value.as_bytes() == level
            {
                self.filter_below(child, depth, covers)?;
            }
        }
        Ok(())
    }

    /// The child of a node for the level at that depth.
    #[inline]
    fn literal(&mut self, index: u32, depth: usize, level: &[u8]) -> Option<u32> {
        let (levels, key) = (&mut self.levels, &self.texts.key);
        self.tree.literal(self.texts, index, level, || levels.hash(depth, key))
    }

    /// The child with the earlier rule first, so that more of the other's subtree is too late to be entered.
    #[inline]
    fn in_order(&self, one: Option<u32>, other: Option<u32>) -> impl Iterator<Item = u32> + use<> {
        let swapped = match (one, other) {
            (Some(one), Some(other)) => self.tree.node(other).first < self.tree.node(one).first,
            _ => false,
        };
        let (first, second) = if swapped { (other, one) } else { (one, other) };
        first.into_iter().chain(second)
    }

    /// [MQTT-4.7.2-1]: in front, no wildcard (nor what a peer calls itself) reaches what begins with `$`.
    fn wildcards_reach(&self, depth: usize) -> bool {
        depth > 0 || !self.is_server_own
    }

    fn is_server_own_level(&self, text: super::tree::Span, depth: usize) -> bool {
        depth == 0 && self.texts.of(text).starts_with(b"$")
    }

    /// Takes the first of these marks that decides, if it is earlier than the best. One that allows must cover.
    #[inline]
    fn consider(&mut self, marks: &[Mark], covers: bool) {
        for &mark in marks.iter().take_while(|&&mark| mark < self.best) {
            if mark.actions() & self.action != 0 && (covers || !mark.allows()) {
                self.best = mark;
                return;
            }
        }
    }

    #[inline]
    fn step(&mut self) -> Result<(), TooMany> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or(TooMany)?;
        Ok(())
    }
}

/// A node is as deep as its filter has levels, and asks whether the topic goes on.
const DEPTHS: usize = RULE_LEVELS_MAX + 1;

/// The levels of a topic, found and hashed when they are first looked at.
struct Levels<'a> {
    text: &'a [u8],
    /// Where each of the `found` levels ends.
    ends: [usize; DEPTHS],
    found: usize,
    /// Bit n: `hashes[n]` is known.
    hashed: u64,
    hashes: [u64; DEPTHS],
}

impl<'a> Levels<'a> {
    fn new(text: &'a [u8]) -> Levels<'a> {
        Levels { text, ends: [0; DEPTHS], found: 0, hashed: 0, hashes: [0; DEPTHS] }
    }

    /// The level at a depth, from 0; `None` if the topic has ended before.
    #[inline]
    fn get(&mut self, depth: usize) -> Option<&'a [u8]> {
        while self.found <= depth {
            let start = self.start(self.found)?;
            let length = self.text[start..].iter().position(|&byte| byte == b'/');
            self.ends[self.found] = length.map_or(self.text.len(), |length| start + length);
            self.found += 1;
        }
        Some(&self.text[self.start(depth)?..self.ends[depth]])
    }

    /// Where a level begins whose predecessor is found.
    #[inline]
    fn start(&self, depth: usize) -> Option<usize> {
        match depth.checked_sub(1) {
            None => Some(0),
            Some(previous) => {
                Some(self.ends[previous]).filter(|&end| end < self.text.len()).map(|end| end + 1)
            }
        }
    }

    /// The hash of a level that was found.
    fn hash(&mut self, depth: usize, key: &[u8; 16]) -> u64 {
        if self.hashed & (1 << depth) == 0 {
            let level = self.get(depth).expect("it was looked at");
            self.hashes[depth] = hash_of(key, level);
            self.hashed |= 1 << depth;
        }
        self.hashes[depth]
    }
}
