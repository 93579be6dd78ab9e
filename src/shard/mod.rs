//! Acts on what the broker decides: sockets, mesh, journal, in one loop per pinned thread.

pub mod connection;
pub mod mesh;
pub mod pin;
pub mod signal;

/// Runs the shards that `config` asks for until SIGTERM or SIGINT.
pub fn serve(_config: &crate::config::Config) -> Result<(), std::io::Error> {
    Err(std::io::Error::other("this build has no shards"))
}
