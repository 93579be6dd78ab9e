//! From statements to what is looked up: collects parties and filters, then lays them out.
//!
//! Called by `Rules::parse` only. What it needs beyond the rules themselves is gone when they are done. It counts what
//! a file may have many of, and knows at the end whether every group that a rule names exists.

use hashbrown::HashTable;

use crate::limits::{GROUP_MEMBERS_MAX, GROUPS_PER_ACCOUNT_MAX, RULES_MAX};

use super::filter::{ACCOUNT_LEVEL, CLIENT_LEVEL, shown};
use super::parties::{Parties, Party, USES_ACCOUNT, USES_CLIENT, VARIABLE_SETS, hash_of_party};
use super::statement::{PartyKind, Rule, Statement};
use super::tree::{ACCOUNT, CLIENT, COMPARED_MAX, MARKS_PER_PLACE, PLUS};
use super::tree::{Mark, Node, Span, Texts, Tree, hash_of, hash_within};
use super::{Action, Fault, RuleError, Rules};

/// No node, no line.
const NONE: u32 = u32::MAX;

pub(super) struct Builder {
    key: [u8; 16],
    texts: String,
    spans: HashTable<Span>,
    parties: Vec<DraftParty>,
    party_table: HashTable<u32>,
    /// An account, its group, and the line that says so.
    memberships: Vec<(u32, u32, u32)>,
    nodes: Vec<DraftNode>,
    node_table: HashTable<u32>,
    places: Vec<Place>,
    lines: Vec<u32>,
    default_allowed: Option<bool>,
}

struct DraftParty {
    kind: PartyKind,
    name: Span,
    roots: [u32; VARIABLE_SETS as usize],
    /// Of a group: the first line that names it, until it is declared.
    undeclared: u32,
}

struct DraftNode {
    /// `NONE` for a root.
    parent: u32,
    kind: NodeKind,
    text: Span,
    first: Mark,
    first_deny: Mark,
}

/// In the order in which children lie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum NodeKind {
    Root,
    Plus,
    Account,
    Client,
    Literal,
}

/// Where a rule's filter ends.
struct Place {
    node: u32,
    below: bool,
    mark: Mark,
}

impl Builder {
    pub(super) fn new(key: [u8; 16]) -> Builder {
        let mut builder = Builder {
            key,
            texts: String::new(),
            spans: HashTable::new(),
            parties: Vec::new(),
            party_table: HashTable::new(),
            memberships: Vec::new(),
            nodes: Vec::new(),
            node_table: HashTable::new(),
            places: Vec::new(),
            lines: Vec::new(),
            default_allowed: None,
        };
        builder.party(PartyKind::Everyone, "");
        builder
    }

    pub(super) fn add(&mut self, line: usize, statement: Statement<'_>) -> Result<(), Fault> {
        let line = number(line);
        match statement {
            Statement::Rule(rule) => self.add_rule(line, &rule),
            Statement::Group { name, members } => {
                let group = self.party(PartyKind::Group, &name);
                self.parties[group as usize].undeclared = NONE;
                if self.memberships.len() + members.len() > GROUP_MEMBERS_MAX {
                    return Err(Fault::new(
                        format!("more than {GROUP_MEMBERS_MAX} members of groups"),
                        "put large groups into tokens, or write a rule with %u for everyone",
                    ));
                }
                for member in members {
                    let account = self.party(PartyKind::Account, &member);
                    self.memberships.push((account, group, line));
                }
                Ok(())
            }
            Statement::Default { .. } if self.default_allowed.is_some() => {
                Err(Fault::new("a second default", "remove one of the two"))
            }
            Statement::Default { allowed } => {
                self.default_allowed = Some(allowed);
                Ok(())
            }
        }
    }

