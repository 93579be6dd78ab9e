//! Scenario `token-logins`: what it costs to let a device in that shows a token, beside one that shows nothing.
//!
//! N devices connect, so many handshakes at a time, in a closed loop; a login is done when its CONNACK is here. Then all leave
//! (which is not measured) and come back the same way. With a token the first time is with one that the server has never seen, and the second
//! with the same. One kind of login has its turn after the other, each time with other devices: without credentials, then with
//! tokens of each algorithm (`figures` has their names). A round is all of them once; ratios are to the login without credentials
//! of the same round, figures are medians over the rounds. Whoever is refused ends the run.
//!
//! It needs a broker that is set up for tokens (`ironpost-tokens`). That has one CPU to itself and the load has another, so the rate is what
//! one core does, as far as the server and not this program was busy: both are reported. What threads of the server spent is told apart by their
//! names. Called by `main` and `compare`.

mod figures;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::figures::{Kind, Round};
use crate::client::codec::Version;
use crate::client::fleet::{Dialect, Fleet, Session, nothing_expected};
use crate::client::token::{Algorithm, Signer};
use crate::measure::clock;
use crate::measure::meter::{Interval, Mark};
use crate::measure::process;
use crate::report::{self, Outcome};
use crate::server::Server;

/// How many log in, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct TokenSettings {
    /// Devices that log in, for each kind of login
    #[arg(long, default_value_t = 16_000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    pub devices: u32,
    /// Logins under way at once. Few of them wait for the disk, where their sessions are written, and not for the CPU
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub logins_at_once: u32,
    /// How often each kind of login has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub login_rounds: u32,
    /// How tokens are signed
    #[arg(long, value_delimiter = ',', default_value = "EdDSA,ES256,RS256")]
    pub token_algorithms: Vec<Algorithm>,
    /// Sessions that end with their connections, instead of durable ones
    #[arg(long)]
    pub login_clean: bool,
    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    pub login_protocol: u8,
    /// The longest that all of one kind may take, in seconds
    #[arg(long, default_value_t = 120)]
    pub login_seconds_max: u64,
}

impl TokenSettings {
    fn deadline(&self) -> Instant {
        clock::now() + Duration::from_secs(self.login_seconds_max)
    }

    fn dialect(&self, target: SocketAddr) -> Dialect {
        let version = if self.login_protocol == 5 { Version::V5 } else { Version::V311 };
        Dialect { target, version, keep_alive_s: 1_200 }
    }
}

/// What a server still does of its own accord when everybody has left is not part of what comes next.
const PAUSE: Duration = Duration::from_millis(300);

/// Devices of one kind in one round.
struct Devices {
    target: SocketAddr,
    /// Comes before a device's number in its name.
    prefix: String,
    /// Empty: they show nothing.
    tokens: Vec<String>,
}

/// What one kind of login cost, once.
struct Logins {
    interval: Interval,
    /// What the server's threads spent, in microseconds.
    by_thread: BTreeMap<String, f64>,
}

/// Runs the scenario on `server`.
pub fn run(server: &Server, settings: &TokenSettings) -> Result<Outcome> {
    let (target, keys) = server.token_entrance().context(
        "this server was not set up for tokens whose keys are known here: --broker ironpost-tokens",
    )?;
    let count = settings.devices as usize;
    let mut rounds = Vec::new();
    for number in 0..settings.login_rounds {
        let mut round = Round::default();
        let devices =
            Devices { target: server.address, prefix: format!("open-{number}"), tokens: Vec::new() };
        let [first, again] = twice(server, settings, &devices, "without credentials")?;
        round.add(Kind::OpenFirst, &first, count);
        round.add(Kind::OpenAgain, &again, count);
        for &algorithm in &settings.token_algorithms {
            let devices = with_tokens(target, &keys, algorithm, number, count)?;
            let [first, again] = twice(server, settings, &devices, algorithm.name())?;
            round.add(Kind::first_with(algorithm), &first, count);
            round.add(Kind::again_with(algorithm), &again, count);
        }
        rounds.push(round);
    }
    let mut outcome = Outcome::default();
    figures::report(&mut outcome, &rounds);
    outcome.detail = json!({
        "settings": format!("{settings:?}"),
        "rounds": rounds.iter().map(Round::to_json).collect::<Vec<_>>(),
    });
    Ok(outcome)
}

/// Devices with a token each that is signed now.
fn with_tokens(
    target: SocketAddr,
    keys: &Path,
    algorithm: Algorithm,
    round: u32,
    count: usize,
) -> Result<Devices> {
    report::progress(&format!("  signing {count} tokens, {}", algorithm.name()));
    let signer = Signer::read(keys, algorithm)?;
    let mut devices = Devices { target, prefix: format!("{}-{round}", algorithm.name()), tokens: Vec::new() };
    let tokens: Result<Vec<String>> = (0..count).map(|index| signer.token(&devices.name(index))).collect();
    devices.tokens = tokens?;
    Ok(devices)
}

impl Devices {
    /// Says which round and algorithm, so that no session is another kind's.
    fn name(&self, index: usize) -> String {
        format!("device-{}-{index:06}", self.prefix)
    }
}

/// They log in, leave, and log in again.
fn twice(server: &Server, settings: &TokenSettings, devices: &Devices, what: &str) -> Result<[Logins; 2]> {
    report::progress(&format!("  {what}: new"));
    let first = log_in(server, settings, devices).with_context(|| format!("{what}, new"))?;
    report::progress(&format!("  {what}: again"));
    let again = log_in(server, settings, devices).with_context(|| format!("{what}, again"))?;
    Ok([first, again])
}

/// All of them log in, which is measured, and leave, which is not.
fn log_in(server: &Server, settings: &TokenSettings, devices: &Devices) -> Result<Logins> {
    let mut fleet = Fleet::new(settings.dialect(devices.target))?;
    fleet.opening_max = settings.logins_at_once as usize;
    if !devices.tokens.is_empty() {
        let tokens = devices.tokens.clone();
        fleet.passwords = Some(Box::new(move |index| tokens[index].clone().into_bytes()));
    }
    let session = |index: usize| Session {
        client_id: devices.name(index),
        clean: settings.login_clean,
        subscription: None,
    };
    let pid = server.pid.context("the server's process is known if it was started here")?;
    let threads = process::cpu_by_thread(pid)?;
    let start = Mark::read(server.pid)?;
    fleet.open(settings.devices as usize, settings.deadline(), &session, &mut nothing_expected)?;
    let interval = Mark::read(server.pid)?.since(&start);
    let mut by_thread = process::cpu_by_thread(pid)?;
    for (name, spent_us) in &mut by_thread {
        *spent_us -= threads.get(name).copied().unwrap_or(0.0);
    }
    let open = (0..fleet.len()).filter(|&index| fleet.is_open(index)).count();
    ensure!(open == settings.devices as usize, "{open} of {} devices were let in", settings.devices);
    fleet.leave(settings.deadline()).context("leaving")?;
    clock::pause(PAUSE);
    Ok(Logins { interval, by_thread })
}

impl Logins {
    fn to_json(&self) -> Value {
        json!({
            "seconds": self.interval.wall.as_secs_f64(),
            "cpu_us": self.interval.server.map(|server| server.cpu_us),
            "cpu_us_by_thread": self.by_thread,
            "context_switches": self.interval.server.map(|server| server.context_switches),
            "kept_waiting_us": self.interval.server.map(|server| server.kept_waiting_us),
            "generator_share": self.interval.generator_share,
        })
    }
}
