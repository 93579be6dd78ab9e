//! Bytes to packets and back: MQTT 3.1, 3.1.1 and 5.0.
//!
//! Decoding borrows from the receive buffer, never allocates and never panics, whatever the bytes. A packet that
//! decodes is *valid*: every string is well-formed MQTT UTF-8, every property is allowed on that packet and appears
//! no more often than it may, every reserved bit is right. What depends on the connection's history (a second
//! CONNECT, an unknown alias, a quota) is the broker's to judge, not decided here.
//!
//! - `frame`: where one packet ends in a stream that arrives in pieces
//! - `packet`: the types
//! - `decode`, `encode`: the two directions
//! - `property`: the identifiers, their types, and on which packet each may stand
//! - `reason`: the reason codes, and on which packet each may stand
//! - `topic`: what a topic name and a filter may look like
#![forbid(unsafe_code)]

pub mod packet;
pub mod property;
pub mod reason;

pub use packet::{
    Ack, AckKind, Auth, Connack, Connect, Disconnect, Packet, PacketId, Publish, QoS, RetainHandling, Suback,
    Subscribe, SubscribeOptions, Unsuback, Unsubscribe, Version, Will,
};
pub use property::Properties;
pub use reason::ReasonCode;
