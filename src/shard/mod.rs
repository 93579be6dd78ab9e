//! Acts on what the broker decides: sockets, mesh, journal, in one loop per pinned thread.

pub mod connection;
pub mod mesh;
pub mod pin;
pub mod signal;
