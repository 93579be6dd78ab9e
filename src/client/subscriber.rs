//! A subscriber: what arrives is handed over first and acknowledged then, so that nothing is acknowledged unseen.
//!
//! At QoS 2 a message is handed over at its PUBLISH and remembered until its PUBREL, so a repeat is not handed over
//! again; the memory ends with the process. Once enough messages were handed over, exchanges that have begun are
//! finished and whatever else arrives is left unacknowledged, for the session to bring again.

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroU16;

use super::connection::Connection;
use super::error::ClientError;
use super::publisher::acknowledgement;
use crate::wire::{AckKind, Packet, PacketId, Publish, QoS, Suback, Subscribe, SubscribeOptions};

/// What to subscribe to and for how long.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// At least one.
    pub filters: Vec<String>,
    /// The highest QoS wanted.
    pub qos: QoS,
    /// Messages to take before leaving; `None` for no end, 0 to leave once subscribed.
    pub count: Option<u64>,
}

/// Subscribes, hands over what arrives, and takes leave when there is enough.
pub fn subscribe(
    connection: &mut Connection,
    subscription: &Subscription,
    hand_over: &mut dyn FnMut(&Publish<'_>) -> io::Result<()>,
) -> Result<(), ClientError> {
    connection.send(&Packet::Subscribe(Subscribe::new(SUBSCRIBE_ID, None, &entries(subscription))))?;
    let mut subscriber = Subscriber { subscription, granted: false, taken: 0, unreleased: BTreeSet::new() };
    let mut frame = Vec::new();
    while !subscriber.is_done() {
        connection.receive(&mut frame)?;
        let packet = connection.decode(&frame)?;
        if let Some(answer) = subscriber.take(&packet, hand_over)? {
            connection.send(&answer)?;
        }
    }
    connection.close()
}

/// The only request of this client.
const SUBSCRIBE_ID: PacketId = NonZeroU16::MIN;

fn entries(subscription: &Subscription) -> Vec<u8> {
    let options = SubscribeOptions { qos: subscription.qos, ..SubscribeOptions::default() };
    let mut entries = Vec::new();
    for filter in &subscription.filters {
        Subscribe::push_entry(&mut entries, filter, options);
    }
    entries
}

struct Subscriber<'a> {
    subscription: &'a Subscription,
    granted: bool,
    /// Messages handed over.
    taken: u64,
    /// QoS 2 messages handed over whose PUBREL has not come.
    unreleased: BTreeSet<PacketId>,
}

impl Subscriber<'_> {
    fn has_enough(&self) -> bool {
        self.subscription.count.is_some_and(|count| self.taken >= count)
    }

    fn is_done(&self) -> bool {
        self.granted && self.has_enough() && self.unreleased.is_empty()
    }

    /// What to answer, if anything.
    fn take(
        &mut self,
        packet: &Packet<'_>,
        hand_over: &mut dyn FnMut(&Publish<'_>) -> io::Result<()>,
    ) -> Result<Option<Packet<'static>>, ClientError> {
        match packet {
            Packet::Publish(publish) => self.take_publish(publish, hand_over),
            Packet::Ack(ack) if ack.kind == AckKind::Pubrel => {
                self.unreleased.remove(&ack.packet_id);
                Ok(Some(acknowledgement(AckKind::Pubcomp, ack.packet_id)))
            }
            Packet::Suback(suback) => self.take_suback(suback).map(|()| None),
            // A session that was published from before may bring answers that nobody waits for any more.
            Packet::Ack(_) => Ok(None),
            _ => Err(ClientError::Unexpected("packet that no subscriber gets")),
        }
    }

    fn take_publish(
        &mut self,
        publish: &Publish<'_>,
        hand_over: &mut dyn FnMut(&Publish<'_>) -> io::Result<()>,
    ) -> Result<Option<Packet<'static>>, ClientError> {
        let is_repeat = publish.packet_id.is_some_and(|packet_id| self.unreleased.contains(&packet_id));
        if !is_repeat {
            if self.has_enough() {
                return Ok(None);
            }
            hand_over(publish).map_err(ClientError::Io)?;
            self.taken += 1;
        }
        let Some(packet_id) = publish.packet_id else { return Ok(None) };
        if publish.qos == QoS::AtLeastOnce {
            return Ok(Some(acknowledgement(AckKind::Puback, packet_id)));
        }
        self.unreleased.insert(packet_id);
        Ok(Some(acknowledgement(AckKind::Pubrec, packet_id)))
    }

    fn take_suback(&mut self, suback: &Suback<'_>) -> Result<(), ClientError> {
        if suback.packet_id != SUBSCRIBE_ID || suback.reasons.len() != self.subscription.filters.len() {
            return Err(ClientError::Unexpected("SUBACK that answers no SUBSCRIBE"));
        }
        for (filter, reason) in self.subscription.filters.iter().zip(suback.reasons.iter()) {
            if reason.is_failure() {
                return Err(ClientError::SubscriptionRefused { filter: filter.clone(), reason });
            }
        }
        self.granted = true;
        Ok(())
    }
}
