//! Rules about names: a name that fits anything says nothing.
//!
//! Only what this tree defines is judged, not what it imports.

use crate::source::{Source, identifier_after, words};
use crate::tables::VAGUE_WORDS;

/// Items and variables.
pub fn vague_definitions(source: &Source) -> Vec<String> {
    const INTRODUCERS: [&str; 9] = ["fn", "struct", "enum", "trait", "mod", "type", "const", "static", "let"];
    let mut findings = Vec::new();
    for introducer in INTRODUCERS {
        for offset in words(&source.code, introducer) {
            let name = identifier_after(&source.code, offset + introducer.len());
            if let Some(word) = vague_word(name) {
                let line = source.line_of(offset);
                findings.push(format!(
                    "{}:{line}: `{name}`: name it for what it does, not `{word}`",
                    source.path
                ));
            }
        }
    }
    findings
}

/// Files and folders.
pub fn vague_paths(source: &Source) -> Vec<String> {
    let words = source.path.trim_end_matches(".rs").split('/').filter_map(vague_word);
    words.map(|word| format!("{}: name the file for what it decides, not `{word}`", source.path)).collect()
}

/// The first vague word of a name in `snake_case` or `CamelCase`.
fn vague_word(name: &str) -> Option<&'static str> {
    let mut spaced = String::new();
    let mut was_lower = false;
    for character in name.chars() {
        if character == '_' || (was_lower && character.is_uppercase()) {
            spaced.push(' ');
        }
        was_lower = character.is_lowercase();
        if character != '_' {
            spaced.extend(character.to_lowercase());
        }
    }
    VAGUE_WORDS.iter().copied().find(|vague| spaced.split(' ').any(|word| word == *vague))
}

#[test]
fn a_vague_name_is_found_and_a_longer_word_is_not() {
    for (text, findings) in [
        ("struct SessionManager;", 1),
        ("fn parse_helper() {}", 1),
        ("mod utils;", 1),
        ("const COMMON: u8 = 1;", 1),
        ("use crossbeam_utils::CachePadded;", 0),
        ("fn uncommonly() {}", 0),
        ("// a helper", 0),
    ] {
        assert_eq!(vague_definitions(&Source::new("src/a.rs", text)).len(), findings, "{text}");
    }
    assert_eq!(vague_paths(&Source::new("src/broker/misc.rs", "")).len(), 1);
    assert_eq!(vague_paths(&Source::new("src/broker/session.rs", "")).len(), 0);
}
