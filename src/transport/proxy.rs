//! Who connects through a proxy: the receiver's side of the PROXY protocol, versions 1 and 2.
//!
//! A listener that is told to expects such a header in front of everything else of a connection, TLS included; it never guesses
//! whether there is one, because then anybody could say who they are [proxy-protocol.txt 2]. This file decides from the
//! bytes received so far whether the header is whole, still to come, or wrong. It does no I/O and keeps nothing between two
//! calls. Who may send one is decided by [`Trusted`]; called by `shard` before a connection gets its transport.
//!
//! Version 1 is a line, at most 107 bytes [2.1]:
//!
//! ```text
//! PROXY TCP4 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT CR LF     one space each, ports without leading zeros
//! PROXY TCP6 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT CR LF
//! PROXY UNKNOWN CR LF                                                  or a space and anything before the CR LF
//! ```
//!
//! Version 2 is binary, numbers with the high byte first [2.2]:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 12 | `0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A` |
//! | 12 | 1 | version 2 in the high half; command in the low one: 0 LOCAL, 1 PROXY |
//! | 13 | 1 | family in the high half: 0 UNSPEC, 1 INET, 2 INET6, 3 UNIX; transport in the low one: 0 UNSPEC, 1 STREAM, 2 DGRAM |
//! | 14 | 2 | how many bytes follow |
//! | 16 | 12, 36, 216 | of INET, INET6, UNIX: source, destination, and but for UNIX their ports |
//! | then | 3 + n | any number of: type, length n (2 bytes), value |
//!
//! Invariants, which a fuzzer and the tests hold against [`read`]:
//! - What was whole or wrong stays so, the same, whatever follows.
//! - Every part of a header is [`Progress::More`], and more is asked for only where some continuation is a header. (But that a
//!   checksum is wrong shows at the end alone.)
//! - So what begins no header is wrong at the first byte: an MQTT CONNECT (0x10), a TLS ClientHello (0x16).

#[cfg(test)]
mod tests;
mod trusted;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::limits;
pub use trusted::{Trusted, TrustedError};

/// How far the header is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// More bytes are needed.
    More,
    /// It is whole.
    Done {
        /// How many bytes it was. What follows them is the connection's own.
        taken: usize,
        /// Who connected.
        source: Source,
    },
}

/// Who connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// LOCAL (version 2), UNKNOWN (version 1), UNSPEC or UNIX: the address of the connection itself holds.
    Itself,
    /// The client's address. An IPv4 address that was written as IPv6 (`::ffff:a.b.c.d`) is an IPv4 address here.
    Address(SocketAddr),
}

/// Why there is no header. The connection is to be closed without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyError {
    /// The first bytes begin neither version.
    NoHeader,
    /// Version 1: neither TCP4, TCP6 nor UNKNOWN.
    Protocol,
    /// Version 1: an address that is none of that family.
    Address,
    /// Version 1: a port that is no number from 0 to 65,535 without leading zeros.
    Port,
    /// Version 1: no CR LF where one must be, or none in [`limits::PROXY_LINE_BYTES_MAX`] bytes.
    LineEnd,
    /// Version 2: another version or an unassigned command.
    Command,
    /// Version 2: an unassigned family or transport, or datagrams.
    Family,
    /// Version 2: a length that does not fit the addresses, or above [`limits::PROXY_BLOCK_BYTES_MAX`].
    Length,
    /// Version 2: what follows the addresses is not made of types, lengths and values.
    Field,
    /// Version 2: the header was damaged.
    Checksum,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            ProxyError::NoHeader => "sent no PROXY header",
            ProxyError::Protocol => "sent a PROXY header of neither TCP4, TCP6 nor UNKNOWN",
            ProxyError::Address => "sent a PROXY header with a malformed address",
            ProxyError::Port => "sent a PROXY header with a malformed port",
            ProxyError::LineEnd => "sent a PROXY header without its line end",
            ProxyError::Command => "sent a PROXY header with another version or command",
            ProxyError::Family => "sent a PROXY header of a family or transport that is not taken",
            ProxyError::Length => "sent a PROXY header whose length does not fit",
            ProxyError::Field => "sent a PROXY header with malformed fields",
            ProxyError::Checksum => "sent a PROXY header with a wrong checksum",
        })
    }
}

