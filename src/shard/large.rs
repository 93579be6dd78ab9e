//! A large PUBLISH, received into the place where its message stays.
//!
//! A packet is parsed where it was received, and its message copied from there. For one of a megabyte that copy would
//! be the longest thing that a turn does, and everybody else waits for it. So as soon as the fields before the payload
//! are there, the message's place is made, and what follows goes there as it comes, a receive in a turn. Decides
//! nothing but that; called by `inbound`.
//!
//! `unsafe`: the place is not written before it is filled, or that would be the long turn.

use std::mem::MaybeUninit;
use std::sync::Arc;

use crate::limits::LARGE_PACKET_BYTES_MIN;
use crate::wire::{DecodeError, Packet, Version, decode};

/// The part of it that has come.
#[derive(Debug)]
pub struct Large {
    /// The packet up to its payload.
    head: Vec<u8>,
    version: Version,
    /// Topic, forwarded properties, payload.
    body: Arc<[MaybeUninit<u8>]>,
    payload_from: usize,
    filled: usize,
}

/// All of it.
#[derive(Debug)]
pub struct Whole {
    head: Vec<u8>,
    version: Version,
    /// For a `Content`, which checks that the topic is at its front.
    pub body: Arc<[u8]>,
    payload_from: usize,
}

impl Large {
    /// From the first bytes of a packet of that length; `None` if it is to be collected like any other: it is no PUBLISH,
    /// is not large, its fields have not all come or are wrong, or its topic is an alias, which here nobody knows.
    pub fn begin(bytes: &[u8], packet_len: usize, version: Version) -> Option<Large> {
        if packet_len < LARGE_PACKET_BYTES_MIN {
            return None;
        }
        let publish = decode::publish_begun(bytes, version).ok()?;
        if publish.topic.is_empty() {
            return None;
        }
        let head_len = bytes.len() - publish.payload.len();
        let payload_from = publish.topic.len() + publish.forward.forwarded_len();
        let mut large = Large {
            head: bytes[..head_len].to_vec(),
            version,
            body: Arc::new_uninit_slice(payload_from + (packet_len - head_len)),
            payload_from,
            filled: 0,
        };
        large.put(publish.topic.as_bytes());
        publish.forward.forwarded().for_each(|part| large.put(part));
        large.put(publish.payload);
        Some(large)
    }

    /// Takes what it lacks from the front of `input`.
    pub fn take(&mut self, input: &mut &[u8]) {
        let (taken, rest) = input.split_at(input.len().min(self.body.len() - self.filled));
        self.put(taken);
        *input = rest;
    }

    fn put(&mut self, bytes: &[u8]) {
        let body = Arc::get_mut(&mut self.body).expect("nobody else has it yet");
        body[self.filled..self.filled + bytes.len()].write_copy_of_slice(bytes);
        self.filled += bytes.len();
    }

    /// Whether all of it has come.
    pub fn is_whole(&self) -> bool {
        self.filled == self.body.len()
    }

    /// All of it.
    pub fn whole(self) -> Whole {
        assert!(self.is_whole(), "nothing is read that has not come");
        // SAFETY: `put` has written every byte up to `filled`, which is all.
        let body = unsafe { self.body.assume_init() };
        Whole { head: self.head, version: self.version, body, payload_from: self.payload_from }
    }
}

impl Whole {
    /// The packet.
    pub fn packet(&self) -> Result<Packet<'_>, DecodeError> {
        let mut publish = decode::publish_begun(&self.head, self.version)?;
        publish.payload = &self.body[self.payload_from..];
        decode::check_payload(&publish)?;
        Ok(Packet::Publish(publish))
    }

    /// Its bytes as they came, in two parts.
    pub fn frame(&self) -> [&[u8]; 2] {
        [&self.head, &self.body[self.payload_from..]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Properties, Publish, QoS, encode};

    static PAYLOAD: [u8; LARGE_PACKET_BYTES_MIN] = [7; LARGE_PACKET_BYTES_MIN];

    /// A user property (a: b), and the same behind a message expiry interval of 9 s.
    const USER: [u8; 7] = [0x26, 0, 1, b'a', 0, 1, b'b'];

    fn packet(version: Version) -> Vec<u8> {
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: "large",
            packet_id: std::num::NonZeroU16::new(5),
            message_expiry: version.is_v5().then_some(9),
            topic_alias: None,
            subscription_ids: &[],
            carries_subscription_id: false,
            forward: if version.is_v5() { Properties::from_stored(&USER) } else { Properties::EMPTY },
            payload: &PAYLOAD,
        };
        let mut bytes = Vec::new();
        encode::packet(&Packet::Publish(publish), version, &mut bytes);
        bytes
    }

    fn begin(bytes: &[u8], begun: usize, version: Version) -> Option<Large> {
        Large::begin(&bytes[..begun], bytes.len(), version)
    }

    #[test]
    fn wherever_it_is_cut_it_is_the_packet_that_was_sent_and_its_body_is_in_one_piece() {
        for version in [Version::V31, Version::V311, Version::V5] {
            let bytes = packet(version);
            let head_len = bytes.len() - PAYLOAD.len();
            let forwarded: &[u8] = if version.is_v5() { &USER } else { &[] };
            for begun in (head_len..head_len + 3).chain([bytes.len() - 1, bytes.len()]) {
                let mut large = begin(&bytes, begun, version).unwrap();
                let followed = [&bytes[begun..], &[0xC0, 0]].concat();
                for mut piece in followed.chunks(16_000) {
                    assert!(!piece.is_empty() && !large.is_whole() || begun >= bytes.len() - 1);
                    large.take(&mut piece);
                    assert!(piece.is_empty() || piece == [0xC0, 0], "no more than it lacks");
                }
                let whole = large.whole();
                assert_eq!(whole.frame().concat(), bytes);
                assert_eq!(whole.packet().unwrap(), decode::packet(&bytes, Some(version)).unwrap());
                assert_eq!(*whole.body, *[b"large", forwarded, &PAYLOAD].concat());
            }
        }
    }

    #[test]
    fn what_is_not_whole_before_its_payload_or_not_large_is_collected_like_any_other() {
        // limits::LARGE_PACKET_BYTES_MIN
        let bytes = packet(Version::V5);
        for begun in 0..bytes.len() - PAYLOAD.len() {
            assert!(begin(&bytes, begun, Version::V5).is_none(), "{begun}");
        }
        assert!(Large::begin(&bytes[..100], LARGE_PACKET_BYTES_MIN - 1, Version::V5).is_none());
        assert!(Large::begin(&bytes[..100], LARGE_PACKET_BYTES_MIN, Version::V5).is_some());
        // SUBSCRIBE of that length, QoS 3, packet id 0.
        for (place, wrong) in [(0, 0x82), (0, 0x36), (12, 0)] {
            let mut bytes = bytes.clone();
            bytes[place] = wrong;
            assert!(begin(&bytes, 100, Version::V5).is_none(), "{wrong} at {place}");
        }
    }
}
