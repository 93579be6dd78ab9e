//! Whom rules are for: everyone, accounts, groups, clients. From a name to its trees, and from an account to its groups.
//!
//! Made by `build`, looked up by `decide`. Everyone is the first. An account that is in a group but has no rules of its
//! own is a party too. All stand in one table keyed by kind and name.

use hashbrown::HashTable;

use super::statement::PartyKind;
use super::tree::{Span, Texts, hash_of, hash_within};

/// Everyone's place.
pub(super) const EVERYONE: u32 = 0;

/// How many sets of variables a filter can use: none, `%u`, `%c`, both.
pub(super) const VARIABLE_SETS: u8 = 4;

/// The filter uses `%u`.
pub(super) const USES_ACCOUNT: u8 = 1;
/// The filter uses `%c`.
pub(super) const USES_CLIENT: u8 = 2;

#[derive(Debug)]
pub(super) struct Party {
    pub name: Span,
    pub kind: PartyKind,
    /// Bit n: there is a tree for the set n of variables.
    pub sets: u8,
    /// The root of its first tree; the others follow.
    pub roots: u32,
    /// Where its groups begin in `memberships`.
    pub groups: u32,
    pub group_count: u8,
}

const _: () = assert!(size_of::<Party>() <= 24);

impl Party {
    /// Roots of its trees, with the set of variables that each uses.
    #[inline]
    pub(super) fn trees(&self) -> impl Iterator<Item = (u8, u32)> {
        let sets = self.sets;
        (0..VARIABLE_SETS).filter(move |set| sets & (1 << set) != 0).zip(self.roots..)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Parties {
    pub all: Box<[Party]>,
    pub table: HashTable<u32>,
    /// Groups of each account, by their place in `all`.
    pub memberships: Box<[u32]>,
    /// Bytes of the longest name of each kind, in their order: nothing longer is looked up, and nothing at all where
    /// there is none.
    pub name_bytes: [usize; 4],
}

impl Parties {
    #[inline]
    pub(super) fn get(&self, place: u32) -> &Party {
        &self.all[place as usize]
    }

    /// The party of that name, which may be a peer's. An empty one is nobody's.
    #[inline]
    pub(super) fn find(&self, texts: &Texts, kind: PartyKind, name: &str) -> Option<u32> {
        if name.is_empty() || name.len() > self.name_bytes[kind as usize] {
            return None;
        }
        let is_it = |&place: &u32| {
            let party = self.get(place);
            party.kind == kind && texts.is(party.name, name.as_bytes())
        };
        self.table.find(hash_of_party(&texts.key, kind, name.as_bytes()), is_it).copied()
    }

    pub(super) fn groups_of(&self, party: &Party) -> &[u32] {
        &self.memberships[party.groups as usize..][..usize::from(party.group_count)]
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.all) + self.table.allocation_size() + size_of_val(&*self.memberships)
    }
}

pub(super) fn hash_of_party(key: &[u8; 16], kind: PartyKind, name: &[u8]) -> u64 {
    hash_within(kind as u32, hash_of(key, name))
}
