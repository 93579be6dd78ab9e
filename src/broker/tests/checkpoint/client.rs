//! A client as far as the broker can tell: whether it is connected, and what it owes.

use std::collections::BTreeSet;

use super::*;
use crate::wire::{Ack, AckKind};

pub(super) struct Client {
    pub(super) name: String,
    /// The shard where it is at home.
    pub(super) home: usize,
    /// Slot of its connection.
    pub(super) connection: Option<u32>,
    /// It may send.
    pub(super) accepted: bool,
    connections: u32,
    /// What it has not answered yet: first byte and packet id.
    pub(super) owed: Vec<(u8, u16)>,
    /// Packet ids of its own messages that are not done.
    pub(super) publishing: BTreeSet<u16>,
}

impl Client {
    pub(super) fn new(number: usize, home: usize) -> Client {
        Client {
            name: format!("client-{number}"),
            home,
            connection: None,
            accepted: false,
            connections: 0,
            owed: Vec::new(),
            publishing: BTreeSet::new(),
        }
    }

    /// A slot for its next connection: another one each time.
    pub(super) fn begin(&mut self, number: usize) -> u32 {
        self.connections += 1;
        let slot = self.connections * 8 + u32::try_from(number).expect("few");
        self.end();
        self.connection = Some(slot);
        slot
    }

    pub(super) fn end(&mut self) {
        self.connection = None;
        self.accepted = false;
        self.owed.clear();
        self.publishing.clear();
    }

    pub(super) fn hear(&mut self, bytes: &[u8]) {
        match wire::decode::packet(bytes, Some(Version::V5)).expect("the broker sends valid packets") {
            Packet::Connack(connack) => self.accepted = !connack.reason.is_failure(),
            Packet::Publish(publish) => {
                let Some(packet_id) = publish.packet_id else { return };
                let first_byte = if publish.qos == QoS::AtLeastOnce { 0x40 } else { 0x50 };
                self.owed.push((first_byte, packet_id.get()));
            }
            Packet::Ack(Ack { kind, packet_id, reason, .. }) => match kind {
                AckKind::Pubrel => self.owed.push((0x70, packet_id.get())),
                AckKind::Pubrec if !reason.is_failure() => self.owed.push((0x62, packet_id.get())),
                AckKind::Puback | AckKind::Pubrec | AckKind::Pubcomp => {
                    self.publishing.remove(&packet_id.get());
                }
            },
            _ => {}
        }
    }
}
