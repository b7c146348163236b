//! The replicated log as far as the bus depends on it: entries in order, main memory, and which writes were executed.

use std::collections::BTreeMap;

use trine_protocol::{Error, ErrorCode};

use super::digest;
use crate::cache::{Applied, Committed, Memory, Proposal, WriteId};
use crate::ids::{At, Index, Term};

/// An entry that is not applied everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) term: Term,
    /// None is the no-op that a term begins with.
    pub(super) proposal: Option<Proposal>,
}

/// What a replica has applied.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    pub(super) memory: Memory,
    pub(super) index: Index,
    /// What became of each session's writes. It outlives every path through the model.
    done: BTreeMap<WriteId, Applied>,
    acked_below: BTreeMap<u64, u64>,
    pub(super) digest: u64,
}

impl Machine {
    /// Applies an entry. An ownership is executed once, and not at all where its number was given up.
    pub(super) fn apply(&mut self, entry: &Entry) -> Committed {
        self.index += 1;
        self.memory.advance(self.index);
        let committed = entry.proposal.as_ref().map_or(Committed::Applied(Applied::Void), |it| self.execute(it));
        // What changed is for the state store.
        self.memory.take_changes();
        let cells: Vec<_> = self.memory.cells().collect();
        self.digest = digest((self.index, cells, self.memory.members(), &self.done, &self.acked_below));
        committed
    }

    fn execute(&mut self, proposal: &Proposal) -> Committed {
        let at = At { index: self.index, stamp_ms: 0, wall_ms: 0, generation: 0 };
        let Some((write, acked_below)) = proposal.write else {
            return Committed::Applied(self.memory.apply(at, &proposal.command));
        };
        let floor = self.acked_below.entry(write.session).or_insert(1);
        if acked_below > *floor {
            *floor = acked_below;
            self.done.retain(|done, _| done.session != write.session || done.sequence >= acked_below);
        }
        if let Some(applied) = self.done.get(&write) {
            return Committed::Repeated(*applied);
        }
        if write.sequence < *floor {
            return Committed::Refused(Error::new(ErrorCode::OutcomeUnknown, "given up"));
        }
        let applied = self.memory.apply(at, &proposal.command);
        if applied != Applied::Void {
            self.done.insert(write, applied);
        }
        Committed::Applied(applied)
    }
}
