//! One run of the simulation: a broker, its clients, and what the seed lets happen to them.
//!
//! First safety: clients act at random while connections break, disks fail and the broker dies and comes back; the
//! oracle and the clients watch. Then liveness: no more faults, everybody connects, and everything that is owed has to
//! arrive within bounded (virtual) time, after which the broker has to stop gracefully. Everything follows from the
//! seed. A violation is a panic.

use ironpost::reactor::Random;
use ironpost::reactor::sim::{CrashKind, DiskFault, World};
use ironpost::time::{Nanos, UnixMs};
use ironpost::wire::{QoS, ReasonCode};

use crate::client::{self, Client, Scene};
use crate::cluster::{Cluster, Life};
use crate::oracle::{Kind, Message, Oracle};
use crate::scenario::{FILTERS, RETAINED_TOPICS, SHARED, Scenario, TOPICS, Upset, WILL_TOPICS};
use crate::sessions::Asked;

/// Steps of the world in one run, at most: more means that it goes round in circles.
const STEPS_MAX: u64 = 3_000_000;
/// Publishes at QoS 1 and 2 that a client begins before the first is acknowledged.
const OUTGOING_MAX: usize = 20;
/// Virtual time in which everything owed has to arrive once nothing fails any more.
const LIVENESS_MS: u64 = 600_000;
/// Virtual time without anything seen after which nothing more is expected: longer than any `hold` and any sync.
const QUIET_MS: u64 = 1_500;

/// What a run amounted to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    pub trace: u64,
    pub operations: u32,
    pub deliveries: u32,
    pub acknowledged: u32,
    pub crashes: u32,
    pub by_checkpoint: u32,
    pub copied: u64,
    pub steps: u64,
}

/// See the module documentation.
pub struct Run {
    scenario: Scenario,
    world: World,
    cluster: Cluster,
    clients: Vec<Client>,
    pub oracle: Oracle,
    random: Random,
    upsets: Vec<(u32, Upset)>,
    /// The next upset, after so many steps.
    upset_in: Option<(u32, Upset)>,
    restart_at: Nanos,
    steps: u64,
}

/// What a client may know of the world, from the parts of the run.
macro_rules! scene {
    ($run:expr) => {
        Scene {
            oracle: &mut $run.oracle,
            now: $run.world.now(),
            epoch: $run.cluster.epoch,
            serving: $run.cluster.life == Life::Serving,
            may_refuse: $run.scenario.small_queues || $run.cluster.fault_met,
            disk_failed: $run.cluster.fault_met,
        }
    };
}

impl Run {
    pub fn new(seed: u64, with_history: bool) -> Run {
        let scenario = Scenario::draw(seed);
        let world = World::new(seed, scenario.world.clone());
        let cluster = Cluster::new(&world, &scenario);
        let clients =
            scenario.clients.iter().enumerate().map(|(index, habits)| Client::new(index, habits.clone()));
        Run {
            clients: clients.collect(),
            oracle: Oracle::new(
                scenario.clients.iter().map(|habits| habits.version.is_v5()).collect(),
                scenario.small_queues,
                with_history,
            ),
            random: Random::new(seed ^ 0xD01E),
            upsets: scenario.upsets.clone(),
            upset_in: None,
            restart_at: Nanos(0),
            steps: 0,
            scenario,
            world,
            cluster,
        }
    }

    /// Both phases.
    pub fn play(&mut self) -> Summary {
        while self.oracle.operations < self.scenario.operations
            || !self.upsets.is_empty()
            || self.upset_in.is_some()
        {
            self.upset();
            if self.random.per_mille(self.scenario.pace) {
                self.act();
            }
            self.step();
        }
        self.settle();
        self.stop();
        assert!(self.cluster.crashes > 0, "a run without a crash tests little");
        Summary {
            trace: self.world.trace_hash(),
            operations: self.oracle.operations,
            deliveries: self.oracle.deliveries,
            acknowledged: self.oracle.acknowledged,
            crashes: self.cluster.crashes,
            by_checkpoint: self.cluster.by_checkpoint,
            copied: self.cluster.copied,
            steps: self.steps,
        }
    }

