//! `hold-curve`: scenario `hold` over several values of the setting and both mixtures, as a document, a table and a plot.
//!
//! Each run is on a fresh server with empty data. A round runs every value once, the mixtures in turn; the next round
//! goes through the values backwards, so that a machine that changes slowly does not lean to one end. Rounds differ by
//! their seed; within a round every value gets the same messages. `--from` makes table and plot of a stored document.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::{HoldSettings, plot};
use crate::Environment;
use crate::load::recipients::Mixture;
use crate::measure::slope::spread;
use crate::report::{self, Outcome, readable};
use crate::server::{Broker, Server};

/// What to run, or which document to show.
#[derive(Args)]
pub struct SweepSettings {
    /// The broker, as NAME=COMMAND; besides {port} and {data}, {hold} is the value in milliseconds and {config} a file
    #[arg(long, required_unless_present = "from")]
    broker: Option<String>,
    /// What is written to {config}, with {hold} filled in
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The values, in milliseconds
    #[arg(long, value_delimiter = ',', default_value = "0,5,20,100,200,1000")]
    holds: Vec<u32>,
    /// Whom to send to
    #[arg(long, value_delimiter = ',', value_enum, default_value = "lan,phones")]
    mixtures: Vec<Mixture>,
    /// How often each value runs
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each run of `lan` is measured
    #[arg(long, default_value_t = 10.0)]
    lan_seconds: f64,
    /// How long each run of `phones` is measured
    #[arg(long, default_value_t = 25.0)]
    phones_seconds: f64,
    /// Draw the curve into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Run nothing: show this document of an earlier sweep
    #[arg(long, value_name = "FILE", conflicts_with = "broker")]
    from: Option<PathBuf>,
    #[command(flatten)]
    environment: Environment,
}

/// Runs the sweep, or reads one; whether the broker did nothing wrong.
pub fn run(settings: &SweepSettings) -> Result<bool> {
    let document = match &settings.from {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?
        }
        None => measure(settings)?,
    };
    let cells = cells(&document)?;
    if let Some(path) = &settings.svg {
        fs::write(path, plot::draw(&cells)).with_context(|| format!("writing {}", path.display()))?;
    }
    settings.environment.publish(&document, &table(&cells))?;
    let failed = document["runs"].as_array().into_iter().flatten();
    Ok(!failed.flat_map(|run| run["failures"].as_array()).any(|failures| !failures.is_empty()))
}

fn measure(settings: &SweepSettings) -> Result<Value> {
    let command = settings.broker.as_deref().context("no --broker")?;
    let placement = settings.environment.placement();
    let mut document = report::head(placement);
    let _awake = settings.environment.keep_awake()?;
    document["awake"] = json!(settings.environment.keeps_awake());
    document["scenario"] = json!("hold-curve");
    document["broker"] = json!(command);
    let (mut runs, mut outcomes) = (Vec::new(), Vec::new());
    for round in 0..settings.rounds {
        let mut holds = settings.holds.clone();
        if round % 2 == 1 {
            holds.reverse();
        }
        for hold_ms in holds {
            for &mixture in &settings.mixtures {
                report::progress(&format!("round {}: hold {hold_ms} ms, {}", round + 1, mixture.name()));
                let outcome = run_one(settings, command, hold_ms, mixture, u64::from(round) + 1)
                    .unwrap_or_else(|error| Outcome::failed(&error));
                for failure in &outcome.failures {
                    report::progress(&format!("  FAILED: {failure}"));
                }
                let mut run = outcome.to_json();
                run["hold_ms"] = json!(hold_ms);
                run["recipients"] = json!(mixture.name());
                run["round"] = json!(round + 1);
                runs.push(run);
                outcomes.push((mixture, hold_ms, outcome));
            }
        }
    }
    document["cells"] = summary(settings, &outcomes);
    document["runs"] = json!(runs);
    Ok(document)
}

fn run_one(
    settings: &SweepSettings,
    command: &str,
    hold_ms: u32,
    mixture: Mixture,
    seed: u64,
) -> Result<Outcome> {
    let environment = &settings.environment;
    let fill = |text: &str| text.replace("{hold}", &hold_ms.to_string());
    let name = format!("ironpost-bench-hold-{}.config", std::process::id());
    let config = environment.data_root.join(name);
    if let Some(template) = &settings.config {
        let text = fs::read_to_string(template).with_context(|| format!("reading {}", template.display()))?;
        fs::write(&config, fill(&text)).with_context(|| format!("writing {}", config.display()))?;
    } else {
        ensure!(!command.contains("{config}"), "the command has {{config}}, but there is no --config");
    }
    let broker = fill(command).replace("{config}", &config.display().to_string());
    let broker: Broker = broker.parse().map_err(anyhow::Error::msg)?;
    let seconds = match mixture {
        Mixture::Lan => settings.lan_seconds,
        Mixture::Phones => settings.phones_seconds,
    };
    let outcome = Server::start(&broker, &environment.data_root, environment.placement())
        .and_then(|server| super::run(&server, &HoldSettings::of(mixture, Some(seconds), seed)));
    if settings.config.is_some() {
        fs::remove_file(&config).with_context(|| format!("removing {}", config.display()))?;
    }
    outcome
}

