//! What one node's lines of a group amount to, kept as they change, as plain numbers that the shell turns into metrics.
//! Nothing here decides anything.

use std::collections::BTreeMap;

use crate::cache::change::Change;

use super::Agent;
use super::slot::State;
use crate::rules::Rules;

/// What an agent has done since it was made, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of keys and values of the lines.
    pub bytes: u64,
    /// Values of this node that main memory lacks.
    pub dirty_lines: u64,
    /// Bytes of those values.
    pub dirty_bytes: u64,
    /// Since when the oldest of them is dirty, in microseconds of the node's monotonic clock. What a restarted node found in
    /// its journal has no such instant.
    pub dirty_since_us: Option<u64>,
    /// What was done.
    pub counts: Counts,
}

/// What an agent has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Dirty values that main memory has taken.
    pub write_backs: u64,
    /// Lines that went because others needed their room.
    pub evictions: u64,
    /// Bus leases that ended before they were renewed.
    pub lapses: u64,
    /// Copies that were compared with what the home has.
    pub audits: u64,
    /// Copies that were served and were not what the home had.
    pub violations: u64,
    /// Local writes that were discarded because the ownership had been taken away before they were written back.
    pub lost: u64,
}

/// The dirty values, summed up.
#[derive(Clone, Debug, Default)]
pub(super) struct Dirty {
    lines: u64,
    bytes: u64,
    /// How many are dirty since which instant.
    since_us: BTreeMap<u64, u64>,
}

/// One dirty value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirtyValue {
    pub(super) bytes: usize,
    pub(super) since_us: Option<u64>,
}

impl Dirty {
    /// Whether there is no room for another change among what main memory lacks.
    pub(super) fn exceeds(&self, bytes_max: u64, change: &Change) -> bool {
        self.bytes + change.bytes() as u64 > bytes_max
    }

    /// What was dirty in one line is that no more; what is dirty in it now is this.
    pub(super) fn change(&mut self, before: Option<DirtyValue>, after: Option<DirtyValue>) {
        if before == after {
            return;
        }
        if let Some(DirtyValue { bytes, since_us }) = before {
            self.lines -= 1;
            self.bytes -= bytes as u64;
            if let Some(since_us) = since_us {
                let count = self.since_us.get_mut(&since_us).expect("what goes had come");
                *count -= 1;
                if *count == 0 {
                    self.since_us.remove(&since_us);
                }
            }
        }
        if let Some(DirtyValue { bytes, since_us }) = after {
            self.lines += 1;
            self.bytes += bytes as u64;
            if let Some(since_us) = since_us {
                *self.since_us.entry(since_us).or_default() += 1;
            }
        }
    }
}

impl<R: Rules> Agent<R> {
    /// What it holds, and what it has done. Takes no time in proportion to the lines.
    pub fn stats(&self) -> Stats {
        Stats {
            bytes: self.order.bytes() as u64,
            dirty_lines: self.dirty.lines,
            dirty_bytes: self.dirty.bytes,
            dirty_since_us: self.dirty.since_us.keys().next().copied(),
            counts: self.counts,
        }
    }

    /// Checks the sums against a recount.
    ///
    /// # Panics
    /// Where they differ: that is a bug of this module. Takes time in proportion to the lines; for tests and the simulator.
    pub fn check_stats(&self) {
        let mut dirty = Dirty::default();
        let (mut lines, mut bytes) = (0, 0);
        for (key, slot) in &self.slots {
            dirty.change(None, slot.state.dirty_value());
            let its = slot.state.line_bytes(key);
            assert_eq!(slot.place.map(|place| self.order.line(place)), its.map(|its| (key.as_str(), its)), "its place");
            (lines, bytes) = (lines + usize::from(its.is_some()), bytes + its.unwrap_or(0));
        }
        self.order.check();
        assert_eq!((self.order.lines(), self.order.bytes()), (lines, bytes), "lines and their bytes");
        let sums = |dirty: &Dirty| (dirty.lines, dirty.bytes, dirty.since_us.clone());
        assert_eq!(sums(&self.dirty), sums(&dirty), "dirty lines, bytes and instants");
    }
}

impl State {
    /// The value in it that main memory lacks, as far as this node knows.
    pub(super) fn dirty_value(&self) -> Option<DirtyValue> {
        match self {
            Self::Owned(owned) if owned.dirty() => {
                Some(DirtyValue { bytes: self.bytes(), since_us: Some(owned.dirty_since_us) })
            }
            Self::Leaving(leaving) if leaving.dirty => {
                Some(DirtyValue { bytes: self.bytes(), since_us: leaving.dirty_since_us })
            }
            _ => None,
        }
    }
}
