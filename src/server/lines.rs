//! The tables of lines that readers see: the cache's hit path, shared between connections and replicas.
//!
//! Each group has 16 tables, each under a lock of its own; the hash of a key says which. A replica's task changes
//! them before anything else of the same effects leaves the node; a connection's task looks a key up in one of them,
//! lets the lock go, and reads the clock after that. No lock is held across an await, and none while another is taken.
//!
//! # Invariants
//! - A line and the lease that it is judged by are in the same table: a change of lease reaches each table as a whole.
//!   Between two tables it arrives at different moments, which no reader of one key can tell.
//! - When [`SharedLines::apply`] returns, no reader that looks up later sees what was retracted.
//!
//! # Caveats
//! - A reader that has looked up a line, and only then reads the clock, may answer a value that is retracted in between.
//!   That is a read that took place before the retraction, and is linearizable: the write that asked for the
//!   retraction has not been acknowledged at that moment.

use std::sync::{Mutex, MutexGuard, PoisonError};

use trine_protocol::placement;

use crate::cache::{ByState, Found, LineChange, Lines};
use crate::ids::GroupId;

/// Tables of one group: with a few dozen threads two rarely want the same one.
const SHARDS: usize = 16;

/// The lines of all groups on this node.
#[derive(Debug)]
pub struct SharedLines {
    groups: Vec<[Mutex<Lines>; SHARDS]>,
}

impl SharedLines {
    /// Empty tables for groups 0 to `groups` - 1.
    pub fn new(groups: u32) -> Self {
        Self { groups: (0..groups).map(|_| Default::default()).collect() }
    }

    /// Makes changes in their order.
    ///
    /// # Panics
    /// For a group that does not exist: replicas are made for existing ones only.
    pub fn apply(&self, group: GroupId, changes: Vec<LineChange>) {
        let shards = &self.groups[group.0 as usize];
        for change in changes {
            match &change {
                LineChange::Put(key, _) | LineChange::Drop(key) => lock(&shards[shard_of(key)]).apply(change),
                LineChange::DropAll | LineChange::Lease(..) => {
                    shards.iter().for_each(|shard| lock(shard).apply(change.clone()));
                }
            }
        }
    }

    /// The line of a key, if it hangs on the current lease. Read the clock after this, and see [`Found::is_valid_at`].
    pub fn find(&self, group: GroupId, key: &str) -> Option<Found> {
        lock(&self.groups.get(group.0 as usize)?[shard_of(key)]).find(key)
    }

    /// How many lines a group has here in each state, served or not.
    pub fn by_state(&self, group: GroupId) -> ByState {
        let mut sum = ByState::default();
        for shard in self.groups.get(group.0 as usize).into_iter().flatten() {
            let ByState { modified, exclusive, shared } = lock(shard).by_state();
            sum.modified += modified;
            sum.exclusive += exclusive;
            sum.shared += shared;
        }
        sum
    }
}

/// A poisoned lock means that a panic hit another thread; every change of a table is a single step, so it is whole.
fn lock(shard: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shard_of(key: &str) -> usize {
    (placement::hash(key.as_bytes()) % SHARDS as u64) as usize
}

#[cfg(test)]
mod tests {
    use trine_protocol::cache::{LineState, Version};

    use crate::cache::{LeaseTag, Line, Versioned, Visits};

    use super::*;

    const GROUP: GroupId = GroupId(1);

    fn tag(number: u64) -> LeaseTag {
        LeaseTag { term: 1, number }
    }

    fn put(key: &str, number: u64) -> LineChange {
        let value = Versioned::new(Version::default(), Some("v".into()));
        LineChange::Put(
            key.to_owned(),
            Line { state: LineState::S, value, tag: tag(number), visits: Visits::default() },
        )
    }

    #[test]
    fn a_lease_reaches_every_shard_and_a_new_one_ends_the_lines_of_the_old() {
        let lines = SharedLines::new(2);
        let keys: Vec<String> = (0..200).map(|n| format!("key{n}")).collect();
        let shards: std::collections::BTreeSet<usize> = keys.iter().map(|key| shard_of(key)).collect();
        assert_eq!(shards.len(), SHARDS, "the keys of this test reach every shard");

        lines.apply(GROUP, vec![LineChange::Lease(tag(1), 500)]);
        lines.apply(GROUP, keys.iter().map(|key| put(key, 1)).collect());
        assert_eq!(lines.by_state(GROUP), ByState { shared: 200, ..ByState::default() });
        assert!(keys.iter().all(|key| lines.find(GROUP, key).is_some_and(|found| found.until_us == 500)));
        assert!(keys.iter().all(|key| lines.find(GroupId(0), key).is_none()), "groups are apart");

        lines.apply(GROUP, vec![LineChange::Lease(tag(2), 900), put("key7", 2)]);
        assert_eq!(keys.iter().filter(|key| lines.find(GROUP, key).is_some()).count(), 1);
        lines.apply(GROUP, vec![LineChange::DropAll]);
        assert_eq!(lines.by_state(GROUP), ByState::default());
    }

    #[test]
    fn a_group_that_does_not_exist_has_no_lines() {
        assert_eq!(SharedLines::new(1).find(GroupId(9), "key"), None);
    }
}
