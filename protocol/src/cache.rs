//! Messages of the cache. The node that is asked is the cache: these requests are never forwarded to another node.

mod copies;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::lock::IfToken;

pub use copies::{CopiesDropped, CopiesGone, CopiesKept, CopyGot, CopyLease, DropCopies, GetCopy, KeepCopies};

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

impl fmt::Display for Version {
    /// As people and REST callers see it: epoch, dot, count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.count)
    }
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
    /// What its writer said that it is; empty where it said nothing.
    #[serde(default)]
    pub content_type: String,
}

/// What must be true of a key at the instant of a write; otherwise the error is `ConditionFailed`, and nothing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub enum OnlyIf {
    /// Nothing.
    #[default]
    Anything,
    /// It does not exist.
    Absent,
    /// It exists.
    Present,
    /// It exists, and this is its version.
    Version(Version),
}

/// Writes a key. Acknowledged when no other node can serve the old value any more and the new one is durable.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Put {
    /// 1 to [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// At most [`crate::limits::VALUE_BYTES_MAX`] bytes.
    pub value: Bytes,
    /// What must be true of the key.
    #[serde(default)]
    pub only_if: OnlyIf,
    /// Milliseconds after which the key is deleted by itself, counted by the log from the write on, 0 to
    /// [`crate::limits::TTL_MS_MAX`]; 0 stands for never. A write with one is a write-through.
    #[serde(default)]
    pub ttl_ms: u64,
    /// Acknowledged when a majority has it (write-through), not when the disk of the node that was asked has it (write-back).
    #[serde(default)]
    pub through: bool,
    /// What the value is, for its readers; at most [`crate::limits::CONTENT_TYPE_BYTES_MAX`] bytes, empty for nothing.
    #[serde(default)]
    pub content_type: String,
    /// The token of the fill lease under which the value was made, see [`GetOrFill`]; 0 for none. Where that lease is over, the
    /// error is `StaleFill`.
    #[serde(default)]
    pub fill: u64,
    /// The grant that must hold, where one must. A write with one is a write-through.
    #[serde(default)]
    pub if_token: Option<IfToken>,
}

/// Removes a key; the same promise as [`Put`].
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Delete {
    /// 1 to [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// What must be true of the key.
    #[serde(default)]
    pub only_if: OnlyIf,
    /// As in [`Put`].
    #[serde(default)]
    pub through: bool,
    /// The grant that must hold, where one must. A write with one is a write-through.
    #[serde(default)]
    pub if_token: Option<IfToken>,
}

/// Adds to a number, which a key holds in decimal; one that does not exist counts as 0. What else is there gets `NotANumber`, and so
/// does a sum beyond 64 bits. The same promise as [`Put`]; the time that a key has left stays what it was.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Add {
    /// 1 to [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// What to add; may be negative.
    pub by: i64,
    /// As in [`Put`].
    #[serde(default)]
    pub through: bool,
    /// The grant that must hold, where one must. A write with one is a write-through.
    #[serde(default)]
    pub if_token: Option<IfToken>,
}

/// Answer to [`Add`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The number now.
    pub sum: i64,
    /// The version of this write.
    pub version: Version,
}

/// Reads a key, and where it does not exist asks for the right to fill it. One caller in the cluster gets that right, with a token
/// for its [`Put`]; the others wait, on any node, until the value is there or the right is theirs.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GetOrFill {
    /// 1 to [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// Milliseconds that the right lasts, 1 to [`crate::limits::FILL_MS_MAX`]; then the next one who waits gets it.
    pub lease_ms: u32,
}

/// Answer to [`GetOrFill`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filling {
    /// What the key has; None where it does not exist, and this caller is to fill it.
    pub found: Option<Got>,
    /// For [`Put::fill`], where this caller is to fill the key; otherwise 0.
    pub token: u64,
}

impl Filling {
    /// The key exists.
    pub fn found(got: Got) -> Self {
        Self { found: Some(got), token: 0 }
    }

    /// It does not, and this caller is to fill it.
    pub fn yours(token: u64) -> Self {
        Self { found: None, token }
    }
}

/// Answer to [`Put`] and [`Delete`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The version of this write.
    pub version: Version,
}

/// Reads several keys, each as by a [`Get`] of its own: each is read at one instant, all of them are not.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MultiGet {
    /// 1 to [`crate::limits::MULTI_MAX`] keys.
    pub keys: Vec<String>,
}

