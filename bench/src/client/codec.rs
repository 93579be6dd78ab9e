//! MQTT 3.1.1 and 5.0 packets, as far as a load generator and the floor relay need them.
//!
//! Decides: framing, the fields of the packets below, and that a packet that breaks these rules is an error.
//! Does not decide: sessions, windows, or what to answer. It does not validate UTF-8 or every property: it measures
//! brokers, it does not certify them. Called by `fleet`, `publisher`, the scenarios and `floor`.
//!
//! Invariant: [`split_frame`] never returns a frame that reaches past the bytes given, and no parser indexes outside
//! its frame's body.

use std::fmt;

/// The packet types, as they stand in the upper half of a packet's first byte.
pub mod kind {
    pub const CONNECT: u8 = 1;
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBSCRIBE: u8 = 8;
    pub const SUBACK: u8 = 9;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const UNSUBACK: u8 = 11;
    pub const PINGREQ: u8 = 12;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
}

/// The protocol level a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

/// A packet that cannot be what it claims to be.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed packet: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// One whole packet.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The fixed header's first byte: type and flags.
    pub first: u8,
    /// What follows the fixed header.
    pub body: &'a [u8],
    /// The whole packet, fixed header included.
    pub bytes: &'a [u8],
}

impl Frame<'_> {
    /// The packet type, one of [`kind`].
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }
}

/// Cuts the first packet off `bytes`: `None` while it is not complete.
pub fn split_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, Malformed> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((length, used)) = read_variable_integer(rest)? else { return Ok(None) };
    let end = 1 + used + length;
    if bytes.len() < end {
        return Ok(None);
    }
    Ok(Some(Frame { first, body: &bytes[1 + used..end], bytes: &bytes[..end] }))
}

/// A variable byte integer and how many bytes it took: `None` while it is not complete.
fn read_variable_integer(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 { Err(Malformed("a length of more than four bytes")) } else { Ok(None) }
}

/// Appends a variable byte integer.
pub fn put_variable_integer(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

/// Takes fields off the front of a packet's body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("it ends inside a field"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn integer(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.integer()?;
        self.take(usize::from(length))
    }

    fn variable_integer(&mut self) -> Result<usize, Malformed> {
        let (value, used) = read_variable_integer(self.0)?.ok_or(Malformed("it ends inside a length"))?;
        self.take(used)?;
        Ok(value)
    }

    fn properties(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.variable_integer()?;
        self.take(length)
    }
}

/// What a CONNECT asks for.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    pub version: Version,
    pub client_id: &'a [u8],
    /// Clean session (3.1.1) or clean start (5.0).
    pub clean: bool,
    pub keep_alive_s: u16,
    /// How long the session outlives the connection; 5.0 only. 3.1.1 says the same with `clean`.
    pub session_expiry_s: u32,
}

/// What the server is to publish when the connection ends without DISCONNECT. At QoS 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retain: bool,
}

/// Appends a CONNECT, with a will if there is one.
pub fn encode_connect(out: &mut Vec<u8>, connect: &Connect<'_>, will: Option<&Will>) {
    let properties: usize = match connect.version {
        Version::V311 => 0,
        Version::V5 if connect.session_expiry_s == 0 => 1,
        Version::V5 => 6,
    };
    let will_properties = usize::from(connect.version == Version::V5);
    let will_bytes = will.map_or(0, |will| will_properties + 4 + will.topic.len() + will.payload.len());
    out.push(kind::CONNECT << 4);
    put_variable_integer(out, 10 + properties + 2 + connect.client_id.len() + will_bytes);
    put_string(out, b"MQTT");
    out.push(match connect.version {
        Version::V311 => 4,
        Version::V5 => 5,
    });
    let will_flags = will.map_or(0, |will| if will.retain { 0x24 } else { 0x04 });
    out.push(if connect.clean { 0x02 } else { 0 } | will_flags);
    out.extend_from_slice(&connect.keep_alive_s.to_be_bytes());
    if properties > 0 {
        out.push(properties as u8 - 1);
    }
    if properties > 1 {
        out.push(0x11);
        out.extend_from_slice(&connect.session_expiry_s.to_be_bytes());
    }
    put_string(out, connect.client_id);
    if let Some(will) = will {
        out.resize(out.len() + will_properties, 0);
        put_string(out, will.topic.as_bytes());
        put_string(out, &will.payload);
    }
}

