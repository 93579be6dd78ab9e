//! The broker under test: one that is already running, or a child started for one measurement and ended after it.
//!
//! A child gets a free port and an empty data directory, runs on the server's CPU, and dies with this process. Only children
//! started here are ever signalled. What is started is decided in `broker`; `mosquitto`, `ejabberd` and `ironpost` know how these
//! are set up, `certificate` what they show to clients that speak TLS, and `version` asks a program what it is.

mod broker;
mod certificate;
mod ejabberd;
mod ironpost;
mod mosquitto;
mod version;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub use self::broker::{Broker, Entrance};
use crate::client::{credentials, dial, tls, token};
use crate::measure::clock;
use crate::measure::process;

/// Which CPU the server and the load run on, when they are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub server_cpu: usize,
    pub load_cpu: usize,
    /// One that is neither, where there is one.
    pub other_cpu: Option<usize>,
}

impl Placement {
    /// The two, and of the CPUs that this program may use the first that is neither.
    pub fn among(allowed: &[usize], server_cpu: usize, load_cpu: usize) -> Placement {
        let other_cpu = allowed.iter().copied().find(|cpu| ![server_cpu, load_cpu].contains(cpu));
        Placement { server_cpu, load_cpu, other_cpu }
    }

    /// Where somebody runs who is to disturb the server, and not who measures that: on the load's CPU his system calls, which
    /// nothing interrupts, would be in every latency.
    pub fn hostile_cpu(&self) -> usize {
        self.other_cpu.unwrap_or(self.server_cpu)
    }
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

/// How long a broker may take to listen with an empty data directory. A runtime with much to load took over 20 s on a
/// crowded machine.
const LISTEN_MAX: Duration = Duration::from_secs(60);

/// How often it is asked whether it listens: a start is measured to that.
const LISTEN_POLL: Duration = Duration::from_millis(1);

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
        let data = data.canonicalize().with_context(|| format!("finding {}", data.display()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match broker.entrance() {
            Entrance::Plain => {}
            Entrance::Tls => {
                let certificate = certificate::write(&data)?;
                tls::speak_at(address, certificate.as_bytes(), certificate::NAME)?;
            }
            Entrance::Tokens => token::write_keys(&ironpost::token_keys(&data))?,
        }
        let child = spawn(broker, port, &data, placement)?;
        let pid = Some(child.id());
        let own = Own { child, data, broker: broker.clone(), placement };
        if broker.wants_password() {
            credentials::require_at(address);
        }
        let mut server = Server { address, pid, own: Some(own) };
        server.await_listener(LISTEN_MAX)?;
        server.check_process()?;
        Ok(server)
    }

    /// A wrapper that starts the broker as a child of its own would be accounted for instead of it.
    fn check_process(&self) -> Result<()> {
        let expected = self.own.as_ref().and_then(|own| own.broker.process_name());
        if let Some((expected, pid)) = expected.zip(self.pid) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            ensure!(name.trim() == expected, "process {pid} is `{}` and not `{expected}`", name.trim());
        }
        Ok(())
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
            // A connection without CONNECT: each broker takes it back when it closes. It comes from another address, or
            // the kernel might one day choose the broker's own port for it, and connect it to itself.
            let attempt = dial::dial(self.address, 0);
            clock::pause(LISTEN_POLL);
            if attempt.is_ok_and(|stream| stream.peer_addr().is_ok()) {
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
        }
    }

    /// Where it keeps its data, if it was started here.
    pub fn data(&self) -> Option<&Path> {
        self.own.as_ref().map(|own| own.data.as_path())
    }

    /// Where it takes device tokens, and the folder with the keys to sign them, if it was started so.
    pub fn token_entrance(&self) -> Option<(SocketAddr, PathBuf)> {
        let own = self.own.as_ref().filter(|own| own.broker.entrance() == Entrance::Tokens)?;
        let address = SocketAddr::from((ironpost::TOKENS_ADDRESS, self.address.port()));
        Some((address, ironpost::token_keys(&own.data)))
    }

    /// How much it has said since it was started first, in bytes.
    pub fn log_bytes(&self) -> usize {
        let log = self.data().and_then(|data| fs::metadata(data.join(LOG)).ok());
        log.map_or(0, |log| log.len() as usize)
    }

    /// The first lines, `lines_max` at most, that it has said behind the first `from_bytes` bytes.
    pub fn log_from(&self, from_bytes: usize, lines_max: usize) -> Vec<String> {
        let log = self.data().and_then(|data| fs::read(data.join(LOG)).ok()).unwrap_or_default();
        let new = String::from_utf8_lossy(log.get(from_bytes..).unwrap_or_default()).into_owned();
        new.lines().take(lines_max).map(str::to_owned).collect()
    }

    /// It was started here, and what it keeps goes with it.
    pub fn is_child(&self) -> bool {
        self.own.is_some()
    }

    /// Where it was placed, if it was started here.
    pub fn placement(&self) -> Option<Placement> {
        self.own.as_ref()?.placement
    }
}

/// What a broker says on its standard output and error, in its data directory.
const LOG: &str = "bench-stderr.log";

/// Starts the process on the server's CPU, and brings this one back to the load's.
fn spawn(broker: &Broker, port: u16, data: &Path, placement: Option<Placement>) -> Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(data.join(LOG))?;
    let mut command = broker.command(port, data)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    process::end_with_this(&mut command);
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
        credentials::forget(self.address);
        tls::forget(self.address);
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
    Ok(listener.local_addr()?.port())
}
