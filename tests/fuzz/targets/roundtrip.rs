//! A packet built from the standard, and damage done to it: the version, then choices.
#![no_main]

#[path = "../../packets/mod.rs"]
mod packets;

use ironpost::wire::{Version, decode};
use libfuzzer_sys::fuzz_target;
use packets::{Choices, check, damaged, valid};

fuzz_target!(|input: &[u8]| {
    let Some((&version, choices)) = input.split_first() else { return };
    let version = [Version::V31, Version::V311, Version::V5][usize::from(version) % 3];
    let mut choices = Choices::new(choices);
    let frame = valid(&mut choices, version, true);
    assert!(decode::packet(&frame, Some(version)).is_ok(), "valid");
    check::frame(&frame, version);
    check::frame(&damaged(&mut choices, &frame), version);
});
