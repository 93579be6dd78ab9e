//! JSON Web Tokens as MQTT passwords: whether one holds, and what it says.
//!
//! A token is a JWT [RFC 7519] in the compact form of JWS [RFC 7515 7.1], signed with EdDSA (Ed25519), ES256 or RS256. The order
//! is: size, form, header, key, signature; only what is signed by one of our keys is read further (`claims`). Nothing in a token
//! chooses how it is verified: `alg` must be the one algorithm that the type of the key has, so there is no `none`, and a public
//! key is never taken for the secret of an HMAC [RFC 8725 3.1]; keys in a header (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.
//! What a header asks for beyond that (`crit`, `b64`, `zip`, `enc`, a token in a token) is refused.
//!
//! Called by what judges CONNECT. Pure: files and the time are arguments. `Tokens` never changes; after a rotation of keys the
//! caller reads the files again and replaces it, and `Seen` with it.

mod claims;
mod document;
mod jwks;
mod keys;
mod seen;
#[cfg(test)]
mod tests;

use std::fmt;

use zeroize::Zeroizing;

pub use claims::{Claims, Permission};
use document::{Flaw, Object, from_base64url};
pub use keys::TokenKeyError;
use keys::{Algorithm, Claim, Key, Keys};
pub use seen::Seen;

use crate::limits;

/// What a token must say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `iss` must be that; `None`: anything.
    pub issuer: Option<String>,
    /// `aud` must be or contain that; `None`: anything.
    pub audience: Option<String>,
    /// The claim that names the account; by habit `sub`.
    pub account_claim: String,
}

/// Keys and settings: all it takes to judge a token.
#[derive(Debug)]
pub struct Tokens {
    settings: Settings,
    keys: Keys,
}

impl Tokens {
    /// Reads key files, each a name and what is in it: public keys or certificates in PEM, or a JWKS [RFC 7517].
    pub fn new(settings: Settings, files: &[(&str, &[u8])]) -> Result<Tokens, TokenKeyError> {
        Ok(Tokens { settings, keys: Keys::read(files)? })
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// How many entries of JWKS files were left aside: of another type, curve, algorithm or use.
    pub fn skipped(&self) -> usize {
        self.keys.skipped()
    }

    /// Judges a token. Costs at most [`limits::TOKEN_KEYS_TRIED_MAX`] verifications, one where the token names its key.
    pub fn verify(&self, token: &[u8], now_unix_s: u64) -> Result<Claims, TokenError> {
        let opened = self.open(token)?;
        opened.authenticate()?;
        self.read(&opened, now_unix_s)
    }

    /// Judges several, each with its time, each as [`verify`](Tokens::verify) would: at half the cost by token where they are signed
    /// with EdDSA and hold, at one and a half times where one of them does not.
    pub fn verify_together(&self, tokens: &[(&[u8], u64)]) -> Vec<Result<Claims, TokenError>> {
        let opened: Vec<_> = tokens.iter().map(|(token, _)| self.open(token)).collect();
        let claims: Vec<_> = opened.iter().flatten().filter_map(Opened::claim).collect();
        let all_hold = claims.len() > 1 && keys::verify_together(&claims);
        let judged = opened.iter().zip(tokens).map(|(opened, (_, now_unix_s))| {
            let opened = opened.as_ref().map_err(|error| *error)?;
            if !all_hold || opened.claim().is_none() {
                opened.authenticate()?;
            }
            self.read(opened, *now_unix_s)
        });
        judged.collect()
    }

    /// Takes it apart, as far as that is to be looked at before it is known who has signed it.
    fn open<'a>(&'a self, token: &'a [u8]) -> Result<Opened<'a>, TokenError> {
        if token.len() > limits::TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let [header, payload, signature] = parts(token).ok_or(TokenError::Form)?;
        let signed = &token[..header.len() + 1 + payload.len()];
        let header = decode(header, TokenError::HeaderEncoding)?;
        let header = Object::read(&header).map_err(|flaw| TokenError::Header(flaw.into()))?;
        let (algorithm, key_id) = judge_header(&header)?;
        let signature = decode(signature, TokenError::SignatureEncoding)?;
        let candidates = self.keys.candidates(algorithm, key_id).take(limits::TOKEN_KEYS_TRIED_MAX);
        let (names_key, keys) = (key_id.is_some(), candidates.collect());
        Ok(Opened { signed, payload, signature, names_key, keys })
    }

    /// What is in one that is authentic.
    fn read(&self, opened: &Opened<'_>, now_unix_s: u64) -> Result<Claims, TokenError> {
        let payload = decode(opened.payload, TokenError::PayloadEncoding)?;
        let payload = Object::read(&payload).map_err(|flaw| TokenError::Payload(flaw.into()))?;
        Claims::read(&payload, &self.settings, now_unix_s)
    }
}

/// A token that may be anybody's.
struct Opened<'a> {
    signed: &'a [u8],
    payload: &'a [u8],
    signature: Zeroizing<Vec<u8>>,
    names_key: bool,
    /// That may have signed it.
    keys: Vec<&'a Key>,
}

