//! The program under test, as a process of its own per test.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a start may take before the test fails.
const START_TIME: Duration = Duration::from_secs(30);

/// How to start one, beyond the defaults.
#[derive(Clone, Default)]
pub struct Start {
    /// The configuration file; the listener, the data directory, the reactor and the shards are set by flags.
    pub config: String,
    /// What the shell does before it becomes the program, like setting a limit; empty for no shell.
    pub shell: &'static str,
    /// Shards, if not as many as the environment says.
    pub shards: Option<u16>,
    /// What its listener speaks, if not TCP.
    pub protocol: Option<&'static str>,
}

/// A running broker; dropping it ends the process.
pub struct Broker {
    process: Child,
    address: SocketAddr,
    start: Start,
    /// Gone while a restart holds it.
    data: Option<TempDir>,
}

impl Broker {
    /// Starts one with nothing in its data directory.
    pub fn start() -> Broker {
        let data = tempfile::tempdir().expect("a directory for the data");
        match setting("CONFORMANCE_MOSQUITTO") {
            Some(program) => start_mosquitto(&program, data),
            None => start_ironpost(Start::default(), data),
        }
    }

    /// Starts ours in that way, with nothing in its data directory.
    pub fn start_with(start: Start) -> Broker {
        start_ironpost(start, tempfile::tempdir().expect("a directory for the data"))
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills the process and starts another on the same data.
    pub fn restart(mut self) -> Broker {
        let data = self.data.take().expect("only a restart takes it");
        let start = self.start.clone();
        drop(self);
        start_ironpost(start, data)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed if it matters.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether the tests run against Mosquitto, which keeps nothing over a kill.
pub fn is_mosquitto() -> bool {
    setting("CONFORMANCE_MOSQUITTO").is_some()
}

/// The only clock of these tests: for measuring what the standard gives a time for.
#[expect(clippy::disallowed_methods, reason = "an observer from outside has no other clock")]
pub fn clock() -> Instant {
    Instant::now()
}

fn start_ironpost(start: Start, data: TempDir) -> Broker {
    let reactor = setting("CONFORMANCE_REACTOR").unwrap_or_else(|| "auto".to_owned());
    let shards = match start.shards {
        Some(shards) => shards.to_string(),
        None => setting("CONFORMANCE_SHARDS").unwrap_or_else(|| "1".to_owned()),
    };
    let program = env!("CARGO_BIN_EXE_ironpost");
    let mut command = Command::new(if start.shell.is_empty() { program } else { "sh" });
    if !start.shell.is_empty() {
        command.args(["-c", &format!("{}; exec \"$0\" \"$@\"", start.shell), program]);
    }
    let config = data.path().join("ironpost.toml");
    std::fs::write(&config, &start.config).expect("a configuration can be written");
    let mut process = command
        .args([
            "serve",
            "--listen",
            &format!("{}://127.0.0.1:0", start.protocol.unwrap_or("tcp")),
            "--reactor",
            &reactor,
            "--shards",
            &shards,
            "--config",
        ])
        .arg(config)
        .arg("--data")
        .arg(data.path().join("data"))
        .current_dir(data.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    let (sender, lines) = mpsc::channel();
    follow(process.stdout.take().expect("piped"), sender.clone());
    follow(process.stderr.take().expect("piped"), sender);
    match listening_address(&lines) {
        Ok(address) => Broker { process, address, start, data: Some(data) },
        Err(log) => {
            let _ = process.kill();
            let _ = process.wait();
            panic!("no line of the log says where the program is listening; it said:\n{}", log.join("\n"));
        }
    }
}

/// Reads a pipe to its end, so that it never fills.
fn follow(pipe: impl Read + Send + 'static, lines: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // Nobody listens any more once the address is known.
            let _ = lines.send(line);
        }
    });
}

/// The address in the first line that says "listening", or all lines if there is none.
fn listening_address(lines: &Receiver<String>) -> Result<SocketAddr, Vec<String>> {
    let started = clock();
    let mut log = Vec::new();
    while let Ok(line) = lines.recv_timeout(START_TIME.saturating_sub(started.elapsed())) {
        if line.contains("listening")
            && let Some(address) = address_in(&line)
        {
            return Ok(address);
        }
        log.push(line);
    }
    Err(log)
}

/// The first loopback address with a port in a line of the log, whatever its format.
fn address_in(line: &str) -> Option<SocketAddr> {
    let start = line.find("127.0.0.1:")?;
    let rest = &line[start..];
    let end = rest.find(|character: char| !(character.is_ascii_digit() || ".:".contains(character)));
    rest[..end.unwrap_or(rest.len())].parse().ok().filter(|address: &SocketAddr| address.port() != 0)
}

fn start_mosquitto(program: &str, data: TempDir) -> Broker {
    // It cannot tell which port it took, so one that is free just now has to do.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("a free port");
    let configuration = data.path().join("mosquitto.conf");
    let text =
        format!("listener {} 127.0.0.1\nallow_anonymous true\nmax_packet_size 1048576\n", address.port());
    std::fs::write(&configuration, text).expect("a configuration can be written");
    let process = Command::new(program)
        .arg("-c")
        .arg(&configuration)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("Mosquitto can be started");
    let started = clock();
    while TcpStream::connect(address).is_err() {
        assert!(started.elapsed() < START_TIME, "Mosquitto does not listen");
        std::thread::yield_now();
    }
    Broker { process, address, start: Start::default(), data: Some(data) }
}

#[expect(clippy::disallowed_methods, reason = "settings of a test run have no configuration file")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[test]
fn the_address_is_found_in_both_formats_of_the_log() {
    for line in [
        r#"{"timestamp":"2026","level":"INFO","message":"listening","address":"127.0.0.1:41234"}"#,
        "12:00:01 INFO listening address=127.0.0.1:41234",
        "listening on tcp://127.0.0.1:41234",
    ] {
        assert_eq!(address_in(line), "127.0.0.1:41234".parse().ok(), "{line}");
    }
    assert_eq!(address_in("listening on tcp://127.0.0.1:0"), None);
}
