//! One frame of version 5.
#![no_main]

#[path = "../../packets/mod.rs"]
mod packets;

use ironpost::wire::Version;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| packets::check::frame(frame, Version::V5));
