//! Linearizable reads without a log entry: the read index (section 6.4 of Ongaro's thesis).
//!
//! A leader may have been deposed without knowing it, and then its state is old. So a read waits until a majority has answered
//! something that was sent *after* the read came: at that instant there was no newer leader, so whatever anyone had been told
//! is committed here. It is answered when the state has been applied as far as the commit index of that time.
//!
//! ```text
//!   read ──▶ wait for the term's own no-op ──▶ index := commit ──▶ a round begun after the read is acknowledged by a majority
//!                                                            ──▶ applied >= index ──▶ answer
//! ```
//!
//! # Invariants
//! - The rounds are those of the heartbeats: numbered within the term, never used twice. An answer to an older round than the
//!   read's proves nothing about it (etcd 20418: an identifier used again let late answers confirm a new read).
//! - Until an entry of its own term is committed, a leader does not know how far the log is committed, and no read has an index.
//! - Reads are answered in the order in which they came. When leadership ends, those that wait are forgotten: whoever asked asks
//!   the new leader.
//!
//! One round at a time is sent for reads: what comes meanwhile shares the next one, so many readers cost no more messages
//! than a few. A round that is lost is repeated with the next heartbeat.

use std::collections::VecDeque;

use crate::ids::{Index, NodeId, Now};
use crate::rules::{Rule, Rules};

use super::node::{Node, RoleState};

/// Why a read was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another replica leads, or none.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, as far as this replica knows.
        leader: Option<NodeId>,
    },
    /// [`Config::reads_max`](super::Config::reads_max) is reached.
    #[error("too many reads wait")]
    Overloaded,
}

/// The reads that a leader has not answered.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Reads {
    waiting: VecDeque<Waiting>,
}

#[derive(Clone, Copy, Debug, Hash)]
struct Waiting {
    ticket: u64,
    /// The first round whose acknowledgement says something about it.
    round: u64,
    /// Where the state must have got to; None until an entry of the term is committed.
    index: Option<Index>,
}

impl Reads {
    /// Whether a round is to begin now: a read waits for one, and none is under way.
    pub(super) fn want_round(&self, acknowledged: u64, current: u64) -> bool {
        self.waiting.back().is_some_and(|read| read.round > current) && acknowledged >= current
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes the reads that may be answered, in their order.
    fn take(&mut self, commit: Option<Index>, acknowledged: u64, applied: Index) -> Vec<u64> {
        for read in self.waiting.iter_mut().filter(|read| read.index.is_none()) {
            read.index = commit;
        }
        let ready = |read: &Waiting| read.round <= acknowledged && read.index.is_some_and(|index| index <= applied);
        let count = self.waiting.iter().take_while(|read| ready(read)).count();
        self.waiting.drain(..count).map(|read| read.ticket).collect()
    }
}

impl<R: Rules> Node<R> {
    pub(super) fn read(&mut self, now: Now, ticket: u64) -> Result<(), ReadError> {
        self.advance(now);
        let commit = self.settled_commit();
        let RoleState::Leader(leader) = &mut self.role else {
            return Err(ReadError::NotLeader { leader: self.leader.map(|leader| leader.node) });
        };
        if leader.reads.len() >= self.config.reads_max {
            return Err(ReadError::Overloaded);
        }
        let round = if R::without(Rule::ReadRoundUsedAgain) { leader.round } else { leader.round + 1 };
        leader.reads.waiting.push_back(Waiting { ticket, round, index: commit });
        Ok(())
    }

    /// How far everything is committed, where this leader can know.
    fn settled_commit(&self) -> Option<Index> {
        let own_term = self.log.term_at(self.commit) == Some(self.hard_state.term);
        (own_term || R::without(Rule::ReadBeforeNoOp)).then_some(self.commit)
    }

    /// The newest round that a majority has acknowledged.
    pub(super) fn acknowledged_round(&self) -> u64 {
        let RoleState::Leader(leader) = &self.role else { return 0 };
        let of = |progress: &super::progress::Progress| progress.acknowledged_round;
        self.reached(leader.round, |id| leader.followers.get(&id).map_or(0, of))
    }

    /// The reads that may be answered now.
    pub(super) fn take_reads(&mut self) -> Vec<u64> {
        let RoleState::Leader(leader) = &self.role else { return Vec::new() };
        if leader.reads.len() == 0 {
            return Vec::new();
        }
        let (commit, acknowledged, applied) = (self.settled_commit(), self.acknowledged_round(), self.applied);
        let RoleState::Leader(leader) = &mut self.role else { return Vec::new() };
        leader.reads.take(commit, acknowledged, applied)
    }
}
