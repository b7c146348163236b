//! What a replica is told when it is made.

use crate::ids::NodeId;

/// Who takes part, and the times. All durations in microseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// This replica's node.
    pub id: NodeId,
    /// The voters of the group, this one among them.
    pub voters: Vec<NodeId>,
    /// Time between two heartbeats.
    pub heartbeat_us: u64,
    /// Shortest election timeout; a voter that heard its leader refuses votes for this long.
    pub election_us_min: u64,
    /// Longest election timeout.
    pub election_us_max: u64,
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
    /// Seed of the election timeouts.
    pub seed: u64,
}

impl Config {
    /// The defaults of the design for a replica at `id`.
    pub fn new(id: NodeId, voters: Vec<NodeId>, seed: u64) -> Self {
        Self {
            id,
            voters,
            heartbeat_us: 100_000,
            election_us_min: 600_000,
            election_us_max: 1_200_000,
            lease_us: 500_000,
            drift_ppm: 10_000,
            append_bytes_max: 1024 * 1024,
            in_flight_max: 64,
            uncommitted_bytes_max: 32 * 1024 * 1024,
            snapshot_chunk_bytes: 1024 * 1024,
            seed,
        }
    }
}
