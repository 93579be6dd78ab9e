//! From the text of a configuration file to (key, value, line); knows TOML, not the settings' types or bounds.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::error::{Complaint, ConfigError};
use super::listener;
use super::setting::{self, Value};

/// What a file says about one setting.
#[derive(Debug)]
pub(super) struct Entry {
    /// Of the table `[listener.NAME]` that it stands in.
    pub listener: Option<String>,
    /// Of the row; within the table, if that is a listener's.
    pub key: String,
    pub value: Value,
    /// From 1.
    pub line: usize,
}

impl Entry {
    /// The key with its tables in front.
    pub(super) fn path(&self) -> String {
        match &self.listener {
            Some(name) => format!("listener.{name}.{}", self.key),
            None => self.key.clone(),
        }
    }
}

/// Every entry in the order of the file's tables; `name` is for errors.
pub(super) fn parse(name: &str, text: &str) -> Result<Vec<Entry>, ConfigError> {
    let line_of = |span: Range<usize>| text[..span.start].matches('\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| {
        let place = match error.span() {
            Some(span) => format!("{name}:{}", line_of(span)),
            None => name.to_owned(),
        };
        let cure = "write TOML, as `ironpost check --example` shows it";
        Complaint::new(format!("not TOML: {}", error.message().replace('\n', ", ")), cure).at(place)
    })?;
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line_of(key.span());
        let place = || format!("{name}:{line}");
        match value.get_ref() {
            DeValue::Table(listeners) if key.get_ref() == "listener" => {
                for (listener, inner) in listeners {
                    let line = line_of(listener.span());
                    let at_line = |complaint: Complaint| complaint.at(format!("{name}:{line}"));
                    let inner = listener_table(listener.get_ref(), inner.get_ref()).map_err(at_line)?;
                    for (inner_key, inner_value) in inner {
                        let line = line_of(inner_key.span());
                        let path = format!("listener.{}.{}", listener.get_ref(), inner_key.get_ref());
                        known_in_listener(inner_key.get_ref(), &path)
                            .map_err(|complaint| complaint.at(format!("{name}:{line}")))?;
                        entries.push(Entry {
                            listener: Some(listener.get_ref().to_string()),
                            key: inner_key.get_ref().to_string(),
                            value: value_of(inner_value.get_ref()),
                            line,
                        });
                    }
                }
            }
            DeValue::Table(inner) if is_table(key.get_ref()) => {
                for (inner_key, inner_value) in inner {
                    let line = line_of(inner_key.span());
                    let path = format!("{}.{}", key.get_ref(), inner_key.get_ref());
                    known(&path).map_err(|complaint| complaint.at(format!("{name}:{line}")))?;
                    let value = value_of(inner_value.get_ref());
                    entries.push(Entry { listener: None, key: path, value, line });
                }
            }
            other => {
                known(key.get_ref()).map_err(|complaint| complaint.at(place()))?;
                let key = key.get_ref().to_string();
                entries.push(Entry { listener: None, key, value: value_of(other), line });
            }
        }
    }
    Ok(entries)
}

fn is_table(name: &str) -> bool {
    setting::all().any(|setting| setting.key.split_once('.').is_some_and(|(table, _)| table == name))
}

/// The table of a listener, or a complaint about what stands there instead.
fn listener_table<'a, 'i>(name: &str, value: &'a DeValue<'i>) -> Result<&'a DeTable<'i>, Complaint> {
    let DeValue::Table(table) = value else {
        let cure = "write a table for each listener, [listener.NAME], with address = .. in it";
        return Err(Complaint::new(format!("listener.{name} is no table"), cure));
    };
    if !listener::is_name(name) {
        let cure = format!("use 1 to {} of a-z, 0-9, - and _", listener::NAME_BYTES_MAX);
        return Err(Complaint::new(format!("{name:?} cannot be the name of a listener"), cure));
    }
    if table.is_empty() {
        let cure = "write at least its address, like address = \"tls://0.0.0.0:8883\"";
        return Err(Complaint::new(format!("listener.{name} is empty"), cure));
    }
    Ok(table)
}

/// A key that exists, or a complaint that proposes the nearest one.
fn known(key: &str) -> Result<(), Complaint> {
    if setting::all().any(|setting| setting.key == key) {
        return Ok(());
    }
    let cure = match nearest(key, setting::all().map(|setting| setting.key)) {
        Some(nearest) => match nearest.split_once('.') {
            Some((table, name)) => format!("did you mean {name} under [{table}]?"),
            None => format!("did you mean {nearest}, above the first [table]?"),
        },
        None => UNKNOWN.to_owned(),
    };
    Err(Complaint::new(format!("there is no setting {key}"), cure))
}

fn known_in_listener(key: &str, path: &str) -> Result<(), Complaint> {
    if listener::SETTINGS.iter().any(|setting| setting.key == key) {
        return Ok(());
    }
    let cure = match nearest(key, listener::SETTINGS.iter().map(|setting| setting.key)) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => UNKNOWN.to_owned(),
    };
    Err(Complaint::new(format!("there is no setting {path}"), cure))
}

const UNKNOWN: &str = "delete it; `ironpost check --example` prints every setting";

/// The one of `keys` that may have been meant.
fn nearest(key: &str, keys: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let close = |text: &str| Some(distance(key, text)).filter(|edits| *edits <= text.len() / 3);
    let edits = |other: &'static str| [close(other), close(last_part(other))].into_iter().flatten().min();
    keys.filter_map(|other| Some((edits(other)?, other))).min().map(|(_, nearest)| nearest)
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn value_of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(truth) => Value::Truth(*truth),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("a number that large"),
        },
        DeValue::Array(values) => Value::List(values.iter().map(|value| value_of(value.get_ref())).collect()),
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Table(_) => Value::Other("a table"),
    }
}

/// Edits (insert, delete, replace a character) from one text to the other. Both are short.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, character) in from.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
