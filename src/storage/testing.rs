//! Short ways to say what a test writes.

use bytes::Bytes;
use trine_protocol::cache::Version;

use crate::cache::{JournalRecord, Versioned};
use crate::ids::{GroupId, Incarnation, Index, NodeId, ReplicaId, Term};
use crate::node::effect::{Checkpoint, Write};
use crate::raft::{Entry, HardState, Persist, Snapshot, SnapshotMeta};
use crate::record::{Change, encode_records};

use super::identity::{FORMAT_VERSION, Identity};

/// The group that most tests write to.
pub(super) const G: GroupId = GroupId(1);

/// The identity of the tests' node.
pub(super) fn identity(ready: bool) -> Identity {
    let (node, incarnation) = (NodeId::numbered(1), Incarnation(0xfeed));
    Identity { format: FORMAT_VERSION, node, incarnation, cluster: Some(7), groups: 3, ready, joins: false }
}

/// An entry whose data names it.
pub(super) fn entry(index: Index, term: Term) -> Entry {
    Entry {
        index,
        term,
        stamp_ms: index * 10,
        wall_ms: index * 100,
        data: Bytes::from(format!("entry {index}@{term}")),
        membership: None,
    }
}

/// The end of a snapshot or of a compaction.
pub(super) fn meta(index: Index, term: Term) -> SnapshotMeta {
    SnapshotMeta { index, term, stamp_ms: index * 10, wall_ms: index * 100, membership: None }
}

/// A write of consensus.
pub(super) fn raft(group: GroupId, raft: Persist) -> Write {
    Write { group, sequence: raft.sequence, raft: Some(raft), journal: Vec::new(), compact: None }
}

/// A write of entries `from` to `through` of one term.
pub(super) fn entries(group: GroupId, from: Index, through: Index, term: Term) -> Write {
    let entries = (from..=through).map(|index| entry(index, term)).collect();
    raft(group, Persist { entries, ..Persist::default() })
}

/// A write of entries that replace those from `from` on.
pub(super) fn replacing(group: GroupId, from: Index, through: Index, term: Term) -> Write {
    let mut write = entries(group, from, through, term);
    write.raft.as_mut().expect("just made").truncate_from = Some(from);
    write
}

/// A write of term and vote.
pub(super) fn vote(group: GroupId, term: Term, node: usize) -> Write {
    let hard_state = HardState { term, vote: (node > 0).then(|| ReplicaId::founder(NodeId::numbered(node))) };
    raft(group, Persist { hard_state: Some(hard_state), ..Persist::default() })
}

/// A write that carries a snapshot.
pub(super) fn restored(group: GroupId, snapshot: &Snapshot) -> Write {
    raft(group, Persist { snapshot: Some(snapshot.clone()), ..Persist::default() })
}

/// A write that forgets the log up to there.
pub(super) fn compaction(group: GroupId, index: Index, term: Term) -> Write {
    Write { group, sequence: 0, raft: None, journal: Vec::new(), compact: Some(meta(index, term)) }
}

/// A write of journal records.
pub(super) fn journal(group: GroupId, records: Vec<JournalRecord>) -> Write {
    Write { group, sequence: 0, raft: None, journal: records, compact: None }
}

/// A local write of the cache.
pub(super) fn written(key: &str, epoch: u64, count: u64) -> JournalRecord {
    let value = Some(Bytes::from(format!("{key}={epoch}.{count}")));
    JournalRecord::Written { key: key.to_owned(), dirty: Versioned::new(Version { epoch, count }, value) }
}

/// The end of it.
pub(super) fn ended(key: &str, epoch: u64, count: u64) -> JournalRecord {
    JournalRecord::Ended { key: key.to_owned(), version: Version { epoch, count } }
}

/// A checkpoint; a change without a value removes the record.
pub(super) fn checkpoint(group: GroupId, index: Index, term: Term, changes: &[(&str, Option<&str>)]) -> Checkpoint {
    let change = |(key, value): &(&str, Option<&str>)| Change {
        key: key.as_bytes().to_vec(),
        value: value.map(|value| value.as_bytes().to_vec()),
    };
    Checkpoint { group, meta: meta(index, term), changes: changes.iter().map(change).collect(), whole: false }
}

/// A snapshot of these records.
pub(super) fn snapshot(index: Index, term: Term, records: &[(&str, &str)]) -> Snapshot {
    let data = encode_records(records.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())));
    Snapshot { meta: meta(index, term), data }
}

/// A small generator of its own: the same numbers on every machine, for ever.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Numbers below a bound, as a seed decides.
pub(super) fn draws(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut random = Random(seed);
    move |bound| random.below(bound)
}
