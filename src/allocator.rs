//! The allocator: mimalloc, asked without an alignment where that says nothing.
//!
//! Compact at millions of small objects. It is built not to ask for huge pages (`no_thp`): with them each heap grows by
//! 2 MiB at a time and gives nothing back, which at 16,000 idle sessions was 1,545 bytes of the process per session
//! instead of 565 (Linux 6.18, `ironpost-bench connections`), and a page fault may stop a shard to compact memory.
//!
//! Its crate passes on every object's alignment. mimalloc 3 then looks for a free block of that size, and where there is
//! none takes one that is larger by `alignment - 1` bytes; where that crosses into the next class of sizes, no block of
//! the right one ever comes to be, so each such object takes the long way and lies in a larger block.
//!
//! mimalloc gives back what has been free for a second, but looks for it only when it is asked for something that it does
//! not have. A shard that grew and then rests never asks: a table that it outgrew stayed, at 14,000 sessions 2.3 MB of
//! 12.3. So shards look themselves ([`FreeMemory`]), when there was something large to be found.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU32, Ordering};

use mimalloc::MiMalloc;

use crate::limits;

/// Blocks of `LARGE_BLOCK_BYTES_MIN` that were freed, in the process. Only ever compared with itself.
static LARGE_FREED: AtomicU32 = AtomicU32::new(0);

/// What one thread knows of what there is to give back.
#[derive(Debug, Default)]
pub struct FreeMemory {
    seen: u32,
    looks: u8,
}

impl FreeMemory {
    /// Gives back what has been free for long enough; to be called every `SWEEP_MS`. Whether it looked.
    ///
    /// It takes some of these before what was freed is old enough; then there is nothing to look for.
    pub fn give_back(&mut self) -> bool {
        self.look(LARGE_FREED.load(Ordering::Relaxed))
    }

    fn look(&mut self, freed: u32) -> bool {
        if freed != self.seen {
            (self.seen, self.looks) = (freed, limits::LOOKS_FOR_FREE_MEMORY);
        }
        let looks = self.looks > 0;
        if looks {
            self.looks -= 1;
            // SAFETY: it may be called at any time, from any thread; not forced, it leaves alone what others use.
            unsafe { libmimalloc_sys::mi_collect(false) };
        }
        looks
    }
}

#[inline]
fn freed(layout: &Layout) {
    if layout.size() >= limits::LARGE_BLOCK_BYTES_MIN {
        LARGE_FREED.fetch_add(1, Ordering::Relaxed);
    }
}

/// What every block of mimalloc is aligned to that is at least as large: C's `malloc` promises `max_align_t`.
const ALIGNED_ANYWAY: usize = 16;

/// mimalloc, for `#[global_allocator]`.
pub struct Allocator;

impl Allocator {
    /// Whether a plain block has that alignment.
    fn is_plain(layout: &Layout) -> bool {
        layout.align() <= ALIGNED_ANYWAY && layout.align() <= layout.size()
    }
}

// SAFETY: each call goes to mimalloc, with what was asked for; a plain block is aligned as asked (`is_plain`). All of its
// blocks, plain or not, are freed and resized by the same calls.
unsafe impl GlobalAlloc for Allocator {
    // SAFETY: any size may be asked for; null says that there is none, which is passed on.
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if Allocator::is_plain(&layout) {
            // SAFETY: any size may be asked for; null says that there is none.
            return unsafe { libmimalloc_sys::mi_malloc(layout.size()) }.cast();
        }
        // SAFETY: the caller's promise about the layout is the one that this one needs.
        unsafe { MiMalloc.alloc(layout) }
    }

    // SAFETY: as `alloc`.
    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Allocator::is_plain(&layout) {
            // SAFETY: as in `alloc`.
            return unsafe { libmimalloc_sys::mi_zalloc(layout.size()) }.cast();
        }
        // SAFETY: as in `alloc`.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    // SAFETY: only what is from here comes back, and mimalloc knows its blocks without a layout.
    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        freed(&layout);
        // SAFETY: the caller's promise is that the block is from here, so it is mimalloc's.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    // SAFETY: as `dealloc`, then `alloc`.
    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        freed(&layout);
        if layout.align() <= ALIGNED_ANYWAY && layout.align() <= size {
            // SAFETY: the block is mimalloc's, as in `dealloc`; what comes back is a plain block.
            return unsafe { libmimalloc_sys::mi_realloc(block.cast(), size) }.cast();
        }
        // SAFETY: as in `dealloc`.
        unsafe { MiMalloc.realloc(block, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is looked for as often as it takes to be old enough, and again when more was freed.
    #[test]
    fn what_was_freed_is_looked_for_until_it_is_old_enough() {
        let mut memory = FreeMemory::default();
        assert!(!memory.look(0), "nothing was freed");
        for freed in [1, 3] {
            let looks = (0..10).take_while(|_| memory.look(freed)).count();
            assert_eq!(looks, usize::from(limits::LOOKS_FOR_FREE_MEMORY));
            assert!(!memory.look(freed), "once is enough");
        }
    }

    /// Blocks of every small size and alignment, as asked for, zeroed where that was asked, and whole after they grew.
    #[test]
    fn a_block_is_aligned_zeroed_and_keeps_what_it_holds() {
        for align in [1, 2, 4, 8, 16, 32, 64, 4_096] {
            for size in (1..300).chain([1_000, 1_024, 5_000, 70_000]) {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: sizes are not zero, and each block is used within its size and freed once with its layout.
                unsafe {
                    let block = Allocator.alloc(layout);
                    assert!(block.addr().is_multiple_of(align), "{size} bytes at {align}");
                    block.write_bytes(0xA5, size);
                    let larger = Allocator.realloc(block, layout, 2 * size + 1);
                    assert!(larger.addr().is_multiple_of(align), "{size} bytes at {align}, grown");
                    assert!(std::slice::from_raw_parts(larger, size).iter().all(|byte| *byte == 0xA5));
                    let grown = Layout::from_size_align(2 * size + 1, align).unwrap();
                    let smaller = Allocator.realloc(larger, grown, size.div_ceil(3));
                    assert!(smaller.addr().is_multiple_of(align), "{size} bytes at {align}, shrunk");
                    Allocator.dealloc(smaller, Layout::from_size_align(size.div_ceil(3), align).unwrap());
                    let zeroed = Allocator.alloc_zeroed(layout);
                    assert!(zeroed.addr().is_multiple_of(align));
                    assert!(std::slice::from_raw_parts(zeroed, size).iter().all(|byte| *byte == 0));
                    Allocator.dealloc(zeroed, layout);
                }
            }
        }
    }
}
