//! SUBSCRIBE, UNSUBSCRIBE and their answers.
//!
//! The lists are validated here and stay in wire form; their iterators read them again.

use super::{packet_id, reason_string};
use crate::wire::bytes::Reader;
use crate::wire::error::DecodeError;
use crate::wire::packet::{PacketType, QoS, Suback, Subscribe, Unsuback, Unsubscribe, Version};
use crate::wire::property::{self, Place, Property};
use crate::wire::reason::{ReasonCode, Reasons};
use crate::wire::topic;

pub(super) fn subscribe<'a>(body: &mut Reader<'a>, version: Version) -> Result<Subscribe<'a>, DecodeError> {
    let packet_id = packet_id(body)?;
    let mut subscription_id = None;
    if version.is_v5() {
        property::validate(body, Place::Packet(PacketType::Subscribe), |property| {
            if let Property::SubscriptionIdentifier(id) = property {
                subscription_id = Some(id);
            }
        })?;
    }
    let entries = body.rest;
    // [MQTT-3.8.3-2]
    if entries.is_empty() {
        return Err(DecodeError::protocol("SUBSCRIBE without filter"));
    }
    while !body.is_empty() {
        // [MQTT-3.8.3-1]
        let filter = body.string()?;
        check_options(body.byte()?, filter, version)?;
    }
    Ok(Subscribe { packet_id, subscription_id, entries })
}

fn check_options(bits: u8, filter: &str, version: Version) -> Result<(), DecodeError> {
    // [MQTT-3.8.3-5]; [MQTT-3.1.1 3.8.3-4]
    let reserved = if version.is_v5() { 0xC0 } else { 0xFC };
    if bits & reserved != 0 {
        return Err(DecodeError::malformed("reserved subscription option"));
    }
    if QoS::from_bits(bits & 0x03).is_none() {
        let reason = if version.is_v5() { ReasonCode::ProtocolError } else { ReasonCode::MalformedPacket };
        return Err(DecodeError::new(reason, "subscription with QoS 3"));
    }
    if bits & 0x30 == 0x30 {
        return Err(DecodeError::protocol("retain handling 3"));
    }
    // [MQTT-3.8.3-4]
    if bits & 0x04 != 0 && topic::is_shared(filter) {
        return Err(DecodeError::protocol("no-local on a shared subscription"));
    }
    Ok(())
}

pub(super) fn unsubscribe<'a>(
    body: &mut Reader<'a>,
    version: Version,
) -> Result<Unsubscribe<'a>, DecodeError> {
    let packet_id = packet_id(body)?;
    if version.is_v5() {
        property::validate(body, Place::Packet(PacketType::Unsubscribe), |_| {})?;
    }
    let entries = body.rest;
    // [MQTT-3.10.3-2]
    if entries.is_empty() {
        return Err(DecodeError::protocol("UNSUBSCRIBE without filter"));
    }
    while !body.is_empty() {
        // [MQTT-3.10.3-1]
        body.string()?;
    }
    Ok(Unsubscribe { packet_id, entries })
}

pub(super) fn suback<'a>(body: &mut Reader<'a>, version: Version) -> Result<Suback<'a>, DecodeError> {
    let packet_id = packet_id(body)?;
    let reason_string = if version.is_v5() { reason_string(body, PacketType::Suback)? } else { None };
    let reasons = reasons(body, PacketType::Suback)?;
    // [MQTT-3.1.1 3.9.3-2]: of the codes, 3.1.1 has only one failure.
    if !version.is_v5() && reasons.iter().any(|reason| reason as u8 > 0x80) {
        return Err(DecodeError::malformed("unknown return code"));
    }
    Ok(Suback { packet_id, reason_string, reasons })
}

pub(super) fn unsuback<'a>(body: &mut Reader<'a>, version: Version) -> Result<Unsuback<'a>, DecodeError> {
    let packet_id = packet_id(body)?;
    if !version.is_v5() {
        return Ok(Unsuback { packet_id, reason_string: None, reasons: Reasons::NONE });
    }
    let reason_string = reason_string(body, PacketType::Unsuback)?;
    Ok(Unsuback { packet_id, reason_string, reasons: reasons(body, PacketType::Unsuback)? })
}

/// The rest of the packet, one code per filter `[MQTT-3.9.3-2]` `[MQTT-3.11.3-2]`.
fn reasons<'a>(body: &mut Reader<'a>, packet: PacketType) -> Result<Reasons<'a>, DecodeError> {
    let bytes = body.take(body.rest.len())?;
    if bytes.is_empty() {
        return Err(DecodeError::protocol("answer without reason codes"));
    }
    for &byte in bytes {
        ReasonCode::decode(byte, packet)?;
    }
    Ok(Reasons::from_wire(bytes))
}
