//! Connections through TLS: an independent client's records in, packets out, and who waits for whom.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use rustls::ClientConnection;

use super::bytes::{CONNACK_V3, PINGREQ, PINGRESP, Start, connect_v3, publish_v3, suback_v3, subscribe_v3};
use super::rig::{PeerId, Rig, name_at_home_in};
use crate::limits::HANDSHAKE_TIME_MS;
use crate::rates::{Rates, Scope, Shared, What};
use crate::reactor::{Socket, sim};
use crate::shard::wrapped::{Acceptor, Listening, Wrapper};
use crate::transport::handshake::Handshake;
use crate::transport::tests::credentials::{Credentials, client};
use crate::workers::{Work, Workers};

/// Workers that work when the test says so.
#[derive(Default)]
struct Lazy(Mutex<Vec<Handshake>>);

impl Workers<Handshake> for Lazy {
    fn begin(&self, handshake: Handshake) -> Result<(), Handshake> {
        self.0.lock().unwrap().push(handshake);
        Ok(())
    }
}

/// Shards of which the first has a listener for TLS.
struct Front {
    rig: Rig,
    listener: Socket,
    workers: Arc<Lazy>,
    credentials: Credentials,
}

/// A peer that speaks TLS.
struct Peer {
    id: PeerId,
    client: ClientConnection,
    heard: Vec<u8>,
    /// Bytes of one segment.
    piece: usize,
}

impl Front {
    fn new(shards: u16) -> Front {
        let mut rig = Rig::with(shards, sim::Settings::default(), |_| {});
        let listener = rig.world.listen("127.0.0.1:8883".parse().unwrap()).unwrap();
        let (workers, credentials) = (Arc::new(Lazy::default()), Credentials::new(&["localhost"]));
        let wrapper = Wrapper { layers: credentials.layers(), workers: workers.clone() };
        let acceptor = Acceptor { wrapper: Some(wrapper), ..Acceptor::default() };
        rig.shard(0).listen(vec![Listening { socket: listener, acceptor }]);
        rig.run_ms(1);
        Front { rig, listener, workers, credentials }
    }

    fn peer(&mut self) -> Peer {
        let id = self.rig.peer_at(self.listener);
        Peer { id, client: client(&self.credentials, "localhost"), heard: Vec::new(), piece: usize::MAX }
    }

    /// Lets the workers do all there is.
    fn work(&mut self) {
        let jobs = std::mem::take(&mut *self.workers.0.lock().unwrap());
        for job in jobs {
            self.rig.shard(0).handshaken(job.execute());
        }
    }

    /// Moves records both ways for that long.
    fn run_ms(&mut self, peer: &mut Peer, ms: u64) {
        for _ in 0..ms {
            peer.speak(&mut self.rig);
            self.rig.run_ms(1);
            self.work();
            peer.hear(&mut self.rig);
        }
    }
}

impl Peer {
    fn say(&mut self, packets: &[u8]) {
        self.client.writer().write_all(packets).unwrap();
    }

    fn speak(&mut self, rig: &mut Rig) {
        let mut wire = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut wire).unwrap();
        }
        for piece in wire.chunks(self.piece.min(wire.len().max(1))) {
            rig.say(self.id, piece);
            if self.piece < usize::MAX {
                rig.run_ms(1);
            }
        }
    }

    fn hear(&mut self, rig: &mut Rig) {
        let wire = rig.take_heard(self.id);
        let mut wire = wire.as_slice();
        while !wire.is_empty() && self.client.read_tls(&mut wire).unwrap() > 0 {
            if self.client.process_new_packets().is_err() {
                return;
            }
            // It holds so much and no more. At the end there is an error that says that there is no more for now.
            let _more_may_come = self.client.reader().read_to_end(&mut self.heard);
        }
    }
}