impl std::error::Error for ProxyError {}

/// Reads a header from all the bytes that a connection has received so far. Looks at no more than a header's bound.
pub fn read(bytes: &[u8]) -> Result<Progress, ProxyError> {
    match bytes.first() {
        None => Ok(Progress::More),
        Some(b'P') => read_line(bytes),
        Some(b'\r') => read_block(bytes),
        Some(_) => Err(ProxyError::NoHeader),
    }
}

// --- Version 1 ---

const LINE_START: &[u8] = b"PROXY ";
const UNKNOWN: &[u8] = b"UNKNOWN";
const LINE_END: &[u8] = b"\r\n";

/// Of an address. The specification counts 39 for the longest, and with them the longest line.
const ADDRESS_BYTES_MAX: usize = 39;

fn read_line(bytes: &[u8]) -> Result<Progress, ProxyError> {
    let Some(rest) = after(bytes, LINE_START).ok_or(ProxyError::NoHeader)? else { return Ok(Progress::More) };
    let protocols = [b"TCP4 ".as_slice(), b"TCP6 ", UNKNOWN];
    let Some(found) = protocols.into_iter().find_map(|protocol| Some((protocol, after(rest, protocol)?)))
    else {
        return Err(ProxyError::Protocol);
    };
    match found {
        (_, None) => Ok(Progress::More),
        (UNKNOWN, Some(rest)) => read_unknown(bytes, rest),
        (b"TCP4 ", Some(rest)) => read_addresses::<Ipv4Addr>(bytes, rest, &IPV4_ENDINGS),
        (_, Some(rest)) => read_addresses::<Ipv6Addr>(bytes, rest, &IPV6_ENDINGS),
    }
}

/// The bytes behind `expected`; `Some(None)` if they are only the beginning of it so far, `None` if they are not.
fn after<'a>(bytes: &'a [u8], expected: &[u8]) -> Option<Option<&'a [u8]>> {
    match bytes.strip_prefix(expected) {
        Some(rest) => Some(Some(rest)),
        None => expected.starts_with(bytes).then_some(None),
    }
}

/// "The receiver must ignore anything presented before the CRLF is found".
fn read_unknown(bytes: &[u8], rest: &[u8]) -> Result<Progress, ProxyError> {
    if !matches!(rest.first(), None | Some(b' ' | b'\r')) {
        return Err(ProxyError::Protocol);
    }
    if let [b'\r', other, ..] = rest
        && *other != b'\n'
    {
        return Err(ProxyError::LineEnd);
    }
    let line = &bytes[..bytes.len().min(limits::PROXY_LINE_BYTES_MAX)];
    if let Some(at) = line.windows(LINE_END.len()).position(|pair| pair == LINE_END) {
        return Ok(Progress::Done { taken: at + LINE_END.len(), source: Source::Itself });
    }
    let half_ended = usize::from(line.ends_with(b"\r"));
    let shortest = line.len() + LINE_END.len() - half_ended;
    if shortest > limits::PROXY_LINE_BYTES_MAX { Err(ProxyError::LineEnd) } else { Ok(Progress::More) }
}

