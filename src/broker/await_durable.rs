//! What waits for the disk: each thing with the record it waits for, in order, because records become durable in
//! order. `Input::Durable` only moves the mark; `advance` releases.

use std::collections::VecDeque;

use super::effect::{Effect, Effects};
use super::messages::MessageId;
use super::session::Phase;
use super::{Broker, Budget};
use crate::ids::{ConnectionId, Lsn, SessionKey};
use crate::wire::{Ack, AckKind, Packet, PacketId, ReasonCode};

/// Something that happens once a record is durable.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiter {
    /// CONNACK may leave.
    Connack { connection: ConnectionId, session_present: bool, assigned: bool },
    /// One of the things a SUBACK or UNSUBACK waits for.
    Suback { token: u64 },
    /// The recipients of a message are on disk.
    Covered { message: MessageId },
    /// What that message changed in a table is on disk.
    Table { message: MessageId },
    /// A QoS 2 PUBLISH is on disk: answer PUBREC, and route it.
    Inbound { message: MessageId, connection: ConnectionId, sequence: u32 },
    /// A repeated QoS 2 PUBLISH whose first copy is on disk: answer PUBREC.
    Repeated { connection: ConnectionId, sequence: u32 },
    /// The packet id of a QoS 2 delivery is on disk: it may be sent.
    Reserved { slot: u32, key: SessionKey, packet_id: PacketId },
    /// A PUBREC is on disk: answer PUBREL.
    Received { slot: u32, key: SessionKey, packet_id: PacketId },
    /// A PUBREL is on disk: answer PUBCOMP.
    Released { connection: ConnectionId, packet_id: PacketId },
    /// The end of routing of an inbound message is on disk.
    Routed { inbound: Lsn },
    /// The end of a session is on disk.
    Ended { key: SessionKey },
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct AwaitDurable {
    queue: VecDeque<(Lsn, Waiter)>,
}

impl AwaitDurable {
    /// `waiter` happens once `lsn` is durable.
    pub(super) fn push(&mut self, lsn: Lsn, waiter: Waiter) {
        assert!(
            self.queue.back().is_none_or(|(last, _)| *last <= lsn),
            "records are numbered in order (I13)"
        );
        self.queue.push_back((lsn, waiter));
    }

    fn pop(&mut self, durable: Lsn) -> Option<Waiter> {
        self.queue.front().filter(|(lsn, _)| *lsn <= durable)?;
        self.queue.pop_front().map(|(_, waiter)| waiter)
    }

    fn has_ready(&self, durable: Lsn) -> bool {
        self.queue.front().is_some_and(|(lsn, _)| *lsn <= durable)
    }
}

impl Broker {
    /// Do what waited for records that are durable now.
    pub(super) fn release_durable(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        while self.awaiting.has_ready(self.durable) && budget.take() {
            match self.awaiting.pop(self.durable) {
                Some(waiter) => self.happen(waiter, effects),
                None => break,
            }
        }
        self.awaiting.has_ready(self.durable)
    }

    fn happen(&mut self, waiter: Waiter, effects: &mut impl Effects) {
        match waiter {
            Waiter::Connack { connection, session_present, assigned } => {
                self.connack(connection, session_present, assigned, effects);
            }
            Waiter::Suback { token } => self.suback_step(token, effects),
            Waiter::Covered { message } => self.covered(message, effects),
            Waiter::Table { message } => self.table_durable(message, effects),
            Waiter::Inbound { message, connection, sequence } => {
                self.inbound_durable(message, connection, sequence, effects);
            }
            Waiter::Repeated { connection, sequence } => {
                self.acknowledgement_ready(connection, sequence, ReasonCode::Success, effects);
            }
            Waiter::Reserved { slot, key, packet_id } => self.packet_id_durable(slot, key, packet_id),
            Waiter::Received { slot, key, packet_id } => self.received_durable(slot, key, packet_id, effects),
            Waiter::Released { connection, packet_id } => {
                self.send_ack(connection, AckKind::Pubcomp, packet_id, ReasonCode::Success, effects);
            }
            Waiter::Routed { inbound } => self.routed_durable(inbound, effects),
            Waiter::Ended { key } => self.end_durable(key, effects),
        }
    }

    fn packet_id_durable(&mut self, slot: u32, key: SessionKey, packet_id: PacketId) {
        let Some(session) = self.sessions.get_if(slot, key) else { return };
        let delivery = session.delivery();
        if let Some(index) = delivery.find(packet_id) {
            delivery.in_flight[index].phase = Phase::Sendable;
            self.make_ready(slot);
        }
    }

    fn received_durable(
        &mut self,
        slot: u32,
        key: SessionKey,
        packet_id: PacketId,
        effects: &mut impl Effects,
    ) {
        let Some(session) = self.sessions.get_if(slot, key) else { return };
        let delivery = session.delivery();
        let Some(index) = delivery.find(packet_id) else { return };
        delivery.in_flight[index].phase = Phase::Released;
        if let Some((connection, _)) = self.online(slot) {
            self.send_ack(connection, AckKind::Pubrel, packet_id, ReasonCode::Success, effects);
        }
    }

    /// Send one of the four acknowledgement packets.
    pub(super) fn send_ack(
        &mut self,
        connection: ConnectionId,
        kind: AckKind,
        packet_id: PacketId,
        reason: ReasonCode,
        effects: &mut impl Effects,
    ) {
        let Some(version) = self.connections.get(connection).map(|connection| connection.version) else {
            return;
        };
        let packet = Packet::Ack(Ack { kind, packet_id, reason, reason_string: None });
        effects.perform(Effect::Send { connection, version, packet });
    }
}
