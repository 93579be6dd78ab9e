//! Acts on what the broker decides: sockets, mesh, journal, in one loop per pinned thread.

mod backend;
pub mod connection;
mod handshake;
mod inbound;
pub mod mesh;
pub mod outbound;
pub mod pin;
mod serve;
pub mod shard;
pub mod signal;

pub use serve::{ServeError, serve};
