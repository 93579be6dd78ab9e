//! What an operator may decide: read once at start, validated, then never changed.
//!
//! A value comes from its default, a file, or a flag; the later overrides the earlier. Every setting is a row of
//! `setting`, every row is explained in `example.toml`, and what is wrong ends in an error that names the place, the
//! cause and the cure. Bounds come from `limits`. Reads the file it is given and nothing else: the environment and
//! the machine are arguments ([`Host`]). Called by `command`.
//!
//! Invariant: a [`Config`] that [`load`] returned keeps every bound and the relations between its settings.

mod authentication;
mod error;
mod explain;
mod file;
mod listener;
mod rate_limits;
mod setting;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::broker::settings::Settings;
use crate::limits;
use crate::placement::Placement;
use crate::rates::{Limits, Rates};

pub use crate::access::guard::{AccountSource, Method};
pub use authentication::AuthenticationConfig;
use error::Complaint;
pub use error::ConfigError;
pub use explain::explain;
pub use listener::{Address, ClientCertificates, Listener, Place, Protocol};
pub use setting::Value;

/// The annotated file with every setting at its default.
pub const EXAMPLE: &str = include_str!("config/example.toml");

/// All settings. Fields are explained in `config/example.toml`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Where to listen without further settings; none only if there are `listeners`.
    pub listen: Vec<Address>,
    /// Where to listen with settings of its own.
    pub listeners: Vec<Listener>,
    /// The data directory; need not exist yet.
    pub data: PathBuf,
    /// 1..=`limits::SHARDS_MAX`; `None` takes what the data directory was made with, or one per core for a new one.
    pub shards: Option<u16>,
    /// How the kernel is asked for I/O.
    pub reactor: ReactorChoice,
    /// Whether clients without credentials may connect from other hosts.
    pub allow_anonymous: bool,
    /// What makes clients belong together.
    pub account: AccountSource,
    /// Where proofs are checked against, and what says who may do what.
    pub authentication: AuthenticationConfig,
    /// How often, and how much, but for what listeners have of their own.
    pub rates: Rates,
    /// Topics that live with an account; valid for `Placement::new`.
    pub account_topic_pattern: Option<String>,
    /// Memory that the process may have; `None`: what its control group and its host let it have.
    pub memory_bytes_max: Option<u64>,
    /// Whether the kernel may write the memory of the process to a file.
    pub core_dumps: bool,
    /// Bound of a graceful stop.
    pub drain_ms: u32,
    /// What the broker's decisions depend on.
    pub broker: BrokerConfig,
    /// The log.
    pub log: LogConfig,
}

/// The `[broker]` table; the meanings and units are those of [`Settings`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each field is documented at the field of that name in `Settings`")]
pub struct BrokerConfig {
    pub hold_ms: u32,
    pub send_window: u16,
    pub packet_bytes_max: u32,
    pub session_expiry_max_s: u32,
    pub keep_alive_max_s: u16,
    pub queue_messages_max: u32,
    pub queue_bytes_max: u64,
    /// See `limits::QUEUED_MESSAGES_DEFAULT`.
    pub queued_messages_max: u64,
    pub resident_bytes_max: u64,
    pub sys_interval_s: u32,
}

/// The `[log]` table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// Form of a line.
    pub format: LogFormat,
    /// Least severe line written.
    pub level: LogLevel,
}

/// How the kernel is asked for I/O.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReactorChoice {
    /// Probe, and say in the log what was chosen and why.
    Auto,
    /// io_uring, or fail.
    Uring,
    /// epoll.
    Epoll,
}

/// Form of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    Auto,
    /// For eyes.
    Human,
    /// One object per line.
    Json,
}

/// Severity, most severe first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "the words say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// What defaults depend on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// `$STATE_DIRECTORY`, which systemd sets to one path, or to several with `:` between.
    pub state_directory: Option<String>,
}

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// systemd did.
    StateDirectory,
    /// `FILE:LINE`.
    File(String),
    /// That flag.
    Flag(&'static str),
}

/// A value from the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Override {
    /// The setting, by its key in the file.
    pub key: &'static str,
    /// The flag, for errors and for `explain`.
    pub flag: &'static str,
    /// What was given.
    pub value: Value,
}

/// A valid configuration and where each setting came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// By setting, in the order of the example; those of listeners, which stand only in files, behind them.
    origins: Vec<(String, Origin)>,
}

