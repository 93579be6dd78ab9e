//! Scenario `noisy-neighbour`: hostile clients beside well-behaved ones, whose latency must not move.
//!
//! Pairs in an open loop (`pairs`) run all the time on one server. For each kind of hostile client (`foe`: built in, as `noise`
//! has them, or a program) windows alternate quiet, noisy, quiet, …; hostile clients come with a noisy window and leave after it, and what lies between
//! two windows is not measured. `verdict` says whether the noise moved the p99 of delivery and of
//! acknowledgement by more than it may; that is a finding, not a failure. The run fails if the books of the well-behaved are not clean,
//! if a program says that the server did what it must not, or if the generator was too busy.
//!
//! Hostile clients have a thread (`hostile`) that only takes what the well-behaved clients' loop leaves of its CPU. The
//! generator's share is that loop's own.

mod foe;
mod hostile;
mod names;
mod noise;
mod program;
mod verdict;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

use self::foe::{Foe, Scene};
use self::hostile::Tally;
use self::names::{FoeNames, LatencyNames};
use self::noise::Noise;
use self::program::Program;
use self::verdict::{Alternation, Finding, Verdict};
use super::pairs::{Pairs, PairsLoad, Span};
use crate::client::codec::Version;
use crate::client::fleet::{Dialect, Fleet};
use crate::client::tls;
use crate::load::pace::check_generator;
use crate::measure::clock;
use crate::measure::meter::{Interval, Mark};
use crate::measure::process;
use crate::measure::slope::spread;
use crate::report::{self, Curve, Outcome};
use crate::server::Server;

/// What the well-behaved do, and who disturbs them how often.
#[derive(Clone, Debug, clap::Args)]
pub struct NoisyNeighbourSettings {
    /// Kinds of hostile clients, one after the other [default: all, unless there is a program]
    #[arg(long, value_enum, value_delimiter = ',')]
    noise: Vec<Noise>,
    /// Hostile clients that are a program, with {address}, {port} and {pid} of the server; may be given again. It prints
    /// "ready"; SIGTERM ends it, and then it prints {"attempts": N, "refused": N, "closed": N, "violations": []}
    #[arg(long, value_name = "NAME=COMMAND")]
    hostile: Vec<Program>,
    /// Hostile clients at once; every second one uses QoS 1 where that makes a difference
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    noise_clients: u32,
    /// Noisy windows of each kind, each between two quiet ones
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    alternations: u32,
    /// How long a window is
    #[arg(long, default_value_t = 3.0)]
    noise_seconds: f64,
    /// What passes between two windows
    #[arg(long, default_value_t = 0.5)]
    noise_settle_seconds: f64,
    /// How long the well-behaved run before the first window
    #[arg(long, default_value_t = 1.0)]
    noise_warm_up_seconds: f64,
    /// The size of a packet of `max-packets`, in bytes; halved until the server accepts it
    #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1_024..=256 << 20))]
    noise_packet_bytes: u32,
    /// The CPU of the hostile clients, in the idle class [default: one that neither server nor load has; where there is none,
    /// the server's, as far as it leaves it]
    #[arg(long)]
    noise_cpu: Option<usize>,
    /// Well-behaved pairs of one publisher and one subscriber
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=9_000))]
    noise_pairs: u32,
    /// Their messages per second, all together
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    noise_rate: u32,
    /// Their quality of service
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    noise_qos: u8,
    /// Their payload, in bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    noise_payload: u32,
    /// Protocol version of all: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    noise_protocol: u8,
}

impl NoisyNeighbourSettings {
    fn version(&self) -> Version {
        if self.noise_protocol == 5 { Version::V5 } else { Version::V311 }
    }

    fn foes(&self) -> Vec<Foe> {
        let noise = match self.noise.is_empty() && self.hostile.is_empty() {
            true => Noise::value_variants(),
            false => &self.noise,
        };
        let programs = self.hostile.iter().cloned().map(Foe::Program);
        noise.iter().copied().map(Foe::BuiltIn).chain(programs).collect()
    }