/// Answer to [`MultiGet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultiGot {
    /// One for each key, in the order of the request. Where there are more bytes than a frame takes, the later ones are `TooLarge`.
    pub results: Vec<Result<Got, Error>>,
}

/// Writes several keys, each as by a [`Put`] of its own: each write happens or does not, without regard to the others.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MultiPut {
    /// 1 to [`crate::limits::MULTI_MAX`] writes, of [`crate::limits::VALUE_BYTES_MAX`] bytes together.
    pub puts: Vec<Put>,
}

/// Answer to [`MultiPut`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultiWritten {
    /// One for each write, in the order of the request.
    pub results: Vec<Result<Written, Error>>,
}

/// Lists keys of one group that main memory has, in order: those that exist, and those that were deleted a moment ago.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListKeys {
    /// The group, 0 to groups - 1.
    pub group: u32,
    /// What the keys begin with; empty for all. At most [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub prefix: String,
    /// Only keys after this one; empty for the first ones.
    #[serde(default)]
    pub after: String,
}

/// Answer to [`ListKeys`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// At most [`crate::limits::KEYS_MAX`].
    pub keys: Vec<String>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// Deletes the keys that begin with a prefix, each as by a [`Delete`] of its own. A key that is written meanwhile may stay.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeletePrefix {
    /// 1 to [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub prefix: String,
}

/// Answer to [`DeletePrefix`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedPrefix {
    /// How many keys were deleted.
    pub deleted: u64,
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

/// Asks this node what it knows of a key, and why the key is as it is. Looks and changes nothing; the answer is that of an instant.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Explain {
    /// 1 to [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: String,
}

/// Answer to [`Explain`].
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Explained {
    /// The node that was asked.
    pub node: String,
    /// The key's group.
    pub group: u32,
    /// The state of the key here, with what is under way: I, S, E, M, or IS, IS_I, IM, SM, MI.
    pub state: String,
    /// The version of the line here, where there is one.
    pub version: Option<Version>,
    /// Whether main memory lacks it.
    pub dirty: bool,
    /// Requests of this node's clients that wait for the key.
    pub waiting: u32,
    /// Milliseconds that this node's bus lease lasts; 0 where it has none, and serves nothing.
    pub lease_ms: u64,
    /// What the key went through here, oldest first: at most [`crate::limits::TRANSITIONS_MAX`], as far as the node remembers.
    pub transitions: Vec<Transition>,
    /// Where this node is the key's home: what the home knows.
    pub home: Option<Box<HomeView>>,
}

/// A change of a key's state on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Milliseconds ago.
    pub ago_ms: u64,
    /// From this state.
    pub from: String,
    /// To this one.
    pub to: String,
    /// Because of this: the message or the operation.
    pub why: String,
}

/// What a key's home knows.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HomeView {
    /// Version of what main memory has; None where the key does not exist.
    pub version: Option<Version>,
    /// Bytes of that value.
    pub bytes: u64,
    /// The node that wrote it; empty where the key does not exist.
    pub writer: String,
    /// The node that may write it, and has a value that may be newer; empty where there is none.
    pub owner: String,
    /// Whether that node has a bus lease, so that it can be asked.
    pub owner_present: bool,
    /// The nodes that may have a copy.
    pub sharers: Vec<String>,
    /// What the transaction that is under way waits for, for a person; empty where there is none.
    pub busy: String,
    /// Requests of nodes that wait behind it.
    pub waiting: u32,
    /// Milliseconds of log time until the key goes by itself; 0 for never.
    pub expires_in_ms: u64,
    /// Clients' nodes that wait to fill it, the one that may included.
    pub filling: u32,
    /// The log has nothing of it: what there is lies in Redis alone. The version is then that of the copies, where there are any.
    #[serde(default)]
    pub in_redis: bool,
}

/// A person decides that what a dead node wrote last and did not write back is lost: nobody waits for it any more. Refused while the
/// node has a bus lease.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Evacuate {
    /// The group, 0 to groups - 1.
    pub group: u32,
    /// The node.
    pub node: String,
}

/// Answer to [`Evacuate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evacuated {
    /// Keys that were still that node's when it was asked. Ask again until there is none.
    pub keys: u64,
}
