//! How much per how long, with a burst: what a setting says, and what so many tokens cost in time.
//!
//! This file decides which rates there are, how they are written, and how they are rounded. It takes nothing from anybody: that
//! is `bucket`. A token is a message, a connection, a byte: whatever the setting counts.
//!
//! # The text
//!
//! `100/s`, `30/min`, `500/h`, `10_000/day`, `5/10s`; of bytes `64KiB/s`, with KiB, MiB or GiB; and a burst, `100/s burst 500`.
//! Without one the burst is what comes in one unit of time. `{}` writes plain numbers and `{:#}` sizes; both are read back as
//! the same rate.
//!
//! # Rounding
//!
//! Time is counted in whole nanoseconds, and every rounding is towards slower. What is kept to is not `tokens / per` but
//! `burst / burst_ns`, which is at most that: so a whole burst costs a whole number of nanoseconds, and a full bucket has exactly
//! the burst that was asked for.
//! - Where a token comes every [`RATE_TOKEN_WHOLE_NS_MIN`] or less often, each costs whole nanoseconds. So `30/s` lets 30 through
//!   at once, one by one, and not 29. That makes it slower by less than 1 ns per token, at most a ten-thousandth.
//! - Else a whole burst costs up to 1 ns more than it should, at most a thousandth by [`RATE_BURST_NS_MIN`], and each taking less
//!   than 1 ns more on top. So a taking of no more than the burst costs less than 2 ns too much.
//!
//! Invariants: nothing in a rate is 0, and it keeps the bounds below.

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use crate::limits::{
    RATE_BURST_NS_MAX, RATE_BURST_NS_MIN, RATE_PER_NS_MAX, RATE_PER_NS_MIN, RATE_TOKEN_WHOLE_NS_MIN,
    RATE_TOKENS_MAX,
};
use crate::time::Nanos;

const NS_PER_S: u64 = 1_000_000_000;

/// So many tokens per unit of time, and how many at once. See the module documentation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    tokens: u64,
    per: Nanos,
    burst: u64,
    /// How long the burst takes to come.
    burst_ns: u64,
}

impl Rate {
    /// `None` if something is 0 or beyond its bound, or `per` is not a whole number of seconds.
    pub fn new(tokens: u64, per: Nanos, burst: u64) -> Option<Rate> {
        Rate::check(tokens, per, burst).ok()
    }

    /// How many come in [`Rate::per`].
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// In how long [`Rate::tokens`] come.
    pub fn per(&self) -> Nanos {
        self.per
    }

    /// How many there are at most at once.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// How long a whole burst takes to come, in nanoseconds.
    pub fn burst_ns(&self) -> u64 {
        self.burst_ns
    }

    /// How long so many tokens take to come, in nanoseconds, rounded up. Not 0 for more than none.
    pub fn ns_for(&self, tokens: u64) -> u64 {
        let scaled = u128::from(tokens) * u128::from(self.burst_ns);
        u64::try_from(scaled.div_ceil(u128::from(self.burst))).unwrap_or(u64::MAX)
    }

    /// How many tokens come in so many nanoseconds: the most for which [`Rate::ns_for`] is not longer.
    pub fn tokens_in(&self, ns: u64) -> u64 {
        let scaled = u128::from(ns) * u128::from(self.burst);
        u64::try_from(scaled / u128::from(self.burst_ns)).unwrap_or(u64::MAX)
    }

