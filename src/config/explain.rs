//! A configuration in words: each setting, its value, where it came from, what it means.
//!
//! The meanings are the comments of `example.toml`, so they are written once.

use std::fmt::Write;

use super::setting::SETTINGS;
use super::{EXAMPLE, Loaded, Origin};

/// The explanation, ready to print.
pub fn explain(loaded: &Loaded) -> String {
    let mut text = String::new();
    for setting in SETTINGS {
        let origin = match loaded.origin(setting.key) {
            Origin::Default => "default".to_owned(),
            Origin::StateDirectory => "from $STATE_DIRECTORY".to_owned(),
            Origin::File(place) => format!("from {place}"),
            Origin::Flag(flag) => format!("from {flag}"),
        };
        let value = setting.shown(&loaded.config);
        writeln!(text, "{} = {value}   ({origin})", setting.key).expect("writing to a string");
        for line in meaning(setting.key) {
            writeln!(text, "    {line}").expect("writing to a string");
        }
    }
    text
}

/// The comment above the setting in the example; empty if it has none.
pub(super) fn meaning(key: &str) -> Vec<&'static str> {
    let mut table = "";
    let mut comment = Vec::new();
    for line in EXAMPLE.lines() {
        if let Some(remark) = line.strip_prefix("# ") {
            comment.push(remark);
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']');
        }
        if let Some((name, _)) = line.split_once(" = ") {
            let is_it = match key.split_once('.') {
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
