//! A broker's description and how it becomes a command.
//!
//! Decides what is built in ([`BUILT_IN`]) and that `NAME=COMMAND` is any other, with `{port}` and `{data}` filled in. The
//! process that the command becomes is the one accounted for. Called by `server`, which starts it.

use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::ironpost::Ironpost;
use super::{ejabberd, mosquitto, version};

/// What is known by name. Ironpost may be followed by its program and arguments.
const BUILT_IN: [&str; 7] =
    ["mosquitto", "mosquitto-tls", "ejabberd", "floor", "ironpost", "ironpost-tls", "ironpost-tokens"];

/// What a server that is set up here asks of who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// Nothing.
    Plain,
    /// To speak TLS.
    Tls,
    /// Nothing, or at a second address a device token.
    Tokens,
}

/// How to start one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub name: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Mosquitto(Entrance),
    Ejabberd,
    Floor,
    Ironpost(Ironpost, Entrance),
    /// Words with `{port}` and `{data}` to fill in.
    Command(Vec<String>),
}

impl FromStr for Broker {
    type Err = String;

    /// What is built in, `NAME=` before that, or `NAME=COMMAND`.
    fn from_str(text: &str) -> Result<Broker, String> {
        let first = text.split_whitespace().next().unwrap_or_default();
        let (name, command) = match text.split_once('=') {
            Some(named) if !BUILT_IN.contains(&first) => named,
            _ => (first, text),
        };
        let mut words = command.split_whitespace();
        let program = words.next().unwrap_or_default();
        let ironpost = |entrance| Kind::Ironpost(Ironpost::from_words(words.clone()), entrance);
        let is_alone = words.clone().next().is_none();
        let kind = match program {
            "mosquitto" if is_alone => Kind::Mosquitto(Entrance::Plain),
            "mosquitto-tls" if is_alone => Kind::Mosquitto(Entrance::Tls),
            "ejabberd" if is_alone => Kind::Ejabberd,
            "floor" if is_alone => Kind::Floor,
            "ironpost" => ironpost(Entrance::Plain),
            "ironpost-tls" => ironpost(Entrance::Tls),
            "ironpost-tokens" => ironpost(Entrance::Tokens),
            _ if !text.contains('=') => {
                let known = BUILT_IN.join(", ");
                return Err(format!("`{text}` is not built in: write {name}=COMMAND, or use one of {known}"));
            }
            _ if !command.contains("{port}") => {
                return Err(format!("the command of `{name}` has no {{port}}"));
            }
            _ => Kind::Command(command.split_whitespace().map(str::to_owned).collect()),
        };
        Ok(Broker { name: name.to_owned(), kind })
    }
}

impl Broker {
    /// The floor keeps no sessions: a scenario about messages for absent subscribers means nothing there.
    pub fn keeps_sessions(&self) -> bool {
        self.kind != Kind::Floor
    }

    /// How many journals it syncs at a time: the number behind `--shards` in its command, or one.
    pub fn lanes(&self) -> u32 {
        let words = match &self.kind {
            Kind::Command(words) => words,
            Kind::Ironpost(ironpost, _) => &ironpost.arguments,
            Kind::Mosquitto(_) | Kind::Ejabberd | Kind::Floor => return 1,
        };
        let number = words.iter().skip_while(|word| *word != "--shards").nth(1);
        number.and_then(|number| number.parse().ok()).unwrap_or(1)
    }

    /// The command that starts it on a port of the loopback, with its data below `data`.
    pub(super) fn command(&self, port: u16, data: &Path) -> Result<Command> {
        match &self.kind {
            Kind::Mosquitto(entrance) => mosquitto::command(*entrance, port, data),
            Kind::Ejabberd => ejabberd::command(port, data),
            Kind::Floor => {
                let mut command = Command::new(std::env::current_exe().context("finding this program")?);
                command.arg("floor").arg("--listen").arg(format!("127.0.0.1:{port}"));
                Ok(command)
            }
            Kind::Ironpost(ironpost, entrance) => ironpost.command(*entrance, port, data),
            Kind::Command(words) => {
                let data = data.to_str().context("the data directory is not UTF-8")?;
                let filled = words
                    .iter()
                    .map(|word| word.replace("{port}", &port.to_string()).replace("{data}", data));
                let filled: Vec<String> = filled.collect();
                let (program, arguments) = filled.split_first().context("an empty command")?;
                let mut command = Command::new(program);
                command.args(arguments);
                Ok(command)
            }
        }
    }