    fn load(&self) -> PairsLoad {
        PairsLoad {
            prefix: format!("noisy/{:x}{:x}", std::process::id(), clock::unix_seconds() & 0xffff),
            pairs: self.noise_pairs as usize,
            rate: self.noise_rate.into(),
            qos: self.noise_qos,
            window: WINDOW,
            payload: self.noise_payload as usize,
            version: self.version(),
            durable: false,
        }
    }
}

/// Messages of one well-behaved publisher in flight: more than a second of its rate, so that the loop stays open.
const WINDOW: u16 = 1_000;

/// A program that was started has begun within this.
const READY_MAX: Duration = Duration::from_secs(10);

/// Hostile clients that were asked to stop have done so within this.
const STOP_MAX: Duration = Duration::from_secs(5);

/// One window.
struct Window {
    /// Its part of the pairs' run.
    span: usize,
    /// The share of a core of the server; `None` if its process is not known.
    server_share: Option<f64>,
    /// What it had in memory at the end, in bytes.
    resident: f64,
    /// What the hostile did in it; `None` if it was quiet.
    tally: Option<Tally>,
}

/// The windows of one kind of hostile client, in turn: quiet first and last.
struct Kind {
    foe: Foe,
    windows: Vec<Window>,
}

struct Run<'a> {
    settings: &'a NoisyNeighbourSettings,
    server: &'a Server,
    fleet: Fleet,
    pairs: Pairs,
}

/// Runs the scenario on `server`.
pub fn run(server: &Server, settings: &NoisyNeighbourSettings) -> Result<Outcome> {
    let is_built_in = |foe: &Foe| matches!(foe, Foe::BuiltIn(_));
    let speak_no_tls = settings.foes().iter().any(is_built_in);
    ensure!(
        !speak_no_tls || tls::spoken_at(server.address).is_none(),
        "hostile clients that are built in speak no TLS"
    );
    let dialect = Dialect { target: server.address, version: settings.version(), keep_alive_s: 1_200 };
    let mut fleet = Fleet::new(dialect)?;
    let pairs = Pairs::open(settings.load(), &mut fleet)?;
    let mut run = Run { settings, server, fleet, pairs };
    run.run_for(settings.noise_warm_up_seconds)?;
    let (first, own_first_us) = (Mark::read(server.pid)?, process::own_thread_cpu_us()?);
    let mut kinds = Vec::new();
    for foe in settings.foes() {
        report::progress(&format!("noise: {}", foe.name()));
        kinds.push(run.alternate(foe)?);
    }
    let mut interval = Mark::read(server.pid)?.since(&first);
    let own_us = process::own_thread_cpu_us()? - own_first_us;
    // Of this loop alone: hostile threads and programs are in the idle class and take no CPU from it.
    interval.generator_share = own_us / (interval.wall.as_secs_f64() * 1e6);
    run.pairs.finish(&mut run.fleet)?;
    let mut outcome = run.report(&kinds, &interval)?;
    if !server.is_child() {
        run.fleet.leave(clock::now() + STOP_MAX)?;
    }
    check_generator(&mut outcome, &interval);
    Ok(outcome)
}

