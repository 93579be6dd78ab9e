//! Rules about the text of one file: its header, `unwrap`, reminders, `unsafe`.
//!
//! Each is a function from a source to findings and consults `tables` for what is allowed.

use crate::source::Source;
use crate::tables;

/// Every file begins by saying what it decides.
pub fn header(source: &Source) -> Vec<String> {
    let first = source.text.lines().next().unwrap_or_default();
    if first.starts_with("//! ") && first.len() > "//! ".len() + 10 {
        return Vec::new();
    }
    vec![format!("{}:1: begin with `//!`: what this file decides, what not, who calls it", source.path)]
}

/// `expect` states an invariant, `unwrap` does not.
pub fn unwraps(source: &Source) -> Vec<String> {
    source
        .code_words("unwrap", false)
        .into_iter()
        .filter(|offset| source.code[*offset..].starts_with("unwrap()"))
        .map(|offset| {
            let line = source.line_of(offset);
            format!("{}:{line}: use `expect(\"why it cannot fail\")` or return the error", source.path)
        })
        .collect()
}

/// A reminder names the condition under which it is due: the word, then `(condition):`.
pub fn reminders(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in source.comments.lines().enumerate() {
        for word in ["TODO", "FIXME", "XXX", "HACK"] {
            let Some(offset) = crate::source::words(line, word).first().copied() else { continue };
            let rest = &line[offset + word.len()..];
            let condition = rest.strip_prefix('(').and_then(|rest| rest.split_once("):"));
            if word != "TODO" || condition.is_none_or(|(condition, _)| condition.trim().len() < 8) {
                findings.push(format!(
                    "{}:{}: do it, file it, or write `TODO(when this is so): what`",
                    source.path,
                    number + 1
                ));
            }
        }
    }
    findings
}

/// `unsafe` only in the files that talk to the kernel or share memory, and each with its argument.
pub fn unsafe_code(source: &Source) -> Vec<String> {
    let listed = tables::UNSAFE_FILES.iter().any(|prefix| source.path.starts_with(prefix));
    let mut findings = Vec::new();
    for offset in source.code_words("unsafe", true) {
        let line = source.line_of(offset);
        if !listed {
            findings
                .push(format!("{}:{line}: `unsafe` is not allowed here (tables::UNSAFE_FILES)", source.path));
        } else if !is_argued(source, line) {
            findings
                .push(format!("{}:{line}: say why this is sound in a `// SAFETY:` above it", source.path));
        }
    }
    findings
}

/// Whether the argument stands on that line or in the comment above its statement.
fn is_argued(source: &Source, line: usize) -> bool {
    let comments: Vec<&str> = source.comments.lines().collect();
    let code: Vec<&str> = source.code.lines().collect();
    let says = |index: usize| comments[index].contains("SAFETY:") || comments[index].contains("# Safety");
    if says(line - 1) {
        return true;
    }
    for index in (0..line - 1).rev() {
        if says(index) {
            return true;
        }
        let text = code[index].trim();
        let is_statement_end = text.ends_with(['{', '}', ';', ',']);
        if is_statement_end {
            return false;
        }
    }
    false
}

#[test]
fn a_file_without_a_header_is_found() {
    assert_eq!(header(&Source::new("src/a.rs", "use std::fmt;\n")).len(), 1);
    assert_eq!(header(&Source::new("src/a.rs", "//! A.\n")).len(), 1);
    assert!(header(&Source::new("src/a.rs", "//! Decides what a is.\n")).is_empty());
}

#[test]
fn an_unwrap_outside_tests_is_found() {
    let source = Source::new("src/a.rs", "//! unwrap()\nfn a() { b().unwrap(); c().unwrap_or(1); }\n");
    assert_eq!(unwraps(&source).len(), 1);
    assert!(unwraps(&Source::new("tests/a.rs", "fn a() { b().unwrap() }")).is_empty());
}

#[test]
fn a_reminder_without_a_condition_is_found() {
    for (comment, findings) in [
        ("// TODO: later", 1),
        ("// TODO(soon): later", 1),
        ("// TODO(when the kernel is 6.15 everywhere): drop this", 0),
        ("// FIXME(when there is time for it): x", 1),
        ("let x = \"TODO\";", 0),
    ] {
        assert_eq!(reminders(&Source::new("src/a.rs", comment)).len(), findings, "{comment}");
    }
}

#[test]
fn unsafe_without_a_place_or_an_argument_is_found() {
    let argued = "fn a() {\n    // SAFETY: b is valid here.\n    let c =\n        unsafe { b() };\n}\n";
    let bare = "fn a() {\n    // SAFETY: for the other one.\n    x();\n    let c = unsafe { b() };\n}\n";
    assert_eq!(unsafe_code(&Source::new("src/broker/a.rs", argued)).len(), 1);
    assert_eq!(unsafe_code(&Source::new("src/reactor/a.rs", argued)).len(), 0);
    assert_eq!(unsafe_code(&Source::new("src/reactor/a.rs", bare)).len(), 1);
}
