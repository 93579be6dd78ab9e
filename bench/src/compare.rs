//! `compare`: the same scenarios on several brokers, in turn A B A B, with ratios and their spread.
//!
//! This kind of machine is shared and noisy, so an absolute figure from one run says little. Each round runs every
//! broker once, each freshly started with an empty data directory, one at a time; a ratio is formed inside a round and
//! reported as median, least and greatest over the rounds. A run in which a broker was wrong stays in the document,
//! is marked, and makes the command fail.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::Environment;
use crate::measure::process;
use crate::measure::slope::spread;
use crate::report::progress::Steps;
use crate::report::{self, Outcome, readable};
use crate::scenario::connections::{self, ConnectionSettings};
use crate::scenario::day::{self, DaySettings};
use crate::scenario::fan_in::{self, FanInSettings};
use crate::scenario::fan_out::{self, FanOutSettings};
use crate::scenario::flow::{self, FlowSettings};
use crate::scenario::login_storm::{self, StormSettings};
use crate::scenario::noisy_neighbour::{self, NoisyNeighbourSettings};
use crate::scenario::restart::{self, RestartSettings};
use crate::scenario::slow_consumer::{self, SlowConsumerSettings};
use crate::scenario::store_drain::{self, StoreDrainSettings};
use crate::scenario::token_logins::{self, TokenSettings};
use crate::server::{Broker, Entrance, Server};

/// What to compare, and how often.
#[derive(Args)]
pub struct CompareSettings {
    /// A broker: mosquitto, mosquitto-tls, ejabberd, floor, ironpost, ironpost-tls, ironpost-tokens, NAME= before one of these, or
    /// NAME=COMMAND with {port} and {data} in it (repeat)
    #[arg(long = "broker", value_name = "BROKER", default_values = ["mosquitto", "floor"])]
    brokers: Vec<Broker>,
    /// Ratios are taken to these brokers (repeat) [default: all whose name is mosquitto or floor]
    #[arg(long = "to", value_name = "NAME")]
    baselines: Vec<String>,
    /// What to run, in this order
    #[arg(long, value_delimiter = ',', default_value = "flow-qos0,flow-qos1,flow-qos2,ping-pong")]
    scenarios: Vec<Scenario>,
    /// How often each broker runs each scenario
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    #[command(flatten)]
    flow: FlowSettings,
    #[command(flatten)]
    connections: ConnectionSettings,
    #[command(flatten)]
    store_drain: StoreDrainSettings,
    #[command(flatten)]
    fan_out: FanOutSettings,
    #[command(flatten)]
    fan_in: FanInSettings,
    #[command(flatten)]
    slow_consumer: SlowConsumerSettings,
    #[command(flatten)]
    noisy_neighbour: NoisyNeighbourSettings,
    #[command(flatten)]
    login_storm: StormSettings,
    #[command(flatten)]
    token_logins: TokenSettings,
    #[command(flatten)]
    restart: RestartSettings,
    #[command(flatten)]
    day: DaySettings,
    #[command(flatten)]
    environment: Environment,
}

/// The open loops' rate without `--rate`, in messages per second: a fraction of what each peer can do on one core, so that
/// latencies are not those of a queue that only grows.
const OPEN_RATE: u64 = 10_000;

/// The open loops' window, if `--window` is not wider: a publisher that is answered after 100 ms must not run out of it.
const OPEN_WINDOW: u16 = 1_000;

/// Share of late subscribers in `flow-qos1-late`.
const LATE_PERCENT: u32 = 10;

/// A scenario with the settings that its name fixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    #[value(name = "flow-qos0")]
    FlowQos0,
    #[value(name = "flow-qos1")]
    FlowQos1,
    #[value(name = "flow-qos2")]
    FlowQos2,
    #[value(name = "flow-qos1-durable")]
    FlowQos1Durable,
    #[value(name = "flow-qos2-durable")]
    FlowQos2Durable,
    /// Open loop at `--rate` with durable subscribers
    #[value(name = "flow-qos1-open")]
    FlowQos1Open,
    /// The same where a tenth of the subscribers acknowledges after `--late-ms`
    #[value(name = "flow-qos1-late")]
    FlowQos1Late,
    #[value(name = "ping-pong")]
    PingPong,
    Connections,
    StoreDrain,
    FanOut,
    FanIn,
    SlowConsumer,
    NoisyNeighbour,
    LoginStorm,
    /// For brokers that are set up for tokens
    TokenLogins,
    Restart,
    Day,
}

