//! What the simulator asks of a node's disk beside the two stores: to start on it, and to make it suffer.

use std::collections::BTreeMap;

use crate::ids::GroupId;

use super::{LogStore, Recovered, StateStore, StorageError};

/// Draws a number below its argument.
pub type Draw<'a> = &'a mut dyn FnMut(u64) -> u64;

/// What a simulated disk refuses to do from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// Writes of the log.
    Write,
    /// Syncs of the log.
    Sync,
    /// Anything of the state store.
    State,
}

/// A disk whose faults the simulator chooses.
pub trait SimulatedDisk: LogStore + StateStore + std::fmt::Debug {
    /// What each group finds when the node's process starts.
    ///
    /// # Errors
    /// As [`open`](super::open()).
    fn start(&mut self, groups: u32) -> Result<BTreeMap<GroupId, Recovered>, StorageError>;

    /// [`LogStore::sync`], named apart from that of the state.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn sync_log(&mut self) -> Result<(), StorageError> {
        LogStore::sync(self)
    }

    /// [`StateStore::sync`], named apart from that of the log.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn sync_state(&mut self) -> Result<(), StorageError> {
        StateStore::sync(self)
    }

    /// Hands what was appended to the operating system; it is not durable by that.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn hand_over(&mut self) -> Result<(), StorageError>;

    /// The process dies, and where `power` says so the machine with it.
    fn die(&mut self, power: bool, below: Draw<'_>);

    /// From now on it refuses that.
    fn fail(&mut self, failing: Failing);

    /// From now on there is no room left.
    fn fill(&mut self);

    /// It works again.
    fn mend(&mut self);

    /// One bit of what is durable flips, where that cannot pass for a torn write; false where nothing is that old yet. The process
    /// must be dead.
    fn rot(&mut self, below: Draw<'_>) -> bool;
}
