//! How long publishers waited, and for whom.
//!
//! Decides what a wait is: from when a message was due to its PUBACK, whatever was in between. Three things may be in it
//! that are not the broker's: a generator that did not run, a CPU that was somebody else's, and a disk that was slow for
//! everybody. Each is watched by itself: the generator sees when its loop stood still, the kernel says when the
//! server was ready to run and did not ([`super::stand`]), and a file beside the broker's is synced all the time
//! ([`crate::measure::disk::Probe`]). A long wait is given to the first of them whose bad times cover half of it, or to all
//! together if only all of them do. What they do not explain is the broker's.
//!
//! A broker may make the disk slow for everybody by what it writes itself. So the settled waits are also divided by whether
//! anything was copied in the same sample: if reclaim were the one who makes publishers wait, it would show there.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Waits up to a minute, in nanoseconds, to three digits.
const WAIT_NS_MAX: u64 = 60_000_000_000;

/// So many long waits are kept with their times; a run that has more of them has failed anyway.
const LONG_MAX: usize = 1_000_000;

/// One message's way, in nanoseconds since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub due_ns: u64,
    pub sent_ns: u64,
    pub answered_ns: u64,
}

impl Way {
    fn wait_ns(&self) -> u64 {
        self.answered_ns.saturating_sub(self.due_ns)
    }
}

/// Quantiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Quantiles {
    pub fn of(histogram_ns: &Histogram<u64>) -> Quantiles {
        let at = |quantile| histogram_ns.value_at_quantile(quantile) as f64 / 1e6;
        Quantiles { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: histogram_ns.max() as f64 / 1e6 }
    }

    pub fn to_json(self) -> Value {
        json!({ "p50": self.p50, "p99": self.p99, "p99.9": self.p999, "max": self.max })
    }
}

/// The waits of a run.
pub struct Waits {
    /// From here on they count for the verdict: before, the journal grows to its size.
    settled_from_ns: u64,
    /// Longer than this is long: it is kept with its times.
    long_ns: u64,
    pub recent: Histogram<u64>,
    pub recent_late: Histogram<u64>,
    pub filling: Histogram<u64>,
    pub settled: Histogram<u64>,
    /// From when the message was sent.
    pub settled_from_sent: Histogram<u64>,
    pub settled_late: Histogram<u64>,
    /// Those of `settled` from samples in which the broker copied records, and from the others.
    pub with_copies: Histogram<u64>,
    pub without_copies: Histogram<u64>,
    /// Those of `settled` that are not long.
    short: Histogram<u64>,
    long: Vec<Way>,
    /// Long ones that were not kept for want of room.
    long_uncounted: u64,
}

/// Whose the long waits were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Blame {
    pub long: u64,
    pub generator: u64,
    pub cpu: u64,
    pub disk: u64,
    /// No one of these covers half of the wait, but all together do.
    pub together: u64,
    /// What is left to the broker.
    pub broker: u64,
    /// All settled waits but for the long ones that are not the broker's.
    pub remaining: Quantiles,
}

/// When something did not do its part: begin and end, in nanoseconds since the start, in order and apart.
pub type Spans = [(u64, u64)];

impl Waits {
    pub fn new(settled_from_ns: u64, long_ns: u64) -> Result<Waits> {
        let histogram = || Histogram::new_with_max(WAIT_NS_MAX, 3).context("a histogram");
        Ok(Waits {
            settled_from_ns,
            long_ns,
            recent: histogram()?,
            recent_late: histogram()?,
            filling: histogram()?,
            settled: histogram()?,
            settled_from_sent: histogram()?,
            settled_late: histogram()?,
            with_copies: histogram()?,
            without_copies: histogram()?,
            short: histogram()?,
            long: Vec::new(),
            long_uncounted: 0,
        })
    }

    pub fn record(&mut self, way: Way) {
        let (wait_ns, late_ns) = (way.wait_ns(), way.sent_ns.saturating_sub(way.due_ns));
        self.recent.saturating_record(wait_ns);
        self.recent_late.saturating_record(late_ns);
        if way.due_ns < self.settled_from_ns {
            self.filling.saturating_record(wait_ns);
            return;
        }
        self.settled.saturating_record(wait_ns);
        self.settled_from_sent.saturating_record(wait_ns.saturating_sub(late_ns));
        self.settled_late.saturating_record(late_ns);
        if wait_ns <= self.long_ns {
            self.short.saturating_record(wait_ns);
        } else if self.long.len() < LONG_MAX {
            self.long.push(way);
        } else {
            self.long_uncounted += 1;
        }
    }

    /// A sample ends; whether the broker copied anything in it, and whether it is settled.
    pub fn end_sample(&mut self, copied: bool, settled: bool) -> Result<()> {
        if settled {
            let kind = if copied { &mut self.with_copies } else { &mut self.without_copies };
            kind.add(&self.recent)?;
        }
        self.recent.reset();
        self.recent_late.reset();
        Ok(())
    }

