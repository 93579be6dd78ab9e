//! Packets as bytes, built from the standard and not with our encoder, and ways to damage them.
//!
//! Everything is chosen by a run of bytes, so that proptest can shrink a choice and a plain generator can drive
//! millions of them. Included by the tests of `wire/`; each uses a part.
#![allow(dead_code, reason = "each test that includes this uses a part of it")]

pub mod check;

use ironpost::wire::property::{Place, allowed_at};
use ironpost::wire::{PacketType, Property, Version};

/// A supply of choices; zeros when it has run out.
pub struct Choices<'a> {
    bytes: std::slice::Iter<'a, u8>,
}

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices { bytes: bytes.iter() }
    }

    pub fn byte(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    /// 0 to `count` - 1, `count` at most 256.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    fn two_bytes(&mut self) -> [u8; 2] {
        [self.byte(), self.byte()]
    }

    fn packet_id(&mut self) -> [u8; 2] {
        (u16::from_be_bytes(self.two_bytes()).max(1)).to_be_bytes()
    }
}

/// SplitMix64: repeatable bytes from a seed.
pub struct Random(pub u64);

impl Random {
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

const STRINGS: [&str; 7] = ["", "a", "key", "ü€😀", "\u{FEFF}x", "client-0042", "\u{1}\u{7F}"];
const TOPICS: [&str; 7] = ["a", "a/b", "/", "$SYS/x", "é/ü", "account/42/inbox", "a//b c"];
const FILTERS: [&str; 8] = ["a", "a/b/#", "#", "+", "+/a/+", "$share/g/a/#", "/", "ü/+"];
const NOT_FILTERS: [&str; 5] = ["a#", "#/a", "+a", "", "$share/g"];
const BINARIES: [&[u8]; 5] = [b"", b"\0", b"\xFF\xFE", b"text", &[7; 130]];
const TEXTS: [&[u8]; 4] = [b"", b"text", "ü😀".as_bytes(), &[b'x'; 200]];

/// A packet with that first byte and the rest.
pub fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    push_variable(&mut frame, body.len());
    frame.extend(body);
    frame
}

fn push_variable(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7F {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn push_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u16::try_from(bytes.len()).expect("short").to_be_bytes());
    out.extend(bytes);
}

/// A valid packet; no AUTH before v5. Invalid filters only if `bad_filters`: they are valid packets, but other
/// codecs judge them at once.
pub fn valid(choices: &mut Choices<'_>, version: Version, bad_filters: bool) -> Vec<u8> {
    let v5 = version.is_v5();
    // CONNECT and PUBLISH, which have most to say, come up more often.
    let kind =
        choices.of(&[1, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 13, 14, if v5 { 15 } else { 3 }]);
    match kind {
        1 => connect(choices, version),
        2 => connack(choices, version),
        3 => publish(choices, version),
        4..=7 => acknowledgement(choices, kind, version),
        8 | 10 => subscription(choices, kind, version, bad_filters),
        9 | 11 => subscription_answer(choices, kind, version),
        14 | 15 => farewell(choices, kind, version),
        _ => framed(kind << 4, b""),
    }
}

fn connect(choices: &mut Choices<'_>, version: Version) -> Vec<u8> {
    let v5 = version.is_v5();
    let will = choices.flag();
    let username = choices.flag();
    let password = choices.flag() && (username || v5);
    let mut flags = u8::from(username) << 7 | u8::from(password) << 6 | u8::from(choices.flag()) << 1;
    if will {
        flags |= 0x04 | choices.of(&[0x00, 0x08, 0x10]) | choices.of(&[0x00, 0x20]);
    }
    let mut body = Vec::new();
    push_binary(&mut body, if version == Version::V31 { b"MQIsdp" } else { b"MQTT" });
    body.extend([version as u8, flags]);
    body.extend(choices.two_bytes());
    if v5 {
        body.extend(properties(choices, Place::Packet(PacketType::Connect)));
    }
    push_binary(&mut body, choices.of(&STRINGS).as_bytes());
    if will {
        if v5 {
            body.extend(properties(choices, Place::Will));
        }
        push_binary(&mut body, choices.of(&TOPICS).as_bytes());
        push_binary(&mut body, choices.of(&TEXTS));
    }
    if username {
        push_binary(&mut body, choices.of(&STRINGS).as_bytes());
    }
    if password {
        push_binary(&mut body, choices.of(&BINARIES));
    }
    framed(0x10, &body)
}

