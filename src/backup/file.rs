//! A backup's file: written beside its name, and there under it only as a whole.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A backup that is being written. Dropped before it is kept, it is removed.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    partial: PathBuf,
    kept: bool,
}

impl Partial {
    /// Makes `FILE.partial`; with `force` FILE may be there already.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the disk says.
    pub fn create(path: &Path, force: bool) -> io::Result<(Self, File)> {
        if !force && fs::symlink_metadata(path).is_ok() {
            let what = format!("{} is there already; --force replaces it", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = path.with_file_name(name);
        let file = File::options().write(true).create(true).truncate(false).open(&partial)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            let what = format!("another backup writes {}", partial.display());
            io::Error::new(io::ErrorKind::ResourceBusy, what)
        })?;
        file.set_len(0)?;
        Ok((Self { path: path.to_owned(), partial, kept: false }, file))
    }

    /// Gives it its name, durably. Without `force` nothing that came in between is replaced.
    ///
    /// # Errors
    /// What the disk says.
    pub fn keep(mut self, file: &File, force: bool) -> io::Result<()> {
        file.sync_all()?;
        // A link, other than a renaming, never replaces what is there. Not every file system has links.
        let linked = if force { None } else { Some(fs::hard_link(&self.partial, &self.path)) };
        match linked {
            Some(Ok(())) => fs::remove_file(&self.partial)?,
            Some(Err(error)) if fs::symlink_metadata(&self.path).is_ok() => return Err(error),
            _ => fs::rename(&self.partial, &self.path)?,
        }
        self.kept = true;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed is no backup by its name.
            let _ = fs::remove_file(&self.partial);
        }
    }
}
