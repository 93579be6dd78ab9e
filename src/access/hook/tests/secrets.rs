//! No text shows a password, the secret, the URL's path, or what a service sent.

use super::*;

const BEARER: &str = "bearer-dGhlIHNlY3JldA==";
const PATH_KEY: &str = "key-in-the-path";

fn expect_clean(text: &str) {
    let base64 = data_encoding::BASE64.encode(PASSWORD.as_bytes());
    for secret in [PASSWORD, BEARER, PATH_KEY, "battery", base64.as_str(), "dGhlIHNlY3JldA"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    // As a list of numbers, as a vector of bytes is shown.
    for secret in [PASSWORD, BEARER] {
        let numbers = format!("{:?}", secret.as_bytes());
        assert!(!text.contains(&numbers[1..8]), "{text}");
    }
}

fn expect_clean_debug(value: &dyn std::fmt::Debug) {
    expect_clean(&format!("{value:?}"));
    expect_clean(&format!("{value:#?}"));
}

#[test]
fn no_text_of_ours_shows_a_secret() {
    let url = |server: &Server| format!("{}{PATH_KEY}?{PATH_KEY}={PATH_KEY}", server.url);
    let secret = || Some(Zeroizing::new(BEARER.as_bytes().to_vec()));
    // Services that say again what they heard, in every place that an error might quote.
    let echoes: [fn(&str) -> String; 9] = [
        |text| format!("HTTP/1.1 500 {text}\r\nContent-Length: 0\r\n\r\n"),
        |text| format!("HTTP/1.1 302 Go\r\nLocation: http://{text}/\r\nContent-Length: 0\r\n\r\n"),
        |text| format!("HTTP/1.1 200 OK\r\n{text}: {text}\r\nContent-Length: 0\r\n\r\n"),
        |text| format!("HTTP/1.1 200 OK\r\nContent-Length: {text}\r\n\r\n"),
        |text| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{text}\r\n"),
        |text| format!("{text}\r\n\r\n"),
        |text| String::from_utf8(answer("200 OK", &format!(r#"{{"allow": "{text}"}}"#))).expect("text"),
        |text| String::from_utf8(answer("200 OK", &format!(r#"{{"{text}"#))).expect("text"),
        |text| {
            let body = json!({"allow": true, "permissions": [["a", [text]]]}).to_string();
            String::from_utf8(answer("200 OK", &body)).expect("text")
        },
    ];
    for echo in echoes {
        let server = Server::start(move |request: &Request, stream| {
            let body = String::from_utf8_lossy(&request.body);
            assert!(request.head.contains(BEARER) && body.contains(PASSWORD));
            let text = format!("{PASSWORD} {BEARER} {PATH_KEY}");
            let _ = stream.write_all(echo(&text).as_bytes());
            false
        });
        let hook =
            Hook::new(HookSettings { bearer: secret(), ..settings(&url(&server)) }).expect("good settings");
        let error = hook.ask(&question()).expect_err(echo("text").as_str());
        expect_clean(&error.to_string());
        expect_clean_debug(&error);
        expect_clean_debug(&hook);
        expect_clean_debug(&hook.agent);
        expect_clean_debug(&hook.authorization);
        expect_clean_debug(&HookSettings { bearer: secret(), ..settings(&url(&server)) });
    }
    expect_clean_debug(&question());
}

#[test]
fn refused_settings_show_no_secret() {
    for url in [
        format!("http://alice:{BEARER}@host/{PATH_KEY}"),
        format!("ftp://host/{PATH_KEY}"),
        format!("http://host/{PATH_KEY}#{PATH_KEY}"),
        format!("http://host:{PATH_KEY}/"),
        format!("http://{PASSWORD}/"),
    ] {
        let error = Hook::new(settings(&url)).expect_err(&url);
        expect_clean(&error.to_string());
        expect_clean_debug(&error);
    }
    let bearer = Some(Zeroizing::new(format!("{BEARER} {PASSWORD}").into_bytes()));
    let error = Hook::new(HookSettings { bearer, ..settings("http://host/") }).expect_err("a space");
    expect_clean(&error.to_string());
    expect_clean_debug(&error);
}

#[test]
fn what_others_say_is_one_short_line() {
    let long = format!("a\nb\u{1B}[31m\r{}", "x".repeat(1_000));
    let text = one_line(&long);
    assert!(text.starts_with("ab[31mx") && text.len() == limits::HOOK_CAUSE_CHARACTERS_MAX);
}
