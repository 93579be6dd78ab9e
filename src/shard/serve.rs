//! Runs the process: the data directory, one thread per shard, the listeners, and the stop.
//!
//! Decides the order of starting and stopping, and what ends the process; a shard's work is in `shard`. Called by the
//! command. This thread only waits for reports.
//!
//! Starting: lock the data directory, waiting a moment for a process that was just killed; one thread per shard recovers its journal; when all have, they exchange who is
//! subscribed to what; when all know, the listeners open. A client that connected earlier would be acknowledged for a
//! message whose recipients nobody remembers yet.
//!
//! Stopping (SIGTERM, SIGINT): listeners close; every shard tells its clients and settles what it owes; when all have
//! drained, each syncs its journal and ends. If that takes longer than `drain_ms`, the process ends all the same: what
//! was acknowledged is on disk, and the rest will be sent again. A second signal ends it at once.
//!
//! SIGHUP: certificates, keys, users and rules are read again, for those who connect from then on; rules for everybody.
//!
//! Failing: the first shard whose journal fails ends the process with the cause and the cure.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::listeners::{Listeners, Returns};
use super::memory;
use super::mesh::Mesh;
use super::pin;
use super::shard::{Parts, Shard, State};
use super::socket::{self, Desk, Tell, Told};
use super::watch::{Command, Control, Report, Waited, Watch};
use crate::access::keeper::AccessError;
use crate::config::{Config, ReactorChoice};
use crate::ids::ShardId;
use crate::journal::directory::DataDirectory;
use crate::journal::storage::Directory;
use crate::journal::{self, GrowRequest, JournalError, Storage};
use crate::limits::{LOCK_RETRY_MS, LOCK_WAIT_MS};
use crate::placement::Placement;
use crate::rates::Shared;
use crate::reactor::{self, Backend, Probe, Reactor};
use crate::transport::certificates::CertificateError;

/// How long a broker without clients may take to stop: what is left is routed and synced, however slow the disk is.
const SETTLE_MS: u32 = 300_000;

/// Why the broker does not run (any more). Its text says what to do.
#[derive(Debug)]
pub enum ServeError {
    /// A journal, or the data directory.
    Journal(JournalError),
    /// The kernel refused something at start.
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// A certificate, or its key.
    Certificate(CertificateError),
    /// What credentials are checked against.
    Access(AccessError),
    /// A shard's thread ended by a bug; its message is above in the log.
    Panicked(ShardId),
}

impl fmt::Display for ServeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Journal(error) => write!(formatter, "{error}\n{}", error.cure()),
            ServeError::Certificate(error) => write!(formatter, "{error}"),
            ServeError::Access(error) => write!(formatter, "{error}"),
            ServeError::System { what, error } => write!(formatter, "cannot {what}: {error}"),
            ServeError::Panicked(shard) => write!(
                formatter,
                "shard {} stopped by a bug, described above; what was acknowledged is on disk: start again",
                shard.0
            ),
        }
    }
}

impl std::error::Error for ServeError {}

impl From<JournalError> for ServeError {
    fn from(error: JournalError) -> ServeError {
        ServeError::Journal(error)
    }
}

/// What a shard's thread needs.
struct Seat {
    shards: u16,
    mesh: Mesh,
    storage: Directory,
    hash_key: [u8; 16],
    was_begun: bool,
    backend: Backend,
    processor: Option<usize>,
    config: Config,
    control: Arc<Control>,
    reports: Sender<Report>,
    growth: Sender<(ShardId, Directory, GrowRequest)>,
    answers: Sender<Told>,
}

