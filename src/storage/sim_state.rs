//! The state store of a simulated node: records in memory, what no sync has covered kept apart.
//!
//! It is stricter than the real one about what is our own bug: a write that cuts the log above what is durable here is an
//! error, and so is a checkpoint or a snapshot that goes back. Of what no sync covered a crash keeps a prefix, as sled recovers one.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::GroupId;
use crate::node::effect::{Checkpoint, Write};
use crate::raft::{Snapshot, SnapshotMeta};
use crate::record::{self, prefix};

use super::{Records, StateLoad, StateStore, StorageError, Visit};

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

/// The applied state of a simulated node's groups.
#[derive(Clone, Debug, Default)]
pub(super) struct SimState {
    durable: BTreeMap<GroupId, GroupState>,
    state: BTreeMap<GroupId, GroupState>,
    /// Checkpoints since the last sync.
    pending: Vec<Checkpoint>,
    /// The disk under it refuses everything.
    pub(super) refuses: bool,
}

impl SimState {
    /// Checkpoints that no sync has covered yet.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The power goes: the first `keep` of the pending checkpoints survive.
    pub(super) fn crash(&mut self, keep: usize) {
        for checkpoint in self.pending.drain(..).take(keep) {
            self.durable.entry(checkpoint.group).or_default().apply(&checkpoint);
        }
        self.state = self.durable.clone();
    }

    /// Refuses what the shell must never append: a log that is cut above what is durable here.
    pub(super) fn check_order(&self, write: &Write) -> Result<(), StorageError> {
        let stands = self.durable.get(&write.group).map_or(0, |state| state.applied.index);
        let snapshot = write.raft.as_ref().and_then(|raft| raft.snapshot.as_ref()).map(|snapshot| snapshot.meta.index);
        let cuts = [snapshot, write.compact.as_ref().map(|meta| meta.index)];
        match cuts.into_iter().flatten().find(|index| *index > stands) {
            Some(index) => {
                Err(corrupt(write.group, &format!("the log is cut at {index}, the state store stands at {stands}")))
            }
            None => Ok(()),
        }
    }

    /// Where the state of a group stands, synced or not.
    fn applied_index(&self, group: GroupId) -> u64 {
        self.state.get(&group).map_or(0, |state| state.applied.index)
    }

    fn may(&self) -> Result<(), StorageError> {
        if self.refuses { Err(refused("write the state")) } else { Ok(()) }
    }
}

/// The error of a disk that was told to fail.
pub(super) fn refused(what: &str) -> StorageError {
    StorageError::Io { what: what.to_owned(), source: std::io::Error::other("input/output error") }
}

pub(super) fn corrupt(group: GroupId, why: &str) -> StorageError {
    StorageError::Corrupt { what: format!("{group}: {why}") }
}

impl StateStore for SimState {
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        self.may()?;
        let (index, stands) = (checkpoint.meta.index, self.applied_index(checkpoint.group));
        if index < stands {
            return Err(corrupt(checkpoint.group, &format!("a checkpoint at {index} after one at {stands}")));
        }
        self.state.entry(checkpoint.group).or_default().apply(checkpoint);
        self.pending.push(checkpoint.clone());
        Ok(())
    }

    fn install(&mut self, group: GroupId, snapshot: &Snapshot) -> Result<(), StorageError> {
        self.may()?;
        let records = record::decode_records(&snapshot.data).map_err(|bad| corrupt(group, &bad.to_string()))?;
        let stands = self.applied_index(group);
        if snapshot.meta.index < stands {
            let index = snapshot.meta.index;
            return Err(corrupt(group, &format!("a snapshot at {index} is older than the state at {stands}")));
        }
        let state = GroupState { applied: snapshot.meta.clone(), records: records.into_iter().collect() };
        StateStore::sync(self)?;
        self.durable.insert(group, state.clone());
        self.state.insert(group, state);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.may()?;
        for checkpoint in std::mem::take(&mut self.pending) {
            self.durable.entry(checkpoint.group).or_default().apply(&checkpoint);
        }
        Ok(())
    }

    fn read(&self, group: GroupId, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.state.get(&group).and_then(|state| state.records.get(key)).cloned())
    }
}

impl StateLoad for SimState {
    fn load(&self, group: GroupId) -> Result<(SnapshotMeta, Records), StorageError> {
        let Some(state) = self.state.get(&group) else {
            return Ok((SnapshotMeta::default(), Vec::new()));
        };
        let records = state.records.iter().filter(|(key, _)| key.first() != Some(&prefix::BODY));
        Ok((state.applied.clone(), records.map(|(key, value)| (key.clone(), value.clone())).collect()))
    }

    fn stands(&self, group: GroupId) -> SnapshotMeta {
        self.state.get(&group).map(|state| state.applied.clone()).unwrap_or_default()
    }

    fn each_body(&self, group: GroupId, visit: Visit<'_>) -> Result<(), StorageError> {
        let mut records = self.state.get(&group).into_iter().flat_map(|state| &state.records);
        records.try_for_each(|(key, value)| if key.first() == Some(&prefix::BODY) { visit(key, value) } else { Ok(()) })
    }
}
