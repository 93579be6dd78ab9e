//! Who tries wrong credentials waits: by where the attempts come from, and by the account they are made at.
//!
//! This file decides whether an attempt may be made now. It checks no credentials, reads no clock and knows no connection:
//! `now_ms` is milliseconds of a clock that should not go back. Called by `access` in front of a check, which is expensive, and
//! with its verdict. One per process; nothing of it survives a restart.
//!
//! # The policy
//!
//! By source (an IPv4 address, or the first 64 bits of an IPv6 one, which is what one customer has at least):
//! - The first 5 failures in a row are free. After the next one the source waits for 1 s, and twice as long with each, 60 s at
//!   most. A person who mistypes notices nothing; a search gets one attempt a minute.
//! - Failures are forgotten after 10 minutes without one.
//! - A success takes back the failures of that source at that account and no others: else an attacker would log in to an account
//!   of their own after every fifth guess.
//! - A Unix socket is no source: whoever reaches it was let in by the file system, and has no address to be told apart by.
//!
//! By account, because an attacker may have many addresses, and must not lock the owner out:
//! - After 20 failures, from wherever, strangers get one attempt per second: whoever asks first.
//! - A source that succeeded with the account in the last 30 days is no stranger. It waits for nobody, neither for those who
//!   attack the account nor for others at its own address (one broken device behind a carrier's NAT), as long as its own
//!   failures at the account are free ones. What that gives to an attacker at the same address: 6 guesses per log-in of the
//!   owner.
//!
//! An attempt without a verdict is pending. A free source has 16 of them at most and an account 64 (an attacker who tries in
//! parallel gains so many, once); when waits are counted, the attempt itself takes its turn. One without a verdict after 30 s
//! counts no more.
//!
//! So `n` sources get, in `t` seconds, at one account each `n · (6 + waits(t))` attempts through, where `waits(t)` is how many of
//! 1, 2, 4, 8, 16, 32, 60, 60… s have passed one after the other: 6 after 63 s, then one a minute; and all of them at one account
//! `20 + t`. In parallel: 15 more per source, 63 per account. A test asserts it.
//!
//! # The bound
//!
//! Peers choose the keys, so entries are found by a keyed hash (SipHash-1-3), and there are
//! [`limits::BACK_OFF_ENTRIES_MAX`] of each kind. Which is forgotten when they are full is said in `counts`. A flood from more
//! sources than that is beyond what counting by source can stop, however it is done; the accounts stay guarded.

mod counts;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::hash::ByNumber;
use crate::limits;
use counts::{Counts, Entry};

/// Failures and successes of late. See the module documentation.
pub struct BackOff {
    key: [u8; 16],
    sources: Counts,
    accounts: Counts,
    /// Of a source at an account: what a success takes back.
    pairs: Counts,
    familiar: Familiar,
}

impl fmt::Debug for BackOff {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("BackOff");
        shown.field("sources", &self.sources.len()).field("accounts", &self.accounts.len());
        shown.field("pairs", &self.pairs.len()).finish_non_exhaustive()
    }
}

/// Under which an attempt is counted.
#[derive(Clone, Copy)]
struct Keys {
    source: Option<u64>,
    account: u64,
    pair: u64,
}

impl BackOff {
    /// Nobody has failed yet. `key` is random and secret.
    pub fn new(key: [u8; 16]) -> BackOff {
        let counts = |inherits| Counts::new(limits::BACK_OFF_ENTRIES_MAX, inherits);
        BackOff {
            key,
            sources: counts(true),
            accounts: counts(true),
            // What was never failed must not be taken back.
            pairs: counts(false),
            familiar: Familiar::default(),
        }
    }

    /// Whether an attempt may be made now; else in how many milliseconds it is worth trying again. After `Ok`, one of
    /// [`BackOff::failed`], [`BackOff::succeeded`] and [`BackOff::undecided`] follows. `source` is `None` for a Unix socket.
    pub fn may_try(&mut self, source: Option<IpAddr>, account: &str, now_ms: u64) -> Result<(), u64> {
        let keys = self.keys(source, account);
        let pair = self.pairs.look(keys.pair, now_ms);
        let is_stranger = !self.familiar.contains(keys.pair, now_ms)
            || source_wait_ms(pair.failures) > 0
            || pair.pending >= limits::BACK_OFF_SOURCE_PENDING_MAX;
        if is_stranger {
            let by_source = keys.source.map_or(0, |key| {
                let entry = self.sources.look(key, now_ms);
                wait_ms(&entry, source_wait_ms(entry.failures), limits::BACK_OFF_SOURCE_PENDING_MAX, now_ms)
            });
            let entry = self.accounts.look(keys.account, now_ms);
            let by_account = wait_ms(
                &entry,
                account_wait_ms(entry.failures),
                limits::BACK_OFF_ACCOUNT_PENDING_MAX,
                now_ms,
            );
            let wait_ms = by_source.max(by_account);
            if wait_ms > 0 {
                return Err(wait_ms);
            }
        }
        // Who is no stranger takes no stranger's turn.
        for (counts, key) in self.counted(keys) {
            counts.begin(key, is_stranger, now_ms);
        }
        Ok(())
    }

