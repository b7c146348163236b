//! For how long a message lives, by clocks that are wrong.
//!
//! A time to live is counted in the log's wall time: the highest reading of any leader so far. So it never runs backwards; it stands
//! still, or leaps, by as much as two clocks differ at the very most.

use crate::sim::checker::lasts_us;
use crate::sim::swarm::RATE_PPM_MAX;

/// Two readings are cut to milliseconds.
const ROUNDING_US: u64 = 2_000;

/// How far wall clocks are wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walls {
    /// Furthest, either way, beside what comes of their speeds since the run began.
    pub(super) error_us: u64,
}

impl Walls {
    /// By how much the time between two instants may be wrong, read from two clocks.
    fn doubt_us(self, from_us: u64, to_us: u64) -> u64 {
        2 * self.error_us + (from_us + to_us) * RATE_PPM_MAX / 1_000_000 + ROUNDING_US
    }
}

/// What ends a message's life, if anything does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lives {
    /// When its enqueue was sent.
    pub(super) sent_us: u64,
    /// When it was known to be taken.
    pub(super) known_us: Option<u64>,
    /// 0 for no end.
    pub(super) ttl_ms: u64,
    /// The policy's bound on the age; 0 for none.
    pub(super) age_ms_max: u64,
}

impl Lives {
    /// Whether its time to live is over for certain, for an entry that is made at that time or later. Of the age nothing is
    /// certain: log time may stand still.
    pub(super) fn is_over(&self, walls: Walls, at_us: u64) -> bool {
        let Some(known_us) = self.known_us.filter(|_| self.ttl_ms > 0) else { return false };
        at_us >= known_us + walls.doubt_us(known_us, at_us) + self.ttl_ms * 1_000
    }

    /// Whether it may be over by that time.
    pub(super) fn may_be_over(&self, walls: Walls, at_us: u64) -> bool {
        let by_ttl =
            self.ttl_ms > 0 && at_us + walls.doubt_us(self.sent_us, at_us) >= self.sent_us + self.ttl_ms * 1_000;
        let by_age = self.age_ms_max > 0 && at_us >= self.sent_us + lasts_us(self.age_ms_max as u32);
        by_ttl || by_age
    }
}
