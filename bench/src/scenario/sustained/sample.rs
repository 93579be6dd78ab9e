//! What is read every few seconds of a run of `sustained`, and how a document shows it.
//!
//! A sample is JSON from the beginning: the verdict, the table and the drawing all read the same thing, so that a stored
//! document can be judged and drawn again. What the broker does not tell is null. Its counters are published once a second,
//! so they are up to a second older than the sample; all of one sample are of one publication.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use super::load::Load;
use super::waits::Quantiles;
use crate::measure::disk::{self, Probe};
use crate::measure::meter::Mark;
use crate::measure::process;
use crate::measure::system::Counters;
use crate::report::{self, readable};
use crate::server::Server;

/// Takes samples.
pub struct Sampler {
    settled_from_s: f64,
    begin: Option<Counters>,
    sent_before: u64,
    last: Option<Counters>,
    mark: Mark,
    samples: Vec<Value>,
}

impl Sampler {
    pub fn begin(server: &Server, load: &Load, settled_from_s: f64) -> Result<Sampler> {
        let counters = load.system.counters();
        let mark = Mark::read(server.pid)?;
        let (begin, last, samples) = (counters, counters, Vec::new());
        Ok(Sampler { settled_from_s, begin, sent_before: 0, last, mark, samples })
    }

    pub fn into_samples(self) -> Vec<Value> {
        self.samples
    }

    pub fn take(&mut self, at_s: f64, server: &Server, load: &mut Load, probe: &Probe) -> Result<()> {
        let mark = Mark::read(server.pid)?;
        let interval = mark.since(&self.mark);
        self.mark = mark;
        let counters = load.system.counters();
        // A broker may be too young at the beginning to have said anything of itself.
        self.begin = self.begin.or(counters);
        let copied = counters.zip(self.last).is_some_and(|(now, last)| now.copied > last.copied);
        let resident = server.pid.map(process::resident).transpose()?;
        let (live_messages, live_bytes) = load.live();
        let wall_us = (interval.wall.as_secs_f64() * 1e6).max(1.0);
        let recorded = counters.zip(self.begin).map(|(now, begin)| now.recorded - begin.recorded);
        let wait = Quantiles::of(&load.waits.recent);
        let sample = json!({
            "s": at_s,
            "disk_bytes": server.data().map(disk::allocated_bytes).transpose()?,
            "live_messages": live_messages, "live_bytes": live_bytes,
            "queued": counters.map(|counters| counters.queued),
            "resident_bytes": resident.map(|resident| resident.total),
            "anonymous_bytes": resident.map(|resident| resident.anonymous),
            "recorded_percent": recorded.map(|recorded| 100.0 * recorded as f64 / load.sent.max(1) as f64),
            "refused": counters.map(|counters| counters.refused),
            "expired": counters.map(|counters| counters.expired),
            "journal": counters.map(|now| json!({
                "bytes": now.bytes, "appended": now.appended, "copied": now.copied, "syncs": now.syncs,
            })),
            "amplification": self.amplification(counters),
            "wait_ms": wait.to_json(),
            "late_ms": Quantiles::of(&load.waits.recent_late).to_json(),
            "disk_ms": Quantiles::of(&probe.take_recent_ns()).to_json(),
            "server_busy_percent": interval.server.map(|server| 100.0 * server.cpu_us / wall_us),
            "kept_waiting_percent": interval.server.map(|server| 100.0 * server.kept_waiting_us / wall_us),
            "generator_busy_percent": 100.0 * interval.generator_share,
            "rate": (load.sent - self.sent_before) as f64 / wall_us * 1e6,
            "away": load.away(), "returned": load.returned,
        });
        report::progress(&row(&sample));
        self.samples.push(sample);
        load.waits.end_sample(copied, at_s > self.settled_from_s)?;
        (self.last, self.sent_before) = (counters, load.sent);
        Ok(())
    }

    /// Bytes written per byte appended, and what of that is reclaim's copies: since the last sample and since the beginning.
    fn amplification(&self, now: Option<Counters>) -> Value {
        let since = |then: Option<Counters>| {
            let (now, then) = now.zip(then)?;
            let appended = (now.appended - then.appended) as f64;
            let (written, copied) = ((now.bytes - then.bytes) as f64, (now.copied - then.copied) as f64);
            (appended > 0.0).then_some((written / appended, 1.0 + copied / appended))
        };
        let (recent, whole) = (since(self.last), since(self.begin));
        json!({
            "written": recent.map(|both| both.0), "reclaim": recent.map(|both| both.1),
            "written_so_far": whole.map(|both| both.0), "reclaim_so_far": whole.map(|both| both.1),
        })
    }
}

/// One value of all samples over their time in seconds; samples that lack it are left out.
pub fn series(samples: &[Value], path: &[&str]) -> Vec<(f64, f64)> {
    let value = |sample: &Value| path.iter().fold(sample, |value, key| &value[*key]).as_f64();
    samples.iter().filter_map(|sample| Some((sample["s"].as_f64()?, value(sample)?))).collect()
}

