//! The applied state of a node's groups, in sled.
//!
//! sled stands behind the log: what it loses in a crash is replayed. So it must keep three promises only, and each is made
//! here rather than believed (`safety.md`, 4.1):
//! - **A checkpoint is there as a whole or not at all**, with the index it stands at. Replay of an entry onto a state that
//!   has part of its effects already would not be harmless: a counter counts twice.
//! - **After [`StateStore::sync`] it is on disk.** `flush()` of sled 0.34.7 is no fsync; ours is followed by an fdatasync on
//!   a descriptor of our own, and by a look into `blobs/`, whose files sled never syncs: there must be none.
//! - **What was synced is there at the next open, or the open fails.** If sled cuts its tail silently, the state stands before
//!   the beginning of the log, or the log replays what is missing; `assemble` tells the two apart.
//!
//! sled recovers a prefix of its batches in the order they were written, and a batch as a whole. That carries the rest.
//!
//! # A checkpoint
//! Up to 1,024 changes and 1 MiB go into one batch, together with the group's pointer. A larger one would be a batch that
//! holds up every read for its whole length. So its changes are *staged* first, as bytes in chunks; then one small batch moves
//! the pointer to the new index and notes how many chunks are staged; that is the moment it happens. Then the changes are applied in bounded
//! batches and the note is removed. An open that finds the note applies them (again): they are plain puts
//! and removals, so twice is as good as once. Staged chunks without a note are of a checkpoint that never happened.
//!
//! # A snapshot
//! Its records are written as a new generation beside the one in use; one batch moves the pointer; then it is synced, and the old
//! generation is removed. A crash at any point leaves one whole generation in use, and the open removes the others.
//!
//! # Caveats
//! - A large checkpoint is written twice. A snapshot needs room for both generations until it is installed.
//! - sled's file does not shrink, and its memory may reach several times its cache: a store that is mostly dead is written anew (`rewrite`).
//! - An open that finds a damaged sled fails. The way back is a new data directory, and the state from a leader.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sled::Batch;

use crate::ids::GroupId;
use crate::node::effect::Checkpoint;
use crate::raft::{Snapshot, SnapshotMeta};
use crate::record::{self, Change};

use super::bodies::BodyReader;
use super::copy::{self, SharedTree, StateReader};
use super::files::failed;
use super::keys::{self, STORED_BYTES_MAX, Stored};
use super::{Records, StateLoad, StateStore, StorageError, Visit};
use rewrite::Database;

/// Bytes of sled's own segments, fixed when a database is made. With the default, 512 KiB, values of 20,000 bytes
/// already end up in files that are never synced.
const SLED_SEGMENT_BYTES: usize = 8 * 1024 * 1024;
/// Changes of one batch: what holds up a read stays short.
const BATCH_CHANGES_MAX: usize = 1024;
/// Bytes of one batch, but for one value that may be larger by itself.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Where a group's state is, and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Pointer {
    /// The generation of records in use, from 1.
    pub(super) generation: u32,
    /// Where in the log they stand.
    pub(super) applied: SnapshotMeta,
    /// Chunks of staged changes that belong to `applied`, and may not be in the records yet.
    staged: u32,
}

impl Default for Pointer {
    fn default() -> Self {
        Self { generation: 1, applied: SnapshotMeta::default(), staged: 0 }
    }
}

/// The state store on sled. See the module.
#[derive(Debug)]
pub struct SledStore {
    path: PathBuf,
    database: Database,
    /// The same for those who read beside this.
    shared: SharedTree,
    cache_bytes: u64,
    /// Bytes of all keys and values in sled, about.
    live_bytes: u64,
    pointers: BTreeMap<GroupId, Pointer>,
    failed: bool,
    /// Stops a large checkpoint after that many batches, as a crash would.
    #[cfg(test)]
    pub(super) batches_left: Option<usize>,
}

impl SledStore {
    /// Opens the store in `path`, or makes one, with a cache of so many bytes. With `fresh` whatever is there is the rest of a first start that was
    /// killed, and is removed.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where what is there is damaged; else what the disk says.
    pub fn open(path: &Path, fresh: bool, cache_bytes: u64) -> Result<Self, StorageError> {
        if fresh && path.exists() {
            std::fs::remove_dir_all(path).map_err(failed("remove", path))?;
        }
        let database = Database::open_newest(path, cache_bytes)?;
        let mut store = Self {
            path: path.to_owned(),
            shared: SharedTree::new(&database.tree),
            database,
            cache_bytes,
            live_bytes: 0,
            pointers: BTreeMap::new(),
            failed: false,
            #[cfg(test)]
            batches_left: None,
        };
        store.count_live()?;
        store.read_pointers()?;
        Ok(store)
    }

