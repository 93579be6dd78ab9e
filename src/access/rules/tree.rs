//! The filters of all rules, level by level, laid out for looking up.
//!
//! A node is a path of levels that some filter of one party has. Its children lie side by side: `+`, `%u`, `%c` if it
//! has them, then the literal ones in the order of their first rule that denies subscribing, so that who looks for such
//! a rule stops at the first child that is too late; below a root those that begin with `$` come last. Few literal
//! children are compared one by one; more are found through one table of all nodes, keyed by parent and level. Rules
//! whose filter ends here, or here in `#`, stand in `marks`; what an earlier rule with the same filter decides
//! already is left out, so that there are at most `MARKS_PER_PLACE` of each.
//!
//! A party has a tree for each set of variables that its filters use: who has no account that a level can equal is
//! not led into filters with `%u` at all, and what a node says of its subtree is true for everybody who gets there.
//!
//! Made by `build`, walked by `decide`. It never changes.

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::limits::RULES_MAX;

/// A rule in one word: its number, whether it allows, its actions. The order is that of the rules.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Mark(u32);

const MARK_ALLOWS: u32 = 1 << 4;
const MARK_SHIFT: u32 = 5;
const _: () = assert!(RULES_MAX < (u32::MAX >> MARK_SHIFT) as usize);

impl Mark {
    /// Later than every rule.
    pub(super) const NONE: Mark = Mark(u32::MAX);

    pub(super) fn new(number: u32, allowed: bool, actions: u8) -> Mark {
        Mark(number << MARK_SHIFT | if allowed { MARK_ALLOWS } else { 0 } | u32::from(actions))
    }

    pub(super) fn number(self) -> u32 {
        self.0 >> MARK_SHIFT
    }

    pub(super) fn allows(self) -> bool {
        self.0 & MARK_ALLOWS != 0
    }

    /// Bits of `Action`.
    pub(super) fn actions(self) -> u8 {
        u8::try_from(self.0 & (MARK_ALLOWS - 1)).expect("four bits")
    }
}

/// One path of levels.
#[derive(Debug)]
pub(super) struct Node {
    /// The first rule here or below.
    pub first: Mark,
    /// The first one that denies subscribing.
    pub first_deny: Mark,
    /// Where its marks begin: first those of filters that end here, then of those that end in `#` behind it.
    pub marks: u32,
    /// Where its children begin.
    pub children: u32,
    pub literals: u32,
    pub text: Span,
    pub exact: u8,
    pub below: u8,
    /// [`PLUS`], [`ACCOUNT`] and [`CLIENT`]: which children stand before the literal ones.
    pub special: u8,
}

const _: () = assert!(size_of::<Node>() <= 32);

/// There is a child for `+`.
pub(super) const PLUS: u8 = 1;
/// There is a child for `%u`.
pub(super) const ACCOUNT: u8 = 2;
/// There is a child for `%c`.
pub(super) const CLIENT: u8 = 4;

/// The most marks at one place: the first of each action, and of those that deny subscribing.
pub(super) const MARKS_PER_PLACE: usize = 5;

/// Up to so many literal children are compared one by one: they lie side by side and take no place in the table.
pub(super) const COMPARED_MAX: u32 = 8;

impl Node {
    /// The child of a kind that has one at most.
    #[inline]
    pub(super) fn special_child(&self, which: u8) -> Option<u32> {
        let before = (self.special & (which - 1)).count_ones();
        (self.special & which != 0).then_some(self.children + before)
    }

    /// Whether `first` is its only mark, since nothing is below: most nodes where filters end are so, and are spared
    /// a memory access.
    #[inline]
    pub(super) fn has_its_mark(&self) -> bool {
        self.exact + self.below == 1 && self.literals == 0 && self.special == 0
    }

    #[inline]
    pub(super) fn literal_children(&self) -> std::ops::Range<u32> {
        let start = self.children + self.special.count_ones();
        start..start + self.literals
    }
}

/// A place in [`Texts`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Span {
    pub start: u32,
    pub length: u16,
}

/// The names and levels of all rules, each once, and the hash by which they are found.
#[derive(Debug)]
pub(super) struct Texts {
    pub all: Box<str>,
    pub key: [u8; 16],
}

impl Texts {
    #[inline]
    pub(super) fn is(&self, span: Span, text: &[u8]) -> bool {
        let start = span.start as usize;
        usize::from(span.length) == text.len() && self.all.as_bytes()[start..start + text.len()] == *text
    }

    pub(super) fn of(&self, span: Span) -> &[u8] {
        &self.all.as_bytes()[span.start as usize..][..usize::from(span.length)]
    }

    pub(super) fn bytes(&self) -> usize {
        self.all.len()
    }
}

/// The hash of a name or level.
pub(super) fn hash_of(key: &[u8; 16], text: &[u8]) -> u64 {
    SipHasher13::new_with_key(key).hash(text)
}

/// The hash of a text in a context. A text is hashed once for all parents it may be below. 2^64 divided by the golden
/// ratio spreads consecutive numbers evenly; that the hash is keyed keeps the sum unknown.
pub(super) fn hash_within(context: u32, hash: u64) -> u64 {
    hash.wrapping_add(u64::from(context).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tree {
    pub nodes: Box<[Node]>,
    pub marks: Box<[Mark]>,
    /// Literal children of nodes with more than [`COMPARED_MAX`].
    pub table: HashTable<u32>,
    /// Bytes of the longest literal level: nothing longer is looked up.
    pub level_bytes: usize,
}

impl Tree {
    #[inline]
    pub(super) fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    /// The literal child for that level; `hash` gives the level's hash.
    #[inline]
    pub(super) fn literal(
        &self,
        texts: &Texts,
        index: u32,
        level: &[u8],
        hash: impl FnOnce() -> u64,
    ) -> Option<u32> {
        let children = self.node(index).literal_children();
        if level.len() > self.level_bytes {
            return None;
        }
        if children.len() <= COMPARED_MAX as usize {
            return children.into_iter().find(|&child| texts.is(self.node(child).text, level));
        }
        let is_it = |child: &u32| children.contains(child) && texts.is(self.node(*child).text, level);
        self.table.find(hash_within(index, hash()), is_it).copied()
    }

    /// Rules whose filter ends at a node.
    #[inline]
    pub(super) fn exact<'a>(&'a self, node: &'a Node) -> &'a [Mark] {
        match (node.exact, node.has_its_mark()) {
            (0, _) => &[],
            (_, true) => std::slice::from_ref(&node.first),
            (count, false) => &self.marks[node.marks as usize..][..usize::from(count)],
        }
    }

    /// Rules whose filter ends in `#` behind a node.
    #[inline]
    pub(super) fn below<'a>(&'a self, node: &'a Node) -> &'a [Mark] {
        match (node.below, node.has_its_mark()) {
            (0, _) => &[],
            (_, true) => std::slice::from_ref(&node.first),
            (count, false) => {
                &self.marks[node.marks as usize + usize::from(node.exact)..][..usize::from(count)]
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.nodes) + size_of_val(&*self.marks) + self.table.allocation_size()
    }
}
