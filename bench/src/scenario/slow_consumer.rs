//! Scenario `slow-consumer`: a share of the subscribers stops reading, and the others must not notice.
//!
//! Pairs in an open loop (`pairs`). First everybody reads: the waits of the pairs that will go on reading are the
//! baseline. Then the slow ones leave their sockets unread while their publishers go on; the same waits are measured
//! again, and what the server's memory does. At last the slow ones read again, and return if the server has ended them:
//! everything that was accepted for them must arrive, in order.
//!
//! A broker is free to refuse what is sent to a slow subscriber (a PUBACK with a reason code; in 3.1.1 it can only end the
//! publisher) and to end a slow one: both are counted. A publisher that is ended stays away. At QoS 0 it may drop what
//! is for the slow ones. The books of all others have no such excuse.
//!
//! Invariant: the slow ones are the first pairs; everybody else's index is at least their number.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::pairs::{Pair, Pairs, PairsLoad, Span};
use crate::client::codec::Version;
use crate::client::fleet::{Dialect, Fleet, Session};
use crate::load::pace::check_generator;
use crate::measure::clock;
use crate::measure::latency::LatencyNames;
use crate::measure::meter::{Mark, Names};
use crate::measure::process;
use crate::report::{Curve, Outcome};
use crate::server::Server;

/// What the load looks like, and who is slow for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct SlowConsumerSettings {
    /// Pairs of one publisher and one subscriber
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=9_000))]
    slow_pairs: u32,
    /// Share of the subscribers that stop reading
    #[arg(long, default_value_t = 10.0)]
    slow_percent: f64,
    /// Messages per second, all publishers together
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    slow_rate: u32,
    /// Quality of service of messages and subscriptions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    slow_qos: u8,
    /// Payload of a message, in bytes
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    slow_payload: u32,
    /// Messages of one publisher in flight; what is due beyond waits, and its wait counts
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    slow_window: u16,
    /// How long the load runs before anything is measured
    #[arg(long, default_value_t = 1.0)]
    slow_warm_up_seconds: f64,
    /// How long everybody reads
    #[arg(long, default_value_t = 10.0)]
    slow_baseline_seconds: f64,
    /// How long the slow ones do not
    #[arg(long, default_value_t = 20.0)]
    slow_seconds: f64,
    /// The longest they may take to catch up
    #[arg(long, default_value_t = 60)]
    slow_recovery_seconds_max: u64,
    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    slow_protocol: u8,
}

impl SlowConsumerSettings {
    fn version(&self) -> Version {
        if self.slow_protocol == 5 { Version::V5 } else { Version::V311 }
    }

    /// How many pairs are slow: at least one, and at least one is not.
    fn slow_count(&self) -> usize {
        let pairs = self.slow_pairs as usize;
        let share = (self.slow_percent.max(0.0) / 100.0 * pairs as f64).round() as usize;
        share.clamp(1, pairs - 1)
    }

    fn load(&self) -> PairsLoad {
        PairsLoad {
            prefix: format!("slow/{:x}{:x}", std::process::id(), clock::unix_seconds() & 0xffff),
            pairs: self.slow_pairs as usize,
            rate: self.slow_rate.into(),
            qos: self.slow_qos,
            window: self.slow_window,
            payload: self.slow_payload as usize,
            version: self.version(),
            durable: true,
        }
    }
}

/// The waits are kept second by second, for the curve over time.
const SPAN: Duration = Duration::from_secs(1);

/// At QoS 0 nobody knows what is still to come: after this long without an arrival, nothing.
const QUIET: Duration = Duration::from_secs(2);

/// Clients that are removed from a broker that goes on running are gone within this.
const FORGET_MAX: Duration = Duration::from_secs(60);

/// One run.
struct Run<'a> {
    settings: &'a SlowConsumerSettings,
    server: Option<u32>,
    fleet: Fleet,
    pairs: Pairs,
    slow: usize,
    /// Seconds since the start, and resident bytes.
    memory: Vec<(f64, f64)>,
    /// How often a slow subscriber had to return because the server had ended it.
    returned: u64,
    not_kept: u64,
}

/// Which parts of the run are which, and what the server's memory was.
struct Phases {
    baseline: std::ops::Range<usize>,
    slow: std::ops::Range<usize>,
    recovery: std::ops::Range<usize>,
    recovery_took: Duration,
    memory_before: f64,
    memory_greatest: f64,
}

