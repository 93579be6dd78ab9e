//! `ironpost pub`: messages from the command line, a file or standard input.

use std::io::{self, BufRead};
use std::path::PathBuf;

use super::Failure;
use super::arguments::{ConnectArguments, parse_qos};
use crate::client::{Connection, Message, publish};
use crate::wire::{QoS, topic};

/// Flags of `pub`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ironpost pub -t greeting -m hello                       at most once: nobody acknowledges it
  ironpost pub -q 1 -t inbox/alice -m hello               exit code 0: delivered, or on disk there
  ironpost pub -q 2 -t meter/7 -r -f reading.json         exactly once, and retained
  seq 1000 | ironpost pub -q 1 -t numbers -l              one message per line")]
#[command(group = clap::ArgGroup::new("payload").required(true))]
pub(super) struct Arguments {
    #[command(flatten)]
    connect: ConnectArguments,

    /// Topic to publish to
    #[arg(short, long)]
    topic: String,

    /// The payload
    #[arg(short, long, group = "payload", value_name = "TEXT")]
    message: Option<String>,

    /// Publish each line of standard input
    #[arg(short, long, group = "payload")]
    lines: bool,

    /// Publish the content of a file
    #[arg(short, long, group = "payload")]
    file: Option<PathBuf>,

    /// Quality of service: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    qos: QoS,

    /// Keep it for those who subscribe later
    #[arg(short, long)]
    retain: bool,
}

/// Publishes.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    topic::check_name(&arguments.topic)
        .map_err(|error| Failure::usage(format!("-t {:?} is no topic: {error}", arguments.topic)))?;
    let payloads = payloads(arguments)?;
    // No keep alive: a pause of the input is not a lost connection.
    let mut connection = Connection::open(&arguments.connect.options(0)).map_err(Failure::work)?;
    let message = Message { topic: arguments.topic.clone(), qos: arguments.qos, retain: arguments.retain };
    publish(&mut connection, &message, payloads).map_err(Failure::work)?;
    Ok(())
}

fn payloads(arguments: &Arguments) -> Result<Box<dyn Iterator<Item = io::Result<Vec<u8>>>>, Failure> {
    if arguments.lines {
        let without_end = |line: io::Result<Vec<u8>>| {
            line.map(|mut line| {
                line.truncate(line.strip_suffix(b"\r").map_or(line.len(), <[u8]>::len));
                line
            })
        };
        return Ok(Box::new(io::stdin().lock().split(b'\n').map(without_end)));
    }
    let payload = match (&arguments.file, &arguments.message) {
        (Some(path), _) => std::fs::read(path)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?,
        (None, message) => message.clone().unwrap_or_default().into_bytes(),
    };
    Ok(Box::new(std::iter::once(Ok(payload))))
}
