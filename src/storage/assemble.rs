//! Puts together what the log and the state store hold of a group when its node starts.
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

use bytes::Bytes;

use crate::ids::GroupId;
use crate::node::effect::Write;
use crate::raft::{HardState, Persist, Snapshot, SnapshotMeta};

use super::{LogRecovered, Records, Recovered, StorageError};

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
    let raised = (hard_state.term < applied.term).then_some(HardState { term: applied.term, vote: None });
    let snapshot = Snapshot { meta: applied.clone(), data: Bytes::new() };
    let raft = Persist { hard_state: raised, snapshot: Some(snapshot), ..Persist::default() };
    let repair = Write { group, sequence: 0, raft: Some(raft), journal: Vec::new(), compact: None };
    let hard_state = raised.unwrap_or(hard_state);
    let recovered = Recovered { hard_state, base: applied.clone(), entries: Vec::new(), journal, applied, state };
    Ok((recovered, Some(repair)))
}
