//! Which version a program is, asked of the program itself.
//!
//! Decides that the answer is optional: a program that does not know the question may do anything, start serving among it,
//! so it gets two seconds and is then ended. Called when brokers are described, before anything is measured.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::FromRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::measure::clock;

/// A program that says its version does so at once; a runtime may have to be loaded first.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// More than any first line; the rest is not read.
const ANSWER_BYTES_MAX: u64 = 4_096;

/// A version is not longer, and it stands in tables.
const VERSION_LENGTH_MAX: usize = 120;

/// The first line with something on it of what `program` says, on standard output or error; nothing if it fails.
pub fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    answer(program, arguments, ANSWER_MAX).filter(|(succeeded, _)| *succeeded).map(|(_, line)| line)
}

/// The same of a program that is known to call its help a failure.
pub fn ask_whatever_the_status(program: &str, arguments: &[&str]) -> Option<String> {
    answer(program, arguments, ANSWER_MAX).map(|(_, line)| line)
}

/// Whether it succeeded, and the line; nothing if it did not end within `limit`.
fn answer(program: &str, arguments: &[&str], limit: Duration) -> Option<(bool, String)> {
    let mut file = memory_file()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(file.try_clone().ok()?).stderr(file.try_clone().ok()?);
    // A group of its own: whatever the program has started by then ends with it.
    let mut child = command.process_group(0).spawn().ok()?;
    let deadline = clock::now() + limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if clock::now() < deadline => clock::pause(Duration::from_millis(5)),
            Ok(None) | Err(_) => break None,
        }
    };
    if status.is_none() {
        // SAFETY: no pointer is passed, and the child has not been waited for, so its group is still its own.
        unsafe { libc::kill(-(child.id() as libc::pid_t), libc::SIGKILL) };
        let _ = child.wait();
    }
    let succeeded = status?.success();
    file.seek(SeekFrom::Start(0)).ok()?;
    let mut bytes = Vec::new();
    file.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some((succeeded, line.chars().take(VERSION_LENGTH_MAX).collect()))
}

/// A file without a name in memory: unlike a pipe it is never full, and nothing waits for its end.
fn memory_file() -> Option<File> {
    // SAFETY: the name is a C string that lives across the call.
    let descriptor = unsafe { libc::memfd_create(c"version".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: the descriptor is new and nobody else's.
    (descriptor >= 0).then(|| unsafe { File::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_version_wherever_it_is_said() {
        let say = |script: &str| ask("/bin/sh", &["-c", script]);
        assert_eq!(say("echo; echo 'broker 1.2.3 '; echo more"), Some("broker 1.2.3".to_owned()));
        assert_eq!(say("echo to-standard-error >&2"), Some("to-standard-error".to_owned()));
        assert_eq!(say("yes x | head -c 1000000").map(|line| line.len()), Some(1));
    }

    #[test]
    fn who_fails_says_nothing_or_is_not_there_has_no_version() {
        assert_eq!(ask("/bin/sh", &["-c", "echo unknown option; exit 2"]), None);
        let unasked = ask_whatever_the_status("/bin/sh", &["-c", "echo help; exit 3"]);
        assert_eq!(unasked, Some("help".to_owned()));
        assert_eq!(ask("/bin/sh", &["-c", "true"]), None);
        assert_eq!(ask("/nonexistent/program", &["--version"]), None);
    }

    #[test]
    fn who_goes_on_running_is_ended_with_what_it_has_started() {
        let start = clock::now();
        let answer =
            answer("/bin/sh", &["-c", "echo serving; sleep 60 & sleep 60"], Duration::from_millis(50));
        assert_eq!(answer, None);
        assert!(start.elapsed() < Duration::from_secs(30), "it was waited for");
    }
}
