//! Which kernel reactor the shards of this process run on. Called by `serve`.

use std::io;

use crate::config::ReactorChoice;
use crate::reactor::{Epoll, Reactor, Settings};

/// A kernel reactor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// epoll
    Epoll,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("epoll")
    }
}

/// x
pub struct Probe {
    /// y
    pub backend: Backend,
    /// y
    pub reason: String,
}

pub(super) fn choose(_choice: ReactorChoice) -> Probe {
    Probe { backend: Backend::Epoll, reason: "temp".into() }
}

pub(super) fn open(_backend: Backend) -> io::Result<Box<dyn Reactor + Send>> {
    Ok(Box::new(Epoll::new(Settings::default())?))
}
