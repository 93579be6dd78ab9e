//! Records to bytes: the frame and the body of each type. The other direction is `decode`.
//!
//! Type numbers and bodies are frozen: golden files in `tests/golden` are read by a test for ever, and another shape
//! gets another number. All numbers are little endian; "text" and "bytes" are without a length of their own.
//!
//! | type | body |
//! |---|---|
//! | 1 message | accepted u64, expires u64, origin LSN u64 (0: none), origin shard u16, topic length u16, QoS u8, flags u8 (1 retain, 2 origin), zeros u16, forward length u32, payload length u32, recipient count u32, zeros u32; recipients of 16, topic, forward, payload |
//! | 2 deliver | message u64, recipient count u32, zeros u32; recipients of 16 |
//! | 3 acknowledged | session u64, message u64 |
//! | 4 inbound | session u64, accepted u64, expires u64, packet id u16, topic length u16, QoS u8, flags u8 (1 retain), zeros u16, forward length u32, payload length u32; topic, forward, payload |
//! | 5 routed | inbound u64 |
//! | 6 released | session u64, packet id u16, zeros to 16 |
//! | 7 sent | session u64, message u64, packet id u16, zeros to 24 |
//! | 8 received | session u64, packet id u16, zeros to 16 |
//! | 9 retained | message u64 |
//! | 10 disconnected | session u64, at u64, will due u64, expiry u32, zeros u32 |
//! | 11 will gone | session u64 |
//! | 12 session ended | session u64, will due u64 |
//! | 13 gap | session u64, skipped u64 |
//! | 14 origin released | LSN u64, shard u16, zeros to 16 |
//! | 15 delivery done | list u64, place u32, zeros to 16 |
//! | 16 delivery begun | list u64, place u32, packet id u16, zeros u16 |
//! | 17 handed on | list u64, place u32, zeros to 16 |
//! | 32 session | rkyv [`SessionBody`] |
//! | 33 subscribed | rkyv [`SubscribedBody`] |
//! | 34 unsubscribed | rkyv [`UnsubscribedBody`] |
//! | 35 retained cleared | rkyv [`RetainedClearedBody`] |
//! | 36 spent | rkyv [`SpentBody`] |
//!
//! Fixed layouts are for what is written per message or is only numbers; the rest, text that comes once per session
//! or subscription, is archived by rkyv in its unaligned little-endian form.

use rkyv::with::InlineAsBox;
use rkyv::{Archive, Serialize};

use super::format::{FRAME_BYTES, frame_at, put};
use crate::ids::{Lsn, OriginKey};
use crate::record::{Body, Recipient, Recipients, Record, WillRecord};

/// Type numbers.
pub(super) mod kind {
    pub const MESSAGE: u8 = 1;
    pub const DELIVER: u8 = 2;
    pub const ACKNOWLEDGED: u8 = 3;
    pub const INBOUND: u8 = 4;
    pub const ROUTED: u8 = 5;
    pub const RELEASED: u8 = 6;
    pub const SENT: u8 = 7;
    pub const RECEIVED: u8 = 8;
    pub const RETAINED: u8 = 9;
    pub const DISCONNECTED: u8 = 10;
    pub const WILL_GONE: u8 = 11;
    pub const SESSION_ENDED: u8 = 12;
    pub const GAP: u8 = 13;
    pub const ORIGIN_RELEASED: u8 = 14;
    pub const DELIVERY_DONE: u8 = 15;
    pub const DELIVERY_BEGUN: u8 = 16;
    pub const HANDED_ON: u8 = 17;
    pub const SESSION: u8 = 32;
    pub const SUBSCRIBED: u8 = 33;
    pub const UNSUBSCRIBED: u8 = 34;
    pub const RETAINED_CLEARED: u8 = 35;
    pub const SPENT: u8 = 36;
}

/// The version byte of every type so far.
pub(super) const RECORD_VERSION: u8 = 1;

/// Flags of a message or inbound body.
pub(super) const FLAG_RETAIN: u8 = 1;
/// The message has an origin key.
pub(super) const FLAG_ORIGIN: u8 = 2;

