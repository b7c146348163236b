//! What a node keeps on disk: a log that acknowledgements rest on, and behind it a state store.
//!
//! The log (hard state, entries, cache journal of all groups) is one preallocated, checksummed, chained
//! segment log per node with one fdatasync a round. The state store (sled) holds what was applied, and is healed by replay.

mod assemble;
#[cfg(test)]
mod equivalence;
mod files;
mod fold;
pub mod identity;
mod keys;
pub mod log;
pub mod memory;
pub mod sled_store;
mod stats;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod torture;
pub mod writer;

use bytes::Bytes;

pub use assemble::{Opened, assemble, open};
pub use fold::{LogRecovered, Misfit};
pub use identity::{Claim, DataDirectory, Identity};
pub use log::{LogOptions, SegmentLog};
pub use memory::SimDisk;
pub use sled_store::SledStore;
pub use stats::{SYNC_BUCKETS_US, StorageStats, SyncTimes};

use crate::ids::GroupId;
pub use crate::node::{Records, Recovered};

use crate::node::effect::{Checkpoint, Write};
use crate::raft::{Snapshot, SnapshotMeta};

/// What storage can run into. Any of them stops the node: an acknowledgement could rest on nothing.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// The error.
        source: std::io::Error,
    },
    /// What is there is not what was written.
    #[error("{what}")]
    Corrupt {
        /// Where, and what was expected.
        what: String,
    },
    /// The directory belongs to someone else: another process, node, cluster or format.
    #[error("{what}")]
    Refused {
        /// What was found, and what would be right.
        what: String,
    },
}

/// The log of one node.
pub trait LogStore {
    /// Takes a write. It is durable after the next [`LogStore::sync`], together with all before it.
    ///
    /// # Errors
    /// Where the disk refuses; nothing may be appended after that.
    fn append(&mut self, write: &Write) -> Result<(), StorageError>;

    /// Makes everything appended durable. An error is final: the pages may be lost although marked clean.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn sync(&mut self) -> Result<(), StorageError>;

    /// What can wait until the acknowledgements of the last sync are out: allocate ahead, take back room.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn idle(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Bytes of the files, about; 0 where there are none.
    fn bytes_on_disk(&self) -> u64 {
        0
    }
}

/// The applied state of one node's groups.
pub trait StateStore {
    /// Writes the changes and the index they stand at, as one.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError>;

    /// Replaces a group's whole state by a snapshot from its leader; durable on return.
    ///
    /// # Errors
    /// Where the disk refuses, or the snapshot cannot be read.
    fn install(&mut self, group: GroupId, snapshot: &Snapshot) -> Result<(), StorageError>;

    /// Makes every checkpoint so far durable.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn sync(&mut self) -> Result<(), StorageError>;

    /// One record.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn read(&self, group: GroupId, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// Bytes of the files, about; 0 where there are none.
    fn bytes_on_disk(&self) -> u64 {
        0
    }
}

/// The part of a state store that a start needs.
pub trait StateLoad {
    /// Where the state of a group stands, and all its records but the bodies, in key order.
    ///
    /// # Errors
    /// Where the disk refuses, or what is there cannot be read.
    fn load(&self, group: GroupId) -> Result<(SnapshotMeta, Records), StorageError>;
}
