//! What crashes at every batch leave, and sled's own traps. What the store means is in the conformance suite, `storage/suite.rs`.

use super::*;
use crate::storage::testing::*;

const CACHE: u64 = 1024 * 1024;

fn many(count: usize, value: &str) -> Vec<(String, String)> {
    (0..count).map(|number| (format!("q{number:05}"), format!("{value} {number}"))).collect()
}

fn put(pairs: &[(String, String)], index: u64) -> Checkpoint {
    let changes: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect();
    checkpoint(G, index, 1, &changes)
}

fn values(store: &SledStore) -> Vec<String> {
    let (_, records) = store.load(G).unwrap();
    records.into_iter().map(|(_, value)| String::from_utf8(value.to_vec()).unwrap()).collect()
}

fn of(pairs: &[(String, String)]) -> Vec<String> {
    pairs.iter().map(|(_, value)| value.clone()).collect()
}

#[test]
fn a_large_checkpoint_is_there_as_a_whole_or_not_at_all_wherever_it_is_cut() {
    let (old, new) = (many(2500, "old"), many(2500, "new"));
    let mut happened = Vec::new();
    for batches in 0..12 {
        let directory = tempfile::tempdir().unwrap();
        let mut store = SledStore::open(directory.path(), false, CACHE).unwrap();
        store.checkpoint(&put(&old, 5)).unwrap();
        store.batches_left = Some(batches);
        let done = store.checkpoint(&put(&new, 9)).is_ok();
        drop(store);
        let store = SledStore::open(directory.path(), false, CACHE).unwrap();
        let (applied, _) = store.load(G).unwrap();
        match applied.index {
            5 => assert_eq!((values(&store), done), (of(&old), false), "after {batches} batches"),
            9 => assert_eq!(values(&store), of(&new), "after {batches} batches"),
            other => panic!("a checkpoint at {other} after {batches} batches"),
        }
        assert_eq!(store.database.tree.range(keys::all_staged(G)).count(), 0, "after {batches} batches");
        happened.push((applied.index == 9, done));
    }
    assert_eq!(happened.first(), Some(&(false, false)));
    assert!(happened.contains(&(true, false)), "cut between the moment it happens and its end: {happened:?}");
    assert_eq!(happened.last(), Some(&(true, true)));
}

#[test]
fn a_snapshot_replaces_the_state_as_a_whole_wherever_it_is_cut() {
    let (old, new) = (many(50, "old"), many(2500, "new"));
    let pairs: Vec<_> = new.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let snapshot = snapshot(9, 1, &pairs);
    let mut happened = Vec::new();
    for batches in 0..8 {
        let directory = tempfile::tempdir().unwrap();
        let mut store = SledStore::open(directory.path(), false, CACHE).unwrap();
        store.checkpoint(&put(&old, 5)).unwrap();
        store.batches_left = Some(batches);
        let done = store.install(G, &snapshot).is_ok();
        drop(store);
        let store = SledStore::open(directory.path(), false, CACHE).unwrap();
        let (applied, _) = store.load(G).unwrap();
        let expected = if applied.index == 9 { of(&new) } else { of(&old) };
        assert_eq!(values(&store), expected, "after {batches} batches");
        assert_eq!(store.database.tree.len(), expected.len() + 1, "nothing of another generation is left");
        happened.push((applied.index == 9, done));
    }
    assert_eq!(happened.first(), Some(&(false, false)));
    assert!(happened.contains(&(true, false)), "{happened:?}");
    assert_eq!(happened.last(), Some(&(true, true)));
}

#[test]
fn what_a_killed_start_leaves_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SledStore::open(directory.path(), false, CACHE).unwrap();
    store.checkpoint(&put(&many(3, "v"), 5)).unwrap();
    store.sync().unwrap();
    drop(store);
    let half = directory.path().join("sled-1/snap.FFFFFFFFFFFFFFFF.generating");
    std::fs::write(&half, b"half a snapshot").unwrap();
    let store = SledStore::open(directory.path(), false, CACHE).unwrap();
    assert_eq!(values(&store).len(), 3);
    assert!(!half.exists());
    drop(store);
    let store = SledStore::open(directory.path(), true, CACHE).unwrap();
    assert_eq!(values(&store).len(), 0, "a first start begins anew");
}

#[test]
fn a_file_in_blobs_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SledStore::open(directory.path(), false, CACHE).unwrap();
    std::fs::write(directory.path().join("sled-1/blobs").join("123"), b"a value").unwrap();
    let error = store.sync().unwrap_err();
    assert!(error.to_string().contains("blobs/123"), "{error}");
    assert!(store.checkpoint(&put(&many(3, "v"), 5)).is_err(), "an error is final");
    drop(store);
    assert!(matches!(SledStore::open(directory.path(), false, CACHE), Err(StorageError::Corrupt { .. })));
}

#[test]
fn large_values_side_by_side_make_no_blobs() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SledStore::open(directory.path(), false, CACHE).unwrap();
    let value = "x".repeat(STORED_BYTES_MAX - 1);
    for index in 1..=300 {
        let key = format!("q{index:03}");
        store.checkpoint(&checkpoint(G, index, 1, &[(&key, Some(&value)), ("q", Some(&value.repeat(3)))])).unwrap();
    }
    store.sync().unwrap();
    assert_eq!(std::fs::read_dir(directory.path().join("sled-1/blobs")).unwrap().count(), 0);
}

#[test]
fn a_store_that_is_mostly_dead_is_written_anew_and_says_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let mut store = SledStore::open(&path, false, CACHE).unwrap();
    let reader = copy::SharedTree::clone(&store.shared);
    let (value, mut index) = ("v".repeat(2_000), 0);
    let mut largest = 0;
    for round in 0..40 {
        index += 1;
        store.checkpoint(&put(&many(400, &format!("{value} {round}")), index)).unwrap();
        store.sync().unwrap();
        largest = largest.max(store.bytes_on_disk());
        store.tend().unwrap();
    }
    let small = many(3, "left");
    let mut changes = put(&small, index + 1);
    changes.changes.extend((3..400).map(|number| Change { key: format!("q{number:05}").into_bytes(), value: None }));
    store.checkpoint(&changes).unwrap();
    store.sync().unwrap();
    store.tend().unwrap();
    assert!(store.database.number > 1, "{largest} bytes were the most");
    assert!(store.live_bytes < 2_000, "{} bytes live", store.live_bytes);
    assert_eq!(values(&store), of(&small));
    assert_eq!(
        reader.get().iter().count(),
        store.database.tree.iter().count(),
        "whoever reads beside it reads the new one"
    );
    let number = store.database.number;
    drop((store, reader));
    // What a crash in the middle of the next time would leave: a copy that does not count.
    let half = path.join(format!("sled-{}", number + 1));
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("db"), b"half").unwrap();
    let store = SledStore::open(&path, false, CACHE).unwrap();
    assert_eq!((values(&store), store.database.number, half.exists()), (of(&small), number, false));
    assert_eq!(store.load(G).unwrap().0.index, index + 1);
}
