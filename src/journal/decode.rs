//! Bytes to records, borrowing: the other direction of `encode`, where the layouts are.
//!
//! Never panics, whatever the bytes. Order of checks: length, then CRC, then every field (for archived bodies
//! bytecheck), then use. So a defect found after the CRC passed means another version of ironpost, not a bad disk.

use rkyv::rancor;

use super::encode::{
    ArchivedRetainedClearedBody, ArchivedSessionBody, ArchivedSpentBody, ArchivedSubscribedBody,
    ArchivedUnsubscribedBody, ArchivedWillBody, FLAG_ORIGIN, FLAG_RETAIN, RECORD_VERSION, inbound_at, kind,
    message_at,
};
use super::format::{FRAME_BYTES, frame_at, get};
use crate::ids::{Lsn, OriginKey, SessionKey, ShardId};
use crate::record::{Body, Recipient, Recipients, Record, WillRecord};
use crate::time::UnixMs;
use crate::wire::{PacketId, QoS, RetainHandling, SubscribeOptions, Version};

/// A frame whose CRC is right.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Frame<'a> {
    pub lsn: Lsn,
    pub kind: u8,
    pub version: u8,
    pub flags: u16,
    pub body: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Defect {
    /// The frame or its body ends beyond the bytes.
    Length { expected: usize, found: usize },
    /// The checksum differs.
    Checksum { expected: u32, found: u32 },
    /// A type or version that this program does not know.
    Type { kind: u8, version: u8 },
    /// The body of that type is not as the table says.
    Body { kind: u8 },
}

/// Bytes that a frame with a body of that length takes.
pub(super) fn frame_extent(length: usize) -> usize {
    FRAME_BYTES + length.next_multiple_of(8)
}

/// What the frame that begins so claims to take.
pub(super) fn extent(frame: &[u8; FRAME_BYTES]) -> usize {
    frame_extent(u32::from_le_bytes(get(frame, frame_at::LENGTH)) as usize)
}

/// LSN and extent of the frame at the front, unchecked but for the bounds: enough to step over it.
pub(super) fn step(bytes: &[u8]) -> Result<(Lsn, usize), Defect> {
    if bytes.len() < FRAME_BYTES {
        return Err(Defect::Length { expected: FRAME_BYTES, found: bytes.len() });
    }
    let length = u32::from_le_bytes(get(bytes, frame_at::LENGTH)) as usize;
    let extent = frame_extent(length);
    if bytes.len() < extent {
        return Err(Defect::Length { expected: extent, found: bytes.len() });
    }
    Ok((Lsn(u64::from_le_bytes(get(bytes, frame_at::LSN))), extent))
}

/// The frame at the front, checked, and its extent.
pub(super) fn frame(bytes: &[u8]) -> Result<(Frame<'_>, usize), Defect> {
    let (lsn, extent) = step(bytes)?;
    let length = u32::from_le_bytes(get(bytes, frame_at::LENGTH)) as usize;
    let found = u32::from_le_bytes(get(bytes, frame_at::CRC));
    let expected = crc32c::crc32c(&bytes[frame_at::LENGTH..FRAME_BYTES + length]);
    if found != expected {
        return Err(Defect::Checksum { expected, found });
    }
    let [kind, version] = get(bytes, frame_at::TYPE);
    let flags = u16::from_le_bytes(get(bytes, frame_at::FLAGS));
    Ok((Frame { lsn, kind, version, flags, body: &bytes[FRAME_BYTES..FRAME_BYTES + length] }, extent))
}

/// The record in a frame.
pub(super) fn record<'a>(frame: &Frame<'a>) -> Result<Record<'a>, Defect> {
    let Frame { kind, version, flags, body, .. } = *frame;
    if version != RECORD_VERSION || flags != 0 || !known(kind) {
        return Err(Defect::Type { kind, version });
    }
    hot(kind, body).or_else(|| numbers(kind, body)).or_else(|| cold(kind, body)).ok_or(Defect::Body { kind })
}

fn known(kind: u8) -> bool {
    (kind::MESSAGE..=kind::HANDED_ON).contains(&kind) || (kind::SESSION..=kind::SPENT).contains(&kind)
}

