//! The hook against real servers on this host: what is asked, what counts as an answer, and what never does.

use std::net::IpAddr;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::*;
use server::{Pause, Request, Server, answer};

mod connection;
mod hostile;
mod secrets;
mod server;
mod settings;
mod tls;

/// What no text may show.
const PASSWORD: &str = "correct horse battery staple";

fn settings(url: &str) -> HookSettings {
    HookSettings {
        url: url.to_owned(),
        timeout_ms: limits::HOOK_TIMEOUT_MS_MAX,
        bearer: None,
        authorities: None,
    }
}

fn hook(server: &Server) -> Hook {
    Hook::new(settings(&server.url)).expect("good settings")
}

fn impatient(server: &Server) -> Hook {
    let timeout_ms = 400;
    Hook::new(HookSettings { timeout_ms, ..settings(&server.url) }).expect("good settings")
}

fn question() -> Question<'static> {
    Question {
        username: Some("alice"),
        password: PASSWORD.as_bytes(),
        client_id: "meter \"7\"",
        address: Some(IpAddr::from([192, 0, 2, 1])),
        listener: "outside",
        version: 5,
    }
}

/// What a server that answers so makes of it.
fn asked(status: &str, body: &str) -> Result<Answer, Unreachable> {
    let response = answer(status, body);
    let server = Server::start(move |_, stream| stream.write_all(&response).is_ok());
    hook(&server).ask(&question())
}

fn allowed(body: Value) -> Allowed {
    match asked("200 OK", &body.to_string()) {
        Ok(Answer::Allowed(allowed)) => allowed,
        other => panic!("{body} answered {other:?}"),
    }
}

/// The requests that an independent server read.
fn heard(settings: HookSettings, questions: &[Question<'_>]) -> Vec<(Vec<tiny_http::Header>, String, Value)> {
    let server = tiny_http::Server::http("127.0.0.1:0").expect("a free port");
    let address = server.server_addr().to_ip().expect("an address");
    let url = settings.url.replace("SERVER", &address.to_string());
    let hook = Hook::new(HookSettings { url, ..settings }).expect("good settings");
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            for question in questions {
                let answer = hook.ask(question);
                assert_eq!(answer, Ok(Answer::Denied { cache_s: Some(7) }));
            }
        });
        let mut heard = Vec::new();
        for _ in questions {
            let mut request = server.recv().expect("a request");
            assert_eq!(request.method(), &tiny_http::Method::Post);
            let object = serde_json::from_reader(request.as_reader()).expect("JSON");
            heard.push((request.headers().to_vec(), request.url().to_owned(), object));
            let response = tiny_http::Response::from_string(r#"{"allow": false, "cache_s": 7}"#);
            request.respond(response).expect("somebody listens");
        }
        asking.join().expect("it asked");
        heard
    })
}

fn header<'a>(headers: &'a [tiny_http::Header], name: &'static str) -> Option<&'a str> {
    let header = headers.iter().find(|header| header.field.equiv(name))?;
    Some(header.value.as_str())
}

#[test]
fn the_service_hears_who_asks() {
    let with = HookSettings {
        bearer: Some(Zeroizing::new(b"  c2VjcmV0-._~+/==\n".to_vec())),
        ..settings("http://SERVER/mqtt/connect?site=7")
    };
    let nobody = Question { username: None, password: b"", address: None, ..question() };
    let mapped = Question { address: "::ffff:192.0.2.7".parse().ok(), version: 4, ..question() };
    let binary = Question { password: &[0xFF, 0xFE, 0, b'a'], ..question() };
    let awkward = Question { password: b"\"\\\0\n\xC3\xBC", ..question() };
    let heard = heard(with, &[question(), nobody, mapped, binary, awkward]);
    let (headers, url, object) = &heard[0];
    assert_eq!(url, "/mqtt/connect?site=7");
    assert_eq!(header(headers, "Content-Type"), Some("application/json"));
    assert_eq!(header(headers, "Authorization"), Some("Bearer c2VjcmV0-._~+/=="));
    assert_eq!(header(headers, "Cookie"), None);
    assert_eq!(header(headers, "Accept-Encoding"), None);
    let alice = json!({"username": "alice", "password": PASSWORD, "client_id": "meter \"7\"",
        "address": "192.0.2.1", "listener": "outside", "protocol_version": 5});
    assert_eq!(*object, alice);
    let object = &heard[1].2;
    assert_eq!((&object["username"], &object["password"]), (&Value::Null, &json!("")));
    assert_eq!(object["address"], Value::Null);
    assert_eq!((&heard[2].2["address"], &heard[2].2["protocol_version"]), (&json!("192.0.2.7"), &json!(4)));
    let object = heard[3].2.as_object().expect("an object");
    assert_eq!((object.get("password"), object.get("password_base64")), (None, Some(&json!("//4AYQ=="))));
    assert_eq!(heard[4].2["password"], json!("\"\\\0\nü"));
}