/// What makes an address of every beginning of one, in the shortest way: so it is known what begins none.
const IPV4_ENDINGS: [&str; 8] = ["", "0", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0", "0.0.0.0"];

/// The specification has groups of hexadecimal digits only. Senders write addresses with `inet_ntop`, which ends those that
/// are really IPv4 with four decimal numbers, so that is taken too.
const IPV6_ENDINGS: [&str; 9] = ["", ":", "::", "0", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0"];

fn read_addresses<A>(bytes: &[u8], rest: &[u8], endings: &[&str]) -> Result<Progress, ProxyError>
where
    A: FromStr + Into<IpAddr>,
{
    let Some((source, rest)) = read_address::<A>(rest, endings)? else { return Ok(Progress::More) };
    let Some((_, rest)) = read_address::<A>(rest, endings)? else { return Ok(Progress::More) };
    let Some((port, rest)) = read_port(rest, b' ')? else { return Ok(Progress::More) };
    let Some((_, rest)) = read_port(rest, b'\r')? else { return Ok(Progress::More) };
    match rest.first() {
        None => Ok(Progress::More),
        Some(b'\n') => {
            let address = SocketAddr::new(source.to_canonical(), port);
            Ok(Progress::Done { taken: bytes.len() - rest.len() + 1, source: Source::Address(address) })
        }
        Some(_) => Err(ProxyError::LineEnd),
    }
}

/// An address and what follows the space behind it; `None` if it may still become one.
fn read_address<'a, A>(bytes: &'a [u8], endings: &[&str]) -> Result<Option<(IpAddr, &'a [u8])>, ProxyError>
where
    A: FromStr + Into<IpAddr>,
{
    let text = &bytes[..bytes.len().min(ADDRESS_BYTES_MAX + 1)];
    let end = text.iter().position(|&byte| byte == b' ');
    let text = str::from_utf8(&text[..end.unwrap_or(text.len())]).map_err(|_| ProxyError::Address)?;
    if let Some(end) = end {
        let address = text.parse::<A>().map_err(|_| ProxyError::Address)?;
        return Ok(Some((address.into(), &bytes[end + 1..])));
    }
    let becomes_one = |ending: &&str| {
        text.len() + ending.len() <= ADDRESS_BYTES_MAX && format!("{text}{ending}").parse::<A>().is_ok()
    };
    if endings.iter().any(becomes_one) { Ok(None) } else { Err(ProxyError::Address) }
}

/// A port and what follows the byte that ends it; `None` if it may still become one.
fn read_port(bytes: &[u8], end: u8) -> Result<Option<(u16, &[u8])>, ProxyError> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).take("65535".len()).count();
    let (text, rest) = bytes.split_at(digits);
    let leading_zero = text.len() > 1 && text[0] == b'0';
    // What begins a number without leading zeros in that range is one.
    let number = text.iter().fold(0, |number, digit| 10 * number + u32::from(digit - b'0'));
    let port = u16::try_from(number).ok().filter(|_| !leading_zero).ok_or(ProxyError::Port)?;
    match rest.split_first() {
        None => Ok(None),
        Some((&byte, rest)) if byte == end && !text.is_empty() => Ok(Some((port, rest))),
        Some((b'\n' | b' ' | b'\r', _)) if end == b'\r' && !text.is_empty() => Err(ProxyError::LineEnd),
        Some(_) => Err(ProxyError::Port),
    }
}

// --- Version 2 ---

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes in front of the addresses.
const FIXED_BYTES: usize = 16;

/// The type of the field that holds CRC-32C of the whole header, with zeros in its own place [2.2.3].
const TYPE_CRC32C: u8 = 3;

/// What byte 13 makes of the bytes that follow.
#[derive(Clone, Copy)]
enum Block {
    /// Nothing: they are skipped, because no more is known of them than how many there are.
    Skipped,
    /// That many bytes of addresses, of which none is taken.
    Unix,
    Ipv4,
    Ipv6,
}

impl Block {
    fn address_bytes(self) -> usize {
        match self {
            Block::Skipped => 0,
            Block::Ipv4 => 2 * 4 + 2 * 2,
            Block::Ipv6 => 2 * 16 + 2 * 2,
            Block::Unix => 2 * 108,
        }
    }
}

