//! When the next message is due: an open loop, in which message `n` is due at `n / rate` whatever happened before it.
//!
//! A closed loop sends late when the broker is slow, and so never sees how slow it was (coordinated omission). Here a
//! latency counts from when its message was due. A generator that is itself too busy to send in time would measure
//! itself: past [`BUSY_SHARE_MAX`] of a core such a run is no result.

use std::time::{Duration, Instant};

use crate::measure::clock;
use crate::measure::meter::Interval;
use crate::report::Outcome;

/// A generator that is busier than this, as a share of one core, invalidates the latencies of an open loop: queueing
/// for its own time (1 / (1 - share)) is then five times the service time, and no longer negligible.
pub const BUSY_SHARE_MAX: f64 = 0.8;

/// A steady pace from its start on.
#[derive(Clone, Debug)]
pub struct Pace {
    start: Instant,
    /// So many in each period.
    count: u64,
    period_ns: u64,
    /// How many have been taken.
    pub taken: u64,
}

impl Pace {
    /// So many per second (at least one), from now on.
    pub fn new(rate: u64) -> Pace {
        Pace::per(rate, Duration::from_secs(1))
    }

    /// So many (at least one) in each period, from now on: a pace below one a second, too.
    pub fn per(count: u64, period: Duration) -> Pace {
        Pace { start: clock::now(), count: count.max(1), period_ns: period.as_nanos() as u64, taken: 0 }
    }

    /// When message 0 was due.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// When message `number` is due, in nanoseconds since the start.
    pub fn due_ns(&self, number: u64) -> u64 {
        (u128::from(number) * u128::from(self.period_ns) / u128::from(self.count)) as u64
    }

    /// Takes the next message if it is due at `now_ns`: its number, and when it was due.
    pub fn take(&mut self, now_ns: u64) -> Option<(u64, u64)> {
        let due_ns = self.due_ns(self.taken);
        if due_ns > now_ns {
            return None;
        }
        self.taken += 1;
        Some((self.taken - 1, due_ns))
    }

    /// How long to wait for the next one; no longer than `most`.
    pub fn wait(&self, most: Duration) -> Duration {
        let due_ns = self.due_ns(self.taken);
        Duration::from_nanos(due_ns.saturating_sub(self.now_ns())).min(most)
    }
}

/// Fails the run if the generator was too busy for its latencies to be the broker's.
pub fn check_generator(outcome: &mut Outcome, interval: &Interval) {
    if interval.generator_share > BUSY_SHARE_MAX {
        outcome.failures.push(format!(
            "invalid: the generator was {:.0} % busy, more than {:.0} % of a core, so the latencies are its own",
            100.0 * interval.generator_share,
            100.0 * BUSY_SHARE_MAX
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_at_the_pace_whatever_was_taken_when() {
        let mut pace = Pace::new(1_000);
        assert_eq!(pace.take(0), Some((0, 0)));
        assert_eq!(pace.take(999_999), None);
        // Late by two messages: both come at once, each with its own time.
        assert_eq!(pace.take(2_000_000), Some((1, 1_000_000)));
        assert_eq!(pace.take(2_000_000), Some((2, 2_000_000)));
        assert_eq!(pace.take(2_000_000), None);
        assert_eq!(Pace::new(3).due_ns(3_000_000_000), 1_000_000_000_000_000_000, "no overflow in decades");
        assert_eq!(Pace::per(4, Duration::from_secs(10)).due_ns(3), 7_500_000_000);
        assert!(pace.wait(Duration::from_micros(7)) <= Duration::from_micros(7));
    }

    #[test]
    fn a_saturated_generator_fails_the_run() {
        let interval =
            |generator_share| Interval { wall: Duration::from_secs(1), server: None, generator_share };
        let mut outcome = Outcome::default();
        check_generator(&mut outcome, &interval(0.8));
        assert!(outcome.failures.is_empty());
        check_generator(&mut outcome, &interval(0.81));
        assert_eq!(outcome.failures.len(), 1);
    }
}
