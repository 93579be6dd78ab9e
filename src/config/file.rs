//! From the text of a configuration file to (key, value, line); knows TOML, not the settings' types or bounds.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::error::{Complaint, ConfigError};
use super::setting::{SETTINGS, Value};

/// What a file says about one setting.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    pub value: Value,
    /// From 1.
    pub line: usize,
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
            DeValue::Table(inner) if is_table(key.get_ref()) => {
                for (inner_key, inner_value) in inner {
                    let line = line_of(inner_key.span());
                    let path = format!("{}.{}", key.get_ref(), inner_key.get_ref());
                    known(&path).map_err(|complaint| complaint.at(format!("{name}:{line}")))?;
                    entries.push(Entry { key: path, value: value_of(inner_value.get_ref()), line });
                }
            }
            other => {
                known(key.get_ref()).map_err(|complaint| complaint.at(place()))?;
                entries.push(Entry { key: key.get_ref().to_string(), value: value_of(other), line });
            }
        }
    }
    Ok(entries)
}

fn is_table(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key.split_once('.').is_some_and(|(table, _)| table == name))
}

/// A key that exists, or a complaint that proposes the nearest one.
fn known(key: &str) -> Result<(), Complaint> {
    if SETTINGS.iter().any(|setting| setting.key == key) {
        return Ok(());
    }
    let nearest = SETTINGS
        .iter()
        .map(|setting| (distance(key, setting.key).min(distance(key, last_part(setting.key))), setting.key))
        .min()
        .filter(|(edits, nearest)| *edits <= nearest.len() / 3);
    let cure = match nearest {
        Some((_, nearest)) => match nearest.split_once('.') {
            Some((table, name)) => format!("did you mean {name} under [{table}]?"),
            None => format!("did you mean {nearest}, above the first [table]?"),
        },
        None => "delete it; `ironpost check --example` prints every setting".to_owned(),
    };
    Err(Complaint::new(format!("there is no setting {key}"), cure))
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
