//! What Raft promises, watched from outside by someone who sees all nodes (figure 3 of the paper, and the lease).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::{Index, NodeId, Now, Term};
use crate::raft::{Entry, Raft, Role, Snapshot};
use crate::rules::Rules;

/// What was ever seen.
#[derive(Default)]
pub(super) struct Safety {
    leaders: BTreeMap<Term, NodeId>,
    /// Every entry that any node applied: all must apply the same.
    applied: BTreeMap<Index, (Term, u64, Bytes)>,
    restored: u64,
    /// Reads that are not answered, and what had been applied anywhere when they came.
    reads: BTreeMap<u64, Index>,
    answered: u64,
}

impl Safety {
    /// *State machine safety.*
    pub(super) fn applied(&mut self, id: NodeId, entry: &Entry) {
        let this = (entry.term, entry.stamp_ms, entry.data.clone());
        let first = self.applied.entry(entry.index).or_insert_with(|| this.clone());
        assert!(*first == this, "SAFETY: {id} applies {entry:?}, another applied {first:?}");
        let before = self.applied.get(&(entry.index - 1)).map_or(0, |(_, stamp_ms, _)| *stamp_ms);
        assert!(before <= entry.stamp_ms, "SAFETY: log time fell from {before} to {}", entry.stamp_ms);
    }

    /// A read comes to a node: what anyone has applied by now must be in its answer.
    pub(super) fn reading(&mut self, ticket: u64) {
        self.reads.insert(ticket, self.applied.keys().next_back().copied().unwrap_or(0));
    }

    /// *Linearizable reads.*
    pub(super) fn read(&mut self, ticket: u64, index: Index) {
        let floor = self.reads.remove(&ticket).expect("a read is answered once, and only where it was asked");
        assert!(floor <= index, "SAFETY: a read that began after {floor} was applied is answered at {index}");
        self.answered += 1;
    }

    pub(super) fn reads_answered(&self) -> u64 {
        self.answered
    }

    /// A snapshot is what the entries before it make.
    pub(super) fn restored(&mut self, id: NodeId, snapshot: &Snapshot) {
        let mut state = Vec::new();
        for (_, _, data) in self.applied.range(..=snapshot.meta.index).map(|(_, entry)| entry) {
            state.extend_from_slice(data);
            state.push(b'\n');
        }
        self.restored += 1;
        assert!(snapshot.data == state, "SAFETY: {id} restores another state at {}", snapshot.meta.index);
    }

    pub(super) fn elections(&self) -> usize {
        self.leaders.len()
    }

    pub(super) fn restored_count(&self) -> u64 {
        self.restored
    }

    pub(super) fn applied_count(&self) -> usize {
        self.applied.len()
    }

    /// `all` are the nodes that are up, `raft` the one that something just happened to.
    pub(super) fn check<R: Rules>(&mut self, raft: &Raft<R>, now: Now, all: &[(&Raft<R>, Now)], true_now_us: u64) {
        if raft.role() == Role::Leader {
            self.check_leader(raft);
        }
        for (other, _) in all {
            if other.id() != raft.id() {
                check_log_matching(raft, other);
            }
        }
        check_leases(all);
        // Log time never runs ahead of true time by more than the clocks' drift: no lease expires early.
        let (log_time_ms, true_ms) = (raft.log_time_ms(now), true_now_us / 1000);
        assert!(log_time_ms <= true_ms + true_ms / 50 + 1, "SAFETY: log time {log_time_ms} at {true_ms}");
    }

    /// *Election safety* and *leader completeness.*
    fn check_leader<R: Rules>(&mut self, raft: &Raft<R>) {
        let (term, id) = (raft.term(), raft.id());
        let first = *self.leaders.entry(term).or_insert(id);
        assert!(first == id, "SAFETY: {first} and {id} both lead term {term}");
        for (index, (entry_term, _, _)) in self.applied.range(raft.base().index + 1..).rev().take(32) {
            if *entry_term < term {
                let own = raft.term_at(*index);
                assert!(
                    own == Some(*entry_term),
                    "SAFETY: {id} leads {term} with {own:?}, not {entry_term}, at {index}"
                );
            }
        }
    }
}

/// *Log matching*: two logs that agree at an index agree before it. Walks back from the last common index as far as it
/// can still matter; what lies deeper was walked when it was young.
fn check_log_matching<R: Rules>(one: &Raft<R>, other: &Raft<R>) {
    let last = one.last_index().min(other.last_index());
    let first = one.base().index.max(other.base().index) + 1;
    let mut agreed = false;
    for index in (first.max(last.saturating_sub(32))..=last).rev() {
        let (Some(ours), Some(theirs)) = (one.entry(index), other.entry(index)) else { return };
        agreed |= ours.term == theirs.term;
        assert!(!agreed || ours == theirs, "SAFETY: logs agree above, but not at, {ours:?} and {theirs:?}");
    }
}

/// While a lease holds, on the clock of who holds it, there is no leader of a later term.
fn check_leases<R: Rules>(all: &[(&Raft<R>, Now)]) {
    let newest = all.iter().filter(|(raft, _)| raft.role() == Role::Leader).map(|(raft, _)| raft.term()).max();
    for (raft, now) in all {
        let holds = raft.lease_until_us().is_some_and(|until_us| until_us > now.mono_us);
        if holds && newest.is_some_and(|term| term > raft.term()) {
            panic!("SAFETY: {} holds a lease in {}, and {newest:?} has a leader", raft.id(), raft.term());
        }
    }
}