    /// Lets everyone do what is due, and moves the clock.
    fn step(&mut self) {
        self.steps += 1;
        assert!(self.steps < STEPS_MAX, "no end in sight: {}", self.cluster.describe());
        self.oracle.time_is(self.world.now().wall);
        let before = self.cluster.life;
        match before {
            Life::Down if self.world.now().mono >= self.restart_at => {
                let started = self.cluster.start();
                self.oracle.note(self.world.now().mono, || format!("the broker starts: {started}"));
            }
            Life::Down => {}
            _ => self.cluster.run(),
        }
        if self.cluster.life == Life::Serving && before == Life::Starting {
            let now = self.world.now().wall;
            self.oracle.sessions.iter_mut().for_each(|session| session.broker_recovered(now));
        }
        if self.cluster.life == Life::Down && before != Life::Down {
            self.oracle.note(self.world.now().mono, || "the broker is down".to_owned());
            self.restart_at = self.world.now().mono.plus_ms(self.random.below(100));
        }
        for index in 0..self.clients.len() {
            let scene = &mut scene!(self);
            self.clients[index].flush();
            self.clients[index].receive(self.scenario.send_window, scene);
            self.clients[index].flush();
        }
        if self.cluster.goes_on() {
            return;
        }
        if !self.world.advance_to_next_event() && self.cluster.life == Life::Down {
            // Nothing else will move the clock.
            self.restart_at = Nanos(0);
        }
    }

    /// What happens to the broker, when its time has come.
    fn upset(&mut self) {
        if self.upset_in.is_none()
            && let Some((at, upset)) = self.upsets.first().copied()
            && at <= self.oracle.operations
        {
            self.upsets.remove(0);
            self.upset_in = Some((self.random.below(300) as u32, upset));
        }
        let Some((steps, upset)) = self.upset_in else { return };
        if steps > 0 {
            self.upset_in = Some((steps - 1, upset));
            return;
        }
        if self.cluster.life == Life::Down || (upset == Upset::Drain && self.cluster.life != Life::Serving) {
            return;
        }
        self.upset_in = None;
        self.oracle.note(self.world.now().mono, || format!("{upset:?}"));
        match upset {
            Upset::Kill => self.crash(CrashKind::Kill),
            Upset::PowerCut => self.crash(CrashKind::PowerCut),
            Upset::WriteError => self.cluster.arm(DiskFault::Write),
            Upset::SyncError => self.cluster.arm(DiskFault::Sync),
            Upset::Drain => self.cluster.drain(),
            Upset::Lull => {
                let until = self.world.now().mono.plus_ms(self.random.between(500, 8_000));
                while self.world.now().mono < until {
                    self.step();
                }
            }
        }
    }

    fn crash(&mut self, kind: CrashKind) {
        self.cluster.die(kind);
        self.cluster.crashes += 1;
        let downtime_ms = [0, 1, 20, 2_000][self.random.below(4) as usize];
        self.restart_at = self.world.now().mono.plus_ms(downtime_ms);
    }

    /// Some client does something.
    fn act(&mut self) {
        let index = self.random.below(self.clients.len() as u64) as usize;
        if self.clients[index].link.is_none() {
            let eager = if self.cluster.life == Life::Serving { 500 } else { 20 };
            if self.random.per_mille(eager) {
                self.connect(index);
            }
            return;
        }
        if !self.clients[index].is_up() {
            return;
        }
        match self.random.below(1_000) {
            0..640 => self.publish(index),
            640..730 => self.subscribe(index),
            730..755 => self.unsubscribe(index),
            755..780 => self.disconnect(index),
            780..800 => self.clients[index].reset(&mut scene!(self)),
            800..815 => {
                self.clients[index].abandon(&mut scene!(self));
                self.connect(index);
            }
            815..900 => self.clients[index].stop_withholding(&mut scene!(self)),
            _ => {
                let slow = self.random.per_mille(self.scenario.clients[index].slow);
                if let Some(link) = self.clients[index].link.as_mut().filter(|_| slow) {
                    link.withholding = true;
                }
            }
        }
    }

