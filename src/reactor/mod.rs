//! The only door to the kernel's sockets and to the journal's writes: submit operations, take completions.
//!
//! Three worlds behind one trait: `epoll` (mio and plain system calls), `uring` (the same operations batched through
//! one ring), `sim` (a seeded world with virtual clock, sockets and disk). `faults` wraps any of them. The contract
//! below is tested against all of them by `tests/reactor_contract`; the simulated world may never be kinder than
//! the kernel.
//!
//! # Contract
//!
//! 1. `submit` never blocks and never fails; `room` says how many more operations this turn takes. What goes wrong
//!    comes back as a completion with an errno.
//! 2. `Watch` on a socket yields `Ready` repeatedly, edge-triggered: after `Ready` the owner reads until a `Received`
//!    that did not fill its buffer, or remembers that it did not. A hang-up or error is also `Ready`; the read tells.
//!    The end of the stream may come together with bytes, in one change of readiness; the read that takes the bytes
//!    does not show it, and nothing changes after. So it is reported by a second `Ready` right behind the first, and
//!    the owner reads once more for a `Ready` that comes before it has read for the last one.
//! 3. Every operation except `Watch` and `Listen` ends with exactly one completion, also after `Close` of its socket,
//!    and also if it fails. The buffer it carried comes back in that completion.
//! 4. A `Recv` completes within the same turn it is performed in: it never waits for bytes (`EAGAIN` instead).
//!    A `Send` waits until at least one byte was taken or the socket failed. Short reads and short sends are normal.
//!    At most one `Send` per socket is in flight.
//! 5. Completions of one socket keep the order of its operations of one kind. After `Closed` nothing more comes for
//!    that socket's token.
//! 6. `Write` transfers the whole buffer or fails. A `Sync` covers every `Write` of that file that *completed*
//!    before the `Sync` was submitted. There is no order between operations in flight at once.
//! 7. `turn(deadline)` performs what was submitted, waits until there is a completion, a ring of the doorbell or the
//!    deadline, and appends completions. With the doorbell already rung or completions at hand it does not wait, but
//!    looks for readiness. It may return early with nothing to say; it does not do so over and over.
//! 8. Time is read once per turn, when its wait ends; `now` returns that reading.
//! 9. No idle connection costs the reactor memory of its own beyond its entry in the kernel's epoll set.
//! 10. `receive` is a `Recv` between two turns, for a socket with none in flight, and so is `send`; they never wait:
//!     where few sockets have something to do, that is fewer turns. A world may decline (`None`), and nothing has
//!     happened then; the owner submits the operation, as it does for what a `send` did not take.
//!
//! # What follows from it
//!
//! The token of a `Watch` lives in the kernel's epoll entry and nowhere else (item 9), so tokens at and above
//! [`TOKEN_RESERVED`] are the reactor's own. A `Watch` that the kernel refuses (no memory, too many watches) shuts
//! the socket down and is reported as `Ready`: the read that follows says end of stream. Operations are performed in
//! the order of their submission, but what they do to *different* sockets and files is not ordered.
//!
//! Sockets and files are the owner's: dropping a reactor closes none of them, and leaves no buffer that the kernel
//! may still read or write to be used again.

mod alarm;
mod calls;
mod epoll;
pub mod faults;
mod files;
mod listeners;
mod probe;
mod random;
mod readiness;
pub mod sim;
mod unix_socket;
mod uring;

use std::net::SocketAddr;
use std::sync::Arc;

pub use calls::{duplicate, forbid_core_dumps, listen, local_address, prepare_process};
pub use epoll::Epoll;
pub use probe::{AUTO_PREFERS, Backend, Probe, open, probe};
pub use random::Random;
pub use unix_socket::listen_unix;
pub use uring::Uring;

use crate::limits;

use crate::time::{Nanos, Now};

/// Who an operation belongs to; chosen by the submitter, returned unchanged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// Tokens from here on are used by the reactors themselves.
pub const TOKEN_RESERVED: Token = Token(u64::MAX - 0xFFFF);

/// A socket of this world: a descriptor in the kernel's, an index in the simulated one. Closing is by [`Op::Close`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Socket(pub i32);

/// A file of this world, opened by the journal's storage.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct File(pub i32);

/// An operation.
#[derive(Debug)]
pub enum Op {
    /// Accept connections on a listening socket until it is closed: yields `Accepted`, many times.
    Listen {
        /// The listening socket.
        socket: Socket,
        /// Returned in each `Accepted`.
        token: Token,
    },
    /// Report readiness of a connected socket from now on: yields `Ready`, many times.
    Watch {
        /// The connected socket.
        socket: Socket,
        /// Returned in each `Ready`.
        token: Token,
    },
    /// Read what is there, up to the buffer's capacity (`buffer` is cleared first).
    Recv {
        /// The watched socket.
        socket: Socket,
        /// Returned in `Received`.
        token: Token,
        /// Where to.
        buffer: Vec<u8>,
    },
    /// Send `buffer[from..]`, not empty.
    Send {
        /// The watched socket.
        socket: Socket,
        /// Returned in `Sent`.
        token: Token,
        /// What.
        buffer: Vec<u8>,
        /// Where the unsent part begins.
        from: usize,
    },
    /// Stop watching and hand the socket to another owner (its reactor will `Watch` it): yields `Detached`.
    Detach {
        /// The watched socket, with no `Send` in flight.
        socket: Socket,
        /// Returned in `Detached`.
        token: Token,
    },
    /// Close: a `Send` in flight ends with an error; yields `Closed` last. What was sent before still leaves; what
    /// arrived and was not read is discarded first, so that the peer gets an end of stream and not a reset.
    Close {
        /// The socket.
        socket: Socket,
        /// Returned in `Closed`.
        token: Token,
    },
    /// Write the whole buffer at that offset.
    Write {
        /// The file.
        file: File,
        /// Returned in `Written`.
        token: Token,
        /// Bytes from the start of the file.
        offset: u64,
        /// What.
        buffer: Vec<u8>,
    },
    /// fdatasync.
    Sync {
        /// The file.
        file: File,
        /// Returned in `Synced`.
        token: Token,
    },
}

