//! Shards in one simulated world, and peers whose every byte the test decides.
//!
//! Nothing here waits: [`Rig::run_ms`] runs whoever can run and moves the virtual clock when nobody can.

use std::collections::VecDeque;
use std::io;

use crate::broker::settings::Settings;
use crate::config::AccountSource;
use crate::ids::ShardId;
use crate::journal::{self, Options, Statistics};
use crate::limits::PACKET_BYTES_MAX;
use crate::placement::Placement;
use crate::reactor::sim::{self, ClientEnd, CrashKind, SimReactor, SimStorage, World};
use crate::reactor::{self, Socket};
use crate::shard::mesh::Mesh;
use crate::shard::wrapped::Listening;
use crate::shard::{Parts, Shard, State};
use crate::time::Nanos;
use crate::wire::frame::{Peek, peek};

const HASH_KEY: [u8; 16] = [7; 16];

/// How often every shard looks into its rings before the clock moves: a message takes two hops at most, and its answer
/// as many.
const LOOKS: usize = 4;

/// How a test names a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PeerId(usize);

/// A client outside.
struct Peer {
    end: ClientEnd,
    unsent: VecDeque<u8>,
    heard: Vec<u8>,
    reads: bool,
    ended_at: Option<Nanos>,
}

impl Peer {
    /// Moves bytes both ways as far as they go.
    fn pump(&mut self, now: Nanos) {
        while !self.unsent.is_empty() {
            let (front, _) = self.unsent.as_slices();
            match self.end.try_write(front) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(_) => break,
            }
        }
        let mut buffer = [0; 4096];
        while self.reads && self.ended_at.is_none() {
            match self.end.try_read(&mut buffer) {
                Ok(0) => self.ended_at = Some(now),
                Ok(count) => self.heard.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.ended_at = Some(now),
            }
        }
    }
}

/// The shards of one process, in their world.
pub(super) struct Rig {
    pub(super) world: World,
    /// One that has stopped is gone.
    shards: Vec<Option<Shard<SimReactor, SimStorage>>>,
    storages: Vec<SimStorage>,
    /// Of the journal of the shard that stopped last.
    pub(super) written: Statistics,
    pub(super) listener: Socket,
    peers: Vec<Peer>,
    /// Reactors of processes before this one: the world goes on counting.
    reactors_before: usize,
}

impl Rig {
    /// One shard that serves, with the default settings.
    pub(super) fn new() -> Rig {
        Rig::with(1, sim::Settings::default(), |_| {})
    }

    /// That many shards that serve, of which the first accepts.
    pub(super) fn with(shards: u16, world: sim::Settings, adjust: impl Fn(&mut Settings)) -> Rig {
        let world = World::new(1, sim::Settings { turns_wait: false, ..world });
        let listener = world.listen("127.0.0.1:1883".parse().unwrap()).unwrap();
        let mut rig = Rig {
            world,
            shards: Vec::new(),
            storages: Vec::new(),
            written: Statistics::default(),
            listener,
            peers: Vec::new(),
            reactors_before: 0,
        };
        rig.start(shards, adjust);
        rig.shard(0).listen(vec![Listening::plain(listener)]);
        rig
    }

    /// The process dies, and another comes back with what is on the disk.
    pub(super) fn restart(&mut self, kind: CrashKind, adjust: impl Fn(&mut Self)) {
        let shards = u16::try_from(self.shards.len()).expect("few");
        self.world.crash(kind);
        self.reactors_before += self.shards.len();
        self.shards.clear();
        self.storages.clear();
        self.listener = self.world.listen("127.0.0.1:1883".parse().unwrap()).unwrap();
        self.start(shards, |_| {});
        adjust(self);
        let listener = self.listener;
        self.shard(0).listen(vec![Listening::plain(listener)]);
    }

    fn start(&mut self, shards: u16, adjust: impl Fn(&mut Settings)) {
        for mesh in Mesh::ends(shards) {
            let id = mesh.me();
            let reactor = self.world.reactor(reactor::Settings::default());
            let storage = self.world.directory(&format!("shard-{}", id.0));
            let options = Options::new(id, shards, HASH_KEY);
            let journal = journal::open(storage.clone(), options, 1, self.world.now()).unwrap();
            let mut settings = Settings::with_placement(placement(shards));
            adjust(&mut settings);
            let account = AccountSource::ClientId;
            let parts = Parts { reactor, journal, mesh, settings, account, name_key: [3; 16] };
            self.shards.push(Some(Shard::new(parts).unwrap().0));
            self.storages.push(storage);
        }
        self.run_until("every shard serves", |rig| rig.all_are(State::Serving));
    }