impl Opened<'_> {
    /// Whether the signature is of one of our keys.
    fn authenticate(&self) -> Result<(), TokenError> {
        if self.keys.iter().any(|key| key.verifies(self.signed, &self.signature)) {
            return Ok(());
        }
        Err(match (self.keys.is_empty(), self.names_key) {
            (true, _) => TokenError::UnknownKey,
            (false, true) => TokenError::Signature,
            (false, false) => TokenError::UnknownSigner,
        })
    }

    /// If it can be verified together with others: there is one key that it can be of, and that is for EdDSA.
    fn claim(&self) -> Option<Claim<'_>> {
        match self.keys[..] {
            [key] => key.claim(self.signed, &self.signature),
            _ => None,
        }
    }
}

/// Whether a password is meant as a token: three parts of base64url, of which the first begins a JSON object. Nothing is
/// verified by that; the signature may be empty, so that a token without one is refused as a token.
pub fn looks_like_token(password: &[u8]) -> bool {
    // `{` is 0x7B: the first six bits are `e`, the next two are 11.
    let Some([header @ [b'e', b'w'..=b'z', ..], payload, signature]) = parts(password) else { return false };
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !payload.is_empty() && [header, payload, signature].iter().all(|part| part.iter().all(letter))
}

/// Why a token is refused: for the log, and without anything that stands in the token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// More than [`limits::TOKEN_BYTES_MAX`] bytes.
    TooLong,
    /// Not three parts with dots between.
    Form,
    /// The header is not base64url without padding.
    HeaderEncoding,
    /// The payload is not base64url without padding.
    PayloadEncoding,
    /// The signature is not base64url without padding.
    SignatureEncoding,
    /// The header is no object with unique names.
    Header(DocumentFlaw),
    /// The payload is no object with unique names.
    Payload(DocumentFlaw),
    /// `alg` is none of ours: `none`, an HMAC, or another.
    Algorithm,
    /// The header asks for what we do not do; by the name that asks.
    Extension(&'static str),
    /// `typ` says that it is no JWT.
    Type,
    /// `kid` is no text of 1 to 255 bytes.
    KeyId,
    /// No key has that id and algorithm.
    UnknownKey,
    /// It names no key and none of ours made the signature.
    UnknownSigner,
    /// The key that it names did not make the signature.
    Signature,
    /// There is no `exp`.
    NoExpiry,
    /// That claim is no whole number of seconds since 1970, or beyond the year 9999.
    Time(&'static str),
    /// `exp` is past.
    Expired {
        /// For so long.
        ago_s: u64,
    },
    /// `nbf` or `iat` is to come.
    NotYetValid {
        /// In so long.
        in_s: u64,
    },
    /// `iss` is not the one that is configured.
    Issuer,
    /// `aud` does not contain the one that is configured.
    Audience,
    /// The claim that names the account is missing.
    NoAccount,
    /// The account is no text of 1 to 255 bytes without control characters.
    Account,
    /// `client_id` is no text that could be a client id.
    ClientId,
    /// `groups` is no list of at most 32 such texts.
    Groups,
    /// `scope` or `permissions` is no list of at most 64 pairs as in RFC 9431, or both are there.
    Permissions,
}

/// Why a part of a token is no document. Its text is for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DocumentFlaw(&'static str);

impl From<Flaw> for DocumentFlaw {
    fn from(flaw: Flaw) -> DocumentFlaw {
        DocumentFlaw(flaw.text())
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            TokenError::Header(flaw) => return write!(formatter, "its header {}", flaw.0),
            TokenError::Payload(flaw) => return write!(formatter, "its payload {}", flaw.0),
            TokenError::Extension(name) => {
                return write!(formatter, "its header has {name}, which is not done here");
            }
            TokenError::Time(name) => {
                return write!(formatter, "{name} is not a whole number of seconds before the year 10000");
            }
            TokenError::Expired { ago_s } => return write!(formatter, "expired {ago_s} s ago"),
            TokenError::NotYetValid { in_s } => {
                return write!(formatter, "not valid before {in_s} s from now");
            }
            TokenError::TooLong => "longer than a token may be",
            TokenError::Form => "not a token of three parts",
            TokenError::HeaderEncoding => "its header is not base64url without padding",
            TokenError::PayloadEncoding => "its payload is not base64url without padding",
            TokenError::SignatureEncoding => "its signature is not base64url without padding",
            TokenError::Algorithm => "alg is none of EdDSA, ES256 and RS256",
            TokenError::Type => "typ is neither JWT nor at+jwt",
            TokenError::KeyId => "kid is not a text of 1 to 255 bytes",
            TokenError::UnknownKey => "signed by an unknown key: none here has its kid and alg",
            TokenError::UnknownSigner => {
                "signed by an unknown key: it names none, and none of those tried fits"
            }
            TokenError::Signature => "the signature is not of the key that it names",
            TokenError::NoExpiry => "exp is missing",
            TokenError::Issuer => "iss is missing or not the issuer that is configured",
            TokenError::Audience => "aud is missing or does not contain the audience that is configured",
            TokenError::NoAccount => "the claim for the account is missing",
            TokenError::Account => {
                "the claim for the account is not a text of 1 to 255 bytes without control characters"
            }
            TokenError::ClientId => "client_id is not a text that could be a client id",
            TokenError::Groups => {
                "groups is not a list of at most 32 texts of 1 to 255 bytes without control characters"
            }
            TokenError::Permissions => {
                "scope or permissions is not a list of at most 64 pairs [filter, [\"pub\", \"sub\"]], or both are there"
            }
        };
        formatter.write_str(text)
    }
}

