//! Who belongs to the cluster, and which of its nodes hold which group: the list of nodes, and the placement that follows from it.
//!
//! The list is state of group 0, changed by commands in its log like everything else, and numbered by the entry that changed it
//! last. Whoever knows the newest list tells every other node until that one has said that it knows it; each node keeps it beside its
//! identity. **The list says what ought to be.** What is, is each group's own membership in its own log; the leader of each
//! group brings the one to the other by itself (`reconcile`), so a change that is interrupted anywhere goes on.
//!
//! ```text
//!              Add             Promote             Remove              Forget
//!   (unknown) ────▶ Learner ────────────▶ Voter ────────────▶ Leaving ────────▶ (unknown)
//!                                            ▲                   ▲
//!                              Replace: the one that comes,  the one that goes
//! ```
//!
//! # Placement
//! The voters of group *g* are as many nodes as there are replicas, beginning with the *g*th in the order of their names and going
//! round; the first is to lead. So every node holds as many groups, and leads as many, as any other, give or take one.
//!
//! # Invariants
//! - A list of a higher version replaces one of a lower, and nothing else does.
//! - A node that was there at the beginning has no incarnation here: it is whoever was seen first under its name. One that came
//!   later is known by its data directory, and no other life of it is let in.
//! - There are never fewer voters than replicas, unless somebody insisted, and never none.
//!
//! # Caveats
//! - One node more or less moves replicas of about as many groups as it holds, and of some of its neighbours.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trine_protocol::cluster::{NewNode, NodeStanding, Reshape, Reshaping};
use trine_protocol::{Error, ErrorCode};

use crate::ids::{GroupId, Incarnation, Index, NodeId, ReplicaId};

/// Nodes of a cluster: every one is on the bus of every group, and connected to every other.
pub const NODES_MAX: usize = 32;
/// Bytes of an address.
const ADDRESS_BYTES_MAX: usize = 256;

/// One node of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its data directory; None for a node of the cluster's beginning.
    pub incarnation: Option<Incarnation>,
    /// For clients of the binary protocol.
    pub client: String,
    /// For the other nodes.
    pub peer: String,
    /// The lock address of its HTTP service.
    pub http: String,
    /// What part it has.
    pub standing: NodeStanding,
}

/// The list of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// Index in group 0's log of the entry that changed it last; 0 where it is as the cluster was made.
    pub version: Index,
    /// Voters of each group, as far as there are nodes.
    pub replicas: u32,
    /// The nodes.
    pub nodes: BTreeMap<NodeId, Listed>,
}

