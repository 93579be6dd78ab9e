//! The simulated listening sockets: which shard gets a connection, and what happens when there are no descriptors.
//!
//! Whichever shard has its turn first accepts, as with kernels, where several descriptors of one socket wake everyone.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::core::{self, Core};
use super::network::{Descriptor, Network};
use super::reactor::Report;
use crate::reactor::{Completion, Errno, Settings, Socket, Token};
use crate::time::Nanos;

/// A listening address of the host.
pub(super) struct Listener {
    /// Connected ends that nobody accepted yet.
    pub(super) backlog: VecDeque<u64>,
    /// How many are open; with the last one the address is free.
    pub(super) descriptors: usize,
    acceptors: Vec<Acceptor>,
}

/// A shard that accepts from it.
struct Acceptor {
    shard: usize,
    descriptor: i32,
    token: Token,
    paused_until: Nanos,
    reported: bool,
}

impl Listener {
    pub(super) fn new() -> Listener {
        Listener { backlog: VecDeque::new(), descriptors: 1, acceptors: Vec::new() }
    }
}

impl Network {
    pub(super) fn close_listening(&mut self, socket: Socket, address: SocketAddr, core: &mut Core) {
        let listener = self.listeners.get_mut(&address).expect("an open descriptor keeps its listener");
        listener.acceptors.retain(|acceptor| acceptor.descriptor != socket.0);
        listener.descriptors -= 1;
        if listener.descriptors == 0 {
            let listener = self.listeners.remove(&address).expect("found above");
            for end in listener.backlog {
                self.abort(end, core);
            }
        }
    }

    pub(super) fn accept_on(
        &mut self,
        socket: Socket,
        shard: usize,
        token: Token,
        core: &Core,
        report: &mut Report,
    ) {
        let listener = match self.descriptors.get(&socket.0) {
            Some(Descriptor::Listening(address)) => self.listeners.get_mut(address),
            _ => None,
        };
        let Some(listener) = listener else {
            let result = Err(Errno(libc::EINVAL));
            return report.add(Network::key(socket), Completion::Accepted { token, result });
        };
        let (descriptor, paused_until) = (socket.0, core.now());
        listener.acceptors.push(Acceptor { shard, descriptor, token, paused_until, reported: false });
    }

    pub(super) fn can_accept(&self, shard: usize, now: Nanos) -> bool {
        self.listeners.values().filter(|listener| !listener.backlog.is_empty()).any(|listener| {
            listener.acceptors.iter().any(|acceptor| acceptor.shard == shard && acceptor.paused_until <= now)
        })
    }

    /// Accept for `shard` what its bounds allow.
    pub(super) fn accept(&mut self, shard: usize, settings: &Settings, core: &mut Core, report: &mut Report) {
        let addresses: Vec<SocketAddr> = self.listeners.keys().copied().collect();
        for address in addresses {
            for _ in 0..settings.accepts_max.max(1) {
                if !self.accept_one(address, shard, settings, core, report) {
                    break;
                }
            }
        }
    }

    fn accept_one(
        &mut self,
        address: SocketAddr,
        shard: usize,
        settings: &Settings,
        core: &mut Core,
        report: &mut Report,
    ) -> bool {
        let full = self.descriptors.len() >= core.settings.descriptors_max;
        let listener = self.listeners.get_mut(&address).expect("listeners do not end in a turn's accepting");
        let mine = |acceptor: &&mut Acceptor| acceptor.shard == shard && acceptor.paused_until <= core.now();
        let Some(acceptor) = listener.acceptors.iter_mut().find(mine) else { return false };
        let (key, token) = (Network::key(Socket(acceptor.descriptor)), acceptor.token);
        if listener.backlog.is_empty() {
            acceptor.reported = false;
            return false;
        }
        if full {
            acceptor.paused_until = core.now().plus_ms(settings.accept_retry_ms);
            core.schedule(acceptor.paused_until, core::Event::Wake);
            if !std::mem::replace(&mut acceptor.reported, true) {
                report.add(key, Completion::Accepted { token, result: Err(Errno(libc::EMFILE)) });
            }
            return false;
        }
        acceptor.reported = false;
        let end = listener.backlog.pop_front().expect("checked above");
        let descriptor = self.open(Descriptor::Connected(end), core).expect("there is room for one more");
        self.ends.get_mut(&end).expect("an end in the backlog is kept").descriptor = Some(descriptor);
        core.note(&[0x16, end, shard as u64]);
        let client = Ipv4Addr::from(0x0A00_0000 | (end as u32 & 0x00FF_FFFF));
        let peer = SocketAddr::new(IpAddr::V4(client), 50_000);
        report.add(key, Completion::Accepted { token, result: Ok((Socket(descriptor), peer)) });
        true
    }
}
