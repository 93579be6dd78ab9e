//! What hostile clients do, kind by kind: the packets that one writes next, and how they are cut into writes.
//!
//! Decides the bytes. When they are written, and what the server answers, is the matter of `hostile`. All of it is valid
//! MQTT: a server may not call it an error, it has to live with it.

use clap::ValueEnum;

use crate::client::codec::{self, Publish, Version, kind};

/// A kind of hostile client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Noise {
    /// Subscribes to all that the well-behaved publish, and never reads
    Stalled,
    /// Publishes one byte per write, as fast as the kernel takes them
    OneByteWrites,
    /// PINGREQs as fast as possible
    PingFlood,
    /// The largest packets that the server accepts, as fast as possible
    MaxPackets,
    /// Connects and closes, every second time without a CONNECT
    ConnectFlood,
    /// Subscribes and unsubscribes with wildcards
    SubscribeFlood,
}

/// What a hostile client has to know to write its packets.
#[derive(Clone, Debug)]
pub struct Script {
    pub noise: Noise,
    pub version: Version,
    /// The topics of the well-behaved begin with this.
    pub prefix: String,
    /// A whole packet of `max-packets`.
    pub packet_bytes: usize,
}

/// Connections of `connect-flood` at once, for each hostile client: less than any listen backlog.
const CONNECTS_AT_ONCE: usize = 16;

/// One write takes at most this much, so that a write does not keep the well-behaved from the CPU for long.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// PINGREQs composed at a time: one write of 1 KiB.
const PINGS_AT_ONCE: u64 = 512;

/// Subscriptions and their ends composed at a time.
const CHURN_AT_ONCE: u64 = 32;

/// Filters that the churn goes round through.
const CHURN_FILTERS: u64 = 500;

/// Every so many filters of the churn, one matches all that the well-behaved publish.
const CHURN_MATCHES_EVERY: u64 = 8;

/// The longest header of a PUBLISH and its topic, in bytes: a packet of `max-packets` is not larger than was asked for.
const PUBLISH_OVERHEAD_BYTES: usize = 64;

/// What one-byte writes carry: small, so that a packet is mostly framing.
const SMALL_PAYLOAD: &[u8] = b"one byte after another";

/// Unanswered packets of a PUBLISH stream at QoS 1: below any server's receive maximum that is worth the name.
const PUBLISHES_UNANSWERED_MAX: u64 = 16;

impl Noise {
    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Connections at once for so many hostile clients.
    pub fn connections(self, clients: usize) -> usize {
        if self == Noise::ConnectFlood { clients * CONNECTS_AT_ONCE } else { clients }
    }

    /// The size of one write.
    pub fn write_bytes(self) -> usize {
        if self == Noise::OneByteWrites { 1 } else { WRITE_BYTES_MAX }
    }

    /// How many packets may be without an answer; packet identifiers do not repeat within them.
    pub fn unanswered_max(self) -> u64 {
        match self {
            Noise::OneByteWrites | Noise::MaxPackets => PUBLISHES_UNANSWERED_MAX,
            Noise::SubscribeFlood => 1_000,
            _ => 100_000,
        }
    }

    /// Every second hostile client uses QoS 1 where that makes a difference.
    pub fn qos(client: usize) -> u8 {
        (client % 2) as u8
    }
}

impl Script {
    /// What a stalled client subscribes to: the traffic of all well-behaved ones.
    pub fn busy_filter(&self) -> String {
        format!("{}/+", self.prefix)
    }

    /// Appends what hostile client `client` writes in its round `round`; how many answers that will have.
    pub fn compose(&self, client: usize, round: u64, out: &mut Vec<u8>) -> u64 {
        match self.noise {
            Noise::Stalled | Noise::ConnectFlood => 0,
            Noise::OneByteWrites => self.publish(client, round, SMALL_PAYLOAD, out),
            Noise::MaxPackets => {
                let payload = vec![0x5a; self.packet_bytes.saturating_sub(PUBLISH_OVERHEAD_BYTES)];
                let answers = self.publish(client, round, &payload, out);
                if answers == 0 {
                    // At QoS 0 this tells how far the server has come.
                    codec::encode_empty(out, kind::PINGREQ);
                }
                1
            }
            Noise::PingFlood => {
                (0..PINGS_AT_ONCE).for_each(|_| codec::encode_empty(out, kind::PINGREQ));
                PINGS_AT_ONCE
            }
            Noise::SubscribeFlood => {
                (0..CHURN_AT_ONCE).for_each(|step| self.churn(round * CHURN_AT_ONCE + step, out));
                2 * CHURN_AT_ONCE
            }
        }
    }

