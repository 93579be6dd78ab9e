//! The load generator's own MQTT client: a codec, one connection, and a fleet of them on one thread.
//!
//! Nothing here is shared with a broker under test, so that every broker is driven by the same foreign code. Scenarios
//! call [`fleet::Fleet`]; the floor relay reuses [`codec`] and [`link`].

pub mod codec;
pub mod credentials;
pub mod dial;
pub mod fleet;
pub mod link;
pub mod publisher;
pub mod refusal;
pub mod tls;
pub mod token;
