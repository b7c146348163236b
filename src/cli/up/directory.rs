//! The data directory of a cluster on one machine: whose it is, and who uses it.
//!
//! A directory is ours when it holds the file `cluster`, which says so in its first line. Nothing else is ever removed or
//! written into, but an empty directory and one that does not exist yet, which become ours.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, access, flock};

use super::super::{Exit, Failure};
use super::NODES_MAX;

/// The marker, and what it is called while it is being written.
const MARKER: &str = "cluster";
const MARKER_NEW: &str = "cluster.new";
/// The marker's first line, format version included.
const FIRST_LINE: &str = "trine cluster 1";

/// What the marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marker {
    cluster_id: u64,
    nodes: u32,
    groups: u32,
}

/// A directory that has been looked at, and not touched.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// What will stand in the marker.
    marker: Marker,
    /// The marker of a cluster that is already there, held against anybody else.
    held: Option<File>,
    /// Whether what is there is to be removed.
    fresh: bool,
}

/// A directory that is ours and in our use until this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    cluster_id: u64,
    _held: File,
}

impl Taken {
    pub(super) fn cluster_id(&self) -> u64 {
        self.cluster_id
    }
}

impl Directory {
    /// Looks whether the directory can be used for a cluster of this form.
    ///
    /// # Errors
    /// One line that says why not, and what would be right.
    pub(super) fn check(path: &Path, nodes: u32, groups: u32, fresh: bool) -> Result<Self, Failure> {
        let shown = path.display();
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| unusable(path, &error))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(unusable(path, &error)),
        };
        may_write(path)?;
        let marker = Marker { cluster_id: new_cluster_id()?, nodes, groups };
        if !entries.iter().any(|name| name == MARKER) {
            if entries.iter().any(|name| name != MARKER_NEW) {
                return Err(failed(format!(
                    "{shown} is not empty and holds no cluster of trine's; choose another --data-dir"
                )));
            }
            return Ok(Self { path: path.to_owned(), marker, held: None, fresh: false });
        }
        let (there, held) = read(path)?;
        if fresh {
            if let Some(foreign) = entries.iter().find(|name| !is_ours(name)) {
                return Err(failed(format!(
                    "--fresh would remove {shown}/{foreign}, which is not trine's; remove it yourself"
                )));
            }
            return Ok(Self { path: path.to_owned(), marker, held: Some(held), fresh: true });
        }
        if there.nodes != nodes {
            let had = there.nodes;
            return Err(failed(format!(
                "{shown} holds a cluster of {had} nodes, not {nodes}; use --nodes {had}, --fresh, or another --data-dir"
            )));
        }
        if there.groups != groups {
            let had = there.groups;
            return Err(failed(format!(
                "{shown} holds a cluster of {had} groups, not {groups}; use --groups {had}, --fresh, or another --data-dir"
            )));
        }
        Ok(Self { path: path.to_owned(), marker: there, held: Some(held), fresh: false })
    }

    /// Makes the directory ours, and empty with `--fresh`.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn take(self) -> Result<Taken, Failure> {
        let wrong = |error: std::io::Error| unusable(&self.path, &error);
        if self.fresh {
            self.empty().map_err(wrong)?;
        }
        let held = match self.held {
            Some(held) if !self.fresh => held,
            // With `--fresh` the old marker is held until the new one is.
            _ => self.write().map_err(wrong)?,
        };
        Ok(Taken { cluster_id: self.marker.cluster_id, _held: held })
    }

    /// Removes the nodes' directories. The marker stays until it is replaced, so an interrupted removal can be repeated.
    fn empty(&self) -> std::io::Result<()> {
        for number in 1..=NODES_MAX {
            match fs::remove_dir_all(self.path.join(format!("node{number}"))) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes the marker, whole or not at all, and holds it.
    fn write(&self) -> std::io::Result<File> {
        fs::create_dir_all(&self.path)?;
        let Marker { cluster_id, nodes, groups } = self.marker;
        let new = self.path.join(MARKER_NEW);
        let mut file = File::create(&new)?;
        write!(file, "{FIRST_LINE}\ncluster_id {cluster_id:016x}\nnodes {nodes}\ngroups {groups}\n")?;
        file.sync_all()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(&new, self.path.join(MARKER))?;
        File::open(&self.path)?.sync_all()?;
        Ok(file)
    }
}

/// Looks whether a backup may be restored to a directory: only to one that is empty, or not there.
///
/// # Errors
/// One line that says what is in the way.
pub(super) fn may_restore(path: &Path) -> Result<(), Failure> {
    let empty = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => return Err(unusable(path, &error)),
    };
    may_write(path)?;
    match empty {
        true => Ok(()),
        false => Err(failed(format!("{} is not empty; a restore makes a new directory", path.display()))),
    }
}

/// The nodes' directories were made from a backup: the marker, which comes last, makes the whole ours.
///
/// # Errors
/// What the file system says.
pub(super) fn mark_restored(path: &Path, cluster_id: u64, nodes: u32, groups: u32) -> Result<(), Failure> {
    let marker = Marker { cluster_id, nodes, groups };
    let directory = Directory { path: path.to_owned(), marker, held: None, fresh: false };
    directory.write().map(drop).map_err(|error| unusable(path, &error))
}

