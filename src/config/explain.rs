//! A configuration in words: each setting, its value, where it came from, what it means.
//!
//! The meanings are the comments of `example.toml`, so they are written once.

use std::fmt::Write;

use super::setting::{self, Setting};
use super::{EXAMPLE, Loaded, Origin, listener};

/// The explanation, ready to print.
pub fn explain(loaded: &Loaded) -> String {
    let mut text = String::new();
    for setting in setting::all() {
        explain_one(&mut text, loaded, "", setting, &loaded.config);
    }
    for listener in &loaded.config.listeners {
        let table = format!("listener.{}.", listener.name);
        for setting in listener::SETTINGS {
            explain_one(&mut text, loaded, &table, setting, listener);
        }
    }
    text
}

/// One setting of that table, a value of which is in `owner`.
fn explain_one<T>(text: &mut String, loaded: &Loaded, table: &str, setting: &Setting<T>, owner: &T) {
    let path = format!("{table}{}", setting.key);
    let origin = match loaded.origin(&path) {
        Origin::Default => "default".to_owned(),
        Origin::StateDirectory => "from $STATE_DIRECTORY".to_owned(),
        Origin::File(place) => format!("from {place}"),
        Origin::Flag(flag) => format!("from {flag}"),
    };
    writeln!(text, "{path} = {}   ({origin})", setting.shown(owner)).expect("writing to a string");
    let explained = if table.is_empty() { path } else { format!("{LISTENER_TABLE}.{}", setting.key) };
    for line in meaning(&explained) {
        writeln!(text, "    {line}").expect("writing to a string");
    }
}

/// The table of the listener that the example has, commented out.
pub(super) const LISTENER_TABLE: &str = "listener.public";

/// The comment above the setting in the example; empty if it has none.
pub(super) fn meaning(key: &str) -> Vec<&'static str> {
    let mut table = "";
    let mut comment = Vec::new();
    for line in EXAMPLE.lines() {
        // What is commented out for want of a default has no space behind its mark.
        let line = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line);
        if let Some(remark) = line.strip_prefix("# ") {
            comment.push(remark);
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']');
        }
        if let Some((name, _)) = line.split_once(" = ") {
            let is_it = match key.rsplit_once('.') {
                Some((wanted_table, wanted)) => table == wanted_table && name == wanted,
                None => table.is_empty() && name == key,
            };
            if is_it {
                return comment;
            }
        }
        comment.clear();
    }
    Vec::new()
}