    fn connect(&mut self, index: usize) {
        let random = &mut self.random;
        let client = &self.clients[index];
        let durable = random.per_mille(client.habits.durable);
        let clean = client.must_start_clean || random.per_mille(80);
        let expiry_s = [u32::MAX, u32::MAX, 30, 3][random.below(4) as usize];
        let asked = match client.is_v5() {
            true => Asked { clean, expiry_s: if durable { expiry_s } else { 0 } },
            false if durable && !client.must_start_clean => Asked { clean: false, expiry_s: u32::MAX },
            false => Asked { clean: true, expiry_s: 0 },
        };
        let will = random.per_mille(150).then(|| {
            let topic = WILL_TOPICS[random.below(WILL_TOPICS.len() as u64) as usize];
            (client::will(index, topic, quality(random, 300)), random.below(4) as u32)
        });
        self.clients[index].connect(&self.world, self.cluster.address, asked, will, &mut scene!(self));
    }

    fn publish(&mut self, index: usize) {
        for _ in 0..self.random.between(1, 4) {
            let random = &mut self.random;
            let retain = random.per_mille(40);
            let mut qos = quality(random, self.scenario.exactly_once);
            let topics = if retain { RETAINED_TOPICS } else { TOPICS };
            if retain {
                qos = QoS::AtLeastOnce;
            }
            if self.clients[index].outgoing.len() >= OUTGOING_MAX {
                qos = QoS::AtMostOnce;
            }
            let expiry_s = random.per_mille(60).then(|| random.between(1, 5) as u32);
            let alias = random.per_mille(200);
            let now = self.world.now().wall;
            let v5 = self.clients[index].is_v5();
            let message = Message {
                publisher: index,
                topic: topics[random.below(topics.len() as u64) as usize],
                qos,
                retain,
                kind: Kind::Ordinary,
                first_sent: 0,
                last_sent: 0,
                expires: expiry_s
                    .filter(|_| v5)
                    .map_or(UnixMs::NEVER, |expiry_s| now.plus_s(expiry_s.into())),
                answered: None,
            };
            self.clients[index].publish(message, expiry_s, alias, &mut scene!(self));
        }
    }

