//! The binary: everything is in the library, so that tests can reach it.
//!
//! The allocator is mimalloc, which takes a C compiler to build and nothing else, as do all dependencies. What a start or a burst took goes back to
//! the operating system a tenth of a second later: with the allocator of glibc a node with a backlog of a million messages kept 220 MiB after a
//! start, with mimalloc's own delay of a second 200 while it was drained, and now it takes 184 at the worst moment. No delay at all would make that
//! 172, and every round of a queue 5 % dearer. The delay is read when a process begins and only then, so a node that finds none set starts itself
//! once more, in the same process. Huge pages are left out: a node that does nothing would take 75 MiB with them, and takes 23.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::{env, io};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// After so many milliseconds what is free goes back to the operating system.
const PURGE_DELAY: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "100");

fn main() -> ExitCode {
    if env::args_os().nth(1).is_some_and(|command| command == "serve") && env::var_os(PURGE_DELAY.0).is_none() {
        // Comes back only where it cannot be done. Then the delay is the allocator's own: more memory is kept, and nothing else is different.
        drop(start_again());
    }
    trine::cli::main()
}

/// Replaces this program by itself, with the delay set.
fn start_again() -> io::Error {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let (variable, value) = PURGE_DELAY;
    match env::current_exe() {
        Ok(program) => Command::new(program).arg0(name).args(arguments).env(variable, value).exec(),
        Err(error) => error,
    }
}
