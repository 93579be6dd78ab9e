//! Rules about length: a file is read in one sitting, a function on one screen.
//!
//! An exception is a row in `tables` with a reason, and goes when the file is short again.

use crate::source::Source;
use crate::tables::{FILE_LINES_MAX, FUNCTION_LINES_MAX, LONG_FILES, LONG_FUNCTIONS};

/// Files within their budget.
pub fn file_budget(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let budget = long_file(&source.path).unwrap_or(FILE_LINES_MAX);
    if lines <= budget {
        return Vec::new();
    }
    vec![format!("{}: {lines} lines, {budget} allowed: split it by lifetime or by question", source.path)]
}

/// Functions within their budget.
pub fn function_budget(source: &Source) -> Vec<String> {
    let is_excused = |name: &str| LONG_FUNCTIONS.iter().any(|row| row.0 == source.path && row.1 == name);
    source
        .functions()
        .into_iter()
        .filter(|function| function.lines > FUNCTION_LINES_MAX && !is_excused(&function.name))
        .map(|function| {
            format!(
                "{}:{}: `{}` has {} lines, {FUNCTION_LINES_MAX} allowed: branch here, compute in a child",
                source.path, function.line, function.name, function.lines
            )
        })
        .collect()
}

/// Exceptions that nothing needs any more.
pub fn stale_exceptions(tree: &[Source]) -> Vec<String> {
    let length = |path: &str| tree.iter().find(|source| source.path == path).map(|s| s.text.lines().count());
    let files = LONG_FILES
        .iter()
        .filter(|row| length(row.0).is_none_or(|lines| lines <= FILE_LINES_MAX))
        .map(|row| format!("tables::LONG_FILES: {} needs no exception: delete the row", row.0));
    let is_long = |path: &str, name: &str| {
        let source = tree.iter().find(|source| source.path == path);
        source.is_some_and(|source| {
            source.functions().iter().any(|f| f.name == name && f.lines > FUNCTION_LINES_MAX)
        })
    };
    let functions = LONG_FUNCTIONS
        .iter()
        .filter(|row| !is_long(row.0, row.1))
        .map(|row| format!("tables::LONG_FUNCTIONS: {} in {} needs no exception", row.1, row.0));
    files.chain(functions).collect()
}

fn long_file(path: &str) -> Option<usize> {
    LONG_FILES.iter().find(|row| row.0 == path).map(|row| row.1)
}

#[test]
fn a_long_file_is_found() {
    let text = "//! x\n".repeat(FILE_LINES_MAX);
    assert!(file_budget(&Source::new("src/a.rs", &text)).is_empty());
    assert_eq!(file_budget(&Source::new("src/a.rs", &format!("{text}//! x\n"))).len(), 1);
}

#[test]
fn a_long_function_is_found() {
    let body = |lines: usize| format!("fn a() {{\n{}}}\n", "    b();\n".repeat(lines));
    assert!(function_budget(&Source::new("src/a.rs", &body(FUNCTION_LINES_MAX - 2))).is_empty());
    assert_eq!(function_budget(&Source::new("src/a.rs", &body(FUNCTION_LINES_MAX - 1))).len(), 1);
}
