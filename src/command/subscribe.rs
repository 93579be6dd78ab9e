//! `ironpost sub`: prints what arrives, one message per line, each before it is acknowledged.

use std::io::Write;

use super::Failure;
use super::arguments::{ConnectArguments, parse_qos};
use crate::client::{Connection, Subscription, subscribe};
use crate::wire::{QoS, topic};

/// Flags of `sub`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ironpost sub -t '#' -v                                  everything, with its topic
  ironpost sub -c -i alice -q 1 -t 'inbox/#'              a session that collects while nobody is connected
  ironpost sub -c -i alice -q 1 -t 'inbox/#' --count 0    make such a session and leave
  ironpost sub -q 1 -t '$share/workers/jobs/#'            one of a group that splits the messages")]
pub(super) struct Arguments {
    #[command(flatten)]
    connect: ConnectArguments,

    /// Topic filter to subscribe to; may be given several times
    #[arg(short, long, required = true, value_name = "FILTER")]
    topic: Vec<String>,

    /// Highest quality of service wanted: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    qos: QoS,

    /// Persistent session: take up what an earlier connection left, and leave it for the next
    #[arg(short = 'c', long, requires = "id")]
    persistent: bool,

    /// Seconds the persistent session outlives the connection (version 5)
    #[arg(long, default_value_t = 86_400, value_name = "SECONDS")]
    expiry: u32,

    /// Leave after so many messages; 0: once subscribed
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Seconds between signs of life; 0: none
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    keepalive: u16,

    /// Print the topic in front of each message
    #[arg(short, long)]
    verbose: bool,
}

/// Subscribes and prints.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    for filter in &arguments.topic {
        topic::check_filter(filter)
            .map_err(|error| Failure::usage(format!("-t {filter:?} is no topic filter: {error}")))?;
    }
    let mut options = arguments.connect.options(arguments.keepalive);
    if arguments.persistent {
        options.clean_start = false;
        options.session_expiry_s = arguments.expiry;
    }
    let mut connection = Connection::open(&options).map_err(Failure::work)?;
    let subscription =
        Subscription { filters: arguments.topic.clone(), qos: arguments.qos, count: arguments.count };
    let mut output = std::io::stdout().lock();
    subscribe(&mut connection, &subscription, &mut |publish| {
        if arguments.verbose {
            output.write_all(publish.topic.as_bytes())?;
            output.write_all(b" ")?;
        }
        output.write_all(publish.payload)?;
        output.write_all(b"\n")?;
        output.flush()
    })
    .map_err(Failure::work)
}