/// Runs the scenario on `server`.
pub fn run(server: &Server, settings: &SlowConsumerSettings) -> Result<Outcome> {
    let dialect = Dialect { target: server.address, version: settings.version(), keep_alive_s: 1_200 };
    let mut fleet = Fleet::new(dialect)?;
    let load = settings.load();
    let mut pairs = Pairs::open(load.clone(), &mut fleet)?;
    let slow = settings.slow_count();
    // Not even before they stop: both parts of the comparison are about the same pairs.
    pairs.pairs[..slow].iter_mut().for_each(|pair| pair.watched = false);
    let (memory, pid) = (Vec::new(), server.pid);
    let mut run = Run { settings, server: pid, fleet, pairs, slow, memory, returned: 0, not_kept: 0 };
    run.run_for(settings.slow_warm_up_seconds)?;
    let first = Mark::read(pid)?;
    let baseline = run.run_for(settings.slow_baseline_seconds)?;
    let memory_before = run.resident()?;
    run.stop_reading()?;
    let slow_spans = run.run_for(settings.slow_seconds)?;
    let interval = Mark::read(pid)?.since(&first);
    let within = run.memory.iter().filter(|sample| sample.0 * 1e9 >= run.slow_from_ns(&slow_spans));
    let memory_greatest = within.map(|sample| sample.1).fold(memory_before, f64::max);
    let (recovery, recovery_took) = run.read_again()?;
    run.pairs.finish(&mut run.fleet)?;
    let phases =
        Phases { baseline, slow: slow_spans, recovery, recovery_took, memory_before, memory_greatest };

    let mut outcome = run.report(&phases)?;
    let names = Names { rate: "rate", cost: "server CPU per message", what: "msg/s" };
    let measured = load.rate as f64 * interval.wall.as_secs_f64();
    interval.report(&mut outcome, &names, measured as u64);
    interval.report_shares(&mut outcome);
    check_generator(&mut outcome, &interval);
    if !server.is_child() {
        forget(run.fleet, dialect, &load)?;
    }
    Ok(outcome)
}

/// Ends the durable sessions left in a broker that goes on running.
fn forget(open: Fleet, dialect: Dialect, load: &PairsLoad) -> Result<()> {
    let deadline = clock::now() + FORGET_MAX;
    open.leave(deadline)?;
    let mut fleet = Fleet::new(dialect)?;
    let clean = |index| Session { clean: true, subscription: None, ..load.session(index) };
    fleet.open(2 * load.pairs, deadline, &clean, &mut |_, _, _| Ok(()))?;
    fleet.leave(deadline)
}

