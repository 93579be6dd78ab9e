//! Holds the reader of PROXY headers against the specification's examples, an independent encoder, and its own invariants.

use std::net::SocketAddr;

use ppp::{v1, v2};
use proptest::prelude::*;

use super::*;

fn done(taken: usize, source: &str) -> Result<Progress, ProxyError> {
    let source = source.parse().map_or(Source::Itself, Source::Address);
    Ok(Progress::Done { taken, source })
}

/// Version 2, with that command, family and block.
fn block(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a block").to_be_bytes();
    [SIGNATURE.as_slice(), &[command, family], &length, rest].concat()
}

/// 192.0.2.7:513 to 198.51.100.1:8883.
const IPV4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 2, 1, 0x22, 0xB3];

fn ipv6(source: &str) -> Vec<u8> {
    let source: Ipv6Addr = source.parse().expect("an address");
    [&source.octets()[..], &Ipv6Addr::LOCALHOST.octets(), &[2, 1, 0x22, 0xB3]].concat()
}

/// With a checksum in front of a field that is skipped.
fn with_checksum() -> Vec<u8> {
    let mut header = block(0x21, 0x11, &[&IPV4[..], &[3, 0, 4, 0, 0, 0, 0, 4, 0, 1, 9]].concat());
    let checksum = crc32c::crc32c(&header).to_be_bytes();
    header[31..35].copy_from_slice(&checksum);
    header
}

/// Whole headers, and who they say connects.
fn headers() -> Vec<(Vec<u8>, &'static str)> {
    let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(limits::PROXY_LINE_BYTES_MAX - 16));
    let lines = [
        ("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1:56324"),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535"),
        ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0"),
        ("PROXY TCP6 2001:DB8::7 ::1 1 2\r\n", "[2001:db8::7]:1"),
        ("PROXY TCP6 1:2:3:4:5:6:7:8 1:2:3:4:5:6:7:: 1 2\r\n", "[1:2:3:4:5:6:7:8]:1"),
        ("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.8 1 2\r\n", "192.0.2.7:1"),
        ("PROXY TCP6 ::ffff:c000:207 :: 1 2\r\n", "192.0.2.7:1"),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
        ),
        ("PROXY UNKNOWN\r\n", ""),
        ("PROXY UNKNOWN \r\n", ""),
        ("PROXY UNKNOWN a\nb\rc \u{FC}\r\r\n", ""),
        (&longest, ""),
    ];
    let lines = lines.map(|(line, source)| (line.as_bytes().to_vec(), source));
    let blocks = [
        (block(0x21, 0x11, &IPV4), "192.0.2.7:513"),
        (block(0x21, 0x21, &ipv6("2001:db8::7")), "[2001:db8::7]:513"),
        (block(0x21, 0x21, &ipv6("::ffff:192.0.2.7")), "192.0.2.7:513"),
        (block(0x21, 0x31, &[7; 216]), ""),
        (block(0x20, 0x00, &[]), ""),
        // Of LOCAL the family is ignored, and of both the bytes that follow.
        (block(0x20, 0xFF, &[1, 2, 3]), ""),
        (block(0x21, 0x00, &[0xFF; 5]), ""),
        (block(0x21, 0x01, &[]), ""),
        (block(0x21, 0x10, &IPV4), ""),
        (block(0x21, 0x11, &[&IPV4[..], &[1, 0, 4], b"mqtt", &[0xEA, 0, 0]].concat()), "192.0.2.7:513"),
        (block(0x20, 0, &[0; limits::PROXY_BLOCK_BYTES_MAX]), ""),
        (with_checksum(), "192.0.2.7:513"),
    ];
    lines.into_iter().chain(blocks).collect()
}

