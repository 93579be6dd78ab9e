//! Claims behind a good signature.

use super::{HEADER, NOW, PAYLOAD, settings, signed, tokens, verdict};
use crate::access::tokens::{Claims, Settings, TokenError, Tokens};
use crate::limits;

/// A payload with that in place of the good `exp`.
fn with_expiry(expiry: &str) -> Result<Claims, TokenError> {
    verdict(signed(HEADER, PAYLOAD.replace(r#""exp":4102444800"#, expiry)))
}

/// The good payload and more.
fn with(more: &str) -> Result<Claims, TokenError> {
    verdict(signed(HEADER, format!("{},{more}}}", &PAYLOAD[..PAYLOAD.len() - 1])))
}

fn in_place_of(from: &str, to: &str) -> Option<TokenError> {
    assert!(PAYLOAD.contains(from));
    verdict(signed(HEADER, PAYLOAD.replace(from, to))).err()
}

#[test]
fn a_token_ends_at_its_expiry_and_a_leeway() {
    let expired = |before_s: u64| with_expiry(&format!(r#""exp":{}"#, NOW - before_s)).err();
    assert_eq!(expired(limits::TOKEN_LEEWAY_S - 1), None);
    assert_eq!(expired(limits::TOKEN_LEEWAY_S), Some(TokenError::Expired { ago_s: limits::TOKEN_LEEWAY_S }));
    assert_eq!(expired(NOW), Some(TokenError::Expired { ago_s: NOW }));
    let latest = limits::TOKEN_TIME_MAX_S;
    assert_eq!(with_expiry(&format!(r#""exp":{latest}"#)).map(|claims| claims.expires_unix_s), Ok(latest));
    assert!(tokens().verify(signed(HEADER, PAYLOAD).as_bytes(), u64::MAX).is_err());
}

#[test]
fn an_expiry_is_required_and_a_whole_number() {
    assert_eq!(with_expiry(r#""x":1"#), Err(TokenError::NoExpiry));
    for value in [
        "\"4102444800\"",
        "4102444800.5",
        "4102444800.0",
        "4.1e9",
        "-1",
        "-4102444800",
        "-0",
        "null",
        "true",
        "[4102444800]",
        "{}",
        "18446744073709551615",
        "18446744073709551616",
        "1e300",
        "253402300800",
    ] {
        assert_eq!(with_expiry(&format!(r#""exp":{value}"#)), Err(TokenError::Time("exp")), "{value}");
    }
    for value in ["Infinity", "NaN", "1e999", "0x10", "+1"] {
        assert!(matches!(with_expiry(&format!(r#""exp":{value}"#)), Err(TokenError::Payload(_))), "{value}");
    }
}

#[test]
fn a_token_begins_when_it_says_less_a_leeway() {
    for name in ["nbf", "iat"] {
        let from = |time: u64| with(&format!(r#""{name}":{time}"#)).err();
        assert_eq!(from(NOW), None);
        assert_eq!(from(NOW + limits::TOKEN_LEEWAY_S), None);
        let late = TokenError::NotYetValid { in_s: limits::TOKEN_LEEWAY_S + 1 };
        assert_eq!(from(NOW + limits::TOKEN_LEEWAY_S + 1), Some(late));
        for value in ["\"1\"", "1.5", "-1", "null", "18446744073709551615"] {
            let error = with(&format!(r#""{name}":{value}"#)).err();
            assert_eq!(error, Some(TokenError::Time(name)), "{value}");
        }
    }
}

#[test]
fn issuer_and_audience_are_the_configured_ones() {
    for issuer in ["\"https://issuer.example/\"", "\"\"", "null", "1", "[\"https://issuer.example\"]"] {
        assert_eq!(in_place_of("\"https://issuer.example\"", issuer), Some(TokenError::Issuer), "{issuer}");
    }
    assert_eq!(in_place_of("\"iss\"", "\"issuer\""), Some(TokenError::Issuer));
    for audience in [
        "\"Broker\"",
        "\"\"",
        "null",
        "[]",
        "[\"other\"]",
        "[\"broker\",1]",
        "{\"broker\":1}",
        "[[\"broker\"]]",
    ] {
        assert_eq!(in_place_of("\"broker\"", audience), Some(TokenError::Audience), "{audience}");
    }
    assert_eq!(in_place_of("\"aud\"", "\"audience\""), Some(TokenError::Audience));
    assert_eq!(in_place_of("\"broker\"", "[\"other\",\"broker\"]"), None);

    let files = [("keys.jwks", fixture!("keys.jwks").as_bytes())];
    let any = Settings { issuer: None, audience: None, account_claim: "sub".to_owned() };
    let any = Tokens::new(any, &files).expect("keys to test with");
    let bare = signed(HEADER, r#"{"sub":"alice","exp":4102444800}"#);
    assert!(any.verify(bare.as_bytes(), NOW).is_ok());
    assert_eq!(verdict(&bare), Err(TokenError::Issuer));
}

#[test]
fn the_account_is_a_short_text_in_the_configured_claim() {
    assert_eq!(in_place_of("\"sub\"", "\"user\""), Some(TokenError::NoAccount));
    for account in [
        "\"\"",
        "null",
        "1",
        "[\"alice\"]",
        "\"a\\u0000\"",
        "\"a\\n\"",
        "\"\\u0085\"",
        &format!("\"{}\"", "a".repeat(limits::TOKEN_TEXT_BYTES_MAX + 1)),
    ] {
        assert_eq!(in_place_of("\"alice\"", account), Some(TokenError::Account), "{account}");
    }
    for account in ["zoë", &"a".repeat(limits::TOKEN_TEXT_BYTES_MAX)] {
        let token = signed(HEADER, PAYLOAD.replace("alice", account));
        assert_eq!(verdict(token).expect("a good account").account.as_ref(), account);
    }
    let named = Settings { account_claim: "preferred_username".to_owned(), ..settings() };
    let named =
        Tokens::new(named, &[("keys.jwks", fixture!("keys.jwks").as_bytes())]).expect("keys to test with");
    let token = signed(HEADER, PAYLOAD.replace("\"sub\"", "\"preferred_username\""));
    assert!(named.verify(token.as_bytes(), NOW).is_ok());
    assert_eq!(named.verify(signed(HEADER, PAYLOAD).as_bytes(), NOW), Err(TokenError::NoAccount));
}

#[test]
fn what_limits_a_device_is_never_lost_by_its_type() {
    for value in ["null", "1", "\"\"", "[\"a\"]", &format!("\"{}\"", "c".repeat(257))] {
        assert_eq!(with(&format!(r#""client_id":{value}"#)), Err(TokenError::ClientId), "{value}");
    }
    assert_eq!(with(r#""client_id":"c""#).expect("a good id").client_id.as_deref(), Some("c"));
    for value in
        ["null", "\"a\"", "[1]", "[\"\"]", "[\"a\\n\"]", "{}", &format!("[{}\"a\"]", "\"a\",".repeat(32))]
    {
        assert_eq!(with(&format!(r#""groups":{value}"#)), Err(TokenError::Groups), "{value}");
    }
    let groups = with(&format!(r#""groups":[{}"a"]"#, "\"a\",".repeat(31))).expect("32 groups").groups;
    assert_eq!(groups.len(), limits::TOKEN_GROUPS_MAX);
}

#[test]
fn permissions_are_pairs_of_a_filter_and_words() {
    for name in ["scope", "permissions"] {
        let read = |value: &str| with(&format!(r#""{name}":{value}"#)).map(|claims| claims.permissions);
        // The example of RFC 9431 3.
        assert_eq!(
            read(r##"[["topic1",["pub","sub"]],["topic2/#",["pub"]],["+/topic3",["sub"]]]"##),
            Ok(Some(vec![
                ("topic1".into(), true, true),
                ("topic2/#".into(), true, false),
                ("+/topic3".into(), false, true),
            ]))
        );
        assert_eq!(read("[]"), Ok(Some(Vec::new())), "nothing is allowed, which is not the same as no list");
        let pairs = |count: usize| format!("[{}]", vec![r#"["a",["pub"]]"#; count].join(","));
        assert_eq!(
            read(&pairs(limits::TOKEN_PERMISSIONS_MAX)).expect("as many as may be").expect("a list").len(),
            limits::TOKEN_PERMISSIONS_MAX
        );
        let many = pairs(limits::TOKEN_PERMISSIONS_MAX + 1);
        for value in [
            "null",
            "1",
            "{}",
            "[1]",
            "[[]]",
            r#"[["a"]]"#,
            r#"[["a",[]]]"#,
            r#"[["a","pub"]]"#,
            r#"[["a",["all"]]]"#,
            r#"[["a",["PUB"]]]"#,
            r#"[["a",["pub","pub"]]]"#,
            r#"[["a",["pub"],1]]"#,
            r#"[[1,["pub"]]]"#,
            r#"[["",["pub"]]]"#,
            r##"[["a#",["pub"]]]"##,
            r##"[["#/a",["pub"]]]"##,
            r#"[["a+/b",["pub"]]]"#,
            r#"[["$share/g/a",["sub"]]]"#,
            r#"[["a\u0000",["pub"]]]"#,
            &many,
        ] {
            assert_eq!(read(value), Err(TokenError::Permissions), "{name} {value}");
        }
    }
    assert_eq!(with(r#""permissions":"a""#), Err(TokenError::Permissions));
    assert_eq!(with(r#""scope":"openid mqtt""#).expect("words of OAuth").permissions, None);
    assert_eq!(with(r#""scope":[],"permissions":[]"#), Err(TokenError::Permissions), "two lists");
    assert_eq!(with(r#""scope":"openid","permissions":[]"#).expect("one list").permissions, Some(Vec::new()));
}

#[test]
fn a_payload_is_one_strict_object() {
    for payload in [
        r#"{"exp":4102444800,"exp":4102444800}"#.to_owned(),
        format!(r#"{},"sub":"bob"}}"#, &PAYLOAD[..PAYLOAD.len() - 1]),
        format!(r#"{},"x":{{"a":1,"a":1}}}}"#, &PAYLOAD[..PAYLOAD.len() - 1]),
        format!("{PAYLOAD} {{}}"),
        format!("[{PAYLOAD}]"),
        format!(r#"{},"deep":{}{}}}"#, &PAYLOAD[..PAYLOAD.len() - 1], "[".repeat(128), "]".repeat(128)),
        format!(r#"{},"deep":{}"#, &PAYLOAD[..PAYLOAD.len() - 1], "{\"a\":".repeat(900)),
        String::new(),
    ] {
        assert!(matches!(verdict(signed(HEADER, &payload)), Err(TokenError::Payload(_))), "{payload}");
    }
    assert!(matches!(verdict(signed(HEADER, b"{\"a\":\"\xFF\"}")), Err(TokenError::Payload(_))));
}
