//! Copies in clients: what a client asks for when it wants to keep a value, and what the node tells it when the value goes.
//!
//! ```text
//!   client                                 node
//!     | -- GetCopy{key, copies} ------------> |   the node has the line
//!     | <- CopyGot{got, lease} -------------- |   and remembers who has a copy of it
//!     |    reads of its own memory ...        |
//!     | -- KeepCopies{group, copies, number}->|   every third of the lease
//!     | <- CopiesKept{lease} ---------------- |
//!     |                                       |   somebody writes the key:
//!     | <- CopiesGone{group, notice, keys} -- |   a push; the write waits
//!     | -- DropCopies{group, copies, notice}->|   for this, or for the end of the lease
//! ```
//!
//! A client counts a lease from before it sent the request, and reads no copy after it. It reads the value first and its clock second.
//! `copies` is a random number that the client makes up for each connection: with the connection it loses all its copies.

use serde::{Deserialize, Serialize};

use super::Got;

/// Reads a key as [`super::Get`] does, and asks to keep a copy.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GetCopy {
    /// 1 to [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// The client's number for its copies on this connection, random and not 0. A connection has one.
    pub copies: u64,
}

/// Answer to [`GetCopy`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyGot {
    /// What was read.
    pub got: Got,
    /// How long the copy may be read; None where it may not be kept at all.
    pub lease: Option<CopyLease>,
}

/// The lease that all copies of one group in one client hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyLease {
    /// The group.
    pub group: u32,
    /// Which lease: copies under another number than the newest are none.
    pub number: u64,
    /// Milliseconds that it lasts, counted from before the request was sent. At most [`crate::limits::COPY_LEASE_MS`].
    pub lease_ms: u32,
}

/// Begins the lease on the copies of a group anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeepCopies {
    /// The group, 0 to groups - 1.
    pub group: u32,
    /// [`GetCopy::copies`].
    pub copies: u64,
    /// [`CopyLease::number`].
    pub number: u64,
}

/// Answer to [`KeepCopies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiesKept {
    /// None where that lease is over: all copies of the group are to be dropped.
    pub lease: Option<CopyLease>,
}

/// Says that what a [`CopiesGone`] named is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DropCopies {
    /// The group, 0 to groups - 1.
    pub group: u32,
    /// [`GetCopy::copies`].
    pub copies: u64,
    /// [`CopiesGone::notice`].
    pub notice: u64,
}

/// Answer to [`DropCopies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiesDropped {}

/// A push: copies of these keys are to be dropped, and what is on its way of them is not to be kept. Answered by [`DropCopies`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiesGone {
    /// The group.
    pub group: u32,
    /// For [`DropCopies::notice`].
    pub notice: u64,
    /// The keys; where there is none, all of the group.
    pub keys: Vec<String>,
}
