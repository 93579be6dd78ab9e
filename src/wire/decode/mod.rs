//! One whole packet from its bytes.
//!
//! The caller has found the packet's end (`frame::peek`) and knows the version from the connection's CONNECT. The
//! result borrows from the bytes. Which reason a defect gets follows the standard where it names one: what cannot be
//! parsed, reserved bits, an unknown or misplaced property: 0x81; what parses and says what it may not: 0x82.

mod connect;
mod subscribe;

use std::num::NonZeroU16;

use super::bytes::{self, Reader, Variable};
use super::error::DecodeError;
use super::frame;
use super::packet::{Ack, AckKind, Auth, Disconnect, Packet, PacketId, PacketType, Publish, QoS, Version};
use super::property::{self, Place, Properties, Property};
use super::reason::ReasonCode;
use super::topic::{self, TopicError};

pub use connect::announced_version;

/// Decodes exactly one whole packet.
///
/// With no version yet only CONNECT is taken `[MQTT-3.1.0-1]`, which carries its own; a CONNECT is decoded by its own
/// version always, and whether it may come now is the broker's to judge. AUTH exists only in v5. Errors carry the
/// reason to answer with.
#[inline]
pub fn packet(frame: &[u8], version: Option<Version>) -> Result<Packet<'_>, DecodeError> {
    // Most of what most clients ever say, and mostly alone, when nothing of this is in the processor's cache.
    if frame == frame::PINGREQ && version.is_some() {
        return Ok(Packet::Pingreq);
    }
    let (&first, rest) = frame.split_first().ok_or(DecodeError::malformed("ends early"))?;
    let Variable::Value { value, len, shortest } = bytes::variable(rest) else {
        return Err(DecodeError::malformed("remaining length"));
    };
    let body = Reader::new(&rest[len..]);
    if body.rest.len() != value as usize {
        return Err(DecodeError::malformed("not exactly one packet"));
    }
    let packet_type = frame::packet_type(first).ok_or(DecodeError::malformed("packet type 0"))?;
    let version = match version {
        _ if packet_type == PacketType::Connect => connect::version(body)?,
        Some(version) => version,
        None => return Err(DecodeError::protocol("first packet is not CONNECT")),
    };
    // [MQTT-1.5.5-1] binds v5 only: fixed-width remaining lengths of old clients are harmless.
    if !shortest && version.is_v5() {
        return Err(DecodeError::malformed("remaining length longer than needed"));
    }
    if packet_type == PacketType::Publish {
        return publish::<true>(first, body, version);
    }
    check_flags(first & 0x0F, packet_type, version)?;
    rarer(packet_type, body, version)
}

/// Decodes a PUBLISH whose payload has not all come: `bytes` are the packet's first ones, and `payload` is what they have
/// of that.
///
/// Fails also while the fields before the payload are not all there. Whether the payload is what it claims to be can be
/// asked when it is: [`check_payload`].
pub fn publish_begun(bytes: &[u8], version: Version) -> Result<Publish<'_>, DecodeError> {
    let (&first, rest) = bytes.split_first().ok_or(DecodeError::malformed("ends early"))?;
    let Variable::Value { len, shortest, .. } = bytes::variable(rest) else {
        return Err(DecodeError::malformed("remaining length"));
    };
    if frame::packet_type(first) != Some(PacketType::Publish) || !shortest && version.is_v5() {
        return Err(DecodeError::malformed("no PUBLISH"));
    }
    match publish::<false>(first, Reader::new(&rest[len..]), version)? {
        Packet::Publish(publish) => Ok(publish),
        _ => unreachable!("it makes no other packet"),
    }
}

/// Whether the payload of a PUBLISH that came in two parts is UTF-8, if it claims to be.
pub fn check_payload(publish: &Publish<'_>) -> Result<(), DecodeError> {
    let text = publish.forward.iter().any(|property| property == Property::PayloadFormatIndicator(1));
    check_text(text, publish.payload)
}

