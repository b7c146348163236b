//! One group's replica on one node: where consensus, the state machines and the cache meet.

pub mod effect;
pub mod message;
