//! Records survive their encoding, and the bytes of every type stay what the golden files say.

use proptest::prelude::*;

use super::*;
use crate::journal::encode::encode;

/// One record of each type, as it is in its golden file. Both are frozen.
fn samples() -> Vec<(&'static str, Record<'static>)> {
    static RECIPIENTS: [Recipient; 3] = [
        Recipient {
            session: SessionKey(0x0102_0304_0506_0708),
            qos: QoS::AtLeastOnce,
            retain: true,
            shared: false,
            group: 0,
            subscription_id: 268_435_455,
            more: false,
        },
        Recipient {
            session: SessionKey(0x0102_0304_0506_0708),
            qos: QoS::AtLeastOnce,
            retain: false,
            shared: false,
            group: 0,
            subscription_id: 7,
            more: true,
        },
        Recipient {
            session: SessionKey(9),
            qos: QoS::ExactlyOnce,
            retain: false,
            shared: true,
            group: 0,
            subscription_id: 0,
            more: false,
        },
    ];
    let body = Body {
        topic: "u/zoë/inbox",
        forward: &[0x01, 0x01],
        payload: b"\x00payload\xFF",
        qos: QoS::ExactlyOnce,
        retain: true,
        accepted_at: UnixMs(1_700_000_000_123),
        expires_at: UnixMs::NEVER,
    };
    let plain = Body { topic: "a", forward: &[], payload: &[], qos: QoS::AtLeastOnce, retain: false, ..body };
    let recipients = Recipients::from(&RECIPIENTS[..]);
    let key = SessionKey(0x1122_3344_5566_7788);
    let message = Lsn(0x0A0B_0C0D_0E0F_1011);
    let packet_id = PacketId::new(0xFFFE).unwrap();
    let mark = OriginKey { shard: ShardId(63), lsn: Lsn(77) };
    let will = WillRecord { body, delay_s: 30, message_expiry_s: u32::MAX };
    let session = |account, version, will| Record::Session {
        key,
        account,
        client_id: "device-1",
        version,
        expiry_s: 3_600,
        will,
    };
    let options = SubscribeOptions {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: false,
        retain_handling: RetainHandling::DoNotSend,
    };
    vec![
        ("message", Record::Message { body, origin: Some(mark), recipients }),
        ("message-plain", Record::Message { body: plain, origin: None, recipients: Recipients::EMPTY }),
        ("deliver", Record::Deliver { message, recipients }),
        ("acknowledged", Record::Acknowledged { key, message, packet_id: None }),
        ("inbound", Record::Inbound { key, packet_id, body }),
        ("routed", Record::Routed { inbound: message }),
        ("released", Record::Released { key, packet_id }),
        ("sent", Record::Sent { key, message, packet_id }),
        ("received", Record::Received { key, packet_id }),
        ("retained", Record::Retained { message }),
        (
            "disconnected",
            Record::Disconnected { key, at: UnixMs(5), expiry_s: u32::MAX, will_due: UnixMs::NEVER },
        ),
        ("will-gone", Record::WillGone { key }),
        ("session-ended", Record::SessionEnded { key, will_due: UnixMs(0x3132_3334_3536_3738) }),
        ("gap", Record::Gap { key, skipped: 1 << 40 }),
        ("origin-released", Record::OriginReleased { mark }),
        ("session", session("", Version::V311, None)),
        ("session-will", session("zoë", Version::V5, Some(will))),
        ("subscribed", Record::Subscribed { key, filter: "$share/g/+/x/#", options, subscription_id: 5 }),
        ("unsubscribed", Record::Unsubscribed { key, filter: "a/+" }),
        ("retained-cleared", Record::RetainedCleared { topic: "a/b" }),
        ("delivery-done", Record::DeliveryDone { list: message, place: 0x0102_0304 }),
        ("delivery-begun", Record::DeliveryBegun { list: message, place: 0x0102_0304, packet_id }),
        ("handed-on", Record::HandedOn { list: message, place: 0x0102_0304 }),
        (
            "spent",
            Record::Spent {
                account: "zoë",
                client_id: "device-1",
                limit: 0x12,
                full_at: UnixMs(1_700_000_000_123),
            },
        ),
    ]
}

