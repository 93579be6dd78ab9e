//! The normative statements of MQTT 5.0 and 3.1.1 that bind a server, held against the real program over TCP and WebSocket.
//!
//! Each test starts `ironpost serve` on a directory and a port of its own and speaks bytes to it. Encoder and decoder
//! (`bytes`) are the tests' own: an error of the program's codec cannot cancel itself out. A test cites the
//! statements that it would fail without. Nothing waits for a fixed time: that nothing more comes is shown by an
//! answer that has to come after it, and time limits only bound a failure. Tests about time measure it.
//!
//! `CONFORMANCE_MOSQUITTO=/usr/sbin/mosquitto cargo test --test conformance` runs the same tests against Mosquitto,
//! which tells a mistake in a test from one in the program; it has its own known gaps.
//! `CONFORMANCE_REACTOR=epoll` chooses the reactor, and `CONFORMANCE_SHARDS=4` the number of shards.

mod alias;
mod authentication;
mod connect;
mod connect_3;
mod disconnect;
mod expiry;
mod flow;
mod malformed;
#[path = "peer.rs"]
#[expect(dead_code, reason = "the overload tests use the rest")]
mod peer;
mod properties;
mod quality;
mod redelivery;
mod retained;
mod session;
mod shared;
mod statements_3;
mod subscribe;
mod topics;
mod websocket;
mod will;

use peer::{broker, bytes, client};
