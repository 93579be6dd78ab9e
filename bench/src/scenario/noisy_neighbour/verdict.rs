//! From the windows of one run to a verdict: did the noise move the latency of the well-behaved?
//!
//! Windows alternate quiet, noisy, quiet, … and end with a quiet one. A ratio is formed between neighbours, so that what
//! drifts over the run cancels, and the median of them counts. Against it stands how far quiet windows differ from each
//! other: what three of four of them do not exceed as a difference from their median. Not the greatest, because one
//! hiccup of a shared machine would then excuse any noise. The noise moved the latency if the median ratio is above 1 by
//! more than that, and by more than [`TOLERANCE`].
//!
//! A latency includes how late the generator itself was. Where that is half of the noisy latency nothing was shown to
//! move, and where it is half of the quiet one nothing was shown to hold: there is no verdict.

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
    /// What three of four quiet windows differ from their median at most: 0.3 is 30 % more, or as much less.
    pub spread: f64,
    /// The greatest such difference.
    pub spread_greatest: f64,
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
        let quiet = spread(&self.quiet)?.0;
        let mut differences: Vec<f64> =
            self.quiet.iter().map(|latency| (latency / quiet).max(quiet / latency) - 1.0).collect();
        differences.sort_by(f64::total_cmp);
        let third_quarter = (differences.len() * 3).div_ceil(4).max(1) - 1;
        Some(Verdict {
            quiet,
            noisy: spread(&self.noisy)?.0,
            ratio: spread(&ratios)?,
            spread: differences[third_quarter],
            spread_greatest: *differences.last()?,
        })
    }
}

impl Verdict {
    /// How far above 1 the ratio may be.
    pub fn bound(&self) -> f64 {
        self.spread.max(TOLERANCE)
    }

    /// With the generator's own lateness in quiet and in noisy windows, by the same quantile.
    pub fn finding(&self, quiet_late: f64, noisy_late: f64) -> Finding {
        let (finding, late, latency) = match self.ratio.0 <= 1.0 + self.bound() {
            true => (Finding::Held, quiet_late, self.quiet),
            false => (Finding::Moved, noisy_late, self.noisy),
        };
        if late > LATE_SHARE_MAX * latency { Finding::Undecided } else { finding }
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
        assert_eq!(verdict.finding(0.0, 0.0), Finding::Held);
        assert!(verdict.spread < 0.2 && (verdict.bound() - TOLERANCE).abs() < 1e-9, "{verdict:?}");
    }

    #[test]
    fn twice_the_latency_is_moved_unless_quiet_windows_differ_as_much() {
        let steady = verdict(&[1.0, 1.0, 1.0, 1.0], &[2.0, 2.1, 1.9]).unwrap();
        assert_eq!((steady.ratio, steady.spread), ((2.0, 1.9, 2.1), 0.0));
        assert_eq!(steady.finding(0.1, 0.1), Finding::Moved);
        let restless = verdict(&[1.0, 4.0, 1.0, 4.0], &[2.0, 2.1, 3.9]).unwrap();
        assert!((restless.spread - 1.5).abs() < 1e-9, "either way counts: {restless:?}");
        assert_eq!(restless.finding(0.1, 0.1), Finding::Held);
    }

    #[test]
    fn neither_one_bad_noisy_window_nor_one_bad_quiet_one_decides() {
        let noisy = verdict(&[1.0, 1.0, 1.0, 1.0], &[1.1, 50.0, 1.1]).unwrap();
        assert_eq!(noisy.finding(0.0, 0.0), Finding::Held);
        let quiet = verdict(&[1.0, 1.0, 50.0, 1.0], &[20.0, 20.0, 20.0]).unwrap();
        assert_eq!((quiet.finding(0.0, 0.0), quiet.spread_greatest), (Finding::Moved, 49.0));
    }

    #[test]
    fn a_late_generator_decides_nothing() {
        let moved = verdict(&[1.0, 1.0], &[3.0]).unwrap();
        assert_eq!(moved.finding(0.9, 1.4), Finding::Moved, "had it been in time it were even more");
        assert_eq!(moved.finding(0.0, 1.6), Finding::Undecided);
        let held = verdict(&[1.0, 1.0], &[1.1]).unwrap();
        assert_eq!(held.finding(0.4, 1.0), Finding::Held);
        assert_eq!(held.finding(0.6, 0.0), Finding::Undecided, "the noise had nothing to be seen beside");
    }

    #[test]
    fn an_empty_window_has_no_verdict() {
        assert_eq!(verdict(&[1.0, 0.0], &[1.0]), None);
        assert_eq!(verdict(&[], &[]), None);
    }
}
