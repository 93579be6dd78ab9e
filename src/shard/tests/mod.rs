//! A shard, driven by raw bytes in a simulated world: one file per question.
//!
//! The broker, the journal and the reactor under it are the real ones; what is simulated is the kernel. So these
//! tests say what a peer of the shard sees, byte by byte and on the virtual clock, and nothing of how it comes about.

mod backup;
mod bytes;
mod entrance;
mod fairness;
mod framing;
mod handshake;
mod large;
mod moving;
mod output;
mod parking;
mod pressure;
mod rates;
mod rig;
mod stopping;
mod time;
mod wrapped;
