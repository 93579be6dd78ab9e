//! Acts on what the broker decides: sockets, mesh, journal, in one loop per pinned thread.

/// Placeholder
pub fn serve(_config: &crate::config::Config) -> Result<(), std::io::Error> {
    Ok(())
}
