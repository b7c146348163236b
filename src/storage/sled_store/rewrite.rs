//! A store that is mostly dead is written anew: sled's file does not shrink by itself, nor does what sled keeps in memory about it.
//!
//! ```text
//!   <state>/sled-1, in use ──▶ <state>/sled-2: everything copied, synced ──▶ sled-2/whole ──▶ sled-2 in use, sled-1 removed
//! ```
//! A database counts from the moment that its marker is durable; of several that count the newest is in use, and equal to the one
//! before, since nothing is written to that while it is copied. A start removes all others.

use std::fs::File;
use std::path::{Path, PathBuf};

use sled::Batch;

use crate::storage::StorageError;
use crate::storage::files::{create_directory, failed, replace, sync_directory};

use super::{BATCH_BYTES_MAX, BATCH_CHANGES_MAX, SLED_SEGMENT_BYTES, SledStore, check_blobs, prepare, sled_failed};

/// Beginning of the name of a database's directory.
const NAME: &str = "sled-";
/// The file that says that a database is whole.
const MARKER: &str = "whole";
/// A file up to here is worth no copy, whatever is dead in it: two of sled's segments.
const FILE_BYTES_MIN: u64 = 2 * SLED_SEGMENT_BYTES as u64;
/// Times that the file may have what lives in it, above that.
const FILE_SHARE_MAX: u64 = 4;
/// Bytes that live up to which the copy is made: it holds up checkpoints for about a second.
const LIVE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// A database of sled, open.
#[derive(Debug)]
pub(super) struct Database {
    /// Its number: the newest is in use.
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) tree: sled::Db,
    /// Our own descriptor of sled's file: sled does not sync it.
    pub(super) file: File,
}

fn directory(path: &Path, number: u64) -> PathBuf {
    path.join(format!("{NAME}{number}"))
}

/// The numbers of the databases in a directory, rising.
fn numbers(path: &Path) -> Result<Vec<u64>, StorageError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed("list", path))? {
        let name = entry.map_err(failed("list", path))?.file_name();
        numbers.extend(name.to_string_lossy().strip_prefix(NAME).and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

impl Database {
    /// Opens the database in use, or makes the first one. All others are removed.
    pub(super) fn open_newest(path: &Path, cache_bytes: u64) -> Result<Self, StorageError> {
        create_directory(path)?;
        let numbers = numbers(path)?;
        let whole = numbers.iter().copied().filter(|number| directory(path, *number).join(MARKER).exists()).max();
        for number in numbers.into_iter().filter(|number| Some(*number) != whole) {
            remove(path, number)?;
        }
        match whole {
            Some(number) => Self::open(path, number, cache_bytes),
            None => {
                let database = Self::open(path, 1, cache_bytes)?;
                database.mark_whole(path)?;
                Ok(database)
            }
        }
    }

    fn open(parent: &Path, number: u64, cache_bytes: u64) -> Result<Self, StorageError> {
        let path = directory(parent, number);
        create_directory(&path)?;
        prepare(&path)?;
        check_blobs(&path)?;
        let config = sled::Config::new()
            .path(&path)
            .segment_size(SLED_SEGMENT_BYTES)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None);
        let tree = config.open().map_err(sled_failed("open", &path))?;
        let file = File::open(path.join("db")).map_err(failed("open", &path.join("db")))?;
        for name in ["conf", "db"] {
            let path = path.join(name);
            File::open(&path).and_then(|file| file.sync_all()).map_err(failed("sync", &path))?;
        }
        sync_directory(&path)?;
        Ok(Self { number, path, tree, file })
    }

    /// Makes all that was written durable.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        self.tree.flush().map_err(sled_failed("flush", &self.path))?;
        self.file.sync_data().map_err(failed("sync", &self.path.join("db")))?;
        check_blobs(&self.path)
    }

    fn mark_whole(&self, parent: &Path) -> Result<(), StorageError> {
        replace(&self.path.join(MARKER), b"This database counts; see the one with the highest number.\n")?;
        sync_directory(parent)
    }

    /// Bytes of its file.
    pub(super) fn bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }
}

fn remove(parent: &Path, number: u64) -> Result<(), StorageError> {
    let path = directory(parent, number);
    std::fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
    sync_directory(parent)
}

impl SledStore {
    /// Writes the database anew where most of its file is dead. Everything must be durable.
    pub(super) fn rewrite_if_mostly_dead(&mut self) -> Result<(), StorageError> {
        let most = FILE_SHARE_MAX * self.live_bytes + FILE_BYTES_MIN;
        if self.database.bytes() <= most || self.live_bytes > LIVE_BYTES_MAX {
            return Ok(());
        }
        let next = Database::open(&self.path, self.database.number + 1, self.cache_bytes)?;
        let (mut batch, mut count, mut bytes) = (Batch::default(), 0, 0);
        self.live_bytes = 0;
        for pair in self.database.tree.iter() {
            let (key, value) = pair.map_err(sled_failed("read", &self.database.path))?;
            bytes += key.len() + value.len();
            self.live_bytes += (key.len() + value.len()) as u64;
            count += 1;
            batch.insert(key, value);
            if count >= BATCH_CHANGES_MAX || bytes >= BATCH_BYTES_MAX {
                next.tree.apply_batch(std::mem::take(&mut batch)).map_err(sled_failed("write", &next.path))?;
                (count, bytes) = (0, 0);
            }
        }
        next.tree.apply_batch(batch).map_err(sled_failed("write", &next.path))?;
        next.sync()?;
        next.mark_whole(&self.path)?;
        self.shared.replace(&next.tree);
        let old = std::mem::replace(&mut self.database, next).number;
        remove(&self.path, old)
    }
}
