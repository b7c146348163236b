//! Tests of the queues: scripts a person can read, a naive model that is asked the same questions, and figures.

mod disk;
#[cfg(target_os = "linux")]
mod memory;
mod model;
mod restore;
mod script;
mod steps;
mod totals;
mod twins;
