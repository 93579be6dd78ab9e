//! What a peer sees when it reaches a limit, what its neighbours notice of that, and that all is well again when there
//! is room: the real program, over TCP.
//!
//! One test per limit of `src/limits.rs` that a peer can reach from outside. What cannot be reached in a test's time
//! (four million connections, a gigabyte of retained messages, seconds of waiting) is tested beside the code that keeps
//! to it, with the bound made small or the clock made virtual; `tests/tidy/limits.rs` checks that each limit has its
//! test in one of the two places. Processes, bytes and clients are those of `tests/conformance`.

mod clock;
mod connections;
mod disk;
mod memory;
mod neighbours;
mod packets;
#[path = "../conformance/peer.rs"]
#[expect(dead_code, reason = "the conformance tests use the rest")]
mod peer;
mod publishers;
mod queues;
mod readers;
mod restart;
mod steps;
mod subscriptions;

use peer::{broker, bytes, client};
