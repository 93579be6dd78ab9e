//! Tokens that hold, and everything that is done to have one taken that does not.
//!
//! The tokens and keys in `fixtures/` are for these tests alone. PyJWT made them, so another implementation agrees with this one
//! on what a token is; their expiry is the year 2100. What PyJWT will not make is signed here with the same Ed25519 key.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use proptest::prelude::*;
use ring::hmac;
use ring::signature::Ed25519KeyPair;

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/access/tokens/fixtures/", $name))
    };
}
mod claims;
mod key_files;
mod together;

const NOW: u64 = 1_800_000_000;
const TOKENS: [(&str, &str); 3] = [
    ("EdDSA", fixture!("eddsa.token")),
    ("ES256", fixture!("es256.token")),
    ("RS256", fixture!("rs256.token")),
];
const TOKENS_WITHOUT_ID: [&str; 3] =
    [fixture!("eddsa_no_kid.token"), fixture!("es256_no_kid.token"), fixture!("rs256_no_kid.token")];
const HEADER: &str = r#"{"alg":"EdDSA","kid":"eddsa"}"#;
const PAYLOAD: &str = r#"{"iss":"https://issuer.example","aud":"broker","sub":"alice","exp":4102444800}"#;

fn settings() -> Settings {
    Settings {
        issuer: Some("https://issuer.example".to_owned()),
        audience: Some("broker".to_owned()),
        account_claim: "sub".to_owned(),
    }
}

fn with_files(files: &[(&str, &str)]) -> Result<Tokens, TokenKeyError> {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    Tokens::new(settings(), &files)
}

fn tokens() -> Tokens {
    with_files(&[("keys.jwks", fixture!("keys.jwks"))]).expect("keys to test with")
}

fn encoded(text: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(text.as_ref())
}

/// A token with the test key's signature, whatever it says.
fn signed(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
    let seed = HEXLOWER.decode(fixture!("eddsa_seed.hex").as_bytes()).expect("hexadecimal");
    let message = format!("{}.{}", encoded(header), encoded(payload));
    let signature = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed").sign(message.as_bytes());
    format!("{message}.{}", encoded(signature))
}

fn verdict(token: impl AsRef<[u8]>) -> Result<Claims, TokenError> {
    tokens().verify(token.as_ref(), NOW)
}

fn verdict_of_header(header: &str) -> Option<TokenError> {
    verdict(signed(header, PAYLOAD)).err()
}

#[test]
fn tokens_of_another_implementation_hold() {
    let pems = [fixture!("eddsa.pem"), fixture!("es256.pem"), fixture!("rs256.pem")].concat();
    let by_pem = with_files(&[("keys.pem", &pems)]).expect("keys to test with");
    for (token, without_id) in TOKENS.iter().map(|(_, token)| token).zip(TOKENS_WITHOUT_ID) {
        let claims = verdict(token).expect("a good token");
        assert_eq!((claims.account.as_ref(), claims.expires_unix_s), ("alice", 4_102_444_800));
        assert_eq!(claims.client_id.as_deref(), Some("sensor-17"));
        assert_eq!(claims.groups, ["sensors".into(), "north".into()]);
        let permissions = vec![("u/alice/#".into(), true, true), ("news/+".into(), false, true)];
        assert_eq!(claims.permissions, Some(permissions));
        assert_eq!(verdict(without_id), Ok(claims.clone()));
        assert_eq!(by_pem.verify(without_id.as_bytes(), NOW), Ok(claims));
        assert_eq!(
            by_pem.verify(token.as_bytes(), NOW),
            Err(TokenError::UnknownKey),
            "its id is not the file's"
        );
        assert!(looks_like_token(token.as_bytes()) && looks_like_token(without_id.as_bytes()));
    }
}

/// RFC 8037 A.4: its payload is no JSON, which is seen only behind the signature.
#[test]
fn the_ed25519_vector_of_the_rfc_verifies() {
    let key = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let tokens = with_files(&[("rfc8037.jwk", key)]).expect("the key of the RFC");
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert!(matches!(tokens.verify(token.as_bytes(), NOW), Err(TokenError::Payload(_))));
    let other = token.replace("RXhh", "RXhi");
    assert_eq!(tokens.verify(other.as_bytes(), NOW), Err(TokenError::UnknownSigner));
}

