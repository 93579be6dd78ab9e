//! A WebSocket's stream in pieces: what stands in front, how many pieces, their sizes, then the stream. It says the same as at
//! once, what it says is what the frames hold, and what is kept and sent is bounded.
#![no_main]

use std::alloc::System;
use std::sync::Arc;

use ironpost::limits::HTTP_REQUEST_BYTES_MAX;
use ironpost::transport::{Broken, Layers, Transport, Web};
use libfuzzer_sys::fuzz_target;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://h\r\n\
    Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n";
const REQUEST_END: &[u8] = b"\r\n";

/// The longest answer to a request, a pong and a close come to less.
const ANSWER_BYTES_MAX: usize = 512;

/// Behind the request there are such an answer, a ping and a control frame, in buffers with some room.
const KEPT_BYTES_MAX: usize = 1_024;

fuzz_target!(|input: &[u8]| {
    let &[mode, count, ref rest @ ..] = input else { return };
    let (sizes, tail) = rest.split_at(usize::from(count).min(rest.len()));
    let origins =
        if mode & 4 == 0 { Vec::new() } else { vec!["https://a".to_owned(), "HTTP://H".to_owned()] };
    let layers = Layers { tls: None, web: Some(Arc::new(Web { origins })) };
    let near = usize::from(mode >> 3);
    let front = match mode % 4 {
        0 => Vec::new(),
        1 => [REQUEST, REQUEST_END].concat(),
        // On both sides of the bound.
        2 => [&filled(HTTP_REQUEST_BYTES_MAX + 14 - near), REQUEST_END].concat(),
        _ => filled(HTTP_REQUEST_BYTES_MAX - near),
    };
    let stream = [&front, tail].concat();
    let heard = hear(&layers, &stream, &[], false);
    assert_eq!(hear(&layers, &stream, sizes, false), heard, "in pieces as at once");
    let eager = hear(&layers, &stream, sizes, true);
    assert_eq!((&eager.plain, &eager.result), (&heard.plain, &heard.result), "whenever it is answered");
    if front.ends_with(b"\r\n\r\n") {
        let is_open = front.len() <= HTTP_REQUEST_BYTES_MAX;
        assert_eq!(
            heard.wire.starts_with(b"HTTP/1.1 101 "),
            is_open,
            "a good request within the bound is taken"
        );
        if is_open {
            let said = read_frames(tail);
            assert_eq!(heard.plain, said.plain);
            check_answers(&heard, &said.pings, false);
            check_answers(&eager, &said.pings, true);
        }
    }
});

/// A request without its end, of so many bytes.
fn filled(length: usize) -> Vec<u8> {
    let more = length - REQUEST.len() - b"X: \r\n".len();
    [REQUEST, b"X: ", &vec![b'x'; more], REQUEST_END].concat()
}

#[derive(PartialEq, Eq, Debug)]
struct Heard {
    plain: Vec<u8>,
    result: Result<(), Broken>,
    is_ended: bool,
    /// What was to be sent of its own accord.
    wire: Vec<u8>,
}

/// Hears a stream in pieces of these sizes, over and over; `eager`: sends after each.
fn hear(layers: &Layers, stream: &[u8], sizes: &[u8], eager: bool) -> Heard {
    let mut received = stream.to_vec();
    let mut plain = Vec::with_capacity(stream.len());
    let mut wire = Vec::with_capacity(stream.len() + ANSWER_BYTES_MAX);
    let (mut result, mut said_last) = (Ok(()), None);
    let before = held();
    let mut transport = Transport::new(layers);
    let mut is_answered = false;
    let mut sizes = sizes.iter().cycle().map(|&size| usize::from(size) + 1);
    let mut rest = received.as_mut_slice();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at_mut(sizes.next().unwrap_or(usize::MAX).min(rest.len()));
        rest = behind;
        let outcome = transport.receive(piece, &mut plain);
        if said_last.is_none() && (outcome.is_err() || transport.is_ended()) {
            result = outcome;
            said_last = Some(plain.len());
        }
        is_answered |= transport.wants_to_send();
        let kept = held() - before;
        let most = if is_answered { KEPT_BYTES_MAX } else { KEPT_BYTES_MAX + 2 * HTTP_REQUEST_BYTES_MAX };
        assert!(kept <= most, "{kept} bytes are kept");
        if eager {
            transport.send(&[], &mut wire).expect("no keys are worn out");
        }
    }
    transport.send(&[], &mut wire).expect("no keys are worn out");
    assert!(!transport.wants_to_send());
    assert!(wire.len() <= stream.len() + ANSWER_BYTES_MAX, "{} bytes are sent", wire.len());
    assert_eq!(said_last.unwrap_or(plain.len()), plain.len(), "nothing is said behind the end");
    let heard = Heard { plain, result, is_ended: transport.is_ended(), wire };
    let is_open = heard.wire.starts_with(b"HTTP/1.1 101 ") && said_last.is_none();
    assert_eq!(
        said(&mut transport),
        if is_open { &b"\x82\x06packet\x88\x02\x03\xE8"[..] } else { b"" },
        "it speaks, and takes its leave, only while it is open"
    );
    heard
}

