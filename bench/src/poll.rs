//! A level-triggered epoll set: which sockets are ready, by the number they were registered with.
//!
//! Level-triggered on purpose: one `read` per ready socket and turn is then enough, whatever it left behind. It is
//! written on `libc` because both the generator and the floor relay must cost next to nothing, and this is all they need.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

/// What a registered socket is waited for. Its end and its errors are always reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Only its end: the peer is not read.
    Nothing,
    Read,
    Write,
    ReadWrite,
}

/// One ready socket.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    pub token: u64,
    /// Bytes, the end of the stream or an error can be read.
    pub readable: bool,
    pub writable: bool,
}

/// The epoll set and room for one batch of its events.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// How many events one turn takes: enough that a busy turn spreads one system call over many sockets.
const BATCH_MAX: usize = 1_024;

impl Poller {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed; the result is checked before it becomes an owned descriptor.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Poller { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; BATCH_MAX] })
    }

    /// Starts to watch `socket`. Closing the socket ends it.
    pub fn add(&self, socket: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket.as_raw_fd(), token, interest)
    }

    /// Changes what `socket` is watched for.
    pub fn change(&self, socket: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket.as_raw_fd(), token, interest)
    }

    fn control(&self, operation: i32, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        let events = match interest {
            Interest::Nothing => 0,
            Interest::Read => libc::EPOLLIN,
            Interest::Write => libc::EPOLLOUT,
            Interest::ReadWrite => libc::EPOLLIN | libc::EPOLLOUT,
        };
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: `event` lives across the call, which only reads it; a stale descriptor is an error, not a fault.
        let result = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits up to `timeout` (`None`: without end) and returns how many sockets are ready; [`Poller::ready`] names them.
    /// Not rounded to milliseconds: an open loop has something to send in between.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the pointer and the count describe `self.events`, which is exclusively borrowed for the call; the
        // timeout is null or lives across it; no signal mask is given.
        let count = unsafe {
            let capacity = self.events.len() as i32;
            let (epoll, events) = (self.epoll.as_raw_fd(), self.events.as_mut_ptr());
            libc::epoll_pwait2(epoll, events, capacity, timeout, ptr::null())
        };
        if count >= 0 {
            return Ok(count as usize);
        }
        match io::Error::last_os_error() {
            interrupted if interrupted.kind() == io::ErrorKind::Interrupted => Ok(0),
            other => Err(other),
        }
    }

    /// Event `index` of the last [`Poller::wait`].
    pub fn ready(&self, index: usize) -> Ready {
        let event = self.events[index];
        let readable = (libc::EPOLLIN | libc::EPOLLERR | libc::EPOLLHUP | libc::EPOLLRDHUP) as u32;
        let token = event.u64;
        Ready {
            token,
            readable: event.events & readable != 0,
            writable: event.events & libc::EPOLLOUT as u32 != 0,
        }
    }
}
