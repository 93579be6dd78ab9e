//! The properties of MQTT 5: identifiers, types, and where each may stand (table 2-4 of the standard).
//!
//! One table yields the identifiers, the values' types, reading, writing and legality. `decode` calls `validate`
//! once per packet; everything after that walks bytes known to be right.

use super::bytes::{Reader, Sink};
use super::error::DecodeError;
use super::packet::PacketType;
use super::reason::ReasonCode;

const CONNECT: u16 = 1 << PacketType::Connect as u16;
const CONNACK: u16 = 1 << PacketType::Connack as u16;
const PUBLISH: u16 = 1 << PacketType::Publish as u16;
const SUBSCRIBE: u16 = 1 << PacketType::Subscribe as u16;
const SUBACK: u16 = 1 << PacketType::Suback as u16;
const UNSUBSCRIBE: u16 = 1 << PacketType::Unsubscribe as u16;
const UNSUBACK: u16 = 1 << PacketType::Unsuback as u16;
const DISCONNECT: u16 = 1 << PacketType::Disconnect as u16;
const AUTH: u16 = 1 << PacketType::Auth as u16;
/// The will inside a CONNECT has properties of its own; no packet has type 0.
const WILL: u16 = 1;
const ACKS: u16 = 0b1111 << PacketType::Puback as u16;
/// Every packet that answers another.
const ANSWERS: u16 = CONNACK | ACKS | SUBACK | UNSUBACK | DISCONNECT | AUTH;

/// Message expiry, subscription identifier, will delay, topic alias: they belong to one hop.
const HOP: u64 = 1 << 0x02 | 1 << 0x0B | 1 << 0x18 | 1 << 0x23;

