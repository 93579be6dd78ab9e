//! The command; everything it does is in `ironpost::command`.

use std::process::ExitCode;

/// Compact at millions of small objects. It is built not to ask for huge pages (`no_thp`): with them each heap grows by
/// 2 MiB at a time and gives nothing back, which at 16,000 idle sessions was 1,545 bytes of the process per session
/// instead of 565 (Linux 6.18, `ironpost-bench connections`), and a page fault may stop a shard to compact memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ironpost::command::run()
}
