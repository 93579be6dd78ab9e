//! The server's side of SCRAM-SHA-256 [RFC 5802, RFC 7677], as the enhanced authentication of MQTT 5 carries it: bytes in, bytes
//! out.
//!
//! Decides whether a client has proven that it knows a password, without either side sending it. Does not decide what that name
//! may do, nor how long the exchange may last; packets, time and randomness are the caller's. Called with the data of the
//! AUTH and CONNECT packets.
//!
//! Invariants: a proof counts for one exchange only, because half of its nonce is ours. What an unknown name sees differs from
//! what a known one with a wrong password sees in nothing: salt and iterations are made up, always the same ones for a name,
//! and look like those of the file. There is no channel binding: TLS ends in this process, but MQTT has no way to agree on one.
//!
//! Names and passwords are prepared by SASLprep [RFC 4013], as RFC 5802 5.1 asks for. RFC 7613, which replaces it elsewhere, is
//! not used by SCRAM-SHA-256, and would make other keys of the same password.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::limits;

/// Iterations of new keys. The client pays for them, at every login: 4 ms on a server's core, and devices are slower. The minimum is 4,096 [RFC 7677 4]. Whoever steals the file guesses that much faster than with
/// Argon2id, which is why this kind is only written when asked for.
pub const ITERATIONS: u32 = 16_384;

/// What the value of a key's line begins with [RFC 5803].
const SCHEME: &str = "SCRAM-SHA-256";

/// Bytes of SHA-256's output, and so of every key and proof.
const KEY_BYTES: usize = 32;

/// Bytes of the salt of new keys.
pub(super) const SALT_BYTES: usize = 16;

/// Fewest bytes of a salt that are taken.
const SALT_BYTES_MIN: usize = 8;

type Key = Zeroizing<[u8; KEY_BYTES]>;

/// Why an exchange failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScramError {
    /// More than [`limits::SCRAM_MESSAGE_BYTES_MAX`] bytes.
    TooLong,
    /// No UTF-8, or no base64 where it must be.
    Encoding,
    /// Attributes that are missing, repeated, out of order or without a value.
    Syntax,
    /// A mandatory extension; we know none.
    Extension,
    /// Channel binding was asked for.
    ChannelBinding,
    /// The last message does not repeat how the first one began.
    ChannelBindingsDiffer,
    /// A name that SASLprep refuses, or that is escaped wrongly.
    UserName,
    /// To act as another name than the one that is proven.
    ActAsOther,
    /// Another nonce than that of this exchange: a replay.
    Nonce,
    /// Not proven: the password is wrong, or the name unknown.
    Proof,
}

impl ScramError {
    /// What the protocol calls it [RFC 5802 7].
    pub fn word(self) -> &'static str {
        match self {
            ScramError::TooLong | ScramError::Syntax | ScramError::ActAsOther | ScramError::Nonce => {
                "other-error"
            }
            ScramError::Encoding => "invalid-encoding",
            ScramError::Extension => "extensions-not-supported",
            ScramError::ChannelBinding => "channel-binding-not-supported",
            ScramError::ChannelBindingsDiffer => "channel-bindings-dont-match",
            ScramError::UserName => "invalid-username-encoding",
            ScramError::Proof => "invalid-proof",
        }
    }

    /// The server's last message: `e=` and that word.
    pub fn message(self) -> Vec<u8> {
        format!("e={}", self.word()).into_bytes()
    }
}

impl fmt::Display for ScramError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            ScramError::TooLong => "message too long",
            ScramError::Encoding => "neither UTF-8 nor base64 where it must be",
            ScramError::Syntax => "attributes missing, repeated, out of order or without value",
            ScramError::Extension => "a mandatory extension, and none is known here",
            ScramError::ChannelBinding => "channel binding, which is not offered here",
            ScramError::ChannelBindingsDiffer => "the last message contradicts the first",
            ScramError::UserName => "a name that SASLprep refuses",
            ScramError::ActAsOther => "to act as another name than the one that logs in",
            ScramError::Nonce => "the nonce of another exchange",
            ScramError::Proof => "wrong password or unknown name",
        })
    }
}

