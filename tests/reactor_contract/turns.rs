//! Room, files, waiting and time: items 1, 6, 7 and 8.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use ironpost::reactor::{Completion, Errno, Op, Reactor, Socket, Token};
use ironpost::time::Nanos;

use crate::bench::{Bench, is_received, write_all};
use crate::rigs::Rig;

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

/// Item 7: what the kernel does on the side ends a wait that nothing else would end.
pub fn a_sync_ends_a_wait_without_a_deadline(rig: &mut dyn Rig) {
    let mut bench = Bench::new(rig);
    let file = bench.rig.file();
    let bell = bench.reactor.doorbell();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let was_hung = Arc::new(AtomicBool::new(false));
    // So that a failure is one, and not a test without an end. It goes on ringing: with faults a wait may follow another.
    let watchdog = bench.rig.has_threads().then(|| {
        let was_hung = was_hung.clone();
        std::thread::spawn(move || {
            while is_done.recv_timeout(Duration::from_secs(10)) == Err(RecvTimeoutError::Timeout) {
                was_hung.store(true, Ordering::Relaxed);
                bell.ring();
            }
        })
    });
    for round in 0..20 {
        bench.submit(Op::Write { file, token: Token(1), offset: round * 4_096, buffer: vec![1; 4_096] });
        let is_written = |each: &Completion| matches!(each, Completion::Written { .. }).then_some(());
        bench.wait_for("the write", is_written);
        bench.heard.clear();
        bench.submit(Op::Sync { file, token: Token(2) });
        let is_synced = |each: &Completion| matches!(each, Completion::Synced { result: Ok(()), .. });
        // Once is enough, unless faults hold it back, and end turns meanwhile.
        loop {
            bench.reactor.turn(Nanos::NEVER, &mut bench.heard);
            assert!(!was_hung.load(Ordering::Relaxed), "the watchdog ended a wait: {:?}", bench.heard);
            if bench.heard.iter().any(is_synced) {
                break;
            }
            assert!(bench.rig.has_faults(), "the wait ended without the sync: {:?}", bench.heard);
        }
        bench.heard.clear();
    }
    drop(done);
    if let Some(watchdog) = watchdog {
        watchdog.join().unwrap();
    }
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

/// Item 7.
pub fn what_is_ready_is_told_though_there_is_something_else_to_say(rig: &mut dyn Rig) {
    // In the simulated world time stands still while there is something to say; faults may hold completions back.
    if !rig.has_threads() || rig.has_faults() {
        return;
    }
    let mut bench = Bench::new(rig);
    let listener = bench.listening();
    let (busy, busy_token, _busy_peer) = bench.connected(listener);
    let (_quiet, quiet_token, mut quiet_peer) = bench.connected(listener);
    bench.turn();
    bench.turn();
    bench.heard.clear();
    write_all(&mut bench, &mut *quiet_peer, b"x");
    bench.submit(Op::Recv { socket: busy, token: busy_token, buffer: Vec::with_capacity(1) });
    bench.reactor.turn(Nanos::NEVER, &mut bench.heard);
    let is_told = |each: &Completion| matches!(each, Completion::Ready { token } if *token == quiet_token);
    assert!(bench.heard.iter().any(is_told), "{:?}", bench.heard);
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
