//! SCRAM-SHA-256 against the RFC's example, against another's client, and against messages that are none.

use proptest::prelude::*;
use rsasl::prelude::{Mechname, SASLClient, SASLConfig};

use super::*;

const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                     p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

/// The example's salt and iterations [RFC 7677 3].
fn keys_of(password: &str) -> ScramKeys {
    let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    ScramKeys::derive(password.as_bytes(), &salt, 4_096).expect("text that SASLprep takes")
}

fn decoys() -> Decoys {
    Decoys::new([7; 32], Shape::default())
}

fn lookup(name: &str) -> Option<ScramKeys> {
    (name == "user").then(|| keys_of("pencil"))
}

fn begun(first: &str) -> Result<(Exchange, String), ScramError> {
    let (exchange, server_first) = begin_with(first.as_bytes(), lookup, &decoys(), SERVER_NONCE)?;
    Ok((exchange, String::from_utf8(server_first).expect("text")))
}

fn finished(last: &str) -> Result<(Box<str>, String), ScramError> {
    let (name, server_final) = begun(FIRST)?.0.finish(last.as_bytes())?;
    Ok((name, String::from_utf8(server_final).expect("text")))
}

/// What a client that knows the password says last, to any server-first-message.
fn proof(keys: (&str, &[u8], u32), header: &str, bare: &str, server_first: &str) -> String {
    let (password, salt, iterations) = keys;
    let nonce = server_first.split(',').next().unwrap();
    let without_proof = format!("c={},{nonce}", BASE64.encode(header));
    let mut salted = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, &mut salted);
    let client_key = sign(&salted, &[b"Client Key"]);
    let signed = format!("{bare},{server_first},{without_proof}");
    let signature = sign(&*digest(&client_key), &[signed.as_bytes()]);
    let proof: Vec<u8> = client_key.iter().zip(signature.iter()).map(|(key, sign)| key ^ sign).collect();
    format!("{without_proof},p={}", BASE64.encode(proof))
}

