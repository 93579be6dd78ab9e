//! The loop of one shard: one turn is one screen.
//!
//! Decides the order of things and nothing else. [`Shard::turn`] waits at most until the next deadline, so a thread
//! calls it in a loop (`serve`), and a simulator calls it for each of N shards in one thread, with simulated reactors
//! and disks.
//!
//! Invariants:
//!
//! - The journal's outcome is looked at before anything is sent or submitted. If it failed, the turn ends with [`Fatal`]:
//!   what was said since is never sent (I4).
//! - Inbound mesh batches are handled before outbound ones are handed over, and neither ever waits for the other.
//! - A turn is bounded: by what the reactor reports, a ring's worth of batches from each shard, and
//!   [`ADVANCE_BUDGET`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::access::guard::AccountSource;
use crate::access::permissions::Permissions;
use crate::access::tokens::Seen;
use crate::allocator::FreeMemory;
use crate::broker::Broker;
use crate::broker::effect::{Effect, Effects};
use crate::broker::input::Input;
use crate::broker::settings::Settings;
use crate::ids::{ConnectionId, Lsn, ShardId};
use crate::journal::{IoDone, Journal, JournalError, Replayed, Storage};
use crate::limits::{ADVANCE_BUDGET, MESH_RETRY_MS, SWEEP_MS};
use crate::live::Facts;
use crate::reactor::{Completion, Op, Reactor};
use crate::record::Record;
use crate::time::{Nanos, Now, SteadyClock, UnixMs};

use super::backup::{Backup, Reason};
use super::connection::Phase;
use super::fetched::Fetched;
use super::handshake::{Handshakes, Identities};
use super::mesh::{Adopted, Batch, Mesh};
use super::outbound::{self, Outbound, Outcome};
use super::pressure::Gauge;
use super::prove_again::Provers;
use super::target::Target;
use super::throttle::Throttle;
use super::wrapped::Listening;

/// What a shard is made of.
pub struct Parts<R, S> {
    /// Its world.
    pub reactor: R,
    /// Its journal, opened and not yet replayed.
    pub journal: Journal<S>,
    /// Its end of the mesh.
    pub mesh: Mesh,
    /// What its broker is built with.
    pub settings: Settings,
    /// Where accounts come from.
    pub account: AccountSource,
    /// Of the names given to clients without one: as random as can be had, another at each start.
    pub name_key: [u8; 16],
}

/// What a shard has come back with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// What was read for it.
    pub replayed: Replayed,
    /// Sessions.
    pub sessions: u64,
    /// Entries in all their queues.
    pub queued: u64,
}

/// The journal can no longer keep the promise: the process must stop, and say why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fatal {
    /// Whose journal.
    pub shard: ShardId,
    /// What happened.
    pub error: JournalError,
}

impl fmt::Display for Fatal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "shard {}: {}", self.shard.0, self.error)
    }
}

impl std::error::Error for Fatal {}

/// Where a shard is in its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// Recovered, but not every shard has told its interest: nobody may connect.
    Starting,
    /// At work.
    Serving,
    /// Told to stop: clients are told, what they were promised is settled.
    Draining,
    /// Nothing is left of this shard's own; it goes on for the others.
    Drained,
    /// Told that every shard has drained: the last records are synced.
    Stopping,
    /// Done. `turn` must not be called again.
    Stopped,
}

/// One shard. See the module documentation.
pub struct Shard<R, S> {
    pub(super) reactor: R,
    pub(super) broker: Broker,
    pub(super) out: Outbound<S>,
    pub(super) now: Now,
    clock: SteadyClock,
    pub(super) handshakes: Handshakes,
    pub(super) identities: Identities,
    /// Tokens that were good lately.
    pub(super) seen: Seen,
    pub(super) throttle: Throttle,
    pub(super) gauge: Gauge,
    /// How much work heavy packets were since their share of the turn began.
    pub(super) heavy_work: usize,
    pub(super) provers: Provers,
    /// Connections between `Detach` and `Detached`.
    pub(super) moving: BTreeMap<ConnectionId, (ShardId, Adopted)>,
    pub(super) packet_bytes_max: u32,
    pub(super) backup: Backup,
    /// Emptied receive buffers.
    pub(super) receive_buffers: Vec<Vec<u8>>,
    /// Connections that have had their read of this turn and have more to say.
    pub(super) next_turn: Vec<ConnectionId>,
    /// What a transport has unwrapped, while it is parsed.
    pub(super) plain: Vec<u8>,
    state: State,
    pub(super) listeners: Vec<Listening>,
    completions: Vec<Completion>,
    batches: Vec<(ShardId, Batch)>,
    stalled: Vec<ConnectionId>,
    pub(super) fetched: Fetched,
    /// The broker has more to do right now.
    pub(super) more: bool,
    pub(super) journal_busy: bool,
    /// Until then the journal has nothing to do, unless something is asked of it. Each look at it costs memory that is not in
    /// the cache.
    pub(super) journal_rests_until: Nanos,
    /// The journal was looked at, and may want to grow.
    pub(super) may_grow: bool,
    pub(super) reserve_reached: bool,
    pub(super) disk_behind: bool,
    sweep_at: Nanos,
    free_memory: FreeMemory,
}

