//! The table of properties against the standard's, and runs of properties taken apart.

use super::*;

/// Table 2-4 of the standard, by hand: identifier, and the letter of each place in the order of `PLACES`.
const STANDARD: &str = "\
    01 P W|02 P W|03 P W|08 P W|09 P W|0B P S|11 C c D|12 c|13 c|15 C c A|16 C c A|17 C|18 W|19 C|1A c|1C c D\
    |1F c 4 5 6 7 s u D A|21 C c|22 C c|23 P|24 c|25 c|26 C c P W 4 5 6 7 S s U u D A|27 C c|28 c|29 c|2A c";

const PLACES: [(&str, Place); 15] = [
    ("C", Place::Packet(PacketType::Connect)),
    ("c", Place::Packet(PacketType::Connack)),
    ("P", Place::Packet(PacketType::Publish)),
    ("W", Place::Will),
    ("4", Place::Packet(PacketType::Puback)),
    ("5", Place::Packet(PacketType::Pubrec)),
    ("6", Place::Packet(PacketType::Pubrel)),
    ("7", Place::Packet(PacketType::Pubcomp)),
    ("S", Place::Packet(PacketType::Subscribe)),
    ("s", Place::Packet(PacketType::Suback)),
    ("U", Place::Packet(PacketType::Unsubscribe)),
    ("u", Place::Packet(PacketType::Unsuback)),
    ("D", Place::Packet(PacketType::Disconnect)),
    ("A", Place::Packet(PacketType::Auth)),
    ("-", Place::Packet(PacketType::Pingreq)),
];

#[test]
fn each_property_stands_exactly_where_the_standard_lets_it() {
    let mut table = Vec::new();
    for identifier in 0..=255 {
        let places: Vec<&str> = PLACES
            .iter()
            .filter(|(_, place)| allowed_at(identifier, *place))
            .map(|(letter, _)| *letter)
            .collect();
        if !places.is_empty() {
            table.push(format!("{identifier:02X} {}", places.join(" ")));
        }
    }
    assert_eq!(table.join("|"), STANDARD);
    assert_eq!(Property::IDENTIFIERS.len(), 27);
}

#[test]
fn every_property_may_stand_once_and_two_may_repeat() {
    for &identifier in Property::IDENTIFIERS {
        for (_, place) in PLACES.into_iter().filter(|(_, place)| allowed_at(identifier, *place)) {
            // Enough for any form: a byte 1, or one two-byte string, or two; cut to what is read.
            let mut one = Reader::new(b"\0\x01a\0\x01a");
            if matches!(identifier, 0x01 | 0x0B | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2A) {
                one = Reader::new(b"\x01");
            }
            let all = one.rest;
            Property::read(identifier, &mut one).expect("the value is right for its form");
            let used = all.len() - one.rest.len();
            let property = [&[identifier], &all[..used]].concat();
            let judge = |run: &[u8]| {
                let framed = [&[run.len() as u8], run].concat();
                validate(&mut Reader::new(&framed), place, |_| {}).map(|_| ()).map_err(|error| error.reason)
            };
            assert_eq!(judge(&property), Ok(()), "{identifier:02X} {place:?}");
            let repeats = identifier == 0x26 || (identifier == 0x0B && place == PLACES[2].1);
            let twice = if repeats { Ok(()) } else { Err(ReasonCode::ProtocolError) };
            assert_eq!(judge(&[property.clone(), property].concat()), twice, "{identifier:02X} {place:?}");
        }
    }
}

#[test]
fn forwarding_cuts_out_single_hops_wherever_they_stand() {
    let user = b"\x26\0\x01k\0\x01v".as_slice();
    let text = b"\x01\x01".as_slice();
    let hops = [b"\x02\0\0\0\x01".as_slice(), b"\x0B\x80\x01", b"\x18\0\0\0\x01", b"\x23\0\x01"];
    for hop in hops {
        for parts in [
            vec![hop, user, text],
            vec![user, hop, text],
            vec![user, text, hop],
            vec![hop, hop, user, hop, hop, text, hop],
            vec![user, text],
            vec![hop],
            vec![],
        ] {
            let raw = parts.concat();
            let properties = Properties { raw: &raw, hop: parts.contains(&hop) };
            let passing: Vec<u8> =
                parts.iter().filter(|part| **part != hop).copied().flatten().copied().collect();
            assert_eq!(properties.forwarded().collect::<Vec<_>>().concat(), passing);
            assert_eq!(properties.forwarded_len(), passing.len());
            assert!(properties.forwarded().all(|slice| !slice.is_empty()));
            assert_eq!(properties, Properties::from_stored(&passing));
            assert_eq!(properties.iter().count(), parts.len());
        }
    }
}

#[test]
fn equality_asks_for_order_only_within_one_identifier() {
    let properties = |raw: &'static [u8]| Properties { raw, hop: true };
    let one = properties(b"\x26\0\x01a\0\0\x01\x01\x26\0\x01b\0\0");
    assert_eq!(one, properties(b"\x01\x01\x26\0\x01a\0\0\x26\0\x01b\0\0\x23\0\x01"));
    assert_ne!(one, properties(b"\x01\x01\x26\0\x01b\0\0\x26\0\x01a\0\0"));
    assert_ne!(one, properties(b"\x26\0\x01a\0\0\x26\0\x01b\0\0"));
}

#[test]
fn bytes_that_were_never_validated_end_a_walk_and_do_not_panic() {
    for raw in [b"\xFF\x01".as_slice(), b"\x26\0\x09", b"\x02\0", b"\x26\0\0\0\0\x7F"] {
        for hop in [false, true] {
            let properties = Properties { raw, hop };
            assert!(properties.iter().count() <= 1);
            assert!(properties.forwarded().count() <= 2);
        }
    }
}
