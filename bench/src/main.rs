//! `ironpost-bench`: drives any MQTT broker and reports what it costs, beside a peer and the floor.
//!
//! Reading order: this file names the commands; `compare` runs scenarios over brokers in turn; `scenario` has one file for
//! each; `client` is the load's own MQTT client; `load` and `measure` are what scenarios are made of; `floor` is the limit
//! that everything is compared with.
//! Results go to standard output, as one JSON document or with `--text` as a table; progress goes to standard error.

mod client;
mod compare;
mod floor;
mod load;
mod measure;
mod poll;
mod report;
mod scenario;
mod server;

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

use crate::client::tls;
use crate::measure::awake::{self, Awake};
use crate::measure::process;
use crate::report::progress::Steps;
use crate::report::{Outcome, html, ratios};
use crate::scenario::connections::ConnectionSettings;
use crate::scenario::day::DaySettings;
use crate::scenario::fan_in::FanInSettings;
use crate::scenario::fan_out::FanOutSettings;
use crate::scenario::flow::FlowSettings;
use crate::scenario::hold::HoldSettings;
use crate::scenario::login_storm::StormSettings;
use crate::scenario::million::MillionSettings;
use crate::scenario::noisy_neighbour::NoisyNeighbourSettings;
use crate::scenario::restart::RestartSettings;
use crate::scenario::slow_consumer::SlowConsumerSettings;
use crate::scenario::store_drain::StoreDrainSettings;
use crate::scenario::token_logins::TokenSettings;
use crate::scenario::{
    connections, day, durable_ack, fan_in, fan_out, flow, hold, login_storm, million, noisy_neighbour,
    restart, slow_consumer, store_drain, sustained, token_logins,
};
use crate::server::{Broker, Placement, Server};

#[derive(Parser)]
#[command(version, about = "Drives any MQTT broker and reports what it costs, beside a peer and the floor")]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Pairs of publisher and subscriber, as fast as a window allows
    Flow(Single<FlowSettings>),
    /// `flow` at several numbers of pairs: rate, CPU per message and latency as curves
    FlowCurve(Single<flow::curve::FlowCurveSettings>),
    /// One message at a time through one pair: latency
    PingPong(Single<FlowSettings>),
    /// Idle subscribed connections: bytes and CPU for each, with keepalives and a few messages
    Connections(Single<ConnectionSettings>),
    /// Messages for durable sessions that are away, and their return
    StoreDrain(Single<StoreDrainSettings>),
    /// One topic with many subscribers: when the first has a message, and when the last
    FanOut(Single<FanOutSettings>),
    /// Many publishers to one topic with one subscriber, or with a few that share it
    FanIn(Single<FanInSettings>),
    /// Some subscribers stop reading: what the others notice, and what is kept for the slow ones
    SlowConsumer(Single<SlowConsumerSettings>),
    /// Hostile clients beside well-behaved ones: whether these notice, kind by kind
    NoisyNeighbour(Single<NoisyNeighbourSettings>),
    /// Everybody's connection ends at once and everybody returns: logins per second, and what bystanders notice
    LoginStorm(Single<StormSettings>),
    /// Devices log in with a token, new to the server and again, beside others without: logins per second on one core
    TokenLogins(Single<TokenSettings>),
    /// A broker with sessions and queued messages ends and starts again: how long until everything is back
    Restart(Single<RestartSettings>),
    /// Messages for recipients who take their time to acknowledge: what the sender waits, and what is written
    Hold(Single<HoldSettings>),
    /// A day in a minute: thousands of mostly idle phones that come and go, read late, chat, ping and vanish
    Day(Single<DaySettings>),
    /// `hold` over several values of that setting and both kinds of recipients: table, document and plot
    HoldCurve(hold::sweep::SweepSettings),
    /// Hours of store and drain with sessions that never return: is everything flat, and is nobody stalled
    Sustained {
        #[command(flatten)]
        settings: sustained::SustainedSettings,
        #[command(flatten)]
        environment: Environment,
    },
    /// How fast QoS 1 is acknowledged for sessions that are away, and how far that is from what disk and CPU allow
    DurableAck(durable_ack::DurableAckSettings),
    /// As many durable sessions as memory allows in one broker: what they cost, what reaches them, what its death leaves
    Million(Single<MillionSettings>),
    /// The same scenarios on several brokers in turn, with ratios
    Compare(Box<compare::CompareSettings>),
    /// The page of a stored document, with drawings
    Report(ReportSettings),
    /// Occupies a CPU with nothing; started by this program
    #[command(hide = true)]
    Awake {
        /// Which
        cpu: usize,
    },
    /// The floor relay: the least an MQTT-shaped relay can do (keeps nothing; only for comparison)
    Floor {
        /// Address to listen on
        #[arg(long, default_value = "127.0.0.1:1883")]
        listen: SocketAddr,
    },
}

