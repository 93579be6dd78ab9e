//! `durable-ack`: how fast QoS 1 messages for absent durable sessions are acknowledged, and how far that is from the limit.
//!
//! A broker that promises durability may answer a publisher only when the message is on disk. The rate cannot be higher
//! than the least of three:
//!
//! | limit | made of |
//! |---|---|
//! | sync | messages per sync, by the broker's counters / how long overwriting and syncing a block of that size takes here, × journals that sync at a time |
//! | bandwidth | sequential bytes per second of the disk / bytes written per message |
//! | CPU | cores the server may use / its CPU time per message, as measured in the run |
//!
//! The disk is surveyed before each round, while no broker runs (`disk`). Publishers work in a closed loop with windows
//! that are large enough to saturate: what arrives while a block syncs is the next block, so messages per sync are a
//! result too, and the sync limit says what the disk would allow with blocks of that size.
//!
//! Brokers run in turn, A B A B, each time fresh. Before the measured part as much is stored as is measured, for other
//! sessions, which then end: a journal that has to grow meanwhile writes everything twice, which happens once in its
//! life. After the measured part everything is drained, and must be there. A broker without counters (Mosquitto, which promises nothing at PUBACK) has only the
//! CPU limit.
//!
//! Topics are `u/CLIENT/inbox`: spread over shards, also for a broker that places topics by account.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;

use crate::Environment;
use crate::client::codec::Version;
use crate::client::fleet::{Dialect, Fleet, Session, nothing_expected};
use crate::compare::{self, Run, Table};
use crate::load::ledger::{Ledger, Totals};
use crate::measure::clock;
use crate::measure::disk::{self, Survey};
use crate::measure::meter::{Interval, Names};
use crate::measure::slope::spread;
use crate::measure::system::{self, Counters, System};
use crate::report::{self, Outcome, readable};
use crate::scenario::store_drain::{self, StoreDrainSettings};
use crate::server::{Broker, Server};

/// Whom to measure, and with how much.
#[derive(Args)]
pub struct DurableAckSettings {
    /// A broker: mosquitto, NAME=mosquitto, or NAME=COMMAND with {port} and {data} in it (repeat)
    #[arg(long = "broker", value_name = "BROKER", required = true)]
    brokers: Vec<Broker>,
    /// Payloads of a message, in bytes
    #[arg(long, value_delimiter = ',', default_value = "128,1024")]
    payloads: Vec<u32>,
    /// How often each broker runs with each payload
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Messages to measure, and before that as many to warm up
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    messages: u64,
    /// Durable sessions that are away
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    sessions: u32,
    /// Connections that publish
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    publishers: u32,
    /// Messages of one publisher in flight
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    window: u16,
    #[command(flatten)]
    environment: Environment,
}

/// A step that waits for something takes no longer than this.
const STEP_MAX: Duration = Duration::from_secs(180);

/// How long a broker has to show that it publishes counters at all.
const SYSTEM_MAX: Duration = Duration::from_secs(3);

/// Runs it; whether no broker was wrong.
pub fn run(settings: &DurableAckSettings) -> Result<bool> {
    let (brokers, environment) = (&settings.brokers, &settings.environment);
    compare::check_names(brokers)?;
    let baselines: Vec<usize> =
        brokers.iter().position(|broker| broker.name == "mosquitto").into_iter().collect();
    let placement = environment.placement();
    let mut document = report::head(placement);
    let _awake = environment.keep_awake()?;
    document["awake"] = json!(environment.keeps_awake());
    document["rounds"] = json!(settings.rounds);
    document["brokers"] = json!(brokers.iter().map(Broker::describe).collect::<Vec<_>>());
    let (mut text, mut sound) = (String::new(), true);
    let (mut surveys, mut results) = (Vec::new(), Vec::new());
    for &payload in &settings.payloads {
        let mut runs = Vec::new();
        for round in 0..settings.rounds {
            report::progress(&format!(
                "payload {payload}, round {}/{}: the disk",
                round + 1,
                settings.rounds
            ));
            let survey = disk::survey(&environment.data_root)?;
            for (index, broker) in brokers.iter().enumerate() {
                report::progress(&format!("payload {payload}, round {}: {}", round + 1, broker.name));
                let outcome = Server::start(broker, &environment.data_root, placement)
                    .and_then(|server| measure(&server, broker, settings, payload, &survey))
                    .unwrap_or_else(|error| Outcome::failed(&error));
                outcome.failures.iter().for_each(|failure| report::progress(&format!("  FAILED: {failure}")));
                sound &= outcome.failures.is_empty();
                runs.push(Run { broker: index, round, outcome });
            }
            surveys.push(survey);
        }
        let table = Table::new(brokers, &baselines, &runs);
        let name = format!("payload {payload}");
        text.push_str(&table.to_text(&name, brokers, &baselines, &runs));
        results.push(table.to_json(&name, brokers, &baselines, &runs));
    }
    text.push_str(&surveys_text(&surveys));
    document["results"] = json!(results);
    document["disk"] = json!(surveys.iter().map(Survey::to_json).collect::<Vec<_>>());
    environment.publish(&document, &text)?;
    Ok(sound)
}

