//! `ironpost passwd` as an operator runs it: the real binary, real files, several at once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use ironpost::access::passwords::Passwords;

fn start(file: &Path, arguments: &[&str], input: &[u8]) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ironpost"))
        .arg("passwd")
        .arg(file)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that ends before it reads does not care.
    let _ = child.stdin.take().unwrap().write_all(input);
    child
}

fn run(file: &Path, arguments: &[&str], input: &[u8]) -> Output {
    start(file, arguments, input).wait_with_output().unwrap()
}

fn succeed(file: &Path, arguments: &[&str], input: &[u8]) -> String {
    let output = run(file, arguments, input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fail(file: &Path, arguments: &[&str], input: &[u8], code: i32) -> String {
    let output = run(file, arguments, input);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn read(file: &Path) -> Passwords {
    Passwords::parse(&fs::read_to_string(file).unwrap()).unwrap()
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_password_is_set_replaced_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwords");
    let said = succeed(&file, &["alice", "--stdin"], b"secret-1\nmore\n");
    assert!(said.contains("\"alice\"") && said.contains("(Argon2id)") && !said.contains("secret"), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    assert!(read(&file).verify("alice", b"secret-1"));
    assert!(read(&file).scram("alice").is_none());
    let first = fs::read_to_string(&file).unwrap();
    succeed(&file, &["bob", "--stdin", "--scram"], b"secret-2\r\n");
    succeed(&file, &["carol", "--stdin", "--scram", "--no-argon2id"], b"secret-3");
    let all = fs::read_to_string(&file).unwrap();
    assert!(all.starts_with(&first), "other lines stay as they are");
    assert!(read(&file).verify("bob", b"secret-2") && read(&file).scram("bob").is_some());
    assert!(!read(&file).verify("carol", b"secret-3") && read(&file).scram("carol").is_some());
    succeed(&file, &["alice", "--stdin"], b"secret-1\n");
    assert_ne!(fs::read_to_string(&file).unwrap(), all, "a new salt");
    succeed(&file, &["alice", "--delete"], b"");
    assert!(!read(&file).verify("alice", b"secret-1"));
    assert_eq!(read(&file).len(), 2);
    assert_eq!(names_in(directory.path()), ["passwords"], "nothing stays behind");
}

#[test]
fn what_will_not_do_is_refused_and_leaves_the_file_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwords");
    let long = [b'x'; 1_025];
    for (arguments, input) in [
        (&["alice", "--stdin"][..], &b"\n"[..]),
        (&["alice", "--stdin"], b""),
        (&["alice", "--stdin"], &long),
        (&["a:b", "--stdin"], b"secret"),
        (&["#a", "--stdin"], b"secret"),
        (&["", "--stdin"], b"secret"),
        (&["alice", "--stdin", "--scram"], b"\xFF"),
        (&["alice", "--stdin", "--no-argon2id"], b"secret"),
        (&["alice", "--stdin", "--delete"], b"secret"),
    ] {
        let said = fail(&file, arguments, input, 2);
        assert!(!said.contains("secret"), "{said}");
        assert_eq!(names_in(directory.path()), [""; 0], "{arguments:?}");
    }
    fail(&file, &["alice", "--delete"], b"", 1);
    succeed(&file, &["alice", "--stdin"], &long[1..]);
    assert!(fail(&file, &["bob", "--delete"], b"", 2).contains("there is no user \"bob\""));
    fail(&directory.path().join("no/passwords"), &["alice", "--stdin"], b"secret", 1);
    fail(directory.path(), &["alice", "--stdin"], b"secret", 2);
    fs::write(&file, "# mine\nalice:hunter2\n").unwrap();
    let said = fail(&file, &["bob", "--stdin"], b"secret", 1);
    assert!(said.contains("passwords:2: ") && said.contains("cure: ") && !said.contains("hunter2"), "{said}");
    fs::write(&file, b"# mine\n\xFF:x\n").unwrap();
    assert!(fail(&file, &["bob", "--stdin"], b"secret", 1).contains("passwords:2: not UTF-8"));
    assert_eq!(fs::read(&file).unwrap(), b"# mine\n\xFF:x\n");
}

#[test]
fn mode_owner_comments_and_a_link_stay() {
    let directory = tempfile::tempdir().unwrap();
    let (file, link) = (directory.path().join("passwords"), directory.path().join("link"));
    fs::write(&file, "# ours\r\n\n  \n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let root = fs::metadata(&file).unwrap().uid() == 0;
    if root {
        std::os::unix::fs::chown(&file, Some(1_234), Some(2_345)).unwrap();
    }
    let before = fs::metadata(&file).unwrap();
    symlink("passwords", &link).unwrap();
    // What a crash may have left.
    fs::write(directory.path().join(".passwords.new"), "half a li").unwrap();
    succeed(&link, &["alice", "--stdin"], b"secret");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let after = fs::metadata(&file).unwrap();
    assert_ne!(before.ino(), after.ino(), "replaced, not overwritten");
    assert_eq!(
        (before.mode(), before.uid(), before.gid()),
        (after.mode(), after.uid(), after.gid()),
        "owner tested: {root}"
    );
    assert!(fs::read_to_string(&file).unwrap().starts_with("# ours\r\n\n  \nalice:$argon2id$"));
    let mut names = names_in(directory.path());
    names.sort();
    assert_eq!(names, ["link", "passwords"]);
}

/// Each reads what the one before has written: without the lock, some would be lost.
#[test]
fn many_at_once_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwords");
    for round in 0..3 {
        let children: Vec<Child> = (0..12)
            .map(|user| start(&file, &[&format!("user-{round}-{user}"), "--stdin"], b"secret\n"))
            .collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(read(&file).len(), 12 * (round + 1));
    }
    assert_eq!(names_in(directory.path()), ["passwords"]);
}

#[test]
fn without_a_terminal_it_says_how_to_do_without() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwords");
    // Of its own session, so that it has no terminal even where this test has one.
    let output = Command::new("setsid")
        .args(["--wait", env!("CARGO_BIN_EXE_ironpost"), "passwd"])
        .arg(&file)
        .arg("alice")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("--stdin"), "{text}");
    assert!(!file.exists());
}
