//! One non-blocking connection: bytes in, cut into frames by its owner; bytes out, coalesced into one write.
//!
//! Decides nothing about MQTT. Owned by `fleet::Fleet` on the client's side, where TLS may lie between the bytes and the
//! socket, and by `floor` on the server's side.
//!
//! Invariants: `carry` holds only the beginning of one incomplete packet; `outbound[..written]` is already with the
//! kernel, or with TLS; the socket waits for writability only while something is left that could be written, and for bytes
//! unless it is paused.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use super::tls;
use crate::poll::{Interest, Poller};

/// The largest unsent backlog one connection may hold. Past it something is wrong with the peer, not with the load.
const OUTBOUND_BYTES_MAX: usize = 256 << 20;

/// A socket with its two buffers.
pub struct Link {
    stream: TcpStream,
    tls: Option<tls::Connection>,
    token: u64,
    /// The beginning of a packet whose rest has not arrived.
    carry: Vec<u8>,
    /// What is to be sent, or partly sent.
    pub outbound: Vec<u8>,
    written: usize,
    /// The kernel did not take all that it was given.
    is_blocked: bool,
    interest: Interest,
    paused: bool,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    /// This many bytes stand at the front of the scratch buffer, the carried ones included.
    Bytes(usize),
    /// Nothing, for now.
    Nothing,
    /// The peer has closed.
    End,
}

impl Link {
    /// Registers a connected or connecting socket; a connecting one asks to be told when it is writable.
    pub fn register(stream: TcpStream, poller: &Poller, token: u64, interest: Interest) -> io::Result<Link> {
        poller.add(&stream, token, interest)?;
        Ok(Link {
            stream,
            tls: None,
            token,
            carry: Vec::new(),
            outbound: Vec::new(),
            written: 0,
            is_blocked: false,
            interest,
            paused: false,
        })
    }

    /// From now on everything goes through TLS; nothing has gone without.
    pub fn wrap(&mut self, tls: tls::Connection) {
        self.tls = Some(tls);
    }

    /// Reads once into `scratch`, behind the beginning of a packet kept from the last time.
    pub fn read(&mut self, scratch: &mut Vec<u8>) -> io::Result<Arrived> {
        let kept = self.carry.len();
        if scratch.len() < kept * 2 {
            // A packet larger than the buffer: grow it, or the read below would have no room.
            scratch.resize(kept * 2, 0);
        }
        let received = match &mut self.tls {
            None => self.stream.read(&mut scratch[kept..]),
            Some(tls) => tls.read(&mut self.stream, &mut scratch[kept..]),
        };
        match received {
            Ok(0) => Ok(Arrived::End),
            Ok(count) => {
                scratch[..kept].copy_from_slice(&self.carry);
                self.carry.clear();
                Ok(Arrived::Bytes(kept + count))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Ok(Arrived::Nothing)
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Arrived::End),
            Err(error) => Err(error),
        }
    }

    /// Keeps the beginning of a packet until the rest arrives.
    pub fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() && self.carry.capacity() > 4_096 {
            self.carry = Vec::new();
        }
        self.carry.extend_from_slice(rest);
    }

    /// Writes what is outstanding, as far as the kernel takes it, and waits for writability if that was not all.
    pub fn flush(&mut self, poller: &Poller) -> io::Result<()> {
        self.is_blocked = self.send()?;
        if self.written == self.outbound.len() {
            self.outbound.clear();
            self.written = 0;
        } else if self.outbound.len() - self.written > OUTBOUND_BYTES_MAX {
            return Err(io::Error::other("the peer does not read: the unsent backlog passed its bound"));
        } else if self.written > self.outbound.len() / 2 {
            self.outbound.drain(..self.written);
            self.written = 0;
        }
        self.watch(poller)
    }

    /// Gives bytes to the kernel until it takes no more; whether that was not all. Before TLS has keys, what is outstanding
    /// waits for the peer and not for the kernel.
    fn send(&mut self) -> io::Result<bool> {
        if let Some(tls) = &mut self.tls {
            let (taken, is_blocked) = tls.write(&mut self.stream, &self.outbound[self.written..])?;
            self.written += taken;
            return Ok(is_blocked);
        }
        while self.written < self.outbound.len() {
            match self.stream.write(&self.outbound[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Whether what was read last lets TLS go on: with a step of its handshake, or with what waited for its end.
    pub fn has_more_to_say(&self) -> bool {
        let waits = self.written < self.outbound.len();
        self.tls.as_ref().is_some_and(|tls| tls.wants_to_write() || waits && tls.is_established())
    }

    /// What both sides of TLS agreed on, once they have.
    pub fn negotiated(&self) -> Option<String> {
        self.tls.as_ref().filter(|tls| tls.is_established()).map(tls::Connection::negotiated)
    }

    /// Stops to read the peer, or begins again: what it sends meanwhile fills the kernel's buffers, then its own.
    pub fn pause(&mut self, poller: &Poller, paused: bool) -> io::Result<()> {
        self.paused = paused;
        self.watch(poller)
    }

    fn watch(&mut self, poller: &Poller) -> io::Result<()> {
        let interest = match (self.paused, self.is_blocked) {
            (true, false) => Interest::Nothing,
            (true, true) => Interest::Write,
            (false, false) => Interest::Read,
            (false, true) => Interest::ReadWrite,
        };
        if self.interest != interest {
            poller.change(&self.stream, self.token, interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}
