//! Connections are kept and shared, names looked up when one is made, and buffers emptied.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

use super::super::connection::{Names, Wiped};
use super::*;

/// A hook that finds the service in another way.
fn finding(
    server: &Server,
    timeout_ms: u32,
    find: impl Fn() -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
) -> Hook {
    let hook = Hook::new(HookSettings { timeout_ms, ..settings(&server.url) }).expect("good settings");
    let config = hook.agent.config().clone();
    let names = Names::with("service.example", server.port, Box::new(move |_, _| find()));
    Hook { agent: super::super::connection::agent(config, names), ..hook }
}

fn always(status: &'static str, body: &'static str) -> Server {
    Server::start(move |_, stream| stream.write_all(&answer(status, body)).is_ok())
}

#[test]
fn a_connection_is_used_again() {
    for (status, body) in [
        ("200 OK", r#"{"allow": true}"#),
        ("200 OK", r#"{"allow": false}"#),
        ("200 OK", "no JSON"),
        ("204 Yes", ""),
        ("401 No", "who?"),
        ("403 No", ""),
    ] {
        let server = always(status, body);
        let hook = hook(&server);
        for _ in 0..50 {
            assert_eq!(hook.ask(&question()).is_ok(), body != "no JSON");
        }
        assert_eq!(server.accepted(), 1, "{status} {body}");
    }
}

#[test]
fn threads_share_connections_and_get_their_own_answers() {
    let server = Server::start(|request: &Request, stream| {
        let object: Value = serde_json::from_slice(&request.body).expect("JSON");
        let body = json!({"allow": true, "account": object["client_id"]}).to_string();
        stream.write_all(&answer("200 OK", &body)).is_ok()
    });
    let hook = hook(&server);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let hook = &hook;
            scope.spawn(move || {
                for number in 0..50 {
                    let client_id = format!("client {thread} {number}");
                    let answer =
                        hook.ask(&Question { client_id: &client_id, ..question() }).expect("an answer");
                    let Answer::Allowed(allowed) = answer else { panic!("{answer:?}") };
                    assert_eq!(allowed.account.as_deref(), Some(client_id.as_str()));
                }
            });
        }
    });
    assert!((1..=8).contains(&server.accepted()), "{}", server.accepted());
}

#[test]
fn a_connection_that_the_service_closed_is_replaced() {
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(&answer("204 Yes", ""));
        false
    });
    let hook = hook(&server);
    for _ in 0..5 {
        hook.ask(&question()).expect("an answer");
        server.wait_until_closed();
    }
    assert_eq!(server.accepted(), 5);
}

#[test]
fn what_follows_an_answer_is_not_taken_for_the_next() {
    let server = Server::start(|request: &Request, stream| {
        let mut both = answer("403 No", "");
        if request.connection == 0 {
            both.extend(answer("204 Yes", ""));
        }
        stream.write_all(&both).is_ok()
    });
    let hook = hook(&server);
    for _ in 0..3 {
        assert_eq!(hook.ask(&question()), Ok(Answer::Denied { cache_s: None }));
    }
}

#[test]
fn idle_connections_have_a_bound() {
    let most = limits::HOOK_IDLE_CONNECTIONS_MAX;
    let together = Arc::new(std::sync::Barrier::new(most + 4));
    let server = Server::start(move |_, stream| {
        together.wait();
        stream.write_all(&answer("204 Yes", "")).is_ok()
    });
    let hook = hook(&server);
    std::thread::scope(|scope| {
        for _ in 0..most + 4 {
            scope.spawn(|| hook.ask(&question()).expect("an answer"));
        }
    });
    assert_eq!(server.accepted(), most + 4);
    for _ in 0..4 {
        server.wait_until_closed();
    }
}