impl Run<'_> {
    /// Runs the load second by second; which parts of the run these are.
    fn run_for(&mut self, seconds: f64) -> Result<std::ops::Range<usize>> {
        let end_ns = self.pairs.now_ns() + (seconds * 1e9) as u64;
        let first = self.pairs.spans.len();
        while self.pairs.now_ns() < end_ns {
            let span_end_ns = end_ns.min(self.pairs.now_ns() + SPAN.as_nanos() as u64);
            self.pairs.begin_span()?;
            while self.pairs.now_ns() < span_end_ns {
                self.pairs.turn(&mut self.fleet)?;
            }
            self.sample_memory()?;
        }
        Ok(first..self.pairs.spans.len())
    }

    fn slow_from_ns(&self, spans: &std::ops::Range<usize>) -> f64 {
        self.pairs.spans[spans.start].from_ns as f64
    }

    fn resident(&self) -> Result<f64> {
        self.server.map_or(Ok(0.0), |pid| Ok(process::resident(pid)?.total))
    }

    fn sample_memory(&mut self) -> Result<()> {
        if self.server.is_some() {
            self.memory.push((self.pairs.now_ns() as f64 / 1e9, self.resident()?));
        }
        Ok(())
    }

    fn stop_reading(&mut self) -> Result<()> {
        for index in 0..self.slow {
            self.pairs.pairs[index].give_up();
            self.fleet.may_end(2 * index);
            self.fleet.may_end(2 * index + 1);
            self.fleet.pause(2 * index + 1, true)?;
        }
        Ok(())
    }

    /// The slow ones read again, or return, until they have caught up; the others go on. How long it took.
    fn read_again(&mut self) -> Result<(std::ops::Range<usize>, Duration)> {
        let begin = clock::now();
        let first = self.pairs.spans.len();
        self.pairs.begin_span()?;
        for index in 0..self.slow {
            self.pairs.pairs[index].nothing_new = true;
            self.fleet.pause(2 * index + 1, false)?;
        }
        let mut returning = vec![false; self.slow];
        let mut progress = (0, clock::now());
        let mut sampled = clock::now();
        while clock::now() - begin < Duration::from_secs(self.settings.slow_recovery_seconds_max) {
            self.pairs.turn(&mut self.fleet)?;
            for (index, returning) in returning.iter_mut().enumerate() {
                self.come_back(index, returning)?;
            }
            let arrived: u64 = self.slow_pairs().map(|pair| pair.ledger.expected).sum();
            if arrived != progress.0 || self.fleet.opening() > 0 {
                progress = (arrived, clock::now());
            }
            if sampled.elapsed() >= SPAN {
                sampled = clock::now();
                self.sample_memory()?;
                self.pairs.begin_span()?;
            }
            if self.have_caught_up(clock::now() - progress.1 >= QUIET) {
                break;
            }
        }
        self.sample_memory()?;
        Ok((first..self.pairs.spans.len(), begin.elapsed()))
    }

    /// Slow subscriber `index` connects once more if the server has ended it; its session must have been kept.
    fn come_back(&mut self, index: usize, returning: &mut bool) -> Result<()> {
        let client = 2 * index + 1;
        if self.fleet.is_closed(client) {
            let session = Session { subscription: None, ..self.pairs.load.session(client) };
            self.fleet.reopen(client, session)?;
            self.returned += 1;
            *returning = true;
        } else if *returning && self.fleet.is_open(client) {
            let kept = self.fleet.links.client(client).is_some_and(|client| client.session_present);
            self.not_kept += u64::from(!kept);
            *returning = false;
        }
        Ok(())
    }

    fn have_caught_up(&self, quiet: bool) -> bool {
        if self.fleet.opening() > 0 || (self.settings.slow_qos == 0 && !quiet) {
            return false;
        }
        let caught_up = |(index, pair): (usize, &Pair)| pair.has_caught_up(self.fleet.is_closed(2 * index));
        self.slow_pairs().enumerate().all(caught_up)
    }

    fn slow_pairs(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.pairs[..self.slow].iter()
    }

    fn report(&self, phases: &Phases) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let spans = &self.pairs.spans;
        let before = Span::merged(&spans[phases.baseline.clone()])?;
        let during = Span::merged(&spans[phases.slow.clone()])?;
        let recovery = Span::merged(&spans[phases.recovery.clone()])?;
        ensure!(before.delivery.count() > 0 && during.delivery.count() > 0, "nobody who reads got anything");
        report_waits(&mut outcome, &before, &during, &recovery);
        let late = Span::merged(&spans[phases.baseline.start..phases.slow.end])?;
        outcome.add("sent late p99", "ms", late.late.quantile_ms(0.99));
        outcome.add("sent late for want of a window", "messages", late.without_window as f64);
        self.report_slow(&mut outcome, phases);
        outcome.detail["delivery_before"] = before.delivery.to_json();
        outcome.detail["delivery_during"] = during.delivery.to_json();
        let time = |span: &Span| (span.from_ns as f64 / 1e9, span.delivery.quantile_ms(0.99));
        outcome.curves = vec![
            before.delivery.curve("delivery to the others before"),
            during.delivery.curve("delivery to the others during"),
            Curve {
                name: "delivery to the others p99 over time",
                x: "s",
                y: "ms",
                logarithmic_x: false,
                points: spans.iter().filter(|span| span.delivery.count() > 0).map(time).collect(),
            },
            Curve {
                name: "server memory over time",
                x: "s",
                y: "MB",
                logarithmic_x: false,
                points: self.memory.iter().map(|(at_s, bytes)| (*at_s, bytes / 1e6)).collect(),
            },
        ];
        Ok(outcome)
    }

    /// What the server did with the slow ones, and their books and everybody's.
    fn report_slow(&self, outcome: &mut Outcome, phases: &Phases) {
        if self.server.is_some() {
            outcome.add("server memory before", "MB", phases.memory_before / 1e6);
            let grew = phases.memory_greatest - phases.memory_before;
            outcome.add("server memory grew", "MB", grew / 1e6);
        }
        let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
        for reason in self.slow_pairs().flat_map(|pair| pair.books.refused.values()) {
            *reasons.entry(format!("{reason:#04x}")).or_default() += 1;
        }
        let ended = (0..self.slow).filter(|index| self.fleet.is_closed(2 * index)).count();
        let sum = |of: &dyn Fn(&Pair) -> u64| self.slow_pairs().map(of).sum::<u64>();
        let (refused, lost) = (reasons.values().sum::<u64>(), sum(&Pair::lost));
        outcome.add("slow ones ended", "times", self.returned as f64);
        outcome.add("their publishers ended", "", ended as f64);
        outcome.add("refused for the slow", "messages", refused as f64);
        outcome.add("slow ones caught up after", "s", phases.recovery_took.as_secs_f64());
        outcome.failures = self.pairs.failures();
        if self.settings.slow_qos == 0 {
            outcome.add("dropped for the slow", "messages", lost as f64);
        } else if lost > 0 {
            let sent = sum(&|pair| pair.ledger.sent);
            let failure =
                format!("{lost} of {sent} messages for the slow were accepted and lost or out of order");
            outcome.failures.push(failure);
        }
        if self.not_kept > 0 {
            outcome.failures.push(format!("{} sessions of slow ones were not kept", self.not_kept));
        }
        outcome.detail = json!({
            "settings": format!("{:?}", self.settings),
            "slow": self.slow,
            "sent_to_slow": sum(&|pair| pair.ledger.sent),
            "repeated_to_slow": sum(&|pair| pair.ledger.repeated),
            "refused_by_reason": reasons,
            "unknown_because_their_publisher_was_ended": sum(&|pair| pair.books.in_flight.len() as u64),
            "refused_and_yet_delivered": sum(&Pair::refused_and_delivered),
        });
    }
}

