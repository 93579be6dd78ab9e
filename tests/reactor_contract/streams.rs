//! Bytes on a connection, from its first to its end: items 2 to 5.

use std::collections::BTreeMap;

use ironpost::reactor::{Completion, Errno, Op, Token};

use crate::bench::{Bench, TURNS_MAX, read_some, write_all};
use crate::rigs::Rig;

/// Item 2.
pub fn ready_comes_once_per_arrival_and_the_read_tells_a_hang_up(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let (socket, token, mut peer) = bench.connected(listener);
    for round in 0..10u8 {
        let message = vec![round; 1 + usize::from(round) * 30];
        write_all(&mut bench, &mut *peer, &message);
        let (bytes, ended) = bench.receive_until(socket, token, |bytes, _| bytes.len() >= message.len());
        assert_eq!((bytes, ended), (message, false));
    }
    if !bench.rig.has_faults() {
        bench.heard.clear();
        let stale: Vec<_> = (0..10)
            .flat_map(|_| {
                bench.turn();
                std::mem::take(&mut bench.heard)
            })
            .collect();
        assert!(stale.len() <= 1, "edge-triggered: {stale:?}");
    }
    peer.shut_down_write();
    let (bytes, ended) = bench.receive_until(socket, token, |_, ended| ended);
    assert_eq!((bytes, ended), (Vec::new(), true));
}

/// Item 2.
pub fn bytes_that_arrived_before_the_watch_are_reported(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let mut peer = bench.rig.connect(listener);
    let socket = bench.accept();
    write_all(&mut bench, &mut *peer, b"early");
    for _ in 0..5 {
        bench.turn();
    }
    let token = bench.token();
    bench.submit(Op::Watch { socket, token });
    assert_eq!(bench.receive_until(socket, token, |bytes, _| bytes.len() == 5).0, b"early");
}

/// Item 2.
pub fn a_reset_is_ready_and_the_read_tells(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let (socket, token, peer) = bench.connected(listener);
    bench.turn();
    peer.reset();
    for _ in 0..TURNS_MAX {
        bench.ready(token);
        match bench.receive(socket, token) {
            Err(Errno(libc::EAGAIN)) => {}
            result => return assert_eq!(result, Err(Errno(libc::ECONNRESET))),
        }
    }
    panic!("the reset is never read");
}

/// Item 3.
pub fn every_operation_completes_once_also_after_close_and_returns_its_buffer(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let file = bench.rig.file();
    let (socket, token, mut peer) = bench.connected(listener);
    write_all(&mut bench, &mut *peer, b"unread");
    bench.turn();
    bench.heard.clear();
    let marked = |mark: u8, bytes: usize| {
        let mut buffer = Vec::with_capacity(bytes);
        buffer.resize(100, mark);
        buffer
    };
    let sent = marked(1, 777);
    let address = sent.as_ptr() as usize;
    bench.submit(Op::Recv { socket, token, buffer: marked(0, 888) });
    bench.submit(Op::Recv { socket, token, buffer: marked(0, 999) });
    bench.submit(Op::Send { socket, token, buffer: sent, from: 40 });
    bench.submit(Op::Write { file, token: Token(90), offset: 0, buffer: marked(3, 500) });
    bench.submit(Op::Write {
        file: ironpost::reactor::File(-1),
        token: Token(91),
        offset: 0,
        buffer: marked(4, 500),
    });
    bench.submit(Op::Sync { file, token: Token(92) });
    bench.submit(Op::Sync { file: ironpost::reactor::File(-1), token: Token(93) });
    bench.submit(Op::Close { socket, token });
    for _ in 0..100 {
        bench.turn();
    }
    let mut counts = BTreeMap::new();
    for completion in &bench.heard {
        let (name, buffer) = match completion {
            Completion::Received { buffer, .. } => ("received", Some(buffer.capacity())),
            Completion::Sent { buffer, from: 40, .. } => {
                assert_eq!((buffer.len(), buffer.as_ptr() as usize, buffer[99]), (100, address, 1));
                ("sent", None)
            }
            Completion::Written { token, buffer, result } => {
                assert_eq!(result.is_ok(), *token == Token(90));
                assert_eq!((buffer.len(), buffer.capacity()), (100, 500));
                ("written", None)
            }
            Completion::Synced { token, result } => {
                assert_eq!(result.is_ok(), *token == Token(92));
                ("synced", None)
            }
            Completion::Closed { .. } => ("closed", None),
            Completion::Ready { .. } => continue,
            other => panic!("{other:?}"),
        };
        if let Some(capacity) = buffer {
            let expected = if counts.contains_key(name) { 999 } else { 888 };
            assert_eq!(capacity, expected, "receives complete in their order");
        }
        *counts.entry(name).or_insert(0) += 1;
    }
    let expected = [("closed", 1), ("received", 2), ("sent", 1), ("synced", 2), ("written", 2)];
    assert_eq!(counts, BTreeMap::from(expected));
}

