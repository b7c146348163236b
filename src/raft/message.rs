//! What the replicas of one group say to each other, and what the log is made of.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, Index, ReplicaId, Term};

use super::membership::Membership;

/// Terms above this come from no replica of ours: a message with one is dropped, so that adding 1 can never overflow.
pub const TERM_MAX: Term = 1 << 62;
/// Indexes above this come from no replica of ours: a fencing token has 48 bits for the index.
pub const INDEX_MAX: Index = (1 << 48) - 1;

/// One entry of the log. An entry without data is the no-op of a new leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Position in the log.
    pub index: Index,
    /// Term of the leader that made it.
    pub term: Term,
    /// Log time: never falls along the log. Leases expire by it.
    pub stamp_ms: u64,
    /// Wall clock of the leader, never falling along the log. Serves schedules, never a lease.
    pub wall_ms: u64,
    /// The command; opaque here.
    pub data: Bytes,
    /// Who takes part from this entry on, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "super::membership::shared")]
    pub membership: Option<Arc<Membership>>,
}

/// What a replica must not forget: one atomic record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// Whom this replica voted for in that term.
    pub vote: Option<ReplicaId>,
}

/// The end of what a snapshot stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// Index of the last entry it covers.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
    /// Log time of that entry.
    pub stamp_ms: u64,
    /// Wall stamp of that entry.
    pub wall_ms: u64,
    /// Who takes part as of that entry; None where the group is as it was made.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "super::membership::shared")]
    pub membership: Option<Arc<Membership>>,
}

/// A message between two replicas of a group, with the sender's term.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The sender's term; for a pre-vote the term it would campaign in.
    pub term: Term,
    /// What it says.
    pub body: Body,
    /// The sender's data directory; 0 where it is a node of the group's beginning.
    #[serde(default)]
    pub from: Incarnation,
    /// The receiver's, as the sender knows it. Another life of the same node must not take it.
    #[serde(default)]
    pub to: Incarnation,
}

/// What a [`Message`] says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Would you vote for me? Changes nothing at the receiver.
    PreVote { last_index: Index, last_term: Term },
    /// Answer to [`Body::PreVote`]; `term` of the message is the asked one where granted.
    PreVoteReply { granted: bool },
    /// Vote for me. `transfer` is set where the old leader asked for this election, and overrides the voter's lease.
    Vote { last_index: Index, last_term: Term, transfer: bool },
    /// Answer to [`Body::Vote`].
    VoteReply { granted: bool },
    /// Entries after (`prev_index`, `prev_term`); without entries a heartbeat or a probe. `round` numbers the
    /// sends that the leader lease is counted from; `log_time_ms` is the leader's log time.
    Append { prev_index: Index, prev_term: Term, entries: Vec<Entry>, commit: Index, round: u64, log_time_ms: u64 },
    /// The follower's log agrees with the leader's up to `index`, durably; `round` is that of the append answered.
    Appended { index: Index, round: u64 },
    /// The follower has no entry (`prev_index`, `prev_term`): try from `hint_index` of `hint_term`.
    Rejected { prev_index: Index, hint_index: Index, hint_term: Term, round: u64 },
    /// Bytes of a snapshot from `offset`; `last` with the final chunk.
    Snapshot { meta: SnapshotMeta, offset: u64, data: Bytes, last: bool },
    /// The follower has the snapshot's bytes up to `next_offset`, or, with `installed`, all of it on disk.
    SnapshotReply { index: Index, next_offset: u64, installed: bool },
    /// Campaign now: the leader steps down in the receiver's favour.
    TimeoutNow,
}

impl Message {
    /// A message whose ends are filled in when it leaves; between nodes of a group's beginning there is nothing to fill in.
    pub fn new(term: Term, body: Body) -> Self {
        Self { term, body, from: Incarnation::default(), to: Incarnation::default() }
    }

    /// Whether a replica of ours could have sent this. What could not is dropped before anything looks at it, so that
    /// no arithmetic below can overflow and no log can get a gap.
    pub(super) fn is_well_formed(&self) -> bool {
        let term = self.term;
        let sound = match &self.body {
            Body::Append { prev_index, prev_term, entries, commit, .. } => {
                *commit <= INDEX_MAX && follow(*prev_index, *prev_term, entries, term)
            }
            Body::Snapshot { meta, offset, data, .. } => {
                (1..=INDEX_MAX).contains(&meta.index)
                    && (1..=term).contains(&meta.term)
                    && offset.checked_add(data.len() as u64).is_some()
            }
            Body::PreVote { .. } | Body::Vote { .. } | Body::PreVoteReply { .. } | Body::VoteReply { .. } => true,
            Body::Appended { .. } | Body::Rejected { .. } | Body::SnapshotReply { .. } | Body::TimeoutNow => true,
        };
        // A replica that has seen no election yet says so with term 0, but only to refuse.
        let least = u64::from(self.body != Body::PreVoteReply { granted: false });
        sound && (least..=TERM_MAX).contains(&term)
    }
}

/// Whether the entries are consecutive after `(prev_index, prev_term)` and their terms never fall, nor rise above `term`.
fn follow(prev_index: Index, prev_term: Term, entries: &[Entry], term: Term) -> bool {
    let starts = prev_index <= INDEX_MAX - entries.len() as u64 && (prev_index == 0) == (prev_term == 0);
    let mut previous = (prev_index, prev_term);
    starts
        && entries.iter().all(|entry| {
            let follows = entry.index == previous.0 + 1 && entry.term >= previous.1.max(1);
            previous = (entry.index, entry.term);
            follows && entry.membership.as_ref().is_none_or(|membership| membership.is_sound())
        })
        && previous.1 <= term
}
