//! The hand-off record: how the last grant of a lock ended, and what its holder left, for whoever comes next.
//!
//! A grant that was given back and left nothing leaves no record, so an idle lock costs nothing. The others leave one each, until the
//! next end of a grant of the same lock; where there are too many, the oldest goes. "Nothing is known" therefore means: never held, or
//! given back in order, or long ago.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trine_protocol::lock::Ending;

use super::state::State;
use super::stored::Record;

/// How a grant ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Past {
    pub(super) ending: Ending,
    pub(super) client: String,
    pub(super) token: u64,
    pub(super) left: Vec<u8>,
    /// Log time of the end.
    pub(super) ended_ms: u64,
}

/// What is known of grants that ended.
#[derive(Clone, Debug, Default)]
pub(super) struct PastGrants {
    table: BTreeMap<Arc<str>, Past>,
    by_end: BTreeSet<(u64, u64, Arc<str>)>,
}

impl PastGrants {
    pub(super) fn get(&self, lock: &str) -> Option<&Past> {
        self.table.get(lock)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Past)> {
        self.table.iter()
    }

    pub(super) fn insert(&mut self, lock: Arc<str>, past: Past) {
        self.remove(&lock);
        self.by_end.insert((past.ended_ms, past.token, Arc::clone(&lock)));
        self.table.insert(lock, past);
    }

    fn remove(&mut self, lock: &Arc<str>) {
        if let Some(past) = self.table.remove(lock) {
            self.by_end.remove(&(past.ended_ms, past.token, Arc::clone(lock)));
        }
    }
}

impl State {
    /// Keeps how a grant ended.
    pub(super) fn remember(&mut self, lock: &Arc<str>, past: Past) {
        self.touch(Record::Past(Arc::clone(lock)));
        self.past.insert(Arc::clone(lock), past);
        while self.past.len() > self.bounds.past_max {
            let Some((_, _, oldest)) = self.past.by_end.first().cloned() else { return };
            self.forget(&oldest);
        }
    }

    /// The last grant ended in order and left nothing.
    pub(super) fn forget(&mut self, lock: &Arc<str>) {
        if self.past.get(lock).is_some() {
            self.touch(Record::Past(Arc::clone(lock)));
            self.past.remove(lock);
        }
    }
}
