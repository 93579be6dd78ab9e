//! Whether a run was flat: what that means in numbers, and the judgement.
//!
//! A series is fitted with a straight line by least squares over the settled part of the run, which is its last two
//! thirds: in the first, queues and the journal grow to their size. The growth is how much that line rises over the
//! part, relative to the mean of the series there. Flat is a growth of at most `growth_max_percent` (5 by default), or of
//! one step of what grows in steps: a journal of whole segments may have one more than before (a line through one step rises
//! by up to one and a half). To sink is no fault. Least squares, because one high sample at an end must not decide.
//!
//! Write amplification has a bound of its own besides: reclaim may copy at most what was appended, so appended and
//! copied bytes together are at most twice the appended.

use serde_json::{Value, json};

use crate::measure::slope::least_squares;

/// By reclaim's rule: nothing is copied out of a segment of which more than half is live.
pub const RECLAIM_AMPLIFICATION_MAX: f64 = 2.0;

/// The part of a run from which on it counts as settled.
pub const SETTLED_FROM: f64 = 1.0 / 3.0;

/// Samples that a line is fitted to, at least: below, nothing can be said.
const SAMPLES_MIN: usize = 8;

/// A series, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Trend {
    pub name: &'static str,
    pub mean: f64,
    /// How much the fitted line rises over the settled part, in percent of the mean.
    pub growth_percent: f64,
    pub growth_max_percent: f64,
    /// In what steps it grows; 0 if in none.
    pub step: f64,
}

impl Trend {
    /// The trend of points (seconds, value); `None` if there are too few, or nothing to relate to.
    pub fn of(
        name: &'static str,
        points: &[(f64, f64)],
        growth_max_percent: f64,
        step: f64,
    ) -> Option<Trend> {
        if points.len() < SAMPLES_MIN {
            return None;
        }
        let line = least_squares(points)?;
        let mean = points.iter().map(|point| point.1).sum::<f64>() / points.len() as f64;
        let span = points.last()?.0 - points.first()?.0;
        let growth_percent = 100.0 * line.slope * span / mean;
        (mean > 0.0).then_some(Trend { name, mean, growth_percent, growth_max_percent, step })
    }

    pub fn is_flat(&self) -> bool {
        let rise = self.growth_percent * self.mean / 100.0;
        self.growth_percent <= self.growth_max_percent || rise <= 1.5 * self.step
    }

    /// What is wrong with it.
    pub fn failure(&self) -> Option<String> {
        let Trend { name, growth_percent, growth_max_percent, .. } = self;
        (!self.is_flat()).then(|| {
            format!(
                "not flat: {name} grew by {growth_percent:.1} % over the settled part, more than {growth_max_percent} %"
            )
        })
    }

    pub fn to_json(&self) -> Value {
        json!({
            "series": self.name, "mean": self.mean, "growth_percent": self.growth_percent,
            "growth_max_percent": self.growth_max_percent, "step": self.step, "flat": self.is_flat(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(value: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        (0..=100).map(|at| (f64::from(at) * 24.0, value(f64::from(at) / 100.0))).collect()
    }

    #[test]
    fn growth_is_what_the_line_rises_relative_to_the_mean() {
        let trend = Trend::of("disk", &points(|share| 1e9 * (0.97 + 0.06 * share)), 5.0, 0.0).unwrap();
        assert!((trend.growth_percent - 6.0).abs() < 1e-6 && !trend.is_flat(), "{trend:?}");
        assert!(trend.failure().unwrap().contains("disk grew by 6.0 %"));
        let trend = Trend::of("disk", &points(|share| 1e9 * (0.98 + 0.04 * share)), 5.0, 0.0).unwrap();
        assert!(trend.is_flat() && trend.failure().is_none(), "{trend:?}");
    }

    #[test]
    fn one_step_of_what_grows_in_steps_is_flat_and_two_are_not() {
        let one = points(|share| if share < 0.2 { 900.0 } else { 967.0 });
        assert!(!Trend::of("disk", &one, 5.0, 0.0).unwrap().is_flat());
        assert!(Trend::of("disk", &one, 5.0, 67.1).unwrap().is_flat());
        let halfway = points(|share| if share < 0.5 { 900.0 } else { 967.0 });
        assert!(Trend::of("disk", &halfway, 5.0, 67.1).unwrap().is_flat());
        let two = points(|share| 900.0 + 67.0 * ((share >= 0.2) as u8 + (share >= 0.8) as u8) as f64);
        assert!(!Trend::of("disk", &two, 5.0, 67.1).unwrap().is_flat());
    }

    #[test]
    fn a_saw_is_flat_and_so_is_what_sinks() {
        let saw = points(|share| if ((share * 100.0) as u32).is_multiple_of(2) { 90.0 } else { 110.0 });
        assert!(Trend::of("saw", &saw, 5.0, 0.0).unwrap().is_flat());
        let sinking = Trend::of("rss", &points(|share| 2.0 - share), 5.0, 0.0).unwrap();
        assert!(sinking.growth_percent < -60.0 && sinking.is_flat(), "{sinking:?}");
    }

    #[test]
    fn one_high_sample_at_the_end_does_not_decide() {
        let spike = points(|share| if share == 1.0 { 150.0 } else { 100.0 });
        let trend = Trend::of("disk", &spike, 5.0, 0.0).unwrap();
        assert!(trend.growth_percent > 2.0 && trend.is_flat(), "{trend:?}");
    }

    #[test]
    fn nothing_is_said_of_a_few_samples_or_of_zeros() {
        assert_eq!(Trend::of("x", &points(|_| 1.0)[..7], 5.0, 0.0), None);
        assert_eq!(Trend::of("x", &points(|_| 0.0), 5.0, 0.0), None);
    }
}
