//! Between accept and the broker: who it is that connects, and whether it may.
//!
//! Decides the order: where a PROXY header is asked for, that comes first; then whatever the transport does; then CONNECT, at which
//! the listener's [guard](crate::access::guard) looks. What the guard cannot say at once a worker finds out, and nothing is read
//! meanwhile; where it asks for more, the client's AUTH is the next packet. Then the connection goes to its home, with its admission,
//! and is not asked again. Called by the loop, by `inbound` and by `handshake`.
//!
//! What is needed for that hangs on the connection's buffers ([`Entrance`]) and is gone when it is in. A CONNECT may have a password:
//! wherever it was kept, its bytes are wiped.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

use crate::access::guard::{Admission, Asked, Check, Checked, Guard, Line, Refusal, Shown, Step};
use crate::access::scram;
use crate::ids::ConnectionId;
use crate::journal::Storage;
use crate::limits::{ACCOUNT_BYTES_MAX, PROXY_HEADER_BYTES_MAX};
use crate::reactor::Reactor;
use crate::transport::proxy::{self, Progress, Source, Trusted};
use crate::wire::{Auth, Connect, Packet, ReasonCode, Version, decode};
use crate::workers::Workers;

use super::connection::{Flag, Phase};
use super::inbound::Parsing;
use super::shard::Shard;
use super::wrapped::Listening;

/// Who guards a listener, and who helps.
#[derive(Clone)]
pub struct Guarded {
    /// Looks at everybody.
    pub guard: Arc<Guard>,
    /// Find out what takes some tens of microseconds.
    pub tokens: Arc<dyn Workers<Box<Check>>>,
    /// Find out what takes some tens of milliseconds.
    pub passwords: Arc<dyn Workers<Box<Check>>>,
    /// Find out what somebody else has to be asked for.
    pub hook: Arc<dyn Workers<Box<Check>>>,
}

/// What a connection has that is not in yet. Most never have one.
#[derive(Default)]
pub struct Entrance {
    /// A PROXY header, as far as it has come; `None` if none is awaited (any more).
    header: Option<Vec<u8>>,
    /// CONNECT, while somebody finds out about it or the client has to say more; and what came behind it.
    unread: Zeroizing<Vec<u8>>,
    /// How much of that is CONNECT.
    connect: usize,
    /// What the client has to answer.
    exchange: Option<Box<Asked>>,
    /// It may come in.
    pub(super) admission: Option<Box<Admission>>,
    /// Who finds out about it looks there whether anybody still wants to know.
    _awaited: Option<Awaited>,
}

/// That something is done elsewhere for a connection, until that is gone; then whoever does it sees that nobody waits.
#[derive(Debug, Default)]
pub(super) struct Awaited(Arc<AtomicBool>);

impl Awaited {
    /// Where one sees it.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Entrance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No byte of a CONNECT, which may have a password.
        formatter.debug_struct("Entrance").field("is_asked", &self.exchange.is_some()).finish_non_exhaustive()
    }
}

impl Entrance {
    /// Of a connection that was let in elsewhere.
    pub(super) fn admitted(admission: Box<Admission>) -> Box<Entrance> {
        Box::new(Entrance { admission: Some(admission), ..Entrance::default() })
    }
}

