//! WebSocket [RFC 6455] that carries MQTT in binary messages `[MQTT-6.0.0-1]`.
//!
//! The request and the headers of frames are parsed by `tungstenite`. Payloads are not collected: packets may begin and
//! end anywhere in messages [MQTT-6.0.0-2], so what is there of a frame is unmasked where it was received, and handed on
//! at once. A frame may therefore be of any size; packets have a bound of their own. Bounded here: the request
//! ([`HTTP_REQUEST_BYTES_MAX`]) and control frames (125 bytes, RFC 6455 5.5).

#[cfg(test)]
mod tests;

use std::io::Cursor;
use std::sync::Arc;

use tungstenite::error::ProtocolError;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::HeaderValue;
use tungstenite::http::header::{ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::Broken;
use crate::limits::HTTP_REQUEST_BYTES_MAX;

/// The subprotocol that a client has to offer [MQTT-6.0.0-3], and what it was called in MQTT 3.1, for who offers nothing else.
/// [MQTT-6.0.0-4] has it sent back.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// The longest header of a frame [RFC 6455 5.2].
const HEADER_BYTES_MAX: usize = 14;

/// The longest payload of a control frame [RFC 6455 5.5].
const CONTROL_BYTES_MAX: u64 = 125;

/// What the connections of one listener have in common.
#[derive(Debug, Default)]
pub struct Web {
    /// Pages from elsewhere are refused. Empty: whatever page it is.
    pub origins: Vec<String>,
}

/// One connection's.
pub(super) struct Session {
    web: Arc<Web>,
    state: State,
    /// To be sent before anything else.
    answers: Vec<u8>,
    /// The payload of the last ping, if that was not answered. Who does not read is owed no more than that
    /// [RFC 6455 5.5.3].
    ping: Option<Vec<u8>>,
    is_ended: bool,
}

enum State {
    /// What has come of the request.
    Request(Vec<u8>),
    Open(Frames),
    /// We have said that nothing more comes, or refused the request.
    Closed,
}

/// Where it stands in the stream of frames.
#[derive(Default)]
struct Frames {
    /// The beginning of a header.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// A message has begun, and its last frame has not come.
    is_within_message: bool,
    current: Option<Frame>,
}

/// A frame whose payload is under way.
struct Frame {
    control: Option<Control>,
    mask: [u8; 4],
    left: u64,
    /// Of its payload, a control frame's only.
    payload: Vec<u8>,
}

/// Why a connection is closed, for the peer and for the log.
type Refusal = (CloseCode, &'static str);

impl Session {
    pub(super) fn new(web: &Arc<Web>) -> Session {
        let state = State::Request(Vec::new());
        Session { web: web.clone(), state, answers: Vec::new(), ping: None, is_ended: false }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    pub(super) fn wants_to_send(&self) -> bool {
        !self.answers.is_empty() || self.ping.is_some()
    }

    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        let request = if let State::Request(bytes) = &self.state { bytes.capacity() } else { 0 };
        request + self.answers.capacity() + self.ping.as_ref().map_or(0, Vec::capacity)
    }

    pub(super) fn receive(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Broken> {
        match &mut self.state {
            State::Request(request) => {
                // Empty lines in front of a request are nothing [RFC 9112 2.2], however they come.
                let in_front = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                let bytes = if request.is_empty() { &bytes[in_front..] } else { &*bytes };
                // What ends in an empty line cannot end before it comes.
                let searched = request.len().saturating_sub(3);
                request.extend_from_slice(bytes);
                let is_whole = request[searched..].windows(4).any(|four| four == b"\r\n\r\n");
                if !is_whole && request.len() <= HTTP_REQUEST_BYTES_MAX {
                    return Ok(());
                }
                let mut request = std::mem::take(request);
                let length = self.shake_hands(&request)?;
                self.frames(&mut request[length..], plain)
            }
            State::Open(_) => self.frames(bytes, plain),
            State::Closed => Ok(()),
        }
    }

    /// Answers the request; returns how long it was.
    fn shake_hands(&mut self, request: &[u8]) -> Result<usize, Broken> {
        let refused = match parse(request, &self.web) {
            Ok((length, response)) => {
                self.answers.extend_from_slice(&response);
                self.state = State::Open(Frames::default());
                return Ok(length);
            }
            Err(refused) => refused,
        };
        self.state = State::Closed;
        let (status, more, text) = refused;
        let length = text.len() + 1;
        let answer = format!(
            "HTTP/1.1 {status}\r\n{more}Connection: close\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}\n"
        );
        self.answers.extend_from_slice(answer.as_bytes());
        Err(Broken::Peer(text.to_owned()))
    }

    /// Takes what the connection carries after the handshake.
    fn frames(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Broken> {
        let State::Open(frames) = &mut self.state else { return Ok(()) };
        let mut rest = bytes;
        while !rest.is_empty() {
            let whole = match frames.take(&mut rest, plain) {
                Ok(Some(whole)) => whole,
                Ok(None) => continue,
                Err((code, text)) => {
                    self.end(code);
                    return Err(Broken::Peer(text.to_owned()));
                }
            };
            match whole {
                (Control::Ping, payload) => self.ping = Some(payload),
                (Control::Close, payload) => {
                    let code = match close_code(&payload) {
                        Ok(code) => code,
                        Err((code, text)) => {
                            self.end(code);
                            return Err(Broken::Peer(text.to_owned()));
                        }
                    };
                    self.is_ended = true;
                    self.end(code);
                    return Ok(());
                }
                // Nobody was asked.
                _ => {}
            }
        }
        Ok(())
    }

    /// Says why nothing more comes.
    fn end(&mut self, code: CloseCode) {
        self.state = State::Closed;
        put_frame(OpCode::Control(Control::Close), &u16::from(code).to_be_bytes(), &mut self.answers);
    }

    pub(super) fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) {
        wire.append(&mut std::mem::take(&mut self.answers));
        if let (Some(payload), State::Open(_)) = (self.ping.take(), &self.state) {
            put_frame(OpCode::Control(Control::Pong), &payload, wire);
        }
        if !plain.is_empty() && matches!(self.state, State::Open(_)) {
            put_frame(OpCode::Data(Data::Binary), plain, wire);
        }
    }

    pub(super) fn close(&mut self, wire: &mut Vec<u8>) {
        if matches!(self.state, State::Open(_)) {
            self.end(CloseCode::Normal);
        }
        wire.append(&mut std::mem::take(&mut self.answers));
    }
}

impl Frames {
    /// Takes a header, or a piece of a payload, from the front of `bytes`. A control frame that is whole is returned.
    fn take(
        &mut self,
        bytes: &mut &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<Option<(Control, Vec<u8>)>, Refusal> {
        let Some(frame) = &mut self.current else {
            if let Some(frame) = self.take_header(bytes)? {
                self.current = Some(frame);
            }
            return Ok(self.take_whole());
        };
        let length = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len());
        let (piece, rest) = std::mem::take(bytes).split_at_mut(length);
        *bytes = rest;
        unmask(piece, frame.mask);
        frame.mask.rotate_left(length % 4);
        frame.left -= length as u64;
        if frame.control.is_some() { &mut frame.payload } else { plain }.extend_from_slice(piece);
        Ok(self.take_whole())
    }

    /// The control frame that is whole now. One with data has been handed on already.
    fn take_whole(&mut self) -> Option<(Control, Vec<u8>)> {
        let frame = self.current.take_if(|frame| frame.left == 0)?;
        Some((frame.control?, frame.payload))
    }

    fn take_header(&mut self, bytes: &mut &mut [u8]) -> Result<Option<Frame>, Refusal> {
        let before = usize::from(self.header_len);
        let count = bytes.len().min(HEADER_BYTES_MAX - before);
        self.header[before..before + count].copy_from_slice(&bytes[..count]);
        let mut cursor = Cursor::new(&self.header[..before + count]);
        let parsed =
            FrameHeader::parse(&mut cursor).map_err(|_| (CloseCode::Protocol, "unknown kind of frame"))?;
        let Some((header, length)) = parsed else {
            self.header_len = (before + count) as u8;
            *bytes = &mut [];
            return Ok(None);
        };
        // Of what was taken, some may be payload.
        let taken = cursor.position() as usize - before;
        *bytes = &mut std::mem::take(bytes)[taken..];
        self.header_len = 0;
        self.begin(&header, length).map(Some)
    }

    fn begin(&mut self, header: &FrameHeader, length: u64) -> Result<Frame, Refusal> {
        let wrong = |text| Err((CloseCode::Protocol, text));
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return wrong("frame of an extension that was not agreed on");
        }
        let Some(mask) = header.mask else { return wrong("frame without a mask") };
        if length > i64::MAX as u64 {
            return wrong("frame of more than 2^63 bytes");
        }
        let control = match header.opcode {
            OpCode::Control(_) if !header.is_final || length > CONTROL_BYTES_MAX => {
                return wrong("control frame in pieces, or too long");
            }
            OpCode::Control(control) => Some(control),
            OpCode::Data(Data::Text) => return Err((CloseCode::Unsupported, "text where MQTT is binary")),
            OpCode::Data(data) if (data == Data::Continue) != self.is_within_message => {
                return wrong("message that begins within another, or goes on without having begun");
            }
            OpCode::Data(_) => {
                self.is_within_message = !header.is_final;
                None
            }
        };
        Ok(Frame { control, mask, left: length, payload: Vec::new() })
    }
}

/// From a request to its length and the answer; or status, further headers and text of a refusal.
fn parse(request: &[u8], web: &Web) -> Result<(usize, Vec<u8>), (&'static str, &'static str, &'static str)> {
    const BAD: &str = "400 Bad Request";
    // What is beyond the bound says nothing, or it would matter whether it came at once.
    let request = &request[..request.len().min(HTTP_REQUEST_BYTES_MAX + 1)];
    let (length, request) = match Request::try_parse(request) {
        Ok(Some((length, request))) if length <= HTTP_REQUEST_BYTES_MAX => (length, request),
        Ok(_) => return Err(("431 Request Header Fields Too Large", "", "the request is too long")),
        Err(_) => return Err((BAD, "", "this is not a request that opens a WebSocket")),
    };
    let origin = request.headers().get(ORIGIN).map(HeaderValue::as_bytes);
    let is_ours = |origin: &[u8]| web.origins.iter().any(|ours| ours.as_bytes().eq_ignore_ascii_case(origin));
    if !web.origins.is_empty() && origin.is_some_and(|origin| !is_ours(origin)) {
        return Err(("403 Forbidden", "", "pages from there may not connect to this listener"));
    }
    let mut response = create_response(&request).map_err(|error| match error {
        tungstenite::Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => {
            ("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n", "only version 13 of WebSocket is known")
        }
        _ => (BAD, "", "this is not a request that opens a WebSocket"),
    })?;
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offered: Vec<&str> = offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let Some(chosen) = SUBPROTOCOLS.into_iter().find(|known| offered.contains(known)) else {
        return Err((BAD, "", "the subprotocol mqtt has to be offered"));
    };
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response).expect("what was just made is written to memory");
    Ok((length, bytes))
}

/// The code to close with in answer to a close.
fn close_code(payload: &[u8]) -> Result<CloseCode, Refusal> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        let wrong = (CloseCode::Protocol, "close of one byte");
        return if payload.is_empty() { Ok(CloseCode::Normal) } else { Err(wrong) };
    };
    let code = CloseCode::from(u16::from_be_bytes(*code));
    if !code.is_allowed() {
        return Err((CloseCode::Protocol, "close with a code that nobody may send"));
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(code),
        Err(_) => Err((CloseCode::Invalid, "close with a reason that is not UTF-8")),
    }
}

/// [RFC 6455 5.3]. `mask` begins with the byte for the first of `bytes`.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let (chunks, rest) = bytes.as_chunks_mut::<4>();
    let word = u32::from_ne_bytes(mask);
    for chunk in chunks {
        *chunk = (u32::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

fn put_frame(opcode: OpCode, payload: &[u8], wire: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(payload.len() as u64, wire).expect("memory takes it");
    wire.extend_from_slice(payload);
}
