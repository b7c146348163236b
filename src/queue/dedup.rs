//! Which messages were enqueued under which id, so that a second one with the same id is not taken.
//!
//! An id is remembered for the queue's window, in wall time, from the message that had it first. It is remembered although that message is
//! acknowledged meanwhile, and although its queue is gone: that is what it is for. The table is in the snapshot.
//!
//! # Caveats
//! - Where the wall clock of a new leader is ahead, ids are forgotten earlier by so much.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trine_protocol::{Error, ErrorCode};

use super::stored::{self, Kind};
use super::tracked::Tracked;
use crate::ids::Index;
use crate::record::{self, BadRecord, Change};

/// Ids of one group that are remembered; a message with another one gets `Overloaded`. Each takes some 300 bytes.
pub const DEDUP_IDS_MAX: usize = 1_000_000;

/// One id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) queue: String,
    pub(super) id: String,
    /// Wall time at which it is forgotten.
    pub(super) until_ms: u64,
}

/// The ids of one group.
#[derive(Clone, Debug, Default)]
pub(super) struct Dedup {
    /// By the message that had it first.
    by_message: Tracked<Index, Remembered>,
    by_name: BTreeMap<(String, String), Index>,
    due: BTreeSet<(u64, Index)>,
}

impl Dedup {
    /// The message of that queue that had this id first.
    pub(super) fn find(&self, queue: &str, id: &str) -> Option<Index> {
        if id.is_empty() || self.by_name.is_empty() {
            return None;
        }
        self.by_name.get(&(queue.to_owned(), id.to_owned())).copied()
    }

    pub(super) fn check_room(&self, id: &str) -> Result<(), Error> {
        if id.is_empty() || self.by_message.len() < DEDUP_IDS_MAX {
            return Ok(());
        }
        let message = format!("the group remembers {DEDUP_IDS_MAX} ids of messages, as many as it may");
        Err(Error::new(ErrorCode::Overloaded, message).retry_after(1_000))
    }

    pub(super) fn remember(&mut self, message: Index, remembered: Remembered) {
        self.index(message, &remembered);
        self.by_message.insert(message, remembered);
    }

    fn index(&mut self, message: Index, remembered: &Remembered) {
        self.by_name.insert((remembered.queue.clone(), remembered.id.clone()), message);
        self.due.insert((remembered.until_ms, message));
    }

    /// Forgets up to `count_max` ids whose window is over.
    pub(super) fn forget(&mut self, wall_ms: u64, count_max: usize) {
        for _ in 0..count_max {
            let Some(&(until_ms, message)) = self.due.first().filter(|(until_ms, _)| *until_ms <= wall_ms) else {
                return;
            };
            self.due.remove(&(until_ms, message));
            let Remembered { queue, id, .. } = self.by_message.remove(&message).expect("what is due is remembered");
            self.by_name.remove(&(queue, id));
        }
    }

    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.due.first().map(|(until_ms, _)| *until_ms)
    }

    pub(super) fn len(&self) -> usize {
        self.by_message.len()
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        self.by_message.take_changes(|message| stored::side_key(Kind::Dedup, *message), record::encode)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        self.by_message.records(|message| stored::side_key(Kind::Dedup, *message), record::encode)
    }

    pub(super) fn restore(&mut self, key: &[u8], message: Index, remembered: Remembered) -> Result<(), BadRecord> {
        if self.by_name.contains_key(&(remembered.queue.clone(), remembered.id.clone())) {
            return Err(BadRecord { key: key.to_vec(), why: format!("id '{}' is there twice", remembered.id) });
        }
        self.index(message, &remembered);
        self.by_message.put_back(message, remembered);
        Ok(())
    }

    /// See [`super::State::check_invariants`].
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.by_name.len(), self.by_message.len(), "ids by name and by message");
        assert_eq!(self.due.len(), self.by_message.len(), "ids that are forgotten some time");
        for (message, Remembered { queue, id, until_ms }) in self.by_message.iter() {
            assert_eq!(self.by_name.get(&(queue.clone(), id.clone())), Some(message), "id {id} of queue {queue}");
            assert!(self.due.contains(&(*until_ms, *message)), "id {id} of queue {queue} is remembered for ever");
        }
    }
}
