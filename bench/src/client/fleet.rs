//! Thousands of clients on one thread: opens sessions a few at a time, then turns one epoll batch into frames.
//!
//! Decides: how a session is opened (CONNECT, CONNACK, then its one SUBSCRIBE, if it has one), and that everything a
//! batch of frames caused is written once per connection at the batch's end. Does not decide what a PUBLISH or an
//! acknowledgement means: a scenario's closure gets them. A refusal, a lost connection or a broken packet ends the run,
//! unless the scenario has said of a client that the server may end it ([`Fleet::may_end`]).
//!
//! Invariants: a client marked dirty is in `links.dirty` (which may also name one that was closed since); a closed slot is
//! `None` until it is reopened.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::codec::{self, Connack, Connect, Frame, Version, Will, kind};
use super::credentials;
use super::dial;
use super::link::{Arrived, Link};
use super::refusal::Refusal;
use super::tls::{self, Tls};
use crate::measure::clock;
use crate::poll::{Interest, Poller};

/// Sessions being opened at once. Below any common listen backlog, so that no SYN is dropped and retried a second later.
const OPENING_MAX: usize = 64;

/// One read takes at most this much: many small packets per system call, and it stays in the second-level cache.
const SCRATCH_BYTES: usize = 256 << 10;

/// What one session asks for.
pub struct Session {
    pub client_id: String,
    /// Forget an earlier session, and this one when the connection ends.
    pub clean: bool,
    /// A filter and the QoS to ask for.
    pub subscription: Option<(String, u8)>,
}

/// Where and how all sessions of a fleet connect.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    pub target: SocketAddr,
    pub version: Version,
    pub keep_alive_s: u16,
}

/// How long a durable session of a 5.0 client outlives its connection.
const SESSION_EXPIRY_S: u32 = 24 * 3_600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    AwaitsConnack,
    AwaitsSuback,
    Open,
    /// DISCONNECT is queued: the end of the stream is expected.
    Leaving,
}

/// One client: its connection and what CONNACK said.
pub struct Client {
    link: Link,
    stage: Stage,
    dirty: bool,
    /// The server may end it, which is then no failure.
    may_end: bool,
    pub session_present: bool,
    /// How many QoS 1 and 2 messages the server takes at once.
    pub receive_maximum: u16,
}

/// The fleet's connections, as a scenario's closure sees them.
#[derive(Default)]
pub struct Links {
    clients: Vec<Option<Client>>,
    dirty: Vec<u32>,
    /// PINGRESPs so far.
    pub pongs: u64,
    /// Clients that the server has ended, of those that it may.
    pub ended_by_server: u64,
}

impl Links {
    /// The outgoing bytes of client `index`; whatever is appended is written at the end of the turn.
    pub fn outbound(&mut self, index: usize) -> &mut Vec<u8> {
        &mut self.marked(index).link.outbound
    }

    /// Client `index`, marked to be written to at the end of the turn.
    fn marked(&mut self, index: usize) -> &mut Client {
        let client =
            self.clients[index].as_mut().expect("a scenario writes only to clients it has not closed");
        if !client.dirty {
            client.dirty = true;
            self.dirty.push(index as u32);
        }
        client
    }

    /// Client `index`, unless its connection has ended.
    pub fn client(&self, index: usize) -> Option<&Client> {
        self.clients[index].as_ref()
    }
}

/// Clients, the epoll set that watches them, and one read buffer for all.
pub struct Fleet {
    dialect: Dialect,
    tls: Option<Tls>,
    poller: Poller,
    pub links: Links,
    scratch: Vec<u8>,
    opening: usize,
    alive: usize,
    /// Handshakes at once while `open` opens sessions.
    pub opening_max: usize,
    /// The will that a client leaves with the server whenever it connects.
    pub wills: Option<Box<dyn Fn(usize) -> Option<Will> + Send>>,
    /// What a client shows as its password, with an empty name.
    pub passwords: Option<Box<dyn Fn(usize) -> Vec<u8> + Send>>,
}

/// The closure for a phase in which nothing but handshakes may arrive.
pub fn nothing_expected(_: &mut Links, index: usize, frame: &Frame<'_>) -> Result<()> {
    bail!("client {index} got packet type {} before anything was published", frame.kind())
}

