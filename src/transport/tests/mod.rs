//! A transport beside an independent client: rustls' own, with its buffers, over bytes in memory.

pub(crate) mod credentials;

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, version};

use super::certificates::{Certificates, Clients};
use super::*;
use credentials::{Authority, Credentials, Identity};

/// Both ends, and what each has said to the other.
struct Pair {
    client: ClientConnection,
    transport: Transport,
    heard: Vec<u8>,
    client_heard: Vec<u8>,
    /// Bytes of one receive.
    piece: usize,
}

impl Pair {
    fn new(server: &Arc<Server>, config: &Arc<ClientConfig>, name: &str) -> Pair {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let client = ClientConnection::new(config.clone(), name).unwrap();
        Pair {
            client,
            transport: Transport::new(&Layers { tls: Some(server.clone()), web: None }),
            heard: Vec::new(),
            client_heard: Vec::new(),
            piece: usize::MAX,
        }
    }

    /// Lets bytes pass until nobody has any; the server says `plain` first.
    fn pass(&mut self, mut plain: &[u8]) -> Result<(), Broken> {
        loop {
            let mut to_server = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut to_server).unwrap();
            }
            let mut result = Ok(());
            let piece = self.piece.min(to_server.len().max(1));
            for piece in to_server.chunks_mut(piece) {
                result = result.and_then(|()| self.transport.receive(piece, &mut self.heard));
            }
            let mut to_client = Vec::new();
            let said = if !self.transport.takes_long() { std::mem::take(&mut plain) } else { &[] };
            self.transport.send(said, &mut to_client)?;
            if to_server.is_empty() && to_client.is_empty() {
                return result;
            }
            self.give(&to_client);
            result?;
        }
    }

    fn give(&mut self, mut wire: &[u8]) {
        while !wire.is_empty() {
            if self.client.read_tls(&mut wire).unwrap() == 0 || self.client.process_new_packets().is_err() {
                return;
            }
            // It holds so much and no more. At the end there is an error that there is no more for now.
            let _more_may_come = self.client.reader().read_to_end(&mut self.client_heard);
        }
    }

    fn client_hears(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.client_heard)
    }
}

#[test]
fn both_versions_carry_bytes_both_ways_however_these_are_cut() {
    let files = Credentials::new(&["localhost"]);
    let server = files.server();
    let long: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
    for version in [&version::TLS12, &version::TLS13] {
        for piece in [1, 7, 1_000, usize::MAX] {
            let mut pair = Pair::new(&server, &files.client(&[version], &[b"mqtt"]), "localhost");
            pair.piece = piece;
            assert!(pair.transport.takes_long());
            pair.client.writer().write_all(b"said at once").unwrap();
            pair.pass(&[]).unwrap();
            assert!(!pair.transport.takes_long());
            assert_eq!(pair.client.alpn_protocol(), Some(b"mqtt".as_slice()));
            assert_eq!(pair.heard, b"said at once");
            pair.heard.clear();
            pair.client.set_buffer_limit(None);
            pair.client.writer().write_all(&long).unwrap();
            pair.pass(b"an answer").unwrap();
            assert!(pair.heard == long, "{version:?} in pieces of {piece}");
            assert_eq!(pair.client_hears(), b"an answer");
            let mut wire = Vec::new();
            pair.transport.send(&long, &mut wire).unwrap();
            pair.give(&wire);
            assert!(pair.client_hears() == long);
        }
    }
}

#[test]
fn an_idle_transport_holds_no_buffer() {
    let files = Credentials::new(&["localhost"]);
    let server = files.server();
    let mut pair = Pair::new(&server, &files.client(&[&version::TLS13], &[]), "localhost");
    pair.piece = 3;
    pair.client.writer().write_all(&[7; 20_000]).unwrap();
    pair.pass(b"x").unwrap();
    assert_eq!(pair.transport.buffered(), 0);
}

#[test]
fn a_ticket_spares_the_second_handshake_also_when_certificates_were_read_again() {
    let files = Credentials::new(&["localhost"]);
    let first = files.server();
    let again = Arc::new(super::server(files.read(), None, MQTT, Some(&first)).unwrap());
    let stranger = files.server();
    for version in [&version::TLS12, &version::TLS13] {
        let client = files.client(&[version], &[]);
        for (server, kind) in [
            (&first, HandshakeKind::Full),
            (&first, HandshakeKind::Resumed),
            (&again, HandshakeKind::Resumed),
            (&stranger, HandshakeKind::Full),
        ] {
            let mut pair = Pair::new(server, &client, "localhost");
            pair.pass(b"hello").unwrap();
            assert_eq!(pair.client_hears(), b"hello");
            assert_eq!(pair.client.handshake_kind(), Some(kind), "{version:?}");
        }
    }
}

