//! Public keys: from files to what verifies a signature.
//!
//! A key has one type, and a type has one algorithm; that is all there is to the choice of an algorithm. What is wrong with a
//! file is found when it is read, not when a device comes: points off their curve, weak keys, RSA keys of a size outside
//! [`limits::TOKEN_RSA_BITS_MIN`]..=[`limits::TOKEN_RSA_BITS_MAX`], private keys, which have no business here.
//!
//! A key from a JWKS has the id that stands there (`jwks`); one from a PEM file has the file's name without folders and
//! extension, so `keys/2026-01.pem` is the key of tokens with `"kid":"2026-01"`. Of a certificate only the key is taken: whoever
//! named the file trusts it, and a token's issuer is not a chain of authorities.
//!
//! EdDSA is verified by `ed25519-dalek`, which keeps the point of a key decompressed and has vector instructions: 48 µs where
//! `ring` takes 61; several signatures at once ([`verify_together`]) take half of that each. ES256 and RS256 are verified by `ring`: 72 µs and 27 µs, where `p256` takes 404.

use std::fmt;

use der::asn1::{AnyRef, ObjectIdentifier, UintRef};
use der::{Decode, Reader, SliceReader};
use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey as Peer};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use spki::SubjectPublicKeyInfoRef;

use super::jwks;
use crate::limits;

/// A key file that will not do. Its text is for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenKeyError {
    /// Which.
    pub file: String,
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub cure: &'static str,
}

impl fmt::Display for TokenKeyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}\n  cure: {}", self.file, self.cause, self.cure)
    }
}

impl std::error::Error for TokenKeyError {}

/// How a token is signed [RFC 7518 3.1, RFC 8037 3.1].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Algorithm {
    EdDsa,
    Es256,
    Rs256,
}

impl Algorithm {
    /// By its name, exactly. `Ed25519` is the newer name of the same [RFC 9864 2.2].
    pub(super) fn named(name: &str) -> Option<Algorithm> {
        match name {
            "EdDSA" | "Ed25519" => Some(Algorithm::EdDsa),
            "ES256" => Some(Algorithm::Es256),
            "RS256" => Some(Algorithm::Rs256),
            _ => None,
        }
    }
}

/// Keys in the order of their files.
#[derive(Debug)]
pub(super) struct Keys {
    keys: Vec<Key>,
    skipped: usize,
}

impl Keys {
    /// Reads all files.
    pub(super) fn read(files: &[(&str, &[u8])]) -> Result<Keys, TokenKeyError> {
        let mut read = Keys { keys: Vec::new(), skipped: 0 };
        for (name, bytes) in files {
            let failed = |wrong: Wrong| TokenKeyError {
                file: (*name).to_owned(),
                cause: wrong.cause,
                cure: wrong.cure,
            };
            let before = read.keys.len();
            read.add_file(name, bytes).map_err(failed)?;
            if read.keys.len() == before {
                return Err(failed(Wrong::new(
                    "there is no key in it that could verify a token",
                    NAME_A_KEY,
                )));
            }
            if read.keys.len() > limits::TOKEN_KEYS_MAX {
                let cause = format!("with it there are more than {} keys", limits::TOKEN_KEYS_MAX);
                return Err(failed(Wrong::new(
                    cause,
                    "remove the keys that nothing is signed with any more",
                )));
            }
        }
        if read.keys.is_empty() {
            let (file, cause) = ("tokens".to_owned(), "no key file is named".to_owned());
            return Err(TokenKeyError { file, cause, cure: NAME_A_KEY });
        }
        Ok(read)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn skipped(&self) -> usize {
        self.skipped
    }

    /// The keys of that algorithm and, if there is one, that id.
    pub(super) fn candidates<'k, 'i>(
        &'k self,
        algorithm: Algorithm,
        id: Option<&'i str>,
    ) -> impl Iterator<Item = &'k Key> + use<'k, 'i> {
        self.keys.iter().filter(move |key| {
            key.algorithm() == algorithm && id.is_none_or(|id| key.id.as_deref() == Some(id))
        })
    }

    fn add_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), Wrong> {
        if bytes.len() > limits::TOKEN_KEY_FILE_BYTES_MAX {
            return Err(Wrong::new("it is too large for a key file", NAME_A_KEY));
        }
        if bytes.trim_ascii_start().first() == Some(&b'{') {
            let (keys, skipped) = jwks::read(bytes)?;
            self.keys.extend(keys);
            self.skipped += skipped;
            return Ok(());
        }
        let file = name.rsplit('/').next().unwrap_or(name);
        let id = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        for section in pem::parse_many(bytes).map_err(|_| Wrong::new("it is not PEM", NAME_A_KEY))? {
            self.keys.push(Key { id: Some(id.into()), public: Public::from_pem(&section)? });
        }
        Ok(())
    }
}

