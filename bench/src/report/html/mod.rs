//! A result document as one page that needs nothing else: no script, no picture, no font from elsewhere.
//!
//! Decides what stands where: what went wrong first, then each scenario with its drawings and its table, then machine,
//! brokers and command. A reader with a keyboard reaches everything, one with a screen reader gets tables with
//! headings and drawings with descriptions, and a phone scrolls a wide table rather than the page.
//!
//! `document` reads the document, `chart` draws, `head` writes what was measured with what, `markup` is the only way that
//! text gets into the page, escaped. Called by `main` for `--html` and `report`.

mod chart;
mod document;
mod head;
mod markup;

use anyhow::Result;
use serde_json::Value;

use self::document::{Figure, Part, Row, Spread};
use self::markup::Markup;
use crate::report::readable;

/// Figures with one of these in their names are drawn in the open; the others can be unfolded.
const KEY_WORDS: [&str; 7] = ["CPU per", "memory per", "slab per", "rate", "p50", "p99", "never written"];

/// The page of a document.
pub fn render(document: &Value) -> Result<String> {
    let parts = document::parts(document)?;
    let mut page = Markup::default();
    page.own("<!doctype html>\n");
    page.open("html", &[("lang", "en")]);
    page.open("head", &[]);
    page.empty("meta", &[("charset", "utf-8")]);
    page.empty("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
    page.empty("meta", &[("name", "color-scheme"), ("content", "light dark")]);
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    page.leaf("title", &[], &format!("{}: broker measurements", names.join(", ")));
    page.open("style", &[]);
    page.own(include_str!("style.css"));
    page.close("style");
    page.close("head");
    page.open("body", &[]);
    page.open("header", &[]);
    page.leaf("h1", &[], "Broker measurements");
    head::summary(&mut page, document, &parts);
    page.close("header");
    page.open("main", &[]);
    verdict(&mut page, &parts);
    if parts.len() > 1 {
        contents(&mut page, &parts);
    }
    for (index, part) in parts.iter().enumerate() {
        scenario(&mut page, part, index);
    }
    head::particulars(&mut page, document);
    page.close("main");
    page.close("body");
    page.close("html");
    Ok(page.finish())
}

/// Whether the figures may be believed; if not, which.
fn verdict(page: &mut Markup, parts: &[Part]) {
    let runs: usize = parts.iter().map(|part| part.runs.len()).sum();
    let failed: usize = parts.iter().map(|part| part.failed().count()).sum();
    if failed == 0 {
        let words =
            format!("{} of {runs} runs kept their books: nothing was lost, repeated or misrouted.", runs);
        page.leaf("p", &[("class", "verdict sound")], &words);
        return;
    }
    page.open("section", &[("class", "verdict wrong"), ("aria-labelledby", "wrong")]);
    page.leaf("h2", &[("id", "wrong")], &format!("✗ {failed} of {runs} runs are no result"));
    page.open("ul", &[]);
    for part in parts {
        for (broker, failures, rounds) in alike(part) {
            page.open("li", &[]);
            let word = if rounds.len() == 1 { "round" } else { "rounds" };
            let whose = format!("{}, {}, {word} {}: ", part.name, part.brokers[broker], rounds.join(", "));
            page.leaf("strong", &[], &whose);
            page.text(failures.join("; ").trim_end());
            page.close("li");
        }
    }
    page.close("ul");
    page.close("section");
}

/// What went wrong in the same way in several rounds of a broker is said once.
fn alike(part: &Part) -> Vec<(usize, &[String], Vec<String>)> {
    let mut all: Vec<(usize, &[String], Vec<String>)> = Vec::new();
    for run in part.failed() {
        let round = run.round.to_string();
        match all.iter_mut().find(|(broker, failures, _)| *broker == run.broker && *failures == run.failures)
        {
            Some((_, _, rounds)) => rounds.push(round),
            None => all.push((run.broker, &run.failures, vec![round])),
        }
    }
    all
}

fn contents(page: &mut Markup, parts: &[Part]) {
    page.open("nav", &[("aria-label", "Scenarios")]);
    page.open("ul", &[]);
    for (index, part) in parts.iter().enumerate() {
        page.open("li", &[]);
        page.leaf("a", &[("href", &format!("#scenario-{index}"))], &part.name);
        page.close("li");
    }
    page.close("ul");
    page.close("nav");
}

fn scenario(page: &mut Markup, part: &Part, index: usize) {
    let id = format!("scenario-{index}");
    page.open("section", &[("id", &id), ("aria-labelledby", &format!("{id}-name"))]);
    page.leaf("h2", &[("id", &format!("{id}-name"))], &part.name);
    for broker in 0..part.brokers.len() {
        // One whose every run failed may have no row below at all.
        if let (failed @ 1.., runs) = part.failed_of(broker) {
            let words = format!("✗ {}: {failed} of {runs} runs are no result.", part.brokers[broker]);
            page.leaf("p", &[("class", "wrong")], &words);
        }
    }
    if part.compares() {
        let is_key = |figure: &&Figure| KEY_WORDS.iter().any(|word| figure.name.contains(word));
        let (key, other): (Vec<&Figure>, Vec<&Figure>) = part.figures.iter().partition(is_key);
        bars(page, part, &key);
        if !other.is_empty() {
            page.open("details", &[]);
            page.leaf("summary", &[], "Drawings of the other figures");
            bars(page, part, &other);
            page.close("details");
        }
    }
    curves(page, part);
    table(page, part, &id);
    if let Some(settings) = &part.settings {
        page.open("details", &[]);
        page.leaf("summary", &[], "Settings of the load");
        page.leaf("p", &[("class", "settings")], settings);
        page.close("details");
    }
    page.close("section");
}

fn bars(page: &mut Markup, part: &Part, figures: &[&Figure]) {
    page.open("div", &[("class", "drawings")]);
    for figure in figures {
        page.open("figure", &[]);
        page.open("figcaption", &[]);
        page.text(&figure.name);
        page.leaf("span", &[("class", "unit")], &format!(", {}", figure.unit));
        page.close("figcaption");
        chart::bars(page, part, figure);
        page.close("figure");
    }
    page.close("div");
}

fn curves(page: &mut Markup, part: &Part) {
    page.open("div", &[("class", "drawings")]);
    for curves in &part.curves {
        page.open("figure", &[]);
        page.open("figcaption", &[]);
        page.text(&curves.name);
        let rounds = if curves.is_median { ", median over the rounds" } else { "" };
        page.leaf("span", &[("class", "unit")], rounds);
        page.close("figcaption");
        if part.compares() {
            chart::legend(page, part, curves);
        }
        chart::lines(page, part, curves);
        page.close("figure");
    }
    page.close("div");
}

/// Figure by figure, so that brokers stand below each other.
fn table(page: &mut Markup, part: &Part, id: &str) {
    if part.figures.is_empty() {
        page.leaf("p", &[], "No run came to an end, so there are no figures.");
        return;
    }
    let label = format!("{id}-table");
    // What scrolls must be reachable by keyboard, and say what it is.
    let around =
        [("class", "wide"), ("role", "region"), ("tabindex", "0"), ("aria-labelledby", label.as_str())];
    page.open("div", &around);
    page.open("table", &[]);
    let what = if part.compares() { "median over the rounds, with least and greatest" } else { "figures" };
    page.leaf("caption", &[("id", &label)], &format!("{}: {what}", part.name));
    page.open("thead", &[]);
    page.open("tr", &[]);
    let mut columns =
        vec!["Figure".to_owned(), "Broker".to_owned(), "Median".to_owned(), "Least … greatest".to_owned()];
    if !part.compares() {
        columns = vec!["Figure".to_owned(), "Value".to_owned()];
    }
    columns.extend(part.baselines.iter().map(|name| format!("÷ {name}")));
    for column in &columns {
        page.leaf("th", &[("scope", "col")], column);
    }
    page.close("tr");
    page.close("thead");
    for figure in &part.figures {
        page.open("tbody", &[]);
        for (index, row) in figure.rows.iter().enumerate() {
            page.open("tr", &[]);
            if index == 0 {
                let rows = figure.rows.len().to_string();
                let scope = if part.compares() { "rowgroup" } else { "row" };
                page.open("th", &[("scope", scope), ("rowspan", &rows)]);
                page.text(&figure.name);
                page.leaf("span", &[("class", "unit")], &format!(", {}", figure.unit));
                page.close("th");
            }
            cells(page, part, row);
            page.close("tr");
        }
        page.close("tbody");
    }
    page.close("table");
    page.close("div");
}

fn cells(page: &mut Markup, part: &Part, row: &Row) {
    let (median, least, greatest) = row.value;
    if !part.compares() {
        page.leaf("td", &[], &readable(median));
        return;
    }
    page.open("th", &[("scope", "row"), ("class", "broker")]);
    let class = format!("swatch {}", chart::colour(row.broker));
    page.leaf("span", &[("class", &class), ("aria-hidden", "true")], "");
    page.text(&part.brokers[row.broker]);
    let (failed, runs) = part.failed_of(row.broker);
    if failed > 0 {
        page.leaf("strong", &[("class", "wrong")], &format!(" ✗ {failed} of {runs} failed"));
    }
    page.close("th");
    page.leaf("td", &[], &readable(median));
    page.leaf("td", &[], &format!("{} … {}", readable(least), readable(greatest)));
    for (ratio, baseline) in row.ratios.iter().zip(&part.baselines) {
        match ratio {
            Some(ratio) if *baseline != part.brokers[row.broker] => {
                page.leaf("td", &[], &spread_text(*ratio))
            }
            _ => page.leaf("td", &[], "–"),
        }
    }
}

fn spread_text((median, least, greatest): Spread) -> String {
    format!("{} ({}..{})", readable(median), readable(least), readable(greatest))
}

#[cfg(test)]
mod tests;
