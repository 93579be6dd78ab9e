//! Services that stall, flood, lie or leave: each is no answer, within the time and the memory that it was given.

use std::time::Duration;

use super::server::dribble;
use super::*;

/// What came of it, and after how long.
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn timed(hook: &Hook, question: &Question<'_>) -> (Result<Answer, Unreachable>, Duration) {
    let start = std::time::Instant::now();
    let answer = hook.ask(question);
    (answer, start.elapsed())
}

/// That it gave up when its 400 ms were over: a server here goes on for a minute.
fn expect_given_up(hook: &Hook) {
    let (answer, taken) = timed(hook, &question());
    let text = answer.expect_err("no whole answer").to_string();
    assert!(text.ends_with("had not answered after 400 ms"), "{text}");
    assert!(taken >= Duration::from_millis(390) && taken < Duration::from_secs(10), "{taken:?}");
}

#[test]
fn a_service_that_says_nothing_is_given_up_in_time() {
    let server = Server::start(|_, _| {
        Pause::new().wait_ms(60_000);
        false
    });
    expect_given_up(&impatient(&server));
}

#[test]
fn a_service_that_does_not_accept_is_given_up_in_time() {
    // The kernel completes connections that nobody accepts, so this one is asked, too, and stays silent.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    expect_given_up(&Hook::new(HookSettings { timeout_ms: 400, ..settings(&url) }).expect("good settings"));
}

#[test]
fn a_service_that_does_not_read_is_given_up_in_time() {
    let server = Server::serve("http", |_stream, _| Pause::new().wait_ms(60_000));
    let hook = impatient(&server);
    // More than the kernel buffers on both sides, so that it is sending that stalls.
    let endless = "x".repeat(32 << 20);
    let (answer, taken) = timed(&hook, &Question { client_id: &endless, ..question() });
    let error = answer.expect_err("nobody reads");
    assert!(error.to_string().ends_with("had not answered after 400 ms"), "{error}");
    assert!(taken < Duration::from_secs(10), "{taken:?}");
}

#[test]
fn an_answer_of_one_byte_at_a_time_is_given_up_in_time() {
    let head = b"HTTP/1.1 200 OK\r\nX: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    let server = Server::start(|_, stream| {
        dribble(stream, head);
        false
    });
    expect_given_up(&impatient(&server));
    for before in ["Content-Length: 600", "Transfer-Encoding: chunked", "Connection: close"] {
        let server = Server::start(move |_, stream| {
            write!(stream, "HTTP/1.1 200 OK\r\n{before}\r\n\r\n").is_ok() && {
                dribble(stream, if before.contains("chunked") { b"1\r\n \r\n" } else { b" " });
                false
            }
        });
        expect_given_up(&impatient(&server));
    }
    // A no of which the rest does not come in time is a no.
    let server = Server::start(|_, stream| {
        write!(stream, "HTTP/1.1 403 No\r\nContent-Length: 600\r\n\r\n").is_ok() && {
            dribble(stream, b" ");
            false
        }
    });
    let (answer, taken) = timed(&impatient(&server), &question());
    assert_eq!(answer, Ok(Answer::Denied { cache_s: None }));
    assert!(taken < Duration::from_secs(10), "{taken:?}");
}

#[test]
fn endless_interim_responses_are_given_up_in_time() {
    let server = Server::start(|_, stream| {
        while stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {}
        false
    });
    let (answer, taken) = timed(&impatient(&server), &question());
    answer.expect_err("no answer");
    assert!(taken < Duration::from_secs(10), "{taken:?}");
}