/// Offsets in a message body.
pub(super) mod message_at {
    pub const ACCEPTED: usize = 0;
    pub const EXPIRES: usize = 8;
    pub const ORIGIN_LSN: usize = 16;
    pub const ORIGIN_SHARD: usize = 24;
    pub const TOPIC_LENGTH: usize = 26;
    pub const QOS: usize = 28;
    pub const FLAGS: usize = 29;
    pub const ZEROS: usize = 30;
    pub const FORWARD_LENGTH: usize = 32;
    pub const PAYLOAD_LENGTH: usize = 36;
    pub const RECIPIENT_COUNT: usize = 40;
    pub const ZEROS_LAST: usize = 44;
    pub const END: usize = 48;
}

/// Offsets in an inbound body.
pub(super) mod inbound_at {
    pub const SESSION: usize = 0;
    pub const ACCEPTED: usize = 8;
    pub const EXPIRES: usize = 16;
    pub const PACKET_ID: usize = 24;
    pub const TOPIC_LENGTH: usize = 26;
    pub const QOS: usize = 28;
    pub const FLAGS: usize = 29;
    pub const ZEROS: usize = 30;
    pub const FORWARD_LENGTH: usize = 32;
    pub const PAYLOAD_LENGTH: usize = 36;
    pub const END: usize = 40;
}

const _: () = assert!(message_at::ZEROS_LAST + 4 == message_at::END && message_at::END.is_multiple_of(8));
const _: () = assert!(inbound_at::PAYLOAD_LENGTH + 4 == inbound_at::END && inbound_at::END.is_multiple_of(8));
// `decode` reads topic, QoS, flags and lengths of both with one function.
const _: () =
    assert!(message_at::TOPIC_LENGTH == inbound_at::TOPIC_LENGTH && message_at::QOS == inbound_at::QOS);
const _: () = assert!(message_at::FLAGS == inbound_at::FLAGS && message_at::ZEROS == inbound_at::ZEROS);
const _: () = assert!(message_at::FORWARD_LENGTH == inbound_at::FORWARD_LENGTH);
const _: () = assert!(message_at::PAYLOAD_LENGTH == inbound_at::PAYLOAD_LENGTH);

/// Body of a session record.
#[derive(Archive, Serialize)]
pub(super) struct SessionBody<'a> {
    pub key: u64,
    pub expiry_s: u32,
    pub version: u8,
    #[rkyv(with = InlineAsBox)]
    pub account: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub client_id: &'a str,
    pub will: Option<WillBody<'a>>,
}

/// The will in a session record.
#[derive(Archive, Serialize)]
pub(super) struct WillBody<'a> {
    pub accepted_at: u64,
    pub expires_at: u64,
    pub delay_s: u32,
    pub message_expiry_s: u32,
    pub qos: u8,
    pub retain: bool,
    #[rkyv(with = InlineAsBox)]
    pub topic: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub forward: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    pub payload: &'a [u8],
}

/// Body of a subscribed record.
#[derive(Archive, Serialize)]
pub(super) struct SubscribedBody<'a> {
    pub key: u64,
    pub subscription_id: u32,
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: u8,
    #[rkyv(with = InlineAsBox)]
    pub filter: &'a str,
}

/// Body of an unsubscribed record.
#[derive(Archive, Serialize)]
pub(super) struct UnsubscribedBody<'a> {
    pub key: u64,
    #[rkyv(with = InlineAsBox)]
    pub filter: &'a str,
}

/// Body of a retained-cleared record.
#[derive(Archive, Serialize)]
pub(super) struct RetainedClearedBody<'a> {
    #[rkyv(with = InlineAsBox)]
    pub topic: &'a str,
}

/// Body of a spent record.
#[derive(Archive, Serialize)]
pub(super) struct SpentBody<'a> {
    pub full_at: u64,
    pub limit: u8,
    #[rkyv(with = InlineAsBox)]
    pub account: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub client_id: &'a str,
}

