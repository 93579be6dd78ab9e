//! The plain system calls of the two kernel reactors, each wrapped once: arguments checked by types, errors as
//! [`Errno`], an interrupted call repeated. No policy here; who calls decides what an error means.
//!
//! libc and not std, because std cannot receive into spare capacity, choose a backlog, accept without blocking in one
//! call, or leave a descriptor unowned; and a reactor's sockets are owned by its caller's tables, not by values.
//!
//! [`listen`], [`duplicate`], [`local_address`] and [`prepare_process`] are for the start of the process, before the
//! shards' threads run.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::RawFd;

use super::{Errno, File, Socket};
use crate::limits::LISTEN_BACKLOG;
use crate::time::{Nanos, Now, UnixMs};

/// Descriptors for which the kernel's table is grown at the start; growing it later stops every thread for a grace
/// period each time it doubles.
const DESCRIPTORS_PREPARED_MAX: u64 = 4 << 20;

/// A listening, non-blocking TCP socket at `address`; port 0 takes a free one, which [`local_address`] tells.
pub fn listen(address: SocketAddr) -> io::Result<Socket> {
    let domain = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers are passed.
    let fd = check(unsafe {
        libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0)
    })
    .map_err(|error| explain(error, "create a socket for", address))?;
    let socket = Socket(fd);
    match bind_and_listen(socket, address) {
        Ok(()) => Ok(socket),
        Err(error) => {
            close(socket);
            Err(explain(error, "listen on", address))
        }
    }
}

fn bind_and_listen(socket: Socket, address: SocketAddr) -> Result<(), Errno> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    let (storage, length) = to_kernel(address);
    // SAFETY: `storage` is a whole sockaddr_storage of which the first `length` bytes are the address; the kernel
    // copies it before the call returns.
    check(unsafe { libc::bind(socket.0, (&raw const storage).cast(), length) })?;
    // SAFETY: no pointers are passed.
    check(unsafe { libc::listen(socket.0, LISTEN_BACKLOG) })?;
    Ok(())
}

fn explain(errno: Errno, what: &str, address: SocketAddr) -> io::Error {
    let cure = match errno.0 {
        libc::EADDRINUSE => {
            "another process listens there (see `ss -ltnp`); stop it or choose another address with --listen"
        }
        libc::EADDRNOTAVAIL => "no interface of this host has that address (see `ip address`)",
        libc::EACCES => "ports below 1024 need CAP_NET_BIND_SERVICE or a socket unit of systemd",
        libc::EMFILE | libc::ENFILE => "too many open files: raise LimitNOFILE",
        _ => return io::Error::new(errno_kind(errno), format!("cannot {what} {address}: {errno}")),
    };
    io::Error::new(errno_kind(errno), format!("cannot {what} {address}: {errno}: {cure}"))
}

fn errno_kind(errno: Errno) -> io::ErrorKind {
    io::Error::from_raw_os_error(errno.0).kind()
}

/// The address that a socket is bound to.
pub fn local_address(socket: Socket) -> io::Result<SocketAddr> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `storage` has room for `length` bytes, and both outlive the call.
    check(unsafe { libc::getsockname(socket.0, storage.as_mut_ptr().cast(), &raw mut length) })
        .map_err(to_io)?;
    // SAFETY: zeroed is a valid sockaddr_storage, and the kernel wrote an address over its beginning.
    from_kernel(unsafe { storage.assume_init_ref() }).ok_or_else(|| to_io(Errno(libc::EAFNOSUPPORT)))
}

/// Another descriptor of the same socket: each shard accepts from its own.
pub fn duplicate(socket: Socket) -> io::Result<Socket> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::fcntl(socket.0, libc::F_DUPFD_CLOEXEC, 3) }).map(Socket).map_err(to_io)
}

