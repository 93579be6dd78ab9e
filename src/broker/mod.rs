//! The deterministic heart: decides, and does nothing else.
#![forbid(unsafe_code)]

pub mod effect;
pub mod input;
pub mod retained;
pub mod route;
pub mod settings;
pub mod subscriptions;
