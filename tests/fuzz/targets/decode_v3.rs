//! One frame of version 3.1 and of 3.1.1.
#![no_main]

#[path = "../../packets/mod.rs"]
mod packets;

use ironpost::wire::Version;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    packets::check::frame(frame, Version::V31);
    packets::check::frame(frame, Version::V311);
});
