//! How much of each sealed segment is live, and which is worth emptying.

use std::collections::BTreeMap;

use super::format::{Kind, PAGE_BYTES};
use super::pool::Pool;
use super::reclaim::Id;
use crate::limits::{RECLAIM_QUIET_MS, SWEEP_MS};
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

/// Records of segments of kept records that one look counts, or a few more: a million sessions have two million of them,
/// and the shard waits meanwhile. What is live only becomes less, so that what was counted earlier is still a bound. The
/// first look after a start counts all.
const COUNTED_PER_LOOK: usize = 100_000;

/// Looks in which all are counted, whatever that takes: one that loses records is to be seen losing them before it counts as
/// quiet.
const LOOKS_PER_ROUND: usize = 8;

const _: () = assert!(LOOKS_PER_ROUND as u64 * SWEEP_MS < RECLAIM_QUIET_MS);

/// Of every sealed segment, as it was when last looked at.
#[derive(Debug, Default)]
pub(super) struct Usages {
    by_id: BTreeMap<Id, Usage>,
    some_half_empty: bool,
    /// Some have nothing live; asked for in every turn, so not looked for each time.
    some_empty: bool,
    /// Of the segments of kept records, the one to begin with next.
    next_kept: usize,
}

/// Which of them to count in this look, by how many records they have: as many as fit it, at least one, from `next` on.
fn in_turn(next: &mut usize, records: &[usize]) -> Vec<bool> {
    let mut in_turn = vec![false; records.len()];
    let enough = COUNTED_PER_LOOK.max(records.iter().sum::<usize>() / LOOKS_PER_ROUND);
    let mut counted = 0;
    for _ in 0..records.len() {
        *next %= records.len();
        in_turn[*next] = true;
        counted += records[*next];
        *next += 1;
        if counted >= enough {
            break;
        }
    }
    in_turn
}

impl Usages {
    /// Look again.
    pub fn observe(&mut self, pool: &Pool, live: &LiveSet, now: Nanos) {
        let sealed = pool.live().len().saturating_sub(1);
        let log = pool.live().iter().take(sealed).map(|segment| {
            let live_bytes = live.estimate(segment.lsns()).bytes;
            ((Kind::Log, segment.header.sequence), live_bytes, segment.header.bytes)
        });
        let before = std::mem::take(&mut self.by_id);
        let kept: Vec<_> = pool.kept.iter().filter(|kept| kept.sealed).collect();
        let records: Vec<usize> = kept.iter().map(|kept| kept.places().len()).collect();
        let in_turn = in_turn(&mut self.next_kept, &records);
        let kept = kept.into_iter().zip(in_turn).map(|(kept, in_turn)| {
            let id = (Kind::Kept, kept.header.sequence);
            let live_bytes = match before.get(&id) {
                Some(known) if !in_turn => known.live_bytes,
                _ => kept.live_bytes(live),
            };
            (id, live_bytes, kept.header.bytes)
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_counts_what_fits_it_and_each_segment_has_its_turn() {
        let mut next = 0;
        assert_eq!(in_turn(&mut next, &[]), [false; 0]);
        assert_eq!(in_turn(&mut next, &[10, 20, 30]), [true, true, true], "all, if they are few");
        let half = COUNTED_PER_LOOK / 2;
        let records = [half, half, 2 * COUNTED_PER_LOOK, half];
        next = 0;
        assert_eq!(in_turn(&mut next, &records), [true, true, false, false]);
        assert_eq!(in_turn(&mut next, &records), [false, false, true, false]);
        assert_eq!(in_turn(&mut next, &records), [true, false, false, true], "and from the beginning again");
        assert_eq!(in_turn(&mut next, &records[..1]), [true], "others are gone meanwhile");
        let many = [COUNTED_PER_LOOK; 40];
        let looked: usize = (0..LOOKS_PER_ROUND)
            .map(|_| in_turn(&mut next, &many).iter().filter(|turn| **turn).count())
            .sum();
        assert_eq!(looked, many.len(), "all of them in one round");
    }
}
