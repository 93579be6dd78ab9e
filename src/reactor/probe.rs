//! Which kernel reactor to take, and why: the answer is for the log. Called once at the start, from the command.

use std::fmt;
use std::io;

use super::{Epoll, Reactor, Settings, Uring, uring};

/// What `auto` takes where the kernel has both.
///
/// Measured on this broker (`bench/README.md`, medians of one run each), io_uring costs 11 % less CPU per message than
/// epoll at QoS 0, 24 % less at QoS 1, 25 % less at QoS 2, 13 % less to store and 22 % less to drain; 12 % more for a lone
/// PINGREQ. It needs no second thread for the journal.
pub const AUTO_PREFERS: Backend = Backend::Uring;

/// A kernel reactor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// [`Epoll`].
    Epoll,
    /// [`Uring`].
    Uring,
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Backend::Epoll => "epoll",
            Backend::Uring => "uring",
        })
    }
}

/// What `auto` means on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// The one to take.
    pub backend: Backend,
    /// Why, for the log.
    pub reason: String,
}

/// Look at what the kernel offers.
pub fn probe() -> Probe {
    choose(uring::check())
}

fn choose(uring: Result<(), String>) -> Probe {
    match uring {
        Ok(()) if AUTO_PREFERS == Backend::Uring => {
            Probe { backend: Backend::Uring, reason: "the kernel has io_uring".into() }
        }
        Ok(()) => {
            Probe { backend: Backend::Epoll, reason: "preferred, though the kernel has io_uring".into() }
        }
        Err(missing) => Probe { backend: Backend::Epoll, reason: missing },
    }
}

/// A reactor of that kind for one shard.
pub fn open(backend: Backend, settings: Settings) -> io::Result<Box<dyn Reactor + Send>> {
    Ok(match backend {
        Backend::Epoll => Box::new(Epoll::new(settings)?),
        Backend::Uring => Box::new(Uring::new(settings)?),
    })
}

#[cfg(test)]
mod tests {
    use super::{Backend, choose, probe};

    #[test]
    fn without_io_uring_auto_takes_epoll_and_says_what_is_missing() {
        let probe = choose(Err("the kernel has no io_uring (ENOSYS)".into()));
        assert_eq!(
            (probe.backend, probe.reason.as_str()),
            (Backend::Epoll, "the kernel has no io_uring (ENOSYS)")
        );
    }

    #[test]
    fn what_auto_takes_here_can_be_opened() {
        let probe = probe();
        assert!(!probe.reason.is_empty());
        super::open(probe.backend, crate::reactor::Settings::default()).unwrap();
    }
}
