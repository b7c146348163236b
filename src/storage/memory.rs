//! The simulated disk of one node, as a list of writes: both stores in memory, what a crash would lose kept apart.
//!
//! Each store has what is *durable* and what is *pending*. A sync moves the pending part over; a [`SimDisk::crash`] drops it,
//! but for a prefix that the test chooses: the kernel may have written some of it out. Only a prefix can survive, since
//! the real log's records are chained and sled recovers a prefix. It is stricter than the real stores about what is our
//! own bug: a write that carries a snapshot which the state store does not hold yet, and a compaction beyond what the
//! state store has durably, are errors here.
//!
//! Deterministic: ordered maps only, no clock, no randomness.
//!
//! Caveats: a record is there or not. Bytes that are torn, lost one by one or flipped are what [`ByteDisk`](super::ByteDisk) is for;
//! this one is faster, and says in a page what both have to mean.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::GroupId;
use crate::node::effect::{Checkpoint, Write};
use crate::raft::{Snapshot, SnapshotMeta};

use super::fold::{Fold, Place};
use super::sim_state::{SimState, corrupt, refused};
use super::simulated::{Draw, Failing, SimulatedDisk};
use super::{LogRecovered, LogStore, Records, Recovered, StateLoad, StateStore, StorageError, Visit, assemble};

/// A node's disk in a simulation.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    /// The log as a crash would leave it, with none of `pending_log`.
    durable_log: BTreeMap<GroupId, Fold>,
    /// The log with all that was appended.
    log: BTreeMap<GroupId, Fold>,
    /// Writes since the last sync of the log.
    pending_log: Vec<Write>,
    state: SimState,
    failing: Option<Failing>,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes of the log that no sync has covered yet.
    pub fn pending_writes(&self) -> usize {
        self.pending_log.len()
    }

    /// Checkpoints that no sync has covered yet.
    pub fn pending_checkpoints(&self) -> usize {
        self.state.pending()
    }

    /// [`LogStore::sync`], named apart from that of the state.
    ///
    /// # Errors
    /// Where the disk was told to fail.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        LogStore::sync(self)
    }

    /// [`StateStore::sync`], named apart from that of the log.
    ///
    /// # Errors
    /// Where the disk was told to fail.
    pub fn sync_state(&mut self) -> Result<(), StorageError> {
        StateStore::sync(self)
    }

    /// The power goes: of the writes of the log that no sync covered the first `keep` survive, of the checkpoints none.
    pub fn crash(&mut self, keep: usize) {
        self.crash_keeping(keep, 0);
    }

    /// As [`SimDisk::crash`], but the first `keep_checkpoints` of the pending checkpoints survive as well.
    pub fn crash_keeping(&mut self, keep_writes: usize, keep_checkpoints: usize) {
        let writes: Vec<_> = self.pending_log.drain(..).take(keep_writes).collect();
        for write in &writes {
            fold(&mut self.durable_log, write).expect("it fitted when it was appended");
        }
        self.log = self.durable_log.clone();
        self.state.crash(keep_checkpoints);
    }

    /// What a replica of the group finds when its node starts on this disk. Call it after a [`SimDisk::crash`]: it sees all
    /// that was appended. Where a crash came between a snapshot's install and its write, that write is finished here.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where log and state do not fit: the code that wrote them is wrong.
    pub fn recover(&mut self, group: GroupId) -> Result<Recovered, StorageError> {
        let log = self.recover_log(group)?;
        let (applied, state) = self.state.load(group)?;
        let (recovered, repair) = assemble(group, log, applied, state)?;
        if let Some(write) = repair {
            self.append(&write)?;
            self.sync()?;
        }
        Ok(recovered)
    }

    /// What the log holds of one group.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where it does not tile.
    pub fn recover_log(&self, group: GroupId) -> Result<LogRecovered, StorageError> {
        let fold = self.log.get(&group).cloned().unwrap_or_default();
        fold.into_recovered().map_err(|misfit| corrupt(group, &misfit.0))
    }
}

fn fold(log: &mut BTreeMap<GroupId, Fold>, write: &Write) -> Result<(), StorageError> {
    let fold = log.entry(write.group).or_default();
    fold.apply(write, Place::default(), true, None).map_err(|misfit| corrupt(write.group, &misfit.0))
}

