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
        let (low, high) = self.range;
        let share = if self.logarithmic {
            (value.max(low) / low).log10() / (high / low).log10()
        } else {
            (value - low) / (high - low)
        };
        self.bottom - share.clamp(0.0, 1.0) * (self.bottom - self.top)
    }
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