    /// A shard that has not stopped.
    pub(super) fn shard(&mut self, index: usize) -> &mut Shard<SimReactor, SimStorage> {
        self.shards[index].as_mut().expect("it has not stopped")
    }

    /// Tells a shard to stop accepting; as a doorbell would, this gives it a turn.
    pub(super) fn drain(&mut self, index: usize) {
        self.shard(index).drain();
        self.turn(index);
    }

    /// Tells a drained shard to stop.
    pub(super) fn stop(&mut self, index: usize) {
        self.shard(index).stop();
        self.turn(index);
    }

    /// Whether every shard is in that state.
    pub(super) fn all_are(&self, state: State) -> bool {
        self.shards.iter().all(|shard| shard.as_ref().map_or(State::Stopped, Shard::state) == state)
    }

    /// Connections of each shard, whatever their phase.
    pub(super) fn connections_of_each(&self) -> Vec<usize> {
        self.shards.iter().map(|shard| shard.as_ref().map_or(0, Shard::connections)).collect()
    }

    /// A peer that connects and reads whatever comes.
    pub(super) fn peer(&mut self) -> PeerId {
        self.peer_at(self.listener)
    }

    /// As above, at another listening socket.
    pub(super) fn peer_at(&mut self, listener: Socket) -> PeerId {
        let end = self.world.connect(listener).unwrap();
        self.peers.push(Peer {
            end,
            unsent: VecDeque::new(),
            heard: Vec::new(),
            reads: true,
            ended_at: None,
        });
        PeerId(self.peers.len() - 1)
    }

    /// A peer of version 3.1.1 with a clean session that has its CONNACK.
    pub(super) fn client_v3(&mut self, client_id: &str) -> PeerId {
        let peer = self.peer();
        self.say(peer, &super::bytes::connect_v3(client_id, super::bytes::Start::Clean, 0));
        assert_eq!(self.packet(peer), super::bytes::CONNACK_V3);
        peer
    }

    /// As above, and subscribed to that filter.
    pub(super) fn subscriber_v3(&mut self, client_id: &str, filter: &str, qos: u8) -> PeerId {
        let peer = self.client_v3(client_id);
        self.say(peer, &super::bytes::subscribe_v3(1, filter, qos));
        assert_eq!(self.packet(peer), super::bytes::suback_v3(1, qos));
        peer
    }

    /// Sends bytes after those said before, as fast as they are taken.
    pub(super) fn say(&mut self, peer: PeerId, bytes: &[u8]) {
        self.peers[peer.0].unsent.extend(bytes);
        self.peers[peer.0].pump(self.world.now().mono);
    }

    /// Moves what every peer has to say and to hear, as far as it goes.
    pub(super) fn pump(&mut self) {
        let now = self.now();
        self.peers.iter_mut().for_each(|peer| peer.pump(now));
    }

    /// Ends the peer's stream; what it said before is still on its way.
    pub(super) fn finish(&mut self, peer: PeerId) {
        assert!(self.peers[peer.0].unsent.is_empty(), "an end of stream would overtake what was said");
        self.peers[peer.0].end.shut_down_write();
    }

    /// Whether the peer takes what comes.
    pub(super) fn reads(&mut self, peer: PeerId, reads: bool) {
        self.peers[peer.0].reads = reads;
    }

    /// Bytes said that its socket has not taken.
    pub(super) fn unsaid(&self, peer: PeerId) -> usize {
        self.peers[peer.0].unsent.len()
    }

    /// When the peer saw the end of its connection.
    pub(super) fn ended_at(&self, peer: PeerId) -> Option<Nanos> {
        self.peers[peer.0].ended_at
    }

    /// The whole packets that the peer has heard, taken off what it heard.
    pub(super) fn packets(&mut self, peer: PeerId) -> Vec<Vec<u8>> {
        let heard = &mut self.peers[peer.0].heard;
        let mut packets = Vec::new();
        let mut from = 0;
        while let Ok(Peek::Complete { len }) = peek(&heard[from..], PACKET_BYTES_MAX) {
            packets.push(heard[from..from + len].to_vec());
            from += len;
        }
        heard.drain(..from);
        packets
    }

    /// Whether it has heard anything that was not taken off.
    pub(super) fn has_heard(&self, peer: PeerId) -> bool {
        !self.peers[peer.0].heard.is_empty()
    }

    /// All that the peer has heard, taken off what it heard.
    pub(super) fn take_heard(&mut self, peer: PeerId) -> Vec<u8> {
        std::mem::take(&mut self.peers[peer.0].heard)
    }

    /// Waits for one packet, which must be the only one.
    pub(super) fn packet(&mut self, peer: PeerId) -> Vec<u8> {
        self.run_until("a packet", |rig| {
            !matches!(peek(&rig.peers[peer.0].heard, PACKET_BYTES_MAX), Ok(Peek::Incomplete { .. }))
        });
        let mut packets = self.packets(peer);
        assert_eq!(packets.len(), 1, "more than one: {packets:02x?}");
        packets.remove(0)
    }