/// What it sends when it is told to say something, to close, and to say something more.
fn said(transport: &mut Transport) -> Vec<u8> {
    let mut wire = Vec::new();
    transport.send(b"packet", &mut wire).expect("no keys are worn out");
    transport.close(&mut wire);
    transport.send(b"packet", &mut wire).expect("no keys are worn out");
    wire
}

fn held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

#[derive(Default)]
struct Said {
    plain: Vec<u8>,
    pings: Vec<Vec<u8>>,
}

/// The frames of RFC 6455 5.2, up to what it forbids, or a close.
fn read_frames(mut bytes: &[u8]) -> Said {
    let mut said = Said::default();
    let mut is_within_message = false;
    while let Some((first, mask, length, rest)) = read_header(bytes) {
        let is_final = first & 0x80 != 0;
        let is_legal = match first & 0x7F {
            0 => is_within_message,
            2 => !is_within_message,
            8..=10 => is_final && length <= 125,
            _ => false,
        };
        if !is_legal || length >= 1 << 63 {
            break;
        }
        let here = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
        let (payload, behind) = rest.split_at(here);
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let is_whole = here as u64 == length;
        match first & 0xF {
            0 | 2 => {
                is_within_message = !is_final;
                said.plain.extend(payload);
            }
            9 if is_whole => said.pings.push(payload.collect()),
            8 if is_whole => break,
            _ => {}
        }
        bytes = behind;
    }
    said
}

/// The first byte, the mask, the length of the payload, and what follows; `None`: not whole, or without a mask.
fn read_header(bytes: &[u8]) -> Option<(u8, [u8; 4], u64, &[u8])> {
    let &[first, second, ref rest @ ..] = bytes else { return None };
    let (length, rest) = match second.checked_sub(0x80)? {
        126 => {
            rest.split_first_chunk().map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest))?
        }
        127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
        length => (u64::from(length), rest),
    };
    let (mask, rest) = rest.split_first_chunk()?;
    Some((first, *mask, length, rest))
}

/// Behind the answer to the request: some of the pings' answers in order, or the last one's; then a close where there has to be one.
fn check_answers(heard: &Heard, pings: &[Vec<u8>], eager: bool) {
    let end = heard.wire.windows(4).position(|four| four == b"\r\n\r\n").expect("the answer to the request");
    let mut rest = &heard.wire[end + 4..];
    if heard.result.is_err() || heard.is_ended {
        let (front, close) = rest.split_at(rest.len().checked_sub(4).expect("a close"));
        assert_eq!(close[..2], [0x88, 2]);
        rest = front;
    }
    let mut unanswered = pings.iter();
    let mut last = None;
    while let &[first, length, ref behind @ ..] = rest {
        assert_eq!(first, 0x8A, "a pong");
        let (payload, behind) = behind.split_at(length.into());
        last =
            Some(unanswered.find(|ping| *ping == payload).expect("a pong says what a ping said, in order"));
        assert!(eager || behind.is_empty(), "one pong for all pings");
        rest = behind;
    }
    assert!(rest.is_empty());
    if heard.result.is_ok() && !heard.is_ended {
        assert_eq!(last, pings.last(), "the last ping is answered");
    }
}
