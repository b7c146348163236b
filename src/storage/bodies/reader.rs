//! Reading bodies beside the thread that writes them.
//!
//! Between the look at where a body lies and the look at what lies there, it may be carried elsewhere and its file be gone. Then the
//! state is asked again; where it names no place any more, the message was acknowledged.

use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{GroupId, Index};
use crate::storage::StorageError;
use crate::storage::log::{Folder, Medium};

use super::files::read_body;
use super::index::{Bucket, Place, bucket_key, bucket_of};

/// Tries to read a body that moves. Each try means that a whole file was carried and removed since the one before.
const TRIES_MAX: usize = 8;

/// Reads bodies from files that another thread writes.
#[derive(Debug)]
pub struct BodyReader<M: Medium = Folder> {
    medium: Arc<M>,
}

impl<M: Medium> Clone for BodyReader<M> {
    fn clone(&self) -> Self {
        Self { medium: Arc::clone(&self.medium) }
    }
}

impl<M: Medium> BodyReader<M> {
    pub(super) fn new(medium: Arc<M>) -> Self {
        Self { medium }
    }

    /// Reads the body at a place; None where the file is gone.
    pub(in crate::storage) fn read_at(
        &self,
        group: GroupId,
        id: Index,
        place: Place,
    ) -> Result<Option<Bytes>, StorageError> {
        match read_body(&*self.medium, group, id, place) {
            Err(StorageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Reads a body; None where the state names none. `index` reads an index record.
    pub(in crate::storage) fn read(
        &self,
        group: GroupId,
        id: Index,
        index: impl Fn(&[u8]) -> Result<Option<Bytes>, StorageError>,
    ) -> Result<Option<Bytes>, StorageError> {
        let key = bucket_key(bucket_of(id));
        for _ in 0..TRIES_MAX {
            let Some(value) = index(&key)? else { return Ok(None) };
            let Some(place) = Bucket::decode(group, &key, &value)?.get(id) else { return Ok(None) };
            if let Some(body) = self.read_at(group, id, place)? {
                return Ok(Some(body));
            }
        }
        Err(super::corrupt(group, &format!("the body of message {id} is named {TRIES_MAX} times where no file is")))
    }
}