/// What is wrong with a key, and what to do.
#[derive(Debug)]
pub(super) struct Wrong {
    cause: String,
    cure: &'static str,
}

impl Wrong {
    pub(super) fn new(cause: impl Into<String>, cure: &'static str) -> Wrong {
        Wrong { cause: cause.into(), cure }
    }
}

pub(super) const NAME_A_KEY: &str =
    "name a PEM file with a public key, or a JWKS file, of an Ed25519, P-256 or RSA key of the issuer";
pub(super) const NAME_THE_PUBLIC_KEY: &str = "put only the public key here (openssl pkey -in PRIVATE -pubout), and replace the private one if others could read it";
const ASK_FOR_A_KEY: &str = "ask the issuer for an Ed25519, P-256 or RSA key of 2048 to 4096 bits";

/// A key and its id.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: Option<Box<str>>,
    pub(super) public: Public,
}

impl Key {
    fn algorithm(&self) -> Algorithm {
        match self.public {
            Public::Ed25519(_) => Algorithm::EdDsa,
            Public::P256(_) => Algorithm::Es256,
            Public::Rsa { .. } => Algorithm::Rs256,
        }
    }

    /// Whether that is the key's signature of these bytes.
    pub(super) fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match &self.public {
            Public::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| ed25519_dalek::Verifier::verify(&**key, signed, &signature).is_ok()),
            Public::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point[..]).verify(signed, signature).is_ok()
            }
            Public::Rsa { modulus, exponent } => RsaPublicKeyComponents { n: modulus, e: exponent }
                .verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
                .is_ok(),
        }
    }

    /// The same, to be verified together with others. `None`: that is not for this key, or not for such a signature.
    pub(super) fn claim<'a>(&'a self, signed: &'a [u8], signature: &[u8]) -> Option<Claim<'a>> {
        let Public::Ed25519(key) = &self.public else { return None };
        let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
        Some(Claim { key, signed, signature })
    }
}

/// That an Ed25519 signature is the key's.
pub(super) struct Claim<'a> {
    key: &'a ed25519_dalek::VerifyingKey,
    signed: &'a [u8],
    signature: ed25519_dalek::Signature,
}

