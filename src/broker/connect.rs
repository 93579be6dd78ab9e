//! CONNECT: who it is, which session it gets, and when CONNACK may say so.
//!
//! A session that outlives its connection is on disk before its client hears of it, and an old session that a clean
//! start ends is off the disk before that; a clean start without either writes nothing.

use super::Broker;
use super::await_durable::Waiter;
use super::connection::Connection;
use super::effect::{CloseReason, Effect, Effects};
use super::overload::Step;
use super::session::{self, NO_SLOT, Session};
use crate::access::passport::Passport;
use crate::ids::{ConnectionId, Lsn};
use crate::limits;
use crate::record::Record;
use crate::time::{Nanos, UnixMs};
use crate::wire::{Connack, Connect, Packet, ReasonCode, Version};

/// Whose session it is.
pub(super) struct Name<'a> {
    /// Empty where it is the client id.
    pub(super) account: &'a str,
    pub(super) client_id: &'a str,
    /// Whether we have made the client id up.
    pub(super) assigned: bool,
}

impl Broker {
    /// A valid CONNECT of a connection that belongs here.
    pub(super) fn connect(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        name: &Name<'_>,
        passport: &Passport,
        effects: &mut impl Effects,
    ) {
        let Name { account, client_id, assigned } = *name;
        let identity = session::identity(account, client_id);
        let old = self.sessions.find(&identity);
        let refusal = self.connect_refusal(connect, client_id, old).or_else(|| {
            (!self.may_leave(connect, account, client_id, passport)).then_some(ReasonCode::NotAuthorized)
        });
        if let Some(reason) = refusal {
            refuse(id, connect.version, reason, effects);
            return;
        }
        let mut session_present = false;
        let mut slot = NO_SLOT;
        if let Some(old) = old {
            self.take_over(old, effects);
            // Taking over ends a session that did not outlive its connection.
            if let Some(old) = self.sessions.find(&identity) {
                if connect.clean_start {
                    self.end_session(old, effects);
                } else {
                    session_present = true;
                    slot = old;
                }
            }
        }
        if slot == NO_SLOT {
            slot = self.create_session(identity.clone(), connect.version);
        }
        let record = self.attach(id, slot, connect, effects);
        self.keep_passport(id, passport);
        if session_present {
            self.judge_subscriptions(slot, effects);
            self.suspect_queue(slot);
        }
        let waiter = Waiter::Connack { connection: id, session_present, assigned };
        let waits_for = match self.await_end(&identity, waiter) {
            Ok(()) => return effects.perform(Effect::Hold { connection: id }),
            Err(end) => record.max(end),
        };
        if waits_for > self.durable {
            effects.perform(Effect::Hold { connection: id });
            self.awaiting.push(self.lsn, waiter);
        } else {
            self.connack(id, session_present, assigned, effects);
        }
    }

    /// Why a CONNECT is not accepted.
    fn connect_refusal(
        &self,
        connect: &Connect<'_>,
        client_id: &str,
        old: Option<u32>,
    ) -> Option<ReasonCode> {
        if self.draining.is_some() {
            return Some(ReasonCode::ServerUnavailable);
        }
        if client_id.len() > limits::CLIENT_ID_BYTES_MAX {
            return Some(ReasonCode::ClientIdentifierNotValid);
        }
        if old.is_none() && self.sessions.len() >= self.settings.sessions_max {
            return Some(ReasonCode::QuotaExceeded);
        }
        if old.is_none() && self.gives_way(Step::NewcomersRefused) {
            return Some(ReasonCode::ServerBusy);
        }
        if self.disk_reserve_reached && self.expiry_asked(connect) > 0 && old.is_none() {
            return Some(ReasonCode::QuotaExceeded);
        }
        None
    }

    /// Seconds the session is to outlive the connection.
    fn expiry_asked(&self, connect: &Connect<'_>) -> u32 {
        let asked = match connect.version {
            Version::V5 => connect.session_expiry.unwrap_or(0),
            _ if connect.clean_start => 0,
            _ => u32::MAX,
        };
        asked.min(self.settings.session_expiry_max_s)
    }

    fn create_session(&mut self, identity: Box<str>, version: Version) -> u32 {
        let key = self.sessions.next_key();
        self.sessions.insert(Session::new(key, identity, version))
    }

    /// Bind the connection to its session; the result is the record to wait for, if any.
    fn attach(
        &mut self,
        id: ConnectionId,
        slot: u32,
        connect: &Connect<'_>,
        effects: &mut impl Effects,
    ) -> Lsn {
        let mut connection = Connection::new(id, slot, connect.version);
        let stated = connect.receive_maximum.map_or(u16::MAX, std::num::NonZeroU16::get);
        connection.window = stated.min(self.settings.send_window);
        connection.packet_bytes_max = connect.maximum_packet_size.unwrap_or(u32::MAX);
        connection.aliases_out_max =
            connect.topic_alias_maximum.unwrap_or(0).min(limits::TOPIC_ALIASES_OUT_MAX);
        connection.problem_information = connect.request_problem_information;
        self.connections.insert(id, connection);
        self.keep_alive.watch(id, self.keep_alive_granted(connect), self.now.mono);
        let expiry_s = self.expiry_asked(connect);
        let session = self.sessions.get_mut(slot);
        session.connection = id.slot;
        session.version = connect.version;
        session.expiry_s = expiry_s;
        session.ends_at = Nanos::NEVER;
        session.will = connect.will.as_ref().map(|will| Box::new(super::will::from_connect(will)));
        if let Some(delivery) = &mut session.delivery {
            delivery.cursor = 0;
            delivery.overdue = false;
        }
        self.set_session_timer(slot);
        // The will of an earlier connection is withdrawn by coming back in time [MQTT-3.1.3-9].
        self.withdraw_will(slot, effects);
        if expiry_s > 0 || self.sessions.get(slot).durable() {
            self.write_session(slot, effects)
        } else {
            Lsn::NONE
        }
    }

