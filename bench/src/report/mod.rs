//! What a measurement says: named figures, what was wrong, and the document and the table made of them.

pub mod html;
pub mod progress;
pub mod ratios;
pub mod svg;

use std::fs;

use serde_json::{Map, Value, json};

use crate::measure::clock;
use crate::server::Placement;

/// One figure of one run.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    pub value: f64,
}

/// Measured points with a line through them: a distribution, or something over time or size.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    pub name: &'static str,
    /// What lies on the axes, with its unit.
    pub x: &'static str,
    pub y: &'static str,
    /// Both ends of the horizontal axis are far apart.
    pub logarithmic_x: bool,
    pub points: Vec<(f64, f64)>,
}

/// What one run of one scenario on one broker gave.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub figures: Vec<Figure>,
    /// What a report draws.
    pub curves: Vec<Curve>,
    /// What the broker did wrong. A run with an entry here is not a result.
    pub failures: Vec<String>,
    /// Everything else worth keeping.
    pub detail: Value,
}

impl Outcome {
    /// A run that could not be finished.
    pub fn failed(error: &anyhow::Error) -> Outcome {
        Outcome { failures: vec![format!("{error:#}")], ..Outcome::default() }
    }

    pub fn add(&mut self, name: &'static str, unit: &'static str, value: f64) {
        self.figures.push(Figure { name, unit, value });
    }

    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    pub fn to_json(&self) -> Value {
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|figure| (figure.name.to_owned(), json!({ "value": figure.value, "unit": figure.unit })))
            .collect();
        let curves: Vec<Value> = self.curves.iter().map(Curve::to_json).collect();
        json!({ "figures": figures, "curves": curves, "failures": self.failures, "detail": self.detail })
    }

    /// One line per figure, then the failures.
    pub fn to_text(&self) -> String {
        let width = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        let line = |figure: &Figure| {
            format!("  {:width$}  {:>12} {}\n", figure.name, readable(figure.value), figure.unit)
        };
        let mut text: String = self.figures.iter().map(line).collect();
        for failure in &self.failures {
            text.push_str(&format!("  FAILED: {failure}\n"));
        }
        text
    }
}

impl Curve {
    fn to_json(&self) -> Value {
        let Curve { name, x, y, logarithmic_x, points } = self;
        json!({ "name": name, "x": x, "y": y, "logarithmic_x": logarithmic_x, "points": points })
    }
}

/// A figure with about four significant digits, large ones in groups of three.
pub fn readable(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size >= 100.0 || size == 0.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut grouped = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// The head of every result document: where, when and with what it was measured.
pub fn head(placement: Option<Placement>) -> Value {
    let first = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "tool": concat!("ironpost-bench ", env!("CARGO_PKG_VERSION")),
        "measured_at_unix_s": clock::unix_seconds(),
        "command": std::env::args().collect::<Vec<_>>(),
        "machine": {
            "cpu": first("/proc/cpuinfo", "model name"),
            "cores": std::thread::available_parallelism().map_or(0, |count| count.get()),
            "memory": first("/proc/meminfo", "MemTotal"),
            "kernel": kernel.trim(),
            "load_average": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
        },
        "placement": placement.map(|cpus| json!({
            "server_cpu": cpus.server_cpu,
            "load_cpu": cpus.load_cpu,
            "hostile_cpu": cpus.hostile_cpu(),
        })),
    })
}

/// Says on the terminal what is being done; the result goes elsewhere.
pub fn progress(what: &str) {
    progress::say(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable_at_every_size() {
        let cases = [
            (0.0, "0"),
            (0.2512, "0.251"),
            (1.756, "1.76"),
            (24.44, "24.4"),
            (999.4, "999"),
            (1_250_000.4, "1,250,000"),
            (-12_345.0, "-12,345"),
            (-4.236, "-4.24"),
        ];
        for (value, text) in cases {
            assert_eq!(readable(value), text);
        }
    }

    #[test]
    fn an_outcome_keeps_its_figures_and_failures_in_both_forms() {
        let mut outcome = Outcome::default();
        outcome.add("rate", "msg/s", 10.0);
        outcome.failures.push("pair 3 lost 1 message".to_owned());
        assert_eq!(outcome.figure("rate"), Some(10.0));
        assert_eq!(outcome.to_json()["figures"]["rate"]["value"], 10.0);
        assert!(outcome.to_text().contains("10.0 msg/s") && outcome.to_text().contains("FAILED: pair 3"));
    }
}
