//! Style as a test: what the compiler, rustfmt and clippy do not check, checked here.
//!
//! It decides whether the tree keeps the rules that its readers rely on: which part may know which, how long a file
//! and a function may be, which names are too vague, where `unsafe` may stand, that every limit is used and that
//! every normative statement of the standard is accounted for. It reads text only; nothing is compiled. The rules
//! are functions from a [`Source`] to findings, the tables they consult are in `tidy/tables.rs`, and each rule has a
//! test at its side that feeds it a bad sample, so that a rule which has stopped finding anything is noticed.
//!
//! A finding says the file, the line, what is wrong and what to do. Run by `cargo test --test tidy`.

#[path = "tidy/fences.rs"]
mod fences;
#[path = "tidy/limits.rs"]
mod limits;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/size.rs"]
mod size;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/statements.rs"]
mod statements;
#[path = "tidy/tables.rs"]
mod tables;
#[path = "tidy/text.rs"]
mod text;

use source::Source;

/// Fails with every finding at once, one per line.
fn expect_clean(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} finding(s):\n{}\n", findings.len(), findings.join("\n"));
}

/// Applies a rule to every source file of the tree.
fn everywhere(rule: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    source::tree().iter().flat_map(rule).collect()
}

#[test]
fn the_tree_is_found_at_all() {
    let tree = source::tree();
    for path in ["src/lib.rs", "src/main.rs", "tests/tidy.rs", "tests/tidy/source.rs", "bench/src/main.rs"] {
        assert!(tree.iter().any(|source| source.path == path), "{path} was not found");
    }
}

#[test]
fn modules_import_only_what_their_row_allows() {
    expect_clean(everywhere(fences::module_imports));
}

#[test]
fn crates_are_named_only_where_their_row_allows() {
    expect_clean(everywhere(fences::crate_imports));
}

#[test]
fn every_dependency_has_a_reason_and_a_row() {
    expect_clean(fences::dependencies(&source::read("Cargo.toml")));
}

#[test]
fn files_and_functions_keep_their_budgets() {
    expect_clean(everywhere(size::file_budget));
    expect_clean(everywhere(size::function_budget));
    expect_clean(size::stale_exceptions(&source::tree()));
}

#[test]
fn names_are_specific() {
    expect_clean(everywhere(names::vague_definitions));
    expect_clean(everywhere(names::vague_paths));
}

#[test]
fn every_file_says_what_it_decides() {
    expect_clean(everywhere(text::header));
}

#[test]
fn nothing_unwraps_outside_tests() {
    expect_clean(everywhere(text::unwraps));
}

#[test]
fn whatever_is_to_be_done_says_when() {
    expect_clean(everywhere(text::reminders));
}

#[test]
fn unsafe_stands_only_where_it_is_listed_and_argued() {
    expect_clean(everywhere(text::unsafe_code));
}

#[test]
fn every_limit_is_documented_and_used() {
    let tree = source::tree();
    expect_clean(limits::undocumented(&tree));
    expect_clean(limits::unused(&tree));
}

#[test]
fn every_limit_that_a_peer_can_reach_has_a_test_that_names_it() {
    expect_clean(limits::untested(&source::tree()));
}

#[test]
fn every_normative_statement_is_accounted_for() {
    let lists = statements::Lists::load();
    expect_clean(statements::check(&lists, &statements::citations(&source::tree())));
}
