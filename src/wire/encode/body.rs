//! Everything after the fixed header, for all packets but PUBLISH: written into a buffer or only counted, so that a
//! length can never disagree with the bytes.

use crate::wire::bytes::{Counter, Sink};
use crate::wire::packet::{
    Ack, Auth, Connack, Connect, Disconnect, Packet, Suback, Subscribe, Unsuback, Unsubscribe, Version, Will,
};
use crate::wire::property::{Properties, Property};
use crate::wire::reason::ReasonCode;

/// The lower half of the first byte `[MQTT-3.6.1-1]` `[MQTT-3.8.1-1]` `[MQTT-3.10.1-1]`.
pub(super) fn flags(packet: &Packet<'_>) -> u8 {
    match packet {
        Packet::Subscribe(_) | Packet::Unsubscribe(_) => 0x02,
        Packet::Ack(ack) if ack.kind == crate::wire::AckKind::Pubrel => 0x02,
        _ => 0,
    }
}

pub(super) fn write(packet: &Packet<'_>, version: Version, sink: &mut impl Sink) {
    match packet {
        Packet::Connect(packet) => connect(packet, sink),
        Packet::Connack(packet) => connack(packet, version, sink),
        Packet::Publish(_) => unreachable!("PUBLISH has an encoder of its own"),
        Packet::Ack(packet) => ack(packet, version, sink),
        Packet::Subscribe(packet) => subscribe(packet, version, sink),
        Packet::Suback(packet) => suback(packet, version, sink),
        Packet::Unsubscribe(packet) => unsubscribe(packet, version, sink),
        Packet::Unsuback(packet) => unsuback(packet, version, sink),
        Packet::Pingreq | Packet::Pingresp => {}
        Packet::Disconnect(packet) => disconnect(packet, version, sink),
        Packet::Auth(packet) => auth(packet, sink),
    }
}

/// A set of properties that can be counted and then written.
trait Run {
    fn write(&self, sink: &mut impl Sink);

    /// The length in front, then the properties.
    fn framed(&self, sink: &mut impl Sink) {
        let mut counter = Counter::default();
        self.write(&mut counter);
        sink.variable(super::variable(counter.0));
        self.write(sink);
    }
}

/// Writes the property if there is a value for it.
fn optional<'a, T>(value: Option<T>, property: impl FnOnce(T) -> Property<'a>, sink: &mut impl Sink) {
    if let Some(value) = value {
        property(value).write(sink);
    }
}

fn user_properties(properties: &Properties<'_>, sink: &mut impl Sink) {
    for pair in properties.user_properties() {
        Property::UserProperty(pair).write(sink);
    }
}

fn connect(connect: &Connect<'_>, sink: &mut impl Sink) {
    sink.string(if connect.version == Version::V31 { "MQIsdp" } else { "MQTT" });
    sink.byte(connect.version as u8);
    let will = connect.will.map_or(0, |will| 0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5);
    let credentials = u8::from(connect.username.is_some()) << 7 | u8::from(connect.password.is_some()) << 6;
    sink.byte(credentials | will | u8::from(connect.clean_start) << 1);
    sink.two_bytes(connect.keep_alive);
    if connect.version.is_v5() {
        connect.framed(sink);
    }
    sink.string(connect.client_id);
    if let Some(will) = connect.will {
        if connect.version.is_v5() {
            will.framed(sink);
        }
        sink.string(will.topic);
        sink.binary(will.payload);
    }
    if let Some(username) = connect.username {
        sink.string(username);
    }
    if let Some(password) = connect.password {
        sink.binary(password);
    }
}

impl Run for Connect<'_> {
    fn write(&self, sink: &mut impl Sink) {
        optional(self.session_expiry, Property::SessionExpiryInterval, sink);
        optional(self.receive_maximum, |maximum| Property::ReceiveMaximum(maximum.get()), sink);
        optional(self.maximum_packet_size, Property::MaximumPacketSize, sink);
        optional(self.topic_alias_maximum, Property::TopicAliasMaximum, sink);
        optional(self.request_response_information.then_some(1), Property::RequestResponseInformation, sink);
        optional((!self.request_problem_information).then_some(0), Property::RequestProblemInformation, sink);
        optional(self.authentication_method, Property::AuthenticationMethod, sink);
        optional(self.authentication_data, Property::AuthenticationData, sink);
        user_properties(&self.properties, sink);
    }
}

impl Run for Will<'_> {
    fn write(&self, sink: &mut impl Sink) {
        optional(self.delay, Property::WillDelayInterval, sink);
        optional(self.message_expiry, Property::MessageExpiryInterval, sink);
        for slice in self.forward.forwarded() {
            sink.put(slice);
        }
    }
}

fn connack(connack: &Connack<'_>, version: Version, sink: &mut impl Sink) {
    // [MQTT-3.2.2-6]: no session with a failure. MQTT 3.1 reserves the byte.
    let session_present = connack.session_present && !connack.reason.is_failure() && version != Version::V31;
    sink.byte(u8::from(session_present));
    if version.is_v5() {
        sink.byte(connack.reason as u8);
        connack.framed(sink);
    } else {
        sink.byte(connack.reason.connack_code_v3());
    }
}