impl<R: Reactor, S: Storage> Shard<R, S> {
    /// A shard that has recovered what its journal holds. Blocks for as long as reading that takes.
    pub fn new(parts: Parts<R, S>) -> Result<(Shard<R, S>, Recovered), Fatal> {
        let Parts { reactor, journal, mut mesh, settings, account, name_key } = parts;
        let id = mesh.me();
        mesh.set_doorbell(reactor.doorbell());
        let identities = Identities::new(settings.placement.clone(), account, id, name_key);
        let mut shard = Shard {
            now: reactor.now(),
            clock: SteadyClock::from(reactor.now()),
            reactor,
            packet_bytes_max: settings.packet_bytes_max,
            backup: Backup::default(),
            broker: Broker::new(settings, id),
            out: Outbound::new(journal, mesh),
            handshakes: Handshakes::default(),
            identities,
            throttle: Throttle::default(),
            gauge: Gauge::default(),
            heavy_work: 0,
            provers: Provers::default(),
            moving: BTreeMap::new(),
            receive_buffers: Vec::new(),
            next_turn: Vec::new(),
            plain: Vec::new(),
            state: State::Starting,
            listeners: Vec::new(),
            seen: Seen::default(),
            completions: Vec::new(),
            batches: Vec::new(),
            stalled: Vec::new(),
            fetched: Fetched::default(),
            more: true,
            journal_busy: false,
            journal_rests_until: Nanos(0),
            may_grow: true,
            reserve_reached: false,
            disk_behind: false,
            sweep_at: Nanos(0),
            free_memory: FreeMemory::default(),
        };
        let replayed = shard.replay()?;
        let (sessions, queued) = shard.broker.held();
        Ok((shard, Recovered { replayed, sessions, queued }))
    }

    /// Every record through the broker's own door, before anything else.
    fn replay(&mut self) -> Result<Replayed, Fatal> {
        let Shard { broker, out, now, .. } = self;
        // A journal without a record has nothing to replay.
        let mut latest = UnixMs(0);
        let replayed = if out.journal.last_lsn().is_some() {
            let mut apply = |lsn: Lsn, record: Record<'_>, facts: Facts<'_>| {
                latest = latest.max(record.happened_at().unwrap_or_default());
                broker.handle(*now, Input::Replay { lsn, record, facts }, &mut ReplayEffects);
            };
            out.journal.replay(&mut apply)
        } else {
            Ok(Replayed::default())
        };
        let replayed = replayed.map_err(|error| self.fatal(error))?;
        let lsn = self.out.journal.last_lsn();
        assert!(lsn == self.out.journal.durable(), "what was recovered is on disk (I5)");
        let behind_ms = self.clock.is_not_before(latest, self.now);
        if behind_ms > 0 {
            tracing::warn!(
                event = "clock_is_behind",
                shard = self.id().0,
                behind_ms,
                "the system's clock is earlier than when this data directory was last written; time goes on from then"
            );
        }
        self.now = self.clock.read(self.reactor.now());
        self.input(Input::Replayed { lsn, session_key_max: replayed.session_key_max });
        Ok(replayed)
    }

    /// One turn: wait for something to happen, act on it, submit what follows from it.
    pub fn turn(&mut self) -> Result<State, Fatal> {
        assert!(self.state != State::Stopped, "a stopped shard has no turns");
        self.wait();
        self.heavy_work = 0;
        self.parse_unparsed();
        self.complete()?;
        self.receive_from_few();
        self.receive_mesh();
        self.on_time();
        self.watch_backup();
        self.handle_parked();
        self.more = self.broker.advance(self.now, ADVANCE_BUDGET, &mut self.out);
        self.fetch()?;
        self.submit_receives();
        self.out.flush(&mut self.reactor);
        self.break_off_unsendable();
        self.flush_mesh();
        self.commit()?;
        self.step();
        Ok(self.state)
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.out.mesh.me()
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        self.state
    }

    /// Its journal, for figures.
    pub fn journal(&self) -> &Journal<S> {
        &self.out.journal
    }

    /// Its reactor; for the simulator, whose world is behind it.
    pub fn reactor_mut(&mut self) -> &mut R {
        &mut self.reactor
    }

