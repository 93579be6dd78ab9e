//! MQTT packets to bytes and back, as a client needs them: small, strict about what a server sends, and independent
//! of `ironpost::wire`.

mod decode;

pub use decode::decode;

/// Property identifiers of MQTT 5.
pub mod property {
    pub const PAYLOAD_FORMAT: u8 = 1;
    pub const MESSAGE_EXPIRY: u8 = 2;
    pub const CONTENT_TYPE: u8 = 3;
    pub const RESPONSE_TOPIC: u8 = 8;
    pub const CORRELATION_DATA: u8 = 9;
    pub const SUBSCRIPTION_ID: u8 = 11;
    pub const SESSION_EXPIRY: u8 = 17;
    pub const ASSIGNED_CLIENT_ID: u8 = 18;
    pub const SERVER_KEEP_ALIVE: u8 = 19;
    pub const AUTHENTICATION_METHOD: u8 = 21;
    pub const PROBLEM_INFORMATION: u8 = 23;
    pub const WILL_DELAY: u8 = 24;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 25;
    pub const RESPONSE_INFORMATION: u8 = 26;
    pub const RECEIVE_MAXIMUM: u8 = 33;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 34;
    pub const TOPIC_ALIAS: u8 = 35;
    pub const USER: u8 = 38;
    pub const PACKET_SIZE: u8 = 39;
}

/// A property's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    Byte(u8),
    Two(u16),
    Four(u32),
    Variable(u32),
    Text(String),
    Binary(Vec<u8>),
    Pair(String, String),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

/// Properties in the order of the wire.
pub type Properties = Vec<(u8, Value)>;

/// A user property.
pub fn user(name: &str, value: &str) -> (u8, Value) {
    (property::USER, Value::Pair(name.to_owned(), value.to_owned()))
}

/// A two-byte length and the text.
pub fn text(text: &str) -> Vec<u8> {
    binary(text.as_bytes())
}

/// A two-byte length and the bytes.
pub fn binary(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("at most 65,535 bytes");
    [&length.to_be_bytes()[..], bytes].concat()
}

/// A variable byte integer.
pub fn variable(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A whole packet: first byte, length, body.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a packet's length");
    [&[first][..], &variable(length), body].concat()
}

/// The properties with their length in front.
pub fn properties(list: &[(u8, Value)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (identifier, value) in list {
        bytes.push(*identifier);
        match value {
            Value::Byte(value) => bytes.push(*value),
            Value::Two(value) => bytes.extend(value.to_be_bytes()),
            Value::Four(value) => bytes.extend(value.to_be_bytes()),
            Value::Variable(value) => bytes.extend(variable(*value)),
            Value::Text(value) => bytes.extend(text(value)),
            Value::Binary(value) => bytes.extend(binary(value)),
            Value::Pair(name, value) => bytes.extend([text(name), text(value)].concat()),
        }
    }
    let length = u32::try_from(bytes.len()).expect("a packet's length");
    [variable(length), bytes].concat()
}

/// A will in a CONNECT.
#[derive(Clone, Debug)]
pub struct Will {
    pub topic: &'static str,
    pub payload: &'static str,
    pub qos: u8,
    pub retain: bool,
    pub properties: Properties,
}

impl Will {
    pub fn new(topic: &'static str, payload: &'static str) -> Will {
        Will { topic, payload, qos: 0, retain: false, properties: Vec::new() }
    }
}

/// A CONNECT that can be encoded.
#[derive(Clone, Debug)]
pub struct Connect {
    pub level: u8,
    pub clean: bool,
    pub keep_alive: u16,
    pub client_id: String,
    pub properties: Properties,
    pub will: Option<Will>,
    pub username: Option<&'static str>,
    pub password: Option<&'static str>,
}

impl Connect {
    /// MQTT 5, clean start, no keep alive.
    pub fn v5(client_id: &str) -> Connect {
        Connect {
            level: 5,
            clean: true,
            keep_alive: 0,
            client_id: client_id.to_owned(),
            properties: Vec::new(),
            will: None,
            username: None,
            password: None,
        }
    }

    /// MQTT 3.1.1, clean session, no keep alive.
    pub fn v3(client_id: &str) -> Connect {
        Connect { level: 4, ..Connect::v5(client_id) }
    }

    /// MQTT 5 with a session that outlives the connection, resumed if there is one.
    pub fn durable(client_id: &str) -> Connect {
        Connect::v5(client_id).resume().with(property::SESSION_EXPIRY, Value::Four(600))
    }

    /// Clean start 0 (clean session 0 in 3.1.1).
    pub fn resume(self) -> Connect {
        Connect { clean: false, ..self }
    }

    pub fn with(mut self, identifier: u8, value: Value) -> Connect {
        self.properties.push((identifier, value));
        self
    }

    pub fn will(self, will: Will) -> Connect {
        Connect { will: Some(will), ..self }
    }

    pub fn flags(&self) -> u8 {
        let will = self.will.as_ref().map_or(0, |will| 4 | will.qos << 3 | u8::from(will.retain) << 5);
        u8::from(self.clean) << 1
            | will
            | u8::from(self.password.is_some()) << 6
            | u8::from(self.username.is_some()) << 7
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_with_flags(self.flags())
    }

    /// With flags that need not fit the payload.
    pub fn bytes_with_flags(&self, flags: u8) -> Vec<u8> {
        let mut body = [&text("MQTT")[..], &[self.level, flags], &self.keep_alive.to_be_bytes()].concat();
        if self.level >= 5 {
            body.extend(properties(&self.properties));
        }
        body.extend(text(&self.client_id));
        if let Some(will) = &self.will {
            if self.level >= 5 {
                body.extend(properties(&will.properties));
            }
            body.extend([text(will.topic), text(will.payload)].concat());
        }
        for field in [self.username, self.password].into_iter().flatten() {
            body.extend(text(field));
        }
        packet(0x10, &body)
    }
}

/// A PUBLISH, in both directions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Publish {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub topic: String,
    /// 0 exactly if the QoS is 0.
    pub id: u16,
    pub properties: Properties,
    pub payload: Vec<u8>,
}

