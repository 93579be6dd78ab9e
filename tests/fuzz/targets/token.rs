//! A password that may be a token: the first byte chooses bytes as they are, a good token with damage, a good header with
//! anything behind it, or a file of keys. Nothing panics, and only the good tokens are taken.
#![no_main]

use std::sync::LazyLock;

use ironpost::access::tokens::{Settings, Tokens, looks_like_token};
use libfuzzer_sys::fuzz_target;

const NOW_UNIX_S: u64 = 1_800_000_000;
const GOOD: [&[u8]; 6] = [
    include_bytes!("../../../src/access/tokens/fixtures/eddsa.token"),
    include_bytes!("../../../src/access/tokens/fixtures/es256.token"),
    include_bytes!("../../../src/access/tokens/fixtures/rs256.token"),
    include_bytes!("../../../src/access/tokens/fixtures/eddsa_no_kid.token"),
    include_bytes!("../../../src/access/tokens/fixtures/es256_no_kid.token"),
    include_bytes!("../../../src/access/tokens/fixtures/rs256_no_kid.token"),
];

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let keys: &[u8] = include_bytes!("../../../src/access/tokens/fixtures/keys.jwks");
    let settings = Settings { issuer: None, audience: None, account_claim: "sub".to_owned() };
    let tokens = Tokens::new(settings, &[("keys.jwks", keys)]).expect("the keys of the tests");
    for good in GOOD {
        assert!(tokens.verify(good, NOW_UNIX_S).is_ok(), "a good token is taken");
    }
    tokens
});

fuzz_target!(|input: &[u8]| {
    let Some((&choice, rest)) = input.split_first() else { return };
    let good = GOOD[usize::from(choice >> 2) % GOOD.len()];
    let token = match choice % 4 {
        0 => rest.to_vec(),
        1 => damaged(good, rest),
        2 => behind_its_header(good, rest),
        // A file of keys comes from the operator, but must not bring the broker down either.
        _ => {
            let settings = Settings { issuer: None, audience: None, account_claim: "sub".to_owned() };
            if let Err(error) = Tokens::new(settings, &[("fuzz", rest)]) {
                assert!(!error.to_string().is_empty());
            }
            return;
        }
    };
    let taken = TOKENS.verify(&token, NOW_UNIX_S).is_ok();
    assert_eq!(taken, GOOD.contains(&token.as_slice()), "only the good tokens are taken");
    assert!(looks_like_token(&token) || !taken, "what is taken looks like a token");
});

/// Threes of bytes: a place, and what to put there.
fn damaged(good: &[u8], choices: &[u8]) -> Vec<u8> {
    let mut token = good.to_vec();
    let (changes, _) = choices.as_chunks::<3>();
    for &[high, low, byte] in changes {
        let at = usize::from(u16::from_be_bytes([high, low])) % token.len();
        token[at] = byte;
    }
    token
}

/// The header of a good token, so that the rest is looked at.
fn behind_its_header(good: &[u8], rest: &[u8]) -> Vec<u8> {
    let header = good.split(|byte| *byte == b'.').next().unwrap_or_default();
    [header, b".", rest].concat()
}
