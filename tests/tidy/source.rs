//! A source file in three views of the same length: as it is, its code alone, its comments alone.
//!
//! Decides what is code, comment and literal, where a function begins and ends and which lines are test code; does
//! not parse Rust any further. A rule that looks for a word looks in the view where the word would matter, so a
//! string in this folder cannot break the rule that searches for it. Lines and columns agree between the views.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One `.rs` file of the tree.
pub struct Source {
    /// From the root of the repository, with `/`.
    pub path: String,
    /// As it is on disk.
    pub text: String,
    /// Comments and the insides of literals blanked.
    pub code: String,
    /// All but comments blanked.
    pub comments: String,
}

/// A function with a body.
pub struct Function {
    pub name: String,
    /// Of its `fn`, from 1.
    pub line: usize,
    /// From its `fn` to its closing brace.
    pub lines: usize,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let (code, comments) = views(text.as_bytes());
        Source { path: path.to_owned(), text: text.to_owned(), code, comments }
    }

    /// The line of a byte offset, from 1.
    pub fn line_of(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// The part of the tree it belongs to: the module below `src/`, or `None` outside.
    pub fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs"))
    }

    /// Byte ranges that exist only under `cfg(test)`; the whole file if it is one of tests.
    pub fn test_ranges(&self) -> Vec<Range<usize>> {
        let is_test_file = !self.path.starts_with("src/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
            || self.path.ends_with("_tests.rs");
        if is_test_file {
            return vec![Range { start: 0, end: self.text.len() }];
        }
        let mut ranges = Vec::new();
        for marker in ["#[cfg(test)]", "#[cfg(all(test"] {
            for (start, _) in self.code.match_indices(marker) {
                if let Some(end) = item_end(self.code.as_bytes(), start + marker.len()) {
                    ranges.push(start..end);
                }
            }
        }
        ranges
    }

    /// Offsets at which that word stands in the code, outside tests if asked for.
    pub fn code_words(&self, word: &str, tests_too: bool) -> Vec<usize> {
        let tests = if tests_too { Vec::new() } else { self.test_ranges() };
        words(&self.code, word)
            .into_iter()
            .filter(|offset| !tests.iter().any(|range| range.contains(offset)))
            .collect()
    }

    /// Every function that has a body.
    pub fn functions(&self) -> Vec<Function> {
        let bytes = self.code.as_bytes();
        let mut found = Vec::new();
        for offset in words(&self.code, "fn") {
            let name = identifier_after(&self.code, offset + 2);
            if name.is_empty() {
                continue; // a function pointer type
            }
            let Some(end) = item_end(bytes, offset) else { continue };
            if bytes[end - 1] == b'}' {
                let line = self.line_of(offset);
                found.push(Function { name: name.to_owned(), line, lines: self.line_of(end - 1) - line + 1 });
            }
        }
        found
    }
}

/// Every `.rs` file of the package and of `bench/`, in order of path.
pub fn tree() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ["src", "tests", "bench"] {
        collect(&root().join(folder), &mut paths);
    }
    paths.sort();
    paths.iter().map(|path| Source::new(path, &read(path))).collect()
}

/// A text file by its path from the root.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, paths: &mut Vec<String>) {
    const GENERATED: [&str; 4] = ["target", "node_modules", "corpus", "artifacts"];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && !GENERATED.iter().any(|generated| name.to_str() == Some(generated)) {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root()).expect("collected below the root");
            paths.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
}

/// Offsets where `word` stands with no identifier character before or after it.
pub fn words(text: &str, word: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    text.match_indices(word)
        .map(|(offset, _)| offset)
        .filter(|&offset| offset == 0 || !is_identifier(bytes[offset - 1]))
        .filter(|&offset| bytes.get(offset + word.len()).is_none_or(|byte| !is_identifier(*byte)))
        .collect()
}

/// The identifier that follows the white space at `offset`; empty if something else does.
pub fn identifier_after(text: &str, offset: usize) -> &str {
    let rest = text[offset..].trim_start();
    let end = rest.bytes().position(|byte| !is_identifier(byte)).unwrap_or(rest.len());
    &rest[..end]
}

