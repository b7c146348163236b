//! The node as its peers see it: who is let in, and where their messages go.
//!
//! # Invariants
//! - A member is heard in one incarnation only, the first that was seen under its name; it is written down before the first
//!   message is taken.
//!
//! # Caveats
//! - Without credentials, whoever reaches the port first with a member's name and the cluster's number passes for it.
//! - A member that lost its data directory is refused by the others until it is let in anew.

use std::sync::{Arc, Mutex, PoisonError};

use trine_protocol::{Error, ErrorCode};

use crate::ids::{GroupId, Incarnation, NodeId};
use crate::metrics;
use crate::node::Roster;
use crate::node::message::GroupMessage;
use crate::storage::{DataDirectory, StorageError};
use crate::transport::PeerDoor;

use super::inbox::Inbox;
use super::log_limit;
use super::nodes::Nodes;

/// The door for peers. Clones lead to the same node.
#[derive(Clone, Debug)]
pub(super) struct NodePeers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: NodeId,
    nodes: Nodes,
    inboxes: Vec<Arc<Inbox>>,
    directory: Mutex<DataDirectory>,
    fatal: fn(&str),
}

impl NodePeers {
    pub(super) fn new(
        node: NodeId,
        nodes: Nodes,
        inboxes: Vec<Arc<Inbox>>,
        directory: DataDirectory,
        fatal: fn(&str),
    ) -> Self {
        Self { shared: Arc::new(Shared { node, nodes, inboxes, directory: Mutex::new(directory), fatal }) }
    }

    /// Keeps a list of nodes on disk. Blocks.
    pub(super) fn keep_roster(&self, roster: &Roster) -> Result<(), StorageError> {
        self.shared.directory.lock().unwrap_or_else(PoisonError::into_inner).keep_roster(roster)
    }
}

impl Shared {
    /// Blocks: the first time that a node is seen it is written down.
    fn admit(&self, node: NodeId, incarnation: Incarnation) -> Result<(), Error> {
        let (version, listed) = {
            let nodes = self.nodes.borrow();
            (nodes.version, nodes.nodes.get(&node).map(|listed| listed.incarnation))
        };
        let mut directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.is_none() && node != self.node && version == 0 && directory.identity().joins {
            // It has heard of no list yet; those that it was told of may all be gone. What it does not know it does not hear,
            // except for the list.
            return Ok(());
        }
        let Some(listed) = listed.filter(|_| node != self.node) else {
            let message = format!("{node} is not among the other members of this cluster");
            return Err(Error::new(ErrorCode::WrongCluster, message));
        };
        match listed {
            Some(known) if known == incarnation => return Ok(()),
            Some(known) => return Err(lost_data(node, known, incarnation)),
            None => {}
        }
        match directory.known_peer(node) {
            Some(known) if known == incarnation => Ok(()),
            Some(known) => Err(lost_data(node, known, incarnation)),
            None => directory.remember_peer(node, incarnation).map_err(|error| {
                tracing::error!(%error, %node, "a peer could not be written down");
                Error::new(ErrorCode::Internal, "the node could not write this peer down")
            }),
        }
    }
}

fn lost_data(node: NodeId, known: Incarnation, other: Incarnation) -> Error {
    let (known, other) = (known.0, other.0);
    let message = format!(
        "{node} was {known:016x} here and is {other:016x} now: it has lost its data directory, and may not vote as if it had not; `trine cluster replace {node}` lets it in anew"
    );
    Error::new(ErrorCode::LostData, message)
}

impl PeerDoor for NodePeers {
    async fn admit(&self, node: NodeId, incarnation: Incarnation) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let admitted = tokio::task::spawn_blocking(move || shared.admit(node, incarnation)).await;
        admitted.unwrap_or_else(|error| Err(Error::new(ErrorCode::Internal, error.to_string())))
    }

    fn lost_data(&self, error: &Error) {
        let directory = self.shared.directory.lock().unwrap_or_else(PoisonError::into_inner);
        if !directory.identity().joins {
            // It may have voted already. Started again, it asks first, and joins.
            drop(directory);
            (self.shared.fatal)(&error.to_string());
        }
    }

    fn deliver(&self, from: NodeId, group: GroupId, message: GroupMessage, bytes: usize) {
        let Some(inbox) = self.shared.inboxes.get(group.0 as usize) else {
            if let Some(suppressed) = log_limit::allow("unknown group") {
                tracing::warn!(peer = %from, %group, suppressed, "a peer sent a message for a group that does not exist");
            }
            return;
        };
        if !inbox.peer(from, message, bytes) {
            metrics::node().dropped_full.increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::storage::Claim;

    use super::*;

    fn open(path: &std::path::Path, version: u64, joins: bool) -> NodePeers {
        let node = NodeId::numbered(1);
        let claim = Claim { node, cluster: Some(5), groups: 3, joins };
        let directory = DataDirectory::open(path, &claim).unwrap();
        let listed = |life| crate::node::roster::Listed {
            incarnation: life,
            client: String::new(),
            peer: String::new(),
            http: String::new(),
            standing: trine_protocol::cluster::NodeStanding::Voter,
        };
        let joined = (NodeId::numbered(5), listed(Some(Incarnation(9))));
        let nodes =
            [1, 2, 3].map(|number| (NodeId::numbered(number), listed(None))).into_iter().chain([joined]).collect();
        let (_, nodes) = tokio::sync::watch::channel(Roster { version, replicas: 3, nodes });
        NodePeers::new(node, nodes, vec![Arc::default()], directory, |_| {})
    }

    #[tokio::test]
    async fn a_peer_keeps_its_incarnation_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let admit = async |number, incarnation| {
            let peers = open(folder.path(), 1, false);
            peers.admit(NodeId::numbered(number), Incarnation(incarnation)).await.err().map(|error| error.code)
        };
        assert_eq!(admit(2, 7).await, None);
        assert_eq!(admit(3, 8).await, None);
        assert_eq!(admit(2, 7).await, None);
        assert_eq!(admit(2, 8).await, Some(ErrorCode::LostData));
        assert_eq!((admit(5, 9).await, admit(5, 8).await), (None, Some(ErrorCode::LostData)), "listed with its life");
        assert_eq!(admit(4, 1).await, Some(ErrorCode::WrongCluster), "no member");
        assert_eq!(admit(1, 1).await, Some(ErrorCode::WrongCluster), "this node itself");
        assert_eq!(admit(3, 8).await, None);
    }

    #[tokio::test]
    async fn who_joins_hears_strangers_until_it_has_heard_of_a_list() {
        let cases =
            [(0, true, None), (0, false, Some(ErrorCode::WrongCluster)), (1, true, Some(ErrorCode::WrongCluster))];
        for (version, joins, refused) in cases {
            let folder = tempfile::tempdir().unwrap();
            let peers = open(folder.path(), version, joins);
            let code = peers.admit(NodeId::numbered(4), Incarnation(1)).await.err().map(|error| error.code);
            assert_eq!(code, refused, "list {version}, joins: {joins}");
            assert!(peers.admit(NodeId::numbered(1), Incarnation(1)).await.is_err(), "this node itself");
        }
    }
}