/// RFC 7515 A.2 and A.3: their `exp` is in 2011, and they name no subject.
#[test]
fn the_rs256_and_es256_vectors_of_the_rfc_verify() {
    let rsa = r#"{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"#;
    let ec = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    let settings = Settings { issuer: None, audience: None, account_claim: "iss".to_owned() };
    let files = [("rsa.jwk", rsa.as_bytes()), ("ec.jwk", ec.as_bytes())];
    let tokens = Tokens::new(settings, &files).expect("the keys of the RFC");
    let payload =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let rs256 = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let es256 = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    for (header, signature) in [("eyJhbGciOiJSUzI1NiJ9", rs256), ("eyJhbGciOiJFUzI1NiJ9", es256)] {
        let token = format!("{header}.{payload}.{signature}");
        let claims = tokens.verify(token.as_bytes(), 1_300_819_000).expect("the token of the RFC");
        assert_eq!(claims.account.as_ref(), "joe");
        assert_eq!(
            tokens.verify(token.as_bytes(), NOW),
            Err(TokenError::Expired { ago_s: NOW - 1_300_819_380 })
        );
    }
}

#[test]
fn a_token_without_a_signature_of_a_key_is_refused_whatever_alg_says() {
    for name in [
        "none", "NONE", "nOnE", "None", "", "HS256", "HS384", "HS512", "RS512", "PS256", "ES384", "eddsa",
        "ES256 ",
    ] {
        let header = format!(r#"{{"alg":"{name}","kid":"eddsa"}}"#);
        assert_eq!(verdict_of_header(&header), Some(TokenError::Algorithm), "{name}");
        let unsigned = format!("{}.{}.", encoded(header), encoded(PAYLOAD));
        assert_eq!(verdict(&unsigned), Err(TokenError::Algorithm), "{name}");
        assert!(looks_like_token(unsigned.as_bytes()));
    }
    for header in [r#"{"kid":"eddsa"}"#, r#"{"alg":null}"#, r#"{"alg":["EdDSA"]}"#, r#"{"alg":1}"#] {
        assert_eq!(verdict_of_header(header), Some(TokenError::Algorithm), "{header}");
    }
    for (name, _) in TOKENS {
        let header = format!(r#"{{"alg":"{name}"}}"#);
        let unsigned = format!("{}.{}.", encoded(header), encoded(PAYLOAD));
        assert_eq!(verdict(unsigned), Err(TokenError::UnknownSigner));
    }
}

#[test]
fn a_public_key_is_no_secret_of_an_hmac() {
    for secret in [fixture!("rs256.pem"), fixture!("eddsa.pem"), fixture!("keys.jwks")] {
        let message = format!("{}.{}", encoded(r#"{"alg":"HS256","kid":"rs256"}"#), encoded(PAYLOAD));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), message.as_bytes());
        assert_eq!(verdict(format!("{message}.{}", encoded(tag))), Err(TokenError::Algorithm));
    }
}

#[test]
fn a_key_is_only_for_its_own_algorithm_and_its_own_id() {
    let other = with_files(&[("eddsa.pem", fixture!("eddsa.pem")), ("rs256.pem", fixture!("rs256.pem"))]);
    let other = other.expect("keys to test with");
    assert!(other.verify(signed(HEADER, PAYLOAD).as_bytes(), NOW).is_ok(), "the file's name is the id");
    for (algorithm, id, error) in [
        ("ES256", "eddsa", TokenError::UnknownKey),
        ("RS256", "eddsa", TokenError::UnknownKey),
        ("EdDSA", "es256", TokenError::UnknownKey),
        ("EdDSA", "unknown", TokenError::UnknownKey),
        ("EdDSA", "enc", TokenError::UnknownKey),
        ("RS256", "enc", TokenError::UnknownKey),
        ("EdDSA", "../eddsa", TokenError::UnknownKey),
        ("ES256", "es256", TokenError::Signature),
        ("RS256", "rs256", TokenError::Signature),
    ] {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"{id}"}}"#);
        assert_eq!(verdict_of_header(&header), Some(error), "{header}");
    }
    assert_eq!(verdict_of_header(r#"{"alg":"ES256"}"#), Some(TokenError::UnknownSigner));
    assert_eq!(verdict_of_header(r#"{"alg":"EdDSA"}"#), None);
    assert_eq!(verdict_of_header(r#"{"alg":"Ed25519"}"#), None);
    for id in [r#""""#, "1", "null", "[\"eddsa\"]", &format!("\"{}\"", "k".repeat(256))] {
        let header = format!(r#"{{"alg":"EdDSA","kid":{id}}}"#);
        assert_eq!(verdict_of_header(&header), Some(TokenError::KeyId), "{id}");
    }
}

#[test]
fn a_key_that_a_token_brings_along_is_not_used() {
    let own = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
    let x = encoded(ring::signature::KeyPair::public_key(&own));
    let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"mine"}}"#);
    for id in ["", r#","kid":"mine""#, r#","kid":"eddsa""#] {
        let header = format!(r#"{{"alg":"EdDSA","jwk":{jwk},"jku":"https://evil.example"{id}}}"#);
        let message = format!("{}.{}", encoded(header), encoded(PAYLOAD));
        let token = format!("{message}.{}", encoded(own.sign(message.as_bytes())));
        assert!(verdict(token).is_err(), "{id}");
    }
}

#[test]
fn what_a_header_asks_for_beyond_a_signature_is_refused() {
    for (name, value) in [
        ("crit", r#"["exp"]"#),
        ("crit", "[]"),
        ("b64", "false"),
        ("b64", "true"),
        ("zip", "\"DEF\""),
        ("enc", "\"A128GCM\""),
        ("cty", "\"JWT\""),
    ] {
        let header = format!(r#"{{"alg":"EdDSA","{name}":{value}}}"#);
        assert_eq!(verdict_of_header(&header), Some(TokenError::Extension(name)));
    }
    for kind in ["JWT", "jwt", "at+jwt", "AT+JWT"] {
        assert_eq!(verdict_of_header(&format!(r#"{{"alg":"EdDSA","typ":"{kind}"}}"#)), None);
    }
    for kind in ["\"JWE\"", "\"dpop+jwt\"", "\"\"", "1", "null"] {
        assert_eq!(verdict_of_header(&format!(r#"{{"alg":"EdDSA","typ":{kind}}}"#)), Some(TokenError::Type));
    }
    for header in
        [r#"{"alg":"EdDSA","alg":"EdDSA"}"#, r#"{"alg":"none","alg":"EdDSA"}"#, "[]", "", "{", "null"]
    {
        assert!(matches!(verdict_of_header(header), Some(TokenError::Header(_))), "{header}");
    }
}

#[test]
fn no_bit_of_a_token_may_change() {
    let tokens = tokens();
    for (_, token) in TOKENS {
        let dots: Vec<usize> = token.match_indices('.').map(|(at, _)| at).collect();
        let parts = [&token[..dots[0]], &token[dots[0] + 1..dots[1]], &token[dots[1] + 1..]];
        for part in 0..3 {
            let bytes = BASE64URL_NOPAD.decode(parts[part].as_bytes()).expect("a good token");
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let changed = encoded(changed);
                let mut parts = parts;
                parts[part] = &changed;
                assert!(tokens.verify(parts.join(".").as_bytes(), NOW).is_err(), "part {part}, bit {bit}");
            }
        }
        for at in 0..token.len() {
            let mut changed = token.as_bytes().to_vec();
            changed[at] ^= 1;
            assert!(tokens.verify(&changed, NOW).is_err(), "byte {at}");
            assert!(tokens.verify(&token.as_bytes()[..at], NOW).is_err(), "cut at {at}");
        }
    }
}

#[test]
fn a_signature_has_one_form_only() {
    for (name, token) in TOKENS {
        let (message, signature) = token.rsplit_once('.').expect("a good token");
        let bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).expect("a good token");
        for (what, changed) in [
            ("padding", format!("{signature}==")),
            ("one pad", format!("{signature}=")),
            ("a line feed", format!("{signature}\n")),
            ("a space", format!(" {signature}")),
            ("a zero behind", encoded([&bytes[..], &[0]].concat())),
            ("a zero in front", encoded([&[0], &bytes[..]].concat())),
            ("a byte less", encoded(&bytes[1..])),
            ("nothing", String::new()),
            ("only zeros", encoded(vec![0; bytes.len()])),
            ("a part more", format!("{signature}.")),
        ] {
            assert!(verdict(format!("{message}.{changed}")).is_err(), "{name}: {what}");
        }
        // 64 bytes leave four bits of the last character unused, 256 bytes too.
        let (rest, last) = signature.split_at(signature.len() - 1);
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        for other in alphabet.chars().filter(|other| !last.contains(*other)) {
            assert!(verdict(format!("{message}.{rest}{other}")).is_err(), "{name}: {other}");
        }
    }
    // S + L, the group's order, which verifies where S is not compared with it [RFC 8032 5.1.7].
    let token = signed(HEADER, PAYLOAD);
    let (message, signature) = token.rsplit_once('.').expect("a good token");
    let mut bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).expect("a good token");
    let order =
        HEXLOWER.decode(b"edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").expect("L");
    let mut carry = 0;
    for (byte, more) in bytes[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(verdict(format!("{message}.{}", encoded(bytes))), Err(TokenError::Signature));
}

#[test]
fn what_is_no_token_is_refused_quickly() {
    for text in ["", ".", "..", "...", "a", "a.b", "a.b.c.d", "{}.{}.{}", "\u{fffd}.b.c"] {
        assert!(verdict(text).is_err(), "{text}");
        assert!(!looks_like_token(text.as_bytes()), "{text}");
    }
    assert_eq!(verdict([0xFF; 100]), Err(TokenError::Form));
    assert_eq!(verdict("e.b.\u{e9}"), Err(TokenError::HeaderEncoding));
    for bytes in [vec![b'.'; 65_535], vec![b'e'; 65_535], vec![b'.'; limits::TOKEN_BYTES_MAX + 1]] {
        assert_eq!(verdict(&bytes), Err(TokenError::TooLong));
        assert!(!looks_like_token(&bytes));
    }
    assert_eq!(verdict(vec![b'.'; limits::TOKEN_BYTES_MAX]), Err(TokenError::Form));
    for text in
        ["eyJ.a.b c", "eyJ.a.b=", "eA.a.b", "e1..a", "fyJ.a.b", "eyJ.a.b.", "correct horse.battery.staple"]
    {
        assert!(!looks_like_token(text.as_bytes()), "{text}");
    }
    assert!(looks_like_token(b"eyJ.a.b") && looks_like_token(b"eyA.a.") && looks_like_token(b"ewo.a.b"));
}

#[test]
fn a_token_may_be_as_long_as_the_bound_and_no_longer() {
    let filled =
        |bytes: usize| signed(HEADER, format!(r#"{{"pad":"{}",{}"#, "x".repeat(bytes), &PAYLOAD[1..]));
    let fits = (5_000..6_200).rev().map(filled).find(|token| token.len() <= limits::TOKEN_BYTES_MAX);
    let fits = fits.expect("some length fits");
    assert!(fits.len() > limits::TOKEN_BYTES_MAX - 4);
    assert!(verdict(&fits).is_ok());
    assert_eq!(verdict(filled(6_200)), Err(TokenError::TooLong));
}

#[test]
fn a_token_without_an_id_tries_a_bounded_number_of_keys() {
    let others: Vec<String> = (0..limits::TOKEN_KEYS_TRIED_MAX as u8)
        .map(|seed| {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed");
            let x = encoded(ring::signature::KeyPair::public_key(&pair));
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#)
        })
        .collect();
    let before = |count: usize| {
        let jwks = format!(r#"{{"keys":[{}]}}"#, others[..count].join(","));
        with_files(&[("others.jwks", &jwks), ("eddsa.pem", fixture!("eddsa.pem"))])
            .expect("keys to test with")
    };
    let (some, many) = (before(limits::TOKEN_KEYS_TRIED_MAX - 1), before(limits::TOKEN_KEYS_TRIED_MAX));
    let token = signed(r#"{"alg":"EdDSA"}"#, PAYLOAD);
    assert!(some.verify(token.as_bytes(), NOW).is_ok());
    assert_eq!(many.verify(token.as_bytes(), NOW), Err(TokenError::UnknownSigner));
    assert!(many.verify(signed(HEADER, PAYLOAD).as_bytes(), NOW).is_ok(), "with its id it is found");
}

#[test]
fn no_error_tells_what_stands_in_a_token() {
    let secret = "s3cr3t";
    for payload in [
        format!(r#"{{"sub":"{secret}"}}"#),
        format!(r#"{{"exp":"{secret}"}}"#),
        format!(r#"{{"exp":4102444800,"iss":"{secret}"}}"#),
        format!(r#"{{"exp":4102444800,"sub":"{secret}"#),
    ] {
        let error = verdict(signed(HEADER, payload)).expect_err("a bad token");
        assert!(!format!("{error} {error:?}").contains(secret));
    }
    for header in [format!(r#"{{"alg":"{secret}"}}"#), format!(r#"{{"alg":"EdDSA","kid":"{secret}"}}"#)] {
        let error = verdict_of_header(&header).expect("a bad token");
        assert!(!format!("{error} {error:?}").contains(secret));
    }
    assert_eq!(TokenError::Expired { ago_s: 40 }.to_string(), "expired 40 s ago");
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        looks_like_token(&bytes);
        prop_assert!(verdict(&bytes).is_err());
    }

    #[test]
    fn arbitrary_parts_are_refused_without_a_panic(
        header in "\\{\"alg\":\"(EdDSA|ES256|RS256)\"(,\"kid\":\"(eddsa|es256|rs256)\")?[ -~]{0,20}\\}?",
        payload in ".{0,100}",
        signature in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let token = format!("{}.{}.{}", encoded(header), encoded(payload), encoded(signature));
        prop_assert!(verdict(token).is_err());
    }

    #[test]
    fn arbitrary_signed_payloads_never_panic(payload in "\\{(\"(exp|nbf|aud|sub|scope|groups)\":[\\[\\]{}\"0-9a-z,.-]{0,30},?){0,4}\\}") {
        let _ = verdict(signed(HEADER, payload));
    }

    #[test]
    fn a_changed_token_is_refused(
        which in 0..3_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let good = TOKENS[which].1.as_bytes();
        let mut token = good.to_vec();
        for (at, byte, kind) in changes {
            let at = at.index(token.len());
            match kind {
                0 => token[at] = byte,
                1 => token.insert(at, byte),
                _ => drop(token.remove(at)),
            }
        }
        prop_assert!(token == good || verdict(&token).is_err());
    }
}
