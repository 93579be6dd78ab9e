//! The table `[rate_limits]`: how often, and how much, by scope.
//!
//! A value is a list of limits, each a scope and a rate: `"client 100/s burst 1000"`. A listener has its own list, of what it limits
//! and a rate: `"connects 500/s"`.

use super::Config;
use super::error::Complaint;
use super::setting::{Kind, Setting, choose, integer, narrow, word_of};
use crate::rates::{Excess, Limits, Rate, SCOPES, Scope, WHATS, What};

const EXCESSES: &[(&str, Excess)] = &[("pause", Excess::Pause), ("disconnect", Excess::Disconnect)];

/// What such a list limits: the scopes or whats that it may name, by their index.
fn read<T: Copy>(
    texts: &[String],
    named: &str,
    words: &[(&str, T)],
    mut set: impl FnMut(T, Rate) -> Option<Rate>,
) -> Result<(), Complaint> {
    for text in texts {
        let Some((word, rate)) = text.split_once(' ') else {
            let cure = format!("write {named} and a rate, like \"{} 100/s burst 1000\"", words[0].0);
            return Err(Complaint::new(format!("{text:?} is no limit"), cure));
        };
        let one = choose(named, word, words)?;
        let rate: Rate = rate.trim().parse().map_err(|error| {
            let cure =
                "write how many in what time: \"100/s\", \"600/min burst 50\", \"64KiB/s\", \"10_000/day\"";
            Complaint::new(format!("{text:?}: {error}"), cure)
        })?;
        if set(one, rate).is_some() {
            return Err(Complaint::new(format!("{word} is there twice"), "delete one of them"));
        }
    }
    Ok(())
}

/// The rows of a scope that may stand in the list of that; a client has its own TLS only before it is known.
fn scopes(what: What) -> Vec<(&'static str, Scope)> {
    let is_meant = |scope: &Scope| match scope {
        Scope::Listener => false,
        Scope::Client | Scope::Account => what != What::Handshakes,
        Scope::Address | Scope::Global => true,
    };
    SCOPES.into_iter().filter(is_meant).map(|scope| (scope.word(), scope)).collect()
}

fn set(config: &mut Config, what: What, texts: &[String]) -> Result<(), Complaint> {
    let by_scope = &mut config.rates.by_scope;
    by_scope.iter_mut().for_each(|limits| limits[what as usize] = None);
    read(texts, "a scope", &scopes(what), |scope, rate| by_scope[scope as usize][what as usize].replace(rate))
}

fn shown(config: &Config, what: What) -> Vec<String> {
    let limit = |scope: Scope| {
        let rate = config.rates.by_scope[scope as usize][what as usize]?;
        Some(format!("{} {rate}", scope.word()))
    };
    SCOPES.into_iter().filter_map(limit).collect()
}

/// The list of a listener.
pub(super) fn of_listener(texts: &[String]) -> Result<Limits, Complaint> {
    let mut limits = Limits::default();
    let words = WHATS.map(|what| (what.word(), what));
    read(texts, "what it limits", &words, |what, rate| limits[what as usize].replace(rate))?;
    Ok(limits)
}

/// The same as it would be written.
pub(super) fn shown_of_listener(limits: &Limits) -> Vec<String> {
    let limit = |what: What| Some(format!("{} {}", what.word(), limits[what as usize]?));
    WHATS.into_iter().filter_map(limit).collect()
}

const fn row(
    key: &'static str,
    get: fn(&Config) -> Vec<String>,
    set: fn(&mut Config, &[String]) -> Result<(), Complaint>,
) -> Setting<Config> {
    Setting { key, kind: Kind::Texts { get, set } }
}

/// In the order of the example.
pub(super) const SETTINGS: &[Setting<Config>] = &[
    row(
        "rate_limits.connects",
        |config| shown(config, What::Connects),
        |config, texts| set(config, What::Connects, texts),
    ),
    row(
        "rate_limits.handshakes",
        |config| shown(config, What::Handshakes),
        |config, texts| set(config, What::Handshakes, texts),
    ),
    row(
        "rate_limits.publishes",
        |config| shown(config, What::Publishes),
        |config, texts| set(config, What::Publishes, texts),
    ),
    row(
        "rate_limits.bytes",
        |config| shown(config, What::Bytes),
        |config, texts| set(config, What::Bytes, texts),
    ),
    row(
        "rate_limits.subscriptions",
        |config| shown(config, What::Subscriptions),
        |config, texts| set(config, What::Subscriptions, texts),
    ),
    Setting {
        key: "rate_limits.excess",
        kind: Kind::Text {
            get: |config| word_of(&config.rates.excess, EXCESSES),
            set: |config, text| {
                choose("rate_limits.excess", text, EXCESSES).map(|choice| config.rates.excess = choice)
            },
        },
    },
    integer(
        "rate_limits.address_prefix_v4",
        0,
        32,
        |config| config.rates.prefix_v4.into(),
        |config, number| config.rates.prefix_v4 = narrow(number),
    ),
    integer(
        "rate_limits.address_prefix_v6",
        0,
        128,
        |config| config.rates.prefix_v6.into(),
        |config, number| config.rates.prefix_v6 = narrow(number),
    ),
];
