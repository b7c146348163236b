//! The binary: everything is in the library, so that tests can reach it.
//!
//! The allocator is jemalloc: what a start or a burst took goes back to the operating system within a second or so. With that of glibc
//! a node with a backlog of a million messages kept 220 MiB where it needs 150 (`.cargo/config.toml` has the settings).

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    trine::cli::main()
}
