//! Messages about the cluster, its sessions and its health.

use serde::{Deserialize, Serialize};

/// Opens a session in one group. Its id is the log index of this command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// The group, 0 to groups - 1.
    pub group: u32,
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
}
