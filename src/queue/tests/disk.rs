//! What the state store would hold: the changes of each checkpoint, put into a map.

use std::collections::BTreeMap;

use crate::queue::State;
use crate::queue::state::Limits;
use crate::record::Change;

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Disk {
    /// Takes a checkpoint, and checks that the map is the state then, and that no change was idle.
    pub(super) fn checkpoint(&mut self, state: &mut State) -> Vec<Change> {
        let changes = state.take_changes();
        assert!(changes.is_sorted_by(|one, other| one.key < other.key), "changes in key order");
        for Change { key, value } in changes.clone() {
            match value {
                Some(value) => drop(self.records.insert(key, value)),
                None => assert!(self.records.remove(&key).is_some(), "a record is deleted that never was"),
            }
        }
        let records = state.records();
        assert!(records.is_sorted_by(|one, other| one.0 < other.0), "records in key order");
        assert_eq!(self.records, records.into_iter().collect(), "the checkpoints add up to the state");
        assert!(state.take_changes().is_empty(), "changes are told once");
        changes
    }

    /// The state as a node that starts finds it.
    pub(super) fn restore(&self, limits: Limits) -> State {
        let mut state = State { limits, ..State::default() };
        for (key, value) in &self.records {
            state.restore(key, value).expect("what was written can be read");
        }
        state.finish().expect("what was written fits together");
        assert!(state.take_changes().is_empty(), "what was read needs no writing");
        state
    }
}
