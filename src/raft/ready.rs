//! What a replica of a group hands out after each input, in the order in which it is to be done.

use bytes::Bytes;

use crate::ids::{Index, NodeId};

use super::message::{Entry, HardState, Message, SnapshotMeta};

/// Everything that follows from the inputs since the last one.
#[derive(Debug, Default, PartialEq)]
pub struct Ready {
    /// 1. Make durable, in the order handed out; then call `Raft::persisted` with its sequence. Messages that
    ///    promise something (votes, append acknowledgements) are held inside until then.
    pub persist: Option<Persist>,
    /// 2. Send. Nothing here waits for 1: either it promises nothing, or what it promises is durable already.
    pub messages: Vec<(NodeId, Message)>,
    /// 3. Replace the state machine by this snapshot. Comes at most once, before `committed`.
    pub restore: Option<Snapshot>,
    /// 4. Apply, in order: committed, and durable here.
    pub committed: Vec<Entry>,
    /// 5. Answer these reads from the state as it is now.
    pub reads: Vec<u64>,
    /// 6. A follower needs what the log has no longer: call `Raft::provide_snapshot` with the applied state.
    pub snapshot_wanted: bool,
}

impl Ready {
    /// True where nothing is to be done.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One write to the log: applied as a whole or not at all, in the order of `sequence`.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Persist {
    /// Grows by one with each write of this replica since it was made.
    pub sequence: u64,
    /// New term and vote.
    pub hard_state: Option<HardState>,
    /// Drop the entries from this index on, before `entries` are appended.
    pub truncate_from: Option<Index>,
    /// Append: consecutive, and right after what is left.
    pub entries: Vec<Entry>,
    /// A snapshot from the leader: it replaces state, and the log up to it (the whole log unless its entry agrees).
    pub snapshot: Option<Snapshot>,
}

/// A state machine's whole state as bytes.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Snapshot {
    /// Where in the log it stands.
    pub meta: SnapshotMeta,
    /// The state; opaque here.
    pub data: Bytes,
}
