//! A connection to a broker: opened by CONNECT and CONNACK, then packets out and frames in, kept alive meanwhile.
//!
//! Decides when to ping and when to give up; what the packets mean is the caller's. Invariant: between two calls
//! nothing written is unsent.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::error::ClientError;
use crate::limits;
use crate::wire::frame::{self, Peek};
use crate::wire::{
    Connect, DecodeError, Disconnect, Packet, Properties, ReasonCode, Version, decode, encode,
};

/// How long a client without keep alive waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the server may take to end a connection that was taken leave of.
const LEAVE_TIME: Duration = Duration::from_secs(2);

/// Publishes unacknowledged at once to a server of 3.1.1, which cannot say what it takes; the least that servers and
/// clients of that version commonly agree on.
const WINDOW_V3: u16 = 20;

/// First byte of a PINGRESP, which needs no further look.
const PINGRESP: u8 = 0xD0;

/// What to connect with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Protocol.
    pub version: Version,
    /// May be empty: the server assigns one.
    pub client_id: String,
    /// Begin without what an earlier session left.
    pub clean_start: bool,
    /// Seconds the session outlives the connection (v5; a v3 session without clean start just stays).
    pub session_expiry_s: u32,
    /// Seconds between signs of life; 0 for none.
    pub keep_alive_s: u16,
    /// User name.
    pub username: Option<String>,
    /// Password; never printed.
    pub password: Option<String>,
}

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    version: Version,
    /// Received and not yet taken; begins at a packet.
    received: Vec<u8>,
    output: Vec<u8>,
    keep_alive: Option<Duration>,
    last_sent: Instant,
    ping_unanswered: bool,
    session_present: bool,
    window: u16,
}