#[test]
fn the_example_of_rfc_7677_comes_out_byte_for_byte() {
    let (exchange, server_first) = begun(FIRST).unwrap();
    assert_eq!(exchange.name(), "user");
    let expected = format!("r={CLIENT_NONCE}{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
    assert_eq!(server_first, expected);
    let (name, server_final) = finished(FINAL).unwrap();
    assert_eq!((&*name, &*server_final), ("user", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
}

/// The client is the crate `rsasl`. It sends names and hashes passwords as they are, so what it is given is prepared where it is a
/// password.
#[test]
fn another_implementations_client_logs_in_and_believes_this_server() {
    for (name, password) in [
        ("user", "pencil"),
        ("a=b,c", "p,=ss"),
        ("zoë", "pä\u{AD}ss\u{A0}wort"),
        ("\u{2168}", "x"),
        ("=2C", "=3D"),
    ] {
        for wrong in [false, true] {
            let given = if wrong { "another".into() } else { prepare(password).unwrap() };
            let config = SASLConfig::with_credentials(None, name.to_owned(), given.into_owned()).unwrap();
            let offered = [Mechname::parse(b"SCRAM-SHA-256").unwrap()];
            let mut client =
                SASLClient::new(config).start_suggested(&offered).expect("it knows SCRAM-SHA-256");
            let (mut first, mut last) = (Vec::new(), Vec::new());
            client.step(None, &mut first).expect("a first message");
            let keys = |found: &str| {
                assert_eq!(found, prepare(name).unwrap());
                ScramKeys::derive(password.as_bytes(), b"salt of 16 bytes", ITERATIONS)
            };
            let (exchange, server_first) = begin(&first, keys, &decoys(), [9; 18]).unwrap();
            client.step(Some(&server_first), &mut last).expect("a second message");
            let outcome = exchange.finish(&last);
            if wrong {
                assert_eq!(outcome, Err(ScramError::Proof));
            } else {
                let (_, server_final) = outcome.unwrap_or_else(|error| panic!("{name:?}: {error}"));
                let believed = client.step(Some(&server_final), &mut Vec::new());
                assert!(believed.expect("the server's signature").is_finished(), "{name}");
            }
        }
    }
}

/// What the client and the server of scramp (Python) said to each other, with the example's nonces and salt, about names that
/// are escaped and passwords that SASLprep changes.
#[test]
fn conversations_of_another_implementation_are_continued_byte_for_byte() {
    for (name, escaped, password, proof, signature) in [
        (
            "zoë",
            "zoë",
            "pä\u{AD}ss\u{A0}wort",
            "KobI10PKAjZJ0HBEr3SNVvTZlouoPW54BK1lYNqmGy8=",
            "v=LMC8uKIlN6R3KyTYLKt/PPyBdFiz4AOs+5yNBKZsIsI=",
        ),
        (
            "a=b,c",
            "a=3Db=2Cc",
            "\u{2168},=",
            "D7QyhOOhiBQPgcjvBGW8TIdshiOGTxToEt5ziUvrBBc=",
            "v=TLW0RvMOag2uJzEo94GHu0X4rAEaDOuk/rJe0LMk2KM=",
        ),
    ] {
        let first = format!("n,,n={escaped},r={CLIENT_NONCE}");
        let keys = |found: &str| (found == name).then(|| keys_of(password));
        let (exchange, _) = begin_with(first.as_bytes(), keys, &decoys(), SERVER_NONCE).unwrap();
        let last = format!("c=biws,r={CLIENT_NONCE}{SERVER_NONCE},p={proof}");
        let (_, server_final) = exchange.finish(last.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(server_final).unwrap(), signature);
    }
}

#[test]
fn a_first_message_of_another_shape_is_refused_with_its_word() {
    for (message, error) in [
        ("", ScramError::Syntax),
        ("n", ScramError::Syntax),
        ("n,", ScramError::Syntax),
        ("n,,", ScramError::Syntax),
        ("n,,n=user", ScramError::Syntax),
        ("n,,n=user,", ScramError::Syntax),
        ("n,,n=user,r=", ScramError::Syntax),
        ("n,,n=,r=abc", ScramError::Syntax),
        ("n,,r=abc,n=user", ScramError::Syntax),
        ("n,,n=user,n=user,r=abc", ScramError::Syntax),
        ("n,,n=user,r=abc,r=abc", ScramError::Syntax),
        ("n,,n=user,r=abc,", ScramError::Syntax),
        ("n,,n=user,r=abc,x", ScramError::Syntax),
        ("n,,n=user,r=abc,x=", ScramError::Syntax),
        ("n,,n=user,r=abc,xy=1", ScramError::Syntax),
        ("n,,n=user,r=abc,1=1", ScramError::Syntax),
        ("n,,n=user,r=a c", ScramError::Syntax),
        ("n,,n=user,r=ä", ScramError::Syntax),
        ("n,,n=us\0er,r=abc", ScramError::Syntax),
        ("n,n=user,r=abc", ScramError::Syntax),
        ("N,,n=user,r=abc", ScramError::Syntax),
        ("x,,n=user,r=abc", ScramError::Syntax),
        ("n,user,n=user,r=abc", ScramError::Syntax),
        ("n,a=,n=user,r=abc", ScramError::Syntax),
        (" n,,n=user,r=abc", ScramError::Syntax),
        ("n,,m=1,n=user,r=abc", ScramError::Extension),
        ("n,,n=user,m=1,r=abc", ScramError::Extension),
        ("n,,n=user,r=abc,m=1", ScramError::Extension),
        ("p=tls-unique,,n=user,r=abc", ScramError::ChannelBinding),
        ("p=tls-exporter,,n=user,r=abc", ScramError::ChannelBinding),
        ("n,a=other,n=user,r=abc", ScramError::ActAsOther),
        ("n,a=us=er,n=user,r=abc", ScramError::UserName),
        ("n,,n=us=er,r=abc", ScramError::UserName),
        ("n,,n=us=2,r=abc", ScramError::UserName),
        ("n,,n=us=2c,r=abc", ScramError::UserName),
        ("n,,n=us=,r=abc", ScramError::UserName),
        ("n,,n=us\u{7}er,r=abc", ScramError::UserName),
        ("n,,n=\u{AD},r=abc", ScramError::UserName),
    ] {
        assert_eq!(begun(message).map(|(_, first)| first), Err(error), "{message:?}");
    }
    assert!(matches!(begin(b"n,,n=\xFF,r=a", lookup, &decoys(), [0; 18]), Err(ScramError::Encoding)));
}

#[test]
fn a_first_message_may_say_more_than_it_must() {
    let expected = begun("n,,n=user,r=abc").unwrap().1;
    for message in
        ["y,,n=user,r=abc", "n,a=user,n=user,r=abc", "n,,n=user,r=abc,x=y=z,Q=ä", "n,,n=us\u{AD}er,r=abc"]
    {
        let (exchange, server_first) = begun(message).unwrap();
        assert_eq!((exchange.name(), server_first), ("user", expected.clone()), "{message}");
    }
}

#[test]
fn a_header_that_says_more_is_repeated_by_the_last_message() {
    for header in ["y,,", "n,a=user,"] {
        let bare = "n=user,r=abc";
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let (exchange, server_first) = begun(&format!("{header}{bare}")).unwrap();
        let last = proof(("pencil", &salt, 4_096), header, bare, &server_first);
        assert_eq!(exchange.finish(last.as_bytes()).map(|(name, _)| name), Ok("user".into()));
        let (exchange, server_first) = begun(&format!("{header}{bare}")).unwrap();
        let last = proof(("pencil", &salt, 4_096), "n,,", bare, &server_first);
        assert_eq!(exchange.finish(last.as_bytes()), Err(ScramError::ChannelBindingsDiffer));
    }
}

#[test]
fn a_last_message_of_another_shape_is_refused_with_its_word() {
    let nonce = format!("{CLIENT_NONCE}{SERVER_NONCE}");
    let proof = "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    for (message, error) in [
        (String::new(), ScramError::Syntax),
        ("c=biws".to_owned(), ScramError::Syntax),
        (format!("c=biws,r={nonce}"), ScramError::Syntax),
        (format!("c=biws,r={nonce},"), ScramError::Syntax),
        (format!("c=biws,r={nonce},p="), ScramError::Syntax),
        (format!("c=biws,{proof}"), ScramError::Syntax),
        (format!("r={nonce},c=biws,{proof}"), ScramError::Syntax),
        (format!("c=biws,{proof},r={nonce}"), ScramError::Syntax),
        (format!("c=biws,r={nonce},{proof},{proof}"), ScramError::Syntax),
        (format!("c=biws,r={nonce},{proof},x=y"), ScramError::Syntax),
        (format!("c=biws,r={nonce},n=user,{proof}"), ScramError::Syntax),
        (format!("c=biws,r={nonce},{proof}\0"), ScramError::Syntax),
        (format!("m=1,c=biws,r={nonce},{proof}"), ScramError::Extension),
        (format!("c=biws,r={nonce},m=1,{proof}"), ScramError::Extension),
        (format!("c=biws!,r={nonce},{proof}"), ScramError::Encoding),
        (format!("c=biws,r={nonce},p=!!"), ScramError::Encoding),
        (format!("c=biws,r={nonce},p=AAAA"), ScramError::Encoding),
        (format!("c=biws,r={nonce},{proof}="), ScramError::Encoding),
        (format!("c=biws,r={nonce},{}", proof.trim_end_matches('=')), ScramError::Encoding),
        (format!("c=eSws,r={nonce},{proof}"), ScramError::ChannelBindingsDiffer),
        (format!("c=biws,r={CLIENT_NONCE},{proof}"), ScramError::Nonce),
        (format!("c=biws,r={nonce}x,{proof}"), ScramError::Nonce),
        (format!("c=biws,r={nonce},x=y,{proof}"), ScramError::Proof),
        (format!("c=biws,r={nonce},{}", proof.replace("dHz", "dHy")), ScramError::Proof),
    ] {
        assert_eq!(finished(&message), Err(error), "{message:?}");
    }
    assert_eq!(begun(FIRST).unwrap().0.finish(b"c=\xFF"), Err(ScramError::Encoding));
}

#[test]
fn a_message_is_taken_up_to_its_bound() {
    let with = |bytes: usize| format!("n,,n=user,r={}", "a".repeat(bytes - "n,,n=user,r=".len()));
    assert!(begun(&with(limits::SCRAM_MESSAGE_BYTES_MAX)).is_ok());
    assert_eq!(begun(&with(limits::SCRAM_MESSAGE_BYTES_MAX + 1)).map(|_| ()), Err(ScramError::TooLong));
    assert_eq!(finished(&with(limits::SCRAM_MESSAGE_BYTES_MAX + 1)), Err(ScramError::TooLong));
}

#[test]
fn a_proof_counts_in_one_exchange_only() {
    assert!(finished(FINAL).is_ok());
    let (exchange, _) = begin(FIRST.as_bytes(), lookup, &decoys(), [1; 18]).unwrap();
    assert_eq!(exchange.finish(FINAL.as_bytes()), Err(ScramError::Nonce));
    // Neither does it with the nonce put right.
    let (exchange, server_first) = begin(FIRST.as_bytes(), lookup, &decoys(), [1; 18]).unwrap();
    let server_first = String::from_utf8(server_first).unwrap();
    let nonce = server_first[2..].split(',').next().unwrap();
    let replayed = FINAL.replace(&format!("{CLIENT_NONCE}{SERVER_NONCE}"), nonce);
    assert_eq!(exchange.finish(replayed.as_bytes()), Err(ScramError::Proof));
}

#[test]
fn an_unknown_name_looks_like_a_known_one_and_is_never_proven() {
    let first = |name: &str, secret: u8, shape: Shape| {
        let first = format!("n,,n={name},r=abc");
        let server_first =
            begin(first.as_bytes(), |_| None, &Decoys::new([secret; 32], shape), [1; 18]).unwrap().1;
        String::from_utf8(server_first).unwrap()
    };
    let shape = Shape::default();
    assert_eq!(first("nobody", 7, shape), first("nobody", 7, shape), "the same whenever it is asked for");
    assert_ne!(first("nobody", 7, shape), first("no one", 7, shape));
    assert_ne!(first("nobody", 7, shape), first("nobody", 8, shape));
    assert!(first("nobody", 7, shape).ends_with("==,i=16384"));
    assert!(first("nobody", 7, Shape { iterations: 4_096, salt_bytes: 64 }).ends_with("==,i=4096"));
    let (exchange, server_first) = begun("n,,n=nobody,r=abc").unwrap();
    let salt = server_first.split(",s=").nth(1).unwrap().split(",i=").next().unwrap();
    let salt = BASE64.decode(salt).unwrap();
    let last = proof(("pencil", &salt, ITERATIONS), "n,,", "n=nobody,r=abc", &server_first);
    assert_eq!(exchange.finish(last.as_bytes()), Err(ScramError::Proof));
}

/// Even whoever had the keys of a decoy would not get in.
#[test]
fn the_keys_of_a_decoy_prove_nothing() {
    let (mut exchange, server_first) = begun("n,,n=nobody,r=abc").unwrap();
    exchange.keys = keys_of("pencil");
    let salt = exchange.keys.salt.clone();
    let last = proof(("pencil", &salt, 4_096), "n,,", "n=nobody,r=abc", &server_first);
    assert_eq!(exchange.finish(last.as_bytes()), Err(ScramError::Proof));
}

#[test]
fn every_failure_has_a_word_and_none_tells_a_secret() {
    assert_eq!(ScramError::Proof.message(), b"e=invalid-proof");
    assert_eq!(ScramError::ChannelBinding.message(), b"e=channel-binding-not-supported");
    let shown = format!("{:?} {:?} {:?}", begun(FIRST).unwrap().0, keys_of("pencil"), decoys());
    assert!(!shown.contains("[") && !shown.contains("W22Z"), "{shown}");
}

#[test]
fn keys_are_read_as_they_are_written_and_otherwise_refused() {
    let keys = ScramKeys::derive(b"pencil", &[5; 16], ITERATIONS).unwrap();
    let field = keys.field();
    assert_eq!(ScramKeys::parse(&field).unwrap().field(), field);
    let key = BASE64.encode([1; 32]);
    let salt = BASE64.encode([1; 16]);
    let long = BASE64.encode([1; limits::PASSWORD_SALT_BYTES_MAX + 1]);
    assert!(ScramKeys::parse(&format!("SCRAM-SHA-256$4096:{salt}${key}:{key}")).is_ok());
    for bad in [
        String::new(),
        "SCRAM-SHA-256".to_owned(),
        format!("SCRAM-SHA-1$4096:{salt}${key}:{key}"),
        format!("SCRAM-SHA-256$4096:{salt}:{key}:{key}"),
        format!("SCRAM-SHA-256$4096:{salt}${key}"),
        format!("SCRAM-SHA-256$4096:{salt}${key}:{key}:"),
        format!("SCRAM-SHA-256${}:{salt}${key}:{key}", limits::SCRAM_ITERATIONS_MIN - 1),
        format!("SCRAM-SHA-256${}:{salt}${key}:{key}", limits::SCRAM_ITERATIONS_MAX + 1),
        format!("SCRAM-SHA-256$+4096:{salt}${key}:{key}"),
        format!("SCRAM-SHA-256$04096:{salt}${key}:{key}"),
        format!("SCRAM-SHA-256$99999999999:{salt}${key}:{key}"),
        format!("SCRAM-SHA-256$4096:AAAA${key}:{key}"),
        format!("SCRAM-SHA-256$4096:{long}${key}:{key}"),
        format!("SCRAM-SHA-256$4096:{salt}$AAAA:{key}"),
        format!("SCRAM-SHA-256$4096:{salt}${key}:{key}="),
    ] {
        assert!(ScramKeys::parse(&bad).is_err(), "{bad}");
    }
}

#[test]
fn passwords_that_saslprep_refuses_have_no_keys() {
    for password in
        [&b"\xFF"[..], b"a\x07b", "\u{AD}".as_bytes(), "\u{627}1".as_bytes(), "\u{221}".as_bytes()]
    {
        assert!(ScramKeys::derive(password, &[5; 16], 4_096).is_none(), "{password:?}");
    }
    let [one, other] = ["I\u{AD}X", "IX"].map(|text| keys_of(text).field());
    assert_eq!(one, other);
}

fn mutated(message: &str, changes: &[(u8, usize, u8)]) -> Vec<u8> {
    let mut bytes = message.as_bytes().to_vec();
    for &(kind, at, byte) in changes {
        let at = at % (bytes.len() + 1);
        match kind % 4 {
            0 if at < bytes.len() => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => bytes.truncate(at.max(bytes.len() / 2)),
            _ => {}
        }
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(u8, usize, u8)>> {
    let byte = prop_oneof![any::<u8>(), proptest::sample::select(&b"=,nrcpamxy\0\xC3"[..])];
    proptest::collection::vec((any::<u8>(), any::<usize>(), byte), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_message_never_panics_and_never_proves_another_one(first in changes(), last in changes()) {
        let keys = ScramKeys::parse(
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        ).unwrap();
        let first = mutated(FIRST, &first);
        let _ = begin_with(&first, |_| Some(keys.clone()), &decoys(), SERVER_NONCE)
            .and_then(|(exchange, _)| exchange.finish(FINAL.as_bytes()));
        let last = mutated(FINAL, &last);
        let (exchange, _) =
            begin_with(FIRST.as_bytes(), |_| Some(keys.clone()), &decoys(), SERVER_NONCE).unwrap();
        prop_assert_eq!(exchange.finish(&last).is_ok(), last == FINAL.as_bytes());
    }
}
