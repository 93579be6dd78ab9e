//! The broker as a process: its shards with their journals on one disk each, and what they say to each other.
//!
//! What `shard` does, without sockets and without time: what a client sends is handled to its end at once, messages
//! between shards arrive at once and in order, and the disks move when they are told to, one operation at a time.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

use ironpost::broker::Broker;
use ironpost::broker::effect::{Effect, Effects};
use ironpost::broker::input::Input;
use ironpost::broker::route::MeshMessage;
use ironpost::broker::settings::Settings;
use ironpost::ids::{ConnectionId, Lsn, ShardId};
use ironpost::journal::{self, Io, IoDone, Journal, JournalError, Options, Storage};
use ironpost::limits::RECLAIM_SEGMENTS_MIN;
use ironpost::record::{Body, Record};
use ironpost::time::Now;
use ironpost::wire::{self, Connect, Version};

use crate::disk::{Disk, Image};
use crate::worlds::Kind;

/// Units of work for a broker before it is asked again.
const BUDGET: u32 = 1_000;

/// Rounds in which a process comes to rest, or never will.
const ROUNDS_MAX: u32 = 10_000;

/// What one shard wanted of the world.
struct Outside {
    journal: Journal<Disk>,
    fetches: VecDeque<Lsn>,
    mesh: VecDeque<(ShardId, MeshMessage)>,
    sent: Vec<(u32, Vec<u8>)>,
    closed: Vec<u32>,
}

impl Effects for Outside {
    fn perform(&mut self, effect: Effect<'_>) {
        match effect {
            Effect::Send { connection, version, packet } => {
                let mut bytes = Vec::new();
                wire::encode::packet(&packet, version, &mut bytes);
                self.sent.push((connection.slot, bytes));
            }
            Effect::Close { connection, .. } => self.closed.push(connection.slot),
            Effect::Append { lsn, record } => self.journal.append(lsn, &record),
            Effect::Fetch { lsn } => self.fetches.push_back(lsn),
            Effect::Mesh { to, message } => self.mesh.push_back((to, message)),
            Effect::Pause { .. } | Effect::Resume { .. } | Effect::Hold { .. } | Effect::Log(_) => {}
        }
    }

    fn room(&self, _: ConnectionId) -> usize {
        usize::MAX
    }

    fn mesh_room(&self, _: ShardId) -> bool {
        true
    }

    fn mesh_deliver_room(&self, _: ShardId) -> bool {
        true
    }
}

struct Node {
    broker: Broker,
    outside: Outside,
    disk: Disk,
}

/// What became of a step of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moved {
    /// There was nothing to do.
    Nothing,
    /// A write was made; nothing of it is sure.
    Written,
    /// A sync was made, and nobody knows yet.
    Synced,
}

/// See the module documentation.
pub struct Process {
    nodes: Vec<Node>,
    /// An operation that was made and that the journal has not been told of.
    done: Vec<Option<IoDone>>,
    pub now: Now,
    /// A journal was recovered by a checkpoint.
    pub by_checkpoint: bool,
}

impl Process {
    /// Starts on these disks. An error if one of them lets it die on the way.
    pub fn start(kind: &Kind, disks: &[Disk], now: Now) -> Result<Process, JournalError> {
        let mut nodes = Vec::new();
        let mut by_checkpoint = false;
        for (shard, disk) in disks.iter().enumerate() {
            let shard = ShardId(shard as u16);
            let mut journal = journal::open(disk.clone(), options(kind, shard), now.mono.0, now)?;
            let mut broker = Broker::new(settings(kind), shard);
            let mut replayed = journal::Replayed::default();
            if journal.last_lsn().is_some() {
                let mut nothing = Silent;
                replayed = journal.replay(&mut |lsn, record, facts| {
                    broker.handle(now, Input::Replay { lsn, record, facts }, &mut nothing);
                })?;
            }
            by_checkpoint |= replayed.checkpoint.is_some();
            let lsn = journal.last_lsn();
            let outside = Outside {
                journal,
                fetches: VecDeque::new(),
                mesh: VecDeque::new(),
                sent: Vec::new(),
                closed: Vec::new(),
            };
            let mut node = Node { broker, outside, disk: disk.clone() };
            node.handle(now, Input::Replayed { lsn, session_key_max: replayed.session_key_max });
            nodes.push(node);
        }
        let done = nodes.iter().map(|_| None).collect();
        let mut process = Process { nodes, done, now, by_checkpoint };
        process.run();
        Ok(process)
    }

