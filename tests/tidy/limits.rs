//! Rules about `limits.rs` and what is below `limits/`: a bound has a reason, and something keeps to it.

use crate::source::{Source, identifier_after, words};
use crate::tables::{LIMITS_PENDING, LIMITS_UNTESTED};

/// Whether bounds stand in that file.
fn is_limits(source: &Source) -> bool {
    source.path == "src/limits.rs" || source.path.starts_with("src/limits/")
}

/// Constants without a doc comment.
pub fn undocumented(tree: &[Source]) -> Vec<String> {
    tree.iter().filter(|source| is_limits(source)).flat_map(undocumented_in).collect()
}

fn undocumented_in(limits: &Source) -> Vec<String> {
    let lines: Vec<&str> = limits.text.lines().collect();
    let mut findings = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(rest) = line.strip_prefix("pub const ") else { continue };
        if index == 0 || !lines[index - 1].starts_with("/// ") {
            let name = identifier_after(rest, 0);
            findings.push(format!("{}:{}: say why `{name}` has that value", limits.path, index + 1));
        }
    }
    findings
}

/// Constants that no code outside `limits.rs` and outside tests uses, and pending ones that some does.
pub fn unused(tree: &[Source]) -> Vec<String> {
    let is_used = |name: &str| {
        let product = tree.iter().filter(|source| source.path.starts_with("src/") && !is_limits(source));
        product.into_iter().any(|source| !source.code_words(name, false).is_empty())
    };
    let mut findings = Vec::new();
    for name in constants(tree) {
        let is_pending = LIMITS_PENDING.contains(&name);
        match (is_used(name), is_pending) {
            (false, false) => {
                findings.push(format!("src/limits.rs: nothing keeps to `{name}`: enforce or delete it"))
            }
            (true, true) => {
                findings.push(format!("tables::LIMITS_PENDING: `{name}` is used now: delete the entry"))
            }
            _ => {}
        }
    }
    for name in LIMITS_PENDING.iter().filter(|name| !constants(tree).contains(name)) {
        findings.push(format!("tables::LIMITS_PENDING: there is no `{name}`: delete the entry"));
    }
    findings
}

/// Constants that no test names, in its code or in a comment: one of `tests/overload` or one beside the code that keeps
/// to it. Exceptions are in the table.
pub fn untested(tree: &[Source]) -> Vec<String> {
    let tests: Vec<&str> = tree.iter().flat_map(test_texts).collect();
    let is_tested = |name: &str| tests.iter().any(|text| !words(text, name).is_empty());
    let excepted = |name: &str| LIMITS_UNTESTED.iter().any(|(constant, _)| *constant == name);
    let mut findings = Vec::new();
    for name in constants(tree).into_iter().filter(|name| !excepted(name) && !is_tested(name)) {
        findings.push(format!(
            "src/limits.rs: no test names `{name}`: show in tests/overload what a peer sees at it, or beside the code"
        ));
    }
    for (name, _) in LIMITS_UNTESTED.iter().filter(|(name, _)| !constants(tree).contains(name)) {
        findings.push(format!("tables::LIMITS_UNTESTED: there is no `{name}`: delete the entry"));
    }
    findings
}

/// The parts of a file that are tests of limits.
fn test_texts(source: &Source) -> Vec<&str> {
    if source.path.starts_with("tests/overload/") {
        return vec![&source.text];
    }
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    source.test_ranges().into_iter().map(|range| &source.text[range]).collect()
}

fn constants(tree: &[Source]) -> Vec<&str> {
    let mut all = Vec::new();
    for limits in tree.iter().filter(|source| is_limits(source)) {
        let names = words(&limits.code, "const").into_iter();
        all.extend(names.map(|offset| identifier_after(&limits.code, offset + "const".len())));
    }
    all.retain(|name| *name != "_");
    all
}

#[test]
fn a_limit_without_a_reason_is_found() {
    let source = Source::new("src/limits.rs", "/// Why.\npub const A: u8 = 1;\n\npub const B: u8 = 2;\n");
    assert_eq!(undocumented(&[source]).len(), 1);
}

#[test]
fn a_limit_that_nothing_keeps_to_is_found() {
    let tree = [
        Source::new(
            "src/a.rs",
            "fn a() { limits::A; }\n#[cfg(test)]\nmod tests { fn b() { limits::B; } }\n// C\n",
        ),
        Source::new("src/limits.rs", "pub const A: u8 = 1;\npub const B: u8 = A;\npub const C: u8 = 1;\n"),
    ];
    let findings: Vec<String> = unused(&tree).into_iter().filter(|f| f.contains("keeps to")).collect();
    assert_eq!(findings.len(), 2, "{findings:?}");
}

#[test]
fn a_limit_that_no_test_names_is_found() {
    let tree = [
        Source::new("src/a.rs", "fn a() { limits::A; }\n#[cfg(test)]\nmod tests { fn b() { limits::B; } }\n"),
        Source::new("src/limits.rs", "pub const A: u8 = 1;\npub const B: u8 = A;\npub const C: u8 = 1;\n"),
        Source::new("tests/overload/c.rs", "// limits::C\n"),
        Source::new("tests/other.rs", "limits::A;\n"),
    ];
    let findings: Vec<String> = untested(&tree).into_iter().filter(|f| f.contains("no test")).collect();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].contains("`A`"));
}
