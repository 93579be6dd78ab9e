//! Tokens that are verified together: each gets what it would get alone, whoever it stands beside.

use super::*;

/// A token with that number, so that no two are the same.
fn numbered(number: u64) -> String {
    signed(HEADER, format!(r#"{{"jti":"{number}",{}"#, &PAYLOAD[1..]))
}

/// The same with its signature's scalar moved by that.
fn moved(token: &str, by: i16) -> String {
    let (message, signature) = token.rsplit_once('.').expect("a good token");
    let mut bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).expect("a good token");
    let low = i32::from(u16::from_le_bytes([bytes[32], bytes[33]])) + i32::from(by);
    let low = u16::try_from(low).expect("a scalar that has no carry there");
    bytes[32..34].copy_from_slice(&low.to_le_bytes());
    format!("{message}.{}", encoded(bytes))
}

fn verdicts(texts: &[String]) -> Vec<Result<Claims, TokenError>> {
    let texts: Vec<(&[u8], u64)> = texts.iter().map(|text| (text.as_bytes(), NOW)).collect();
    tokens().verify_together(&texts)
}

#[test]
fn good_ones_hold_however_many_they_are() {
    for count in [0, 1, 2, 3, 16, 40] {
        let texts: Vec<String> = (0..count).map(numbered).collect();
        let verdicts = verdicts(&texts);
        assert_eq!(verdicts.len(), texts.len());
        assert!(verdicts.iter().all(Result::is_ok), "{count}");
    }
}

#[test]
fn two_wrong_ones_do_not_make_up_for_each_other() {
    // Without a random factor for each, the sum of both equations would be the same as of the good ones.
    let texts = [moved(&numbered(1), 1), moved(&numbered(2), -1), numbered(3)];
    let [first, second, third] = &verdicts(&texts)[..] else { panic!("three of three") };
    assert_eq!((first, second), (&Err(TokenError::Signature), &Err(TokenError::Signature)));
    assert!(third.is_ok());
}

#[test]
fn each_has_its_own_time() {
    let text = numbered(1);
    let verdicts = tokens().verify_together(&[(text.as_bytes(), NOW), (text.as_bytes(), u64::MAX)]);
    assert!(verdicts[0].is_ok());
    assert!(matches!(verdicts[1], Err(TokenError::Expired { .. })));
}

/// Of every kind: good by three algorithms, with a key's id and without, and wrong in every place.
fn any_token() -> impl Strategy<Value = String> {
    let of_others = prop::sample::select(
        TOKENS
            .iter()
            .map(|(_, token)| *token)
            .chain(TOKENS_WITHOUT_ID)
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    );
    prop_oneof![
        4 => any::<u64>().prop_map(numbered),
        2 => of_others,
        1 => (0..4_u64).prop_map(|number| moved(&numbered(number), 1)),
        1 => any::<u64>().prop_map(|number| numbered(number).replace(".e", ".f")),
        1 => Just(signed(r#"{"alg":"EdDSA","kid":"nobody's"}"#, PAYLOAD)),
        1 => Just(signed(HEADER, r#"{"exp":1}"#)),
        1 => Just(signed(HEADER, "no object")),
        1 => Just(format!("{}.{}.{}", encoded(HEADER), encoded(PAYLOAD), encoded([7; 64]))),
        1 => Just("x".repeat(limits::TOKEN_BYTES_MAX + 1)),
        1 => ".{0,40}",
    ]
}

proptest! {
    #[test]
    fn each_gets_what_it_gets_alone(texts in proptest::collection::vec(any_token(), 0..20)) {
        let alone: Vec<_> = texts.iter().map(verdict).collect();
        prop_assert_eq!(verdicts(&texts), alone);
    }
}
