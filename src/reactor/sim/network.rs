//! The simulated sockets: bounded, delayed, in order within one connection and in any order between two.
//!
//! A connection is two *ends*, each named by a number that is never reused; the host reaches its ends through
//! *descriptors*, which are reused lowest first, as a kernel does. Bytes that were sent are on their way until their
//! event comes; those on their way and those not yet read count against the receiver's bound together, as with TCP's
//! window. Sending to an end that is gone is answered by a reset, as with TCP.
//!
//! Not modelled: loss and reordering within a connection (TCP hides them), urgent data, keepalive probes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;

use super::core::{self, Core, Notice};
use super::disk::CrashKind;
use super::listening::Listener;
use super::reactor::Report;
use crate::reactor::{Completion, Errno, Socket, Token};
use crate::time::Nanos;

/// What is on its way through the network.
pub(super) enum Event {
    /// A client's wish to connect reaches the host.
    Established {
        host: u64,
        client: u64,
        address: SocketAddr,
    },
    Arrive {
        to: u64,
        from: u64,
        bytes: Vec<u8>,
    },
    EndOfStream {
        to: u64,
    },
    Reset {
        to: u64,
    },
    /// The other end has read: try a blocked send again.
    Room {
        end: u64,
    },
    /// Readable still, or again.
    Ready {
        end: u64,
    },
}

pub(super) struct End {
    peer: u64,
    /// The host's descriptor; `None` for a client's end and for one in a backlog.
    pub(super) descriptor: Option<i32>,
    inbox: VecDeque<u8>,
    /// Bytes on their way here.
    arriving: usize,
    /// Nothing may arrive here before what was sent earlier.
    last_arrival: Nanos,
    end_of_stream: bool,
    /// Reported once; reads then find the end of the stream.
    failure: Option<Errno>,
    broken: bool,
    /// We sent our end of stream.
    finished: bool,
    watch: Option<(usize, Token)>,
    /// A notice of readiness waits for the watching shard.
    ready_told: bool,
    blocked: Option<Blocked>,
    /// The host lost its power: nothing of what it sent arrives any more.
    cut: bool,
}

struct Blocked {
    shard: usize,
    token: Token,
    buffer: Vec<u8>,
    from: usize,
}

pub(super) enum Descriptor {
    Listening(SocketAddr),
    Connected(u64),
}

#[derive(Default)]
pub(super) struct Network {
    pub(super) ends: BTreeMap<u64, End>,
    ends_made: u64,
    pub(super) listeners: BTreeMap<SocketAddr, Listener>,
    pub(super) descriptors: BTreeMap<i32, Descriptor>,
    freed: BTreeSet<i32>,
    highest: i32,
    ports_taken: u16,
}

/// The first descriptor of the host: three are standard.
const DESCRIPTOR_FIRST: i32 = 3;

impl Network {
    // What the world offers.

