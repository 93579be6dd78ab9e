//! One shard's door to the simulated world.
//!
//! A turn performs what was submitted, lets happen what is due, and reports: completions of different sockets in an
//! order drawn from the seed, those of one socket in theirs. Readiness may be reported a turn late while something
//! else is reported, as a kernel with a short event buffer does.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::State;
use super::core::{Core, Notice};
use super::network::Network;
use crate::reactor::{Completion, Doorbell, Errno, Op, Reactor, Settings, Socket};
use crate::time::{Nanos, Now};

/// Calls between turns that this world declines: their owners have to be right with and without.
const DECLINED_PER_MILLE: u32 = 300;

/// What the world knows of a shard.
pub(super) struct Shard {
    pub(super) life: u64,
    pub(super) open: bool,
    /// The deadline of its last turn.
    pub(super) waiting_until: Nanos,
    /// Operations wait for its next turn.
    pub(super) submitted: bool,
    pub(super) bell: Arc<SimBell>,
}

/// A doorbell without a kernel.
pub(super) struct SimBell(AtomicBool);

impl SimBell {
    pub(super) fn is_rung(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Doorbell for SimBell {
    fn ring(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// See the module documentation.
pub struct SimReactor {
    state: Rc<RefCell<State>>,
    index: usize,
    life: u64,
    settings: Settings,
    queue: VecDeque<Op>,
    bell: Arc<SimBell>,
    now: Now,
}

impl SimReactor {
    pub(super) fn new(state: Rc<RefCell<State>>, settings: Settings) -> SimReactor {
        let bell = Arc::new(SimBell(AtomicBool::new(false)));
        let mut world = state.borrow_mut();
        let index = world.core.add_shard();
        let (life, now) = (world.life, world.core.clocks());
        let waiting_until = now.mono;
        world.shards.push(Shard {
            life,
            open: true,
            waiting_until,
            submitted: false,
            bell: Arc::clone(&bell),
        });
        drop(world);
        SimReactor { state, index, life, settings, queue: VecDeque::new(), bell, now }
    }

    /// This shard's number in [`super::World::runnable`].
    pub fn index(&self) -> usize {
        self.index
    }
}

impl Reactor for SimReactor {
    fn now(&self) -> Now {
        self.now
    }

    fn room(&self) -> usize {
        self.settings.operations_max.saturating_sub(self.queue.len())
    }

    fn submit(&mut self, op: Op) {
        assert!(self.room() > 0, "submit without room");
        self.queue.push_back(op);
        self.state.borrow_mut().shards[self.index].submitted = true;
    }

    fn turn(&mut self, deadline: Nanos, completions: &mut Vec<Completion>) {
        let state = &mut *self.state.borrow_mut();
        assert_eq!(self.life, state.life, "a turn of a shard that died in a crash");
        let mut report = Report::default();
        state.shards[self.index].submitted = false;
        for op in self.queue.drain(..) {
            perform(state, self.index, op, &mut report);
        }
        let cost = state.core.draw(state.core.settings.turn_cost_ns);
        state.core.advance_to(Nanos(state.core.now().0 + cost));
        loop {
            state.settle();
            report.take_notices(
                self.index,
                self.settings.events_max.max(1),
                &mut state.network,
                &mut state.core,
            );
            state.network.accept(self.index, &self.settings, &mut state.core, &mut report);
            let rung = self.bell.0.swap(false, Ordering::AcqRel);
            let done = rung || !report.is_empty() || deadline <= state.core.now();
            if done || !state.core.settings.turns_wait {
                break;
            }
            let next = state.core.next_at().map_or(deadline, |at| at.min(deadline));
            assert_ne!(next, Nanos::NEVER, "waiting for ever: nothing will happen in this world");
            state.core.advance_to(next);
        }
        state.shards[self.index].waiting_until = deadline;
        report.finish(&mut state.core, completions);
        self.now = state.core.clocks();
        state.core.note(&[1, self.index as u64, completions.len() as u64]);
    }

    fn receive(&mut self, socket: Socket, buffer: &mut Vec<u8>) -> Option<Result<usize, Errno>> {
        let state = &mut *self.state.borrow_mut();
        assert_eq!(self.life, state.life, "a call of a shard that died in a crash");
        let declined = state.core.random.per_mille(DECLINED_PER_MILLE);
        (!declined).then(|| receive(&mut state.network, socket, buffer, &mut state.core))
    }

    fn send(&mut self, socket: Socket, bytes: &[u8]) -> Option<Result<usize, Errno>> {
        assert!(!bytes.is_empty(), "a Send of nothing");
        let state = &mut *self.state.borrow_mut();
        assert_eq!(self.life, state.life, "a call of a shard that died in a crash");
        let declined = state.core.random.per_mille(DECLINED_PER_MILLE);
        (!declined).then(|| {
            let end = state.network.end_of(socket).ok_or(Errno(libc::EBADF))?;
            state.network.transmit(end, bytes, &mut state.core)
        })
    }

    fn doorbell(&self) -> Arc<dyn Doorbell> {
        Arc::clone(&self.bell) as Arc<dyn Doorbell>
    }
}

impl Drop for SimReactor {
    fn drop(&mut self) {
        // Not while a panic unwinds through the world.
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.shards[self.index].open = false;
        }
    }
}

fn receive(
    network: &mut Network,
    socket: Socket,
    buffer: &mut Vec<u8>,
    core: &mut Core,
) -> Result<usize, Errno> {
    buffer.clear();
    let end = network.end_of(socket).ok_or(Errno(libc::EBADF))?;
    let bytes = network.receive(end, buffer.capacity(), core)?;
    buffer.extend_from_slice(&bytes);
    Ok(bytes.len())
}

fn perform(state: &mut State, shard: usize, op: Op, report: &mut Report) {
    let (network, core) = (&mut state.network, &mut state.core);
    match op {
        Op::Listen { socket, token } => network.accept_on(socket, shard, token, core, report),
        Op::Watch { socket, token } => network.watch(socket, shard, token, core, report),
        Op::Recv { socket, token, mut buffer } => {
            assert!(buffer.capacity() > 0, "a Recv without room would read as the end of the stream");
            let result = receive(network, socket, &mut buffer, core);
            report.add(Network::key(socket), Completion::Received { token, buffer, result });
        }
        Op::Send { socket, token, buffer, from } => {
            assert!(from < buffer.len(), "a Send of nothing");
            network.send(socket, shard, (token, buffer, from), core);
        }
        Op::Detach { socket, token } => {
            network.detach(socket);
            report.add(Network::key(socket), Completion::Detached { token, socket });
        }
        Op::Close { socket, token } => {
            // What was already decided for this socket is told before its end.
            network.cancel_send(socket, core);
            network.close_socket(socket, core);
            core.tell(
                shard,
                Notice::Done { key: Network::key(socket), completion: Completion::Closed { token } },
            );
        }
        Op::Write { file, token, offset, buffer } => {
            state.disk.write(shard, file, (token, offset, buffer), core)
        }
        Op::Sync { file, token } => state.disk.sync(shard, file, token, core),
    }
}

/// The completions of one turn, before they are mixed.
#[derive(Default)]
pub(super) struct Report {
    entries: Vec<(u64, Completion)>,
}

impl Report {
    pub(super) fn add(&mut self, key: u64, completion: Completion) {
        self.entries.push((key, completion));
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn take_notices(&mut self, shard: usize, events_max: usize, network: &mut Network, core: &mut Core) {
        let mut events = 0;
        let mut late = Vec::new();
        while let Some(notice) = core.take_notice(shard) {
            match notice {
                Notice::Done { key, completion } => self.add(key, completion),
                Notice::Ready { end } => {
                    let full = events == events_max || (!self.is_empty() && core.random.per_mille(50));
                    if full {
                        late.push(Notice::Ready { end });
                    } else if let Some((key, token)) = network.take_ready(end, shard) {
                        events += 1;
                        self.add(key, Completion::Ready { token });
                        if network.has_ended(end) {
                            self.add(key, Completion::Ready { token });
                        }
                    }
                }
            }
        }
        for notice in late {
            core.tell(shard, notice);
        }
    }

    /// Mix the sockets, not what belongs to one.
    fn finish(mut self, core: &mut Core, out: &mut Vec<Completion>) {
        let mut priority = BTreeMap::new();
        for (key, _) in &self.entries {
            priority.entry(*key).or_insert_with(|| core.random.next_u64());
        }
        self.entries.sort_by_key(|(key, _)| priority[key]);
        out.extend(self.entries.into_iter().map(|(_, completion)| completion));
    }
}
