//! A small blocking MQTT client for trying things out: one connection, one purpose, then gone.
//!
//! Decides how a client keeps its side of each QoS; speaks through `wire`, like the broker, and reports every way of
//! failing in words. It does not reconnect and keeps nothing on disk. Called by `command::publish` and
//! `command::subscribe`.

mod connection;
mod error;
mod publisher;
mod subscriber;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Options};
pub use error::ClientError;
pub use publisher::{Message, publish};
pub use subscriber::{Subscription, subscribe};
