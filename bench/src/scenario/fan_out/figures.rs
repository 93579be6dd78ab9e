//! What `fan-out` says of each size: the figures of the largest, curves over all, and a document of every one.
//!
//! It measures nothing itself. Called by `fan_out`.

use serde_json::{Value, json};

use super::FanOutSettings;
use super::books::Times;
use crate::load::pace::check_generator;
use crate::measure::latency::Latency;
use crate::measure::meter::Interval;
use crate::report::{Curve, Outcome};

/// What was measured at one size.
pub struct Reading {
    pub subscribers: u32,
    pub messages: u64,
    pub interval: Interval,
    pub times: Times,
    pub acknowledgement: Latency,
}

/// The figures are those of the largest size that was measured; the curves go over all sizes.
pub fn report(outcome: &mut Outcome, settings: &FanOutSettings, readings: &[Reading]) {
    let Some(largest) = readings.last() else { return };
    let Times { first, half, most, last } = &largest.times;
    outcome.add("subscribers", "at the largest size", f64::from(largest.subscribers));
    outcome.add("first recipient, p50", "ms", first.quantile_ms(0.5));
    outcome.add("half of the recipients, p50", "ms", half.quantile_ms(0.5));
    outcome.add("99 % of the recipients, p50", "ms", most.quantile_ms(0.5));
    outcome.add("last recipient, p50", "ms", last.quantile_ms(0.5));
    outcome.add("last recipient, p99", "ms", last.quantile_ms(0.99));
    outcome.add("last recipient, longest", "ms", last.longest_ms());
    if largest.acknowledgement.count() > 0 {
        outcome.add("acknowledgement, p50", "ms", largest.acknowledgement.quantile_ms(0.5));
    }
    let wall_s = largest.interval.wall.as_secs_f64().max(1e-9);
    outcome.add("deliveries", "/s", largest.deliveries() / wall_s);
    if let Some(cpu_us) = largest.cpu_us() {
        let least = readings.iter().filter_map(Reading::cpu_us).fold(f64::INFINITY, f64::min);
        outcome.add("CPU per recipient", "µs", cpu_us);
        outcome.add("CPU per recipient, to the least of all sizes", "×", cpu_us / least);
    }
    outcome.add("messages measured", "at the largest size", largest.messages as f64);
    largest.interval.report_shares(outcome);
    if settings.fan_out_rate.is_some() {
        readings.iter().for_each(|reading| check_generator(outcome, &reading.interval));
    }
    outcome.curves = curves(readings);
    outcome.curves.push(last.curve("last recipient of a message, largest size"));
}

fn curves(readings: &[Reading]) -> Vec<Curve> {
    let curve = |name, y, value: &dyn Fn(&Reading) -> Option<f64>| {
        let point = |reading: &Reading| Some((f64::from(reading.subscribers), value(reading)?));
        let points = readings.iter().filter_map(point).collect();
        Curve { name, x: "subscribers", y, logarithmic_x: true, points }
    };
    let median =
        |times: fn(&Times) -> &Latency| move |reading: &Reading| Some(times(&reading.times).quantile_ms(0.5));
    let last_us =
        |reading: &Reading| Some(reading.times.last.quantile_ms(0.5) * 1e3 / f64::from(reading.subscribers));
    vec![
        curve("first recipient, median", "ms", &median(|times| &times.first)),
        curve("half of the recipients, median", "ms", &median(|times| &times.half)),
        curve("99 % of the recipients, median", "ms", &median(|times| &times.most)),
        curve("last recipient, median", "ms", &median(|times| &times.last)),
        curve("last recipient, median, by recipient", "µs / subscribers", &last_us),
        curve("CPU per recipient", "µs", &Reading::cpu_us),
    ]
}

impl Reading {
    fn deliveries(&self) -> f64 {
        (self.messages * u64::from(self.subscribers)).max(1) as f64
    }

    fn cpu_us(&self) -> Option<f64> {
        Some(self.interval.server?.cpu_us / self.deliveries())
    }

    pub fn line(&self) -> String {
        let cpu = self.cpu_us().map_or_else(|| "unknown".to_owned(), |us| format!("{us:.3} µs"));
        format!(
            "  {} subscribers: last of them after {:.3} ms (median of {} messages), CPU per recipient {cpu}",
            self.subscribers,
            self.times.last.quantile_ms(0.5),
            self.messages,
        )
    }

    pub fn to_json(&self) -> Value {
        let Reading { subscribers, messages, interval, times, acknowledgement } = self;
        json!({
            "subscribers": subscribers, "messages": messages, "seconds": interval.wall.as_secs_f64(),
            "cpu_us_per_recipient": self.cpu_us(),
            "server_kept_waiting_us": interval.server.map(|server| server.kept_waiting_us),
            "generator_share": interval.generator_share,
            "first": times.first.to_json(), "half": times.half.to_json(),
            "most": times.most.to_json(), "last": times.last.to_json(),
            "acknowledgement": acknowledgement.to_json(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::meter::ServerInterval;
    use std::time::Duration;

    #[test]
    fn a_cost_that_rises_with_the_subscribers_shows_as_a_bend() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            settings: FanOutSettings,
        }
        let settings = Line::parse_from(["fan-out", "--fan-out-rate", "5"]).settings;
        let reading = |subscribers: u32, cpu_us: f64, last_ns: u64| {
            let server =
                ServerInterval { cpu_us, system_share: 0.5, context_switches: 1, kept_waiting_us: 0.0 };
            let mut times = Times::new().unwrap();
            times.last.record(0, last_ns);
            let interval =
                Interval { wall: Duration::from_secs(2), server: Some(server), generator_share: 0.9 };
            Reading { subscribers, messages: 10, interval, times, acknowledgement: Latency::new().unwrap() }
        };
        let mut outcome = Outcome::default();
        let readings =
            [reading(10, 400.0, 1_000), reading(100, 2_000.0, 1_000), reading(1_000, 60_000.0, 4_000)];
        report(&mut outcome, &settings, &readings);
        assert_eq!(outcome.figure("CPU per recipient"), Some(6.0));
        assert_eq!(outcome.figure("CPU per recipient, to the least of all sizes"), Some(3.0));
        assert_eq!(outcome.figure("deliveries"), Some(5_000.0));
        let cpu = outcome.curves.iter().find(|curve| curve.name == "CPU per recipient").unwrap();
        assert_eq!(cpu.points, [(10.0, 4.0), (100.0, 2.0), (1_000.0, 6.0)]);
        assert_eq!(outcome.failures.len(), 3, "at a pace a busy generator is no result, at each size");
    }
}
