//! Rules about imports: which part of the tree may know which, and which crate may be named where.
//!
//! These stand in for the crate boundaries that one package does not have. Paths are read from the code, so an
//! import is found in a `use` and in the middle of an expression alike. Test code is free to import what it needs.

use crate::source::{Source, identifier_after, words};
use crate::tables::{CRATES, IMPORT_EXCEPTIONS, MODULES};

/// Modules of this package.
pub fn module_imports(source: &Source) -> Vec<String> {
    let Some(module) = source.module() else { return Vec::new() };
    let Some(row) = MODULES.iter().find(|row| row.0 == module) else {
        return vec![format!(
            "{}: tables::MODULES has no row for `{module}`: say what it may import",
            source.path
        )];
    };
    let mut findings = Vec::new();
    for (offset, imported) in imported_modules(source) {
        let is_excused = IMPORT_EXCEPTIONS
            .iter()
            .any(|(prefix, name, _)| source.path.starts_with(prefix) && *name == imported);
        if imported != module && !row.1.contains(&imported) && !is_excused {
            let line = source.line_of(offset);
            findings.push(format!("{}:{line}: `{module}` may not import `{imported}`", source.path));
        }
    }
    findings
}

/// Crates, and the parts of the standard library that touch the world.
pub fn crate_imports(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (name, places) in CRATES {
        if places.iter().any(|prefix| is_inside(&source.path, prefix)) {
            continue;
        }
        for offset in mentions(source, name) {
            let line = source.line_of(offset);
            findings.push(format!("{}:{line}: `{name}` may not be named here (tables::CRATES)", source.path));
        }
    }
    findings
}

/// Each dependency says what it saves us, and has a row in `tables::CRATES` if the product names it.
pub fn dependencies(manifest: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut section = "";
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            section = line;
            continue;
        }
        let Some((name, value)) = line.split_once(" = ") else { continue };
        if !section.contains("dependencies") {
            continue;
        }
        let reason = value.rsplit_once(" # ").map_or("", |parts| parts.1);
        if reason.len() < 10 {
            findings.push(format!("Cargo.toml:{}: say what `{name}` saves us, behind a `#`", index + 1));
        }
        let crate_name = name.replace('-', "_");
        let by_derive_only = crate_name == "serde";
        if section == "[dependencies]" && !by_derive_only && !CRATES.iter().any(|row| row.0 == crate_name) {
            findings.push(format!("Cargo.toml:{}: tables::CRATES has no row for `{crate_name}`", index + 1));
        }
    }
    findings
}

/// `src/config/` also covers `src/config.rs`.
fn is_inside(path: &str, prefix: &str) -> bool {
    path.starts_with(prefix) || prefix.strip_suffix('/').is_some_and(|folder| path == format!("{folder}.rs"))
}

/// Where a crate or a path like `std::fs` is named outside tests, directly or in a group: `use std::{fs, io}`.
fn mentions(source: &Source, name: &str) -> Vec<usize> {
    let tests = source.test_ranges();
    let product = |offset: &usize| !tests.iter().any(|range| range.contains(offset));
    let Some((root, rest)) = name.split_once("::") else {
        let used = |offset: &usize| {
            let before = source.code[..*offset].trim_end();
            let after = &source.code[offset + name.len()..];
            let is_start = !before.ends_with("::") && !before.ends_with('.');
            is_start && (after.starts_with("::") || before.ends_with("use"))
        };
        return words(&source.code, name).into_iter().filter(product).filter(used).collect();
    };
    let mut found = Vec::new();
    for offset in words(&source.code, root).into_iter().filter(product) {
        if let Some(after) = source.code[offset + root.len()..].strip_prefix("::") {
            let is_named = leaves(after).iter().any(|leaf| {
                let path = leaf.strip_prefix(rest);
                path.is_some_and(|more| rest.ends_with("Tcp") || more.is_empty() || more.starts_with("::"))
            });
            if is_named {
                found.push(offset);
            }
        }
    }
    found
}

/// The modules of this crate that the code names: behind `crate::`, or behind as many `super::` as lead to the root.
fn imported_modules(source: &Source) -> Vec<(usize, &'static str)> {
    let tests = source.test_ranges();
    let depth = depth_of(&source.path);
    let mut found = Vec::new();
    let mut add = |offset: usize, path: &str| {
        for leaf in leaves(path) {
            let first = leaf.split("::").next().unwrap_or_default();
            if let Some(row) = MODULES.iter().find(|row| row.0 == first) {
                found.push((offset, row.0));
            }
        }
    };
    for root in ["crate", "ironpost"] {
        for offset in words(&source.code, root) {
            if let Some(path) = source.code[offset + root.len()..].strip_prefix("::") {
                add(offset, path);
            }
        }
    }
    for offset in words(&source.code, "super") {
        let chain = source.code[offset..].split("super::").take_while(|part| part.is_empty()).count();
        let continues_a_chain = source.code[..offset].ends_with("super::");
        if !continues_a_chain && chain == depth {
            add(offset, &source.code[offset + "super::".len() * chain..]);
        }
    }
    found.retain(|(offset, _)| !tests.iter().any(|range| range.contains(offset)));
    found
}

