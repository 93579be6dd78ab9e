//! The broker as a process: its shards, their journals, the order of starting and stopping, and its deaths.
//!
//! What `shard::serve` does with threads is done here in one: open the journals, recover, let the shards exchange
//! interest, open the listeners when all are serving; drain, then stop when all have drained. Growth of a journal is
//! made after a while, as the background thread does.

use std::net::SocketAddr;

use ironpost::config::AccountSource;
use ironpost::ids::ShardId;
use ironpost::journal::{self, GrowRequest, Options};
use ironpost::reactor::faults::{self, Faults};
use ironpost::reactor::sim::{CrashKind, DiskFault, SimReactor, SimStorage, World};
use ironpost::reactor::{self, Errno, Random, Reactor};
use ironpost::shard::mesh::Mesh;
use ironpost::shard::wrapped::Listening;
use ironpost::shard::{Parts, Shard, State};
use ironpost::time::Nanos;

use crate::scenario::Scenario;

type SimShard = Shard<Faults<SimReactor>, SimStorage>;

/// Where the process is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    Down,
    Starting,
    Serving,
    Draining,
    Stopping,
}

/// See the module documentation.
pub struct Cluster {
    world: World,
    scenario: Scenario,
    random: Random,
    /// A shard that has stopped is gone, as its thread would be.
    shards: Vec<Option<SimShard>>,
    storages: Vec<SimStorage>,
    /// Segments to be made: when, for whom, what.
    growth: Vec<(Nanos, usize, GrowRequest)>,
    /// Further turns: a shard's loop goes on until it waits, and the fault injector makes things up that the world does
    /// not know of.
    further: Vec<bool>,
    pub life: Life,
    /// Changes whenever connections may be closed by the broker for reasons of its own.
    pub epoch: u64,
    /// A disk fault was injected and has not been met.
    pub fault_armed: bool,
    /// One was armed: it may have hit the growth of a journal, after which there is no room for a while.
    pub fault_met: bool,
    /// Whether the reactors may still inject faults.
    faulty: bool,
    pub address: SocketAddr,
    /// Crashes survived, or rather not.
    pub crashes: u32,
    /// Journals that were recovered by a checkpoint.
    pub by_checkpoint: u32,
    /// Records copied when their segment was given up.
    pub copied: u64,
    pub recovered_at: Nanos,
}

impl Cluster {
    pub fn new(world: &World, scenario: &Scenario) -> Cluster {
        Cluster {
            world: world.clone(),
            scenario: scenario.clone(),
            random: Random::new(scenario.seed ^ 0xC105),
            shards: Vec::new(),
            storages: Vec::new(),
            growth: Vec::new(),
            further: Vec::new(),
            life: Life::Down,
            epoch: 0,
            fault_armed: false,
            fault_met: false,
            faulty: scenario.faults,
            address: "127.0.0.1:1883".parse().unwrap(),
            crashes: 0,
            by_checkpoint: 0,
            copied: 0,
            recovered_at: Nanos(0),
        }
    }

    /// Starts the process. False: an injected fault ended it at once.
    pub fn start(&mut self) -> bool {
        assert_eq!(self.life, Life::Down, "one process at a time");
        self.life = Life::Starting;
        self.epoch += 1;
        let rates = if self.faulty { fault_rates() } else { faults::Settings::default() };
        for mesh in Mesh::ends(self.scenario.shards) {
            let id = mesh.me();
            let storage = self.world.directory(&format!("shard-{}", id.0));
            let reactor = self.world.reactor(reactor::Settings::default());
            let reactor = Faults::new(reactor, self.random.next_u64(), rates.clone());
            let (options, seed) = (self.options(id), self.random.next_u64());
            let opened = journal::open(storage.clone(), options, seed, reactor.now());
            let journal = match opened {
                Ok(journal) => journal,
                Err(error) => return self.failed(&format!("the journal does not open: {error}")),
            };
            let mut name_key = [7; 16];
            name_key[..8].copy_from_slice(&self.random.next_u64().to_le_bytes());
            let (settings, account) = (self.scenario.broker(), AccountSource::ClientId);
            let parts = Parts { reactor, journal, mesh, settings, account, name_key };
            match Shard::new(parts) {
                Ok((shard, recovered)) => {
                    self.by_checkpoint += u32::from(recovered.replayed.checkpoint.is_some());
                    self.shards.push(Some(shard));
                }
                Err(fatal) => return self.failed(&format!("recovery fails: {fatal}")),
            }
            self.storages.push(storage);
        }
        self.further = vec![true; self.shards.len()];
        self.recovered_at = self.world.now().mono;
        true
    }

    /// Segments so small, and checkpoints so frequent, that a run of seconds is what months are to a real journal.
    fn options(&mut self, shard: ShardId) -> Options {
        let mut one_of = |choices: [u64; 3]| choices[self.random.below(3) as usize];
        Options {
            segment_bytes: one_of([32 << 10, 64 << 10, 256 << 10]),
            segment_bytes_first: 32 << 10,
            segments_max: 1_024,
            checkpoint_tail_bytes: one_of([20 << 10, 100 << 10, 1 << 30]),
            reclaim_quiet_ms: one_of([0, 0, 2_000]),
            ..Options::new(shard, self.scenario.shards, self.scenario.hash_key)
        }
    }

