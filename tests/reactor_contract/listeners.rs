//! Sockets that are shared, handed over, refused for want of descriptors, or accepted by the hundred.

use ironpost::reactor::{Completion, Errno, Op, Token};

use crate::bench::{Bench, LISTENER, TURNS_MAX, write_all};
use crate::rigs::Rig;

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