#[test]
fn a_name_is_looked_up_for_a_new_connection_only() {
    let server = always("204 Yes", "");
    let (lookups, port) = (Arc::new(AtomicUsize::new(0)), server.port);
    let count = Arc::clone(&lookups);
    let hook = finding(&server, limits::HOOK_TIMEOUT_MS_MAX, move || {
        count.fetch_add(1, Ordering::SeqCst);
        // The first is nobody's; the next is tried.
        Ok(vec![SocketAddr::from(([127, 0, 0, 2], 1)), SocketAddr::from(([127, 0, 0, 1], port))])
    });
    for _ in 0..20 {
        hook.ask(&question()).expect("an answer");
    }
    assert_eq!((lookups.load(Ordering::SeqCst), server.accepted()), (1, 1));
}

#[test]
fn the_hosts_own_names_are_found() {
    let server = always("204 Yes", "");
    let url = format!("http://localhost:{}/", server.port);
    Hook::new(settings(&url)).expect("good settings").ask(&question()).expect("an answer");
}

#[test]
fn a_name_service_that_hangs_costs_one_thread_and_no_more_time_than_there_is() {
    let server = always("204 Yes", "");
    let (lookups, port) = (Arc::new(AtomicUsize::new(0)), server.port);
    let (release, hang) = mpsc::channel::<()>();
    let (count, hang) = (Arc::clone(&lookups), Mutex::new(hang));
    let hook = finding(&server, 300, move || {
        count.fetch_add(1, Ordering::SeqCst);
        let _ = hang.lock().expect("one at a time").recv();
        Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
    });
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let error = hook.ask(&question()).expect_err("nobody knows where");
                    assert!(error.to_string().ends_with("had not answered after 300 ms"), "{error}");
                });
            }
        });
    }
    assert_eq!((lookups.load(Ordering::SeqCst), server.accepted()), (1, 0));
    drop(release);
    let pause = Pause::new();
    let answered = (0..100).any(|_| {
        pause.wait_ms(10);
        hook.ask(&question()).is_ok()
    });
    assert!(answered, "it recovers once the name service does");
}

#[test]
fn a_name_without_address_is_no_answer() {
    let server = always("204 Yes", "");
    for found in [Ok(()), Err(())] {
        let hook = finding(&server, limits::HOOK_TIMEOUT_MS_MAX, move || {
            found.map(|()| Vec::new()).map_err(|()| io::Error::other("no"))
        });
        let error = hook.ask(&question()).expect_err("nowhere");
        assert!(error.to_string().contains("has a name without an address"), "{error}");
    }
    let url = "http://no-such-name.invalid/";
    Hook::new(settings(url)).expect("good settings").ask(&question()).expect_err("nowhere");
}

#[test]
fn only_so_many_addresses_are_tried() {
    let server = always("204 Yes", "");
    let port = server.port;
    for (before, good) in
        [(limits::HOOK_ADDRESSES_MAX - 1, true), (limits::HOOK_ADDRESSES_MAX, false), (1_000, false)]
    {
        let hook = finding(&server, limits::HOOK_TIMEOUT_MS_MAX, move || {
            let mut found = vec![SocketAddr::from(([127, 0, 0, 2], 1)); before];
            found.push(SocketAddr::from(([127, 0, 0, 1], port)));
            Ok(found)
        });
        assert_eq!(hook.ask(&question()).is_ok(), good, "{before}");
    }
}

/// Keeps what it is to send.
#[derive(Debug)]
struct Ear(LazyBuffers, Vec<u8>, bool);

impl Transport for Ear {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.0
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.1.extend_from_slice(&self.0.output()[..amount]);
        if self.2 { Err(ureq::Error::Timeout(timeout.reason)) } else { Ok(()) }
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        Ok(false)
    }

    fn is_open(&mut self) -> bool {
        true
    }
}

#[test]
fn what_was_sent_is_gone_from_the_buffer() {
    for fails in [false, true] {
        let mut wiped = Wiped(Ear(LazyBuffers::new(64, 64), Vec::new(), fails));
        wiped.buffers().output()[..PASSWORD.len()].copy_from_slice(PASSWORD.as_bytes());
        let sent = wiped.transmit_output(PASSWORD.len(), NextTimeout::default());
        assert_eq!(sent.is_err(), fails);
        assert_eq!(wiped.0.1, PASSWORD.as_bytes());
        assert_eq!(wiped.buffers().output(), [0; 64]);
    }
}
