//! What is said on standard error while a run goes: lines, and on a terminal one line at the bottom that changes.
//!
//! Decides what is shown where. Without a terminal there are only the lines, as they always were, so that a log has no
//! half-drawn bars in it. On a terminal the last line says which step runs, for how long, and about how long the rest will take;
//! it is drawn once a second by a thread of its own, which runs where the load runs and takes some µs of it.
//!
//! `compare` says its steps with [`Steps`]; one run is [`Steps::single`]; whatever goes on below says lines with [`say`] and
//! phases with [`phase`], without knowing whether anybody shows them.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{FormattedDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::measure::clock;

/// How often the line is drawn anew while nothing happens: seconds are what it shows.
const REDRAW: Duration = Duration::from_secs(1);

/// Nothing is known about the rest yet.
const UNKNOWN: u64 = u64::MAX;

/// The line at the bottom, while there is one, and what it says before the phase.
static LINE: Mutex<Option<(ProgressBar, String)>> = Mutex::new(None);

/// Says a line, above the one at the bottom if there is one.
pub fn say(what: &str) {
    match line().as_ref() {
        Some((bar, _)) => bar.suspend(|| eprintln!("{what}")),
        None => eprintln!("{what}"),
    }
}

/// Says what the step that runs does now; only a terminal shows it.
pub fn phase(what: &str) {
    if let Some((bar, step)) = line().as_ref() {
        bar.set_message(format!("{step}: {what}"));
    }
}

fn line() -> MutexGuard<'static, Option<(ProgressBar, String)>> {
    LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Steps of several kinds, done one after the other; those of one kind take about as long as each other.
pub struct Steps {
    estimate: Estimate,
    start: Instant,
    /// Milliseconds after the start at which all is expected to be done.
    end_ms: Arc<AtomicU64>,
    running: Option<(usize, Instant)>,
}

impl Steps {
    /// `counts` has how many steps of each kind there are. Whoever pins this thread to a CPU does so before.
    pub fn begin(counts: &[usize]) -> Steps {
        let end_ms = Arc::new(AtomicU64::new(UNKNOWN));
        let estimate = Estimate::new(counts);
        if std::io::stderr().is_terminal() {
            let total: usize = counts.iter().sum();
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            bar.set_style(style(total, Arc::clone(&end_ms)));
            bar.enable_steady_tick(REDRAW);
            *line() = Some((bar, String::new()));
        }
        Steps { estimate, start: clock::now(), end_ms, running: None }
    }

    /// One run, without an estimate.
    pub fn single(name: &str) -> Steps {
        let mut steps = Steps::begin(&[1]);
        steps.show(name);
        steps.running = Some((0, clock::now()));
        steps
    }

    /// The step before is done, and this one, of kind `kind`, begins. Without a terminal it is a line of the log.
    pub fn next(&mut self, kind: usize, name: &str) {
        self.finish_running();
        self.running = Some((kind, clock::now()));
        let rest = self.estimate.rest();
        let end_ms = rest.map_or(UNKNOWN, |rest| (self.start.elapsed() + rest).as_millis() as u64);
        self.end_ms.store(end_ms, Ordering::Relaxed);
        if !self.show(name) {
            say(name);
        }
    }

    /// Puts it into the line at the bottom, if there is one.
    fn show(&self, name: &str) -> bool {
        let mut line = line();
        let Some((bar, step)) = line.as_mut() else { return false };
        bar.set_position(self.estimate.done() as u64);
        bar.set_message(name.to_owned());
        *step = name.to_owned();
        true
    }

    fn finish_running(&mut self) {
        if let Some((kind, since)) = self.running.take() {
            self.estimate.done_one(kind, since.elapsed());
        }
    }
}

impl Drop for Steps {
    /// Takes the line away: the result follows.
    fn drop(&mut self) {
        if let Some((bar, _)) = line().take() {
            bar.finish_and_clear();
        }
    }
}

/// What the line looks like; a single step has neither a bar nor an estimate.
fn style(total: usize, end_ms: Arc<AtomicU64>) -> ProgressStyle {
    let template = match total {
        1 => "{elapsed_precise}  {wide_msg}",
        _ => "{elapsed_precise} [{bar:20}] {pos}/{len}, {rest} left  {wide_msg}",
    };
    let rest = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = match end_ms.load(Ordering::Relaxed) {
            UNKNOWN => write!(out, "?"),
            end_ms => {
                let rest = Duration::from_millis(end_ms).saturating_sub(state.elapsed());
                write!(out, "{}", FormattedDuration(rest))
            }
        };
    };
    let style = ProgressStyle::with_template(template).expect("the template is one of the two above");
    style.with_key("rest", rest).progress_chars("=> ")
}

/// How long steps took, and so how long the rest will take.
struct Estimate {
    /// For each kind: how many there are, how many are done, and how long those took together.
    kinds: Vec<(usize, usize, Duration)>,
}

impl Estimate {
    fn new(counts: &[usize]) -> Estimate {
        Estimate { kinds: counts.iter().map(|count| (*count, 0, Duration::ZERO)).collect() }
    }

    fn done_one(&mut self, kind: usize, took: Duration) {
        let (_, done, sum) = &mut self.kinds[kind];
        *done += 1;
        *sum += took;
    }

    fn done(&self) -> usize {
        self.kinds.iter().map(|(_, done, _)| done).sum()
    }

    /// The mean of a kind for each of its steps that is not done; for a kind of which none is, the mean of all. Nothing is known before the first.
    fn rest(&self) -> Option<Duration> {
        let all: Duration = self.kinds.iter().map(|(_, _, sum)| *sum).sum();
        let mean = all.checked_div(u32::try_from(self.done()).ok()?)?;
        let rest = self.kinds.iter().map(|(count, done, sum)| {
            let each = sum.checked_div(*done as u32).unwrap_or(mean);
            each * count.saturating_sub(*done) as u32
        });
        Some(rest.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_estimated_by_kind_and_by_all_where_a_kind_is_new() {
        let seconds = Duration::from_secs;
        let mut estimate = Estimate::new(&[2, 3]);
        assert_eq!(estimate.rest(), None, "nothing is known");
        estimate.done_one(0, seconds(4));
        assert_eq!(estimate.rest(), Some(seconds(4 + 3 * 4)));
        estimate.done_one(0, seconds(6));
        assert_eq!(estimate.rest(), Some(seconds(3 * 5)));
        estimate.done_one(1, seconds(20));
        assert_eq!((estimate.rest(), estimate.done()), (Some(seconds(2 * 20)), 3));
    }

    #[test]
    fn both_lines_can_be_drawn() {
        // A template that is not understood would end a run at its beginning, and only on a terminal.
        let end_ms = Arc::new(AtomicU64::new(UNKNOWN));
        let _ = (style(1, Arc::clone(&end_ms)), style(12, end_ms));
    }
}
