//! How the ring ends a wait on the epoll set: an eventfd in the set that the kernel rings when an operation has ended.
//!
//! Most operations end while they are submitted, and a busy reactor looks into the ring every turn. So the kernel is
//! told to ring only while a wait lasts that something in the ring may end. (A ring that defers its work to its own
//! thread does not report through its own descriptor that there is some; seen on Linux 6.18.)

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use io_uring::IoUring;
use mio::unix::SourceFd;
use mio::{Interest, Registry};

use crate::reactor::readiness::{self, RING};

/// See the module documentation.
pub(super) struct Ended {
    /// Open for as long as the kernel may ring it.
    _eventfd: OwnedFd,
}

impl Ended {
    /// For that ring, in that set, under `RING`. Edge-triggered, so that nobody has to read it.
    pub(super) fn new(ring: &mut IoUring, registry: &Registry) -> io::Result<Ended> {
        // SAFETY: no pointer is passed; the result is checked before it becomes an owned descriptor.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
        let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
        registry.register(&mut SourceFd(&fd), readiness::number(RING), Interest::READABLE)?;
        ring.submitter().register_eventfd(eventfd.as_raw_fd())?;
        ring.completion().disable_eventfd();
        Ok(Ended { _eventfd: eventfd })
    }

    /// Whether something has ended that was not taken yet: its completion is there, or found no room in the ring, or there
    /// is work that leads to it.
    pub(super) fn is_any(&self, ring: &mut IoUring) -> bool {
        let submissions = ring.submission();
        let is_any_to_come = submissions.taskrun() || submissions.cq_overflow();
        drop(submissions);
        is_any_to_come || !ring.completion().is_empty()
    }

    /// From now on the set reports what ends; `true` if something has ended before.
    pub(super) fn announce(&self, ring: &mut IoUring) -> bool {
        ring.completion().enable_eventfd();
        // The kernel notes what has ended, then looks whether to ring. We say that it is to ring, then look. Where a processor
        // lets the kernel look first, a ring may be missed; then the deadline of the wait finds what has ended.
        fence(Ordering::SeqCst);
        self.is_any(ring)
    }

    /// The wait is over.
    pub(super) fn announce_no_more(&self, ring: &mut IoUring) {
        ring.completion().disable_eventfd();
    }
}
