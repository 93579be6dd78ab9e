//! What the figures and curves of each kind of noise are called: figures have static names, because they are compared by
//! name.
//!
//! Decides also what of a hostile client's doing is its rate: what the server has answered where it answers, else what
//! the kernel has taken.

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
pub struct NoiseNames {
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

macro_rules! latency_names {
    ($kind:literal, $latency:literal) => {
        LatencyNames {
            quiet: concat!($kind, ": ", $latency, " p99 quiet"),
            noisy: concat!($kind, ": ", $latency, " p99 noisy"),
            ratio: concat!($kind, ": ", $latency, " p99 ratio"),
            spread: concat!($kind, ": ", $latency, " p99 by itself"),
            moved: concat!($kind, ": ", $latency, " moved"),
        }
    };
}

macro_rules! names {
    ($kind:literal, $achieved:expr) => {
        NoiseNames {
            delivery: latency_names!($kind, "delivery"),
            acknowledgement: latency_names!($kind, "acknowledgement"),
            late_quiet: concat!($kind, ": sent late p99 quiet"),
            late_noisy: concat!($kind, ": sent late p99 noisy"),
            server_quiet: concat!($kind, ": server busy quiet"),
            server_noisy: concat!($kind, ": server busy noisy"),
            memory_grew: concat!($kind, ": server memory grew"),
            memory_kept: concat!($kind, ": server memory kept after"),
            ended: concat!($kind, ": hostile ended"),
            refused: concat!($kind, ": hostile refused"),
            hostile_busy: concat!($kind, ": hostile busy"),
            curve_quiet: concat!($kind, ": delivery p99 of quiet windows"),
            curve_noisy: concat!($kind, ": delivery p99 of noisy windows"),
            curve_memory: concat!($kind, ": server memory"),
            achieved: $achieved,
        }
    };
}

impl NoiseNames {
    pub fn of(noise: Noise) -> NoiseNames {
        let rate = |name, unit, of| Some(Achieved { name, unit, of });
        match noise {
            Noise::Stalled => names!("stalled", None),
            Noise::OneByteWrites => names!(
                "one-byte-writes",
                rate("one-byte-writes: hostile rate", "writes/s", |tally| tally.bytes as f64)
            ),
            Noise::PingFlood => {
                names!(
                    "ping-flood",
                    rate("ping-flood: hostile rate", "answers/s", |tally| tally.answers as f64)
                )
            }
            Noise::MaxPackets => {
                names!(
                    "max-packets",
                    rate("max-packets: hostile rate", "MB/s", |tally| tally.bytes as f64 / 1e6)
                )
            }
            Noise::ConnectFlood => names!(
                "connect-flood",
                rate("connect-flood: hostile rate", "connections/s", |tally| tally.connections as f64)
            ),
            Noise::SubscribeFlood => names!(
                "subscribe-flood",
                rate("subscribe-flood: hostile rate", "answers/s", |tally| tally.answers as f64)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn the_names_of_a_kind_begin_with_that_kind() {
        for &noise in Noise::value_variants() {
            let names = NoiseNames::of(noise);
            let achieved = names.achieved.map_or(names.delivery.quiet, |achieved| achieved.name);
            for name in [names.acknowledgement.moved, names.curve_memory, achieved] {
                assert!(name.starts_with(&format!("{}: ", noise.name())), "{name}");
            }
        }
    }
}