    fn subscribe(&mut self, index: usize) {
        let client = &self.clients[index];
        let idle = client.link.as_ref().is_some_and(|link| link.request.is_none());
        if !idle || !client.habits.subscribes {
            return;
        }
        let random = &mut self.random;
        let mut filters: Vec<(&'static str, QoS, bool)> = Vec::new();
        for _ in 0..random.between(1, 3) {
            let shared = self.scenario.shared_subscriptions && random.per_mille(400);
            let all = if shared { SHARED } else { FILTERS };
            let retained = !shared && random.per_mille(100);
            let all = if retained { RETAINED_TOPICS } else { all };
            let filter = all[random.below(all.len() as u64) as usize];
            if filters.iter().any(|(other, ..)| *other == filter) {
                continue;
            }
            let (mut qos, mut no_local) =
                (quality(random, 450), client.is_v5() && !shared && random.per_mille(100));
            if let Some(known) = self.oracle.sessions[index].in_force(filter) {
                // Asked for again as it is, so that nobody has to guess which of two answers is in force.
                (qos, no_local) = (known.qos, known.no_local);
            }
            filters.push((filter, qos, no_local));
        }
        self.clients[index].subscribe(filters, &mut scene!(self));
    }

    fn unsubscribe(&mut self, index: usize) {
        let idle = self.clients[index].link.as_ref().is_some_and(|link| link.request.is_none());
        let subscriptions = &self.oracle.sessions[index].subscriptions;
        let mine: Vec<&'static str> =
            subscriptions.iter().filter(|one| one.sure_since.is_some()).map(|one| one.filter).collect();
        if idle && !mine.is_empty() {
            let filter = mine[self.random.below(mine.len() as u64) as usize];
            self.clients[index].unsubscribe(filter, &mut scene!(self));
        }
    }

    fn disconnect(&mut self, index: usize) {
        let v5 = self.clients[index].is_v5();
        let with_will = v5 && self.random.per_mille(200);
        let reason = if with_will { ReasonCode::DisconnectWithWill } else { ReasonCode::Success };
        let changes = v5 && self.oracle.sessions[index].expiry_s > 0 && self.random.per_mille(150);
        let expiry_s = changes.then(|| [0, 5, u32::MAX][self.random.below(3) as usize]);
        self.clients[index].disconnect(reason, expiry_s, &mut scene!(self));
    }

    /// Liveness: everything owed arrives.
    fn settle(&mut self) {
        self.cluster.heal();
        self.oracle.note(self.world.now().mono, || "no more faults".to_owned());
        if !self.scenario.small_queues && !self.cluster.fault_met {
            self.until_answered();
        }
        self.until_quiet();
        if self.scenario.small_queues || self.cluster.fault_met {
            // Gaps are told at CONNACK.
            for index in 0..self.clients.len() {
                self.clients[index].reset(&mut scene!(self));
            }
            self.until_quiet();
        }
        let debts = self.oracle.debts(self.world.now().wall);
        assert!(debts.is_empty(), "not delivered: {debts:#?}");
    }

    /// Until every sender is answered, though recipients keep their acknowledgements to themselves, or stay away.
    fn until_answered(&mut self) {
        let deadline = self.world.now().mono.plus_ms(LIVENESS_MS);
        while self.clients.iter().any(|client| !client.outgoing.is_empty()) {
            for index in 0..self.clients.len() {
                let client = &self.clients[index];
                let returns = client.link.is_none() && !client.outgoing.is_empty();
                if returns && self.cluster.life == Life::Serving {
                    self.reconnect(index);
                }
            }
            self.step();
            assert!(self.world.now().mono < deadline, "{}", self.describe());
        }
    }

    /// Until everyone is connected, nothing is unanswered, and nobody has seen anything for a while.
    fn until_quiet(&mut self) {
        let deadline = self.world.now().mono.plus_ms(LIVENESS_MS);
        let (mut seen, mut quiet_since) = (0, self.world.now().mono);
        loop {
            for index in 0..self.clients.len() {
                self.clients[index].stop_withholding(&mut scene!(self));
                if self.cluster.life == Life::Serving && self.clients[index].link.is_none() {
                    self.reconnect(index);
                }
            }
            self.step();
            let now = self.world.now().mono;
            let busy = |client: &Client| {
                !client.is_up() || !client.outgoing.is_empty() || !client.leaving.is_empty()
            };
            if seen != self.oracle.tick || self.clients.iter().any(busy) {
                seen = self.oracle.tick;
                quiet_since = now;
            }
            if now >= quiet_since.plus_ms(QUIET_MS) {
                return;
            }
            assert!(now < deadline, "{}", self.describe());
        }
    }

    fn reconnect(&mut self, index: usize) {
        let client = &self.clients[index];
        let durable = self.oracle.sessions[index].existence != crate::sessions::Existence::None;
        let clean = client.must_start_clean || (!durable && !client.is_v5());
        let lasts = durable && (client.is_v5() || !clean);
        let expiry_s = if lasts { u32::MAX } else { 0 };
        let asked = Asked { clean, expiry_s };
        self.clients[index].connect(&self.world, self.cluster.address, asked, None, &mut scene!(self));
    }

    /// A graceful stop comes to its end.
    fn stop(&mut self) {
        self.oracle.note(self.world.now().mono, || "the broker is told to stop".to_owned());
        self.cluster.drain();
        let deadline = self.world.now().mono.plus_ms(15_000);
        while self.cluster.life != Life::Down {
            self.step();
            assert!(
                self.world.now().mono < deadline,
                "the broker does not stop: {}",
                self.cluster.describe()
            );
        }
    }

    fn describe(&self) -> String {
        let mut text = format!("not quiet in time; the broker: {}", self.cluster.describe());
        for client in &self.clients {
            text.push_str(&format!(
                "\nclient {}: up {}, {} leaving, unanswered {:?}",
                client.index,
                client.is_up(),
                client.leaving.len(),
                client.outgoing
            ));
        }
        for debt in self.oracle.debts(self.world.now().wall) {
            text.push_str(&format!("\n{debt}"));
        }
        text
    }
}

/// QoS 2 so many times in a thousand; of the rest, a sixth is QoS 0.
fn quality(random: &mut Random, exactly_once: u32) -> QoS {
    if random.per_mille(exactly_once) {
        QoS::ExactlyOnce
    } else if random.per_mille(167) {
        QoS::AtMostOnce
    } else {
        QoS::AtLeastOnce
    }
}
