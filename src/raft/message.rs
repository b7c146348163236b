//! What the replicas of one group say to each other, and what the log is made of.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{Index, NodeId, Term};

/// One entry of the log. An entry without data is the no-op of a new leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// What a replica must not forget: one atomic record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// Whom this replica voted for in that term.
    pub vote: Option<NodeId>,
}

/// The end of what a snapshot stands for.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// Index of the last entry it covers.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
    /// Log time of that entry.
    pub stamp_ms: u64,
    /// Wall stamp of that entry.
    pub wall_ms: u64,
}

/// A message between two replicas of a group, with the sender's term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The sender's term; for a pre-vote the term it would campaign in.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a [`Message`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
