//! A seeded world: one host with its shards, its disk and its clock, and clients outside, in one thread.
//!
//! Everything that could happen in some order happens in an order drawn from the seed, and so do latencies, short
//! transfers and what a power cut leaves of the disk. The same seed and the same calls give the same trace
//! ([`World::trace_hash`]). `network` decides what happens to bytes, `disk` what happens to files; this file owns the
//! clock and hands completions to the reactors. Nothing here reads a clock, a random source or the kernel.
//!
//! Two ways to move the clock. *One reactor*: [`SimReactor`] waits as a kernel would, by moving the clock
//! itself. *Several shards* ([`Settings::turns_wait`] off): `turn` never waits; the test runs whoever is
//! [`World::runnable`], and when nobody is, calls [`World::advance_to_next_event`].
//!
//! Where the kernel may do either of two things, this world does both, by the seed; where it is known to be nastier
//! than its manual, so is this (a failed sync forgets what was dirty). It may never be kinder.

mod core;
mod disk;
mod listening;
mod network;
mod reactor;
mod storage;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

pub use disk::{CrashKind, DiskFault};
pub use reactor::SimReactor;
pub use storage::SimStorage;

use self::core::{Core, Event};
use self::disk::Disk;
use self::network::Network;
use self::reactor::Shard;
use super::Socket;
use crate::time::{Nanos, Now};

/// What the world is like. Rates are per thousand, latencies a range in nanoseconds from which the seed draws.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether a turn with nothing to report moves the clock itself; off when several shards share the world.
    pub turns_wait: bool,
    /// What one turn costs, so that a busy loop does not stop the clock.
    pub turn_cost_ns: (u64, u64),
    /// From one end of a connection to the other.
    pub network_latency_ns: (u64, u64),
    /// Bytes that one end holds, arrived and arriving, before the other's sends block.
    pub socket_bytes_max: usize,
    /// Receives and sends that transfer less than they could.
    pub short_transfer_per_mille: u32,
    /// Connections that wait to be accepted; further ones are repeated a second later.
    pub backlog_max: usize,
    /// Sockets that the host may have open, listening ones included.
    pub descriptors_max: usize,
    /// Until a write is in the page cache.
    pub write_latency_ns: (u64, u64),
    /// Until a sync is done.
    pub sync_latency_ns: (u64, u64),
    /// Bytes of the whole disk.
    pub disk_bytes_max: u64,
    /// Writes after which one page goes to the device without a sync, as the kernel's own write-back does.
    pub writeback_per_mille: u32,
    /// Writes that fail with `EIO`, some of their bytes having been written.
    pub write_error_per_mille: u32,
    /// Syncs that fail with `EIO`.
    pub sync_error_per_mille: u32,
    /// Pages of a failed sync that stay readable though they are not durable and no longer count as dirty, as on
    /// ext4; the others read as before they were written, as on btrfs.
    pub failed_sync_keeps_cache_per_mille: u32,
}

impl Default for Settings {
    /// A host in good health: nothing fails unless it is asked to.
    fn default() -> Self {
        Settings {
            turns_wait: true,
            turn_cost_ns: (500, 5_000),
            network_latency_ns: (10_000, 2_000_000),
            socket_bytes_max: 64 << 10,
            short_transfer_per_mille: 100,
            backlog_max: 1_024,
            descriptors_max: 100_000,
            write_latency_ns: (1_000, 50_000),
            sync_latency_ns: (20_000, 5_000_000),
            disk_bytes_max: 1 << 30,
            writeback_per_mille: 100,
            write_error_per_mille: 0,
            sync_error_per_mille: 0,
            failed_sync_keeps_cache_per_mille: 0,
        }
    }
}

struct State {
    core: Core,
    network: Network,
    disk: Disk,
    shards: Vec<Shard>,
    /// Incremented by a crash: reactors and storages of an earlier life are dead.
    life: u64,
}

