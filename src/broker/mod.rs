//! The deterministic heart: decides, and does nothing else.
#![forbid(unsafe_code)]

pub mod effect;
pub mod input;
pub mod route;
pub mod settings;
pub mod subscriptions;
