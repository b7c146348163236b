//! The directory of the log, and its segments as files.
//!
//! A segment gets its name only when its header and its first record are on disk: it is prepared as `spare`, then renamed.
//! So a file under a segment's name that does not begin with both is damaged, never merely young.

use std::path::PathBuf;

use crate::storage::StorageError;
use crate::storage::files::failed;

use super::format::Owner;
use super::medium::{Medium, MediumFile as _};

/// Ending of a segment's file name.
const ENDING: &str = ".segment";
/// Name of the file that is prepared for the next segment.
const SPARE: &str = "spare";

/// Where the segments of one node's log are.
#[derive(Debug)]
pub(super) struct Directory<M> {
    medium: M,
    /// Whose they are.
    pub(super) owner: Owner,
}

fn name_of(number: u64) -> String {
    format!("{number:020}{ENDING}")
}

/// The number of the segment that is called so; None where the name is not one of a segment.
pub fn segment_number(name: &str) -> Option<u64> {
    name.strip_suffix(ENDING)?.parse().ok()
}

impl<M: Medium> Directory<M> {
    /// The segments on a medium. What was prepared and never used is removed.
    pub(super) fn open(medium: M, owner: Owner) -> Result<Self, StorageError> {
        if medium.names()?.iter().any(|name| name == SPARE) {
            medium.remove(SPARE)?;
        }
        Ok(Self { medium, owner })
    }

    /// Numbers of the segments that are there, rising. Files with other names are not ours and stay.
    pub(super) fn numbers(&self) -> Result<Vec<u64>, StorageError> {
        let names = self.medium.names()?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// How messages call a segment.
    pub(super) fn path_of(&self, number: u64) -> PathBuf {
        self.medium.path().join(name_of(number))
    }

    /// A segment's bytes.
    pub(super) fn read(&self, number: u64) -> Result<Vec<u8>, StorageError> {
        self.medium.read(&name_of(number))
    }

    /// A file for a segment to come: its blocks are there, its name is not.
    pub(super) fn prepare(&self, bytes: u64) -> Result<Spare<M>, StorageError> {
        Ok(Spare { file: self.medium.allocate(SPARE, bytes)?, bytes })
    }

    /// Makes a prepared file the segment `number`, with what it begins with; durable on return.
    pub(super) fn promote(&self, spare: Spare<M>, number: u64, beginning: &[u8]) -> Result<Segment<M>, StorageError> {
        let Spare { file, bytes } = spare;
        let from = self.medium.path().join(SPARE);
        file.write_at(beginning, 0).and_then(|()| file.sync_bytes()).map_err(failed("write", &from))?;
        self.medium.rename(SPARE, &name_of(number))?;
        self.medium.sync_names()?;
        let (path, written) = (self.path_of(number), beginning.len() as u64);
        Ok(Segment { number, file, path, bytes, written, buffer: Vec::new() })
    }

    /// Opens a segment to go on writing at `written`; durable on return. What lies before is written once more: where a sync of it
    /// has failed, the operating system has it in memory and takes it for clean, so that another sync alone would promise what
    /// is not on disk. What lies after is overwritten with zeros.
    pub(super) fn reopen(&self, number: u64, written: u64, bytes_min: u64) -> Result<Segment<M>, StorageError> {
        let path = self.path_of(number);
        let file = self.medium.open(&name_of(number))?;
        let mut data = self.read(number)?;
        let bytes = (data.len() as u64).max(bytes_min).max(written);
        let used = usize::try_from(written).unwrap_or(usize::MAX).min(data.len());
        let end = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1).max(used);
        data[used..].fill(0);
        file.write_at(&data[..end], 0).map_err(failed("write once more", &path))?;
        file.sync_length(bytes).map_err(failed("sync", &path))?;
        self.medium.sync_names()?;
        Ok(Segment { number, file, path, bytes, written, buffer: Vec::new() })
    }

    /// Removes a segment; durable on return, so that segments always go from the oldest on.
    pub(super) fn remove(&self, number: u64) -> Result<(), StorageError> {
        self.medium.remove(&name_of(number))?;
        self.medium.sync_names()
    }

    /// Bytes of a segment from `offset` on, at most `bytes`; fewer where it ends.
    pub(super) fn read_at(&self, number: u64, offset: u64, bytes: usize) -> Result<Vec<u8>, StorageError> {
        self.medium.read_at(&name_of(number), offset, bytes)
    }
}

/// A file whose blocks are there, on its way to be a segment.
#[derive(Debug)]
pub(super) struct Spare<M: Medium> {
    file: M::File,
    /// How long it is.
    pub(super) bytes: u64,
}

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct Segment<M: Medium> {
    /// Its number.
    pub(super) number: u64,
    pub(super) file: M::File,
    path: PathBuf,
    /// How long the file is.
    pub(super) bytes: u64,
    /// How much of it is in use, without the buffer.
    written: u64,
    /// Records that are not written yet.
    pub(super) buffer: Vec<u8>,
}

impl<M: Medium> Segment<M> {
    /// Where the next record goes.
    pub(super) fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Hands the buffer to the operating system.
    pub(super) fn write(&mut self) -> Result<(), StorageError> {
        self.file.write_at(&self.buffer, self.written).map_err(failed("write", &self.path))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes all that was written durable.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.write()?;
        self.file.sync_bytes().map_err(failed("sync", &self.path))
    }
}
