//! Keys that go by themselves. Their time is counted by the log, and their end is a transaction like a write: nobody serves the value any more when
//! it is through, and until then everybody does. So no clock of a node decides, and no two nodes disagree.

use crate::cache::memory::Memory;
use crate::cache::message::LeaseTag;
use crate::marks::{Rare, mark};
use crate::rules::Rules;

use super::{Home, HomeOut, Job, Standing, Want};

/// Keys that one tick begins to remove; the others wait for the next.
const EXPIRIES_MAX: usize = 256;

impl<R: Rules> Home<R> {
    /// Begins to remove what has lived long enough.
    pub(super) fn expire(&mut self, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        if !self.may_act(standing) || !self.is_active(memory, standing) {
            return;
        }
        let due: Vec<String> = memory.expired(standing.log_ms).take(EXPIRIES_MAX).cloned().collect();
        for key in due {
            let version = memory.stored(&key).version;
            let job = Job { node: self.node, request: 0, tag: LeaseTag::default(), want: Want::Expire(version) };
            let entry = self.directory.entry(key.clone()).or_default();
            let known = entry.transaction.as_ref().is_some_and(|transaction| transaction.job.repeats(&job))
                || entry.waiting.iter().any(|other| other.repeats(&job));
            if !known {
                mark(Rare::KeyExpires);
                entry.waiting.push_back(job);
                self.advance(&key, memory, standing, out);
            }
        }
    }
}
