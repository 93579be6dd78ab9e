//! The table of settings: one row per setting, its key, its bounds, how it is read and shown.
//!
//! With the rows of `listener` the only list of settings in code; what each means is said in `example.toml`, and a test
//! holds the two together.

use std::path::PathBuf;

use super::error::Complaint;
use super::listener::Address;
use super::{AccountSource, Config, LogFormat, LogLevel, ReactorChoice};
use crate::limits;
use crate::placement::Placement;

/// A value as it was written, in a file or behind a flag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// A string.
    Text(String),
    /// `true` or `false`.
    Truth(bool),
    /// Several.
    List(Vec<Value>),
    /// Something that no setting takes: its type's name.
    Other(&'static str),
}

impl Value {
    fn type_name(&self) -> &'static str {
        match self {
            Value::Integer(_) => "a number",
            Value::Text(_) => "a string",
            Value::Truth(_) => "true or false",
            Value::List(_) => "a list",
            Value::Other(name) => name,
        }
    }
}

/// One row: a setting of a `T`.
pub(super) struct Setting<T: 'static> {
    /// With its table in front: `broker.hold_ms`.
    pub key: &'static str,
    pub kind: Kind<T>,
}

/// How a value gets into the configuration and out again.
pub(super) enum Kind<T: 'static> {
    Integer { min: u64, max: u64, get: fn(&T) -> u64, set: fn(&mut T, u64) },
    Truth { get: fn(&T) -> bool, set: fn(&mut T, bool) },
    Text { get: fn(&T) -> String, set: fn(&mut T, &str) -> Result<(), Complaint> },
    Texts { get: fn(&T) -> Vec<String>, set: fn(&mut T, &[String]) -> Result<(), Complaint> },
}

/// All settings outside of listeners, in the order of the example.
pub(super) fn all() -> impl Iterator<Item = &'static Setting<Config>> {
    SETTINGS.iter().chain(super::authentication::SETTINGS).chain(super::rate_limits::SETTINGS)
}

/// The row of that key.
pub(super) fn find<T>(
    mut rows: impl Iterator<Item = &'static Setting<T>>,
    key: &str,
) -> Option<&'static Setting<T>> {
    rows.find(|setting| setting.key == key)
}

impl<T> Setting<T> {
    /// Takes a value over, if it is of the right type and within its bounds.
    pub(super) fn apply(&self, config: &mut T, value: &Value) -> Result<(), Complaint> {
        match (&self.kind, value) {
            (Kind::Integer { min, max, set, .. }, Value::Integer(number)) => {
                let allowed = u64::try_from(*number).ok().filter(|number| (*min..=*max).contains(number));
                let number = allowed.ok_or_else(|| {
                    let cause = format!("{} = {number} is out of bounds", self.key);
                    Complaint::new(cause, format!("write a number from {min} to {max}"))
                })?;
                set(config, number);
                Ok(())
            }
            (Kind::Truth { set, .. }, Value::Truth(truth)) => {
                set(config, *truth);
                Ok(())
            }
            (Kind::Text { set, .. }, Value::Text(text)) => set(config, text),
            (Kind::Texts { set, .. }, Value::List(values)) => {
                let texts: Option<Vec<String>> = values
                    .iter()
                    .map(|value| if let Value::Text(text) = value { Some(text.clone()) } else { None })
                    .collect();
                set(config, &texts.ok_or_else(|| self.wrong_type(value))?)
            }
            _ => Err(self.wrong_type(value)),
        }
    }

    /// The value as it would be written in a file.
    pub(super) fn shown(&self, config: &T) -> String {
        match &self.kind {
            Kind::Integer { get, .. } => get(config).to_string(),
            Kind::Truth { get, .. } => get(config).to_string(),
            Kind::Text { get, .. } => format!("{:?}", get(config)),
            Kind::Texts { get, .. } => format!("{:?}", get(config)),
        }
    }

