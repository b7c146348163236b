//! A data directory that is made from a backup: log and state as if a leader had sent the backup as a snapshot.
//!
//! ```text
//!   begin: the directory is empty ──▶ <data>/restoring ──▶ identity, log, state
//!   put, put, put: records into the state store, in the order of the backup; the last of a key counts
//!   finish: the log begins where the state stands ──▶ everything is read back ──▶ ready, and <data>/restoring is gone
//! ```
//!
//! # Invariants
//! - As long as `restoring` is there no node takes the directory: it would begin with a part of what was to be in it.
//! - What is ready has been read back: every record, and the body of every message that waits.

use std::path::{Path, PathBuf};

use crate::ids::GroupId;
use crate::node::effect::Checkpoint;
use crate::node::{Machine, machine};
use crate::raft::SnapshotMeta;
use crate::record::Change;

use super::assemble::assemble_groups;
use super::files::{create_directory, failed, replace, sync_directory};
use super::identity::{Claim, DataDirectory, RESTORING, is_empty};
use super::log::LogsRecovered;
use super::{LogOptions, SegmentLog, StateDisk, StateOptions, StateStore as _, StorageError};

/// Records, and bytes, that are written at once.
const BATCH_RECORDS: usize = 512;
const BATCH_BYTES: usize = 512 * 1024;

/// A data directory that is being made.
#[derive(Debug)]
pub struct Restoring {
    path: PathBuf,
    directory: DataDirectory,
    log: SegmentLog,
    logs: LogsRecovered,
    state: StateDisk,
}

impl Restoring {
    /// Begins in a directory that is empty or does not exist.
    ///
    /// # Errors
    /// [`StorageError::Refused`] where something is in it, which is left as it is; else what the disk says.
    pub fn begin(path: &Path, claim: &Claim) -> Result<Self, StorageError> {
        if !is_empty(path)? {
            let what = format!("data directory {}: it is not empty; a restore makes a new one", path.display());
            return Err(StorageError::Refused { what });
        }
        create_directory(path)?;
        replace(&path.join(RESTORING), b"A restore into this directory has begun, and has not ended.\n")?;
        let directory = DataDirectory::open_restoring(path, claim)?;
        let (log, logs) = SegmentLog::open(&directory.log_path(), directory.identity(), LogOptions::default())?;
        let groups = directory.identity().groups;
        let state = StateDisk::open_at(&directory.state_path(), true, groups, &StateOptions::default())?;
        Ok(Self { path: path.to_owned(), directory, log, logs, state })
    }

    /// Writes records of a group that is to stand at `meta`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn put(&mut self, group: GroupId, meta: &SnapshotMeta, changes: Vec<Change>) -> Result<(), StorageError> {
        let mut changes = changes.into_iter();
        loop {
            // Little enough to be one batch, which a larger checkpoint is not.
            let (mut batch, mut bytes) = (Vec::new(), 0);
            for change in changes.by_ref() {
                bytes += change.key.len() + change.value.as_ref().map_or(0, Vec::len);
                batch.push(change);
                if batch.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES {
                    break;
                }
            }
            if batch.is_empty() {
                return Ok(());
            }
            self.state.checkpoint(&Checkpoint { group, meta: meta.clone(), changes: batch, whole: false })?;
        }
    }

    /// Makes it durable, reads it back, and lets nodes use it.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where the records make no state, or a message lacks its body; else what the disk says.
    pub fn finish(self) -> Result<(), StorageError> {
        let Self { path, mut directory, mut log, logs, mut state } = self;
        state.sync()?;
        let groups = directory.identity().groups;
        for (group, found) in assemble_groups(groups, &mut log, logs, &state)? {
            let records = found.state.iter().map(|(key, value)| (key.as_slice(), value.as_ref()));
            let machine = Machine::restore(0, found.applied.clone(), records)
                .map_err(|bad| StorageError::Corrupt { what: format!("the backup of {group}: {bad}") })?;
            for id in machine.queue().live_bodies(0, found.applied.index) {
                if state.read(group, &machine::body_key(id))?.is_none() {
                    let what = format!("the backup of {group}: message {id} lacks its body");
                    return Err(StorageError::Corrupt { what });
                }
            }
        }
        directory.mark_ready()?;
        let marker = path.join(RESTORING);
        std::fs::remove_file(&marker).map_err(failed("remove", &marker))?;
        sync_directory(&path)
    }
}

#[cfg(test)]
mod tests {
    use crate::ids::NodeId;
    use crate::node::machine::GENERATION_KEY;
    use crate::record;
    use crate::storage::open;

    use super::*;

    const G: GroupId = GroupId(1);

    fn claim() -> Claim {
        Claim { node: NodeId::numbered(1), cluster: Some(7), groups: 3, joins: false }
    }

    fn meta() -> SnapshotMeta {
        SnapshotMeta { index: 41, term: 5, stamp_ms: 9, wall_ms: 10, membership: None }
    }

    fn generation(value: u16) -> Vec<Change> {
        vec![Change { key: GENERATION_KEY.to_vec(), value: Some(record::encode(&value)) }]
    }

    #[test]
    fn log_and_state_stand_where_the_backup_did() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let mut restoring = Restoring::begin(&path, &claim()).unwrap();
        restoring.put(G, &meta(), generation(3)).unwrap();
        restoring.put(G, &meta(), generation(4)).unwrap();
        restoring.finish().unwrap();
        let opened = open(&path, &Claim { cluster: None, ..claim() }, LogOptions::default()).unwrap();
        assert_eq!(opened.directory.identity().cluster, Some(7));
        let found = &opened.recovered[&G];
        assert_eq!((&found.base, &found.applied, found.entries.len()), (&meta(), &meta(), 0));
        assert_eq!((found.hard_state.term, found.hard_state.vote), (5, None));
        let records = found.state.iter().map(|(key, value)| (key.as_slice(), value.as_ref()));
        let machine = Machine::restore(0, found.applied.clone(), records).unwrap();
        assert_eq!(machine.generation(), 4, "the last of a key counts");
        // It goes where the state goes: to whoever gets a snapshot of it.
        assert!(machine.records().iter().any(|(key, _)| key == GENERATION_KEY));
        assert_eq!(opened.recovered[&GroupId(0)].base, SnapshotMeta::default());
    }

    #[test]
    fn what_was_interrupted_is_taken_by_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let mut restoring = Restoring::begin(folder.path(), &claim()).unwrap();
        restoring.put(G, &meta(), generation(1)).unwrap();
        drop(restoring);
        let refused = open(folder.path(), &claim(), LogOptions::default()).unwrap_err();
        assert!(refused.to_string().contains("a restore into it has not ended"), "{refused}");
        let refused = Restoring::begin(folder.path(), &claim()).unwrap_err();
        assert!(refused.to_string().contains("it is not empty"), "{refused}");
    }

    #[test]
    fn records_that_make_no_state_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut restoring = Restoring::begin(folder.path(), &claim()).unwrap();
        restoring.put(G, &meta(), vec![Change { key: b"l".to_vec(), value: Some(vec![1]) }]).unwrap();
        assert!(matches!(restoring.finish(), Err(StorageError::Corrupt { .. })));
        assert!(open(folder.path(), &claim(), LogOptions::default()).is_err());
    }
}
