//! The only place of this program that reads a clock.

use std::time::Instant;

/// The monotonic clock.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a load generator measures time")]
    Instant::now()
}

/// A number that tells the names of this run from those of every other one.
pub(crate) fn run_number() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "two runs on one cluster must not share their queues")]
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_millis()).unwrap_or_default() << 16 | u64::from(std::process::id() & 0xffff)
}