impl Scenario {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The floor has no sessions to keep messages in, most brokers are not set up for tokens, and hostile clients speak no TLS.
    fn suits(self, broker: &Broker) -> bool {
        use Scenario::{Day, LoginStorm, NoisyNeighbour, Restart, SlowConsumer, StoreDrain, TokenLogins};
        match self {
            StoreDrain | SlowConsumer | LoginStorm | Restart | Day => broker.keeps_sessions(),
            TokenLogins => broker.entrance() == Entrance::Tokens,
            NoisyNeighbour => broker.entrance() != Entrance::Tls,
            _ => true,
        }
    }

    fn run(self, server: &mut Server, settings: &CompareSettings) -> Result<Outcome> {
        let flow = |qos: u8, durable: bool| {
            let closed = FlowSettings { rate: None, late_percent: 0, ..settings.flow.clone() };
            FlowSettings { qos, durable, ..closed }
        };
        let open = |late_percent: u32| {
            let rate = Some(settings.flow.rate.unwrap_or(OPEN_RATE));
            let window = settings.flow.window.max(OPEN_WINDOW);
            FlowSettings { rate, window, late_percent, ..flow(1, true) }
        };
        match self {
            Scenario::FlowQos0 => flow::run(server, &flow(0, false)),
            Scenario::FlowQos1 => flow::run(server, &flow(1, false)),
            Scenario::FlowQos2 => flow::run(server, &flow(2, false)),
            Scenario::FlowQos1Durable => flow::run(server, &flow(1, true)),
            Scenario::FlowQos2Durable => flow::run(server, &flow(2, true)),
            Scenario::FlowQos1Open => flow::run(server, &open(0)),
            Scenario::FlowQos1Late => flow::run(server, &open(LATE_PERCENT)),
            Scenario::Connections => connections::run(server, &settings.connections),
            Scenario::StoreDrain => store_drain::run(server, &settings.store_drain),
            Scenario::FanOut => fan_out::run(server, &settings.fan_out),
            Scenario::FanIn => fan_in::run(server, &settings.fan_in),
            Scenario::SlowConsumer => slow_consumer::run(server, &settings.slow_consumer),
            Scenario::NoisyNeighbour => noisy_neighbour::run(server, &settings.noisy_neighbour),
            Scenario::LoginStorm => login_storm::run(server, &settings.login_storm),
            Scenario::TokenLogins => token_logins::run(server, &settings.token_logins),
            Scenario::Restart => restart::run(server, &settings.restart),
            Scenario::Day => day::run(server, &settings.day),
            Scenario::PingPong => flow::run(server, &FlowSettings { pairs: 1, window: 1, ..flow(1, false) }),
        }
    }
}

/// One run: which broker, which round, and what it gave.
pub struct Run {
    pub broker: usize,
    pub round: u32,
    pub outcome: Outcome,
}

/// Runs the comparison; whether no broker was wrong.
pub fn run(settings: &CompareSettings) -> Result<bool> {
    let brokers = &settings.brokers;
    check_names(brokers)?;
    let baselines = baselines(settings)?;
    let mut document = report::head(settings.environment.placement());
    let _awake = settings.environment.keep_awake()?;
    document["awake"] = json!(settings.environment.keeps_awake());
    document["rounds"] = json!(settings.rounds);
    document["brokers"] = json!(brokers.iter().map(Broker::describe).collect::<Vec<_>>());
    document["results"] = json!([]);
    let (mut text, mut sound) = (String::new(), true);
    if let Some(placement) = settings.environment.placement() {
        // The thread that draws the progress must be where the load is.
        process::pin_to(placement.load_cpu)?;
    }
    let runs_each = |scenario: &Scenario| settings.rounds as usize * taking_part(*scenario, brokers).count();
    let mut steps = Steps::begin(&settings.scenarios.iter().map(runs_each).collect::<Vec<_>>());
    for (kind, &scenario) in settings.scenarios.iter().enumerate() {
        let runs = runs_of(scenario, settings, |name| steps.next(kind, name));
        sound &= runs.iter().all(|run| run.outcome.failures.is_empty());
        let table = Table::new(brokers, &baselines, &runs);
        text.push_str(&table.to_text(&scenario.name(), brokers, &baselines, &runs));
        if let Some(results) = document["results"].as_array_mut() {
            results.push(table.to_json(&scenario.name(), brokers, &baselines, &runs));
        }
    }
    drop(steps);
    settings.environment.publish(&document, &text)?;
    Ok(sound)
}

