//! The figures of `token-logins`: what each kind of login is called, and medians over rounds.
//!
//! Decides that a ratio is formed inside a round, to the login without credentials of the same turn: a device that comes back is
//! compared with one that comes back.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Logins;
use crate::client::token::Algorithm;
use crate::measure::slope::spread;
use crate::report::Outcome;

/// What somebody who logs in shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Nothing; the session is new.
    OpenFirst,
    /// Nothing; the session is there.
    OpenAgain,
    EdDsaFirst,
    EdDsaAgain,
    Es256First,
    Es256Again,
    Rs256First,
    Rs256Again,
}

/// The name of each figure of one kind.
struct Names {
    rate: &'static str,
    cost: &'static str,
    token_threads: &'static str,
    ratio: &'static str,
    busy: &'static str,
    generator: &'static str,
}

macro_rules! names {
    ($kind:literal) => {
        Names {
            rate: concat!($kind, ": logins"),
            cost: concat!($kind, ": server CPU per login"),
            token_threads: concat!($kind, ": of which token threads"),
            ratio: concat!($kind, ": server CPU to that without credentials"),
            busy: concat!($kind, ": server busy"),
            generator: concat!($kind, ": generator busy"),
        }
    };
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::OpenFirst,
        Kind::OpenAgain,
        Kind::EdDsaFirst,
        Kind::EdDsaAgain,
        Kind::Es256First,
        Kind::Es256Again,
        Kind::Rs256First,
        Kind::Rs256Again,
    ];

    pub(super) fn first_with(algorithm: Algorithm) -> Kind {
        match algorithm {
            Algorithm::EdDsa => Kind::EdDsaFirst,
            Algorithm::Es256 => Kind::Es256First,
            Algorithm::Rs256 => Kind::Rs256First,
        }
    }

    pub(super) fn again_with(algorithm: Algorithm) -> Kind {
        match algorithm {
            Algorithm::EdDsa => Kind::EdDsaAgain,
            Algorithm::Es256 => Kind::Es256Again,
            Algorithm::Rs256 => Kind::Rs256Again,
        }
    }

    fn is_again(self) -> bool {
        matches!(self, Kind::OpenAgain | Kind::EdDsaAgain | Kind::Es256Again | Kind::Rs256Again)
    }

    /// What it is compared with.
    fn without_credentials(self) -> Kind {
        if self.is_again() { Kind::OpenAgain } else { Kind::OpenFirst }
    }

    fn names(self) -> Names {
        match self {
            Kind::OpenFirst => names!("open, new"),
            Kind::OpenAgain => names!("open, again"),
            Kind::EdDsaFirst => names!("EdDSA, new"),
            Kind::EdDsaAgain => names!("EdDSA, again"),
            Kind::Es256First => names!("ES256, new"),
            Kind::Es256Again => names!("ES256, again"),
            Kind::Rs256First => names!("RS256, new"),
            Kind::Rs256Again => names!("RS256, again"),
        }
    }
}

/// What one kind of login gave in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Measured {
    rate: f64,
    cost_us: f64,
    token_threads_us: f64,
    server_percent: f64,
    generator_percent: f64,
}

/// All kinds, once.
#[derive(Default)]
pub(super) struct Round {
    by_kind: BTreeMap<Kind, Measured>,
    detail: serde_json::Map<String, Value>,
}

impl Round {
    pub(super) fn add(&mut self, kind: Kind, logins: &Logins, count: usize) {
        let wall_s = logins.interval.wall.as_secs_f64().max(1e-9);
        let spent_us = logins.interval.server.map_or(0.0, |server| server.cpu_us);
        let of_token_threads_us = logins.by_thread.get("token").copied().unwrap_or(0.0);
        let measured = Measured {
            rate: count as f64 / wall_s,
            cost_us: spent_us / count as f64,
            token_threads_us: of_token_threads_us / count as f64,
            server_percent: spent_us / wall_s / 1e4,
            generator_percent: 100.0 * logins.interval.generator_share,
        };
        self.by_kind.insert(kind, measured);
        self.detail.insert(format!("{kind:?}"), logins.to_json());
    }

    pub(super) fn to_json(&self) -> Value {
        json!(self.detail)
    }

    fn ratio(&self, kind: Kind) -> Option<f64> {
        let other = kind.without_credentials();
        if other == kind {
            return None;
        }
        Some(self.by_kind.get(&kind)?.cost_us / self.by_kind.get(&other)?.cost_us)
    }
}

/// Adds the median of every figure.
pub(super) fn report(outcome: &mut Outcome, rounds: &[Round]) {
    for kind in Kind::ALL {
        let names = kind.names();
        let median = |value: &dyn Fn(&Round) -> Option<f64>| {
            Some(spread(&rounds.iter().filter_map(value).collect::<Vec<f64>>())?.0)
        };
        let of = |field: fn(&Measured) -> f64| median(&|round| round.by_kind.get(&kind).map(field));
        let figures = [
            (names.rate, "logins/s, one core", of(|measured| measured.rate)),
            (names.cost, "µs", of(|measured| measured.cost_us)),
            (names.token_threads, "µs", of(|measured| measured.token_threads_us)),
            (names.ratio, "", median(&|round| round.ratio(kind))),
            (names.busy, "% of a core", of(|measured| measured.server_percent)),
            (names.generator, "% of a core", of(|measured| measured.generator_percent)),
        ];
        for (name, unit, value) in figures {
            if let Some(value) = value {
                outcome.add(name, unit, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(costs_us: &[(Kind, f64)]) -> Round {
        let measured = |cost_us| Measured {
            rate: 1e6 / cost_us,
            cost_us,
            token_threads_us: 1.0,
            server_percent: 100.0,
            generator_percent: 50.0,
        };
        let by_kind = costs_us.iter().map(|&(kind, cost_us)| (kind, measured(cost_us))).collect();
        Round { by_kind, detail: serde_json::Map::new() }
    }

    #[test]
    fn a_ratio_is_to_the_same_turn_without_credentials_in_the_same_round() {
        use Kind::{EdDsaAgain, EdDsaFirst, OpenAgain, OpenFirst};
        let rounds = [
            round(&[(OpenFirst, 100.0), (OpenAgain, 50.0), (EdDsaFirst, 150.0), (EdDsaAgain, 55.0)]),
            round(&[(OpenFirst, 10.0), (OpenAgain, 5.0), (EdDsaFirst, 15.0), (EdDsaAgain, 5.5)]),
            round(&[(OpenFirst, 20.0), (OpenAgain, 8.0), (EdDsaFirst, 40.0), (EdDsaAgain, 8.0)]),
        ];
        let mut outcome = Outcome::default();
        report(&mut outcome, &rounds);
        assert_eq!(outcome.figure("EdDSA, new: server CPU to that without credentials"), Some(1.5));
        let again = outcome.figure("EdDSA, again: server CPU to that without credentials").unwrap();
        assert!((again - 1.1).abs() < 1e-9, "{again}");
        assert_eq!(outcome.figure("EdDSA, new: server CPU per login"), Some(40.0));
        assert_eq!(outcome.figure("open, new: server CPU to that without credentials"), None);
        assert_eq!(outcome.figure("ES256, new: logins"), None, "what was not measured has no figure");
    }

    #[test]
    fn no_figure_has_the_name_of_another() {
        let of = |kind: Kind| {
            let Names { rate, cost, token_threads, ratio, busy, generator } = kind.names();
            [rate, cost, token_threads, ratio, busy, generator]
        };
        let mut names: Vec<&str> = Kind::ALL.into_iter().flat_map(of).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
