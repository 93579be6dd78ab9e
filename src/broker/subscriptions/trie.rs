//! The filters that need matching, level by level.
//!
//! A node is a path of levels that some filter has; `+` is a child like any other, but found by a link instead of
//! the table, and a final `#` is no node at all: its entries hang on the node before it, because they match that
//! path too. Literal children of all nodes stand in one table keyed by (parent, level), so that a
//! node with one child and a node with a million are the same 40 bytes. Entries are the slab's; the trie only links
//! them into a chain per node and place.
//!
//! Invariant: every node but the root has an entry or a child; removing the last one prunes the path.

use hashbrown::HashTable;
use slab::Slab;

use super::entry::{Entry, Link};
use super::{FilterId, Handle, hash_of, matched_part};

const ROOT: u32 = 0;

/// See the module.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Slab<Node>,
    children: HashTable<Handle>,
    key: [u8; 16],
    level_bytes: usize,
}

#[derive(Debug)]
struct Node {
    /// The last level of the path; `+` for the single-level wildcard.
    level: Box<str>,
    parent: u32,
    /// The child for `+`; the root is nobody's child, so it stands for none.
    plus: u32,
    literals: u32,
    /// Filters that end here.
    exact: Option<FilterId>,
    /// Filters that end in `#` below here.
    below: Option<FilterId>,
}

impl Node {
    fn new(level: &str, parent: u32) -> Node {
        Node { level: level.into(), parent, plus: ROOT, literals: 0, exact: None, below: None }
    }

    fn is_bare(&self) -> bool {
        self.plus == ROOT && self.literals == 0 && self.exact.is_none() && self.below.is_none()
    }

    fn chain(&mut self, ends_in_hash: bool) -> &mut Option<FilterId> {
        if ends_in_hash { &mut self.below } else { &mut self.exact }
    }
}