#[test]
fn an_answer_without_end_is_refused_at_its_bound() {
    for before in ["Content-Length: 1000000000000", "Transfer-Encoding: chunked", "Connection: close"] {
        let server = Server::start(move |_, stream| {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n{before}\r\n\r\n");
            let piece = " ".repeat(0x1000);
            let piece = if before.contains("chunked") { format!("1000\r\n{piece}\r\n") } else { piece };
            while stream.write_all(piece.as_bytes()).is_ok() {}
            false
        });
        let text = hook(&server).ask(&question()).expect_err("no end").to_string();
        let bound = limits::HOOK_ANSWER_BYTES_MAX;
        assert!(text.ends_with(&format!("answered with more than {bound} bytes")), "{before}: {text}");
    }
}

#[test]
fn an_answer_may_have_just_as_many_bytes_as_the_bound_says() {
    let most = usize::try_from(limits::HOOK_ANSWER_BYTES_MAX).expect("it is small");
    let yes = r#"{"allow": true}"#;
    let padded = |bytes: usize| yes.to_owned() + &" ".repeat(bytes - yes.len());
    assert_eq!(asked("200 OK", &padded(most)), Ok(Answer::Allowed(Allowed::default())));
    asked("200 OK", &padded(most + 1)).expect_err("a byte too many");
}

#[test]
fn headers_have_a_bound() {
    let filler = "x".repeat(1_000);
    for (headers, good) in [(14, true), (17, false), (90, false), (100_000, false)] {
        let filler = filler.clone();
        let server = Server::start(move |_, stream| {
            let _ = stream.write_all(b"HTTP/1.1 204 Yes\r\n");
            for number in 0..headers {
                if write!(stream, "X-{number}: {filler}\r\n").is_err() {
                    return false;
                }
            }
            stream.write_all(b"\r\n").is_ok()
        });
        let answer = hook(&server).ask(&question());
        assert_eq!(answer.is_ok(), good, "{headers} of 1 kB: {answer:?}");
        if let Err(error) = answer {
            let bound = limits::HOOK_HEADER_BYTES_MAX;
            assert!(error.to_string().ends_with(&format!("headers of more than {bound} bytes")), "{error}");
        }
    }
    let many = "A: b\r\n".repeat(1_000);
    let server = Server::start(move |_, stream| write!(stream, "HTTP/1.1 204 Yes\r\n{many}\r\n").is_ok());
    hook(&server).ask(&question()).expect_err("a thousand headers");
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(|_, stream| stream.write_all(&answer("204 Yes", "")).is_ok());
    for status in [301, 302, 303, 307, 308] {
        let url = elsewhere.url.clone();
        let server = Server::start(move |_, stream| {
            write!(stream, "HTTP/1.1 {status} There\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n").is_ok()
        });
        let text = hook(&server).ask(&question()).expect_err("not an answer").to_string();
        assert!(text.ends_with(&format!("answered with status {status}")), "{text}");
    }
    assert_eq!(elsewhere.accepted(), 0);
}

#[test]
fn an_answer_that_breaks_off_is_none() {
    for part in [
        "",
        "HTTP/1.1 2",
        "HTTP/1.1 200 OK\r\nContent-Len",
        "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"allow\": true",
        "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"allow\": true}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n{\"allow\": true}\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\n{\"allow\": true}\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n{\"allow\": true}\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"allow\": true",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{\"allow\": true}",
        "HTTP/2 204 Yes\r\n\r\n",
        "HTTP/1.1 20 4\r\n\r\n",
        "204\r\n\r\n",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "\r\n\r\n\r\n\r\n",
        "{\"allow\": true}",
    ] {
        let server = Server::start(move |_, stream| {
            let _ = stream.write_all(part.as_bytes());
            false
        });
        let error = hook(&server).ask(&question()).expect_err(part);
        assert!(
            error.to_string().starts_with(&format!("access service http://127.0.0.1:{} ", server.port)),
            "{error}"
        );
    }
}

#[test]
fn nobody_there_is_no_answer() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    drop(listener);
    let error = Hook::new(settings(&url)).expect("good settings").ask(&question()).expect_err("nobody");
    assert!(error.to_string().contains("cannot be talked to"), "{error}");
}