    fn add_rule(&mut self, line: u32, rule: &Rule<'_>) -> Result<(), Fault> {
        if self.lines.len() == RULES_MAX {
            let cause = format!("more than {RULES_MAX} rules");
            return Err(Fault::new(cause, "use groups, %u and %c instead of a rule for each"));
        }
        let known = self.parties.len();
        let party = self.party(rule.kind, &rule.party);
        if rule.kind == PartyKind::Group && party as usize == known {
            self.parties[known].undeclared = line;
        }
        let mark = Mark::new(number(self.lines.len()), rule.allowed, rule.actions);
        self.lines.push(line);
        let mut set = 0;
        for level in rule.filter.split('/') {
            set |= match level {
                ACCOUNT_LEVEL => USES_ACCOUNT,
                CLIENT_LEVEL => USES_CLIENT,
                _ => 0,
            };
        }
        let mut node = self.root(party, set);
        let mut below = false;
        for level in rule.filter.split('/') {
            let kind = match level {
                "#" => {
                    below = true;
                    break;
                }
                "+" => NodeKind::Plus,
                ACCOUNT_LEVEL => NodeKind::Account,
                CLIENT_LEVEL => NodeKind::Client,
                _ => NodeKind::Literal,
            };
            node = self.child(node, kind, level);
        }
        self.places.push(Place { node, below, mark });
        let node = &mut self.nodes[node as usize];
        node.first = node.first.min(mark);
        if denies_subscribing(mark) {
            node.first_deny = node.first_deny.min(mark);
        }
        Ok(())
    }

