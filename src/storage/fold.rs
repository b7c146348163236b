//! What a sequence of [`Write`]s amounts to, for one group.
//!
//! The log on disk is a list of writes; a group that starts wants to know where that leaves it: term and vote, where the
//! log begins, which entries are left, which journal records still count. This module folds one into the other. The
//! simulated disk, the recovery of the segment log and its index of what is still needed all use the same fold,
//! so that they cannot disagree about what a write means.
//!
//! One write is folded in this order:
//! 1. hard state;
//! 2. `truncate_from`: the suffix from there on is gone;
//! 3. `snapshot`: where the log has the snapshot's last entry, what follows it stays, else the whole log goes. The base is
//!    the snapshot's end;
//! 4. `entries`, each right after the last. Those that the snapshot of the same write covers are passed over;
//! 5. journal records, in order: of one key the highest version counts, `Ended` removes up to its version;
//! 6. `compact`: the log up to there is forgotten, and the base moves there.
//!
//! Invariants, checked with each step, and a [`Misfit`] where one breaks: entries tile from the base on without gap or
//! overlap; terms never fall along the log; the term of the hard state never falls, and a vote given in a term stays
//! (Raft paper, section 5.2 and figure 3); nothing is truncated at or below the base.
//!
//! Caveats: a journal record that arrives after the `Ended` of its version lives again, since no tombstones are kept;
//! the cache's agent writes a key's records in the order of their versions, so that does not come up.

use std::collections::{BTreeMap, VecDeque};

use crate::cache::{JournalRecord, Versioned};
use crate::ids::{Index, Term};
use crate::node::effect::Write;
use crate::raft::{Entry, HardState, SnapshotMeta};

/// A write that does not follow from the ones before it: gap, overlap, falling term, second vote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misfit(pub String);

/// Where in the segment log a record lies. The simulated disk has but one place, the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    /// Number of the segment.
    pub(super) segment: u64,
    /// Offset of the record in it, in bytes.
    pub(super) offset: u64,
}

/// One entry of the log as far as it is known here.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// Its term; None while recovery has not come across it yet.
    pub(super) term: Option<Term>,
    /// The entry; None where only its place is of interest.
    pub(super) entry: Option<Entry>,
    /// Where it lies.
    pub(super) place: Place,
    /// Bytes it takes there, about.
    pub(super) bytes: u64,
}

impl Slot {
    fn holding(entry: &Entry, place: Place, keep: bool) -> Self {
        let bytes = (RECORD_OVERHEAD_BYTES + entry.data.len()) as u64;
        Self { term: Some(entry.term), entry: keep.then(|| entry.clone()), place, bytes }
    }
}

/// A journal record that counts.
#[derive(Clone, Debug)]
pub(super) struct Live {
    /// Which of the group's journal records it was, from 0: the order of the answer.
    pub(super) order: u64,
    /// Version and value.
    pub(super) dirty: Versioned,
    /// Where it lies.
    pub(super) place: Place,
}

impl Live {
    /// Bytes it takes there, about.
    pub(super) fn bytes(&self, key: &str) -> u64 {
        (RECORD_OVERHEAD_BYTES + key.len() + self.dirty.value.as_ref().map_or(0, bytes::Bytes::len)) as u64
    }
}

/// Bytes of an entry or a journal record besides its data, about.
const RECORD_OVERHEAD_BYTES: usize = 48;

/// Where a group stands after the writes folded so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Fold {
    /// Term and vote.
    pub(super) hard_state: HardState,
    /// The entry before the first of `slots`.
    pub(super) base: SnapshotMeta,
    /// The entries after the base.
    pub(super) slots: VecDeque<Slot>,
    /// The journal: the record of each key that counts.
    pub(super) journal: BTreeMap<String, Live>,
    next_order: u64,
}

impl Fold {
    /// A group at the beginning of a segment: its entries are known by number only, until recovery comes across them.
    pub(super) fn starting(hard_state: HardState, base: SnapshotMeta, last_index: Index) -> Self {
        let count = usize::try_from(last_index.saturating_sub(base.index)).unwrap_or(0);
        let slots = std::iter::repeat_with(Slot::default).take(count).collect();
        Self { hard_state, base, slots, ..Self::default() }
    }

    /// The same without the entries: where everything lies.
    pub(super) fn without_entries(&self) -> Self {
        let slots = self.slots.iter().map(|slot| Slot { entry: None, ..*slot }).collect();
        let (base, journal) = (self.base.clone(), self.journal.clone());
        Self { hard_state: self.hard_state, base, slots, journal, next_order: self.next_order }
    }

