//! The broker under test: one that is already running, or a child started for one measurement and ended after it.
//!
//! Decides how a broker's description becomes a command: `mosquitto` and `floor` are built in, `NAME=COMMAND` is any
//! other, with `{port}` and `{data}` filled in. A child gets a free port and an empty data directory, runs on the
//! server's CPU, and dies with this process. Only children started here are ever signalled.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::measure::clock;
use crate::measure::process;

/// How to start one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub name: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Mosquitto,
    Floor,
    /// Words with `{port}` and `{data}` to fill in.
    Command(Vec<String>),
}

impl FromStr for Broker {
    type Err = String;

    /// `mosquitto`, `floor`, `NAME=mosquitto`, `NAME=floor` or `NAME=COMMAND`.
    fn from_str(text: &str) -> Result<Broker, String> {
        let (name, command) = text.split_once('=').unwrap_or((text, text));
        let kind = match command {
            "mosquitto" => Kind::Mosquitto,
            "floor" => Kind::Floor,
            _ if !text.contains('=') => {
                return Err(format!(
                    "`{text}` is not built in: write {text}=COMMAND, or use mosquitto or floor"
                ));
            }
            _ if !command.contains("{port}") => {
                return Err(format!("the command of `{name}` has no {{port}}"));
            }
            _ => Kind::Command(command.split_whitespace().map(str::to_owned).collect()),
        };
        Ok(Broker { name: name.to_owned(), kind })
    }
}

/// The configuration Mosquitto is started with. Debian's, reduced to what matters here: it may not drop (no bound on
/// queued and unacknowledged messages), it persists as Debian has it, and it does not log each connection.
fn mosquitto_configuration(port: u16, data: &Path) -> String {
    format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n\
         max_queued_messages 0\nmax_inflight_messages 0\nlog_type error\nlog_type warning\n",
        data.display()
    )
}

impl Broker {
    /// The floor keeps no sessions: a scenario about messages for absent subscribers means nothing there.
    pub fn keeps_sessions(&self) -> bool {
        self.kind != Kind::Floor
    }

    /// How many journals it syncs at a time: the number behind `--shards` in its command, or one.
    pub fn lanes(&self) -> u32 {
        let Kind::Command(words) = &self.kind else { return 1 };
        let number = words.iter().skip_while(|word| *word != "--shards").nth(1);
        number.and_then(|number| number.parse().ok()).unwrap_or(1)
    }

    fn command(&self, port: u16, data: &Path) -> Result<Command> {
        match &self.kind {
            Kind::Mosquitto => {
                let configuration = data.join("mosquitto.conf");
                fs::write(&configuration, mosquitto_configuration(port, data))?;
                let mut command = Command::new(mosquitto_program());
                command.arg("-c").arg(configuration);
                Ok(command)
            }
            Kind::Floor => {
                let mut command = Command::new(std::env::current_exe().context("finding this program")?);
                command.arg("floor").arg("--listen").arg(format!("127.0.0.1:{port}"));
                Ok(command)
            }
            Kind::Command(words) => {
                let data = data.to_str().context("the data directory is not UTF-8")?;
                let filled = words
                    .iter()
                    .map(|word| word.replace("{port}", &port.to_string()).replace("{data}", data));
                let filled: Vec<String> = filled.collect();
                let (program, arguments) = filled.split_first().context("an empty command")?;
                let mut command = Command::new(program);
                command.args(arguments);
                Ok(command)
            }
        }
    }

    /// What a result document says about this broker.
    pub fn describe(&self) -> Value {
        let (command, version) = match &self.kind {
            Kind::Mosquitto => {
                let configuration =
                    mosquitto_configuration(0, Path::new("DATA")).replace("listener 0", "listener PORT");
                (
                    json!({ "program": mosquitto_program(), "configuration": configuration }),
                    mosquitto_version(),
                )
            }
            Kind::Floor => (json!("ironpost-bench floor"), Some(env!("CARGO_PKG_VERSION").to_owned())),
            Kind::Command(words) => (json!(words.join(" ")), None),
        };
        json!({ "name": self.name, "command": command, "version": version })
    }
}

/// Debian installs it where a user's PATH may not look.
fn mosquitto_program() -> &'static str {
    if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" }
}

