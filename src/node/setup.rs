//! What a replica is told when it is made.

use crate::ids::{GroupId, Incarnation, NodeId, ReplicaId};
use crate::{cache, raft};

use super::roster::Roster;

/// Everything that a replica cannot find out by itself.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The group.
    pub group: GroupId,
    /// The node that the replica is on.
    pub node: NodeId,
    /// The node's data directory.
    pub incarnation: Incarnation,
    /// The node was not there when the cluster began, or has lost its disk since: it takes part when it is let in.
    pub joins: bool,
    /// The node may have been there before, and clients may have copies that an earlier life of its process gave them.
    pub lived_before: bool,
    /// The newest list of nodes that this node knows.
    pub roster: Roster,
    /// The nodes that the group began with, the one that is to lead first; none where the node joins.
    pub founders: Vec<NodeId>,
    /// The generation of a cluster whose state names none: it was never restored from a backup. In the top bits of every token.
    pub generation: u16,
    /// Whether the cache's values lie in Redis.
    pub redis: bool,
    /// Seed of the election timeouts.
    pub seed: u64,
    /// The times.
    pub timing: Timing,
}

/// The times and bounds of a replica. Durations in microseconds of the monotonic clock.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Time between two heartbeats.
    pub heartbeat_us: u64,
    /// Shortest election timeout.
    pub election_us_min: u64,
    /// Longest election timeout.
    pub election_us_max: u64,
    /// How long the news of a commit may wait for entries to travel with.
    pub commit_news_us: u64,
    /// The leader lease.
    pub leader_lease_us: u64,
    /// A forwarded command without an answer is sent again after this.
    pub resend_us: u64,
    /// A node's own session gets a sign of life after this much idleness.
    pub keep_alive_us: u64,
    /// Whether the first voter of a group is to win its first election.
    pub first_leads: bool,
    /// A leader that is not the group's first voter gives its office to it after this much calm, so that leaders stay spread.
    pub calm_us: u64,
    /// A draining node that cannot write its dirty lines back leaves them to its journal after this.
    pub drain_us: u64,
    /// Entries applied since the last checkpoint that make the next one due.
    pub checkpoint_entries: u64,
    /// Bytes of entries applied since the last checkpoint that make the next one due.
    pub checkpoint_bytes: usize,
    /// Time after which the body of a message that is gone is removed from the state store, however little else has changed.
    pub remove_us: u64,
    /// Bytes of applied entries that a compaction leaves in the log, for followers that are a little behind.
    pub retain_bytes: usize,
    /// Bytes of one snapshot chunk.
    pub snapshot_chunk_bytes: usize,
    /// Bytes of entries in one append message.
    pub append_bytes_max: usize,
    /// Append messages to one follower that wait for their answer.
    pub in_flight_max: usize,
    /// Bytes of a leader's proposals that are not committed; above it `Overloaded`.
    pub uncommitted_bytes_max: usize,
    /// Client requests of this node that wait for this group; one more gets `Overloaded`.
    pub pending_max: usize,
    /// How far two monotonic clocks may differ in speed, in parts per million.
    pub drift_ppm: u64,
    /// The cache's times and bounds.
    pub cache: cache::Config,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_us: 100_000,
            election_us_min: 600_000,
            election_us_max: 1_200_000,
            commit_news_us: 10_000,
            leader_lease_us: 500_000,
            resend_us: 500_000,
            keep_alive_us: 15_000_000,
            first_leads: true,
            calm_us: 30_000_000,
            drain_us: 2_000_000,
            checkpoint_entries: 8_192,
            checkpoint_bytes: 8 * 1024 * 1024,
            remove_us: 5_000_000,
            retain_bytes: 4 * 1024 * 1024,
            snapshot_chunk_bytes: 1024 * 1024,
            append_bytes_max: 1024 * 1024,
            in_flight_max: 64,
            uncommitted_bytes_max: 32 * 1024 * 1024,
            pending_max: 16_384,
            drift_ppm: 10_000,
            cache: cache::Config::default(),
        }
    }
}

impl Setup {
    pub(super) fn raft(&self) -> raft::Config {
        let timing = &self.timing;
        raft::Config {
            heartbeat_us: timing.heartbeat_us,
            election_us_min: timing.election_us_min,
            election_us_max: timing.election_us_max,
            commit_news_us: timing.commit_news_us,
            lease_us: timing.leader_lease_us,
            drift_ppm: timing.drift_ppm,
            incarnation: ReplicaId::of(self.node, self.incarnation, self.joins).incarnation,
            first: timing.first_leads.then(|| self.founders.first().copied()).flatten(),
            snapshot_chunk_bytes: timing.snapshot_chunk_bytes,
            append_bytes_max: timing.append_bytes_max,
            in_flight_max: timing.in_flight_max,
            uncommitted_bytes_max: timing.uncommitted_bytes_max,
            ..raft::Config::new(self.node, self.founders.clone(), self.seed)
        }
    }

    pub(super) fn cache(&self) -> cache::Config {
        cache::Config { drift_ppm: self.timing.drift_ppm, ..self.timing.cache.clone() }
    }
}
