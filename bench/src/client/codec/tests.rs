//! The codec against bytes written down from the specification's tables, and against itself.

use super::*;

fn only_frame(bytes: &[u8]) -> Frame<'_> {
    let frame = split_frame(bytes).unwrap().unwrap();
    assert_eq!(frame.bytes.len(), bytes.len(), "exactly one packet");
    frame
}

#[test]
fn a_connect_has_the_bytes_of_the_specification() {
    let mut out = Vec::new();
    let connect = Connect {
        version: Version::V311,
        client_id: b"ab",
        clean: true,
        keep_alive_s: 60,
        session_expiry_s: 0,
    };
    encode_connect(&mut out, &connect, None);
    assert_eq!(out, [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 2, b'a', b'b']);

    out.clear();
    let connect = Connect { version: Version::V5, clean: false, session_expiry_s: 0x0102_0304, ..connect };
    encode_connect(&mut out, &connect, None);
    let expected =
        [0x10, 20, 0, 4, b'M', b'Q', b'T', b'T', 5, 0, 0, 60, 5, 0x11, 1, 2, 3, 4, 0, 2, b'a', b'b'];
    assert_eq!(out, expected);
    assert_eq!(parse_connect_version(&only_frame(&out)), Ok(Version::V5));

    out.clear();
    encode_connect(&mut out, &Connect { session_expiry_s: 0, ..connect }, None);
    assert_eq!(out, [0x10, 15, 0, 4, b'M', b'Q', b'T', b'T', 5, 0, 0, 60, 0, 0, 2, b'a', b'b']);
}

#[test]
fn a_will_stands_behind_the_client_identifier_and_in_the_flags() {
    let mut out = Vec::new();
    let connect = Connect {
        version: Version::V311,
        client_id: b"a",
        clean: false,
        keep_alive_s: 60,
        session_expiry_s: 0,
    };
    let will = Will { topic: "t".to_owned(), payload: b"xy".to_vec(), retain: true };
    encode_connect(&mut out, &connect, Some(&will));
    let head = [0, 4, b'M', b'Q', b'T', b'T', 4, 0x24, 0, 60, 0, 1, b'a'];
    assert_eq!(out, [&[0x10, 20][..], &head, &[0, 1, b't', 0, 2, b'x', b'y']].concat());

    // 5.0 has the will's properties in between, of which there are none.
    out.clear();
    let connect = Connect { version: Version::V5, ..connect };
    encode_connect(&mut out, &connect, Some(&Will { retain: false, ..will }));
    let head = [0, 4, b'M', b'Q', b'T', b'T', 5, 0x04, 0, 60, 0, 0, 1, b'a'];
    assert_eq!(out, [&[0x10, 22][..], &head, &[0, 0, 1, b't', 0, 2, b'x', b'y']].concat());
}

#[test]
fn a_connack_gives_the_receive_maximum_wherever_it_stands() {
    let plain = [0x20, 2, 1, 0];
    let expected = Connack { session_present: true, reason: 0, receive_maximum: u16::MAX };
    assert_eq!(parse_connack(&only_frame(&plain), Version::V311), Ok(expected));

    let with_properties = [0x20, 17, 0, 0, 14, 0x22, 0, 10, 0x12, 0, 1, b'x', 0x21, 0, 20, 0x27, 0, 1, 0, 0];
    // The property length must match what stands there: 3 + 4 + 3 + 5 is 15, so 14 cuts the last one short.
    assert!(parse_connack(&split_frame(&with_properties).unwrap().unwrap(), Version::V5).is_err());

    let with_properties = [0x20, 18, 0, 0, 15, 0x22, 0, 10, 0x12, 0, 1, b'x', 0x21, 0, 20, 0x27, 0, 1, 0, 0];
    let expected = Connack { session_present: false, reason: 0, receive_maximum: 20 };
    assert_eq!(parse_connack(&only_frame(&with_properties), Version::V5), Ok(expected));

    let unknown_property = [0x20, 5, 0, 0, 2, 0x7e, 0];
    assert!(parse_connack(&only_frame(&unknown_property), Version::V5).is_err());
}