#[test]
fn whole_headers_are_taken_and_nothing_behind_them() {
    for (header, source) in headers() {
        for behind in ["", "\r", "\r\n", "\u{10}\u{c}", "PROXY TCP4 "] {
            let bytes = [&header[..], behind.as_bytes()].concat();
            assert_eq!(read(&bytes), done(header.len(), source), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn every_part_of_a_header_asks_for_more() {
    for (header, _) in headers() {
        for end in 0..header.len() {
            assert_eq!(
                read(&header[..end]),
                Ok(Progress::More),
                "{:?}",
                String::from_utf8_lossy(&header[..end])
            );
        }
    }
}

/// The last byte is the first that is wrong: without it the rest would do.
#[test]
fn what_is_wrong_is_refused_at_its_first_wrong_byte() {
    let long = "f".repeat(limits::PROXY_LINE_BYTES_MAX - 15);
    let lines = [
        (
            ProxyError::NoHeader,
            "\u{10}|\u{16}|\0|p|A|\n|PA|PROXYT|PROXY\r|\rP|\r\n\r\n\0\r\nQUIT\r".to_owned(),
        ),
        (ProxyError::Protocol, "PROXY  |PROXY \r|PROXY TCP5|PROXY TCP4\r|PROXY u|PROXY UNKNOWNS".to_owned()),
        (
            ProxyError::Address,
            "PROXY TCP4  |PROXY TCP4 :|PROXY TCP4 256|PROXY TCP4 01|PROXY TCP4 1..".to_owned(),
        ),
        (ProxyError::Address, "PROXY TCP4 1.2.3 |PROXY TCP4 1.2.3.4.|PROXY TCP4 1.2.3.4\r".to_owned()),
        (ProxyError::Address, "PROXY TCP4 1.2.3.4  |PROXY TCP4 -|PROXY TCP4 1.2.3.4 a".to_owned()),
        (
            ProxyError::Address,
            "PROXY TCP6 1.|PROXY TCP6 g|PROXY TCP6 :::|PROXY TCP6 ::1::|PROXY TCP6 00000".to_owned(),
        ),
        (
            ProxyError::Address,
            "PROXY TCP6 1:2:3:4:5:6:7 |PROXY TCP6 1:2:3:4:5:6:7:8:|PROXY TCP6 ::1%".to_owned(),
        ),
        (ProxyError::Address, "PROXY TCP6 [|PROXY TCP6 ::256.|PROXY TCP6 ::1.2.3.4.|PROXY TCP6 0000:0000:0000:0000:0000:0000:255.25".to_owned()),
        (ProxyError::Port, "PROXY TCP4 1.2.3.4 5.6.7.8  |PROXY TCP4 1.2.3.4 5.6.7.8 01".to_owned()),
        (ProxyError::Port, "PROXY TCP4 1.2.3.4 5.6.7.8 65536|PROXY TCP4 1.2.3.4 5.6.7.8 1\r".to_owned()),
        (ProxyError::Port, "PROXY TCP4 1.2.3.4 5.6.7.8 1 +|PROXY TCP4 1.2.3.4 5.6.7.8 1 \r".to_owned()),
        (ProxyError::Port, "PROXY TCP4 1.2.3.4 5.6.7.8 1 99999".to_owned()),
        (ProxyError::LineEnd, "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n|PROXY TCP4 1.2.3.4 5.6.7.8 1 2 ".to_owned()),
        (ProxyError::LineEnd, "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r|PROXY UNKNOWN\r\r".to_owned()),
        (ProxyError::LineEnd, format!("PROXY UNKNOWN {long}")),
    ];
    let lines = lines
        .iter()
        .flat_map(|(error, lines)| lines.split('|').map(|line| (*error, line.as_bytes().to_vec())));
    let cut = |mut bytes: Vec<u8>, end| {
        bytes.truncate(end);
        bytes
    };
    let fields = |fields: &[u8]| block(0x21, 0x11, &[&IPV4[..], fields].concat());
    let blocks = [
        (ProxyError::Command, cut(block(0x11, 0x11, &IPV4), 13)),
        (ProxyError::Command, cut(block(0x31, 0x11, &IPV4), 13)),
        (ProxyError::Command, cut(block(0x22, 0x11, &IPV4), 13)),
        (ProxyError::Family, cut(block(0x21, 0x12, &IPV4), 14)),
        (ProxyError::Family, cut(block(0x21, 0x32, &IPV4), 14)),
        (ProxyError::Family, cut(block(0x21, 0x41, &IPV4), 14)),
        (ProxyError::Family, cut(block(0x21, 0x03, &IPV4), 14)),
        (ProxyError::Length, cut(block(0x21, 0x11, &IPV4[..11]), 16)),
        (ProxyError::Length, cut(block(0x21, 0x21, &[0; 35]), 16)),
        (ProxyError::Length, cut(block(0x21, 0x31, &[0; 215]), 16)),
        (ProxyError::Length, cut(block(0x20, 0, &[0; limits::PROXY_BLOCK_BYTES_MAX + 1]), 16)),
        (ProxyError::Length, cut(block(0x20, 0, &[0; limits::PROXY_BLOCK_BYTES_MAX + 256]), 15)),
        (ProxyError::Field, cut(fields(&[4]), 16)),
        (ProxyError::Field, cut(fields(&[4, 0]), 16)),
        (ProxyError::Field, cut(fields(&[4, 0, 1]), 31)),
        (ProxyError::Field, cut(fields(&[4, 1, 0, 0]), 30)),
        (ProxyError::Field, cut(fields(&[4, 0, 1, 0, 4, 0]), 31)),
        (ProxyError::Field, cut(fields(&[3, 0, 3, 0, 0, 0]), 29)),
        (ProxyError::Field, cut(fields(&[3, 0, 4, 0, 0, 0, 0, 9]), 29)),
        (ProxyError::Field, cut(fields(&[3, 0, 5, 0, 0, 0, 0, 0, 9, 9, 9]), 31)),
        (ProxyError::Field, cut(fields(&[3, 0, 4, 0, 0, 0, 0, 3, 0, 4, 0, 0, 0, 0]), 36)),
    ];
    for (error, bytes) in lines.chain(blocks) {
        let shown = String::from_utf8_lossy(&bytes);
        assert_eq!(read(&bytes), Err(error), "{shown:?}");
        assert_eq!(read(&bytes[..bytes.len() - 1]), Ok(Progress::More), "{shown:?} without its last byte");
    }
}

#[test]
fn a_damaged_header_with_a_checksum_is_refused() {
    let header = with_checksum();
    // But for byte 28, the type of the checksum: with another one it is a field that is skipped.
    for at in (SIGNATURE.len()..header.len()).filter(|&at| at != 28) {
        for bit in 0..8 {
            let mut damaged = header.clone();
            damaged[at] ^= 1 << bit;
            let read = read(&damaged);
            assert_ne!(read, done(header.len(), "192.0.2.7:513"), "{at}");
            if (16..28).contains(&at) || at >= 31 {
                assert!(matches!(read, Err(ProxyError::Checksum | ProxyError::Field)), "{at}: {read:?}");
            }
        }
    }
}

/// What follows was computed by hand, with another implementation of CRC-32C than the reader's.
#[test]
fn the_checksum_is_that_of_the_specification() {
    let mut state = u32::MAX;
    let mut header = with_checksum();
    header[31..35].fill(0);
    for byte in &header {
        state ^= u32::from(*byte);
        for _ in 0..8 {
            state = (state >> 1) ^ (0x82F6_3B78 * (state & 1));
        }
    }
    header[31..35].copy_from_slice(&(!state).to_be_bytes());
    assert_eq!(header, with_checksum());
}

/// Bytes that are nearly a header.
fn nearly_a_header() -> impl Strategy<Value = Vec<u8>> {
    let count = headers().len();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 0..4);
    let line = "PROXY (TCP4|TCP6|UNKNOWN)[ \r]?[0-9a-f:. \r\n]{0,110}";
    let bytes = prop_oneof![
        4 => (0..count).prop_map(|index| headers()[index].0.clone()),
        2 => line.prop_map(String::into_bytes),
        1 => (0x1F_u8..0x23, 0_u8..0x34, prop::collection::vec(0_u8..6, 0..60)).prop_map(|(command, family, rest)| {
            block(command, family, &rest)
        }),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    (bytes, changes, any::<prop::sample::Index>()).prop_map(|(mut bytes, changes, end)| {
        for (at, byte, change) in changes {
            let at = at.index(bytes.len() + 1);
            match change {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ if at < bytes.len() => bytes[at] = byte,
                _ => {}
            }
        }
        bytes.truncate(end.index(bytes.len() + 1));
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn what_was_decided_stays_so_whatever_follows(
        bytes in nearly_a_header(),
        more in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let bytes = [bytes, more].concat();
        let mut decided = None;
        for end in 0..=bytes.len() {
            let now = read(&bytes[..end]);
            if let Some(before) = decided {
                prop_assert_eq!(now, before, "with {} bytes", end);
            } else if now != Ok(Progress::More) {
                decided = Some(now);
            }
            if let Ok(Progress::Done { taken, .. }) = now {
                prop_assert!(taken <= end);
                prop_assert_eq!(read(&bytes[..taken - 1]), Ok(Progress::More));
            }
        }
    }

    #[test]
    fn more_is_asked_for_only_where_some_continuation_is_a_header(bytes in nearly_a_header()) {
        if read(&bytes) != Ok(Progress::More) {
            return Ok(());
        }
        // As no beginning is a dead end, the first byte that is not wrong always leads on.
        let mut bytes = bytes;
        let mut progress = Ok(Progress::More);
        while progress == Ok(Progress::More) {
            prop_assert!(bytes.len() < FIXED_BYTES + limits::PROXY_BLOCK_BYTES_MAX);
            let candidates = b"\n\r 0:.".iter().copied().chain(0..=u8::MAX);
            let answers: Vec<_> = candidates.map(|byte| (byte, read(&[&bytes[..], &[byte]].concat()))).collect();
            if answers.iter().any(|(_, answer)| *answer == Err(ProxyError::Checksum)) {
                break;
            }
            let next = answers.into_iter().find(|(_, answer)| answer.is_ok());
            let (byte, answer) = next.ok_or_else(|| TestCaseError::fail(format!("a dead end: {bytes:02X?}")))?;
            bytes.push(byte);
            progress = answer;
        }
    }

    #[test]
    fn an_independent_encoder_is_understood(
        source in any::<SocketAddr>(),
        address in any::<IpAddr>(),
        port in any::<u16>(),
        fields in prop::collection::vec((4_u8.., prop::collection::vec(any::<u8>(), 0..99)), 0..8),
    ) {
        let destination = match (source, address) {
            (SocketAddr::V4(_), IpAddr::V6(_)) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            (SocketAddr::V6(_), IpAddr::V4(_)) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            (_, address) => address,
        };
        let destination = SocketAddr::new(destination, port);
        let expected = Source::Address(SocketAddr::new(source.ip().to_canonical(), source.port()));

        let line = v1::Addresses::from((source, destination)).to_string();
        prop_assert_eq!(read(line.as_bytes()), Ok(Progress::Done { taken: line.len(), source: expected }));

        let command = v2::Version::Two | v2::Command::Proxy;
        let mut builder = v2::Builder::with_addresses(command, v2::Protocol::Stream, (source, destination));
        for (kind, value) in &fields {
            builder = builder.write_tlv(*kind, value).expect("it fits");
        }
        let header = builder.build().expect("it fits");
        prop_assert_eq!(read(&header), Ok(Progress::Done { taken: header.len(), source: expected }));
    }

    /// Not the other way round: the independent decoder takes what the specification does not, like a port with a sign.
    #[test]
    fn what_is_taken_is_taken_by_an_independent_decoder_too(bytes in nearly_a_header()) {
        let Ok(Progress::Done { taken, source: Source::Address(source) }) = read(&bytes) else { return Ok(()) };
        let theirs = match bytes[0] {
            b'P' => match v1::Header::try_from(&bytes[..taken]).expect("a line").addresses {
                v1::Addresses::Tcp4(found) => SocketAddr::from((found.source_address, found.source_port)),
                v1::Addresses::Tcp6(found) => SocketAddr::from((found.source_address, found.source_port)),
                v1::Addresses::Unknown => unreachable!("there is an address"),
            },
            _ => match v2::Header::try_from(&bytes[..taken]).expect("a block").addresses {
                v2::Addresses::IPv4(found) => SocketAddr::from((found.source_address, found.source_port)),
                v2::Addresses::IPv6(found) => SocketAddr::from((found.source_address, found.source_port)),
                _ => unreachable!("there is an address"),
            },
        };
        prop_assert_eq!(source, SocketAddr::new(theirs.ip().to_canonical(), theirs.port()));
    }
}