macro_rules! properties {
    ($($name:ident($type:ty) = $id:literal, $form:ident, $places:expr;)*) => {
        /// One property and its value.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[expect(missing_docs, reason = "each variant is the property of that name in section 2.2.2.2")]
        pub enum Property<'a> { $($name($type),)* }

        impl<'a> Property<'a> {
            /// Every identifier, ascending.
            pub const IDENTIFIERS: &'static [u8] = &[$($id),*];

            /// Its identifier.
            pub fn identifier(&self) -> u8 {
                match self { $(Property::$name(_) => $id,)* }
            }

            /// Set of places where the property with that identifier may stand; none for an unknown identifier.
            const fn places(identifier: u8) -> u16 {
                match identifier { $($id => $places,)* _ => 0 }
            }

            /// Reads the value that follows an identifier.
            #[inline]
            fn read(identifier: u8, reader: &mut Reader<'a>) -> Result<Property<'a>, DecodeError> {
                Ok(match identifier {
                    $($id => Property::$name(reader.$form()?),)*
                    _ => return Err(DecodeError::malformed("unknown property")),
                })
            }

            /// Writes identifier and value.
            #[inline]
            pub(super) fn write(self, sink: &mut impl Sink) {
                match self { $(Property::$name(value) => { sink.byte($id); sink.$form(value); })* }
            }
        }
    };
}

properties! {
    PayloadFormatIndicator(u8) = 0x01, byte, PUBLISH | WILL;
    MessageExpiryInterval(u32) = 0x02, four_bytes, PUBLISH | WILL;
    ContentType(&'a str) = 0x03, string, PUBLISH | WILL;
    ResponseTopic(&'a str) = 0x08, string, PUBLISH | WILL;
    CorrelationData(&'a [u8]) = 0x09, binary, PUBLISH | WILL;
    SubscriptionIdentifier(u32) = 0x0B, variable, PUBLISH | SUBSCRIBE;
    SessionExpiryInterval(u32) = 0x11, four_bytes, CONNECT | CONNACK | DISCONNECT;
    AssignedClientIdentifier(&'a str) = 0x12, string, CONNACK;
    ServerKeepAlive(u16) = 0x13, two_bytes, CONNACK;
    AuthenticationMethod(&'a str) = 0x15, string, CONNECT | CONNACK | AUTH;
    AuthenticationData(&'a [u8]) = 0x16, binary, CONNECT | CONNACK | AUTH;
    RequestProblemInformation(u8) = 0x17, byte, CONNECT;
    WillDelayInterval(u32) = 0x18, four_bytes, WILL;
    RequestResponseInformation(u8) = 0x19, byte, CONNECT;
    ResponseInformation(&'a str) = 0x1A, string, CONNACK;
    ServerReference(&'a str) = 0x1C, string, CONNACK | DISCONNECT;
    ReasonString(&'a str) = 0x1F, string, ANSWERS;
    ReceiveMaximum(u16) = 0x21, two_bytes, CONNECT | CONNACK;
    TopicAliasMaximum(u16) = 0x22, two_bytes, CONNECT | CONNACK;
    TopicAlias(u16) = 0x23, two_bytes, PUBLISH;
    MaximumQoS(u8) = 0x24, byte, CONNACK;
    RetainAvailable(u8) = 0x25, byte, CONNACK;
    UserProperty((&'a str, &'a str)) = 0x26, pair, ANSWERS | CONNECT | PUBLISH | WILL | SUBSCRIBE | UNSUBSCRIBE;
    MaximumPacketSize(u32) = 0x27, four_bytes, CONNECT | CONNACK;
    WildcardSubscriptionAvailable(u8) = 0x28, byte, CONNACK;
    SubscriptionIdentifierAvailable(u8) = 0x29, byte, CONNACK;
    SharedSubscriptionAvailable(u8) = 0x2A, byte, CONNACK;
}

impl<'a> Property<'a> {
    /// The rules that concern one value alone.
    #[inline]
    fn check(self) -> Result<(), DecodeError> {
        match self {
            Property::PayloadFormatIndicator(value)
            | Property::RequestProblemInformation(value)
            | Property::RequestResponseInformation(value)
            | Property::MaximumQoS(value)
            | Property::RetainAvailable(value)
            | Property::WildcardSubscriptionAvailable(value)
            | Property::SubscriptionIdentifierAvailable(value)
            | Property::SharedSubscriptionAvailable(value)
                if value > 1 =>
            {
                Err(DecodeError::protocol("property must be 0 or 1"))
            }
            Property::SubscriptionIdentifier(0) => Err(DecodeError::protocol("subscription identifier 0")),
            Property::ReceiveMaximum(0) => Err(DecodeError::protocol("receive maximum 0")),
            Property::MaximumPacketSize(0) => Err(DecodeError::protocol("maximum packet size 0")),
            // [MQTT-3.3.2-8]
            Property::TopicAlias(0) => Err(DecodeError::new(ReasonCode::TopicAliasInvalid, "topic alias 0")),
            // [MQTT-3.3.2-14]; empty is no topic name [MQTT-4.7.3-1].
            Property::ResponseTopic(topic) if topic.is_empty() || topic.contains(['+', '#']) => {
                Err(DecodeError::protocol("response topic is not a topic name"))
            }
            _ => Ok(()),
        }
    }
}

/// Where properties stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the variable header of that packet.
    Packet(PacketType),
    /// In the payload of a CONNECT, before the will topic.
    Will,
}

impl Place {
    fn bit(self) -> u16 {
        match self {
            Place::Packet(packet) => 1 << packet as u16,
            Place::Will => WILL,
        }
    }
}

/// Whether the standard lets the property with that identifier stand there.
pub fn allowed_at(identifier: u8, place: Place) -> bool {
    Property::places(identifier) & place.bit() != 0
}

/// Reads a property length and the properties, shows each to `see`, and returns them all.
///
/// An identifier that is unknown, or not valid for its packet, is malformed (section 2.2.2.2 of the standard says
/// 0x81 for both); one that stands twice where it may stand once is a protocol error.
#[inline]
pub(super) fn validate<'a>(
    reader: &mut Reader<'a>,
    place: Place,
    mut see: impl FnMut(Property<'a>),
) -> Result<Properties<'a>, DecodeError> {
    let len = reader.variable()?;
    let raw = reader.take(len as usize)?;
    let mut run = Reader::new(raw);
    let mut seen: u64 = 0;
    while !run.is_empty() {
        let property = read_valid(&mut run, place.bit(), &mut seen)?;
        see(property);
    }
    Ok(Properties { raw, hop: seen & HOP != 0 })
}

#[inline]
fn read_valid<'a>(run: &mut Reader<'a>, place: u16, seen: &mut u64) -> Result<Property<'a>, DecodeError> {
    // All identifiers are below 128, so the variable byte integer is one byte; a longer form would not be shortest,
    // a larger number is unknown: either way malformed.
    let identifier = run.byte()?;
    if Property::places(identifier) & place == 0 {
        return Err(DecodeError::malformed("property not allowed here"));
    }
    let bit = 1 << identifier;
    let repeatable = identifier == 0x26 || (identifier == 0x0B && place == PUBLISH);
    if *seen & bit != 0 && !repeatable {
        return Err(DecodeError::protocol("property given twice"));
    }
    *seen |= bit;
    let property = Property::read(identifier, run)?;
    property.check()?;
    Ok(property)
}

/// A validated run of properties, without the length in front, borrowed from a packet.
///
/// `hop` remembers whether the run holds properties that belong to one hop only (message expiry 0x02, subscription
/// identifier 0x0B, will delay 0x18, topic alias 0x23); if not, the run is forwarded as one slice.
///
/// Two runs are equal if they forward the same properties; order counts only among those of one identifier.
#[derive(Clone, Copy, Debug, Default)]
pub struct Properties<'a> {
    raw: &'a [u8],
    hop: bool,
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties { raw: &[], hop: false };

    /// Trusts that `raw` is what [`Properties::forwarded`] of a decoded packet yielded; used for what was stored.
    pub fn from_stored(raw: &'a [u8]) -> Properties<'a> {
        Properties { raw, hop: false }
    }

    /// Whether there are none at all.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Every property, in order, those of one hop included.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + Clone + use<'a> {
        let mut run = Reader::new(self.raw);
        std::iter::from_fn(move || next(&mut run))
    }

    /// The user properties, in order `[MQTT-3.3.2-18]`.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::UserProperty(pair) => Some(pair),
            _ => None,
        })
    }

    /// The bytes that pass through to the next hop, in order, in as few slices as possible; none is empty.
    #[inline]
    pub fn forwarded(&self) -> Forwarded<'a> {
        Forwarded { rest: self.raw, hop: self.hop }
    }

    /// How many bytes [`Properties::forwarded`] yields in all.
    #[inline]
    pub fn forwarded_len(&self) -> usize {
        if self.hop { self.forwarded().map(<[u8]>::len).sum() } else { self.raw.len() }
    }
}

impl PartialEq for Properties<'_> {
    fn eq(&self, other: &Properties<'_>) -> bool {
        let passing = |identifier: &&u8| HOP & 1 << **identifier == 0;
        Property::IDENTIFIERS.iter().filter(passing).all(|&identifier| {
            let mine = self.iter().filter(|property| property.identifier() == identifier);
            mine.eq(other.iter().filter(|property| property.identifier() == identifier))
        })
    }
}