    /// A PUBLISH to a topic that nobody has subscribed to.
    fn publish(&self, client: usize, round: u64, payload: &[u8], out: &mut Vec<u8>) -> u64 {
        let qos = Noise::qos(client);
        let packet_id = if qos == 0 { 0 } else { (round % 60_000) as u16 + 1 };
        let publish = Publish { qos, topic: b"nobody/listens/here", packet_id, payload };
        codec::encode_publish(out, self.version, &publish);
        qos.into()
    }

    /// One filter comes and goes.
    fn churn(&self, number: u64, out: &mut Vec<u8>) {
        let filter = match number % CHURN_FILTERS {
            place if place % CHURN_MATCHES_EVERY == 0 => self.busy_filter(),
            place => format!("churn/{place}/+/#"),
        };
        let packet_id = (number % 30_000) as u16 * 2 + 1;
        codec::encode_subscribe(out, self.version, packet_id, filter.as_bytes(), 0);
        codec::encode_unsubscribe(out, self.version, packet_id + 1, filter.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(script: &Script, client: usize, round: u64) -> (Vec<u8>, u64, usize) {
        let mut out = Vec::new();
        let answers = script.compose(client, round, &mut out);
        let (mut kinds, mut rest, mut longest) = (Vec::new(), out.as_slice(), 0);
        while let Some(frame) = codec::split_frame(rest).unwrap() {
            kinds.push(frame.kind());
            longest = longest.max(frame.bytes.len());
            rest = &rest[frame.bytes.len()..];
        }
        assert!(rest.is_empty(), "whole packets only");
        (kinds, answers, longest)
    }

    #[test]
    fn every_kind_writes_whole_packets_and_knows_how_many_are_answered() {
        for version in [Version::V311, Version::V5] {
            for &noise in Noise::value_variants() {
                let script = Script { noise, version, prefix: "p".to_owned(), packet_bytes: 1 << 20 };
                for (client, round) in [(0, 0), (1, 59_999), (1, 70_000)] {
                    let (kinds, answers, longest) = packets(&script, client, round);
                    let silent = |kind: &u8| *kind == kind::PUBLISH && client == 0;
                    let answered = kinds.iter().filter(|kind| !silent(kind)).count() as u64;
                    assert_eq!(answers, answered, "{noise:?} {version:?} client {client}");
                    assert!(longest <= 1 << 20 && answers <= noise.unanswered_max());
                }
            }
        }
    }

    #[test]
    fn the_largest_packet_nearly_fills_what_was_asked_for() {
        let noise = Noise::MaxPackets;
        let script = Script { noise, version: Version::V5, prefix: "p".to_owned(), packet_bytes: 1 << 20 };
        let (_, _, longest) = packets(&script, 1, 0);
        assert!(longest > (1 << 20) - PUBLISH_OVERHEAD_BYTES, "{longest}");
    }

    #[test]
    fn some_filters_of_the_churn_match_the_well_behaved_and_most_do_not() {
        let noise = Noise::SubscribeFlood;
        let script = Script { noise, version: Version::V311, prefix: "p".to_owned(), packet_bytes: 0 };
        let mut out = Vec::new();
        script.compose(0, 0, &mut out);
        let mut filters = Vec::new();
        let mut rest = out.as_slice();
        while let Some(frame) = codec::split_frame(rest).unwrap() {
            if frame.kind() == kind::SUBSCRIBE {
                let each = |filter: &[u8], _| filters.push(String::from_utf8_lossy(filter).into_owned());
                codec::parse_subscribe(&frame, Version::V311, each).unwrap();
            }
            rest = &rest[frame.bytes.len()..];
        }
        let matching = filters.iter().filter(|filter| **filter == script.busy_filter()).count();
        assert_eq!((filters.len(), matching), (32, 4));
    }
}