    pub fn shards(&self) -> usize {
        self.nodes.len()
    }

    pub fn ready(&self) -> bool {
        self.nodes.iter().all(|node| node.broker.ready())
    }

    /// What is on the disks now.
    pub fn images(&self) -> Vec<Image> {
        self.nodes.iter().map(|node| node.disk.image()).collect()
    }

    /// The last record of a shard, durable or not, and the last that is known to be durable.
    pub fn lsns(&self, shard: usize) -> (Lsn, Lsn) {
        let journal = &self.nodes[shard].outside.journal;
        (journal.last_lsn(), journal.durable())
    }

    /// Free segments of the shard that has fewest.
    pub fn free_segments_min(&self) -> usize {
        self.nodes.iter().map(|node| node.outside.journal.segments().1).min().unwrap_or(0)
    }

    /// Records copied out of segments that were given up.
    pub fn copied(&self) -> u64 {
        self.nodes.iter().map(|node| node.outside.journal.statistics().records_copied).sum()
    }

    /// Entries in all queues.
    pub fn queued(&self) -> u64 {
        self.nodes.iter().map(|node| node.broker.held().1).sum()
    }

    pub fn connect(&mut self, shard: usize, slot: u32, connect: &Connect<'_>) {
        let input = Input::Connect {
            connection: id(slot),
            connect,
            client_id: connect.client_id,
            assigned: false,
            account: "",
            passport: &ironpost::access::passport::UNPROVEN,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        self.nodes[shard].handle(self.now, input);
        self.run();
    }

    pub fn closed(&mut self, shard: usize, slot: u32) {
        self.nodes[shard].handle(self.now, Input::Closed { connection: id(slot) });
        self.run();
    }

    pub fn packet(&mut self, shard: usize, slot: u32, bytes: &[u8]) {
        let packet = wire::decode::packet(bytes, Some(Version::V5)).expect("clients send valid packets");
        self.nodes[shard].handle(self.now, Input::Packet { connection: id(slot), packet: &packet });
        self.run();
    }

    pub fn wait_ms(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus_ms(ms);
        self.now.wall.0 += ms;
        for node in &mut self.nodes {
            node.outside.journal.observe(node.broker.live(), self.now);
        }
        self.run();
    }

    /// What a shard has sent, in order.
    pub fn take_sent(&mut self, shard: usize) -> Vec<(u32, Vec<u8>)> {
        let outside = &mut self.nodes[shard].outside;
        assert!(outside.closed.is_empty(), "the broker closed {:?}", outside.closed);
        std::mem::take(&mut outside.sent)
    }

    /// The disk makes what the journal of that shard wants of it next. The journal is told by [`Process::tell`].
    pub fn disk_moves(&mut self, shard: usize) -> Moved {
        let Node { broker, outside, disk } = &mut self.nodes[shard];
        assert!(self.done[shard].is_none(), "the journal has one operation in flight");
        let io = loop {
            if let Some(io) = outside.journal.commit(broker.live(), self.now).expect("the disk does not fail")
            {
                break io;
            }
            if !outside.journal.wants_turn(broker.live()) {
                return Moved::Nothing;
            }
        };
        let (done, moved) = match io {
            Io::Write { file, offset, buffer } => {
                disk.write_at(file, offset, &buffer).expect("the disk does not fail");
                (IoDone::Written { buffer, result: Ok(()) }, Moved::Written)
            }
            Io::Sync { file } => {
                disk.sync(file).expect("the disk does not fail");
                (IoDone::Synced { result: Ok(()) }, Moved::Synced)
            }
        };
        self.done[shard] = Some(done);
        moved
    }

    /// The journal hears of what its disk has made, and what follows from it happens.
    pub fn tell(&mut self, shard: usize) {
        let Some(done) = self.done[shard].take() else { return };
        let Node { broker, outside, disk } = &mut self.nodes[shard];
        let durable =
            outside.journal.completed(done, broker.live(), self.now).expect("the disk does not fail");
        while let Some(request) = outside.journal.grow(self.now) {
            let grown = request.execute(disk);
            outside.journal.grown(grown, self.now).expect("there is room");
        }
        if let Some(lsn) = durable {
            self.nodes[shard].handle(self.now, Input::Durable { lsn });
        }
        self.run();
    }

    /// Everything that needs neither a disk nor a client.
    fn run(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut rests = true;
            for index in 0..self.nodes.len() {
                let node = &mut self.nodes[index];
                rests &= !node.broker.advance(self.now, BUDGET, &mut node.outside);
                while let Some(lsn) = node.outside.fetches.pop_front() {
                    node.fetch(self.now, lsn);
                    rests = false;
                }
                while let Some((to, message)) = self.nodes[index].outside.mesh.pop_front() {
                    let from = ShardId(index as u16);
                    self.nodes[to.index()].handle(self.now, Input::Mesh { from, message });
                    rests = false;
                }
            }
            if rests {
                return;
            }
        }
        panic!("the brokers do not come to rest");
    }
}

