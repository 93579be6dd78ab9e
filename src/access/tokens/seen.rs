//! Tokens that were verified lately: after a network cut, thousands of devices come back with the token they had.
//!
//! One per shard, so without a lock. It answers only for what its owner put in after verifying it, until the token expires;
//! when keys or settings are read again, the owner makes a new one, else a token of a withdrawn key would live on here.
//!
//! The key is the SHA-256 of the whole token, signature and all. Whoever finds another text with the digest of one that is in
//! here has found a second preimage of SHA-256, which is harder than forging any of the signatures. A shorter keyed hash would
//! be quicker, but then the key is a secret whose loss lets anyone in; a digest needs none. Tokens themselves are not kept.
//!
//! Two generations stand in for an order of age: entries and hits go to the young one; when that is full, it becomes the old
//! one and what the old one held is forgotten. So a token that is used stays, and nothing is ever scanned.

use std::hash::{BuildHasherDefault, Hasher};
use std::mem;
use std::sync::Arc;

use hashbrown::HashMap;
use ring::digest;

use super::Claims;
use crate::limits;

type Digest = [u8; 32];

/// Tokens that were verified lately, by their digest.
#[derive(Default)]
pub struct Seen {
    young: Generation,
    old: Generation,
}

impl Seen {
    /// What was found in this very token, if it was put here and has not expired.
    pub fn get(&mut self, token: &[u8], now_unix_s: u64) -> Option<Arc<Claims>> {
        let digest = digest_of(token);
        let young = self.young.by_digest.get(&digest).cloned();
        let claims = match young {
            Some(claims) => claims,
            None => self.old.take(&digest)?,
        };
        if claims.expired(now_unix_s) {
            self.young.take(&digest);
            return None;
        }
        self.insert(digest, &claims);
        Some(claims)
    }

    /// Remembers a token that was just verified.
    pub fn put(&mut self, token: &[u8], claims: &Arc<Claims>) {
        let digest = digest_of(token);
        self.old.take(&digest);
        self.insert(digest, claims);
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.young.by_digest.len() + self.old.by_digest.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes they take.
    pub fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }

    fn insert(&mut self, digest: Digest, claims: &Arc<Claims>) {
        if self.young.by_digest.contains_key(&digest) {
            return;
        }
        let bytes = bytes_of(claims);
        if self.young.by_digest.len() >= limits::TOKENS_SEEN_MAX / 2
            || self.young.bytes + bytes > limits::TOKENS_SEEN_BYTES_MAX / 2
        {
            self.old = mem::take(&mut self.young);
        }
        self.young.by_digest.insert(digest, Arc::clone(claims));
        self.young.bytes += bytes;
    }
}

#[derive(Default)]
struct Generation {
    by_digest: HashMap<Digest, Arc<Claims>, BuildHasherDefault<DigestHasher>>,
    bytes: usize,
}

impl Generation {
    fn take(&mut self, digest: &Digest) -> Option<Arc<Claims>> {
        let claims = self.by_digest.remove(digest)?;
        self.bytes -= bytes_of(&claims);
        Some(claims)
    }
}

/// A digest is spread already: its first eight bytes will do. Only tokens that were verified get in, so a stranger cannot fill
/// one place of the table.
#[derive(Default)]
struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // The length of an array comes first, as eight bytes or not at all; the digest overwrites it.
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

fn digest_of(token: &[u8]) -> Digest {
    let digest = digest::digest(&digest::SHA256, token);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// An entry of the table, which is at worst half full, and what it points to.
fn bytes_of(claims: &Claims) -> usize {
    2 * (mem::size_of::<(Digest, Arc<Claims>)>() + 1) + claims.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn claims(account: &str, expires_unix_s: u64) -> Arc<Claims> {
        Arc::new(Claims {
            account: account.into(),
            expires_unix_s,
            client_id: None,
            groups: Vec::new(),
            permissions: None,
        })
    }

    #[test]
    fn a_token_that_was_put_is_found_and_no_other() {
        let mut seen = Seen::default();
        assert_eq!(seen.get(b"a.b.c", NOW), None);
        seen.put(b"a.b.c", &claims("alice", NOW + 60));
        assert_eq!(seen.get(b"a.b.c", NOW).expect("it was put").account.as_ref(), "alice");
        assert_eq!(seen.get(b"a.b.d", NOW), None);
        assert_eq!(seen.get(b"a.b.c.", NOW), None);
    }

    #[test]
    fn a_token_that_expired_is_forgotten() {
        let mut seen = Seen::default();
        seen.put(b"t", &claims("alice", NOW));
        assert!(seen.get(b"t", NOW + limits::TOKEN_LEEWAY_S - 1).is_some());
        assert_eq!(seen.get(b"t", NOW + limits::TOKEN_LEEWAY_S), None);
        assert!(seen.is_empty());
        assert_eq!(seen.bytes(), 0);
        assert_eq!(seen.get(b"t", NOW), None, "not even when the clock is set back");
    }

    #[test]
    fn the_old_are_forgotten_first_and_those_in_use_stay() {
        let mut seen = Seen::default();
        let claims = claims("alice", NOW + 60);
        seen.put(b"used", &claims);
        seen.put(b"unused", &claims);
        for number in 0..2 * limits::TOKENS_SEEN_MAX {
            seen.put(&number.to_le_bytes(), &claims);
            assert!(seen.len() <= limits::TOKENS_SEEN_MAX);
            if number % 1_000 == 0 {
                assert!(seen.get(b"used", NOW).is_some(), "{number}");
            }
        }
        assert!(seen.len() >= limits::TOKENS_SEEN_MAX / 2);
        assert_eq!(seen.get(b"unused", NOW), None);
    }

    #[test]
    fn large_tokens_are_bounded_by_their_bytes() {
        let mut seen = Seen::default();
        let claims = claims(&"a".repeat(8_000), NOW + 60);
        for number in 0..limits::TOKENS_SEEN_MAX {
            seen.put(&number.to_le_bytes(), &claims);
            assert!(seen.bytes() <= limits::TOKENS_SEEN_BYTES_MAX);
        }
        assert!(seen.len() < 4_200, "{}", seen.len());
    }

    #[test]
    fn the_count_of_bytes_does_not_drift() {
        let mut seen = Seen::default();
        let claims = claims("alice", NOW + 60);
        for round in 0..3_u64 {
            for number in 0..40_000_u64 {
                seen.put(&number.to_le_bytes(), &claims);
                seen.get(&(number / 2).to_le_bytes(), NOW + round);
            }
        }
        assert_eq!(seen.bytes(), seen.len() * bytes_of(&claims));
    }
}