/// Whether an entry of the directory is one that `up` makes.
fn is_ours(name: &str) -> bool {
    let node = |number: u8| name == format!("node{number}");
    name == MARKER || name == MARKER_NEW || (1..=NODES_MAX).any(node)
}

/// The marker of a cluster that is there, held against another `trine up`.
fn read(path: &Path) -> Result<(Marker, File), Failure> {
    let at = path.join(MARKER);
    let text = fs::read_to_string(&at).map_err(|error| unusable(&at, &error))?;
    let shown = at.display();
    let marker =
        parse(&text).ok_or_else(|| failed(format!("{shown} is no marker of a cluster that this version knows")))?;
    let file = File::open(&at).map_err(|error| unusable(&at, &error))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| failed(format!("{} is in use by another trine up", path.display())))?;
    Ok((marker, file))
}

fn parse(text: &str) -> Option<Marker> {
    let mut lines = text.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    Some(Marker {
        cluster_id: u64::from_str_radix(value("cluster_id")?, 16).ok()?,
        nodes: value("nodes")?.parse().ok()?,
        groups: value("groups")?.parse().ok()?,
    })
}

/// Whether the directory, or the nearest one above it that exists, can be written into.
fn may_write(path: &Path) -> Result<(), Failure> {
    let whole = std::path::absolute(path).map_err(|error| unusable(path, &error))?;
    let nearest = whole.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    if !nearest.is_dir() {
        return Err(failed(format!("{} is no directory", nearest.display())));
    }
    access(nearest, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| unusable(nearest, &error.into()))
}

/// Random, and never 0, which is no cluster.
fn new_cluster_id() -> Result<u64, Failure> {
    let random = getrandom::u64().map_err(|error| failed(format!("the system gives no random numbers: {error}")))?;
    Ok(random.max(1))
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    failed(format!("{} cannot be used: {error}", path.display()))
}

fn failed(line: String) -> Failure {
    Failure::new(Exit::Failed, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path, nodes: u32, fresh: bool) -> String {
        Directory::check(path, nodes, 3, fresh).expect_err("accepted").line
    }

    #[test]
    fn a_new_directory_becomes_ours_and_keeps_its_cluster() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let directory = Directory::check(&path, 3, 3, false).unwrap();
        assert!(!path.exists(), "checking writes nothing");
        let first = directory.take().unwrap();
        assert!(refused(&path, 3, false).contains("in use by another trine up"));
        let id = first.cluster_id();
        drop(first);
        let again = Directory::check(&path, 3, 3, false).unwrap().take().unwrap();
        assert_eq!(again.cluster_id(), id);
        drop(again);
        assert!(refused(&path, 5, false).contains("a cluster of 3 nodes, not 5"));
        assert!(Directory::check(&path, 3, 4, false).unwrap_err().line.contains("3 groups, not 4"));
    }

    #[test]
    fn fresh_removes_what_is_ours_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let id = Directory::check(&path, 3, 3, true).unwrap().take().unwrap().cluster_id();
        fs::create_dir_all(path.join("node3/data")).unwrap();
        fs::write(path.join("node3/data/file"), "x").unwrap();
        fs::write(path.join("notes.txt"), "mine").unwrap();
        assert!(refused(&path, 1, true).contains("notes.txt"));
        assert!(path.join("node3/data/file").exists());
        fs::remove_file(path.join("notes.txt")).unwrap();
        let checked = Directory::check(&path, 1, 3, true).unwrap();
        assert!(path.join("node3").exists(), "checking removes nothing");
        let fresh = checked.take().unwrap();
        assert!(!path.join("node3").exists());
        assert_ne!(fresh.cluster_id(), id);
        assert!(refused(&path, 1, false).contains("in use"), "the new marker is held");
        drop(fresh);
        assert!(Directory::check(&path, 1, 3, false).is_ok());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.tex"), "years").unwrap();
        for fresh in [false, true] {
            assert!(refused(temp.path(), 3, fresh).contains("holds no cluster"));
            assert!(refused(&temp.path().join("thesis.tex"), 3, fresh).contains("cannot be used"));
        }
        // Node directories alone do not make it ours.
        let other = tempfile::tempdir().unwrap();
        fs::create_dir(other.path().join("node1")).unwrap();
        assert!(refused(other.path(), 3, true).contains("holds no cluster"));
        // Nor does a file that only has the name.
        fs::write(other.path().join(MARKER), "trine cluster 2\n").unwrap();
        assert!(refused(other.path(), 3, true).contains("no marker"));
        assert!(other.path().join("node1").exists());
        // What a crash in the middle of the first start left is as good as nothing.
        let crashed = tempfile::tempdir().unwrap();
        fs::write(crashed.path().join(MARKER_NEW), "").unwrap();
        assert!(Directory::check(crashed.path(), 3, 3, false).is_ok());
    }
}
