//! PUBLISH from a client: checked, stored, and sent on its way to the owner of its topic.
//!
//! QoS 1 is answered when everything owed is settled. QoS 2 has no memory path: the message and its packet id are on
//! disk before PUBREC, and only then is it routed, under the key (this shard, LSN).

use std::sync::Arc;

use super::Broker;
use super::await_durable::Waiter;
use super::effect::{CloseReason, Effect, Effects};
use super::messages::{MessageId, Sender};
use super::needs::Need;
use super::overload::Step;
use super::place::{Scope, Task};
use super::postponed::Settlement;
use super::route::Parcel;
use crate::content::Content;
use crate::ids::{ConnectionId, Lsn, OriginKey, PublisherKey, SessionKey, ShardId};
use crate::limits;
use crate::record::Record;
use crate::time::UnixMs;
use crate::wire::{AckKind, PacketId, Publish, QoS, ReasonCode};

/// A PUBLISH, its topic, whatever alias named it, and its body if that is in one piece already.
type Accepted<'a> = (&'a str, &'a Publish<'a>, Option<&'a Arc<[u8]>>);

impl Broker {
    /// A PUBLISH of a client.
    pub(super) fn publish(
        &mut self,
        id: ConnectionId,
        publish: &Publish<'_>,
        body: Option<&Arc<[u8]>>,
        effects: &mut impl Effects,
    ) {
        self.take_publish(id, publish, body, effects);
        self.expect_cost(id);
        self.pause_if_behind(id, effects);
    }

    fn take_publish(
        &mut self,
        id: ConnectionId,
        publish: &Publish<'_>,
        body: Option<&Arc<[u8]>>,
        effects: &mut impl Effects,
    ) {
        if publish.carries_subscription_id {
            // [MQTT-3.3.4-6]
            self.refuse_packet(id, ReasonCode::ProtocolError, effects);
            return;
        }
        let topic = match self.resolve_alias(id, publish) {
            Ok(topic) => topic,
            Err(reason) => return self.refuse_packet(id, reason, effects),
        };
        let topic = topic.as_deref().unwrap_or(publish.topic);
        let permitted = !topic.starts_with("$SYS") && self.may_publish(id, topic, publish);
        let Some(packet_id) = publish.packet_id else {
            // Nothing is owed at QoS 0, not even an answer; the figures count it.
            if !permitted {
                self.statistics.unauthorized += 1;
            } else if self.gives_way(Step::QoS0Dropped) {
                self.statistics.dropped += 1;
            } else {
                let message = self.store(id, (topic, publish, body), Sender::Nobody, None);
                self.route_topic(message.slot, topic);
            }
            return;
        };
        if !self.take_quota(id, effects) {
            return;
        }
        let kind = if publish.qos == QoS::ExactlyOnce { AckKind::Pubrec } else { AckKind::Puback };
        if kind == AckKind::Pubrec && self.repeated(id, packet_id) {
            return;
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        let sequence = connection.exchange().acknowledgements.expect(kind, packet_id);
        let refusal = if !permitted {
            self.statistics.unauthorized += 1;
            Some(ReasonCode::NotAuthorized)
        } else if self.refuses_publishes() {
            Some(ReasonCode::QuotaExceeded)
        } else {
            None
        };
        match (refusal, kind) {
            (Some(reason), _) => self.acknowledgement_ready(id, sequence, reason, effects),
            (None, AckKind::Pubrec) => {
                self.publish_exactly_once(id, (topic, publish, body), packet_id, sequence, effects)
            }
            (None, _) => {
                let sender = Sender::Client { connection: id, sequence };
                let message = self.store(id, (topic, publish, body), sender, None);
                self.route_topic(message.slot, topic);
            }
        }
    }

    /// The topic an alias stands for, or `None` where the packet names it itself `[MQTT-3.3.2-8]`.
    fn resolve_alias(
        &mut self,
        id: ConnectionId,
        publish: &Publish<'_>,
    ) -> Result<Option<Box<str>>, ReasonCode> {
        let Some(alias) = publish.topic_alias else { return Ok(None) };
        if alias.get() > limits::TOPIC_ALIASES_IN_MAX {
            // [MQTT-3.3.2-9]
            return Err(ReasonCode::TopicAliasInvalid);
        }
        let Some(connection) = self.connections.get_mut(id) else { return Ok(None) };
        let aliases = &mut connection.exchange().aliases_in;
        let index = usize::from(alias.get() - 1);
        if publish.topic.is_empty() {
            return aliases.get(index).cloned().flatten().map(Some).ok_or(ReasonCode::ProtocolError);
        }
        if index >= aliases.len() {
            aliases.resize(index + 1, None);
        }
        aliases[index] = Some(publish.topic.into());
        Ok(None)
    }

    /// Count the publish against the receive maximum. False: the connection was closed `[MQTT-3.3.4-9]`.
    fn take_quota(&mut self, id: ConnectionId, effects: &mut impl Effects) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let exchange = connection.exchange();
        exchange.outstanding += 1;
        if exchange.outstanding <= limits::RECEIVE_MAXIMUM {
            return true;
        }
        if connection.version.is_v5() || exchange_is_hopeless(connection.exchange().outstanding) {
            self.refuse_packet(id, ReasonCode::ReceiveMaximumExceeded, effects);
            return false;
        }
        let was_paused = connection.is_paused();
        connection.paused = true;
        if !was_paused {
            effects.perform(Effect::Pause { connection: id });
        }
        true
    }