impl std::error::Error for ScramError {}

/// What the server knows of a password [RFC 5802 3]. It can check a client with it, and whoever has it can play the server, but
/// not log in.
#[derive(Clone)]
pub struct ScramKeys {
    iterations: u32,
    salt: Box<[u8]>,
    stored_key: Key,
    server_key: Key,
}

impl ScramKeys {
    /// Those of a password. `None` if it is not UTF-8 or SASLprep refuses it.
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Option<ScramKeys> {
        let prepared = match prepare(std::str::from_utf8(password).ok()?)? {
            Cow::Borrowed(text) => Zeroizing::new(text.to_owned()),
            Cow::Owned(text) => Zeroizing::new(text),
        };
        let mut salted = Key::default();
        pbkdf2::pbkdf2_hmac::<Sha256>(prepared.as_bytes(), salt, iterations, &mut *salted);
        let client_key = sign(&*salted, &[b"Client Key"]);
        Some(ScramKeys {
            iterations,
            salt: salt.into(),
            stored_key: digest(&client_key),
            server_key: sign(&*salted, &[b"Server Key"]),
        })
    }

    /// From `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY` [RFC 5803]. The error says what is wrong, not what is there.
    pub(super) fn parse(field: &str) -> Result<ScramKeys, &'static str> {
        let rest = field.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix('$'));
        let rest = rest.ok_or("its second field does not begin with \"SCRAM-SHA-256$\"")?;
        let parts = rest
            .split_once('$')
            .and_then(|(of_salt, of_keys)| Some((of_salt.split_once(':')?, of_keys.split_once(':')?)));
        let Some(((iterations, salt), (stored_key, server_key))) = parts else {
            return Err("its SCRAM keys are not ITERATIONS:SALT$STOREDKEY:SERVERKEY");
        };
        let plain = !iterations.starts_with(['+', '0']);
        let iterations = iterations.parse().ok().filter(|count| {
            plain && (limits::SCRAM_ITERATIONS_MIN..=limits::SCRAM_ITERATIONS_MAX).contains(count)
        });
        let salt = BASE64.decode(salt).ok();
        let salt =
            salt.filter(|salt| (SALT_BYTES_MIN..=limits::PASSWORD_SALT_BYTES_MAX).contains(&salt.len()));
        Ok(ScramKeys {
            iterations: iterations.ok_or("its SCRAM iterations are no number from 4096 to 10000000")?,
            salt: salt.ok_or("its SCRAM salt is not base64 of 8 to 64 bytes")?.into(),
            stored_key: decode_key(stored_key).ok_or("its SCRAM stored key is not base64 of 32 bytes")?,
            server_key: decode_key(server_key).ok_or("its SCRAM server key is not base64 of 32 bytes")?,
        })
    }

    /// What [`ScramKeys::parse`] takes.
    pub(super) fn field(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "{SCHEME}${}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(*self.stored_key),
            BASE64.encode(*self.server_key)
        ))
    }

    /// What a client sees of them.
    pub(super) fn shape(&self) -> Shape {
        Shape { iterations: self.iterations, salt_bytes: self.salt.len() }
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ScramKeys").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// What can be seen of keys before anything is proven.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Shape {
    /// How often the password is hashed.
    pub iterations: u32,
    /// Bytes of the salt, at most [`limits::PASSWORD_SALT_BYTES_MAX`].
    pub salt_bytes: usize,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { iterations: ITERATIONS, salt_bytes: SALT_BYTES }
    }
}

/// Keys for names that nobody has: the same ones whenever they are asked for, as long as the secret is the same, and in the
/// shape that those of others have.
pub struct Decoys {
    secret: Key,
    shape: Shape,
}

