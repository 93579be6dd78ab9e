//! Latencies: recorded in nanoseconds to three digits, reported as the same few quantiles everywhere.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::report::{Curve, Outcome};

/// Latencies up to ten minutes; a longer one counts as that.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// The quantiles that a curve is drawn through, as "one in so many is slower": evenly spaced for a logarithmic axis.
const ONE_IN: [f64; 13] =
    [1.111, 1.25, 1.5, 2.0, 4.0, 10.0, 20.0, 50.0, 100.0, 200.0, 1_000.0, 2_000.0, 10_000.0];

/// How long things took.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

/// The names of the figures p50, p99, p99.9 and longest: figures have static names, because they are compared by name.
pub struct LatencyNames {
    pub p50: &'static str,
    pub p99: &'static str,
    pub p999: &'static str,
    pub longest: &'static str,
}

impl Latency {
    pub fn new() -> Result<Latency> {
        Ok(Latency(Histogram::new_with_max(LATENCY_NS_MAX, 3).context("a latency histogram")?))
    }

    /// From `due_ns` to `now_ns`; nothing if the clock of a batch was read before the message was due.
    pub fn record(&mut self, due_ns: u64, now_ns: u64) {
        self.0.saturating_record(now_ns.saturating_sub(due_ns));
    }

    /// Adds what another one recorded.
    pub fn merge(&mut self, other: &Latency) {
        // Both have the same bounds, so nothing can be out of range.
        self.0 += &other.0;
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this share of all did not exceed, in milliseconds; 0 if there were none.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e6
    }

    /// The longest, in milliseconds.
    pub fn longest_ms(&self) -> f64 {
        self.0.max() as f64 / 1e6
    }

    /// Adds the usual quantiles in milliseconds, if there was anything.
    pub fn report(&self, outcome: &mut Outcome, names: &LatencyNames) {
        if self.0.is_empty() {
            return;
        }
        outcome.add(names.p50, "ms", self.quantile_ms(0.5));
        outcome.add(names.p99, "ms", self.quantile_ms(0.99));
        outcome.add(names.p999, "ms", self.quantile_ms(0.999));
        outcome.add(names.longest, "ms", self.longest_ms());
    }

    /// The distribution as a curve: over "one in so many is slower", as far as there were that many.
    pub fn curve(&self, name: &'static str) -> Curve {
        let count = self.0.len() as f64;
        let point = |one_in: f64| (one_in, self.quantile_ms(1.0 - 1.0 / one_in));
        let points = ONE_IN.into_iter().filter(|one_in| *one_in <= count).map(point).collect();
        Curve { name, x: "one in so many is slower", y: "ms", logarithmic_x: true, points }
    }

    /// For a document: how many, and more quantiles than the figures.
    pub fn to_json(&self) -> Value {
        let quantiles = [0.1, 0.5, 0.9, 0.99, 0.999, 0.9999].map(|share| self.quantile_ms(share));
        json!({ "count": self.0.len(), "ms_p10_p50_p90_p99_p999_p9999": quantiles, "longest_ms": self.longest_ms() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_in_milliseconds_and_the_curve_ends_where_there_are_too_few() {
        let mut latency = Latency::new().unwrap();
        (1..=100).for_each(|ms| latency.record(5, 5 + ms * 1_000_000));
        assert!((latency.quantile_ms(0.5) - 50.0).abs() < 0.1 && (latency.longest_ms() - 100.0).abs() < 0.2);
        let curve = latency.curve("waits");
        assert_eq!(curve.points.last().map(|point| point.0), Some(100.0));
        assert!(curve.points.windows(2).all(|pair| pair[0].1 <= pair[1].1), "it never falls");
        let names = LatencyNames { p50: "p50", p99: "p99", p999: "p99.9", longest: "longest" };
        let mut outcome = Outcome::default();
        Latency::new().unwrap().report(&mut outcome, &names);
        assert!(outcome.figures.is_empty(), "nothing was measured");
        latency.report(&mut outcome, &names);
        assert!((outcome.figure("p99").unwrap() - 99.0).abs() < 0.2);
    }

    #[test]
    fn merged_latencies_are_those_of_both() {
        let (mut all, mut other) = (Latency::new().unwrap(), Latency::new().unwrap());
        all.record(0, 1_000_000);
        other.record(0, 9_000_000);
        all.merge(&other);
        assert_eq!(all.count(), 2);
        assert!((all.quantile_ms(0.5) - 1.0).abs() < 0.01 && (all.longest_ms() - 9.0).abs() < 0.01);
    }

    #[test]
    fn a_clock_read_before_the_message_was_due_is_no_wait() {
        let mut latency = Latency::new().unwrap();
        latency.record(9, 5);
        assert_eq!((latency.count(), latency.longest_ms()), (1, 0.0));
    }
}
