//! The command; everything it does is in `ironpost::command`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: ironpost::allocator::Allocator = ironpost::allocator::Allocator;

fn main() -> ExitCode {
    ironpost::command::run()
}