    /// Whose the long waits were, given when the generator, the server's CPU and the disk did not do their part.
    pub fn blame(&self, generator: &Spans, cpu: &Spans, disk: &Spans) -> Blame {
        let mut blame = Blame { long: self.long_uncounted, broker: self.long_uncounted, ..Blame::default() };
        let mut remaining = self.short.clone();
        if self.long_uncounted > 0 {
            remaining.saturating_record_n(self.long_ns, self.long_uncounted);
        }
        let all = united(&[generator, cpu, disk]);
        for way in &self.long {
            blame.long += 1;
            let is_of = |spans: &Spans| 2 * covered_ns(spans, way.due_ns, way.answered_ns) >= way.wait_ns();
            if is_of(generator) {
                blame.generator += 1;
            } else if is_of(cpu) {
                blame.cpu += 1;
            } else if is_of(disk) {
                blame.disk += 1;
            } else if is_of(&all) {
                blame.together += 1;
            } else {
                blame.broker += 1;
                remaining.saturating_record(way.wait_ns());
            }
        }
        blame.remaining = Quantiles::of(&remaining);
        blame
    }
}

/// When any of them was, in order and apart.
fn united(lists: &[&Spans]) -> Vec<(u64, u64)> {
    let mut spans: Vec<(u64, u64)> = lists.iter().flat_map(|spans| spans.iter().copied()).collect();
    spans.sort_unstable();
    let mut united: Vec<(u64, u64)> = Vec::new();
    for (begin, end) in spans {
        match united.last_mut() {
            Some((_, last)) if begin <= *last => *last = end.max(*last),
            _ => united.push((begin, end)),
        }
    }
    united
}

/// How much of `from..to` the spans cover, which are in order and do not overlap.
fn covered_ns(spans: &Spans, from: u64, to: u64) -> u64 {
    let first = spans.partition_point(|(_, end)| *end <= from);
    let overlapping = spans[first..].iter().take_while(|(begin, _)| *begin < to);
    overlapping.map(|(begin, end)| (*end).min(to) - (*begin).max(from)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn way(due_ms: u64, sent_ms: u64, answered_ms: u64) -> Way {
        Way { due_ns: due_ms * MS, sent_ns: sent_ms * MS, answered_ns: answered_ms * MS }
    }

    #[test]
    fn spans_cover_what_they_overlap() {
        let spans = [(10, 20), (30, 40), (40, 50)];
        for (from, to, covered) in
            [(0, 5, 0), (0, 15, 5), (12, 13, 1), (15, 35, 10), (35, 100, 15), (60, 70, 0)]
        {
            assert_eq!(covered_ns(&spans, from, to), covered, "{from}..{to}");
        }
    }

    #[test]
    fn a_long_wait_is_the_generators_the_cpus_the_disks_or_the_brokers() {
        let mut waits = Waits::new(1_000 * MS, 50 * MS).unwrap();
        waits.record(way(10, 10, 500));
        for index in 0..995 {
            waits.record(way(1_000 + index, 1_000 + index, 1_002 + index));
        }
        for second in [2_000, 3_000, 4_000, 5_000, 6_000] {
            waits.record(way(second, second + 1, second + 100));
        }
        let span = |begin, end| (begin * MS, end * MS);
        let (generator, cpu) = ([span(2_010, 2_070)], [span(3_000, 3_080)]);
        let disk = [span(2_000, 2_100), span(4_020, 4_090), span(5_020, 5_060)];
        let blame = waits.blame(&generator, &cpu, &disk);
        assert_eq!((blame.long, blame.generator, blame.cpu, blame.disk, blame.broker), (5, 1, 1, 1, 2));
        assert_eq!((waits.filling.len(), waits.settled.len()), (1, 1_000));
        let all = Quantiles::of(&waits.settled);
        assert!((all.p999 - 100.0).abs() < 0.2 && (all.p50 - 2.0).abs() < 0.01, "{all:?}");
        assert!((blame.remaining.p999 - 100.0).abs() < 0.2, "two of 997 are left: {blame:?}");
        let always = waits.blame(&[], &[], &[(0, 9_000 * MS)]);
        assert!((always.remaining.max - 2.0).abs() < 0.01, "{always:?}");
    }

    #[test]
    fn what_overlaps_is_counted_once_when_several_are_to_blame() {
        assert_eq!(united(&[&[(1, 5), (9, 10)], &[(2, 3), (4, 7)], &[(10, 12)]]), [(1, 7), (9, 12)]);
        let mut waits = Waits::new(0, 50 * MS).unwrap();
        waits.record(way(0, 0, 100));
        let (cpu, apart, within) = ((0, 30 * MS), (40 * MS, 60 * MS), (10 * MS, 30 * MS));
        assert_eq!(waits.blame(&[], &[cpu], &[apart]).together, 1, "30 and 20 of 100");
        assert_eq!(waits.blame(&[], &[cpu], &[within]).broker, 1, "30 of 100");
    }

    #[test]
    fn settled_waits_are_divided_by_whether_anything_was_copied() {
        let mut waits = Waits::new(0, 50 * MS).unwrap();
        for (copied, settled, answered) in [(true, false, 1), (true, true, 5), (false, true, 7)] {
            waits.record(way(0, 0, answered));
            waits.end_sample(copied, settled).unwrap();
        }
        assert_eq!((waits.with_copies.max() / MS, waits.without_copies.max() / MS), (5, 7));
        assert_eq!((waits.with_copies.len(), waits.recent.len()), (1, 0));
    }

    #[test]
    fn the_generators_lateness_is_in_the_wait_but_not_in_that_from_being_sent() {
        let mut waits = Waits::new(0, 50 * MS).unwrap();
        waits.record(way(0, 30, 40));
        let at = |histogram: &Histogram<u64>| histogram.max() / MS;
        assert_eq!((at(&waits.settled), at(&waits.settled_late), at(&waits.settled_from_sent)), (40, 30, 10));
    }
}
