//! argv in, exit code out.

use std::process::ExitCode;

/// Half the memory per idle connection of the system's allocator.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    pintle::cli::main()
}
