//! The file that `trine backup` writes and `trine restore` reads: the applied state of every group of a cluster.
//!
//! ```text
//!   "trinebak" version | header | group 0: bytes, bytes, ... end | group 1: ... | ... | end | SHA-256 of all before
//!                       '--------------------- blocks, each with number, length and CRC32C --------------------'
//! ```
//!
//! The bytes of a group, one block behind the other, are pairs of key and value as the state store keeps them ([`pairs`]). A
//! copy is made while the group works, so a key may come again: **its last pair counts**, and one without a value removes it.
//! Where the copy stands in the group's log is said behind them. The state is that of a follower which has applied the log up to
//! there, whole and at one instant; the groups stand at instants of their own, each after the backup began.
//!
//! What is restored is not all of it ([`cleanse`]): who owned which line of the cache, who was on the bus and who belonged to the cluster
//! are matters of the old cluster's nodes. Sessions, locks, queues with what is in flight, and the cache's main memory stay.
//! The generation is raised by one, so that every token of the new cluster is greater than all of the old one's.
//!
//! # Invariants
//! - Whatever differs from what was written (a bit, an end, something behind it) is found, and said with its bytes.
//! - Nothing is made from a file that was not read to its end and found whole.
//! - The id of the cluster that is made follows from the file's digest: nodes from one file are one cluster, and no others are.
//!
//! # Caveats
//! * No encryption and no compression: pipe the file through what you use for other files.
//! * Across groups it is not one instant: what a client did in one group and then in another may be there only in part.

pub mod cleanse;
pub mod file;
pub mod pairs;
pub mod read;
pub mod write;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::raft::SnapshotMeta;

pub use read::{Damage, Item, Reader, Verified, verify};
pub use write::{Cut, Mark, Writer};

/// First bytes of a backup.
pub const MAGIC: &[u8; 8] = b"trinebak";
/// Version of the format; another one is refused.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of a block's payload: a part of a copy, and what says whose it is.
pub const BLOCK_BYTES_MAX: usize = 1024 * 1024 + 4096;

/// Bytes of magic and version.
const PREAMBLE_BYTES: u64 = 12;
/// Bytes before a block's payload: length, kind, number, checksum.
const BLOCK_HEADER_BYTES: usize = 13;
/// Bytes of the digest.
const DIGEST_BYTES: usize = 32;

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// [`Header`]; the first block.
    Header = 1,
    /// Bytes of the group that has not ended yet.
    Bytes = 2,
    /// [`GroupEnd`].
    GroupEnd = 3,
    /// [`Summary`]; the last block.
    End = 4,
}

impl Kind {
    fn of(code: u8) -> Option<Self> {
        [Self::Header, Self::Bytes, Self::GroupEnd, Self::End].into_iter().find(|kind| *kind as u8 == code)
    }
}

/// What the file begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The cluster that was copied.
    pub cluster_id: u64,
    /// How many groups it has.
    pub groups: u32,
    /// When the backup began, in milliseconds since 1970.
    pub begun_ms: u64,
    /// Version of the program that wrote it.
    pub program: String,
}

/// What follows the bytes of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEnd {
    /// The group.
    pub group: u32,
    /// Index of the last entry that is in it.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Log time of that entry.
    pub stamp_ms: u64,
    /// Wall clock of that entry.
    pub wall_ms: u64,
    /// The voters that the group had.
    pub voters: Vec<String>,
    /// The learners that it had.
    pub learners: Vec<String>,
    /// Pairs that were written, those of keys that came again too.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl GroupEnd {
    /// Where a replica of the new cluster begins: there, with its founders as voters.
    pub fn meta(&self) -> SnapshotMeta {
        let Self { index, term, stamp_ms, wall_ms, .. } = *self;
        SnapshotMeta { index, term, stamp_ms, wall_ms, membership: None }
    }
}

/// What the file ends with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The generation of the cluster that was copied: how often it was restored.
    pub generation: u16,
    /// Pairs of all groups.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Nodes whose last cache writes may be missing.
    pub missing: Vec<Missing>,
}

/// A node that did not write its dirty lines back before the copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its name.
    pub node: String,
    /// Why.
    pub why: String,
    /// Keys that it owned, whose newest value may be on its disk only.
    pub keys: u64,
}

/// The SHA-256 of a file's bytes before it.
pub type FileDigest = [u8; DIGEST_BYTES];

/// The id of the cluster that a restore of a file with this digest makes.
pub fn cluster_id(digest: &FileDigest) -> u64 {
    let derived = Sha256::new().chain_update(b"trine restore\0").chain_update(digest).finalize();
    let (first, _) = derived.split_at(8);
    u64::from_be_bytes(first.try_into().expect("8 of 32 bytes")).max(1)
}

/// The digest as people read it.
pub fn hex(digest: &FileDigest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checksum of a block: its number is in it, so that no block can stand in another one's place.
fn checksum(length: u32, kind: u8, number: u32, payload: &[u8]) -> u32 {
    let mut head = [0; 9];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4] = kind;
    head[5..].copy_from_slice(&number.to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&head), payload)
}

#[cfg(test)]
mod tests;