impl Trie {
    pub(super) fn new(key: [u8; 16]) -> Trie {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node::new("", ROOT));
        assert!(root == ROOT as usize, "a slab starts at 0");
        Trie { nodes, children: HashTable::new(), key, level_bytes: 0 }
    }

    /// Nodes, the root not counted.
    pub(super) fn len(&self) -> usize {
        self.nodes.len() - 1
    }

    /// Bytes held by nodes, their texts and the table.
    pub(super) fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.children.allocation_size() + self.level_bytes
    }

    /// Puts an entry where its filter ends, in front of those already there.
    pub(super) fn hang(&mut self, id: FilterId, entries: &mut Slab<Entry>) {
        let entry = &entries[id.0 as usize];
        let (path, ends_in_hash) = path_of(entry.text());
        let mut node = ROOT;
        if let Some(path) = path {
            for level in path.split('/') {
                node = self.child_or_new(node, level);
            }
        }
        let chain = self.nodes[node as usize].chain(ends_in_hash);
        let next = chain.replace(id);
        if let Some(next) = next {
            let link = entries[next.0 as usize].link_mut();
            link.expect("an entry in a chain has its links").previous = Some(id);
        }
        entries[id.0 as usize].set_link(Link::new(node, next));
    }

    /// Takes an entry out of its chain and prunes what nobody needs any more.
    pub(super) fn unhang(&mut self, id: FilterId, entries: &mut Slab<Entry>) {
        let entry = &entries[id.0 as usize];
        let (_, ends_in_hash) = path_of(entry.text());
        let link = entry.link().expect("an entry in a chain has its links");
        let (node, previous, next) = (link.node, link.previous, link.next);
        match previous {
            None => *self.nodes[node as usize].chain(ends_in_hash) = next,
            Some(previous) => {
                let link = entries[previous.0 as usize].link_mut();
                link.expect("an entry in a chain has its links").next = next;
            }
        }
        if let Some(next) = next {
            let link = entries[next.0 as usize].link_mut();
            link.expect("an entry in a chain has its links").previous = previous;
        }
        self.prune(node);
    }

    /// Visits the head of every chain whose filters match. The recursion is as deep as the topic has levels, which
    /// `limits::TOPIC_LEVELS_MAX` bounds.
    pub(super) fn walk(&self, topic: &str, visit: &mut impl FnMut(Option<FilterId>)) {
        let root = &self.nodes[ROOT as usize];
        if topic.starts_with('$') {
            // [MQTT-4.7.2-1]: neither `#` nor `+` at the front.
            let (level, rest) = split_level(topic);
            if let Some(child) = self.literal(ROOT, root, level) {
                self.walk_from(child, rest, visit);
            }
        } else {
            self.walk_from(ROOT, Some(topic), visit);
        }
    }

    fn walk_from(&self, index: u32, rest: Option<&str>, visit: &mut impl FnMut(Option<FilterId>)) {
        let node = &self.nodes[index as usize];
        visit(node.below);
        let Some(rest) = rest else { return visit(node.exact) };
        if node.plus == ROOT && node.literals == 0 {
            return;
        }
        let (level, rest) = split_level(rest);
        if let Some(child) = self.literal(index, node, level) {
            self.walk_from(child, rest, visit);
        }
        if node.plus != ROOT {
            self.walk_from(node.plus, rest, visit);
        }
    }

    fn literal(&self, parent: u32, node: &Node, level: &str) -> Option<u32> {
        if node.literals == 0 {
            return None;
        }
        let handle = Handle { hash: hash_of(&self.key, parent, level), slot: 0 };
        self.children
            .find(handle.spread(), |other| {
                let child = &self.nodes[other.slot as usize];
                other.hash == handle.hash && child.parent == parent && *child.level == *level
            })
            .map(|found| found.slot)
    }

    fn child_or_new(&mut self, parent: u32, level: &str) -> u32 {
        let node = &self.nodes[parent as usize];
        let found = if level == "+" {
            Some(node.plus).filter(|&plus| plus != ROOT)
        } else {
            self.literal(parent, node, level)
        };
        found.unwrap_or_else(|| self.add_child(parent, level))
    }

    fn add_child(&mut self, parent: u32, level: &str) -> u32 {
        let child = self.nodes.insert(Node::new(level, parent));
        let child = u32::try_from(child).expect("limits keep the levels of all filters below 2^32");
        self.level_bytes += level.len();
        if level == "+" {
            self.nodes[parent as usize].plus = child;
        } else {
            self.nodes[parent as usize].literals += 1;
            let handle = Handle { hash: hash_of(&self.key, parent, level), slot: child };
            self.children.insert_unique(handle.spread(), handle, |other| other.spread());
        }
        child
    }

    fn prune(&mut self, mut index: u32) {
        while index != ROOT && self.nodes[index as usize].is_bare() {
            let node = self.nodes.remove(index as usize);
            self.level_bytes -= node.level.len();
            if *node.level == *"+" {
                self.nodes[node.parent as usize].plus = ROOT;
            } else {
                self.nodes[node.parent as usize].literals -= 1;
                let handle = Handle { hash: hash_of(&self.key, node.parent, &node.level), slot: index };
                self.children
                    .find_entry(handle.spread(), |other| other.slot == index)
                    .unwrap_or_else(|_| panic!("every literal child is in the table"))
                    .remove();
            }
            index = node.parent;
        }
    }
}

/// The levels before a final `#` (`None`: there are none), or all of them, and whether there was a `#`.
fn path_of(filter: &str) -> (Option<&str>, bool) {
    let matched = matched_part(filter);
    match matched.strip_suffix('#') {
        Some("") => (None, true),
        Some(path) => (Some(path.strip_suffix('/').unwrap_or(path)), true),
        None => (Some(matched), false),
    }
}

fn split_level(topic: &str) -> (&str, Option<&str>) {
    match topic.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (topic, None),
    }
}