    /// Whether that QoS 2 packet id is already taken; if so the repeat is answered `[MQTT-4.3.3-10]`.
    fn repeated(&mut self, id: ConnectionId, packet_id: PacketId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return true };
        let session = self.sessions.get(connection.session);
        let known = session.inbound.as_ref().is_some_and(|inbound| inbound.contains_key(&packet_id));
        if known {
            let sequence = connection.exchange().acknowledgements.expect(AckKind::Pubrec, packet_id);
            self.awaiting.push(self.lsn, Waiter::Repeated { connection: id, sequence });
        }
        known
    }

    fn publish_exactly_once(
        &mut self,
        id: ConnectionId,
        accepted: Accepted<'_>,
        packet_id: PacketId,
        sequence: u32,
        effects: &mut impl Effects,
    ) {
        let Some(slot) = self.connections.get(id).map(|connection| connection.session) else { return };
        let lsn = self.lsn.next();
        let origin = OriginKey { shard: self.shard, lsn };
        let message = self.store(id, accepted, Sender::Inbound, Some(origin));
        let session = self.sessions.get(slot);
        let durable = session.durable();
        let key = if durable { session.key } else { SessionKey::NONE };
        let stored = self.messages.get_mut(message.slot);
        stored.lsn = lsn;
        self.lsn = lsn;
        let body = stored.body().expect("just stored");
        effects.perform(Effect::Append { lsn, record: Record::Inbound { key, packet_id, body } });
        self.sessions.get_mut(slot).inbound.get_or_insert_default().insert(packet_id, lsn);
        // Needed once for the message, once until it is routed, and once for its packet id.
        let body_bytes = self.messages.get(message.slot).length();
        self.live.add(lsn, body_bytes);
        self.live.add(lsn, body_bytes);
        self.live.set_unrouted(lsn, true);
        if durable {
            self.live.add(lsn, body_bytes);
            self.live.set_taken(lsn, true);
        }
        self.origins.routing(lsn);
        self.awaiting.push(lsn, Waiter::Inbound { message, connection: id, sequence });
    }

    /// A QoS 2 PUBLISH is on disk.
    pub(super) fn inbound_durable(
        &mut self,
        message: MessageId,
        connection: ConnectionId,
        sequence: u32,
        effects: &mut impl Effects,
    ) {
        self.acknowledgement_ready(connection, sequence, ReasonCode::Success, effects);
        self.settlement(Settlement::Accepted { message: message.slot }, effects);
    }

    /// Put a publish into the message store.
    fn store(
        &mut self,
        id: ConnectionId,
        (topic, publish, body): Accepted<'_>,
        sender: Sender,
        origin: Option<OriginKey>,
    ) -> MessageId {
        let content = match body {
            Some(body) => Content::joined(Arc::clone(body), topic, publish.forward.forwarded_len()),
            None => Content::new(topic, publish.forward.forwarded(), publish.payload),
        };
        let publisher = self.publisher(id);
        let expires_at = match publish.message_expiry {
            Some(seconds) => self.now.wall.plus_s(u64::from(seconds)),
            None => UnixMs::NEVER,
        };
        let parcel = Parcel {
            content,
            qos: publish.qos,
            retain: publish.retain,
            accepted_at: self.now.wall,
            expires_at,
            publisher,
            origin,
        };
        self.messages.insert(parcel, sender)
    }

    /// The client of a connection, hashed once if there is a place to keep that.
    pub(super) fn publisher(&mut self, id: ConnectionId) -> PublisherKey {
        let Some(connection) = self.connections.get_mut(id) else { return PublisherKey::NOBODY };
        let (session, sessions) = (connection.session, &self.sessions);
        match connection.exchange.as_deref_mut() {
            Some(exchange) => *exchange.publisher.get_or_insert_with(|| sessions.publisher(session)),
            None => sessions.publisher(session),
        }
    }

    /// Send a stored message to the owner of its topic.
    pub(super) fn route(&mut self, message: u32) {
        let stored = self.messages.get(message);
        let topic = stored.content.as_ref().expect("a message is routed with its body in memory").topic();
        let owner = self.settings.placement.owner(topic);
        self.send_whole_to(message, owner);
    }

    /// The same, of a message whose topic is at hand.
    fn route_topic(&mut self, message: u32, topic: &str) {
        let owner = self.settings.placement.owner(topic);
        self.send_whole_to(message, owner);
    }

    fn send_whole_to(&mut self, message: u32, owner: ShardId) {
        if owner == self.shard {
            self.placing.push(Task { message, scope: Scope::Owner });
        } else {
            self.outbox.push(owner, message, None);
        }
    }

    /// An acknowledgement may leave as soon as those before it have.
    pub(super) fn acknowledgement_ready(
        &mut self,
        id: ConnectionId,
        sequence: u32,
        reason: ReasonCode,
        effects: &mut impl Effects,
    ) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let is_v5 = connection.version.is_v5();
        connection.exchange().acknowledgements.ready(sequence, reason);
        while let Some(due) = self.pop_acknowledgement(id) {
            if due.reason.is_failure() && !is_v5 {
                // 3.1.1 has no way to refuse a PUBLISH but closing [MQTT-3.1.1 3.3.5-2]; what was published before is
                // answered first, or a client that sends all of it again would never get any further.
                self.close(id, None, CloseReason::Limit, effects);
                return;
            }
            self.send_ack(id, due.kind, due.packet_id, due.reason, effects);
            if due.kind == AckKind::Puback || due.reason.is_failure() {
                self.return_quota(id, effects);
            }
        }
    }

    fn pop_acknowledgement(&mut self, id: ConnectionId) -> Option<super::connection::Due> {
        self.connections.get_mut(id)?.exchange().acknowledgements.pop_ready()
    }

    /// An exchange is over: the publisher may begin another.
    pub(super) fn return_quota(&mut self, id: ConnectionId, effects: &mut impl Effects) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let exchange = connection.exchange();
        exchange.outstanding = exchange.outstanding.saturating_sub(1);
        let low = exchange.outstanding <= limits::RECEIVE_MAXIMUM / 2;
        if connection.paused && low {
            connection.paused = false;
            if !connection.is_paused() {
                effects.perform(Effect::Resume { connection: id });
            }
        }
    }

    /// PUBREL `[MQTT-4.3.3-11]`: the packet id is free once that is on disk.
    pub(super) fn publish_release(
        &mut self,
        id: ConnectionId,
        packet_id: PacketId,
        effects: &mut impl Effects,
    ) {
        let Some(slot) = self.connections.get(id).map(|connection| connection.session) else { return };
        let session = self.sessions.get_mut(slot);
        let lsn =
            session.inbound.as_mut().and_then(|inbound| inbound.remove(&packet_id)).unwrap_or(Lsn::NONE);
        if !lsn.is_some() {
            let reason = ReasonCode::PacketIdentifierNotFound;
            self.send_ack(id, AckKind::Pubcomp, packet_id, reason, effects);
            return;
        }
        let (key, durable) = (session.key, session.durable());
        self.return_quota(id, effects);
        if durable {
            self.need_is_gone(Need::Taken(lsn));
            let lsn = self.append(Record::Released { key, packet_id }, effects);
            self.awaiting.push(lsn, Waiter::Released { connection: id, packet_id });
        } else {
            self.send_ack(id, AckKind::Pubcomp, packet_id, ReasonCode::Success, effects);
        }
    }
}

/// A v3 client was told to pause and what it had already sent is parked; this many more means it never will.
fn exchange_is_hopeless(outstanding: u16) -> bool {
    outstanding >= limits::RECEIVE_MAXIMUM.saturating_mul(4)
}
