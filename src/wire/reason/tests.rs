//! The table of reason codes against the standard's.

use super::*;

/// Table 2-6 of the standard, by hand: CONNACK `c`, PUBACK `4`, PUBREC `5`, PUBREL `6`, PUBCOMP `7`, SUBACK `s`,
/// UNSUBACK `u`, DISCONNECT `D`, AUTH `A`.
const STANDARD: &str = "00 c4567suDA|01 s|02 s|04 D|10 45|11 u|18 A|19 A|80 c45suD|81 cD|82 cD|83 c45suD|84 c|85 c|86 c\
    |87 c45suD|88 c|89 cD|8A c|8B D|8C cD|8D D|8E D|8F suD|90 c45D|91 45su|92 67|93 D|94 D|95 cD|96 D|97 c45sD|98 D\
    |99 c45D|9A cD|9B cD|9C cD|9D cD|9E sD|9F cD|A0 D|A1 sD|A2 sD";

const PACKETS: [(char, PacketType); 9] = [
    ('c', PacketType::Connack),
    ('4', PacketType::Puback),
    ('5', PacketType::Pubrec),
    ('6', PacketType::Pubrel),
    ('7', PacketType::Pubcomp),
    ('s', PacketType::Suback),
    ('u', PacketType::Unsuback),
    ('D', PacketType::Disconnect),
    ('A', PacketType::Auth),
];

#[test]
fn each_reason_stands_exactly_where_the_standard_lets_it() {
    let mut table = Vec::new();
    for value in 0..=255 {
        let packets: String = PACKETS
            .iter()
            .filter(|(_, packet)| ReasonCode::decode(value, *packet).is_ok())
            .map(|(letter, _)| *letter)
            .collect();
        if !packets.is_empty() {
            table.push(format!("{value:02X} {packets}"));
        }
    }
    assert_eq!(table.join("|"), STANDARD);
    assert_eq!(table.len(), ReasonCode::ALL.len());
}

#[test]
fn return_codes_of_v3_survive_the_way_there_and_back() {
    for code in 0..=5 {
        assert_eq!(ReasonCode::from_connack_code_v3(code).map(ReasonCode::connack_code_v3), Some(code));
    }
    assert_eq!(ReasonCode::from_connack_code_v3(6), None);
    for &reason in ReasonCode::ALL {
        assert_eq!(reason.connack_code_v3() != 0, reason != ReasonCode::Success, "{reason}");
    }
}

#[test]
fn reasons_read_the_same_from_codes_and_from_bytes() {
    let codes = [ReasonCode::GrantedQoS2, ReasonCode::UnspecifiedError];
    let (given, decoded) = (Reasons::from(&codes), Reasons::from_wire(&[0x02, 0x80]));
    assert_eq!(given, decoded);
    assert_eq!((given.len(), decoded.len(), Reasons::NONE.is_empty()), (2, 2, true));
    assert_ne!(given, Reasons::from(&codes[..1]));
}
