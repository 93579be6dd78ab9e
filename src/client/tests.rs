//! The client against a server that follows a script: each side of each QoS, repeats, refusals, leaving in time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use super::publisher::acknowledgement;
use super::*;
use crate::wire::frame::{self, Peek};
use crate::wire::*;

/// The server's end of one connection.
struct Server {
    stream: TcpStream,
    received: Vec<u8>,
    version: Version,
}

impl Server {
    /// Takes the next packet and lets `judge` look at it.
    fn expect(&mut self, judge: impl FnOnce(&Packet<'_>)) {
        loop {
            if let Peek::Complete { len } = frame::peek(&self.received, u32::MAX).unwrap() {
                judge(&decode::packet(&self.received[..len], Some(self.version)).unwrap());
                self.received.drain(..len);
                return;
            }
            let mut chunk = [0; 4_096];
            let count = self.stream.read(&mut chunk).unwrap();
            assert_ne!(count, 0, "the client left early");
            self.received.extend_from_slice(&chunk[..count]);
        }
    }

    fn expect_ack(&mut self, kind: AckKind, packet_id: u16) {
        self.expect(|packet| match packet {
            Packet::Ack(ack) => assert_eq!((ack.kind, ack.packet_id.get()), (kind, packet_id)),
            other => panic!("{other:?} instead of {kind:?} {packet_id}"),
        });
    }

    fn expect_disconnect(&mut self) {
        self.expect(|packet| assert!(matches!(packet, Packet::Disconnect(_)), "{packet:?}"));
    }

    fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        encode::packet(packet, self.version, &mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    fn publish(&mut self, packet_id: u16, qos: QoS, dup: bool, payload: &str) {
        self.send(&Packet::Publish(Publish {
            dup,
            qos,
            retain: false,
            topic: "a/b",
            packet_id: PacketId::new(packet_id),
            message_expiry: None,
            topic_alias: None,
            subscription_ids: &[],
            carries_subscription_id: false,
            forward: Properties::EMPTY,
            payload: payload.as_bytes(),
        }));
    }

    fn grant(&mut self, reason: ReasonCode) {
        self.expect(|packet| assert!(matches!(packet, Packet::Subscribe(_)), "{packet:?}"));
        let reasons = [reason];
        let suback = Suback { packet_id: PacketId::MIN, reason_string: None, reasons: (&reasons).into() };
        self.send(&Packet::Suback(suback));
    }
}

/// Starts a server that takes one CONNECT and follows the script; returns what to connect with.
fn server(version: Version, connack: Connack<'static>, script: fn(&mut Server)) -> (Options, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let mut server = Server { stream: listener.accept().unwrap().0, received: Vec::new(), version };
        server.expect(|packet| assert!(matches!(packet, Packet::Connect(_)), "{packet:?}"));
        server.send(&Packet::Connack(connack));
        script(&mut server);
    });
    let options = Options {
        host: "127.0.0.1".to_owned(),
        port,
        version,
        client_id: "me".to_owned(),
        clean_start: true,
        session_expiry_s: 0,
        keep_alive_s: 0,
        username: None,
        password: None,
    };
    (options, thread)
}

fn accepted() -> Connack<'static> {
    Connack::new(ReasonCode::Success)
}

fn publish_with(
    version: Version,
    connack: Connack<'static>,
    qos: QoS,
    count: usize,
    script: fn(&mut Server),
) -> Result<u64, ClientError> {
    let (options, thread) = server(version, connack, script);
    let mut connection = Connection::open(&options)?;
    let message = Message { topic: "a/b".to_owned(), qos, retain: false };
    let outcome = publish(&mut connection, &message, (0..count).map(|number| Ok(vec![b'0' + number as u8])));
    drop(connection);
    thread.join().unwrap();
    outcome
}

fn subscribe_with(
    version: Version,
    count: u64,
    script: fn(&mut Server),
) -> (Vec<String>, Result<(), ClientError>) {
    let (options, thread) = server(version, accepted(), script);
    let mut connection = Connection::open(&options).unwrap();
    let subscription =
        Subscription { filters: vec!["a/#".to_owned()], qos: QoS::ExactlyOnce, count: Some(count) };
    let mut got = Vec::new();
    let outcome = subscribe(&mut connection, &subscription, &mut |publish| {
        got.push(String::from_utf8(publish.payload.to_vec()).unwrap());
        Ok(())
    });
    drop(connection);
    thread.join().unwrap();
    (got, outcome)
}

#[test]
fn a_qos_1_publisher_leaves_after_the_last_puback() {
    for version in [Version::V311, Version::V5] {
        let outcome = publish_with(version, accepted(), QoS::AtLeastOnce, 2, |server| {
            for number in 1..=2 {
                server.expect(|packet| {
                    assert!(
                        matches!(packet, Packet::Publish(publish) if publish.payload == [b'0' + number - 1])
                    )
                });
            }
            server.send(&acknowledgement(AckKind::Puback, PacketId::new(1).unwrap()));
            server.send(&acknowledgement(AckKind::Puback, PacketId::new(2).unwrap()));
            server.expect_disconnect();
        });
        assert_eq!(outcome.unwrap(), 2);
    }
}

