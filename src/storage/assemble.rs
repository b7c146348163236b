//! Opens a node's storage, and puts together what log and state store hold of each group.
//!
//! The two are written one after the other, so a crash in between leaves one ahead:
//!
//! | state stands                         | what happened                                   | what is done                |
//! |--------------------------------------|-------------------------------------------------|-----------------------------|
//! | between base and end, terms agree    | the usual case                                  | replay the entries after it |
//! | beyond the end, or of another term   | a snapshot was installed, its write was not     | finish it: base := state    |
//! | before the base                      | the state store has lost what it had on disk    | refuse                      |
//!
//! Finishing is safe: what a leader sends as a snapshot is committed, and nothing was acknowledged yet. The hard state may be
//! older than the snapshot's term, since it was in the write that is missing; the term is raised to it, without a vote.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use crate::ids::GroupId;
use crate::marks::{Rare, mark};
use crate::node::effect::Write;
use crate::raft::{HardState, Persist, Snapshot, SnapshotMeta};

use super::identity::{Claim, DataDirectory};
use super::log::LogsRecovered;
use super::{
    LogOptions, LogRecovered, LogStore, Records, Recovered, SegmentLog, StateDisk, StateLoad, StateOptions,
    StorageError,
};

/// What can be chosen about a node's storage.
#[derive(Clone, Debug, Default)]
pub struct StorageOptions {
    /// About the log.
    pub log: LogOptions,
    /// About the state store.
    pub state: StateOptions,
}

impl From<LogOptions> for StorageOptions {
    fn from(log: LogOptions) -> Self {
        Self { log, state: StateOptions::default() }
    }
}

/// A node's storage, ready for use.
#[derive(Debug)]
pub struct Opened {
    /// Whose it is; locked until this is dropped.
    pub directory: DataDirectory,
    /// The log, for its writer.
    pub log: SegmentLog,
    /// The state store, for its writer.
    pub state: StateDisk,
    /// What each group starts from: all groups of the cluster, those that have never run too.
    pub recovered: BTreeMap<GroupId, Recovered>,
}

/// Opens a data directory with all that is in it, or makes one.
///
/// # Errors
/// [`StorageError::Refused`] where the directory is another's, [`StorageError::Corrupt`] where something durable is damaged or
/// gone; else what the disk says.
pub fn open(path: &Path, claim: &Claim, options: impl Into<StorageOptions>) -> Result<Opened, StorageError> {
    let options = options.into();
    let mut directory = DataDirectory::open(path, claim)?;
    let identity = *directory.identity();
    let (mut log, logs) = SegmentLog::open(&directory.log_path(), &identity, options.log)?;
    let state = StateDisk::open_at(&directory.state_path(), !identity.ready, identity.groups, &options.state)?;
    let recovered = assemble_groups(identity.groups, &mut log, logs, &state)?;
    directory.mark_ready()?;
    Ok(Opened { directory, log, state, recovered })
}

/// What each group starts from; what a crash interrupted is finished in the log, durably.
pub(super) fn assemble_groups(
    groups: u32,
    log: &mut impl LogStore,
    mut logs: LogsRecovered,
    state: &impl StateLoad,
) -> Result<BTreeMap<GroupId, Recovered>, StorageError> {
    let mut recovered = BTreeMap::new();
    for group in (0..groups).map(GroupId) {
        let (applied, records) = state.load(group)?;
        let (group_recovered, repair) = assemble(group, logs.remove(&group).unwrap_or_default(), applied, records)?;
        if let Some(write) = repair {
            log.append(&write)?;
        }
        recovered.insert(group, group_recovered);
    }
    log.sync()?;
    log.idle(0)?;
    Ok(recovered)
}

/// What a group starts from, and a write that has to be in the log before it does, where a crash interrupted one.
///
/// # Errors
/// [`StorageError::Corrupt`] where the state stands before the beginning of the log.
pub fn assemble(
    group: GroupId,
    log: LogRecovered,
    applied: SnapshotMeta,
    state: Records,
) -> Result<(Recovered, Option<Write>), StorageError> {
    let LogRecovered { hard_state, base, entries, journal } = log;
    if applied.index < base.index {
        let (stands, begins) = (applied.index, base.index);
        let what = format!("{group}: the state store stands at {stands}, but the log begins after {begins}");
        return Err(StorageError::Corrupt { what });
    }
    let position = usize::try_from(applied.index - base.index).unwrap_or(usize::MAX);
    let term = match position {
        0 => Some(base.term),
        _ => entries.get(position - 1).map(|entry| entry.term),
    };
    if term == Some(applied.term) {
        return Ok((Recovered { hard_state, base, entries, journal, applied, state }, None));
    }
    if term.is_some() && position == 0 {
        let (stands, begins) = (applied.term, base.term);
        let what = format!("{group}: at {} the state store has term {stands}, the log {begins}", base.index);
        return Err(StorageError::Corrupt { what });
    }
    mark(Rare::InstallFinished);
    let raised = (hard_state.term < applied.term).then_some(HardState { term: applied.term, vote: None });
    let snapshot = Snapshot { meta: applied.clone(), data: Bytes::new() };
    let raft = Persist { hard_state: raised, snapshot: Some(snapshot), ..Persist::default() };
    let repair = Write { group, sequence: 0, raft: Some(raft), journal: Vec::new(), compact: None };
    let hard_state = raised.unwrap_or(hard_state);
    let recovered = Recovered { hard_state, base: applied.clone(), entries: Vec::new(), journal, applied, state };
    Ok((recovered, Some(repair)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn log(entries_to: u64) -> LogRecovered {
        let entries = (6..=entries_to).map(|index| entry(index, 3)).collect();
        LogRecovered { hard_state: HardState { term: 3, vote: None }, base: meta(5, 2), entries, journal: Vec::new() }
    }

    #[test]
    fn a_state_within_the_log_needs_no_repair() {
        for (applied, entries_to) in [(meta(5, 2), 5), (meta(5, 2), 8), (meta(6, 3), 8), (meta(8, 3), 8)] {
            let (recovered, repair) = assemble(G, log(entries_to), applied.clone(), Vec::new()).unwrap();
            assert_eq!((recovered.applied, repair), (applied, None));
            assert_eq!(recovered.entries, log(entries_to).entries);
        }
    }

    #[test]
    fn an_installed_snapshot_whose_write_is_missing_is_finished() {
        for applied in [meta(9, 4), meta(7, 4), meta(9, 3)] {
            let (recovered, repair) = assemble(G, log(8), applied.clone(), Vec::new()).unwrap();
            assert_eq!((&recovered.base, &recovered.applied), (&applied, &applied));
            assert_eq!(recovered.entries, []);
            assert_eq!(recovered.hard_state.term, applied.term.max(3));
            let raft = repair.unwrap().raft.unwrap();
            assert_eq!(raft.snapshot.unwrap().meta, applied);
            assert_eq!(raft.hard_state.is_some(), applied.term > 3);
        }
    }

    #[test]
    fn a_state_that_lost_what_the_log_relies_on_is_refused() {
        for applied in [SnapshotMeta::default(), meta(4, 2), meta(5, 1)] {
            assert!(matches!(assemble(G, log(8), applied, Vec::new()), Err(StorageError::Corrupt { .. })));
        }
    }
}
