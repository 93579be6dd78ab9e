//! The reason codes of MQTT 5, on which packet each may stand (table 2-6 of the standard), and their translation to
//! the return codes of 3.1.1.

use super::error::DecodeError;
use super::packet::PacketType;

const CONNACK: u16 = 1 << PacketType::Connack as u16;
const PUBACK: u16 = 1 << PacketType::Puback as u16;
const PUBREC: u16 = 1 << PacketType::Pubrec as u16;
const PUBREL: u16 = 1 << PacketType::Pubrel as u16;
const PUBCOMP: u16 = 1 << PacketType::Pubcomp as u16;
const ACKS: u16 = PUBACK | PUBREC | PUBREL | PUBCOMP;
const SUBACK: u16 = 1 << PacketType::Suback as u16;
const UNSUBACK: u16 = 1 << PacketType::Unsuback as u16;
const DISCONNECT: u16 = 1 << PacketType::Disconnect as u16;
const AUTH: u16 = 1 << PacketType::Auth as u16;

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal, $packets:expr;)*) => {
        /// A reason code: below 0x80 success, from 0x80 on failure.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum ReasonCode { $($(#[$doc])* #[doc = $text] $name = $value,)* }

        impl ReasonCode {
            /// Every code, ascending.
            pub const ALL: &'static [ReasonCode] = &[$(ReasonCode::$name),*];

            /// The code with that value.
            pub fn from_u8(value: u8) -> Option<ReasonCode> {
                match value { $($value => Some(ReasonCode::$name),)* _ => None }
            }

            /// The name the standard gives it.
            pub fn name(self) -> &'static str {
                match self { $(ReasonCode::$name => $text,)* }
            }

            /// Set of packet types on which the code may stand: bit n for type n.
            const fn packets(self) -> u16 {
                match self { $(ReasonCode::$name => $packets,)* }
            }
        }
    };
}

reason_codes! {
    /// Also normal disconnection and granted QoS 0.
    Success = 0x00, "Success", CONNACK | ACKS | SUBACK | UNSUBACK | DISCONNECT | AUTH;
    GrantedQoS1 = 0x01, "Granted QoS 1", SUBACK;
    GrantedQoS2 = 0x02, "Granted QoS 2", SUBACK;
    DisconnectWithWill = 0x04, "Disconnect with Will Message", DISCONNECT;
    NoMatchingSubscribers = 0x10, "No matching subscribers", PUBACK | PUBREC;
    NoSubscriptionExisted = 0x11, "No subscription existed", UNSUBACK;
    ContinueAuthentication = 0x18, "Continue authentication", AUTH;
    ReAuthenticate = 0x19, "Re-authenticate", AUTH;
    UnspecifiedError = 0x80, "Unspecified error", CONNACK | PUBACK | PUBREC | SUBACK | UNSUBACK | DISCONNECT;
    MalformedPacket = 0x81, "Malformed Packet", CONNACK | DISCONNECT;
    ProtocolError = 0x82, "Protocol Error", CONNACK | DISCONNECT;
    ImplementationSpecificError = 0x83, "Implementation specific error", CONNACK | PUBACK | PUBREC | SUBACK | UNSUBACK | DISCONNECT;
    UnsupportedProtocolVersion = 0x84, "Unsupported Protocol Version", CONNACK;
    ClientIdentifierNotValid = 0x85, "Client Identifier not valid", CONNACK;
    BadUserNameOrPassword = 0x86, "Bad User Name or Password", CONNACK;
    NotAuthorized = 0x87, "Not authorized", CONNACK | PUBACK | PUBREC | SUBACK | UNSUBACK | DISCONNECT;
    ServerUnavailable = 0x88, "Server unavailable", CONNACK;
    ServerBusy = 0x89, "Server busy", CONNACK | DISCONNECT;
    Banned = 0x8A, "Banned", CONNACK;
    ServerShuttingDown = 0x8B, "Server shutting down", DISCONNECT;
    BadAuthenticationMethod = 0x8C, "Bad authentication method", CONNACK | DISCONNECT;
    KeepAliveTimeout = 0x8D, "Keep Alive timeout", DISCONNECT;
    SessionTakenOver = 0x8E, "Session taken over", DISCONNECT;
    TopicFilterInvalid = 0x8F, "Topic Filter invalid", SUBACK | UNSUBACK | DISCONNECT;
    TopicNameInvalid = 0x90, "Topic Name invalid", CONNACK | PUBACK | PUBREC | DISCONNECT;
    PacketIdentifierInUse = 0x91, "Packet Identifier in use", PUBACK | PUBREC | SUBACK | UNSUBACK;
    PacketIdentifierNotFound = 0x92, "Packet Identifier not found", PUBREL | PUBCOMP;
    ReceiveMaximumExceeded = 0x93, "Receive Maximum exceeded", DISCONNECT;
    TopicAliasInvalid = 0x94, "Topic Alias invalid", DISCONNECT;
    PacketTooLarge = 0x95, "Packet too large", CONNACK | DISCONNECT;
    MessageRateTooHigh = 0x96, "Message rate too high", DISCONNECT;
    QuotaExceeded = 0x97, "Quota exceeded", CONNACK | PUBACK | PUBREC | SUBACK | DISCONNECT;
    AdministrativeAction = 0x98, "Administrative action", DISCONNECT;
    PayloadFormatInvalid = 0x99, "Payload format invalid", CONNACK | PUBACK | PUBREC | DISCONNECT;
    RetainNotSupported = 0x9A, "Retain not supported", CONNACK | DISCONNECT;
    QoSNotSupported = 0x9B, "QoS not supported", CONNACK | DISCONNECT;
    UseAnotherServer = 0x9C, "Use another server", CONNACK | DISCONNECT;
    ServerMoved = 0x9D, "Server moved", CONNACK | DISCONNECT;
    SharedSubscriptionsNotSupported = 0x9E, "Shared Subscriptions not supported", SUBACK | DISCONNECT;
    ConnectionRateExceeded = 0x9F, "Connection rate exceeded", CONNACK | DISCONNECT;
    MaximumConnectTime = 0xA0, "Maximum connect time", DISCONNECT;
    SubscriptionIdentifiersNotSupported = 0xA1, "Subscription Identifiers not supported", SUBACK | DISCONNECT;
    WildcardSubscriptionsNotSupported = 0xA2, "Wildcard Subscriptions not supported", SUBACK | DISCONNECT;
}

