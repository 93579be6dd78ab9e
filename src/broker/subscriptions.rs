//! Which sessions, and which other shards, want the messages of a topic: the index of one shard.
//!
//! One value serves both roles of a shard. As the home of sessions it holds their subscriptions (`local`); as the
//! owner of topics it holds which other shards have subscribers (`remote`). It decides nothing about delivery: the
//! broker walks the matching entries and merges them per session. Called only by the broker of the same shard.
//!
//! - An **entry** is one filter text with everyone who wants it; it exists while anyone does. Its slot is the
//!   [`FilterId`] that sessions keep instead of the text; a slot is reused after the entry is gone.
//! - The **table** finds an entry by its full text. A message for a topic finds the entry of the same text there, so
//!   a filter without wildcards costs nothing beyond its entry, and 2 M of them cost a walk one probe.
//! - The **trie** (`trie`) finds the filters that need matching: those with wildcards, and shared ones, which stand
//!   there without their `$share/NAME/` prefix.
//!
//! Both tables store the handle and 32 bits of its hash, so they grow without touching a single text. Growth is not
//! free all the same: measured (2-core machine, loaded), the doubling of the slab at 1 M entries takes 100 ms of CPU
//! and that of the table at 1.8 M 70 ms, in one call each. A shard of many has a fraction of both; whoever wants
//! millions in one shard without the pause splits both by hash.
//!
//! Invariants: an entry has a local subscriber or a remote interest; it is in the table; it hangs in the trie exactly
//! if it is shared or has a wildcard. Order of iteration depends only on the sequence of calls, not on the hash key
//! or on addresses.
//!
//! Bytes per filter with one subscriber: entry 40, table handle 9 at a load between 7/16 and 7/8, and the text; 87 of
//! resident memory measured with 2 M times `u/NUMBER/inbox`. A walk among them takes 1.5 µs, cold caches included.

mod entry;
mod members;
#[cfg(test)]
mod tests;
mod trie;

use std::hash::Hasher;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;
use slab::Slab;

pub use entry::Entry;
pub use members::Locals;

use crate::ids::ShardId;
use crate::wire::{SubscribeOptions, topic};
use trie::Trie;

/// The name of a filter in this shard while anyone wants it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FilterId(pub u32);

/// What a session was granted with a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Options as granted.
    pub options: SubscribeOptions,
    /// Subscription identifier, 0 for none.
    pub subscription_id: u32,
}

/// A session of this shard that subscribes to a filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscriber {
    /// Slot of the session.
    pub session: u32,
    /// What it was granted.
    pub grant: Grant,
}

// The one subscriber of an inbox lies in its entry.
const _: () = assert!(size_of::<Subscriber>() == 12);
const _: () = assert!(size_of::<Entry>() == 40);

/// Outcome of [`Subscriptions::subscribe`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscribed {
    /// The filter's name from now on.
    pub filter: FilterId,
    /// The grant that this one replaced `[MQTT-3.8.4-3]`; `None` for a new subscription.
    pub replaced: Option<Grant>,
    /// Sessions of this shard that now subscribe to the filter.
    pub members: u32,
}

/// The index of one shard.
#[derive(Debug)]
pub struct Subscriptions {
    entries: Slab<Entry>,
    by_text: HashTable<Handle>,
    trie: Trie,
    key: [u8; 16],
    broad: usize,
    text_bytes: usize,
}

/// What a table stores for a slot: enough of the hash to grow without reading what the slot refers to.
#[derive(Debug, Clone, Copy)]
struct Handle {
    hash: u32,
    slot: u32,
}

