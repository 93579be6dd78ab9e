//! A small seeded generator for the simulated world and the fault injector: the same seed gives the same numbers on
//! every machine and in every version of this program, so that a failing seed can be committed with its test.
//!
//! Not for secrets. SplitMix64 (Steele, Lea, Flood 2014): one add and three multiplications per number, full period,
//! and a seed of 0 is as good as any.

/// See the module documentation.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator whose numbers follow from `seed` alone.
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// Any 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`, which is not 0. The bias of the multiplication is below 2^-32 for bounds below 2^32.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "below(0) has no answer");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range has no answer");
        low + self.below((high - low).saturating_add(1))
    }

    /// True that many times in a thousand. Takes one number whatever the rate, so that changing a rate does not
    /// shift every later decision.
    pub fn per_mille(&mut self, rate: u32) -> bool {
        self.below(1_000) < u64::from(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_published_first_numbers_of_seed_1234567() {
        let mut random = Random::new(1_234_567);
        let numbers = [random.next_u64(), random.next_u64(), random.next_u64()];
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn below_and_between_stay_inside_and_reach_both_ends() {
        let mut random = Random::new(7);
        let mut seen = [0u32; 5];
        for _ in 0..1_000 {
            seen[random.below(5) as usize] += 1;
            let value = random.between(10, 12);
            assert!((10..=12).contains(&value));
        }
        assert!(seen.iter().all(|&count| count > 100), "{seen:?}");
    }
}