impl LogStore for SimDisk {
    fn append(&mut self, write: &Write) -> Result<(), StorageError> {
        if self.failing == Some(Failing::Write) {
            return Err(refused("write the log"));
        }
        self.state.check_order(write)?;
        fold(&mut self.log, write)?;
        self.pending_log.push(write.clone());
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        if self.failing == Some(Failing::Sync) {
            return Err(refused("sync the log"));
        }
        for write in std::mem::take(&mut self.pending_log) {
            fold(&mut self.durable_log, &write)?;
        }
        Ok(())
    }
}

impl StateStore for SimDisk {
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        self.state.checkpoint(checkpoint)
    }

    fn install(&mut self, group: GroupId, snapshot: &Snapshot) -> Result<(), StorageError> {
        self.state.install(group, snapshot)
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.state.sync()
    }

    fn read(&self, group: GroupId, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.state.read(group, key)
    }
}

impl StateLoad for SimDisk {
    fn load(&self, group: GroupId) -> Result<(SnapshotMeta, Records), StorageError> {
        self.state.load(group)
    }

    fn stands(&self, group: GroupId) -> SnapshotMeta {
        self.state.stands(group)
    }

    fn each_body(&self, group: GroupId, visit: Visit<'_>) -> Result<(), StorageError> {
        self.state.each_body(group, visit)
    }
}

impl SimulatedDisk for SimDisk {
    fn start(&mut self, groups: u32) -> Result<BTreeMap<GroupId, Recovered>, StorageError> {
        (0..groups).map(GroupId).map(|group| Ok((group, self.recover(group)?))).collect()
    }

    fn hand_over(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn die(&mut self, _power: bool, below: Draw<'_>) {
        let keep_writes = below(self.pending_log.len() as u64 + 1) as usize;
        let keep_checkpoints = below(self.state.pending() as u64 + 1) as usize;
        self.crash_keeping(keep_writes, keep_checkpoints);
    }

    fn fail(&mut self, failing: Failing) {
        self.failing = Some(failing);
        self.state.refuses |= failing == Failing::State;
    }

    fn fill(&mut self) {
        // Here the log has all the room it needs: it is the state store that grows.
        self.state.refuses = true;
    }

    fn mend(&mut self) {
        self.failing = None;
        self.state.refuses = false;
    }

    fn rot(&mut self, _below: Draw<'_>) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_crash_keeps_the_prefix_that_was_asked_for() {
        for keep in 0..=4 {
            let mut disk = SimDisk::new();
            disk.append(&entries(G, 1, 1, 1)).unwrap();
            disk.sync().unwrap();
            for index in 2..=4 {
                disk.append(&entries(G, index, index, 1)).unwrap();
            }
            assert_eq!(disk.pending_writes(), 3);
            disk.crash(keep);
            assert_eq!((disk.recover(G).unwrap().entries.len(), disk.pending_writes()), (1 + keep.min(3), 0));
        }
    }

    #[test]
    fn checkpoints_that_no_sync_covered_are_lost_unless_kept() {
        for (keep, found) in [(0, 2), (1, 3), (9, 4)] {
            let mut disk = SimDisk::new();
            disk.append(&entries(G, 1, 9, 1)).unwrap();
            disk.sync().unwrap();
            disk.checkpoint(&checkpoint(G, 2, 1, &[("q", Some("2"))])).unwrap();
            disk.sync_state().unwrap();
            for (index, value) in [(3, "3"), (4, "4")] {
                disk.checkpoint(&checkpoint(G, index, 1, &[("q", Some(value))])).unwrap();
            }
            assert_eq!((disk.pending_checkpoints(), disk.read(G, b"q").unwrap().unwrap()), (2, Bytes::from("4")));
            disk.crash_keeping(0, keep);
            let recovered = disk.recover(G).unwrap();
            assert_eq!((recovered.applied.index, &recovered.state[0].1[..]), (found, found.to_string().as_bytes()));
        }
    }

    #[test]
    fn the_log_is_not_cut_above_what_the_state_store_has_on_disk() {
        let mut disk = SimDisk::new();
        disk.append(&entries(G, 1, 9, 1)).unwrap();
        disk.checkpoint(&checkpoint(G, 5, 1, &[])).unwrap();
        assert!(disk.append(&compaction(G, 5, 1)).is_err(), "the checkpoint is not durable");
        disk.sync_state().unwrap();
        assert!(disk.append(&compaction(G, 6, 1)).is_err());
        disk.append(&compaction(G, 5, 1)).unwrap();
        let snapshot = snapshot(20, 2, &[]);
        assert!(disk.append(&restored(G, &snapshot)).is_err(), "the snapshot is not installed");
        disk.install(G, &snapshot).unwrap();
        disk.append(&restored(G, &snapshot)).unwrap();
    }
}
