//! The kernel's side of kTLS: a socket gets keys, and says of what type a record was
//! [Linux, Documentation/networking/tls.rst].

use std::io::{Error, Result};
use std::mem::{size_of, zeroed};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use libc::{c_int, c_void};
use rustls::ConnectionTrafficSecrets;

/// linux/tls.h; the crate has its counterpart alone.
pub const TLS_RX: c_int = 2;
const TCP_ULP: c_int = 31;
const TLS_1_3: u16 = 0x0304;
const AES_GCM_128: u16 = 51;
const AES_GCM_256: u16 = 52;
const CHACHA20_POLY1305: u16 = 54;

/// From now on what goes through it can be records.
pub fn begin(socket: &TcpStream) -> Result<()> {
    set(socket, libc::SOL_TCP, TCP_ULP, b"tls")
}

/// Gives one direction its key, with the number of the next record.
pub fn keys(socket: &TcpStream, direction: c_int, secrets: &(u64, ConnectionTrafficSecrets)) -> Result<()> {
    let (sequence, secret) = secrets;
    let (cipher, key, iv) = match secret {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (AES_GCM_128, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (AES_GCM_256, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (CHACHA20_POLY1305, key, iv),
        _ => return Err(Error::other("a cipher that the kernel does not have")),
    };
    // `struct tls12_crypto_info_*`: version, cipher, then iv, key, salt, sequence. AES has a salt of the first four bytes of
    // the nonce; ChaCha20 has none.
    let iv = iv.as_ref();
    let salt = if cipher == CHACHA20_POLY1305 { 0 } else { 4 };
    let mut info = Vec::new();
    info.extend_from_slice(&TLS_1_3.to_ne_bytes());
    info.extend_from_slice(&cipher.to_ne_bytes());
    info.extend_from_slice(&iv[salt..]);
    info.extend_from_slice(key.as_ref());
    info.extend_from_slice(&iv[..salt]);
    info.extend_from_slice(&sequence.to_be_bytes());
    set(socket, libc::SOL_TLS, direction, &info)
}

/// The next record: its type, and what is in it.
pub fn record(socket: &TcpStream) -> Result<(u8, Vec<u8>)> {
    let (mut content, mut control) = (vec![0u8; 256], [0u64; 8]);
    let mut part = libc::iovec { iov_base: content.as_mut_ptr().cast(), iov_len: content.len() };
    // SAFETY: all zero is a header without anything.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: the header names memory that outlives the call, with its lengths.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    if length < 0 {
        return Err(Error::last_os_error());
    }
    content.truncate(length as usize);
    // SAFETY: the kernel has filled it in.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    if first.is_null() {
        return Err(Error::other("a record without a type"));
    }
    // SAFETY: it is there, and so is its data: one byte.
    let kind = unsafe { *libc::CMSG_DATA(first) };
    Ok((kind, content))
}

fn set(socket: &TcpStream, level: c_int, name: c_int, value: &[u8]) -> Result<()> {
    // SAFETY: the value is memory that outlives the call, with its length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast::<c_void>(),
            value.len() as libc::socklen_t,
        )
    };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

const _: () = assert!(size_of::<libc::tls12_crypto_info_aes_gcm_128>() == 4 + 8 + 16 + 4 + 8);