    fn corrupt(&self, why: &str) -> StorageError {
        StorageError::Corrupt { what: format!("{}: {why}", self.path.display()) }
    }

    /// Counts what is there.
    fn count_live(&mut self) -> Result<(), StorageError> {
        for pair in self.database.tree.iter() {
            let (key, value) = pair.map_err(sled_failed("read", &self.path))?;
            self.live_bytes += (key.len() + value.len()) as u64;
        }
        Ok(())
    }

    /// Finds all groups, finishes what a crash interrupted, and removes what is not in use.
    fn read_pointers(&mut self) -> Result<(), StorageError> {
        let mut key = Vec::new();
        let mut leftovers = Vec::new();
        // One look per group and generation: the next key after all of the last one.
        while let Some((found, value)) = self.first_from(&key)? {
            let (group, generation) =
                keys::owner(&found).ok_or_else(|| self.corrupt(&format!("{found:?} is no key of ours")))?;
            if found == keys::pointer(group) {
                let pointer = record::decode(&found, &value).map_err(|bad| self.corrupt(&bad.to_string()))?;
                self.pointers.insert(group, pointer);
            } else if self.pointers.get(&group).is_none_or(|pointer| pointer.generation != generation) {
                leftovers.push((group, generation));
            }
            key = keys::generation(group, generation).end;
        }
        for (group, generation) in leftovers {
            self.remove(keys::generation(group, generation))?;
        }
        for (group, pointer) in self.pointers.clone() {
            if pointer.staged > 0 {
                self.apply_staged(group, pointer)?;
            } else {
                self.remove(keys::all_staged(group))?;
            }
        }
        StateStore::sync(self)
    }

    fn first_from(&self, key: &[u8]) -> Result<Option<(sled::IVec, sled::IVec)>, StorageError> {
        self.database.tree.range(key..).next().transpose().map_err(sled_failed("read", &self.path))
    }

    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, StorageError> {
        self.database.tree.get(key).map_err(sled_failed("read", &self.path))
    }

    fn pointer(&self, group: GroupId) -> Pointer {
        self.pointers.get(&group).cloned().unwrap_or_default()
    }

    /// Writes a batch, and with it a group's pointer where one is given.
    fn write(&mut self, mut batch: Batch, pointer: Option<(GroupId, Pointer)>) -> Result<(), StorageError> {
        #[cfg(test)]
        if let Some(left) = &mut self.batches_left {
            *left = left.checked_sub(1).ok_or_else(|| StorageError::Corrupt { what: "crashed".to_owned() })?;
        }
        if let Some((group, pointer)) = &pointer {
            batch.insert(keys::pointer(*group), record::encode(pointer));
        }
        self.database.tree.apply_batch(batch).map_err(sled_failed("write", &self.path))?;
        self.pointers.extend(pointer);
        Ok(())
    }

    /// Puts one change into a batch; tells how many bytes that took.
    fn put_change(
        &mut self,
        batch: &mut Batch,
        group: GroupId,
        generation: u32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<usize, StorageError> {
        let full = keys::record(group, generation, key);
        let before = self.get(&full)?;
        let weight = |stored: &[u8]| match Stored::decode(stored) {
            Some(Stored::Chunked(total)) => full.len() as u64 + total,
            _ => (full.len() + stored.len()) as u64,
        };
        let gone = before.as_deref().map_or(0, weight);
        let come = value.map_or(0, |value| (full.len() + value.len()) as u64);
        self.live_bytes = (self.live_bytes + come).saturating_sub(gone);
        let chunks_before = before.as_deref().and_then(Stored::decode).map_or(0, |stored| stored.chunks());
        let mut chunks_now = 0;
        let mut bytes = full.len();
        match value {
            Some(value) => {
                let (stored, chunks) = keys::split(value);
                bytes += value.len();
                batch.insert(full, stored);
                for (number, chunk) in (0..).zip(chunks) {
                    batch.insert(keys::chunk(group, generation, key, number), chunk);
                    chunks_now = number + 1;
                }
            }
            None => batch.remove(full),
        }
        for number in chunks_now..chunks_before {
            batch.remove(keys::chunk(group, generation, key, number));
        }
        Ok(bytes)
    }

    /// Writes changes, one of each key, in bounded batches, the last of which goes with `pointer`.
    fn write_changes<'a>(
        &mut self,
        group: GroupId,
        generation: u32,
        changes: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        pointer: Option<Pointer>,
    ) -> Result<(), StorageError> {
        let (mut batch, mut count, mut bytes) = (Batch::default(), 0, 0);
        for (key, value) in changes {
            if count >= BATCH_CHANGES_MAX || bytes >= BATCH_BYTES_MAX {
                self.write(std::mem::take(&mut batch), None)?;
                (count, bytes) = (0, 0);
            }
            bytes += self.put_change(&mut batch, group, generation, key, value)?;
            count += 1;
        }
        self.write(batch, pointer.map(|pointer| (group, pointer)))
    }

