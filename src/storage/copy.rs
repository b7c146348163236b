//! Reading the state store beside its writer, for a copy of a group's state that is made while it changes.
//!
//! sled's trees may be read by other threads while one writes. A reader sees each record as it is at some instant of its reading, so
//! what it has read of several is of no one instant. Whoever copies notes therefore which records were written meanwhile, and reads
//! those again (`server/backup`).
//!
//! # Caveats
//! * A value in chunks may be replaced between two of its chunks. What then does not fit together is told as such; what happens to fit is
//!   not noticed. Either way the record was written meanwhile.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::ids::GroupId;
use crate::record;

use super::StorageError;
use super::keys::{self, Stored};
use super::sled_store::{Pointer, sled_failed};

/// Reads records of a state store that another thread writes.
#[derive(Clone, Debug)]
pub struct StateReader {
    path: PathBuf,
    tree: sled::Db,
}

/// A record as it was found; None where it was being replaced just then.
pub type Seen = (Vec<u8>, Option<Bytes>);

/// A record that was looked for. See [`StateReader::read_each`].
pub type Found = (Vec<u8>, Option<Option<Bytes>>);

impl StateReader {
    pub(super) fn new(path: &Path, tree: &sled::Db) -> Self {
        Self { path: path.to_owned(), tree: tree.clone() }
    }

    /// Records of a group with keys above `after`, in key order: until there are `bytes` of them, and at least one, if one is left.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn records(&self, group: GroupId, after: Option<&[u8]>, bytes: usize) -> Result<Vec<Seen>, StorageError> {
        let generation = self.pointer(group)?.generation;
        let all = keys::records(group, generation);
        let start = match after {
            Some(key) => [keys::record(group, generation, key), vec![0]].concat(),
            None => all.start,
        };
        let (mut seen, mut total) = (Vec::new(), 0);
        for pair in self.tree.range(start..all.end) {
            let (full, stored) = pair.map_err(sled_failed("read", &self.path))?;
            let key = full[keys::RECORD_KEY_OFFSET..].to_vec();
            let value = value(&self.tree, &self.path, group, generation, &key, &stored).ok();
            total += key.len() + value.as_ref().map_or(0, Bytes::len);
            seen.push((key, value));
            if total >= bytes {
                break;
            }
        }
        Ok(seen)
    }

    /// The records with these keys: Some with the value, or with None where there is no such record; None where it was being
    /// replaced just then.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn read_each(&self, group: GroupId, keys: Vec<Vec<u8>>) -> Result<Vec<Found>, StorageError> {
        let generation = self.pointer(group)?.generation;
        let read = |key: Vec<u8>| {
            let stored =
                self.tree.get(keys::record(group, generation, &key)).map_err(sled_failed("read", &self.path))?;
            let found = match stored {
                None => Some(None),
                Some(stored) => value(&self.tree, &self.path, group, generation, &key, &stored).ok().map(Some),
            };
            Ok((key, found))
        };
        keys.into_iter().map(read).collect()
    }

    fn pointer(&self, group: GroupId) -> Result<Pointer, StorageError> {
        let key = keys::pointer(group);
        let found = self.tree.get(&key).map_err(sled_failed("read", &self.path))?;
        let decoded = found.map(|value| record::decode(&key, &value)).transpose();
        let damaged =
            |bad: record::BadRecord| StorageError::Corrupt { what: format!("{}: {bad}", self.path.display()) };
        Ok(decoded.map_err(damaged)?.unwrap_or_default())
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
