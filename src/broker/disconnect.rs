//! How a connection ends, and what that starts: the will, the session's clock, or the session's end.

use super::Broker;
use super::effect::{CloseReason, Effect, Effects};
use super::session::NO_SLOT;
use crate::ids::ConnectionId;
use crate::record::Record;
use crate::time::UnixMs;
use crate::wire::{Disconnect, Packet, ReasonCode};

impl Broker {
    /// DISCONNECT from the client `[MQTT-3.14.4-1]`.
    pub(super) fn disconnect(
        &mut self,
        id: ConnectionId,
        packet: &Disconnect<'_>,
        effects: &mut impl Effects,
    ) {
        let Some(slot) = self.connections.get(id).map(|connection| connection.session) else { return };
        let expiry_max_s = self.settings.session_expiry_max_s;
        let session = self.sessions.get_mut(slot);
        if let Some(expiry_s) = packet.session_expiry {
            // 0 at CONNECT cannot become anything else: nothing was written down [MQTT-3.14.2-2].
            if session.expiry_s == 0 && expiry_s != 0 {
                self.refuse_packet(id, ReasonCode::ProtocolError, effects);
                return;
            }
            session.expiry_s = expiry_s.min(expiry_max_s);
        }
        if packet.reason == ReasonCode::Success {
            session.will = None;
        }
        self.close(id, None, CloseReason::Client, effects);
    }

    /// The peer broke the protocol: say why (v5 `[MQTT-4.13.1-1]`), then close.
    pub(super) fn refuse_packet(&mut self, id: ConnectionId, reason: ReasonCode, effects: &mut impl Effects) {
        let closing = match reason {
            ReasonCode::QuotaExceeded
            | ReasonCode::ReceiveMaximumExceeded
            | ReasonCode::MessageRateTooHigh => CloseReason::Limit,
            ReasonCode::NotAuthorized => CloseReason::NotAuthorized,
            _ => CloseReason::Protocol,
        };
        self.close(id, Some(reason), closing, effects);
    }

    /// End a connection from our side.
    pub(super) fn close(
        &mut self,
        id: ConnectionId,
        say: Option<ReasonCode>,
        reason: CloseReason,
        effects: &mut impl Effects,
    ) {
        let Some(connection) = self.connections.get(id) else { return };
        let version = connection.version;
        if let Some(code) = say.filter(|_| version.is_v5() && !connection.awaiting_connack) {
            let packet = Disconnect {
                reason: code,
                session_expiry: None,
                reason_string: None,
                server_reference: None,
            };
            effects.perform(Effect::Send { connection: id, version, packet: Packet::Disconnect(packet) });
        }
        effects.perform(Effect::Close { connection: id, reason });
        self.connection_lost(id, effects);
    }

    /// The connection is no more.
    pub(super) fn connection_lost(&mut self, id: ConnectionId, effects: &mut impl Effects) {
        let Some(connection) = self.connections.remove(id) else { return };
        self.keep_alive.forget(id);
        self.forget_passport(id);
        self.statistics.disconnected += 1;
        let slot = connection.session;
        self.drop_unacknowledgeable(slot);
        let session = self.sessions.get_mut(slot);
        session.connection = NO_SLOT;
        self.may_be_stored(slot);
        let session = self.sessions.get_mut(slot);
        if session.expiry_s == 0 {
            self.end_session(slot, effects);
            return;
        }
        let (key, expiry_s) = (session.key, session.expiry_s);
        let will = session.will.take();
        let will_due = match &will {
            Some(will) => self.now.wall.plus_s(u64::from(will.delay_s.min(expiry_s))),
            None => UnixMs::NEVER,
        };
        let record = session.record;
        if let Some(will) = will {
            self.will_pending(key, *will, will_due, record);
        }
        let at = self.now.wall;
        let record = self.append(Record::Disconnected { key, at, expiry_s, will_due }, effects);
        self.disconnected_is_noted(slot, record);
        if expiry_s != u32::MAX {
            let ends_at = self.now.mono.plus_s(u64::from(expiry_s));
            self.sessions.get_mut(slot).ends_at = ends_at;
            self.set_session_timer(slot);
        }
    }

    /// A socket with a full output has room again.
    pub(super) fn output_drained(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.blocked = false;
            let slot = connection.session;
            self.make_ready(slot);
        }
    }

    /// The process is stopping: tell clients, some per call.
    pub(super) fn drain_connections(
        &mut self,
        budget: &mut super::Budget,
        effects: &mut impl Effects,
    ) -> bool {
        let Some(mut slot) = self.draining else { return false };
        while slot < self.connections.slots() && budget.take() {
            if let Some(id) = self.connections.id_in(slot) {
                self.close(id, Some(ReasonCode::ServerShuttingDown), CloseReason::Draining, effects);
            }
            slot += 1;
        }
        self.draining = Some(slot);
        slot < self.connections.slots()
    }
}
