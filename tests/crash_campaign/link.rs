//! A client's connection: packets out, frames in, never waiting. It may end at any moment and says so only then.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::num::NonZeroU16;

use ironpost::wire::frame::{self, Peek};
use ironpost::wire::{
    Ack, AckKind, Connack, Connect, Packet, PacketId, Properties, ReasonCode, Version, decode, encode,
};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::books::Books;

/// Larger than any packet of these tests.
const PACKET_BYTES_MAX: u32 = 1 << 20;

/// What a client says about itself.
#[derive(Clone, Debug)]
pub struct Identity {
    pub client_id: String,
    pub version: Version,
    /// The session outlives the connection.
    pub durable: bool,
    pub receive_maximum: Option<NonZeroU16>,
}

/// What a CONNACK means to a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Welcome {
    Yes,
    /// The session that there was is gone.
    Forgotten,
    No,
}

impl Identity {
    /// Judges a CONNACK. `known`: there has been a session.
    pub fn welcome(&self, connack: &Connack<'_>, known: bool, books: &mut Books) -> Welcome {
        let name = &self.client_id;
        // A broker that is about to stop says so. One that always did would be noticed by what it never delivers.
        if connack.reason == ReasonCode::ServerUnavailable {
            return Welcome::No;
        }
        if connack.reason != ReasonCode::Success {
            books.fail(format!("{name} was refused: {}", connack.reason));
            return Welcome::No;
        }
        if self.durable && known && !connack.session_present {
            books.fail(format!("the session of {name} is gone"));
            return Welcome::Forgotten;
        }
        Welcome::Yes
    }
}

/// See the module documentation.
pub struct Link {
    stream: TcpStream,
    version: Version,
    received: Vec<u8>,
    unsent: Vec<u8>,
    ended: bool,
}

impl Link {
    /// Connects and sends CONNECT. `None`: nobody listens there (any more).
    pub fn open(address: SocketAddr, registry: &Registry, token: Token, identity: &Identity) -> Option<Link> {
        let stream = std::net::TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_nonblocking(true).ok()?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).ok()?;
        let (received, unsent) = (Vec::new(), Vec::new());
        let mut link = Link { stream, version: identity.version, received, unsent, ended: false };
        link.send(&Packet::Connect(connect(identity)));
        link.flush();
        Some(link)
    }

    pub fn send(&mut self, packet: &Packet<'_>) {
        encode::packet(packet, self.version, &mut self.unsent);
    }

    pub fn acknowledge(&mut self, kind: AckKind, packet_id: PacketId) {
        self.send(&Packet::Ack(Ack { kind, packet_id, reason: ReasonCode::Success, reason_string: None }));
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self) {
        while !self.unsent.is_empty() && !self.ended {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.ended = true,
            }
        }
    }

    /// Bytes that the socket did not take yet.
    pub fn backlog(&self) -> usize {
        self.unsent.len()
    }

    /// Reads what is there, also behind a failure to write.
    pub fn fill(&mut self) {
        let mut chunk = [0; 64 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    self.ended = true;
                    return;
                }
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.ended = true;
                    return;
                }
            }
        }
    }

    /// The next whole packet that was received.
    pub fn frame(&mut self) -> Option<Vec<u8>> {
        match frame::peek(&self.received, PACKET_BYTES_MAX) {
            Ok(Peek::Complete { len }) => Some(self.received.drain(..len).collect()),
            Ok(Peek::Incomplete { .. }) => None,
            Err(error) => panic!("the broker sent what is no MQTT: {error}"),
        }
    }

    pub fn decode<'a>(&self, frame: &'a [u8]) -> Packet<'a> {
        match decode::packet(frame, Some(self.version)) {
            Ok(packet) => packet,
            Err(error) => panic!("the broker sent what is no MQTT: {error}: {frame:02x?}"),
        }
    }

    /// Nothing more will come, except for what `frame` still returns.
    pub fn has_ended(&self) -> bool {
        self.ended
    }
}

fn connect(identity: &Identity) -> Connect<'_> {
    let is_v5 = identity.version.is_v5();
    Connect {
        version: identity.version,
        clean_start: !identity.durable,
        keep_alive: 0,
        session_expiry: (identity.durable && is_v5).then_some(86_400),
        receive_maximum: identity.receive_maximum.filter(|_| is_v5),
        maximum_packet_size: None,
        topic_alias_maximum: None,
        request_response_information: false,
        request_problem_information: true,
        authentication_method: None,
        authentication_data: None,
        properties: Properties::EMPTY,
        client_id: &identity.client_id,
        will: None,
        username: None,
        password: None,
    }
}
