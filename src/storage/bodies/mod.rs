//! Bodies of messages that the log has forgotten, in files of their own.
//!
//! A body is stored once, in the log entry that is its message's id. When compaction overtakes that entry while the message is
//! still waiting, the body moves here, and is written once more, from one end of a file to the other. It goes when its message does,
//! and its room comes back with the file that it lies in. A queue is emptied in about the order in which it was filled, so the
//! bodies of a file die together, and hardly anything is ever copied.
//!
//! ```text
//!   Checkpoint (records, some of them bodies)
//!       |  bodies                                  |  the other records
//!       v                                          v
//!   [ 17.bodies | 18.bodies | 19.bodies ]     [ records behind the log: sled, or the simulator's twin ]
//!       1. appended, fdatasync                     ^  where each body lies
//!       +------------- 2. places, 64 to a record --+  in the very batch that moves the state's index
//! ```
//!
//! [`Bodies`] is a layer over any store of records: what it is given under a body's key ([`prefix::BODY`]) goes into the files, and below it
//! lies an *index record* under that prefix for each 64 consecutive log indices, with the places of those bodies that live.
//!
//! # Why not elsewhere
//! - **In sled**, where they were: for 2 GiB of bodies that came and went it keeps 3.6 GiB of file and 2 GB of memory, and each
//!   checkpoint with more than 1 MiB of them is written twice. As records of 600 bytes for 64 bodies it does not notice them.
//! - **In the log's segments**, read where they were written: then a start reads and checks the whole backlog, a second per GiB, before the
//!   node can vote; what becomes of an entry after it was compacted would be part of every rule of the log's recovery; and old and young
//!   groups would hold each other's segments. What it would save is this second, sequential write of what waits for long, and nothing
//!   of what does not.
//!
//! # Invariants
//! - What an index record names is on disk: bodies are synced before the batch that names them is written.
//! - A file goes only when no index record names anything in it, and that is durable.
//! - A file that was there at a start gets no more bodies: a torn end of one is never written over.
//! - Files take at most twice the bytes of the live bodies, and [`FILES_SPARE`] files: beyond that the emptiest one is *carried*, its
//!   live bodies appended anew.
//! - A body is checked, with its place and its message's id, whenever it is read.
//!
//! # Caveats
//! - A body that waits for longer than a few megabytes of log is written twice, to the log and to a file here.
//! - One message that nobody acknowledges holds its file, up to the bound above.
//! - Between a removal and the next checkpoint a body takes its room: up to [`Timing::checkpoint_bytes`](crate::node::Timing) of them.

mod carry;
mod files;
mod index;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::{GroupId, Index};
use crate::marks::{Rare, mark};
use crate::node::effect::Checkpoint;
use crate::raft::{Snapshot, SnapshotMeta};
use crate::record::{self, Change, prefix};

use super::log::{Folder, Medium};
use super::{Records, StateLoad, StateStore, StorageError, Visit};
use carry::Carrying;
use files::BodyFiles;
use index::{Bucket, bucket_key, bucket_of, corrupt};
pub(super) use index::{Place, id_of_key, places};
pub use reader::BodyReader;

/// Bytes of a file of bodies where nothing else is asked for: some seconds of a busy queue, so that room comes back soon.
pub const BODY_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Files beside twice what lives: below that nothing is worth a copy.
pub const FILES_SPARE: u64 = 4;
/// Bytes that are carried at a time, at least one body.
const CARRY_BYTES: usize = 2 * 1024 * 1024;

/// What bodies take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyBytes {
    /// Bytes of the files.
    pub disk: u64,
    /// Bytes of the bodies in them that live.
    pub live: u64,
}

/// A store of records whose bodies are in files beside it. See the module.
#[derive(Debug)]
pub struct Bodies<S, M: Medium = Folder> {
    records: S,
    files: BodyFiles<M>,
    /// Where the state of each group stands.
    applied: BTreeMap<GroupId, SnapshotMeta>,
    carrying: Option<Carrying>,
    failed: bool,
}