#[test]
fn without_a_secret_none_is_shown() {
    let heard = heard(settings("http://SERVER/"), &[question()]);
    assert_eq!(header(&heard[0].0, "Authorization"), None);
}

#[test]
fn a_yes_carries_what_the_service_grants() {
    let granted = allowed(json!({
        "allow": true, "account": "acme/alice", "groups": ["meters", "ü"],
        "permissions": [["a/#", ["pub", "sub"]], ["b", ["sub"]], ["c", ["pub"]], ["d", []]],
        "expires_in_s": u64::MAX, "cache_s": 60, "of the future": [{"deep": null}],
    }));
    let expected = Allowed {
        account: Some("acme/alice".into()),
        groups: vec!["meters".into(), "ü".into()],
        permissions: Some(vec![
            ("a/#".into(), true, true),
            ("b".into(), false, true),
            ("c".into(), true, false),
            ("d".into(), false, false),
        ]),
        expires_in_s: Some(u64::MAX),
        cache_s: Some(60),
    };
    assert_eq!(granted, expected);
    assert_eq!(allowed(json!({"allow": true, "permissions": []})).permissions, Some(Vec::new()));
    let nulls = json!({"allow": true, "account": null, "groups": null, "permissions": null,
        "expires_in_s": null, "cache_s": null});
    assert_eq!(allowed(nulls), Allowed::default());
    assert_eq!(allowed(json!({"allow": true})), Allowed::default());
    assert_eq!(asked("204 No Content", ""), Ok(Answer::Allowed(Allowed::default())));
}

