//! Which records were written while a group is copied, noted by the thread that writes them.
//!
//! A checkpoint is noted before it is written: a reader that meets a record in the middle of it finds the record noted. Who begins to
//! note, or takes what is noted to read it again, waits until it is written, or its records would be noted for nobody. A
//! checkpoint that is *whole* (all of the state is in the state store with it) may end a copy: then what is noted is read at once, on
//! the same thread, before anything else is written. With it the copy is of that very instant.
//!
//! # Invariants
//! - `writing` is held while a checkpoint is written, for as long as that takes: only threads that may wait take it. `copies`
//!   is held for moments, and is taken after it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::ids::GroupId;
use crate::node::effect::Checkpoint;
use crate::raft::{Snapshot, SnapshotMeta};
use crate::storage::{BodyBytes, StateStore, StorageError};

/// Records of one copy that are noted at a time; a group that changes faster is not copied.
const NOTED_MAX: usize = 1_000_000;
/// Bytes of their keys.
const NOTED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Records that are read at once to end a copy, beside those of the last checkpoint: some milliseconds of the thread.
pub(super) const LAST_RECORDS_MAX: usize = 16_384;
/// Bytes of them.
const LAST_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A record and its value; None where it is gone.
pub(super) type Record = (Vec<u8>, Option<Bytes>);

/// What came of the attempt to end a copy.
#[derive(Debug)]
pub(super) enum Last {
    /// These records are the last that differ, and the copy stands here.
    Records(SnapshotMeta, Vec<Record>),
    /// Too many: they are to be read as before.
    TooMany,
}

#[derive(Debug)]
struct Tracked {
    group: GroupId,
    noted: BTreeSet<Vec<u8>>,
    noted_bytes: usize,
    /// The next whole checkpoint is to end the copy.
    ends: bool,
    last: Option<Last>,
    wake: Arc<Notify>,
    broken: Option<&'static str>,
}

/// Every copy that is being made on this node.
#[derive(Debug, Default)]
pub(in super::super) struct Tracker {
    writing: Mutex<()>,
    copies: Mutex<BTreeMap<u64, Tracked>>,
}

impl Tracker {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Tracked>> {
        // Every change is whole before anything in it can panic.
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No checkpoint is being written as long as this is held.
    fn between_writes(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes from now on what is written to a group. Waits for a checkpoint that is being written.
    pub(super) fn begin(&self, copy: u64, group: GroupId) {
        let _between = self.between_writes();
        self.lock().insert(copy, Tracked::new(group));
    }

    /// Notes nothing more for that copy.
    pub(super) fn end(&self, copy: u64) {
        self.lock().remove(&copy);
    }

    /// Whether that record has been noted.
    pub(super) fn is_noted(&self, copy: u64, key: &[u8]) -> bool {
        self.lock().get(&copy).is_some_and(|tracked| tracked.noted.contains(key))
    }

    /// How many records are noted.
    ///
    /// # Errors
    /// Why the copy cannot go on.
    pub(super) fn noted(&self, copy: u64) -> Result<usize, &'static str> {
        let copies = self.lock();
        let tracked = copies.get(&copy).ok_or("it has ended")?;
        tracked.broken.map_or(Ok(tracked.noted.len()), Err)
    }

    /// The records that are noted, to be read again; what is written from now on is noted anew. Waits like [`Tracker::begin`].
    pub(super) fn take_noted(&self, copy: u64) -> VecDeque<Vec<u8>> {
        let _between = self.between_writes();
        let mut copies = self.lock();
        let Some(tracked) = copies.get_mut(&copy) else { return VecDeque::new() };
        tracked.noted_bytes = 0;
        std::mem::take(&mut tracked.noted).into_iter().collect()
    }

    /// The next whole checkpoint is to end the copy; what is returned is woken then.
    pub(super) fn arm(&self, copy: u64) -> Arc<Notify> {
        let mut copies = self.lock();
        let Some(tracked) = copies.get_mut(&copy) else { return Arc::default() };
        (tracked.ends, tracked.last) = (true, None);
        Arc::clone(&tracked.wake)
    }

    /// What came of it, once.
    pub(super) fn take_last(&self, copy: u64) -> Option<Last> {
        self.lock().get_mut(&copy)?.last.take()
    }
}

impl Tracked {
    fn new(group: GroupId) -> Self {
        let (noted, wake) = (BTreeSet::new(), Arc::default());
        Self { group, noted, noted_bytes: 0, ends: false, last: None, wake, broken: None }
    }

