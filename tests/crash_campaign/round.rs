//! A round: one data directory through many crashes under load, then the audit.
//!
//! Each life of the broker begins on what the crash of the one before has left, with another reactor and another
//! `hold`; the clients come back and go on. At a moment drawn beforehand the next crash comes. After the last one
//! nothing new is published, everyone comes and acknowledges at once, and what is missing then is lost.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use tempfile::TempDir;

use crate::books::{Books, Totals};
use crate::broker::{Broker, Settings, clock, complaints};
use crate::cast::{self, Cast};
use crate::disk::Disk;
use crate::random::Random;

/// How long nothing may arrive before the audit.
const QUIET_TIME: Duration = Duration::from_millis(300);

/// How long the audit waits for the next message that is missing.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a broker may go on without a disk, or take to stop in order.
const END_TIME: Duration = Duration::from_secs(12);

/// Messages that one publisher may send in one life.
const MESSAGES_PER_LIFE: u64 = 600;

/// Which crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// kill -9 of the process.
    Kill,
    /// Shutdown of the file system, then kill -9 of what is left.
    Shutdown,
}

/// What a round is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub crash: Crash,
    pub crashes: u32,
    pub program: PathBuf,
}

/// What came of it.
pub struct Outcome {
    pub totals: Totals,
    pub failures: Vec<String>,
}

/// Runs a round. The error says why it cannot be run here.
pub fn run(plan: &Plan) -> Result<Outcome, String> {
    let ground = match plan.crash {
        Crash::Kill => Ground::Directory(tempfile::tempdir().map_err(|error| error.to_string())?),
        Crash::Shutdown => Ground::Disk(Disk::new()?),
    };
    let poll = Poll::new().map_err(|error| error.to_string())?;
    let mut random = Random::new(plan.seed);
    let mut books = Books::new(plan.seed);
    let cast = cast::draw(&mut random, &mut books);
    let shards = random.one_of(&[1, 2, 4]);
    let aside = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut round = Round { plan, ground, aside, poll, random, books, cast, shards };
    // A broker that does not come back ends the round: there is nothing left to see.
    if let Err(failure) = round.play() {
        round.books.fail(failure);
    }
    let mut failures = round.books.failures;
    failures.iter_mut().for_each(|failure| *failure = format!("seed {}: {failure}", plan.seed));
    Ok(Outcome { totals: round.books.totals, failures })
}

/// Where the data are.
enum Ground {
    Directory(TempDir),
    Disk(Disk),
}

impl Ground {
    fn data(&self) -> PathBuf {
        match self {
            Ground::Directory(directory) => directory.path().join("data"),
            Ground::Disk(disk) => disk.mount_point().join("data"),
        }
    }
}

struct Round<'a> {
    plan: &'a Plan,
    ground: Ground,
    /// What must not be on the disk that goes away.
    aside: TempDir,
    poll: Poll,
    random: Random,
    books: Books,
    cast: Cast,
    shards: u64,
}

/// What the clients do for a while.
#[derive(Clone, Copy)]
struct Conduct {
    /// Publish, be late, stay away, lose connections.
    lively: bool,
    until: Instant,
}

