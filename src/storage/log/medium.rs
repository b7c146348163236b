//! What a log's segments lie on: a directory, and files in it, with the few operations that durability hangs on.
//!
//! [`Folder`] is a directory of the operating system. The simulator's twin keeps bytes in memory and loses what no sync has covered;
//! the log's code is the same above both, so what is tested there is what runs.

use std::fmt::Debug;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::storage::StorageError;
use crate::storage::files::{create_directory, failed, preallocate, sync_directory};

/// A directory. Names are those of files in it.
pub trait Medium: Debug {
    /// One of its files, open.
    type File: MediumFile;

    /// How messages call it.
    fn path(&self) -> &Path;

    /// The names in it.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn names(&self) -> Result<Vec<String>, StorageError>;

    /// Bytes of a file from `offset` on, at most `bytes`; fewer where it ends.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn read_at(&self, name: &str, offset: u64, bytes: usize) -> Result<Vec<u8>, StorageError>;

    /// Bytes of a file.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn length(&self, name: &str) -> Result<u64, StorageError>;

    /// All bytes of a file.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn read(&self, name: &str) -> Result<Vec<u8>, StorageError>;

    /// A new file of so many zeros whose blocks are given out, durably; its name is not durable yet.
    ///
    /// # Errors
    /// Where the disk refuses, or is full.
    fn allocate(&self, name: &str, bytes: u64) -> Result<Self::File, StorageError>;

    /// Opens a file that is there.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn open(&self, name: &str) -> Result<Self::File, StorageError>;

    /// Gives a file another name.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError>;

    /// Removes a file.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn remove(&self, name: &str) -> Result<(), StorageError>;

    /// Makes the names durable as they are.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn sync_names(&self) -> Result<(), StorageError>;
}

/// An open file.
pub trait MediumFile: Debug {
    /// Writes at an offset.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// Where the disk refuses; what was written may be lost although a second call would succeed.
    fn sync_bytes(&self) -> std::io::Result<()>;

    /// Gives it a length, and makes that and all bytes durable.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn sync_length(&self, bytes: u64) -> std::io::Result<()>;
}

/// A directory of the operating system.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The directory, made if it is missing.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        create_directory(path)?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Medium for Folder {
    type File = File;

    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Result<Vec<String>, StorageError> {
        let entries = std::fs::read_dir(&self.path).map_err(failed("list", &self.path))?;
        let name = |entry: std::io::Result<std::fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        entries.map(name).collect::<Result<_, _>>().map_err(failed("list", &self.path))
    }

    fn read_at(&self, name: &str, offset: u64, bytes: usize) -> Result<Vec<u8>, StorageError> {
        let path = self.path.join(name);
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

    fn length(&self, name: &str) -> Result<u64, StorageError> {
        let path = self.path.join(name);
        Ok(std::fs::metadata(&path).map_err(failed("look at", &path))?.len())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, StorageError> {
        let path = self.path.join(name);
        std::fs::read(&path).map_err(failed("read", &path))
    }

    fn allocate(&self, name: &str, bytes: u64) -> Result<File, StorageError> {
        preallocate(&self.path.join(name), bytes)
    }

    fn open(&self, name: &str) -> Result<File, StorageError> {
        let path = self.path.join(name);
        File::options().read(true).write(true).open(&path).map_err(failed("open", &path))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let path = self.path.join(to);
        std::fs::rename(self.path.join(from), &path).map_err(failed("rename to", &path))
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path.join(name);
        std::fs::remove_file(&path).map_err(failed("remove", &path))
    }

    fn sync_names(&self) -> Result<(), StorageError> {
        sync_directory(&self.path)
    }
}

impl MediumFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync_bytes(&self) -> std::io::Result<()> {
        self.sync_data()
    }

    fn sync_length(&self, bytes: u64) -> std::io::Result<()> {
        self.set_len(bytes).and_then(|()| self.sync_all())
    }
}
