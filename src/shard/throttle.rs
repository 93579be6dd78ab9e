//! Rate limits at work: who pays when, who is told, and who waits until when.
//!
//! Decides what becomes of excess; what is within a limit, [`rates`](crate::rates) does. Called by the loop, by `inbound`,
//! `handshake`, `entrance` and `wrapped`.
//!
//! | what | paid for | in excess |
//! |---|---|---|
//! | handshakes | when the first bytes for a transport come | waits in line for [`RATE_HANDSHAKE_WAIT_MS`] at most, else closed |
//! | connects | when the CONNECT is there, before anybody looks at proofs; by client and account when they are known | CONNACK 0x9F |
//! | publishes, bytes | with each packet, also in debt | its packets wait until that is paid, or DISCONNECT 0x96 |
//! | subscriptions | with each SUBSCRIBE, as a whole | SUBACK 0x97 |
//!
//! Whoever sends a packet that is much work waits in the same way, limits or not (`inbound`).
//!
//! What is used up of limits that outlive a restart, the broker is told, which writes it down, and is asked for it when limits begin
//! to hold: their buckets go on from there. (Every other bucket begins full.)
//!
//! Who waits is paused as by the broker: acknowledgements and pings are handled, the rest is parked, and when too much is, not
//! read. It is our clock that ends the wait, so nobody is closed for waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::broker::input::Input;
use crate::hash::ByNumber;
use crate::ids::ConnectionId;
use crate::journal::Storage;
use crate::limits::{PARKED_BYTES_MAX, RATE_HANDSHAKE_WAIT_MS};
use crate::rates::{self, Exceeded, Excess, Meter, Shared, What, Who};
use crate::reactor::Reactor;
use crate::time::Nanos;
use crate::wire::{Connect, Packet, ReasonCode};

use super::connection::{Flag, Phase};
use super::inbound::Parsing;
use super::shard::Shard;

/// What has been used up, and who waits.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// None if nobody is limited in anything.
    meter: Option<Meter>,
    /// Connections pay for what they send.
    watches: bool,
    /// Whose buckets each connection pays from, by slot.
    who: ByNumber<u64, Who>,
    until: BTreeMap<ConnectionId, Nanos>,
    /// The same in the order of time.
    queue: BTreeSet<(Nanos, ConnectionId)>,
}

/// What a packet has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Charge {
    /// It is within the limits.
    Paid,
    /// It is taken; what follows waits.
    Owes(Nanos),
    /// It is not taken.
    Refused,
}

impl Throttle {
    /// Whether packets have to be paid for.
    pub(super) fn watches(&self) -> bool {
        self.watches
    }

    /// Whether that connection waits.
    pub(super) fn waits(&self, id: ConnectionId) -> bool {
        !self.until.is_empty() && self.until.contains_key(&id)
    }

    /// Whether something has been used up that is to be written down.
    fn has_passed(&self) -> bool {
        self.meter.as_ref().is_some_and(Meter::has_passed)
    }

    /// When the first of those that wait may go on.
    pub(super) fn next_deadline(&self) -> Nanos {
        self.queue.first().map_or(Nanos::NEVER, |(until, _)| *until)
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        if self.watches {
            self.who.remove(&u64::from(id.slot));
        }
        if !self.until.is_empty() {
            self.end_wait(id);
        }
    }

    /// It goes on then.
    pub(super) fn begin_wait(&mut self, id: ConnectionId, until: Nanos) {
        let until = self.until.get(&id).map_or(until, |other| until.max(*other));
        self.end_wait(id);
        self.until.insert(id, until);
        self.queue.insert((until, id));
    }

    fn end_wait(&mut self, id: ConnectionId) {
        if let Some(until) = self.until.remove(&id) {
            self.queue.remove(&(until, id));
        }
    }

