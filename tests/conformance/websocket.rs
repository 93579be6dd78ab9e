//! MQTT in a WebSocket: section 6 of the standard, frame by frame.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::broker::{self, Broker, Start};
use crate::bytes::{self, Connect, Publish};

const PATIENCE: Duration = Duration::from_secs(20);
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// First bytes of frames: a binary message, its first frame, its last, and a text.
const BINARY: u8 = 0x82;
const BEGINS: u8 = 0x02;
const ENDS: u8 = 0x80;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;

struct Web(TcpStream);

impl Web {
    /// Asks for a WebSocket with these subprotocols; the answer's head, in small letters.
    fn ask(broker: &Broker, subprotocols: &str) -> (Web, String) {
        let mut stream = TcpStream::connect(broker.address()).expect("the broker takes connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let request = format!(
            "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {subprotocols}\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("the broker reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        (Web(stream), String::from_utf8(head).expect("text").to_lowercase())
    }

    fn open(broker: &Broker) -> Web {
        let (web, head) = Web::ask(broker, "mqtt");
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        web
    }

    fn say(&mut self, first: u8, payload: &[u8]) {
        let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
        let mut frame = vec![first, 0x80 | 126, length[0], length[1]];
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).expect("the broker reads");
    }

    /// The next frame: its first byte and its payload. `None`: the connection is closed.
    fn hear(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        assert!(head[1] < 126, "answers here are short, and a server masks nothing");
        let mut payload = vec![0; head[1].into()];
        self.0.read_exact(&mut payload).expect("all of the frame");
        Some((head[0], payload))
    }

    /// So many bytes of packets, from binary messages.
    fn packets(&mut self, count: usize) -> Vec<u8> {
        let mut packets = Vec::new();
        while packets.len() < count {
            let (first, payload) = self.hear().expect("another frame");
            assert_eq!(first, BINARY, "[MQTT-6.0.0-1]");
            packets.extend(payload);
        }
        packets
    }
}

fn web_broker() -> Option<Broker> {
    let start = Start { protocol: Some("ws"), ..Start::default() };
    (!broker::is_mosquitto()).then(|| Broker::start_with(start))
}

#[test]
fn the_subprotocol_is_mqtt_whatever_else_is_offered() {
    let Some(broker) = web_broker() else { return };
    for offered in ["mqtt", "chat, mqtt", "mqttv3.1, mqtt"] {
        let (_, head) = Web::ask(&broker, offered);
        assert!(head.contains("\r\nsec-websocket-protocol: mqtt\r\n"), "[MQTT-6.0.0-4] {head}");
    }
    // [MQTT-6.0.0-3]: who does not offer it does not speak it.
    let (_, head) = Web::ask(&broker, "chat");
    assert!(head.starts_with("http/1.1 400 "), "{head}");
}

#[test]
fn packets_may_begin_and_end_anywhere_in_frames() {
    let Some(broker) = web_broker() else { return };
    let publish = Publish::new("web", "x").qos(1, 2).bytes(4);
    let said = [Connect::v3("web").bytes(), bytes::subscribe(4, 1, 0, &[("web", 0)]), publish].concat();
    let mut heard = Vec::new();
    for cut in 1..said.len() {
        // [MQTT-6.0.0-2]: all packets in one message of two frames, cut at each place.
        let mut web = Web::open(&broker);
        web.say(BEGINS, &said[..cut]);
        web.say(ENDS, &said[cut..]);
        // CONNACK, SUBACK, PUBLISH of `x` to `web`, PUBACK.
        let mut packets = web.packets(4 + 5 + 8 + 4);
        packets.sort_unstable();
        heard.push(packets);
    }
    assert!(heard.windows(2).all(|two| two[0] == two[1]), "the same, wherever they are cut");
}

#[test]
fn another_kind_of_message_ends_the_connection() {
    let Some(broker) = web_broker() else { return };
    let mut web = Web::open(&broker);
    web.say(BINARY, &Connect::v3("web").bytes());
    assert_eq!(web.packets(4)[0], 0x20);
    // [MQTT-6.0.0-1]
    web.say(TEXT, &[0xc0, 0]);
    assert_eq!(
        web.hear(),
        Some((CLOSE, 1003_u16.to_be_bytes().to_vec())),
        "RFC 6455 7.4.1: unsupported data"
    );
    assert_eq!(web.hear(), None);
}
