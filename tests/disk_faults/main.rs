//! The real program on a disk that fails: full, erring, read-only, foreign or in disorder. It says what is wrong, where,
//! and what to do, changes nothing that it does not understand, and has everything acknowledged when it runs again.
//!
//! - `space`: no room, at the first start, while running, over a kill, and until there is room again
//! - `errors`: a write, a sync or a read that fails: nothing is acknowledged any more, and the process ends
//! - `read_only`: the kernel or somebody made the file system read-only
//! - `refusals`: another version, a second process, a pool of segments in disorder
//! - `verify`, `salvage`: `ironpost journal verify`, `inspect` and `salvage` on what a broker left
//! - `load`: numbered messages, and who has acknowledged which
//! - `process`: the program as a process, and how it ended
//! - `volume`: an ext4 in an image file that can be made to fail
//!
//! What needs a mounted image is skipped with a line that says why where that is not permitted. Bytes and clients are
//! those of `tests/conformance`, the image is that of `tests/crash_campaign`.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

#[path = "../crash_campaign/disk.rs"]
#[expect(dead_code, reason = "the campaign uses the rest")]
mod disk;
mod errors;
mod load;
#[path = "../conformance/peer.rs"]
#[expect(dead_code, reason = "the conformance tests use the rest")]
mod peer;
mod process;
mod read_only;
mod refusals;
mod salvage;
mod space;
mod verify;
mod volume;

use peer::{broker, bytes, client};
