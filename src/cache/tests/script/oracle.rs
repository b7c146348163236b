//! What a register may answer: no read sees less than what was complete when it began.

use std::collections::BTreeMap;

use bytes::Bytes;
use trine_protocol::cache::{LineState, Version};
use trine_protocol::{Error, Response};

use crate::cache::{Lines, Versioned};

/// An operation that is not answered.
struct Waiting {
    node: usize,
    key: String,
    /// The newest version of the key that was complete when it began.
    floor: Version,
    /// What it writes, where it does.
    value: Option<Option<Bytes>>,
}

/// Keys, and what is known of them.
#[derive(Default)]
pub(super) struct Oracle {
    complete: BTreeMap<String, Version>,
    values: BTreeMap<(String, Version), Option<Bytes>>,
    waiting: BTreeMap<u64, Waiting>,
}

impl Oracle {
    pub(super) fn learn(&mut self, key: &str) {
        self.complete.entry(key.to_owned()).or_default();
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.complete.keys().cloned().collect()
    }

    pub(super) fn asked(&mut self, caller: u64, node: usize, key: &str, value: Option<Option<Bytes>>) {
        let floor = self.complete.get(key).copied().unwrap_or_default();
        self.waiting.insert(caller, Waiting { node, key: key.to_owned(), floor, value });
    }

    pub(super) fn is_waiting(&self, caller: u64) -> bool {
        self.waiting.contains_key(&caller)
    }

    /// The node that a client waits at, which it leaves.
    pub(super) fn give_up(&mut self, caller: u64) -> Option<usize> {
        self.waiting.remove(&caller).map(|waiting| waiting.node)
    }

    /// A node is gone, and its clients with it.
    pub(super) fn forget(&mut self, node: usize) {
        self.waiting.retain(|_, waiting| waiting.node != node);
    }

    pub(super) fn hit(&mut self, key: &str, value: &Versioned) {
        let floor = self.complete.get(key).copied().unwrap_or_default();
        self.saw(key, floor, value.version, value.value.clone());
    }

    pub(super) fn answered(&mut self, caller: u64, result: &Result<Response, Error>) {
        let Some(Waiting { key, floor, value, .. }) = self.waiting.remove(&caller) else { return };
        match result {
            Ok(Response::Get(got)) => self.saw(&key, floor, got.version, got.value.clone()),
            Ok(Response::Put(written)) => {
                assert!(written.version > floor, "a write of {key} is {:?}, not after {floor:?}", written.version);
                self.saw(&key, floor, written.version, value.flatten());
            }
            _ => {}
        }
    }

    fn saw(&mut self, key: &str, floor: Version, version: Version, value: Option<Bytes>) {
        assert!(version >= floor, "{key}: {version:?} is seen after {floor:?}");
        if value.is_some() {
            let known = self.values.entry((key.to_owned(), version)).or_insert_with(|| value.clone());
            assert_eq!(*known, value, "two values of {key} are {version:?}");
        }
        let complete = self.complete.entry(key.to_owned()).or_default();
        *complete = version.max(*complete);
    }

    /// Of the lines that may be served at this instant, one in M is the only one.
    pub(super) fn one_writer_or_many_readers<'a>(&self, nodes: impl Iterator<Item = (&'a Lines, u64)> + Clone) {
        for key in self.complete.keys() {
            let found = nodes.clone().filter_map(|(lines, now_us)| lines.peek(key).filter(|it| it.is_valid_at(now_us)));
            let states: Vec<LineState> = found.map(|found| found.line.state).collect();
            assert!(!states.contains(&LineState::M) || states.len() == 1, "{key} is {states:?}");
        }
    }
}
