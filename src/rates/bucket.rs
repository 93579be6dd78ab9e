//! Whether somebody may take so much now, and if not, when: a token bucket in one number.
//!
//! This file decides by the generic cell rate algorithm, in the form that ITU-T I.371 calls virtual scheduling. It keeps no keys
//! (that is `buckets`), reads no clock and makes nobody wait.
//!
//! # The number
//!
//! The theoretical arrival time: when the bucket would be full if nothing more were taken. Taking `cost` tokens moves it by
//! the time that they take to come; that may leave it at most the time of a whole burst ahead. (In I.371 the tolerance comes on top
//! of the first cell; here the burst includes it.) What is before now means nothing but full, so 0 is a full bucket at any time,
//! nothing has to be refilled, and idle buckets cost nothing. A number of tokens with the time of its last refill would be two
//! numbers, and no atomic operation.
//!
//! # What holds
//!
//! - Takings that are granted in any span of time, its ends included, come to the burst plus what comes in that span, at most. The
//!   time that each costs is rounded up, and no rounding is in favour of who takes (`rate` says by how much).
//! - A refusal names the first moment at which the same would be granted, if nobody else takes in between.
//! - [`Bucket::take_with_debt`] is for what has happened already: a packet is read before its size is known. The bucket may go
//!   into debt, and whoever took waits until it is out of it. Debts of several who share a bucket add up, so that together they
//!   keep to the rate; so no call may forgive a debt by itself.
//! - At the end of time nothing more is granted, instead of everything.
//!
//! # Changing the rate
//!
//! A bucket goes on from the same number at another rate, so that reloading the configuration gives nobody a new burst. As it
//! cannot tell a debt from what a slower rate left behind, whoever changes the rate says so with [`Bucket::rate_changed`]; after
//! that nobody waits longer than the new burst takes to come, and the cost.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::rates::rate::Rate;
use crate::time::{Nanos, Now, UnixMs};

const NS_PER_MS: u64 = 1_000_000;

/// What one of many has taken of late. The default is full. It is not `Copy`, lest a copy be charged by mistake.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    /// The theoretical arrival time.
    tat: u64,
}

// There is one per client or address: a million of them are 8 MB.
const _: () = assert!(size_of::<Bucket>() == 8 && size_of::<SharedBucket>() == 8);

impl Bucket {
    /// One that will be full then if nothing more is taken.
    pub fn full_from(at: Nanos) -> Bucket {
        Bucket { tat: at.0 }
    }

    /// Takes `cost` tokens if they are there; else takes nothing and says when they will be: [`Nanos::NEVER`] if they are more
    /// than the burst. 0 tokens are always there.
    pub fn take(&mut self, rate: &Rate, cost: u64, now: Nanos) -> Result<(), Nanos> {
        let (tat, outcome) = take(self.tat, rate, cost, now);
        self.tat = tat;
        outcome
    }

    /// Takes `cost` tokens, whether they are there or not. If they were not, says when the bucket will be out of debt: who took
    /// them waits until then. 0 tokens are free, even of a bucket in debt.
    pub fn take_with_debt(&mut self, rate: &Rate, cost: u64, now: Nanos) -> Option<Nanos> {
        let (tat, debt) = take_with_debt(self.tat, rate, cost, now);
        self.tat = tat;
        debt
    }

    /// When it will be out of debt, if it is in debt.
    pub fn in_debt_until(&self, rate: &Rate, now: Nanos) -> Option<Nanos> {
        let until = Nanos(self.tat.saturating_sub(rate.burst_ns()));
        (until > now).then_some(until)
    }

    /// How many tokens are there: the most that [`Bucket::take`] grants now.
    pub fn available(&self, rate: &Rate, now: Nanos) -> u64 {
        let latest = now.0.saturating_add(rate.burst_ns());
        rate.tokens_in(latest.saturating_sub(self.tat.max(now.0)))
    }

    /// Whether it is as good as a new one, and may be forgotten.
    pub fn is_full(&self, now: Nanos) -> bool {
        self.tat <= now.0
    }

    /// When it will be full if nothing more is taken; some moment that has passed if it is.
    pub fn full_at(&self) -> Nanos {
        Nanos(self.tat)
    }

    /// From now on it is asked for at that rate. Forgives what would take longer to come than the new burst does.
    pub fn rate_changed(&mut self, rate: &Rate, now: Nanos) {
        self.tat = rate_changed(self.tat, rate, now);
    }