fn golden(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/record-{name}.bin"))
}

fn encoded(lsn: Lsn, record: &Record<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(lsn, record, &mut bytes);
    bytes
}

#[test]
fn every_record_of_the_golden_files_is_read_as_it_was_meant() {
    for (name, sample) in samples() {
        let bytes = std::fs::read(golden(name)).expect(name);
        let (found, extent) = frame(&bytes).expect(name);
        assert_eq!((found.lsn, extent), (Lsn(0x2122_2324_2526_2728), bytes.len()), "{name}");
        assert_eq!(record(&found).expect(name), sample, "{name}");
        assert_eq!(encoded(found.lsn, &sample), bytes, "{name} is written as it always was");
    }
}

/// For a new record type only: `cargo test --lib -- --ignored golden_files_of_new`. Existing files stay as they are.
#[test]
#[ignore = "writes into the source tree"]
fn golden_files_of_new_record_types_are_written() {
    for (name, sample) in samples() {
        if !golden(name).exists() {
            std::fs::write(golden(name), encoded(Lsn(0x2122_2324_2526_2728), &sample)).expect(name);
        }
    }
}

#[test]
fn every_flipped_bit_of_a_frame_is_noticed() {
    for (name, sample) in samples() {
        let mut bytes = encoded(Lsn(3), &sample);
        let length = u32::from_le_bytes(get(&bytes, frame_at::LENGTH)) as usize;
        for bit in 0..(FRAME_BYTES + length) * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(frame(&bytes).is_err(), "{name}, bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_frame_of_another_type_or_version_is_not_guessed_at() {
    for (kind, version, flags) in [(0, 1, 0), (18, 1, 0), (31, 1, 0), (37, 1, 0), (9, 2, 0), (9, 1, 1)] {
        let frame = Frame { lsn: Lsn(1), kind, version, flags, body: &[0; 8] };
        assert_eq!(record(&frame), Err(Defect::Type { kind, version }));
    }
    let frame = Frame { lsn: Lsn(1), kind: kind::RETAINED, version: 1, flags: 0, body: &[0; 16] };
    assert_eq!(record(&frame), Err(Defect::Body { kind: kind::RETAINED }));
}

/// A record with its parts drawn at random; which parts are used depends on the type.
#[derive(Debug, Clone)]
struct Parts {
    kind: usize,
    numbers: [u64; 3],
    small: u32,
    id: u16,
    bits: u8,
    texts: [String; 3],
    bytes: [Vec<u8>; 2],
    recipients: Vec<Recipient>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let recipient =
        (any::<u64>(), any::<u32>(), any::<u8>()).prop_map(|(session, subscription_id, bits)| Recipient {
            session: SessionKey(session),
            qos: QoS::from_bits(1 + (bits & 1)).unwrap(),
            retain: bits & 2 != 0,
            shared: bits & 4 != 0,
            group: if bits & 4 != 0 { u16::from(bits) << 4 } else { 0 },
            subscription_id,
            more: bits & 8 != 0,
        });
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    let scalars = (0..22usize, any::<[u64; 3]>(), any::<u32>(), 1..=u16::MAX, any::<u8>());
    let texts = [".{0,60}", ".{0,60}", ".{0,60}"];
    (scalars, texts, [bytes(), bytes()], prop::collection::vec(recipient, 0..20)).prop_map(
        |((kind, numbers, small, id, bits), texts, bytes, recipients)| Parts {
            kind,
            numbers,
            small,
            id,
            bits,
            texts,
            bytes,
            recipients,
        },
    )
}

impl Parts {
    fn record(&self) -> Record<'_> {
        let [a, b, c] = self.numbers;
        let (key, message) = (SessionKey(a), Lsn(b));
        let packet_id = PacketId::new(self.id).unwrap();
        let flag = |bit: u8| self.bits & (1 << bit) != 0;
        let qos = QoS::from_bits(self.bits % 3).unwrap();
        let origin = OriginKey { shard: ShardId(self.id), lsn: Lsn(c) };
        let body = Body {
            topic: &self.texts[0],
            forward: &self.bytes[0],
            payload: &self.bytes[1],
            qos,
            retain: flag(3),
            accepted_at: UnixMs(b),
            expires_at: UnixMs(c),
        };
        let recipients = Recipients::from(&self.recipients[..]);
        let will = WillRecord { body, delay_s: self.small, message_expiry_s: !self.small };
        match self.kind {
            0 => Record::Message { body, origin: flag(4).then_some(origin), recipients },
            1 => Record::Deliver { message, recipients },
            2 => Record::Acknowledged { key, message, packet_id: flag(3).then_some(packet_id) },
            3 => Record::Inbound { key, packet_id, body },
            4 => Record::Routed { inbound: message },
            5 => Record::Released { key, packet_id },
            6 => Record::Sent { key, message, packet_id },
            7 => Record::Received { key, packet_id },
            8 => Record::Retained { message },
            9 => Record::RetainedCleared { topic: &self.texts[0] },
            10 => Record::Session {
                key,
                account: &self.texts[1],
                client_id: &self.texts[2],
                version: [Version::V31, Version::V311, Version::V5][usize::from(self.bits % 3)],
                expiry_s: self.small,
                will: flag(4).then_some(will),
            },
            11 => Record::Disconnected { key, at: UnixMs(b), expiry_s: self.small, will_due: UnixMs(c) },
            12 => Record::WillGone { key },
            13 => Record::SessionEnded { key, will_due: UnixMs(c) },
            14 => Record::Subscribed {
                key,
                filter: &self.texts[1],
                options: SubscribeOptions {
                    qos,
                    no_local: flag(4),
                    retain_as_published: flag(5),
                    retain_handling: retain_handling(self.bits % 3).unwrap(),
                },
                subscription_id: self.small,
            },
            15 => Record::Unsubscribed { key, filter: &self.texts[2] },
            16 => Record::Gap { key, skipped: b },
            17 => Record::OriginReleased { mark: origin },
            18 => Record::DeliveryDone { list: message, place: self.small },
            19 => Record::DeliveryBegun { list: message, place: self.small, packet_id },
            20 => Record::HandedOn { list: message, place: self.small },
            _ => Record::Spent {
                account: &self.texts[1],
                client_id: &self.texts[2],
                limit: self.bits,
                full_at: UnixMs(c),
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// At any address: a record is read where it lies.
    #[test]
    fn a_record_comes_back_as_it_was_written(parts in parts(), lsn in any::<u64>(), shift in 0..8usize) {
        let written = parts.record();
        let mut bytes = vec![0; shift];
        encode(Lsn(lsn), &written, &mut bytes);
        let (found, extent) = frame(&bytes[shift..]).expect("a frame");
        prop_assert_eq!((found.lsn, extent), (Lsn(lsn), bytes.len() - shift));
        prop_assert_eq!(record(&found).expect("a record"), written);
    }

    /// The CRC may be right by accident or by another version: no bytes may make decoding panic or read beyond.
    #[test]
    fn no_bytes_make_decoding_panic(kind in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let frame = Frame { lsn: Lsn(1), kind, version: RECORD_VERSION, flags: 0, body: &body };
        let _ = record(&frame);
    }

    /// As above, with bodies that are nearly right.
    #[test]
    fn no_change_to_a_body_makes_decoding_panic(
        parts in parts(), at in any::<prop::sample::Index>(), value in any::<u8>(), cut in 0..9usize,
    ) {
        let mut bytes = encoded(Lsn(1), &parts.record());
        let kind = bytes[frame_at::TYPE];
        let length = u32::from_le_bytes(get(&bytes, frame_at::LENGTH)) as usize;
        let body = &mut bytes[FRAME_BYTES..FRAME_BYTES + length];
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = value;
        }
        let body = &body[..length.saturating_sub(cut)];
        let _ = record(&Frame { lsn: Lsn(1), kind, version: RECORD_VERSION, flags: 0, body });
    }
}
