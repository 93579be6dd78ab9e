//! What is done to a broker: each scenario is one file (or a folder), with its settings, its load and its books.
//!
//! A scenario opens its sessions, runs its load between two readings of the clocks and says what it saw as an `Outcome`.
//! It fails its own run when a message was lost, repeated, misrouted or came out of order: a broker cannot look fast by
//! being wrong. `compare` and `main` call `run`.

pub mod connections;
pub mod day;
pub mod durable_ack;
pub mod fan_in;
pub mod fan_out;
pub mod flow;
pub mod hold;
pub mod login_storm;
pub mod million;
pub mod noisy_neighbour;
pub mod pairs;
pub mod restart;
pub mod slow_consumer;
pub mod store_drain;
pub mod sustained;
pub mod token_logins;
