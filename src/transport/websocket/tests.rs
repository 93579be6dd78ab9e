//! Bytes as the RFC has them, and as nobody should send them.

use super::*;

/// The opening handshake of RFC 6455 1.3, with our subprotocol.
const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
    Sec-WebSocket-Protocol: chat, mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn session(origins: &[&str]) -> Session {
    Session::new(&Arc::new(Web { origins: origins.iter().map(|origin| (*origin).to_owned()).collect() }))
}

/// What it heard, and whether it goes on.
fn say(session: &mut Session, bytes: &[u8]) -> (Vec<u8>, Result<(), Broken>) {
    let mut plain = Vec::new();
    let result = session.receive(&mut bytes.to_vec(), &mut plain);
    (plain, result)
}

fn sent(session: &mut Session) -> Vec<u8> {
    let mut wire = Vec::new();
    session.send(&[], &mut wire);
    wire
}

fn open() -> Session {
    let mut session = session(&[]);
    assert_eq!(say(&mut session, REQUEST.as_bytes()), (Vec::new(), Ok(())));
    sent(&mut session);
    session
}

/// A masked frame: first byte, payload.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The code of the close frame that these bytes are.
fn code(wire: &[u8]) -> u16 {
    assert_eq!((wire[0], wire[1], wire.len()), (0x88, 2, 4), "{wire:02x?}");
    u16::from_be_bytes([wire[2], wire[3]])
}

