//! Exact bytes in, values or reasons out.

use super::*;
use crate::wire::property::Property;
use crate::wire::{Connack, Connect, RetainHandling, SubscribeOptions};

fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    crate::wire::bytes::Sink::variable(&mut bytes, body.len() as u32);
    bytes.extend(body);
    bytes
}

fn reason(first: u8, body: &[u8], version: Version) -> Result<(), u8> {
    packet(&frame(first, body), Some(version)).map(|_| ()).map_err(|error| error.reason as u8)
}

const V5: Version = Version::V5;
const V311: Version = Version::V311;

/// Protocol name to keep alive of a v5 CONNECT, with those flags.
fn connect_head(flags: u8) -> Vec<u8> {
    [b"\x00\x04MQTT\x05".as_slice(), &[flags, 0, 10]].concat()
}

fn connect(bytes: &[u8]) -> Connect<'_> {
    match packet(bytes, None) {
        Ok(Packet::Connect(connect)) => connect,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connect_of_each_version_is_taken_before_any_version_is_known() {
    // The variable header of figure 3-6 (5.0), client id "a".
    let body = b"\x00\x04MQTT\x05\xCE\x00\x0A\x05\x11\x00\x00\x00\x0A\x00\x01a\x00\x00\x01t\x00\x02pp\x00\x01u\x00\x01w";
    let bytes = frame(0x10, body);
    let packet = connect(&bytes);
    assert_eq!((packet.version, packet.clean_start, packet.keep_alive), (V5, true, 10));
    assert_eq!((packet.session_expiry, packet.client_id), (Some(10), "a"));
    assert_eq!((packet.username, packet.password), (Some("u"), Some(b"w".as_slice())));
    let will = packet.will.expect("a will");
    assert_eq!(
        (will.qos, will.retain, will.topic, will.payload),
        (QoS::AtLeastOnce, false, "t", b"pp".as_slice())
    );

    let bytes = frame(0x10, b"\x00\x04MQTT\x04\x02\x00\x3C\x00\x01a");
    let packet = connect(&bytes);
    assert_eq!((packet.version, packet.clean_start, packet.keep_alive), (V311, true, 60));
    assert_eq!((packet.will, packet.username, packet.request_problem_information), (None, None, true));

    let bytes = frame(0x10, b"\x00\x06MQIsdp\x03\x00\x00\x00\x00\x01a");
    assert_eq!(connect(&bytes).version, Version::V31);
}

#[test]
fn nothing_but_connect_is_taken_before_a_version_is_known() {
    // [MQTT-3.1.0-1]
    assert_eq!(packet(&[0xC0, 0], None).map_err(|error| error.reason), Err(ReasonCode::ProtocolError));
}

#[test]
fn an_unknown_name_or_level_is_an_unsupported_version() {
    // [MQTT-3.1.2-1] [MQTT-3.1.2-2]
    for body in
        [b"\x00\x04MQTT\x06\x02\x00\x00\x00\x00".as_slice(), b"\x00\x04MQTT\x03", b"\x00\x06MQIsdp\x04"]
    {
        assert_eq!(reason(0x10, body, V5), Err(0x84));
        assert_eq!(announced_version(&frame(0x10, body)), None);
    }
    assert_eq!(reason(0x10, b"\x00\x04MQTX\x05", V5), Err(0x84));
    assert_eq!(reason(0x10, b"\x00\x04MQ", V5), Err(0x81));
}

#[test]
fn an_invalid_connect_still_says_which_version_to_answer_in() {
    let bytes = frame(0x10, b"\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x00");
    assert!(packet(&bytes, None).is_err());
    assert_eq!(announced_version(&bytes), Some(V5));
    assert_eq!(announced_version(&[0xC0, 0]), None);
    assert_eq!(announced_version(&[]), None);
}

#[test]
fn connect_flags_must_fit_each_other() {
    let with = |flags: u8, rest: &[u8]| reason(0x10, &[connect_head(flags), rest.to_vec()].concat(), V5);
    assert_eq!(with(0x02, b"\0\0\0"), Ok(()));
    assert_eq!(with(0x03, b"\0\0\0"), Err(0x81), "reserved bit [MQTT-3.1.2-3]");
    assert_eq!(with(0x1C, b"\0\0\0\0\0\x01t\0\0"), Err(0x81), "will QoS 3 [MQTT-3.1.2-12]");
    assert_eq!(with(0x08, b"\0\0\0"), Err(0x81), "will QoS without will [MQTT-3.1.2-11]");
    assert_eq!(with(0x20, b"\0\0\0"), Err(0x81), "will retain without will [MQTT-3.1.2-13]");
    assert_eq!(with(0x40, b"\0\0\0\0\x01p"), Ok(()), "a password alone is allowed in v5");
    assert_eq!(with(0x80, b"\0\0\0"), Err(0x81), "user name missing [MQTT-3.1.2-17]");
    assert_eq!(with(0x02, b"\0\0\0\0"), Err(0x81), "bytes after the end");
    let v311 = b"\x00\x04MQTT\x04\x40\x00\x00\x00\x00\x00\x01p";
    assert_eq!(reason(0x10, v311, V311), Err(0x81), "[MQTT-3.1.1 3.1.2-22]");
}

#[test]
fn connect_properties_are_read_and_judged() {
    let with = |properties: &[u8]| {
        let body =
            [connect_head(0x02), vec![properties.len() as u8], properties.to_vec(), vec![0, 0]].concat();
        frame(0x10, &body)
    };
    let all = with(b"\x11\0\0\0\x05\x21\0\x09\x27\0\0\x10\0\x22\0\x03\x19\x01\x17\0\x15\0\x01m\x16\0\x01d\x26\0\x01k\0\x01v");
    let packet = connect(&all);
    assert_eq!(packet.session_expiry, Some(5));
    assert_eq!(packet.receive_maximum.map(NonZeroU16::get), Some(9));
    assert_eq!((packet.maximum_packet_size, packet.topic_alias_maximum), (Some(4096), Some(3)));
    assert!(packet.request_response_information && !packet.request_problem_information);
    assert_eq!(
        (packet.authentication_method, packet.authentication_data),
        (Some("m"), Some(b"d".as_slice()))
    );
    assert_eq!(packet.properties.user_properties().collect::<Vec<_>>(), [("k", "v")]);
    for (properties, expected, why) in [
        (b"\x21\0\0".as_slice(), 0x82, "receive maximum 0"),
        (b"\x27\0\0\0\0", 0x82, "maximum packet size 0"),
        (b"\x19\x02", 0x82, "request response information 2"),
        (b"\x17\x02", 0x82, "request problem information 2"),
        (b"\x16\0\x01d", 0x82, "authentication data without method"),
        (b"\x22\0\x01\x22\0\x01", 0x82, "twice"),
        (b"\x01\x01", 0x81, "not on CONNECT (2.2.2.2)"),
        (b"\x7E\x01", 0x81, "unknown"),
        (b"\x91\0\0\0\0\x01", 0x81, "identifier not in its shortest form"),
        (b"\x11\0\0", 0x81, "ends early"),
    ] {
        let got = super::packet(&with(properties), None).map(|_| ()).map_err(|error| error.reason as u8);
        assert_eq!(got, Err(expected), "{why}");
    }
}

#[test]
fn a_will_must_have_a_topic_name_and_the_text_it_claims() {
    let with = |properties: &[u8], topic: &[u8], payload: &[u8]| {
        let mut body =
            [connect_head(0x06), vec![0, 0, 0, properties.len() as u8], properties.to_vec()].concat();
        for binary in [topic, payload] {
            body.extend((binary.len() as u16).to_be_bytes());
            body.extend(binary);
        }
        reason(0x10, &body, V5)
    };
    assert_eq!(with(b"\x18\0\0\0\x01\x02\0\0\0\x02\x01\x01", b"a", "ü".as_bytes()), Ok(()));
    assert_eq!(with(b"", b"a/+", b""), Err(0x90));
    assert_eq!(with(b"", b"", b""), Err(0x90));
    assert_eq!(with(b"\x01\x01", b"a", b"\xFF"), Err(0x99));
    assert_eq!(with(b"\x11\0\0\0\x01", b"a", b""), Err(0x81), "session expiry is not a will property");
}

fn publish_reason(first: u8, body: &[u8]) -> Result<(), u8> {
    reason(first, body, V5)
}

#[test]
fn a_publish_lends_its_parts() {
    let bytes = frame(0x3B, b"\0\x03a/b\0\x0A\x12\x02\0\0\0\x07\x26\0\x01k\0\x01v\x23\0\x05\x0B\x80\x01pay");
    let Ok(Packet::Publish(publish)) = packet(&bytes, Some(V5)) else { panic!() };
    assert!(publish.dup && publish.retain && publish.carries_subscription_id);
    assert_eq!((publish.qos, publish.topic, publish.payload), (QoS::AtLeastOnce, "a/b", b"pay".as_slice()));
    assert_eq!(publish.packet_id.map(PacketId::get), Some(10));
    assert_eq!((publish.message_expiry, publish.topic_alias.map(NonZeroU16::get)), (Some(7), Some(5)));
    assert_eq!(publish.forward.forwarded().collect::<Vec<_>>(), [b"\x26\0\x01k\0\x01v"]);
    assert_eq!(publish.forward.iter().last(), Some(Property::SubscriptionIdentifier(128)));

    // Figure 3-11 of 3.1.1 (QoS 1, "a/b", id 10), without a payload.
    let bytes = frame(0x32, b"\0\x03a/b\0\x0A");
    let Ok(Packet::Publish(publish)) = packet(&bytes, Some(V311)) else { panic!() };
    assert_eq!((publish.topic, publish.payload.len(), publish.forward.is_empty()), ("a/b", 0, true));
}

#[test]
fn a_bad_publish_gets_the_reason_the_standard_names() {
    assert_eq!(publish_reason(0x36, b"\0\x01a\0\x01\0"), Err(0x81), "QoS 3 [MQTT-3.3.1-4]");
    assert_eq!(publish_reason(0x38, b"\0\x01a\0"), Err(0x81), "DUP at QoS 0 [MQTT-3.3.1-2]");
    assert_eq!(publish_reason(0x30, b"\0\x03a/#\0"), Err(0x90), "wildcard [MQTT-3.3.2-2]");
    assert_eq!(publish_reason(0x30, b"\0\0\0"), Err(0x82), "neither topic nor alias");
    assert_eq!(publish_reason(0x30, b"\0\0\x03\x23\0\x01"), Ok(()), "alias alone");
    assert_eq!(publish_reason(0x30, b"\0\0\x03\x23\0\0"), Err(0x94), "alias 0 [MQTT-3.3.2-8]");
    assert_eq!(publish_reason(0x30, b"\0\x01a\x02\x01\x01\xFF"), Err(0x99), "not text");
    assert_eq!(publish_reason(0x30, b"\0\x01a\x02\x01\x01\xC3\xBC"), Ok(()), "text");
    assert_eq!(publish_reason(0x30, b"\0\x01a\x02\x01\x02"), Err(0x82), "format 2");
    assert_eq!(publish_reason(0x32, b"\0\x01a\0\0\0"), Err(0x82), "packet id 0 [MQTT-2.2.1-3]");
    assert_eq!(publish_reason(0x30, b"\0\x01a\x02\x0B\0"), Err(0x82), "subscription identifier 0");
    assert_eq!(publish_reason(0x30, b"\0\x01a\x04\x0B\x01\x0B\x01"), Ok(()), "several identifiers");
    assert_eq!(
        publish_reason(0x30, b"\0\x01a\x06\x08\0\x03a/+"),
        Err(0x82),
        "response topic [MQTT-3.3.2-14]"
    );
    assert_eq!(publish_reason(0x30, b"\0\x01a\x05\x11\0\0\0\x01"), Err(0x81), "not on PUBLISH");
    assert_eq!(publish_reason(0x30, b"\0\x01a\x80\0"), Err(0x81), "length not shortest [MQTT-1.5.5-1]");
    assert_eq!(publish_reason(0x30, b"\0\x02a"), Err(0x81), "ends early");
    assert_eq!(reason(0x30, b"\0\0", V311), Err(0x90), "no alias before v5 [MQTT-4.7.3-1]");
    let long = [b"\x04\x01".as_slice(), &[b'a'; 1025], b"\0"].concat();
    assert_eq!(publish_reason(0x30, &long), Err(0x90), "beyond our bound");
}

#[test]
fn strings_are_strict_utf_8() {
    let topic = |bytes: &[u8]| publish_reason(0x30, &[&[0, bytes.len() as u8], bytes, &[0]].concat());
    assert_eq!(topic(b"\xED\xA0\x80"), Err(0x81), "surrogate [MQTT-1.5.4-1]");
    assert_eq!(topic(b"a\0b"), Err(0x81), "U+0000 [MQTT-1.5.4-2]");
    assert_eq!(topic(b"\xC0\x80"), Err(0x81), "U+0000 in two bytes");
    assert_eq!(topic(b"\xF4\x90\x80\x80"), Err(0x81), "beyond U+10FFFF");
    let bytes = frame(0x30, b"\0\x04\xEF\xBB\xBFa\0");
    let Ok(Packet::Publish(publish)) = packet(&bytes, Some(V5)) else { panic!() };
    assert_eq!(publish.topic, "\u{FEFF}a", "byte order mark kept [MQTT-1.5.4-3]");
}

#[test]
fn acknowledgements_may_leave_out_what_says_success() {
    for (first, kind) in
        [(0x40, AckKind::Puback), (0x50, AckKind::Pubrec), (0x62, AckKind::Pubrel), (0x70, AckKind::Pubcomp)]
    {
        for body in [b"\0\x07".as_slice(), b"\0\x07\0", b"\0\x07\0\0"] {
            let id = PacketId::new(7).expect("not 0");
            assert_eq!(packet(&frame(first, body), Some(V5)), Ok(Packet::Ack(Ack::success(kind, id))));
        }
    }
    let bytes = frame(0x40, b"\0\x07\x97\x04\x1F\0\x01r");
    let Ok(Packet::Ack(ack)) = packet(&bytes, Some(V5)) else { panic!() };
    assert_eq!((ack.reason, ack.reason_string), (ReasonCode::QuotaExceeded, Some("r")));
    assert_eq!(reason(0x40, b"\0\x07\x92", V5), Err(0x82), "0x92 belongs to PUBREL [MQTT-3.4.2-1]");
    assert_eq!(reason(0x40, b"\0\x07\x03", V5), Err(0x81), "no such code");
    assert_eq!(reason(0x40, b"\0\0", V5), Err(0x82));
    assert_eq!(reason(0x40, b"\0\x07\0", V311), Err(0x81), "v3 has no reason");
    assert_eq!(reason(0x40, b"\0\x07\0\0\0", V5), Err(0x81), "bytes after the end");
}

#[test]
fn flags_of_fixed_headers_are_exact_for_the_version() {
    // [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
    for (first, body) in [(0x68, b"\0\x01".as_slice()), (0x88, b"\0\x01\0\x01a\0"), (0xA8, b"\0\x01\0\x01a")]
    {
        assert_eq!(reason(first | 0x02, body, Version::V31), Ok(()), "3.1 repeats with DUP");
        assert_eq!(reason(first | 0x02, body, V311), Err(0x81));
        assert_eq!(reason(first & 0xF0, body, V311), Err(0x81));
        assert_eq!(reason(first & 0xF0 | 0x02, body, V311), Ok(()));
    }
    assert_eq!(reason(0xC1, b"", V5), Err(0x81));
    assert_eq!(reason(0xE1, b"", V5), Err(0x81), "[MQTT-3.14.1-1]");
    assert_eq!(reason(0xF1, b"", V5), Err(0x81), "[MQTT-3.15.1-1]");
    assert_eq!(reason(0x00, b"", V5), Err(0x81));
}

#[test]
fn a_subscribe_lists_its_filters_even_invalid_ones() {
    let bytes = frame(0x82, b"\0\x0A\x02\x0B\x09\0\x03a/b\x2D\0\x02#a\0\0\0\x02");
    let Ok(Packet::Subscribe(subscribe)) = packet(&bytes, Some(V5)) else { panic!() };
    assert_eq!((subscribe.packet_id.get(), subscribe.subscription_id), (10, Some(9)));
    let options = SubscribeOptions {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let exactly_once = SubscribeOptions { qos: QoS::ExactlyOnce, ..SubscribeOptions::default() };
    let filters: Vec<_> = subscribe.filters().collect();
    assert_eq!(filters, [("a/b", options), ("#a", SubscribeOptions::default()), ("", exactly_once)]);
}

#[test]
fn bad_subscriptions_get_the_reason_the_standard_names() {
    let with = |rest: &[u8]| reason(0x82, &[b"\0\x01\0".as_slice(), rest].concat(), V5);
    assert_eq!(with(b""), Err(0x82), "no filter [MQTT-3.8.3-2]");
    assert_eq!(with(b"\0\x01a\x03"), Err(0x82), "QoS 3");
    assert_eq!(with(b"\0\x01a\x30"), Err(0x82), "retain handling 3");
    assert_eq!(with(b"\0\x01a\x40"), Err(0x81), "reserved bit [MQTT-3.8.3-5]");
    assert_eq!(with(b"\0\x0A$share/g/a\x04"), Err(0x82), "no-local and shared [MQTT-3.8.3-4]");
    assert_eq!(with(b"\0\x0A$share/g/a\x00"), Ok(()));
    assert_eq!(with(b"\0\x01a"), Err(0x81), "ends early");
    assert_eq!(with(b"\0\x01\xFF\0"), Err(0x81), "not UTF-8 [MQTT-3.8.3-1]");
    assert_eq!(reason(0x82, b"\0\x01\x04\x0B\x01\x0B\x01\0\x01a\0", V5), Err(0x82), "identifier twice");
    assert_eq!(reason(0x82, b"\0\x01\x02\x0B\0\0\x01a\0", V5), Err(0x82), "identifier 0");
    assert_eq!(reason(0x82, b"\0\0\0\0\x01a\0", V5), Err(0x82), "packet id 0");
    assert_eq!(reason(0x82, b"\0\x01\0\x01a\x04", V311), Err(0x81), "[MQTT-3.1.1 3.8.3-4]");
    assert_eq!(reason(0x82, b"\0\x01\0\x01a\x03", V311), Err(0x81));
    assert_eq!(reason(0xA2, b"\0\x01\0", V5), Err(0x82), "no filter [MQTT-3.10.3-2]");
    assert_eq!(reason(0xA2, b"\0\x01\0\0\x01\xFF", V5), Err(0x81), "[MQTT-3.10.3-1]");
}

#[test]
fn answers_to_subscriptions_carry_one_reason_per_filter() {
    let bytes = frame(0x90, b"\0\x01\x04\x1F\0\x01r\x00\x02\x8F");
    let Ok(Packet::Suback(suback)) = packet(&bytes, Some(V5)) else { panic!() };
    let expected = [ReasonCode::Success, ReasonCode::GrantedQoS2, ReasonCode::TopicFilterInvalid];
    assert_eq!((suback.reason_string, suback.reasons), (Some("r"), (&expected).into()));
    let bytes = frame(0xB0, b"\0\x01\0\x11");
    let Ok(Packet::Unsuback(unsuback)) = packet(&bytes, Some(V5)) else { panic!() };
    assert_eq!(unsuback.reasons, (&[ReasonCode::NoSubscriptionExisted]).into());
    assert_eq!(reason(0x90, b"\0\x01\0\x11", V5), Err(0x82), "UNSUBACK's code [MQTT-3.9.3-2]");
    assert_eq!(reason(0x90, b"\0\x01\0", V5), Err(0x82), "no reason");
    assert_eq!(reason(0x90, b"\0\x01\x80\x02", V311), Ok(()));
    assert_eq!(reason(0x90, b"\0\x01\x8F", V311), Err(0x81));
    assert_eq!(reason(0xB0, b"\0\x01", V311), Ok(()));
    assert_eq!(reason(0xB0, b"\0\x01\0", V311), Err(0x81), "UNSUBACK of v3 has no payload");
}

#[test]
fn a_connack_is_read_in_both_forms() {
    let bytes = frame(0x20, b"\x01\x00\x09\x24\x01\x25\x00\x12\0\x02id");
    let Ok(Packet::Connack(connack)) = packet(&bytes, Some(V5)) else { panic!() };
    let expected = Connack {
        session_present: true,
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        assigned_client_id: Some("id"),
        properties: connack.properties,
        ..Connack::new(ReasonCode::Success)
    };
    assert_eq!(connack, expected);
    let bytes = frame(0x20, b"\0\x05");
    let Ok(Packet::Connack(connack)) = packet(&bytes, Some(V311)) else { panic!() };
    assert_eq!(connack, Connack::new(ReasonCode::NotAuthorized));
    assert_eq!(reason(0x20, b"\x02\0\0", V5), Err(0x81), "[MQTT-3.2.2-1]");
    assert_eq!(reason(0x20, b"\x01\x87\0", V5), Err(0x82), "[MQTT-3.2.2-6]");
    assert_eq!(reason(0x20, b"\0\x06", V311), Err(0x81), "reserved return code");
    assert_eq!(reason(0x20, b"\0\0\x02\x24\x02", V5), Err(0x82), "maximum QoS 2");
}

#[test]
fn disconnect_and_auth_may_be_short() {
    for body in [b"".as_slice(), b"\0", b"\0\0"] {
        assert_eq!(reason(0xE0, body, V5), Ok(()));
    }
    let bytes = frame(0xE0, b"\x04\x05\x11\0\0\0\x09");
    let Ok(Packet::Disconnect(disconnect)) = packet(&bytes, Some(V5)) else { panic!() };
    assert_eq!((disconnect.reason, disconnect.session_expiry), (ReasonCode::DisconnectWithWill, Some(9)));
    assert_eq!(reason(0xE0, b"\x01", V5), Err(0x82), "[MQTT-3.14.2-1]");
    assert_eq!(reason(0xE0, b"\0", V311), Err(0x81));
    assert_eq!(reason(0xC0, b"", V311), Ok(()));
    assert_eq!(reason(0xC0, b"\0", V311), Err(0x81));

    assert_eq!(reason(0xF0, b"", V5), Ok(()));
    let bytes = frame(0xF0, b"\x18\x08\x15\0\x01m\x16\0\x01d");
    let Ok(Packet::Auth(auth)) = packet(&bytes, Some(V5)) else { panic!() };
    assert_eq!((auth.reason, auth.method), (ReasonCode::ContinueAuthentication, Some("m")));
    assert_eq!(reason(0xF0, b"\x18\0", V5), Err(0x82), "no method");
    assert_eq!(reason(0xF0, b"\x80\0", V5), Err(0x82), "[MQTT-3.15.2-1]");
    assert_eq!(reason(0xF0, b"", V311), Err(0x81));
}

#[test]
fn a_frame_is_exactly_one_packet() {
    for bytes in [b"".as_slice(), b"\xC0", b"\xC0\x01", b"\xC0\x00\x00", b"\xC0\x80"] {
        assert_eq!(packet(bytes, Some(V5)).map_err(|error| error.reason), Err(ReasonCode::MalformedPacket));
    }
    // [MQTT-1.5.5-1] is a rule of v5.
    assert!(packet(b"\xC0\x80\x00", Some(V5)).is_err());
    assert_eq!(packet(b"\xC0\x80\x00", Some(V311)), Ok(Packet::Pingreq));
}
