//! Ironpost: a store-and-forward message broker.
//!
//! ```text
//!    socket bytes                                                             socket bytes
//!         |                                                                        ^
//!         v                                                                        |
//!    reactor/  --completion-->  shard/inbound  --Input-->  broker/  --Effect-->  shard/outbound
//!    uring | epoll | sim         (uses wire/)              decides                 |    |    |
//!         ^                                                 only                   |    |    +--> reactor/ (send, close)
//!         |                                                                        |    +-------> shard/mesh (other shards)
//!         +----------------- completion of sync = Input::Durable ------------------+------------> journal/ (append, sync)
//! ```
//!
//! Only `broker/` decides, only `shard/` acts, only `reactor/` and the journal's storage touch the kernel. The
//! modules follow the data.

pub mod allocator;
pub mod content;
mod hash;
pub mod ids;
pub mod json;
pub mod limits;
pub mod live;
pub mod placement;
pub mod rates;
pub mod reactor;
pub mod record;
pub mod time;
pub mod transport;
pub mod wire;
pub mod workers;

pub mod access;
pub mod backup;
pub mod broker;
pub mod journal;
pub mod shard;

pub mod config;
pub mod log;

pub mod client;
pub mod command;
pub mod reshard;
pub mod salvage;
