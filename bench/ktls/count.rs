//! Bytes that are in use on behalf of the server, by an allocator that counts them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

static IS_SERVERS: AtomicBool = AtomicBool::new(false);
static IN_USE: AtomicI64 = AtomicI64::new(0);

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// There is one thread, so what is under way says whose an allocation is.
fn add(bytes: i64) {
    if IS_SERVERS.load(Ordering::Relaxed) {
        IN_USE.fetch_add(bytes, Ordering::Relaxed);
    }
}

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: what is promised to it is promised to the system's.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: what is promised to it is promised to the system's.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size() as i64));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What `work` allocates and frees is the server's.
pub fn on_behalf_of_the_server<T>(work: impl FnOnce() -> T) -> T {
    IS_SERVERS.store(true, Ordering::Relaxed);
    let result = work();
    IS_SERVERS.store(false, Ordering::Relaxed);
    result
}

/// Bytes in use on its behalf.
pub fn of_the_server() -> i64 {
    IN_USE.load(Ordering::Relaxed)
}
