//! What a run counts on its way, for its report.

use std::collections::BTreeMap;

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) answered: u64,
    pub(crate) failed: BTreeMap<&'static str, u64>,
    pub(crate) leader_changes_under_load: u64,
    pub(crate) read_hits: u64,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Messages that arrived, by the numbers of their kinds; as long as the highest that did.
    pub(crate) delivered: Vec<u64>,
}

impl Counts {
    /// A message of that kind arrived.
    pub(crate) fn delivered(&mut self, kind: usize) {
        self.delivered.resize(self.delivered.len().max(kind + 1), 0);
        self.delivered[kind] += 1;
    }
}
