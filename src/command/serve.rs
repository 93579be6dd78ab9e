//! `ironpost serve`: reads the configuration, starts the log, runs the shards until they are told to stop.
//!
//! Also defines the flags that override settings, which `check` shares, and those that find the data, for `journal`.

use std::path::PathBuf;

use super::Failure;
use crate::config::{self, Host, Loaded, Override, Value};

/// Flags of `serve`, and of `check`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ironpost serve                                          one host, for trying out: 127.0.0.1:1883
  ironpost serve --config /etc/ironpost.toml              the way a unit file starts it
  ironpost serve --listen tcp://0.0.0.0:1883 --allow-anonymous

`ironpost check --example` prints every setting with its default and its meaning.")]
pub(super) struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

/// The flags that say what the settings are. Each overrides the file.
#[derive(clap::Args)]
pub(super) struct Settings {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where clients connect; may be given several times [default: tcp://127.0.0.1:1883]
    #[arg(long, value_name = "tcp://ADDR:PORT")]
    listen: Vec<String>,

    /// Directory of the journals [default: ./ironpost-data, or systemd's state directory]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,

    /// Threads that share the sessions; fixed when the directory is created [default: one per core for a new directory]
    #[arg(long, value_name = "N")]
    shards: Option<i64>,

    /// How the kernel is asked for I/O: auto, uring or epoll [default: auto]
    #[arg(long, value_name = "NAME")]
    reactor: Option<String>,

    /// Let clients without credentials connect from other hosts
    #[arg(long)]
    allow_anonymous: bool,
}

/// The flags that say where the data is, by the same settings.
#[derive(clap::Args)]
pub(super) struct DataArguments {
    /// Configuration file (TOML), the one that the broker runs with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Directory of the journals [default: as `serve`]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
}

impl DataArguments {
    /// Where the data is.
    pub(super) fn data(&self) -> Result<PathBuf, Failure> {
        let settings = Settings {
            config: self.config.clone(),
            listen: Vec::new(),
            data: self.data.clone(),
            shards: None,
            reactor: None,
            allow_anonymous: false,
        };
        Ok(settings.load()?.config.data)
    }
}

impl Settings {
    /// Of a command that works on a data directory: the file, and where that is.
    pub(super) fn of_directory(config: Option<PathBuf>, data: Option<String>) -> Settings {
        let (listen, shards, reactor) = (Vec::new(), None, None);
        Settings { config, listen, data, shards, reactor, allow_anonymous: false }
    }

    /// The configuration that these flags, their file and this host make.
    pub(super) fn load(&self) -> Result<Loaded, Failure> {
        config::load(self.config.as_deref(), &self.overrides(), &host()).map_err(Failure::usage)
    }

    fn overrides(&self) -> Vec<Override> {
        let mut overrides = Vec::new();
        let mut add = |key, flag, value: Option<Value>| {
            overrides.extend(value.map(|value| Override { key, flag, value }));
        };
        let text = |text: &String| Value::Text(text.clone());
        let listen = (!self.listen.is_empty()).then(|| Value::List(self.listen.iter().map(text).collect()));
        add("listen", "--listen", listen);
        add("data", "--data", self.data.as_ref().map(text));
        add("shards", "--shards", self.shards.map(Value::Integer));
        add("reactor", "--reactor", self.reactor.as_ref().map(text));
        let allow_anonymous = self.allow_anonymous.then_some(Value::Truth(true));
        add("allow_anonymous", "--allow-anonymous", allow_anonymous);
        overrides
    }
}

/// What defaults depend on here.
fn host() -> Host {
    Host {
        state_directory: std::env::var_os("STATE_DIRECTORY")
            .and_then(|path| path.into_string().ok())
            .filter(|path| !path.is_empty()),
    }
}

/// Runs the broker.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let loaded = arguments.settings.load()?;
    crate::log::start(loaded.config.log);
    crate::shard::serve(&loaded.config).map_err(Failure::work)
}
