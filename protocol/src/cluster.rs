//! Messages about the cluster, its sessions and its health.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Opens a session in one group. Its id is the log index of this command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// The group, 0 to groups - 1.
    pub group: u32,
    /// It ends after so many milliseconds of log time without a command, [`crate::limits::SESSION_MS_MIN`] to
    /// [`crate::limits::SESSION_MS_MAX`]; 0 for the default, 60,000.
    #[serde(default)]
    pub timeout_ms: u32,
}

/// Answer to [`OpenSession`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpened {
    /// The session's id, to be put into the header of each request.
    pub session: u64,
    /// It ends after this many milliseconds of log time without a command.
    pub timeout_ms: u32,
}

/// Keeps a session alive. It stands in the request's header, with a sequence like any command's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAlive {
    /// The group the session was opened in.
    pub group: u32,
}

/// Answer to [`KeepAlive`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {}

/// Changes who belongs to the cluster. The groups follow it by themselves, one change at a time each; [`Status`] says how far they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reshape {
    /// What is to change.
    pub change: Reshaping,
    /// Refused unless the list of nodes has this version, or is already as the change would have it: so that what was asked for once and
    /// given up does not happen after something else. Without it the change is made to whatever list there is.
    #[serde(default)]
    pub at_version: Option<u64>,
}

/// One change of who belongs to the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reshaping {
    /// A node that runs already, and waits to be let in: it takes entries, and votes nowhere yet.
    Add(NewNode),
    /// A node that was added may vote, and lead.
    Promote(String),
    /// A node is to hold no replica any more. Refused where too few nodes would be left for the replicas, unless `force` is set.
    Remove {
        /// Its name.
        node: String,
        /// Do it although fewer nodes are left than groups want replicas.
        force: bool,
    },
    /// A node takes the place of another, which is gone or is to go; under the same name where it has lost its disk.
    Replace {
        /// Name of the node that goes.
        node: String,
        /// The one that comes, and that runs already.
        by: NewNode,
    },
    /// A node that was removed, and holds nothing any more, is not spoken to any more.
    Forget(String),
}

/// A node that is to belong to the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    /// Name of the node.
    pub node: String,
    /// That of its data directory, as its own [`NodeStatus`] says.
    pub incarnation: u64,
    /// `host:port` for clients of this protocol.
    pub client: String,
    /// `host:port` for the other nodes.
    pub peer: String,
    /// `host:port` of the lock address of its HTTP service.
    pub http: String,
}

/// Answer to [`Reshape`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reshaped {
    /// Version of the list of nodes from now on; the same as before where it was so already.
    pub version: u64,
}

/// Hands the leadership of a group to one of its voters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The group, 0 to groups - 1.
    pub group: u32,
    /// Name of the node that is to lead it.
    pub node: String,
}

/// Answer to [`Transfer`]: it is under way, and over within an election timeout. [`Status`] says what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transferring {}

/// Begins a copy of one group's state, at the node that leads it. Clients go on working meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// The group, 0 to groups - 1.
    pub group: u32,
}

/// Answer to [`Backup`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupBegun {
    /// Number of the copy on this node, to be read with [`BackupRead`].
    pub backup: u64,
    /// Everything that was acknowledged before the request is at this index of the group's log or below; the copy stands there or later.
    pub index: u64,
}

/// Reads the next part of a copy; the last one that was read may be asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRead {
    /// As [`BackupBegun`] said.
    pub backup: u64,
    /// Number of the part, from 0.
    pub part: u32,
}

/// Answer to [`BackupRead`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupPart {
    /// The next bytes of the copy, at most [`crate::limits::BACKUP_PART_BYTES_MAX`]; opaque to this crate.
    pub bytes: Bytes,
    /// With the last part: where the copy stands.
    pub stands: Option<BackupStands>,
}

/// Where in its log a copy of a group stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupStands {
    /// Index of the last entry that is in it.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Log time of that entry in milliseconds.
    pub stamp_ms: u64,
    /// Wall clock of that entry in milliseconds since 1970.
    pub wall_ms: u64,
    /// Names of the voters.
    pub voters: Vec<String>,
    /// Names of the learners.
    pub learners: Vec<String>,
}

/// Asks a node what it is and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {}

/// Answer to [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Name of the node that answers.
    pub node: String,
    /// Random, made once per cluster.
    pub cluster_id: u64,
    /// Random, new with each data directory.
    pub incarnation: u64,
    /// Version of the binary.
    pub version: String,
    /// Milliseconds since the process started.
    pub uptime_ms: u64,
    /// Every node of the cluster, in the order of their names.
    pub nodes: Vec<NodeAddresses>,
    /// Every group, as this node sees it.
    pub groups: Vec<GroupStatus>,
    /// Version of the list of nodes that it knows; 0 where it is as the cluster was made.
    #[serde(default)]
    pub nodes_version: u64,
    /// Why the node takes no part in the cluster; empty where it does.
    #[serde(default)]
    pub outside: String,
}

/// The addresses a node advertises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// Name of the node.
    pub node: String,
    /// `host:port` for clients of this protocol.
    pub client: String,
    /// `host:port` of the lock address of its HTTP service.
    pub http: String,
    /// `host:port` for the other nodes.
    #[serde(default)]
    pub peer: String,
    /// What part it has in the cluster.
    #[serde(default)]
    pub standing: NodeStanding,
}

/// What part a node has in the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeStanding {
    /// Groups have replicas on it that vote.
    #[default]
    Voter,
    /// Groups have replicas on it that do not vote yet.
    Learner,
    /// It is on its way out: groups take their replicas away from it.
    Leaving,
}

/// What a node's replica in its group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Takes what the leader sends.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Orders the commands.
    Leader,
    /// Has no replica of the group, but a place on its bus.
    Outside,
}

/// One group as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group's number.
    pub group: u32,
    /// What this node is in it.
    pub role: Role,
    /// The newest term this node knows.
    pub term: u64,
    /// Whom it voted for in that term.
    pub voted_for: Option<String>,
    /// The leader it knows.
    pub leader: Option<String>,
    /// Index of the last entry of its log.
    pub last_index: u64,
    /// Index of the last entry it knows committed.
    pub commit_index: u64,
    /// Index of the last entry it applied.
    pub applied_index: u64,
    /// True where this node holds a valid bus lease, so that its cache serves hits.
    pub bus_lease: bool,
    /// True where the replica has applied all that was committed when it found its leader.
    pub ready: bool,
    /// Why it is not ready; empty where it is.
    pub why_not_ready: String,
    /// Names of the voters, by the newest word in this node's log; of both majorities, while one replaces the other.
    #[serde(default)]
    pub voters: Vec<String>,
    /// Names of the learners.
    #[serde(default)]
    pub learners: Vec<String>,
    /// On the leader: what a change of the group's members waits for; empty where nothing is to change.
    #[serde(default)]
    pub change: String,
}
