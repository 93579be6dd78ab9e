//! Keys in a JSON Web Key Set [RFC 7517], or in one JSON Web Key.
//!
//! An issuer publishes keys of all its trades in one set. What is of another type, curve, algorithm or use is left aside and
//! counted, as section 5 has it; what is of ours but will not do is an error, and so is a private key. Called by `keys`.

use super::document::{Json, Object, from_base64url};
use super::keys::{Algorithm, Key, NAME_A_KEY, NAME_THE_PUBLIC_KEY, Public, Wrong};
use crate::limits;

/// Reads a file: the keys, and how many entries were left aside.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<Key>, usize), Wrong> {
    let document = Object::read(bytes);
    let document = document.map_err(|flaw| Wrong::new(format!("the file {}", flaw.text()), NAME_A_KEY))?;
    if document.has("kty") {
        return Ok(entry(&document)?.map_or((Vec::new(), 1), |key| (vec![key], 0)));
    }
    let entries = document.get("keys").and_then(Json::array);
    let entries = entries.ok_or_else(|| Wrong::new("there is no list of keys in it", NAME_A_KEY))?;
    let (mut keys, mut skipped) = (Vec::new(), 0);
    for json in entries {
        let Json::Object(object) = json else {
            return Err(Wrong::new("an entry of it is no key", NAME_A_KEY));
        };
        match entry(object)? {
            Some(key) if keys.len() < limits::TOKEN_KEYS_MAX => keys.push(key),
            Some(_) => return Err(Wrong::new("there are too many keys in it", NAME_A_KEY)),
            None => skipped += 1,
        }
    }
    Ok((keys, skipped))
}

/// One key; `None` if it is not for us.
fn entry(entry: &Object<'_>) -> Result<Option<Key>, Wrong> {
    let text = |name: &str| entry.get(name).and_then(Json::text);
    let kind = text("kty").ok_or_else(|| Wrong::new("a key in it has no kty", NAME_A_KEY))?;
    let algorithm = match (kind, text("crv")) {
        ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
        ("EC", Some("P-256")) => Algorithm::Es256,
        ("RSA", _) => Algorithm::Rs256,
        _ => return Ok(None),
    };
    if !is_for(entry, algorithm) {
        return Ok(None);
    }
    if entry.has("d") {
        return Err(Wrong::new("there is a private key in it", NAME_THE_PUBLIC_KEY));
    }
    let number = |name: &str| {
        let decoded = text(name).and_then(|text| from_base64url(text.as_bytes()));
        decoded.ok_or_else(|| Wrong::new(format!("{name} of a key in it is not base64url"), NAME_A_KEY))
    };
    let public = match algorithm {
        Algorithm::EdDsa => Public::ed25519(&number("x")?)?,
        Algorithm::Es256 => {
            let (x, y) = (number("x")?, number("y")?);
            // Each has exactly 32 bytes [RFC 7518 6.2.1.2]: 31 and 33 would join to a point as well.
            let x = Some(x).filter(|x| x.len() == 32);
            let x = x.ok_or_else(|| Wrong::new("x of a P-256 key in it has not 32 bytes", NAME_A_KEY))?;
            Public::p256(&[&[4], &x[..], &y[..]].concat())?
        }
        Algorithm::Rs256 => Public::rsa(&number("n")?, &number("e")?)?,
    };
    Ok(Some(Key { id: id(entry)?, public }))
}

/// Whether its `use`, `key_ops` and `alg`, where it has them, allow what we do with it.
fn is_for(entry: &Object<'_>, algorithm: Algorithm) -> bool {
    let used = entry.get("use").is_none_or(|used| used.text() == Some("sig"));
    let verifies = |json: &Json<'_>| {
        json.array().is_some_and(|list| list.iter().any(|operation| operation.text() == Some("verify")))
    };
    let named = |name: &Json<'_>| name.text().and_then(Algorithm::named) == Some(algorithm);
    used && entry.get("key_ops").is_none_or(verifies) && entry.get("alg").is_none_or(named)
}

fn id(entry: &Object<'_>) -> Result<Option<Box<str>>, Wrong> {
    let Some(id) = entry.get("kid") else { return Ok(None) };
    match id.text() {
        Some(text) if (1..=limits::TOKEN_TEXT_BYTES_MAX).contains(&text.len()) => Ok(Some(text.into())),
        _ => Err(Wrong::new("the kid of a key in it is not a text of 1 to 255 bytes", NAME_A_KEY)),
    }
}