/// One scenario on one broker.
#[derive(Args)]
struct Single<Settings: Args> {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    environment: Environment,
    #[command(flatten)]
    settings: Settings,
}

/// The broker to drive: one to start, or one that runs.
#[derive(Args)]
#[group(required = true, multiple = false, id = "which")]
struct Which {
    /// Start this broker: mosquitto, mosquitto-tls, ejabberd, floor, ironpost, ironpost-tls, ironpost-tokens, or NAME=COMMAND
    /// with {port} and {data} in it
    #[arg(long, value_name = "BROKER")]
    broker: Option<Broker>,
    /// Drive the broker that listens here
    #[arg(long, value_name = "ADDRESS")]
    target: Option<SocketAddr>,
}

#[derive(Args)]
struct Target {
    #[command(flatten)]
    which: Which,
    /// The process of the broker given with --target: without it there are no CPU and memory figures
    #[arg(long, requires = "target")]
    pid: Option<u32>,
    /// It speaks TLS, and one of these certificates (PEM) vouches for it
    #[arg(long, requires = "target", value_name = "FILE")]
    tls: Option<PathBuf>,
    /// The name that its certificate is for
    #[arg(long, requires = "tls", value_name = "NAME", default_value = "localhost")]
    tls_name: String,
}

/// Where things run and where results go.
#[derive(Args, Clone, Debug)]
pub struct Environment {
    /// Keep server and load on CPUs of their own: auto, off, or SERVER,LOAD
    #[arg(long, default_value = "auto", value_parser = parse_pin)]
    pin: Pin,
    /// Keep these two CPUs from sleeping: to wake one takes a virtual machine long, and is nobody's latency
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    awake: bool,
    /// Where brokers that are started here keep their data; on the disk that is to be measured
    #[arg(long, value_name = "DIRECTORY", default_value_os_t = std::env::temp_dir())]
    data_root: PathBuf,
    /// Write the JSON document to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the document as a page with drawings to this file too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print a table instead of the JSON document
    #[arg(long)]
    text: bool,
}

/// A stored document, and what to make of it.
#[derive(Args)]
struct ReportSettings {
    /// A result document, as `--json` writes it
    document: PathBuf,
    /// Where a page with everything in it goes
    #[arg(long, value_name = "FILE", required_unless_present = "ratios")]
    html: Option<PathBuf>,
    /// Where a drawing (SVG) goes of what brokers cost beside another; for documents of `compare`
    #[arg(long, value_name = "FILE")]
    ratios: Option<PathBuf>,
    /// Beside which one
    #[arg(long, value_name = "BROKER", default_value = "floor")]
    to: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pin {
    Off,
    To(Placement),
}

fn parse_pin(text: &str) -> Result<Pin, String> {
    match text {
        // Here, once: whoever starts a server is pinned from then on, and would find one CPU.
        "auto" => {
            return Ok(match process::allowed_cpus()[..] {
                [server_cpu, load_cpu, ..] => {
                    Pin::To(Placement::among(&process::allowed_cpus(), server_cpu, load_cpu))
                }
                _ => Pin::Off,
            });
        }
        "off" => return Ok(Pin::Off),
        _ => {}
    }
    let cpus =
        text.split_once(',').and_then(|(server, load)| Some((server.parse().ok()?, load.parse().ok()?)));
    let (server_cpu, load_cpu) = cpus.ok_or_else(|| format!("`{text}` is not auto, off or SERVER,LOAD"))?;
    Ok(Pin::To(Placement::among(&process::allowed_cpus(), server_cpu, load_cpu)))
}

impl Environment {
    /// Which CPUs to use, if server and load are to be kept apart.
    pub fn placement(&self) -> Option<Placement> {
        match self.pin {
            Pin::Off => None,
            Pin::To(placement) => Some(placement),
        }
    }

