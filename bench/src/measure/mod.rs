//! What is read from the clocks, from `/proc`, from the disk and from the broker itself, and the arithmetic on it.

pub mod awake;
pub mod clock;
pub mod disk;
pub mod latency;
pub mod meter;
pub mod network;
pub mod numa;
pub mod process;
pub mod slope;
pub mod system;
