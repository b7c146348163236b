//! Which messages still need their bodies, for whoever keeps these.
//!
//! A body is stored once, in the log entry that is its message's id, so what is live here says which entries' data must outlive the log.

use crate::ids::Index;

use super::State;

impl State {
    /// The first `count` messages alive whose bodies stand in the log in (after, through], in order.
    pub fn next_live_bodies(&self, after: Index, through: Index, count: usize) -> Vec<Index> {
        self.table.ids(after, through).take(count).collect()
    }
}
