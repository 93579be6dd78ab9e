//! What the disk does by itself: how long a sync takes, how much goes through, and what a directory takes up.
//!
//! Decides how these are measured: on a file that was written full before, with `pwrite` and `fdatasync`, which is what
//! a journal that recycles its segments does. [`survey`] measures a disk that is left alone meanwhile; a [`Probe`] is a
//! file beside a broker at work, overwritten and synced at a low rate, so that a slow disk can be told from a slow broker.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::measure::clock;

const MEBIBYTE: usize = 1 << 20;

/// Syncs take up to a minute, in nanoseconds, to three digits.
const SYNC_NS_MAX: u64 = 60_000_000_000;

/// A file of zeros that is there for the time of a measurement.
struct Scratch {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Scratch {
    fn create(directory: &Path, mebibytes: usize) -> Result<Scratch> {
        let path = directory.join(format!("ironpost-bench-scratch-{}", std::process::id()));
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let scratch = Scratch { file, path, bytes: (mebibytes * MEBIBYTE) as u64 };
        let zeros = vec![0; MEBIBYTE];
        (0..mebibytes).try_for_each(|index| scratch.file.write_all_at(&zeros, (index * MEBIBYTE) as u64))?;
        scratch.file.sync_all().context("syncing a scratch file")?;
        Ok(scratch)
    }

    /// Overwrites the block there, wrapping at the end, and syncs.
    fn overwrite(&self, block: &[u8], index: u64) -> Result<()> {
        let blocks = self.bytes / block.len() as u64;
        self.file.write_all_at(block, index % blocks * block.len() as u64)?;
        self.file.sync_data().context("syncing a scratch file")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is a file of zeros with a telling name.
        let _ = fs::remove_file(&self.path);
    }
}

/// Overwriting a block and syncing it, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overwrite {
    pub block_bytes: f64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// What a disk does when it is left alone.
#[derive(Clone, Debug)]
pub struct Survey {
    /// By size of the block, ascending.
    pub overwrites: Vec<Overwrite>,
    /// Overwriting in pieces of 1 MiB with one sync at the end.
    pub sequential_bytes_per_s: f64,
}

/// Blocks that are tried, and how often: the larger ones less often, so that all take about as long.
const BLOCKS: [(usize, u64); 5] =
    [(4 << 10, 400), (16 << 10, 400), (64 << 10, 300), (256 << 10, 150), (1 << 20, 80)];

/// Size of the file that is overwritten, in MiB: a few journal segments.
const SURVEY_MEBIBYTES: usize = 256;

/// Measures the disk below `directory`.
pub fn survey(directory: &Path) -> Result<Survey> {
    let scratch = Scratch::create(directory, SURVEY_MEBIBYTES)?;
    let mut overwrites = Vec::new();
    for (bytes, count) in BLOCKS {
        let block = vec![0x5a; bytes];
        let mut took_ns = Histogram::<u64>::new_with_max(SYNC_NS_MAX, 3)?;
        for index in 0..count {
            let begin = clock::now();
            scratch.overwrite(&block, index)?;
            took_ns.saturating_record((clock::now() - begin).as_nanos() as u64);
        }
        let at_ms = |quantile| took_ns.value_at_quantile(quantile) as f64 / 1e6;
        let (block_bytes, mean_ms) = (bytes as f64, took_ns.mean() / 1e6);
        overwrites.push(Overwrite { block_bytes, mean_ms, p50_ms: at_ms(0.5), p99_ms: at_ms(0.99) });
    }
    let piece = vec![0xa5; MEBIBYTE];
    let begin = clock::now();
    (0..SURVEY_MEBIBYTES)
        .try_for_each(|index| scratch.file.write_all_at(&piece, (index * MEBIBYTE) as u64))?;
    scratch.file.sync_data()?;
    let seconds = (clock::now() - begin).as_secs_f64();
    Ok(Survey { overwrites, sequential_bytes_per_s: scratch.bytes as f64 / seconds.max(1e-9) })
}

impl Survey {
    /// How long overwriting and syncing a block of that size takes on average: between the sizes that were measured on a
    /// straight line, and beyond the largest in proportion.
    pub fn overwrite_ms(&self, block_bytes: f64) -> f64 {
        let Some(first) = self.overwrites.first() else { return f64::NAN };
        let mut below = *first;
        for above in &self.overwrites {
            if block_bytes <= above.block_bytes {
                let span = (above.block_bytes - below.block_bytes).max(1.0);
                let share = ((block_bytes - below.block_bytes) / span).max(0.0);
                return below.mean_ms + share * (above.mean_ms - below.mean_ms);
            }
            below = *above;
        }
        below.mean_ms * block_bytes / below.block_bytes
    }