/// The others' waits before, while some do not read and while these catch up, and the ratios of the first two.
fn report_waits(outcome: &mut Outcome, before: &Span, during: &Span, recovery: &Span) {
    let parts = [(before, &DELIVERY_BEFORE, &ACK_BEFORE), (during, &DELIVERY_DURING, &ACK_DURING)];
    for (span, delivery, acknowledgement) in parts {
        span.delivery.report(outcome, delivery);
        span.acknowledgement.report(outcome, acknowledgement);
    }
    if recovery.delivery.count() > 0 {
        outcome.add("delivery p99 catching up", "ms", recovery.delivery.quantile_ms(0.99));
    }
    let mut ratio = |name: &'static str, of: &dyn Fn(&Span) -> f64| {
        if of(before) > 0.0 {
            outcome.add(name, "during / before", of(during) / of(before));
        }
    };
    ratio("delivery p50 ratio", &|span| span.delivery.quantile_ms(0.5));
    ratio("delivery p99 ratio", &|span| span.delivery.quantile_ms(0.99));
    ratio("delivery p99.9 ratio", &|span| span.delivery.quantile_ms(0.999));
    ratio("acknowledgement p99 ratio", &|span| span.acknowledgement.quantile_ms(0.99));
}

const DELIVERY_BEFORE: LatencyNames = LatencyNames {
    p50: "delivery p50 before",
    p99: "delivery p99 before",
    p999: "delivery p99.9 before",
    longest: "delivery longest before",
};

const DELIVERY_DURING: LatencyNames = LatencyNames {
    p50: "delivery p50 during",
    p99: "delivery p99 during",
    p999: "delivery p99.9 during",
    longest: "delivery longest during",
};

const ACK_BEFORE: LatencyNames = LatencyNames {
    p50: "acknowledgement p50 before",
    p99: "acknowledgement p99 before",
    p999: "acknowledgement p99.9 before",
    longest: "acknowledgement longest before",
};

const ACK_DURING: LatencyNames = LatencyNames {
    p50: "acknowledgement p50 during",
    p99: "acknowledgement p99 during",
    p999: "acknowledgement p99.9 during",
    longest: "acknowledgement longest during",
};

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: SlowConsumerSettings,
    }

    fn settings(arguments: &[&str]) -> SlowConsumerSettings {
        Line::parse_from([&["slow-consumer"], arguments].concat()).settings
    }

    #[test]
    fn somebody_is_slow_and_somebody_is_not() {
        assert_eq!(settings(&[]).slow_count(), 10);
        assert_eq!(settings(&["--slow-percent", "0"]).slow_count(), 1);
        assert_eq!(settings(&["--slow-percent", "100", "--slow-pairs", "7"]).slow_count(), 6);
        assert_eq!(settings(&["--slow-percent=-5"]).slow_count(), 1);
    }

    #[test]
    fn ratios_compare_the_same_quantile_of_both_parts() {
        let span = |ms: u64| {
            let mut span = Span::merged(&[]).unwrap();
            span.delivery.record(0, ms * 1_000_000);
            span
        };
        let mut outcome = Outcome::default();
        report_waits(&mut outcome, &span(2), &span(6), &span(7));
        let close = |name: &str, value: f64| (outcome.figure(name).unwrap() - value).abs() < 0.02;
        assert!(close("delivery p99 ratio", 3.0) && close("delivery p99 catching up", 7.0));
        assert!(outcome.figure("acknowledgement p99 ratio").is_none(), "QoS 0 has none");
    }
}
