//! The data directory of one node: whose it is, and that only one process uses it.
//!
//! ```text
//! <data>/lock        locked while a process uses the directory (flock); holds its process id
//! <data>/identity    format, node, incarnation, cluster, groups; written once, and again as below
//! <data>/peers       the incarnation that each peer had when it was last accepted
//! <data>/nodes       the newest list of nodes that was heard of
//! <data>/restoring   only while a backup is being restored into it: no node takes such a directory
//! <data>/log/        the segments
//! <data>/state/      sled
//! ```
//!
//! A directory is claimed in two steps, so that a first start may be killed at any point: the identity is written with
//! `ready: false`, log and state are made, then it is written again with `ready: true`. From then on a missing log is a loss,
//! not a new beginning: a node that starts with an empty log in its old name could vote twice.
//!
//! The **incarnation** is drawn when the directory is claimed. Peers remember it: a node that comes back under its name with
//! another one has lost its disk, and is no voter until it was let in anew (`design.md`, section 4).
//!
//! Every mismatch is found before anything in the directory is changed.
//!
//! Caveats: a copy of a whole directory, started elsewhere under the same name, looks like the node itself. `flock` holds on
//! one machine; on a network file system it may not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, NodeId};
use crate::node::Roster;

use super::StorageError;
use super::files::{create_directory, failed, read_if_there, replace, sync_ancestors, sync_directory};

/// Version of what is in a data directory; another one is refused.
pub const FORMAT_VERSION: u32 = 1;

/// Name of the file that is in a directory while a backup is being restored into it.
pub(super) const RESTORING: &str = "restoring";

/// Whether there is nothing in a directory, or no directory.
///
/// # Errors
/// What the disk says.
pub(super) fn is_empty(path: &Path) -> Result<bool, StorageError> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(failed("list", path)(error)),
    }
}

/// Who wants to use a data directory.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The node.
    pub node: NodeId,
    /// The cluster; None where the node takes whatever the directory says, or has yet to hear it from a peer.
    pub cluster: Option<u64>,
    /// How many groups the cluster has.
    pub groups: u32,
    /// Whether a new directory is that of a node that joins a cluster, and was not there when it began.
    pub joins: bool,
}

/// Whose a data directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// [`FORMAT_VERSION`] of the program that made it.
    pub format: u32,
    /// The node.
    pub node: NodeId,
    /// Random, drawn with the directory.
    pub incarnation: Incarnation,
    /// The cluster; None until it is known.
    pub cluster: Option<u64>,
    /// How many groups the cluster has.
    pub groups: u32,
    /// Whether log and state have been made: then they must be there.
    pub ready: bool,
    /// The node was not there when the cluster began, or this is not its first data directory: it votes when it was let in.
    #[serde(default)]
    pub joins: bool,
}

/// A data directory in use by this process.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    identity: Identity,
    peers: BTreeMap<NodeId, Incarnation>,
    /// Locked as long as it is open.
    _lock: File,
}

impl DataDirectory {
    /// Takes the directory into use; claims it where it is new.
    ///
    /// # Errors
    /// [`StorageError::Refused`] where another process uses it, or it belongs to another node, cluster, format or number of groups,
    /// or holds data without saying whose; else what the disk says.
    pub fn open(path: &Path, claim: &Claim) -> Result<Self, StorageError> {
        if path.join(RESTORING).exists() {
            return Err(refused(path, "a restore into it has not ended; empty it, and restore again"));
        }
        Self::open_restoring(path, claim)
    }

