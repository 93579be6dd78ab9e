//! The normative statements of MQTT 5.0: each is cited where it is kept or tested, or is listed with a reason.
//!
//! `tests/conformance/` holds three lists: `statements-5.0.txt` (all of them), `not-applicable.txt` (an id and why it
//! binds no broker, or not this one) and `pending.txt` (ids that nothing cites yet). The last may only shrink: an id
//! that is cited and still pending is a finding. A citation is the id in square brackets, in code or in a test.
//! Statements of 3.1.1 are cited as `[MQTT-3.1.1 3.1.2-24]`, a form that this file leaves alone.

use std::collections::BTreeMap;

use crate::source::{self, Source};

/// The three lists.
pub struct Lists {
    pub all: Vec<String>,
    /// Id and reason.
    pub not_applicable: Vec<(String, String)>,
    pub pending: Vec<String>,
}

impl Lists {
    /// From `tests/conformance/`. Lines that do not begin with an id are remarks.
    pub fn load() -> Lists {
        let lines = |name: &str| -> Vec<String> {
            let text = source::read(&format!("tests/conformance/{name}"));
            text.lines().map(str::trim).filter(|line| line.starts_with("MQTT-")).map(str::to_owned).collect()
        };
        let split = |line: String| {
            let (id, reason) = line.split_once(' ').unwrap_or((line.as_str(), ""));
            (id.to_owned(), reason.trim().to_owned())
        };
        Lists {
            all: lines("statements-5.0.txt"),
            not_applicable: lines("not-applicable.txt").into_iter().map(split).collect(),
            pending: lines("pending.txt"),
        }
    }
}

/// Every id that is cited, with one place where.
pub fn citations(tree: &[Source]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    // This folder talks about citations; it makes none.
    for source in tree.iter().filter(|source| !source.path.starts_with("tests/tidy")) {
        for (offset, _) in source.text.match_indices("[MQTT-") {
            let rest = &source.text[offset + 1..];
            let Some(id) = rest.split(']').next() else { continue };
            if id.chars().all(|character| character.is_ascii_alphanumeric() || ".-".contains(character)) {
                found
                    .entry(id.to_owned())
                    .or_insert_with(|| format!("{}:{}", source.path, source.line_of(offset)));
            }
        }
    }
    found
}

/// What does not add up.
pub fn check(lists: &Lists, cited: &BTreeMap<String, String>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut done = Vec::new();
    for (id, place) in cited.iter().filter(|(id, _)| !lists.all.contains(id)) {
        findings.push(format!("{place}: the standard has no statement {id}"));
    }
    for id in &lists.all {
        let excused = lists.not_applicable.iter().find(|row| row.0 == *id);
        match (cited.get(id), excused, lists.pending.contains(id)) {
            (None, None, false) => findings.push(format!("{id}: cite it where it is kept or tested")),
            (Some(_), _, true) | (None, Some(_), true) => done.push(id.as_str()),
            (Some(place), Some(_), false) => {
                findings.push(format!("{place}: {id} is listed as not applicable"))
            }
            _ => {}
        }
    }
    if !done.is_empty() {
        findings.push(format!("pending, though cited or not applicable: {}", removal(&done)));
    }
    for (id, reason) in &lists.not_applicable {
        if reason.len() < 15 {
            findings.push(format!("tests/conformance/not-applicable.txt: {id} needs a reason on its line"));
        }
    }
    let listed = lists.not_applicable.iter().map(|row| &row.0).chain(&lists.pending);
    for id in listed.filter(|id| !lists.all.contains(id)) {
        findings.push(format!("tests/conformance: the standard has no statement {id}"));
    }
    findings
}

/// The command that takes them off the list.
fn removal(ids: &[&str]) -> String {
    let file = "tests/conformance/pending.txt";
    let expressions: Vec<String> = ids.iter().map(|id| format!("/^{}$/d", id.replace('.', "\\."))).collect();
    format!("sed -i '{}' {file}", expressions.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(not_applicable: &[(&str, &str)], pending: &[&str]) -> Lists {
        Lists {
            all: ["MQTT-1.1-1", "MQTT-1.1-2"].map(str::to_owned).to_vec(),
            not_applicable: not_applicable.iter().map(|row| (row.0.to_owned(), row.1.to_owned())).collect(),
            pending: pending.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    fn cited(text: &str) -> BTreeMap<String, String> {
        citations(&[Source::new("src/a.rs", text)])
    }

    #[test]
    fn each_way_of_not_adding_up_is_found() {
        let reason = ("MQTT-1.1-2", "binds clients only");
        let both = "// [MQTT-1.1-1] [MQTT-1.1-2]";
        for (list, text, findings) in [
            (lists(&[], &[]), both, 0),
            (lists(&[reason], &[]), "// [MQTT-1.1-1]", 0),
            (lists(&[], &["MQTT-1.1-2"]), "// [MQTT-1.1-1]", 0),
            (lists(&[], &[]), "// [MQTT-1.1-1]", 1), // nothing says a word of the second
            (lists(&[], &["MQTT-1.1-2"]), both, 1),  // done, and still pending
            (lists(&[reason], &["MQTT-1.1-2"]), "// [MQTT-1.1-1]", 1), // in two lists
            (lists(&[reason], &[]), both, 1),        // not applicable, and cited
            (lists(&[("MQTT-1.1-2", "no")], &[]), "// [MQTT-1.1-1]", 1), // no reason
            (lists(&[], &["MQTT-9.9-9"]), both, 1),  // pending and unknown
            (lists(&[], &[]), "// [MQTT-1.1-1] [MQTT-1.1-2] [MQTT-1.1-3]", 1), // cited and unknown
        ] {
            let found = check(&list, &cited(text));
            assert_eq!(found.len(), findings, "{text}: {found:?}");
        }
    }

    #[test]
    fn a_citation_of_the_older_standard_is_left_alone() {
        assert!(cited("// [MQTT-3.1.1 3.1.2-24]").is_empty());
    }

    #[test]
    fn the_list_of_statements_is_whole() {
        assert_eq!(Lists::load().all.len(), 251);
    }
}
