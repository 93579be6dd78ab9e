//! A client that does what a test says, and nothing by itself.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::broker::{Broker, clock};
use crate::bytes::{self, Connect, PINGREQ, Packet, Properties, Publish, Value, property};

/// How long an expected packet may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection.
pub struct Client {
    stream: TcpStream,
    level: u8,
    /// Maximum packet size that the CONNECT stated; every packet is held against it.
    packet_bytes_max: usize,
    next_id: u16,
    /// Publishes that came while something else was waited for.
    early: VecDeque<Publish>,
    /// The connection may end in the middle of a packet.
    may_be_cut: bool,
    /// Properties of the CONNACK.
    pub connack: Properties,
    /// Session present flag of the CONNACK.
    pub present: bool,
}

impl Client {
    /// A connection on which nothing was said yet. All tests run over TCP, the ordered, lossless stream that
    /// [MQTT-4.2-1] asks for.
    pub fn open(broker: &Broker, level: u8) -> Client {
        Client::at(broker.address(), level)
    }

    /// The same, whoever listens there.
    pub fn at(address: SocketAddr, level: u8) -> Client {
        let stream = TcpStream::connect(address).expect("the broker takes connections");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let (early, connack) = (VecDeque::new(), Properties::new());
        let (packet_bytes_max, next_id, may_be_cut, present) = (usize::MAX, 1, false, false);
        Client { stream, level, packet_bytes_max, next_id, early, may_be_cut, connack, present }
    }

    /// A connection whose CONNECT was accepted.
    pub fn connect(broker: &Broker, connect: &Connect) -> Client {
        Client::connect_at(broker.address(), connect)
    }

    /// The same, whoever listens there.
    pub fn connect_at(address: SocketAddr, connect: &Connect) -> Client {
        let mut client = Client::at(address, connect.level);
        if let Some(Value::Four(maximum)) = bytes::find(&connect.properties, property::PACKET_SIZE) {
            client.packet_bytes_max = *maximum as usize;
        }
        client.send(&connect.bytes());
        client.expect_accepted();
        client
    }

    /// A connection with MQTT 5 and nothing special.
    pub fn v5(broker: &Broker, client_id: &str) -> Client {
        Client::connect(broker, &Connect::v5(client_id))
    }

    /// Takes the CONNACK of an accepted CONNECT, which is the first packet `[MQTT-3.2.0-1]`.
    pub fn expect_accepted(&mut self) {
        match self.receive() {
            Packet::Connack { present, reason: 0, properties } => {
                self.present = present;
                self.connack = properties;
            }
            other => panic!("CONNACK with success expected, not {other:?}"),
        }
    }

    /// Waits that long for what is expected from now on.
    pub fn be_patient(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a socket option");
    }

    /// Whether something comes within that time.
    pub fn hears_within(&mut self, patience: Duration) -> bool {
        self.be_patient(patience);
        let heard = !self.early.is_empty() || self.stream.peek(&mut [0]).is_ok();
        self.be_patient(PATIENCE);
        heard
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker reads");
    }

    /// Sends what the broker may refuse to read, because it has closed already.
    pub fn send_regardless(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn publish(&mut self, publish: &Publish) {
        let bytes = publish.bytes(self.level);
        self.send(&bytes);
    }

    /// Publishes at QoS 1 and waits for the acknowledgement; its reason.
    pub fn publish_acknowledged(&mut self, publish: Publish) -> u8 {
        let id = self.id();
        self.publish(&publish.qos(1, id));
        match self.receive_other() {
            Packet::Ack { kind: 4, id: acknowledged, reason, .. } if acknowledged == id => reason,
            other => panic!("PUBACK of {id} expected, not {other:?}"),
        }
    }

    /// Publishes through the whole exchange of QoS 2.
    pub fn publish_exactly_once(&mut self, publish: Publish) {
        let id = self.id();
        self.publish(&publish.qos(2, id));
        match self.receive_other() {
            Packet::Ack { kind: 5, id: received, reason: 0 | 0x10, .. } => assert_eq!(received, id),
            other => panic!("PUBREC of {id} expected, not {other:?}"),
        }
        self.send(&bytes::ack(6, id));
        assert_eq!(self.receive_other(), bytes::success(7, id));
    }

    /// Subscribes to one filter, without identifier; the reason in the SUBACK.
    pub fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_all(0, &[(filter, options)])[0]
    }

