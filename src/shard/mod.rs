//! Acts on what the broker decides: sockets, mesh, journal, in one loop per pinned thread.
//!
//! ```text
//!  turn:  wait            reactor.turn(deadline): perform what was submitted, sleep, collect completions
//!         parse_unparsed  packets that a connection had left when its last turn was over -> Input
//!         complete        bytes -> packets -> Input; accepted, sent, closed; Durable, or the journal's failure
//!         receive_from_few  bytes of ready connections -> packets -> Input, where few are ready
//!         receive_mesh    what other shards sent -> Input
//!         on_time         handshakes too old, peers that do not read, segments to release
//!         watch_backup    answers to whoever copies the journal
//!         handle_parked   packets of connections that may go on -> Input
//!         advance         the broker does its plural work, within a budget
//!         fetch           bodies read back from the journal -> Input
//!         submit_receives one Recv per ready connection, where many are
//!         flush           sends to connections with output: now to few, one Send each to many; then everything else
//!         flush_mesh      one batch per shard with messages, a ring of the doorbell for sleepers
//!         commit          the next write or sync of the journal, if none is under way and something was asked of it
//!         step            starting -> serving -> draining -> drained -> stopping -> stopped
//! ```
//!
//! - `shard`: that loop
//! - `connection`, `target`: the table of connections; which of them a completion is for
//! - `handshake`: from accept to CONNECT; which shard a connection belongs to
//! - `entrance`: who it is that connects, and whether it may
//! - `prove_again`: a client that is connected proves once more who it is
//! - `inbound`, `large`: bytes to inputs; those of a large PUBLISH
//! - `outbound`: effects to bytes
//! - `journal`, `fetched`: what a turn does for the journal; bodies between it and the broker
//! - `mesh`, `signal`: batches between shards, and when to ring for them
//! - `backup`: what a shard keeps, and says, for somebody who copies its journal
//! - `socket`: who asks it to
//! - `throttle`, `pressure`: rate limits at work; what weighs on a shard
//! - `wrapped`: connections whose bytes go through a transport
//! - `serve`, `watch`, `listeners`, `memory`, `pin`: the process around the shards: threads, what is said between them, sockets and
//!   what those who connect there get, how much memory is left, signals
//!
//! Nothing is shared between shards but the rings of the mesh. Nothing in a turn waits but the reactor, and nothing
//! waits there while there is something to do.

pub mod backup;
pub mod connection;
pub mod entrance;
mod fetched;
mod handshake;
mod inbound;
mod journal;
mod large;
mod listeners;
mod memory;
pub mod mesh;
pub mod outbound;
pub mod pin;
mod pressure;
mod prove_again;
mod serve;
#[expect(clippy::module_inception, reason = "the shard itself, among its parts")]
pub mod shard;
pub mod signal;
mod socket;
mod target;
mod throttle;
mod watch;
pub mod wrapped;

pub use serve::{ServeError, check, serve, settle};
pub(crate) use serve::{once_unlocked, random};
pub use shard::{Fatal, Parts, Recovered, Shard, State};

#[cfg(test)]
mod tests;