/// Columns of the table: heading, path, and what it is divided by.
const COLUMNS: [(&str, &[&str], f64); 14] = [
    ("s", &["s"], 1.0),
    ("disk MB", &["disk_bytes"], 1e6),
    ("live MB", &["live_bytes"], 1e6),
    ("queued", &["queued"], 1.0),
    ("RSS MB", &["resident_bytes"], 1e6),
    ("anon MB", &["anonymous_bytes"], 1e6),
    ("written/appended", &["amplification", "written"], 1.0),
    ("reclaim", &["amplification", "reclaim"], 1.0),
    ("wait p50", &["wait_ms", "p50"], 1.0),
    ("p99", &["wait_ms", "p99"], 1.0),
    ("p99.9", &["wait_ms", "p99.9"], 1.0),
    ("max", &["wait_ms", "max"], 1.0),
    ("disk's max", &["disk_ms", "max"], 1.0),
    ("CPU %", &["server_busy_percent"], 1.0),
];

/// Rows of the table, at most about so many.
const ROWS: usize = 20;

fn cell(sample: &Value, (_, path, divisor): (&str, &[&str], f64)) -> String {
    let value = path.iter().fold(sample, |value, key| &value[*key]).as_f64();
    value.map_or_else(|| "–".to_owned(), |value| readable(value / divisor))
}

fn row(sample: &Value) -> String {
    let cells: Vec<String> =
        COLUMNS.iter().map(|column| format!("{} {}", column.0, cell(sample, *column))).collect();
    cells.join("  ")
}

/// The document as text: a table of some samples in Markdown, the trends, the figures and the failures.
pub fn text(document: &Value) -> String {
    let outcome = &document["outcome"];
    let samples = outcome["detail"]["samples"].as_array().map_or(&[][..], Vec::as_slice);
    let mut text = String::from("|");
    COLUMNS.iter().for_each(|(heading, ..)| text.push_str(&format!(" {heading} |")));
    let _ = writeln!(text, "\n|{}", "---|".repeat(COLUMNS.len()));
    let step = samples.len().div_ceil(ROWS).max(1);
    for sample in samples.iter().skip(step - 1).step_by(step) {
        let cells: Vec<String> = COLUMNS.iter().map(|column| cell(sample, *column)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    let _ = writeln!(text);
    for trend in outcome["detail"]["trends"].as_array().into_iter().flatten() {
        let number = |key: &str| trend[key].as_f64().unwrap_or(f64::NAN);
        let word = if trend["flat"].as_bool() == Some(true) { "flat" } else { "NOT FLAT" };
        let name = trend["series"].as_str().unwrap_or("?");
        let _ = writeln!(
            text,
            "  {word}: {name}, growth {:+.2} % (at most {} %), mean {}",
            number("growth_percent"),
            number("growth_max_percent"),
            readable(number("mean"))
        );
    }
    for (name, figure) in outcome["figures"].as_object().into_iter().flatten() {
        let value = readable(figure["value"].as_f64().unwrap_or(f64::NAN));
        let _ = writeln!(text, "  {name:<44} {value:>12} {}", figure["unit"].as_str().unwrap_or(""));
    }
    for failure in outcome["failures"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "  FAILED: {}", failure.as_str().unwrap_or("?"));
    }
    text
}

/// Samples as a run makes them: for tests of what is made of them.
#[cfg(test)]
pub fn stored() -> Value {
    let sample = |index: u32| {
        json!({
            "s": f64::from(index) * 10.0, "disk_bytes": 1e9, "live_bytes": 1e8, "queued": 1_000 * index,
            "resident_bytes": 3e8, "anonymous_bytes": 1e8,
            "amplification": { "written": 1.25, "reclaim": 1.1, "written_so_far": 1.3, "reclaim_so_far": 1.05 },
            "wait_ms": { "p50": 1.5, "p99": 4.0, "p99.9": 10.0, "max": 100.0 },
            "disk_ms": { "p50": 0.5, "p99": 2.0, "p99.9": 10.0, "max": 10.0 },
            "server_busy_percent": 30.0,
        })
    };
    json!({ "outcome": {
        "figures": { "rate": { "value": 6_000.0, "unit": "msg/s" } },
        "failures": ["books: 1 of 9 messages were lost, or arrived out of order"],
        "detail": {
            "settled_from_s": 200.0,
            "trends": [{ "series": "disk use", "mean": 1e9, "growth_percent": 1.5, "growth_max_percent": 5.0, "flat": true }],
            "samples": (1..=60).map(sample).collect::<Vec<_>>(),
        },
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_read_by_its_path_and_leaves_out_what_is_missing() {
        let samples = [
            json!({ "s": 1.0, "a": { "b": 5 } }),
            json!({ "s": 2.0, "a": null }),
            json!({ "s": 3.0, "a": { "b": 7.5 } }),
        ];
        assert_eq!(series(&samples, &["a", "b"]), [(1.0, 5.0), (3.0, 7.5)]);
        assert_eq!(series(&samples, &["c"]), []);
    }

    #[test]
    fn a_stored_document_gives_its_table_with_trends_figures_and_failures() {
        let text = text(&stored());
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
        assert_eq!(rows.len(), 21, "{text}");
        let last = "| 600 | 1,000 | 100 | 60,000 | 300 | 100 | 1.25 | 1.10 | 1.50 | 4.00 | 10.0 | 100 | 10.0 | 30.0 |";
        assert_eq!(rows[20], last);
        for part in ["flat: disk use, growth +1.50 %", "6,000 msg/s", "FAILED: books: 1 of 9"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