    /// What it asks of who connects.
    pub fn entrance(&self) -> Entrance {
        match &self.kind {
            Kind::Mosquitto(entrance) | Kind::Ironpost(_, entrance) => *entrance,
            Kind::Ejabberd | Kind::Floor | Kind::Command(_) => Entrance::Plain,
        }
    }

    /// Whether it lets nobody in who brings no password. What the password is does not matter to it.
    pub(super) fn wants_password(&self) -> bool {
        self.kind == Kind::Ejabberd
    }

    /// What its process is called once it listens, if that is known: the one whose CPU is accounted for.
    pub(super) fn process_name(&self) -> Option<&'static str> {
        (self.kind == Kind::Ejabberd).then_some(ejabberd::PROCESS_NAME)
    }

    /// What a result document says about this broker.
    pub fn describe(&self) -> Value {
        let (command, version) = match &self.kind {
            Kind::Mosquitto(entrance) => (mosquitto::describe(*entrance), mosquitto::version()),
            Kind::Ironpost(ironpost, entrance) => (ironpost.describe(*entrance), ironpost.version()),
            Kind::Ejabberd => (ejabberd::describe(), ejabberd::version()),
            Kind::Floor => (json!("ironpost-bench floor"), Some(env!("CARGO_PKG_VERSION").to_owned())),
            Kind::Command(words) => {
                let version = words.first().and_then(|program| version::ask(program, &["--version"]));
                (json!(words.join(" ")), version)
            }
        };
        json!({ "name": self.name, "command": command, "version": version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_built_in_or_a_command_with_a_port() {
        let floor: Broker = "floor".parse().unwrap();
        assert!(floor.name == "floor" && !floor.keeps_sessions());
        let again: Broker = "again=floor".parse().unwrap();
        assert!(again.name == "again" && again.kind == Kind::Floor);
        assert!("unknown".parse::<Broker>().is_err());
        assert!("mosquitto -v".parse::<Broker>().is_err(), "it takes no arguments");
        assert!("x=serve --listen 1883".parse::<Broker>().unwrap_err().contains("{port}"));
    }

    #[test]
    fn an_entrance_is_part_of_what_is_built_in() {
        let tls: Broker = "mosquitto-tls".parse().unwrap();
        assert!(tls.name == "mosquitto-tls" && tls.entrance() == Entrance::Tls);
        let other: Broker =
            "epoll=ironpost-tls target/x/ironpost --reactor epoll --shards 2".parse().unwrap();
        assert_eq!((other.name.as_str(), other.entrance(), other.lanes()), ("epoll", Entrance::Tls, 2));
        let tokens: Broker = "ironpost-tokens".parse().unwrap();
        assert_eq!((tokens.entrance(), tokens.lanes()), (Entrance::Tokens, 1));
        assert_eq!("mosquitto".parse::<Broker>().unwrap().entrance(), Entrance::Plain);
        let spaced: Broker = "two shards=serve --listen={port} --shards 2".parse().unwrap();
        assert_eq!((spaced.name.as_str(), spaced.lanes()), ("two shards", 2));
    }

    #[test]
    fn lanes_are_the_shards_that_a_command_names() {
        let lanes = |text: &str| text.parse::<Broker>().unwrap().lanes();
        assert_eq!(lanes("x=serve --listen {port} --shards 2 --data {data}"), 2);
        assert_eq!((lanes("x=serve --listen {port}"), lanes("mosquitto")), (1, 1));
    }

    #[test]
    fn placeholders_are_filled_in() {
        let broker: Broker = "x=serve --listen tcp://127.0.0.1:{port} --data {data}/d".parse().unwrap();
        let command = broker.command(4711, Path::new("/tmp/q")).unwrap();
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(command.get_program(), "serve");
        assert_eq!(arguments, ["--listen", "tcp://127.0.0.1:4711", "--data", "/tmp/q/d"]);
    }
}
