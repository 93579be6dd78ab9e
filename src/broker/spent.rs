//! What clients and accounts have used up of rate limits that outlive a restart: which records say so, and until when.
//!
//! Decides what is written and for how long that is needed. What a limit is, and how far ahead of what is used up it is told, the
//! shard decides; here a limit is a number. After replay the shard asks for all of it (`spent`), for its own buckets begin full.
//!
//! There are [`RATE_KEPT_MAX`](crate::limits::RATE_KEPT_MAX) at most (`Settings::spent_max`). Beyond, the limit that is whole first gives way, be it the new one:
//! who has fresh names without end displaces his own, not what is used up to the bottom. That it does is a record of its own, for what
//! undoes a record must say of which it is that it does. While the journal's reserve is
//! reached, nobody new is written down, as no new session is.
//!
//! A limit that is whole again is of no use to anybody, so it is no matter when it is forgotten, but that it is: they are looked through in
//! the order of time, some at a time, by one timer for all.
//!
//! Invariant: each is in the order once, and its record is live for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Broker;
use super::effect::Effects;
use super::session;
use super::timers::Due;
use crate::ids::Lsn;
use crate::limits;
use crate::record::Record;
use crate::time::{Nanos, UnixMs};

/// How soon they are looked through again at the earliest.
const LOOK_MS: u64 = 10_000;

/// Those that are forgotten in one look. If there are more, it goes on in the next call.
const FORGOTTEN_MAX: usize = 256;

const _: () = assert!(LOOK_MS < limits::RATE_KEPT_MS);

/// Those that may give way to one that is new: more than one, because replay of what other shards had may bring more than there may be.
const GIVE_WAY_MAX: usize = 2;

/// When a limit is whole again that has given way.
const UNKNOWN: UnixMs = UnixMs(0);

/// Whose, as a session is named, and which limit.
pub(super) type Key = (Arc<str>, u8);

