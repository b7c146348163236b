//! The log in memory: every entry after `base`, and how far storage has got with them.
//!
//! ```text
//!   base            stable        handed           last
//!    |  durable       |  in flight   |  not handed out yet |
//! ---+----------------+--------------+---------------------+
//! compacted  entries...
//! ```
//! Invariants: `base <= stable <= handed <= last`; indexes are consecutive; terms never fall. Because they never fall, a place
//! in the log is found by term with a binary search: no message costs a walk along the log.
//!
//! Beside the entries stands who takes part, by the index it stands at: cutting the log takes back what the entries that go had said.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::ids::{Index, ReplicaId, Term};

use super::membership::Membership;
use super::message::{Entry, SnapshotMeta};

/// What an entry counts beside its data, so that a log of empty entries has a size too.
pub const ENTRY_OVERHEAD_BYTES: usize = 64;

/// Bytes that an entry counts in every limit of this module.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    entry.data.len() + ENTRY_OVERHEAD_BYTES
}

/// What the log has for storage since the last time.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Unhanded {
    pub(super) truncate_from: Option<Index>,
    pub(super) entries: Vec<Entry>,
}

/// The entries after `base`.
#[derive(Clone, Debug, Hash)]
pub(super) struct Log {
    base: SnapshotMeta,
    entries: VecDeque<Entry>,
    bytes: usize,
    stable: Index,
    handed: Index,
    /// The lowest index of entries that storage was given and must drop, and was not told so yet.
    truncate_from: Option<Index>,
    /// Who takes part, from which entry on: first that of `base`, then those of the entries after it, in order.
    memberships: VecDeque<(Index, Arc<Membership>)>,
    /// A group as it was made, for a base that says nothing else.
    founders: Arc<Membership>,
}

impl Log {
    /// The log that storage found.
    ///
    /// # Panics
    /// Where the entries do not tile the log after `base`: storage checks that at open and refuses to start.
    pub(super) fn new(base: SnapshotMeta, entries: Vec<Entry>, founders: Arc<Membership>) -> Self {
        let mut previous = (base.index, base.term);
        for entry in &entries {
            assert!(
                entry.index == previous.0 + 1 && entry.term >= previous.1,
                "entry {}@{} follows {}@{}",
                entry.index,
                entry.term,
                previous.0,
                previous.1
            );
            previous = (entry.index, entry.term);
        }
        let bytes = entries.iter().map(entry_bytes).sum();
        let mut log = Self {
            base,
            entries: entries.into(),
            bytes,
            stable: previous.0,
            handed: previous.0,
            truncate_from: None,
            memberships: VecDeque::new(),
            founders,
        };
        log.find_memberships();
        log
    }

    fn find_memberships(&mut self) {
        let first = self.base.membership.clone().unwrap_or_else(|| Arc::clone(&self.founders));
        let later = self.entries.iter().filter_map(|entry| Some((entry.index, entry.membership.clone()?)));
        self.memberships = std::iter::once((self.base.index, first)).chain(later).collect();
    }

    /// Who takes part by the newest word in the log, and the index of that word; committed or not.
    pub(super) fn membership(&self) -> (Index, &Arc<Membership>) {
        let (index, membership) = self.memberships.back().expect("the base has one");
        (*index, membership)
    }

    pub(super) fn base(&self) -> &SnapshotMeta {
        &self.base
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Everything up to here is durable.
    pub(super) fn stable(&self) -> Index {
        self.stable
    }

    pub(super) fn last_index(&self) -> Index {
        self.base.index + self.entries.len() as u64
    }

    pub(super) fn last_term(&self) -> Term {
        self.entries.back().map_or(self.base.term, |entry| entry.term)
    }

    pub(super) fn last_stamp_ms(&self) -> u64 {
        self.entries.back().map_or(self.base.stamp_ms, |entry| entry.stamp_ms)
    }

    pub(super) fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.checked_sub(self.base.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// The term of the entry at `index`; `base` counts. None where it is compacted or not there yet.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index { Some(self.base.term) } else { self.get(index).map(|entry| entry.term) }
    }

    /// The last index up to `index` whose term is not above `term`: below it the logs may agree, above it they cannot.
    /// `base` where there is none, which is committed and therefore common.
    pub(super) fn last_at_or_below(&self, index: Index, term: Term) -> (Index, Term) {
        let count = self.entries.partition_point(|entry| entry.index <= index && entry.term <= term);
        match count.checked_sub(1) {
            Some(position) => (self.entries[position].index, self.entries[position].term),
            None => (self.base.index, self.base.term),
        }
    }

    /// Entries from `from` on, as many as fit `bytes_max`, but one at least where there is one.
    pub(super) fn batch(&self, from: Index, bytes_max: usize) -> Vec<Entry> {
        let start = self.offset(from);
        let mut bytes = 0;
        let mut end = start;
        while let Some(entry) = self.entries.get(end) {
            bytes += entry_bytes(entry);
            if end > start && bytes > bytes_max {
                break;
            }
            end += 1;
        }
        self.entries.range(start..end).cloned().collect()
    }

    /// The entries `first..=last`.
    pub(super) fn range(&self, first: Index, last: Index) -> impl Iterator<Item = &Entry> {
        let end = self.offset(last + 1);
        self.entries.range(self.offset(first).min(end)..end)
    }

    fn offset(&self, index: Index) -> usize {
        assert!(
            index > self.base.index && index <= self.last_index() + 1,
            "index {index} is outside {}..={}",
            self.base.index,
            self.last_index()
        );
        (index - self.base.index - 1) as usize
    }

    /// Whether that replica votes by the newest membership, or by one that may still have to decide about it.
    pub(super) fn is_voter(&self, id: ReplicaId, commit: Index) -> bool {
        for (index, membership) in self.memberships.iter().rev() {
            if membership.is_voter(id) {
                return true;
            }
            if *index <= commit {
                break;
            }
        }
        false
    }

    /// Adds an entry of this node's own, as leader.
    pub(super) fn push(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last_index() + 1, "an entry leaves a gap");
        assert!(entry.term >= self.last_term(), "term {} after {}", entry.term, self.last_term());
        self.bytes += entry_bytes(&entry);
        if let Some(membership) = &entry.membership {
            self.memberships.push_back((entry.index, Arc::clone(membership)));
        }
        self.entries.push_back(entry);
    }