#[test]
fn a_no_is_a_no_whatever_else_is_said() {
    let denied = |cache_s| Ok(Answer::Denied { cache_s });
    assert_eq!(asked("200 OK", r#"{"allow": false}"#), denied(None));
    assert_eq!(asked("200 OK", r#"{"allow": false, "cache_s": 9, "account": ""}"#), denied(Some(9)));
    for status in ["401 Unauthorized", "403 Forbidden"] {
        assert_eq!(asked(status, r#"{"allow": true}"#), denied(None), "{status}");
        let long = "x".repeat(2 * usize::try_from(limits::HOOK_ANSWER_BYTES_MAX).expect("it is small"));
        assert_eq!(asked(status, &long), denied(None), "{status}");
    }
}

#[test]
fn every_other_status_is_no_answer() {
    let yes = r#"{"allow": true}"#;
    for status in ["201 Created", "202 Accepted", "206 Partial Content", "301 Moved", "404 Not Found"]
        .into_iter()
        .chain([
            "407 Proxy",
            "429 Too Many",
            "500 Oops",
            "502 Bad Gateway",
            "503 Later",
            "599 What",
            "999 So",
        ])
    {
        let text = asked(status, yes).expect_err(status).to_string();
        assert!(text.ends_with(&format!("answered with status {}", &status[..3])), "{text}");
    }
}

#[test]
fn json_that_is_not_as_described_is_no_answer() {
    for body in [
        "",
        "null",
        "true",
        "[]",
        "{}",
        "{",
        r#"{"allow": true"#,
        r#"{"allow": true} {"allow": true}"#,
        r#"{"allow": "true"}"#,
        r#"{"allow": 1}"#,
        r#"{"allow": null}"#,
        r#"{"Allow": true}"#,
        r#"{"allow": true, "allow": true}"#,
        r#"{"allow": false, "allow": true}"#,
        r#"{"allow": true, "account": 7}"#,
        r#"{"allow": true, "account": ["a"]}"#,
        r#"{"allow": true, "groups": "a"}"#,
        r#"{"allow": true, "groups": [1]}"#,
        r#"{"allow": true, "groups": {}}"#,
        r#"{"allow": true, "permissions": {"a": ["pub"]}}"#,
        r#"{"allow": true, "permissions": ["a"]}"#,
        r#"{"allow": true, "permissions": [["a"]]}"#,
        r#"{"allow": true, "permissions": [["a", "pub"]]}"#,
        r#"{"allow": true, "permissions": [["a", ["read"]]]}"#,
        r#"{"allow": true, "permissions": [["a", ["PUB"]]]}"#,
        r#"{"allow": true, "permissions": [["a", ["pub"], 1]]}"#,
        r#"{"allow": true, "permissions": [[1, ["pub"]]]}"#,
        r#"{"allow": true, "expires_in_s": -1}"#,
        r#"{"allow": true, "expires_in_s": 1.5}"#,
        r#"{"allow": true, "expires_in_s": "60"}"#,
        r#"{"allow": true, "expires_in_s": 18446744073709551616}"#,
        r#"{"allow": true, "cache_s": -1}"#,
        r#"{"allow": true, "cache_s": 4294967296}"#,
        "{\"allow\": true, \"account\": \"\u{7F}\"}",
        r#"{"allow": true, "account": "a\u0000"}"#,
        r#"{"allow": true, "account": ""}"#,
        r#"{"allow": true, "groups": [""]}"#,
        r#"{"allow": true, "groups": ["a\n"]}"#,
        "\u{FEFF}{\"allow\": true}",
        "allow",
        "<html>",
    ] {
        let text = asked("200 OK", body).expect_err(body).to_string();
        assert!(text.contains(" answered with "), "{body}: {text}");
    }
    let nested = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    asked("200 OK", &format!(r#"{{"allow": true, "groups": {nested}}}"#)).expect_err("not names");
    // Skipped without a stack that grows.
    asked("200 OK", &format!(r#"{{"allow": true, "unknown": {nested}}}"#)).expect("a yes");
}

#[test]
fn what_is_granted_has_bounds() {
    let name = |bytes: usize| "n".repeat(bytes);
    let (most, names) =
        (limits::HOOK_NAME_BYTES_MAX, vec![name(limits::HOOK_NAME_BYTES_MAX); limits::HOOK_GROUPS_MAX]);
    let permissions = vec![json!(["f/#", ["pub"]]); limits::HOOK_PERMISSIONS_MAX];
    let full = json!({"allow": true, "account": name(most), "groups": names, "permissions": permissions});
    let granted = allowed(full);
    assert_eq!(granted.account.map(|account| account.len()), Some(most));
    assert_eq!(granted.groups.len(), limits::HOOK_GROUPS_MAX);
    assert_eq!(granted.permissions.map(|list| list.len()), Some(limits::HOOK_PERMISSIONS_MAX));
    for over in [
        json!({"allow": true, "account": name(most + 1)}),
        json!({"allow": true, "account": "ü".repeat(most / 2 + 1)}),
        json!({"allow": true, "groups": [name(most + 1)]}),
        json!({"allow": true, "groups": vec!["a"; limits::HOOK_GROUPS_MAX + 1]}),
        json!({"allow": true, "permissions": vec![json!(["f", ["pub"]]); limits::HOOK_PERMISSIONS_MAX + 1]}),
    ] {
        asked("200 OK", &over.to_string()).expect_err("beyond a bound");
    }
}

#[test]
fn the_question_is_written_without_growing() {
    let worst = "\u{1}".repeat(60_000);
    let question =
        Question { username: Some(&worst), password: worst.as_bytes(), client_id: &worst, ..question() };
    let json = question.json();
    assert!(json.capacity() >= json.len() && json.len() > 3 * 6 * 60_000);
    let bytes = vec![0xFF; 65_535];
    let json = Question { password: &bytes, ..question }.json();
    assert!(json.len() > 2 * 6 * 60_000 + 87_380);
    let question = Question { username: None, password: b"", client_id: "", listener: "", ..question };
    let longest = "1111:2222:3333:4444:5555:6666:7777:8888".parse().ok();
    assert!(Question { address: longest, version: 255, ..question }.json().len() < 256);
}