impl ReasonCode {
    /// Whether the code reports a failure.
    pub fn is_failure(self) -> bool {
        self as u8 >= 0x80
    }

    /// Whether the standard lets the code stand on that packet.
    pub fn allowed_on(self, packet: PacketType) -> bool {
        self.packets() & (1 << packet as u16) != 0
    }

    /// The code as it stands on a packet of that type. A value that no packet has is malformed; one that belongs to
    /// other packets is a protocol error.
    pub(super) fn decode(value: u8, packet: PacketType) -> Result<ReasonCode, DecodeError> {
        match ReasonCode::from_u8(value) {
            Some(code) if code.allowed_on(packet) => Ok(code),
            Some(_) => Err(DecodeError::protocol("reason code not allowed on this packet")),
            None => Err(DecodeError::malformed("unknown reason code")),
        }
    }

    /// The CONNACK return code of 3.1.1 that says it best. What 3.1.1 cannot say is 3, server unavailable: the
    /// client may try again later.
    pub fn connack_code_v3(self) -> u8 {
        match self {
            ReasonCode::Success => 0,
            ReasonCode::UnsupportedProtocolVersion => 1,
            ReasonCode::ClientIdentifierNotValid => 2,
            ReasonCode::BadUserNameOrPassword | ReasonCode::BadAuthenticationMethod => 4,
            ReasonCode::NotAuthorized | ReasonCode::Banned => 5,
            _ => 3,
        }
    }

    /// The reason a 3.1.1 return code stands for; `None` for a reserved one.
    pub fn from_connack_code_v3(code: u8) -> Option<ReasonCode> {
        match code {
            0 => Some(ReasonCode::Success),
            1 => Some(ReasonCode::UnsupportedProtocolVersion),
            2 => Some(ReasonCode::ClientIdentifierNotValid),
            3 => Some(ReasonCode::ServerUnavailable),
            4 => Some(ReasonCode::BadUserNameOrPassword),
            5 => Some(ReasonCode::NotAuthorized),
            _ => None,
        }
    }

    /// The SUBACK return code of 3.1.1: the granted QoS, or 0x80 for every failure.
    pub fn suback_code_v3(self) -> u8 {
        if self.is_failure() { 0x80 } else { self as u8 }
    }
}

impl std::fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (0x{:02X})", self.name(), *self as u8)
    }
}

/// The reasons of a SUBACK or UNSUBACK, one per filter: given as codes, or as decoded bytes.
#[derive(Clone, Copy)]
pub struct Reasons<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    Codes(&'a [ReasonCode]),
    /// Every byte was found to be a reason code when the packet was decoded.
    Wire(&'a [u8]),
}

impl<'a> Reasons<'a> {
    /// No reasons: an UNSUBACK of 3.1.1 has none.
    pub const NONE: Reasons<'static> = Reasons(Source::Codes(&[]));

    /// Of validated bytes.
    pub(super) fn from_wire(bytes: &'a [u8]) -> Reasons<'a> {
        Reasons(Source::Wire(bytes))
    }

    /// How many.
    pub fn len(&self) -> usize {
        match self.0 {
            Source::Codes(codes) => codes.len(),
            Source::Wire(bytes) => bytes.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In the order of the filters.
    pub fn iter(&self) -> impl Iterator<Item = ReasonCode> + Clone + use<'a> {
        let (codes, bytes): (&[ReasonCode], &[u8]) = match self.0 {
            Source::Codes(codes) => (codes, &[]),
            Source::Wire(bytes) => (&[], bytes),
        };
        codes.iter().copied().chain(bytes.iter().filter_map(|&byte| ReasonCode::from_u8(byte)))
    }
}

impl<'a> From<&'a [ReasonCode]> for Reasons<'a> {
    fn from(codes: &'a [ReasonCode]) -> Reasons<'a> {
        Reasons(Source::Codes(codes))
    }
}

impl<'a, const N: usize> From<&'a [ReasonCode; N]> for Reasons<'a> {
    fn from(codes: &'a [ReasonCode; N]) -> Reasons<'a> {
        Reasons(Source::Codes(codes))
    }
}

impl PartialEq for Reasons<'_> {
    fn eq(&self, other: &Reasons<'_>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl std::fmt::Debug for Reasons<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