    fn wrong_type(&self, value: &Value) -> Complaint {
        let wanted = match &self.kind {
            Kind::Integer { min, max, .. } => format!("a number from {min} to {max}, without quotes"),
            Kind::Truth { .. } => "true or false, without quotes".to_owned(),
            Kind::Text { .. } => "a string in double quotes".to_owned(),
            Kind::Texts { .. } => "a list of strings, like [\"tcp://127.0.0.1:1883\"]".to_owned(),
        };
        Complaint::new(format!("{} cannot be {}", self.key, value.type_name()), format!("write {wanted}"))
    }
}

/// A number that `apply` has found within bounds that fit the field.
pub(super) fn narrow<T: TryFrom<u64>>(number: u64) -> T {
    T::try_from(number).unwrap_or_else(|_| panic!("the bounds of the row keep {number} within its field"))
}

/// One of the words of a choice.
pub(super) fn choose<T: Copy>(key: &str, text: &str, words: &[(&str, T)]) -> Result<T, Complaint> {
    let chosen = words.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
    chosen.ok_or_else(|| {
        let all: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        Complaint::new(format!("{key} has no choice {text:?}"), format!("write one of {}", all.join(", ")))
    })
}

pub(super) fn word_of<T: PartialEq>(choice: &T, words: &[(&str, T)]) -> String {
    let word = words.iter().find(|(_, other)| other == choice).map(|(word, _)| *word);
    word.expect("every choice has its word in the same table").to_owned()
}

const REACTORS: &[(&str, ReactorChoice)] =
    &[("auto", ReactorChoice::Auto), ("uring", ReactorChoice::Uring), ("epoll", ReactorChoice::Epoll)];

const ACCOUNTS: &[(&str, AccountSource)] =
    &[("client-id", AccountSource::ClientId), ("username", AccountSource::Username)];

