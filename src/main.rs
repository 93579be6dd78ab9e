//! The command; everything it does is in `ironpost::command`.

use std::process::ExitCode;

/// Compact at millions of small objects.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ironpost::command::run()
}
