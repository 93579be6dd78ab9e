//! Every normative statement of MQTT 3.1.1 is cited by a test, is the same as a statement of 5.0 that is cited, or is
//! listed with the reason why neither. (`tests/tidy.rs` does the same for 5.0.)

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance");

/// What stands in square brackets after that beginning, in the tests of this folder.
fn citations(beginning: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(FOLDER).expect("the folder of these tests") {
        let path = entry.expect("an entry of it").path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            for (place, _) in text.match_indices(beginning) {
                let rest = &text[place + beginning.len()..];
                found.extend(rest.split_once(']').map(|(id, _)| id.to_owned()));
            }
        }
    }
    found
}

/// What does not add up between the list and the two sets of citations.
fn findings(list: &str, cited: &BTreeSet<String>, cited_5: &BTreeSet<String>) -> Vec<String> {
    let rows = list.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
    let mut unknown = cited.clone();
    let mut findings = Vec::new();
    for row in rows {
        let (id, how) = row.split_once(' ').unwrap_or((row, ""));
        let is_cited = unknown.remove(id);
        let fits = match how.strip_prefix("= ") {
            Some(same) => cited_5.contains(same.trim_start_matches("MQTT-")) && !is_cited,
            None if how == "cited" => is_cited,
            None => how.len() >= 15 && !is_cited,
        };
        if !fits {
            findings.push(format!("{row}: does not hold; cited: {is_cited}"));
        }
    }
    findings.extend(unknown.into_iter().map(|id| format!("3.1.1 has no statement {id}")));
    findings
}

#[test]
fn every_statement_of_3_1_1_is_tested_or_explained() {
    let list = Path::new(FOLDER).join("statements-3.1.1.txt");
    let list = fs::read_to_string(list).expect("the list of statements");
    // Put together so that this file cites nothing.
    let (old, new) = (["[MQTT-", "3.1.1 "].concat(), ["[MQTT", "-"].concat());
    assert_eq!(findings(&list, &citations(&old), &citations(&new)), Vec::<String>::new());
}

#[test]
fn a_list_that_does_not_add_up_is_found() {
    let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
    for (list, cited, cited_5, count) in [
        (
            "a remark\n1.1-1 cited\n1.1-2 = MQTT-2.2-2\n1.1-3 binds clients only",
            &["1.1-1"][..],
            &["2.2-2"][..],
            0,
        ),
        ("1.1-1 cited", &[], &[], 1),
        ("1.1-1 = MQTT-2.2-2", &[], &[], 1),
        ("1.1-1", &[], &[], 1),
        ("1.1-1 binds clients only", &["1.1-1"], &[], 1),
        ("", &["1.1-1"], &[], 1),
    ] {
        assert_eq!(findings(list, &set(cited), &set(cited_5)).len(), count, "{list}");
    }
}
