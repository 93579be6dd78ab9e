//! What of a result document the page shows: brokers, and for each scenario rows, failures and curves.
//!
//! Decides how the shapes of documents become one: that of a single scenario, that of runs in turn (`results`), and that of
//! a sweep (`cells`, which stand in the place of brokers). A document is read as it was stored, perhaps by an older
//! version: what is missing or is not understood is left out, and only a document without any result is an error.
//! Called by `html`.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::measure::slope::spread;

/// Median, least and greatest.
pub type Spread = (f64, f64, f64);

/// One scenario, or one payload, with what each broker gave.
#[derive(Debug, Default)]
pub struct Part {
    pub name: String,
    /// In the order in which they were given; a broker is meant by its place here.
    pub brokers: Vec<String>,
    pub baselines: Vec<String>,
    pub figures: Vec<Figure>,
    pub runs: Vec<Run>,
    pub curves: Vec<Curves>,
    /// What the load was, as the program shows it.
    pub settings: Option<String>,
}

/// One figure over all brokers that have it.
#[derive(Debug)]
pub struct Figure {
    pub name: String,
    pub unit: String,
    pub rows: Vec<Row>,
}

#[derive(Debug)]
pub struct Row {
    pub broker: usize,
    pub value: Spread,
    /// To each baseline, in their order.
    pub ratios: Vec<Option<Spread>>,
}

/// A run, as far as it went wrong.
#[derive(Debug)]
pub struct Run {
    pub broker: usize,
    pub round: u64,
    pub failures: Vec<String>,
}

/// One curve of all brokers that have it.
#[derive(Debug)]
pub struct Curves {
    pub name: String,
    pub x: String,
    pub y: String,
    pub logarithmic_x: bool,
    pub lines: Vec<Line>,
    /// More than one run went into a line.
    pub is_median: bool,
}

#[derive(Debug, PartialEq)]
pub struct Line {
    pub broker: usize,
    pub points: Vec<(f64, f64)>,
}

/// The scenarios of a document.
pub fn parts(document: &Value) -> Result<Vec<Part>> {
    let scenario = text(&document["scenario"]);
    let parts: Vec<Part> = if let Some(results) = document["results"].as_array() {
        results.iter().map(|result| of_turns(result, &broker_names(&document["brokers"]))).collect()
    } else if let Some(cells) = document["cells"].as_array() {
        vec![of_cells(scenario, cells, items(&document["runs"]))]
    } else if document["outcome"].is_object() {
        vec![of_single(scenario, broker_name(&document["broker"]), &document["outcome"])]
    } else {
        Vec::new()
    };
    ensure!(!parts.is_empty(), "the document has no results: none of `results`, `cells` and `outcome`");
    Ok(parts)
}

fn broker_names(brokers: &Value) -> Vec<String> {
    items(brokers).iter().map(broker_name).collect()
}

fn broker_name(broker: &Value) -> String {
    let known = [&broker["name"], &broker["address"], broker].into_iter().find_map(Value::as_str);
    known.unwrap_or("the broker").to_owned()
}

/// Runs in turn, as `compare` and `durable-ack` store them.
fn of_turns(result: &Value, brokers: &[String]) -> Part {
    let mut part = Part { name: text(&result["scenario"]), brokers: brokers.to_vec(), ..Part::default() };
    let summary = items(&result["summary"]);
    // A name appears once, in the order of the brokers: objects in a document are sorted by name.
    let is_baseline = |name: &&String| summary.iter().any(|row| row["ratio_to"][name.as_str()].is_object());
    part.baselines = brokers.iter().filter(is_baseline).cloned().collect();
    for row in summary {
        let Some(value) = spread_of(&row["value"]) else { continue };
        let broker = part.place_of(&text(&row["broker"]));
        let baselines = part.baselines.iter();
        let ratios = baselines.map(|name| spread_of(&row["ratio_to"][name.as_str()])).collect();
        part.add(text(&row["figure"]), text(&row["unit"]), Row { broker, value, ratios });
    }
    part.take_runs(items(&result["runs"]), |run| text(&run["broker"]));
    part
}

/// A sweep over a setting: a cell stands where brokers stand elsewhere.
fn of_cells(scenario: String, cells: &[Value], runs: &[Value]) -> Part {
    let label = |cell: &Value| format!("{}, hold {} ms", text(&cell["recipients"]), cell["hold_ms"]);
    let mut part = Part { name: scenario, ..Part::default() };
    for cell in cells {
        let broker = part.place_of(&label(cell));
        for (name, figure) in cell["figures"].as_object().into_iter().flatten() {
            let Some(value) = spread_of(figure) else { continue };
            part.add(name.clone(), text(&figure["unit"]), Row { broker, value, ratios: Vec::new() });
        }
    }
    part.take_runs(runs, label);
    part
}

