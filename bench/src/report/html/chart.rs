//! The drawings of the page: bars over brokers, and curves with a line for each broker.
//!
//! Decides where bars, lines, axes and words stand, and when a vertical axis is logarithmic. Colours are classes of the style
//! sheet, so that they follow the reader's choice of light or dark; a line also has dashes of its own, because not everybody
//! tells colours apart. Each drawing has a title and a description in words. Called by `html`.
//!
//! A drawing is narrow on purpose: on a phone it fills the width and its words stay readable.

use super::document::{Curves, Figure, Part};
use super::markup::Markup;
use crate::report::readable;
use crate::report::svg::{self, Across, Scale};

const WIDTH: f64 = 440.0;

/// Colours before they come again; the dashes have another period, so that pairs come again much later.
const COLOURS: [&str; 8] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
const DASHES: [&str; 5] = ["", "7 4", "2 3", "10 3 2 3", "14 5"];

/// Names longer than this are cut in a drawing; its description has them in full.
const NAME_LENGTH_MAX: usize = 32;

/// A vertical axis is logarithmic if the greatest value is this many times the least: else most lines lie on the ground.
const LOGARITHMIC_FROM: f64 = 100.0;

pub fn colour(broker: usize) -> &'static str {
    COLOURS[broker % COLOURS.len()]
}

fn dashes(broker: usize) -> &'static str {
    DASHES[broker % DASHES.len()]
}

/// A bar for each broker up to the median, with a whisker from the least to the greatest.
pub fn bars(page: &mut Markup, part: &Part, figure: &Figure) {
    const ROW: f64 = 36.0;
    const TOP: f64 = 6.0;
    let ground = TOP + ROW * figure.rows.len() as f64;
    let greatest = figure.rows.iter().map(|row| row.value.2).fold(0.0, f64::max);
    let ticks = svg::ticks(greatest);
    let range = (0.0, ticks.last().copied().unwrap_or(1.0));
    let across = Across { left: 4.0, right: WIDTH - 30.0, range, logarithmic: false };
    let sentence = |row: &super::document::Row| {
        format!("{} {}", part.brokers[row.broker], super::spread_text(row.value))
    };
    let described: Vec<String> = figure.rows.iter().map(sentence).collect();
    let title = format!("{}, {}", figure.name, figure.unit);
    begin(page, ground + 30.0, &title, &format!("Median, least and greatest: {}.", described.join("; ")));
    for tick in ticks {
        grid(page, (across.x(tick), TOP), (across.x(tick), ground + 4.0));
        words(page, (across.x(tick), ground + 19.0), "middle", "axis", &tick_text(tick));
    }
    for (index, row) in figure.rows.iter().enumerate() {
        let top = TOP + ROW * index as f64;
        let (median, least, greatest) = row.value;
        let failed = part.failed_of(row.broker).0 > 0;
        let name = cut(&part.brokers[row.broker]) + if failed { " ✗" } else { "" };
        words(page, (across.left, top + 13.0), "start", if failed { "wrong" } else { "name" }, &name);
        words(page, (WIDTH - 4.0, top + 13.0), "end", "value", &readable(median));
        let class = format!("bar {}{}", colour(row.broker), if failed { " failed" } else { "" });
        let width = (across.x(median) - across.left).max(1.0);
        let (x, y, width) = (place(across.left), place(top + 18.0), place(width));
        page.empty("rect", &[("class", &class), ("x", &x), ("y", &y), ("width", &width), ("height", "14")]);
        if greatest > least {
            let (from, to, middle) = (across.x(least), across.x(greatest), top + 25.0);
            whisker(page, (from, middle), (to, middle));
            whisker(page, (from, middle - 4.0), (from, middle + 4.0));
            whisker(page, (to, middle - 4.0), (to, middle + 4.0));
        }
    }
    page.close("svg");
}

