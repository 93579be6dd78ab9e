//! Where one packet ends in a stream that arrives in pieces.
//!
//! Decides from the fixed header alone, so that a peer that sends nonsense, or announces more than it may, is
//! refused before its bytes are collected. Called for every packet by whoever owns the receive buffer.

use super::bytes::{self, Variable};
use super::error::DecodeError;
use super::packet::PacketType;
use super::reason::ReasonCode;

/// The whole of a PINGREQ, and of its answer.
pub(super) const PINGREQ: [u8; 2] = [0xC0, 0];
pub(super) const PINGRESP: [u8; 2] = [0xD0, 0];

/// What is at the front of a receive buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peek {
    /// The start of a packet.
    Incomplete {
        /// Bytes the buffer must hold before it is worth looking again: the packet's length once its header is
        /// there, one more than now before.
        need: usize,
    },
    /// A whole packet; give these bytes to [`super::decode::packet`].
    Complete {
        /// Its length, fixed header included.
        len: usize,
    },
}

/// Looks at the front of what was received.
///
/// Fails with 0x81 for a first byte that starts no packet `[MQTT-2.1.3-1]` or a remaining length of more than four
/// bytes, and with 0x95 as soon as the header announces more than `packet_bytes_max` bytes, header included.
#[inline]
pub fn peek(bytes: &[u8], packet_bytes_max: u32) -> Result<Peek, DecodeError> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(Peek::Incomplete { need: 1 }) };
    if !starts_a_packet(first) {
        return Err(DecodeError::malformed("first byte starts no packet"));
    }
    let len = match bytes::variable(rest) {
        Variable::Value { value, len, .. } => 1 + len + value as usize,
        Variable::Incomplete => return Ok(Peek::Incomplete { need: bytes.len() + 1 }),
        Variable::TooLong => return Err(DecodeError::malformed("remaining length of more than four bytes")),
    };
    if len > packet_bytes_max as usize {
        return Err(DecodeError::new(ReasonCode::PacketTooLarge, "packet larger than agreed"));
    }
    Ok(if bytes.len() < len { Peek::Incomplete { need: len } } else { Peek::Complete { len } })
}

/// The type of a packet from its first byte; `None` for type 0.
#[inline]
pub(super) fn packet_type(first: u8) -> Option<PacketType> {
    Some(match first >> 4 {
        1 => PacketType::Connect,
        2 => PacketType::Connack,
        3 => PacketType::Publish,
        4 => PacketType::Puback,
        5 => PacketType::Pubrec,
        6 => PacketType::Pubrel,
        7 => PacketType::Pubcomp,
        8 => PacketType::Subscribe,
        9 => PacketType::Suback,
        10 => PacketType::Unsubscribe,
        11 => PacketType::Unsuback,
        12 => PacketType::Pingreq,
        13 => PacketType::Pingresp,
        14 => PacketType::Disconnect,
        15 => PacketType::Auth,
        _ => return None,
    })
}

/// Whether some version has a packet with that first byte.
///
/// PUBREL, SUBSCRIBE and UNSUBSCRIBE carry 0b0010; MQTT 3.1 also knows them repeated, with the DUP bit. `decode`,
/// which knows the version, is exact.
#[inline]
fn starts_a_packet(first: u8) -> bool {
    let flags = first & 0x0F;
    match first >> 4 {
        0 => false,
        // QoS 3 [MQTT-3.3.1-4]; DUP at QoS 0 [MQTT-3.3.1-2].
        3 => flags & 0x06 != 0x06 && flags & 0x0E != 0x08,
        6 | 8 | 10 => flags & 0x07 == 0x02,
        _ => flags == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u32 = 1 << 20;

    #[test]
    fn a_packet_is_found_whatever_piece_of_it_is_there() {
        // 321 = 0x41 + 2 * 128: the example of section 1.5.5.
        let mut bytes = vec![0x30, 0xC1, 0x02];
        bytes.resize(3 + 321, 7);
        assert_eq!(peek(&[], MAX), Ok(Peek::Incomplete { need: 1 }));
        assert_eq!(peek(&bytes[..1], MAX), Ok(Peek::Incomplete { need: 2 }));
        assert_eq!(peek(&bytes[..2], MAX), Ok(Peek::Incomplete { need: 3 }));
        for end in 3..bytes.len() {
            assert_eq!(peek(&bytes[..end], MAX), Ok(Peek::Incomplete { need: 324 }), "at {end}");
        }
        assert_eq!(peek(&bytes, MAX), Ok(Peek::Complete { len: 324 }));
        bytes.extend([0xC0, 0]);
        assert_eq!(peek(&bytes, MAX), Ok(Peek::Complete { len: 324 }));
        assert_eq!(peek(&bytes[324..], MAX), Ok(Peek::Complete { len: 2 }));
    }

    #[test]
    fn too_large_is_said_as_soon_as_the_header_is_there() {
        let reason = |bytes: &[u8], max| peek(bytes, max).map_err(|error| error.reason);
        assert_eq!(reason(&[0x30, 0x80], 100), Ok(Peek::Incomplete { need: 3 }));
        assert_eq!(reason(&[0x30, 98], 100), Ok(Peek::Incomplete { need: 100 }));
        assert_eq!(reason(&[0x30, 99], 100), Err(ReasonCode::PacketTooLarge));
        assert_eq!(
            reason(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], u32::MAX),
            Ok(Peek::Incomplete { need: 268_435_460 })
        );
    }

    #[test]
    fn a_remaining_length_of_five_bytes_is_malformed_at_the_fourth() {
        let reason = |bytes: &[u8]| peek(bytes, MAX).map_err(|error| error.reason);
        assert_eq!(reason(&[0x30, 0xFF, 0xFF, 0xFF]), Ok(Peek::Incomplete { need: 5 }));
        assert_eq!(reason(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF]), Err(ReasonCode::MalformedPacket));
        assert_eq!(reason(&[0x30, 0x80, 0x80, 0x80, 0x80, 0x01]), Err(ReasonCode::MalformedPacket));
    }

    #[test]
    fn reserved_flags_are_refused_at_the_first_byte() {
        let allowed: Vec<u8> = (0..=255).filter(|&first| peek(&[first], MAX).is_ok()).collect();
        let expected = [
            0x10, 0x20, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3A, 0x3B, 0x3C, 0x3D, 0x40, 0x50, 0x62, 0x6A,
            0x70, 0x82, 0x8A, 0x90, 0xA2, 0xAA, 0xB0, 0xC0, 0xD0, 0xE0, 0xF0,
        ];
        assert_eq!(allowed, expected);
    }
}