#[test]
fn a_client_is_shown_the_certificate_for_the_name_it_asks_for() {
    let files =
        Credentials::for_each(&[&["a.example", "shared.example"], &["*.b.example"], &["shared.example"]]);
    let server = files.server();
    let client = files.client(&[&version::TLS13], &[]);
    for (name, shown) in [("a.example", 0), ("x.b.example", 1), ("X.B.EXAMPLE", 1), ("shared.example", 0)] {
        let mut pair = Pair::new(&server, &client, name);
        pair.pass(&[]).unwrap();
        assert_eq!(pair.client.peer_certificates().unwrap()[0], files.certificates[shown], "{name}");
    }
    for name in ["b.example", "y.x.b.example", "elsewhere"] {
        let mut pair = Pair::new(&server, &client, name);
        assert!(pair.pass(&[]).is_err(), "{name} gets the first, which is not for it");
    }
}

#[test]
fn what_is_no_tls_or_offers_nothing_that_we_have_ends_with_an_alert() {
    let files = Credentials::new(&["localhost"]);
    let server = files.server();
    let mut transport = Transport::new(&files.layers());
    let mut connect = *b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0";
    assert!(matches!(transport.receive(&mut connect, &mut Vec::new()), Err(Broken::Peer(_))));
    assert!(transport.wants_to_send());
    let mut wire = Vec::new();
    transport.send(&[], &mut wire).unwrap();
    assert_eq!((wire[0], wire.len()), (21, 7), "an alert record [RFC 8446 5.1]");

    let mut pair = Pair::new(&server, &files.client(&[&version::TLS13], &[b"http/1.1"]), "localhost");
    let error = pair.pass(&[]).unwrap_err();
    assert!(error.to_string().contains("ALPN") || error.to_string().contains("protocol"), "{error}");
}

#[test]
fn a_message_of_the_handshake_is_collected_only_so_far() {
    // limits::TLS_PARTIAL_BYTES_MAX
    let mut transport = Transport::new(&Credentials::new(&["localhost"]).layers());
    // A ClientHello of 65,535 bytes, in records of 16 KiB.
    let mut record = vec![0x16, 3, 1, 0x40, 0];
    record.resize(5 + (16 << 10), 0);
    record[5..9].copy_from_slice(&[1, 0, 0xFF, 0xFF]);
    for number in 1..=4 {
        let result = transport.receive(&mut record.clone(), &mut Vec::new());
        assert_eq!(result.is_err(), number == 4, "{number}: {result:?}");
        record[5..9].fill(0);
    }
    assert_eq!(transport.receive(&mut record, &mut Vec::new()), Ok(()), "nothing more is heard");
}

#[test]
fn an_altered_record_is_noticed() {
    let files = Credentials::new(&["localhost"]);
    let server = files.server();
    let mut pair = Pair::new(&server, &files.client(&[&version::TLS13], &[]), "localhost");
    pair.pass(&[]).unwrap();
    pair.client.writer().write_all(b"to be changed").unwrap();
    let mut wire = Vec::new();
    pair.client.write_tls(&mut wire).unwrap();
    *wire.last_mut().unwrap() ^= 1;
    let mut heard = Vec::new();
    assert!(pair.transport.receive(&mut wire, &mut heard).is_err());
    assert!(heard.is_empty());
}