/// Raise the limit of open files as far as it goes without privilege, and grow the kernel's descriptor table to it.
/// Call it before the first thread is started. Answers the limit: about as many connections as can be held.
pub fn prepare_process() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a whole rlimit and outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }).map_err(to_io)?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above; the kernel only reads it.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map_err(to_io)?;
    let highest = (limit.rlim_cur.min(DESCRIPTORS_PREPARED_MAX) as RawFd) - 1;
    // SAFETY: no pointers are passed. The lowest free descriptor *at or above* `highest` is taken, so that one that
    // happens to be open already is not replaced.
    if let Ok(fd) = check(unsafe { libc::fcntl(2, libc::F_DUPFD_CLOEXEC, highest) }) {
        // The table is grown and stays so. Otherwise `highest` is taken, and so the table is large already, or
        // standard error is closed; growing it is not worth failing for.
        close(Socket(fd));
    }
    Ok(limit.rlim_cur)
}

/// Keep the kernel from writing this process's memory to a core dump, and other processes of its user from reading it.
///
/// A limit of zero bytes would not do: it does not hold where dumps go to a program [core(5)].
pub fn forbid_core_dumps() -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }).map(drop).map_err(to_io)
}

/// What [`accept`] found.
pub(super) enum Accepted {
    /// A connection: non-blocking, close-on-exec; `TCP_NODELAY` as on the listener, from which Linux inherits it.
    Connection(Socket, SocketAddr),
    /// Nothing waits there.
    Nothing,
    /// This one connection failed before we took it; others may wait.
    Gone,
    /// No descriptors or memory: try again later.
    Exhausted(Errno),
    /// Not a listening socket, or closed: never again.
    Broken(Errno),
}

pub(super) fn accept(listener: Socket) -> Accepted {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: `storage` has room for `length` bytes, and both outlive the call.
    let result = unsafe { libc::accept4(listener.0, storage.as_mut_ptr().cast(), &raw mut length, flags) };
    match check(result) {
        Ok(fd) => {
            // SAFETY: zeroed is a valid sockaddr_storage, and the kernel wrote an address over its beginning.
            let address = from_kernel(unsafe { storage.assume_init_ref() });
            let unknown = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
            Accepted::Connection(Socket(fd), address.unwrap_or(unknown))
        }
        Err(errno) => match errno.0 {
            libc::EAGAIN => Accepted::Nothing,
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => Accepted::Exhausted(errno),
            libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP => Accepted::Broken(errno),
            // Errors of the new connection that Linux passes on through accept, and EINTR and EPERM (a firewall).
            _ => Accepted::Gone,
        },
    }
}