    fn charge(&mut self, id: ConnectionId, packet: &Packet<'_>, bytes: usize, now: Nanos) -> Charge {
        let (Some(meter), Some(who)) = (&mut self.meter, self.who.get(&u64::from(id.slot))) else {
            return Charge::Paid;
        };
        if let Packet::Subscribe(subscribe) = packet
            && meter.limits(What::Subscriptions)
            && let Err(exceeded) =
                meter.pays(What::Subscriptions, who, subscribe.filters().count() as u64, now)
        {
            say(meter, &exceeded, now);
            return Charge::Refused;
        }
        let mut owed = meter.owes(What::Bytes, who, bytes as u64, now);
        if matches!(packet, Packet::Publish(_)) {
            let other = meter.owes(What::Publishes, who, 1, now);
            owed = owed.into_iter().chain(other).max_by_key(|exceeded| exceeded.until);
        }
        let Some(exceeded) = owed else { return Charge::Paid };
        say(meter, &exceeded, now);
        match meter.excess() {
            Excess::Pause => Charge::Owes(exceeded.until),
            Excess::Disconnect => Charge::Refused,
        }
    }
}

impl<R: Reactor, S: Storage> Shard<R, S> {
    /// The limits that hold from now on.
    pub fn limit(&mut self, shared: Arc<Shared>) {
        let is_limited = rates::WHATS.into_iter().any(|what| shared.rates().limit(what));
        let mut meter = is_limited.then(|| Meter::new(shared));
        if let Some(meter) = &mut meter {
            // Not from the meter that was here: in another `Shared` names have other hashes.
            for (names, number, full_at) in self.broker.spent() {
                if let Some(limit) = rates::limit_of(number) {
                    meter.resume(limit, names, full_at, self.now);
                }
            }
        }
        self.throttle.watches = meter.as_ref().is_some_and(Meter::watches);
        self.throttle.meter = meter;
    }

    /// Whether a stranger's CONNECT is within the limits of where it comes from.
    pub(super) fn pay_for_connect(&mut self, id: ConnectionId, connect: &Connect<'_>) -> Result<(), Parsing> {
        let now = self.now.mono;
        let Some((peer, listener)) = self.whence(id) else { return Err(Parsing::Stop) };
        let Some(meter) = &mut self.throttle.meter else { return Ok(()) };
        // It comes by here again when somebody has found out about it, and when it has moved.
        if self.out.connections.get_mut(id).is_none_or(|entry| entry.set(Flag::ConnectPaid)) {
            return Ok(());
        }
        let paid = meter.stranger_pays(What::Connects, peer, listener, now);
        self.or_refuse(id, connect, paid)
    }

    /// The same of whom it has turned out to be; and whose buckets it pays from, from now on.
    pub(super) fn pay_as(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        account: &str,
        client_id: &str,
    ) -> Result<(), Parsing> {
        let now = self.now.mono;
        if self.throttle.meter.is_none() {
            return Ok(());
        }
        let Some((peer, listener)) = self.whence(id) else { return Err(Parsing::Stop) };
        let Some(meter) = &mut self.throttle.meter else { return Ok(()) };
        let who = meter.who(account, client_id, peer, listener);
        let paid = meter.connects(&who, now);
        if self.throttle.watches {
            self.throttle.who.insert(id.slot.into(), who);
        }
        if self.throttle.has_passed() {
            self.tell_of_passed([account, client_id]);
        }
        self.or_refuse(id, connect, paid)
    }

    fn or_refuse(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        paid: Result<(), Exceeded>,
    ) -> Result<(), Parsing> {
        paid.map_err(|exceeded| {
            if let Some(meter) = &mut self.throttle.meter {
                say(meter, &exceeded, self.now.mono);
            }
            self.refuse(id, connect.version, ReasonCode::ConnectionRateExceeded);
            Parsing::Stop
        })
    }

