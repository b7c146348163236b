//! Where bodies lie: one index record for each 64 consecutive log indices.
//!
//! ```text
//! key    'b'  bucket, u64 big-endian                     64 * bucket is the first id
//! value  [ [offset in the bucket, file, offset, bytes], ... ]   MessagePack, in the order of the ids; gone where none lives
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, Index};
use crate::record::{self, Change, prefix};

use super::StorageError;

/// Consecutive ids of one index record, as the queue's own records have them: what is enqueued together is acknowledged together.
const BUCKET_IDS: u64 = 64;

/// Where a body lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Place {
    /// Number of the file.
    pub(in super::super) file: u64,
    /// Where in it its record begins.
    pub(in super::super) offset: u64,
    /// Bytes of the body.
    pub(in super::super) bytes: u32,
}

/// The error of a group whose state is not what was written.
pub(super) fn corrupt(group: GroupId, why: &str) -> StorageError {
    StorageError::Corrupt { what: format!("{group}: {why}") }
}

/// The bucket of an id.
pub(super) fn bucket_of(id: Index) -> u64 {
    id / BUCKET_IDS
}

/// The key of an index record.
pub(super) fn bucket_key(number: u64) -> Vec<u8> {
    [&[prefix::BODY], number.to_be_bytes().as_slice()].concat()
}

/// The number behind a body's key or an index record's.
fn number_of_key(key: &[u8]) -> Option<u64> {
    key.strip_prefix(&[prefix::BODY])?.try_into().ok().map(u64::from_be_bytes)
}

/// The id in a body's key.
pub(in super::super) fn id_of_key(group: GroupId, key: &[u8]) -> Result<Index, StorageError> {
    number_of_key(key)
        .ok_or_else(|| corrupt(group, &format!("{key:?} is no key of a body: the prefix and 8 bytes are")))
}

/// The places of up to 64 bodies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket(BTreeMap<u8, Place>);

fn offset_of(id: Index) -> u8 {
    (id % BUCKET_IDS) as u8
}

impl Bucket {
    /// Reads an index record.
    pub(super) fn decode(group: GroupId, key: &[u8], value: &[u8]) -> Result<Self, StorageError> {
        let bad = |why: &str| corrupt(group, &format!("the index record {key:?} {why}"));
        let entries: Vec<(u8, Place)> = record::decode(key, value).map_err(|error| bad(&error.to_string()))?;
        let rising = entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !rising || entries.iter().any(|(offset, _)| u64::from(*offset) >= BUCKET_IDS) {
            return Err(bad("has places out of order"));
        }
        Ok(Self(entries.into_iter().collect()))
    }

    /// The value of the index record.
    pub(super) fn encode(&self) -> Vec<u8> {
        record::encode(&self.0.iter().collect::<Vec<_>>())
    }

    /// What is to be written of it: nothing where no body is left.
    pub(super) fn change(&self, number: u64) -> Change {
        Change { key: bucket_key(number), value: (!self.0.is_empty()).then(|| self.encode()) }
    }

    /// Where a body lies.
    pub(super) fn get(&self, id: Index) -> Option<Place> {
        self.0.get(&offset_of(id)).copied()
    }

    /// Notes where a body lies now; returns where it lay before.
    pub(super) fn set(&mut self, id: Index, place: Option<Place>) -> Option<Place> {
        match place {
            Some(place) => self.0.insert(offset_of(id), place),
            None => self.0.remove(&offset_of(id)),
        }
    }

    /// All places, with each body's offset in the bucket.
    pub(super) fn places(&self) -> impl Iterator<Item = (u8, Place)> + '_ {
        self.0.iter().map(|(offset, place)| (*offset, *place))
    }
}

/// The places in an index record of a group, with the ids.
pub(in super::super) fn places(group: GroupId, key: &[u8], value: &[u8]) -> Result<Vec<(Index, Place)>, StorageError> {
    let number = id_of_key(group, key)?;
    let bucket = Bucket::decode(group, key, value)?;
    Ok(bucket.places().map(|(offset, place)| (number * BUCKET_IDS + u64::from(offset), place)).collect())
}

/// Bodies that live in a file, or begin or end to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Living {
    /// How many.
    pub(super) bodies: u64,
    /// Their bytes, without what a record adds.
    pub(super) bytes: u64,
}

impl Living {
    pub(super) fn add(&mut self, place: Place) {
        self.bodies += 1;
        self.bytes += u64::from(place.bytes);
    }
}

/// What a write does to the files, by their numbers: what begins to live in each, and what ends.
#[derive(Debug, Default)]
pub(super) struct Turnover {
    pub(super) come: BTreeMap<u64, Living>,
    pub(super) gone: BTreeMap<u64, Living>,
}

impl Turnover {
    /// A body lay there, and lies here now.
    pub(super) fn replaced(&mut self, before: Option<Place>, now: Option<Place>) {
        if let Some(place) = before {
            self.gone.entry(place.file).or_default().add(place);
        }
        if let Some(place) = now {
            self.come.entry(place.file).or_default().add(place);
        }
    }

    pub(super) fn has_come(&self) -> bool {
        !self.come.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(file: u64) -> Place {
        Place { file, offset: 20, bytes: 1024 }
    }

    #[test]
    fn an_index_record_comes_back() {
        let group = GroupId(1);
        let mut bucket = Bucket::default();
        for id in [128, 130, 191] {
            assert_eq!(bucket.set(id, Some(place(id))), None);
        }
        assert_eq!(bucket.set(130, None), Some(place(130)));
        let Change { key, value } = bucket.change(2);
        assert_eq!(Bucket::decode(group, &key, value.as_deref().unwrap()).unwrap(), bucket);
        assert_eq!(places(group, &key, &value.unwrap()).unwrap(), [(128, place(128)), (191, place(191))]);
        bucket.set(128, None);
        bucket.set(191, None);
        assert_eq!(bucket.change(2).value, None);
    }

    #[test]
    fn what_is_no_index_record_is_refused() {
        let group = GroupId(1);
        let key = bucket_key(0);
        let twice = record::encode(&[(3_u8, place(1)), (3, place(1))]);
        let beyond = record::encode(&[(64_u8, place(1))]);
        for value in [&twice[..], &beyond, b"body", b""] {
            assert!(Bucket::decode(group, &key, value).is_err(), "{value:?}");
        }
        for key in [&b"b"[..], b"b1", b"q00000000", b"b000000000"] {
            assert!(id_of_key(group, key).is_err(), "{key:?}");
        }
    }
}
