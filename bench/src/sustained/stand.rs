//! When something stood still that a run of `sustained` depends on, and that is not the broker.
//!
//! A [`Stand`] remembers when its owner was not there for longer than [`LONG_NS`]. The generator has one for its own loop,
//! which never rests longer than until the next message is due. A [`CpuWatch`] is a thread that does nothing but wake up
//! every few milliseconds on the CPU that it is put on: when it is not woken in time, nothing else was there either, as
//! when a virtual machine loses its core. It costs that CPU about a tenth of a percent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::clock;
use crate::process;

/// An absence that is remembered.
const LONG_NS: u64 = 10_000_000;

/// So many are; a run with more of them says nothing anyway.
const SPANS_MAX: usize = 1_000_000;

/// How long a [`CpuWatch`] sleeps.
const NAP: Duration = Duration::from_millis(4);

/// When its owner was away.
#[derive(Clone, Debug, Default)]
pub struct Stand {
    seen_ns: Option<u64>,
    pub spans: Vec<(u64, u64)>,
}

impl Stand {
    /// The owner is there, and was to be for `expected_ns` after the last time.
    pub fn is_here(&mut self, now_ns: u64, expected_ns: u64) {
        if let Some(seen_ns) = self.seen_ns
            && now_ns > seen_ns + expected_ns + LONG_NS
            && self.spans.len() < SPANS_MAX
        {
            self.spans.push((seen_ns + expected_ns, now_ns));
        }
        self.seen_ns = Some(now_ns);
    }
}

/// Watches a CPU.
pub struct CpuWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Stand>>>,
}

impl CpuWatch {
    /// Begins. Times count from `start`.
    pub fn start(cpu: usize, start: Instant) -> Result<CpuWatch> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread_stop = Arc::clone(&stop);
        let run = move || {
            process::pin_to(cpu)?;
            let mut stand = Stand::default();
            while !thread_stop.load(Ordering::Relaxed) {
                stand.is_here((clock::now() - start).as_nanos() as u64, NAP.as_nanos() as u64);
                clock::pause(NAP);
            }
            Ok(stand)
        };
        let thread = std::thread::Builder::new().name("cpu-watch".into()).spawn(run)?;
        Ok(CpuWatch { stop, thread: Some(thread) })
    }

    /// When the CPU was not there.
    pub fn finish(mut self) -> Result<Vec<(u64, u64)>> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(Vec::new()) };
        let stand = thread.join().map_err(|_| anyhow::anyhow!("the watch on the server's CPU panicked"))?;
        Ok(stand?.spans)
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

    #[test]
    fn only_an_absence_that_is_long_and_not_expected_is_remembered() {
        let ms = 1_000_000;
        let mut stand = Stand::default();
        stand.is_here(500 * ms, 0);
        stand.is_here(509 * ms, 0);
        stand.is_here(530 * ms, 4 * ms);
        stand.is_here(560 * ms, 25 * ms);
        assert_eq!(stand.spans, [(513 * ms, 530 * ms)]);
    }

    #[test]
    fn a_watch_ends_when_it_is_told_to() {
        let watch = CpuWatch::start(0, clock::now()).unwrap();
        assert!(watch.finish().is_ok());
    }
}
