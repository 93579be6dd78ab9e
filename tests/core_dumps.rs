//! A process that crashes leaves nothing of its memory behind, where passwords, keys and messages are, unless an operator wants that.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

/// How a broker ends that is told to crash, where the kernel writes core dumps; `None` if it does not here.
fn crashed(settings: &str) -> Option<ExitStatus> {
    let folder = tempfile::tempdir().expect("a directory for the data");
    let config = folder.path().join("ironpost.toml");
    let text =
        format!("listen = [\"tcp://127.0.0.1:0\"]\nshards = 1\n{settings}\n[log]\nformat = \"json\"\n");
    std::fs::write(&config, text).expect("a file of our own");
    let mut process = Command::new("sh")
        .args(["-c", "ulimit -c unlimited && exec \"$0\" serve --config \"$1\" --data data"])
        .args([env!("CARGO_BIN_EXE_ironpost").as_ref(), config.as_os_str()])
        .current_dir(&folder)
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell");
    let log = BufReader::new(process.stderr.take().expect("piped"));
    let listens = log.lines().map_while(Result::ok).any(|line| line.contains("\"listening\""));
    if !listens {
        process.wait().expect("it has ended");
        return None;
    }
    let told = Command::new("kill").args(["-ABRT", &process.id().to_string()]).status();
    assert!(told.expect("kill is there").success());
    Some(process.wait().expect("it ends"))
}

#[test]
fn a_crash_leaves_a_core_dump_only_where_that_is_allowed() {
    let Some(allowed) = crashed("core_dumps = true") else {
        println!("not run: the limit of core dumps cannot be raised here");
        return;
    };
    assert_eq!(allowed.signal(), Some(6));
    if !allowed.core_dumped() {
        println!("not run: the kernel writes no core dumps here");
        return;
    }
    let status = crashed("").expect("as before");
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
}
