//! Reading the state store beside its writer, for a copy of a group's state that is made while it changes.
//!
//! sled's trees may be read by other threads while one writes. A reader sees each record as it is at some instant of its reading, so
//! what it has read of several is of no one instant. Whoever copies notes therefore which records were written meanwhile, and reads
//! those again (`server/backup`). The body of a message that waits is one record to whoever reads, though it lies in a file of bodies.
//!
//! # Caveats
//! * A value in chunks may be replaced between two of its chunks. What then does not fit together is told as such; what happens to fit is
//!   not noticed. Either way the record was written meanwhile.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::ids::{GroupId, Index};
use crate::node::machine::body_key;
use crate::record;

use super::bodies::{self, BodyReader, Place};
use super::keys::{self, Stored};
use super::sled_store::{Pointer, sled_failed};
use super::{Looked, ReadBeside, StorageError};

/// Reads records of a state store that another thread writes.
#[derive(Clone, Debug)]
pub struct StateReader {
    path: PathBuf,
    tree: SharedTree,
    bodies: BodyReader,
}

/// The database in use, which another thread may replace by one with the same records.
#[derive(Clone, Debug)]
pub(super) struct SharedTree(Arc<RwLock<sled::Db>>);

impl SharedTree {
    pub(super) fn new(tree: &sled::Db) -> Self {
        Self(Arc::new(RwLock::new(tree.clone())))
    }

    /// The database as of now. Not to be kept: the one in use may be another soon.
    pub(super) fn get(&self) -> sled::Db {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn replace(&self, tree: &sled::Db) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tree.clone();
    }
}

/// A record as it was found; None where it was being replaced just then.
pub type Seen = (Vec<u8>, Option<Bytes>);

/// A record that was looked for. See [`StateReader::read_each`].
pub type Found = (Vec<u8>, Option<Option<Bytes>>);

impl StateReader {
    pub(super) fn new(path: &Path, tree: &SharedTree, bodies: BodyReader) -> Self {
        Self { path: path.to_owned(), tree: tree.clone(), bodies }
    }

    /// Records of a group with keys above `after`, in key order: until there are `bytes` of them, and at least one, if one is left.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn records(&self, group: GroupId, after: Option<&[u8]>, bytes: usize) -> Result<Vec<Seen>, StorageError> {
        let tree = self.tree.get();
        let generation = self.pointer(group, &tree)?.generation;
        let all = keys::records(group, generation);
        let start = match after {
            Some(key) if bodies::is_body(key) => keys::record(group, generation, &bodies::index_key(group, key)?),
            Some(key) => [keys::record(group, generation, key), vec![0]].concat(),
            None => all.start,
        };
        let (mut seen, mut total) = (Vec::new(), 0);
        let mut see = |key: Vec<u8>, value: Option<Bytes>| {
            total += key.len() + value.as_ref().map_or(0, Bytes::len);
            seen.push((key, value));
            total < bytes
        };
        'reading: for pair in tree.range(start..all.end) {
            let (full, stored) = pair.map_err(sled_failed("read", &self.path))?;
            let key = full[keys::RECORD_KEY_OFFSET..].to_vec();
            let value = value(&tree, &self.path, group, generation, &key, &stored).ok();
            if !bodies::is_body(&key) {
                if see(key, value) { continue } else { break }
            }
            // An index record is small, so it is never in chunks, and never half replaced.
            for (id, place) in bodies::places(group, &key, &value.unwrap_or_default())? {
                let key = body_key(id);
                if after.is_none_or(|after| after < key.as_slice()) && !see(key, self.body_at(group, id, place)?) {
                    break 'reading;
                }
            }
        }
        Ok(seen)
    }

    /// The body of a message that lay at a place just now; None where it is gone.
    fn body_at(&self, group: GroupId, id: Index, place: Place) -> Result<Option<Bytes>, StorageError> {
        match self.bodies.read_at(group, id, place)? {
            Some(body) => Ok(Some(body)),
            None => self.body(group, id),
        }
    }

    /// The body of a message; None where it is gone.
    fn body(&self, group: GroupId, id: Index) -> Result<Option<Bytes>, StorageError> {
        self.bodies.read(group, id, |key| {
            let tree = self.tree.get();
            let generation = self.pointer(group, &tree)?.generation;
            let stored = tree.get(keys::record(group, generation, key));
            let stored = stored.map_err(sled_failed("read", &self.path))?;
            stored.map(|stored| value(&tree, &self.path, group, generation, key, &stored)).transpose()
        })
    }

    /// The records with these keys: Some with the value, or with None where there is no such record; None where it was being
    /// replaced just then.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn read_each(&self, group: GroupId, keys: Vec<Vec<u8>>) -> Result<Vec<Found>, StorageError> {
        let tree = self.tree.get();
        let generation = self.pointer(group, &tree)?.generation;
        let read = |key: Vec<u8>| {
            if bodies::is_body(&key) {
                let body = self.body(group, bodies::id_of_key(group, &key)?)?;
                return Ok((key, Some(body)));
            }
            let stored = tree.get(keys::record(group, generation, &key)).map_err(sled_failed("read", &self.path))?;
            let found = match stored {
                None => Some(None),
                Some(stored) => value(&tree, &self.path, group, generation, &key, &stored).ok().map(Some),
            };
            Ok((key, found))
        };
        keys.into_iter().map(read).collect()
    }

    fn pointer(&self, group: GroupId, tree: &sled::Db) -> Result<Pointer, StorageError> {
        let key = keys::pointer(group);
        let found = tree.get(&key).map_err(sled_failed("read", &self.path))?;
        let decoded = found.map(|value| record::decode(&key, &value)).transpose();
        let damaged =
            |bad: record::BadRecord| StorageError::Corrupt { what: format!("{}: {bad}", self.path.display()) };
        Ok(decoded.map_err(damaged)?.unwrap_or_default())
    }
}

impl ReadBeside for StateReader {
    fn read_all(&self, group: GroupId, keys: Vec<Vec<u8>>) -> Result<Looked, StorageError> {
        let read = |(key, value): Found| {
            let torn = || StorageError::Corrupt { what: format!("{group}: record {key:?} is being replaced") };
            let value = value.ok_or_else(torn)?;
            Ok((key, value))
        };
        self.read_each(group, keys)?.into_iter().map(read).collect()
    }
}

/// The value behind what is stored under a record's key.
pub(super) fn value(
    tree: &sled::Db,
    path: &Path,
    group: GroupId,
    generation: u32,
    key: &[u8],
    stored: &[u8],
) -> Result<Bytes, StorageError> {
    let damaged =
        |why: &str| StorageError::Corrupt { what: format!("{}: {group}: record {key:?} {why}", path.display()) };
    let stored = Stored::decode(stored).ok_or_else(|| damaged("has no known form"))?;
    let total = match stored {
        Stored::Inline(value) => return Ok(Bytes::copy_from_slice(value)),
        Stored::Chunked(total) => total,
    };
    let mut value = Vec::new();
    for number in 0..stored.chunks() {
        let chunk = tree.get(keys::chunk(group, generation, key, number)).map_err(sled_failed("read", path))?;
        value.extend_from_slice(&chunk.ok_or_else(|| damaged("lacks a chunk"))?);
    }
    if value.len() as u64 != total {
        return Err(damaged(&format!("has {} bytes in its chunks, not {total}", value.len())));
    }
    Ok(Bytes::from(value))
}