#[test]
fn the_request_of_the_rfc_is_answered_as_there_however_it_is_cut() {
    for piece in [1, 2, 100, REQUEST.len()] {
        let mut session = session(&[]);
        for piece in REQUEST.as_bytes().chunks(piece) {
            assert_eq!(sent(&mut session), b"");
            assert_eq!(say(&mut session, piece), (Vec::new(), Ok(())));
        }
        let answer = String::from_utf8(sent(&mut session)).unwrap().to_lowercase();
        assert!(answer.starts_with("http/1.1 101 switching protocols\r\n"), "{answer}");
        assert!(answer.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{answer}");
        assert!(answer.contains("\r\nsec-websocket-protocol: mqtt\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        assert_eq!(session.buffered(), 0);
    }
}

#[test]
fn empty_lines_in_front_and_what_is_beyond_the_bound_are_judged_the_same_however_they_are_cut() {
    let behind_empty_lines = format!("\r\n\r\n\n{REQUEST}");
    let line = "GET / HTTP/1.1\r\n";
    let filled = HTTP_REQUEST_BYTES_MAX - line.len() - 2;
    let beyond = format!("{line}f:{}\r\na: b\r\n\u{1}\r\n\r\n", "x".repeat(filled - 2));
    for (stream, status) in [(behind_empty_lines, "101"), (beyond, "431")] {
        for piece in [1, 4, 5, 1_000, stream.len()] {
            let mut session = session(&[]);
            for piece in stream.as_bytes().chunks(piece) {
                let _refused_or_not = say(&mut session, piece);
            }
            let answer = String::from_utf8(sent(&mut session)).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "pieces of {piece}: {answer}");
        }
    }
}

#[test]
fn a_request_that_will_not_do_is_refused_with_what_is_wrong() {
    let without = |line: &str| REQUEST.replace(&format!("{line}\r\n"), "");
    let long = REQUEST.replace("/chat", &"/".repeat(HTTP_REQUEST_BYTES_MAX));
    for (request, status, word) in [
        ("\x10\x0c\0\x04MQTT\r\n\r\n".to_owned(), "400", "not a request"),
        (REQUEST.replace("GET", "PUT"), "400", "not a request"),
        (REQUEST.replace("HTTP/1.1", "HTTP/1.0"), "400", "not a request"),
        (without("Upgrade: websocket"), "400", "not a request"),
        (without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), "400", "not a request"),
        (REQUEST.replace("Version: 13", "Version: 8"), "426", "Sec-WebSocket-Version: 13"),
        (REQUEST.replace("chat, mqtt", "chat"), "400", "subprotocol"),
        (without("Sec-WebSocket-Protocol: chat, mqtt"), "400", "subprotocol"),
        (REQUEST.replace("example.com\r\nSec", "example.org\r\nSec"), "403", "pages"),
        // limits::HTTP_REQUEST_BYTES_MAX
        (long, "431", "too long"),
    ] {
        let mut session = session(&["HTTP://example.com", "https://b"]);
        let (plain, result) = say(&mut session, request.as_bytes());
        assert!(plain.is_empty() && matches!(result, Err(Broken::Peer(_))), "{request}");
        let answer = String::from_utf8(sent(&mut session)).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(word), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
        assert_eq!(say(&mut session, &frame(0x82, b"more")), (Vec::new(), Ok(())), "nothing more is heard");
        session.close(&mut Vec::new());
        assert_eq!(sent(&mut session), b"");
    }
    for request in [REQUEST.to_owned(), without("Origin: http://example.com")] {
        assert_eq!(say(&mut session(&["http://example.com"]), request.as_bytes()).1, Ok(()));
    }
}

#[test]
fn payloads_are_handed_on_whatever_frames_they_come_in_and_however_these_are_cut() {
    let long: Vec<u8> = (0..70_000_u32).map(|number| (number % 251) as u8).collect();
    let mut stream = REQUEST.as_bytes().to_vec();
    let mut wanted = Vec::new();
    for payload in [&b"Hello"[..], b"", &long[..125], &long[..126], &long] {
        stream.extend(frame(0x82, payload));
        // The same in three frames, the second empty, with a control frame between them.
        let (begin, end) = payload.split_at(payload.len() / 3);
        stream.extend([frame(0x02, begin), frame(0x8A, b"pong"), frame(0, b""), frame(0x80, end)].concat());
        wanted.extend([payload, payload].concat());
    }
    for piece in [1, 3, 1_000, stream.len()] {
        let mut session = session(&[]);
        let mut heard = Vec::new();
        for piece in stream.chunks(piece) {
            session.receive(&mut piece.to_vec(), &mut heard).unwrap();
        }
        assert!(heard == wanted, "in pieces of {piece}");
        sent(&mut session);
        assert_eq!(session.buffered(), 0);
    }
}

#[test]
fn what_is_said_is_one_binary_frame_behind_what_is_owed() {
    let mut session = open();
    // RFC 6455 5.7: a masked "Hello", here as a ping.
    let ping = [0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(say(&mut session, &ping), (Vec::new(), Ok(())));
    assert!(session.wants_to_send());
    let mut wire = Vec::new();
    session.send(b"packet", &mut wire);
    assert_eq!(wire, b"\x8a\x05Hello\x82\x06packet");
    for (length, header) in
        [(125, &[0x82, 125][..]), (126, &[0x82, 126, 0, 126]), (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0])]
    {
        let mut wire = Vec::new();
        session.send(&vec![7; length], &mut wire);
        assert_eq!((&wire[..header.len()], wire.len()), (header, header.len() + length));
    }
    let mut wire = Vec::new();
    session.close(&mut wire);
    assert_eq!(code(&wire), 1000);
    session.close(&mut wire);
    session.send(b"too late", &mut wire);
    assert_eq!(wire.len(), 4);
}

#[test]
fn a_close_is_answered_with_its_code_and_ends_the_stream() {
    for (payload, answer) in
        [(&b""[..], 1000), (&[0x03, 0xE9], 1001), (b"\x03\xE8bye", 1000), (b"\x0F\xA0", 4000)]
    {
        let mut session = open();
        let bytes = [frame(0x82, b"last"), frame(0x88, payload), frame(0x82, b"too late")].concat();
        assert_eq!(say(&mut session, &bytes), (b"last".to_vec(), Ok(())));
        assert!(session.is_ended());
        assert_eq!(code(&sent(&mut session)), answer);
    }
}

#[test]
fn what_the_rfc_forbids_closes_with_its_code() {
    let unmasked = b"\x82\x02hi".to_vec();
    let long_ping = frame(0x89, &[0; 126]);
    let huge = [&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], &MASK[..]].concat();
    for (bytes, answer, what) in [
        (unmasked, 1002, "no mask"),
        (frame(0xC2, b"x"), 1002, "RSV1"),
        (frame(0x83, b"x"), 1002, "opcode 3"),
        (frame(0x8B, b"x"), 1002, "opcode 11"),
        (frame(0x09, b"x"), 1002, "ping in pieces"),
        (long_ping, 1002, "ping of 126 bytes"),
        (huge, 1002, "2^63 bytes"),
        (frame(0x80, b"x"), 1002, "goes on with nothing"),
        ([frame(0x02, b"x"), frame(0x82, b"y")].concat(), 1002, "message within another"),
        (frame(0x81, b"text"), 1003, "text"),
        (frame(0x88, b"x"), 1002, "close of one byte"),
        (frame(0x88, &[0x03, 0xED]), 1002, "close with 1005"),
        (frame(0x88, &[0x03, 0xE7]), 1002, "close with 999"),
        (frame(0x88, &[0x03, 0xE8, 0xFF]), 1007, "reason that is no text"),
    ] {
        for piece in [1, bytes.len()] {
            let mut session = open();
            let results: Vec<_> = bytes.chunks(piece).map(|piece| say(&mut session, piece).1).collect();
            assert!(results.iter().any(Result::is_err), "{what}");
            assert_eq!(code(&sent(&mut session)), answer, "{what}");
            assert!(!session.is_ended(), "{what}: it is we who end it");
        }
    }
}

#[test]
fn of_a_flood_of_pings_the_last_is_answered() {
    let mut session = open();
    for _ in 0..3 {
        let flood = [frame(0x89, &[1; 100]).repeat(10_000), frame(0x89, b"last")].concat();
        assert_eq!(say(&mut session, &flood).1, Ok(()));
        assert!(session.buffered() <= 128, "what is owed to who does not read has a bound");
    }
    assert_eq!(sent(&mut session), b"\x8a\x04last");
    assert!(!session.wants_to_send());
    assert_eq!(session.buffered(), 0);
}
