//! A publisher: messages in order, a window of them unacknowledged, and at the end none.
//!
//! QoS 1 ends with PUBACK, QoS 2 with PUBCOMP; a refusal (PUBACK or PUBREC with a failure) ends an exchange too and
//! is counted. Invariant: `unacknowledged` holds exactly the identifiers the server may still answer.

use std::collections::BTreeMap;
use std::io;

use super::connection::Connection;
use super::error::ClientError;
use crate::wire::{Ack, AckKind, Packet, PacketId, Properties, Publish, QoS, ReasonCode};

/// What all messages of one run have in common.
#[derive(Clone, Debug)]
pub struct Message {
    /// A topic name.
    pub topic: String,
    /// Quality of service.
    pub qos: QoS,
    /// The retain flag.
    pub retain: bool,
}

/// Publishes each payload, waits for the last acknowledgement, and takes leave. Returns how many were acknowledged
/// (at QoS 0: written).
pub fn publish(
    connection: &mut Connection,
    message: &Message,
    payloads: impl Iterator<Item = io::Result<Vec<u8>>>,
) -> Result<u64, ClientError> {
    let mut publisher = Publisher {
        unacknowledged: BTreeMap::new(),
        next_id: PacketId::MIN,
        refused: None,
        frame: Vec::new(),
    };
    let mut count = 0;
    for payload in payloads {
        while publisher.unacknowledged.len() >= connection.window() {
            publisher.take_answer(connection)?;
        }
        publisher.send(connection, message, &payload.map_err(ClientError::Io)?)?;
        count += 1;
    }
    while !publisher.unacknowledged.is_empty() {
        publisher.take_answer(connection)?;
    }
    connection.close()?;
    match publisher.refused {
        Some((count, reason)) => Err(ClientError::PublishRefused { count, reason }),
        None => Ok(count),
    }
}

/// An acknowledgement without remarks.
pub(super) fn acknowledgement(kind: AckKind, packet_id: PacketId) -> Packet<'static> {
    Packet::Ack(Ack { kind, packet_id, reason: ReasonCode::Success, reason_string: None })
}

struct Publisher {
    /// By identifier, the answer that comes next.
    unacknowledged: BTreeMap<PacketId, AckKind>,
    next_id: PacketId,
    /// How many messages the server refused, and why the first.
    refused: Option<(u64, ReasonCode)>,
    frame: Vec<u8>,
}

impl Publisher {
    fn send(
        &mut self,
        connection: &mut Connection,
        message: &Message,
        payload: &[u8],
    ) -> Result<(), ClientError> {
        let awaited = match message.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(AckKind::Puback),
            QoS::ExactlyOnce => Some(AckKind::Pubrec),
        };
        let packet_id = awaited.map(|kind| {
            let packet_id = self.free_id();
            self.unacknowledged.insert(packet_id, kind);
            packet_id
        });
        connection.send(&Packet::Publish(Publish {
            dup: false,
            qos: message.qos,
            retain: message.retain,
            topic: &message.topic,
            packet_id,
            message_expiry: None,
            topic_alias: None,
            subscription_ids: &[],
            carries_subscription_id: false,
            forward: Properties::EMPTY,
            payload,
        }))
    }

    /// The window is far smaller than the range of identifiers, so one is free.
    fn free_id(&mut self) -> PacketId {
        while self.unacknowledged.contains_key(&self.next_id) {
            self.advance_id();
        }
        let packet_id = self.next_id;
        self.advance_id();
        packet_id
    }

    fn advance_id(&mut self) {
        self.next_id = self.next_id.checked_add(1).unwrap_or(PacketId::MIN);
    }

    fn take_answer(&mut self, connection: &mut Connection) -> Result<(), ClientError> {
        connection.receive(&mut self.frame)?;
        let Packet::Ack(ack) = connection.decode(&self.frame)? else {
            return Err(ClientError::Unexpected("packet that answers no PUBLISH"));
        };
        if self.unacknowledged.get(&ack.packet_id) != Some(&ack.kind) {
            return Err(ClientError::Unexpected("acknowledgement of nothing that was sent"));
        }
        if ack.reason.is_failure() {
            let (count, first) = self.refused.unwrap_or((0, ack.reason));
            self.refused = Some((count + 1, first));
            self.unacknowledged.remove(&ack.packet_id);
            return Ok(());
        }
        if ack.kind != AckKind::Pubrec {
            self.unacknowledged.remove(&ack.packet_id);
            return Ok(());
        }
        self.unacknowledged.insert(ack.packet_id, AckKind::Pubcomp);
        connection.send(&acknowledgement(AckKind::Pubrel, ack.packet_id))
    }
}
