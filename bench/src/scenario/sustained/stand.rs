//! When something stood still that a run of `sustained` depends on, and that is not the broker.
//!
//! A [`Stand`] remembers when the generator's own loop was not there for longer than [`LONG_NS`]: it never rests longer
//! than until the next message is due. A [`CpuWatch`] reads every 20 ms how long the server's threads were ready to run
//! while something else had their CPU; where that is at least half of the time, they were starved. (A thread that only
//! naps on the same CPU does not notice: who sleeps much is let in at once.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::measure::clock;
use crate::measure::process;

/// An absence of the generator that is remembered.
const LONG_NS: u64 = 10_000_000;

/// So many spans are kept; a run with more of them says nothing anyway.
const SPANS_MAX: usize = 1_000_000;

/// Between two looks at the server.
const PAUSE: Duration = Duration::from_millis(20);

/// When its owner was away.
#[derive(Clone, Debug, Default)]
pub struct Stand {
    seen_ns: Option<u64>,
    pub spans: Vec<(u64, u64)>,
}

impl Stand {
    /// The owner is there.
    pub fn is_here(&mut self, now_ns: u64) {
        if let Some(seen_ns) = self.seen_ns
            && now_ns > seen_ns + LONG_NS
            && self.spans.len() < SPANS_MAX
        {
            self.spans.push((seen_ns, now_ns));
        }
        self.seen_ns = Some(now_ns);
    }
}

/// When a process was starved, from what it had waited by each look.
#[derive(Debug, Default)]
struct Starved {
    seen: Option<(u64, f64)>,
    spans: Vec<(u64, u64)>,
}

impl Starved {
    fn look(&mut self, now_ns: u64, waited_us: f64) {
        if let Some((seen_ns, seen_us)) = self.seen {
            let starved = (waited_us - seen_us) * 1e3 * 2.0 >= (now_ns - seen_ns) as f64;
            let room = self.spans.len() < SPANS_MAX;
            match self.spans.last_mut() {
                Some((_, end_ns)) if starved && *end_ns == seen_ns => *end_ns = now_ns,
                _ if starved && room => self.spans.push((seen_ns, now_ns)),
                _ => {}
            }
        }
        self.seen = Some((now_ns, waited_us));
    }
}

/// Watches whether a process gets the CPU that it is ready for.
pub struct CpuWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Starved>>>,
}

impl CpuWatch {
    /// Begins. Times count from `start`.
    pub fn start(pid: u32, start: Instant) -> Result<CpuWatch> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread_stop = Arc::clone(&stop);
        let run = move || {
            let mut starved = Starved::default();
            while !thread_stop.load(Ordering::Relaxed) {
                let waited_us = process::kept_waiting_us(pid)?;
                starved.look((clock::now() - start).as_nanos() as u64, waited_us);
                clock::pause(PAUSE);
            }
            Ok(starved)
        };
        let thread = std::thread::Builder::new().name("cpu-watch".into()).spawn(run)?;
        Ok(CpuWatch { stop, thread: Some(thread) })
    }

    /// When it was starved, in nanoseconds since the start.
    pub fn finish(mut self) -> Result<Vec<(u64, u64)>> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(Vec::new()) };
        let starved = thread.join().map_err(|_| anyhow::anyhow!("the watch on the server panicked"))?;
        Ok(starved?.spans)
    }
}

impl Drop for CpuWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn only_a_long_absence_is_remembered() {
        let mut stand = Stand::default();
        [500, 509, 530, 531].into_iter().for_each(|at| stand.is_here(at * MS));
        assert_eq!(stand.spans, [(509 * MS, 530 * MS)]);
    }

    #[test]
    fn a_process_is_starved_while_it_waits_half_of_the_time() {
        let mut starved = Starved::default();
        for (at_ms, waited_ms) in [(0, 70.0), (20, 79.0), (40, 89.0), (60, 106.0), (80, 107.0), (100, 117.0)]
        {
            starved.look(at_ms * MS, waited_ms * 1e3);
        }
        assert_eq!(starved.spans, [(20 * MS, 60 * MS), (80 * MS, 100 * MS)]);
    }

    #[test]
    fn a_watch_ends_when_it_is_told_to() {
        let watch = CpuWatch::start(std::process::id(), clock::now()).unwrap();
        assert!(watch.finish().is_ok());
    }
}