/// The protocol level a CONNECT asks for; the rest of it does not matter to the floor.
pub fn parse_connect_version(frame: &Frame<'_>) -> Result<Version, Malformed> {
    let mut reader = Reader(frame.body);
    if reader.string()? != b"MQTT" {
        return Err(Malformed("not an MQTT CONNECT"));
    }
    match reader.byte()? {
        4 => Ok(Version::V311),
        5 => Ok(Version::V5),
        _ => Err(Malformed("a protocol level other than 4 and 5")),
    }
}

/// A server's answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connack {
    pub session_present: bool,
    /// 0 is success in both versions.
    pub reason: u8,
    /// How many QoS 1 and 2 messages the server takes at once.
    pub receive_maximum: u16,
}

/// Appends the CONNACK of a server that accepts.
pub fn encode_connack(out: &mut Vec<u8>, version: Version) {
    match version {
        Version::V311 => out.extend_from_slice(&[kind::CONNACK << 4, 2, 0, 0]),
        Version::V5 => out.extend_from_slice(&[kind::CONNACK << 4, 3, 0, 0, 0]),
    }
}

/// Reads a CONNACK.
pub fn parse_connack(frame: &Frame<'_>, version: Version) -> Result<Connack, Malformed> {
    let mut reader = Reader(frame.body);
    let session_present = reader.byte()? & 1 == 1;
    let reason = reader.byte()?;
    let mut receive_maximum = u16::MAX;
    // A server that refuses may answer a 5.0 CONNECT with the short form.
    if version == Version::V5 && !reader.0.is_empty() {
        let mut properties = Reader(reader.properties()?);
        while !properties.0.is_empty() {
            if let Some(value) = next_receive_maximum(&mut properties)? {
                receive_maximum = value;
            }
        }
    }
    Ok(Connack { session_present, reason, receive_maximum })
}

/// Steps over one property; the value if it is Receive Maximum.
fn next_receive_maximum(properties: &mut Reader<'_>) -> Result<Option<u16>, Malformed> {
    match properties.byte()? {
        0x21 => return properties.integer().map(Some),
        0x13 | 0x22 => drop(properties.integer()?),
        0x24 | 0x25 | 0x28 | 0x29 | 0x2a => drop(properties.byte()?),
        0x11 | 0x27 => drop(properties.take(4)?),
        0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => drop(properties.string()?),
        0x26 => {
            properties.string()?;
            properties.string()?;
        }
        _ => return Err(Malformed("a property that CONNACK does not have")),
    }
    Ok(None)
}

/// Appends a SUBSCRIBE of one filter.
pub fn encode_subscribe(out: &mut Vec<u8>, version: Version, packet_id: u16, filter: &[u8], qos: u8) {
    let properties = usize::from(version == Version::V5);
    out.push(kind::SUBSCRIBE << 4 | 2);
    put_variable_integer(out, 2 + properties + 2 + filter.len() + 1);
    out.extend_from_slice(&packet_id.to_be_bytes());
    if properties > 0 {
        out.push(0);
    }
    put_string(out, filter);
    out.push(qos);
}

/// Appends an UNSUBSCRIBE of one filter.
pub fn encode_unsubscribe(out: &mut Vec<u8>, version: Version, packet_id: u16, filter: &[u8]) {
    let properties = usize::from(version == Version::V5);
    out.push(kind::UNSUBSCRIBE << 4 | 2);
    put_variable_integer(out, 2 + properties + 2 + filter.len());
    out.extend_from_slice(&packet_id.to_be_bytes());
    if properties > 0 {
        out.push(0);
    }
    put_string(out, filter);
}

/// A SUBSCRIBE's packet identifier; `each` gets every filter with its options byte.
pub fn parse_subscribe<'a>(
    frame: &Frame<'a>,
    version: Version,
    mut each: impl FnMut(&'a [u8], u8),
) -> Result<u16, Malformed> {
    let mut reader = Reader(frame.body);
    let packet_id = reader.integer()?;
    if version == Version::V5 {
        reader.properties()?;
    }
    while !reader.0.is_empty() {
        let filter = reader.string()?;
        each(filter, reader.byte()?);
    }
    Ok(packet_id)
}