    /// The same, by who restores into it.
    pub(super) fn open_restoring(path: &Path, claim: &Claim) -> Result<Self, StorageError> {
        // Looked at before the lock is made, so that a refusal leaves no trace.
        read_identity(path, claim)?;
        create_directory(path)?;
        let lock = lock(path)?;
        let identity = match read_identity(path, claim)? {
            Some(identity) => identity,
            None => claim_new(path, claim)?,
        };
        // The names that were found may be in the page cache only, from a start that was killed before it synced them. Once
        // the directory is ready, a start has come past here.
        sync_directory(path)?;
        if !identity.ready {
            sync_ancestors(path)?;
        }
        let mut directory = Self { path: path.to_owned(), identity, peers: read_peers(path)?, _lock: lock };
        if let (None, Some(cluster)) = (identity.cluster, claim.cluster) {
            directory.adopt_cluster(cluster)?;
        }
        Ok(directory)
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the log is.
    pub fn log_path(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where sled is.
    pub fn state_path(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Log and state are made: from now on they must be there.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn mark_ready(&mut self) -> Result<(), StorageError> {
        if self.identity.ready {
            return Ok(());
        }
        self.write_identity(Identity { ready: true, ..self.identity })
    }

    /// Remembers which cluster the node is part of, heard from a peer.
    ///
    /// # Errors
    /// [`StorageError::Refused`] where it is part of another one; else what the disk says.
    pub fn adopt_cluster(&mut self, cluster: u64) -> Result<(), StorageError> {
        match self.identity.cluster {
            Some(known) if known == cluster => Ok(()),
            Some(known) => Err(mismatch(&self.path, "cluster", &format!("{known:016x}"), &format!("{cluster:016x}"))),
            None => self.write_identity(Identity { cluster: Some(cluster), ..self.identity }),
        }
    }

    /// Others knew this node with another data directory: it joins, and takes back nothing of what it may have promised.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn mark_joining(&mut self) -> Result<(), StorageError> {
        self.write_identity(Identity { joins: true, ..self.identity })
    }

    /// The newest list of nodes that was kept.
    ///
    /// # Errors
    /// Where the disk refuses, or what is there is no list.
    pub fn roster(&self) -> Result<Option<Roster>, StorageError> {
        let path = self.path.join("nodes");
        let bad = |error: serde_json::Error| StorageError::Corrupt {
            what: format!("{}: no list of nodes: {error}", path.display()),
        };
        read_if_there(&path)?.map(|bytes| serde_json::from_slice(&bytes).map_err(bad)).transpose()
    }

    /// Keeps a list of nodes, durably.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn keep_roster(&self, roster: &Roster) -> Result<(), StorageError> {
        write_json(&self.path.join("nodes"), roster)
    }

    fn write_identity(&mut self, identity: Identity) -> Result<(), StorageError> {
        write_json(&self.path.join("identity"), &identity)?;
        self.identity = identity;
        Ok(())
    }

    /// The incarnation that a peer had when it was last accepted.
    pub fn known_peer(&self, node: NodeId) -> Option<Incarnation> {
        self.peers.get(&node).copied()
    }

    /// Remembers a peer's incarnation, durably; nothing is written where it is known already.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn remember_peer(&mut self, node: NodeId, incarnation: Incarnation) -> Result<(), StorageError> {
        if self.known_peer(node) == Some(incarnation) {
            return Ok(());
        }
        let mut peers = self.peers.clone();
        peers.insert(node, incarnation);
        write_json(&self.path.join("peers"), &peers)?;
        self.peers = peers;
        Ok(())
    }
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StorageError> {
    replace(path, &serde_json::to_vec_pretty(value).expect("names and numbers have a JSON form"))
}

fn refused(path: &Path, what: &str) -> StorageError {
    StorageError::Refused { what: format!("data directory {}: {what}", path.display()) }
}

fn mismatch(path: &Path, what: &str, found: &str, wanted: &str) -> StorageError {
    refused(path, &format!("it belongs to {what} {found}, but this node was started for {what} {wanted}"))
}

/// The identity in a directory, held against the claim; None where there is none, and no data either.
fn read_identity(path: &Path, claim: &Claim) -> Result<Option<Identity>, StorageError> {
    let Some(bytes) = read_if_there(&path.join("identity"))? else {
        let data = ["log", "state"].into_iter().find(|name| path.join(name).exists());
        return match data {
            Some(name) => Err(refused(path, &format!("it holds a {name}, but no identity says whose"))),
            None => Ok(None),
        };
    };
    let bad = |error: serde_json::Error| StorageError::Corrupt {
        what: format!("{}: no identity: {error}", path.join("identity").display()),
    };
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_slice(&bytes).map_err(bad)?;
    if format != FORMAT_VERSION {
        return Err(refused(path, &format!("it has format {format}, this program reads format {FORMAT_VERSION}")));
    }
    let identity: Identity = serde_json::from_slice(&bytes).map_err(bad)?;
    if identity.node != claim.node {
        return Err(mismatch(path, "node", identity.node.as_str(), claim.node.as_str()));
    }
    if let (Some(found), Some(wanted)) = (identity.cluster, claim.cluster)
        && found != wanted
    {
        return Err(mismatch(path, "cluster", &format!("{found:016x}"), &format!("{wanted:016x}")));
    }
    if identity.groups != claim.groups {
        let (found, wanted) = (identity.groups, claim.groups);
        return Err(refused(path, &format!("its cluster was made with {found} groups, but {wanted} were asked for")));
    }
    Ok(Some(identity))
}

fn claim_new(path: &Path, claim: &Claim) -> Result<Identity, StorageError> {
    let incarnation = getrandom::u64().map_err(|error| StorageError::Io {
        what: "draw an incarnation".to_owned(),
        source: std::io::Error::other(error.to_string()),
    })?;
    let identity = Identity {
        format: FORMAT_VERSION,
        node: claim.node,
        incarnation: Incarnation(incarnation),
        cluster: claim.cluster,
        groups: claim.groups,
        ready: false,
        joins: claim.joins,
    };
    write_json(&path.join("identity"), &identity)?;
    Ok(identity)
}

fn read_peers(path: &Path) -> Result<BTreeMap<NodeId, Incarnation>, StorageError> {
    let path = path.join("peers");
    let Some(bytes) = read_if_there(&path)? else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| StorageError::Corrupt { what: format!("{}: no list of peers: {error}", path.display()) })
}

