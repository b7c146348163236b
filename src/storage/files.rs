//! The few file operations that durability hangs on, each with an error that names the path.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::StorageError;

/// Turns an operating system's error into ours: what was tried, on which path.
pub(super) fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let what = format!("{what} {}", path.display());
    move |source| StorageError::Io { what, source }
}

/// Makes the directory if it is missing, with those above it, and the entry of each new one in its parent durable.
pub(super) fn create_directory(path: &Path) -> Result<(), StorageError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_directory(parent)?;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => {
            return Err(failed("create", path)(error));
        }
        _ => {}
    }
    sync_directory(parent)
}

/// Makes the entries of a directory and of those above it durable, up to where another file system begins: whoever made
/// them may have been killed before a sync.
pub(super) fn sync_ancestors(path: &Path) -> Result<(), StorageError> {
    let path = path.canonicalize().map_err(failed("resolve", path))?;
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).map_err(failed("look at", path));
    let own = device(&path)?;
    for above in path.ancestors().skip(1) {
        if device(above)? != own {
            break;
        }
        match sync_directory(above) {
            // What we may not read, we have not made: it was there before us.
            Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => break,
            synced => synced?,
        }
    }
    Ok(())
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