impl Config {
    /// The defaults on that host.
    fn with_defaults(host: &Host) -> Config {
        let placement = Placement::new(1, [0; 16], None).expect("no pattern is a valid pattern");
        let broker = Settings::with_placement(placement);
        let state_directory = host.state_directory.as_deref().and_then(|list| list.split(':').next());
        Config {
            listen: vec![Address {
                protocol: Protocol::Tcp,
                place: Place::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, 1883))),
            }],
            listeners: Vec::new(),
            data: PathBuf::from(state_directory.unwrap_or("./ironpost-data")),
            shards: None,
            reactor: ReactorChoice::Auto,
            allow_anonymous: false,
            account: AccountSource::ClientId,
            authentication: AuthenticationConfig::default(),
            rates: Rates::default(),
            account_topic_pattern: None,
            memory_bytes_max: None,
            core_dumps: false,
            drain_ms: limits::DRAIN_MS_DEFAULT,
            broker: BrokerConfig {
                hold_ms: broker.hold_ms,
                send_window: broker.send_window,
                packet_bytes_max: broker.packet_bytes_max,
                session_expiry_max_s: broker.session_expiry_max_s,
                keep_alive_max_s: broker.keep_alive_max_s,
                queue_messages_max: broker.queue_messages_max,
                queue_bytes_max: broker.queue_bytes_max,
                queued_messages_max: broker.queued_messages_max,
                resident_bytes_max: broker.resident_bytes_max,
                sys_interval_s: broker.sys_interval_s,
            },
            log: LogConfig { format: LogFormat::Auto, level: LogLevel::Info },
        }
    }

    /// The placement in a data directory of so many shards with that hash key.
    pub fn placement(&self, shards: u16, hash_key: [u8; 16]) -> Placement {
        Placement::new(shards, hash_key, self.account_topic_pattern.as_deref())
            .expect("the pattern was checked when it was set")
    }

    /// All rate limits, with those of listeners in the order in which these are opened.
    pub fn rates(&self) -> Rates {
        let plain = self.listen.iter().map(|_| Limits::default());
        let by_listener = plain.chain(self.listeners.iter().map(|listener| listener.rate_limits));
        Rates { by_listener: by_listener.collect(), ..self.rates.clone() }
    }

    /// What one shard's broker is built with.
    pub fn broker_settings(&self, placement: Placement, hash_key: [u8; 16]) -> Settings {
        Settings {
            hold_ms: self.broker.hold_ms,
            send_window: self.broker.send_window,
            packet_bytes_max: self.broker.packet_bytes_max,
            session_expiry_max_s: self.broker.session_expiry_max_s,
            keep_alive_max_s: self.broker.keep_alive_max_s,
            queue_messages_max: self.broker.queue_messages_max,
            queue_bytes_max: self.broker.queue_bytes_max,
            queued_messages_max: self.broker.queued_messages_max,
            resident_bytes_max: self.broker.resident_bytes_max,
            sys_interval_s: self.broker.sys_interval_s,
            hash_key,
            ..Settings::with_placement(placement)
        }
    }
}

/// Reads the file, if there is one, lays the overrides over it and checks the whole.
pub fn load(path: Option<&Path>, overrides: &[Override], host: &Host) -> Result<Loaded, ConfigError> {
    let Some(path) = path else { return assemble(None, overrides, host) };
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let cure = "name a readable file with --config, or leave the flag out to run with the defaults";
        Complaint::new(format!("cannot read the configuration: {error}"), cure).at(&name)
    })?;
    assemble(Some((&name, &text)), overrides, host)
}

fn assemble(file: Option<(&str, &str)>, overrides: &[Override], host: &Host) -> Result<Loaded, ConfigError> {
    let mut config = Config::with_defaults(host);
    let mut origins: Vec<(String, Origin)> =
        setting::all().map(|setting| (setting.key.to_owned(), Origin::Default)).collect();
    let mut note = |key: &str, origin: Origin| match origins.iter_mut().find(|(other, _)| *other == key) {
        Some((_, slot)) => *slot = origin,
        None => origins.push((key.to_owned(), origin)),
    };
    if host.state_directory.is_some() {
        note("data", Origin::StateDirectory);
    }
    if let Some((name, text)) = file {
        for entry in file::parse(name, text)? {
            let place = format!("{name}:{}", entry.line);
            let applied = match &entry.listener {
                Some(name) => apply_to_listener(&mut config, name, &entry),
                None => find(setting::all(), &entry.key).apply(&mut config, &entry.value),
            };
            applied.map_err(|complaint| complaint.at(&place))?;
            note(&entry.path(), Origin::File(place));
        }
    }
    for given in overrides {
        let row = find(setting::all(), given.key);
        row.apply(&mut config, &given.value).map_err(|complaint| complaint.at(given.flag))?;
        note(row.key, Origin::Flag(given.flag));
    }
    let mut loaded = Loaded { config, origins };
    // Who has said where to listen does not want the default beside it.
    if !loaded.config.listeners.is_empty() && *loaded.origin("listen") == Origin::Default {
        loaded.config.listen.clear();
    }
    check_listeners(&loaded)?;
    check_sizes(&loaded)?;
    Ok(loaded)
}

