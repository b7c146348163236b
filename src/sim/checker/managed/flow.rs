//! Whether messages come in and go out of a queue, as far as who was told of it knows.

use std::collections::BTreeMap;

use trine_protocol::queue::Flow;

use crate::sim::checker::Verdict;

/// Everything that was asked of one queue's flow and not refused. It begins open.
#[derive(Debug, Default)]
pub(super) struct Flows {
    changes: BTreeMap<u64, Change>,
}

#[derive(Debug)]
struct Change {
    flow: Flow,
    sent_us: u64,
    /// When it was known to be done; None while it may be, at any time.
    done_us: Option<u64>,
}

impl Flows {
    /// A change was sent.
    pub(super) fn sent(&mut self, number: u64, flow: Flow, sent_us: u64) {
        self.changes.insert(number, Change { flow, sent_us, done_us: None });
    }

    /// It is known what became of a change.
    pub(super) fn ended(&mut self, number: u64, now_us: u64, verdict: &Verdict) {
        match verdict {
            Verdict::Answered(_) => {
                let change = self.changes.get_mut(&number).expect("noted when it was sent");
                change.done_us = Some(now_us);
            }
            Verdict::NotExecuted(_) => drop(self.changes.remove(&number)),
            Verdict::Unknown => {}
        }
    }

    /// Whether the queue flows so during all of that time, for certain.
    pub(super) fn is(&self, flow: Flow, from_us: u64, to_us: u64) -> bool {
        let holds = |set: &Change| {
            let elsewhere = |other: &Change| {
                other.flow == flow
                    || other.sent_us > to_us
                    || other.done_us.is_some_and(|done_us| done_us < set.sent_us)
            };
            set.flow == flow
                && set.done_us.is_some_and(|done_us| done_us < from_us)
                && self.changes.values().all(elsewhere)
        };
        self.changes.values().any(holds)
    }

    /// Whether the queue may flow so at some instant of that time.
    pub(super) fn may_be(&self, flow: Flow, from_us: u64, to_us: u64) -> bool {
        let replaced = |since_us: u64| {
            let by = |other: &Change| {
                other.flow != flow && other.sent_us > since_us && other.done_us.is_some_and(|done_us| done_us < from_us)
            };
            self.changes.values().any(by)
        };
        let asked = self.changes.values().filter(|set| set.flow == flow && set.sent_us <= to_us);
        let begins = flow == Flow::Open
            && !self
                .changes
                .values()
                .any(|other| other.flow != flow && other.done_us.is_some_and(|done_us| done_us < from_us));
        begins || asked.into_iter().any(|set| set.done_us.is_none_or(|done_us| !replaced(done_us)))
    }
}
