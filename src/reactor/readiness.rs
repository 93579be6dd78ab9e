//! The epoll set of a kernel reactor, through mio: what is registered in it and under which number, and the doorbell.
//!
//! A connection is registered once, for reading, edge-triggered, under its owner's token; nothing else is remembered
//! of it (contract, item 9). Interest in writing is not registered: both kernel reactors wait for room elsewhere, and
//! only while a send is blocked, so that a connection's every acknowledgement of sent bytes is not an event.
//! Used by `epoll`, which waits on the set, and by `uring`, likewise.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Waker};

use super::{Completion, Doorbell, Errno, Socket, TOKEN_RESERVED, Token, calls};

/// The doorbell's number in the set.
pub(super) const DOORBELL: Token = Token(u64::MAX - 1);

/// The set of blocked sends, itself an entry in the set.
pub(super) const BLOCKED_SENDS: Token = Token(u64::MAX - 2);

/// The deadline of a wait.
pub(super) const ALARM: Token = Token(u64::MAX - 3);

/// The ring: something that had to wait has ended.
pub(super) const RING: Token = Token(u64::MAX - 4);

/// Listening socket `i` is `LISTENERS.0 + i`.
pub(super) const LISTENERS: Token = TOKEN_RESERVED;

/// Listening sockets of one reactor, so that their numbers end before the four above.
pub(super) const LISTENERS_MAX: usize = 0x1000;

const _: () = assert!(LISTENERS.0 + (LISTENERS_MAX as u64) < RING.0);

/// The set's number for a token.
pub(super) fn number(token: Token) -> mio::Token {
    mio::Token(token.0 as usize)
}

/// Report when the socket becomes readable, hangs up or fails.
pub(super) fn register(registry: &Registry, socket: Socket, token: Token) -> Result<(), Errno> {
    let fd: RawFd = socket.0;
    registry
        .register(&mut SourceFd(&fd), number(token), Interest::READABLE)
        .map_err(|error| calls::errno_of(&error))
}

/// No longer. A socket that was not registered is none either.
pub(super) fn deregister(registry: &Registry, socket: Socket) {
    let fd: RawFd = socket.0;
    let _not_registered = registry.deregister(&mut SourceFd(&fd));
}

/// Register a connection for its owner. If the kernel refuses, the socket is shut down and `false` says that the
/// owner must be told `Ready` now: its read will find the end of the stream.
pub(super) fn watch(registry: &Registry, socket: Socket, token: Token) -> bool {
    assert!(token < TOKEN_RESERVED, "a watch under one of the reactor's own tokens");
    let watched = register(registry, socket, token).is_ok();
    if !watched {
        calls::shut_down(socket);
    }
    watched
}

/// Tell the owner that there is something to read; twice if the stream has ended (contract, item 2).
pub(super) fn report(token: Token, ended: bool, out: &mut Vec<Completion>) {
    out.push(Completion::Ready { token });
    if ended {
        out.push(Completion::Ready { token });
    }
}

/// An eventfd in the set, and a flag that spares the system call when it has been rung already.
pub(super) struct Bell {
    rung: AtomicBool,
    waker: Waker,
}

impl Bell {
    pub(super) fn new(registry: &Registry) -> std::io::Result<Arc<Bell>> {
        Ok(Arc::new(Bell { rung: AtomicBool::new(false), waker: Waker::new(registry, number(DOORBELL))? }))
    }

    /// Whether it was rung since it was last asked. What the ringer wrote before is visible after.
    pub(super) fn take(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }

    /// Make the set report the doorbell, rung or not.
    pub(super) fn wake(&self) {
        // Writing an eventfd fails only when its counter is full, and then the set reports it anyway.
        let _counter_full = self.waker.wake();
    }
}

impl Doorbell for Bell {
    fn ring(&self) {
        // Whoever finds the flag set relies on the one who set it and has yet to write, or has written, the eventfd.
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }
}
