//! The simulated disk of one node: both stores, in memory, with what a crash would lose kept apart.
//!
//! Each store has what is *durable* and what is *pending*. A sync moves the pending part over; a [`SimDisk::crash`] drops it,
//! but for a prefix that the test chooses: the kernel may have written some of it out. Only a prefix can survive, since
//! the real log's records are chained and sled recovers a prefix. It is stricter than the real stores about what is our
//! own bug: a write that carries a snapshot which the state store does not hold yet, and a compaction beyond what the
//! state store has durably, are errors here.
//!
//! Deterministic: ordered maps only, no clock, no randomness.
//!
//! Caveats: torn and flipped bytes are a matter of the segment log's own tests; here a record is there or not.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::GroupId;
use crate::node::effect::{Checkpoint, Write};
use crate::raft::{Snapshot, SnapshotMeta};
use crate::record::{self, prefix};

use super::fold::{Fold, Place};
use super::{LogRecovered, LogStore, Records, Recovered, StateLoad, StateStore, StorageError, assemble};

/// One group's applied state.
#[derive(Clone, Debug, Default)]
struct GroupState {
    applied: SnapshotMeta,
    records: BTreeMap<Vec<u8>, Bytes>,
}

impl GroupState {
    fn apply(&mut self, checkpoint: &Checkpoint) {
        self.applied = checkpoint.meta.clone();
        for change in &checkpoint.changes {
            match &change.value {
                Some(value) => self.records.insert(change.key.clone(), Bytes::copy_from_slice(value)),
                None => self.records.remove(&change.key),
            };
        }
    }
}

/// A node's disk in a simulation.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    /// The log as a crash would leave it, with none of `pending_log`.
    durable_log: BTreeMap<GroupId, Fold>,
    /// The log with all that was appended.
    log: BTreeMap<GroupId, Fold>,
    /// Writes since the last sync of the log.
    pending_log: Vec<Write>,
    durable_state: BTreeMap<GroupId, GroupState>,
    state: BTreeMap<GroupId, GroupState>,
    /// Checkpoints since the last sync of the state.
    pending_state: Vec<Checkpoint>,
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
        self.pending_state.len()
    }

    /// [`LogStore::sync`], named apart from that of the state.
    ///
    /// # Errors
    /// None of its own.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        LogStore::sync(self)
    }

    /// [`StateStore::sync`], named apart from that of the log.
    ///
    /// # Errors
    /// None of its own.
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
        for checkpoint in self.pending_state.drain(..).take(keep_checkpoints) {
            self.durable_state.entry(checkpoint.group).or_default().apply(&checkpoint);
        }
        self.state = self.durable_state.clone();
    }

    /// What a replica of the group finds when its node starts on this disk. Call it after a [`SimDisk::crash`]: it sees all
    /// that was appended. Where a crash came between a snapshot's install and its write, that write is finished here.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where log and state do not fit: the code that wrote them is wrong.
    pub fn recover(&mut self, group: GroupId) -> Result<Recovered, StorageError> {
        let log = self.recover_log(group)?;
        let (applied, state) = self.load(group)?;
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

    /// Where the state of a group stands, synced or not.
    fn applied_index(&self, group: GroupId) -> u64 {
        self.state.get(&group).map_or(0, |state| state.applied.index)
    }

    /// Where the state of a group stands durably.
    fn durable_index(&self, group: GroupId) -> u64 {
        self.durable_state.get(&group).map_or(0, |state| state.applied.index)
    }

    /// Refuses what the shell must never append: a log that is cut above what the state store has.
    fn check_order(&self, write: &Write) -> Result<(), StorageError> {
        let stands = self.durable_index(write.group);
        let snapshot = write.raft.as_ref().and_then(|raft| raft.snapshot.as_ref()).map(|snapshot| snapshot.meta.index);
        let cuts = [snapshot, write.compact.as_ref().map(|meta| meta.index)];
        match cuts.into_iter().flatten().find(|index| *index > stands) {
            Some(index) => {
                Err(corrupt(write.group, &format!("the log is cut at {index}, the state store stands at {stands}")))
            }
            None => Ok(()),
        }
    }
}

fn corrupt(group: GroupId, why: &str) -> StorageError {
    StorageError::Corrupt { what: format!("{group}: {why}") }
}

fn fold(log: &mut BTreeMap<GroupId, Fold>, write: &Write) -> Result<(), StorageError> {
    let fold = log.entry(write.group).or_default();
    fold.apply(write, Place::default(), true, None).map_err(|misfit| corrupt(write.group, &misfit.0))
}

impl LogStore for SimDisk {
    fn append(&mut self, write: &Write) -> Result<(), StorageError> {
        self.check_order(write)?;
        fold(&mut self.log, write)?;
        self.pending_log.push(write.clone());
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        for write in std::mem::take(&mut self.pending_log) {
            fold(&mut self.durable_log, &write)?;
        }
        Ok(())
    }
}

impl StateStore for SimDisk {
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        let (index, stands) = (checkpoint.meta.index, self.applied_index(checkpoint.group));
        if index < stands {
            return Err(corrupt(checkpoint.group, &format!("a checkpoint at {index} after one at {stands}")));
        }
        self.state.entry(checkpoint.group).or_default().apply(checkpoint);
        self.pending_state.push(checkpoint.clone());
        Ok(())
    }

    fn install(&mut self, group: GroupId, snapshot: &Snapshot) -> Result<(), StorageError> {
        let records = record::decode_records(&snapshot.data).map_err(|bad| corrupt(group, &bad.to_string()))?;
        let stands = self.applied_index(group);
        if snapshot.meta.index < stands {
            let index = snapshot.meta.index;
            return Err(corrupt(group, &format!("a snapshot at {index} is older than the state at {stands}")));
        }
        let state = GroupState { applied: snapshot.meta.clone(), records: records.into_iter().collect() };
        StateStore::sync(self)?;
        self.durable_state.insert(group, state.clone());
        self.state.insert(group, state);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        for checkpoint in std::mem::take(&mut self.pending_state) {
            self.durable_state.entry(checkpoint.group).or_default().apply(&checkpoint);
        }
        Ok(())
    }

    fn read(&self, group: GroupId, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.state.get(&group).and_then(|state| state.records.get(key)).cloned())
    }
}

impl StateLoad for SimDisk {
    fn load(&self, group: GroupId) -> Result<(SnapshotMeta, Records), StorageError> {
        let Some(state) = self.state.get(&group) else {
            return Ok((SnapshotMeta::default(), Vec::new()));
        };
        let records = state.records.iter().filter(|(key, _)| key.first() != Some(&prefix::BODY));
        Ok((state.applied.clone(), records.map(|(key, value)| (key.clone(), value.clone())).collect()))
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