/// The row of a key that the parser, or the command, has let through.
fn find<T>(
    rows: impl Iterator<Item = &'static setting::Setting<T>>,
    key: &str,
) -> &'static setting::Setting<T> {
    setting::find(rows, key).expect("only known keys come so far")
}

fn apply_to_listener(config: &mut Config, name: &str, entry: &file::Entry) -> Result<(), Complaint> {
    let listeners = &mut config.listeners;
    let position = listeners.iter().position(|listener| listener.name == name);
    let position = position.unwrap_or_else(|| {
        listeners.push(Listener::named(name));
        listeners.len() - 1
    });
    find(listener::SETTINGS.iter(), &entry.key).apply(&mut listeners[position], &entry.value)
}

impl Loaded {
    /// Where that setting came from.
    fn origin(&self, key: &str) -> &Origin {
        self.origins.iter().find(|(other, _)| *other == key).map_or(&Origin::Default, |(_, origin)| origin)
    }

    /// The place to name in an error about that setting.
    fn place(&self, key: &str) -> String {
        match self.origin(key) {
            Origin::File(place) => place.clone(),
            Origin::Flag(flag) => (*flag).to_owned(),
            Origin::StateDirectory => "$STATE_DIRECTORY".to_owned(),
            Origin::Default => format!("{key} (default)"),
        }
    }

    /// The same within the table of a listener, which is there because something stands in it.
    fn place_in_listener(&self, name: &str, key: &str) -> String {
        let path = format!("listener.{name}.{key}");
        if *self.origin(&path) != Origin::Default {
            return self.place(&path);
        }
        let table = format!("listener.{name}.");
        let first = self.origins.iter().find(|(other, _)| other.starts_with(&table));
        self.place(first.map_or(&path, |(other, _)| other))
    }
}

/// What no setting of where to listen can decide alone.
fn check_listeners(loaded: &Loaded) -> Result<(), ConfigError> {
    let config = &loaded.config;
    let mut addresses: Vec<(Address, String)> =
        config.listen.iter().map(|address| (address.clone(), loaded.place("listen"))).collect();
    for listener in &config.listeners {
        let place = |key: &str| loaded.place_in_listener(&listener.name, key);
        listener.check().map_err(|(key, complaint)| complaint.at(place(key)))?;
        check_proofs(config, listener).map_err(|complaint| complaint.at(place("authentication")))?;
        addresses.push((listener.address(), place("address")));
    }
    let guarded = |index: usize| {
        index.checked_sub(config.listen.len()).is_some_and(|index| config.listeners[index].is_guarded())
    };
    for (index, (address, place)) in addresses.iter().enumerate() {
        if address.is_open() && !config.allow_anonymous && !guarded(index) {
            let cause = format!("{address} lets other hosts in, and nothing asks them for credentials");
            let cure = "name what it asks for in a table [listener.NAME], authentication = [..]; or listen on 127.0.0.1; or say that this is meant: allow_anonymous = true, or --allow-anonymous";
            return Err(Complaint::new(cause, cure).at(place));
        }
        let is_taken = |other: &(Address, String)| other.0.place == address.place;
        if address.place.is_fixed() && addresses[..index].iter().any(is_taken) {
            let cause = format!("{} is there twice", address.place);
            return Err(Complaint::new(cause, "delete one of them").at(place));
        }
    }
    Ok(())
}

/// What a listener's proofs are checked against has to be there.
fn check_proofs(config: &Config, listener: &Listener) -> Result<(), Complaint> {
    let there = &config.authentication;
    for method in &listener.authentication {
        let missing = match method {
            Method::Password | Method::Scram if there.password_file.is_none() => {
                "authentication.password_file"
            }
            Method::Token if there.token_keys.is_empty() => "authentication.token_keys",
            Method::Hook if there.hook_url.is_none() => "authentication.hook_url",
            _ => continue,
        };
        let word = listener::method_word(*method);
        let cause =
            format!("listener.{} asks for {word:?}, and there is nothing to check it against", listener.name);
        return Err(Complaint::new(cause, format!("set {missing}, or delete {word:?} here")));
    }
    Ok(())
}

/// What no setting of a size can decide alone.
fn check_sizes(loaded: &Loaded) -> Result<(), ConfigError> {
    let config = &loaded.config;
    let packet = u64::from(config.broker.packet_bytes_max);
    for (key, bytes) in [
        ("broker.queue_bytes_max", config.broker.queue_bytes_max),
        ("broker.resident_bytes_max", config.broker.resident_bytes_max),
    ] {
        if bytes < packet {
            let cause =
                format!("{key} = {bytes} holds not even one packet of broker.packet_bytes_max = {packet}");
            let cure = format!("write at least {packet}, or lower broker.packet_bytes_max");
            return Err(Complaint::new(cause, cure).at(loaded.place(key)));
        }
    }
    Ok(())
}
