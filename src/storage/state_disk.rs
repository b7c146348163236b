//! The state store of a node: sled, and the files of bodies beside it.
//!
//! ```text
//!   <data>/state           sled: records, and where each body lies
//!   <data>/state/bodies    the files of bodies
//! ```
//! One without the other is of no use, so they are made, removed and opened together.

use std::path::Path;

use super::bodies::{BODY_FILE_BYTES, Bodies};
use super::copy::StateReader;
use super::files::failed;
use super::log::Folder;
use super::{SledStore, StorageError};

/// Bytes that sled caches where nothing else is asked for. It takes several times as much.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// The directory of bodies.
const BODIES: &str = "bodies";

/// The state store of a node.
pub type StateDisk = Bodies<SledStore, Folder>;

/// What can be chosen about a state store.
#[derive(Clone, Debug)]
pub struct StateOptions {
    /// Bytes that sled caches.
    pub cache_bytes: u64,
    /// Bytes of a file of bodies.
    pub body_file_bytes: u64,
}

impl Default for StateOptions {
    fn default() -> Self {
        Self { cache_bytes: CACHE_BYTES, body_file_bytes: BODY_FILE_BYTES }
    }
}

impl StateDisk {
    /// Opens the store in `path`, or makes one. With `fresh` whatever is there is the rest of a first start that was
    /// killed, and is removed.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where what is there is damaged; else what the disk says.
    pub fn open_at(path: &Path, fresh: bool, groups: u32, options: &StateOptions) -> Result<Self, StorageError> {
        if fresh && path.exists() {
            std::fs::remove_dir_all(path).map_err(failed("remove", path))?;
        }
        let records = SledStore::open(path, fresh, options.cache_bytes)?;
        let medium = Folder::open(&path.join(BODIES))?;
        Self::open(records, medium, groups, options.body_file_bytes)
    }

    /// Reads records beside this store, on another thread.
    pub fn reader(&self) -> StateReader {
        self.records().reader(self.body_reader())
    }
}