#[test]
fn each_side_can_say_that_it_sends_no_more() {
    let files = Credentials::new(&["localhost"]);
    let server = files.server();
    let mut pair = Pair::new(&server, &files.client(&[&version::TLS13], &[]), "localhost");
    pair.pass(&[]).unwrap();
    pair.client.writer().write_all(b"the last").unwrap();
    pair.client.send_close_notify();
    pair.pass(b"still said").unwrap();
    assert_eq!(pair.heard, b"the last");
    assert!(pair.transport.is_ended());
    assert_eq!(pair.client_hears(), b"still said");
    let mut wire = Vec::new();
    pair.transport.close(&mut wire);
    assert!(!wire.is_empty());
    pair.transport.close(&mut wire);
    pair.give(&wire);
    assert_eq!(pair.client.reader().read(&mut [0]).unwrap(), 0, "a proper end");
    assert_eq!(pair.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

/// A server that asks clients for certificates: of that authority, but for those on the list.
fn asking(files: &Credentials, required: bool, list: Option<&str>) -> Arc<Server> {
    let authorities = [files.path("authority")];
    let revoked = [files.path("revoked")];
    std::fs::write(&revoked[0], list.unwrap_or_default()).unwrap();
    let clients =
        Clients { authorities: &authorities, revoked: if list.is_some() { &revoked } else { &[] }, required };
    Arc::new(super::server(files.read(), Some(clients.read().unwrap()), MQTT, None).unwrap())
}

#[test]
fn a_client_is_let_in_by_its_certificate() {
    let files = Credentials::new(&["localhost"]);
    let (authority, elsewhere) = (Authority::new("ours"), Authority::new("ours"));
    std::fs::write(files.path("authority"), authority.pem()).unwrap();
    let (good, revoked, stranger) = (authority.vouch(1), authority.vouch(2), elsewhere.vouch(1));
    let list = authority.revoke(&[2]);
    for version in [&version::TLS12, &version::TLS13] {
        let is_let_in = |server: &Arc<Server>, identity: Option<&Identity>| {
            let client = match identity {
                Some(identity) => files.client_with(&[version], identity),
                None => files.client(&[version], &[]),
            };
            let mut pair = Pair::new(server, &client, "localhost");
            pair.client.writer().write_all(b"let me in").unwrap();
            pair.pass(&[]).is_ok() && pair.heard == b"let me in"
        };
        let server = asking(&files, true, None);
        assert!(!is_let_in(&server, None));
        assert!(is_let_in(&server, Some(&good)));
        assert!(is_let_in(&server, Some(&revoked)), "nobody has said so");
        assert!(!is_let_in(&server, Some(&stranger)));
        let server = asking(&files, true, Some(&list));
        assert!(is_let_in(&server, Some(&good)));
        assert!(!is_let_in(&server, Some(&revoked)));
        let server = asking(&files, false, Some(&list));
        assert!(is_let_in(&server, None));
        assert!(is_let_in(&server, Some(&good)));
        assert!(!is_let_in(&server, Some(&revoked)));
        assert!(!is_let_in(&server, Some(&stranger)));
        let server = asking(&files, true, Some(&elsewhere.revoke(&[])));
        assert!(!is_let_in(&server, Some(&good)), "there is no list of its authority");
    }
}

#[test]
fn a_ticket_lets_nobody_in_who_was_revoked_since() {
    let files = Credentials::new(&["localhost"]);
    let authority = Authority::new("ours");
    std::fs::write(files.path("authority"), authority.pem()).unwrap();
    let identity = authority.vouch(1);
    let before = asking(&files, true, None);
    let authorities = [files.path("authority")];
    let revoked = [files.path("revoked")];
    std::fs::write(&revoked[0], authority.revoke(&[1])).unwrap();
    let clients = Clients { authorities: &authorities, revoked: &revoked, required: true }.read().unwrap();
    let after = Arc::new(super::server(files.read(), Some(clients), MQTT, Some(&before)).unwrap());
    for version in [&version::TLS12, &version::TLS13] {
        let client = files.client_with(&[version], &identity);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut pair = Pair::new(&before, &client, "localhost");
            pair.pass(b"hello").unwrap();
            assert_eq!(pair.client.handshake_kind(), Some(kind), "{version:?}");
        }
        assert!(Pair::new(&after, &client, "localhost").pass(b"hello").is_err());
    }
}

#[test]
fn what_is_wrong_with_a_list_of_clients_is_said_with_its_file() {
    let files = Credentials::new(&["localhost"]);
    std::fs::write(files.path("authority"), Authority::new("ours").pem()).unwrap();
    std::fs::write(files.path("broken"), "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n").unwrap();
    for (authority, list, wrong, cause) in [
        ("absent", None, "absent", "no certificate could be read"),
        ("0.key", None, "0.key", "no certificate in it"),
        ("authority", Some("absent"), "absent", "no revocation list could be read"),
        ("authority", Some("0.pem"), "0.pem", "no revocation list in it"),
        ("authority", Some("broken"), "broken", "revocation list is none"),
    ] {
        let (authorities, revoked) = ([files.path(authority)], list.map(|list| files.path(list)));
        let clients = Clients { authorities: &authorities, revoked: revoked.as_slice(), required: true };
        let error = clients.read().unwrap_err();
        assert_eq!(error.file, files.path(wrong));
        assert!(error.cause.contains(cause) && !error.cure.is_empty(), "{authority}, {list:?}: {error}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name_and_a_cure() {
    let files = Credentials::for_each(&[&["localhost"], &["localhost"]]);
    std::fs::write(files.path("empty"), "").unwrap();
    std::fs::write(files.path("broken"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    for (chain, key, wrong, cause) in [
        ("absent", "0.key", "absent", "no certificate could be read"),
        ("empty", "0.key", "empty", "no certificate in it"),
        ("0.key", "0.key", "0.key", "no certificate in it"),
        ("broken", "0.key", "broken", "its first certificate is none"),
        ("0.pem", "absent", "absent", "no private key"),
        ("0.pem", "0.pem", "0.pem", "no private key"),
        ("0.pem", "1.key", "1.key", "not a key for"),
    ] {
        let pair = (files.path(chain), files.path(key));
        let error = Certificates::read([(pair.0.as_path(), pair.1.as_path())].into_iter()).unwrap_err();
        assert_eq!(error.file, files.path(wrong));
        assert!(error.cause.contains(cause), "{chain}, {key}: {error}");
        assert!(!error.cure.is_empty());
    }
}