/// Each figure of each mixture and value over the rounds. A failed run has no part in it.
fn summary(settings: &SweepSettings, outcomes: &[(Mixture, u32, Outcome)]) -> Value {
    let mut cells = Vec::new();
    for &mixture in &settings.mixtures {
        for &hold_ms in &settings.holds {
            let own: Vec<&Outcome> = outcomes
                .iter()
                .filter(|(of, at, outcome)| *of == mixture && *at == hold_ms && outcome.failures.is_empty())
                .map(|(_, _, outcome)| outcome)
                .collect();
            let mut figures = serde_json::Map::new();
            for figure in own.first().map_or(&[][..], |outcome| &outcome.figures) {
                let values: Vec<f64> = own.iter().filter_map(|outcome| outcome.figure(figure.name)).collect();
                if let Some((median, min, max)) = spread(&values) {
                    let value = json!({ "median": median, "min": min, "max": max, "unit": figure.unit });
                    figures.insert(figure.name.to_owned(), value);
                }
            }
            cells.push(json!({ "recipients": mixture.name(), "hold_ms": hold_ms, "figures": figures }));
        }
    }
    json!(cells)
}

/// One mixture at one value, as a document has it.
pub(super) struct Cell<'a> {
    pub(super) mixture: Mixture,
    pub(super) hold_ms: u32,
    figures: &'a Value,
}

impl Cell<'_> {
    /// Median, least and greatest over the rounds.
    pub(super) fn figure(&self, name: &str) -> Option<(f64, f64, f64)> {
        let figure = &self.figures[name];
        Some((figure["median"].as_f64()?, figure["min"].as_f64()?, figure["max"].as_f64()?))
    }
}

pub(super) fn cells(document: &Value) -> Result<Vec<Cell<'_>>> {
    let Some(cells) = document["cells"].as_array() else { bail!("not a document of hold-curve: no cells") };
    let cell = |cell: &'_ Value| {
        let name = cell["recipients"].as_str().context("a cell without recipients")?;
        let mixture = Mixture::ALL.into_iter().find(|mixture| mixture.name() == name);
        let mixture = mixture.with_context(|| format!("no recipients are called {name}"))?;
        let hold_ms = cell["hold_ms"].as_u64().and_then(|hold_ms| u32::try_from(hold_ms).ok());
        Ok((mixture, hold_ms.context("a cell without hold_ms")?))
    };
    cells
        .iter()
        .map(|value| {
            cell(value).map(|(mixture, hold_ms)| Cell { mixture, hold_ms, figures: &value["figures"] })
        })
        .collect()
}

/// Columns of the table: heading, figure.
const COLUMNS: [(&str, &str); 10] = [
    ("ack p50, ms", "sender acknowledgement p50"),
    ("p99", "sender acknowledgement p99"),
    ("p99.9", "sender acknowledgement p99.9"),
    ("never written, %", "hit rate"),
    ("journal B/msg", "journal bytes per message"),
    ("… drained", "journal bytes per message, drained"),
    ("syncs/msg", "syncs per message"),
    ("CPU µs/msg", "server CPU per message"),
    ("kept waiting, %", "server kept waiting"),
    ("generator busy, %", "generator busy"),
];

/// One line per cell, in Markdown, as it stands in the README: the median, and where it says more the spread.
fn table(cells: &[Cell<'_>]) -> String {
    let mut text = String::from("| recipients | hold, ms |");
    COLUMNS.iter().for_each(|(heading, _)| text.push_str(&format!(" {heading} |")));
    let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(COLUMNS.len()));
    for cell in cells {
        let _ = write!(text, "| {} | {} |", cell.mixture.name(), cell.hold_ms);
        for (_, name) in COLUMNS {
            let shown = match cell.figure(name) {
                None => "–".to_owned(),
                Some((median, min, max))
                    if (max - min).abs() <= 0.05 * median.abs() || readable(min) == readable(max) =>
                {
                    readable(median)
                }
                Some((_, min, max)) => format!("{}..{}", readable(min), readable(max)),
            };
            let _ = write!(text, " {shown} |");
        }
        text.push('\n');
    }
    text
}

/// A document that was stored: for tests of what is made of it.
#[cfg(test)]
pub(super) fn stored() -> Value {
    let cell = |recipients: &str, hold_ms: u32, hit: f64, p99: (f64, f64)| {
        let median = (p99.0 + p99.1) / 2.0;
        json!({ "recipients": recipients, "hold_ms": hold_ms, "figures": {
            "hit rate": { "median": hit, "min": hit, "max": hit, "unit": "%" },
            "sender acknowledgement p50": { "median": 1.5, "min": 1.5, "max": 1.5, "unit": "ms" },
            "sender acknowledgement p99": { "median": median, "min": p99.0, "max": p99.1, "unit": "ms" },
        }})
    };
    json!({ "cells": [
        cell("lan", 0, 0.0, (4.0, 4.0)),
        cell("lan", 5, 99.5, (5.0, 6.0)),
        cell("phones", 0, 0.0, (4.0, 4.0)),
        cell("phones", 1_000, 42.0, (1_001.0, 1_002.0)),
    ], "runs": [] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_document_gives_its_table() {
        let document = stored();
        let table = table(&cells(&document).unwrap());
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 6);
        assert!(lines[0].starts_with("| recipients | hold, ms | ack p50, ms | p99 |"), "{table}");
        let lan = "| lan | 5 | 1.50 | 5.00..6.00 | – | 99.5 | – |";
        assert!(lines[3].starts_with(lan), "{table}");
        assert!(lines[5].starts_with("| phones | 1000 | 1.50 | 1,002 | – | 42.0 |"), "{table}");
    }

    #[test]
    fn what_is_not_a_document_of_a_sweep_is_refused() {
        assert!(cells(&json!({ "results": [] })).is_err());
        assert!(cells(&json!({ "cells": [{ "recipients": "birds", "hold_ms": 5 }] })).is_err());
        assert!(cells(&json!({ "cells": [{ "recipients": "lan" }] })).is_err());
    }
}
