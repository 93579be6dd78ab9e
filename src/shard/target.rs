//! Who a completion is for: what the token says that goes with an operation of the reactor and comes back with what became of it.
//!
//! Called by everything in the shard that submits something, and by the loop.

use crate::ids::ConnectionId;
use crate::limits::CONNECTIONS_PER_SHARD_MAX;
use crate::reactor::{TOKEN_RESERVED, Token};

/// Who a completion is for: what the token of an operation says.
///
/// Bits 63..56 say what, 55..32 the slot, 31..0 the generation or the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// A connection.
    Connection(ConnectionId),
    /// The journal's write or sync.
    Journal,
    /// A listening socket, by index.
    Listener(u32),
    /// A socket that was refused at once: nobody waits.
    Refused,
}

const CONNECTION: u64 = 1;
const JOURNAL: u64 = 2;
const LISTENER: u64 = 3;
const REFUSED: u64 = 4;
const SLOT_BITS: u32 = 24;

const _: () = assert!(CONNECTIONS_PER_SHARD_MAX <= 1 << SLOT_BITS);
const _: () = assert!(((REFUSED << 56) | ((1 << 56) - 1)) < TOKEN_RESERVED.0);

impl Target {
    /// The token that says so.
    pub fn token(self) -> Token {
        Token(match self {
            Target::Connection(id) => CONNECTION << 56 | u64::from(id.slot) << 32 | u64::from(id.generation),
            Target::Journal => JOURNAL << 56,
            Target::Listener(index) => LISTENER << 56 | u64::from(index),
            Target::Refused => REFUSED << 56,
        })
    }

    /// What the token says. Panics on a token that no `Target` makes: the reactor returns ours unchanged.
    pub fn of(token: Token) -> Target {
        match token.0 >> 56 {
            CONNECTION => Target::Connection(ConnectionId {
                slot: (token.0 >> 32) as u32 & ((1 << SLOT_BITS) - 1),
                generation: token.0 as u32,
            }),
            JOURNAL => Target::Journal,
            LISTENER => Target::Listener(token.0 as u32),
            REFUSED => Target::Refused,
            _ => panic!("a token that this shard never made: {token:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_survives_its_token() {
        for target in [
            Target::Connection(ConnectionId { slot: (1 << SLOT_BITS) - 1, generation: u32::MAX }),
            Target::Connection(ConnectionId { slot: 0, generation: 0 }),
            Target::Journal,
            Target::Listener(3),
            Target::Refused,
        ] {
            assert_eq!(Target::of(target.token()), target);
        }
    }
}