    pub(super) fn listen(&mut self, mut address: SocketAddr, core: &mut Core) -> io::Result<Socket> {
        if address.port() == 0 {
            self.ports_taken += 1;
            address.set_port(40_000 + self.ports_taken);
        }
        if self.listeners.contains_key(&address) {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        let descriptor = self.open(Descriptor::Listening(address), core).map_err(super::to_io)?;
        self.listeners.insert(address, Listener::new());
        Ok(Socket(descriptor))
    }

    pub(super) fn duplicate(&mut self, socket: Socket, core: &mut Core) -> io::Result<Socket> {
        let address = self.local_address(socket)?;
        let descriptor = self.open(Descriptor::Listening(address), core).map_err(super::to_io)?;
        self.listeners.get_mut(&address).expect("an open descriptor keeps its listener").descriptors += 1;
        Ok(Socket(descriptor))
    }

    pub(super) fn local_address(&self, socket: Socket) -> io::Result<SocketAddr> {
        match self.descriptors.get(&socket.0) {
            Some(Descriptor::Listening(address)) => Ok(*address),
            _ => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }

    pub(super) fn connect(&mut self, address: SocketAddr, core: &mut Core) -> u64 {
        let (client, host) = (self.ends_made + 1, self.ends_made + 2);
        self.ends_made += 2;
        self.ends.insert(client, End::new(host));
        self.ends.insert(host, End::new(client));
        let at = core.now().0 + core.draw(core.settings.network_latency_ns);
        // Nothing overtakes the wish to connect.
        self.ends.get_mut(&host).expect("just made").last_arrival = Nanos(at);
        core.note(&[0x10, client]);
        core.schedule(Nanos(at), core::Event::Network(Event::Established { host, client, address }));
        client
    }

    /// The bytes that are there, at most `max`, at times fewer.
    pub(super) fn receive(&mut self, id: u64, max: usize, core: &mut Core) -> Result<Vec<u8>, Errno> {
        let Some(end) = self.ends.get_mut(&id) else { return Err(Errno(libc::EBADF)) };
        if end.inbox.is_empty() {
            return match end.failure.take() {
                Some(errno) => Err(errno),
                None if end.end_of_stream || end.broken => Ok(Vec::new()),
                None => Err(Errno(libc::EAGAIN)),
            };
        }
        let whole = end.inbox.len().min(max);
        let count = shorten(whole, core);
        let bytes: Vec<u8> = end.inbox.drain(..count).collect();
        let (peer, socket_bytes) = (end.peer, bytes.len());
        if count < whole {
            // To the reader it looks as if the rest had come just after; so that has to be reported.
            core.schedule(core.now(), core::Event::Network(Event::Ready { end: id }));
        }
        if self.ends.get(&peer).is_some_and(|peer| peer.blocked.is_some()) {
            let at = core.now().0 + core.draw(core.settings.network_latency_ns);
            core.schedule(Nanos(at), core::Event::Network(Event::Room { end: peer }));
        }
        core.note_bytes(0x11, id, &bytes);
        debug_assert!(socket_bytes > 0, "an empty read is the end of the stream");
        Ok(bytes)
    }

    /// How many bytes were taken, at least one, at times fewer than fit.
    pub(super) fn transmit(&mut self, id: u64, bytes: &[u8], core: &mut Core) -> Result<usize, Errno> {
        let Some(end) = self.ends.get_mut(&id) else { return Err(Errno(libc::EBADF)) };
        if let Some(errno) = end.failure.take() {
            return Err(errno);
        }
        if end.finished || end.broken {
            return Err(Errno(libc::EPIPE));
        }
        let peer_id = end.peer;
        let latency = core.draw(core.settings.network_latency_ns);
        let arrival = Nanos(core.now().0 + latency);
        let Some(peer) = self.ends.get_mut(&peer_id) else {
            core.schedule(arrival, core::Event::Network(Event::Reset { to: id }));
            return Ok(bytes.len());
        };
        let window = core.settings.socket_bytes_max.saturating_sub(peer.inbox.len() + peer.arriving);
        if window == 0 {
            return Err(Errno(libc::EAGAIN));
        }
        let taken = shorten(window.min(bytes.len()), core);
        peer.arriving += taken;
        // A piece and the rest, as segments come.
        let first = shorten(taken, core);
        let mut at = arrival;
        for part in [&bytes[..first], &bytes[first..taken]] {
            if part.is_empty() {
                continue;
            }
            at = at.max(peer.last_arrival);
            peer.last_arrival = at;
            let event = Event::Arrive { to: peer_id, from: id, bytes: part.to_vec() };
            core.schedule(at, core::Event::Network(event));
            at = Nanos(at.0 + core.draw(core.settings.network_latency_ns));
        }
        core.note_bytes(0x12, id, &bytes[..taken]);
        Ok(taken)
    }

    /// Send the end of the stream; what arrives is still read.
    pub(super) fn finish(&mut self, id: u64, core: &mut Core) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        if !std::mem::replace(&mut end.finished, true) {
            let peer = end.peer;
            self.dispatch(peer, Event::EndOfStream { to: peer }, core);
        }
    }

    pub(super) fn close(&mut self, id: u64, core: &mut Core) {
        self.finish(id, core);
        self.ends.remove(&id);
        core.note(&[0x13, id]);
    }

    pub(super) fn abort(&mut self, id: u64, core: &mut Core) {
        if let Some(end) = self.ends.remove(&id) {
            self.dispatch(end.peer, Event::Reset { to: end.peer }, core);
            core.note(&[0x14, id]);
        }
    }

    pub(super) fn has_unread(&self, id: u64) -> bool {
        self.ends.get(&id).is_some_and(|end| !end.inbox.is_empty())
    }

    /// After everything that was sent to `to` before.
    fn dispatch(&mut self, to: u64, event: Event, core: &mut Core) {
        let latency = core.draw(core.settings.network_latency_ns);
        if let Some(end) = self.ends.get_mut(&to) {
            end.last_arrival = end.last_arrival.max(Nanos(core.now().0 + latency));
            core.schedule(end.last_arrival, core::Event::Network(event));
        }
    }

    // What happens by itself.

    pub(super) fn perform(&mut self, event: Event, core: &mut Core) {
        match event {
            Event::Established { host, client, address } => self.establish(host, client, address, core),
            Event::Arrive { to, from, bytes } => self.arrive(to, from, bytes, core),
            Event::EndOfStream { to } => {
                if let Some(end) = self.ends.get_mut(&to).filter(|end| !end.cut) {
                    end.end_of_stream = true;
                    self.make_ready(to, core);
                }
            }
            Event::Reset { to } => self.break_end(to, core),
            Event::Room { end } => self.retry(end, core),
            Event::Ready { end } => {
                if self.ends.get(&end).is_some_and(End::readable) {
                    self.make_ready(end, core);
                }
            }
        }
    }

    fn establish(&mut self, host: u64, client: u64, address: SocketAddr, core: &mut Core) {
        if !self.ends.contains_key(&host) {
            return;
        }
        match self.listeners.get_mut(&address) {
            Some(listener) if listener.backlog.len() < core.settings.backlog_max => {
                listener.backlog.push_back(host);
            }
            Some(_) => {
                let at = core.now().plus_s(1);
                self.ends.get_mut(&host).expect("checked above").last_arrival = at;
                core.schedule(at, core::Event::Network(Event::Established { host, client, address }));
            }
            None => {
                self.ends.remove(&host);
                self.break_end(client, core);
            }
        }
    }

    fn arrive(&mut self, to: u64, from: u64, bytes: Vec<u8>, core: &mut Core) {
        let Some(end) = self.ends.get_mut(&to) else {
            let at = core.now().0 + core.draw(core.settings.network_latency_ns);
            core.schedule(Nanos(at), core::Event::Network(Event::Reset { to: from }));
            return;
        };
        end.arriving = end.arriving.saturating_sub(bytes.len());
        if end.cut || end.broken {
            return;
        }
        end.inbox.extend(bytes);
        self.make_ready(to, core);
    }

    fn break_end(&mut self, id: u64, core: &mut Core) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        if std::mem::replace(&mut end.broken, true) {
            return;
        }
        // What was not read may be lost with a reset, or may not.
        if core.random.per_mille(500) {
            end.inbox.clear();
        }
        core.note(&[0x15, id]);
        match end.blocked.take() {
            Some(blocked) => tell_sent(end, blocked, Err(Errno(libc::ECONNRESET)), core),
            None => end.failure = Some(Errno(libc::ECONNRESET)),
        }
        self.make_ready(id, core);
    }