    fn check(tokens: u64, per: Nanos, burst: u64) -> Result<Rate, RateError> {
        if tokens == 0 || per.0 == 0 || burst == 0 {
            return Err(RateError::Zero);
        }
        if tokens > RATE_TOKENS_MAX {
            return Err(RateError::TooMuch);
        }
        if per.0 < RATE_PER_NS_MIN || per.0 > RATE_PER_NS_MAX || !per.0.is_multiple_of(NS_PER_S) {
            return Err(RateError::Per);
        }
        // The bounds are those of the exact time: rounding must not refuse `7/day burst 49`.
        let scaled = u128::from(burst) * u128::from(per.0);
        if scaled > u128::from(RATE_BURST_NS_MAX) * u128::from(tokens) {
            return Err(RateError::BurstTooLong);
        }
        if scaled < u128::from(RATE_BURST_NS_MIN) * u128::from(tokens) {
            return Err(RateError::BurstTooShort);
        }
        let burst_ns = if per.0 / tokens >= RATE_TOKEN_WHOLE_NS_MIN {
            u128::from(burst) * u128::from(per.0.div_ceil(tokens))
        } else {
            scaled.div_ceil(u128::from(tokens))
        };
        let burst_ns = u64::try_from(burst_ns).expect("rounding at most doubles RATE_BURST_NS_MAX");
        Ok(Rate { tokens, per, burst, burst_ns })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_amount(formatter, self.tokens)?;
        let seconds = self.per.0 / NS_PER_S;
        let largest = UNITS.iter().rev().find(|(_, unit_s)| seconds.is_multiple_of(*unit_s));
        let (name, unit_s) = largest.expect("every number of seconds is a multiple of one");
        match seconds / unit_s {
            1 => write!(formatter, "/{name}")?,
            count => write!(formatter, "/{count}{name}")?,
        }
        if self.burst != self.tokens {
            formatter.write_str(" burst ")?;
            write_amount(formatter, self.burst)?;
        }
        Ok(())
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Rate, RateError> {
        let mut words = text.split_ascii_whitespace();
        let (flow, burst) = match (words.next(), words.next(), words.next(), words.next()) {
            (Some(flow), None, None, None) => (flow, None),
            (Some(flow), Some("burst"), Some(burst), None) => (flow, Some(burst)),
            _ => return Err(RateError::Form),
        };
        let (tokens, per) = flow.split_once('/').ok_or(RateError::Form)?;
        let tokens = read_amount(tokens)?;
        let per = read_unit(per)?;
        Rate::check(tokens, per, burst.map_or(Ok(tokens), read_amount)?)
    }
}

/// Why something is no rate. The text says how it should look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RateError {
    /// It is put together wrongly.
    Form,
    /// An amount is no number.
    Amount,
    /// There is no such unit of time.
    Unit,
    /// Nothing would ever get through.
    Zero,
    /// More than [`RATE_TOKENS_MAX`], or than can be counted.
    TooMuch,
    /// Not from a second to a day, or not whole seconds.
    Per,
    /// The burst takes longer than [`RATE_BURST_NS_MAX`] to come.
    BurstTooLong,
    /// The burst comes faster than in [`RATE_BURST_NS_MIN`].
    BurstTooShort,
}

impl fmt::Display for RateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            RateError::Form => {
                "a rate is an amount per unit of time, and a burst if there is one: `100/s`, `30/min burst 60`, \
                 `64KiB/s burst 1MiB`"
            }
            RateError::Amount => {
                "an amount is a whole number, followed by KiB, MiB or GiB if it is of bytes: `100`, `10_000`, `64KiB`"
            }
            RateError::Unit => "the unit of time is `s`, `min`, `h`, `day` or a number of these: `100/s`, `5/10s`",
            RateError::Zero => "0 would let nothing through, ever: the least is `1/day`",
            RateError::TooMuch => "an amount is at most 1024GiB per unit of time, or 1_099_511_627_776",
            RateError::Per => "the unit of time is 1 s to 1 day: for less, ask for a smaller burst, `100/s burst 1`",
            RateError::BurstTooLong => {
                "the burst would take more than 7 days to come: ask for a smaller one, `1/day burst 7`"
            }
            RateError::BurstTooShort => {
                "the burst would come in less than a microsecond: ask for a larger one, `1GiB/s burst 64KiB`"
            }
        })
    }
}

impl std::error::Error for RateError {}

/// Each in seconds, the longest last.
const UNITS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 60 * 60), ("day", 24 * 60 * 60)];

/// Each in bytes, the largest last.
const SIZES: [(&str, u64); 4] = [("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A plain number, or a size in the alternate form.
fn write_amount(formatter: &mut fmt::Formatter<'_>, amount: u64) -> fmt::Result {
    let fits = |size: &&(&str, u64)| size.1 == 1 || formatter.alternate() && amount.is_multiple_of(size.1);
    let (name, size) = SIZES.iter().rev().find(fits).expect("1 fits");
    write!(formatter, "{}{name}", amount / size)
}

fn read_amount(text: &str) -> Result<u64, RateError> {
    let (number, name) = split_number(text);
    let (_, size) = SIZES.iter().find(|size| size.0 == name).ok_or(RateError::Amount)?;
    read_number(number)?.checked_mul(*size).ok_or(RateError::TooMuch)
}

fn read_unit(text: &str) -> Result<Nanos, RateError> {
    let (count, name) = split_number(text);
    let (_, unit_s) = UNITS.iter().find(|unit| unit.0 == name).ok_or(RateError::Unit)?;
    let count = if count.is_empty() { 1 } else { read_number(count)? };
    let seconds = count.checked_mul(*unit_s).ok_or(RateError::Per)?;
    seconds.checked_mul(NS_PER_S).map(Nanos).ok_or(RateError::Per)
}

/// Digits and `_` in front, and what follows them.
fn split_number(text: &str) -> (&str, &str) {
    let is_other = |byte: char| !byte.is_ascii_digit() && byte != '_';
    text.split_at(text.find(is_other).unwrap_or(text.len()))
}

/// Digits, with single `_` between them.
fn read_number(text: &str) -> Result<u64, RateError> {
    if text.split('_').any(str::is_empty) {
        return Err(RateError::Amount);
    }
    text.bytes().filter(u8::is_ascii_digit).try_fold(0_u64, |number, digit| {
        let number = number.checked_mul(10).ok_or(RateError::TooMuch)?;
        number.checked_add(u64::from(digit - b'0')).ok_or(RateError::TooMuch)
    })
}
