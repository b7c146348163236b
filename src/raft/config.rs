//! What a replica is told when it is made.

use crate::ids::{Incarnation, NodeId, ReplicaId};

use super::quorum::VOTERS_MAX;

/// Who takes part, and the times. All durations in microseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// This replica's node.
    pub id: NodeId,
    /// Its life: 0 for a node of the group's beginning, else that of its data directory.
    pub incarnation: Incarnation,
    /// The voters that the group begins with. A replica that is not among them takes part when a leader's log says so.
    pub voters: Vec<NodeId>,
    /// Time between two heartbeats.
    pub heartbeat_us: u64,
    /// Shortest election timeout; a voter that heard its leader refuses votes for this long.
    pub election_us_min: u64,
    /// Longest election timeout.
    pub election_us_max: u64,
    /// How long the news that entries are committed may wait for entries to travel with. Nobody but the followers' own states waits for it.
    pub commit_news_us: u64,
    /// The leader lease, from the send time of a heartbeat round that a quorum acknowledged.
    pub lease_us: u64,
    /// How far two monotonic clocks may differ in speed, in parts per million.
    pub drift_ppm: u64,
    /// Bytes of entries in one append message.
    pub append_bytes_max: usize,
    /// Append messages to one follower that wait for their answer.
    pub in_flight_max: usize,
    /// Bytes of proposals of this leader that are not committed; above it `ProposeError::Overloaded`.
    pub uncommitted_bytes_max: usize,
    /// Bytes of one snapshot chunk.
    pub snapshot_chunk_bytes: usize,
    /// Reads that wait for the word of a majority; one more is refused.
    pub reads_max: usize,
    /// Bytes of the largest snapshot that is assembled in memory; the chunks of a larger one are dropped.
    pub snapshot_bytes_max: u64,
    /// The voter that is to lead a group that starts: its first timeout is short, that of the others long. Without one
    /// all are alike.
    pub first: Option<NodeId>,
    /// Seed of the election timeouts.
    pub seed: u64,
}

impl Config {
    /// The defaults of the design for a replica at `id`.
    pub fn new(id: NodeId, voters: Vec<NodeId>, seed: u64) -> Self {
        Self {
            id,
            incarnation: Incarnation::default(),
            voters,
            heartbeat_us: 100_000,
            election_us_min: 600_000,
            election_us_max: 1_200_000,
            commit_news_us: 0,
            lease_us: 500_000,
            drift_ppm: 10_000,
            append_bytes_max: 1024 * 1024,
            in_flight_max: 64,
            uncommitted_bytes_max: 32 * 1024 * 1024,
            snapshot_chunk_bytes: 1024 * 1024,
            reads_max: 16_384,
            snapshot_bytes_max: 4 * 1024 * 1024 * 1024,
            first: None,
            seed,
        }
    }

    /// This replica as others know it.
    pub fn replica(&self) -> ReplicaId {
        ReplicaId { node: self.id, incarnation: self.incarnation }
    }

    /// Asserts that a group with these settings is safe. Where they come from a user, the shell refuses them before.
    ///
    /// # Panics
    /// Where they are not, with the numbers.
    pub fn check(&self) {
        let mut voters = self.voters.clone();
        voters.sort_unstable();
        voters.dedup();
        assert_eq!(voters.len(), self.voters.len(), "a voter counts once: {:?}", self.voters);
        assert!(voters.len() <= VOTERS_MAX, "{} voters, {VOTERS_MAX} at most", voters.len());
        let (shortest, longest) = (self.election_us_min, self.election_us_max);
        assert!(0 < self.heartbeat_us && self.heartbeat_us < shortest && shortest <= longest, "{self:?}");
        assert!(self.drift_ppm < 1_000_000, "{} ppm of drift", self.drift_ppm);
        // The leader's clock may be slow and the voter's fast: even then the lease ends before a voter forgets its leader.
        let lease_at_worst = u128::from(self.lease_us) * u128::from(1_000_000 + self.drift_ppm);
        let refusal_at_worst = u128::from(shortest) * u128::from(1_000_000 - self.drift_ppm);
        assert!(lease_at_worst <= refusal_at_worst, "a lease of {} us outlives {shortest} us", self.lease_us);
        assert!(self.in_flight_max > 0 && self.snapshot_chunk_bytes > 0, "nothing could ever be sent");
    }
}