    /// Whether the next turn would wait; from then on other shards ring for it. For a simulator, whose turns never
    /// wait: between two of them a shard is where others are inside the second.
    pub fn rests(&self) -> bool {
        !self.has_work() && self.out.mesh.fall_asleep()
    }

    /// How many connections there are, whatever their phase.
    pub fn connections(&self) -> usize {
        self.out.connections.len()
    }

    /// Accepts connections from these sockets from now on.
    pub fn listen(&mut self, sockets: Vec<Listening>) {
        for listening in sockets {
            let socket = listening.socket;
            if self.is_draining() {
                self.out.submit(Op::Close { socket, token: Target::Refused.token() });
                continue;
            }
            let index = u32::try_from(self.listeners.len()).expect("listeners are a handful");
            self.listeners.push(listening);
            self.out.submit(Op::Listen { socket, token: Target::Listener(index).token() });
        }
        self.more = true;
    }

    /// Who may do what from now on.
    pub fn permit(&mut self, permissions: Arc<Permissions>) {
        self.input(Input::Permissions { permissions });
        self.more = true;
    }

    /// Begins to stop: no new connections, and those that are there are told.
    pub fn drain(&mut self) {
        if self.is_draining() {
            return;
        }
        self.state = State::Draining;
        self.end_backup(Some(Reason::Stopping));
        for (index, listening) in self.listeners.drain(..).enumerate() {
            let token = Target::Listener(index as u32).token();
            self.out.submit(Op::Close { socket: listening.socket, token });
        }
        let waiting: Vec<ConnectionId> = self.out.connections.all_in(Phase::Handshake).collect();
        waiting.into_iter().for_each(|id| self.lost(id));
        self.input(Input::Drain);
        self.more = true;
    }

    /// Every shard has drained: sync what is left, then stop.
    pub fn stop(&mut self) {
        self.state = State::Stopping;
        self.out.journal.witness();
        self.out.journal_stirred = true;
        self.more = true;
    }

    pub(super) fn is_draining(&self) -> bool {
        self.state >= State::Draining
    }

    /// Tells the broker.
    pub(super) fn input(&mut self, input: Input<'_>) {
        self.broker.handle(self.now, input, &mut self.out);
    }

    fn wait(&mut self) {
        let deadline =
            if self.has_work() || !self.out.mesh.fall_asleep() { Nanos(0) } else { self.deadline() };
        self.gauge.turned(self.now.mono, self.reactor.now().mono);
        self.reactor.turn(deadline, &mut self.completions);
        self.out.mesh.wake_up();
        self.now = self.clock.read(self.reactor.now());
        self.out.now = self.now.mono;
    }

    /// Whether something can be done that no completion will announce.
    fn has_work(&self) -> bool {
        self.more
            || !self.out.connections.ready.is_empty() && self.broker.keeps_up()
            || !self.out.connections.unparsed.is_empty()
            || !self.out.resumed.is_empty()
            || !self.out.fetches.is_empty()
            || !self.out.is_flushed()
            || !self.journal_busy && !self.journal_rests() && self.out.journal.wants_turn(self.broker.live())
    }

    fn deadline(&self) -> Nanos {
        let mesh =
            if self.out.mesh.held_back() { self.now.mono.plus_ms(MESH_RETRY_MS) } else { Nanos::NEVER };
        self.broker
            .next_deadline()
            .min(if self.journal_rests() { self.journal_rests_until } else { self.journal_deadline() })
            .min(self.handshakes.next_deadline())
            .min(self.throttle.next_deadline())
            .min(self.sweep_at)
            .min(mesh)
    }

    fn complete(&mut self) -> Result<(), Fatal> {
        let mut completions = std::mem::take(&mut self.completions);
        let mut result = Ok(());
        // In their order, from the end of a vector: less code than to drain it, where one completion is what mostly comes.
        completions.reverse();
        while result.is_ok()
            && let Some(completion) = completions.pop()
        {
            result = self.complete_one(completion);
        }
        self.completions = completions;
        result
    }

    fn complete_one(&mut self, completion: Completion) -> Result<(), Fatal> {
        match completion {
            Completion::Written { buffer, result, .. } => {
                return self.journal_done(IoDone::Written { buffer, result });
            }
            Completion::Synced { result, .. } => return self.journal_done(IoDone::Synced { result }),
            Completion::Accepted { token, result } => {
                if let Target::Listener(listener) = Target::of(token) {
                    self.accepted(listener, result);
                }
            }
            Completion::Ready { token } => self.on_connection(Target::of(token), Self::ready),
            Completion::Received { token, buffer, result } => {
                self.on_connection(Target::of(token), |shard, id| shard.received(id, buffer, result));
            }
            Completion::Sent { token, buffer, from, result } => {
                self.on_connection(Target::of(token), |shard, id| shard.sent(id, buffer, from, result));
            }
            Completion::Detached { token, socket } => {
                self.on_connection(Target::of(token), |shard, id| shard.detached(id, socket));
            }
            Completion::Closed { token } => {
                if let Target::Connection(id) = Target::of(token) {
                    self.throttle.forget(id);
                    self.provers.forget(id);
                    self.out.connections.remove(id);
                }
            }
        }
        Ok(())
    }