    /// A checkpoint too large for one batch: see the module.
    fn stage(&mut self, group: GroupId, meta: &SnapshotMeta, changes: &[Change]) -> Result<(), StorageError> {
        let bytes = keys::encode_changes(changes);
        let mut number = 0;
        for part in bytes.chunks(BATCH_BYTES_MAX) {
            let mut batch = Batch::default();
            for chunk in part.chunks(STORED_BYTES_MAX) {
                batch.insert(keys::staged(group, number), chunk);
                number += 1;
            }
            self.write(batch, None)?;
        }
        let pointer = Pointer { applied: meta.clone(), staged: number, ..self.pointer(group) };
        self.write(Batch::default(), Some((group, pointer.clone())))?;
        self.apply_staged(group, pointer)
    }

    /// Applies what is staged, and forgets it.
    fn apply_staged(&mut self, group: GroupId, pointer: Pointer) -> Result<(), StorageError> {
        let mut bytes = Vec::new();
        for number in 0..pointer.staged {
            let chunk = self.get(&keys::staged(group, number))?;
            let chunk = chunk.ok_or_else(|| self.corrupt(&format!("{group}: staged chunk {number} is missing")))?;
            bytes.extend_from_slice(&chunk);
        }
        let changes = keys::decode_changes(&bytes).map_err(|bad| self.corrupt(&format!("{group}: {bad}")))?;
        let generation = pointer.generation;
        let done = Pointer { staged: 0, ..pointer };
        self.write_changes(group, generation, last_of_each(&changes).into_iter(), Some(done))?;
        self.remove(keys::all_staged(group))
    }

    /// Removes all keys of a range, in bounded batches.
    fn remove(&mut self, range: std::ops::Range<Vec<u8>>) -> Result<(), StorageError> {
        loop {
            let mut batch = Batch::default();
            let mut count = 0;
            for pair in self.database.tree.range(range.clone()).take(BATCH_CHANGES_MAX) {
                let (key, value) = pair.map_err(sled_failed("read", &self.path))?;
                self.live_bytes = self.live_bytes.saturating_sub((key.len() + value.len()) as u64);
                batch.remove(key);
                count += 1;
            }
            if count == 0 {
                return Ok(());
            }
            self.write(batch, None)?;
        }
    }

    /// The value behind what is stored under a record's key.
    fn value(&self, group: GroupId, generation: u32, key: &[u8], stored: &[u8]) -> Result<Bytes, StorageError> {
        copy::value(&self.database.tree, &self.path, group, generation, key, stored)
    }

    /// Reads records beside this store, on another thread.
    pub(super) fn reader(&self, bodies: BodyReader) -> StateReader {
        StateReader::new(&self.path, &self.shared, bodies)
    }

    /// Runs one step, unless an earlier one failed; remembers if this one does.
    fn attempt<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, StorageError>) -> Result<T, StorageError> {
        if self.failed {
            return Err(self.corrupt("the store has failed before, and takes nothing more"));
        }
        let result = step(self);
        self.failed = result.is_err();
        result
    }

    fn write_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        let Checkpoint { group, meta, changes, whole: _ } = checkpoint;
        let pointer = self.pointer(*group);
        if meta.index < pointer.applied.index {
            let (index, stands) = (meta.index, pointer.applied.index);
            return Err(self.corrupt(&format!("{group}: a checkpoint at {index} after one at {stands}")));
        }
        let bytes_of = |change: &Change| change.key.len() + change.value.as_ref().map_or(0, Vec::len);
        let bytes: usize = changes.iter().map(bytes_of).sum();
        if changes.len() > BATCH_CHANGES_MAX || bytes > BATCH_BYTES_MAX {
            return self.stage(*group, meta, changes);
        }
        let mut batch = Batch::default();
        for (key, value) in last_of_each(changes) {
            self.put_change(&mut batch, *group, pointer.generation, key, value)?;
        }
        self.write(batch, Some((*group, Pointer { applied: meta.clone(), ..pointer })))
    }

    fn write_snapshot(&mut self, group: GroupId, snapshot: &Snapshot) -> Result<(), StorageError> {
        let old = self.pointer(group);
        if snapshot.meta.index < old.applied.index {
            let (index, stands) = (snapshot.meta.index, old.applied.index);
            return Err(self.corrupt(&format!("{group}: a snapshot at {index} is older than the state at {stands}")));
        }
        let records = record::decode_records(&snapshot.data).map_err(|bad| self.corrupt(&bad.to_string()))?;
        let new = Pointer { generation: old.generation + 1, applied: snapshot.meta.clone(), staged: 0 };
        let pairs = records.iter().map(|(key, value)| (key.as_slice(), Some(value.as_ref())));
        self.write_changes(group, new.generation, pairs, Some(new))?;
        self.make_durable()?;
        self.remove(keys::generation(group, old.generation))
    }

    fn make_durable(&mut self) -> Result<(), StorageError> {
        self.database.sync()
    }
}

