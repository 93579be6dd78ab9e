//! What a test needs to talk to the program from outside: the process, the bytes, and a client that sends them. Shared
//! with `tests/overload`.

pub mod broker;
pub mod bytes;
pub mod client;
