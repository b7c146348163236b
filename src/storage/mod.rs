//! What a node keeps on disk: a log that acknowledgements rest on, and behind it a state store.
//!
//! ```text
//!   Write --> [ segment log, one fdatasync a round ] --> durable: votes, appends, answers, cache writes
//!                      |  cut only below what the state store has on disk
//!   Checkpoint --> [ sled: applied state, flush and fdatasync ] --> durable: the log may forget
//! ```
//!
//! The log ([`mod@log`]: hard state, entries and cache journal of all groups) is one preallocated, checksummed, chained list of
//! segments per node. The state store ([`sled_store`]) holds what was applied, and is healed by replay. [`open`] takes a data
//! directory into use ([`identity`]) and puts the two together; [`writer`] has the threads that work on them.
//! Bodies of messages that the log has forgotten lie in files beside sled ([`bodies`]).
//! The simulator has two twins of both: [`ByteDisk`] runs the very log over bytes in memory that can be lost, torn and flipped,
//! [`SimDisk`] is a list of writes. One suite runs on all three kinds, and random work must leave the same on all of them.
//!
//! # What "durable" means here
//! fdatasync has returned on the file, and an fsync of its directory since it was created, renamed or removed. What was read
//! back at a start is synced before anything rests on it: it may have come from the page cache of a killed process.
//!
//! # Invariants
//! - A write to the log is there as a whole or not at all, and only together with all before it; so is a checkpoint.
//! - Where the state of a group stands is never before the beginning of its log: what the log forgot, the state store has.
//! - The first error is the last thing that a store does.
//! - Damage is never taken for a power cut: on doubt the node refuses to start, since it could forget a vote.
//!
//! # Caveats
//! - A node that refuses has to come back with a new data directory, as a new incarnation. Nothing is repaired in place.
//! - A disk that says "synced" and lies is believed.
//! - A full disk is an error like any other: the node stops, up to one segment before the last byte.

mod assemble;
pub mod bodies;
mod byte_disk;
mod copy;
#[cfg(test)]
mod equivalence;
mod files;
mod fold;
pub mod identity;
mod keys;
pub mod log;
pub mod memory;
pub mod redis;
mod restore;
mod sim_files;
mod sim_state;
mod simulated;
pub mod sled_store;
mod state_disk;
mod stats;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod torture;
pub mod writer;

use bytes::Bytes;

pub use assemble::{Opened, StorageOptions, assemble, open};
pub use bodies::{Bodies, BodyBytes, BodyReader};
pub use byte_disk::ByteDisk;
pub use copy::{Found, Seen, StateReader};
pub use fold::{LogRecovered, Misfit};
pub use identity::{Claim, DataDirectory, Identity};
pub use log::{LogOptions, SegmentLog};
pub use memory::SimDisk;
pub use restore::Restoring;
pub use simulated::{Draw, Failing, SimulatedDisk};
pub use sled_store::SledStore;
pub use state_disk::{StateDisk, StateOptions};
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

    /// What can wait until the acknowledgements of the last sync are out: allocate ahead, take back room. `now_us` is the instant, by a
    /// monotonic clock.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn idle(&mut self, now_us: u64) -> Result<(), StorageError> {
        let _ = now_us;
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

    /// Does a piece of what can wait: gives room back. True where there is more to do.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn tend(&mut self) -> Result<bool, StorageError> {
        Ok(false)
    }

    /// Bytes of the files, about; 0 where there are none.
    fn bytes_on_disk(&self) -> u64 {
        0
    }

    /// Bytes of the files that bodies have to themselves, and of the bodies that live there.
    fn body_bytes(&self) -> BodyBytes {
        BodyBytes::default()
    }
}

/// Records that were looked for, by their keys; None where there is no such record.
pub type Looked = Vec<(Vec<u8>, Option<Bytes>)>;

/// What a record is shown to: its key and its value.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), StorageError>;

/// Reads records of a store that another thread writes: each as it is at some instant since the call.
pub trait ReadBeside: Send {
    /// The records with these keys; None where there is no such record.
    ///
    /// # Errors
    /// Where the disk refuses, or what is there cannot be read.
    fn read_all(&self, group: GroupId, keys: Vec<Vec<u8>>) -> Result<Looked, StorageError>;
}

/// The part of a state store that a start needs.
pub trait StateLoad {
    /// Where the state of a group stands, and all its records but the bodies, in key order.
    ///
    /// # Errors
    /// Where the disk refuses, or what is there cannot be read.
    fn load(&self, group: GroupId) -> Result<(SnapshotMeta, Records), StorageError>;

    /// Where the state of a group stands.
    fn stands(&self, group: GroupId) -> SnapshotMeta;

    /// Shows all records that [`StateLoad::load`] leaves out, in key order, until one is refused.
    ///
    /// # Errors
    /// As [`StateLoad::load`], and what `visit` says.
    fn each_body(&self, group: GroupId, visit: Visit<'_>) -> Result<(), StorageError>;
}