impl Decoys {
    /// `secret` is random, and best kept over restarts: a salt that changes then gives the name away. `shape` is
    /// [`super::passwords::Passwords::scram_shape`].
    pub fn new(secret: [u8; 32], shape: Shape) -> Decoys {
        assert!(shape.salt_bytes <= limits::PASSWORD_SALT_BYTES_MAX, "no file has a longer salt");
        Decoys { secret: Zeroizing::new(secret), shape }
    }

    fn keys(&self, name: &str) -> ScramKeys {
        let made = |label: &[u8]| sign(&*self.secret, &[label, name.as_bytes()]);
        let mut salt = [*made(b"salt 1:"), *made(b"salt 2:")].concat();
        salt.truncate(self.shape.salt_bytes);
        ScramKeys {
            iterations: self.shape.iterations,
            salt: salt.into(),
            stored_key: made(b"stored key:"),
            server_key: made(b"server key:"),
        }
    }
}

impl fmt::Debug for Decoys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Decoys").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// The authentication method of MQTT 5 that this is.
pub const METHOD: &str = "SCRAM-SHA-256";

/// An exchange after the client's first message and before its second.
pub struct Exchange {
    name: Box<str>,
    /// How the client's first message began; the second repeats it.
    header: Box<str>,
    /// The client's and ours.
    nonce: Box<str>,
    /// What both sign, up to the client's second message.
    signed: String,
    keys: ScramKeys,
    /// Whether there is such a name: else the keys are decoys.
    known: bool,
}

/// From client-first-message to server-first-message. `lookup` is asked once, for the name that was found, in the form that
/// SASLprep gives it; `nonce` is random and never used twice.
pub fn begin(
    client_first: &[u8],
    lookup: impl FnOnce(&str) -> Option<ScramKeys>,
    decoys: &Decoys,
    nonce: [u8; 18],
) -> Result<(Exchange, Vec<u8>), ScramError> {
    begin_with(client_first, lookup, decoys, &BASE64.encode(nonce))
}

fn begin_with(
    client_first: &[u8],
    lookup: impl FnOnce(&str) -> Option<ScramKeys>,
    decoys: &Decoys,
    server_nonce: &str,
) -> Result<(Exchange, Vec<u8>), ScramError> {
    let message = text_of(client_first)?;
    let (act_as, bare) = split_header(message)?;
    let mut parts = bare.split(',');
    let name = unescape(attribute(parts.next(), "n")?)?;
    let client_nonce = attribute(parts.next(), "r")?;
    if !client_nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ScramError::Syntax);
    }
    check_extensions(parts)?;
    if let Some(act_as) = act_as
        && unescape(act_as)? != name
    {
        return Err(ScramError::ActAsOther);
    }
    // The decoys are made for everybody, so that this takes the same time.
    let decoy = decoys.keys(&name);
    let found = lookup(&name);
    let known = found.is_some();
    let keys = found.unwrap_or(decoy);
    let nonce = format!("{client_nonce}{server_nonce}");
    let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&keys.salt), keys.iterations);
    let exchange = Exchange {
        name: name.into(),
        header: message[..message.len() - bare.len()].into(),
        nonce: nonce.into(),
        signed: format!("{bare},{server_first},"),
        keys,
        known,
    };
    Ok((exchange, server_first.into_bytes()))
}

