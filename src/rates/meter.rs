//! One shard's end of the limits: who pays for what, and what was in excess.
//!
//! Buckets of clients and accounts are here alone, because all of an account's connections are; the others are [`Shared`]. Of those that
//! outlive a restart it says when they have to be written down ([`Marks`]); writing is the caller's business, at once, with the
//! names: here they are hashes under a key that the next process does not have. Called by the shard.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Bucket, Buckets, Excess, Marks, Rate, SCOPES, Scope, Shared, WHATS, What};
use crate::limits::{RATE_KEPT_MAX, RATE_QUIET_MS, RATE_WHO_MAX};
use crate::time::{Nanos, Now, UnixMs};

/// Whose buckets a connection pays from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Who {
    client: u64,
    account: u64,
    address: Option<u64>,
    listener: u32,
}

/// There was not enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exceeded {
    /// Of what.
    pub what: What,
    /// In which scope; the one that takes longest.
    pub scope: Scope,
    /// When there is.
    pub until: Nanos,
}

/// The bucket of whoever paid last is used up further than is written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passed {
    /// Whose: a client's or an account's.
    pub scope: Scope,
    /// Of what.
    pub what: What,
    /// Its mark: it is full then.
    pub mark: Nanos,
}

/// What one scope has of one limit.
#[derive(Debug)]
struct Own {
    buckets: Buckets,
    /// None if nothing of it outlives a restart.
    marks: Option<Marks>,
}

impl Own {
    fn new(rate: &Rate) -> Own {
        Own { buckets: Buckets::new(RATE_WHO_MAX), marks: Marks::new(rate, RATE_KEPT_MAX) }
    }

    /// The bucket has been taken from: what of it is to be written down.
    fn pass(&mut self, key: u64, now: Nanos) -> Option<Nanos> {
        let marks = self.marks.as_mut()?;
        marks.pass(key, self.buckets.get(key).full_at(), now)
    }
}

/// See the module documentation.
#[derive(Debug)]
pub struct Meter {
    shared: Arc<Shared>,
    /// Of each limit that clients have, and that accounts have: a table is for one rate.
    own: [[Option<Own>; WHATS.len()]; 2],
    passed: Vec<Passed>,
    limited: [bool; WHATS.len()],
    counts: [u64; WHATS.len()],
    quiet_until: [[Nanos; SCOPES.len()]; WHATS.len()],
}

impl Meter {
    /// With nothing used up of its own.
    pub fn new(shared: Arc<Shared>) -> Meter {
        Meter {
            own: [Scope::Client, Scope::Account].map(|scope| {
                let limits = shared.rates().by_scope[scope as usize];
                limits.map(|limit| limit.as_ref().map(Own::new))
            }),
            passed: Vec::new(),
            limited: WHATS.map(|what| shared.rates().limit(what)),
            counts: [0; WHATS.len()],
            quiet_until: [[Nanos(0); SCOPES.len()]; WHATS.len()],
            shared,
        }
    }

    /// Whether anybody is limited in that.
    pub fn limits(&self, what: What) -> bool {
        self.limited[what as usize]
    }

    /// Whether anybody who is connected is limited in something.
    pub fn watches(&self) -> bool {
        [What::Publishes, What::Bytes, What::Subscriptions].into_iter().any(|what| self.limits(what))
    }

    /// What happens to who publishes too fast.
    pub fn excess(&self) -> Excess {
        self.shared.rates().excess
    }

    /// Who that is. Where the account is empty, the client id is the account.
    pub fn who(&self, account: &str, client_id: &str, address: IpAddr, listener: u32) -> Who {
        Who {
            client: self.shared.name([account, client_id]),
            account: self.shared.name([account_of(account, client_id), ""]),
            address: self.shared.address(address),
            listener,
        }
    }

    /// Pays for something that a stranger does, of whom nothing is known but from where it comes.
    pub fn stranger_pays(
        &mut self,
        what: What,
        address: IpAddr,
        listener: u32,
        now: Nanos,
    ) -> Result<(), Exceeded> {
        if !self.limits(what) {
            return Ok(());
        }
        let from = (self.shared.address(address), listener);
        for scope in [Scope::Address, Scope::Listener, Scope::Global] {
            if let Err(until) = self.shared.take(scope, what, from, 1, now) {
                return Err(self.exceeded(what, scope, until));
            }
        }
        Ok(())
    }

    /// The same with a wait, which is at most until `latest`: says until when.
    pub fn stranger_waits(
        &mut self,
        what: What,
        address: IpAddr,
        listener: u32,
        (now, latest): (Nanos, Nanos),
    ) -> Result<Option<Exceeded>, Exceeded> {
        match self.stranger_pays(what, address, listener, now) {
            Ok(()) => Ok(None),
            Err(exceeded) if exceeded.until > latest => Err(exceeded),
            Err(mut exceeded) => {
                // Its place in line: what it owes, those behind it wait for, too.
                let from = (self.shared.address(address), listener);
                let wider = SCOPES.into_iter().skip_while(|scope| *scope != exceeded.scope);
                for scope in wider {
                    let until = self.shared.take_with_debt(scope, what, from, 1, now);
                    exceeded.until = exceeded.until.max(until.unwrap_or_default());
                }
                Ok(Some(exceeded))
            }
        }
    }

