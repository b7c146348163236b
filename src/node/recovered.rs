//! What a replica is made from when its node starts.

use bytes::Bytes;

use crate::cache::JournalRecord;
use crate::raft::{Entry, HardState, SnapshotMeta};

/// Records in key order.
pub type Records = Vec<(Vec<u8>, Bytes)>;

/// What a group finds on disk when its node starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// Term and vote.
    pub hard_state: HardState,
    /// Where the log begins: the entry before the first one.
    pub base: SnapshotMeta,
    /// The entries after `base`: without gap or overlap, terms never falling.
    pub entries: Vec<Entry>,
    /// Journal records that are not ended, oldest first.
    pub journal: Vec<JournalRecord>,
    /// Where the state below stands; at or after `base`.
    pub applied: SnapshotMeta,
    /// All records of the state but the bodies, in key order.
    pub state: Records,
}
