//! Key files: what is taken, and what the operator is told.

use super::{HEADER, NOW, PAYLOAD, TOKENS, TOKENS_WITHOUT_ID, signed, tokens, with_files};
use crate::access::tokens::TokenError;
use crate::limits;

fn cause(name: &str, text: &str) -> String {
    let error = with_files(&[(name, text)]).expect_err("a bad file");
    assert_eq!(error.file, name);
    assert!(!error.cure.is_empty() && error.to_string().contains("cure: "));
    error.cause
}

#[test]
fn what_is_for_others_in_a_key_set_is_left_aside_and_counted() {
    let tokens = tokens();
    assert_eq!((tokens.keys(), tokens.skipped()), (3, 3));
    for change in
        [r#""use": "enc""#, r#""alg": "ES384""#, r#""key_ops": ["sign"]"#, r#""alg": 1"#, r#""use": ["sig"]"#]
    {
        let set = fixture!("keys.jwks").replacen(r#""use": "sig""#, change, 1);
        let tokens = with_files(&[("keys.jwks", &set)]).expect("two keys are left");
        assert_eq!((tokens.keys(), tokens.skipped()), (2, 4), "{change}");
        assert_eq!(tokens.verify(signed(HEADER, PAYLOAD).as_bytes(), NOW), Err(TokenError::UnknownKey));
    }
    for change in [r#""alg": "EdDSA""#, r#""alg": "Ed25519""#, r#""key_ops": ["verify"]"#, r#""x5t": "x""#] {
        let set = fixture!("keys.jwks").replacen(r#""use": "sig""#, change, 1);
        let tokens = with_files(&[("keys.jwks", &set)]).expect("a good set");
        assert_eq!((tokens.keys(), tokens.skipped()), (3, 3), "{change}");
    }
}

#[test]
fn every_form_of_a_key_verifies_the_same_token() {
    let [eddsa, es256, rs256] = TOKENS_WITHOUT_ID;
    for (text, token) in [
        (fixture!("eddsa.pem"), eddsa),
        (fixture!("es256.pem"), es256),
        (fixture!("es256_certificate.pem"), es256),
        (fixture!("rs256.pem"), rs256),
        (fixture!("rsa_pkcs1.pem"), rs256),
    ] {
        let tokens = with_files(&[("keys/some.pem", text)]).expect("a good key");
        assert_eq!(tokens.keys(), 1);
        assert!(tokens.verify(token.as_bytes(), NOW).is_ok(), "{text}");
    }
    let named =
        with_files(&[("keys/es256.pem", fixture!("es256.pem")), ("/x/rs256.key.pem", fixture!("rs256.pem"))]);
    let named = named.expect("good keys");
    assert!(named.verify(TOKENS[1].1.as_bytes(), NOW).is_ok());
    assert_eq!(named.verify(TOKENS[2].1.as_bytes(), NOW), Err(TokenError::UnknownKey));
}

#[test]
fn rsa_keys_are_neither_short_nor_long() {
    assert_eq!(cause("a.pem", fixture!("rsa_1024.pem")), "its RSA key has 1024 bits");
    assert_eq!(cause("a.pem", fixture!("rsa_4224.pem")), "its RSA key has 4224 bits");
    assert!(with_files(&[("a.pem", fixture!("rsa_4096.pem"))]).is_ok());
    let exponent = |text: &str| cause("a.jwks", &fixture!("keys.jwks").replacen("AQAB", text, 1));
    for text in ["AQ", "AA", "Ag", "", "AAEAAQ", "AQAAAAE"] {
        assert!(exponent(text).contains("RSA"), "{text}");
    }
}

#[test]
fn a_private_key_is_refused_and_not_shown() {
    for tag in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
        let text = format!("-----BEGIN {tag}-----\nc2VjcmV0\n-----END {tag}-----\n");
        assert_eq!(cause("a.pem", &text), "there is a private key in it");
    }
    let set = fixture!("keys.jwks").replacen(r#""use": "sig""#, r#""d": "c2VjcmV0""#, 1);
    assert_eq!(cause("a.jwks", &set), "there is a private key in it");
}

#[test]
fn a_key_that_could_not_verify_is_found_when_it_is_read() {
    let x = "RMaOBqLUbx2m3WK0cl9kXEWZK3KdzONn2d1T0HOxb_A";
    let set = fixture!("keys.jwks");
    assert!(set.contains(x));
    // Not a point; the point of order 1; 31 bytes; 33 bytes.
    for other in [
        "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        &x[..42],
        &format!("{x}A"),
    ] {
        cause("a.jwks", &set.replace(x, other));
    }
    let y = "477kJt1ZJC6lj0Nr4jhQkCPkjC6TpjlY2RUfil_UNs0";
    assert!(set.contains(y));
    for other in ["577kJt1ZJC6lj0Nr4jhQkCPkjC6TpjlY2RUfil_UNs0", "", "AAAA", &format!("{y}=")] {
        cause("a.jwks", &set.replace(y, other));
    }
    assert!(cause("a.pem", fixture!("p384.pem")).contains("type or curve"));
}

#[test]
fn a_file_without_a_key_is_an_error_that_names_it() {
    for text in [
        "",
        "hello",
        "{}",
        "{",
        r#"{"keys":[]}"#,
        r#"{"keys":{}}"#,
        r#"{"keys":[1]}"#,
        r#"{"keys":[{}]}"#,
        r#"{"keys":[],"keys":[]}"#,
    ] {
        cause("a.jwks", text);
    }
    cause("a.jwks", r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#);
    cause("a.jwks", r#"{"kty":"oct","k":"AAAA"}"#);
    cause("a.pem", &fixture!("eddsa.pem").replacen("MCow", "MCox", 1));
    cause("a.pem", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n");
    cause("a.pem", "-----BEGIN CERTIFICATE-----\nMAAwAA\n-----END CERTIFICATE-----\n");
    cause("a.pem", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n");
    cause("a.pem", &" ".repeat(limits::TOKEN_KEY_FILE_BYTES_MAX + 1));
    cause("a.pem", &fixture!("eddsa.pem").repeat(limits::TOKEN_KEYS_MAX + 1));
    cause("a.jwks", &fixture!("keys.jwks").replace(r#""kid": "eddsa""#, r#""kid": 1"#));
    assert!(with_files(&[]).is_err());
    let second = with_files(&[("a.pem", fixture!("eddsa.pem")), ("b.pem", "hello")]);
    assert_eq!(second.expect_err("a bad file").file, "b.pem");
}