#[test]
fn a_publish_comes_back_as_it_went_in_both_versions_and_every_qos() {
    for version in [Version::V311, Version::V5] {
        for qos in 0..=2 {
            for length in [0, 1, 100, 127, 128, 20_000, 2_100_000] {
                let payload = vec![0xa5; length];
                let packet_id = if qos == 0 { 0 } else { 0x1234 };
                let publish = Publish { qos, topic: b"a/b", packet_id, payload: &payload };
                let mut out = Vec::new();
                encode_publish(&mut out, version, &publish);
                assert_eq!(parse_publish(&only_frame(&out), version), Ok(publish));
            }
        }
    }
}

#[test]
fn a_publish_with_properties_keeps_its_payload() {
    let bytes = [0x32, 12, 0, 1, b't', 0, 7, 3, 0x23, 0, 1, b'p', b'a', b'y'];
    let publish = parse_publish(&only_frame(&bytes), Version::V5).unwrap();
    assert_eq!(publish, Publish { qos: 1, topic: b"t", packet_id: 7, payload: b"pay" });
}

#[test]
fn a_subscribe_and_its_suback_agree() {
    for version in [Version::V311, Version::V5] {
        let mut out = Vec::new();
        encode_subscribe(&mut out, version, 9, b"u/1/inbox", 1);
        assert_eq!(out[0], 0x82);
        let mut seen = Vec::new();
        let id = parse_subscribe(&only_frame(&out), version, |filter, options| seen.push((filter, options)));
        assert_eq!((id, seen), (Ok(9), vec![(&b"u/1/inbox"[..], 1)]));

        out.clear();
        encode_suback(&mut out, version, 9, &[1]);
        assert_eq!(parse_suback(&only_frame(&out), version), Ok(1));
    }
}

#[test]
fn acks_carry_the_flags_of_their_kind() {
    let mut out = Vec::new();
    encode_ack(&mut out, kind::PUBREL, 0x0102);
    assert_eq!(out, [0x62, 2, 1, 2]);
    assert_eq!(parse_ack(&only_frame(&out)), Ok((0x0102, 0)));
    assert_eq!(parse_ack(&only_frame(&[0x40, 3, 0, 5, 0x97])), Ok((5, 0x97)));
    assert!(parse_ack(&only_frame(&[0x40, 1, 0])).is_err());
}

#[test]
fn a_frame_waits_for_its_last_byte_and_leaves_the_next_one_alone() {
    let mut out = Vec::new();
    let publish = Publish { qos: 1, topic: b"t", packet_id: 1, payload: &[7; 300] };
    encode_publish(&mut out, Version::V311, &publish);
    let first = out.len();
    encode_empty(&mut out, kind::PINGRESP);
    for end in 0..first {
        assert!(split_frame(&out[..end]).unwrap().is_none(), "complete at {end} of {first}");
    }
    assert_eq!(split_frame(&out).unwrap().unwrap().bytes.len(), first);
    assert_eq!(split_frame(&out[first..]).unwrap().unwrap().kind(), kind::PINGRESP);
}

#[test]
fn a_length_of_five_bytes_is_refused() {
    assert!(split_frame(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
    assert!(split_frame(&[0x30, 0xff, 0xff, 0xff]).unwrap().is_none());
}

#[test]
fn a_cut_body_is_an_error_not_a_panic() {
    let mut out = Vec::new();
    encode_publish(&mut out, Version::V5, &Publish { qos: 2, topic: b"abc", packet_id: 3, payload: b"" });
    let whole = only_frame(&out);
    for end in 0..whole.body.len() {
        let cut = Frame { body: &whole.body[..end], ..whole };
        assert!(parse_publish(&cut, Version::V5).is_err(), "cut at {end}");
    }
}

#[test]
fn a_publish_that_expires_says_so_in_its_properties() {
    let publish = Publish { qos: 1, topic: b"t", packet_id: 7, payload: b"pay" };
    let mut out = Vec::new();
    encode_publish_expiring(&mut out, &publish, 0x0102_0304);
    assert_eq!(out, [0x32, 14, 0, 1, b't', 0, 7, 5, 0x02, 1, 2, 3, 4, b'p', b'a', b'y']);
    assert_eq!(parse_publish(&only_frame(&out), Version::V5), Ok(publish));
}

#[test]
fn an_unsubscribe_has_a_property_length_in_5_0_only() {
    let mut bytes = Vec::new();
    encode_unsubscribe(&mut bytes, Version::V311, 258, b"a/#");
    encode_unsubscribe(&mut bytes, Version::V5, 258, b"a/#");
    assert_eq!(bytes, *b"\xa2\x07\x01\x02\x00\x03a/#\xa2\x08\x01\x02\x00\x00\x03a/#");
}