impl State {
    /// Let happen what is due by now.
    fn settle(&mut self) {
        while let Some(event) = self.core.take_due() {
            self.perform(event);
        }
    }

    fn perform(&mut self, event: Event) {
        match event {
            Event::Network(event) => self.network.perform(event, &mut self.core),
            Event::Disk(operation) => self.disk.finish(operation, &mut self.core),
            Event::Wake => {}
        }
    }

    fn runnable(&self, index: usize) -> bool {
        let shard = &self.shards[index];
        shard.life == self.life
            && shard.open
            && (shard.waiting_until <= self.core.now()
                || shard.submitted
                || shard.bell.is_rung()
                || self.core.has_notices(index)
                || self.network.can_accept(index, self.core.now()))
    }
}

/// See the module documentation. Clones are handles of the same world.
#[derive(Clone)]
pub struct World {
    state: Rc<RefCell<State>>,
}

impl World {
    /// A world in which everything follows from `seed` and from what is done to it.
    pub fn new(seed: u64, settings: Settings) -> World {
        let core = Core::new(seed, settings);
        let (network, disk) = (Network::default(), Disk::default());
        World { state: Rc::new(RefCell::new(State { core, network, disk, shards: Vec::new(), life: 0 })) }
    }

    /// A reactor for the next shard; shards are numbered from 0, and on after a crash.
    pub fn reactor(&self, settings: super::Settings) -> SimReactor {
        SimReactor::new(Rc::clone(&self.state), settings)
    }

    /// A directory of the host's disk, made if it is not there. It survives a crash of the host; its handles do not.
    pub fn directory(&self, name: &str) -> SimStorage {
        SimStorage::new(Rc::clone(&self.state), name)
    }

    /// What the clocks show.
    pub fn now(&self) -> Now {
        self.state.borrow().core.clocks()
    }

    /// Listen on `address`, which is taken as it is; port 0 takes a free one.
    pub fn listen(&self, address: SocketAddr) -> io::Result<Socket> {
        let state = &mut *self.state.borrow_mut();
        state.network.listen(address, &mut state.core)
    }

    /// Another descriptor of the same listening socket.
    pub fn duplicate(&self, socket: Socket) -> io::Result<Socket> {
        let state = &mut *self.state.borrow_mut();
        state.network.duplicate(socket, &mut state.core)
    }

    /// Where a socket listens.
    pub fn local_address(&self, socket: Socket) -> io::Result<SocketAddr> {
        self.state.borrow().network.local_address(socket)
    }

    /// A client that connects to a listening socket.
    pub fn connect(&self, listener: Socket) -> io::Result<ClientEnd> {
        Ok(self.connect_to(self.local_address(listener)?))
    }

    /// A client that connects to an address; if nobody listens there when its wish arrives, it is reset.
    pub fn connect_to(&self, address: SocketAddr) -> ClientEnd {
        let state = &mut *self.state.borrow_mut();
        let end = state.network.connect(address, &mut state.core);
        ClientEnd { state: Rc::clone(&self.state), end, open: true }
    }

    /// From now on the host may have that many sockets open.
    pub fn limit_descriptors(&self, descriptors_max: usize) {
        self.state.borrow_mut().core.settings.descriptors_max = descriptors_max;
    }

    /// From now on the disk has that many bytes.
    pub fn limit_disk(&self, disk_bytes_max: u64) {
        self.state.borrow_mut().core.settings.disk_bytes_max = disk_bytes_max;
    }

    /// Somebody sets the wall clock by so many milliseconds.
    pub fn set_wall_by_ms(&self, ms: i64) {
        self.state.borrow_mut().core.wall_set_by_ms += ms;
    }

    /// The next operation of that kind, on any file, fails so.
    pub fn fail_next(&self, fault: DiskFault) {
        self.state.borrow_mut().disk.inject(fault);
    }

