//! Enhanced authentication: section 4.12 of the standard, with SCRAM-SHA-256 [RFC 7677], packet by packet.
//!
//! The client's half of SCRAM is computed here from the RFC, on the primitives of the library that the program has, too.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::broker::{Broker, Start};
use crate::bytes::{Connect, Value, binary, packet, property, text};

const PATIENCE: Duration = Duration::from_secs(20);
const METHOD: &str = "SCRAM-SHA-256";
const DATA: u8 = 22;
const CONTINUE: u8 = 0x18;
const AGAIN: u8 = 0x19;

/// A broker with a listener that asks for SCRAM, and a user of the password `pencil`.
struct Asking {
    _broker: Broker,
    folder: TempDir,
}

impl Asking {
    fn start() -> Asking {
        let folder = tempfile::tempdir().expect("a directory for the password file");
        let file = folder.path().join("passwords");
        let mut passwd = Command::new(env!("CARGO_BIN_EXE_ironpost"))
            .args([
                "passwd".as_ref(),
                file.as_os_str(),
                "user".as_ref(),
                "--scram".as_ref(),
                "--stdin".as_ref(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program can be started");
        passwd.stdin.take().expect("piped").write_all(b"pencil\n").expect("it reads");
        assert!(passwd.wait().expect("it ends").success());
        let config = format!(
            "account = \"username\"\n[authentication]\npassword_file = {file:?}\n[listener.asking]\n\
             address = \"unix://{}\"\nauthentication = [\"scram\"]\n",
            folder.path().join("socket").display(),
        );
        let broker = Broker::start_with(Start { config, ..Start::default() });
        Asking { _broker: broker, folder }
    }

    fn peer(&self) -> Peer {
        let stream =
            UnixStream::connect(self.folder.path().join("socket")).expect("the broker takes connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        Peer(stream)
    }

    /// A peer that has sent its CONNECT with a client-first-message, and the server-first-message.
    fn asked(&self) -> (Peer, String) {
        let mut peer = self.peer();
        peer.say(&connect("n,,n=user,r=client-nonce"));
        let auth = peer.hear().expect("AUTH");
        // [MQTT-4.12.0-2] [MQTT-4.12.0-5]
        assert_eq!((auth.kind, auth.reason, auth.method.as_deref()), (0xf0, CONTINUE, Some(METHOD)));
        let data = String::from_utf8(auth.data.expect("a challenge")).expect("text");
        assert!(data.starts_with("r=client-nonce"), "{data}");
        (peer, data)
    }
}

struct Peer(UnixStream);

/// AUTH, CONNACK or DISCONNECT.
#[derive(Debug)]
struct Answer {
    kind: u8,
    reason: u8,
    method: Option<String>,
    data: Option<Vec<u8>>,
}

impl Peer {
    fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the broker reads");
    }

    /// The next packet; `None`: the connection is closed.
    fn hear(&mut self) -> Option<Answer> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        let mut length = usize::from(head[1] & 0x7f);
        if head[1] & 0x80 != 0 {
            let mut more = [0];
            self.0.read_exact(&mut more).expect("a length");
            length += usize::from(more[0]) << 7;
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a whole packet");
        let from = if head[0] == 0x20 { 1 } else { 0 };
        let reason = body.get(from).copied().unwrap_or(0);
        let properties = body.get(from + 2..).unwrap_or_default();
        Some(Answer {
            kind: head[0],
            reason,
            method: field(properties, property::AUTHENTICATION_METHOD)
                .map(|text| String::from_utf8(text).expect("text")),
            data: field(properties, DATA),
        })
    }

    /// DISCONNECT with that reason, and the end.
    fn is_told(&mut self, reason: u8, why: &str) {
        let disconnect = self.hear().expect(why);
        assert_eq!((disconnect.kind, disconnect.reason), (0xe0, reason), "{why}");
        assert!(self.hear().is_none(), "closed after {why}");
    }

    fn answer(&mut self, method: &str, reason: u8, data: &[u8]) {
        self.say(&auth(reason, method, data));
    }
}

/// The property of that number among those that a server sends here.
fn field(mut properties: &[u8], identifier: u8) -> Option<Vec<u8>> {
    while let [first, rest @ ..] = properties {
        let length = match *first {
            // Of one byte, two, four; text and data; a pair of texts.
            36 | 37 | 40 | 41 | 42 => 1,
            19 | 33 | 34 => 2,
            17 | 39 => 4,
            _ => 2 + usize::from(u16::from_be_bytes([rest[0], rest[1]])),
        };
        if *first == identifier {
            return Some(rest[2..length].to_vec());
        }
        properties = &rest[length..];
    }
    None
}

fn connect(first: &str) -> Vec<u8> {
    Connect::v5("device")
        .with(property::AUTHENTICATION_METHOD, METHOD.into())
        .with(DATA, Value::Binary(first.into()))
        .bytes()
}

fn auth(reason: u8, method: &str, data: &[u8]) -> Vec<u8> {
    let properties = [&[property::AUTHENTICATION_METHOD][..], &text(method), &[DATA], &binary(data)].concat();
    let length = u8::try_from(properties.len()).expect("short");
    let length = if length < 128 { vec![length] } else { vec![length | 0x80, 1] };
    packet(0xf0, &[&[reason][..], &length, &properties].concat())
}

fn sign(key: &[u8], message: &str) -> [u8; 32] {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    hmac.update(message.as_bytes());
    hmac.finalize().into_bytes().into()
}

/// The client-final-message, and the server-final-message that has to follow.
fn prove(server_first: &str, password: &str) -> (String, String) {
    let mut parts = server_first.split(',').map(|part| &part[2..]);
    let mut next = || parts.next().expect("nonce, salt, iterations");
    let (nonce, salt, iterations) = (next(), next(), next());
    let mut salted = [0; 32];
    let salt = BASE64.decode(salt).expect("base64");
    pbkdf2::pbkdf2_hmac::<Sha256>(
        password.as_bytes(),
        &salt,
        iterations.parse().expect("a number"),
        &mut salted,
    );
    let without_proof = format!("c=biws,r={nonce}");
    let signed = format!("n=user,r=client-nonce,{server_first},{without_proof}");
    let client_key = sign(&salted, "Client Key");
    let stored_key: [u8; 32] = Sha256::digest(client_key).into();
    let signature = sign(&stored_key, &signed);
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, signed)| key ^ signed).collect();
    let server = sign(&sign(&salted, "Server Key"), &signed);
    (format!("{without_proof},p={}", BASE64.encode(proof)), format!("v={}", BASE64.encode(server)))
}

/// [MQTT-4.12.0-2] [MQTT-4.12.0-5]: both sides prove that they know the password, and CONNACK has the server's proof.
#[test]
fn who_proves_the_password_is_let_in_and_can_tell_the_server_from_another() {
    let asking = Asking::start();
    let (mut peer, challenge) = asking.asked();
    let (proof, expected) = prove(&challenge, "pencil");
    peer.answer(METHOD, CONTINUE, proof.as_bytes());
    let connack = peer.hear().expect("CONNACK");
    assert_eq!((connack.kind, connack.reason, connack.method.as_deref()), (0x20, 0, Some(METHOD)));
    assert_eq!(connack.data.as_deref(), Some(expected.as_bytes()));
}

/// [MQTT-4.12.0-4]: a wrong password, and a proof that was made for another exchange.
#[test]
fn who_does_not_prove_it_is_refused() {
    let asking = Asking::start();
    let (mut wrong, challenge) = asking.asked();
    wrong.answer(METHOD, CONTINUE, prove(&challenge, "pen").0.as_bytes());
    let connack = wrong.hear().expect("CONNACK");
    assert_eq!((connack.kind, connack.reason), (0x20, 0x87));
    assert!(wrong.hear().is_none(), "closed");
    let (mut first, challenge) = asking.asked();
    let proof = prove(&challenge, "pencil").0;
    first.answer(METHOD, CONTINUE, proof.as_bytes());
    assert_eq!(first.hear().expect("CONNACK").reason, 0);
    let (mut replayed, _) = asking.asked();
    replayed.answer(METHOD, CONTINUE, proof.as_bytes());
    assert_eq!(replayed.hear().expect("CONNACK").reason, 0x87);
}

/// [MQTT-4.12.0-3] [MQTT-4.12.0-5]: an answer says that it goes on, and by the same method. Nothing else comes before it.
#[test]
fn an_answer_that_is_none_ends_the_exchange() {
    let asking = Asking::start();
    for (name, answer) in [
        ("another method", auth(CONTINUE, "SCRAM-SHA-1", b"c=biws")),
        ("another reason", auth(0x19, METHOD, b"c=biws")),
        ("a subscription", packet(0x82, &[&[0, 1, 0][..], &text("#"), &[0]].concat())),
        ("a ping", packet(0xc0, &[])),
    ] {
        let (mut peer, _) = asking.asked();
        peer.say(&answer);
        let connack = peer.hear().expect(name);
        assert_eq!((connack.kind, connack.reason), (0x20, 0x82), "{name}");
        assert!(peer.hear().is_none(), "closed after {name}");
    }
}

/// A peer that is in.
fn proven(asking: &Asking) -> Peer {
    let (mut peer, challenge) = asking.asked();
    peer.answer(METHOD, CONTINUE, prove(&challenge, "pencil").0.as_bytes());
    assert_eq!(peer.hear().expect("CONNACK").reason, 0);
    peer
}

/// The challenge for a peer that is in and begins again.
fn asked_again(peer: &mut Peer) -> String {
    peer.answer(METHOD, AGAIN, b"n,,n=user,r=client-nonce");
    let auth = peer.hear().expect("AUTH");
    assert_eq!((auth.kind, auth.reason, auth.method.as_deref()), (0xf0, CONTINUE, Some(METHOD)));
    String::from_utf8(auth.data.expect("a challenge")).expect("text")
}

/// 4.12.1: as often as it likes, and what else it says in between is handled.
#[test]
fn who_is_in_may_prove_it_again() {
    let asking = Asking::start();
    let mut peer = proven(&asking);
    for _ in 0..3 {
        let challenge = asked_again(&mut peer);
        peer.say(&packet(0xc0, &[]));
        assert_eq!(peer.hear().expect("PINGRESP").kind, 0xd0);
        let (proof, expected) = prove(&challenge, "pencil");
        peer.answer(METHOD, CONTINUE, proof.as_bytes());
        let auth = peer.hear().expect("AUTH");
        assert_eq!((auth.kind, auth.reason, auth.method.as_deref()), (0xf0, 0, Some(METHOD)));
        assert_eq!(auth.data.as_deref(), Some(expected.as_bytes()));
    }
}

/// [MQTT-4.12.1-2]: whoever fails is told why, and closed.
#[test]
fn who_does_not_prove_it_again_is_closed() {
    let asking = Asking::start();
    let mut wrong = proven(&asking);
    let challenge = asked_again(&mut wrong);
    wrong.answer(METHOD, CONTINUE, prove(&challenge, "pen").0.as_bytes());
    wrong.is_told(0x87, "a wrong password");
    let other = packet(0xf0, &[0x19, 0]);
    for (name, answer, reason) in [
        ("another method", auth(AGAIN, "SCRAM-SHA-1", b"n,,n=user,r=client-nonce"), 0x8c),
        ("no method", other, 0x82),
        ("a proof that was not asked for", auth(CONTINUE, METHOD, b"c=biws"), 0x82),
        ("success", auth(0, METHOD, b"c=biws"), 0x82),
        ("nonsense", auth(AGAIN, METHOD, b"nonsense"), 0x87),
    ] {
        let mut peer = proven(&asking);
        peer.say(&answer);
        peer.is_told(reason, name);
    }
    let mut twice = proven(&asking);
    asked_again(&mut twice);
    twice.answer(METHOD, AGAIN, b"n,,n=user,r=client-nonce");
    twice.is_told(0x82, "two beginnings");
}

/// [MQTT-4.12.0-1] [MQTT-4.12.0-4]
#[test]
fn who_shows_nothing_or_asks_for_another_method_is_refused() {
    let asking = Asking::start();
    let other = Connect::v5("device").with(property::AUTHENTICATION_METHOD, "SCRAM-SHA-1".into()).bytes();
    for (connect, reason) in [(other, 0x8c), (Connect::v5("device").bytes(), 0x87)] {
        let mut peer = asking.peer();
        peer.say(&connect);
        let connack = peer.hear().expect("CONNACK");
        assert_eq!((connack.kind, connack.reason), (0x20, reason));
    }
}