/// Reserved flags `[MQTT-2.1.3-1]`. MQTT 3.1 sets DUP when it repeats what is sent at QoS 1.
fn check_flags(flags: u8, packet_type: PacketType, version: Version) -> Result<(), DecodeError> {
    let right = match packet_type {
        PacketType::Pubrel | PacketType::Subscribe | PacketType::Unsubscribe => {
            flags == 0x02 || (flags == 0x0A && version == Version::V31)
        }
        _ => flags == 0,
    };
    if right { Ok(()) } else { Err(DecodeError::malformed("reserved flags")) }
}

fn rarer(packet_type: PacketType, mut body: Reader<'_>, version: Version) -> Result<Packet<'_>, DecodeError> {
    let body = &mut body;
    let packet = match packet_type {
        PacketType::Connect => Packet::Connect(connect::connect(body, version)?),
        PacketType::Connack => Packet::Connack(connect::connack(body, version)?),
        PacketType::Puback => Packet::Ack(ack(AckKind::Puback, body, version)?),
        PacketType::Pubrec => Packet::Ack(ack(AckKind::Pubrec, body, version)?),
        PacketType::Pubrel => Packet::Ack(ack(AckKind::Pubrel, body, version)?),
        PacketType::Pubcomp => Packet::Ack(ack(AckKind::Pubcomp, body, version)?),
        PacketType::Subscribe => Packet::Subscribe(subscribe::subscribe(body, version)?),
        PacketType::Suback => Packet::Suback(subscribe::suback(body, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(subscribe::unsubscribe(body, version)?),
        PacketType::Unsuback => Packet::Unsuback(subscribe::unsuback(body, version)?),
        PacketType::Pingreq => Packet::Pingreq,
        PacketType::Pingresp => Packet::Pingresp,
        PacketType::Disconnect => Packet::Disconnect(disconnect(body, version)?),
        PacketType::Auth => Packet::Auth(auth(body, version)?),
        PacketType::Publish => unreachable!("decoded by the caller"),
    };
    if body.is_empty() { Ok(packet) } else { Err(DecodeError::malformed("bytes after the end")) }
}

/// The hot path: collects the fields and builds the packet once, where it is returned. If the payload is not `WHOLE`, whether
/// it is the UTF-8 that it claims to be is not asked.
#[inline]
fn publish<'a, const WHOLE: bool>(
    first: u8,
    mut body: Reader<'a>,
    version: Version,
) -> Result<Packet<'a>, DecodeError> {
    let dup = first & 0x08 != 0;
    // [MQTT-3.3.1-4]
    let qos = QoS::from_bits(first >> 1 & 0x03).ok_or(DecodeError::malformed("QoS 3"))?;
    // [MQTT-3.3.1-2]
    if dup && qos == QoS::AtMostOnce {
        return Err(DecodeError::malformed("DUP at QoS 0"));
    }
    // U+0000 is looked for below, with the wildcards.
    let topic = body.utf_8()?;
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(packet_id(&mut body)?) };
    let (mut message_expiry, mut topic_alias) = (None, None);
    let (mut carries_subscription_id, mut text) = (false, false);
    let mut forward = Properties::EMPTY;
    if version.is_v5() {
        forward =
            property::validate(&mut body, Place::Packet(PacketType::Publish), |property| match property {
                Property::PayloadFormatIndicator(value) => text = value == 1,
                Property::MessageExpiryInterval(seconds) => message_expiry = Some(seconds),
                Property::TopicAlias(alias) => topic_alias = NonZeroU16::new(alias),
                Property::SubscriptionIdentifier(_) => carries_subscription_id = true,
                _ => {}
            })?;
    }
    let payload = body.rest;
    if topic.is_empty() && version.is_v5() {
        if topic_alias.is_none() {
            return Err(DecodeError::protocol("neither topic nor topic alias"));
        }
    } else {
        topic_name(topic)?;
    }
    if WHOLE {
        check_text(text, payload)?;
    }
    Ok(Packet::Publish(Publish {
        dup,
        qos,
        retain: first & 0x01 != 0,
        topic,
        packet_id,
        message_expiry,
        topic_alias,
        subscription_ids: &[],
        carries_subscription_id,
        forward,
        payload,
    }))
}

