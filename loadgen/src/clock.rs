//! The only place of this program that reads a clock.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The monotonic clock.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a load generator measures time")]
    Instant::now()
}

/// Processor time that this process has used, on all cores together.
pub(crate) fn processor_time() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(used.tv_sec).unwrap_or(0), u32::try_from(used.tv_nsec).unwrap_or(0))
}

/// A number that tells the names of this run from those of every other one.
pub(crate) fn run_number() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "two runs on one cluster must not share their queues")]
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_millis()).unwrap_or_default() << 16 | u64::from(std::process::id() & 0xffff)
}
