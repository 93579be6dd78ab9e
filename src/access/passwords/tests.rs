//! The password file: what is read, refused, verified and written.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;

/// Made by the C library of Argon2's authors, of "pencil", "pencil" and "päss", with different parameters.
const OF_REFERENCE: [(&str, &str); 3] = [
    (
        "pencil",
        "$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$stzJyf6wzR+1sZ/FVbDqt0v765DMsr6xCu1DEFHYexE",
    ),
    ("pencil", "$argon2id$v=19$m=64,t=3,p=4$c2FsdHNhbHQ$zZpXktKBrxHVsUwGQmHeENLYrz8FCJuO"),
    (
        "päss",
        "$argon2id$v=19$m=256,t=1,p=2$eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg$ljw21KGmsKYvOX9JaghQCmH+u3eO5KK2V3E14wuYvnctrz+ds7oAuRdVTtKoTJL0Nz3RTGvwI4TYoUBP0yST1g",
    ),
];

const KEYS: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                    wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

const SALTS: Salts = Salts { argon2id: [1; 16], scram: [2; 16] };
const ARGON2ID: Kinds = Kinds { argon2id: true, scram: false };
const BOTH: Kinds = Kinds { argon2id: true, scram: true };

/// Quick to verify.
fn hash() -> &'static str {
    OF_REFERENCE[1].1
}

fn password(text: &str) -> Password {
    Password::new(text.as_bytes().to_vec().into()).unwrap()
}

fn error_of(text: &str) -> PasswordError {
    match Passwords::parse(text) {
        Ok(_) => panic!("taken: {text:?}"),
        Err(error) => error,
    }
}

#[test]
fn hashes_of_the_reference_implementation_are_verified() {
    for (password, hash) in OF_REFERENCE {
        let passwords = Passwords::parse(&format!("user:{hash}\n")).unwrap();
        assert!(passwords.verify("user", password.as_bytes()), "{hash}");
        assert!(!passwords.verify("user", b"another"), "{hash}");
        assert!(!passwords.verify("user", b""), "{hash}");
        assert!(!passwords.verify("other", password.as_bytes()), "{hash}");
    }
}

#[test]
fn a_password_that_was_set_is_verified_and_has_the_salt_that_was_given() {
    let text = with_user("", "user", &password("pencil"), BOTH, SALTS).unwrap();
    assert!(text.starts_with("user:$argon2id$v=19$m=19456,t=2,p=1$AQEBAQEBAQEBAQEBAQEBAQ$"), "{text}");
    assert!(text.contains(":SCRAM-SHA-256$16384:AgICAgICAgICAgICAgICAg==$"), "{text}");
    let passwords = Passwords::parse(&text).unwrap();
    assert!(passwords.verify("user", b"pencil"));
    assert!(!passwords.verify("user", b"pencils"));
    let expected = ScramKeys::derive(b"pencil", &SALTS.scram, scram::ITERATIONS).unwrap();
    assert_eq!(passwords.scram("user").unwrap().field(), expected.field());
    assert!(passwords.scram("other").is_none());
    let only_scram = Kinds { argon2id: false, scram: true };
    let text = with_user("", "user", &password("pencil"), only_scram, SALTS).unwrap();
    assert!(text.starts_with("user::SCRAM-SHA-256$"), "{text}");
    assert!(!Passwords::parse(&text).unwrap().verify("user", b"pencil"));
}

#[test]
fn a_password_is_taken_up_to_its_bound() {
    let longest = "x".repeat(limits::PASSWORD_BYTES_MAX);
    let text = with_user("", "user", &password(&longest), ARGON2ID, SALTS).unwrap();
    let passwords = Passwords::parse(&text).unwrap();
    assert!(passwords.verify("user", longest.as_bytes()));
    let longer = format!("{longest}x");
    let hash = Argon2id::of(longer.as_bytes(), &[1; 16]).unwrap();
    let passwords = Passwords::parse(&format!("user:{}", *hash.field())).unwrap();
    assert!(passwords.users[0].argon2id.as_ref().unwrap().matches(longer.as_bytes()), "it would be");
    assert!(!passwords.verify("user", longer.as_bytes()));
    assert!(Password::new(vec![b'x'; limits::PASSWORD_BYTES_MAX + 1].into()).is_err());
    assert!(Password::new(Vec::new().into()).is_err());
}