    /// What to write down to know it after a restart: when it will be full. `None` if it is.
    pub fn to_wall(&self, now: Now) -> Option<UnixMs> {
        let ns = self.tat.saturating_sub(now.mono.0);
        // One more, because the wall clock is read without its part of a millisecond, now and after the restart.
        let ms = ns.div_ceil(NS_PER_MS).saturating_add(1);
        (ns > 0).then_some(UnixMs(now.wall.0.saturating_add(ms)))
    }

    /// What [`Bucket::to_wall`] wrote down, less than 3 ms later than it was, so that a restart gives nobody a token. A wall clock
    /// that was set back in between locks nobody out for longer than the burst takes to come; so a debt is forgiven, which
    /// cannot be told from that.
    pub fn from_wall(full_at: UnixMs, now: Now, rate: &Rate) -> Bucket {
        let ms = now.wall.ms_until(full_at);
        if ms == 0 {
            return Bucket::default();
        }
        Bucket { tat: rate_changed(now.mono.plus_ms(ms).0, rate, now.mono) }
    }
}

/// The same for several threads: it decides as [`Bucket`] does, whoever comes first.
///
/// All orderings are relaxed: the number is all there is, and no other memory is read because of it. What is needed is that
/// each change goes on from the latest, and that is so for read-modify-write operations on one atomic at any ordering. Threads
/// may come with clocks read in another order: an earlier `now` is granted less, not more.
#[derive(Debug, Default)]
pub struct SharedBucket {
    tat: AtomicU64,
}

impl SharedBucket {
    /// See [`Bucket::take`].
    pub fn take(&self, rate: &Rate, cost: u64, now: Nanos) -> Result<(), Nanos> {
        self.change(|tat| take(tat, rate, cost, now))
    }

    /// See [`Bucket::take_with_debt`].
    pub fn take_with_debt(&self, rate: &Rate, cost: u64, now: Nanos) -> Option<Nanos> {
        self.change(|tat| take_with_debt(tat, rate, cost, now))
    }

    /// See [`Bucket::rate_changed`].
    pub fn rate_changed(&self, rate: &Rate, now: Nanos) {
        self.change(|tat| (rate_changed(tat, rate, now), ()));
    }

    /// As it is at the moment, to look at or to write down.
    pub fn to_bucket(&self) -> Bucket {
        Bucket { tat: self.tat.load(Ordering::Relaxed) }
    }

    fn change<T>(&self, change: impl Fn(u64) -> (u64, T)) -> T {
        let mut before = self.tat.load(Ordering::Relaxed);
        loop {
            let (after, outcome) = change(before);
            // A refusal writes nothing, so a flood of them does not take the cache line from the other cores.
            if after == before {
                return outcome;
            }
            match self.tat.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return outcome,
                Err(latest) => before = latest,
            }
        }
    }
}

impl From<Bucket> for SharedBucket {
    fn from(bucket: Bucket) -> SharedBucket {
        SharedBucket { tat: AtomicU64::new(bucket.tat) }
    }
}

/// What taking would do.
struct Decision {
    /// The theoretical arrival time afterwards.
    tat: u64,
    /// Since when, or from when on, it is within the burst.
    within_burst_from: Nanos,
}

/// The algorithm. `None` where time ends.
fn decide(tat: u64, now: Nanos, cost: u64, rate: &Rate) -> Option<Decision> {
    let tat = tat.max(now.0).checked_add(rate.ns_for(cost))?;
    Some(Decision { tat, within_burst_from: Nanos(tat.saturating_sub(rate.burst_ns())) })
}

fn take(tat: u64, rate: &Rate, cost: u64, now: Nanos) -> (u64, Result<(), Nanos>) {
    if cost == 0 {
        return (tat, Ok(()));
    }
    if cost > rate.burst() {
        return (tat, Err(Nanos::NEVER));
    }
    match decide(tat, now, cost, rate) {
        None => (tat, Err(Nanos::NEVER)),
        Some(decision) if decision.within_burst_from > now => (tat, Err(decision.within_burst_from)),
        Some(decision) => (decision.tat, Ok(())),
    }
}

fn take_with_debt(tat: u64, rate: &Rate, cost: u64, now: Nanos) -> (u64, Option<Nanos>) {
    if cost == 0 {
        return (tat, None);
    }
    match decide(tat, now, cost, rate) {
        None => (u64::MAX, Some(Nanos::NEVER)),
        Some(Decision { tat, within_burst_from }) => {
            (tat, (within_burst_from > now).then_some(within_burst_from))
        }
    }
}

fn rate_changed(tat: u64, rate: &Rate, now: Nanos) -> u64 {
    tat.min(now.0.saturating_add(rate.burst_ns()))
}