/// Brokers are told apart by their names.
pub fn check_names(brokers: &[Broker]) -> Result<()> {
    for (index, broker) in brokers.iter().enumerate() {
        let twice = brokers[..index].iter().any(|other| other.name == broker.name);
        ensure!(!twice, "{} is given twice", broker.name);
    }
    Ok(())
}

fn baselines(settings: &CompareSettings) -> Result<Vec<usize>> {
    let names: Vec<&str> = match settings.baselines.as_slice() {
        [] => vec!["mosquitto", "floor"],
        given => given.iter().map(String::as_str).collect(),
    };
    let position = |name: &str| settings.brokers.iter().position(|broker| broker.name == name);
    if let Some(unknown) = settings.baselines.iter().find(|name| position(name).is_none()) {
        anyhow::bail!("--to {unknown}: no broker has that name");
    }
    Ok(names.into_iter().filter_map(position).collect())
}

/// The brokers that can run a scenario, with their places.
fn taking_part(scenario: Scenario, brokers: &[Broker]) -> impl Iterator<Item = (usize, &Broker)> {
    brokers.iter().enumerate().filter(move |(_, broker)| scenario.suits(broker))
}

fn runs_of(scenario: Scenario, settings: &CompareSettings, mut begin: impl FnMut(&str)) -> Vec<Run> {
    let placement = settings.environment.placement();
    let mut runs = Vec::new();
    for round in 0..settings.rounds {
        for (index, broker) in taking_part(scenario, &settings.brokers) {
            let (name, of) = (scenario.name(), settings.rounds);
            begin(&format!("{name} round {}/{of}: {}", round + 1, broker.name));
            let outcome = Server::start(broker, &settings.environment.data_root, placement)
                .and_then(|mut server| scenario.run(&mut server, settings))
                .unwrap_or_else(|error| Outcome::failed(&error));
            for failure in &outcome.failures {
                report::progress(&format!("  FAILED: {failure}"));
            }
            runs.push(Run { broker: index, round, outcome });
        }
    }
    runs
}

/// Median, least and greatest.
type Spread = (f64, f64, f64);

/// One figure of one broker over all rounds, and its ratio to each baseline.
struct Row {
    broker: usize,
    name: &'static str,
    unit: &'static str,
    value: Spread,
    ratios: Vec<Option<Spread>>,
}

/// What runs in turn gave, with ratios.
pub struct Table(Vec<Row>);

impl Table {
    pub fn new(brokers: &[Broker], baselines: &[usize], runs: &[Run]) -> Table {
        let mut rows = Vec::new();
        for broker in 0..brokers.len() {
            let Some(first) = runs.iter().find(|run| run.broker == broker && !run.outcome.figures.is_empty())
            else {
                continue;
            };
            for figure in &first.outcome.figures {
                let own = |run: &&Run| run.broker == broker;
                let values: Vec<f64> =
                    runs.iter().filter(own).filter_map(|run| run.outcome.figure(figure.name)).collect();
                let ratios =
                    baselines.iter().map(|&baseline| ratio(runs, figure.name, broker, baseline)).collect();
                if let Some(value) = spread(&values) {
                    rows.push(Row { broker, name: figure.name, unit: figure.unit, value, ratios });
                }
            }
        }
        Table(rows)
    }

