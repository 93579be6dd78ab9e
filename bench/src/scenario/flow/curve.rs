//! `flow-curve`: scenario `flow` at several numbers of pairs on one broker, as curves over that number.
//!
//! What it is for: a broker that is quick with a hundred busy connections may not be with thousands, where a batch of
//! events is spread over many sockets and coalesces less; or with one, where it waits for its peer all the time.
//!
//! Decides which figures of the single runs make up the result. One run after the other on the same server: sessions of
//! the last one are gone before the next begins, but its memory may not be given back. A failure anywhere fails the whole.

use anyhow::{Context, Result};
use serde_json::json;

use super::FlowSettings;
use crate::report::{self, Curve, Outcome};
use crate::server::Server;

/// The sizes, and the load at each of them.
#[derive(Clone, Debug, clap::Args)]
pub struct FlowCurveSettings {
    /// Numbers of pairs, in this order; `--pairs` has no part in it
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000,5000",
        value_parser = clap::value_parser!(u32).range(1..=9_000))]
    sizes: Vec<u32>,
    #[command(flatten)]
    flow: FlowSettings,
}

/// What is drawn over the number of pairs: the curve's name, the figure of a single run, and its unit.
const CURVES: [(&str, &str, &str); 6] = [
    ("rate", "rate", "msg/s"),
    ("server CPU per message", "server CPU per message", "µs"),
    ("delivery p99", "delivery p99", "µs"),
    ("acknowledgement p99", "acknowledgement p99", "µs"),
    ("server busy", "server busy", "% of a core"),
    ("generator busy", "generator busy", "% of a core"),
];

/// Runs it on `server`.
pub fn run(server: &Server, settings: &FlowCurveSettings) -> Result<Outcome> {
    let mut points = Vec::new();
    for &pairs in &settings.sizes {
        report::progress(&format!("{pairs} pairs"));
        let flow = FlowSettings { pairs, ..settings.flow.clone() };
        let one = super::measure(server, &flow, true).with_context(|| format!("{pairs} pairs"))?;
        points.push((pairs, one));
    }
    let mut outcome = over_pairs(&points);
    outcome.detail = json!({
        "settings": format!("{settings:?}"),
        "points": points.iter().map(|(pairs, one)| json!({ "pairs": pairs, "outcome": one.to_json() })).collect::<Vec<_>>(),
    });
    Ok(outcome)
}

/// The curves, their extremes as figures, and what went wrong where.
fn over_pairs(points: &[(u32, Outcome)]) -> Outcome {
    let mut outcome = Outcome::default();
    for (name, figure, y) in CURVES {
        let value = |(pairs, one): &(u32, Outcome)| Some((f64::from(*pairs), one.figure(figure)?));
        let points: Vec<(f64, f64)> = points.iter().filter_map(value).collect();
        if !points.is_empty() {
            outcome.curves.push(Curve { name, x: "pairs", y, logarithmic_x: true, points });
        }
    }
    let extremes = |curve: usize| {
        let values = outcome.curves.iter().find(|one| one.name == CURVES[curve].0);
        let values: Vec<f64> = values.into_iter().flat_map(|one| &one.points).map(|point| point.1).collect();
        let least = values.iter().copied().reduce(f64::min)?;
        Some((least, values.into_iter().fold(least, f64::max)))
    };
    let (rate, cost, delivery) = (extremes(0), extremes(1), extremes(2));
    let figures = [
        ("rate, least", "msg/s", rate.map(|both| both.0)),
        ("rate, greatest", "msg/s", rate.map(|both| both.1)),
        ("server CPU per message, least", "µs", cost.map(|both| both.0)),
        ("server CPU per message, greatest", "µs", cost.map(|both| both.1)),
        ("delivery p99, least", "µs", delivery.map(|both| both.0)),
        ("delivery p99, greatest", "µs", delivery.map(|both| both.1)),
    ];
    for (name, unit, value) in figures {
        if let Some(value) = value {
            outcome.add(name, unit, value);
        }
    }
    for (pairs, one) in points {
        outcome.failures.extend(one.failures.iter().map(|failure| format!("{pairs} pairs: {failure}")));
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(rate: f64, cost: Option<f64>) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.add("rate", "msg/s", rate);
        cost.into_iter().for_each(|cost| outcome.add("server CPU per message", "µs", cost));
        outcome
    }

    #[test]
    fn a_figure_becomes_a_curve_over_the_pairs_with_its_extremes() {
        let outcome =
            over_pairs(&[(1, one(5.0, Some(9.0))), (10, one(50.0, None)), (100, one(20.0, Some(3.0)))]);
        assert_eq!(outcome.curves.len(), 2, "what was not measured is not drawn");
        assert_eq!(outcome.curves[0].points, [(1.0, 5.0), (10.0, 50.0), (100.0, 20.0)]);
        assert_eq!(outcome.curves[1].points, [(1.0, 9.0), (100.0, 3.0)]);
        assert_eq!(
            (outcome.figure("rate, least"), outcome.figure("rate, greatest")),
            (Some(5.0), Some(50.0))
        );
        assert_eq!(outcome.figure("server CPU per message, greatest"), Some(9.0));
        assert_eq!(outcome.figure("delivery p99, least"), None);
    }

    #[test]
    fn what_went_wrong_at_one_size_fails_the_curve_and_says_where() {
        let mut wrong = one(1.0, None);
        wrong.failures.push("it lost one".to_owned());
        let outcome = over_pairs(&[(1, one(1.0, None)), (10, wrong)]);
        assert_eq!(outcome.failures, ["10 pairs: it lost one"]);
    }
}