fn connack(choices: &mut Choices<'_>, version: Version) -> Vec<u8> {
    if !version.is_v5() {
        let code = choices.below(6) as u8;
        let present = code == 0 && version != Version::V31 && choices.flag();
        return framed(0x20, &[u8::from(present), code]);
    }
    let reason = choices.of(&[0, 0, 0x80, 0x81, 0x87, 0x97, 0x9D]);
    let mut body = vec![u8::from(reason == 0 && choices.flag()), reason];
    body.extend(properties(choices, Place::Packet(PacketType::Connack)));
    framed(0x20, &body)
}

fn publish(choices: &mut Choices<'_>, version: Version) -> Vec<u8> {
    let qos = choices.below(3) as u8;
    let dup = qos > 0 && choices.flag();
    let first = 0x30 | u8::from(dup) << 3 | qos << 1 | u8::from(choices.flag());
    let mut body = Vec::new();
    push_binary(&mut body, choices.of(&TOPICS).as_bytes());
    if qos > 0 {
        body.extend(choices.packet_id());
    }
    if version.is_v5() {
        body.extend(properties(choices, Place::Packet(PacketType::Publish)));
    }
    body.extend(choices.of(&TEXTS));
    framed(first, &body)
}

fn acknowledgement(choices: &mut Choices<'_>, kind: u8, version: Version) -> Vec<u8> {
    let mut body = choices.packet_id().to_vec();
    if version.is_v5() && choices.flag() {
        body.push(choices.of(if kind < 6 { &[0x00, 0x10, 0x80, 0x97] } else { &[0x00, 0x92] }));
        if choices.flag() {
            body.extend(properties(choices, Place::Packet(packet_type(kind))));
        }
    }
    framed(kind << 4 | if kind == 6 { 2 } else { 0 }, &body)
}

fn subscription(choices: &mut Choices<'_>, kind: u8, version: Version, bad_filters: bool) -> Vec<u8> {
    let mut body = choices.packet_id().to_vec();
    if version.is_v5() {
        body.extend(properties(choices, Place::Packet(packet_type(kind))));
    }
    for _ in 0..=choices.below(3) {
        let bad = bad_filters && choices.below(4) == 3;
        let filter = if bad { choices.of(&NOT_FILTERS) } else { choices.of(&FILTERS) };
        push_binary(&mut body, filter.as_bytes());
        if kind == 8 {
            let mut options = choices.below(3) as u8;
            if version.is_v5() {
                options |= choices.of(&[0x00, 0x10, 0x20]) | choices.of(&[0x00, 0x08]);
                options |= if filter.starts_with("$share/") { 0 } else { choices.of(&[0x00, 0x04]) };
            }
            body.push(options);
        }
    }
    framed(kind << 4 | 2, &body)
}

fn subscription_answer(choices: &mut Choices<'_>, kind: u8, version: Version) -> Vec<u8> {
    let mut body = choices.packet_id().to_vec();
    if version.is_v5() {
        body.extend(properties(choices, Place::Packet(packet_type(kind))));
    }
    if version.is_v5() || kind == 9 {
        let codes: &[u8] = match (version.is_v5(), kind) {
            (true, 9) => &[0, 1, 2, 0x80, 0x8F, 0x9E],
            (true, _) => &[0, 0x11, 0x80, 0x8F],
            _ => &[0, 1, 2, 0x80],
        };
        for _ in 0..=choices.below(3) {
            body.push(choices.of(codes));
        }
    }
    framed(kind << 4, &body)
}

/// DISCONNECT and AUTH.
fn farewell(choices: &mut Choices<'_>, kind: u8, version: Version) -> Vec<u8> {
    let mut body = Vec::new();
    if version.is_v5() && choices.flag() {
        body.push(choices.of(if kind == 14 { &[0x00, 0x04, 0x8E] } else { &[0x00, 0x18, 0x19] }));
        if kind == 15 || choices.flag() {
            body.extend(properties(choices, Place::Packet(packet_type(kind))));
        }
    }
    framed(kind << 4, &body)
}

