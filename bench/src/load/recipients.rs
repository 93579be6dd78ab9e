//! Who the recipients are and how soon they acknowledge: two mixtures, drawn from a seed.
//!
//! A recipient is in one of four states; while it is in one, the delay of each of its acknowledgements is drawn anew:
//!
//! | state | acknowledges a message after | `lan` | `phones` |
//! |---|---|---|---|
//! | awake | log-normal: `lan` median 0.8 ms, σ 0.6, cut to 0.2..5 ms; `phones` median 100 ms, σ 0.7, cut to 20..500 ms | 100 % | 42 % |
//! | slow | log-uniform 0.5..60 s: the radio sleeps, the network is bad | – | 3 % |
//! | silent | never in a run: connected as far as the broker knows, but gone | – | 5 % |
//! | away | not connected; returns after an exponential time with a mean of 600 s, then is awake | – | 50 % |
//!
//! So half of the messages to `phones` are acknowledged within 60 s (42 + 3 + 50 × (1 − e^(−60/600)) = 49.8 %), which is
//! what WhatsApp has published of its own, and the rest has a heavy tail. How the half divides into connected and away
//! is an assumption; a test holds the sum. Whenever one that was away returns, one that is awake leaves.
//!
//! Time is not scaled. What takes longer than a run (silent, most of the away and the slower half of the slow) is cut at
//! its end: for a hold of at most a second there is no difference between half a minute and a day.

use clap::ValueEnum;

use crate::load::random::Random;

/// Which recipients a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mixture {
    /// All connected, and quick
    Lan,
    /// Half are away, and of the others some are slow or silent
    Phones,
}

/// What a recipient is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Awake,
    Slow,
    Silent,
    Away,
}

/// How long a recipient that is away stays away on average, uncompressed.
pub const ABSENCE_MEAN_S: f64 = 600.0;

impl Mixture {
    pub const ALL: [Mixture; 2] = [Mixture::Lan, Mixture::Phones];

    /// As on the command line and in documents.
    pub fn name(self) -> &'static str {
        match self {
            Mixture::Lan => "lan",
            Mixture::Phones => "phones",
        }
    }

    fn shares(self) -> &'static [(State, f64)] {
        match self {
            Mixture::Lan => &[(State::Awake, 1.0)],
            Mixture::Phones => {
                &[(State::Awake, 0.42), (State::Slow, 0.03), (State::Silent, 0.05), (State::Away, 0.5)]
            }
        }
    }

    /// The state that a recipient is in when a run begins.
    pub fn state(self, random: &mut Random) -> State {
        let mut at = random.unit();
        for (state, share) in self.shares() {
            if at <= *share {
                return *state;
            }
            at -= share;
        }
        State::Awake
    }

    /// How long a recipient in that state takes to acknowledge a message that has arrived; `None`: longer than any run.
    pub fn delay_ns(self, state: State, random: &mut Random) -> Option<u64> {
        let seconds = match (self, state) {
            (_, State::Silent | State::Away) => return None,
            (_, State::Slow) => 0.5 * (60.0_f64 / 0.5).powf(random.unit()),
            (Mixture::Lan, State::Awake) => (0.8e-3 * (0.6 * random.normal()).exp()).clamp(0.2e-3, 5e-3),
            (Mixture::Phones, State::Awake) => (0.1 * (0.7 * random.normal()).exp()).clamp(0.02, 0.5),
        };
        Some((seconds * 1e9) as u64)
    }

    /// How long one that is away stays away from now on, which does not depend on how long it already was.
    pub fn absence_ns(random: &mut Random) -> u64 {
        (random.exponential(ABSENCE_MEAN_S) * 1e9) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 100_000;

    /// The share of messages acknowledged within that time.
    fn share_within(mixture: Mixture, seconds: f64) -> f64 {
        let mut random = Random::new(7);
        let within = |_: &usize| {
            let state = mixture.state(&mut random);
            let delay_ns = match state {
                State::Away => Some(Mixture::absence_ns(&mut random)),
                state => mixture.delay_ns(state, &mut random),
            };
            delay_ns.is_some_and(|delay_ns| delay_ns as f64 <= seconds * 1e9)
        };
        (0..DRAWS).filter(within).count() as f64 / DRAWS as f64
    }

    #[test]
    fn half_of_the_messages_to_phones_are_acknowledged_within_a_minute_and_the_tail_is_heavy() {
        assert!((share_within(Mixture::Phones, 60.0) - 0.498).abs() < 0.005);
        assert!((share_within(Mixture::Phones, 600.0) - 0.766).abs() < 0.005, "a quarter takes ten minutes");
        assert!(share_within(Mixture::Phones, 0.019) < 0.001, "only who happens to return just then");
    }

    #[test]
    fn phones_that_are_awake_have_the_round_trip_of_a_mobile_network() {
        // Of all messages; 42 % go to phones that are awake. Φ(0) = 0.5, Φ(ln 2 / 0.7) = 0.839.
        assert!((share_within(Mixture::Phones, 0.1) - 0.42 * 0.5).abs() < 0.005);
        assert!((share_within(Mixture::Phones, 0.2) - 0.42 * 0.839).abs() < 0.005);
        assert!((share_within(Mixture::Phones, 0.5) - 0.42).abs() < 0.005);
    }

    #[test]
    fn everybody_in_a_lan_acknowledges_within_five_milliseconds() {
        assert_eq!(share_within(Mixture::Lan, 0.000_199), 0.0);
        assert!((share_within(Mixture::Lan, 0.8e-3) - 0.5).abs() < 0.01);
        assert_eq!(share_within(Mixture::Lan, 5.001e-3), 1.0);
    }

    #[test]
    fn a_seed_gives_the_same_recipients_again_and_another_one_others() {
        let drawn = |seed| {
            let mut random = Random::new(seed);
            (0..50).map(|_| (Mixture::Phones.state(&mut random), random.below(1_000))).collect::<Vec<_>>()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert!(drawn(1).iter().all(|(_, below)| *below < 1_000));
    }
}