    /// Pays for that many, if there are enough for all of them in every scope.
    pub fn pays(&mut self, what: What, who: &Who, cost: u64, now: Nanos) -> Result<(), Exceeded> {
        self.pays_in(&SCOPES, what, who, cost, now)
    }

    /// Pays for a connection, of which the wider scopes were paid for when it was a stranger's.
    pub fn connects(&mut self, who: &Who, now: Nanos) -> Result<(), Exceeded> {
        self.pays_in(&[Scope::Client, Scope::Account], What::Connects, who, 1, now)
    }

    fn pays_in(
        &mut self,
        scopes: &[Scope],
        what: What,
        who: &Who,
        cost: u64,
        now: Nanos,
    ) -> Result<(), Exceeded> {
        if !self.limits(what) {
            return Ok(());
        }
        for &scope in scopes {
            let paid = match self.own(scope, what, who) {
                Some((rate, own, key)) => {
                    let paid = own.buckets.take(key, &rate, cost, now);
                    let mark = if paid.is_ok() { own.pass(key, now) } else { None };
                    self.note(scope, what, mark);
                    paid
                }
                None if scope <= Scope::Account => Ok(()),
                None => self.shared.take(scope, what, (who.address, who.listener), cost, now),
            };
            if let Err(until) = paid {
                return Err(self.exceeded(what, scope, until));
            }
        }
        Ok(())
    }

    /// Pays for what has happened already; says until when nothing more may.
    pub fn owes(&mut self, what: What, who: &Who, cost: u64, now: Nanos) -> Option<Exceeded> {
        if !self.limits(what) {
            return None;
        }
        let mut longest: Option<(Nanos, Scope)> = None;
        for scope in SCOPES {
            let until = match self.own(scope, what, who) {
                Some((rate, own, key)) => {
                    let until = own.buckets.take_with_debt(key, &rate, cost, now);
                    let mark = own.pass(key, now);
                    self.note(scope, what, mark);
                    until
                }
                None if scope <= Scope::Account => None,
                None => self.shared.take_with_debt(scope, what, (who.address, who.listener), cost, now),
            };
            if let Some(until) = until
                && longest.is_none_or(|(longest, _)| until > longest)
            {
                longest = Some((until, scope));
            }
        }
        longest.map(|(until, scope)| self.exceeded(what, scope, until))
    }

    /// What a scope that is this shard's alone has for somebody, if it limits that.
    fn own(&mut self, scope: Scope, what: What, who: &Who) -> Option<(Rate, &mut Own, u64)> {
        let key = match scope {
            Scope::Client => who.client,
            Scope::Account => who.account,
            _ => return None,
        };
        let own = self.own[scope as usize][what as usize].as_mut()?;
        Some((self.shared.rates().by_scope[scope as usize][what as usize]?, own, key))
    }

    fn note(&mut self, scope: Scope, what: What, mark: Option<Nanos>) {
        self.passed.extend(mark.map(|mark| Passed { scope, what, mark }));
    }

    /// Whether whoever paid last has to be written down.
    pub fn has_passed(&self) -> bool {
        !self.passed.is_empty()
    }

    /// What of it, once.
    pub fn take_passed(&mut self) -> Vec<Passed> {
        std::mem::take(&mut self.passed)
    }

    /// What was written down of somebody before a restart, under the names that it was written down with.
    pub fn resume(
        &mut self,
        (scope, what): (Scope, What),
        [account, client_id]: [&str; 2],
        full_at: UnixMs,
        now: Now,
    ) {
        let key = self.shared.name([account, client_id]);
        let who = Who { client: key, account: key, address: None, listener: 0 };
        let Some((rate, own, key)) = self.own(scope, what, &who) else { return };
        let bucket = Bucket::from_wall(full_at, now, &rate);
        if bucket.is_full(now.mono) {
            return;
        }
        // Its mark is that, too: whatever it takes goes beyond.
        own.buckets.put(key, bucket);
    }

    /// How often each limit was exceeded since start, in the order of [`WHATS`].
    pub fn counts(&self) -> [u64; WHATS.len()] {
        self.counts
    }

    /// Whether to write about that in the log: not what was written about a moment ago.
    pub fn is_news(&mut self, exceeded: &Exceeded, now: Nanos) -> bool {
        let quiet_until = &mut self.quiet_until[exceeded.what as usize][exceeded.scope as usize];
        let is_news = *quiet_until <= now;
        if is_news {
            *quiet_until = now.plus_ms(RATE_QUIET_MS);
        }
        is_news
    }

    fn exceeded(&mut self, what: What, scope: Scope, until: Nanos) -> Exceeded {
        self.counts[what as usize] += 1;
        Exceeded { what, scope, until }
    }
}

impl Passed {
    /// The names that it is written down with: account and client id. An account's has no client id.
    pub fn names<'a>(&self, account: &'a str, client_id: &'a str) -> [&'a str; 2] {
        match self.scope {
            Scope::Account => [account_of(account, client_id), ""],
            _ => [account, client_id],
        }
    }

    /// The mark as it is written down.
    pub fn full_at(&self, now: Now) -> UnixMs {
        Bucket::full_from(self.mark).to_wall(now).unwrap_or(now.wall)
    }
}

/// Where the account is empty, the client id is the account.
fn account_of<'a>(account: &'a str, client_id: &'a str) -> &'a str {
    if account.is_empty() { client_id } else { account }
}

#[cfg(test)]
mod tests;
