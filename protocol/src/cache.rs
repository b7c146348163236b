//! Messages of the cache. The node that is asked is the cache: these requests are never forwarded to another node.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// State of a line in the cache of the node that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LineState {
    /// Modified: the only copy, newer than main memory; this node may write.
    M,
    /// Exclusive: the only copy, as in main memory.
    E,
    /// Shared: others may have it too.
    S,
    /// Invalid: no copy.
    I,
}

/// Version of a value: the log index of the entry that made its writer the owner, then the writes it made since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version {
    /// Log index of the ownership entry.
    pub epoch: u64,
    /// Local writes since, 0 for the value that came with the entry.
    pub count: u64,
}

/// Where a read found its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// In this node's own cache, without a message.
    LocalCache,
    /// By way of the bus.
    MainMemory,
}

/// Reads a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// 1 to [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: String,
}

/// Answer to [`Get`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Got {
    /// None where the key does not exist.
    pub value: Option<Bytes>,
    /// The version of the value.
    pub version: Version,
    /// The state of this node's line after the read.
    pub state: LineState,
    /// Where the value came from.
    pub source: Source,
}

/// Writes a key. Acknowledged when no other node can serve the old value any more and the new one is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// 1 to [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// At most [`crate::limits::VALUE_BYTES_MAX`] bytes.
    pub value: Bytes,
}

/// Removes a key; the same promise as [`Put`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// 1 to [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: String,
}

/// Answer to [`Put`] and [`Delete`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The version of this write.
    pub version: Version,
}

/// Asks this node to write its dirty line back to main memory now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteBack {
    /// 1 to [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: String,
}

/// Answer to [`WriteBack`]: main memory has the line that this node wrote last. Otherwise the error is `NotWrittenHere`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenBack {
    /// The state of this node's line now: E, or less where another node has taken it since.
    pub state: LineState,
}

/// Asks this node to write every dirty line of one group back to main memory now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteBackAll {
    /// The group, 0 to groups - 1.
    pub group: u32,
}

/// Answer to [`WriteBackAll`]: main memory has all that this node had acknowledged before it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllWrittenBack {
    /// Lines that were dirty.
    pub lines: u64,
}