impl std::error::Error for TokenError {}

/// The three parts of the compact form.
fn parts(token: &[u8]) -> Option<[&[u8]; 3]> {
    let mut parts = token.splitn(4, |byte| *byte == b'.');
    let three = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(three)
}

fn decode(part: &[u8], otherwise: TokenError) -> Result<Zeroizing<Vec<u8>>, TokenError> {
    from_base64url(part).ok_or(otherwise)
}

/// The algorithm and the id of the key [RFC 7515 4.1].
fn judge_header<'h>(header: &'h Object<'_>) -> Result<(Algorithm, Option<&'h str>), TokenError> {
    let algorithm = header.get("alg").and_then(|name| Algorithm::named(name.text()?));
    let algorithm = algorithm.ok_or(TokenError::Algorithm)?;
    for name in ["crit", "b64", "zip", "enc", "cty"] {
        if header.has(name) {
            return Err(TokenError::Extension(name));
        }
    }
    if let Some(kind) = header.get("typ") {
        let fits = |kind: &str| kind.eq_ignore_ascii_case("JWT") || kind.eq_ignore_ascii_case("at+jwt");
        kind.text().filter(|kind| fits(kind)).ok_or(TokenError::Type)?;
    }
    match header.get("kid") {
        None => Ok((algorithm, None)),
        Some(id) => match id.text() {
            Some(text) if (1..=limits::TOKEN_TEXT_BYTES_MAX).contains(&text.len()) => {
                Ok((algorithm, Some(text)))
            }
            _ => Err(TokenError::KeyId),
        },
    }
}
