//! Scenario `restart`: a broker with sessions and queued messages ends, and starts again on its data.
//!
//! N durable sessions subscribe and leave; M QoS 1 messages are published for them and acknowledged. Then the broker is
//! ended: by SIGTERM, which lets it say what it has to say to its disk, or by SIGKILL, which is a crash of the process
//! (not of the machine: what the kernel holds is still written). It is started again on the same data. From that start
//! count: until it accepts a connection; until the first session is back, alone; until all are; until each message has
//! been delivered. Sessions come back without subscribing.
//!
//! Books: each session must have been kept, and each message that was acknowledged must arrive, in order; repeats are
//! counted. A broker that loses them fails the run and says what it lost: for some that is what the run is to show.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::client::codec::{self, Frame, Version, kind};
use crate::client::fleet::{Dialect, Fleet, Links, Session, nothing_expected};
use crate::load::ledger::{self, Ledger, Totals};
use crate::measure::clock;
use crate::measure::process;
use crate::report::{self, Curve, Outcome};
use crate::scenario::store_drain::{self, StoreDrainSettings};
use crate::server::Server;

/// What there is when it ends, and how it ends.
#[derive(Clone, Debug, clap::Args)]
pub struct RestartSettings {
    /// Durable sessions, each with one subscription
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    pub restart_sessions: u32,
    /// Messages queued for them in all
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub restart_messages: u64,
    /// Connections that publish them
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub restart_publishers: u32,
    /// Messages of one publisher in flight
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub restart_window: u16,
    /// Payload of a message, in bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    pub restart_payload: u32,
    /// End it by SIGKILL, as a crash would, instead of SIGTERM
    #[arg(long)]
    pub restart_kill: bool,
    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    pub restart_protocol: u8,
    /// The longest that storing, ending, starting or coming back may take
    #[arg(long, default_value_t = 120)]
    pub restart_seconds_max: u64,
}

/// After everybody is back, nothing for this long means that nothing will come.
const STALL: Duration = Duration::from_secs(10);

/// A step of the curve over time.
const CURVE_STEP: Duration = Duration::from_millis(20);

/// Messages after which the clock is read for the curve.
const NOTE_EVERY: u64 = 64;

impl RestartSettings {
    fn limit(&self) -> Duration {
        Duration::from_secs(self.restart_seconds_max)
    }

    fn dialect(&self, server: &Server) -> Dialect {
        let version = if self.restart_protocol == 5 { Version::V5 } else { Version::V311 };
        Dialect { target: server.address, version, keep_alive_s: 1_200 }
    }

    fn storing(&self) -> StoreDrainSettings {
        StoreDrainSettings {
            store_sessions: self.restart_sessions,
            store_messages: self.restart_messages,
            store_publishers: self.restart_publishers,
            store_window: self.restart_window,
            store_payload: self.restart_payload,
            store_protocol: self.restart_protocol,
            store_seconds_max: self.restart_seconds_max,
        }
    }

    fn how_it_ended(&self) -> &'static str {
        if self.restart_kill { "SIGKILL" } else { "SIGTERM" }
    }
}

/// When what was reached, since the start.
#[derive(Debug, Default)]
struct Times {
    listens: Duration,
    first_back: Duration,
    all_back: Duration,
    /// `None`: not everything came.
    all_delivered: Option<Duration>,
}