    /// The credentials were wrong.
    pub fn failed(&mut self, source: Option<IpAddr>, account: &str, now_ms: u64) {
        let keys = self.keys(source, account);
        for (counts, key) in self.counted(keys) {
            counts.fail(key, now_ms);
        }
    }

    /// They were right.
    pub fn succeeded(&mut self, source: Option<IpAddr>, account: &str, now_ms: u64) {
        let keys = self.keys(source, account);
        let own = self.pairs.look(keys.pair, now_ms).failures;
        for (counts, key) in self.counted(keys) {
            counts.settle(key, own, now_ms);
        }
        self.familiar.insert(keys.pair, now_ms);
    }

    /// There was no verdict, and none will come: what checks credentials was out of order, or the peer left.
    pub fn undecided(&mut self, source: Option<IpAddr>, account: &str, now_ms: u64) {
        let keys = self.keys(source, account);
        for (counts, key) in self.counted(keys) {
            counts.settle(key, 0, now_ms);
        }
    }

    fn counted(&mut self, keys: Keys) -> impl Iterator<Item = (&mut Counts, u64)> {
        let source = keys.source.map(|key| (&mut self.sources, key));
        [(&mut self.accounts, keys.account), (&mut self.pairs, keys.pair)].into_iter().chain(source)
    }

    fn keys(&self, source: Option<IpAddr>, account: &str) -> Keys {
        // How many bytes of an address follow is said, so no two keys of one kind are the same bytes.
        let (network, length) = match source.map(|source| source.to_canonical()) {
            None => (0, 0),
            Some(IpAddr::V4(source)) => (u64::from(source.to_bits()), 4),
            Some(IpAddr::V6(source)) => ((source.to_bits() >> 64) as u64, 8),
        };
        let hash = |kind: u8, network: u64, length: u8, account: &str| {
            let mut hasher = SipHasher13::new_with_key(&self.key);
            hasher.write(&[kind, length]);
            hasher.write(&network.to_le_bytes());
            hasher.write(account.as_bytes());
            hasher.finish()
        };
        Keys {
            source: source.map(|_| hash(b's', network, length, "")),
            account: hash(b'a', 0, 0, account),
            pair: hash(b'p', network, length, account),
        }
    }
}

/// What so many failures of a source cost.
fn source_wait_ms(failures: u32) -> u64 {
    match failures.checked_sub(limits::BACK_OFF_SOURCE_FREE + 1) {
        None => 0,
        Some(doublings) => limits::BACK_OFF_SOURCE_FIRST_MS
            .saturating_mul(1_u64.checked_shl(doublings).unwrap_or(u64::MAX))
            .min(limits::BACK_OFF_SOURCE_MS_MAX),
    }
}

/// What so many failures at an account cost strangers.
fn account_wait_ms(failures: u32) -> u64 {
    if failures < limits::BACK_OFF_ACCOUNT_FREE { 0 } else { limits::BACK_OFF_ACCOUNT_MS }
}

fn wait_ms(entry: &Entry, cost_ms: u64, pending_max: u16, now_ms: u64) -> u64 {
    if cost_ms > 0 {
        entry.failed_ms.max(entry.tried_ms).saturating_add(cost_ms).saturating_sub(now_ms)
    } else if entry.pending >= pending_max {
        limits::BACK_OFF_PENDING_MS
    } else {
        0
    }
}

/// Pairs that succeeded, and when. The one whose success is longest ago goes when there are too many.
#[derive(Default)]
struct Familiar {
    at_ms: ByNumber<u64, u64>,
    by_age: BTreeSet<(u64, u64)>,
}

impl Familiar {
    fn contains(&self, pair: u64, now_ms: u64) -> bool {
        let at_ms = self.at_ms.get(&pair);
        at_ms.is_some_and(|at_ms| now_ms.saturating_sub(*at_ms) < limits::BACK_OFF_FAMILIAR_MS)
    }

    fn insert(&mut self, pair: u64, now_ms: u64) {
        if let Some(before_ms) = self.at_ms.insert(pair, now_ms) {
            self.by_age.remove(&(before_ms, pair));
        }
        self.by_age.insert((now_ms, pair));
        if self.at_ms.len() > limits::BACK_OFF_ENTRIES_MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.at_ms.remove(&oldest);
        }
    }
}
