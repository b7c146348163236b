//! The times and bounds of the cache.

/// All durations in microseconds of the monotonic clock.
#[derive(Clone, Debug)]
pub struct Config {
    /// Length of a bus lease. The holder counts it short by the drift bound, the home long.
    pub lease_us: u64,
    /// Time between two renewals.
    pub renew_us: u64,
    /// How far two monotonic clocks may differ in speed, in parts per million.
    pub drift_ppm: u64,
    /// A written value is on its way to main memory after half of this, so that it stays dirty no longer than this.
    pub dirty_us_max: u64,
    /// Bytes of values of one group that main memory lacks, on one node; a write beyond it goes into main memory before it is acknowledged.
    pub dirty_bytes_max: u64,
    /// Writes of keys that begin so go into main memory before they are acknowledged.
    pub through: Vec<String>,
    /// An unanswered message is sent again after this.
    pub retry_us: u64,
    /// Time between two copies that the auditor compares with what the home has.
    pub audit_us: u64,
    /// Bytes of keys and values that one node caches of one group; above it the line that is wanted least goes, by S3-FIFO.
    pub lines_bytes_max: usize,
    /// Requests that wait for one key at one place; one more gets `Overloaded`.
    pub waiting_max: usize,
    /// Keys that one home has transactions or sharers of; beyond it fills are not kept by their readers.
    pub directory_max: usize,
    /// Bytes of keys and values in one group's main memory; a write beyond it gets `Overloaded`.
    pub memory_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_us: 1_000_000,
            renew_us: 250_000,
            drift_ppm: 10_000,
            dirty_us_max: 1_000_000,
            dirty_bytes_max: 64 * 1024 * 1024,
            through: Vec::new(),
            retry_us: 100_000,
            audit_us: 1_000_000,
            lines_bytes_max: 64 * 1024 * 1024,
            waiting_max: 1024,
            directory_max: 1_000_000,
            memory_bytes_max: 1024 * 1024 * 1024,
        }
    }
}

impl Config {
    /// A lease as its holder counts it, from before it sent the request.
    pub fn holder_lease_us(&self) -> u64 {
        self.lease_us - self.lease_us * self.drift_ppm / 1_000_000
    }

    /// A lease as the home counts it, from after it answered.
    pub fn home_lease_us(&self) -> u64 {
        self.lease_us + self.lease_us * self.drift_ppm / 1_000_000
    }
}
