//! From accept to CONNECT: who may wait, for how long, and to which shard the connection belongs.
//!
//! Decides the home of a connection and gives an empty client id a name; whether the CONNECT is accepted is the
//! broker's business. Called by the loop and by `inbound`.
//!
//! A stranger costs one entry, at most [`CONNECT_BYTES_MAX`](crate::limits::CONNECT_BYTES_MAX) and
//! [`HANDSHAKE_TIME_MS`]; there are at most [`HANDSHAKES_PENDING_MAX`] of them per shard, and then the oldest gives way. A connection moves at most
//! once: the shard it was accepted by reads its CONNECT, the home shard reads that again and keeps it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::Hasher;
use std::net::SocketAddr;

use siphasher::sip::SipHasher13;
use zeroize::Zeroizing;

use crate::access::guard::{AccountSource, Admission};
use crate::access::passport::Passport;
use crate::broker::input::Input;
use crate::ids::{ConnectionId, ShardId};
use crate::journal::Storage;
use crate::limits::{HANDSHAKE_TIME_MS, HANDSHAKES_PENDING_MAX};
use crate::placement::Placement;
use crate::reactor::{Errno, Op, Reactor, Socket};
use crate::time::Nanos;
use crate::wire::{Connack, Connect, Packet, ReasonCode, Version, decode};

use super::connection::{Flag, Phase};
use super::entrance::Entrance;
use super::inbound::Parsing;
use super::mesh::Adopted;
use super::shard::Shard;
use super::target::Target;

/// Characters of an assigned client id: each is five random bits. Letters that look like digits are left out.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Random characters of an assigned client id: 100 bits, so that it cannot be guessed.
const ASSIGNED_CHARACTERS: usize = 20;

/// Of those that have waited longest, how many are looked at to find one that can give way: it costs each newcomer this much.
const OLDEST_LOOKED_AT_MAX: usize = 64;

/// What the account of a client that has proven nothing begins with, where others prove theirs: no name that is proven has it.
const UNPROVEN_MARK: char = '\u{1}';

/// Connections that have not sent their CONNECT.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    pending: usize,
    /// When each is closed, in order: the time is the same for all. Those that are through stay until they are at the
    /// front.
    deadlines: VecDeque<(Nanos, ConnectionId)>,
    /// When a failure to accept may be logged again.
    quiet_until: Nanos,
}

impl Handshakes {
    fn begun(&mut self, id: ConnectionId, now: Nanos) {
        self.pending += 1;
        self.deadlines.push_back((now.plus_ms(HANDSHAKE_TIME_MS), id));
    }

    /// One of them is through, refused or gone.
    pub(super) fn ended(&mut self) {
        assert!(self.pending > 0, "every handshake ends once");
        self.pending -= 1;
    }

    /// When the next one is due.
    pub(super) fn next_deadline(&self) -> Nanos {
        self.deadlines.front().map_or(Nanos::NEVER, |(due, _)| *due)
    }
}

/// Which account a connection belongs to, and where that is at home.
#[derive(Debug)]
pub(super) struct Identities {
    placement: Placement,
    source: AccountSource,
    shard: ShardId,
    key: [u8; 16],
    assigned: u64,
}

impl Identities {
    pub(super) fn new(
        placement: Placement,
        source: AccountSource,
        shard: ShardId,
        key: [u8; 16],
    ) -> Identities {
        Identities { placement, source, shard, key, assigned: 0 }
    }

    /// Of a client that nobody asks for a proof. Its account is empty where it is the client id; a user name that is empty is none.
    /// Where others do have to prove theirs, it gets one that nobody can have proven, so that it meets nobody's sessions.
    pub(super) fn unproven(&self, connect: &Connect<'_>, others_prove: bool) -> Admission {
        let account = match self.source {
            AccountSource::ClientId => "",
            AccountSource::Username => connect.username.unwrap_or(""),
        };
        let account = match (others_prove, account) {
            (false, account) => account.into(),
            (true, "") => format!("{UNPROVEN_MARK}{}", connect.client_id).into(),
            (true, account) => format!("{UNPROVEN_MARK}{account}").into(),
        };
        Admission { account, client_id: None, passport: Passport::default() }
    }

    /// Bytes that nobody can foresee, for an exchange of proofs.
    pub(super) fn nonce(&mut self) -> [u8; 18] {
        let mut nonce = [0; 18];
        for chunk in nonce.chunks_mut(8) {
            chunk.copy_from_slice(&self.random().to_le_bytes()[..chunk.len()]);
        }
        nonce
    }

    fn random(&mut self) -> u64 {
        self.assigned += 1;
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u64(self.assigned);
        hasher.finish()
    }

    fn home(&self, account: &str, client_id: &str) -> ShardId {
        self.placement.home(if account.is_empty() { client_id } else { account })
    }

    /// A client id that nobody has, at home here unless the account says otherwise.
    fn assign(&mut self, account: &str) -> String {
        loop {
            let client_id = self.random_name();
            // One of as many attempts as there are shards fits, on average.
            if !account.is_empty() || self.home(account, &client_id) == self.shard {
                return client_id;
            }
        }
    }