    fn on_connection(&mut self, target: Target, act: impl FnOnce(&mut Self, ConnectionId)) {
        match target {
            Target::Connection(id) => act(self, id),
            other => unreachable!("{other:?} is read, written and moved by nobody"),
        }
    }

    fn sent(
        &mut self,
        id: ConnectionId,
        buffer: Vec<u8>,
        from: usize,
        result: Result<usize, crate::reactor::Errno>,
    ) {
        match self.out.sent(id, buffer, from, result) {
            Outcome::Nothing => {}
            Outcome::Drained => self.input(Input::Drained { connection: id }),
            Outcome::Lost => self.lost(id),
        }
    }

    fn receive_mesh(&mut self) {
        if self.out.mesh.is_alone() {
            return;
        }
        let mut batches = std::mem::take(&mut self.batches);
        self.out.mesh.take(&mut batches);
        for (from, mut batch) in batches.drain(..) {
            for message in batch.messages.drain(..) {
                self.out.mesh.credit(from, &message);
                self.input(Input::Mesh { from, message });
            }
            for adopted in batch.adopted.drain(..) {
                self.adopt(adopted);
            }
            self.out.mesh.recycle(batch);
        }
        self.batches = batches;
        self.offer_mesh_room();
    }

    fn offer_mesh_room(&mut self) {
        while let Some(to) = self.out.mesh.full_no_more() {
            self.input(Input::MeshRoom { to });
            self.more = true;
        }
    }

    fn flush_mesh(&mut self) {
        if self.out.mesh.is_alone() {
            return;
        }
        self.out.mesh.flush();
        self.offer_mesh_room();
    }

    fn on_time(&mut self) {
        self.expire_handshakes();
        self.end_waits();
        if !self.journal_rests() {
            self.watch_journal();
        }
        self.feel_pressure();
        if self.now.mono < self.sweep_at {
            return;
        }
        self.sweep();
    }

    fn sweep(&mut self) {
        self.out.journal_stirred = true;
        self.sweep_at = self.now.mono.plus_ms(SWEEP_MS);
        self.free_memory.give_back();
        self.out.journal.observe(self.broker.live(), self.now);
        let journal = self.out.journal.statistics();
        self.input(Input::Journal {
            bytes_written: journal.bytes_written,
            bytes_appended: journal.record_bytes,
            bytes_copied: journal.bytes_copied,
            syncs: journal.syncs,
        });
        self.tell_of_excess();
        let mut stalled = std::mem::take(&mut self.stalled);
        self.out.sweep(&mut stalled);
        for id in stalled.drain(..) {
            tracing::debug!(event = "connection_stalled", slot = id.slot, generation = id.generation);
            self.lost(id);
        }
        self.stalled = stalled;
    }

    /// To the next state, if it is reached.
    fn step(&mut self) {
        if self.state == State::Serving {
            return;
        }
        let synced = !self.journal_busy && self.out.journal.pending_bytes() == 0;
        self.state = match self.state {
            State::Starting if self.broker.ready() => State::Serving,
            State::Draining if synced && self.has_drained() => State::Drained,
            State::Stopping if synced && !self.more => State::Stopped,
            state => state,
        };
    }

    fn has_drained(&self) -> bool {
        self.broker.drained()
            && !self.more
            && self.out.connections.is_empty()
            && self.out.is_flushed()
            && self.out.mesh.is_idle()
    }

    pub(super) fn fatal(&self, error: JournalError) -> Fatal {
        Fatal { shard: self.id(), error }
    }
}

/// What a broker may want while it is rebuilt: to say that something does not fit. Anything else would be sent twice.
struct ReplayEffects;

impl Effects for ReplayEffects {
    fn perform(&mut self, effect: Effect<'_>) {
        match effect {
            Effect::Log(event) => outbound::log(event),
            other => panic!("replay acts on nothing: {other:?}"),
        }
    }

    fn room(&self, _connection: ConnectionId) -> usize {
        0
    }

    fn mesh_room(&self, _to: ShardId) -> bool {
        false
    }

    fn mesh_deliver_room(&self, _to: ShardId) -> bool {
        false
    }
}