impl Exchange {
    /// The name that is to be proven, as SASLprep gives it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// From client-final-message to server-final-message and the name, if it is proven.
    pub fn finish(self, client_final: &[u8]) -> Result<(Box<str>, Vec<u8>), ScramError> {
        let message = text_of(client_final)?;
        let (without_proof, proof) = message.rsplit_once(',').ok_or(ScramError::Syntax)?;
        let mut parts = without_proof.split(',');
        let binding = attribute(parts.next(), "c")?;
        let nonce = attribute(parts.next(), "r")?;
        check_extensions(parts)?;
        let proof = decode_key(attribute(Some(proof), "p")?).ok_or(ScramError::Encoding)?;
        if BASE64.decode(binding).map_err(|_| ScramError::Encoding)? != self.header.as_bytes() {
            return Err(ScramError::ChannelBindingsDiffer);
        }
        if !bool::from(nonce.as_bytes().ct_eq(self.nonce.as_bytes())) {
            return Err(ScramError::Nonce);
        }
        let signed = [self.signed.as_bytes(), without_proof.as_bytes()];
        let mut client_key = sign(&*self.keys.stored_key, &signed);
        for (byte, proven) in client_key.iter_mut().zip(proof.iter()) {
            *byte ^= proven;
        }
        let proven = digest(&client_key).ct_eq(&*self.keys.stored_key) & Choice::from(u8::from(self.known));
        let signature = sign(&*self.keys.server_key, &signed);
        if bool::from(proven) {
            Ok((self.name, format!("v={}", BASE64.encode(*signature)).into_bytes()))
        } else {
            Err(ScramError::Proof)
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Exchange").field("name", &self.name).finish_non_exhaustive()
    }
}

/// SASLprep as for stored strings: code points without a meaning are refused [RFC 5802 2.2]. `None` if refused, or if nothing is
/// left.
pub(super) fn prepare(text: &str) -> Option<Cow<'_, str>> {
    stringprep::saslprep(text).ok().filter(|prepared| !prepared.is_empty())
}

fn text_of(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > limits::SCRAM_MESSAGE_BYTES_MAX {
        return Err(ScramError::TooLong);
    }
    let text = std::str::from_utf8(message).map_err(|_| ScramError::Encoding)?;
    if text.contains('\0') { Err(ScramError::Syntax) } else { Ok(text) }
}

/// The name to act as, still escaped, and what follows the header [RFC 5802 7, gs2-header].
fn split_header(message: &str) -> Result<(Option<&str>, &str), ScramError> {
    let (binding, rest) = message.split_once(',').ok_or(ScramError::Syntax)?;
    match binding {
        "n" | "y" => {}
        _ if binding.starts_with("p=") => return Err(ScramError::ChannelBinding),
        _ => return Err(ScramError::Syntax),
    }
    let (act_as, bare) = rest.split_once(',').ok_or(ScramError::Syntax)?;
    let act_as = if act_as.is_empty() { None } else { Some(attribute(Some(act_as), "a")?) };
    Ok((act_as, bare))
}

/// The value of an attribute that must stand here.
fn attribute<'a>(part: Option<&'a str>, letter: &str) -> Result<&'a str, ScramError> {
    match part.and_then(|part| part.split_once('=')) {
        Some(("m", _)) => Err(ScramError::Extension),
        Some((found, value)) if found == letter && !value.is_empty() => Ok(value),
        _ => Err(ScramError::Syntax),
    }
}

/// Whatever else the client sends may be ignored, as long as it is well-formed and none that has its place elsewhere.
fn check_extensions<'a>(parts: impl Iterator<Item = &'a str>) -> Result<(), ScramError> {
    for part in parts {
        match part.split_once('=') {
            Some(("m", _)) => return Err(ScramError::Extension),
            Some((letter, value))
                if letter.len() == 1
                    && letter.bytes().all(|byte| byte.is_ascii_alphabetic())
                    && !"acenprsiv".contains(letter)
                    && !value.is_empty() => {}
            _ => return Err(ScramError::Syntax),
        }
    }
    Ok(())
}

/// A name without its `=2C` and `=3D`, prepared.
fn unescape(escaped: &str) -> Result<String, ScramError> {
    let mut pieces = escaped.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (character, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(ScramError::UserName),
        };
        name.push(character);
        name.push_str(rest);
    }
    Ok(prepare(&name).ok_or(ScramError::UserName)?.into_owned())
}

fn decode_key(text: &str) -> Option<Key> {
    let bytes = Zeroizing::new(BASE64.decode(text).ok()?);
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

fn sign(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn digest(key: &Key) -> Key {
    Zeroizing::new(Sha256::digest(**key).into())
}

#[cfg(test)]
mod tests;