/// Runs the scenario on `server`.
pub fn run(server: &mut Server, settings: &RestartSettings) -> Result<Outcome> {
    ensure!(server.is_child(), "restart ends the broker, so it has to start it: --broker, not --target");
    let nonce = format!("{:x}{:x}", std::process::id(), clock::unix_seconds() & 0xffff);
    let sessions = settings.restart_sessions as usize;
    let topics: Vec<String> = (0..sessions).map(|index| format!("u/{nonce}-{index}/inbox")).collect();
    let session = |index: usize| Session {
        client_id: format!("restart-{nonce}-{index}"),
        clean: false,
        subscription: Some((topics[index].clone(), 1)),
    };
    let deadline = clock::now() + settings.limit();
    let mut fleet = Fleet::new(settings.dialect(server))?;
    fleet.open(sessions, deadline, &session, &mut nothing_expected).context("subscribing")?;
    fleet.leave(deadline).context("leaving")?;
    let mut ledgers = vec![Ledger::default(); sessions];
    let stored = store_drain::store(server, &settings.storing(), &nonce, &topics, &mut ledgers);
    let stored = stored.context("storing")?;
    let resident_before = resident_mb(server)?;

    report::progress(&format!("  stored; ending it by {}", settings.how_it_ended()));
    let signal = if settings.restart_kill { libc::SIGKILL } else { libc::SIGTERM };
    let ending = clock::now();
    server.stop(signal, settings.limit())?;
    let ended_in = ending.elapsed();
    let start = clock::now();
    server.start_again(settings.limit()).with_context(|| format!("after {}", settings.how_it_ended()))?;
    let mut back = Return::new(settings, &topics, ledgers, start);
    back.times.listens = start.elapsed();
    let resident_empty = resident_mb(server)?;
    let returning = |index: usize| Session { subscription: None, ..session(index) };
    back.all(server, &returning).with_context(|| format!("after {}", settings.how_it_ended()))?;

    let mut outcome = Outcome::default();
    let totals = Totals::of(back.ledgers.iter());
    back.report(&mut outcome, ended_in);
    outcome.add("resident before the end", "MB", resident_before);
    outcome.add("resident when it listens", "MB", resident_empty);
    // What it costs to have lost something is not to be compared.
    if let (Some(pid), Some(_)) = (server.pid, back.times.all_delivered) {
        outcome.add("CPU from start to delivery", "ms", process::cpu_time(pid)?.total_us / 1e3);
        outcome.add("resident after", "MB", resident_mb(server)?);
    }
    outcome.add("repeated", "messages", totals.repeated as f64);
    outcome.failures = failures(settings, back.not_kept, &totals);
    outcome.detail = json!({
        "settings": format!("{settings:?}"),
        "stored_seconds": stored.wall.as_secs_f64(),
        "sent": totals.sent, "arrived": totals.arrived, "repeated": totals.repeated,
        "sessions_not_kept": back.not_kept,
        "times": format!("{:?}", back.times),
    });
    Ok(outcome)
}

/// In megabytes, files that are mapped included; a broker started here has a process.
fn resident_mb(server: &Server) -> Result<f64> {
    let pid = server.pid.context("it does not run")?;
    Ok(process::resident(pid)?.total / 1e6)
}

/// What was lost, in words that say after what.
fn failures(settings: &RestartSettings, not_kept: usize, totals: &Totals) -> Vec<String> {
    let after = format!("lost over {}", settings.how_it_ended());
    let mut failures = Vec::new();
    if not_kept > 0 {
        failures.push(format!(
            "{after}: {not_kept} of {} sessions were not there any more",
            settings.restart_sessions
        ));
    }
    failures.extend(totals.failures(1).into_iter().map(|what| format!("{after}: acknowledged, but {what}")));
    failures
}

/// The sessions while they come back and take what is theirs.
struct Return<'a> {
    settings: &'a RestartSettings,
    version: Version,
    topics: &'a [String],
    ledgers: Vec<Ledger>,
    arrived: u64,
    not_kept: usize,
    start: Instant,
    times: Times,
    /// Seconds since the start, and how many messages had arrived.
    curve: Vec<(f64, f64)>,
}