impl Publish {
    pub fn new(topic: &str, payload: &str) -> Publish {
        Publish { topic: topic.to_owned(), payload: payload.as_bytes().to_vec(), ..Publish::default() }
    }

    pub fn qos(self, qos: u8, id: u16) -> Publish {
        Publish { qos, id, ..self }
    }

    pub fn dup(self) -> Publish {
        Publish { dup: true, ..self }
    }

    pub fn retain(self) -> Publish {
        Publish { retain: true, ..self }
    }

    pub fn with(mut self, identifier: u8, value: Value) -> Publish {
        self.properties.push((identifier, value));
        self
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the tests send text")
    }

    /// The only property of that kind.
    pub fn property(&self, identifier: u8) -> Option<&Value> {
        find(&self.properties, identifier)
    }

    /// All subscription identifiers, ascending.
    pub fn subscription_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self
            .properties
            .iter()
            .filter_map(|property| match property {
                (property::SUBSCRIPTION_ID, Value::Variable(id)) => Some(*id),
                _ => None,
            })
            .collect();
        ids.sort_unstable();
        ids
    }

    pub fn bytes(&self, level: u8) -> Vec<u8> {
        let first = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let mut body = text(&self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        if level >= 5 {
            body.extend(properties(&self.properties));
        }
        body.extend(&self.payload);
        packet(first, &body)
    }
}

/// The value of the only property of that kind.
pub fn find(properties: &[(u8, Value)], identifier: u8) -> Option<&Value> {
    let mut found = properties.iter().filter(|property| property.0 == identifier);
    let first = found.next();
    assert!(found.next().is_none(), "property {identifier} appears twice in {properties:?}");
    first.map(|property| &property.1)
}

/// SUBSCRIBE with one identifier (0 for none) for all filters.
pub fn subscribe(level: u8, id: u16, subscription_id: u32, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if level >= 5 {
        let list = [(property::SUBSCRIPTION_ID, Value::Variable(subscription_id))];
        body.extend(properties(if subscription_id == 0 { &[] } else { &list }));
    }
    for (filter, options) in filters {
        body.extend([&text(filter)[..], &[*options]].concat());
    }
    packet(0x82, &body)
}

/// UNSUBSCRIBE.
pub fn unsubscribe(level: u8, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if level >= 5 {
        body.push(0);
    }
    body.extend(filters.iter().flat_map(|filter| text(filter)));
    packet(0xa2, &body)
}

/// PUBACK (4), PUBREC (5), PUBREL (6) or PUBCOMP (7) in the short form, which means success.
pub fn ack(kind: u8, id: u16) -> Vec<u8> {
    packet(kind << 4 | if kind == 6 { 2 } else { 0 }, &id.to_be_bytes())
}

/// The same with a reason (MQTT 5).
pub fn ack_with(kind: u8, id: u16, reason: u8) -> Vec<u8> {
    packet(kind << 4 | if kind == 6 { 2 } else { 0 }, &[&id.to_be_bytes()[..], &[reason]].concat())
}

/// PINGREQ.
pub const PINGREQ: &[u8] = &[0xc0, 0];

/// What a server may send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet {
    Connack {
        present: bool,
        reason: u8,
        properties: Properties,
    },
    Publish(Publish),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP by their number.
    Ack {
        kind: u8,
        id: u16,
        reason: u8,
        properties: Properties,
    },
    Suback {
        id: u16,
        properties: Properties,
        reasons: Vec<u8>,
    },
    Unsuback {
        id: u16,
        properties: Properties,
        reasons: Vec<u8>,
    },
    Pingresp,
    Disconnect {
        reason: u8,
        properties: Properties,
    },
}

/// An acknowledgement without properties that reports success.
pub fn success(kind: u8, id: u16) -> Packet {
    Packet::Ack { kind, id, reason: 0, properties: Vec::new() }
}
