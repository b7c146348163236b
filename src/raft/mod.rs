//! Consensus over opaque bytes, by hand, without a clock, a socket or a disk.

mod config;
mod message;
mod ready;

pub use config::Config;
pub use message::{Body, Entry, HardState, Message, SnapshotMeta};
pub use ready::{Persist, Ready, Snapshot};
mod stub;
pub use stub::*;
