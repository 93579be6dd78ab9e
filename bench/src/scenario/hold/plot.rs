//! The hold-off curve as a drawing: what is never written, and what senders wait, over the setting.
//!
//! Plain SVG with everything in it, on a light ground. The horizontal axis is logarithmic; 0 has a place of its own at
//! its left, behind a gap. A point is the median over the rounds, a bar from the least to the greatest where they differ.

use std::fmt::Write as _;

use super::sweep::Cell;
use crate::load::recipients::Mixture;
use crate::report::svg::{self, Scale};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 760.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 830.0;
/// Where 0 stands, and where the logarithmic part begins and ends.
const ZERO_X: f64 = 130.0;
const LOG_X: (f64, f64) = (230.0, 800.0);

/// One of the two panels.
struct Panel {
    title: &'static str,
    scale: Scale,
    ticks: &'static [f64],
    /// Figure, what the legend calls it, and how the line is dashed.
    lines: &'static [(&'static str, &'static str, &'static str)],
}

const PANELS: [Panel; 2] = [
    Panel {
        title: "Accepted messages that are never written, %",
        scale: Scale { top: 90.0, bottom: 330.0, range: (0.0, 100.0), logarithmic: false },
        ticks: &[0.0, 20.0, 40.0, 60.0, 80.0, 100.0],
        lines: &[("hit rate", "never written", "")],
    },
    Panel {
        title: "How long a sender waits for its acknowledgement, ms",
        scale: Scale { top: 420.0, bottom: 660.0, range: (0.1, 10_000.0), logarithmic: true },
        ticks: &[0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0],
        lines: &[("sender acknowledgement p99", "p99", ""), ("sender acknowledgement p50", "p50", "6 4")],
    },
];

fn colour(mixture: Mixture) -> &'static str {
    match mixture {
        Mixture::Lan => "#0060a8",
        Mixture::Phones => "#b84a00",
    }
}

fn described(mixture: Mixture) -> &'static str {
    match mixture {
        Mixture::Lan => "lan: all connected, acknowledge within 5 ms",
        Mixture::Phones => "phones: half away, others 20 ms and more",
    }
}