impl Handle {
    /// The table takes its bucket from the low end and its tag from the high end, so both ends get all 32 bits.
    fn spread(self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

impl Subscriptions {
    /// An empty index. The key makes collisions unguessable for peers, who choose the texts.
    pub fn new(hash_key: [u8; 16]) -> Self {
        Subscriptions {
            entries: Slab::new(),
            by_text: HashTable::new(),
            trie: Trie::new(hash_key),
            key: hash_key,
            broad: 0,
            text_bytes: 0,
        }
    }

    /// Adds or replaces the subscription of a session of this shard. `filter` is a valid filter, with its
    /// `$share/NAME/` prefix if it is shared.
    pub fn subscribe(&mut self, filter: &str, session: u32, grant: Grant) -> Subscribed {
        let id = self.find_or_add(filter);
        let entry = &mut self.entries[slot(id)];
        let replaced = entry.add_local(Subscriber { session, grant });
        Subscribed { filter: id, replaced, members: entry.members() }
    }

    /// Removes the subscription of a session of this shard; `Some(local subscribers left)`, or `None` if there was
    /// none. The entry goes with its last interest, local or remote, and then its id may be given to another.
    pub fn unsubscribe(&mut self, filter: FilterId, session: u32) -> Option<u32> {
        let entry = self.entries.get_mut(slot(filter))?;
        entry.remove_local(session)?;
        let left = entry.members();
        self.drop_if_unwanted(filter);
        Some(left)
    }

    /// The entry with that text, prefix included.
    pub fn find(&self, filter: &str) -> Option<FilterId> {
        let handle = Handle { hash: hash_of(&self.key, 0, filter), slot: 0 };
        let entries = &self.entries;
        self.by_text
            .find(handle.spread(), |other| {
                other.hash == handle.hash && entries[other.slot as usize].text() == filter
            })
            .map(|found| FilterId(found.slot))
    }

    /// Text of a filter, with its `$share/NAME/` prefix. The id must be of an entry.
    pub fn text(&self, filter: FilterId) -> &str {
        self.entry(filter).text()
    }

    /// What a session of this shard was granted for a filter.
    pub fn grant(&self, filter: FilterId, session: u32) -> Option<Grant> {
        self.entries.get(slot(filter))?.grant(session)
    }

    /// Another shard has that many subscribers to a filter; 0 removes its interest.
    pub fn set_interest(&mut self, filter: &str, shard: ShardId, members: u32) {
        if members > 0 {
            let id = self.find_or_add(filter);
            self.entries[slot(id)].set_remote(shard, members);
        } else if let Some(id) = self.find(filter) {
            self.entries[slot(id)].remove_remote(shard);
            self.drop_if_unwanted(id);
        }
    }

    /// Visits every entry whose filter matches a valid topic name, each once, in an order that depends only on the
    /// history of calls. Costs one probe plus the part of the trie that matches the topic's beginning; allocates
    /// nothing. Wildcards at the front never match a topic that starts with `$` `[MQTT-4.7.2-1]`.
    pub fn walk(&self, topic: &str, mut visit: impl FnMut(FilterId, &Entry)) {
        if let Some(id) = self.find(topic) {
            let entry = self.entry(id);
            // Somebody may publish to the topic name "$share/g/a": that text names the entry, but does not match it.
            if entry.link().is_none() {
                visit(id, entry);
            }
        }
        self.trie.walk(topic, &mut |head| {
            let mut next = head;
            while let Some(id) = next {
                let entry = self.entry(id);
                visit(id, entry);
                next = entry.link().expect("an entry in a chain has its links").next;
            }
        });
    }

    /// An entry that exists; ids held by a subscribed session do.
    pub fn entry(&self, filter: FilterId) -> &Entry {
        self.entries.get(slot(filter)).expect("a filter id is held only while its entry is wanted")
    }

    /// The first entry at or after a slot: iteration that may pause. The next cursor is the id found plus one.
    pub fn next_after(&self, cursor: u32) -> Option<(FilterId, &Entry)> {
        (cursor as usize..self.entries.capacity())
            .find_map(|slot| Some((FilterId(u32::try_from(slot).ok()?), self.entries.get(slot)?)))
    }

    /// Counts a round of a shared subscription: 0, 1, 2 … for that entry, wrapping. 0 for an ordinary filter.
    pub fn pick_turn(&mut self, filter: FilterId) -> u32 {
        self.entries.get_mut(slot(filter)).map_or(0, Entry::pick_turn)
    }

    /// Filters with somebody who wants them.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody wants anything.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Filters with a wildcard in their first two levels: the ones that most topics have to be held against. For
    /// `limits::BROAD_FILTERS_PER_SHARD_MAX`.
    pub fn broad_count(&self) -> usize {
        self.broad
    }

    /// Inner nodes of the trie, its root not counted. 0 when no filter is shared or has a wildcard.
    pub fn node_count(&self) -> usize {
        self.trie.len()
    }

    /// Bytes of memory held, without the allocator's own: slabs and tables by capacity, texts by length; not the
    /// lists of entries with several subscribers, which are 12 bytes per subscriber and shrink with them.
    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.by_text.allocation_size()
            + self.text_bytes
            + self.trie.bytes()
    }

    fn find_or_add(&mut self, filter: &str) -> FilterId {
        if let Some(id) = self.find(filter) {
            return id;
        }
        let vacant = self.entries.vacant_key();
        let id = FilterId(u32::try_from(vacant).expect("limits keep subscriptions of a shard below 2^32"));
        self.entries.insert(Entry::new(filter));
        let handle = Handle { hash: hash_of(&self.key, 0, filter), slot: id.0 };
        self.by_text.insert_unique(handle.spread(), handle, |other| other.spread());
        if needs_matching(filter) {
            self.trie.hang(id, &mut self.entries);
        }
        self.broad += usize::from(is_broad(filter));
        self.text_bytes += filter.len();
        id
    }

    fn drop_if_unwanted(&mut self, id: FilterId) {
        if !self.entry(id).is_unwanted() {
            return;
        }
        if self.entry(id).link().is_some() {
            self.trie.unhang(id, &mut self.entries);
        }
        let entry = self.entries.remove(slot(id));
        let handle = Handle { hash: hash_of(&self.key, 0, entry.text()), slot: id.0 };
        self.by_text
            .find_entry(handle.spread(), |other| other.slot == id.0)
            .unwrap_or_else(|_| panic!("every entry is in the table"))
            .remove();
        self.broad -= usize::from(is_broad(entry.text()));
        self.text_bytes -= entry.text().len();
        self.shrink();
    }

    /// A table that once held millions gives its memory back, at 1/8 full so that it does not flap.
    fn shrink(&mut self) {
        if self.by_text.capacity() > 1_024 && self.by_text.len() < self.by_text.capacity() / 8 {
            self.by_text.shrink_to(self.by_text.len() * 2, |handle| handle.spread());
        }
    }
}

/// The filter of a shared subscription without `$share/NAME/` `[MQTT-4.8.2-1]`; any other filter as it is.
fn matched_part(filter: &str) -> &str {
    topic::split_shared(filter).map_or(filter, |(_, matched)| matched)
}

/// Names a shared subscription in a few bits that mean the same for ever: what a session has through it is written
/// down with them. Never 0. Two that collide are told apart by the topics they match, or else taken for each other.
pub fn group_tag(text: &str) -> u16 {
    let mut hasher = SipHasher13::new_with_key(&[0; 16]);
    hasher.write(text.as_bytes());
    u16::try_from(hasher.finish() & 0xFFFF).expect("masked to 16 bits").max(1)
}

fn needs_matching(filter: &str) -> bool {
    matched_part(filter).len() != filter.len() || filter.contains(['+', '#'])
}

fn is_broad(filter: &str) -> bool {
    // `a/b/#` has topics of one key only; `a/#` has not.
    matched_part(filter).split('/').take(2).any(|level| level == "+" || level == "#")
}

fn slot(filter: FilterId) -> usize {
    filter.0 as usize
}

/// Hash of a text, or of a level below a trie node; 32 bits index more than any shard holds.
fn hash_of(key: &[u8; 16], parent: u32, text: &str) -> u32 {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write_u32(parent);
    hasher.write(text.as_bytes());
    (hasher.finish() >> 32) as u32
}
