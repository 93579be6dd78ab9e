//! What the kernel says about connections that were not taken at once: full listen queues and SYNs sent again.
//!
//! Decides which counters of `/proc/net/netstat` these are. They belong to the whole network namespace: on a machine
//! that runs something else, too, they are an upper bound. Called by scenarios that open many connections at once.

use std::fs;

use anyhow::{Context, Result};

/// Counters since the machine started, or the growth between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// SYNs (and answers to them) sent again: each is a wait of a second at least.
    pub syn_retries: u64,
    /// Connections dropped because the server had not accepted those before.
    pub listen_overflows: u64,
}

impl Handshakes {
    pub fn read() -> Result<Handshakes> {
        let path = "/proc/net/netstat";
        let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
        parse(&text).with_context(|| format!("{path} is not understood"))
    }

    pub fn since(&self, earlier: &Handshakes) -> Handshakes {
        Handshakes {
            syn_retries: self.syn_retries - earlier.syn_retries,
            listen_overflows: self.listen_overflows - earlier.listen_overflows,
        }
    }
}

/// Pairs of lines: names, then values, behind the same word.
fn parse(text: &str) -> Option<Handshakes> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        let position = names.split_whitespace().position(|name| name == wanted)?;
        values.split_whitespace().nth(position)?.parse().ok()
    };
    Some(Handshakes { syn_retries: value("TCPSynRetrans")?, listen_overflows: value("ListenOverflows")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_names() {
        let text = "IpExt: InNoRoutes\nIpExt: 9\nTcpExt: A ListenOverflows TCPSynRetrans\nTcpExt: 1 2 3\n";
        let read = parse(text).unwrap();
        assert_eq!(read, Handshakes { syn_retries: 3, listen_overflows: 2 });
        assert!(parse("TcpExt: A\nTcpExt: 1\n").is_none());
        let later = Handshakes { syn_retries: 5, listen_overflows: 2 };
        assert_eq!(later.since(&read), Handshakes { syn_retries: 2, listen_overflows: 0 });
    }

    #[test]
    fn this_kernel_has_them() {
        Handshakes::read().unwrap();
    }
}