fn measure(
    server: &Server,
    broker: &Broker,
    settings: &DurableAckSettings,
    payload: u32,
    survey: &Survey,
) -> Result<Outcome> {
    let store_settings = StoreDrainSettings {
        store_sessions: settings.sessions,
        store_messages: settings.messages,
        store_publishers: settings.publishers,
        store_window: settings.window,
        store_payload: payload,
        store_protocol: 4,
        store_seconds_max: STEP_MAX.as_secs(),
    };
    let dialect = store_settings.dialect(server);
    let nonce = format!("{:x}{:x}", std::process::id(), clock::unix_seconds() & 0xffff);
    warm_up(server, &store_settings, &format!("warm-{nonce}")).context("warming up")?;
    let away = Away::new(format!("away-{nonce}"), &store_settings);
    away.arrive_and_leave(dialect, &store_settings)?;
    let mut observer = Observer::connect(dialect, &nonce)?;
    let (topics, mut ledgers) = (&away.topics, vec![Ledger::default(); away.topics.len()]);
    let before = observer.read()?;
    let stored =
        store_drain::store(server, &store_settings, &nonce, topics, &mut ledgers).context("storing")?;
    let after = observer.read()?;
    let returning = |index: usize| Session { subscription: None, ..away.session(index) };
    store_drain::drain(server, &store_settings, &returning, topics, &mut ledgers).context("draining")?;

    let mut outcome = Outcome::default();
    let names = Names { rate: "acknowledged", cost: "server CPU per message", what: "msg/s" };
    stored.report(&mut outcome, &names, settings.messages);
    stored.report_shares(&mut outcome);
    let cores = match settings.environment.placement() {
        Some(_) => 1,
        None => std::thread::available_parallelism().map_or(1, |count| count.get()),
    };
    let cpu_us = stored.server.map_or(f64::NAN, |server| server.cpu_us) / settings.messages as f64;
    let written = before
        .zip(after)
        .map(|(before, after)| Written::between(&before, &after, survey, settings.messages, broker.lanes()));
    report_limit(&mut outcome, &stored, settings.messages, cores as f64 / cpu_us * 1e6, written);
    let totals = Totals::of(ledgers.iter());
    outcome.failures = totals.failures(1);
    if totals.repeated > 0 {
        outcome
            .failures
            .push(format!("{} messages arrived again after they had been acknowledged", totals.repeated));
    }
    outcome.detail = json!({
        "payload": payload, "seconds": stored.wall.as_secs_f64(), "sent": totals.sent, "arrived": totals.arrived,
    });
    Ok(outcome)
}

/// Durable sessions that are away, each with a topic of its own.
struct Away {
    name: String,
    topics: Vec<String>,
}

impl Away {
    fn new(name: String, settings: &StoreDrainSettings) -> Away {
        let topics = (0..settings.store_sessions).map(|index| format!("u/{name}-{index}/inbox")).collect();
        Away { name, topics }
    }

    fn session(&self, index: usize) -> Session {
        Session {
            client_id: format!("{}-{index}", self.name),
            clean: false,
            subscription: Some((self.topics[index].clone(), 1)),
        }
    }

    fn arrive_and_leave(&self, dialect: Dialect, settings: &StoreDrainSettings) -> Result<()> {
        let mut fleet = Fleet::new(dialect)?;
        let session = |index: usize| self.session(index);
        fleet.open(self.topics.len(), settings.deadline(), &session, &mut nothing_expected)?;
        fleet.leave(settings.deadline()).context("leaving")
    }