    /// Waits for the end of the connection; the packets heard before, and when it was.
    pub(super) fn end(&mut self, peer: PeerId) -> (Vec<Vec<u8>>, Nanos) {
        self.run_until("the end of a connection", |rig| rig.ended_at(peer).is_some());
        let packets = self.packets(peer);
        assert!(self.peers[peer.0].heard.is_empty(), "half a packet before the end");
        (packets, self.ended_at(peer).unwrap())
    }

    pub(super) fn now(&self) -> Nanos {
        self.world.now().mono
    }

    /// One turn of everyone who has something to do, or else the next event.
    pub(super) fn step(&mut self) {
        self.pump();
        let mut runnable = self.world.runnable();
        runnable.iter_mut().for_each(|index| *index -= self.reactors_before);
        if runnable.is_empty() {
            // A shard with something to do that the world does not know of would not wait.
            runnable = (0..self.shards.len()).filter(|&index| !self.rests(index)).collect();
        }
        for &index in &runnable {
            self.turn(index);
        }
        if runnable.is_empty() {
            // A shard that is awake is not rung for; in this world it sleeps outside of its turns, so it is let look.
            if self.shards.len() > 1 {
                (0..LOOKS).for_each(|_| self.turn_all());
            }
            let stopped = self.shards.iter().all(Option::is_none);
            assert!(stopped || self.world.advance_to_next_event(), "nothing will ever happen");
        }
    }

    fn rests(&self, index: usize) -> bool {
        self.shards[index].as_ref().is_none_or(Shard::rests)
    }

    fn turn_all(&mut self) {
        for index in 0..self.shards.len() {
            if self.shards[index].is_some() {
                self.turn(index);
            }
        }
    }

    /// One turn of one shard, and the growth of its journal if it wants any.
    pub(super) fn turn(&mut self, index: usize) {
        let shard = self.shards[index].as_mut().expect("one that has stopped is not runnable");
        if shard.turn().unwrap() == State::Stopped {
            self.written = shard.journal().statistics();
            self.shards[index] = None;
        } else if let Some(request) = shard.grow() {
            shard.grown(request.execute(&self.storages[index]));
        }
    }

    /// Runs for that long on the virtual clock.
    pub(super) fn run_ms(&mut self, ms: u64) {
        let until = self.now().plus_ms(ms);
        self.world.stop_clock_at(until);
        while self.now() < until {
            self.step();
        }
    }

    /// Runs until that holds; two virtual minutes are enough for anything.
    pub(super) fn run_until(&mut self, what: &str, holds: impl Fn(&Rig) -> bool) {
        let bound = self.now().plus_s(120);
        while !holds(self) {
            assert!(self.now() < bound, "waited two minutes for this: {what}");
            self.step();
        }
    }

    /// Connections of the first shard, whatever their phase.
    pub(super) fn connections(&self) -> usize {
        self.connections_of_each()[0]
    }

    /// Connections of the first shard that hold buffers.
    pub(super) fn buffers(&self) -> usize {
        let connections = &self.shards[0].as_ref().expect("it has not stopped").out.connections;
        let live = connections.all_in(crate::shard::connection::Phase::Live);
        live.filter(|id| connections.get(*id).is_some_and(|entry| entry.buffers().is_some())).count()
    }

    /// The most that waits for one peer of the first shard to take it.
    pub(super) fn backlog_bytes_max(&self) -> usize {
        self.live_entries(|entry| entry.backlog())
    }

    /// The most that is parked for one peer of the first shard.
    pub(super) fn parked_bytes_max(&self) -> usize {
        self.live_entries(|entry| entry.buffers().map_or(0, |buffers| buffers.parked.len()))
    }

    fn live_entries(&self, measure: impl Fn(&crate::shard::connection::Entry) -> usize) -> usize {
        let connections = &self.shards[0].as_ref().expect("it has not stopped").out.connections;
        connections
            .all_in(crate::shard::connection::Phase::Live)
            .filter_map(|id| connections.get(id))
            .map(measure)
            .max()
            .unwrap_or(0)
    }
}

/// The placement that every rig uses.
pub(super) fn placement(shards: u16) -> Placement {
    Placement::new(shards, HASH_KEY, None).unwrap()
}

/// A client id at home in that shard.
pub(super) fn name_at_home_in(shard: u16, shards: u16) -> String {
    let placement = placement(shards);
    (0..1_000)
        .map(|number| format!("client-{number}"))
        .find(|name| placement.home(name) == ShardId(shard))
        .expect("a thousand names find every shard")
}
