//! What a server sent, from bytes; panics on anything that a server may not send.

use super::{Packet, Properties, Publish, Value, property};

/// A packet of a server that speaks that protocol level, from its first byte and the rest after the length.
///
/// Panics on reserved bits that are set `[MQTT-2.1.3-1]` `[MQTT-3.2.2-1]`, strings that are no UTF-8, a missing
/// property length `[MQTT-2.2.2-1]`, a QoS of 3, a DUP at QoS 0 `[MQTT-4.3.1-1]`, bytes left over, and reasons that
/// the packet may not carry.
pub fn decode(level: u8, first: u8, body: &[u8]) -> Packet {
    let mut rest = Rest { bytes: body, level };
    let (kind, flags) = (first >> 4, first & 15);
    if kind != 3 {
        assert_eq!(flags, if kind == 6 { 2 } else { 0 }, "reserved flags of packet {first:#04x}");
    }
    let packet = match kind {
        2 => connack(&mut rest),
        3 => return publish(flags, rest),
        4..=7 => acknowledgement(kind, &mut rest),
        9 => {
            let (id, properties) = (rest.two(), rest.properties());
            Packet::Suback { id, properties, reasons: rest.reasons(&SUBACK_REASONS) }
        }
        11 => {
            let (id, properties) = (rest.two(), rest.properties());
            Packet::Unsuback { id, properties, reasons: rest.reasons(&UNSUBACK_REASONS) }
        }
        13 => Packet::Pingresp,
        14 => disconnect(&mut rest),
        _ => panic!("a server may not send packet {first:#04x}"),
    };
    assert!(rest.bytes.is_empty(), "{packet:?} is followed by {:?}", rest.bytes);
    packet
}

// Tables 3-1, 3-4 to 3-8 and 3-10 of the standard: [MQTT-3.2.2-8] and its like for each packet.
const CONNACK_REASONS: [u8; 22] = [
    0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99, 0x9a,
    0x9b, 0x9c, 0x9d, 0x9f,
];
const PUBACK_REASONS: [u8; 9] = [0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const PUBREL_REASONS: [u8; 2] = [0, 0x92];
const SUBACK_REASONS: [u8; 12] = [0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];
const UNSUBACK_REASONS: [u8; 7] = [0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91];
const DISCONNECT_REASONS: [u8; 28] = [
    0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98,
    0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
];

fn connack(rest: &mut Rest) -> Packet {
    let flags = rest.byte();
    assert_eq!(flags & !1, 0, "reserved CONNACK flags");
    let reason = rest.byte();
    if rest.level >= 5 {
        assert!(CONNACK_REASONS.contains(&reason), "CONNACK with reason {reason:#04x}");
    } else {
        assert!(reason <= 5, "CONNACK with return code {reason}");
    }
    Packet::Connack { present: flags == 1, reason, properties: rest.properties() }
}

fn publish(flags: u8, mut rest: Rest) -> Packet {
    let qos = flags >> 1 & 3;
    assert!(qos < 3, "PUBLISH with QoS 3");
    let dup = flags & 8 != 0;
    assert!(!dup || qos > 0, "PUBLISH with DUP at QoS 0");
    let topic = rest.text();
    let id = if qos > 0 { rest.two() } else { 0 };
    assert!(qos == 0 || id != 0, "PUBLISH with packet identifier 0");
    let properties = rest.properties();
    let has_alias = super::find(&properties, property::TOPIC_ALIAS).is_some();
    assert!(!topic.is_empty() || has_alias, "PUBLISH without topic or alias");
    assert!(!topic.contains(['+', '#']), "PUBLISH to {topic}");
    let payload = rest.bytes.to_vec();
    Packet::Publish(Publish { dup, qos, retain: flags & 1 != 0, topic, id, properties, payload })
}

fn acknowledgement(kind: u8, rest: &mut Rest) -> Packet {
    let id = rest.two();
    let (mut reason, mut properties) = (0, Properties::new());
    if rest.level >= 5 && !rest.bytes.is_empty() {
        reason = rest.byte();
        if !rest.bytes.is_empty() {
            properties = rest.properties();
        }
    }
    let allowed = if kind < 6 { &PUBACK_REASONS[..] } else { &PUBREL_REASONS[..] };
    assert!(allowed.contains(&reason), "acknowledgement {kind} with reason {reason:#04x}");
    Packet::Ack { kind, id, reason, properties }
}

fn disconnect(rest: &mut Rest) -> Packet {
    assert!(rest.level >= 5, "a server of MQTT 3.1.1 sends no DISCONNECT");
    let (mut reason, mut properties) = (0, Properties::new());
    if !rest.bytes.is_empty() {
        reason = rest.byte();
        if !rest.bytes.is_empty() {
            properties = rest.properties();
        }
    }
    assert!(DISCONNECT_REASONS.contains(&reason), "DISCONNECT with reason {reason:#04x}");
    let expiry = super::find(&properties, property::SESSION_EXPIRY);
    assert_eq!(expiry, None, "a server's DISCONNECT with a session expiry");
    Packet::Disconnect { reason, properties }
}

/// What is not decoded yet.
struct Rest<'a> {
    bytes: &'a [u8],
    level: u8,
}

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at_checked(length).expect("the packet is long enough");
        self.bytes = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn two(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().expect("two bytes"))
    }

    fn four(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn binary(&mut self) -> Vec<u8> {
        let length = self.two();
        self.take(usize::from(length)).to_vec()
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.binary()).expect("a string is UTF-8")
    }

    fn variable(&mut self) -> u32 {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte();
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                assert!(
                    byte != 0 || shift == 0,
                    "a variable byte integer is not the shortest [MQTT-1.5.5-1]"
                );
                return value;
            }
        }
        panic!("a variable byte integer of five bytes");
    }

    /// The rest of the packet: one reason per filter, which MQTT 3.1.1 has in SUBACK only.
    fn reasons(&mut self, allowed: &[u8]) -> Vec<u8> {
        let reasons = std::mem::take(&mut self.bytes).to_vec();
        let allowed = if self.level >= 5 { allowed } else { &[0, 1, 2, 0x80] };
        assert!(reasons.iter().all(|reason| allowed.contains(reason)), "reasons {reasons:?}");
        reasons
    }

    fn properties(&mut self) -> Properties {
        if self.level < 5 {
            return Properties::new();
        }
        let length = self.variable() as usize;
        let mut rest = Rest { bytes: self.take(length), level: self.level };
        let mut list = Properties::new();
        while !rest.bytes.is_empty() {
            let identifier = rest.byte();
            let value = match identifier {
                1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => Value::Byte(rest.byte()),
                19 | 33 | 34 | 35 => Value::Two(rest.two()),
                2 | 17 | 24 | 39 => Value::Four(rest.four()),
                11 => Value::Variable(rest.variable()),
                3 | 8 | 18 | 21 | 26 | 28 | 31 => Value::Text(rest.text()),
                9 | 22 => Value::Binary(rest.binary()),
                38 => Value::Pair(rest.text(), rest.text()),
                _ => panic!("no property has the identifier {identifier}"),
            };
            list.push((identifier, value));
        }
        list
    }
}