    fn end(&self, dialect: Dialect, settings: &StoreDrainSettings) -> Result<()> {
        let mut fleet = Fleet::new(dialect)?;
        let clean = |index| Session { clean: true, subscription: None, ..self.session(index) };
        fleet.open(self.topics.len(), settings.deadline(), &clean, &mut nothing_expected)?;
        fleet.leave(settings.deadline()).context("ending sessions")
    }
}

/// As much is stored as will be measured, and then its recipients end.
fn warm_up(server: &Server, settings: &StoreDrainSettings, name: &str) -> Result<()> {
    let (away, dialect) = (Away::new(name.to_owned(), settings), settings.dialect(server));
    away.arrive_and_leave(dialect, settings)?;
    let mut ledgers = vec![Ledger::default(); away.topics.len()];
    store_drain::store(server, settings, name, &away.topics, &mut ledgers)?;
    away.end(dialect, settings)
}

/// What a broker wrote for so many messages, and what the disk makes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Written {
    messages_per_sync: f64,
    bytes_per_sync: f64,
    bytes_per_message: f64,
    syncs: f64,
    /// How long overwriting and syncing such a block takes, by the survey.
    sync_ms: f64,
    sync_limit: f64,
    bandwidth_limit: f64,
}

impl Written {
    fn between(before: &Counters, after: &Counters, survey: &Survey, messages: u64, lanes: u32) -> Written {
        let (bytes, syncs) =
            ((after.bytes - before.bytes) as f64, (after.syncs - before.syncs).max(1) as f64);
        let messages = messages as f64;
        let sync_ms = survey.overwrite_ms(bytes / syncs);
        Written {
            messages_per_sync: messages / syncs,
            bytes_per_sync: bytes / syncs,
            bytes_per_message: bytes / messages,
            syncs,
            sync_ms,
            sync_limit: messages / syncs / sync_ms * 1e3 * f64::from(lanes),
            bandwidth_limit: survey.sequential_bytes_per_s * messages / bytes.max(1.0),
        }
    }
}

/// The limits, and how far the rate is from the least of them.
fn report_limit(
    outcome: &mut Outcome,
    stored: &Interval,
    messages: u64,
    cpu_limit: f64,
    written: Option<Written>,
) {
    let wall_s = stored.wall.as_secs_f64().max(1e-9);
    let mut limit = cpu_limit;
    if let Some(written) = written {
        outcome.add("messages per sync", "", written.messages_per_sync);
        outcome.add("bytes per sync", "B", written.bytes_per_sync);
        outcome.add("journal bytes per message", "B", written.bytes_per_message);
        outcome.add("syncs", "/s", written.syncs / wall_s);
        outcome.add("such a sync takes", "ms", written.sync_ms);
        // Of one journal; with two, both may sync at once.
        outcome.add("time in such syncs", "% of the time", written.syncs * written.sync_ms / 10.0 / wall_s);
        outcome.add("limit by sync", "msg/s", written.sync_limit);
        outcome.add("limit by bandwidth", "msg/s", written.bandwidth_limit);
        limit = limit.min(written.sync_limit).min(written.bandwidth_limit);
    }
    outcome.add("limit by CPU", "msg/s", cpu_limit);
    outcome.add("rate of its limit", "%", 100.0 * messages as f64 / wall_s / limit);
}

/// A client that watches the broker's counters.
struct Observer {
    fleet: Fleet,
    system: System,
    version: Version,
}

impl Observer {
    fn connect(dialect: Dialect, nonce: &str) -> Result<Observer> {
        let (mut fleet, mut system) = (Fleet::new(dialect)?, System::default());
        let session = |_| Session {
            client_id: format!("observer-{nonce}"),
            clean: true,
            subscription: Some((system::FILTER.to_owned(), 0)),
        };
        let deadline = clock::now() + STEP_MAX;
        let version = dialect.version;
        fleet.open(1, deadline, &session, &mut |_, _, frame| system.on_frame(version, frame))?;
        Ok(Observer { fleet, system, version })
    }

