//! The list of nodes on this node: kept on disk, told to every replica, and lived by: who is connected to, who is let in.
//!
//! ```text
//!   a replica of group 0 hears of a newer list ──▶ disk ──▶ every replica ──▶ connections, the door for peers
//! ```
//!
//! # Invariants
//! - Nothing acts on a list that is not on disk: a node that starts again must not speak to those whom it had left.
//! - A node that the list takes out goes by itself, when no group has a replica on it any more: it drains, and ends with code 0.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trine_protocol::cluster::{NodeAddresses, Role};

use crate::ids::{Incarnation, NodeId, ReplicaId};
use crate::node::Roster;
use crate::transport::{Local, Outbox};

use super::inbox::Inbox;
use super::peers::NodePeers;
use super::replica_task::Standing;

/// Longest time for the homes of all groups to note that a node that leaves owns nothing any more.
const RELEASE_MAX: Duration = Duration::from_secs(10);

/// The list as its readers have it.
pub(super) type Nodes = watch::Receiver<Roster>;

/// What a node needs to live by the list.
pub(super) struct Keeper {
    /// This node, in this life.
    pub(super) replica: ReplicaId,
    pub(super) outbox: Outbox,
    pub(super) door: NodePeers,
    pub(super) local: Arc<Local>,
    pub(super) inboxes: Vec<Arc<Inbox>>,
    pub(super) standings: Vec<watch::Receiver<Standing>>,
    pub(super) peers: TaskTracker,
    pub(super) close: CancellationToken,
    /// Cancelled when this node has left the cluster.
    pub(super) left: CancellationToken,
    pub(super) fatal: fn(&str),
}

impl Keeper {
    /// Lives by every list that replicas hear of, until `close`.
    pub(super) async fn run(self, mut heard: watch::Receiver<Roster>, kept: watch::Sender<Roster>) {
        let close = self.close.clone();
        let leaving = async {
            let mut kept = kept.subscribe();
            self.leave(&mut kept).await;
        };
        let following = async {
            while heard.changed().await.is_ok() {
                let roster = heard.borrow_and_update().clone();
                self.follow(roster, &kept).await;
            }
        };
        tokio::select! {
            () = close.cancelled() => {}
            ((), ()) = async { tokio::join!(leaving, following) } => {}
        }
    }

    async fn follow(&self, roster: Roster, kept: &watch::Sender<Roster>) {
        let (door, keep) = (self.door.clone(), roster.clone());
        let written = tokio::task::spawn_blocking(move || door.keep_roster(&keep)).await;
        if let Ok(Err(error)) = written {
            return (self.fatal)(&format!("the list of nodes cannot be kept: {error}"));
        }
        tracing::info!(version = roster.version, nodes = %names(&roster), "the list of nodes has changed");
        kept.send_replace(roster.clone());
        self.connect(&roster);
        for inbox in &self.inboxes {
            inbox.roster(roster.clone());
        }
    }

    /// Connects to the nodes of the list, and ends the connections to others.
    pub(super) fn connect(&self, roster: &Roster) {
        let others = roster.nodes.iter().filter(|(node, _)| **node != self.replica.node);
        for peer in self.outbox.set(others.map(|(node, listed)| (*node, listed.peer.clone())).collect()) {
            self.peers.spawn(peer.run(Arc::clone(&self.local), self.door.clone(), self.close.clone()));
        }
    }

    /// Returns when the list takes this node out and nothing is left on it; `left` is cancelled then.
    async fn leave(&self, kept: &mut watch::Receiver<Roster>) {
        if kept.wait_for(|roster| roster.takes_out(self.replica)).await.is_err() {
            return;
        }
        tracing::info!("this node is taken out of the cluster: its replicas go to others");
        for standing in &self.standings {
            let outside = |standing: &Standing| standing.status.role == Role::Outside;
            if standing.clone().wait_for(outside).await.is_err() {
                return;
            }
        }
        self.inboxes.iter().for_each(|inbox| inbox.drain());
        let released = async {
            for standing in &self.standings {
                // A replica that has ended gives nothing back any more.
                let _ = standing.clone().wait_for(|standing| standing.released).await;
            }
        };
        if tokio::time::timeout(RELEASE_MAX, released).await.is_err() {
            tracing::warn!(
                "not every home has heard in {RELEASE_MAX:?} that this node owns nothing: some keys may wait for a write"
            );
        }
        tracing::info!("no group has a replica on this node any more: it leaves");
        self.left.cancel();
    }
}

fn names(roster: &Roster) -> String {
    roster.names().iter().map(NodeId::as_str).collect::<Vec<_>>().join(" ")
}

/// The list as clients see it.
pub(super) fn addresses(roster: &Roster) -> Vec<NodeAddresses> {
    let of = |(node, listed): (&NodeId, &crate::node::roster::Listed)| NodeAddresses {
        node: node.to_string(),
        client: listed.client.clone(),
        http: listed.http.clone(),
        peer: listed.peer.clone(),
        standing: listed.standing,
    };
    roster.nodes.iter().map(of).collect()
}

/// Why a node that joins takes no part; empty where it does.
pub(super) fn outside(roster: &Roster, node: NodeId, joins: bool, incarnation: Incarnation) -> String {
    let listed = roster.nodes.get(&node).is_some_and(|it| it.incarnation == Some(incarnation));
    match (joins, listed, roster.version) {
        (false, _, _) | (true, true, _) => String::new(),
        (true, false, 0) => format!(
            "{node} waits to be let in: `trine cluster add ADDRESS` with its client address, or, where it lost its data directory, `trine cluster replace {node}`"
        ),
        (true, false, _) => format!("{node} is listed with another data directory, or not any more"),
    }
}