fn mosquitto_version() -> Option<String> {
    let output = Command::new(mosquitto_program()).arg("-h").stdin(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// Which CPU the server and the load run on, when they are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub server_cpu: usize,
    pub load_cpu: usize,
}

/// A broker that accepts connections.
pub struct Server {
    pub address: SocketAddr,
    /// The process to account for; `None` if a running broker was given without one.
    pub pid: Option<u32>,
    own: Option<Own>,
}

/// What was started here: the process, its data, and how to start it once more.
struct Own {
    child: Child,
    data: PathBuf,
    broker: Broker,
    placement: Option<Placement>,
}

/// How long a broker may take to listen with an empty data directory.
const LISTEN_MAX: Duration = Duration::from_secs(20);

impl Server {
    /// A broker that somebody else runs.
    pub fn running(address: SocketAddr, pid: Option<u32>) -> Server {
        Server { address, pid, own: None }
    }

    /// Starts `broker` below `data_root` and waits until it accepts connections.
    pub fn start(broker: &Broker, data_root: &Path, placement: Option<Placement>) -> Result<Server> {
        let port = free_port()?;
        let data = data_root.join(format!("ironpost-bench-{}-{}-{port}", std::process::id(), broker.name));
        fs::create_dir_all(&data).with_context(|| format!("creating {}", data.display()))?;
        let child = spawn(broker, port, &data, placement)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let pid = Some(child.id());
        let own = Own { child, data, broker: broker.clone(), placement };
        let mut server = Server { address, pid, own: Some(own) };
        server.await_listener(LISTEN_MAX)?;
        Ok(server)
    }

    /// Ends the broker that was started here, and keeps its data: by SIGTERM, or by SIGKILL as a crash would.
    pub fn stop(&mut self, signal: libc::c_int, limit: Duration) -> Result<()> {
        let Some(Own { child, broker, .. }) = &mut self.own else { bail!("it was not started here") };
        // SAFETY: no pointer is passed, and the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(child.id() as libc::pid_t, signal) };
        let deadline = clock::now() + limit;
        while child.try_wait()?.is_none() {
            ensure!(clock::now() < deadline, "{} did not end within {} s", broker.name, limit.as_secs());
            clock::pause(Duration::from_millis(1));
        }
        self.pid = None;
        Ok(())
    }

    /// Starts it once more, on its data and its port, and waits until it accepts connections.
    pub fn start_again(&mut self, limit: Duration) -> Result<()> {
        ensure!(self.pid.is_none(), "it runs");
        let Some(own) = &mut self.own else { bail!("it was not started here") };
        own.child = spawn(&own.broker, self.address.port(), &own.data, own.placement)?;
        self.pid = Some(own.child.id());
        self.await_listener(limit)
    }

    fn await_listener(&mut self, limit: Duration) -> Result<()> {
        let deadline = clock::now() + limit;
        loop {
            // A connection without CONNECT: each broker takes it back when it closes.
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            let Some(Own { child, data, broker, .. }) = &mut self.own else {
                bail!("it was not started here")
            };
            if let Some(status) = child.try_wait()? {
                let log = fs::read_to_string(data.join(LOG)).unwrap_or_default();
                bail!("{} ended with {status} before it listened:\n{log}", broker.name);
            }
            let name = &broker.name;
            ensure!(clock::now() < deadline, "{name} did not listen on {} within {limit:?}", self.address);
            clock::pause(Duration::from_millis(10));
        }
    }

    /// Where it keeps its data, if it was started here.
    pub fn data(&self) -> Option<&Path> {
        self.own.as_ref().map(|own| own.data.as_path())
    }

    /// It was started here, and what it keeps goes with it.
    pub fn is_child(&self) -> bool {
        self.own.is_some()
    }
}

/// What a broker says on its standard output and error, in its data directory.
const LOG: &str = "bench-stderr.log";

/// Starts the process on the server's CPU, and brings this one back to the load's.
fn spawn(broker: &Broker, port: u16, data: &Path, placement: Option<Placement>) -> Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(data.join(LOG))?;
    let mut command = broker.command(port, data)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // SAFETY: between fork and exec this calls only prctl, which is async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    if let Some(placement) = placement {
        process::pin_to(placement.server_cpu)?;
    }
    let spawned = command.spawn();
    if let Some(placement) = placement {
        process::pin_to(placement.load_cpu)?;
    }
    spawned.with_context(|| format!("starting {}: {:?}", broker.name, command.get_program()))
}

impl Drop for Server {
    /// Asks the child to end, ends it after three seconds, and removes its data.
    fn drop(&mut self) {
        if self.pid.is_some() {
            let _ = self.stop(libc::SIGTERM, Duration::from_secs(3));
        }
        let Some(Own { mut child, data, .. }) = self.own.take() else { return };
        // Both fail only if the child has ended already, which is what is wanted.
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_dir_all(data);
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_built_in_or_a_command_with_a_port() {
        let floor: Broker = "floor".parse().unwrap();
        assert!(floor.name == "floor" && !floor.keeps_sessions());
        let again: Broker = "again=floor".parse().unwrap();
        assert!(again.name == "again" && again.kind == Kind::Floor);
        assert!("unknown".parse::<Broker>().is_err());
        assert!("x=serve --listen 1883".parse::<Broker>().unwrap_err().contains("{port}"));
    }

    #[test]
    fn lanes_are_the_shards_that_a_command_names() {
        let lanes = |text: &str| text.parse::<Broker>().unwrap().lanes();
        assert_eq!(lanes("x=serve --listen {port} --shards 2 --data {data}"), 2);
        assert_eq!((lanes("x=serve --listen {port}"), lanes("mosquitto")), (1, 1));
    }

    #[test]
    fn placeholders_are_filled_in() {
        let broker: Broker = "x=serve --listen tcp://127.0.0.1:{port} --data {data}/d".parse().unwrap();
        let command = broker.command(4711, Path::new("/tmp/q")).unwrap();
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(command.get_program(), "serve");
        assert_eq!(arguments, ["--listen", "tcp://127.0.0.1:4711", "--data", "/tmp/q/d"]);
    }
}