#[test]
fn packets_go_both_ways_however_records_are_cut() {
    for piece in [1, 100, usize::MAX] {
        let mut front = Front::new(1);
        let mut peer = front.peer();
        peer.piece = piece;
        peer.say(&connect_v3("a", Start::Clean, 0));
        peer.say(&subscribe_v3(1, "t", 0));
        front.run_ms(&mut peer, 100);
        assert_eq!(peer.heard, [CONNACK_V3.as_slice(), &suback_v3(1, 0)].concat(), "pieces of {piece}");
        peer.heard.clear();
        peer.say(&publish_v3(0, "t", &[7; 50_000]));
        front.run_ms(&mut peer, 300);
        assert!(peer.heard == publish_v3(0, "t", &[7; 50_000]), "{} bytes", peer.heard.len());
    }
}

#[test]
fn an_idle_connection_has_its_transport_and_no_buffer() {
    let mut front = Front::new(1);
    let mut peer = front.peer();
    peer.say(&connect_v3("a", Start::Clean, 0));
    front.run_ms(&mut peer, 100);
    assert_eq!(front.rig.connections(), 1);
    assert_eq!(front.rig.buffers(), 0);
    assert_eq!(front.rig.shard(0).out.connections.transports.len(), 1);
    peer.say(&PINGREQ);
    front.run_ms(&mut peer, 10);
    assert!(peer.heard.ends_with(&PINGRESP));
    assert_eq!(front.rig.buffers(), 0);
}

#[test]
fn a_connection_takes_its_transport_along_to_its_home() {
    let mut front = Front::new(2);
    let mut peer = front.peer();
    // Behind the end of the handshake in one segment: the ticket was not sent yet when the connection moves.
    peer.say(&connect_v3(&name_at_home_in(1, 2), Start::Clean, 0));
    peer.say(&PINGREQ);
    front.run_ms(&mut peer, 200);
    assert_eq!(peer.heard, [CONNACK_V3.as_slice(), &PINGRESP].concat());
    assert_eq!(front.rig.connections_of_each(), [0, 1]);
    assert_eq!(front.rig.shard(0).out.connections.transports.len(), 0);
    peer.say(&PINGREQ);
    front.run_ms(&mut peer, 50);
    assert!(peer.heard.ends_with(&PINGRESP));
}

#[test]
fn who_leaves_while_a_worker_has_the_transport_leaves_nothing_behind() {
    let mut front = Front::new(1);
    let mut peer = front.peer();
    peer.speak(&mut front.rig);
    front.rig.run_ms(10);
    assert_eq!(front.workers.0.lock().unwrap().len(), 1, "it has the transport");
    // What comes now is not read: the transport that could take it is away.
    front.rig.say(peer.id, b"more");
    front.rig.run_ms(HANDSHAKE_TIME_MS + 1_000);
    assert_eq!(front.rig.connections(), 0);
    front.work();
    front.rig.run_ms(10);
    assert_eq!(front.rig.connections(), 0);
    assert_eq!(front.rig.shard(0).out.connections.transports.len(), 0);
    // Its place among those that wait is free again, and so is its slot.
    let mut next = front.peer();
    next.say(&connect_v3("b", Start::Clean, 0));
    front.run_ms(&mut next, 100);
    assert_eq!(next.heard, CONNACK_V3);
}

#[test]
fn what_is_no_tls_is_answered_with_an_alert_and_closed() {
    let mut front = Front::new(1);
    let stranger = front.rig.peer_at(front.listener);
    front.rig.say(stranger, &connect_v3("a", Start::Clean, 0));
    front.rig.run_ms(10);
    front.work();
    front.rig.run_until("the end of the connection", |rig| rig.ended_at(stranger).is_some());
    let heard = front.rig.take_heard(stranger);
    assert_eq!((heard[0], heard.len()), (21, 7), "an alert record [RFC 8446 5.1]");
    front.rig.run_ms(1_000);
    assert_eq!(front.rig.connections(), 0);
}

#[test]
fn the_last_word_of_a_refused_client_arrives_with_a_proper_end() {
    let mut front = Front::new(1);
    let mut peer = front.peer();
    // Without a name a session cannot be found again [MQTT-3.1.1 3.1.3-8].
    peer.say(&connect_v3("", Start::Kept, 0));
    front.run_ms(&mut peer, 100);
    assert_eq!(peer.heard, [0x20, 2, 0, 2]);
    assert_eq!(peer.client.reader().read(&mut [0]).unwrap(), 0, "a close_notify came");
    assert_eq!(front.rig.connections(), 0);
}