/// Receive into `buffer`'s capacity; EAGAIN if nothing is there.
pub(super) fn receive(socket: Socket, buffer: &mut Vec<u8>) -> Result<usize, Errno> {
    buffer.clear();
    loop {
        // SAFETY: the pointer is valid for writes of `capacity` bytes, and no one else has the buffer.
        let count = unsafe {
            libc::recv(socket.0, buffer.as_mut_ptr().cast(), buffer.capacity(), libc::MSG_DONTWAIT)
        };
        match check_long(count) {
            Ok(count) => {
                // SAFETY: the kernel wrote `count` bytes, at most the capacity.
                unsafe { buffer.set_len(count) };
                return Ok(count);
            }
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Send what fits; EAGAIN if nothing does. Never raises SIGPIPE.
pub(super) fn send(socket: Socket, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the pointer is valid for reads of that length during the call.
        let count = unsafe { libc::send(socket.0, bytes.as_ptr().cast(), bytes.len(), flags) };
        match check_long(count) {
            Err(Errno(libc::EINTR)) => {}
            result => return result,
        }
    }
}

/// No small packet waits for the acknowledgement of an earlier one. An error means that the socket is gone already.
pub(super) fn set_no_delay(socket: Socket) {
    let _gone = set_option(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
}

/// End both directions: the peer gets an end of stream after what was sent, a waiting send ends.
pub(super) fn shut_down(socket: Socket) {
    // SAFETY: no pointers are passed. ENOTCONN means that it has ended already.
    unsafe { libc::shutdown(socket.0, libc::SHUT_RDWR) };
}

/// Throw away what has arrived, without copying it: closing a TCP socket with unread bytes sends a reset, which
/// makes the peer lose what we sent last.
pub(super) fn discard_received(socket: Socket) {
    // SAFETY: with MSG_TRUNC, TCP discards up to that many bytes and does not touch the buffer, which may be null.
    unsafe {
        libc::recv(socket.0, std::ptr::null_mut(), 1 << 24, libc::MSG_TRUNC | libc::MSG_DONTWAIT);
    }
}

pub(super) fn close(socket: Socket) {
    // SAFETY: no pointers are passed; the caller owns the descriptor and forgets it. Linux frees the descriptor
    // whatever close answers, so that it must not be repeated.
    unsafe { libc::close(socket.0) };
}

/// Write the whole buffer.
pub(super) fn write_all_at(file: File, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let at = libc::off_t::try_from(offset).map_err(|_| Errno(libc::EFBIG))?;
        // SAFETY: the pointer is valid for reads of that length during the call.
        let count = unsafe { libc::pwrite(file.0, bytes.as_ptr().cast(), bytes.len(), at) };
        match check_long(count) {
            // A regular file takes at least one byte or says why not; 0 would loop for ever.
            Ok(0) => return Err(Errno(libc::EIO)),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// fdatasync. Not repeated on any error but EINTR: after EIO the kernel has forgotten which pages were dirty.
pub(super) fn sync_data(file: File) -> Result<(), Errno> {
    loop {
        // SAFETY: no pointers are passed.
        match check(unsafe { libc::fdatasync(file.0) }) {
            Err(Errno(libc::EINTR)) => {}
            result => return result.map(|_| ()),
        }
    }
}

/// Both clocks. Monotonic time counts from the host's start, so that all shards share its zero.
pub(super) fn read_clocks() -> Now {
    let mono = read_clock(libc::CLOCK_MONOTONIC);
    let wall = read_clock(libc::CLOCK_REALTIME);
    Now { mono, wall: UnixMs(wall.0 / 1_000_000) }
}

/// The monotonic clock.
pub(super) fn read_monotonic() -> Nanos {
    read_clock(libc::CLOCK_MONOTONIC)
}

/// Have the timer expire when the monotonic clock says that.
pub(super) fn set_timer(timer: i32, deadline: Nanos) {
    // 0 would switch it off.
    let at = deadline.0.clamp(1, i64::MAX as u64);
    let value = libc::timespec {
        tv_sec: (at / 1_000_000_000) as libc::time_t,
        tv_nsec: (at % 1_000_000_000) as libc::c_long,
    };
    let once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let when = libc::itimerspec { it_interval: once, it_value: value };
    // SAFETY: `when` lives across the call, which only reads it; the old value is not asked for.
    let result = unsafe {
        libc::timerfd_settime(timer, libc::TFD_TIMER_ABSTIME, &raw const when, std::ptr::null_mut())
    };
    assert!(result == 0, "a timer of ours takes every time: {}", last_error());
}

fn read_clock(clock: libc::clockid_t) -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a whole timespec and outlives the call. Both clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    Nanos((time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64))
}

fn set_option(socket: Socket, level: i32, name: i32, value: i32) -> Result<(), Errno> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` is an int and `length` its size; the kernel copies it before the call returns.
    check(unsafe { libc::setsockopt(socket.0, level, name, (&raw const value).cast(), length) }).map(|_| ())
}

fn to_kernel(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all zeroes is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_storage is large enough and aligned for every address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

/// An IPv4 client of an IPv6 listener is shown as what it is.
fn from_kernel(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which of the layouts was written; storage is large enough for it.
            let raw = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(raw.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let raw = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            match ip.to_ipv4_mapped() {
                Some(v4) => Some(SocketAddr::V4(SocketAddrV4::new(v4, port))),
                None => {
                    Some(SocketAddr::V6(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id)))
                }
            }
        }
        _ => None,
    }
}

fn check(result: i32) -> Result<i32, Errno> {
    if result < 0 { Err(last_error()) } else { Ok(result) }
}

fn check_long(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| last_error())
}

/// The errno of the call that just failed.
pub(super) fn last_error() -> Errno {
    Errno(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

fn to_io(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.0)
}

/// The errno inside an error of a library that made the call for us.
pub(super) fn errno_of(error: &io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}