/// The changes in key order, of each key the last one: what a batch writes must follow from what is in the tree before it.
fn last_of_each(changes: &[Change]) -> BTreeMap<&[u8], Option<&[u8]>> {
    changes.iter().map(|change| (change.key.as_slice(), change.value.as_deref())).collect()
}

/// Removes what a killed start left, and syncs what it wrote: sled would take the one for its newest snapshot, and would
/// make a snapshot of the other that outlives a power cut when the data under it does not.
fn prepare(path: &Path) -> Result<(), StorageError> {
    for entry in std::fs::read_dir(path).map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(entry.path()).map_err(failed("remove", &entry.path()))?;
        }
    }
    let database = path.join("db");
    let file = match File::open(&database) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("open", &database)(error)),
    };
    // The directory is locked, so whoever holds sled's own lock is a store of this process that is being dropped: its
    // threads let go a little later. sled does not wait for them, so this does.
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|errno| failed("lock", &database)(errno.into()))?;
    file.sync_data().map_err(failed("sync", &database))
}

/// Refuses where sled has put a value into a file of its own: it syncs none of them, and hangs at an open if one is missing.
fn check_blobs(path: &Path) -> Result<(), StorageError> {
    let blobs = path.join("blobs");
    let mut entries = match std::fs::read_dir(&blobs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("list", &blobs)(error)),
    };
    match entries.next() {
        None => Ok(()),
        Some(Ok(entry)) => {
            let file = entry.path();
            let what = format!("{}: sled put a value into a file that it never syncs", file.display());
            Err(StorageError::Corrupt { what })
        }
        Some(Err(error)) => Err(failed("list", &blobs)(error)),
    }
}

/// Turns sled's error into ours.
pub(super) fn sled_failed(what: &str, path: &Path) -> impl FnOnce(sled::Error) -> StorageError {
    let what = format!("{what} {}", path.display());
    move |error| match error {
        sled::Error::Io(source) => StorageError::Io { what, source },
        other => StorageError::Corrupt { what: format!("{what}: {other}") },
    }
}

impl StateStore for SledStore {
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        self.attempt(|store| store.write_checkpoint(checkpoint))
    }

    fn install(&mut self, group: GroupId, snapshot: &Snapshot) -> Result<(), StorageError> {
        self.attempt(|store| store.write_snapshot(group, snapshot))
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.attempt(Self::make_durable)
    }

    fn read(&self, group: GroupId, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let generation = self.pointer(group).generation;
        match self.get(&keys::record(group, generation, key))? {
            Some(stored) => self.value(group, generation, key, &stored).map(Some),
            None => Ok(None),
        }
    }

    /// Writes the store anew where it is mostly dead.
    fn tend(&mut self) -> Result<bool, StorageError> {
        self.attempt(Self::rewrite_if_mostly_dead)?;
        Ok(false)
    }

    fn bytes_on_disk(&self) -> u64 {
        self.database.bytes()
    }
}

impl StateLoad for SledStore {
    fn load(&self, group: GroupId) -> Result<(SnapshotMeta, Records), StorageError> {
        let Pointer { generation, applied, .. } = self.pointer(group);
        let all = keys::records(group, generation);
        let bodies = keys::bodies(group, generation);
        let mut records = Vec::new();
        for range in [all.start..bodies.start, bodies.end..all.end] {
            for pair in self.database.tree.range(range) {
                let (full, stored) = pair.map_err(sled_failed("read", &self.path))?;
                let key = full[keys::RECORD_KEY_OFFSET..].to_vec();
                let value = self.value(group, generation, &key, &stored)?;
                records.push((key, value));
            }
        }
        Ok((applied, records))
    }

    fn stands(&self, group: GroupId) -> SnapshotMeta {
        self.pointer(group).applied
    }

    fn each_body(&self, group: GroupId, visit: Visit<'_>) -> Result<(), StorageError> {
        let generation = self.pointer(group).generation;
        for pair in self.database.tree.range(keys::bodies(group, generation)) {
            let (full, stored) = pair.map_err(sled_failed("read", &self.path))?;
            let key = &full[keys::RECORD_KEY_OFFSET..];
            visit(key, &self.value(group, generation, key, &stored)?)?;
        }
        Ok(())
    }
}

mod rewrite;
#[cfg(test)]
mod tests;