// Feature unification with another crate could change rkyv's layout; then these no longer hold.
const _: () = assert!(size_of::<ArchivedWillBody<'static>>() == 8 + 8 + 4 + 4 + 1 + 1 + 3 * 8);
const _: () = assert!(size_of::<ArchivedSubscribedBody<'static>>() == 8 + 4 + 4 + 8);
const _: () = assert!(align_of::<ArchivedSessionBody<'static>>() == 1);

/// Append the frame and body of a record. Nothing can fail; the bounds on topics and packets keep lengths in range.
pub(super) fn encode(lsn: Lsn, record: &Record<'_>, out: &mut Vec<u8>) {
    let start = begin_frame(out);
    let kind = body(record, out);
    seal_frame(start, lsn, kind, out);
}

/// Room for a frame, whose body follows; where it begins.
pub(super) fn begin_frame(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_BYTES]);
    start
}

/// Fill in the frame in front of a body.
pub(super) fn seal_frame(start: usize, lsn: Lsn, kind: u8, out: &mut Vec<u8>) {
    let length = out.len() - start - FRAME_BYTES;
    out.resize(start + FRAME_BYTES + length.next_multiple_of(8), 0);
    let frame = &mut out[start..];
    put(frame, frame_at::LENGTH, count(length).to_le_bytes());
    put(frame, frame_at::LSN, lsn.0.to_le_bytes());
    put(frame, frame_at::TYPE, [kind, RECORD_VERSION]);
    let crc = crc32c::crc32c(&frame[frame_at::LENGTH..FRAME_BYTES + length]);
    put(frame, frame_at::CRC, crc.to_le_bytes());
}

fn body(record: &Record<'_>, out: &mut Vec<u8>) -> u8 {
    match *record {
        Record::Message { ref body, origin, recipients } => {
            message(body, origin, recipients, out);
            kind::MESSAGE
        }
        Record::Deliver { message, recipients } => {
            out.extend_from_slice(&message.0.to_le_bytes());
            out.extend_from_slice(&u64::from(count(recipients.len())).to_le_bytes());
            put_recipients(recipients, out);
            kind::DELIVER
        }
        Record::Acknowledged { key, message, packet_id: None } => {
            numbers(kind::ACKNOWLEDGED, [key.0, message.0], out)
        }
        Record::Acknowledged { key, message, packet_id: Some(packet_id) } => {
            numbers(kind::ACKNOWLEDGED, [key.0, message.0, packet_id.get().into()], out)
        }
        Record::Inbound { key, packet_id, ref body } => {
            let mut fixed = [0; inbound_at::END];
            put(&mut fixed, inbound_at::SESSION, key.0.to_le_bytes());
            put(&mut fixed, inbound_at::ACCEPTED, body.accepted_at.0.to_le_bytes());
            put(&mut fixed, inbound_at::EXPIRES, body.expires_at.0.to_le_bytes());
            put(&mut fixed, inbound_at::PACKET_ID, packet_id.get().to_le_bytes());
            put_body(body, 0, &mut fixed);
            out.extend_from_slice(&fixed);
            put_bytes(body, out);
            kind::INBOUND
        }
        Record::Routed { inbound } => numbers(kind::ROUTED, [inbound.0], out),
        Record::Released { key, packet_id } => numbers(kind::RELEASED, [key.0, packet_id.get().into()], out),
        Record::Sent { key, message, packet_id } => {
            numbers(kind::SENT, [key.0, message.0, packet_id.get().into()], out)
        }
        Record::Received { key, packet_id } => numbers(kind::RECEIVED, [key.0, packet_id.get().into()], out),
        Record::Retained { message } => numbers(kind::RETAINED, [message.0], out),
        Record::Disconnected { key, at, expiry_s, will_due } => {
            numbers(kind::DISCONNECTED, [key.0, at.0, will_due.0, expiry_s.into()], out)
        }
        Record::WillGone { key } => numbers(kind::WILL_GONE, [key.0], out),
        Record::SessionEnded { key, will_due } => numbers(kind::SESSION_ENDED, [key.0, will_due.0], out),
        Record::Gap { key, skipped } => numbers(kind::GAP, [key.0, skipped], out),
        Record::OriginReleased { mark } => {
            numbers(kind::ORIGIN_RELEASED, [mark.lsn.0, mark.shard.0.into()], out)
        }
        Record::DeliveryDone { list, place } => numbers(kind::DELIVERY_DONE, [list.0, place.into()], out),
        Record::HandedOn { list, place } => numbers(kind::HANDED_ON, [list.0, place.into()], out),
        Record::DeliveryBegun { list, place, packet_id } => {
            let packet_id = u64::from(packet_id.get()) << 32;
            numbers(kind::DELIVERY_BEGUN, [list.0, u64::from(place) | packet_id], out)
        }
        Record::Session { .. }
        | Record::Subscribed { .. }
        | Record::Unsubscribed { .. }
        | Record::RetainedCleared { .. }
        | Record::Spent { .. } => cold(record, out),
    }
}

/// A body of 64-bit numbers; a narrower one is widened, which is the same as the zeros in the table.
fn numbers<const N: usize>(kind: u8, values: [u64; N], out: &mut Vec<u8>) -> u8 {
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
    kind
}

fn message(body: &Body<'_>, origin: Option<OriginKey>, recipients: Recipients<'_>, out: &mut Vec<u8>) {
    let mut fixed = [0; message_at::END];
    put(&mut fixed, message_at::ACCEPTED, body.accepted_at.0.to_le_bytes());
    put(&mut fixed, message_at::EXPIRES, body.expires_at.0.to_le_bytes());
    if let Some(origin) = origin {
        put(&mut fixed, message_at::ORIGIN_LSN, origin.lsn.0.to_le_bytes());
        put(&mut fixed, message_at::ORIGIN_SHARD, origin.shard.0.to_le_bytes());
    }
    put_body(body, if origin.is_some() { FLAG_ORIGIN } else { 0 }, &mut fixed);
    put(&mut fixed, message_at::RECIPIENT_COUNT, count(recipients.len()).to_le_bytes());
    out.extend_from_slice(&fixed);
    put_recipients(recipients, out);
    put_bytes(body, out);
}

/// The part of the fixed layout that message and inbound share.
fn put_body(body: &Body<'_>, flags: u8, fixed: &mut [u8]) {
    let topic_length = u16::try_from(body.topic.len()).expect("a topic on the wire has a 16-bit length");
    put(fixed, message_at::TOPIC_LENGTH, topic_length.to_le_bytes());
    put(fixed, message_at::QOS, [body.qos as u8, flags | if body.retain { FLAG_RETAIN } else { 0 }]);
    put(fixed, message_at::FORWARD_LENGTH, count(body.forward.len()).to_le_bytes());
    put(fixed, message_at::PAYLOAD_LENGTH, count(body.payload.len()).to_le_bytes());
}

fn put_bytes(body: &Body<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(body.topic.as_bytes());
    out.extend_from_slice(body.forward);
    out.extend_from_slice(body.payload);
}

fn put_recipients(recipients: Recipients<'_>, out: &mut Vec<u8>) {
    out.reserve(recipients.len() * Recipient::WIRE_BYTES);
    for recipient in recipients {
        out.extend_from_slice(&recipient.to_wire());
    }
}

fn cold(record: &Record<'_>, out: &mut Vec<u8>) -> u8 {
    match *record {
        Record::Session { key, account, client_id, version, expiry_s, ref will } => {
            let will = will.as_ref().map(will_body);
            archive(
                &SessionBody { key: key.0, expiry_s, version: version as u8, account, client_id, will },
                out,
            );
            kind::SESSION
        }
        Record::Subscribed { key, filter, options, subscription_id } => {
            let body = SubscribedBody {
                key: key.0,
                subscription_id,
                qos: options.qos as u8,
                no_local: options.no_local,
                retain_as_published: options.retain_as_published,
                retain_handling: options.retain_handling as u8,
                filter,
            };
            archive(&body, out);
            kind::SUBSCRIBED
        }
        Record::Unsubscribed { key, filter } => {
            archive(&UnsubscribedBody { key: key.0, filter }, out);
            kind::UNSUBSCRIBED
        }
        Record::RetainedCleared { topic } => {
            archive(&RetainedClearedBody { topic }, out);
            kind::RETAINED_CLEARED
        }
        Record::Spent { account, client_id, limit, full_at } => {
            archive(&SpentBody { full_at: full_at.0, limit, account, client_id }, out);
            kind::SPENT
        }
        _ => unreachable!("`body` encodes every other type"),
    }
}

fn will_body<'a>(will: &WillRecord<'a>) -> WillBody<'a> {
    WillBody {
        accepted_at: will.body.accepted_at.0,
        expires_at: will.body.expires_at.0,
        delay_s: will.delay_s,
        message_expiry_s: will.message_expiry_s,
        qos: will.body.qos as u8,
        retain: will.body.retain,
        topic: will.body.topic,
        forward: will.body.forward,
        payload: will.body.payload,
    }
}

fn archive<T>(value: &T, out: &mut Vec<u8>)
where
    T: for<'a> Serialize<
        rkyv::api::high::HighSerializer<Vec<u8>, rkyv::ser::allocator::ArenaHandle<'a>, rkyv::rancor::Panic>,
    >,
{
    // The buffer moves into the serializer and back out: the archive is appended where it will lie.
    let Ok(filled) = rkyv::api::high::to_bytes_in(value, std::mem::take(out));
    *out = filled;
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("a record fits a segment, and a segment's size fits 32 bits")
}