    fn random_name(&mut self) -> String {
        let mut name = String::from("auto-");
        let mut bits = 0;
        for character in 0..ASSIGNED_CHARACTERS {
            if character % 12 == 0 {
                bits = self.random();
            }
            name.push(char::from(ALPHABET[(bits & 31) as usize]));
            bits >>= 5;
        }
        name
    }
}

impl<R: Reactor, S: Storage> Shard<R, S> {
    /// A connection arrived at a listener.
    pub(super) fn accepted(&mut self, listener: u32, result: Result<(Socket, SocketAddr), Errno>) {
        let (socket, peer) = match result {
            Ok(accepted) => accepted,
            Err(errno) => return self.cannot_accept(errno),
        };
        let is_full = self.handshakes.pending >= HANDSHAKES_PENDING_MAX;
        if self.is_draining() || is_full && !self.make_way() {
            return self.out.submit(Op::Close { socket, token: Target::Refused.token() });
        }
        if let Some(id) = self.admit(socket, peer) {
            self.handshakes.begun(id, self.now.mono);
            if self.receive_at_door(id, listener) {
                self.wrap(id, listener);
                self.hear_newcomer(id);
            }
        }
    }

    /// Of those that we wait for, the one that we have waited for longest gives way to a newcomer: who has something to say says
    /// it at once, and whoever holds many connections open displaces its own. Nobody does whom others look at for us.
    pub(super) fn make_way(&mut self) -> bool {
        let connections = &self.out.connections;
        let waits = |id: ConnectionId| connections.get(id).filter(|entry| entry.phase == Phase::Handshake);
        let deadlines = &mut self.handshakes.deadlines;
        while deadlines.front().is_some_and(|(_, id)| waits(*id).is_none()) {
            deadlines.pop_front();
        }
        let is_waited_for = |id: &ConnectionId| waits(*id).is_some_and(|entry| !entry.is(Flag::Held));
        let oldest = deadlines.iter().take(OLDEST_LOOKED_AT_MAX).map(|(_, id)| *id).find(is_waited_for);
        oldest.inspect(|id| self.hang_up(*id)).is_some()
    }

    fn cannot_accept(&mut self, errno: Errno) {
        if self.handshakes.quiet_until <= self.now.mono {
            self.handshakes.quiet_until = self.now.mono.plus_s(10);
            tracing::warn!(
                event = "cannot_accept",
                shard = self.id().0,
                error = %errno,
                "connections wait; raise the limit of open files (LimitNOFILE) or add memory"
            );
        }
    }

    /// Gives the socket an entry and watches it.
    fn admit(&mut self, socket: Socket, peer: SocketAddr) -> Option<ConnectionId> {
        let Some(id) = self.out.connections.insert(socket, peer) else {
            self.out.submit(Op::Close { socket, token: Target::Refused.token() });
            return None;
        };
        self.out.submit(Op::Watch { socket, token: Target::Connection(id).token() });
        Some(id)
    }

    /// A connection of ours that another shard accepted.
    pub(super) fn adopt(&mut self, adopted: Adopted) {
        let Adopted { socket, peer, listener, transport, unread, admission } = adopted;
        if let Some(id) = self.admit(socket, peer) {
            if let Some((entry, pool)) = self.out.connections.with_pool(id) {
                entry.set(Flag::ConnectPaid);
                let buffers = entry.buffers_mut(pool);
                buffers.listener = listener;
                buffers.entrance = Some(Entrance::admitted(admission));
            }
            if let Some(transport) = transport {
                self.out.connections.wrap(id, transport);
                self.out.needs_flush(id);
            }
            // It is through when its CONNECT is handled, which is now; so it is never one of those that wait.
            self.handshakes.pending += 1;
            self.parse(id, &unread);
            self.out.connections.settle(id);
        }
    }

    /// The socket is watched by nobody: off to its home.
    pub(super) fn detached(&mut self, id: ConnectionId, socket: Socket) {
        let Some((home, adopted)) = self.moving.remove(&id) else {
            unreachable!("only a moving connection is detached");
        };
        debug_assert_eq!(adopted.socket, socket);
        self.out.connections.remove(id);
        self.out.mesh.adopt(home, adopted);
    }

    /// The first packet of a connection, and what came behind it.
    pub(super) fn first_packet(&mut self, id: ConnectionId, frame: &[u8], rest: &[u8]) -> Parsing {
        if self.is_asked(id) {
            return self.answered(id, frame, rest);
        }
        let connect = match decode::packet(frame, None) {
            Ok(Packet::Connect(connect)) => connect,
            // Anything but CONNECT comes too early [MQTT-3.1.0-1].
            Ok(_) => {
                self.hang_up(id);
                return Parsing::Stop;
            }
            Err(error) => {
                self.bad_first_packet(id, error.reason, frame);
                return Parsing::Stop;
            }
        };
        // A v3 client without a name cannot find its session again, so it may not ask for one [MQTT-3.1.1 3.1.3-8].
        if connect.client_id.is_empty() && !connect.version.is_v5() && !connect.clean_start {
            self.refuse(id, connect.version, ReasonCode::ClientIdentifierNotValid);
            return Parsing::Stop;
        }
        let looked_at = match self.pay_for_connect(id, &connect) {
            Ok(()) => self.look_at(id, &connect, frame, rest),
            Err(parsing) => return parsing,
        };
        match looked_at {
            Ok(admission) => self.enter(id, &connect, admission, frame, rest),
            Err(parsing) => parsing,
        }
    }

