//! What the page must have whatever is in the document: nothing from outside as markup, and every failure in sight.

use serde_json::json;

use super::*;

const EVIL: &str = "<img src=x onerror=alert(1)>\"'&";

/// A document with that text wherever a text may come from outside.
fn hostile() -> Value {
    let spread = json!({ "median": 5.0, "min": 4.0, "max": 6.0 });
    let row = json!({ "broker": EVIL, "figure": "CPU per message", "unit": EVIL, "value": spread, "ratio_to": { EVIL: spread } });
    let curve = json!({ "name": EVIL, "x": EVIL, "y": EVIL, "logarithmic_x": true, "points": [[1.0, 2.0], [10.0, 3.0]] });
    let run = |failures: Value| json!({ "broker": EVIL, "round": 1, "failures": failures, "curves": [curve], "detail": { "settings": EVIL } });
    json!({
        "tool": EVIL, "measured_at_unix_s": 1_000, "command": [EVIL], "placement": EVIL, "rounds": 2,
        "machine": { "cpu": EVIL, "kernel": EVIL, "memory": EVIL, "load_average": EVIL, "cores": 2 },
        "brokers": [{ "name": EVIL, "command": { "configuration": EVIL }, "version": EVIL }, { "name": "other", "command": EVIL }],
        "results": [{ "scenario": EVIL, "summary": [row, { "broker": "other", "figure": EVIL, "unit": "", "value": spread }], "runs": [run(json!([])), run(json!([EVIL]))] }],
    })
}

#[test]
fn nothing_from_outside_becomes_markup_wherever_it_stands() {
    let page = render(&hostile()).unwrap();
    assert!(!page.contains("<img") && !page.contains("\"'&"), "{page}");
    assert!(page.matches("&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;").count() > 20);
}

#[test]
fn the_page_loads_nothing_and_runs_nothing() {
    let page = render(&hostile()).unwrap();
    for word in ["<script", "<link", "url(", "@import", " src=\"", " style=\""] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn every_tag_is_closed_in_the_order_of_opening() {
    let page = render(&hostile()).unwrap();
    let mut open: Vec<&str> = Vec::new();
    for piece in page.split('<').skip(2) {
        let (tag, rest) = piece.split_once('>').unwrap();
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "before {rest}");
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap());
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn drawings_have_words_and_tables_have_headings() {
    let page = render(&hostile()).unwrap();
    let drawings = page.matches("role=\"img\"").count();
    assert_eq!(drawings, 3, "two figures and a curve");
    assert_eq!((page.matches("<title>").count(), page.matches("<desc>").count()), (drawings + 1, drawings));
    assert!(
        page.contains("scope=\"col\"") && page.contains("scope=\"rowgroup\"") && page.contains("<caption")
    );
}

#[test]
fn a_failure_is_said_at_the_top_and_beside_the_figures_of_that_broker() {
    let failing = json!({
        "brokers": [{ "name": "one" }, { "name": "two" }],
        "results": [{
            "scenario": "flow-qos1",
            "summary": [{ "broker": "two", "figure": "rate", "unit": "msg/s", "value": { "median": 1.0, "min": 1.0, "max": 1.0 } }],
            "runs": [
                { "broker": "one", "round": 1, "failures": [] },
                { "broker": "two", "round": 1, "failures": ["pair 3 lost 1 message"] },
                { "broker": "two", "round": 2, "failures": ["pair 3 lost 1 message"] },
            ],
        }],
    });
    let page = render(&failing).unwrap();
    let place = |words: &str| page.find(words).unwrap_or_else(|| panic!("no {words}: {page}"));
    assert!(place("✗ 2 of 3 runs are no result") < place("id=\"scenario-0\""));
    assert!(place("flow-qos1, two, rounds 1, 2: </strong>") < place("pair 3 lost 1 message"));
    assert!(place("two<strong class=\"wrong\"> ✗ 2 of 2 failed") > place("<tbody>"));
    assert!(page.contains("✗ two: 2 of 2 runs are no result.") && !page.contains("✗ one"));
    let sound = json!({ "scenario": "flow", "outcome": { "figures": {}, "failures": [] } });
    assert!(!render(&sound).unwrap().contains("no result"));
}

#[test]
fn a_single_run_shows_its_figures_without_bars() {
    let single = json!({
        "scenario": "flow", "broker": { "name": "floor", "command": "x", "version": null },
        "outcome": { "figures": { "rate": { "value": 1_234_567.0, "unit": "msg/s" } }, "failures": [], "curves": [] },
    });
    let page = render(&single).unwrap();
    assert!(page.contains("<td>1,234,567</td>") && !page.contains("role=\"img\""), "{page}");
}