#[test]
fn a_qos_2_publisher_releases_and_leaves_after_pubcomp() {
    let outcome = publish_with(Version::V5, accepted(), QoS::ExactlyOnce, 1, |server| {
        server.expect(|packet| assert!(matches!(packet, Packet::Publish(_))));
        server.send(&acknowledgement(AckKind::Pubrec, PacketId::MIN));
        server.expect_ack(AckKind::Pubrel, 1);
        server.send(&acknowledgement(AckKind::Pubcomp, PacketId::MIN));
        server.expect_disconnect();
    });
    assert_eq!(outcome.unwrap(), 1);
}

#[test]
fn a_publisher_stays_within_the_servers_receive_maximum() {
    let connack = Connack { receive_maximum: PacketId::new(1), ..accepted() };
    let outcome = publish_with(Version::V5, connack, QoS::AtLeastOnce, 3, |server| {
        for number in 1..=3 {
            server.expect(|packet| assert!(matches!(packet, Packet::Publish(_))));
            assert!(server.received.is_empty(), "a second message without an acknowledgement of the first");
            server.send(&acknowledgement(AckKind::Puback, PacketId::new(number).unwrap()));
        }
        server.expect_disconnect();
    });
    assert_eq!(outcome.unwrap(), 3);
}

#[test]
fn a_refused_message_is_counted_and_named() {
    let outcome = publish_with(Version::V5, accepted(), QoS::ExactlyOnce, 1, |server| {
        server.expect(|packet| assert!(matches!(packet, Packet::Publish(_))));
        let reason = ReasonCode::QuotaExceeded;
        let ack = Ack { kind: AckKind::Pubrec, packet_id: PacketId::MIN, reason, reason_string: None };
        server.send(&Packet::Ack(ack));
        server.expect_disconnect();
    });
    assert_eq!(outcome.unwrap_err().to_string(), "the server refused 1 message(s): Quota exceeded (0x97)");
}

#[test]
fn a_refused_connection_says_why() {
    for (version, text) in [
        (Version::V5, "the server refused the connection: Not authorized (0x87): not you"),
        (Version::V311, "the server refused the connection: Not authorized (0x87)"),
    ] {
        let connack = Connack { reason_string: Some("not you"), ..Connack::new(ReasonCode::NotAuthorized) };
        let outcome = publish_with(version, connack, QoS::AtMostOnce, 1, |_| ());
        assert_eq!(outcome.unwrap_err().to_string(), text);
    }
}

#[test]
fn the_servers_disconnect_says_why() {
    let outcome = publish_with(Version::V5, accepted(), QoS::AtLeastOnce, 1, |server| {
        let reason = ReasonCode::ServerShuttingDown;
        server.send(&Packet::Disconnect(Disconnect {
            reason,
            session_expiry: None,
            reason_string: None,
            server_reference: None,
        }));
    });
    assert_eq!(
        outcome.unwrap_err().to_string(),
        "the server ended the connection: Server shutting down (0x8B)"
    );
}

/// A repeat before PUBREL is acknowledged and not handed over.
#[test]
fn a_repeated_qos_2_message_is_handed_over_once() {
    let (got, outcome) = subscribe_with(Version::V5, 2, |server| {
        server.grant(ReasonCode::GrantedQoS2);
        server.publish(7, QoS::ExactlyOnce, false, "once");
        server.expect_ack(AckKind::Pubrec, 7);
        server.publish(7, QoS::ExactlyOnce, true, "once");
        server.expect_ack(AckKind::Pubrec, 7);
        server.send(&acknowledgement(AckKind::Pubrel, PacketId::new(7).unwrap()));
        server.expect_ack(AckKind::Pubcomp, 7);
        server.publish(7, QoS::ExactlyOnce, false, "again, and new");
        server.expect_ack(AckKind::Pubrec, 7);
        server.send(&acknowledgement(AckKind::Pubrel, PacketId::new(7).unwrap()));
        server.expect_ack(AckKind::Pubcomp, 7);
        server.expect_disconnect();
    });
    outcome.unwrap();
    assert_eq!(got, ["once", "again, and new"]);
}

#[test]
fn a_subscriber_with_enough_acknowledges_no_more_and_finishes_what_began() {
    let (got, outcome) = subscribe_with(Version::V311, 2, |server| {
        server.publish(1, QoS::AtLeastOnce, false, "queued before the SUBACK");
        server.grant(ReasonCode::GrantedQoS2);
        server.publish(2, QoS::ExactlyOnce, false, "second");
        server.publish(3, QoS::AtLeastOnce, false, "too many");
        server.expect_ack(AckKind::Puback, 1);
        server.expect_ack(AckKind::Pubrec, 2);
        server.send(&acknowledgement(AckKind::Pubrel, PacketId::new(2).unwrap()));
        server.expect_ack(AckKind::Pubcomp, 2);
        server.expect_disconnect();
    });
    outcome.unwrap();
    assert_eq!(got, ["queued before the SUBACK", "second"]);
}

#[test]
fn a_refused_subscription_is_named() {
    let (_, outcome) = subscribe_with(Version::V5, 1, |server| server.grant(ReasonCode::QuotaExceeded));
    let text = outcome.unwrap_err().to_string();
    assert_eq!(text, "the server refused to subscribe to \"a/#\": Quota exceeded (0x97)");
}

#[test]
fn nobody_at_the_address_is_said_with_a_cure() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let (options, _never_joined) = server(Version::V5, accepted(), |_| ());
    let error = Connection::open(&Options { port, ..options }).unwrap_err().to_string();
    assert!(error.contains(&format!("cannot connect to 127.0.0.1:{port}")), "{error}");
    assert!(error.contains("cure: start a broker"), "{error}");
}
