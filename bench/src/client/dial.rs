//! Opens a client's socket: non-blocking, from a source address that keeps thousands of them apart.
//!
//! Decides the source address of client number N. One loopback address has about 28,000 ephemeral ports, and a broker
//! may limit the connections of one address, so clients spread over 127.64.0.0/10, a thousand to each address. With
//! `IP_BIND_ADDRESS_NO_PORT` the port is chosen at `connect`, where only the four-tuple has to be unique.
//! Targets off the loopback network get no source address: there the routing table knows better.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Clients that share one source address.
const CLIENTS_PER_ADDRESS: usize = 1_000;

/// The loopback address that client `index` comes from.
pub fn source_address(index: usize) -> Ipv4Addr {
    let number = (index / CLIENTS_PER_ADDRESS) as u32 % (1 << 22);
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64, 0, 1)) + number)
}

/// Starts to connect client `index` to `target`; the socket is writable when that has succeeded or failed.
pub fn dial(target: SocketAddr, index: usize) -> io::Result<TcpStream> {
    let domain = if target.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointer is passed; the result is checked before it becomes an owned descriptor.
    let fd = unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    match target {
        SocketAddr::V4(target) => {
            if target.ip().is_loopback() {
                set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)?;
                bind(fd, SocketAddrV4::new(source_address(index), 0))?;
            }
            set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
            start_connect(fd, target)?;
            Ok(TcpStream::from(socket))
        }
        // Only loopback IPv4 needs thousands of sources; anything else connects the ordinary way.
        SocketAddr::V6(_) => {
            let stream = TcpStream::connect(target)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
    }
}

/// Gives a socket the smallest receive buffer there is: a peer that is not read notices it sooner.
pub fn narrow(socket: &TcpStream) -> io::Result<()> {
    // One byte is asked for; the kernel raises it to its least.
    set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF)
}

/// Sets an option to 1.
fn set_option(fd: RawFd, level: i32, option: i32) -> io::Result<()> {
    let on: i32 = 1;
    let size = mem::size_of_val(&on) as libc::socklen_t;
    // SAFETY: the pointer and the size describe `on`, which the call only reads.
    check(unsafe { libc::setsockopt(fd, level, option, (&raw const on).cast(), size) })
}

fn bind(fd: RawFd, address: SocketAddrV4) -> io::Result<()> {
    let address = socket_address(address);
    let size = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer and the size describe `address`, which the call only reads.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), size) })
}

fn start_connect(fd: RawFd, address: SocketAddrV4) -> io::Result<()> {
    let address = socket_address(address);
    let size = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer and the size describe `address`, which the call only reads.
    match check(unsafe { libc::connect(fd, (&raw const address).cast(), size) }) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        other => other,
    }
}

fn socket_address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_thousand_clients_share_an_address_and_the_next_one_does_not() {
        assert_eq!(source_address(0), Ipv4Addr::new(127, 64, 0, 1));
        assert_eq!(source_address(999), Ipv4Addr::new(127, 64, 0, 1));
        assert_eq!(source_address(1_000), Ipv4Addr::new(127, 64, 0, 2));
        assert_eq!(source_address(255_000), Ipv4Addr::new(127, 64, 1, 0));
        assert!(source_address(usize::MAX).is_loopback());
    }

    #[test]
    fn a_dialled_socket_arrives_from_its_source_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = dial(listener.local_addr().unwrap(), 5_000).unwrap();
        let (_accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), source_address(5_000));
        assert_eq!(stream.local_addr().unwrap(), peer);
    }
}