    /// Index of the last entry, or of the base where there is none.
    pub(super) fn last_index(&self) -> Index {
        self.base.index + self.slots.len() as u64
    }

    /// The term of the entry at `index`; None where it is not in the log, or not known yet.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        let position = usize::try_from(index.checked_sub(self.base.index + 1)?).ok()?;
        self.slots.get(position)?.term
    }

    /// What will become of the entries after the snapshot of this write: false where they go, or where there is no snapshot.
    /// A truncation in the same write may take the very entry that would decide it.
    pub(super) fn will_keep_suffix(&self, write: &Write) -> bool {
        let Some(raft) = &write.raft else { return false };
        let truncated = |index| raft.truncate_from.is_some_and(|from| from <= index);
        raft.snapshot.as_ref().is_some_and(|it| !truncated(it.meta.index) && self.keeps_suffix(&it.meta))
    }

    /// Whether a snapshot at `meta` leaves the entries after it in place: the log has its last entry.
    fn keeps_suffix(&self, meta: &SnapshotMeta) -> bool {
        self.term_at(meta.index) == Some(meta.term)
    }

    /// Folds one write. `suffix_kept` is what was decided about the entries after its snapshot, for a recovery that may not
    /// have the deciding entry any more; `keep` says whether the entries are kept or only their places.
    pub(super) fn apply(
        &mut self,
        write: &Write,
        place: Place,
        keep: bool,
        suffix_kept: Option<bool>,
    ) -> Result<(), Misfit> {
        if let Some(raft) = &write.raft {
            if let Some(hard_state) = raft.hard_state {
                self.set_hard_state(hard_state)?;
            }
            if let Some(from) = raft.truncate_from {
                self.truncate(from)?;
            }
            let mut covered = 0;
            if let Some(snapshot) = &raft.snapshot {
                covered = snapshot.meta.index;
                let kept = suffix_kept.unwrap_or_else(|| self.keeps_suffix(&snapshot.meta));
                self.restore(&snapshot.meta, kept)?;
            }
            for entry in raft.entries.iter().filter(|entry| entry.index > covered) {
                self.push(entry, place, keep)?;
            }
        }
        for record in &write.journal {
            self.note(record, place);
        }
        match &write.compact {
            Some(meta) => self.compact(meta),
            None => Ok(()),
        }
    }

    /// Takes term and vote.
    fn set_hard_state(&mut self, new: HardState) -> Result<(), Misfit> {
        let old = self.hard_state;
        let vote_changes = new.term == old.term && old.vote.is_some() && new.vote != old.vote;
        if new.term < old.term || vote_changes {
            return Err(Misfit(format!(
                "hard state {new:?} after {old:?}: a term fell, or a vote changed in its term"
            )));
        }
        self.hard_state = new;
        Ok(())
    }

    /// Drops the entries from `from` on; nothing happens where there are none.
    fn truncate(&mut self, from: Index) -> Result<(), Misfit> {
        if from <= self.base.index {
            return Err(Misfit(format!("truncation from {from}, but the log begins after {}", self.base.index)));
        }
        let left = usize::try_from(from - self.base.index - 1).unwrap_or(usize::MAX);
        self.slots.truncate(left);
        Ok(())
    }

    /// Moves the base to a snapshot's end. An older snapshot than the base is none.
    fn restore(&mut self, meta: &SnapshotMeta, suffix_kept: bool) -> Result<(), Misfit> {
        if meta.index < self.base.index {
            return Err(Misfit(format!("snapshot at {}, but the log begins after {}", meta.index, self.base.index)));
        }
        if suffix_kept {
            self.drop_through(meta.index);
        } else {
            self.slots.clear();
        }
        self.base = meta.clone();
        Ok(())
    }

    /// Appends one entry.
    fn push(&mut self, entry: &Entry, place: Place, keep: bool) -> Result<(), Misfit> {
        let last = self.last_index();
        if entry.index != last + 1 {
            return Err(Misfit(format!("entry {} after entry {last}: a gap or an overlap", entry.index)));
        }
        if let Some(term) = self.term_at(last)
            && entry.term < term
        {
            return Err(Misfit(format!("entry {} of term {} after one of term {term}", entry.index, entry.term)));
        }
        self.slots.push_back(Slot::holding(entry, place, keep));
        Ok(())
    }

    /// Takes one journal record.
    fn note(&mut self, record: &JournalRecord, place: Place) {
        match record {
            JournalRecord::Written { key, dirty } => {
                if self.journal.get(key).is_none_or(|live| live.dirty.version <= dirty.version) {
                    let live = Live { order: self.next_order, dirty: dirty.clone(), place };
                    self.journal.insert(key.clone(), live);
                }
                self.next_order += 1;
            }
            JournalRecord::Ended { key, version } => {
                if self.journal.get(key).is_some_and(|live| live.dirty.version <= *version) {
                    self.journal.remove(key);
                }
            }
        }
    }

    /// Takes entries and journal records that count, and were copied here from an older place.
    pub(super) fn carry(
        &mut self,
        entries: &[Entry],
        journal: &[JournalRecord],
        place: Place,
        keep: bool,
    ) -> Result<(), Misfit> {
        for entry in entries {
            let (index, last) = (entry.index, self.last_index());
            if index <= self.base.index || index > last {
                let base = self.base.index;
                return Err(Misfit(format!("entry {index} was carried, but the log is {base} to {last}")));
            }
            let position = usize::try_from(index - self.base.index - 1).expect("a position in memory");
            self.slots[position] = Slot::holding(entry, place, keep);
        }
        for record in journal {
            self.note(record, place);
        }
        Ok(())
    }

    /// Where the entry at `index` lies.
    pub(super) fn entry_place(&self, index: Index) -> Option<Place> {
        let position = usize::try_from(index.checked_sub(self.base.index + 1)?).ok()?;
        self.slots.get(position).map(|slot| slot.place)
    }

    /// Everything that counts, as (place, bytes).
    pub(super) fn places(&self) -> impl Iterator<Item = (Place, u64)> {
        let entries = self.slots.iter().map(|slot| (slot.place, slot.bytes));
        entries.chain(self.journal.iter().map(|(key, live)| (live.place, live.bytes(key))))
    }

    /// Forgets the log up to `meta`. What a snapshot has forgotten already is passed over.
    fn compact(&mut self, meta: &SnapshotMeta) -> Result<(), Misfit> {
        if meta.index <= self.base.index {
            return Ok(());
        }
        if meta.index > self.last_index() {
            return Err(Misfit(format!("compaction to {}, but the log ends at {}", meta.index, self.last_index())));
        }
        if let Some(term) = self.term_at(meta.index)
            && term != meta.term
        {
            return Err(Misfit(format!("compaction to {} of term {}, but its term is {term}", meta.index, meta.term)));
        }
        self.drop_through(meta.index);
        self.base = meta.clone();
        Ok(())
    }

    /// Drops the slots up to and including `index`; the caller sets the base.
    fn drop_through(&mut self, index: Index) {
        let count = usize::try_from(index - self.base.index).unwrap_or(usize::MAX).min(self.slots.len());
        self.slots.drain(..count);
    }

    /// What the group recovers: entries and journal in order.
    ///
    /// # Errors
    /// Where an entry between base and end was never seen, or terms fall.
    pub(super) fn into_recovered(self) -> Result<LogRecovered, Misfit> {
        let mut entries = Vec::with_capacity(self.slots.len());
        let mut term = self.base.term;
        for (index, slot) in (self.base.index + 1..).zip(self.slots) {
            let Some(entry) = slot.entry else {
                return Err(Misfit(format!("entry {index} is missing, the log begins after {}", self.base.index)));
            };
            if entry.index != index || entry.term < term {
                let found = (entry.index, entry.term);
                return Err(Misfit(format!("entry {found:?} where entry {index} of term {term} or above belongs")));
            }
            term = entry.term;
            entries.push(entry);
        }
        let mut live: Vec<_> = self.journal.into_iter().collect();
        live.sort_by_key(|(_, live)| live.order);
        let journal = live.into_iter().map(|(key, live)| JournalRecord::Written { key, dirty: live.dirty }).collect();
        Ok(LogRecovered { hard_state: self.hard_state, base: self.base, entries, journal })
    }
}

/// What the log of a node holds of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogRecovered {
    /// Term and vote.
    pub hard_state: HardState,
    /// Where the log begins: the entry before the first one.
    pub base: SnapshotMeta,
    /// The entries after `base`: without gap or overlap, terms never falling.
    pub entries: Vec<Entry>,
    /// Journal records that are not ended, oldest first.
    pub journal: Vec<JournalRecord>,
}