/// See `session::identity`: an account without a client id is unlike any client.
pub(super) fn key([account, client_id]: [&str; 2], limit: u8) -> Key {
    (session::identity(account, client_id).into(), limit)
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Spent {
    entries_max: usize,
    entries: BTreeMap<Key, Entry>,
    by_time: BTreeSet<(UnixMs, Key)>,
    look_at: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    record: Lsn,
    full_at: UnixMs,
}

impl Spent {
    pub(super) fn new(entries_max: usize) -> Spent {
        Spent { entries_max, entries: BTreeMap::new(), by_time: BTreeSet::new(), look_at: Nanos::NEVER }
    }

    /// Whether it may be written down, perhaps in place of another.
    fn takes(&self, key: &Key, full_at: UnixMs) -> bool {
        let gives_way = |(first, _): &(UnixMs, Key)| *first < full_at;
        self.entries.contains_key(key) || !self.is_full() || self.by_time.first().is_some_and(gives_way)
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= self.entries_max
    }

    /// The record of the same that this makes superfluous.
    fn note(&mut self, key: &Key, entry: Entry) -> Option<Lsn> {
        let before = self.forget(key);
        self.by_time.insert((entry.full_at, key.clone()));
        self.entries.insert(key.clone(), entry);
        before
    }

    fn forget(&mut self, key: &Key) -> Option<Lsn> {
        let Entry { record, full_at } = self.entries.remove(key)?;
        self.by_time.remove(&(full_at, key.clone()));
        Some(record)
    }

    /// As `Broker::spent`, each with its record.
    #[cfg(test)]
    pub(super) fn records(&self) -> impl Iterator<Item = ([&str; 2], u8, UnixMs, Lsn)> {
        self.entries.iter().map(|((identity, limit), entry)| {
            let (account, client_id) = session::split_identity(identity);
            ([account, client_id], *limit, entry.full_at, entry.record)
        })
    }

    fn forget_whole(&mut self, now: UnixMs) -> Option<Lsn> {
        let (_, key) = self.by_time.first().filter(|(full_at, _)| *full_at <= now)?.clone();
        self.forget(&key)
    }
}

impl Broker {
    /// Names, limit, and when it is whole again, of all of which that is written down.
    pub fn spent(&self) -> impl Iterator<Item = ([&str; 2], u8, UnixMs)> {
        self.spent.entries.iter().map(|((identity, limit), entry)| {
            let (account, client_id) = session::split_identity(identity);
            ([account, client_id], *limit, entry.full_at)
        })
    }

    /// Somebody has used up so much.
    pub(super) fn spend(
        &mut self,
        [account, client_id]: [&str; 2],
        limit: u8,
        full_at: UnixMs,
        effects: &mut impl Effects,
    ) {
        let key = key([account, client_id], limit);
        let is_known = self.spent.entries.contains_key(&key);
        if !is_known && self.disk_reserve_reached || !self.spent.takes(&key, full_at) {
            return;
        }
        if !is_known {
            (0..GIVE_WAY_MAX).for_each(|_| self.make_room(effects));
        }
        let record = self.append(Record::Spent { account, client_id, limit, full_at }, effects);
        self.spent_is_noted(&key, record, full_at);
        self.look_at_limits_from(self.now.mono.plus_ms(LOOK_MS));
    }

    /// The limit that is whole first gives way, if there are too many. This is written: replay does not know what there was when.
    fn make_room(&mut self, effects: &mut impl Effects) {
        if !self.spent.is_full() || self.forget_whole_limit().is_some() {
            return;
        }
        let Some((_, key)) = self.spent.by_time.first().cloned() else { return };
        let (account, client_id) = session::split_identity(&key.0);
        let record = Record::Spent { account, client_id, limit: key.1, full_at: UNKNOWN };
        let record = self.append(record, effects);
        self.spent_is_noted(&key, record, UNKNOWN);
    }

    /// A `Spent` record was written.
    pub(super) fn spent_is_noted(&mut self, key: &Key, record: Lsn, full_at: UnixMs) {
        let dead = if full_at == UNKNOWN {
            self.spent.forget(key)
        } else {
            self.live.add(record, 0);
            self.spent.note(key, Entry { record, full_at })
        };
        if let Some(dead) = dead {
            self.live.remove(dead);
        }
    }

    /// Limits that are whole again are forgotten.
    pub(super) fn forget_whole_limits(&mut self) {
        self.spent.look_at = Nanos::NEVER;
        let forgotten = (0..FORGOTTEN_MAX).map_while(|_| self.forget_whole_limit()).count();
        let wait_ms = if forgotten < FORGOTTEN_MAX { LOOK_MS } else { 0 };
        self.look_at_limits_from(self.now.mono.plus_ms(wait_ms));
    }

    /// The same for all at once, lest replay of all records differ from that of those which were live.
    pub(super) fn forget_whole_limits_at_replay(&mut self) {
        while self.forget_whole_limit().is_some() {}
        self.look_at_limits_from(self.now.mono.plus_ms(LOOK_MS));
    }

    fn forget_whole_limit(&mut self) -> Option<()> {
        let dead = self.spent.forget_whole(self.now.wall)?;
        self.live.remove(dead);
        Some(())
    }

    fn look_at_limits_from(&mut self, at: Nanos) {
        if let Some((first, _)) = self.spent.by_time.first() {
            let at = self.now.mono_at(*first).max(at);
            self.timers.set_earlier(&mut self.spent.look_at, at, Due::Spent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(record: u64, full_at: u64) -> Entry {
        Entry { record: Lsn(record), full_at: UnixMs(full_at) }
    }

    /// As at [`limits::RATE_KEPT_MAX`].
    #[test]
    fn beyond_the_bound_the_limit_that_is_whole_first_gives_way() {
        let mut spent = Spent::new(2);
        let [a, b, c] = ["a", "b", "c"].map(|name| key(["", name], 0));
        assert_eq!(spent.note(&a, entry(1, 100)), None);
        assert_eq!(spent.note(&b, entry(2, 50)), None);
        assert!(!spent.takes(&c, UnixMs(50)), "it would give way itself");
        assert!(spent.takes(&c, UnixMs(51)));
        assert!(spent.takes(&b, UnixMs(1)), "what is known goes on");
        assert_eq!(spent.forget(&b), Some(Lsn(2)));
        assert_eq!(spent.note(&c, entry(3, 70)), None);
        assert_eq!(spent.note(&a, entry(4, 60)), Some(Lsn(1)), "the one before of the same");
        assert_eq!(spent.note(&a, entry(5, 60)), Some(Lsn(4)));
        assert_eq!(spent.forget_whole(UnixMs(59)), None);
        assert_eq!(spent.forget_whole(UnixMs(70)), Some(Lsn(5)));
        assert_eq!(spent.forget_whole(UnixMs(70)), Some(Lsn(3)));
        assert!(spent.entries.is_empty() && spent.by_time.is_empty());
    }

    #[test]
    fn an_account_is_no_client_of_that_name_and_a_limit_is_one_of_several() {
        let names = [["", "x"], ["x", ""], ["x", "y"], ["", "x\u{1}y"]];
        let keys: BTreeSet<Key> =
            names.into_iter().flat_map(|names| [key(names, 0), key(names, 16)]).collect();
        assert_eq!(keys.len(), 2 * names.len());
        for names in names {
            let (identity, _) = key(names, 0);
            let (account, client_id) = session::split_identity(&identity);
            assert_eq!([account, client_id], names);
        }
    }
}