/// See [`Properties::forwarded`].
#[derive(Clone, Debug)]
pub struct Forwarded<'a> {
    rest: &'a [u8],
    hop: bool,
}

impl<'a> Iterator for Forwarded<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if !self.hop {
            let all = std::mem::take(&mut self.rest);
            return (!all.is_empty()).then_some(all);
        }
        next_slice(&mut self.rest)
    }
}

/// Skips what belongs to one hop, then takes everything up to the next of those.
fn next_slice<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let belongs_to_hop = |bytes: &[u8]| HOP & 1_u64.checked_shl(bytes[0].into()).unwrap_or(0) != 0;
    let mut run = Reader::new(rest);
    while !run.is_empty() && belongs_to_hop(run.rest) {
        next(&mut run)?;
    }
    let start = run.rest;
    while !run.is_empty() && !belongs_to_hop(run.rest) && next(&mut run).is_some() {}
    *rest = run.rest;
    let taken = start.len() - run.rest.len();
    (taken > 0).then(|| &start[..taken])
}

/// The next of a validated run. Ends, rather than panics, at bytes that were not validated after all.
fn next<'a>(run: &mut Reader<'a>) -> Option<Property<'a>> {
    let mut ahead = *run;
    let identifier = ahead.byte().ok()?;
    let property = Property::read(identifier, &mut ahead).ok()?;
    *run = ahead;
    Some(property)
}

#[cfg(test)]
mod tests;