    pub fn to_json(&self, scenario: &str, brokers: &[Broker], baselines: &[usize], runs: &[Run]) -> Value {
        let spread =
            |(median, least, greatest): Spread| json!({ "median": median, "min": least, "max": greatest });
        let row = |row: &Row| {
            let ratios: serde_json::Map<String, Value> = baselines
                .iter()
                .zip(&row.ratios)
                .filter_map(|(&baseline, ratio)| Some((brokers[baseline].name.clone(), spread((*ratio)?))))
                .collect();
            let broker = &brokers[row.broker].name;
            json!({ "broker": broker, "figure": row.name, "unit": row.unit, "value": spread(row.value), "ratio_to": ratios })
        };
        let run = |run: &Run| {
            let mut value = run.outcome.to_json();
            value["broker"] = json!(brokers[run.broker].name);
            value["round"] = json!(run.round + 1);
            value
        };
        json!({
            "scenario": scenario,
            "summary": self.0.iter().map(row).collect::<Vec<_>>(),
            "runs": runs.iter().map(run).collect::<Vec<_>>(),
        })
    }

    pub fn to_text(&self, scenario: &str, brokers: &[Broker], baselines: &[usize], runs: &[Run]) -> String {
        let mut lines =
            vec![vec![scenario.to_owned(), String::new(), "median (min..max)".to_owned(), String::new()]];
        lines[0].extend(baselines.iter().map(|&baseline| format!("/ {}", brokers[baseline].name)));
        for row in &self.0 {
            let mut line =
                vec![brokers[row.broker].name.clone(), row.name.to_owned(), spread_text(row.value)];
            line.push(row.unit.to_owned());
            let ratios = row.ratios.iter().zip(baselines);
            line.extend(ratios.map(|(ratio, &baseline)| match ratio {
                Some(ratio) if baseline != row.broker => spread_text(*ratio),
                _ => "-".to_owned(),
            }));
            lines.push(line);
        }
        let mut text = align(&lines);
        for run in runs {
            for failure in &run.outcome.failures {
                let _ =
                    writeln!(text, "FAILED: {} round {}: {failure}", brokers[run.broker].name, run.round + 1);
            }
        }
        text.push('\n');
        text
    }
}

/// The ratio of a figure to the baseline's in the same round, over all rounds that have both.
fn ratio(runs: &[Run], name: &str, broker: usize, baseline: usize) -> Option<Spread> {
    let value = |round: u32, broker: usize| {
        runs.iter().find(|run| run.round == round && run.broker == broker)?.outcome.figure(name)
    };
    let rounds = runs.iter().filter(|run| run.broker == broker).map(|run| run.round);
    let ratios: Vec<f64> = rounds
        .filter_map(|round| {
            Some(value(round, broker)? / value(round, baseline).filter(|value| *value > 0.0)?)
        })
        .collect();
    spread(&ratios)
}

fn spread_text((median, least, greatest): Spread) -> String {
    format!("{} ({}..{})", readable(median), readable(least), readable(greatest))
}

/// Columns of equal width, two spaces apart.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(broker: usize, round: u32, rate: f64) -> Run {
        let mut outcome = Outcome::default();
        outcome.add("rate", "msg/s", rate);
        Run { broker, round, outcome }
    }

    #[test]
    fn a_ratio_is_formed_inside_a_round() {
        // Both brokers are twice as fast in round 1: the values spread, the ratio does not.
        let runs = [run_of(0, 0, 100.0), run_of(1, 0, 300.0), run_of(0, 1, 200.0), run_of(1, 1, 600.0)];
        assert_eq!(ratio(&runs, "rate", 1, 0), Some((3.0, 3.0, 3.0)));
        assert_eq!(ratio(&runs, "latency", 1, 0), None);
    }

    #[test]
    fn a_failed_run_has_no_part_in_a_ratio_but_is_named() {
        let brokers = ["floor".parse::<Broker>().unwrap(), "mosquitto".parse::<Broker>().unwrap()];
        let failed = Outcome::failed(&anyhow::anyhow!("it lost one"));
        let runs = [
            run_of(0, 0, 100.0),
            Run { broker: 1, round: 0, outcome: failed },
            run_of(0, 1, 50.0),
            run_of(1, 1, 25.0),
        ];
        let table = Table::new(&brokers, &[0], &runs);
        let text = table.to_text("flow", &brokers, &[0], &runs);
        assert!(text.contains("FAILED: mosquitto round 1: it lost one"), "{text}");
        assert!(text.contains("0.500 (0.500..0.500)"), "{text}");
    }
}