/// A line for each broker.
pub fn lines(page: &mut Markup, part: &Part, curves: &Curves) {
    const HEIGHT: f64 = 300.0;
    let points = || curves.lines.iter().flat_map(|line| line.points.iter().copied());
    let logarithmic_x = curves.logarithmic_x && points().all(|point| point.0 > 0.0);
    let range = reach(points().map(|point| point.0));
    let across = Across { left: 62.0, right: WIDTH - 26.0, range, logarithmic: logarithmic_x };
    let (low, high) = reach(points().map(|point| point.1));
    let logarithmic = low > 0.0 && high / low >= LOGARITHMIC_FROM;
    let (range, rows) = vertical(low, high, logarithmic);
    let scale = Scale { top: 26.0, bottom: HEIGHT - 46.0, range, logarithmic };
    let described: Vec<String> = curves.lines.iter().map(|line| described(part, line)).collect();
    begin(page, HEIGHT, &format!("{}: {} over {}", curves.name, curves.y, curves.x), &described.join(" "));
    let suffix = |logarithmic: bool| if logarithmic { " (logarithmic)" } else { "" };
    words(page, (4.0, 14.0), "start", "axis", &(curves.y.clone() + suffix(logarithmic)));
    let x_words = curves.x.clone() + suffix(logarithmic_x);
    words(page, (f64::midpoint(across.left, across.right), HEIGHT - 8.0), "middle", "axis", &x_words);
    for row in rows {
        grid(page, (across.left, scale.y(row)), (across.right, scale.y(row)));
        words(page, (across.left - 6.0, scale.y(row) + 4.0), "end", "axis", &tick_text(row));
    }
    let columns = if logarithmic_x { svg::decades(across.range) } else { svg::ticks_within(across.range) };
    for column in columns {
        grid(page, (across.x(column), scale.top), (across.x(column), scale.bottom + 4.0));
        words(page, (across.x(column), scale.bottom + 19.0), "middle", "axis", &tick_text(column));
    }
    for line in &curves.lines {
        let places =
            line.points.iter().map(|(x, y)| format!("{},{}", place(across.x(*x)), place(scale.y(*y))));
        let places = places.collect::<Vec<_>>().join(" ");
        let class = format!("line {}", colour(line.broker));
        let dashes = dashes(line.broker);
        page.empty("polyline", &[("class", &class), ("points", &places), ("stroke-dasharray", dashes)]);
        if let [(x, y)] = line.points[..] {
            let class = format!("bar {}", colour(line.broker));
            let (x, y) = (place(across.x(x)), place(scale.y(y)));
            page.empty("circle", &[("class", &class), ("cx", &x), ("cy", &y), ("r", "3")]);
        }
    }
    page.close("svg");
}

/// Which line is whose.
pub fn legend(page: &mut Markup, part: &Part, curves: &Curves) {
    page.open("ul", &[("class", "legend")]);
    for line in &curves.lines {
        page.open("li", &[]);
        page.open(
            "svg",
            &[("viewBox", "0 0 34 10"), ("width", "34"), ("height", "10"), ("aria-hidden", "true")],
        );
        let class = format!("line {}", colour(line.broker));
        let dashes = dashes(line.broker);
        page.empty("polyline", &[("class", &class), ("points", "1,5 33,5"), ("stroke-dasharray", dashes)]);
        page.close("svg");
        page.leaf("span", &[], &part.brokers[line.broker]);
        page.close("li");
    }
    page.close("ul");
}

/// A drawing's beginning, with what it says to those who do not see it.
fn begin(page: &mut Markup, height: f64, title: &str, description: &str) {
    let size = format!("0 0 {} {}", place(WIDTH), place(height));
    page.open("svg", &[("viewBox", &size), ("role", "img"), ("class", "drawing")]);
    page.leaf("title", &[], title);
    page.leaf("desc", &[], description);
}

/// A line in words: where it begins, its greatest value and where it ends.
fn described(part: &Part, line: &super::document::Line) -> String {
    let (Some(first), Some(last)) = (line.points.first(), line.points.last()) else { return String::new() };
    let greatest = line.points.iter().map(|point| point.1).fold(f64::MIN, f64::max);
    format!(
        "{}: from {} at {} to {} at {}, at most {}.",
        part.brokers[line.broker],
        readable(first.1),
        readable(first.0),
        readable(last.1),
        readable(last.0),
        readable(greatest)
    )
}

/// The least and the greatest of what is drawn.
fn reach(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    if low > high { (0.0, 1.0) } else { (low, high) }
}

/// A vertical axis, and the places of its numbers. A linear one has 0 on it.
fn vertical(low: f64, high: f64, logarithmic: bool) -> ((f64, f64), Vec<f64>) {
    if logarithmic {
        let range = (10_f64.powf(low.log10().floor()), 10_f64.powf(high.log10().ceil()));
        return (range, svg::decades(range));
    }
    let above = svg::ticks(high.max(0.0));
    let ceiling = above.last().copied().unwrap_or(1.0);
    if low >= 0.0 {
        return ((0.0, ceiling), above);
    }
    let floor = -svg::ticks(-low).last().copied().unwrap_or(1.0);
    ((floor, ceiling.max(0.0)), svg::ticks_within((floor, ceiling.max(0.0))))
}