/// Bodies of one group that a change names, by id: the new body, or None where it goes.
type Named<'a> = BTreeMap<Index, Option<&'a [u8]>>;

impl<S: StateStore + StateLoad, M: Medium> Bodies<S, M> {
    /// Puts the layer over a store. Files in which nothing lives are removed.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where a body that is named is not there; else what the disk says.
    pub fn open(records: S, medium: M, groups: u32, file_bytes: u64) -> Result<Self, StorageError> {
        let files = BodyFiles::open(medium, file_bytes)?;
        let mut bodies = Self { records, files, applied: BTreeMap::new(), carrying: None, failed: false };
        bodies.recount(groups)?;
        Ok(bodies)
    }

    /// Counts anew what lives, after a start.
    fn recount(&mut self, groups: u32) -> Result<(), StorageError> {
        for group in (0..groups).map(GroupId) {
            self.applied.insert(group, self.records.stands(group));
            let files = &mut self.files;
            self.records.each_body(group, &mut |key, value| {
                let bucket = Bucket::decode(group, key, value)?;
                bucket.places().for_each(|(_, place)| files.count_up(place));
                Ok(())
            })?;
        }
        self.files.check_and_clean()
    }

    /// The store of records under it.
    pub(super) fn records(&self) -> &S {
        &self.records
    }

    /// The same, to change what has nothing to do with bodies.
    pub(super) fn records_mut(&mut self) -> &mut S {
        &mut self.records
    }

    /// Reads bodies beside this.
    pub fn body_reader(&self) -> BodyReader<M> {
        BodyReader::new(std::sync::Arc::clone(self.files.medium()))
    }

    /// Runs one step, unless an earlier one failed; remembers if this one does.
    fn attempt<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, StorageError>) -> Result<T, StorageError> {
        if self.failed {
            let what = "the store of bodies has failed before, and takes nothing more".to_owned();
            return Err(StorageError::Corrupt { what });
        }
        let result = step(self);
        self.failed = result.is_err();
        result
    }

    fn bucket(&self, group: GroupId, number: u64) -> Result<Bucket, StorageError> {
        let key = bucket_key(number);
        match self.records.read(group, &key)? {
            Some(value) => Bucket::decode(group, &key, &value),
            None => Ok(Bucket::default()),
        }
    }

    /// Appends what comes, and makes it durable; returns the changes of the index records, and what they do to the files.
    fn write_bodies(
        &mut self,
        group: GroupId,
        named: &Named<'_>,
    ) -> Result<(Vec<Change>, index::Turnover), StorageError> {
        let (mut changes, mut turnover) = (Vec::new(), index::Turnover::default());
        let mut named = named.iter().peekable();
        while let Some((first, _)) = named.peek() {
            let number = bucket_of(**first);
            let mut bucket = self.bucket(group, number)?;
            let before = bucket.clone();
            while let Some((id, body)) = named.next_if(|(id, _)| bucket_of(**id) == number) {
                let place = body.map(|body| self.files.append(group, *id, body)).transpose()?;
                turnover.replaced(bucket.set(*id, place), place);
            }
            if bucket != before {
                changes.push(bucket.change(number));
            }
        }
        if turnover.has_come() {
            self.files.sync()?;
        }
        Ok((changes, turnover))
    }

    fn write_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        let Checkpoint { group, meta, changes, whole } = checkpoint;
        let mut named = Named::new();
        for change in changes.iter().filter(|change| is_body(&change.key)) {
            named.insert(id_of_key(*group, &change.key)?, change.value.as_deref());
        }
        if named.is_empty() {
            self.records.checkpoint(checkpoint)?;
        } else {
            let (places, turnover) = self.write_bodies(*group, &named)?;
            let others = changes.iter().filter(|change| !is_body(&change.key)).cloned();
            let changes = others.chain(places).collect();
            let below = Checkpoint { group: *group, meta: meta.clone(), changes, whole: *whole };
            self.records.checkpoint(&below)?;
            self.files.turn_over(&turnover);
        }
        self.applied.insert(*group, meta.clone());
        Ok(())
    }

    fn write_snapshot(&mut self, group: GroupId, snapshot: &Snapshot) -> Result<(), StorageError> {
        let unreadable = |bad: record::BadRecord| corrupt(group, &bad.to_string());
        let records = record::decode_records(&snapshot.data).map_err(unreadable)?;
        let mut turnover = index::Turnover::default();
        self.records.each_body(group, &mut |key, value| {
            Bucket::decode(group, key, value)?.places().for_each(|(_, place)| turnover.replaced(Some(place), None));
            Ok(())
        })?;
        let mut buckets: BTreeMap<u64, Bucket> = BTreeMap::new();
        for (key, body) in records.iter().filter(|(key, _)| is_body(key)) {
            let id = id_of_key(group, key)?;
            let place = self.files.append(group, id, body)?;
            buckets.entry(bucket_of(id)).or_default().set(id, Some(place));
            turnover.replaced(None, Some(place));
        }
        self.files.sync()?;
        let mut below: Records = records.into_iter().filter(|(key, _)| !is_body(key)).collect();
        below.extend(buckets.iter().map(|(number, bucket)| (bucket_key(*number), Bytes::from(bucket.encode()))));
        below.sort();
        let data = record::encode_records(below.iter().map(|(key, value)| (key.as_slice(), value.as_ref())));
        self.records.install(group, &Snapshot { meta: snapshot.meta.clone(), data })?;
        self.files.turn_over(&turnover);
        self.applied.insert(group, snapshot.meta.clone());
        Ok(())
    }

    /// Makes everything durable; then files in which nothing lives by what is durable are removed.
    fn make_durable(&mut self) -> Result<(), StorageError> {
        let dead = self.files.take_dead();
        self.records.sync()?;
        for number in dead {
            mark(Rare::BodyFileRemoved);
            self.files.remove(number)?;
        }
        Ok(())
    }
}