/// Locks the directory for this process, and notes its process id for the one that comes second.
fn lock(path: &Path) -> Result<File, StorageError> {
    let file = path.join("lock");
    let options = File::options().read(true).write(true).create(true).truncate(false).clone();
    let mut lock = options.open(&file).map_err(failed("open", &file))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // The id is a courtesy: without it the refusal says less, but is no less right.
            let known = lock.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let by = if known { format!("process {}", holder.trim()) } else { "another process".to_owned() };
            return Err(refused(path, &format!("it is in use by {by}")));
        }
        Err(errno) => return Err(failed("lock", &file)(errno.into())),
    }
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed("write", &file))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim { node: NodeId::numbered(1), cluster: Some(7), groups: 3, joins: false }
    }

    fn listing(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
        files.sort();
        files
    }

    #[test]
    fn an_identity_is_kept_and_differs_between_directories() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut first = DataDirectory::open(one.path(), &claim()).unwrap();
        assert!(!first.identity().ready);
        first.mark_ready().unwrap();
        let identity = *first.identity();
        drop(first);
        assert_eq!(*DataDirectory::open(one.path(), &claim()).unwrap().identity(), identity);
        let elsewhere = *DataDirectory::open(other.path(), &claim()).unwrap().identity();
        assert_ne!(elsewhere.incarnation, identity.incarnation);
    }

    #[test]
    fn a_mismatch_is_refused_in_one_line_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        drop(DataDirectory::open(directory.path(), &claim()).unwrap());
        std::fs::remove_file(directory.path().join("lock")).unwrap();
        let before = listing(directory.path());
        let wrong = [
            (Claim { node: NodeId::numbered(2), ..claim() }, "belongs to node node1"),
            (Claim { cluster: Some(8), ..claim() }, "belongs to cluster 0000000000000007"),
            (Claim { groups: 4, ..claim() }, "made with 3 groups, but 4"),
        ];
        for (claim, says) in wrong {
            let error = DataDirectory::open(directory.path(), &claim).unwrap_err();
            assert!(matches!(error, StorageError::Refused { .. }), "{error:?}");
            assert!(error.to_string().contains(says) && !error.to_string().contains('\n'), "{error}");
            assert_eq!(listing(directory.path()), before);
        }
    }

    #[test]
    fn another_format_is_refused_whatever_else_it_says() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("identity"), br#"{"format": 2, "shape": "new"}"#).unwrap();
        let error = DataDirectory::open(directory.path(), &claim()).unwrap_err();
        assert!(error.to_string().contains("format 2, this program reads format 1"), "{error}");
    }

    #[test]
    fn data_without_an_identity_is_not_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("log")).unwrap();
        let error = DataDirectory::open(directory.path(), &claim()).unwrap_err();
        assert!(error.to_string().contains("no identity says whose"), "{error}");
    }

    #[test]
    fn a_second_user_is_refused_by_name_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(directory.path(), &claim()).unwrap();
        let error = DataDirectory::open(directory.path(), &claim()).unwrap_err();
        assert!(error.to_string().ends_with(&format!("in use by process {}", std::process::id())), "{error}");
        drop(first);
        DataDirectory::open(directory.path(), &claim()).unwrap();
    }

    #[test]
    fn a_cluster_heard_later_is_kept_and_not_changed() {
        let directory = tempfile::tempdir().unwrap();
        let unknown = Claim { cluster: None, ..claim() };
        let mut open = DataDirectory::open(directory.path(), &unknown).unwrap();
        open.adopt_cluster(9).unwrap();
        open.adopt_cluster(9).unwrap();
        assert!(matches!(open.adopt_cluster(7), Err(StorageError::Refused { .. })));
        drop(open);
        assert!(DataDirectory::open(directory.path(), &claim()).is_err());
        assert_eq!(DataDirectory::open(directory.path(), &unknown).unwrap().identity().cluster, Some(9));
    }

    #[test]
    fn peers_are_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let mut open = DataDirectory::open(directory.path(), &claim()).unwrap();
        assert_eq!(open.known_peer(NodeId::numbered(2)), None);
        open.remember_peer(NodeId::numbered(2), Incarnation(5)).unwrap();
        open.remember_peer(NodeId::numbered(3), Incarnation(u64::MAX)).unwrap();
        open.remember_peer(NodeId::numbered(2), Incarnation(6)).unwrap();
        drop(open);
        let open = DataDirectory::open(directory.path(), &claim()).unwrap();
        assert_eq!(open.known_peer(NodeId::numbered(2)), Some(Incarnation(6)));
        assert_eq!(open.known_peer(NodeId::numbered(3)), Some(Incarnation(u64::MAX)));
    }
}