fn is_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where the item that begins at `start` ends: after its `;`, or after the brace that closes its body.
fn item_end(code: &[u8], start: usize) -> Option<usize> {
    let mut round = 0i32; // parentheses and brackets: a `;` inside `[u8; 4]` ends nothing
    let mut braces = 0i32;
    for (offset, byte) in code.iter().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round -= 1,
            b'{' => braces += 1,
            b'}' => braces -= 1,
            _ => {}
        }
        let ends = (*byte == b';' && round <= 0 && braces == 0) || (*byte == b'}' && braces == 0);
        if ends {
            return Some(offset + 1);
        }
    }
    None
}

/// What a byte belongs to.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Code,
    Comment,
    Literal,
}

fn views(text: &[u8]) -> (String, String) {
    let mut parts = vec![Part::Code; text.len()];
    let mut at = 0;
    while at < text.len() {
        let (length, part) = token(&text[at..], at > 0 && is_identifier(text[at - 1]));
        parts[at..at + length].fill(part);
        at += length;
    }
    let view = |wanted: Part| -> String {
        let keep = |(byte, part): (&u8, &Part)| match *byte {
            b'\n' => '\n',
            byte if *part == wanted && byte.is_ascii() => char::from(byte),
            _ => ' ',
        };
        text.iter().zip(&parts).map(keep).collect()
    };
    (view(Part::Code), view(Part::Comment))
}

/// The length and the part of what begins here; never longer than `rest`. The quotes of a literal count as literal.
fn token(rest: &[u8], after_identifier: bool) -> (usize, Part) {
    let literal = |length: usize| (length.min(rest.len()), Part::Literal);
    if rest.starts_with(b"//") {
        return (rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()), Part::Comment);
    }
    if rest.starts_with(b"/*") {
        return (block_comment(rest), Part::Comment);
    }
    if !after_identifier && let Some(length) = raw_string(rest) {
        return literal(length);
    }
    match rest[0] {
        b'"' => literal(quoted(rest)),
        b'\'' => match character(rest) {
            Some(length) => literal(length),
            None => (1, Part::Code), // a lifetime
        },
        _ => (1, Part::Code),
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = if rest.starts_with(b"br") { 2 } else { usize::from(rest[0] == b'r') };
    if prefix == 0 {
        return None;
    }
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = prefix + hashes + 1;
    let end = rest[body..].windows(close.len()).position(|window| window == close);
    Some(end.map_or(rest.len(), |end| body + end + close.len()))
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn character(rest: &[u8]) -> Option<usize> {
    match rest.get(1)? {
        b'\\' => rest.iter().skip(3).position(|byte| *byte == b'\'').map(|end| end + 4),
        byte if !byte.is_ascii() => {
            rest.iter().take(8).skip(2).position(|byte| *byte == b'\'').map(|end| end + 3)
        }
        _ => (rest.get(2) == Some(&b'\'')).then_some(3),
    }
}

#[test]
fn the_views_tell_code_from_comments_and_literals() {
    let text = "let a = \"// no\"; // yes \"x\"\nlet b: &'static str = r#\"un\"safe\"#; /* a /* b */ c */ end('\\'', 'ë')";
    let source = Source::new("src/x.rs", text);
    assert_eq!(source.code.len(), text.len());
    for (word, code, comment) in
        [("no", 0, 0), ("yes", 0, 1), ("safe", 0, 0), ("static", 1, 0), ("b", 1, 1), ("end", 1, 0)]
    {
        assert_eq!(words(&source.code, word).len(), code, "{word} in code");
        assert_eq!(words(&source.comments, word).len(), comment, "{word} in comments");
    }
}

#[test]
fn a_function_is_measured_from_its_name_to_its_closing_brace() {
    let source = Source::new(
        "src/x.rs",
        "trait T {\n fn none(a: [u8; 2]);\n}\nfn one(f: fn(u8) -> u8) {\n  if true {\n  }\n}\n",
    );
    let found: Vec<_> = source.functions().into_iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(found, [("one".to_owned(), 4, 4)]);
}

#[test]
fn test_code_is_recognised() {
    let source = Source::new("src/x.rs", "fn a() { x() }\n#[cfg(test)]\nmod tests {\n fn b() { x() }\n}\n");
    assert_eq!(source.code_words("x", true).len(), 2);
    assert_eq!(source.code_words("x", false).len(), 1);
    assert!(Source::new("src/a/tests.rs", "fn b() { x() }").code_words("x", false).is_empty());
}