impl Run<'_> {
    fn alternate(&mut self, foe: Foe) -> Result<Kind> {
        let mut windows = vec![self.quiet_window()?];
        for _ in 0..self.settings.alternations {
            windows.push(self.noisy_window(&foe)?);
            windows.push(self.quiet_window()?);
        }
        Ok(Kind { foe, windows })
    }

    fn quiet_window(&mut self) -> Result<Window> {
        self.settle()?;
        self.measure()
    }

    fn noisy_window(&mut self, foe: &Foe) -> Result<Window> {
        let settings = self.settings;
        let scene = Scene {
            target: self.server.address,
            pid: self.server.pid,
            cpu: settings.noise_cpu.or_else(|| Some(self.server.placement()?.hostile_cpu())),
            clients: settings.noise_clients as usize,
            version: settings.version(),
            prefix: self.pairs.load.prefix.clone(),
            packet_bytes: settings.noise_packet_bytes as usize,
        };
        let mut hostile = foe.start(scene)?;
        let deadline = clock::now() + READY_MAX;
        while !hostile.is_ready() && clock::now() < deadline {
            self.pairs.turn(&mut self.fleet)?;
        }
        hostile.step_back();
        self.settle()?;
        let mut window = self.measure()?;
        hostile.ask_to_stop();
        let deadline = clock::now() + STOP_MAX;
        while !hostile.has_stopped() {
            if clock::now() > deadline {
                hostile.end()?;
                break;
            }
            self.pairs.turn(&mut self.fleet)?;
        }
        window.tally = Some(hostile.join()?);
        Ok(window)
    }

    fn settle(&mut self) -> Result<()> {
        self.run_for(self.settings.noise_settle_seconds)
    }

    fn measure(&mut self) -> Result<Window> {
        let first = Mark::read(self.server.pid)?;
        let span = self.pairs.begin_span()?;
        self.run_for(self.settings.noise_seconds)?;
        self.pairs.begin_span()?;
        let interval = Mark::read(self.server.pid)?.since(&first);
        let share = |server_us: f64| server_us / (interval.wall.as_secs_f64() * 1e6);
        let resident = self.server.pid.map_or(Ok(0.0), |pid| anyhow::Ok(process::resident(pid)?.total))?;
        let server_share = interval.server.map(|server| share(server.cpu_us));
        Ok(Window { span, server_share, resident, tally: None })
    }

    fn run_for(&mut self, seconds: f64) -> Result<()> {
        let end_ns = self.pairs.now_ns() + (seconds * 1e9) as u64;
        while self.pairs.now_ns() < end_ns {
            self.pairs.turn(&mut self.fleet)?;
        }
        Ok(())
    }

    fn report(&self, kinds: &[Kind], interval: &Interval) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut details = Vec::new();
        for kind in kinds {
            details.push(self.report_kind(&mut outcome, kind)?);
        }
        interval.report_shares(&mut outcome);
        outcome.failures.extend(self.pairs.failures());
        let without_window: u64 = self.pairs.spans.iter().map(|span| span.without_window).sum();
        outcome.detail = json!({
            "settings": format!("{:?}", self.settings),
            "sent_late_for_want_of_a_window": without_window,
            "kinds": details,
        });
        Ok(outcome)
    }

    fn report_kind(&self, outcome: &mut Outcome, kind: &Kind) -> Result<Value> {
        let (kind_name, names) = (kind.foe.name(), FoeNames::of(&kind.foe));
        let by = |of: &dyn Fn(&Span) -> f64| self.alternation(kind, of);
        let late = by(&|span| span.late.quantile_ms(0.99));
        let median = |values: &[f64]| spread(values).map_or(0.0, |values| values.0);
        let late_ms = (median(&late.quiet), median(&late.noisy));
        let delivery = by(&|span| span.delivery.quantile_ms(0.99));
        let delivered = report_verdict(outcome, &names.delivery, &delivery, late_ms);
        if delivered.is_none() {
            outcome.failures.push(format!("{kind_name}: in a whole window nothing was delivered"));
        }
        let acknowledgement = by(&|span| span.acknowledgement.quantile_ms(0.99));
        let acknowledged = report_verdict(outcome, &names.acknowledgement, &acknowledgement, late_ms);
        outcome.add(names.late_quiet, "ms", late_ms.0);
        outcome.add(names.late_noisy, "ms", late_ms.1);
        self.report_server(outcome, &names, kind);
        self.add_curves(outcome, &names, kind);
        let tallies: Vec<&Tally> = kind.windows.iter().filter_map(|window| window.tally.as_ref()).collect();
        let violations: BTreeSet<&String> = tallies.iter().flat_map(|tally| &tally.violations).collect();
        outcome.failures.extend(violations.iter().map(|violation| format!("{kind_name}: {violation}")));
        let tallies: Vec<Value> = tallies.iter().map(|tally| tally.to_json()).collect();
        Ok(json!({
            "noise": kind_name,
            "delivery": format!("{delivered:?}"),
            "delivery_p99_ms": { "quiet": delivery.quiet, "noisy": delivery.noisy },
            "acknowledgement": format!("{acknowledged:?}"),
            "acknowledgement_p99_ms": { "quiet": acknowledgement.quiet, "noisy": acknowledgement.noisy },
            "sent_late_p99_ms": { "quiet": late.quiet, "noisy": late.noisy },
            "hostile": tallies,
        }))
    }

    /// A figure of the quiet and of the noisy windows.
    fn alternation(&self, kind: &Kind, of: &dyn Fn(&Span) -> f64) -> Alternation {
        let mut alternation = Alternation::default();
        for window in &kind.windows {
            let values = match window.tally {
                Some(_) => &mut alternation.noisy,
                None => &mut alternation.quiet,
            };
            values.push(of(&self.pairs.spans[window.span]));
        }
        alternation
    }

    /// What it cost the server and what it did with the hostile ones.
    fn report_server(&self, outcome: &mut Outcome, names: &FoeNames, kind: &Kind) {
        let shares = |noisy: bool| {
            let windows = kind.windows.iter().filter(|window| window.tally.is_some() == noisy);
            let shares: Vec<f64> = windows.filter_map(|window| window.server_share).collect();
            spread(&shares).map(|share| 100.0 * share.0)
        };
        if let (Some(quiet), Some(noisy)) = (shares(false), shares(true)) {
            outcome.add(names.server_quiet, "% of a core", quiet);
            outcome.add(names.server_noisy, "% of a core", noisy);
            let before = kind.windows.first().map_or(0.0, |window| window.resident);
            let greatest = kind.windows.iter().map(|window| window.resident).fold(before, f64::max);
            let after = kind.windows.last().map_or(before, |window| window.resident);
            outcome.add(names.memory_grew, "MB", (greatest - before) / 1e6);
            outcome.add(names.memory_kept, "MB", (after - before) / 1e6);
        }
        let tallies: Vec<&Tally> = kind.windows.iter().filter_map(|window| window.tally.as_ref()).collect();
        let sum = |of: &dyn Fn(&Tally) -> f64| tallies.iter().map(|tally| of(tally)).sum::<f64>();
        let seconds = sum(&|tally| tally.seconds).max(1e-9);
        if let Some(achieved) = names.achieved {
            outcome.add(achieved.name, achieved.unit, sum(&|tally| (achieved.of)(tally)) / seconds);
        }
        outcome.add(names.ended, "times", sum(&|tally| tally.ended as f64));
        outcome.add(names.refused, "times", sum(&|tally| tally.refused as f64));
        outcome.add(names.hostile_busy, "% of a core", 100.0 * sum(&|tally| tally.cpu_us) / 1e6 / seconds);
    }

    /// Over time: the p99 of quiet and noisy windows, and the server's memory at their ends.
    fn add_curves(&self, outcome: &mut Outcome, names: &FoeNames, kind: &Kind) {
        let at_s = |window: &Window| self.pairs.spans[window.span].from_ns as f64 / 1e9;
        let p99 = |window: &Window| self.pairs.spans[window.span].delivery.quantile_ms(0.99);
        for (name, noisy) in [(names.curve_quiet, false), (names.curve_noisy, true)] {
            let windows = kind.windows.iter().filter(|window| window.tally.is_some() == noisy);
            let points = windows.map(|window| (at_s(window), p99(window))).collect();
            outcome.curves.push(Curve { name, x: "s", y: "ms", logarithmic_x: false, points });
        }
        if self.server.pid.is_some() {
            let points = kind.windows.iter().map(|window| (at_s(window), window.resident / 1e6)).collect();
            let name = names.curve_memory;
            outcome.curves.push(Curve { name, x: "s", y: "MB", logarithmic_x: false, points });
        }
    }
}

/// What the windows say of one latency; nothing if one of them had none, as acknowledgements at QoS 0.
fn report_verdict(
    outcome: &mut Outcome,
    names: &LatencyNames,
    alternation: &Alternation,
    (quiet_late_ms, noisy_late_ms): (f64, f64),
) -> Option<(Finding, Verdict)> {
    let verdict = alternation.verdict()?;
    let finding = verdict.finding(quiet_late_ms, noisy_late_ms);
    outcome.add(names.quiet, "ms", verdict.quiet);
    outcome.add(names.noisy, "ms", verdict.noisy);
    outcome.add(names.ratio, "noisy / quiet", verdict.ratio.0);
    outcome.add(names.spread, "% (quiet / quiet)", 100.0 * verdict.spread);
    if finding != Finding::Undecided {
        outcome.add(names.moved, "1 is yes", f64::from(u8::from(finding == Finding::Moved)));
    }
    Some((finding, verdict))
}
