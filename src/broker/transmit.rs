//! One PUBLISH to one client: built from the message store, with what its version and limits allow, reading the body
//! back from disk first if it is not in memory.

use super::Broker;
use super::effect::{Effect, Effects};
use super::messages::MessageId;
use super::session::{Entry, NO_SLOT};
use super::stored::Queued;
use crate::ids::{ConnectionId, Lsn};
use crate::record;
use crate::time::UnixMs;
use crate::wire::{Packet, PacketId, Properties, Publish, QoS, encode};

/// Messages of one session that are read back together: enough that a turn is worth its while.
const READ_AHEAD_MESSAGES: usize = 32;

/// Their bytes, after which no other is read with them.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// Bodies asked for and not read yet, of all sessions, beyond which each session gets only what is due: those of a great
/// many that drain at once would have to leave memory again before they are sent.
const READ_AHEAD_OUTSTANDING_MAX: usize = 4_096;

/// What became of sending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attempted {
    /// It is in the connection's output.
    Sent,
    /// The client does not take packets of that size `[MQTT-3.1.2-25]`, or may not have it any more: as if it had been acknowledged.
    Withheld,
    /// The body is being read back.
    Fetching,
}

/// Who waits for a body.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    messages: Vec<MessageId>,
    sessions: Vec<u32>,
}

impl Broker {
    /// Send an entry's message.
    pub(super) fn send_publish(
        &mut self,
        id: ConnectionId,
        slot: u32,
        entry: Entry,
        packet_id: Option<PacketId>,
        dup: bool,
        effects: &mut impl Effects,
    ) -> Attempted {
        if self.messages.get(entry.message).content.is_none() {
            self.fetch(entry.message, Some(slot), effects);
            self.read_ahead(slot, effects);
            return Attempted::Fetching;
        }
        if !self.may_receive(slot, entry.message) {
            self.statistics.unauthorized += 1;
            return Attempted::Withheld;
        }
        let alias = self.outgoing_alias(id, entry.message);
        let Some(connection) = self.connections.get(id) else { return Attempted::Fetching };
        let version = connection.version;
        let message = self.messages.get(entry.message);
        let body = message.body().expect("checked above");
        let (qos, retain) = match message.owed.as_slice().get(entry.owed as usize) {
            Some(owed) if entry.owed != NO_SLOT => (owed.qos, owed.retain),
            _ => (QoS::AtMostOnce, entry.retain),
        };
        // What is left of its time, rounded up, so that it is never 0 [MQTT-3.3.2-6].
        let message_expiry = (body.expires_at != UnixMs::NEVER).then(|| {
            u32::try_from(self.now.wall.ms_until(body.expires_at).div_ceil(1_000)).unwrap_or(u32::MAX)
        });
        let publish = Publish {
            dup,
            qos,
            retain,
            topic: if alias.is_some_and(|(_, known)| known) { "" } else { body.topic },
            packet_id,
            message_expiry,
            topic_alias: alias.map(|(alias, _)| alias),
            subscription_ids: self.subscription_ids.resolve(&entry.subscription_id),
            carries_subscription_id: false,
            forward: Properties::from_stored(body.forward),
            payload: body.payload,
        };
        let packet = Packet::Publish(publish);
        if connection.packet_bytes_max != u32::MAX
            && encode::length(&packet, version) > connection.packet_bytes_max as usize
        {
            self.statistics.too_large += 1;
            return Attempted::Withheld;
        }
        effects.perform(Effect::Send { connection: id, version, packet });
        self.statistics.sent += 1;
        self.statistics.sent_bytes += body.payload.len() as u64;
        Attempted::Sent
    }

    /// The alias of a message's topic on that connection, and whether the client knows it already. The first topics
    /// get the aliases; later ones are sent by name.
    fn outgoing_alias(&mut self, id: ConnectionId, message: u32) -> Option<(PacketId, bool)> {
        let connection = self.connections.get_mut(id)?;
        let max = usize::from(connection.aliases_out_max);
        if max == 0 {
            return None;
        }
        let topic = self.messages.get(message).content.as_ref()?.topic();
        let aliases = &mut connection.exchange().aliases_out;
        let known = aliases.iter().position(|known| **known == *topic);
        let index = match known {
            Some(index) => index,
            None if aliases.len() < max => {
                aliases.push(topic.into());
                aliases.len() - 1
            }
            None => return None,
        };
        let alias = u16::try_from(index + 1).ok().and_then(PacketId::new)?;
        Some((alias, known.is_some()))
    }

    /// Ask for a body; whoever waits is served when it is there.
    pub(super) fn fetch(&mut self, message: u32, session: Option<u32>, effects: &mut impl Effects) {
        let lsn = self.messages.get(message).lsn;
        assert!(lsn.is_some(), "a body that is not in memory is on disk");
        let id = self.messages.id(message);
        let first = !self.fetching.contains_key(&lsn);
        let fetch = self.fetching.entry(lsn).or_default();
        if !fetch.messages.contains(&id) {
            fetch.messages.push(id);
        }
        fetch.sessions.extend(session);
        if first {
            effects.perform(Effect::Fetch { lsn });
        }
    }

    /// A session waits for a body: those behind it are read with it, or every turn would send it one message.
    fn read_ahead(&mut self, slot: u32, effects: &mut impl Effects) {
        if self.fetching.len() >= READ_AHEAD_OUTSTANDING_MAX {
            return;
        }
        let Some(delivery) = self.sessions.get(slot).delivery.as_deref() else { return };
        let in_flight = delivery.in_flight.iter().skip(delivery.cursor).map(|one| Queued::Here(one.entry));
        let next: Vec<Queued> = in_flight.chain(delivery.queue.iter()).take(READ_AHEAD_MESSAGES).collect();
        let begun = delivery.in_flight.len().saturating_sub(delivery.cursor);
        let mut bytes = 0;
        for (index, queued) in next.into_iter().enumerate() {
            if bytes >= READ_AHEAD_BYTES || !self.messages.has_room_to_read_ahead() {
                return;
            }
            let message = match queued {
                Queued::Here(entry) => entry.message,
                Queued::Stored(stored) if stored.expires_at() <= self.now.wall => return,
                Queued::Stored(stored) => {
                    let entry = self.bring_in(slot, stored);
                    self.sessions.get_mut(slot).delivery().queue.replace(index - begun, Queued::Here(entry));
                    entry.message
                }
            };
            let message_held = self.messages.get(message);
            if message_held.content.is_none() && message_held.lsn.is_some() {
                bytes += message_held.length();
                self.fetch(message, None, effects);
            }
        }
    }

    /// A body was read back.
    pub(super) fn body_fetched(&mut self, lsn: Lsn, body: &record::Body<'_>) {
        let Some(fetch) = self.fetching.remove(&lsn) else { return };
        for id in fetch.messages {
            if self.messages.find(id).is_some_and(|message| message.content.is_none()) {
                self.messages.restore_bytes(id.slot, body);
            }
        }
        for slot in fetch.sessions {
            if self.sessions.exists(slot) {
                self.make_ready(slot);
            }
        }
    }
}