/// Runs the broker until it is told to stop. Blocks.
pub fn serve(config: &Config) -> Result<(), ServeError> {
    keep_memory_private(config)?;
    let mut listeners = Listeners::prepare(config)?;
    let descriptors = reactor::prepare_process().map_err(system("raise the limit of open files"))?;
    let open = || journal::directory::open_or_create(&config.data, config.shards, random());
    let mut data = once_unlocked(open)?;
    let backend = choose_backend(config.reactor);
    tracing::info!(
        event = "starting",
        version = env!("CARGO_PKG_VERSION"),
        data = %config.data.display(),
        shards = data.shards,
        reactor = %backend.backend,
        reactor_reason = backend.reason,
        descriptors,
    );
    let (reports, received) = mpsc::channel();
    watch_signals(reports.clone()).map_err(system("watch for signals"))?;
    let mut watch = launch(config, &data, backend.backend, reports, received)?;
    if watch.until(State::Serving, None)? == Waited::Reached {
        data.begun()?;
        listeners.start_workers(watch.controls.iter().map(returns).collect())?;
        let placement = config.placement(data.shards, data.hash_key);
        let permissions = listeners.permissions(placement.clone());
        let rates = Arc::new(Shared::new(config.rates(), random_key()));
        watch.tell_all(|| Command::Permit(permissions.clone()));
        watch.tell_all(|| Command::Limit(rates.clone()));
        // Before anybody listens: who has connected to one shard may move to another that has not heard of it.
        if watch.until_taken()? == Waited::Reached {
            for (control, sockets) in watch.controls.iter().zip(listeners.open(data.shards)?) {
                control.post(Command::Listen(sockets));
            }
            memory::watch(watch.controls.clone(), config.memory_bytes_max)
                .map_err(system("start a thread"))?;
            open_socket(config, &mut watch);
            watch.until_signal(|controls| reload(&mut listeners, config, &placement, controls))?;
        }
    }
    let stopped = watch.stop(config.drain_ms);
    listeners.remove_sockets();
    socket::close(&config.data);
    stopped
}

/// Whether a broker with that configuration could listen as it says: its certificates and keys are what they must be.
pub fn check(config: &Config) -> Result<(), ServeError> {
    keep_memory_private(config)?;
    Listeners::prepare(config).map(drop)
}

/// Before anything secret is read.
fn keep_memory_private(config: &Config) -> Result<(), ServeError> {
    if config.core_dumps {
        return Ok(());
    }
    reactor::forbid_core_dumps().map_err(system("forbid core dumps"))
}

/// How what other threads have done gets to that shard.
fn returns(control: &Arc<Control>) -> Returns {
    let (shaken, checked) = (control.clone(), control.clone());
    Returns {
        shaken: Box::new(move |done| shaken.post(Command::Handshaken(done))),
        checked: Arc::new(move |done| checked.post(Command::Checked(done))),
    }
}

/// Reads certificates, and everything that credentials are checked against, again. With something bad among them the broker goes on
/// with what it has.
fn reload(listeners: &mut Listeners, config: &Config, placement: &Placement, controls: &[Arc<Control>]) {
    let read = listeners.read_again(config).map(|acceptors| {
        for (shard, control) in (0..).map(ShardId).zip(controls) {
            control.post(Command::Present(acceptors(shard)));
        }
    });
    match read {
        Ok(()) => {
            let permissions = listeners.permissions(placement.clone());
            controls.iter().for_each(|control| control.post(Command::Permit(permissions.clone())));
            tracing::info!(
                event = "reloaded",
                "certificates, users, keys and rules are as their files are now; connections stay"
            );
        }
        Err(error) => tracing::error!(event = "not_reloaded", %error, "everything stays as it was"),
    }
}

/// Who wants a backup asks here. A file system without sockets is no reason not to serve.
fn open_socket(config: &Config, watch: &mut Watch) {
    let Some(answers) = watch.answers.take() else { return };
    let tell = |control: &Arc<Control>| -> Tell {
        let control = control.clone();
        Box::new(move |session, ask| control.post(Command::Backup(session, ask)))
    };
    let desk = Desk { shards: watch.controls.iter().map(tell).collect(), answers, session: 0 };
    if let Err(error) = socket::open(&config.data, desk) {
        let cure = "backups need it: put the data directory on a file system that has sockets, under a path that is not too long";
        tracing::warn!(event = "no_control_socket", data = %config.data.display(), %error, cure);
    }
}

/// Runs the broker without clients, until everything that it had accepted is where it belongs. Blocks; a signal ends the
/// process.
pub fn settle(config: &Config, data: &mut DataDirectory) -> Result<(), ServeError> {
    reactor::prepare_process().map_err(system("raise the limit of open files"))?;
    let backend = choose_backend(config.reactor);
    let (reports, received) = mpsc::channel();
    let mut watch = launch(config, data, backend.backend, reports, received)?;
    watch.until(State::Serving, None)?;
    data.begun()?;
    watch.stop(SETTLE_MS)
}

pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |error| ServeError::System { what, error }
}

