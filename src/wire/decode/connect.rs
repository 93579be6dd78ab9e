//! CONNECT, the only packet that is decoded without knowing a version, and its answer.

use std::num::NonZeroU16;

use super::{check_text, topic_name};
use crate::wire::bytes::{self, Reader, Variable};
use crate::wire::error::DecodeError;
use crate::wire::packet::{Connack, Connect, PacketType, QoS, Version, Will};
use crate::wire::property::{self, Place, Properties, Property};
use crate::wire::reason::ReasonCode;

/// The version that the CONNECT in `frame` announces, even if the rest of it is invalid: what an error is to be
/// answered in. `None` if it is no CONNECT or announces no version we speak.
pub fn announced_version(frame: &[u8]) -> Option<Version> {
    let (0x10, rest) = frame.split_first().map(|(&first, rest)| (first, rest))? else { return None };
    let Variable::Value { len, .. } = bytes::variable(rest) else { return None };
    version(Reader::new(&rest[len..])).ok()
}

/// Protocol name and level. A name or level we do not know is answered with 0x84 `[MQTT-3.1.2-1]` `[MQTT-3.1.2-2]`:
/// the peer speaks something that begins like MQTT, and may speak our version too.
pub(super) fn version(mut body: Reader<'_>) -> Result<Version, DecodeError> {
    let name = body.binary()?;
    match (name, body.byte()?) {
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQIsdp", 3) => Ok(Version::V31),
        _ => Err(DecodeError::new(ReasonCode::UnsupportedProtocolVersion, "unknown protocol name or level")),
    }
}

/// The connect flags, reserved bit checked `[MQTT-3.1.2-3]`.
struct Flags {
    clean_start: bool,
    will: Option<(QoS, bool)>,
    password: bool,
    username: bool,
}

fn flags(bits: u8, version: Version) -> Result<Flags, DecodeError> {
    if bits & 0x01 != 0 {
        return Err(DecodeError::malformed("reserved connect flag"));
    }
    // [MQTT-3.1.2-12]
    let qos = QoS::from_bits(bits >> 3 & 0x03).ok_or(DecodeError::malformed("will QoS 3"))?;
    let retain = bits & 0x20 != 0;
    let will = bits & 0x04 != 0;
    // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
    if !will && (qos != QoS::AtMostOnce || retain) {
        return Err(DecodeError::malformed("will QoS or retain without will"));
    }
    let (username, password) = (bits & 0x80 != 0, bits & 0x40 != 0);
    // [MQTT-3.1.1 3.1.2-22]; v5 allows it.
    if password && !username && !version.is_v5() {
        return Err(DecodeError::malformed("password without user name"));
    }
    Ok(Flags { clean_start: bits & 0x02 != 0, will: will.then_some((qos, retain)), password, username })
}

pub(super) fn connect<'a>(body: &mut Reader<'a>, version: Version) -> Result<Connect<'a>, DecodeError> {
    body.binary()?;
    body.byte()?;
    let flags = flags(body.byte()?, version)?;
    let mut connect = Connect {
        version,
        clean_start: flags.clean_start,
        keep_alive: body.two_bytes()?,
        session_expiry: None,
        receive_maximum: None,
        maximum_packet_size: None,
        topic_alias_maximum: None,
        request_response_information: false,
        request_problem_information: true,
        authentication_method: None,
        authentication_data: None,
        properties: Properties::EMPTY,
        client_id: "",
        will: None,
        username: None,
        password: None,
    };
    if version.is_v5() {
        connect.properties = properties(body, &mut connect)?;
    }
    // [MQTT-3.1.3-1]: in this order.
    connect.client_id = body.string()?;
    if let Some((qos, retain)) = flags.will {
        connect.will = Some(will(body, version, qos, retain)?);
    }
    if flags.username {
        connect.username = Some(body.string()?);
    }
    if flags.password {
        connect.password = Some(body.binary()?);
    }
    Ok(connect)
}

