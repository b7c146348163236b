//! Records: how a state machine's state looks on disk and in a snapshot.
//!
//! Each machine is a set of records, key to value, and tells after each batch of commands which of them changed. The
//! state store writes the changes together with the index they stand at; a snapshot is all records in key order.
//! So neither a checkpoint nor a snapshot needs to know what a lock or a queue is.

/// First byte of a key: whose record it is.
pub mod prefix {
    /// The replica's own: members of the bus, counters.
    pub const META: u8 = b'a';
    /// A message body that compaction overtook.
    pub const BODY: u8 = b'b';
    /// A key of the cache's main memory, with its owner.
    pub const CACHE: u8 = b'c';
    /// A lock.
    pub const LOCK: u8 = b'l';
    /// A queue or one of its messages.
    pub const QUEUE: u8 = b'q';
    /// A session.
    pub const SESSION: u8 = b's';
}

/// One record that changed: its new value, or None where it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key; its first byte is one of [`prefix`].
    pub key: Vec<u8>,
    /// The value, MessagePack.
    pub value: Option<Vec<u8>>,
}

/// A record that cannot be read back: the disk or the snapshot is not ours, or damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {key:?} cannot be read: {why}")]
pub struct BadRecord {
    /// The key, as it stood.
    pub key: Vec<u8>,
    /// What was wrong.
    pub why: String,
}

/// The value as MessagePack.
///
/// # Panics
/// Never for our own types: they hold nothing that MessagePack has no form for.
pub fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("our own types have a MessagePack form")
}

/// Reads back what [`encode`] made.
///
/// # Errors
/// Where the bytes are no such value.
pub fn decode<T: serde::de::DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, BadRecord> {
    rmp_serde::from_slice(value).map_err(|error| BadRecord { key: key.to_vec(), why: error.to_string() })
}
