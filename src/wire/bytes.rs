//! The data types of MQTT (section 1.5 of the standard): read with a check on every step, written without one.
//!
//! [`Reader`] and [`Sink`] name their methods alike, so that a table of properties names each once for both ways.
//! Nothing here knows what a packet is.

use super::error::DecodeError;

/// The largest value of a variable byte integer.
pub const VARIABLE_MAX: u32 = 268_435_455;

const ENDS_EARLY: DecodeError = DecodeError::malformed("ends early");

/// What is left to read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub fn new(rest: &'a [u8]) -> Reader<'a> {
        Reader { rest }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub fn two_bytes(&mut self) -> Result<u16, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk::<2>().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    #[inline]
    pub fn four_bytes(&mut self) -> Result<u32, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk::<4>().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A variable byte integer in its shortest form `[MQTT-1.5.5-1]`.
    #[inline]
    pub fn variable(&mut self) -> Result<u32, DecodeError> {
        match variable(self.rest) {
            Variable::Value { value, len, shortest: true } => {
                self.rest = &self.rest[len..];
                Ok(value)
            }
            Variable::Value { .. } => Err(DecodeError::malformed("variable byte integer longer than needed")),
            Variable::Incomplete => Err(ENDS_EARLY),
            Variable::TooLong => Err(DecodeError::malformed("variable byte integer of more than four bytes")),
        }
    }

    /// Length and that many bytes.
    #[inline]
    pub fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.two_bytes()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 string `[MQTT-1.5.4-1]`, without U+0000 `[MQTT-1.5.4-2]`. A byte order mark is kept
    /// `[MQTT-1.5.4-3]`.
    #[inline]
    pub fn string(&mut self) -> Result<&'a str, DecodeError> {
        let string = self.utf_8()?;
        if string.as_bytes().contains(&0) {
            return Err(DecodeError::malformed("string with U+0000"));
        }
        Ok(string)
    }

    /// A UTF-8 string in which the caller looks for U+0000.
    #[inline]
    pub fn utf_8(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.binary()?).map_err(|_| DecodeError::malformed("string is not UTF-8"))
    }

    /// Two strings `[MQTT-1.5.7-1]`.
    #[inline]
    pub fn pair(&mut self) -> Result<(&'a str, &'a str), DecodeError> {
        Ok((self.string()?, self.string()?))
    }
}

/// What stands at the front of some bytes, read as a variable byte integer.
pub(super) enum Variable {
    Value { value: u32, len: usize, shortest: bool },
    Incomplete,
    TooLong,
}

/// Reads a variable byte integer. Whether a longer form than needed is wrong depends on where it stands.
#[inline]
pub(super) fn variable(bytes: &[u8]) -> Variable {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            return Variable::Value { value, len: index + 1, shortest: byte != 0 || index == 0 };
        }
    }
    if bytes.len() < 4 { Variable::Incomplete } else { Variable::TooLong }
}

/// Encoded length of a variable byte integer.
#[inline]
pub(super) fn variable_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Where encoded bytes go: into a buffer, or only into a sum.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    #[inline]
    fn byte(&mut self, value: u8) {
        self.put(&[value]);
    }

    #[inline]
    fn two_bytes(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    #[inline]
    fn four_bytes(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    #[inline]
    fn variable(&mut self, value: u32) {
        let (bytes, len) = variable_bytes(value);
        self.put(&bytes[..len]);
    }

    /// Panics beyond 65,535 bytes: what is sent was decoded before, or is bounded by `limits`.
    #[inline]
    fn binary(&mut self, value: &[u8]) {
        let len = u16::try_from(value.len()).expect("what is sent as string or binary fits its length field");
        self.two_bytes(len);
        self.put(value);
    }

    #[inline]
    fn string(&mut self, value: &str) {
        self.binary(value.as_bytes());
    }

    #[inline]
    fn pair(&mut self, (name, value): (&str, &str)) {
        self.string(name);
        self.string(value);
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts what it is given.
#[derive(Default)]
pub(super) struct Counter(pub usize);

impl Sink for Counter {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// A variable byte integer and how many of the bytes it takes. Panics beyond [`VARIABLE_MAX`]: no packet and no
/// subscription identifier is larger.
#[inline]
pub(super) fn variable_bytes(value: u32) -> ([u8; 4], usize) {
    assert!(value <= VARIABLE_MAX, "variable byte integer too large");
    let mut bytes = [0; 4];
    let mut len = 0;
    let mut left = value;
    loop {
        bytes[len] = (left & 0x7F) as u8 | if left >= 0x80 { 0x80 } else { 0 };
        len += 1;
        left >>= 7;
        if left == 0 {
            return (bytes, len);
        }
    }
}
