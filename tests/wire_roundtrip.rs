//! The codec as a whole: what is decoded, encoded and decoded again is the same; framing works at every split; no
//! bytes make it panic. Packets come from `packets`, which does not use our encoder.

mod packets;

use ironpost::wire::frame::{Peek, peek};
use ironpost::wire::{PacketType, Version, decode};
use packets::check::{read_all, round_trip};
use packets::{Choices, damaged, valid};
use proptest::collection::vec;
use proptest::prelude::*;

const MAX: u32 = 1 << 20;
const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_valid_packet_is_taken_and_survives_the_round_trip(choices in vec(any::<u8>(), 0..120), version in 0_usize..3) {
        let version = VERSIONS[version];
        let frame = valid(&mut Choices::new(&choices), version, true);
        let packet = decode::packet(&frame, Some(version)).expect("valid");
        read_all(&packet);
        round_trip(&frame, &packet, version);
        let first = if packet.packet_type() == PacketType::Connect { Some(packet) } else { None };
        prop_assert_eq!(decode::packet(&frame, None).ok(), first, "only CONNECT comes first");
    }

    #[test]
    fn damage_is_refused_or_means_something_else(choices in vec(any::<u8>(), 0..120), version in 0_usize..3) {
        let version = VERSIONS[version];
        let mut choices = Choices::new(&choices);
        let frame = valid(&mut choices, version, true);
        let frame = damaged(&mut choices, &frame);
        match decode::packet(&frame, Some(version)) {
            Ok(packet) => {
                read_all(&packet);
                round_trip(&frame, &packet, version);
            }
            Err(error) => prop_assert!(error.reason.is_failure()),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300), version in 0_usize..3, first in any::<u8>()) {
        let version = VERSIONS[version];
        let _ = peek(&bytes, MAX);
        for frame in [bytes.clone(), packets::framed(first, &bytes)] {
            for version in [None, Some(version)] {
                if let Ok(packet) = decode::packet(&frame, version) {
                    read_all(&packet);
                }
            }
            let _ = decode::announced_version(&frame);
        }
    }

    #[test]
    fn a_stream_is_cut_into_the_same_packets_however_it_arrives(
        packets in vec(vec(any::<u8>(), 0..60), 1..5), version in 0_usize..3
    ) {
        let version = VERSIONS[version];
        let frames: Vec<Vec<u8>> =
            packets.iter().map(|choices| valid(&mut Choices::new(choices), version, true)).collect();
        let stream = frames.concat();
        // Every prefix of the stream, as if it had arrived up to there.
        for arrived in 0..=stream.len() {
            let mut rest = &stream[..arrived];
            let mut found = 0;
            let need = loop {
                match peek(rest, MAX).expect("valid") {
                    Peek::Complete { len } => {
                        prop_assert_eq!(&rest[..len], frames[found].as_slice());
                        found += 1;
                        rest = &rest[len..];
                    }
                    Peek::Incomplete { need } => break need,
                }
            };
            prop_assert!(need > rest.len());
            if let Some(next) = frames.get(found) {
                prop_assert!(need <= next.len(), "never waits for more than the packet");
                prop_assert!(need == next.len() || rest.len() < 5, "knows the length once the header is there");
            }
        }
    }
}
