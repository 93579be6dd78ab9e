//! The clock: the one place where this program asks for the time or waits without a socket.
//!
//! A load generator measures time, so it may read the clock; the ban in `clippy.toml` is meant for the broker's core.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic time.
#[expect(clippy::disallowed_methods, reason = "measuring time is what this program is for")]
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970, for the head of a result document.
#[expect(clippy::disallowed_methods, reason = "a result says when it was measured")]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Waits, for something that has no descriptor to wait on: another process's start, or its memory coming to rest.
#[expect(clippy::disallowed_methods, reason = "another process's state can only be polled")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