    /// The shards for which a turn would not be in vain: something to report, something submitted, the doorbell
    /// rung, or the deadline of their last turn passed; in an order drawn from the seed. Only for worlds whose turns
    /// do not wait.
    pub fn runnable(&self) -> Vec<usize> {
        let state = &mut *self.state.borrow_mut();
        let mut indexes: Vec<usize> =
            (0..state.shards.len()).filter(|&index| state.runnable(index)).collect();
        for last in (1..indexes.len()).rev() {
            indexes.swap(last, state.core.random.below(last as u64 + 1) as usize);
        }
        indexes
    }

    /// Move the clock to the next event and let it happen; `false` if there is none.
    pub fn step(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        let Some(at) = state.core.next_at() else { return false };
        state.core.advance_to(at);
        state.settle();
        true
    }

    /// Move the clock to whatever comes first: an event or the deadline of a waiting shard. `false` if there is
    /// neither; `true` without moving it if a shard is runnable.
    pub fn advance_to_next_event(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        if (0..state.shards.len()).any(|index| state.runnable(index)) {
            return true;
        }
        let waiting = state.shards.iter().filter(|shard| shard.life == state.life && shard.open);
        let deadline = waiting.map(|shard| shard.waiting_until).filter(|&at| at != Nanos::NEVER).min();
        let Some(at) = [state.core.next_at(), deadline].into_iter().flatten().min() else { return false };
        state.core.advance_to(at);
        state.settle();
        true
    }

    /// The clock will stop there on its way, so that something can be done at that time.
    pub fn stop_clock_at(&self, at: Nanos) {
        self.state.borrow_mut().core.schedule(at, Event::Wake);
    }

    /// The process dies, or the host loses its power. Reactors, sockets and open files of before are dead; what is on
    /// the disk afterwards follows from `kind` and the seed. Clients see their connections end or be reset.
    pub fn crash(&self, kind: CrashKind) {
        let state = &mut *self.state.borrow_mut();
        state.life += 1;
        state.core.note(&[0xC4A5, kind as u64]);
        state.core.forget_notices();
        state.disk.crash(kind, &mut state.core);
        state.network.crash(kind, &mut state.core);
    }

    /// A number that two runs share if, and as far as anyone can tell only if, the same things happened in them.
    pub fn trace_hash(&self) -> u64 {
        self.state.borrow().core.trace_hash()
    }
}

/// The far end of a connection, for tests: a client that nobody can make wait. Dropping it closes it.
pub struct ClientEnd {
    state: Rc<RefCell<State>>,
    end: u64,
    open: bool,
}

impl ClientEnd {
    /// Read what has arrived: `WouldBlock` if nothing has, 0 at the end of the stream.
    pub fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        state.network.receive(self.end, into.len(), &mut state.core).map_err(to_io).map(|bytes| {
            into[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        })
    }

    /// Write what fits: `WouldBlock` if nothing does.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        state.network.transmit(self.end, bytes, &mut state.core).map_err(to_io)
    }

    /// Send an end of stream after what was written; reading goes on.
    pub fn shut_down_write(&mut self) {
        let state = &mut *self.state.borrow_mut();
        state.network.finish(self.end, &mut state.core);
    }

    /// Close: an end of stream for the other side, or a reset if something had arrived and was not read.
    pub fn close(mut self) {
        self.close_now();
    }

    /// Break the connection: the other side gets `ECONNRESET`.
    pub fn reset(mut self) {
        let state = &mut *self.state.borrow_mut();
        state.network.abort(self.end, &mut state.core);
        self.open = false;
    }

    fn close_now(&mut self) {
        if std::mem::take(&mut self.open) {
            let state = &mut *self.state.borrow_mut();
            if state.network.has_unread(self.end) {
                state.network.abort(self.end, &mut state.core);
            } else {
                state.network.close(self.end, &mut state.core);
            }
        }
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        self.close_now();
    }
}

fn to_io(errno: super::Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.0)
}
