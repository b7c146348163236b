//! A copy against the state store that it is made of, while that changes.

use std::collections::BTreeMap;

use crate::node::effect::Checkpoint;
use crate::raft::Snapshot;
use crate::record::Change;
use crate::storage::{StateDisk, StateOptions, StateStore};

use super::*;

const GROUP: GroupId = GroupId(2);

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store that is copied, and what stood in it at each index.
struct Bench {
    _folder: tempfile::TempDir,
    backups: Arc<Backups>,
    world: Arc<Mutex<World>>,
}

struct World {
    store: Watched<StateDisk>,
    dice: u64,
    index: Index,
    state: State,
    at: BTreeMap<Index, State>,
    /// Records that change with each checkpoint.
    busy: usize,
}

impl World {
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % sides
    }

    fn change(&mut self, key: Vec<u8>) -> Change {
        let index = self.index;
        let value = match self.roll(8) {
            0 => None,
            // In chunks.
            1 => Some(vec![u8::try_from(index % 251).unwrap(); 70_000 + usize::try_from(self.roll(90_000)).unwrap()]),
            _ => Some(index.to_be_bytes().to_vec()),
        };
        Change { key, value }
    }

    fn checkpoint(&mut self, count: usize, keys: u64, whole: bool) {
        self.index += 1;
        let keys: Vec<Vec<u8>> = (0..count).map(|_| format!("q{:05}", self.roll(keys)).into_bytes()).collect();
        let changes: Vec<Change> = keys.into_iter().map(|key| self.change(key)).collect();
        self.write(changes, whole);
    }

    fn write(&mut self, changes: Vec<Change>, whole: bool) {
        for Change { key, value } in &changes {
            match value {
                Some(value) => self.state.insert(key.clone(), value.clone()),
                None => self.state.remove(key),
            };
        }
        let meta = SnapshotMeta { index: self.index, term: 1, ..SnapshotMeta::default() };
        if whole {
            self.at.insert(self.index, self.state.clone());
        }
        self.store.checkpoint(&Checkpoint { group: GROUP, meta, changes, whole }).unwrap();
    }
}

/// A replica whose whole checkpoints bring changes of their own.
#[derive(Clone)]
struct Replica(Arc<Mutex<World>>);

impl Source for Replica {
    async fn whole(&self, group: GroupId) -> Result<Index, Error> {
        assert_eq!(group, GROUP);
        let mut world = self.0.lock().unwrap();
        let busy = world.busy;
        world.checkpoint(3, 300, false);
        world.checkpoint(busy, 300, true);
        Ok(world.index)
    }

    fn members(&self, _: GroupId) -> (Vec<String>, Vec<String>) {
        (vec!["node1".into()], Vec::new())
    }
}

impl Bench {
    fn new(seed: u64, records: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = StateDisk::open_at(folder.path(), true, 3, &StateOptions::default()).unwrap();
        let tracker = Arc::new(Tracker::default());
        let backups = Arc::new(Backups::new(store.reader(), Arc::clone(&tracker)));
        let store = Watched { store, tracker };
        let (state, at) = (State::new(), BTreeMap::new());
        let mut world = World { store, dice: seed, index: 0, state, at, busy: 5 };
        for _ in 0..records.div_ceil(500) {
            world.checkpoint(500, 20_000, false);
        }
        Self { _folder: folder, backups, world: Arc::new(Mutex::new(world)) }
    }

    async fn begin(&self) -> Result<u64, Error> {
        Ok(self.backups.begin(GROUP, 0).await?.backup)
    }

    async fn read(&self, backup: u64, part: u32) -> Result<BackupPart, Error> {
        self.backups.read(BackupRead { backup, part }, Replica(Arc::clone(&self.world))).await
    }

