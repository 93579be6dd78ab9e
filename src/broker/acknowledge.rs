//! PUBACK, PUBREC, PUBREL and PUBCOMP from a client.
//!
//! As a recipient it moves a delivery on; as a publisher it releases a packet id. What it says of an exchange nobody
//! knows is answered where the protocol has an answer, and ignored where it has none: it may stem from before a crash.

use super::Broker;
use super::await_durable::Waiter;
use super::effect::Effects;
use super::session::Phase;
use crate::ids::ConnectionId;
use crate::record::Record;
use crate::wire::{Ack, AckKind, QoS, ReasonCode};

impl Broker {
    /// One of the four.
    pub(super) fn acknowledge(&mut self, id: ConnectionId, ack: &Ack<'_>, effects: &mut impl Effects) {
        if ack.kind == AckKind::Pubrel {
            self.publish_release(id, ack.packet_id, effects);
            return;
        }
        let Some(slot) = self.connections.get(id).map(|connection| connection.session) else { return };
        let in_flight = self.sessions.get(slot).delivery.as_deref().and_then(|delivery| {
            delivery.find(ack.packet_id).map(|index| (index, delivery.in_flight[index]))
        });
        let Some((index, in_flight)) = in_flight else {
            if ack.kind == AckKind::Pubrec && !ack.reason.is_failure() {
                // [MQTT-4.3.3-4]: PUBREC is answered by PUBREL, with the reason that nothing is known of it.
                let reason = ReasonCode::PacketIdentifierNotFound;
                self.send_ack(id, AckKind::Pubrel, ack.packet_id, reason, effects);
            }
            return;
        };
        self.sessions.get_mut(slot).delivery().overdue = false;
        let qos = self.entry_qos(in_flight.entry);
        match (ack.kind, qos, in_flight.phase) {
            (AckKind::Puback, QoS::AtLeastOnce, Phase::Sent)
            | (AckKind::Pubcomp, QoS::ExactlyOnce, Phase::Released) => {
                self.finish_flight(slot, ack.packet_id, effects);
            }
            (AckKind::Pubrec, QoS::ExactlyOnce, Phase::Sent) if ack.reason.is_failure() => {
                // The recipient does not want it: the exchange ends here [MQTT-4.3.3-4].
                self.finish_flight(slot, ack.packet_id, effects);
            }
            (AckKind::Pubrec, QoS::ExactlyOnce, Phase::Sent) => self.received(id, slot, index, effects),
            (AckKind::Pubrec, QoS::ExactlyOnce, Phase::Receiving) => {}
            (AckKind::Pubrec, QoS::ExactlyOnce, Phase::Released) => {
                self.send_ack(id, AckKind::Pubrel, ack.packet_id, ReasonCode::Success, effects);
            }
            _ => self.refuse_packet(id, ReasonCode::ProtocolError, effects),
        }
    }

    /// PUBREC: from here on only PUBREL is sent; durable first where the session is.
    fn received(&mut self, id: ConnectionId, slot: u32, index: usize, effects: &mut impl Effects) {
        let session = self.sessions.get_mut(slot);
        let (key, durable) = (session.key, session.durable());
        let in_flight = &mut session.delivery().in_flight[index];
        let packet_id = in_flight.packet_id;
        in_flight.phase = if durable { Phase::Receiving } else { Phase::Released };
        if durable {
            let lsn = self.append(Record::Received { key, packet_id }, effects);
            self.live.add(lsn, 0);
            self.sessions.get_mut(slot).delivery().in_flight[index].received = lsn;
            self.awaiting.push(lsn, Waiter::Received { slot, key, packet_id });
        } else {
            self.send_ack(id, AckKind::Pubrel, packet_id, ReasonCode::Success, effects);
        }
    }
}
