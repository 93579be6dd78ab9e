//! The retained messages of one shard's topics, in topic order.
//!
//! Decides nothing about limits or expiry: the broker asks `len` and `bytes` before it sets, and what has expired before
//! it clears that. Holds names of messages, not messages. Called only by the broker of the shard that owns the topics.
//!
//! New subscriptions read through [`Retained::scan`], a cursor that is pulled: its whole state is the last topic
//! looked at, so a subscription in the making holds nothing here, and changes between two calls can neither hide nor
//! repeat a topic that existed throughout. The literal beginning of a filter narrows what is looked at to one or two
//! ranges of the order; beyond it each topic is matched, and the caller's budget bounds how many per call.
//!
//! Invariants: `bytes` is the sum over what is held; `expiring` has what is held and expires, and nothing else.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::ids::Lsn;
use crate::time::UnixMs;
use crate::wire::topic;

/// The retained message of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Slot in the message store.
    pub message: u32,
    /// What it counts against `limits::RETAINED_BYTES_MAX`.
    pub bytes: u32,
    /// From [`Retained::next_number`]: which subscriptions were there before it.
    pub number: u64,
    /// The `Retained` record; `NONE` if there is none.
    pub record: Lsn,
    /// When it expires.
    pub expires_at: UnixMs,
}

/// Retained messages by topic.
#[derive(Debug, Default)]
pub(super) struct Retained {
    by_topic: BTreeMap<Box<str>, Held>,
    /// Slots by expiry and number.
    expiring: BTreeMap<(UnixMs, u64), u32>,
    bytes: u64,
    last_number: u64,
}

impl Retained {
    /// Nothing retained.
    pub fn new() -> Retained {
        Retained::default()
    }

    /// Retains a message; the one it replaces `[MQTT-3.3.1-5]`.
    pub fn set(&mut self, topic: &str, held: Held) -> Option<Held> {
        self.bytes += u64::from(held.bytes);
        // A replaced value keeps its key: no allocation for a topic that is updated again and again.
        let replaced = match self.by_topic.get_mut(topic) {
            Some(place) => Some(std::mem::replace(place, held)),
            None => self.by_topic.insert(topic.into(), held),
        };
        if let Some(replaced) = replaced {
            self.forget(replaced);
        }
        if held.expires_at != UnixMs::NEVER {
            self.expiring.insert((held.expires_at, held.number), held.message);
        }
        replaced
    }

    /// Retains nothing for a topic any more; what it was `[MQTT-3.3.1-6]`.
    pub fn clear(&mut self, topic: &str) -> Option<Held> {
        let cleared = self.by_topic.remove(topic)?;
        self.forget(cleared);
        Some(cleared)
    }

    fn forget(&mut self, held: Held) {
        self.bytes -= u64::from(held.bytes);
        self.expiring.remove(&(held.expires_at, held.number));
    }

    /// The message that expires first, and when.
    pub fn first_to_expire(&self) -> Option<(UnixMs, u32)> {
        self.expiring.first_key_value().map(|((expires_at, _), message)| (*expires_at, *message))
    }

    /// The number of the next one to be set. Numbers ascend.
    pub fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// What is set after now has a higher number.
    pub fn last_number(&self) -> u64 {
        self.last_number
    }

    /// The retained message of a topic.
    pub fn get(&self, topic: &str) -> Option<Held> {
        self.by_topic.get(topic).copied()
    }

    /// Topics with a retained message.
    pub(super) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Sum of what the retained messages count.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Visits, in order, the topics after `after` ("" for the start) that match a valid filter without `$share/`
    /// prefix. Looks at `budget` topics at most, and stops early after a visit that returns false. Returns the
    /// `after` of the next call, or `None` when there is nothing further.
    pub fn scan(
        &self,
        filter: &str,
        after: &str,
        budget: u32,
        mut visit: impl FnMut(&str, Held) -> bool,
    ) -> Option<Box<str>> {
        let mut looked_at = 0;
        let mut last = after;
        for (lower, upper) in Ranges::of(filter).after(after) {
            for (name, &held) in self.by_topic.range::<str, _>((lower.as_bound(), upper.as_bound())) {
                if looked_at == budget {
                    return Some(last.into());
                }
                looked_at += 1;
                last = name;
                if topic::matches(filter, name) && !visit(name, held) {
                    return Some(last.into());
                }
            }
        }
        None
    }
}

/// The parts of the topic order in which a filter's topics lie: two at most, ascending.
struct Ranges([Option<(Edge, Edge)>; 2]);

/// A bound that owns its text, because an upper one is made up.
#[derive(Clone, PartialEq, Debug)]
enum Edge {
    Open,
    At(Box<str>),
    Beyond(Box<str>),
}

impl Edge {
    /// As a lower bound: `At` is part of the range, `Beyond` is not.
    fn as_bound(&self) -> Bound<&str> {
        match self {
            Edge::Open => Bound::Unbounded,
            Edge::At(text) => Bound::Included(text),
            Edge::Beyond(text) => Bound::Excluded(text),
        }
    }
}

impl Ranges {
    fn of(filter: &str) -> Ranges {
        let Some(wildcard) = filter.find(['+', '#']) else {
            return Ranges([Some((Edge::At(filter.into()), Edge::At(filter.into()))), None]);
        };
        let Some(path) = filter[..wildcard].strip_suffix('/') else {
            // A wildcard at the front matches everything but the topics in `$`..`%` [MQTT-4.7.2-1].
            let before = (Edge::Open, Edge::Beyond("$".into()));
            return Ranges([Some(before), Some((Edge::At("%".into()), Edge::Open))]);
        };
        // `0` is the character after `/`: `path/` up to `path0` is what begins with `path/`.
        let inside = (Edge::At(format!("{path}/").into()), Edge::Beyond(format!("{path}0").into()));
        if &filter[wildcard..] == "#" {
            // `path` itself matches too (section 4.7.1.2), and texts like `path!` lie between.
            return Ranges([Some((Edge::At(path.into()), Edge::At(path.into()))), Some(inside)]);
        }
        Ranges([Some(inside), None])
    }

    /// What is left of the ranges after a topic.
    fn after(self, after: &str) -> impl Iterator<Item = (Edge, Edge)> {
        self.0.into_iter().flatten().filter_map(move |(lower, upper)| {
            let started = match &lower {
                Edge::Open => !after.is_empty(),
                Edge::At(text) | Edge::Beyond(text) => **text <= *after,
            };
            let over = match &upper {
                Edge::Open => false,
                Edge::At(text) | Edge::Beyond(text) => **text <= *after,
            };
            let lower = if started { Edge::Beyond(after.into()) } else { lower };
            (!over).then_some((lower, upper))
        })
    }
}

#[cfg(test)]
mod tests;
