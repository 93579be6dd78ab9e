//! Who may connect, and what they may do.
//!
//! ```text
//!  CONNECT ---> guard, one per listener: which proof is asked for ---> at once, or on a thread of its own
//!                 |                                                       |
//!                 |  passwords, tokens, scram, certificate, hook: each one kind of proof
//!                 v
//!              passport: account, groups, grants, how long ---> the connection's home ---> permissions: what it may
//!                                                                                             rules, grants
//! ```
//!
//! Decides about people and topics, and does no I/O but reading the files that the configuration names, when the broker starts and
//! when it is told to read them again, and asking the site's own service ([`hook`]), on threads for that. Called by `shard`, which has
//! the connections, and by `broker`, which asks before it takes something.
//!
//! Invariants: what is not proven is refused; what cannot be asked is refused; a secret is in no text that this module makes.

pub mod answers;
pub mod back_off;
pub mod certificate;
pub mod guard;
pub mod hook;
pub mod keeper;
pub mod passport;
pub mod passwords;
pub mod permissions;
pub mod rules;
pub mod scram;
pub mod tokens;