fn of_single(scenario: String, broker: String, outcome: &Value) -> Part {
    let mut part = Part { name: scenario, brokers: vec![broker.clone()], ..Part::default() };
    for (name, figure) in outcome["figures"].as_object().into_iter().flatten() {
        let Some(value) = figure["value"].as_f64() else { continue };
        let row = Row { broker: 0, value: (value, value, value), ratios: Vec::new() };
        part.add(name.clone(), text(&figure["unit"]), row);
    }
    part.take_runs(std::slice::from_ref(outcome), |_| broker.clone());
    part
}

impl Part {
    /// Runs that are no result.
    pub fn failed(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| !run.failures.is_empty())
    }

    /// How many runs of a broker failed, and how many there were.
    pub fn failed_of(&self, broker: usize) -> (usize, usize) {
        let own = |run: &&Run| run.broker == broker;
        (self.failed().filter(own).count(), self.runs.iter().filter(own).count())
    }

    /// Whether runs of more than one broker are beside each other here.
    pub fn compares(&self) -> bool {
        self.brokers.len() > 1
    }

    fn place_of(&mut self, broker: &str) -> usize {
        let known = self.brokers.iter().position(|name| name == broker);
        known.unwrap_or_else(|| {
            self.brokers.push(broker.to_owned());
            self.brokers.len() - 1
        })
    }

    fn add(&mut self, name: String, unit: String, row: Row) {
        match self.figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.rows.push(row),
            None => self.figures.push(Figure { name, unit, rows: vec![row] }),
        }
    }

    fn take_runs(&mut self, runs: &[Value], broker: impl Fn(&Value) -> String) {
        let places: Vec<usize> = runs.iter().map(|run| self.place_of(&broker(run))).collect();
        for (run, &broker) in runs.iter().zip(&places) {
            let failures = items(&run["failures"]).iter().map(text).collect();
            self.runs.push(Run { broker, round: run["round"].as_u64().unwrap_or(1), failures });
            if self.settings.is_none() {
                self.settings = run["detail"]["settings"].as_str().map(str::to_owned);
            }
        }
        let sound: Vec<(usize, &Value)> =
            places.into_iter().zip(runs).filter(|(_, run)| items(&run["failures"]).is_empty()).collect();
        self.curves = curves(&sound, self.brokers.len());
    }
}

/// One drawing for each name that a curve has, from the runs that are results.
fn curves(runs: &[(usize, &Value)], brokers: usize) -> Vec<Curves> {
    let mut all: Vec<Curves> = Vec::new();
    for curve in runs.iter().flat_map(|(_, run)| items(&run["curves"])) {
        let name = text(&curve["name"]);
        if all.iter().any(|known| known.name == name) {
            continue;
        }
        let of = |broker: usize| -> Vec<Vec<(f64, f64)>> {
            let own = runs.iter().filter(|(place, _)| *place == broker);
            let named = own.flat_map(|(_, run)| items(&run["curves"])).filter(|c| c["name"] == curve["name"]);
            named.map(points).filter(|points| !points.is_empty()).collect()
        };
        let (mut lines, mut is_median) = (Vec::new(), false);
        for broker in 0..brokers {
            let rounds = of(broker);
            let Some((points, median)) = typical(&rounds) else { continue };
            is_median |= median;
            lines.push(Line { broker, points });
        }
        if !lines.is_empty() {
            let (x, y) = (text(&curve["x"]), text(&curve["y"]));
            let logarithmic_x = curve["logarithmic_x"].as_bool().unwrap_or(false);
            all.push(Curves { name, x, y, logarithmic_x, lines, is_median });
        }
    }
    all
}

/// The median over the rounds where all have the same places, as distributions do; else the last round, as of something
/// over time, whose places differ. Also whether it is a median of several.
fn typical(rounds: &[Vec<(f64, f64)>]) -> Option<(Vec<(f64, f64)>, bool)> {
    let last = rounds.last()?;
    let at = |round: &[(f64, f64)], x: f64| round.iter().find(|point| point.0 == x).map(|point| point.1);
    let median = |x: f64| {
        let values: Option<Vec<f64>> = rounds.iter().map(|round| at(round, x)).collect();
        Some((x, spread(&values?)?.0))
    };
    let shared: Vec<(f64, f64)> = last.iter().filter_map(|point| median(point.0)).collect();
    // A round may have reached further than another; a line through less than half of it would hide that.
    if rounds.len() > 1 && 2 * shared.len() > last.len() {
        Some((shared, true))
    } else {
        Some((last.clone(), false))
    }
}

