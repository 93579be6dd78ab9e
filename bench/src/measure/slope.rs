//! Least squares: what one more connection costs, and how well a straight line describes it.

/// A straight line through measured points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    pub slope: f64,
    pub intercept: f64,
    /// The share of the variation that the line explains, 0 to 1.
    pub fit: f64,
}

/// The line with the least squared error through `points` of (x, y); `None` unless two differ in x.
pub fn least_squares(points: &[(f64, f64)]) -> Option<Line> {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|point| point.0).sum::<f64>() / count;
    let mean_y = points.iter().map(|point| point.1).sum::<f64>() / count;
    let spread_x: f64 = points.iter().map(|point| (point.0 - mean_x).powi(2)).sum();
    let spread_y: f64 = points.iter().map(|point| (point.1 - mean_y).powi(2)).sum();
    let shared: f64 = points.iter().map(|point| (point.0 - mean_x) * (point.1 - mean_y)).sum();
    if points.len() < 2 || spread_x == 0.0 {
        return None;
    }
    let slope = shared / spread_x;
    // A flat line through flat points explains all there is.
    let fit = if spread_y == 0.0 { 1.0 } else { slope * shared / spread_y };
    Some(Line { slope, intercept: mean_y - slope * mean_x, fit })
}

/// The median, least and greatest of `values`; `None` if there are none.
pub fn spread(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (first, last) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median =
        if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
    Some((median, first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_on_a_line_give_that_line() {
        let points: Vec<(f64, f64)> =
            (1..=5).map(|x| (f64::from(x) * 2_000.0, f64::from(x) * 600_000.0 + 5e6)).collect();
        let line = least_squares(&points).unwrap();
        assert!((line.slope - 300.0).abs() < 1e-6, "{line:?}");
        assert!((line.intercept - 5e6).abs() < 1e-3 && (line.fit - 1.0).abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn noise_around_a_line_lowers_the_fit_and_not_the_slope() {
        let line = least_squares(&[(0.0, 1.0), (1.0, 0.0), (2.0, 3.0), (3.0, 2.0)]).unwrap();
        assert!((line.slope - 0.6).abs() < 1e-9 && (line.intercept - 0.6).abs() < 1e-9, "{line:?}");
        assert!((line.fit - 0.36).abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn one_place_has_no_slope() {
        assert_eq!(least_squares(&[]), None);
        assert_eq!(least_squares(&[(1.0, 2.0)]), None);
        assert_eq!(least_squares(&[(1.0, 2.0), (1.0, 3.0)]), None);
    }

    #[test]
    fn a_spread_has_its_median_between_its_ends() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(spread(&[4.0, 1.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(spread(&[]), None);
    }
}
