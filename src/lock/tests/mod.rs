//! Tests of the locks: scripts a person can read, a naive model that is asked the same questions, and a figure.

mod counts;
mod disk;
#[cfg(target_os = "linux")]
mod memory;
mod model;
mod random;
mod restore;
mod script;
mod show;
