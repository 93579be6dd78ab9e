//! One packet to its bytes, appended to an output buffer.
//!
//! Encoding cannot fail: what is encoded was decoded, or was built by the broker inside the bounds of `limits`; a
//! string beyond 65,535 bytes or a packet beyond 256 MiB is a bug of the caller and panics. What a version cannot say
//! is left out or translated: properties and reason strings in v3; CONNACK and SUBACK reasons become return codes;
//! an UNSUBACK has no reasons. What a version has no packet for is the caller's to avoid: a DISCONNECT *from the
//! server* `[MQTT-3.1.1 3.14]`, an AUTH, a negative PUBACK or a PUBLISH with an alias instead of its topic in v3.
//! Equally the caller's: leaving out reason strings and user properties that make a packet larger than the peer takes.

mod body;

use super::bytes::{self, Counter, Sink};
use super::frame;
use super::packet::{Packet, Publish, Version};
use super::property::Property;

/// Appends the packet. Reserves once.
#[inline]
pub fn packet(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) {
    match packet {
        Packet::Publish(packet) => publish(packet, version, out),
        Packet::Pingresp => out.put(&frame::PINGRESP),
        packet => rarer(packet, version, out),
    }
}

/// The exact number of bytes [`packet`](fn@packet) appends.
#[inline]
pub fn length(packet: &Packet<'_>, version: Version) -> usize {
    let remaining = match packet {
        Packet::Publish(packet) => PublishLengths::of(packet, version).remaining,
        packet => body_length(packet, version),
    };
    1 + bytes::variable_len(remaining) + remaining
}

fn body_length(packet: &Packet<'_>, version: Version) -> usize {
    let mut counter = Counter::default();
    body::write(packet, version, &mut counter);
    counter.0
}

fn rarer(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) {
    let remaining = body_length(packet, version);
    out.reserve(5 + remaining);
    out.push((packet.packet_type() as u8) << 4 | body::flags(packet));
    out.variable(variable(remaining));
    body::write(packet, version, out);
}

/// A length as it is encoded.
#[inline]
fn variable(len: usize) -> u32 {
    u32::try_from(len).expect("a packet is shorter than 256 MiB")
}

/// How long the parts of a PUBLISH are.
struct PublishLengths {
    properties: usize,
    remaining: usize,
}

impl PublishLengths {
    #[inline]
    fn of(publish: &Publish<'_>, version: Version) -> PublishLengths {
        let id = if publish.packet_id.is_some() { 2 } else { 0 };
        let head = 2 + publish.topic.len() + id;
        if !version.is_v5() {
            return PublishLengths { properties: 0, remaining: head + publish.payload.len() };
        }
        let properties = publish.message_expiry.map_or(0, |_| 5)
            + publish.topic_alias.map_or(0, |_| 3)
            + publish.subscription_ids.iter().map(|&id| 1 + bytes::variable_len(id as usize)).sum::<usize>()
            + publish.forward.forwarded_len();
        let remaining = head + bytes::variable_len(properties) + properties + publish.payload.len();
        PublishLengths { properties, remaining }
    }
}

/// The hot path: everything is sized first, then written front to back.
#[inline]
fn publish(publish: &Publish<'_>, version: Version, out: &mut Vec<u8>) {
    let lengths = PublishLengths::of(publish, version);
    out.reserve(5 + lengths.remaining);
    out.push(0x30 | u8::from(publish.dup) << 3 | (publish.qos as u8) << 1 | u8::from(publish.retain));
    out.variable(variable(lengths.remaining));
    out.string(publish.topic);
    if let Some(id) = publish.packet_id {
        out.two_bytes(id.get());
    }
    if version.is_v5() {
        out.variable(variable(lengths.properties));
        if let Some(seconds) = publish.message_expiry {
            Property::MessageExpiryInterval(seconds).write(out);
        }
        if let Some(alias) = publish.topic_alias {
            Property::TopicAlias(alias.get()).write(out);
        }
        for &id in publish.subscription_ids {
            Property::SubscriptionIdentifier(id).write(out);
        }
        for slice in publish.forward.forwarded() {
            out.put(slice);
        }
    }
    out.put(publish.payload);
}

#[cfg(test)]
mod tests;
