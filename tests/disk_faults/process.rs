//! The program as a process on a data directory: it serves, it refuses to start, or it ends by itself.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::broker::clock;

/// How long a start, a refusal or an end may take: a lock that another process has is waited for 3 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// How to start it.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    pub data: &'a Path,
    pub reactor: &'static str,
    pub shards: u16,
    /// More of the configuration file.
    pub config: &'static str,
}

impl<'a> Start<'a> {
    /// One shard, epoll.
    pub fn on(data: &'a Path) -> Start<'a> {
        Start { data, reactor: "epoll", shards: 1, config: "" }
    }
}

/// A process that ended: its exit status (`None`: a signal), and all that it said.
#[derive(Debug)]
pub struct Ended {
    pub status: Option<i32>,
    pub said: String,
}

impl Ended {
    /// Asserts that it failed at its work and said all of that.
    pub fn expect(&self, words: &[&str]) -> &Ended {
        assert_eq!(self.status, Some(1), "{}", self.said);
        for word in words {
            assert!(self.said.contains(word), "no word of {word:?} in:\n{}", self.said);
        }
        assert!(!self.said.contains("panicked"), "{}", self.said);
        self
    }
}

/// A process that serves; dropping it ends it.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Process {
    /// Starts one, and waits until it listens.
    pub fn start(start: Start<'_>) -> Process {
        match Process::try_start(start) {
            Ok(process) => process,
            Err(ended) => panic!("it did not start with {start:?}: {ended:?}"),
        }
    }

    /// Starts one that must not come to listen.
    pub fn refuses(start: Start<'_>) -> Ended {
        match Process::try_start(start) {
            Ok(_) => panic!("it started with {start:?}"),
            Err(ended) => ended,
        }
    }

    pub fn try_start(start: Start<'_>) -> Result<Process, Ended> {
        let config = tempfile::NamedTempFile::new().expect("a file for the configuration");
        let text = format!("[broker]\nhold_ms = 0\nsys_interval_s = 0\n{}\n", start.config);
        std::fs::write(config.path(), text).expect("a configuration can be written");
        let shards = start.shards.to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ironpost"))
            .args(["serve", "--listen", "tcp://127.0.0.1:0", "--reactor", start.reactor, "--shards", &shards])
            .arg("--config")
            .arg(config.path())
            .arg("--data")
            .arg(start.data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let lines = follow(child.stderr.take().expect("piped"));
        let begun = clock();
        let mut said = Vec::new();
        let outcome = loop {
            match lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
                Ok(line) => {
                    let address = line.contains("listening").then(|| address_in(&line)).flatten();
                    said.push(line);
                    if let Some(address) = address {
                        return Ok(Process { child, address, lines, said });
                    }
                }
                Err(reason) => break reason,
            }
        };
        if outcome == RecvTimeoutError::Timeout {
            let _ = child.kill();
        }
        let status = child.wait().expect("a child can be waited for");
        Err(Ended { status: status.code(), said: said.join("\n") })
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// SIGTERM, and its end.
    pub fn terminate(self) -> Ended {
        let id = self.id().to_string();
        let result = Command::new("kill").args(["-TERM", &id]).status();
        assert!(result.is_ok_and(|status| status.success()), "the process can be sent a signal");
        self.end()
    }

    /// Waits for its end, which must come by itself.
    pub fn end(mut self) -> Ended {
        let begun = clock();
        loop {
            match self.lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("it did not end; it said:\n{}", self.said.join("\n"))
                }
            }
        }
        let status = self.child.wait().expect("a child can be waited for");
        Ended { status: status.code(), said: self.said.join("\n") }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asserts that it has not ended, and returns what it has said so far.
    pub fn serves(&mut self) -> String {
        assert_eq!(self.child.try_wait().expect("a child can be waited for"), None, "it has ended");
        self.said.extend(self.lines.try_iter());
        self.said.join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed if it matters.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a pipe to its end, so that it never fills.
fn follow(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // The receiver is gone when nobody wants to know any more; the pipe is read all the same.
            let _ = sender.send(line);
        }
    });
    lines
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let rest = &line[line.find("127.0.0.1:")?..];
    let end = rest.find(|character: char| !(character.is_ascii_digit() || ".:".contains(character)));
    rest[..end.unwrap_or(rest.len())].parse().ok()
}
