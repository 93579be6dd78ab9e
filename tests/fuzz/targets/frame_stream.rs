//! A stream in pieces: how many pieces, their sizes, then the stream.
#![no_main]

#[path = "../../packets/mod.rs"]
mod packets;

use libfuzzer_sys::fuzz_target;

const PACKET_BYTES_MAX: u32 = 300;

fuzz_target!(|input: &[u8]| {
    let Some((&count, rest)) = input.split_first() else { return };
    let (sizes, stream) = rest.split_at(usize::from(count).min(rest.len()));
    let pieces = packets::check::cut(stream, sizes, PACKET_BYTES_MAX);
    assert_eq!(pieces, packets::check::cut(stream, &[], PACKET_BYTES_MAX));
});