/// What came of an operation.
#[derive(Debug)]
#[expect(
    missing_docs,
    reason = "fields repeat those of the operation; each variant says what its result means"
)]
pub enum Completion {
    /// A connection arrived, or accepting failed (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`: accepting goes on at a
    /// later turn by itself).
    Accepted { token: Token, result: Result<(Socket, SocketAddr), Errno> },
    /// Bytes, end of stream, an error, or room to send may be there.
    Ready { token: Token },
    /// `Ok(n)`: `buffer` holds `n` bytes, 0 at the end of the stream. `EAGAIN`: nothing there now.
    Received { token: Token, buffer: Vec<u8>, result: Result<usize, Errno> },
    /// `Ok(n)`, `n >= 1`: so many bytes of `buffer[from..]` were taken.
    Sent { token: Token, buffer: Vec<u8>, from: usize, result: Result<usize, Errno> },
    /// The socket is no longer watched here.
    Detached { token: Token, socket: Socket },
    /// The socket is gone.
    Closed { token: Token },
    /// All of the buffer is in the file (not yet durable), or nothing may be assumed.
    Written { token: Token, buffer: Vec<u8>, result: Result<(), Errno> },
    /// What was written before is durable, or nothing may be assumed ever again about this file.
    Synced { token: Token, result: Result<(), Errno> },
}

impl Completion {
    /// Of the operation that it completes.
    pub fn token(&self) -> Token {
        match self {
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
}

/// A kernel error number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// Whether there is no room on the disk, or none that this process may have.
    pub fn is_lack_of_room(self) -> bool {
        matches!(self.0, libc::ENOSPC | libc::EDQUOT)
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

/// Ends another thread's wait in `turn`. Cheap to clone; ringing twice before the wait ends is ringing once.
pub trait Doorbell: Send + Sync {
    /// Make the current or next `turn` return without waiting.
    fn ring(&self);
}

/// See the module documentation for the contract.
pub trait Reactor {
    /// The clocks, as read when the wait of the last turn ended.
    fn now(&self) -> Now;

    /// How many operations may still be submitted before the next `turn`.
    fn room(&self) -> usize;

    /// Queue an operation. The caller has checked `room`.
    fn submit(&mut self, op: Op);

    /// Perform, wait, report. Completions are appended to `completions`.
    fn turn(&mut self, deadline: Nanos, completions: &mut Vec<Completion>);

    /// Read what is there, up to the buffer's capacity (`buffer` is cleared first); 0 at the end of the stream,
    /// `EAGAIN` if nothing is there. `None`: submit it.
    fn receive(&mut self, socket: Socket, buffer: &mut Vec<u8>) -> Option<Result<usize, Errno>>;

    /// Send as much of `bytes`, not empty, as there is room for; `EAGAIN` if there is none. `None`: submit it.
    fn send(&mut self, socket: Socket, bytes: &[u8]) -> Option<Result<usize, Errno>>;

    /// For other threads to end this reactor's wait.
    fn doorbell(&self) -> Arc<dyn Doorbell>;
}

impl<R: Reactor + ?Sized> Reactor for Box<R> {
    fn now(&self) -> Now {
        (**self).now()
    }

    fn room(&self) -> usize {
        (**self).room()
    }

    fn submit(&mut self, op: Op) {
        (**self).submit(op);
    }

    fn turn(&mut self, deadline: Nanos, completions: &mut Vec<Completion>) {
        (**self).turn(deadline, completions);
    }

    fn receive(&mut self, socket: Socket, buffer: &mut Vec<u8>) -> Option<Result<usize, Errno>> {
        (**self).receive(socket, buffer)
    }

    fn send(&mut self, socket: Socket, bytes: &[u8]) -> Option<Result<usize, Errno>> {
        (**self).send(socket, bytes)
    }

    fn doorbell(&self) -> Arc<dyn Doorbell> {
        (**self).doorbell()
    }
}

/// The bounds of one reactor. The defaults stand in `limits.rs`; tests make them small.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Operations that may be submitted before a turn.
    pub operations_max: usize,
    /// Readiness events taken from the kernel in one turn.
    pub events_max: usize,
    /// Connections accepted from one listening socket in one turn.
    pub accepts_max: usize,
    /// Pause after accepting failed for want of descriptors or memory.
    pub accept_retry_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            operations_max: limits::REACTOR_OPERATIONS_MAX,
            events_max: limits::REACTOR_EVENTS_MAX,
            accepts_max: limits::ACCEPTS_PER_TURN_MAX,
            accept_retry_ms: limits::ACCEPT_RETRY_MS,
        }
    }
}
