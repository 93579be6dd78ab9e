//! The few shapes that the drawings of results are made of: plain SVG with everything in it, on a light ground.
//!
//! Decides how a value becomes a height and where round numbers lie on an axis; what is drawn is the callers' business.
//! Words and colours are this program's own, so nothing in them has to be escaped.

use std::fmt::Write as _;

/// Between a value and its height in a drawing, whose vertical axis goes down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    pub top: f64,
    pub bottom: f64,
    /// Values at the bottom and the top; a logarithmic scale begins above 0.
    pub range: (f64, f64),
    pub logarithmic: bool,
}

impl Scale {
    /// The height of a value; what is off the scale stands at its edge.
    pub fn y(&self, value: f64) -> f64 {
        self.bottom - share(self.range, self.logarithmic, value) * (self.bottom - self.top)
    }
}

/// Between a value and its place from left to right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Across {
    pub left: f64,
    pub right: f64,
    pub range: (f64, f64),
    pub logarithmic: bool,
}

impl Across {
    /// The place of a value; what is off the scale stands at its edge.
    pub fn x(&self, value: f64) -> f64 {
        self.left + share(self.range, self.logarithmic, value) * (self.right - self.left)
    }
}

/// How far along an axis a value is, 0 to 1. On an axis with only one value all are at its beginning.
fn share((low, high): (f64, f64), logarithmic: bool, value: f64) -> f64 {
    let share = if logarithmic {
        (value.max(low) / low).log10() / (high / low).log10()
    } else {
        (value - low) / (high - low)
    };
    if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
}

/// Round numbers from 0 up to the first that is not below `greatest`, three to six of them: an axis.
pub fn ticks(greatest: f64) -> Vec<f64> {
    let rough = greatest.max(f64::MIN_POSITIVE) / 5.0;
    let decade = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * decade).find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * decade);
    let steps = (greatest / step - 1e-9).ceil().max(1.0) as u32;
    (0..=steps).map(|index| f64::from(index) * step).collect()
}

/// Round numbers inside a range that need not begin at 0, two to six of them.
pub fn ticks_within((low, high): (f64, f64)) -> Vec<f64> {
    let all = ticks(high - low);
    let step = all.get(1).copied().unwrap_or(1.0);
    let first = (low / step - 1e-9).ceil();
    let places = (0..all.len()).map(|index| (first + index as f64) * step);
    places.filter(|place| *place <= high + 1e-9 * step).collect()
}

/// The powers of ten inside a logarithmic range, and between them twice and five times these where there are fewer than three.
pub fn decades((low, high): (f64, f64)) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let with = |factors: &[f64]| -> Vec<f64> {
        let all =
            (first..=last).flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)));
        all.filter(|place| (low * (1.0 - 1e-9)..=high * (1.0 + 1e-9)).contains(place)).collect()
    };
    let powers = with(&[1.0]);
    if powers.len() < 3 { with(&[1.0, 2.0, 5.0]) } else { powers }
}

/// An empty drawing of that size.
pub fn begin(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"14\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fdfdfb\"/>\n"
    )
}

/// The drawing, complete.
pub fn end(svg: String) -> String {
    svg + "</svg>\n"
}

pub fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    );
}

/// A line through all these places; `dashes` as SVG has them, or none.
pub fn curve(svg: &mut String, places: &[(f64, f64)], colour: &str, dashes: &str) {
    let mut path = String::new();
    places.iter().for_each(|(x, y)| {
        let _ = write!(path, "{x:.1},{y:.1} ");
    });
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>",
        path.trim_end()
    );
}

pub fn dot(svg: &mut String, x: f64, y: f64, colour: &str) {
    let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
}

pub fn text(svg: &mut String, x: f64, y: f64, anchor: &str, colour: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_puts_values_between_its_edges() {
        let linear = Scale { top: 10.0, bottom: 110.0, range: (0.0, 50.0), logarithmic: false };
        assert_eq!((linear.y(0.0), linear.y(25.0), linear.y(50.0)), (110.0, 60.0, 10.0));
        assert_eq!((linear.y(-1.0), linear.y(60.0)), (110.0, 10.0), "off the scale");
        let decades = Scale { range: (1.0, 100.0), logarithmic: true, ..linear };
        assert_eq!((decades.y(0.0), decades.y(10.0), decades.y(100.0)), (110.0, 60.0, 10.0));
    }

    #[test]
    fn places_across_are_found_on_both_kinds_of_axis_and_on_one_without_width() {
        let linear = Across { left: 10.0, right: 110.0, range: (0.0, 50.0), logarithmic: false };
        assert_eq!((linear.x(0.0), linear.x(25.0), linear.x(99.0)), (10.0, 60.0, 110.0));
        let decades = Across { range: (1.0, 100.0), logarithmic: true, ..linear };
        assert_eq!((decades.x(1.0), decades.x(10.0), decades.x(100.0)), (10.0, 60.0, 110.0));
        assert_eq!(Across { range: (7.0, 7.0), ..linear }.x(7.0), 10.0);
    }

    #[test]
    fn an_axis_inside_a_range_has_round_numbers_of_that_range() {
        assert_eq!(ticks_within((2_000.0, 16_000.0)), [5_000.0, 10_000.0, 15_000.0]);
        assert_eq!(ticks_within((0.0, 10.0)), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(decades((1.1, 10_000.0)), [10.0, 100.0, 1_000.0, 10_000.0]);
        assert_eq!(decades((3.0, 60.0)), [5.0, 10.0, 20.0, 50.0]);
    }

    #[test]
    fn an_axis_has_a_few_round_numbers_and_reaches_the_greatest_value() {
        assert_eq!(ticks(100.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(101.0), [0.0, 50.0, 100.0, 150.0]);
        assert_eq!(ticks(1.0).len(), 6);
        for greatest in [0.0, 0.013, 1.7, 9.99, 740.0, 2e9] {
            let ticks = ticks(greatest);
            assert!((2..=7).contains(&ticks.len()), "{ticks:?}");
            assert!(
                ticks.last().is_some_and(|last| *last >= greatest * (1.0 - 1e-9)),
                "{greatest}: {ticks:?}"
            );
        }
    }
}
