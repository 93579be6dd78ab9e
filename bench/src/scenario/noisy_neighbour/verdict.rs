//! From the windows of one run to a verdict: did the noise move the latency of the well-behaved?
//!
//! Windows alternate quiet, noisy, quiet, … and end with a quiet one. A ratio is formed between neighbours, so that what
//! drifts over the run cancels, and the median of them counts. Against it stands what a quiet window differs from the
//! quiet one before: the greatest of these differences, because the quiet windows of one machine say how far latency
//! wanders by itself. The noise moved the latency if the median ratio is above 1 by more than that, and by more than
//! [`TOLERANCE`].
//!
//! A latency includes how late the generator itself was. Where that is half of it there is no verdict.

use crate::measure::slope::spread;

/// The least difference that counts.
pub const TOLERANCE: f64 = 0.2;

/// A generator whose own lateness is more than this share of the latency measures itself.
const LATE_SHARE_MAX: f64 = 0.5;

/// A latency of the windows in turn.
#[derive(Clone, Debug, Default)]
pub struct Alternation {
    /// One more than there are noisy ones.
    pub quiet: Vec<f64>,
    pub noisy: Vec<f64>,
}

/// What the windows say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Medians of the windows.
    pub quiet: f64,
    pub noisy: f64,
    /// Median, least and greatest of noisy to the quiet window before.
    pub ratio: (f64, f64, f64),
    /// The greatest difference of a quiet window from the one before: 0.3 is 30 % more, or as much less.
    pub spread: f64,
}

/// Whether the well-behaved were harmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Held,
    Moved,
    /// The generator was late itself.
    Undecided,
}

impl Alternation {
    /// `None` if a window had no message, or there is no window.
    pub fn verdict(&self) -> Option<Verdict> {
        if self.quiet.iter().chain(&self.noisy).any(|latency| *latency <= 0.0) {
            return None;
        }
        let ratios: Vec<f64> =
            self.noisy.iter().zip(&self.quiet).map(|(noisy, quiet)| noisy / quiet).collect();
        let wander = self.quiet.windows(2).map(|pair| {
            let ratio = pair[1] / pair[0];
            ratio.max(1.0 / ratio) - 1.0
        });
        Some(Verdict {
            quiet: spread(&self.quiet)?.0,
            noisy: spread(&self.noisy)?.0,
            ratio: spread(&ratios)?,
            spread: wander.fold(0.0, f64::max),
        })
    }
}

impl Verdict {
    /// How far above 1 the ratio may be.
    pub fn bound(&self) -> f64 {
        self.spread.max(TOLERANCE)
    }

    /// `late`: the generator's own lateness in the noisy windows, by the same quantile.
    pub fn finding(&self, late: f64) -> Finding {
        if self.ratio.0 <= 1.0 + self.bound() {
            Finding::Held
        } else if late > LATE_SHARE_MAX * self.noisy {
            Finding::Undecided
        } else {
            Finding::Moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(quiet: &[f64], noisy: &[f64]) -> Option<Verdict> {
        Alternation { quiet: quiet.to_vec(), noisy: noisy.to_vec() }.verdict()
    }

    #[test]
    fn a_drift_of_the_machine_is_not_the_noise() {
        // Everything becomes slower; each noisy window is as its neighbour.
        let verdict = verdict(&[1.0, 1.1, 1.2, 1.3], &[1.05, 1.1, 1.25]).unwrap();
        assert_eq!(verdict.finding(0.0), Finding::Held);
        assert!(verdict.spread < 0.11 && (verdict.bound() - TOLERANCE).abs() < 1e-9, "{verdict:?}");
    }

    #[test]
    fn twice_the_latency_is_moved_unless_quiet_windows_differ_as_much() {
        let steady = verdict(&[1.0, 1.0, 1.0, 1.0], &[2.0, 2.1, 1.9]).unwrap();
        assert_eq!((steady.ratio, steady.spread), ((2.0, 1.9, 2.1), 0.0));
        assert_eq!(steady.finding(0.1), Finding::Moved);
        let restless = verdict(&[1.0, 2.5, 1.0, 1.0], &[2.0, 2.1, 1.9]).unwrap();
        assert!((restless.spread - 1.5).abs() < 1e-9, "either way counts: {restless:?}");
        assert_eq!(restless.finding(0.1), Finding::Held);
    }

    #[test]
    fn the_median_decides_not_one_bad_window() {
        let one_bad = verdict(&[1.0, 1.0, 1.0, 1.0], &[1.1, 50.0, 1.1]).unwrap();
        assert_eq!(one_bad.finding(0.0), Finding::Held);
    }

    #[test]
    fn a_late_generator_decides_nothing_against_the_broker() {
        let moved = verdict(&[1.0, 1.0], &[3.0]).unwrap();
        assert_eq!(moved.finding(1.4), Finding::Moved);
        assert_eq!(moved.finding(1.6), Finding::Undecided);
        let held = verdict(&[1.0, 1.0], &[1.1]).unwrap();
        assert_eq!(held.finding(1.0), Finding::Held);
    }

    #[test]
    fn an_empty_window_has_no_verdict() {
        assert_eq!(verdict(&[1.0, 0.0], &[1.0]), None);
        assert_eq!(verdict(&[], &[]), None);
    }
}