fn packet_type(kind: u8) -> PacketType {
    match kind {
        4 => PacketType::Puback,
        5 => PacketType::Pubrec,
        6 => PacketType::Pubrel,
        7 => PacketType::Pubcomp,
        8 => PacketType::Subscribe,
        9 => PacketType::Suback,
        10 => PacketType::Unsubscribe,
        11 => PacketType::Unsuback,
        14 => PacketType::Disconnect,
        15 => PacketType::Auth,
        _ => unreachable!("not asked for"),
    }
}

/// Up to five properties that may stand there, with the length in front.
fn properties(choices: &mut Choices<'_>, place: Place) -> Vec<u8> {
    let legal: Vec<u8> =
        Property::IDENTIFIERS.iter().copied().filter(|&identifier| allowed_at(identifier, place)).collect();
    let mut chosen: Vec<u8> = if place == Place::Packet(PacketType::Auth) { vec![0x15] } else { vec![] };
    for _ in 0..choices.below(6) {
        let identifier = choices.of(&legal);
        let repeats =
            identifier == 0x26 || (identifier == 0x0B && place == Place::Packet(PacketType::Publish));
        if repeats || !chosen.contains(&identifier) {
            chosen.push(identifier);
        }
        if identifier == 0x16 && !chosen.contains(&0x15) {
            chosen.push(0x15);
        }
    }
    let mut run = Vec::new();
    for identifier in chosen {
        run.push(identifier);
        push_value(&mut run, identifier, choices);
    }
    let mut framed = Vec::new();
    push_variable(&mut framed, run.len());
    framed.extend(run);
    framed
}

fn push_value(out: &mut Vec<u8>, identifier: u8, choices: &mut Choices<'_>) {
    match identifier {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2A => out.push(u8::from(choices.flag())),
        0x13 | 0x22 => out.extend(choices.two_bytes()),
        0x21 | 0x23 => out.extend(choices.packet_id()),
        0x02 | 0x11 | 0x18 => out.extend([0, choices.byte(), choices.byte(), choices.byte()]),
        0x27 => out.extend([0, 0, choices.byte(), choices.byte() | 1]),
        0x0B => push_variable(out, choices.of(&[1, 127, 128, 16_384, 268_435_455])),
        0x09 | 0x16 => push_binary(out, choices.of(&BINARIES)),
        0x08 => push_binary(out, choices.of(&TOPICS).as_bytes()),
        0x26 => {
            push_binary(out, choices.of(&STRINGS).as_bytes());
            push_binary(out, choices.of(&STRINGS).as_bytes());
        }
        _ => push_binary(out, choices.of(&STRINGS).as_bytes()),
    }
}

/// Damages the body once to three times and frames it again; the first byte keeps its type, and its flags but for
/// PUBLISH.
pub fn damaged(choices: &mut Choices<'_>, frame: &[u8]) -> Vec<u8> {
    let head = 1 + frame[1..].iter().take_while(|&&byte| byte >= 0x80).count() + 1;
    let (mut first, mut body) = (frame[0], frame[head..].to_vec());
    for _ in 0..=choices.below(3) {
        // Most of what can go wrong stands in front.
        let reach = if choices.flag() { 24 } else { 256 };
        let at = choices.below(body.len().clamp(1, reach));
        match choices.below(8) {
            0 if first >> 4 == 3 => first = first & 0xF0 | choices.byte() & 0x0F,
            0..=2 if at < body.len() => body[at] ^= 1 << choices.below(8),
            3 if at < body.len() => body[at] = choices.of(&[0, 1, 2, 3, 0x0B, 0x1F, 0x26, 0x7F, 0x80, 0xFF]),
            4 if at < body.len() => body[at] = body[at].wrapping_add(1),
            5 => body.insert(at.min(body.len()), choices.byte()),
            6 if at < body.len() => drop(body.remove(at)),
            7 => body.truncate(at),
            _ => body.push(choices.byte()),
        }
    }
    framed(first, &body)
}