impl Connection {
    /// Connects and waits for the CONNACK.
    pub fn open(options: &Options) -> Result<Connection, ClientError> {
        let address = format!("{}:{}", options.host, options.port);
        let stream = TcpStream::connect((options.host.as_str(), options.port))
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|error| ClientError::Unreachable { address, error })?;
        let mut connection = Connection {
            stream,
            version: options.version,
            received: Vec::new(),
            output: Vec::new(),
            keep_alive: None,
            last_sent: now(),
            ping_unanswered: false,
            session_present: false,
            window: if options.version.is_v5() { limits::SEND_WINDOW_DEFAULT } else { WINDOW_V3 },
        };
        connection.send(&Packet::Connect(connect_packet(options)))?;
        connection.take_connack(options.keep_alive_s)?;
        Ok(connection)
    }

    fn take_connack(&mut self, keep_alive_s: u16) -> Result<(), ClientError> {
        let mut frame = Vec::new();
        self.receive(&mut frame)?;
        let Packet::Connack(connack) = self.decode(&frame)? else {
            return Err(ClientError::Unexpected("packet other than CONNACK"));
        };
        if connack.reason != ReasonCode::Success {
            let text = connack.reason_string.map(str::to_owned);
            return Err(ClientError::Refused { reason: connack.reason, text });
        }
        self.session_present = connack.session_present;
        self.window = self.window.min(connack.receive_maximum.map_or(u16::MAX, u16::from));
        let keep_alive_s = connack.server_keep_alive.unwrap_or(keep_alive_s);
        self.keep_alive = (keep_alive_s > 0).then(|| Duration::from_secs(keep_alive_s.into()));
        Ok(())
    }

    /// The protocol spoken.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether the server had a session of this client.
    pub fn session_present(&self) -> bool {
        self.session_present
    }

    /// Publishes that may be without their final acknowledgement at once.
    pub fn window(&self) -> usize {
        usize::from(self.window)
    }

    /// Writes the packet.
    pub fn send(&mut self, packet: &Packet<'_>) -> Result<(), ClientError> {
        self.output.clear();
        encode::packet(packet, self.version, &mut self.output);
        self.stream.write_all(&self.output).map_err(ClientError::Io)?;
        self.last_sent = now();
        Ok(())
    }

    /// Waits for the next packet and puts its bytes into `frame`. Pings are sent and answers to them taken here.
    pub fn receive(&mut self, frame: &mut Vec<u8>) -> Result<(), ClientError> {
        loop {
            match frame::peek(&self.received, limits::PACKET_BYTES_MAX).map_err(ClientError::Malformed)? {
                Peek::Complete { len } => {
                    frame.clear();
                    frame.extend(self.received.drain(..len));
                    if frame[0] == PINGRESP {
                        self.ping_unanswered = false;
                        continue;
                    }
                    return Ok(());
                }
                Peek::Incomplete { .. } => self.fill()?,
            }
        }
    }

    /// Takes leave. Reads to the end of the stream, bounded in time: closing with bytes unread would reset the
    /// connection, and the server might lose the acknowledgements that it has not read yet.
    pub fn close(&mut self) -> Result<(), ClientError> {
        self.send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            session_expiry: None,
            reason_string: None,
            server_reference: None,
        }))?;
        let mut chunk = [0; 16 << 10];
        self.stream
            .shutdown(Shutdown::Write)
            .and_then(|()| self.stream.set_read_timeout(Some(LEAVE_TIME)))
            .map_err(ClientError::Io)?;
        let begin = now();
        while now().duration_since(begin) < LEAVE_TIME && matches!(self.stream.read(&mut chunk), Ok(1..)) {}
        Ok(())
    }

    /// What a frame says. A DISCONNECT is an error.
    pub fn decode<'a>(&self, frame: &'a [u8]) -> Result<Packet<'a>, ClientError> {
        match decode::packet(frame, Some(self.version)) {
            Ok(Packet::Disconnect(disconnect)) => {
                let text = disconnect.reason_string.map(str::to_owned);
                Err(ClientError::Disconnected { reason: disconnect.reason, text })
            }
            Ok(packet) => Ok(packet),
            Err(error) => Err(self.refused_with_v3_code(frame).unwrap_or(ClientError::Malformed(error))),
        }
    }

    /// A server that does not know version 5 answers it with a CONNACK of 3.1.1.
    fn refused_with_v3_code(&self, frame: &[u8]) -> Option<ClientError> {
        let is_connack = frame.first() == Some(&0x20) && self.version.is_v5();
        let decoded: Result<Packet<'_>, DecodeError> = decode::packet(frame, Some(Version::V311));
        match decoded {
            Ok(Packet::Connack(connack)) if is_connack => {
                Some(ClientError::Refused { reason: connack.reason, text: None })
            }
            _ => None,
        }
    }

    /// Reads what is there, or waits for it, with a sign of life in time.
    fn fill(&mut self) -> Result<(), ClientError> {
        // Half the interval: the server allows one and a half, and the way there takes time too.
        let interval = self.keep_alive.map_or(PATIENCE, |keep_alive| keep_alive / 2);
        let silent = now().duration_since(self.last_sent);
        if self.keep_alive.is_some() && silent >= interval && !self.ping_unanswered {
            self.ping()?;
        }
        let mut chunk = [0; 16 << 10];
        self.stream.set_read_timeout(Some(interval)).map_err(ClientError::Io)?;
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(ClientError::Closed),
            Ok(count) => {
                self.received.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if self.keep_alive.is_none() || self.ping_unanswered {
                    return Err(ClientError::NoAnswer);
                }
                self.ping()
            }
            Err(error) => Err(ClientError::Io(error)),
        }
    }

    fn ping(&mut self) -> Result<(), ClientError> {
        self.ping_unanswered = true;
        self.send(&Packet::Pingreq)
    }
}

fn connect_packet(options: &Options) -> Connect<'_> {
    Connect {
        version: options.version,
        clean_start: options.clean_start,
        keep_alive: options.keep_alive_s,
        session_expiry: (options.session_expiry_s > 0).then_some(options.session_expiry_s),
        receive_maximum: None,
        maximum_packet_size: None,
        topic_alias_maximum: None,
        request_response_information: false,
        request_problem_information: true,
        authentication_method: None,
        authentication_data: None,
        properties: Properties::EMPTY,
        client_id: &options.client_id,
        will: None,
        username: options.username.as_deref(),
        password: options.password.as_deref().map(str::as_bytes),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a client on its own thread has no reactor to ask for the time"
)]
fn now() -> Instant {
    Instant::now()
}