impl Fleet {
    pub fn new(dialect: Dialect) -> Result<Fleet> {
        let poller = Poller::new().context("creating an epoll set")?;
        let scratch = vec![0; SCRATCH_BYTES];
        let links = Links::default();
        let any_password = || Box::new(|_| credentials::ANY_PASSWORD.to_vec()) as Box<_>;
        Ok(Fleet {
            dialect,
            tls: tls::spoken_at(dialect.target),
            poller,
            links,
            scratch,
            opening: 0,
            alive: 0,
            opening_max: OPENING_MAX,
            wills: None,
            passwords: credentials::are_required_at(dialect.target).then(any_password),
        })
    }

    /// How many clients there are, closed ones included.
    pub fn len(&self) -> usize {
        self.links.clients.len()
    }

    /// Opens sessions `self.len()..count`. Frames other than the handshake's go to `on_frame`.
    pub fn open(
        &mut self,
        count: usize,
        deadline: Instant,
        session: &impl Fn(usize) -> Session,
        on_frame: &mut impl FnMut(&mut Links, usize, &Frame<'_>) -> Result<()>,
    ) -> Result<()> {
        loop {
            while self.opening < self.opening_max && self.len() < count {
                self.start(session(self.len()))?;
            }
            if self.opening == 0 {
                return Ok(());
            }
            if clock::now() >= deadline {
                return Err(Refusal::TimeIsOver { open: self.len() - self.opening, wanted: count }.into());
            }
            self.turn_with(Duration::from_millis(100), session, on_frame)?;
        }
    }

    /// Dials one more client and queues its CONNECT.
    fn start(&mut self, session: Session) -> Result<()> {
        let client = self.dial(self.len(), session)?;
        self.links.clients.push(Some(client));
        Ok(())
    }

    /// Dials client `index`, whose connection has ended, once more. It is open after some turns of `turn_opening`.
    pub fn reopen(&mut self, index: usize, session: Session) -> Result<()> {
        ensure!(self.is_closed(index), "client {index} is still connected");
        let client = self.dial(index, session)?;
        self.links.clients[index] = Some(client);
        Ok(())
    }

    /// What the clients and the server agreed on, where they speak TLS.
    pub fn negotiated(&self) -> Option<String> {
        self.links.clients.iter().flatten().find_map(|client| client.link.negotiated())
    }

    /// Whether the connection of client `index` has ended.
    pub fn is_closed(&self, index: usize) -> bool {
        self.links.client(index).is_none()
    }

    /// Whether client `index` is connected and neither in its handshake nor leaving.
    pub fn is_open(&self, index: usize) -> bool {
        self.links.client(index).is_some_and(|client| client.stage == Stage::Open)
    }

    /// How many handshakes are under way.
    pub fn opening(&self) -> usize {
        self.opening
    }

    fn dial(&mut self, index: usize, session: Session) -> Result<Client> {
        let Dialect { target, version, keep_alive_s } = self.dialect;
        let stream = dial::dial(target, index).with_context(|| format!("connecting client {index}"))?;
        let mut link = Link::register(stream, &self.poller, index as u64, Interest::ReadWrite)
            .with_context(|| format!("watching client {index}"))?;
        let session_expiry_s = if session.clean { 0 } else { SESSION_EXPIRY_S };
        let client_id = session.client_id.as_bytes();
        let connect = Connect { version, client_id, clean: session.clean, keep_alive_s, session_expiry_s };
        let will = self.wills.as_ref().and_then(|wills| wills(index));
        codec::encode_connect(&mut link.outbound, &connect, will.as_ref());
        if let Some(passwords) = &self.passwords {
            credentials::add(&mut link.outbound, &passwords(index));
        }
        if let Some(tls) = &self.tls {
            link.wrap(tls.connection()?);
        }
        let stage = Stage::AwaitsConnack;
        self.opening += 1;
        self.alive += 1;
        Ok(Client {
            link,
            stage,
            dirty: false,
            may_end: false,
            session_present: false,
            receive_maximum: u16::MAX,
        })
    }

    /// Handles one batch of ready connections, waiting for it up to `wait`, then writes what it caused.
    pub fn turn(
        &mut self,
        wait: Duration,
        on_frame: &mut impl FnMut(&mut Links, usize, &Frame<'_>) -> Result<()>,
    ) -> Result<()> {
        debug_assert_eq!(self.opening, 0, "sessions are opened by `open`");
        self.turn_with(wait, &no_session, on_frame)
    }

    /// The same while clients come back: they have the subscriptions that their sessions kept.
    pub fn turn_opening(
        &mut self,
        wait: Duration,
        on_frame: &mut impl FnMut(&mut Links, usize, &Frame<'_>) -> Result<()>,
    ) -> Result<()> {
        let returning = |_| Session { client_id: String::new(), clean: false, subscription: None };
        self.turn_with(wait, &returning, on_frame)
    }

    fn turn_with(
        &mut self,
        wait: Duration,
        session: &impl Fn(usize) -> Session,
        on_frame: &mut impl FnMut(&mut Links, usize, &Frame<'_>) -> Result<()>,
    ) -> Result<()> {
        self.flush_dirty()?;
        let count = self.poller.wait(Some(wait))?;
        for event in 0..count {
            let ready = self.poller.ready(event);
            let index = ready.token as usize;
            if ready.writable {
                self.flush(index)?;
            }
            if ready.readable {
                self.read(index, session, on_frame)?;
            }
        }
        self.flush_dirty()
    }

    /// Writes everything queued since the last time, one write per connection.
    pub fn flush_dirty(&mut self) -> Result<()> {
        while let Some(index) = self.links.dirty.pop() {
            if let Some(client) = &mut self.links.clients[index as usize] {
                client.dirty = false;
                self.flush(index as usize)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, index: usize) -> Result<()> {
        let Some(client) = &mut self.links.clients[index] else { return Ok(()) };
        match client.link.flush(&self.poller) {
            Err(_) if client.may_end => self.ended(index),
            done => done.with_context(|| format!("writing to client {index}")),
        }
    }

    fn read(
        &mut self,
        index: usize,
        session: &impl Fn(usize) -> Session,
        on_frame: &mut impl FnMut(&mut Links, usize, &Frame<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(client) = &mut self.links.clients[index] else { return Ok(()) };
        let arrived = match client.link.read(&mut self.scratch) {
            Err(_) if client.may_end => Arrived::End,
            arrived => arrived.with_context(|| format!("reading client {index}"))?,
        };
        if client.link.has_more_to_say() {
            self.links.marked(index);
        }
        let end = match arrived {
            Arrived::Nothing => return Ok(()),
            Arrived::Bytes(end) => end,
            Arrived::End => return self.ended(index),
        };
        // The frames borrow the buffer while handling them borrows the fleet.
        let scratch = std::mem::take(&mut self.scratch);
        let handled = self.frames(index, &scratch[..end], session, on_frame);
        self.scratch = scratch;
        handled
    }

    fn frames(
        &mut self,
        index: usize,
        mut bytes: &[u8],
        session: &impl Fn(usize) -> Session,
        on_frame: &mut impl FnMut(&mut Links, usize, &Frame<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut open = self.links.client(index).is_some_and(|client| client.stage == Stage::Open);
        while let Some(frame) = codec::split_frame(bytes)? {
            if open {
                match frame.kind() {
                    kind::PINGRESP => self.links.pongs += 1,
                    kind::DISCONNECT if self.links.client(index).is_some_and(|client| client.may_end) => {}
                    kind::DISCONNECT => bail!("the server disconnected client {index}: {:02x?}", frame.bytes),
                    _ => on_frame(&mut self.links, index, &frame)?,
                }
            } else {
                self.handshake(index, &frame, session, on_frame)?;
                open = self.links.client(index).is_some_and(|client| client.stage == Stage::Open);
            }
            bytes = &bytes[frame.bytes.len()..];
        }
        if let Some(client) = &mut self.links.clients[index] {
            client.link.keep(bytes);
        }
        Ok(())
    }

    /// A frame for a client that is not open: the next step of its handshake, or a message of a session that was kept.
    fn handshake(
        &mut self,
        index: usize,
        frame: &Frame<'_>,
        session: &impl Fn(usize) -> Session,
        on_frame: &mut impl FnMut(&mut Links, usize, &Frame<'_>) -> Result<()>,
    ) -> Result<()> {
        let version = self.dialect.version;
        let Some(client) = &mut self.links.clients[index] else { return Ok(()) };
        match (client.stage, frame.kind()) {
            (Stage::AwaitsConnack, kind::CONNACK) => {
                let Connack { session_present, reason, receive_maximum } =
                    codec::parse_connack(frame, version)?;
                if reason != 0 {
                    return Err(Refusal::Connack { client: index, reason }.into());
                }
                client.session_present = session_present;
                client.receive_maximum = receive_maximum.max(1);
                match session(index).subscription {
                    Some((filter, qos)) => {
                        client.stage = Stage::AwaitsSuback;
                        let out = self.links.outbound(index);
                        codec::encode_subscribe(out, version, 1, filter.as_bytes(), qos);
                    }
                    None => self.opened(index),
                }
            }
            (Stage::AwaitsSuback, kind::SUBACK) => {
                let granted = codec::parse_suback(frame, version)?;
                let asked = session(index).subscription.map_or(0, |(_, qos)| qos);
                ensure!(granted == asked, "client {index} asked for QoS {asked}, SUBACK says {granted:#04x}");
                self.opened(index);
            }
            (Stage::AwaitsSuback, kind::PUBLISH | kind::PUBREL) => on_frame(&mut self.links, index, frame)?,
            (Stage::Leaving, _) => {}
            (stage, other) => bail!("client {index} ({stage:?}) got packet type {other}"),
        }
        Ok(())
    }

    fn opened(&mut self, index: usize) {
        if let Some(client) = &mut self.links.clients[index] {
            client.stage = Stage::Open;
            self.opening -= 1;
        }
    }

    fn ended(&mut self, index: usize) -> Result<()> {
        let Some(client) = self.links.client(index) else { return Ok(()) };
        let Client { stage, may_end, .. } = *client;
        if !may_end && stage != Stage::Leaving {
            return Err(Refusal::Closed { client: index, in_handshake: stage != Stage::Open }.into());
        }
        self.links.ended_by_server += u64::from(stage != Stage::Leaving);
        self.abandon(index);
        Ok(())
    }

    /// Closes the connection of client `index` at once, without DISCONNECT: a network that is gone.
    pub fn abandon(&mut self, index: usize) {
        let Some(client) = self.links.clients[index].take() else { return };
        self.opening -= usize::from(matches!(client.stage, Stage::AwaitsConnack | Stage::AwaitsSuback));
        self.alive -= 1;
    }

    /// Abandons whoever is in its handshake: no more are wanted, or none came.
    pub fn abandon_opening(&mut self) {
        for index in 0..self.len() {
            if !self.is_open(index) {
                self.abandon(index);
            }
        }
    }

    /// From now on the server may end client `index`, which is counted then and is no failure.
    pub fn may_end(&mut self, index: usize) {
        if let Some(client) = &mut self.links.clients[index] {
            client.may_end = true;
        }
    }

    /// Stops to read what client `index` is sent, or begins again.
    pub fn pause(&mut self, index: usize, paused: bool) -> Result<()> {
        let Some(client) = &mut self.links.clients[index] else { return Ok(()) };
        client.link.pause(&self.poller, paused).with_context(|| format!("pausing client {index}"))
    }

    /// Queues a PINGREQ for client `index`; its answer is counted in `links.pongs`.
    pub fn ping(&mut self, index: usize) {
        codec::encode_empty(self.links.outbound(index), kind::PINGREQ);
    }

    /// Sends DISCONNECT to client `index`, unless it has left; whatever it is sent from now on it does not see.
    pub fn leave_one(&mut self, index: usize) {
        if self.links.client(index).is_none_or(|client| client.stage == Stage::Leaving) {
            return;
        }
        codec::encode_empty(self.links.outbound(index), kind::DISCONNECT);
        if let Some(client) = &mut self.links.clients[index] {
            client.stage = Stage::Leaving;
        }
    }

    /// Sends DISCONNECT on every connection and waits until the server has closed them all.
    ///
    /// Waiting for the server leaves TIME_WAIT with it and proves that it has handled the DISCONNECT.
    pub fn leave(mut self, deadline: Instant) -> Result<()> {
        (0..self.len()).for_each(|index| self.leave_one(index));
        while self.alive > 0 {
            ensure!(clock::now() < deadline, "{} clients were not closed after DISCONNECT", self.alive);
            self.turn(Duration::from_millis(100), &mut |_, _, _| Ok(()))?;
        }
        Ok(())
    }
}

/// The session of a fleet that opens none.
fn no_session(_: usize) -> Session {
    unreachable!("no client is in a handshake outside `open`")
}
