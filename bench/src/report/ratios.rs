//! A drawing of what brokers cost beside one of them: a line for each broker and figure of a comparison, from the least to
//! the greatest ratio with a dot at the median, all on one logarithmic axis.
//!
//! Decides which figures are costs that belong there (`title`). Made by `report --ratios` from what `compare` wrote.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::readable;
use super::svg::{self, Across};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 300.0;
const RIGHT: f64 = 800.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 16.0;
/// From one line to the next, and from one figure to the next besides.
const LINE: f64 = 18.0;
const GAP: f64 = 12.0;

const INK: &str = "#222222";
const GREY: &str = "#cccccc";
/// Of the brokers, in the order in which they come; more begin anew.
const COLOURS: [&str; 5] = ["#777777", "#0060a8", "#b84a00", "#207020", "#7a3a8a"];

/// Median, least and greatest.
type Spread = (f64, f64, f64);

/// A figure, and the ratio of each broker that has one.
type Group = (String, Vec<(String, Spread)>);

/// The drawing of what the brokers in `document` cost, each figure of `baseline` taken as 1.
pub fn render(document: &Value, baseline: &str) -> Result<String> {
    let groups = groups(document, baseline);
    ensure!(!groups.is_empty(), "no cost in it has a ratio to {baseline}");
    Ok(draw(&groups, baseline))
}

/// What a figure is called there; nothing if it is not a cost.
fn title(scenario: &str, figure: &str) -> Option<String> {
    match figure {
        "server CPU per message" => Some(format!("CPU per message, {scenario}")),
        "CPU per connect and subscribe" | "CPU per ping" | "user memory per connection" => {
            Some(figure.to_owned())
        }
        _ => None,
    }
}

fn groups(document: &Value, baseline: &str) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for result in list(&document["results"]) {
        for row in list(&result["summary"]) {
            let title = title(&text(&result["scenario"]), &text(&row["figure"]));
            let broker = text(&row["broker"]);
            let Some((title, ratio)) = title.zip(spread(&row["ratio_to"][baseline])) else { continue };
            if broker == baseline {
                continue;
            }
            let known = groups.iter().position(|(known, _)| *known == title).unwrap_or_else(|| {
                groups.push((title, Vec::new()));
                groups.len() - 1
            });
            groups[known].1.push((broker, ratio));
        }
    }
    groups
}

fn spread(value: &Value) -> Option<Spread> {
    let part = |name: &str| value[name].as_f64().filter(|ratio| *ratio > 0.0);
    Some((part("median")?, part("min")?, part("max")?))
}

fn draw(groups: &[Group], baseline: &str) -> String {
    let bars = || groups.iter().flat_map(|(_, bars)| bars);
    let mut brokers: Vec<&str> = Vec::new();
    for (broker, _) in bars() {
        if !brokers.contains(&broker.as_str()) {
            brokers.push(broker);
        }
    }
    let low = bars().map(|(_, ratio)| ratio.1).fold(0.9, f64::min);
    let high = bars().map(|(_, ratio)| ratio.2).fold(2.0, f64::max);
    let across = Across { left: LEFT, right: RIGHT, range: (low * 0.95, high * 1.05), logarithmic: true };
    let bottom = TOP + bars().count() as f64 * LINE + groups.len() as f64 * GAP;
    let mut drawing = svg::begin(WIDTH, bottom + BOTTOM);
    let heading = format!("Cost beside {}, which is 1: less is better", escaped(baseline));
    svg::text(&mut drawing, 16.0, 26.0, "start", INK, &heading);
    for (index, broker) in brokers.iter().enumerate() {
        let x = 16.0 + index as f64 * 150.0;
        svg::dot(&mut drawing, x + 4.0, 47.0, colour(index));
        svg::text(&mut drawing, x + 14.0, 52.0, "start", INK, &escaped(broker));
    }
    let places = svg::decades(across.range).into_iter().filter(|place| *place != 1.0);
    for place in places.chain([1.0]) {
        let colour = if place == 1.0 { INK } else { GREY };
        svg::line(&mut drawing, (across.x(place), TOP - 14.0), (across.x(place), bottom), colour);
        svg::text(&mut drawing, across.x(place), TOP - 20.0, "middle", INK, &format!("× {}", short(place)));
    }
    let mut y = TOP;
    for (title, bars) in groups {
        let middle = y + bars.len() as f64 * LINE / 2.0;
        svg::text(&mut drawing, LEFT - 14.0, middle + 5.0, "end", INK, &escaped(title));
        for (broker, (median, least, greatest)) in bars {
            let index = brokers.iter().position(|known| known == broker).unwrap_or(0);
            let height = y + LINE / 2.0;
            let ends = [(across.x(*least), height), (across.x(*greatest), height)];
            svg::curve(&mut drawing, &ends, colour(index), "");
            svg::dot(&mut drawing, across.x(*median), height, colour(index));
            svg::text(
                &mut drawing,
                ends[1].0 + 8.0,
                height + 5.0,
                "start",
                colour(index),
                &readable(*median),
            );
            y += LINE;
        }
        y += GAP;
    }
    svg::end(drawing)
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

/// A round number as one says it.
fn short(value: f64) -> String {
    format!("{value}")
}

/// A broker's name is whatever somebody called it.
fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(broker: &str, figure: &str, median: f64) -> Value {
        let ratio = json!({ "median": median, "min": median / 2.0, "max": median * 2.0 });
        json!({ "broker": broker, "figure": figure, "ratio_to": { "floor": ratio } })
    }

    #[test]
    fn costs_are_drawn_for_each_broker_but_the_one_that_is_1() {
        let document = json!({ "results": [
            { "scenario": "flow-qos0", "summary": [
                row("floor", "server CPU per message", 1.0), row("a<b", "server CPU per message", 4.0),
                row("a<b", "rate", 9.0), row("other", "server CPU per message", 16.0),
            ] },
            { "scenario": "connections", "summary": [row("other", "CPU per ping", 1.25)] },
        ] });
        let groups = groups(&document, "floor");
        let names: Vec<&str> = groups.iter().map(|(title, _)| title.as_str()).collect();
        assert_eq!(names, ["CPU per message, flow-qos0", "CPU per ping"]);
        assert_eq!(groups[0].1[0], ("a<b".to_owned(), (4.0, 2.0, 8.0)));
        assert_eq!((groups[0].1.len(), groups[1].1.len()), (2, 1));
        let drawing = render(&document, "floor").unwrap();
        assert!(drawing.contains("a&lt;b") && !drawing.contains("a<b"), "{drawing}");
        assert_eq!(drawing.matches("<polyline").count(), 3);
        assert!(drawing.contains(">16.0</text>"), "{drawing}");
    }

    #[test]
    fn a_document_without_ratios_to_that_broker_is_refused() {
        let document =
            json!({ "results": [{ "scenario": "flow-qos0", "summary": [row("a", "rate", 1.0)] }] });
        assert!(render(&document, "floor").is_err());
        assert!(render(&json!({}), "floor").is_err());
    }
}