    /// The process ends with an error: only if the disk was told to fail.
    fn failed(&mut self, what: &str) -> bool {
        assert!(std::mem::take(&mut self.fault_armed), "nothing was wrong with the disk, but {what}");
        self.die(CrashKind::Kill);
        false
    }

    /// The process, or the host, dies.
    pub fn die(&mut self, kind: CrashKind) {
        self.world.crash(kind);
        let statistics = self.shards.iter().flatten().map(|shard| shard.journal().statistics());
        self.copied += statistics.map(|statistics| statistics.records_copied).sum::<u64>();
        self.shards.clear();
        self.storages.clear();
        self.growth.clear();
        self.life = Life::Down;
        self.epoch += 1;
    }

    pub fn arm(&mut self, fault: fn(Errno) -> DiskFault) {
        if !self.fault_armed {
            self.world.fail_next(fault(Errno(5)));
            self.fault_armed = true;
            self.fault_met = true;
        }
    }

    /// No more faults.
    pub fn heal(&mut self) {
        self.faulty = false;
        for shard in self.shards.iter_mut().flatten() {
            shard.reactor_mut().set(faults::Settings::default());
        }
    }

    /// Begins a graceful stop.
    pub fn drain(&mut self) {
        assert_eq!(self.life, Life::Serving);
        self.life = Life::Draining;
        self.epoch += 1;
        self.each(SimShard::drain);
    }

    fn each(&mut self, act: impl Fn(&mut SimShard)) {
        for (shard, further) in self.shards.iter_mut().zip(&mut self.further) {
            shard.iter_mut().for_each(&act);
            *further = true;
        }
    }

    /// Turns every shard that has something to do, and makes the next step of starting or stopping.
    pub fn run(&mut self) {
        let mut runnable: Vec<usize> = Vec::new();
        for index in self.world.runnable() {
            let is_it = |shard: &mut Option<SimShard>| {
                shard.as_mut().is_some_and(|shard| shard.reactor_mut().inner().index() == index)
            };
            runnable.extend(self.shards.iter_mut().position(is_it));
        }
        for index in 0..self.shards.len() {
            let reported = runnable.contains(&index);
            if std::mem::take(&mut self.further[index]) && !reported {
                runnable.push(index);
            } else if reported {
                // That one sets the deadline of its wait.
                self.further[index] = true;
            }
        }
        for index in runnable {
            if !self.turn(index) {
                return;
            }
        }
        self.grow();
        self.go_on();
    }

    /// Whether a shard has a turn to take before the clock may move.
    pub fn goes_on(&self) -> bool {
        self.shards.iter().zip(&self.further).any(|(shard, further)| shard.is_some() && *further)
    }

    /// One turn of one shard. False: it has ended the process.
    fn turn(&mut self, index: usize) -> bool {
        let Some(shard) = &mut self.shards[index] else { return true };
        match shard.turn() {
            Err(fatal) => return self.failed(&format!("a shard stops: {fatal}")),
            Ok(State::Stopped) => self.shards[index] = None,
            Ok(_) => {
                self.further[index] |= !shard.rests();
                if let Some(request) = shard.grow() {
                    let due = self.world.now().mono.plus_ms(self.random.below(20));
                    self.growth.push((due, index, request));
                }
            }
        }
        true
    }

    fn grow(&mut self) {
        let now = self.world.now().mono;
        while let Some(position) = self.growth.iter().position(|(due, ..)| *due <= now) {
            let (_, index, request) = self.growth.remove(position);
            let grown = request.execute(&self.storages[index]);
            if let Some(shard) = &mut self.shards[index] {
                shard.grown(grown);
                self.further[index] = true;
            }
        }
    }

    fn go_on(&mut self) {
        let reached = |state| self.shards.iter().flatten().all(|shard| shard.state() >= state);
        match self.life {
            Life::Starting if reached(State::Serving) => {
                let listener = self.world.listen(self.address).unwrap();
                for (index, shard) in self.shards.iter_mut().flatten().enumerate() {
                    let socket = if index == 0 { listener } else { self.world.duplicate(listener).unwrap() };
                    shard.listen(vec![Listening::plain(socket)]);
                    self.further[index] = true;
                }
                self.life = Life::Serving;
            }
            Life::Draining if reached(State::Drained) => {
                self.each(SimShard::stop);
                self.life = Life::Stopping;
            }
            // What a process that has ended leaves open, the kernel closes.
            Life::Stopping if reached(State::Stopped) => self.die(CrashKind::Kill),
            _ => {}
        }
    }

    /// For messages: what the shards are doing.
    pub fn describe(&self) -> String {
        let states: Vec<String> = self
            .shards
            .iter()
            .flatten()
            .map(|shard| format!("{:?} with {} connections", shard.state(), shard.connections()))
            .collect();
        format!("{:?}: {}", self.life, states.join(", "))
    }
}

/// Everything that costs time; and broken connections, rarely.
fn fault_rates() -> faults::Settings {
    faults::Settings {
        short_send: 100,
        delay: 100,
        spurious_ready: 50,
        would_block: 50,
        ..faults::Settings::harmless()
    }
}