    fn retry(&mut self, id: u64, core: &mut Core) {
        let Some(blocked) = self.ends.get_mut(&id).and_then(|end| end.blocked.take()) else { return };
        let result = self.transmit(id, &blocked.buffer[blocked.from..], core);
        let end = self.ends.get_mut(&id).expect("it had a blocked send");
        match result {
            Err(Errno(libc::EAGAIN)) => end.blocked = Some(blocked),
            result => tell_sent(end, blocked, result, core),
        }
    }

    fn make_ready(&mut self, id: u64, core: &mut Core) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        if let Some((shard, _)) = end.watch
            && !std::mem::replace(&mut end.ready_told, true)
        {
            core.tell(shard, Notice::Ready { end: id });
        }
    }

    // What reactors do.

    /// Completions of one socket keep their order under this key.
    pub(super) fn key(socket: Socket) -> u64 {
        socket.0 as u64
    }

    pub(super) fn end_of(&self, socket: Socket) -> Option<u64> {
        match self.descriptors.get(&socket.0) {
            Some(Descriptor::Connected(end)) => Some(*end),
            _ => None,
        }
    }

    fn end_mut(&mut self, socket: Socket) -> Option<&mut End> {
        let id = self.end_of(socket)?;
        self.ends.get_mut(&id)
    }

    pub(super) fn watch(
        &mut self,
        socket: Socket,
        shard: usize,
        token: Token,
        core: &mut Core,
        report: &mut Report,
    ) {
        let Some(id) = self.end_of(socket) else {
            // The read that follows will tell.
            return report.add(Network::key(socket), Completion::Ready { token });
        };
        let end = self.ends.get_mut(&id).expect("an open descriptor keeps its end");
        end.watch = Some((shard, token));
        end.ready_told = false;
        if end.readable() {
            self.make_ready(id, core);
        }
    }

    /// The token to report readiness of `end` under, if `shard` still watches it.
    pub(super) fn take_ready(&mut self, end: u64, shard: usize) -> Option<(u64, Token)> {
        let end = self.ends.get_mut(&end)?;
        let (watcher, token) = end.watch?;
        let descriptor = end.descriptor?;
        (watcher == shard).then(|| {
            end.ready_told = false;
            (Network::key(Socket(descriptor)), token)
        })
    }

    /// Whether nothing more will arrive there.
    pub(super) fn has_ended(&self, end: u64) -> bool {
        self.ends.get(&end).is_some_and(|end| end.end_of_stream || end.broken)
    }

    pub(super) fn send(
        &mut self,
        socket: Socket,
        shard: usize,
        send: (Token, Vec<u8>, usize),
        core: &mut Core,
    ) {
        let (token, buffer, from) = send;
        let result = match self.end_of(socket) {
            Some(id) => self.transmit(id, &buffer[from..], core),
            None => Err(Errno(libc::EBADF)),
        };
        if result == Err(Errno(libc::EAGAIN)) {
            let end = self.end_mut(socket).expect("it said EAGAIN");
            assert!(end.blocked.is_none(), "a second Send in flight on one socket");
            end.blocked = Some(Blocked { shard, token, buffer, from });
        } else {
            let completion = Completion::Sent { token, buffer, from, result };
            core.tell(shard, Notice::Done { key: Network::key(socket), completion });
        }
    }

    pub(super) fn cancel_send(&mut self, socket: Socket, core: &mut Core) {
        if let Some(end) = self.end_mut(socket)
            && let Some(blocked) = end.blocked.take()
        {
            tell_sent(end, blocked, Err(Errno(libc::ECANCELED)), core);
        }
    }

    pub(super) fn detach(&mut self, socket: Socket) {
        if let Some(end) = self.end_mut(socket) {
            assert!(end.blocked.is_none(), "Detach with a Send in flight");
            end.watch = None;
        }
    }

    pub(super) fn close_socket(&mut self, socket: Socket, core: &mut Core) {
        match self.descriptors.remove(&socket.0) {
            Some(Descriptor::Connected(end)) => self.close(end, core),
            Some(Descriptor::Listening(address)) => self.close_listening(socket, address, core),
            None => return,
        }
        self.freed.insert(socket.0);
    }

    pub(super) fn open(&mut self, what: Descriptor, core: &Core) -> Result<i32, Errno> {
        if self.descriptors.len() >= core.settings.descriptors_max {
            return Err(Errno(libc::EMFILE));
        }
        let descriptor = self.freed.pop_first().unwrap_or_else(|| {
            self.highest += 1;
            DESCRIPTOR_FIRST - 1 + self.highest
        });
        self.descriptors.insert(descriptor, what);
        Ok(descriptor)
    }

    /// Every socket of the host is gone.
    pub(super) fn crash(&mut self, kind: CrashKind, core: &mut Core) {
        self.listeners.clear();
        self.descriptors.clear();
        self.freed.clear();
        self.highest = 0;
        // A host's end has a client's for its peer, whose number is one less.
        let host_ends: Vec<u64> = self.ends.keys().copied().filter(|id| id % 2 == 0).collect();
        for id in host_ends {
            let peer = self.ends[&id].peer;
            match kind {
                CrashKind::Kill if self.has_unread(id) || self.ends[&id].descriptor.is_none() => {
                    self.abort(id, core)
                }
                CrashKind::Kill => self.close(id, core),
                CrashKind::PowerCut => {
                    if let Some(client) = self.ends.get_mut(&peer) {
                        client.cut = true;
                    }
                    self.abort(id, core);
                }
            }
        }
    }
}

impl End {
    fn new(peer: u64) -> End {
        End {
            peer,
            descriptor: None,
            inbox: VecDeque::new(),
            arriving: 0,
            last_arrival: Nanos(0),
            end_of_stream: false,
            failure: None,
            broken: false,
            finished: false,
            watch: None,
            ready_told: false,
            blocked: None,
            cut: false,
        }
    }

    fn readable(&self) -> bool {
        !self.inbox.is_empty() || self.end_of_stream || self.broken
    }
}

fn tell_sent(end: &End, blocked: Blocked, result: Result<usize, Errno>, core: &mut Core) {
    let Blocked { shard, token, buffer, from } = blocked;
    let descriptor = end.descriptor.expect("only the host's ends have sends that block");
    let completion = Completion::Sent { token, buffer, from, result };
    core.tell(shard, Notice::Done { key: Network::key(Socket(descriptor)), completion });
}

/// `whole`, or at times a smaller number that is not 0.
fn shorten(whole: usize, core: &mut Core) -> usize {
    let rate = core.settings.short_transfer_per_mille;
    if core.random.per_mille(rate) && whole > 1 {
        core.random.between(1, whole as u64 - 1) as usize
    } else {
        whole
    }
}
