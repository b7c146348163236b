//! The records say what the state says, and an ownership ends as it should.

use super::*;

fn at(index: Index) -> At {
    At { index, stamp_ms: 0, wall_ms: 0, generation: 0 }
}

fn node(number: usize) -> (NodeId, Incarnation) {
    (NodeId::numbered(number), Incarnation(number as u64 * 10))
}

fn own(key: &str, number: usize, value: Option<&'static str>, replaces: Option<Index>) -> Command {
    let (node, incarnation) = node(number);
    let write = WriteId { session: number as u64, sequence: 1 };
    let own = Own::refusal(key.into(), node, incarnation, write);
    Command::Own(Own { value: value.map(Bytes::from), replaces, refused: false, ..own })
}

fn write_back(key: &str, number: usize, epoch: Index, dirty: Option<(u64, &'static str)>, end: bool) -> Command {
    let (node, incarnation) = node(number);
    let versioned = |(count, value): (u64, &'static str)| Versioned::new(Version { epoch, count }, Some(value.into()));
    Command::WriteBack(WriteBack { key: key.into(), node, incarnation, epoch, dirty: dirty.map(versioned), end })
}

/// Memory, and beside it what a state store has that is given the changes after each command.
#[derive(Default)]
struct Kept {
    memory: Memory,
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Kept {
    fn apply(&mut self, index: Index, command: &Command) -> Applied {
        let applied = self.memory.apply(at(index), command);
        for Change { key, value } in self.memory.take_changes() {
            match value {
                Some(value) => drop(self.stored.insert(key, value)),
                None => drop(self.stored.remove(&key)),
            }
        }
        let records: BTreeMap<Vec<u8>, Vec<u8>> = self.memory.records().into_iter().collect();
        assert_eq!(self.stored, records, "after {command:?}");
        let mut restored = Memory::default();
        for (key, value) in &self.stored {
            restored.restore(key, value).expect("our own record");
        }
        restored.advance(index);
        assert_eq!(restored, self.memory, "after {command:?}");
        let bytes: usize = self.memory.cells().map(|(key, cell)| size(key, cell)).sum();
        assert_eq!(self.memory.bytes(), bytes, "after {command:?}");
        applied
    }

    fn value(&self, key: &str) -> Option<String> {
        self.memory.stored(key).value.map(|value| String::from_utf8_lossy(&value).into_owned())
    }
}

#[test]
fn what_a_key_goes_through_is_what_the_records_say() {
    let mut kept = Kept::default();
    let (one, life) = node(1);
    assert_eq!(kept.apply(1, &Command::Join { node: one, incarnation: life }), Applied::Joined);
    assert_eq!(kept.memory.members().get(&one), Some(&life));
    assert_eq!(kept.apply(2, &own("a", 1, Some("first"), None)), Applied::Owned(2));
    assert_eq!((kept.value("a").as_deref(), kept.memory.bytes()), (Some("first"), 6));
    assert_eq!(kept.apply(3, &own("a", 2, Some("other"), None)), Applied::Void, "somebody owns it");
    assert_eq!(kept.apply(4, &write_back("a", 1, 2, Some((3, "third")), false)), Applied::WrittenBack);
    assert_eq!(kept.apply(5, &write_back("a", 1, 2, Some((1, "old")), false)), Applied::WrittenBack);
    assert_eq!(kept.value("a").as_deref(), Some("third"), "an older value that comes later changes nothing");
    assert_eq!(kept.apply(6, &write_back("a", 2, 2, None, true)), Applied::Void, "it is not the owner");
    assert_eq!(kept.apply(7, &write_back("a", 1, 3, None, true)), Applied::Void, "another ownership");
    assert_eq!(kept.apply(8, &write_back("b", 1, 2, None, true)), Applied::Void, "there is no such key");
    assert!(kept.memory.owner("a").is_some());
    assert_eq!(kept.apply(9, &write_back("a", 1, 2, None, true)), Applied::WrittenBack);
    assert_eq!((kept.memory.owner("a"), kept.value("a").as_deref()), (None, Some("third")), "the value stays");
    assert_eq!(kept.memory.cell("a").map(|cell| cell.writer), Some(one));
    // Deleted by a new owner: the cell stays as long as somebody owns it.
    assert_eq!(kept.apply(10, &own("a", 2, None, None)), Applied::Owned(10));
    assert_eq!((kept.value("a"), kept.memory.bytes()), (None, 1));
    assert_eq!(kept.memory.owner("a").map(|owner| owner.epoch), Some(10));
    assert_eq!(kept.apply(11, &write_back("a", 2, 10, None, true)), Applied::WrittenBack);
    assert_eq!((kept.memory.cell("a"), kept.memory.bytes()), (None, 0));
    assert_eq!(kept.memory.stored("a").version, Version { epoch: 11, count: 0 }, "absence is as new as the log");
    assert_eq!(kept.apply(12, &Command::Leave { node: one, incarnation: Incarnation(11) }), Applied::Void);
    assert_eq!(kept.apply(13, &Command::Leave { node: one, incarnation: life }), Applied::Left);
    assert_eq!(kept.memory.members().len(), 0);
}

#[test]
fn a_release_ends_the_ownerships_of_that_life_alone() {
    let mut kept = Kept::default();
    let keys: Vec<String> = (0..RELEASED_MAX + 2).map(|number| format!("k{number:04}")).collect();
    for (number, key) in keys.iter().enumerate() {
        kept.memory.apply(at(number as Index + 1), &own(key, 1, Some("one"), None));
    }
    kept.memory.apply(at(5_000), &own("other", 2, Some("two"), None));
    let (one, life) = node(1);
    let release = |incarnation| Command::Release { node: one, incarnation };
    assert_eq!(kept.apply(5_001, &release(Incarnation(11))), Applied::Released);
    assert_eq!(kept.memory.owned_by(one, life).count(), RELEASED_MAX + 2, "another life");
    kept.apply(5_002, &release(life));
    assert_eq!(kept.memory.owned_by(one, life).count(), 2);
    kept.apply(5_003, &release(life));
    assert_eq!(kept.memory.owned_by(one, life).next(), None);
    assert_eq!(kept.value("k0000").as_deref(), Some("one"), "the values stay");
    assert!(kept.memory.owner("other").is_some());
}
