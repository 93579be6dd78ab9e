//! What the figures and curves of each kind of hostile client are called: its name, and what they are.
//!
//! Decides also what of a hostile client's doing is its rate: what the server has answered where it answers, else what
//! the kernel has taken.
//!
//! Figures have static names, because they are compared by name. Those of a program are known when the command line is,
//! so names are made then, once for each kind, and live as long as this process.

use super::foe::Foe;
use super::hostile::Tally;
use super::noise::Noise;

/// A rate of the hostile clients.
#[derive(Clone, Copy)]
pub struct Achieved {
    pub name: &'static str,
    pub unit: &'static str,
    pub of: fn(&Tally) -> f64,
}

/// The names of what the windows say of a latency.
pub struct LatencyNames {
    pub quiet: &'static str,
    pub noisy: &'static str,
    pub ratio: &'static str,
    pub spread: &'static str,
    pub moved: &'static str,
}

/// The names of one kind.
pub struct FoeNames {
    pub delivery: LatencyNames,
    pub acknowledgement: LatencyNames,
    pub late_quiet: &'static str,
    pub late_noisy: &'static str,
    pub server_quiet: &'static str,
    pub server_noisy: &'static str,
    pub memory_grew: &'static str,
    pub memory_kept: &'static str,
    pub ended: &'static str,
    pub refused: &'static str,
    pub hostile_busy: &'static str,
    pub curve_quiet: &'static str,
    pub curve_noisy: &'static str,
    pub curve_memory: &'static str,
    /// A stalled client does nothing.
    pub achieved: Option<Achieved>,
}

impl FoeNames {
    pub fn of(foe: &Foe) -> FoeNames {
        let kind = foe.name();
        let named = |what: &str| -> &'static str { Box::leak(format!("{kind}: {what}").into_boxed_str()) };
        let latency = |latency: &str| LatencyNames {
            quiet: named(&format!("{latency} p99 quiet")),
            noisy: named(&format!("{latency} p99 noisy")),
            ratio: named(&format!("{latency} p99 ratio")),
            spread: named(&format!("{latency} p99 by itself")),
            moved: named(&format!("{latency} moved")),
        };
        FoeNames {
            delivery: latency("delivery"),
            acknowledgement: latency("acknowledgement"),
            late_quiet: named("sent late p99 quiet"),
            late_noisy: named("sent late p99 noisy"),
            server_quiet: named("server busy quiet"),
            server_noisy: named("server busy noisy"),
            memory_grew: named("server memory grew"),
            memory_kept: named("server memory kept after"),
            ended: named("hostile ended"),
            refused: named("hostile refused"),
            hostile_busy: named("hostile busy"),
            curve_quiet: named("delivery p99 of quiet windows"),
            curve_noisy: named("delivery p99 of noisy windows"),
            curve_memory: named("server memory"),
            achieved: achieved(foe, named("hostile rate")),
        }
    }
}

fn achieved(foe: &Foe, name: &'static str) -> Option<Achieved> {
    let of = |unit, of| Some(Achieved { name, unit, of });
    match foe {
        Foe::Program(_) => of("attempts/s", |tally| tally.attempts as f64),
        Foe::BuiltIn(noise) => match noise {
            Noise::Stalled => None,
            Noise::OneByteWrites => of("writes/s", |tally| tally.bytes as f64),
            Noise::PingFlood | Noise::SubscribeFlood => of("answers/s", |tally| tally.answers as f64),
            Noise::MaxPackets => of("MB/s", |tally| tally.bytes as f64 / 1e6),
            Noise::ConnectFlood => of("connections/s", |tally| tally.connections as f64),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn the_names_of_a_kind_begin_with_that_kind() {
        let program = Foe::Program("slow-hello=run {port}".parse().unwrap());
        let built_in = Noise::value_variants().iter().map(|noise| Foe::BuiltIn(*noise));
        for foe in built_in.chain([program]) {
            let names = FoeNames::of(&foe);
            let achieved = names.achieved.map_or(names.delivery.quiet, |achieved| achieved.name);
            for name in [names.acknowledgement.moved, names.curve_memory, achieved] {
                assert!(name.starts_with(&format!("{}: ", foe.name())), "{name}");
            }
        }
    }
}