fn properties<'a>(body: &mut Reader<'a>, connect: &mut Connect<'a>) -> Result<Properties<'a>, DecodeError> {
    let properties =
        property::validate(body, Place::Packet(PacketType::Connect), |property| match property {
            Property::SessionExpiryInterval(seconds) => connect.session_expiry = Some(seconds),
            Property::ReceiveMaximum(maximum) => connect.receive_maximum = NonZeroU16::new(maximum),
            Property::MaximumPacketSize(size) => connect.maximum_packet_size = Some(size),
            Property::TopicAliasMaximum(maximum) => connect.topic_alias_maximum = Some(maximum),
            Property::RequestResponseInformation(value) => connect.request_response_information = value == 1,
            Property::RequestProblemInformation(value) => connect.request_problem_information = value == 1,
            Property::AuthenticationMethod(method) => connect.authentication_method = Some(method),
            Property::AuthenticationData(data) => connect.authentication_data = Some(data),
            _ => {}
        })?;
    if connect.authentication_data.is_some() && connect.authentication_method.is_none() {
        return Err(DecodeError::protocol("authentication data without method"));
    }
    Ok(properties)
}

fn will<'a>(
    body: &mut Reader<'a>,
    version: Version,
    qos: QoS,
    retain: bool,
) -> Result<Will<'a>, DecodeError> {
    let (mut delay, mut message_expiry, mut text) = (None, None, false);
    let mut forward = Properties::EMPTY;
    if version.is_v5() {
        forward = property::validate(body, Place::Will, |property| match property {
            Property::WillDelayInterval(seconds) => delay = Some(seconds),
            Property::MessageExpiryInterval(seconds) => message_expiry = Some(seconds),
            Property::PayloadFormatIndicator(value) => text = value == 1,
            _ => {}
        })?;
    }
    // [MQTT-3.1.3-11]
    let topic = body.string()?;
    topic_name(topic)?;
    let payload = body.binary()?;
    check_text(text, payload)?;
    Ok(Will { qos, retain, delay, message_expiry, topic, forward, payload })
}

pub(super) fn connack<'a>(body: &mut Reader<'a>, version: Version) -> Result<Connack<'a>, DecodeError> {
    // MQTT 3.1 reserves the whole byte and uses none of it.
    let reserved_or_flags = body.byte()?;
    let flags = if version == Version::V31 { 0 } else { reserved_or_flags };
    // [MQTT-3.2.2-1]
    if flags & 0xFE != 0 {
        return Err(DecodeError::malformed("reserved CONNACK flag"));
    }
    let code = body.byte()?;
    let reason = if version.is_v5() {
        ReasonCode::decode(code, PacketType::Connack)?
    } else {
        ReasonCode::from_connack_code_v3(code).ok_or(DecodeError::malformed("unknown return code"))?
    };
    // [MQTT-3.2.2-6]
    if flags != 0 && reason.is_failure() {
        return Err(DecodeError::protocol("session present with a failure"));
    }
    let mut connack = Connack::new(reason);
    connack.session_present = flags != 0;
    if version.is_v5() {
        connack.properties = property::validate(body, Place::Packet(PacketType::Connack), |property| {
            see(&mut connack, property)
        })?;
    }
    Ok(connack)
}

fn see<'a>(connack: &mut Connack<'a>, property: Property<'a>) {
    match property {
        Property::SessionExpiryInterval(value) => connack.session_expiry = Some(value),
        Property::ReceiveMaximum(value) => connack.receive_maximum = NonZeroU16::new(value),
        Property::MaximumQoS(value) => connack.maximum_qos = QoS::from_bits(value),
        Property::RetainAvailable(value) => connack.retain_available = Some(value == 1),
        Property::MaximumPacketSize(value) => connack.maximum_packet_size = Some(value),
        Property::AssignedClientIdentifier(value) => connack.assigned_client_id = Some(value),
        Property::TopicAliasMaximum(value) => connack.topic_alias_maximum = Some(value),
        Property::ReasonString(value) => connack.reason_string = Some(value),
        Property::WildcardSubscriptionAvailable(value) => {
            connack.wildcard_subscription_available = Some(value == 1);
        }
        Property::SubscriptionIdentifierAvailable(value) => {
            connack.subscription_ids_available = Some(value == 1)
        }
        Property::SharedSubscriptionAvailable(value) => {
            connack.shared_subscription_available = Some(value == 1)
        }
        Property::ServerKeepAlive(value) => connack.server_keep_alive = Some(value),
        Property::ResponseInformation(value) => connack.response_information = Some(value),
        Property::ServerReference(value) => connack.server_reference = Some(value),
        Property::AuthenticationMethod(value) => connack.authentication_method = Some(value),
        Property::AuthenticationData(value) => connack.authentication_data = Some(value),
        _ => {}
    }
}