    /// Whether the CPUs of server and load are kept from sleeping.
    pub fn keeps_awake(&self) -> bool {
        self.awake && self.placement().is_some()
    }

    /// Keeps the CPUs of server and load from sleeping for as long as the value lives, where that is wanted.
    pub fn keep_awake(&self) -> Result<Awake> {
        let cpus = self.placement().filter(|_| self.awake).map(|cpus| [cpus.server_cpu, cpus.load_cpu]);
        Awake::keep(cpus.as_ref().map_or(&[], <[usize; 2]>::as_slice))
    }

    /// Writes the document, and to standard output either it or `text`.
    pub fn publish(&self, document: &Value, text: &str) -> Result<()> {
        let json = serde_json::to_string_pretty(document)?;
        if let Some(path) = &self.json {
            fs::write(path, &json).with_context(|| format!("writing {}", path.display()))?;
        }
        if let Some(path) = &self.html {
            fs::write(path, html::render(document)?)
                .with_context(|| format!("writing {}", path.display()))?;
        }
        // Not println: a reader that has seen enough is an error to report, not a panic.
        let output = if self.text { text } else { &json };
        writeln!(io::stdout(), "{output}").context("writing the result to standard output")
    }
}

fn main() -> ExitCode {
    // Before anything is started: a broker that is started here inherits it. Where it cannot be raised it stays.
    let _ = process::raise_descriptor_limit();
    let done = match Command::parse().action {
        Action::Flow(single) => measure(&single, "flow", |server, settings| flow::run(server, settings)),
        Action::FlowCurve(single) => {
            measure(&single, "flow-curve", |server, settings| flow::curve::run(server, settings))
        }
        Action::PingPong(mut single) => {
            single.settings.pairs = 1;
            single.settings.window = 1;
            measure(&single, "ping-pong", |server, settings| flow::run(server, settings))
        }
        Action::Connections(single) => {
            measure(&single, "connections", |server, settings| connections::run(server, settings))
        }
        Action::StoreDrain(single) => {
            measure(&single, "store-drain", |server, settings| store_drain::run(server, settings))
        }
        Action::FanOut(single) => {
            measure(&single, "fan-out", |server, settings| fan_out::run(server, settings))
        }
        Action::FanIn(single) => measure(&single, "fan-in", |server, settings| fan_in::run(server, settings)),
        Action::SlowConsumer(single) => {
            measure(&single, "slow-consumer", |server, settings| slow_consumer::run(server, settings))
        }
        Action::NoisyNeighbour(single) => {
            measure(&single, "noisy-neighbour", |server, settings| noisy_neighbour::run(server, settings))
        }
        Action::LoginStorm(single) => {
            measure(&single, "login-storm", |server, settings| login_storm::run(server, settings))
        }
        Action::TokenLogins(single) => {
            measure(&single, "token-logins", |server, settings| token_logins::run(server, settings))
        }
        Action::Restart(single) => measure(&single, "restart", restart::run),
        Action::Hold(single) => measure(&single, "hold", |server, settings| hold::run(server, settings)),
        Action::Day(single) => measure(&single, "day", |server, settings| day::run(server, settings)),
        Action::HoldCurve(settings) => hold::sweep::run(&settings),
        Action::Sustained { settings, environment } => sustained::run(&settings, &environment),
        Action::DurableAck(settings) => durable_ack::run(&settings),
        Action::Million(mut single) => {
            // Where CPUs are emulated, nothing may take their time.
            single.environment.awake = false;
            measure(&single, "million", million::run)
        }
        Action::Compare(settings) => compare::run(&settings),
        Action::Report(settings) => show_again(&settings).map(|()| true),
        Action::Awake { cpu } => awake::occupy(cpu).map(|()| true),
        Action::Floor { listen } => floor::serve(listen).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ironpost-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the page or the drawing of a document that was stored.
fn show_again(settings: &ReportSettings) -> Result<()> {
    let path = &settings.document;
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let document = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    let showing = || format!("showing {}", path.display());
    let write =
        |to: &PathBuf, text: String| fs::write(to, text).with_context(|| format!("writing {}", to.display()));
    if let Some(html) = &settings.html {
        write(html, html::render(&document).with_context(showing)?)?;
    }
    if let Some(drawing) = &settings.ratios {
        write(drawing, ratios::render(&document, &settings.to).with_context(showing)?)?;
    }
    Ok(())
}

/// Runs one scenario on one broker; whether the broker did nothing wrong.
fn measure<Settings: Args>(
    single: &Single<Settings>,
    scenario: &str,
    run: impl Fn(&mut Server, &Settings) -> Result<Outcome>,
) -> Result<bool> {
    let Single { target, environment, settings } = single;
    let placement = environment.placement();
    let (mut server, broker) = match (&target.which.broker, target.which.target) {
        (Some(broker), _) => (Server::start(broker, &environment.data_root, placement)?, broker.describe()),
        (None, address) => {
            let address = address.context("neither --broker nor --target")?;
            ensure!(address.port() != 0, "--target needs a port");
            if let Some(path) = &target.tls {
                let authorities = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
                tls::speak_at(address, &authorities, &target.tls_name)
                    .with_context(|| format!("believing in {}", path.display()))?;
            }
            if let Some(placement) = placement {
                process::pin_to(placement.load_cpu)?;
            }
            (
                Server::running(address, target.pid),
                json!({ "address": address.to_string(), "pid": target.pid }),
            )
        }
    };
    let awake = environment.keep_awake()?;
    let steps = Steps::single(scenario);
    let outcome = run(&mut server, settings).unwrap_or_else(|error| Outcome::failed(&error));
    drop((steps, server, awake));
    let mut document = report::head(placement);
    document["scenario"] = json!(scenario);
    document["broker"] = broker;
    document["awake"] = json!(environment.keeps_awake());
    document["outcome"] = outcome.to_json();
    environment.publish(&document, &format!("{scenario}\n{}", outcome.to_text()))?;
    Ok(outcome.failures.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Command::command().debug_assert();
    }

    #[test]
    fn a_pin_is_auto_off_or_two_cpus() {
        if let Ok(Pin::To(Placement { server_cpu, load_cpu, other_cpu })) = parse_pin("auto") {
            let allowed = process::allowed_cpus();
            assert!(server_cpu != load_cpu && allowed.contains(&server_cpu) && allowed.contains(&load_cpu));
            assert_eq!(other_cpu.is_some(), allowed.len() > 2);
        } else {
            assert_eq!(process::allowed_cpus().len(), 1, "two CPUs are enough");
        }
        assert_eq!(parse_pin("off"), Ok(Pin::Off));
        let Ok(Pin::To(placement)) = parse_pin("3,5") else { panic!("two CPUs") };
        assert_eq!((placement.server_cpu, placement.load_cpu), (3, 5));
        assert_eq!(Placement::among(&[3, 4, 5], 3, 5).hostile_cpu(), 4);
        assert_eq!(Placement::among(&[3, 5], 3, 5).hostile_cpu(), 3, "there is no other but the load's");
        assert!(parse_pin("3").is_err() && parse_pin("a,b").is_err());
    }
}
