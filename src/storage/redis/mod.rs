//! Redis as the cache's main memory: values lie there as plain bytes, so that `redis-cli` sees and sets the same data.
//!
//! ```text
//!   db:main_memory:KEY     the value, as it was written
//!   trine:line:KEY         version, content type and checksum of that value
//!   trine:fence:GROUP      "TERM CONNECTION" of the group's home
//!   trine:cluster          whose main memory this is
//! ```
//!
//! Each group that a node leads has one [`Connection`]. Reads, writes and tracking go over it, so that the server tells in order what was read and what somebody else wrote
//! after it. A [`Push`] is a hint, not a fact: the server tells of our own writes too (it asks for `NOLOOP`, but Redis 7 takes a script for somebody
//! else). Whoever keeps copies of a key that is told reads it again: [`Stored::version`] says whose value it is.
//!
//! # The fence
//! A group's home raises the group's fence to (its term, the number of its connection) on every new connection, before it reads anything. Every script looks at
//! the fence and does nothing where it is not the very same. So no late write lands, neither of an older home nor of an older connection.
//!
//! # Versions
//! The value alone has no version, and who sets it by `redis-cli` gives it none. The line beside it has the version of the value that the home wrote, and
//! a checksum of it. Where the two do not belong together the value is somebody else's: [`Stored::version`] is None then.
//!
//! # Caveats
//! - A client certificate of our own is not shown to a server that asks for one.
//! - What was written is as durable as that Redis is configured: see [`Durability`].
//! - A single Redis, or one behind a proxy that speaks RESP3; no Redis Cluster, for a script touches keys of several slots.
//! - Redis that evicts (`maxmemory-policy` other than `noeviction`) forgets values for good; [`Durability`] tells.

mod connection;
mod scripts;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Push, Server};

use bytes::Bytes;
use trine_protocol::cache::Version;

/// Before the name of every key's value.
pub const VALUE_PREFIX: &str = "db:main_memory:";
/// Before the name of every key's line.
const LINE_PREFIX: &str = "trine:line:";

/// Whose writes land: those of the home of this term, over this of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence {
    /// Term of the home.
    pub term: u64,
    /// Grows with each connection of its node.
    pub connection: u64,
}

/// What Redis has of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The value; None where there is none.
    pub value: Option<Bytes>,
    /// Which write of ours made it; None where somebody else did.
    pub version: Option<Version>,
    /// What kind of value it is, as its writer said; empty where it did not.
    pub content_type: String,
}

/// Why Redis did not do what it was asked. Nothing was written, except perhaps with [`MemoryError::Lost`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The connection is no more, or never came to be. A write that was on its way may have landed.
    #[error("Redis cannot be reached: {0}")]
    Lost(String),
    /// Another home, or another connection of this one, has raised the fence; or it is gone, with all that was in Redis.
    #[error("the fence in Redis is {0}")]
    Fenced(String),
    /// This Redis is the main memory of another cluster.
    #[error(
        "this Redis is the main memory of cluster {0}: give each cluster a Redis, or a database number, of its own; where that cluster is no more, delete the key 'trine:cluster'"
    )]
    OtherCluster(String),
    /// Redis has no room.
    #[error("Redis is full: {0}")]
    Full(String),
    /// The key holds something that is no string.
    #[error("'{VALUE_PREFIX}{0}' in Redis is no string: somebody else has put another type there; delete it")]
    NoString(String),
    /// Something else that Redis said.
    #[error("Redis refuses: {0}")]
    Refused(String),
}

/// How far Redis' word can be trusted, as it says itself. Empty where all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durability {
    /// A sentence for each setting under which something that was written back can be lost.
    pub warnings: Vec<String>,
}
