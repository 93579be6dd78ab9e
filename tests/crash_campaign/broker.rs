//! The program under test as a process: started on a data directory, killed, stopped, or watched while it fails.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// How long a start may take.
const START_TIME: Duration = Duration::from_secs(30);

/// What one life of the broker is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub program: PathBuf,
    pub shards: u64,
    pub reactor: &'static str,
    pub hold_ms: u64,
}

/// A running broker; dropping it ends the process.
pub struct Broker {
    process: Child,
    pub address: SocketAddr,
    lines: Receiver<String>,
    log: Vec<String>,
    pub start_time: Duration,
}

impl Broker {
    /// Starts it on that data, and waits until it listens. The error is what went wrong, with its log.
    pub fn start(settings: &Settings, data: &Path, configuration: &Path) -> Result<Broker, String> {
        let text = format!(
            "listen = [\"tcp://127.0.0.1:0\"]\nshards = {}\nreactor = \"{}\"\ndrain_ms = 8_000\n\
             [broker]\nhold_ms = {}\nsys_interval_s = 0\n[log]\nformat = \"json\"\n",
            settings.shards, settings.reactor, settings.hold_ms
        );
        std::fs::write(configuration, text).map_err(|error| format!("no configuration: {error}"))?;
        let started = clock();
        let mut process = Command::new(&settings.program)
            .args(["serve", "--config"])
            .arg(configuration)
            .arg("--data")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", settings.program.display()))?;
        let lines = follow(process.stderr.take().expect("piped"));
        let mut log = Vec::new();
        while let Ok(line) = lines.recv_timeout(START_TIME.saturating_sub(started.elapsed())) {
            let address = line.contains("\"listening\"").then(|| address_in(&line)).flatten();
            log.push(line);
            if let Some(address) = address {
                return Ok(Broker { process, address, lines, log, start_time: started.elapsed() });
            }
        }
        // It has ended, or will not be waited for any longer.
        let _ = process.kill();
        let status = process.wait();
        Err(format!(
            "the broker did not start ({status:?} after {:?}):\n{}",
            started.elapsed(),
            log.join("\n")
        ))
    }

    /// kill -9, and everything it had said.
    pub fn kill(mut self) -> Vec<String> {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.rest_of_log()
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let result = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        assert!(result.is_ok_and(|status| status.success()), "the broker can be sent a signal");
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("a child can be waited for")
    }

    /// The log of a process that has ended.
    pub fn rest_of_log(&mut self) -> Vec<String> {
        // The pipe ends with the process, and the channel with the pipe.
        self.log.extend(self.lines.iter());
        std::mem::take(&mut self.log)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself, which the campaign has noticed if it matters.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Lines of a log that tell of a defect: all errors, and warnings that are not about this host.
pub fn complaints(log: &[String]) -> Vec<&String> {
    let is_defect = |line: &&String| {
        line.contains("\"level\":\"ERROR\"")
            || line.contains("replay_inconsistent")
            || line.contains("panicked")
    };
    log.iter().filter(is_defect).collect()
}

/// An observer from outside has no other clock.
#[expect(clippy::disallowed_methods, reason = "an observer from outside has no other clock")]
pub fn clock() -> Instant {
    Instant::now()
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