#[test]
fn a_broken_record_ends_a_session_that_lives() {
    let mut front = Front::new(1);
    let mut peer = front.peer();
    peer.say(&connect_v3("a", Start::Clean, 0));
    front.run_ms(&mut peer, 100);
    front.rig.say(peer.id, b"\x17\x03\x03\x00\x20 this was not encrypted by anybody");
    front.rig.run_until("the end of the connection", |rig| rig.ended_at(peer.id).is_some());
    front.rig.run_ms(1_000);
    assert_eq!(front.rig.connections(), 0);
}

/// Workers with no room in their line.
struct Full;

impl Workers<Handshake> for Full {
    fn begin(&self, handshake: Handshake) -> Result<(), Handshake> {
        Err(handshake)
    }
}

#[test]
fn for_whom_there_is_no_room_in_the_line_is_closed_and_nobody_else() {
    let mut rig = Rig::with(1, sim::Settings::default(), |_| {});
    let listener = rig.world.listen("127.0.0.1:8884".parse().unwrap()).unwrap();
    let layers = Credentials::new(&["localhost"]).layers();
    let wrapper = Some(Wrapper { layers, workers: Arc::new(Full) });
    let acceptor = Acceptor { wrapper, ..Acceptor::default() };
    rig.shard(0).listen(vec![Listening { socket: listener, acceptor }]);
    rig.run_ms(1);
    let other = rig.client_v3("other");
    let peer = rig.peer_at(listener);
    rig.say(peer, b"\x16\x03\x01");
    rig.run_until("the end of the connection", |rig| rig.ended_at(peer).is_some());
    rig.say(other, &PINGREQ);
    assert_eq!(rig.packet(other), PINGRESP);
}

#[test]
fn handshakes_in_excess_wait_in_line_and_those_that_would_wait_too_long_are_closed() {
    let mut front = Front::new(1);
    let mut rates = Rates::default();
    rates.by_scope[Scope::Global as usize][What::Handshakes as usize] = Some("1/s burst 1".parse().unwrap());
    front.rig.shard(0).limit(Arc::new(Shared::new(rates, [5; 16])));
    let mut peers: Vec<Peer> = (0..10).map(|_| front.peer()).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.say(&connect_v3(&format!("client-{number}"), Start::Clean, 0));
        peer.speak(&mut front.rig);
        front.rig.run_ms(1);
    }
    let mut through = Vec::new();
    for _second in 0..7 {
        for peer in &mut peers {
            front.run_ms(peer, 100);
        }
        through.push(peers.iter().filter(|peer| peer.heard == CONNACK_V3).count());
    }
    assert_eq!(through.last(), Some(&6), "what fits into RATE_HANDSHAKE_WAIT_MS, and the burst: {through:?}");
    assert!(through.windows(2).all(|pair| pair[1] - pair[0] <= 1), "one a second: {through:?}");
    let closed = peers.iter().filter(|peer| front.rig.ended_at(peer.id).is_some()).count();
    assert_eq!(closed, 4, "the others");
    let mut late = front.peer();
    late.say(&connect_v3("late", Start::Clean, 0));
    front.run_ms(&mut late, 1_500);
    assert_eq!(late.heard, CONNACK_V3, "for whom was closed nobody waits");
}

#[test]
fn nobody_gives_way_to_a_newcomer_while_a_worker_has_its_transport() {
    // What is done beyond HANDSHAKES_PENDING_MAX, done by hand.
    let mut front = Front::new(1);
    let mut peers = [front.peer(), front.peer()];
    peers.iter_mut().for_each(|peer| peer.speak(&mut front.rig));
    front.rig.run_ms(10);
    assert_eq!(front.workers.0.lock().unwrap().len(), 2);
    assert!(!front.rig.shard(0).make_way());
    let silent = front.peer();
    front.rig.run_ms(10);
    assert!(front.rig.shard(0).make_way() && !front.rig.shard(0).make_way());
    front.rig.run_ms(10);
    assert!(front.rig.ended_at(silent.id).is_some());
    assert!(peers.iter().all(|peer| front.rig.ended_at(peer.id).is_none()), "they have said who they are");
}