/// Starts a thread for each shard.
fn launch(
    config: &Config,
    data: &DataDirectory,
    backend: Backend,
    reports: Sender<Report>,
    received: Receiver<Report>,
) -> Result<Watch, ServeError> {
    let controls: Vec<Arc<Control>> = (0..data.shards).map(|_| Arc::default()).collect();
    let processors = pin::allowed().unwrap_or_default();
    stay_apart(&processors, data.shards);
    let growth = start_growth(controls.clone()).map_err(system("start a thread"))?;
    let (answers, answered) = mpsc::channel();
    for (index, (mesh, control)) in Mesh::ends(data.shards).into_iter().zip(&controls).enumerate() {
        let seat = Seat {
            shards: data.shards,
            storage: data.shard(mesh.me())?,
            mesh,
            hash_key: data.hash_key,
            was_begun: data.was_begun,
            backend,
            processor: processors.get(index % processors.len().max(1)).copied(),
            config: config.clone(),
            control: control.clone(),
            reports: reports.clone(),
            growth: growth.clone(),
            answers: answers.clone(),
        };
        let name = format!("shard-{index}");
        thread::Builder::new().name(name).spawn(|| sit(seat)).map_err(system("start a thread"))?;
    }
    let states = vec![State::Starting; data.shards.into()];
    Ok(Watch { received, _reports: reports, answers: Some(answered), controls, states })
}

/// Whatever is started from here on, but for shards, runs where no shard does, if the shards leave something over.
fn stay_apart(processors: &[usize], shards: u16) {
    let others = pin::left_over(processors, shards.into());
    if !others.is_empty()
        && let Err(error) = pin::pin(others)
    {
        tracing::warn!(event = "not_apart", %error, "what takes long may run on the processors of shards");
    }
}

/// Opens something that is locked. The kernel releases the locks of a process that was killed one after the other,
/// while it takes it apart, and whoever starts it again may be faster than that.
pub(crate) fn once_unlocked<T>(open: impl FnMut() -> Result<T, JournalError>) -> Result<T, JournalError> {
    once_unlocked_waiting(open, sleep)
}

fn once_unlocked_waiting<T>(
    mut open: impl FnMut() -> Result<T, JournalError>,
    mut wait: impl FnMut(Duration),
) -> Result<T, JournalError> {
    for _ in 0..LOCK_WAIT_MS / LOCK_RETRY_MS {
        match open() {
            Err(error) if error.is_in_use() => wait(Duration::from_millis(LOCK_RETRY_MS)),
            opened => return opened,
        }
    }
    open()
}

/// What was asked for, or what suits this host.
fn choose_backend(choice: ReactorChoice) -> Probe {
    let asked = |backend| Probe { backend, reason: "asked for by the configuration".into() };
    match choice {
        ReactorChoice::Auto => reactor::probe(),
        ReactorChoice::Epoll => asked(Backend::Epoll),
        ReactorChoice::Uring => asked(Backend::Uring),
    }
}

/// A shard's thread: reports how it ended, also if it panics.
fn sit(seat: Seat) {
    struct Ending(ShardId, Sender<Report>);
    impl Drop for Ending {
        fn drop(&mut self) {
            if thread::panicking() {
                // The receiver is gone only if the process is ending already.
                let _ending = self.1.send(Report::Ended(self.0, Err(ServeError::Panicked(self.0))));
            }
        }
    }
    let ending = Ending(seat.mesh.me(), seat.reports.clone());
    let result = run(seat);
    if let Err(error) = &result {
        tracing::error!(event = "shard_failed", shard = ending.0.0, %error);
    }
    let _ending = ending.1.send(Report::Ended(ending.0, result));
}

fn run(seat: Seat) -> Result<(), ServeError> {
    let Seat {
        shards,
        mesh,
        storage,
        hash_key,
        was_begun,
        backend,
        processor,
        config,
        control,
        reports,
        growth,
        answers,
    } = seat;
    let id = mesh.me();
    // Before the thread is pinned: a reactor may start a companion thread, which inherits the affinity.
    let reactor =
        reactor::open(backend, reactor::Settings::default()).map_err(system("set up the reactor"))?;
    let first = control.doorbell.set(reactor.doorbell());
    assert!(first.is_ok(), "a shard has one reactor");
    if let Some(Err(error)) = processor.map(|processor| pin::pin(&[processor])) {
        tracing::warn!(event = "not_pinned", shard = id.0, %error, "the shard's thread may move between processors");
    }
    let options = journal::Options { was_begun, ..journal::Options::new(id, shards, hash_key) };
    let begun = clock();
    let open = || journal::open(storage.clone(), options.clone(), random(), reactor.now());
    let journal = once_unlocked(open)?;
    let placement = config.placement(shards, hash_key);
    let settings = config.broker_settings(placement, hash_key);
    let parts = Parts { reactor, journal, mesh, settings, account: config.account, name_key: random_key() };
    let (mut shard, recovered) = Shard::new(parts).map_err(|fatal| ServeError::Journal(fatal.error))?;
    // Nobody listens to reports only when the process is ending already.
    let report = |report| drop(reports.send(report));
    report(Report::Recovered(id, recovered, clock() - begun));
    let mut commands = control.take();
    let (mut state, mut busy) = (shard.state(), Duration::ZERO);
    loop {
        for command in commands {
            busy = obey(&mut shard, command).unwrap_or(busy);
        }
        let reached = shard.turn().map_err(|fatal| ServeError::Journal(fatal.error))?;
        if reached != state {
            state = reached;
            report(Report::State(id, state));
        }
        if state == State::Stopped {
            return Ok(());
        }
        while let Some((session, answer)) = shard.answer() {
            let _ending = answers.send(Told { shard: id, session, answer, busy });
        }
        if let Some(request) = shard.grow() {
            // As above.
            let _ending = growth.send((id, storage.clone(), request));
        }
        let waiting = control.waiting.load(Ordering::Acquire);
        commands = if waiting { control.take() } else { Vec::new() };
    }
}

