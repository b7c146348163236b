//! How a node's bound on memory is divided.
//!
//! `--memory-mb` sizes everything that takes memory to be fast, and everything that waits to be written. What is *state* takes what it
//! takes: a node that refused to remember a lock would be wrong, not slow.
//!
//! | part of the bound | what | at most |
//! | --- | --- | --- |
//! | 1/16 | what sled caches; it takes several times as much | 64 MiB |
//! | 1/4, over the groups | the cache's lines on this node | 64 MiB a group |
//! | 1/4, over the groups | values that main memory lacks (dirty lines) | 64 MiB a group |
//! | 1/4, over the groups | a leader's proposals that are not committed | 32 MiB a group |
//! | 1/8, over the groups | entries applied since the last checkpoint | 8 MiB a group |
//! | 1/16, over the groups | entries that stay in the log after it, for followers a little behind | 4 MiB a group |
//!
//! The parts are not all full at once: a node that is written to that fast has no memory for lines that are only read.
//!
//! # Caveats
//! - Not bounded: the index of messages (35 bytes for one that waits), locks, sessions, the cache's main memory
//!   ([`memory_bytes_max`](crate::cache::Config) a group), and a snapshot that is on its way to a follower, which is a whole group's state
//!   with the bodies of its queues.
//! - The allocator keeps some of what was freed.

use crate::node::Timing;
use crate::storage::{StateOptions, StorageOptions};

const MIB: u64 = 1024 * 1024;
/// Bytes of proposals that a group takes at least: a few messages of the largest size.
const UNCOMMITTED_BYTES_MIN: u64 = 8 * MIB;

/// A node's bound on memory, and over how many groups it is divided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    bytes: u64,
    groups: u64,
}

impl Budget {
    pub(super) fn new(memory_mb: u32, groups: u32) -> Self {
        Self { bytes: u64::from(memory_mb) * MIB, groups: u64::from(groups.max(1)) }
    }

    /// A part of the bound for each group.
    fn of_group(self, divisor: u64, most: u64) -> u64 {
        (self.bytes / divisor / self.groups).min(most)
    }

    /// What the storage is opened with.
    pub(super) fn storage(self) -> StorageOptions {
        let cache_bytes = (self.bytes / 16).min(64 * MIB);
        StorageOptions { state: StateOptions { cache_bytes, ..StateOptions::default() }, ..StorageOptions::default() }
    }

    /// Divides it among what a replica bounds.
    pub(super) fn divide(self, timing: &mut Timing) {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        timing.checkpoint_bytes = bytes(self.of_group(8, 8 * MIB));
        timing.retain_bytes = bytes(self.of_group(16, 4 * MIB));
        timing.uncommitted_bytes_max = bytes(self.of_group(4, 32 * MIB).max(UNCOMMITTED_BYTES_MIN));
        timing.cache.lines_bytes_max = bytes(self.of_group(4, 64 * MIB));
        timing.cache.dirty_bytes_max = self.of_group(4, 64 * MIB);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{GROUPS_DEFAULT, MEMORY_MB_DEFAULT};

    use super::*;

    #[test]
    fn the_default_bound_gives_every_part_its_most() {
        let (mut timing, standard) = (Timing::default(), Timing::default());
        let budget = Budget::new(MEMORY_MB_DEFAULT, GROUPS_DEFAULT);
        budget.divide(&mut timing);
        assert_eq!(format!("{timing:?}"), format!("{standard:?}"));
        assert_eq!(budget.storage().state.cache_bytes, StateOptions::default().cache_bytes);
    }

    #[test]
    fn a_small_bound_is_divided_over_the_groups() {
        let mut timing = Timing::default();
        Budget::new(128, 8).divide(&mut timing);
        assert_eq!((timing.checkpoint_bytes, timing.retain_bytes), (2 * 1024 * 1024, 1024 * 1024));
        assert_eq!((timing.cache.lines_bytes_max, timing.uncommitted_bytes_max), (4 * 1024 * 1024, 8 * 1024 * 1024));
    }
}
