//! A run of `sustained` as a drawing: five panels over the same time, a line where the settled part begins.
//!
//! What each panel shows and how its vertical axis goes is in [`PANELS`]; a linear axis begins at 0, so that what looks
//! flat is flat.

use serde_json::Value;

use super::sample::series;
use crate::report::readable;
use crate::report::svg::{self, Scale};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 830.0;
const PANEL_HEIGHT: f64 = 140.0;
/// From one panel's top to the next one's: its title and legend stand between.
const PANEL_STEP: f64 = 200.0;
const FIRST_TOP: f64 = 90.0;

/// Values of a logarithmic axis: waits, in milliseconds.
const DECADES: (f64, f64) = (0.1, 1_000.0);

/// What the legend calls it, where it is in a sample, and its colour.
type Curve = (&'static str, &'static [&'static str], &'static str);

struct Panel {
    title: &'static str,
    /// What values are divided by.
    unit: f64,
    logarithmic: bool,
    curves: &'static [Curve],
}

const BLUE: &str = "#0060a8";
const ORANGE: &str = "#b84a00";
const GREEN: &str = "#207020";
const GREY: &str = "#777777";

const PANELS: [Panel; 5] = [
    Panel {
        title: "Disk, MB",
        unit: 1e6,
        logarithmic: false,
        curves: &[("data directory", &["disk_bytes"], BLUE), ("live messages", &["live_bytes"], GREEN)],
    },
    Panel {
        title: "Memory, MB",
        unit: 1e6,
        logarithmic: false,
        curves: &[
            ("resident", &["resident_bytes"], BLUE),
            ("without mapped files", &["anonymous_bytes"], GREEN),
        ],
    },
    Panel {
        title: "Bytes written per byte appended",
        unit: 1.0,
        logarithmic: false,
        curves: &[
            ("between samples", &["amplification", "written"], GREY),
            ("since the beginning", &["amplification", "written_so_far"], BLUE),
            ("appended and copied", &["amplification", "reclaim_so_far"], GREEN),
        ],
    },
    Panel {
        title: "Publisher's wait, and fdatasync of a file beside, ms",
        unit: 1.0,
        logarithmic: true,
        curves: &[
            ("max", &["wait_ms", "max"], ORANGE),
            ("p99.9", &["wait_ms", "p99.9"], BLUE),
            ("p50", &["wait_ms", "p50"], GREEN),
            ("fdatasync max", &["disk_ms", "max"], GREY),
        ],
    },
    Panel {
        title: "Messages queued, thousands",
        unit: 1e3,
        logarithmic: false,
        curves: &[("queued", &["queued"], BLUE)],
    },
];

/// The horizontal place of a time.
fn x(at_s: f64, end_s: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * (at_s / end_s.max(1e-9)).clamp(0.0, 1.0)
}

/// The drawing of the samples of a run.
pub fn draw(samples: &[Value], detail: &Value) -> String {
    let height = FIRST_TOP + PANEL_STEP * PANELS.len() as f64;
    let mut svg = svg::begin(WIDTH, height);
    svg::text(&mut svg, LEFT, 28.0, "start", "#222222", "Sustained store and drain");
    let end_s = series(samples, &["s"]).last().map_or(1.0, |point| point.0);
    let settled_s = detail["settled_from_s"].as_f64().unwrap_or(0.0);
    for (index, panel) in PANELS.iter().enumerate() {
        draw_panel(&mut svg, panel, FIRST_TOP + PANEL_STEP * index as f64, samples, (settled_s, end_s));
    }
    svg::text(&mut svg, (LEFT + RIGHT) / 2.0, height - 20.0, "middle", "#222222", "minutes");
    svg::end(svg)
}

/// The axis of a panel: its scale and its ticks.
fn axis(panel: &Panel, top: f64, samples: &[Value]) -> (Scale, Vec<f64>) {
    let bottom = top + PANEL_HEIGHT;
    if panel.logarithmic {
        let scale = Scale { top, bottom, range: DECADES, logarithmic: true };
        return (scale, vec![0.1, 1.0, 10.0, 100.0, 1_000.0]);
    }
    let values = panel.curves.iter().flat_map(|(_, path, _)| series(samples, path));
    let greatest = values.map(|point| point.1 / panel.unit).fold(0.0, f64::max);
    let ticks = svg::ticks(greatest);
    let high = ticks.last().copied().unwrap_or(1.0);
    (Scale { top, bottom, range: (0.0, high), logarithmic: false }, ticks)
}

fn draw_panel(svg: &mut String, panel: &Panel, top: f64, samples: &[Value], (settled_s, end_s): (f64, f64)) {
    svg::text(svg, LEFT, top - 12.0, "start", "#222222", panel.title);
    let (scale, ticks) = axis(panel, top, samples);
    for tick in ticks {
        let y = scale.y(tick);
        svg::line(svg, (LEFT, y), (RIGHT, y), "#dddddd");
        svg::text(svg, LEFT - 8.0, y + 5.0, "end", "#444444", &readable(tick));
    }
    for minute in svg::ticks(end_s / 60.0) {
        if minute * 60.0 <= end_s {
            let at = x(minute * 60.0, end_s);
            svg::line(svg, (at, scale.bottom), (at, scale.bottom + 6.0), "#444444");
            svg::text(svg, at, scale.bottom + 22.0, "middle", "#444444", &readable(minute));
        }
    }
    let settled = x(settled_s, end_s);
    svg::line(svg, (settled, scale.top), (settled, scale.bottom), "#bbbbbb");
    let mut legend = RIGHT;
    for (name, path, colour) in panel.curves.iter().rev() {
        let points = series(samples, path);
        let places: Vec<(f64, f64)> =
            points.into_iter().map(|(at_s, value)| (x(at_s, end_s), scale.y(value / panel.unit))).collect();
        svg::curve(svg, &places, colour, "");
        svg::text(svg, legend, top - 12.0, "end", colour, name);
        legend -= 8.0 * name.chars().count() as f64 + 16.0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::stored;
    use super::*;

    fn drawn() -> String {
        let document = stored();
        let detail = &document["outcome"]["detail"];
        draw(detail["samples"].as_array().unwrap(), detail)
    }

    #[test]
    fn every_panel_has_its_curves_and_a_value_its_place() {
        let svg = drawn();
        assert_eq!(svg.matches("<polyline").count(), 12);
        for label in [">Disk, MB<", ">p99.9<", ">1,000<", ">60.0<", ">10.0<", ">minutes<"] {
            assert!(svg.contains(label), "{label}");
        }
        // 1,000 MB is the top of the first panel's axis and 100 MB a tenth of it, at both ends of the time.
        assert!(svg.contains("102.3,90.0 ") && svg.contains("830.0,90.0"), "{svg}");
        assert!(svg.contains("102.3,216.0 "), "{svg}");
        // p99.9 is 10 ms, the middle of four decades, and 60,000 queued the top of theirs.
        assert!(svg.contains("830.0,760.0") && svg.contains("830.0,890.0"), "{svg}");
        // The settled part begins at a third.
        assert!(svg.contains("x1=\"336.7\" y1=\"90.0\" x2=\"336.7\" y2=\"230.0\""), "{svg}");
    }

    #[test]
    fn every_element_is_closed_and_nothing_is_fetched_from_elsewhere() {
        let svg = drawn();
        let opened = svg.matches('<').count() - svg.matches("</").count();
        let closed = svg.matches("/>").count() + svg.matches("</").count();
        assert_eq!(opened, closed);
        assert!(!svg.contains("href") && !svg.contains("url("));
    }
}
