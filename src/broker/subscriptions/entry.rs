//! One filter and everyone who wants it.
//!
//! The two usual entries, one subscriber of this shard or one other interested shard, need no memory outside the
//! entry but the text: a host with 2 M inboxes has 2 M of the first, and without an account pattern about as many of
//! the second. Everything else is behind a box, and goes back inline when it has become small again.

use super::members::{Locals, Members};
use super::{FilterId, Grant, Subscriber};
use crate::ids::ShardId;

/// A filter with its subscribers and interested shards.
#[derive(Debug)]
pub struct Entry {
    text: Box<str>,
    parties: Parties,
    link: Option<Box<Link>>,
}

#[derive(Debug)]
enum Parties {
    Nobody,
    Local([Subscriber; 1]),
    Remote([(ShardId, u32); 1]),
    Many(Box<Many>),
}

#[derive(Debug)]
struct Many {
    local: Members,
    remote: Vec<(ShardId, u32)>,
}

/// Where an entry hangs in the trie: several entries end at one node if their filters differ only in `$share/NAME/`.
#[derive(Debug)]
pub(super) struct Link {
    /// The node of the last level, or of the level before a final `#`.
    pub(super) node: u32,
    /// The entry before it at the same place.
    pub(super) previous: Option<FilterId>,
    /// The entry after it at the same place.
    pub(super) next: Option<FilterId>,
    turn: u32,
}

impl Link {
    pub(super) fn new(node: u32, next: Option<FilterId>) -> Link {
        Link { node, previous: None, next, turn: 0 }
    }
}

impl Entry {
    /// An entry that nobody wants yet.
    pub(super) fn new(filter: &str) -> Entry {
        Entry { text: filter.into(), parties: Parties::Nobody, link: None }
    }

    /// The filter, with its `$share/NAME/` prefix if it is shared.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is a shared subscription: each message goes to one member, not to all.
    pub fn is_shared(&self) -> bool {
        super::matched_part(&self.text).len() != self.text.len()
    }

    /// Sessions of this shard that subscribe, ascending by slot.
    pub fn local(&self) -> Locals<'_> {
        match &self.parties {
            Parties::Local(inline) => Locals::inline(inline),
            Parties::Many(many) => many.local.view(),
            Parties::Nobody | Parties::Remote(_) => Locals::inline(&[]),
        }
    }

    /// Other shards with subscribers and how many each, ascending by shard.
    pub fn remote(&self) -> &[(ShardId, u32)] {
        match &self.parties {
            Parties::Remote(inline) => inline,
            Parties::Many(many) => &many.remote,
            Parties::Nobody | Parties::Local(_) => &[],
        }
    }

    /// Sessions of this shard that subscribe.
    pub fn members(&self) -> u32 {
        match &self.parties {
            Parties::Local(_) => 1,
            Parties::Many(many) => many.local.len(),
            Parties::Nobody | Parties::Remote(_) => 0,
        }
    }

    pub(super) fn is_unwanted(&self) -> bool {
        matches!(self.parties, Parties::Nobody)
    }

    pub(super) fn link(&self) -> Option<&Link> {
        self.link.as_deref()
    }

    pub(super) fn link_mut(&mut self) -> Option<&mut Link> {
        self.link.as_deref_mut()
    }

    pub(super) fn set_link(&mut self, link: Link) {
        self.link = Some(Box::new(link));
    }

    pub(super) fn pick_turn(&mut self) -> u32 {
        let Some(link) = self.link.as_deref_mut() else { return 0 };
        let turn = link.turn;
        link.turn = turn.wrapping_add(1);
        turn
    }

    pub(super) fn grant(&self, session: u32) -> Option<Grant> {
        match &self.parties {
            Parties::Local([only]) => (only.session == session).then_some(only.grant),
            Parties::Many(many) => many.local.get(session),
            Parties::Nobody | Parties::Remote(_) => None,
        }
    }

    pub(super) fn add_local(&mut self, subscriber: Subscriber) -> Option<Grant> {
        match &mut self.parties {
            Parties::Nobody => {
                self.parties = Parties::Local([subscriber]);
                None
            }
            Parties::Local([only]) if only.session == subscriber.session => {
                Some(std::mem::replace(&mut only.grant, subscriber.grant))
            }
            Parties::Local(_) | Parties::Remote(_) | Parties::Many(_) => self.many().local.insert(subscriber),
        }
    }

    pub(super) fn remove_local(&mut self, session: u32) -> Option<Grant> {
        match &mut self.parties {
            Parties::Local([only]) if only.session == session => {
                let grant = only.grant;
                self.parties = Parties::Nobody;
                Some(grant)
            }
            Parties::Many(many) => {
                let grant = many.local.remove(session)?;
                self.settle();
                Some(grant)
            }
            Parties::Nobody | Parties::Local(_) | Parties::Remote(_) => None,
        }
    }

    pub(super) fn set_remote(&mut self, shard: ShardId, members: u32) {
        match &mut self.parties {
            Parties::Nobody => self.parties = Parties::Remote([(shard, members)]),
            Parties::Remote([only]) if only.0 == shard => only.1 = members,
            Parties::Local(_) | Parties::Remote(_) | Parties::Many(_) => {
                let remote = &mut self.many().remote;
                match remote.binary_search_by_key(&shard, |&(other, _)| other) {
                    Ok(place) => remote[place].1 = members,
                    Err(place) => remote.insert(place, (shard, members)),
                }
            }
        }
    }

    pub(super) fn remove_remote(&mut self, shard: ShardId) {
        match &mut self.parties {
            Parties::Remote([only]) if only.0 == shard => self.parties = Parties::Nobody,
            Parties::Many(many) => {
                many.remote.retain(|&(other, _)| other != shard);
                self.settle();
            }
            Parties::Nobody | Parties::Local(_) | Parties::Remote(_) => {}
        }
    }

    /// The general form, converted to if need be.
    fn many(&mut self) -> &mut Many {
        if !matches!(self.parties, Parties::Many(_)) {
            let local = Members::from_inline(match &self.parties {
                Parties::Local(inline) => inline,
                _ => &[],
            });
            let remote = self.remote().to_vec();
            self.parties = Parties::Many(Box::new(Many { local, remote }));
        }
        match &mut self.parties {
            Parties::Many(many) => many,
            _ => unreachable!("it was just made so"),
        }
    }

    /// Back inline where one party or none is left.
    fn settle(&mut self) {
        let Parties::Many(many) = &self.parties else { return };
        let local = many.local.view();
        self.parties = match (local.len(), many.remote.as_slice()) {
            (0, []) => Parties::Nobody,
            (1, []) => Parties::Local([local[0]]),
            (0, &[only]) => Parties::Remote([only]),
            _ => return,
        };
    }
}