#[test]
fn lines_of_every_kind_are_read_and_blank_ones_are_not() {
    let hash = hash();
    let text = format!("# a:b\n\na:{hash}\r\nb::{KEYS}\n \t\nc d:{hash}:{KEYS}\nzoë:{hash}:\n#\nlast:{hash}");
    let passwords = Passwords::parse(&text).unwrap();
    assert_eq!(passwords.len(), 5);
    for (name, with_hash, with_keys) in [
        ("a", true, false),
        ("b", false, true),
        ("c d", true, true),
        ("zoë", true, false),
        ("last", true, false),
        ("# a", false, false),
        ("", false, false),
    ] {
        assert_eq!(passwords.verify(name, b"pencil"), with_hash, "{name}");
        assert_eq!(passwords.scram(name).is_some(), with_keys, "{name}");
    }
    assert!(Passwords::parse("").unwrap().is_empty());
}

#[test]
fn a_line_that_will_not_do_is_named_with_cause_and_cure_and_without_its_secret() {
    let hash = hash();
    let long_name = "n".repeat(limits::USER_NAME_BYTES_MAX + 1);
    let long_line = format!("a:{hash}:{}", "x".repeat(limits::PASSWORD_LINE_BYTES_MAX));
    let m = limits::ARGON2_MEMORY_KIB_MAX + 1;
    let t = limits::ARGON2_PASSES_MAX + 1;
    let p = limits::ARGON2_LANES_MAX + 1;
    let tail = "c2FsdHNhbHQ$QUFBQUFBQUFBQUFBQUFBQQ";
    for (line, cause) in [
        ("hunter2".to_owned(), "no ':' behind the name"),
        ("a:hunter2".to_owned(), "not hashed by Argon2id"),
        ("a:$2b$12$hunter2".to_owned(), "not hashed by Argon2id"),
        (format!("a:{}", hash.replace("argon2id", "argon2i")), "not hashed by Argon2id"),
        (format!("a:{}", hash.replace("v=19", "v=16")), "not hashed by Argon2id"),
        (format!("a:{}", hash.replace("$v=19", "")), "not hashed by Argon2id"),
        (format!("a: {hash}"), "not hashed by Argon2id"),
        (format!("a:{hash} "), "damaged"),
        (format!("a:{hash}$x"), "damaged"),
        (format!("a:{}", &hash[..hash.len() - 30]), "damaged"),
        ("a:$argon2id$v=19$m=64,t=1,p=1".to_owned(), "lacks salt or hash"),
        (format!("a:$argon2id$v=19$m=64,t=1,p=1,keyid=AAAA${tail}"), "a key or data besides"),
        (format!("a:$argon2id$v=19$m=64,t=1,p=1,x=1${tail}"), "damaged"),
        (format!("a:$argon2id$v=19$m={m},t=1,p=1${tail}"), "more than 256 MiB"),
        (format!("a:$argon2id$v=19$m=64,t={t},p=1${tail}"), "more than 16 passes"),
        (format!("a:$argon2id$v=19$m=64,t=1,p={p}${tail}"), "more than 4 lanes"),
        (format!("a:$argon2id$v=19$m=4,t=1,p=1${tail}"), "damaged"),
        (format!("a:$argon2id$v=19$m=64,t=0,p=1${tail}"), "damaged"),
        ("a:$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$QUFBQUFBQUFBQUFB".to_owned(), "less than 16 bytes"),
        ("a:".to_owned(), "without a password"),
        ("a::".to_owned(), "without a password"),
        (format!(":{hash}"), "the name is empty"),
        (format!(" :{hash}"), "comment or an empty line"),
        (format!("a\tb:{hash}"), "control character"),
        (format!("{long_name}:{hash}"), "more than 255 bytes"),
        (long_line, "more than 1024 bytes"),
        (format!("a::{}", KEYS.replace("4096", "4095")), "SCRAM iterations"),
        (format!("a::{KEYS}:"), "SCRAM server key"),
        ("a::hunter2".to_owned(), "SCRAM-SHA-256$"),
        (format!("a\u{AD}b::{KEYS}"), "its clients call it \"ab\""),
        (format!("\u{627}1::{KEYS}"), "SASLprep"),
    ] {
        let error = error_of(&format!("# first\nb:{hash}\n{line}\n"));
        assert_eq!(error.line, Some(3), "{line}: {error}");
        assert!(error.cause.contains(cause), "{line}: {error}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("line 3: ") && shown.contains("\n  cure: "), "{shown}");
        for secret in ["hunter2", "QUFB", "c2FsdHNhbHQ", &hash[hash.len() - 10..], "W22Z", "WG5d"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
    let longest = &long_name[1..];
    assert!(Passwords::parse(&format!("{longest}:{hash}")).unwrap().verify(longest, b"pencil"));
    let error = error_of(&format!("\u{FEFF}b:{hash}\n"));
    assert!(error.line == Some(1) && error.cause.contains("byte order mark"));
}

#[test]
fn the_same_name_twice_is_an_error_of_the_second_line() {
    let hash = hash();
    let error = error_of(&format!("b:{hash}\na:{hash}\n#\nb:{hash}\n"));
    assert_eq!((error.line, &*error.cause), (Some(4), "the same name as in line 1"));
}

#[test]
fn other_lines_stay_byte_for_byte() {
    let hash = hash();
    let text = format!("# one\r\n\na:{hash}\r\nab:{hash}\n  \nb:{hash}:{KEYS}");
    let set = |text: &str, name: &str| with_user(text, name, &password("new"), ARGON2ID, SALTS).unwrap();
    let line = |name: &str| set("", name).trim_end().to_owned();
    assert_eq!(set(&text, "a"), text.replacen(&format!("a:{hash}"), &line("a"), 1));
    let old = format!("b:{hash}:{KEYS}");
    assert_eq!(set(&text, "b"), text.replace(&old, &line("b")), "its keys were of the old password");
    assert_eq!(set(&text, "c"), format!("{text}\n{}\n", line("c")));
    assert_eq!(without_user(&text, "a").unwrap(), format!("# one\r\n\nab:{hash}\n  \n{old}"));
    assert_eq!(without_user(&text, "b").unwrap(), format!("# one\r\n\na:{hash}\r\nab:{hash}\n  \n"));
    assert!(without_user(&text, "c").unwrap_err().cause.contains("there is no user \"c\""));
    assert!(without_user(&text, "# one").is_err());
}

#[test]
fn what_would_not_be_read_again_is_not_written() {
    let set = |text: &str, name: &str, kinds| with_user(text, name, &password("new"), kinds, SALTS);
    for name in
        ["", "#a", "a:b", "a\nb", "\0", " ", "\u{FEFF}a", &"n".repeat(limits::USER_NAME_BYTES_MAX + 1)]
    {
        assert_eq!(set("", name, ARGON2ID).unwrap_err().line, None, "{name:?}");
    }
    assert!(set("", "a", Kinds { argon2id: false, scram: false }).is_err());
    assert!(set("", "a\u{AD}b", ARGON2ID).is_ok(), "compared byte by byte");
    assert!(set("", "a\u{AD}b", BOTH).is_err());
    assert!(set("broken\n", "a", ARGON2ID).is_err());
    assert!(without_user("broken\n", "broken").is_err());
    assert!(with_user("", "a", &password("a\u{7}"), BOTH, SALTS).is_err());
    assert!(with_user("", "a", &password("a\u{7}"), ARGON2ID, SALTS).is_ok());
}

/// The time is measured elsewhere; here, that the same is computed.
#[test]
fn a_name_that_is_not_there_costs_what_most_do() {
    let costs = |text: &str| {
        let Costs { memory_kib, passes, lanes } = Passwords::parse(text).unwrap().decoy.costs;
        (memory_kib, passes, lanes)
    };
    let hash = hash();
    assert_eq!(costs(""), (MEMORY_KIB, PASSES, LANES));
    let other = hash.replace("t=3", "t=2");
    assert_eq!(costs(&format!("a:{hash}\nb:{hash}\nc:{other}\nd::{KEYS}\n")), (64, 3, 4));
    let shape = |text: &str| Passwords::parse(text).unwrap().scram_shape();
    assert_eq!(shape(&format!("a:{hash}\n")), Shape::default());
    assert_eq!(shape(&format!("a::{KEYS}\n")), Shape { iterations: 4_096, salt_bytes: 16 });
}

#[test]
fn nothing_shows_a_secret() {
    let text = with_user("", "user", &password("pencil"), BOTH, SALTS).unwrap();
    let shown = format!("{:?} {:?}", Passwords::parse(&text).unwrap(), password("pencil"));
    assert_eq!(shown, "Passwords { users: 1, .. } Password");
}

#[test]
fn every_one_of_many_is_found() {
    let mut text = String::new();
    for user in 0..1_000 {
        writeln!(text, "user-{}:{}", user * 7919 % 1_000, hash()).unwrap();
    }
    let passwords = Passwords::parse(&text).unwrap();
    assert_eq!(passwords.len(), 1_000);
    assert!((0..1_000).all(|user| passwords.find(&format!("user-{user}")).is_some()));
    assert!(passwords.find("user-1000").is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(start in 0_usize..400, piece in "\\PC{0,8}|[:$#\n\r=,0-9]{0,8}", cut in 0_usize..8) {
        let good = format!("# c\na:{}\nb:{}:{KEYS}\n", hash(), hash());
        let start = start.min(good.len());
        let text = format!("{}{piece}{}", &good[..start], &good[(start + cut).min(good.len())..]);
        if let Ok(passwords) = Passwords::parse(&text) {
            let users = text.split_inclusive('\n').filter(|line| name_of(content(line)).is_some());
            prop_assert_eq!(passwords.len(), users.count());
        }
    }
}