/// Whether all of them are true. That takes one equation in which each has a random factor, so wrong ones cannot make up for each
/// other. Of signatures with a part of small order, which only who has the key can make, it may say yes where the key alone says no.
pub(super) fn verify_together(claims: &[Claim<'_>]) -> bool {
    let signed: Vec<_> = claims.iter().map(|claim| claim.signed).collect();
    let signatures: Vec<_> = claims.iter().map(|claim| claim.signature).collect();
    let keys: Vec<_> = claims.iter().map(|claim| *claim.key).collect();
    ed25519_dalek::verify_batch(&signed, &signatures, &keys).is_ok()
}

/// A public key that was judged.
#[derive(Debug)]
pub(super) enum Public {
    /// Decompressed, not of small order.
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
    /// 0x04, x, y; on the curve.
    P256(Box<[u8; 65]>),
    /// Big-endian, without leading zeros.
    Rsa { modulus: Box<[u8]>, exponent: Box<[u8]> },
}

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

impl Public {
    fn from_pem(section: &pem::Pem) -> Result<Public, Wrong> {
        let torn = |_| Wrong::new(format!("its {} is damaged", section.tag()), NAME_A_KEY);
        match section.tag() {
            "PUBLIC KEY" => {
                Public::from_info(SubjectPublicKeyInfoRef::from_der(section.contents()).map_err(torn)?)
            }
            "RSA PUBLIC KEY" => Public::from_pkcs1(section.contents()),
            "CERTIFICATE" => Public::from_info(key_of_certificate(section.contents()).map_err(torn)?),
            tag if tag.ends_with("PRIVATE KEY") => {
                Err(Wrong::new("there is a private key in it", NAME_THE_PUBLIC_KEY))
            }
            _ => Err(Wrong::new("there is something other than public keys in it", NAME_A_KEY)),
        }
    }

    fn from_info(info: SubjectPublicKeyInfoRef<'_>) -> Result<Public, Wrong> {
        let bytes = info.subject_public_key.as_bytes();
        let bytes = bytes.ok_or_else(|| Wrong::new("its key is damaged", NAME_A_KEY))?;
        if info.algorithm.oid == ED25519 {
            Public::ed25519(bytes)
        } else if info.algorithm.oid == RSA {
            Public::from_pkcs1(bytes)
        } else if info.algorithm.oid == EC_PUBLIC_KEY && info.algorithm.parameters_oid() == Ok(P256) {
            Public::p256(bytes)
        } else {
            Err(Wrong::new("its key is of a type or curve that is not used here", ASK_FOR_A_KEY))
        }
    }

    fn from_pkcs1(bytes: &[u8]) -> Result<Public, Wrong> {
        let key = pkcs1::RsaPublicKey::<UintRef<'_>>::from_der(bytes);
        let key = key.map_err(|_| Wrong::new("its RSA key is damaged", NAME_A_KEY))?;
        Public::rsa(key.modulus.as_bytes(), key.public_exponent.as_bytes())
    }

    /// The 32 bytes of RFC 8032 5.1.5. Of a point of small order anyone could sign.
    pub(super) fn ed25519(bytes: &[u8]) -> Result<Public, Wrong> {
        let key = <&[u8; 32]>::try_from(bytes).ok();
        let key = key.and_then(|bytes| ed25519_dalek::VerifyingKey::from_bytes(bytes).ok());
        match key {
            Some(key) if !key.is_weak() => Ok(Public::Ed25519(Box::new(key))),
            _ => Err(Wrong::new("its Ed25519 key is not a point that could verify", ASK_FOR_A_KEY)),
        }
    }

    /// An uncompressed point.
    pub(super) fn p256(bytes: &[u8]) -> Result<Public, Wrong> {
        let point = <[u8; 65]>::try_from(bytes).ok().filter(is_on_p256);
        let point = point.ok_or_else(|| {
            Wrong::new("its P-256 key is not an uncompressed point of the curve", ASK_FOR_A_KEY)
        });
        Ok(Public::P256(Box::new(point?)))
    }

    /// Two big-endian numbers.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Public, Wrong> {
        let bits = match modulus.first() {
            Some(0) | None => {
                return Err(Wrong::new("its RSA key has a modulus with leading zeros", ASK_FOR_A_KEY));
            }
            Some(first) => modulus.len() * 8 - first.leading_zeros() as usize,
        };
        if !(limits::TOKEN_RSA_BITS_MIN..=limits::TOKEN_RSA_BITS_MAX).contains(&bits) {
            return Err(Wrong::new(format!("its RSA key has {bits} bits"), ASK_FOR_A_KEY));
        }
        let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        // Three and more; `ring` stops at 33 bits.
        let usual = exponent.first() != Some(&0) && exponent.len() <= 4 && exponent != [1];
        if !(odd(modulus) && odd(exponent) && usual) {
            return Err(Wrong::new(
                "its RSA key has a modulus or exponent that no RSA key has",
                ASK_FOR_A_KEY,
            ));
        }
        Ok(Public::Rsa { modulus: modulus.into(), exponent: exponent.into() })
    }
}

/// `ring` judges a point only where it is used, and says only there that it is none; so it is used once, to agree on a secret
/// that nobody gets.
fn is_on_p256(point: &[u8; 65]) -> bool {
    EphemeralPrivateKey::generate(&agreement::ECDH_P256, &SystemRandom::new()).is_ok_and(|ours| {
        agreement::agree_ephemeral(ours, &Peer::new(&agreement::ECDH_P256, point), |_| ()).is_ok()
    })
}

/// The key's place in a certificate [RFC 5280 4.1]: what stands before it is passed over.
fn key_of_certificate(bytes: &[u8]) -> der::Result<SubjectPublicKeyInfoRef<'_>> {
    let whole = AnyRef::from_der(bytes)?;
    let mut certificate = SliceReader::new(whole.value())?;
    let to_be_signed: AnyRef<'_> = certificate.decode()?;
    let mut fields = SliceReader::new(to_be_signed.value())?;
    // The version is there in all but the first, with a tag of its own.
    let first: AnyRef<'_> = fields.decode()?;
    let before_key = if der::Tagged::tag(&first).is_context_specific() { 5 } else { 4 };
    for _ in 0..before_key {
        fields.decode::<AnyRef<'_>>()?;
    }
    fields.decode()
}