impl Round<'_> {
    fn play(&mut self) -> Result<(), String> {
        for index in 0..self.plan.crashes {
            let broker = self.start()?;
            self.attend(broker.address);
            let load_ms = match self.random.between(0, 9) {
                0 => self.random.between(0, 3),
                1 => self.random.between(200, 600),
                _ => self.random.between(5, 200),
            };
            self.work(broker.address, load_ms);
            match self.plan.crash {
                Crash::Kill => self.kill(broker),
                Crash::Shutdown => self.shut_down(broker)?,
            }
            if index % 12 == 11 {
                let mut broker = self.start()?;
                self.attend(broker.address);
                self.work(broker.address, 100);
                self.stop(&mut broker, true)?;
            }
        }
        self.books.totals.acknowledged_before_crash = self.books.totals.acknowledged;
        self.drain()
    }

    fn start(&mut self) -> Result<Broker, String> {
        let settings = Settings {
            program: self.plan.program.clone(),
            shards: self.shards,
            reactor: self.random.one_of(&["epoll", "uring"]),
            hold_ms: self.random.one_of(&[0, 100, 2_000]),
        };
        let life = self.books.totals.starts + 1;
        let Settings { shards, reactor, hold_ms, .. } = &settings;
        self.books.life = format!("life {life} ({reactor}, {shards} shards, hold {hold_ms} ms)");
        let configuration = self.aside.path().join("ironpost.toml");
        let broker = Broker::start(&settings, &self.ground.data(), &configuration)
            .map_err(|error| format!("{}: {error}", settings.program.display()))?;
        let totals = &mut self.books.totals;
        totals.starts += 1;
        let start_ms = u64::try_from(broker.start_time.as_millis()).expect("a short time");
        totals.start_ms_sum += start_ms;
        totals.start_ms_max = totals.start_ms_max.max(start_ms);
        Ok(broker)
    }

    /// Draws who comes to this life, and connects them.
    fn attend(&mut self, address: SocketAddr) {
        for (index, publisher) in self.cast.publishers.iter_mut().enumerate() {
            publisher.allowance =
                u32::try_from(self.random.between(MESSAGES_PER_LIFE / 4, MESSAGES_PER_LIFE)).expect("few");
            publisher.disk_gone = false;
            publisher.connect(address, self.poll.registry(), Token(index));
        }
        for (index, subscriber) in self.cast.subscribers.iter_mut().enumerate() {
            // The first time everyone comes, so that everyone is owed something.
            let comes = !subscriber.is_subscribed() || self.random.chance(subscriber.manner.present_permille);
            if comes {
                subscriber.connect(address, self.poll.registry(), Token(100 + index));
            }
        }
    }

    /// Load for that long.
    fn work(&mut self, address: SocketAddr, load_ms: u64) {
        let conduct = Conduct { lively: true, until: clock() + Duration::from_millis(load_ms) };
        while clock() < conduct.until {
            self.turn(address, conduct);
        }
    }

    /// Every client does what it can do now.
    fn turn(&mut self, address: SocketAddr, conduct: Conduct) {
        let now = clock();
        for (index, publisher) in self.cast.publishers.iter_mut().enumerate() {
            if conduct.lively && self.random.chance(2) {
                publisher.lose(self.random.chance(500), &mut self.books);
            }
            if !publisher.is_online() && (!conduct.lively || self.random.chance(100)) {
                publisher.connect(address, self.poll.registry(), Token(index));
            }
            publisher.work(&mut self.random, &mut self.books);
        }
        for (index, subscriber) in self.cast.subscribers.iter_mut().enumerate() {
            if conduct.lively && self.random.chance(2) {
                subscriber.lose(self.random.chance(500), now, &mut self.books);
            }
            let away = conduct.lively && !self.random.chance(subscriber.manner.present_permille / 10);
            if !subscriber.is_online() && !away {
                subscriber.connect(address, self.poll.registry(), Token(100 + index));
            }
            let reads = !conduct.lively || self.random.chance(subscriber.manner.reading_permille);
            subscriber.work(reads, now, &mut self.books);
        }
        self.wait(Duration::from_millis(1));
    }

    /// Until some socket has something to say, or that long.
    fn wait(&mut self, bound: Duration) {
        let mut events = Events::with_capacity(64);
        // A signal may interrupt it, which is no reason to stop.
        let _ = self.poll.poll(&mut events, Some(bound));
    }

    /// All connections are over; of what had arrived before, some is still heard and some is lost with them.
    fn part(&mut self) {
        let now = clock();
        for publisher in &mut self.cast.publishers {
            publisher.lose(self.random.chance(500), &mut self.books);
        }
        for subscriber in &mut self.cast.subscribers {
            subscriber.lose(self.random.chance(500), now, &mut self.books);
        }
    }

    fn kill(&mut self, mut broker: Broker) {
        if let Some(status) = broker.ended() {
            self.books.fail(format!("the broker ended by itself before it was killed: {status}"));
        }
        let log = broker.kill();
        self.part();
        self.books.totals.kills += 1;
        self.judge(&log);
    }

    fn shut_down(&mut self, mut broker: Broker) -> Result<(), String> {
        if let Some(status) = broker.ended() {
            self.books.fail(format!("the broker ended by itself while it had a disk: {status}"));
        }
        let Ground::Disk(disk) = &self.ground else { unreachable!("a shutdown needs a disk of its own") };
        disk.shut_down().map_err(|error| format!("the file system cannot be shut down: {error}"))?;
        self.books.totals.shutdowns += 1;
        self.cast.publishers.iter_mut().for_each(|publisher| publisher.disk_gone = true);
        let address = broker.address;
        if self.random.chance(500) {
            self.watch_fail(&mut broker, address);
        }
        broker.kill();
        self.part();
        let Ground::Disk(disk) = &mut self.ground else { unreachable!("as above") };
        disk.mount_again().map_err(|error| format!("the file system does not come back: {error}"))
    }

    /// The load goes on without a disk: the broker has to stop by itself, and to say why.
    fn watch_fail(&mut self, broker: &mut Broker, address: SocketAddr) {
        let begun = clock();
        let conduct = Conduct { lively: true, until: begun + END_TIME };
        self.cast.publishers.iter_mut().for_each(|publisher| publisher.allowance += 50);
        while clock() < conduct.until {
            if let Some(status) = broker.ended() {
                let log = broker.rest_of_log();
                let told =
                    log.iter().any(|line| line.contains("\"level\":\"ERROR\"") || line.contains("cannot "));
                if status.success() || !told {
                    self.books
                        .fail(format!("without a disk the broker ended with {status}: {}", log.join("\n")));
                }
                self.books.totals.failed_stops += 1;
                return;
            }
            self.turn(address, conduct);
        }
        self.books.fail(format!("the broker still runs {END_TIME:?} after its disk was gone"));
    }

    /// SIGTERM; the load goes on if `lively`.
    fn stop(&mut self, broker: &mut Broker, lively: bool) -> Result<(), String> {
        let address = broker.address;
        broker.terminate();
        let conduct = Conduct { lively, until: clock() + END_TIME };
        while clock() < conduct.until {
            if let Some(status) = broker.ended() {
                self.part();
                self.books.totals.orderly_stops += 1;
                let log = broker.rest_of_log();
                if status.code() != Some(0) {
                    self.books.fail(format!("an orderly stop ended with {status}: {}", log.join("\n")));
                }
                self.judge(&log);
                return Ok(());
            }
            self.turn(address, conduct);
        }
        Err(format!("the broker has not stopped {END_TIME:?} after SIGTERM"))
    }

    fn judge(&mut self, log: &[String]) {
        for line in complaints(log) {
            self.books.fail(format!("the log says {line}"));
        }
    }

    /// Nothing new; everyone comes, reads and acknowledges at once, until nothing is missing and nothing moves.
    fn drain(&mut self) -> Result<(), String> {
        let mut broker = self.start()?;
        for publisher in &mut self.cast.publishers {
            publisher.allowance = 0;
            publisher.disk_gone = false;
        }
        for subscriber in &mut self.cast.subscribers {
            subscriber.manner = cast::PROMPT;
        }
        let conduct = Conduct { lively: false, until: clock() };
        let (mut moved, mut seen) = (clock(), (0, 0, 0));
        loop {
            self.turn(broker.address, conduct);
            let missing = if moved.elapsed() > QUIET_TIME / 2 { self.books.missing() } else { u64::MAX };
            let totals = &self.books.totals;
            let state = (totals.deliveries, totals.acknowledged, missing.min(1));
            if (state.0, state.1) != (seen.0, seen.1) {
                (moved, seen) = (clock(), state);
            }
            let idle = self.cast.publishers.iter().all(|publisher| publisher.is_idle())
                && self.cast.subscribers.iter().all(|subscriber| subscriber.is_idle());
            let bound = if missing == 0 && idle { QUIET_TIME } else { PATIENCE };
            if moved.elapsed() > bound {
                if !idle {
                    self.books.fail("some exchange of a client never ended".to_owned());
                }
                break;
            }
            if let Some(status) = broker.ended() {
                let log = broker.rest_of_log();
                return Err(format!("the broker ended during the audit with {status}: {}", log.join("\n")));
            }
        }
        self.books.audit();
        self.stop(&mut broker, false)?;
        self.come_back_to_nothing()
    }

    /// After an orderly stop every acknowledgement is on disk: nothing comes a second time.
    fn come_back_to_nothing(&mut self) -> Result<(), String> {
        if let Ground::Disk(disk) = &mut self.ground {
            disk.check()?;
        }
        let mut broker = self.start()?;
        let before = self.books.totals.deliveries;
        let conduct = Conduct { lively: false, until: clock() + QUIET_TIME };
        while clock() < conduct.until {
            self.turn(broker.address, conduct);
        }
        let again = self.books.totals.deliveries - before;
        if again > 0 {
            self.books.fail(format!("{again} message(s) came again after an orderly stop"));
        }
        self.stop(&mut broker, false)
    }
}
