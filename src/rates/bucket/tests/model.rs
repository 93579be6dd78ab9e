//! A bucket that is counted exactly, spans of time that are counted naively, and what to try them with.

use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::select;

use crate::limits::RATE_TOKEN_WHOLE_NS_MIN;
use crate::rates::rate::Rate;
use crate::time::Nanos;

/// A level that rises all the time: in tokens times nanoseconds of the rate's unit, so there are no fractions.
pub struct Exact {
    rate: Rate,
    level: u128,
}

impl Exact {
    pub fn new(rate: &Rate) -> Exact {
        Exact { rate: *rate, level: Exact::scaled(rate, rate.burst()) }
    }

    fn scaled(rate: &Rate, tokens: u64) -> u128 {
        u128::from(tokens) * u128::from(rate.per().0)
    }

    pub fn pass(&mut self, ns: u64) {
        let risen = self.level + u128::from(ns) * u128::from(self.rate.tokens());
        self.level = risen.min(Exact::scaled(&self.rate, self.rate.burst()));
    }

    pub fn has(&self, tokens: u64) -> bool {
        self.level >= Exact::scaled(&self.rate, tokens)
    }

    /// Whether it has them, and would have had them already so many nanoseconds ago.
    pub fn would_have(&self, tokens: u64, late_ns: u128) -> bool {
        self.level >= Exact::scaled(&self.rate, tokens) + late_ns * u128::from(self.rate.tokens())
    }

    pub fn take(&mut self, tokens: u64) {
        self.level -= Exact::scaled(&self.rate, tokens);
    }
}

/// What a call may cost too much, in whole nanoseconds and rounded up: as `rate` says.
pub fn slack_ns(rate: &Rate, cost: u64) -> u128 {
    let whole_bursts = u128::from(cost / rate.burst());
    if rate.per().0 / rate.tokens() >= RATE_TOKEN_WHOLE_NS_MIN { cost.into() } else { 2 + whole_bursts }
}

/// The first span, from one of these to another, in which there is more than the burst and what comes.
pub fn excess(rate: &Rate, granted: &[(Nanos, u64)]) -> Option<(Nanos, Nanos)> {
    granted.iter().enumerate().find_map(|(first, (from, _))| {
        let mut sum = 0_u128;
        granted[first..].iter().find_map(|(to, cost)| {
            sum += u128::from(*cost);
            let comes = u128::from(to.0 - from.0) * u128::from(rate.tokens());
            let bound = u128::from(rate.burst()) * u128::from(rate.per().0) + comes;
            (sum * u128::from(rate.per().0) > bound).then_some((*from, *to))
        })
    })
}

/// Slow and fast ones, where a burst takes from a microsecond to a week, with all kinds of remainders.
pub fn rates() -> impl Strategy<Value = Rate> {
    let seconds = select(vec![1, 10, 60, 3_600, 86_400_u64]);
    let tokens = prop_oneof![
        1..=30_u64,
        1..=200_000_u64,
        // About one in a nanosecond, where all is rounding.
        100_000_000..=9_000_000_000_u64,
        any::<u64>().prop_map(|bits| 1 + (bits >> 24)),
    ];
    let burst = prop_oneof![
        3 => 1..=30_u64,
        3 => 100..=20_000_u64,
        1 => any::<u64>().prop_map(|bits| 1 + (bits >> 24)),
    ];
    (tokens, seconds, burst).prop_filter_map("beyond a bound", |(tokens, seconds, burst)| {
        Rate::new(tokens, Nanos(seconds * 1_000_000_000), burst)
    })
}

/// How much is taken, for any rate.
#[derive(Clone, Copy, Debug)]
pub enum Cost {
    Few(u64),
    /// In thousandths of the burst.
    Part(u64),
    /// A burst and so many.
    Burst(u64),
}

impl Cost {
    pub fn of(self, rate: &Rate) -> u64 {
        match self {
            Cost::Few(tokens) => tokens,
            Cost::Part(part) => (u128::from(rate.burst()) * u128::from(part)).div_ceil(1_000) as u64,
            Cost::Burst(beyond) => rate.burst() + beyond,
        }
    }
}

/// Up to so many bursts.
pub fn costs(bursts_max: u64) -> impl Strategy<Value = Cost> {
    prop_oneof![
        4 => (0..5_u64).prop_map(Cost::Few),
        4 => (0..=1_000 * bursts_max).prop_map(Cost::Part),
        1 => (0..=1_u64).prop_map(Cost::Burst),
    ]
}

/// How long it is until the next call.
#[derive(Clone, Copy, Debug)]
pub enum Pause {
    Ns(u64),
    /// In thousandths of what the burst takes to come.
    Part(u64),
    /// Until the moment that the last refusal named, or one nanosecond before it.
    Told {
        too_early: bool,
    },
}

impl Pause {
    pub fn end(self, now: Nanos, when: Nanos, rate: &Rate) -> Nanos {
        match self {
            Pause::Ns(ns) => Nanos(now.0 + ns),
            Pause::Part(part) => {
                Nanos(now.0 + (u128::from(rate.burst_ns()) * u128::from(part) / 1_000) as u64)
            }
            Pause::Told { .. } if when == Nanos::NEVER => now,
            Pause::Told { too_early } => now.max(Nanos(when.0 - u64::from(too_early))),
        }
    }
}

/// A pause, and what is taken after it.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub pause: Pause,
    pub cost: Cost,
}

pub fn steps(count: Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![
        4 => (0..4_u64).prop_map(Pause::Ns),
        2 => (0..=500_u64).prop_map(Pause::Part),
        1 => (0..=2_000_u64).prop_map(Pause::Part),
        3 => any::<bool>().prop_map(|too_early| Pause::Told { too_early }),
    ];
    prop::collection::vec((pause, costs(1)).prop_map(|(pause, cost)| Step { pause, cost }), count)
}
