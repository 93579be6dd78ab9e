//! The cases. Each names the items of the contract that it checks.

use std::collections::BTreeMap;
use std::sync::Arc;

use ironpost::reactor::{Completion, Errno, Op, Reactor, Socket, Token};
use ironpost::time::Nanos;

use crate::rigs::{Peer, Rig};

/// Turns after which a case gives up, of at most 5 ms each.
const TURNS_MAX: usize = 2_000;

const LISTENER: Token = Token(1_000_000);

/// A reactor and what it has said.
struct Bench<'a> {
    rig: &'a mut dyn Rig,
    reactor: Box<dyn Reactor>,
    heard: Vec<Completion>,
    tokens: u64,
}

impl<'a> Bench<'a> {
    fn new(rig: &'a mut dyn Rig) -> Bench<'a> {
        let reactor = rig.reactor();
        Bench { rig, reactor, heard: Vec::new(), tokens: 0 }
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    fn submit(&mut self, op: Op) {
        assert!(self.reactor.room() > 0);
        self.reactor.submit(op);
    }

    fn turn(&mut self) {
        let deadline = self.reactor.now().mono.plus_ms(5);
        self.reactor.turn(deadline, &mut self.heard);
    }

    /// Take the first completion for which `wanted` answers something, taking turns until it is there.
    fn wait_for<T>(&mut self, what: &str, wanted: impl Fn(&Completion) -> Option<T>) -> (T, Completion) {
        for _ in 0..TURNS_MAX {
            if let Some(position) = self.heard.iter().position(|each| wanted(each).is_some()) {
                let completion = self.heard.remove(position);
                return (wanted(&completion).unwrap(), completion);
            }
            self.turn();
        }
        panic!("{what} did not come; heard instead: {:?}", self.heard);
    }

    fn accept(&mut self) -> Socket {
        let accepted = |each: &Completion| match each {
            Completion::Accepted { token: LISTENER, result: Ok((socket, _)) } => Some(*socket),
            _ => None,
        };
        self.wait_for("a connection", accepted).0
    }

    /// Both ends of a new connection; the near one is watched.
    fn connected(&mut self, listener: Socket) -> (Socket, Token, Box<dyn Peer>) {
        let peer = self.rig.connect(listener);
        let socket = self.accept();
        let token = self.token();
        self.submit(Op::Watch { socket, token });
        (socket, token, peer)
    }

    fn listening(&mut self) -> Socket {
        let socket = self.rig.listen();
        self.submit(Op::Listen { socket, token: LISTENER });
        socket
    }

    fn ready(&mut self, token: Token) {
        self.wait_for("readiness", |each| {
            matches!(each, Completion::Ready { token: its } if *its == token).then_some(())
        });
    }

    fn receive(&mut self, socket: Socket, token: Token) -> Result<Vec<u8>, Errno> {
        self.submit(Op::Recv { socket, token, buffer: Vec::with_capacity(64) });
        self.turn();
        let position = self.heard.iter().position(|each| is_received(each, token));
        match self.heard.remove(position.expect("a receive completes in its turn")) {
            Completion::Received { buffer, result, .. } => {
                assert_eq!(result.unwrap_or(0), buffer.len());
                result.map(|_| buffer)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Read as the contract wants: on readiness, until a receive does not fill its buffer. EAGAIN waits on.
    fn receive_until(
        &mut self,
        socket: Socket,
        token: Token,
        enough: impl Fn(&[u8], bool) -> bool,
    ) -> (Vec<u8>, bool) {
        let (mut bytes, mut ended) = (Vec::new(), false);
        while !enough(&bytes, ended) {
            self.ready(token);
            loop {
                match self.receive(socket, token) {
                    Ok(part) => {
                        ended |= part.is_empty();
                        bytes.extend_from_slice(&part);
                        if part.len() < 64 {
                            break;
                        }
                    }
                    Err(Errno(libc::EAGAIN)) => break,
                    Err(errno) => panic!("{errno}"),
                }
            }
        }
        (bytes, ended)
    }

    fn sent(&mut self, token: Token) -> (Vec<u8>, usize, Result<usize, Errno>) {
        let is_sent = |each: &Completion| {
            matches!(each, Completion::Sent { token: its, .. } if *its == token).then_some(())
        };
        match self.wait_for("the end of a send", is_sent).1 {
            Completion::Sent { buffer, from, result, .. } => (buffer, from, result),
            other => panic!("{other:?}"),
        }
    }

    fn closed(&mut self, token: Token) {
        self.wait_for("Closed", |each| {
            matches!(each, Completion::Closed { token: its } if *its == token).then_some(())
        });
    }

    /// Fill the socket until a send does not come back; that send's token is the socket's.
    fn fill(&mut self, socket: Socket, token: Token) {
        for _ in 0..1_000 {
            self.submit(Op::Send { socket, token, buffer: vec![7; 1 << 20], from: 0 });
            let mut done = false;
            for _ in 0..20 {
                self.turn();
                let position = self
                    .heard
                    .iter()
                    .position(|each| matches!(each, Completion::Sent { token: its, .. } if *its == token));
                if let Some(position) = position {
                    self.heard.remove(position);
                    done = true;
                    break;
                }
            }
            if !done {
                return;
            }
        }
        panic!("the socket is never full");
    }
}

fn is_received(completion: &Completion, token: Token) -> bool {
    matches!(completion, Completion::Received { token: its, .. } if *its == token)
}

fn token_of(completion: &Completion) -> Token {
    match completion {
        Completion::Accepted { token, .. }
        | Completion::Ready { token }
        | Completion::Received { token, .. }
        | Completion::Sent { token, .. }
        | Completion::Detached { token, .. }
        | Completion::Closed { token }
        | Completion::Written { token, .. }
        | Completion::Synced { token, .. } => *token,
    }
}

fn write_all(bench: &mut Bench, peer: &mut dyn Peer, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match peer.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bench.turn(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// What the peer gets until the end of the stream or that many bytes.
fn read_some(bench: &mut Bench, peer: &mut dyn Peer, max: usize) -> (Vec<u8>, bool) {
    let (mut bytes, mut part) = (Vec::new(), vec![0; 1 << 16]);
    for _ in 0..TURNS_MAX {
        match peer.read(&mut part) {
            Ok(0) => return (bytes, true),
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bench.turn(),
            Err(error) => panic!("the peer's read failed: {error}"),
        }
        if bytes.len() >= max {
            return (bytes, false);
        }
    }
    panic!("the peer got only {} bytes", bytes.len());
}

/// Item 1.
pub fn room_shrinks_with_each_submission_and_errors_come_as_completions(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let room = bench.reactor.room();
    assert_eq!(room, 64);
    let gone = Socket(i32::MAX);
    for number in 0..room {
        assert_eq!(bench.reactor.room(), room - number);
        bench.submit(Op::Recv { socket: gone, token: Token(number as u64), buffer: Vec::with_capacity(1) });
    }
    assert_eq!(bench.reactor.room(), 0);
    bench.turn();
    assert_eq!(bench.reactor.room(), room);
    assert_eq!(bench.heard.len(), room);
    for completion in bench.heard.drain(..) {
        let Completion::Received { result: Err(errno), .. } = completion else { panic!("{completion:?}") };
        assert!(errno == Errno(libc::EBADF) || errno == Errno(libc::EAGAIN), "{errno}");
    }
    bench.submit(Op::Send { socket: gone, token: Token(1), buffer: vec![1], from: 0 });
    assert_eq!(bench.sent(Token(1)), (vec![1], 0, Err(Errno(libc::EBADF))));
}

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
        let of_this: Vec<&Completion> = bench.heard.iter().filter(|each| token_of(each) == token).collect();
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
        .filter(|each| token_of(each) == token && !matches!(each, Completion::Ready { .. }))
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

/// Item 6.
pub fn a_write_is_whole_and_a_sync_succeeds(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let file = bench.rig.file();
    let block = |number: usize| vec![number as u8 + 1; 300_001];
    for number in 0..10 {
        let offset = number as u64 * 300_001;
        bench.submit(Op::Write { file, token: Token(number as u64), offset, buffer: block(number) });
    }
    bench.submit(Op::Write { file, token: Token(10), offset: 5, buffer: Vec::new() });
    for number in 0..=10 {
        let is_this = |each: &Completion| match each {
            Completion::Written { token, result, .. } if *token == Token(number) => Some(*result),
            _ => None,
        };
        assert_eq!(bench.wait_for("a write", is_this).0, Ok(()));
    }
    bench.submit(Op::Sync { file, token: Token(99) });
    let synced = |each: &Completion| match each {
        Completion::Synced { token: Token(99), result } => Some(*result),
        _ => None,
    };
    assert_eq!(bench.wait_for("the sync", synced).0, Ok(()));
    let expected: Vec<u8> = (0..10).flat_map(block).collect();
    assert!(bench.rig.content(file) == expected);
}

/// Items 1, 3 and 6.
pub fn a_failing_write_returns_its_buffer_and_an_error(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let file = ironpost::reactor::File(-1);
    bench.submit(Op::Write { file, token: Token(1), offset: 0, buffer: b"bytes".to_vec() });
    let written = |each: &Completion| match each {
        Completion::Written { token: Token(1), buffer, result } => Some((buffer.clone(), *result)),
        _ => None,
    };
    assert_eq!(bench.wait_for("the write", written).0, (b"bytes".to_vec(), Err(Errno(libc::EBADF))));
}

/// Item 7.
pub fn a_turn_waits_for_its_deadline_and_not_beyond_the_doorbell(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    bench.turn();
    let deadline = bench.reactor.now().mono.plus_ms(30);
    let mut turns = 0;
    while bench.reactor.now().mono < deadline {
        bench.reactor.turn(deadline, &mut bench.heard);
        turns += 1;
    }
    assert_eq!(turns, 1, "one wait, not many");
    let late = bench.reactor.now().mono.ms_since(deadline);
    assert!(late < 500, "{late} ms late");
    let bell = bench.reactor.doorbell();
    bell.ring();
    bell.ring();
    // It would never return.
    bench.reactor.turn(Nanos::NEVER, &mut bench.heard);
    let deadline = bench.reactor.now().mono.plus_ms(10);
    while bench.reactor.now().mono < deadline {
        bench.reactor.turn(deadline, &mut bench.heard);
    }
    if bench.rig.has_threads() {
        ring_back_and_forth(&mut *bench.reactor, bell);
    }
    assert!(bench.heard.is_empty());
}

/// Another thread rings before, while and after this one goes to sleep; a lost ring would hang.
fn ring_back_and_forth(reactor: &mut dyn Reactor, bell: Arc<dyn ironpost::reactor::Doorbell>) {
    let (ask, asked) = std::sync::mpsc::channel::<u32>();
    let (answer, answered) = std::sync::mpsc::channel::<u32>();
    let ringer = std::thread::spawn(move || {
        for number in asked {
            for _ in 0..number % 7 * 300 {
                std::hint::spin_loop();
            }
            answer.send(number).unwrap();
            bell.ring();
        }
    });
    for number in 0..2_000 {
        ask.send(number).unwrap();
        while answered.try_recv() != Ok(number) {
            reactor.turn(Nanos::NEVER, &mut Vec::new());
        }
    }
    drop(ask);
    ringer.join().unwrap();
}

/// Item 7.
pub fn a_turn_with_completions_at_hand_does_not_wait(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let (socket, token, _peer) = bench.connected(listener);
    bench.turn();
    bench.heard.clear();
    bench.submit(Op::Recv { socket, token, buffer: Vec::with_capacity(1) });
    bench.reactor.turn(Nanos::NEVER, &mut bench.heard);
    assert!(bench.heard.iter().any(|each| is_received(each, token)));
    bench.submit(Op::Close { socket, token });
    while !bench.heard.iter().any(|each| matches!(each, Completion::Closed { .. })) {
        bench.reactor.turn(Nanos::NEVER, &mut bench.heard);
    }
}

/// Item 8.
pub fn time_stands_still_within_a_turn_and_never_goes_back(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    for _ in 0..50 {
        let before = bench.reactor.now();
        assert_eq!(bench.reactor.now(), before);
        let deadline = before.mono.plus_ms(1);
        bench.reactor.turn(deadline, &mut bench.heard);
        let after = bench.reactor.now();
        assert!(after.mono >= before.mono);
        assert!(after.mono >= deadline, "it had nothing to say before the deadline");
        assert!(after.wall.0 > 1_700_000_000_000);
    }
}

/// `Op::Detach`.
pub fn a_detached_socket_goes_on_in_another_reactor(rig: &mut dyn Rig) {
    let mut other = rig.reactor();
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let (socket, token, mut peer) = bench.connected(listener);
    write_all(&mut bench, &mut *peer, b"first");
    bench.ready(token);
    bench.submit(Op::Detach { socket, token });
    let detached = |each: &Completion| match each {
        Completion::Detached { token: its, socket } if *its == token => Some(*socket),
        _ => None,
    };
    assert_eq!(bench.wait_for("Detached", detached).0, socket);
    bench.heard.clear();
    let moved = Token(4_711);
    other.submit(Op::Watch { socket, token: moved });
    std::mem::swap(&mut bench.reactor, &mut other);
    assert_eq!(bench.receive_until(socket, moved, |bytes, _| bytes.len() == 5).0, b"first");
    write_all(&mut bench, &mut *peer, b"second");
    assert_eq!(bench.receive_until(socket, moved, |bytes, _| bytes.len() == 6).0, b"second");
    bench.heard.clear();
    std::mem::swap(&mut bench.reactor, &mut other);
    for _ in 0..5 {
        bench.turn();
    }
    assert!(bench.heard.is_empty(), "{:?}", bench.heard);
}

/// Duplicates of a listening socket: each connection is accepted once, and finding nothing is not an error.
pub fn two_reactors_share_a_listening_socket(rig: &mut dyn Rig) {
    let mut other = rig.reactor();
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let duplicate = bench.rig.duplicate(listener);
    other.submit(Op::Listen { socket: duplicate, token: LISTENER });
    let mut peers: Vec<_> = (0..10).map(|_| bench.rig.connect(listener)).collect();
    let mut sockets = Vec::new();
    for _ in 0..TURNS_MAX {
        bench.turn();
        std::mem::swap(&mut bench.reactor, &mut other);
        for completion in bench.heard.drain(..) {
            match completion {
                Completion::Accepted { result: Ok((socket, _)), .. } => sockets.push(socket),
                Completion::Accepted { result: Err(Errno(libc::EMFILE)), .. } if bench.rig.has_faults() => {}
                other => panic!("{other:?}"),
            }
        }
        if sockets.len() == peers.len() {
            break;
        }
    }
    sockets.sort_by_key(|socket| socket.0);
    sockets.dedup();
    assert_eq!(sockets.len(), peers.len());
    peers.clear();
}

/// Item 7 and the bound per turn.
pub fn many_connections_arrive_within_the_bound_per_turn(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let _peers: Vec<_> = (0..40).map(|_| bench.rig.connect(listener)).collect();
    let mut accepted = 0;
    for _ in 0..TURNS_MAX {
        bench.turn();
        let of_turn = bench
            .heard
            .drain(..)
            .filter(|each| matches!(each, Completion::Accepted { result: Ok(_), .. }))
            .count();
        assert!(bench.rig.has_faults() || of_turn <= 4, "{of_turn} in one turn");
        accepted += of_turn;
        if accepted == 40 {
            return;
        }
    }
    panic!("only {accepted} of 40");
}

/// `Accepted`.
pub fn without_descriptors_accepting_reports_once_and_resumes(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    bench.turn();
    let mut peer = bench.rig.connect(listener);
    bench.rig.exhaust_descriptors(true);
    let failed = |each: &Completion| match each {
        Completion::Accepted { token: LISTENER, result: Err(errno) } => Some(*errno),
        _ => None,
    };
    assert_eq!(bench.wait_for("the report", failed).0, Errno(libc::EMFILE));
    // Over several pauses of 20 ms there is no second report, and no spinning.
    let until = bench.reactor.now().mono.plus_ms(100);
    let mut turns = 0;
    while bench.reactor.now().mono < until {
        bench.turn();
        turns += 1;
    }
    assert!(turns <= 60, "{turns} turns of 5 ms in 100 ms");
    assert!(bench.heard.is_empty(), "{:?}", bench.heard);
    bench.rig.exhaust_descriptors(false);
    let socket = bench.accept();
    let token = bench.token();
    bench.submit(Op::Watch { socket, token });
    write_all(&mut bench, &mut *peer, b"here");
    assert_eq!(bench.receive_until(socket, token, |bytes, _| bytes.len() == 4).0, b"here");
}

/// `Op::Close` of a listening socket.
pub fn a_closed_listener_accepts_no_more(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let duplicate = bench.rig.duplicate(listener);
    let (socket, token, _peer) = bench.connected(listener);
    bench.submit(Op::Close { socket: listener, token: LISTENER });
    bench.closed(LISTENER);
    let _waiting = bench.rig.connect(duplicate);
    for _ in 0..20 {
        bench.turn();
    }
    let accepted = |each: &Completion| matches!(each, Completion::Accepted { result: Ok(_), .. });
    assert!(!bench.heard.iter().any(accepted), "{:?}", bench.heard);
    // What was accepted lives on.
    assert_eq!(bench.receive(socket, token), Err(Errno(libc::EAGAIN)));
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
