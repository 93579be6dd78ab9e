//! Acts on what the broker decides: sockets, mesh, journal, in one loop per pinned thread.

pub mod connection;
mod handshake;
mod inbound;
pub mod mesh;
pub mod outbound;
pub mod pin;
pub mod shard;
pub mod signal;

/// Placeholder
pub fn serve(_config: &crate::config::Config) -> Result<(), std::io::Error> {
    Ok(())
}
