//! Packets of a client as bytes, written out by hand: the encoder under test is not asked.

/// PINGREQ.
pub(super) const PINGREQ: [u8; 2] = [0xC0, 0];
/// PINGRESP.
pub(super) const PINGRESP: [u8; 2] = [0xD0, 0];
/// DISCONNECT of a client that leaves in peace.
pub(super) const DISCONNECT: [u8; 2] = [0xE0, 0];
/// CONNACK of version 3.1.1: accepted, no session.
pub(super) const CONNACK_V3: [u8; 4] = [0x20, 2, 0, 0];

/// What a CONNECT says of the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    Clean,
    Kept,
}

pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let digit = (rest % 128) as u8;
        rest /= 128;
        bytes.push(if rest > 0 { digit | 0x80 } else { digit });
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn push_string(body: &mut Vec<u8>, string: &str) {
    body.extend_from_slice(&(string.len() as u16).to_be_bytes());
    body.extend_from_slice(string.as_bytes());
}

/// CONNECT with any protocol name and level, keep alive in seconds, and properties as they stand on the wire.
pub(super) fn connect_as(
    protocol: (&str, u8),
    client_id: &str,
    start: Start,
    keep_alive: u16,
    properties: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    push_string(&mut body, protocol.0);
    body.push(protocol.1);
    body.push(if start == Start::Clean { 2 } else { 0 });
    body.extend_from_slice(&keep_alive.to_be_bytes());
    body.extend_from_slice(properties);
    push_string(&mut body, client_id);
    packet(0x10, &body)
}

/// CONNECT of version 3.1.1.
pub(super) fn connect_v3(client_id: &str, start: Start, keep_alive: u16) -> Vec<u8> {
    connect_as(("MQTT", 4), client_id, start, keep_alive, &[])
}

/// CONNECT of version 5; a session that is kept expires after an hour.
pub(super) fn connect_v5(client_id: &str, start: Start, keep_alive: u16) -> Vec<u8> {
    let properties: &[u8] = if start == Start::Kept { &[5, 0x11, 0, 0, 0x0E, 0x10] } else { &[0] };
    connect_as(("MQTT", 5), client_id, start, keep_alive, properties)
}

/// SUBSCRIBE to one filter, version 3.1.1.
pub(super) fn subscribe_v3(packet_id: u16, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    push_string(&mut body, filter);
    body.push(qos);
    packet(0x82, &body)
}

/// PUBLISH of version 3.1.1; a packet id of 0 makes it QoS 0, any other QoS 1.
pub(super) fn publish_v3(packet_id: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    push_string(&mut body, topic);
    if packet_id != 0 {
        body.extend_from_slice(&packet_id.to_be_bytes());
    }
    body.extend_from_slice(payload);
    packet(if packet_id == 0 { 0x30 } else { 0x32 }, &body)
}

/// PUBLISH of version 5 at QoS 1 that expires after so many seconds.
pub(super) fn publish_expiring(packet_id: u16, topic: &str, expiry_s: u32, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    push_string(&mut body, topic);
    body.extend_from_slice(&packet_id.to_be_bytes());
    body.extend_from_slice(&[5, 0x02]);
    body.extend_from_slice(&expiry_s.to_be_bytes());
    body.extend_from_slice(payload);
    packet(0x32, &body)
}

/// PUBLISH of version 5 at QoS 0 with properties as they stand on the wire, fewer than 128 bytes.
pub(super) fn publish_with(topic: &str, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    push_string(&mut body, topic);
    body.push(properties.len() as u8);
    body.extend_from_slice(properties);
    body.extend_from_slice(payload);
    packet(0x30, &body)
}

/// PUBACK, as every version may send it and 3.1.1 does.
pub(super) fn puback(packet_id: u16) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    vec![0x40, 2, high, low]
}

/// SUBACK of version 3.1.1 for one filter.
pub(super) fn suback_v3(packet_id: u16, code: u8) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    vec![0x90, 3, high, low, code]
}

/// The packet id of a QoS 1 PUBLISH.
pub(super) fn packet_id_of(publish: &[u8]) -> u16 {
    assert_eq!(publish[0] & 0xF6, 0x32, "a PUBLISH of QoS 1: {publish:02x?}");
    let body = publish[1..].iter().position(|byte| byte & 0x80 == 0).expect("a whole packet") + 2;
    let topic = usize::from(u16::from_be_bytes([publish[body], publish[body + 1]]));
    u16::from_be_bytes([publish[body + 2 + topic], publish[body + 3 + topic]])
}