    pub fn to_json(&self) -> Value {
        let overwrite = |one: &Overwrite| json!({ "block_bytes": one.block_bytes, "mean_ms": one.mean_ms, "p50_ms": one.p50_ms, "p99_ms": one.p99_ms });
        json!({
            "overwrite_and_fdatasync": self.overwrites.iter().map(overwrite).collect::<Vec<_>>(),
            "sequential_bytes_per_s": self.sequential_bytes_per_s,
        })
    }
}

/// Bytes that the files below `directory` take up on the disk.
pub fn allocated_bytes(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        // A file that is removed meanwhile takes up nothing.
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else { continue };
        sum += metadata.blocks() * 512;
        if metadata.is_dir() {
            sum += allocated_bytes(&entry.path())?;
        }
    }
    Ok(sum)
}

/// A sync that took this long counts as slow: [`Probe`] keeps when it was.
pub const SLOW_NS: u64 = 20_000_000;

/// So many slow syncs are kept, an hour of nothing else.
const SLOW_MAX: usize = 200_000;

/// How long the syncs of a [`Probe`] took.
#[derive(Clone, Debug)]
pub struct Syncs {
    /// Since it was last asked.
    recent_ns: Histogram<u64>,
    pub whole_ns: Histogram<u64>,
    /// When slow ones began and ended, in nanoseconds.
    pub slow: Vec<(u64, u64)>,
}

/// A thread that overwrites 4 KiB and syncs them, again and again.
pub struct Probe {
    log: Arc<Mutex<Syncs>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Probe {
    /// Begins below `directory`, with a pause between two syncs. Times count from `start`.
    pub fn start(directory: &Path, pause: Duration, start: Instant) -> Result<Probe> {
        let scratch = Scratch::create(directory, 1)?;
        let histogram = || Histogram::<u64>::new_with_max(SYNC_NS_MAX, 3);
        let log = Syncs { recent_ns: histogram()?, whole_ns: histogram()?, slow: Vec::new() };
        let (log, stop) = (Arc::new(Mutex::new(log)), Arc::new(AtomicBool::new(false)));
        let (thread_log, thread_stop) = (Arc::clone(&log), Arc::clone(&stop));
        let run = move || {
            let block = vec![0x5a; 4 << 10];
            let mut index = 0;
            while !thread_stop.load(Ordering::Relaxed) {
                let begin = clock::now();
                scratch.overwrite(&block, index)?;
                index += 1;
                let (begin_ns, end_ns) =
                    ((begin - start).as_nanos() as u64, (clock::now() - start).as_nanos() as u64);
                let mut log = thread_log.lock().unwrap_or_else(PoisonError::into_inner);
                log.recent_ns.saturating_record(end_ns - begin_ns);
                log.whole_ns.saturating_record(end_ns - begin_ns);
                if end_ns - begin_ns >= SLOW_NS && log.slow.len() < SLOW_MAX {
                    log.slow.push((begin_ns, end_ns));
                }
                drop(log);
                clock::pause(pause);
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("disk-probe".into()).spawn(run)?;
        Ok(Probe { log, stop, thread: Some(thread) })
    }

    /// How long syncs have taken since this was last asked.
    pub fn take_recent_ns(&self) -> Histogram<u64> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let recent_ns = log.recent_ns.clone();
        log.recent_ns.reset();
        recent_ns
    }

    /// How long they took, and when slow ones began and ended.
    pub fn finish(mut self) -> Result<Syncs> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the probe of the disk panicked"))??;
        }
        Ok(self.log.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_sizes_a_sync_takes_what_the_line_between_them_says() {
        let overwrite =
            |block_bytes, mean_ms| Overwrite { block_bytes, mean_ms, p50_ms: mean_ms, p99_ms: mean_ms };
        let overwrites = vec![overwrite(4_096.0, 1.0), overwrite(8_192.0, 2.0), overwrite(16_384.0, 6.0)];
        let survey = Survey { overwrites, sequential_bytes_per_s: 1e9 };
        let sizes = [100.0, 4_096.0, 6_144.0, 12_288.0, 16_384.0, 32_768.0];
        assert_eq!(sizes.map(|bytes| survey.overwrite_ms(bytes)), [1.0, 1.0, 1.5, 4.0, 6.0, 12.0]);
    }

    #[test]
    fn a_directory_takes_up_what_its_files_do_and_a_probe_leaves_nothing() {
        let directory = std::env::temp_dir().join(format!("ironpost-bench-disk-test-{}", std::process::id()));
        fs::create_dir_all(directory.join("below")).unwrap();
        let before = allocated_bytes(&directory).unwrap();
        fs::write(directory.join("below/file"), vec![7; 100_000]).unwrap();
        File::open(directory.join("below/file")).unwrap().sync_all().unwrap();
        let after = allocated_bytes(&directory).unwrap();
        assert!((100_000..200_000).contains(&(after - before)), "{before} {after}");

        let probe = Probe::start(&directory, Duration::from_millis(1), clock::now()).unwrap();
        let deadline = clock::now() + Duration::from_secs(20);
        while probe.take_recent_ns().is_empty() && clock::now() < deadline {
            clock::pause(Duration::from_millis(1));
        }
        assert!(!probe.finish().unwrap().whole_ns.is_empty());
        assert_eq!(allocated_bytes(&directory).unwrap(), after, "the scratch file is gone");
        fs::remove_dir_all(&directory).unwrap();
    }
}