/// A topic name to publish to `[MQTT-3.3.2-2]`.
#[inline]
fn topic_name(name: &str) -> Result<(), DecodeError> {
    match topic::check_name(name) {
        Ok(()) => Ok(()),
        // [MQTT-1.5.4-2]
        Err(TopicError::Null) => Err(DecodeError::malformed("string with U+0000")),
        Err(_) => {
            let what = "topic name empty, with wildcard, or too long";
            Err(DecodeError::new(ReasonCode::TopicNameInvalid, what))
        }
    }
}

/// Payload format indicator 1 promises UTF-8.
#[inline]
fn check_text(text: bool, payload: &[u8]) -> Result<(), DecodeError> {
    if text && std::str::from_utf8(payload).is_err() {
        return Err(DecodeError::new(
            ReasonCode::PayloadFormatInvalid,
            "payload is not the UTF-8 it claims to be",
        ));
    }
    Ok(())
}

/// `[MQTT-2.2.1-3]` `[MQTT-2.2.1-4]`; the standard names no reason for 0, so it is what parses and may not be.
#[inline]
fn packet_id(body: &mut Reader<'_>) -> Result<PacketId, DecodeError> {
    PacketId::new(body.two_bytes()?).ok_or(DecodeError::protocol("packet identifier 0"))
}

/// `[MQTT-3.4.2-1]` `[MQTT-3.5.2-1]` `[MQTT-3.6.2-1]` `[MQTT-3.7.2-1]`: one of the packet's reason codes, which may
/// be left out with the properties if it is success.
fn ack<'a>(kind: AckKind, body: &mut Reader<'a>, version: Version) -> Result<Ack<'a>, DecodeError> {
    let mut ack = Ack::success(kind, packet_id(body)?);
    if version.is_v5() && !body.is_empty() {
        ack.reason = ReasonCode::decode(body.byte()?, kind.packet_type())?;
        if !body.is_empty() {
            ack.reason_string = reason_string(body, kind.packet_type())?;
        }
    }
    Ok(ack)
}

/// The properties of a packet that has, besides user properties, at most a reason string.
fn reason_string<'a>(body: &mut Reader<'a>, packet: PacketType) -> Result<Option<&'a str>, DecodeError> {
    let mut reason_string = None;
    property::validate(body, Place::Packet(packet), |property| {
        if let Property::ReasonString(string) = property {
            reason_string = Some(string);
        }
    })?;
    Ok(reason_string)
}

fn disconnect<'a>(body: &mut Reader<'a>, version: Version) -> Result<Disconnect<'a>, DecodeError> {
    let mut disconnect = Disconnect {
        reason: ReasonCode::Success,
        session_expiry: None,
        reason_string: None,
        server_reference: None,
    };
    if !version.is_v5() || body.is_empty() {
        return Ok(disconnect);
    }
    // [MQTT-3.14.2-1]
    disconnect.reason = ReasonCode::decode(body.byte()?, PacketType::Disconnect)?;
    if !body.is_empty() {
        property::validate(body, Place::Packet(PacketType::Disconnect), |property| match property {
            Property::SessionExpiryInterval(seconds) => disconnect.session_expiry = Some(seconds),
            Property::ReasonString(string) => disconnect.reason_string = Some(string),
            Property::ServerReference(string) => disconnect.server_reference = Some(string),
            _ => {}
        })?;
    }
    Ok(disconnect)
}

/// An empty AUTH says success; with a reason it must have properties, and a method among them.
fn auth<'a>(body: &mut Reader<'a>, version: Version) -> Result<Auth<'a>, DecodeError> {
    if !version.is_v5() {
        return Err(DecodeError::malformed("AUTH before version 5"));
    }
    let mut auth = Auth { reason: ReasonCode::Success, method: None, data: None, reason_string: None };
    if body.is_empty() {
        return Ok(auth);
    }
    // [MQTT-3.15.2-1]
    auth.reason = ReasonCode::decode(body.byte()?, PacketType::Auth)?;
    property::validate(body, Place::Packet(PacketType::Auth), |property| match property {
        Property::AuthenticationMethod(method) => auth.method = Some(method),
        Property::AuthenticationData(data) => auth.data = Some(data),
        Property::ReasonString(string) => auth.reason_string = Some(string),
        _ => {}
    })?;
    if auth.method.is_none() {
        return Err(DecodeError::protocol("AUTH without method"));
    }
    Ok(auth)
}

#[cfg(test)]
mod tests;