    /// Subscribes to several filters with one identifier (0 for none); the reasons in the SUBACK.
    pub fn subscribe_all(&mut self, subscription_id: u32, filters: &[(&str, u8)]) -> Vec<u8> {
        let id = self.id();
        let bytes = bytes::subscribe(self.level, id, subscription_id, filters);
        self.send(&bytes);
        match self.receive_other() {
            Packet::Suback { id: acknowledged, reasons, .. } => {
                assert_eq!(acknowledged, id, "[MQTT-2.2.1-6]");
                assert_eq!(reasons.len(), filters.len(), "one reason per filter");
                reasons
            }
            other => panic!("SUBACK expected, not {other:?}"),
        }
    }

    /// Unsubscribes; the reasons in the UNSUBACK.
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.id();
        let bytes = bytes::unsubscribe(self.level, id, filters);
        self.send(&bytes);
        match self.receive_other() {
            Packet::Unsuback { id: acknowledged, reasons, .. } => {
                assert_eq!(acknowledged, id, "[MQTT-2.2.1-6]");
                reasons
            }
            other => panic!("UNSUBACK expected, not {other:?}"),
        }
    }

    /// A packet identifier not used before.
    pub fn id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// The next packet.
    pub fn receive(&mut self) -> Packet {
        match self.early.pop_front() {
            Some(publish) => Packet::Publish(publish),
            None => self.receive_new().expect("a packet, not the end of the connection"),
        }
    }

    /// The next packet that is no PUBLISH; those before it are kept for later.
    pub fn receive_other(&mut self) -> Packet {
        loop {
            match self.receive_new().expect("a packet, not the end of the connection") {
                Packet::Publish(publish) => self.early.push_back(publish),
                other => return other,
            }
        }
    }

    /// The next packet, which is a PUBLISH.
    pub fn receive_publish(&mut self) -> Publish {
        match self.receive() {
            Packet::Publish(publish) => publish,
            other => panic!("a PUBLISH expected, not {other:?}"),
        }
    }

    /// The next packet, which is a PUBLISH with that payload.
    pub fn expect(&mut self, payload: &str) -> Publish {
        let publish = self.receive_publish();
        assert_eq!(publish.text(), payload, "{publish:?}");
        publish
    }

    /// The same, and acknowledges it as its QoS wants.
    pub fn take(&mut self, payload: &str) -> Publish {
        let publish = self.expect(payload);
        self.acknowledge(&publish);
        publish
    }

    /// The client's part of the exchange for a received PUBLISH.
    pub fn acknowledge(&mut self, publish: &Publish) {
        match publish.qos {
            1 => self.send(&bytes::ack(4, publish.id)),
            2 => {
                self.send(&bytes::ack(5, publish.id));
                assert_eq!(self.receive_other(), bytes::success(6, publish.id), "[MQTT-4.3.3-4]");
                self.send(&bytes::ack(7, publish.id));
            }
            _ => {}
        }
    }

    /// Shows that nothing is on its way: the answer to a PINGREQ comes next. Only what the broker sends before it
    /// reads the PINGREQ is seen; for messages of other clients wait for their acknowledgement first.
    pub fn expect_nothing(&mut self) {
        self.send(PINGREQ);
        assert_eq!(self.receive(), Packet::Pingresp);
    }

    /// The broker closes the connection without another word.
    pub fn expect_close(&mut self) {
        assert_eq!(self.receive_end(), None);
    }

    /// The broker says why it closes the connection (MQTT 5), then closes it and says nothing else.
    pub fn expect_disconnect(&mut self, reason: u8) -> Properties {
        match self.receive_end() {
            Some(Packet::Disconnect { reason: said, properties }) => {
                assert_eq!(said, reason, "reason of DISCONNECT: {said:#04x} instead of {reason:#04x}");
                self.expect_close();
                properties
            }
            other => panic!("DISCONNECT with {reason:#04x} expected, not {other:?}"),
        }
    }

    /// The broker refuses the CONNECT with that reason, then closes and says nothing else.
    pub fn expect_refused(&mut self, reason: u8) -> Properties {
        match self.receive_end() {
            Some(Packet::Connack { present, reason: said, properties }) => {
                assert_eq!(said, reason, "reason of CONNACK: {said:#04x} instead of {reason:#04x}");
                assert!(!present, "a refused CONNECT has no session [MQTT-3.2.2-6]");
                self.expect_close();
                properties
            }
            other => panic!("CONNACK with {reason:#04x} expected, not {other:?}"),
        }
    }

    /// The next packet, or `None` at the end of the connection.
    pub fn receive_end(&mut self) -> Option<Packet> {
        match self.early.pop_front() {
            Some(publish) => Some(Packet::Publish(publish)),
            None => self.receive_new(),
        }
    }

    /// The same where the broker's process may end in the middle of a packet.
    pub fn receive_unless_cut(&mut self) -> Option<Packet> {
        match self.early.pop_front() {
            Some(publish) => Some(Packet::Publish(publish)),
            None => {
                self.may_be_cut = true;
                let packet = self.receive_new();
                self.may_be_cut = false;
                packet
            }
        }
    }

    /// DISCONNECT with success, and the broker's close. What it sent before it read that is of no interest.
    pub fn disconnect(mut self) {
        self.send(&[0xe0, 0]);
        while self.receive_end().is_some() {}
    }

    /// DISCONNECT with a reason and properties, and the broker's close (MQTT 5).
    pub fn disconnect_with(mut self, reason: u8, properties: &[(u8, Value)]) {
        let body = [&[reason][..], &bytes::properties(properties)].concat();
        self.send(&bytes::packet(0xe0, &body));
        while let Some(packet) = self.receive_end() {
            assert!(matches!(packet, Packet::Publish(_)), "{packet:?} in answer to DISCONNECT");
        }
    }

    /// Ends the connection as a network failure does; returns when the broker has noticed.
    pub fn fail(self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("the connection is open");
        let mut stream = self.stream;
        // What is still on its way is lost, as it is in a failure.
        let mut lost = [0; 4096];
        while matches!(stream.read(&mut lost), Ok(length) if length > 0) {}
    }

    /// When the connection ended, which has to happen with no packet but, perhaps, a DISCONNECT.
    pub fn wait_for_end(&mut self) -> Instant {
        while let Some(packet) = self.receive_end() {
            assert!(matches!(packet, Packet::Disconnect { .. }), "{packet:?}");
        }
        clock()
    }

    /// How many bytes there are until the end of the connection.
    pub fn read_to_end(&mut self) -> usize {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "no end"),
        }
        bytes.len()
    }

    fn receive_new(&mut self) -> Option<Packet> {
        self.receive_bytes().map(|(first, body)| bytes::decode(self.level, first, &body))
    }

    /// `None`: the connection ended here, and may.
    fn read_rest(&mut self, rest: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(rest) {
            Ok(()) => Some(()),
            Err(_) if self.may_be_cut => None,
            Err(error) => panic!("no whole packet: {error}"),
        }
    }

    fn receive_bytes(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => return None,
            Ok(_) => {}
            // A close with unread bytes on the other side arrives as a reset.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("neither a packet nor a close: {error}"),
        }
        let first = byte[0];
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            self.read_rest(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                let mut body = vec![0; length];
                self.read_rest(&mut body)?;
                let size = bytes::packet(first, &body).len();
                assert!(size <= self.packet_bytes_max, "packet {first:#04x} of {size} bytes is too large");
                return Some((first, body));
            }
        }
        panic!("a remaining length of five bytes");
    }
}