    /// Reads a copy to its end, with changes between its parts; what it holds, and where it stands.
    async fn copy(&self, changes: usize) -> Result<(State, Index), Error> {
        let backup = self.begin().await?;
        let (mut pairs, mut state) = (pairs::Pairs::default(), State::new());
        for part in 0.. {
            let made = self.read(backup, part).await?;
            assert!(made.bytes.len() <= BACKUP_PART_BYTES_MAX);
            assert_eq!(self.read(backup, part).await?, made, "the same part again");
            for Change { key, value } in pairs.push(&made.bytes).unwrap() {
                match value {
                    Some(value) => state.insert(key, value),
                    None => state.remove(&key),
                };
            }
            if let Some(stands) = made.stands {
                pairs.end().unwrap();
                return Ok((state, stands.index));
            }
            let mut world = self.world.lock().unwrap();
            for _ in 0..changes.div_ceil(1_000) {
                world.checkpoint(changes.min(1_000), 20_000, false);
            }
        }
        unreachable!("parts have an end")
    }

    fn is_of_one_instant(&self, (state, index): &(State, Index)) {
        let world = self.world.lock().unwrap();
        let expected = &world.at[index];
        assert_eq!(state.len(), expected.len());
        for (key, value) in expected {
            assert!(state.get(key) == Some(value), "{} at {index}", String::from_utf8_lossy(key));
        }
    }
}

#[tokio::test]
async fn a_copy_of_a_store_that_changes_is_of_one_instant() {
    for seed in 0..6 {
        let bench = Bench::new(seed, 1_000);
        let copy = bench.copy(if seed == 0 { 0 } else { 40 }).await.unwrap();
        bench.is_of_one_instant(&copy);
        assert_eq!(bench.backups.tracker.noted(1), Err("it has ended"));
    }
}

#[tokio::test]
async fn what_has_changed_too_much_to_be_read_at_once_is_read_again_first() {
    let bench = Bench::new(7, 1_500);
    bench.world.lock().unwrap().busy = 50;
    let backup = bench.begin().await.unwrap();
    bench.read(backup, 0).await.unwrap();
    {
        // Twice as many small records as are read at once.
        let mut world = bench.world.lock().unwrap();
        for round in 0..40 {
            world.index += 1;
            let change =
                |number: usize| Change { key: format!("r{round}-{number}").into_bytes(), value: Some(vec![1]) };
            world.write((0..2 * LAST_RECORDS_MAX / 40).map(change).collect(), false);
        }
    }
    let copy = bench.copy(30).await.unwrap();
    bench.is_of_one_instant(&copy);
    let (mut part, mut last) = (1, None);
    while last.is_none() {
        last = bench.read(backup, part).await.unwrap().stands;
        part += 1;
    }
}

#[tokio::test]
async fn so_many_copies_are_made_at_once_and_no_more() {
    let bench = Bench::new(1, 10);
    let mut copies = Vec::new();
    for _ in 0..BACKUPS_MAX {
        copies.push(bench.begin().await.unwrap());
    }
    let refused = bench.begin().await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Overloaded);
    // One that is through makes room.
    let mut part = 0;
    while bench.read(copies[0], part).await.unwrap().stands.is_none() {
        part += 1;
    }
    bench.begin().await.unwrap();
}

#[tokio::test]
async fn parts_come_in_turn_and_a_copy_that_is_over_is_said_to_be() {
    let bench = Bench::new(1, 1_000);
    let backup = bench.begin().await.unwrap();
    assert_eq!(bench.read(backup + 1, 0).await.unwrap_err().code, ErrorCode::InvalidArgument);
    bench.read(backup, 0).await.unwrap();
    bench.read(backup, 1).await.unwrap();
    assert_eq!(bench.read(backup, 0).await.unwrap_err().code, ErrorCode::InvalidArgument);
    assert!(bench.read(backup, 2).await.unwrap_err().message.contains("there is no such copy"));
    // A state that came anew from the leader is no longer the one that was copied.
    let backup = bench.begin().await.unwrap();
    let meta = SnapshotMeta { index: 1_000, term: 1, ..SnapshotMeta::default() };
    let snapshot = Snapshot { meta, data: Bytes::new() };
    bench.world.lock().unwrap().store.install(GROUP, &snapshot).unwrap();
    assert!(bench.read(backup, 0).await.unwrap_err().message.contains("anew"));
}
