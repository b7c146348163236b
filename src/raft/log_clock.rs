//! Log time: the clock that leases and visibility timeouts expire by.
//!
//! The leader stamps each entry with the highest stamp that it has seen plus what its *monotonic* clock has counted
//! since it saw it, and never with less than the last. So time passes at the speed of one clock, does not jump with a wall clock,
//! and goes on at a new leader where the old one left it, late by a message's delay at most, never early.
//!
//! A replica that only follows re-anchors at each higher stamp rather than keeping the highest *sum*: keeping it would let a
//! clock that is 1 % fast run ahead for as long as its node follows, and expire leases early when it leads.
//!
//! With the first word of a leader of a *newer* term it re-anchors at that leader's log time even where that is lower. A
//! deposed leader may have stamped entries that were never committed, later in log time than where its successor went on (who
//! had not heard of them, or was down and did not count): leases that the successor grants are counted from its own stamps,
//! and would end early under a later leader who still remembered the higher ones.

use crate::ids::{Now, Term};

use super::message::Entry;

/// Where log time stands, as seen from one node.
#[derive(Clone, Debug)]
pub(super) struct LogClock {
    /// Log time at `anchor_mono_us`, in microseconds so that frequent stamps lose no fractions.
    anchor_stamp_us: u64,
    anchor_mono_us: u64,
    /// The leader's term that the anchor is of.
    anchor_term: Term,
    /// The highest stamp seen or given since the anchor's term began.
    highest_stamp_ms: u64,
    /// The highest wall stamp seen or given.
    highest_wall_ms: u64,
}

impl LogClock {
    /// A clock that goes on at the stamps that were found on disk.
    pub(super) fn new(now: Now, stamp_ms: u64, wall_ms: u64) -> Self {
        let anchor_stamp_us = stamp_ms.saturating_mul(1000);
        let (anchor_mono_us, anchor_term) = (now.mono_us, 0);
        Self { anchor_stamp_us, anchor_mono_us, anchor_term, highest_stamp_ms: stamp_ms, highest_wall_ms: wall_ms }
    }

    /// The log time at `now`.
    pub(super) fn now_ms(&self, now: Now) -> u64 {
        let elapsed_us = now.mono_us.saturating_sub(self.anchor_mono_us);
        self.highest_stamp_ms.max(self.anchor_stamp_us.saturating_add(elapsed_us) / 1000)
    }

    /// The log time at `now`, as told to others: from here on no stamp may be lower.
    pub(super) fn stamp(&mut self, now: Now) -> u64 {
        self.highest_stamp_ms = self.now_ms(now);
        self.highest_stamp_ms
    }

    /// The wall stamp at `now`.
    pub(super) fn wall(&mut self, now: Now) -> u64 {
        self.highest_wall_ms = self.highest_wall_ms.max(now.wall_ms);
        self.highest_wall_ms
    }

    /// A stamp of the leader of that term arrived.
    pub(super) fn observe(&mut self, now: Now, term: Term, stamp_ms: u64) {
        if term > self.anchor_term || stamp_ms > self.highest_stamp_ms {
            self.anchor_term = self.anchor_term.max(term);
            self.highest_stamp_ms = stamp_ms;
            self.anchor_stamp_us = stamp_ms.saturating_mul(1000);
            self.anchor_mono_us = now.mono_us;
        }
    }

    /// This replica leads from here on, with a log that ends at that stamp.
    pub(super) fn lead(&mut self, now: Now, term: Term, last_stamp_ms: u64) {
        self.anchor_term = term;
        if last_stamp_ms > self.now_ms(now) {
            self.observe(now, term, last_stamp_ms);
        }
    }

    /// An entry arrived; both its stamps bind later ones.
    pub(super) fn observe_entry(&mut self, now: Now, term: Term, entry: &Entry) {
        self.observe(now, term, entry.stamp_ms);
        self.highest_wall_ms = self.highest_wall_ms.max(entry.wall_ms);
    }

    /// A snapshot arrived; as [`LogClock::observe_entry`].
    pub(super) fn observe_wall(&mut self, wall_ms: u64) {
        self.highest_wall_ms = self.highest_wall_ms.max(wall_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_us: u64, wall_ms: u64) -> Now {
        Now { mono_us, wall_ms }
    }

    #[test]
    fn stamps_follow_the_monotonic_clock_from_where_they_were() {
        let mut clock = LogClock::new(at(7_000_000, 0), 500, 0);
        assert_eq!(clock.stamp(at(7_000_000, 0)), 500);
        assert_eq!(clock.stamp(at(7_250_999, 0)), 750);
        assert_eq!(clock.stamp(at(7_251_000, 0)), 751);
    }

    #[test]
    fn many_stamps_within_a_millisecond_lose_no_time() {
        let mut clock = LogClock::new(at(0, 0), 0, 0);
        for step in 1..=10_000 {
            clock.stamp(at(step * 300, 0));
        }
        assert_eq!(clock.stamp(at(3_000_000, 0)), 3_000);
    }

    #[test]
    fn a_monotonic_clock_that_jumps_back_does_not_lower_a_stamp() {
        let mut clock = LogClock::new(at(1_000_000, 0), 0, 0);
        assert_eq!(clock.stamp(at(2_000_000, 0)), 1_000);
        assert_eq!(clock.stamp(at(500_000, 0)), 1_000);
    }

    #[test]
    fn a_fast_follower_does_not_run_ahead_of_its_leader() {
        let mut clock = LogClock::new(at(0, 0), 0, 0);
        // This clock counts two seconds for each second of the leader's, for ten rounds.
        for round in 1..=10 {
            clock.observe(at(round * 2_000_000, 0), 1, round * 1_000);
        }
        assert_eq!(clock.now_ms(at(20_000_000, 0)), 10_000);
        assert_eq!(clock.now_ms(at(20_100_000, 0)), 10_100);
    }

    #[test]
    fn an_older_stamp_changes_nothing() {
        let mut clock = LogClock::new(at(0, 0), 900, 0);
        clock.observe(at(0, 0), 1, 900);
        clock.observe(at(100_000, 0), 1, 400);
        assert_eq!(clock.now_ms(at(100_000, 0)), 1_000);
    }

    #[test]
    fn a_new_leader_may_be_behind_the_stamps_of_the_one_before() {
        let mut clock = LogClock::new(at(0, 0), 900, 0);
        clock.observe(at(100_000, 0), 2, 400);
        assert_eq!(clock.now_ms(at(150_000, 0)), 450);
        // But no stamp of ours is below the last entry of our own log.
        clock.lead(at(200_000, 0), 3, 700);
        assert_eq!(clock.stamp(at(200_000, 0)), 700);
        assert_eq!(clock.stamp(at(300_000, 0)), 800);
    }

    #[test]
    fn the_wall_stamp_never_falls() {
        let mut clock = LogClock::new(at(0, 0), 0, 1_700);
        assert_eq!(clock.wall(at(0, 1_600)), 1_700);
        assert_eq!(clock.wall(at(0, 1_800)), 1_800);
        clock.observe_wall(2_000);
        assert_eq!(clock.wall(at(0, 1_900)), 2_000);
    }

    #[test]
    fn absurd_stamps_do_not_overflow() {
        let mut clock = LogClock::new(at(0, 0), 0, 0);
        clock.observe(at(5, 0), 1, u64::MAX);
        assert_eq!(clock.stamp(at(u64::MAX, 0)), u64::MAX);
    }
}