fn grid(page: &mut Markup, from: (f64, f64), to: (f64, f64)) {
    line(page, "grid", from, to);
}

fn whisker(page: &mut Markup, from: (f64, f64), to: (f64, f64)) {
    line(page, "whisker", from, to);
}

fn line(page: &mut Markup, class: &'static str, from: (f64, f64), to: (f64, f64)) {
    let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(place);
    page.empty("line", &[("class", class), ("x1", &x1), ("y1", &y1), ("x2", &x2), ("y2", &y2)]);
}

fn words(page: &mut Markup, at: (f64, f64), anchor: &'static str, class: &'static str, text: &str) {
    let (x, y) = (place(at.0), place(at.1));
    page.leaf("text", &[("class", class), ("x", &x), ("y", &y), ("text-anchor", anchor)], text);
}

fn place(value: f64) -> String {
    format!("{value:.1}")
}

/// A number on an axis: round as it is, it needs no zeros behind the point.
fn tick_text(value: f64) -> String {
    let text = readable(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn cut(name: &str) -> String {
    if name.chars().count() <= NAME_LENGTH_MAX {
        return name.to_owned();
    }
    name.chars().take(NAME_LENGTH_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::document::{Line, Row};
    use super::*;

    fn part(names: &[&str]) -> Part {
        Part { brokers: names.iter().map(|name| (*name).to_owned()).collect(), ..Part::default() }
    }

    #[test]
    fn a_bar_is_as_long_as_its_median_and_its_whisker_reaches_from_least_to_greatest() {
        let rows = vec![
            Row { broker: 0, value: (50.0, 25.0, 100.0), ratios: Vec::new() },
            Row { broker: 1, value: (100.0, 100.0, 100.0), ratios: Vec::new() },
        ];
        let figure = Figure { name: "cost".to_owned(), unit: "µs".to_owned(), rows };
        let mut page = Markup::default();
        bars(&mut page, &part(&["a", "b"]), &figure);
        let svg = page.finish();
        // The axis goes from 4 to 410 and ends at 100.
        assert!(svg.contains("x=\"4.0\" y=\"24.0\" width=\"203.0\""), "{svg}");
        assert!(svg.contains("x=\"4.0\" y=\"60.0\" width=\"406.0\""), "{svg}");
        assert!(svg.contains("class=\"whisker\" x1=\"105.5\" y1=\"31.0\" x2=\"410.0\" y2=\"31.0\""), "{svg}");
        assert_eq!(svg.matches("whisker").count(), 3, "only the first varies");
        assert!(
            svg.contains("<desc>Median, least and greatest: a 50.0 (25.0..100); b 100 (100..100).</desc>"),
            "{svg}"
        );
    }

    #[test]
    fn a_wide_range_is_drawn_in_decades_and_a_narrow_one_from_zero() {
        let line = |points: &[(f64, f64)]| Line { broker: 0, points: points.to_vec() };
        let drawn = |points: &[(f64, f64)]| {
            let curves = Curves {
                name: "waits".to_owned(),
                x: "one in".to_owned(),
                y: "ms".to_owned(),
                logarithmic_x: true,
                lines: vec![line(points)],
                is_median: false,
            };
            let mut page = Markup::default();
            lines(&mut page, &part(&["a"]), &curves);
            page.finish()
        };
        let wide = drawn(&[(1.0, 0.1), (10.0, 1.0), (100.0, 10.0)]);
        assert!(wide.contains("points=\"62.0,254.0 238.0,140.0 414.0,26.0\""), "{wide}");
        assert!(wide.contains("ms (logarithmic)") && wide.contains("one in (logarithmic)"));
        let narrow = drawn(&[(1.0, 5.0), (100.0, 10.0)]);
        assert!(narrow.contains("points=\"62.0,140.0 414.0,26.0\""), "{narrow}");
    }

    #[test]
    fn numbers_on_an_axis_have_no_idle_zeros_and_long_names_are_cut() {
        assert_eq!([0.0, 0.5, 20.0, 2.5, 1_000.0].map(tick_text), ["0", "0.5", "20", "2.5", "1,000"]);
        assert_eq!(cut(&"n".repeat(40)).chars().count(), NAME_LENGTH_MAX);
        assert_eq!(vertical(-5.0, 10.0, false).0, (-5.0, 10.0));
    }
}
