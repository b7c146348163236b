//! The simulator.
pub(crate) mod checker;
mod disk;
mod network;
mod random;
mod schedule;
mod swarm;
mod trace;