impl Node {
    fn handle(&mut self, now: Now, input: Input<'_>) {
        self.broker.handle(now, input, &mut self.outside);
    }

    fn fetch(&mut self, now: Now, lsn: Lsn) {
        let mut parts = None;
        let read = self.outside.journal.read(lsn, &mut |record| {
            let (Record::Message { body, .. } | Record::Inbound { body, .. }) = record else {
                panic!("the broker fetches bodies only, not {record:?}");
            };
            let owned = (body.topic.to_owned(), body.forward.to_vec(), body.payload.to_vec());
            parts = Some((owned, Body { topic: "", forward: &[], payload: &[], ..body }));
        });
        read.expect("what the broker needs is there");
        let ((topic, forward, payload), rest) = parts.expect("read");
        let body = Body { topic: &topic, forward: &forward, payload: &payload, ..rest };
        self.handle(now, Input::Fetched { lsn, body });
    }
}

/// A broker that replays acts on nothing.
struct Silent;

impl Effects for Silent {
    fn perform(&mut self, effect: Effect<'_>) {
        assert!(matches!(effect, Effect::Log(_)), "{effect:?}");
    }

    fn room(&self, _: ConnectionId) -> usize {
        0
    }

    fn mesh_room(&self, _: ShardId) -> bool {
        false
    }

    fn mesh_deliver_room(&self, _: ShardId) -> bool {
        false
    }
}

fn id(slot: u32) -> ConnectionId {
    ConnectionId { slot, generation: 1 }
}

fn settings(kind: &Kind) -> Settings {
    let mut settings = Settings::with_placement(kind.placement());
    settings.sys_interval_s = 0;
    settings.hold_ms = kind.hold_ms;
    // Where it is not about what is in memory, all that is on disk is there alone.
    if kind.hold_ms == 0 {
        settings.resident_bytes_max = 0;
    }
    settings
}

/// Segments of three blocks, so that four operations see several; and, where the kind says so, a checkpoint after every
/// two, and segments emptied as soon as half of them is dead.
fn options(kind: &Kind, shard: ShardId) -> Options {
    Options {
        segment_bytes: 16 << 10,
        segment_bytes_first: 16 << 10,
        segments_first: if kind.checkpoints { RECLAIM_SEGMENTS_MIN } else { 4 },
        segments_max: 64,
        reserve: 1,
        checkpoint_tail_bytes: if kind.checkpoints { 8 << 10 } else { 1 << 30 },
        reclaim_quiet_ms: if kind.checkpoints { 0 } else { 1 << 30 },
        ..Options::new(shard, kind.shards, [9; 16])
    }
}