    /// The counters, once they tell of everything that has happened; `None` if the broker has none.
    fn read(&mut self) -> Result<Option<Counters>> {
        let (begin, version) = (clock::now(), self.version);
        // What has gathered in the meantime is older than now.
        let system = &mut self.system;
        self.fleet.turn(Duration::ZERO, &mut |_, _, frame| system.on_frame(version, frame))?;
        let later = self.system.later();
        while !self.system.has_reached(later) {
            let waited = clock::now() - begin;
            if waited > SYSTEM_MAX && self.system.counters().is_none() {
                return Ok(None);
            }
            ensure!(waited < STEP_MAX, "the broker has stopped to publish {}", system::FILTER);
            let system = &mut self.system;
            self.fleet
                .turn(Duration::from_millis(100), &mut |_, _, frame| system.on_frame(version, frame))?;
        }
        Ok(self.system.counters())
    }
}

/// The disk by itself, over all rounds.
fn surveys_text(surveys: &[Survey]) -> String {
    let shown = |values: &[f64]| match spread(values) {
        None => "–".to_owned(),
        Some((median, least, greatest)) => {
            format!("{} ({}..{})", readable(median), readable(least), readable(greatest))
        }
    };
    let mut text =
        String::from("the disk: overwriting a block and fdatasync, ms: median (min..max) over the rounds\n");
    for index in 0..surveys.first().map_or(0, |survey| survey.overwrites.len()) {
        let values = |pick: fn(&disk::Overwrite) -> f64| {
            shown(&surveys.iter().map(|survey| pick(&survey.overwrites[index])).collect::<Vec<_>>())
        };
        let block_bytes = surveys[0].overwrites[index].block_bytes;
        let _ = writeln!(
            text,
            "  {:>9} B  p50 {}  p99 {}  mean {}",
            readable(block_bytes),
            values(|one| one.p50_ms),
            values(|one| one.p99_ms),
            values(|one| one.mean_ms)
        );
    }
    let sequential: Vec<f64> = surveys.iter().map(|survey| survey.sequential_bytes_per_s / 1e6).collect();
    let _ = writeln!(text, "  sequential {} MB/s", shown(&sequential));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::disk::Overwrite;

    fn survey() -> Survey {
        let overwrite = |block_bytes, mean_ms| Overwrite { block_bytes, mean_ms, p50_ms: 0.5, p99_ms: 9.0 };
        Survey {
            overwrites: vec![overwrite(4_096.0, 1.0), overwrite(1_048_576.0, 5.0)],
            sequential_bytes_per_s: 200e6,
        }
    }

    #[test]
    fn the_limits_are_made_of_what_was_written_and_what_the_disk_does() {
        let before = Counters { bytes: 1_000, syncs: 7, ..Counters::default() };
        let after = Counters { bytes: 1_000 + 100 * 1_048_576, syncs: 107, ..before };
        let written = Written::between(&before, &after, &survey(), 500_000, 1);
        assert_eq!((written.messages_per_sync, written.bytes_per_sync), (5_000.0, 1_048_576.0));
        assert_eq!((written.sync_ms, written.sync_limit), (5.0, 1_000_000.0));
        assert!((written.bandwidth_limit - 200e6 / 209.7152).abs() < 1.0, "{written:?}");
        assert_eq!(Written::between(&before, &after, &survey(), 500_000, 2).sync_limit, 2_000_000.0);

        let interval = Interval { wall: Duration::from_secs(2), server: None, generator_share: 0.0 };
        let mut outcome = Outcome::default();
        report_limit(&mut outcome, &interval, 500_000, 400_000.0, Some(written));
        assert_eq!(outcome.figure("rate of its limit"), Some(62.5), "the CPU's is the least");
        assert_eq!(outcome.figure("time in such syncs"), Some(25.0));
        let mut outcome = Outcome::default();
        report_limit(&mut outcome, &interval, 500_000, 250_000.0, None);
        assert_eq!(outcome.figure("rate of its limit"), Some(100.0));
        assert_eq!(outcome.figure("limit by sync"), None);
    }

    #[test]
    fn the_disk_is_shown_over_all_rounds() {
        let mut other = survey();
        other.overwrites[0].p50_ms = 0.7;
        let text = surveys_text(&[survey(), other]);
        assert!(text.contains("4,096 B  p50 0.600 (0.500..0.700)  p99 9.00"), "{text}");
        assert!(text.contains("sequential 200 (200..200) MB/s"), "{text}");
    }
}
