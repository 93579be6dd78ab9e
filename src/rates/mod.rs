//! How often something may be done, and how much: rate limits.
//!
//! Decides what is within them. A limit is a [`Rate`] for one [`What`] in one [`Scope`]; whoever does something pays for it in
//! every scope that has one, from the narrowest to the widest, so that what a client is refused never takes from what others
//! have. What becomes of excess, the shard decides: whoever publishes waits, whoever connects or subscribes is told.
//!
//! | file | has |
//! |---|---|
//! | `rate` | a rate, as an operator writes it |
//! | `bucket`, `buckets` | how much of one is used up: 8 bytes, and tables of them |
//! | `shared` | those that all shards draw from: of addresses, of listeners, of all together |
//! | `meter` | one shard's end: the buckets of its clients and accounts, and what was in excess |
//! | `marks` | how far the buckets that outlive a restart are written down |
//!
//! Only buckets that are not full are remembered, so that what is at rest costs nothing.
//!
//! # What outlives a restart
//!
//! What clients and accounts have used up of a burst that takes [`RATE_KEPT_MS`](crate::limits::RATE_KEPT_MS) or longer to come: whoever
//! had its ten messages of the day has had them. Their shard's journal has it, by their names. A shorter burst has come again, or
//! nearly, when a restart is over. What all of an address, of a listener, and all together have used up is not kept: shards draw
//! from it together, and no journal is theirs. Each restart gives them one burst, at most.
#![forbid(unsafe_code)]

mod bucket;
mod buckets;
mod marks;
mod meter;
mod rate;
mod shared;

pub use bucket::{Bucket, SharedBucket};
pub use buckets::Buckets;
pub use marks::Marks;
pub use meter::{Exceeded, Meter, Passed, Who};
pub use rate::{Rate, RateError};
pub use shared::Shared;

/// What a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// CONNECT packets.
    Connects,
    /// What comes before them: handshakes of TLS and requests of WebSocket.
    Handshakes,
    /// PUBLISH packets.
    Publishes,
    /// Bytes of all packets of those who are connected.
    Bytes,
    /// Topic filters of SUBSCRIBE packets.
    Subscriptions,
}

/// All of them, in the order of the settings.
pub const WHATS: [What; 5] =
    [What::Connects, What::Handshakes, What::Publishes, What::Bytes, What::Subscriptions];

/// Who shares a limit; the narrower is the lesser.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// One client id of one account.
    Client,
    /// All clients of an account.
    Account,
    /// All that connect from one network.
    Address,
    /// All that connect to one listener.
    Listener,
    /// All.
    Global,
}

/// All of them, the narrowest first.
pub const SCOPES: [Scope; 5] =
    [Scope::Client, Scope::Account, Scope::Address, Scope::Listener, Scope::Global];

impl What {
    /// Its name in settings, logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            What::Connects => "connects",
            What::Handshakes => "handshakes",
            What::Publishes => "publishes",
            What::Bytes => "bytes",
            What::Subscriptions => "subscriptions",
        }
    }
}

impl Scope {
    /// Its name in settings and logs.
    pub fn word(self) -> &'static str {
        match self {
            Scope::Client => "client",
            Scope::Account => "account",
            Scope::Address => "address",
            Scope::Listener => "listener",
            Scope::Global => "global",
        }
    }
}

/// The number of a limit in the journal; frozen: what there is of either has the place that it has.
pub fn number_of(scope: Scope, what: What) -> u8 {
    (scope as u8) << 4 | what as u8
}

/// The limit of that number; none if this program has none of it.
pub fn limit_of(number: u8) -> Option<(Scope, What)> {
    let scope = SCOPES.get(usize::from(number >> 4))?;
    Some((*scope, *WHATS.get(usize::from(number & 0xF))?))
}

/// One limit for each [`What`], or none.
pub type Limits = [Option<Rate>; WHATS.len()];

/// What happens to a client that publishes, or sends bytes, faster than it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Excess {
    /// Its packets wait until they are within the limit; acknowledgements and pings do not.
    #[default]
    Pause,
    /// It is told (DISCONNECT 0x96), and closed.
    Disconnect,
}

/// Every limit of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rates {
    /// By scope; those of `Scope::Listener` are not here.
    pub by_scope: [Limits; SCOPES.len()],
    /// Of each listener.
    pub by_listener: Vec<Limits>,
    /// Bits of an IPv4 address that make a network.
    pub prefix_v4: u8,
    /// The same of an IPv6 address.
    pub prefix_v6: u8,
    /// What happens to who publishes too fast.
    pub excess: Excess,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates {
            by_scope: [[None; WHATS.len()]; SCOPES.len()],
            by_listener: Vec::new(),
            prefix_v4: 32,
            prefix_v6: 64,
            excess: Excess::Pause,
        }
    }
}

impl Rates {
    /// The limit of that in that scope.
    pub fn of(&self, scope: Scope, what: What, listener: u32) -> Option<Rate> {
        match scope {
            Scope::Listener => self.by_listener.get(listener as usize)?[what as usize],
            _ => self.by_scope[scope as usize][what as usize],
        }
    }

    /// Whether anybody is limited in that.
    pub fn limit(&self, what: What) -> bool {
        self.by_scope.iter().chain(&self.by_listener).any(|limits| limits[what as usize].is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_limit_is_what_it_always_was() {
        let numbers = |scope| WHATS.map(|what| number_of(scope, what));
        assert_eq!(numbers(Scope::Client), [0x00, 0x01, 0x02, 0x03, 0x04]);
        assert_eq!(numbers(Scope::Account), [0x10, 0x11, 0x12, 0x13, 0x14]);
        for number in 0..=u8::MAX {
            let known = limit_of(number);
            assert!(known.is_none_or(|(scope, what)| number_of(scope, what) == number));
            assert_eq!(known.is_some(), number >> 4 < 5 && number & 0xF < 5, "{number:#x}");
        }
    }
}