    /// Takes a leader's entries, which follow an entry that this log has. Cuts the log at the first entry that *conflicts*, and
    /// only there: a message that is merely old or short must not cut off what came after it. Returns the index that the
    /// log was cut at.
    ///
    /// # Panics
    /// Where it would cut a committed entry: two leaders committed different things, and this replica must not hide it.
    pub(super) fn merge(&mut self, entries: Vec<Entry>, commit: Index) -> Option<Index> {
        let mut cut = None;
        for entry in entries {
            match self.term_at(entry.index) {
                Some(term) if term == entry.term => continue,
                Some(_) => {
                    assert!(entry.index > commit, "entry {} conflicts, but {commit} is committed", entry.index);
                    self.truncate(entry.index);
                    cut = Some(entry.index);
                }
                None => {}
            }
            self.push(entry);
        }
        cut
    }

    /// Believes a log that was cut. Only a broken rule calls this.
    pub(super) fn keep_memberships_of(&mut self, cut: Self) {
        self.memberships = cut.memberships;
    }

    /// Cuts the log after `last`, where it goes on there. Only a broken rule calls this.
    pub(super) fn cut_after(&mut self, last: Index) -> Option<Index> {
        (last < self.last_index()).then(|| {
            self.truncate(last + 1);
            last + 1
        })
    }

    fn truncate(&mut self, from: Index) {
        let offset = self.offset(from);
        self.bytes -= self.entries.range(offset..).map(entry_bytes).sum::<usize>();
        self.entries.truncate(offset);
        while self.memberships.len() > 1 && self.membership().0 >= from {
            self.memberships.pop_back();
        }
        if from <= self.handed {
            self.truncate_from = Some(self.truncate_from.map_or(from, |earlier| earlier.min(from)));
            self.handed = from - 1;
            self.stable = self.stable.min(from - 1);
        }
    }

    /// Begins anew at a snapshot from the leader. What was not committed (`commit`) is dropped from storage too; what was, the
    /// snapshot replaces.
    pub(super) fn restore(&mut self, meta: SnapshotMeta, commit: Index) {
        assert!(meta.index > commit, "a snapshot at {} would undo what is committed to {commit}", meta.index);
        if self.handed > commit {
            self.truncate_from = Some(self.truncate_from.map_or(commit + 1, |earlier| earlier.min(commit + 1)));
        }
        self.entries.clear();
        self.bytes = 0;
        self.stable = meta.index;
        self.handed = meta.index;
        self.base = meta;
        self.find_memberships();
    }

    /// What storage must be told; afterwards it counts as handed out.
    pub(super) fn take_unhanded(&mut self) -> Unhanded {
        let entries: Vec<Entry> = self.range(self.handed + 1, self.last_index()).cloned().collect();
        self.handed = self.last_index();
        Unhanded { truncate_from: self.truncate_from.take(), entries }
    }

    /// A write that ends at `index` is durable. The caller has lowered `index` where the log was cut since the write began.
    pub(super) fn made_durable(&mut self, index: Index) {
        assert!(index <= self.handed, "{index} became durable, but only {} was handed out", self.handed);
        self.stable = self.stable.max(index);
    }

    /// Forgets the entries up to `index`.
    pub(super) fn compact(&mut self, index: Index) {
        assert!(index <= self.stable, "entry {index} is to be forgotten, but only {} is durable", self.stable);
        while self.base.index < index {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry_bytes(&entry);
            let Entry { index, term, stamp_ms, wall_ms, membership, .. } = entry;
            let membership = membership.or_else(|| self.base.membership.take());
            self.base = SnapshotMeta { index, term, stamp_ms, wall_ms, membership };
        }
        while self.memberships.get(1).is_some_and(|(from, _)| *from <= self.base.index) {
            self.memberships.pop_front();
        }
    }

    /// The module's invariants. The tail alone is walked: what lies before it was a tail once, and never changes.
    pub(super) fn check(&self) {
        let (base, stable, handed, last) = (self.base.index, self.stable, self.handed, self.last_index());
        assert!(base <= stable && stable <= handed && handed <= last, "{base} <= {stable} <= {handed} <= {last}");
        let tail = self.entries.len().saturating_sub(8);
        for (first, second) in self.entries.range(tail..).zip(self.entries.range((tail + 1).min(self.entries.len())..))
        {
            let ordered =
                second.index == first.index + 1 && second.term >= first.term && second.stamp_ms >= first.stamp_ms;
            assert!(ordered, "{second:?} follows {first:?}");
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
