//! The few file operations that durability hangs on, each with an error that names the path.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::StorageError;

/// Turns an operating system's error into ours: what was tried, on which path.
pub(super) fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let what = format!("{what} {}", path.display());
    move |source| StorageError::Io { what, source }
}

/// Makes the directory if it is missing, and its entry in its parent durable.
pub(super) fn create_directory(path: &Path) -> Result<(), StorageError> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(failed("create", path))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

/// Makes what was created, renamed or removed in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), StorageError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync directory", path))
}

/// Replaces a small file as a whole: a reader finds the old bytes or the new ones, also after a power cut.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let directory = path.parent().expect("a file stands in a directory");
    let temporary = temporary_name(path);
    let mut file = File::create(&temporary).map_err(failed("create", &temporary))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(failed("rename to", path))?;
    sync_directory(directory)
}

/// Where [`replace`] writes before it renames.
pub(super) fn temporary_name(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Reads a small file; None where it does not exist.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Makes a file of `bytes` zeros whose blocks the file system has given out, durably.
///
/// Where the file system cannot give out blocks without writing (ZFS, NFS), the zeros are written.
pub(super) fn preallocate(path: &Path, bytes: u64) -> Result<File, StorageError> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).clone();
    let mut file = options.open(path).map_err(failed("create", path))?;
    let allocated = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes);
    match allocated {
        Ok(()) => {}
        Err(rustix::io::Errno::OPNOTSUPP) => {
            io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file).map_err(failed("fill", path))?;
        }
        Err(errno) => return Err(failed("allocate", path)(errno.into())),
    }
    file.sync_all().map_err(failed("sync", path))?;
    Ok(file)
}