impl Roster {
    /// Every node's name, in order.
    pub fn names(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Every node's replica as the groups know it.
    pub fn replicas(&self) -> Vec<ReplicaId> {
        self.nodes.keys().filter_map(|node| self.replica(*node)).collect()
    }

    /// A node's replica as the groups know it.
    pub fn replica(&self, node: NodeId) -> Option<ReplicaId> {
        let incarnation = self.nodes.get(&node)?.incarnation.unwrap_or_default();
        Some(ReplicaId { node, incarnation })
    }

    /// Whether the list takes a replica's node out: in this life, as the list may be an old one, and name a life before.
    pub fn takes_out(&self, replica: ReplicaId) -> bool {
        let leaves = |listed: &Listed| listed.standing == NodeStanding::Leaving;
        self.replica(replica.node) == Some(replica) && self.nodes.get(&replica.node).is_some_and(leaves)
    }

    /// The replicas that are to vote in a group; the first is to lead it. With `learners`, as if they voted already.
    pub fn placement(&self, group: GroupId, learners: bool) -> Vec<ReplicaId> {
        let takes_part = |listed: &Listed| match listed.standing {
            NodeStanding::Voter => true,
            NodeStanding::Learner => learners,
            NodeStanding::Leaving => false,
        };
        let nodes: Vec<NodeId> = self.nodes.iter().filter(|(_, it)| takes_part(it)).map(|(node, _)| *node).collect();
        let (count, start) = (nodes.len(), group.0 as usize);
        let chosen = (0..count.min(self.replicas as usize)).map(|offset| nodes[(start + offset) % count]);
        chosen.filter_map(|node| self.replica(node)).collect()
    }

    fn voters(&self) -> usize {
        self.nodes.values().filter(|listed| listed.standing == NodeStanding::Voter).count()
    }

    /// Makes a change, which is the entry at `index`. Asked for again, it is answered the same.
    ///
    /// # Errors
    /// `InvalidArgument` with what is in the way; `VersionMismatch` where it counts on another list.
    pub fn apply(&mut self, index: Index, reshape: &Reshape) -> Result<Index, Error> {
        let mut next = self.clone();
        match &reshape.change {
            Reshaping::Add(new) => next.add(new, NodeStanding::Learner)?,
            Reshaping::Promote(node) => next.promote(&known(&self.nodes, node)?)?,
            Reshaping::Remove { node, force } => next.remove(&known(&self.nodes, node)?, *force)?,
            Reshaping::Replace { node, by } => next.replace(node, by)?,
            // What is gone already is forgotten.
            Reshaping::Forget(node) => next.forget(node)?,
        }
        if next.nodes == self.nodes {
            return Ok(self.version);
        }
        if let Some(counted_on) = reshape.at_version.filter(|version| *version != self.version) {
            let what = format!("the list of nodes is version {} now, not {counted_on}: look at it again", self.version);
            return Err(Error::new(ErrorCode::VersionMismatch, what).with_hint(self.version.to_string()));
        }
        next.version = index;
        *self = next;
        Ok(self.version)
    }

    fn add(&mut self, new: &NewNode, standing: NodeStanding) -> Result<(), Error> {
        let (node, listed) = listed(new, standing)?;
        if let Some(there) = self.nodes.get(&node) {
            if there.incarnation == listed.incarnation && there.standing != NodeStanding::Leaving {
                return Ok(());
            }
            return Err(refused(format!(
                "{node} is listed already, with another data directory; replace it, or add a node of another name"
            )));
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(refused(format!("a cluster has at most {NODES_MAX} nodes")));
        }
        self.check_addresses(node, &listed)?;
        self.nodes.insert(node, listed);
        Ok(())
    }

    fn check_addresses(&self, node: NodeId, new: &Listed) -> Result<(), Error> {
        let addresses = |it: &Listed| BTreeSet::from([it.client.clone(), it.peer.clone(), it.http.clone()]);
        let taken = self.nodes.iter().filter(|(name, _)| **name != node);
        for (name, listed) in taken {
            if let Some(address) = addresses(new).intersection(&addresses(listed)).next() {
                return Err(refused(format!("{address} is an address of {name}")));
            }
        }
        Ok(())
    }

    fn promote(&mut self, node: &NodeId) -> Result<(), Error> {
        let listed = self.nodes.get_mut(node).expect("looked up before");
        if listed.standing == NodeStanding::Leaving {
            return Err(refused(format!("{node} is on its way out")));
        }
        listed.standing = NodeStanding::Voter;
        Ok(())
    }

    fn remove(&mut self, node: &NodeId, force: bool) -> Result<(), Error> {
        let listed = self.nodes.get_mut(node).expect("looked up before");
        let voted = listed.standing == NodeStanding::Voter;
        listed.standing = NodeStanding::Leaving;
        let (left, replicas) = (self.voters(), self.replicas as usize);
        if left == 0 {
            return Err(refused(format!("{node} is the last node")));
        }
        if voted && left < replicas && !force {
            return Err(refused(format!(
                "without {node} there are {left} nodes for {replicas} replicas, so fewer may fail: add one first, replace it, or insist"
            )));
        }
        Ok(())
    }

    fn replace(&mut self, node: &str, by: &NewNode) -> Result<(), Error> {
        if node == by.node {
            let old = known(&self.nodes, node)?;
            let (_, new) = listed(by, NodeStanding::Voter)?;
            self.check_addresses(old, &new)?;
            self.nodes.insert(old, new);
            return Ok(());
        }
        // Said again, the old one may have been forgotten since.
        if let Ok(old) = known(&self.nodes, node) {
            self.nodes.get_mut(&old).expect("looked up before").standing = NodeStanding::Leaving;
        }
        self.add(by, NodeStanding::Voter)?;
        let (new, _) = listed(by, NodeStanding::Voter)?;
        self.promote(&new)
    }

    fn forget(&mut self, node: &str) -> Result<(), Error> {
        let Ok(node) = known(&self.nodes, node) else { return Ok(()) };
        if self.nodes[&node].standing != NodeStanding::Leaving {
            return Err(refused(format!("{node} belongs to the cluster: remove it first")));
        }
        self.nodes.remove(&node);
        Ok(())
    }
}

fn refused(message: String) -> Error {
    Error::new(ErrorCode::InvalidArgument, message)
}

fn known(nodes: &BTreeMap<NodeId, Listed>, name: &str) -> Result<NodeId, Error> {
    let node: NodeId = name.parse().map_err(refused)?;
    if nodes.contains_key(&node) {
        return Ok(node);
    }
    let names: Vec<&str> = nodes.keys().map(NodeId::as_str).collect();
    Err(refused(format!("there is no node {name}: {} are", names.join(", "))))
}

fn listed(new: &NewNode, standing: NodeStanding) -> Result<(NodeId, Listed), Error> {
    let node: NodeId = new.node.parse().map_err(refused)?;
    for address in [&new.client, &new.peer, &new.http] {
        if address.len() > ADDRESS_BYTES_MAX || !address.contains(':') {
            return Err(refused(format!("'{address}' is no address: host:port is")));
        }
    }
    if new.incarnation == 0 {
        return Err(refused(format!("{node} names no data directory: its own status says which it has")));
    }
    let incarnation = Some(Incarnation(new.incarnation));
    let (client, peer, http) = (new.client.clone(), new.peer.clone(), new.http.clone());
    Ok((node, Listed { incarnation, client, peer, http, standing }))
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// The list that a cluster of these nodes begins with; nobody is asked for the addresses.
    pub(in super::super) fn of(nodes: &[NodeId]) -> Roster {
        let listed = |node: &NodeId| {
            let at = |what| format!("{node}:{what}");
            let (client, peer, http) = (at(4100), at(4200), at(8999));
            (*node, Listed { incarnation: None, client, peer, http, standing: NodeStanding::Voter })
        };
        Roster { version: 0, replicas: 3, nodes: nodes.iter().map(listed).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(nodes: usize) -> Roster {
        let listed = |number: usize| {
            let at = |port: usize| format!("h:{}", port + number);
            let (client, peer, http) = (at(4100), at(4200), at(8999));
            let listed = Listed { incarnation: None, client, peer, http, standing: NodeStanding::Voter };
            (NodeId::numbered(number), listed)
        };
        Roster { version: 0, replicas: 3, nodes: (1..=nodes).map(listed).collect() }
    }

    fn new(number: usize, incarnation: u64) -> NewNode {
        let at = |port: usize| format!("h:{}", port + number);
        NewNode { node: format!("node{number}"), incarnation, client: at(4100), peer: at(4200), http: at(8999) }
    }

    /// Whatever the list is.
    fn any(change: Reshaping) -> Reshape {
        Reshape { change, at_version: None }
    }

    fn placed(roster: &Roster, learners: bool) -> Vec<String> {
        let names =
            |group| roster.placement(GroupId(group), learners).iter().map(ReplicaId::to_string).collect::<Vec<_>>();
        (0..4).map(|group| names(group).join(" ")).collect()
    }

    #[test]
    fn a_node_is_taken_out_in_the_life_that_is_listed() {
        let mut roster = roster(4);
        assert_eq!(roster.apply(5, &any(Reshaping::Remove { node: "node4".into(), force: false })), Ok(5));
        let node = NodeId::numbered(4);
        assert!(roster.takes_out(ReplicaId::founder(node)));
        // It comes back with an empty directory, and hears the old list first.
        assert!(!roster.takes_out(ReplicaId { node, incarnation: Incarnation(77) }));
        assert!(!roster.takes_out(ReplicaId::founder(NodeId::numbered(3))), "it votes");
        assert!(!roster.takes_out(ReplicaId::founder(NodeId::numbered(9))), "it is unknown");
    }

    #[test]
    fn groups_are_spread_and_each_node_leads_its_share() {
        let three = placed(&roster(3), false);
        assert_eq!(three, ["node1 node2 node3", "node2 node3 node1", "node3 node1 node2", "node1 node2 node3"]);
        let five = placed(&roster(5), false);
        assert_eq!(five, ["node1 node2 node3", "node2 node3 node4", "node3 node4 node5", "node4 node5 node1"]);
        assert_eq!(placed(&roster(1), false)[2], "node1");
    }

    #[test]
    fn a_node_learns_before_it_votes_and_leaves_before_it_is_forgotten() {
        let mut roster = roster(3);
        assert_eq!(roster.apply(10, &any(Reshaping::Add(new(4, 7)))), Ok(10));
        assert_eq!(roster.apply(11, &any(Reshaping::Add(new(4, 7)))), Ok(10), "said again, it is so already");
        assert_eq!(placed(&roster, false)[1], "node2 node3 node1");
        assert_eq!(placed(&roster, true)[1], "node2 node3 node4.0000000000000007");
        assert_eq!(roster.apply(12, &any(Reshaping::Promote("node4".into()))), Ok(12));
        assert_eq!(placed(&roster, false)[1], "node2 node3 node4.0000000000000007");
        let remove = |node: &str, force| any(Reshaping::Remove { node: node.into(), force });
        assert!(roster.apply(13, &any(Reshaping::Forget("node2".into()))).is_err(), "it holds replicas");
        assert_eq!(roster.apply(14, &remove("node2", false)), Ok(14));
        assert_eq!(placed(&roster, false)[0], "node1 node3 node4.0000000000000007");
        assert_eq!(roster.apply(15, &any(Reshaping::Forget("node2".into()))), Ok(15));
        assert_eq!(roster.apply(16, &any(Reshaping::Forget("node2".into()))), Ok(15));
    }

    #[test]
    fn what_is_unsafe_is_refused_with_the_reason_and_changes_nothing() {
        let mut roster = roster(3);
        let before = roster.clone();
        let remove = |node: &str, force| any(Reshaping::Remove { node: node.into(), force });
        let cases = [
            (remove("node3", false), "2 nodes for 3 replicas"),
            (remove("node9", false), "there is no node node9: node1, node2, node3 are"),
            (any(Reshaping::Add(new(3, 7))), "node3 is listed already"),
            (any(Reshaping::Add(NewNode { peer: "h:4201".into(), ..new(4, 7) })), "h:4201 is an address of node1"),
            (any(Reshaping::Add(NewNode { http: "nowhere".into(), ..new(4, 7) })), "'nowhere' is no address"),
            (any(Reshaping::Add(new(4, 0))), "names no data directory"),
            (any(Reshaping::Promote("Node".into())), "is no node name"),
        ];
        for (change, says) in cases {
            let error = roster.apply(10, &change).unwrap_err();
            assert!(error.message.contains(says), "{change:?}: {error}");
            assert_eq!(roster, before);
        }
        assert_eq!(roster.apply(11, &remove("node3", true)), Ok(11));
        assert_eq!(roster.apply(12, &remove("node2", true)), Ok(12));
        assert!(roster.apply(13, &remove("node1", true)).unwrap_err().message.contains("the last node"));
    }

    #[test]
    fn a_replacement_comes_under_another_name_or_as_another_life_of_the_same() {
        let mut other = roster(3);
        let replace = |node: &str, by| any(Reshaping::Replace { node: node.into(), by });
        assert_eq!(other.apply(10, &replace("node3", new(4, 7))), Ok(10));
        assert_eq!(placed(&other, false)[0], "node1 node2 node4.0000000000000007");
        assert_eq!(other.apply(11, &any(Reshaping::Forget("node3".into()))), Ok(11));
        assert_eq!(other.apply(12, &replace("node3", new(4, 7))), Ok(11), "said again after all of it");
        let mut same = roster(3);
        assert_eq!(same.apply(10, &replace("node3", new(3, 8))), Ok(10));
        assert_eq!(placed(&same, false)[0], "node1 node2 node3.0000000000000008");
    }

    #[test]
    fn a_change_that_counts_on_an_older_list_is_refused_unless_it_is_so_already() {
        let mut roster = roster(3);
        let replace = |life, at_version| {
            let change = Reshaping::Replace { node: "node3".into(), by: new(3, life) };
            Reshape { change, at_version: Some(at_version) }
        };
        // Two people, or one who gave up and asked again: both saw the same list, and the first request comes last.
        assert_eq!(roster.apply(10, &replace(8, 0)), Ok(10));
        let late = roster.apply(11, &replace(7, 0)).unwrap_err();
        assert_eq!((late.code, late.hint.as_str()), (ErrorCode::VersionMismatch, "10"));
        assert_eq!(placed(&roster, false)[0], "node1 node2 node3.0000000000000008");
        assert_eq!(roster.apply(12, &replace(8, 0)), Ok(10), "said again, it is so already");
        assert_eq!(roster.apply(13, &replace(7, 10)), Ok(13), "whoever has seen the list may");
    }
}