impl<R: Reactor, S: Storage> Shard<R, S> {
    /// A connection arrived at that listener. Whether it may go on: where PROXY headers are asked for, only those who may send them
    /// are let near.
    pub(super) fn receive_at_door(&mut self, id: ConnectionId, listener: u32) -> bool {
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return false };
        let buffers = entry.buffers_mut(pool);
        buffers.listener = listener;
        let Some(Listening { acceptor, .. }) = self.listeners.get(listener as usize) else { return false };
        let Some(trusted) = &acceptor.proxies else { return true };
        if !may_vouch(trusted, buffers.peer.ip()) {
            tracing::debug!(event = "not_a_proxy", peer = %buffers.peer.ip(), "not in proxy_from of this listener: closed");
            self.lost(id);
            return false;
        }
        buffers.entrance = Some(Box::new(Entrance { header: Some(Vec::new()), ..Entrance::default() }));
        true
    }

    /// Takes the PROXY header from what was received, if one is awaited. Returns how many of these bytes it was; `None` if it is not
    /// whole, or wrong.
    pub(super) fn take_header(&mut self, id: ConnectionId, bytes: &[u8]) -> Option<usize> {
        let (entry, pool) = self.out.connections.with_pool(id)?;
        if entry.phase != Phase::Handshake {
            return Some(0);
        }
        let buffers = entry.buffers_mut(pool);
        let Some(entrance) = &mut buffers.entrance else { return Some(0) };
        let Some(header) = &mut entrance.header else { return Some(0) };
        let before = header.len();
        // What is behind it is not kept here.
        header.extend_from_slice(&bytes[..bytes.len().min(PROXY_HEADER_BYTES_MAX - before)]);
        match proxy::read(header) {
            Ok(Progress::More) => None,
            Ok(Progress::Done { taken, source }) => {
                entrance.header = None;
                if let Source::Address(address) = source {
                    buffers.peer = address;
                }
                Some(taken - before)
            }
            Err(error) => {
                tracing::debug!(event = "bad_proxy_header", peer = %buffers.peer.ip(), %error);
                self.lost(id);
                None
            }
        }
    }

    /// Whether a CONNECT may come in, if that is known now. If not, what is to be done about it has begun.
    pub(super) fn look_at(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        frame: &[u8],
        rest: &[u8],
    ) -> Result<Admission, Parsing> {
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return Err(Parsing::Stop) };
        let buffers = entry.buffers_mut(pool);
        // Of what was found out earlier nothing else counts.
        if let Some(admission) = buffers.entrance.take().and_then(|entrance| entrance.admission) {
            return Ok(*admission);
        }
        let (listener, peer) = (buffers.listener as usize, buffers.peer);
        let Some(Listening { acceptor, .. }) = self.listeners.get(listener) else {
            // The listeners are closed already: this shard stops.
            self.lost(id);
            return Err(Parsing::Stop);
        };
        let Some(guarded) = acceptor.guarded.clone() else {
            if connect.authentication_method.is_some() {
                // [MQTT-4.12.0-1]
                self.refuse(id, connect.version, ReasonCode::BadAuthenticationMethod);
                return Err(Parsing::Stop);
            }
            if connect.username.is_some_and(|name| name.len() > ACCOUNT_BYTES_MAX) {
                self.refuse(id, connect.version, ReasonCode::BadUserNameOrPassword);
                return Err(Parsing::Stop);
            }
            let is_guarded = self.listeners.iter().any(|other| other.acceptor.guarded.is_some());
            return Ok(self.identities.unproven(connect, is_guarded));
        };
        let certificate = self.out.connections.transports.get_mut(id.slot).and_then(|it| it.certificate());
        let source = (!peer.ip().is_unspecified()).then(|| peer.ip());
        let shown = Shown { connection: id, source, certificate, at: self.now.wall };
        let names = &mut self.identities;
        match guarded.guard.examine(connect, &shown, &mut self.seen, || names.nonce()) {
            Step::Admitted(admission) => Ok(*admission),
            Step::Refused(refusal) => {
                self.turn_away(id, connect.version, &refusal);
                Err(Parsing::Stop)
            }
            Step::Later(line, check) => {
                self.find_out(id, &guarded, line, check, frame, rest);
                Err(Parsing::Stop)
            }
            Step::Ask(exchange, data) => {
                let entrance = Entrance {
                    unread: frame.to_vec().into(),
                    connect: frame.len(),
                    exchange: Some(exchange),
                    ..Entrance::default()
                };
                self.keep_entrance(id, entrance);
                self.out.ask(
                    id,
                    &Auth {
                        reason: ReasonCode::ContinueAuthentication,
                        method: Some(scram::METHOD),
                        data: Some(&data),
                        reason_string: None,
                    },
                );
                Err(Parsing::Continue)
            }
        }
    }

    fn keep_entrance(&mut self, id: ConnectionId, entrance: Entrance) {
        if let Some((entry, pool)) = self.out.connections.with_pool(id) {
            entry.buffers_mut(pool).entrance = Some(Box::new(entrance));
        }
    }

    fn find_out(
        &mut self,
        id: ConnectionId,
        guarded: &Guarded,
        line: Line,
        check: Box<Check>,
        frame: &[u8],
        rest: &[u8],
    ) {
        let unread = Zeroizing::new([frame, rest].concat());
        let _awaited = Some(Awaited(check.is_over()));
        let workers = match line {
            Line::Tokens => &guarded.tokens,
            Line::Passwords => &guarded.passwords,
            Line::Hook => &guarded.hook,
        };
        if let Err(check) = workers.begin(check) {
            check.give_up();
            let why = "too many wait to have their credentials checked";
            let version = decode::announced_version(frame).unwrap_or(Version::V311);
            return self.turn_away(
                id,
                version,
                &Refusal { reason: ReasonCode::ServerBusy, why: why.to_owned() },
            );
        }
        self.keep_entrance(id, Entrance { unread, connect: frame.len(), _awaited, ..Entrance::default() });
        if let Some(entry) = self.out.connections.get_mut(id) {
            entry.set(Flag::Held);
        }
    }

    /// Somebody has found out.
    pub fn checked(&mut self, done: Checked) {
        let guards = self.listeners.iter().filter_map(|listening| listening.acceptor.guarded.as_ref());
        let is_current = guards.into_iter().any(|guarded| guarded.guard.stands_by(&done));
        let Checked { connection: id, result, seen, .. } = done;
        if let Some((token, claims)) = seen
            && is_current
        {
            self.seen.put(&token, &claims);
        }
        let Some(entry) = self.out.connections.in_phase(id, Phase::Handshake) else { return };
        entry.clear(Flag::Held);
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return };
        let Some(entrance) = &mut entry.buffers_mut(pool).entrance else { return };
        let unread = std::mem::take(&mut entrance.unread);
        match result {
            Ok(admission) => {
                // What it was checked against may not hold any more: then it is looked at anew.
                entrance.admission = Some(admission).filter(|_| is_current);
                self.parse(id, &unread);
            }
            Err(refusal) => {
                let version = decode::announced_version(&unread).unwrap_or(Version::V311);
                self.turn_away(id, version, &refusal);
            }
        }
        self.out.needs_flush(id);
        self.out.connections.undefer(id);
        self.out.connections.settle(id);
    }

    /// Whether the next packet is the client's answer, and not its CONNECT.
    pub(super) fn is_asked(&self, id: ConnectionId) -> bool {
        let buffers = self.out.connections.get(id).and_then(|entry| entry.buffers());
        buffers
            .and_then(|buffers| buffers.entrance.as_ref())
            .is_some_and(|entrance| entrance.exchange.is_some())
    }

    /// The client's answer, or what it says instead.
    pub(super) fn answered(&mut self, id: ConnectionId, frame: &[u8], rest: &[u8]) -> Parsing {
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return Parsing::Stop };
        let buffers = entry.buffers_mut(pool);
        let (listener, peer) = (buffers.listener as usize, buffers.peer);
        let Some(mut entrance) = buffers.entrance.take() else { return Parsing::Stop };
        let unread = std::mem::take(&mut entrance.unread);
        let Ok(Packet::Connect(connect)) = decode::packet(&unread[..entrance.connect], None) else {
            unreachable!("it was decoded before");
        };
        let data =
            match decode::packet(frame, Some(Version::V5)) {
                Ok(Packet::Auth(Auth {
                    reason: ReasonCode::ContinueAuthentication, method, data, ..
                })) if method == Some(scram::METHOD) => data.unwrap_or_default(),
                Ok(Packet::Disconnect(_)) => {
                    self.hang_up(id);
                    return Parsing::Stop;
                }
                // [MQTT-4.12.0-3] [MQTT-4.12.0-5]
                _ => {
                    self.refuse(id, Version::V5, ReasonCode::ProtocolError);
                    return Parsing::Stop;
                }
            };
        let guarded = self.listeners.get(listener).and_then(|listening| listening.acceptor.guarded.clone());
        let (Some(guarded), Some(exchange)) = (guarded, entrance.exchange.take()) else {
            self.lost(id);
            return Parsing::Stop;
        };
        let source = (!peer.ip().is_unspecified()).then(|| peer.ip());
        let shown = Shown { connection: id, source, certificate: None, at: self.now.wall };
        match guarded.guard.finish(&connect, &shown, *exchange, data) {
            Ok(admission) => self.enter(id, &connect, *admission, &unread, rest),
            Err(refusal) => {
                self.turn_away(id, Version::V5, &refusal);
                Parsing::Stop
            }
        }
    }

    /// Refuses somebody, and says so in the log.
    fn turn_away(&mut self, id: ConnectionId, version: Version, refusal: &Refusal) {
        let buffers = self.out.connections.get(id).and_then(|entry| entry.buffers());
        if let Some(buffers) = buffers {
            let listening = self.listeners.get(buffers.listener as usize);
            let guarded = listening.and_then(|listening| listening.acceptor.guarded.as_ref());
            tracing::debug!(
                event = "turned_away",
                peer = %buffers.peer.ip(),
                listener = guarded.map(|guarded| guarded.guard.listener()),
                reason = ?refusal.reason,
                why = refusal.why
            );
        }
        self.refuse(id, version, refusal.reason);
    }
}

/// An IPv4 proxy may show itself in IPv6; one on this host, through a Unix socket, has no address.
fn may_vouch(trusted: &Trusted, peer: std::net::IpAddr) -> bool {
    peer.is_unspecified() || trusted.contains(peer.to_canonical())
}