/// Appends a SUBACK with one reason code per filter.
pub fn encode_suback(out: &mut Vec<u8>, version: Version, packet_id: u16, reasons: &[u8]) {
    let properties = usize::from(version == Version::V5);
    out.push(kind::SUBACK << 4);
    put_variable_integer(out, 2 + properties + reasons.len());
    out.extend_from_slice(&packet_id.to_be_bytes());
    if properties > 0 {
        out.push(0);
    }
    out.extend_from_slice(reasons);
}

/// The reason code of a SUBACK that answers one filter: the granted QoS, or 0x80 and above.
pub fn parse_suback(frame: &Frame<'_>, version: Version) -> Result<u8, Malformed> {
    let mut reader = Reader(frame.body);
    reader.integer()?;
    if version == Version::V5 {
        reader.properties()?;
    }
    reader.byte()
}

/// A PUBLISH, borrowed from its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    pub qos: u8,
    pub topic: &'a [u8],
    /// 0 at QoS 0.
    pub packet_id: u16,
    pub payload: &'a [u8],
}

/// Appends a PUBLISH without properties.
pub fn encode_publish(out: &mut Vec<u8>, version: Version, publish: &Publish<'_>) {
    let properties = usize::from(version == Version::V5);
    let id_bytes = if publish.qos > 0 { 2 } else { 0 };
    out.push(kind::PUBLISH << 4 | publish.qos << 1);
    put_variable_integer(out, 2 + publish.topic.len() + id_bytes + properties + publish.payload.len());
    put_string(out, publish.topic);
    if publish.qos > 0 {
        out.extend_from_slice(&publish.packet_id.to_be_bytes());
    }
    if properties > 0 {
        out.push(0);
    }
    out.extend_from_slice(publish.payload);
}

/// Appends a PUBLISH of 5.0 that expires so many seconds after it was received.
pub fn encode_publish_expiring(out: &mut Vec<u8>, publish: &Publish<'_>, expiry_s: u32) {
    let id_bytes = if publish.qos > 0 { 2 } else { 0 };
    out.push(kind::PUBLISH << 4 | publish.qos << 1);
    put_variable_integer(out, 2 + publish.topic.len() + id_bytes + 6 + publish.payload.len());
    put_string(out, publish.topic);
    if publish.qos > 0 {
        out.extend_from_slice(&publish.packet_id.to_be_bytes());
    }
    out.extend_from_slice(&[5, 0x02]);
    out.extend_from_slice(&expiry_s.to_be_bytes());
    out.extend_from_slice(publish.payload);
}

/// Reads a PUBLISH; properties are stepped over.
pub fn parse_publish<'a>(frame: &Frame<'a>, version: Version) -> Result<Publish<'a>, Malformed> {
    let qos = frame.first >> 1 & 3;
    if qos == 3 {
        return Err(Malformed("QoS 3"));
    }
    let mut reader = Reader(frame.body);
    let topic = reader.string()?;
    let packet_id = if qos > 0 { reader.integer()? } else { 0 };
    if version == Version::V5 {
        reader.properties()?;
    }
    Ok(Publish { qos, topic, packet_id, payload: reader.0 })
}

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP with success: the same four bytes in both versions.
pub fn encode_ack(out: &mut Vec<u8>, ack_kind: u8, packet_id: u16) {
    let flags = if ack_kind == kind::PUBREL { 2 } else { 0 };
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[ack_kind << 4 | flags, 2, high, low]);
}

/// The packet identifier and reason code of PUBACK, PUBREC, PUBREL or PUBCOMP.
pub fn parse_ack(frame: &Frame<'_>) -> Result<(u16, u8), Malformed> {
    let mut reader = Reader(frame.body);
    let packet_id = reader.integer()?;
    let reason = if reader.0.is_empty() { 0 } else { reader.byte()? };
    Ok((packet_id, reason))
}

/// Appends a packet that is only a fixed header: PINGREQ, PINGRESP or DISCONNECT.
pub fn encode_empty(out: &mut Vec<u8>, packet_kind: u8) {
    out.extend_from_slice(&[packet_kind << 4, 0]);
}

#[cfg(test)]
mod tests;