fn hot(kind: u8, bytes: &[u8]) -> Option<Record<'_>> {
    match kind {
        kind::MESSAGE => message(bytes),
        kind::DELIVER => {
            let (fixed, rest) = bytes.split_first_chunk::<16>()?;
            let count = usize::try_from(u64::from_le_bytes(get(fixed, 8))).ok()?;
            if rest.len() != count.checked_mul(Recipient::WIRE_BYTES)? {
                return None;
            }
            let message = Lsn(u64::from_le_bytes(get(fixed, 0)));
            Some(Record::Deliver { message, recipients: Recipients::from_wire(rest)? })
        }
        kind::INBOUND => {
            let (fixed, rest) = bytes.split_first_chunk::<{ inbound_at::END }>()?;
            let body = body(fixed, inbound_at::ACCEPTED, FLAG_RETAIN, rest)?;
            Some(Record::Inbound {
                key: SessionKey(u64::from_le_bytes(get(fixed, inbound_at::SESSION))),
                packet_id: PacketId::new(u16::from_le_bytes(get(fixed, inbound_at::PACKET_ID)))?,
                body,
            })
        }
        _ => None,
    }
}

fn message(bytes: &[u8]) -> Option<Record<'_>> {
    let (fixed, rest) = bytes.split_first_chunk::<{ message_at::END }>()?;
    let count = u32::from_le_bytes(get(fixed, message_at::RECIPIENT_COUNT)) as usize;
    let (recipients, rest) = rest.split_at_checked(count.checked_mul(Recipient::WIRE_BYTES)?)?;
    let body = body(fixed, message_at::ACCEPTED, FLAG_RETAIN | FLAG_ORIGIN, rest)?;
    let key = OriginKey {
        shard: ShardId(u16::from_le_bytes(get(fixed, message_at::ORIGIN_SHARD))),
        lsn: Lsn(u64::from_le_bytes(get(fixed, message_at::ORIGIN_LSN))),
    };
    let origin = match fixed[message_at::FLAGS] & FLAG_ORIGIN != 0 {
        true => Some(key),
        false if key.lsn == Lsn::NONE && key.shard == ShardId(0) => None,
        false => return None,
    };
    if get(fixed, message_at::ZEROS_LAST) != [0; 4] {
        return None;
    }
    Some(Record::Message { body, origin, recipients: Recipients::from_wire(recipients)? })
}

/// The body of a message or inbound record; `accepted_at` is where its two times begin.
fn body<'a>(fixed: &[u8], accepted_at: usize, flags_known: u8, bytes: &'a [u8]) -> Option<Body<'a>> {
    let topic_length = usize::from(u16::from_le_bytes(get(fixed, message_at::TOPIC_LENGTH)));
    let forward_length = u32::from_le_bytes(get(fixed, message_at::FORWARD_LENGTH)) as usize;
    let payload_length = u32::from_le_bytes(get(fixed, message_at::PAYLOAD_LENGTH)) as usize;
    let (topic, rest) = bytes.split_at_checked(topic_length)?;
    let (forward, payload) = rest.split_at_checked(forward_length)?;
    let flags = fixed[message_at::FLAGS];
    if payload.len() != payload_length || flags & !flags_known != 0 || get(fixed, message_at::ZEROS) != [0; 2]
    {
        return None;
    }
    Some(Body {
        topic: str::from_utf8(topic).ok()?,
        forward,
        payload,
        qos: QoS::from_bits(fixed[message_at::QOS])?,
        retain: flags & FLAG_RETAIN != 0,
        accepted_at: UnixMs(u64::from_le_bytes(get(fixed, accepted_at))),
        expires_at: UnixMs(u64::from_le_bytes(get(fixed, accepted_at + 8))),
    })
}

