//! What the broker counts, and the `$SYS/broker/...` topics that show the sum over all shards.
//!
//! Each shard sends the first one what it counted since the last time; that one publishes, as retained messages that
//! are never written down.

use super::Broker;
use super::effect::{Effect, Effects};
use super::messages::Sender;
use super::route::{MeshMessage, Parcel};
use super::settings::Settings;
use crate::content::Content;
use crate::ids::{PublisherKey, ShardId};
use crate::time::{Nanos, UnixMs};
use crate::wire::{Packet, QoS};

/// Counters since start, except `queued`, which is a level.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    pub(super) connected: u64,
    pub(super) disconnected: u64,
    pub(super) received: u64,
    pub(super) received_bytes: u64,
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) queued: u64,
    pub(super) placed: u64,
    pub(super) answered: u64,
    /// Records with a message's recipients; what was answered without one was never written.
    pub(super) recorded: u64,
    pub(super) refused: u64,
    pub(super) expired: u64,
    pub(super) too_large: u64,
    /// Publishes that were not permitted, and what was in queues by subscriptions that were taken back.
    pub(super) unauthorized: u64,
    /// Publishes at QoS 0 that gave way to what matters more.
    pub(super) dropped: u64,
    /// Bytes written, appended and copied, and syncs, of the shard's journal; as `Input::Journal` told them.
    pub(super) journal: [u64; 4],
    /// How often rate limits were exceeded; as `Input::Exceeded` told them.
    pub(super) exceeded: [u64; 5],
    told: Deltas,
    total: Deltas,
    due: Nanos,
    started: Option<Nanos>,
}

/// What one shard counted since the last time, in the order of `TOPICS`.
pub(crate) type Deltas = [u64; TOPICS.len()];

/// Topic below `$SYS/broker/` of each number that shards add up. Of the messages acknowledged to their senders at QoS 1,
/// those that were not recorded never touched the disk: `hold_ms` was long enough for their recipients.
const TOPICS: [&str; 27] = [
    "clients/connected",
    "messages/received",
    "bytes/received",
    "messages/sent",
    "bytes/sent",
    "messages/queued",
    "messages/refused",
    "messages/expired",
    "messages/unauthorized",
    "messages/acknowledged",
    "messages/recorded",
    "journal/bytes",
    "journal/bytes/appended",
    "journal/bytes/copied",
    "journal/syncs",
    "limits/connects",
    "limits/handshakes",
    "limits/publishes",
    "limits/bytes",
    "limits/subscriptions",
    "messages/dropped",
    "overload/retained-waits",
    "overload/newcomers-wait",
    "overload/qos0-dropped",
    "overload/publishers-wait",
    "overload/newcomers-refused",
    "overload/publishes-refused",
];

impl Statistics {
    /// A packet arrived.
    pub(super) fn received(&mut self, packet: &Packet<'_>) {
        if let Packet::Publish(publish) = packet {
            self.received += 1;
            self.received_bytes += publish.payload.len() as u64;
        }
    }

    /// What another shard counted.
    pub(super) fn add_remote(&mut self, deltas: &Deltas) {
        // Levels go down too: a delta is a wrapping difference.
        self.total.iter_mut().zip(deltas).for_each(|(total, delta)| *total = total.wrapping_add(*delta));
    }

    /// When to publish next.
    pub(super) fn next(&self, settings: &Settings) -> Nanos {
        if settings.sys_interval_s == 0 { Nanos::NEVER } else { self.due }
    }

    fn deltas(&mut self, overload: [u64; 6]) -> Deltas {
        let now = [
            self.connected - self.disconnected,
            self.received,
            self.received_bytes,
            self.sent,
            self.sent_bytes,
            self.queued,
            self.refused,
            self.expired,
            self.unauthorized,
            self.answered,
            self.recorded,
            self.journal[0],
            self.journal[1],
            self.journal[2],
            self.journal[3],
            self.exceeded[0],
            self.exceeded[1],
            self.exceeded[2],
            self.exceeded[3],
            self.exceeded[4],
            self.dropped,
            overload[0],
            overload[1],
            overload[2],
            overload[3],
            overload[4],
            overload[5],
        ];
        let deltas = std::array::from_fn(|index| now[index].wrapping_sub(self.told[index]));
        self.told = now;
        deltas
    }
}

impl Broker {
    /// Publish `$SYS`, or tell the shard that does, if it is time.
    pub(super) fn publish_statistics(&mut self, effects: &mut impl Effects) {
        let interval_s = self.settings.sys_interval_s;
        if interval_s == 0 || self.statistics.due > self.now.mono || !self.ready() {
            return;
        }
        let started = *self.statistics.started.get_or_insert(self.now.mono);
        self.statistics.due = self.now.mono.plus_s(u64::from(interval_s));
        let deltas = self.statistics.deltas(self.overload.times);
        if self.shard != ShardId(0) {
            let message = MeshMessage::Counters { deltas: Box::new(deltas) };
            effects.perform(Effect::Mesh { to: ShardId(0), message });
            return;
        }
        self.statistics.add_remote(&deltas);
        let total = self.statistics.total;
        for (topic, value) in TOPICS.into_iter().zip(total) {
            self.publish_value(topic, &value.to_string());
        }
        let uptime_s = self.now.mono.ms_since(started) / 1_000;
        self.publish_value("uptime", &format!("{uptime_s} seconds"));
        self.publish_value("version", concat!("ironpost ", env!("CARGO_PKG_VERSION")));
    }

    fn publish_value(&mut self, name: &str, value: &str) {
        let topic = format!("$SYS/broker/{name}");
        let parcel = Parcel {
            content: Content::new(&topic, std::iter::empty(), value.as_bytes()),
            qos: QoS::AtMostOnce,
            retain: true,
            accepted_at: self.now.wall,
            expires_at: UnixMs::NEVER,
            publisher: PublisherKey::NOBODY,
            origin: None,
        };
        let message = self.messages.insert(parcel, Sender::Nobody);
        self.route(message.slot);
    }
}
