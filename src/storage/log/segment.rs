//! The directory of the log, and its segments as files.
//!
//! A segment gets its name only when its header and its first record are on disk: it is prepared as `spare`, then renamed.
//! So a file under a segment's name that does not begin with both is damaged, never merely young.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::storage::StorageError;
use crate::storage::files::{create_directory, failed, preallocate, sync_directory};

use super::format::Owner;

/// Ending of a segment's file name.
const ENDING: &str = "segment";

/// Where the segments of one node's log are.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Whose they are.
    pub(super) owner: Owner,
}

impl Directory {
    /// The directory, made if it is missing. What was prepared and never used is removed.
    pub(super) fn open(path: &Path, owner: Owner) -> Result<Self, StorageError> {
        create_directory(path)?;
        let directory = Self { path: path.to_owned(), owner };
        match std::fs::remove_file(directory.spare_path()) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("remove", &directory.spare_path())(error)),
        }
        Ok(directory)
    }

    /// Numbers of the segments that are there, rising. Files with other names are not ours and stay.
    pub(super) fn numbers(&self) -> Result<Vec<u64>, StorageError> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed("list", &self.path))? {
            let path = entry.map_err(failed("list", &self.path))?.path();
            if path.extension().is_some_and(|ending| ending == ENDING)
                && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
            {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The file of a segment.
    pub(super) fn path_of(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:020}.{ENDING}"))
    }

    fn spare_path(&self) -> PathBuf {
        self.path.join("spare")
    }

    /// A segment's bytes.
    pub(super) fn read(&self, number: u64) -> Result<Vec<u8>, StorageError> {
        let path = self.path_of(number);
        std::fs::read(&path).map_err(failed("read", &path))
    }

    /// A file for a segment to come: its blocks are there, its name is not.
    pub(super) fn prepare(&self, bytes: u64) -> Result<Spare, StorageError> {
        Ok(Spare { file: preallocate(&self.spare_path(), bytes)?, bytes })
    }

    /// Makes a prepared file the segment `number`, with what it begins with; durable on return.
    pub(super) fn promote(&self, spare: Spare, number: u64, beginning: &[u8]) -> Result<Segment, StorageError> {
        let (from, path) = (self.spare_path(), self.path_of(number));
        let Spare { file, bytes } = spare;
        file.write_all_at(beginning, 0).and_then(|()| file.sync_data()).map_err(failed("write", &from))?;
        std::fs::rename(&from, &path).map_err(failed("rename to", &path))?;
        sync_directory(&self.path)?;
        Ok(Segment { number, file, path, bytes, written: beginning.len() as u64, buffer: Vec::new() })
    }

    /// Opens a segment to go on writing at `written`. What lies after it is overwritten with zeros; durable on return.
    pub(super) fn reopen(&self, number: u64, written: u64, bytes_min: u64) -> Result<Segment, StorageError> {
        let path = self.path_of(number);
        let file = File::options().read(true).write(true).open(&path).map_err(failed("open", &path))?;
        let data = self.read(number)?;
        let tail = data.get(usize::try_from(written).unwrap_or(usize::MAX)..).unwrap_or_default();
        if let Some(last) = tail.iter().rposition(|byte| *byte != 0) {
            file.write_all_at(&vec![0; last + 1], written).map_err(failed("clear the end of", &path))?;
        }
        let bytes = (data.len() as u64).max(bytes_min).max(written);
        file.set_len(bytes).and_then(|()| file.sync_all()).map_err(failed("sync", &path))?;
        sync_directory(&self.path)?;
        Ok(Segment { number, file, path, bytes, written, buffer: Vec::new() })
    }

    /// Removes a segment; durable on return, so that segments always go from the oldest on.
    pub(super) fn remove(&self, number: u64) -> Result<(), StorageError> {
        let path = self.path_of(number);
        std::fs::remove_file(&path).map_err(failed("remove", &path))?;
        sync_directory(&self.path)
    }

    /// Bytes of a segment from `offset` on, at most `bytes`; fewer where it ends.
    pub(super) fn read_at(&self, number: u64, offset: u64, bytes: usize) -> Result<Vec<u8>, StorageError> {
        let path = self.path_of(number);
        let file = File::open(&path).map_err(failed("open", &path))?;
        let mut data = vec![0; bytes];
        let mut filled = 0;
        while filled < bytes {
            match file.read_at(&mut data[filled..], offset + filled as u64).map_err(failed("read", &path))? {
                0 => break,
                count => filled += count,
            }
        }
        data.truncate(filled);
        Ok(data)
    }
}

/// A file whose blocks are there, on its way to be a segment.
#[derive(Debug)]
pub(super) struct Spare {
    file: File,
    /// How long it is.
    pub(super) bytes: u64,
}

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its number.
    pub(super) number: u64,
    pub(super) file: File,
    path: PathBuf,
    /// How long the file is.
    pub(super) bytes: u64,
    /// How much of it is in use, without the buffer.
    written: u64,
    /// Records that are not written yet.
    pub(super) buffer: Vec<u8>,
}

impl Segment {
    /// Where the next record goes.
    pub(super) fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Hands the buffer to the operating system.
    pub(super) fn write(&mut self) -> Result<(), StorageError> {
        self.file.write_all_at(&self.buffer, self.written).map_err(failed("write", &self.path))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes all that was written durable.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.write()?;
        self.file.sync_data().map_err(failed("sync", &self.path))
    }
}
