//! What `fan-in` says of each size: the figures of the largest, curves over all, and a document of every one.
//!
//! It measures nothing itself. Called by `fan_in`.

use serde_json::{Value, json};

use super::FanInSettings;
use super::books::turns;
use crate::load::pace::check_generator;
use crate::measure::latency::{Latency, LatencyNames};
use crate::measure::meter::{Interval, Names};
use crate::report::{Curve, Outcome};

/// What was measured at one size.
pub struct Reading {
    pub publishers: u32,
    pub messages: u64,
    pub interval: Interval,
    pub delivery: Latency,
    pub acknowledgement: Latency,
    /// What each member took.
    pub taken: Vec<u64>,
}

/// The figures are those of the largest size that was measured; the curves go over all sizes.
pub fn report(outcome: &mut Outcome, settings: &FanInSettings, readings: &[Reading]) {
    let Some(largest) = readings.last() else { return };
    outcome.add("publishers", "at the largest size", f64::from(largest.publishers));
    let names = Names { rate: "rate", cost: "server CPU per message", what: "msg/s" };
    largest.interval.report(outcome, &names, largest.messages);
    largest.interval.report_shares(outcome);
    largest.delivery.report(outcome, &DELIVERY);
    largest.acknowledgement.report(outcome, &ACKNOWLEDGEMENT);
    if let Some((most, least)) = turns(&largest.taken).filter(|_| settings.fan_in_share > 1) {
        outcome.add("busiest member took", "× the mean", most);
        outcome.add("idlest member took", "× the mean", least);
    }
    if settings.fan_in_rate.is_some() {
        readings.iter().for_each(|reading| check_generator(outcome, &reading.interval));
    }
    let curve = |name, y, value: &dyn Fn(&Reading) -> Option<f64>| {
        let point = |reading: &Reading| Some((f64::from(reading.publishers), value(reading)?));
        let points = readings.iter().filter_map(point).collect();
        Curve { name, x: "publishers", y, logarithmic_x: true, points }
    };
    outcome.curves = vec![
        curve("rate", "msg/s", &|reading| Some(reading.rate())),
        curve("server CPU per message", "µs", &Reading::cpu_us),
        curve("delivery p50", "ms", &|reading| Some(reading.delivery.quantile_ms(0.5))),
        curve("delivery p99", "ms", &|reading| Some(reading.delivery.quantile_ms(0.99))),
        largest.delivery.curve("delivery, largest size"),
        largest.acknowledgement.curve("acknowledgement, largest size"),
    ];
}

const DELIVERY: LatencyNames = LatencyNames {
    p50: "delivery p50",
    p99: "delivery p99",
    p999: "delivery p99.9",
    longest: "delivery longest",
};

const ACKNOWLEDGEMENT: LatencyNames = LatencyNames {
    p50: "acknowledgement p50",
    p99: "acknowledgement p99",
    p999: "acknowledgement p99.9",
    longest: "acknowledgement longest",
};

impl Reading {
    fn rate(&self) -> f64 {
        self.messages as f64 / self.interval.wall.as_secs_f64().max(1e-9)
    }

    fn cpu_us(&self) -> Option<f64> {
        Some(self.interval.server?.cpu_us / self.messages.max(1) as f64)
    }

    pub fn line(&self) -> String {
        let cpu = self.cpu_us().map_or_else(|| "unknown".to_owned(), |us| format!("{us:.3} µs"));
        let (rate, delivery_ms) = (self.rate(), self.delivery.quantile_ms(0.5));
        let publishers = self.publishers;
        format!(
            "  {publishers} publishers: {rate:.0} msg/s, delivery p50 {delivery_ms:.3} ms, CPU per message {cpu}"
        )
    }

    pub fn to_json(&self) -> Value {
        let Reading { publishers, messages, interval, delivery, acknowledgement, taken } = self;
        json!({
            "publishers": publishers, "messages": messages, "seconds": interval.wall.as_secs_f64(),
            "rate": self.rate(), "cpu_us_per_message": self.cpu_us(),
            "server_kept_waiting_us": interval.server.map(|server| server.kept_waiting_us),
            "generator_share": interval.generator_share,
            "delivery": delivery.to_json(), "acknowledgement": acknowledgement.to_json(),
            "taken_by_member": taken,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::meter::ServerInterval;
    use std::time::Duration;

    #[test]
    fn the_figures_are_the_largest_sizes_and_the_curves_go_over_all() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            settings: FanInSettings,
        }
        let settings = Line::parse_from(["fan-in", "--fan-in-share", "2", "--fan-in-protocol", "5"]).settings;
        let reading = |publishers: u32, messages: u64| {
            let server =
                ServerInterval { cpu_us: 1e6, system_share: 0.5, context_switches: 1, kept_waiting_us: 0.0 };
            let mut delivery = Latency::new().unwrap();
            delivery.record(0, u64::from(publishers) * 1_000_000);
            let interval =
                Interval { wall: Duration::from_secs(2), server: Some(server), generator_share: 0.9 };
            let acknowledgement = Latency::new().unwrap();
            Reading { publishers, messages, interval, delivery, acknowledgement, taken: vec![3, 1] }
        };
        let mut outcome = Outcome::default();
        report(&mut outcome, &settings, &[reading(10, 1_000), reading(100, 4_000)]);
        let figures = ["publishers", "rate", "server CPU per message", "busiest member took"];
        let values = figures.map(|name| outcome.figure(name).unwrap());
        assert_eq!(values, [100.0, 2_000.0, 250.0, 1.5]);
        assert_eq!(outcome.curves[1].points, [(10.0, 1_000.0), (100.0, 250.0)]);
        assert!(outcome.failures.is_empty(), "a closed loop may keep its generator busy");
    }
}