impl Run for Connack<'_> {
    fn write(&self, sink: &mut impl Sink) {
        optional(self.session_expiry, Property::SessionExpiryInterval, sink);
        optional(self.receive_maximum, |maximum| Property::ReceiveMaximum(maximum.get()), sink);
        optional(self.maximum_qos, |qos| Property::MaximumQoS(qos as u8), sink);
        optional(self.retain_available, |yes| Property::RetainAvailable(yes.into()), sink);
        optional(self.maximum_packet_size, Property::MaximumPacketSize, sink);
        optional(self.assigned_client_id, Property::AssignedClientIdentifier, sink);
        optional(self.topic_alias_maximum, Property::TopicAliasMaximum, sink);
        optional(self.reason_string, Property::ReasonString, sink);
        let wildcards = self.wildcard_subscription_available;
        optional(wildcards, |yes| Property::WildcardSubscriptionAvailable(yes.into()), sink);
        let identifiers = self.subscription_ids_available;
        optional(identifiers, |yes| Property::SubscriptionIdentifierAvailable(yes.into()), sink);
        let shared = self.shared_subscription_available;
        optional(shared, |yes| Property::SharedSubscriptionAvailable(yes.into()), sink);
        optional(self.server_keep_alive, Property::ServerKeepAlive, sink);
        optional(self.response_information, Property::ResponseInformation, sink);
        optional(self.server_reference, Property::ServerReference, sink);
        optional(self.authentication_method, Property::AuthenticationMethod, sink);
        optional(self.authentication_data, Property::AuthenticationData, sink);
        for &pair in self.user_properties {
            Property::UserProperty(pair).write(sink);
        }
        user_properties(&self.properties, sink);
    }
}

/// The only property of most answers.
struct ReasonString<'a>(Option<&'a str>);

impl Run for ReasonString<'_> {
    fn write(&self, sink: &mut impl Sink) {
        optional(self.0, Property::ReasonString, sink);
    }
}

fn ack(ack: &Ack<'_>, version: Version, sink: &mut impl Sink) {
    sink.two_bytes(ack.packet_id.get());
    if !version.is_v5() || (ack.reason == ReasonCode::Success && ack.reason_string.is_none()) {
        return;
    }
    sink.byte(ack.reason as u8);
    if ack.reason_string.is_some() {
        ReasonString(ack.reason_string).framed(sink);
    }
}

fn subscribe(subscribe: &Subscribe<'_>, version: Version, sink: &mut impl Sink) {
    sink.two_bytes(subscribe.packet_id.get());
    if version.is_v5() {
        subscribe.framed(sink);
        sink.put(subscribe.entries);
        return;
    }
    for (filter, options) in subscribe.filters() {
        sink.string(filter);
        sink.byte(options.qos as u8);
    }
}

impl Run for Subscribe<'_> {
    fn write(&self, sink: &mut impl Sink) {
        optional(self.subscription_id, Property::SubscriptionIdentifier, sink);
    }
}

fn suback(suback: &Suback<'_>, version: Version, sink: &mut impl Sink) {
    sink.two_bytes(suback.packet_id.get());
    if version.is_v5() {
        ReasonString(suback.reason_string).framed(sink);
        suback.reasons.iter().for_each(|reason| sink.byte(reason as u8));
    } else {
        suback.reasons.iter().for_each(|reason| sink.byte(reason.suback_code_v3()));
    }
}

fn unsubscribe(unsubscribe: &Unsubscribe<'_>, version: Version, sink: &mut impl Sink) {
    sink.two_bytes(unsubscribe.packet_id.get());
    if version.is_v5() {
        sink.byte(0);
    }
    sink.put(unsubscribe.entries);
}

fn unsuback(unsuback: &Unsuback<'_>, version: Version, sink: &mut impl Sink) {
    sink.two_bytes(unsuback.packet_id.get());
    if version.is_v5() {
        ReasonString(unsuback.reason_string).framed(sink);
        unsuback.reasons.iter().for_each(|reason| sink.byte(reason as u8));
    }
}

fn disconnect(disconnect: &Disconnect<'_>, version: Version, sink: &mut impl Sink) {
    let mut properties = Counter::default();
    Run::write(disconnect, &mut properties);
    if !version.is_v5() || (disconnect.reason == ReasonCode::Success && properties.0 == 0) {
        return;
    }
    sink.byte(disconnect.reason as u8);
    if properties.0 > 0 {
        disconnect.framed(sink);
    }
}

impl Run for Disconnect<'_> {
    fn write(&self, sink: &mut impl Sink) {
        optional(self.session_expiry, Property::SessionExpiryInterval, sink);
        optional(self.reason_string, Property::ReasonString, sink);
        optional(self.server_reference, Property::ServerReference, sink);
    }
}

fn auth(auth: &Auth<'_>, sink: &mut impl Sink) {
    if auth.reason == ReasonCode::Success && auth.method.is_none() {
        return;
    }
    sink.byte(auth.reason as u8);
    auth.framed(sink);
}

impl Run for Auth<'_> {
    fn write(&self, sink: &mut impl Sink) {
        optional(self.method, Property::AuthenticationMethod, sink);
        optional(self.data, Property::AuthenticationData, sink);
        optional(self.reason_string, Property::ReasonString, sink);
    }
}