    /// Append the session as it is now; its earlier record is dead.
    fn write_session(&mut self, slot: u32, effects: &mut impl Effects) -> Lsn {
        self.lsn = self.lsn.next();
        let lsn = self.lsn;
        let session = self.sessions.get(slot);
        effects.perform(Effect::Append {
            lsn,
            record: Record::Session {
                key: session.key,
                account: session.account(),
                client_id: session.client_id(),
                version: session.version,
                expiry_s: session.expiry_s,
                will: session.will.as_deref().map(|will| super::will::record(will, self.now.wall)),
            },
        });
        let session = self.sessions.get_mut(slot);
        let (key, heads) = (session.key, session.take_heads());
        self.session_record_is_dead(key, heads);
        self.live.add(lsn, 0);
        self.session_key_is_used(key);
        self.sessions.set_record(slot, lsn);
        lsn
    }

    /// A packet after the CONNACK that told of a gap: it has arrived, and need not be told again. (A client that sends
    /// before it has CONNACK says too much.)
    pub(super) fn gap_heard(&mut self, id: ConnectionId, effects: &mut impl Effects) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(exchange) = connection.exchange.as_deref_mut() else { return };
        let told = std::mem::take(&mut exchange.gap_told);
        if told == 0 {
            return;
        }
        let session = self.sessions.get_mut(connection.session);
        session.skipped = session.skipped.saturating_sub(told);
        let (key, skipped) = (session.key, u64::from(session.skipped));
        if session.durable() {
            let record = self.append(Record::Gap { key, skipped }, effects);
            self.gap_is_noted(key, record, skipped);
        }
    }

    /// Seconds of keep alive the connection gets.
    fn keep_alive_granted(&self, connect: &Connect<'_>) -> u16 {
        // Only a v5 client can be told of another value [MQTT-3.1.2-21].
        match self.settings.keep_alive_max_s {
            0 => connect.keep_alive,
            max if connect.version.is_v5() && (connect.keep_alive == 0 || connect.keep_alive > max) => max,
            _ => connect.keep_alive,
        }
    }

    /// Accept: everything CONNACK depends on is durable.
    pub(super) fn connack(
        &mut self,
        id: ConnectionId,
        session_present: bool,
        assigned: bool,
        effects: &mut impl Effects,
    ) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.awaiting_connack = false;
        let (version, slot) = (connection.version, connection.session);
        let session = self.sessions.get(slot);
        let skipped = session.skipped;
        let skipped_text = skipped.to_string();
        if skipped > 0 {
            connection.exchange().gap_told = skipped;
        }
        let gap = [("ironpost-skipped", skipped_text.as_str())];
        let mut connack = Connack::new(ReasonCode::Success);
        connack.session_present = session_present;
        let reply = connection.exchange.as_deref_mut().and_then(|exchange| exchange.reply.take());
        connack.authentication_method = reply.as_deref().map(|reply| &*reply.method);
        connack.authentication_data = reply.as_deref().map(|reply| &*reply.data);
        connack.session_expiry = Some(session.expiry_s);
        connack.receive_maximum = std::num::NonZeroU16::new(limits::RECEIVE_MAXIMUM);
        connack.maximum_packet_size = Some(self.settings.packet_bytes_max);
        connack.topic_alias_maximum = Some(limits::TOPIC_ALIASES_IN_MAX);
        connack.assigned_client_id = assigned.then(|| session.client_id());
        connack.server_keep_alive = match self.settings.keep_alive_max_s {
            0 => None,
            max => Some(max),
        };
        if skipped > 0 {
            connack.user_properties = &gap;
        }
        effects.perform(Effect::Send { connection: id, version, packet: Packet::Connack(connack) });
        effects.perform(Effect::Resume { connection: id });
        self.statistics.connected += 1;
        self.make_ready(slot);
    }

    /// Another connection takes the session: the old one is told and closed `[MQTT-3.1.4-3]`.
    fn take_over(&mut self, slot: u32, effects: &mut impl Effects) {
        if let Some(old) = self.connections.id_in(self.sessions.get(slot).connection) {
            self.close(old, Some(ReasonCode::SessionTakenOver), CloseReason::TakenOver, effects);
        }
    }

    /// Whether the session's end would be seen at `wall`.
    pub(super) fn expires_at(&self, expiry_s: u32, from: UnixMs) -> UnixMs {
        if expiry_s == u32::MAX { UnixMs::NEVER } else { from.plus_s(u64::from(expiry_s)) }
    }
}

/// CONNACK with a failure, then close; the broker never knew the connection.
fn refuse(id: ConnectionId, version: Version, reason: ReasonCode, effects: &mut impl Effects) {
    let packet = Packet::Connack(Connack::new(reason));
    effects.perform(Effect::Send { connection: id, version, packet });
    effects.perform(Effect::Close { connection: id, reason: CloseReason::Refused });
}
