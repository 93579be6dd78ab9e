//! Hash tables by numbers that nobody outside chooses: no secret is needed, so hashing is a multiplication.
//!
//! For descriptors, which the kernel hands out, and for numbers of our own. What a client or a disk could choose takes a keyed
//! hash instead.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

/// A table by such numbers. Its order means nothing: it is never iterated.
pub type ByNumber<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Spreads a number over the hash's high and low bits, which is what the table looks at.
#[derive(Clone, Copy, Default)]
pub struct NumberHasher(u64);

/// 2^64 divided by the golden ratio: consecutive numbers are spread evenly (Knuth, volume 3, 6.4).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_i32(&mut self, value: i32) {
        self.write_u64(u64::from(value.cast_unsigned()));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(GOLDEN).rotate_left(32);
    }
}