    /// Somebody may come in: to the home of its account, which tells the broker.
    pub(super) fn enter(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        mut admission: Admission,
        frame: &[u8],
        rest: &[u8],
    ) -> Parsing {
        let assigned = connect.client_id.is_empty();
        let name: Cow<'_, str> = match admission.client_id.take() {
            Some(client_id) if assigned => client_id.into_string().into(),
            _ if assigned => self.identities.assign(&admission.account).into(),
            _ => connect.client_id.into(),
        };
        let client_id = &*name;
        let home = self.identities.home(&admission.account, client_id);
        if home != self.id() {
            // There it has the name that it was given here.
            admission.client_id = assigned.then(|| client_id.into());
            self.move_home(id, home, Box::new(admission), frame, rest);
            return Parsing::Stop;
        }
        let Admission { account, passport, .. } = &admission;
        if let Err(parsing) = self.pay_as(id, connect, account, client_id) {
            return parsing;
        }
        self.remember_prover(id, account, client_id, passport);
        self.handshakes.ended();
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return Parsing::Stop };
        entry.phase = Phase::Live;
        entry.version = Some(connect.version);
        let peer = entry.buffers_mut(pool).peer.ip();
        let connection = id;
        self.input(Input::Connect { connection, connect, client_id, assigned, account, passport, peer });
        match self.out.connections.get(id) {
            Some(entry) if entry.phase == Phase::Live => Parsing::Continue,
            _ => Parsing::Stop,
        }
    }

    fn move_home(
        &mut self,
        id: ConnectionId,
        home: ShardId,
        admission: Box<Admission>,
        frame: &[u8],
        rest: &[u8],
    ) {
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return };
        // Who has received all of a handshake has taken what we sent. What is left was sent behind it, to somebody who
        // does not read: it cannot be taken along, for the kernel may still be at it.
        if entry.backlog() > 0 {
            return self.lost(id);
        }
        self.handshakes.ended();
        entry.phase = Phase::Moving;
        let socket = entry.socket;
        let buffers = entry.buffers_mut(pool);
        let (peer, listener) = (buffers.peer, buffers.listener);
        let unread = Zeroizing::new([frame, rest].concat());
        let transport = self.out.connections.transports.remove(id.slot);
        self.moving.insert(id, (home, Adopted { socket, peer, listener, transport, unread, admission }));
        self.out.submit(Op::Detach { socket, token: Target::Connection(id).token() });
    }

    /// What `bytes` begins with is no CONNECT that we take.
    pub(super) fn bad_first_packet(&mut self, id: ConnectionId, reason: ReasonCode, bytes: &[u8]) {
        let announced = decode::announced_version(bytes);
        match (announced, reason) {
            // A level we do not speak is answered in the nearest that we do: 0x84 [MQTT-3.1.2-2], or 1 for what is
            // older than 5 [MQTT-3.1.1 3.1.2-2].
            (None, ReasonCode::UnsupportedProtocolVersion) => {
                let old = announced_level(bytes).is_some_and(|level| level < Version::V5 as u8);
                self.refuse(id, if old { Version::V311 } else { Version::V5 }, reason);
            }
            (Some(Version::V5), _) => self.refuse(id, Version::V5, reason),
            (
                Some(version),
                ReasonCode::ClientIdentifierNotValid | ReasonCode::UnsupportedProtocolVersion,
            ) => {
                self.refuse(id, version, reason);
            }
            // Earlier versions have no word for it: the connection is closed [MQTT-3.1.1 4.8.0-1].
            _ => self.hang_up(id),
        }
    }

    pub(super) fn refuse(&mut self, id: ConnectionId, version: Version, reason: ReasonCode) {
        self.handshakes.ended();
        self.out.refuse(id, version, &Connack::new(reason));
    }

    /// Closes whoever has not sent a CONNECT in time.
    pub(super) fn expire_handshakes(&mut self) {
        while let Some((due, id)) = self.handshakes.deadlines.front().copied() {
            let waits = self.out.connections.in_phase(id, Phase::Handshake).is_some();
            if waits && due > self.now.mono {
                return;
            }
            self.handshakes.deadlines.pop_front();
            if waits {
                self.hang_up(id);
            }
        }
    }
}

/// The protocol level in a CONNECT, whatever its protocol name.
fn announced_level(frame: &[u8]) -> Option<u8> {
    let length = frame.get(1..)?.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let (name_length, rest) = frame.get(1 + length..)?.split_first_chunk::<2>()?;
    rest.get(usize::from(u16::from_be_bytes(*name_length))).copied()
}