    fn party(&mut self, kind: PartyKind, name: &str) -> u32 {
        let span = self.intern(name);
        let hash = hash_of_party(&self.key, kind, name.as_bytes());
        let (parties, texts, key) = (&self.parties, &self.texts, &self.key);
        let is_it = |&place: &u32| {
            let party = &parties[place as usize];
            party.kind == kind && party.name == span
        };
        let rehash = |&place: &u32| {
            let party = &parties[place as usize];
            hash_of_party(key, party.kind, text_of(texts, party.name).as_bytes())
        };
        match self.party_table.entry(hash, is_it, rehash) {
            hashbrown::hash_table::Entry::Occupied(found) => *found.get(),
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                let place = number(parties.len());
                vacant.insert(place);
                let roots = [NONE; VARIABLE_SETS as usize];
                self.parties.push(DraftParty { kind, name: span, roots, undeclared: NONE });
                place
            }
        }
    }

    fn root(&mut self, party: u32, set: u8) -> u32 {
        let root = &mut self.parties[party as usize].roots[usize::from(set)];
        if *root == NONE {
            *root = number(self.nodes.len());
            self.nodes.push(DraftNode::new(NONE, NodeKind::Root, Span::default()));
        }
        *root
    }

    fn child(&mut self, parent: u32, kind: NodeKind, level: &str) -> u32 {
        let text = self.intern(level);
        let hash = |parent: u32, text: Span| {
            let words = (u64::from(parent) << 32 | u64::from(text.start)).to_le_bytes();
            hash_of(&self.key, &words)
        };
        let nodes = &self.nodes;
        let is_it = |&node: &u32| {
            let node = &nodes[node as usize];
            node.parent == parent && node.text == text
        };
        let rehash = |&node: &u32| hash(nodes[node as usize].parent, nodes[node as usize].text);
        match self.node_table.entry(hash(parent, text), is_it, rehash) {
            hashbrown::hash_table::Entry::Occupied(found) => *found.get(),
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                let node = number(nodes.len());
                vacant.insert(node);
                self.nodes.push(DraftNode::new(parent, kind, text));
                node
            }
        }
    }

    /// The place of a text, which is stored once.
    fn intern(&mut self, text: &str) -> Span {
        let (texts, key) = (&self.texts, &self.key);
        let is_it = |&span: &Span| text_of(texts, span) == text;
        let rehash = |&span: &Span| hash_of(key, text_of(texts, span).as_bytes());
        match self.spans.entry(hash_of(key, text.as_bytes()), is_it, rehash) {
            hashbrown::hash_table::Entry::Occupied(found) => *found.get(),
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                let length = u16::try_from(text.len()).expect("statements bound names and filters");
                let span = Span { start: number(texts.len()), length };
                vacant.insert(span);
                self.texts.push_str(text);
                span
            }
        }
    }

    pub(super) fn finish(mut self) -> Result<Rules, RuleError> {
        if let Some(group) =
            self.parties.iter().filter(|party| party.undeclared != NONE).min_by_key(|party| party.undeclared)
        {
            let name = shown(text_of(&self.texts, group.name));
            let cure =
                "declare it with a line \"group NAME ACCOUNT...\"; without accounts if only tokens name it";
            return Err(Fault::new(format!("no group is named {name:?}"), cure).at(group.undeclared as usize));
        }
        let place_of = self.lay_out();
        let parties = self.finish_parties(&place_of)?;
        let (nodes, marks) = self.finish_nodes(&place_of);
        let texts = Texts { all: self.texts.into_boxed_str(), key: self.key };
        let tree = finish_tree(&texts, nodes, marks);
        let default_allowed = self.default_allowed.unwrap_or(false);
        Ok(Rules { texts, parties, tree, lines: self.lines.into_boxed_slice(), default_allowed })
    }

    /// Says each subtree's first rules, and gives every node its place: roots by party, then children by parent.
    fn lay_out(&mut self) -> Vec<u32> {
        for index in (0..self.nodes.len()).rev() {
            let DraftNode { parent, first, first_deny, .. } = self.nodes[index];
            // A parent is made before its children.
            if let Some(parent) = self.nodes.get_mut(parent as usize) {
                parent.first = parent.first.min(first);
                parent.first_deny = parent.first_deny.min(first_deny);
            }
        }
        let mut place_of = vec![NONE; self.nodes.len()];
        let roots = self.parties.iter().flat_map(|party| party.roots).filter(|&root| root != NONE);
        let mut count = 0;
        for root in roots {
            place_of[root as usize] = count;
            count += 1;
        }
        for (place, &node) in (count..).zip(&self.children()) {
            place_of[node as usize] = place;
        }
        place_of
    }

    /// All nodes but roots in the order in which they lie.
    fn children(&self) -> Vec<u32> {
        let all = 0..number(self.nodes.len());
        let mut children: Vec<u32> = all.filter(|&node| self.nodes[node as usize].parent != NONE).collect();
        children.sort_unstable_by_key(|&index| {
            let node = &self.nodes[index as usize];
            let is_first_level = self.nodes[node.parent as usize].kind == NodeKind::Root;
            let is_server_own = is_first_level && text_of(&self.texts, node.text).starts_with('$');
            (node.parent, node.kind, is_server_own, node.first_deny, index)
        });
        children
    }

    fn finish_parties(&mut self, place_of: &[u32]) -> Result<Parties, RuleError> {
        self.memberships.sort_unstable();
        self.memberships.dedup_by_key(|membership| (membership.0, membership.1));
        let mut all: Vec<Party> = Vec::with_capacity(self.parties.len());
        let mut name_bytes = [0; 4];
        for party in &self.parties {
            let present = |set: &u8| party.roots[usize::from(*set)] != NONE;
            let sets: u8 = (0..VARIABLE_SETS).filter(present).map(|set| 1 << set).sum();
            let first = party.roots.iter().find(|&&root| root != NONE);
            let roots = first.map_or(0, |&root| place_of[root as usize]);
            let longest = &mut name_bytes[party.kind as usize];
            *longest = usize::from(party.name.length).max(*longest);
            all.push(Party { name: party.name, kind: party.kind, sets, roots, groups: 0, group_count: 0 });
        }
        for groups in self.memberships.chunk_by(|one, other| one.0 == other.0) {
            let account = &mut all[groups[0].0 as usize];
            if groups.len() > GROUPS_PER_ACCOUNT_MAX {
                let name = shown(text_of(&self.texts, account.name));
                let cause = format!("the account {name:?} is in {} groups", groups.len());
                let cure =
                    format!("the most is {GROUPS_PER_ACCOUNT_MAX}: write rules for the account itself");
                let line = groups.iter().map(|membership| membership.2).max().unwrap_or(1);
                return Err(Fault::new(cause, cure).at(line as usize));
            }
            account.group_count = u8::try_from(groups.len()).expect("just compared with a limit below 256");
        }
        let mut groups = 0;
        for party in &mut all {
            party.groups = groups;
            groups += u32::from(party.group_count);
        }
        let memberships = self.memberships.iter().map(|membership| membership.1).collect();
        let table = std::mem::take(&mut self.party_table);
        Ok(Parties { all: all.into_boxed_slice(), table, memberships, name_bytes })
    }

    /// Nodes in their places, and their marks.
    fn finish_nodes(&mut self, place_of: &[u32]) -> (Vec<Node>, Vec<Mark>) {
        let mut order = vec![0; place_of.len()];
        for (draft, &place) in (0..).zip(place_of) {
            order[place as usize] = draft;
        }
        let mut nodes: Vec<Node> = Vec::with_capacity(order.len());
        for &draft in &order {
            let DraftNode { text, first, first_deny, .. } = self.nodes[draft as usize];
            let (marks, children, literals) = (0, 0, 0);
            nodes.push(Node {
                first,
                first_deny,
                marks,
                children,
                literals,
                text,
                exact: 0,
                below: 0,
                special: 0,
            });
        }
        // From the last child to the first, so that the first one's place is what stays.
        for (place, &draft) in order.iter().enumerate().rev() {
            let DraftNode { parent, kind, .. } = self.nodes[draft as usize];
            let Some(&parent) = place_of.get(parent as usize) else { continue };
            let parent = &mut nodes[parent as usize];
            parent.children = number(place);
            match kind {
                NodeKind::Plus => parent.special |= PLUS,
                NodeKind::Account => parent.special |= ACCOUNT,
                NodeKind::Client => parent.special |= CLIENT,
                NodeKind::Literal => parent.literals += 1,
                NodeKind::Root => unreachable!("a root has no parent"),
            }
        }
        self.places.sort_unstable_by_key(|place| (place_of[place.node as usize], place.below, place.mark));
        let mut marks = Vec::new();
        for places in self.places.chunk_by(|one, other| one.node == other.node) {
            let node = &mut nodes[place_of[places[0].node as usize] as usize];
            node.marks = number(marks.len());
            let (exact, below) = places.split_at(places.partition_point(|place| !place.below));
            node.exact = keep_first(exact, &mut marks);
            node.below = keep_first(below, &mut marks);
            if node.has_its_mark() {
                marks.pop();
            }
        }
        (nodes, marks)
    }
}