fn points(curve: &Value) -> Vec<(f64, f64)> {
    let point = |point: &Value| Some((point[0].as_f64()?, point[1].as_f64()?));
    items(&curve["points"]).iter().filter_map(point).collect()
}

fn spread_of(value: &Value) -> Option<Spread> {
    Some((value["median"].as_f64()?, value["min"].as_f64()?, value["max"].as_f64()?))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_are_gathered_over_brokers_and_ratios_stand_in_the_order_of_the_brokers() {
        let value = |value: f64| json!({ "median": value, "min": value - 1.0, "max": value + 1.0 });
        let row = |broker: &str, ratios: Value| json!({ "broker": broker, "figure": "cost", "unit": "µs", "value": value(5.0), "ratio_to": ratios });
        let ratios = json!({ "floor": value(9.0), "z": value(2.0) });
        let document = json!({
            "brokers": [{ "name": "z" }, { "name": "floor" }, { "name": "silent" }],
            "results": [{
                "scenario": "flow",
                "summary": [row("z", ratios), row("floor", json!({}))],
                "runs": [{ "broker": "silent", "round": 2, "failures": ["it lost one"] }, { "broker": "z", "round": 1, "failures": [] }],
            }],
        });
        let part = &parts(&document).unwrap()[0];
        assert_eq!(part.baselines, ["z", "floor"]);
        assert_eq!((part.figures.len(), part.figures[0].rows.len()), (1, 2));
        assert_eq!(part.figures[0].rows[0].ratios, [Some((2.0, 1.0, 3.0)), Some((9.0, 8.0, 10.0))]);
        assert_eq!(part.figures[0].rows[1].ratios, [None, None]);
        assert_eq!((part.failed_of(2), part.failed_of(0)), ((1, 1), (0, 1)));
    }

    #[test]
    fn a_line_is_the_median_where_the_places_agree_and_the_last_round_where_they_do_not() {
        let agree =
            [vec![(1.0, 5.0), (2.0, 6.0)], vec![(1.0, 7.0), (2.0, 9.0)], vec![(1.0, 6.0), (2.0, 100.0)]];
        assert_eq!(typical(&agree), Some((vec![(1.0, 6.0), (2.0, 9.0)], true)));
        let differ = [vec![(1.0, 5.0), (2.0, 6.0)], vec![(1.5, 7.0), (2.5, 9.0)]];
        assert_eq!(typical(&differ), Some((differ[1].clone(), false)));
        assert_eq!(typical(&[]), None);
    }

    #[test]
    fn a_run_that_failed_has_no_part_in_a_curve() {
        let curve = |y: f64| json!([{ "name": "waits", "x": "s", "y": "ms", "logarithmic_x": true, "points": [[1.0, y], [2.0, null]] }]);
        let runs = [
            json!({ "curves": curve(3.0), "failures": [] }),
            json!({ "curves": curve(9.0), "failures": ["lost"] }),
        ];
        let mut part = Part { brokers: vec!["one".to_owned()], ..Part::default() };
        part.take_runs(&runs, |_| "one".to_owned());
        assert_eq!(part.curves.len(), 1);
        assert!(part.curves[0].logarithmic_x);
        assert_eq!(part.curves[0].lines, [Line { broker: 0, points: vec![(1.0, 3.0)] }]);
    }

    #[test]
    fn a_sweep_and_a_single_run_are_shown_too_and_nothing_is_an_error() {
        let cells = json!({ "scenario": "hold-curve", "cells": [{ "recipients": "lan", "hold_ms": 5, "figures": { "rate": { "median": 2.0, "min": 1.0, "max": 3.0, "unit": "msg/s" } } }] });
        let part = &parts(&cells).unwrap()[0];
        assert_eq!(
            (part.brokers[0].as_str(), part.figures[0].rows[0].value),
            ("lan, hold 5 ms", (2.0, 1.0, 3.0))
        );
        let single = json!({ "scenario": "flow", "broker": { "address": "127.0.0.1:1" }, "outcome": { "figures": { "rate": { "value": 7.0, "unit": "msg/s" } }, "failures": [] } });
        let part = &parts(&single).unwrap()[0];
        assert_eq!((part.brokers[0].as_str(), part.figures[0].rows[0].value.0), ("127.0.0.1:1", 7.0));
        assert!(parts(&json!({ "scenario": "flow" })).is_err());
    }
}
