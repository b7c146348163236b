//! The only place that reads a clock.
//!
//! Two clocks, each for one purpose. The **monotonic** one is `CLOCK_BOOTTIME`: it counts on while the machine is suspended,
//! so a lease that ran out while a laptop slept has run out when it wakes; `CLOCK_MONOTONIC`, which Rust's
//! `Instant` reads on Linux, would say that no time has passed. The **wall** clock serves schedules and whoever reads
//! logs; no lease, timeout or order rests on it.
//!
//! # Invariants
//! - `mono_us` never falls within one boot of the machine, whatever is done to the wall clock.
//! - Nothing outside this file reads a clock (`clippy.toml` forbids the standard ones). Waiting for a duration, as
//!   tokio's timers do, is no reading.
//!
//! # Caveats
//! - tokio's timers stand still during a suspension. They only wake tasks, which then read this clock.
//! - Instants of different machines, or of different boots, do not compare.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::ids::Now;

/// Microseconds on the monotonic clock. Only differences mean anything.
pub fn mono_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    seconds(time) * 1_000_000 + nanoseconds(time) / 1_000
}

/// Milliseconds since 1970 on the wall clock; 0 where it is set to an earlier time.
pub fn wall_ms() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    seconds(time) * 1_000 + nanoseconds(time) / 1_000_000
}

/// Both clocks, as a pure module gets to know them.
pub fn now() -> Now {
    Now { mono_us: mono_us(), wall_ms: wall_ms() }
}

fn seconds(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0)
}

fn nanoseconds(time: Timespec) -> u64 {
    u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_counts_microseconds() {
        let before = mono_us();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let passed = mono_us() - before;
        assert!((20_000..2_000_000).contains(&passed), "{passed} us for a sleep of 20 ms");
    }

    #[test]
    fn the_wall_clock_counts_milliseconds_since_1970() {
        // Between 2020 and 2100, so neither seconds nor microseconds.
        assert!((1_577_836_800_000..4_102_444_800_000).contains(&wall_ms()), "{}", wall_ms());
    }
}
