//! The deadline of a wait, as a timer in the epoll set.
//!
//! A wait with a timeout sets a timer in the kernel and takes it back when something else ends it, which is nearly every
//! wait: on a virtual machine each of the two leaves the machine. Deadlines are mostly further away than the next packet, and
//! mostly move away. So one timer stays set across waits, and is set anew only for a deadline that is earlier than it is;
//! where it rings too early, the wait goes on.
//!
//! Invariant: while `set_for` is not `NEVER`, the set will report the timer by then, or has something to report already.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use super::calls;
use super::readiness::{self, ALARM};
use crate::time::Nanos;

/// See the module documentation.
pub(super) struct Alarm {
    timer: OwnedFd,
    set_for: Nanos,
}

impl Alarm {
    /// A timer in that set, under `ALARM`. Edge-triggered, so that nobody has to read it.
    pub(super) fn new(registry: &Registry) -> io::Result<Alarm> {
        // SAFETY: no pointer is passed; the result is checked before it becomes an owned descriptor.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
        let timer = unsafe { OwnedFd::from_raw_fd(fd) };
        registry.register(&mut SourceFd(&fd), readiness::number(ALARM), Interest::READABLE)?;
        Ok(Alarm { timer, set_for: Nanos::NEVER })
    }

    /// The set reports something by then, if not before. A moment that has passed is reported at once.
    pub(super) fn by(&mut self, deadline: Nanos) {
        if deadline >= self.set_for {
            return;
        }
        calls::set_timer(self.descriptor(), deadline);
        self.set_for = deadline;
    }

    /// The set has reported the timer.
    pub(super) fn rang(&mut self) {
        self.set_for = Nanos::NEVER;
    }

    fn descriptor(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}
