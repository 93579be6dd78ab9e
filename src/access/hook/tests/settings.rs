//! Which settings will do; and that the environment is none.

use super::*;

fn refused(settings: HookSettings) -> String {
    Hook::new(settings).expect_err("bad settings").to_string()
}

#[test]
fn urls_are_judged() {
    for url in [
        "http://h",
        "http://h/",
        "http://h:1/",
        "http://h:65535/a?b=c",
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://[::1]:8080/x",
        "HTTP://host/",
        "http://xn--bcher-kva.example/",
    ] {
        Hook::new(settings(url)).expect(url);
    }
    for url in [
        "",
        "/",
        "h",
        "h:80",
        "host/path",
        "http://",
        "http:///x",
        "ftp://h/",
        "ws://h/",
        "http://h:0/",
        "http://h:65536/",
        "http://h:/",
        "http://h:x/",
        "http://u@h/",
        "http://u:p@h/",
        "http://h/#x",
        "http://h /",
        "http://h/\n",
        "http://[::1/",
        "http://a..b/",
        "http://bücher.example/",
        "http://-/\u{0}",
        "unix:/run/x",
    ] {
        assert!(refused(settings(url)).contains("the URL of the access service"), "{url}");
    }
    let long = |bytes: usize| format!("{:x<bytes$}", "http://h/");
    Hook::new(settings(&long(limits::HOOK_URL_BYTES_MAX))).expect("just as long as may be");
    refused(settings(&long(limits::HOOK_URL_BYTES_MAX + 1)));
}

#[test]
fn times_and_secrets_are_judged() {
    let url = "http://h/";
    for timeout_ms in [1, limits::HOOK_TIMEOUT_MS_DEFAULT, limits::HOOK_TIMEOUT_MS_MAX] {
        Hook::new(HookSettings { timeout_ms, ..settings(url) }).expect("a good time");
    }
    for timeout_ms in [0, limits::HOOK_TIMEOUT_MS_MAX + 1, u32::MAX] {
        refused(HookSettings { timeout_ms, ..settings(url) });
    }
    let with =
        |secret: &[u8]| HookSettings { bearer: Some(Zeroizing::new(secret.to_vec())), ..settings(url) };
    Hook::new(with(&vec![b'x'; limits::HOOK_BEARER_BYTES_MAX])).expect("just as long as may be");
    for secret in [&b""[..], b" \n", b"a b", b"a\nb", b"a\r\nX: y", b"\xFF", "ü".as_bytes(), b"a\0"] {
        refused(with(secret));
    }
    refused(with(&vec![b'x'; limits::HOOK_BEARER_BYTES_MAX + 1]));
}

#[test]
fn a_long_secret_and_a_long_url_are_sent_whole() {
    let (secret, length) = ("x".repeat(limits::HOOK_BEARER_BYTES_MAX), limits::HOOK_URL_BYTES_MAX);
    let expected = format!("Bearer {secret}\r\n");
    let server = Server::start(move |request: &Request, stream| {
        assert!(request.head.contains(&expected) && request.head.contains("/yyyyyyyyyyyyy"));
        stream.write_all(&answer("204 Yes", "")).is_ok()
    });
    let url = format!("{:y<length$}", server.url);
    let bearer = Some(Zeroizing::new(secret.into_bytes()));
    Hook::new(HookSettings { bearer, ..settings(&url) })
        .expect("good settings")
        .ask(&question())
        .expect("an answer");
}

#[test]
fn authorities_are_judged() {
    let with = |pem: &[u8]| HookSettings { authorities: Some(pem.to_vec()), ..settings("https://h/") };
    for pem in [
        &b""[..],
        b"nothing",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n",
        b"\xFF\xFE",
    ] {
        assert!(refused(with(pem)).contains("the authorities"), "{pem:?}");
    }
}

/// Set in a process of its own, where it runs the test below alone.
#[test]
fn no_environment_variable_names_a_proxy() {
    let proxy = Server::start(|_, stream| stream.write_all(&answer("204 Yes", "")).is_ok());
    let program = std::env::current_exe().expect("this test");
    let mut child = std::process::Command::new(program);
    child.args(["--exact", "--ignored", "--nocapture"]);
    child.arg(concat!(module_path!(), "::asks_a_service_that_says_no").split_once("::").expect("a path").1);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, &proxy.url);
    }
    child.env_remove("NO_PROXY").env_remove("no_proxy");
    let output = child.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(proxy.accepted(), 0);
}

#[test]
#[ignore = "run by the test above, with proxies in its environment"]
fn asks_a_service_that_says_no() {
    let server = Server::start(|_, stream| stream.write_all(&answer("403 No", "")).is_ok());
    assert_eq!(hook(&server).ask(&question()), Ok(Answer::Denied { cache_s: None }));
}