/// The horizontal place of a value; the logarithmic part spans those above 0.
fn x(hold_ms: u32, cells: &[Cell<'_>]) -> f64 {
    let above = || cells.iter().map(|cell| cell.hold_ms).filter(|hold_ms| *hold_ms > 0);
    let (Some(least), Some(greatest)) = (above().min(), above().max()) else { return ZERO_X };
    if hold_ms == 0 {
        return ZERO_X;
    }
    let decades = (f64::from(greatest) / f64::from(least)).log10();
    let share = if decades > 0.0 { (f64::from(hold_ms) / f64::from(least)).log10() / decades } else { 0.5 };
    LOG_X.0 + share * (LOG_X.1 - LOG_X.0)
}

/// The drawing of a sweep's result.
pub(super) fn draw(cells: &[Cell<'_>]) -> String {
    let mut svg = svg::begin(WIDTH, HEIGHT);
    svg::text(&mut svg, LEFT, 28.0, "start", "#222222", "The hold-off curve");
    for (index, mixture) in Mixture::ALL.into_iter().enumerate() {
        svg::text(&mut svg, LEFT + 360.0 * index as f64, 52.0, "start", colour(mixture), described(mixture));
    }
    for panel in &PANELS {
        draw_panel(&mut svg, panel, cells);
    }
    svg::text(
        &mut svg,
        (LEFT + RIGHT) / 2.0,
        HEIGHT - 24.0,
        "middle",
        "#222222",
        "hold, ms (logarithmic; 0 apart)",
    );
    svg::end(svg)
}

fn draw_panel(svg: &mut String, panel: &Panel, cells: &[Cell<'_>]) {
    svg::text(svg, LEFT, panel.scale.top - 14.0, "start", "#222222", panel.title);
    for tick in panel.ticks {
        let y = panel.scale.y(*tick);
        svg::line(svg, (LEFT, y), (RIGHT, y), "#dddddd");
        svg::text(svg, LEFT - 8.0, y + 5.0, "end", "#444444", &tick.to_string());
    }
    let mut holds: Vec<u32> = cells.iter().map(|cell| cell.hold_ms).collect();
    holds.sort_unstable();
    holds.dedup();
    for hold_ms in holds {
        let at = x(hold_ms, cells);
        svg::line(svg, (at, panel.scale.bottom), (at, panel.scale.bottom + 6.0), "#444444");
        svg::text(svg, at, panel.scale.bottom + 22.0, "middle", "#444444", &hold_ms.to_string());
    }
    svg::line(svg, (LEFT, panel.scale.bottom), (RIGHT, panel.scale.bottom), "#444444");
    for mixture in Mixture::ALL {
        for (figure, name, dashes) in panel.lines {
            draw_line(svg, panel, cells, mixture, (figure, name, dashes));
        }
    }
}

fn draw_line(
    svg: &mut String,
    panel: &Panel,
    cells: &[Cell<'_>],
    mixture: Mixture,
    (figure, name, dashes): (&str, &str, &str),
) {
    let colour = colour(mixture);
    let mut points: Vec<(u32, (f64, f64, f64))> = cells
        .iter()
        .filter(|cell| cell.mixture == mixture)
        .filter_map(|cell| Some((cell.hold_ms, cell.figure(figure)?)))
        .collect();
    points.sort_by_key(|(hold_ms, _)| *hold_ms);
    let mut places = Vec::new();
    for (hold_ms, (median, min, max)) in &points {
        let (at, y) = (x(*hold_ms, cells), panel.scale.y(*median));
        places.push((at, y));
        let _ = writeln!(svg, "<circle cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
        if max > min {
            svg::line(svg, (at, panel.scale.y(*min)), (at, panel.scale.y(*max)), colour);
        }
    }
    svg::curve(svg, &places, colour, dashes);
    if let Some((hold_ms, (median, ..))) = points.last() {
        let label = format!("{} {name}", mixture.name());
        // One mixture's labels above its lines and the other's below, or they would meet where the lines come close.
        let beside = if mixture == Mixture::Lan { 18.0 } else { -9.0 };
        svg::text(svg, x(*hold_ms, cells) + 20.0, panel.scale.y(*median) + beside, "end", colour, &label);
    }
}

#[cfg(test)]
mod tests {
    use super::super::sweep::{cells, stored};
    use super::*;

    #[test]
    fn a_stored_result_is_drawn_with_both_mixtures_and_every_value() {
        let document = stored();
        let svg = draw(&cells(&document).unwrap());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        for label in [">0<", ">5<", ">1000<", ">lan p99<", ">phones p99<", ">phones never written<"] {
            assert!(svg.contains(label), "{label}");
        }
        // lan at 5 ms is the left end of the logarithmic part; 99.5 % is 1.2 below the top of its panel.
        assert!(svg.contains("<circle cx=\"230.0\" cy=\"91.2\""), "{svg}");
        // phones at 1 s is its right end; 1,001.5 ms is four of five decades up, and its spread is a bar.
        assert!(svg.contains("<circle cx=\"800.0\" cy=\"468.0\""), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 6);
    }

    #[test]
    fn every_element_is_closed_and_nothing_is_fetched_from_elsewhere() {
        let document = stored();
        let svg = draw(&cells(&document).unwrap());
        let opened = svg.matches('<').count() - svg.matches("</").count();
        let closed = svg.matches("/>").count() + svg.matches("</").count();
        assert_eq!(opened, closed);
        assert!(!svg.contains("href") && !svg.contains("url("));
    }

    #[test]
    fn zero_alone_and_one_value_alone_have_their_places() {
        let document = stored();
        let all = cells(&document).unwrap();
        assert_eq!((x(0, &all[..1]), x(5, &all[1..2])), (ZERO_X, 0.5 * (LOG_X.0 + LOG_X.1)));
    }
}