impl<'a> Return<'a> {
    fn new(
        settings: &'a RestartSettings,
        topics: &'a [String],
        ledgers: Vec<Ledger>,
        start: Instant,
    ) -> Return<'a> {
        Return {
            settings,
            version: if settings.restart_protocol == 5 { Version::V5 } else { Version::V311 },
            topics,
            ledgers,
            arrived: 0,
            not_kept: 0,
            start,
            times: Times::default(),
            curve: Vec::new(),
        }
    }

    /// One, then all of them, then all messages.
    fn all(&mut self, server: &Server, session: &impl Fn(usize) -> Session) -> Result<()> {
        let deadline = self.start + self.settings.limit();
        let mut fleet = Fleet::new(self.settings.dialect(server))?;
        for count in [1, self.topics.len()] {
            let done = fleet.open(count, deadline, session, &mut |links, index, frame| {
                self.on_frame(links, index, frame)
            });
            done.context("coming back")?;
            if count == 1 {
                self.times.first_back = self.start.elapsed();
            }
        }
        self.times.all_back = self.start.elapsed();
        let kept = |index: &usize| fleet.links.client(*index).is_some_and(|client| client.session_present);
        let kept: Vec<usize> = (0..self.topics.len()).filter(kept).collect();
        self.not_kept = self.topics.len() - kept.len();
        // Who was forgotten gets nothing, so nothing is waited for. What is missing at the end is counted by the books.
        let (mut arrived, mut progress) = (self.arrived, clock::now());
        while kept.iter().any(|&index| self.ledgers[index].outstanding() > 0)
            && clock::now() < deadline
            && progress.elapsed() < STALL
        {
            fleet.turn(Duration::from_millis(100), &mut |links, index, frame| {
                self.on_frame(links, index, frame)
            })?;
            if self.arrived != arrived {
                (arrived, progress) = (self.arrived, clock::now());
            }
            self.note();
        }
        let all = self.ledgers.iter().all(|ledger| ledger.outstanding() == 0 && ledger.skipped == 0);
        self.times.all_delivered = all.then(|| self.start.elapsed());
        fleet.leave(clock::now() + self.settings.limit())
    }

    fn note(&mut self) {
        let at_s = self.start.elapsed().as_secs_f64();
        if self.curve.last().is_none_or(|last| at_s >= last.0 + CURVE_STEP.as_secs_f64()) {
            self.curve.push((at_s, self.arrived as f64));
        }
    }

    fn on_frame(&mut self, links: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
        if frame.kind() != kind::PUBLISH {
            bail!("session {index} got packet type {}", frame.kind());
        }
        let publish = codec::parse_publish(frame, self.version)?;
        let (stream, sequence, _) = ledger::read_stamp(publish.payload)?;
        let own = stream as usize == index && publish.topic == self.topics[index].as_bytes();
        ensure!(own && publish.qos == 1, "session {index} got message {sequence} of session {stream}");
        codec::encode_ack(links.outbound(index), kind::PUBACK, publish.packet_id);
        self.arrived += u64::from(self.ledgers[index].arrived(sequence)?);
        if self.arrived.is_multiple_of(NOTE_EVERY) {
            self.note();
        }
        Ok(())
    }

    fn report(&mut self, outcome: &mut Outcome, ended_in: Duration) {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        outcome.add("ended in", "ms", ms(ended_in));
        outcome.add("listens after", "ms", ms(self.times.listens));
        // Times of a broker that forgot would make it look fast.
        if self.not_kept == 0 {
            outcome.add("first session back after", "ms", ms(self.times.first_back));
            outcome.add("all sessions back after", "ms", ms(self.times.all_back));
        }
        if let Some(all_delivered) = self.times.all_delivered {
            outcome.add("all messages delivered after", "ms", ms(all_delivered));
            self.curve.push((all_delivered.as_secs_f64(), self.arrived as f64));
        }
        outcome.curves.push(Curve {
            name: "messages delivered",
            x: "seconds since the start",
            y: "messages",
            logarithmic_x: false,
            points: std::mem::take(&mut self.curve),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: RestartSettings,
    }

    fn settings(arguments: &[&str]) -> RestartSettings {
        Line::parse_from([&["restart"], arguments].concat()).settings
    }

    #[test]
    fn what_was_lost_is_said_with_the_way_it_ended() {
        let settings = settings(&["--restart-kill", "--restart-sessions", "4"]);
        let lost = Totals { sent: 10, arrived: 0, skipped: 0, repeated: 0, outstanding: 10 };
        let failures = failures(&settings, 4, &lost);
        assert_eq!(
            failures,
            [
                "lost over SIGKILL: 4 of 4 sessions were not there any more",
                "lost over SIGKILL: acknowledged, but 10 of 10 messages had not arrived at the end"
            ]
        );
    }

    #[test]
    fn repeats_are_no_loss() {
        let settings = settings(&[]);
        let repeated = Totals { sent: 10, arrived: 10, repeated: 3, ..Totals::default() };
        assert!(failures(&settings, 0, &repeated).is_empty());
    }

    #[test]
    fn a_broker_that_forgot_has_no_time_until_its_sessions_were_back() {
        let settings = settings(&[]);
        let topics = [String::new()];
        let mut back = Return::new(&settings, &topics, vec![Ledger::default()], clock::now());
        back.not_kept = 1;
        let mut outcome = Outcome::default();
        back.report(&mut outcome, Duration::ZERO);
        assert!(outcome.figure("listens after").is_some());
        assert!(outcome.figure("all sessions back after").is_none());
        assert!(outcome.figure("all messages delivered after").is_none());
    }

    #[test]
    fn a_broker_that_somebody_else_runs_is_not_ended() {
        let mut server = Server::running("127.0.0.1:1883".parse().unwrap(), None);
        let error = run(&mut server, &settings(&[])).unwrap_err();
        assert!(error.to_string().contains("--broker, not --target"));
    }
}