/// The key of the index record that a body's key belongs to.
pub(super) fn index_key(group: GroupId, key: &[u8]) -> Result<Vec<u8>, StorageError> {
    Ok(bucket_key(bucket_of(id_of_key(group, key)?)))
}

/// Whether a key is that of a body.
pub(super) fn is_body(key: &[u8]) -> bool {
    key.first() == Some(&prefix::BODY)
}

impl<S: StateStore + StateLoad, M: Medium> StateStore for Bodies<S, M> {
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        self.attempt(|bodies| bodies.write_checkpoint(checkpoint))
    }

    fn install(&mut self, group: GroupId, snapshot: &Snapshot) -> Result<(), StorageError> {
        self.attempt(|bodies| bodies.write_snapshot(group, snapshot))
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.attempt(Self::make_durable)
    }

    fn read(&self, group: GroupId, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        if !is_body(key) {
            return self.records.read(group, key);
        }
        let id = id_of_key(group, key)?;
        let place = self.bucket(group, bucket_of(id))?.get(id);
        place.map(|place| self.files.read(group, id, place)).transpose()
    }

    /// Carries where too much is dead; then the records' own store has its turn.
    fn tend(&mut self) -> Result<bool, StorageError> {
        self.attempt(|bodies| Ok(bodies.carry()? || bodies.records.tend()?))
    }

    fn bytes_on_disk(&self) -> u64 {
        self.records.bytes_on_disk()
    }

    fn body_bytes(&self) -> BodyBytes {
        self.files.body_bytes()
    }
}

impl<S: StateLoad, M: Medium> StateLoad for Bodies<S, M> {
    fn load(&self, group: GroupId) -> Result<(SnapshotMeta, Records), StorageError> {
        self.records.load(group)
    }

    fn stands(&self, group: GroupId) -> SnapshotMeta {
        self.records.stands(group)
    }

    fn each_body(&self, group: GroupId, visit: Visit<'_>) -> Result<(), StorageError> {
        self.records.each_body(group, visit)
    }
}
