//! Draws that a seed repeats: who a message is for, when somebody comes back, how long something takes.

/// Repeatable randomness: SplitMix64 (Steele, Lea, Flood 2014), ten lines instead of a dependency.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0 and at most 1.
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Below `count`, each as likely as the others.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }

    /// Above 0, exponential with that mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let (radius, angle) = (self.unit(), self.unit());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exponential_has_its_mean_and_a_seed_repeats_it() {
        let drawn = |seed| {
            let mut random = Random::new(seed);
            (0..100_000).map(|_| random.exponential(30.0)).collect::<Vec<f64>>()
        };
        let values = drawn(3);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert!((mean - 30.0).abs() < 0.5, "{mean}");
        assert!(values.iter().all(|value| *value >= 0.0));
        // e^-1 of them are longer than the mean, which no other distribution in use here has.
        let longer = values.iter().filter(|value| **value > 30.0).count() as f64 / values.len() as f64;
        assert!((longer - 0.368).abs() < 0.01, "{longer}");
        assert_eq!(values, drawn(3));
        assert_ne!(values, drawn(4));
    }
}