/// Returns how long that took, if it was for a backup.
fn obey<R: Reactor, S: Storage>(shard: &mut Shard<R, S>, command: Command) -> Option<Duration> {
    let begun = clock();
    match command {
        Command::Listen(sockets) => shard.listen(sockets),
        Command::Present(acceptors) => shard.present(acceptors),
        Command::Handshaken(done) => done.into_iter().for_each(|done| shard.handshaken(done)),
        Command::Checked(done) => done.into_iter().for_each(|done| shard.checked(done)),
        Command::Permit(permissions) => shard.permit(permissions),
        Command::Limit(rates) => shard.limit(rates),
        Command::MemoryInUse(percent) => shard.memory_in_use(percent),
        Command::Grown(grown) => shard.grown(grown),
        Command::Backup(session, ask) => {
            shard.ask(session, ask);
            return Some(clock() - begun);
        }
        Command::Drain => shard.drain(),
        Command::Stop => shard.stop(),
    }
    None
}

/// The thread that writes segments full of zeros, ahead of need and outside of every turn.
fn start_growth(controls: Vec<Arc<Control>>) -> io::Result<Sender<(ShardId, Directory, GrowRequest)>> {
    let (sender, requests) = mpsc::channel::<(ShardId, Directory, GrowRequest)>();
    thread::Builder::new().name("journal-growth".into()).spawn(move || {
        for (shard, storage, request) in requests {
            controls[shard.index()].post(Command::Grown(request.execute(&storage)));
        }
    })?;
    Ok(sender)
}

fn watch_signals(reports: Sender<Report>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let report = if signal == SIGHUP { Report::Reload } else { Report::Signal };
            if reports.send(report).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "bounds the stop of the process; no shard sees it")]
pub(super) fn clock() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "before a shard's first turn there is no reactor to wait in")]
fn sleep(time: Duration) {
    thread::sleep(time);
}

/// Sixty-four bits that nobody can foresee.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Its keys come from the operating system, and the hash of nothing is a function of them.
    RandomState::new().hash_one(())
}

/// A key of keyed hashes.
pub(crate) fn random_key() -> [u8; 16] {
    (u128::from(random()) << 64 | u128::from(random())).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::sim::{Settings, World};

    #[test]
    fn a_lock_that_a_killed_process_still_holds_is_waited_for() {
        let world = World::new(1, Settings::default());
        let mut killed = Some(world.directory("data"));
        killed.as_ref().unwrap().lock().unwrap();
        let next = world.directory("data");
        let open = || next.lock().map_err(|error| JournalError::kernel("lock", "data", &error));
        let mut waits = 0;
        let opened = once_unlocked_waiting(open, |_| {
            waits += 1;
            if waits == 3 {
                killed = None;
            }
        });
        assert_eq!((opened, waits), (Ok(()), 3));
    }

    #[test]
    fn a_lock_that_stays_is_an_error_after_a_while() {
        let world = World::new(1, Settings::default());
        let running = world.directory("data");
        running.lock().unwrap();
        let next = world.directory("data");
        let open = || next.lock().map_err(|error| JournalError::kernel("lock", "data", &error));
        let mut waited = Duration::ZERO;
        let opened = once_unlocked_waiting(open, |time| {
            assert_eq!(time, Duration::from_millis(LOCK_RETRY_MS));
            waited += time;
        });
        assert!(opened.is_err_and(|error| error.is_in_use()));
        assert_eq!(waited, Duration::from_millis(LOCK_WAIT_MS));
    }
}
