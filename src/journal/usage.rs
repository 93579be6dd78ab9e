//! How much of each sealed segment is live, and which is worth emptying.

use std::collections::BTreeMap;

use super::format::{Kind, PAGE_BYTES};
use super::pool::Pool;
use super::reclaim::Id;
use crate::live::LiveSet;
use crate::time::Nanos;

/// How much of a segment is live.
#[derive(Clone, Copy, Debug)]
struct Usage {
    live_bytes: u64,
    /// What it could hold: one that a restart left hardly begun is worth emptying too.
    bytes: u64,
    /// What was live in it when it was last seen to lose a good part.
    counted: u64,
    /// When that was.
    lost_at: Nanos,
}

/// What a segment must lose before it counts as losing: one part in so many. Some small record dies in nearly every
/// segment all the time, and emptying it cannot wait for that to end.
const LOSS_PARTS: u64 = 64;

impl Usage {
    fn is_half_empty(&self) -> bool {
        self.live_bytes > 0 && self.live_bytes * 2 <= self.bytes
    }
}

/// Of every sealed segment, as it was when last looked at.
#[derive(Debug, Default)]
pub(super) struct Usages {
    by_id: BTreeMap<Id, Usage>,
    some_half_empty: bool,
    /// Some have nothing live; asked for in every turn, so not looked for each time.
    some_empty: bool,
}

impl Usages {
    /// Look again.
    pub fn observe(&mut self, pool: &Pool, live: &LiveSet, now: Nanos) {
        let sealed = pool.live().len().saturating_sub(1);
        let log = pool.live().iter().take(sealed).map(|segment| {
            let live_bytes = live.estimate(segment.lsns()).bytes;
            ((Kind::Log, segment.header.sequence), live_bytes, segment.header.bytes)
        });
        let kept = pool
            .kept
            .iter()
            .filter(|kept| kept.sealed)
            .map(|kept| ((Kind::Kept, kept.header.sequence), kept.live_bytes(live), kept.header.bytes));
        let before = std::mem::take(&mut self.by_id);
        for (id, live_bytes, bytes) in log.chain(kept) {
            // One that is new has just been sealed: what it lost before counts as lost now.
            let counts = |known: &Usage| known.counted.saturating_sub(live_bytes) >= bytes / LOSS_PARTS;
            let (counted, lost_at) = match before.get(&id) {
                Some(known) if !counts(known) => (known.counted, known.lost_at),
                _ => (live_bytes, now),
            };
            let bytes = bytes - PAGE_BYTES as u64;
            self.by_id.insert(id, Usage { live_bytes, bytes, counted, lost_at });
        }
        self.some_empty = self.by_id.values().any(|usage| usage.live_bytes == 0);
        self.some_half_empty = self.by_id.values().any(Usage::is_half_empty);
    }

    /// Whether any has little enough left in it to be worth copying.
    pub fn some_half_empty(&self) -> bool {
        self.some_half_empty
    }

    /// Those with nothing live, besides those that were copied.
    pub fn dead<'a>(
        &'a self,
        pool: &'a Pool,
        live: &'a LiveSet,
        copied: &'a [Id],
    ) -> impl Iterator<Item = Id> + 'a {
        let empty = self.by_id.iter().take(if self.some_empty { usize::MAX } else { 0 });
        let empty = empty.filter(|(_, usage)| usage.live_bytes == 0).map(|(id, _)| *id);
        empty.filter(|id| !copied.contains(id)).filter(|(kind, sequence)| match kind {
            Kind::Log => {
                let segment = pool.live().iter().find(|segment| segment.header.sequence == *sequence);
                segment.is_some_and(|segment| live.estimate(segment.lsns()).records == 0)
            }
            _ => {
                let kept = pool.kept.iter().find(|kept| kept.header.sequence == *sequence);
                kept.is_some_and(|kept| !kept.is_live(live))
            }
        })
    }

    /// The one with the least in it, of those that are half empty and have lost next to nothing for so long.
    pub fn emptiest(&self, pool: &Pool, copied: &[Id], quiet_ms: u64, now: Nanos) -> Option<Id> {
        let quiet = |usage: &Usage| now >= usage.lost_at.plus_ms(quiet_ms);
        self.by_id
            .iter()
            .filter(|(id, usage)| usage.is_half_empty() && quiet(usage) && !copied.contains(id))
            .filter(|(id, _)| pool.has(**id))
            .min_by_key(|(_, usage)| usage.live_bytes * 1_000 / usage.bytes.max(1))
            .map(|(id, _)| *id)
    }

    /// They are gone.
    pub fn forget(&mut self, ids: &[Id]) {
        self.by_id.retain(|id, _| !ids.contains(id));
    }
}
