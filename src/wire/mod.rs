//! Bytes to packets and back: MQTT 3.1, 3.1.1 and 5.0.
//!
//! Decoding borrows from the receive buffer, never allocates and never panics, whatever the bytes. A packet that
//! decodes is *valid*: every string is well-formed MQTT UTF-8, every property is allowed on that packet and appears
//! no more often than it may, every reserved bit is right. What depends on the connection's history (a second
//! CONNECT, an unknown alias, a quota) or on its direction (a CONNACK from a client) is the broker's to judge, not
//! decided here; so is an invalid topic filter, which a SUBACK can refuse.
//!
//! - `frame`: where one packet ends in a stream that arrives in pieces
//! - `packet`: the types
//! - `decode`, `encode`: the two directions
//! - `property`: the identifiers, their types, and on which packet each may stand
//! - `reason`: the reason codes, and on which packet each may stand
//! - `error`: why bytes are not a packet
//! - `topic`: what a topic name and a filter may look like
//! - `bytes`: integers, strings and binary data
#![forbid(unsafe_code)]

mod bytes;
pub mod decode;
pub mod encode;
pub mod error;
pub mod frame;
pub mod packet;
pub mod property;
pub mod reason;
pub mod topic;

pub use bytes::VARIABLE_MAX;
pub use error::DecodeError;
pub use packet::{
    Ack, AckKind, Auth, Connack, Connect, Disconnect, Packet, PacketId, PacketType, Publish, QoS,
    RetainHandling, Suback, Subscribe, SubscribeOptions, Unsuback, Unsubscribe, Version, Will,
};
pub use property::{Properties, Property};
pub use reason::{ReasonCode, Reasons};
