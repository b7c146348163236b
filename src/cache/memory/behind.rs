//! Main memory that lies in front of Redis.
//!
//! Then this has what Redis may lack, and no more: keys that somebody owns, and values and absences on their way there. The rest is in Redis alone.
//! Whether it is so is part of the state, so that every replica keeps and forgets the same.

use std::collections::BTreeSet;

use trine_protocol::cache::Version;

use crate::record::{self, Change, prefix};

use super::{Applied, Cell, Memory, Remove};

/// The record that says so; between the generation and the bus's members.
pub(super) const BEHIND_KEY: &[u8] = &[prefix::META, b'm', b'a', b'i', b'n'];

/// Whether there is a Redis behind, and what it lacks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Behind {
    on: bool,
    changed: bool,
    /// What Redis lacks and nobody owns, in the order in which it was written.
    unflushed: BTreeSet<(Version, String)>,
}

impl Behind {
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    fn lacks(&self, cell: &Cell) -> bool {
        self.on && cell.owner.is_none() && !cell.flushed
    }

    pub(super) fn comes(&mut self, key: &str, cell: &Cell) {
        if self.lacks(cell) {
            self.unflushed.insert((cell.stored.version, key.to_owned()));
        }
    }

    pub(super) fn goes(&mut self, key: &str, cell: &Cell) {
        if self.lacks(cell) {
            self.unflushed.remove(&(cell.stored.version, key.to_owned()));
        }
    }

    pub(super) fn record(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        self.on.then(|| (BEHIND_KEY.to_vec(), record::encode(&true)))
    }

    pub(super) fn take_change(&mut self) -> Option<Change> {
        let changed = std::mem::take(&mut self.changed);
        changed.then(|| Change { key: BEHIND_KEY.to_vec(), value: Some(record::encode(&true)) })
    }
}

impl Memory {
    /// Whether values lie in Redis, and here only what it may lack.
    pub fn is_behind(&self) -> bool {
        self.behind.on
    }

    /// What Redis lacks and nobody owns, oldest first.
    pub fn unflushed(&self) -> impl Iterator<Item = (&String, &Cell)> {
        self.behind.unflushed.iter().map(|(_, key)| (key, &self.cells[key]))
    }

    /// Whether what this has of a key is all that there is.
    pub fn knows(&self, key: &str) -> bool {
        !self.behind.on || self.cells.contains_key(key)
    }

    pub(super) fn begin_behind(&mut self) -> Applied {
        if !self.behind.on {
            (self.behind.on, self.behind.changed) = (true, true);
            for (key, cell) in &self.cells {
                self.behind.comes(key, cell);
            }
        }
        Applied::Noted
    }

    pub(super) fn flushed(&mut self, flushed: &Remove) -> Applied {
        let its = |cell: &&Cell| self.behind.lacks(cell) && cell.stored.version == flushed.version;
        let Some(cell) = self.cells.get(&flushed.key).filter(its).cloned() else { return Applied::Void };
        self.changed_cells.insert(flushed.key.clone());
        self.remove(&flushed.key);
        if cell.stored.expires_ms > 0 {
            self.insert(&flushed.key, Cell { flushed: true, ..cell });
        }
        Applied::Noted
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cache::change::Expires;
    use crate::cache::memory::{Command, Own};
    use crate::cache::message::WriteId;
    use crate::ids::{At, Incarnation, NodeId};

    fn apply(memory: &mut Memory, index: u64, command: &Command) -> Applied {
        let applied = memory.apply(At { index, stamp_ms: 100, wall_ms: 0, generation: 0 }, command);
        memory.take_changes();
        let mut restored = Memory::default();
        for (key, value) in memory.records() {
            restored.restore(&key, &value).expect("our own record");
        }
        restored.advance(index);
        assert_eq!(restored, *memory, "after {command:?}");
        applied
    }

    fn through(key: &str, value: Option<&'static str>, expires: Expires) -> Command {
        let write = WriteId { session: 1, sequence: 1 };
        let own = Own::refusal(key.into(), NodeId::numbered(1), Incarnation(1), write);
        Command::Own(Own { value: value.map(Bytes::from), expires, through: true, refused: false, ..own })
    }

    fn flushed(key: &str, epoch: u64) -> Command {
        Command::Flushed(Remove { key: key.into(), version: Version { epoch, count: 0 } })
    }

    fn lacking(memory: &Memory) -> Vec<&str> {
        memory.unflushed().map(|(key, _)| key.as_str()).collect()
    }

    #[test]
    fn what_redis_has_is_forgotten_and_what_it_lacks_is_kept_in_order() {
        let mut memory = Memory::default();
        apply(&mut memory, 1, &through("early", Some("v"), Expires::Never));
        assert!(memory.knows("nothing") && lacking(&memory).is_empty(), "there is no Redis");
        assert_eq!(apply(&mut memory, 2, &flushed("early", 1)), Applied::Void);
        apply(&mut memory, 3, &Command::Behind);
        apply(&mut memory, 4, &through("z", Some("v"), Expires::Never));
        apply(&mut memory, 5, &through("a", None, Expires::Never));
        assert_eq!(lacking(&memory), ["early", "z", "a"], "a deletion too");
        assert!(memory.knows("a") && memory.stored("a").value.is_none() && !memory.knows("nothing"));
        assert_eq!(apply(&mut memory, 6, &flushed("z", 3)), Applied::Void, "another value");
        assert_eq!(apply(&mut memory, 7, &flushed("z", 4)), Applied::Noted);
        assert_eq!(apply(&mut memory, 8, &flushed("a", 5)), Applied::Noted);
        assert!(!memory.knows("z") && !memory.knows("a"));
        assert_eq!(lacking(&memory), ["early"]);
        // A key that goes by itself stays here until then, and Redis is told of its end.
        apply(&mut memory, 9, &through("t", Some("v"), Expires::In(50)));
        assert_eq!(apply(&mut memory, 10, &flushed("t", 9)), Applied::Noted);
        assert_eq!((lacking(&memory), memory.knows("t")), (vec!["early"], true));
        let remove = Command::Remove(Remove { key: "t".into(), version: Version { epoch: 9, count: 0 } });
        assert_eq!(apply(&mut memory, 11, &remove), Applied::Removed);
        assert_eq!(lacking(&memory), ["early", "t"]);
        assert_eq!(apply(&mut memory, 12, &flushed("t", 11)), Applied::Noted);
        assert_eq!((memory.knows("t"), memory.bytes()), (false, 6));
    }
}