/// Item 4.
pub fn a_receive_completes_in_its_turn_with_nothing_there(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let (socket, token, _peer) = bench.connected(listener);
    for _ in 0..10 {
        assert_eq!(bench.receive(socket, token), Err(Errno(libc::EAGAIN)));
    }
}

/// Item 4.
pub fn a_send_waits_for_room_and_takes_at_least_a_byte(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let (socket, token, mut peer) = bench.connected(listener);
    bench.fill(socket, token);
    // The last send is still in flight, and stays so while the peer does not read.
    for _ in 0..10 {
        bench.turn();
    }
    assert!(!bench.heard.iter().any(|each| matches!(each, Completion::Sent { .. })));
    let mut part = vec![0; 1 << 16];
    for _ in 0..TURNS_MAX {
        while peer.read(&mut part).is_ok() {}
        bench.turn();
        if bench.heard.iter().any(|each| matches!(each, Completion::Sent { .. })) {
            break;
        }
    }
    let (buffer, from, result) = bench.sent(token);
    assert_eq!((buffer.len(), from), (1 << 20, 0));
    assert!((1..=1 << 20).contains(&result.unwrap()));
}

/// Items 2, 4 and 5: a megabyte each way at once.
pub fn bytes_keep_their_order_through_short_sends_and_receives(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let (socket, token, mut peer) = bench.connected(listener);
    let stream: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
    let (mut out_in, mut peer_out, mut peer_in) = (Vec::new(), 0, Vec::new());
    let (mut readable, mut receiving) = (false, false);
    bench.submit(Op::Send { socket, token, buffer: stream.clone(), from: 0 });
    let mut sent = false;
    for _ in 0..200_000 {
        if out_in.len() == stream.len() && peer_in.len() == stream.len() && sent {
            assert!(out_in == stream && peer_in == stream);
            return;
        }
        if let Ok(count) = peer.write(&stream[peer_out..]) {
            peer_out += count;
        }
        let mut part = [0; 10_000];
        if let Ok(count) = peer.read(&mut part) {
            peer_in.extend_from_slice(&part[..count]);
        }
        if readable && !receiving {
            receiving = true;
            readable = false;
            bench.submit(Op::Recv { socket, token, buffer: Vec::with_capacity(8_192) });
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
                Completion::Sent { buffer, from, result, .. } => {
                    let from = from + result.unwrap();
                    sent = from == buffer.len();
                    if !sent {
                        bench.reactor.submit(Op::Send { socket, token, buffer, from });
                    }
                }
                // Of the wrapper, held back.
                Completion::Accepted { result: Err(_), .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    panic!("received {} and sent {} of {}", out_in.len(), peer_in.len(), stream.len());
}

/// Item 5.
pub fn after_closed_nothing_more_comes(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    for round in 0..20 {
        let (socket, token, mut peer) = bench.connected(listener);
        let _ = peer.write(b"before");
        if round % 2 == 0 {
            bench.turn();
        }
        let _ = peer.write(b"just before");
        bench.submit(Op::Close { socket, token });
        for _ in 0..5 {
            bench.turn();
            let _ = peer.write(b"after");
        }
        for _ in 0..5 {
            bench.turn();
        }
        let of_this: Vec<&Completion> = bench.heard.iter().filter(|each| each.token() == token).collect();
        assert!(matches!(of_this.last(), Some(Completion::Closed { .. })), "{of_this:?}");
        assert_eq!(of_this.iter().filter(|each| matches!(each, Completion::Closed { .. })).count(), 1);
        bench.heard.clear();
    }
}

/// Items 3 and 5.
pub fn closing_ends_a_blocked_send(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let (socket, token, _peer) = bench.connected(listener);
    bench.fill(socket, token);
    bench.heard.clear();
    bench.submit(Op::Close { socket, token });
    for _ in 0..50 {
        bench.turn();
    }
    let of_this: Vec<&Completion> = bench
        .heard
        .iter()
        .filter(|each| each.token() == token && !matches!(each, Completion::Ready { .. }))
        .collect();
    match of_this.as_slice() {
        [Completion::Sent { buffer, result: Err(_), .. }, Completion::Closed { .. }] => {
            assert_eq!(buffer.len(), 1 << 20);
        }
        other => panic!("{other:?}"),
    }
}

/// Item 1, and no signal.
pub fn a_send_to_a_peer_that_is_gone_fails_and_kills_nobody(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let (socket, token, peer) = bench.connected(listener);
    peer.reset();
    for _ in 0..20 {
        bench.submit(Op::Send { socket, token, buffer: vec![1; 100], from: 0 });
        if let (_, _, Err(errno)) = bench.sent(token) {
            assert!(errno == Errno(libc::ECONNRESET) || errno == Errno(libc::EPIPE), "{errno}");
            bench.submit(Op::Send { socket, token, buffer: vec![1; 100], from: 0 });
            assert_eq!(bench.sent(token).2, Err(Errno(libc::EPIPE)));
            return;
        }
        bench.turn();
    }
    panic!("sends to nobody go on and on");
}

/// What `Op::Close` says about the end of the stream.
pub fn what_was_sent_before_close_arrives_though_bytes_were_unread(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let (socket, token, mut peer) = bench.connected(listener);
    write_all(&mut bench, &mut *peer, &[1; 5_000]);
    bench.ready(token);
    for _ in 0..20 {
        // All of it has arrived.
        bench.turn();
    }
    let (mut buffer, mut from) = (b"goodbye".to_vec(), 0);
    while from < buffer.len() {
        bench.submit(Op::Send { socket, token, buffer, from });
        let result;
        (buffer, from, result) = bench.sent(token);
        from += result.unwrap();
    }
    bench.submit(Op::Close { socket, token });
    bench.closed(token);
    assert_eq!(read_some(&mut bench, &mut *peer, usize::MAX), (b"goodbye".to_vec(), true));
}

/// Item 4, beyond the number of events of one turn.
pub fn many_blocked_sends_all_finish(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let mut connections: Vec<_> = (0..30).map(|_| bench.connected(listener)).collect();
    let bytes = bench.rig.bytes_beyond_room();
    let mut left: BTreeMap<Token, Option<usize>> = BTreeMap::new();
    for (socket, token, _) in &connections {
        bench.submit(Op::Send { socket: *socket, token: *token, buffer: vec![5; bytes], from: 0 });
        left.insert(*token, Some(bytes));
    }
    let mut part = vec![0; 1 << 20];
    let mut got = vec![0; connections.len()];
    for _ in 0..200_000 {
        for (index, (_, _, peer)) in connections.iter_mut().enumerate() {
            while let Ok(count) = peer.read(&mut part) {
                got[index] += count;
            }
        }
        let deadline = bench.reactor.now().mono.plus_ms(1);
        bench.reactor.turn(deadline, &mut bench.heard);
        for completion in bench.heard.drain(..) {
            let Completion::Sent { token, buffer, from, result } = completion else { continue };
            let from = from + result.unwrap();
            if from == buffer.len() {
                left.remove(&token);
            } else {
                let socket = connections.iter().find(|each| each.1 == token).unwrap().0;
                bench.reactor.submit(Op::Send { socket, token, buffer, from });
            }
        }
        if left.is_empty() && got.iter().all(|&count| count == bytes) {
            return;
        }
    }
    panic!("{} sends did not end", left.len());
}