fn read_block(bytes: &[u8]) -> Result<Progress, ProxyError> {
    let Some(rest) = after(bytes, SIGNATURE).ok_or(ProxyError::NoHeader)? else { return Ok(Progress::More) };
    let is_local = match rest.first() {
        None => return Ok(Progress::More),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(ProxyError::Command),
    };
    let Some(&family) = rest.get(1) else { return Ok(Progress::More) };
    let block = if is_local { Block::Skipped } else { block_of(family)? };
    let Some(&high) = rest.get(2) else { return Ok(Progress::More) };
    if usize::from(high) << 8 > limits::PROXY_BLOCK_BYTES_MAX {
        return Err(ProxyError::Length);
    }
    let Some(&low) = rest.get(3) else { return Ok(Progress::More) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > limits::PROXY_BLOCK_BYTES_MAX || length < block.address_bytes() {
        return Err(ProxyError::Length);
    }
    let taken = FIXED_BYTES + length;
    let header = &bytes[..bytes.len().min(taken)];
    let checksum_at = match block {
        Block::Skipped => None,
        Block::Unix | Block::Ipv4 | Block::Ipv6 => {
            walk_fields(header, FIXED_BYTES + block.address_bytes(), taken)?
        }
    };
    if header.len() < taken {
        return Ok(Progress::More);
    }
    if let Some(at) = checksum_at {
        verify_checksum(header, at)?;
    }
    Ok(Progress::Done { taken, source: source_of(block, &header[FIXED_BYTES..]) })
}

/// What is UNSPEC in either half may be taken with the connection's own address; datagrams cannot have come this way.
fn block_of(family: u8) -> Result<Block, ProxyError> {
    match (family >> 4, family & 0x0F) {
        (4.., _) | (_, 2..) => Err(ProxyError::Family),
        (0, _) | (_, 0) => Ok(Block::Skipped),
        (1, 1) => Ok(Block::Ipv4),
        (2, 1) => Ok(Block::Ipv6),
        (3, 1) => Ok(Block::Unix),
    }
}

/// Walks the fields from `at` to `end`, as far as they have come. Returns where the checksum's value is.
fn walk_fields(header: &[u8], mut at: usize, end: usize) -> Result<Option<usize>, ProxyError> {
    const HEAD_BYTES: usize = 3;
    let mut checksum_at = None;
    while at < end {
        let value = at + HEAD_BYTES;
        if value > end {
            return Err(ProxyError::Field);
        }
        let Some(&kind) = header.get(at) else { break };
        // Behind its four bytes there is nothing, or another field.
        let has_room = matches!(end - value, 4 | 7..);
        if kind == TYPE_CRC32C && (checksum_at.replace(value).is_some() || !has_room) {
            return Err(ProxyError::Field);
        }
        let Some(&high) = header.get(at + 1) else { break };
        let is_wrong =
            |length: usize| value + length > end || (kind == TYPE_CRC32C && length > size_of::<u32>());
        if is_wrong(usize::from(high) << 8) {
            return Err(ProxyError::Field);
        }
        let Some(&low) = header.get(at + 2) else { break };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if is_wrong(length) || (kind == TYPE_CRC32C && length != size_of::<u32>()) {
            return Err(ProxyError::Field);
        }
        at = value + length;
    }
    Ok(checksum_at)
}

/// [RFC 4960 appendix B]: CRC-32C as the crate computes it, the high byte first as all numbers here.
fn verify_checksum(header: &[u8], at: usize) -> Result<(), ProxyError> {
    let (front, rest) = header.split_at(at);
    let (stated, back) = rest.split_first_chunk::<4>().ok_or(ProxyError::Field)?;
    let checksum = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(front), &[0; 4]), back);
    if checksum == u32::from_be_bytes(*stated) { Ok(()) } else { Err(ProxyError::Checksum) }
}

fn source_of(block: Block, addresses: &[u8]) -> Source {
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    let whole = "a header is at least as long as its addresses";
    let (address, port) = match block {
        Block::Skipped | Block::Unix => return Source::Itself,
        Block::Ipv4 => (IpAddr::from(*addresses.first_chunk::<4>().expect(whole)), port(8)),
        Block::Ipv6 => (IpAddr::from(*addresses.first_chunk::<16>().expect(whole)), port(32)),
    };
    Source::Address(SocketAddr::new(address.to_canonical(), port))
}