    /// Whether a handshake may begin now with these bytes. If not, it waits, or is closed.
    pub(super) fn pay_for_handshake(&mut self, id: ConnectionId, bytes: &[u8]) -> bool {
        let now = self.now.mono;
        let Some((peer, listener)) = self.whence(id) else { return false };
        let Some(meter) = &mut self.throttle.meter else { return true };
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return false };
        if entry.phase != Phase::Handshake || entry.set(Flag::HandshakePaid) {
            return true;
        }
        let latest = now.plus_ms(RATE_HANDSHAKE_WAIT_MS);
        match meter.stranger_waits(What::Handshakes, peer, listener, (now, latest)) {
            Ok(None) => return true,
            Ok(Some(exceeded)) => {
                say(meter, &exceeded, now);
                entry.set(Flag::Held);
                entry.buffers_mut(pool).partial = bytes.to_vec();
                self.throttle.begin_wait(id, exceeded.until);
            }
            Err(exceeded) => {
                say(meter, &exceeded, now);
                self.lost(id);
            }
        }
        false
    }

    /// What a packet of a live connection comes to.
    pub(super) fn charge(&mut self, id: ConnectionId, packet: &Packet<'_>, bytes: usize) -> Charge {
        let charge = self.throttle.charge(id, packet, bytes, self.now.mono);
        if self.throttle.has_passed() {
            let names = self.broker.names(id).map(|names| names.map(str::to_owned));
            let [account, client_id] = names.expect("the broker knows who is live");
            self.tell_of_passed([&account, &client_id]);
        }
        charge
    }

    /// Tells the broker what the one who has just paid has used up.
    fn tell_of_passed(&mut self, [account, client_id]: [&str; 2]) {
        let passed = self.throttle.meter.as_mut().map(Meter::take_passed).unwrap_or_default();
        for one in passed {
            let [account, client_id] = one.names(account, client_id);
            let (limit, full_at) = (rates::number_of(one.scope, one.what), one.full_at(self.now));
            self.input(Input::Spent { account, client_id, limit, full_at });
        }
    }

    /// Nothing more of it is handled until then, but for what may overtake.
    pub(super) fn wait_until(&mut self, id: ConnectionId, until: Nanos) {
        if self.out.connections.in_phase(id, Phase::Live).is_some() {
            self.throttle.begin_wait(id, until);
            self.input(Input::Throttled { connection: id, on: true });
        }
    }

    /// Lets those go on whose time has come.
    pub(super) fn end_waits(&mut self) {
        while let Some((_, id)) =
            self.throttle.queue.first().copied().filter(|(until, _)| *until <= self.now.mono)
        {
            self.throttle.end_wait(id);
            self.go_on(id);
        }
    }

    fn go_on(&mut self, id: ConnectionId) {
        let now = self.now.mono;
        let Some((entry, pool)) = self.out.connections.with_pool(id) else { return };
        match entry.phase {
            Phase::Live => {
                let buffers = entry.buffers_mut(pool);
                // If it is paused for another reason as well, that one counts from here.
                if buffers.parked.len() >= PARKED_BYTES_MAX {
                    buffers.parked_since = now;
                    self.out.watch(id);
                }
                self.input(Input::Throttled { connection: id, on: false });
            }
            Phase::Handshake => {
                entry.clear(Flag::Held);
                let mut bytes = std::mem::take(&mut entry.buffers_mut(pool).partial);
                if !bytes.is_empty() {
                    self.unwrap(id, &mut bytes);
                }
                self.out.connections.undefer(id);
            }
            _ => {}
        }
        self.out.connections.settle(id);
    }

    /// Tells the broker, for `$SYS`.
    pub(super) fn tell_of_excess(&mut self) {
        if let Some(meter) = &self.throttle.meter {
            let exceeded = meter.counts();
            self.input(Input::Exceeded { exceeded });
        }
    }

    /// Where a connection comes from; known until it is in.
    fn whence(&self, id: ConnectionId) -> Option<(IpAddr, u32)> {
        let buffers = self.out.connections.get(id)?.buffers()?;
        Some((buffers.peer.ip(), buffers.listener))
    }
}

fn say(meter: &mut Meter, exceeded: &Exceeded, now: Nanos) {
    if meter.is_news(exceeded, now) {
        tracing::warn!(
            event = "rate_limited",
            what = exceeded.what.word(),
            scope = exceeded.scope.word(),
            wait_ms = exceeded.until.ms_since(now),
            "more than [rate_limits] allows; $SYS/broker/limits counts how often"
        );
    }
}