impl DraftNode {
    fn new(parent: u32, kind: NodeKind, text: Span) -> DraftNode {
        DraftNode { parent, kind, text, first: Mark::NONE, first_deny: Mark::NONE }
    }
}

/// Keeps the marks of one place that can decide: the first of each action, and the first that denies subscribing, which
/// counts where one that allows does not. Says how many.
fn keep_first(places: &[Place], marks: &mut Vec<Mark>) -> u8 {
    let before = marks.len();
    let (mut decided, mut denied) = (0, false);
    for &Place { mark, .. } in places {
        let first_deny = denies_subscribing(mark) && !denied;
        if first_deny || mark.actions() & !decided != 0 {
            marks.push(mark);
        }
        decided |= mark.actions();
        denied |= first_deny;
    }
    let kept = marks.len() - before;
    assert!(kept <= MARKS_PER_PLACE, "each one kept is the first of something");
    u8::try_from(kept).expect("a handful")
}

fn finish_tree(texts: &Texts, nodes: Vec<Node>, marks: Vec<Mark>) -> Tree {
    let is_looked_up = |node: &Node| node.literals > COMPARED_MAX;
    let count = nodes.iter().filter(|node| is_looked_up(node)).map(|node| node.literals as usize).sum();
    let mut table = HashTable::with_capacity(count);
    for (index, node) in (0..).zip(&nodes).filter(|(_, node)| is_looked_up(node)) {
        for child in node.literal_children() {
            let hash = hash_of(&texts.key, texts.of(nodes[child as usize].text));
            table.insert_unique(hash_within(index, hash), child, |_| {
                unreachable!("the table was made for all of them")
            });
        }
    }
    let level_bytes = nodes.iter().map(|node| usize::from(node.text.length)).max().unwrap_or(0);
    Tree { nodes: nodes.into_boxed_slice(), marks: marks.into_boxed_slice(), table, level_bytes }
}

fn denies_subscribing(mark: Mark) -> bool {
    !mark.allows() && mark.actions() & Action::Subscribe.bit() != 0
}

fn text_of(texts: &str, span: Span) -> &str {
    &texts[span.start as usize..][..usize::from(span.length)]
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a file has fewer bytes than that, and each one counted takes a byte or more")
}