/// How many times `super::` leads from a file of `src/` to the crate root.
fn depth_of(path: &str) -> usize {
    path.matches('/').count() - usize::from(path.ends_with("/mod.rs"))
}

/// The paths that a `use` tail stands for: `{a::b, c}` gives both, `a::{b, c}` gives `a::b` and `a::c`.
fn leaves(tail: &str) -> Vec<String> {
    let tail = tail.trim_start();
    if let Some(group) = tail.strip_prefix('{') {
        return group_members(group).iter().flat_map(|member| leaves(member)).collect();
    }
    let name = identifier_after(tail, 0);
    let rest = tail[name.len()..].trim_start();
    match rest.strip_prefix("::") {
        Some(more) if !name.is_empty() => {
            leaves(more).into_iter().map(|leaf| format!("{name}::{leaf}")).collect()
        }
        _ => vec![name.to_owned()],
    }
}

/// The members of a group, whose opening brace has been taken off.
fn group_members(group: &str) -> Vec<&str> {
    let mut members = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (offset, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => {
                members.push(&group[start..offset]);
                break;
            }
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                members.push(&group[start..offset]);
                start = offset + 1;
            }
            _ => {}
        }
    }
    members
}

#[test]
fn an_import_across_a_fence_is_found() {
    for (path, text, findings) in [
        ("src/broker/a.rs", "use crate::wire::Packet;", 0),
        ("src/broker/a.rs", "use crate::{ids::Lsn, reactor::Op};", 1),
        ("src/broker/a.rs", "fn f() { crate::journal::open() }", 1),
        ("src/broker/a.rs", "use super::super::shard::Shard;", 1),
        ("src/broker/session/a.rs", "use super::super::super::shard::Shard;", 1),
        ("src/broker/session/a.rs", "use super::super::input::Input;", 0),
        ("src/broker/mod.rs", "use super::shard::Shard;", 1),
        ("src/reactor/sim/a.rs", "use crate::journal::Storage;", 0),
        ("src/reactor/epoll.rs", "use crate::journal::Storage;", 1),
        ("src/wire/a.rs", "use crate::{limits, time};", 1),
        ("src/wire/a.rs", "#[cfg(test)]\nmod tests { use crate::shard; }", 0),
        ("src/placement.rs", "use crate::wire;", 1),
        ("src/unknown/a.rs", "", 1),
    ] {
        assert_eq!(module_imports(&Source::new(path, text)).len(), findings, "{path}: {text}");
    }
}

#[test]
fn a_crate_out_of_place_is_found() {
    for (path, text, findings) in [
        ("src/reactor/epoll.rs", "use libc::c_int;", 0),
        ("src/broker/a.rs", "use libc::c_int;", 1),
        ("src/journal/storage.rs", "fn f() { libc::fdatasync(3) }", 0),
        ("src/journal/writer.rs", "fn f() { libc::fdatasync(3) }", 1),
        ("src/journal/a.rs", "use std::os::fd::AsRawFd;", 1),
        ("src/broker/a.rs", "use std::{fs, io};", 1),
        ("src/broker/a.rs", "use std::net::{IpAddr, TcpStream};", 1),
        ("src/broker/a.rs", "use std::net::IpAddr;", 0),
        ("src/config.rs", "fn f() { std::fs::read_to_string(p) }", 0),
        ("src/broker/a.rs", "fn f(slab: Slab) { self.toml.get() }", 0),
        ("src/broker/a.rs", "// libc::read", 0),
        ("tests/a.rs", "use libc::c_int;", 0),
    ] {
        assert_eq!(crate_imports(&Source::new(path, text)).len(), findings, "{path}: {text}");
    }
}

#[test]
fn a_dependency_without_a_reason_or_a_row_is_found() {
    let manifest =
        "[package]\nname = \"x\"\n[dependencies]\nlibc = \"1\" # plain system calls\nmio = \"1\"\n";
    assert_eq!(dependencies(manifest).len(), 1);
    assert_eq!(dependencies("[dependencies]\nleft-pad = \"1\" # saves us everything\n").len(), 1);
    assert_eq!(dependencies("[dev-dependencies]\nleft-pad = \"1\" # saves us everything\n").len(), 0);
}
