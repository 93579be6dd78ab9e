//! What happens between two turns: item 10.

use ironpost::reactor::{Completion, Errno, Op};

use crate::bench::{Bench, TURNS_MAX, write_all};
use crate::rigs::{Peer, Rig};

/// A megabyte each way; what a world declines, or does not take whole, is submitted.
pub fn bytes_keep_their_order_through_calls_and_operations(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let (socket, token, mut peer) = bench.connected(listener);
    let stream: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
    let (mut out_in, mut peer_out, mut peer_in) = (Vec::new(), 0, Vec::new());
    let (mut readable, mut receiving, mut sending, mut sent) = (false, false, false, 0);
    let (mut calls, mut operations) = (0, 0);
    for _ in 0..200_000 {
        if out_in.len() == stream.len() && peer_in.len() == stream.len() {
            assert!(out_in == stream && peer_in == stream);
            assert!(calls > 0 && (operations > 0 || bench.rig.has_threads()), "{calls}, {operations}");
            return;
        }
        peer_out += peer.write(&stream[peer_out..]).unwrap_or(0);
        read_all(&mut *peer, &mut peer_in);
        if readable && !receiving {
            let mut buffer = Vec::with_capacity(8_192);
            readable = false;
            match bench.reactor.receive(socket, &mut buffer) {
                Some(result) => {
                    calls += 1;
                    assert_eq!(result.unwrap_or(0), buffer.len());
                    readable = buffer.len() == buffer.capacity();
                    out_in.extend_from_slice(&buffer);
                }
                None => {
                    (operations, receiving) = (operations + 1, true);
                    bench.submit(Op::Recv { socket, token, buffer });
                }
            }
        }
        if !sending && sent < stream.len() {
            let rest = &stream[sent..stream.len().min(sent + 10_000)];
            match bench.reactor.send(socket, rest) {
                Some(Ok(taken)) => {
                    assert!((1..=rest.len()).contains(&taken));
                    (calls, sent) = (calls + 1, sent + taken);
                }
                None | Some(Err(Errno(libc::EAGAIN))) => {
                    (operations, sending) = (operations + 1, true);
                    bench.submit(Op::Send { socket, token, buffer: rest.to_vec(), from: 0 });
                }
                Some(Err(errno)) => panic!("{errno}"),
            }
        }
        let deadline = bench.reactor.now().mono.plus_ms(1);
        bench.reactor.turn(deadline, &mut bench.heard);
        for completion in bench.heard.drain(..) {
            match completion {
                Completion::Ready { .. } => readable = true,
                Completion::Received { buffer, result, .. } => {
                    receiving = false;
                    readable |= result == Ok(buffer.capacity());
                    out_in.extend_from_slice(&buffer);
                }
                Completion::Sent { result, .. } => (sending, sent) = (false, sent + result.unwrap()),
                // Of the wrapper, held back.
                Completion::Accepted { result: Err(_), .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    panic!("received {} and sent {} of {}", out_in.len(), peer_in.len(), stream.len());
}

/// As the operations: `EAGAIN`, the bytes, the end of the stream.
pub fn a_call_does_not_wait_and_tells_the_end(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let (socket, token, mut peer) = bench.connected(listener);
    bench.turn();
    let mut buffer = Vec::with_capacity(64);
    assert_eq!(called(|| bench.reactor.receive(socket, &mut buffer)), Err(Errno(libc::EAGAIN)));
    write_all(&mut bench, &mut *peer, b"bytes");
    let mut got = Vec::new();
    while got.len() < 5 {
        bench.ready(token);
        if called(|| bench.reactor.receive(socket, &mut buffer)).is_ok() {
            got.extend_from_slice(&buffer);
        }
    }
    assert_eq!(got, b"bytes");
    peer.shut_down_write();
    for _ in 0..TURNS_MAX {
        bench.turn();
        match called(|| bench.reactor.receive(socket, &mut buffer)) {
            Err(Errno(libc::EAGAIN)) => {}
            end => return assert_eq!(end, Ok(0)),
        }
    }
    panic!("no end of the stream");
}

/// A full socket says so and keeps what it has; one whose peer is gone is an error, and nobody dies of it.
pub fn a_send_without_room_says_so(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let (socket, _token, mut peer) = bench.connected(listener);
    bench.turn();
    let mut taken = 0;
    let full = loop {
        match called(|| bench.reactor.send(socket, &[7; 1 << 16])) {
            Ok(count) => taken += count,
            Err(errno) => break errno,
        }
        bench.turn();
        assert!(taken < 64 << 20, "it holds everything");
    };
    assert_eq!(full, Errno(libc::EAGAIN));
    let mut got = Vec::new();
    for _ in 0..TURNS_MAX {
        read_all(&mut *peer, &mut got);
        if got.len() == taken {
            break;
        }
        bench.turn();
    }
    assert!(got.len() == taken && got.iter().all(|byte| *byte == 7), "{} of {taken}", got.len());
    peer.reset();
    for _ in 0..TURNS_MAX {
        bench.turn();
        match called(|| bench.reactor.send(socket, b"x")) {
            Err(Errno(libc::ECONNRESET | libc::EPIPE)) => return,
            Ok(_) => {}
            Err(errno) => panic!("{errno}"),
        }
    }
    panic!("a peer that is gone takes everything");
}

/// Until the world does not decline.
fn called(mut call: impl FnMut() -> Option<Result<usize, Errno>>) -> Result<usize, Errno> {
    (0..1_000).find_map(|_| call()).expect("it declines at times, not always")
}

fn read_all(peer: &mut dyn Peer, into: &mut Vec<u8>) {
    let mut part = [0; 10_000];
    while let Ok(count) = peer.read(&mut part)
        && count > 0
    {
        into.extend_from_slice(&part[..count]);
    }
}
