//! What the storage threads have done, in numbers that another thread may read at any time.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper ends of the buckets that the times of syncs are counted in, in microseconds; a last bucket has no end.
pub const SYNC_BUCKETS_US: [u64; 14] =
    [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000];

/// How long syncs took.
#[derive(Debug, Default)]
pub struct SyncTimes {
    /// How many there were.
    pub count: AtomicU64,
    /// All of them together, in microseconds.
    pub total_us: AtomicU64,
    /// The last one, in microseconds.
    pub last_us: AtomicU64,
    /// How many ended within each of [`SYNC_BUCKETS_US`] and not the one before; the last counts the rest.
    pub buckets: [AtomicU64; SYNC_BUCKETS_US.len() + 1],
}

impl SyncTimes {
    /// Counts one sync.
    pub(super) fn record(&self, took_us: u64) {
        let bucket = SYNC_BUCKETS_US.partition_point(|end| *end < took_us);
        add(&self.buckets[bucket], 1);
        add(&self.total_us, took_us);
        self.last_us.store(took_us, Ordering::Relaxed);
        add(&self.count, 1);
    }
}

/// What the storage of a node has done since its start. The numbers are counted one by one, so two of them read together may
/// be a round apart.
#[derive(Debug, Default)]
pub struct StorageStats {
    /// Writes that the log has made durable.
    pub log_writes: AtomicU64,
    /// Bytes of data in them, about.
    pub log_bytes: AtomicU64,
    /// Syncs of the log: one a round.
    pub log_sync: SyncTimes,
    /// Writes that wait for a round.
    pub log_waiting: AtomicU64,
    /// Bytes of the log's files.
    pub log_disk_bytes: AtomicU64,
    /// Checkpoints that the state store has made durable.
    pub checkpoints: AtomicU64,
    /// Changes in them.
    pub changes: AtomicU64,
    /// Snapshots installed.
    pub installs: AtomicU64,
    /// Records looked up.
    pub fetched: AtomicU64,
    /// Syncs of the state store.
    pub state_sync: SyncTimes,
    /// Checkpoints, snapshots and fetches that wait.
    pub state_waiting: AtomicU64,
    /// Bytes of the state store's files.
    pub state_disk_bytes: AtomicU64,
    /// Bytes of the files of bodies.
    pub body_disk_bytes: AtomicU64,
    /// Bytes of the bodies in them that live.
    pub body_live_bytes: AtomicU64,
}

/// Adds to a counter that others only read.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Sets a gauge that others only read.
pub(super) fn set(gauge: &AtomicU64, value: u64) {
    gauge.store(value, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_bucket_that_ends_at_or_after_it() {
        let times = SyncTimes::default();
        for took_us in [0, 100, 101, 5_000_000, 5_000_001] {
            times.record(took_us);
        }
        let buckets: Vec<_> = times.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        assert_eq!((buckets[0], buckets[1], buckets[13], buckets[14]), (2, 1, 1, 1));
        assert_eq!(times.count.load(Ordering::Relaxed), 5);
        assert_eq!(times.last_us.load(Ordering::Relaxed), 5_000_001);
        assert_eq!(times.total_us.load(Ordering::Relaxed), 10_000_202);
    }
}
