//! Over TLS: who is trusted, who is not, and that the time holds there, too.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::server::dribble;
use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Authority {
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(parameters, key).expect("a certificate"))
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A server of these names, vouched for by this authority.
    fn server(&self, names: &[&str]) -> Arc<rustls::ServerConfig> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.server_with(CertificateParams::new(names).expect("good names"))
    }

    fn server_with(&self, parameters: CertificateParams) -> Arc<rustls::ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.0).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = vec![CertificateDer::from(certificate)];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the usual versions")
            .with_no_client_auth()
            .with_single_cert(chain, key);
        Arc::new(config.expect("they fit"))
    }
}

fn trusting(url: &str, authority: &Authority, timeout_ms: u32) -> Hook {
    let settings = HookSettings { authorities: Some(authority.pem()), timeout_ms, ..settings(url) };
    Hook::new(settings).expect("good settings")
}

fn yes(config: Arc<rustls::ServerConfig>) -> Server {
    Server::start_tls(config, |_, stream| {
        stream.write_all(&answer("200 OK", r#"{"allow": true}"#)).and_then(|()| stream.flush()).is_ok()
    })
}

fn expect_distrust(hook: &Hook, said: &str) {
    let text = hook.ask(&question()).expect_err("not to be trusted").to_string();
    assert!(text.contains(said), "{text}");
}

#[test]
fn a_service_that_the_authority_vouches_for_is_asked_over_one_connection() {
    let authority = Authority::new("ours");
    let server = yes(authority.server(&["127.0.0.1", "localhost"]));
    let named = server.url.replace("127.0.0.1", "localhost");
    for (number, url) in [server.url.clone(), named].iter().enumerate() {
        let hook = trusting(url, &authority, limits::HOOK_TIMEOUT_MS_MAX);
        for _ in 0..20 {
            assert_eq!(hook.ask(&question()), Ok(Answer::Allowed(Allowed::default())));
        }
        assert_eq!(server.accepted(), number + 1);
    }
}

#[test]
fn a_service_of_another_authority_hears_nothing() {
    let authority = Authority::new("ours");
    // Of another name, and of another key that goes by the name of ours.
    for (other, said) in [("theirs", "UnknownIssuer"), ("ours", "BadSignature")] {
        let heard = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&heard);
        let server = Server::start_tls(Authority::new(other).server(&["127.0.0.1"]), move |_, stream| {
            count.fetch_add(1, Ordering::SeqCst);
            stream.write_all(&answer("204 Yes", "")).is_ok()
        });
        expect_distrust(&trusting(&server.url, &authority, limits::HOOK_TIMEOUT_MS_MAX), said);
        server.wait_until_closed();
        // Nor do those that the platform trusts vouch for it, if it has any.
        if let Ok(hook) = Hook::new(settings(&server.url)) {
            expect_distrust(&hook, "UnknownIssuer");
            server.wait_until_closed();
        }
        assert_eq!(heard.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn a_certificate_for_another_name_or_another_time_will_not_do() {
    let authority = Authority::new("ours");
    let server = yes(authority.server(&["localhost", "127.0.0.2"]));
    expect_distrust(&trusting(&server.url, &authority, limits::HOOK_TIMEOUT_MS_MAX), "certificate");
    let mut expired = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("good names");
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let server = yes(authority.server_with(expired));
    expect_distrust(&trusting(&server.url, &authority, limits::HOOK_TIMEOUT_MS_MAX), "xpired");
}

#[test]
fn a_service_without_tls_hears_nothing_in_the_clear() {
    let (ears, heard) = std::sync::mpsc::channel();
    let server = Server::serve("https", move |mut stream, _| {
        let _ = stream.write_all(&answer("204 Yes", ""));
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = ears.send(bytes);
    });
    trusting(&server.url, &Authority::new("ours"), limits::HOOK_TIMEOUT_MS_MAX)
        .ask(&question())
        .expect_err("no TLS");
    let bytes = heard.recv().expect("a connection");
    assert!(!bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()));
    assert!(!bytes.windows(4).any(|window| window == b"POST"));
}

#[test]
fn a_handshake_that_does_not_end_is_given_up_in_time() {
    let silent = Server::serve("https", |_stream, _| Pause::new().wait_ms(60_000));
    // The header of a handshake record of 1,000 bytes, of which hardly any come.
    let slow = Server::serve("https", |mut stream, _| {
        let _ = stream.write_all(&[22, 3, 3, 3, 0xE8, 2, 0, 3, 0xE4]);
        dribble(&mut stream, &[0]);
    });
    for server in [silent, slow] {
        expect_distrust(
            &trusting(&server.url, &Authority::new("ours"), 400),
            "had not answered after 400 ms",
        );
    }
}

#[test]
fn encrypted_bytes_that_trickle_are_given_up_in_time() {
    let authority = Authority::new("ours");
    let config = authority.server(&["127.0.0.1"]);
    for (records, whole) in [(true, false), (false, false), (false, true)] {
        let config = Arc::clone(&config);
        let server = Server::serve("https", move |mut stream, _| {
            let mut session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut both = rustls::Stream::new(&mut session, &mut stream);
            if server::read_request(&mut both, 0).is_none() {
                return;
            }
            trickle(&mut session, &mut stream, records, whole);
        });
        let hook = trusting(&server.url, &authority, if whole { limits::HOOK_TIMEOUT_MS_MAX } else { 400 });
        if whole {
            hook.ask(&question()).expect("the same, but not that slow");
        } else {
            expect_distrust(&hook, "had not answered after 400 ms");
        }
    }
}

/// An answer, byte for byte in a record of its own, or as one record of which a byte comes at a time, or all.
fn trickle(session: &mut rustls::ServerConnection, stream: &mut TcpStream, records: bool, whole: bool) {
    if records {
        let pause = Pause::new();
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n".iter().chain([b' '; 500].iter()) {
            session.writer().write_all(&[*byte]).expect("room");
            if session.write_tls(stream).is_err() {
                return;
            }
            pause.wait_ms(100);
        }
        return;
    }
    session.writer().write_all(&answer("200 OK", r#"{"allow": true}"#)).expect("room");
    let mut record = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut record).expect("memory");
    }
    if whole {
        let _ = stream.write_all(&record);
        let _ = stream.read(&mut [0]);
    } else {
        dribble(stream, &record);
    }
}