const FORMATS: &[(&str, LogFormat)] =
    &[("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];

const LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

fn set_listen(config: &mut Config, texts: &[String]) -> Result<(), Complaint> {
    if texts.is_empty() {
        return Err(Complaint::new(
            "listen is empty",
            "name at least one address, like tcp://127.0.0.1:1883",
        ));
    }
    config.listen = texts.iter().map(|text| Address::parse(text)).collect::<Result<_, _>>()?;
    if let Some(address) = config.listen.iter().find(|address| address.needs_more()) {
        let cure = format!("write a table [listener.NAME] with address = \"{address}\" and what it needs");
        return Err(Complaint::new(format!("{address} needs more settings than fit here"), cure));
    }
    Ok(())
}

fn set_data(config: &mut Config, text: &str) -> Result<(), Complaint> {
    if text.is_empty() {
        return Err(Complaint::new("data is empty", "name a directory, like /var/lib/ironpost"));
    }
    config.data = PathBuf::from(text);
    Ok(())
}

fn set_account_topic_pattern(config: &mut Config, text: &str) -> Result<(), Complaint> {
    let pattern = Some(text).filter(|text| !text.is_empty());
    Placement::new(1, [0; 16], pattern)
        .map_err(|cause| Complaint::new(cause, "write a pattern like \"u/{account}/#\", or \"\" for none"))?;
    config.account_topic_pattern = pattern.map(str::to_owned);
    Ok(())
}

/// Those of no other file, in the order of the example.
const SETTINGS: &[Setting<Config>] = &[
    Setting {
        key: "listen",
        kind: Kind::Texts {
            get: |config| config.listen.iter().map(Address::to_string).collect(),
            set: set_listen,
        },
    },
    Setting {
        key: "data",
        kind: Kind::Text { get: |config| config.data.to_string_lossy().into_owned(), set: set_data },
    },
    integer(
        "shards",
        0,
        limits::SHARDS_MAX as u64,
        |c| c.shards.unwrap_or(0).into(),
        |c, n| c.shards = Some(narrow(n)).filter(|shards| *shards > 0),
    ),
    Setting {
        key: "reactor",
        kind: Kind::Text {
            get: |config| word_of(&config.reactor, REACTORS),
            set: |config, text| choose("reactor", text, REACTORS).map(|choice| config.reactor = choice),
        },
    },
    Setting {
        key: "allow_anonymous",
        kind: Kind::Truth {
            get: |config| config.allow_anonymous,
            set: |config, truth| config.allow_anonymous = truth,
        },
    },
    Setting {
        key: "account",
        kind: Kind::Text {
            get: |config| word_of(&config.account, ACCOUNTS),
            set: |config, text| choose("account", text, ACCOUNTS).map(|choice| config.account = choice),
        },
    },
    Setting {
        key: "account_topic_pattern",
        kind: Kind::Text {
            get: |config| config.account_topic_pattern.clone().unwrap_or_default(),
            set: set_account_topic_pattern,
        },
    },
    integer(
        "memory_bytes_max",
        0,
        i64::MAX as u64,
        |c| c.memory_bytes_max.unwrap_or(0),
        |c, n| c.memory_bytes_max = Some(n).filter(|bytes| *bytes > 0),
    ),
    Setting {
        key: "core_dumps",
        kind: Kind::Truth { get: |config| config.core_dumps, set: |config, truth| config.core_dumps = truth },
    },
    integer("drain_ms", 0, limits::DRAIN_MS_MAX as u64, |c| c.drain_ms.into(), |c, n| c.drain_ms = narrow(n)),
    integer(
        "broker.hold_ms",
        0,
        limits::HOLD_MS_MAX as u64,
        |c| c.broker.hold_ms.into(),
        |c, n| c.broker.hold_ms = narrow(n),
    ),
    integer(
        "broker.send_window",
        1,
        u16::MAX as u64,
        |c| c.broker.send_window.into(),
        |c, n| c.broker.send_window = narrow(n),
    ),
    integer(
        "broker.packet_bytes_max",
        limits::CONNECT_BYTES_MAX as u64,
        limits::PACKET_BYTES_MAX as u64,
        |c| c.broker.packet_bytes_max.into(),
        |c, n| c.broker.packet_bytes_max = narrow(n),
    ),
    integer(
        "broker.session_expiry_max_s",
        0,
        u32::MAX as u64,
        |c| c.broker.session_expiry_max_s.into(),
        |c, n| c.broker.session_expiry_max_s = narrow(n),
    ),
    integer(
        "broker.keep_alive_max_s",
        0,
        u16::MAX as u64,
        |c| c.broker.keep_alive_max_s.into(),
        |c, n| c.broker.keep_alive_max_s = narrow(n),
    ),
    integer(
        "broker.queue_messages_max",
        1,
        u32::MAX as u64,
        |c| c.broker.queue_messages_max.into(),
        |c, n| c.broker.queue_messages_max = narrow(n),
    ),
    integer(
        "broker.queue_bytes_max",
        1,
        i64::MAX as u64,
        |c| c.broker.queue_bytes_max,
        |c, n| c.broker.queue_bytes_max = n,
    ),
    integer(
        "broker.queued_messages_max",
        1,
        i64::MAX as u64,
        |c| c.broker.queued_messages_max,
        |c, n| c.broker.queued_messages_max = n,
    ),
    integer(
        "broker.resident_bytes_max",
        1,
        i64::MAX as u64,
        |c| c.broker.resident_bytes_max,
        |c, n| c.broker.resident_bytes_max = n,
    ),
    integer(
        "broker.sys_interval_s",
        0,
        86_400,
        |c| c.broker.sys_interval_s.into(),
        |c, n| c.broker.sys_interval_s = narrow(n),
    ),
    Setting {
        key: "log.format",
        kind: Kind::Text {
            get: |config| word_of(&config.log.format, FORMATS),
            set: |config, text| choose("log.format", text, FORMATS).map(|choice| config.log.format = choice),
        },
    },
    Setting {
        key: "log.level",
        kind: Kind::Text {
            get: |config| word_of(&config.log.level, LEVELS),
            set: |config, text| choose("log.level", text, LEVELS).map(|choice| config.log.level = choice),
        },
    },
];

pub(super) const fn integer<T>(
    key: &'static str,
    min: u64,
    max: u64,
    get: fn(&T) -> u64,
    set: fn(&mut T, u64),
) -> Setting<T> {
    Setting { key, kind: Kind::Integer { min, max, get, set } }
}
