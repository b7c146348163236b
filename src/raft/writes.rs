//! Writes on their way to the disk, and the messages that wait for them.
//!
//! A message that promises something (a vote, a snapshot installed, the term that an acknowledgement speaks for) must not leave
//! before the promise is durable. It is held here, by the sequence of the write that makes it so.
//!
//! A write's completion says "what I carried is durable", and by then the log may have been cut and grown again: the same index
//! holds another entry. So a cut lowers the end of every write in flight; a completion can only ever
//! speak for what it really carried (etcd's append ABA race; Ra 3.1.8 committed unreplicated entries for want of this).

use std::collections::VecDeque;

use crate::ids::{Index, ReplicaId};
use crate::marks::{Rare, mark};

use super::message::{HardState, Message};

/// One write in flight.
#[derive(Clone, Debug)]
struct Write {
    sequence: u64,
    handed_us: u64,
    /// The last entry that it carries and that is still in the log; 0 without.
    last: Index,
    hard_state: Option<HardState>,
    /// Index of the snapshot that it carries.
    snapshot: Option<Index>,
    held: Vec<(ReplicaId, Message)>,
}

/// What a completion made durable.
#[derive(Debug, Default)]
pub(super) struct Completed {
    pub(super) last: Index,
    pub(super) snapshot: Option<Index>,
    pub(super) released: Vec<(ReplicaId, Message)>,
}

/// All writes in flight, in order. Their number is bounded by the shell, which hands a storage round at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes {
    last_sequence: u64,
    pending: VecDeque<Write>,
    /// Waits for the next write, or the last in flight where there is nothing to write.
    held: Vec<(ReplicaId, Message)>,
    /// Term and vote as they are on disk.
    durable: HardState,
}

impl Writes {
    pub(super) fn new(durable: HardState) -> Self {
        Self { durable, ..Self::default() }
    }

    /// Term and vote as they are on disk.
    pub(super) fn durable(&self) -> HardState {
        self.durable
    }

    /// Term and vote as the disk will know them after the writes in flight.
    pub(super) fn handed(&self) -> HardState {
        self.pending.iter().rev().find_map(|write| write.hard_state).unwrap_or(self.durable)
    }

    /// Keeps a message until everything that was decided so far is durable.
    pub(super) fn hold(&mut self, to: ReplicaId, message: Message) {
        self.held.push((to, message));
    }

    /// Numbers a write that is handed out now.
    pub(super) fn begin(
        &mut self,
        now_us: u64,
        last: Index,
        hard_state: Option<HardState>,
        snapshot: Option<Index>,
    ) -> u64 {
        self.last_sequence += 1;
        let held = std::mem::take(&mut self.held);
        let sequence = self.last_sequence;
        self.pending.push_back(Write { sequence, handed_us: now_us, last, hard_state, snapshot, held });
        sequence
    }

    /// There is nothing to write: what waits for the next write waits for the last in flight, or is returned.
    pub(super) fn settle_held(&mut self) -> Vec<(ReplicaId, Message)> {
        let held = std::mem::take(&mut self.held);
        match self.pending.back_mut() {
            Some(write) => {
                write.held.extend(held);
                Vec::new()
            }
            None => held,
        }
    }

    /// The log was cut at `from`.
    pub(super) fn cut(&mut self, from: Index) {
        for write in self.pending.iter_mut().filter(|write| write.last >= from) {
            mark(Rare::CompletionShortened);
            write.last = from - 1;
        }
    }

    /// The term moved on. Promises of the old one interest nobody; dropping them is a lost message, which is allowed.
    pub(super) fn drop_held(&mut self) {
        if !self.held.is_empty() || self.pending.iter().any(|write| !write.held.is_empty()) {
            mark(Rare::PromisesDropped);
        }
        self.held.clear();
        for write in &mut self.pending {
            write.held.clear();
        }
    }

    /// Everything up to `sequence` is durable. An old or repeated completion changes nothing.
    pub(super) fn complete(&mut self, sequence: u64) -> Completed {
        assert!(sequence <= self.last_sequence, "write {sequence} is durable, {} was the last", self.last_sequence);
        let mut completed = Completed::default();
        let count = self.pending.partition_point(|write| write.sequence <= sequence);
        for write in self.pending.drain(..count) {
            completed.last = completed.last.max(write.last);
            completed.snapshot = write.snapshot.or(completed.snapshot);
            completed.released.extend(write.held);
            self.durable = write.hard_state.unwrap_or(self.durable);
        }
        completed
    }

    /// How long the oldest write has been waiting for the disk.
    pub(super) fn waiting_us(&self, now_us: u64) -> u64 {
        self.pending.front().map_or(0, |write| now_us.saturating_sub(write.handed_us))
    }
}

/// What the model checker tells states by: all of it but the instants, and the numbers, of which only the order means anything.
#[cfg(test)]
impl std::hash::Hash for Writes {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        let Self { last_sequence: _, pending, held, durable } = self;
        pending.len().hash(hasher);
        for Write { sequence: _, handed_us: _, last, hard_state, snapshot, held } in pending {
            (last, hard_state, snapshot, held).hash(hasher);
        }
        (held, durable).hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Body;
    use super::*;
    use crate::ids::NodeId;

    fn message(term: u64) -> (ReplicaId, Message) {
        (ReplicaId::founder(NodeId::numbered(2)), Message::new(term, Body::VoteReply { granted: true }))
    }

    #[test]
    fn a_message_waits_for_the_write_that_was_made_with_it() {
        let mut writes = Writes::default();
        writes.begin(0, 3, None, None);
        writes.hold(message(1).0, message(1).1);
        let second = writes.begin(0, 4, None, None);
        assert_eq!(writes.complete(second - 1).released, vec![]);
        assert_eq!(writes.complete(second).released, vec![message(1)]);
        assert_eq!(writes.complete(second).released, vec![], "a repeated completion releases nothing");
    }

    #[test]
    fn without_a_new_write_a_message_waits_for_the_last_in_flight() {
        let mut writes = Writes::default();
        writes.begin(0, 3, None, None);
        writes.hold(message(1).0, message(1).1);
        assert_eq!(writes.settle_held(), vec![]);
        assert_eq!(writes.complete(1).released, vec![message(1)]);
        writes.hold(message(2).0, message(2).1);
        assert_eq!(writes.settle_held(), vec![message(2)], "nothing is in flight, so all is durable");
    }

    #[test]
    fn a_cut_lowers_what_a_completion_speaks_for() {
        let mut writes = Writes::default();
        writes.begin(0, 5, None, None);
        writes.begin(0, 9, None, None);
        writes.cut(4);
        writes.begin(0, 6, None, None);
        assert_eq!(writes.complete(1).last, 3);
        assert_eq!(writes.complete(2).last, 3);
        assert_eq!(writes.complete(3).last, 6);
    }

    #[test]
    fn the_durable_state_is_that_of_the_last_completed_write() {
        let (one, two) = (HardState { term: 1, vote: None }, HardState { term: 2, vote: None });
        let mut writes = Writes::new(one);
        writes.begin(0, 0, Some(two), None);
        writes.begin(0, 7, None, None);
        assert_eq!((writes.durable(), writes.handed()), (one, two));
        writes.complete(1);
        assert_eq!((writes.durable(), writes.handed()), (two, two));
    }

    #[test]
    #[should_panic(expected = "write 1 is durable, 0 was the last")]
    fn a_completion_of_a_write_that_never_began_is_our_own_bug() {
        Writes::default().complete(1);
    }
}