/// The records that are nothing but numbers of 64 bits, some of which must be narrower.
fn numbers(kind: u8, bytes: &[u8]) -> Option<Record<'_>> {
    let (words, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return None;
    }
    let mut values = [0; 4];
    for (value, word) in values.iter_mut().zip(words) {
        *value = u64::from_le_bytes(*word);
    }
    let key = SessionKey(values[0]);
    let record = match (kind, words.len()) {
        (kind::ACKNOWLEDGED, 2) => Record::Acknowledged { key, message: Lsn(values[1]), packet_id: None },
        (kind::ACKNOWLEDGED, 3) => {
            Record::Acknowledged { key, message: Lsn(values[1]), packet_id: Some(packet_id(values[2])?) }
        }
        (kind::ROUTED, 1) => Record::Routed { inbound: Lsn(values[0]) },
        (kind::RELEASED, 2) => Record::Released { key, packet_id: packet_id(values[1])? },
        (kind::SENT, 3) => Record::Sent { key, message: Lsn(values[1]), packet_id: packet_id(values[2])? },
        (kind::RECEIVED, 2) => Record::Received { key, packet_id: packet_id(values[1])? },
        (kind::RETAINED, 1) => Record::Retained { message: Lsn(values[0]) },
        (kind::DISCONNECTED, 4) => Record::Disconnected {
            key,
            at: UnixMs(values[1]),
            will_due: UnixMs(values[2]),
            expiry_s: u32::try_from(values[3]).ok()?,
        },
        (kind::WILL_GONE, 1) => Record::WillGone { key },
        (kind::SESSION_ENDED, 2) => Record::SessionEnded { key, will_due: UnixMs(values[1]) },
        (kind::GAP, 2) => Record::Gap { key, skipped: values[1] },
        (kind::ORIGIN_RELEASED, 2) => {
            let shard = ShardId(u16::try_from(values[1]).ok()?);
            Record::OriginReleased { mark: OriginKey { shard, lsn: Lsn(values[0]) } }
        }
        (kind::DELIVERY_DONE, 2) => {
            Record::DeliveryDone { list: Lsn(values[0]), place: u32::try_from(values[1]).ok()? }
        }
        (kind::HANDED_ON, 2) => {
            Record::HandedOn { list: Lsn(values[0]), place: u32::try_from(values[1]).ok()? }
        }
        (kind::DELIVERY_BEGUN, 2) => Record::DeliveryBegun {
            list: Lsn(values[0]),
            place: u32::try_from(values[1] & 0xFFFF_FFFF).ok()?,
            packet_id: packet_id(values[1] >> 32)?,
        },
        _ => return None,
    };
    Some(record)
}

fn packet_id(value: u64) -> Option<PacketId> {
    PacketId::new(u16::try_from(value).ok()?)
}

fn cold(kind: u8, bytes: &[u8]) -> Option<Record<'_>> {
    match kind {
        kind::SESSION => {
            let body = rkyv::access::<ArchivedSessionBody<'_>, rancor::Failure>(bytes).ok()?;
            let will = match body.will.as_ref() {
                Some(will) => Some(will_record(will)?),
                None => None,
            };
            Some(Record::Session {
                key: SessionKey(body.key.to_native()),
                account: &body.account,
                client_id: &body.client_id,
                version: version(body.version)?,
                expiry_s: body.expiry_s.to_native(),
                will,
            })
        }
        kind::SUBSCRIBED => {
            let body = rkyv::access::<ArchivedSubscribedBody<'_>, rancor::Failure>(bytes).ok()?;
            let options = SubscribeOptions {
                qos: QoS::from_bits(body.qos)?,
                no_local: body.no_local,
                retain_as_published: body.retain_as_published,
                retain_handling: retain_handling(body.retain_handling)?,
            };
            Some(Record::Subscribed {
                key: SessionKey(body.key.to_native()),
                filter: &body.filter,
                options,
                subscription_id: body.subscription_id.to_native(),
            })
        }
        kind::UNSUBSCRIBED => {
            let body = rkyv::access::<ArchivedUnsubscribedBody<'_>, rancor::Failure>(bytes).ok()?;
            Some(Record::Unsubscribed { key: SessionKey(body.key.to_native()), filter: &body.filter })
        }
        kind::RETAINED_CLEARED => {
            let body = rkyv::access::<ArchivedRetainedClearedBody<'_>, rancor::Failure>(bytes).ok()?;
            Some(Record::RetainedCleared { topic: &body.topic })
        }
        kind::SPENT => {
            let body = rkyv::access::<ArchivedSpentBody<'_>, rancor::Failure>(bytes).ok()?;
            Some(Record::Spent {
                account: &body.account,
                client_id: &body.client_id,
                limit: body.limit,
                full_at: UnixMs(body.full_at.to_native()),
            })
        }
        _ => None,
    }
}

fn will_record<'a>(will: &'a ArchivedWillBody<'_>) -> Option<WillRecord<'a>> {
    let body = Body {
        topic: &will.topic,
        forward: &will.forward,
        payload: &will.payload,
        qos: QoS::from_bits(will.qos)?,
        retain: will.retain,
        accepted_at: UnixMs(will.accepted_at.to_native()),
        expires_at: UnixMs(will.expires_at.to_native()),
    };
    let (delay_s, message_expiry_s) = (will.delay_s.to_native(), will.message_expiry_s.to_native());
    Some(WillRecord { body, delay_s, message_expiry_s })
}

fn version(value: u8) -> Option<Version> {
    [Version::V31, Version::V311, Version::V5].into_iter().find(|version| *version as u8 == value)
}

fn retain_handling(value: u8) -> Option<RetainHandling> {
    [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend]
        .into_iter()
        .find(|handling| *handling as u8 == value)
}

#[cfg(test)]
mod tests;