    fn note(&mut self, checkpoint: &Checkpoint) {
        for change in &checkpoint.changes {
            if self.broken.is_none() && self.noted.insert(change.key.clone()) {
                self.noted_bytes += change.key.len();
            }
        }
        if self.noted.len() > NOTED_MAX || self.noted_bytes > NOTED_BYTES_MAX {
            self.break_off("the group changes faster than the copy is read");
        }
    }

    fn break_off(&mut self, why: &'static str) {
        self.broken = Some(why);
        (self.noted, self.noted_bytes) = (BTreeSet::new(), 0);
        self.wake.notify_one();
    }

    /// What is noted, where it is little enough to be read at once.
    fn take_little(&mut self, little: usize) -> Option<BTreeSet<Vec<u8>>> {
        self.ends = false;
        if self.noted.len() > little {
            self.say(Last::TooMany);
            return None;
        }
        self.noted_bytes = 0;
        Some(std::mem::take(&mut self.noted))
    }

    fn say(&mut self, last: Last) {
        self.last = Some(last);
        self.wake.notify_one();
    }
}

/// Reads these records, unless they are too large together.
fn read_all<S: StateStore>(
    store: &S,
    group: GroupId,
    keys: &BTreeSet<Vec<u8>>,
) -> Result<Option<Vec<Record>>, StorageError> {
    let (mut records, mut bytes) = (Vec::with_capacity(keys.len()), 0);
    for key in keys {
        let value = store.read(group, key)?;
        bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        if bytes > LAST_BYTES_MAX {
            return Ok(None);
        }
        records.push((key.clone(), value));
    }
    Ok(Some(records))
}

/// A state store whose writes are noted for the copies of their groups.
#[derive(Debug)]
pub(in super::super) struct Watched<S> {
    pub(in super::super) store: S,
    pub(in super::super) tracker: Arc<Tracker>,
}

impl<S: StateStore> Watched<S> {
    /// Ends the copies that wait for it.
    fn end_copies(&self, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        let (group, little) = (checkpoint.group, LAST_RECORDS_MAX + checkpoint.changes.len());
        let mut ending = Vec::new();
        for (copy, tracked) in self.tracker.lock().iter_mut() {
            if tracked.group == group && tracked.ends && tracked.broken.is_none() {
                ending.extend(tracked.take_little(little).map(|keys| (*copy, keys)));
            }
        }
        for (copy, keys) in ending {
            let records = read_all(&self.store, group, &keys)?;
            let mut copies = self.tracker.lock();
            let Some(tracked) = copies.get_mut(&copy) else { continue };
            match records {
                Some(records) => tracked.say(Last::Records(checkpoint.meta.clone(), records)),
                None => {
                    tracked.noted_bytes += keys.iter().map(Vec::len).sum::<usize>();
                    tracked.noted.extend(keys);
                    tracked.say(Last::TooMany);
                }
            }
        }
        Ok(())
    }
}

impl<S: StateStore> StateStore for Watched<S> {
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        let tracker = Arc::clone(&self.tracker);
        let _writing = tracker.between_writes();
        for tracked in tracker.lock().values_mut().filter(|tracked| tracked.group == checkpoint.group) {
            tracked.note(checkpoint);
        }
        self.store.checkpoint(checkpoint)?;
        if checkpoint.whole { self.end_copies(checkpoint) } else { Ok(()) }
    }

    fn install(&mut self, group: GroupId, snapshot: &Snapshot) -> Result<(), StorageError> {
        let tracker = Arc::clone(&self.tracker);
        let _writing = tracker.between_writes();
        for tracked in tracker.lock().values_mut().filter(|tracked| tracked.group == group) {
            tracked.break_off("the node got the group's state anew from its leader");
        }
        self.store.install(group, snapshot)
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.store.sync()
    }

    fn read(&self, group: GroupId, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.store.read(group, key)
    }

    fn tend(&mut self) -> Result<bool, StorageError> {
        self.store.tend()
    }

    fn bytes_on_disk(&self) -> u64 {
        self.store.bytes_on_disk()
    }

    fn body_bytes(&self) -> BodyBytes {
        self.store.body_bytes()
    }
}
