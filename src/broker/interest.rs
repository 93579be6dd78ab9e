//! Which other shards must know a filter, and telling them: at subscribe, at the end of a session, and at start.
//!
//! At the start each shard also tells what it already has of what will be routed again (`origins`).

use super::effect::{Effect, Effects};
use super::route::MeshMessage;
use super::{Broker, Budget};
use crate::ids::{OriginKey, ShardId};
use crate::placement::Owner;
use crate::wire::topic;

/// The exchange at start: every shard announces what it already has through shared subscriptions and all its filters, then
/// says so; when all have, every owner knows.
#[derive(Debug)]
pub(super) struct Announcement {
    others: u16,
    heard: u16,
    /// Where our own announcement goes on; `None` before replay has ended and after it is finished.
    cursor: Option<u32>,
    finished: bool,
    /// Messages that were placed here before the start, and by which shared subscription; still to be told.
    shares: Vec<(OriginKey, u16)>,
}

impl Announcement {
    pub(super) fn new(shards: u16) -> Announcement {
        Announcement { others: shards - 1, heard: 0, cursor: None, finished: false, shares: Vec::new() }
    }

    /// Replay has ended.
    pub(super) fn begin(&mut self, shares: Vec<(OriginKey, u16)>) {
        self.shares = shares;
        self.cursor = Some(0);
    }

    /// Another shard has announced everything.
    pub(super) fn heard(&mut self) {
        self.heard += 1;
    }

    /// Whether everyone has announced everything.
    pub(super) fn complete(&self) -> bool {
        self.finished && self.heard == self.others
    }
}

impl Broker {
    /// Go on announcing.
    pub(super) fn announce_interest(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        while let Some(cursor) = self.announcement.cursor {
            if !budget.take() {
                return true;
            }
            if let Some((key, group)) = self.announcement.shares.pop() {
                self.tell_share(key, group, effects);
                continue;
            }
            let Some((filter, entry)) = self.subscriptions.next_after(cursor) else {
                self.announcement.cursor = None;
                self.announcement.finished = true;
                for to in self.settings.placement.all().filter(|to| *to != self.shard) {
                    effects.perform(Effect::Mesh { to, message: MeshMessage::InterestComplete });
                }
                self.announcement.shares = Vec::new();
                // Something may have waited for this that has had its turn.
                return true;
            };
            self.announcement.cursor = Some(filter.0 + 1);
            let members = u32::try_from(entry.local().len()).expect("bounded by SESSIONS_PER_SHARD_MAX");
            if members > 0 {
                let text: Box<str> = entry.text().into();
                self.tell_interest(&text, members, 0, effects);
            }
        }
        false
    }

    /// Tell those who must know how many sessions here want a filter; the result is how many will answer.
    pub(super) fn tell_interest(
        &mut self,
        text: &str,
        members: u32,
        token: u64,
        effects: &mut impl Effects,
    ) -> u32 {
        let (shared, filter) = match topic::split_shared(text) {
            Some((_, filter)) => (true, filter),
            None => (false, text),
        };
        // An owner only needs to know whether, not how many, unless members take turns.
        let members = if shared { members } else { members.min(1) };
        let mut told = 0;
        let mut tell = |to: ShardId| {
            let message = MeshMessage::Interest { token, filter: text.into(), members };
            effects.perform(Effect::Mesh { to, message });
            told += 1;
        };
        match self.settings.placement.filter_owner(filter) {
            Owner::One(owner) if owner == self.shard => {}
            Owner::One(owner) => tell(owner),
            Owner::Every => self.settings.placement.all().filter(|to| *to != self.shard).for_each(tell),
        }
        told
    }

    /// Whether a filter must be known to every shard, which is bounded.
    pub(super) fn is_broad(&self, text: &str) -> bool {
        let filter = topic::split_shared(text).map_or(text, |(_, filter)| filter);
        self.settings.placement.filter_owner(filter) == Owner::Every
    }
}
