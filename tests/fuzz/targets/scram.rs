//! An exchange of SCRAM-SHA-256: a choice, the length of the first message, that message, and what becomes of the last one.
//! Nothing panics, and nothing but what a client with the password says to this nonce proves anything.
#![no_main]

use std::num::NonZeroU32;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ironpost::access::scram::{Decoys, Exchange, ScramError, ScramKeys, Shape, begin};
use libfuzzer_sys::fuzz_target;
use ring::{digest, hmac, pbkdf2};

const NAME: &str = "user";
const PASSWORD: &[u8] = b"pencil";
const SALT: &[u8] = b"sixteen bytes of";
/// Fewer than any file may have: the time is for messages.
const ITERATIONS: u32 = 2;
const NONCE: [u8; 18] = [7; 18];
const ANOTHER_NONCE: [u8; 18] = [8; 18];
const GOOD_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";

/// The nonce, salt and iterations that an answer adds to the client's nonce.
const ADDED_BYTES_MAX: usize = 128;

static KEYS: LazyLock<ScramKeys> =
    LazyLock::new(|| ScramKeys::derive(PASSWORD, SALT, ITERATIONS).expect("a password that SASLprep takes"));
static DECOYS: LazyLock<Decoys> =
    LazyLock::new(|| Decoys::new([7; 32], Shape { iterations: ITERATIONS, salt_bytes: SALT.len() }));
static CLIENT: LazyLock<Client> = LazyLock::new(Client::new);

fuzz_target!(|input: &[u8]| {
    let &[choice, length, ref rest @ ..] = input else { return };
    let (first, rest) = rest.split_at(usize::from(length).min(rest.len()));
    let first = if choice & 4 == 0 { first } else { GOOD_FIRST };
    let Some((exchange, server_first)) = begun(first, NONCE) else { return };
    let name = exchange.name().to_owned();
    let begun_well = Begun::read(first, &server_first);
    let last = match choice % 4 {
        0 => rest.to_vec(),
        1 => CLIENT.last(&begun_well, b""),
        2 => CLIENT.last(&begun_well, rest),
        _ => damaged(&CLIENT.last(&begun_well, b""), rest),
    };
    let expected = CLIENT.proven(&begun_well, &last).filter(|_| name == NAME);
    match exchange.finish(&last) {
        Ok((proven, server_final)) => {
            assert_eq!((&*proven, Some(server_final)), (NAME, expected), "proven with the password only");
        }
        Err(error) => {
            check_error(error);
            assert!(choice % 4 != 1 || expected.is_none(), "the right password proves: {error}");
        }
    }
    let (another, _) = begun(first, ANOTHER_NONCE).expect("what begins once begins again");
    assert!(another.finish(&last).is_err(), "a proof counts once");
});

fn begun(first: &[u8], nonce: [u8; 18]) -> Option<(Exchange, Vec<u8>)> {
    let mut asked = 0;
    let lookup = |name: &str| {
        asked += 1;
        (name == NAME).then(|| KEYS.clone())
    };
    let result = begin(first, lookup, &DECOYS, nonce);
    assert_eq!(asked, usize::from(result.is_ok()), "asked once for a name, and not without one");
    match result {
        Ok((exchange, server_first)) => {
            assert!(server_first.len() <= first.len() + ADDED_BYTES_MAX);
            Some((exchange, server_first))
        }
        Err(error) => {
            check_error(error);
            None
        }
    }
}

fn check_error(error: ScramError) {
    assert!(error.message().starts_with(b"e=") && !error.to_string().is_empty());
}

/// Of the messages so far, what the last one repeats.
struct Begun<'a> {
    header: &'a str,
    bare: &'a str,
    server_first: &'a str,
    nonce: &'a str,
}

impl<'a> Begun<'a> {
    /// Of a first message that was taken [RFC 5802 7].
    fn read(first: &'a [u8], server_first: &'a [u8]) -> Begun<'a> {
        let (first, server_first) = (text(first), text(server_first));
        let (end, _) = first.match_indices(',').nth(1).expect("a header ends in its second comma");
        let (header, bare) = first.split_at(end + 1);
        let nonce = server_first.split(',').next().expect("a part").strip_prefix("r=").expect("a nonce");
        Begun { header, bare, server_first, nonce }
    }
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("what is taken is text")
}

/// Who knows the password.
struct Client {
    client_key: [u8; 32],
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl Client {
    /// [RFC 5802 3].
    fn new() -> Client {
        let mut salted = [0; 32];
        let iterations = NonZeroU32::new(ITERATIONS).expect("not zero");
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, SALT, PASSWORD, &mut salted);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let stored_key = stored_key.as_ref().try_into().expect("32 bytes");
        Client { client_key, stored_key, server_key: sign(&salted, b"Server Key") }
    }

    /// The right last message, with that behind its nonce.
    fn last(&self, begun: &Begun<'_>, more: &[u8]) -> Vec<u8> {
        let front = format!("c={},r={}", BASE64.encode(begun.header), begun.nonce);
        let front = [front.as_bytes(), more].concat();
        let proof = self.proof(begun, &front);
        [&front, b",p=".as_slice(), proof.as_bytes()].concat()
    }

    fn proof(&self, begun: &Begun<'_>, front: &[u8]) -> String {
        let mut proof = sign(&self.stored_key, &signed(begun, front));
        for (byte, key) in proof.iter_mut().zip(self.client_key) {
            *byte ^= key;
        }
        BASE64.encode(proof)
    }

    /// The server's last message, if that is a right one.
    fn proven(&self, begun: &Begun<'_>, last: &[u8]) -> Option<Vec<u8>> {
        let last = str::from_utf8(last).ok()?;
        let (front, proof) = last.rsplit_once(",p=")?;
        let mut parts = front.split(',');
        let binding = parts.next()?.strip_prefix("c=")? == BASE64.encode(begun.header);
        let nonce = parts.next()?.strip_prefix("r=")? == begun.nonce;
        if !binding || !nonce || proof != self.proof(begun, front.as_bytes()) {
            return None;
        }
        let signature = sign(&self.server_key, &signed(begun, front.as_bytes()));
        Some(format!("v={}", BASE64.encode(signature)).into_bytes())
    }
}

fn signed(begun: &Begun<'_>, front: &[u8]) -> Vec<u8> {
    [begun.bare.as_bytes(), b",", begun.server_first.as_bytes(), b",", front].concat()
}

fn sign(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().expect("32 bytes")
}

/// Pairs of bytes: a place, and what to put there.
fn damaged(message: &[u8], choices: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let (changes, _) = choices.as_chunks::<2>();
    for &[at, byte] in changes {
        let at = usize::from(at) % message.len();
        message[at] = byte;
    }
    message
}
